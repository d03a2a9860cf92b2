//! When a statement must end early: because its client asks for it, or because it has taken too long.
//!
//! Must not know what the statement does. Called by `session` and `planning`.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::notices::{Notice, Notices};

/// When a statement must end early.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Changes when the client asks to cancel.
    pub(crate) cancelled: watch::Receiver<u64>,
    /// `statement_timeout` of the statement that runs: a stream that outlives its statement, as a cursor's does, ends with the one that reads it.
    pub(crate) deadline: Arc<Mutex<Option<Instant>>>,
    /// Where it says what it waits for.
    pub(crate) notices: Notices,
}

impl Limits {
    /// Runs `work` unless it is cancelled or takes too long.
    ///
    /// Dropping `work` in the middle must be all right: everything it holds is released by guards.
    pub(crate) async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut cancelled = self.cancelled.clone();
        let deadline = *self.deadline.lock();
        tokio::select! {
            biased;
            Ok(()) = cancelled.changed() => Err(Error::Cancelled),
            () = async { match deadline { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => Err(Error::Timeout),
            result = work => result,
        }
    }

    /// The same for `work` that may wait for something, which `what` can tell: see [`Notices::while_waiting`].
    pub(crate) async fn run_telling<T>(
        &self,
        what: impl Fn() -> Vec<Notice>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.run(self.notices.while_waiting(what, work)).await
    }
}
