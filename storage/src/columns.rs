//! How the columns of a relation are stored in a Delta table.
//!
//! Owns the mapping from a relation's Arrow schema to the table's schema: names, types, metadata, and the conversion of batches both ways.
//! Must not know files or commits. Called by every module that reads or writes data files.
//!
//! Invariants. The mapping is a function of the schema alone, so every writer of a table agrees. Conversion there and back gives equal values.
//! Stored columns are nullable always: other engines gain nothing from `NOT NULL`, and a stored relation must accept what the engine computed.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use flowstone_types::SqlType;
use flowstone_types::sql_type::TYPE_KEY;
use serde_json::{Value, json};

use crate::{Error, values};

/// Column metadata key for the SQL name, where the table had to use another one.
const NAME_KEY: &str = "flowstone:name";
/// The one column of a relation without columns: parquet cannot count rows of nothing.
const PLACEHOLDER: &str = "_flowstone_row";
/// Names that the change data feed adds to every table.
const RESERVED: [&str; 4] = [
    "_change_type",
    "_commit_version",
    "_commit_timestamp",
    PLACEHOLDER,
];
/// Characters that Delta refuses in names unless a table maps its columns, which few engines can read: they become underscores.
const SPECIAL: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// The stored form of a relation's columns.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    columns: Vec<Column>,
    /// The schema of the parquet files.
    physical: SchemaRef,
}

#[derive(Clone, Debug)]
struct Column {
    sql_name: String,
    sql_type: String,
    /// The name in the Delta table and in its files.
    table_name: String,
    data_type: DataType,
}

impl Columns {
    /// The stored form of `schema`.
    ///
    /// # Errors
    /// [`Error::Value`] for a column type that no SQL type has.
    pub(crate) fn from_schema(schema: &Schema) -> Result<Self, Error> {
        let mut taken = RESERVED
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<HashSet<_>>();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let table_name = free_name(field.name(), &taken);
            // Delta's names are case-insensitive.
            taken.insert(table_name.to_lowercase());
            columns.push(Column {
                sql_name: field.name().clone(),
                sql_type: SqlType::from_field(field)?.to_string(),
                table_name,
                data_type: values::stored_type(field.data_type())?,
            });
        }
        Ok(Self::new(columns))
    }

    fn new(columns: Vec<Column>) -> Self {
        let field =
            |column: &Column| Field::new(&column.table_name, column.data_type.clone(), true);
        let mut fields = columns.iter().map(field).collect::<Vec<_>>();
        if fields.is_empty() {
            fields.push(Field::new(PLACEHOLDER, DataType::Boolean, true));
        }
        Self {
            columns,
            physical: Arc::new(Schema::new(fields)),
        }
    }

    /// The schema of the table's parquet files.
    pub(crate) const fn physical(&self) -> &SchemaRef {
        &self.physical
    }

    /// Whether a column is a timestamp without time zone, which is a table feature.
    pub(crate) fn has_local_timestamps(&self) -> bool {
        fn is_local(data_type: &DataType) -> bool {
            match data_type {
                DataType::Timestamp(_, None) => true,
                DataType::List(item) => is_local(item.data_type()),
                _ => false,
            }
        }
        self.physical
            .fields()
            .iter()
            .any(|field| is_local(field.data_type()))
    }

    /// The schema as Delta writes it into the table's metadata.
    pub(crate) fn schema_string(&self) -> Result<String, Error> {
        let mut fields = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let mut metadata = serde_json::Map::new();
            metadata.insert(TYPE_KEY.to_owned(), json!(column.sql_type));
            if column.sql_name != column.table_name {
                metadata.insert(NAME_KEY.to_owned(), json!(column.sql_name));
            }
            let data_type = delta_type(&column.data_type)?;
            fields.push(json!({"name": column.table_name, "type": data_type, "nullable": true, "metadata": metadata}));
        }
        if fields.is_empty() {
            fields.push(
                json!({"name": PLACEHOLDER, "type": "boolean", "nullable": true, "metadata": {}}),
            );
        }
        Ok(json!({"type": "struct", "fields": fields}).to_string())
    }

    /// Reads what [`Columns::schema_string`] wrote. `table` is named in errors.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is something else.
    pub(crate) fn from_schema_string(text: &str, table: &Path) -> Result<Self, Error> {
        let damaged = |what: &str| Error::damaged(table, format!("the table's schema {what}"));
        let schema: Value =
            serde_json::from_str(text).map_err(|error| damaged(&error.to_string()))?;
        let fields = schema
            .get("fields")
            .and_then(Value::as_array)
            .ok_or_else(|| damaged("has no fields"))?;
        let mut columns = Vec::new();
        for field in fields {
            let table_name =
                text_of(field, "name").ok_or_else(|| damaged("has a column without a name"))?;
            if table_name == PLACEHOLDER {
                continue;
            }
            let metadata = field.get("metadata").unwrap_or(&Value::Null);
            let sql_type = text_of(metadata, TYPE_KEY)
                .ok_or_else(|| damaged("has a column without a SQL type"))?;
            let parsed = sql_type
                .parse::<SqlType>()
                .map_err(|error| damaged(&error.to_string()))?;
            let column = Column {
                sql_name: text_of(metadata, NAME_KEY).unwrap_or(table_name).to_owned(),
                sql_type: sql_type.to_owned(),
                table_name: table_name.to_owned(),
                data_type: values::stored_type(&parsed.to_arrow())?,
            };
            columns.push(column);
        }
        Ok(Self::new(columns))
    }

    /// Whether both stand for the same stored columns.
    pub(crate) fn same_storage(&self, other: &Self) -> bool {
        self.physical == other.physical
    }

    /// Converts rows of the relation to rows of the parquet files.
    ///
    /// # Errors
    /// [`Error::Invariant`] if the number of columns is another one; [`Error::Value`].
    pub(crate) fn store(&self, rows: &RecordBatch) -> Result<RecordBatch, Error> {
        if rows.num_columns() != self.columns.len() {
            return Err(Error::Invariant(format!(
                "{} columns for a table of {}",
                rows.num_columns(),
                self.columns.len()
            )));
        }
        let rows = flowstone_types::normalize::normalize_batch(rows);
        let mut columns = Vec::with_capacity(self.physical.fields().len());
        for (column, array) in itertools::zip_eq(&self.columns, rows.columns()) {
            columns.push(values::store(array, &column.data_type)?);
        }
        if columns.is_empty() {
            columns.push(Arc::new(BooleanArray::from(vec![true; rows.num_rows()])));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.physical), columns)?)
    }

    /// Converts rows of the parquet files to rows of the relation with exactly `schema`.
    ///
    /// # Errors
    /// [`Error::Invariant`] if `schema` has another number of columns; [`Error::Value`] if a stored value is not one of its type.
    pub(crate) fn restore(
        &self,
        rows: &RecordBatch,
        schema: &SchemaRef,
    ) -> Result<RecordBatch, Error> {
        if schema.fields().len() != self.columns.len() {
            return Err(Error::Invariant(format!(
                "{} columns for a table of {}",
                schema.fields().len(),
                self.columns.len()
            )));
        }
        let mut columns = Vec::with_capacity(self.columns.len());
        for (field, array) in schema.fields().iter().zip(rows.columns()) {
            columns.push(values::restore(array, field.data_type())?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(schema),
            columns,
            &options,
        )?)
    }

    /// Brings a batch read from a parquet file, which another engine may have rewritten, to the order and types of the physical schema.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming `file` if a column cannot be read as its type.
    pub(crate) fn align(&self, rows: &RecordBatch, file: &Path) -> Result<RecordBatch, Error> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.physical.fields().len());
        for field in self.physical.fields() {
            columns.push(match rows.column_by_name(field.name()) {
                Some(array) if array.data_type() == field.data_type() => Arc::clone(array),
                Some(array) => arrow_cast::cast(array, field.data_type())
                    .ok()
                    .filter(|cast| cast.null_count() == array.null_count())
                    .ok_or_else(|| {
                        Error::damaged(
                            file,
                            format!("column \"{}\" has type {}", field.name(), array.data_type()),
                        )
                    })?,
                None => arrow_array::new_null_array(field.data_type(), rows.num_rows()),
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.physical), columns)?)
    }
}

fn text_of<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn free_name(name: &str, taken: &HashSet<String>) -> String {
    let name = if name.is_empty() {
        "_".to_owned()
    } else {
        name.replace(SPECIAL, "_")
    };
    let mut candidate = name.clone();
    let mut suffix = 2_u32;
    while taken.contains(&candidate.to_lowercase()) {
        candidate = format!("{name}_{suffix}");
        suffix = suffix.saturating_add(1);
    }
    candidate
}

fn delta_type(data_type: &DataType) -> Result<Value, Error> {
    Ok(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 => json!("byte"),
        DataType::Int16 => json!("short"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Decimal128(precision, scale) => json!(format!("decimal({precision},{scale})")),
        DataType::Utf8 => json!("string"),
        DataType::Binary => json!("binary"),
        DataType::Date32 => json!("date"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => json!("timestamp"),
        DataType::Timestamp(TimeUnit::Microsecond, None) => json!("timestamp_ntz"),
        DataType::List(item) => {
            json!({"type": "array", "elementType": delta_type(item.data_type())?, "containsNull": true})
        }
        other => return Err(Error::Invariant(format!("{other} is not a stored type"))),
    })
}
