//! What is known of one table: how its changes come, its snapshot until it is bound, and what goes wrong within a transaction.
//!
//! Owns what the messages of the stream mean for the table; the changes themselves are in its transaction log, and what is in error in its account. Must not
//! know sockets, other tables or how positions are acknowledged. Called under the source's lock, by the stream (which appends) and by takes (which cut).
//!
//! Invariants. What a cut gives depends only on the transactions received and the snapshot's position, not on how often or where was cut before.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_proto::message::SourceTable;
use flowstone_types::{SourceOp, SourcePosition};

use super::pgoutput::{Cell, OldRow, Relation, Tuple};
use super::snapshot::Staged;
use crate::Error;
use crate::rows::Value;
use crate::table_log::{Account, CutEnd, Failure, Log, TakenTable};
use crate::transactions::{Refused, TableTransactions};

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
    /// A failure within the transaction that is being received.
    failing: Option<String>,
    pub(crate) account: Account,
}

impl TableLog {
    pub(crate) fn new(
        table: SourceTable,
        schema: SchemaRef,
        snapshot: Snapshot,
        since: u64,
    ) -> Self {
        Self {
            account: Account::new(&table),
            transactions: TableTransactions::new(Arc::clone(&schema), table.key.clone()),
            table,
            schema,
            snapshot,
            since,
            mapping: None,
            failing: None,
        }
    }

    /// `"schema.name"`, for messages.
    pub(crate) fn name(&self) -> String {
        format!(
            "{}.{}",
            self.table.upstream_schema, self.table.upstream_name
        )
    }

    /// Where the log starts from, if the snapshot is in a commit point.
    pub(crate) fn committed_at(&self) -> Option<u64> {
        matches!(self.snapshot, Snapshot::Committed).then_some(self.since)
    }

    /// Whether changes of a transaction with this commit record go into the log.
    pub(crate) fn wants(&self, commit_lsn: u64) -> bool {
        commit_lsn >= self.since
            && self.failing.is_none()
            && self
                .account
                .failure()
                .is_none_or(|failure| failure.keep.is_some_and(|keep| commit_lsn < keep))
    }

    /// The snapshot was read at `position`: earlier changes are in it.
    pub(crate) fn set_snapshot(&mut self, position: u64, content: Staged) {
        self.set_since(position);
        self.snapshot = Snapshot::Staged { position, content };
    }

    /// The snapshot is being read at `position`: earlier changes will be in it, later ones must be kept. What went wrong before it is not wrong any more if it
    /// can be read, which the caller says to the logs.
    pub(crate) fn set_since(&mut self, position: u64) {
        let dropped = SourcePosition::PostgresLsn(position);
        if let Err(error) = self.transactions.drop_through(&dropped) {
            tracing::error!(%error, "rows that are in a snapshot could not be dropped");
        }
        self.since = self.since.max(position);
        if let Snapshot::Pending { floor } = &mut self.snapshot {
            *floor = position;
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
        self.account.counters.messages += 1;
        self.append(relation, SourceOp::Insert, new, None, bytes);
    }

    pub(crate) fn update(
        &mut self,
        relation: &Relation,
        old: Option<&OldRow<'_>>,
        new: &Tuple<'_>,
        bytes: u64,
    ) {
        self.account.counters.messages += 1;
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
        self.account.counters.messages += 1;
        match old {
            OldRow::Full(old) => self.append(relation, SourceOp::Delete, old, None, bytes),
            OldRow::Key(_) if self.table.key.is_empty() => self.fail(self.missing_old_row()),
            OldRow::Key(old) => self.append(relation, SourceOp::DeleteByKey, old, None, bytes),
        }
    }

    pub(crate) fn truncate(&mut self) {
        self.account.counters.messages += 1;
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
            Ok(()) => self.account.counters.bytes += bytes,
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
            if commit_lsn < self.since || self.account.failure().is_some() {
                return Committed::Nothing;
            }
            let failure = Failure {
                message,
                keep: Some(commit_lsn),
                offsets: None,
                position: end_lsn,
            };
            self.account.fail_at(failure.clone());
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
}

impl Log for TableLog {
    type Position = u64;

    fn table(&self) -> &SourceTable {
        &self.table
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn account_mut(&mut self) -> &mut Account {
        &mut self.account
    }

    fn logs(&self) -> impl Iterator<Item = &TableTransactions> {
        std::iter::once(&self.transactions)
    }

    fn logs_mut(&mut self) -> impl Iterator<Item = &mut TableTransactions> {
        std::iter::once(&mut self.transactions)
    }

    fn is_pending(&self) -> bool {
        matches!(self.snapshot, Snapshot::Pending { .. })
    }

    fn can_be_cut(&self, named: bool) -> bool {
        named || matches!(self.snapshot, Snapshot::Bound { .. } | Snapshot::Committed)
    }

    fn bind(&mut self, position: &u64, taken: &mut TakenTable) -> Result<Option<Failure>, Error> {
        let (table, bound_at) = (self.table.id, *position);
        let mut failed = None;
        match std::mem::replace(&mut self.snapshot, Snapshot::Committed) {
            Snapshot::Staged { position, .. } if position > bound_at => {
                return Err(Error::Invariant(format!(
                    "snapshot of {table} at {position} was bound at {bound_at}"
                )));
            }
            Snapshot::Staged { position, content } => {
                match content.into_parts() {
                    Ok((snapshot, errors)) => {
                        taken.row_errors = self.account.row_errors.install(errors, bound_at);
                        self.account.counters.taken += snapshot.rows;
                        taken.snapshot = Some(snapshot);
                    }
                    Err(message) => {
                        let failure = Failure {
                            message,
                            keep: Some(position),
                            offsets: None,
                            position,
                        };
                        self.account.fail_at(failure.clone());
                        failed = Some(failure);
                    }
                }
                self.snapshot = Snapshot::Bound { position, bound_at };
            }
            Snapshot::Pending { floor } => {
                self.snapshot = Snapshot::Bound {
                    position: floor,
                    bound_at,
                }
            }
            before => self.snapshot = before,
        }
        Ok(failed)
    }

    fn end_cut(&mut self, position: u64) -> CutEnd {
        self.account.end_cut(position, Some(position), None)
    }
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
