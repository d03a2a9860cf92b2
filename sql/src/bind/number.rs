//! Numeric literals, those with more digits than `numeric` has here among them: they are floats beside floats.
//!
//! Owns how such a number is kept until it is known what it is, and that what no context made a float is refused. Must not know syntax.
//! Called by [`super::expr`].

use std::collections::BTreeMap;

use datafusion::common::ScalarValue;
use datafusion::common::metadata::FieldMetadata;
use datafusion::logical_expr::Expr;
use flowstone_functions::cast::cast_expr;
use flowstone_types::numeric::{parse_numeric, precision_and_scale};
use flowstone_types::{EvalErrorKind, SqlType, TypeError};

use super::value::{Value, made};
use crate::error::{Error, ErrorKind};

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

/// The literal with these digits, which may have a sign, a point and an exponent: `integer` if it fits, else `bigint`, else `numeric`.
pub(super) fn number(digits: &str) -> Result<Value, Error> {
    let digits = digits.replace('_', "");
    if let Ok(value) = digits.parse::<i32>() {
        return Ok(Value::new(
            Expr::Literal(ScalarValue::Int32(Some(value)), None),
            SqlType::Int4,
        ));
    }
    if let Ok(value) = digits.parse::<i64>() {
        return Ok(Value::new(
            Expr::Literal(ScalarValue::Int64(Some(value)), None),
            SqlType::Int8,
        ));
    }
    decimal(&digits)
}

fn decimal(text: &str) -> Result<Value, Error> {
    if let Some(literal) = plain_decimal(text).and_then(|digits| numeric_literal(&digits)) {
        return Ok(literal);
    }
    match parse_numeric(text, None) {
        // Zeros at the end need no place.
        Ok(value) => return Ok(exact(value, None)),
        Err(TypeError::OutOfRange { .. }) => return Err(overflow()),
        Err(_) => {}
    }
    let value: f64 = text.parse().map_err(|_| not_held())?;
    let metadata = FieldMetadata::new(BTreeMap::from([(WIDE.to_owned(), text.to_owned())]));
    let literal = Expr::Literal(ScalarValue::Float64(Some(value)), Some(metadata));
    Ok(Value::new(literal, SqlType::Numeric(None)))
}

/// A decimal number without exponent; `None` if it has too many digits to be written out.
pub(super) fn plain_decimal(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let (mantissa, exponent) = match lower.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (lower.as_str(), 0),
    };
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    let mut scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    if scale.unsigned_abs() > 76 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    while scale < 0 {
        digits.push('0');
        scale += 1;
    }
    let scale = usize::try_from(scale).ok()?;
    while digits.len() <= scale {
        digits.insert(0, '0');
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

/// An exact decimal, if 38 digits suffice.
fn numeric_literal(digits: &str) -> Option<Value> {
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
    let literal = ScalarValue::Decimal128(Some(sign * value), precision, scale);
    Some(of_decimal(literal, precision, scale))
}

/// The literal of a decimal with this modifier.
fn exact(value: i128, modifier: Option<(u8, i8)>) -> Value {
    let (precision, scale) = precision_and_scale(modifier);
    let literal = ScalarValue::Decimal128(Some(value), precision, scale);
    of_decimal(literal, precision, scale)
}

fn of_decimal(literal: ScalarValue, precision: u8, scale: i8) -> Value {
    let sql_type = if (precision, scale) == flowstone_types::sql_type::NUMERIC_DEFAULT {
        SqlType::Numeric(None)
    } else {
        SqlType::Numeric(Some((precision, scale)))
    };
    Value::new(Expr::Literal(literal, None), sql_type)
}

/// The nearest float and the text of a literal that is not known to be a float yet.
fn wide(expr: &Expr) -> Option<(f64, &str)> {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), Some(metadata)) => metadata
            .inner()
            .get(WIDE)
            .map(|text| (*value, text.as_str())),
        _ => None,
    }
}

/// Whether it is such a literal.
pub(super) fn is_wide(value: &Value) -> bool {
    wide(&value.expr).is_some()
}

/// Refuses such a literal where nothing makes a float of it.
///
/// # Errors
/// [`EvalErrorKind::NumericNotHeld`]
pub(super) fn refuse_wide(value: &Value) -> Result<(), Error> {
    if is_wide(value) {
        return Err(not_held());
    }
    Ok(())
}

/// The literal as a float, if there is one: it is neither zero nor infinite.
fn float((value, text): (f64, &str)) -> Result<Expr, Error> {
    if !value.is_finite() || value == 0.0 {
        return Err(out_of_range(format!(
            "\"{text}\" is out of range for type double precision"
        )));
    }
    Ok(Expr::Literal(ScalarValue::Float64(Some(value)), None))
}

/// Such a literal where its surroundings are of type `to`.
pub(super) fn settled(value: &Value, to: &SqlType) -> Result<Value, Error> {
    let number = wide(&value.expr).ok_or_else(not_held)?;
    let expr = match to {
        SqlType::Float8 => float(number)?,
        SqlType::Float4 => made(cast_expr(float(number)?, &SqlType::Float8, to))?,
        _ => return Err(not_held()),
    };
    Ok(Value::new(expr, to.clone()))
}

/// Such a literal cast to `to`, which may round it.
pub(super) fn cast(value: &Value, to: &SqlType) -> Result<Value, Error> {
    let (_, text) = wide(&value.expr).ok_or_else(not_held)?;
    match to {
        SqlType::Numeric(modifier @ Some(_)) => parse_numeric(text, *modifier)
            .map(|value| exact(value, *modifier))
            .map_err(|_| out_of_range("numeric field overflow")),
        to if to.is_integer() => {
            let whole = parse_numeric(text, WHOLE)
                .map_err(|_| out_of_range(format!("{to} out of range")))?;
            let whole = exact(whole, WHOLE).expr;
            let cast = made(cast_expr(whole, &SqlType::Numeric(WHOLE), to))?;
            Ok(Value::new(cast, to.clone()))
        }
        to => settled(value, to),
    }
}

/// Whether such a literal, compared with a value of type `other`, is compared as a float: with floats, and where it is larger than any number of ours.
pub(super) fn is_compared_as_float(value: &Value, other: &SqlType) -> bool {
    let is_number = other.is_integer() || matches!(other, SqlType::Numeric(_));
    matches!(other, SqlType::Float4 | SqlType::Float8)
        || is_number
            && wide(&value.expr)
                .is_some_and(|(value, _)| value.is_finite() && value.abs() >= BEYOND_NUMERIC)
}
