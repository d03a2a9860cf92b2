//! Accepting connections.

use std::sync::Arc;
use std::time::Duration;

use flowstone_coordinator::Client;
use flowstone_tls::{Admission, ServerTls};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{connection, startup};

/// Clients that are told at once that there is no room for them. Further ones are hung up on.
const REFUSALS_MAX: usize = 16;
/// How long a client may take to hear that.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(1);

/// How connections are protected. Who must say a password is the coordinator's policy.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// The certificate; without one clients that ask for TLS are told that there is none.
    pub tls: Option<Arc<ServerTls>>,
    /// Whether clients without TLS are refused.
    pub tls_required: bool,
}

/// Serves connections, those that `admission` lets in, until `stop` is cancelled, then waits for the open ones to notice.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    security: Security,
    admission: Admission,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                let admitted = tokio::select! {
                    admitted = admission.admit(peer.ip()) => admitted,
                    () = stop.cancelled() => break,
                };
                let ticket = match admitted {
                    Ok(ticket) => ticket,
                    Err(full) => {
                        tracing::debug!(%peer, %full, "a connection was refused");
                        if let Ok(turn) = Arc::clone(&refusals).try_acquire_owned() {
                            connections.spawn(async move {
                                let error = full.into();
                                let work = startup::refuse_at_once(socket, &error);
                                drop(tokio::time::timeout(REFUSAL_DEADLINE, work).await);
                                drop(turn);
                            });
                        }
                        continue;
                    }
                };
                let (client, security, stop) = (client.clone(), security.clone(), stop.clone());
                connections.spawn(async move {
                    tokio::select! {
                        outcome = connection::serve(socket, client, security, ticket) => if let Err(error) = outcome {
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
