//! How far the base may be ahead of a fork.
//!
//! A fork that has been hydrated has to run what the base has run meanwhile, and the base goes on: if it is as fast as the fork, that never catches up. So what may
//! be between them shrinks with what the fork does: for two ticks that it runs the base may run one. It has caught up after at most twice what it was behind when
//! it was hydrated, and no epoch waits for a fork that gains on the base by itself.

/// With so few ticks to go, and so many bytes, the base waits for a fork: everything does for that long.
pub(super) const NEAR: Amount = Amount {
    ticks: 2,
    bytes: 256 << 10,
};

/// Ticks of the base, and the bytes of their changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::compute) struct Amount {
    pub(super) ticks: u64,
    pub(super) bytes: u64,
}

impl Amount {
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            ticks: self.ticks.saturating_add(other.ticks),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            ticks: self.ticks.saturating_sub(other.ticks),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    const fn half(self) -> Self {
        Self {
            ticks: self.ticks / 2,
            bytes: self.bytes / 2,
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            ticks: self.ticks.max(other.ticks),
            bytes: self.bytes.max(other.bytes),
        }
    }

    pub(super) const fn is_below(self, other: Self) -> bool {
        self.ticks < other.ticks && self.bytes < other.bytes
    }

    const fn is_within(self, other: Self) -> bool {
        self.ticks <= other.ticks && self.bytes <= other.bytes
    }
}

/// What the base has run, and what a fork has run of it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    sent: Amount,
    ran: Amount,
    /// How far ahead the base was when the fork was hydrated; `None` before.
    behind: Option<Amount>,
}

impl Pace {
    /// The base has run a tick.
    pub(super) const fn sent(&mut self, bytes: u64) {
        self.sent = self.sent.plus(Amount { ticks: 1, bytes });
    }

    /// The fork is hydrated, and has run so much altogether.
    pub(super) fn ran(&mut self, ran: Amount) {
        self.ran = ran;
        self.behind.get_or_insert(self.sent.minus(ran));
    }

    /// What the fork has yet to run.
    pub(super) const fn ahead(&self) -> Amount {
        self.sent.minus(self.ran)
    }

    /// Whether so little is left that the base can wait for the fork.
    pub(super) const fn is_near(&self) -> bool {
        self.behind.is_some() && self.ahead().is_within(NEAR)
    }

    /// Whether the base should wait until the fork has run more.
    pub(super) fn is_too_far(&self) -> bool {
        self.behind.is_some_and(|behind| {
            let may_be = behind.minus(self.ran.half()).max(NEAR);
            !self.ahead().is_within(may_be)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_base_does_it_is_caught_up_with_and_a_fork_that_gains_on_it_holds_nobody_up(
            before in 0_u64..2000,
            bytes in 1_u64..100_000,
            steps in prop::collection::vec(0_usize..8, 1..40),
        ) {
            let mut pace = Pace::default();
            for _ in 0..before {
                pace.sent(bytes);
                prop_assert!(!pace.is_too_far() && !pace.is_near(), "it is not hydrated");
            }
            let mut ran = Amount::default();
            pace.ran(ran);
            // The base runs at most one tick while the fork runs two.
            let mut turns = steps.iter().cycle();
            let gains = steps.chunks(2).all(|pair| pair.iter().sum::<usize>() * 2 <= pair.len());
            while !pace.is_near() {
                for _ in 0..*turns.next().unwrap_or(&0) {
                    prop_assert!(!gains || !pace.is_too_far());
                    if !pace.is_too_far() {
                        pace.sent(bytes);
                    }
                }
                ran = ran.plus(Amount { ticks: 1, bytes });
                pace.ran(ran);
                prop_assert!(ran.ticks <= 2 * before + 2, "{} of {before}", ran.ticks);
            }
        }
    }
}
