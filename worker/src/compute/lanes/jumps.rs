//! Epochs that were passed over: changes of several became one tick, or entered in pieces.
//!
//! Owns how to keep beside them, and at which epochs lanes must not join what comes before with what comes after. Must not know who reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use flowstone_types::Epoch;
use parking_lot::Mutex;

/// Epochs from `first` on and before `last` at which something never was what it would have been: all of it came at `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Jump {
    pub(crate) first: Epoch,
    pub(crate) last: Epoch,
}

impl Jump {
    pub(crate) fn is_over(&self, epoch: Epoch) -> bool {
        self.first <= epoch && epoch < self.last
    }
}

/// The newest epoch up to `epoch` that was not passed over.
pub(crate) fn before<'a>(jumps: impl Iterator<Item = &'a Jump> + Clone, epoch: Epoch) -> Epoch {
    let mut at = epoch;
    // A jump may begin within an earlier one.
    while let Some(jump) = jumps.clone().find(|jump| jump.is_over(at)) {
        at = jump.first.previous();
    }
    at
}

/// The first epoch from `epoch` on that was not passed over.
pub(crate) fn after<'a>(jumps: impl Iterator<Item = &'a Jump> + Clone, epoch: Epoch) -> Epoch {
    let mut at = epoch;
    while let Some(jump) = jumps.clone().find(|jump| jump.is_over(at)) {
        at = jump.last;
    }
    at
}

/// Epochs at which something is read or stored: changes before and after one do not become one tick.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stops(Arc<Mutex<BTreeSet<Epoch>>>);

impl Stops {
    /// Each may cost an evaluation more: who reads when there are too many may have to try again.
    const MAX: usize = 8;

    /// For somebody who reads.
    pub(crate) fn add(&self, epoch: Epoch) {
        let mut stops = self.0.lock();
        if stops.len() < Self::MAX {
            stops.insert(epoch);
        }
    }

    /// For a commit, of which there is one at a time.
    pub(crate) fn add_for_commit(&self, epoch: Epoch) {
        self.0.lock().insert(epoch);
    }

    /// Whether there is one from `first` on and before `last`.
    pub(crate) fn between(&self, first: Epoch, last: Epoch) -> bool {
        first < last && self.0.lock().range(first..last).next().is_some()
    }

    /// Forgets those that all lanes have come to.
    pub(crate) fn forget(&self, through: Epoch) {
        self.0.lock().retain(|epoch| *epoch > through);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn jump(first: u64, last: u64) -> Jump {
        Jump {
            first: Epoch(first),
            last: Epoch(last),
        }
    }

    #[test]
    fn nobody_is_within_a_jump_whichever_way_they_go() {
        let jumps = [jump(11, 15), jump(13, 18), jump(20, 22)];
        for (epoch, earlier, later) in [
            (10, 10, 10),
            (11, 10, 18),
            (15, 10, 18),
            (17, 10, 18),
            (18, 18, 18),
            (21, 19, 22),
            (22, 22, 22),
        ] {
            assert_eq!(before(jumps.iter(), Epoch(epoch)), Epoch(earlier));
            assert_eq!(after(jumps.iter(), Epoch(epoch)), Epoch(later));
        }
    }

    #[test]
    fn a_commit_always_gets_its_stop() {
        let stops = Stops::default();
        for epoch in 1..=20 {
            stops.add(Epoch(epoch));
        }
        assert!(!stops.between(Epoch(9), Epoch(50)));
        stops.add_for_commit(Epoch(30));
        assert!(stops.between(Epoch(9), Epoch(50)));
        assert!(
            !stops.between(Epoch(9), Epoch(30)),
            "it is the end of a tick"
        );
        stops.forget(Epoch(30));
        assert!(!stops.between(Epoch(0), Epoch(50)));
    }
}
