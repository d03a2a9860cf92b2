//! Aggregates: of which types there are any.
//!
//! Owns what PostgreSQL's aggregates take and DataFusion's do not mind. Must not know how they are computed. Called by [`crate::plan`] before types are
//! coerced.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFunctionDefinition};
use flowstone_types::SqlType;

use super::exprs::{is_number, is_text, type_of, unknown_function};

/// Checks the arguments of all aggregates of a plan.
///
/// # Errors
/// [`crate::error::ErrorKind::UndefinedFunction`] for one that does not exist.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        if !matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)) {
            return Ok(TreeNodeRecursion::Continue);
        }
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                match part {
                    Expr::AggregateFunction(call) => {
                        check_call(call.func.name(), &call.params.args, &schema)?;
                    }
                    Expr::WindowFunction(call) => {
                        if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun {
                            check_call(function.name(), &call.params.args, &schema)?;
                        }
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map(|_| ())
}

fn check_call(function: &str, args: &[Expr], schema: &DFSchema) -> Result<()> {
    let mut exists = function != "count" || args.len() < 2;
    if let Some(takes) = taken_by(function) {
        for argument in args {
            exists &= type_of(argument, schema)?.is_none_or(|found| takes(&found));
        }
    }
    if exists {
        return Ok(());
    }
    let name = Expr::Literal(ScalarValue::Utf8(Some(function.to_owned())), None);
    let named = std::iter::once(name).chain(args.iter().cloned()).collect();
    let error = unknown_function(named, schema)?;
    Err(DataFusionError::External(Box::new(error)))
}

/// What the arguments of an aggregate must be; `None` if that is decided elsewhere.
fn taken_by(function: &str) -> Option<fn(&SqlType) -> bool> {
    let takes: fn(&SqlType) -> bool = match function {
        "sum" | "avg" => |found| is_quantity(found) || *found == SqlType::Interval,
        "stddev" | "stddev_pop" | "var" | "var_pop" | "corr" | "covar_pop" | "covar_samp" => {
            is_quantity
        }
        function if function.starts_with("regr_") => is_quantity,
        "bool_and" | "bool_or" => |found| *found == SqlType::Bool,
        "bit_and" | "bit_or" | "bit_xor" => |found| is_quantity(found) && !is_fractional(found),
        "string_agg" => |found| is_text(found) || *found == SqlType::Bytea,
        _ => return None,
    };
    Some(takes)
}

/// Whether it is a number, and not one that stands for an object.
fn is_quantity(sql_type: &SqlType) -> bool {
    is_number(sql_type) && !matches!(sql_type, SqlType::Oid | SqlType::Reg(_))
}

const fn is_fractional(sql_type: &SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(_)
    )
}
