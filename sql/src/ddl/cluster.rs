//! CREATE, ALTER and DROP of clusters and of their replicas, and which cluster a new item is in.
//!
//! The cluster of the process is a managed one whose size is the number of shards that the process was started with: it stays, and so do its threads.

use flowstone_types::{ClusterId, ObjectId};

use super::{DdlPlan, Notice, at, does_not_exist};
use crate::ast::{
    AlterCluster, AlterClusterAction, ClusterOptionName, ClusterOptions, Count, CreateCluster,
    CreateClusterReplica, DropClusterReplicas, Ident, Name, ObjectType, ReplicaDefinition,
    quote_ident, quote_literal,
};
use crate::catalog::clusters::is_system_cluster;
use crate::catalog::names::missing;
use crate::catalog::{
    Catalog, CatalogChange, Cluster, ClusterKind, ClusterSize, Machine, Replica, ReplicaId,
    ResolveContext,
};
use crate::error::{Error, ErrorKind};

/// Prefixes of names that are the system's.
const RESERVED_PREFIXES: [&str; 2] = ["mz_", "pg_"];
/// Replicas that a cluster may have: more would be names for nothing.
const REPLICAS_MAX: u64 = 32;

/// The cluster that a new item goes into: the one named, or the session's.
pub(super) fn target_cluster<'a>(
    catalog: &'a Catalog,
    ctx: &ResolveContext,
    named: Option<&Ident>,
) -> Result<&'a Cluster, Error> {
    match named {
        Some(name) => catalog.resolve_cluster(name),
        None => catalog
            .resolve_cluster(&Ident::new(ctx.cluster.as_str()))
            .map_err(|error| {
                error.with_hint("Choose a cluster with IN CLUSTER, or with SET cluster.")
            }),
    }
}

/// The change that puts an item into a cluster; none for the one that items are in anyway.
pub(super) fn in_cluster(id: ObjectId, cluster: ClusterId) -> Option<CatalogChange> {
    (cluster != ClusterId::DEFAULT).then_some(CatalogChange::PutItemCluster(id, cluster))
}

/// The CREATE statement of a cluster, without a semicolon.
#[must_use]
pub fn create_cluster_sql(cluster: &Cluster) -> String {
    let name = quote_ident(&cluster.name);
    let factor = cluster.replicas.len();
    match cluster.kind {
        ClusterKind::Managed(size) => format!(
            "CREATE CLUSTER {name} (SIZE = {}, REPLICATION FACTOR = {factor})",
            quote_literal(size.name())
        ),
        ClusterKind::Process => {
            format!("CREATE CLUSTER {name} (REPLICATION FACTOR = {factor})")
        }
        ClusterKind::Unmanaged => {
            let replica = |replica: &Replica| {
                let size = replica.size.map_or("", ClusterSize::name);
                format!(
                    "{} (SIZE = {})",
                    quote_ident(&replica.name),
                    quote_literal(size)
                )
            };
            let replicas: Vec<String> = cluster.replicas.iter().map(replica).collect();
            format!("CREATE CLUSTER {name} REPLICAS ({})", replicas.join(", "))
        }
    }
}

/// `CREATE CLUSTER`
pub(super) fn create(catalog: &Catalog, create: &CreateCluster) -> Result<DdlPlan, Error> {
    let tag = "CREATE CLUSTER";
    let name = &create.name;
    refuse_reserved(name)?;
    if catalog.find_cluster(&name.value).is_some() {
        if create.if_not_exists {
            return Ok(DdlPlan::skip(
                tag,
                format!("cluster \"{}\" already exists, skipping", name.value),
            ));
        }
        return Err(taken(name));
    }
    let mut plan = DdlPlan::new(tag);
    let mut cluster = Cluster {
        id: ClusterId(catalog.clusters.next_cluster),
        name: name.value.clone(),
        comment: None,
        kind: ClusterKind::Unmanaged,
        replicas: Vec::new(),
    };
    let mut ids = ReplicaIds::new(catalog);
    let options = &create.options;
    if options.replicas.is_some() || options.managed == Some(false) {
        refuse_managed_options(options, name.position)?;
        for definition in options.replicas.iter().flatten() {
            add_replica(&mut cluster, definition, &mut ids)?;
        }
        note_idle_replicas(&mut plan, cluster.replicas.len());
    } else {
        let size = required_size(options.size.as_ref(), name.position)?;
        cluster.kind = ClusterKind::Managed(size);
        let factor = options.replication_factor.map_or(Ok(1), factor)?;
        scale(&mut cluster, factor, &mut ids);
        note_idle_replicas(&mut plan, factor);
    }
    plan.changes.push(CatalogChange::PutCluster(cluster));
    Ok(plan)
}

/// `CREATE CLUSTER REPLICA`
pub(super) fn create_replica(
    catalog: &Catalog,
    create: &CreateClusterReplica,
) -> Result<DdlPlan, Error> {
    let mut cluster = catalog.resolve_cluster(&create.cluster)?.clone();
    refuse_managed(&cluster, &create.cluster)?;
    let mut plan = DdlPlan::new("CREATE CLUSTER REPLICA");
    add_replica(&mut cluster, &create.replica, &mut ReplicaIds::new(catalog))?;
    note_idle_replicas(&mut plan, cluster.replicas.len());
    plan.changes.push(CatalogChange::PutCluster(cluster));
    Ok(plan)
}

/// `DROP CLUSTER REPLICA`
pub(super) fn drop_replicas(
    catalog: &Catalog,
    drop: &DropClusterReplicas,
) -> Result<DdlPlan, Error> {
    let mut plan = DdlPlan::new("DROP CLUSTER REPLICA");
    let mut changed: Vec<Cluster> = Vec::new();
    for (cluster_name, replica_name) in &drop.names {
        let found = match catalog.resolve_cluster(cluster_name) {
            Err(error) if drop.if_exists && error.kind == ErrorKind::UndefinedObject => {
                plan.notices.push(Notice::note(format!(
                    "cluster \"{}\" does not exist, skipping",
                    cluster_name.value
                )));
                continue;
            }
            other => other?,
        };
        let known = changed.iter().position(|cluster| cluster.id == found.id);
        let current = known.and_then(|at| changed.get(at)).unwrap_or(found);
        let is_there = current.replica(&replica_name.value).is_some();
        let message = format!(
            "cluster replica \"{}.{}\" does not exist",
            found.name, replica_name.value
        );
        // What is not there need not be of a kind that could be dropped.
        if !is_there && drop.if_exists {
            plan.notices
                .push(Notice::note(format!("{message}, skipping")));
            continue;
        }
        refuse_managed(found, cluster_name)?;
        if !is_there {
            return Err(Error::new(ErrorKind::UndefinedObject, message).at(replica_name.position));
        }
        let mut cluster = known.map_or_else(|| found.clone(), |at| changed.swap_remove(at));
        cluster
            .replicas
            .retain(|replica| replica.name != replica_name.value);
        changed.push(cluster);
    }
    plan.changes
        .extend(changed.into_iter().map(CatalogChange::PutCluster));
    Ok(plan)
}

/// Plans `ALTER CLUSTER … SET`, `RESET` and `SWAP WITH`, on a machine with these threads.
///
/// # Errors
/// The cluster does not exist, is the system's, or cannot be what is asked for.
pub fn plan_alter_cluster(
    catalog: &Catalog,
    alter: &AlterCluster,
    machine: Machine,
) -> Result<DdlPlan, Error> {
    let tag = "ALTER CLUSTER";
    let Some(cluster) = find(catalog, &alter.name, alter.if_exists)? else {
        return Ok(DdlPlan::skip(
            tag,
            does_not_exist(ObjectType::Cluster, &alter.name),
        ));
    };
    let mut plan = DdlPlan::new(tag);
    let mut after = cluster.clone();
    let mut ids = ReplicaIds::new(catalog);
    let position = alter.name.position();
    match &alter.action {
        AlterClusterAction::Set { options, .. } if options.replicas.is_some() => {
            return Err(unsupported_replicas(position));
        }
        AlterClusterAction::Set { options, .. } if cluster.kind == ClusterKind::Process => {
            set_process(&mut after, options, position, machine, &mut ids)?;
        }
        AlterClusterAction::Set { options, .. } => set(&mut after, options, position, &mut ids)?,
        AlterClusterAction::Reset(names) => reset(&mut after, names, position, &mut ids)?,
        AlterClusterAction::Swap(other) => {
            return super::rename::swap_clusters(catalog, cluster, other);
        }
    }
    if after.replicas.len() > cluster.replicas.len() {
        note_idle_replicas(&mut plan, after.replicas.len());
    }
    if after != *cluster {
        plan.changes.push(CatalogChange::PutCluster(after));
    }
    Ok(plan)
}

/// The cluster that a statement names; `None` if it does not exist and need not.
pub(super) fn find<'a>(
    catalog: &'a Catalog,
    name: &Name,
    if_exists: bool,
) -> Result<Option<&'a Cluster>, Error> {
    let ident = Ident {
        value: name.item().to_owned(),
        position: name.position(),
    };
    match catalog.resolve_cluster(&ident) {
        Ok(cluster) => Ok(Some(cluster)),
        Err(error) if error.kind != ErrorKind::UndefinedObject => Err(error),
        Err(_) if if_exists => Ok(None),
        Err(_) => Err(missing(ObjectType::Cluster, name)),
    }
}

/// Refuses a new name that is the system's or another cluster's.
pub(super) fn check_new_name(
    catalog: &Catalog,
    cluster: &Cluster,
    new: &Ident,
) -> Result<(), Error> {
    refuse_reserved(new)?;
    match catalog.find_cluster(&new.value) {
        Some(other) if other.id != cluster.id => Err(taken(new)),
        _ => Ok(()),
    }
}

/// The items in a cluster, in the order of their ids.
pub(super) fn items_in(catalog: &Catalog, cluster: ClusterId) -> Vec<ObjectId> {
    let of_items = catalog.clusters.of_items.iter();
    of_items
        .filter(|(_, of)| **of == cluster)
        .map(|(id, _)| *id)
        .collect()
}

/// Refuses to drop the cluster that tables are in.
pub(super) fn refuse_process(cluster: &Cluster, name: &Name) -> Result<(), Error> {
    if cluster.kind != ClusterKind::Process {
        return Ok(());
    }
    let message = format!("cluster \"{}\" cannot be dropped", cluster.name);
    Err(at(
        Error::unsupported(message).with_detail("Its threads are those of the process."),
        name,
    ))
}

/// Changes a cluster other than that of the process.
fn set(
    cluster: &mut Cluster,
    options: &ClusterOptions,
    position: usize,
    ids: &mut ReplicaIds,
) -> Result<(), Error> {
    let managed = options.managed.unwrap_or_else(|| cluster.is_managed());
    if !managed {
        refuse_managed_options(options, position)?;
        cluster.kind = ClusterKind::Unmanaged;
        return Ok(());
    }
    let size = match (&options.size, cluster.size()) {
        (Some(size), _) => ClusterSize::named(size)?,
        (None, Some(size)) => size,
        (None, None) => common_size(cluster).ok_or_else(|| required("SIZE", position))?,
    };
    cluster.kind = ClusterKind::Managed(size);
    let factor = match options.replication_factor {
        Some(count) => factor(count)?,
        None => cluster.replicas.len(),
    };
    scale(cluster, factor, ids);
    Ok(())
}

/// Changes the cluster of the process, whose threads stay.
fn set_process(
    cluster: &mut Cluster,
    options: &ClusterOptions,
    position: usize,
    machine: Machine,
    ids: &mut ReplicaIds,
) -> Result<(), Error> {
    let refused = |what: &str, position: usize| {
        let message = format!(
            "cluster \"{}\" cannot {what}: its threads are those of the process",
            cluster.name
        );
        Error::unsupported(message)
            .with_hint(
                "Start the node with another number of --shards, or use a cluster of your own.",
            )
            .at(position)
    };
    if options.managed == Some(false) {
        return Err(refused("be unmanaged", position));
    }
    if let Some(name) = &options.size
        && machine.threads_of(ClusterSize::named(name)?) != machine.shards
    {
        return Err(refused("be resized", name.position)
            .with_detail(format!("The process has {} shard threads.", machine.shards)));
    }
    if let Some(count) = options.replication_factor {
        let factor = factor(count)?;
        if factor == 0 {
            return Err(refused("be paused", count.position));
        }
        scale(cluster, factor, ids);
    }
    Ok(())
}

/// Back to what a cluster has of which nothing is said.
fn reset(
    cluster: &mut Cluster,
    names: &[ClusterOptionName],
    position: usize,
    ids: &mut ReplicaIds,
) -> Result<(), Error> {
    for name in names {
        match name {
            ClusterOptionName::Size => return Err(required("SIZE", position)),
            ClusterOptionName::Replicas => return Err(unsupported_replicas(position)),
            ClusterOptionName::ReplicationFactor if cluster.is_managed() => {
                scale(cluster, 1, ids);
            }
            ClusterOptionName::ReplicationFactor => {
                return Err(only_managed("REPLICATION FACTOR", position));
            }
            ClusterOptionName::Managed => {
                let options = ClusterOptions {
                    managed: Some(true),
                    ..ClusterOptions::default()
                };
                if !cluster.is_managed() {
                    set(cluster, &options, position, ids)?;
                }
            }
            ClusterOptionName::Schedule
            | ClusterOptionName::IntrospectionInterval
            | ClusterOptionName::IntrospectionDebugging
            | ClusterOptionName::AvailabilityZones
            | ClusterOptionName::Disk
            | ClusterOptionName::WorkloadClass => {}
        }
    }
    Ok(())
}

/// Gives out ids of replicas as the catalog will once the plan is applied.
#[derive(Debug)]
struct ReplicaIds(u64);

impl ReplicaIds {
    const fn new(catalog: &Catalog) -> Self {
        Self(catalog.clusters.next_replica)
    }

    const fn take(&mut self) -> ReplicaId {
        let id = ReplicaId(self.0);
        self.0 += 1;
        id
    }
}

/// Gives a managed cluster as many replicas as its factor says, all of its size.
fn scale(cluster: &mut Cluster, factor: usize, ids: &mut ReplicaIds) {
    let size = cluster.size();
    cluster.replicas.truncate(factor);
    while cluster.replicas.len() < factor {
        cluster.replicas.push(Replica {
            id: ids.take(),
            name: String::new(),
            size,
        });
    }
    for (number, replica) in (1_usize..).zip(&mut cluster.replicas) {
        replica.name = format!("r{number}");
        replica.size = size;
    }
}

/// The size that all replicas of a cluster have.
fn common_size(cluster: &Cluster) -> Option<ClusterSize> {
    let mut sizes = cluster.replicas.iter().map(|replica| replica.size);
    let first = sizes.next()??;
    sizes.all(|size| size == Some(first)).then_some(first)
}

fn add_replica(
    cluster: &mut Cluster,
    definition: &ReplicaDefinition,
    ids: &mut ReplicaIds,
) -> Result<(), Error> {
    let name = &definition.name;
    let size = required_size(definition.size.as_ref(), name.position)?;
    refuse_reserved_for("cluster replica", name)?;
    if cluster.replica(&name.value).is_some() {
        let message = format!(
            "cluster replica \"{}.{}\" already exists",
            cluster.name, name.value
        );
        return Err(Error::new(ErrorKind::DuplicateObject, message).at(name.position));
    }
    if u64::try_from(cluster.replicas.len()).unwrap_or(u64::MAX) >= REPLICAS_MAX {
        return Err(too_many(name.position));
    }
    cluster.replicas.push(Replica {
        id: ids.take(),
        name: name.value.clone(),
        size: Some(size),
    });
    Ok(())
}

fn factor(count: Count) -> Result<usize, Error> {
    if count.value > REPLICAS_MAX {
        return Err(too_many(count.position));
    }
    usize::try_from(count.value).map_err(|_| too_many(count.position))
}

fn too_many(position: usize) -> Error {
    let message = format!("a cluster has at most {REPLICAS_MAX} replicas");
    Error::new(ErrorKind::InvalidParameterValue, message).at(position)
}

/// Tells that of several replicas just one does something.
fn note_idle_replicas(plan: &mut DdlPlan, replicas: usize) {
    if replicas > 1 {
        plan.notices.push(Notice {
            hint: Some("A larger SIZE gives the cluster more threads.".to_owned()),
            ..Notice::note(format!(
                "a node of one process runs one replica of a cluster, not {replicas}"
            ))
        });
    }
}

fn refuse_managed_options(options: &ClusterOptions, position: usize) -> Result<(), Error> {
    if options.managed == Some(true) {
        return Err(Error::syntax("REPLICAS cannot be given for a managed cluster").at(position));
    }
    if let Some(size) = &options.size {
        return Err(only_managed("SIZE", size.position));
    }
    if let Some(count) = options.replication_factor {
        return Err(only_managed("REPLICATION FACTOR", count.position));
    }
    Ok(())
}

fn only_managed(option: &str, position: usize) -> Error {
    let message = format!("option {option} cannot be given for an unmanaged cluster");
    Error::new(ErrorKind::InvalidParameterValue, message)
        .with_hint("Its replicas have sizes: CREATE CLUSTER REPLICA makes one.")
        .at(position)
}

fn unsupported_replicas(position: usize) -> Error {
    Error::unsupported("REPLICAS of ALTER CLUSTER is not supported")
        .with_hint("Use CREATE CLUSTER REPLICA and DROP CLUSTER REPLICA.")
        .at(position)
}

fn refuse_managed(cluster: &Cluster, name: &Ident) -> Result<(), Error> {
    if !cluster.is_managed() {
        return Ok(());
    }
    let message = format!("cluster \"{}\" is managed", cluster.name);
    Err(Error::new(ErrorKind::WrongObjectType, message)
        .with_detail("Its replicas follow from its SIZE and its REPLICATION FACTOR.")
        .with_hint("Change those, or set MANAGED to false first.")
        .at(name.position))
}

fn required(option: &str, position: usize) -> Error {
    Error::new(
        ErrorKind::InvalidParameterValue,
        format!("option {option} is required"),
    )
    .at(position)
}

fn required_size(size: Option<&Ident>, position: usize) -> Result<ClusterSize, Error> {
    ClusterSize::named(size.ok_or_else(|| required("SIZE", position))?)
}

fn taken(name: &Ident) -> Error {
    let message = format!("cluster \"{}\" already exists", name.value);
    Error::new(ErrorKind::DuplicateObject, message).at(name.position)
}

fn refuse_reserved(name: &Ident) -> Result<(), Error> {
    if is_system_cluster(&name.value) {
        return Err(taken(name));
    }
    refuse_reserved_for("cluster", name)
}

fn refuse_reserved_for(what: &str, name: &Ident) -> Result<(), Error> {
    let reserved = RESERVED_PREFIXES
        .iter()
        .any(|prefix| name.value.starts_with(prefix));
    if !reserved {
        return Ok(());
    }
    let message = format!("{what} name \"{}\" is reserved", name.value);
    Err(Error::new(ErrorKind::ReservedName, message)
        .with_detail("The prefixes \"mz_\" and \"pg_\" are reserved for the system.")
        .at(name.position))
}
