//! The compute: collections and dataflows in memory, and everything that reads them.
//!
//! Owns the shard threads ([`shards`]), what exists on them and may be read at which epoch ([`direct`]), reads and the evaluation of writes ([`read`]), and
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
    RequestId, Response, ResultMessage,
};
use flowstone_storage::{DeltaTables, StagedSnapshot};
use flowstone_types::{DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId};
use futures::StreamExt;
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::Error;
use crate::event::Event;
use crate::feed::EpochInput;
use crate::query::QueryRunner;
use crate::write::TableInfo;

pub(crate) mod direct;
mod failures;
mod held;
mod key_changes;
mod read;
pub(crate) mod shards;
mod subscription;
mod ticks;

use direct::Readable;
use failures::failures_of;
pub(crate) use read::Read;
use read::Running;
use shards::{PartitionedInputs, ShardPool};
use subscription::{Liveness, Subscription};
use ticks::{TICK_BYTES, in_ticks};

/// Rows that one shard may rewrite for compaction between two epochs: about a millisecond of work.
const MAINTENANCE_FUEL: usize = 4096;

/// Rows of a snapshot that enter the dataflow in one tick. Bounds the memory of a tick; an epoch may take several.
const SNAPSHOT_ROWS_PER_TICK: usize = 65_536;

/// What an epoch, or the first run of a dataflow, has changed in collections that are stored.
#[derive(Debug, Default)]
pub(crate) struct EpochOutput {
    /// Changes by collection, which may occur more than once.
    pub(crate) deltas: Vec<(ObjectId, Vec<DeltaBatch>)>,
    /// Snapshots whose rows are on disk already, and their epoch.
    pub(crate) snapshots: Vec<(ObjectId, Epoch, StagedSnapshot)>,
}

/// The state of the compute.
#[derive(Debug)]
pub(crate) struct Compute {
    responses: mpsc::Sender<Response>,
    results: ResultStreams,
    /// Where writes say that they were evaluated.
    events: mpsc::Sender<Event>,
    shards: ShardPool,
    runner: QueryRunner,
    /// To load what is stored.
    delta: DeltaTables,
    collections: BTreeMap<ObjectId, CollectionDescription>,
    infos: Arc<BTreeMap<ObjectId, TableInfo>>,
    staging: BTreeMap<RequestId, Running>,
    subscriptions: BTreeMap<RequestId, Subscription>,
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
            shards: parts.shards,
            runner: parts.runner,
            delta: parts.delta,
            collections: BTreeMap::new(),
            infos: Arc::default(),
            staging: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            waiting_reads: Vec::new(),
            running_peeks: BTreeMap::new(),
            readable: parts.readable,
            sent_statistics: BTreeMap::new(),
            inputs: BTreeMap::new(),
            held: BTreeSet::new(),
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

    /// A collection exists from now on; one that was committed before is loaded as it is stored.
    pub(crate) async fn create_collection(
        &mut self,
        description: CollectionDescription,
    ) -> Result<(), Error> {
        let id = description.id;
        let (schema, key) = (Arc::clone(&description.schema), description.key.clone());
        let shard_schema = Arc::clone(&schema);
        for created in self
            .shards
            .on_each(move |_, shard| {
                shard.create_collection(id, Arc::clone(&shard_schema), key.clone())
            })
            .await?
        {
            created?;
        }
        // A view is loaded too: its dataflow then yields what differs from the stored rows, so that memory and files agree whatever it computes.
        if let Some(version) = description.delta_version {
            self.load_collection(&description, version).await?;
        }
        if let Some(failure) = &description.failure {
            let error = EvalError::new(EvalErrorKind::Source, failure.message.clone());
            self.load_errors(id, vec![(error, 1)]).await?;
        }
        let name = description.name.rsplit('.').next().unwrap_or_default();
        let info = TableInfo {
            name: name.to_owned(),
            schema,
        };
        let mut infos = (*self.infos).clone();
        infos.insert(id, info);
        self.infos = Arc::new(infos);
        // A view can be read once its dataflow has hydrated.
        if description.kind != CollectionKind::MaterializedView {
            self.readable.write().from.insert(id, Epoch::MIN);
        }
        self.collections.insert(id, description);
        Ok(())
    }

    async fn load_collection(
        &self,
        description: &CollectionDescription,
        version: i64,
    ) -> Result<(), Error> {
        let (id, epoch) = (description.id, self.last_run);
        let columns = partition_columns(
            description.key.as_deref(),
            description.schema.fields().len(),
        );
        let mut rows = self
            .delta
            .load(id, version, Arc::clone(&description.schema))
            .await?;
        let mut loaded = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            loaded += batch.num_rows();
            let parts = partition_delta(
                &DeltaBatch::insert(batch, epoch),
                &columns,
                self.shards.count(),
            )?;
            let outcomes = self
                .shards
                .on_each(move |index, shard| {
                    parts
                        .get(index)
                        .map_or(Ok(()), |part| shard.load_collection(id, &part.rows, epoch))
                })
                .await?;
            for outcome in outcomes {
                outcome?;
            }
        }
        tracing::info!(%id, name = description.name, version, rows = loaded, "collection loaded");
        Ok(())
    }

    /// Gives a collection errors as part of what was loaded: dataflows hydrate from it, and reads fail before anything changes.
    pub(crate) async fn load_errors(
        &self,
        id: ObjectId,
        errors: Vec<(EvalError, i64)>,
    ) -> Result<(), Error> {
        let epoch = self.last_run;
        let loaded = self
            .shards
            .on_each(move |index, shard| {
                // Errors belong to any one shard.
                if index == 0 {
                    shard.load_errors(id, &errors, epoch)
                } else {
                    Ok(())
                }
            })
            .await?;
        Ok(loaded.into_iter().try_for_each(|outcome| outcome)?)
    }

    /// Creates and hydrates a dataflow. What it computes from its inputs as of the last epoch run is its first output.
    pub(crate) async fn create_dataflow(
        &mut self,
        description: DataflowDescription,
    ) -> Result<EpochOutput, Error> {
        let id = description.id;
        let exports = description.export == Export::Collection;
        let inputs = description.plan.collections();
        let failed = {
            let readable = self.readable.read();
            inputs
                .iter()
                .find_map(|id| readable.failed.get(id))
                .cloned()
        };
        self.inputs.insert(id, inputs);
        self.spread_hold();
        let mut output = EpochOutput::default();
        if let Some(error) = failed {
            self.fail(id, error).await?;
            return Ok(output);
        }
        let created = self
            .shards
            .on_each(move |_, shard| shard.create_dataflow(&description))
            .await?;
        if let Some(error) = created.into_iter().find_map(Result::err) {
            self.fail(id, error.into()).await?;
            return Ok(output);
        }
        let outputs = self.shards.hydrate(vec![id], self.last_run).await?;
        if exports {
            let collection = self.collections.get(&id).ok_or(Error::UnknownObject(id))?;
            if collection.delta_version.is_some()
                && outputs.iter().any(|output| !output.outputs.is_empty())
            {
                tracing::warn!(%id, "a view computes other rows than it did before the restart; the stored ones are brought up to date");
            }
        }
        self.absorb(outputs, None, &mut output).await?;
        if !self.readable.read().failed.contains_key(&id) {
            self.readable.write().from.insert(id, self.last_run);
            self.respond(Response::Hydrated { id }).await;
        }
        Ok(output)
    }

    pub(crate) async fn drop_objects(&mut self, objects: Vec<ObjectId>) -> Result<(), Error> {
        self.end_subscriptions_to(&objects).await?;
        let mut infos = (*self.infos).clone();
        for id in &objects {
            self.collections.remove(id);
            self.inputs.remove(id);
            self.held.remove(id);
            infos.remove(id);
            self.readable.write().forget(*id);
            self.sent_statistics.remove(id);
        }
        self.infos = Arc::new(infos);
        self.shards
            .on_each(move |_, shard| {
                for id in &objects {
                    shard.drop_object(*id);
                }
            })
            .await?;
        self.spread_hold();
        self.start_ready_reads().await?;
        self.start_what_waited().await
    }

    /// Runs an epoch, or what belongs to earlier ones and could not be had then.
    pub(crate) async fn run(
        &mut self,
        epoch: Epoch,
        input: EpochInput,
    ) -> Result<EpochOutput, Error> {
        let mut output = EpochOutput::default();
        for (table, staged) in input.snapshots {
            self.load_snapshot(table, staged, epoch, &mut output)
                .await?;
        }
        let mut inputs = input.direct;
        // Looked up only now: a snapshot of this epoch is in the collections.
        for (table, changes) in input.upstream {
            let changes = self.complete_key_changes(table, changes).await?;
            inputs.push((table, CollectionInput::Changes(changes)));
        }
        for inputs in in_ticks(inputs, TICK_BYTES) {
            self.tick(epoch, inputs, None, &mut output).await?;
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
        self.absorb(outputs, covered, output).await
    }

    /// Compacts for about a millisecond.
    pub(crate) async fn maintain(&self) -> Result<(), Error> {
        self.shards
            .on_each(|_, shard| shard.maintain(MAINTENANCE_FUEL))
            .await?;
        Ok(())
    }

    pub(crate) async fn allow_compaction(&self, since: Epoch) -> Result<(), Error> {
        self.shards
            .on_each(move |_, shard| shard.allow_compaction(since))
            .await?;
        Ok(())
    }

    /// Feeds a staged snapshot into the dataflow in ticks of bounded size, all at `epoch`. Its rows are committed by naming their files, not by writing them again.
    async fn load_snapshot(
        &mut self,
        table: ObjectId,
        staged: StagedSnapshot,
        epoch: Epoch,
        output: &mut EpochOutput,
    ) -> Result<(), Error> {
        let schema = self.schema_of(table)?;
        let mut rows = self.delta.read_staged(&staged, Arc::clone(&schema)).await?;
        let (mut waiting, mut count) = (Vec::new(), 0);
        loop {
            let batch = rows.next().await.transpose()?;
            let last = batch.is_none();
            if let Some(batch) = batch {
                count += batch.num_rows();
                waiting.push(DeltaBatch::insert(batch, epoch));
            }
            if count >= SNAPSHOT_ROWS_PER_TICK || (last && count > 0) {
                let input = vec![(table, CollectionInput::Deltas(std::mem::take(&mut waiting)))];
                count = 0;
                self.tick(epoch, input, Some(table), output).await?;
            }
            if last {
                break;
            }
        }
        output.snapshots.push((table, epoch, staged));
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

    /// Hands what the shards computed to subscriptions and to `output`, and ends what has failed. `covered`: a collection whose rows are on disk already.
    async fn absorb(
        &mut self,
        outputs: Vec<TickOutput>,
        covered: Option<ObjectId>,
        output: &mut EpochOutput,
    ) -> Result<(), Error> {
        for (id, error) in failures_of(&outputs) {
            self.fail(id, error).await?;
        }
        for TickOutput { epoch, outputs, .. } in outputs {
            for changed in outputs {
                // Some of it may be wrong, and nobody reads it.
                if self.readable.read().failed.contains_key(&changed.id) {
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
        let ended = showing
            .filter_map(|(request, subscription)| {
                (subscription.release(durable) == Liveness::Ended).then_some(*request)
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
        let durable = {
            let mut readable = self.readable.write();
            readable.durable = readable.durable.max(epoch);
            readable.durable
        };
        let ended = self.release_subscriptions(durable);
        for request in ended {
            self.end_subscription(request).await?;
        }
        self.bound_waiting_bytes().await?;
        self.start_ready_reads().await
    }

    /// Sends counters that changed, and compacts what is idle.
    pub(crate) async fn housekeep(&mut self) -> Result<(), Error> {
        let ids: Vec<ObjectId> = self.readable.read().from.keys().copied().collect();
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
            if self.sent_statistics.get(&id) != Some(&statistics) {
                self.sent_statistics.insert(id, statistics.clone());
                self.respond(Response::CollectionStatistics { id, statistics })
                    .await;
            }
        }
        Ok(())
    }

    /// Ends reads and subscriptions; nothing can be read from now on.
    pub(crate) fn close(&mut self) {
        self.readable.write().from.clear();
        self.subscriptions.clear();
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
