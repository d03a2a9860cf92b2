//! The transaction of a session: its mode, its read epoch, the writes it will commit.
//!
//! Owns the rules of what may follow what. Must not know statements beyond their class. Called by `session`.
//!
//! Invariants. The first statement fixes the mode. A transaction reads at one epoch, held readable until it ends.

use std::collections::BTreeSet;

use flowstone_sql::catalog::SchemaId;
use flowstone_types::Epoch;

use crate::error::TransactionError;
use crate::holds::Hold;
use crate::staged::StagedWrite;

/// Where a session stands.
#[derive(Debug, Default)]
pub(crate) enum Transaction {
    /// In none.
    #[default]
    Idle,
    /// Statements of one query string, or up to a Sync: committed together, without a block.
    Implicit(Mode),
    /// After BEGIN.
    Explicit(Mode),
    /// After BEGIN and an error.
    Failed,
}

/// What a transaction does.
#[derive(Debug, Default)]
pub(crate) enum Mode {
    /// Nothing yet.
    #[default]
    Undecided,
    /// It reads.
    Read(ReadTransaction),
    /// It has one subscription, through a cursor.
    Subscribe,
    /// It inserts.
    Write(Vec<StagedWrite>),
}

/// One epoch for all reads.
#[derive(Debug)]
pub(crate) struct ReadTransaction {
    /// Keeps the epoch readable.
    pub(crate) hold: Hold,
    /// Schemas of the relations that can be read.
    pub(crate) domain: BTreeSet<SchemaId>,
}

impl ReadTransaction {
    /// The epoch.
    pub(crate) const fn epoch(&self) -> Epoch {
        self.hold.epoch()
    }
}

/// The class of a statement, for the rules of transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// SELECT.
    Read,
    /// SUBSCRIBE.
    Subscribe,
    /// INSERT of constants.
    Write,
    /// A statement that stands alone, DDL among them (it could not be rolled back); with the words that name it.
    Alone(String),
}

impl Transaction {
    /// Whether a block is open.
    pub(crate) const fn in_block(&self) -> bool {
        matches!(self, Self::Explicit(_) | Self::Failed)
    }

    /// The mode, if a transaction is open and has not failed.
    pub(crate) const fn mode(&mut self) -> Option<&mut Mode> {
        match self {
            Self::Implicit(mode) | Self::Explicit(mode) => Some(mode),
            Self::Idle | Self::Failed => None,
        }
    }

    /// Whether a statement of `class` may run now. In a block the first statement decides; outside of one everything may, after what is pending is committed
    /// ([`Transaction::must_commit_before`]).
    pub(crate) fn admit(&self, class: &Class) -> Result<(), TransactionError> {
        let mode = match self {
            Self::Failed => return Err(TransactionError::Aborted),
            Self::Idle | Self::Implicit(_) => return Ok(()),
            Self::Explicit(mode) => mode,
        };
        match (mode, class) {
            (_, Class::Alone(what)) => Err(TransactionError::Prohibited(what.clone())),
            (Mode::Undecided, Class::Read | Class::Subscribe | Class::Write)
            | (Mode::Read(_), Class::Read)
            | (Mode::Write(_), Class::Write) => Ok(()),
            (Mode::Read(_), Class::Subscribe)
            | (Mode::Subscribe, Class::Read | Class::Subscribe) => {
                Err(TransactionError::SubscribeOnly)
            }
            (Mode::Read(_) | Mode::Subscribe, Class::Write) => Err(TransactionError::ReadOnly),
            (Mode::Write(_), Class::Read | Class::Subscribe) => Err(TransactionError::WriteOnly),
        }
    }

    /// Whether what an implicit transaction has staged must be committed before a statement of `class`.
    pub(crate) const fn must_commit_before(&self, class: &Class) -> bool {
        matches!(self, Self::Implicit(Mode::Write(_))) && !matches!(class, Class::Write)
    }
}
