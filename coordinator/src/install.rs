//! From catalog items to commands for the worker: what to create for new items, and for all of them after a restart.
//!
//! Owns the order (clusters, collections, then sources, then dataflows, inputs first) and the resolution of connections and their secrets. Must not know sessions.
//! Called by `coordinator::start` and by DDL.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use flowstone_proto::message::{
    CleanUp, CollectionDescription, CollectionKind, Command, DataflowDescription, Export, Failure,
    Remains, SourceDescription, SourceKind, SourceTable, UpstreamConnection,
};
use flowstone_sql::Catalog;
use flowstone_sql::catalog::{Connection, Item, ItemKind, Machine, SourceItemKind, arrow_schema};
use flowstone_sql::lower::{Lowered, lower};
use flowstone_sql::plan::{plan_index, plan_query};
use flowstone_types::{ClusterId, EvalError, EvalErrorKind, ObjectId};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::planning::{Planner, replanning};
use crate::raft::{Cleanup, CommitPoint, DurableFailure, State};
use crate::secrets::SecretError;
use crate::shared::Shared;

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
    pub(crate) async fn prepare(&self, shared: &Shared) -> Result<(), Error> {
        let DataflowDescription { plan, export, .. } = &self.description;
        shared.prepare(plan.clone(), Some(export.clone())).await
    }
}

/// What is known of items that existed before this process.
#[derive(Debug, Default)]
pub(crate) struct Past {
    commit_point: CommitPoint,
    /// Sources of which an epoch has something.
    bound: BTreeSet<ObjectId>,
    failures: BTreeMap<ObjectId, DurableFailure>,
}

impl Past {
    fn failure(&self, id: ObjectId) -> Option<Failure> {
        self.failures.get(&id).map(|found| found.failure.clone())
    }
}

/// The commands that bring the worker to a recovered state.
pub(crate) async fn restore_commands(shared: &Shared, state: State) -> Result<Vec<Command>, Error> {
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
    };
    let mut commands = cluster_commands(shared.machine, None, &catalog, shared.next_change());
    commands.extend(install_commands(shared, &catalog, &all, &dataflows, &past)?);
    commands.extend(unplanned);
    commands.extend(clean_up(shared, &state.cleanup));
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
pub(crate) fn clean_up(shared: &Shared, cleanup: &BTreeMap<ObjectId, Cleanup>) -> Option<Command> {
    let mut work = Vec::new();
    for (id, cleanup) in cleanup {
        let remains = match cleanup {
            Cleanup::Collection => Remains::Collection,
            Cleanup::Source(None) => Remains::Source(None),
            Cleanup::Source(Some(slot)) => {
                let secret = |id: ObjectId| {
                    let sealed = slot.secrets.iter().find(|secret| secret.id == id);
                    let sealed = sealed.ok_or(SecretError::Missing(id))?;
                    Ok(shared.key.open(id, &sealed.sealed)?)
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

/// The commands that create `items`, in an order in which each finds what it needs.
///
/// # Errors
/// If a secret cannot be read.
pub(crate) fn install_commands(
    shared: &Shared,
    catalog: &Catalog,
    items: &[ObjectId],
    dataflows: &[PlannedDataflow],
    past: &Past,
) -> Result<Vec<Command>, Error> {
    let commit_point = &past.commit_point;
    let new: BTreeSet<ObjectId> = items.iter().copied().collect();
    let found: Vec<&Item> = items
        .iter()
        .filter_map(|id| catalog.items.get(id))
        .collect();
    let mut commands = Vec::new();
    for item in &found {
        let key = dataflows
            .iter()
            .find(|dataflow| dataflow.description.id == item.id)
            .and_then(|dataflow| dataflow.key.clone());
        commands.extend(collection(catalog, item, key, past).map(Command::CreateCollection));
    }
    for item in &found {
        if let ItemKind::Source(source) = &item.kind {
            let kind = source_kind(shared, catalog, item.id, &source.kind)?;
            // A table that has failed for good is not read any more.
            let tables = source_tables(catalog, item.id, |id| !past.failures.contains_key(&id));
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
    for (source, tables) in added_tables(catalog, &found, &new) {
        commands.push(Command::AddSourceTables { source, tables });
    }
    commands.extend(
        dataflows
            .iter()
            .map(|dataflow| Command::CreateDataflow(dataflow.description.clone())),
    );
    Ok(commands)
}

/// New tables of sources that run already.
fn added_tables(
    catalog: &Catalog,
    found: &[&Item],
    new: &BTreeSet<ObjectId>,
) -> BTreeMap<ObjectId, Vec<SourceTable>> {
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
                .push(source.table.clone());
        }
    }
    added
}

fn source_tables(
    catalog: &Catalog,
    id: ObjectId,
    keep: impl Fn(ObjectId) -> bool,
) -> Vec<SourceTable> {
    let tables = catalog.items.values().filter_map(|item| match &item.kind {
        ItemKind::Table {
            source: Some(source),
            ..
        } if source.source == id && keep(item.id) => Some(source.table.clone()),
        _ => None,
    });
    tables.collect()
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
        | ItemKind::Connection(_) => {
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
                || matches!(item.kind, ItemKind::Source(_) | ItemKind::Index { .. })
        })
    });
    ordered
}

/// What the worker is given to run the source `id`, or to ask it.
///
/// # Errors
/// If a secret cannot be read.
pub(crate) fn source_kind(
    shared: &Shared,
    catalog: &Catalog,
    id: ObjectId,
    kind: &SourceItemKind,
) -> Result<SourceKind, Error> {
    let connection = kind
        .connection()
        .map(|connection| resolve_connection(shared, catalog, connection))
        .transpose()?;
    kind.upstream(id, connection)
        .ok_or_else(|| Error::Internal(format!("the connection of {id} does not fit it")))
}

/// How to reach what a connection item names.
///
/// # Errors
/// If a secret cannot be read.
pub(crate) fn resolve_connection(
    shared: &Shared,
    catalog: &Catalog,
    id: ObjectId,
) -> Result<UpstreamConnection, Error> {
    match catalog.items.get(&id).map(|item| &item.kind) {
        Some(ItemKind::Connection(connection)) => resolve(shared, connection),
        _ => Err(Error::Internal(format!("{id} is not a connection"))),
    }
}

/// The same for a connection that is not in the catalog yet.
///
/// # Errors
/// If a secret cannot be read.
pub(crate) fn resolve(
    shared: &Shared,
    connection: &Connection,
) -> Result<UpstreamConnection, Error> {
    let secrets = secrets_with(connection, &|id| shared.secret_value(id))?;
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
