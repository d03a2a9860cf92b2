//! Headroom: room on the disk that no client's write may take.
//!
//! Owns the bound, and the refusal of what would meet it. Must not know what is written. Called by `session` before a write is begun.

use std::path::PathBuf;

use flowstone_proto::message::RequestError;

use crate::error::Error;
use crate::raft::RaftNode;
use crate::room;

/// Room on the disk that no client's write may take. Plenty for the Raft log, which is cut at every snapshot, and enough for a group commit or two, which are
/// what empties the local log.
const ROOM_KEPT_BYTES: u64 = 32 << 20;

/// What is asked before something is written.
#[derive(Debug)]
pub(crate) struct Headroom {
    data_dir: PathBuf,
    raft: RaftNode,
}

impl Headroom {
    pub(crate) const fn new(data_dir: PathBuf, raft: RaftNode) -> Self {
        Self { data_dir, raft }
    }

    /// Refuses a write while the disk has no room but what is kept for the Raft log and for group commits of what was acknowledged before.
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        self.check_log()?;
        match room::available(&self.data_dir) {
            Ok(available) if available < ROOM_KEPT_BYTES => {
                let message = format!(
                    "the disk of \"{}\" is full: {} MiB are left and kept for what was acknowledged",
                    self.data_dir.display(),
                    available >> 20
                );
                Err(RequestError::Storage {
                    message,
                    full: true,
                }
                .into())
            }
            // Who cannot be asked may still have room; the write itself will tell.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Refuses what would wait for the Raft log while its disk is full.
    pub(crate) fn check_log(&self) -> Result<(), Error> {
        self.raft
            .stalled()
            .map_or(Ok(()), |error| Err(error.into()))
    }
}
