//! What snapshots hold, by the version of their format: the bytes of [`State`], and how older ones are read.
//!
//! Owns the shapes of older formats. Must not know files. Called by [`super::state_machine`].
//!
//! Invariant. A snapshot that any release wrote is read by the next one; what it does not say has the value that it had for a node of that release.

use std::collections::BTreeMap;

use flowstone_proto::message::SourceBinding;
use flowstone_sql::catalog::{Catalog, Database, DatabaseId, Item, Role, RoleId, Schema, SchemaId};
use flowstone_types::{Epoch, ObjectId};
use serde::{Deserialize, Serialize};

use super::state::{CommitPoint, State};

/// Version of the snapshot file. 1: before roles. 2: with roles. 3: with failures, clean-up, and the time zones of views and indexes.
pub const SNAPSHOT_FORMAT: u32 = 3;

/// [`State`] in format 2, and in format 1 but for its catalog.
#[derive(Serialize, Deserialize)]
struct StateV2<C> {
    cluster_id: Option<[u8; 16]>,
    catalog: C,
    secrets: BTreeMap<ObjectId, Vec<u8>>,
    bindings: BTreeMap<Epoch, Vec<SourceBinding>>,
    commit_point: CommitPoint,
    oracle_bound: Epoch,
}

/// [`Catalog`] in format 1.
#[derive(Serialize, Deserialize)]
struct CatalogV1 {
    databases: BTreeMap<DatabaseId, Database>,
    schemas: BTreeMap<SchemaId, Schema>,
    items: BTreeMap<ObjectId, Item>,
    next_id: u64,
    next_oid: u32,
    version: u64,
}

/// [`Catalog`] in format 2.
#[derive(Serialize, Deserialize)]
struct CatalogV2 {
    databases: BTreeMap<DatabaseId, Database>,
    schemas: BTreeMap<SchemaId, Schema>,
    items: BTreeMap<ObjectId, Item>,
    next_id: u64,
    next_oid: u32,
    version: u64,
    roles: BTreeMap<RoleId, Role>,
}

impl From<CatalogV1> for CatalogV2 {
    fn from(old: CatalogV1) -> Self {
        let role = Role::initial();
        Self {
            databases: old.databases,
            schemas: old.schemas,
            items: old.items,
            next_id: old.next_id,
            next_oid: old.next_oid,
            version: old.version,
            roles: BTreeMap::from([(role.id, role)]),
        }
    }
}

impl From<CatalogV2> for Catalog {
    fn from(old: CatalogV2) -> Self {
        Self {
            databases: old.databases,
            schemas: old.schemas,
            items: old.items,
            next_id: old.next_id,
            next_oid: old.next_oid,
            version: old.version,
            roles: old.roles,
            time_zones: BTreeMap::new(),
        }
    }
}

impl<C: Into<CatalogV2>> From<StateV2<C>> for State {
    fn from(old: StateV2<C>) -> Self {
        Self {
            cluster_id: old.cluster_id,
            catalog: old.catalog.into().into(),
            secrets: old.secrets,
            bindings: old.bindings,
            commit_point: old.commit_point,
            oracle_bound: old.oracle_bound,
            ..Self::default()
        }
    }
}

/// The bytes of a state in the newest format.
///
/// # Errors
/// None that is not a bug.
pub(super) fn encode(state: &State) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(state)
}

/// Reads a state in the format `version`, which is at most [`SNAPSHOT_FORMAT`].
///
/// # Errors
/// The bytes are no state.
pub(super) fn decode(version: u32, bytes: &[u8]) -> Result<State, postcard::Error> {
    match version {
        ..=1 => postcard::from_bytes::<StateV2<CatalogV1>>(bytes).map(State::from),
        2 => postcard::from_bytes::<StateV2<CatalogV2>>(bytes).map(State::from),
        _ => postcard::from_bytes(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_from_before_roles_has_the_default_role() {
        let mut state = State {
            cluster_id: Some([7; 16]),
            oracle_bound: Epoch(99),
            ..State::default()
        };
        state.catalog.version = 12;
        state.secrets.insert(ObjectId::User(3), vec![1, 2, 3]);
        let old = StateV2 {
            cluster_id: state.cluster_id,
            catalog: CatalogV1 {
                databases: state.catalog.databases.clone(),
                schemas: state.catalog.schemas.clone(),
                items: state.catalog.items.clone(),
                next_id: state.catalog.next_id,
                next_oid: state.catalog.next_oid,
                version: state.catalog.version,
            },
            secrets: state.secrets.clone(),
            bindings: state.bindings.clone(),
            commit_point: state.commit_point.clone(),
            oracle_bound: state.oracle_bound,
        };
        let bytes = postcard::to_stdvec(&old).unwrap();
        assert_eq!(decode(1, &bytes).unwrap(), state);
        let bytes = encode(&state).unwrap();
        assert_eq!(decode(SNAPSHOT_FORMAT, &bytes).unwrap(), state);
    }

    #[test]
    fn a_state_from_before_failures_and_time_zones_has_none_and_every_view_in_utc() {
        let mut state = State::default();
        state.catalog.version = 12;
        let role = Role::initial();
        state.catalog.roles.insert(role.id, role);
        let old = StateV2 {
            cluster_id: state.cluster_id,
            catalog: CatalogV2 {
                databases: state.catalog.databases.clone(),
                schemas: state.catalog.schemas.clone(),
                items: state.catalog.items.clone(),
                next_id: state.catalog.next_id,
                next_oid: state.catalog.next_oid,
                version: state.catalog.version,
                roles: state.catalog.roles.clone(),
            },
            secrets: state.secrets.clone(),
            bindings: state.bindings.clone(),
            commit_point: state.commit_point.clone(),
            oracle_bound: state.oracle_bound,
        };
        let bytes = postcard::to_stdvec(&old).unwrap();
        assert_eq!(decode(2, &bytes).unwrap(), state);
        state
            .catalog
            .time_zones
            .insert(ObjectId::User(4), "Europe/Berlin".to_owned());
        let bytes = encode(&state).unwrap();
        assert_eq!(decode(SNAPSHOT_FORMAT, &bytes).unwrap(), state);
    }

    /// Bytes that version 1 of this software wrote for an empty node: not made here, so that a change of a type in it is noticed.
    #[test]
    fn a_state_that_an_earlier_release_wrote_is_read() {
        let bytes = hex_bytes(include_str!("format/state_v1.hex"));
        let state = decode(1, &bytes).unwrap();
        assert_eq!(state.cluster_id, Some([1; 16]));
        assert_eq!(state.oracle_bound, Epoch(88));
        assert!(
            state
                .catalog
                .databases
                .values()
                .any(|database| database.name == "a")
        );
        assert_eq!(state.secrets.get(&ObjectId::User(9)), Some(&vec![1, 2]));
        assert!(state.catalog.find_role("materialize").is_some());
    }

    fn hex_bytes(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks_exact(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }
}
