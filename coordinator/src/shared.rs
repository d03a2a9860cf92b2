//! What every session and the coordinator's loop share: handles, published facts, and the tables that route answers to whoever waits.
//!
//! Invariants. No lock here is held across an await. The catalog is replaced, never changed: a statement that holds its `Arc` sees one catalog throughout.
//! `published.observable` is set right before the worker is told that the epoch may be observed: nobody sees an epoch that others are not held to, and a read at
//! or above it waits in the worker for no more than that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flowstone_proto::local::{Direct, ResultStreams};
use flowstone_proto::message::{
    CollectionStatistics, Command, Export, RequestError, RequestId, SourceStatistics, SourceStatus,
    Staged, UpstreamAnswer, UpstreamQuestion,
};
use flowstone_proto::plan::Plan;
use flowstone_sql::Catalog;
use flowstone_sql::catalog::Machine;
use flowstone_sql::system::SinkStatistics;
use flowstone_types::{Clock, ClusterId, Epoch, ObjectId};
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot, watch};
use zeroize::Zeroizing;

use crate::auth::AuthState;
use crate::coordinator::Event;
use crate::epochs::{FreezeId, WriteId};
use crate::error::Error;
use crate::holds::Holds;
use crate::locks::WriteLocks;
use crate::memory::SessionsMemory;
use crate::raft::RaftNode;
use crate::registry::SessionRegistry;
use crate::room;
use crate::secrets::{SecretError, SecretKey};

/// Room on the disk that no client's write may take. Plenty for the Raft log, which is cut at every snapshot, and enough for a group commit or two, which are
/// what empties the local log.
const ROOM_KEPT_BYTES: u64 = 32 << 20;

/// What sessions share with the loop.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) data_dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) machine: Machine,
    pub(crate) raft: RaftNode,
    pub(crate) key: SecretKey,
    pub(crate) auth: AuthState,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) results: ResultStreams,
    pub(crate) direct: Direct,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) published: watch::Receiver<Published>,
    /// Why the process must end, once it must.
    pub(crate) failure: watch::Receiver<Option<String>>,
    pub(crate) holds: Holds,
    pub(crate) write_locks: WriteLocks,
    /// Held while a DDL statement is planned, made durable and sent to the worker.
    pub(crate) ddl: Arc<tokio::sync::Mutex<()>>,
    /// Whose turn it is, or was last.
    pub(crate) turn: Mutex<Turn>,
    /// Clusters whose change a statement waits for: nobody else changes them.
    pub(crate) resizes: Mutex<BTreeMap<ClusterId, Resizing>>,
    /// Held while a statement that reads a source's tables decides what to write.
    pub(crate) source_reads: tokio::sync::Mutex<()>,
    pub(crate) waiters: Mutex<Waiters>,
    pub(crate) runtime: Mutex<Runtime>,
    pub(crate) sessions: SessionRegistry,
    /// What sessions hold.
    pub(crate) memory: SessionsMemory,
    /// The subscriptions that go on, by the requests that feed them.
    pub(crate) subscriptions: Mutex<BTreeMap<RequestId, Subscription>>,
    pub(crate) counters: Counters,
    pub(crate) catalog: RwLock<Arc<Catalog>>,
    pub(crate) next_number: AtomicU64,
    pub(crate) stopping: AtomicBool,
    /// Milliseconds since the Unix epoch.
    pub(crate) started_ms: u64,
}

/// Who changes the catalog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    /// The words that name the statement.
    pub(crate) words: &'static str,
    /// The session that runs it; `None` if none does.
    pub(crate) process_id: Option<i32>,
}

/// A change of a cluster's threads that somebody waits for.
#[derive(Debug)]
pub(crate) struct Resizing {
    /// The number of the change: the cluster is ready when it is ready for this one or for a later one.
    pub(crate) change: u64,
    /// Told once when what is in it has caught up on its new threads.
    pub(crate) ready: Option<oneshot::Sender<()>>,
}

/// A subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The session that reads it.
    pub(crate) process_id: i32,
    /// Where it runs.
    pub(crate) cluster: ClusterId,
    /// Milliseconds since the Unix epoch.
    pub(crate) created_at_ms: u64,
    /// What it reads.
    pub(crate) reads: Vec<ObjectId>,
}

/// What the loop tells everybody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// The newest observable epoch.
    pub(crate) observable: Epoch,
    /// The newest durable commit point.
    pub(crate) commit_point: Epoch,
    /// The newest epoch that is known to have nothing that is not in the commit point.
    pub(crate) stored_through: Epoch,
    /// Every read is at or above this epoch: it covers what was seen before a restart.
    pub(crate) read_floor: Epoch,
    /// Epochs that became observable since the start.
    pub(crate) epochs_total: u64,
    /// Counts changes of `Runtime::visible`.
    pub(crate) visible_version: u64,
    /// Counts views and indexes that have been hydrated, or have failed.
    pub(crate) settled_version: u64,
}

impl Published {
    /// A sink that has written all of the commit point has written all that there is through [`Published::stored_through`]: it is not behind because nothing
    /// changes.
    pub(crate) fn pass_sinks(&self, sinks: &mut BTreeMap<ObjectId, SinkStatistics>) {
        for written in sinks.values_mut() {
            if written.committed_epoch >= Some(self.commit_point) {
                written.committed_epoch = written.committed_epoch.max(Some(self.stored_through));
            }
        }
    }
}

/// Who waits for an answer of the worker.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    pub(crate) writes: HashMap<RequestId, oneshot::Sender<Result<Staged, RequestError>>>,
    pub(crate) upstream: HashMap<RequestId, oneshot::Sender<Result<UpstreamAnswer, RequestError>>>,
    pub(crate) prepared: HashMap<RequestId, oneshot::Sender<Result<(), RequestError>>>,
}

/// What the worker reported, for the system relations.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    /// Source tables whose snapshot is in an observable epoch.
    pub(crate) visible: BTreeSet<ObjectId>,
    pub(crate) hydrated: BTreeSet<ObjectId>,
    /// Sources that are held up: they cannot give what is bound.
    pub(crate) held: BTreeSet<ObjectId>,
    /// Why views and indexes have failed, and when.
    pub(crate) dataflow_errors: BTreeMap<ObjectId, (String, u64)>,
    /// When a dataflow was created, and how long it then took to catch up: milliseconds.
    pub(crate) created_ms: BTreeMap<ObjectId, u64>,
    pub(crate) hydration_ms: BTreeMap<ObjectId, u64>,
    /// Status and since when: milliseconds since the Unix epoch.
    pub(crate) statuses: BTreeMap<ObjectId, (SourceStatus, u64)>,
    pub(crate) statistics: BTreeMap<ObjectId, SourceStatistics>,
    /// Status of sinks and since when, as of sources.
    pub(crate) sink_statuses: BTreeMap<ObjectId, (SourceStatus, u64)>,
    pub(crate) sink_statistics: BTreeMap<ObjectId, SinkStatistics>,
    /// What collections and indexes hold in memory.
    pub(crate) collections: BTreeMap<ObjectId, CollectionStatistics>,
}

impl Runtime {
    /// Forgets a dropped object.
    pub(crate) fn forget(&mut self, id: ObjectId) {
        self.visible.remove(&id);
        self.hydrated.remove(&id);
        self.held.remove(&id);
        self.dataflow_errors.remove(&id);
        self.created_ms.remove(&id);
        self.hydration_ms.remove(&id);
        self.statuses.remove(&id);
        self.statistics.remove(&id);
        self.sink_statuses.remove(&id);
        self.sink_statistics.remove(&id);
        self.collections.remove(&id);
    }
}

/// Counters for the metrics endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) statements: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl Shared {
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read())
    }

    pub(crate) fn next_request(&self) -> RequestId {
        RequestId(self.next_number.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn next_write(&self) -> WriteId {
        WriteId(self.next_number.fetch_add(1, Ordering::Relaxed))
    }

    /// The number of a change of the catalog, for the worker to name it. Changes are numbered in their turn: who comes later has the higher number.
    pub(crate) fn next_change(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_freeze(&self) -> FreezeId {
        FreezeId(self.next_number.fetch_add(1, Ordering::Relaxed))
    }

    /// The epoch that a strictly serializable read is at or above: everything acknowledged or served so far is at or below it.
    pub(crate) fn read_epoch(&self) -> Epoch {
        let published = self.published.borrow();
        published.observable.max(published.read_floor)
    }

    /// Whether a view or an index has been computed: who reads it does not wait for that.
    pub(crate) fn is_hydrated(&self, id: ObjectId) -> bool {
        match self.direct.get() {
            // It knows first, and also of what is being computed again.
            Some(direct) => direct.is_readable(id),
            None => self.runtime.lock().hydrated.contains(&id),
        }
    }

    /// Refuses a write while the disk has no room but what is kept for the Raft log and for group commits of what was acknowledged before.
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        self.check_log()?;
        match room::available(&self.data_dir) {
            Ok(available) if available < ROOM_KEPT_BYTES => {
                let message = format!(
                    "the disk of \"{}\" is full: {} MiB are left and kept for what was acknowledged",
                    self.data_dir.display(),
                    available >> 20
                );
                Err(RequestError::Storage {
                    message,
                    full: true,
                }
                .into())
            }
            // Who cannot be asked may still have room; the write itself will tell.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Refuses what would wait for the Raft log while its disk is full.
    pub(crate) fn check_log(&self) -> Result<(), Error> {
        self.raft
            .stalled()
            .map_or(Ok(()), |error| Err(error.into()))
    }

    /// Sends a command to the worker, waiting while it is behind.
    pub(crate) async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| self.gone())
    }

    /// Tells the loop, waiting while it is behind.
    pub(crate) async fn tell(&self, event: Event) -> Result<(), Error> {
        self.events.send(event).await.map_err(|_| self.gone())
    }

    /// Why nothing answers any more.
    pub(crate) fn gone(&self) -> Error {
        let reason = self.failure.borrow().clone();
        Error::Unavailable(reason.unwrap_or_else(|| "the server is shutting down".to_owned()))
    }

    pub(crate) fn not_ready_reason(&self) -> Option<String> {
        if let Some(failure) = self.failure.borrow().clone() {
            return Some(failure);
        }
        if self.stopping.load(Ordering::SeqCst) {
            return Some("shutting down".to_owned());
        }
        let published = self.published.borrow();
        (published.observable < published.read_floor)
            .then(|| "replaying what was not committed before the restart".to_owned())
    }

    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The loop ended in good order: there is no failure to come.
            Err(_) => std::future::pending().await,
        }
    }

    pub(crate) async fn shutdown(&self) {
        if self.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        let (done, finished) = oneshot::channel();
        if self.tell(Event::Shutdown { done }).await.is_ok() {
            // An error means that the loop ended before: there is nothing left to wait for.
            let _ = finished.await;
        }
        self.raft.shutdown().await;
        // The loop owns the sender and drops it last: only then are the files closed.
        let mut ended = self.failure.clone();
        while ended.changed().await.is_ok() {}
    }

    /// Waits for the turn to change the catalog.
    pub(crate) async fn take_turn(&self, turn: Turn) -> OwnedMutexGuard<()> {
        let guard = Arc::clone(&self.ddl).lock_owned().await;
        *self.turn.lock() = turn;
        guard
    }

    /// Asks an upstream through the worker.
    pub(crate) async fn ask_upstream(
        &self,
        question: UpstreamQuestion,
    ) -> Result<UpstreamAnswer, Error> {
        let request = self.next_request();
        let (answer, answered) = oneshot::channel();
        self.waiters.lock().upstream.insert(request, answer);
        self.send(Command::AskUpstream { request, question })
            .await?;
        Ok(answered.await.map_err(|_| self.gone())??)
    }

    /// Has the worker try a plan; `export` is `None` for a subscription's.
    ///
    /// # Errors
    /// Why it cannot be rendered.
    pub(crate) async fn prepare(&self, plan: Plan, export: Option<Export>) -> Result<(), Error> {
        let request = self.next_request();
        let (answer, answered) = oneshot::channel();
        self.waiters.lock().prepared.insert(request, answer);
        self.send(Command::Prepare {
            request,
            plan,
            export,
        })
        .await?;
        Ok(answered.await.map_err(|_| self.gone())??)
    }

    /// The value of a secret.
    pub(crate) fn secret_value(&self, id: ObjectId) -> Result<Zeroizing<Vec<u8>>, Error> {
        let sealed = self.raft.secret(id).ok_or(SecretError::Missing(id))?;
        Ok(self.key.open(id, &sealed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_lacks_nothing_of_the_commit_point_is_not_behind_because_nothing_changes() {
        let published = Published {
            commit_point: Epoch(5),
            stored_through: Epoch(900),
            ..Published::default()
        };
        let through = |committed_epoch: Option<Epoch>| {
            let written = SinkStatistics {
                committed_epoch,
                ..SinkStatistics::default()
            };
            let mut sinks = BTreeMap::from([(ObjectId::User(1), written)]);
            published.pass_sinks(&mut sinks);
            sinks[&ObjectId::User(1)].committed_epoch
        };
        assert_eq!(through(Some(Epoch(5))), Some(Epoch(900)));
        assert_eq!(through(Some(Epoch(4))), Some(Epoch(4)));
        assert_eq!(through(Some(Epoch(901))), Some(Epoch(901)));
        assert_eq!(through(None), None);
    }
}
