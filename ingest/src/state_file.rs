//! Small files that must survive a crash: written beside their place, synced, and renamed into it.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// Writes `value` as the whole content of `path`; after a crash the file holds the old or the new content.
///
/// Blocks for two syncs.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let failed = |source| Error::State {
        path: path.to_owned(),
        source,
    };
    let content =
        serde_json::to_vec_pretty(value).map_err(|error| failed(std::io::Error::other(error)))?;
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    let attempt = || {
        std::fs::create_dir_all(parent)?;
        let beside = path.with_extension("tmp");
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&content)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        std::fs::File::open(parent)?.sync_all()
    };
    attempt().map_err(failed)
}

/// The content of `path`, or `None` if it was never written.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let failed = |source| Error::State {
        path: path.to_owned(),
        source,
    };
    match std::fs::read(path) {
        Ok(content) => serde_json::from_slice(&content)
            .map(Some)
            .map_err(|error| failed(std::io::Error::other(error))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Removes `path` if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::State {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}
