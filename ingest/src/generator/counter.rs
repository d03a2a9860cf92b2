//! COUNTER: tick `n` inserts `n`; with a maximal cardinality it also deletes the oldest row.

use std::ops::RangeInclusive;

use flowstone_types::SourceOp;

use super::rows::Rows;

/// Writes the changes of `ticks`.
pub(crate) fn changes(max_cardinality: Option<u64>, ticks: RangeInclusive<u64>, rows: &mut Rows) {
    for tick in ticks {
        rows.push(SourceOp::Insert, [number(tick)]);
        if let Some(expired) = max_cardinality
            .and_then(|kept| tick.checked_sub(kept))
            .filter(|expired| *expired > 0)
        {
            rows.push(SourceOp::Delete, [number(expired)]);
        }
    }
}

fn number(tick: u64) -> super::rows::Cell {
    i64::try_from(tick).unwrap_or(i64::MAX).into()
}
