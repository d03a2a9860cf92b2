//! What a person who looks after a node wants to see of each object: its state, how much it holds, how far behind it is.
//!
//! The same facts as in `mz_source_statuses`, `mz_source_statistics`, `mz_kafka_source_partitions`, `mz_sink_statuses`, `mz_sink_statistics`,
//! `mz_hydration_statuses` and `mz_collection_statistics`, put together per object, for callers that cannot ask the worker: what is shown here must be shown
//! above all when the node is in trouble.

use std::collections::{BTreeMap, BTreeSet};

use flowstone_proto::message::SourceStatistics;
use flowstone_types::{Epoch, ObjectId, SourcePosition};

use super::mz_rows::{Counted, counted, is_hydrated, offset, paused, source_type, standing};
use super::{SinkStatistics, SystemContext};
use crate::catalog::{Catalog, Item, ItemKind};

/// What can be done about a view or an index that has failed.
const FAILED_HINT: &str = "Drop it and create it again, or start the node again to have it tried.";

/// One source, table, materialized view, index or sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectState {
    /// Its identity.
    pub id: ObjectId,
    /// The database it is in.
    pub database: String,
    /// The schema it is in.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ObjectKind,
    /// What it belongs to: the source of a table, the relation of an index, what a sink writes.
    pub parent: Option<ObjectId>,
    /// The schema and the name of that.
    pub parent_name: Option<(String, String)>,
    /// How it is.
    pub status: Status,
    /// Since when: milliseconds since the Unix epoch.
    pub status_since_ms: Option<u64>,
    /// Why it is paused, stalled or failed.
    pub error: Option<String>,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// Errors in its data; while there is one, reads fail.
    pub data_errors: u64,
    /// Rows in memory, counting multiplicities; for a source, those of its tables.
    pub rows: Option<u64>,
    /// Bytes of memory; for a source, those of its tables.
    pub bytes: Option<u64>,
    /// How old the newest readable state is, in milliseconds, of a sink what its topic holds; `None` while there is none.
    pub lag_ms: Option<u64>,
    /// For a source and what it feeds.
    pub ingestion: Option<Ingestion>,
    /// For a sink, once it has written.
    pub delivery: Option<SinkStatistics>,
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A source; how `mz_sources` calls what it reads.
    Source(&'static str),
    /// A table that a source feeds.
    SourceTable,
    /// A table written by statements.
    Table,
    /// A materialized view.
    MaterializedView,
    /// An index.
    Index,
    /// A sink; how `mz_sinks` calls what it writes to.
    Sink(&'static str),
}

/// How an object is, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// All is well: up to date, and it can be read.
    Running,
    /// Known to the catalog, not yet to the worker.
    Created,
    /// Connecting.
    Starting,
    /// The snapshot is being read; queries wait for it.
    Snapshotting,
    /// The first state is being computed; queries wait for it.
    Hydrating,
    /// Its cluster, or that of something it is made from, is paused; queries wait for it.
    Paused,
    /// It, or what it is made from, cannot go on for now.
    Stalled,
    /// It cannot be read, or cannot ever go on.
    Failed,
}

/// What a source, or a table that one feeds, has read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingestion {
    /// Rows in the snapshot, as upstream estimates.
    pub snapshot_known: Option<u64>,
    /// Rows of the snapshot read so far.
    pub snapshot_staged: Option<u64>,
    /// Whether the snapshot is visible.
    pub snapshot_committed: bool,
    /// Changes received since the process started.
    pub messages_received: u64,
    /// Bytes received since the process started.
    pub bytes_received: u64,
    /// Newest position known upstream, and newest position in a complete epoch.
    pub offset_known: Option<u64>,
    /// Newest position in a complete epoch.
    pub offset_committed: Option<u64>,
    /// How far behind upstream it is, in the unit of positions; `None` while that is not known of every partition.
    pub offset_lag: Option<u64>,
    /// What a position counts.
    pub offset_unit: &'static str,
    /// For a source itself, not for its tables: the partitions of its topic, ascending. Empty of what has none.
    pub partitions: Vec<PartitionState>,
}

/// A partition of a topic that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Its number.
    pub partition: i32,
    /// Where it ends, as far as is known: after a start what was read before, until the brokers are heard. `None` if nothing is known of it.
    pub offset_known: Option<u64>,
    /// The next offset to be read: what is before it is in a complete epoch. `None` while nothing of the partition is.
    pub offset_committed: Option<u64>,
}

impl PartitionState {
    /// The partitions that a source knows of, ascending; none if it has no such thing.
    pub(super) fn all(statistics: &SourceStatistics) -> Vec<Self> {
        fn offsets(position: Option<&SourcePosition>) -> Option<&BTreeMap<i32, i64>> {
            match position {
                Some(SourcePosition::KafkaOffsets(offsets)) => Some(offsets),
                _ => None,
            }
        }
        let known = offsets(statistics.offset_known.as_ref());
        let committed = offsets(statistics.offset_committed.as_ref());
        let of = |offsets: Option<&BTreeMap<i32, i64>>, partition: i32| {
            u64::try_from(*offsets?.get(&partition)?).ok()
        };
        let named = known.into_iter().chain(committed);
        let named: BTreeSet<i32> = named.flat_map(|offsets| offsets.keys().copied()).collect();
        let states = named.into_iter().map(|partition| Self {
            partition,
            offset_known: of(known, partition),
            offset_committed: of(committed, partition),
        });
        states.collect()
    }

    /// How many offsets there are that have not been read. Messages may be fewer: transactions and compaction leave gaps.
    #[must_use]
    pub fn lag(&self) -> Option<u64> {
        Some(self.offset_known?.saturating_sub(self.offset_committed?))
    }
}

/// Every source, table, materialized view, index and sink, by identity.
///
/// Cost: O(objects and their dependencies).
#[must_use]
pub fn overview(ctx: &SystemContext<'_>) -> Vec<ObjectState> {
    let mut troubles = Troubles::default();
    let items = ctx.catalog.items.values();
    items
        .filter_map(|item| object(ctx, item, &mut troubles))
        .collect()
}

fn object(ctx: &SystemContext<'_>, item: &Item, troubles: &mut Troubles) -> Option<ObjectState> {
    let (kind, parent) = match &item.kind {
        ItemKind::Source(_) => (ObjectKind::Source(source_type(item)?), None),
        ItemKind::Table { source, .. } => match source {
            Some(fed) => (ObjectKind::SourceTable, Some(fed.source)),
            None => (ObjectKind::Table, None),
        },
        ItemKind::MaterializedView { .. } => (ObjectKind::MaterializedView, None),
        ItemKind::Index { on, .. } => (ObjectKind::Index, Some(*on)),
        ItemKind::Sink(sink) => (ObjectKind::Sink(sink.kind.type_name()), Some(sink.from)),
        ItemKind::Progress { .. }
        | ItemKind::View { .. }
        | ItemKind::Secret
        | ItemKind::Connection(_) => return None,
    };
    let schema = ctx.catalog.schemas.get(&item.schema)?;
    let database = ctx.catalog.databases.get(&schema.database?)?;
    let counted = counted(ctx, item);
    let held = ctx.runtime.collections.get(&item.id);
    let mut state = ObjectState {
        id: item.id,
        database: database.name.clone(),
        schema: schema.name.clone(),
        name: item.name.clone(),
        kind,
        parent,
        parent_name: parent.and_then(|id| qualified_name(ctx.catalog, id)),
        status: Status::Running,
        status_since_ms: None,
        error: None,
        hint: None,
        data_errors: held.map_or(0, |held| held.errors),
        rows: held.map(|held| held.rows),
        bytes: held.map(|held| held.bytes),
        lag_ms: None,
        ingestion: counted
            .as_ref()
            .map(|counted| ingestion(item.id, parent, ctx.catalog, counted)),
        delivery: ctx.runtime.sink_statistics.get(&item.id).copied(),
    };
    if let (ObjectKind::Source(_), Some(counted)) = (kind, &counted) {
        (state.rows, state.bytes) = (Some(counted.rows), Some(counted.bytes));
    }
    match kind {
        ObjectKind::Source(_) | ObjectKind::SourceTable => {
            ingesting(ctx, item, counted.as_ref(), &mut state);
        }
        ObjectKind::Table => {}
        ObjectKind::MaterializedView | ObjectKind::Index => {
            maintained(ctx, item, troubles, &mut state);
        }
        ObjectKind::Sink(_) => delivering(ctx, item, troubles, &mut state),
    }
    let readable = matches!(state.status, Status::Running | Status::Stalled);
    state.lag_ms = frontier(ctx, &state)
        .filter(|_| readable)
        .map(|upper| ctx.runtime.now_ms.saturating_sub(upper.0));
    if state.data_errors > 0 {
        state.status = Status::Failed;
        if state.error.is_none() {
            state.error = held.and_then(|held| held.error.clone());
        }
    }
    Some(state)
}

fn qualified_name(catalog: &Catalog, id: ObjectId) -> Option<(String, String)> {
    let item = catalog.items.get(&id)?;
    let schema = catalog.schemas.get(&item.schema)?;
    Some((schema.name.clone(), item.name.clone()))
}

/// The first epoch of which it does not have all.
fn frontier(ctx: &SystemContext<'_>, state: &ObjectState) -> Option<Epoch> {
    match &state.delivery {
        Some(written) => written.frontier(),
        None => ctx
            .runtime
            .frontiers
            .get(&state.id)
            .map(|(_, upper)| *upper),
    }
}

/// `source`: what feeds it, if it is not a source itself.
fn ingestion(
    id: ObjectId,
    source: Option<ObjectId>,
    catalog: &Catalog,
    counted: &Counted,
) -> Ingestion {
    let kind = catalog.items.get(&source.unwrap_or(id));
    let kind = kind.map(|item| &item.kind);
    let statistics = &counted.statistics;
    let partitions = PartitionState::all(statistics);
    let known = offset(statistics.offset_known.as_ref());
    let committed = offset(statistics.offset_committed.as_ref());
    // A partition whose end is not known yet does not make up for another one.
    let offset_lag = if partitions.is_empty() {
        known
            .zip(committed)
            .map(|(known, committed)| known.saturating_sub(committed))
    } else {
        let mut lags = partitions.iter().map(PartitionState::lag);
        lags.try_fold(0_u64, |sum, lag| Some(sum.saturating_add(lag?)))
    };
    Ingestion {
        snapshot_known: statistics.snapshot_records_known,
        snapshot_staged: statistics.snapshot_records_staged,
        snapshot_committed: counted.snapshot_committed,
        messages_received: statistics.messages_received,
        bytes_received: statistics.bytes_received,
        offset_known: known,
        offset_committed: committed,
        offset_lag,
        offset_unit: match kind {
            Some(ItemKind::Source(source)) => source.kind.connector().offset_unit(),
            _ => "bytes",
        },
        partitions: if source.is_none() {
            partitions
        } else {
            Vec::new()
        },
    }
}

fn ingesting(
    ctx: &SystemContext<'_>,
    item: &Item,
    counted: Option<&Counted>,
    state: &mut ObjectState,
) {
    let standing = standing(ctx, item);
    let committed = counted.is_some_and(|counted| counted.snapshot_committed);
    let begun = counted.is_some_and(|counted| counted.statistics.snapshot_records_staged.is_some());
    state.status = match standing.status {
        "stalled" => Status::Stalled,
        "failed" => Status::Failed,
        "running" if committed => Status::Running,
        "running" => Status::Snapshotting,
        // A table has no state of its own until its snapshot has been read.
        "created" | "starting" if begun && !committed => Status::Snapshotting,
        "starting" => Status::Starting,
        _ => Status::Created,
    };
    state.status_since_ms = standing.changed_at_ms;
    state.error = standing.error;
    state.hint = standing.hint;
}

fn maintained(
    ctx: &SystemContext<'_>,
    item: &Item,
    troubles: &mut Troubles,
    state: &mut ObjectState,
) {
    if let Some((error, since_ms)) = ctx.runtime.dataflow_errors.get(&item.id) {
        state.status = Status::Failed;
        state.status_since_ms = Some(*since_ms);
        state.error = Some(error.clone());
        state.hint = Some(FAILED_HINT.to_owned());
        return;
    }
    if let Some(cluster) = ctx.catalog.paused_by(item.id) {
        state.status = Status::Paused;
        state.error = paused(ctx, item.id);
        state.hint = Some(cluster.resume_hint());
        return;
    }
    let hydrated = is_hydrated(ctx, item).unwrap_or(false);
    state.error = troubles.of(ctx, item);
    if !hydrated {
        state.status = Status::Hydrating;
    } else if state.error.is_some() {
        state.status = Status::Stalled;
    }
}

/// A sink is told by the worker how it is; but not of what keeps changes from coming.
fn delivering(
    ctx: &SystemContext<'_>,
    item: &Item,
    troubles: &mut Troubles,
    state: &mut ObjectState,
) {
    let standing = standing(ctx, item);
    state.status = match standing.status {
        "stalled" => Status::Stalled,
        "failed" => Status::Failed,
        "running" => Status::Running,
        "starting" => Status::Starting,
        _ => Status::Created,
    };
    state.status_since_ms = standing.changed_at_ms;
    state.error = standing.error;
    state.hint = standing.hint;
    if state.status >= Status::Stalled {
        return;
    }
    let Some(from) = state.parent.and_then(|from| ctx.catalog.items.get(&from)) else {
        return;
    };
    if let Some(cluster) = ctx.catalog.paused_by(from.id) {
        state.status = Status::Paused;
        state.error = paused(ctx, from.id);
        state.hint = Some(cluster.resume_hint());
    } else if let Some(trouble) = troubles.of(ctx, from) {
        state.error = Some(trouble);
        if state.status == Status::Running {
            state.status = Status::Stalled;
        }
    }
}

/// What keeps objects from being up to date: that of anything they are made from. Remembered, so that each object is looked at once.
#[derive(Debug, Default)]
struct Troubles(BTreeMap<ObjectId, Option<String>>);

impl Troubles {
    fn of(&mut self, ctx: &SystemContext<'_>, item: &Item) -> Option<String> {
        if let Some(known) = self.0.get(&item.id) {
            return known.clone();
        }
        let own = match &item.kind {
            ItemKind::Source(_)
            | ItemKind::Table {
                source: Some(_), ..
            } => {
                let standing = standing(ctx, item);
                matches!(standing.status, "stalled" | "failed").then(|| {
                    format!(
                        "{} \"{}\" has {}",
                        item.type_name(),
                        item.name,
                        standing.status
                    )
                })
            }
            _ => None,
        };
        // Entered before its dependencies are looked at: a catalog with a cycle would be a bug, but not one to hang on.
        self.0.insert(item.id, own.clone());
        let found = own.or_else(|| {
            item.depends_on
                .iter()
                .filter_map(|id| ctx.catalog.items.get(id))
                .find_map(|item| self.of(ctx, item))
        });
        self.0.insert(item.id, found.clone());
        found
    }
}

#[cfg(test)]
mod tests;
