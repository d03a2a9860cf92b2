//! Rendering: a plan becomes steps and relations of a shard.
//!
//! What an operator needs of its inputs it says itself ([`Needs`]); here is how it gets that, the same way for all of them.
//! Owns where exchanges go and which arrangements are shared: rows of a collection that an operator needs in a relation are the collection's own where they
//! are on the right shards, else those of an entry of the registry ([`crate::registry`]); only what a plan makes of them is arranged for it alone.
//! Deterministic: every shard renders a plan into the same steps with the same names.
//! A plan that fails to render, also by a panic, leaves the shard as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::PhysicalExpr;
use flowstone_proto::plan::{self, Node, NodeId, Plan};
use flowstone_types::ObjectId;
use flowstone_types::normalize::normalize_batch;
use hashbrown::HashMap;

use crate::batch::relax;
use crate::error::caught;
use crate::operator::aggregate::Aggregate;
use crate::operator::constant::Constant;
use crate::operator::distinct::Distinct;
use crate::operator::filter_project::FilterProject;
use crate::operator::get::Get;
use crate::operator::join::{Join, Side};
use crate::operator::not_null::NotNull;
use crate::operator::recompute::Recompute;
use crate::operator::top_k::TopK;
use crate::operator::union::Union;
use crate::operator::{Arrangement, Needs, Operator, Placement, RelationId, Relations};
use crate::registry::{Entry, Lineage, Registry, Use};
use crate::relation::{IndexSpec, Relation};
use crate::shard::Collection;
use crate::step::{Kind, Owner, Route, Step, StepId};
use crate::{Error, ShardConfig};

mod queries;

/// Positions of a dataflow's own steps begin here: those of entries of the registry are below.
const OWN_STEPS: u64 = 1 << 32;

/// How a step's rows are spread over the shards. `None`: anyhow.
pub(crate) type Partitioning = Option<Route>;

/// A node as rendered.
#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    pub(crate) step: StepId,
    pub(crate) stage: usize,
    pub(crate) partitioning: Partitioning,
    /// The collection whose rows these are, all of them and unchanged.
    pub(crate) collection: Option<ObjectId>,
    /// Relaxed.
    pub(crate) schema: SchemaRef,
    /// Which columns the plan says may be NULL.
    nullable: Vec<bool>,
}

/// An input of an operator, as it needs it.
struct Port {
    step: StepId,
    stage: usize,
    partitioning: Partitioning,
    schema: SchemaRef,
    /// If it needs the rows.
    arrangement: Option<Arrangement>,
}

impl Port {
    fn arrangement(&self) -> Result<&Arrangement, Error> {
        self.arrangement
            .as_ref()
            .ok_or_else(|| Error::invariant("an input was not arranged"))
    }
}

/// A node's rows in a relation, and the step that yields their consolidated changes.
struct Arranged {
    step: StepId,
    stage: usize,
    relation: RelationId,
    partitioning: Partitioning,
}

/// What rendering a plan adds to a shard.
#[derive(Debug)]
pub(crate) struct Rendering {
    pub(crate) root: Rendered,
    pub(crate) steps: BTreeMap<StepId, Step>,
    /// Steps of the entries that it adds to the registry.
    pub(crate) entry_steps: BTreeMap<StepId, Step>,
    /// Relations of this dataflow alone.
    pub(crate) private: Vec<RelationId>,
    /// Indexes it uses.
    pub(crate) indexes: Vec<(RelationId, usize)>,
    pub(crate) imports: Vec<(ObjectId, StepId)>,
    /// What it uses of the registry.
    pub(crate) uses: Vec<Use>,
}

pub(crate) struct Renderer<'a> {
    config: &'a ShardConfig,
    collections: &'a BTreeMap<ObjectId, Collection>,
    relations: &'a mut Relations,
    registry: &'a mut Registry,
    next_relation: &'a mut u64,
    rendering: u64,
    next_position: u64,
    next_entry_position: u64,
    steps: BTreeMap<StepId, Step>,
    entry_steps: BTreeMap<StepId, Step>,
    private: Vec<RelationId>,
    indexes: Vec<(RelationId, usize)>,
    imports: Vec<(ObjectId, StepId)>,
    uses: Vec<Use>,
    exchanged: HashMap<(StepId, Route), Rendered>,
    shared: HashMap<(StepId, Lineage), (Rendered, RelationId)>,
    without_nulls: HashMap<(StepId, Vec<usize>), Rendered>,
    arranged: HashMap<StepId, (StepId, RelationId)>,
    owner: ObjectId,
}

impl<'a> Renderer<'a> {
    /// `rendering`: see [`StepId`].
    pub(crate) fn new(
        (owner, rendering): (ObjectId, u64),
        config: &'a ShardConfig,
        collections: &'a BTreeMap<ObjectId, Collection>,
        (relations, registry): (&'a mut Relations, &'a mut Registry),
        next_relation: &'a mut u64,
    ) -> Self {
        Self {
            config,
            collections,
            relations,
            registry,
            next_relation,
            rendering,
            next_position: OWN_STEPS,
            next_entry_position: 0,
            steps: BTreeMap::new(),
            entry_steps: BTreeMap::new(),
            private: Vec::new(),
            indexes: Vec::new(),
            imports: Vec::new(),
            uses: Vec::new(),
            exchanged: HashMap::new(),
            shared: HashMap::new(),
            without_nulls: HashMap::new(),
            arranged: HashMap::new(),
            owner,
        }
    }

    /// Renders a plan and, by `export`, what becomes of its result.
    pub(crate) fn render(
        mut self,
        plan: &Plan,
        export: impl FnOnce(&mut Self, Rendered) -> Result<Rendered, Error>,
    ) -> Result<Rendering, Error> {
        let result = caught(|| self.nodes(plan).and_then(|root| export(&mut self, root)));
        match result {
            Ok(root) => {
                self.drop_unread();
                Ok(Rendering {
                    root,
                    steps: self.steps,
                    entry_steps: self.entry_steps,
                    private: self.private,
                    indexes: self.indexes,
                    imports: self.imports,
                    uses: self.uses,
                })
            }
            Err(error) => {
                release(self.relations, &self.private, &self.indexes);
                for used in &self.uses {
                    // The steps of one that it added are not in the shard yet.
                    if self.registry.release(used.entry, self.owner).is_some() {
                        self.relations.0.remove(&used.entry);
                    }
                }
                Err(error)
            }
        }
    }

    /// What is only read through the registry is not read besides.
    fn drop_unread(&mut self) {
        let (steps, uses) = (&mut self.steps, &self.uses);
        self.imports.retain(|(collection, step)| {
            let read = steps
                .get(step)
                .is_some_and(|step| !step.consumers.is_empty());
            let keep = read || uses.iter().all(|used| used.collection != *collection);
            if !keep {
                steps.remove(step);
            }
            keep
        });
    }

    fn nodes(&mut self, plan: &Plan) -> Result<Rendered, Error> {
        let mut nodes: Vec<Rendered> = Vec::with_capacity(plan.nodes.len());
        for node in &plan.nodes {
            let input = |id: NodeId| {
                nodes.get(id.0).cloned().ok_or_else(|| {
                    Error::Plan(format!("node {} is used before it is defined", id.0))
                })
            };
            let inputs = node
                .operator
                .inputs()
                .into_iter()
                .map(input)
                .collect::<Result<Vec<_>, _>>()?;
            let mut rendered = self.node(node, inputs)?;
            rendered.schema = relax(&node.schema);
            rendered.nullable = node
                .schema
                .fields()
                .iter()
                .map(|field| field.is_nullable())
                .collect();
            nodes.push(rendered);
        }
        nodes
            .pop()
            .ok_or_else(|| Error::Plan("empty plan".to_owned()))
    }

    fn node(&mut self, node: &Node, inputs: Vec<Rendered>) -> Result<Rendered, Error> {
        let schema = relax(&node.schema);
        match &node.operator {
            plan::Operator::Get { collection } => self.get(*collection, schema),
            plan::Operator::Constant { rows } => {
                let (_, rows) = flowstone_proto::ipc::decode_batches(rows)?;
                let rows = if self.config.index == 0 {
                    rows.iter().map(normalize_batch).collect()
                } else {
                    Vec::new()
                };
                let operator = Constant {
                    rows,
                    schema: Arc::clone(&schema),
                };
                Ok(self.operator(operator, &[], Some(Route::Single), schema))
            }
            plan::Operator::FilterProject {
                predicates,
                projections,
                ..
            } => {
                let [input]: [Rendered; 1] = exactly(inputs)?;
                self.filter_project(input, predicates, projections, schema)
            }
            plan::Operator::Join {
                left_keys,
                right_keys,
                null_equals_null,
                ..
            } => {
                let inputs: [Rendered; 2] = exactly(inputs)?;
                self.join(inputs, [left_keys, right_keys], *null_equals_null, schema)
            }
            plan::Operator::Aggregate {
                group, aggregates, ..
            } => {
                let [input]: [Rendered; 1] = exactly(inputs)?;
                let needs = Aggregate::needs(&input.schema, group, aggregates)?;
                let [input]: [Port; 1] = exactly(self.ports(vec![input], vec![needs])?)?;
                let operator = Aggregate::new(
                    (&input.schema, input.arrangement.as_ref()),
                    group.clone(),
                    aggregates,
                    Arc::clone(&schema),
                    self.config.index,
                )?;
                let partitioning = renamed(&input.partitioning, |column| {
                    group.iter().position(|other| *other == column)
                });
                Ok(self.operator(operator, &[input], partitioning, schema))
            }
            plan::Operator::Distinct { .. } => {
                let width = inputs
                    .first()
                    .map_or(0, |input| input.schema.fields().len());
                let needs = Distinct::needs(width);
                let [input]: [Port; 1] = exactly(self.ports(inputs, vec![needs])?)?;
                let operator = Distinct {
                    relation: input.arrangement()?.relation,
                    schema: Arc::clone(&schema),
                };
                let partitioning = input.partitioning.clone();
                Ok(self.operator(operator, &[input], partitioning, schema))
            }
            plan::Operator::Union { .. } => {
                let needs = vec![Needs::changes(Placement::Anywhere); inputs.len()];
                let inputs = self.ports(inputs, needs)?;
                let first = inputs.first().and_then(|input| input.partitioning.clone());
                let partitioning = first.filter(|first| {
                    inputs
                        .iter()
                        .all(|input| input.partitioning.as_ref() == Some(first))
                });
                let operator = Union {
                    schema: Arc::clone(&schema),
                };
                Ok(self.operator(operator, &inputs, partitioning, schema))
            }
            plan::Operator::TopK {
                group,
                order,
                limit,
                offset,
                ..
            } => {
                let window = (*limit, *offset);
                let needs = TopK::needs(schema.fields().len(), group, order, window)?;
                let [input]: [Port; 1] = exactly(self.ports(inputs, vec![needs])?)?;
                let operator = TopK {
                    limit: *limit,
                    offset: *offset,
                    schema: Arc::clone(&schema),
                    arrangement: input.arrangement.clone(),
                };
                let partitioning = input.partitioning.clone();
                Ok(self.operator(operator, &[input], partitioning, schema))
            }
            plan::Operator::Recompute { query, .. } => {
                let needs = vec![Recompute::needs(); inputs.len()];
                let inputs = self.ports(inputs, needs)?;
                let mut tables = Vec::with_capacity(inputs.len());
                for input in &inputs {
                    tables.push(input.arrangement()?.relation);
                }
                let operator = Recompute {
                    query: self.query(query, &inputs, &schema),
                    inputs: tables,
                    runs_here: self.config.index == 0,
                    previous: None,
                    error: None,
                };
                Ok(self.operator(operator, &inputs, Some(Route::Single), schema))
            }
            plan::Operator::RecomputeGroups {
                inputs: keyed,
                query,
                nulls_alone,
                ..
            } => {
                let keys = keyed.iter().map(|(_, keys)| keys.as_slice()).collect();
                self.recompute_groups(inputs, keys, query, *nulls_alone, schema)
            }
            plan::Operator::RecomputeRows { query, .. } => {
                self.recompute_rows(inputs, query, schema)
            }
        }
    }

    /// The inputs of an operator as it needs them: one each, in order.
    fn ports(&mut self, inputs: Vec<Rendered>, needs: Vec<Needs>) -> Result<Vec<Port>, Error> {
        if inputs.len() != needs.len() {
            return Err(Error::Plan(format!(
                "an operator of {} inputs with {}",
                needs.len(),
                inputs.len()
            )));
        }
        let routes = self.routes(&inputs, &needs);
        let mut ports = Vec::with_capacity(inputs.len());
        for ((input, needs), route) in itertools::zip_eq(itertools::zip_eq(inputs, needs), routes) {
            ports.push(self.port(input, needs, route)?);
        }
        Ok(ports)
    }

    /// Where the rows of each input are to be brought; `None` if they may stay.
    fn routes(&self, inputs: &[Rendered], needs: &[Needs]) -> Vec<Option<Route>> {
        if let (
            [left, right],
            [
                Needs {
                    at: Placement::Matched(left_keys),
                    ..
                },
                Needs {
                    at: Placement::Matched(right_keys),
                    ..
                },
            ],
        ) = (inputs, needs)
        {
            let (left, right) = (&left.partitioning, &right.partitioning);
            let (left, right) = join_routes(left, right, left_keys, right_keys);
            return vec![Some(left), Some(right)];
        }
        let each = itertools::zip_eq(inputs, needs);
        each.map(|(input, needs)| match &needs.at {
            Placement::Anywhere => None,
            Placement::Grouped(columns) | Placement::Matched(columns) => {
                group_route(&input.partitioning, columns)
            }
            Placement::Single => Some(Route::Single),
        })
        .collect()
    }

    fn port(&mut self, input: Rendered, needs: Needs, route: Option<Route>) -> Result<Port, Error> {
        let schema = Arc::clone(&input.schema);
        let Some(kept) = needs.kept else {
            let input = match route {
                Some(route) => self.exchange(input, &route)?,
                None => input,
            };
            return Ok(Port {
                step: input.step,
                stage: input.stage,
                partitioning: input.partitioning,
                schema,
                arrangement: None,
            });
        };
        let arranged = match route {
            Some(route) => {
                // Rows that are of no use.
                let without_nulls = nullable_of(&input, &kept.without_nulls);
                self.arrange_at(input, without_nulls, &route)?
            }
            None => self.arrange(input)?,
        };
        let mut indexes = Vec::with_capacity(kept.indexes.len());
        for spec in &kept.indexes {
            indexes.push(self.add_index(arranged.relation, spec)?);
        }
        Ok(Port {
            step: arranged.step,
            stage: arranged.stage,
            partitioning: arranged.partitioning,
            schema,
            arrangement: Some(Arrangement {
                relation: arranged.relation,
                indexes,
            }),
        })
    }

    /// The step of an operator, behind those of its inputs.
    fn operator(
        &mut self,
        operator: impl Operator + 'static,
        inputs: &[Port],
        partitioning: Partitioning,
        schema: SchemaRef,
    ) -> Rendered {
        let stage = inputs.iter().map(|input| input.stage).max().unwrap_or(0);
        let steps = inputs.iter().map(|input| input.step).collect::<Vec<_>>();
        self.add(Kind::of(operator), stage, &steps, partitioning, schema)
    }

    fn get(&mut self, id: ObjectId, schema: SchemaRef) -> Result<Rendered, Error> {
        let collection = self
            .collections
            .get(&id)
            .ok_or(Error::UnknownCollection(id))?;
        if collection.schema.fields().len() != schema.fields().len() {
            return Err(Error::Plan(format!(
                "{id} has {} columns, not {}",
                collection.schema.fields().len(),
                schema.fields().len()
            )));
        }
        let kind = Kind::of(Get {
            relation: collection.relation,
            schema: Arc::clone(&schema),
        });
        let mut rendered = self.add(
            kind,
            collection.stage,
            &[],
            collection.partitioning.clone(),
            schema,
        );
        rendered.collection = Some(id);
        self.imports.push((id, rendered.step));
        Ok(rendered)
    }

    fn filter_project(
        &mut self,
        input: Rendered,
        predicates: &[plan::Expr],
        projections: &[plan::Expr],
        schema: SchemaRef,
    ) -> Result<Rendered, Error> {
        let compile = |expr: &plan::Expr| self.config.compiler.compile(expr, &input.schema);
        let predicates = predicates
            .iter()
            .map(compile)
            .collect::<Result<Vec<_>, _>>()?;
        let projections = projections
            .iter()
            .map(compile)
            .collect::<Result<Vec<_>, _>>()?;
        if projections.len() != schema.fields().len() {
            return Err(Error::Plan(format!(
                "{} projections for {} columns",
                projections.len(),
                schema.fields().len()
            )));
        }
        let sources = projections.iter().map(column_of).collect::<Vec<_>>();
        let identity = sources.len() == input.schema.fields().len()
            && sources
                .iter()
                .enumerate()
                .all(|(number, source)| *source == Some(number));
        if predicates.is_empty() && identity {
            return Ok(input);
        }
        let partitioning = renamed(&input.partitioning, |column| {
            sources.iter().position(|source| *source == Some(column))
        });
        let compiler = Arc::clone(&self.config.compiler);
        let operator = FilterProject {
            predicates,
            projections,
            schema: Arc::clone(&schema),
            compiler,
            row_bytes_max: self.config.row_bytes_max,
        };
        Ok(self.add(
            Kind::of(operator),
            input.stage,
            &[input.step],
            partitioning,
            schema,
        ))
    }

    fn join(
        &mut self,
        inputs: [Rendered; 2],
        keys: [&[usize]; 2],
        null_equals_null: bool,
        schema: SchemaRef,
    ) -> Result<Rendered, Error> {
        let ([left, right], [left_keys, right_keys]) = (&inputs, keys);
        for (side, keys) in [(left, left_keys), (right, right_keys)] {
            if left_keys.len() != right_keys.len()
                || keys.iter().any(|key| *key >= side.schema.fields().len())
            {
                return Err(Error::Plan("join keys do not fit the inputs".to_owned()));
            }
        }
        for (left_key, right_key) in itertools::zip_eq(left_keys, right_keys) {
            let (left, right) = (
                left.schema.field(*left_key).data_type(),
                right.schema.field(*right_key).data_type(),
            );
            if left != right {
                return Err(Error::Plan(format!("join of {left} with {right}")));
            }
        }
        let needs = keys.map(|keys| Join::needs(keys, null_equals_null));
        let ports: [Port; 2] = exactly(self.ports(inputs.into(), needs.into())?)?;
        let [left, right] = &ports;
        let operator = Join {
            left: side(left, left_keys)?,
            right: side(right, right_keys)?,
            null_equals_null,
            schema: Arc::clone(&schema),
        };
        let partitioning = left.partitioning.clone();
        Ok(self.operator(operator, &ports, partitioning, schema))
    }

    fn drop_nulls(&mut self, input: Rendered, columns: Vec<usize>) -> Rendered {
        if columns.is_empty() {
            return input;
        }
        let memo = (input.step, columns.clone());
        if let Some(known) = self.without_nulls.get(&memo) {
            return known.clone();
        }
        let nullable = input.nullable.clone();
        let mut rendered = self.add(
            Kind::of(NotNull { columns }),
            input.stage,
            &[input.step],
            input.partitioning,
            input.schema,
        );
        rendered.nullable = nullable;
        self.without_nulls.insert(memo, rendered.clone());
        rendered
    }

    /// Whether rows are already where `route` would bring them.
    pub(crate) fn is_at(&self, input: &Rendered, route: &Route) -> bool {
        self.config.count == 1 || input.partitioning.as_ref() == Some(route)
    }

    pub(crate) fn exchange(&mut self, input: Rendered, route: &Route) -> Result<Rendered, Error> {
        if self.is_at(&input, route) {
            return Ok(input);
        }
        let memo = (input.step, route.clone());
        if let Some(known) = self.exchanged.get(&memo) {
            return Ok(known.clone());
        }
        let send = self.add(
            Kind::Receive,
            input.stage,
            &[input.step],
            None,
            Arc::clone(&input.schema),
        );
        let mut receive = self.add(
            Kind::Receive,
            input.stage + 1,
            &[],
            Some(route.clone()),
            Arc::clone(&input.schema),
        );
        let step = self
            .steps
            .get_mut(&send.step)
            .ok_or_else(|| Error::invariant("step was just added"))?;
        step.kind = Kind::Exchange {
            route: route.clone(),
            receiver: receive.step,
        };
        step.consumers.push((receive.step, 0));
        receive.nullable = input.nullable;
        self.exchanged.insert(memo, receive.clone());
        Ok(receive)
    }

    /// A relation that holds the rows of `input` where `route` brings them. Those with NULL in `without_nulls` are not kept, unless they are anyway as rows of a
    /// collection.
    fn arrange_at(
        &mut self,
        input: Rendered,
        without_nulls: Vec<usize>,
        route: &Route,
    ) -> Result<Arranged, Error> {
        let input = match input.collection {
            Some(_) if self.is_at(&input, route) => input,
            Some(collection) => {
                let lineage = Lineage {
                    collection,
                    without_nulls,
                    route: route.clone(),
                };
                return self.share(input, lineage);
            }
            None => {
                let input = self.drop_nulls(input, without_nulls);
                self.exchange(input, route)?
            }
        };
        self.arrange(input)
    }

    /// The rows of a collection, which `input` reads, as the registry has them for all dataflows that need them so.
    fn share(&mut self, input: Rendered, lineage: Lineage) -> Result<Arranged, Error> {
        let memo = (input.step, lineage);
        let (rendered, relation) = match self.shared.get(&memo) {
            Some((known, relation)) => (known.clone(), *relation),
            None => self.import_entry(input, &memo.1)?,
        };
        let arranged = Arranged {
            step: rendered.step,
            stage: rendered.stage,
            relation,
            partitioning: rendered.partitioning.clone(),
        };
        self.shared.insert(memo, (rendered, relation));
        Ok(arranged)
    }

    /// A step that reads an entry of the registry, which is added if there is none.
    fn import_entry(
        &mut self,
        input: Rendered,
        lineage: &Lineage,
    ) -> Result<(Rendered, RelationId), Error> {
        let relation = match self.registry.find(lineage) {
            Some(relation) => relation,
            None => self.add_entry(lineage)?,
        };
        let entry = self
            .registry
            .get_mut(relation)
            .ok_or_else(|| Error::invariant("entry was just found"))?;
        let stage = entry.stage;
        entry.users.insert(self.owner);
        let kind = Kind::of(Get {
            relation,
            schema: Arc::clone(&input.schema),
        });
        let all = lineage.without_nulls.is_empty();
        let memo = (input.step, lineage.route.clone());
        let sent = self.exchanged.get(&memo).filter(|_| all).cloned();
        let rendered = if let Some(sent) = sent {
            self.replace_exchange(input.step, sent.step, kind);
            sent
        } else {
            let route = Some(lineage.route.clone());
            let mut rendered = self.add(kind, stage, &[], route, input.schema);
            rendered.nullable = input.nullable;
            rendered
        };
        self.uses.push(Use {
            entry: relation,
            collection: lineage.collection,
            step: rendered.step,
        });
        // Other operators of this plan that need the rows there read them here too.
        if all {
            self.exchanged.insert(memo, rendered.clone());
        }
        self.arranged
            .insert(rendered.step, (rendered.step, relation));
        Ok((rendered, relation))
    }

    /// What the plan has sent from `input` to `receiver` for itself comes from an entry of the registry from now on.
    fn replace_exchange(&mut self, input: StepId, receiver: StepId, get: Kind) {
        let senders = self
            .steps
            .iter()
            .filter(|(_, step)| match &step.kind {
                Kind::Exchange { receiver: to, .. } => *to == receiver,
                _ => false,
            })
            .map(|(id, _)| *id)
            .collect::<Vec<_>>();
        for sender in &senders {
            self.steps.remove(sender);
        }
        if let Some(step) = self.steps.get_mut(&input) {
            step.consumers
                .retain(|(consumer, _)| !senders.contains(consumer));
        }
        if let Some(step) = self.steps.get_mut(&receiver) {
            step.kind = get;
        }
    }

    /// An entry of the registry without users, and the steps that feed it.
    fn add_entry(&mut self, lineage: &Lineage) -> Result<RelationId, Error> {
        let collection = self
            .collections
            .get(&lineage.collection)
            .ok_or(Error::UnknownCollection(lineage.collection))?;
        let stage = collection.stage;
        let schema = Arc::clone(&collection.schema);
        let get = Kind::of(Get {
            relation: collection.relation,
            schema: Arc::clone(&schema),
        });
        let all = (0..schema.fields().len()).collect();
        let name = format!("an arrangement of {}", lineage.collection);
        let relation = self.insert_relation(Relation::new(name, schema, all));
        let [source, filter, exchange, share]: [StepId; 4] =
            std::array::from_fn(|_| self.name_entry_step());
        let mut kinds = vec![(source, stage, get)];
        if !lineage.without_nulls.is_empty() {
            let columns = lineage.without_nulls.clone();
            kinds.push((filter, stage, Kind::of(NotNull { columns })));
        }
        let send = Kind::Exchange {
            route: lineage.route.clone(),
            receiver: share,
        };
        kinds.push((exchange, stage, send));
        kinds.push((share, stage + 1, Kind::Share { relation }));
        let steps: Vec<StepId> = kinds.iter().map(|(id, ..)| *id).collect();
        let consumers = steps.iter().skip(1).map(|id| Some(*id)).chain([None]);
        for ((id, stage, kind), consumer) in itertools::zip_eq(kinds, consumers) {
            let mut step = Step::new(Owner::Entry(relation), stage, kind, 1);
            step.consumers
                .extend(consumer.map(|consumer| (consumer, 0)));
            self.entry_steps.insert(id, step);
        }
        let entry = Entry {
            lineage: lineage.clone(),
            stage: stage + 1,
            source,
            share,
            steps,
            users: BTreeSet::new(),
            hydrated: false,
        };
        self.registry.add(relation, entry);
        Ok(relation)
    }

    fn name_entry_step(&mut self) -> StepId {
        let id = StepId {
            rendering: self.rendering,
            position: self.next_entry_position,
        };
        self.next_entry_position += 1;
        id
    }

    /// The relation that holds the rows of `input`: the collection's own if they are one, else a private one.
    fn arrange(&mut self, input: Rendered) -> Result<Arranged, Error> {
        if let Some(id) = input.collection {
            let relation = self
                .collections
                .get(&id)
                .ok_or(Error::UnknownCollection(id))?
                .relation;
            return Ok(Arranged {
                step: input.step,
                stage: input.stage,
                relation,
                partitioning: input.partitioning,
            });
        }
        if let Some((step, relation)) = self.arranged.get(&input.step) {
            return Ok(Arranged {
                step: *step,
                stage: input.stage,
                relation: *relation,
                partitioning: input.partitioning,
            });
        }
        let all = (0..input.schema.fields().len()).collect();
        let relation = self.add_relation(Relation::new(
            format!("an arrangement of {}", self.owner),
            Arc::clone(&input.schema),
            all,
        ));
        let rendered = self.add(
            Kind::Arrange { relation },
            input.stage,
            &[input.step],
            input.partitioning.clone(),
            input.schema,
        );
        self.arranged.insert(input.step, (rendered.step, relation));
        Ok(Arranged {
            step: rendered.step,
            stage: input.stage,
            relation,
            partitioning: input.partitioning,
        })
    }

    /// A relation that lives as long as this dataflow.
    pub(crate) fn add_relation(&mut self, relation: Relation) -> RelationId {
        let id = self.insert_relation(relation);
        self.private.push(id);
        id
    }

    fn insert_relation(&mut self, relation: Relation) -> RelationId {
        let id = RelationId(*self.next_relation);
        *self.next_relation += 1;
        self.relations.0.insert(id, relation);
        id
    }

    /// An index of a relation, held by this dataflow.
    pub(crate) fn add_index(
        &mut self,
        relation: RelationId,
        spec: &IndexSpec,
    ) -> Result<usize, Error> {
        let index = self.relations.get_mut(relation)?.acquire_index(spec)?;
        self.indexes.push((relation, index));
        Ok(index)
    }

    pub(crate) fn add(
        &mut self,
        kind: Kind,
        stage: usize,
        inputs: &[StepId],
        partitioning: Partitioning,
        schema: SchemaRef,
    ) -> Rendered {
        let id = StepId {
            rendering: self.rendering,
            position: self.next_position,
        };
        self.next_position += 1;
        for (port, input) in inputs.iter().enumerate() {
            if let Some(step) = self.steps.get_mut(input) {
                step.consumers.push((id, port));
            }
        }
        let owner = Owner::Dataflow(self.owner);
        self.steps
            .insert(id, Step::new(owner, stage, kind, inputs.len()));
        let partitioning = if self.config.count == 1 {
            Some(Route::Single)
        } else {
            partitioning
        };
        let nullable = vec![true; schema.fields().len()];
        Rendered {
            step: id,
            stage,
            partitioning,
            collection: None,
            schema,
            nullable,
        }
    }
}

/// The inputs of an operator that has so many.
fn exactly<T, const N: usize>(inputs: Vec<T>) -> Result<[T; N], Error> {
    let count = inputs.len();
    inputs
        .try_into()
        .map_err(|_| Error::Plan(format!("an operator of {N} inputs with {count}")))
}

/// One side of a join by these keys, over which it has an index.
fn side(port: &Port, keys: &[usize]) -> Result<Side, Error> {
    let arrangement = port.arrangement()?;
    let index = arrangement.indexes.first();
    Ok(Side {
        relation: arrangement.relation,
        index: *index.ok_or_else(|| Error::invariant("an input was not indexed"))?,
        keys: keys.to_vec(),
    })
}

/// Where rows that agree in `columns` meet; `None` if they do where they are.
fn group_route(at: &Partitioning, columns: &[usize]) -> Option<Route> {
    match at {
        Some(Route::Single) => None,
        Some(Route::Hash(by))
            if !by.is_empty() && by.iter().all(|column| columns.contains(column)) =>
        {
            None
        }
        _ if columns.is_empty() => Some(Route::Single),
        _ => Some(Route::Hash(columns.to_vec())),
    }
}

/// Gives back what a rendering took.
pub(crate) fn release(
    relations: &mut Relations,
    private: &[RelationId],
    indexes: &[(RelationId, usize)],
) {
    for id in private {
        relations.0.remove(id);
    }
    for (id, index) in indexes {
        if let Some(relation) = relations.0.get_mut(id) {
            relation.release_index(*index);
        }
    }
}

/// Where the two sides of a join meet: on one shard if they are there or if there is no key; else by key columns, by fewer of them if a side is
/// partitioned by them already.
fn join_routes(
    left: &Partitioning,
    right: &Partitioning,
    left_keys: &[usize],
    right_keys: &[usize],
) -> (Route, Route) {
    let single = Some(Route::Single);
    if left_keys.is_empty() || (*left == single && *right == single) {
        return (Route::Single, Route::Single);
    }
    let positions = |partitioning: &Partitioning, keys: &[usize]| match partitioning {
        Some(Route::Hash(columns)) if !columns.is_empty() => columns
            .iter()
            .map(|column| keys.iter().position(|key| key == column))
            .collect::<Option<Vec<_>>>(),
        _ => None,
    };
    let at = positions(left, left_keys)
        .or_else(|| positions(right, right_keys))
        .unwrap_or_else(|| (0..left_keys.len()).collect());
    let pick = |keys: &[usize]| {
        Route::Hash(
            at.iter()
                .filter_map(|position| keys.get(*position).copied())
                .collect(),
        )
    };
    (pick(left_keys), pick(right_keys))
}

/// Those of the key columns in which the input may be NULL, ascending.
fn nullable_of(input: &Rendered, keys: &[usize]) -> Vec<usize> {
    let mut columns = keys
        .iter()
        .copied()
        .filter(|key| input.nullable.get(*key).copied().unwrap_or(true))
        .collect::<Vec<_>>();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// A partitioning after columns were renamed; lost if one of its columns is.
fn renamed(partitioning: &Partitioning, rename: impl Fn(usize) -> Option<usize>) -> Partitioning {
    match partitioning.as_ref()? {
        Route::Single => Some(Route::Single),
        Route::Hash(columns) => Some(Route::Hash(
            columns
                .iter()
                .map(|column| rename(*column))
                .collect::<Option<Vec<_>>>()?,
        )),
    }
}

/// The column that an expression just passes on.
fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    let any: &dyn std::any::Any = expr.as_ref();
    any.downcast_ref::<Column>().map(Column::index)
}
