//! What is evaluated by keys or by rows: operators for which the engine has none of its own, where a change concerns the rows of its key only.
//!
//! Owns by which columns that is: the partitions that all windows of an operator have in common, the equalities of a join, the groups of an aggregate.

use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan, Window, when};
use flowstone_proto::plan::{NodeId, Operator};

use super::chain::{Chain, strip_alias};
use super::graph::{schema_of, with_key};
use super::recompute::{key_column, over_inputs, over_keyed};
use super::{Lowering, mapped};
use crate::error::Error;
use crate::optimize;

impl Lowering {
    /// Windows whose partitions have columns in common.
    pub(super) fn windows(&mut self, plan: &LogicalPlan, window: &Window) -> Result<Chain, Error> {
        let what = "window functions";
        let mut partitions = window.window_expr.iter().map(partition_of);
        let mut common: Vec<&Expr> = partitions.next().unwrap_or_default().iter().collect();
        for partition in partitions {
            common.retain(|expr| partition.contains(expr));
        }
        if common.is_empty() {
            return Ok(Chain::of(self.recompute(plan, what)?));
        }
        let (input, key) = self.extended(&window.input, &common)?;
        let identity = self.graph.key(input).cloned();
        let shown = (0..key.len()).map(|number| Expr::Column(key_column(0, number)));
        let shown: Vec<Expr> = shown.collect();
        let inputs = vec![(input, key)];
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

    /// Groups by expressions, of aggregates that the engine does not maintain itself.
    pub(super) fn grouped(
        &mut self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        what: &str,
    ) -> Result<Chain, Error> {
        let is_set = |expr: &Expr| matches!(expr, Expr::GroupingSet(_));
        if aggregate.group_expr.is_empty() || aggregate.group_expr.iter().any(is_set) {
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

/// By what a window function partitions.
fn partition_of(expr: &Expr) -> &[Expr] {
    match strip_alias(expr) {
        Expr::WindowFunction(function) => &function.params.partition_by,
        _ => &[],
    }
}
