//! Rows that hold a value which their table cannot: errors of those rows, gone when the rows are.
//!
//! Owns which rows of one table are in error as of what was taken, how changes move them, and what of it survives a restart.
//! Must not know how values are decoded, where segments end, or files. Called by the logs of tables, when they are cut, and by snapshots.
//!
//! A row in error stands in its collection with fillers (NULL where possible) in the cells that could not be held, so that later changes of it find a row
//! to change and values that the upstream leaves out of an update are still known; reads of the collection fail meanwhile, so nobody sees the fillers.
//! Only a row whose key could not be held stays out. So does a message of a table without a key that could not be read at all ([`MESSAGE`]); with a key it
//! is a row of fillers, until another message of the key heals it.
//!
//! Invariants. Changes are resolved in upstream order, once, when they are taken: what is in error after a position depends on the upstream alone.
//! Whatever [`RowErrors::resolve`] says of errors adds up to what is in error.

use std::collections::{HashMap, HashSet, VecDeque};

use arrow_array::{RecordBatch, UInt32Array};
use flowstone_proto::message::SourceTable;
use flowstone_types::delta::take_rows;
use flowstone_types::value::ColumnFormatter;
use flowstone_types::{EvalError, EvalErrorKind, SourceChanges, SourceOp, SqlType, TypeError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Rows of one table that can be in error at once. Each is kept in memory and written whenever one changes; a table with more is not one to be captured
/// with these types.
pub(crate) const ROW_ERRORS_MAX: usize = 10_000;
/// Characters of a value, a key or a reason that an error quotes.
const QUOTED_MAX: usize = 200;
/// Bytes of an identity that are kept as they are; longer ones are kept as a digest.
const IDENTITY_BYTES_MAX: usize = 512;
/// In place of a column: the whole message that a row came with, or should have.
pub(crate) const MESSAGE: u16 = u16::MAX;
/// Why a cell that an update left out is not known.
const LEFT_OUT: &str =
    "the value was left out of an update by the upstream, and the row could not be held before";

/// A cell of a buffered row that its column cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BadCell {
    /// The row, counted as those of the changes it belongs to.
    pub(crate) row: u32,
    pub(crate) column: u16,
    pub(crate) reason: String,
    /// The value as it came, if it tells the row from others: short ones as text, others as a digest.
    pub(crate) raw: String,
}

/// What is to be known of buffered rows beyond their values, in the order of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notes {
    bad: Vec<BadCell>,
    /// Updates that left out values and changed the key: the deletion right before each is of the same row.
    moved: Vec<u32>,
}

impl Notes {
    pub(crate) fn push_bad(&mut self, cell: BadCell) {
        self.bad.push(cell);
    }

    pub(crate) fn push_moved(&mut self, row: u32) {
        self.moved.push(row);
    }

    /// The rows of [`Self::push_moved`], ascending.
    pub(crate) fn moved(&self) -> &[u32] {
        &self.moved
    }

    /// Bytes that they take in memory.
    pub(crate) fn size(&self) -> usize {
        let texts = self
            .bad
            .iter()
            .map(|cell| cell.reason.len() + cell.raw.len());
        let cells = self.bad.len() * size_of::<BadCell>() + self.moved.len() * size_of::<u32>();
        texts.sum::<usize>() + cells
    }

    /// Puts cells that were noted out of order in the order of the rows.
    pub(crate) fn sort_bad(&mut self) {
        self.bad.sort_by_key(|cell| cell.row);
    }

    /// Forgets what was noted of `row` and those after it.
    pub(crate) fn truncate(&mut self, row: u32) {
        let bad = self.bad.partition_point(|cell| cell.row < row);
        self.bad.truncate(bad);
        let moved = self.moved.partition_point(|moved| *moved < row);
        self.moved.truncate(moved);
    }

    /// Splits off what was noted of the first `rows` rows.
    pub(crate) fn split(&mut self, rows: u32) -> Self {
        let bad = self.bad.partition_point(|cell| cell.row < rows);
        let moved = self.moved.partition_point(|moved| *moved < rows);
        let mut rest = Self {
            bad: self.bad.split_off(bad),
            moved: self.moved.split_off(moved),
        };
        rest.bad.iter_mut().for_each(|cell| cell.row -= rows);
        rest.moved.iter_mut().for_each(|row| *row -= rows);
        std::mem::replace(self, rest)
    }
}

/// A row in error; of a table without a key, equal rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    message: String,
    /// The columns that could not be held, and why.
    columns: Vec<(u16, String)>,
    count: u32,
    /// Whether the collection has the row, with fillers.
    held: bool,
}

impl Standing {
    fn error(&self) -> EvalError {
        EvalError::new(EvalErrorKind::Data, self.message.clone())
    }
}

/// What was in error before a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Undo {
    position: u64,
    identity: String,
    before: Option<Standing>,
}

/// What survives a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SavedRowErrors {
    live: Vec<(String, Standing)>,
    undo: Vec<Undo>,
}

/// The rows of one table that are in error.
#[derive(Debug)]
pub(crate) struct RowErrors {
    table: String,
    columns: Vec<String>,
    /// Columns of the key; none if rows are told apart by all columns.
    key: Vec<usize>,
    live: HashMap<String, Standing>,
    /// How to go back to any position at or above what was acknowledged.
    undo: VecDeque<Undo>,
    /// Whether something changed since it was saved.
    unsaved: bool,
    /// What was in error of the row that the last change deleted by its key.
    just_deleted: Option<Standing>,
}

/// Changes of errors with their weights.
pub(crate) type ErrorChanges = Vec<(EvalError, i64)>;

impl RowErrors {
    pub(crate) fn new(table: &SourceTable) -> Self {
        let (schema, name) = (&table.upstream_schema, &table.upstream_name);
        Self {
            // Topics are in no schema.
            table: if schema.is_empty() {
                name.clone()
            } else {
                format!("{schema}.{name}")
            },
            columns: table
                .columns
                .iter()
                .map(|column| column.name.clone())
                .collect(),
            key: table.key.clone(),
            live: HashMap::new(),
            undo: VecDeque::new(),
            unsaved: false,
            just_deleted: None,
        }
    }

    /// Why there are too many, if there are.
    pub(crate) fn too_many(&self) -> Option<String> {
        (self.live.len() > ROW_ERRORS_MAX).then(|| {
            let example = self.live.values().map(|standing| &standing.message).min();
            format!(
                "more than {ROW_ERRORS_MAX} rows of table \"{}\" hold values that cannot be held, for example: {}",
                self.table,
                example.map_or("", String::as_str)
            )
        })
    }

    /// Everything that is in error.
    pub(crate) fn standing(&self) -> ErrorChanges {
        let mut errors: ErrorChanges = self
            .live
            .values()
            .map(|standing| (standing.error(), i64::from(standing.count)))
            .collect();
        errors.sort();
        errors
    }

    /// The same as a list that [`RowErrors::install`] takes.
    pub(crate) fn into_rows(self) -> Vec<(String, Standing)> {
        sorted(self.live)
    }

    /// The rows in error of a snapshot that becomes the table's content at `position`.
    pub(crate) fn install(&mut self, rows: Vec<(String, Standing)>, position: u64) -> ErrorChanges {
        let mut errors = Vec::new();
        for (identity, standing) in rows {
            self.put(identity, Some(standing), position, &mut errors);
        }
        errors
    }

    /// What must be saved, if anything changed since it was.
    pub(crate) const fn unsaved(&self) -> bool {
        self.unsaved
    }

    pub(crate) fn nothing_to_save(&self) -> bool {
        self.live.is_empty() && self.undo.is_empty()
    }

    pub(crate) fn set_saved(&mut self) {
        self.unsaved = false;
    }

    pub(crate) fn save(&self) -> SavedRowErrors {
        SavedRowErrors {
            live: sorted(self.live.clone()),
            undo: self.undo.iter().cloned().collect(),
        }
    }

    /// Goes back to what was in error at `position`, which is at or above what was acknowledged.
    pub(crate) fn restore(&mut self, saved: SavedRowErrors, position: u64) {
        self.live = saved.live.into_iter().collect();
        self.undo = saved.undo.into();
        while let Some(last) = self.undo.back()
            && last.position > position
            && let Some(last) = self.undo.pop_back()
        {
            match last.before {
                Some(standing) => self.live.insert(last.identity, standing),
                None => self.live.remove(&last.identity),
            };
            self.unsaved = true;
        }
    }

    /// Nobody goes back to a position before this one.
    pub(crate) fn acknowledge(&mut self, position: u64) {
        while self
            .undo
            .front()
            .is_some_and(|undo| undo.position <= position)
        {
            self.undo.pop_front();
        }
    }

    /// Finds out which rows are in error after `changes`, which are taken at `position`. Returns the changes without the rows that cannot be in the
    /// collection, and how the errors change.
    pub(crate) fn resolve(
        &mut self,
        mut changes: SourceChanges,
        notes: Notes,
        position: u64,
    ) -> Result<(SourceChanges, ErrorChanges), TypeError> {
        let mut errors = Vec::new();
        if self.live.is_empty() && notes.bad.is_empty() && self.just_deleted.is_none() {
            return Ok((changes, errors));
        }
        if changes.truncate_before {
            self.just_deleted = None;
            for (identity, _) in sorted(self.live.clone()) {
                self.put(identity, None, position, &mut errors);
            }
        }
        let rows = changes.rows.clone();
        let texts = Texts::new(&rows)?;
        let mut bad = grouped(notes.bad.into_iter().map(|cell| (cell.row, cell)));
        let left_out = grouped(changes.unchanged.iter().copied());
        let moved: HashSet<u32> = notes.moved.into_iter().collect();
        let mut outside: HashSet<u32> = HashSet::new();
        let mut unknown: HashSet<u32> = HashSet::new();
        for (row, op) in (0_u32..).zip(&changes.ops) {
            let cells = bad.remove(&row).unwrap_or_default();
            let just_deleted = self.just_deleted.take();
            if self.key.is_empty() {
                if !cells.is_empty() {
                    if cells.iter().any(|cell| cell.column == MESSAGE) {
                        outside.insert(row);
                    }
                    self.count_row(*op, &texts, row, cells, position, &mut errors)?;
                }
                continue;
            }
            if cells.is_empty() && self.live.is_empty() && just_deleted.is_none() {
                continue;
            }
            let key = self.key_of(&texts, row, &cells)?;
            let in_key = |cell: &BadCell| self.key.contains(&usize::from(cell.column));
            let held = !cells.iter().any(in_key);
            if !held {
                outside.insert(row);
            }
            match op {
                SourceOp::Delete | SourceOp::DeleteByKey => {
                    let before = self.put(key.identity, None, position, &mut errors);
                    self.just_deleted = before.filter(|_| *op == SourceOp::DeleteByKey);
                }
                SourceOp::Insert | SourceOp::Upsert => {
                    let from = if moved.contains(&row) {
                        just_deleted
                    } else {
                        self.live.get(&key.identity).cloned()
                    };
                    let mut columns: Vec<(u16, String)> = cells
                        .into_iter()
                        .map(|cell| (cell.column, cell.reason))
                        .collect();
                    if let Some(from) = from {
                        for column in left_out.get(&row).into_iter().flatten() {
                            let before = from.columns.iter().find(|(other, _)| other == column);
                            match before {
                                Some(before) => columns.push(before.clone()),
                                None if !from.held => columns.push((*column, LEFT_OUT.to_owned())),
                                None => {}
                            }
                        }
                        if !from.held {
                            unknown.insert(row);
                        }
                    }
                    let after = (!columns.is_empty()).then(|| Standing {
                        message: self.message(Some(&key.text), &columns),
                        columns,
                        count: 1,
                        held,
                    });
                    self.put(key.identity, after, position, &mut errors);
                }
            }
        }
        changes.unchanged.retain(|(row, _)| !unknown.contains(row));
        changes.moved.retain(|row| !unknown.contains(row));
        Ok((without(changes, &outside)?, errors))
    }

    /// One row more or less of a table without a key.
    fn count_row(
        &mut self,
        op: SourceOp,
        texts: &Texts<'_>,
        row: u32,
        cells: Vec<BadCell>,
        position: u64,
        errors: &mut ErrorChanges,
    ) -> Result<(), TypeError> {
        let told_by: Vec<usize> = if cells.iter().any(|cell| cell.column == MESSAGE) {
            // There are no values.
            vec![usize::from(MESSAGE)]
        } else {
            (0..self.columns.len()).collect()
        };
        let identity = texts.identity(row, &told_by, &cells)?;
        let mut standing = self.live.get(&identity).cloned().unwrap_or_else(|| {
            let columns = cells
                .into_iter()
                .map(|cell| (cell.column, cell.reason))
                .collect::<Vec<_>>();
            Standing {
                message: self.message(None, &columns),
                columns,
                count: 0,
                held: true,
            }
        });
        standing.count = match op {
            SourceOp::Insert | SourceOp::Upsert => standing.count.saturating_add(1),
            SourceOp::Delete | SourceOp::DeleteByKey => standing.count.saturating_sub(1),
        };
        let after = (standing.count > 0).then_some(standing);
        self.put(identity, after, position, errors);
        Ok(())
    }

    /// Says what is in error of one row from now on; returns what was.
    fn put(
        &mut self,
        identity: String,
        after: Option<Standing>,
        position: u64,
        errors: &mut ErrorChanges,
    ) -> Option<Standing> {
        let before = match &after {
            Some(after) => self.live.insert(identity.clone(), after.clone()),
            None => self.live.remove(&identity),
        };
        if before == after {
            return before;
        }
        errors.extend(
            before
                .iter()
                .map(|before| (before.error(), -i64::from(before.count))),
        );
        errors.extend(
            after
                .iter()
                .map(|after| (after.error(), i64::from(after.count))),
        );
        self.undo.push_back(Undo {
            position,
            identity,
            before: before.clone(),
        });
        self.unsaved = true;
        before
    }

    fn key_of(&self, texts: &Texts<'_>, row: u32, cells: &[BadCell]) -> Result<Key, TypeError> {
        let mut values = Vec::with_capacity(self.key.len());
        for column in &self.key {
            let bad = cells
                .iter()
                .find(|cell| usize::from(cell.column) == *column);
            values.push(match bad {
                Some(cell) => cell.raw.clone(),
                None => texts
                    .text(row, *column)?
                    .unwrap_or_else(|| "null".to_owned()),
            });
        }
        let names = self
            .key
            .iter()
            .filter_map(|column| self.columns.get(*column));
        Ok(Key {
            identity: texts.identity(row, &self.key, cells)?,
            text: format!(
                "({})=({})",
                itertools::join(names, ", "),
                shortened(&values.join(", "))
            ),
        })
    }

    fn message(&self, key: Option<&str>, columns: &[(u16, String)]) -> String {
        let mut message = String::new();
        for (column, reason) in columns {
            let name = self.columns.get(usize::from(*column));
            let name = name.map_or("?", String::as_str);
            if message.is_empty() {
                let key = key.map_or_else(String::new, |key| format!(", key {key}"));
                message = if *column == MESSAGE {
                    format!("invalid message of table \"{}\"{key}: {reason}", self.table)
                } else {
                    format!(
                        "invalid data in column \"{name}\" of table \"{}\"{key}: {reason}",
                        self.table
                    )
                };
            } else {
                message.push_str(&format!("; in column \"{name}\": {reason}"));
            }
        }
        message
    }
}

/// What tells a row from others.
struct Key {
    identity: String,
    /// For messages.
    text: String,
}

/// The values of a batch as text.
struct Texts<'a> {
    columns: Vec<ColumnFormatter<'a>>,
}

impl<'a> Texts<'a> {
    fn new(rows: &'a RecordBatch) -> Result<Self, TypeError> {
        let schema = rows.schema();
        let columns = schema.fields().iter().zip(rows.columns());
        let columns = columns
            .map(|(field, column)| ColumnFormatter::new(column, &SqlType::from_field(field)?))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { columns })
    }

    fn text(&self, row: u32, column: usize) -> Result<Option<String>, TypeError> {
        let (Some(formatter), Ok(row)) = (self.columns.get(column), usize::try_from(row)) else {
            return Ok(None);
        };
        let mut text = String::new();
        Ok(formatter.write_text(row, &mut text)?.then_some(text))
    }

    /// What the row has in `columns`, where a value that could not be held counts as it came.
    fn identity(
        &self,
        row: u32,
        columns: &[usize],
        cells: &[BadCell],
    ) -> Result<String, TypeError> {
        let mut values = Vec::with_capacity(columns.len());
        for column in columns {
            let bad = cells
                .iter()
                .find(|cell| usize::from(cell.column) == *column);
            values.push(match bad {
                Some(cell) => serde_json::Value::from(vec![cell.raw.clone()]),
                None => self
                    .text(row, *column)?
                    .map_or(serde_json::Value::Null, serde_json::Value::from),
            });
        }
        let identity = serde_json::Value::from(values).to_string();
        Ok(if identity.len() > IDENTITY_BYTES_MAX {
            digest(identity.as_bytes())
        } else {
            identity
        })
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// A value as it came, exact or as a digest.
pub(crate) fn raw_text(value: &[u8]) -> String {
    if value.len() > IDENTITY_BYTES_MAX {
        return digest(value);
    }
    std::str::from_utf8(value).map_or_else(|_| value.escape_ascii().to_string(), str::to_owned)
}

/// At most [`QUOTED_MAX`] characters of a text.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

fn sorted(live: HashMap<String, Standing>) -> Vec<(String, Standing)> {
    let mut rows: Vec<_> = live.into_iter().collect();
    rows.sort_by(|left, right| left.0.cmp(&right.0));
    rows
}

fn grouped<T>(items: impl Iterator<Item = (u32, T)>) -> HashMap<u32, Vec<T>> {
    let mut groups: HashMap<u32, Vec<T>> = HashMap::new();
    for (row, item) in items {
        groups.entry(row).or_default().push(item);
    }
    groups
}

/// The changes without some of their rows.
fn without(changes: SourceChanges, outside: &HashSet<u32>) -> Result<SourceChanges, TypeError> {
    if outside.is_empty() {
        return Ok(changes);
    }
    let mut kept = Vec::with_capacity(changes.ops.len());
    let mut ops = Vec::with_capacity(changes.ops.len());
    let mut places: HashMap<u32, u32> = HashMap::new();
    for ((row, place), op) in (0_u32..)
        .filter(|row| !outside.contains(row))
        .zip(0_u32..)
        .map_while(|(row, place)| {
            let op = changes.ops.get(usize::try_from(row).ok()?)?;
            Some(((row, place), *op))
        })
    {
        kept.push(row);
        ops.push(op);
        places.insert(row, place);
    }
    let unchanged = changes
        .unchanged
        .into_iter()
        .filter_map(|(row, column)| Some((*places.get(&row)?, column)))
        .collect();
    let moved = changes.moved.iter();
    Ok(SourceChanges {
        rows: take_rows(&changes.rows, &UInt32Array::from(kept))?,
        ops,
        unchanged,
        moved: moved.filter_map(|row| places.get(row).copied()).collect(),
        truncate_before: changes.truncate_before,
    })
}

#[cfg(test)]
mod tests;
