//! From what a statement says of messages, and what registries say of their schemas, to the columns of a table and what the worker makes of them.
//!
//! Owns the rules: which formats and envelopes go together, which schemas are asked for, which columns there are and what they are called, and how that reads
//! as SQL again. Must not know the catalog, registries or topics: answers are handed in. What columns a format has is `formats`' business.
//!
//! Invariant. What is kept of a table has no secret in it: registries are named by their connections, and put in when the worker is told.

use std::collections::BTreeMap;

use flowstone_formats::avro::{self, AvroContent};
use flowstone_formats::csv::{self, CsvDecoder};
use flowstone_formats::json::{JsonColumn, JsonContent, JsonDecoder};
use flowstone_formats::plain::{BytesDecoder, TextDecoder};
use flowstone_formats::protobuf::{
    ProtobufDecoder, ProtobufFraming, ProtobufSchema as ProtobufText,
};
use flowstone_formats::regex::RegexDecoder;
use flowstone_formats::{Column, Limits, Relation};
use flowstone_proto::kafka::{
    AvroFormat, CsvColumns, Envelope, Format, Include, KafkaColumn, KafkaTable, OnDecodeError,
    ProtobufFormat, ProtobufSchema, RegisteredSchema, SchemaKind, SchemaRequest,
};
use flowstone_proto::message::UpstreamConnection;
use flowstone_types::{ObjectId, SqlType};
use serde::{Deserialize, Serialize};

use super::NameOf;
use super::syntax::{
    ConnectionReference, Declared, EnvelopeClause, FormatClause, FormatSyntax, IncludeClause,
    IncludeKind, Messages, OnDecodeErrorClause, SchemaSource, Strategy,
};
use crate::error::{Error, ErrorKind};
use crate::ident::{Ident, Name, quote_ident, quote_literal};

/// The registry connection that a name stands for.
type RegistryNamed<'a> = &'a dyn Fn(&Name) -> Result<ObjectId, Error>;

/// The column of a key whose format has no names.
const KEY: &str = "key";
/// The column of what cannot be decoded.
const ERROR: &str = "error";

/// What a registry answered.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemaAnswer {
    /// The connection item of the registry.
    pub registry: ObjectId,
    /// What it was asked.
    pub request: SchemaRequest,
    /// Its answer; `None` if it has none.
    pub schema: Option<RegisteredSchema>,
}

/// What a table makes of the messages of its source's topic, as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageTable {
    /// What the worker is told, but for registries.
    #[serde(with = "encoded")]
    pub table: KafkaTable,
    /// Where the schema of keys is from.
    pub key_schema: SchemaOrigin,
    /// Where the schema of values is from.
    pub value_schema: SchemaOrigin,
    /// Whether one clause said both formats.
    pub bare: bool,
    /// What was declared before `FROM`.
    pub declared: Declared,
    /// Whether `INCLUDE KEY` gave the key a name.
    pub key_named: bool,
}

/// Where a schema is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchemaOrigin {
    /// There is none, or it was in the statement.
    Statement,
    /// A registry.
    Registry {
        /// Its connection item.
        connection: ObjectId,
        /// Which of its schemas.
        strategy: SchemaStrategy,
    },
}

/// Which schema of a registry is read with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchemaStrategy {
    /// The newest as of when the table was made.
    Latest,
    /// One by its id.
    Id(u32),
    /// One that the statement said.
    Inline,
}

/// How the catalog keeps a [`KafkaTable`]: by its own encoding, which is versioned.
mod encoded {
    use flowstone_proto::kafka::KafkaTable;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        table: &KafkaTable,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        table.encode().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<KafkaTable, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        KafkaTable::decode(&bytes).map_err(de::Error::custom)
    }
}

/// A table that was planned.
#[derive(Debug)]
pub(crate) struct PlannedMessages {
    /// Its columns.
    pub(crate) columns: Vec<Column>,
    /// Those that identify a row.
    pub(crate) key: Option<Vec<usize>>,
    /// What is kept of it.
    pub(crate) table: MessageTable,
}

/// Keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Key,
    Value,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
        }
    }
}

/// What keys are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyUse {
    /// Nothing.
    None,
    /// Whatever the topic has is used.
    IfThere,
    /// There must be some.
    Required,
}

/// A format with what it says of columns.
struct Read {
    format: Format,
    origin: SchemaOrigin,
    relation: Relation,
    /// Whether a schema names the columns.
    has_names: bool,
}

/// A column of the table to be.
struct Slot {
    from: KafkaColumn,
    column: Column,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidParameterValue, message)
}

/// An error of a format as one of the statement.
fn of_format(error: &flowstone_formats::Error) -> Error {
    use flowstone_formats::Error as Formats;
    match error {
        Formats::Definition(_) => invalid(error.to_string()),
        Formats::Unsupported(_) => Error::unsupported(error.to_string()),
        Formats::BatchTooLarge(_) | Formats::Value(_) => Error::internal(error.to_string()),
    }
}

impl Messages {
    const fn envelope(&self) -> &EnvelopeClause {
        match &self.envelope {
            Some(envelope) => envelope,
            None => &EnvelopeClause::None,
        }
    }

    /// The clause of keys: that of both if it is one that has a schema for each.
    fn key_clause(&self) -> Option<&FormatClause> {
        match (&self.key, &self.value) {
            (Some(key), _) => Some(key),
            (None, Some(both)) if self.bare && both.format.has_registry() => Some(both),
            _ => None,
        }
    }

    fn included_key(&self) -> Option<&IncludeClause> {
        let mut included = self.include.iter();
        included.find(|clause| clause.kind == IncludeKind::Key)
    }

    fn key_use(&self) -> KeyUse {
        match self.envelope() {
            EnvelopeClause::Upsert { .. } => KeyUse::Required,
            EnvelopeClause::Debezium => KeyUse::IfThere,
            EnvelopeClause::None | EnvelopeClause::Materialize => {
                if self.included_key().is_some() {
                    KeyUse::Required
                } else {
                    KeyUse::None
                }
            }
        }
    }

    /// What has to be asked of registries before the table can be planned.
    pub(crate) fn requests(
        &self,
        topic: &str,
        registry: RegistryNamed<'_>,
    ) -> Result<Vec<(ObjectId, SchemaRequest)>, Error> {
        let key = self.key_clause().filter(|_| self.key_use() != KeyUse::None);
        let mut requests = Vec::new();
        for (part, clause) in [(Part::Key, key), (Part::Value, self.value.as_ref())] {
            let Some(clause) = clause else { continue };
            let (FormatSyntax::Avro(source) | FormatSyntax::Protobuf { schema: source, .. }) =
                &clause.format
            else {
                continue;
            };
            if let Some((reference, strategy)) = strategy_of(source, part)
                && let Some(request) = request(strategy, topic, part)
            {
                requests.push((registry_of(reference, registry)?, request));
            }
        }
        Ok(requests)
    }

    /// The columns of the table and what becomes of messages. `registry`: as in [`Messages::requests`], whose answers `schemas` has.
    ///
    /// # Errors
    /// Whatever does not go together, at the place where it is said; a schema that is not there or says what we have no columns for.
    pub(crate) fn plan(
        &self,
        topic: &str,
        registry: RegistryNamed<'_>,
        schemas: &[SchemaAnswer],
    ) -> Result<PlannedMessages, Error> {
        let reader = Reader {
            said: self,
            topic,
            registry,
            schemas,
        };
        self.check()?;
        let Some(value_clause) = &self.value else {
            return Err(Error::syntax("FORMAT is required")
                .with_hint("Say what messages are, such as FORMAT JSON.")
                .at(self.position));
        };
        let value = reader
            .read(value_clause, Part::Value)?
            .ok_or_else(|| reader.missing(value_clause, Part::Value))?;
        let key = match (self.key_use(), self.key_clause()) {
            (KeyUse::None, _) | (KeyUse::IfThere, None) => None,
            (KeyUse::Required, None) => return Err(self.no_key_format()),
            (KeyUse::IfThere, Some(clause)) => reader.read(clause, Part::Key)?,
            (KeyUse::Required, Some(clause)) => Some(
                reader
                    .read(clause, Part::Key)?
                    .ok_or_else(|| reader.missing(clause, Part::Key))?,
            ),
        };
        self.assemble(value, key)
    }

    /// What cannot be said together, whatever the schemas are.
    fn check(&self) -> Result<(), Error> {
        let value = self.value.as_ref();
        match self.envelope() {
            EnvelopeClause::Materialize => self.check_updates()?,
            EnvelopeClause::Debezium => {
                if let Some(included) = self.included_key() {
                    return Err(Error::unsupported(
                        "INCLUDE KEY cannot be used with ENVELOPE DEBEZIUM",
                    )
                    .with_detail("Values of Debezium have all columns of keys in them.")
                    .at(included.position));
                }
                if let Some(clause) = value
                    && !matches!(clause.format, FormatSyntax::Avro(_) | FormatSyntax::Json)
                {
                    return Err(invalid(
                        "ENVELOPE DEBEZIUM requires that VALUE FORMAT is set to AVRO or JSON",
                    )
                    .at(clause.position));
                }
            }
            EnvelopeClause::None | EnvelopeClause::Upsert { .. } => {}
        }
        let typed = self
            .columns
            .columns
            .iter()
            .filter(|column| column.sql_type.is_some())
            .count();
        if typed > 0 {
            if let Some(column) = self.columns.columns.iter().find(|c| c.sql_type.is_none()) {
                return Err(
                    Error::syntax(format!("column \"{}\" has no type", column.name.value))
                        .with_detail("Either all declared columns have types, or none.")
                        .at(column.name.position),
                );
            }
            if let Some(clause) = value
                && clause.format != FormatSyntax::Json
            {
                return Err(invalid("columns with types need VALUE FORMAT JSON")
                    .with_hint("Leave out the types to give columns other names.")
                    .at(self.columns.position));
            }
        }
        if let Some(column) = self.columns.primary_key.first()
            && (typed == 0 || *self.envelope() == EnvelopeClause::None)
        {
            return Err(invalid(
                "PRIMARY KEY needs columns with types, and ENVELOPE UPSERT or DEBEZIUM",
            )
            .at(column.position));
        }
        if !self.columns.primary_key.is_empty()
            && let Some(clause) = &self.key
            && clause.format != FormatSyntax::Json
        {
            return Err(invalid("PRIMARY KEY needs KEY FORMAT JSON")
                .with_detail("Keys of other formats have the columns of their format.")
                .at(clause.position));
        }
        for (index, column) in self.columns.primary_key.iter().enumerate() {
            let mut before = self.columns.primary_key.iter().take(index);
            if before.any(|earlier| earlier == column) {
                return Err(Error::new(
                    ErrorKind::DuplicateColumn,
                    format!("column \"{}\" specified more than once", column.value),
                )
                .at(column.position));
            }
            if !self.columns.columns.iter().any(|c| c.name == *column) {
                return Err(Error::new(
                    ErrorKind::UndefinedColumn,
                    format!("column \"{}\" does not exist", column.value),
                )
                .at(column.position));
            }
        }
        Ok(())
    }

    /// What cannot be said of updates with times.
    fn check_updates(&self) -> Result<(), Error> {
        if let Some(clause) = &self.value
            && !matches!(clause.format, FormatSyntax::Avro(_))
        {
            return Err(
                invalid("ENVELOPE MATERIALIZE requires that VALUE FORMAT is set to AVRO")
                    .at(clause.position),
            );
        }
        if let Some(included) = self.include.first() {
            return Err(
                Error::unsupported("INCLUDE cannot be used with ENVELOPE MATERIALIZE")
                    .with_detail("Rows are those of updates, which may be in several messages.")
                    .at(included.position),
            );
        }
        Ok(())
    }

    fn no_key_format(&self) -> Error {
        let hint = "Say KEY FORMAT … VALUE FORMAT … instead of FORMAT ….";
        match self.included_key() {
            Some(included) => invalid(
                "INCLUDE KEY requires specifying KEY FORMAT .. VALUE FORMAT, got bare FORMAT",
            )
            .at(included.position),
            None => invalid("ENVELOPE UPSERT requires that KEY FORMAT is set").at(self.position),
        }
        .with_hint(hint)
    }

    /// The members of documents that are declared, if any are; of keys those that are declared to be the primary key.
    fn members(&self, part: Part) -> Option<Vec<(String, SqlType)>> {
        let key = &self.columns.primary_key;
        let upsert = matches!(self.envelope(), EnvelopeClause::Upsert { .. });
        let declared = self.columns.columns.iter().filter_map(|column| {
            let of_key = key.contains(&column.name);
            let wanted = match part {
                Part::Key => of_key,
                // Documents of changes have the key in them; others have it beside them.
                Part::Value => !upsert || !of_key,
            };
            Some((column.name.value.clone(), column.sql_type.clone()?)).filter(|_| wanted)
        });
        Some(declared.collect::<Vec<_>>()).filter(|members| !members.is_empty())
    }

    fn on_decode_error(&self) -> Result<(OnDecodeError, Option<String>), Error> {
        let name = |alias: &Option<Ident>| {
            let alias = alias.as_ref();
            Some(alias.map_or_else(|| ERROR.to_owned(), |alias| alias.value.clone()))
        };
        let inline = match self.envelope() {
            EnvelopeClause::Upsert {
                inline_errors: Some(alias),
            } => Some(alias),
            _ => None,
        };
        Ok(match (&self.on_decode_error, inline) {
            (Some(_), Some(_)) => {
                return Err(Error::syntax(
                    "ON DECODE ERROR and VALUE DECODING ERRORS cannot both be given",
                )
                .at(self.position));
            }
            (None, Some(alias)) => (OnDecodeError::Inline, name(alias)),
            (Some(OnDecodeErrorClause::Inline(alias)), None) => {
                (OnDecodeError::Inline, name(alias))
            }
            (None | Some(OnDecodeErrorClause::Row), None) => (OnDecodeError::Row, None),
            (Some(OnDecodeErrorClause::Fail), None) => (OnDecodeError::Fail, None),
            (Some(OnDecodeErrorClause::DeadLetter(topic)), None) => (
                OnDecodeError::DeadLetter {
                    topic: topic.clone(),
                },
                None,
            ),
        })
    }

    fn assemble(&self, value: Read, key: Option<Read>) -> Result<PlannedMessages, Error> {
        let (on_decode_error, error_column) = self.on_decode_error()?;
        let of_changes = match self.envelope() {
            EnvelopeClause::Debezium => Some("DEBEZIUM"),
            EnvelopeClause::Materialize => Some("MATERIALIZE"),
            EnvelopeClause::None | EnvelopeClause::Upsert { .. } => None,
        };
        if let Some(envelope) = of_changes.filter(|_| error_column.is_some()) {
            let message = format!("errors cannot be values with ENVELOPE {envelope}");
            return Err(Error::unsupported(message)
                .with_detail("What a message changes is not known if it cannot be decoded.")
                .at(self.position));
        }
        let envelope = match self.envelope() {
            EnvelopeClause::Upsert { .. } => Envelope::Upsert,
            EnvelopeClause::Debezium => envelope_of(&value.format),
            EnvelopeClause::Materialize => Envelope::Materialize,
            EnvelopeClause::None => Envelope::None,
        };
        let mut values: Vec<Slot> = (0_usize..)
            .map(KafkaColumn::Value)
            .zip(value.relation.columns)
            .map(|(from, column)| Slot { from, column })
            .collect();
        if error_column.is_some() {
            for slot in &mut values {
                slot.column.nullable = true;
            }
        }
        let is_change = *self.envelope() == EnvelopeClause::Debezium;
        let mut keys = Vec::new();
        let mut identity = None;
        if let Some(key) = &key {
            // A document or a text is no column of the value, though that may have one which is called as it is by default.
            let within = (is_change && key.has_names)
                .then(|| places(&key.relation, &values))
                .flatten();
            match within {
                // What changes has the key in it.
                Some(places) => identity = Some(places),
                None => {
                    keys = self.key_slots(key, &values)?;
                    let keyed = *self.envelope() != EnvelopeClause::None;
                    identity = keyed.then(|| (0..keys.len()).collect());
                }
            }
        } else if is_change && !self.columns.primary_key.is_empty() {
            let named = self.columns.primary_key.iter();
            let named = named.map(|name| position(&values, &name.value));
            identity = named.collect();
        }
        let mut slots = keys;
        slots.append(&mut values);
        if let Some(name) = error_column {
            slots.push(Slot {
                from: KafkaColumn::Error,
                column: Column::new(name, SqlType::Text, true),
            });
        }
        let include = self.included(&mut slots)?;
        self.rename(&mut slots)?;
        refuse_duplicates(&slots, self.position)?;
        let (key_format, key_schema) = match key {
            Some(key) => (Some(key.format), key.origin),
            None => (None, SchemaOrigin::Statement),
        };
        let (from, columns) = slots
            .into_iter()
            .map(|slot| (slot.from, slot.column))
            .unzip();
        Ok(PlannedMessages {
            columns,
            key: identity,
            table: MessageTable {
                table: KafkaTable {
                    key: key_format,
                    value: value.format,
                    envelope,
                    include,
                    on_decode_error,
                    columns: from,
                },
                key_schema,
                value_schema: value.origin,
                bare: self.bare,
                declared: self.declared(),
                key_named: self.included_key().is_some_and(|key| key.alias.is_some()),
            },
        })
    }

    fn declared(&self) -> Declared {
        match self.columns.columns.first() {
            None => Declared::Nothing,
            Some(column) if column.sql_type.is_some() => Declared::Members,
            Some(_) => Declared::Names,
        }
    }

    /// The columns of a key, which stand before those of the value. One that is called as one of the value is called otherwise: both are kept.
    fn key_slots(&self, key: &Read, values: &[Slot]) -> Result<Vec<Slot>, Error> {
        let alias = self
            .included_key()
            .and_then(|included| Some((included.alias.as_ref()?, included.position)));
        if let Some((_, at)) = alias
            && key.relation.columns.len() > 1
        {
            return Err(Error::unsupported(
                "INCLUDE KEY AS of a key of several columns is not supported",
            )
            .with_hint("Leave out AS, and each column of the key is one of the table.")
            .at(at));
        }
        let mut slots: Vec<Slot> = Vec::new();
        for (from, column) in (0_usize..)
            .map(KafkaColumn::Key)
            .zip(key.relation.columns.iter())
        {
            let mut column = column.clone();
            if let Some((alias, _)) = alias {
                column.name.clone_from(&alias.value);
            } else {
                if !key.has_names {
                    KEY.clone_into(&mut column.name);
                }
                let taken = |name: &str, slots: &[Slot]| {
                    values
                        .iter()
                        .chain(slots)
                        .any(|slot| slot.column.name == name)
                };
                if taken(&column.name, &slots) {
                    let base = format!("{KEY}_{}", column.name);
                    let mut name = base.clone();
                    let mut number = 0_u32;
                    while taken(&name, &slots) {
                        number += 1;
                        name = format!("{base}{number}");
                    }
                    column.name = name;
                }
            }
            slots.push(Slot { from, column });
        }
        Ok(slots)
    }

    /// Adds the columns beside key and value.
    fn included(&self, slots: &mut Vec<Slot>) -> Result<Vec<Include>, Error> {
        let mut include = Vec::new();
        for clause in &self.include {
            let (what, name, sql_type) = match &clause.kind {
                IncludeKind::Key => continue,
                IncludeKind::Partition => (Include::Partition, "partition", SqlType::Int4),
                IncludeKind::Offset => (Include::Offset, "offset", SqlType::Int8),
                IncludeKind::Timestamp => (Include::Timestamp, "timestamp", SqlType::Timestamp),
                IncludeKind::Headers => (Include::Headers, "headers", SqlType::Jsonb),
                IncludeKind::Header { name, bytes } => {
                    let what = Include::Header {
                        name: name.clone(),
                        bytes: *bytes,
                    };
                    let sql_type = if *bytes {
                        SqlType::Bytea
                    } else {
                        SqlType::Text
                    };
                    (what, name.as_str(), sql_type)
                }
            };
            let name = clause.alias.as_ref().map_or(name, |alias| &alias.value);
            // Declared names take the place of all of these.
            if self.declared() != Declared::Names
                && slots.iter().any(|slot| slot.column.name == name)
            {
                let error = Error::new(
                    ErrorKind::DuplicateColumn,
                    format!("column \"{name}\" specified more than once"),
                );
                return Err(error
                    .with_hint("Say INCLUDE … AS and another name.")
                    .at(clause.position));
            }
            let nullable = matches!(what, Include::Header { .. });
            slots.push(Slot {
                from: KafkaColumn::Include(include.len()),
                column: Column::new(name, sql_type, nullable),
            });
            include.push(what);
        }
        Ok(include)
    }

    /// Gives the columns the names that are declared.
    fn rename(&self, slots: &mut [Slot]) -> Result<(), Error> {
        if self.declared() != Declared::Names {
            return Ok(());
        }
        let names = &self.columns.columns;
        if names.len() != slots.len() {
            let message = format!(
                "{} columns are declared, but messages have {}",
                names.len(),
                slots.len()
            );
            let found: Vec<&str> = slots.iter().map(|slot| slot.column.name.as_str()).collect();
            return Err(invalid(message)
                .with_detail(format!("They have {}.", found.join(", ")))
                .at(self.columns.position));
        }
        for (slot, declared) in slots.iter_mut().zip(names) {
            slot.column.name.clone_from(&declared.name.value);
        }
        Ok(())
    }
}

/// Where the columns of a key are among those of a value; `None` if one is not there.
fn places(key: &Relation, values: &[Slot]) -> Option<Vec<usize>> {
    if key.columns.is_empty() {
        return None;
    }
    key.columns
        .iter()
        .map(|column| {
            position(values, &column.name).filter(|place| {
                values
                    .get(*place)
                    .is_some_and(|slot| slot.column.sql_type == column.sql_type)
            })
        })
        .collect()
}

fn position(slots: &[Slot], name: &str) -> Option<usize> {
    slots.iter().position(|slot| slot.column.name == name)
}

fn refuse_duplicates(slots: &[Slot], at: usize) -> Result<(), Error> {
    for (index, slot) in slots.iter().enumerate() {
        let before = slots.get(..index).unwrap_or_default();
        if position(before, &slot.column.name).is_some() {
            let message = format!("column \"{}\" specified more than once", slot.column.name);
            return Err(Error::new(ErrorKind::DuplicateColumn, message)
                .with_hint("Declare other names for the columns before FROM.")
                .at(at));
        }
    }
    Ok(())
}

/// Whose changes an envelope states: Debezium says which operation it was, CockroachDB does not.
fn envelope_of(value: &Format) -> Envelope {
    let Format::Avro(avro) = value else {
        return Envelope::Debezium;
    };
    let schema = serde_json::from_str::<serde_json::Value>(&avro.reader);
    let names = schema.iter().filter_map(|schema| schema.get("fields"));
    let mut names = names
        .filter_map(serde_json::Value::as_array)
        .flatten()
        .filter_map(|field| field.get("name").and_then(serde_json::Value::as_str));
    if names.any(|name| name == "op") {
        Envelope::Debezium
    } else {
        Envelope::Cockroach
    }
}

/// The registry of a schema and which of its schemas is meant, if it has one.
const fn strategy_of(
    source: &SchemaSource,
    part: Part,
) -> Option<(&ConnectionReference, &Strategy)> {
    match source {
        SchemaSource::Registry {
            registry,
            key,
            value,
        } => Some((
            registry,
            match part {
                Part::Key => key,
                Part::Value => value,
            },
        )),
        SchemaSource::Inline(_) => None,
    }
}

fn request(strategy: &Strategy, topic: &str, part: Part) -> Option<SchemaRequest> {
    match strategy {
        Strategy::Latest => Some(SchemaRequest::Latest(format!("{topic}-{}", part.name()))),
        Strategy::Id(id) => Some(SchemaRequest::Id(*id)),
        Strategy::Inline(_) => None,
    }
}

fn registry_of(
    reference: &ConnectionReference,
    registry: RegistryNamed<'_>,
) -> Result<ObjectId, Error> {
    let name = reference
        .name()
        .ok_or_else(|| Error::internal("the URL of a registry is not a connection yet"))?;
    registry(name)
}

/// Reads formats with what registries answered.
struct Reader<'a> {
    said: &'a Messages,
    topic: &'a str,
    registry: RegistryNamed<'a>,
    schemas: &'a [SchemaAnswer],
}

/// A schema and where it is from.
struct Found {
    text: String,
    /// Names and texts.
    references: Vec<(String, String)>,
    origin: SchemaOrigin,
}

impl Reader<'_> {
    /// A format and its columns; `None` if its schema is not in the registry.
    fn read(&self, clause: &FormatClause, part: Part) -> Result<Option<Read>, Error> {
        self.read_format(&clause.format, part)
            .map_err(|error| match error.position {
                Some(_) => error,
                None => error.at(clause.position),
            })
    }

    fn read_format(&self, syntax: &FormatSyntax, part: Part) -> Result<Option<Read>, Error> {
        let limits = Limits::default();
        let plain = |format: Format, relation: &Relation, has_names: bool| {
            Some(Read {
                format,
                origin: SchemaOrigin::Statement,
                relation: relation.clone(),
                has_names,
            })
        };
        Ok(match syntax {
            FormatSyntax::Text => plain(Format::Text, TextDecoder::new(limits).relation(), false),
            FormatSyntax::Bytes => {
                plain(Format::Bytes, BytesDecoder::new(limits).relation(), false)
            }
            FormatSyntax::Json => {
                let (format, relation, has_names) = self.json(part);
                plain(format, &relation, has_names)
            }
            FormatSyntax::Regex(pattern) => {
                let decoder = RegexDecoder::new(pattern, limits).map_err(|e| of_format(&e))?;
                plain(Format::Regex(pattern.clone()), decoder.relation(), true)
            }
            FormatSyntax::Csv { columns, delimiter } => {
                let columns = self.csv_columns(columns)?;
                let decoded = match &columns {
                    CsvColumns::Count(count) => csv::CsvColumns::Count(*count),
                    CsvColumns::Header(names) => csv::CsvColumns::Header(names.clone()),
                };
                let decoder =
                    CsvDecoder::new(decoded, *delimiter, limits).map_err(|e| of_format(&e))?;
                let delimiter = u8::try_from(*delimiter)
                    .map_err(|_| invalid("CSV delimiter must be one ASCII character"))?;
                plain(Format::Csv { columns, delimiter }, decoder.relation(), true)
            }
            FormatSyntax::Avro(source) => self.avro(source, part)?,
            FormatSyntax::Protobuf { message, schema } => {
                self.protobuf(message.as_deref(), schema, part)?
            }
        })
    }

    fn json(&self, part: Part) -> (Format, Relation, bool) {
        let limits = Limits::default();
        // A key that lacks a member is none: the decoder of the worker refuses it as well.
        let nullable = part == Part::Value;
        match self.said.members(part) {
            Some(members) => {
                let columns = members
                    .iter()
                    .map(|(name, sql_type)| {
                        JsonColumn::plain(Column::new(name, sql_type.clone(), nullable))
                    })
                    .collect();
                let decoder = JsonDecoder::new(JsonContent::Members(columns), limits);
                (
                    Format::JsonColumns(members),
                    decoder.relation().clone(),
                    true,
                )
            }
            None => {
                let decoder = JsonDecoder::new(JsonContent::Document, limits);
                (Format::Json, decoder.relation().clone(), false)
            }
        }
    }

    /// A header names the columns; if it is not written out, the declared ones are meant.
    fn csv_columns(&self, columns: &CsvColumns) -> Result<CsvColumns, Error> {
        match columns {
            CsvColumns::Header(names) if names.is_empty() => {
                let declared = self.said.columns.columns.iter();
                let names: Vec<String> = declared.map(|column| column.name.value.clone()).collect();
                if names.is_empty() {
                    return Err(invalid("CSV WITH HEADER needs the names of the columns")
                        .with_hint("Say CSV WITH HEADER (a, b, …)."));
                }
                Ok(CsvColumns::Header(names))
            }
            other => Ok(other.clone()),
        }
    }

    fn avro(&self, source: &SchemaSource, part: Part) -> Result<Option<Read>, Error> {
        let Some(found) = self.schema(source, part, SchemaKind::Avro)? else {
            return Ok(None);
        };
        let content = match (part, self.said.envelope()) {
            (Part::Value, EnvelopeClause::Debezium) => AvroContent::Envelope,
            (Part::Value, EnvelopeClause::Materialize) => AvroContent::Updates,
            _ => AvroContent::Row,
        };
        let references: Vec<String> = found.references.into_iter().map(|(_, text)| text).collect();
        let relation =
            avro::describe(&found.text, &references, content).map_err(|e| of_format(&e))?;
        Ok(Some(Read {
            format: Format::Avro(AvroFormat {
                reader: found.text,
                references,
                registry: None,
            }),
            origin: found.origin,
            relation,
            has_names: true,
        }))
    }

    fn protobuf(
        &self,
        message: Option<&str>,
        source: &SchemaSource,
        part: Part,
    ) -> Result<Option<Read>, Error> {
        let Some(found) = self.schema(source, part, SchemaKind::Protobuf)? else {
            return Ok(None);
        };
        let framed = found.origin != SchemaOrigin::Statement;
        let framing = if framed {
            ProtobufFraming::Confluent
        } else {
            ProtobufFraming::Bare
        };
        let schema = match found.text.strip_prefix("\\x") {
            Some(digits) if !framed => {
                let bytes = hex::decode(digits)
                    .map_err(|_| invalid("invalid hexadecimal data in the schema"))?;
                ProtobufSchema::Descriptors(bytes)
            }
            _ => ProtobufSchema::Text {
                file: found.text,
                imports: found.references,
            },
        };
        let text = match &schema {
            ProtobufSchema::Text { file, imports } => ProtobufText::Text {
                schema: file,
                references: imports,
            },
            ProtobufSchema::Descriptors(bytes) => ProtobufText::Descriptors(bytes),
        };
        let decoder = ProtobufDecoder::new(text, message, framing, Limits::default())
            .map_err(|e| of_format(&e))?;
        let relation = decoder.relation().clone();
        Ok(Some(Read {
            format: Format::Protobuf(ProtobufFormat {
                schema,
                message: message.map(str::to_owned),
                framed,
            }),
            origin: found.origin,
            relation,
            has_names: true,
        }))
    }

    /// A schema, from wherever it is; `None` if the registry has none.
    fn schema(
        &self,
        source: &SchemaSource,
        part: Part,
        kind: SchemaKind,
    ) -> Result<Option<Found>, Error> {
        let (reference, strategy) = match source {
            SchemaSource::Inline(text) => {
                return Ok(Some(Found {
                    text: text.clone(),
                    references: Vec::new(),
                    origin: SchemaOrigin::Statement,
                }));
            }
            SchemaSource::Registry { .. } => strategy_of(source, part)
                .ok_or_else(|| Error::internal("a registry without a strategy"))?,
        };
        let connection = registry_of(reference, self.registry)?;
        let origin = |strategy| SchemaOrigin::Registry {
            connection,
            strategy,
        };
        let (request, strategy) = match strategy {
            Strategy::Inline(text) => {
                return Ok(Some(Found {
                    text: text.clone(),
                    references: Vec::new(),
                    origin: origin(SchemaStrategy::Inline),
                }));
            }
            Strategy::Latest => (request(strategy, self.topic, part), SchemaStrategy::Latest),
            Strategy::Id(id) => (request(strategy, self.topic, part), SchemaStrategy::Id(*id)),
        };
        let answer = self
            .schemas
            .iter()
            .find(|answer| {
                answer.registry == connection && Some(&answer.request) == request.as_ref()
            })
            .ok_or_else(|| Error::internal("a registry was not asked for a schema"))?;
        let Some(schema) = &answer.schema else {
            return Ok(None);
        };
        if schema.kind != kind {
            let name = |kind| match kind {
                SchemaKind::Avro => "Avro",
                SchemaKind::Json => "JSON Schema",
                SchemaKind::Protobuf => "Protobuf",
            };
            return Err(invalid(format!(
                "schema {} of the registry is of kind {}, not {}",
                schema.id,
                name(schema.kind),
                name(kind)
            )));
        }
        Ok(Some(Found {
            text: schema.text.clone(),
            references: schema.references.clone(),
            origin: origin(strategy),
        }))
    }

    /// The error of a schema that is needed and not there.
    fn missing(&self, clause: &FormatClause, part: Part) -> Error {
        let (FormatSyntax::Avro(source) | FormatSyntax::Protobuf { schema: source, .. }) =
            &clause.format
        else {
            return Error::internal("a format without a schema lacks one");
        };
        let request =
            strategy_of(source, part).and_then(|(_, strategy)| request(strategy, self.topic, part));
        let error = match request {
            Some(SchemaRequest::Id(id)) => {
                invalid(format!("the schema registry has no schema {id}"))
            }
            Some(SchemaRequest::Latest(subject)) => {
                invalid(format!("no schema found for subject \"{subject}\""))
                    .with_detail("The schema registry does not have the subject.")
            }
            None => Error::internal("a schema of the statement is missing"),
        };
        let error = match part {
            Part::Key if self.said.bare => error
                .with_hint("If keys are no records of a schema, say KEY FORMAT … VALUE FORMAT …."),
            _ => error,
        };
        error.at(clause.position)
    }
}

impl MessageTable {
    /// The connection items of the registries that it needs.
    pub fn registries(&self) -> impl Iterator<Item = ObjectId> {
        let of = |origin: &SchemaOrigin| match origin {
            SchemaOrigin::Registry { connection, .. } => Some(*connection),
            SchemaOrigin::Statement => None,
        };
        of(&self.key_schema)
            .into_iter()
            .chain(of(&self.value_schema))
    }

    /// What the worker is told, with how to reach the registries; `None` if one of them is missing, or is something else.
    #[must_use]
    pub fn upstream(&self, registries: &BTreeMap<ObjectId, UpstreamConnection>) -> Option<Vec<u8>> {
        let with_registry = |format: &mut Format, origin: &SchemaOrigin| {
            let SchemaOrigin::Registry { connection, .. } = origin else {
                return Some(());
            };
            let UpstreamConnection::Registry(registry) = registries.get(connection)? else {
                return None;
            };
            if let Format::Avro(avro) = format {
                avro.registry = Some(registry.clone());
            }
            Some(())
        };
        let mut table = self.table.clone();
        with_registry(&mut table.value, &self.value_schema)?;
        if let Some(key) = &mut table.key {
            with_registry(key, &self.key_schema)?;
        }
        Some(table.encode())
    }

    /// What `mz_kafka_source_tables` and `mz_sources` say of it.
    pub(crate) fn system_columns(&self) -> Vec<(&'static str, String)> {
        let envelope = match self.table.envelope {
            Envelope::None => "none",
            Envelope::Upsert => "upsert",
            Envelope::Debezium | Envelope::Cockroach => "debezium",
            Envelope::Materialize => "materialize",
        };
        let mut columns = vec![("envelope_type", envelope.to_owned())];
        columns.extend(
            self.table
                .key
                .iter()
                .map(|key| ("key_format", format_name(key).to_owned())),
        );
        columns.push(("value_format", format_name(&self.table.value).to_owned()));
        columns
    }

    /// The columns that the CREATE statement declares before `FROM`, in parentheses; empty if it declares none. `columns`, `key`: the table's.
    pub(crate) fn declaration(
        &self,
        columns: &[(&str, &SqlType)],
        key: Option<&[usize]>,
    ) -> String {
        // What the member is called in documents: INCLUDE KEY AS calls the column otherwise.
        let member = |place: usize| -> Option<String> {
            let (format, index) = match self.table.columns.get(place)? {
                KafkaColumn::Value(index) => (&self.table.value, *index),
                KafkaColumn::Key(index) => (self.table.key.as_ref()?, *index),
                KafkaColumn::Include(_) | KafkaColumn::Error => return None,
            };
            match format {
                Format::JsonColumns(members) => {
                    members.get(index).map(|(name, _)| quote_ident(name))
                }
                _ => None,
            }
        };
        let mut declared: Vec<String> = match self.declared {
            Declared::Nothing => return String::new(),
            Declared::Names => columns.iter().map(|(name, _)| quote_ident(name)).collect(),
            Declared::Members => columns
                .iter()
                .enumerate()
                .filter_map(|(place, (_, sql_type))| Some(format!("{} {sql_type}", member(place)?)))
                .collect(),
        };
        let key: Vec<String> = key
            .unwrap_or_default()
            .iter()
            .filter(|_| self.declared == Declared::Members)
            .filter_map(|place| member(*place))
            .collect();
        if !key.is_empty() {
            declared.push(format!("PRIMARY KEY ({}) NOT ENFORCED", key.join(", ")));
        }
        format!(" ({})", declared.join(", "))
    }

    /// What the CREATE statement says of messages. `columns`: the table's.
    pub(crate) fn definition(&self, name_of: NameOf<'_>, columns: &[(&str, &SqlType)]) -> String {
        let table = &self.table;
        let mut parts = Vec::new();
        let value = format_definition(&table.value, &self.value_schema, name_of);
        let own = |origin: &SchemaOrigin, word: &str| match origin {
            SchemaOrigin::Registry { strategy, .. } => {
                strategy_definition(*strategy, word, table, word == "KEY")
            }
            SchemaOrigin::Statement => String::new(),
        };
        let value_strategy = own(&self.value_schema, "VALUE");
        match &table.key {
            Some(key) if !self.bare => parts.push(format!(
                "KEY FORMAT {}{} VALUE FORMAT {value}{value_strategy}",
                format_definition(key, &self.key_schema, name_of),
                own(&self.key_schema, "KEY"),
            )),
            Some(_) => parts.push(format!(
                "FORMAT {value}{}{value_strategy}",
                own(&self.key_schema, "KEY")
            )),
            None => parts.push(format!("FORMAT {value}{value_strategy}")),
        }
        let named = |wanted: KafkaColumn| {
            let place = table.columns.iter().position(|from| *from == wanted);
            let name = place.and_then(|place| columns.get(place));
            name.map_or_else(String::new, |(name, _)| quote_ident(name))
        };
        let mut include = Vec::new();
        let has_key = table
            .columns
            .iter()
            .any(|from| matches!(from, KafkaColumn::Key(_)));
        match table.envelope {
            _ if has_key && self.key_named => {
                include.push(format!("KEY AS {}", named(KafkaColumn::Key(0))));
            }
            Envelope::None if has_key => include.push("KEY".to_owned()),
            _ => {}
        }
        for (index, what) in table.include.iter().enumerate() {
            let name = named(KafkaColumn::Include(index));
            include.push(match what {
                Include::Partition => format!("PARTITION AS {name}"),
                Include::Offset => format!("OFFSET AS {name}"),
                Include::Timestamp => format!("TIMESTAMP AS {name}"),
                Include::Headers => format!("HEADERS AS {name}"),
                Include::Header {
                    name: header,
                    bytes,
                } => {
                    let bytes = if *bytes { " BYTES" } else { "" };
                    format!("HEADER {} AS {name}{bytes}", quote_literal(header))
                }
            });
        }
        if !include.is_empty() {
            parts.push(format!("INCLUDE {}", include.join(", ")));
        }
        parts.push(format!(
            "ENVELOPE {}",
            match table.envelope {
                Envelope::None => "NONE",
                Envelope::Upsert => "UPSERT",
                Envelope::Debezium | Envelope::Cockroach => "DEBEZIUM",
                Envelope::Materialize => "MATERIALIZE",
            }
        ));
        match &table.on_decode_error {
            OnDecodeError::Row => {}
            OnDecodeError::Fail => parts.push("ON DECODE ERROR FAIL".to_owned()),
            OnDecodeError::Inline => parts.push(format!(
                "ON DECODE ERROR INLINE AS {}",
                named(KafkaColumn::Error)
            )),
            OnDecodeError::DeadLetter { topic } => parts.push(format!(
                "ON DECODE ERROR DEAD LETTER {}",
                quote_literal(topic)
            )),
        }
        parts.join(" ")
    }
}

/// What `mz_sources.value_format` calls a format.
const fn format_name(format: &Format) -> &'static str {
    match format {
        Format::Text => "text",
        Format::Bytes => "bytes",
        Format::Json | Format::JsonColumns(_) => "json",
        Format::Csv { .. } => "csv",
        Format::Regex(_) => "regex",
        Format::Avro(_) => "avro",
        Format::Protobuf(_) => "protobuf",
    }
}

fn format_definition(format: &Format, origin: &SchemaOrigin, name_of: NameOf<'_>) -> String {
    let using = |schema: &str| match origin {
        SchemaOrigin::Registry { connection, .. } => format!(
            "USING CONFLUENT SCHEMA REGISTRY CONNECTION {}",
            name_of(*connection)
        ),
        SchemaOrigin::Statement => format!("USING SCHEMA {}", quote_literal(schema)),
    };
    match format {
        Format::Text => "TEXT".to_owned(),
        Format::Bytes => "BYTES".to_owned(),
        Format::Json | Format::JsonColumns(_) => "JSON".to_owned(),
        Format::Regex(pattern) => format!("REGEX {}", quote_literal(pattern)),
        Format::Csv { columns, delimiter } => {
            let columns = match columns {
                CsvColumns::Count(count) => format!("{count} COLUMNS"),
                CsvColumns::Header(names) => {
                    let names: Vec<String> = names.iter().map(|name| quote_ident(name)).collect();
                    format!("HEADER ({})", names.join(", "))
                }
            };
            let delimiter = match delimiter {
                b',' => String::new(),
                other => format!(
                    " DELIMITED BY {}",
                    quote_literal(&char::from(*other).to_string())
                ),
            };
            format!("CSV WITH {columns}{delimiter}")
        }
        Format::Avro(avro) => format!("AVRO {}", using(&avro.reader)),
        Format::Protobuf(protobuf) => {
            let message = protobuf
                .message
                .as_ref()
                .map(|message| format!("MESSAGE {} ", quote_literal(message)));
            let schema = match &protobuf.schema {
                ProtobufSchema::Text { file, .. } => file.clone(),
                ProtobufSchema::Descriptors(bytes) => format!("\\x{}", hex::encode(bytes)),
            };
            format!("PROTOBUF {}{}", message.unwrap_or_default(), using(&schema))
        }
    }
}

/// How a strategy is said, with a blank before it; nothing for the one that is meant if nothing is said.
fn strategy_definition(
    strategy: SchemaStrategy,
    word: &str,
    table: &KafkaTable,
    of_key: bool,
) -> String {
    match strategy {
        SchemaStrategy::Latest => String::new(),
        SchemaStrategy::Id(id) => format!(" {word} STRATEGY ID {id}"),
        SchemaStrategy::Inline => {
            let format = if of_key {
                table.key.as_ref()
            } else {
                Some(&table.value)
            };
            let text = match format {
                Some(Format::Avro(avro)) => avro.reader.as_str(),
                Some(Format::Protobuf(ProtobufFormat {
                    schema: ProtobufSchema::Text { file, .. },
                    ..
                })) => file.as_str(),
                _ => "",
            };
            format!(" {word} STRATEGY INLINE {}", quote_literal(text))
        }
    }
}
