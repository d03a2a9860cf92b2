//! Getting segments to disk beside a task that reads an upstream and has to go on answering it.
//!
//! Owns the writing that is going on, and the pause after one that failed. Must not know when it is time to write. Called by the task of a source.

use std::sync::Arc;
use std::time::Duration;

use flowstone_types::ObjectId;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::segment::Closed;
use super::spill::{SpillDirectory, SpillFile};
use crate::Error;

/// Pause before a disk that refused is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A segment that should go to disk.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) table: ObjectId,
    pub(super) number: u64,
    pub(super) closed: Arc<Closed>,
}

impl Candidate {
    pub(super) fn new(table: ObjectId, number: u64, closed: Arc<Closed>) -> Self {
        Self {
            table,
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
    running: Option<JoinHandle<Written>>,
    retry_at: Option<Instant>,
}

impl Spiller {
    pub(crate) fn new(directory: Arc<SpillDirectory>) -> Self {
        Self {
            directory,
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
        let write = move || write(&directory, candidates);
        self.running = Some(tokio::task::spawn_blocking(write));
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

/// Writes until something fails.
fn write(directory: &SpillDirectory, candidates: Vec<Candidate>) -> Written {
    let mut written = Written {
        files: Vec::with_capacity(candidates.len()),
        failure: None,
    };
    for candidate in candidates {
        match directory.write(&candidate.closed) {
            Ok(file) => written.files.push((candidate, file)),
            Err(error) => {
                written.failure = Some(error);
                break;
            }
        }
    }
    written
}
