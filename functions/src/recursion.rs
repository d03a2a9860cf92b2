//! Rows of a recursive query that are there once.
//!
//! DataFusion takes it that new groups are numbered in the order of their rows, and takes a row for a double if its number is less than one before. Where two
//! rows have the same hash that is not so, and NULL adds nothing to a hash: of `(1, NULL)` and `(NULL, 1)` both may stay, and another row is lost.
//! Owns the rule that takes the removal of doubles from DataFusion's recursion, and the node that does it instead. Must not know what recurs.
//! Called by `registry`, which builds the session state.
//!
//! Invariants. Of equal rows the first one passes, whichever round it comes from. What was seen is forgotten when the recursion starts anew.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::filter::filter_record_batch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::plan_err;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use crate::errors::{internal, raise};
use crate::streams::{Work, worked};

/// Puts a [`FreshExec`] on both terms of each recursion that removes doubles, which removes none itself then.
#[derive(Debug)]
pub(crate) struct FreshRows;

impl PhysicalOptimizerRule for FreshRows {
    fn name(&self) -> &str {
        "FreshRows"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let Some(query) = plan.downcast_ref::<RecursiveQueryExec>() else {
                return Ok(Transformed::no(plan));
            };
            if !query.is_distinct() {
                return Ok(Transformed::no(plan));
            }
            let seen = Arc::<Mutex<Option<Seen>>>::default();
            let term = |input: &Arc<dyn ExecutionPlan>, starts| {
                Arc::new(FreshExec {
                    input: Arc::clone(input),
                    starts,
                    seen: Arc::clone(&seen),
                })
            };
            let fresh = RecursiveQueryExec::try_new(
                query.name().to_owned(),
                query.schema(),
                term(query.static_term(), true),
                term(query.recursive_term(), false),
                false,
            )?;
            Ok(Transformed::yes(Arc::new(fresh)))
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The rows that a recursion has had.
struct Seen {
    rows: Box<dyn GroupValues>,
    /// The numbers of the rows of one batch.
    numbers: Vec<usize>,
    memory: MemoryReservation,
}

impl Seen {
    fn new(schema: SchemaRef, context: &TaskContext) -> Result<Self> {
        Ok(Self {
            rows: new_group_values(schema, &GroupOrdering::None)?,
            numbers: Vec::new(),
            memory: MemoryConsumer::new("RecursiveQueryRows").register(context.memory_pool()),
        })
    }

    /// The rows of a batch that were not there before.
    fn fresh(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let before = self.rows.len();
        self.numbers.clear();
        self.rows.intern(batch.columns(), &mut self.numbers)?;
        self.memory.try_resize(self.rows.size())?;
        let mut met = vec![false; self.rows.len().saturating_sub(before)];
        let is_fresh = |number: &usize| {
            let place = number.checked_sub(before)?;
            met.get_mut(place).map(|met| !std::mem::replace(met, true))
        };
        let fresh: Vec<bool> = self
            .numbers
            .iter()
            .map(is_fresh)
            .map(Option::unwrap_or_default)
            .collect();
        Ok(filter_record_batch(batch, &BooleanArray::from(fresh))?)
    }
}

/// Passes the rows of one term on that neither term had before.
#[derive(Clone)]
struct FreshExec {
    input: Arc<dyn ExecutionPlan>,
    /// Whether the recursion starts with this term.
    starts: bool,
    /// Of both terms.
    seen: Arc<Mutex<Option<Seen>>>,
}

impl fmt::Debug for FreshExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshExec")
            .field("input", &self.input)
            .field("starts", &self.starts)
            .finish_non_exhaustive()
    }
}

impl DisplayAs for FreshExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreshExec")
    }
}

impl ExecutionPlan for FreshExec {
    fn name(&self) -> &str {
        "FreshExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
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
            Ok([input]) => Ok(Arc::new(Self {
                input,
                ..Self::clone(&self)
            })),
            Err(children) => plan_err!("FreshExec has one input, not {}", children.len()),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if self.starts {
            let new = Seen::new(self.input.schema(), &context)?;
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
        }
        let input = self.input.execute(partition, context)?;
        let schema = input.schema();
        let fresh = Fresh {
            seen: Arc::clone(&self.seen),
            batch: None,
        };
        Ok(worked(input, schema, fresh))
    }
}

struct Fresh {
    seen: Arc<Mutex<Option<Seen>>>,
    batch: Option<RecordBatch>,
}

impl Work for Fresh {
    fn accept(&mut self, batch: RecordBatch) -> Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen
            .as_mut()
            .ok_or_else(|| raise(internal("a round of a recursion before its start")))?;
        let fresh = seen.fresh(&batch)?;
        self.batch = (fresh.num_rows() > 0).then_some(fresh);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        Ok(self.batch.take())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::catalog::cte_worktable::CteWorkTable;
    use datafusion::common::{Column, ScalarValue};
    use datafusion::datasource::provider_as_source;
    use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
    use datafusion::physical_plan::collect;

    use super::*;
    use crate::{session_state, task_context};

    /// Rows of three numbers, and those that follow by adding one to the last as long as it is less than three.
    fn counted(rows: &[[Option<i64>; 3]]) -> LogicalPlan {
        let values = rows
            .iter()
            .map(|row| row.iter().map(|v| lit(ScalarValue::Int64(*v))).collect());
        let first = LogicalPlanBuilder::values(values.collect())
            .unwrap()
            .build()
            .unwrap();
        let schema = Arc::new(first.schema().as_arrow().clone());
        let work = provider_as_source(Arc::new(CteWorkTable::new("r", schema)));
        let column = |name: &str| Expr::Column(Column::new(Some("r"), name));
        let next = LogicalPlanBuilder::scan("r", work, None)
            .unwrap()
            .filter(column("column3").lt(lit(3_i64)))
            .unwrap()
            .project(vec![
                column("column1"),
                column("column2"),
                (column("column3") + lit(1_i64)).alias("column3"),
            ])
            .unwrap()
            .build()
            .unwrap();
        LogicalPlanBuilder::from(first)
            .to_recursive_query("r".to_owned(), next, true)
            .unwrap()
            .build()
            .unwrap()
    }

    async fn rows_of(plan: &Arc<dyn ExecutionPlan>) -> usize {
        let batches = collect(Arc::clone(plan), task_context()).await.unwrap();
        batches.iter().map(RecordBatch::num_rows).sum()
    }

    #[tokio::test]
    async fn rows_with_null_are_lost_to_no_others() {
        let (none, one, three) = (None, Some(0), Some(3));
        let firsts = [
            [three, none, three],
            [none, three, three],
            [three, three, none],
            [three, none, three],
            [Some(2), Some(1), Some(3)],
            [one, none, Some(1)],
            [none, one, Some(1)],
            [one, none, Some(2)],
            [Some(7), Some(8), Some(1)],
        ];
        let state = session_state();
        let plan = state.optimize(&counted(&firsts)).unwrap();
        let plan = state
            .query_planner()
            .create_physical_plan(&plan, &state)
            .await
            .unwrap();
        // Four of which nothing follows, and three of which two follow.
        assert_eq!(rows_of(&plan).await, 4 + 3 * 3);
        // Nothing is left of the first time.
        assert_eq!(rows_of(&plan).await, 4 + 3 * 3);
    }
}
