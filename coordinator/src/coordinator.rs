//! The coordinator's loop: routes the worker's responses, drives the epoch loop, and executes its effects.
//!
//! Owns the start (recovery) and the one task that everything passes through. It only routes: no planning, no I/O of its own, no work proportional to rows or
//! views. Called by `client`; sessions talk to it through [`Event`]s.
//!
//! Invariants. The loop never waits for the worker: what is to be sent waits in an outbox, bounded by the epochs that may be open. An epoch is published to
//! sessions right before the worker is told that it may be observed, so that nobody sees it while a read elsewhere may still be given an earlier one; what it
//! brings is told after that: then it is in the worker's queue before anything that those who are told send.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flowstone_proto::PROTOCOL_VERSION;
use flowstone_proto::local::CoordinatorEnd;
use flowstone_proto::message::{Command, Failure, LogId, RequestError, Response, SourceStatus};
use flowstone_sql::catalog::ItemKind;
use flowstone_sql::system::SinkStatistics;
use flowstone_types::{Clock, Epoch, ObjectId};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::auth::AuthState;
use crate::catalog::{CatalogReader, CatalogTurns};
use crate::config::Config;
use crate::epochs::{Effect, EpochLoop, FreezeId, Recovered, WriteId};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::headroom::Headroom;
use crate::holds::Holds;
use crate::install;
use crate::liveness::Liveness;
use crate::locks::{WriteGuard, WriteLocks};
use crate::memory::SessionsMemory;
use crate::numbers::Numbers;
use crate::parts::Parts;
use crate::raft::node::RaftTasks;
use crate::raft::{Command as Replicated, ProposeError, RaftNode, State};
use crate::registry::{Counters, SessionRegistry};
use crate::reported::{Reported, Runtime};
use crate::resizes::Resizes;
use crate::secrets::SecretKey;
use crate::subscriptions::Subscriptions;
use crate::timeline::{Published, Timeline};
use crate::vault::Vault;
use crate::worker::Worker;

/// `since` is sent to the worker when it has moved this far: compaction need not follow every epoch.
const SINCE_STEP_MS: u64 = 100;

/// A proposal that ended.
enum Proposed {
    Bound(Epoch),
    Binding(Epoch),
    CommitPoint(Epoch),
    Failures(Epoch),
    CleanedUp,
}

/// A command for the worker, and what is true once it is sent.
struct Outgoing {
    command: Command,
    then: Option<Publication>,
}

struct Publication {
    epoch: Epoch,
    writes: Vec<WriteId>,
    visible: Vec<ObjectId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    Draining,
    Stopping,
}

struct Loop {
    clock: Arc<dyn Clock>,
    /// When the process started: milliseconds since the Unix epoch.
    started_ms: u64,
    raft: RaftNode,
    catalog: CatalogReader,
    holds: Holds,
    worker: Arc<Worker>,
    reported: Arc<Reported>,
    resizes: Arc<Resizes>,
    liveness: Liveness,
    epochs: EpochLoop,
    responses: mpsc::Receiver<Response>,
    events: mpsc::Receiver<Event>,
    outbox: VecDeque<Outgoing>,
    proposals: FuturesUnordered<BoxFuture<'static, (Proposed, Result<(), ProposeError>)>>,
    published: watch::Sender<Published>,
    failure: watch::Sender<Option<String>>,
    writes: HashMap<WriteId, (oneshot::Sender<Result<Epoch, RequestError>>, WriteGuard)>,
    freezes: HashMap<FreezeId, oneshot::Sender<()>>,
    since_sent: Epoch,
    /// What was dropped since the start: the worker may still speak of it for a moment. Ids are never reused.
    dropped: BTreeSet<ObjectId>,
    /// Sources and source tables that have failed for good: nothing that is said of them later counts.
    failed: BTreeSet<ObjectId>,
    ending: Ending,
    when_stopped: Vec<oneshot::Sender<()>>,
    /// Whether the worker has stopped as it was told to.
    finished: bool,
    raft_tasks: Option<RaftTasks>,
}

/// Starts the coordinator.
///
/// # Errors
/// [`Error::Unavailable`].
pub(crate) async fn start(config: Config, worker: CoordinatorEnd) -> Result<Arc<Parts>, Error> {
    let key_path = config
        .secret_key_file
        .clone()
        .unwrap_or_else(|| config.data_dir.join("secrets.key"));
    let (data_dir, named_key) = (config.data_dir.clone(), key_path.display().to_string());
    let key = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&data_dir).map_err(|error| {
            Error::Unavailable(format!("cannot create \"{}\": {error}", data_dir.display()))
        })?;
        SecretKey::open_or_create(&key_path).map_err(Error::from)
    })
    .await
    .map_err(|error| Error::Internal(error.to_string()))??;
    let (raft, raft_tasks) = RaftNode::start(
        &config.data_dir.join("coordinator"),
        *uuid::Uuid::new_v4().as_bytes(),
    )
    .await?;
    let mut state = raft.state();
    state.name_catalog();
    let state = state;
    for (id, sealed) in &state.secrets {
        if key.open(*id, sealed).is_err() {
            return Err(Error::Unavailable(format!(
                "\"{named_key}\" is damaged: it is not the key that secret {id} was encrypted with; put the right one in its place"
            )));
        }
    }

    let CoordinatorEnd {
        commands,
        mut responses,
        results,
        direct,
    } = worker;
    let (logged, local_log) = greet(&commands, &mut responses, &state, &config.data_dir).await?;
    if state.local_log.is_none() {
        raft.propose(Replicated::LocalLog(local_log)).await?;
    }
    let recovered = Recovered {
        commit_point: state.commit_point.epoch,
        positions: state.commit_point.positions.clone(),
        bindings: state.bindings.clone(),
        logged,
        oracle_bound: state.oracle_bound,
    };
    let epochs = EpochLoop::new(recovered, config.commit_interval_ms);

    let published = Published {
        observable: state.commit_point.epoch,
        commit_point: state.commit_point.epoch,
        read_floor: epochs.read_floor(),
        ..Published::default()
    };
    let (published, published_receiver) = watch::channel(published);
    let (failure, failure_receiver) = watch::channel(None);
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| Error::Internal("no randomness".to_owned()))?;
    let started_ms = config.clock.now_ms();
    let runtime = Runtime {
        visible: state.commit_point.snapshotted.clone(),
        ..Runtime::default()
    };
    let numbers = Arc::<Numbers>::default();
    let liveness = Liveness::new(failure_receiver);
    let (events, event_receiver) = Events::channel(liveness.clone());
    let worker = Worker::new(commands, results, Arc::clone(&numbers), liveness.clone());
    let catalog = CatalogReader::new(state.catalog.clone());
    let auth = AuthState::new(config.auth, &key.derive("salts of users that do not exist"));
    let parts = Arc::new(Parts {
        started_ms,
        clock: config.clock,
        machine: config.machine,
        auth: Arc::new(auth),
        vault: Vault::new(key, raft.clone()),
        headroom: Headroom::new(config.data_dir, raft.clone()),
        raft,
        worker: Arc::new(worker),
        events,
        liveness,
        timeline: Timeline::new(published_receiver, Holds::default()),
        write_locks: WriteLocks::default(),
        turns: CatalogTurns::new(catalog.clone()),
        resizes: Arc::default(),
        reported: Arc::new(Reported::new(runtime, direct)),
        sessions: SessionRegistry::new(seed),
        memory: SessionsMemory::new(config.session_memory_bytes),
        subscriptions: Subscriptions::default(),
        counters: Counters::default(),
        catalog,
        numbers,
    });
    let failed = state.failures.iter();
    let failed: Vec<(ObjectId, Failure)> = failed
        .map(|(id, failure)| (*id, failure.failure.clone()))
        .collect();
    let mut coordinator = Loop {
        clock: Arc::clone(&parts.clock),
        started_ms,
        raft: parts.raft.clone(),
        catalog: parts.catalog.clone(),
        holds: parts.timeline.holds.clone(),
        worker: Arc::clone(&parts.worker),
        reported: Arc::clone(&parts.reported),
        resizes: Arc::clone(&parts.resizes),
        liveness: parts.liveness.clone(),
        epochs,
        responses,
        events: event_receiver,
        outbox: VecDeque::new(),
        proposals: FuturesUnordered::new(),
        published,
        failure,
        writes: HashMap::new(),
        freezes: HashMap::new(),
        since_sent: Epoch::MIN,
        dropped: BTreeSet::new(),
        failed: BTreeSet::new(),
        ending: Ending::No,
        when_stopped: Vec::new(),
        finished: false,
        raft_tasks: Some(raft_tasks),
    };
    let failed = coordinator.note_failures(&failed);
    parts.reported.runtime.lock().visible.extend(failed);
    let restore = install::restore_commands(
        parts.machine,
        &parts.vault,
        parts.numbers.next_change(),
        state,
    );
    coordinator.restore(restore).await?;
    tokio::spawn(coordinator.run());
    Ok(parts)
}

/// Says hello; returns the epochs in the worker's local log, and which log it is.
async fn greet(
    commands: &mpsc::Sender<Command>,
    responses: &mut mpsc::Receiver<Response>,
    state: &State,
    data_dir: &std::path::Path,
) -> Result<(Vec<Epoch>, LogId), Error> {
    let commit_point = state.commit_point.epoch;
    let gone = || Error::Unavailable("the worker has stopped".to_owned());
    commands
        .send(Command::Hello {
            version: PROTOCOL_VERSION,
            commit_point,
            local_log: state.local_log,
        })
        .await
        .map_err(|_| gone())?;
    match responses.recv().await {
        Some(Response::Ready {
            version,
            logged_epochs,
            local_log,
            newest_logged,
            cut_through,
        }) if version == PROTOCOL_VERSION => {
            if cut_through > commit_point || newest_logged > state.oracle_bound.max(commit_point) {
                let path = data_dir.join("coordinator").join("raft-log.redb");
                return Err(Error::Unavailable(format!(
                    "\"{}\" is damaged: it is older than the tables and the local log, which it has to know; restore all files of the data directory as of one moment",
                    path.display()
                )));
            }
            Ok((logged_epochs, local_log))
        }
        Some(Response::Ready { version, .. }) => Err(Error::Unavailable(format!(
            "the worker speaks protocol version {version}, the coordinator {PROTOCOL_VERSION}"
        ))),
        Some(Response::Fatal { message }) => Err(Error::Unavailable(message)),
        Some(_) => Err(Error::Internal(
            "the worker did not answer the greeting".to_owned(),
        )),
        None => Err(gone()),
    }
}

impl Loop {
    /// Brings the worker to the recovered state by what `restore` finds to be sent, routing responses meanwhile: neither side's channel can block the other.
    async fn restore(
        &mut self,
        restore: impl Future<Output = Result<Vec<Command>, Error>>,
    ) -> Result<(), Error> {
        let worker = Arc::clone(&self.worker);
        let send = async {
            for command in restore.await? {
                worker.send(command).await?;
            }
            Ok(())
        };
        let mut send = std::pin::pin!(send);
        loop {
            tokio::select! {
                sent = &mut send => return sent,
                response = self.responses.recv() => {
                    let stopped = response.is_none();
                    self.route(response);
                    if stopped || self.failure.borrow().is_some() {
                        return Err(self.liveness.gone());
                    }
                }
            }
        }
    }

    async fn run(mut self) {
        let commands = self.worker.commands.clone();
        let mut stalls = self.raft.stalls();
        loop {
            self.advance();
            if self.finished || self.failure.borrow().is_some() {
                break;
            }
            let idle = Duration::from_millis(self.epochs.idle_ms(self.clock.now_ms()));
            tokio::select! {
                response = self.responses.recv() => self.route(response),
                Some(event) = self.events.recv() => self.take(event),
                Some((proposed, result)) = self.proposals.next(), if !self.proposals.is_empty() => self.proposed(&proposed, result),
                permit = commands.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => if let Some(outgoing) = self.outbox.pop_front() {
                        if let Some(publication) = &outgoing.then {
                            self.published.send_modify(|published| {
                                published.observable = published.observable.max(publication.epoch);
                            });
                        }
                        permit.send(outgoing.command);
                        if let Some(publication) = outgoing.then {
                            self.publish(publication);
                        }
                    },
                    Err(_) => self.fail("the worker has stopped".to_owned()),
                },
                Ok(()) = stalls.changed() => self.refuse_writes(),
                () = tokio::time::sleep(idle) => {}
            }
        }
        self.end().await;
    }

    /// Answers everybody who still waits, by dropping what they wait for.
    async fn end(mut self) {
        self.events.close();
        {
            let mut waiters = self.worker.waiters.lock();
            waiters.writes.clear();
            waiters.upstream.clear();
            waiters.prepared.clear();
        }
        self.writes.clear();
        self.freezes.clear();
        self.raft.shutdown().await;
        if let Some(tasks) = self.raft_tasks.take() {
            tasks.closed().await;
        }
        for done in self.when_stopped.drain(..) {
            // The asker may have given up.
            let _ = done.send(());
        }
    }

    fn fail(&mut self, reason: String) {
        if self.failure.borrow().is_none() {
            tracing::error!(%reason, "the coordinator stops");
            self.failure.send_replace(Some(reason));
        }
    }

    fn advance(&mut self) {
        for effect in self.epochs.poll(self.clock.now_ms()) {
            self.execute(effect);
        }
    }

    fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::PersistBound(epoch) => {
                self.propose(Proposed::Bound(epoch), Replicated::OracleBound { epoch })
            }
            Effect::Bind { epoch, bindings } => {
                self.propose(
                    Proposed::Binding(epoch),
                    Replicated::Bind { epoch, bindings },
                );
            }
            Effect::Run(run) => self.queue(Command::RunEpoch(run)),
            Effect::Observable {
                epoch,
                writes,
                visible,
            } => {
                let then = Some(Publication {
                    epoch,
                    writes,
                    visible,
                });
                self.outbox.push_back(Outgoing {
                    command: Command::BindingDurable { epoch },
                    then,
                });
            }
            Effect::Commit { epoch } => self.queue(Command::Commit { epoch }),
            Effect::PersistCommitPoint { epoch, versions } => {
                self.propose(
                    Proposed::CommitPoint(epoch),
                    Replicated::CommitPoint { epoch, versions },
                );
            }
            Effect::CommitPointDurable { epoch } => {
                self.queue(Command::CommitPointDurable { epoch });
                // A sink that has written all so far is behind by what is in this commit, however long ago the one before was. Cost: O(sinks) for a commit.
                let published = self.published.borrow().clone();
                published.pass_sinks(&mut self.reported.runtime.lock().sink_statistics);
                self.published
                    .send_modify(|published| published.commit_point = epoch);
            }
            Effect::Frozen(id) => {
                if let Some(done) = self.freezes.remove(&id)
                    && done.send(()).is_err()
                {
                    self.epochs.thaw(id);
                }
            }
            Effect::Drained => {
                self.ending = Ending::Stopping;
                self.queue(Command::Shutdown);
            }
        }
    }

    fn queue(&mut self, command: Command) {
        self.outbox.push_back(Outgoing {
            command,
            then: None,
        });
    }

    fn propose(&mut self, what: Proposed, command: Replicated) {
        let raft = self.raft.clone();
        self.proposals
            .push(Box::pin(async move { (what, raft.propose(command).await) }));
    }

    fn proposed(&mut self, what: &Proposed, result: Result<(), ProposeError>) {
        if let Err(error) = result {
            return self.fail(format!("the coordinator's log failed: {error}"));
        }
        match what {
            Proposed::Bound(epoch) => self.epochs.bound_durable(*epoch),
            Proposed::Binding(epoch) => self.epochs.binding_durable(*epoch),
            Proposed::CommitPoint(epoch) => self.epochs.commit_point_durable(*epoch),
            Proposed::Failures(epoch) => self.epochs.failures_durable(*epoch),
            Proposed::CleanedUp => {}
        }
    }

    /// Lets the statuses say that something has failed for good; a source with all its tables. Returns all of them.
    fn note_failures(&mut self, failures: &[(ObjectId, Failure)]) -> Vec<ObjectId> {
        let mut all = Vec::new();
        let catalog = self.catalog.now();
        let now = self.clock.now_ms();
        let mut runtime = self.reported.runtime.lock();
        for (object, failure) in failures {
            let fed = catalog.items.values().filter(|item| match &item.kind {
                ItemKind::Table {
                    source: Some(source),
                    ..
                } => source.source == *object,
                _ => false,
            });
            if self.dropped.contains(object) {
                continue;
            }
            for id in fed.map(|item| item.id).chain([*object]) {
                all.push(id);
                if self.failed.insert(id) {
                    let status = SourceStatus::Failed {
                        error: failure.message.clone(),
                        hint: failure.hint.clone(),
                    };
                    runtime.statuses.insert(id, (status, now));
                }
            }
        }
        all
    }

    fn publish(&mut self, publication: Publication) {
        let Publication {
            epoch,
            writes,
            visible,
        } = publication;
        let became_visible = !visible.is_empty();
        if became_visible {
            self.reported.runtime.lock().visible.extend(visible);
        }
        let stored_through = self.epochs.stored_through();
        self.published.send_modify(|published| {
            published.stored_through = published.stored_through.max(stored_through);
            published.epochs_total += 1;
            published.visible_version += u64::from(became_visible);
        });
        for write in writes {
            self.answer_write(write, Ok(epoch));
        }
        if let Some(since) = self.holds.advance(epoch)
            && since.0 >= self.since_sent.0.saturating_add(SINCE_STEP_MS)
        {
            self.since_sent = since;
            self.queue(Command::AllowCompaction { since });
        }
    }

    /// Wakes those who wait until something has been hydrated.
    fn note_settled(&self) {
        self.published
            .send_modify(|published| published.settled_version += 1);
    }

    fn answer_write(&mut self, id: WriteId, outcome: Result<Epoch, RequestError>) {
        if let Some((done, _lock)) = self.writes.remove(&id) {
            // The client may be gone; what was decided stands.
            let _ = done.send(outcome);
        }
    }

    /// Fails the writes that wait for an epoch while the disk under Raft is full: they would wait for as long as it is.
    fn refuse_writes(&mut self) {
        let Some(error) = self.raft.stalled() else {
            return;
        };
        for (id, requests) in self.epochs.withdraw_writes() {
            for write in requests {
                self.queue(Command::DiscardWrite { write });
            }
            self.answer_write(id, Err(error.clone()));
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Write {
                requests,
                bytes,
                id,
                freeze,
                lock,
                done,
            } => {
                self.writes.insert(id, (done, lock));
                self.epochs.submit_write(id, requests, bytes, freeze);
                self.refuse_writes();
            }
            Event::Freeze { id, done } => {
                self.freezes.insert(id, done);
                self.epochs.freeze(id);
            }
            Event::Thaw { id } => {
                self.freezes.remove(&id);
                self.epochs.thaw(id);
            }
            Event::Dropped { objects } => {
                let mut runtime = self.reported.runtime.lock();
                for id in objects {
                    self.epochs.object_dropped(id);
                    runtime.forget(id);
                    self.dropped.insert(id);
                    self.failed.remove(&id);
                }
            }
            Event::MarkDirty => self.epochs.mark_dirty(),
            Event::Shutdown { done } => {
                self.when_stopped.push(done);
                if self.ending == Ending::No {
                    self.ending = Ending::Draining;
                    self.epochs.shutdown();
                }
            }
        }
    }

    fn route(&mut self, response: Option<Response>) {
        let Some(response) = response else {
            return self.stopped("the worker has stopped");
        };
        match response {
            Response::Ready { .. } => self.fail("the worker greeted twice".to_owned()),
            Response::SourceProgress {
                source,
                position,
                upstream: _,
            } => {
                if !self.dropped.contains(&source)
                    && let Err(error) = self.epochs.source_progress(source, position)
                {
                    self.fail(error.to_string());
                }
            }
            Response::SourceSnapshot {
                source,
                mut tables,
                position,
            } => {
                tables.retain(|table| !self.dropped.contains(table));
                if !tables.is_empty()
                    && !self.dropped.contains(&source)
                    && let Err(error) = self.epochs.source_snapshot(source, tables, position)
                {
                    self.fail(error.to_string());
                }
            }
            Response::SourceStatus { object, .. } if self.failed.contains(&object) => {}
            Response::SourceStatus { object, status } => {
                let now = self.clock.now_ms();
                self.reported
                    .runtime
                    .lock()
                    .statuses
                    .insert(object, (status, now));
            }
            Response::SourceStatistics(statistics) => {
                if let Some(object) = statistics.object {
                    self.reported
                        .runtime
                        .lock()
                        .statistics
                        .insert(object, statistics);
                }
            }
            Response::SinkStatus { sink, status } => {
                if !self.dropped.contains(&sink) {
                    let now = self.clock.now_ms();
                    let mut runtime = self.reported.runtime.lock();
                    runtime.sink_statuses.insert(sink, (status, now));
                }
            }
            Response::SinkStatistics {
                sink,
                messages,
                bytes,
                committed_epoch,
            } => {
                if !self.dropped.contains(&sink) {
                    let mut runtime = self.reported.runtime.lock();
                    let known = runtime.sink_statistics.entry(sink).or_default();
                    *known = SinkStatistics {
                        messages,
                        bytes,
                        // The worker knows of commits only: see `Published::pass_sinks`.
                        committed_epoch: known.committed_epoch.max(committed_epoch),
                    };
                }
            }
            Response::WriteStaged { write, result } => {
                if let Some(waiter) = self.worker.waiters.lock().writes.remove(&write) {
                    // The session may be gone; it discards the write when it goes.
                    let _ = waiter.send(result);
                }
            }
            Response::WritesFailed { epoch, error } => {
                for id in self.epochs.writes_failed(epoch) {
                    self.answer_write(id, Err(error.clone()));
                }
            }
            Response::Failed { epoch, failures } => {
                let failed = self.note_failures(&failures);
                self.epochs.failing(epoch, failed);
                self.propose(
                    Proposed::Failures(epoch),
                    Replicated::Fail { epoch, failures },
                );
            }
            Response::SourceHeld {
                source,
                held,
                epoch,
            } => {
                if !self.dropped.contains(&source) {
                    self.epochs.source_held(source, held, epoch);
                    let mut runtime = self.reported.runtime.lock();
                    if held {
                        runtime.held.insert(source);
                    } else {
                        runtime.held.remove(&source);
                    }
                }
            }
            Response::SourceBehind { source, behind } => {
                if !self.dropped.contains(&source) {
                    self.epochs.source_behind(source, behind);
                }
            }
            Response::CameIn => self.note_settled(),
            Response::CleanedUp { id } => {
                self.propose(Proposed::CleanedUp, Replicated::CleanedUp(id))
            }
            Response::EpochComplete { epoch } => self.epochs.epoch_complete(epoch),
            Response::ClusterReady { cluster, change } => {
                self.resizes.tell_ready(cluster, change);
            }
            Response::Hydrated { id } => {
                let now = self.clock.now_ms();
                let mut runtime = self.reported.runtime.lock();
                runtime.hydrated.insert(id);
                let created = runtime
                    .created_ms
                    .get(&id)
                    .copied()
                    .unwrap_or(self.started_ms);
                runtime.hydration_ms.insert(id, now.saturating_sub(created));
                drop(runtime);
                self.note_settled();
                self.epochs.mark_dirty();
            }
            Response::DataflowFailed { id, error } => {
                if !self.dropped.contains(&id) {
                    let now = self.clock.now_ms();
                    let mut runtime = self.reported.runtime.lock();
                    runtime.hydrated.remove(&id);
                    runtime.dataflow_errors.insert(id, (error.message, now));
                    drop(runtime);
                    self.note_settled();
                }
            }
            Response::CommitPutOff { epoch, from } => self.epochs.commit_put_off(epoch, from),
            Response::Committed { epoch, versions } => self.epochs.committed(epoch, versions),
            Response::UpstreamAnswer { request, answer } => {
                if let Some(waiter) = self.worker.waiters.lock().upstream.remove(&request) {
                    // The asker may have been cancelled.
                    let _ = waiter.send(answer);
                }
            }
            Response::Prepared { request, result } => {
                if let Some(waiter) = self.worker.waiters.lock().prepared.remove(&request) {
                    // The asker may have been cancelled.
                    let _ = waiter.send(result);
                }
            }
            Response::CollectionStatistics { id, statistics } => {
                self.reported
                    .runtime
                    .lock()
                    .collections
                    .insert(id, statistics);
            }
            Response::Stopped => self.stopped("the worker has stopped"),
            Response::Fatal { message } => self.fail(message),
        }
    }

    fn stopped(&mut self, reason: &str) {
        if self.ending == Ending::Stopping {
            self.finished = true;
        } else {
            self.fail(reason.to_owned());
        }
    }
}
