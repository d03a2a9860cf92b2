//! The sinks: what was committed, on its way to topics.
//!
//! Owns what each sink has yet to write ([`backlog`]) and the task that writes it ([`task`]). Must not know dataflows. Called by the keep, which says what is in a
//! commit, and when a restart begins at it.
//!
//! Invariants. A topic holds what its collection held as of a commit point that is durable, and says which one: so no restart begins before what is in it, and
//! what it lacks can be found in the Delta tables however long it was away (ADR 0023). Nothing here waits for a broker but the task of a sink.

mod backlog;
mod partition;
mod task;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_ingest::sink::Progress;
use flowstone_proto::kafka::KafkaSink;
use flowstone_proto::message::{Response, SinkDescription};
use flowstone_storage::{CollectionCommit, DeltaTables};
use flowstone_types::{DeltaBatch, Epoch, EvalError, ObjectId};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use backlog::{Backlog, Limits};
use task::Task;
use write::Written;

/// What the keep and the task of a sink share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    backlog: Backlog,
    /// The columns of what is written.
    schema: SchemaRef,
    /// How often that has changed.
    generation: u64,
    /// What was written since the start of the process.
    total: Written,
}

#[derive(Debug)]
struct Sink {
    from: ObjectId,
    kafka: KafkaSink,
    shared: Arc<Shared>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// A commit that is not known to be durable.
#[derive(Debug)]
struct Commit {
    epoch: Epoch,
    /// Of collections that had sinks when it was begun; `None` if it has files as well.
    changes: BTreeMap<ObjectId, Option<Vec<DeltaBatch>>>,
    /// Of the tables in it, once it has ended.
    versions: BTreeMap<ObjectId, i64>,
}

/// The errors in a collection.
#[derive(Debug, Default)]
struct Errors {
    /// By multiplicity, as of the commit point.
    now: BTreeMap<EvalError, i64>,
    later: Vec<(Epoch, EvalError, i64)>,
}

/// All sinks.
#[derive(Debug)]
pub(super) struct Sinks {
    responses: mpsc::Sender<Response>,
    delta: DeltaTables,
    tasks: TaskTracker,
    sinks: BTreeMap<ObjectId, Sink>,
    /// The newest durable commit point.
    durable: Epoch,
    /// The version of each table at it; `None` if it had never had rows.
    versions: BTreeMap<ObjectId, Option<i64>>,
    /// Those after it, in order.
    commits: VecDeque<Commit>,
    errors: BTreeMap<ObjectId, Errors>,
    /// Why collections with sinks are not maintained any more.
    failed: BTreeMap<ObjectId, String>,
}

impl Sinks {
    pub(super) fn new(responses: mpsc::Sender<Response>, delta: DeltaTables) -> Self {
        Self {
            responses,
            delta,
            tasks: TaskTracker::new(),
            sinks: BTreeMap::new(),
            durable: Epoch::MIN,
            versions: BTreeMap::new(),
            commits: VecDeque::new(),
            errors: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Everything up to `commit_point` is in the stored tables.
    pub(super) const fn begin_at(&mut self, commit_point: Epoch) {
        self.durable = commit_point;
    }

    /// A table exists, at the commit point with this version.
    pub(super) fn add_table(&mut self, id: ObjectId, version: Option<i64>) {
        self.versions.insert(id, version);
    }

    /// Errors of a collection change at an epoch.
    pub(super) fn add_errors(
        &mut self,
        id: ObjectId,
        epoch: Epoch,
        errors: impl IntoIterator<Item = (EvalError, i64)>,
    ) {
        let later = errors
            .into_iter()
            .map(|(error, weight)| (epoch, error, weight));
        self.errors.entry(id).or_default().later.extend(later);
    }

    /// A sink exists.
    pub(super) fn create(&mut self, description: SinkDescription) {
        let SinkDescription {
            id,
            from,
            schema,
            kafka,
            as_of,
            begin,
            ..
        } = description;
        let backlog = Backlog::new(from, kafka.snapshot, as_of, self.durable, Limits::default());
        let backlog = backlog.begun_with(begin.map(|begin| Progress {
            epoch: begin.epoch,
            collection: begin.collection,
            version: begin.version,
        }));
        let state = State {
            backlog,
            schema,
            generation: 0,
            total: Written::default(),
        };
        self.begin(id, from, kafka, state);
    }

    fn begin(&mut self, id: ObjectId, from: ObjectId, kafka: KafkaSink, state: State) {
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Notify::new(),
        });
        let cancel = CancellationToken::new();
        let task = self.start(id, kafka.clone(), &shared, &cancel);
        let sink = Sink {
            from,
            kafka,
            shared,
            cancel,
            task,
        };
        self.sinks.insert(id, sink);
        self.settle(id, self.durable);
    }

    fn start(
        &self,
        id: ObjectId,
        kafka: KafkaSink,
        shared: &Arc<Shared>,
        cancel: &CancellationToken,
    ) -> JoinHandle<()> {
        let task = Task::new(task::Parts {
            sink: id,
            kafka,
            shared: Arc::clone(shared),
            delta: self.delta.clone(),
            responses: self.responses.clone(),
            cancel: cancel.clone(),
        });
        self.tasks.spawn(task.run())
    }

    /// A sink is as the description says from a moment on. One that could not go on begins again.
    pub(super) fn alter(&mut self, description: SinkDescription) {
        let SinkDescription {
            id,
            from,
            schema,
            kafka,
            as_of,
            ..
        } = description;
        let Some(sink) = self.sinks.get_mut(&id) else {
            return;
        };
        if sink.kafka != kafka {
            // What writes as before keeps a state to itself, and is shut out when the topic is opened anew.
            sink.cancel.cancel();
            let limits = Limits::default();
            let mut backlog = Backlog::new(from, kafka.snapshot, as_of, self.durable, limits);
            backlog.alter(from, as_of);
            let mut known = sink.shared.state.lock();
            if sink.from == from && !known.backlog.is_closed() {
                // The same is written, in another way: what waits does so still, and the topic has to be asked again what it holds.
                std::mem::swap(&mut known.backlog, &mut backlog);
                backlog.lost();
            }
            let state = State {
                backlog,
                schema,
                generation: 0,
                total: known.total,
            };
            drop(known);
            self.begin(id, from, kafka, state);
            return;
        }
        sink.from = from;
        {
            let mut state = sink.shared.state.lock();
            state.backlog.alter(from, as_of);
            state.schema = schema;
            state.generation += 1;
        }
        if let Some(sink) = self.sinks.get(&id)
            && sink.task.is_finished()
        {
            let (shared, cancel) = (Arc::clone(&sink.shared), sink.cancel.clone());
            let task = self.start(id, sink.kafka.clone(), &shared, &cancel);
            if let Some(sink) = self.sinks.get_mut(&id) {
                sink.task = task;
            }
        }
        self.settle(id, self.durable);
    }

    /// Forgets what is dropped.
    pub(super) fn drop_objects(&mut self, objects: &[ObjectId]) {
        for id in objects {
            if let Some(sink) = self.sinks.remove(id) {
                sink.cancel.cancel();
            }
            self.versions.remove(id);
            self.errors.remove(id);
            self.failed.remove(id);
        }
    }

    /// A commit begins.
    pub(super) fn commit(&mut self, epoch: Epoch, commits: &[CollectionCommit]) {
        let is_read = |id: ObjectId| self.sinks.values().any(|sink| sink.from == id);
        let changes = commits.iter().filter(|commit| is_read(commit.id));
        let changes = changes.map(|commit| {
            let is_told = commit.staged.is_empty() && !commit.replace;
            (commit.id, is_told.then(|| commit.deltas.clone()))
        });
        let commit = Commit {
            epoch,
            changes: changes.collect(),
            versions: BTreeMap::new(),
        };
        self.commits.push_back(commit);
    }

    /// A commit has ended.
    pub(super) fn committed(&mut self, epoch: Epoch, versions: &[(ObjectId, i64)]) {
        let mut commits = self.commits.iter_mut();
        if let Some(commit) = commits.find(|commit| commit.epoch == epoch) {
            commit.versions = versions.iter().copied().collect();
        }
    }

    /// A restart begins at `epoch` from now on: what is in the commits up to there can be written.
    pub(super) fn durable(&mut self, epoch: Epoch) {
        self.durable = self.durable.max(epoch);
        self.count_errors(epoch);
        // What has errors in it is not written, not even for a moment; settling lets go of what has none any more.
        for sink in self.sinks.values() {
            let reason = self.blocked(sink.from);
            if reason.is_some() {
                sink.shared.state.lock().backlog.block(reason);
            }
        }
        let is_due = |commit: &Commit| commit.epoch <= epoch;
        while self.commits.front().is_some_and(is_due)
            && let Some(commit) = self.commits.pop_front()
        {
            let Commit {
                epoch,
                mut changes,
                versions,
            } = commit;
            for (id, version) in versions {
                let Some(known) = self.versions.get_mut(&id) else {
                    // Dropped meanwhile.
                    continue;
                };
                if known.replace(version) == Some(version) {
                    continue;
                }
                let to = Progress {
                    epoch,
                    collection: id,
                    version: Some(version),
                };
                let deltas = changes.remove(&id).flatten();
                let readers = self.sinks.values().filter(|sink| sink.from == id);
                for sink in readers {
                    sink.shared.state.lock().backlog.changed(to, deltas.clone());
                }
            }
        }
        let ids: Vec<ObjectId> = self.sinks.keys().copied().collect();
        for id in ids {
            self.settle(id, epoch);
        }
    }

    /// Errors that were there at the commit point count at once.
    pub(super) fn count_loaded_errors(&mut self) {
        self.count_errors(Epoch::MIN);
    }

    fn count_errors(&mut self, epoch: Epoch) {
        for errors in self.errors.values_mut() {
            let due = errors.later.extract_if(.., |(at, ..)| *at <= epoch);
            for (_, error, weight) in due {
                *errors.now.entry(error).or_default() += weight;
            }
            errors.now.retain(|_, weight| *weight != 0);
        }
        self.errors
            .retain(|_, errors| !errors.now.is_empty() || !errors.later.is_empty());
    }

    /// Where nothing changes no commit comes. What is stored is complete through `epoch`, and `is_pending` says whether a collection has changes that no commit
    /// contains; `failure`: why one is not maintained any more.
    pub(super) fn pass(
        &mut self,
        epoch: Epoch,
        is_pending: impl Fn(ObjectId) -> bool,
        failure: impl Fn(ObjectId) -> Option<String>,
    ) {
        let mut failed = Vec::new();
        for (id, sink) in &self.sinks {
            if !self.failed.contains_key(&sink.from)
                && let Some(reason) = failure(sink.from)
            {
                failed.push((*id, sink.from, reason));
            }
        }
        for (id, from, reason) in failed {
            self.failed.insert(from, reason);
            self.settle(id, self.durable);
        }
        if !self.commits.is_empty() {
            return;
        }
        let waiting = self.sinks.iter().filter(|(_, sink)| {
            let is_settled = sink.shared.state.lock().backlog.is_settled();
            !is_settled && !is_pending(sink.from)
        });
        let waiting: Vec<ObjectId> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            self.settle(id, epoch.max(self.durable));
        }
    }

    /// Why nothing of a collection may be written.
    fn blocked(&self, id: ObjectId) -> Option<String> {
        let errors = self.errors.get(&id);
        let error = errors.and_then(|errors| errors.now.keys().next());
        let error = error.map(ToString::to_string);
        let error = error.or_else(|| self.failed.get(&id).cloned());
        error.map(|error| format!("there is an error in what is written: {error}"))
    }

    /// What a sink's collection holds at the commit point is what it holds at `epoch`; and wakes it.
    fn settle(&self, id: ObjectId, epoch: Epoch) {
        let Some(sink) = self.sinks.get(&id) else {
            return;
        };
        let now = Progress {
            epoch: self.durable,
            collection: sink.from,
            version: self.versions.get(&sink.from).copied().flatten(),
        };
        let blocked = self.blocked(sink.from);
        {
            let mut state = sink.shared.state.lock();
            state.backlog.pass(now, epoch);
            state.backlog.block(blocked);
        }
        sink.shared.changed.notify_one();
    }

    /// Ends what writes. Waits for no broker.
    pub(super) async fn stop(&self) {
        for sink in self.sinks.values() {
            sink.cancel.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests;
