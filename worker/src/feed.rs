//! The feed: what changes collections from outside.
//!
//! Owns the sources, the writes that were evaluated and wait for their epoch, the local log, and what has failed for good. For an epoch it gives
//! [`EpochInput`]. Must not know shards or Delta tables, but for the snapshots that sources write there. Called by the router.
//!
//! What waits for a disk or an upstream is begun here, and [`Feed::hear`] says when it has ended: a source that is started, an epoch that is put together
//! ([`gathering`]), a cut of the log. One such work at a time: the router begins the next when it has heard of the end of the one before.
//!
//! Invariants. What an epoch's writes change is synced in the local log before its input is given, and that the record counts is synced before the epoch is said
//! to be acknowledged. Nothing is appended to the log, and it is not cut, between a record and the note that it counts. An upstream is told of a position once the
//! commit point above it is durable, and after the local log was cut. What is bound is given exactly and in order, but not always with its epoch: a source may be
//! held up, or have more than fits in memory or can be read from disk soon, which is read piece by piece in a task of its own. Nobody may see its collections then,
//! and no commit of what lacks it may begin, until all of it was given; what is bound to it meanwhile is given after it, and its progress relation changes when its
//! tables have. While an epoch is put together nothing is given late: what is bound to it would come into one before it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, RecordBatch, UInt64Array};
use arrow_schema::SchemaRef;
use flowstone_dataflow::CollectionInput;
use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_ingest::{SourceContext, SourceEvent, SourceHandle, TableChanges, TableData};
use flowstone_proto::message::{
    Failure, LogId, RequestId, Response, RunEpoch, SourceBinding, SourceDescription, SourceKind,
    SourceTable, Staged,
};
use flowstone_storage::{DeltaTables, LogRecord, LogState, LogStore, StagedSnapshot};
use flowstone_types::{
    Clock, DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId, SourceChanges, SourcePosition,
    Weights,
};
use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::error::with_causes;
use crate::log::SharedLog;
use crate::retry::{RETRY_FIRST, retrying};
use crate::write::{StagedWrite, drop_beside, refusal};

mod gathering;
mod source;
#[cfg(test)]
mod tests;

use gathering::Gathering;
use source::Source;

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

/// What the feed has done.
#[derive(Debug)]
pub(crate) enum Fed {
    /// A source was started. The errors of its rows, which its tables have from the beginning.
    Started(Vec<(ObjectId, Vec<(EvalError, i64)>)>),
    /// What an epoch changes is there; the part of its writes is in the local log.
    Input(Epoch, EpochInput),
    /// What was logged of an epoch counts.
    Acknowledged(Epoch),
    /// The local log was cut for a commit point, if the disk did not refuse it, and upstreams were told.
    Cut(Epoch),
    /// A source can give more of what it did not give with its epoch.
    More(ObjectId),
}

/// Whether who listens would take more of what a source did not give with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    Wanted,
    Unwanted,
}

/// What the feed has begun.
#[derive(Debug)]
enum Work {
    Start(JoinHandle<Result<(SourceDescription, SourceHandle), flowstone_ingest::Error>>),
    /// The writes of the epoch that is put together are on their way to the local log.
    Log(JoinHandle<Result<Vec<(ObjectId, DeltaBatch)>, flowstone_storage::Error>>),
    /// What is noted in the local log of an epoch, if it has writes, is on its way to the disk.
    Acknowledge(
        Epoch,
        Option<JoinHandle<Result<(), flowstone_storage::Error>>>,
    ),
    Cut(Epoch, JoinHandle<Result<(), flowstone_storage::Error>>),
}

impl Work {
    /// Gives it up, as far as that is possible.
    fn abort(&self) {
        match self {
            Self::Start(task) => task.abort(),
            Self::Log(task) => task.abort(),
            Self::Acknowledge(_, Some(task)) | Self::Cut(_, task) => task.abort(),
            Self::Acknowledge(_, None) => {}
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
    /// What has yet to end.
    work: Option<Work>,
    /// The epoch that is put together.
    gathering: Option<Gathering>,
    sources: BTreeMap<ObjectId, Source>,
    /// The one that gave late what it had, the last time.
    served: Option<ObjectId>,
    /// The collections that exist, with their columns.
    schemas: BTreeMap<ObjectId, SchemaRef>,
    staged: BTreeMap<RequestId, StagedWrite>,
    /// Sources and source tables that have failed for good, as far as their collections say so.
    failed: BTreeSet<ObjectId>,
    /// What reads streams, and what has yet to end.
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
            work: None,
            gathering: None,
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

    /// Whether something was begun that has yet to end ([`Feed::hear`]): nothing else may be begun, and no object added or dropped.
    pub(crate) const fn is_at_work(&self) -> bool {
        self.work.is_some() || self.gathering.is_some()
    }

    /// Waits until what was begun has ended, or has come to something; while nothing was, and that is wanted, until a source can give more of what it did not give
    /// with its epoch. Never ends if there is nothing to wait for.
    ///
    /// # Errors
    /// [`Error::Protocol`] if an epoch names a write that is not staged; [`Error::Storage`], [`Error::Source`] if something broke.
    ///
    /// # Cancel safety
    /// Nothing is lost, and nothing is said twice.
    pub(crate) async fn hear(&mut self, late: Late) -> Result<Fed, Error> {
        loop {
            if let Some(work) = &mut self.work {
                match work {
                    Work::Start(task) => {
                        let started = task.await;
                        self.work = None;
                        let (description, handle) = ended(started)?;
                        return Ok(self.started(description, handle));
                    }
                    Work::Log(task) => {
                        let written = task.await;
                        self.work = None;
                        let written = ended(written)?;
                        if let Some(gathering) = &mut self.gathering {
                            gathering.written = Some(written);
                        }
                    }
                    Work::Acknowledge(epoch, task) => {
                        let epoch = *epoch;
                        let noted = match task {
                            Some(task) => ended(task.await),
                            None => Ok(()),
                        };
                        self.work = None;
                        noted?;
                        return Ok(Fed::Acknowledged(epoch));
                    }
                    Work::Cut(epoch, task) => {
                        let epoch = *epoch;
                        let cut = task.await;
                        self.work = None;
                        self.tell_upstreams(epoch, cut)?;
                        return Ok(Fed::Cut(epoch));
                    }
                }
            } else if let Some(gathering) = &mut self.gathering {
                gathering.ask(&mut self.sources, &self.tasks).await?;
                if let Some(input) = self.log_or_give()? {
                    return Ok(input);
                }
            } else if late == Late::Wanted {
                return Ok(Fed::More(self.more().await));
            } else {
                return std::future::pending().await;
            }
        }
    }

    /// Begins to start a source: [`Fed::Started`].
    pub(crate) fn create_source(&mut self, description: SourceDescription) {
        let (tables, clock, events) = (
            self.delta.clone(),
            Arc::clone(&self.clock),
            self.events.clone(),
        );
        let (state_dir, schemas) = (self.state_dir.clone(), self.schemas_of(&description.tables));
        let task = self.tasks.spawn(async move {
            loop {
                let context = SourceContext {
                    tables: tables.clone(),
                    clock: Arc::clone(&clock),
                    state_dir: state_dir.clone(),
                    schemas: schemas.clone(),
                    events: events.clone(),
                };
                match flowstone_ingest::start(description.clone(), context).await {
                    Err(error) if error.retryable() => {
                        tracing::warn!(
                            error = with_causes(&error),
                            "a source could not be started; trying again"
                        );
                        tokio::time::sleep(RETRY_FIRST).await;
                    }
                    started => return started.map(|handle| (description, handle)),
                }
            }
        });
        self.work = Some(Work::Start(task));
    }

    fn started(&mut self, description: SourceDescription, handle: SourceHandle) -> Fed {
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
        Fed::Started(row_errors)
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

    /// Waits until a source can give more of what it did not give with its epoch, and says which. Never ends while there is none, or something was begun.
    ///
    /// # Cancel safety
    /// Nothing is taken, and nothing is lost.
    pub(crate) async fn more(&mut self) -> ObjectId {
        if self.is_at_work() {
            return std::future::pending().await;
        }
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
    /// [`Error::Source`] if something broke.
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

    /// Begins to put together what an epoch changes: [`Fed::Input`], then [`Fed::Acknowledged`].
    pub(crate) fn begin_epoch(&mut self, run: RunEpoch) {
        self.gathering = Some(Gathering::new(run));
    }

    /// All sources were asked. The writes are logged, or, if that was done or there are none, the input is given.
    fn log_or_give(&mut self) -> Result<Option<Fed>, Error> {
        let Some(mut gathering) = self.gathering.take() else {
            return Ok(None);
        };
        let written = match gathering.written.take() {
            Some(written) => written,
            None => {
                let record = self.record_of(&gathering.run)?;
                if !gathering.run.replay && !record.changes.is_empty() {
                    let logging = log_writes(self.log.clone(), self.responses.clone(), record);
                    self.work = Some(Work::Log(self.tasks.spawn(logging)));
                    self.gathering = Some(gathering);
                    return Ok(None);
                }
                record.changes
            }
        };
        self.give(gathering, written).map(Some)
    }

    /// What an epoch changes. From now on that its record counts is written down, while the shards work; nobody hears of the epoch before.
    fn give(
        &mut self,
        gathering: Gathering,
        written: Vec<(ObjectId, DeltaBatch)>,
    ) -> Result<Fed, Error> {
        let Gathering {
            run,
            mut input,
            taken,
            ..
        } = gathering;
        let noting = (!written.is_empty()).then(|| self.tasks.spawn(acknowledge(self.log.clone())));
        self.work = Some(Work::Acknowledge(run.epoch, noting));
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
        Ok(Fed::Input(run.epoch, input))
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

    /// What the writes of an epoch change.
    fn record_of(&mut self, run: &RunEpoch) -> Result<LogRecord, Error> {
        let epoch = run.epoch;
        let mut record = LogRecord {
            epoch,
            changes: Vec::new(),
            blobs: Vec::new(),
        };
        if run.replay {
            return Ok(self.logged.remove(&epoch).unwrap_or(record));
        }
        for write in &run.writes {
            let mut staged = self.staged.remove(write).ok_or_else(|| {
                Error::Protocol(format!(
                    "epoch {epoch} names write {} which is not staged",
                    write.0
                ))
            })?;
            let before = record.changes.len();
            let blobs = std::mem::take(&mut staged.blobs).into_iter();
            record.blobs.extend(blobs.map(|blob| blob.behind(before)));
            let changes = std::mem::take(&mut staged.changes).into_iter();
            record
                .changes
                .extend(changes.map(|(table, delta)| (table, DeltaBatch { epoch, ..delta })));
        }
        Ok(record)
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

    /// A restart begins at `epoch` from now on: begins to cut the log, after which upstreams may forget what came before: [`Fed::Cut`].
    pub(crate) fn commit_point_durable(&mut self, epoch: Epoch) {
        let cut = self.log.start(move |log| log.truncate_through(epoch));
        self.work = Some(Work::Cut(epoch, cut));
    }

    /// Upstreams may forget what came before `epoch`, if the log was cut.
    fn tell_upstreams(
        &mut self,
        epoch: Epoch,
        cut: Result<Result<(), flowstone_storage::Error>, JoinError>,
    ) -> Result<(), Error> {
        // Upstream is told last: should anything go back to an earlier state before, the log knows.
        match cut {
            // The log stays longer than it must; the next commit point cuts it.
            Ok(Err(error)) if error.retryable() => {
                tracing::warn!(%error, pause = ?RETRY_FIRST, "the local log could not be cut");
                return Ok(());
            }
            cut => ended(cut)?,
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

    /// Stops every source, and what reads of them. What was begun is given up, if there is something.
    pub(crate) async fn stop(&mut self) {
        if let Some(work) = self.work.take() {
            work.abort();
        }
        self.gathering = None;
        for (_, source) in std::mem::take(&mut self.sources) {
            drop(source.stream);
            source.handle.stop().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What a task has come to.
fn ended<T, E: Into<Error>>(task: Result<Result<T, E>, JoinError>) -> Result<T, Error> {
    match task {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(error) => Err(flowstone_storage::Error::Invariant(error.to_string()).into()),
    }
}

/// Writes what an epoch's writes change to the local log, and gives it back once it is on disk. Writes that the disk refuses, or that are too large together, have
/// failed, and the epoch goes on without.
async fn log_writes(
    log: SharedLog,
    responses: mpsc::Sender<Response>,
    record: LogRecord,
) -> Result<Vec<(ObjectId, DeltaBatch)>, flowstone_storage::Error> {
    let epoch = record.epoch;
    let record = Arc::new(record);
    let appended = Arc::clone(&record);
    match log.run(move |log| log.append(&appended)).await {
        Ok(()) => Ok(Arc::try_unwrap(record)
            .map_or_else(|shared| shared.changes.clone(), |record| record.changes)),
        Err(error) => {
            let Some(refusal) = refusal(&error) else {
                return Err(error);
            };
            // Only once nothing of it can come back the writes have failed.
            retrying("cut back the local log", || log.run(LogStore::settle)).await?;
            if let Ok(record) = Arc::try_unwrap(record) {
                drop_beside(record.blobs);
            }
            let failed = Response::WritesFailed {
                epoch,
                error: refusal,
            };
            // The coordinator may have gone.
            drop(responses.send(failed).await);
            Ok(Vec::new())
        }
    }
}

/// Notes that the newest record of the local log counts.
async fn acknowledge(log: SharedLog) -> Result<(), flowstone_storage::Error> {
    retrying("note what the local log holds", || {
        log.run(LogStore::acknowledge)
    })
    .await
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
