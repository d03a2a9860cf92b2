//! `width_bucket`: the number of the bucket of a histogram that a value is in.

use arrow_array::{Array, ArrayRef};
use arrow_buffer::i256;
use arrow_ord::ord::make_comparator;
use arrow_schema::SortOptions;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::sort_key::key_array;
use flowstone_types::{EvalError, EvalErrorKind, SqlType};

use crate::cast::convert;
use crate::errors::{
    EvalResult, from_type_error, internal, null_not_allowed, numeric_not_held, out_of_range, raise,
};
use crate::numeric::{Numeric, rescale};
use crate::udf::{Call, P, R, function, lists, map_rows, map4, overload};

/// The functions of this module.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let int4 = || R::Sql(SqlType::Int4);
    vec![function(
        "width_bucket",
        vec![
            overload(
                &[P::Float8, P::Float8, P::Float8, P::Int4],
                int4(),
                |call| map4(call, of_float),
            ),
            overload(
                &[P::Numeric, P::Numeric, P::Numeric, P::Int4],
                int4(),
                |call| map4(call, of_numeric),
            ),
            overload(&[P::Any, P::List], int4(), of_thresholds),
        ],
    )]
}

fn bad(message: &str) -> EvalError {
    EvalError::new(EvalErrorKind::Buckets, message)
}

fn check_count(count: i32) -> EvalResult<()> {
    if count <= 0 {
        return Err(bad("count must be greater than zero"));
    }
    Ok(())
}

fn equal_bounds() -> EvalError {
    bad("lower bound cannot equal upper bound")
}

/// The bucket behind the last.
fn behind(count: i32) -> EvalResult<i32> {
    count.checked_add(1).ok_or_else(|| out_of_range("integer"))
}

/// Bounds may fall, and buckets begin at the first one then too.
fn of_float(value: f64, low: f64, high: f64, count: i32) -> EvalResult<i32> {
    check_count(count)?;
    if value.is_nan() || low.is_nan() || high.is_nan() {
        return Err(bad("operand, lower bound, and upper bound cannot be NaN"));
    }
    if low.is_infinite() || high.is_infinite() {
        return Err(bad("lower and upper bounds must be finite"));
    }
    if low == high {
        return Err(equal_bounds());
    }
    let (before, after) = if low < high {
        (value < low, value >= high)
    } else {
        (value > low, value <= high)
    };
    if before {
        return Ok(0);
    }
    if after {
        return behind(count);
    }
    let part = if (high - low).is_finite() {
        (value - low) / (high - low)
    } else {
        (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)
    };
    // A part of almost 1 may have been rounded to it.
    let bucket = crate::interval::to_i32(f64::from(count) * part)?.min(count - 1);
    Ok(bucket + 1)
}

fn of_numeric(value: Numeric, low: Numeric, high: Numeric, count: i32) -> EvalResult<i32> {
    check_count(count)?;
    let scale = value.scale.max(low.scale).max(high.scale);
    let wide = |number: Numeric| rescale(i256::from_i128(number.value), number.scale, scale);
    let (mut value, mut low, mut high) = (wide(value)?, wide(low)?, wide(high)?);
    if low == high {
        return Err(equal_bounds());
    }
    if low > high {
        let turned = |number: i256| number.wrapping_neg();
        (value, low, high) = (turned(value), turned(low), turned(high));
    }
    if value < low {
        return Ok(0);
    }
    if value >= high {
        return behind(count);
    }
    let difference = |a: i256, b: i256| a.checked_sub(b).ok_or_else(numeric_not_held);
    let bucket = difference(value, low)?
        .checked_mul(i256::from_i128(i128::from(count)))
        .and_then(|product| product.checked_div(difference(high, low).ok()?))
        .and_then(|bucket| i32::try_from(bucket.to_i128()?).ok())
        .ok_or_else(numeric_not_held)?;
    behind(bucket)
}

/// How many of the thresholds, which rise, a value has reached.
fn of_thresholds(call: &Call<'_>) -> Result<ArrayRef> {
    let list = lists(call.arg(1)?)?;
    let values = convert(call.arg(0)?, list.values().data_type())?;
    let key = |array: &ArrayRef| key_array(array).map_err(|error| raise(from_type_error(&error)));
    let compare = make_comparator(&key(&values)?, &key(list.values())?, SortOptions::default())?;
    let bound = |index: usize| {
        list.value_offsets()
            .get(index)
            .and_then(|offset| usize::try_from(*offset).ok())
            .ok_or_else(|| internal("a list without an end"))
    };
    map_rows(call, |row| {
        if values.is_null(row) || list.is_null(row) {
            return Ok(None);
        }
        let (first, end) = (bound(row)?, bound(row + 1)?);
        if (first..end).any(|item| list.values().is_null(item)) {
            return Err(null_not_allowed("thresholds array must not contain NULLs"));
        }
        let (mut low, mut high) = (first, end);
        while low < high {
            let middle = low + (high - low) / 2;
            if compare(row, middle).is_lt() {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        i32::try_from(low - first)
            .map(Some)
            .map_err(|_| out_of_range("integer"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(value: i128, scale: i8) -> Numeric {
        Numeric { value, scale }
    }

    #[test]
    fn bounds_may_rise_and_fall() {
        assert_eq!(of_float(5.35, 0.024, 10.06, 5).unwrap(), 3);
        assert_eq!(of_float(10.06, 0.024, 10.06, 5).unwrap(), 6);
        assert_eq!(of_float(11.0, 10.0, 0.0, 4).unwrap(), 0);
        assert_eq!(of_float(0.0, 10.0, 0.0, 4).unwrap(), 5);
        assert_eq!(of_float(f64::MAX, -f64::MAX, f64::MAX, 4).unwrap(), 5);
        let bucket = |value, low, high, count| of_numeric(value, low, high, count).unwrap();
        assert_eq!(
            bucket(numeric(535, 2), numeric(24, 3), numeric(1006, 2), 5),
            3
        );
        assert_eq!(bucket(numeric(3, 0), numeric(10, 0), numeric(0, 0), 4), 3);
        assert_eq!(bucket(numeric(-1, 0), numeric(0, 0), numeric(10, 0), 5), 0);
    }

    #[test]
    fn buckets_that_cannot_be_are_errors() {
        let kind = |result: EvalResult<i32>| result.unwrap_err().kind;
        assert_eq!(kind(of_float(1.0, 1.0, 2.0, 0)), EvalErrorKind::Buckets);
        assert_eq!(kind(of_float(1.0, 1.0, 1.0, 1)), EvalErrorKind::Buckets);
        assert_eq!(
            kind(of_float(f64::NAN, 1.0, 2.0, 1)),
            EvalErrorKind::Buckets
        );
        let last = of_float(11.0, 0.0, 10.0, i32::MAX);
        assert_eq!(kind(last), EvalErrorKind::NumericOutOfRange);
    }
}
