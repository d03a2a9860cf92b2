//! From catalog items to commands for the worker: what to create for new items, and for all of them after a restart.
//!
//! Owns the order (clusters, collections, then sources, then dataflows, inputs first, then sinks), the resolution of connections and their secrets, and who is told that
//! one was altered. Must not know sessions.
//! Called by `coordinator::start` and by DDL.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use flowstone_proto::kafka::SinkPartition;
use flowstone_proto::message::{
    CleanUp, CollectionDescription, CollectionKind, Command, DataflowDescription, Export, Failure,
    Remains, SinkBegin, SinkDescription, SourceDescription, SourceKind, SourceTable,
    UpstreamConnection,
};
use flowstone_sql::Catalog;
use flowstone_sql::catalog::{
    Connection, Item, ItemKind, Machine, Sink, SourceItemKind, TableSource, arrow_schema,
};
use flowstone_sql::lower::{Lowered, lower, lower_partition};
use flowstone_sql::plan::{plan_index, plan_query};
use flowstone_types::{ClusterId, Epoch, EvalError, EvalErrorKind, ObjectId};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::planning::{Planner, replanning};
use crate::raft::command::SealedSecret;
use crate::raft::{Cleanup, CommitPoint, DurableFailure, State};
use crate::secrets::SecretError;
use crate::vault::Vault;
use crate::worker::Worker;

/// A maintained view or index, ready for the worker, and what of it is recomputed at each change.
#[derive(Debug)]
pub(crate) struct PlannedDataflow {
    description: DataflowDescription,
    key: Option<Vec<usize>>,
    pub(crate) recomputed: Vec<String>,
}

impl PlannedDataflow {
    /// Has the worker try the plan.
    ///
    /// # Errors
    /// Why it cannot be rendered.
    pub(crate) async fn prepare(&self, worker: &Worker) -> Result<(), Error> {
        let DataflowDescription { plan, export, .. } = &self.description;
        worker.prepare(plan.clone(), Some(export.clone())).await
    }
}

/// The values of secrets: those that a change is about to set, and else those that are set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secrets<'a> {
    vault: &'a Vault,
    changed: &'a [SealedSecret],
}

impl<'a> Secrets<'a> {
    /// Those that are set.
    pub(crate) const fn of(vault: &'a Vault) -> Self {
        Self {
            vault,
            changed: &[],
        }
    }

    /// Those that will be set after a change.
    pub(crate) const fn after(vault: &'a Vault, changed: &'a [SealedSecret]) -> Self {
        Self { vault, changed }
    }

    fn value(self, id: ObjectId) -> Result<Zeroizing<Vec<u8>>, Error> {
        match self.changed.iter().find(|secret| secret.id == id) {
            Some(secret) => Ok(self.vault.open(id, &secret.sealed)?),
            None => Ok(self.vault.value(id)?),
        }
    }
}

/// What the expressions of sinks mean that decide on partitions.
pub(crate) type Partitions = BTreeMap<ObjectId, SinkPartition>;

/// What is known of items that existed before this process.
#[derive(Debug, Default)]
pub(crate) struct Past {
    commit_point: CommitPoint,
    /// Sources of which an epoch has something.
    bound: BTreeSet<ObjectId>,
    failures: BTreeMap<ObjectId, DurableFailure>,
    sink_begins: BTreeMap<ObjectId, SinkBegin>,
}

impl Past {
    fn failure(&self, id: ObjectId) -> Option<Failure> {
        self.failures.get(&id).map(|found| found.failure.clone())
    }
}

/// The commands that bring the worker to a recovered state. `change`: as of [`cluster_commands`].
pub(crate) async fn restore_commands(
    machine: Machine,
    vault: &Vault,
    change: u64,
    state: State,
) -> Result<Vec<Command>, Error> {
    let catalog = Arc::new(state.catalog);
    let all: Vec<ObjectId> = catalog.items.keys().copied().collect();
    let (mut dataflows, mut unplanned) = (Vec::new(), Vec::new());
    for (id, planned) in plan_each(&catalog, &all).await? {
        match planned {
            Ok(dataflow) => dataflows.push(dataflow),
            // It could be planned once: what reads it says why it cannot any more, and everything else goes on.
            Err(error) => {
                tracing::error!(%id, %error, "a view or index cannot be planned any more");
                let message = format!("it cannot be planned any more: {error}");
                let error = EvalError::new(EvalErrorKind::NotSupported, message);
                unplanned.push(Command::FailDataflow { id, error });
            }
        }
    }
    let bound = state
        .bindings
        .values()
        .flatten()
        .map(|binding| binding.source);
    let bound = bound
        .chain(state.commit_point.positions.keys().copied())
        .collect();
    let past = Past {
        commit_point: state.commit_point,
        bound,
        failures: state.failures,
        sink_begins: state.sink_begins,
    };
    let mut partitions = Partitions::new();
    for (id, planned) in partition_each(&catalog, &all).await? {
        let planned = planned.unwrap_or_else(|error| {
            tracing::error!(%id, %error, "what decides on the partitions of a sink cannot be planned any more");
            SinkPartition::Unplanned(error.to_string())
        });
        partitions.insert(id, planned);
    }
    let mut commands = cluster_commands(machine, None, &catalog, change);
    commands.extend(install_commands(
        Secrets::of(vault),
        &catalog,
        &all,
        &dataflows,
        &partitions,
        &past,
    )?);
    commands.extend(unplanned);
    commands.extend(clean_up(vault, &state.cleanup));
    Ok(commands)
}

/// The commands that make the worker's clusters those of `after`, where it has those of `before` (`None`: of no node yet): what goes comes first.
/// `change`: what the worker calls this change when it says that a cluster is ready.
pub(crate) fn cluster_commands(
    machine: Machine,
    before: Option<&Catalog>,
    after: &Catalog,
    change: u64,
) -> Vec<Command> {
    let threads = |catalog: &Catalog, id: ClusterId| {
        let cluster = catalog.clusters.by_id.get(&id);
        cluster.map(|cluster| cluster.threads(machine))
    };
    let mut commands = Vec::new();
    for id in before
        .into_iter()
        .flat_map(|before| before.clusters.by_id.keys())
    {
        if !after.clusters.by_id.contains_key(id) {
            commands.push(Command::DropCluster { cluster: *id });
        }
    }
    for (id, cluster) in &after.clusters.by_id {
        let now = cluster.threads(machine);
        // The default one is there from the start, with the threads of the process.
        if *id != ClusterId::DEFAULT && before.and_then(|before| threads(before, *id)) != Some(now)
        {
            commands.push(Command::SetCluster {
                cluster: *id,
                threads: now,
                change,
            });
        }
    }
    commands
}

/// The command that removes what dropped objects left behind, if there is anything.
pub(crate) fn clean_up(vault: &Vault, cleanup: &BTreeMap<ObjectId, Cleanup>) -> Option<Command> {
    let mut work = Vec::new();
    for (id, cleanup) in cleanup {
        let remains = match cleanup {
            Cleanup::Collection => Remains::Collection,
            Cleanup::Source(None) => Remains::Source(None),
            Cleanup::Source(Some(slot)) => {
                let secret = |id: ObjectId| {
                    let sealed = slot.secrets.iter().find(|secret| secret.id == id);
                    let sealed = sealed.ok_or(SecretError::Missing(id))?;
                    Ok(vault.open(id, &sealed.sealed)?)
                };
                match secrets_with(&slot.connection, &secret) {
                    Ok(secrets) => Remains::Source(slot.connection.slot(&secrets, &slot.slot)),
                    Err(error) => {
                        tracing::error!(%id, slot = slot.slot, %error, "the slot of a dropped source cannot be dropped: drop it by hand");
                        continue;
                    }
                }
            }
        };
        work.push(CleanUp { id: *id, remains });
    }
    (!work.is_empty()).then_some(Command::CleanUp(work))
}

/// Plans the dataflows among some items, inputs first.
///
/// # Errors
/// If a query cannot be planned or maintained.
pub(crate) async fn plan_dataflows(
    catalog: &Arc<Catalog>,
    items: &[ObjectId],
) -> Result<Vec<PlannedDataflow>, Error> {
    let planned = plan_each(catalog, items).await?;
    planned.into_iter().map(|(_, planned)| planned).collect()
}

/// Plans the dataflows among some items, inputs first, whatever becomes of the others.
async fn plan_each(
    catalog: &Arc<Catalog>,
    items: &[ObjectId],
) -> Result<Vec<(ObjectId, Result<PlannedDataflow, Error>)>, Error> {
    let wanted = in_dependency_order(catalog, items);
    let catalog = Arc::clone(catalog);
    replanning(move || {
        let planner = Planner::for_catalog(Arc::clone(&catalog));
        let items = wanted.iter().filter_map(|id| catalog.items.get(id));
        let planned = items.filter_map(|item| {
            let planned = AssertUnwindSafe(|| plan_dataflow(&planner, item));
            let planned = catch_unwind(planned)
                .unwrap_or_else(|panic| {
                    let message = EvalError::of_panic(panic.as_ref()).message;
                    Err(Error::Internal(message))
                })
                .transpose()?;
            Some((item.id, planned))
        });
        Ok(planned.collect())
    })
    .await
}

/// What the expressions mean that decide on the partitions of sinks that are new in `after`, or are another there than in `before`.
///
/// # Errors
/// If one cannot be planned.
pub(crate) async fn plan_partitions(
    before: &Catalog,
    after: &Arc<Catalog>,
) -> Result<Partitions, Error> {
    let differs = |item: &&Item| {
        matches!(item.kind, ItemKind::Sink(_))
            && before.items.get(&item.id).map(|item| &item.kind) != Some(&item.kind)
    };
    let sinks: Vec<ObjectId> = after
        .items
        .values()
        .filter(differs)
        .map(|item| item.id)
        .collect();
    let planned = partition_each(after, &sinks).await?;
    planned
        .into_iter()
        .map(|(id, planned)| planned.map(|planned| (id, planned)))
        .collect()
}

/// Plans what decides on the partitions of the sinks among some items, of those of which it is an expression, whatever becomes of the others.
async fn partition_each(
    catalog: &Arc<Catalog>,
    items: &[ObjectId],
) -> Result<Vec<(ObjectId, Result<SinkPartition, Error>)>, Error> {
    let sinks = items.iter().filter_map(|id| {
        let ItemKind::Sink(sink) = &catalog.items.get(id)?.kind else {
            return None;
        };
        let text = sink.kind.partition_expression()?;
        Some((*id, sink.from, text.to_owned()))
    });
    let sinks: Vec<(ObjectId, ObjectId, String)> = sinks.collect();
    if sinks.is_empty() {
        return Ok(Vec::new());
    }
    let catalog = Arc::clone(catalog);
    replanning(move || {
        let planner = Planner::for_catalog(Arc::clone(&catalog));
        let planned = sinks.into_iter().map(|(id, from, text)| {
            let zone = catalog.time_zone(id);
            let plan = || -> Result<SinkPartition, Error> {
                let tree = flowstone_sql::parse::parse_expr(&text)?;
                let planned = planner.with(|ctx| lower_partition(&ctx.in_zone(&zone), from, &tree));
                planned.map_err(Error::Sql)
            };
            let planned = catch_unwind(AssertUnwindSafe(plan)).unwrap_or_else(|panic| {
                let message = EvalError::of_panic(panic.as_ref()).message;
                Err(Error::Internal(message))
            });
            (id, planned)
        });
        Ok(planned.collect())
    })
    .await
}

/// The commands that create `items`, in an order in which each finds what it needs.
///
/// # Errors
/// If a secret cannot be read.
pub(crate) fn install_commands(
    secrets: Secrets<'_>,
    catalog: &Catalog,
    items: &[ObjectId],
    dataflows: &[PlannedDataflow],
    partitions: &Partitions,
    past: &Past,
) -> Result<Vec<Command>, Error> {
    let commit_point = &past.commit_point;
    let new: BTreeSet<ObjectId> = items.iter().copied().collect();
    let found: Vec<&Item> = items
        .iter()
        .filter_map(|id| catalog.items.get(id))
        .collect();
    let keys: BTreeMap<ObjectId, &Vec<usize>> = dataflows
        .iter()
        .filter_map(|dataflow| Some((dataflow.description.id, dataflow.key.as_ref()?)))
        .collect();
    let mut commands = Vec::new();
    for item in &found {
        let key = keys.get(&item.id).copied().cloned();
        commands.extend(collection(catalog, item, key, past).map(Command::CreateCollection));
    }
    for item in &found {
        if let ItemKind::Source(source) = &item.kind {
            let kind = source_kind(secrets, catalog, item.id, &source.kind)?;
            // A table that has failed for good is not read any more.
            let keep = |id: ObjectId| !past.failures.contains_key(&id);
            let tables = source_tables(secrets, catalog, item.id, keep)?;
            let snapshotted = tables
                .iter()
                .map(|table| table.id)
                .filter(|id| commit_point.snapshotted.contains(id))
                .collect();
            commands.push(Command::CreateSource(Box::new(SourceDescription {
                id: item.id,
                name: display_name(catalog, item),
                kind,
                tables,
                progress: source.progress,
                resume_from: commit_point.positions.get(&item.id).cloned(),
                snapshotted,
                bound: past.bound.contains(&item.id),
                failure: past.failure(item.id),
            })));
        }
    }
    for (source, tables) in added_tables(secrets, catalog, &found, &new)? {
        commands.push(Command::AddSourceTables { source, tables });
    }
    commands.extend(
        dataflows
            .iter()
            .map(|dataflow| Command::CreateDataflow(dataflow.description.clone())),
    );
    for item in &found {
        if let ItemKind::Sink(sink) = &item.kind {
            let partition = partitions.get(&item.id).cloned();
            let told = SinkPlanned {
                id: item.id,
                sink,
                partition,
            };
            let description = sink_description(secrets, catalog, told, past)?;
            commands.push(Command::CreateSink(Box::new(description)));
        }
    }
    Ok(commands)
}

/// The connections of `before` that are other ones in `after`, or name a secret that is changed.
pub(crate) fn altered_connections(
    before: &Catalog,
    after: &Catalog,
    changed: &[SealedSecret],
) -> BTreeSet<ObjectId> {
    let is_altered = |item: &&Item| {
        let ItemKind::Connection(connection) = &item.kind else {
            return false;
        };
        let Some(was) = before.items.get(&item.id) else {
            return false;
        };
        let mut secrets = connection.secrets().into_iter();
        was.kind != item.kind || secrets.any(|id| changed.iter().any(|secret| secret.id == id))
    };
    let altered = after.items.values().filter(is_altered);
    altered.map(|item| item.id).collect()
}

/// The commands that tell the worker of sources that were there before and are reached, or have schemas that are reached, through connections that were altered.
///
/// # Errors
/// If a secret cannot be read.
pub(crate) fn altered_sources(
    secrets: Secrets<'_>,
    before: &Catalog,
    after: &Catalog,
    altered: &BTreeSet<ObjectId>,
) -> Result<Vec<Command>, Error> {
    let mut commands = Vec::new();
    if altered.is_empty() {
        return Ok(commands);
    }
    for item in after.items.values() {
        if let ItemKind::Source(source) = &item.kind
            && before.items.contains_key(&item.id)
            && source_connections(after, item.id, &source.kind).any(|id| altered.contains(&id))
        {
            commands.push(Command::AlterSource {
                source: item.id,
                kind: Box::new(source_kind(secrets, after, item.id, &source.kind)?),
                tables: source_tables(secrets, after, item.id, |_| true)?,
            });
        }
    }
    Ok(commands)
}

/// The connections through which a source reads, and those of the schemas of its tables.
fn source_connections(
    catalog: &Catalog,
    id: ObjectId,
    kind: &SourceItemKind,
) -> impl Iterator<Item = ObjectId> {
    let fed = catalog.items.values().filter(move |item| {
        matches!(&item.kind, ItemKind::Table { source: Some(source), .. } if source.source == id)
    });
    let messages = fed.filter_map(move |item| catalog.message_tables.get(&item.id));
    let registries = messages.flat_map(|messages| messages.registries());
    kind.connection().into_iter().chain(registries)
}

/// The connections through which a sink writes, and those of its schemas.
fn sink_connections(sink: &Sink) -> impl Iterator<Item = ObjectId> {
    std::iter::once(sink.kind.connection()).chain(sink.kind.registries())
}

/// What the expressions mean that decide on the partitions of sinks of which nothing but a connection was altered. It could be planned once.
///
/// # Errors
/// If planning is not possible at all.
pub(crate) async fn plan_again(
    after: &Arc<Catalog>,
    altered: &BTreeSet<ObjectId>,
    partitions: &mut Partitions,
) -> Result<(), Error> {
    let uses = |item: &&Item| match &item.kind {
        ItemKind::Sink(sink) => sink_connections(sink).any(|id| altered.contains(&id)),
        _ => false,
    };
    let sinks = after.items.values().filter(uses).map(|item| item.id);
    let sinks: Vec<ObjectId> = sinks.filter(|id| !partitions.contains_key(id)).collect();
    let planned = partition_each(after, &sinks).await?;
    partitions.extend(planned.into_iter().map(|(id, planned)| {
        let unplanned = |error: Error| SinkPartition::Unplanned(error.to_string());
        (id, planned.unwrap_or_else(unplanned))
    }));
    Ok(())
}

/// The commands that tell the worker of sinks that write something else than before, or through connections that were altered.
///
/// # Errors
/// If a secret cannot be read.
pub(crate) fn altered_sinks(
    secrets: Secrets<'_>,
    before: &Catalog,
    after: &Catalog,
    altered: &BTreeSet<ObjectId>,
    partitions: &Partitions,
) -> Result<Vec<Command>, Error> {
    let mut commands = Vec::new();
    for item in after.items.values() {
        if let ItemKind::Sink(sink) = &item.kind
            && let Some(ItemKind::Sink(was)) = before.items.get(&item.id).map(|item| &item.kind)
            && (was != sink || sink_connections(sink).any(|id| altered.contains(&id)))
        {
            let partition = partitions.get(&item.id).cloned();
            let told = SinkPlanned {
                id: item.id,
                sink,
                partition,
            };
            let description = sink_description(secrets, after, told, &Past::default())?;
            commands.push(Command::AlterSink(Box::new(description)));
        }
    }
    Ok(commands)
}

/// A sink, and what the expression means that decides on its partitions.
struct SinkPlanned<'a> {
    id: ObjectId,
    sink: &'a Sink,
    partition: Option<SinkPartition>,
}

/// What the worker is told of a sink.
fn sink_description(
    secrets: Secrets<'_>,
    catalog: &Catalog,
    SinkPlanned {
        id,
        sink,
        partition,
    }: SinkPlanned<'_>,
    past: &Past,
) -> Result<SinkDescription, Error> {
    let connections = connections(secrets, catalog, sink_connections(sink))?;
    let kafka = sink
        .kind
        .upstream(&connections, partition, catalog.installation);
    let kafka =
        kafka.ok_or_else(|| Error::Internal(format!("the connections of {id} do not fit it")))?;
    let from = catalog.items.get(&sink.from);
    Ok(SinkDescription {
        id,
        cluster: catalog.cluster_of(id),
        from: sink.from,
        schema: arrow_schema(from.and_then(Item::columns).unwrap_or_default()),
        kafka,
        as_of: Some(past.commit_point.epoch).filter(|epoch| *epoch != Epoch::MIN),
        begin: past.sink_begins.get(&id).copied(),
    })
}

/// How to reach what these connection items name.
fn connections(
    secrets: Secrets<'_>,
    catalog: &Catalog,
    ids: impl Iterator<Item = ObjectId>,
) -> Result<BTreeMap<ObjectId, UpstreamConnection>, Error> {
    let mut found = BTreeMap::new();
    for id in ids {
        found.insert(id, resolve_connection(secrets, catalog, id)?);
    }
    Ok(found)
}

/// A table of a source as its worker is told of it: with what its connector makes of messages, if it is of a source of these.
///
/// # Errors
/// If a secret cannot be read.
fn source_table(
    secrets: Secrets<'_>,
    catalog: &Catalog,
    fed: &TableSource,
) -> Result<SourceTable, Error> {
    let mut table = fed.table.clone();
    if let Some(messages) = catalog.message_tables.get(&table.id) {
        let registries = connections(secrets, catalog, messages.registries())?;
        let upstream = messages.upstream(&registries);
        table.upstream = upstream.ok_or_else(|| {
            Error::Internal(format!("the registries of {} do not fit it", table.id))
        })?;
    }
    Ok(table)
}

/// New tables of sources that run already.
fn added_tables(
    secrets: Secrets<'_>,
    catalog: &Catalog,
    found: &[&Item],
    new: &BTreeSet<ObjectId>,
) -> Result<BTreeMap<ObjectId, Vec<SourceTable>>, Error> {
    let mut added: BTreeMap<ObjectId, Vec<SourceTable>> = BTreeMap::new();
    for item in found {
        if let ItemKind::Table {
            source: Some(source),
            ..
        } = &item.kind
            && !new.contains(&source.source)
            && catalog.items.contains_key(&source.source)
        {
            added
                .entry(source.source)
                .or_default()
                .push(source_table(secrets, catalog, source)?);
        }
    }
    Ok(added)
}

fn source_tables(
    secrets: Secrets<'_>,
    catalog: &Catalog,
    id: ObjectId,
    keep: impl Fn(ObjectId) -> bool,
) -> Result<Vec<SourceTable>, Error> {
    let tables = catalog.items.values().filter_map(|item| match &item.kind {
        ItemKind::Table {
            source: Some(source),
            ..
        } if source.source == id && keep(item.id) => Some(source),
        _ => None,
    });
    tables
        .map(|source| source_table(secrets, catalog, source))
        .collect()
}

fn collection(
    catalog: &Catalog,
    item: &Item,
    planned_key: Option<Vec<usize>>,
    past: &Past,
) -> Option<CollectionDescription> {
    let failure = match &item.kind {
        ItemKind::Table {
            source: Some(source),
            ..
        } => past
            .failure(item.id)
            .or_else(|| past.failure(source.source)),
        _ => None,
    };
    let (kind, key) = match &item.kind {
        ItemKind::Table {
            source: None, key, ..
        } => (CollectionKind::Table, key.clone()),
        ItemKind::Table {
            source: Some(source),
            key,
            ..
        } => (
            CollectionKind::SourceTable {
                source: source.source,
            },
            key.clone(),
        ),
        ItemKind::Progress { source, .. } => {
            (CollectionKind::SourceTable { source: *source }, None)
        }
        ItemKind::MaterializedView { key, .. } => (
            CollectionKind::MaterializedView,
            key.clone().or(planned_key),
        ),
        ItemKind::Source(_)
        | ItemKind::View { .. }
        | ItemKind::Index { .. }
        | ItemKind::Secret
        | ItemKind::Connection(_)
        | ItemKind::Sink(_) => {
            return None;
        }
    };
    Some(CollectionDescription {
        id: item.id,
        name: display_name(catalog, item),
        schema: arrow_schema(item.columns().unwrap_or_default()),
        key,
        kind,
        delta_version: past.commit_point.versions.get(&item.id).copied(),
        failure,
    })
}

/// `database.schema.name`, for logs and the metadata of Delta tables.
fn display_name(catalog: &Catalog, item: &Item) -> String {
    let schema = catalog.schemas.get(&item.schema);
    let database = schema
        .and_then(|schema| schema.database)
        .and_then(|id| catalog.databases.get(&id));
    let parts = [
        database.map(|found| found.name.as_str()),
        schema.map(|found| found.name.as_str()),
        Some(item.name.as_str()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(".")
}

fn plan_dataflow(planner: &Planner, item: &Item) -> Result<Option<PlannedDataflow>, Error> {
    let named = |error: flowstone_sql::Error| {
        let detail = format!("While planning \"{}\".", item.name);
        Error::Sql(if error.detail.is_some() {
            error
        } else {
            error.with_detail(detail)
        })
    };
    let zone = planner.catalog.time_zone(item.id);
    let (lowered, export) = match &item.kind {
        ItemKind::MaterializedView { query, .. } => {
            let tree = flowstone_sql::parse::parse_query(query).map_err(named)?;
            let planned = planner
                .with(|ctx| plan_query(&ctx.in_zone(&zone), &tree, &[]))
                .map_err(named)?;
            (lower(&planned).map_err(named)?, Export::Collection)
        }
        ItemKind::Index { on, key } => {
            let keys = key
                .iter()
                .map(|key| flowstone_sql::parse::parse_expr(&key.expression))
                .collect::<Result<Vec<_>, _>>()
                .map_err(named)?;
            let planned = planner
                .with(|ctx| plan_index(&ctx.in_zone(&zone), *on, &keys))
                .map_err(named)?;
            (
                lower(&planned.planned).map_err(named)?,
                Export::Index {
                    key: planned.key_columns,
                },
            )
        }
        _ => return Ok(None),
    };
    let Lowered {
        plan,
        key,
        recomputed,
    } = lowered;
    Ok(Some(PlannedDataflow {
        description: DataflowDescription {
            id: item.id,
            cluster: planner.catalog.cluster_of(item.id),
            plan,
            export,
        },
        key,
        recomputed,
    }))
}

/// `items` such that each comes after what it depends on.
fn in_dependency_order(catalog: &Catalog, items: &[ObjectId]) -> Vec<ObjectId> {
    let mut ordered = Vec::new();
    let mut seen = BTreeSet::new();
    let mut stack: Vec<(ObjectId, bool)> = items.iter().rev().map(|id| (*id, false)).collect();
    while let Some((id, dependencies_done)) = stack.pop() {
        if dependencies_done {
            ordered.push(id);
        } else if seen.insert(id) {
            stack.push((id, true));
            if let Some(item) = catalog.items.get(&id) {
                stack.extend(item.depends_on.iter().map(|id| (*id, false)));
            }
        }
    }
    let wanted: BTreeSet<ObjectId> = items.iter().copied().collect();
    ordered.retain(|id| wanted.contains(id));
    ordered
}

/// The objects to name in [`Command::Drop`]: those the worker knows of, dependents first.
pub(crate) fn dropped_in_worker(catalog: &Catalog, dropped: &[ObjectId]) -> Vec<ObjectId> {
    let mut ordered = in_dependency_order(catalog, dropped);
    ordered.reverse();
    ordered.retain(|id| {
        catalog.items.get(id).is_some_and(|item| {
            item.is_collection()
                || matches!(
                    item.kind,
                    ItemKind::Source(_) | ItemKind::Index { .. } | ItemKind::Sink(_)
                )
        })
    });
    ordered
}

/// What the worker is given to run the source `id`, or to ask it.
///
/// # Errors
/// If a secret cannot be read.
pub(crate) fn source_kind(
    secrets: Secrets<'_>,
    catalog: &Catalog,
    id: ObjectId,
    kind: &SourceItemKind,
) -> Result<SourceKind, Error> {
    let connection = kind
        .connection()
        .map(|connection| resolve_connection(secrets, catalog, connection))
        .transpose()?;
    kind.upstream(id, connection)
        .ok_or_else(|| Error::Internal(format!("the connection of {id} does not fit it")))
}

/// How to reach what a connection item names.
///
/// # Errors
/// If a secret cannot be read.
pub(crate) fn resolve_connection(
    secrets: Secrets<'_>,
    catalog: &Catalog,
    id: ObjectId,
) -> Result<UpstreamConnection, Error> {
    match catalog.items.get(&id).map(|item| &item.kind) {
        Some(ItemKind::Connection(connection)) => resolve(secrets, connection),
        _ => Err(Error::Internal(format!("{id} is not a connection"))),
    }
}

/// The same for a connection that is not in the catalog yet.
///
/// # Errors
/// If a secret cannot be read.
pub(crate) fn resolve(
    secrets: Secrets<'_>,
    connection: &Connection,
) -> Result<UpstreamConnection, Error> {
    let secrets = secrets_with(connection, &|id| secrets.value(id))?;
    connection
        .upstream(&secrets)
        .ok_or_else(|| Error::Internal("a secret of a connection is missing".to_owned()))
}

/// The values of the secrets that a connection names.
fn secrets_with(
    connection: &Connection,
    value_of: &dyn Fn(ObjectId) -> Result<Zeroizing<Vec<u8>>, Error>,
) -> Result<BTreeMap<ObjectId, String>, Error> {
    let mut secrets = BTreeMap::new();
    for id in connection.secrets() {
        let value = value_of(id)?;
        let text = std::str::from_utf8(&value).map_err(|_| {
            let message = "a secret that is used in a connection must be text";
            Error::Sql(flowstone_sql::Error::new(
                flowstone_sql::error::ErrorKind::InvalidParameterValue,
                message,
            ))
        })?;
        secrets.insert(id, text.to_owned());
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests;
