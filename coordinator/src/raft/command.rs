//! What is replicated: the commands of the log, and the answer of the state machine to each.
//!
//! The log stores these bytes, so a variant is only ever added at the end and a field never changes its meaning; what has to change gets a variant of its own,
//! and the old one is read on. [`crate::raft::log_store`] carries the version of the encoding.

use flowstone_proto::message::{Failure, LogId, SourceBinding};
use flowstone_sql::catalog::CatalogChange;
use flowstone_types::{Epoch, ObjectId};
use serde::{Deserialize, Serialize};

use super::format::BindingV3;

/// One change of the replicated state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// First entry of a new node: who it is.
    ClusterInit {
        /// Version of the meaning of everything in the state.
        format_version: u32,
        /// Identity of this deployment; names replication slots and Delta transactions.
        cluster_id: [u8; 16],
    },
    /// The effect of one DDL statement: all of it or nothing.
    CatalogChanges {
        /// The changes, in order.
        changes: Vec<CatalogChange>,
        /// The version of the catalog they were planned against.
        expected_version: u64,
        /// Secrets that are set with it.
        secrets: Vec<SealedSecret>,
    },
    /// Sets or replaces a secret's value.
    PutSecret(SealedSecret),
    /// Forgets a secret's value.
    DropSecret(ObjectId),
    /// [`Command::Bind`] as the log has it in format 3 and before. Never proposed any more.
    BindV3 {
        /// The epoch.
        epoch: Epoch,
        /// How far each source goes.
        bindings: Vec<BindingV3>,
    },
    /// The Delta tables hold everything up to an epoch.
    CommitPoint {
        /// The epoch.
        epoch: Epoch,
        /// Versions of the tables that changed since the commit point before.
        versions: Vec<(ObjectId, i64)>,
    },
    /// No epoch above this one has been issued yet, and none will be before a larger bound is durable.
    OracleBound {
        /// The bound.
        epoch: Epoch,
    },
    /// The worker has this local log from now on.
    LocalLog(LogId),
    /// Sources or source tables have failed for good.
    Fail {
        /// The epoch from which on reads say so.
        epoch: Epoch,
        /// What failed, and why.
        failures: Vec<(ObjectId, Failure)>,
    },
    /// What a dropped object left behind is gone.
    CleanedUp(ObjectId),
    /// Which upstream positions belong to an epoch.
    Bind {
        /// The epoch.
        epoch: Epoch,
        /// How far each source goes.
        bindings: Vec<SourceBinding>,
    },
}

/// A secret as it is stored: encrypted, bound to its id.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// The secret item.
    pub id: ObjectId,
    /// Nonce and ciphertext, see [`crate::secrets`].
    pub sealed: Vec<u8>,
}

impl std::fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedSecret({}, {} bytes)", self.id, self.sealed.len())
    }
}

/// One log entry: the commands that were queued together. Each is applied or refused on its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The commands, in order.
    pub commands: Vec<Command>,
}

/// One answer per command of a [`Proposal`]; empty for entries of Raft's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The answers, in the order of the commands.
    pub results: Vec<Result<(), Refusal>>,
}

/// Why the state machine did not apply a command. The state is as if it had not been proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Another statement changed the catalog first.
    #[error("the catalog has version {actual}, the change was planned against {expected}")]
    CatalogMoved {
        /// What was planned against.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// The command contradicts the state: a bug of ours.
    #[error("{0}")]
    Invalid(String),
}
