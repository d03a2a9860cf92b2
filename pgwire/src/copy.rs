//! The COPY formats: text, CSV and binary, as PostgreSQL reads and writes them.
//!
//! Owns the translation between bytes and batches. Decoding is incremental: a message may end in the middle of a row.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use flowstone_coordinator::CopyOptions;
use flowstone_sql::ast::CopyFormat;
use flowstone_types::SqlType;
use flowstone_types::datetime::TimeZone;
use flowstone_types::value::ColumnFormatter;

use crate::Error;
use crate::encode::length;

mod decoder;
mod row;

pub use decoder::CopyDecoder;

/// The eleven bytes that open binary COPY data; flags and the length of the header extension follow.
const BINARY_SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// How rows are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    format: CopyFormat,
    delimiter: u8,
    null: String,
    quote: u8,
    escape: u8,
    header: bool,
}

impl Style {
    /// The style of a COPY statement, defaults filled in.
    ///
    /// # Errors
    /// A delimiter, quote or escape that is not one byte.
    pub fn new(options: &CopyOptions) -> Result<Self, Error> {
        let one_byte = |name: &str, given: char| {
            u8::try_from(given)
                .ok()
                .filter(u8::is_ascii)
                .ok_or_else(|| {
                    flowstone_sql::Error::unsupported(format!(
                        "COPY {name} must be a single one-byte character"
                    ))
                })
        };
        Ok(Self {
            format: options.format,
            delimiter: one_byte("delimiter", options.delimiter)?,
            null: options.null.clone(),
            quote: one_byte("quote", options.quote)?,
            escape: one_byte("escape", options.escape)?,
            header: options.header,
        })
    }
}

/// Turns batches into COPY data.
#[derive(Debug)]
pub struct CopyEncoder {
    style: Style,
    types: Vec<SqlType>,
    names: Vec<String>,
    /// In which instants are shown.
    zone: TimeZone,
}

impl CopyEncoder {
    /// An encoder for rows of `schema`.
    ///
    /// # Errors
    /// Options that do not go together.
    pub fn new(schema: &SchemaRef, options: &CopyOptions, zone: &TimeZone) -> Result<Self, Error> {
        let types = schema
            .fields()
            .iter()
            .map(|field| SqlType::from_field(field))
            .collect::<Result<Vec<_>, _>>()?;
        let names = schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        Ok(Self {
            style: Style::new(options)?,
            types,
            names,
            zone: zone.clone(),
        })
    }

    /// Whether the data is binary.
    #[must_use]
    pub const fn is_binary(&self) -> bool {
        matches!(self.style.format, CopyFormat::Binary)
    }

    /// What comes before the first row.
    #[must_use]
    pub fn header(&self) -> Option<Bytes> {
        match self.style.format {
            CopyFormat::Binary => Some([BINARY_SIGNATURE, &[0; 8]].concat().into()),
            CopyFormat::Text | CopyFormat::Csv if self.style.header => {
                let mut line = Vec::new();
                for (index, name) in self.names.iter().enumerate() {
                    self.field(index, Some(name), &mut line);
                }
                line.push(b'\n');
                Some(line.into())
            }
            CopyFormat::Text | CopyFormat::Csv => None,
        }
    }

    /// What comes after the last row.
    #[must_use]
    pub fn trailer(&self) -> Option<Bytes> {
        self.is_binary().then(|| Bytes::from_static(&[0xff, 0xff]))
    }

    /// The rows of a batch.
    ///
    /// # Errors
    /// An internal error if a column is not of its type.
    pub fn rows<'a>(&'a self, batch: &'a RecordBatch) -> Result<CopyRows<'a>, Error> {
        let columns = itertools::zip_eq(batch.columns(), &self.types)
            .map(|(column, sql_type)| {
                ColumnFormatter::new(column.as_ref(), sql_type)
                    .map(|formatter| formatter.with_time_zone(self.zone.clone()))
            })
            .collect::<Result<_, _>>()?;
        Ok(CopyRows {
            encoder: self,
            columns,
        })
    }

    /// Writes one field of text or CSV format.
    fn field(&self, index: usize, value: Option<&str>, line: &mut Vec<u8>) {
        let style = &self.style;
        if index > 0 {
            line.push(style.delimiter);
        }
        let Some(value) = value else {
            line.extend_from_slice(style.null.as_bytes());
            return;
        };
        if style.format == CopyFormat::Csv {
            let special = |byte: &u8| [style.quote, style.delimiter, b'\n', b'\r'].contains(byte);
            let needs_quotes =
                value == style.null || value == "\\." || value.as_bytes().iter().any(special);
            if !needs_quotes {
                line.extend_from_slice(value.as_bytes());
                return;
            }
            line.push(style.quote);
            for byte in value.bytes() {
                if byte == style.quote || byte == style.escape {
                    line.push(style.escape);
                }
                line.push(byte);
            }
            line.push(style.quote);
            return;
        }
        for byte in value.bytes() {
            match byte {
                0x08 => line.extend_from_slice(b"\\b"),
                0x0c => line.extend_from_slice(b"\\f"),
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                b'\t' => line.extend_from_slice(b"\\t"),
                0x0b => line.extend_from_slice(b"\\v"),
                b'\\' => line.extend_from_slice(b"\\\\"),
                other if other == style.delimiter => line.extend_from_slice(&[b'\\', other]),
                other => line.push(other),
            }
        }
    }
}

/// The rows of one batch as COPY data.
#[derive(Debug)]
pub struct CopyRows<'a> {
    encoder: &'a CopyEncoder,
    columns: Vec<ColumnFormatter<'a>>,
}

impl CopyRows<'_> {
    /// About how many bytes a row takes.
    #[must_use]
    pub fn size_hint(&self, row: usize) -> usize {
        self.columns
            .iter()
            .map(|column| column.size_hint(row))
            .sum()
    }

    /// One row: the data of one message.
    ///
    /// # Errors
    /// A value that its type cannot show.
    pub fn encode(&self, row: usize) -> Result<Bytes, Error> {
        let mut line = Vec::with_capacity(self.size_hint(row) + 4 * self.columns.len() + 2);
        if self.encoder.is_binary() {
            let count = i16::try_from(self.columns.len()).unwrap_or(i16::MAX);
            line.extend_from_slice(&count.to_be_bytes());
            for column in &self.columns {
                write_binary(column, row, &mut line)?;
            }
            return Ok(line.into());
        }
        let mut text = String::new();
        for (index, column) in self.columns.iter().enumerate() {
            // Text is taken from where it is, other types are made text first.
            let verbatim = column.verbatim(row, false);
            let value = match &verbatim {
                Some(bytes) => Some(crate::encode::text(bytes)?),
                None => {
                    text.clear();
                    let present = column.write_text(row, &mut text)?;
                    present.then_some(text.as_str())
                }
            };
            self.encoder.field(index, value, &mut line);
        }
        line.push(b'\n');
        Ok(line.into())
    }
}

/// Writes a value behind its length.
fn write_binary(column: &ColumnFormatter<'_>, row: usize, line: &mut Vec<u8>) -> Result<(), Error> {
    let start = line.len();
    line.extend_from_slice(&(-1_i32).to_be_bytes());
    let value = line.len();
    if column.write_binary(row, line)? {
        let bytes = length(line.len() - value)?.to_be_bytes();
        if let Some(place) = line.get_mut(start..value) {
            place.copy_from_slice(&bytes);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
