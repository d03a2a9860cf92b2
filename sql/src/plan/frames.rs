//! Window frames: which there are.
//!
//! Owns PostgreSQL's rules for the bounds of a frame, and what DataFusion cannot do of what they allow. Called by [`super::rewrite`] before the bounds are
//! rewritten, and by [`crate::plan`] when types are coerced.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{Expr as Planned, LogicalPlan, WindowFrame as PlannedFrame};
use sqlparser::ast::{Expr, UnaryOperator, Value, WindowFrame, WindowFrameBound};

use super::rewrite::plain_decimal;
use crate::error::{Error, ErrorKind};

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
        if let Preceding(Some(offset)) | Following(Some(offset)) = bound
            && is_negative(offset)
        {
            return Err(Error::new(
                ErrorKind::InvalidFrameOffset,
                format!("frame {which} offset must not be negative"),
            ));
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
