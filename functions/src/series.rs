//! `generate_series` of moments, as arrays of them.
//!
//! Must not know how rows are made of an array. Called through the function `generate_moments`.

use std::sync::Arc;

use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, ListArray, PrimitiveArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::datetime::TimeZone;
use flowstone_types::{EvalError, EvalErrorKind, SqlType};

use crate::errors::{EvalResult, invalid_parameter, raise};
use crate::growth::Growth;
use crate::interval::{Interval, is_infinite};
use crate::udf::{Arg, Call, P, R, broken, function, overload, primitive};
use crate::zone::add_interval_in;

/// Moments of one series.
const ITEMS_MAX: usize = 1 << 24;
/// Moments of the series of a batch: what the offsets of lists count to. One below 2^31.
const BATCH_ITEMS_MAX: usize = 0x7fff_ffff;

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let list = |item: SqlType| R::Sql(SqlType::Array(Box::new(item)));
    vec![function(
        "generate_moments",
        vec![
            overload(
                &[P::Timestamp, P::Timestamp, P::Interval],
                list(SqlType::Timestamp),
                |call| series(call, &TimeZone::UTC),
            ),
            overload(
                &[P::TimestampTz, P::TimestampTz, P::Interval],
                list(SqlType::TimestampTz),
                |call| series(call, call.zone),
            )
            .zoned(),
        ],
    )]
}

fn series(call: &Call<'_>, zone: &TimeZone) -> Result<ArrayRef> {
    let DataType::List(item) = call.returns else {
        return Err(broken("a series is not a list"));
    };
    let (starts, stops) = (
        primitive::<TimestampMicrosecondType>(call.arg(0)?)?,
        primitive::<TimestampMicrosecondType>(call.arg(1)?)?,
    );
    let steps = primitive::<arrow_array::types::IntervalMonthDayNanoType>(call.arg(2)?)?;
    let mut moments = Vec::new();
    let mut growth = Growth::default();
    let mut lengths = Vec::with_capacity(call.rows);
    let mut valid = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let present = starts.is_valid(row) && stops.is_valid(row) && steps.is_valid(row);
        let before = moments.len();
        if present {
            let step = Interval::read(steps, row);
            append(
                zone,
                starts.value(row),
                stops.value(row),
                step,
                &mut moments,
                &mut growth,
            )
            .map_err(raise)?;
        }
        lengths.push(moments.len() - before);
        valid.push(present);
    }
    let values = PrimitiveArray::<TimestampMicrosecondType>::from(moments)
        .with_data_type(item.data_type().clone());
    Ok(Arc::new(ListArray::try_new(
        Arc::clone(item),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(values),
        Some(NullBuffer::from(valid)),
    )?))
}

fn append(
    zone: &TimeZone,
    start: i64,
    stop: i64,
    step: Interval,
    moments: &mut Vec<i64>,
    growth: &mut Growth,
) -> EvalResult<()> {
    for (value, name) in [(start, "start"), (stop, "stop")] {
        if is_infinite(value) {
            return Err(invalid_parameter(format!(
                "{name} value cannot be infinity"
            )));
        }
    }
    let direction = step.span();
    if direction == 0 {
        return Err(invalid_parameter("step size cannot equal zero"));
    }
    let mut at = start;
    let first = moments.len();
    let within = |at: i64| {
        if direction > 0 {
            at <= stop
        } else {
            at >= stop
        }
    };
    while within(at) {
        if moments.len() >= BATCH_ITEMS_MAX {
            return Err(EvalError::too_large());
        }
        if moments.len() - first >= ITEMS_MAX {
            return Err(EvalError::new(
                EvalErrorKind::TooLarge,
                format!("generate_series of more than {ITEMS_MAX} timestamps"),
            ));
        }
        growth.add(size_of::<i64>())?;
        moments.push(at);
        let next = add_interval_in(zone, at, step)?;
        // Days and hours of different signs may add up to nothing where clocks change.
        if next == at {
            return Err(invalid_parameter("step size cannot equal zero"));
        }
        at = next;
    }
    Ok(())
}
