//! Rows to payloads for sinks, in the formats that need no schema: JSON, text and bytes. Avro is in [`crate::avro::AvroEncoder`].
//!
//! Owns how values look in JSON. Must not know topics. Called by sinks.
//!
//! In JSON, numbers that a double cannot hold (`numeric`, `uint8`) are texts, time stamps are texts of seconds since 1970 with three digits after the
//! point (six where there are any), bytes are in base 64, documents stand as they are, and everything else is a text as PostgreSQL writes it.
//! Envelopes: an upsert is the row alone (and no payload when it is gone), a change is `{"before": …, "after": …}`.

use std::fmt::Write;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flowstone_types::value::ColumnFormatter;
use flowstone_types::{Jsonb, SqlType, TypeError};

use crate::error::Error;
use crate::relation::Relation;

/// How time stamps look in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeStyle {
    /// Seconds since 1970: `"1720032185.312"`.
    #[default]
    Epoch,
    /// As PostgreSQL writes them.
    Text,
}

/// Writes rows of a batch as JSON.
#[derive(Debug)]
pub struct JsonRows<'a> {
    columns: Vec<JsonCells<'a>>,
}

#[derive(Debug)]
struct JsonCells<'a> {
    /// The name as a JSON text.
    name: String,
    cells: Cells<'a>,
}

#[derive(Debug)]
struct Cells<'a> {
    array: &'a ArrayRef,
    style: Style,
    text: ColumnFormatter<'a>,
    /// Those of an array's items.
    items: Option<Box<Cells<'a>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Bool,
    /// Digits as PostgreSQL writes them.
    Number,
    /// A number unless it is not finite.
    Float,
    Document,
    Epoch,
    Base64,
    Text,
    List,
}

fn style_of(sql_type: &SqlType, times: TimeStyle) -> Style {
    match sql_type {
        SqlType::Bool => Style::Bool,
        SqlType::Int2
        | SqlType::Int4
        | SqlType::Int8
        | SqlType::UInt2
        | SqlType::UInt4
        | SqlType::Oid
        | SqlType::Reg(_) => Style::Number,
        SqlType::Float4 | SqlType::Float8 => Style::Float,
        SqlType::Jsonb => Style::Document,
        SqlType::Timestamp | SqlType::TimestampTz => match times {
            TimeStyle::Epoch => Style::Epoch,
            TimeStyle::Text => Style::Text,
        },
        SqlType::Bytea => Style::Base64,
        SqlType::Array(_) => Style::List,
        SqlType::UInt8
        | SqlType::MzTimestamp
        | SqlType::Numeric(_)
        | SqlType::Text
        | SqlType::VarChar(_)
        | SqlType::Char(_)
        | SqlType::Name
        | SqlType::QuotedChar
        | SqlType::Date
        | SqlType::Time
        | SqlType::Interval
        | SqlType::Uuid
        | SqlType::Int2Vector
        | SqlType::OidVector => Style::Text,
    }
}

impl<'a> Cells<'a> {
    fn new(array: &'a ArrayRef, sql_type: &SqlType, times: TimeStyle) -> Result<Self, TypeError> {
        let mut style = style_of(sql_type, times);
        let items = match (sql_type, array.as_list_opt::<i32>()) {
            (SqlType::Array(element), Some(lists)) => {
                Some(Box::new(Cells::new(lists.values(), element, times)?))
            }
            _ => None,
        };
        // Physical relatives, as plans make them, are written as text.
        let is_stored_so = sql_type.to_arrow() == *array.data_type();
        if matches!(style, Style::Document | Style::Epoch | Style::Base64) && !is_stored_so {
            return Err(TypeError::Kernel(format!(
                "a column of {sql_type} is {}",
                array.data_type()
            )));
        }
        if style == Style::List && items.is_none() {
            style = Style::Text;
        }
        Ok(Self {
            array,
            style,
            text: ColumnFormatter::new(array, sql_type)?,
            items,
        })
    }

    fn write(&self, row: usize, out: &mut String) -> Result<(), TypeError> {
        if self.text.is_null(row) {
            out.push_str("null");
            return Ok(());
        }
        match self.style {
            Style::Bool => {
                let value = self
                    .array
                    .as_boolean_opt()
                    .is_some_and(|values| values.value(row));
                out.push_str(if value { "true" } else { "false" });
            }
            Style::Number => {
                self.text.write_text(row, out)?;
            }
            Style::Float => {
                let mut text = String::new();
                self.text.write_text(row, &mut text)?;
                // NaN and the infinities are no numbers of JSON.
                if text.ends_with(|last: char| last.is_ascii_digit()) {
                    out.push_str(&text);
                } else {
                    quote(&text, out);
                }
            }
            Style::Document => {
                let document = self
                    .array
                    .as_binary_opt::<i64>()
                    .map(|values| values.value(row));
                // Writing to a string cannot fail.
                let _ = write!(
                    out,
                    "{}",
                    Jsonb::from_canonical(document.unwrap_or_default())
                );
            }
            Style::Epoch => {
                let values = self.array.as_primitive_opt::<TimestampMicrosecondType>();
                epoch(values.map_or(0, |values| values.value(row)), out);
            }
            Style::Base64 => {
                let bytes = self
                    .array
                    .as_binary_opt::<i32>()
                    .map(|values| values.value(row));
                out.push('"');
                BASE64_STANDARD.encode_string(bytes.unwrap_or_default(), out);
                out.push('"');
            }
            Style::Text => {
                let mut text = String::new();
                self.text.write_text(row, &mut text)?;
                quote(&text, out);
            }
            Style::List => self.write_list(row, out)?,
        }
        Ok(())
    }

    fn write_list(&self, row: usize, out: &mut String) -> Result<(), TypeError> {
        let (Some(lists), Some(items)) = (self.array.as_list_opt::<i32>(), &self.items) else {
            return Err(TypeError::Kernel("an array is no list".to_owned()));
        };
        out.push('[');
        for (place, item) in items_of(lists, row).enumerate() {
            if place > 0 {
                out.push(',');
            }
            items.write(item, out)?;
        }
        out.push(']');
        Ok(())
    }
}

/// Where the items of the list at `row` are.
pub(crate) fn items_of(lists: &ListArray, row: usize) -> Range<usize> {
    let offset = |index: usize| {
        let offset = lists.value_offsets().get(index);
        usize::try_from(offset.copied().unwrap_or_default()).unwrap_or_default()
    };
    offset(row)..offset(row + 1)
}

/// Appends a JSON text with its quotes.
fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// Appends seconds since 1970 as a text: three digits after the point, six if the last three say something.
fn epoch(micros: i64, out: &mut String) {
    let (seconds, fraction) = (
        micros.unsigned_abs() / 1_000_000,
        micros.unsigned_abs() % 1_000_000,
    );
    let sign = if micros < 0 { "-" } else { "" };
    // Writing to a string cannot fail.
    let _ = if fraction % 1_000 == 0 {
        write!(out, "\"{sign}{seconds}.{:03}\"", fraction / 1_000)
    } else {
        write!(out, "\"{sign}{seconds}.{fraction:06}\"")
    };
}

impl<'a> JsonRows<'a> {
    /// The rows of a batch of the relation's columns.
    ///
    /// # Errors
    /// [`Error::Value`] if the batch has other columns.
    pub fn new(
        relation: &Relation,
        batch: &'a RecordBatch,
        times: TimeStyle,
    ) -> Result<Self, Error> {
        if relation.columns.len() != batch.num_columns() {
            let message = "batch has other columns than the encoder".to_owned();
            return Err(TypeError::Kernel(message).into());
        }
        let columns = relation.columns.iter().zip(batch.columns());
        let columns = columns.map(|(column, array)| {
            let mut name = String::new();
            quote(&column.name, &mut name);
            Ok(JsonCells {
                name,
                cells: Cells::new(array, &column.sql_type, times)?,
            })
        });
        Ok(Self {
            columns: columns.collect::<Result<_, TypeError>>()?,
        })
    }

    /// Appends the row at `row` (below the batch's length) as an object.
    ///
    /// # Errors
    /// [`Error::Value`] for damaged values.
    pub fn write(&self, row: usize, out: &mut String) -> Result<(), Error> {
        out.push('{');
        for (index, column) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push_str(&column.name);
            out.push(':');
            column.cells.write(row, out)?;
        }
        out.push('}');
        Ok(())
    }

    /// Appends a change. Either image may be missing.
    ///
    /// # Errors
    /// As [`JsonRows::write`].
    pub fn write_change(
        &self,
        before: Option<usize>,
        after: Option<usize>,
        out: &mut String,
    ) -> Result<(), Error> {
        for (name, image) in [("{\"before\":", before), (",\"after\":", after)] {
            out.push_str(name);
            match image {
                Some(row) => self.write(row, out)?,
                None => out.push_str("null"),
            }
        }
        out.push('}');
        Ok(())
    }
}

/// Appends the only column's cell as text. Returns whether there is one: NULL is no payload.
///
/// # Errors
/// [`Error::Definition`] unless there is one column.
pub fn write_text(
    relation: &Relation,
    batch: &RecordBatch,
    row: usize,
    out: &mut String,
) -> Result<bool, Error> {
    let (column, array) = only(relation, batch, "TEXT")?;
    Ok(flowstone_types::value::text_of(
        array,
        row,
        &column.sql_type,
        out,
    )?)
}

/// Appends the only column's cell as bytes: of `bytea` as they are, of other types in PostgreSQL's binary format. Returns whether there is one.
///
/// # Errors
/// [`Error::Definition`] unless there is one column.
pub fn write_bytes(
    relation: &Relation,
    batch: &RecordBatch,
    row: usize,
    out: &mut Vec<u8>,
) -> Result<bool, Error> {
    let (column, array) = only(relation, batch, "BYTES")?;
    Ok(flowstone_types::value::binary_of(
        array,
        row,
        &column.sql_type,
        out,
    )?)
}

fn only<'a>(
    relation: &'a Relation,
    batch: &'a RecordBatch,
    format: &str,
) -> Result<(&'a crate::relation::Column, &'a ArrayRef), Error> {
    match (relation.columns.as_slice(), batch.columns()) {
        ([column], [array]) => Ok((column, array)),
        (columns, _) => {
            let count = columns.len();
            Err(Error::definition(format!(
                "format {format} takes one column, not {count}"
            )))
        }
    }
}

#[cfg(test)]
mod tests;
