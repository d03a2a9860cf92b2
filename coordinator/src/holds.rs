//! Read holds: who still needs which epoch, and so how far history may be forgotten.
//!
//! Pure, behind one lock. Invariant: `since` never passes a held epoch, and a hold is only given at or above `since`.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowstone_types::Epoch;
use parking_lot::Mutex;

/// History that is kept although nobody holds it, so that `AS OF` a moment ago works.
pub const RETENTION_MS: u64 = 1_000;

/// All holds of one coordinator; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Holds(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    since: Epoch,
    held: BTreeMap<Epoch, usize>,
}

/// Keeps one epoch readable until it is dropped.
#[derive(Debug)]
pub struct Hold {
    holds: Holds,
    epoch: Epoch,
}

impl Hold {
    /// The epoch held.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.holds.0.lock();
        if let Some(count) = inner.held.get_mut(&self.epoch) {
            *count -= 1;
            if *count == 0 {
                inner.held.remove(&self.epoch);
            }
        }
    }
}

impl Holds {
    /// The earliest readable epoch.
    #[must_use]
    pub fn since(&self) -> Epoch {
        self.0.lock().since
    }

    /// Holds `epoch`.
    ///
    /// # Errors
    /// The earliest readable epoch, if `epoch` is below it.
    pub fn hold(&self, epoch: Epoch) -> Result<Hold, Epoch> {
        let mut inner = self.0.lock();
        if epoch < inner.since {
            return Err(inner.since);
        }
        *inner.held.entry(epoch).or_default() += 1;
        Ok(Hold {
            holds: self.clone(),
            epoch,
        })
    }

    /// Moves `since` as far as holds and retention allow, given the newest observable epoch. Returns it if it moved.
    #[must_use]
    pub fn advance(&self, observable: Epoch) -> Option<Epoch> {
        let mut inner = self.0.lock();
        let retained = Epoch(observable.0.saturating_sub(RETENTION_MS));
        let held = inner.held.keys().next().copied().unwrap_or(Epoch::MAX);
        let since = retained.min(held);
        (since > inner.since).then(|| {
            inner.since = since;
            since
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_stops_at_the_oldest_hold_and_goes_on_when_it_is_dropped() {
        let holds = Holds::default();
        assert_eq!(holds.advance(Epoch(5_000)), Some(Epoch(4_000)));
        let first = holds.hold(Epoch(4_500)).unwrap();
        let second = holds.hold(Epoch(4_500)).unwrap();
        assert_eq!(holds.advance(Epoch(9_000)), Some(Epoch(4_500)));
        drop(first);
        assert_eq!(holds.advance(Epoch(9_000)), None);
        drop(second);
        assert_eq!(holds.advance(Epoch(9_000)), Some(Epoch(8_000)));
        assert_eq!(holds.hold(Epoch(7_999)).unwrap_err(), Epoch(8_000));
    }
}
