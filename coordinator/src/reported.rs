//! What the worker says of itself: what it reported, and what it answers at once.
//!
//! Must not know who asks. Written by the loop; read by `session`, by `planning`, and for the system relations.
//!
//! Invariant. The lock is never held across an await.

use std::collections::{BTreeMap, BTreeSet};

use flowstone_proto::local::Direct;
use flowstone_proto::message::{CollectionStatistics, SourceStatistics, SourceStatus};
use flowstone_sql::system::SinkStatistics;
use flowstone_types::ObjectId;
use parking_lot::Mutex;

/// What the worker says.
#[derive(Debug)]
pub(crate) struct Reported {
    pub(crate) runtime: Mutex<Runtime>,
    pub(crate) direct: Direct,
}

/// What the worker reported, for the system relations.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    /// Source tables whose snapshot is in an observable epoch.
    pub(crate) visible: BTreeSet<ObjectId>,
    pub(crate) hydrated: BTreeSet<ObjectId>,
    /// Sources that are held up: they cannot give what is bound.
    pub(crate) held: BTreeSet<ObjectId>,
    /// Why views and indexes have failed, and when.
    pub(crate) dataflow_errors: BTreeMap<ObjectId, (String, u64)>,
    /// When a dataflow was created, and how long it then took to catch up: milliseconds.
    pub(crate) created_ms: BTreeMap<ObjectId, u64>,
    pub(crate) hydration_ms: BTreeMap<ObjectId, u64>,
    /// Status and since when: milliseconds since the Unix epoch.
    pub(crate) statuses: BTreeMap<ObjectId, (SourceStatus, u64)>,
    pub(crate) statistics: BTreeMap<ObjectId, SourceStatistics>,
    /// Status of sinks and since when, as of sources.
    pub(crate) sink_statuses: BTreeMap<ObjectId, (SourceStatus, u64)>,
    pub(crate) sink_statistics: BTreeMap<ObjectId, SinkStatistics>,
    /// What collections and indexes hold in memory.
    pub(crate) collections: BTreeMap<ObjectId, CollectionStatistics>,
}

impl Runtime {
    /// Forgets a dropped object.
    pub(crate) fn forget(&mut self, id: ObjectId) {
        self.visible.remove(&id);
        self.hydrated.remove(&id);
        self.held.remove(&id);
        self.dataflow_errors.remove(&id);
        self.created_ms.remove(&id);
        self.hydration_ms.remove(&id);
        self.statuses.remove(&id);
        self.statistics.remove(&id);
        self.sink_statuses.remove(&id);
        self.sink_statistics.remove(&id);
        self.collections.remove(&id);
    }
}

impl Reported {
    pub(crate) fn new(runtime: Runtime, direct: Direct) -> Self {
        Self {
            runtime: Mutex::new(runtime),
            direct,
        }
    }

    /// Whether a view or an index has been computed: who reads it does not wait for that.
    pub(crate) fn is_hydrated(&self, id: ObjectId) -> bool {
        match self.direct.get() {
            // It knows first, and also of what is being computed again.
            Some(direct) => direct.is_readable(id),
            None => self.runtime.lock().hydrated.contains(&id),
        }
    }
}
