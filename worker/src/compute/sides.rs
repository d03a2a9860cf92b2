//! Side lanes: a dataflow of the base has its first tick beside the base, whose epochs go on meanwhile.
//!
//! Owns which dataflows are away, what they have yet to catch up with, and their threads. Must not know what becomes of their output. Called by the compute,
//! which gives it what every tick of the base has put out, and joins a dataflow when it has run all of them.
//!
//! Invariants. A fork runs the ticks of the base, each of them and in order, and catches up with it however fast it is ([`pace`]). What it puts out is handed over
//! when it is joined: until then nobody sees any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowstone_dataflow::{CollectionInput, Shard, TickOutput};
use flowstone_proto::message::RequestId;
use flowstone_types::{Epoch, EvalError, EvalErrorKind, ObjectId};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::pace::{Amount, NEAR, Pace};
use super::failures::failures_of;
use super::lanes::Place;
use super::shards::{PartitionedInputs, ShardPool, Shards};
use super::{Compute, EpochOutput, MAINTENANCE_FUEL};
use crate::Error;
use crate::size::bytes_of;

mod pace;

/// Dataflows with fewer rows to read are hydrated at once: it takes about a millisecond.
const ROWS_AT_ONCE: u64 = 8192;

/// Dataflows that are hydrated at the same time; others wait, so that one after the other comes to its end.
const HYDRATING_MAX: usize = 2;

/// A fork says how far it is when little is left, and after so much.
const SAID_EVERY: Amount = Amount {
    ticks: 4,
    bytes: 1 << 20,
};

/// What a fork has come to.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) shards: Shards,
    /// The epoch at which it was hydrated.
    pub(super) epoch: Epoch,
    /// What it put out then.
    pub(super) first: Vec<TickOutput>,
    /// What it put out in the ticks since then, in order.
    pub(super) later: Vec<TickOutput>,
}

#[derive(Debug)]
enum Work {
    /// With its bytes.
    Tick(Epoch, PartitionedInputs, u64),
    Finish(oneshot::Sender<Finished>),
}

/// What a fork says of itself.
#[derive(Debug)]
pub(crate) struct SideEvent {
    pub(super) id: ObjectId,
    pub(super) said: SideSaid,
}

#[derive(Debug)]
pub(super) enum SideSaid {
    /// It is hydrated, and has run so much since.
    Ran(Amount),
    Failed(EvalError),
}

#[derive(Debug)]
struct Side {
    work: mpsc::UnboundedSender<Work>,
    imports: BTreeSet<ObjectId>,
    pace: Pace,
    /// Ends the hydration of one that nobody wants any more.
    _cancel: DropGuard,
}

/// All dataflows that are away.
#[derive(Debug)]
pub(super) struct Sides {
    events: mpsc::UnboundedSender<SideEvent>,
    said: mpsc::UnboundedReceiver<SideEvent>,
    sides: BTreeMap<ObjectId, Side>,
    hydrating: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Changes that may wait for a fork.
    backlog_bytes_max: u64,
}

impl Sides {
    pub(super) fn new(backlog_bytes_max: usize) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "who says something waits for an answer, or has a bounded backlog"
        )]
        let (events, said) = mpsc::unbounded_channel();
        Self {
            events,
            said,
            sides: BTreeMap::new(),
            hydrating: Arc::new(Semaphore::new(HYDRATING_MAX)),
            tasks: TaskTracker::new(),
            backlog_bytes_max: u64::try_from(backlog_bytes_max).unwrap_or(u64::MAX),
        }
    }

    /// What a fork says next. Can be given up.
    pub(super) async fn hear(&mut self) -> SideEvent {
        match self.said.recv().await {
            Some(event) => event,
            // There is a sender in here.
            None => std::future::pending().await,
        }
    }

    /// Ends all forks and waits for their tasks.
    pub(super) async fn stop(mut self) {
        self.sides.clear();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(super) fn contains(&self, id: ObjectId) -> bool {
        self.sides.contains_key(&id)
    }

    /// Hydrates a dataflow on threads of its own, as of the last epoch that was run.
    pub(super) fn start(
        &mut self,
        id: ObjectId,
        shards: Vec<Shard>,
        imports: Vec<ObjectId>,
        epoch: Epoch,
    ) {
        let cancel = CancellationToken::new();
        #[expect(
            clippy::disallowed_methods,
            reason = "what waits is bounded in bytes: an epoch is not complete before the fork has done some of it"
        )]
        let (work, queue) = mpsc::unbounded_channel();
        let side = Side {
            work,
            imports: imports.into_iter().collect(),
            pace: Pace::default(),
            _cancel: cancel.clone().drop_guard(),
        };
        self.sides.insert(id, side);
        let task = Task {
            id,
            epoch,
            cancel,
            events: self.events.clone(),
        };
        self.tasks
            .spawn(task.run(shards, queue, Arc::clone(&self.hydrating)));
    }

    /// Forgets a fork.
    pub(super) fn remove(&mut self, id: ObjectId) {
        self.sides.remove(&id);
    }

    /// What a tick of the base has put out, shard by shard.
    pub(super) fn take_in(&mut self, outputs: &[TickOutput]) {
        for side in self.sides.values_mut() {
            let Some(epoch) = outputs.first().map(|output| output.epoch) else {
                continue;
            };
            let inputs = outputs.iter().map(|output| {
                let read = output.outputs.iter();
                let read = read.filter(|changed| side.imports.contains(&changed.id));
                read.flat_map(|changed| {
                    let deltas = CollectionInput::Deltas(changed.deltas.clone());
                    let errors = CollectionInput::Errors(changed.errors.clone());
                    [(changed.id, deltas), (changed.id, errors)]
                })
                .collect()
            });
            let inputs: PartitionedInputs = inputs.collect();
            let bytes = bytes_of_all(&inputs);
            side.pace.sent(bytes);
            // One that has failed has said so.
            drop(side.work.send(Work::Tick(epoch, inputs, bytes)));
        }
    }

    /// Whether so much waits for a fork that nothing should be added before it has done some of it.
    pub(super) fn is_behind(&self) -> bool {
        self.sides.values().any(|Side { pace, .. }| {
            pace.ahead().bytes > self.backlog_bytes_max || pace.is_too_far()
        })
    }

    /// Notes how far a fork is. Returns whether the base can wait for it.
    pub(super) fn ran(&mut self, id: ObjectId, ran: Amount) -> bool {
        self.sides.get_mut(&id).is_some_and(|side| {
            side.pace.ran(ran);
            side.pace.is_near()
        })
    }

    /// The dataflows that have nearly run all ticks.
    pub(super) fn about_to_join(&self) -> Vec<ObjectId> {
        let near = self.sides.iter().filter(|(_, side)| side.pace.is_near());
        near.map(|(id, _)| *id).collect()
    }

    /// Waits until a fork has run all ticks there were. `None` if it has failed.
    pub(super) async fn finish(&mut self, id: ObjectId) -> Option<Finished> {
        let side = self.sides.get(&id)?;
        let (sender, finished) = oneshot::channel();
        side.work.send(Work::Finish(sender)).ok()?;
        let finished = finished.await.ok()?;
        self.sides.remove(&id);
        Some(finished)
    }
}

impl Compute {
    /// Takes in what a dataflow of the base put out when it was hydrated: it can be read from now on.
    pub(super) async fn take_back(
        &mut self,
        id: ObjectId,
        epoch: Epoch,
        outputs: Vec<TickOutput>,
        output: &mut EpochOutput,
    ) -> Result<(), Error> {
        self.compare_with_stored(id, &outputs);
        self.absorb(Place::Base, outputs, None, output).await?;
        self.readable_from(id, epoch).await;
        Ok(())
    }

    /// Says so if a view that was stored before is not what it is computed to be of what was stored with it. Made at a later epoch it differs by what has changed.
    pub(super) fn compare_with_stored(&self, id: ObjectId, outputs: &[TickOutput]) {
        let collection = self.collections.get(&id);
        let was_stored = collection.is_some_and(|collection| collection.delta_version.is_some());
        let differs =
            |output: &TickOutput| output.epoch == self.begun && !output.outputs.is_empty();
        if was_stored && outputs.iter().any(differs) {
            tracing::warn!(%id, "a view computes other rows than it did before the restart; the stored ones are brought up to date");
        }
    }

    /// Whether something among `ids` is being made.
    pub(super) fn are_coming(&self, ids: &[ObjectId]) -> bool {
        let readable = self.readable.read();
        ids.iter().any(|id| readable.coming.contains(id))
    }

    /// Whether collections of the base together have so many rows that what reads all of them holds others up.
    pub(super) async fn are_large(&self, ids: &[ObjectId]) -> Result<bool, Error> {
        let ids = ids.to_vec();
        let rows = self
            .shards
            .on_each(move |_, shard| ids.iter().map(|id| shard.rows(*id)).sum::<u64>())
            .await?;
        Ok(rows.into_iter().sum::<u64>() > ROWS_AT_ONCE)
    }

    /// Has a dataflow of the base that was just made hydrated beside it.
    pub(super) async fn fork(&mut self, id: ObjectId) -> Result<(), Error> {
        let forked = self
            .shards
            .on_each(move |_, shard| (shard.imports_of(id), shard.fork(id)))
            .await?;
        let (mut shards, mut imports) = (Vec::with_capacity(forked.len()), Vec::new());
        for (read, shard) in forked {
            imports = read;
            shards.push(shard?);
        }
        self.sides.start(id, shards, imports, self.last_run);
        self.building = true;
        Ok(())
    }

    /// Takes in what a fork says of itself.
    pub(super) async fn side_said(&mut self, event: SideEvent) -> Result<EpochOutput, Error> {
        let SideEvent { id, said } = event;
        match said {
            SideSaid::Ran(ran) => {
                if self.sides.ran(id, ran) {
                    return self.join().await;
                }
            }
            SideSaid::Failed(error) if self.sides.contains(id) => self.fail(id, error).await?,
            SideSaid::Failed(_) => {}
        }
        Ok(EpochOutput::default())
    }

    /// Puts back what has caught up with the base, and makes what waited for it.
    pub(super) async fn join(&mut self) -> Result<EpochOutput, Error> {
        let mut output = EpochOutput::default();
        for id in self.sides.about_to_join() {
            let built = self
                .shards
                .on_each(move |_, shard| shard.is_built(id))
                .await?;
            if !built.into_iter().all(|built| built) {
                self.building = true;
                continue;
            }
            let Some(finished) = self.sides.finish(id).await else {
                // It says why.
                continue;
            };
            let (forked, epoch) = (finished.shards.clone(), finished.epoch);
            let joined = self
                .shards
                .on_each(move |index, shard| match forked.write(index) {
                    Some(mut forked) => shard.join(id, &mut forked).map_err(Error::from),
                    None => Err(Error::ShardGone),
                })
                .await?;
            // What is left of it takes time to drop.
            let left = finished.shards;
            self.tasks.spawn_blocking(move || drop(left));
            if let Some(error) = joined.into_iter().find_map(Result::err) {
                let error = EvalError::new(EvalErrorKind::Internal, error.to_string());
                self.fail(id, error).await?;
                continue;
            }
            let mut first = finished.first;
            if let ObjectId::Transient(request) = id
                && let Some(starting) = self.starting.remove(&RequestId(request))
            {
                if !starting.snapshot {
                    first.iter_mut().for_each(|output| output.outputs.clear());
                }
                self.subscriptions
                    .insert(RequestId(request), starting.start(epoch));
            }
            self.take_back(id, epoch, first, &mut output).await?;
            self.absorb(Place::Base, finished.later, None, &mut output)
                .await?;
        }
        for description in std::mem::take(&mut self.waiting_dataflows) {
            output.append(self.create_dataflow_in_base(description).await?);
        }
        self.go_on().await?;
        self.show().await?;
        self.start_what_waited().await?;
        Ok(output)
    }

    /// Whether there is something to build in the base for which nobody waits but what is made.
    pub(crate) const fn is_building(&self) -> bool {
        self.building
    }

    /// Builds for about a millisecond.
    pub(crate) async fn build(&mut self) -> Result<EpochOutput, Error> {
        let more = self
            .shards
            .on_each(|_, shard| shard.build(MAINTENANCE_FUEL))
            .await?;
        self.building = more.into_iter().any(|more| more);
        if self.building {
            return Ok(EpochOutput::default());
        }
        self.join().await
    }
}

/// A fork from within.
struct Task {
    id: ObjectId,
    epoch: Epoch,
    cancel: CancellationToken,
    events: mpsc::UnboundedSender<SideEvent>,
}

impl Task {
    async fn run(
        self,
        shards: Vec<Shard>,
        mut queue: mpsc::UnboundedReceiver<Work>,
        hydrating: Arc<Semaphore>,
    ) {
        let turn = tokio::select! {
            turn = hydrating.acquire_owned() => turn,
            () = self.cancel.cancelled() => return,
        };
        let pool = match ShardPool::of("side", shards) {
            Ok(pool) => pool,
            Err(error) => return self.say(SideSaid::Failed(internal(&error))),
        };
        // Its threads end with the stage that they run.
        let hydrated = tokio::select! {
            hydrated = self.hydrate(&pool) => hydrated,
            () = self.cancel.cancelled() => return,
        };
        drop(turn);
        let Some(first) = self.unless_failed(hydrated) else {
            return;
        };
        let mut later = Vec::new();
        let (mut ran, mut unsaid) = (Amount::default(), SAID_EVERY);
        loop {
            let left = u64::try_from(queue.len()).unwrap_or(u64::MAX);
            if left <= NEAR.ticks || !unsaid.is_below(SAID_EVERY) {
                unsaid = Amount::default();
                self.say(SideSaid::Ran(ran));
            }
            match queue.recv().await {
                None => return,
                Some(Work::Tick(epoch, inputs, bytes)) => {
                    let ticked = pool.tick(epoch, inputs).await;
                    let Some(outputs) = self.unless_failed(ticked) else {
                        return;
                    };
                    let tick = Amount { ticks: 1, bytes };
                    (ran, unsaid) = (ran.plus(tick), unsaid.plus(tick));
                    later.extend(outputs);
                }
                Some(Work::Finish(sender)) => {
                    // The compute may have gone.
                    drop(sender.send(Finished {
                        shards: pool.shards(),
                        epoch: self.epoch,
                        first,
                        later,
                    }));
                    return;
                }
            }
        }
    }

    async fn hydrate(&self, pool: &ShardPool) -> Result<Vec<TickOutput>, Error> {
        pool.on_each(|_, shard| while shard.build(usize::MAX) {})
            .await?;
        pool.hydrate(vec![self.id], self.epoch).await
    }

    /// What was put out, unless the dataflow has failed: the compute knows then.
    fn unless_failed(&self, outputs: Result<Vec<TickOutput>, Error>) -> Option<Vec<TickOutput>> {
        let error = match outputs {
            Ok(outputs) => match failures_of(&outputs).into_values().next() {
                None => return Some(outputs),
                Some(error) => error,
            },
            Err(error) => internal(&error),
        };
        self.say(SideSaid::Failed(error));
        None
    }

    fn say(&self, said: SideSaid) {
        // The compute may have gone.
        drop(self.events.send(SideEvent { id: self.id, said }));
    }
}

fn bytes_of_all(inputs: &PartitionedInputs) -> u64 {
    let inputs = inputs.iter().flatten();
    let deltas = inputs.flat_map(|(_, input)| match input {
        CollectionInput::Deltas(deltas) => &deltas[..],
        _ => &[],
    });
    let bytes = deltas.fold(0, |sum: usize, delta| {
        sum.saturating_add(bytes_of(&delta.rows))
    });
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn internal(error: &Error) -> EvalError {
    EvalError::new(EvalErrorKind::Internal, error.to_string())
}
