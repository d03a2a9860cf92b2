//! The subscriptions that go on, by the requests that feed them.
//!
//! Must not know what they send. Noted by `session`, for the system relations.

use std::collections::BTreeMap;

use flowstone_proto::message::RequestId;
use flowstone_types::{ClusterId, ObjectId};
use parking_lot::Mutex;

/// All subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(Mutex<BTreeMap<RequestId, Subscription>>);

/// A subscription.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    /// The session that reads it.
    pub(crate) process_id: i32,
    /// Where it runs.
    pub(crate) cluster: ClusterId,
    /// Milliseconds since the Unix epoch.
    pub(crate) created_at_ms: u64,
    /// What it reads.
    pub(crate) reads: Vec<ObjectId>,
}

impl Subscriptions {
    /// Notes one that begins.
    pub(crate) fn insert(&self, request: RequestId, subscription: Subscription) {
        self.0.lock().insert(request, subscription);
    }

    /// Notes that a request has ended, if it was a subscription's.
    pub(crate) fn remove(&self, request: RequestId) {
        self.0.lock().remove(&request);
    }

    /// All of them, with the requests that feed them.
    pub(crate) fn entries(&self) -> Vec<(RequestId, Subscription)> {
        let entries = self.0.lock();
        let entries = entries.iter();
        entries
            .map(|(request, subscription)| (*request, subscription.clone()))
            .collect()
    }
}
