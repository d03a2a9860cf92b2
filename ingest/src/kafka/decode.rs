//! Messages become changes of one table, by batches: payloads straight into columns, and what the envelope says as operations.
//!
//! Owns the decoders of one table and what becomes of messages that cannot be read. Must not know brokers, registries (schemas are handed in) or logs.
//! Called by [`super::decoding`] on threads that may compute.
//!
//! A message that cannot be read is a row in error ([`crate::row_errors`]): of its key, if that can be read, so that the next message of the key heals it; else
//! of its partition and offset. Where a key is not readable, its bytes stand for it, and a message of the same bytes without a value takes the error back.
//!
//! Invariants. Rows are in the order of the messages. A deletion of a row that may not be there comes behind an upsert of the same key: topics hold tombstones of
//! keys that nobody has seen, and connectors repeat themselves. What [`TableDecoder::decode`] gives depends on the messages alone; if it fails, nothing is kept
//! of them.

mod columns;
mod lines;
mod updates;

use std::collections::HashMap;

use arrow_schema::SchemaRef;
use flowstone_formats::avro::{AvroContent, AvroDecoder, Framing};
use flowstone_formats::csv::{CsvColumns, CsvDecoder};
use flowstone_formats::envelope::layout::{ChangeLayout, Note};
use flowstone_formats::envelope::position::{EventPosition, Origin, Watermarks};
use flowstone_formats::envelope::{DebeziumEnvelope, KeyColumn};
use flowstone_formats::json::{JsonColumn, JsonContent, JsonDecoder};
use flowstone_formats::plain::{BytesDecoder, TextDecoder};
use flowstone_formats::protobuf::{ProtobufDecoder, ProtobufFraming, ProtobufSchema};
use flowstone_formats::regex::RegexDecoder;
use flowstone_formats::{Column, Decoded, Decoder, Limits};
use flowstone_proto::kafka::{
    CsvColumns as DeclaredCsv, Envelope, Format, KafkaColumn, KafkaTable, OnDecodeError,
    ProtobufSchema as DeclaredProtobuf, RegisteredSchema, RegistryConnection,
};
use flowstone_proto::message::SourceTable;
use flowstone_types::SqlType;

use super::batch::{Batch, Message};
use super::marks::Mark;
use super::upstream;
use crate::transactions::Messages;
use lines::{Building, Cursor};
use updates::Updates;

/// Which part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Key,
    Value,
}

/// What a batch is to a table.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The changes, in order.
    pub(crate) changes: Vec<Messages>,
    /// Messages that are passed over and written elsewhere.
    pub(crate) dead: Vec<DeadLetter>,
    /// How many messages there were.
    pub(crate) messages: u64,
    /// Their bytes, as they came.
    pub(crate) bytes: u64,
    /// From where on messages are needed again, if they are updates with times.
    pub(crate) mark: Option<Mark>,
}

/// A message that could not be read, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// The topic it goes to.
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) reason: String,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Why a batch is no change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A message cannot be read, and the source is to stand still then. It is the first one.
    Message {
        /// Where it is.
        offset: i64,
        /// What is wrong.
        message: String,
    },
    /// The table cannot have any message.
    Table(String),
}

/// Where the schemas of one side of a table's messages are.
pub(crate) fn registry(spec: &KafkaTable, side: Side) -> Option<&RegistryConnection> {
    let format = match side {
        Side::Key => spec.key.as_ref(),
        Side::Value => Some(&spec.value),
    };
    match format {
        Some(Format::Avro(avro)) => avro.registry.as_ref(),
        _ => None,
    }
}

/// What values are to the rows of a table.
#[derive(Debug)]
enum Kind {
    Append,
    Upsert,
    Changes(Box<Changes>),
    Updates(Box<Updates>),
}

/// What is in values beside rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Rows,
    /// Images of rows.
    Images,
    /// Updates with times, and progress.
    Updates,
}

/// Changes with images of rows.
#[derive(Debug)]
struct Changes {
    envelope: DebeziumEnvelope,
    layout: ChangeLayout,
    /// By column of the table, the column of the envelope's relation.
    places: Vec<Option<usize>>,
    /// By column of the table, the column of the decoded key that has the same value.
    in_key: Vec<Option<usize>>,
    /// Whether what a connector sends again has to be told: without a key it would count twice.
    is_watched: bool,
}

/// Makes changes of one table of messages.
#[derive(Debug)]
pub(crate) struct TableDecoder {
    spec: KafkaTable,
    schema: SchemaRef,
    types: Vec<SqlType>,
    /// The columns of the table that are its key.
    key_columns: Vec<usize>,
    key: Option<Decoder>,
    value: Decoder,
    kind: Kind,
    /// By partition.
    watermarks: HashMap<i32, Watermarks>,
    /// The partition that was decoded last, with its watermarks before.
    last: Option<(i32, Option<Watermarks>)>,
}

impl TableDecoder {
    /// The decoder of a table, whose collection has the schema.
    ///
    /// # Errors
    /// Why the table cannot be fed with messages.
    pub(crate) fn new(table: &SourceTable, schema: SchemaRef) -> Result<Self, String> {
        let spec = upstream::decode(table)?;
        let types = schema
            .fields()
            .iter()
            .map(|field| SqlType::from_field(field))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        if spec.columns.len() != types.len() {
            return Err("description of the table names other columns than it has".to_owned());
        }
        let content = match spec.envelope {
            Envelope::None | Envelope::Upsert => Content::Rows,
            Envelope::Debezium | Envelope::Cockroach => Content::Images,
            Envelope::Materialize => Content::Updates,
        };
        let key = spec.key.as_ref();
        let key = key.map(|format| decoder(format, Side::Key, Content::Rows));
        let key = key.transpose()?;
        let value = decoder(&spec.value, Side::Value, content)?;
        let kind = match spec.envelope {
            Envelope::None => Kind::Append,
            Envelope::Upsert if key.is_none() || table.key.is_empty() => {
                return Err("upsert needs a key".to_owned());
            }
            Envelope::Upsert => Kind::Upsert,
            Envelope::Debezium | Envelope::Cockroach => {
                let layout = value
                    .layout()
                    .cloned()
                    .ok_or("values of this format cannot be changes of rows")?;
                Kind::Changes(Box::new(changes(&spec, table, key.as_ref(), layout)?))
            }
            Envelope::Materialize if !matches!(value, Decoder::Avro(_)) => {
                return Err("values of this format cannot be updates with times".to_owned());
            }
            Envelope::Materialize if !table.key.is_empty() => {
                return Err("a table of updates with times has no key".to_owned());
            }
            Envelope::Materialize => Kind::Updates(Box::new(Updates::new(&spec.columns, &schema)?)),
        };
        Ok(Self {
            spec,
            schema,
            types,
            key_columns: table.key.clone(),
            key,
            value,
            kind,
            watermarks: HashMap::new(),
            last: None,
        })
    }

    /// Whether messages before the first one that is wanted should be shown as well: they tell what is repeated after it, or what is whole then.
    pub(crate) fn is_watched(&self) -> bool {
        match &self.kind {
            Kind::Append | Kind::Upsert => false,
            Kind::Changes(changes) => changes.is_watched,
            Kind::Updates(_) => true,
        }
    }

    /// Goes on where a mark is, if messages are updates with times: they are shown from what it needs on.
    pub(crate) fn begin_at(&mut self, mark: Mark) {
        if let Kind::Updates(updates) = &mut self.kind {
            updates.begin_at(mark);
        }
    }

    /// What came of messages below an offset is in the log.
    pub(crate) fn settle(&mut self, next: i64) {
        if let Kind::Updates(updates) = &mut self.kind {
            updates.settle(next);
        }
    }

    fn side(&self, side: Side) -> Option<&Decoder> {
        match side {
            Side::Key => self.key.as_ref(),
            Side::Value => Some(&self.value),
        }
    }

    fn side_mut(&mut self, side: Side) -> Option<&mut Decoder> {
        match side {
            Side::Key => self.key.as_mut(),
            Side::Value => Some(&mut self.value),
        }
    }

    /// The ids of schemas that messages name and that are not known here.
    pub(crate) fn missing(&self, batch: &Batch, first: usize, end: usize) -> Vec<(Side, u32)> {
        let mut missing = Vec::new();
        for side in [Side::Key, Side::Value] {
            let Some(decoder) = self
                .side(side)
                .filter(|_| registry(&self.spec, side).is_some())
            else {
                continue;
            };
            let payloads: Vec<Option<&[u8]>> = batch
                .range(first, end)
                .iter()
                .map(|message| match side {
                    Side::Key => batch.key(message),
                    Side::Value => batch.value(message),
                })
                .collect();
            let ids = decoder.missing_ids(&payloads).into_iter();
            missing.extend(ids.map(|id| (side, id)));
        }
        missing
    }

    /// Makes a schema known, or that there is none.
    pub(crate) fn add_schema(
        &mut self,
        side: Side,
        id: u32,
        schema: Result<&RegisteredSchema, &str>,
    ) {
        let Some(decoder) = self.side_mut(side) else {
            return;
        };
        match schema {
            Ok(schema) => {
                let references: Vec<String> = schema
                    .references
                    .iter()
                    .map(|(_, text)| text.clone())
                    .collect();
                if let Err(error) = decoder.add_schema(id, &schema.text, &references) {
                    // Its messages say so, too.
                    tracing::warn!(id, %error, "a schema of the registry cannot be used");
                }
            }
            Err(reason) => {
                if let Decoder::Avro(avro) = decoder {
                    avro.refuse_schema(id, reason);
                }
            }
        }
    }

    /// What the messages from `first` to before `end` change.
    ///
    /// # Errors
    /// [`Stop`]
    pub(crate) fn decode(
        &mut self,
        batch: &Batch,
        first: usize,
        end: usize,
    ) -> Result<Outcome, Stop> {
        self.last = None;
        if matches!(self.kind, Kind::Updates(_)) {
            return self.decode_updates(batch, first, end);
        }
        let from = if self.is_watched() { 0 } else { first };
        let messages = batch.range(from, end);
        if messages.is_empty() {
            return Ok(Outcome::default());
        }
        let failed = |error: flowstone_formats::Error| Stop::Table(error.to_string());
        let keys: Vec<Option<&[u8]>> = match &self.key {
            Some(_) => messages.iter().map(|message| batch.key(message)).collect(),
            None => Vec::new(),
        };
        let key_rows = self.key.as_ref().map(|key| key.decode(&keys));
        let key_rows = key_rows.transpose().map_err(failed)?;
        let mut values: Vec<Option<&[u8]>> = messages
            .iter()
            .map(|message| batch.value(message).map(|value| self.without_header(value)))
            .collect();
        let value_rows = self.value.decode(&values).map_err(failed)?;
        let wanted = first - from;
        let mut watermark = None;
        if let Kind::Changes(changes) = &self.kind
            && changes.is_watched
        {
            let known = self.watermarks.get(&batch.partition);
            let mut mark = known.cloned().unwrap_or_default();
            leave_out_repeated(&changes.layout, &mut mark, &value_rows, &mut values, wanted);
            watermark = Some(mark);
        }
        let mut building = Building::new(self, batch, messages, &keys, key_rows.as_ref());
        match &self.kind {
            Kind::Append => building.append(&values, &value_rows)?,
            Kind::Upsert => building.upsert(&values, &value_rows)?,
            Kind::Changes(changes) => building.changes(changes, &values, &value_rows)?,
            Kind::Updates(_) => {}
        }
        let outcome = building.finish(messages.len().saturating_sub(wanted));
        if let Some(watermark) = watermark {
            let before = self.watermarks.insert(batch.partition, watermark);
            self.last = Some((batch.partition, before));
        }
        Ok(outcome)
    }

    /// As [`TableDecoder::decode`], of updates with times. Those before `first` are looked at, if they were not.
    fn decode_updates(&mut self, batch: &Batch, first: usize, end: usize) -> Result<Outcome, Stop> {
        let messages = batch.range(0, end);
        if messages.is_empty() {
            return Ok(Outcome::default());
        }
        if batch.partition != 0 {
            let reason = format!(
                "ENVELOPE MATERIALIZE needs a topic of one partition, and there are messages in partition {}",
                batch.partition
            );
            return Err(Stop::Table(reason));
        }
        if let (Kind::Updates(updates), Decoder::Avro(avro)) = (&mut self.kind, &self.value) {
            let looked = updates.look_at(avro, batch, messages);
            looked.map_err(Stop::Table)?;
        }
        let Kind::Updates(updates) = &self.kind else {
            return Ok(Outcome::default());
        };
        let wanted = batch.range(first, end);
        let mut building = Building::new(self, batch, wanted, &[], None);
        building.updates(updates)?;
        let outcome = building.finish(wanted.len());
        Ok(Outcome {
            mark: updates.mark(),
            ..outcome
        })
    }

    /// What was decoded last does not count: it comes again, in other batches.
    pub(crate) fn take_back(&mut self) {
        match self.last.take() {
            Some((partition, Some(before))) => {
                self.watermarks.insert(partition, before);
            }
            Some((partition, None)) => {
                self.watermarks.remove(&partition);
            }
            None => {}
        }
    }

    /// A payload of CSV without the header that it may begin with.
    fn without_header<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        let (Format::Csv { columns, .. }, Decoder::Csv(csv)) = (&self.spec.value, &self.value)
        else {
            return payload;
        };
        let DeclaredCsv::Header(_) = columns else {
            return payload;
        };
        let end = payload.iter().position(|byte| *byte == b'\n');
        let parts = end.and_then(|end| payload.split_at_checked(end + 1));
        match parts {
            Some((header, rest)) if !rest.is_empty() && csv.check_header(header).is_ok() => rest,
            _ => payload,
        }
    }

    fn on_decode_error(&self) -> &OnDecodeError {
        &self.spec.on_decode_error
    }
}

/// What says nothing new any more gets no payload. Messages before `wanted` are only looked at.
fn leave_out_repeated(
    layout: &ChangeLayout,
    watermarks: &mut Watermarks,
    decoded: &Decoded,
    values: &mut [Option<&[u8]>],
    wanted: usize,
) {
    let snapshot = columns::texts(decoded.columns.get(layout.note(Note::Snapshot)));
    let op = columns::texts(decoded.columns.get(layout.note(Note::Op)));
    let name = columns::texts(decoded.columns.get(layout.note(Note::Name)));
    let mut cursor = Cursor::new(decoded);
    for (index, value) in (0_u32..).zip(values.iter_mut()) {
        let is_wanted = usize::try_from(index).is_ok_and(|index| index >= wanted);
        let row = cursor.row(index);
        // A row of a snapshot has the position at which that was taken.
        let taken = row.and_then(&snapshot);
        let event = row.filter(|_| matches!(taken, None | Some("false")));
        if event.is_none() && taken.is_some_and(|taken| taken != "incremental") {
            watermarks.begin_anew(row.and_then(&name));
        }
        let event = event.and_then(|row| Some((row, EventPosition::of(layout, decoded, row)?)));
        let is_new = match event {
            Some((row, position)) => {
                let origin = Origin::of(layout, decoded, row, &position);
                watermarks.admit(origin, &position, op(row).unwrap_or_default())
            }
            None => true,
        };
        if !is_wanted || !is_new {
            *value = None;
        }
    }
}

fn decoder(format: &Format, side: Side, content: Content) -> Result<Decoder, String> {
    let limits = Limits::default();
    let has_images = content == Content::Images;
    // A key that lacks a member is none. What else lacks one has NULL.
    let nullable = side == Side::Value;
    let failed = |error: flowstone_formats::Error| error.to_string();
    Ok(match format {
        Format::Text => Decoder::Text(TextDecoder::new(limits)),
        Format::Bytes => Decoder::Bytes(BytesDecoder::new(limits)),
        Format::Json => {
            let content = if has_images {
                JsonContent::DocumentEnvelope
            } else {
                JsonContent::Document
            };
            Decoder::Json(JsonDecoder::new(content, limits))
        }
        Format::JsonColumns(columns) => {
            let members = columns
                .iter()
                .map(|(name, sql_type)| {
                    JsonColumn::plain(Column::new(name, sql_type.clone(), nullable))
                })
                .collect();
            let content = if has_images {
                JsonContent::Envelope(members)
            } else {
                JsonContent::Members(members)
            };
            Decoder::Json(JsonDecoder::new(content, limits))
        }
        Format::Csv { columns, delimiter } => {
            let columns = match columns {
                DeclaredCsv::Count(count) => CsvColumns::Count(*count),
                // The header is taken off before.
                DeclaredCsv::Header(names) => CsvColumns::Names(names.clone()),
            };
            let csv = CsvDecoder::new(columns, char::from(*delimiter), limits);
            Decoder::Csv(csv.map_err(failed)?)
        }
        Format::Regex(pattern) => {
            Decoder::Regex(RegexDecoder::new(pattern, limits).map_err(failed)?)
        }
        Format::Avro(avro) => {
            let content = match content {
                Content::Rows => AvroContent::Row,
                Content::Images => AvroContent::Envelope,
                Content::Updates => AvroContent::Updates,
            };
            let framing = match avro.registry {
                Some(_) => Framing::Confluent,
                None => Framing::Bare,
            };
            let decoder =
                AvroDecoder::new(&avro.reader, &avro.references, content, framing, limits);
            Decoder::Avro(Box::new(decoder.map_err(failed)?))
        }
        Format::Protobuf(protobuf) => {
            let schema = match &protobuf.schema {
                DeclaredProtobuf::Text { file, imports } => ProtobufSchema::Text {
                    schema: file,
                    references: imports,
                },
                DeclaredProtobuf::Descriptors(bytes) => ProtobufSchema::Descriptors(bytes),
            };
            let framing = if protobuf.framed {
                ProtobufFraming::Confluent
            } else {
                ProtobufFraming::Bare
            };
            let decoder =
                ProtobufDecoder::new(schema, protobuf.message.as_deref(), framing, limits);
            Decoder::Protobuf(Box::new(decoder.map_err(failed)?))
        }
    })
}

/// How the columns of a table are found in changes.
fn changes(
    spec: &KafkaTable,
    table: &SourceTable,
    key: Option<&Decoder>,
    layout: ChangeLayout,
) -> Result<Changes, String> {
    let has_key_columns = spec
        .columns
        .iter()
        .any(|column| matches!(column, KafkaColumn::Key(_)));
    let (envelope, width) = match key.filter(|_| has_key_columns) {
        Some(key) => (
            DebeziumEnvelope::with_key_columns(layout.clone(), key.relation()),
            key.relation().columns.len(),
        ),
        None => {
            let keys = table.key.iter().map(|column| {
                let Some(KafkaColumn::Value(value)) = spec.columns.get(*column) else {
                    return Err("the key of the table is not in the images of rows".to_owned());
                };
                let named = layout.row().columns.get(*value);
                let named =
                    named.ok_or_else(|| "the key of the table is not in its rows".to_owned())?;
                let in_key = key.and_then(|key| key.relation().position(&named.name));
                Ok(KeyColumn {
                    column: *value,
                    in_key,
                })
            });
            let keys = keys.collect::<Result<Vec<_>, String>>()?;
            (DebeziumEnvelope::new(layout.clone(), keys), 0)
        }
    };
    let in_key = |index: usize, column: &KafkaColumn| match column {
        KafkaColumn::Key(column) => Some(*column),
        KafkaColumn::Value(value) if table.key.contains(&index) => {
            let named = layout.row().columns.get(*value)?;
            key?.relation().position(&named.name)
        }
        KafkaColumn::Value(_) | KafkaColumn::Include(_) | KafkaColumn::Error => None,
    };
    Ok(Changes {
        places: spec
            .columns
            .iter()
            .map(|column| match column {
                KafkaColumn::Key(column) => Some(*column),
                KafkaColumn::Value(column) => Some(width + *column),
                KafkaColumn::Include(_) | KafkaColumn::Error => None,
            })
            .collect(),
        in_key: spec
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| in_key(index, column))
            .collect(),
        is_watched: table.key.is_empty(),
        envelope,
        layout,
    })
}

/// A message with what went wrong, to be written elsewhere.
fn dead_letter(batch: &Batch, message: &Message, topic: &str, reason: String) -> DeadLetter {
    DeadLetter {
        topic: topic.to_owned(),
        partition: batch.partition,
        offset: message.offset,
        reason,
        key: batch.key(message).map(<[u8]>::to_vec),
        value: batch.value(message).map(<[u8]>::to_vec),
        headers: batch
            .headers(message)
            .map(|(name, value)| {
                (
                    String::from_utf8_lossy(name).into_owned(),
                    value.map(<[u8]>::to_vec),
                )
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests;
