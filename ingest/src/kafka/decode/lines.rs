//! Rows of changes while they are put together: what each says, which message it is from, and where its cells are.
//!
//! Owns what envelopes and unreadable messages mean for the rows of a table. Must not know formats. Called by [`super::TableDecoder`].

use std::iter::Peekable;
use std::slice::Iter;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use flowstone_formats::envelope::debezium::Truncation;
use flowstone_formats::envelope::updates::Update;
use flowstone_formats::{BadRow, Decoded};
use flowstone_proto::kafka::{Include, KafkaColumn, OnDecodeError};
use flowstone_types::{SourceOp, TypeError};

use super::columns::{self, Cells, Place, gather, is_whole};
use super::updates::{Told, Updates};
use super::{Changes, Kind, Outcome, Stop, TableDecoder, dead_letter};
use crate::kafka::batch::{Batch, Message};
use crate::row_errors::{BadCell, MESSAGE, Notes, raw_text, shortened};
use crate::transactions::Messages;

/// What stands for the bytes of a key where there is none.
const NO_KEY: &str = "null";
/// Rows of updates that are put together: so many that a segment of the log is never parted for them, and no time is too large for one.
const PART_ROWS: usize = 8191;
/// The same in bytes of rows, which columns hardly are more than.
const PART_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of rows of updates after which those of further messages wait until these are in the log, where there is a bound. A row may come any number of times.
const AT_ONCE_BYTES: usize = 64 * 1024 * 1024;
/// What a row costs beside its bytes.
const ROW_BYTES: usize = 64;
/// Why a value of a new row is not known.
const LEFT_OUT: &str =
    "the value was left out by the upstream, which happens if the key of its row is changed";

/// Finds the rows of payloads that are asked for in ascending order.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    rows: &'a [u32],
    next: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(decoded: &'a Decoded) -> Self {
        Self {
            rows: &decoded.rows,
            next: 0,
        }
    }

    /// The row of a payload.
    pub(super) fn row(&mut self, index: u32) -> Option<usize> {
        while self.rows.get(self.next).is_some_and(|row| *row < index) {
            self.next += 1;
        }
        (self.rows.get(self.next) == Some(&index)).then_some(self.next)
    }
}

/// What of a message could not be read.
#[derive(Clone, Copy, Debug)]
enum Bad {
    /// So much that no row of a key is known; where the columns of the key are, if they are.
    Message(Place),
    /// The key, which an upsert needs.
    Key,
    /// The value, of the row of this key.
    Value(Place),
}

/// Rows up to a place where the table is emptied.
#[derive(Debug, Default)]
struct Lines {
    /// The offset after the message that emptied the table before the first row.
    emptied: Option<i64>,
    ops: Vec<SourceOp>,
    /// By row, its message.
    messages: Vec<u32>,
    /// By row, where columns of the key are, and all others.
    keys: Vec<Place>,
    rows: Vec<Place>,
    unchanged: Vec<(u32, u16)>,
    notes: Notes,
    /// Why values could not be read, of rows that tell it themselves.
    told: Vec<(u32, String)>,
}

impl Lines {
    fn next(&self) -> u32 {
        u32::try_from(self.ops.len()).unwrap_or(u32::MAX)
    }

    fn push(&mut self, op: SourceOp, message: u32, keys: Place, rows: Place) {
        self.ops.push(op);
        self.messages.push(message);
        self.keys.push(keys);
        self.rows.push(rows);
    }

    /// A deletion of a row that may not be there: without the upsert before it that would be an error.
    fn push_deletion(&mut self, message: u32, keys: Place, rows: Place) {
        self.push(SourceOp::Upsert, message, keys, rows);
        self.push(SourceOp::DeleteByKey, message, keys, rows);
    }
}

/// The decoded columns that rows are taken from.
#[derive(Clone, Copy, Debug)]
enum Source<'s> {
    /// Those of keys and those of values.
    Plain {
        keys: Option<&'s Decoded>,
        values: &'s Decoded,
    },
    /// Those of changed rows, and those of keys.
    Changed {
        changes: &'s Changes,
        rows: &'s RecordBatch,
        keys: Option<&'s Decoded>,
    },
}

/// The changes of one batch while they are put together.
#[derive(Debug)]
pub(super) struct Building<'a> {
    decoder: &'a TableDecoder,
    batch: &'a Batch,
    messages: &'a [Message],
    keys: &'a [Option<&'a [u8]>],
    key_rows: Option<&'a Decoded>,
    lines: Lines,
    outcome: Outcome,
}

impl<'a> Building<'a> {
    pub(super) fn new(
        decoder: &'a TableDecoder,
        batch: &'a Batch,
        messages: &'a [Message],
        keys: &'a [Option<&'a [u8]>],
        key_rows: Option<&'a Decoded>,
    ) -> Self {
        Self {
            decoder,
            batch,
            messages,
            keys,
            key_rows,
            lines: Lines::default(),
            outcome: Outcome::default(),
        }
    }

    /// What came of it; the last `wanted` messages count.
    pub(super) fn finish(mut self, wanted: usize) -> Outcome {
        let all = u64::try_from(self.messages.len()).unwrap_or(u64::MAX);
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let whole = u64::try_from(self.batch.messages.len()).unwrap_or(u64::MAX);
        self.outcome.messages = wanted.min(all);
        self.outcome.bytes = (self.batch.size() / whole.max(1)).saturating_mul(wanted.min(all));
        if wanted == whole {
            self.outcome.bytes = self.batch.size();
        }
        self.outcome
    }

    fn message(&self, index: u32) -> Option<&'a Message> {
        self.messages.get(usize::try_from(index).ok()?)
    }

    fn key(&self, index: u32) -> Option<&'a [u8]> {
        let index = usize::try_from(index).ok()?;
        self.keys.get(index).copied().flatten()
    }

    /// Every message is a row.
    pub(super) fn append(
        &mut self,
        values: &[Option<&[u8]>],
        value_rows: &Decoded,
    ) -> Result<(), Stop> {
        let key_rows = self.key_rows;
        let mut found_key = key_rows.map(Cursor::new);
        let mut found_value = Cursor::new(value_rows);
        for (index, value) in (0_u32..).zip(values) {
            let key_row = found_key.as_mut().and_then(|found| found.row(index));
            let key = key_row.map_or(Place::Nowhere, Place::Row);
            let fault = match (key_rows, key_row) {
                (None, _) | (_, Some(_)) => None,
                (Some(keys), None) => self.fault_of_key(index, keys),
            };
            if let Some(fault) = fault {
                self.refuse(index, &fault, Bad::Message(key))?;
                continue;
            }
            match (value, found_value.row(index)) {
                (Some(_), Some(row)) => {
                    self.lines
                        .push(SourceOp::Insert, index, key, Place::Row(row));
                }
                (Some(_), None) => {
                    let reason = value_rows.reason_of(index).unwrap_or("it was not decoded");
                    let reason = format!("cannot read the value: {reason}");
                    self.refuse(index, &reason, Bad::Message(key))?;
                }
                (None, _) => {
                    self.refuse(index, "message has no value", Bad::Message(key))?;
                }
            }
        }
        self.flush(Source::Plain {
            keys: key_rows,
            values: value_rows,
        })
    }

    /// Why a message of which no key was decoded is no row, if it is none.
    fn fault_of_key(&self, index: u32, keys: &Decoded) -> Option<String> {
        if let Some(reason) = keys.reason_of(index) {
            return Some(format!("cannot read the key: {reason}"));
        }
        let decoder = self.decoder;
        let fields = decoder.schema.fields().iter();
        let needed = fields
            .zip(&decoder.spec.columns)
            .any(|(field, column)| matches!(column, KafkaColumn::Key(_)) && !field.is_nullable());
        needed.then(|| "message has no key".to_owned())
    }

    /// Every message says what is the row of its key from now on.
    pub(super) fn upsert(
        &mut self,
        values: &[Option<&[u8]>],
        value_rows: &Decoded,
    ) -> Result<(), Stop> {
        let Some(key_rows) = self.key_rows else {
            return Err(Stop::Table("upsert needs a key".to_owned()));
        };
        let mut found_key = Cursor::new(key_rows);
        let mut found_value = Cursor::new(value_rows);
        for (index, value) in (0_u32..).zip(values) {
            let value_row = found_value.row(index);
            let Some(key_row) = found_key.row(index) else {
                let reason = match self.key(index) {
                    None => "message has no key, which an upsert needs".to_owned(),
                    Some(_) => {
                        let reason = key_rows.reason_of(index).unwrap_or("it was not decoded");
                        format!("cannot read the key: {reason}")
                    }
                };
                self.refuse(index, &reason, Bad::Key)?;
                continue;
            };
            let key = Place::Row(key_row);
            match (value, value_row) {
                (None, _) => self.lines.push_deletion(index, key, Place::Nowhere),
                (Some(_), Some(row)) => {
                    self.lines
                        .push(SourceOp::Upsert, index, key, Place::Row(row));
                }
                (Some(_), None) => {
                    let reason = value_rows.reason_of(index).unwrap_or("it was not decoded");
                    let reason = format!("cannot read the value: {reason}");
                    self.refuse(index, &reason, Bad::Value(key))?;
                }
            }
        }
        self.flush(Source::Plain {
            keys: Some(key_rows),
            values: value_rows,
        })
    }

    /// Every message is a change with images of rows.
    pub(super) fn changes(
        &mut self,
        changes: &Changes,
        values: &[Option<&[u8]>],
        value_rows: &Decoded,
    ) -> Result<(), Stop> {
        let applied = changes.envelope.apply(self.key_rows, (values, value_rows));
        let (changed, truncations) = applied.map_err(|error| Stop::Table(error.to_string()))?;
        let source = Source::Changed {
            changes,
            rows: &changed.changes.rows,
            keys: self.key_rows,
        };
        let mut others = Others {
            bad: changed.bad.iter().peekable(),
            truncations: truncations.iter().peekable(),
        };
        let left_out = |row: usize| {
            let row = u32::try_from(row).unwrap_or(u32::MAX);
            let unchanged = &changed.changes.unchanged;
            let first = unchanged.partition_point(|(other, _)| *other < row);
            let found = unchanged.get(first..).unwrap_or_default();
            found
                .iter()
                .take_while(move |(other, _)| *other == row)
                .map(|(_, column)| usize::from(*column))
        };
        let told = changed.changes.ops.iter().zip(&changed.origins);
        let told: Vec<(SourceOp, u32)> = told.map(|(op, origin)| (*op, *origin)).collect();
        for (row, (op, index)) in told.iter().copied().enumerate() {
            self.others_before(Some(index), &mut others, changes, source)?;
            let place = Place::Row(row);
            let is_unknown = cells_of(&changed.unknown, row).next().is_some();
            if is_unknown && !matches!(self.decoder.on_decode_error(), OnDecodeError::Row) {
                let key = self.key_of_change(index, changes);
                let bad_part = key.map_or(Bad::Message(Place::Nowhere), Bad::Value);
                self.refuse(index, LEFT_OUT, bad_part)?;
                continue;
            }
            let moves_on = told.get(row + 1) == Some(&(SourceOp::Upsert, index))
                && left_out(row + 1).next().is_some();
            // The values of a row that moves to another key are those that are left out there.
            if op == SourceOp::DeleteByKey && !moves_on {
                self.lines.push_deletion(index, Place::Nowhere, place);
                continue;
            }
            let line = self.lines.next();
            self.lines.push(op, index, Place::Nowhere, place);
            if is_unknown {
                let unknown = cells_of(&changed.unknown, row);
                let columns = unknown.flat_map(|column| changes.columns_of(column));
                for column in columns {
                    self.lines.notes.push_bad(BadCell {
                        row: line,
                        column,
                        reason: LEFT_OUT.to_owned(),
                        raw: String::new(),
                    });
                }
            }
            let columns = left_out(row).flat_map(|column| changes.columns_of(column));
            let before = self.lines.unchanged.len();
            self.lines
                .unchanged
                .extend(columns.map(|column| (line, column)));
            self.lines
                .unchanged
                .get_mut(before..)
                .unwrap_or_default()
                .sort_unstable();
            let moved = row
                .checked_sub(1)
                .is_some_and(|last| told.get(last) == Some(&(SourceOp::DeleteByKey, index)));
            if moved && self.lines.unchanged.len() > before {
                self.lines.notes.push_moved(line);
            }
        }
        self.others_before(None, &mut others, changes, source)?;
        self.flush(source)
    }

    /// Messages are updates with times: rows come of those with which times became whole.
    pub(super) fn updates(&mut self, updates: &Updates) -> Result<(), Stop> {
        let nothing = Decoded {
            columns: Vec::new(),
            rows: Vec::new(),
            bad: Vec::new(),
        };
        let source = Source::Plain {
            keys: None,
            values: &nothing,
        };
        let mut rows: Vec<(&Update, i64)> = Vec::new();
        let (mut part_bytes, mut all_bytes) = (0_usize, 0_usize);
        let messages = self.messages;
        for (index, message) in (0_u32..).zip(messages) {
            if let Some((offset, reason)) = updates.broken()
                && offset <= message.offset
            {
                // What is before it counts, whatever the batch is.
                let reason = reason.to_owned();
                return Err(match self.batch.before(offset) {
                    0 => Stop::Table(reason),
                    _ => Stop::Message {
                        offset,
                        message: reason,
                    },
                });
            }
            match updates.told(message.offset) {
                None => {}
                Some(Told::Bad(reason)) => {
                    self.push_updates(&mut rows, updates)?;
                    let reason = format!("cannot read the value: {reason}");
                    self.refuse(index, &reason, Bad::Message(Place::Nowhere))?;
                    self.flush(source)?;
                }
                Some(Told::Closed(_)) if all_bytes >= AT_ONCE_BYTES => {
                    // The batch is cut here: nothing waits with it.
                    return Err(Stop::Message {
                        offset: message.offset,
                        message: "there are too many rows at once".to_owned(),
                    });
                }
                Some(Told::Closed(closed)) => {
                    for update in closed {
                        for _ in 0..update.weight.unsigned_abs() {
                            rows.push((update, message.offset + 1));
                            part_bytes = part_bytes.saturating_add(update.row.len());
                            all_bytes = all_bytes.saturating_add(update.row.len() + ROW_BYTES);
                            if rows.len() >= PART_ROWS || part_bytes >= PART_BYTES {
                                self.push_updates(&mut rows, updates)?;
                                part_bytes = 0;
                            }
                        }
                    }
                }
            }
        }
        self.push_updates(&mut rows, updates)
    }

    /// Makes a batch of rows, each with the offset after its message.
    fn push_updates(
        &mut self,
        rows: &mut Vec<(&Update, i64)>,
        updates: &Updates,
    ) -> Result<(), Stop> {
        if rows.is_empty() {
            return Ok(());
        }
        let batch = updates
            .rows(rows, &self.decoder.schema)
            .map_err(|error| Stop::Table(error.to_string()))?;
        let op = |(update, _): &(&Update, i64)| {
            if update.weight < 0 {
                SourceOp::Delete
            } else {
                SourceOp::Insert
            }
        };
        self.outcome.changes.push(Messages {
            partition: self.batch.partition,
            emptied: None,
            rows: batch,
            ops: rows.iter().map(op).collect(),
            next: rows.iter().map(|(_, next)| *next).collect(),
            unchanged: Vec::new(),
            notes: Notes::default(),
        });
        rows.clear();
        Ok(())
    }

    /// What is not a row of a change and comes before the message `limit`.
    fn others_before(
        &mut self,
        limit: Option<u32>,
        others: &mut Others<'_>,
        changes: &Changes,
        source: Source<'_>,
    ) -> Result<(), Stop> {
        loop {
            let is_before = |index: &u32| limit.is_none_or(|limit| *index < limit);
            let bad = others.bad.peek().map(|bad| bad.index).filter(is_before);
            let emptied = others.truncations.peek().map(|emptied| emptied.index);
            match (bad, emptied.filter(is_before)) {
                (None, None) => return Ok(()),
                (Some(bad), emptied) if emptied.is_none_or(|emptied| bad < emptied) => {
                    let Some(bad) = others.bad.next() else {
                        return Ok(());
                    };
                    let key = self.key_of_change(bad.index, changes);
                    let bad_part = key.map_or(Bad::Message(Place::Nowhere), Bad::Value);
                    self.refuse(bad.index, &bad.reason, bad_part)?;
                }
                _ => {
                    let Some(emptied) = others.truncations.next() else {
                        return Ok(());
                    };
                    self.flush(source)?;
                    let message = self.message(emptied.index);
                    self.lines.emptied = message.map(|message| message.offset + 1);
                }
            }
        }
    }

    /// Where the key of a change is, if the message's key tells it.
    fn key_of_change(&self, index: u32, changes: &Changes) -> Option<Place> {
        let columns = &self.decoder.key_columns;
        let told = |column: &usize| changes.in_key.get(*column).copied().flatten().is_some();
        if columns.is_empty() || !columns.iter().all(told) {
            return None;
        }
        self.key_rows?.row_of(index).map(Place::Key)
    }

    /// A message cannot be read.
    fn refuse(&mut self, index: u32, reason: &str, bad: Bad) -> Result<(), Stop> {
        let Some(message) = self.message(index) else {
            return Ok(());
        };
        let (partition, offset) = (self.batch.partition, message.offset);
        match self.decoder.on_decode_error() {
            OnDecodeError::Fail => {
                let message = format!(
                    "message at partition {partition}, offset {offset} cannot be read: {reason}"
                );
                return Err(Stop::Message { offset, message });
            }
            OnDecodeError::DeadLetter { topic } => {
                let letter = dead_letter(self.batch, message, topic, reason.to_owned());
                self.outcome.dead.push(letter);
                return Ok(());
            }
            OnDecodeError::Inline | OnDecodeError::Row => {}
        }
        let line = self.lines.next();
        let has_key = !self.decoder.key_columns.is_empty();
        let has_images = matches!(self.decoder.kind, Kind::Changes(_));
        let by_key = self.decoder.key_columns.first();
        let by_key = by_key.and_then(|column| u16::try_from(*column).ok());
        let place = format!("{partition}:{offset}");
        let (op, key, column, raw) = match bad {
            Bad::Message(key) if has_key => (SourceOp::Upsert, key, by_key, place),
            Bad::Message(key) => (SourceOp::Insert, key, Some(MESSAGE), place),
            Bad::Value(key) => (SourceOp::Upsert, key, Some(MESSAGE), String::new()),
            Bad::Key => {
                let is_deletion = self.batch.value(message).is_none();
                let op = if is_deletion {
                    SourceOp::DeleteByKey
                } else {
                    SourceOp::Upsert
                };
                let raw = self.key(index).map_or_else(|| NO_KEY.to_owned(), raw_text);
                (op, Place::Nowhere, by_key, raw)
            }
        };
        let rows = if has_images { key } else { Place::Nowhere };
        self.lines.push(op, index, key, rows);
        let is_told = matches!(self.decoder.on_decode_error(), OnDecodeError::Inline)
            && !matches!(bad, Bad::Key);
        if is_told {
            self.lines.told.push((line, shortened(reason)));
            return Ok(());
        }
        self.lines.notes.push_bad(BadCell {
            row: line,
            column: column.unwrap_or(MESSAGE),
            reason: format!(
                "{} (partition {partition}, offset {offset})",
                shortened(reason)
            ),
            raw,
        });
        Ok(())
    }

    /// Makes a batch of the rows so far.
    fn flush(&mut self, source: Source<'_>) -> Result<(), Stop> {
        let lines = std::mem::take(&mut self.lines);
        if lines.ops.is_empty() && lines.emptied.is_none() {
            return Ok(());
        }
        let changes = self
            .batch_of(lines, source)
            .map_err(|error| Stop::Table(error.to_string()))?;
        self.outcome.changes.push(changes);
        Ok(())
    }

    fn batch_of(&self, mut lines: Lines, source: Source<'_>) -> Result<Messages, TypeError> {
        let decoder = self.decoder;
        let count = lines.ops.len();
        let (key_rows, all_rows) = match source {
            Source::Plain { keys, values } => {
                (keys.map_or(0, |keys| keys.rows.len()), values.rows.len())
            }
            Source::Changed { rows, .. } => (0, rows.num_rows()),
        };
        let whole_keys = is_whole(&lines.keys, key_rows);
        let whole_rows = is_whole(&lines.rows, all_rows);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(decoder.types.len());
        let described = itertools::izip!(
            &decoder.spec.columns,
            &decoder.types,
            decoder.schema.fields().iter()
        );
        for (index, (column, sql_type, field)) in described.enumerate() {
            let cells = Cells {
                sql_type,
                nullable: field.is_nullable(),
            };
            let array = match (column, source) {
                (KafkaColumn::Include(include), _) => {
                    self.include(index, *include, &mut lines, cells)?
                }
                (KafkaColumn::Error, _) => columns::errors(&lines.told, count, cells)?,
                (KafkaColumn::Key(column), Source::Plain { keys, .. }) => {
                    let array = keys.and_then(|keys| keys.columns.get(*column));
                    gather(array, None, &lines.keys, whole_keys, cells)?
                }
                (KafkaColumn::Value(column), Source::Plain { values, .. }) => {
                    let array = values.columns.get(*column);
                    gather(array, None, &lines.rows, whole_rows, cells)?
                }
                (
                    KafkaColumn::Key(_) | KafkaColumn::Value(_),
                    Source::Changed {
                        changes,
                        rows,
                        keys,
                    },
                ) => {
                    let place = changes.places.get(index).copied().flatten();
                    let array = place.and_then(|place| rows.columns().get(place));
                    let in_key = changes.in_key.get(index).copied().flatten();
                    let key = in_key.and_then(|column| keys?.columns.get(column));
                    gather(array, key, &lines.rows, whole_rows, cells)?
                }
            };
            columns.push(array);
        }
        lines.notes.sort_bad();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows =
            RecordBatch::try_new_with_options(Arc::clone(&decoder.schema), columns, &options)?;
        let next = lines.messages.iter().map(|index| {
            let message = self.message(*index);
            message.map_or(0, |message| message.offset + 1)
        });
        Ok(Messages {
            partition: self.batch.partition,
            emptied: lines.emptied,
            next: next.collect(),
            rows,
            ops: lines.ops,
            unchanged: lines.unchanged,
            notes: lines.notes,
        })
    }

    /// A column of what is beside key and value. Text that is none is a cell in error.
    fn include(
        &self,
        column: usize,
        include: usize,
        lines: &mut Lines,
        cells: Cells<'_>,
    ) -> Result<ArrayRef, TypeError> {
        let include = self.decoder.spec.include.get(include);
        let include = include
            .ok_or_else(|| TypeError::Kernel("a column is of nothing that is known".to_owned()))?;
        let messages: Vec<&Message> = lines
            .messages
            .iter()
            .filter_map(|index| self.message(*index))
            .collect();
        if let Include::Header { name, bytes: false } = include {
            for (row, message) in (0_u32..).zip(&messages) {
                let value = columns::header(self.batch, message, name);
                let Some((value, reason)) =
                    value.and_then(|value| Some((value, columns::unfit_text(value)?)))
                else {
                    continue;
                };
                lines.notes.push_bad(BadCell {
                    row,
                    column: u16::try_from(column).unwrap_or(MESSAGE),
                    reason: reason.to_owned(),
                    raw: raw_text(value),
                });
            }
        }
        columns::include(include, self.batch, messages.into_iter(), cells)
    }
}

/// What of a batch of changes is no row.
struct Others<'a> {
    bad: Peekable<Iter<'a, BadRow>>,
    truncations: Peekable<Iter<'a, Truncation>>,
}

/// The columns among cells that are of a row.
fn cells_of(cells: &[(u32, u16)], row: usize) -> impl Iterator<Item = usize> + '_ {
    let row = u32::try_from(row).unwrap_or(u32::MAX);
    let first = cells.partition_point(|(other, _)| *other < row);
    let found = cells.get(first..).unwrap_or_default().iter();
    found
        .take_while(move |(other, _)| *other == row)
        .map(|(_, column)| usize::from(*column))
}

impl Changes {
    /// The columns of the table that are a column of the envelope's relation.
    fn columns_of(&self, column: usize) -> impl Iterator<Item = u16> + '_ {
        let places = (0_u16..).zip(&self.places);
        places
            .filter(move |(_, place)| **place == Some(column))
            .map(|(index, _)| index)
    }
}
