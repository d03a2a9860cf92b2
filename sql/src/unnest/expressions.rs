//! What removal asks of expressions and makes of them.
//!
//! Owns references, substitution, and what is known of an expression without its plan. Must not know joins or domains.

use std::sync::Arc;

use arrow_schema::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, Cast};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, Projection, lit,
};
use flowstone_functions::cast::{can_cast, cast_expr};
use flowstone_types::SqlType;
use flowstone_types::sort_key::equality_differs;

use crate::error::{Error, ErrorKind};

/// `0A000` with a hint.
pub(super) fn unsupported(message: &str, hint: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::unsupported(message).with_hint(hint)))
}

/// `54001`.
pub(super) fn too_complex(message: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::new(ErrorKind::TooComplex, message)))
}

/// A bug of ours.
pub(super) fn broken(message: &str) -> DataFusionError {
    DataFusionError::Internal(message.to_owned())
}

/// Does something about a plan on a stack that is large enough for it, however deep it nests: DataFusion sees to that where it visits nodes.
pub(super) fn with_stack<T>(plan: &LogicalPlan, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (mut work, mut outcome) = (Some(work), None);
    plan.apply(|_| {
        if let Some(work) = work.take() {
            outcome = Some(work());
        }
        Ok(TreeNodeRecursion::Stop)
    })?;
    outcome.unwrap_or_else(|| Err(broken("a plan has a node")))
}

/// The columns of a plan as expressions, in order.
pub(super) fn columns_of(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema()
        .columns()
        .into_iter()
        .map(Expr::Column)
        .collect()
}

/// An expression with the name of a column; one that has it as it is.
pub(super) fn named(expr: Expr, column: &Column) -> Expr {
    let has_it = match &expr {
        Expr::Column(shown) => shown == column,
        Expr::Alias(alias) => alias.relation == column.relation && alias.name == column.name,
        _ => false,
    };
    if has_it {
        return expr;
    }
    expr.alias_qualified(column.relation.clone(), column.name.clone())
}

/// The rows of a plan with other columns.
pub(super) fn projected(plan: LogicalPlan, items: Vec<Expr>) -> Result<LogicalPlan> {
    Projection::try_new(items, Arc::new(plan)).map(LogicalPlan::Projection)
}

/// The rows of a plan for which all conditions are true.
pub(super) fn filtered(
    plan: LogicalPlan,
    conditions: impl IntoIterator<Item = Expr>,
) -> Result<LogicalPlan> {
    match conditions.into_iter().reduce(Expr::and) {
        None => Ok(plan),
        Some(condition) => Filter::try_new(condition, Arc::new(plan)).map(LogicalPlan::Filter),
    }
}

/// `left op right`.
pub(super) fn compared(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// `left IS NOT DISTINCT FROM right`.
pub(super) fn same(left: Expr, right: Expr) -> Expr {
    compared(left, Operator::IsNotDistinctFrom, right)
}

/// The first arm whose condition is true. It has a subject, so that no rule makes ANDs and ORs of it.
pub(super) fn case(arms: Vec<(Expr, Expr)>, otherwise: Option<Expr>) -> Expr {
    Expr::Case(Case::new(
        Some(Box::new(lit(true))),
        arms.into_iter()
            .map(|(condition, value)| (Box::new(condition), Box::new(value)))
            .collect(),
        otherwise.map(Box::new),
    ))
}

/// An expression of the type that `field` tells of beyond Arrow's: CASE forgets it.
pub(super) fn told(expr: Expr, field: &Field) -> Result<Expr> {
    if field.metadata().is_empty() {
        return Ok(expr);
    }
    match (
        SqlType::from_arrow(field.data_type()),
        SqlType::from_field(field),
    ) {
        (Ok(seen), Ok(meant)) if can_cast(&seen, &meant) => cast_expr(expr, &seen, &meant),
        _ => Ok(expr),
    }
}

/// NULL of the type of a column.
pub(super) fn null_of(field: &Field) -> Result<Expr> {
    let null = Expr::Literal(ScalarValue::try_from(field.data_type())?, None);
    told(null, field)
}

/// The expression with others in place of columns.
pub(super) fn substituted(
    expr: Expr,
    replacement: &dyn Fn(&Column) -> Option<Expr>,
) -> Result<Expr> {
    expr.transform_up(|part| {
        let Expr::Column(column) = &part else {
            return Ok(Transformed::no(part));
        };
        Ok(match replacement(column) {
            Some(other) => Transformed::yes(other),
            None => Transformed::no(part),
        })
    })
    .map(|transformed| transformed.data)
}

/// The expression with others in place of columns of queries around it.
pub(super) fn replaced(
    expr: Expr,
    replacement: &dyn Fn(&Column) -> Option<Expr>,
) -> Result<Transformed<Expr>> {
    expr.transform_up(|part| {
        let Expr::OuterReferenceColumn(_, column) = &part else {
            return Ok(Transformed::no(part));
        };
        Ok(match replacement(column) {
            Some(other) => Transformed::yes(other),
            None => Transformed::no(part),
        })
    })
}

/// The same, under the name that the expression had.
pub(super) fn resolved(expr: Expr, replacement: &dyn Fn(&Column) -> Option<Expr>) -> Result<Expr> {
    let name = expr.qualified_name();
    let resolved = replaced(expr, replacement)?;
    Ok(
        if resolved.transformed && resolved.data.qualified_name() != name {
            resolved.data.alias_qualified(name.0, name.1)
        } else {
            resolved.data
        },
    )
}

/// The expression with the columns of `outer` that it asks for as columns beside it.
pub(super) fn beside(expr: Expr, outer: &DFSchema) -> Result<Expr> {
    replaced(expr, &|column| {
        has_exactly(outer, column).then(|| Expr::Column(column.clone()))
    })
    .map(|replaced| replaced.data)
}

/// Whether a schema has the column with its qualifier.
pub(super) fn has_exactly(schema: &DFSchema, column: &Column) -> bool {
    schema
        .iter()
        .any(|(table, field)| table == column.relation.as_ref() && *field.name() == column.name)
}

/// Whether an expression asks for one of these columns of a query around it.
pub(super) fn asks(expr: &Expr, asked: &[Column]) -> Result<bool> {
    expr.exists(|part| {
        Ok(matches!(part, Expr::OuterReferenceColumn(_, column) if asked.contains(column)))
    })
}

/// The columns of queries around it that a plan without dependent joins asks for, each once, in order of first use.
pub(super) fn references(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut found: Vec<Column> = Vec::new();
    plan.apply(|node| {
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

/// The columns of its own rows that an expression is made of, each once.
pub(super) fn columns_in(expr: &Expr, found: &mut Vec<Column>) -> Result<()> {
    expr.apply(|part| {
        if let Expr::Column(column) = part
            && !found.contains(column)
        {
            found.push(column.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
}

/// Whether a plan calls functions of chance.
pub(super) fn is_volatile(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            found |= expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}

/// How many parts an expression has.
pub(super) fn size(expr: &Expr) -> Result<usize> {
    let mut parts = 0_usize;
    expr.apply(|_| {
        parts += 1;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(parts)
}

/// What an aggregate yields of no rows.
pub(super) fn of_no_rows(call: &Expr, input: &DFSchema) -> Result<ScalarValue> {
    match call {
        Expr::Alias(alias) => of_no_rows(&alias.expr, input),
        Expr::AggregateFunction(function) => {
            let data_type = call.get_type(input)?;
            function.func.default_value(&data_type)
        }
        _ => Err(broken("an aggregate computes what is no aggregate")),
    }
}

/// A text that tells apart values of a column which are equal and yet not the same, if its type has such: what is made of them may differ.
///
/// # Errors
/// If nothing is known to tell values of that type apart.
pub(super) fn telling_apart(column: &Column, schema: &DFSchema) -> Result<Option<Expr>> {
    let (_, field) = schema.qualified_field_from_column(column)?;
    let sql_type = SqlType::from_field(field).ok();
    match &sql_type {
        // With its padding, which a cast of ours takes away.
        Some(SqlType::Char(0)) => {
            let value = Box::new(Expr::Column(column.clone()));
            let text = Arc::new(SqlType::Text.to_field("text", true));
            return Ok(Some(Expr::Cast(Cast::new_from_field(value, text))));
        }
        Some(whole) if whole.is_padded_unevenly() => {
            return cast_expr(Expr::Column(column.clone()), whole, &SqlType::Text).map(Some);
        }
        _ => {}
    }
    if !equality_differs(field.data_type()) {
        return Ok(None);
    }
    let item = match &sql_type {
        Some(SqlType::Array(item)) => Some(item.as_ref()),
        other => other.as_ref(),
    };
    match (item, &sql_type) {
        (Some(SqlType::Interval), Some(whole)) => {
            cast_expr(Expr::Column(column.clone()), whole, &SqlType::Text).map(Some)
        }
        _ => Err(unsupported(
            "a subquery that asks for a row with intervals is not supported",
            "Ask for its fields.",
        )),
    }
}

/// Whether values of a type that are equal are the same, so that grouping by them keeps apart what a comparison does.
pub(super) fn equal_is_same(field: &Field) -> bool {
    !equality_differs(field.data_type())
        && !matches!(field.data_type(), DataType::Null)
        && SqlType::from_field(field).is_ok_and(|sql_type| !sql_type.is_padded())
}
