//! The durable memory of a source: where it started, what is staged, how its tables were published, and how often rows in error were saved beside it.
//!
//! Owns the manifest file and the order of its changes, with those of the files whose state it notes. Must not know what the tables hold or how they are read.
//! Called by the tasks of the source.
//!
//! Invariants. Changes happen one after another; each is durable before anyone sees it. A change that was begun is finished, even if the task that
//! asked for it is cancelled: until then no other change starts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use flowstone_types::ObjectId;
use serde::{Deserialize, Serialize};

use super::snapshot::Staged;
use crate::{Error, state_file};

/// What was staged for one table and is not known to be in a commit point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ManifestTable {
    pub(crate) table: ObjectId,
    /// Where its snapshot was taken.
    pub(crate) position: u64,
    pub(crate) content: Staged,
}

/// Written when the first snapshot is on disk, kept until the source is dropped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    /// The server it was made with; another one with the same address has other positions.
    pub(crate) system: String,
    pub(crate) timeline: String,
    /// Where streaming starts if nothing is in a commit point.
    pub(crate) position: u64,
    pub(crate) tables: Vec<ManifestTable>,
    /// What held each relation in the publication when it was first seen: OIDs of `pg_publication` and `pg_publication_rel`.
    pub(crate) membership: HashMap<u32, (u32, u32)>,
    /// How often the file of rows in error was saved. Once it was, it must be there, and be as new as this says.
    #[serde(default)]
    pub(crate) row_error_saves: u64,
}

/// The manifest in memory and on disk.
#[derive(Debug)]
pub(crate) struct ManifestFile {
    path: PathBuf,
    content: Arc<Mutex<Option<Manifest>>>,
    /// Held while the manifest is changed, by the thread that writes it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl ManifestFile {
    /// Reads the manifest at `path`, if there is one.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Error> {
        let content = state_file::read(&path)?;
        Ok(Self {
            path,
            content: Arc::new(Mutex::new(content)),
            turn: Arc::default(),
        })
    }

    /// The manifest as it is on disk.
    pub(crate) fn get(&self) -> Option<Manifest> {
        self.content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes the manifest and makes it durable before anyone sees it; `change` giving `None` leaves it as it is.
    ///
    /// # Cancel safety
    /// If the future is dropped, the change is made completely or not at all.
    pub(crate) async fn change(
        &self,
        change: impl FnOnce(Option<Manifest>) -> Option<Manifest>,
    ) -> Result<(), Error> {
        self.change_after(|| Ok(()), change).await
    }

    /// As [`ManifestFile::change`]; before the manifest is written, and also if it stays as it is, `first` writes what it notes.
    ///
    /// # Cancel safety
    /// As [`ManifestFile::change`]: both happen, or if one fails, nothing after it.
    pub(crate) async fn change_after(
        &self,
        first: impl FnOnce() -> Result<(), Error> + Send + 'static,
        change: impl FnOnce(Option<Manifest>) -> Option<Manifest>,
    ) -> Result<(), Error> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let changed = change(self.get());
        let path = self.path.clone();
        let content = Arc::clone(&self.content);
        let write = move || {
            let _turn = turn;
            first()?;
            if let Some(manifest) = changed {
                state_file::write(&path, &manifest)?;
                *content.lock().unwrap_or_else(PoisonError::into_inner) = Some(manifest);
            }
            Ok(())
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|error| Error::Invariant(error.to_string()))?
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use futures::FutureExt;

    use super::*;
    use crate::postgres::state::FILE_VERSION;

    fn manifest(position: u64) -> Manifest {
        Manifest {
            version: FILE_VERSION,
            system: "1".to_owned(),
            timeline: "1".to_owned(),
            position,
            tables: Vec::new(),
            membership: HashMap::new(),
            row_error_saves: 0,
        }
    }

    /// Runs `test` where every write waits until the returned sender is used.
    fn with_stalled_writes<F: Future<Output = ()>>(
        test: impl FnOnce(std::sync::mpsc::SyncSender<()>) -> F,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (release, wait) = sync_channel(1);
        runtime.spawn_blocking(move || wait.recv().unwrap());
        runtime.block_on(test(release));
    }

    #[test]
    fn a_cancelled_change_does_not_overtake_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        let file = ManifestFile::open(path.clone()).unwrap();
        with_stalled_writes(|release| async move {
            assert!(file.change(|_| Some(manifest(1))).now_or_never().is_none());
            release.send(()).unwrap();
            file.change(|before| {
                assert_eq!(before.map(|before| before.position), Some(1));
                Some(manifest(2))
            })
            .await
            .unwrap();
            assert_eq!(file.get().map(|now| now.position), Some(2));
        });
        let written: Option<Manifest> = state_file::read(&path).unwrap();
        assert_eq!(written.map(|written| written.position), Some(2));
    }
}
