//! Plans are tried: rendered on a shard that nobody else has, and thrown away.
//!
//! Owns what of a plan can be found out before anything is made of it: that all of its expressions, aggregates and queries are known here and fit its columns. Must
//! not know what exists. Called by the front, off its own thread.
//!
//! Invariants. What is refused here would have been refused by the shards, with the same error: the code is theirs. Nothing that exists is looked at or changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_dataflow::Shard;
use flowstone_proto::message::{DataflowDescription, Export, RequestError};
use flowstone_proto::plan::{Operator, Plan};
use flowstone_types::{ClusterId, EvalError, ObjectId};

use crate::compute::shards::ShardMaker;
use crate::query::{QueryRunner, evaluation_failed};

/// The identity of what is tried: nothing else is on its shard.
const TRIED: ObjectId = ObjectId::Transient(0);

/// What plans are tried with.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    maker: ShardMaker,
    /// How many shards there are: exchanges are rendered as they will be.
    shards: usize,
    runner: QueryRunner,
}

impl Trial {
    pub(crate) const fn new(maker: ShardMaker, shards: usize, runner: QueryRunner) -> Self {
        Self {
            maker,
            shards,
            runner,
        }
    }

    /// Renders a plan; `export` is `None` for a subscription's. Blocks: to be called on a thread with a deep stack, where that is allowed.
    ///
    /// # Errors
    /// What those who read it would be told.
    pub(crate) fn render(&self, plan: &Plan, export: Option<Export>) -> Result<(), RequestError> {
        let rendered = self.on_a_shard(plan, export).map_err(EvalError::from);
        rendered
            .and_then(|()| self.plan_queries(plan))
            .map_err(evaluation_failed)
    }

    fn on_a_shard(
        &self,
        plan: &Plan,
        export: Option<Export>,
    ) -> Result<(), flowstone_dataflow::Error> {
        // The first one also decodes the rows of constants.
        let mut shard = Shard::new(self.maker.config(0, self.shards));
        let mut made = BTreeSet::new();
        for node in &plan.nodes {
            if let Operator::Get { collection } = &node.operator
                && made.insert(*collection)
            {
                shard.create_collection(*collection, SchemaRef::clone(&node.schema), None)?;
            }
        }
        let Some(export) = export else {
            return shard.create_subscription(TRIED, plan);
        };
        if let (Export::Collection, Some(root)) = (&export, plan.root()) {
            shard.create_collection(TRIED, Arc::clone(&root.schema), None)?;
        }
        shard.create_dataflow(&DataflowDescription {
            id: TRIED,
            cluster: ClusterId::DEFAULT,
            plan: plan.clone(),
            export,
        })
    }

    /// Shards do not look at the queries of what is recomputed before they run them.
    fn plan_queries(&self, plan: &Plan) -> Result<(), EvalError> {
        for node in &plan.nodes {
            if let Some(query) = node.operator.query() {
                self.runner.check(query)?;
            }
        }
        Ok(())
    }
}
