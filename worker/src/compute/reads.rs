//! Peeks and lookups: what reads collections at an epoch that may be observed.
//!
//! Owns the reads that wait for their epoch and those that run, and which epochs lanes are not to pass over for their sake ([`Asked`]). Must not know how an epoch
//! is run, nor what the compute is doing: of that it knows what [`Readable`] says. Called by the front, in its task; nothing here waits.
//!
//! Invariants. What can be read is looked up, and the shards are asked, while nobody changes [`Readable`]: what is compacted or dropped afterwards comes behind, in
//! the order of the shards' jobs. A read that has to wait is looked at again whenever the compute has said that more can be read, or less.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use arrow_array::RecordBatch;
use flowstone_dataflow::{Shard, Snapshot, owner_of};
use flowstone_functions::codec;
use flowstone_functions::tables::{CollectionTable, ScanTarget};
use flowstone_proto::local::ResultStreams;
use flowstone_proto::message::{Lookup, Peek, ReadAt, RequestError, RequestId, ResultMessage};
use flowstone_proto::plan::QueryPlan;
use flowstone_types::{Budget, Epoch, ObjectId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc};

use super::direct::{Readable, Readiness, found, lookup_error, no_error};
use super::lanes::{LaneId, Stops};
use super::shards::Jobs;
use crate::Error;
use crate::query::{QueryRunner, Tables, internal};

/// Rows per message of a lookup.
const ROWS_PER_MESSAGE: usize = 8192;

/// A read that waits for its epoch.
#[derive(Debug)]
pub(crate) enum Read {
    Peek(Peek),
    Lookup(Lookup),
}

impl Read {
    pub(crate) const fn request(&self) -> RequestId {
        match self {
            Self::Peek(peek) => peek.request,
            Self::Lookup(lookup) => lookup.request,
        }
    }

    const fn at(&self) -> ReadAt {
        match self {
            Self::Peek(peek) => peek.at,
            Self::Lookup(lookup) => lookup.at,
        }
    }

    /// The collections it reads, each once.
    fn reads(&self) -> Result<Vec<ObjectId>, RequestError> {
        let peek = match self {
            Self::Lookup(lookup) => return Ok(vec![lookup.index]),
            Self::Peek(peek) => peek,
        };
        let system: BTreeSet<ObjectId> = peek.system.iter().map(|relation| relation.id).collect();
        let mut reads = scans(&peek.query)?;
        reads.retain(|id| !system.contains(id));
        Ok(reads)
    }
}

/// A read, the collections that it reads, and who asked.
#[derive(Debug)]
struct WaitingRead {
    read: Read,
    reads: Vec<ObjectId>,
    results: mpsc::Sender<ResultMessage>,
    /// The epoch that it names, if this has yet to be run.
    _awaited: Option<Awaited>,
}

/// A task that works for a statement.
#[derive(Debug)]
pub(super) struct Running {
    task: tokio::task::AbortHandle,
    budget: Option<Arc<Budget>>,
}

impl Running {
    pub(super) fn new<T>(task: &tokio::task::JoinHandle<T>, budget: Option<Arc<Budget>>) -> Self {
        Self {
            task: task.abort_handle(),
            budget,
        }
    }

    fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends it: between two steps, and soon within one.
    pub(super) fn end(&self) {
        if let Some(budget) = &self.budget {
            budget.cancel();
        }
        self.task.abort();
    }
}

/// What the compute and the reads tell each other. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// More can be read than before, or less.
    changed: Notify,
    epochs: Mutex<Epochs>,
}

#[derive(Debug, Default)]
struct Epochs {
    /// The newest that was run, or is about to be.
    begun: Epoch,
    /// The newest that was run altogether.
    ran: Epoch,
    /// Those at which somebody waits to read, and how many do.
    awaited: BTreeMap<Epoch, usize>,
}

impl Asked {
    /// An epoch is about to be run. Returns those up to it that it is the first to come to, and at which somebody waits to read. Before, they would only take
    /// the place of others among the epochs that lanes do not pass over: who reads may ask for an epoch that is years away.
    pub(super) fn begin(&self, epoch: Epoch) -> Vec<Epoch> {
        let mut epochs = self.0.epochs.lock();
        if epoch <= epochs.begun {
            return Vec::new();
        }
        let between = (Bound::Excluded(epochs.begun), Bound::Included(epoch));
        let awaited = epochs.awaited.range(between);
        let awaited = awaited.map(|(epoch, _)| *epoch).collect();
        epochs.begun = epoch;
        awaited
    }

    /// An epoch was run altogether.
    pub(super) fn ran(&self, epoch: Epoch) {
        let mut epochs = self.0.epochs.lock();
        epochs.ran = epochs.ran.max(epoch);
    }

    /// More can be read than before, or less.
    pub(super) fn tell(&self) {
        self.0.changed.notify_one();
    }

    /// Somebody reads at an epoch. `None` if that was run, or is about to be: then lanes have to be told.
    fn wait_for(&self, epoch: Epoch) -> Option<Awaited> {
        let mut epochs = self.0.epochs.lock();
        if epoch <= epochs.begun {
            return None;
        }
        *epochs.awaited.entry(epoch).or_default() += 1;
        let asked = self.clone();
        Some(Awaited { asked, epoch })
    }
}

/// Somebody waits to read at an epoch.
#[derive(Debug)]
struct Awaited {
    asked: Asked,
    epoch: Epoch,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut epochs = self.asked.0.epochs.lock();
        if let Some(count) = epochs.awaited.get_mut(&self.epoch) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                epochs.awaited.remove(&self.epoch);
            }
        }
    }
}

/// What reads are made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) readable: Arc<RwLock<Readable>>,
    pub(super) base: Jobs,
    pub(super) stops: Stops,
    pub(super) asked: Asked,
    pub(super) results: ResultStreams,
    pub(super) runner: QueryRunner,
}

/// All peeks and lookups.
#[derive(Debug)]
pub(crate) struct Reads {
    parts: Parts,
    waiting: Vec<WaitingRead>,
    running: BTreeMap<RequestId, Running>,
}

impl Reads {
    pub(super) const fn new(parts: Parts) -> Self {
        Self {
            parts,
            waiting: Vec::new(),
            running: BTreeMap::new(),
        }
    }

    /// Waits until the compute has said that other things can be read: [`Reads::start_ready`].
    ///
    /// # Cancel safety
    /// What was said is heard the next time.
    pub(crate) async fn changed(&self) {
        self.parts.asked.0.changed.notified().await;
    }

    /// Takes a read in, and starts it if its epoch has come.
    pub(crate) fn read(&mut self, read: Read) {
        let Some(results) = self.parts.results.take(read.request()) else {
            return;
        };
        let reads = match read.reads() {
            Ok(reads) => reads,
            Err(error) => return fail(results, error),
        };
        let mut awaited = None;
        if let ReadAt::Exactly(epoch) = read.at() {
            awaited = self.parts.asked.wait_for(epoch);
            if awaited.is_none() {
                self.stop_at(&self.parts.readable.read(), epoch);
            }
        }
        let waiting = self.start_if_ready(WaitingRead {
            read,
            reads,
            results,
            _awaited: awaited,
        });
        self.waiting.extend(waiting);
    }

    /// An epoch may be observed, of which the compute hears in its turn: it may be running the next. One that was not run altogether has to wait for that.
    pub(crate) fn observe(&mut self, epoch: Epoch) {
        if epoch > self.parts.asked.0.epochs.lock().ran {
            return;
        }
        {
            let mut readable = self.parts.readable.write();
            readable.durable = readable.durable.max(epoch);
        }
        self.start_ready();
    }

    /// Starts every waiting read whose epoch has come.
    pub(crate) fn start_ready(&mut self) {
        self.running.retain(|_, task| !task.is_finished());
        for waiting in std::mem::take(&mut self.waiting) {
            if !waiting.results.is_closed() {
                let waiting = self.start_if_ready(waiting);
                self.waiting.extend(waiting);
            }
        }
    }

    /// Ends a read. Returns whether there was such a one.
    pub(crate) fn cancel(&mut self, request: RequestId) -> bool {
        if let Some(task) = self.running.remove(&request) {
            task.end();
            return true;
        }
        let mut waiting = self.waiting.iter();
        let Some(position) = waiting.position(|waiting| waiting.read.request() == request) else {
            return false;
        };
        let waiting = self.waiting.swap_remove(position);
        fail(waiting.results, RequestError::Cancelled);
        true
    }

    /// Ends a read that was not taken in.
    pub(crate) fn refuse(&self, read: &Read, error: RequestError) {
        if let Some(results) = self.parts.results.take(read.request()) {
            fail(results, error);
        }
    }

    /// No lane passes over an epoch any more, unless too many do.
    fn stop_at(&self, readable: &Readable, epoch: Epoch) {
        if !readable.lanes.is_empty() {
            self.parts.stops.add(epoch);
        }
    }

    /// Starts a read, or gives it back if it has to wait.
    fn start_if_ready(&mut self, waiting: WaitingRead) -> Option<WaitingRead> {
        let readable = Arc::clone(&self.parts.readable);
        let readable = readable.read();
        match readable.readiness(waiting.read.at(), &waiting.reads) {
            Readiness::Wait => {
                // Lanes that pass over different epochs would never meet.
                if readable.are_several(&waiting.reads) {
                    self.stop_at(&readable, readable.durable);
                }
                return Some(waiting);
            }
            Readiness::Never(error) => fail(waiting.results, error),
            Readiness::At(epoch) => {
                let (reads, results) = (waiting.reads, waiting.results);
                match waiting.read {
                    Read::Peek(peek) => self.start_peek(&readable, peek, &reads, epoch, results),
                    Read::Lookup(lookup) => self.start_lookup(&readable, lookup, epoch, results),
                }
            }
        }
        None
    }

    /// Hands a lookup to the shard that owns the key. With one shard its thread answers the client; with more, all are asked for evaluation errors.
    fn start_lookup(
        &mut self,
        readable: &Readable,
        lookup: Lookup,
        epoch: Epoch,
        results: mpsc::Sender<ResultMessage>,
    ) {
        let Some(shards) = readable.jobs_of(lookup.index, &self.parts.base) else {
            return fail(results, internal(Error::ShardGone));
        };
        let compute = self.parts.runner.compute().clone();
        let request = lookup.request;
        if shards.count() == 1 {
            let failed = results.clone();
            let results = Mutex::new(Some(results));
            let asked = shards.read_each(move |_, shard| {
                if let Some(results) = results.lock().take() {
                    answer(look_up(shard, &lookup, epoch), epoch, results, &compute);
                }
            });
            if let Err(error) = asked {
                fail(failed, internal(error));
            }
            return;
        }
        let owner = match owner_of(lookup.key.0.columns(), shards.count()) {
            Ok(owner) => owner,
            Err(error) => return fail(results, internal(error)),
        };
        let asked = shards.read_each(move |index, shard| {
            if index == owner {
                look_up(shard, &lookup, epoch).map(Some)
            } else {
                no_error(shard, lookup.index, epoch).map(|()| None)
            }
        });
        let answers = match asked {
            Ok(answers) => answers,
            Err(error) => return fail(results, internal(error)),
        };
        let task = self.parts.runner.compute().spawn(async move {
            let rows = match answers.all().await {
                Ok(answers) => answers
                    .into_iter()
                    .collect::<Result<Vec<_>, _>>()
                    .map(|parts| parts.into_iter().flatten().next()),
                Err(error) => Err(internal(error)),
            };
            let rows = rows.and_then(|rows| {
                rows.ok_or_else(|| internal(format!("lookup {request:?} has no owner")))
            });
            answer(rows, epoch, results, &compute);
        });
        self.running.insert(request, Running::new(&task, None));
    }

    fn start_peek(
        &mut self,
        readable: &Readable,
        peek: Peek,
        reads: &[ObjectId],
        epoch: Epoch,
        results: mpsc::Sender<ResultMessage>,
    ) {
        let freezing = freeze(readable, &self.parts.base, reads, epoch);
        let runner = self.parts.runner.clone();
        let budget = runner.budget();
        let running = Arc::clone(&budget);
        let request = peek.request;
        let task = self.parts.runner.compute().spawn(async move {
            let tables = freezing.await;
            match tables.and_then(|tables| tables.with_system(&peek.system)) {
                Ok(tables) => {
                    if results.send(ResultMessage::ReadEpoch(epoch)).await.is_ok() {
                        tokio::select! {
                            () = runner.stream(&peek.query, &tables, &results, &budget) => {}
                            () = results.closed() => {}
                        }
                    }
                }
                Err(error) => fail(results, error),
            }
        });
        self.running
            .insert(request, Running::new(&task, Some(running)));
    }
}

/// Snapshots of the collections among `ids` (others are relations of the system catalog) at `epoch`. The shards are asked now, in the order of what happens to
/// them; they may have something else to do before they answer. `base`: those of what is in no lane.
pub(super) fn freeze(
    readable: &Readable,
    base: &Jobs,
    ids: &[ObjectId],
    epoch: Epoch,
) -> impl Future<Output = Result<Tables, RequestError>> + Send + use<> {
    let mut by_place: BTreeMap<Option<LaneId>, Vec<ObjectId>> = BTreeMap::new();
    for id in ids.iter().filter(|id| readable.from.contains_key(id)) {
        let place = readable.places.get(id).copied();
        by_place.entry(place).or_default().push(*id);
    }
    let failure = readable.failure_among(ids);
    let mut asked = Vec::with_capacity(by_place.len());
    for (place, ids) in by_place {
        let jobs = match place {
            None => Some(base),
            Some(lane) => readable.lanes.get(&lane).map(|lane| &lane.jobs),
        };
        let wanted = ids.clone();
        let answers = jobs.ok_or(Error::ShardGone).and_then(|jobs| {
            jobs.read_each(move |_, shard| {
                wanted
                    .iter()
                    .map(|id| shard.snapshot(*id, epoch))
                    .collect::<Result<Vec<Snapshot>, _>>()
            })
        });
        asked.push((ids, answers));
    }
    async move {
        if let Some(error) = failure {
            return Err(error);
        }
        let mut tables = Tables::default();
        for (ids, answers) in asked {
            let answers = answers.map_err(internal)?.all().await.map_err(internal)?;
            let shards = answers
                .into_iter()
                .map(|shard| {
                    let snapshots = shard.map_err(lookup_error)?;
                    Ok(snapshots.into_iter().map(Arc::new).collect())
                })
                .collect::<Result<Vec<Vec<Arc<Snapshot>>>, RequestError>>()?;
            for (index, id) in ids.into_iter().enumerate() {
                let parts: Vec<_> = shards
                    .iter()
                    .filter_map(|shard| shard.get(index).cloned())
                    .collect();
                if let Some(schema) = parts.first().map(|part| Arc::clone(&part.schema)) {
                    tables.insert(id, schema, parts)?;
                }
            }
        }
        Ok(tables)
    }
}

fn look_up(shard: &Shard, lookup: &Lookup, epoch: Epoch) -> Result<RecordBatch, RequestError> {
    found(
        shard,
        lookup.index,
        lookup.key.0.columns(),
        &lookup.projection,
        (epoch, usize::MAX),
    )?
    .ok_or_else(|| internal("a lookup without a bound stopped at one"))
}

/// Sends the rows of a lookup: at once if they fit the channel, which is empty, else from a task.
fn answer(
    rows: Result<RecordBatch, RequestError>,
    epoch: Epoch,
    results: mpsc::Sender<ResultMessage>,
    compute: &tokio::runtime::Handle,
) {
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return fail(results, error),
    };
    let mut messages = vec![ResultMessage::ReadEpoch(epoch)];
    let mut from = 0;
    while from == 0 || from < rows.num_rows() {
        let length = ROWS_PER_MESSAGE.min(rows.num_rows() - from);
        messages.push(ResultMessage::Rows(rows.slice(from, length)));
        from += ROWS_PER_MESSAGE;
    }
    messages.push(ResultMessage::Done);
    if messages.len() <= results.capacity() {
        for message in messages {
            drop(results.try_send(message));
        }
        return;
    }
    // Ends with the client: nobody else waits for it.
    compute.spawn(async move {
        for message in messages {
            if results.send(message).await.is_err() {
                return;
            }
        }
    });
}

/// Ends a result stream in error without waiting for a slow client.
pub(super) fn fail(results: mpsc::Sender<ResultMessage>, error: RequestError) {
    drop(results.try_send(ResultMessage::Failed(error)));
}

/// The relations a query scans, each once.
pub(super) fn scans(query: &QueryPlan) -> Result<Vec<ObjectId>, RequestError> {
    let found = Mutex::new(Vec::new());
    codec::decode_plan(&query.bytes, &|target, schema| {
        if let ScanTarget::Collection(id) = target {
            let mut found = found.lock();
            if !found.contains(&id) {
                found.push(id);
            }
            return Ok(Arc::new(CollectionTable::new(id, schema)));
        }
        Err(datafusion::common::DataFusionError::Internal(format!(
            "scan of {target} outside of a recomputed operator"
        )))
    })
    .map_err(internal)?;
    Ok(found.into_inner())
}
