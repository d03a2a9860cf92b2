//! Rows of one table on their way into a record batch, from the formats in which values have types: PostgreSQL's text and binary ones.
//!
//! Must not know what sends them. Called by the transaction log and by snapshots.

use std::sync::Arc;

use arrow_array::{Array, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use flowstone_types::normalize::normalize_batch;
use flowstone_types::value::ColumnBuilder;
use flowstone_types::{SqlType, TypeError};

/// One value as it arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Null,
    /// Something that means nothing: NULL, or any value where NULL is not possible.
    Nothing,
    /// The upstream left it out because it did not change: as nothing, but for whoever completes the row.
    Unchanged,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

/// Why a row, and with it its table, was refused.
#[derive(Debug)]
pub(crate) struct RowError {
    /// The column of the schema.
    pub(crate) column: usize,
    pub(crate) reason: String,
}

/// A value that its column cannot hold.
#[derive(Debug)]
pub(crate) struct Unfit<'a> {
    /// The column of the schema.
    pub(crate) column: usize,
    pub(crate) reason: String,
    /// The value as it came.
    pub(crate) raw: &'a [u8],
}

/// Collects rows. After an error it takes no more rows; those before it can still be finished.
#[derive(Debug)]
pub(crate) struct RowBuilder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    rows: usize,
}

impl RowBuilder {
    /// An empty builder.
    ///
    /// # Errors
    /// [`TypeError::Unsupported`] if a column of the schema has no SQL type.
    pub(crate) fn new(schema: SchemaRef, capacity: usize) -> Result<Self, TypeError> {
        let types = schema
            .fields()
            .iter()
            .map(|field| SqlType::from_field(field))
            .collect::<Result<Vec<_>, _>>()?;
        let columns = types
            .iter()
            .map(|sql_type| ColumnBuilder::new(sql_type, capacity))
            .collect();
        Ok(Self {
            schema,
            columns,
            rows: 0,
        })
    }

    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }

    /// Adds one row: one value per column of the schema. In place of a value that its column cannot hold the row gets a filler, and `unfit` hears of it.
    pub(crate) fn append<'a>(
        &mut self,
        values: impl Iterator<Item = Value<'a>>,
        mut unfit: impl FnMut(Unfit<'a>),
    ) -> Result<(), RowError> {
        let fields = self.schema.fields().iter();
        let mut columns = itertools::izip!(&mut self.columns, fields).enumerate();
        for value in values {
            let Some((column, (builder, field))) = columns.next() else {
                return Err(RowError {
                    column: 0,
                    reason: "row has too many values".to_owned(),
                });
            };
            let refused = |error: TypeError| RowError {
                column,
                reason: error.to_string(),
            };
            let (appended, raw) = match value {
                Value::Null if !field.is_nullable() => {
                    return Err(RowError {
                        column,
                        reason: "null value in a column that was not null when the table was added"
                            .to_owned(),
                    });
                }
                Value::Null => {
                    builder.append_null();
                    continue;
                }
                Value::Nothing | Value::Unchanged => {
                    builder
                        .append_filler(field.is_nullable())
                        .map_err(refused)?;
                    continue;
                }
                Value::Text(raw) => {
                    let appended = match std::str::from_utf8(raw) {
                        Ok(text) => builder.append_text(text).map_err(|error| error.to_string()),
                        Err(_) => Err("text is not valid UTF-8".to_owned()),
                    };
                    (appended, raw)
                }
                Value::Binary(raw) => {
                    let appended = builder
                        .append_binary(raw)
                        .map_err(|error| error.to_string());
                    (appended, raw)
                }
            };
            if let Err(reason) = appended {
                builder
                    .append_filler(field.is_nullable())
                    .map_err(refused)?;
                unfit(Unfit {
                    column,
                    reason,
                    raw,
                });
            }
        }
        if let Some((column, _)) = columns.next() {
            return Err(RowError {
                column,
                reason: "row has too few values".to_owned(),
            });
        }
        self.rows += 1;
        Ok(())
    }

    /// The whole rows so far.
    pub(crate) fn finish(self) -> Result<RecordBatch, TypeError> {
        let rows = self.rows;
        // A refused row has left some columns longer than others.
        let columns = self
            .columns
            .into_iter()
            .map(|builder| {
                let array = builder.finish();
                if array.len() == rows {
                    array
                } else {
                    array.slice(0, rows)
                }
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok(normalize_batch(&batch))
    }
}
