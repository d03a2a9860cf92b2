//! From COPY data to batches.
//!
//! Owns the values of rows and the cutting into batches. Where rows end is [`super::row`]'s business. Called by [`crate::connection`].

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use flowstone_coordinator::CopyOptions;
use flowstone_sql::ast::CopyFormat;
use flowstone_types::SqlType;
use flowstone_types::datetime::TimeZone;
use flowstone_types::value::ColumnBuilder;

use super::Style;
use super::row::{BinaryScanner, CsvScanner, Ended, Fault, Row, Scanner, TextScanner};
use crate::Error;
use crate::error::CopyFault;

/// Rows of a batch at most.
pub(super) const ROWS_PER_BATCH: usize = 8192;
/// Bytes of a batch, as soon as whole rows reach it: what is kept until it is handed on.
const BATCH_BYTES: usize = 4 << 20;

/// Turns COPY data into batches.
#[derive(Debug)]
pub struct CopyDecoder {
    format: CopyFormat,
    schema: SchemaRef,
    types: Vec<SqlType>,
    /// In which instants without a zone are.
    zone: TimeZone,
    builders: Vec<ColumnBuilder>,
    /// Rows in the builders, and their bytes.
    rows: usize,
    bytes: usize,
    /// What the builders take before there is a row in them.
    room_bytes: usize,
    scanner: Scanner,
    row: Row,
    /// Lines that are complete.
    line: u64,
    /// Whether the CSV header line is still to come.
    header_pending: bool,
    /// Whether the end marker was seen: what follows is passed over.
    ended: bool,
    /// Bytes that were looked at.
    scanned: u64,
}

impl CopyDecoder {
    /// A decoder for rows of `schema`.
    ///
    /// # Errors
    /// Options that do not go together.
    pub fn new(schema: &SchemaRef, options: &CopyOptions, zone: &TimeZone) -> Result<Self, Error> {
        let style = Style::new(options)?;
        let types = schema
            .fields()
            .iter()
            .map(|field| SqlType::from_field(field))
            .collect::<Result<Vec<_>, _>>()?;
        let scanner = match style.format {
            CopyFormat::Text => Scanner::Text(TextScanner::new(style.delimiter, &style.null)),
            CopyFormat::Csv => Scanner::Csv(CsvScanner::new(
                style.delimiter,
                style.quote,
                style.escape,
                &style.null,
            )),
            CopyFormat::Binary => Scanner::Binary(BinaryScanner::new()),
        };
        Ok(Self {
            format: style.format,
            schema: SchemaRef::clone(schema),
            builders: builders(&types, zone),
            room_bytes: types.iter().map(room_bytes).sum(),
            zone: zone.clone(),
            row: Row::new(types.len()),
            types,
            rows: 0,
            bytes: 0,
            scanner,
            line: 0,
            header_pending: style.header && style.format != CopyFormat::Binary,
            ended: false,
            scanned: 0,
        })
    }

    /// Whether the data is binary.
    #[must_use]
    pub const fn is_binary(&self) -> bool {
        matches!(self.format, CopyFormat::Binary)
    }

    /// Memory that it takes: what has come of a row, and a batch, with the room that is kept for its rows.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.row.held() + self.bytes + self.room_bytes
    }

    /// Bytes that have come of the row that is being read.
    #[must_use]
    pub const fn row_bytes(&self) -> usize {
        self.row.bytes()
    }

    /// Bytes looked at since the start, for whoever wants to know what the work is in proportion to.
    #[must_use]
    pub const fn scanned(&self) -> u64 {
        self.scanned
    }

    /// Takes more data; returns the batches that are full.
    ///
    /// # Errors
    /// [`Error::Copy`] naming the line that is wrong.
    pub fn decode(&mut self, mut data: &[u8]) -> Result<Vec<RecordBatch>, Error> {
        let mut batches = Vec::new();
        while !data.is_empty() && !self.ended {
            let (taken, ended) = match self.scanner.scan(data, &mut self.row) {
                Ok(scanned) => scanned,
                Err(fault) => return Err(self.fault(fault)),
            };
            self.scanned += u64::try_from(taken).unwrap_or(u64::MAX);
            data = data.get(taken..).unwrap_or_default();
            self.end(ended)?;
            if self.rows >= ROWS_PER_BATCH || self.bytes >= BATCH_BYTES {
                batches.push(self.batch()?);
            }
        }
        Ok(batches)
    }

    /// The rows that are left when the client is done.
    ///
    /// # Errors
    /// [`Error::Copy`] if the data ends in the middle of a row.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>, Error> {
        if !self.ended {
            match self.scanner.finish(&mut self.row) {
                Ok(ended) => self.end(ended)?,
                Err(fault) => return Err(self.fault(fault)),
            }
        }
        if self.rows == 0 {
            Ok(None)
        } else {
            Ok(Some(self.batch()?))
        }
    }

    /// Something is complete.
    fn end(&mut self, ended: Ended) -> Result<(), Error> {
        match ended {
            Ended::Nothing | Ended::Header => return Ok(()),
            Ended::Data => self.ended = true,
            Ended::Row { lines } => {
                self.line += lines;
                if !std::mem::take(&mut self.header_pending) {
                    self.append()?;
                }
            }
        }
        self.row.clear();
        Ok(())
    }

    fn batch(&mut self) -> Result<RecordBatch, Error> {
        let columns = std::mem::replace(&mut self.builders, builders(&self.types, &self.zone))
            .into_iter()
            .map(ColumnBuilder::finish)
            .collect();
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(self.rows));
        (self.rows, self.bytes) = (0, 0);
        // NOT NULL is checked where the rows are written, with the relation's name.
        let nullable: Vec<_> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let schema = SchemaRef::new(arrow_schema::Schema::new(nullable));
        RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|error| flowstone_types::TypeError::from(error).into())
    }

    /// Takes the row that is complete.
    fn append(&mut self) -> Result<(), Error> {
        if self.row.has_extra() {
            return Err(self.wrong(CopyFault::Format, "extra data after last expected column"));
        }
        if !self.is_binary() {
            for index in 0..self.row.len() {
                if let Some(Some(bytes)) = self.row.get(index)
                    && crate::encode::text(bytes).is_err()
                {
                    let message = Error::encoding(bytes).to_string();
                    return Err(self.wrong(CopyFault::Encoding, &message));
                }
            }
        }
        let mut builders = std::mem::take(&mut self.builders);
        let appended = builders
            .iter_mut()
            .enumerate()
            .try_for_each(|(index, builder)| self.append_field(index, builder));
        self.builders = builders;
        appended?;
        self.rows += 1;
        self.bytes += self.row.bytes();
        Ok(())
    }

    fn append_field(&self, index: usize, builder: &mut ColumnBuilder) -> Result<(), Error> {
        let column = || {
            let field = self.schema.fields().get(index);
            field.map_or("", |field| field.name().as_str())
        };
        let bytes = match self.row.get(index) {
            None => {
                let message = format!("missing data for column \"{}\"", column());
                return Err(self.wrong(CopyFault::Format, &message));
            }
            Some(None) => {
                builder.append_null();
                return Ok(());
            }
            Some(Some(bytes)) => bytes,
        };
        if self.is_binary() {
            return builder.append_binary(bytes).map_err(|error| {
                let message = error.to_string();
                self.wrong(CopyFault::Value(error), &message)
            });
        }
        let text = crate::encode::text(bytes)?;
        builder.append_text(text).map_err(|error| Error::Copy {
            message: error.to_string(),
            context: format!(
                "COPY, line {}, column {}: \"{}\"",
                self.line,
                column(),
                shown(text)
            ),
            fault: CopyFault::Value(error),
        })
    }

    fn wrong(&self, fault: CopyFault, message: &str) -> Error {
        Error::Copy {
            message: message.to_owned(),
            context: format!("COPY, line {}", self.line),
            fault,
        }
    }

    /// The row that is being read is none.
    fn fault(&mut self, fault: Fault) -> Error {
        self.line += 1;
        match fault {
            Fault::Format(message) => self.wrong(CopyFault::Format, &message),
            Fault::TooLong => self.wrong(CopyFault::TooLong, "row of COPY data is too long"),
        }
    }
}

fn builders(types: &[SqlType], zone: &TimeZone) -> Vec<ColumnBuilder> {
    types
        .iter()
        .map(|sql_type| ColumnBuilder::new(sql_type, ROWS_PER_BATCH).with_time_zone(zone.clone()))
        .collect()
}

/// What a builder takes for the rows of a batch before they come, about: values of fixed width or offsets.
fn room_bytes(sql_type: &SqlType) -> usize {
    const OFFSET_BYTES: usize = size_of::<i32>();
    if let SqlType::Array(element) = sql_type {
        return OFFSET_BYTES * ROWS_PER_BATCH + room_bytes(element);
    }
    let width = match sql_type.to_arrow() {
        DataType::LargeBinary => size_of::<i64>(),
        DataType::FixedSizeBinary(bytes) => usize::try_from(bytes).unwrap_or(0),
        data_type => data_type.primitive_width().unwrap_or(OFFSET_BYTES),
    };
    width * ROWS_PER_BATCH
}

/// As much of a value as an error shows: PostgreSQL's limit.
fn shown(text: &str) -> String {
    const SHOWN_BYTES: usize = 100;
    if text.len() <= SHOWN_BYTES {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(SHOWN_BYTES);
    format!("{}...", text.get(..end).unwrap_or_default())
}
