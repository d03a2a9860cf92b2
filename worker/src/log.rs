//! The local log, for the parts that share it.
//!
//! Owns that nothing waits for the disk on a thread of the runtime. Must not know what is in it. Called by the feed, which writes epochs and cuts the
//! log, and by the keep, which notes commits.

use std::sync::Arc;

use flowstone_storage::LogStore;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

type Result<T> = std::result::Result<T, flowstone_storage::Error>;

/// The local log. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct SharedLog(Arc<Mutex<LogStore>>);

impl SharedLog {
    pub(crate) fn new(log: LogStore) -> Self {
        Self(Arc::new(Mutex::new(log)))
    }

    /// Begins `work`, which waits for what runs already.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut LogStore) -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let log = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&mut log.lock()))
    }

    /// Does `work`.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut LogStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        finish(self.start(work)).await
    }
}

/// What work that was started has come to.
async fn finish<T>(work: JoinHandle<Result<T>>) -> Result<T> {
    work.await
        .map_err(|_| flowstone_storage::Error::Invariant("the log thread panicked".to_owned()))?
}
