//! Whether the coordinator goes on, and why it does not.
//!
//! Must not know what it takes to end it. Asked by whoever gets no answer, and by `client`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::error::Error;

/// Whether the coordinator goes on; clones know the same.
#[derive(Clone, Debug)]
pub(crate) struct Liveness {
    /// Why the process must end, once it must.
    failure: watch::Receiver<Option<String>>,
    stopping: Arc<AtomicBool>,
}

impl Liveness {
    /// `failure`: from the loop, which drops the sender last.
    pub(crate) fn new(failure: watch::Receiver<Option<String>>) -> Self {
        Self {
            failure,
            stopping: Arc::default(),
        }
    }

    /// Why nothing answers any more.
    pub(crate) fn gone(&self) -> Error {
        let reason = self.failure.borrow().clone();
        Error::Unavailable(reason.unwrap_or_else(|| "the server is shutting down".to_owned()))
    }

    /// Why it does not go on, if that is so.
    pub(crate) fn reason(&self) -> Option<String> {
        if let Some(failure) = self.failure.borrow().clone() {
            return Some(failure);
        }
        self.stopping
            .load(Ordering::SeqCst)
            .then(|| "shutting down".to_owned())
    }

    /// Resolves when it cannot go on: with the reason.
    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The loop ended in good order: there is no failure to come.
            Err(_) => std::future::pending().await,
        }
    }

    /// Notes that it is to end in good order. Returns whether that was so before.
    pub(crate) fn stop(&self) -> bool {
        self.stopping.swap(true, Ordering::SeqCst)
    }

    /// Resolves when the loop has ended.
    pub(crate) async fn ended(&self) {
        // The loop owns the sender and drops it last: only then are the files closed.
        let mut ended = self.failure.clone();
        while ended.changed().await.is_ok() {}
    }
}
