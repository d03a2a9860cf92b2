//! Conditions of a filter that may fail, behind those that cannot.
//!
//! DataFusion evaluates both sides of an AND for all rows, unless the left one leaves few. So `WHERE id <> 1 AND 1 / (id - 1) > 0` fails for a row that it
//! does not ask for, also where the first condition comes from a query inside. Owns what may fail, and the rule and the expression that evaluate such
//! conditions one after the other, each for the rows that those before it left, in filters and in joins. DataFusion also computes what a condition of a join asks
//! of one side for all rows of that side, as if a CASE or an AND around it were not there: it does not see those that may fail. Must not know where plans run.
//! Called by `registry`, which builds the session state, and by `sql`, whose maintained filters do the same with [`in_turn`].
//!
//! Invariants. A condition that may fail is evaluated after all that cannot, in the order in which they were given. Rows and schemas are those of the AND.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_schema::{DataType, Schema};
use arrow_select::filter::{filter_record_batch, prep_null_mask_filter};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, Expr, ExprSchemable, Operator};
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr,
    Literal, NotExpr,
};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, conjunction, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use datafusion::physical_plan::projection::ProjectionExec;

use crate::errors::{internal, raise};
use crate::execution::{fenced, recomputed};
use crate::keys::SORT_KEY;

/// Functions that never fail.
const SAFE_FUNCTIONS: [&str; 3] = ["coalesce", "nullif", SORT_KEY];

/// Whether an expression over columns of `schema` may fail, as far as is seen.
///
/// # Errors
/// Never: the expression is only looked at.
pub fn may_fail(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    expr.exists(|part| {
        Ok(match part {
            Expr::Column(_)
            | Expr::OuterReferenceColumn(..)
            | Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Case(_)
            | Expr::Between(_)
            | Expr::InList(_)
            | Expr::AggregateFunction(_) => false,
            Expr::Like(like) => !matches!(&*like.pattern, Expr::Literal(..)),
            Expr::ScalarFunction(function) => !SAFE_FUNCTIONS.contains(&function.name()),
            Expr::Cast(cast) => !cast
                .expr
                .get_type(schema)
                .is_ok_and(|from| widens(&from, cast.field.data_type())),
            Expr::BinaryExpr(binary) => !is_safe(binary.op),
            _ => true,
        })
    })
}

/// Whether an operator of DataFusion's own never fails.
const fn is_safe(operator: Operator) -> bool {
    matches!(
        operator,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::And
            | Operator::Or
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// Whether every value of a type has one of another.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, Null, UInt8, UInt16, UInt32,
        UInt64,
    };
    match (from, to) {
        (from, to) if from == to => true,
        (Null, _)
        | (Int8 | UInt8, Int16 | Int32 | Int64 | Float32 | Float64)
        | (Int16 | UInt16, Int32 | Int64 | Float32 | Float64)
        | (UInt8 | UInt16, UInt32 | UInt64)
        | (Int32 | UInt32, Int64 | Float64)
        | (UInt32, UInt64)
        | (Int64 | UInt64 | Float32, Float64) => true,
        // The longest integer has 20 digits.
        (from, Decimal128(precision, scale)) => {
            from.is_integer() && *scale >= 0 && i16::from(*precision) - i16::from(*scale) >= 20
        }
        _ => false,
    }
}

/// Conditions over `schema`, each to be evaluated for the rows that those before it left: first those that cannot fail.
///
/// # Errors
/// Never: the expressions are only looked at.
pub fn in_turn(conditions: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    let (mut safe, mut others) = (Vec::new(), Vec::new());
    for condition in conditions {
        if may_fail(&condition, schema)? {
            others.push(condition);
        } else {
            safe.push(condition);
        }
    }
    safe.extend(others);
    Ok(safe)
}

/// The same of what is going to be executed.
fn part_may_fail(part: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    if let Some(binary) = part.downcast_ref::<BinaryExpr>() {
        !is_safe(*binary.op())
    } else if let Some(cast) = part.downcast_ref::<CastExpr>() {
        let from = cast.expr().data_type(schema);
        !from.is_ok_and(|from| widens(&from, cast.cast_type()))
    } else if let Some(function) = part.downcast_ref::<ScalarFunctionExpr>() {
        !SAFE_FUNCTIONS.contains(&function.name())
    } else if let Some(like) = part.downcast_ref::<LikeExpr>() {
        !like.pattern().is::<Literal>()
    } else {
        !(part.is::<Column>()
            || part.is::<Literal>()
            || part.is::<NotExpr>()
            || part.is::<IsNullExpr>()
            || part.is::<IsNotNullExpr>()
            || part.is::<InListExpr>()
            || part.is::<CaseExpr>())
    }
}

fn some_part_may_fail(condition: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<bool> {
    let mut fails = false;
    condition.apply(|part| {
        fails |= part_may_fail(part, schema);
        Ok(if fails {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(fails)
}

/// The plan with nothing between a filter and what is computed above it that would let this be computed first, for all rows: DataFusion does so where the result
/// has fewer columns. `fails`: something above may fail.
fn computed_behind_filters(
    plan: &Arc<dyn ExecutionPlan>,
    fails: bool,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut below = fails;
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let schema = projection.input().schema();
        for shown in projection.expr() {
            below |= some_part_may_fail(&shown.expr, &schema)?;
        }
    }
    let mut changed = false;
    let mut children = Vec::new();
    for child in plan.children() {
        let made = computed_behind_filters(child, below)?;
        changed |= !Arc::ptr_eq(&made, child);
        children.push(made);
    }
    let plan = if changed {
        Arc::clone(plan).replace_children(children, recomputed())?
    } else {
        Arc::clone(plan)
    };
    Ok(if fails && plan.is::<FilterExec>() {
        fenced(plan)
    } else {
        plan
    })
}

/// Hides conditions of joins that may fail from the rules between this one and [`FailingLast`], and keeps what may fail above the filters that it is above.
#[derive(Debug)]
pub(crate) struct HideFailing;

impl PhysicalOptimizerRule for HideFailing {
    fn name(&self) -> &str {
        "HideFailing"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = computed_behind_filters(&plan, false)?;
        plan.transform_up(|plan| {
            let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() else {
                return Ok(Transformed::no(plan));
            };
            match join.filter() {
                Some(filter) if some_part_may_fail(filter.expression(), filter.schema())? => {
                    let hidden = Arc::new(Hidden(Arc::clone(filter.expression())));
                    let filter = with_condition(filter, hidden);
                    let join = NestedLoopJoinExecBuilder::from(join).with_filter(Some(filter));
                    Ok(Transformed::yes(Arc::new(join.build()?)))
                }
                _ => Ok(Transformed::no(plan)),
            }
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn with_condition(filter: &JoinFilter, condition: Arc<dyn PhysicalExpr>) -> JoinFilter {
    let columns = filter.column_indices().to_vec();
    JoinFilter::new(condition, columns, Arc::clone(filter.schema()))
}

/// Makes filters and joins evaluate conditions that may fail after the others. Runs after every rule that looks at conditions.
#[derive(Debug)]
pub(crate) struct FailingLast;

impl PhysicalOptimizerRule for FailingLast {
    fn name(&self) -> &str {
        "FailingLast"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            if let Some(filter) = plan.downcast_ref::<FilterExec>() {
                let schema = filter.input().schema();
                let Some(condition) = InTurn::of(filter.predicate(), &schema)? else {
                    return Ok(Transformed::no(plan));
                };
                let filter = FilterExecBuilder::from(filter).with_predicate(condition);
                Ok(Transformed::yes(Arc::new(filter.build()?)))
            } else if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
                let Some(filter) = join.filter().map(in_turn_of_join).transpose()?.flatten() else {
                    return Ok(Transformed::no(plan));
                };
                let join = NestedLoopJoinExecBuilder::from(join).with_filter(Some(filter));
                Ok(Transformed::yes(Arc::new(join.build()?)))
            } else if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
                let Some(filter) = join.filter().map(in_turn_of_join).transpose()?.flatten() else {
                    return Ok(Transformed::no(plan));
                };
                let join = join.builder().with_filter(Some(filter));
                Ok(Transformed::yes(join.build_exec()?))
            } else {
                Ok(Transformed::no(plan))
            }
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The filter of a join with its conditions in turn and not hidden any more, if that is another.
fn in_turn_of_join(filter: &JoinFilter) -> Result<Option<JoinFilter>> {
    let hidden = filter.expression().downcast_ref::<Hidden>();
    let condition = hidden.map_or(filter.expression(), |hidden| &hidden.0);
    let in_turn = InTurn::of(condition, filter.schema())?;
    let condition = in_turn.or_else(|| hidden.map(|hidden| Arc::clone(&hidden.0)));
    Ok(condition.map(|condition| with_condition(filter, condition)))
}

/// A condition that shows no parts.
#[derive(Clone, Debug)]
struct Hidden(Arc<dyn PhysicalExpr>);

impl PartialEq for Hidden {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Eq for Hidden {}

impl Hash for Hidden {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl PhysicalExpr for Hidden {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.0.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.0.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.0.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

/// A condition, and the columns that it is about.
#[derive(Clone, Debug)]
struct Step {
    condition: Arc<dyn PhysicalExpr>,
    /// Places of its columns in the rows.
    columns: Vec<usize>,
    /// The condition over these columns alone.
    over_columns: Arc<dyn PhysicalExpr>,
}

impl Step {
    fn new(condition: Arc<dyn PhysicalExpr>) -> Result<Self> {
        let columns: BTreeSet<usize> = collect_columns(&condition)
            .iter()
            .map(Column::index)
            .collect();
        let columns: Vec<usize> = columns.into_iter().collect();
        let over_columns = Arc::clone(&condition).transform(|part| {
            let Some(column) = part.downcast_ref::<Column>() else {
                return Ok(Transformed::no(part));
            };
            let place = columns.binary_search(&column.index());
            let place = place.map_err(|_| raise(internal("a column that is none of its own")))?;
            Ok(Transformed::yes(Arc::new(Column::new(
                column.name(),
                place,
            ))))
        });
        Ok(Self {
            over_columns: over_columns.data()?,
            condition,
            columns,
        })
    }

    /// For which rows it is true.
    fn evaluate(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let outcome = self.over_columns.evaluate(rows)?;
        let outcome = outcome.into_array(rows.num_rows())?;
        Ok(match outcome.data_type() {
            DataType::Boolean if outcome.null_count() == 0 => outcome.as_boolean().clone(),
            DataType::Boolean => prep_null_mask_filter(outcome.as_boolean()),
            DataType::Null => BooleanArray::from(vec![false; rows.num_rows()]),
            other => return internal_err!("a condition of type {other}"),
        })
    }
}

/// Whether all conditions are true, each evaluated for the rows for which those before it are. Never NULL: it decides which rows stay.
#[derive(Clone, Debug)]
struct InTurn {
    steps: Vec<Step>,
}

impl InTurn {
    /// A condition over `schema`, if one part of it may fail and there are others.
    fn of(
        condition: &Arc<dyn PhysicalExpr>,
        schema: &Schema,
    ) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let (mut safe, mut others) = (Vec::new(), Vec::new());
        for conjunct in split_conjunction(condition) {
            let fails = some_part_may_fail(conjunct, schema)?;
            let kind = if fails { &mut others } else { &mut safe };
            kind.push(Arc::clone(conjunct));
        }
        let first = (!safe.is_empty()).then(|| conjunction(safe));
        let steps: Vec<_> = first.into_iter().chain(others).collect();
        if steps.len() < 2 {
            return Ok(None);
        }
        let steps = steps.into_iter().map(Step::new).collect::<Result<_>>()?;
        Ok(Some(Arc::new(Self { steps })))
    }
}

impl fmt::Display for InTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.steps.iter().enumerate() {
            let then = if place == 0 { "" } else { " AND THEN " };
            write!(f, "{then}{}", step.condition)?;
        }
        Ok(())
    }
}

impl PartialEq for InTurn {
    fn eq(&self, other: &Self) -> bool {
        self.children() == other.children()
    }
}

impl Eq for InTurn {}

impl Hash for InTurn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.children().hash(state);
    }
}

impl PhysicalExpr for InTurn {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(false)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let mut kept = BooleanArray::from(vec![true; batch.num_rows()]);
        for step in &self.steps {
            let rows = batch.project(&step.columns)?;
            kept = match kept.true_count() {
                0 => break,
                all if all == batch.num_rows() => step.evaluate(&rows)?,
                _ => scattered(&kept, &step.evaluate(&filter_record_batch(&rows, &kept)?)?),
            };
        }
        Ok(ColumnarValue::Array(Arc::new(kept)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.steps.iter().map(|step| &step.condition).collect()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let steps = children.into_iter().map(Step::new).collect::<Result<_>>()?;
        Ok(Arc::new(Self { steps }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Those of the kept rows for which `outcome`, which has one value for each of them, is true.
fn scattered(kept: &BooleanArray, outcome: &BooleanArray) -> BooleanArray {
    let mut still = vec![false; kept.len()];
    for (row, outcome) in itertools::zip_eq(kept.values().set_indices(), outcome.values()) {
        if let Some(still) = still.get_mut(row) {
            *still = outcome;
        }
    }
    BooleanArray::from(still)
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int32Array};
    use datafusion::datasource::{MemTable, provider_as_source};
    use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
    use datafusion::physical_plan::collect;

    use super::*;
    use crate::planner::checked_arithmetic;
    use crate::{session_state, task_context};

    /// What of these numbers a filter leaves.
    async fn left(numbers: &[Option<i32>], condition: Expr) -> Result<Vec<Option<i32>>> {
        let array: ArrayRef = Arc::new(Int32Array::from(numbers.to_vec()));
        let batch = RecordBatch::try_from_iter_with_nullable([("n", array, true)])?;
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
        let plan = LogicalPlanBuilder::scan("t", provider_as_source(Arc::new(table)), None)?
            .filter(condition)?
            .build()?;
        let state = session_state();
        let plan = state
            .query_planner()
            .create_physical_plan(&plan, &state)
            .await?;
        let batches = collect(plan, task_context()).await?;
        let arrays = batches.iter().map(|batch| batch.column(0));
        Ok(arrays
            .flat_map(|array| {
                let array = array.as_primitive::<arrow_array::types::Int32Type>();
                array.iter().collect::<Vec<_>>()
            })
            .collect())
    }

    /// `12 / (n - zero)`
    fn quotient(zero: i32) -> Expr {
        let schema = Schema::new(vec![arrow_schema::Field::new("n", DataType::Int32, true)]);
        let schema = DFSchema::try_from(schema).unwrap();
        checked_arithmetic(lit(12_i32) / (col("n") - lit(zero)), &schema).unwrap()
    }

    #[tokio::test]
    async fn what_may_fail_is_asked_of_the_rows_that_others_leave() {
        let numbers = [None, Some(1), Some(2), Some(3), Some(4), Some(5), Some(-3)];
        let positive = |zero| quotient(zero).gt(lit(0_i32));
        // Written first, and behind NULL.
        let condition = positive(1).and(col("n").not_eq(lit(1_i32)));
        let found = left(&numbers, condition).await.unwrap();
        assert_eq!(found, [Some(2), Some(3), Some(4), Some(5)]);
        // One after another: the second leaves no row for which the last fails.
        let condition = col("n").not_eq(lit(2_i32));
        let condition = condition.and(quotient(2).gt(lit(8_i32))).and(positive(4));
        assert!(left(&numbers, condition).await.unwrap().is_empty());
        // A row that it is asked of still fails.
        let condition = col("n").lt(lit(3_i32)).and(positive(1));
        let error = left(&numbers, condition).await.unwrap_err();
        assert!(error.to_string().contains("division by zero"), "{error}");
    }

    #[test]
    fn what_cannot_fail_comes_first() {
        let schema = Schema::new(vec![arrow_schema::Field::new("n", DataType::Int32, true)]);
        let schema = DFSchema::try_from(schema).unwrap();
        let (safe, unsafe_) = (col("n").gt(lit(1_i32)), quotient(1).gt(lit(0_i32)));
        let also_safe = col("n").is_not_null();
        let given = vec![unsafe_.clone(), safe.clone(), also_safe.clone()];
        assert_eq!(in_turn(given, &schema).unwrap(), [safe, also_safe, unsafe_]);
    }
}
