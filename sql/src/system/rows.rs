//! Rows of a system relation under construction.
//!
//! A row is a list of (column, value); columns that are not named get their default: NULL where that is allowed, else zero, false or the empty text.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Decimal128Builder, FixedSizeBinaryBuilder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder,
    LargeBinaryBuilder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder, UInt32Builder,
    UInt64Builder,
};
use arrow_array::types::IntervalMonthDayNano;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::Field;
use flowstone_types::sql_type::NUMERIC_DEFAULT;
use flowstone_types::value::ColumnBuilder;
use flowstone_types::{Epoch, ObjectId, SqlType};

use super::{Kind, Relation, RelationColumn};

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// Any integer, oid, epoch or time in milliseconds since the Unix epoch.
    Int(i128),
    Text(String),
    Json(serde_json::Value),
    Uuid([u8; 16]),
    Texts(Vec<String>),
    Ints(Vec<i128>),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

macro_rules! from_integers {
    ($($integer:ty),*) => {
        $(impl From<$integer> for Value {
            fn from(value: $integer) -> Self {
                Self::Int(i128::from(value))
            }
        })*
    };
}
from_integers!(i16, i32, i64, u16, u32, u64);

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Int(i128::try_from(value).unwrap_or(i128::MAX))
    }
}

impl From<Epoch> for Value {
    fn from(value: Epoch) -> Self {
        Self::from(value.0)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<ObjectId> for Value {
    fn from(value: ObjectId) -> Self {
        Self::Text(value.to_string())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The rows of one relation, column by column.
#[derive(Debug)]
pub struct Rows {
    relation: &'static Relation,
    columns: Vec<Vec<Value>>,
    count: usize,
    error: Option<String>,
}

impl Rows {
    pub(super) fn new(relation: &'static Relation) -> Self {
        Self {
            relation,
            columns: vec![Vec::new(); relation.columns.len()],
            count: 0,
            error: None,
        }
    }

    /// The name of the relation.
    pub(super) const fn relation(&self) -> &'static str {
        self.relation.name
    }

    /// Adds a row.
    pub(super) fn push<const N: usize>(&mut self, values: [(&'static str, Value); N]) {
        self.push_all(values);
    }

    /// Adds a row of as many values as there are.
    pub(super) fn push_all(&mut self, values: impl IntoIterator<Item = (&'static str, Value)>) {
        for column in &mut self.columns {
            column.push(Value::Null);
        }
        for (name, value) in values {
            let position = self
                .relation
                .columns
                .iter()
                .position(|column| column.name == name);
            match position
                .and_then(|position| self.columns.get_mut(position))
                .and_then(|column| column.last_mut())
            {
                Some(cell) => *cell = value,
                None => self.error = Some(format!("no column \"{name}\"")),
            }
        }
        self.count += 1;
    }

    pub(super) fn finish(self) -> Result<RecordBatch, String> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (column, values) in self.relation.columns.iter().zip(self.columns) {
            arrays
                .push(array(column, values).map_err(|value| {
                    format!("column \"{}\" cannot hold {value:?}", column.name)
                })?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.count));
        RecordBatch::try_new_with_options(self.relation.arrow_schema(), arrays, &options)
            .map_err(|error| error.to_string())
    }
}

/// Builds a column; fails with the value that it cannot hold.
fn array(column: &RelationColumn, values: Vec<Value>) -> Result<ArrayRef, Value> {
    /// Appends integers of one width.
    macro_rules! integers {
        ($builder:ty) => {{
            let mut builder = <$builder>::with_capacity(values.len());
            for value in values {
                match &value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append_value(0),
                    Value::Int(number) => match (*number).try_into() {
                        Ok(number) => builder.append_value(number),
                        Err(_) => return Err(value),
                    },
                    _ => return Err(value),
                }
            }
            Arc::new(builder.finish())
        }};
    }
    Ok(match column.kind {
        Kind::Bool => {
            let mut builder = BooleanBuilder::with_capacity(values.len());
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append_value(false),
                    Value::Bool(value) => builder.append_value(value),
                    other => return Err(other),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Int2 => integers!(Int16Builder),
        Kind::Int4 => integers!(Int32Builder),
        Kind::Int8 => integers!(Int64Builder),
        Kind::UInt4 | Kind::Oid | Kind::RegProc | Kind::RegType => integers!(UInt32Builder),
        Kind::UInt8 | Kind::MzTimestamp => integers!(UInt64Builder),
        Kind::Float4 => {
            let mut builder = Float32Builder::with_capacity(values.len());
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append_value(0.0),
                    Value::Int(number) => builder.append_value(
                        number
                            .to_string()
                            .parse::<f32>()
                            .map_err(|_| Value::Int(number))?,
                    ),
                    other => return Err(other),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Float8 => {
            let mut builder = Float64Builder::with_capacity(values.len());
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append_value(0.0),
                    Value::Int(number) => builder.append_value(
                        number
                            .to_string()
                            .parse::<f64>()
                            .map_err(|_| Value::Int(number))?,
                    ),
                    other => return Err(other),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Numeric => {
            let mut builder = Decimal128Builder::with_capacity(values.len())
                .with_data_type(SqlType::Numeric(None).to_arrow());
            let one = 10_i128.pow(NUMERIC_DEFAULT.1.unsigned_abs().into());
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append_value(0),
                    Value::Int(number) => {
                        builder.append_value(number.checked_mul(one).ok_or(Value::Int(number))?);
                    }
                    other => return Err(other),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Text | Kind::Name | Kind::QuotedChar => {
            let mut builder = StringBuilder::new();
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append_value(""),
                    Value::Text(value) => builder.append_value(value),
                    other => return Err(other),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Bytea => {
            let mut builder = BinaryBuilder::new();
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append_value([]),
                    other => return Err(other),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Jsonb => {
            let mut builder = LargeBinaryBuilder::new();
            for value in values {
                match &value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Json(json) => match flowstone_types::jsonb::JsonbBuf::from_json(json) {
                        Ok(canonical) => builder.append_value(canonical.as_bytes()),
                        Err(_) => return Err(value),
                    },
                    _ => return Err(value),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::TimestampTz => {
            let mut builder =
                TimestampMicrosecondBuilder::with_capacity(values.len()).with_timezone("UTC");
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append_value(0),
                    Value::Int(ms) => builder.append_value(micros(ms)?),
                    other => return Err(other),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Interval => {
            let mut builder = IntervalMonthDayNanoBuilder::with_capacity(values.len());
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append_value(IntervalMonthDayNano::new(0, 0, 0)),
                    Value::Int(ms) => {
                        let nanos = micros(ms)?.checked_mul(1_000).ok_or(Value::Int(ms))?;
                        builder.append_value(IntervalMonthDayNano::new(0, 0, nanos));
                    }
                    other => return Err(other),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Uuid => {
            let mut builder = FixedSizeBinaryBuilder::with_capacity(values.len(), 16);
            for value in values {
                match &value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Uuid(bytes) if builder.append_value(bytes).is_ok() => {}
                    _ => return Err(value),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::TextArray => {
            let mut builder =
                ListBuilder::new(StringBuilder::new()).with_field(item(&SqlType::Text));
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append(true),
                    Value::Texts(texts) => builder.append_value(texts.into_iter().map(Some)),
                    other => return Err(other),
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Int2Array => {
            let mut builder =
                ListBuilder::new(Int16Builder::new()).with_field(item(&SqlType::Int2));
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append(true),
                    Value::Ints(numbers) => builder
                        .append_value(numbers.into_iter().map(|number| i16::try_from(number).ok())),
                    other => return Err(other),
                }
            }
            Arc::new(builder.finish())
        }
        // No relation with such a column has rows.
        Kind::Float4Array => {
            let mut builder = ColumnBuilder::new(&column.sql_type(), values.len());
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    other => return Err(other),
                }
            }
            builder.finish()
        }
        Kind::Int2Vector | Kind::OidVector => {
            let sql_type = column.sql_type();
            let mut builder = ColumnBuilder::new(&sql_type, values.len());
            for value in values {
                match &value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append_text("").map_err(|_| value)?,
                    Value::Ints(numbers) => {
                        let items: Vec<String> = numbers.iter().map(i128::to_string).collect();
                        builder.append_text(&items.join(" ")).map_err(|_| value)?;
                    }
                    _ => return Err(value),
                }
            }
            builder.finish()
        }
        Kind::OidArray => {
            let mut builder =
                ListBuilder::new(UInt32Builder::new()).with_field(item(&SqlType::Oid));
            for value in values {
                match value {
                    Value::Null if column.nullable => builder.append_null(),
                    Value::Null => builder.append(true),
                    Value::Ints(numbers) => builder
                        .append_value(numbers.into_iter().map(|number| u32::try_from(number).ok())),
                    other => return Err(other),
                }
            }
            Arc::new(builder.finish())
        }
    })
}

fn item(element: &SqlType) -> Arc<Field> {
    Arc::new(element.to_field("item", true))
}

fn micros(ms: i128) -> Result<i64, Value> {
    ms.checked_mul(1_000)
        .and_then(|micros| i64::try_from(micros).ok())
        .ok_or(Value::Int(ms))
}
