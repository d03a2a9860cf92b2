//! Comma-separated values (RFC 4180): one record to a payload, each field a column of text.
//!
//! Owns the widths and names of records. Called by [`crate::Decoder`].
//!
//! A record of another width, and a payload of more than one record, make no row. An empty field is an empty text, never NULL.

use csv_core::ReadRecordResult;
use flowstone_types::SqlType;

use crate::error::{Error, Fault};
use crate::relation::{Column, Relation};
use crate::rows::{Decoded, Limits, Rows, at};

/// Which columns there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CsvColumns {
    /// So many, named `column1`, `column2`, ….
    Count(usize),
    /// Those of these names.
    Names(Vec<String>),
    /// Those of these names, which the first record of each partition (or file) states as a header: the caller says which payload that is
    /// ([`CsvDecoder::check_header`]).
    Header(Vec<String>),
}

/// CSV.
#[derive(Clone, Debug)]
pub struct CsvDecoder {
    columns: CsvColumns,
    delimiter: u8,
    relation: Relation,
    limits: Limits,
}

impl CsvDecoder {
    /// A decoder.
    ///
    /// # Errors
    /// [`Error::Definition`] without columns, or with a delimiter that is not one byte of ASCII or means something else.
    pub fn new(columns: CsvColumns, delimiter: char, limits: Limits) -> Result<Self, Error> {
        let delimiter = u8::try_from(delimiter)
            .ok()
            .filter(|byte| byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n' | 0))
            .ok_or_else(|| Error::definition("CSV delimiter must be an ASCII character other than a quote or the end of a line"))?;
        let names = match &columns {
            CsvColumns::Count(count) => {
                if *count > usize::from(u16::MAX) {
                    return Err(Error::definition("too many CSV columns"));
                }
                (1..=*count)
                    .map(|column| format!("column{column}"))
                    .collect()
            }
            CsvColumns::Names(names) | CsvColumns::Header(names) => names.clone(),
        };
        if names.is_empty() {
            return Err(Error::definition("CSV needs at least one column"));
        }
        let described = names
            .into_iter()
            .map(|name| Column::new(name, SqlType::Text, false));
        Ok(Self {
            columns,
            delimiter,
            relation: Relation::new(described.collect()),
            limits,
        })
    }

    /// The columns of a row.
    #[must_use]
    pub const fn relation(&self) -> &Relation {
        &self.relation
    }

    /// Whether the first record is a header.
    #[must_use]
    pub const fn has_header(&self) -> bool {
        matches!(self.columns, CsvColumns::Header(_))
    }

    /// Checks a header against the names of the columns; it makes no row.
    ///
    /// # Errors
    /// [`Error::Definition`] if it names others.
    pub fn check_header(&self, payload: &[u8]) -> Result<(), Error> {
        let mut record = Record::default();
        let stated = record.read(payload, self.delimiter);
        stated.map_err(|fault| Error::Definition(fault.into_reason()))?;
        let expected = self
            .relation
            .columns
            .iter()
            .map(|column| column.name.as_bytes());
        if record.fields().eq(expected) {
            return Ok(());
        }
        Err(Error::definition(
            "the header of the CSV names other columns than the source",
        ))
    }

    /// Decodes payloads.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`]
    pub fn decode(&self, payloads: &[Option<&[u8]>]) -> Result<Decoded, Error> {
        let mut record = Record::default();
        let width = self.relation.columns.len();
        Rows::decode(&self.relation, self.limits, payloads, |payload, columns| {
            record.read(payload, self.delimiter)?;
            if record.width != width {
                let found = record.width;
                return Err(Fault::from(format!(
                    "CSV record has {found} columns, expected {width}"
                )));
            }
            for (column, field) in record.fields().enumerate() {
                at(columns, column)?.append_bytes(field)?;
            }
            Ok(())
        })
    }
}

/// One record; the buffers are used again.
#[derive(Debug, Default)]
struct Record {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    width: usize,
}

impl Record {
    /// Reads the only record of a payload.
    fn read(&mut self, payload: &[u8], delimiter: u8) -> Result<(), Fault> {
        let payload = payload.strip_suffix(b"\n").unwrap_or(payload);
        let payload = payload.strip_suffix(b"\r").unwrap_or(payload);
        self.width = 0;
        if payload.is_empty() {
            // A record of one empty field.
            self.width = 1;
            self.ends.clear();
            self.ends.push(0);
            return Ok(());
        }
        // Fields are never longer than the payload, nor more than its bytes and one.
        self.bytes.resize(payload.len() + 1, 0);
        self.ends.resize(payload.len() + 2, 0);
        let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        let (mut read, mut written, mut ended) = (0, 0, 0);
        loop {
            let input = payload.get(read..).unwrap_or_default();
            let bytes = self.bytes.get_mut(written..).unwrap_or_default();
            let ends = self.ends.get_mut(ended..).unwrap_or_default();
            let (result, taken, output, fields) = reader.read_record(input, bytes, ends);
            read += taken;
            written += output;
            ended += fields;
            match result {
                // An empty input says that there is no more.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Err(Fault::from("message holds no CSV record")),
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    return Err(Fault::from(
                        "internal error: CSV record outgrew its message",
                    ));
                }
            }
        }
        if read < payload.len() {
            return Err(Fault::from("message holds more than one CSV record"));
        }
        self.width = ended;
        Ok(())
    }

    /// The fields.
    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().take(self.width).map(move |end| {
            let field = self.bytes.get(start..*end).unwrap_or_default();
            start = *end;
            field
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;

    use super::*;

    fn rows(decoder: &CsvDecoder, payloads: &[&str]) -> (Vec<Vec<String>>, Vec<u32>) {
        let payloads: Vec<_> = payloads.iter().map(|text| Some(text.as_bytes())).collect();
        let decoded = decoder.decode(&payloads).unwrap();
        let rows = (0..decoded.rows.len()).map(|row| {
            let cells = decoded
                .columns
                .iter()
                .map(|column| column.as_string::<i32>().value(row));
            cells.map(str::to_owned).collect()
        });
        (
            rows.collect(),
            decoded.bad.iter().map(|bad| bad.index).collect(),
        )
    }

    #[test]
    fn quotes_delimiters_and_line_ends_are_those_of_the_standard() {
        let decoder = CsvDecoder::new(CsvColumns::Count(3), ',', Limits::default()).unwrap();
        let (rows, bad) = rows(
            &decoder,
            &[
                "a,b,c",
                "\"x,\"\"y\",,\"two\nlines\"\r\n",
                "a,b",
                "a,b,c,d",
                "1,2,3\n4,5,6",
                ",,",
            ],
        );
        assert_eq!(
            rows,
            [["a", "b", "c"], ["x,\"y", "", "two\nlines"], ["", "", ""]]
        );
        assert_eq!(bad, [2, 3, 4]);
    }

    #[test]
    fn a_header_is_checked() {
        let names = vec!["id".to_owned(), "name".to_owned()];
        let decoder = CsvDecoder::new(CsvColumns::Header(names), ';', Limits::default()).unwrap();
        assert!(decoder.has_header());
        decoder.check_header(b"id;name\n").unwrap();
        decoder.check_header(b"id;other").unwrap_err();
    }

    #[test]
    fn an_empty_payload_is_an_empty_field() {
        let decoder = CsvDecoder::new(CsvColumns::Count(1), ',', Limits::default()).unwrap();
        assert_eq!(
            rows(&decoder, &["", "\n"]),
            (vec![vec![String::new()]; 2], vec![])
        );
    }
}
