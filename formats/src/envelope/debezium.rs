//! Changes with images of rows: Debezium's envelopes, and those of CockroachDB, which are like them.
//!
//! Owns what `op`, `before` and `after` mean together. Must not know Avro or JSON: both give the columns of a [`ChangeLayout`].
//! Called by sources of messages. Pure.
//!
//! | there is | with a key | without one |
//! |---|---|---|
//! | `after` alone (`c`, `r`, or `u` of an upstream that sends no old row) | upsert | insert; of `u` bad |
//! | both (`u`) | upsert; if the key changed, deletion by the old one first | deletion of the old row, insert |
//! | `before` alone (`d`) | deletion by key | deletion of the old row |
//! | neither (`d` of an upstream that sends no old row) | deletion by the message's key | bad |
//!
//! An insertion is an upsert where there is a key, because connectors send events again when they restart.
//! Messages without a value, those with `resolved`, those without key, images and `op` (`resolved` in Avro, whose schema is another one), and those of `op` `m`
//! (messages of transactions) say nothing about rows. `t` (all rows are gone) ends what can be known of the table by rows alone: it is handed on as
//! [`Truncation`].
//!
//! Values that an upstream leaves out are unchanged ones of the row of the key. A new row, of `c`, has none: it is one whose key was changed, which Debezium
//! tells by a deletion, a tombstone and a creation. The old key's messages are in any partition, so that its values cannot be had: they are handed on as
//! [`Changed::unknown`].

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, StringArray};
use flowstone_types::SourceOp;
use flowstone_types::jsonb::JsonbBuilder;

use super::layout::{ChangeLayout, Note};
use super::{Changed, Collected, is_unavailable};
use crate::error::Error;
use crate::relation::Relation;
use crate::rows::Decoded;
use crate::semantic::UNAVAILABLE;

/// A column of the table that is part of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// The column of the table.
    pub column: usize,
    /// The column of the message's decoded key that has the same value, if there is one.
    pub in_key: Option<usize>,
}

/// A message that says that all rows are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// Which message.
    pub index: u32,
    /// How many rows of the changes come before it.
    pub rows_before: usize,
}

/// The envelope of one table.
#[derive(Clone, Debug)]
pub struct DebeziumEnvelope {
    layout: ChangeLayout,
    key: Vec<KeyColumn>,
    /// The columns of the key that the images of rows lack, MongoDB's, come first.
    extra: Relation,
    relation: Relation,
}

/// Sets of columns that rows are taken from.
const AFTER: usize = 0;
const BEFORE: usize = 1;
const KEY: usize = 2;

/// What one message says.
struct Event<'a> {
    index: u32,
    row: usize,
    after: bool,
    before: bool,
    op: Option<&'a str>,
    /// The row of the decoded key.
    key_row: Option<usize>,
}

impl DebeziumEnvelope {
    /// The envelope of changes of this layout; without a key if `key` is empty.
    #[must_use]
    pub fn new(layout: ChangeLayout, key: Vec<KeyColumn>) -> Self {
        let relation = layout.row().clone();
        Self {
            layout,
            key,
            extra: Relation::default(),
            relation,
        }
    }

    /// The envelope of changes of documents: the columns of the message's key are put before those of the images, which lack them. Every message must have
    /// a key.
    #[must_use]
    pub fn with_key_columns(layout: ChangeLayout, key: &Relation) -> Self {
        let columns = key.columns.iter().chain(&layout.row().columns).cloned();
        Self {
            relation: Relation::new(columns.collect()),
            key: (0..key.columns.len())
                .map(|column| KeyColumn {
                    column,
                    in_key: Some(column),
                })
                .collect(),
            extra: key.clone(),
            layout,
        }
    }

    /// The columns of the table.
    #[must_use]
    pub const fn relation(&self) -> &Relation {
        &self.relation
    }

    /// The columns that are the key.
    #[must_use]
    pub fn key(&self) -> Vec<usize> {
        self.key.iter().map(|key| key.column).collect()
    }

    /// The changes of messages. `values` are the payloads as they came and as they were decoded, `keys` the decoded keys if the topic has them.
    ///
    /// # Errors
    /// [`Error::Value`] if the columns are not those of the layout.
    pub fn apply(
        &self,
        keys: Option<&Decoded>,
        values: (&[Option<&[u8]>], &Decoded),
    ) -> Result<(Changed, Vec<Truncation>), Error> {
        let (payloads, decoded) = values;
        let notes = Notes::new(&self.layout, decoded)?;
        let mut collected = Collected::default();
        let mut truncations = Vec::new();
        let pairing = Pairing::new(self, decoded, keys);
        let sets = pairing.sets();
        let mut document = JsonbBuilder::new();
        document.string(UNAVAILABLE);
        let unavailable = document.finish()?;
        for (index, payload) in (0_u32..).zip(payloads) {
            if payload.is_none() {
                continue;
            }
            let Some(row) = decoded.row_of(index) else {
                let reason = decoded.reason_of(index).unwrap_or("it was not decoded");
                collected.refuse(index, format!("cannot read the value: {reason}"));
                continue;
            };
            let event = Event {
                index,
                row,
                after: notes.after.is_valid(row),
                before: notes.before.is_valid(row),
                op: notes.op.is_valid(row).then(|| notes.op.value(row)),
                key_row: keys.and_then(|keys| keys.row_of(index)),
            };
            let resolved = notes.resolved.is_valid(row);
            match event.op {
                Some("m") => continue,
                Some("t") => {
                    truncations.push(Truncation {
                        index,
                        rows_before: collected.ops.len(),
                    });
                    continue;
                }
                _ if resolved && !event.after && !event.before => continue,
                None if !event.after && !event.before && has_no_key(keys, index) => continue,
                Some("c" | "r" | "u" | "d") | None => {}
                Some(other) => {
                    collected.refuse(
                        index,
                        format!("unknown operation \"{other}\" in an envelope"),
                    );
                    continue;
                }
            }
            let first = collected.ops.len();
            if self.key.is_empty() {
                self.without_key(&event, &mut collected);
            } else {
                self.with_key(&event, &sets, &mut collected);
            }
            self.note_unavailable(first, &event, &sets, unavailable.as_bytes(), &mut collected);
        }
        let changed = collected.finish(&self.relation, &sets)?;
        Ok((changed, truncations))
    }

    fn without_key(&self, event: &Event<'_>, collected: &mut Collected) {
        let is_insert = matches!(event.op, Some("c" | "r") | None);
        match (event.before, event.after) {
            (true, true) => {
                collected.push(SourceOp::Delete, event.index, BEFORE, event.row);
                collected.push(SourceOp::Insert, event.index, AFTER, event.row);
            }
            (false, true) if is_insert => {
                collected.push(SourceOp::Insert, event.index, AFTER, event.row);
            }
            (true, false) => collected.push(SourceOp::Delete, event.index, BEFORE, event.row),
            (false, true) => collected.refuse(
                event.index,
                "an update without the old row, of a table without a key",
            ),
            (false, false) => collected.refuse(
                event.index,
                "a deletion without the old row, of a table without a key",
            ),
        }
    }

    fn with_key(
        &self,
        event: &Event<'_>,
        sets: &[Vec<Option<ArrayRef>>],
        collected: &mut Collected,
    ) {
        if !self.extra.columns.is_empty() && event.key_row.is_none() {
            collected.refuse(event.index, "message has no key, which its rows need");
            return;
        }
        if event.after && event.op != Some("d") {
            if self.has_null_key(sets, AFTER, event.row) {
                collected.refuse(event.index, "the new row has no key");
                return;
            }
            // Before images may be of the key alone, or of nothing but NULLs.
            let moved = event.before
                && !self.has_null_key(sets, BEFORE, event.row)
                && !self.same_key(sets, event.row);
            if moved {
                collected.push(SourceOp::DeleteByKey, event.index, BEFORE, event.row);
            }
            collected.push(SourceOp::Upsert, event.index, AFTER, event.row);
            return;
        }
        if !matches!(event.op, Some("d") | None) {
            collected.refuse(event.index, "an envelope without the new row");
            return;
        }
        // The old row names the key, or the message does.
        if event.before && !self.has_null_key(sets, BEFORE, event.row) {
            collected.push(SourceOp::DeleteByKey, event.index, BEFORE, event.row);
        } else if event.key_row.is_some() && !self.has_null_key(sets, KEY, event.row) {
            collected.push(SourceOp::DeleteByKey, event.index, KEY, event.row);
        } else {
            collected.refuse(event.index, "a deletion that does not say which row");
        }
    }

    /// Whether a part of the key is NULL, or not there.
    fn has_null_key(&self, sets: &[Vec<Option<ArrayRef>>], set: usize, row: usize) -> bool {
        self.key.iter().any(|key| {
            let array = sets.get(set).and_then(|set| set.get(key.column)?.as_ref());
            array.is_none_or(|array| array.is_null(row))
        })
    }

    /// Whether the images before and after have the same key.
    fn same_key(&self, sets: &[Vec<Option<ArrayRef>>], row: usize) -> bool {
        self.key.iter().all(|key| {
            let cell = |set: usize| {
                let array = sets
                    .get(set)
                    .and_then(|set| set.get(key.column)?.as_ref())?;
                Some(array.slice(row, 1))
            };
            match (cell(BEFORE), cell(AFTER)) {
                (Some(before), Some(after)) => before.as_ref() == after.as_ref(),
                _ => false,
            }
        })
    }

    /// Notes the cells of new rows that the upstream left out; without a key they cannot be known.
    fn note_unavailable(
        &self,
        first: usize,
        event: &Event<'_>,
        sets: &[Vec<Option<ArrayRef>>],
        document: &[u8],
        collected: &mut Collected,
    ) {
        let Some(place) = collected
            .ops
            .len()
            .checked_sub(1)
            .filter(|last| *last >= first)
        else {
            return;
        };
        let Some((AFTER, row)) = collected.places.get(place).copied() else {
            return;
        };
        let arrays = sets.get(AFTER).into_iter().flatten();
        let mut left_out = Vec::new();
        for (column, (array, described)) in arrays.zip(&self.relation.columns).enumerate() {
            let is_left_out = array
                .as_ref()
                .is_some_and(|array| is_unavailable(array, &described.sql_type, row, document));
            if is_left_out {
                left_out.push(column);
            }
        }
        if left_out.is_empty() {
            return;
        }
        if collected.ops.get(place) != Some(&SourceOp::Upsert) {
            let index = collected.origins.get(place).copied().unwrap_or_default();
            collected.ops.truncate(first);
            collected.origins.truncate(first);
            collected.places.truncate(first);
            collected.refuse(
                index,
                "values were left out of a row of a table without a key",
            );
            return;
        }
        let row = u32::try_from(place).unwrap_or(u32::MAX);
        let cells = left_out
            .into_iter()
            .filter_map(|column| Some((row, u16::try_from(column).ok()?)));
        if matches!(event.op, Some("c" | "r")) && place == first {
            collected.unknown.extend(cells);
        } else {
            collected.unchanged.extend(cells);
            // The deletion by the old key, of the same message, comes before it.
            if place > first {
                collected.moved.push(row);
            }
        }
    }
}

/// Whether a message has no key. Not known, thus `false`, if nobody read the keys.
fn has_no_key(keys: Option<&Decoded>, index: u32) -> bool {
    keys.is_some_and(|keys| keys.row_of(index).is_none() && keys.reason_of(index).is_none())
}

/// The notes of decoded envelopes that say what happened.
struct Notes<'a> {
    after: &'a BooleanArray,
    before: &'a BooleanArray,
    op: &'a StringArray,
    resolved: &'a StringArray,
}

impl<'a> Notes<'a> {
    fn new(layout: &ChangeLayout, decoded: &'a Decoded) -> Result<Self, Error> {
        let missing = || {
            let message = "the columns of an envelope are not there".to_owned();
            Error::Value(flowstone_types::TypeError::Kernel(message))
        };
        let column = |note| decoded.columns.get(layout.note(note)).ok_or_else(missing);
        let flag = |note| column(note)?.as_boolean_opt().ok_or_else(missing);
        let text = |note| column(note)?.as_string_opt::<i32>().ok_or_else(missing);
        Ok(Self {
            after: flag(Note::AfterPresent)?,
            before: flag(Note::BeforePresent)?,
            op: text(Note::Op)?,
            resolved: text(Note::Resolved)?,
        })
    }
}

/// The sets of columns, each with the columns of the table, all by the row of the decoded value.
struct Pairing<'a> {
    envelope: &'a DebeziumEnvelope,
    decoded: &'a Decoded,
    /// The columns of the decoded key, one row for each row of the decoded value.
    key: Vec<ArrayRef>,
}

impl<'a> Pairing<'a> {
    fn new(envelope: &'a DebeziumEnvelope, decoded: &'a Decoded, keys: Option<&Decoded>) -> Self {
        let Some(keys) = keys else {
            return Self {
                envelope,
                decoded,
                key: Vec::new(),
            };
        };
        let indices: arrow_array::UInt64Array = decoded
            .rows
            .iter()
            .map(|index| keys.row_of(*index).and_then(|row| u64::try_from(row).ok()))
            .collect();
        let key = keys
            .columns
            .iter()
            .map_while(|column| arrow_select::take::take(column, &indices, None).ok());
        Self {
            envelope,
            decoded,
            key: key.collect(),
        }
    }

    fn sets(&self) -> Vec<Vec<Option<ArrayRef>>> {
        let layout = &self.envelope.layout;
        let extra = self.envelope.extra.columns.len();
        let width = self.envelope.relation.columns.len();
        let image = |place: &dyn Fn(usize) -> usize| {
            let columns = (0..width).map(|column| match column.checked_sub(extra) {
                None => self.key.get(column).cloned(),
                Some(column) => self.decoded.columns.get(place(column)).cloned(),
            });
            columns.collect::<Vec<_>>()
        };
        let after = image(&|column| layout.after(column));
        let before = image(&|column| layout.before(column));
        let key = (0..width).map(|column| {
            let part = self.envelope.key.iter().find(|key| key.column == column)?;
            self.key.get(part.in_key?).cloned()
        });
        vec![after, before, key.collect()]
    }
}

#[cfg(test)]
mod tests;
