//! What the running node looks like, as plain data. Filled by the coordinator, shown by the system relations.

use std::collections::{BTreeMap, BTreeSet};

use flowstone_proto::message::{CollectionStatistics, SourceStatistics, SourceStatus};
use flowstone_types::{Epoch, ObjectId};

/// The state of the running node. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeState {
    /// The version, as `mz_version()` shows it.
    pub version: String,
    /// When the process started.
    pub boot_time_ms: u64,
    /// What time it is.
    pub now_ms: u64,
    /// States of sources and of the tables they feed.
    pub source_statuses: BTreeMap<ObjectId, StatusState>,
    /// Counters of sources and of the tables they feed.
    pub source_statistics: BTreeMap<ObjectId, SourceStatistics>,
    /// States of sinks.
    pub sink_statuses: BTreeMap<ObjectId, StatusState>,
    /// Counters of sinks.
    pub sink_statistics: BTreeMap<ObjectId, SinkStatistics>,
    /// Source tables whose snapshot is complete and visible.
    pub snapshot_committed: BTreeSet<ObjectId>,
    /// How long the last hydration of an object took, in milliseconds.
    pub hydration_ms: BTreeMap<ObjectId, u64>,
    /// Whether collections and dataflows have caught up with their inputs.
    pub hydrated: BTreeMap<ObjectId, bool>,
    /// Why views and indexes have failed, and when.
    pub dataflow_errors: BTreeMap<ObjectId, (String, u64)>,
    /// What collections and dataflows hold.
    pub collections: BTreeMap<ObjectId, CollectionStatistics>,
    /// The earliest readable epoch of each collection, and the first one that is not complete.
    pub frontiers: BTreeMap<ObjectId, (Epoch, Epoch)>,
    /// Who is connected.
    pub sessions: Vec<SessionState>,
    /// What is subscribed to.
    pub subscriptions: Vec<SubscriptionState>,
    /// Memory that the process has, in bytes, if the system says so.
    pub resident_bytes: Option<u64>,
    /// Bytes that it has allocated and not freed.
    pub allocated_bytes: u64,
}

/// Counters of a sink since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkStatistics {
    /// Messages that are committed.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The newest epoch all of whose changes are committed.
    pub committed_epoch: Option<Epoch>,
}

impl SinkStatistics {
    /// The first epoch of which there may be changes that are not committed; `None` before the first commit.
    #[must_use]
    pub fn frontier(&self) -> Option<Epoch> {
        self.committed_epoch.map(Epoch::next)
    }
}

/// The state of a source, a source table or a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusState {
    /// The state.
    pub status: SourceStatus,
    /// Since when.
    pub changed_at_ms: u64,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionState {
    /// Its identity.
    pub id: [u8; 16],
    /// What the client cancels it by.
    pub connection_id: u32,
    /// Its role.
    pub user: String,
    /// Its database.
    pub database: String,
    /// What the client calls itself.
    pub application_name: String,
    /// The client's address.
    pub client_address: Option<String>,
    /// Since when.
    pub connected_at_ms: u64,
    /// The statement that runs, or the last one; secrets redacted.
    pub query: String,
    /// When that statement started.
    pub query_started_at_ms: Option<u64>,
    /// Whether a statement is running.
    pub active: bool,
    /// Whether it is inside a transaction block.
    pub in_transaction: bool,
}

/// A subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionState {
    /// Its identity.
    pub id: String,
    /// The session.
    pub session: [u8; 16],
    /// The id of the cluster that it runs in.
    pub cluster: String,
    /// Since when.
    pub created_at_ms: u64,
    /// What it reads.
    pub objects: Vec<ObjectId>,
}
