//! Lateral calls of set-returning functions: `FROM t, unnest(t.a)`, and `ARRAY(SELECT x FROM unnest(t.a) x)`.
//!
//! Owns two rewrites of plans. DataFusion plans such a call as a subquery that asks for columns of the relation beside or around it, and has no rule for
//! it if the subquery unnests or reads nothing. Called by [`crate::plan`] before types are coerced.
//!
//! Invariants. A plan keeps its columns. A call that is not of this form is left alone: the planner says that it cannot run it.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, NullEquality, NullHandling, Result, ScalarValue};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Aggregate, Expr, Filter, Join, JoinConstraint, JoinType, LogicalPlan, LogicalPlanBuilder,
    Subquery, Unnest, lit,
};
use itertools::Itertools as _;

use super::names::INTERNAL;
use super::unnest::{is_volatile, telling_apart};

/// Moves lateral calls into the relation whose columns they take.
pub(super) fn inline_calls(plan: LogicalPlan) -> Result<LogicalPlan> {
    let inlined = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => match inline(&join)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => detach_arrays(node),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(inlined.data)
}

/// A projection or filter with arrays that are made of lateral calls, joined to them.
fn detach_arrays(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let Some(mut input) = node.inputs().first().map(|input| (*input).clone()) else {
        return Ok(Transformed::no(node));
    };
    let columns = input.schema().columns();
    let mut detached = 0;
    let mut exprs = Vec::new();
    for expr in node.expressions() {
        let name = expr.qualified_name();
        let replaced = expr.transform_up(|part| {
            let Expr::ScalarSubquery(subquery) = &part else {
                return Ok(Transformed::no(part));
            };
            let Some((joined, value)) = join_array(&input, subquery, detached)? else {
                return Ok(Transformed::no(part));
            };
            input = joined;
            detached += 1;
            Ok(Transformed::yes(Expr::Column(value)))
        })?;
        exprs.push(
            if replaced.transformed && matches!(node, LogicalPlan::Projection(_)) {
                replaced.data.alias_qualified(name.0, name.1)
            } else {
                replaced.data
            },
        );
    }
    if detached == 0 {
        return Ok(Transformed::no(node));
    }
    let builder = LogicalPlanBuilder::from(input);
    let plan = match node {
        LogicalPlan::Filter(_) => builder
            .filter(conjunction(exprs).unwrap_or_else(|| lit(true)))?
            .project(columns.into_iter().map(Expr::Column))?,
        _ => builder.project(exprs)?,
    };
    plan.build().map(Transformed::yes)
}

/// `input` joined to the arrays that `subquery` makes for its rows, and the column of the arrays.
fn join_array(
    input: &LogicalPlan,
    subquery: &Subquery,
    number: usize,
) -> Result<Option<(LogicalPlan, Column)>> {
    let mut asked: Vec<Column> = Vec::new();
    for outer in &subquery.outer_ref_columns {
        match outer {
            Expr::OuterReferenceColumn(_, column) if input.schema().has_column(column) => {
                if !asked.contains(column) {
                    asked.push(column.clone());
                }
            }
            _ => return Ok(None),
        }
    }
    if asked.is_empty() || is_volatile(&subquery.subquery)? || is_volatile(input)? {
        return Ok(None);
    }
    // Rows that agree in what is asked for have the same array, if that is the same and not only equal.
    let mut outside: Vec<Expr> = asked.iter().cloned().map(Expr::Column).collect();
    let mut items = outside.clone();
    for (index, column) in asked.iter().enumerate() {
        if let Some(text) = telling_apart(column, input.schema())? {
            let name = format!("{INTERNAL}text {index} of array {number}");
            items.push(text.clone().alias(name));
            outside.push(text);
        }
    }
    let domain = LogicalPlanBuilder::from(input.clone())
        .project(items)?
        .distinct()?
        .build()?;
    let call = Call {
        outer: domain.schema(),
        keep_left: false,
        aggregates: true,
    };
    let Some(arrays) = call.carry(&subquery.subquery, &domain)? else {
        return Ok(None);
    };
    let name = |part: &str| Column::new_unqualified(format!("{INTERNAL}{part} of array {number}"));
    let keys: Vec<Column> = (0..outside.len())
        .map(|index| name(&index.to_string()))
        .collect();
    let value = name("value");
    let named = arrays
        .schema()
        .columns()
        .into_iter()
        .zip_eq(keys.iter().chain([&value]))
        .map(|(column, shown)| Expr::Column(column).alias(shown.name.clone()));
    let arrays = LogicalPlanBuilder::from(arrays).project(named)?.build()?;
    let on = outside.into_iter().zip(keys.into_iter().map(Expr::Column));
    let joined = Join::try_new(
        Arc::new(input.clone()),
        Arc::new(arrays),
        on.collect(),
        None,
        JoinType::Left,
        JoinConstraint::On,
        NullEquality::NullEqualsNull,
        false,
    )?;
    Ok(Some((LogicalPlan::Join(joined), value)))
}

/// The join as one relation, if its right side is a lateral call.
fn inline(join: &Join) -> Result<Option<LogicalPlan>> {
    let unconditional = join.on.is_empty() && join.filter.as_ref().is_none_or(is_true);
    let keep_left = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left if unconditional => true,
        _ => return Ok(None),
    };
    if !is_lateral(&join.right) {
        return Ok(None);
    }
    let call = Call {
        outer: join.left.schema(),
        keep_left,
        aggregates: false,
    };
    let Some(inner) = call.carry(&join.right, &join.left)? else {
        return Ok(None);
    };
    let shown = join
        .schema
        .columns()
        .into_iter()
        .zip_eq(inner.schema().columns())
        .map(|(shown, column)| Expr::Column(column).alias_qualified(shown.relation, shown.name));
    let plan = LogicalPlanBuilder::from(inner).project(shown)?;
    let equal = join
        .on
        .iter()
        .map(|(left, right)| left.clone().eq(right.clone()));
    let condition = conjunction(equal.chain(join.filter.clone()));
    match condition {
        Some(condition) if !unconditional => plan.filter(condition)?.build(),
        _ => plan.build(),
    }
    .map(Some)
}

fn is_true(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Boolean(Some(true)), _))
}

/// Whether a side of a join asks for columns of the other one.
fn is_lateral(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_lateral(&alias.input),
        LogicalPlan::Subquery(subquery) => !subquery.outer_ref_columns.is_empty(),
        _ => false,
    }
}

/// A lateral call.
struct Call<'a> {
    /// The columns that it can ask for.
    outer: &'a DFSchema,
    /// Whether rows for which it yields nothing stay.
    keep_left: bool,
    /// Whether it may collect what it yields in arrays, one for each row of the other side; there is none for a row without.
    aggregates: bool,
}

impl Call<'_> {
    /// `plan` over `left` instead of nothing. The columns of `left` come first, under names of their own; `None` if the plan has another form.
    fn carry(&self, plan: &LogicalPlan, left: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let Some(input) = (match plan {
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => {
                return self.carried_left(left).map(Some);
            }
            LogicalPlan::Projection(projection) => self.carry(&projection.input, left)?,
            LogicalPlan::Unnest(unnest) => self.carry(&unnest.input, left)?,
            LogicalPlan::Filter(filter) if !self.keep_left => self.carry(&filter.input, left)?,
            LogicalPlan::Aggregate(aggregate) if self.may_aggregate(aggregate) => {
                self.carry(&aggregate.input, left)?
            }
            LogicalPlan::SubqueryAlias(alias) => self.carry(&alias.input, left)?,
            LogicalPlan::Subquery(subquery) => self.carry(&subquery.subquery, left)?,
            _ => None,
        }) else {
            return Ok(None);
        };
        match plan {
            LogicalPlan::Projection(projection) => {
                let mut exprs = self.carried_columns();
                for expr in &projection.expr {
                    if self.keep_left && !is_column(expr) && has_unnest(&projection.input) {
                        return Ok(None);
                    }
                    match self.resolve(expr.clone())? {
                        Some(expr) => exprs.push(expr),
                        None => return Ok(None),
                    }
                }
                LogicalPlanBuilder::from(input)
                    .project(exprs)?
                    .build()
                    .map(Some)
            }
            LogicalPlan::Unnest(unnest) => {
                let mut options = unnest.options.clone();
                if self.keep_left {
                    options.null_handling = NullHandling::PreserveAndExpandEmpty;
                }
                let plan = Unnest::try_new(input.into(), unnest.exec_columns.clone(), options)?;
                Ok(Some(LogicalPlan::Unnest(plan)))
            }
            LogicalPlan::Filter(filter) => match self.resolve(filter.predicate.clone())? {
                Some(predicate) => Filter::try_new(predicate, input.into())
                    .map(|filter| Some(LogicalPlan::Filter(filter))),
                None => Ok(None),
            },
            LogicalPlan::Aggregate(aggregate) => {
                let mut aggregates = Vec::new();
                for expr in &aggregate.aggr_expr {
                    match self.resolve(expr.clone())? {
                        Some(expr) => aggregates.push(expr),
                        None => return Ok(None),
                    }
                }
                Aggregate::try_new(input.into(), self.carried_columns(), aggregates)
                    .map(|aggregate| Some(LogicalPlan::Aggregate(aggregate)))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let carried = self.outer.fields().len();
                let columns = input.schema().columns();
                let renamed = columns.into_iter().enumerate().map(|(index, column)| {
                    if index < carried {
                        return Expr::Column(column);
                    }
                    let name = column.name.clone();
                    Expr::Column(column).alias_qualified(Some(alias.alias.clone()), name)
                });
                LogicalPlanBuilder::from(input)
                    .project(renamed)?
                    .build()
                    .map(Some)
            }
            _ => Ok(Some(input)),
        }
    }

    /// Whether an aggregate makes arrays only: of no rows it makes NULL, as the join does.
    fn may_aggregate(&self, aggregate: &Aggregate) -> bool {
        self.aggregates
            && aggregate.group_expr.is_empty()
            && aggregate.aggr_expr.iter().all(|expr| {
                matches!(expr, Expr::AggregateFunction(function) if function.func.name() == "array_agg")
            })
    }

    fn carried_left(&self, left: &LogicalPlan) -> Result<LogicalPlan> {
        let columns = left.schema().columns().into_iter().enumerate();
        let named = columns.map(|(index, column)| Expr::Column(column).alias(carried_name(index)));
        LogicalPlanBuilder::from(left.clone())
            .project(named)?
            .build()
    }

    fn carried_columns(&self) -> Vec<Expr> {
        (0..self.outer.fields().len())
            .map(|index| Expr::Column(Column::new_unqualified(carried_name(index))))
            .collect()
    }

    /// The expression with carried columns for outer ones; `None` if it asks for others.
    fn resolve(&self, expr: Expr) -> Result<Option<Expr>> {
        let named = expr.qualified_name();
        let mut foreign = false;
        let resolved = expr.transform_up(|part| {
            let Expr::OuterReferenceColumn(_, column) = &part else {
                return Ok(Transformed::no(part));
            };
            match self.outer.maybe_index_of_column(column) {
                Some(index) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(
                    carried_name(index),
                )))),
                None => {
                    foreign = true;
                    Ok(Transformed::no(part))
                }
            }
        })?;
        if foreign {
            return Ok(None);
        }
        // Names of columns follow from expressions, and others know them.
        Ok(Some(match resolved.data {
            expr if expr.qualified_name() == named => expr,
            expr => expr.alias_qualified(named.0, named.1),
        }))
    }
}

fn carried_name(index: usize) -> String {
    format!("{INTERNAL}left{index}")
}

/// Whether an expression is NULL if all columns are.
fn is_column(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Alias(alias) => is_column(&alias.expr),
        Expr::Cast(cast) => is_column(&cast.expr),
        _ => false,
    }
}

fn has_unnest(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Unnest(_))))
        .unwrap_or(false)
}
