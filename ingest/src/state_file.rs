//! Small files that must survive a crash: written beside their place, synced, and renamed into it. The last line is a checksum of the rest.

use std::path::Path;

use flowstone_disk::failpoint::{self, Kind, Step};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// What stands before the checksum of everything above it.
const CHECKSUM: &str = "\n# crc32 ";

/// Writes `value` as the whole content of `path`; after a crash the file holds the old or the new content.
///
/// Blocks for two syncs.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let failed = |source| Error::State {
        path: path.to_owned(),
        source,
    };
    let mut content =
        serde_json::to_vec_pretty(value).map_err(|error| failed(std::io::Error::other(error)))?;
    let checksum = format!("{CHECKSUM}{:08x}\n", crc32fast::hash(&content));
    content.extend_from_slice(checksum.as_bytes());
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| flowstone_disk::replace(path, &content, Kind::SourceState))
        .map_err(failed)
}

/// The content of `path`, or `None` if it is not there. Files of the first releases have no checksum.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let failed = |source| Error::State {
        path: path.to_owned(),
        source,
    };
    match std::fs::read(path) {
        Ok(content) => checked(&content)
            .and_then(|content| serde_json::from_slice(content).map_err(|error| error.to_string()))
            .map(Some)
            .map_err(|reason| Error::Damaged {
                path: path.to_owned(),
                reason,
            }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// What the checksum at the end, if there is one, says to be whole.
fn checked(bytes: &[u8]) -> Result<&[u8], String> {
    let mark = CHECKSUM.as_bytes();
    let Some(at) = bytes.windows(mark.len()).rposition(|found| found == mark) else {
        return Ok(bytes);
    };
    let (content, rest) = bytes.split_at(at);
    let expected = format!("{CHECKSUM}{:08x}\n", crc32fast::hash(content));
    if rest == expected.as_bytes() {
        Ok(content)
    } else {
        Err("its checksum does not match".to_owned())
    }
}

/// Removes `path` if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let removed = failpoint::reached(Kind::SourceState, Step::Remove)
        .and_then(|()| std::fs::remove_file(path));
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::State {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}
