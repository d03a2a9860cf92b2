//! Intervals made of numbers, and which values of time are finite.

use arrow_array::types::{Float64Type, Int32Type};
use arrow_array::{Array, ArrayRef};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::SqlType;

use super::interval;
use crate::errors::{EvalResult, datetime_overflow, internal};
use crate::interval::{HOUR, Interval, MINUTE, is_infinite, is_infinite_date, to_i64};
use crate::udf::{Call, Days, Micros, P, R, function, map_rows, map1, overload, primitive, up_to};

/// The functions of this module.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let boolean = || R::Sql(SqlType::Bool);
    let finite = |param| {
        overload(&[param], boolean(), |call| {
            map1(call, |at: Micros| Ok(!is_infinite(at.0)))
        })
    };
    let fields = [
        P::Int4,
        P::Int4,
        P::Int4,
        P::Int4,
        P::Int4,
        P::Int4,
        P::Float8,
    ];
    vec![
        function("make_interval", up_to(&fields, 0, interval(), make)),
        function(
            "isfinite",
            vec![
                overload(&[P::Date], boolean(), |call| {
                    map1(call, |day: Days| Ok(!is_infinite_date(day.0)))
                }),
                finite(P::Timestamp),
                finite(P::TimestampTz),
                overload(&[P::Interval], boolean(), |call| {
                    map1(call, |_: Interval| Ok(true))
                }),
            ],
        ),
    ]
}

/// `make_interval(years, months, weeks, days, hours, mins, secs)`, of which those at the end may be missing.
fn make(call: &Call<'_>) -> Result<ArrayRef> {
    map_rows(call, |row| {
        if call.args.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let number = |index: usize| -> EvalResult<i64> {
            let Some(array) = call.args.get(index) else {
                return Ok(0);
            };
            primitive::<Int32Type>(array)
                .map(|numbers| i64::from(numbers.value(row)))
                .map_err(|error| internal(error.to_string()))
        };
        let seconds = match call.args.get(6) {
            None => 0.0,
            Some(array) => primitive::<Float64Type>(array)
                .map_err(|error| internal(error.to_string()))?
                .value(row),
        };
        let overflow = || datetime_overflow("interval");
        let narrow = |value: i64| i32::try_from(value).map_err(|_| overflow());
        let clock = number(4)? * HOUR + number(5)? * MINUTE;
        let seconds = to_i64((seconds * 1e6).round_ties_even()).map_err(|_| overflow())?;
        Ok(Some(Interval {
            months: narrow(number(0)? * 12 + number(1)?)?,
            days: narrow(number(2)? * 7 + number(3)?)?,
            micros: clock.checked_add(seconds).ok_or_else(overflow)?,
        }))
    })
}
