//! Joins by what is the same and by conditions.
//!
//! Owns how both are written, so that a join by values for which NULL is a value has as many keys as there are. Must not know what is joined.

use std::sync::Arc;

use datafusion::common::{DFSchema, JoinType, NullEquality, Result};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Join, JoinConstraint, LogicalPlan, Operator, lit,
};

use super::expressions::{columns_in, has_exactly};

/// Joins two plans. `keys`: expressions of the left and of the right that are the same, NULL among the values; `conditions`: what must be true beside that.
pub(super) fn joined(
    left: LogicalPlan,
    right: LogicalPlan,
    mut keys: Vec<(Expr, Expr)>,
    conditions: Vec<Expr>,
    join_type: JoinType,
) -> Result<LogicalPlan> {
    let mut filter = Vec::new();
    for condition in conditions {
        let pair = if keys.is_empty() {
            // Rules make keys of equalities where NULL is equal to nothing.
            None
        } else {
            sides(&condition, left.schema(), right.schema())?
        };
        match pair {
            // Keys that are no columns would be computed as such first.
            Some((of_left @ Expr::Column(_), of_right @ Expr::Column(_))) => {
                if of_left.nullable(left.schema().as_ref())? {
                    filter.push(of_left.clone().is_not_null());
                }
                keys.push((of_left, of_right));
            }
            _ => filter.push(condition),
        }
    }
    let null_equality = if keys.is_empty() {
        NullEquality::NullEqualsNothing
    } else {
        NullEquality::NullEqualsNull
    };
    let bare = keys.is_empty() && join_type != JoinType::Inner;
    let filter = filter
        .into_iter()
        .reduce(Expr::and)
        .or_else(|| bare.then(|| lit(true)));
    Join::try_new(
        Arc::new(left),
        Arc::new(right),
        keys,
        filter,
        join_type,
        JoinConstraint::On,
        null_equality,
        false,
    )
    .map(LogicalPlan::Join)
}

/// The sides of an equality of something of the left and something of the right.
pub(super) fn sides(
    condition: &Expr,
    left: &DFSchema,
    right: &DFSchema,
) -> Result<Option<(Expr, Expr)>> {
    let Expr::BinaryExpr(BinaryExpr {
        left: first,
        op: Operator::Eq,
        right: second,
    }) = condition
    else {
        return Ok(None);
    };
    for (of_left, of_right) in [(first, second), (second, first)] {
        if is_of(of_left, left)?
            && is_of(of_right, right)?
            && of_left.get_type(left)? == of_right.get_type(right)?
        {
            return Ok(Some((of_left.as_ref().clone(), of_right.as_ref().clone())));
        }
    }
    Ok(None)
}

/// Whether an expression is made of columns of a schema, and of some.
fn is_of(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    let mut columns = Vec::new();
    columns_in(expr, &mut columns)?;
    Ok(!columns.is_empty()
        && !expr.contains_outer()
        && columns.iter().all(|column| has_exactly(schema, column)))
}

/// An equality of something and what is of columns of `inner`: what, how, and that.
pub(super) fn inner_side(
    condition: &Expr,
    inner: &DFSchema,
) -> Result<Option<(Expr, Operator, Expr)>> {
    let Expr::BinaryExpr(BinaryExpr {
        left,
        op: op @ (Operator::Eq | Operator::IsNotDistinctFrom),
        right,
    }) = condition
    else {
        return Ok(None);
    };
    for (outside, inside) in [(left, right), (right, left)] {
        if is_of(inside, inner)? && !is_of(outside, inner)? {
            let sides = (outside.as_ref().clone(), *op, inside.as_ref().clone());
            return Ok(Some(sides));
        }
    }
    Ok(None)
}
