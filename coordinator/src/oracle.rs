//! The timestamp oracle: issues epochs, strictly increasing over the life of the deployment.
//!
//! Pure: time is passed in. Invariants: no epoch above the durable bound is ever issued, so an oracle that starts above the bound of its predecessor never
//! repeats one. The bound runs ahead of the clock by [`BOUND_AHEAD_MS`], so issuing does not wait for the disk.

use flowstone_types::Epoch;

/// How far ahead of the clock the bound is persisted.
pub const BOUND_AHEAD_MS: u64 = 3_000;
/// A new bound is asked for when less than this is left.
const BOUND_LOW_MS: u64 = 1_500;

/// The oracle.
#[derive(Clone, Debug)]
pub struct Oracle {
    last: Epoch,
    durable_bound: Epoch,
    requested_bound: Epoch,
}

impl Oracle {
    /// An oracle that issues epochs above `bound`, the newest durable one.
    #[must_use]
    pub const fn new(bound: Epoch) -> Self {
        Self {
            last: bound,
            durable_bound: bound,
            requested_bound: bound,
        }
    }

    /// Makes sure that nothing at or below `epoch` is issued.
    pub fn start_above(&mut self, epoch: Epoch) {
        self.last = self.last.max(epoch);
    }

    /// The last epoch issued.
    #[must_use]
    pub const fn last(&self) -> Epoch {
        self.last
    }

    /// The bound that should be made durable now, if there is one; each is returned once. Call before [`Oracle::issue`].
    pub fn bound_to_persist(&mut self, now_ms: u64) -> Option<Epoch> {
        let need = self.last.0.max(now_ms);
        if self.requested_bound.0 >= need.saturating_add(BOUND_LOW_MS) {
            return None;
        }
        self.requested_bound = Epoch(need.saturating_add(BOUND_AHEAD_MS));
        Some(self.requested_bound)
    }

    /// Takes note that `bound` is durable.
    pub fn bound_is_durable(&mut self, bound: Epoch) {
        self.durable_bound = self.durable_bound.max(bound);
        self.requested_bound = self.requested_bound.max(bound);
    }

    /// The next epoch: the clock's, or the one after the last if the clock has not moved or went back. `None` until a bound that covers it is durable.
    pub fn issue(&mut self, now_ms: u64) -> Option<Epoch> {
        let next = Epoch(self.last.next().0.max(now_ms));
        (next <= self.durable_bound).then(|| {
            self.last = next;
            next
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the clock does and whenever it crashes, epochs strictly increase and never pass the durable bound.
        #[test]
        fn epochs_strictly_increase_over_crashes_and_clock_jumps(steps in prop::collection::vec((0u64..20_000, 0u8..4), 1..200)) {
            let mut durable = Epoch(0);
            let mut oracle = Oracle::new(durable);
            let mut asked = None;
            let mut last = Epoch(0);
            for (now, action) in steps {
                match action {
                    0 => asked = oracle.bound_to_persist(now).or(asked),
                    1 => if let Some(bound) = asked.take() {
                        durable = durable.max(bound);
                        oracle.bound_is_durable(bound);
                    },
                    2 => if let Some(epoch) = oracle.issue(now) {
                        prop_assert!(epoch > last);
                        prop_assert!(epoch <= durable);
                        prop_assert!(epoch.0 >= now);
                        last = epoch;
                    },
                    _ => {
                        oracle = Oracle::new(durable);
                        asked = None;
                    }
                }
            }
        }
    }

    #[test]
    fn an_epoch_follows_the_clock_and_the_bound_runs_ahead_of_it() {
        let mut oracle = Oracle::new(Epoch(0));
        assert_eq!(oracle.issue(1_000), None);
        let bound = oracle.bound_to_persist(1_000).unwrap();
        assert_eq!(bound, Epoch(1_000 + BOUND_AHEAD_MS));
        assert_eq!(oracle.bound_to_persist(1_001), None);
        oracle.bound_is_durable(bound);
        assert_eq!(oracle.issue(1_000), Some(Epoch(1_000)));
        assert_eq!(oracle.issue(1_000), Some(Epoch(1_001)));
        assert_eq!(oracle.issue(900), Some(Epoch(1_002)));
        assert!(
            oracle
                .bound_to_persist(1_000 + BOUND_AHEAD_MS - 100)
                .is_some()
        );
    }
}
