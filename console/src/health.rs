//! Whether statements are served, and the counters of the node.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::App;

pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let readiness = app.client.readiness();
    if readiness.ready {
        return "ready\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("{}\n", readiness.reason),
    )
        .into_response()
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut registry = Registry::with_prefix("flowstone");
    let snapshot = app.client.metrics_snapshot();
    for (name, help, value) in [
        ("sessions", "Open sessions", snapshot.sessions),
        (
            "epoch",
            "Newest epoch that can be read, in milliseconds since the Unix epoch",
            snapshot.epoch,
        ),
        (
            "commit_epoch",
            "Epoch of the newest commit point",
            snapshot.commit_epoch,
        ),
        ("since", "Earliest epoch that can be read", snapshot.since),
        (
            "catalog_items",
            "Items in the catalog",
            snapshot.catalog_items,
        ),
    ] {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
    for (name, help, value) in [
        (
            "statements",
            "Statements executed since the process started",
            snapshot.statements_total,
        ),
        (
            "statement_errors",
            "Statements that failed since the process started",
            snapshot.statement_errors_total,
        ),
        (
            "epochs",
            "Epochs that have become readable since the process started",
            snapshot.epochs_total,
        ),
    ] {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    let mut text = String::new();
    if encode(&mut text, &registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response()
}
