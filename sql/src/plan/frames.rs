//! Window frames: which there are.
//!
//! Owns PostgreSQL's rules for the bounds of a frame, and what DataFusion cannot do of what they allow. Called by [`super::rewrite`] before the bounds are
//! rewritten, and by [`crate::plan`] when types are coerced.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::{
    Expr as Planned, ExprSchemable, LogicalPlan, WindowFrame as PlannedFrame,
};
use flowstone_types::SqlType;
use sqlparser::ast::{
    DataType, Expr, UnaryOperator, Value, WindowFrame, WindowFrameBound, WindowFrameUnits,
};

use super::rewrite::plain_decimal;
use crate::error::{Error, ErrorKind};

const OTHER_FRAMES: &str =
    "Use a frame of ROWS or GROUPS, or join the relation to itself on the values.";

/// Checks the bounds of a frame.
///
/// # Errors
/// If the frame cannot be (`42P20`), an offset is negative (`22013`), or the frame would always be empty (`0A000`). What is not a number here is left to
/// [`check_planned`].
pub(super) fn check(frame: &WindowFrame) -> Result<(), Error> {
    use WindowFrameBound::{CurrentRow, Following, Preceding};
    let wrong = |message: &str| Err(Error::new(ErrorKind::Windowing, message));
    let end = frame.end_bound.as_ref().unwrap_or(&CurrentRow);
    match (&frame.start_bound, end) {
        (Following(None), _) => return wrong("frame start cannot be UNBOUNDED FOLLOWING"),
        (_, Preceding(None)) => return wrong("frame end cannot be UNBOUNDED PRECEDING"),
        (CurrentRow, Preceding(Some(_))) => {
            return wrong("frame starting from current row cannot have preceding rows");
        }
        (Following(Some(_)), CurrentRow) if frame.end_bound.is_none() => {
            return wrong("frame starting from following row cannot end with current row");
        }
        (Following(Some(_)), CurrentRow | Preceding(Some(_))) => {
            return wrong("frame starting from following row cannot have preceding rows");
        }
        _ => {}
    }
    for (bound, which) in [(&frame.start_bound, "starting"), (end, "ending")] {
        if let Preceding(Some(offset)) | Following(Some(offset)) = bound {
            if is_negative(offset) {
                let message = match frame.units {
                    WindowFrameUnits::Range => {
                        "invalid preceding or following size in window function".to_owned()
                    }
                    _ => format!("frame {which} offset must not be negative"),
                };
                return Err(Error::new(ErrorKind::InvalidFrameOffset, message));
            }
            check_offset(offset, frame.units)?;
        }
    }
    let crossed = match (&frame.start_bound, end) {
        (Preceding(Some(start)), Preceding(Some(end))) => number(start)
            .zip(number(end))
            .is_some_and(|(start, end)| start < end),
        (Following(Some(start)), Following(Some(end))) => number(start)
            .zip(number(end))
            .is_some_and(|(start, end)| start > end),
        _ => false,
    };
    if crossed {
        return Err(always_empty());
    }
    Ok(())
}

fn always_empty() -> Error {
    Error::unsupported("a window frame that ends before it starts is not supported")
        .with_hint("It is always empty: an aggregate over it is NULL, or 0 for count.")
}

/// Checks what the bounds are counted in: it must be a number.
fn check_offset(offset: &Expr, units: WindowFrameUnits) -> Result<(), Error> {
    if matches!(offset, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
        return Err(Error::new(
            ErrorKind::InvalidColumnReference,
            format!("argument of {units} must not contain variables"),
        ));
    }
    if units == WindowFrameUnits::Range {
        if is_number(offset) {
            return Ok(());
        }
        return Err(
            Error::unsupported("RANGE with an offset that is no number is not supported")
                .with_hint(OTHER_FRAMES),
        );
    }
    if is_interval(offset) {
        return Err(Error::new(
            ErrorKind::DatatypeMismatch,
            format!("argument of {units} must be type bigint, not type interval"),
        ));
    }
    if !is_whole(offset) {
        return Err(Error::unsupported(format!(
            "{units} with an offset that is no whole number is not supported"
        ))
        .with_hint("Write the offset as digits."));
    }
    Ok(())
}

/// Checks that values of the column that a RANGE frame with an offset is ordered by can be counted in its numbers. Before types are coerced: then an offset
/// may have become a value of another meaning.
///
/// # Errors
/// As PostgreSQL, and for dates and times.
pub(super) fn check_ranges(plan: &LogicalPlan) -> Result<(), DataFusionError> {
    plan.apply_with_subqueries(|node| {
        let LogicalPlan::Window(window) = node else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let schema = window.input.schema();
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Planned::WindowFunction(function) = part {
                    check_range(&function.params, schema)?;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map(|_| ())
}

fn check_range(params: &WindowFunctionParams, schema: &DFSchema) -> Result<(), DataFusionError> {
    use datafusion::logical_expr::WindowFrameBound::{CurrentRow, Following, Preceding};
    let frame = &params.window_frame;
    if frame.units != datafusion::logical_expr::WindowFrameUnits::Range {
        return Ok(());
    }
    let offsets = [&frame.start_bound, &frame.end_bound]
        .into_iter()
        .filter_map(|bound| match bound {
            Preceding(offset) | Following(offset) if !offset.is_null() => Some(offset.to_string()),
            Preceding(_) | Following(_) | CurrentRow => None,
        });
    for offset in offsets {
        let Some(order) = params.order_by.first() else {
            continue;
        };
        let column = SqlType::from_field(&order.expr.to_field(schema)?.1)
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        let name = column.without_modifier();
        let whole = offset.parse::<i64>().is_ok();
        let refused = match column {
            SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(_) => continue,
            SqlType::Int2 | SqlType::Int4 | SqlType::Int8 if whole => continue,
            SqlType::Int2
            | SqlType::Int4
            | SqlType::Int8
            | SqlType::Date
            | SqlType::Time
            | SqlType::Timestamp
            | SqlType::TimestampTz
            | SqlType::Interval => {
                let found = match (offset.parse::<i32>(), whole) {
                    (Ok(_), _) => "integer",
                    (Err(_), true) => "bigint",
                    (Err(_), false) => "numeric",
                };
                format!("column type {name} and offset type {found}")
            }
            _ => format!("column type {name}"),
        };
        let error = Error::unsupported(format!(
            "RANGE with offset PRECEDING/FOLLOWING is not supported for {refused}"
        ));
        return Err(DataFusionError::External(Box::new(
            error.with_hint(OTHER_FRAMES),
        )));
    }
    Ok(())
}

/// Checks the bounds that a plan has when its types are coerced: an offset that is no value of the type of the order has become NULL, which DataFusion takes
/// for UNBOUNDED, and one that was a text is a value now.
///
/// # Errors
/// If there is such a frame that cannot be.
pub(super) fn check_planned(plan: &LogicalPlan) -> Result<(), DataFusionError> {
    use datafusion::logical_expr::WindowFrameBound::{Following, Preceding};
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Planned::WindowFunction(function) = part {
                    check_offsets(&function.params.window_frame)
                        .map_err(|error| DataFusionError::External(Box::new(error)))?;
                }
                if let Planned::WindowFunction(function) = part
                    && (matches!(&function.params.window_frame.start_bound, Following(offset) if offset.is_null())
                        || matches!(&function.params.window_frame.end_bound, Preceding(offset) if offset.is_null()))
                {
                    let error = Error::unsupported("a window frame this far from its row is not supported");
                    return Err(DataFusionError::External(Box::new(error)));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map(|_| ())
}

/// See [`check`], of the offsets that a frame has in a plan.
fn check_offsets(frame: &PlannedFrame) -> Result<(), Error> {
    use datafusion::logical_expr::WindowFrameBound::{Following, Preceding};
    for (bound, which) in [
        (&frame.start_bound, "starting"),
        (&frame.end_bound, "ending"),
    ] {
        if let Preceding(offset) | Following(offset) = bound
            && is_below_zero(offset)
        {
            return Err(Error::new(
                ErrorKind::InvalidFrameOffset,
                format!("frame {which} offset must not be negative"),
            ));
        }
    }
    let crossed = match (&frame.start_bound, &frame.end_bound) {
        (Preceding(start), Preceding(end)) => is_less(start, end),
        (Following(start), Following(end)) => is_less(end, start),
        _ => false,
    };
    if crossed {
        return Err(always_empty());
    }
    Ok(())
}

fn is_below_zero(offset: &ScalarValue) -> bool {
    match offset {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            flowstone_types::interval::order_key(*interval) < 0
        }
        _ => ScalarValue::new_zero(&offset.data_type()).is_ok_and(|zero| is_less(offset, &zero)),
    }
}

/// Whether one offset is shorter than another; of intervals, whether it may be, for a month has no number of days.
fn is_less(left: &ScalarValue, right: &ScalarValue) -> bool {
    if left.is_null() || right.is_null() {
        return false;
    }
    match (left, right) {
        (
            ScalarValue::IntervalMonthDayNano(Some(left)),
            ScalarValue::IntervalMonthDayNano(Some(right)),
        ) => {
            left.months < right.months
                || left.days < right.days
                || left.nanoseconds < right.nanoseconds
        }
        // What is a text yet is compared by nobody here.
        (ScalarValue::Utf8(_), _) => false,
        _ => left < right,
    }
}

fn is_number(offset: &Expr) -> bool {
    match offset {
        Expr::Value(value) => matches!(value.value, Value::Number(..)),
        Expr::UnaryOp {
            op: UnaryOperator::Plus,
            expr,
        } => is_number(expr),
        _ => false,
    }
}

/// Whether it is a number that has nothing behind the point.
fn is_whole(offset: &Expr) -> bool {
    is_number(offset) && number(offset).is_some_and(|number| number.fraction.is_empty())
}

fn is_interval(offset: &Expr) -> bool {
    match offset {
        // A text is read as one.
        Expr::Interval(interval) => !matches!(&*interval.value, Expr::Value(value)
                if matches!(&value.value, Value::SingleQuotedString(text) if text.trim().parse::<i64>().is_ok())),
        Expr::Cast { data_type, .. } => matches!(data_type, DataType::Interval { .. }),
        Expr::TypedString(typed) => matches!(typed.data_type, DataType::Interval { .. }),
        Expr::Nested(inner) => is_interval(inner),
        _ => false,
    }
}

fn is_negative(offset: &Expr) -> bool {
    match offset {
        Expr::Nested(inner) => is_negative(inner),
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => number(expr).is_some_and(|number| number > Magnitude::default()),
        _ => false,
    }
}

/// A number that is not negative: how many digits its whole part has, these, and those behind the point, without zeros that mean nothing. Exact, in its order.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Magnitude {
    digits: usize,
    whole: String,
    fraction: String,
}

fn number(offset: &Expr) -> Option<Magnitude> {
    match offset {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => {
                let decimal = plain_decimal(&digits.replace('_', ""))?;
                let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal.as_str(), ""));
                let whole = whole.trim_start_matches('0').to_owned();
                Some(Magnitude {
                    digits: whole.len(),
                    whole,
                    fraction: fraction.trim_end_matches('0').to_owned(),
                })
            }
            _ => None,
        },
        Expr::Nested(inner)
        | Expr::UnaryOp {
            op: UnaryOperator::Plus,
            expr: inner,
        } => number(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_they_are() {
        let number = |text: &str| number(&Expr::value(Value::Number(text.to_owned(), false)));
        for (less, more) in [
            ("1.5", "2"),
            ("9", "10.0"),
            ("0.05", "0.5"),
            ("9007199254740992", "9007199254740993"),
            ("0", "1e-3"),
        ] {
            assert!(number(less).unwrap() < number(more).unwrap(), "{less}");
        }
        assert!(number("1.50").unwrap() == number("15e-1").unwrap());
    }
}
