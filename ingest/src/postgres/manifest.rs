//! The durable memory of a source: where it started, what is staged, how its tables were published, and how often rows in error were saved beside it.
//!
//! Must not know what the tables hold or how they are read, nor how it gets to disk: [`crate::manifest_file`]. Called by the tasks of the source.

use std::collections::HashMap;

use flowstone_types::ObjectId;
use serde::{Deserialize, Serialize};

use super::snapshot::Staged;
use crate::manifest_file::SourceManifest;

/// Version of [`Manifest`] and of the files of what is in error. 2: snapshots with rows in error. 3: how often rows in error were saved.
pub(crate) const FILE_VERSION: u32 = 3;

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

impl SourceManifest for Manifest {
    const FILE_VERSION: u32 = FILE_VERSION;

    fn version(&self) -> u32 {
        self.version
    }

    fn row_error_saves(&self) -> u64 {
        self.row_error_saves
    }

    fn note_saves(&mut self, row_error_saves: u64) {
        self.version = FILE_VERSION;
        self.row_error_saves = row_error_saves;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use futures::FutureExt;

    use super::*;
    use crate::Error;
    use crate::manifest_file::ManifestFile;
    use crate::state_file;

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
    fn nothing_is_written_once_it_is_closed_and_what_was_begun_is_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        let file = ManifestFile::open(path.clone()).unwrap();
        with_stalled_writes(|release| async move {
            let noted = path.with_file_name("row-errors.json");
            let first = noted.clone();
            let write = move || state_file::write(&first, &1);
            // Whoever asked for it is gone.
            let change = file.change_after(write, |_| Some(manifest(1)));
            assert!(change.now_or_never().is_none());
            assert!(file.close().now_or_never().is_none());
            release.send(()).unwrap();
            file.close().await;
            for path in [&path, &noted] {
                std::fs::remove_file(path).unwrap();
            }
            let first = noted.clone();
            let write = move || state_file::write(&first, &2);
            let late = file.change_after(write, |_| Some(manifest(2))).await;
            assert!(matches!(late, Err(Error::Stopped)), "{late:?}");
            assert!(!path.exists() && !noted.exists());
        });
    }

    #[test]
    fn a_cancelled_change_does_not_overtake_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        let file = ManifestFile::<Manifest>::open(path.clone()).unwrap();
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
