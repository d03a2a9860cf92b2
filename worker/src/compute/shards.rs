//! Shard threads: each runs the jobs on its [`Shard`] that it is sent, in order.
//!
//! Owns the threads and the exchange between shards within a tick. Must not know commands or storage.
//! Called by the compute; others may read a shard between two jobs ([`Shards`]).
//!
//! Invariants. Only a shard's own thread changes it, unless it is idle for good. Every shard sees the same sequence of structural changes and ticks. A tick ends on all shards before the
//! next one begins on any. Jobs are done in order, but that those which only read a shard are done between two steps of a tick as well: they do not wait for its end,
//! nor, unless they are many, for more than one step. They read epochs that ended, which a tick that runs does not change. However much is read, it comes to its end.
//! A shard that broke within a tick is half changed: nobody reads it any more, and who asks it hears that it is gone.

use std::ops::{Deref, DerefMut};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use flowstone_dataflow::{
    CollectionInput, ExchangeMessage, ExprCompiler, POINT_ROWS_MAX, QueryEvaluator, Shard,
    ShardConfig, TickOutput,
};
use flowstone_types::{Epoch, ObjectId};
use tokio::sync::oneshot;

use crate::Error;

/// What changes a shard. A tick has the reads that wait served between its steps.
type Change = Box<dyn FnOnce(&mut Shard, &mut Queue) + Send>;

/// What a shard thread is to do.
enum Job {
    Change(Change),
    Read(Box<dyn FnOnce(&Shard) + Send>),
}

/// The jobs of a shard thread.
struct Queue {
    jobs: Receiver<Job>,
    /// One that was found behind reads while a tick ran.
    next: Option<Job>,
    /// The shard is half changed.
    is_broken: bool,
}

impl Queue {
    /// Waits for the next job; `None` if there are no more.
    fn take(&mut self) -> Option<Job> {
        self.next.take().or_else(|| self.jobs.recv().ok())
    }

    /// Notes what a part of a tick came to: an error that is not one dataflow's leaves the shard half changed.
    fn note<T>(
        &mut self,
        outcome: Result<T, flowstone_dataflow::Error>,
    ) -> Result<T, flowstone_dataflow::Error> {
        self.is_broken |= outcome.is_err();
        outcome
    }

    /// Serves the reads that wait, up to the first job that changes the shard, or as many as may be served between two steps.
    fn serve_reads(&mut self, shard: &Shard) {
        for _ in 0..READS_BETWEEN_STEPS {
            if self.next.is_some() {
                return;
            }
            match self.jobs.try_recv() {
                Ok(Job::Read(read)) => read(shard),
                Ok(change) => self.next = Some(change),
                Err(_) => return,
            }
        }
    }
}

/// Reads that are served between two steps of a tick; others wait for the next step. Without a bound sessions that ask again as soon as they are answered would
/// hold up the tick for ever.
const READS_BETWEEN_STEPS: usize = 256;

/// Jobs waiting for one shard: what is read of a lane waits here while it computes something anew, at most one read per session. A full queue makes who asks wait.
const JOBS_IN_FLIGHT: usize = 4096;

/// Stack of a shard thread in bytes: expressions nest deeply.
const STACK_BYTES: usize = 64 << 20;

/// What shards are made of.
#[derive(Clone, Debug)]
pub(crate) struct ShardMaker {
    pub(crate) compiler: Arc<dyn ExprCompiler>,
    pub(crate) evaluator: Arc<dyn QueryEvaluator>,
    /// See [`ShardConfig::row_bytes_max`].
    pub(crate) row_bytes_max: usize,
}

impl ShardMaker {
    /// What shard `index` of `count` is made of.
    pub(crate) fn config(&self, index: usize, count: usize) -> ShardConfig {
        ShardConfig {
            index,
            count,
            compiler: Arc::clone(&self.compiler),
            evaluator: Arc::clone(&self.evaluator),
            point_rows_max: POINT_ROWS_MAX,
            row_bytes_max: self.row_bytes_max,
        }
    }
}

/// Shard threads that run in lock step: those of the base, or of one lane.
#[derive(Debug)]
pub(crate) struct ShardPool {
    jobs: Jobs,
    threads: Vec<JoinHandle<()>>,
    shards: Shards,
}

/// Where shards are asked. The threads end when nobody can ask any more.
#[derive(Clone, Debug)]
pub(crate) struct Jobs(Arc<[SyncSender<Job>]>);

impl Jobs {
    /// Number of shards.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Has `job` read every shard: now or, if a tick runs, after the step that runs.
    ///
    /// # Errors
    /// [`Error::ShardGone`] if a thread has ended.
    pub(crate) fn read_each<T: Send + 'static>(
        &self,
        job: impl Fn(usize, &Shard) -> T + Send + Sync + 'static,
    ) -> Result<Answers<T>, Error> {
        let job = Arc::new(job);
        let mut answers = Vec::with_capacity(self.count());
        for (index, sender) in self.0.iter().enumerate() {
            let job = Arc::clone(&job);
            let (answer, receiver) = oneshot::channel();
            let read = Job::Read(Box::new(move |shard: &Shard| {
                // Nobody may want it any more.
                drop(answer.send(job(index, shard)));
            }));
            sender.send(read).map_err(|_| Error::ShardGone)?;
            answers.push(receiver);
        }
        Ok(Answers(answers))
    }
}

/// What shards will answer.
#[derive(Debug)]
pub(crate) struct Answers<T>(Vec<oneshot::Receiver<T>>);

impl<T> Answers<T> {
    /// Waits for the answers, in shard order.
    ///
    /// # Errors
    /// [`Error::ShardGone`] if a thread has ended.
    pub(crate) async fn all(self) -> Result<Vec<T>, Error> {
        let mut values = Vec::with_capacity(self.0.len());
        for answer in self.0 {
            values.push(answer.await.map_err(|_| Error::ShardGone)?);
        }
        Ok(values)
    }
}

/// The shards, for those who read one between two of its jobs; they do not keep each other out. A shard whose job panicked stays locked for ever.
#[derive(Clone, Debug)]
pub(crate) struct Shards(Arc<[RwLock<Shard>]>);

impl Shards {
    /// Number of shards.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The shard, to be changed by another thread than its own: once that has nothing to do. `None` if a job of it has panicked.
    #[must_use]
    pub(crate) fn write(&self, number: usize) -> Option<impl DerefMut<Target = Shard>> {
        self.0.get(number)?.write().ok()
    }

    /// The shard, unless a job runs on it or is about to.
    #[must_use]
    pub(crate) fn try_read(&self, number: usize) -> Option<impl Deref<Target = Shard>> {
        self.0.get(number)?.try_read().ok()
    }
}

/// The inputs of one tick, one list per shard.
pub(crate) type PartitionedInputs = Vec<Vec<(ObjectId, CollectionInput)>>;

impl ShardPool {
    /// Starts `count` threads called `name` and a number.
    ///
    /// # Errors
    /// [`Error::Io`] if a thread cannot be started.
    pub(crate) fn start(name: &str, count: usize, maker: &ShardMaker) -> Result<Self, Error> {
        let shards = (0..count).map(|index| Shard::new(maker.config(index, count)));
        Self::of(name, shards.collect())
    }

    /// Starts a thread for each of some shards.
    ///
    /// # Errors
    /// As [`ShardPool::start`].
    pub(crate) fn of(name: &str, shards: Vec<Shard>) -> Result<Self, Error> {
        let count = shards.len();
        let (mut senders, mut threads) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let shards = Shards(shards.into_iter().map(RwLock::new).collect());
        for index in 0..count {
            let shards = shards.clone();
            let (sender, receiver) = sync_channel::<Job>(JOBS_IN_FLIGHT);
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    let Some(shard) = shards.0.get(index) else {
                        return;
                    };
                    let (jobs, next, is_broken) = (receiver, None, false);
                    let mut queue = Queue {
                        jobs,
                        next,
                        is_broken,
                    };
                    while let Some(job) = queue.take() {
                        // Only a panic in this very loop poisons the lock, and ends the loop.
                        let Ok(mut shard) = shard.write() else {
                            return;
                        };
                        match job {
                            Job::Change(change) => change(&mut shard, &mut queue),
                            Job::Read(read) => read(&shard),
                        }
                        if queue.is_broken {
                            // Until everybody has gone, and the lock is kept.
                            while queue.take().is_some() {}
                        }
                    }
                })
                .map_err(|source| Error::Io {
                    what: "cannot start a shard thread".to_owned(),
                    source,
                })?;
            senders.push(sender);
            threads.push(thread);
        }
        Ok(Self {
            jobs: Jobs(senders.into()),
            threads,
            shards,
        })
    }

    /// The shards, to be read between jobs.
    #[must_use]
    pub(crate) fn shards(&self) -> Shards {
        self.shards.clone()
    }

    /// Where they are asked.
    #[must_use]
    pub(crate) fn jobs(&self) -> Jobs {
        self.jobs.clone()
    }

    /// Number of shards.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.jobs.count()
    }

    /// Runs `job` on every shard and returns the answers in shard order.
    ///
    /// # Errors
    /// [`Error::ShardGone`] if a thread has ended.
    pub(crate) async fn on_each<T: Send + 'static>(
        &self,
        job: impl Fn(usize, &mut Shard) -> T + Send + Sync + 'static,
    ) -> Result<Vec<T>, Error> {
        self.ask_each(job)?.all().await
    }

    /// Sends `job` to every shard now.
    ///
    /// # Errors
    /// [`Error::ShardGone`] if a thread has ended.
    pub(crate) fn ask_each<T: Send + 'static>(
        &self,
        job: impl Fn(usize, &mut Shard) -> T + Send + Sync + 'static,
    ) -> Result<Answers<T>, Error> {
        let job = Arc::new(job);
        let mut answers = Vec::with_capacity(self.count());
        for (index, sender) in self.jobs.0.iter().enumerate() {
            let job = Arc::clone(&job);
            answers.push(submit(sender, move |shard, _| job(index, shard))?);
        }
        Ok(Answers(answers))
    }

    /// Runs one tick over `inputs` on all shards, exchanges included.
    ///
    /// # Errors
    /// [`Error::Dataflow`] if an invariant is broken.
    pub(crate) async fn tick(
        &self,
        epoch: Epoch,
        inputs: PartitionedInputs,
    ) -> Result<Vec<TickOutput>, Error> {
        self.run(inputs, move |shard, inputs| shard.begin_tick(epoch, inputs))
            .await
    }

    /// Hydrates dataflows that were just created, from their inputs as of `epoch`.
    ///
    /// # Errors
    /// [`Error::Dataflow`] if an invariant is broken.
    pub(crate) async fn hydrate(
        &self,
        ids: Vec<ObjectId>,
        epoch: Epoch,
    ) -> Result<Vec<TickOutput>, Error> {
        let ids = Arc::new(ids);
        self.run(vec![Vec::new(); self.count()], move |shard, _| {
            shard.begin_hydration(&ids, epoch)
        })
        .await
    }

    async fn run<B>(&self, inputs: PartitionedInputs, begin: B) -> Result<Vec<TickOutput>, Error>
    where
        B: Fn(
                &mut Shard,
                Vec<(ObjectId, CollectionInput)>,
            ) -> Result<(), flowstone_dataflow::Error>
            + Send
            + Sync
            + Clone
            + 'static,
    {
        if let [only] = &*self.jobs.0 {
            let inputs = inputs.into_iter().next().unwrap_or_default();
            let answer = submit(only, move |shard, queue| {
                let output = begin(shard, inputs).and_then(|()| run_to_end(shard, queue));
                queue.note(output)
            })?;
            return Ok(vec![answer.await.map_err(|_| Error::ShardGone)??]);
        }
        let mut answers = Vec::with_capacity(self.count());
        for (sender, inputs) in itertools::zip_eq(self.jobs.0.iter(), inputs) {
            let begin = begin.clone();
            answers.push(submit(sender, move |shard, queue| {
                let stage = begin(shard, inputs).and_then(|()| run_stage(shard, queue));
                queue.note(stage)
            })?);
        }
        loop {
            let mut mail: Vec<Vec<ExchangeMessage>> =
                (0..self.count()).map(|_| Vec::new()).collect();
            let mut more = false;
            for answer in Answers(answers).all().await? {
                let (messages, pending) = answer?;
                more |= pending || !messages.is_empty();
                for (shard, message) in messages {
                    mail.get_mut(shard)
                        .ok_or_else(|| Error::Protocol(format!("exchange to shard {shard}")))?
                        .push(message);
                }
            }
            if !more {
                break;
            }
            answers = Vec::with_capacity(self.count());
            for (sender, messages) in itertools::zip_eq(self.jobs.0.iter(), mail) {
                answers.push(submit(sender, move |shard, queue| {
                    for message in messages {
                        shard.deliver(message);
                    }
                    let stage = run_stage(shard, queue);
                    queue.note(stage)
                })?);
            }
        }
        let mut answers = Vec::with_capacity(self.count());
        for sender in &*self.jobs.0 {
            answers.push(submit(sender, |shard, queue| queue.note(shard.end_tick()))?);
        }
        Answers(answers)
            .all()
            .await?
            .into_iter()
            .map(|output| output.map_err(Error::from))
            .collect()
    }

    /// Ends the threads and waits for them.
    pub(crate) fn stop(self) {
        drop(self.jobs);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a shard thread panicked");
            }
        }
    }
}

type StageResult = Result<(Vec<(usize, ExchangeMessage)>, bool), flowstone_dataflow::Error>;

fn run_stage(shard: &mut Shard, queue: &mut Queue) -> StageResult {
    let mut messages = Vec::new();
    shard.run_stage_with(
        &mut |to, message| messages.push((to, message)),
        &mut |shard: &Shard| queue.serve_reads(shard),
    )?;
    Ok((messages, shard.pending()))
}

fn run_to_end(
    shard: &mut Shard,
    queue: &mut Queue,
) -> Result<TickOutput, flowstone_dataflow::Error> {
    loop {
        let (messages, pending) = run_stage(shard, queue)?;
        if messages.is_empty() && !pending {
            return shard.end_tick();
        }
        for (_, message) in messages {
            shard.deliver(message);
        }
    }
}

fn submit<T: Send + 'static>(
    sender: &SyncSender<Job>,
    job: impl FnOnce(&mut Shard, &mut Queue) -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, Error> {
    let (answer, receiver) = oneshot::channel();
    let job = Job::Change(Box::new(move |shard: &mut Shard, queue: &mut Queue| {
        // The engine may have given up on the answer (shutdown); the job was done all the same.
        drop(answer.send(job(shard, queue)));
    }));
    sender.send(job).map_err(|_| Error::ShardGone)?;
    Ok(receiver)
}

#[cfg(test)]
mod tests;
