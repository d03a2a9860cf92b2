//! Which correlated subqueries DataFusion's rules unnest rightly.
//!
//! Owns a check that knows few shapes and says no to all others. DataFusion takes the conditions that ask for outer columns out of the subquery and
//! joins by them; that is right if nothing above the conditions depends on which rows they keep. It goes wrong above the nullable side of an outer join, a
//! window, a grouping, DISTINCT, a set operation or a limit, and where columns that it adds to a select list have names that are there already.
//! Called by [`super::unnest`], which unnests the others.

use arrow_schema::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, Join, JoinType, LogicalPlan, Operator, Projection,
    Subquery,
};

use super::unnest::own_references;

/// Where a subquery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is a conjunct of a WHERE or HAVING.
    Conjunct,
    /// In an expression of a WHERE or HAVING.
    Condition,
    /// In a select list.
    Item,
    /// In a group key, an argument of an aggregate or a window, an order.
    Elsewhere,
}

/// Whether DataFusion unnests the subquery that `expr` is rightly. `outer`: the rows it is evaluated for.
pub(super) fn is_known(expr: &Expr, place: Place, outer: &DFSchema) -> Result<bool> {
    match expr {
        Expr::ScalarSubquery(subquery) => {
            Ok(
                matches!(place, Place::Conjunct | Place::Condition | Place::Item)
                    && is_correlated_by_conditions(&subquery.subquery, outer, true)?,
            )
        }
        Expr::Exists(exists) => Ok(matches!(place, Place::Conjunct | Place::Condition)
            && is_correlated_by_conditions(&exists.subquery.subquery, outer, false)?),
        Expr::InSubquery(membership) => Ok(place == Place::Conjunct
            && !membership.negated
            && is_correlated_by_conditions(&membership.subquery.subquery, outer, false)?),
        _ => Ok(false),
    }
}

/// The LATERAL item that a side of a join is.
pub(super) fn lateral_side(plan: &LogicalPlan) -> Option<&Subquery> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some(subquery),
        LogicalPlan::SubqueryAlias(alias) => lateral_side(&alias.input),
        _ => None,
    }
}

/// Whether DataFusion unnests the LATERAL item on the right of `join` rightly.
pub(super) fn lateral_is_known(join: &Join, item: &Subquery) -> Result<bool> {
    let inner = item.subquery.schema();
    // It takes the columns in a condition that have the name of one of the item's for that.
    let mistakes = own_references(&item.subquery)?
        .iter()
        .any(|column| inner.has_column(column));
    let direct = match join.right.as_ref() {
        LogicalPlan::Subquery(_) => true,
        LogicalPlan::SubqueryAlias(alias) => {
            matches!(alias.input.as_ref(), LogicalPlan::Subquery(_))
        }
        _ => false,
    };
    Ok(direct
        && !mistakes
        && matches!(join.join_type, JoinType::Inner | JoinType::Left)
        && join.on.is_empty()
        && is_correlated_by_conditions(&item.subquery, join.left.schema(), false)?)
}

/// Whether a subquery asks for outer columns only in the conditions of its WHERE, and has only select lists above that; `aggregated`: and one aggregate
/// without groups, below which outer columns must be equal to inner ones.
fn is_correlated_by_conditions(
    plan: &LogicalPlan,
    outer: &DFSchema,
    aggregated: bool,
) -> Result<bool> {
    let mut projections: Vec<&Projection> = Vec::new();
    let mut aggregates = 0;
    let mut node = plan;
    let filter = loop {
        match node {
            LogicalPlan::Projection(projection) if projection.expr.iter().all(is_simple) => {
                projections.push(projection);
                node = &projection.input;
            }
            LogicalPlan::Aggregate(aggregate)
                if aggregated
                    && aggregate.group_expr.is_empty()
                    && aggregate.aggr_expr.iter().all(is_simple) =>
            {
                aggregates += 1;
                node = &aggregate.input;
            }
            LogicalPlan::Filter(filter) => break filter,
            _ => return Ok(false),
        }
    };
    if aggregates != usize::from(aggregated) || !own_references(&filter.input)?.is_empty() {
        return Ok(false);
    }
    conditions_are_known(filter, &projections, outer, aggregated)
}

fn conditions_are_known(
    filter: &Filter,
    projections: &[&Projection],
    outer: &DFSchema,
    aggregated: bool,
) -> Result<bool> {
    let inner = filter.input.schema();
    let mut added: Vec<Column> = Vec::new();
    for conjunct in split_conjunction(&filter.predicate) {
        if !conjunct.contains_outer() {
            continue;
        }
        if has_subquery(conjunct)? || conjunct.is_volatile() {
            return Ok(false);
        }
        if aggregated && !is_equality(conjunct, inner) {
            return Ok(false);
        }
        let mut known = true;
        conjunct.apply(|part| {
            match part {
                Expr::OuterReferenceColumn(_, column) => {
                    known &= outer.has_column(column) && !inner.has_column(column);
                }
                Expr::Column(column) if !added.contains(column) => added.push(column.clone()),
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !known {
            return Ok(false);
        }
    }
    // The inner columns are added to the select lists, and known by their names alone.
    let differ = added.iter().enumerate().all(|(index, column)| {
        added
            .iter()
            .skip(index + 1)
            .all(|other| other.name != column.name)
    });
    let free = projections.iter().all(|projection| {
        projection.expr.iter().all(|expr| {
            added.iter().all(|column| {
                expr.qualified_name().1 != column.name
                    || matches!(expr, Expr::Column(shown) if shown == column)
            })
        })
    });
    Ok(differ && free)
}

/// `inner column = outer expression`, either way, also with the column cast to a type in which its values still differ: DataFusion groups by the column.
fn is_equality(expr: &Expr, inner: &DFSchema) -> bool {
    let Expr::BinaryExpr(BinaryExpr {
        left,
        op: Operator::Eq,
        right,
    }) = expr
    else {
        return false;
    };
    let is_inner = |expr: &Expr| match expr {
        Expr::Column(_) => true,
        Expr::Cast(cast) => {
            matches!(*cast.expr, Expr::Column(_))
                && cast
                    .expr
                    .get_type(inner)
                    .is_ok_and(|from| keeps_apart(&from, cast.field.data_type()))
        }
        _ => false,
    };
    (is_inner(left) && !right.any_column_refs()) || (is_inner(right) && !left.any_column_refs())
}

/// Whether a cast gives different values for different ones: from an exact number to a wider one, from a date to a timestamp.
fn keeps_apart(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Decimal128, Int16, Int32, Int64, Timestamp, UInt16, UInt32, UInt64};
    match (from, to) {
        (from, to) if from == to => true,
        (Int16 | UInt16, Int32 | Int64) | (Int32 | UInt32, Int64) => true,
        (UInt16, UInt32 | UInt64) | (UInt32, UInt64) => true,
        (Decimal128(_, from), Decimal128(_, to)) => to >= from,
        (from, Decimal128(_, scale)) => from.is_integer() && *scale >= 0,
        (Date32, Timestamp(_, None)) => true,
        _ => false,
    }
}

/// Whether an expression is made of the rows of its own query, without subqueries.
fn is_simple(expr: &Expr) -> bool {
    !expr.contains_outer() && !expr.is_volatile() && matches!(has_subquery(expr), Ok(false))
}

fn has_subquery(expr: &Expr) -> Result<bool> {
    expr.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
        ))
    })
}
