//! Room on the disk: what the operating system says about it.
//!
//! Must not know what is written. Called by `shared`, before a client's write is begun, and by the Raft log, after one of its own has failed.

use std::io;
use std::path::Path;

/// Bytes that this process may still write to the file system of `path`.
///
/// # Errors
/// The operating system does not say.
pub(crate) fn available(path: &Path) -> io::Result<u64> {
    fs4::available_space(path)
}

/// Whether a write failed because there is no room left, on the file system or for its user.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
