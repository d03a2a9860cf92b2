//! The API for client protocols: sessions, cancellation, readiness, counters, shutdown.
//!
//! Owns [`Client`] and the start of the coordinator. Must not know any protocol. Called by `pgwire`, `console` and `node`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use flowstone_proto::local::CoordinatorEnd;
use flowstone_sql::system::{self, ObjectState, SessionInfo, SystemContext};
use tokio::sync::oneshot;

use crate::auth::{Authenticator, first_password};
use crate::catalog::Turn;
use crate::config::Config;
use crate::coordinator;
use crate::error::Error;
use crate::event::Event;
use crate::memory::SessionMemory;
use crate::parts::Parts;
use crate::session::{Session, SessionOptions, change_roles, runtime_state};

/// Starts the coordinator: reads what it must not forget, sets the worker up, and begins to issue epochs.
///
/// Returns as soon as sessions can be opened; reads wait until everything from before a crash has been replayed ([`Client::readiness`]).
///
/// # Errors
/// [`Error::Unavailable`] if a file cannot be used or the worker refuses, naming it.
pub async fn start(config: Config, worker: CoordinatorEnd) -> Result<Client, Error> {
    coordinator::start(config, worker)
        .await
        .map(|parts| Client { parts })
}

/// A handle to the running coordinator; clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    parts: Arc<Parts>,
}

/// Whether the node serves reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it does.
    pub ready: bool,
    /// Why not, or `ready`.
    pub reason: String,
}

/// What a node is doing, object by object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// The version of the software.
    pub version: String,
    /// What time it is, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// When the process started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Newest observable epoch: milliseconds since the Unix epoch.
    pub epoch: u64,
    /// Whether reads are served.
    pub readiness: Readiness,
    /// Sources, tables, materialized views, indexes and sinks, by identity.
    pub objects: Vec<ObjectState>,
}

/// Counters for the metrics endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Open sessions.
    pub sessions: u64,
    /// Statements executed since the start.
    pub statements_total: u64,
    /// Statements that failed since the start.
    pub statement_errors_total: u64,
    /// Newest observable epoch: milliseconds since the Unix epoch.
    pub epoch: u64,
    /// Epoch of the newest commit point.
    pub commit_epoch: u64,
    /// Earliest readable epoch.
    pub since: u64,
    /// Epochs that have become observable since the start.
    pub epochs_total: u64,
    /// Items in the catalog.
    pub catalog_items: u64,
}

impl Client {
    /// Opens a session.
    ///
    /// # Errors
    /// `UnknownDatabase` of [`Error::Sql`]; [`Error::Session`] for a startup parameter with a bad value; [`Error::Unavailable`] while shutting down.
    pub async fn open_session(&self, options: SessionOptions) -> Result<Session, Error> {
        Session::open(Arc::clone(&self.parts), options)
    }

    /// What counts against the bound of all sessions, for a client that has none yet.
    #[must_use]
    pub fn session_memory(&self) -> SessionMemory {
        self.parts.memory.session()
    }

    /// Checks who clients are.
    #[must_use]
    pub fn authenticator(&self) -> Authenticator {
        Authenticator::new(
            Arc::clone(&self.parts.auth),
            self.parts.catalog.clone(),
            Arc::clone(&self.parts.clock),
        )
    }

    /// Gives the role that exists in a new node its first password, or the one that a verifier in PostgreSQL's form was made of. Nothing happens if it has one.
    /// Returns whether it was set.
    ///
    /// # Errors
    /// [`Error::Sql`] for a verifier that is not accepted; [`Error::Unavailable`] if it cannot be made durable, or is empty.
    pub async fn set_first_password(&self, password: &str) -> Result<bool, Error> {
        let turn = Turn {
            words: "ALTER ROLE",
            process_id: None,
        };
        let turn = self.parts.turns.take(turn).await;
        match first_password(&self.parts.auth, &self.parts.catalog, password).await? {
            None => Ok(false),
            Some(change) => {
                change_roles(Arc::clone(&self.parts), turn, vec![change]).await?;
                Ok(true)
            }
        }
    }

    /// Whether anybody can log in where passwords are asked for.
    #[must_use]
    pub fn has_password(&self) -> bool {
        let catalog = self.parts.catalog.now();
        catalog
            .roles
            .values()
            .any(|role| role.login && role.password.is_some())
    }

    /// Cancels what the session runs, if the secret is right. Otherwise nothing happens, and nobody is told.
    pub fn cancel(&self, process_id: i32, secret: &[u8]) {
        self.parts.sessions.cancel(process_id, secret);
    }

    /// Whether reads are served.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        match self.not_ready_reason() {
            None => Readiness {
                ready: true,
                reason: "ready".to_owned(),
            },
            Some(reason) => Readiness {
                ready: false,
                reason,
            },
        }
    }

    /// What the node is doing, object by object. Asks nobody: it answers whatever state the node is in.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let catalog = self.parts.catalog.now();
        let runtime = runtime_state(&self.parts, Vec::new());
        let objects = system::overview(&SystemContext {
            catalog: &catalog,
            session: &SessionInfo::default(),
            runtime: &runtime,
        });
        Overview {
            version: runtime.version,
            now_ms: runtime.now_ms,
            started_ms: runtime.boot_time_ms,
            epoch: self.parts.timeline.published.borrow().observable.0,
            readiness: self.readiness(),
            objects,
        }
    }

    /// Counters.
    #[must_use]
    pub fn metrics_snapshot(&self) -> Metrics {
        let published = self.parts.timeline.published.borrow().clone();
        Metrics {
            sessions: self.parts.sessions.count(),
            statements_total: self.parts.counters.statements.load(Ordering::Relaxed),
            statement_errors_total: self.parts.counters.errors.load(Ordering::Relaxed),
            epoch: published.observable.0,
            commit_epoch: published.commit_point.0,
            since: self.parts.timeline.holds.since().0,
            epochs_total: published.epochs_total,
            catalog_items: u64::try_from(self.parts.catalog.now().items.len()).unwrap_or(u64::MAX),
        }
    }

    /// Resolves when the coordinator or the worker cannot go on: the process must exit. The text says why.
    pub async fn failed(&self) -> String {
        self.parts.liveness.failed().await
    }

    /// Refuses new statements, finishes the writes that wait, commits, stops the worker and the Raft group.
    pub async fn shutdown(&self) {
        let Parts {
            liveness,
            events,
            raft,
            ..
        } = &*self.parts;
        if liveness.stop() {
            return;
        }
        let (done, finished) = oneshot::channel();
        if events.tell(Event::Shutdown { done }).await.is_ok() {
            // An error means that the loop ended before: there is nothing left to wait for.
            let _ = finished.await;
        }
        raft.shutdown().await;
        liveness.ended().await;
    }

    fn not_ready_reason(&self) -> Option<String> {
        if let Some(reason) = self.parts.liveness.reason() {
            return Some(reason);
        }
        self.parts
            .timeline
            .is_replaying()
            .then(|| "replaying what was not committed before the restart".to_owned())
    }
}
