//! Accepting connections.

use flowstone_coordinator::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection;

/// Serves connections until `stop` is cancelled, then waits for the open ones to notice.
///
/// Connections are served without authentication: the caller listens on loopback only.
pub async fn serve(listener: TcpListener, client: Client, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                let (client, stop) = (client.clone(), stop.clone());
                connections.spawn(async move {
                    tokio::select! {
                        outcome = connection::serve(socket, client) => if let Err(error) = outcome {
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
