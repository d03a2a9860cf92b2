//! The executor: one hash partition of all dataflows of a cluster.
//!
//! Owns the relations, the steps of all dataflows and the tick. Must not know threads or how messages travel.
//! Called by `worker`'s shard threads, which run N shards in lock step:
//!
//! ```text
//! begin_tick or begin_hydration      on every shard, with its partition of the inputs
//! repeat: run_stage                  on every shard; then every message is delivered
//! until no shard sent anything and none is pending()
//! end_tick                           on every shard
//! ```
//!
//! A dataflow may leave the shard for its first tick, which is a long one, and come back when it has seen the ticks that it missed: [`lane`].
//!
//! Invariants. Commands (create, drop, fail, tick) reach every shard in the same order, so that steps have the same names and stages everywhere.
//! A step runs at most once per tick, after all its inputs: steps run by (stage, name), and a message sent in one stage is for a later one.
//! Only steps that got input, or that are due, are visited. What breaks in a step of a dataflow is that dataflow's failure, and the tick goes on without it ([`failure`]).
//! An entry of the registry ([`crate::registry`]) is filled in the tick in which its first user hydrates, takes part in every tick from then on whatever becomes
//! of that user, and to the steps that read it is what a collection is: its relation when they hydrate, its changes afterwards.

mod create;
mod failure;
mod lane;
mod memory;
mod read;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use flowstone_types::normalize::normalize_batch;
use flowstone_types::{DeltaBatch, Epoch, EvalError, ObjectId, SourceChanges};

use self::lane::{Lane, Link};
use crate::batch::{Changes, consolidate, consolidate_errors, make_batch, relax};
use crate::error::caught;
use crate::operator::{RelationId, Relations, Tick, merge};
use crate::partition::partition_columns;
use crate::registry::{Entry, Registry, Use};
use crate::relation::Relation;
use crate::render::{Partitioning, release};
use crate::step::{
    ExchangeMessage, Kind, Route, Step, StepId, arrange, receive, route_changes, share,
};
use crate::{Error, ExprCompiler, QueryEvaluator, upsert};

/// What a shard is made of.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which shard this is, from 0.
    pub index: usize,
    /// How many shards there are.
    pub count: usize,
    /// Makes physical expressions.
    pub compiler: Arc<dyn ExprCompiler>,
    /// Evaluates queries that are not maintained incrementally.
    pub evaluator: Arc<dyn QueryEvaluator>,
    /// Deltas of at most so many rows are gone through row by row, larger ones column by column; [`POINT_ROWS_MAX`] unless a test forces one of them.
    pub point_rows_max: usize,
    /// What the expressions of a step may make of one row, in bytes; a row that needs more is an error.
    pub row_bytes_max: usize,
}

/// Up to so many rows the cost of making arrays outweighs what their kernels save.
pub const POINT_ROWS_MAX: usize = 64;

/// Changes to one collection in one tick: the part that this shard owns (see [`crate::partition_delta`] and [`crate::partition_changes`]).
#[derive(Clone, Debug)]
pub enum CollectionInput {
    /// As an upstream states them, in order.
    Changes(Vec<SourceChanges>),
    /// Rows with weights.
    Deltas(Vec<DeltaBatch>),
    /// Evaluation errors with weights. They belong to any one shard.
    Errors(Vec<(EvalError, i64)>),
}

/// What one tick did on this shard.
#[derive(Clone, Debug)]
pub struct TickOutput {
    /// The tick's epoch.
    pub epoch: Epoch,
    /// Every collection, materialized view, index and subscription that changed here, by id.
    pub outputs: Vec<CollectionOutput>,
    /// Materialized views, indexes and subscriptions that failed here in this tick, by id, and why.
    ///
    /// They do nothing on this shard any more; the others do not know. Before the next tick each is to be ended on all shards ([`Shard::fail_dataflow`]), and
    /// what any shard has put out in this tick for it or for those that are ended with it is to be thrown away: it is wrong, or a part of it is missing.
    pub failed: Vec<(ObjectId, EvalError)>,
}

/// How one collection changed on this shard.
#[derive(Clone, Debug)]
pub struct CollectionOutput {
    /// Which collection.
    pub id: ObjectId,
    /// Consolidated row changes.
    pub deltas: Vec<DeltaBatch>,
    /// Consolidated error changes.
    pub errors: Vec<(EvalError, i64)>,
}

/// A readable collection: a table, a materialized view or an index.
#[derive(Clone, Debug)]
pub(crate) struct Collection {
    pub(crate) relation: RelationId,
    /// Relaxed.
    pub(crate) schema: SchemaRef,
    pub(crate) partitioning: Partitioning,
    /// The stage at whose end its changes are known.
    pub(crate) stage: usize,
    key: Option<Vec<usize>>,
    /// The index that lookups use.
    lookup: usize,
    /// Whether the relation goes with it.
    owns_relation: bool,
    /// Whether its dataflow was ended in error: an error is all it has.
    failed: bool,
    readers: Vec<StepId>,
}

/// How far a dataflow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It takes part in no tick yet.
    Made,
    /// Its steps and relations are in a fork of the shard.
    Away,
    /// It takes part in ticks.
    Hydrated,
}

#[derive(Clone, Debug)]
struct Dataflow {
    steps: Vec<StepId>,
    private: Vec<RelationId>,
    indexes: Vec<(RelationId, usize)>,
    imports: Vec<(ObjectId, StepId)>,
    uses: Vec<Use>,
    progress: Progress,
    /// To its fork while it is away.
    link: Option<Arc<Link>>,
}

/// The tick that is running.
#[derive(Debug)]
struct Running {
    epoch: Epoch,
    hydrating: bool,
    stage: usize,
    dirty: BTreeSet<(usize, StepId)>,
    /// What is applied to relations when the tick ends.
    pending: BTreeMap<RelationId, Changes>,
    outputs: BTreeMap<ObjectId, Changes>,
    /// Dataflows that get their first tick.
    hydrates: Vec<ObjectId>,
    /// Entries of the registry that get theirs with them.
    fills: BTreeSet<RelationId>,
    /// Dataflows that broke.
    failed: BTreeMap<ObjectId, EvalError>,
}

/// One hash partition of all dataflows of a cluster. One thread changes it; between its calls, also within a tick, others may read it at epochs that ended.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    relations: Relations,
    collections: BTreeMap<ObjectId, Collection>,
    dataflows: BTreeMap<ObjectId, Dataflow>,
    registry: Registry,
    steps: BTreeMap<StepId, Step>,
    /// The steps whose output changes although nothing comes in, and at which epoch next.
    due: BTreeMap<StepId, Epoch>,
    /// How many were begun.
    renderings: u64,
    next_relation: u64,
    last_epoch: Epoch,
    /// Ticks that have ended, but for those in which dataflows were hydrated: an epoch may have several.
    ticks: u64,
    since: Epoch,
    running: Option<Running>,
    with_history: BTreeSet<RelationId>,
    may_compact: BTreeSet<RelationId>,
    /// Those with indexes that are not complete.
    building: BTreeSet<RelationId>,
    /// Whether this is a fork, and of what.
    lane: Option<Lane>,
    /// A failure in a call that returns nothing; the next one that can returns it.
    failure: Option<Error>,
}

impl Shard {
    /// An empty shard.
    #[must_use]
    pub fn new(config: ShardConfig) -> Self {
        Self {
            config,
            relations: Relations::default(),
            collections: BTreeMap::new(),
            dataflows: BTreeMap::new(),
            registry: Registry::default(),
            steps: BTreeMap::new(),
            due: BTreeMap::new(),
            renderings: 0,
            next_relation: 0,
            last_epoch: Epoch::MIN,
            ticks: 0,
            since: Epoch::MIN,
            running: None,
            with_history: BTreeSet::new(),
            may_compact: BTreeSet::new(),
            building: BTreeSet::new(),
            lane: None,
            failure: None,
        }
    }

    /// The columns that decide which shard owns a row of a collection: see [`crate::partition_columns`].
    #[must_use]
    pub fn partition_columns(key: Option<&[usize]>, columns: usize) -> Vec<usize> {
        partition_columns(key, columns)
    }

    /// The epoch of the last tick.
    #[must_use]
    pub const fn last_epoch(&self) -> Epoch {
        self.last_epoch
    }

    /// A collection exists from now on, empty. `key`: columns in which rows are unique.
    ///
    /// # Errors
    /// [`Error::DuplicateCollection`]; [`Error::Plan`] if the key is out of range.
    pub fn create_collection(
        &mut self,
        id: ObjectId,
        schema: SchemaRef,
        key: Option<Vec<usize>>,
    ) -> Result<(), Error> {
        if self.collections.contains_key(&id) {
            return Err(Error::DuplicateCollection(id));
        }
        let width = schema.fields().len();
        if key.iter().flatten().any(|column| *column >= width) {
            return Err(Error::Plan(format!("key of {id} is out of range")));
        }
        let schema = relax(&schema);
        let partition = partition_columns(key.as_deref(), width);
        let relation = self.add_relation(
            Relation::new(id.to_string(), Arc::clone(&schema), partition.clone()).with_history(),
        );
        let partitioning = Some(if self.config.count == 1 {
            Route::Single
        } else {
            Route::Hash(partition)
        });
        let collection = Collection {
            relation,
            schema,
            partitioning,
            stage: 0,
            key,
            lookup: 0,
            owns_relation: true,
            failed: false,
            readers: Vec::new(),
        };
        self.collections.insert(id, collection);
        Ok(())
    }

    /// Loads recovered rows, this shard's part of them, as of `epoch`; no tick sees them as changes. May be called several times per collection.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`]; [`Error::Type`] if the rows do not have the collection's columns.
    pub fn load_collection(
        &mut self,
        id: ObjectId,
        rows: &RecordBatch,
        epoch: Epoch,
    ) -> Result<(), Error> {
        let collection = self
            .collections
            .get(&id)
            .ok_or(Error::UnknownCollection(id))?;
        let rows = normalize_batch(&make_batch(
            &collection.schema,
            rows.columns().to_vec(),
            rows.num_rows(),
        )?);
        let relation = self.relations.get_mut(collection.relation)?;
        relation.start_history(epoch);
        let delta = consolidate(
            &collection.schema,
            &[DeltaBatch::insert(rows, epoch)],
            epoch,
        )?;
        relation.apply(delta.as_ref(), &[], epoch)?;
        self.last_epoch = self.last_epoch.max(epoch);
        Ok(())
    }

    /// Gives a collection errors that are in it from `epoch` on, outside of any tick: before any dataflow reads it. The collection may belong to one shard
    /// only in this respect.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`].
    pub fn load_errors(
        &mut self,
        id: ObjectId,
        errors: &[(EvalError, i64)],
        epoch: Epoch,
    ) -> Result<(), Error> {
        let collection = self
            .collections
            .get(&id)
            .ok_or(Error::UnknownCollection(id))?;
        let relation = self.relations.get_mut(collection.relation)?;
        relation.start_history(epoch);
        relation.apply(None, errors, epoch)?;
        self.last_epoch = self.last_epoch.max(epoch);
        Ok(())
    }

    /// Forgets a collection, a dataflow or a subscription. Whatever read it is gone already.
    pub fn drop_object(&mut self, id: ObjectId) {
        self.remove_dataflow(id);
        for (relation, entry) in self.registry.remove_over(id) {
            self.remove_entry(relation, &entry);
        }
        if let Some(collection) = self.collections.remove(&id)
            && collection.owns_relation
        {
            self.relations.0.remove(&collection.relation);
        }
        self.forget_relations();
    }

    /// Opens a tick: `inputs` are this shard's part of the changes of base collections, in order per collection. An epoch may come in several ticks, of which the
    /// last completes it: nobody should read it before. Of a fork, `inputs` are what the shard has put out for [`Shard::imports_of`] its dataflow in one tick,
    /// whatever collections these are.
    ///
    /// # Errors
    /// [`Error::Invariant`] if a tick is open, `epoch` is earlier than the last one or this is a fork that was not hydrated; [`Error::UnknownCollection`].
    pub fn begin_tick(
        &mut self,
        epoch: Epoch,
        inputs: Vec<(ObjectId, CollectionInput)>,
    ) -> Result<(), Error> {
        if epoch < self.last_epoch {
            return Err(Error::invariant(format!(
                "epoch {epoch} after epoch {}",
                self.last_epoch
            )));
        }
        self.check_fed()?;
        self.open(epoch, false)?;
        self.wake_due(epoch);
        self.count_seen(&inputs);
        let mut by_collection = BTreeMap::<ObjectId, (Vec<SourceChanges>, Changes)>::new();
        for (id, input) in inputs {
            let (changes, direct) = by_collection.entry(id).or_default();
            match input {
                CollectionInput::Changes(more) => changes.extend(more),
                CollectionInput::Deltas(deltas) => direct.deltas.extend(deltas),
                CollectionInput::Errors(errors) => direct.errors.extend(errors),
            }
        }
        for (id, (changes, direct)) in by_collection {
            let collection = self
                .collections
                .get(&id)
                .ok_or(Error::UnknownCollection(id))?;
            let relation = self.relations.get(collection.relation)?;
            let mut all = Changes {
                deltas: Vec::with_capacity(direct.deltas.len()),
                errors: direct.errors,
            };
            for delta in direct.deltas {
                let rows = make_batch(
                    &collection.schema,
                    delta.rows.columns().to_vec(),
                    delta.len(),
                )?;
                all.push(DeltaBatch::new(
                    normalize_batch(&rows),
                    delta.weights,
                    epoch,
                ));
            }
            if !changes.is_empty() {
                all.append(upsert::resolve(
                    relation,
                    collection.key.as_deref(),
                    &changes,
                    epoch,
                )?);
            }
            let delta = consolidate(&collection.schema, &all.deltas, epoch)?;
            let consolidated = Changes {
                deltas: delta.into_iter().collect(),
                errors: consolidate_errors(all.errors)?,
            };
            self.publish(id, consolidated)?;
        }
        Ok(())
    }

    /// The first epoch at which something changes here although nothing comes in. A tick of that epoch or a later one, which needs no inputs, makes the changes;
    /// whoever opens ticks sees to it that there is one in time. `None` while nothing is due. Of what is away in a fork the fork knows.
    #[must_use]
    pub fn next_due(&self) -> Option<Epoch> {
        self.due.values().min().copied()
    }

    /// Opens the first tick of dataflows: they read everything their inputs hold as of the last tick, as one bulk change at `epoch`, and their output
    /// appears in [`TickOutput`] like any other. Run as any tick: [`Shard::run_stage`], [`Shard::deliver`], [`Shard::end_tick`].
    ///
    /// `ids` may read each other's results if they were created in that order; all of them hydrate in this one tick. A view whose collection was
    /// loaded from storage yields only what differs from it. `epoch` is the last tick's, or a later one; it is the first at which they are readable.
    /// One that fails meanwhile ([`TickOutput::failed`]) is not hydrated. Indexes that they use and that are not complete are built here.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`] for an id that is not a dataflow, [`Error::Away`] for one that is hydrated elsewhere, [`Error::Invariant`] if a tick is open or
    /// one was hydrated before.
    pub fn begin_hydration(&mut self, ids: &[ObjectId], epoch: Epoch) -> Result<(), Error> {
        if epoch < self.last_epoch {
            return Err(Error::invariant(format!(
                "hydration at {epoch} after epoch {}",
                self.last_epoch
            )));
        }
        for id in ids {
            let dataflow = self.dataflows.get(id);
            match dataflow.ok_or(Error::UnknownCollection(*id))?.progress {
                Progress::Made => {}
                Progress::Away => return Err(Error::Away(*id)),
                Progress::Hydrated => {
                    return Err(Error::invariant(format!("{id} is hydrated already")));
                }
            }
        }
        self.open(epoch, true)?;
        self.complete_indexes(ids)?;
        let Some(running) = &mut self.running else {
            return Err(Error::invariant("tick was just opened"));
        };
        running.hydrates = ids.to_vec();
        for dataflow in ids.iter().filter_map(|id| self.dataflows.get(id)) {
            for step in &dataflow.steps {
                if let Some(found) = self.steps.get(step)
                    && found.kind.starts_hydration()
                {
                    running.dirty.insert((found.stage, *step));
                }
            }
            for used in &dataflow.uses {
                // Whoever comes first fills it.
                if let Some(entry) = self.registry.get(used.entry)
                    && !entry.hydrated
                    && let Some(source) = self.steps.get(&entry.source)
                {
                    running.dirty.insert((source.stage, entry.source));
                    running.fills.insert(used.entry);
                }
            }
        }
        Ok(())
    }

    /// Runs every step of the current stage that has input; rows for other shards go to `out`. Returns whether anything was sent.
    ///
    /// A step that fails or panics ends its dataflow on this shard ([`TickOutput::failed`]); what the step has sent is sent.
    ///
    /// # Errors
    /// [`Error::Invariant`] if no tick is open, or what [`Shard::deliver`] could not say: the shard must not be used any more.
    pub fn run_stage(
        &mut self,
        out: &mut dyn FnMut(usize, ExchangeMessage),
    ) -> Result<bool, Error> {
        self.run_stage_with(out, &mut |_: &Self| {})
    }

    /// The same; after every step `between` may read the shard, at epochs that ended.
    ///
    /// # Errors
    /// As [`Shard::run_stage`].
    pub fn run_stage_with(
        &mut self,
        out: &mut dyn FnMut(usize, ExchangeMessage),
        between: &mut dyn FnMut(&Self),
    ) -> Result<bool, Error> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let stage = self.running()?.stage;
        let mut sent = false;
        while let Some((at, step)) = self.running()?.dirty.first().copied() {
            if at > stage {
                break;
            }
            if at < stage {
                return Err(Error::invariant("a step got input after its stage"));
            }
            self.running()?.dirty.pop_first();
            self.run_step(step, &mut sent, out)?;
            between(self);
        }
        self.running()?.stage += 1;
        Ok(sent)
    }

    /// Takes in what another shard sent in the stage that just ended.
    pub fn deliver(&mut self, message: ExchangeMessage) {
        let (Some(step), Some(running)) = (self.steps.get_mut(&message.target), &mut self.running)
        else {
            self.failure = Some(Error::invariant(
                "message for a step that is not there, or between ticks",
            ));
            return;
        };
        // The sender does not know that the dataflow has failed here.
        if step.is_stopped() {
            return;
        }
        step.inbox.push((message.from, message.deltas));
        running.dirty.insert((step.stage, message.target));
    }

    /// Whether steps of this or later stages have input.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| !running.dirty.is_empty())
    }

    /// Closes the tick: all stages are done on all shards. Changes are applied to the relations; one of a dataflow that cannot take them ends the dataflow on
    /// this shard ([`TickOutput::failed`]).
    ///
    /// # Errors
    /// Of a base collection [`Error::NegativeWeight`] or whatever else its relation says; a broken invariant: the shard must not be used any more.
    pub fn end_tick(&mut self) -> Result<TickOutput, Error> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let running = self.running()?;
        if !running.dirty.is_empty() {
            return Err(Error::invariant("tick ended before its last stage"));
        }
        let epoch = running.epoch;
        while let Some((relation, changes)) = self.running()?.pending.pop_first() {
            if let Err(error) = caught(|| self.apply(relation, &changes, epoch)) {
                match self.owner_of(relation) {
                    Some(owner) => self.stop(owner, error.into())?,
                    None => return Err(error),
                }
            }
        }
        let running = self
            .running
            .take()
            .ok_or_else(|| Error::invariant("no tick is open"))?;
        for relation in running.fills {
            self.fill(relation);
        }
        for id in running.hydrates {
            if !running.failed.contains_key(&id) {
                self.take_part(id);
            }
        }
        if running.hydrating {
            self.forget_passing();
        } else {
            self.ticks += 1;
            self.count_sent(&running.outputs);
        }
        self.last_epoch = running.epoch;
        // What has failed may be half changed, and its fork runs no more.
        if running.failed.is_empty() {
            self.end_in_fork(&running.outputs);
        }
        let outputs = running
            .outputs
            .into_iter()
            .map(|(id, changes)| CollectionOutput {
                id,
                deltas: changes.deltas,
                errors: changes.errors,
            });
        Ok(TickOutput {
            epoch: running.epoch,
            outputs: outputs.collect(),
            failed: running.failed.into_iter().collect(),
        })
    }

    /// An entry of the registry holds what its collection does, and reads its changes from now on.
    fn fill(&mut self, relation: RelationId) {
        let Some(entry) = self.registry.get_mut(relation) else {
            return;
        };
        entry.hydrated = true;
        if let Some(collection) = self.collections.get_mut(&entry.lineage.collection) {
            collection.readers.push(entry.source);
        }
    }

    /// A dataflow has read what its inputs hold, and reads their changes from now on.
    fn take_part(&mut self, id: ObjectId) {
        let Some(dataflow) = self.dataflows.get_mut(&id) else {
            return;
        };
        dataflow.progress = Progress::Hydrated;
        dataflow.link = None;
        for (collection, step) in &dataflow.imports {
            if let Some(collection) = self.collections.get_mut(collection) {
                collection.readers.push(*step);
            }
        }
        for used in &dataflow.uses {
            if let Some(entry) = self.registry.get(used.entry)
                && let Some(share) = self.steps.get_mut(&entry.share)
            {
                share.consumers.push((used.step, 0));
            }
        }
    }

    fn add_relation(&mut self, relation: Relation) -> RelationId {
        let id = RelationId(self.next_relation);
        self.next_relation += 1;
        self.relations.0.insert(id, relation);
        id
    }

    /// Takes away a dataflow with all that it keeps for itself. Its collection stays, with or without a relation.
    fn remove_dataflow(&mut self, id: ObjectId) {
        let Some(dataflow) = self.dataflows.remove(&id) else {
            return;
        };
        for step in &dataflow.steps {
            self.steps.remove(step);
            self.due.remove(step);
        }
        for (collection, step) in &dataflow.imports {
            if let Some(collection) = self.collections.get_mut(collection) {
                collection.readers.retain(|reader| reader != step);
            }
        }
        release(&mut self.relations, &dataflow.private, &dataflow.indexes);
        for used in &dataflow.uses {
            if let Some(entry) = self.registry.get(used.entry)
                && let Some(share) = self.steps.get_mut(&entry.share)
            {
                share.consumers.retain(|(reader, _)| *reader != used.step);
            }
            if let Some(entry) = self.registry.release(used.entry, id) {
                self.remove_entry(used.entry, &entry);
            }
        }
    }

    /// Takes away what an entry was that is not in the registry any more.
    fn remove_entry(&mut self, relation: RelationId, entry: &Entry) {
        for step in &entry.steps {
            self.steps.remove(step);
        }
        if let Some(collection) = self.collections.get_mut(&entry.lineage.collection) {
            collection.readers.retain(|reader| *reader != entry.source);
        }
        self.relations.0.remove(&relation);
    }

    fn open(&mut self, epoch: Epoch, hydrating: bool) -> Result<(), Error> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.running.is_some() {
            return Err(Error::invariant("a tick is open"));
        }
        self.running = Some(Running {
            epoch,
            hydrating,
            stage: 0,
            dirty: BTreeSet::new(),
            pending: BTreeMap::new(),
            outputs: BTreeMap::new(),
            hydrates: Vec::new(),
            fills: BTreeSet::new(),
            failed: BTreeMap::new(),
        });
        Ok(())
    }

    /// Visits the steps that are due, whether or not anything comes in.
    fn wake_due(&mut self, epoch: Epoch) {
        let Some(running) = &mut self.running else {
            return;
        };
        for (id, _) in self.due.iter().filter(|(_, due)| **due <= epoch) {
            if let Some(step) = self.steps.get(id)
                && !step.is_stopped()
            {
                running.dirty.insert((step.stage, *id));
            }
        }
    }

    fn running(&mut self) -> Result<&mut Running, Error> {
        self.running
            .as_mut()
            .ok_or_else(|| Error::invariant("no tick is open"))
    }

    /// Notes a stored collection's consolidated changes: applied when the tick ends if somebody needs the rows, reported, and read by those who import it.
    fn publish(&mut self, id: ObjectId, changes: Changes) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let relation = self
            .collections
            .get(&id)
            .ok_or(Error::UnknownCollection(id))?
            .relation;
        if self.keeps(relation) {
            // Of an index over this very relation, in a fork that reads both, these are the same changes once more.
            self.running()?.pending.insert(relation, changes.clone());
        }
        self.report(id, changes)
    }

    /// Reports changes and hands them to those who import the collection and take part in ticks.
    fn report(&mut self, id: ObjectId, changes: Changes) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let Some(running) = &mut self.running else {
            return Err(Error::invariant("no tick is open"));
        };
        // While it hydrates, those who hydrate from it read its state; nobody else may read it yet.
        let readers = self
            .collections
            .get(&id)
            .map_or(&[][..], |collection| &collection.readers);
        if running.hydrating && !readers.is_empty() {
            return Err(Error::invariant(format!("{id} hydrates after its readers")));
        }
        for reader in readers {
            let Some(step) = self.steps.get_mut(reader) else {
                return Err(Error::invariant("reader is gone"));
            };
            // A step of a dataflow that has failed here has no port.
            if let Some(input) = step.inputs.first_mut() {
                input.append(changes.clone());
                running.dirty.insert((step.stage, *reader));
            }
        }
        if self.lane.as_ref().is_none_or(|lane| lane.dataflow == id) {
            running.outputs.entry(id).or_default().append(changes);
        }
        Ok(())
    }

    /// Runs a step; `sent` becomes true if rows went to other shards. Whatever breaks in it is the failure of its dataflow, or of those that share it.
    fn run_step(
        &mut self,
        id: StepId,
        sent: &mut bool,
        out: &mut dyn FnMut(usize, ExchangeMessage),
    ) -> Result<(), Error> {
        match caught(|| self.try_step(id, sent, out)) {
            Ok(()) => Ok(()),
            Err(error) => match self.steps.get(&id).map(|step| step.owner) {
                Some(owner) => self.stop(owner, error.into()),
                None => Err(error),
            },
        }
    }

    fn try_step(
        &mut self,
        id: StepId,
        sent: &mut bool,
        out: &mut dyn FnMut(usize, ExchangeMessage),
    ) -> Result<(), Error> {
        let Some(running) = &mut self.running else {
            return Err(Error::invariant("no tick is open"));
        };
        let (epoch, hydrating) = (running.epoch, running.hydrating);
        let step = self
            .steps
            .get_mut(&id)
            .ok_or_else(|| Error::invariant("step is gone"))?;
        let inputs = step
            .inputs
            .iter_mut()
            .map(std::mem::take)
            .collect::<Vec<_>>();
        let output = match &mut step.kind {
            Kind::Exchange { route, receiver } => {
                let (receiver, input) = (*receiver, merge(inputs));
                let parts = route_changes(&input.deltas, route, self.config.count)?;
                let mut kept = Vec::new();
                for (shard, deltas) in parts {
                    if shard == self.config.index {
                        kept = deltas;
                    } else {
                        *sent = true;
                        out(
                            shard,
                            ExchangeMessage {
                                target: receiver,
                                from: self.config.index,
                                deltas,
                            },
                        );
                    }
                }
                if !kept.is_empty() {
                    let receiving = self
                        .steps
                        .get_mut(&receiver)
                        .ok_or_else(|| Error::invariant("receiver is gone"))?;
                    receiving.inbox.push((self.config.index, kept));
                    running.dirty.insert((receiving.stage, receiver));
                }
                return self.pass_on(
                    id,
                    Changes {
                        deltas: Vec::new(),
                        errors: input.errors,
                    },
                );
            }
            Kind::Receive => receive(inputs, std::mem::take(&mut step.inbox)),
            Kind::Share { relation } => {
                let relation = *relation;
                let input = receive(inputs, std::mem::take(&mut step.inbox));
                let changes = share(&mut self.relations, relation, input, (epoch, hydrating))?;
                if !hydrating && !changes.is_empty() {
                    running.pending.insert(relation, changes.clone());
                }
                changes
            }
            Kind::Arrange { relation } => {
                let relation = *relation;
                let changes = arrange(
                    &mut self.relations,
                    relation,
                    merge(inputs),
                    (epoch, hydrating),
                )?;
                if !hydrating && !changes.deltas.is_empty() {
                    running.pending.insert(
                        relation,
                        Changes {
                            deltas: changes.deltas.clone(),
                            errors: Vec::new(),
                        },
                    );
                }
                changes
            }
            Kind::Export {
                collection,
                relation,
            } => {
                let (collection, relation) = (*collection, *relation);
                return self.export(collection, relation, merge(inputs));
            }
            Kind::Publish {
                id: collection,
                schema,
            } => {
                let (collection, input) = (*collection, merge(inputs));
                let delta = consolidate(schema, &input.deltas, epoch)?;
                let changes = Changes {
                    deltas: delta.into_iter().collect(),
                    errors: consolidate_errors(input.errors)?,
                };
                return self.report(collection, changes);
            }
            Kind::Operator(operator) => {
                let tick = Tick {
                    epoch,
                    point_rows_max: self.config.point_rows_max,
                    relations: &self.relations,
                };
                let output = if hydrating {
                    operator.hydrate(tick, inputs)?
                } else {
                    operator.run(tick, inputs)?
                };
                match operator.next_due() {
                    Some(due) => self.due.insert(id, due),
                    None => self.due.remove(&id),
                };
                output
            }
            Kind::Stopped => return Err(Error::invariant("a step runs that has stopped")),
        };
        self.pass_on(id, output)
    }

    fn apply(&mut self, id: RelationId, changes: &Changes, epoch: Epoch) -> Result<(), Error> {
        let relation = self.relations.get_mut(id)?;
        relation.apply(changes.deltas.first(), &changes.errors, epoch)?;
        if relation.has_history() {
            self.with_history.insert(id);
        }
        self.may_compact.insert(id);
        Ok(())
    }

    /// Hands a step's output to its consumers.
    fn pass_on(&mut self, id: StepId, output: Changes) -> Result<(), Error> {
        if output.is_empty() {
            return Ok(());
        }
        let consumers = self
            .steps
            .get(&id)
            .map_or_else(Vec::new, |step| step.consumers.clone());
        let Some(running) = &mut self.running else {
            return Err(Error::invariant("no tick is open"));
        };
        for (consumer, port) in consumers {
            let step = self
                .steps
                .get_mut(&consumer)
                .ok_or_else(|| Error::invariant("consumer is gone"))?;
            let Some(input) = step.inputs.get_mut(port) else {
                // Of a dataflow that has failed here, and shared this with others.
                if step.is_stopped() {
                    continue;
                }
                return Err(Error::invariant("consumer without port"));
            };
            input.append(output.clone());
            running.dirty.insert((step.stage, consumer));
        }
        Ok(())
    }

    /// The content of an exported collection. At hydration it replaces what was loaded, and is there at once for those who hydrate from it.
    fn export(
        &mut self,
        id: ObjectId,
        relation_id: RelationId,
        input: Changes,
    ) -> Result<(), Error> {
        let running = self.running()?;
        let (epoch, hydrating) = (running.epoch, running.hydrating);
        let relation = self.relations.get_mut(relation_id)?;
        let schema = Arc::clone(relation.schema());
        let (mut deltas, mut errors) = (input.deltas, input.errors);
        if hydrating && !relation.is_empty() {
            let loaded = relation.current();
            for delta in loaded.deltas(epoch)? {
                deltas.push(delta.negate()?);
            }
            errors.extend(
                loaded
                    .errors
                    .into_iter()
                    .map(|(error, weight)| (error, -weight)),
            );
        }
        let delta = consolidate(&schema, &deltas, epoch)?;
        let changes = Changes {
            deltas: delta.into_iter().collect(),
            errors: consolidate_errors(errors)?,
        };
        if !hydrating {
            return self.publish(id, changes);
        }
        relation.start_history(epoch);
        relation.apply(changes.deltas.first(), &changes.errors, epoch)?;
        self.may_compact.insert(relation_id);
        self.report(id, changes)
    }
}

#[cfg(test)]
mod tests;
