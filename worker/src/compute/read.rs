//! Peeks, subscriptions and the evaluation of writes: everything that reads collections at one epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::RecordBatch;
use flowstone_dataflow::{Shard, Snapshot, owner_of};
use flowstone_functions::codec;
use flowstone_functions::tables::{CollectionTable, ScanTarget};
use flowstone_proto::message::{
    Lookup, Peek, ReadAt, RequestError, RequestId, Response, ResultMessage, StageWrite, Subscribe,
    WriteOperation,
};
use flowstone_proto::plan::QueryPlan;
use flowstone_types::{Budget, Epoch, ObjectId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::direct::{Readiness, found, lookup_error, no_error};
use super::held::Waiting;
use super::lanes::{Object, Place};
use super::shards::ShardPool;
use super::subscription::Starting;
use super::{Compute, EpochOutput, Event};
use crate::Error;
use crate::query::{Tables, evaluation_failed, guarded, internal};
use crate::write::{StagedWrite, stage};

/// Rows per message of a lookup.
const ROWS_PER_MESSAGE: usize = 8192;

/// A read that waits for its epoch.
#[derive(Debug)]
pub(crate) enum Read {
    Peek(Peek),
    Lookup(Lookup),
}

impl Read {
    const fn request(&self) -> RequestId {
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
        let mut reads = reads(&peek.query)?;
        reads.retain(|id| !system.contains(id));
        Ok(reads)
    }
}

/// A read, the collections that it reads, and who asked.
#[derive(Debug)]
pub(super) struct WaitingRead {
    read: Read,
    reads: Vec<ObjectId>,
    results: mpsc::Sender<ResultMessage>,
}

/// A task that works for a statement.
#[derive(Debug)]
pub(super) struct Running {
    task: tokio::task::AbortHandle,
    budget: Option<Arc<Budget>>,
}

impl Running {
    fn new<T>(task: &tokio::task::JoinHandle<T>, budget: Option<Arc<Budget>>) -> Self {
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

impl Compute {
    /// Takes a read in, and starts it if its epoch has come.
    pub(crate) async fn read(&mut self, read: Read) -> Result<(), Error> {
        if let ReadAt::Exactly(epoch) = read.at()
            && epoch <= self.last_run
        {
            self.lanes.stop_at(epoch);
        }
        let Some(results) = self.results.take(read.request()) else {
            return Ok(());
        };
        match read.reads() {
            Ok(reads) => {
                let waiting = self.start_if_ready(WaitingRead {
                    read,
                    reads,
                    results,
                })?;
                self.waiting_reads.extend(waiting);
            }
            Err(error) => fail(results, error),
        }
        Ok(())
    }

    /// An epoch is about to be run: no lane passes over those up to it at which somebody waits to read. Before, they would only take the place of others: who
    /// reads may ask for an epoch that is years away.
    pub(super) fn stop_for_reads(&self, epoch: Epoch) {
        for waiting in &self.waiting_reads {
            if let ReadAt::Exactly(at) = waiting.read.at()
                && self.last_run < at
                && at <= epoch
            {
                self.lanes.stop_at(at);
            }
        }
    }

    /// Starts every waiting read whose epoch has come.
    pub(super) async fn start_ready_reads(&mut self) -> Result<(), Error> {
        self.running_peeks.retain(|_, task| !task.is_finished());
        let mut left = Vec::new();
        for waiting in std::mem::take(&mut self.waiting_reads) {
            if !waiting.results.is_closed() {
                left.extend(self.start_if_ready(waiting)?);
            }
        }
        self.waiting_reads = left;
        Ok(())
    }

    /// Starts a read, or gives it back if it has to wait.
    fn start_if_ready(&mut self, waiting: WaitingRead) -> Result<Option<WaitingRead>, Error> {
        let (readiness, durable) = {
            let readable = self.readable.read();
            let readiness = readable.readiness(waiting.read.at(), &waiting.reads);
            (readiness, readable.durable)
        };
        let WaitingRead {
            read,
            reads,
            results,
        } = waiting;
        match (readiness, read) {
            (Readiness::Wait, read) => {
                // Lanes that pass over different epochs would never meet.
                if self.lanes.are_several(&reads) {
                    self.lanes.stop_at(durable);
                }
                return Ok(Some(WaitingRead {
                    read,
                    reads,
                    results,
                }));
            }
            (Readiness::Never(error), _) => fail(results, error),
            (Readiness::At(epoch), Read::Peek(peek)) => {
                self.start_peek(peek, &reads, epoch, results);
            }
            (Readiness::At(epoch), Read::Lookup(lookup)) => {
                self.start_lookup(lookup, epoch, results)?;
            }
        }
        Ok(None)
    }

    /// Hands a lookup to the shard that owns the key. With one shard its thread answers the client; with more, all are asked for evaluation errors.
    fn start_lookup(
        &mut self,
        lookup: Lookup,
        epoch: Epoch,
        results: mpsc::Sender<ResultMessage>,
    ) -> Result<(), Error> {
        let shards = self.pool_of(self.lanes.place_of(lookup.index))?;
        let owner = owner_of(lookup.key.0.columns(), shards.count())?;
        let compute = self.runner.compute().clone();
        if shards.count() == 1 {
            let results = Mutex::new(Some(results));
            drop(shards.ask_each(move |_, shard| {
                if let Some(results) = results.lock().take() {
                    answer(look_up(shard, &lookup, epoch), epoch, results, &compute);
                }
            })?);
            return Ok(());
        }
        let request = lookup.request;
        let answers = shards.ask_each(move |index, shard| {
            if index == owner {
                look_up(shard, &lookup, epoch).map(Some)
            } else {
                no_error(shard, lookup.index, epoch).map(|()| None)
            }
        })?;
        let task = self.runner.compute().spawn(async move {
            let rows = match answers.await {
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
        self.running_peeks
            .insert(request, Running::new(&task, None));
        Ok(())
    }

    fn start_peek(
        &mut self,
        peek: Peek,
        reads: &[ObjectId],
        epoch: Epoch,
        results: mpsc::Sender<ResultMessage>,
    ) {
        let freezing = self.freeze(reads, epoch);
        let runner = self.runner.clone();
        let budget = runner.budget();
        let running = Arc::clone(&budget);
        let task = self.runner.compute().spawn(async move {
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
        self.running_peeks
            .insert(peek.request, Running::new(&task, Some(running)));
    }

    /// Snapshots of the collections among `ids` (others are relations of the system catalog) at `epoch`. The shards are asked now, in the order of what happens
    /// to them; those of a lane may have something else to do before they answer.
    fn freeze(
        &self,
        ids: &[ObjectId],
        epoch: Epoch,
    ) -> impl Future<Output = Result<Tables, RequestError>> + Send + 'static {
        let mut by_place: BTreeMap<Place, Vec<ObjectId>> = BTreeMap::new();
        let failure = {
            let readable = self.readable.read();
            for id in ids.iter().filter(|id| readable.from.contains_key(id)) {
                by_place
                    .entry(self.lanes.place_of(*id))
                    .or_default()
                    .push(*id);
            }
            readable.failure_among(ids)
        };
        let asked: Vec<_> = by_place
            .into_iter()
            .map(|(place, ids)| {
                let asked = ids.clone();
                let answers = self.pool_of(place).and_then(|pool| {
                    pool.ask_each(move |_, shard| {
                        asked
                            .iter()
                            .map(|id| shard.snapshot(*id, epoch))
                            .collect::<Result<Vec<Snapshot>, _>>()
                    })
                });
                (ids, answers)
            })
            .collect();
        async move {
            if let Some(error) = failure {
                return Err(error);
            }
            let mut tables = Tables::default();
            for (ids, answers) in asked {
                let answers = answers.map_err(internal)?.await.map_err(internal)?;
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

    /// The shard threads that have what is in a place.
    fn pool_of(&self, place: Place) -> Result<&ShardPool, Error> {
        match place {
            Place::Base => Ok(&self.shards),
            Place::Lane(lane) => {
                let lane = self.lanes.get(lane).ok_or(Error::ShardGone)?;
                Ok(lane.pool())
            }
        }
    }

    /// Evaluates a write in a task of its own; its end comes back as an event.
    pub(crate) async fn stage_write(&mut self, write: StageWrite) -> Result<(), Error> {
        self.evaluate(write, self.last_run).await
    }

    /// Evaluates a write at the newest epoch that what it reads has come to, which is not before `earliest`; or has it wait until that is so.
    pub(super) async fn evaluate(
        &mut self,
        write: StageWrite,
        earliest: Epoch,
    ) -> Result<(), Error> {
        let mut ids = Vec::new();
        let mut unreadable = None;
        for operation in &write.operations {
            match operation {
                WriteOperation::InsertRows { .. } => {}
                WriteOperation::Insert { query, .. }
                | WriteOperation::Delete { query, .. }
                | WriteOperation::Update { query, .. } => match reads(query) {
                    Ok(reads) => ids.extend(reads),
                    Err(error) => unreadable = Some(error),
                },
            }
        }
        ids.sort_unstable();
        ids.dedup();
        if ids.iter().any(|id| self.lanes.is_parked(*id)) {
            let (write, result) = (write.write, Err(RequestError::Paused));
            self.respond(Response::WriteStaged { write, result }).await;
            return Ok(());
        }
        let at = self.readable.read().at(self.last_run, &ids);
        if self.lacks_something(&ids) || at < earliest {
            self.waiting_for_held.push(Waiting::Write(write, earliest));
            return Ok(());
        }
        let freezing = self.freeze(&ids, at);
        let (infos, runner, events) = (
            Arc::clone(&self.infos),
            self.runner.clone(),
            self.events.clone(),
        );
        let request = write.write;
        let budget = runner.budget();
        let running = Arc::clone(&budget);
        let task = self.runner.compute().spawn(async move {
            let tables = match unreadable {
                Some(error) => Err(error),
                None => freezing.await,
            };
            let result: Result<StagedWrite, RequestError> = match tables {
                Ok(tables) => guarded(stage(&write, &tables, &infos, &runner, &budget)).await,
                Err(error) => Err(error),
            };
            drop(
                events
                    .send(Event::Staged {
                        write: request,
                        result,
                    })
                    .await,
            );
        });
        self.staging
            .insert(request, Running::new(&task, Some(running)));
        Ok(())
    }

    /// Whether a write that was evaluated is still wanted; it is not asked for again.
    pub(crate) fn end_staging(&mut self, write: RequestId) -> bool {
        self.staging.remove(&write).is_some()
    }

    /// Nobody wants a write any more.
    pub(crate) fn discard_write(&mut self, write: RequestId) {
        self.forget_waiting(write);
        if let Some(task) = self.staging.remove(&write) {
            task.end();
        }
    }

    pub(crate) async fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), Error> {
        let reads = subscribe.plan.collections();
        if self.lacks_something(&reads) {
            self.waiting_for_held.push(Waiting::Subscribe(subscribe));
            return Ok(());
        }
        let Some(results) = self.results.take(subscribe.request) else {
            return Ok(());
        };
        if let Some(as_of) = subscribe.as_of
            && as_of < self.last_run
        {
            fail(
                results,
                RequestError::SinceAdvanced {
                    asked: as_of,
                    since: self.last_run,
                },
            );
            return Ok(());
        }
        let id = ObjectId::Transient(subscribe.request.0);
        let unreadable = {
            let readable = self.readable.read();
            readable.failure_among(&reads).or_else(|| {
                let gone = reads.iter().any(|id| !readable.from.contains_key(id));
                let gone = gone || !self.lanes.has_cluster(subscribe.cluster);
                gone.then_some(RequestError::Dropped)
            })
        };
        if let Some(error) = unreadable {
            fail(results, error);
            return Ok(());
        }
        let (cluster, plan) = (subscribe.cluster, &subscribe.plan);
        let place = match self.lanes.choose(cluster, plan, &reads, self.last_run) {
            Ok(place) => place,
            Err(error) => {
                fail(results, internal(error));
                return Ok(());
            }
        };
        let starting = Starting {
            results,
            reads,
            up_to: subscribe.up_to,
            snapshot: subscribe.snapshot,
            asked: self.last_run,
        };
        let plan = subscribe.plan;
        if let Place::Lane(lane) = place {
            self.starting.insert(subscribe.request, starting);
            let object = Object::Subscription(plan);
            self.lanes.create(lane, id, object, self.last_run);
            return self.go_on().await;
        }
        let created = self
            .shards
            .on_each(move |_, shard| shard.create_subscription(id, &plan))
            .await?;
        if let Some(error) = created.into_iter().find_map(Result::err) {
            fail(starting.results, evaluation_failed(error.into()));
            self.shards
                .on_each(move |_, shard| shard.drop_object(id))
                .await?;
            return Ok(());
        }
        if self.are_large(&starting.reads).await? {
            self.starting.insert(subscribe.request, starting);
            return self.fork(id).await;
        }
        let mut outputs = self.shards.hydrate(vec![id], self.last_run).await?;
        self.subscriptions
            .insert(subscribe.request, starting.start(self.last_run));
        if !subscribe.snapshot {
            outputs.iter_mut().for_each(|output| output.outputs.clear());
        }
        // Nothing of it is stored.
        self.absorb(Place::Base, outputs, None, &mut EpochOutput::default())
            .await?;
        self.show().await
    }

    pub(super) async fn end_subscription(&mut self, request: RequestId) -> Result<(), Error> {
        let subscription = self.subscriptions.remove(&request);
        if self.starting.remove(&request).is_some() || subscription.is_some() {
            let id = ObjectId::Transient(request.0);
            if self.lanes.place_of(id) != Place::Base {
                self.lanes.drop_objects(&[id]);
                return Ok(());
            }
            self.sides.remove(id);
            self.shards
                .on_each(move |_, shard| shard.drop_object(id))
                .await?;
        }
        Ok(())
    }

    /// Ends the subscriptions that read what is about to go, and tells their clients why.
    pub(super) async fn end_subscriptions_to(&mut self, objects: &[ObjectId]) -> Result<(), Error> {
        let objects: BTreeSet<ObjectId> = objects.iter().copied().collect();
        let readers: Vec<RequestId> = self
            .subscriptions
            .iter()
            .filter(|(_, subscription)| subscription.reads_any(&objects))
            .map(|(request, _)| *request)
            .chain(self.starting.iter().filter_map(|(request, starting)| {
                let reads = starting.reads.iter().any(|id| objects.contains(id));
                reads.then_some(*request)
            }))
            .collect();
        for request in readers {
            self.end_subscription_with(request, RequestError::Dropped)
                .await?;
        }
        Ok(())
    }

    /// Cuts off the subscribers with the most waiting until all together are within their memory.
    pub(super) async fn bound_waiting_bytes(&mut self) -> Result<(), Error> {
        let waiting = self
            .subscriptions
            .iter()
            .map(|(request, subscription)| (subscription.waiting_bytes(), *request));
        let mut total: usize = waiting.clone().map(|(bytes, _)| bytes).sum();
        if total <= self.subscriber_memory_bytes {
            return Ok(());
        }
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        while total > self.subscriber_memory_bytes
            && let Some((bytes, request)) = waiting.pop()
        {
            if let Some(subscription) = self.subscriptions.get_mut(&request) {
                subscription.cut_off();
            }
            self.end_subscription(request).await?;
            total = total.saturating_sub(bytes);
        }
        Ok(())
    }

    pub(crate) async fn cancel(&mut self, request: RequestId) -> Result<(), Error> {
        if self.forget_waiting(request)
            && let Some(results) = self.results.take(request)
        {
            fail(results, RequestError::Cancelled);
        }
        if let Some(starting) = self.starting.get(&request) {
            fail(starting.results.clone(), RequestError::Cancelled);
        }
        if let Some(task) = self.running_peeks.remove(&request) {
            task.end();
        }
        if let Some(position) = self
            .waiting_reads
            .iter()
            .position(|waiting| waiting.read.request() == request)
        {
            let waiting = self.waiting_reads.swap_remove(position);
            fail(waiting.results, RequestError::Cancelled);
        }
        self.end_subscription(request).await
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
fn fail(results: mpsc::Sender<ResultMessage>, error: RequestError) {
    drop(results.try_send(ResultMessage::Failed(error)));
}

/// The relations a query scans, each once.
fn reads(query: &QueryPlan) -> Result<Vec<ObjectId>, RequestError> {
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
