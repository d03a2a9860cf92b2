//! Changes to messages.
//!
//! Owns which columns make keys, values, headers and partitions of a sink, and in which format. Must not know topics or registries: the ids of schemas are handed
//! in. Called by the writer of a sink.
//!
//! Each message has a header `materialize-timestamp`: the epoch of the change.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int16Type, Int32Type, Int64Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::{DataType, SchemaRef};
use flowstone_formats::avro::{AvroEncoder, AvroOptions, AvroRows, NullDefaults};
use flowstone_formats::encode::{JsonRows, TimeStyle, write_bytes, write_text};
use flowstone_formats::{Column, Error, Relation};
use flowstone_proto::kafka::{
    KafkaSink, RegistryConnection, SinkEnvelope, SinkFormat, SinkPartition,
};
use flowstone_types::{Epoch, Jsonb, SqlType, TypeError};

use super::fold::Change;
use super::partition;

/// The header that says the epoch of a change.
const EPOCH_HEADER: &str = "materialize-timestamp";

/// What stands before a payload of Avro: a zero byte and the id of its schema.
const PREFIX_BYTES: usize = 5;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` for a key that is gone.
    pub value: Option<Vec<u8>>,
    /// Names and values.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Where it goes.
    pub partition: i32,
}

impl Message {
    /// Bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value)
    }
}

/// A part of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartName {
    Key,
    Value,
}

/// A schema to be registered.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) part: PartName,
    pub(super) registry: RegistryConnection,
    pub(super) subject: String,
    pub(super) schema: String,
    /// What is set for a subject that has nothing set.
    pub(super) compatibility: Option<String>,
}

/// Makes messages of the changes of one collection.
#[derive(Clone, Debug)]
pub struct Encoder {
    key: Option<Part>,
    value: Part,
    envelope: SinkEnvelope,
    headers: Option<usize>,
    /// A column that says the partition.
    partition_by: Option<usize>,
}

#[derive(Clone, Debug)]
struct Part {
    columns: Vec<usize>,
    relation: Relation,
    format: Format,
}

#[derive(Clone, Debug)]
enum Format {
    Json,
    Text,
    Bytes,
    Avro {
        encoder: Box<AvroEncoder>,
        /// That of its schema, once it is known.
        id: u32,
        registry: RegistryConnection,
        compatibility: Option<String>,
    },
}

impl Part {
    /// `envelope`: what the part says of rows; of keys [`SinkEnvelope::None`].
    fn new(
        format: &SinkFormat,
        envelope: SinkEnvelope,
        columns: Vec<usize>,
        schema: &SchemaRef,
    ) -> Result<Self, Error> {
        let relation = columns.iter().map(|column| {
            let field = schema.fields().get(*column);
            let field =
                field.ok_or_else(|| TypeError::Kernel(format!("there is no column {column}")))?;
            let sql_type = SqlType::from_field(field)?;
            Ok(Column::new(field.name(), sql_type, field.is_nullable()))
        });
        let relation = Relation::new(relation.collect::<Result<_, TypeError>>()?);
        let format = match format {
            SinkFormat::Json => Format::Json,
            SinkFormat::Text => Format::Text,
            SinkFormat::Bytes => Format::Bytes,
            SinkFormat::Avro {
                registry,
                name,
                docs,
                compatibility,
                null_defaults,
            } => {
                // Docs say places in the record, not in the relation.
                let named = |place: usize| {
                    let field = schema.fields().get(*columns.get(place)?)?;
                    Some(field.name().clone())
                };
                let of_columns = docs
                    .iter()
                    .filter_map(|(column, text)| Some((named((*column)?)?, text.clone())));
                let of_record = docs.iter().find(|(column, _)| column.is_none());
                // It is the name of what is registered: of changes their rows are only a part.
                let (full_name, envelope_name) = match envelope {
                    SinkEnvelope::Debezium => (None, Some(name.clone())),
                    SinkEnvelope::Upsert | SinkEnvelope::None => (Some(name.clone()), None),
                };
                let options = AvroOptions {
                    full_name,
                    envelope_name,
                    doc: of_record.map(|(_, text)| text.clone()),
                    column_docs: of_columns.collect(),
                    null_defaults: if *null_defaults {
                        NullDefaults::With
                    } else {
                        NullDefaults::Without
                    },
                };
                Format::Avro {
                    encoder: Box::new(AvroEncoder::new(relation.clone(), &options)?),
                    id: 0,
                    registry: (**registry).clone(),
                    compatibility: compatibility.clone(),
                }
            }
        };
        Ok(Self {
            columns,
            relation,
            format,
        })
    }

    /// Bytes before the payload that say nothing of it.
    const fn prefix_bytes(&self) -> usize {
        match self.format {
            Format::Avro { .. } => PREFIX_BYTES,
            Format::Json | Format::Text | Format::Bytes => 0,
        }
    }

    fn batch(&self, rows: &RecordBatch) -> Result<RecordBatch, Error> {
        let batch = rows.project(&self.columns).map_err(TypeError::from)?;
        Ok(batch)
    }

    fn rows<'a>(&'a self, batch: &'a RecordBatch) -> Result<Rows<'a>, Error> {
        Ok(match &self.format {
            Format::Json => {
                let rows = JsonRows::new(&self.relation, batch, TimeStyle::Epoch)?;
                Rows::Json(rows)
            }
            Format::Text => Rows::Text(&self.relation, batch),
            Format::Bytes => Rows::Bytes(&self.relation, batch),
            Format::Avro { encoder, id, .. } => Rows::Avro(encoder.rows(batch)?, *id),
        })
    }
}

/// Rows of a batch, ready to be written.
#[derive(Debug)]
enum Rows<'a> {
    Json(JsonRows<'a>),
    Text(&'a Relation, &'a RecordBatch),
    Bytes(&'a Relation, &'a RecordBatch),
    Avro(AvroRows<'a>, u32),
}

impl Rows<'_> {
    fn row(&self, row: usize) -> Result<Option<Vec<u8>>, Error> {
        Ok(match self {
            Self::Json(rows) => {
                let mut text = String::new();
                rows.write(row, &mut text)?;
                Some(text.into_bytes())
            }
            Self::Text(relation, batch) => {
                let mut text = String::new();
                write_text(relation, batch, row, &mut text)?.then(|| text.into_bytes())
            }
            Self::Bytes(relation, batch) => {
                let mut bytes = Vec::new();
                write_bytes(relation, batch, row, &mut bytes)?.then_some(bytes)
            }
            Self::Avro(rows, id) => {
                let mut bytes = Vec::new();
                rows.write(*id, row, &mut bytes)?;
                Some(bytes)
            }
        })
    }

    fn change(&self, change: Change) -> Result<Option<Vec<u8>>, Error> {
        let Change { before, after } = change;
        Ok(match self {
            Self::Json(rows) => {
                let mut text = String::new();
                rows.write_change(before, after, &mut text)?;
                Some(text.into_bytes())
            }
            Self::Avro(rows, id) => {
                let mut bytes = Vec::new();
                rows.write_change(*id, before, after, &mut bytes)?;
                Some(bytes)
            }
            Self::Text(..) | Self::Bytes(..) => {
                let message = "ENVELOPE DEBEZIUM takes FORMAT AVRO or JSON";
                return Err(Error::Definition(message.to_owned()));
            }
        })
    }
}

impl Encoder {
    /// An encoder of rows of `schema`. Schemas of Avro have no ids yet.
    ///
    /// # Errors
    /// Why rows of such columns cannot be written.
    pub fn new(sink: &KafkaSink, schema: &SchemaRef) -> Result<Self, Error> {
        let key = sink.key.as_ref();
        let key = key.map(|(format, columns)| {
            Part::new(format, SinkEnvelope::None, columns.clone(), schema)
        });
        let columns = value_columns(sink, schema);
        let value = Part::new(&sink.value, sink.envelope, columns, schema)?;
        Ok(Self {
            key: key.transpose()?,
            value,
            envelope: sink.envelope,
            headers: sink.headers,
            partition_by: partition_column(sink),
        })
    }

    pub(super) fn registrations(&self, topic: &str) -> Vec<Registration> {
        let key = self.key.as_ref().map(|part| (PartName::Key, part));
        let parts = key.into_iter().chain([(PartName::Value, &self.value)]);
        let registrations = parts.filter_map(|(name, part)| {
            let Format::Avro {
                encoder,
                registry,
                compatibility,
                ..
            } = &part.format
            else {
                return None;
            };
            let (suffix, schema) = match (name, self.envelope) {
                (PartName::Key, _) => ("key", encoder.schema()),
                (PartName::Value, SinkEnvelope::Debezium) => ("value", encoder.envelope_schema()),
                (PartName::Value, SinkEnvelope::Upsert | SinkEnvelope::None) => {
                    ("value", encoder.schema())
                }
            };
            Some(Registration {
                part: name,
                registry: registry.clone(),
                subject: format!("{topic}-{suffix}"),
                schema,
                compatibility: compatibility.clone(),
            })
        });
        registrations.collect()
    }

    /// The schema of a part has this id.
    pub(super) fn registered(&mut self, name: PartName, schema_id: u32) {
        let part = match name {
            PartName::Key => self.key.as_mut(),
            PartName::Value => Some(&mut self.value),
        };
        if let Some(Part {
            format: Format::Avro { id, .. },
            ..
        }) = part
        {
            *id = schema_id;
        }
    }

    /// The messages of changes, in their order. `numbers`: of a sink whose partitions an expression says, its value for each row.
    ///
    /// # Errors
    /// [`Error::Value`] for a value that the format has no place for.
    pub fn messages(
        &self,
        rows: &RecordBatch,
        changes: &[Change],
        epoch: Epoch,
        partitions: i32,
        numbers: Option<&UInt64Array>,
    ) -> Result<Vec<Message>, Error> {
        let key_batch = self.key.as_ref().map(|part| part.batch(rows)).transpose()?;
        let keys = match (&self.key, &key_batch) {
            (Some(part), Some(batch)) => Some((part.rows(batch)?, part.prefix_bytes())),
            _ => None,
        };
        let value_batch = self.value.batch(rows)?;
        let values = self.value.rows(&value_batch)?;
        let column = |at: Option<usize>| at.and_then(|at| rows.columns().get(at));
        let (headers, partition_by) = (column(self.headers), column(self.partition_by));
        let mut messages = Vec::with_capacity(changes.len());
        for change in changes {
            let Some(row) = change.after.or(change.before) else {
                continue;
            };
            let key = match &keys {
                Some((keys, _)) => keys.row(row)?,
                None => None,
            };
            let value = match (self.envelope, change.after) {
                (SinkEnvelope::Debezium, _) => values.change(*change)?,
                (SinkEnvelope::Upsert | SinkEnvelope::None, Some(row)) => values.row(row)?,
                (SinkEnvelope::Upsert | SinkEnvelope::None, None) => None,
            };
            let number = match (numbers, partition_by) {
                (Some(numbers), _) => Some(number_in(numbers, row)),
                (None, Some(column)) => Some(number_of(column, row)),
                (None, None) => None,
            };
            let partition = match (number, &key, &keys) {
                (Some(number), ..) => partition::of_number(number, partitions),
                (None, Some(key), Some((_, prefix))) => {
                    partition::of_key(key.get(*prefix..).unwrap_or_default(), partitions)
                }
                // So that rows without keys stay in order.
                (None, ..) => 0,
            };
            let mut stated = vec![(
                EPOCH_HEADER.to_owned(),
                Some(epoch.to_string().into_bytes()),
            )];
            if let Some(column) = headers {
                stated.extend(headers_of(column, row));
            }
            messages.push(Message {
                key,
                value,
                headers: stated,
                partition,
            });
        }
        Ok(messages)
    }
}

/// All columns; of formats of one column, what is neither in the key nor the headers, if there is more than one.
fn value_columns(sink: &KafkaSink, schema: &SchemaRef) -> Vec<usize> {
    let all = 0..schema.fields().len();
    let of_one = matches!(sink.value, SinkFormat::Text | SinkFormat::Bytes);
    if !of_one || all.len() < 2 {
        return all.collect();
    }
    let key = sink.key.as_ref().map(|(_, columns)| columns.as_slice());
    let key = key.unwrap_or_default();
    let others = [sink.headers, partition_column(sink)];
    all.filter(|column| !key.contains(column) && !others.contains(&Some(*column)))
        .collect()
}

/// The column that says the partition, if it is just a column.
const fn partition_column(sink: &KafkaSink) -> Option<usize> {
    match &sink.partition_by {
        Some(SinkPartition::Column(column)) => Some(*column),
        Some(SinkPartition::Expression(_) | SinkPartition::Unplanned(_)) | None => None,
    }
}

/// A number of a row: 0 if there is none.
fn number_in(numbers: &UInt64Array, row: usize) -> u64 {
    if row < numbers.len() && numbers.is_valid(row) {
        numbers.value(row)
    } else {
        0
    }
}

/// A number that says a partition: 0 for what is none.
fn number_of(column: &ArrayRef, row: usize) -> u64 {
    if column.is_null(row) {
        return 0;
    }
    match column.data_type() {
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row),
        DataType::Int16 => {
            u64::try_from(column.as_primitive::<Int16Type>().value(row)).unwrap_or_default()
        }
        DataType::Int32 => {
            u64::try_from(column.as_primitive::<Int32Type>().value(row)).unwrap_or_default()
        }
        DataType::Int64 => {
            u64::try_from(column.as_primitive::<Int64Type>().value(row)).unwrap_or_default()
        }
        _ => 0,
    }
}

/// The members of a document; NULL, and what is no object, has none.
fn headers_of(column: &ArrayRef, row: usize) -> Vec<(String, Option<Vec<u8>>)> {
    let Some(documents) = column.as_binary_opt::<i64>() else {
        return Vec::new();
    };
    if documents.is_null(row) {
        return Vec::new();
    }
    let text = Jsonb::from_canonical(documents.value(row)).to_string();
    let Ok(serde_json::Value::Object(members)) = serde_json::from_str(&text) else {
        return Vec::new();
    };
    let headers = members.into_iter().map(|(name, value)| {
        let value = match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.into_bytes()),
            other => Some(other.to_string().into_bytes()),
        };
        (name, value)
    });
    headers.collect()
}

#[cfg(test)]
mod tests;
