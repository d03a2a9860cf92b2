//! Dataflows are made: plans become steps of this shard.
//!
//! Owns what becomes of a plan's result: a view's collection, an index, a subscription. Must not know how plans are rendered.
//!
//! Invariants. Whatever cannot be rendered leaves the shard as it was, but for the number of the rendering, which is the same on every shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{Operator, Plan};
use flowstone_types::ObjectId;

use super::{Collection, Dataflow, Progress, Shard};
use crate::Error;
use crate::partition::partition_columns;
use crate::relation::{IndexSpec, Relation};
use crate::render::{Rendered, Renderer, Rendering};
use crate::step::{Kind, Route};

impl Shard {
    /// Renders a materialized view or an index. It takes part in ticks once it was hydrated: see [`Shard::begin_hydration`], and [`Shard::fork`] for one that
    /// would keep the others waiting. Indexes that it needs over rows which are there are built in either.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`] if an input, or the collection to export to, was not created; [`Error::DuplicateCollection`]; [`Error::Away`] if an
    /// input is being hydrated in a fork: once it is joined this can be made; [`Error::Plan`]; [`Error::Evaluation`] if it panics; whatever else a plan cannot be
    /// rendered for. Nothing has changed then: the caller drops what other shards have made, or fails it ([`Shard::fail_dataflow`]), before anything else is
    /// made, and goes on.
    pub fn create_dataflow(&mut self, description: &DataflowDescription) -> Result<(), Error> {
        let id = description.id;
        self.renderings += 1;
        match &description.export {
            Export::Collection => self.create_view(id, &description.plan),
            Export::Index { key } => self.create_index(id, &description.plan, key),
        }
    }

    /// Renders a query whose changes appear in [`crate::TickOutput`] under `id`, from its hydration on. Nothing of the result is kept.
    ///
    /// # Errors
    /// As [`Shard::create_dataflow`].
    pub fn create_subscription(&mut self, id: ObjectId, plan: &Plan) -> Result<(), Error> {
        self.renderings += 1;
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
            collection.failed = false;
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
            let lookup = renderer.add_index(relation, &IndexSpec::Key(partition))?;
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
            failed: false,
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
        for node in &plan.nodes {
            if let Operator::Get { collection } = &node.operator {
                self.check_here(*collection)?;
            }
        }
        Renderer::new(
            (id, self.renderings),
            &self.config,
            &self.collections,
            (&mut self.relations, &mut self.registry),
            &mut self.next_relation,
        )
        .render(plan, export)
    }

    fn install(&mut self, id: ObjectId, rendering: Rendering) {
        let steps = rendering.steps.keys().copied().collect();
        self.steps.extend(rendering.entry_steps);
        self.steps.extend(rendering.steps);
        let dataflow = Dataflow {
            steps,
            private: rendering.private,
            indexes: rendering.indexes,
            imports: rendering.imports,
            uses: rendering.uses,
            progress: Progress::Made,
            link: None,
        };
        self.note_unbuilt(dataflow.indexes.iter().map(|(relation, _)| *relation));
        self.dataflows.insert(id, dataflow);
    }
}
