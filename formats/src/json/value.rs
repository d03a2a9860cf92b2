//! One JSON value into one column.
//!
//! Called by [`super::JsonDecoder`] with values of documents, and by [`super::members`] with strings and numbers as messages have them.
//! Null is the caller's affair.

use std::fmt::{self, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flowstone_types::SqlType;
use flowstone_types::jsonb::{Jsonb, JsonbBuilder, JsonbKind};
use flowstone_types::value::ColumnBuilder;

use crate::error::Fault;
use crate::semantic::{self, Semantic, TimeUnit};

/// Appends a value that is not null.
pub(super) fn append(
    value: Jsonb<'_>,
    semantic: Semantic,
    column: &mut ColumnBuilder,
) -> Result<(), Fault> {
    if let Some(text) = value.as_str() {
        return append_str(text, semantic, column);
    }
    match column.sql_type() {
        SqlType::Jsonb => Ok(column.append_jsonb(&value.to_buf())?),
        SqlType::Text | SqlType::VarChar(_) | SqlType::Char(_) | SqlType::Name => {
            Ok(column.append_text(&value.to_string())?)
        }
        SqlType::Bytea => Err(misfit(value, column)),
        SqlType::Array(_) => list(value, semantic, column),
        _ => match value.kind() {
            JsonbKind::Number => number(value, semantic, column),
            JsonbKind::Bool => boolean(value, column),
            JsonbKind::Object => variable_decimal(value, column),
            JsonbKind::Null | JsonbKind::String | JsonbKind::Array => Err(misfit(value, column)),
        },
    }
}

/// Appends a string.
pub(super) fn append_str(
    string: &str,
    semantic: Semantic,
    column: &mut ColumnBuilder,
) -> Result<(), Fault> {
    match column.sql_type() {
        SqlType::Jsonb if semantic == Semantic::Json => {
            Ok(column.append_jsonb(&semantic::document_of(string)?)?)
        }
        SqlType::Jsonb => {
            let mut builder = JsonbBuilder::new();
            builder.string(string);
            Ok(column.append_jsonb(&builder.finish()?)?)
        }
        SqlType::Text
        | SqlType::VarChar(_)
        | SqlType::Char(_)
        | SqlType::Name
        | SqlType::Array(_) => Ok(column.append_text(string)?),
        SqlType::Bytea => bytes(string, column),
        _ => text(string, semantic, column),
    }
}

/// Appends an integer. `false`, and nothing is appended, if the column has no short way for it.
pub(super) fn append_integer(
    integer: i64,
    semantic: Semantic,
    column: &mut ColumnBuilder,
) -> Result<bool, Fault> {
    let meaning = meaning_of_number(column.sql_type(), semantic);
    match column.sql_type() {
        SqlType::Int2
        | SqlType::Int4
        | SqlType::Int8
        | SqlType::UInt2
        | SqlType::UInt4
        | SqlType::UInt8
        | SqlType::Oid
        | SqlType::Reg(_)
        | SqlType::MzTimestamp
        | SqlType::Numeric(_) => column.append_i64(integer)?,
        SqlType::Float4 | SqlType::Float8 => {
            semantic::append_integer(integer, Semantic::Plain, column)?;
        }
        SqlType::Date
        | SqlType::Time
        | SqlType::Timestamp
        | SqlType::TimestampTz
        | SqlType::Interval
            if is_time(meaning) =>
        {
            semantic::append_integer(integer, meaning, column)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Appends the text of a number, in JSON's notation. `false`, and nothing is appended, if the column has no short way for it.
pub(super) fn append_number_text(
    number: &str,
    semantic: Semantic,
    column: &mut ColumnBuilder,
) -> Result<bool, Fault> {
    match column.sql_type() {
        SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(_) if !is_time(semantic) => {
            column.append_text(number)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn misfit(value: Jsonb<'_>, column: &ColumnBuilder) -> Fault {
    let (found, expected) = (value.kind().name(), column.sql_type());
    Fault::from(format!("a JSON {found} is no value of type {expected}"))
}

fn boolean(value: Jsonb<'_>, column: &mut ColumnBuilder) -> Result<(), Fault> {
    match (value.as_bool(), column.sql_type()) {
        (Some(flag), SqlType::Bool) => Ok(column.append_bool(flag)?),
        _ => Err(misfit(value, column)),
    }
}

fn text(text: &str, semantic: Semantic, column: &mut ColumnBuilder) -> Result<(), Fault> {
    if matches!(semantic, Semantic::Decimal { .. }) {
        return with_decoded(text, |bytes| {
            semantic::append_bytes(bytes, semantic, column)
        });
    }
    semantic::append_text(text.as_bytes(), semantic, column)
}

/// What a number means to a column.
fn meaning_of_number(sql_type: &SqlType, semantic: Semantic) -> Semantic {
    match (sql_type, semantic) {
        (SqlType::Date, Semantic::Plain) => Semantic::Days,
        (SqlType::Time, Semantic::Plain) => Semantic::TimeOfDay(TimeUnit::Micros),
        (SqlType::Timestamp | SqlType::TimestampTz, Semantic::Plain | Semantic::ZonedTimestamp) => {
            Semantic::Timestamp(TimeUnit::Micros)
        }
        (SqlType::Interval, Semantic::Plain) => Semantic::MicroDuration,
        (_, semantic) => semantic,
    }
}

/// Whether a number of this meaning is a time, which is counted in integers.
const fn is_time(meaning: Semantic) -> bool {
    matches!(
        meaning,
        Semantic::Days | Semantic::TimeOfDay(_) | Semantic::Timestamp(_) | Semantic::MicroDuration
    )
}

/// Bytes of a number that is written without an allocation: all of `bigint`, and most others.
const SHORT_BYTES: usize = 40;

/// A short text on the stack.
struct Short {
    bytes: [u8; SHORT_BYTES],
    len: usize,
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes
            .get_mut(self.len..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

fn number(value: Jsonb<'_>, semantic: Semantic, column: &mut ColumnBuilder) -> Result<(), Fault> {
    if matches!(column.sql_type(), SqlType::Bool | SqlType::Uuid) {
        return Err(misfit(value, column));
    }
    let number = value.as_number().ok_or_else(|| misfit(value, column))?;
    let mut short = Short {
        bytes: [0; SHORT_BYTES],
        len: 0,
    };
    let long;
    let written = write!(short, "{number}").is_ok();
    let text = match short.bytes.get(..short.len).map(std::str::from_utf8) {
        Some(Ok(text)) if written => text,
        _ => {
            long = number.to_string();
            long.as_str()
        }
    };
    if let Ok(integer) = text.parse::<i64>()
        && append_integer(integer, semantic, column)?
    {
        return Ok(());
    }
    if is_time(meaning_of_number(column.sql_type(), semantic)) {
        return Err(Fault::from(format!(
            "a time cannot be made of the number {number}"
        )));
    }
    Ok(column.append_text(text)?)
}

/// A decimal with a scale of its own: `{"scale": 1, "value": "AQ=="}`.
fn variable_decimal(value: Jsonb<'_>, column: &mut ColumnBuilder) -> Result<(), Fault> {
    let scale = value.get_key("scale").and_then(Jsonb::as_number);
    let scale = scale.and_then(|scale| i8::try_from(scale.to_i64()?).ok());
    let digits = value.get_key("value").and_then(Jsonb::as_str);
    match (scale, digits, column.sql_type()) {
        (Some(scale), Some(digits), SqlType::Numeric(_)) => {
            let digits = semantic::integer_of(&decoded(digits)?)?;
            Ok(column.append_decimal(digits, scale)?)
        }
        _ => Err(misfit(value, column)),
    }
}

/// Bytes are in base 64, or in PostgreSQL's hexadecimal notation.
fn bytes(text: &str, column: &mut ColumnBuilder) -> Result<(), Fault> {
    if text.starts_with("\\x") {
        return Ok(column.append_text(text)?);
    }
    with_decoded(text, |bytes| Ok(column.append_bytes(bytes)?))
}

/// Characters of base 64 that are decoded on the stack: decimals have no more.
const STACK_CHARACTERS: usize = 64;

/// Gives the bytes that a text in base 64 stands for to `take`.
fn with_decoded(text: &str, take: impl FnOnce(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut buffer = [0_u8; STACK_CHARACTERS];
    if text.len() <= STACK_CHARACTERS
        && let Ok(length) = BASE64_STANDARD.decode_slice(text, &mut buffer)
    {
        return take(buffer.get(..length).unwrap_or_default());
    }
    take(&decoded(text)?)
}

fn decoded(text: &str) -> Result<Vec<u8>, Fault> {
    BASE64_STANDARD
        .decode(text)
        .map_err(|_| Fault::from("text is not valid base 64"))
}

fn list(value: Jsonb<'_>, semantic: Semantic, column: &mut ColumnBuilder) -> Result<(), Fault> {
    if value.kind() != JsonbKind::Array {
        return Err(misfit(value, column));
    }
    if let Some(items) = column.items() {
        for item in value.items() {
            if item.is_null() {
                items.append_null();
            } else {
                append(item, semantic, items)?;
            }
        }
    }
    Ok(column.append_list()?)
}
