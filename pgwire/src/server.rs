//! Accepting connections.

use std::sync::Arc;

use flowstone_coordinator::Client;
use flowstone_tls::ServerTls;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection;

/// Clients that are not authenticated yet, at once. Whoever comes on top is hung up on: they cost memory before anybody knows who they are.
const HANDSHAKES_MAX: usize = 1024;

/// How connections are protected. Who must say a password is the coordinator's policy.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// The certificate; without one clients that ask for TLS are told that there is none.
    pub tls: Option<Arc<ServerTls>>,
    /// Whether clients without TLS are refused.
    pub tls_required: bool,
}

/// Serves connections until `stop` is cancelled, then waits for the open ones to notice.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    security: Security,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                let Ok(handshake) = Arc::clone(&handshakes).try_acquire_owned() else {
                    tracing::debug!(%peer, "a connection was refused: too many are being opened");
                    continue;
                };
                let (client, security, stop) = (client.clone(), security.clone(), stop.clone());
                connections.spawn(async move {
                    tokio::select! {
                        outcome = connection::serve(socket, client, security, handshake) => if let Err(error) = outcome {
                            tracing::debug!(%peer, %error, "connection ended");
                        },
                        () = stop.cancelled() => {}
                    }
                });
            }
            // Out of file descriptors, most likely: the backlog waits while connections end.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}
