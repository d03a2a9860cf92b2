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
//! Invariants. Commands (create, drop, tick) reach every shard in the same order, so that steps have the same numbers and stages everywhere.
//! A step runs at most once per tick, after all its inputs: steps run by (stage, number), and a message sent in one stage is for a later one.
//! Only steps that got input are visited.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::Plan;
use flowstone_types::hash::hash_rows;
use flowstone_types::normalize::normalize_batch;
use flowstone_types::{DeltaBatch, Epoch, EvalError, ObjectId, SourceChanges, Weights};

use crate::batch::{Changes, consolidate, consolidate_errors, make_batch, relax, weights_of};
use crate::operator::{RelationId, Relations, Tick};
use crate::partition::partition_columns;
use crate::relation::Relation;
use crate::render::{Partitioning, Rendered, Renderer, Rendering, release};
use crate::step::{ExchangeMessage, Kind, Route, Step, StepId, arrange, merge, route_changes};
use crate::{Error, ExprCompiler, QueryEvaluator, Snapshot, upsert};

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
#[derive(Debug)]
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
    readers: Vec<StepId>,
}

#[derive(Debug)]
struct Dataflow {
    steps: Vec<StepId>,
    private: Vec<RelationId>,
    indexes: Vec<(RelationId, usize)>,
    imports: Vec<(ObjectId, StepId)>,
    hydrated: bool,
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
}

/// One hash partition of all dataflows of a cluster. One thread changes it; between its calls, also within a tick, others may read it at epochs that ended.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    relations: Relations,
    collections: BTreeMap<ObjectId, Collection>,
    dataflows: BTreeMap<ObjectId, Dataflow>,
    steps: BTreeMap<StepId, Step>,
    next_step: u64,
    next_relation: u64,
    last_epoch: Epoch,
    since: Epoch,
    running: Option<Running>,
    with_history: BTreeSet<RelationId>,
    may_compact: BTreeSet<RelationId>,
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
            steps: BTreeMap::new(),
            next_step: 0,
            next_relation: 0,
            last_epoch: Epoch::MIN,
            since: Epoch::MIN,
            running: None,
            with_history: BTreeSet::new(),
            may_compact: BTreeSet::new(),
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
        let relation = RelationId(self.next_relation);
        self.next_relation += 1;
        self.relations.0.insert(
            relation,
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

    /// Renders a materialized view or an index. It takes part in ticks once it was hydrated: see [`Shard::begin_hydration`].
    ///
    /// # Errors
    /// [`Error::UnknownCollection`] if an input, or the collection to export to, was not created; [`Error::Plan`]. Nothing has changed then.
    pub fn create_dataflow(&mut self, description: &DataflowDescription) -> Result<(), Error> {
        let id = description.id;
        match &description.export {
            Export::Collection => self.create_view(id, &description.plan),
            Export::Index { key } => self.create_index(id, &description.plan, key),
        }
    }

    /// Renders a query whose changes appear in [`TickOutput`] under `id`, from its hydration on. Nothing of the result is kept.
    ///
    /// # Errors
    /// As [`Shard::create_dataflow`].
    pub fn create_subscription(&mut self, id: ObjectId, plan: &Plan) -> Result<(), Error> {
        let rendering = self.render(id, plan, |renderer, root| {
            // Changes of one row meet, so that they cancel.
            let all = Route::Hash((0..root.schema.fields().len()).collect());
            let root = if root.partitioning == Some(Route::Single) {
                root
            } else {
                renderer.exchange(root, &all)?
            };
            let kind = Kind::Publish {
                id,
                schema: Arc::clone(&root.schema),
            };
            Ok(renderer.add(kind, root.stage, &[root.step], None, root.schema))
        })?;
        self.install(id, rendering);
        Ok(())
    }

    /// Forgets a collection, a dataflow or a subscription. Whatever read it is gone already.
    pub fn drop_object(&mut self, id: ObjectId) {
        if let Some(dataflow) = self.dataflows.remove(&id) {
            for step in &dataflow.steps {
                self.steps.remove(step);
            }
            for (collection, step) in &dataflow.imports {
                if let Some(collection) = self.collections.get_mut(collection) {
                    collection.readers.retain(|reader| reader != step);
                }
            }
            release(&mut self.relations, &dataflow.private, &dataflow.indexes);
        }
        if let Some(collection) = self.collections.remove(&id)
            && collection.owns_relation
        {
            self.relations.0.remove(&collection.relation);
        }
        self.with_history
            .retain(|relation| self.relations.0.contains_key(relation));
        self.may_compact
            .retain(|relation| self.relations.0.contains_key(relation));
    }

    /// Opens a tick: `inputs` are this shard's part of the changes of base collections, in order per collection.
    ///
    /// # Errors
    /// [`Error::Invariant`] if a tick is open or `epoch` is not later than the last one; [`Error::UnknownCollection`].
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
        self.open(epoch, false)?;
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

    /// Opens the first tick of dataflows: they read everything their inputs hold as of the last tick, as one bulk change at `epoch`, and their output
    /// appears in [`TickOutput`] like any other. Run as any tick: [`Shard::run_stage`], [`Shard::deliver`], [`Shard::end_tick`].
    ///
    /// `ids` may read each other's results if they were created in that order; all of them hydrate in this one tick. A view whose collection was
    /// loaded from storage yields only what differs from it. `epoch` is the last tick's, or a later one; it is the first at which they are readable.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`] for an id that is not a dataflow, [`Error::Invariant`] if a tick is open or one was hydrated before.
    pub fn begin_hydration(&mut self, ids: &[ObjectId], epoch: Epoch) -> Result<(), Error> {
        if epoch < self.last_epoch {
            return Err(Error::invariant(format!(
                "hydration at {epoch} after epoch {}",
                self.last_epoch
            )));
        }
        for id in ids {
            if self
                .dataflows
                .get(id)
                .ok_or(Error::UnknownCollection(*id))?
                .hydrated
            {
                return Err(Error::invariant(format!("{id} is hydrated already")));
            }
        }
        self.open(epoch, true)?;
        let Some(running) = &mut self.running else {
            return Err(Error::invariant("tick was just opened"));
        };
        running.hydrates = ids.to_vec();
        for id in ids {
            for step in self
                .dataflows
                .get(id)
                .map_or(&[][..], |dataflow| &dataflow.steps)
            {
                if let Some(found) = self.steps.get(step)
                    && found.kind.starts_hydration(self.config.index)
                {
                    running.dirty.insert((found.stage, *step));
                }
            }
        }
        Ok(())
    }

    /// Runs every step of the current stage that has input; rows for other shards go to `out`. Returns whether anything was sent.
    ///
    /// # Errors
    /// Whatever broke: the shard must not be used any more.
    pub fn run_stage(
        &mut self,
        out: &mut dyn FnMut(usize, ExchangeMessage),
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
            sent |= self.run_step(step, out)?;
        }
        self.running()?.stage += 1;
        Ok(sent)
    }

    /// Takes in what another shard sent in the stage that just ended.
    pub fn deliver(&mut self, message: ExchangeMessage) {
        match (self.steps.get_mut(&message.target), &mut self.running) {
            (Some(step), Some(running)) => {
                step.inbox.push((message.from, message.deltas));
                running.dirty.insert((step.stage, message.target));
            }
            _ => {
                self.failure = Some(Error::invariant(
                    "message for a step that is not there, or between ticks",
                ))
            }
        }
    }

    /// Whether steps of this or later stages have input.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| !running.dirty.is_empty())
    }

    /// Closes the tick: all stages are done on all shards. Changes are applied to the relations.
    ///
    /// # Errors
    /// [`Error::NegativeWeight`] or another broken invariant: the shard must not be used any more.
    pub fn end_tick(&mut self) -> Result<TickOutput, Error> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let running = self
            .running
            .take()
            .ok_or_else(|| Error::invariant("no tick is open"))?;
        if !running.dirty.is_empty() {
            return Err(Error::invariant("tick ended before its last stage"));
        }
        for (id, changes) in running.pending {
            let relation = self.relations.get_mut(id)?;
            relation.apply(changes.deltas.first(), &changes.errors, running.epoch)?;
            if relation.has_history() {
                self.with_history.insert(id);
            }
            self.may_compact.insert(id);
        }
        for id in running.hydrates {
            if let Some(dataflow) = self.dataflows.get_mut(&id) {
                dataflow.hydrated = true;
                // From now on it reads changes.
                for (collection, step) in &dataflow.imports {
                    if let Some(collection) = self.collections.get_mut(collection) {
                        collection.readers.push(*step);
                    }
                }
            }
        }
        self.last_epoch = running.epoch;
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
        })
    }

    /// No one will read below `since` any more.
    pub fn allow_compaction(&mut self, since: Epoch) {
        self.since = self.since.max(since);
        let relations = &mut self.relations;
        let may_compact = &mut self.may_compact;
        self.with_history.retain(|id| {
            let Some(relation) = relations.0.get_mut(id) else {
                return false;
            };
            relation.allow_compaction(since);
            may_compact.insert(*id);
            relation.has_history()
        });
    }

    /// Compacts relations until about `fuel` rows were looked at. Returns whether there is more to do. Does nothing within a tick.
    pub fn maintain(&mut self, fuel: usize) -> bool {
        if self.running.is_some() {
            return true;
        }
        let mut fuel = fuel;
        while fuel > 0
            && let Some(id) = self.may_compact.pop_first()
        {
            let Some(relation) = self.relations.0.get_mut(&id) else {
                continue;
            };
            if !relation.wants_compaction() {
                continue;
            }
            match relation.compact(fuel) {
                Ok(left) => fuel = left,
                Err(error) => self.failure = Some(error),
            }
            if relation.wants_compaction() {
                self.may_compact.insert(id);
            }
        }
        !self.may_compact.is_empty()
    }

    /// This shard's part of a collection or index at `epoch`, which is at or above `since` and at most the last tick's (a later one reads the last).
    ///
    /// # Errors
    /// [`Error::UnknownCollection`]; [`Error::SinceAdvanced`].
    pub fn snapshot(&self, id: ObjectId, epoch: Epoch) -> Result<Snapshot, Error> {
        let (_, relation) = self.readable(id)?;
        self.check_since(epoch)?;
        relation.snapshot(epoch)
    }

    /// The rows of an index or collection whose key is one of `keys` (one array per key column, one row per key), as of the last tick.
    ///
    /// The key is the index's, or the collection's (all columns if it has none). NULL finds NULL. Rows come in the order of `keys`.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`]; [`Error::Invariant`] if `keys` does not fit the key.
    pub fn lookup(&self, id: ObjectId, keys: &[ArrayRef]) -> Result<(RecordBatch, Weights), Error> {
        self.find(id, keys, None)?
            .ok_or_else(|| Error::invariant("a lookup without a bound stopped at one"))
    }

    /// The same as of `epoch`, which is at or above `since` and at most the last tick's. `None` if more than `rows_max` rows had to be looked at for one key:
    /// those of the key, and those that changed after the epoch.
    ///
    /// # Errors
    /// As [`Shard::lookup`], and [`Error::SinceAdvanced`].
    pub fn lookup_at(
        &self,
        id: ObjectId,
        keys: &[ArrayRef],
        epoch: Epoch,
        rows_max: usize,
    ) -> Result<Option<(RecordBatch, Weights)>, Error> {
        self.check_since(epoch)?;
        self.find(id, keys, Some((epoch, rows_max)))
    }

    /// The least evaluation error that a collection or index has on this shard at `epoch`.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`].
    pub fn error_at(&self, id: ObjectId, epoch: Epoch) -> Result<Option<EvalError>, Error> {
        let errors = self.readable(id)?.1.errors_at(epoch);
        Ok(errors.into_keys().next())
    }

    fn check_since(&self, epoch: Epoch) -> Result<(), Error> {
        if epoch < self.since {
            return Err(Error::SinceAdvanced {
                epoch,
                since: self.since,
            });
        }
        Ok(())
    }

    fn readable(&self, id: ObjectId) -> Result<(&Collection, &Relation), Error> {
        let collection = self
            .collections
            .get(&id)
            .ok_or(Error::UnknownCollection(id))?;
        Ok((collection, self.relations.get(collection.relation)?))
    }

    fn find(
        &self,
        id: ObjectId,
        keys: &[ArrayRef],
        at: Option<(Epoch, usize)>,
    ) -> Result<Option<(RecordBatch, Weights)>, Error> {
        let (collection, relation) = self.readable(id)?;
        if let Some((epoch, _)) = at {
            relation.check_readable(epoch)?;
        }
        let index = relation.index(collection.lookup)?;
        let same_type = |(column, key): (&usize, &ArrayRef)| {
            collection.schema.field(*column).data_type() == key.data_type()
        };
        if index.columns().len() != keys.len()
            || !itertools::zip_eq(index.columns(), keys).all(same_type)
        {
            return Err(Error::invariant(format!(
                "lookup in {id} by another key than its own"
            )));
        }
        let keys = keys
            .iter()
            .map(flowstone_types::normalize::normalize_array)
            .collect::<Vec<_>>();
        let (mut found, mut weights) = (Vec::new(), Vec::new());
        for key in hash_rows(&keys, keys.first().map_or(1, |key| key.len()))?
            .into_iter()
            .enumerate()
        {
            if let Some((epoch, rows_max)) = at
                && relation.lookup_cost(collection.lookup, key.1, epoch)? > rows_max
            {
                return Ok(None);
            }
            let at = at.map(|(epoch, _)| epoch);
            for (id, weight) in relation.lookup(collection.lookup, &keys, key, at)? {
                found.push(id);
                weights.push(weight);
            }
        }
        let rows = make_batch(&collection.schema, relation.gather(&found)?, found.len())?;
        Ok(Some((rows, weights_of(weights))))
    }

    /// How many rows and groups a dataflow keeps for itself on this shard: distinct rows of its own arrangements, groups, the last recomputed result.
    ///
    /// Arrangements it shares with collections and the content it exports are not counted.
    #[must_use]
    pub fn dataflow_state(&self, id: ObjectId) -> Option<u64> {
        let dataflow = self.dataflows.get(&id)?;
        let exported = self
            .collections
            .get(&id)
            .map(|collection| collection.relation);
        let relations = dataflow
            .private
            .iter()
            .filter(|relation| Some(**relation) != exported);
        let rows: usize = relations
            .filter_map(|relation| self.relations.0.get(relation))
            .map(Relation::distinct_rows)
            .sum();
        let groups: usize = dataflow
            .steps
            .iter()
            .filter_map(|step| self.steps.get(step))
            .map(|step| step.kind.state())
            .sum();
        u64::try_from(rows + groups).ok()
    }

    fn create_view(&mut self, id: ObjectId, plan: &Plan) -> Result<(), Error> {
        let collection = self
            .collections
            .get(&id)
            .ok_or(Error::UnknownCollection(id))?;
        let (relation, route, schema) = (
            collection.relation,
            collection.partitioning.clone(),
            Arc::clone(&collection.schema),
        );
        let rendering = self.render(id, plan, |renderer, root| {
            if root.schema.fields().len() != schema.fields().len() {
                return Err(Error::Plan(format!(
                    "{id} has {} columns, its plan {}",
                    schema.fields().len(),
                    root.schema.fields().len()
                )));
            }
            let root = renderer.exchange(root, route.as_ref().unwrap_or(&Route::Single))?;
            Ok(renderer.add(
                Kind::Export {
                    collection: id,
                    relation,
                },
                root.stage,
                &[root.step],
                route,
                schema,
            ))
        })?;
        if let Some(collection) = self.collections.get_mut(&id) {
            collection.stage = rendering.root.stage;
        }
        self.install(id, rendering);
        Ok(())
    }

    fn create_index(&mut self, id: ObjectId, plan: &Plan, key: &[usize]) -> Result<(), Error> {
        if self.collections.contains_key(&id) {
            return Err(Error::DuplicateCollection(id));
        }
        let mut made = None;
        let relations_of = self
            .collections
            .iter()
            .map(|(id, collection)| (*id, collection.relation))
            .collect::<BTreeMap<_, _>>();
        let rendering = self.render(id, plan, |renderer, root| {
            if key
                .iter()
                .any(|column| *column >= root.schema.fields().len())
            {
                return Err(Error::Plan(format!("key of {id} is out of range")));
            }
            let partition =
                partition_columns((!key.is_empty()).then_some(key), root.schema.fields().len());
            let route = Route::Hash(partition.clone());
            let schema = Arc::clone(&root.schema);
            let existing = root
                .collection
                .filter(|_| renderer.is_at(&root, &route))
                .and_then(|collection| relations_of.get(&collection).copied());
            let root = renderer.exchange(root, &route)?;
            let (relation, kind) = match existing {
                Some(relation) => (
                    relation,
                    Kind::Publish {
                        id,
                        schema: Arc::clone(&schema),
                    },
                ),
                None => {
                    let all = (0..schema.fields().len()).collect();
                    let relation = renderer.add_relation(
                        Relation::new(id.to_string(), Arc::clone(&schema), all).with_history(),
                    );
                    (
                        relation,
                        Kind::Export {
                            collection: id,
                            relation,
                        },
                    )
                }
            };
            let lookup = renderer.add_index(relation, &partition)?;
            made = Some((relation, lookup));
            Ok(renderer.add(kind, root.stage, &[root.step], Some(route), schema))
        })?;
        let (relation, lookup) = made.ok_or_else(|| Error::invariant("index was not made"))?;
        let collection = Collection {
            relation,
            schema: Arc::clone(&rendering.root.schema),
            partitioning: rendering.root.partitioning.clone(),
            stage: rendering.root.stage,
            key: None,
            lookup,
            owns_relation: false,
            readers: Vec::new(),
        };
        self.collections.insert(id, collection);
        self.install(id, rendering);
        Ok(())
    }

    fn render(
        &mut self,
        id: ObjectId,
        plan: &Plan,
        export: impl FnOnce(&mut Renderer<'_>, Rendered) -> Result<Rendered, Error>,
    ) -> Result<Rendering, Error> {
        if self.running.is_some() {
            return Err(Error::invariant("a dataflow is created between ticks"));
        }
        if self.dataflows.contains_key(&id) {
            return Err(Error::DuplicateCollection(id));
        }
        let counters = (&mut self.next_step, &mut self.next_relation);
        Renderer::new(
            id,
            &self.config,
            &self.collections,
            &mut self.relations,
            counters,
        )
        .render(plan, export)
    }

    fn install(&mut self, id: ObjectId, rendering: Rendering) {
        let steps = rendering.steps.keys().copied().collect();
        self.steps.extend(rendering.steps);
        let dataflow = Dataflow {
            steps,
            private: rendering.private,
            indexes: rendering.indexes,
            imports: rendering.imports,
            hydrated: false,
        };
        self.dataflows.insert(id, dataflow);
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
        });
        Ok(())
    }

    fn running(&mut self) -> Result<&mut Running, Error> {
        self.running
            .as_mut()
            .ok_or_else(|| Error::invariant("no tick is open"))
    }

    /// Notes a stored collection's consolidated changes: applied when the tick ends, reported, and read by those who import it.
    fn publish(&mut self, id: ObjectId, changes: Changes) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let relation = self
            .collections
            .get(&id)
            .ok_or(Error::UnknownCollection(id))?
            .relation;
        self.running()?.pending.insert(relation, changes.clone());
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
            if let Some(input) = step.inputs.first_mut() {
                input.append(changes.clone());
                running.dirty.insert((step.stage, *reader));
            }
        }
        running.outputs.entry(id).or_default().append(changes);
        Ok(())
    }

    fn run_step(
        &mut self,
        id: StepId,
        out: &mut dyn FnMut(usize, ExchangeMessage),
    ) -> Result<bool, Error> {
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
        let mut sent = false;
        let output = match &mut step.kind {
            Kind::Exchange { route, receiver } => {
                let (receiver, input) = (*receiver, merge(inputs));
                let parts = route_changes(&input.deltas, route, self.config.count)?;
                let mut kept = Vec::new();
                for (shard, deltas) in parts {
                    if shard == self.config.index {
                        kept = deltas;
                    } else {
                        sent = true;
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
                return self
                    .pass_on(
                        id,
                        Changes {
                            deltas: Vec::new(),
                            errors: input.errors,
                        },
                    )
                    .map(|()| sent);
            }
            Kind::Receive => {
                let mut inbox = std::mem::take(&mut step.inbox);
                // The order of arrival is not deterministic; the order of shards is.
                inbox.sort_by_key(|(from, _)| *from);
                let mut input = merge(inputs);
                input
                    .deltas
                    .extend(inbox.into_iter().flat_map(|(_, deltas)| deltas));
                input
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
                return self
                    .export(collection, relation, merge(inputs))
                    .map(|()| false);
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
                return self.report(collection, changes).map(|()| false);
            }
            kind => kind.run(
                Tick {
                    epoch,
                    hydrating,
                    point_rows_max: self.config.point_rows_max,
                    relations: &self.relations,
                },
                inputs,
            )?,
        };
        self.pass_on(id, output)?;
        Ok(sent)
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
            let input = step
                .inputs
                .get_mut(port)
                .ok_or_else(|| Error::invariant("consumer without port"))?;
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
