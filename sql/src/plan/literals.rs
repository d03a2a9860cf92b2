//! Literals that mean what their surroundings make of them: numbers with more digits than `numeric` has here, which are floats beside floats, and texts of
//! no type in the rows of VALUES and the branches of UNION.
//!
//! Owns how such a number is kept until it is known what it is, and that what no context made a float is refused. Must not know syntax.
//! Called by [`super::exprs`] as expressions are planned, by [`super::provider`] for set operations, and once the plan is there.

use std::collections::{BTreeMap, HashSet};

use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use flowstone_functions::cast::cast_expr;
use flowstone_types::numeric::{parse_numeric, precision_and_scale};
use flowstone_types::{EvalErrorKind, SqlType, TypeError};

use crate::error::{Error, ErrorKind};

type Result<T> = std::result::Result<T, DataFusionError>;

/// Metadata of a literal that `numeric` cannot hold and no context has made a float yet: its text. Its value is the nearest float, which may be zero or infinite.
const WIDE: &str = "flowstone:wide number";
/// What is larger than any `numeric` of ours compares with one as its nearest float does.
const BEYOND_NUMERIC: f64 = 1e38;

/// The modifier of whole numbers, which casts to integers go through.
const WHOLE: Option<(u8, i8)> = Some((38, 0));

fn out_of_range(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::NumericOutOfRange, message)
}

/// PostgreSQL's `numeric` does not hold it either.
fn overflow() -> Error {
    out_of_range("value overflows numeric format")
}

fn not_held() -> Error {
    Error::new(
        ErrorKind::Evaluation(EvalErrorKind::NumericNotHeld),
        "numbers of more than 38 digits are not supported for type numeric",
    )
    .with_hint(
        "Cast it to double precision, or to numeric(38, s) to round it to s digits after the point.",
    )
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
    match parse_numeric(text, None) {
        // Zeros at the end need no place.
        Ok(value) => return Ok(exact(value, None)),
        Err(TypeError::OutOfRange { .. }) => return Err(raise(overflow())),
        Err(_) => {}
    }
    let value: f64 = text.parse().map_err(|_| raise(not_held()))?;
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

/// The literal of a decimal with this modifier.
fn exact(value: i128, modifier: Option<(u8, i8)>) -> Expr {
    let (precision, scale) = precision_and_scale(modifier);
    Expr::Literal(ScalarValue::Decimal128(Some(value), precision, scale), None)
}

/// The nearest float and the text of a literal that is not known to be a float yet.
fn wide(expr: &Expr) -> Option<(f64, &str)> {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), Some(metadata)) => metadata
            .inner()
            .get(WIDE)
            .map(|text| (*value, text.as_str())),
        Expr::Alias(alias) => wide(&alias.expr),
        _ => None,
    }
}

/// Whether it is such a literal.
pub(super) fn is_wide(expr: &Expr) -> bool {
    wide(expr).is_some()
}

/// The literal as a float, if there is one: it is neither zero nor infinite.
fn float((value, text): (f64, &str)) -> Result<Expr> {
    if !value.is_finite() || value == 0.0 {
        return Err(raise(out_of_range(format!(
            "\"{text}\" is out of range for type double precision"
        ))));
    }
    Ok(Expr::Literal(ScalarValue::Float64(Some(value)), None))
}

/// The literal where its surroundings are of type `to`; others as they are.
pub(super) fn settled(expr: Expr, to: &SqlType) -> Result<Expr> {
    let Some(number) = wide(&expr) else {
        return Ok(expr);
    };
    match to {
        SqlType::Float8 => float(number),
        SqlType::Float4 => cast_expr(float(number)?, &SqlType::Float8, to),
        _ => Err(raise(not_held())),
    }
}

/// The literal cast to `to`, which may round it; others as they are.
pub(super) fn cast(expr: Expr, to: &SqlType) -> Result<Expr> {
    let Some((_, text)) = wide(&expr) else {
        return Ok(expr);
    };
    match to {
        SqlType::Numeric(modifier @ Some(_)) => parse_numeric(text, *modifier)
            .map(|value| exact(value, *modifier))
            .map_err(|_| raise(out_of_range("numeric field overflow"))),
        to if to.is_integer() => {
            let value = parse_numeric(text, WHOLE)
                .map_err(|_| raise(out_of_range(format!("{to} out of range"))))?;
            cast_expr(exact(value, WHOLE), &SqlType::Numeric(WHOLE), to)
        }
        to => settled(expr, to),
    }
}

/// The operands of an operator where one is such a literal and the other, of type `other`, tells what it is.
pub(super) fn beside(
    literal: Expr,
    operand: Expr,
    other: &SqlType,
    compares: bool,
) -> Result<(Expr, Expr)> {
    let is_number = other.is_integer() || matches!(other, SqlType::Numeric(_));
    match other {
        SqlType::Float4 | SqlType::Float8 => Ok((settled(literal, &SqlType::Float8)?, operand)),
        other
            if compares
                && is_number
                && wide(&literal).is_some_and(|(value, _)| {
                    value.is_finite() && value.abs() >= BEYOND_NUMERIC
                }) =>
        {
            Ok((
                settled(literal, &SqlType::Float8)?,
                cast_expr(operand, other, &SqlType::Float8)?,
            ))
        }
        _ => Err(raise(not_held())),
    }
}

/// Refuses what no context has made a float.
///
/// # Errors
/// [`EvalErrorKind::NumericNotHeld`]; [`ErrorKind::NumericOutOfRange`] for what is to be a float and cannot be one
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
                if let Some(number) = wide(part) {
                    if !settled.contains(&std::ptr::from_ref(part)) {
                        return Err(raise(not_held()));
                    }
                    float(number)?;
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
