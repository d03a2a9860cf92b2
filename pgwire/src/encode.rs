//! Rows and parameters in PostgreSQL's text and binary formats.

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_schema::SchemaRef;
use bytes::{BufMut, Bytes, BytesMut};
use flowstone_types::SqlType;
use flowstone_types::datetime::TimeZone;
use flowstone_types::sql_type::shown_modifier;
use flowstone_types::value::{ColumnBuilder, ColumnFormatter};
use pgwire::messages::data::{DataRow, FieldDescription};

use crate::Error;

/// Rows of more bytes are sent in parts.
const LONG_ROW_BYTES: usize = 64 << 10;
/// A value of more bytes is a part of its own.
const PIECE_BYTES: usize = 32 << 10;
/// The kind of the message of a row.
const DATA_ROW: u8 = b'D';

/// A value where the column has it.
struct InPlace(Buffer);

impl AsRef<[u8]> for InPlace {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// Which format each column (or parameter) has: none given means text, one given holds for all.
#[derive(Clone, Debug)]
pub struct Formats(Vec<bool>);

impl Formats {
    /// Everything in text.
    #[must_use]
    pub const fn text() -> Self {
        Self(Vec::new())
    }

    /// From the codes of a `Bind` message: 0 text, 1 binary.
    #[must_use]
    pub fn from_codes(codes: &[i16]) -> Self {
        Self(codes.iter().map(|code| *code == 1).collect())
    }

    /// Whether column `index` is binary.
    #[must_use]
    pub fn is_binary(&self, index: usize) -> bool {
        match self.0.as_slice() {
            [all] => *all,
            each => each.get(index).copied().unwrap_or(false),
        }
    }
}

/// The fields of a row description.
///
/// # Errors
/// An internal error if a column has no SQL type.
pub fn row_description(
    schema: &SchemaRef,
    formats: &Formats,
) -> Result<Vec<FieldDescription>, Error> {
    let mut fields = Vec::with_capacity(schema.fields().len());
    for (index, field) in schema.fields().iter().enumerate() {
        let sql_type = SqlType::from_field(field)?;
        fields.push(FieldDescription::new(
            field.name().clone(),
            0,
            0,
            sql_type.oid(),
            sql_type.type_length(),
            shown_modifier(field, &sql_type),
            i16::from(formats.is_binary(index)),
        ));
    }
    Ok(fields)
}

/// Encodes the rows of one batch.
#[derive(Debug)]
pub struct RowEncoder<'a> {
    columns: Vec<(ColumnFormatter<'a>, bool)>,
}

impl<'a> RowEncoder<'a> {
    /// An encoder for `batch`, whose columns have the SQL types of `schema`, showing instants in `zone`.
    ///
    /// # Errors
    /// An internal error if a column has no SQL type.
    pub fn new(
        schema: &SchemaRef,
        batch: &'a RecordBatch,
        formats: &Formats,
        zone: &TimeZone,
    ) -> Result<Self, Error> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (index, (column, field)) in
            itertools::zip_eq(batch.columns(), schema.fields()).enumerate()
        {
            columns.push((
                ColumnFormatter::new(column.as_ref(), &SqlType::from_field(field)?)?
                    .with_time_zone(zone.clone()),
                formats.is_binary(index),
            ));
        }
        Ok(Self { columns })
    }

    /// Whether a row is so long that it is better sent in [`RowEncoder::pieces`], and then about how many bytes are made for that.
    #[must_use]
    pub fn long(&self, row: usize) -> Option<usize> {
        let (mut all, mut made) = (0_usize, 0_usize);
        for (column, is_binary) in &self.columns {
            let bytes = column.size_hint(row);
            all = all.saturating_add(bytes);
            if bytes <= PIECE_BYTES || column.verbatim(row, *is_binary).is_none() {
                made = made.saturating_add(bytes);
            }
        }
        (all > LONG_ROW_BYTES).then_some(made)
    }

    /// The message of one row, in parts to be sent one after the other: long values are not copied where they are sent as they are.
    ///
    /// # Errors
    /// A value that its type cannot show, or values that are longer together than a message.
    pub fn pieces(&self, row: usize) -> Result<Vec<Bytes>, Error> {
        let count = i16::try_from(self.columns.len()).unwrap_or(i16::MAX);
        let mut pieces = Vec::new();
        let mut small = BytesMut::new();
        small.put_i16(count);
        for (column, is_binary) in &self.columns {
            let value = match column.verbatim(row, *is_binary) {
                Some(value) if value.len() > PIECE_BYTES => Bytes::from_owner(InPlace(value)),
                _ if column.is_null(row) => {
                    small.put_i32(-1);
                    continue;
                }
                _ if *is_binary => {
                    let mut binary = Vec::new();
                    column.write_binary(row, &mut binary)?;
                    binary.into()
                }
                _ => {
                    let mut text = String::new();
                    column.write_text(row, &mut text)?;
                    text.into()
                }
            };
            small.put_i32(length(value.len())?);
            if value.len() > PIECE_BYTES {
                pieces.push(small.split().freeze());
                pieces.push(value);
            } else {
                small.put_slice(&value);
            }
        }
        pieces.push(small.freeze());
        message(DATA_ROW, pieces)
    }

    /// One row.
    ///
    /// # Errors
    /// A value that its type cannot show.
    pub fn encode(&self, row: usize) -> Result<DataRow, Error> {
        let mut data = BytesMut::with_capacity(self.columns.len() * 16);
        let (mut text, mut binary) = (String::new(), Vec::new());
        for (column, is_binary) in &self.columns {
            text.clear();
            binary.clear();
            let present = if *is_binary {
                column.write_binary(row, &mut binary)?
            } else {
                column.write_text(row, &mut text)?
            };
            let bytes = if *is_binary {
                binary.as_slice()
            } else {
                text.as_bytes()
            };
            if present {
                data.put_i32(length(bytes.len())?);
                data.put_slice(bytes);
            } else {
                data.put_i32(-1);
            }
        }
        Ok(DataRow::new(
            data,
            i16::try_from(self.columns.len()).unwrap_or(i16::MAX),
        ))
    }
}

/// The length of a value as the protocol has it.
pub(crate) fn length(bytes: usize) -> Result<i32, Error> {
    i32::try_from(bytes).map_err(|_| Error::ValueTooLong(bytes))
}

/// A message of this kind, in parts: what comes before the body, and the body's parts.
///
/// # Errors
/// [`Error::ValueTooLong`] if it is longer than a message may be.
pub(crate) fn message(kind: u8, mut body: Vec<Bytes>) -> Result<Vec<Bytes>, Error> {
    const LENGTH_BYTES: usize = 4;
    let bytes = body.iter().map(Bytes::len).sum::<usize>() + LENGTH_BYTES;
    let mut header = BytesMut::with_capacity(1 + LENGTH_BYTES);
    header.put_u8(kind);
    header.put_i32(length(bytes)?);
    body.insert(0, header.freeze());
    Ok(body)
}

/// What a client sent as text.
///
/// # Errors
/// [`Error::Encoding`] if it is not UTF-8 or holds a zero byte, which PostgreSQL's text cannot.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Error::encoding(bytes)),
    }
}

/// One parameter as an array of one value; instants in text without a zone are in `zone`.
///
/// # Errors
/// Text or bytes that are not a value of the type.
pub fn decode_parameter(
    value: Option<&[u8]>,
    sql_type: &SqlType,
    binary: bool,
    zone: &TimeZone,
) -> Result<ArrayRef, Error> {
    let mut builder = ColumnBuilder::new(sql_type, 1).with_time_zone(zone.clone());
    match value {
        None => builder.append_null(),
        Some(bytes) if binary => builder.append_binary(bytes)?,
        Some(bytes) => {
            let text = text(bytes)?;
            builder.append_text(text)?;
        }
    }
    Ok(builder.finish())
}

/// The SQL type of a parameter's type OID; `None` for 0 and for types we do not have: the planner infers those.
#[must_use]
pub fn type_of_oid(oid: u32) -> Option<SqlType> {
    // `json` parameters are `jsonb`; those of `bpchar` have no length.
    let padded = SqlType::Char(0);
    match oid {
        114 => return Some(SqlType::Jsonb),
        1014 => return Some(SqlType::Array(Box::new(padded))),
        1042 => return Some(padded),
        _ => {}
    }
    // Those of catalogs are read from text, as what the planner makes of them.
    let is_sent = |scalar: &&SqlType| !matches!(scalar, SqlType::Reg(_)) && !scalar.is_vector();
    SqlType::SCALARS.iter().filter(is_sent).find_map(|scalar| {
        if scalar.oid() == oid {
            Some(scalar.clone())
        } else if scalar.array_oid() == oid {
            Some(SqlType::Array(Box::new(scalar.clone())))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests;
