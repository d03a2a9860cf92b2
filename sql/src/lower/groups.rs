//! What is evaluated by keys or by rows: operators for which the engine has none of its own, where a change concerns the rows of its key only.
//!
//! Owns by which columns that is: the partitions that all windows of an operator have in common, the equalities of a join, the groups of an aggregate. And what grouping sets are made of.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion::common::{Column, DFSchema, JoinType, NullEquality};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, GroupingSet, Join, LogicalPlan, LogicalPlanBuilder,
    Operator as ExprOperator, Window, lit, when,
};
use datafusion::scalar::ScalarValue;
use flowstone_proto::plan::{NodeId, Operator};

use super::chain::{Chain, strip_alias};
use super::graph::{schema_of, with_key};
use super::recompute::{key_column, over_inputs, over_keyed};
use super::{Lowering, mapped, order_columns};
use crate::error::Error;
use crate::names::INTERNAL;
use crate::optimize;
use crate::unnest::sets_of;

impl Lowering {
    /// Windows, by the columns that their partitions have in common. `first`: of each partition of the only one, no more rows are wanted.
    pub(super) fn windows(
        &mut self,
        plan: &LogicalPlan,
        window: &Window,
        first: Option<u64>,
    ) -> Result<Chain, Error> {
        let what = "window functions";
        let mut partitions = window.window_expr.iter().map(partition_of);
        let mut common: Vec<&Expr> = partitions.next().unwrap_or_default().iter().collect();
        for partition in partitions {
            common.retain(|expr| partition.contains(expr));
        }
        if common.is_empty() && first.is_none() {
            return Ok(Chain::of(self.recompute(plan, what)?));
        }
        let order = match first {
            Some(_) => window.window_expr.first().map(order_of).unwrap_or_default(),
            None => &[],
        };
        let ordered = order.iter().map(|sort| &sort.expr);
        let exprs: Vec<&Expr> = common.iter().copied().chain(ordered).collect();
        let (mut input, positions) = self.extended(&window.input, &exprs)?;
        let (key, ordered) = positions.split_at(common.len());
        let identity = self.graph.key(input).cloned();
        if first.is_some() {
            let order = order_columns(ordered, order);
            input = self.graph.top(input, key.to_vec(), order, first, 0);
        }
        if key.is_empty() {
            let query = over_inputs(plan, &[input], &self.graph)?;
            return Ok(Chain::of(self.recomputed(
                plan,
                vec![input],
                &query,
                what,
            )?));
        }
        let shown = (0..key.len()).map(|number| Expr::Column(key_column(0, number)));
        let shown: Vec<Expr> = shown.collect();
        let inputs = vec![(input, key.to_vec())];
        let query = over_keyed(plan, &inputs, |_| shown, &self.graph)?;
        // What the input has behind the columns of the plan are parts of its key.
        let width = window.input.schema().fields().len();
        let identity = identity.filter(|columns| columns.iter().all(|column| *column < width));
        self.by_groups(plan, inputs, (&query, false), (what, identity))
    }

    /// A join of which pairs of key columns are equal in all rows that match.
    pub(super) fn keyed_join(
        &mut self,
        plan: &LogicalPlan,
        join: &Join,
        what: &str,
    ) -> Result<Chain, Error> {
        if let Some(chain) = self.by_presence(join)? {
            return Ok(chain);
        }
        let mut pairs = Vec::new();
        for (left, right) in &join.on {
            let left_type = crate::plan::field_of(left, &join.left)?;
            let right_type = crate::plan::field_of(right, &join.right)?;
            if left_type.data_type() == right_type.data_type() {
                pairs.push((left, right));
            }
        }
        // One NULL on the right side of NOT IN concerns all rows of the left one.
        if pairs.is_empty() || join.null_aware {
            return Ok(Chain::of(self.recompute(plan, what)?));
        }
        let (left_exprs, right_exprs): (Vec<&Expr>, Vec<&Expr>) = pairs.into_iter().unzip();
        let (left, left_key) = self.extended(&join.left, &left_exprs)?;
        let (right, right_key) = self.extended(&join.right, &right_exprs)?;
        let of = |input: usize, number: usize| Expr::Column(key_column(input, number));
        let numbers = 0..left_key.len();
        let shown: Vec<Expr> = match join.join_type {
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                numbers.map(|number| of(0, number)).collect()
            }
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                numbers.map(|number| of(1, number)).collect()
            }
            JoinType::Full | JoinType::Inner => numbers
                .map(|number| {
                    when(of(0, number).is_not_null(), of(0, number))
                        .otherwise(of(1, number))
                        .map_err(mapped)
                })
                .collect::<Result<_, _>>()?,
        };
        // Only the sides that show their keys have them, so that no other column is named by them.
        let has_key = |input: usize| {
            shown.iter().any(|expr| {
                expr.column_refs()
                    .iter()
                    .any(|column| column.relation == key_column(input, 0).relation)
            })
        };
        let scanned = [(left, &left_key), (right, &right_key)];
        let scanned: Vec<(NodeId, Vec<usize>)> = scanned
            .into_iter()
            .enumerate()
            .map(|(input, (node, key))| {
                let key = if has_key(input) {
                    key.clone()
                } else {
                    Vec::new()
                };
                (node, key)
            })
            .collect();
        let query = over_keyed(plan, &scanned, |_| shown, &self.graph)?;
        let nulls_alone = join.null_equality == NullEquality::NullEqualsNothing;
        let inputs = vec![(left, left_key), (right, right_key)];
        self.by_groups(plan, inputs, (&query, nulls_alone), (what, None))
    }

    /// A semi or anti join by nothing but whether the right side has rows, and whether there is NULL among them: the left side is joined with their numbers,
    /// which are one row. So it is where the condition is one over the left side, and with NOT IN, of which an anti join is left.
    fn by_presence(&mut self, join: &Join) -> Result<Option<Chain>, Error> {
        let is_of = |expr: &Expr, side: &LogicalPlan| {
            let columns = expr.column_refs();
            columns
                .iter()
                .all(|column| side.schema().has_column(column))
        };
        let is_semi = join.join_type == JoinType::LeftSemi;
        if !(is_semi || join.join_type == JoinType::LeftAnti)
            || !join.on.is_empty()
            || join.null_aware
        {
            return Ok(None);
        }
        let left = &join.left;
        match &join.filter {
            Some(Expr::IsNotFalse(matches)) if !is_semi => {
                let Expr::BinaryExpr(BinaryExpr {
                    left: value,
                    op: ExprOperator::Eq,
                    right: of,
                }) = matches.as_ref()
                else {
                    return Ok(None);
                };
                if !is_of(value, left) || !is_of(of, &join.right) {
                    return Ok(None);
                }
                let known = count(of.as_ref().clone());
                let decided = with_counts(join, &[count(lit(1_i64)), known], |counts| {
                    let [all, known] = counts else {
                        return lit(true);
                    };
                    let none_is_null = known.clone().eq(all.clone());
                    let none = all.clone().eq(lit(0_i64));
                    none.or(none_is_null.and(value.as_ref().clone().is_not_null()))
                })?;
                let anti = Join {
                    left: Arc::new(decided),
                    on: vec![(value.as_ref().clone(), of.as_ref().clone())],
                    filter: None,
                    ..join.clone()
                };
                self.chain(&LogicalPlan::Join(anti)).map(Some)
            }
            filter if filter.iter().all(|filter| is_of(filter, left)) => {
                let kept = with_counts(join, &[count(lit(1_i64))], |counts| {
                    let some = counts.iter().map(|count| count.clone().gt(lit(0_i64)));
                    let matched = filter.iter().cloned().chain(some).reduce(Expr::and);
                    let matched = matched.unwrap_or_else(|| lit(true));
                    if is_semi {
                        matched
                    } else {
                        matched.is_not_true()
                    }
                })?;
                self.chain(&kept).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Groups by expressions, of aggregates that the engine does not maintain itself.
    pub(super) fn grouped(
        &mut self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        what: &str,
    ) -> Result<Chain, Error> {
        if aggregate.group_expr.is_empty() {
            return Ok(Chain::of(self.recompute(plan, what)?));
        }
        let exprs: Vec<&Expr> = aggregate.group_expr.iter().collect();
        let (input, key) = self.extended(&aggregate.input, &exprs)?;
        let groups = |schema: &DFSchema| {
            let columns = schema.columns().into_iter();
            columns.take(key.len()).map(Expr::Column).collect()
        };
        let identity = (0..key.len()).collect();
        let query = over_keyed(plan, &[(input, Vec::new())], groups, &self.graph)?;
        let inputs = vec![(input, key)];
        self.by_groups(plan, inputs, (&query, false), (what, Some(identity)))
    }

    /// Grouping sets: one grouping each, and NULL for the keys that a set leaves out.
    pub(super) fn grouping_sets(
        &mut self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        sets: &GroupingSet,
    ) -> Result<Chain, Error> {
        let schema = schema_of(plan);
        let keys = sets.distinct_expr();
        let data_type = |place: usize| schema.field(place).data_type();
        let mut known: Vec<Vec<Expr>> = Vec::new();
        let mut inputs = Vec::new();
        for set in sets_of(sets).map_err(mapped)? {
            // A set that is there twice has its rows twice, told apart by how often it was there before.
            let before = known.iter().filter(|other| same_set(other, &set)).count();
            let mut grouping = u64::try_from(before).unwrap_or(u64::MAX);
            let mut exprs = Vec::with_capacity(schema.fields().len());
            let one = self.one_set(aggregate, &set)?;
            let columns = one.as_ref().map(|one| one.schema().columns());
            let columns = columns.unwrap_or_default();
            let mut missing = 0_u64;
            for (place, key) in keys.iter().enumerate() {
                let found = set.iter().position(|expr| expr == *key);
                missing = (missing << 1) | u64::from(found.is_none());
                exprs.push(match found.and_then(|found| columns.get(found)) {
                    Some(column) => Expr::Column(column.clone()),
                    None => Expr::Literal(null(data_type(place))?, None),
                });
            }
            let keys = u32::try_from(keys.len()).unwrap_or(u32::MAX);
            grouping = grouping.checked_shl(keys).unwrap_or(0) | missing;
            let number = ScalarValue::UInt64(Some(grouping));
            let number = number.cast_to(data_type(exprs.len())).map_err(mapped)?;
            exprs.push(Expr::Literal(number, None));
            let values = columns.iter().skip(set.len());
            exprs.extend(values.map(|column| Expr::Column(column.clone())));
            let (mut chain, of) = match &one {
                Some(one) => (self.chain(one)?, one.schema().as_ref().clone()),
                None => {
                    let row = Chain::of(self.graph.one_row()?).with_no_columns()?;
                    (row, DFSchema::empty())
                }
            };
            chain.project(exprs.iter(), &of)?;
            inputs.push(chain.build(&mut self.graph, &schema)?);
            known.push(set);
        }
        Ok(Chain::of(self.graph.union(inputs, schema)))
    }

    /// The grouping by one set; `None` if it is a row of nothing.
    fn one_set(&self, aggregate: &Aggregate, set: &[Expr]) -> Result<Option<LogicalPlan>, Error> {
        if set.is_empty() && aggregate.aggr_expr.is_empty() {
            return Ok(None);
        }
        let input = Arc::clone(&aggregate.input);
        Aggregate::try_new(input, set.to_vec(), aggregate.aggr_expr.clone())
            .map(|aggregate| Some(LogicalPlan::Aggregate(aggregate)))
            .map_err(mapped)
    }

    /// What makes rows of each row.
    pub(super) fn by_rows(&mut self, plan: &LogicalPlan, what: &str) -> Result<Chain, Error> {
        let mut inputs = Vec::new();
        for input in plan.inputs() {
            inputs.push(self.node(input)?);
        }
        let [input] = inputs.as_slice() else {
            return Ok(Chain::of(self.recompute(plan, what)?));
        };
        let query = over_inputs(plan, &inputs, &self.graph)?;
        let query = optimize::optimize(query).map_err(mapped)?;
        let operator = Operator::RecomputeRows {
            input: *input,
            query: crate::plan::encode(&query)?,
            what: what.to_owned(),
        };
        Ok(Chain::of(self.graph.add(operator, schema_of(plan), None)))
    }

    fn by_groups(
        &mut self,
        plan: &LogicalPlan,
        inputs: Vec<(NodeId, Vec<usize>)>,
        (query, nulls_alone): (&LogicalPlan, bool),
        (what, identity): (&str, Option<Vec<usize>>),
    ) -> Result<Chain, Error> {
        let shown = schema_of(plan);
        let width = shown.fields().len();
        let schema = match inputs.first() {
            Some((input, key)) => with_key(&shown, &self.graph.schema(*input), key),
            None => shown,
        };
        let query = optimize::optimize(query.clone()).map_err(mapped)?;
        let operator = Operator::RecomputeGroups {
            inputs,
            query: crate::plan::encode(&query)?,
            nulls_alone,
            what: what.to_owned(),
        };
        let node = self.graph.add(operator, schema, identity);
        Ok(Chain::of(node).with_columns((0..width).collect(), &self.graph))
    }
}

fn null(data_type: &DataType) -> Result<ScalarValue, Error> {
    ScalarValue::try_from(data_type).map_err(mapped)
}

/// Whether two grouping sets have the same keys.
fn same_set(left: &[Expr], right: &[Expr]) -> bool {
    left.iter().all(|expr| right.contains(expr)) && right.iter().all(|expr| left.contains(expr))
}

/// The rows of the left side of a join for which a condition holds, over them and aggregates of the right side.
fn with_counts(
    join: &Join,
    aggregates: &[Expr],
    condition: impl FnOnce(&[Expr]) -> Expr,
) -> Result<LogicalPlan, Error> {
    let names = (0..aggregates.len()).map(|number| format!("{INTERNAL}count {number}"));
    let named = aggregates.iter().zip(names.clone());
    let named: Vec<Expr> = named
        .map(|(aggregate, name)| aggregate.clone().alias(name))
        .collect();
    let counts: Vec<Expr> = names
        .map(|name| Expr::Column(Column::from_name(name)))
        .collect();
    let columns = join.left.schema().columns().into_iter().map(Expr::Column);
    LogicalPlanBuilder::from(Arc::clone(&join.right))
        .aggregate(Vec::<Expr>::new(), named)
        .and_then(LogicalPlanBuilder::build)
        .and_then(|counted| LogicalPlanBuilder::from(Arc::clone(&join.left)).cross_join(counted))
        .and_then(|both| both.filter(condition(&counts)))
        .and_then(|both| both.project(columns.collect::<Vec<_>>()))
        .and_then(LogicalPlanBuilder::build)
        .map_err(mapped)
}

/// By what a window function partitions.
fn partition_of(expr: &Expr) -> &[Expr] {
    match strip_alias(expr) {
        Expr::WindowFunction(function) => &function.params.partition_by,
        _ => &[],
    }
}

/// In what order a window function sees its rows.
fn order_of(expr: &Expr) -> &[Sort] {
    match strip_alias(expr) {
        Expr::WindowFunction(function) => &function.params.order_by,
        _ => &[],
    }
}

/// How many rows of each partition a condition over `input` lets through at most, if `input` shows a window that does nothing but number them.
pub(super) fn first_rows(predicate: &Expr, input: &LogicalPlan) -> Option<u64> {
    let bounds = split_conjunction(predicate).into_iter().filter_map(|part| {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = part else {
            return None;
        };
        let (value, op, bound) = match (left.as_ref(), right.as_ref()) {
            (value, Expr::Literal(bound, _)) => (value, *op, bound),
            (Expr::Literal(bound, _), value) => (value, op.swap()?, bound),
            _ => return None,
        };
        if !is_number_of_rows(value, input) {
            return None;
        }
        let ScalarValue::Int64(Some(bound)) = bound.cast_to(&DataType::Int64).ok()? else {
            return None;
        };
        let rows = match op {
            ExprOperator::Lt => bound.checked_sub(1)?,
            ExprOperator::LtEq | ExprOperator::Eq => bound,
            _ => return None,
        };
        Some(u64::try_from(rows).unwrap_or(0))
    });
    bounds.min()
}

/// Whether a value over `input` is the only thing that the window below computes, and that is `row_number()`.
fn is_number_of_rows(value: &Expr, input: &LogicalPlan) -> bool {
    let Expr::Column(column) = without_casts(strip_alias(value)) else {
        return false;
    };
    let Ok(place) = input.schema().index_of_column(column) else {
        return false;
    };
    match input {
        LogicalPlan::Projection(projection) => {
            let below = projection.expr.get(place);
            below.is_some_and(|below| is_number_of_rows(below, &projection.input))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let below = alias.input.schema().columns().into_iter().nth(place);
            below.is_some_and(|below| is_number_of_rows(&Expr::Column(below), &alias.input))
        }
        LogicalPlan::Window(window) => match window.window_expr.as_slice() {
            [only] => {
                let numbers = matches!(strip_alias(only), Expr::WindowFunction(function) if function.fun.name() == "row_number");
                numbers && place + 1 == window.schema.fields().len()
            }
            _ => false,
        },
        _ => false,
    }
}

/// The value before it was cast to another type of integers.
fn without_casts(expr: &Expr) -> &Expr {
    let is_integer = |data_type: &DataType| data_type.is_integer();
    match expr {
        Expr::Cast(cast) if is_integer(cast.field.data_type()) => without_casts(&cast.expr),
        Expr::ScalarFunction(call) if call.func.name() == "pg_cast" => match call.args.as_slice() {
            [value, _, Expr::Literal(ScalarValue::Utf8(Some(name)), _)]
                if matches!(name.as_str(), "bigint" | "integer" | "smallint") =>
            {
                without_casts(value)
            }
            _ => expr,
        },
        other => other,
    }
}
