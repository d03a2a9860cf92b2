//! `GET /api/objects`: every source, table, materialized view, index and sink, with its state.
//!
//! Positions are text, as wide numbers are in `/api/sql`; counts of rows and bytes are numbers. What is not known is `null`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use flowstone_coordinator::Overview;
use flowstone_sql::system::{
    Ingestion, ObjectKind, ObjectState, PartitionState, SinkStatistics, Status,
};
use serde::Serialize;

use crate::App;

pub(crate) async fn get(State(app): State<Arc<App>>) -> Json<OverviewJson> {
    Json(OverviewJson::from(app.client.overview()))
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct OverviewJson {
    node: NodeJson,
    objects: Vec<ObjectJson>,
}

#[derive(Debug, Serialize)]
struct NodeJson {
    version: String,
    ready: bool,
    reason: String,
    now_ms: u64,
    started_ms: u64,
    epoch: String,
    /// How old the newest readable epoch is.
    lag_ms: u64,
}

#[derive(Debug, Serialize)]
struct ObjectJson {
    id: String,
    database: String,
    schema: String,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    source_type: Option<&'static str>,
    sink_type: Option<&'static str>,
    parent: Option<String>,
    /// With its schema.
    parent_name: Option<String>,
    status: &'static str,
    status_since_ms: Option<u64>,
    error: Option<String>,
    hint: Option<String>,
    data_errors: u64,
    rows: Option<u64>,
    bytes: Option<u64>,
    lag_ms: Option<u64>,
    ingestion: Option<IngestionJson>,
    delivery: Option<DeliveryJson>,
}

#[derive(Debug, Serialize)]
struct IngestionJson {
    snapshot_known: Option<u64>,
    snapshot_staged: Option<u64>,
    snapshot_committed: bool,
    messages_received: u64,
    bytes_received: u64,
    offset_known: Option<String>,
    offset_committed: Option<String>,
    offset_lag: Option<u64>,
    offset_unit: &'static str,
    partitions: Vec<PartitionJson>,
}

#[derive(Debug, Serialize)]
struct PartitionJson {
    partition: i32,
    offset_known: Option<String>,
    offset_committed: Option<String>,
    lag: Option<u64>,
}

/// What is staged is committed, as in `mz_sink_statistics`.
#[derive(Debug, Serialize)]
struct DeliveryJson {
    messages_staged: u64,
    messages_committed: u64,
    bytes_staged: u64,
    bytes_committed: u64,
    frontier: Option<String>,
}

impl From<Overview> for OverviewJson {
    fn from(overview: Overview) -> Self {
        Self {
            node: NodeJson {
                version: overview.version,
                ready: overview.readiness.ready,
                reason: overview.readiness.reason,
                now_ms: overview.now_ms,
                started_ms: overview.started_ms,
                epoch: overview.epoch.to_string(),
                lag_ms: overview.now_ms.saturating_sub(overview.epoch),
            },
            objects: overview.objects.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ObjectState> for ObjectJson {
    fn from(object: ObjectState) -> Self {
        let (kind, source_type, sink_type) = match object.kind {
            ObjectKind::Source(reads) => ("source", Some(reads), None),
            ObjectKind::SourceTable => ("source-table", None, None),
            ObjectKind::Table => ("table", None, None),
            ObjectKind::MaterializedView => ("materialized-view", None, None),
            ObjectKind::Index => ("index", None, None),
            ObjectKind::Sink(writes) => ("sink", None, Some(writes)),
        };
        Self {
            id: object.id.to_string(),
            database: object.database,
            schema: object.schema,
            name: object.name,
            kind,
            source_type,
            sink_type,
            parent: object.parent.map(|id| id.to_string()),
            parent_name: object
                .parent_name
                .map(|(schema, name)| format!("{schema}.{name}")),
            status: status_name(object.status),
            status_since_ms: object.status_since_ms,
            error: object.error,
            hint: object.hint,
            data_errors: object.data_errors,
            rows: object.rows,
            bytes: object.bytes,
            lag_ms: object.lag_ms,
            ingestion: object.ingestion.map(Into::into),
            delivery: object.delivery.map(Into::into),
        }
    }
}

impl From<Ingestion> for IngestionJson {
    fn from(ingestion: Ingestion) -> Self {
        Self {
            snapshot_known: ingestion.snapshot_known,
            snapshot_staged: ingestion.snapshot_staged,
            snapshot_committed: ingestion.snapshot_committed,
            messages_received: ingestion.messages_received,
            bytes_received: ingestion.bytes_received,
            offset_known: ingestion.offset_known.map(|offset| offset.to_string()),
            offset_committed: ingestion.offset_committed.map(|offset| offset.to_string()),
            offset_lag: ingestion.offset_lag,
            offset_unit: ingestion.offset_unit,
            partitions: ingestion.partitions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<PartitionState> for PartitionJson {
    fn from(state: PartitionState) -> Self {
        Self {
            partition: state.partition,
            offset_known: state.offset_known.map(|offset| offset.to_string()),
            offset_committed: state.offset_committed.map(|offset| offset.to_string()),
            lag: state.lag(),
        }
    }
}

impl From<SinkStatistics> for DeliveryJson {
    fn from(written: SinkStatistics) -> Self {
        Self {
            messages_staged: written.messages,
            messages_committed: written.messages,
            bytes_staged: written.bytes,
            bytes_committed: written.bytes,
            frontier: written.frontier().map(|epoch| epoch.0.to_string()),
        }
    }
}

const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Running => "running",
        Status::Created => "created",
        Status::Starting => "starting",
        Status::Snapshotting => "snapshotting",
        Status::Hydrating => "hydrating",
        Status::Paused => "paused",
        Status::Stalled => "stalled",
        Status::Failed => "failed",
    }
}
