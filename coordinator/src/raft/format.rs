//! What snapshots hold, by the version of their format: the bytes of [`State`], and how older ones are read.
//!
//! Owns the shapes of older formats, those of bindings in the log among them. Must not know files. Called by [`super::state_machine`] and, for entries of older
//! logs, by [`super::state`].
//!
//! Invariant. A snapshot that any release wrote is read by the next one; what it does not say has the value that it had for a node of that release.

use std::collections::{BTreeMap, BTreeSet};

use flowstone_proto::message::{LogId, SourceBinding};
use flowstone_sql::catalog::{
    Catalog, Clusters, Database, DatabaseId, ItemKind, Items, Role, RoleId, Schema, SchemaId,
};
use flowstone_types::{Epoch, InstallationId, ObjectId, SourcePosition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::state::{Cleanup, CommitPoint, DurableFailure, State};

/// Version of the snapshot file. 1: before roles. 2: with roles. 3: with failures, clean-up, and the time zones of views and indexes. 4: with positions that say
/// what kind they are. 5: with clusters. 6: with what tables make of messages and what sinks began with.
pub const SNAPSHOT_FORMAT: u32 = 6;

/// Why bytes are not the state of an earlier release, or of this one.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormatError {
    /// They are not what was written.
    #[error(transparent)]
    Bytes(#[from] postcard::Error),
    /// A position belongs to something that is not a source, so nobody knows what it counts.
    #[error("{0} has a position and is no source")]
    NoSource(ObjectId),
}

/// [`SourceBinding`] up to format 3: the position is an LSN or a number of ticks, whichever the source has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingV3 {
    /// The source.
    pub source: ObjectId,
    /// How far it goes.
    pub position: u64,
    /// Tables whose snapshot becomes visible.
    pub snapshots: Vec<ObjectId>,
}

impl BindingV3 {
    /// The same with the kind of the position, as the source in the catalog has it.
    pub(super) fn with_kind(self, catalog: &Catalog) -> Result<SourceBinding, FormatError> {
        Ok(SourceBinding {
            source: self.source,
            position: position_of(catalog, self.source, self.position)?,
            snapshots: self.snapshots,
        })
    }
}

/// What a position without a kind is to a source. Up to format 3 there were these two kinds of sources.
fn position_of(
    catalog: &Catalog,
    source: ObjectId,
    number: u64,
) -> Result<SourcePosition, FormatError> {
    let position = match catalog.items.get(&source).map(|item| &item.kind) {
        Some(ItemKind::Source(source)) => source.kind.position_without_kind(number),
        _ => None,
    };
    position.ok_or(FormatError::NoSource(source))
}

/// [`State`] in formats 1 and 2, and what later ones begin with. A format adds behind what there was: so an older shape is the first field of the next one, since
/// postcard writes a field that is a struct as the fields of that. What catalogs, bindings and commit points are differs by format.
#[derive(Serialize, Deserialize)]
struct StateV1<C, B, P> {
    cluster_id: Option<[u8; 16]>,
    catalog: C,
    secrets: BTreeMap<ObjectId, Vec<u8>>,
    bindings: BTreeMap<Epoch, Vec<B>>,
    commit_point: P,
    oracle_bound: Epoch,
}

/// [`State`] in formats 3 to 5.
#[derive(Serialize, Deserialize)]
struct StateV3<C, B, P> {
    before: StateV1<C, B, P>,
    local_log: Option<LogId>,
    failures: BTreeMap<ObjectId, DurableFailure>,
    cleanup: BTreeMap<ObjectId, Cleanup>,
}

/// [`CommitPoint`] up to format 3.
#[derive(Default, Serialize, Deserialize)]
struct CommitPointV3 {
    epoch: Epoch,
    versions: BTreeMap<ObjectId, i64>,
    positions: BTreeMap<ObjectId, u64>,
    snapshotted: BTreeSet<ObjectId>,
}

/// [`Catalog`] in format 1.
#[derive(Serialize, Deserialize)]
struct CatalogV1 {
    databases: BTreeMap<DatabaseId, Database>,
    schemas: BTreeMap<SchemaId, Schema>,
    items: Items,
    next_id: u64,
    next_oid: u32,
    version: u64,
}

/// [`Catalog`] in format 2.
#[derive(Serialize, Deserialize)]
struct CatalogV2 {
    before: CatalogV1,
    roles: BTreeMap<RoleId, Role>,
}

/// [`Catalog`] in formats 3 and 4.
#[derive(Serialize, Deserialize)]
struct CatalogV3 {
    before: CatalogV2,
    time_zones: BTreeMap<ObjectId, String>,
}

/// [`Catalog`] in format 5.
#[derive(Serialize, Deserialize)]
struct CatalogV5 {
    before: CatalogV3,
    clusters: Clusters,
}

impl From<CatalogV1> for Catalog {
    fn from(before: CatalogV1) -> Self {
        let role = Role::initial();
        let roles = BTreeMap::from([(role.id, role)]);
        CatalogV2 { before, roles }.into()
    }
}

impl From<CatalogV2> for Catalog {
    fn from(before: CatalogV2) -> Self {
        let time_zones = BTreeMap::new();
        CatalogV3 { before, time_zones }.into()
    }
}

impl From<CatalogV3> for Catalog {
    fn from(before: CatalogV3) -> Self {
        let clusters = Clusters::initial();
        CatalogV5 { before, clusters }.into()
    }
}

impl From<CatalogV5> for Catalog {
    fn from(old: CatalogV5) -> Self {
        let CatalogV3 { before, time_zones } = old.before;
        let CatalogV2 { before, roles } = before;
        Self {
            databases: before.databases,
            schemas: before.schemas,
            items: before.items,
            next_id: before.next_id,
            next_oid: before.next_oid,
            version: before.version,
            roles,
            time_zones,
            clusters: old.clusters,
            message_tables: BTreeMap::new(),
            installation: InstallationId::default(),
        }
    }
}

impl<C, B, P> From<StateV1<C, B, P>> for StateV3<C, B, P> {
    fn from(before: StateV1<C, B, P>) -> Self {
        Self {
            before,
            local_log: None,
            failures: BTreeMap::new(),
            cleanup: BTreeMap::new(),
        }
    }
}

impl<C: Into<Catalog>> From<StateV3<C, SourceBinding, CommitPoint>> for State {
    fn from(old: StateV3<C, SourceBinding, CommitPoint>) -> Self {
        let before = old.before;
        Self {
            cluster_id: before.cluster_id,
            catalog: before.catalog.into(),
            secrets: before.secrets,
            bindings: before.bindings,
            commit_point: before.commit_point,
            oracle_bound: before.oracle_bound,
            local_log: old.local_log,
            failures: old.failures,
            cleanup: old.cleanup,
            sink_begins: BTreeMap::new(),
        }
    }
}

impl<C: Into<Catalog>> StateV3<C, BindingV3, CommitPointV3> {
    /// The same with the kinds of positions.
    fn with_kinds(self) -> Result<StateV3<Catalog, SourceBinding, CommitPoint>, FormatError> {
        let before = self.before;
        let catalog: Catalog = before.catalog.into();
        let mut bindings = BTreeMap::new();
        for (epoch, without_kinds) in before.bindings {
            let with_kinds: Result<Vec<SourceBinding>, FormatError> = without_kinds
                .into_iter()
                .map(|binding| binding.with_kind(&catalog))
                .collect();
            bindings.insert(epoch, with_kinds?);
        }
        let mut positions = BTreeMap::new();
        for (source, number) in before.commit_point.positions {
            positions.insert(source, position_of(&catalog, source, number)?);
        }
        Ok(StateV3 {
            before: StateV1 {
                cluster_id: before.cluster_id,
                catalog,
                secrets: before.secrets,
                bindings,
                commit_point: CommitPoint {
                    epoch: before.commit_point.epoch,
                    versions: before.commit_point.versions,
                    positions,
                    snapshotted: before.commit_point.snapshotted,
                },
                oracle_bound: before.oracle_bound,
            },
            local_log: self.local_log,
            failures: self.failures,
            cleanup: self.cleanup,
        })
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
pub(super) fn decode(version: u32, bytes: &[u8]) -> Result<State, FormatError> {
    Ok(match version {
        ..=1 => decode_first::<CatalogV1>(bytes)?,
        2 => decode_first::<CatalogV2>(bytes)?,
        3 => {
            let old: StateV3<CatalogV3, BindingV3, CommitPointV3> = postcard::from_bytes(bytes)?;
            old.with_kinds()?.into()
        }
        4 => postcard::from_bytes::<StateV3<CatalogV3, SourceBinding, CommitPoint>>(bytes)?.into(),
        5 => postcard::from_bytes::<StateV3<CatalogV5, SourceBinding, CommitPoint>>(bytes)?.into(),
        _ => postcard::from_bytes(bytes)?,
    })
}

/// Reads a state in format 1 or 2.
fn decode_first<C: Into<Catalog> + DeserializeOwned>(bytes: &[u8]) -> Result<State, FormatError> {
    let old: StateV1<C, BindingV3, CommitPointV3> = postcard::from_bytes(bytes)?;
    let old: StateV3<C, BindingV3, CommitPointV3> = old.into();
    Ok(old.with_kinds()?.into())
}

#[cfg(test)]
mod tests {
    use flowstone_proto::kafka::{
        Envelope, Format, Include, KafkaColumn, KafkaTable, OnDecodeError,
    };
    use flowstone_proto::message::{SinkBegin, SourceTable};
    use flowstone_sql::catalog::{
        CatalogChange, Cluster, ClusterKind, ClusterSize, MessageTable, Replica, ReplicaId,
        TableSource,
    };
    use flowstone_sql::connector::{Declared, SchemaOrigin, SchemaStrategy};
    use flowstone_types::ClusterId;

    use super::*;
    use crate::raft::{Command, Refusal};

    #[test]
    fn a_state_from_before_roles_has_the_default_role() {
        let mut state = State {
            cluster_id: Some([7; 16]),
            oracle_bound: Epoch(99),
            ..State::default()
        };
        state.catalog.version = 12;
        state.secrets.insert(ObjectId::User(3), vec![1, 2, 3]);
        let old = StateV1::<_, BindingV3, _> {
            cluster_id: state.cluster_id,
            catalog: catalog_v1(&state.catalog),
            secrets: state.secrets.clone(),
            bindings: BTreeMap::new(),
            commit_point: CommitPointV3::default(),
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
        let old = StateV1::<_, BindingV3, _> {
            cluster_id: state.cluster_id,
            catalog: CatalogV2 {
                before: catalog_v1(&state.catalog),
                roles: state.catalog.roles.clone(),
            },
            secrets: state.secrets.clone(),
            bindings: BTreeMap::new(),
            commit_point: CommitPointV3::default(),
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

    const POSTGRES: ObjectId = ObjectId::User(2);
    const GENERATOR: ObjectId = ObjectId::User(3);
    const TABLE: ObjectId = ObjectId::User(4);

    /// What the bindings in `state_v3.hex` say, and the entry of a log below.
    fn bound() -> Vec<SourceBinding> {
        vec![
            SourceBinding {
                source: POSTGRES,
                position: SourcePosition::PostgresLsn(0x16b_3748),
                snapshots: vec![TABLE],
            },
            SourceBinding {
                source: GENERATOR,
                position: SourcePosition::GeneratorTick(42),
                snapshots: Vec::new(),
            },
        ]
    }

    /// Bytes of format 4, made by hand as those of format 3: the same state, but for what positions say.
    #[test]
    fn a_state_from_before_clusters_has_the_default_one_with_everything_in_it() {
        let bytes = hex_bytes(include_str!("format/state_v4.hex"));
        let state = decode(4, &bytes).unwrap();
        assert_eq!(state, state_v3());
        assert_eq!(state.catalog.clusters, Clusters::initial());
        assert_eq!(state.catalog.cluster_of(GENERATOR), ClusterId::DEFAULT);
        let bytes = encode(&state).unwrap();
        assert_eq!(decode(SNAPSHOT_FORMAT, &bytes).unwrap(), state);
    }

    #[test]
    fn clusters_and_what_is_in_them_are_kept_and_their_numbers_are_not_given_again() {
        let mut state = state_v3();
        let cluster = |id| Cluster {
            id: ClusterId(id),
            name: format!("c{id}"),
            comment: Some("mine".to_owned()),
            kind: ClusterKind::Managed(ClusterSize::Cc200),
            replicas: vec![Replica {
                id: ReplicaId(id),
                name: "r1".to_owned(),
                size: Some(ClusterSize::Cc200),
            }],
        };
        let change = |state: &State, changes| Command::CatalogChanges {
            changes,
            expected_version: state.catalog.version,
            secrets: Vec::new(),
        };
        let created = change(
            &state,
            vec![
                CatalogChange::PutCluster(cluster(2)),
                CatalogChange::PutCluster(cluster(3)),
                CatalogChange::PutItemCluster(GENERATOR, ClusterId(3)),
            ],
        );
        let bytes = postcard::to_stdvec(&created).unwrap();
        state.apply(&postcard::from_bytes(&bytes).unwrap()).unwrap();
        let dropped = change(&state, vec![CatalogChange::DropCluster(ClusterId(2))]);
        state.apply(&dropped).unwrap();
        // What is used stays, and so does what is unknown.
        for refused in [
            CatalogChange::DropCluster(ClusterId(3)),
            CatalogChange::DropCluster(ClusterId(2)),
            CatalogChange::PutItemCluster(GENERATOR, ClusterId(2)),
        ] {
            let refused = change(&state, vec![refused]);
            assert!(matches!(state.apply(&refused), Err(Refusal::Invalid(_))));
        }
        let bytes = encode(&state).unwrap();
        let read = decode(SNAPSHOT_FORMAT, &bytes).unwrap();
        assert_eq!(read, state);
        assert_eq!(read.catalog.cluster_of(GENERATOR), ClusterId(3));
        let clusters = &read.catalog.clusters;
        assert_eq!((clusters.next_cluster, clusters.next_replica), (4, 4));
        assert_eq!(clusters.by_id.get(&ClusterId(3)), Some(&cluster(3)));
        // With its items everything about them goes.
        let dropped = change(
            &state,
            vec![
                CatalogChange::DropItem(GENERATOR),
                CatalogChange::DropCluster(ClusterId(3)),
            ],
        );
        state.apply(&dropped).unwrap();
        assert!(state.catalog.clusters.of_items.is_empty());
    }

    /// Bytes of format 5, made by hand: the state of format 4, and behind its time zones the clusters. A second one has the generator in it.
    #[test]
    fn a_state_from_before_messages_has_its_clusters_and_nothing_of_messages_or_sinks() {
        let state = decode(5, &hex_bytes(include_str!("format/state_v5.hex"))).unwrap();
        let mut expected = state_v3();
        let cluster = Cluster {
            id: ClusterId(2),
            name: "c".to_owned(),
            comment: None,
            kind: ClusterKind::Managed(ClusterSize::Cc200),
            replicas: vec![Replica {
                id: ReplicaId(2),
                name: "r1".to_owned(),
                size: Some(ClusterSize::Cc200),
            }],
        };
        let clusters = &mut expected.catalog.clusters;
        clusters.by_id.insert(cluster.id, cluster);
        clusters.of_items.insert(GENERATOR, ClusterId(2));
        (clusters.next_cluster, clusters.next_replica) = (3, 3);
        assert_eq!(state, expected);
        assert!(state.catalog.message_tables.is_empty());
        assert!(state.sink_begins.is_empty());
        let bytes = encode(&state).unwrap();
        assert_eq!(decode(SNAPSHOT_FORMAT, &bytes).unwrap(), state);
    }

    /// There is one format between the last release and this: what is new in it comes behind what there was.
    #[test]
    fn the_begins_of_sinks_are_kept() {
        let mut state = state_v3();
        let begin = SinkBegin {
            collection: TABLE,
            epoch: Epoch(100),
            version: Some(7),
        };
        state.sink_begins.insert(ObjectId::User(9), begin);
        let bytes = encode(&state).unwrap();
        assert_eq!(decode(SNAPSHOT_FORMAT, &bytes).unwrap(), state);
        assert_eq!(SNAPSHOT_FORMAT, 6);
    }

    fn messages() -> MessageTable {
        MessageTable {
            table: KafkaTable {
                key: None,
                value: Format::Json,
                envelope: Envelope::None,
                include: vec![Include::Offset],
                on_decode_error: OnDecodeError::Row,
                columns: vec![KafkaColumn::Value(0), KafkaColumn::Include(0)],
            },
            key_schema: SchemaOrigin::Statement,
            value_schema: SchemaOrigin::Registry {
                connection: ObjectId::User(5),
                strategy: SchemaStrategy::Id(7),
            },
            bare: true,
            declared: Declared::Names,
            key_named: false,
        }
    }

    #[test]
    fn what_tables_make_of_messages_is_kept_and_goes_with_them() {
        let mut state = state_v3();
        let change = |state: &State, changes| Command::CatalogChanges {
            changes,
            expected_version: state.catalog.version,
            secrets: Vec::new(),
        };
        let put = |id| CatalogChange::PutMessageTable(id, Box::new(messages()));
        let unknown = change(&state, vec![put(ObjectId::User(99))]);
        assert!(matches!(state.apply(&unknown), Err(Refusal::Invalid(_))));
        let made = change(&state, vec![put(TABLE)]);
        let bytes = postcard::to_stdvec(&made).unwrap();
        state.apply(&postcard::from_bytes(&bytes).unwrap()).unwrap();
        let bytes = encode(&state).unwrap();
        let read = decode(SNAPSHOT_FORMAT, &bytes).unwrap();
        assert_eq!(read, state);
        assert_eq!(read.catalog.message_tables.get(&TABLE), Some(&messages()));
        let dropped = change(&state, vec![CatalogChange::DropItem(TABLE)]);
        state.apply(&dropped).unwrap();
        assert!(state.catalog.message_tables.is_empty());
    }

    /// What is made anew of the catalog whenever the worker is told is not in it: so a table of a source has the bytes that it always had.
    #[test]
    fn a_table_of_a_source_is_kept_without_what_only_its_connector_reads() {
        let mut table = SourceTable {
            id: TABLE,
            upstream_schema: "s".to_owned(),
            upstream_name: "t".to_owned(),
            upstream_oid: 3,
            columns: Vec::new(),
            key: vec![0],
            upstream: vec![1, 2, 3],
        };
        let fed = |table: &SourceTable| TableSource {
            source: POSTGRES,
            table: table.clone(),
            owned: true,
        };
        let bytes = postcard::to_stdvec(&fed(&table)).unwrap();
        // The source; the table: id, schema, name, OID, no columns, its key; that it is owned.
        assert_eq!(
            bytes,
            [1, 2, 1, 4, 1, b's', 1, b't', 3, 0, 1, 0, 1],
            "{bytes:?}"
        );
        table.upstream.clear();
        let read: TableSource = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(read, fed(&table));
    }

    fn state_v3() -> State {
        decode(3, &hex_bytes(include_str!("format/state_v3.hex"))).unwrap()
    }

    /// Bytes of format 3, made by hand after the types as they were: so that a change of a type in it is noticed.
    #[test]
    fn positions_of_format_3_are_of_the_kinds_of_their_sources() {
        let mut state = state_v3();
        assert_eq!(state.bindings.len(), 2);
        assert_eq!(state.bindings.get(&Epoch(110)), Some(&bound()));
        let tick = SourcePosition::GeneratorTick(43);
        assert_eq!(state.bindings[&Epoch(120)][0].position, tick);
        let expected = CommitPoint {
            epoch: Epoch(100),
            versions: BTreeMap::from([(TABLE, 7)]),
            positions: BTreeMap::from([
                (POSTGRES, SourcePosition::PostgresLsn(0x16b_3000)),
                (GENERATOR, SourcePosition::GeneratorTick(41)),
            ]),
            snapshotted: BTreeSet::new(),
        };
        assert_eq!(state.commit_point, expected);
        assert_eq!(state.local_log, Some(LogId([2; 16])));
        assert_eq!(state.failures[&TABLE].epoch, Epoch(90));
        let cleanup = [
            (ObjectId::User(7), Cleanup::Source(None)),
            (ObjectId::User(8), Cleanup::Collection),
        ];
        assert_eq!(state.cleanup, cleanup.into());
        assert_eq!(state.oracle_bound, Epoch(5_000));
        let zone = state.catalog.time_zones.get(&ObjectId::User(9));
        assert_eq!(zone.map(String::as_str), Some("Europe/Berlin"));
        // In the newest format it is what it was.
        let bytes = encode(&state).unwrap();
        assert_eq!(decode(SNAPSHOT_FORMAT, &bytes).unwrap(), state);
        // What follows in the log goes on from there.
        state
            .apply(&Command::CommitPoint {
                epoch: Epoch(110),
                versions: Vec::new(),
            })
            .unwrap();
        let bound: BTreeMap<_, _> = bound()
            .into_iter()
            .map(|binding| (binding.source, binding.position))
            .collect();
        assert_eq!(state.commit_point.positions, bound);
    }

    /// As above: an entry of a log of format 3, which has the number that `Bind` had.
    #[test]
    fn bindings_in_a_log_of_format_3_are_applied_with_the_kinds_of_their_sources() {
        let entry = hex_bytes("046e020102c8eeac0b01010401032a00");
        let command: Command = postcard::from_bytes(&entry).unwrap();
        let Command::BindV3 { epoch, bindings } = &command else {
            panic!("{command:?}");
        };
        assert_eq!((*epoch, bindings.len()), (Epoch(110), 2));
        assert_eq!(postcard::to_stdvec(&command).unwrap(), entry);
        let mut state = state_v3();
        state.bindings.clear();
        state.apply(&command).unwrap();
        assert_eq!(state.bindings, BTreeMap::from([(Epoch(110), bound())]));
        // What is gone is left out, as it is of any binding; what is no source has no position.
        let of = |source| Command::BindV3 {
            epoch: Epoch(130),
            bindings: vec![BindingV3 {
                source,
                position: 1,
                snapshots: Vec::new(),
            }],
        };
        state.apply(&of(ObjectId::User(99))).unwrap();
        assert_eq!(state.bindings[&Epoch(130)], []);
        assert_eq!(
            state.apply(&of(TABLE)),
            Err(Refusal::Invalid(
                "u4 has a position and is no source".to_owned()
            ))
        );
    }

    #[test]
    fn a_state_whose_positions_belong_to_no_source_is_refused() {
        for source in [TABLE, ObjectId::User(99)] {
            let state = state_v3();
            let catalog = state.catalog;
            let old = StateV3::<_, BindingV3, _> {
                before: StateV1 {
                    cluster_id: state.cluster_id,
                    catalog: CatalogV3 {
                        before: CatalogV2 {
                            before: catalog_v1(&catalog),
                            roles: catalog.roles,
                        },
                        time_zones: catalog.time_zones,
                    },
                    secrets: state.secrets,
                    bindings: BTreeMap::new(),
                    commit_point: CommitPointV3 {
                        positions: BTreeMap::from([(source, 1)]),
                        ..CommitPointV3::default()
                    },
                    oracle_bound: state.oracle_bound,
                },
                local_log: state.local_log,
                failures: state.failures,
                cleanup: state.cleanup,
            };
            let bytes = postcard::to_stdvec(&old).unwrap();
            let refused = decode(3, &bytes).unwrap_err();
            assert!(matches!(refused, FormatError::NoSource(id) if id == source));
        }
    }

    fn catalog_v1(catalog: &Catalog) -> CatalogV1 {
        CatalogV1 {
            databases: catalog.databases.clone(),
            schemas: catalog.schemas.clone(),
            items: catalog.items.clone(),
            next_id: catalog.next_id,
            next_oid: catalog.next_oid,
            version: catalog.version,
        }
    }

    fn hex_bytes(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks_exact(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }
}
