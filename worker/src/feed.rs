//! The feed: what changes collections from outside.
//!
//! Owns the sources, the writes that were evaluated and wait for their epoch, the local log, and what has failed for good. For an epoch it gives
//! [`EpochInput`]. Must not know shards or Delta tables, but for the snapshots that sources write there. Called by the router.
//!
//! Invariants. What an epoch's writes change is synced in the local log before [`Feed::input`] ends. An upstream is told of a position once the commit point
//! above it is durable, and after the local log was cut. What is bound is given exactly and in order, but not always with its epoch: a source may be held up, or
//! have more than fits in memory or can be read from disk soon, which is read piece by piece in a task of its own. Nobody may see its collections then, and no
//! commit of what lacks it may begin, until all of it was given; what is bound to it meanwhile is given after it, and its progress relation changes when its
//! tables have. Only an epoch waits here for what is read, and not for long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Int32Array, RecordBatch, UInt64Array};
use arrow_schema::SchemaRef;
use flowstone_dataflow::CollectionInput;
use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_ingest::{Pieces, SourceContext, SourceEvent, SourceHandle, TableChanges, TableData};
use flowstone_proto::message::{
    Failure, LogId, RequestError, RequestId, Response, RunEpoch, SourceBinding, SourceDescription,
    SourceKind, SourceTable, Staged,
};
use flowstone_storage::{DeltaTables, LogRecord, LogState, LogStore, StagedSnapshot};
use flowstone_types::{
    Clock, DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId, SourceChanges, SourcePosition,
    Weights,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::error::with_causes;
use crate::log::{SharedLog, finish};
use crate::retry::{RETRY_FIRST, retrying};
use crate::size::{BYTES_AT_ONCE, ROWS_AT_ONCE, bytes_of};
use crate::write::StagedWrite;

#[cfg(test)]
mod tests;

/// How long an epoch waits for its sources to give what is bound: after a restart they have to connect and to read it again, and what waits on disk has to be
/// read.
const SOURCE_PATIENCE: Duration = Duration::from_secs(3);

/// Pieces that are read before they are asked for: one may have 64 MB, and another is read while it waits.
const PIECES_AHEAD: usize = 1;

/// What an epoch changes.
#[derive(Debug, Default)]
pub(crate) struct EpochInput {
    /// Snapshots of source tables. Their rows enter before everything else, and are on disk already.
    pub(crate) snapshots: Vec<(ObjectId, StagedSnapshot)>,
    /// Changes as upstreams state them, in order, each table once. Those of keys have yet to be completed from the collection.
    pub(crate) upstream: Vec<(ObjectId, Vec<SourceChanges>)>,
    /// Everything else.
    pub(crate) direct: Vec<(ObjectId, CollectionInput)>,
    /// What has failed for good, from this epoch on; in `direct` as errors of its collections.
    pub(crate) failures: Vec<(ObjectId, Failure)>,
    /// Sources that could not give what is bound, and their collections: what belongs to this epoch and those after it enters later.
    pub(crate) held: Vec<(ObjectId, Vec<ObjectId>)>,
    /// Sources with more than enters at once, or with something that comes late or behind that, and their collections: together they lack what is still to come.
    pub(crate) begun: Vec<(ObjectId, Vec<ObjectId>)>,
    /// Sources that have given all that is bound.
    pub(crate) ended: Vec<ObjectId>,
}

impl EpochInput {
    /// Whether it changes nothing.
    pub(crate) const fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.upstream.is_empty() && self.direct.is_empty()
    }
}

/// A source as the feed knows it.
#[derive(Debug)]
struct Source {
    description: SourceDescription,
    handle: SourceHandle,
    /// The position its progress relation shows.
    progress: Option<SourcePosition>,
    /// Bound positions whose epochs are not in a durable commit point.
    bound: VecDeque<(Epoch, SourcePosition)>,
    /// What is being given in pieces.
    stream: Option<Stream>,
    /// What was bound and could not be given when its epoch was run, oldest first: it comes behind the stream.
    waiting: VecDeque<SourceBinding>,
    /// Whether something of it has to be waited for: the source is held up.
    held: bool,
    /// Why it can never go on, if a take said so.
    failure: Option<Failure>,
    /// Tables that have yet to say that the source has failed for good.
    failing: Vec<ObjectId>,
}

impl Source {
    /// Its tables and its progress relation.
    fn collections(&self) -> Vec<ObjectId> {
        let tables = self.description.tables.iter().map(|table| table.id);
        tables.chain(self.description.progress).collect()
    }

    /// Whether something that is bound was not given.
    fn is_behind(&self) -> bool {
        self.stream.is_some() || !self.waiting.is_empty()
    }

    /// What it has up to a bound position; if that is more than enters at once, or cannot be read soon, the beginning of it, and the rest is in the stream.
    async fn take(
        &mut self,
        binding: &SourceBinding,
        deadline: tokio::time::Instant,
        tasks: &TaskTracker,
    ) -> Result<Vec<TableChanges>, Error> {
        let mut reading = first_of(self.handle.take_pieces(binding));
        let (mut taken, mut rows, mut bytes) = (Vec::new(), 0_usize, 0_usize);
        while rows <= ROWS_AT_ONCE && bytes <= BYTES_AT_ONCE {
            // What is being read is not given up by that.
            let Ok(next) = tokio::time::timeout_at(deadline, &mut reading).await else {
                break;
            };
            let (piece, left) = match next {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(taken),
                Err(error) => {
                    self.refused(error)?;
                    return Ok(Vec::new());
                }
            };
            if let TableData::Changes(changes) = &piece.data {
                rows = rows.saturating_add(changes.rows.num_rows());
                bytes = bytes.saturating_add(bytes_of(&changes.rows));
            }
            taken.push(piece);
            reading = next_of(left);
        }
        self.stream = Some(Stream::start(binding.clone(), reading, tasks));
        Ok(taken)
    }

    /// What was bound cannot be had.
    fn refused(&mut self, error: flowstone_ingest::Error) -> Result<(), Error> {
        match error {
            flowstone_ingest::Error::Stopped => Ok(()),
            // Every table says so ([`Feed::fail_sources`]), and everything else goes on.
            flowstone_ingest::Error::Failed { message, hint } => {
                self.failure.get_or_insert(Failure { message, hint });
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    /// Waits until more of what was bound can be given; for ever if there is nothing.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn wait(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.wait().await;
        } else if let Some(binding) = self.waiting.front() {
            self.handle.ready(binding).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// More of what was bound, and the binding of which that is the last. What comes behind the stream becomes the stream.
    fn give(
        &mut self,
        tasks: &TaskTracker,
    ) -> Result<(Vec<TableChanges>, Option<SourceBinding>), Error> {
        let Some(mut stream) = self.stream.take() else {
            if let Some(binding) = self.waiting.pop_front() {
                let reading = first_of(self.handle.take_pieces(&binding));
                self.stream = Some(Stream::start(binding, reading, tasks));
            }
            return Ok((Vec::new(), None));
        };
        let mut taken = Vec::new();
        match stream.next.take() {
            None => {}
            Some(Ok(Some(piece))) => taken.push(piece),
            Some(Ok(None)) => return Ok((taken, Some(stream.binding))),
            // The process ends. What is left was not given, and must not look as if it was.
            Some(Err(flowstone_ingest::Error::Stopped)) => stream.stopped = true,
            Some(Err(error)) => {
                self.refused(error)?;
                return Ok((taken, Some(stream.binding)));
            }
        }
        self.stream = Some(stream);
        Ok((taken, None))
    }
}

/// What comes next of a take: a piece, the end, or why there is none.
type Next = Result<Option<TableChanges>, flowstone_ingest::Error>;

/// A piece that is being read, with what is left of the take after it; `None` at the end.
type Reading = BoxFuture<'static, Result<Option<(TableChanges, Pieces)>, flowstone_ingest::Error>>;

/// The first piece of a take.
fn first_of(taking: BoxFuture<'static, Result<Pieces, flowstone_ingest::Error>>) -> Reading {
    async move { next_of(taking.await?).await }.boxed()
}

/// The next piece of a take.
fn next_of(mut pieces: Pieces) -> Reading {
    async move {
        let next = pieces.next().await?;
        Ok::<_, flowstone_ingest::Error>(next.map(|piece| (piece, pieces)))
    }
    .boxed()
}

/// What is left of a take that does not enter at once: it is more than does, or comes late, or is not read soon. It is read in a task of its own, so that nothing
/// waits for a disk, and no further ahead than there is room; if the stream is dropped the task ends.
#[derive(Debug)]
struct Stream {
    binding: SourceBinding,
    pieces: mpsc::Receiver<Next>,
    /// What was read and not given.
    next: Option<Next>,
    /// The source was stopped while it was read: there is no more, and there never is an end.
    stopped: bool,
}

impl Stream {
    fn start(binding: SourceBinding, mut reading: Reading, tasks: &TaskTracker) -> Self {
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        tasks.spawn(async move {
            loop {
                let next = tokio::select! {
                    // The source was dropped, and its files may be gone.
                    () = sender.closed() => return,
                    next = &mut reading => next,
                };
                let (next, left) = match next {
                    Ok(Some((piece, left))) => (Ok(Some(piece)), Some(left)),
                    Ok(None) => (Ok(None), None),
                    Err(error) => (Err(error), None),
                };
                if sender.send(next).await.is_err() {
                    return;
                }
                let Some(left) = left else { return };
                reading = next_of(left);
            }
        });
        Self {
            binding,
            pieces: receiver,
            next: None,
            stopped: false,
        }
    }

    /// Waits until something was read.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn wait(&mut self) {
        if self.stopped {
            std::future::pending::<()>().await;
        }
        if self.next.is_none() {
            let next = self.pieces.recv().await;
            let gone = || flowstone_ingest::Error::Invariant("a take has no end".to_owned());
            self.next = Some(next.unwrap_or_else(|| Err(gone())));
        }
    }
}

/// The state of the feed.
#[derive(Debug)]
pub(crate) struct Feed {
    responses: mpsc::Sender<Response>,
    /// Where sources say what happens to them.
    events: mpsc::Sender<SourceEvent>,
    clock: Arc<dyn Clock>,
    /// The state of sources.
    state_dir: PathBuf,
    /// Where snapshots are staged.
    delta: DeltaTables,
    log: SharedLog,
    /// Records of the local log above the commit point, waiting to be run again.
    logged: BTreeMap<Epoch, LogRecord>,
    /// What is noted in the local log of the newest epoch, on its way to the disk.
    acknowledging: Option<JoinHandle<Result<(), flowstone_storage::Error>>>,
    sources: BTreeMap<ObjectId, Source>,
    /// The one that gave late what it had, the last time.
    served: Option<ObjectId>,
    /// The collections that exist, with their columns.
    schemas: BTreeMap<ObjectId, SchemaRef>,
    staged: BTreeMap<RequestId, StagedWrite>,
    /// Sources and source tables that have failed for good, as far as their collections say so.
    failed: BTreeSet<ObjectId>,
    /// What reads streams.
    tasks: TaskTracker,
}

/// What a feed is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) responses: mpsc::Sender<Response>,
    pub(crate) events: mpsc::Sender<SourceEvent>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state_dir: PathBuf,
    pub(crate) delta: DeltaTables,
    pub(crate) log: SharedLog,
    pub(crate) records: Vec<LogRecord>,
}

impl Feed {
    pub(crate) fn new(parts: Parts) -> Self {
        let logged = parts.records.into_iter();
        Self {
            responses: parts.responses,
            events: parts.events,
            clock: parts.clock,
            state_dir: parts.state_dir,
            delta: parts.delta,
            log: parts.log,
            logged: logged.map(|record| (record.epoch, record)).collect(),
            acknowledging: None,
            sources: BTreeMap::new(),
            served: None,
            schemas: BTreeMap::new(),
            staged: BTreeMap::new(),
            failed: BTreeSet::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Finds what the local log has above the commit point: its epochs, and the state of the log.
    ///
    /// # Errors
    /// [`Error::Storage`] if it is not the log that was written to, or lacks what was acknowledged.
    pub(crate) async fn recover(
        &mut self,
        commit_point: Epoch,
        expected: Option<LogId>,
    ) -> Result<(Vec<Epoch>, LogState), Error> {
        self.logged = self.logged.split_off(&commit_point.next());
        let found = self
            .log
            .run(move |log| log.recover(commit_point, expected.map(|LogId(identity)| identity)))
            .await?;
        Ok((self.logged.keys().copied().collect(), found))
    }

    /// A collection exists from now on. `failed`: it has failed for good and says so already.
    pub(crate) fn add_collection(&mut self, id: ObjectId, schema: SchemaRef, failed: bool) {
        self.schemas.insert(id, schema);
        if failed {
            self.failed.insert(id);
        }
    }

    /// Starts a source. Returns the errors of its rows, which its tables have from the beginning.
    ///
    /// # Errors
    /// [`Error::Source`] if its description or its state on disk is no good.
    pub(crate) async fn create_source(
        &mut self,
        description: SourceDescription,
    ) -> Result<Vec<(ObjectId, Vec<(EvalError, i64)>)>, Error> {
        let handle = loop {
            let context = self.source_context(&description);
            match flowstone_ingest::start(description.clone(), context).await {
                Err(error) if error.retryable() => {
                    tracing::warn!(
                        error = with_causes(&error),
                        "a source could not be started; trying again"
                    );
                    tokio::time::sleep(RETRY_FIRST).await;
                }
                started => break started?,
            }
        };
        if description.failure.is_some() {
            self.failed.insert(description.id);
        }
        let row_errors = handle.row_errors();
        let source = Source {
            handle,
            progress: description.resume_from.clone(),
            bound: VecDeque::new(),
            stream: None,
            waiting: VecDeque::new(),
            held: false,
            failure: None,
            failing: Vec::new(),
            description,
        };
        self.sources.insert(source.description.id, source);
        Ok(row_errors)
    }

    fn source_context(&self, description: &SourceDescription) -> SourceContext {
        SourceContext {
            tables: self.delta.clone(),
            clock: Arc::clone(&self.clock),
            state_dir: self.state_dir.clone(),
            schemas: self.schemas_of(&description.tables),
            events: self.events.clone(),
        }
    }

    fn schemas_of(&self, tables: &[SourceTable]) -> Vec<(ObjectId, SchemaRef)> {
        tables
            .iter()
            .filter_map(|table| Some((table.id, Arc::clone(self.schemas.get(&table.id)?))))
            .collect()
    }

    pub(crate) async fn add_source_tables(
        &mut self,
        id: ObjectId,
        tables: Vec<SourceTable>,
    ) -> Result<(), Error> {
        let schemas = self.schemas_of(&tables);
        let source = self.sources.get_mut(&id).ok_or(Error::UnknownObject(id))?;
        source.description.tables.extend(tables.iter().cloned());
        if self.failed.contains(&id) {
            source.failing.extend(tables.iter().map(|table| table.id));
        }
        source.handle.add_tables(tables, schemas).await;
        Ok(())
    }

    /// A source reaches its upstream, and what its tables ask beside it, in another way from now on.
    ///
    /// # Errors
    /// [`Error::UnknownObject`] if there is no such source.
    pub(crate) fn alter_source(
        &mut self,
        id: ObjectId,
        kind: SourceKind,
        tables: &[SourceTable],
    ) -> Result<(), Error> {
        let source = self.sources.get_mut(&id).ok_or(Error::UnknownObject(id))?;
        for known in &mut source.description.tables {
            if let Some(table) = tables.iter().find(|table| table.id == known.id) {
                known.upstream.clone_from(&table.upstream);
            }
        }
        source.description.kind = kind.clone();
        source.handle.alter(kind, tables);
        Ok(())
    }

    /// Forgets objects. The sources among them are returned: they have yet to be stopped.
    pub(crate) async fn drop_objects(&mut self, objects: &[ObjectId]) -> Vec<SourceHandle> {
        let mut stopping = Vec::new();
        for id in objects {
            self.failed.remove(id);
            self.schemas.remove(id);
            if let Some(source) = self.sources.remove(id) {
                stopping.push(source.handle);
            }
        }
        for source in self.sources.values_mut() {
            let tables = &mut source.description.tables;
            let dropped: Vec<ObjectId> = tables
                .extract_if(.., |table| objects.contains(&table.id))
                .map(|table| table.id)
                .collect();
            if !dropped.is_empty() {
                source.handle.remove_tables(&dropped).await;
            }
        }
        stopping
    }

    /// Keeps an evaluated write until its epoch comes. Returns what the coordinator is told of it.
    pub(crate) fn stage(&mut self, write: RequestId, staged: StagedWrite) -> Staged {
        let summary = staged.summary();
        self.staged.insert(write, staged);
        summary
    }

    pub(crate) fn discard(&mut self, write: RequestId) {
        self.staged.remove(&write);
    }

    /// Whether a source is held up, and its collections.
    pub(crate) fn held(&self, id: ObjectId) -> Option<Vec<ObjectId>> {
        let source = self.sources.get(&id)?;
        source.held.then(|| source.collections())
    }

    /// Whether a source is held up.
    pub(crate) fn is_any_held(&self) -> bool {
        self.sources.values().any(|source| source.held)
    }

    /// Waits until a source can give more of what it did not give with its epoch, and says which. Never ends while there is none.
    ///
    /// # Cancel safety
    /// Nothing is taken, and nothing is lost.
    pub(crate) async fn more(&mut self) -> ObjectId {
        let behind = self.sources.iter_mut();
        let behind = behind.filter(|(_, source)| source.is_behind());
        let mut behind: Vec<_> = behind.collect();
        // They take turns.
        let served = behind.partition_point(|(id, _)| Some(**id) <= self.served);
        behind.rotate_left(served);
        let waiting: Vec<_> = behind
            .into_iter()
            .map(|(id, source)| {
                Box::pin(async move {
                    source.wait().await;
                    *id
                })
            })
            .collect();
        if waiting.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(waiting).await.0
    }

    /// More of what a source did not give when its epoch was run, oldest first and as changes of `epoch`; and its collections if it is not held up any more. What
    /// has to be read is read elsewhere.
    ///
    /// # Errors
    /// As [`Feed::input`].
    pub(crate) fn late_input(
        &mut self,
        id: ObjectId,
        epoch: Epoch,
    ) -> Result<(EpochInput, Option<Vec<ObjectId>>), Error> {
        let mut input = EpochInput::default();
        let Some(source) = self.sources.get_mut(&id) else {
            return Ok((input, None));
        };
        if !source.is_behind() {
            return Ok((input, None));
        }
        self.served = Some(id);
        let streamed = source.stream.is_some();
        let (taken, given) = source.give(&self.tasks)?;
        if source.stream.is_some() {
            if !streamed {
                input.begun.push((id, source.collections()));
            }
        } else if let Some(next) = source.waiting.front()
            && !source.held
            && source.handle.ready(next).now_or_never().is_none()
        {
            // After a restart the upstream may be away: nothing can be committed for as long as that takes.
            input.held.push((id, source.collections()));
            source.held = true;
        }
        let mut released = None;
        if !source.is_behind() {
            input.ended.push(id);
            if std::mem::take(&mut source.held) {
                released = Some(source.collections());
            }
        }
        self.enter(taken, &mut input);
        self.fail_sources(&mut input);
        if let Some(binding) = given {
            self.advance_progress(&binding, epoch, &mut input)?;
        }
        Ok((input, released))
    }

    /// What an epoch changes; the part of its writes is durable then. Waits a moment for sources, and can be given up while it does.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the epoch names a write that is not staged; [`Error::Storage`], [`Error::Source`] if something broke.
    pub(crate) async fn input(&mut self, run: &RunEpoch) -> Result<EpochInput, Error> {
        let mut input = EpochInput::default();
        let taken = self.take_sources(run, &mut input).await?;
        let written = self.log_writes(run).await?;
        if !written.is_empty() {
            // That the record counts is written down while the shards work; nobody hears of the epoch before.
            self.acknowledging = Some(self.log.start(LogStore::acknowledge));
        }
        for (table, delta) in written {
            if self.schemas.contains_key(&table) {
                let deltas = CollectionInput::Deltas(vec![delta]);
                input.direct.push((table, deltas));
            }
        }
        self.enter(taken, &mut input);
        self.fail_sources(&mut input);
        for binding in &run.bindings {
            let source = self.sources.get(&binding.source);
            if source.is_some_and(|source| !source.is_behind()) {
                self.advance_progress(binding, run.epoch, &mut input)?;
            }
        }
        Ok(input)
    }

    /// Sorts what sources gave.
    fn enter(&mut self, taken: Vec<TableChanges>, input: &mut EpochInput) {
        for TableChanges { table, data } in taken {
            // The table may have been dropped after the source buffered its changes.
            if !self.schemas.contains_key(&table) {
                continue;
            }
            match data {
                TableData::Snapshot(staged) => input.snapshots.push((table, staged)),
                TableData::Changes(changes) => {
                    match input.upstream.iter_mut().find(|(id, _)| *id == table) {
                        Some((_, earlier)) => earlier.push(changes),
                        None => input.upstream.push((table, vec![changes])),
                    }
                }
                TableData::RowErrors(errors) => {
                    input.direct.push((table, CollectionInput::Errors(errors)));
                }
                TableData::Error(error) => {
                    if self.failed.insert(table) {
                        let failure = Failure {
                            message: error.message.clone(),
                            hint: Some("Drop the table and add it again.".to_owned()),
                        };
                        input.failures.push((table, failure));
                        let errors = CollectionInput::Errors(vec![(error, 1)]);
                        input.direct.push((table, errors));
                    }
                }
            }
        }
    }

    /// Waits until what [`Feed::input`] logged counts.
    ///
    /// # Errors
    /// [`Error::Storage`] if trying again cannot help.
    pub(crate) async fn finish_acknowledging(&mut self) -> Result<(), Error> {
        let Some(task) = self.acknowledging.take() else {
            return Ok(());
        };
        match finish(task).await {
            Err(error) if error.retryable() => {
                tracing::warn!(
                    error = with_causes(&error),
                    "the local log refused a note; trying again"
                );
                Ok(retrying("note what the local log holds", || {
                    self.log.run(LogStore::acknowledge)
                })
                .await?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// Lets the tables of sources that have failed for good say so from this epoch on.
    fn fail_sources(&mut self, input: &mut EpochInput) {
        for (id, source) in &mut self.sources {
            let found = source.failure.clone();
            let Some(failure) = found.or_else(|| source.handle.failure()) else {
                continue;
            };
            if self.failed.insert(*id) {
                tracing::error!(source = %id, error = failure.message, "a source failed for good");
                let tables = source.description.tables.iter().map(|table| table.id);
                source.failing = tables.collect();
                input.failures.push((*id, failure.clone()));
            }
            for table in source.failing.drain(..) {
                if self.schemas.contains_key(&table) && self.failed.insert(table) {
                    // One that was added after the source had failed is not among those that the source's own failure tells of.
                    input.failures.push((table, failure.clone()));
                    let error = EvalError::new(EvalErrorKind::Source, failure.message.clone());
                    let errors = CollectionInput::Errors(vec![(error, 1)]);
                    input.direct.push((table, errors));
                }
            }
        }
    }

    /// Takes what each bound source has up to its position, or the beginning of it. One that does not have it soon is held up from now on; what is bound to one
    /// that has not given everything comes behind.
    async fn take_sources(
        &mut self,
        run: &RunEpoch,
        input: &mut EpochInput,
    ) -> Result<Vec<TableChanges>, Error> {
        let mut taken = Vec::new();
        // All of them together.
        let deadline = tokio::time::Instant::now() + SOURCE_PATIENCE;
        for binding in &run.bindings {
            // A source that was dropped after its position was bound has nothing to say any more.
            let Some(source) = self.sources.get_mut(&binding.source) else {
                continue;
            };
            let behind = source.is_behind();
            let ready = !behind
                && tokio::time::timeout_at(deadline, source.handle.ready(binding))
                    .await
                    .is_ok();
            if ready {
                taken.extend(source.take(binding, deadline, &self.tasks).await?);
            } else {
                if !behind {
                    input.held.push((binding.source, source.collections()));
                    source.held = true;
                }
                source.waiting.push_back(binding.clone());
            }
            // Also tables that were added since it is so.
            if source.is_behind() && !source.held {
                input.begun.push((binding.source, source.collections()));
            }
            let bound = (run.epoch, binding.position.clone());
            source.bound.push_back(bound);
        }
        Ok(taken)
    }

    /// The changes of the epoch's writes, durable in the local log when this returns. Writes that the disk refuses, or that are too large together, have failed,
    /// and the epoch goes on without.
    async fn log_writes(&mut self, run: &RunEpoch) -> Result<Vec<(ObjectId, DeltaBatch)>, Error> {
        if run.replay {
            return Ok(self
                .logged
                .remove(&run.epoch)
                .map(|record| record.changes)
                .unwrap_or_default());
        }
        let mut changes = Vec::new();
        for write in &run.writes {
            let staged = self.staged.remove(write).ok_or_else(|| {
                Error::Protocol(format!(
                    "epoch {} names write {} which is not staged",
                    run.epoch, write.0
                ))
            })?;
            changes.extend(staged.changes.into_iter().map(|(table, delta)| {
                (
                    table,
                    DeltaBatch {
                        epoch: run.epoch,
                        ..delta
                    },
                )
            }));
        }
        if changes.is_empty() {
            return Ok(changes);
        }
        let record = Arc::new(LogRecord {
            epoch: run.epoch,
            changes,
        });
        let appended = Arc::clone(&record);
        match self.log.run(move |log| log.append(&appended)).await {
            Ok(()) => Ok(Arc::try_unwrap(record)
                .map_or_else(|shared| shared.changes.clone(), |record| record.changes)),
            Err(error) => {
                let refusal = refusal(&error).ok_or(error)?;
                // Only once nothing of it can come back the writes have failed.
                retrying("cut back the local log", || self.log.run(LogStore::settle)).await?;
                // The coordinator may have gone.
                drop(
                    self.responses
                        .send(Response::WritesFailed {
                            epoch: run.epoch,
                            error: refusal,
                        })
                        .await,
                );
                Ok(Vec::new())
            }
        }
    }

    /// The change of a bound source's progress relation: one row, its position.
    fn advance_progress(
        &mut self,
        binding: &SourceBinding,
        epoch: Epoch,
        input: &mut EpochInput,
    ) -> Result<(), Error> {
        let Some(source) = self.sources.get_mut(&binding.source) else {
            return Ok(());
        };
        let Some(progress) = source.description.progress else {
            return Ok(());
        };
        let previous = source.progress.replace(binding.position.clone());
        if previous.as_ref() == Some(&binding.position) {
            return Ok(());
        }
        let Some(schema) = self.schemas.get(&progress) else {
            return Ok(());
        };
        let before = previous.map_or_else(Vec::new, |position| position_rows(&position));
        let after = position_rows(&binding.position);
        let mut deltas = Vec::with_capacity(2);
        for (rows, others, weight) in [(&before, &after, -1), (&after, &before, 1)] {
            // Of many partitions few have moved.
            let rows: Vec<_> = rows.iter().filter(|row| !others.contains(row)).collect();
            if !rows.is_empty() {
                let rows = progress_batch(schema, &rows)?;
                deltas.push(DeltaBatch::new(rows, Weights::Const(weight), epoch));
            }
        }
        let deltas = CollectionInput::Deltas(deltas);
        input.direct.push((progress, deltas));
        Ok(())
    }

    /// A restart begins at `epoch` from now on: the log is cut, and then upstreams may forget what came before.
    ///
    /// # Errors
    /// [`Error::Storage`] if trying again cannot help.
    pub(crate) async fn commit_point_durable(&mut self, epoch: Epoch) -> Result<(), Error> {
        // Upstream is told last: should anything go back to an earlier state before, the log knows.
        match self.log.run(move |log| log.truncate_through(epoch)).await {
            // The log stays longer than it must; the next commit point cuts it.
            Err(error) if error.retryable() => {
                tracing::warn!(%error, pause = ?RETRY_FIRST, "the local log could not be cut");
                return Ok(());
            }
            outcome => outcome?,
        }
        for source in self.sources.values_mut() {
            let mut newest = None;
            while let Some((bound, position)) = source.bound.front().cloned()
                && bound <= epoch
            {
                newest = Some((bound, position));
                source.bound.pop_front();
            }
            let Some((bound, position)) = newest else {
                continue;
            };
            match failpoint::reached(Kind::Acknowledgement, Step::Tell) {
                Ok(()) => source.handle.acknowledge(&position),
                // Upstream keeps more than it must; the next commit point tells it.
                Err(error) => {
                    tracing::warn!(%error, source = %source.description.id, "an upstream was not told of a commit point");
                    source.bound.push_front((bound, position));
                }
            }
        }
        Ok(())
    }

    /// Stops every source, and what reads of them.
    pub(crate) async fn stop(&mut self) {
        for (_, source) in std::mem::take(&mut self.sources) {
            drop(source.stream);
            source.handle.stop().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What the writers of an epoch hear whose record the local log refused; `None` if that is no reason to go on without them.
fn refusal(error: &flowstone_storage::Error) -> Option<RequestError> {
    match error {
        flowstone_storage::Error::TooLarge { .. } => Some(RequestError::Eval(EvalError::new(
            EvalErrorKind::TooLarge,
            error.to_string(),
        ))),
        _ if error.retryable() => Some(RequestError::Storage {
            message: with_causes(error),
            full: error.is_full(),
        }),
        _ => None,
    }
}

/// What a progress relation says of a position: how far each partition is, or the one number that everything else has (`lsn` or `offset`).
fn position_rows(position: &SourcePosition) -> Vec<(Option<i32>, u64)> {
    match position {
        SourcePosition::KafkaOffsets(offsets) => {
            let offset_of = |offset: &i64| u64::try_from(*offset).unwrap_or(0);
            let rows = offsets.iter();
            rows.map(|(partition, offset)| (Some(*partition), offset_of(offset)))
                .collect()
        }
        other => vec![(None, other.offset())],
    }
}

/// Rows of a progress relation: `(partition, offset)`, or one number.
fn progress_batch(schema: &SchemaRef, rows: &[&(Option<i32>, u64)]) -> Result<RecordBatch, Error> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(2);
    if rows.iter().any(|(partition, _)| partition.is_some()) {
        let partitions = rows.iter().map(|(partition, _)| *partition);
        columns.push(Arc::new(partitions.collect::<Int32Array>()));
    }
    let numbers = rows.iter().map(|(_, number)| *number);
    columns.push(Arc::new(UInt64Array::from_iter_values(numbers)));
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|error| Error::Protocol(format!("progress relation: {error}")))
}
