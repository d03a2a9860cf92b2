//! Offsets by partition: what a position of a topic is in here.
//!
//! A partition that is not named was not heard of, which is less than to be at its offset 0.

use std::collections::BTreeMap;

use flowstone_types::SourcePosition;

use crate::Error;
use crate::binding::Position;

/// By partition, the next offset.
pub(crate) type Offsets = BTreeMap<i32, i64>;

impl Position for Offsets {
    fn of(position: &SourcePosition) -> Result<&Self, Error> {
        of(position)
    }

    fn to_source(&self) -> SourcePosition {
        position(self)
    }

    fn ordinal(&self) -> u64 {
        ordinal(self)
    }
}

/// The offsets that a position is.
///
/// # Errors
/// [`Error::Invariant`] if it is one of another kind of source.
pub(crate) fn of(position: &SourcePosition) -> Result<&Offsets, Error> {
    match position {
        SourcePosition::KafkaOffsets(offsets) => Ok(offsets),
        other => Err(Error::Invariant(format!(
            "position {other} is not one of a Kafka source"
        ))),
    }
}

pub(crate) fn position(offsets: &Offsets) -> SourcePosition {
    SourcePosition::KafkaOffsets(offsets.clone())
}

/// Whether everything that is read at `there` is read here as well.
pub(crate) fn covers(here: &Offsets, there: &Offsets) -> bool {
    there
        .iter()
        .all(|(partition, offset)| here.get(partition).is_some_and(|reached| reached >= offset))
}

/// One number for offsets of which each covers the one before: it does not get smaller, and stays the same only if there was no message in between.
pub(crate) fn ordinal(offsets: &Offsets) -> u64 {
    offsets
        .values()
        .map(|offset| u64::try_from(*offset).unwrap_or(0))
        .fold(0, u64::saturating_add)
}

/// Goes forward in one partition, never back.
pub(crate) fn raise(offsets: &mut Offsets, partition: i32, to: i64) {
    let reached = offsets.entry(partition).or_insert(to);
    *reached = (*reached).max(to);
}

/// Goes forward to cover `other`.
pub(crate) fn join(offsets: &mut Offsets, other: &Offsets) {
    for (partition, offset) in other {
        raise(offsets, *partition, *offset);
    }
}

/// How many offsets there are from one to the other.
pub(crate) fn distance(from: &Offsets, to: &Offsets) -> u64 {
    to.iter()
        .map(|(partition, to)| {
            let from = from.get(partition).copied().unwrap_or(0);
            u64::try_from(to.saturating_sub(from)).unwrap_or(0)
        })
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_is_not_named_is_less_than_its_beginning() {
        let none = Offsets::new();
        let begun = Offsets::from([(0, 0)]);
        assert!(covers(&begun, &none) && !covers(&none, &begun));
        assert_eq!(ordinal(&none), ordinal(&begun));
    }

    #[test]
    fn offsets_only_go_forward() {
        let mut offsets = Offsets::from([(0, 5), (1, 2)]);
        join(&mut offsets, &Offsets::from([(0, 3), (1, 9), (2, 1)]));
        assert_eq!(offsets, Offsets::from([(0, 5), (1, 9), (2, 1)]));
        assert_eq!(distance(&Offsets::from([(0, 1)]), &offsets), 4 + 9 + 1);
    }
}
