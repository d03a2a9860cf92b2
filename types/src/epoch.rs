//! Logical time: one totally ordered clock for all inputs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Logical time of one consistent cut of all inputs: milliseconds since the Unix epoch, strictly increasing, issued by the coordinator's oracle.
///
/// SQL calls it `mz_timestamp`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The smallest epoch. No change ever carries it.
    pub const MIN: Self = Self(0);
    /// The largest epoch: a collection complete up to it will never change again.
    pub const MAX: Self = Self(u64::MAX);

    /// The epoch after this one. Saturates at [`Epoch::MAX`].
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The epoch before this one. Saturates at [`Epoch::MIN`].
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// All updates with `epoch < frontier` are final.
///
/// The order of frontiers is the order of their epochs; a frontier never moves back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Frontier(pub Epoch);

impl Frontier {
    /// The frontier of a collection that will never change again.
    pub const COMPLETE: Self = Self(Epoch::MAX);

    /// The frontier after every update of `epoch` has become final.
    #[must_use]
    pub const fn after(epoch: Epoch) -> Self {
        Self(epoch.next())
    }

    /// Whether every update of `epoch` is final.
    #[must_use]
    pub fn passed(self, epoch: Epoch) -> bool {
        epoch < self.0
    }
}
