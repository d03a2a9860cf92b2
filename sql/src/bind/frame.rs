//! Window frames: which there are, and their bounds.
//!
//! Owns PostgreSQL's rules for the bounds of a frame, and what DataFusion cannot do of what they allow. Called by [`super::window`].

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{
    WindowFrame as Frame, WindowFrameBound as Bound, WindowFrameUnits as Units,
};
use flowstone_types::SqlType;
use sqlparser::ast::{
    DataType, Expr, UnaryOperator, Value, WindowFrame, WindowFrameBound, WindowFrameUnits,
};

use super::Binder;
use super::number::plain_decimal;
use super::value::{constant, made};
use crate::error::{Error, ErrorKind};

const OTHER_FRAMES: &str =
    "Use a frame of ROWS or GROUPS, or join the relation to itself on the values.";

impl Binder<'_> {
    /// The frame of a window with this order, whose first item is of type `first`. An order that is missing is made where the frame needs one.
    ///
    /// # Errors
    /// As PostgreSQL, and for what DataFusion cannot do.
    pub(super) fn frame_of(
        &mut self,
        frame: Option<&WindowFrame>,
        order: &mut Vec<Sort>,
        first: Option<&SqlType>,
    ) -> Result<Frame, Error> {
        let Some(frame) = frame else {
            return Ok(Frame::new((!order.is_empty()).then_some(false)));
        };
        check(frame)?;
        let units = match frame.units {
            WindowFrameUnits::Rows => Units::Rows,
            WindowFrameUnits::Range => Units::Range,
            WindowFrameUnits::Groups => Units::Groups,
        };
        let start = self.bound_of(&frame.start_bound, units, first)?;
        let end = match &frame.end_bound {
            Some(end) => self.bound_of(end, units, first)?,
            None => Bound::CurrentRow,
        };
        let planned = Frame::new_bounds(units, start, end);
        made(planned.regularize_order_bys(order))?;
        Ok(planned)
    }

    fn bound_of(
        &mut self,
        bound: &WindowFrameBound,
        units: Units,
        first: Option<&SqlType>,
    ) -> Result<Bound, Error> {
        Ok(match bound {
            WindowFrameBound::CurrentRow => Bound::CurrentRow,
            WindowFrameBound::Preceding(offset) => {
                Bound::Preceding(self.offset_of(offset.as_deref(), units, first)?)
            }
            WindowFrameBound::Following(offset) => {
                Bound::Following(self.offset_of(offset.as_deref(), units, first)?)
            }
        })
    }

    fn offset_of(
        &mut self,
        offset: Option<&Expr>,
        units: Units,
        first: Option<&SqlType>,
    ) -> Result<ScalarValue, Error> {
        let Some(offset) = offset else {
            return Ok(ScalarValue::Null);
        };
        if units == Units::Range && is_interval(offset) {
            return self.interval_offset(offset, first);
        }
        let digits = digits_of(offset)
            .ok_or_else(|| Error::internal("an offset of a frame is no number"))?;
        if units != Units::Range {
            let count = digits.parse::<u64>().map_err(|_| too_far())?;
            return Ok(ScalarValue::UInt64(Some(count)));
        }
        if let Some(first) = first {
            check_range(first, &digits)?;
        }
        Ok(ScalarValue::Utf8(Some(digits)))
    }

    /// An interval, of moments. Days of a zone have lengths of their own, which DataFusion does not know.
    fn interval_offset(
        &mut self,
        offset: &Expr,
        first: Option<&SqlType>,
    ) -> Result<ScalarValue, Error> {
        let refused = |found: &SqlType| {
            Error::unsupported(format!(
                "RANGE with offset PRECEDING/FOLLOWING is not supported for column type {} and offset type interval",
                found.without_modifier()
            ))
            .with_hint(OTHER_FRAMES)
        };
        let value = self.scalar(offset)?;
        let value = self.coerce(value, &SqlType::Interval)?;
        let found = constant(value.expr, self.ctx.time_zone)?;
        let Some(ScalarValue::IntervalMonthDayNano(Some(interval))) = found else {
            return Err(no_number(OTHER_FRAMES));
        };
        if flowstone_types::interval::order_key(interval) < 0 {
            return Err(Error::new(
                ErrorKind::InvalidFrameOffset,
                "invalid preceding or following size in window function",
            ));
        }
        let has_days = interval.months != 0 || interval.days != 0;
        match first {
            Some(SqlType::Timestamp | SqlType::Date) => {}
            Some(SqlType::TimestampTz) if !has_days || self.ctx.time_zone.is_utc() => {}
            Some(other) => return Err(refused(other)),
            None => {}
        }
        Ok(ScalarValue::IntervalMonthDayNano(Some(interval)))
    }
}

fn too_far() -> Error {
    Error::unsupported("a window frame this far from its row is not supported")
}

fn no_number(hint: &str) -> Error {
    Error::unsupported("RANGE with an offset that is no number is not supported").with_hint(hint)
}

/// The digits of a number that is not negative.
fn digits_of(offset: &Expr) -> Option<String> {
    match offset {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => Some(digits.replace('_', "")),
            _ => None,
        },
        Expr::Nested(inner)
        | Expr::UnaryOp {
            op: UnaryOperator::Plus,
            expr: inner,
        } => digits_of(inner),
        _ => None,
    }
}

/// Checks that values of the column that a RANGE frame is ordered by can be counted in a number.
fn check_range(column: &SqlType, offset: &str) -> Result<(), Error> {
    let name = column.without_modifier();
    let whole = offset.parse::<i64>().is_ok();
    let refused = match column {
        SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(_) => return Ok(()),
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 if whole => {
            let fits = match column {
                SqlType::Int2 => offset.parse::<i16>().is_ok(),
                SqlType::Int4 => offset.parse::<i32>().is_ok(),
                _ => true,
            };
            return if fits { Ok(()) } else { Err(too_far()) };
        }
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
    Err(error.with_hint(OTHER_FRAMES))
}

/// Checks the bounds of a frame.
///
/// # Errors
/// If the frame cannot be (`42P20`), an offset is negative (`22013`), or the frame would always be empty (`0A000`).
fn check(frame: &WindowFrame) -> Result<(), Error> {
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
        if is_number(offset) || is_interval(offset) {
            return Ok(());
        }
        return Err(no_number(OTHER_FRAMES));
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
