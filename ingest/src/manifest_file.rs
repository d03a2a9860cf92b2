//! The durable memory of a source of any kind: a file that is changed as a whole.
//!
//! Owns the file and the order of its changes, with those of the files whose state it notes. Must not know what is in it. Called by the tasks of sources.
//!
//! Invariants. Changes happen one after another; each is durable before anyone sees it. A change that was begun is finished, even if the task that
//! asked for it is cancelled: until then no other change starts. Once it is closed nothing is written any more: the files may be gone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, state_file};

/// What a manifest has to say of itself and of the files beside it.
pub(crate) trait SourceManifest:
    Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + 'static
{
    /// The version of what is written now: of the manifest, and of the files of what is in error.
    const FILE_VERSION: u32;

    fn version(&self) -> u32;

    /// How often the file of rows in error was saved. Once it was, it must be there, and be as new as this says.
    fn row_error_saves(&self) -> u64;

    /// Notes how often it was saved.
    fn note_saves(&mut self, row_error_saves: u64);
}

/// The manifest in memory and on disk.
#[derive(Debug)]
pub(crate) struct ManifestFile<M> {
    path: PathBuf,
    content: Arc<Mutex<Option<M>>>,
    /// Held while the manifest is changed, by the thread that writes it.
    turn: Arc<tokio::sync::Mutex<Turn>>,
}

/// Whether there are more changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Open,
    Closed,
}

impl<M: Clone + Serialize + DeserializeOwned + Send + 'static> ManifestFile<M> {
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
    pub(crate) fn get(&self) -> Option<M> {
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
        change: impl FnOnce(Option<M>) -> Option<M>,
    ) -> Result<(), Error> {
        self.change_after(|| Ok(()), change).await
    }

    /// As [`ManifestFile::change`]; before the manifest is written, and also if it stays as it is, `first` writes what it notes.
    ///
    /// # Errors
    /// [`Error::Stopped`] after [`ManifestFile::close`].
    ///
    /// # Cancel safety
    /// As [`ManifestFile::change`]: both happen, or if one fails, nothing after it.
    pub(crate) async fn change_after(
        &self,
        first: impl FnOnce() -> Result<(), Error> + Send + 'static,
        change: impl FnOnce(Option<M>) -> Option<M>,
    ) -> Result<(), Error> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if *turn == Turn::Closed {
            return Err(Error::Stopped);
        }
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

    /// Waits for a change that was begun, and lets nobody begin another.
    pub(crate) async fn close(&self) {
        *self.turn.lock().await = Turn::Closed;
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
