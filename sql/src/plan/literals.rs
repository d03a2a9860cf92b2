//! Literals that mean what their surroundings make of them: numbers with more digits than `numeric` has here, which are floats beside floats, and texts of
//! no type in the rows of VALUES and the branches of UNION.
//!
//! Owns how such a number is kept until it is known what it is, and what no context made a float is refused. Must not know syntax.
//! Called by [`super::exprs`] as expressions are planned, by [`super::provider`] for set operations, and once the plan is there.

use std::collections::{BTreeMap, HashSet};

use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use flowstone_functions::cast::cast_expr;
use flowstone_types::SqlType;

use crate::error::{Error, ErrorKind};

type Result<T> = std::result::Result<T, DataFusionError>;

/// Metadata of a literal that `numeric` cannot hold and no context has made a float yet.
const WIDE: &str = "flowstone:wide number";
/// What is larger than any `numeric` of ours compares with one as its nearest float does.
const BEYOND_NUMERIC: f64 = 1e38;

fn overflow() -> Error {
    Error::new(
        ErrorKind::NumericOutOfRange,
        "value overflows numeric format",
    )
    .with_hint("Numbers of more than 38 digits are only supported as double precision.")
}

fn raise(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The literal with this text, which may have an exponent.
pub(super) fn number(text: &str) -> Result<Expr> {
    if let Some(literal) =
        super::rewrite::plain_decimal(text).and_then(|digits| numeric_literal(&digits))
    {
        return Ok(literal);
    }
    let value: f64 = text.parse().map_err(|_| raise(overflow()))?;
    if !value.is_finite() || value == 0.0 {
        return Err(raise(overflow()));
    }
    let metadata = FieldMetadata::new(BTreeMap::from([(WIDE.to_owned(), text.to_owned())]));
    Ok(Expr::Literal(
        ScalarValue::Float64(Some(value)),
        Some(metadata),
    ))
}

/// An exact decimal, if 38 digits suffice.
fn numeric_literal(digits: &str) -> Option<Expr> {
    let (sign, magnitude) = digits
        .strip_prefix('-')
        .map_or((1, digits), |rest| (-1, rest));
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let all: String = format!("{whole}{fraction}");
    let value: i128 = if all.is_empty() { 0 } else { all.parse().ok()? };
    let scale = i8::try_from(fraction.len()).ok()?;
    let significant = all.trim_start_matches('0').len().max(fraction.len()).max(1);
    let precision = u8::try_from(significant)
        .ok()
        .filter(|precision| *precision <= 38)?;
    Some(Expr::Literal(
        ScalarValue::Decimal128(Some(sign * value), precision, scale),
        None,
    ))
}

/// The value of a literal that is not known to be a float yet.
fn wide(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Literal(ScalarValue::Float64(value), Some(metadata))
            if metadata.inner().contains_key(WIDE) =>
        {
            *value
        }
        Expr::Alias(alias) => wide(&alias.expr),
        _ => None,
    }
}

/// Whether it is such a literal.
pub(super) fn is_wide(expr: &Expr) -> bool {
    wide(expr).is_some()
}

/// The literal as a value of type `to`; others as they are.
pub(super) fn settled(expr: Expr, to: &SqlType) -> Result<Expr> {
    let Some(value) = wide(&expr) else {
        return Ok(expr);
    };
    let float = Expr::Literal(ScalarValue::Float64(Some(value)), None);
    match to {
        SqlType::Float8 => Ok(float),
        SqlType::Float4 => cast_expr(float, &SqlType::Float8, to),
        _ => Err(raise(overflow())),
    }
}

/// The operands of an operator where one is such a literal and the other, of type `other`, tells what it is.
pub(super) fn beside(
    literal: Expr,
    operand: Expr,
    other: &SqlType,
    compares: bool,
) -> Result<(Expr, Expr)> {
    let is_number = matches!(
        other,
        SqlType::Int2
            | SqlType::Int4
            | SqlType::Int8
            | SqlType::UInt2
            | SqlType::UInt4
            | SqlType::UInt8
            | SqlType::Numeric(_)
    );
    match other {
        SqlType::Float4 | SqlType::Float8 => Ok((settled(literal, &SqlType::Float8)?, operand)),
        other
            if compares
                && is_number
                && wide(&literal).is_some_and(|value| value.abs() >= BEYOND_NUMERIC) =>
        {
            Ok((
                settled(literal, &SqlType::Float8)?,
                cast_expr(operand, other, &SqlType::Float8)?,
            ))
        }
        _ => Err(raise(overflow())),
    }
}

/// Refuses what no context has made a float.
///
/// # Errors
/// [`ErrorKind::NumericOutOfRange`]
pub(super) fn refuse_wide(plan: &LogicalPlan) -> Result<()> {
    let mut any = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            any |= expr.exists(|part| Ok(is_wide(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if !any {
        return Ok(());
    }
    plan.apply_with_subqueries(|node| {
        let mut schema = DFSchema::empty();
        for input in node.inputs() {
            schema.merge(input.schema());
        }
        let mut settled: HashSet<*const Expr> = HashSet::new();
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::ScalarFunction(ScalarFunction { args, .. }) = part
                    && args.iter().any(|arg| is_float(arg, &schema))
                {
                    settled.extend(args.iter().map(std::ptr::from_ref));
                }
                if is_wide(part) && !settled.contains(&std::ptr::from_ref(part)) {
                    return Err(raise(overflow()));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    !is_wide(expr)
        && expr
            .get_type(schema)
            .is_ok_and(|data_type| data_type.is_floating())
}

/// The expression that gives column `index` of a plan its value, where that can be a literal.
pub(super) fn origin(plan: &LogicalPlan, index: usize) -> Option<&Expr> {
    match plan {
        LogicalPlan::Projection(projection) => projection.expr.get(index).map(|expr| match expr {
            Expr::Alias(alias) => alias.expr.as_ref(),
            other => other,
        }),
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, index),
        LogicalPlan::Sort(sort) => origin(&sort.input, index),
        LogicalPlan::Limit(limit) => origin(&limit.input, index),
        LogicalPlan::Filter(filter) => origin(&filter.input, index),
        LogicalPlan::Distinct(datafusion::logical_expr::Distinct::All(input)) => {
            origin(input, index)
        }
        _ => None,
    }
}
