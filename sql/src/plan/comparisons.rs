//! Comparisons that are no operators in the syntax tree: memberships in subqueries and the keys of joins.
//!
//! Owns the types in which both sides are compared, where DataFusion would take others than PostgreSQL: floats beside other numbers, and `char(n)`, whose
//! padding no comparison sees. Operators are settled as they are planned ([`super::exprs`]). Must not know how values are cast.
//! Called by [`super::optimize::analyse`] before types are coerced.
//!
//! Invariants. A plan without such comparisons is returned as it is. Plans keep their columns.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{InSubquery, SetComparison};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator, Subquery,
};
use flowstone_functions::cast::cast_expr;
use flowstone_types::SqlType;

use super::exprs::{call, in_common_float, is_unknown, trimmed};

/// Brings both sides of every such comparison to the type in which PostgreSQL compares them.
pub(super) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|part| membership(part, &schema))?;
            Ok(if rewritten.transformed {
                Transformed::yes(name.restore(rewritten.data))
            } else {
                rewritten
            })
        })?;
        node.transform_data(|node| match node {
            LogicalPlan::Join(join) => join_keys(join),
            other => Ok(Transformed::no(other)),
        })
    })
    .map(|transformed| transformed.data)
}

fn membership(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match part {
        Expr::InSubquery(InSubquery {
            expr,
            subquery,
            negated,
        }) => {
            let sides = among(*expr, subquery, Operator::Eq, schema)?;
            Ok(sides.update_data(|(expr, subquery)| {
                Expr::InSubquery(InSubquery::new(Box::new(expr), subquery, negated))
            }))
        }
        Expr::SetComparison(SetComparison {
            expr,
            subquery,
            op,
            quantifier,
        }) => {
            let sides = among(*expr, subquery, op, schema)?;
            Ok(sides.update_data(|(expr, subquery)| {
                Expr::SetComparison(SetComparison::new(Box::new(expr), subquery, op, quantifier))
            }))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// A value and the subquery with whose values it is compared.
fn among(
    expr: Expr,
    subquery: Subquery,
    op: Operator,
    schema: &DFSchema,
) -> Result<Transformed<(Expr, Subquery)>> {
    let values = Arc::clone(&subquery.subquery);
    let Some(column) = values.schema().columns().into_iter().next() else {
        return Ok(Transformed::no((expr, subquery)));
    };
    let column = Expr::Column(column);
    let sides = pair(
        (expr, schema),
        (column.clone(), values.schema().as_ref()),
        op,
    )?;
    if !sides.transformed {
        return Ok(sides.update_data(|(expr, _)| (expr, subquery)));
    }
    let (expr, value) = sides.data;
    if value == column {
        return Ok(Transformed::yes((expr, subquery)));
    }
    let settled = LogicalPlanBuilder::from(values.as_ref().clone())
        .project(vec![value])?
        .build()?;
    Ok(Transformed::yes((
        expr,
        subquery.with_plan(Arc::new(settled)),
    )))
}

fn join_keys(join: Join) -> Result<Transformed<LogicalPlan>> {
    super::keys::change_keys(join, |left, right| pair(left, right, Operator::Eq))
}

/// The type of an expression; `None` if it has none of its own or is of no SQL type.
fn type_of(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    if is_unknown(expr) {
        return None;
    }
    let (_, field) = expr.to_field(schema).ok()?;
    SqlType::from_field(&field).ok()
}

/// Two expressions that are compared, over their schemas.
fn pair(
    (left, left_schema): (Expr, &DFSchema),
    (right, right_schema): (Expr, &DFSchema),
    op: Operator,
) -> Result<Transformed<(Expr, Expr)>> {
    let types = (type_of(&left, left_schema), type_of(&right, right_schema));
    let is_padded = |side: &Option<SqlType>| matches!(side, Some(SqlType::Char(_)));
    // Values of one length are equal exactly if they are without their padding.
    let alike = types.0 == types.1
        && !types.0.as_ref().is_some_and(SqlType::is_padded_unevenly)
        && matches!(op, Operator::Eq | Operator::NotEq);
    if (is_padded(&types.0) || is_padded(&types.1)) && !alike {
        return Ok(Transformed::yes((
            bare(left, types.0.as_ref(), types.1.as_ref())?,
            bare(right, types.1.as_ref(), types.0.as_ref())?,
        )));
    }
    if types.0.is_none() || types.1.is_none() || types.0 == types.1 {
        return Ok(Transformed::no((left, right)));
    }
    let before = (left.clone(), right.clone());
    let settled = in_common_float((left, left_schema), (right, right_schema))?;
    let changed = settled != before;
    Ok(Transformed::new_transformed(settled, changed))
}

/// A side of a comparison with `char(n)`, or such a value itself, without blanks at its end. One of type `text` keeps them.
fn bare(expr: Expr, own: Option<&SqlType>, other: Option<&SqlType>) -> Result<Expr> {
    let beside_padded = matches!(other, Some(SqlType::Char(_)));
    match own {
        Some(from) if matches!(from, SqlType::Char(_)) => cast_expr(expr, from, &SqlType::Text),
        Some(SqlType::VarChar(_)) if beside_padded => call("rtrim", vec![expr]),
        None => Ok(trimmed(expr)),
        _ => Ok(expr),
    }
}
