//! Numbers that are given once in the life of a process: of requests, writes, freezes, and changes of the catalog.

use std::sync::atomic::{AtomicU64, Ordering};

use flowstone_proto::message::RequestId;

use crate::epochs::{FreezeId, WriteId};

/// The next number.
#[derive(Debug)]
pub(crate) struct Numbers(AtomicU64);

impl Default for Numbers {
    fn default() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Numbers {
    pub(crate) fn next_request(&self) -> RequestId {
        RequestId(self.0.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn next_write(&self) -> WriteId {
        WriteId(self.0.fetch_add(1, Ordering::Relaxed))
    }

    /// The number of a change of the catalog, for the worker to name it. Changes are numbered in their turn: who comes later has the higher number.
    pub(crate) fn next_change(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_freeze(&self) -> FreezeId {
        FreezeId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
