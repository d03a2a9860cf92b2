//! The COPY formats: text, CSV and binary, as PostgreSQL reads and writes them.
//!
//! Owns the translation between bytes and batches. Decoding is incremental: a message may end in the middle of a row.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use flowstone_coordinator::CopyOptions;
use flowstone_sql::ast::CopyFormat;
use flowstone_types::SqlType;
use flowstone_types::value::{ColumnBuilder, ColumnFormatter};

use crate::Error;
use crate::encode::length;
use crate::error::CopyFault;

/// Rows per batch handed to the session.
const ROWS_PER_BATCH: usize = 8192;

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

/// Turns COPY data into batches.
#[derive(Debug)]
pub struct CopyDecoder {
    style: Style,
    schema: SchemaRef,
    types: Vec<SqlType>,
    builders: Vec<ColumnBuilder>,
    rows: usize,
    /// Bytes of a row that has not ended.
    rest: Vec<u8>,
    line: u64,
    /// Whether the header (CSV header line, binary signature) is still to come.
    header_pending: bool,
    /// Whether the end marker was seen: what follows is passed over.
    ended: bool,
}

impl CopyDecoder {
    /// A decoder for rows of `schema`.
    ///
    /// # Errors
    /// Options that do not go together.
    pub fn new(schema: &SchemaRef, options: &CopyOptions) -> Result<Self, Error> {
        let style = Style::new(options)?;
        let types = schema
            .fields()
            .iter()
            .map(|field| SqlType::from_field(field))
            .collect::<Result<Vec<_>, _>>()?;
        let builders = types
            .iter()
            .map(|sql_type| ColumnBuilder::new(sql_type, ROWS_PER_BATCH))
            .collect();
        let header_pending = style.header || style.format == CopyFormat::Binary;
        let schema = SchemaRef::clone(schema);
        Ok(Self {
            style,
            schema,
            types,
            builders,
            rows: 0,
            rest: Vec::new(),
            line: 0,
            header_pending,
            ended: false,
        })
    }

    /// Whether the data is binary.
    #[must_use]
    pub const fn is_binary(&self) -> bool {
        matches!(self.style.format, CopyFormat::Binary)
    }

    /// Takes more data; returns the batches that are full.
    ///
    /// # Errors
    /// [`Error::Copy`] naming the line that is wrong.
    pub fn decode(&mut self, data: &[u8]) -> Result<Vec<RecordBatch>, Error> {
        self.rest.extend_from_slice(data);
        let rest = std::mem::take(&mut self.rest);
        let mut batches = Vec::new();
        let mut start = 0;
        while let Some(row) = rest
            .get(start..)
            .filter(|row| !row.is_empty() && !self.ended)
        {
            let taken = match self.style.format {
                CopyFormat::Binary => self.binary_row(row)?,
                CopyFormat::Csv => self.csv_row(row, false)?,
                CopyFormat::Text => self.text_row(row, false)?,
            };
            let Some(taken) = taken else { break };
            start += taken;
            if self.rows >= ROWS_PER_BATCH {
                batches.push(self.batch()?);
            }
        }
        if !self.ended {
            self.rest = rest.get(start..).unwrap_or_default().to_vec();
        }
        Ok(batches)
    }

    /// The rows that are left when the client is done.
    ///
    /// # Errors
    /// [`Error::Copy`] if the data ends in the middle of a row.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>, Error> {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() && !self.ended {
            let taken = match self.style.format {
                CopyFormat::Binary => None,
                CopyFormat::Csv => self.csv_row(&rest, true)?,
                CopyFormat::Text => self.text_row(&rest, true)?,
            };
            if taken.is_none() {
                return Err(self.wrong("unexpected EOF in COPY data".to_owned()));
            }
        }
        if self.rows == 0 {
            Ok(None)
        } else {
            Ok(Some(self.batch()?))
        }
    }

    fn batch(&mut self) -> Result<RecordBatch, Error> {
        let builders = self
            .types
            .iter()
            .map(|sql_type| ColumnBuilder::new(sql_type, ROWS_PER_BATCH))
            .collect();
        let columns = std::mem::replace(&mut self.builders, builders)
            .into_iter()
            .map(ColumnBuilder::finish)
            .collect();
        self.rows = 0;
        // NOT NULL is checked where the rows are written, with the relation's name.
        let nullable: Vec<_> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let schema = SchemaRef::new(arrow_schema::Schema::new(nullable));
        RecordBatch::try_new(schema, columns)
            .map_err(|error| flowstone_types::TypeError::from(error).into())
    }

    fn wrong(&self, message: String) -> Error {
        Error::Copy {
            message,
            context: format!("COPY, line {}", self.line),
            fault: CopyFault::Format,
        }
    }

    /// Appends the fields of one row; `None` is NULL.
    fn append(&mut self, fields: &[Option<String>]) -> Result<(), Error> {
        if fields.len() > self.builders.len() {
            return Err(self.wrong("extra data after last expected column".to_owned()));
        }
        for (index, builder) in self.builders.iter_mut().enumerate() {
            let column = self
                .schema
                .fields()
                .get(index)
                .map_or("", |field| field.name().as_str());
            match fields.get(index) {
                None => {
                    let (message, context) = (
                        format!("missing data for column \"{column}\""),
                        format!("COPY, line {}", self.line),
                    );
                    return Err(Error::Copy {
                        message,
                        context,
                        fault: CopyFault::Format,
                    });
                }
                Some(None) => builder.append_null(),
                Some(Some(text)) => {
                    builder.append_text(text).map_err(|error| Error::Copy {
                        message: error.to_string(),
                        context: format!("COPY, line {}, column {column}: \"{text}\"", self.line),
                        fault: CopyFault::Value(error),
                    })?;
                }
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// One line of text format; returns the bytes it took, `None` if it has not ended.
    fn text_row(&mut self, data: &[u8], last: bool) -> Result<Option<usize>, Error> {
        let (line, taken) = match line_end(data) {
            Some(end) => (data.get(..end).unwrap_or_default(), end + 1),
            None if last => (data, data.len()),
            None => return Ok(None),
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.line += 1;
        if std::mem::take(&mut self.header_pending) {
            return Ok(Some(taken));
        }
        if line == b"\\." {
            self.ended = true;
            return Ok(Some(taken));
        }
        let mut fields = Vec::with_capacity(self.builders.len());
        // A table without columns has lines without fields.
        if !(line.is_empty() && self.builders.is_empty()) {
            for raw in split_unescaped(line, self.style.delimiter) {
                fields.push(if raw == self.style.null.as_bytes() {
                    None
                } else {
                    Some(self.utf8(unescape(raw))?)
                });
            }
        }
        self.append(&fields)?;
        Ok(Some(taken))
    }

    fn utf8(&self, bytes: Vec<u8>) -> Result<String, Error> {
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(text),
            Ok(text) => Err(self.not_text(text.as_bytes())),
            Err(error) => Err(self.not_text(error.as_bytes())),
        }
    }

    fn not_text(&self, bytes: &[u8]) -> Error {
        let message = Error::encoding(bytes).to_string();
        Error::Copy {
            message,
            context: format!("COPY, line {}", self.line),
            fault: CopyFault::Encoding,
        }
    }

    /// One record of CSV; returns the bytes it took, `None` if it has not ended.
    fn csv_row(&mut self, data: &[u8], last: bool) -> Result<Option<usize>, Error> {
        let style = self.style.clone();
        let mut fields = Vec::with_capacity(self.builders.len());
        let (mut value, mut quoted, mut inside) = (Vec::new(), false, false);
        let mut bytes = data.iter().copied().enumerate().peekable();
        let mut taken = None;
        let mut lines = 1;
        // Whether the last byte was a carriage return outside of quotes: the first half of a line's end, perhaps.
        let mut carriage_return = false;
        while let Some((at, byte)) = bytes.next() {
            if byte != b'\n' {
                carriage_return = byte == b'\r' && !inside;
            }
            if inside {
                let next = bytes.peek().map(|(_, next)| *next);
                if byte == style.escape
                    && matches!(next, Some(next) if next == style.quote || next == style.escape)
                {
                    value.extend(next);
                    bytes.next();
                } else if byte == style.quote {
                    if next.is_none() && !last {
                        // The quote may be the first half of an escaped one.
                        return Ok(None);
                    }
                    inside = false;
                } else {
                    lines += u64::from(byte == b'\n');
                    value.push(byte);
                }
            } else if byte == style.quote {
                (inside, quoted) = (true, true);
            } else if byte == style.delimiter {
                fields.push(self.csv_field(&mut value, &mut quoted)?);
            } else if byte == b'\n' {
                taken = Some(at + 1);
                break;
            } else {
                value.push(byte);
            }
        }
        if inside && last {
            return Err(self.wrong("unterminated CSV quoted field".to_owned()));
        }
        let Some(taken) = taken.or(last.then_some(data.len())) else {
            return Ok(None);
        };
        self.line += lines;
        if carriage_return {
            value.pop();
        }
        if fields.is_empty() && !quoted && value == b"\\." {
            self.ended = true;
            return Ok(Some(taken));
        }
        fields.push(self.csv_field(&mut value, &mut quoted)?);
        if std::mem::take(&mut self.header_pending) {
            return Ok(Some(taken));
        }
        self.append(&fields)?;
        Ok(Some(taken))
    }

    /// Takes the value of one field: NULL only if it was not quoted.
    fn csv_field(&self, value: &mut Vec<u8>, quoted: &mut bool) -> Result<Option<String>, Error> {
        let (value, quoted) = (std::mem::take(value), std::mem::take(quoted));
        if !quoted && value == self.style.null.as_bytes() {
            return Ok(None);
        }
        Ok(Some(self.utf8(value)?))
    }

    /// The header or one tuple of binary format; returns the bytes it took, `None` if it has not ended.
    fn binary_row(&mut self, data: &[u8]) -> Result<Option<usize>, Error> {
        if self.header_pending {
            let Some(extension) = data
                .get(15..19)
                .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
            else {
                return Ok(None);
            };
            if !data.starts_with(BINARY_SIGNATURE) {
                return Err(self.wrong("COPY file signature not recognized".to_owned()));
            }
            let end = usize::try_from(u32::from_be_bytes(extension))
                .unwrap_or(usize::MAX)
                .saturating_add(19);
            if data.len() < end {
                return Ok(None);
            }
            self.header_pending = false;
            return Ok(Some(end));
        }
        let Some(count) = data
            .get(..2)
            .and_then(|bytes| <[u8; 2]>::try_from(bytes).ok())
        else {
            return Ok(None);
        };
        let count = i16::from_be_bytes(count);
        if count == -1 {
            self.ended = true;
            return Ok(Some(2));
        }
        self.line += 1;
        if usize::try_from(count).ok() != Some(self.builders.len()) {
            return Err(self.wrong(format!(
                "row field count is {count}, expected {}",
                self.builders.len()
            )));
        }
        let mut fields = Vec::with_capacity(self.builders.len());
        let mut at = 2;
        for _ in 0..self.builders.len() {
            let Some(size) = data
                .get(at..at + 4)
                .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
            else {
                self.line -= 1;
                return Ok(None);
            };
            at += 4;
            let size = i32::from_be_bytes(size);
            if size == -1 {
                fields.push(None);
                continue;
            }
            let size =
                usize::try_from(size).map_err(|_| self.wrong("invalid field size".to_owned()))?;
            let Some(bytes) = data.get(at..at + size) else {
                self.line -= 1;
                return Ok(None);
            };
            fields.push(Some(bytes));
            at += size;
        }
        for (builder, field) in itertools::zip_eq(&mut self.builders, fields) {
            match field {
                None => builder.append_null(),
                Some(bytes) => builder.append_binary(bytes).map_err(|error| Error::Copy {
                    message: error.to_string(),
                    context: format!("COPY, line {}", self.line),
                    fault: CopyFault::Value(error),
                })?,
            }
        }
        self.rows += 1;
        Ok(Some(at))
    }
}

/// Where the first line ends: a newline after a backslash is part of a value.
fn line_end(data: &[u8]) -> Option<usize> {
    let mut escaped = false;
    data.iter().position(|byte| {
        let ends = *byte == b'\n' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })
}

/// Splits at `delimiter` where no backslash stands before it.
fn split_unescaped(line: &[u8], delimiter: u8) -> Vec<&[u8]> {
    let (mut fields, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in line.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if *byte == b'\\' {
            escaped = true;
        } else if *byte == delimiter {
            fields.push(line.get(start..at).unwrap_or_default());
            start = at + 1;
        }
    }
    fields.push(line.get(start..).unwrap_or_default());
    fields
}

/// Resolves the backslash sequences of text format.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        let Some(code) = bytes.next() else { break };
        value.push(match code {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'0'..=b'7' => number(&mut bytes, code - b'0', 8, 2),
            b'x' if bytes.peek().is_some_and(u8::is_ascii_hexdigit) => number(&mut bytes, 0, 16, 2),
            other => other,
        });
    }
    value
}

/// Reads up to `digits` more digits of a number in `radix`.
fn number(
    bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>,
    first: u8,
    radix: u8,
    digits: usize,
) -> u8 {
    let mut value = first;
    for _ in 0..digits {
        let digit = bytes
            .peek()
            .and_then(|byte| char::from(*byte).to_digit(u32::from(radix)))
            .and_then(|digit| u8::try_from(digit).ok());
        let Some(digit) = digit else { break };
        value = value.wrapping_mul(radix).wrapping_add(digit);
        bytes.next();
    }
    value
}

/// Turns batches into COPY data.
#[derive(Debug)]
pub struct CopyEncoder {
    style: Style,
    types: Vec<SqlType>,
    names: Vec<String>,
}

impl CopyEncoder {
    /// An encoder for rows of `schema`.
    ///
    /// # Errors
    /// Options that do not go together.
    pub fn new(schema: &SchemaRef, options: &CopyOptions) -> Result<Self, Error> {
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

    /// One message per row.
    ///
    /// # Errors
    /// A value that its type cannot show.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<Bytes>, Error> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (column, sql_type) in itertools::zip_eq(batch.columns(), &self.types) {
            columns.push(ColumnFormatter::new(column.as_ref(), sql_type)?);
        }
        let mut lines = Vec::with_capacity(batch.num_rows());
        let (mut text, mut binary) = (String::new(), Vec::new());
        for row in 0..batch.num_rows() {
            let mut line = Vec::new();
            if self.is_binary() {
                line.extend_from_slice(
                    &i16::try_from(columns.len())
                        .unwrap_or(i16::MAX)
                        .to_be_bytes(),
                );
            }
            for (index, column) in columns.iter().enumerate() {
                if self.is_binary() {
                    binary.clear();
                    if column.write_binary(row, &mut binary)? {
                        line.extend_from_slice(&length(binary.len())?.to_be_bytes());
                        line.extend_from_slice(&binary);
                    } else {
                        line.extend_from_slice(&(-1_i32).to_be_bytes());
                    }
                } else {
                    text.clear();
                    let present = column.write_text(row, &mut text)?;
                    self.field(index, present.then_some(text.as_str()), &mut line);
                }
            }
            if !self.is_binary() {
                line.push(b'\n');
            }
            lines.push(line.into());
        }
        Ok(lines)
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

#[cfg(test)]
mod tests;
