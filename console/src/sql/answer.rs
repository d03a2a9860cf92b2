//! Results as JSON.
//!
//! A value is JSON's own where JSON can hold it, and otherwise PostgreSQL's text:
//!
//! | SQL | JSON |
//! |---|---|
//! | NULL | `null` |
//! | boolean | `true`, `false` |
//! | smallint, integer, uint2, uint4, oid | number |
//! | real, double precision | number; `"NaN"`, `"Infinity"`, `"-Infinity"` as text |
//! | bigint, uint8, numeric, mz_timestamp | text: a reader that keeps numbers as doubles would change them |
//! | jsonb | the value itself, its numbers digit for digit; a JSON `null` is not told from NULL |
//! | everything else, arrays among it | text as PostgreSQL writes it |

use std::convert::Infallible;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use flowstone_coordinator::{Held, Notice, Report, SessionMemory, Severity, report};
use flowstone_types::datetime::TimeZone;
use flowstone_types::value::ColumnFormatter;
use flowstone_types::{SqlType, TypeError};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::RESULT_BYTES_MAX;
use crate::refusal::ErrorJson;

/// The results of the statements run so far.
#[derive(Debug)]
pub(super) struct Results {
    results: Vec<OneResult>,
    /// Bytes of those.
    bytes: usize,
    /// What they, and the result that is being written, take.
    held: Held,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    parts: Vec<Bytes>,
    held: Held,
}

impl Answer {
    /// The response. The answer counts, and `permit` is held, until it was sent.
    pub(super) fn into_response(self, permit: OwnedSemaphorePermit) -> Response {
        /// Bytes handed to the connection at once.
        const PIECE_BYTES: usize = 64 << 10;
        let length: usize = self.parts.iter().map(Bytes::len).sum();
        let kept = (self.held, permit);
        let parts = self.parts.into_iter().flat_map(|mut part| {
            let pieces = part.len().div_ceil(PIECE_BYTES);
            (0..pieces).map(move |_| part.split_to(part.len().min(PIECE_BYTES)))
        });
        let parts = parts.map(move |part| {
            let _sent = &kept;
            Ok::<_, Infallible>(part)
        });
        let headers = [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (header::CONTENT_LENGTH, length.to_string()),
        ];
        let body = Body::from_stream(futures::stream::iter(parts));
        (headers, body).into_response()
    }

    /// The text, for tests.
    #[cfg(test)]
    pub(super) fn text(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

#[derive(Debug)]
struct OneResult {
    /// An object, without its notices and closing brace.
    json: Vec<u8>,
    notices: Vec<Notice>,
}

impl Results {
    pub(super) fn new(memory: &SessionMemory) -> Self {
        Self {
            results: Vec::new(),
            bytes: 0,
            held: memory.nothing(),
        }
    }

    /// Writes the rows of a batch down, instants in `zone`.
    ///
    /// # Errors
    /// The answer becomes too large for itself or for the session, or a value cannot be shown.
    pub(super) fn push_rows(
        &mut self,
        writer: &mut RowsWriter,
        batch: &RecordBatch,
        zone: &TimeZone,
    ) -> Result<(), Report> {
        writer.push(batch, zone)?;
        self.held
            .resize(self.bytes + writer.json.len())
            .map_err(|error| Report::from(&flowstone_coordinator::Error::from(error)))
    }

    pub(super) fn error(&mut self, report: &Report, notices: Vec<Notice>) {
        self.push_object("error", &ErrorJson::from(report), notices);
    }

    pub(super) fn ok(&mut self, tag: &str, notices: Vec<Notice>) {
        self.push_object("ok", &tag, notices);
    }

    pub(super) fn rows(&mut self, rows: RowsWriter, tag: &str, notices: Vec<Notice>) {
        let mut json = rows.json;
        json.extend_from_slice(b"],\"tag\":");
        write(&mut json, &tag);
        self.push(json, notices);
    }

    /// Notices that came up after the last result.
    pub(super) fn add_notices(&mut self, notices: Vec<Notice>) {
        if let Some(last) = self.results.last_mut() {
            last.notices.extend(notices);
        }
    }

    /// The start of the next result of rows.
    pub(super) fn start_rows(&self, schema: &SchemaRef) -> Result<RowsWriter, Report> {
        RowsWriter::start(schema, RESULT_BYTES_MAX.saturating_sub(self.bytes))
    }

    /// The whole answer.
    pub(super) fn finish(self) -> Answer {
        let mut parts = Vec::with_capacity(2 * self.results.len() + 2);
        let mut between = b"{\"results\":[".to_vec();
        for (index, result) in self.results.into_iter().enumerate() {
            if index > 0 {
                between.push(b',');
            }
            parts.push(Bytes::from(std::mem::take(&mut between)));
            parts.push(result.json.into());
            between.extend_from_slice(b",\"notices\":");
            let notices: Vec<_> = result.notices.iter().map(NoticeJson::from).collect();
            write(&mut between, &notices);
            between.push(b'}');
        }
        between.extend_from_slice(b"]}");
        parts.push(between.into());
        Answer {
            parts,
            held: self.held,
        }
    }

    fn push_object(&mut self, key: &str, value: &impl Serialize, notices: Vec<Notice>) {
        let mut json = vec![b'{'];
        write(&mut json, &key);
        json.push(b':');
        write(&mut json, value);
        self.push(json, notices);
    }

    fn push(&mut self, json: Vec<u8>, notices: Vec<Notice>) {
        self.bytes += json.len();
        self.results.push(OneResult { json, notices });
    }
}

/// Appends a value as JSON.
fn write(json: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(json, value)
        .expect("memory takes every write, and no type here has a map with keys that are not text");
}

/// A result of rows that is being written.
#[derive(Debug)]
pub(super) struct RowsWriter {
    json: Vec<u8>,
    types: Vec<SqlType>,
    rows: u64,
    /// Bytes that it may have.
    limit: usize,
}

impl RowsWriter {
    fn start(schema: &SchemaRef, limit: usize) -> Result<Self, Report> {
        let fields = schema.fields().iter();
        let types = fields
            .clone()
            .map(|field| SqlType::from_field(field))
            .collect::<Result<Vec<_>, TypeError>>()
            .map_err(|error| Report::from(&error))?;
        let columns = itertools::zip_eq(fields, &types)
            .map(|(field, sql_type)| ColumnJson {
                name: field.name(),
                type_oid: sql_type.oid(),
                type_len: sql_type.type_length(),
                type_mod: sql_type.type_modifier(),
            })
            .collect();
        let mut json = b"{\"desc\":".to_vec();
        write(&mut json, &DescriptionJson { columns });
        json.extend_from_slice(b",\"rows\":[");
        Ok(Self {
            json,
            types,
            rows: 0,
            limit,
        })
    }

    /// Rows written so far.
    pub(super) const fn len(&self) -> u64 {
        self.rows
    }

    /// Appends the rows of a batch, instants in `zone`.
    ///
    /// # Errors
    /// The answer becomes too large, or a value cannot be shown.
    pub(super) fn push(&mut self, batch: &RecordBatch, zone: &TimeZone) -> Result<(), Report> {
        let columns = itertools::zip_eq(batch.columns(), &self.types)
            .map(|(column, sql_type)| {
                ColumnFormatter::new(column.as_ref(), sql_type).map(|formatter| {
                    let formatter = formatter.with_time_zone(zone.clone());
                    (formatter, Form::of(sql_type))
                })
            })
            .collect::<Result<Vec<_>, TypeError>>()
            .map_err(|error| Report::from(&error))?;
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            self.json
                .extend_from_slice(if self.rows > 0 { b",[" } else { b"[" });
            for (index, (column, form)) in columns.iter().enumerate() {
                if index > 0 {
                    self.json.push(b',');
                }
                text.clear();
                let present = column
                    .write_text(row, &mut text)
                    .map_err(|error| Report::from(&error))?;
                write_cell(&mut self.json, present.then_some(text.as_str()), *form);
            }
            self.json.push(b']');
            self.rows += 1;
            if self.json.len() > self.limit {
                return Err(too_large());
            }
        }
        Ok(())
    }
}

fn too_large() -> Report {
    Report::new(
        "53400",
        format!("the result is larger than {RESULT_BYTES_MAX} bytes"),
    )
    .with_hint("Ask for less, with LIMIT or an aggregate, or read it over the PostgreSQL protocol, which has no such limit.")
}

/// How the text of a cell becomes JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Boolean,
    /// The text is a JSON number, unless it is that of a float that is none.
    Number,
    /// The text is JSON.
    Json,
    Text,
}

impl Form {
    const fn of(sql_type: &SqlType) -> Self {
        match sql_type {
            SqlType::Bool => Self::Boolean,
            SqlType::Int2
            | SqlType::Int4
            | SqlType::UInt2
            | SqlType::UInt4
            | SqlType::Oid
            | SqlType::Float4
            | SqlType::Float8 => Self::Number,
            SqlType::Jsonb => Self::Json,
            SqlType::Int8
            | SqlType::UInt8
            | SqlType::Numeric(_)
            | SqlType::MzTimestamp
            | SqlType::Text
            | SqlType::VarChar(_)
            | SqlType::Char(_)
            | SqlType::Name
            | SqlType::QuotedChar
            | SqlType::Bytea
            | SqlType::Date
            | SqlType::Time
            | SqlType::Timestamp
            | SqlType::TimestampTz
            | SqlType::Interval
            | SqlType::Uuid
            | SqlType::Reg(_)
            | SqlType::Array(_)
            | SqlType::Int2Vector
            | SqlType::OidVector => Self::Text,
        }
    }
}

fn write_cell(json: &mut Vec<u8>, text: Option<&str>, form: Form) {
    match (text, form) {
        (None, _) => json.extend_from_slice(b"null"),
        (Some(text), Form::Boolean) => {
            json.extend_from_slice(if text == "t" { b"true" } else { b"false" });
        }
        (Some("NaN" | "Infinity" | "-Infinity"), Form::Number) | (Some(_), Form::Text) => {
            write(json, &text);
        }
        (Some(text), Form::Number | Form::Json) => json.extend_from_slice(text.as_bytes()),
    }
}

#[derive(Serialize)]
struct DescriptionJson<'a> {
    columns: Vec<ColumnJson<'a>>,
}

#[derive(Serialize)]
struct ColumnJson<'a> {
    name: &'a str,
    type_oid: u32,
    type_len: i16,
    type_mod: i32,
}

#[derive(Serialize)]
struct NoticeJson<'a> {
    message: &'a str,
    code: &'static str,
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> From<&'a Notice> for NoticeJson<'a> {
    fn from(notice: &'a Notice) -> Self {
        Self {
            message: &notice.message,
            code: report::notice_code(notice.severity),
            severity: match notice.severity {
                Severity::Notice => "notice",
                Severity::Warning => "warning",
            },
            detail: notice.detail.as_deref(),
            hint: notice.hint.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests;
