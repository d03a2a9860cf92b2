//! What is known of one table, whatever kind of source it is of: its changes, whether its first content is bound, what is in error, and counters.
//!
//! Owns what a cut says beside rows: the rows in error and the permanent error. Must not know how changes are received, what a position is, or other tables.
//! Called under the source's lock by [`crate::logs`] and by takes; the connectors implement [`Log`].
//!
//! Invariants. The permanent error of a table is given once, at its position or after. The first failure of a table is the one that counts.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use flowstone_proto::message::SourceTable;
use flowstone_storage::StagedSnapshot;
use flowstone_types::{EvalError, EvalErrorKind, ObjectId, SourceChanges, TypeError};

use crate::Error;
use crate::binding::Position;
use crate::row_errors::{ErrorChanges, Notes, RowErrors};
use crate::transactions::{Part, TableTransactions};

/// The log of one table, as its kind of source keeps it.
pub(crate) trait Log: fmt::Debug + Send + 'static {
    type Position: Position;

    fn table(&self) -> &SourceTable;

    fn account(&self) -> &Account;

    fn account_mut(&mut self) -> &mut Account;

    /// Its transaction logs, in the order in which they are cut.
    fn logs(&self) -> impl Iterator<Item = &TableTransactions>;

    /// Its transaction logs, in the order in which they are cut.
    fn logs_mut(&mut self) -> impl Iterator<Item = &mut TableTransactions>;

    /// One transaction log by its number.
    fn log_mut(&mut self, number: u64) -> Option<&mut TableTransactions> {
        self.logs_mut().find(|log| log.log() == number)
    }

    /// Whether its first content is still to come.
    fn is_pending(&self) -> bool;

    /// Whether changes can be cut: the first content is bound, now if `named`.
    fn can_be_cut(&self, named: bool) -> bool;

    /// A binding names the table: its first content, if that was not bound before, becomes what the table is at the position. Returns why the table cannot
    /// have it, if so: it has failed then.
    ///
    /// # Errors
    /// [`Error::Invariant`] if the first content ends behind the position.
    fn bind(
        &mut self,
        position: &Self::Position,
        taken: &mut TakenTable,
    ) -> Result<Option<Failure>, Error>;

    /// Everything that was cut at `position` is resolved.
    fn end_cut(&mut self, position: u64) -> CutEnd;
}

/// Why a table cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// Transactions that end at or before this position still count, also if they are received after the failure; none do if it does not say.
    pub(crate) keep: Option<u64>,
    /// The same for upstreams that have partitions, by which one number does not say what was received: the next offset of each.
    pub(crate) offsets: Option<BTreeMap<i32, i64>>,
    /// The error itself is at this position.
    pub(crate) position: u64,
}

/// Counters since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) taken: u64,
    /// How much there is of the first content, as far as the upstream says it: rows, or offsets, of which there may be fewer messages.
    pub(crate) snapshot_known: Option<u64>,
    pub(crate) snapshot_staged: Option<u64>,
}

/// What a take has of one table.
#[derive(Debug)]
pub(crate) struct TakenTable {
    pub(crate) table: ObjectId,
    pub(crate) snapshot: Option<StagedSnapshot>,
    /// How the errors of rows change, as far as it is known.
    pub(crate) row_errors: ErrorChanges,
    /// What was cut, to be given to [`Account::resolve`] in order, and then [`Log::end_cut`] called.
    pub(crate) parts: VecDeque<Part>,
}

impl TakenTable {
    pub(crate) const fn new(table: ObjectId) -> Self {
        Self {
            table,
            snapshot: None,
            row_errors: Vec::new(),
            parts: VecDeque::new(),
        }
    }
}

/// What there is at the end of a cut.
#[derive(Debug)]
pub(crate) struct CutEnd {
    /// The table's permanent error, once.
    pub(crate) error: Option<EvalError>,
    /// The table fails with this cut.
    pub(crate) failed: Option<Failure>,
}

/// What is in error of one table, and what is counted of it.
#[derive(Debug)]
pub(crate) struct Account {
    failure: Option<Failure>,
    failure_given: bool,
    /// Rows in error as of what was cut.
    pub(crate) row_errors: RowErrors,
    pub(crate) counters: Counters,
}

impl Account {
    pub(crate) fn new(table: &SourceTable) -> Self {
        Self {
            failure: None,
            failure_given: false,
            row_errors: RowErrors::new(table),
            counters: Counters::default(),
        }
    }

    pub(crate) const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The table cannot go on. The first failure wins.
    pub(crate) fn fail_at(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// The table cannot go on from here; whether that is news. It is not if the table fails here or before anyway, but it is if an earlier run got further.
    pub(crate) fn fail_no_later(&mut self, failure: Failure) -> bool {
        if let Some(known) = &self.failure
            && known.position <= failure.position
        {
            return false;
        }
        self.failure = Some(failure);
        true
    }

    /// What went wrong up to `position` is not wrong any more.
    pub(crate) fn forget_failure_through(&mut self, position: u64) {
        if self
            .failure
            .as_ref()
            .is_some_and(|failure| failure.position <= position)
        {
            self.failure = None;
        }
    }

    /// What changes that were cut at `position` are without the rows that cannot be held, if anything, and how the errors of rows change.
    pub(crate) fn resolve(
        &mut self,
        changes: SourceChanges,
        notes: Notes,
        position: u64,
    ) -> Result<(Option<SourceChanges>, ErrorChanges), TypeError> {
        self.counters.taken += u64::try_from(changes.ops.len()).unwrap_or(u64::MAX);
        let (resolved, errors) = self.row_errors.resolve(changes, notes, position)?;
        let something = !resolved.ops.is_empty() || resolved.truncate_before;
        Ok((something.then_some(resolved), errors))
    }

    /// Everything that was cut at `position` is resolved. `keep`, `offsets`: those of the failure, if the table fails with this cut.
    pub(crate) fn end_cut(
        &mut self,
        position: u64,
        keep: Option<u64>,
        offsets: Option<BTreeMap<i32, i64>>,
    ) -> CutEnd {
        let mut failed = None;
        if self.failure.is_none()
            && let Some(message) = self.row_errors.too_many()
        {
            let failure = Failure {
                message,
                keep,
                offsets,
                position,
            };
            self.failure = Some(failure.clone());
            failed = Some(failure);
        }
        let error = match &self.failure {
            Some(failure) if failure.position <= position && !self.failure_given => {
                self.failure_given = true;
                Some(EvalError::new(
                    EvalErrorKind::Source,
                    failure.message.clone(),
                ))
            }
            _ => None,
        };
        CutEnd { error, failed }
    }
}
