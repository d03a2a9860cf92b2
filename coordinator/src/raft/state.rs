//! The replicated state as a value, and the deterministic function that applies a command to it.
//!
//! No I/O, no clock, no randomness. Invariants: bindings are kept only above the commit point; the commit point never moves back; what belongs to an object
//! goes with its catalog item, except what has to be cleaned up after it.

use std::collections::{BTreeMap, BTreeSet};

use flowstone_proto::message::{Failure, LogId, SinkBegin, SourceBinding};
use flowstone_sql::catalog::{Catalog, CatalogChange, Connection, Item, ItemKind, Source};
use flowstone_types::{Epoch, InstallationId, ObjectId, SourcePosition};
use serde::{Deserialize, Serialize};

use super::command::{Command, Refusal, SealedSecret};
use super::format::{BindingV3, FormatError};

/// Version of the meaning of [`State`]; a node refuses a newer one. 2: with roles. 3: with failures, clean-up, and the time zones of views and indexes.
/// 4: with positions that say what kind they are. 5: with clusters. 6: with what sinks began with.
pub const STATE_FORMAT: u32 = 6;

/// Everything the coordinator must not forget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Identity of this deployment; `None` before the first command.
    pub cluster_id: Option<[u8; 16]>,
    /// What exists.
    pub catalog: Catalog,
    /// Values of secrets, encrypted.
    pub secrets: BTreeMap<ObjectId, Vec<u8>>,
    /// Bindings of epochs above the commit point, in order.
    pub bindings: BTreeMap<Epoch, Vec<SourceBinding>>,
    /// What is in the Delta tables.
    pub commit_point: CommitPoint,
    /// Epochs above this one have not been issued.
    pub oracle_bound: Epoch,
    /// The local log that the worker must have; `None` before it had one.
    pub local_log: Option<LogId>,
    /// Sources and source tables that have failed for good.
    pub failures: BTreeMap<ObjectId, DurableFailure>,
    /// What dropped objects left behind and is not known to be gone.
    pub cleanup: BTreeMap<ObjectId, Cleanup>,
    /// What each sink began with.
    pub sink_begins: BTreeMap<ObjectId, SinkBegin>,
}

/// A failure that stays until the user drops what has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurableFailure {
    /// The first epoch whose reads fail.
    pub epoch: Epoch,
    /// Why.
    pub failure: Failure,
}

/// What has to be removed after an object was dropped, with all that is needed for it: the connection may be dropped as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cleanup {
    /// The directory of a Delta table.
    Collection,
    /// The state files of a source, and its slot upstream if it has one.
    Source(Option<CleanupSlot>),
}

/// A replication slot to drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupSlot {
    /// The server, as it was when the source was dropped.
    pub connection: Connection,
    /// The secrets that the connection names.
    pub secrets: Vec<SealedSecret>,
    /// The slot.
    pub slot: String,
}

/// What is in the Delta tables: a consistent cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPoint {
    /// Everything up to and including this epoch is there.
    pub epoch: Epoch,
    /// The version of each Delta table.
    pub versions: BTreeMap<ObjectId, i64>,
    /// How far each source is at `epoch`.
    pub positions: BTreeMap<ObjectId, SourcePosition>,
    /// Source tables whose snapshot is there.
    pub snapshotted: BTreeSet<ObjectId>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            cluster_id: None,
            catalog: Catalog::initial(),
            secrets: BTreeMap::new(),
            bindings: BTreeMap::new(),
            commit_point: CommitPoint::default(),
            oracle_bound: Epoch::MIN,
            local_log: None,
            failures: BTreeMap::new(),
            cleanup: BTreeMap::new(),
            sink_begins: BTreeMap::new(),
        }
    }
}

impl State {
    /// Says in the catalog whose it is: what the catalog is written as does not.
    pub(crate) fn name_catalog(&mut self) {
        self.catalog.installation = InstallationId(self.cluster_id.unwrap_or_default());
    }

    /// Applies one command.
    ///
    /// # Errors
    /// [`Refusal`] if it does not fit the state, which is then unchanged.
    pub fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::ClusterInit {
                format_version,
                cluster_id,
            } => {
                if *format_version > STATE_FORMAT {
                    return Err(Refusal::Invalid(format!(
                        "state format {format_version} is newer than {STATE_FORMAT}"
                    )));
                }
                self.cluster_id.get_or_insert(*cluster_id);
                Ok(())
            }
            Command::CatalogChanges {
                changes,
                expected_version,
                secrets,
            } => {
                self.change_catalog(changes, *expected_version)?;
                for secret in secrets {
                    self.secrets.insert(secret.id, secret.sealed.clone());
                }
                Ok(())
            }
            Command::PutSecret(secret) => {
                self.secrets.insert(secret.id, secret.sealed.clone());
                Ok(())
            }
            Command::DropSecret(id) => {
                self.secrets.remove(id);
                Ok(())
            }
            Command::BindV3 { epoch, bindings } => self.bind_v3(*epoch, bindings),
            Command::CommitPoint { epoch, versions } => self.advance_commit_point(*epoch, versions),
            Command::OracleBound { epoch } => {
                self.oracle_bound = self.oracle_bound.max(*epoch);
                Ok(())
            }
            Command::LocalLog(id) => {
                self.local_log.get_or_insert(*id);
                Ok(())
            }
            Command::Fail { epoch, failures } => {
                for (id, failure) in failures {
                    // What was dropped meanwhile has no readers any more; the first failure is the one that they were told.
                    if self.catalog.items.contains_key(id) {
                        self.failures.entry(*id).or_insert_with(|| DurableFailure {
                            epoch: *epoch,
                            failure: failure.clone(),
                        });
                    }
                }
                Ok(())
            }
            Command::CleanedUp(id) => {
                self.cleanup.remove(id);
                Ok(())
            }
            Command::Bind { epoch, bindings } => self.bind(*epoch, bindings),
        }
    }

    fn change_catalog(&mut self, changes: &[CatalogChange], expected: u64) -> Result<(), Refusal> {
        let actual = self.catalog.version;
        if actual != expected {
            return Err(Refusal::CatalogMoved { expected, actual });
        }
        let mut catalog = self.catalog.clone();
        catalog
            .apply(changes)
            .map_err(|error| Refusal::Invalid(error.message))?;
        let before = std::mem::replace(&mut self.catalog, catalog);
        let dropped = || {
            changes.iter().filter_map(|change| match change {
                CatalogChange::DropItem(id) => before.items.get(id),
                _ => None,
            })
        };
        let gone: Vec<&Item> = dropped()
            .filter(|item| !self.catalog.items.contains_key(&item.id))
            .collect();
        // Secrets that go in the same statement are still needed to reach the server.
        for item in &gone {
            if let Some(cleanup) = self.cleanup_of(&before, item) {
                self.cleanup.insert(item.id, cleanup);
            }
        }
        for item in gone {
            self.forget(item.id);
        }
        for change in changes {
            if let CatalogChange::PutItem(item) = change {
                self.note_begin(item);
            }
        }
        Ok(())
    }

    /// A sink that is new, or writes another collection than before, begins with what that has at the commit point.
    fn note_begin(&mut self, item: &Item) {
        let ItemKind::Sink(sink) = &item.kind else {
            return;
        };
        let known = self.sink_begins.get(&item.id);
        let is_known = known.is_some_and(|begin| begin.collection == sink.from);
        if is_known || !self.catalog.items.contains_key(&item.id) {
            return;
        }
        let begin = SinkBegin {
            collection: sink.from,
            epoch: self.commit_point.epoch,
            version: self.commit_point.versions.get(&sink.from).copied(),
        };
        self.sink_begins.insert(item.id, begin);
    }

    /// What an item leaves behind when it goes.
    fn cleanup_of(&self, catalog: &Catalog, item: &Item) -> Option<Cleanup> {
        match &item.kind {
            ItemKind::Table { .. }
            | ItemKind::Progress { .. }
            | ItemKind::MaterializedView { .. } => Some(Cleanup::Collection),
            ItemKind::Source(source) => Some(Cleanup::Source(self.slot_of(catalog, source))),
            ItemKind::View { .. }
            | ItemKind::Index { .. }
            | ItemKind::Secret
            | ItemKind::Connection(_)
            | ItemKind::Sink(_) => None,
        }
    }

    fn slot_of(&self, catalog: &Catalog, source: &Source) -> Option<CleanupSlot> {
        let slot = source.kind.slot()?;
        let connection = source.kind.connection()?;
        let ItemKind::Connection(connection) = &catalog.items.get(&connection)?.kind else {
            return None;
        };
        let secrets = connection.secrets().into_iter().filter_map(|id| {
            Some(SealedSecret {
                id,
                sealed: self.secrets.get(&id)?.clone(),
            })
        });
        Some(CleanupSlot {
            connection: connection.clone(),
            secrets: secrets.collect(),
            slot,
        })
    }

    fn forget(&mut self, id: ObjectId) {
        self.failures.remove(&id);
        self.secrets.remove(&id);
        self.sink_begins.remove(&id);
        self.commit_point.versions.remove(&id);
        self.commit_point.positions.remove(&id);
        self.commit_point.snapshotted.remove(&id);
        for bindings in self.bindings.values_mut() {
            bindings.retain(|binding| binding.source != id);
            for binding in bindings {
                binding.snapshots.retain(|table| *table != id);
            }
        }
    }

    /// Bindings of an earlier release: what their positions are is what the sources read.
    fn bind_v3(&mut self, epoch: Epoch, bindings: &[BindingV3]) -> Result<(), Refusal> {
        let known = bindings
            .iter()
            .filter(|binding| self.catalog.items.contains_key(&binding.source));
        let bindings: Vec<SourceBinding> = known
            .map(|binding| binding.clone().with_kind(&self.catalog))
            .collect::<Result<_, FormatError>>()
            .map_err(|error| Refusal::Invalid(error.to_string()))?;
        self.bind(epoch, &bindings)
    }

    fn bind(&mut self, epoch: Epoch, bindings: &[SourceBinding]) -> Result<(), Refusal> {
        if epoch <= self.commit_point.epoch {
            return Err(Refusal::Invalid(format!(
                "epoch {epoch} is not above the commit point {}",
                self.commit_point.epoch
            )));
        }
        let known = |id: &ObjectId| self.catalog.items.contains_key(id);
        let kept = bindings
            .iter()
            .filter(|binding| known(&binding.source))
            .map(|binding| SourceBinding {
                snapshots: binding
                    .snapshots
                    .iter()
                    .copied()
                    .filter(|table| known(table))
                    .collect(),
                ..binding.clone()
            })
            .collect();
        self.bindings.insert(epoch, kept);
        Ok(())
    }

    fn advance_commit_point(
        &mut self,
        epoch: Epoch,
        versions: &[(ObjectId, i64)],
    ) -> Result<(), Refusal> {
        if epoch < self.commit_point.epoch {
            return Err(Refusal::Invalid(format!(
                "commit point {epoch} is below {}",
                self.commit_point.epoch
            )));
        }
        self.commit_point.epoch = epoch;
        for (id, version) in versions {
            if self.catalog.items.contains_key(id) {
                self.commit_point.versions.insert(*id, *version);
            }
        }
        let above = self.bindings.split_off(&epoch.next());
        for binding in std::mem::replace(&mut self.bindings, above)
            .into_values()
            .flatten()
        {
            self.commit_point
                .positions
                .insert(binding.source, binding.position);
            self.commit_point.snapshotted.extend(binding.snapshots);
        }
        Ok(())
    }
}
