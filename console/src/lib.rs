//! HTTP: liveness, readiness and metrics, over TLS where there is a certificate.
//!
//! Owns the routes, the shape of what they answer, and who may ask ([`auth`]). Must not know anything behind the coordinator's client.
//! Called by `node`, which hands over a listening socket.
//!
//! Invariants. Only `/livez` and `/readyz` are answered to those who are not authenticated where a password is asked for. Nothing here changes state. `/livez` answers as long as the process can; `/readyz` only when statements would be served.

pub mod auth;
pub mod listener;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flowstone_coordinator::Client;
use flowstone_tls::TlsListener;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

pub use listener::PLAINTEXT_REFUSED;

/// Serves until `stop` is cancelled.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TlsListener,
    client: Client,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let authenticator = client.authenticator();
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route_layer(from_fn_with_state(authenticator, auth::require));
    // Health is for orchestrators, which have no password; it says nothing that a closed port would not.
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .merge(guarded)
        .with_state(Arc::new(client))
        .into_make_service_with_connect_info::<listener::Peer>();
    axum::serve(listener::HttpListener(listener), routes)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn readyz(State(client): State<Arc<Client>>) -> Response {
    let readiness = client.readiness();
    if readiness.ready {
        return "ready\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("{}\n", readiness.reason),
    )
        .into_response()
}

async fn metrics(State(client): State<Arc<Client>>) -> Response {
    let mut registry = Registry::with_prefix("flowstone");
    let snapshot = client.metrics_snapshot();
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
