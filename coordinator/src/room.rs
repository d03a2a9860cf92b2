//! Room on the disk and in memory: what the operating system says about it.
//!
//! Must not know what is written. Called by `headroom`, before a client's write is begun, by the Raft log, after one of its own has failed, and for the system
//! relations.

use std::io;
use std::path::Path;

/// Bytes that this process may still write to the file system of `path`.
///
/// # Errors
/// The operating system does not say.
pub(crate) fn available(path: &Path) -> io::Result<u64> {
    fs4::available_space(path)
}

/// Bytes of memory that this process has; `None` if there is no `/proc`.
pub(crate) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}

/// Whether a write failed because there is no room left, on the file system or for its user.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
