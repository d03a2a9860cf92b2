//! The router: commands in, responses out, and who of the three parts acts on them.
//!
//! Owns the order of everything that happens. Must not know what the parts do. Called by `node` through [`start`].
//!
//! Invariants. One command at a time. Reads, plans to be tried and questions to upstreams do not come here: they have a task of their own (`front`), which passes
//! everything else on, and they wait for nothing but what makes or drops something. What of a command waits for a disk or an upstream is the work of a part, which
//! says when it has come to something (`Fed`, `Heard`, `Event`): an epoch is put together, and its record in the local log noted, by the feed. The commands behind
//! it wait until it is over, but for those that may overtake it (`order`), and everything else goes on. What waits for shards of the base is waited for: nothing
//! else may be done to them. Slow work that needs no order (queries, Delta commits) runs in tasks, and its end comes back as an event. No command waits for what
//! runs beside the base: while too much waits for that, nothing more of what was set aside or comes late enters, and an epoch that was run is not said to be
//! complete, so that the coordinator sends no more of them than it may have in here.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_ingest::SourceEvent;
use flowstone_proto::PROTOCOL_VERSION;
use flowstone_proto::local::WorkerEnd;
use flowstone_proto::message::{
    CollectionDescription, Command, LogId, RequestId, Response, RunEpoch, Staged,
};
use flowstone_storage::{DeltaTables, LogRecord, LogStore};
use flowstone_types::{Clock, Epoch, ObjectId};
use futures::FutureExt;
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::compute::direct::{Readable, WorkerReads};
use crate::compute::shards::{ShardMaker, ShardPool};
use crate::compute::{self, Compute, Heard};
use crate::event::Event;
use crate::feed::{self, EpochInput, Fed, Feed, Late};
use crate::keep::{self, KeepHandle};
use crate::log::SharedLog;
use crate::query::{Compiler, Evaluator, QueryRunner};
use crate::trial::Trial;

mod front;
mod order;

use front::Front;
use order::{Commands, InHand, is_awaited};

/// Events of sources and tasks waiting for the router. A full channel makes the sender wait: the router is busy with an epoch.
const EVENTS_IN_FLIGHT: usize = 1024;

/// So many commands and events may come before what can wait gets its turn.
const TURNS: usize = 16;

/// How often counters are sent and idle arrangements are compacted.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

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
    /// How long a recomputed operator may take for one change.
    pub recompute_time_max: Duration,
}

/// The state of the router.
#[derive(Debug)]
struct Engine {
    commands: Commands,
    responses: mpsc::Sender<Response>,
    source_events: mpsc::Receiver<SourceEvent>,
    events: mpsc::Receiver<Event>,
    /// Questions to upstreams, and plans that are tried, which the front begins.
    tasks: TaskTracker,
    /// What serves reads and passes commands on.
    front: JoinHandle<mpsc::Receiver<Command>>,
    feed: Feed,
    compute: Compute,
    keep: KeepHandle,
    /// The newest epoch that was run and whose record counts.
    acknowledged: Epoch,
    /// A commit that waits for lanes to come to its epoch.
    waiting_commit: Option<Epoch>,
    /// Writes that were evaluated and would be set aside, while as much is as may: the coordinator is told of them later.
    waiting_writes: VecDeque<(RequestId, Staged)>,
    /// Epochs that were run while too much waited for what runs beside the base: they are complete when it does not any more.
    completing: VecDeque<Epoch>,
}

/// Opens storage, starts the shard threads and runs the worker until `Shutdown` or the transport closes.
///
/// # Errors
/// Storage that cannot be opened (damaged, newer format, no permission), or a broken invariant. The coordinator has been told with `Response::Fatal`.
pub async fn start(config: Config, mut end: WorkerEnd) -> Result<(), Error> {
    match open(&config).await {
        Ok(opened) => opened.engine(&config, end).run().await,
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
    maker: ShardMaker,
    /// What may wait for a lane or a fork.
    backlog_bytes_max: usize,
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
    let maker = ShardMaker {
        row_bytes_max: runner.recompute_bytes(),
        compiler: Arc::new(Compiler),
        evaluator: Arc::new(Evaluator::new(runner.clone(), config.recompute_time_max)),
    };
    let shards = ShardPool::start("shard", count, &maker)?;
    Ok(Opened {
        log,
        records,
        delta,
        runner,
        shards,
        maker,
        backlog_bytes_max: compute::BACKLOG_BYTES,
    })
}

impl Opened {
    fn engine(self, config: &Config, end: WorkerEnd) -> Engine {
        let (event_sender, events) = mpsc::channel(EVENTS_IN_FLIGHT);
        let (source_sender, source_events) = mpsc::channel(EVENTS_IN_FLIGHT);
        let readable = Arc::<RwLock<Readable>>::default();
        end.direct.offer(Arc::new(WorkerReads {
            readable: Arc::clone(&readable),
            shards: self.shards.shards(),
        }));
        let blobs = self.log.blobs();
        let log = SharedLog::new(self.log);
        let state_dir = config.data_dir.join("sources");
        let trial = Trial::new(self.maker.clone(), self.shards.count(), self.runner.clone());
        let compute = Compute::new(compute::Parts {
            responses: end.responses.clone(),
            results: end.results,
            events: event_sender.clone(),
            shards: self.shards,
            maker: self.maker,
            runner: self.runner,
            delta: self.delta.clone(),
            blobs,
            readable,
            subscriber_memory_bytes: config.subscriber_memory_bytes,
            backlog_bytes_max: self.backlog_bytes_max,
        });
        let tasks = TaskTracker::new();
        let (front, passed) = Front::new(front::Parts {
            commands: end.commands,
            responses: end.responses.clone(),
            reads: compute.reads(),
            trial,
            tasks: tasks.clone(),
        });
        Engine {
            commands: Commands::new(passed.commands, passed.acted),
            source_events,
            events,
            tasks,
            front: TaskTracker::new().spawn(front.run()),
            feed: Feed::new(feed::Parts {
                responses: end.responses.clone(),
                events: source_sender,
                clock: Arc::clone(&config.clock),
                state_dir: state_dir.clone(),
                delta: self.delta.clone(),
                log: log.clone(),
                records: self.records,
            }),
            compute,
            keep: KeepHandle::start(keep::Parts {
                responses: end.responses.clone(),
                events: event_sender,
                delta: self.delta,
                log,
                state_dir,
            }),
            acknowledged: Epoch::MIN,
            waiting_commit: None,
            waiting_writes: VecDeque::new(),
            completing: VecDeque::new(),
            responses: end.responses,
        }
    }
}

/// Whether the router goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

impl Engine {
    async fn run(mut self) -> Result<(), Error> {
        let mut outcome = self.serve().await;
        // Nobody hears of the ends of tasks any more: those that would tell, some of them awaited below, must not wait for room.
        self.events.close();
        // Reads end before what they read, or they would take it for dropped. Until everything has ended, the coordinator may send what nobody acts on.
        drop(self.commands);
        let unheard = self.front.await;
        if let Err(error) = &unheard {
            tracing::error!(%error, "the front panicked");
            outcome = outcome.and(Err(Error::FrontGone));
        }
        self.compute.close();
        if let Err(error) = &outcome {
            tracing::error!(%error, "worker stops: an invariant is broken");
            let message = error.to_string();
            // The coordinator may have gone.
            drop(self.responses.send(Response::Fatal { message }).await);
        }
        self.feed.stop().await;
        self.keep.stop().await;
        self.tasks.close();
        self.tasks.wait().await;
        self.compute.stop().await?;
        if outcome.is_ok() {
            drop(self.responses.send(Response::Stopped).await);
        }
        outcome
    }

    async fn serve(&mut self) -> Result<(), Error> {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING_INTERVAL);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turns = 0_usize;
        loop {
            turns = turns.wrapping_add(1);
            self.complete().await?;
            self.admit().await;
            if turns.is_multiple_of(TURNS) {
                self.get_on().await?;
            }
            let may_enter = !self.compute.is_behind();
            let late = self.late();
            let (in_hand, acknowledged) = (self.in_hand(), self.acknowledged);
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.handle(event).await?,
                Some(event) = self.source_events.recv() => self.respond(said_by_source(event)).await,
                heard = self.compute.hear() => self.heard(heard).await?,
                fed = self.feed.hear(late) => self.fed(fed?).await?,
                command = self.commands.next(in_hand, acknowledged) => match command {
                    None => return Ok(()),
                    Some(command) => if self.act(command).await? == Flow::Stop { return Ok(()) },
                },
                _ = housekeeping.tick() => {
                    self.consolidate().await?;
                    self.pass_sinks().await?;
                    let counter = self.keep.counter();
                    self.compute.housekeep(|held| counter.bytes(held))?;
                }
                // Nothing else waits.
                () = std::future::ready(()), if may_enter && self.compute.has_a_piece() => self.enter_a_piece().await?,
                () = std::future::ready(()), if self.compute.is_building() => self.build().await?,
            }
        }
    }

    /// Acts on a command; who waits for what it makes is told.
    async fn act(&mut self, command: Command) -> Result<Flow, Error> {
        let awaited = is_awaited(&command);
        let flow = self.act_on(command).await?;
        if awaited {
            self.commands.acted();
        }
        Ok(flow)
    }

    async fn act_on(&mut self, command: Command) -> Result<Flow, Error> {
        match command {
            Command::Hello {
                version,
                commit_point,
                local_log,
            } => self.greet(version, commit_point, local_log).await?,
            Command::CreateCollection(description) => self.create_collection(description).await?,
            Command::CreateSource(description) => self.feed.create_source(*description),
            Command::AddSourceTables { source, tables } => {
                self.feed.add_source_tables(source, tables).await?;
                if let Some(collections) = self.feed.held(source) {
                    let epoch = self.compute.last_run().next();
                    self.compute.hold(collections, epoch);
                }
            }
            Command::AlterSource {
                source,
                kind,
                tables,
            } => self.feed.alter_source(source, *kind, &tables)?,
            Command::CreateDataflow(description) => {
                let output = self.compute.create_dataflow(description).await?;
                self.keep.absorb(output).await?;
            }
            Command::CreateSink(description) => {
                let now = self.compute.last_run();
                self.keep.create_sink(description, now).await?;
            }
            Command::AlterSink(description) => {
                let now = self.compute.last_run();
                self.keep.alter_sink(description, now).await?;
            }
            Command::FailDataflow { id, error } => self.compute.fail(id, error).await?,
            Command::Drop { objects } => {
                let sources = self.feed.drop_objects(&objects).await;
                self.keep.drop_objects(objects.clone(), sources).await?;
                self.compute.drop_objects(objects).await?;
            }
            Command::CleanUp(work) => self.keep.clean_up(work).await?,
            Command::StageWrite(write) => self.compute.stage_write(write).await?,
            Command::DiscardWrite { write } => {
                self.feed.discard(write);
                self.waiting_writes.retain(|(waiting, _)| *waiting != write);
                self.compute.discard_write(write);
            }
            Command::RunEpoch(run) => self.run_epoch(run)?,
            Command::BindingDurable { epoch } => self.compute.binding_durable(epoch).await?,
            Command::Commit { epoch } => {
                if epoch > self.compute.last_run() {
                    return Err(Error::Protocol(format!(
                        "commit of epoch {epoch} before it was run"
                    )));
                }
                self.compute.stop_for_commit(epoch);
                self.waiting_commit = Some(epoch);
                self.commit_if_complete().await?;
                self.put_off_if_late().await;
            }
            Command::SetCluster {
                cluster,
                threads,
                change,
            } => self.compute.set_cluster(cluster, threads, change).await?,
            Command::DropCluster { cluster } => self.compute.drop_cluster(cluster).await?,
            Command::CommitPointDurable { epoch } => self.feed.commit_point_durable(epoch),
            Command::AllowCompaction { since } => self.compute.allow_compaction(since).await?,
            Command::Peek(_)
            | Command::Lookup(_)
            | Command::Prepare { .. }
            | Command::AskUpstream { .. } => {
                let served = "the front has passed on what it serves";
                return Err(Error::Protocol(served.to_owned()));
            }
            Command::Subscribe(subscribe) => self.compute.subscribe(subscribe).await?,
            Command::Cancel { request } => self.compute.cancel(request).await?,
            Command::Shutdown => return Ok(Flow::Stop),
        }
        Ok(Flow::Continue)
    }

    async fn greet(
        &mut self,
        version: u32,
        commit_point: Epoch,
        local_log: Option<LogId>,
    ) -> Result<(), Error> {
        if version != PROTOCOL_VERSION {
            return Err(Error::Protocol(format!(
                "coordinator speaks version {version}, worker {PROTOCOL_VERSION}"
            )));
        }
        self.acknowledged = commit_point;
        self.compute.begin_at(commit_point);
        self.keep.begin_at(commit_point).await?;
        let (logged_epochs, found) = self.feed.recover(commit_point, local_log).await?;
        self.respond(Response::Ready {
            version: PROTOCOL_VERSION,
            logged_epochs,
            local_log: LogId(found.identity),
            newest_logged: found.newest,
            cut_through: found.cut_through,
        })
        .await;
        Ok(())
    }

    async fn create_collection(&mut self, description: CollectionDescription) -> Result<(), Error> {
        self.keep.create_table(&description).await?;
        let schema = Arc::clone(&description.schema);
        let failed = description.failure.is_some();
        let id = description.id;
        self.compute.create_collection(description).await?;
        self.feed.add_collection(id, schema, failed);
        Ok(())
    }

    /// Begins an epoch: the feed puts together what it changes.
    fn run_epoch(&mut self, run: RunEpoch) -> Result<(), Error> {
        let last_run = self.compute.last_run();
        if run.epoch <= last_run {
            return Err(Error::Protocol(format!(
                "epoch {} after epoch {last_run}",
                run.epoch
            )));
        }
        self.feed.begin_epoch(run);
        Ok(())
    }

    /// Whether what a source did not give with its epoch may enter: only when no command waits, and when the piece before has entered, or they would pile up.
    fn late(&self) -> Late {
        let busy = self.compute.is_behind() || self.compute.has_set_aside();
        if busy || !self.commands.is_idle() {
            Late::Unwanted
        } else {
            Late::Wanted
        }
    }

    /// What the commands that come wait for.
    const fn in_hand(&self) -> InHand {
        if self.feed.is_at_work() {
            InHand::Feed
        } else if self.keep.is_restoring() {
            InHand::Tables
        } else {
            InHand::Nothing
        }
    }

    /// Goes on with what the feed has done.
    async fn fed(&mut self, fed: Fed) -> Result<(), Error> {
        match fed {
            Fed::Started(row_errors) => {
                for (table, errors) in row_errors {
                    self.keep.add_errors(table, errors.clone()).await?;
                    self.compute.load_errors(table, errors).await?;
                }
            }
            Fed::Input(epoch, input) => {
                self.enter(epoch, input).await?;
                self.commit_if_complete().await?;
            }
            Fed::Acknowledged(epoch) => {
                self.acknowledged = epoch;
                self.completing.push_back(epoch);
                self.complete().await?;
            }
            Fed::Cut(epoch) => self.keep.commit_point_durable(epoch).await?,
            Fed::More(source) => self.run_late(source).await?,
        }
        Ok(())
    }

    /// Says that what was run is complete, unless too much waits for what runs beside the base: then whatever ends that wait comes here again.
    async fn complete(&mut self) -> Result<(), Error> {
        while !self.compute.is_behind()
            && let Some(epoch) = self.completing.pop_front()
        {
            self.respond(Response::EpochComplete { epoch }).await;
            self.compute.maintain().await?;
            self.get_on().await?;
        }
        Ok(())
    }

    /// Tells of the writes that have waited for room, if there is some.
    async fn admit(&mut self) {
        if self.waiting_writes.is_empty() || !self.compute.has_room() {
            return;
        }
        for (write, staged) in std::mem::take(&mut self.waiting_writes) {
            let result = Ok(staged);
            self.respond(Response::WriteStaged { write, result }).await;
        }
    }

    /// However busy the base is, what was set aside, what comes late and what is being made get on.
    async fn get_on(&mut self) -> Result<(), Error> {
        if !self.compute.is_behind() {
            self.enter_what_waits().await?;
        }
        self.consolidate().await?;
        if self.compute.is_building() {
            self.build().await?;
        }
        Ok(())
    }

    /// Enters some of what was set aside, or of what comes late. What is owed of it when too much waits beside the base is owed still.
    async fn enter_what_waits(&mut self) -> Result<(), Error> {
        if self.compute.has_set_aside() {
            self.compute.allow_a_piece();
            while self.compute.owes_a_piece() && !self.compute.is_behind() {
                self.enter_a_piece().await?;
            }
        } else {
            let source = self.feed.more().now_or_never();
            if let Some(source) = source {
                self.run_late(source).await?;
            }
        }
        Ok(())
    }

    /// Keeps small what waits for a commit.
    async fn consolidate(&self) -> Result<(), Error> {
        let durable = self.compute.durable();
        self.keep.consolidate(durable, self.waiting_commit).await
    }

    /// Sinks that wait for a moment which no commit comes after hear that it has come.
    async fn pass_sinks(&self) -> Result<(), Error> {
        let through = self.compute.stored_through();
        self.keep.pass_sinks(through, self.compute.failures()).await
    }

    /// Runs what a source did not give with its epoch, as changes of the newest one: nobody has seen its collections since.
    async fn run_late(&mut self, source: ObjectId) -> Result<(), Error> {
        let epoch = self.compute.last_run();
        let (input, released) = self.feed.late_input(source, epoch)?;
        self.enter(epoch, input).await?;
        // Not before it is known what is held up, or there would be another commit at once.
        self.put_off_if_late().await;
        if let Some(collections) = released {
            tracing::info!(%source, "a source has given what it gave before; its tables can be read again");
            self.compute.release(&collections).await?;
            self.respond(Response::SourceHeld {
                source,
                held: false,
                epoch,
            })
            .await;
        }
        Ok(())
    }

    async fn enter(&mut self, epoch: Epoch, input: EpochInput) -> Result<(), Error> {
        for (source, collections) in &input.held {
            tracing::warn!(%source, %epoch, "a source cannot give what it gave before; its tables wait for it");
            self.compute.hold(collections.clone(), epoch);
            let source = *source;
            self.respond(Response::SourceHeld {
                source,
                held: true,
                epoch,
            })
            .await;
        }
        for (source, _) in &input.begun {
            let (source, behind) = (*source, true);
            self.respond(Response::SourceBehind { source, behind })
                .await;
        }
        let failures = input.failures.clone();
        if !input.is_empty() {
            failpoint::passed(Kind::EpochInput, Step::Tell);
        }
        let output = self.compute.run(epoch, input).await?;
        self.keep.absorb(output).await?;
        if !failures.is_empty() {
            self.respond(Response::Failed { epoch, failures }).await;
        }
        Ok(())
    }

    async fn enter_a_piece(&mut self) -> Result<(), Error> {
        let output = self.compute.enter_a_piece().await?;
        self.keep.absorb(output).await?;
        self.compute.maintain().await?;
        self.commit_if_complete().await
    }

    async fn build(&mut self) -> Result<(), Error> {
        let output = self.compute.build().await?;
        self.keep.absorb(output).await
    }

    async fn heard(&mut self, heard: Heard) -> Result<(), Error> {
        let output = self.compute.heard(heard).await?;
        self.keep.absorb(output).await?;
        self.commit_if_complete().await
    }

    /// What a commit lacks may be long in coming once a source is held up, or gives it in pieces: it is not waited for, so that the coordinator is free to stop.
    async fn put_off_if_late(&mut self) {
        if let Some(epoch) = self.waiting_commit
            && (self.feed.is_any_held() || self.compute.waits_for_source(epoch))
        {
            self.waiting_commit = None;
            let from = self.compute.last_run();
            self.respond(Response::CommitPutOff { epoch, from }).await;
        }
    }

    /// Begins the commit that waits, if all that it is to contain was computed.
    async fn commit_if_complete(&mut self) -> Result<(), Error> {
        let Some(epoch) = self.waiting_commit else {
            return Ok(());
        };
        if epoch > self.compute.stored_through() {
            return Ok(());
        }
        self.waiting_commit = None;
        let from = self.compute.stored_from(epoch);
        if epoch < from {
            self.respond(Response::CommitPutOff { epoch, from }).await;
            return Ok(());
        }
        self.keep.commit(epoch).await
    }

    async fn handle(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Staged { write, result } => {
                // A write that was discarded meanwhile is waited for by nobody.
                if self.compute.end_staging(write) {
                    let waits = match &result {
                        Ok(staged) => self.compute.has_no_room_for(&staged.changes),
                        Err(_) => false,
                    };
                    match result.map(|staged| self.feed.stage(write, staged)) {
                        Ok(staged) if waits => self.waiting_writes.push_back((write, staged)),
                        result => self.respond(Response::WriteStaged { write, result }).await,
                    }
                }
            }
            Event::Restored(result) => {
                result?;
                self.keep.restored();
            }
            Event::Broken(error) => return Err(error),
        }
        Ok(())
    }

    async fn respond(&self, response: Response) {
        // The coordinator may have gone; the transport closing ends the loop.
        drop(self.responses.send(response).await);
    }
}

/// What the coordinator is told of what a source reports.
fn said_by_source(event: SourceEvent) -> Response {
    match event {
        SourceEvent::Progress {
            source,
            position,
            upstream,
        } => Response::SourceProgress {
            source,
            position,
            upstream,
        },
        SourceEvent::Snapshot {
            source,
            tables,
            position,
        } => Response::SourceSnapshot {
            source,
            tables,
            position,
        },
        SourceEvent::Status { object, status } => Response::SourceStatus { object, status },
        SourceEvent::Statistics(statistics) => Response::SourceStatistics(statistics),
    }
}

#[cfg(test)]
mod tests;
