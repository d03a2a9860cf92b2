//! The compute: collections and dataflows in memory, and everything that reads them.
//!
//! Owns the shard threads ([`shards`]) of the base and of the [`lanes`] beside it, what exists on them and may be read at which epoch ([`direct`]), reads and the evaluation of writes ([`read`]), and
//! subscriptions ([`subscription`]). Of an epoch it is given [`EpochInput`] and gives [`EpochOutput`]. Must not know where changes come from or how they are
//! stored, but for reading what is stored. Called by the router.
//!
//! Invariants. An epoch takes one or more ticks of the shards; nobody sees the state between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_dataflow::{
    CollectionInput, TickOutput, partition_changes, partition_columns, partition_delta,
};
use flowstone_proto::local::ResultStreams;
use flowstone_proto::message::{
    CollectionDescription, CollectionKind, CollectionStatistics, DataflowDescription, Export,
    RequestError, RequestId, Response, ResultMessage,
};
use flowstone_storage::{DeltaTables, StagedSnapshot};
use flowstone_types::{ClusterId, DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::Error;
use crate::event::Event;
use crate::feed::EpochInput;
use crate::query::QueryRunner;
use crate::write::TableInfo;

mod bulk;
pub(crate) mod direct;
mod failures;
mod held;
mod key_changes;
pub(crate) mod lanes;
mod read;
pub(crate) mod shards;
mod sides;
mod subscription;
mod ticks;

use bulk::Bulk;
use direct::{Readable, ReadableLane};
use failures::failures_of;
use held::Release;
use lanes::{Base, LaneEvent, Lanes, Moved, Object, Place, Said, load_errors, load_stored};
pub(crate) use read::Read;
use read::Running;
use shards::{PartitionedInputs, ShardMaker, ShardPool};
use sides::{SideEvent, SideSaid, Sides};
use subscription::{Liveness, Starting, Subscription};
use ticks::{TICK_BYTES, in_ticks};

/// Rows that one shard may rewrite for compaction between two epochs: about a millisecond of work.
const MAINTENANCE_FUEL: usize = 4096;

/// What was done beside the base.
#[derive(Debug)]
pub(crate) enum Heard {
    Lane(LaneEvent),
    Side(SideEvent),
}

/// What an epoch, or the first run of a dataflow, has changed in collections that are stored.
#[derive(Debug, Default)]
pub(crate) struct EpochOutput {
    /// Changes by collection, which may occur more than once.
    pub(crate) deltas: Vec<(ObjectId, Vec<DeltaBatch>)>,
    /// Snapshots whose rows are on disk already, and their epoch.
    pub(crate) snapshots: Vec<(ObjectId, Epoch, StagedSnapshot)>,
}

impl EpochOutput {
    fn append(&mut self, mut other: Self) {
        self.deltas.append(&mut other.deltas);
        self.snapshots.append(&mut other.snapshots);
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
    /// What reads a dataflow that is not back yet, in order.
    waiting_dataflows: Vec<DataflowDescription>,
    runner: QueryRunner,
    /// To load what is stored.
    delta: DeltaTables,
    collections: BTreeMap<ObjectId, CollectionDescription>,
    infos: Arc<BTreeMap<ObjectId, TableInfo>>,
    staging: BTreeMap<RequestId, Running>,
    subscriptions: BTreeMap<RequestId, Subscription>,
    /// Subscriptions that are made in lanes.
    starting: BTreeMap<RequestId, Starting>,
    waiting_reads: Vec<(Read, mpsc::Sender<ResultMessage>)>,
    running_peeks: BTreeMap<RequestId, Running>,
    /// What can be read, and up to which epoch.
    readable: Arc<RwLock<Readable>>,
    /// Counters as last sent, by collection.
    sent_statistics: BTreeMap<ObjectId, CollectionStatistics>,
    /// What dataflows read.
    inputs: BTreeMap<ObjectId, Vec<ObjectId>>,
    /// Collections that lack what their source could not give.
    held: BTreeSet<ObjectId>,
    /// Changes that were too many to enter at once.
    bulk: Bulk,
    /// What reads something that is held up and cannot begin before.
    waiting_for_held: Vec<held::Waiting>,
    /// Changes that may wait for all subscribers together, in bytes.
    subscriber_memory_bytes: usize,
    /// The newest epoch that was run.
    last_run: Epoch,
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
    pub(crate) readable: Arc<RwLock<Readable>>,
    pub(crate) subscriber_memory_bytes: usize,
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
            }),
            sides: Sides::new(),
            building: false,
            waiting_dataflows: Vec::new(),
            shards: parts.shards,
            runner: parts.runner,
            delta: parts.delta,
            collections: BTreeMap::new(),
            infos: Arc::default(),
            staging: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            starting: BTreeMap::new(),
            waiting_reads: Vec::new(),
            running_peeks: BTreeMap::new(),
            readable: parts.readable,
            sent_statistics: BTreeMap::new(),
            inputs: BTreeMap::new(),
            held: BTreeSet::new(),
            bulk: Bulk::default(),
            waiting_for_held: Vec::new(),
            subscriber_memory_bytes: parts.subscriber_memory_bytes,
            last_run: Epoch::MIN,
        }
    }

    /// Everything up to `commit_point` is in the stored tables.
    pub(crate) fn begin_at(&mut self, commit_point: Epoch) {
        self.last_run = commit_point;
        self.readable.write().durable = commit_point;
    }

    /// The newest epoch that was run.
    pub(crate) const fn last_run(&self) -> Epoch {
        self.last_run
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
        let mut infos = (*self.infos).clone();
        infos.insert(id, info);
        self.infos = Arc::new(infos);
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
        let place = self.lanes.choose(
            description.cluster,
            &description.plan,
            &inputs,
            self.last_run,
        )?;
        self.inputs.insert(id, inputs);
        self.spread_hold(Release::Late);
        if let Some(error) = failed {
            self.fail(id, error).await?;
            return Ok(EpochOutput::default());
        }
        let collection = self.exported(&description)?;
        match place {
            Place::Base => self.create_dataflow_in_base(description).await,
            Place::Lane(lane) => {
                {
                    let mut readable = self.readable.write();
                    readable.coming.insert(id);
                    readable.places.insert(id, lane);
                }
                let collection = collection.cloned().map(Box::new);
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

    /// Takes in what a dataflow of the base put out when it was hydrated: it can be read from now on.
    async fn take_back(
        &mut self,
        id: ObjectId,
        epoch: Epoch,
        outputs: Vec<TickOutput>,
        output: &mut EpochOutput,
    ) -> Result<(), Error> {
        let collection = self.collections.get(&id);
        let was_stored = collection.is_some_and(|collection| collection.delta_version.is_some());
        if was_stored && outputs.iter().any(|output| !output.outputs.is_empty()) {
            tracing::warn!(%id, "a view computes other rows than it did before the restart; the stored ones are brought up to date");
        }
        self.absorb(Place::Base, outputs, None, output).await?;
        self.readable_from(id, epoch).await;
        Ok(())
    }

    /// Whether something among `ids` is being made.
    fn are_coming(&self, ids: &[ObjectId]) -> bool {
        let readable = self.readable.read();
        ids.iter().any(|id| readable.coming.contains(id))
    }

    /// Whether collections of the base together have so many rows that what reads all of them holds others up.
    async fn are_large(&self, ids: &[ObjectId]) -> Result<bool, Error> {
        let ids = ids.to_vec();
        let rows = self
            .shards
            .on_each(move |_, shard| ids.iter().map(|id| shard.rows(*id)).sum::<u64>())
            .await?;
        Ok(rows.into_iter().sum::<u64>() > sides::ROWS_AT_ONCE)
    }

    /// Has a dataflow of the base that was just made hydrated beside it.
    async fn fork(&mut self, id: ObjectId) -> Result<(), Error> {
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
    async fn side_said(&mut self, event: SideEvent) -> Result<EpochOutput, Error> {
        let SideEvent { id, said } = event;
        match said {
            SideSaid::CaughtUp(ticks) => {
                self.sides.caught_up(id, ticks);
                return self.join().await;
            }
            SideSaid::Failed(error) if self.sides.contains(id) => self.fail(id, error).await?,
            SideSaid::Failed(_) => {}
        }
        Ok(EpochOutput::default())
    }

    /// Puts back what has caught up with the base, and makes what waited for it.
    async fn join(&mut self) -> Result<EpochOutput, Error> {
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
            let (forked, epoch) = (finished.shards, finished.epoch);
            let joined = self
                .shards
                .on_each(move |index, shard| match forked.write(index) {
                    Some(mut forked) => shard.join(id, &mut forked).map_err(Error::from),
                    None => Err(Error::ShardGone),
                })
                .await?;
            for outcome in joined {
                outcome?;
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

    /// A cluster exists, or gets other threads.
    pub(crate) async fn set_cluster(
        &mut self,
        cluster: ClusterId,
        threads: usize,
    ) -> Result<(), Error> {
        if cluster == ClusterId::DEFAULT {
            return Err(Error::Protocol(
                "the default cluster has the threads of the process".to_owned(),
            ));
        }
        self.lanes.set_cluster(cluster, threads);
        self.go_on().await
    }

    /// A cluster is gone, and what was in it before.
    pub(crate) async fn drop_cluster(&mut self, cluster: ClusterId) -> Result<(), Error> {
        for id in self.lanes.drop_cluster(cluster) {
            if let ObjectId::Transient(request) = id {
                self.end_subscription_with(RequestId(request), RequestError::Dropped)
                    .await?;
            }
        }
        self.go_on().await
    }

    /// The newest epoch through which everything is complete that is to be stored.
    pub(crate) fn stored_through(&self) -> Epoch {
        let base = self.bulk.complete_through(self.last_run);
        self.lanes.stored_through(base)
    }

    /// What happens next beside the base. Can be given up.
    pub(crate) async fn hear(&mut self) -> Heard {
        tokio::select! {
            event = self.lanes.hear() => Heard::Lane(event),
            event = self.sides.hear() => Heard::Side(event),
        }
    }

    /// Takes in what was done beside the base.
    pub(crate) async fn heard(&mut self, heard: Heard) -> Result<EpochOutput, Error> {
        match heard {
            Heard::Lane(event) => self.lane_said(event).await,
            Heard::Side(event) => self.side_said(event).await,
        }
    }

    async fn lane_said(&mut self, event: LaneEvent) -> Result<EpochOutput, Error> {
        let mut output = EpochOutput::default();
        let lane = event.lane;
        match event.said {
            Said::Ticked {
                joined,
                first,
                epoch,
                bytes,
                outputs,
            } => {
                self.absorb(Place::Lane(lane), outputs, None, &mut output)
                    .await?;
                let (jump, jumping) = self.lanes.ticked(lane, (joined, bytes), (first, epoch));
                if let Some(jump) = jump {
                    let mut readable = self.readable.write();
                    for lane in jumping {
                        if let Some(lane) = readable.lanes.get_mut(&lane) {
                            lane.jumps.push(jump);
                        }
                    }
                }
            }
            Said::Hydrated { id, epoch, outputs } => {
                if self.lanes.hydrated(lane, id) {
                    self.hydrated(lane, (id, epoch), outputs, &mut output)
                        .await?;
                }
            }
            Said::NotMade { id, error } => self.fail(id, error).await?,
            Said::Counted(counted) => {
                for (id, statistics) in self.lanes.counted(lane, counted) {
                    self.send_statistics(id, statistics).await;
                }
            }
            Said::Broken(error) => {
                tracing::error!(?lane, %error, "a lane has broken; what was in it has failed");
                let error = EvalError::new(EvalErrorKind::Internal, error.to_string());
                for id in self.lanes.remove(lane) {
                    self.fail(id, error.clone()).await?;
                }
            }
        }
        self.go_on().await?;
        self.show().await?;
        self.start_what_waited().await?;
        Ok(output)
    }

    async fn hydrated(
        &mut self,
        lane: lanes::LaneId,
        (id, epoch): (ObjectId, Epoch),
        mut outputs: Vec<TickOutput>,
        output: &mut EpochOutput,
    ) -> Result<(), Error> {
        let counts = self.lanes.counts(lane, id);
        if let ObjectId::Transient(request) = id
            && counts
            && let Some(starting) = self.starting.remove(&RequestId(request))
        {
            if !starting.snapshot {
                outputs.iter_mut().for_each(|output| output.outputs.clear());
            }
            self.subscriptions
                .insert(RequestId(request), starting.start(epoch));
        }
        self.absorb(Place::Lane(lane), outputs, None, output)
            .await?;
        // One that comes into another's place can be read when it has.
        if counts && !self.lanes.is_moving(lane) {
            self.readable_from(id, epoch).await;
        }
        Ok(())
    }

    /// What was being made can be read, unless it has failed.
    async fn readable_from(&self, id: ObjectId, epoch: Epoch) {
        let came = {
            let mut readable = self.readable.write();
            let came = readable.coming.remove(&id);
            if came {
                readable.from.insert(id, epoch);
            }
            came
        };
        if came {
            self.respond(Response::Hydrated { id }).await;
        }
    }

    /// Lets the lanes go on with what they can do by now.
    async fn go_on(&mut self) -> Result<(), Error> {
        // What can be read from now on may be what others wait for.
        while self.go_on_once().await? {}
        Ok(())
    }

    /// Returns whether something can be read that could not before.
    async fn go_on_once(&mut self) -> Result<bool, Error> {
        let readable = Arc::clone(&self.readable);
        let base = Base {
            pool: &self.shards,
            epoch: self.last_run,
            durable: readable.read().durable,
        };
        let readable_from = |id: ObjectId| {
            let readable = readable.read();
            let from = readable.from.get(&id).copied().unwrap_or(Epoch::MIN);
            (!readable.coming.contains(&id)).then_some(from)
        };
        let progress = self.lanes.go_on(base, &readable_from).await?;
        for (cluster, threads) in progress.ready {
            self.respond(Response::ClusterReady { cluster, threads })
                .await;
        }
        if let Some(since) = progress.since {
            self.compact(since).await?;
        }
        for (lane, jump) in progress.jumps {
            if let Some(lane) = self.readable.write().lanes.get_mut(&lane) {
                lane.jumps.push(jump);
            }
        }
        self.publish(&progress.moved);
        let moved = !progress.moved.is_empty();
        for moved in progress.moved {
            if let Some(epoch) = moved.from {
                self.readable_from(moved.id, epoch).await;
            }
        }
        for id in progress.paused {
            if let ObjectId::Transient(request) = id {
                let request = RequestId(request);
                let message = "a cluster that it depends on was paused".to_owned();
                let error = EvalError::new(EvalErrorKind::Source, message);
                self.fail_subscription(request, &error).await?;
            }
        }
        Ok(moved)
    }

    /// Lets everybody read what the lanes have.
    fn publish(&self, moved: &[Moved]) {
        let mut readable = self.readable.write();
        for Moved { id, lane, from } in moved {
            if let Some(place) = readable.places.get_mut(id) {
                *place = *lane;
            }
            match from {
                Some(epoch) => {
                    if let Some(from) = readable.from.get_mut(id) {
                        *from = *epoch;
                    }
                }
                None => {
                    if readable.from.remove(id).is_some() {
                        readable.coming.insert(*id);
                    }
                }
            }
        }
        readable
            .lanes
            .retain(|lane, _| self.lanes.get(*lane).is_some());
        for (number, lane) in self.lanes.iter() {
            let frontier = lane.frontier();
            match readable.lanes.get_mut(&number) {
                Some(known) => known.frontier = frontier,
                None => {
                    let shards = lane.pool().shards();
                    let jumps = Vec::new();
                    let known = ReadableLane {
                        shards,
                        frontier,
                        jumps,
                    };
                    readable.lanes.insert(number, known);
                }
            }
        }
    }

    pub(crate) async fn drop_objects(&mut self, objects: Vec<ObjectId>) -> Result<(), Error> {
        self.end_subscriptions_to(&objects).await?;
        let mut infos = (*self.infos).clone();
        for id in &objects {
            self.collections.remove(id);
            self.inputs.remove(id);
            self.held.remove(id);
            self.sides.remove(*id);
            self.bulk.forget(*id);
            infos.remove(id);
            self.readable.write().forget(*id);
            self.sent_statistics.remove(id);
        }
        self.infos = Arc::new(infos);
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
        self.spread_hold(Release::Late);
        self.start_ready_reads().await?;
        self.start_what_waited().await
    }

    /// Runs an epoch, or what belongs to earlier ones and could not be had then.
    pub(crate) async fn run(
        &mut self,
        epoch: Epoch,
        mut input: EpochInput,
    ) -> Result<EpochOutput, Error> {
        let mut output = EpochOutput::default();
        self.set_aside(epoch, &mut input);
        let mut inputs = input.direct;
        for (table, changes) in input.upstream {
            let changes = self.complete_key_changes(table, changes).await?;
            inputs.push((table, CollectionInput::Changes(changes)));
        }
        for inputs in in_ticks(inputs, TICK_BYTES) {
            self.tick(epoch, inputs, None, &mut output).await?;
        }
        if !self.lanes.is_idle() {
            self.go_on().await?;
        }
        while self.is_behind() {
            let heard = self.hear().await;
            output.append(self.heard(heard).await?);
        }
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
        let partitioned = self.partition(inputs)?;
        let outputs = self.shards.tick(epoch, partitioned).await?;
        self.last_run = epoch;
        self.sides.take_in(&outputs);
        self.absorb(Place::Base, outputs, covered, output).await
    }

    /// Whether more waits for what runs beside the base than may.
    fn is_behind(&self) -> bool {
        self.lanes.is_behind() || self.sides.is_behind()
    }

    /// Compacts for about a millisecond.
    pub(crate) async fn maintain(&self) -> Result<(), Error> {
        self.shards
            .on_each(|_, shard| shard.maintain(MAINTENANCE_FUEL))
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
        for lane in self.readable.write().lanes.values_mut() {
            lane.jumps.retain(|jump| jump.last > since);
        }
        self.readable.write().jumps.retain(|_, jumps| {
            jumps.retain(|jump| jump.last > since);
            !jumps.is_empty()
        });
        self.shards
            .on_each(move |_, shard| shard.allow_compaction(since))
            .await?;
        Ok(())
    }

    /// Gives each shard the rows it owns.
    fn partition(
        &self,
        inputs: Vec<(ObjectId, CollectionInput)>,
    ) -> Result<PartitionedInputs, Error> {
        let count = self.shards.count();
        let mut shards: PartitionedInputs = (0..count).map(|_| Vec::new()).collect();
        for (id, input) in inputs {
            let columns = self.partition_columns(id)?;
            match input {
                CollectionInput::Errors(errors) => {
                    if let Some(first) = shards.first_mut() {
                        first.push((id, CollectionInput::Errors(errors)));
                    }
                }
                CollectionInput::Deltas(deltas) => {
                    for delta in deltas {
                        for (part, inputs) in itertools::zip_eq(
                            partition_delta(&delta, &columns, count)?,
                            shards.iter_mut(),
                        ) {
                            if !part.is_empty() {
                                inputs.push((id, CollectionInput::Deltas(vec![part])));
                            }
                        }
                    }
                }
                CollectionInput::Changes(changes) => {
                    for change in changes {
                        for (part, inputs) in itertools::zip_eq(
                            partition_changes(&change, &columns, count)?,
                            shards.iter_mut(),
                        ) {
                            if !part.ops.is_empty() || part.truncate_before {
                                inputs.push((id, CollectionInput::Changes(vec![part])));
                            }
                        }
                    }
                }
            }
        }
        Ok(shards)
    }

    fn partition_columns(&self, id: ObjectId) -> Result<Vec<usize>, Error> {
        let description = self.collections.get(&id).ok_or(Error::UnknownObject(id))?;
        Ok(partition_columns(
            description.key.as_deref(),
            description.schema.fields().len(),
        ))
    }

    fn schema_of(&self, id: ObjectId) -> Result<SchemaRef, Error> {
        let description = self.collections.get(&id).ok_or(Error::UnknownObject(id))?;
        Ok(Arc::clone(&description.schema))
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
                } else if self.collections.contains_key(&changed.id) && covered != Some(changed.id)
                {
                    output.deltas.push((changed.id, changed.deltas));
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
                let complete = lanes.frontier_of(ObjectId::Transient(request.0), durable);
                let shown = subscription.release(complete.min(durable));
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
        let durable = self.readable.read().durable;
        let ended = self.release_subscriptions(durable);
        for request in ended {
            self.end_subscription(request).await?;
        }
        self.bound_waiting_bytes().await?;
        self.start_ready_reads().await
    }

    /// Sends counters that changed, and compacts what is idle.
    pub(crate) async fn housekeep(&mut self) -> Result<(), Error> {
        self.lanes.count();
        let ids: Vec<ObjectId> = {
            let readable = self.readable.read();
            let ids = readable.from.keys().copied();
            ids.filter(|id| !readable.places.contains_key(id)).collect()
        };
        let asked = ids.clone();
        let shards = self
            .shards
            .on_each(move |_, shard| {
                shard.maintain(MAINTENANCE_FUEL);
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
            self.send_statistics(id, statistics).await;
        }
        Ok(())
    }

    async fn send_statistics(&mut self, id: ObjectId, statistics: CollectionStatistics) {
        if self.sent_statistics.get(&id) != Some(&statistics) {
            self.sent_statistics.insert(id, statistics.clone());
            self.respond(Response::CollectionStatistics { id, statistics })
                .await;
        }
    }

    /// Ends reads and subscriptions; nothing can be read from now on.
    pub(crate) fn close(&mut self) {
        self.readable.write().from.clear();
        self.subscriptions.clear();
        self.starting.clear();
    }

    /// Ends the shard threads and waits for them.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        let shards = self.shards;
        // Joining threads blocks; they end as soon as their queue is closed.
        tokio::task::spawn_blocking(move || shards.stop())
            .await
            .map_err(|_| Error::ShardGone)
    }
}
