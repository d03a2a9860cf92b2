//! What is known of one table: how its changes come, its snapshot until it is bound, and its permanent error.
//!
//! Owns what the messages of the stream mean for the table; the changes themselves are in its transaction log. Must not know sockets, other tables or how
//! positions are acknowledged. Called under the source's lock, by the stream (which appends) and by takes (which cut).
//!
//! Invariants. What a cut gives depends only on the transactions received and the snapshot's position, not on how often or where was cut before.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_proto::message::SourceTable;
use flowstone_types::{
    EvalError, EvalErrorKind, SourceChanges, SourceOp, SourcePosition, TypeError,
};

use super::pgoutput::{Cell, OldRow, Relation, Tuple};
use super::snapshot::Staged;
use crate::Error;
use crate::row_errors::{ErrorChanges, Notes, RowErrors, SavedRowErrors};
use crate::rows::Value;
use crate::transactions::{Part, Refused, TableTransactions};

/// What is known of a table's first content.
#[derive(Clone, Debug)]
pub(crate) enum Snapshot {
    /// It has yet to be read; until then nothing above `floor` may be forgotten upstream.
    Pending { floor: u64 },
    /// It was read at `position`.
    Staged { position: u64, content: Staged },
    /// It was taken with a binding at `bound_at`; it is in a commit point once a later position is.
    Bound { position: u64, bound_at: u64 },
    /// It is in a commit point.
    Committed,
}

/// Why a table cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// Transactions that end at or before this position still count.
    pub(crate) keep: u64,
    /// The error itself is at this position.
    pub(crate) position: u64,
}

/// Counters since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) taken: u64,
    pub(crate) snapshot_known: Option<u64>,
    pub(crate) snapshot_staged: Option<u64>,
}

/// The log of one table.
#[derive(Debug)]
pub(crate) struct TableLog {
    pub(crate) table: SourceTable,
    pub(crate) schema: SchemaRef,
    pub(crate) snapshot: Snapshot,
    /// Transactions whose commit record is below this are not wanted: they are in the commit point or in the snapshot.
    since: u64,
    pub(crate) transactions: TableTransactions,
    /// For each captured column, where it is in the relation's tuples. `None` until the relation is known.
    mapping: Option<Vec<usize>>,
    failure: Option<Failure>,
    /// A failure within the transaction that is being received.
    failing: Option<String>,
    failure_given: bool,
    /// Rows in error as of what was cut.
    pub(crate) row_errors: RowErrors,
    pub(crate) counters: Counters,
}

impl TableLog {
    pub(crate) fn new(
        table: SourceTable,
        schema: SchemaRef,
        snapshot: Snapshot,
        since: u64,
    ) -> Self {
        Self {
            row_errors: RowErrors::new(&table),
            transactions: TableTransactions::new(Arc::clone(&schema), table.key.clone()),
            table,
            schema,
            snapshot,
            since,
            mapping: None,
            failure: None,
            failing: None,
            failure_given: false,
            counters: Counters::default(),
        }
    }

    /// `"schema.name"`, for messages.
    pub(crate) fn name(&self) -> String {
        format!(
            "{}.{}",
            self.table.upstream_schema, self.table.upstream_name
        )
    }

    /// Takes over what was in error at the position the log starts from.
    pub(crate) fn restore_row_errors(&mut self, saved: SavedRowErrors) {
        self.row_errors.restore(saved, self.since);
    }

    pub(crate) const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Whether changes of a transaction with this commit record go into the log.
    pub(crate) fn wants(&self, commit_lsn: u64) -> bool {
        commit_lsn >= self.since
            && self.failing.is_none()
            && self
                .failure
                .as_ref()
                .is_none_or(|failure| commit_lsn < failure.keep)
    }

    /// The snapshot was read at `position`: earlier changes are in it.
    pub(crate) fn set_snapshot(&mut self, position: u64, content: Staged) {
        self.set_since(position);
        self.snapshot = Snapshot::Staged { position, content };
    }

    /// The snapshot is being read at `position`: earlier changes will be in it, later ones must be kept.
    pub(crate) fn set_since(&mut self, position: u64) {
        let dropped = SourcePosition::PostgresLsn(position);
        if let Err(error) = self.transactions.drop_through(&dropped) {
            tracing::error!(%error, "rows that are in a snapshot could not be dropped");
        }
        self.since = self.since.max(position);
        if let Snapshot::Pending { floor } = &mut self.snapshot {
            *floor = position;
        }
        // What went wrong before the snapshot is not wrong any more if the snapshot can be read.
        if self
            .failure
            .as_ref()
            .is_some_and(|failure| failure.position <= position)
        {
            self.failure = None;
        }
    }

    /// The table cannot go on: transactions up to `position` count, nothing after. The first failure wins.
    pub(crate) fn fail_at(&mut self, failure: Failure) {
        if self.failure.is_none() {
            self.failure = Some(failure);
        }
    }

    /// The table cannot go on from within the transaction that is being received.
    pub(crate) fn fail(&mut self, message: String) {
        self.failing.get_or_insert(message);
    }

    /// The relation is described anew: columns are looked up again, and what was pinned must still be there.
    pub(crate) fn set_relation(&mut self, relation: &Relation) {
        match map_columns(&self.table, relation) {
            Ok(mapping) => self.mapping = Some(mapping),
            Err(message) => {
                self.mapping = None;
                self.fail(message);
            }
        }
    }

    pub(crate) fn insert(&mut self, relation: &Relation, new: &Tuple<'_>, bytes: u64) {
        self.counters.messages += 1;
        self.append(relation, SourceOp::Insert, new, None, bytes);
    }

    pub(crate) fn update(
        &mut self,
        relation: &Relation,
        old: Option<&OldRow<'_>>,
        new: &Tuple<'_>,
        bytes: u64,
    ) {
        self.counters.messages += 1;
        match old {
            Some(OldRow::Full(old)) => {
                self.append(relation, SourceOp::Delete, old, None, bytes / 2);
                self.append(
                    relation,
                    SourceOp::Insert,
                    new,
                    Some(old),
                    bytes - bytes / 2,
                );
            }
            _ if self.table.key.is_empty() => self.fail(self.missing_old_row()),
            Some(OldRow::Key(old)) => {
                self.append(relation, SourceOp::DeleteByKey, old, None, 0);
                self.append(relation, SourceOp::Upsert, new, None, bytes);
                if self.failing.is_none() {
                    self.transactions.note_moved();
                }
            }
            None => self.append(relation, SourceOp::Upsert, new, None, bytes),
        }
    }

    pub(crate) fn delete(&mut self, relation: &Relation, old: &OldRow<'_>, bytes: u64) {
        self.counters.messages += 1;
        match old {
            OldRow::Full(old) => self.append(relation, SourceOp::Delete, old, None, bytes),
            OldRow::Key(_) if self.table.key.is_empty() => self.fail(self.missing_old_row()),
            OldRow::Key(old) => self.append(relation, SourceOp::DeleteByKey, old, None, bytes),
        }
    }

    pub(crate) fn truncate(&mut self) {
        self.counters.messages += 1;
        if let Err(error) = self.transactions.truncate() {
            self.fail(error.to_string());
        }
    }

    fn missing_old_row(&self) -> String {
        format!(
            "old row missing from replication stream for table \"{}\" with OID {}; its replica identity must be FULL",
            self.name(),
            self.table.upstream_oid
        )
    }

    fn append(
        &mut self,
        relation: &Relation,
        op: SourceOp,
        tuple: &Tuple<'_>,
        old: Option<&Tuple<'_>>,
        bytes: u64,
    ) {
        if self.failing.is_some() {
            return;
        }
        if self.mapping.is_none() {
            self.set_relation(relation);
        }
        let Some(mapping) = &self.mapping else { return };
        let values = mapping.iter().map(|index| {
            let given = match (tuple.get(*index).copied(), old) {
                (Some(Cell::Unchanged), Some(old)) => old.get(*index).copied(),
                (given, _) => given,
            };
            match given.unwrap_or(Cell::Null) {
                Cell::Null => Value::Null,
                Cell::Unchanged => Value::Unchanged,
                Cell::Text(text) => Value::Text(text),
                Cell::Binary(bytes) => Value::Binary(bytes),
            }
        });
        match self.transactions.append(op, values, bytes) {
            Ok(()) => self.counters.bytes += bytes,
            Err(Refused::LeftOut) => self.fail(format!(
                "replication stream left out a value of table \"{}\" that is not in the old row",
                self.name()
            )),
            Err(Refused::Row(error)) => {
                let column = self.table.columns.get(error.column);
                let column = column.map_or("?", |column| column.name.as_str());
                self.fail(value_error(&self.name(), column, &error.reason));
            }
            Err(Refused::Type(error)) => self.fail(error.to_string()),
        }
    }

    /// The transaction with this commit record ended at `end_lsn`. Returns whether it changed the table, or why the table failed in it.
    pub(crate) fn commit(&mut self, commit_lsn: u64, end_lsn: u64) -> Committed {
        if let Some(message) = self.failing.take() {
            self.transactions.roll_back();
            if commit_lsn < self.since || self.failure.is_some() {
                return Committed::Nothing;
            }
            let failure = Failure {
                message,
                keep: commit_lsn,
                position: end_lsn,
            };
            self.failure = Some(failure.clone());
            return Committed::Failed(failure);
        }
        if !self.transactions.is_unfinished() {
            return Committed::Nothing;
        }
        if !self.wants(commit_lsn) {
            self.transactions.roll_back();
            return Committed::Nothing;
        }
        let end = SourcePosition::PostgresLsn(end_lsn);
        self.transactions.commit(&end);
        Committed::Changed
    }

    /// The connection was lost: what did not commit will come again.
    pub(crate) fn roll_back(&mut self) {
        self.failing = None;
        self.mapping = None;
        self.transactions.roll_back();
    }

    /// Whether changes can be cut: the snapshot is bound, now if `named`.
    pub(crate) const fn can_be_cut(&self, named: bool) -> bool {
        named || matches!(self.snapshot, Snapshot::Bound { .. } | Snapshot::Committed)
    }

    /// Takes everything up to `position`. What is cut has to be given to [`TableLog::resolve`] in order, and then [`TableLog::end_cut`] called.
    pub(crate) fn cut(&mut self, position: u64) -> Result<VecDeque<Part>, Error> {
        let position = SourcePosition::PostgresLsn(position);
        self.transactions.cut(&position)
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

    /// Everything that was cut at `position` is resolved.
    pub(crate) fn end_cut(&mut self, position: u64) -> CutEnd {
        let mut failed = None;
        if self.failure.is_none()
            && let Some(message) = self.row_errors.too_many()
        {
            let failure = Failure {
                message,
                keep: position,
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

/// What there is at the end of a cut.
#[derive(Debug)]
pub(crate) struct CutEnd {
    /// The table's permanent error, once.
    pub(crate) error: Option<EvalError>,
    /// The table fails with this cut.
    pub(crate) failed: Option<Failure>,
}

/// What the end of a transaction meant for a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    Nothing,
    Changed,
    Failed(Failure),
}

/// The message for a value that has no place in its column.
pub(crate) fn value_error(table: &str, column: &str, reason: &str) -> String {
    format!("invalid data in column \"{column}\" of table \"{table}\": {reason}")
}

/// Finds the captured columns in the relation, or says what was changed that must not be.
fn map_columns(table: &SourceTable, relation: &Relation) -> Result<Vec<usize>, String> {
    let mapping = table
        .columns
        .iter()
        .map(|pinned| {
            let (index, column) = relation
                .columns
                .iter()
                .enumerate()
                .find(|(_, column)| column.name == pinned.name)
                .ok_or_else(|| {
                    format!(
                        "incompatible schema change: column \"{}\" was dropped",
                        pinned.name
                    )
                })?;
            if (column.type_oid, column.type_modifier) != (pinned.type_oid, pinned.type_modifier) {
                return Err(format!(
                    "incompatible schema change: type of column \"{}\" was changed",
                    pinned.name
                ));
            }
            Ok(index)
        })
        .collect::<Result<Vec<usize>, String>>()?;
    if !table.key.is_empty() && matches!(relation.replica_identity, b'd' | b'i') {
        let mut pinned: Vec<&str> = table
            .key
            .iter()
            .filter_map(|index| table.columns.get(*index))
            .map(|column| column.name.as_str())
            .collect();
        let mut current: Vec<&str> = relation
            .columns
            .iter()
            .filter(|column| column.key)
            .map(|column| column.name.as_str())
            .collect();
        pinned.sort_unstable();
        current.sort_unstable();
        if pinned != current {
            return Err(
                "incompatible schema change: primary key or replica identity was changed"
                    .to_owned(),
            );
        }
    }
    Ok(mapping)
}
