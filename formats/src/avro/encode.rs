//! Rows to Avro for sinks: the schema of a relation, and its rows in Avro's binary encoding.
//!
//! Owns the names and types that relations have in Avro. Must not know topics or registries: the id of the schema is handed in.
//! Called by sinks.
//!
//! `uint8` and `mz_timestamp` are decimals, since Avro has no unsigned integers; intervals are texts, since its durations cannot be negative.
//! Invariants. Rows are read back by [`super::AvroDecoder`] as they were, but for these, and time stamps with a zone, which come back without.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use flowstone_types::numeric::precision_and_scale;
use flowstone_types::value::ColumnFormatter;
use flowstone_types::{SqlType, TypeError};
use hashbrown::HashSet;
use serde_json::{Map, Value, json};

use super::wire::{put_bytes, put_long, put_prefix};
use crate::encode::items_of;
use crate::error::Error;
use crate::relation::Relation;
use crate::semantic::integer_to_bytes;

/// Digits of the largest unsigned integer of 64 bits.
const UINT8_DIGITS: u8 = 20;

/// Whether fields that may be null have null as their default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NullDefaults {
    /// No.
    #[default]
    Without,
    /// Yes: readers of newer schemas can read older messages.
    With,
}

/// The usual names of the record of rows, the same where the record of changes is called so, and of the record of changes.
const ROW_NAME: &str = "row";
const IMAGE_NAME: &str = "image";
const ENVELOPE_NAME: &str = "envelope";

/// What is said in a schema beside the columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AvroOptions {
    /// The full name of the record of rows; `row` if none.
    pub full_name: Option<String>,
    /// The full name of the record of changes, which holds that of rows; `envelope` if none.
    pub envelope_name: Option<String>,
    /// Defaults of fields.
    pub null_defaults: NullDefaults,
    /// The documentation of the record.
    pub doc: Option<String>,
    /// The documentation of columns, by the names of the relation.
    pub column_docs: Vec<(String, String)>,
}

/// Writes rows of one relation.
#[derive(Clone, Debug)]
pub struct AvroEncoder {
    relation: Relation,
    schema: Value,
    name: String,
    envelope_name: String,
    null_defaults: NullDefaults,
}

/// A name that Avro takes: letters, digits and `_`, not first a digit.
fn sanitized(name: &str) -> String {
    let mut out: String = name
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '_'
            }
        })
        .collect();
    if out.is_empty() || out.starts_with(|first: char| first.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// Names that Avro takes and that differ: of equal ones the later get a number.
fn names(relation: &Relation) -> Vec<String> {
    let mut taken = HashSet::new();
    let columns = relation.columns.iter();
    columns
        .map(|column| {
            let base = sanitized(&column.name);
            let mut name = base.clone();
            let mut number = 0;
            while !taken.insert(name.clone()) {
                number += 1;
                name = format!("{base}{number}");
            }
            name
        })
        .collect()
}

fn type_of(sql_type: &SqlType) -> Value {
    let decimal = |precision: u8, scale: i8| json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale});
    match sql_type {
        SqlType::Bool => json!("boolean"),
        SqlType::Int2 | SqlType::Int4 | SqlType::UInt2 => json!("int"),
        SqlType::Int8 | SqlType::UInt4 | SqlType::Oid | SqlType::Reg(_) => json!("long"),
        SqlType::UInt8 | SqlType::MzTimestamp => decimal(UINT8_DIGITS, 0),
        SqlType::Float4 => json!("float"),
        SqlType::Float8 => json!("double"),
        SqlType::Numeric(modifier) => {
            let (precision, scale) = precision_and_scale(*modifier);
            decimal(precision, scale)
        }
        SqlType::Text
        | SqlType::VarChar(_)
        | SqlType::Char(_)
        | SqlType::Name
        | SqlType::QuotedChar
        | SqlType::Interval => json!("string"),
        SqlType::Bytea => json!("bytes"),
        SqlType::Jsonb => json!({"type": "string", "connect.name": "io.debezium.data.Json"}),
        SqlType::Date => json!({"type": "int", "logicalType": "date"}),
        SqlType::Time => json!({"type": "long", "logicalType": "time-micros"}),
        SqlType::Timestamp | SqlType::TimestampTz => {
            json!({"type": "long", "logicalType": "timestamp-micros"})
        }
        SqlType::Uuid => json!({"type": "string", "logicalType": "uuid"}),
        SqlType::Array(element) => json!({"type": "array", "items": ["null", type_of(element)]}),
        SqlType::Int2Vector => json!({"type": "array", "items": ["null", "int"]}),
        SqlType::OidVector => json!({"type": "array", "items": ["null", "long"]}),
    }
}

impl AvroEncoder {
    /// An encoder of rows of a relation.
    ///
    /// # Errors
    /// [`Error::Definition`] if a name is none that Avro takes, or both records would have the same.
    pub fn new(relation: Relation, options: &AvroOptions) -> Result<Self, Error> {
        let envelope = options.envelope_name.as_deref();
        // A record within another is in its namespace, and cannot have its name.
        let clashes = |name: &str| {
            envelope.is_some_and(|envelope| {
                name == envelope || envelope.rsplit('.').next() == Some(name)
            })
        };
        let usual = if clashes(ROW_NAME) {
            IMAGE_NAME
        } else {
            ROW_NAME
        };
        let name = options.full_name.as_deref().unwrap_or(usual).to_owned();
        for name in std::iter::once(name.as_str()).chain(envelope) {
            let proper = name
                .split('.')
                .all(|part| !part.is_empty() && sanitized(part) == part);
            if !proper {
                return Err(Error::definition(format!(
                    "\"{name}\" is no name of an Avro record"
                )));
            }
        }
        if clashes(&name) {
            return Err(Error::definition(format!(
                "\"{name}\" cannot be the name of rows and of changes"
            )));
        }
        let envelope_name = envelope.unwrap_or(ENVELOPE_NAME).to_owned();
        let fields = relation
            .columns
            .iter()
            .zip(names(&relation))
            .map(|(column, name)| {
                let mut field = Map::new();
                field.insert("name".to_owned(), name.into());
                let plain = type_of(&column.sql_type);
                let stated = if column.nullable {
                    json!(["null", plain])
                } else {
                    plain
                };
                field.insert("type".to_owned(), stated);
                if column.nullable && options.null_defaults == NullDefaults::With {
                    field.insert("default".to_owned(), Value::Null);
                }
                let doc = options
                    .column_docs
                    .iter()
                    .find(|(of, _)| *of == column.name);
                if let Some((_, doc)) = doc {
                    field.insert("doc".to_owned(), doc.as_str().into());
                }
                Value::Object(field)
            });
        let mut schema = Map::new();
        schema.insert("type".to_owned(), "record".into());
        schema.insert("name".to_owned(), name.as_str().into());
        if let Some(doc) = &options.doc {
            schema.insert("doc".to_owned(), doc.as_str().into());
        }
        schema.insert("fields".to_owned(), Value::Array(fields.collect()));
        Ok(Self {
            relation,
            schema: Value::Object(schema),
            name,
            envelope_name,
            null_defaults: options.null_defaults,
        })
    }

    /// The schema of rows, as a registry takes it.
    #[must_use]
    pub fn schema(&self) -> String {
        self.schema.to_string()
    }

    /// The schema of changes: `before` and `after`.
    #[must_use]
    pub fn envelope_schema(&self) -> String {
        let image = |name: &str, row: Value| {
            let mut field = Map::new();
            field.insert("name".to_owned(), name.into());
            field.insert("type".to_owned(), json!(["null", row]));
            if self.null_defaults == NullDefaults::With {
                field.insert("default".to_owned(), Value::Null);
            }
            Value::Object(field)
        };
        json!({
            "type": "record",
            "name": self.envelope_name,
            "fields": [
                image("before", self.schema.clone()),
                image("after", self.name.as_str().into()),
            ],
        })
        .to_string()
    }

    /// The rows of a batch of the relation's columns, ready to be written.
    ///
    /// # Errors
    /// [`Error::Value`] if the batch has other columns.
    pub fn rows<'a>(&self, batch: &'a RecordBatch) -> Result<AvroRows<'a>, Error> {
        if batch.num_columns() != self.relation.columns.len() {
            let message = "batch has other columns than the encoder".to_owned();
            return Err(TypeError::Kernel(message).into());
        }
        let columns = self.relation.columns.iter().zip(batch.columns());
        let columns = columns.map(|(column, array)| {
            Ok(Cells {
                nullable: column.nullable,
                array,
                values: Values::new(&column.sql_type, array)?,
            })
        });
        Ok(AvroRows {
            columns: columns.collect::<Result<_, TypeError>>()?,
        })
    }
}

/// Rows that can be written.
#[derive(Debug)]
pub struct AvroRows<'a> {
    columns: Vec<Cells<'a>>,
}

#[derive(Debug)]
struct Cells<'a> {
    nullable: bool,
    array: &'a ArrayRef,
    values: Values<'a>,
}

#[derive(Debug)]
enum Values<'a> {
    Bool(&'a arrow_array::BooleanArray),
    Int2(&'a arrow_array::Int16Array),
    Int4(&'a arrow_array::Int32Array),
    Int8(&'a arrow_array::Int64Array),
    UInt2(&'a arrow_array::UInt16Array),
    UInt4(&'a arrow_array::UInt32Array),
    UInt8(&'a arrow_array::UInt64Array),
    Float4(&'a arrow_array::Float32Array),
    Float8(&'a arrow_array::Float64Array),
    Numeric(&'a arrow_array::Decimal128Array),
    Text(&'a arrow_array::StringArray),
    Bytea(&'a arrow_array::BinaryArray),
    Date(&'a arrow_array::Date32Array),
    Time(&'a arrow_array::Time64MicrosecondArray),
    Timestamp(&'a arrow_array::TimestampMicrosecondArray),
    /// As PostgreSQL writes it.
    Formatted(ColumnFormatter<'a>),
    List {
        lists: &'a arrow_array::ListArray,
        items: Box<Cells<'a>>,
    },
}

impl<'a> Values<'a> {
    fn new(sql_type: &SqlType, array: &'a ArrayRef) -> Result<Self, TypeError> {
        if sql_type.to_arrow() != *array.data_type() && !matches!(sql_type, SqlType::Array(_)) {
            let found = array.data_type();
            return Err(TypeError::Kernel(format!(
                "a column of {sql_type} is {found}"
            )));
        }
        Ok(match sql_type {
            SqlType::Bool => Self::Bool(array.as_boolean()),
            SqlType::Int2 => Self::Int2(array.as_primitive::<Int16Type>()),
            SqlType::Int4 => Self::Int4(array.as_primitive::<Int32Type>()),
            SqlType::Int8 => Self::Int8(array.as_primitive::<Int64Type>()),
            SqlType::UInt2 => Self::UInt2(array.as_primitive::<UInt16Type>()),
            SqlType::UInt4 | SqlType::Oid | SqlType::Reg(_) => {
                Self::UInt4(array.as_primitive::<UInt32Type>())
            }
            SqlType::UInt8 | SqlType::MzTimestamp => {
                Self::UInt8(array.as_primitive::<UInt64Type>())
            }
            SqlType::Float4 => Self::Float4(array.as_primitive::<Float32Type>()),
            SqlType::Float8 => Self::Float8(array.as_primitive::<Float64Type>()),
            SqlType::Numeric(_) => Self::Numeric(array.as_primitive::<Decimal128Type>()),
            SqlType::Text
            | SqlType::VarChar(_)
            | SqlType::Char(_)
            | SqlType::Name
            | SqlType::QuotedChar => Self::Text(array.as_string::<i32>()),
            SqlType::Bytea => Self::Bytea(array.as_binary::<i32>()),
            SqlType::Date => Self::Date(array.as_primitive::<Date32Type>()),
            SqlType::Time => Self::Time(array.as_primitive::<Time64MicrosecondType>()),
            SqlType::Timestamp | SqlType::TimestampTz => {
                Self::Timestamp(array.as_primitive::<TimestampMicrosecondType>())
            }
            SqlType::Jsonb | SqlType::Uuid | SqlType::Interval => {
                Self::Formatted(ColumnFormatter::new(array, sql_type)?)
            }
            SqlType::Array(element) => {
                let lists = array.as_list_opt::<i32>();
                let lists =
                    lists.ok_or_else(|| TypeError::Kernel("an array is no list".to_owned()))?;
                let items = lists.values();
                Self::List {
                    lists,
                    items: Box::new(Cells {
                        nullable: true,
                        array: items,
                        values: Values::new(element, items)?,
                    }),
                }
            }
            SqlType::Int2Vector | SqlType::OidVector => {
                let name = sql_type.to_string();
                return Err(TypeError::Unsupported(name));
            }
        })
    }
}

impl Cells<'_> {
    fn put(&self, row: usize, out: &mut Vec<u8>) -> Result<(), TypeError> {
        let null = self.array.is_null(row);
        if self.nullable {
            put_long(i64::from(!null), out);
        }
        if null {
            if self.nullable {
                return Ok(());
            }
            let message = "null value in a column that the Avro schema says is not null";
            return Err(TypeError::InvalidParameter(message.to_owned()));
        }
        match &self.values {
            Values::Bool(values) => out.push(u8::from(values.value(row))),
            Values::Int2(values) => put_long(values.value(row).into(), out),
            Values::Int4(values) => put_long(values.value(row).into(), out),
            Values::Int8(values) => put_long(values.value(row), out),
            Values::UInt2(values) => put_long(values.value(row).into(), out),
            Values::UInt4(values) => put_long(values.value(row).into(), out),
            Values::UInt8(values) => put_decimal(values.value(row).into(), out),
            Values::Float4(values) => out.extend_from_slice(&values.value(row).to_le_bytes()),
            Values::Float8(values) => out.extend_from_slice(&values.value(row).to_le_bytes()),
            Values::Numeric(values) => put_decimal(values.value(row), out),
            Values::Text(values) => put_bytes(values.value(row).as_bytes(), out),
            Values::Bytea(values) => put_bytes(values.value(row), out),
            Values::Date(values) => put_long(values.value(row).into(), out),
            Values::Time(values) => put_long(values.value(row), out),
            Values::Timestamp(values) => put_long(values.value(row), out),
            Values::Formatted(values) => {
                let mut text = String::new();
                values.write_text(row, &mut text)?;
                put_bytes(text.as_bytes(), out);
            }
            Values::List { lists, items } => {
                let places = items_of(lists, row);
                if !places.is_empty() {
                    put_long(i64::try_from(places.len()).unwrap_or(i64::MAX), out);
                    for item in places {
                        items.put(item, out)?;
                    }
                }
                put_long(0, out);
            }
        }
        Ok(())
    }
}

fn put_decimal(value: i128, out: &mut Vec<u8>) {
    let mut bytes = Vec::with_capacity(16);
    integer_to_bytes(value, &mut bytes);
    put_bytes(&bytes, out);
}

impl AvroRows<'_> {
    fn put(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        for column in &self.columns {
            column.put(row, out)?;
        }
        Ok(())
    }

    /// Appends the row at `row` (below the batch's length) as a message of the schema with this id.
    ///
    /// # Errors
    /// [`Error::Value`] for a value that the schema has no place for.
    pub fn write(&self, id: u32, row: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        put_prefix(id, out);
        self.put(row, out)
    }

    /// Appends a change as a message of the envelope's schema with this id. Either image may be missing.
    ///
    /// # Errors
    /// As [`AvroRows::write`].
    pub fn write_change(
        &self,
        id: u32,
        before: Option<usize>,
        after: Option<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        put_prefix(id, out);
        for image in [before, after] {
            put_long(i64::from(image.is_some()), out);
            if let Some(row) = image {
                self.put(row, out)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::{AvroContent, AvroDecoder, Framing};
    use crate::relation::Column;
    use crate::rows::Limits;

    #[test]
    fn names_are_mangled_and_stay_different() {
        let columns =
            ["col-a", "col@a", "1st", "ok"].map(|name| Column::new(name, SqlType::Int4, false));
        let relation = Relation::new(columns.to_vec());
        assert_eq!(names(&relation), ["col_a", "col_a1", "_1st", "ok"]);
    }

    #[test]
    fn a_schema_says_what_was_asked_for() {
        let relation = Relation::new(vec![
            Column::new("a", SqlType::Numeric(Some((5, 2))), true),
            Column::new("b", SqlType::Text, false),
        ]);
        let options = AvroOptions {
            full_name: Some("x.y".to_owned()),
            envelope_name: None,
            null_defaults: NullDefaults::With,
            doc: None,
            column_docs: vec![("b".to_owned(), "why".to_owned())],
        };
        let encoder = AvroEncoder::new(relation, &options).unwrap();
        assert_eq!(
            encoder.schema(),
            r#"{"type":"record","name":"x.y","fields":[{"name":"a","type":["null",{"type":"bytes","logicalType":"decimal","precision":5,"scale":2}],"default":null},{"name":"b","type":"string","doc":"why"}]}"#
        );
        let changes: Value = serde_json::from_str(&encoder.envelope_schema()).unwrap();
        for (place, name) in ["before", "after"].into_iter().enumerate() {
            let field = changes["fields"][place].as_object().unwrap();
            assert_eq!(field["name"], name);
            assert_eq!(field.get("default"), Some(&Value::Null), "{name}");
        }
        let options = AvroOptions {
            full_name: Some("x..y".to_owned()),
            ..AvroOptions::default()
        };
        AvroEncoder::new(Relation::default(), &options).unwrap_err();
    }

    #[test]
    fn rows_and_changes_have_names_of_their_own() {
        let relation = Relation::new(vec![Column::new("a", SqlType::Int4, false)]);
        for (envelope, row) in [("x.y", "row"), ("x.row", "image"), ("row", "image")] {
            let options = AvroOptions {
                envelope_name: Some(envelope.to_owned()),
                ..AvroOptions::default()
            };
            let encoder = AvroEncoder::new(relation.clone(), &options).unwrap();
            let schema = encoder.envelope_schema();
            let decoder = AvroDecoder::new(
                &schema,
                &[],
                AvroContent::Envelope,
                Framing::Confluent,
                Limits::default(),
            )
            .unwrap();
            assert_eq!(decoder.layout().unwrap().row(), &relation);
            let schema: Value = serde_json::from_str(&schema).unwrap();
            assert_eq!(schema["name"], envelope);
            assert_eq!(schema["fields"][0]["type"][1]["name"], row);
            assert_eq!(schema["fields"][1]["type"][1], row);
        }
        for (row, envelope) in [("y", "x.y"), ("x.y", "x.y"), ("y", "x..z")] {
            let options = AvroOptions {
                full_name: Some(row.to_owned()),
                envelope_name: Some(envelope.to_owned()),
                ..AvroOptions::default()
            };
            AvroEncoder::new(relation.clone(), &options).unwrap_err();
        }
    }
}
