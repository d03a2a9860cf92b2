//! Evaluation errors: how a function reports one, and how one is recognised again after DataFusion and Arrow have wrapped it.
//!
//! Owns the mapping of Arrow's own failures to PostgreSQL's wording. Must not know SQLSTATEs.
//! Called by every kernel here, and by whoever evaluates an expression and must turn a failure into a row of the error side.

use std::error::Error as StdError;

use arrow_schema::ArrowError;
use datafusion::error::DataFusionError;
use flowstone_types::budget::Exceeded;
use flowstone_types::{EvalError, EvalErrorKind, TypeError};

use crate::execution::NarrowerBatches;

/// A result of a row-wise kernel.
pub(crate) type EvalResult<T> = Result<T, EvalError>;

/// `division by zero`
pub(crate) fn division_by_zero() -> EvalError {
    EvalError::new(EvalErrorKind::DivisionByZero, "division by zero")
}

/// `<type> out of range`
pub(crate) fn out_of_range(type_name: &str) -> EvalError {
    EvalError::new(
        EvalErrorKind::NumericOutOfRange,
        format!("{type_name} out of range"),
    )
}

/// A value beyond a declared precision.
pub(crate) fn numeric_overflow() -> EvalError {
    EvalError::new(EvalErrorKind::NumericOutOfRange, "numeric field overflow")
}

/// A result beyond what PostgreSQL's `numeric` holds.
pub(crate) fn numeric_format_overflow() -> EvalError {
    EvalError::new(
        EvalErrorKind::NumericOutOfRange,
        "value overflows numeric format",
    )
}

/// A result that PostgreSQL's `numeric` holds and ours does not.
pub(crate) fn numeric_not_held() -> EvalError {
    EvalError::numeric_not_held()
}

/// A result so small that `numeric` has no digit for it here.
pub(crate) fn numeric_underflow() -> EvalError {
    EvalError::new(
        EvalErrorKind::NumericNotHeld,
        "numeric result is too close to zero for the digits that are supported",
    )
}

/// A float that is no number, or infinite, as `numeric`.
pub(crate) fn numeric_special(value: f64) -> EvalError {
    let name = if value.is_nan() {
        "NaN"
    } else if value < 0.0 {
        "-Infinity"
    } else {
        "Infinity"
    };
    EvalError::new(
        EvalErrorKind::NumericNotHeld,
        format!("value \"{name}\" is not supported for type numeric"),
    )
}

/// `<type> out of range` for dates and times.
pub(crate) fn datetime_overflow(type_name: &str) -> EvalError {
    EvalError::new(
        EvalErrorKind::DatetimeOverflow,
        format!("{type_name} out of range"),
    )
}

/// Another failure of dates and times that is theirs alone.
pub(crate) fn datetime_error(message: impl Into<String>) -> EvalError {
    EvalError::new(EvalErrorKind::DatetimeOverflow, message)
}

/// An argument that the function does not accept.
pub(crate) fn invalid_parameter(message: impl Into<String>) -> EvalError {
    EvalError::new(EvalErrorKind::InvalidParameter, message)
}

/// An escape that is more than a character.
pub(crate) fn invalid_escape() -> EvalError {
    EvalError::new(EvalErrorKind::InvalidEscape, "invalid escape string")
}

/// NULL where there must be a value.
pub(crate) fn null_not_allowed(message: &str) -> EvalError {
    EvalError::new(EvalErrorKind::NullNotAllowed, message)
}

/// A number that has no logarithm.
pub(crate) fn no_logarithm(message: &str) -> EvalError {
    EvalError::new(EvalErrorKind::Logarithm, message)
}

/// A number that has no such power or root.
pub(crate) fn no_power(message: &str) -> EvalError {
    EvalError::new(EvalErrorKind::Power, message)
}

/// Text that is not a value of its type.
pub(crate) fn invalid_text(type_name: &str, text: &str) -> EvalError {
    let kind = if is_datetime(type_name) {
        EvalErrorKind::DatetimeFormat
    } else {
        EvalErrorKind::InvalidText
    };
    EvalError::new(
        kind,
        format!("invalid input syntax for type {type_name}: \"{text}\""),
    )
}

/// Any other failure of data.
pub(crate) fn data_error(message: impl Into<String>) -> EvalError {
    EvalError::new(EvalErrorKind::Data, message)
}

/// What PostgreSQL does and we do not.
pub(crate) fn not_supported(message: impl Into<String>) -> EvalError {
    EvalError::new(EvalErrorKind::NotSupported, message)
}

/// A bug of ours.
pub(crate) fn internal(message: impl Into<String>) -> EvalError {
    EvalError::new(EvalErrorKind::Internal, message)
}

/// The evaluation error that a failure to read or write a value is.
#[must_use]
pub fn from_type_error(error: &TypeError) -> EvalError {
    let kind = match error {
        TypeError::InvalidText { type_name, .. } if is_datetime(type_name) => {
            EvalErrorKind::DatetimeFormat
        }
        TypeError::InvalidText { .. } | TypeError::InvalidBinary { .. } => {
            EvalErrorKind::InvalidText
        }
        TypeError::OutOfRange { type_name, .. } if is_datetime(type_name) => {
            EvalErrorKind::DatetimeOverflow
        }
        TypeError::OutOfRange { .. } => EvalErrorKind::NumericOutOfRange,
        TypeError::InvalidParameter { .. } => EvalErrorKind::InvalidParameter,
        TypeError::TooLong { .. } => EvalErrorKind::TooLong,
        TypeError::TooLarge => EvalErrorKind::TooLarge,
        TypeError::NotSupported(_) => EvalErrorKind::NotSupported,
        TypeError::NumericNotHeld(_) => EvalErrorKind::NumericNotHeld,
        TypeError::WeightOverflow => EvalErrorKind::Data,
        _ => EvalErrorKind::Internal,
    };
    let message = match error {
        TypeError::OutOfRange { type_name, value } if is_datetime(type_name) => {
            format!("date/time field value out of range: \"{value}\"")
        }
        other => other.to_string(),
    };
    EvalError::new(kind, message)
}

fn is_datetime(type_name: &str) -> bool {
    ["date", "time", "interval"]
        .iter()
        .any(|prefix| type_name.starts_with(prefix))
}

/// The error as DataFusion carries it; [`eval_error`] finds it again.
pub(crate) fn raise(error: EvalError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The evaluation error inside `error`, with PostgreSQL's wording.
///
/// Looks through every wrapper of DataFusion and Arrow; what is not an evaluation error of ours or a known failure of an Arrow kernel
/// becomes [`EvalErrorKind::Internal`] or, if DataFusion calls it an execution error, [`EvalErrorKind::Data`].
#[must_use]
pub fn eval_error(error: &DataFusionError) -> EvalError {
    let found = unwrapped(error);
    match found.message.split_once("regex parse error:") {
        // The crate draws the pattern and points into it; the reason is the last line.
        Some((_, report)) => {
            let reason = report.rsplit("error: ").next().unwrap_or_default().trim();
            EvalError::new(
                EvalErrorKind::InvalidRegex,
                format!("invalid regular expression: {reason}"),
            )
        }
        None => found,
    }
}

fn unwrapped(error: &DataFusionError) -> EvalError {
    match error {
        DataFusionError::External(inner) => from_boxed(inner.as_ref()),
        DataFusionError::ArrowError(inner, _) => from_arrow(inner),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            unwrapped(inner)
        }
        DataFusionError::Shared(inner) => unwrapped(inner),
        DataFusionError::Collection(errors) => errors
            .first()
            .map_or_else(|| internal("unknown error"), unwrapped),
        DataFusionError::Execution(message) => from_execution(message),
        other => internal(other.strip_backtrace()),
    }
}

fn from_boxed(error: &(dyn StdError + Send + Sync + 'static)) -> EvalError {
    if let Some(error) = error.downcast_ref::<EvalError>() {
        return error.clone();
    }
    if let Some(error) = error.downcast_ref::<TypeError>() {
        return from_type_error(error);
    }
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        return (*exceeded).into();
    }
    if let Some(narrower) = error.downcast_ref::<NarrowerBatches>() {
        return EvalError::new(EvalErrorKind::OutOfMemory, narrower.to_string());
    }
    if let Some(error) = error.downcast_ref::<DataFusionError>() {
        return unwrapped(error);
    }
    if let Some(error) = error.downcast_ref::<ArrowError>() {
        return from_arrow(error);
    }
    internal(error.to_string())
}

/// See [`eval_error`].
pub(crate) fn from_arrow(error: &ArrowError) -> EvalError {
    match error {
        ArrowError::ExternalError(inner) => from_boxed(inner.as_ref()),
        ArrowError::DivideByZero => division_by_zero(),
        ArrowError::ArithmeticOverflow(_) => {
            EvalError::new(EvalErrorKind::NumericOutOfRange, "value out of range")
        }
        ArrowError::CastError(message) => from_cast(message),
        ArrowError::ParseError(message) => {
            EvalError::new(EvalErrorKind::InvalidText, lower_first(message))
        }
        ArrowError::ComputeError(message) | ArrowError::InvalidArgumentError(message) => {
            data_error(lower_first(message))
        }
        ArrowError::OffsetOverflowError(_) => EvalError::too_large(),
        other => internal(other.to_string()),
    }
}

fn from_execution(message: &str) -> EvalError {
    if message.contains("more than one row") {
        return EvalError::new(
            EvalErrorKind::Cardinality,
            "more than one row returned by a subquery used as an expression",
        );
    }
    data_error(lower_first(message))
}

/// `Cannot cast string 'abc' to value of Int32 type`, `Can't cast value 300 to type Int8`, `Cannot cast to Decimal128(…). Overflowing on 1e40`.
fn from_cast(message: &str) -> EvalError {
    if let Some(rest) = message.strip_prefix("Cannot cast string '")
        && let Some((text, target)) = rest.rsplit_once("' to value of ")
    {
        return invalid_text(sql_name(target), text);
    }
    if let Some((_, target)) = message
        .strip_prefix("Can't cast value ")
        .and_then(|rest| rest.split_once(" to type "))
    {
        return out_of_range(sql_name(target));
    }
    if message.contains("verflow") || message.contains("too large") || message.contains("too small")
    {
        // Casts to declared decimals are not Arrow's: this one brings operands together.
        return if message.contains("Decimal") {
            numeric_not_held()
        } else {
            numeric_overflow()
        };
    }
    EvalError::new(EvalErrorKind::InvalidText, lower_first(message))
}

/// SQL's name of the Arrow type that a message starts with.
fn sql_name(arrow_name: &str) -> &'static str {
    let name = arrow_name.split([' ', '(']).next().unwrap_or_default();
    match name {
        "Int8" | "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "UInt16" => "uint2",
        "UInt32" => "uint4",
        "UInt64" => "uint8",
        "Float32" => "real",
        "Float64" => "double precision",
        "Boolean" => "boolean",
        "Date32" => "date",
        "Time64" => "time without time zone",
        "Timestamp" => "timestamp",
        "Interval" => "interval",
        "Decimal128" | "Decimal256" => "numeric",
        _ => "unknown",
    }
}

fn lower_first(message: &str) -> String {
    let mut letters = message.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_error_is_found_below_every_wrapper() {
        let ours = division_by_zero();
        let arrow = ArrowError::ExternalError(Box::new(raise(ours.clone())));
        let wrapped = DataFusionError::Context(
            "projection".to_owned(),
            Box::new(DataFusionError::ArrowError(Box::new(arrow), None)),
        );
        assert_eq!(eval_error(&wrapped), ours);
    }

    #[test]
    fn failures_of_arrow_kernels_get_postgresql_wording() {
        let bad = DataFusionError::ArrowError(
            Box::new(ArrowError::CastError(
                "Cannot cast string 'abc' to value of Int32 type".to_owned(),
            )),
            None,
        );
        assert_eq!(
            eval_error(&bad).message,
            "invalid input syntax for type integer: \"abc\""
        );
        let large = DataFusionError::ArrowError(
            Box::new(ArrowError::CastError(
                "Can't cast value 300000 to type Int16".to_owned(),
            )),
            None,
        );
        assert_eq!(eval_error(&large), out_of_range("smallint"));
    }
}
