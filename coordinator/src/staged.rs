//! Writes that the worker has evaluated and that wait for their transaction or their `COPY` to end.
//!
//! Owns when such a write is discarded. Must not know transactions. Called by `session`, and kept by `outcome` while a client sends rows.
//!
//! Invariant. Staged writes of a transaction that does not commit are discarded in the worker, however it ends.

use std::sync::Arc;

use flowstone_proto::message::{Command, RequestId, Staged};
use flowstone_types::ObjectId;
use tokio::sync::mpsc::error::TrySendError;

use crate::memory::{Held, MemoryError};
use crate::worker::Worker;

/// A write that the worker has evaluated and keeps. Dropping it discards it there, unless its epoch was asked for.
#[derive(Debug)]
pub(crate) struct StagedWrite {
    worker: Arc<Worker>,
    request: Option<RequestId>,
    /// The table it changes.
    pub(crate) table: ObjectId,
    /// What the table was called when it was written to, for messages.
    pub(crate) name: String,
    /// Rows affected by each operation.
    pub(crate) counts: Vec<u64>,
    /// What its rows take in the worker.
    held: Held,
}

impl StagedWrite {
    pub(crate) const fn new(
        worker: Arc<Worker>,
        request: RequestId,
        table: ObjectId,
        name: String,
        held: Held,
    ) -> Self {
        Self {
            worker,
            request: Some(request),
            table,
            name,
            counts: Vec::new(),
            held,
        }
    }

    /// Notes what the worker made of it.
    ///
    /// # Errors
    /// The session may not hold that much.
    pub(crate) fn evaluated(&mut self, staged: Staged) -> Result<(), MemoryError> {
        self.counts = staged.affected;
        self.held
            .resize(usize::try_from(staged.bytes).unwrap_or(usize::MAX))
    }

    /// Memory that its rows take in the worker.
    pub(crate) const fn bytes(&self) -> usize {
        self.held.bytes()
    }

    /// Rows affected altogether.
    pub(crate) fn rows(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Hands the write over to an epoch.
    pub(crate) const fn release(&mut self) -> Option<RequestId> {
        self.request.take()
    }
}

impl Drop for StagedWrite {
    fn drop(&mut self) {
        let Some(write) = self.request.take() else {
            return;
        };
        // If it was not evaluated yet, nobody answers any more.
        self.worker.waiters.lock().writes.remove(&write);
        match self
            .worker
            .commands
            .try_send(Command::DiscardWrite { write })
        {
            Ok(()) => {}
            Err(TrySendError::Full(command)) => {
                let worker = Arc::clone(&self.worker);
                // The worker is behind: its rows must go all the same.
                tokio::spawn(async move { drop(worker.send(command).await) });
            }
            Err(TrySendError::Closed(_)) => {
                tracing::debug!("a staged write went with the worker");
            }
        }
    }
}
