//! Getting segments to disk, and what is not needed any more off it, beside tasks that must not wait for a disk.
//!
//! Owns the writing that is going on, the pause after one that failed, and the removing. Must not know when it is time to write. Called by the tasks of a
//! source.
//!
//! Invariants. Everything that is being written is in the tracker that the [`Spiller`] was given: whoever stops the source waits for it. It ends after the
//! file that is being written once the spiller is gone.

use std::sync::Arc;
use std::time::Duration;

use flowstone_types::ObjectId;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::segment::Closed;
use super::spill::{SpillDirectory, SpillFile};
use crate::Error;

/// Pause before a disk that refused is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A segment that should go to disk.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) table: ObjectId,
    /// Which of the table's logs it is from, where it has several: [`super::TableTransactions::numbered`].
    pub(crate) log: u64,
    pub(super) number: u64,
    pub(super) closed: Arc<Closed>,
}

impl Candidate {
    pub(super) fn new(table: ObjectId, log: u64, number: u64, closed: Arc<Closed>) -> Self {
        Self {
            table,
            log,
            number,
            closed,
        }
    }
}

/// What was written, and why not all of it if so.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) files: Vec<(Candidate, SpillFile)>,
    pub(crate) failure: Option<Error>,
}

/// What became of an attempt.
#[derive(Debug)]
pub(crate) enum Event {
    Written(Written),
    /// The pause after one that failed is over.
    Retry,
}

/// The writing of one source.
#[derive(Debug)]
pub(crate) struct Spiller {
    directory: Arc<SpillDirectory>,
    /// Has what is being written, also once this is gone.
    tasks: TaskTracker,
    /// Nobody is there for what is being written.
    ended: CancellationToken,
    running: Option<JoinHandle<Written>>,
    retry_at: Option<Instant>,
}

impl Drop for Spiller {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Spiller {
    /// `tasks` are those of the source, which `cancel` ends.
    pub(crate) fn new(
        directory: Arc<SpillDirectory>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        Self {
            directory,
            tasks: tasks.clone(),
            ended: cancel.child_token(),
            running: None,
            retry_at: None,
        }
    }

    /// Whether nothing is being written or waits to be.
    pub(crate) const fn is_idle(&self) -> bool {
        self.running.is_none() && self.retry_at.is_none()
    }

    /// Begins to write. It is idle. What is written when it is dropped is removed.
    pub(crate) fn start(&mut self, candidates: Vec<Candidate>) {
        let directory = Arc::clone(&self.directory);
        let ended = self.ended.clone();
        let write = move || write(&directory, candidates, &ended);
        self.running = Some(self.tasks.spawn_blocking(write));
    }

    /// Waits for what happens next; for ever while it is idle.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn event(&mut self) -> Event {
        if let Some(running) = &mut self.running {
            let written = running.await.unwrap_or_else(|error| Written {
                files: Vec::new(),
                failure: Some(Error::Invariant(error.to_string())),
            });
            self.running = None;
            self.retry_at = written.failure.is_some().then(|| Instant::now() + RETRY);
            return Event::Written(written);
        }
        match self.retry_at {
            Some(retry_at) => {
                tokio::time::sleep_until(retry_at).await;
                self.retry_at = None;
                Event::Retry
            }
            None => std::future::pending().await,
        }
    }
}

/// Removes files as nothing refers to them any more, until the source is stopped, and then once more.
pub(crate) async fn remove_unneeded(directory: Arc<SpillDirectory>, cancel: CancellationToken) {
    loop {
        let last = tokio::select! {
            () = cancel.cancelled() => true,
            () = directory.has_unneeded() => false,
        };
        let directory = Arc::clone(&directory);
        let removing = tokio::task::spawn_blocking(move || directory.remove_unneeded());
        if let Err(error) = removing.await {
            tracing::error!(%error, "files that are not needed any more could not be removed");
        }
        if last {
            return;
        }
    }
}

/// Writes until something fails, or nobody is there for it.
fn write(
    directory: &SpillDirectory,
    candidates: Vec<Candidate>,
    ended: &CancellationToken,
) -> Written {
    let mut written = Written {
        files: Vec::with_capacity(candidates.len()),
        failure: None,
    };
    for candidate in candidates {
        if ended.is_cancelled() {
            break;
        }
        match directory.write(&candidate.closed) {
            Ok(file) => written.files.push((candidate, file)),
            Err(error) => {
                written.failure = Some(error);
                break;
            }
        }
    }
    if ended.is_cancelled() {
        written.files.clear();
    }
    written
}
