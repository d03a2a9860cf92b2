//! What can be seen on a plan without changing it: what it asks for, what a join demands, how many rows there can be.
//!
//! Must not know domains. Called by [`super`] and [`super::domain`].

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, NullEquality, Result, ScalarValue};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, FetchType, Join, LogicalPlan, LogicalPlanBuilder,
};

use super::unsupported;

pub(super) fn takes_null(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

/// The keys of a join that are columns.
pub(super) fn column_keys(join: &Join) -> Result<(Vec<Column>, Vec<Column>)> {
    let keys = join.on.iter().map(|(left, right)| match (left, right) {
        (Expr::Column(left), Expr::Column(right)) => Ok((left.clone(), right.clone())),
        _ => Err(unsupported()),
    });
    Ok(keys.collect::<Result<Vec<_>>>()?.into_iter().unzip())
}

/// All that a join demands of a pair of rows.
pub(super) fn join_condition(join: &Join) -> Option<Expr> {
    let equal = join
        .on
        .iter()
        .map(|(left, right)| left.clone().eq(right.clone()));
    conjunction(equal.chain(join.filter.clone()))
}

/// What an aggregate yields of no rows.
pub(super) fn default_of(expr: &Expr, plan: &LogicalPlan) -> Result<ScalarValue> {
    match expr {
        Expr::Alias(alias) => default_of(&alias.expr, plan),
        Expr::AggregateFunction(function) => {
            let LogicalPlan::Aggregate(aggregate) = plan else {
                return Err(unsupported());
            };
            let data_type = expr.get_type(aggregate.input.schema())?;
            function.func.default_value(&data_type)
        }
        _ => Err(unsupported()),
    }
}

/// Whether a subquery yields one row at most, whatever there is.
pub(super) fn yields_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => yields_one_row(&projection.input),
        LogicalPlan::Filter(filter) => yields_one_row(&filter.input),
        LogicalPlan::Sort(sort) => yields_one_row(&sort.input),
        LogicalPlan::SubqueryAlias(alias) => yields_one_row(&alias.input),
        LogicalPlan::Distinct(Distinct::All(input)) => yields_one_row(input),
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(0 | 1))))
                || yields_one_row(&limit.input)
        }
        LogicalPlan::EmptyRelation(_) => true,
        _ => false,
    }
}

/// A LATERAL item without the node that says so.
pub(super) fn without_subquery_node(plan: &LogicalPlan) -> Option<LogicalPlan> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some(subquery.subquery.as_ref().clone()),
        LogicalPlan::SubqueryAlias(alias) => {
            let input = without_subquery_node(&alias.input)?;
            LogicalPlanBuilder::from(input)
                .alias(alias.alias.clone())
                .and_then(LogicalPlanBuilder::build)
                .ok()
        }
        _ => None,
    }
}

/// Columns of `outer` that a subquery asks for.
pub(super) fn references_to(plan: &LogicalPlan, outer: &LogicalPlan) -> Result<Vec<Column>> {
    Ok(own_references(plan)?
        .into_iter()
        .filter(|column| outer.schema().has_column(column))
        .collect())
}

/// The columns of queries around it that `plan` asks for, each once. What subqueries in it ask for is not among them: those that are left ask for
/// columns of this plan only.
pub(in crate::plan) fn own_references(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut found: Vec<Column> = Vec::new();
    plan.apply(|node| {
        if matches!(node, LogicalPlan::Subquery(_)) {
            return Ok(TreeNodeRecursion::Jump);
        }
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::OuterReferenceColumn(_, column) = part
                    && !found.contains(column)
                {
                    found.push(column.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// Whether expressions of a node hold a subquery that depends on its rows.
pub(super) fn has_dependent(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expr| {
        expr.apply(|part| {
            let subquery = match part {
                Expr::ScalarSubquery(subquery) => subquery,
                Expr::Exists(exists) => &exists.subquery,
                Expr::InSubquery(membership) => &membership.subquery,
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            found |= !own_references(&subquery.subquery)?.is_empty();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// Whether a plan calls functions of chance.
pub(in crate::plan) fn is_volatile(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// The only column of a subquery, behind those of the domain.
pub(super) fn last_column(plan: &LogicalPlan) -> Result<Column> {
    plan.schema()
        .columns()
        .pop()
        .ok_or_else(|| DataFusionError::Plan("subquery must return a column".to_owned()))
}
