//! What DataFusion's physical plans lack before we may run them.
//!
//! Owns two rules of the physical optimizer and the node that both insert, the rule that lets planning end early, and what tasks of DataFusion's own take
//! with them. Must not know where plans run. Called by `registry`, which builds the session state, and by whoever plans.
//!
//! - `ForgetAtOuterJoins`: DataFusion carries what it knows of an input (constant columns, equal columns) through an outer join, also for the side
//!   that is padded with NULLs, where it is not true any more. A sort by such a column is then left out, and a window over it is wrong.
//! - `YieldBetweenBatches`: an operator that makes many batches of few, or reads many before it makes one, never gives the thread back; nobody can cancel
//!   it then, and other queries of the same thread wait for it. Between two batches the statement's budget is asked as well.
//!
//! Invariants. Neither rule changes rows or schemas.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, JoinType, Statistics, plan_err};
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, SchedulingType};
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec, SymmetricHashJoinExec,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use flowstone_types::budget::{self, Within};
use futures::Stream;
use futures::future::BoxFuture;

use crate::errors::raise;
use crate::pieces::widest;
use crate::streams::{Work, worked};

/// How long a query computes before it lets others of its thread run. A task switch costs about a microsecond.
const TURN: Duration = Duration::from_millis(1);

/// What a batch that an operator makes of wide rows may take, in bytes: as many copies of the widest as it has rows.
const WIDE_BATCH_BYTES: usize = 64 << 20;
/// Values from this on are wide: a window may repeat one in every row of its partition.
const WIDE_ROW_BYTES: usize = 4 << 10;

/// Rows of a batch whose values may each be as large as everything before them.
const GROWN_ROWS_MAX: usize = 128;

/// An operator would make too large batches of the rows it is given: the query must run again with so many rows in a batch at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NarrowerBatches {
    /// Rows of a batch.
    pub rows: usize,
}

impl NarrowerBatches {
    /// The demand of rows of so many bytes, if they are too wide for ordinary batches.
    pub(crate) fn for_rows_of(bytes: usize) -> Option<Self> {
        let rows = (WIDE_BATCH_BYTES / bytes.max(1)).max(1);
        (bytes > WIDE_ROW_BYTES).then_some(Self { rows })
    }
}

impl From<NarrowerBatches> for DataFusionError {
    fn from(narrower: NarrowerBatches) -> Self {
        Self::External(Box::new(narrower))
    }
}

impl fmt::Display for NarrowerBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rows are too wide for batches of more than {}",
            self.rows
        )
    }
}

impl std::error::Error for NarrowerBatches {}

/// Whether one run of a query may end with a demand for narrower batches, or its rows are with the client already. In the configuration of the run's session,
/// as an extension; where it is missing a query can always be run again.
///
/// The rows of the demand; 0 before there is one, `COMMITTED` after the first rows went. Operators run beside each other: who comes first decides.
#[derive(Debug, Default)]
pub struct Run(AtomicUsize);

impl Run {
    const COMMITTED: usize = usize::MAX;

    /// The first rows go to the client, or more of them.
    ///
    /// # Errors
    /// The demand that came before: nothing must be sent of this run.
    pub fn commit(&self) -> Result<(), NarrowerBatches> {
        match self.decide(Self::COMMITTED) {
            0 | Self::COMMITTED => Ok(()),
            rows => Err(NarrowerBatches { rows }),
        }
    }

    /// Whether rows have gone to the client.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::COMMITTED
    }

    /// Whether the run may end with this demand.
    fn may_demand(&self, narrower: NarrowerBatches) -> bool {
        self.decide(narrower.rows) != Self::COMMITTED
    }

    /// What was decided before; `wanted` is now if nothing was.
    fn decide(&self, wanted: usize) -> usize {
        match self
            .0
            .compare_exchange(0, wanted, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(before) | Err(before) => before,
        }
    }
}

/// The demand for narrower batches that an error is.
#[must_use]
pub fn narrower_batches(error: &DataFusionError) -> Option<NarrowerBatches> {
    match error.find_root() {
        DataFusionError::External(inner) => inner.downcast_ref().copied(),
        _ => None,
    }
}

/// The demand of the constants that stand in a plan: an operator may repeat one in every row.
///
/// # Errors
/// Never: the plan is only looked at.
pub fn narrower_for_constants(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<NarrowerBatches>> {
    let mut widest = 0;
    plan.apply(|node| {
        node.apply_expressions(&mut |expr| {
            expr.apply(|part| {
                if let Some(literal) = part.downcast_ref::<Literal>() {
                    widest = widest.max(literal.value().size());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(NarrowerBatches::for_rows_of(widest))
}

/// Ends planning between two rules once nobody waits for the plan, or if it takes too much.
#[derive(Debug)]
pub struct StillWanted;

impl OptimizerRule for StillWanted {
    fn name(&self) -> &str {
        "still_wanted"
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        still_wanted()?;
        Ok(Transformed::no(plan))
    }
}

/// Whether somebody waits for what is being planned, and it does not take too much; to be asked between two passes over it.
///
/// # Errors
/// What ends the statement.
pub fn still_wanted() -> Result<()> {
    budget::check().map_err(|exceeded| raise(exceeded.into()))
}

/// The rules with [`StillWanted`] before each.
#[must_use]
pub fn while_wanted(
    rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>,
) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let pairs = rules.into_iter().map(|rule| {
        let wanted: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(StillWanted);
        [wanted, rule]
    });
    pairs.flatten().collect()
}

/// What DataFusion does in tasks of its own belongs to the statement that it does it for.
struct SameBudget;

impl JoinSetTracer for SameBudget {
    fn trace_future(
        &self,
        future: BoxFuture<'static, Box<dyn Any + Send>>,
    ) -> BoxFuture<'static, Box<dyn Any + Send>> {
        Box::pin(Within::new(budget::current(), future))
    }

    fn trace_block(
        &self,
        work: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> {
        let budget = budget::current();
        Box::new(move || match budget {
            Some(budget) => budget.run(work),
            None => work(),
        })
    }
}

/// Makes tasks that DataFusion starts work within the budget of the statement that starts them. Once for the process.
pub fn carry_budgets() {
    // Only the first call has an effect; all of them ask for the same.
    drop(set_join_set_tracer(&SameBudget));
}

/// What a [`PassExec`] is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Nothing is known of the rows but their columns.
    Forget,
    /// What is computed above is computed for the rows that a filter has left.
    Filtered,
    /// The thread is given back at least once every [`TURN`], if batches are made as often; the budget is asked before each.
    Yield,
    /// No batch has more rows than the query is run with.
    Split,
    /// The operator above makes batches in which any row may stand any number of times.
    Repeated,
    /// The operator above makes a value of each row that may be as large as all rows before it.
    Grown,
    /// The operator above keeps all rows, and may repeat any of them in every row.
    Kept,
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
            Purpose::Filtered
            | Purpose::Split
            | Purpose::Repeated
            | Purpose::Grown
            | Purpose::Kept => PlanProperties::clone(input.properties()),
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
        vec![self.purpose != Purpose::Forget]
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
        let rows_max = context.session_config().batch_size().max(1);
        let run = context.session_config().get_extension::<Run>();
        let input = self.input.execute(partition, context)?;
        let schema = input.schema();
        Ok(match self.purpose {
            Purpose::Forget | Purpose::Filtered => input,
            Purpose::Yield => Box::pin(YieldStream { input, turn: None }),
            Purpose::Split | Purpose::Repeated | Purpose::Grown => {
                let narrow = Narrow {
                    rows_max: if self.purpose == Purpose::Grown {
                        rows_max.min(GROWN_ROWS_MAX)
                    } else {
                        rows_max
                    },
                    repeated: self.purpose != Purpose::Split,
                    run,
                    waiting: VecDeque::new(),
                };
                worked(input, schema, narrow)
            }
            Purpose::Kept => worked(input, schema, Kept::default()),
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
        if let Err(exceeded) = budget::check() {
            return Poll::Ready(Some(Err(raise(exceeded.into()))));
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

/// What the widest row of a batch takes, about.
fn widest_row(batch: &RecordBatch) -> Result<usize> {
    batch
        .columns()
        .iter()
        .map(widest)
        .try_fold(0_usize, |sum, width| Ok(sum.saturating_add(width?)))
}

/// Batches of so many rows at most, in which no row is too wide for that. Once the query cannot be run again a wide row passes if there is room for its copies.
struct Narrow {
    rows_max: usize,
    /// Whether rows may be too wide.
    repeated: bool,
    run: Option<Arc<Run>>,
    waiting: VecDeque<RecordBatch>,
}

impl Work for Narrow {
    fn accept(&mut self, batch: RecordBatch) -> Result<()> {
        if self.repeated {
            let width = widest_row(&batch)?;
            if let Some(narrower) = NarrowerBatches::for_rows_of(width)
                && narrower.rows < self.rows_max
            {
                if self.run.as_ref().is_none_or(|run| run.may_demand(narrower)) {
                    return Err(narrower.into());
                }
                crate::growth::allowed(width.saturating_mul(self.rows_max))?;
            }
        }
        let mut from = 0;
        while from < batch.num_rows() {
            let length = self.rows_max.min(batch.num_rows() - from);
            self.waiting.push_back(batch.slice(from, length));
            from += length;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        Ok(self.waiting.pop_front())
    }
}

/// Ends if the widest row, repeated in place of every row so far, would not fit.
#[derive(Default)]
struct Kept {
    rows: usize,
    widest: usize,
    batch: Option<RecordBatch>,
}

impl Work for Kept {
    fn accept(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows = self.rows.saturating_add(batch.num_rows());
        self.widest = self.widest.max(widest_row(&batch)?);
        if self.widest >= WIDE_ROW_BYTES {
            crate::growth::allowed(self.rows.saturating_mul(self.widest))?;
        }
        self.batch = Some(batch);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        Ok(self.batch.take())
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

pub(crate) fn recomputed() -> ReplaceChildrenOptions {
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

/// Whether a window has a result of variable length.
fn makes_text(window: &dyn ExecutionPlan) -> bool {
    let given = window
        .children()
        .first()
        .map_or(0, |input| input.schema().fields().len());
    let schema = window.schema();
    let mut made = schema.fields().iter().skip(given);
    made.any(|field| field.data_type().primitive_width().is_none())
}

/// A filter below which nothing is moved that is above it.
pub(crate) fn fenced(filter: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Arc::new(PassExec::new(filter, Purpose::Filtered))
}

/// Makes every operator give the thread back, and looks at what those are given that may repeat it. Runs last.
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
            let purpose = if join_type(plan.as_ref()).is_some() {
                Some(Purpose::Repeated)
            } else if plan.is::<BoundedWindowAggExec>() {
                Some(if makes_text(plan.as_ref()) {
                    Purpose::Grown
                } else {
                    Purpose::Repeated
                })
            } else if plan.is::<WindowAggExec>() {
                // A number beside each row repeats none of them.
                Some(if makes_text(plan.as_ref()) {
                    Purpose::Kept
                } else {
                    Purpose::Repeated
                })
            } else {
                None
            };
            let plan = match purpose {
                Some(purpose) => {
                    let children = plan
                        .children()
                        .into_iter()
                        .map(|child| -> Arc<dyn ExecutionPlan> {
                            Arc::new(PassExec::new(Arc::clone(child), purpose))
                        })
                        .collect();
                    plan.replace_children(children, recomputed())?
                }
                None if plan.children().is_empty() => Arc::new(PassExec::new(plan, Purpose::Split)),
                None => plan,
            };
            Ok(Transformed::yes(Arc::new(PassExec::new(
                plan,
                Purpose::Yield,
            ))))
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, StringArray};
    use flowstone_types::Budget;

    use super::*;

    fn batch(width: usize) -> RecordBatch {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(width); 3]));
        RecordBatch::try_from_iter([("t", texts)]).unwrap()
    }

    fn narrow(run: &Arc<Run>) -> Narrow {
        Narrow {
            rows_max: 8192,
            repeated: true,
            run: Some(Arc::clone(run)),
            waiting: VecDeque::new(),
        }
    }

    #[test]
    fn a_wide_row_passes_once_the_query_cannot_be_run_again() {
        let run = Arc::new(Run::default());
        run.commit().unwrap();
        let mut stream = narrow(&run);
        stream.accept(batch(9000)).unwrap();
        assert_eq!(stream.waiting.len(), 1);
        let little = Budget::alone(1 << 20);
        let outcome = little.run(|| stream.accept(batch(9000)));
        assert_eq!(narrower_batches(&outcome.unwrap_err()), None);
    }

    #[test]
    fn a_run_that_was_given_up_sends_nothing() {
        let run = Arc::new(Run::default());
        let error = narrow(&run).accept(batch(1 << 20)).unwrap_err();
        let demanded = NarrowerBatches { rows: 64 };
        assert_eq!(narrower_batches(&error), Some(demanded));
        assert_eq!(run.commit(), Err(demanded));
        assert!(!run.is_committed());
    }
}
