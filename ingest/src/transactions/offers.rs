//! How much is offered to be taken at once.
//!
//! Whoever takes holds all of one binding in memory, so what waits on disk is offered bit by bit.

use std::collections::VecDeque;

use flowstone_types::SourcePosition;

/// Transactions are counted together up to this many bytes, so that there are few entries however small they are.
const STEP_BYTES: u64 = 8 * 1024 * 1024;

/// Some transactions in a row.
#[derive(Debug)]
struct Step {
    /// The end of the last.
    position: SourcePosition,
    bytes: u64,
}

/// What was received and not taken, by size.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    steps: VecDeque<Step>,
}

impl Offers {
    /// A transaction of `bytes` has ended.
    pub(crate) fn add(&mut self, position: SourcePosition, bytes: u64) {
        match self.steps.back_mut() {
            Some(last) if last.bytes.saturating_add(bytes) <= STEP_BYTES => {
                last.bytes += bytes;
                last.position = position;
            }
            _ => self.steps.push_back(Step { position, bytes }),
        }
    }

    /// Whether there is nothing to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Everything up to `position` was taken.
    pub(crate) fn take(&mut self, position: &SourcePosition) {
        while self
            .steps
            .front()
            .is_some_and(|step| position.covers(&step.position))
        {
            self.steps.pop_front();
        }
    }

    /// The newest position up to which there are at most `bytes`, or one transaction; `None` if that is everything.
    pub(crate) fn within(&self, bytes: u64) -> Option<&SourcePosition> {
        let mut sum = 0_u64;
        let mut reached = None;
        for step in &self.steps {
            sum = sum.saturating_add(step.bytes);
            if sum > bytes && reached.is_some() {
                return reached;
            }
            reached = Some(&step.position);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> SourcePosition {
        SourcePosition::PostgresLsn(offset)
    }

    #[test]
    fn as_much_is_offered_as_fits_and_one_transaction_at_least() {
        let mut offers = Offers::default();
        assert_eq!(offers.within(10), None);
        assert!(offers.is_empty());
        for (offset, bytes) in [
            (1, STEP_BYTES),
            (2, STEP_BYTES),
            (3, 5 * STEP_BYTES),
            (4, 1),
        ] {
            offers.add(at(offset), bytes);
        }
        assert_eq!(offers.within(STEP_BYTES), Some(&at(1)));
        assert_eq!(offers.within(2 * STEP_BYTES), Some(&at(2)));
        assert_eq!(offers.within(100 * STEP_BYTES), None);
        offers.take(&at(2));
        assert_eq!(
            offers.within(STEP_BYTES),
            Some(&at(3)),
            "it cannot be split"
        );
        offers.take(&at(3));
        assert_eq!(offers.within(STEP_BYTES), None);
    }

    #[test]
    fn small_transactions_are_counted_together() {
        let mut offers = Offers::default();
        for offset in 1..=STEP_BYTES / 1024 {
            offers.add(at(offset), 1024);
        }
        assert_eq!(offers.steps.len(), 1);
        offers.add(at(STEP_BYTES), 1024);
        assert_eq!(offers.steps.len(), 2);
    }
}
