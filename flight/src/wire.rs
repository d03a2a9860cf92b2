//! How schemas and rows look on the wire: Arrow types that clients can read.
//!
//! Owns the translation of our columns. `jsonb`, which we hold in a form of our own, is sent as JSON text (extension `arrow.json`); `uuid` is marked
//! `arrow.uuid`; everything else is sent as it is. Every field says its SQL type in the metadata that Flight SQL has for that.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, RecordBatchOptions};
use arrow_flight::{IpcMessage, SchemaAsIpc};
use arrow_ipc::writer::IpcWriteOptions;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use flowstone_types::{ColumnFormatter, SqlType};

use crate::Error;

/// Where Arrow has the name of an extension type.
pub(crate) const EXTENSION_NAME: &str = "ARROW:extension:name";
/// Where Arrow has the parameters of an extension type.
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";
/// The extension type of JSON text.
pub(crate) const JSON_EXTENSION: &str = "arrow.json";
/// The extension type of a UUID in 16 bytes.
pub(crate) const UUID_EXTENSION: &str = "arrow.uuid";
/// Where Flight SQL has the database's name of a column's type.
const TYPE_NAME: &str = "ARROW:FLIGHT:SQL:TYPE_NAME";

/// The columns of one result, as we hold them and as they are sent.
#[derive(Clone, Debug)]
pub(crate) struct WireSchema {
    sent: SchemaRef,
    types: Vec<SqlType>,
}

impl WireSchema {
    pub(crate) fn new(held: &Schema) -> Result<Self, Error> {
        let mut fields = Vec::with_capacity(held.fields().len());
        let mut types = Vec::with_capacity(held.fields().len());
        for field in held.fields() {
            let sql_type =
                SqlType::from_field(field).map_err(|error| Error::Internal(error.to_string()))?;
            fields.push(wire_field(field, &sql_type));
            types.push(sql_type);
        }
        Ok(Self {
            sent: Arc::new(Schema::new(fields)),
            types,
        })
    }

    /// The schema that clients see.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.sent)
    }

    /// The rows that clients see.
    pub(crate) fn rows(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let columns = itertools::zip_eq(
            itertools::zip_eq(batch.columns(), &self.types),
            self.sent.fields(),
        );
        let columns = columns
            .map(|((column, sql_type), field)| wire_array(column, sql_type, field))
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            self.schema(),
            columns,
            &options,
        )?)
    }
}

/// Parameters as a schema: `$1`, `$2`, …
pub(crate) fn parameter_schema(types: &[SqlType]) -> Schema {
    let fields = types.iter().enumerate().map(|(index, sql_type)| {
        let field = sql_type.to_field(&format!("${}", index + 1), true);
        wire_field(&field, sql_type)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// A column of a relation as a field that clients see.
pub(crate) fn column_field(name: &str, sql_type: &SqlType, nullable: bool) -> Field {
    wire_field(&sql_type.to_field(name, nullable), sql_type)
}

/// A schema as an encapsulated IPC message.
pub(crate) fn schema_bytes(schema: &Schema) -> Result<Bytes, Error> {
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options).try_into()?;
    Ok(bytes)
}

fn wire_field(field: &Field, sql_type: &SqlType) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(TYPE_NAME.to_owned(), sql_type.to_string());
    sent_as(field, sql_type, metadata)
}

fn sent_as(field: &Field, sql_type: &SqlType, mut metadata: HashMap<String, String>) -> Field {
    let mut extension = |name: &str| {
        metadata.insert(EXTENSION_NAME.to_owned(), name.to_owned());
        metadata.insert(EXTENSION_METADATA.to_owned(), String::new());
    };
    let data_type = match (sql_type, field.data_type()) {
        (SqlType::Jsonb, _) => {
            extension(JSON_EXTENSION);
            DataType::Utf8
        }
        (SqlType::Uuid, held) => {
            extension(UUID_EXTENSION);
            held.clone()
        }
        (SqlType::Array(element), DataType::List(item)) => {
            DataType::List(Arc::new(sent_as(item, element, item.metadata().clone())))
        }
        (_, held) => held.clone(),
    };
    Field::new(field.name(), data_type, field.is_nullable()).with_metadata(metadata)
}

fn wire_array(array: &ArrayRef, sql_type: &SqlType, field: &Field) -> Result<ArrayRef, Error> {
    match (sql_type, field.data_type()) {
        (SqlType::Jsonb, _) => json_text(array),
        (SqlType::Array(element), DataType::List(item)) => {
            let Some(lists) = array.as_list_opt::<i32>() else {
                return Err(Error::Internal("an array is no list".to_owned()));
            };
            let values = wire_array(lists.values(), element, item)?;
            Ok(Arc::new(ListArray::try_new(
                Arc::clone(item),
                lists.offsets().clone(),
                values,
                lists.nulls().cloned(),
            )?))
        }
        _ => Ok(Arc::clone(array)),
    }
}

fn json_text(array: &ArrayRef) -> Result<ArrayRef, Error> {
    let internal = |error: flowstone_types::TypeError| Error::Internal(error.to_string());
    let formatter = ColumnFormatter::new(array.as_ref(), &SqlType::Jsonb).map_err(internal)?;
    let mut builder = StringBuilder::with_capacity(array.len(), array.get_buffer_memory_size());
    let mut text = String::new();
    for row in 0..array.len() {
        text.clear();
        if formatter.write_text(row, &mut text).map_err(internal)? {
            builder.append_value(&text);
        } else {
            builder.append_null();
        }
    }
    Ok(Arc::new(builder.finish()))
}

#[cfg(test)]
mod tests {
    use arrow_array::FixedSizeBinaryArray;
    use flowstone_types::ColumnBuilder;

    use super::*;

    fn column(sql_type: &SqlType, cells: &[Option<&str>]) -> ArrayRef {
        let mut builder = ColumnBuilder::new(sql_type, cells.len());
        for cell in cells {
            match cell {
                Some(text) => builder.append_text(text).unwrap(),
                None => builder.append_null(),
            }
        }
        builder.finish()
    }

    fn sent(sql_type: &SqlType, cells: &[Option<&str>]) -> (Field, ArrayRef) {
        let schema = Arc::new(Schema::new(vec![sql_type.to_field("c", true)]));
        let batch =
            RecordBatch::try_new(Arc::clone(&schema), vec![column(sql_type, cells)]).unwrap();
        let wire = WireSchema::new(&schema).unwrap();
        let rows = wire.rows(&batch).unwrap();
        (wire.schema().field(0).clone(), Arc::clone(rows.column(0)))
    }

    #[test]
    fn jsonb_is_sent_as_text() {
        let (field, array) = sent(&SqlType::Jsonb, &[Some("{\"b\": 1,\"a\":[true]}"), None]);
        assert_eq!(field.data_type(), &DataType::Utf8);
        assert_eq!(
            field.metadata().get(EXTENSION_NAME).map(String::as_str),
            Some(JSON_EXTENSION)
        );
        let text = array.as_string::<i32>();
        assert_eq!(text.value(0), "{\"a\": [true], \"b\": 1}");
        assert!(text.is_null(1));
    }

    #[test]
    fn arrays_of_jsonb_are_arrays_of_text() {
        let sql_type = SqlType::Array(Box::new(SqlType::Jsonb));
        let (field, array) = sent(&sql_type, &[Some("{1,NULL,\"[2]\"}"), None, Some("{}")]);
        let DataType::List(item) = field.data_type() else {
            panic!("a list");
        };
        assert_eq!(item.data_type(), &DataType::Utf8);
        assert_eq!(
            item.metadata().get(EXTENSION_NAME).map(String::as_str),
            Some(JSON_EXTENSION)
        );
        let lists = array.as_list::<i32>();
        assert!(lists.is_null(1));
        let items = lists.value(0);
        assert_eq!(items.as_string::<i32>().value(2), "[2]");
        assert!(items.is_null(1));
    }

    #[test]
    fn uuid_keeps_its_bytes_and_gets_a_name() {
        let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        let (field, array) = sent(&SqlType::Uuid, &[Some(text)]);
        assert_eq!(
            field.metadata().get(EXTENSION_NAME).map(String::as_str),
            Some(UUID_EXTENSION)
        );
        assert_eq!(
            field.metadata().get(TYPE_NAME).map(String::as_str),
            Some("uuid")
        );
        let bytes = array
            .as_any()
            .downcast_ref::<FixedSizeBinaryArray>()
            .unwrap();
        assert_eq!(bytes.value(0).len(), 16);
    }

    #[test]
    fn everything_else_is_sent_as_it_is() {
        for (sql_type, text) in [
            (SqlType::Numeric(Some((10, 2))), "1.50"),
            (SqlType::Interval, "1 mon 2 days 00:00:03"),
            (SqlType::TimestampTz, "2024-01-01 00:00:00+00"),
            (SqlType::VarChar(Some(3)), "abc"),
        ] {
            let (field, array) = sent(&sql_type, &[Some(text)]);
            assert_eq!(field.data_type(), &sql_type.to_arrow());
            assert_eq!(array.data_type(), &sql_type.to_arrow());
            assert_eq!(SqlType::from_field(&field).unwrap(), sql_type);
        }
    }
}
