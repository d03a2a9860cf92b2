//! The timeline: which epochs can be read, and from which on reads must be.
//!
//! Owns what the loop tells everybody of time, and the epoch that a read is at or above. Must not know how epochs are made: the oracle and the epoch loop do. Called by
//! `session` and `client`; the loop publishes.
//!
//! Invariant. `observable` is set right before the worker is told that the epoch may be observed: nobody sees an epoch that others are not held to, and a read at
//! or above it waits in the worker for no more than that.

use std::collections::BTreeMap;

use flowstone_sql::system::SinkStatistics;
use flowstone_types::{Epoch, ObjectId};
use tokio::sync::watch;

use crate::holds::Holds;

/// What the loop tells everybody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// The newest observable epoch.
    pub(crate) observable: Epoch,
    /// The newest durable commit point.
    pub(crate) commit_point: Epoch,
    /// The newest epoch that is known to have nothing that is not in the commit point.
    pub(crate) stored_through: Epoch,
    /// Every read is at or above this epoch: it covers what was seen before a restart.
    pub(crate) read_floor: Epoch,
    /// Epochs that became observable since the start.
    pub(crate) epochs_total: u64,
    /// Counts changes of `Runtime::visible`.
    pub(crate) visible_version: u64,
    /// Counts views and indexes that have been hydrated, or have failed.
    pub(crate) settled_version: u64,
}

impl Published {
    /// A sink that has written all of the commit point has written all that there is through [`Published::stored_through`]: it is not behind because nothing
    /// changes.
    pub(crate) fn pass_sinks(&self, sinks: &mut BTreeMap<ObjectId, SinkStatistics>) {
        for written in sinks.values_mut() {
            if written.committed_epoch >= Some(self.commit_point) {
                written.committed_epoch = written.committed_epoch.max(Some(self.stored_through));
            }
        }
    }
}

/// What is known of time.
#[derive(Debug)]
pub(crate) struct Timeline {
    pub(crate) published: watch::Receiver<Published>,
    pub(crate) holds: Holds,
}

impl Timeline {
    pub(crate) const fn new(published: watch::Receiver<Published>, holds: Holds) -> Self {
        Self { published, holds }
    }

    /// The epoch that a strictly serializable read is at or above: everything acknowledged or served so far is at or below it.
    pub(crate) fn read_epoch(&self) -> Epoch {
        let published = self.published.borrow();
        published.observable.max(published.read_floor)
    }

    /// Whether what was seen before a restart has yet to be there again.
    pub(crate) fn is_replaying(&self) -> bool {
        let published = self.published.borrow();
        published.observable < published.read_floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_lacks_nothing_of_the_commit_point_is_not_behind_because_nothing_changes() {
        let published = Published {
            commit_point: Epoch(5),
            stored_through: Epoch(900),
            ..Published::default()
        };
        let through = |committed_epoch: Option<Epoch>| {
            let written = SinkStatistics {
                committed_epoch,
                ..SinkStatistics::default()
            };
            let mut sinks = BTreeMap::from([(ObjectId::User(1), written)]);
            published.pass_sinks(&mut sinks);
            sinks[&ObjectId::User(1)].committed_epoch
        };
        assert_eq!(through(Some(Epoch(5))), Some(Epoch(900)));
        assert_eq!(through(Some(Epoch(4))), Some(Epoch(4)));
        assert_eq!(through(Some(Epoch(901))), Some(Epoch(901)));
        assert_eq!(through(None), None);
    }
}
