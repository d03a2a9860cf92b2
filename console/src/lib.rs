//! HTTP: liveness, readiness and metrics; SQL; and the page that shows what the node is doing. Over TLS where there is a certificate.
//!
//! Owns the routes and the shape of what they answer: [`health`], SQL over HTTP ([`sql`]), the state of each object ([`objects`]) and the page that shows it
//! ([`page`]); who asks ([`auth`]), and from where one may ([`guard`]). Must not know anything behind the coordinator's client, nor the PostgreSQL protocol.
//! Called by `node`, which hands over a listening socket.
//!
//! Invariants. Only `/livez` and `/readyz` are answered to those who are not authenticated where a password is asked for. Only `POST /api/sql` changes state,
//! and it is answered only to programs and to pages that this process served. Every request names one host, and where no
//! password is asked for, all but health is answered only to those that name this machine. `/livez` answers as long as the process can; `/readyz` only when statements
//! would be served. A request that the client gave up ends, and so does its statement. Nothing is sent from anywhere else: the page works without a network.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use flowstone_coordinator::Client;
use flowstone_tls::TlsListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub mod auth;
pub mod guard;
pub mod health;
pub mod listener;
pub mod objects;
pub mod page;
mod refusal;
pub mod sql;

pub use listener::PLAINTEXT_REFUSED;

/// SQL requests that run at once; more are refused. Each holds a session and may hold a result of [`sql::RESULT_BYTES_MAX`].
const SQL_REQUESTS_MAX: usize = 64;

/// How long connections get to end by themselves at shutdown. Statements are ended at once; this is for clients that read their answer slowly or do not
/// finish their request.
const GRACE: Duration = Duration::from_secs(5);

/// What handlers share.
#[derive(Debug)]
pub(crate) struct App {
    client: Client,
    /// Ends statements at shutdown.
    stop: CancellationToken,
    /// One permit for each SQL request that may run.
    sql_requests: Arc<Semaphore>,
}

/// Serves until `stop` is cancelled.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TlsListener,
    client: Client,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = Arc::new(App {
        client,
        stop: stop.clone(),
        sql_requests: Arc::new(Semaphore::new(SQL_REQUESTS_MAX)),
    });
    let routes = routes(app).into_make_service_with_connect_info::<listener::Peer>();
    let serving = axum::serve(listener::HttpListener(listener), routes)
        .with_graceful_shutdown(stop.clone().cancelled_owned())
        .into_future();
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served,
        () = patience => Ok(()),
    }
}

fn routes(app: Arc<App>) -> Router {
    let authenticator = app.client.authenticator();
    let authenticated = from_fn_with_state(authenticator.clone(), auth::require);
    // What browsers ask for, and what they must not be made to ask for: looked at before any password is.
    let browsed = Router::new()
        .route("/", get(page::html))
        .route("/console.css", get(page::css))
        .route("/console.js", get(page::js))
        .route("/api/objects", get(objects::get))
        .route("/api/sql", post(sql::post))
        .route("/metrics", get(health::metrics))
        .route_layer(authenticated)
        .route_layer(from_fn_with_state(authenticator, guard::protect));
    // Health is for orchestrators, which have no password; it says nothing that a closed port would not.
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(health::readyz))
        .merge(browsed)
        .layer(from_fn(guard::well_formed))
        .with_state(app)
}
