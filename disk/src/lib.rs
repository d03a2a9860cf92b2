//! Files that survive a crash, and the places where writing them can be made to fail.
//!
//! Owns the order in which a small file is replaced, and the list of every step of every durable write, and of the messages that say what is durable, or is to
//! be. Must not know what is written. Called by every crate that writes files, and by `worker`.
//!
//! Invariants. A file that is written here holds its old content or the new one, whatever happens in between. No step of a durable write is without a
//! [`Failpoint`]: `deploy/tidy.py` looks for it.

pub mod failpoint;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use failpoint::{Failpoint, Kind, Step};

/// Makes `content` the whole content of `path`. When it returns it is on disk; after a crash or an error the file holds the old content (or is not there) or
/// the new content.
///
/// Only the owner may read the file if it is one of a kind that holds secrets. Blocks for two syncs.
///
/// # Errors
/// What the operating system refuses. After an error of the last step the new content may be there already.
pub fn replace(path: &Path, content: &[u8], kind: Kind) -> io::Result<()> {
    let beside = beside(path);
    let written = write_beside(&beside, path, content, kind);
    if written.is_err() {
        // It has no meaning to anyone, and the next try writes over it.
        let _removed = std::fs::remove_file(&beside);
    }
    written?;
    failpoint::reached(kind, Step::Directory)?;
    sync_directory(path.parent().unwrap_or_else(|| Path::new(".")))
}

fn write_beside(beside: &Path, path: &Path, content: &[u8], kind: Kind) -> io::Result<()> {
    failpoint::reached(kind, Step::Write)?;
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    if kind == Kind::SecretKey {
        options.mode(0o600);
    }
    let mut file = options.open(beside)?;
    file.write_all(content)?;
    failpoint::reached(kind, Step::Sync)?;
    file.sync_all()?;
    failpoint::reached(kind, Step::Name)?;
    std::fs::rename(beside, path)
}

/// Where the new content of `path` is written before it gets its name.
#[must_use]
pub fn beside(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

/// Makes the names in a directory durable.
///
/// # Errors
/// What the operating system refuses.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    // The failpoint is the caller's.
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, b"first and long", Kind::SourceState).unwrap();
        replace(&path, b"second", Kind::SourceState).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, b"first", Kind::SourceState).unwrap();
        std::fs::create_dir(beside(&path)).unwrap();
        replace(&path, b"second", Kind::SourceState).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
    }
}
