//! The rows of the relations about clusters, their replicas and their sizes.

use flowstone_types::ClusterId;

use super::rows::{Rows, Value};
use super::{DEFAULT_ROLE_ID, SystemContext};
use crate::catalog::clusters::SYSTEM_CLUSTERS;
use crate::catalog::{Cluster, ClusterSize, Item, ItemKind, Replica, ReplicaId};

/// The id of the cluster that an item is in; `None` of what is in none.
pub(super) fn cluster_of(ctx: &SystemContext<'_>, item: &Item) -> Option<String> {
    match item.kind {
        ItemKind::MaterializedView { .. }
        | ItemKind::Index { .. }
        | ItemKind::Source(_)
        | ItemKind::Sink(_) => Some(ctx.catalog.cluster_of(item.id).to_string()),
        _ => None,
    }
}

/// The id of the replica that computes an item, or that feeds it; `None` while it is paused.
pub(super) fn replica_of(ctx: &SystemContext<'_>, item: &Item) -> Option<String> {
    if ctx.catalog.is_paused(item.id) {
        return None;
    }
    let place = match &item.kind {
        ItemKind::Table {
            source: Some(fed), ..
        } => fed.source,
        ItemKind::Progress { source, .. } => *source,
        _ => item.id,
    };
    replica_in(ctx, ctx.catalog.cluster_of(place)).map(|id| id.to_string())
}

fn replica_in(ctx: &SystemContext<'_>, cluster: ClusterId) -> Option<ReplicaId> {
    let cluster = ctx.catalog.clusters.by_id.get(&cluster)?;
    cluster.replicas.first().map(|replica| replica.id)
}

pub(super) fn clusters(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (id, name) in SYSTEM_CLUSTERS {
        rows.push([
            ("id", id.into()),
            ("name", name.into()),
            ("owner_id", DEFAULT_ROLE_ID.into()),
            ("managed", true.into()),
            ("replication_factor", 1.into()),
            ("disk", true.into()),
        ]);
    }
    for cluster in ctx.catalog.clusters.by_id.values() {
        let factor = cluster.is_managed().then_some(cluster.replicas.len());
        rows.push([
            ("id", cluster.id.to_string().into()),
            ("name", (&cluster.name).into()),
            ("owner_id", DEFAULT_ROLE_ID.into()),
            ("managed", cluster.is_managed().into()),
            ("size", cluster.size().map(ClusterSize::name).into()),
            ("replication_factor", factor.into()),
            ("disk", true.into()),
        ]);
    }
}

fn replicas<'a>(
    ctx: &SystemContext<'a>,
) -> impl Iterator<Item = (&'a Cluster, &'a Replica)> + use<'a> {
    let clusters = ctx.catalog.clusters.by_id.values();
    clusters.flat_map(|cluster| {
        cluster
            .replicas
            .iter()
            .map(move |replica| (cluster, replica))
    })
}

pub(super) fn cluster_replicas(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (cluster, replica) in replicas(ctx) {
        rows.push([
            ("id", replica.id.to_string().into()),
            ("name", (&replica.name).into()),
            ("cluster_id", cluster.id.to_string().into()),
            ("size", replica.size.map(ClusterSize::name).into()),
            ("owner_id", DEFAULT_ROLE_ID.into()),
            ("disk", true.into()),
        ]);
    }
}

/// A replica is the process that answers.
pub(super) fn replica_statuses(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (_, replica) in replicas(ctx) {
        rows.push([
            ("replica_id", replica.id.to_string().into()),
            ("process_id", 0.into()),
            ("status", "online".into()),
            ("updated_at", ctx.runtime.boot_time_ms.into()),
        ]);
    }
}

/// What a size has of the machine is threads; memory and disk are shared.
pub(super) fn replica_sizes(_: &SystemContext<'_>, rows: &mut Rows) {
    for size in ClusterSize::ALL {
        rows.push([
            ("size", size.name().into()),
            ("processes", 1.into()),
            ("workers", size.threads().into()),
            ("cpu_nano_cores", (size.threads() * 1_000_000_000).into()),
        ]);
    }
}

pub(super) fn schedules(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for cluster in ctx.catalog.clusters.by_id.values() {
        if cluster.is_managed() {
            rows.push([
                ("cluster_id", Value::Text(cluster.id.to_string())),
                ("type", "manual".into()),
            ]);
        }
    }
}

/// The comments on clusters.
pub(super) fn comments(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for cluster in ctx.catalog.clusters.by_id.values() {
        if let Some(comment) = &cluster.comment {
            rows.push([
                ("id", cluster.id.to_string().into()),
                ("object_type", "cluster".into()),
                ("object_sub_id", Value::Null),
                ("comment", comment.into()),
            ]);
        }
    }
}
