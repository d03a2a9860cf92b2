//! Columns of a table, from those that were decoded and from what is beside key and value.
//!
//! Must not know envelopes. Called by [`super::lines`].

use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_select::interleave::interleave;
use flowstone_proto::kafka::Include;
use flowstone_types::jsonb::JsonbBuilder;
use flowstone_types::{ColumnBuilder, JsonbBuf, SqlType, TypeError};

use crate::kafka::batch::{Batch, Message};

/// Where a cell comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it is filled.
    Nowhere,
    /// A row of the columns.
    Row(usize),
    /// A row of the decoded key.
    Key(usize),
}

/// What cells are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cells<'a> {
    pub(super) sql_type: &'a SqlType,
    pub(super) nullable: bool,
}

impl Cells<'_> {
    fn builder(self, capacity: usize) -> ColumnBuilder {
        ColumnBuilder::new(self.sql_type, capacity)
    }
}

/// Whether the places are all rows of a column of this length in their order.
pub(super) fn is_whole(places: &[Place], rows: usize) -> bool {
    places.len() == rows
        && places
            .iter()
            .enumerate()
            .all(|(index, place)| *place == Place::Row(index))
}

/// The cells at some places. `whole`: they are all of `rows` in order, which then is the column.
pub(super) fn gather(
    rows: Option<&ArrayRef>,
    keys: Option<&ArrayRef>,
    places: &[Place],
    whole: bool,
    cells: Cells<'_>,
) -> Result<ArrayRef, TypeError> {
    if let (Some(rows), true) = (rows, whole) {
        return Ok(Arc::clone(rows));
    }
    let mut filler = cells.builder(1);
    filler.append_filler(cells.nullable)?;
    let filler = filler.finish();
    // The filler stands behind both.
    let indices: Vec<(usize, usize)> = places
        .iter()
        .map(|place| match place {
            Place::Row(row) if rows.is_some() => (0, *row),
            Place::Key(row) if keys.is_some() => (1, *row),
            Place::Row(_) | Place::Key(_) | Place::Nowhere => (2, 0),
        })
        .collect();
    let arrays: [&dyn Array; 3] = [
        rows.unwrap_or(&filler).as_ref(),
        keys.unwrap_or(&filler).as_ref(),
        filler.as_ref(),
    ];
    Ok(interleave(&arrays, &indices)?)
}

/// What is said beside key and value, of each message.
pub(super) fn include<'a>(
    include: &Include,
    batch: &'a Batch,
    messages: impl ExactSizeIterator<Item = &'a Message>,
    cells: Cells<'_>,
) -> Result<ArrayRef, TypeError> {
    let mut column = cells.builder(messages.len());
    for message in messages {
        match include {
            Include::Partition => column.append_i64(i64::from(batch.partition))?,
            Include::Offset => column.append_i64(message.offset)?,
            Include::Timestamp => match message.timestamp_ms {
                Some(ms) => column.append_micros(ms.saturating_mul(1000))?,
                None => column.append_filler(cells.nullable)?,
            },
            Include::Headers => column.append_jsonb(&headers(batch, message)?)?,
            Include::Header { name, bytes } => {
                let value = header(batch, message, name);
                match value.filter(|value| *bytes || unfit_text(value).is_none()) {
                    Some(value) => column.append_bytes(value)?,
                    None => column.append_filler(cells.nullable)?,
                }
            }
        }
    }
    Ok(column.finish())
}

/// The value of the last header of a name.
pub(super) fn header<'a>(batch: &'a Batch, message: &'a Message, name: &str) -> Option<&'a [u8]> {
    let mut named = batch.headers(message).rev();
    named
        .find(|(found, _)| *found == name.as_bytes())
        .and_then(|(_, value)| value)
}

/// Why bytes are no text, if they are none.
pub(super) fn unfit_text(bytes: &[u8]) -> Option<&'static str> {
    match std::str::from_utf8(bytes) {
        Err(_) => Some("value of a header is not valid UTF-8"),
        Ok(text) if text.contains('\0') => Some("value of a header has a zero character"),
        Ok(_) => None,
    }
}

/// All headers as a document: there are no lists of records.
fn headers(batch: &Batch, message: &Message) -> Result<JsonbBuf, TypeError> {
    let mut document = JsonbBuilder::new();
    document.begin_array();
    for (name, value) in batch.headers(message) {
        document.begin_object();
        document
            .key("key")
            .string(&String::from_utf8_lossy(name).replace('\0', "\u{fffd}"));
        document.key("value");
        match value {
            Some(value) => document.string(&hex(value)),
            None => document.null(),
        };
        document.end();
    }
    document.end();
    document.finish()
}

/// Bytes as PostgreSQL writes them.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        // Writing to a string does not fail.
        let _written = write!(text, "{byte:02x}");
    }
    text
}

/// Why some rows could not be decoded; NULL in the others. `told` is in the order of the rows.
pub(super) fn errors(
    told: &[(u32, String)],
    rows: usize,
    cells: Cells<'_>,
) -> Result<ArrayRef, TypeError> {
    let mut column = cells.builder(rows);
    let mut told = told.iter().peekable();
    for row in (0_u32..).take(rows) {
        match told.next_if(|(at, _)| *at == row) {
            None => column.append_filler(cells.nullable)?,
            Some((_, reason)) if *cells.sql_type == SqlType::Jsonb => {
                let mut document = JsonbBuilder::new();
                document.begin_object();
                document.key("description").string(reason);
                document.end();
                column.append_jsonb(&document.finish()?)?;
            }
            Some((_, reason)) => column.append_text(reason)?,
        }
    }
    Ok(column.finish())
}

/// Reads a column of text that may not be there.
pub(super) fn texts<'a>(column: Option<&'a ArrayRef>) -> impl Fn(usize) -> Option<&'a str> {
    let values = column.and_then(|column| column.as_string_opt::<i32>());
    move |row| {
        values
            .filter(|values| row < values.len() && values.is_valid(row))
            .map(|values| values.value(row))
    }
}
