//! File descriptors: how many the process may have, and how many of them are for clients.
//!
//! Invariant. Clients never take those that the node needs for its own files: what is acknowledged can be written whatever they do.

use anyhow::{Context, bail};

use crate::process;

/// Part of the descriptors that is kept for files: logs, Delta tables, what queries spill, upstreams.
const FILES_SHARE: u64 = 4;
/// Files that a small node needs all the same.
const FILES_MIN: u64 = 192;
/// More than any node needs.
const FILES_MAX: u64 = 16_384;
/// Fewer connections are no service.
const CONNECTIONS_MIN: u64 = 64;

/// Raises the limit of descriptors as far as the process may, and says how many connections that leaves room for.
///
/// # Errors
/// The limit is so low that there is no room for clients.
pub(crate) fn connections_max() -> anyhow::Result<usize> {
    let (soft, hard) =
        process::limit_of_open_files().context("cannot read the limit of open files")?;
    let descriptors = match process::set_limit_of_open_files(hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            soft
        }
    };
    let connections = for_clients(descriptors)?;
    tracing::debug!(connections, descriptors, "descriptors");
    usize::try_from(connections).context("too many descriptors")
}

/// Of so many descriptors, those for clients.
fn for_clients(descriptors: u64) -> anyhow::Result<u64> {
    let files = (descriptors / FILES_SHARE).clamp(FILES_MIN, FILES_MAX);
    let connections = descriptors.saturating_sub(files);
    if connections < CONNECTIONS_MIN {
        bail!(
            "the limit of open files is {descriptors}, and at least {} are needed: raise it with ulimit -n or LimitNOFILE",
            FILES_MIN + CONNECTIONS_MIN
        );
    }
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_a_reserve_that_clients_cannot_take() {
        assert_eq!(for_clients(1024).unwrap(), 768);
        assert_eq!(for_clients(256).unwrap(), 64);
        assert_eq!(for_clients(1 << 20).unwrap(), (1 << 20) - 16_384);
        assert!(for_clients(255).is_err());
    }
}
