//! The engine loop: commands in, ticks on the shards, responses out.
//!
//! Owns the order of everything that happens to collections and the state that ties them to storage, sources and clients. Must not know catalog rules.
//! Called by `node` through [`start`].
//!
//! Invariants. One command at a time; a `RunEpoch` is over, local log synced, before the next command is looked at. Slow work that needs no order (queries,
//! Delta commits, upstream questions) runs in tasks of its own, and its end comes back as an event.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flowstone_dataflow::{POINT_ROWS_MAX, ShardConfig};
use flowstone_ingest::{SourceContext, SourceEvent, SourceHandle};
use flowstone_proto::PROTOCOL_VERSION;
use flowstone_proto::local::{ResultStreams, WorkerEnd};
use flowstone_proto::message::{
    CollectionDescription, CollectionStatistics, Command, Failure, LogId, RequestError, RequestId,
    Response, ResultMessage, SourceDescription,
};
use flowstone_storage::{DeltaTables, LogRecord, LogStore};
use flowstone_types::{Clock, Epoch, ObjectId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::commit::CommitBuffer;
use crate::direct::{Readable, WorkerReads};
use crate::error::with_causes;
use crate::query::{Compiler, Evaluator, QueryRunner};
use crate::shards::ShardPool;
use crate::subscription::Subscription;
use crate::write::{StagedWrite, TableInfo};

mod cleanup;
mod epoch;
mod key_changes;
mod objects;
mod read;

use read::Read;

/// Events of sources and tasks waiting for the engine loop. A full channel makes the sender wait: the loop is busy with an epoch.
const EVENTS_IN_FLIGHT: usize = 1024;

/// How often counters are sent and idle arrangements are compacted.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// First and longest pause between tries of a storage operation that the environment refuses (a full disk, for one).
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Settings and components of a worker.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the local log, the Delta tables and the state of sources are kept.
    pub data_dir: PathBuf,
    /// Number of shard threads, at least 1.
    pub shards: usize,
    /// Wall-clock time, for generators.
    pub clock: Arc<dyn Clock>,
    /// The runtime that queries run on.
    pub compute: tokio::runtime::Handle,
    /// What all one-shot queries together may use, in bytes; those that can spill to disk.
    pub query_memory_bytes: usize,
    /// Changes that may wait for all subscribers together, in bytes.
    pub subscriber_memory_bytes: usize,
}

/// What happened outside of the loop.
#[derive(Debug)]
enum Event {
    Source(SourceEvent),
    Staged {
        write: RequestId,
        result: Result<StagedWrite, RequestError>,
    },
    Committed {
        epoch: Epoch,
        result: Result<Vec<(ObjectId, i64)>, flowstone_storage::Error>,
    },
    Maintained,
}

/// A source as the engine knows it.
#[derive(Debug)]
struct Source {
    description: SourceDescription,
    handle: SourceHandle,
    /// The position its progress relation shows.
    progress: Option<u64>,
    /// Bound positions whose epochs are not in a durable commit point.
    bound: VecDeque<(Epoch, u64)>,
    /// Why it can never go on, if a take said so.
    failure: Option<Failure>,
    /// Tables that have yet to say that the source has failed for good.
    failing: Vec<ObjectId>,
}

/// The state of the loop.
#[derive(Debug)]
struct Engine {
    config: Config,
    commands: mpsc::Receiver<Command>,
    /// Commands that were read ahead while an epoch waited for a source.
    read_ahead: VecDeque<Command>,
    responses: mpsc::Sender<Response>,
    results: ResultStreams,
    events: mpsc::Receiver<Event>,
    event_sender: mpsc::Sender<Event>,
    tasks: TaskTracker,
    shards: ShardPool,
    runner: QueryRunner,
    delta: DeltaTables,
    log: Arc<Mutex<LogStore>>,
    /// Records of the local log above the commit point, waiting to be run again.
    logged: BTreeMap<Epoch, LogRecord>,
    collections: BTreeMap<ObjectId, CollectionDescription>,
    sources: BTreeMap<ObjectId, Source>,
    infos: Arc<BTreeMap<ObjectId, TableInfo>>,
    staged: BTreeMap<RequestId, StagedWrite>,
    staging: BTreeMap<RequestId, read::Running>,
    subscriptions: BTreeMap<RequestId, Subscription>,
    waiting_reads: Vec<(Read, mpsc::Sender<ResultMessage>)>,
    running_peeks: BTreeMap<RequestId, read::Running>,
    buffer: CommitBuffer,
    /// Delta tables to delete once neither a commit nor maintenance runs.
    dropped_tables: Vec<ObjectId>,
    /// Ends with the sources that were dropped last.
    stopping: TaskTracker,
    /// Ends the work that would go on for as long as it takes; it is remembered elsewhere.
    cancel: CancellationToken,
    /// Sources and source tables that have failed for good, as far as their collections say so.
    failed: BTreeSet<ObjectId>,
    committing: bool,
    maintaining: bool,
    /// The newest epoch that was run.
    last_run: Epoch,
    /// What can be read, and up to which epoch.
    readable: Arc<RwLock<Readable>>,
    /// Counters as last sent, by collection.
    sent_statistics: BTreeMap<ObjectId, CollectionStatistics>,
}

/// Opens storage, starts the shard threads and runs the engine until `Shutdown` or the transport closes.
///
/// # Errors
/// Storage that cannot be opened (damaged, newer format, no permission), or a broken invariant. The coordinator has been told with `Response::Fatal`.
pub async fn start(config: Config, mut end: WorkerEnd) -> Result<(), Error> {
    match open(&config).await {
        Ok(opened) => opened.engine(config, end).run().await,
        Err(error) => {
            // The coordinator speaks first; one that has gone needs no answer.
            if end.commands.recv().await.is_some() {
                let message = error.to_string();
                drop(end.responses.send(Response::Fatal { message }).await);
            }
            Err(error)
        }
    }
}

/// What has to be there before anything is answered.
struct Opened {
    log: LogStore,
    records: Vec<LogRecord>,
    delta: DeltaTables,
    runner: QueryRunner,
    shards: ShardPool,
}

async fn open(config: &Config) -> Result<Opened, Error> {
    let directory = |what: &str, path: &PathBuf| {
        std::fs::create_dir_all(path).map_err(|source| Error::Io {
            what: format!("cannot create {what} \"{}\"", path.display()),
            source,
        })
    };
    let (log_dir, delta_dir) = (config.data_dir.join("log"), config.data_dir.join("delta"));
    directory("the log directory", &log_dir)?;
    directory("the table directory", &delta_dir)?;
    directory("the source directory", &config.data_dir.join("sources"))?;
    let (log, records) = LogStore::open(&log_dir)?;
    let delta = DeltaTables::open(&delta_dir).await?;
    let runner = QueryRunner::new(
        config.compute.clone(),
        config.query_memory_bytes,
        &config.data_dir.join("spill"),
    )?;
    let count = config.shards.max(1);
    let shards = ShardPool::start(count, |index| ShardConfig {
        point_rows_max: POINT_ROWS_MAX,
        index,
        count,
        compiler: Arc::new(Compiler),
        evaluator: Arc::new(Evaluator(runner.clone())),
    })?;
    Ok(Opened {
        log,
        records,
        delta,
        runner,
        shards,
    })
}

impl Opened {
    fn engine(self, config: Config, end: WorkerEnd) -> Engine {
        let (event_sender, events) = mpsc::channel(EVENTS_IN_FLIGHT);
        let readable = Arc::<RwLock<Readable>>::default();
        end.direct.offer(Arc::new(WorkerReads {
            readable: Arc::clone(&readable),
            shards: self.shards.shards(),
        }));
        Engine {
            config,
            commands: end.commands,
            read_ahead: VecDeque::new(),
            responses: end.responses,
            results: end.results,
            events,
            event_sender,
            tasks: TaskTracker::new(),
            shards: self.shards,
            runner: self.runner,
            delta: self.delta,
            log: Arc::new(Mutex::new(self.log)),
            logged: self
                .records
                .into_iter()
                .map(|record| (record.epoch, record))
                .collect(),
            collections: BTreeMap::new(),
            sources: BTreeMap::new(),
            infos: Arc::default(),
            staged: BTreeMap::new(),
            staging: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            waiting_reads: Vec::new(),
            running_peeks: BTreeMap::new(),
            buffer: CommitBuffer::default(),
            dropped_tables: Vec::new(),
            stopping: no_tasks(),
            cancel: CancellationToken::new(),
            failed: BTreeSet::new(),
            committing: false,
            maintaining: false,
            last_run: Epoch::MIN,
            readable,
            sent_statistics: BTreeMap::new(),
        }
    }
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

impl Engine {
    async fn run(mut self) -> Result<(), Error> {
        let outcome = self.serve().await;
        self.readable.write().from.clear();
        if let Err(error) = &outcome {
            tracing::error!(%error, "worker stops: an invariant is broken");
            self.respond(Response::Fatal {
                message: error.to_string(),
            })
            .await;
        }
        for (_, source) in std::mem::take(&mut self.sources) {
            source.handle.stop().await;
        }
        self.subscriptions.clear();
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let shards = self.shards;
        // Joining threads blocks; they end as soon as their queue is closed.
        tokio::task::spawn_blocking(move || shards.stop())
            .await
            .map_err(|_| Error::ShardGone)?;
        if outcome.is_ok() {
            drop(self.responses.send(Response::Stopped).await);
        }
        outcome
    }

    async fn serve(&mut self) -> Result<(), Error> {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING_INTERVAL);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if let Some(command) = self.read_ahead.pop_front() {
                if self.act(command).await? == Flow::Stop {
                    return Ok(());
                }
                continue;
            }
            tokio::select! {
                biased;
                event = self.events.recv() => if let Some(event) = event { self.handle(event).await? },
                command = self.commands.recv() => match command {
                    None => return Ok(()),
                    Some(command) => if self.act(command).await? == Flow::Stop { return Ok(()) },
                },
                _ = housekeeping.tick() => self.housekeep().await?,
            }
        }
    }

    async fn act(&mut self, command: Command) -> Result<Flow, Error> {
        match command {
            Command::Hello {
                version,
                commit_point,
                local_log,
            } => {
                if version != PROTOCOL_VERSION {
                    return Err(Error::Protocol(format!(
                        "coordinator speaks version {version}, worker {PROTOCOL_VERSION}"
                    )));
                }
                self.last_run = commit_point;
                self.readable.write().durable = commit_point;
                self.logged = self.logged.split_off(&commit_point.next());
                let logged_epochs = self.logged.keys().copied().collect();
                let log = Arc::clone(&self.log);
                let found = tokio::task::spawn_blocking(move || {
                    log.lock()
                        .recover(commit_point, local_log.map(|LogId(identity)| identity))
                })
                .await
                .map_err(|_| log_thread_panicked())??;
                self.respond(Response::Ready {
                    version: PROTOCOL_VERSION,
                    logged_epochs,
                    local_log: LogId(found.identity),
                    newest_logged: found.newest,
                    cut_through: found.cut_through,
                })
                .await;
            }
            Command::CreateCollection(description) => self.create_collection(description).await?,
            Command::CreateSource(description) => self.create_source(description).await?,
            Command::AddSourceTables { source, tables } => {
                self.add_source_tables(source, tables).await?
            }
            Command::CreateDataflow(description) => self.create_dataflow(description).await?,
            Command::Drop { objects } => self.drop_objects(objects).await?,
            Command::CleanUp(work) => self.clean_up(work),
            Command::StageWrite(write) => self.stage_write(write).await?,
            Command::DiscardWrite { write } => {
                self.staged.remove(&write);
                if let Some(task) = self.staging.remove(&write) {
                    task.end();
                }
            }
            Command::RunEpoch(run) => return self.run_epoch(run).await,
            Command::BindingDurable { epoch } => self.binding_durable(epoch).await?,
            Command::Commit { epoch } => self.commit(epoch)?,
            Command::CommitPointDurable { epoch } => self.commit_point_durable(epoch).await?,
            Command::AllowCompaction { since } => {
                self.shards
                    .on_each(move |_, shard| shard.allow_compaction(since))
                    .await?;
            }
            Command::Peek(peek) => self.read(Read::Peek(peek)).await?,
            Command::Lookup(lookup) => self.read(Read::Lookup(lookup)).await?,
            Command::Subscribe(subscribe) => self.subscribe(subscribe).await?,
            Command::Cancel { request } => self.cancel(request).await?,
            Command::AskUpstream { request, question } => {
                let responses = self.responses.clone();
                self.tasks.spawn(async move {
                    let answer = flowstone_ingest::ask(&question).await;
                    // The coordinator may have gone.
                    drop(
                        responses
                            .send(Response::UpstreamAnswer { request, answer })
                            .await,
                    );
                });
            }
            Command::Shutdown => return Ok(Flow::Stop),
        }
        Ok(Flow::Continue)
    }

    async fn handle(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Source(SourceEvent::Progress {
                source,
                position,
                upstream,
            }) => {
                self.respond(Response::SourceProgress {
                    source,
                    position,
                    upstream,
                })
                .await;
            }
            Event::Source(SourceEvent::Snapshot {
                source,
                tables,
                position,
            }) => {
                self.respond(Response::SourceSnapshot {
                    source,
                    tables,
                    position,
                })
                .await;
            }
            Event::Source(SourceEvent::Status { object, status }) => {
                self.respond(Response::SourceStatus { object, status })
                    .await
            }
            Event::Source(SourceEvent::Statistics(statistics)) => {
                self.respond(Response::SourceStatistics(statistics)).await
            }
            Event::Staged { write, result } => {
                // A write that was discarded meanwhile has no entry any more.
                if self.staging.remove(&write).is_some() {
                    let result = result.map(|staged| {
                        let summary = staged.summary();
                        self.staged.insert(write, staged);
                        summary
                    });
                    self.respond(Response::WriteStaged { write, result }).await;
                }
            }
            Event::Committed { epoch, result } => self.committed(epoch, result?).await,
            Event::Maintained => {
                self.maintaining = false;
                self.delete_dropped_tables();
            }
        }
        Ok(())
    }

    async fn respond(&self, response: Response) {
        // The coordinator may have gone; the transport closing ends the loop.
        drop(self.responses.send(response).await);
    }

    /// Turns the events of a source into events of the loop.
    fn forward_source_events(&self) -> mpsc::Sender<SourceEvent> {
        let (sender, mut receiver) = mpsc::channel(EVENTS_IN_FLIGHT);
        let events = self.event_sender.clone();
        self.tasks.spawn(async move {
            while let Some(event) = receiver.recv().await {
                if events.send(Event::Source(event)).await.is_err() {
                    return;
                }
            }
        });
        sender
    }

    fn source_context(&self, description: &SourceDescription) -> SourceContext {
        let schemas = description
            .tables
            .iter()
            .filter_map(|table| {
                Some((
                    table.id,
                    Arc::clone(&self.collections.get(&table.id)?.schema),
                ))
            })
            .collect();
        SourceContext {
            tables: self.delta.clone(),
            clock: Arc::clone(&self.config.clock),
            state_dir: self.config.data_dir.join("sources"),
            schemas,
            events: self.forward_source_events(),
        }
    }

    async fn housekeep(&mut self) -> Result<(), Error> {
        let ids: Vec<ObjectId> = self.readable.read().from.keys().copied().collect();
        let asked = ids.clone();
        let shards = self
            .shards
            .on_each(move |_, shard| {
                shard.maintain(epoch::MAINTENANCE_FUEL);
                let mut statistics = shard.statistics();
                asked
                    .iter()
                    .map(|id| statistics.remove(id).unwrap_or_default())
                    .collect::<Vec<_>>()
            })
            .await?;
        for (index, id) in ids.into_iter().enumerate() {
            let statistics = shards
                .iter()
                .filter_map(|shard| shard.get(index).cloned())
                .fold(CollectionStatistics::default(), CollectionStatistics::and);
            if self.sent_statistics.get(&id) != Some(&statistics) {
                self.sent_statistics.insert(id, statistics.clone());
                self.respond(Response::CollectionStatistics { id, statistics })
                    .await;
            }
        }
        Ok(())
    }
}

/// Nothing to wait for.
fn no_tasks() -> TaskTracker {
    let tasks = TaskTracker::new();
    tasks.close();
    tasks
}

fn log_thread_panicked() -> flowstone_storage::Error {
    flowstone_storage::Error::Invariant("the log thread panicked".to_owned())
}

/// Tries again, ever more slowly, while the environment refuses; gives up only when trying again cannot help.
async fn retrying<T, F>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, flowstone_storage::Error>
where
    F: Future<Output = Result<T, flowstone_storage::Error>>,
{
    let mut pause = RETRY_FIRST;
    loop {
        match attempt().await {
            Err(error) if error.retryable() => {
                tracing::warn!(
                    error = with_causes(&error),
                    what,
                    "storage refused; trying again"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LONGEST);
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests;
