//! Clusters whose change a statement waits for: nobody else changes them.
//!
//! Must not know who waits, nor what is done about a change that takes too long. Called by `session`; the loop says when a cluster is ready.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use flowstone_types::ClusterId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// All changes that are waited for.
#[derive(Debug, Default)]
pub(crate) struct Resizes(Mutex<BTreeMap<ClusterId, Resizing>>);

/// A change of a cluster's threads that somebody waits for.
#[derive(Debug)]
struct Resizing {
    /// The number of the change: the cluster is ready when it is ready for this one or for a later one.
    change: u64,
    /// Told once when what is in it has caught up on its new threads.
    ready: Option<oneshot::Sender<()>>,
}

impl Resizes {
    /// Whether a change of the cluster is waited for.
    pub(crate) fn contains(&self, cluster: ClusterId) -> bool {
        self.0.lock().contains_key(&cluster)
    }

    /// Begins to wait for a change: what is returned is told when the cluster is ready. `None` if another change of it is waited for.
    pub(crate) fn begin(&self, cluster: ClusterId, change: u64) -> Option<oneshot::Receiver<()>> {
        match self.0.lock().entry(cluster) {
            Entry::Vacant(entry) => {
                let (told, ready) = oneshot::channel();
                entry.insert(Resizing {
                    change,
                    ready: Some(told),
                });
                Some(ready)
            }
            Entry::Occupied(_) => None,
        }
    }

    /// Tells who waits for it that a cluster is ready, as of a change.
    pub(crate) fn tell_ready(&self, cluster: ClusterId, change: u64) {
        let mut resizes = self.0.lock();
        if let Some(resizing) = resizes.get_mut(&cluster)
            && change >= resizing.change
            && let Some(ready) = resizing.ready.take()
        {
            // The statement may have been given up.
            let _ = ready.send(());
        }
    }

    /// Nobody waits any more.
    pub(crate) fn end(&self, cluster: ClusterId) {
        self.0.lock().remove(&cluster);
    }
}
