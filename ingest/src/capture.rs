//! What the tasks of one source share, whatever kind it is of.
//!
//! Owns the lock around the state, who is told of what, how a take waits and reads from disk, that what is in error is on disk at its end, and the end of the
//! source. Must not know how changes are received or what a position is. Called by the connectors, which implement [`State`], and by [`crate::taking`].
//!
//! Invariants. A take has ended once the failures that it knows of and the rows that are in error after it are on disk. No file is read, written or removed
//! with the lock held. What is read from disk because a take ends in it is in memory when the take cuts, as it is by then: a segment that changed while it was
//! read is read again, and none goes back to disk in between.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flowstone_proto::message::{Failure as Failed, SourceBinding, SourceStatistics, SourceStatus};
use flowstone_types::{Clock, ObjectId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::binding::{Binding, Position};
use crate::error_files::{ErrorFiles, Unsaved};
use crate::logs::{Logs, Straddled, Taken};
use crate::manifest_file::{ManifestFile, SourceManifest};
use crate::table_log::{Failure, Log};
use crate::transactions::{BufferLimits, Closed, SpillDirectory, Spilled};
use crate::{Error, SourceEvent};

/// How often counters are reported while they move.
pub(crate) const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);
/// Pause before a disk that refused is asked again.
const DISK_RETRY: Duration = Duration::from_millis(500);

/// What came of trying to take a binding.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It is not there yet.
    Lacking,
    /// This has to be read from disk before.
    Straddling(Vec<Straddled>),
    Taken(Taken),
}

/// What changes while a source of some kind runs.
pub(crate) trait State: fmt::Debug + Default + Send + 'static {
    type Position: Position;
    type Log: Log<Position = Self::Position>;
    type Manifest: SourceManifest;
    /// What else the tasks of this kind of source share.
    type Own: fmt::Debug + Send + Sync + 'static;

    fn logs(&self) -> &Logs<Self::Log>;

    fn logs_mut(&mut self) -> &mut Logs<Self::Log>;

    /// Why the source as a whole cannot go on.
    fn fatal(&self) -> Option<&Failed>;

    /// Whether everything up to a position was received.
    fn has_received(&self, position: &Self::Position) -> bool;

    /// A take waits for this.
    fn wait_for(&mut self, binding: &Binding<'_, Self::Position>);

    /// Everything up to a position was taken.
    fn set_taken(&mut self, position: &Self::Position);

    /// Whether something that a binding names is not there yet.
    fn lacks(&self, binding: &Binding<'_, Self::Position>) -> bool {
        !self.has_received(binding.position) || self.logs().lacks(binding.snapshots)
    }

    /// Whether a binding can be taken, or never will be; it is waited for otherwise.
    fn is_ready(&mut self, binding: &Binding<'_, Self::Position>) -> bool {
        let ready = self.fatal().is_some() || !self.lacks(binding);
        if !ready {
            self.wait_for(binding);
        }
        ready
    }

    /// Takes what a binding names, or nothing if it is not there yet.
    fn try_take(&mut self, binding: &Binding<'_, Self::Position>) -> Result<Attempt, Error> {
        if self.lacks(binding) {
            if let Some(fatal) = self.fatal() {
                return Err(Error::Failed {
                    message: fatal.message.clone(),
                    hint: fatal.hint.clone(),
                });
            }
            self.wait_for(binding);
            return Ok(Attempt::Lacking);
        }
        let straddling = self.logs().straddling(binding);
        if !straddling.is_empty() {
            return Ok(Attempt::Straddling(straddling));
        }
        let taken = self.logs_mut().take(binding)?;
        self.set_taken(binding.position);
        Ok(Attempt::Taken(taken))
    }
}

/// What the tasks of one source share.
#[derive(Debug)]
pub(crate) struct Shared<S: State> {
    pub(crate) id: ObjectId,
    pub(crate) own: S::Own,
    pub(crate) clock: Arc<dyn Clock>,
    events: mpsc::Sender<SourceEvent>,
    pub(crate) cancel: CancellationToken,
    state: Mutex<S>,
    pub(crate) spill: Arc<SpillDirectory>,
    /// Segments that are being written to disk.
    pub(crate) writing: TaskTracker,
    pub(crate) manifest: ManifestFile<S::Manifest>,
    error_files: ErrorFiles,
    /// Counts what a waiting take cares about: positions, first contents, the end.
    changed: watch::Sender<u64>,
    /// Something was taken or acknowledged, or a take was given up.
    pub(crate) moved: Notify,
    /// Tables were added, or it is settled where the others are.
    pub(crate) added: Notify,
}

/// What was read from disk for a take, which keeps it in memory for as long as the take goes on. There is one take at a time.
#[derive(Debug)]
struct Pins<'a, S: State>(&'a Shared<S>);

impl<S: State> Drop for Pins<'_, S> {
    fn drop(&mut self) {
        self.0.lock().logs_mut().unpin();
        // It may be what there was no room for.
        self.0.moved.notify_one();
    }
}

impl<S: State> Shared<S> {
    /// Reads what the source has on disk. Blocks.
    ///
    /// # Errors
    /// A file of its state cannot be used.
    pub(crate) fn open(
        id: ObjectId,
        own: S::Own,
        clock: Arc<dyn Clock>,
        events: mpsc::Sender<SourceEvent>,
        state_dir: &Path,
        limits: BufferLimits,
    ) -> Result<Self, Error> {
        let manifest: ManifestFile<S::Manifest> =
            ManifestFile::open(state_dir.join(format!("{id}-manifest.json")))?;
        let error_files = ErrorFiles::new(state_dir, id);
        let (errors, row_errors) = error_files.read(manifest.get().as_ref())?;
        let mut state = S::default();
        *state.logs_mut() = Logs::new(limits, errors, row_errors);
        Ok(Self {
            id,
            own,
            clock,
            events,
            cancel: CancellationToken::new(),
            state: Mutex::new(state),
            spill: Arc::new(SpillDirectory::new(state_dir, id)),
            writing: TaskTracker::new(),
            manifest,
            error_files,
            changed: watch::channel(0).0,
            moved: Notify::new(),
            added: Notify::new(),
        })
    }

    /// A source of which something was bound before has a manifest.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it does not.
    pub(crate) fn require_manifest(&self) -> Result<(), Error> {
        if self.manifest.get().is_some() {
            return Ok(());
        }
        Err(Error::Damaged {
            path: self.manifest.path().to_owned(),
            reason: "it is missing".to_owned(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes waiting takes and the reporter.
    pub(crate) fn bump(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Makes durable which tables and rows are in error after a take, before what it gave can get into a commit point. A disk that refuses is waited for.
    ///
    /// The file of rows in error comes first, then the manifest notes it: a crash in between leaves a file that is one ahead, never one that is behind. The
    /// note costs two more syncs, each time that rows get into error or out of it, which is rare; a note that is made later or not at all would leave a
    /// commit point whose rows in error nobody would miss.
    pub(crate) async fn save_errors(&self) -> Result<(), Error> {
        loop {
            let Some(unsaved) = self.lock().logs().unsaved(S::Manifest::FILE_VERSION) else {
                return Ok(());
            };
            let recorded = unsaved.errors_recorded;
            let saves = unsaved.row_errors.as_ref().map(|file| file.saves);
            let error = match self.write_errors(unsaved).await {
                Ok(()) => {
                    self.lock().logs_mut().set_saved(recorded, saves);
                    return Ok(());
                }
                Err(Error::Stopped) => return Err(Error::Stopped),
                Err(error) => error,
            };
            tracing::error!(source = %self.id, %error, "tables and rows in error could not be made durable; trying again");
            tokio::select! {
                () = self.cancel.cancelled() => return Err(Error::Stopped),
                () = tokio::time::sleep(DISK_RETRY) => {}
            }
        }
    }

    async fn write_errors(&self, unsaved: Unsaved) -> Result<(), Error> {
        let saves = unsaved.row_errors.as_ref().map(|file| file.saves);
        let files = self.error_files.clone();
        let write = move || files.write(&unsaved);
        let note = |manifest: Option<S::Manifest>| {
            let mut manifest = manifest?;
            manifest.note_saves(saves?);
            Some(manifest)
        };
        self.manifest.change_after(write, note).await
    }

    /// Sends an event, waiting for room.
    pub(crate) async fn send(&self, event: SourceEvent) {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {}
            sent = self.events.send(event) => {
                if sent.is_err() {
                    self.cancel.cancel();
                }
            }
        }
    }

    pub(crate) async fn status(&self, object: ObjectId, status: SourceStatus) {
        self.send(SourceEvent::Status { object, status }).await;
    }

    /// Reports tables that failed.
    pub(crate) async fn report_failures(&self, failures: Vec<(ObjectId, Failure)>) {
        for (object, failure) in failures {
            tracing::warn!(source = %self.id, table = %object, error = failure.message, "source table failed");
            let status = failed(&failure);
            self.status(object, status).await;
        }
    }

    /// Reports what every table is, after a start.
    pub(crate) async fn report_tables(&self) {
        let statuses: Vec<(ObjectId, SourceStatus)> = {
            let state = self.lock();
            let status = |log: &S::Log| match log.account().failure() {
                Some(failure) => failed(failure),
                None if log.is_pending() => SourceStatus::Starting,
                None => SourceStatus::Running,
            };
            let tables = state.logs().tables().iter();
            tables.map(|log| (log.table().id, status(log))).collect()
        };
        for (object, status) in statuses {
            self.status(object, status).await;
        }
    }

    /// Sends those counters that are not as they were reported.
    pub(crate) async fn report_statistics(
        &self,
        all: Vec<SourceStatistics>,
        reported: &mut HashMap<ObjectId, SourceStatistics>,
    ) {
        for statistics in all {
            let Some(object) = statistics.object else {
                continue;
            };
            if reported.get(&object) != Some(&statistics) {
                reported.insert(object, statistics.clone());
                self.send(SourceEvent::Statistics(statistics)).await;
            }
        }
    }

    /// Takes what a binding names, as [`crate::SourceHandle::take_pieces`] says.
    pub(crate) async fn take(&self, binding: &Binding<'_, S::Position>) -> Result<Taken, Error> {
        let mut changed = self.subscribe();
        let _pins = Pins(self);
        loop {
            let attempt = self.lock().try_take(binding);
            self.moved.notify_one();
            match attempt? {
                Attempt::Taken(taken) => {
                    // More may be offered now.
                    self.bump();
                    return Ok(taken);
                }
                Attempt::Straddling(segments) => {
                    for straddled in segments {
                        let loaded = self.load(&straddled.segment.spilled).await?;
                        self.lock().logs_mut().set_loaded(&straddled, loaded);
                    }
                }
                Attempt::Lacking => tokio::select! {
                    () = self.cancel.cancelled() => return Err(Error::Stopped),
                    result = changed.changed() => result.map_err(|_| Error::Stopped)?,
                },
            }
        }
    }

    /// Reads changes from disk. A disk that refuses is waited for.
    pub(crate) async fn load(&self, spilled: &Spilled) -> Result<Closed, Error> {
        loop {
            match spilled.load().await {
                Err(error) if error.retryable() => {
                    tracing::error!(source = %self.id, %error, "changes could not be read from disk; trying again");
                }
                outcome => return outcome,
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Err(Error::Stopped),
                () = tokio::time::sleep(DISK_RETRY) => {}
            }
        }
    }

    /// Waits until [`Shared::take`] would not wait.
    pub(crate) async fn ready(&self, binding: &SourceBinding) {
        // Why it cannot be taken, the take says.
        let Ok(binding) = Binding::of(binding) else {
            return;
        };
        let mut changed = self.subscribe();
        loop {
            if self.lock().is_ready(&binding) {
                return;
            }
            self.moved.notify_one();
            tokio::select! {
                () = self.cancel.cancelled() => return,
                result = changed.changed() => if result.is_err() { return },
            }
        }
    }
}

/// The status of a table that cannot go on.
fn failed(failure: &Failure) -> SourceStatus {
    SourceStatus::Failed {
        error: failure.message.clone(),
        hint: Some("Drop the table and add it again.".to_owned()),
    }
}

/// Ends a source: its tasks, then what is being written, then `last`, which may block, and then what waits on disk.
pub(crate) async fn stop<S: State>(
    shared: Arc<Shared<S>>,
    tasks: Vec<JoinHandle<()>>,
    last: impl FnOnce() + Send + 'static,
) {
    shared.cancel.cancel();
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "source task failed");
        }
    }
    shared.writing.close();
    shared.writing.wait().await;
    // Whoever reads pieces of a take writes which rows are in error at its end. That may come now, or later, when the files of a dropped source are gone.
    shared.manifest.close().await;
    // What nobody has taken goes now, unless pieces of a take are still there, which share it.
    let ending = tokio::task::spawn_blocking(move || {
        last();
        let directory = Arc::clone(&shared.spill);
        drop(shared);
        directory.remove_unneeded();
    });
    if let Err(error) = ending.await {
        tracing::error!(%error, "changes that wait on disk could not be removed");
    }
}

#[cfg(test)]
mod tests;
