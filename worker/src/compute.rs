//! The compute: collections and dataflows in memory, and everything that reads them.
//!
//! Owns the shard threads ([`shards`]) of the base and of the [`lanes`] beside it, what exists on them and may be read at which epoch ([`direct`]), the evaluation of
//! writes ([`requests`]) and subscriptions ([`subscription`]). Peeks and lookups are a part of it with a task of its own ([`reads`]). Of an epoch it is given [`EpochInput`] and gives [`EpochOutput`]. Must not know where changes come from or how they are
//! stored, but for reading what is stored. Called by the router.
//!
//! Invariants. An epoch takes one or more ticks of the shards; nobody sees the state between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowstone_dataflow::{CollectionInput, TickOutput, partition_columns};
use flowstone_proto::local::ResultStreams;
use flowstone_proto::message::{
    CollectionDescription, CollectionKind, CollectionStatistics, DataflowDescription, Export,
    RequestId, Response,
};
use flowstone_storage::{DeltaTables, LogBlobs, StagedSnapshot};
use flowstone_types::{DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::event::Event;
use crate::feed::EpochInput;
use crate::query::QueryRunner;
use crate::write::TableInfo;

mod beside;
mod bulk;
pub(crate) mod direct;
mod failures;
mod held;
mod key_changes;
pub(crate) mod lanes;
mod partition;
mod reads;
mod requests;
pub(crate) mod shards;
mod sides;
mod statistics;
mod subscription;
mod ticks;

pub(crate) use beside::Heard;
use bulk::Bulk;
use direct::Readable;
use failures::failures_of;
use lanes::{Jump, Lanes, Object, Place, before, load_errors, load_stored};
use reads::{Asked, Running};
pub(crate) use reads::{Read, Reads};
use shards::{ShardMaker, ShardPool};
use sides::Sides;
use statistics::Counting;
use subscription::{Liveness, Starting, Subscription};
use ticks::{TICK_BYTES, in_ticks};

/// Rows that one shard may rewrite for compaction between two epochs: about a millisecond of work.
const MAINTENANCE_FUEL: usize = 4096;

/// Changes of the errors in a collection at an epoch, by multiplicity.
pub(crate) type ErrorChanges = (ObjectId, Epoch, Vec<(EvalError, i64)>);

/// Changes that may wait for a lane or a fork, in bytes; beyond, an epoch that was run is not complete before some of it was done.
pub(crate) const BACKLOG_BYTES: usize = 1 << 30;

/// What holds changes that wait for a commit.
const UNCOMMITTED: &str = "commit buffer";

/// What an epoch, or the first run of a dataflow, has changed in collections that are stored.
#[derive(Debug, Default)]
pub(crate) struct EpochOutput {
    /// Changes by collection, which may occur more than once.
    pub(crate) deltas: Vec<(ObjectId, Vec<DeltaBatch>)>,
    /// Snapshots whose rows are on disk already, and their epoch.
    pub(crate) snapshots: Vec<(ObjectId, Epoch, StagedSnapshot)>,
    /// Changes of errors.
    pub(crate) errors: Vec<ErrorChanges>,
}

impl EpochOutput {
    /// Whether nothing has changed.
    pub(crate) const fn is_empty(&self) -> bool {
        self.deltas.is_empty() && self.snapshots.is_empty() && self.errors.is_empty()
    }

    fn append(&mut self, mut other: Self) {
        self.deltas.append(&mut other.deltas);
        self.snapshots.append(&mut other.snapshots);
        self.errors.append(&mut other.errors);
    }
}

/// The state of the compute.
#[derive(Debug)]
pub(crate) struct Compute {
    responses: mpsc::Sender<Response>,
    results: ResultStreams,
    /// Where writes say that they were evaluated.
    events: mpsc::Sender<Event>,
    /// The base.
    shards: ShardPool,
    lanes: Lanes,
    /// Dataflows of the base that are not back yet.
    sides: Sides,
    /// Whether indexes of the base are being built.
    building: bool,
    /// What ends by itself, or with what was set aside.
    tasks: TaskTracker,
    /// What reads a dataflow that is not back yet, in order.
    waiting_dataflows: Vec<DataflowDescription>,
    runner: QueryRunner,
    /// To load what is stored.
    delta: DeltaTables,
    /// For large writes.
    blobs: LogBlobs,
    collections: BTreeMap<ObjectId, CollectionDescription>,
    infos: Arc<BTreeMap<ObjectId, TableInfo>>,
    staging: BTreeMap<RequestId, Running>,
    subscriptions: BTreeMap<RequestId, Subscription>,
    /// Subscriptions that are made in lanes.
    starting: BTreeMap<RequestId, Starting>,
    /// Who reads at which epoch.
    asked: Asked,
    /// What can be read, and up to which epoch.
    readable: Arc<RwLock<Readable>>,
    /// What is being counted.
    counting: Option<Counting>,
    /// Counters as last sent, by collection.
    sent_statistics: BTreeMap<ObjectId, CollectionStatistics>,
    /// Bytes that wait for a commit, by collection, as of the last count.
    uncommitted: BTreeMap<ObjectId, u64>,
    /// What dataflows read.
    inputs: BTreeMap<ObjectId, Vec<ObjectId>>,
    /// Collections that lack what their source could not give, and from which epoch on.
    held: BTreeMap<ObjectId, Epoch>,
    /// Views that were stored before and are being made.
    unmade: BTreeSet<ObjectId>,
    /// The newest epoch at which one of these was made: a commit of an earlier one would have what it was before.
    made_at: Epoch,
    /// The commit point at the beginning.
    begun: Epoch,
    /// Tables that get their first content, and since when.
    filling: BTreeMap<ObjectId, Epoch>,
    /// What lacks something, and the first epoch at which it did.
    lacking: BTreeMap<ObjectId, Epoch>,
    /// Changes that were too many to enter at once.
    bulk: Bulk,
    /// What reads something that is held up and cannot begin before.
    waiting_for_held: Vec<held::Waiting>,
    /// Changes that may wait for all subscribers together, in bytes.
    subscriber_memory_bytes: usize,
    /// The newest epoch that was run.
    last_run: Epoch,
    /// The newest epoch of which the router has said that it may be observed.
    durable: Epoch,
    /// Rows that have entered since the base was last compacted.
    entered: usize,
}

/// What a compute is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) responses: mpsc::Sender<Response>,
    pub(crate) results: ResultStreams,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) shards: ShardPool,
    /// For shards of lanes.
    pub(crate) maker: ShardMaker,
    pub(crate) runner: QueryRunner,
    pub(crate) delta: DeltaTables,
    pub(crate) blobs: LogBlobs,
    pub(crate) readable: Arc<RwLock<Readable>>,
    pub(crate) subscriber_memory_bytes: usize,
    /// Usually [`BACKLOG_BYTES`].
    pub(crate) backlog_bytes_max: usize,
}

impl Compute {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            responses: parts.responses,
            results: parts.results,
            events: parts.events,
            lanes: Lanes::new(lanes::Parts {
                maker: parts.maker,
                delta: parts.delta.clone(),
                threads: parts.shards.count(),
                backlog_bytes_max: parts.backlog_bytes_max,
            }),
            sides: Sides::new(parts.backlog_bytes_max),
            tasks: TaskTracker::new(),
            building: false,
            waiting_dataflows: Vec::new(),
            shards: parts.shards,
            runner: parts.runner,
            delta: parts.delta,
            blobs: parts.blobs,
            collections: BTreeMap::new(),
            infos: Arc::default(),
            staging: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            starting: BTreeMap::new(),
            asked: Asked::default(),
            readable: parts.readable,
            counting: None,
            sent_statistics: BTreeMap::new(),
            uncommitted: BTreeMap::new(),
            inputs: BTreeMap::new(),
            held: BTreeMap::new(),
            unmade: BTreeSet::new(),
            made_at: Epoch::MIN,
            begun: Epoch::MIN,
            filling: BTreeMap::new(),
            lacking: BTreeMap::new(),
            bulk: Bulk::default(),
            waiting_for_held: Vec::new(),
            subscriber_memory_bytes: parts.subscriber_memory_bytes,
            last_run: Epoch::MIN,
            durable: Epoch::MIN,
            entered: 0,
        }
    }

    /// What serves peeks and lookups, beside everything else.
    pub(crate) fn reads(&self) -> Reads {
        Reads::new(reads::Parts {
            readable: Arc::clone(&self.readable),
            base: self.shards.jobs(),
            stops: self.lanes.stops(),
            asked: self.asked.clone(),
            results: self.results.clone(),
            runner: self.runner.clone(),
        })
    }

    /// Everything up to `commit_point` is in the stored tables.
    pub(crate) fn begin_at(&mut self, commit_point: Epoch) {
        self.last_run = commit_point;
        // There is no lane yet.
        drop(self.asked.begin(commit_point));
        self.asked.ran(commit_point);
        self.begun = commit_point;
        self.durable = commit_point;
        self.readable.write().durable = commit_point;
    }

    /// The newest epoch that was run.
    pub(crate) const fn last_run(&self) -> Epoch {
        self.last_run
    }

    /// The newest epoch that may be observed, of which this was told in the order of commands: reads may be ahead.
    pub(crate) const fn durable(&self) -> Epoch {
        self.durable
    }

    /// Why objects are not maintained any more, of those that are not.
    pub(crate) fn failures(&self) -> BTreeMap<ObjectId, String> {
        let readable = self.readable.read();
        let failed = readable.failed.iter();
        failed.map(|(id, error)| (*id, error.to_string())).collect()
    }

    async fn respond(&self, response: Response) {
        // The coordinator may have gone; the transport closing ends the loop.
        drop(self.responses.send(response).await);
    }

    /// A collection exists from now on; one that was committed before is loaded as it is stored. That of a view comes with its dataflow, where this runs.
    pub(crate) async fn create_collection(
        &mut self,
        description: CollectionDescription,
    ) -> Result<(), Error> {
        let id = description.id;
        let is_view = description.kind == CollectionKind::MaterializedView;
        if !is_view {
            self.create_in_base(&description).await?;
        }
        let name = description.name.rsplit('.').next().unwrap_or_default();
        let info = TableInfo {
            name: name.to_owned(),
            schema: Arc::clone(&description.schema),
        };
        // Copied only while a write is being evaluated.
        Arc::make_mut(&mut self.infos).insert(id, info);
        // A view can be read once its dataflow has hydrated.
        if !is_view {
            self.readable.write().from.insert(id, Epoch::MIN);
        }
        self.collections.insert(id, description);
        Ok(())
    }

    async fn create_in_base(&self, description: &CollectionDescription) -> Result<(), Error> {
        let id = description.id;
        let (schema, key) = (Arc::clone(&description.schema), description.key.clone());
        for created in self
            .shards
            .on_each(move |_, shard| shard.create_collection(id, Arc::clone(&schema), key.clone()))
            .await?
        {
            created?;
        }
        // A view is loaded too: its dataflow then yields what differs from the stored rows, so that memory and files agree whatever it computes.
        load_stored(&self.shards, &self.delta, description, self.last_run).await?;
        if let Some(failure) = &description.failure {
            let error = EvalError::new(EvalErrorKind::Source, failure.message.clone());
            self.load_errors(id, vec![(error, 1)]).await?;
        }
        Ok(())
    }

    /// Gives a collection errors as part of what was loaded: dataflows hydrate from it, and reads fail before anything changes.
    pub(crate) async fn load_errors(
        &self,
        id: ObjectId,
        errors: Vec<(EvalError, i64)>,
    ) -> Result<(), Error> {
        load_errors(&self.shards, id, errors, self.last_run).await
    }

    /// Creates a dataflow. What it computes from its inputs as of the last epoch run is its first output: given here, or said by its lane.
    pub(crate) async fn create_dataflow(
        &mut self,
        description: DataflowDescription,
    ) -> Result<EpochOutput, Error> {
        let id = description.id;
        let inputs = description.plan.collections();
        let failed = {
            let readable = self.readable.read();
            inputs
                .iter()
                .find_map(|id| readable.failed.get(id))
                .cloned()
        };
        self.inputs.insert(id, inputs.clone());
        self.spread_hold();
        if let Some(error) = failed {
            self.fail(id, error).await?;
            return Ok(EpochOutput::default());
        }
        let (cluster, plan) = (description.cluster, &description.plan);
        let place = match self.lanes.choose(cluster, plan, &inputs, self.last_run) {
            Ok(place) => place,
            Err(error) => {
                let error = EvalError::new(EvalErrorKind::Internal, error.to_string());
                self.fail(id, error).await?;
                return Ok(EpochOutput::default());
            }
        };
        let collection = self.exported(&description)?.cloned();
        if collection
            .as_ref()
            .is_some_and(|collection| collection.delta_version.is_some())
        {
            self.unmade.insert(id);
        }
        match place {
            Place::Base => self.create_dataflow_in_base(description).await,
            Place::Lane(lane) => {
                {
                    let mut readable = self.readable.write();
                    readable.coming.insert(id);
                    readable.places.insert(id, lane);
                }
                let collection = collection.map(Box::new);
                let object = Object::Dataflow(Box::new(description), collection);
                self.lanes.create(lane, id, object, self.last_run);
                self.go_on().await?;
                Ok(EpochOutput::default())
            }
        }
    }

    /// The collection that a dataflow exports to, if it is a view.
    fn exported(
        &self,
        description: &DataflowDescription,
    ) -> Result<Option<&CollectionDescription>, Error> {
        let id = description.id;
        match description.export {
            Export::Collection => {
                let collection = self.collections.get(&id).ok_or(Error::UnknownObject(id))?;
                Ok(Some(collection))
            }
            Export::Index { .. } => Ok(None),
        }
    }

    /// Creates a dataflow in the base. It is hydrated at once if it has little to read, else beside the base.
    async fn create_dataflow_in_base(
        &mut self,
        description: DataflowDescription,
    ) -> Result<EpochOutput, Error> {
        let id = description.id;
        let inputs = description.plan.collections();
        if self.are_coming(&inputs) {
            self.readable.write().coming.insert(id);
            self.waiting_dataflows.push(description);
            return Ok(EpochOutput::default());
        }
        if let Some(collection) = self.exported(&description)? {
            self.create_in_base(collection).await?;
        }
        let created = self
            .shards
            .on_each(move |_, shard| shard.create_dataflow(&description))
            .await?;
        if let Some(error) = created.into_iter().find_map(Result::err) {
            self.fail(id, error.into()).await?;
            return Ok(EpochOutput::default());
        }
        self.readable.write().coming.insert(id);
        if self.are_large(&inputs).await? {
            self.fork(id).await?;
            return Ok(EpochOutput::default());
        }
        let outputs = self.shards.hydrate(vec![id], self.last_run).await?;
        let mut output = EpochOutput::default();
        self.take_back(id, self.last_run, outputs, &mut output)
            .await?;
        Ok(output)
    }

    pub(crate) async fn drop_objects(&mut self, objects: Vec<ObjectId>) -> Result<(), Error> {
        self.end_subscriptions_to(&objects).await?;
        let infos = Arc::make_mut(&mut self.infos);
        for id in &objects {
            self.collections.remove(id);
            self.inputs.remove(id);
            self.held.remove(id);
            self.sides.remove(*id);
            self.bulk.forget(*id);
            self.unmade.remove(id);
            self.lacking.remove(id);
            self.filling.remove(id);
            infos.remove(id);
            self.readable.write().forget(*id);
            self.sent_statistics.remove(id);
        }
        self.waiting_dataflows
            .retain(|waiting| !objects.contains(&waiting.id));
        self.lanes.drop_objects(&objects);
        self.shards
            .on_each(move |_, shard| {
                for id in &objects {
                    shard.drop_object(*id);
                }
            })
            .await?;
        self.go_on().await?;
        self.spread_hold();
        self.asked.tell();
        self.start_what_waited().await
    }

    /// Runs an epoch, or what belongs to earlier ones and could not be had then.
    pub(crate) async fn run(
        &mut self,
        epoch: Epoch,
        mut input: EpochInput,
    ) -> Result<EpochOutput, Error> {
        let mut output = EpochOutput::default();
        for at in self.asked.begin(epoch) {
            self.lanes.stop_at(at);
        }
        self.set_aside(epoch, &mut input);
        let mut inputs = input.direct;
        for (table, changes) in input.upstream {
            let changes = self.complete_key_changes(table, changes).await?;
            inputs.push((table, CollectionInput::Changes(changes)));
        }
        // What comes late may have been set aside altogether; an epoch has a tick, whatever it changes.
        if !inputs.is_empty() || epoch != self.last_run {
            for inputs in in_ticks(inputs, TICK_BYTES) {
                self.tick(epoch, inputs, None, &mut output).await?;
            }
        }
        if !self.lanes.is_idle() {
            self.go_on().await?;
        }
        self.asked.ran(epoch);
        Ok(output)
    }

    /// Runs one tick of an epoch. `covered`: a collection whose rows are on disk already.
    async fn tick(
        &mut self,
        epoch: Epoch,
        inputs: Vec<(ObjectId, CollectionInput)>,
        covered: Option<ObjectId>,
        output: &mut EpochOutput,
    ) -> Result<(), Error> {
        let rows = inputs.iter().map(|(_, input)| ticks::rows_of(input));
        self.entered = rows.fold(self.entered, usize::saturating_add);
        let spread = |(id, input)| Ok((id, input, self.partition_columns(id)?));
        let inputs = inputs
            .into_iter()
            .map(spread)
            .collect::<Result<_, Error>>()?;
        let partitioned = partition::partition(inputs, self.shards.count())?;
        let outputs = self.shards.tick(epoch, partitioned).await?;
        self.last_run = epoch;
        self.sides.take_in(&outputs);
        self.absorb(Place::Base, outputs, covered, output).await
    }

    /// Compacts for about a millisecond, or for as long as what has entered asks for: each change may leave a dead row behind, and a segment is written again
    /// when a quarter of its rows are dead. Less would let what is dead grow for as long as much is changed.
    pub(crate) async fn maintain(&mut self) -> Result<(), Error> {
        let entered = std::mem::take(&mut self.entered) / self.shards.count().max(1);
        let fuel = entered.saturating_mul(4).max(MAINTENANCE_FUEL);
        self.shards
            .on_each(move |_, shard| shard.maintain(fuel))
            .await?;
        Ok(())
    }

    /// No one will read below `since` any more.
    pub(crate) async fn allow_compaction(&mut self, since: Epoch) -> Result<(), Error> {
        match self.lanes.allow_compaction(since, self.last_run) {
            Some(since) => self.compact(since).await,
            None => Ok(()),
        }
    }

    async fn compact(&self, since: Epoch) -> Result<(), Error> {
        let floor = since.min(self.shown());
        self.readable.write().jumps.retain(|_, jumps| {
            jumps.retain(|jump| jump.last > floor);
            !jumps.is_empty()
        });
        self.shards
            .on_each(move |_, shard| shard.allow_compaction(since))
            .await?;
        Ok(())
    }

    fn partition_columns(&self, id: ObjectId) -> Result<Vec<usize>, Error> {
        let description = self.collections.get(&id).ok_or(Error::UnknownObject(id))?;
        Ok(partition_columns(
            description.key.as_deref(),
            description.schema.fields().len(),
        ))
    }

    /// Hands what shards computed to lanes, to subscriptions and to `output`, and ends what has failed. `covered`: a collection whose rows are on disk already.
    async fn absorb(
        &mut self,
        place: Place,
        outputs: Vec<TickOutput>,
        covered: Option<ObjectId>,
        output: &mut EpochOutput,
    ) -> Result<(), Error> {
        for (id, error) in failures_of(&outputs) {
            self.fail(id, error).await?;
        }
        let known_as = match place {
            Place::Base => Place::Base,
            Place::Lane(lane) => self.lanes.known_as(lane),
        };
        self.lanes.take_in(known_as, &outputs);
        for TickOutput { epoch, outputs, .. } in outputs {
            for changed in outputs {
                // Some of it may be wrong, and nobody reads it.
                if self.readable.read().failed.contains_key(&changed.id) {
                    continue;
                }
                // Not a copy of what is elsewhere.
                if let Place::Lane(lane) = place
                    && !self.lanes.counts(lane, changed.id)
                {
                    continue;
                }
                if let ObjectId::Transient(request) = changed.id {
                    if let Some(subscription) = self.subscriptions.get_mut(&RequestId(request)) {
                        subscription.add(epoch, changed.deltas, changed.errors);
                    }
                } else if self.collections.contains_key(&changed.id) {
                    if !changed.errors.is_empty() {
                        output.errors.push((changed.id, epoch, changed.errors));
                    }
                    if covered != Some(changed.id) {
                        output.deltas.push((changed.id, changed.deltas));
                    }
                }
            }
        }
        Ok(())
    }

    /// Lets subscriptions send what may be shown, but for those that read what is held up. Returns those that have ended.
    fn release_subscriptions(&mut self, durable: Epoch) -> Vec<RequestId> {
        let readable = self.readable.read();
        let showing = self
            .subscriptions
            .iter_mut()
            .filter(|(_, subscription)| !subscription.reads_any(&readable.held));
        let lanes = &self.lanes;
        let ended = showing
            .filter_map(|(request, subscription)| {
                let id = ObjectId::Transient(request.0);
                let complete = lanes.frontier_of(id, durable).min(durable);
                let of_lane = lanes.jumps_of(id);
                let of_inputs = subscription.reads().iter();
                let of_inputs = of_inputs.filter_map(|id| readable.jumps.get(id)).flatten();
                let jumps: Vec<Jump> = of_lane.iter().chain(of_inputs).copied().collect();
                let shown = subscription.release(before(jumps.iter(), complete), &jumps);
                (shown == Liveness::Ended).then_some(*request)
            })
            .collect();
        drop(readable);
        ended
    }

    /// Everything up to `epoch` may be observed.
    pub(crate) async fn binding_durable(&mut self, epoch: Epoch) -> Result<(), Error> {
        if epoch > self.last_run {
            return Err(Error::Protocol(format!(
                "epoch {epoch} is durable before it was run"
            )));
        }
        self.durable = self.durable.max(epoch);
        {
            let mut readable = self.readable.write();
            readable.durable = readable.durable.max(epoch);
        }
        if !self.lanes.is_idle() {
            self.go_on().await?;
        }
        self.show().await
    }

    /// Shows what may be observed by now.
    async fn show(&mut self) -> Result<(), Error> {
        let ended = self.release_subscriptions(self.durable);
        for request in ended {
            self.end_subscription(request).await?;
        }
        self.bound_waiting_bytes().await?;
        self.asked.tell();
        Ok(())
    }

    /// Ends reads and subscriptions; nothing can be read from now on.
    pub(crate) fn close(&mut self) {
        {
            let mut readable = self.readable.write();
            readable.from.clear();
            // Their threads end when nobody can ask them any more.
            readable.lanes.clear();
        }
        self.subscriptions.clear();
        self.starting.clear();
    }

    /// Ends the shard threads and waits for them.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.sides.stop().await;
        self.lanes.stop().await;
        // Who reads for it ends.
        drop(self.bulk);
        self.tasks.close();
        self.tasks.wait().await;
        let shards = self.shards;
        // Joining threads blocks; they end as soon as their queue is closed.
        tokio::task::spawn_blocking(move || shards.stop())
            .await
            .map_err(|_| Error::ShardGone)
    }
}
