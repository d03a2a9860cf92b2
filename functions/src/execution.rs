//! What DataFusion's physical plans lack before we may run them.
//!
//! Owns two rules of the physical optimizer and the node that both insert. Must not know where plans run.
//! Called by `registry`, which builds the session state.
//!
//! - [`ForgetAtOuterJoins`]: DataFusion carries what it knows of an input (constant columns, equal columns) through an outer join, also for the side
//!   that is padded with NULLs, where it is not true any more. A sort by such a column is then left out, and a window over it is wrong.
//! - [`YieldBetweenBatches`]: a join that makes many batches of few, or reads many before it makes one, never gives the thread back; nobody can cancel
//!   it then, and other queries of the same thread wait for it.
//!
//! Invariants. Neither rule changes rows or schemas.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Statistics, plan_err};
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, SchedulingType};
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec, SymmetricHashJoinExec,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::Stream;

/// How long a query computes before it lets others of its thread run. A task switch costs about a microsecond.
const TURN: Duration = Duration::from_millis(1);

/// What a [`PassExec`] is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Nothing is known of the rows but their columns.
    Forget,
    /// The thread is given back at least once every [`TURN`], if batches are made as often.
    Yield,
}

/// Passes its input on as it is.
#[derive(Clone, Debug)]
struct PassExec {
    input: Arc<dyn ExecutionPlan>,
    purpose: Purpose,
    properties: Arc<PlanProperties>,
}

impl PassExec {
    fn new(input: Arc<dyn ExecutionPlan>, purpose: Purpose) -> Self {
        let properties = match purpose {
            Purpose::Forget => PlanProperties::new(
                EquivalenceProperties::new(input.schema()),
                input.properties().partitioning.clone(),
                input.properties().emission_type,
                input.properties().boundedness,
            )
            .with_evaluation_type(input.properties().evaluation_type)
            .with_scheduling_type(input.properties().scheduling_type),
            Purpose::Yield => PlanProperties::clone(input.properties())
                .with_scheduling_type(SchedulingType::Cooperative),
        };
        Self {
            input,
            purpose,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for PassExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PassExec: {:?}", self.purpose)
    }
}

impl ExecutionPlan for PassExec {
    fn name(&self) -> &str {
        "PassExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![self.purpose == Purpose::Yield]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            Ok([input]) => Ok(Arc::new(Self::new(input, self.purpose))),
            Err(children) => plan_err!("PassExec has one input, not {}", children.len()),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        Ok(match self.purpose {
            Purpose::Forget => input,
            Purpose::Yield => Box::pin(YieldStream { input, turn: None }),
        })
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        match inputs {
            [input] => Ok(Arc::clone(input)),
            _ => plan_err!("PassExec has one input, not {}", inputs.len()),
        }
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

/// Gives the thread back before a batch if the turn is over.
struct YieldStream {
    input: SendableRecordBatchStream,
    /// When the turn began; `None` where the thread was given back, so that the next one begins with the next poll, however late that is.
    turn: Option<Instant>,
}

impl Stream for YieldStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.turn.get_or_insert_with(Instant::now).elapsed() > TURN {
            self.turn = None;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.input.as_mut().poll_next(context);
        if next.is_pending() {
            self.turn = None;
        }
        next
    }
}

impl RecordBatchStream for YieldStream {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

/// Hides what is known of inputs that an outer join pads with NULLs. Runs before every rule that acts on such knowledge.
#[derive(Debug)]
pub(crate) struct ForgetAtOuterJoins;

impl PhysicalOptimizerRule for ForgetAtOuterJoins {
    fn name(&self) -> &str {
        "ForgetAtOuterJoins"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let (left, right) = match join_type(plan.as_ref()) {
                Some(JoinType::Left) => (false, true),
                Some(JoinType::Right) => (true, false),
                Some(JoinType::Full) => (true, true),
                _ => return Ok(Transformed::no(plan)),
            };
            let children = itertools::zip_eq(plan.children(), [left, right])
                .map(|(child, padded)| {
                    let child = Arc::clone(child);
                    if padded {
                        Arc::new(PassExec::new(child, Purpose::Forget))
                    } else {
                        child
                    }
                })
                .collect();
            plan.replace_children(children, recomputed())
                .map(Transformed::yes)
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn recomputed() -> ReplaceChildrenOptions {
    ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute)
}

/// The type of a join, if it is one.
fn join_type(plan: &dyn ExecutionPlan) -> Option<JoinType> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        Some(*join.join_type())
    } else if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        Some(*join.join_type())
    } else if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
        Some(join.join_type())
    } else if let Some(join) = plan.downcast_ref::<SymmetricHashJoinExec>() {
        Some(*join.join_type())
    } else if plan.is::<CrossJoinExec>() {
        Some(JoinType::Inner)
    } else {
        None
    }
}

/// Makes joins and what feeds them give the thread back. Runs last.
#[derive(Debug)]
pub(crate) struct YieldBetweenBatches;

impl PhysicalOptimizerRule for YieldBetweenBatches {
    fn name(&self) -> &str {
        "YieldBetweenBatches"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            if join_type(plan.as_ref()).is_none() {
                return Ok(Transformed::no(plan));
            }
            let children = plan
                .children()
                .into_iter()
                .map(|child| -> Arc<dyn ExecutionPlan> {
                    Arc::new(PassExec::new(Arc::clone(child), Purpose::Yield))
                })
                .collect();
            let join = plan.replace_children(children, recomputed())?;
            Ok(Transformed::yes(Arc::new(PassExec::new(
                join,
                Purpose::Yield,
            ))))
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}
