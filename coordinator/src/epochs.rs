//! The life of an epoch as a pure state machine: opened, run by the worker and bound at the same time, observable, committed.
//!
//! Owns the decision when an epoch opens, what it contains, when it may be observed, and when the Delta tables are committed. Time is passed in; what is to be
//! done comes out as [`Effect`]s, which `coordinator` executes in order. Must not know sessions, the catalog or any channel.
//!
//! Invariants. Epochs strictly increase. An epoch is observable only when it and every epoch before it has been run by the worker and has its bindings on
//! disk, and what failed in it as well. At most [`EPOCHS_IN_WORKER_MAX`] epochs are in the worker: while one runs, what arrives gathers for the next. After a restart every epoch that had a
//! binding or a record in the local log runs again, with the same contents and in the same order, before a new one opens; and an epoch at the oracle's old bound,
//! above which nobody has seen any, so that reads need not wait for a new bound.
//!
//! The writes of an epoch are one record of the worker's local log, which has a largest size: so an epoch takes those that wait up to [`WRITE_BYTES_MAX`], and
//! the next one the others. One that is larger stands alone: if the log refuses it, it is the only one that fails.
//!
//! An epoch with local writes only has no binding: its record in the worker's local log says everything there is to say about it, so it does not wait for Raft.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use flowstone_proto::message::{RequestId, RunEpoch, SourceBinding};
use flowstone_types::{Epoch, ObjectId, SourcePosition};

use crate::oracle::Oracle;

/// Epochs the worker may have at once: one that runs and one that waits, so that it never idles between two.
pub const EPOCHS_IN_WORKER_MAX: usize = 2;
/// Epochs that were opened and are not observable yet. Reached only when the disk under Raft is stuck.
const EPOCHS_UNOBSERVABLE_MAX: usize = 64;
/// An epoch opens after this long even if nothing changed, so that frontiers and `AS OF` advance.
pub const HEARTBEAT_MS: u64 = 1_000;
/// Memory that the rows of one epoch's writes take, unless it is the only one. Far below the largest record of the local log (4 GiB).
pub const WRITE_BYTES_MAX: usize = 1 << 30;

/// Names one transaction's writes; chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// Names one request that sources stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FreezeId(pub u64);

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make the oracle's bound durable, then call [`EpochLoop::bound_durable`].
    PersistBound(Epoch),
    /// Make a binding durable, then call [`EpochLoop::binding_durable`].
    Bind {
        /// The epoch.
        epoch: Epoch,
        /// Its bindings; never empty.
        bindings: Vec<SourceBinding>,
    },
    /// Send to the worker.
    Run(RunEpoch),
    /// Tell the worker that everything up to `epoch` may be observed; then the rest of the world.
    Observable {
        /// The newest observable epoch.
        epoch: Epoch,
        /// Transactions that are done by it.
        writes: Vec<WriteId>,
        /// Source tables that have their first content by it.
        visible: Vec<ObjectId>,
    },
    /// Tell the worker to commit.
    Commit {
        /// Up to which epoch.
        epoch: Epoch,
    },
    /// Make the commit point durable, then call [`EpochLoop::commit_point_durable`].
    PersistCommitPoint {
        /// The epoch.
        epoch: Epoch,
        /// Versions of the tables that changed.
        versions: Vec<(ObjectId, i64)>,
    },
    /// Tell the worker that the commit point is durable.
    CommitPointDurable {
        /// The epoch.
        epoch: Epoch,
    },
    /// Sources stand still from now on, and everything they sent is in an epoch that the worker has run.
    Frozen(FreezeId),
    /// After [`EpochLoop::shutdown`]: everything is observable and committed.
    Drained,
}

/// A source has told a position of another kind than what it told before, or than what it was bound at: a bug of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source {id} stands at {known} and tells {told}, a position of another kind")]
pub struct ForeignPosition {
    id: ObjectId,
    known: SourcePosition,
    told: SourcePosition,
}

/// What a crash left behind.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The epoch of the commit point.
    pub commit_point: Epoch,
    /// Position of each source at the commit point.
    pub positions: BTreeMap<ObjectId, SourcePosition>,
    /// Bindings above the commit point.
    pub bindings: BTreeMap<Epoch, Vec<SourceBinding>>,
    /// Epochs above the commit point that the local log holds.
    pub logged: Vec<Epoch>,
    /// The oracle's durable bound.
    pub oracle_bound: Epoch,
}

#[derive(Clone, Debug, Default)]
struct SourceState {
    /// What the source has buffered.
    progress: Option<SourcePosition>,
    /// What is in an epoch.
    bound: Option<SourcePosition>,
    /// Snapshots that are on disk and in no epoch: the tables and the position they were taken at.
    snapshots: Vec<(Vec<ObjectId>, SourcePosition)>,
}

#[derive(Clone, Debug)]
struct OpenEpoch {
    epoch: Epoch,
    writes: Vec<WriteId>,
    visible: Vec<ObjectId>,
    moves_sources: bool,
    complete: bool,
    durable: bool,
    /// Something failed in it for good, and that is not on disk yet.
    failing: bool,
}

/// A transaction's staged writes, waiting for an epoch.
#[derive(Clone, Debug)]
struct WaitingWrite {
    id: WriteId,
    requests: Vec<RequestId>,
    bytes: usize,
    /// Sources stand still until the epoch that takes it.
    freeze: Option<FreezeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommitState {
    Idle,
    InWorker(Epoch),
    InRaft(Epoch),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Draining,
    Drained,
}

/// The state machine. After every call of a method that takes a fact, call [`EpochLoop::poll`].
#[derive(Debug)]
pub struct EpochLoop {
    oracle: Oracle,
    sources: BTreeMap<ObjectId, SourceState>,
    replay: VecDeque<(Epoch, Vec<SourceBinding>)>,
    open: VecDeque<OpenEpoch>,
    writes: VecDeque<WaitingWrite>,
    frozen: BTreeSet<FreezeId>,
    freezing: Vec<FreezeId>,
    /// Sources that cannot give what is bound.
    held: BTreeSet<ObjectId>,
    /// Sources that give what is bound piece by piece, and the newest epoch that lacks nothing of it: more would put off commits for longer.
    behind: BTreeMap<ObjectId, Epoch>,
    /// The newest epoch that the worker has run.
    complete: Epoch,
    /// The first epoch that may be committed.
    commit_from: Epoch,
    observable: Epoch,
    read_floor: Epoch,
    commit_point: Epoch,
    commit: CommitState,
    committed: Option<(Epoch, Vec<(ObjectId, i64)>)>,
    /// The newest epoch that changed anything, or whose successor must be committed for another reason.
    dirty: bool,
    opened_at_ms: Option<u64>,
    committed_at_ms: u64,
    /// Time between two group commits.
    commit_interval_ms: u64,
    pending: Vec<Effect>,
    phase: Phase,
}

impl EpochLoop {
    /// Starts from what was recovered: nothing for a new deployment. `commit_interval_ms`: milliseconds between two group commits.
    #[must_use]
    pub fn new(recovered: Recovered, commit_interval_ms: u64) -> Self {
        let mut replay: BTreeMap<Epoch, Vec<SourceBinding>> = recovered
            .logged
            .iter()
            .map(|epoch| (*epoch, Vec::new()))
            .collect();
        replay.extend(recovered.bindings);
        replay.retain(|epoch, _| *epoch > recovered.commit_point);
        let mut oracle = Oracle::new(recovered.oracle_bound);
        oracle.start_above(recovered.commit_point);
        if let Some((last, _)) = replay.last_key_value() {
            oracle.start_above(*last);
        }
        let dirty = !replay.is_empty();
        // Nobody has seen an epoch above this one, and what was seen at it is what the replay makes: so it can be read without a new bound, which waits for
        // the Raft log, perhaps for a full disk.
        let newest = oracle.last();
        if newest > recovered.commit_point {
            replay.entry(newest).or_default();
        }
        let read_floor = if replay.is_empty() {
            newest.next()
        } else {
            newest
        };
        let mut sources: BTreeMap<ObjectId, SourceState> = BTreeMap::new();
        for (source, position) in recovered.positions {
            sources.entry(source).or_default().bound = Some(position);
        }
        for binding in replay.values().flatten() {
            sources.entry(binding.source).or_default().bound = Some(binding.position.clone());
        }
        Self {
            oracle,
            sources,
            dirty,
            read_floor,
            replay: replay.into_iter().collect(),
            open: VecDeque::new(),
            writes: VecDeque::new(),
            frozen: BTreeSet::new(),
            freezing: Vec::new(),
            held: BTreeSet::new(),
            behind: BTreeMap::new(),
            complete: recovered.commit_point,
            commit_from: Epoch::MIN,
            observable: recovered.commit_point,
            commit_point: recovered.commit_point,
            commit: CommitState::Idle,
            committed: None,
            opened_at_ms: None,
            committed_at_ms: 0,
            commit_interval_ms,
            pending: Vec::new(),
            phase: Phase::Running,
        }
    }

    /// The epoch that every read must wait for after a start: certainly at or above everything that was ever seen.
    #[must_use]
    pub const fn read_floor(&self) -> Epoch {
        self.read_floor
    }

    /// The newest observable epoch.
    #[must_use]
    pub const fn observable(&self) -> Epoch {
        self.observable
    }

    /// The newest durable commit point.
    #[must_use]
    pub const fn commit_point(&self) -> Epoch {
        self.commit_point
    }

    /// The newest epoch that is known to have nothing that is not in the commit point: where nothing changes, no commit comes.
    #[must_use]
    pub fn stored_through(&self) -> Epoch {
        if self.dirty || self.commit != CommitState::Idle {
            self.commit_point
        } else {
            self.observable.max(self.commit_point)
        }
    }

    /// Whether every epoch from before the crash has been handed to the worker.
    #[must_use]
    pub fn replayed(&self) -> bool {
        self.replay.is_empty()
    }

    /// A source has buffered everything up to `position`.
    ///
    /// # Errors
    /// [`ForeignPosition`]; the source stands where it stood.
    pub fn source_progress(
        &mut self,
        source: ObjectId,
        position: SourcePosition,
    ) -> Result<(), ForeignPosition> {
        let state = self.sources.entry(source).or_default();
        state.check_kind(source, &position)?;
        state.progress = join(state.progress.as_ref(), Some(&position));
        Ok(())
    }

    /// The snapshot of `tables`, taken at `position`, is on the worker's disk.
    ///
    /// # Errors
    /// [`ForeignPosition`]; the snapshot is not bound.
    pub fn source_snapshot(
        &mut self,
        source: ObjectId,
        tables: Vec<ObjectId>,
        position: SourcePosition,
    ) -> Result<(), ForeignPosition> {
        let state = self.sources.entry(source).or_default();
        state.check_kind(source, &position)?;
        state.snapshots.push((tables, position));
        Ok(())
    }

    /// An object is gone: a source does not move any more, a table's snapshot is not bound any more.
    pub fn object_dropped(&mut self, id: ObjectId) {
        self.sources.remove(&id);
        self.held.remove(&id);
        self.behind.remove(&id);
        for state in self.sources.values_mut() {
            for (tables, _) in &mut state.snapshots {
                tables.retain(|table| *table != id);
            }
            state.snapshots.retain(|(tables, _)| !tables.is_empty());
        }
        for binding in self.replay.iter_mut().flat_map(|(_, bindings)| bindings) {
            binding.snapshots.retain(|table| *table != id);
        }
        for (_, bindings) in &mut self.replay {
            bindings.retain(|binding| binding.source != id);
        }
    }

    /// Something other than an epoch's contents must reach the Delta tables: a new view.
    pub const fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// A transaction's staged writes, whose rows take `bytes`, wait for an epoch. `freeze` ends with the epoch that takes them.
    pub fn submit_write(
        &mut self,
        id: WriteId,
        requests: Vec<RequestId>,
        bytes: usize,
        freeze: Option<FreezeId>,
    ) {
        self.writes.push_back(WaitingWrite {
            id,
            requests,
            bytes,
            freeze,
        });
    }

    /// Asks that sources stand still; [`Effect::Frozen`] follows. Must end with [`EpochLoop::thaw`] or [`EpochLoop::submit_write`].
    pub fn freeze(&mut self, id: FreezeId) {
        self.frozen.insert(id);
        self.freezing.push(id);
    }

    /// A source cannot give what is bound, or can again: nothing is committed meanwhile, since what is missing would be taken for stored.
    /// `epoch`: when the last of it was given.
    pub fn source_held(&mut self, source: ObjectId, held: bool, epoch: Epoch) {
        if held {
            self.held.insert(source);
        } else {
            self.held.remove(&source);
            // What it gave late is in no commit yet, and not in one of an earlier epoch.
            self.dirty = true;
            self.commit_from = self.commit_from.max(epoch);
        }
    }

    /// A source gives what is bound piece by piece, or has given it: nothing more is bound to it meanwhile, and nothing is committed that would have a part of it.
    pub fn source_behind(&mut self, source: ObjectId, behind: bool) {
        if behind {
            // It lacks something from the epoch on that is being run; one that was held up from an earlier one on.
            let before = if self.held.contains(&source) {
                Epoch::MIN
            } else {
                self.complete
            };
            self.behind.entry(source).or_insert(before);
        } else if self.behind.remove(&source).is_some() {
            // The last of it is in the newest epoch: the worker would put off a commit of an earlier one, and by then there may be no time for another.
            self.commit_from = self.commit_from.max(self.complete);
        }
    }

    /// Sources may move again.
    pub fn thaw(&mut self, id: FreezeId) {
        self.frozen.remove(&id);
        self.freezing.retain(|freezing| *freezing != id);
    }

    /// The writes of an epoch could not be made durable. Returns the transactions that have failed; the epoch goes on without them.
    pub fn writes_failed(&mut self, epoch: Epoch) -> Vec<WriteId> {
        let open = self.open.iter_mut().find(|open| open.epoch == epoch);
        open.map(|open| std::mem::take(&mut open.writes))
            .unwrap_or_default()
    }

    /// Takes back the writes that wait for an epoch: there will be none for now.
    pub fn withdraw_writes(&mut self) -> Vec<(WriteId, Vec<RequestId>)> {
        let mut withdrawn = Vec::new();
        for waiting in std::mem::take(&mut self.writes) {
            if let Some(freeze) = waiting.freeze {
                self.thaw(freeze);
            }
            withdrawn.push((waiting.id, waiting.requests));
        }
        withdrawn
    }

    /// The writes of the next epoch, and what they are to the worker. What they held still moves again with it.
    fn take_writes(&mut self) -> (Vec<WriteId>, Vec<RequestId>) {
        let (mut writes, mut requests) = (Vec::new(), Vec::new());
        let mut bytes = 0_usize;
        while let Some(next) = self.writes.front().map(|waiting| waiting.bytes)
            && (writes.is_empty() || bytes.saturating_add(next) <= WRITE_BYTES_MAX)
            && let Some(waiting) = self.writes.pop_front()
        {
            bytes = bytes.saturating_add(next);
            writes.push(waiting.id);
            requests.extend(waiting.requests);
            if let Some(freeze) = waiting.freeze {
                self.thaw(freeze);
            }
        }
        (writes, requests)
    }

    /// The worker has run an epoch and its local writes are on disk.
    pub fn epoch_complete(&mut self, epoch: Epoch) {
        if let Some(open) = self.open.iter_mut().find(|open| open.epoch == epoch) {
            open.complete = true;
            self.complete = self.complete.max(epoch);
        }
    }

    /// The binding of an epoch is on disk.
    pub fn binding_durable(&mut self, epoch: Epoch) {
        if let Some(open) = self.open.iter_mut().find(|open| open.epoch == epoch) {
            open.durable = true;
        }
    }

    /// Something failed for good in an epoch that is not complete: it cannot be observed before [`EpochLoop::failures_durable`]. From it on there is
    /// something to read of `objects`: the failure.
    pub fn failing(&mut self, epoch: Epoch, objects: Vec<ObjectId>) {
        if let Some(open) = self.open.iter_mut().find(|open| open.epoch == epoch) {
            open.failing = true;
            open.visible.extend(objects);
        }
    }

    /// What failed in an epoch is on disk.
    pub fn failures_durable(&mut self, epoch: Epoch) {
        if let Some(open) = self.open.iter_mut().find(|open| open.epoch == epoch) {
            open.failing = false;
        }
    }

    /// The oracle's bound is on disk.
    pub fn bound_durable(&mut self, bound: Epoch) {
        self.oracle.bound_is_durable(bound);
    }

    /// The worker has committed to the Delta tables.
    pub fn committed(&mut self, epoch: Epoch, versions: Vec<(ObjectId, i64)>) {
        if self.commit == CommitState::InWorker(epoch) {
            self.committed = Some((epoch, versions));
        }
    }

    /// The worker has not begun a commit, and will not for an epoch before `from`.
    pub fn commit_put_off(&mut self, epoch: Epoch, from: Epoch) {
        if self.commit == CommitState::InWorker(epoch) {
            self.commit = CommitState::Idle;
            self.dirty = true;
            self.commit_from = self.commit_from.max(from);
        }
    }

    /// A commit point is on disk.
    pub fn commit_point_durable(&mut self, epoch: Epoch) {
        if self.commit == CommitState::InRaft(epoch) {
            self.commit = CommitState::Idle;
            self.commit_point = epoch;
            self.pending.push(Effect::CommitPointDurable { epoch });
        }
    }

    /// Opens no more epochs, except for writes that wait already; [`Effect::Drained`] follows when everything is committed.
    pub fn shutdown(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Draining;
        }
    }

    /// What is to be done now.
    pub fn poll(&mut self, now_ms: u64) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.pending);
        if let Some(bound) = self.oracle.bound_to_persist(now_ms)
            && self.phase == Phase::Running
        {
            effects.push(Effect::PersistBound(bound));
        }
        self.observe(&mut effects);
        self.replay_next(&mut effects);
        self.open_next(now_ms, &mut effects);
        self.finish_freezing(&mut effects);
        self.commit_next(now_ms, &mut effects);
        self.finish_draining(&mut effects);
        effects
    }

    /// How long nothing happens by itself, in milliseconds.
    #[must_use]
    pub fn idle_ms(&self, now_ms: u64) -> u64 {
        if self.has_room() && self.work_waits() {
            return 1;
        }
        let until = |at: u64, interval: u64| {
            at.saturating_add(interval)
                .saturating_sub(now_ms)
                .clamp(1, interval)
        };
        // Without room the worker's next answer wakes the loop, not the clock.
        let heartbeat = if self.has_room() {
            until(self.opened_at_ms.unwrap_or(0), HEARTBEAT_MS)
        } else {
            HEARTBEAT_MS
        };
        let commit = if self.commit_is_wanted() {
            until(self.committed_at_ms, self.commit_interval_ms)
        } else {
            HEARTBEAT_MS
        };
        heartbeat.min(commit)
    }

    /// Whether there is something to commit and nothing in the way of it but time.
    fn commit_is_wanted(&self) -> bool {
        self.dirty
            && self.held.is_empty()
            && self
                .behind
                .values()
                .all(|before| self.observable <= *before)
            && self.observable >= self.commit_from
            && self.commit == CommitState::Idle
            && self.observable > self.commit_point
    }

    fn observe(&mut self, effects: &mut Vec<Effect>) {
        let mut newest = None;
        let (mut writes, mut visible) = (Vec::new(), Vec::new());
        while self
            .open
            .front()
            .is_some_and(|open| open.complete && open.durable && !open.failing)
            && let Some(open) = self.open.pop_front()
        {
            newest = Some(open.epoch);
            writes.extend(open.writes);
            visible.extend(open.visible);
        }
        if let Some(epoch) = newest {
            self.observable = epoch;
            effects.push(Effect::Observable {
                epoch,
                writes,
                visible,
            });
        }
    }

    fn in_worker(&self) -> usize {
        self.open.iter().filter(|open| !open.complete).count()
    }

    fn has_room(&self) -> bool {
        self.in_worker() < EPOCHS_IN_WORKER_MAX && self.open.len() < EPOCHS_UNOBSERVABLE_MAX
    }

    fn replay_next(&mut self, effects: &mut Vec<Effect>) {
        while self.has_room()
            && let Some((epoch, bindings)) = self.replay.pop_front()
        {
            self.open.push_back(OpenEpoch {
                epoch,
                writes: Vec::new(),
                visible: bindings
                    .iter()
                    .flat_map(|binding| binding.snapshots.clone())
                    .collect(),
                moves_sources: !bindings.is_empty(),
                complete: false,
                durable: true,
                failing: false,
            });
            effects.push(Effect::Run(RunEpoch {
                epoch,
                bindings,
                writes: Vec::new(),
                replay: true,
            }));
        }
    }

    fn work_waits(&self) -> bool {
        !self.writes.is_empty()
            || (self.frozen.is_empty()
                && self.sources.iter().any(|(id, source)| {
                    !self.behind.contains_key(id) && source.next_binding().is_some()
                }))
    }

    fn open_next(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let due = match self.opened_at_ms {
            None => true,
            // The clock stands still or went back: at most one epoch per reading of it.
            Some(at) if at == now_ms => return,
            Some(at) => now_ms < at || now_ms - at >= HEARTBEAT_MS,
        };
        let wanted = match self.phase {
            Phase::Running => due || self.work_waits(),
            Phase::Draining => !self.writes.is_empty(),
            Phase::Drained => false,
        };
        if !wanted || !self.replay.is_empty() || !self.has_room() {
            return;
        }
        let Some(epoch) = self.oracle.issue(now_ms) else {
            return;
        };
        self.opened_at_ms = Some(now_ms);
        let (writes, requests) = self.take_writes();
        let bindings = if self.frozen.is_empty() && self.phase == Phase::Running {
            self.take_bindings()
        } else {
            Vec::new()
        };
        self.dirty |= !bindings.is_empty() || !writes.is_empty();
        self.open.push_back(OpenEpoch {
            epoch,
            writes,
            visible: bindings
                .iter()
                .flat_map(|binding| binding.snapshots.clone())
                .collect(),
            moves_sources: !bindings.is_empty(),
            complete: false,
            durable: bindings.is_empty(),
            failing: false,
        });
        effects.push(Effect::Run(RunEpoch {
            epoch,
            bindings: bindings.clone(),
            writes: requests,
            replay: false,
        }));
        if !bindings.is_empty() {
            effects.push(Effect::Bind { epoch, bindings });
        }
    }

    fn take_bindings(&mut self) -> Vec<SourceBinding> {
        let mut bindings = Vec::new();
        for (id, source) in &mut self.sources {
            if self.behind.contains_key(id) {
                continue;
            }
            if let Some((position, snapshots)) = source.next_binding() {
                source.snapshots.retain(|(_, at)| !position.covers(at));
                source.bound = Some(position.clone());
                bindings.push(SourceBinding {
                    source: *id,
                    position,
                    snapshots,
                });
            }
        }
        bindings
    }

    fn finish_freezing(&mut self, effects: &mut Vec<Effect>) {
        // Also one that is complete: until its bindings are durable, what was read at it may never have been.
        let moving = self.open.iter().any(|open| open.moves_sources);
        if !moving && self.replay.is_empty() {
            effects.extend(self.freezing.drain(..).map(Effect::Frozen));
        }
    }

    fn commit_next(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if let Some((epoch, versions)) = self.committed.take() {
            self.commit = CommitState::InRaft(epoch);
            effects.push(Effect::PersistCommitPoint { epoch, versions });
        }
        let due = now_ms < self.committed_at_ms
            || now_ms - self.committed_at_ms >= self.commit_interval_ms
            || (self.phase == Phase::Draining && self.open.is_empty() && self.writes.is_empty());
        if due && self.commit_is_wanted() {
            self.commit = CommitState::InWorker(self.observable);
            self.committed_at_ms = now_ms;
            // What is open already is not in this commit.
            self.dirty = !self.open.is_empty();
            effects.push(Effect::Commit {
                epoch: self.observable,
            });
        }
    }

    fn finish_draining(&mut self, effects: &mut Vec<Effect>) {
        // What waits for an upstream, or for a disk, is bound, and run again after the start.
        let late = !self.held.is_empty() || !self.behind.is_empty();
        let clean = !self.dirty || self.observable <= self.commit_point || late;
        if self.phase == Phase::Draining
            && self.open.is_empty()
            && self.writes.is_empty()
            && self.replay.is_empty()
            && self.commit == CommitState::Idle
            && clean
        {
            self.phase = Phase::Drained;
            effects.push(Effect::Drained);
        }
    }
}

impl SourceState {
    /// All positions of a source are of one kind, so that any two of them have a bound.
    fn check_kind(&self, id: ObjectId, told: &SourcePosition) -> Result<(), ForeignPosition> {
        let snapshot = self.snapshots.first().map(|(_, at)| at);
        let known = self.bound.as_ref().or(self.progress.as_ref()).or(snapshot);
        match known {
            Some(known) if !known.same_kind(told) => Err(ForeignPosition {
                id,
                known: known.clone(),
                told: told.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// How far the source can go, and which snapshots become visible there; `None` if there is nothing new.
    ///
    /// A snapshot needs a position that covers its own. A source that was never bound has nothing below its first snapshot, so it goes there at once; a running
    /// one must have buffered what its other tables have up to there.
    fn next_binding(&self) -> Option<(SourcePosition, Vec<ObjectId>)> {
        let mut position = join(self.progress.as_ref(), self.bound.as_ref());
        if self.bound.is_none() {
            for (_, at) in &self.snapshots {
                position = join(position.as_ref(), Some(at));
            }
        }
        let position = position?;
        let ready: Vec<ObjectId> = self
            .snapshots
            .iter()
            .filter(|(_, at)| position.covers(at))
            .flat_map(|(tables, _)| tables.iter().copied())
            .collect();
        let stands = self.bound.as_ref();
        (!ready.is_empty() || stands.is_none_or(|bound| !bound.covers(&position)))
            .then_some((position, ready))
    }
}

/// The least position that covers what there is of two, which are of one kind.
fn join(left: Option<&SourcePosition>, right: Option<&SourcePosition>) -> Option<SourcePosition> {
    match (left, right) {
        (Some(left), Some(right)) => left.join(right),
        (left, right) => left.or(right).cloned(),
    }
}

#[cfg(test)]
mod tests;
