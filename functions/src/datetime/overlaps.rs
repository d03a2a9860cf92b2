//! `OVERLAPS`: whether two periods have a moment in common.
//!
//! A period begins at the earlier of its ends; the later one does not belong to it, unless both are the same.

use arrow_array::types::{
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::SqlType;

use crate::errors::raise;
use crate::interval::{DAY, Interval, add_interval};
use crate::udf::{Call, P, R, function, map_rows, overload, primitive};
use crate::zone::add_interval_in;

/// The function of this module.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let mut overloads = Vec::new();
    for own in [P::Timestamp, P::TimestampTz, P::Time] {
        for ends in [
            [own, own],
            [P::Interval, P::Interval],
            [own, P::Interval],
            [P::Interval, own],
        ] {
            let [first, second] = ends;
            let params = [own, first, own, second];
            let overload = overload(&params, R::Sql(SqlType::Bool), overlap);
            overloads.push(if own == P::TimestampTz && ends.contains(&P::Interval) {
                overload.zoned()
            } else {
                overload
            });
        }
    }
    vec![function("overlaps", overloads)]
}

/// Moments of one kind as numbers.
fn moments(array: &ArrayRef) -> Result<Vec<Option<i64>>> {
    Ok(match array.data_type() {
        DataType::Time64(_) => primitive::<Time64MicrosecondType>(array)?.iter().collect(),
        _ => primitive::<TimestampMicrosecondType>(array)?
            .iter()
            .collect(),
    })
}

/// The other ends of periods that begin at `starts`.
fn ends(call: &Call<'_>, starts: &[Option<i64>], array: &ArrayRef) -> Result<Vec<Option<i64>>> {
    if !matches!(array.data_type(), DataType::Interval(_)) {
        return moments(array);
    }
    let lengths = primitive::<IntervalMonthDayNanoType>(array)?;
    let kind = call.arg(0)?.data_type();
    let end = |start: i64, length: Interval| match kind {
        DataType::Time64(_) => Ok(start.wrapping_add(length.micros).rem_euclid(DAY)),
        DataType::Timestamp(_, Some(_)) => add_interval_in(call.zone, start, length),
        _ => add_interval(start, length),
    };
    itertools::zip_eq(starts, lengths.iter())
        .map(|(start, length)| match (start, length) {
            (Some(start), Some(length)) => end(*start, Interval::from_arrow(length))
                .map(Some)
                .map_err(raise),
            _ => Ok(None),
        })
        .collect()
}

fn overlap(call: &Call<'_>) -> Result<ArrayRef> {
    let starts = (moments(call.arg(0)?)?, moments(call.arg(2)?)?);
    let ends = (
        ends(call, &starts.0, call.arg(1)?)?,
        ends(call, &starts.1, call.arg(3)?)?,
    );
    let at = |moments: &[Option<i64>], row: usize| moments.get(row).copied().flatten();
    map_rows(call, |row| {
        let first = Period::of(at(&starts.0, row), at(&ends.0, row));
        let second = Period::of(at(&starts.1, row), at(&ends.1, row));
        Ok(match (first, second) {
            (Some(first), Some(second)) => first.overlaps(&second),
            _ => None,
        })
    })
}

/// A period of which at least one end is known.
struct Period {
    start: i64,
    /// `None` if only one end is known.
    end: Option<i64>,
}

impl Period {
    fn of(one: Option<i64>, other: Option<i64>) -> Option<Self> {
        Some(match (one, other) {
            (Some(one), Some(other)) => Self {
                start: one.min(other),
                end: Some(one.max(other)),
            },
            (known, other) => Self {
                start: known.or(other)?,
                end: None,
            },
        })
    }

    /// `None` where it depends on an end that is not known.
    fn overlaps(&self, other: &Self) -> Option<bool> {
        let (earlier, later) = if self.start <= other.start {
            (self, other)
        } else {
            (other, self)
        };
        if earlier.start == later.start {
            return (earlier.end.is_some() && later.end.is_some()).then_some(true);
        }
        if later.start < earlier.end? {
            return Some(true);
        }
        // The later one does not begin within the earlier.
        later.end.map(|_| false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_not_known_decides_nothing() {
        let overlap = |a, b, c, d| Period::of(a, b)?.overlaps(&Period::of(c, d)?);
        assert_eq!(overlap(Some(1), Some(3), Some(2), Some(4)), Some(true));
        assert_eq!(overlap(Some(3), Some(1), Some(4), Some(2)), Some(true));
        assert_eq!(overlap(Some(1), Some(2), Some(2), Some(3)), Some(false));
        assert_eq!(overlap(Some(1), Some(1), Some(1), Some(1)), Some(true));
        assert_eq!(overlap(Some(1), None, Some(2), Some(3)), None);
        assert_eq!(overlap(Some(1), Some(3), Some(2), None), Some(true));
        assert_eq!(overlap(Some(1), Some(2), Some(2), None), None);
        assert_eq!(overlap(None, None, Some(2), Some(3)), None);
        assert_eq!(overlap(Some(1), Some(2), Some(1), None), None);
    }
}
