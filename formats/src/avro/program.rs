//! How messages of one schema are read: operations that were made once, run for each message in one pass.
//!
//! Must not know how they were made ([`super::resolve`](mod@super::resolve)), registries or batches. Called by [`super::AvroDecoder`].
//!
//! Invariants. A program appends at most one cell to each column. It recurses as deep as the schemas in columns, and in documents and skipped parts no
//! deeper than the limit.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flowstone_types::datetime;
use flowstone_types::jsonb::{JsonbBuf, JsonbBuilder};
use flowstone_types::value::ColumnBuilder;

use super::schema::{NodeId, Schema};
use super::wire::Cursor;
use crate::error::Fault;
use crate::rows::{Limits, at};
use crate::semantic::{self, Semantic, TimeUnit};

/// How messages of one schema are read.
#[derive(Debug)]
pub(crate) struct Program {
    pub(super) writer: Schema,
    pub(super) root: RowOp,
    pub(super) documents: Vec<DocumentOp>,
}

/// What is read next, and into which columns it goes.
#[derive(Debug)]
pub(super) enum RowOp {
    Skip(NodeId),
    Column {
        column: usize,
        op: ValueOp,
    },
    /// A union: which branch it is is read first.
    Union(Vec<RowOp>),
    /// One after the other.
    Sequence(Vec<RowOp>),
    /// Reads nothing and says that something is there.
    Mark(usize),
    /// Reads nothing, and leaves the columns NULL.
    Nothing,
    /// Reads a default instead of the message.
    Default {
        bytes: Vec<u8>,
        op: Box<RowOp>,
    },
    Refuse(String),
}

/// A value that is made of no others.
#[derive(Debug)]
pub(super) enum Scalar {
    Null,
    Boolean,
    Int(Semantic),
    Long(Semantic),
    Float,
    Double,
    Bytes(Semantic),
    Text(Semantic),
    Fixed(usize, Semantic),
    /// The texts of the writer's symbols.
    Symbols(Vec<Option<String>>),
    /// A record of a scale and bytes, by the order of its fields.
    VariableDecimal {
        scale_first: bool,
    },
}

/// A value of one column.
#[derive(Debug)]
pub(super) enum ValueOp {
    Scalar(Scalar),
    List(Box<ValueOp>),
    Union(Vec<ValueOp>),
    Document(usize),
    Refuse(String),
}

/// A part of a document.
#[derive(Debug)]
pub(super) enum DocumentOp {
    Scalar(Scalar),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<DocumentField>),
    Refuse(String),
}

#[derive(Debug)]
pub(super) enum DocumentField {
    Read { name: String, op: usize },
    Skip(NodeId),
    Default { name: String, document: JsonbBuf },
}

impl Program {
    /// Reads one message.
    pub(crate) fn run(
        &self,
        message: &[u8],
        limits: Limits,
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Fault> {
        let mut cursor = Cursor::new(message, limits);
        self.read(&mut cursor, columns)?;
        cursor.finish()
    }

    /// Reads what the program is of, where it is a part of a message.
    pub(super) fn read(
        &self,
        cursor: &mut Cursor<'_>,
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Fault> {
        self.row(&self.root, cursor, columns)
    }

    fn row(
        &self,
        op: &RowOp,
        cursor: &mut Cursor<'_>,
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Fault> {
        match op {
            RowOp::Column { column, op } => self.value(op, cursor, at(columns, *column)?),
            RowOp::Sequence(ops) => ops.iter().try_for_each(|op| self.row(op, cursor, columns)),
            RowOp::Union(branches) => {
                let index = cursor.index(branches.len())?;
                match branches.get(index) {
                    Some(branch) => self.row(branch, cursor, columns),
                    None => Ok(()),
                }
            }
            RowOp::Skip(node) => cursor.skip(&self.writer, *node),
            RowOp::Mark(column) => Ok(at(columns, *column)?.append_bool(true)?),
            RowOp::Nothing => Ok(()),
            RowOp::Default { bytes, op } => {
                let mut cursor = Cursor::new(bytes, Limits::default());
                self.row(op, &mut cursor, columns)
            }
            RowOp::Refuse(reason) => Err(Fault::from(reason.clone())),
        }
    }

    fn value(
        &self,
        op: &ValueOp,
        cursor: &mut Cursor<'_>,
        column: &mut ColumnBuilder,
    ) -> Result<(), Fault> {
        match op {
            ValueOp::Scalar(scalar) => append_scalar(scalar, cursor, column),
            ValueOp::Union(branches) => {
                let index = cursor.index(branches.len())?;
                match branches.get(index) {
                    Some(branch) => self.value(branch, cursor, column),
                    None => Ok(()),
                }
            }
            ValueOp::List(item) => self.list(item, cursor, column),
            ValueOp::Document(id) => {
                let mut builder = JsonbBuilder::new();
                self.document(*id, cursor, &mut builder)?;
                Ok(column.append_jsonb(&builder.finish()?)?)
            }
            ValueOp::Refuse(reason) => Err(Fault::from(reason.clone())),
        }
    }

    fn list(
        &self,
        item: &ValueOp,
        cursor: &mut Cursor<'_>,
        column: &mut ColumnBuilder,
    ) -> Result<(), Fault> {
        let items = column
            .items()
            .ok_or_else(|| Fault::from("internal error: an array without items"))?;
        while let Some((count, _)) = cursor.block()? {
            for _ in 0..count {
                cursor.item()?;
                self.value(item, cursor, items)?;
            }
        }
        Ok(column.append_list()?)
    }

    fn document(
        &self,
        id: usize,
        cursor: &mut Cursor<'_>,
        builder: &mut JsonbBuilder,
    ) -> Result<(), Fault> {
        let op = self
            .documents
            .get(id)
            .ok_or_else(|| Fault::from("internal error: no such document"))?;
        self.document_op(op, cursor, builder)
    }

    fn document_op(
        &self,
        op: &DocumentOp,
        cursor: &mut Cursor<'_>,
        builder: &mut JsonbBuilder,
    ) -> Result<(), Fault> {
        match op {
            DocumentOp::Scalar(scalar) => put_scalar(scalar, cursor, builder)?,
            DocumentOp::Array(item) => {
                cursor.enter()?;
                builder.begin_array();
                while let Some((count, _)) = cursor.block()? {
                    for _ in 0..count {
                        cursor.item()?;
                        self.document(*item, cursor, builder)?;
                    }
                }
                builder.end();
                cursor.leave();
            }
            DocumentOp::Map(value) => {
                cursor.enter()?;
                builder.begin_object();
                while let Some((count, _)) = cursor.block()? {
                    for _ in 0..count {
                        cursor.item()?;
                        let key = std::str::from_utf8(cursor.bytes()?)
                            .map_err(|_| Fault::from("key of a map is not valid UTF-8"))?;
                        builder.key(key);
                        self.document(*value, cursor, builder)?;
                    }
                }
                builder.end();
                cursor.leave();
            }
            DocumentOp::Union(branches) => {
                let index = cursor.index(branches.len())?;
                cursor.enter()?;
                self.document(
                    branches.get(index).copied().unwrap_or(usize::MAX),
                    cursor,
                    builder,
                )?;
                cursor.leave();
            }
            DocumentOp::Record(fields) => {
                cursor.enter()?;
                builder.begin_object();
                for field in fields {
                    match field {
                        DocumentField::Read { name, op } => {
                            builder.key(name);
                            self.document(*op, cursor, builder)?;
                        }
                        DocumentField::Skip(node) => cursor.skip(&self.writer, *node)?,
                        DocumentField::Default { name, document } => {
                            builder.key(name).value(document.as_jsonb());
                        }
                    }
                }
                builder.end();
                cursor.leave();
            }
            DocumentOp::Refuse(reason) => return Err(Fault::from(reason.clone())),
        }
        Ok(())
    }
}

fn append_scalar(
    scalar: &Scalar,
    cursor: &mut Cursor<'_>,
    column: &mut ColumnBuilder,
) -> Result<(), Fault> {
    match scalar {
        Scalar::Long(semantic) => semantic::append_integer(cursor.long()?, *semantic, column),
        Scalar::Int(semantic) => semantic::append_integer(cursor.int()?, *semantic, column),
        Scalar::Text(semantic) => semantic::append_text(cursor.bytes()?, *semantic, column),
        Scalar::Null => {
            column.append_null();
            Ok(())
        }
        Scalar::Boolean => Ok(column.append_bool(cursor.boolean()?)?),
        Scalar::Float => Ok(column.append_f32(cursor.float()?)?),
        Scalar::Double => Ok(column.append_f64(cursor.double()?)?),
        Scalar::Bytes(semantic) => semantic::append_bytes(cursor.bytes()?, *semantic, column),
        Scalar::Fixed(size, semantic) => {
            semantic::append_bytes(cursor.take(*size)?, *semantic, column)
        }
        Scalar::Symbols(symbols) => {
            let symbol = symbol_of(symbols, cursor)?;
            Ok(column.append_bytes(symbol.as_bytes())?)
        }
        Scalar::VariableDecimal { scale_first } => {
            let (scale, bytes) = variable_decimal(*scale_first, cursor)?;
            Ok(column.append_decimal(semantic::integer_of(bytes)?, scale)?)
        }
    }
}

fn put_scalar(
    scalar: &Scalar,
    cursor: &mut Cursor<'_>,
    builder: &mut JsonbBuilder,
) -> Result<(), Fault> {
    match scalar {
        Scalar::Null => {
            builder.null();
        }
        Scalar::Boolean => {
            builder.bool(cursor.boolean()?);
        }
        Scalar::Int(semantic) => put_integer(cursor.int()?, *semantic, builder)?,
        Scalar::Long(semantic) => put_integer(cursor.long()?, *semantic, builder)?,
        Scalar::Float => put_single(cursor.float()?, builder),
        Scalar::Double => {
            builder.f64(cursor.double()?);
        }
        Scalar::Bytes(semantic) => put_bytes(cursor.bytes()?, *semantic, builder)?,
        Scalar::Fixed(size, semantic) => put_bytes(cursor.take(*size)?, *semantic, builder)?,
        Scalar::Text(semantic) => {
            let text = std::str::from_utf8(cursor.bytes()?)
                .map_err(|_| Fault::from("text is not valid UTF-8"))?;
            if *semantic == Semantic::Json {
                builder.value(semantic::document_of(text)?.as_jsonb());
            } else {
                builder.string(text);
            }
        }
        Scalar::Symbols(symbols) => {
            builder.string(symbol_of(symbols, cursor)?);
        }
        Scalar::VariableDecimal { scale_first } => {
            let (scale, bytes) = variable_decimal(*scale_first, cursor)?;
            builder.number(&semantic::decimal_text(bytes, scale)?);
        }
    }
    Ok(())
}

fn symbol_of<'a>(symbols: &'a [Option<String>], cursor: &mut Cursor<'_>) -> Result<&'a str, Fault> {
    let index = cursor.index(symbols.len())?;
    symbols
        .get(index)
        .and_then(Option::as_deref)
        .ok_or_else(|| Fault::from("the schema that is read with lacks a symbol of an enum"))
}

fn variable_decimal<'a>(
    scale_first: bool,
    cursor: &mut Cursor<'a>,
) -> Result<(i8, &'a [u8]), Fault> {
    let (scale, bytes) = if scale_first {
        let scale = cursor.int()?;
        (scale, cursor.bytes()?)
    } else {
        let bytes = cursor.bytes()?;
        (cursor.int()?, bytes)
    };
    let scale =
        i8::try_from(scale).map_err(|_| Fault::from("scale of a decimal is out of range"))?;
    Ok((scale, bytes))
}

/// Dates and times are texts as casts to text write them.
fn put_integer(value: i64, semantic: Semantic, builder: &mut JsonbBuilder) -> Result<(), Fault> {
    let range = || Fault::from(format!("value \"{value}\" is out of range"));
    let micros = |unit: TimeUnit| match unit {
        TimeUnit::Millis => value.checked_mul(1_000),
        TimeUnit::Micros => Some(value),
        TimeUnit::Nanos => Some(value.div_euclid(1_000)),
    };
    let mut text = String::new();
    match semantic {
        Semantic::Days => {
            let days = i32::try_from(value).map_err(|_| range())?;
            let days = datetime::date_from_postgres(datetime::date_to_postgres(days)?)?;
            datetime::format_date(days, &mut text);
        }
        Semantic::TimeOfDay(unit) => {
            let micros = micros(unit).ok_or_else(range)?;
            if !(0..=datetime::MICROS_PER_DAY).contains(&micros) {
                return Err(range());
            }
            datetime::format_time(micros, &mut text);
        }
        Semantic::Timestamp(unit) => {
            let micros = micros(unit).ok_or_else(range)?;
            let wire = datetime::timestamp_to_postgres(micros)?;
            datetime::format_timestamp(datetime::timestamp_from_postgres(wire)?, &mut text);
        }
        _ => {
            builder.i64(value);
            return Ok(());
        }
    }
    builder.string(&text);
    Ok(())
}

/// The shortest text of a single, which is shorter than that of the double it is.
fn put_single(value: f32, builder: &mut JsonbBuilder) {
    if value.is_finite() {
        builder.number(&format!("{value:e}"));
    } else {
        builder.f64(f64::from(value));
    }
}

/// Decimals are numbers, UUIDs texts, and all other bytes texts in base 64.
fn put_bytes(bytes: &[u8], semantic: Semantic, builder: &mut JsonbBuilder) -> Result<(), Fault> {
    match semantic {
        Semantic::Decimal { scale, .. } => {
            builder.number(&semantic::decimal_text(bytes, scale)?);
        }
        Semantic::Uuid if bytes.len() == 16 => {
            let uuid =
                uuid::Uuid::from_slice(bytes).map_err(|error| Fault::from(error.to_string()))?;
            builder.string(&uuid.to_string());
        }
        _ => {
            builder.string(&BASE64_STANDARD.encode(bytes));
        }
    }
    Ok(())
}
