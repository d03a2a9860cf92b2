//! The Raft group that holds everything the coordinator must not forget: one voter, its log and its state machine on local disk.
//!
//! Owns the replicated commands and state ([`command`], [`state`]), their storage ([`log_store`], [`state_machine`]) and the proposer that groups what is
//! queued into one log entry. Must not know sessions, epochs in flight or the worker.
//! Called by `coordinator` (bindings, commit points, the oracle's bound) and by DDL (catalog changes, secrets).
//!
//! Invariants. What [`RaftNode::propose`] answered is on disk. One entry holds everything that was queued while the entry before it was written, so the
//! cost of a binding under load is a share of one fsync.

pub mod command;
pub mod format;
pub mod log_store;
pub mod network;
pub mod node;
pub mod state;
pub mod state_machine;

pub use command::{Command, Proposal, Refusal, Reply};
pub use node::{ProposeError, RaftNode};
pub use state::{Cleanup, CommitPoint, DurableFailure, State};

openraft::declare_raft_types!(
    /// The types of the coordinator's Raft group.
    pub TypeConfig:
        D = Proposal,
        R = Reply,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Vec<u8>,
        AsyncRuntime = openraft::TokioRuntime,
);

/// Why the files of the Raft group cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file open.
    #[error("\"{path}\" is in use by another process")]
    Locked {
        /// The file.
        path: String,
    },
    /// The file was written by a newer version.
    #[error("\"{path}\" has format version {found}, this version reads up to {known}")]
    Newer {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// The file is damaged: it is never guessed at.
    #[error("\"{path}\" is damaged: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be read or written.
    #[error("cannot access \"{path}\"")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The Raft group does not start.
    #[error("the Raft group does not start: {0}")]
    Start(String),
}

#[cfg(test)]
mod tests;
