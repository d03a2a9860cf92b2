//! Accepting connections.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use flowstone_coordinator::Client;
use flowstone_tls::TlsListener;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::auth::Guarded;
use crate::listener::connections;
use crate::service::Service;
use crate::sessions::Sessions;

/// Bytes of one message from a client: bulk ingest sends a record batch in one, and clients do not cut batches below what they were given.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes that a client may send ahead on one stream, and on one connection: enough for a fast upload, little enough for many at once.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Calls of one connection at the same time. Each may hold a session and a batch.
const CALLS_PER_CONNECTION_MAX: u32 = 256;
/// A connection whose other end says nothing is asked whether it is there, so that a client which vanished does not keep a subscription for ever.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often what is idle is looked for.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How long calls may take to notice that the node stops.
const GRACE: Duration = Duration::from_secs(5);

/// Serves calls until `stop` is cancelled, then waits for the running ones to notice.
pub async fn serve(listener: TlsListener, client: Client, stop: CancellationToken) {
    let sessions = Arc::new(Sessions::new(client, stop.clone()));
    let service = FlightServiceServer::new(Service::new(Arc::clone(&sessions)))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let serving = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(Guarded::new(service, Arc::clone(&sessions)))
        .serve_with_incoming_shutdown(connections(listener), stop.cancelled());
    tokio::select! {
        outcome = serving => if let Err(error) = outcome {
            tracing::error!(%error, "Arrow Flight stopped");
        },
        () = upkeep(&sessions) => {}
        () = overdue(&stop) => tracing::warn!("Arrow Flight calls did not end in time"),
    }
    sessions.clear();
}

/// Ends what is idle, for ever.
async fn upkeep(sessions: &Sessions) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sessions.expire(Instant::now());
    }
}

async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}
