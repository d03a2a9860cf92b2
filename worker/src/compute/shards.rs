//! Shard threads: each runs the jobs on its [`Shard`] that it is sent, in order.
//!
//! Owns the threads and the exchange between shards within a tick. Must not know commands or storage.
//! Called by the compute; others may read a shard between two jobs ([`Shards`]).
//!
//! Invariants. Only a shard's own thread changes it, unless it is idle for good. Every shard sees the same sequence of structural changes and ticks. A tick ends on all shards before the
//! next one begins on any.

use std::ops::{Deref, DerefMut};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use flowstone_dataflow::{
    CollectionInput, ExchangeMessage, ExprCompiler, POINT_ROWS_MAX, QueryEvaluator, Shard,
    ShardConfig, TickOutput,
};
use flowstone_types::{Epoch, ObjectId};
use tokio::sync::oneshot;

use crate::Error;

type Job = Box<dyn FnOnce(&mut Shard) + Send>;

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
    jobs: Vec<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    shards: Shards,
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
        let (mut jobs, mut threads) = (Vec::with_capacity(count), Vec::with_capacity(count));
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
                    while let Ok(job) = receiver.recv() {
                        // Only a panic in this very loop poisons the lock, and ends the loop.
                        let Ok(mut shard) = shard.write() else {
                            return;
                        };
                        job(&mut shard);
                    }
                })
                .map_err(|source| Error::Io {
                    what: "cannot start a shard thread".to_owned(),
                    source,
                })?;
            jobs.push(sender);
            threads.push(thread);
        }
        Ok(Self {
            jobs,
            threads,
            shards,
        })
    }

    /// The shards, to be read between jobs.
    #[must_use]
    pub(crate) fn shards(&self) -> Shards {
        self.shards.clone()
    }

    /// Number of shards.
    #[must_use]
    pub(crate) const fn count(&self) -> usize {
        self.jobs.len()
    }

    /// Runs `job` on every shard and returns the answers in shard order.
    ///
    /// # Errors
    /// [`Error::ShardGone`] if a thread has ended.
    pub(crate) async fn on_each<T: Send + 'static>(
        &self,
        job: impl Fn(usize, &mut Shard) -> T + Send + Sync + 'static,
    ) -> Result<Vec<T>, Error> {
        self.ask_each(job)?.await
    }

    /// Sends `job` to every shard now; the future has the answers in shard order.
    ///
    /// # Errors
    /// [`Error::ShardGone`] if a thread has ended.
    pub(crate) fn ask_each<T: Send + 'static>(
        &self,
        job: impl Fn(usize, &mut Shard) -> T + Send + Sync + 'static,
    ) -> Result<impl Future<Output = Result<Vec<T>, Error>> + Send + 'static, Error> {
        let job = Arc::new(job);
        let mut answers = Vec::with_capacity(self.jobs.len());
        for (index, sender) in self.jobs.iter().enumerate() {
            let job = Arc::clone(&job);
            answers.push(submit(sender, move |shard| job(index, shard))?);
        }
        Ok(collect(answers))
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
        if let [only] = self.jobs.as_slice() {
            let inputs = inputs.into_iter().next().unwrap_or_default();
            let answer = submit(only, move |shard| {
                begin(shard, inputs)?;
                run_to_end(shard)
            })?;
            return Ok(vec![answer.await.map_err(|_| Error::ShardGone)??]);
        }
        let mut answers = Vec::with_capacity(self.jobs.len());
        for (sender, inputs) in itertools::zip_eq(&self.jobs, inputs) {
            let begin = begin.clone();
            answers.push(submit(sender, move |shard| {
                begin(shard, inputs)?;
                run_stage(shard)
            })?);
        }
        loop {
            let mut mail: Vec<Vec<ExchangeMessage>> =
                (0..self.count()).map(|_| Vec::new()).collect();
            let mut more = false;
            for answer in collect(answers).await? {
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
            answers = Vec::with_capacity(self.jobs.len());
            for (sender, messages) in itertools::zip_eq(&self.jobs, mail) {
                answers.push(submit(sender, move |shard| {
                    for message in messages {
                        shard.deliver(message);
                    }
                    run_stage(shard)
                })?);
            }
        }
        self.on_each(|_, shard| shard.end_tick())
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

fn run_stage(shard: &mut Shard) -> StageResult {
    let mut messages = Vec::new();
    shard.run_stage(&mut |to, message| messages.push((to, message)))?;
    Ok((messages, shard.pending()))
}

fn run_to_end(shard: &mut Shard) -> Result<TickOutput, flowstone_dataflow::Error> {
    loop {
        let (messages, pending) = run_stage(shard)?;
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
    job: impl FnOnce(&mut Shard) -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, Error> {
    let (answer, receiver) = oneshot::channel();
    let job: Job = Box::new(move |shard| {
        // The engine may have given up on the answer (shutdown); the job was done all the same.
        drop(answer.send(job(shard)));
    });
    sender.send(job).map_err(|_| Error::ShardGone)?;
    Ok(receiver)
}

async fn collect<T>(answers: Vec<oneshot::Receiver<T>>) -> Result<Vec<T>, Error> {
    let mut values = Vec::with_capacity(answers.len());
    for answer in answers {
        values.push(answer.await.map_err(|_| Error::ShardGone)?);
    }
    Ok(values)
}
