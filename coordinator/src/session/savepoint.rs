//! Savepoints: points of a transaction block that it can come back to.
//!
//! Owns what a savepoint remembers. Must not know statements. Called by `session`.
//!
//! Invariants. There are savepoints only in a block. Coming back discards the writes that were staged since, the variables that were set and the cursors that
//! were opened. What was read stays read: a block that has read keeps its epoch and stays a block that reads.

use std::collections::BTreeSet;

use super::Session;
use super::transaction::{Mode, Transaction};
use crate::error::{Error, SessionError, TransactionError};
use crate::outcome::Outcome;
use crate::variables::Variables;

/// A point of a transaction block.
#[derive(Debug)]
pub(super) struct Savepoint {
    name: String,
    /// Writes staged before it.
    staged: usize,
    variables: Variables,
    /// Cursors that were open.
    cursors: BTreeSet<String>,
}

/// The savepoints of the block that is open, oldest first.
#[derive(Debug, Default)]
pub(super) struct Savepoints {
    points: Vec<Savepoint>,
    /// What the block did until it failed: what a savepoint can bring back.
    before_failure: Mode,
}

impl Savepoints {
    /// Whether a block that fails now can be brought back.
    pub(super) const fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The block has failed. `mode`: what it did until then.
    pub(super) fn keep(&mut self, mode: Mode) {
        self.before_failure = mode;
    }

    /// The block has ended.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn position(&self, name: &str) -> Result<usize, SessionError> {
        self.points
            .iter()
            .rposition(|point| point.name == name)
            .ok_or_else(|| SessionError::UnknownSavepoint(name.to_owned()))
    }
}

impl Session {
    /// SAVEPOINT
    pub(super) fn savepoint(&mut self, name: &str) -> Result<Outcome, Error> {
        let Transaction::Explicit(mode) = &self.transaction else {
            return Err(TransactionError::Required("SAVEPOINT".to_owned()).into());
        };
        let staged = match mode {
            Mode::Write(staged) => staged.len(),
            Mode::Undecided | Mode::Read(_) | Mode::Subscribe => 0,
        };
        self.savepoints.points.push(Savepoint {
            name: name.to_owned(),
            staged,
            variables: self.variables.clone(),
            cursors: self.cursors.keys().cloned().collect(),
        });
        Ok(Outcome::Command {
            tag: "SAVEPOINT".to_owned(),
        })
    }

    /// RELEASE SAVEPOINT: it and those after it are forgotten.
    pub(super) fn release_savepoint(&mut self, name: &str) -> Result<Outcome, Error> {
        if !self.transaction.in_block() {
            return Err(TransactionError::Required("RELEASE SAVEPOINT".to_owned()).into());
        }
        let position = self.savepoints.position(name)?;
        self.savepoints.points.truncate(position);
        Ok(Outcome::Command {
            tag: "RELEASE".to_owned(),
        })
    }

    /// ROLLBACK TO SAVEPOINT: the block goes on from there, also if it had failed.
    pub(super) fn rollback_to_savepoint(&mut self, name: &str) -> Result<Outcome, Error> {
        if !self.transaction.in_block() {
            return Err(TransactionError::Required("ROLLBACK TO SAVEPOINT".to_owned()).into());
        }
        let position = self.savepoints.position(name)?;
        self.savepoints.points.truncate(position + 1);
        let Some(point) = self.savepoints.points.last() else {
            return Err(Error::Internal("a savepoint has vanished".to_owned()));
        };
        let mut mode = match std::mem::take(&mut self.transaction) {
            Transaction::Explicit(mode) => mode,
            _ => std::mem::take(&mut self.savepoints.before_failure),
        };
        if let Mode::Write(staged) = &mut mode {
            staged.truncate(point.staged);
            if staged.is_empty() {
                mode = Mode::Undecided;
            }
        }
        self.variables = point.variables.clone();
        self.cursors.retain(|name, _| point.cursors.contains(name));
        self.transaction = Transaction::Explicit(mode);
        Ok(Outcome::Command {
            tag: "ROLLBACK".to_owned(),
        })
    }
}
