//! Rows as values: where they can stand.
//!
//! Owns the check that no expression has a row where only values of SQL types can be: DataFusion takes rows for structs, most functions do not. Rows can be
//! made, compared, and taken apart. Called by [`crate::plan`] when types are coerced.

use arrow_schema::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use flowstone_functions::keys::{
    GREATEST_BY_KEY, ITEM_KEYS, LEAST_BY_KEY, ONE_OF_EQUALS, SORT_KEY,
};

use crate::error::{Error, ErrorKind};

/// Functions that take rows as they are.
const TAKE_ROWS: [&str; 10] = [
    "struct",
    "named_struct",
    "get_field",
    "count",
    "coalesce",
    SORT_KEY,
    ITEM_KEYS,
    GREATEST_BY_KEY,
    LEAST_BY_KEY,
    ONE_OF_EQUALS,
];

/// Refuses rows as arguments of functions, and whole tables as values.
///
/// # Errors
/// [`ErrorKind::FeatureNotSupported`].
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                check_part(part, &schema)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map(|_| ())
}

fn check_part(part: &Expr, schema: &DFSchema) -> Result<()> {
    let (name, arguments) = match part {
        Expr::ScalarFunction(function) => (function.name(), &function.args),
        Expr::AggregateFunction(function) => (function.func.name(), &function.params.args),
        Expr::WindowFunction(function) => (function.fun.name(), &function.params.args),
        #[expect(deprecated, reason = "whole-row references are still planned as it")]
        Expr::Wildcard { .. } => {
            return refused("a whole row as a value is not supported");
        }
        _ => return Ok(()),
    };
    if TAKE_ROWS.contains(&name) {
        return Ok(());
    }
    for argument in arguments {
        // What has no type here is an error of its own.
        if argument
            .get_type(schema)
            .is_ok_and(|data_type| has_row(&data_type))
        {
            return refused(&format!("a row as an argument of {name} is not supported"));
        }
    }
    Ok(())
}

fn refused(message: &str) -> Result<()> {
    Err(DataFusionError::External(Box::new(
        Error::new(ErrorKind::FeatureNotSupported, message)
            .with_hint("Give the fields one by one."),
    )))
}

fn has_row(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(_) => true,
        DataType::List(item) => has_row(item.data_type()),
        _ => false,
    }
}
