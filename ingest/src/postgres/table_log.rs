//! The changes of one table between what was received and what was taken.
//!
//! Owns the decoded rows, where each transaction ends in them, the table's snapshot until it is bound, and its permanent error.
//! Must not know sockets, other tables or how positions are acknowledged.
//! Called under the source's lock, by the stream (which appends) and by takes (which cut).
//!
//! Invariants. What a cut gives depends only on the transactions received and the snapshot's position, not on how often or where was cut before.
//! Rows of a transaction that has not committed are never cut.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use flowstone_proto::message::SourceTable;
use flowstone_types::{EvalError, EvalErrorKind, SourceChanges, SourceOp, TypeError};

use super::pgoutput::{Cell, OldRow, Relation, Tuple};
use super::row_errors::{
    BadCell, ErrorChanges, Notes, NotesMark, RowErrors, SavedRowErrors, raw_text, shortened,
};
use super::rows::{RowBuilder, Value};
use super::snapshot::Staged;

/// Rows after which a segment is closed: what one batch of changes holds at most.
const SEGMENT_ROWS: usize = 32 * 1024;
/// The same in bytes received.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

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

/// Where a committed transaction ends within a segment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    position: u64,
    rows: usize,
    unchanged: usize,
    notes: NotesMark,
    bytes: u64,
}

#[derive(Debug)]
enum Rows {
    Open(Box<RowBuilder>),
    Closed(RecordBatch),
}

/// A run of changes that becomes one or more batches.
#[derive(Debug)]
struct Segment {
    rows: Rows,
    ops: Vec<SourceOp>,
    unchanged: Vec<(u32, u16)>,
    notes: Notes,
    truncate_before: bool,
    marks: VecDeque<Mark>,
    /// Bytes received for the rows that are still here.
    bytes: u64,
}

impl Segment {
    fn new(rows: Rows, truncate_before: bool) -> Self {
        Self {
            rows,
            ops: Vec::new(),
            unchanged: Vec::new(),
            notes: Notes::default(),
            truncate_before,
            marks: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Whether it holds something of a transaction that has not ended.
    fn unfinished(&self) -> bool {
        match self.marks.back() {
            Some(mark) => self.ops.len() > mark.rows,
            None => !self.ops.is_empty() || self.truncate_before,
        }
    }

    fn close(&mut self, schema: &SchemaRef) -> Result<(), TypeError> {
        if matches!(self.rows, Rows::Open(_))
            && let Rows::Open(builder) = std::mem::replace(
                &mut self.rows,
                Rows::Closed(RecordBatch::new_empty(Arc::clone(schema))),
            )
        {
            self.rows = Rows::Closed(builder.finish()?);
        }
        Ok(())
    }

    /// Splits off everything up to the mark, which is the last one at or below the position of a cut.
    fn split(&mut self, mark: Mark) -> Option<(SourceChanges, Notes)> {
        let Rows::Closed(batch) = &self.rows else {
            return None;
        };
        let rows = batch.slice(0, mark.rows);
        let rest = batch.slice(mark.rows, batch.num_rows() - mark.rows);
        let offset = u32::try_from(mark.rows).unwrap_or(u32::MAX);
        let unchanged = {
            let mut rest = self
                .unchanged
                .split_off(mark.unchanged.min(self.unchanged.len()));
            rest.iter_mut().for_each(|(row, _)| *row -= offset);
            std::mem::replace(&mut self.unchanged, rest)
        };
        let notes = self.notes.split(mark.notes, offset);
        let ops = {
            let rest = self.ops.split_off(mark.rows.min(self.ops.len()));
            std::mem::replace(&mut self.ops, rest)
        };
        self.marks.retain(|other| other.position > mark.position);
        for other in &mut self.marks {
            other.rows -= mark.rows;
            other.unchanged -= mark.unchanged;
            other.notes = other.notes.after(mark.notes);
            other.bytes -= mark.bytes;
        }
        self.bytes -= mark.bytes;
        self.rows = Rows::Closed(rest);
        let truncate_before = std::mem::take(&mut self.truncate_before);
        let changes = SourceChanges {
            rows,
            ops,
            unchanged,
            truncate_before,
        };
        Some((changes, notes))
    }

    /// Forgets what does not belong to a finished transaction. The segment is closed.
    fn roll_back(&mut self) {
        let (rows, unchanged, notes, bytes) =
            self.marks.back().map_or_else(Default::default, |mark| {
                (mark.rows, mark.unchanged, mark.notes, mark.bytes)
            });
        if let Rows::Closed(batch) = &self.rows {
            self.rows = Rows::Closed(batch.slice(0, rows.min(batch.num_rows())));
        }
        self.ops.truncate(rows);
        self.unchanged.truncate(unchanged);
        self.notes.truncate(notes);
        self.bytes = bytes;
        if self.marks.is_empty() {
            self.truncate_before = false;
        }
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty() && !self.truncate_before
    }
}

/// The log of one table.
#[derive(Debug)]
pub(crate) struct TableLog {
    pub(crate) table: SourceTable,
    pub(crate) schema: SchemaRef,
    pub(crate) snapshot: Snapshot,
    /// Transactions whose commit record is below this are not wanted: they are in the commit point or in the snapshot.
    since: u64,
    segments: VecDeque<Segment>,
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
            table,
            schema,
            snapshot,
            since,
            segments: VecDeque::new(),
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

    /// Bytes received for what is in the log.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The snapshot was read at `position`: earlier changes are in it.
    pub(crate) fn set_snapshot(&mut self, position: u64, content: Staged) {
        self.set_since(position);
        self.snapshot = Snapshot::Staged { position, content };
    }

    /// The snapshot is being read at `position`: earlier changes will be in it, later ones must be kept.
    pub(crate) fn set_since(&mut self, position: u64) {
        if let Err(error) = self.cut_segments(position) {
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
                self.note_moved();
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
        if let Err(error) = self.open_segment(true) {
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

    /// Closes what is open and starts a segment.
    fn open_segment(&mut self, truncate_before: bool) -> Result<(), TypeError> {
        if let Some(last) = self.segments.back_mut() {
            last.close(&self.schema)?;
        }
        let builder = RowBuilder::new(Arc::clone(&self.schema), 64)?;
        self.segments
            .push_back(Segment::new(Rows::Open(Box::new(builder)), truncate_before));
        Ok(())
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
        let full = |segment: &Segment| {
            segment.ops.len() >= SEGMENT_ROWS
                || segment.bytes >= SEGMENT_BYTES
                || matches!(segment.rows, Rows::Closed(_))
        };
        if self.segments.back().is_none_or(full) {
            let mapping = mapping.clone();
            if let Err(error) = self.open_segment(false) {
                return self.fail(error.to_string());
            }
            self.mapping = Some(mapping);
        }
        let (Some(mapping), Some(segment)) = (&self.mapping, self.segments.back_mut()) else {
            return;
        };
        let Rows::Open(builder) = &mut segment.rows else {
            return;
        };
        let row = u32::try_from(builder.rows()).unwrap_or(u32::MAX);
        let before = segment.unchanged.len();
        let noted = segment.notes.mark();
        let (unchanged, notes) = (&mut segment.unchanged, &mut segment.notes);
        let mut column = 0_u16;
        let key = &self.table.key;
        let values = mapping.iter().map(|index| {
            let this = column;
            column = column.saturating_add(1);
            let mut cell = tuple.get(*index).copied().unwrap_or(Cell::Null);
            if let (Cell::Unchanged, Some(old)) = (cell, old) {
                cell = old.get(*index).copied().unwrap_or(Cell::Null);
            }
            match cell {
                Cell::Null if op == SourceOp::DeleteByKey && !key.contains(&usize::from(this)) => {
                    Value::Nothing
                }
                Cell::Null => Value::Null,
                Cell::Unchanged => {
                    unchanged.push((row, this));
                    Value::Nothing
                }
                Cell::Text(text) => Value::Text(text),
                Cell::Binary(bytes) => Value::Binary(bytes),
            }
        });
        let appended = builder.append(values, |unfit| {
            // What is not in the key means nothing when a row is deleted by it.
            let in_key = key.contains(&unfit.column);
            if op == SourceOp::DeleteByKey && !in_key {
                return;
            }
            notes.push_bad(BadCell {
                row,
                column: u16::try_from(unfit.column).unwrap_or(u16::MAX),
                reason: shortened(&unfit.reason),
                raw: if in_key || key.is_empty() {
                    raw_text(unfit.raw)
                } else {
                    String::new()
                },
            });
        });
        match appended {
            Ok(()) if op != SourceOp::Upsert && segment.unchanged.len() > before => {
                segment.unchanged.truncate(before);
                segment.notes.truncate(noted);
                let message = format!(
                    "replication stream left out a value of table \"{}\" that is not in the old row",
                    self.name()
                );
                self.ragged(message);
            }
            Ok(()) => {
                segment.ops.push(op);
                segment.bytes += bytes;
                self.counters.bytes += bytes;
            }
            Err(error) => {
                segment.unchanged.truncate(before);
                segment.notes.truncate(noted);
                let column = self
                    .table
                    .columns
                    .get(error.column)
                    .map_or("?", |column| column.name.as_str());
                self.ragged(value_error(&self.name(), column, &error.reason));
            }
        }
    }

    /// The last row is one whose key was changed by the update: what was left out of it is that of the row deleted right before.
    fn note_moved(&mut self) {
        if self.failing.is_some() {
            return;
        }
        if let Some(segment) = self.segments.back_mut()
            && let Some((row, _)) = segment.unchanged.last().copied()
            && usize::try_from(row).is_ok_and(|row| row + 1 == segment.ops.len())
        {
            segment.notes.push_moved(row);
        }
    }

    /// The open segment may hold a row without its operation: it takes no more.
    fn ragged(&mut self, message: String) {
        if let Some(last) = self.segments.back_mut()
            && let Err(error) = last.close(&self.schema)
        {
            tracing::error!(%error, "rows before a failure could not be finished");
        }
        self.fail(message);
    }

    /// The transaction with this commit record ended at `end_lsn`. Returns whether it changed the table, or why the table failed in it.
    pub(crate) fn commit(&mut self, commit_lsn: u64, end_lsn: u64) -> Committed {
        if let Some(message) = self.failing.take() {
            self.roll_back_rows();
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
        if !self.segments.iter().any(Segment::unfinished) {
            return Committed::Nothing;
        }
        if !self.wants(commit_lsn) {
            self.roll_back_rows();
            return Committed::Nothing;
        }
        for segment in self.segments.iter_mut().rev() {
            // Everything before a segment with a mark is of transactions that ended before.
            let last = !segment.marks.is_empty();
            if segment.unfinished() {
                let mark = Mark {
                    position: end_lsn,
                    rows: segment.ops.len(),
                    unchanged: segment.unchanged.len(),
                    notes: segment.notes.mark(),
                    bytes: segment.bytes,
                };
                segment.marks.push_back(mark);
            }
            if last {
                break;
            }
        }
        Committed::Changed
    }

    /// The connection was lost: what did not commit will come again.
    pub(crate) fn roll_back(&mut self) {
        self.failing = None;
        self.mapping = None;
        self.roll_back_rows();
    }

    fn roll_back_rows(&mut self) {
        while let Some(last) = self.segments.back_mut() {
            if last.unfinished() {
                if let Err(error) = last.close(&self.schema) {
                    tracing::error!(%error, "rows could not be finished");
                }
                last.roll_back();
            }
            if !last.marks.is_empty() {
                break;
            }
            self.segments.pop_back();
        }
    }

    /// Everything up to `position`, in order.
    fn cut_segments(&mut self, position: u64) -> Result<Vec<(SourceChanges, Notes)>, TypeError> {
        let mut changes = Vec::new();
        while let Some(first) = self.segments.front_mut() {
            let Some(mark) = first
                .marks
                .iter()
                .take_while(|mark| mark.position <= position)
                .last()
                .copied()
            else {
                break;
            };
            first.close(&self.schema)?;
            changes.extend(first.split(mark));
            if !first.is_empty() || !first.marks.is_empty() {
                break;
            }
            self.segments.pop_front();
        }
        Ok(changes)
    }

    /// Takes everything up to `position`; nothing while the snapshot is not bound.
    pub(crate) fn cut(&mut self, position: u64) -> Result<Cut, TypeError> {
        if matches!(
            self.snapshot,
            Snapshot::Pending { .. } | Snapshot::Staged { .. }
        ) {
            return Ok(Cut::default());
        }
        let mut changes = Vec::new();
        let mut row_errors = Vec::new();
        for (buffered, notes) in self.cut_segments(position)? {
            self.counters.taken += u64::try_from(buffered.ops.len()).unwrap_or(u64::MAX);
            let (resolved, errors) = self.row_errors.resolve(buffered, notes, position)?;
            if !resolved.ops.is_empty() || resolved.truncate_before {
                changes.push(resolved);
            }
            row_errors.extend(errors);
        }
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
        Ok(Cut {
            changes,
            row_errors,
            error,
            failed,
        })
    }
}

/// What a cut gives.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub(crate) changes: Vec<SourceChanges>,
    /// How the errors of rows change.
    pub(crate) row_errors: ErrorChanges,
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
