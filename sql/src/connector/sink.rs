//! Sinks: what is written to topics, from the statement to what the catalog keeps and the worker is told.
//!
//! Owns their rules: which formats and envelopes go together, which columns make keys, and that keys of upserts are unique. Must not know the catalog: the
//! relation that is written is handed in. The syntax is read in [`super::syntax`].

use std::collections::BTreeMap;

use flowstone_proto::kafka::{KafkaSink, KafkaTopic, SinkEnvelope, SinkFormat, SinkPartition};
use flowstone_proto::message::UpstreamConnection;
use flowstone_types::{InstallationId, ObjectId, SqlType};
use serde::{Deserialize, Serialize};
use sqlparser::ast::Expr;

use super::syntax::{
    ConnectionReference, DocClause, EnvelopeClause, FormatClause, FormatSyntax, SchemaPart,
    SchemaSource,
};
use super::{Connection, NameOf, kafka};
use crate::error::{Error, ErrorKind};
use crate::ident::{Ident, Name, at, quote_ident, quote_literal};

/// What values are compressed with, unless the statement says otherwise.
const COMPRESSION: &str = "lz4";
/// The full names of records, unless the statement says otherwise.
const KEY_NAME: &str = "row";
const VALUE_NAME: &str = "envelope";

/// Where a sink writes, as `CREATE SINK` says it.
#[derive(Clone, Debug, PartialEq)]
pub enum CreateSinkKind {
    /// `INTO KAFKA CONNECTION c (TOPIC 't', …)`
    Kafka(Box<NewTopicSink>),
}

/// What `CREATE SINK … INTO KAFKA` says.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTopicSink {
    /// The connection, or brokers in its place.
    pub connection: ConnectionReference,
    /// `TOPIC`
    pub topic: String,
    /// `TOPIC PARTITION COUNT`
    pub partitions: Option<i32>,
    /// `TOPIC REPLICATION FACTOR`
    pub replication: Option<i32>,
    /// `TOPIC CONFIG`
    pub settings: Vec<(String, String)>,
    /// `COMPRESSION TYPE`
    pub compression: String,
    /// `PARTITION BY`
    pub partition_by: Option<Expr>,
    /// `TRANSACTIONAL ID PREFIX`
    pub transactional_id_prefix: Option<String>,
    /// `KEY (c, …)`
    pub key: Option<Vec<Ident>>,
    /// `NOT ENFORCED`
    pub key_not_enforced: bool,
    /// `HEADERS`
    pub headers: Option<Ident>,
    /// `KEY FORMAT`; that of values if `None`.
    pub key_format: Option<FormatClause>,
    /// `FORMAT`, `VALUE FORMAT`
    pub value: Option<FormatClause>,
    /// `ENVELOPE`
    pub envelope: Option<EnvelopeClause>,
    /// `AVRO KEY FULLNAME`
    pub key_name: Option<String>,
    /// `AVRO VALUE FULLNAME`
    pub value_name: Option<String>,
    /// `KEY COMPATIBILITY LEVEL`
    pub key_compatibility: Option<String>,
    /// `VALUE COMPATIBILITY LEVEL`
    pub value_compatibility: Option<String>,
    /// `NULL DEFAULTS` of the schema of keys.
    pub key_null_defaults: bool,
    /// `NULL DEFAULTS` of the schema of values.
    pub value_null_defaults: bool,
    /// `DOC ON`
    pub docs: Vec<DocClause>,
    /// Where it begins: characters, from 1.
    pub position: usize,
}

impl NewTopicSink {
    /// One of which nothing is said but the connection.
    pub(super) fn new(connection: ConnectionReference, position: usize) -> Self {
        Self {
            connection,
            topic: String::new(),
            partitions: None,
            replication: None,
            settings: Vec::new(),
            compression: COMPRESSION.to_owned(),
            partition_by: None,
            transactional_id_prefix: None,
            key: None,
            key_not_enforced: false,
            headers: None,
            key_format: None,
            value: None,
            envelope: None,
            key_name: None,
            value_name: None,
            key_compatibility: None,
            value_compatibility: None,
            key_null_defaults: false,
            value_null_defaults: false,
            docs: Vec::new(),
            position,
        }
    }
}

/// Where a sink writes, as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SinkItemKind {
    /// A topic of Kafka.
    Kafka(Box<TopicSink>),
}

/// A topic that is written, as the catalog keeps it. Columns are places in the relation that is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSink {
    /// The connection item.
    pub connection: ObjectId,
    /// The topic.
    pub topic: String,
    /// Its partitions if it has to be made.
    pub partitions: Option<i32>,
    /// Its replicas if it has to be made.
    pub replication: Option<i32>,
    /// Other settings if it has to be made.
    pub settings: Vec<(String, String)>,
    /// How keys are written, and the columns that make them.
    pub key: Option<(SinkFormatItem, Vec<usize>)>,
    /// Whether the key was said to be unique.
    pub key_not_enforced: bool,
    /// How values are written.
    pub value: SinkFormatItem,
    /// Whether values are rows or changes of rows.
    pub is_upsert: bool,
    /// The column of headers.
    pub headers: Option<usize>,
    /// What decides on the partition.
    pub partition_by: Option<PartitionItem>,
    /// What is compressed with.
    pub compression: String,
    /// Whether what was there at the beginning is written.
    pub snapshot: bool,
    /// What the identity of the producer begins with.
    pub transactional_id_prefix: Option<String>,
}

/// What decides on the partition of a message, as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartitionItem {
    /// A column of integers.
    Column(usize),
    /// An expression over the columns of the relation, as SQL.
    Expression(String),
}

/// How a sink writes payloads, as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SinkFormatItem {
    /// JSON.
    Json,
    /// The text of the only column.
    Text,
    /// The bytes of the only column.
    Bytes,
    /// Avro.
    Avro {
        /// The connection item of the registry.
        registry: ObjectId,
        /// The full name of the record; the usual one if `None`.
        name: Option<String>,
        /// Documentation: of the record (`None`) or of the column at a place in the record, and the text.
        docs: Vec<(Option<usize>, String)>,
        /// What is set for the subject before.
        compatibility: Option<String>,
        /// Whether fields that may be null have that as their default.
        null_defaults: bool,
    },
}

/// The relation that a sink writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SinkRelation<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Names and types of its columns.
    pub(crate) columns: &'a [(&'a str, &'a SqlType)],
    /// Columns that are known to identify a row.
    pub(crate) key: Option<&'a [usize]>,
}

impl SinkRelation<'_> {
    fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(found, _)| *found == name)
    }

    fn column(&self, ident: &Ident) -> Result<usize, Error> {
        self.place(&ident.value).ok_or_else(|| {
            Error::new(
                ErrorKind::UndefinedColumn,
                format!(
                    "column \"{}\" of relation \"{}\" does not exist",
                    ident.value, self.name
                ),
            )
            .at(ident.position)
        })
    }

    fn sql_type(&self, place: usize) -> Option<&SqlType> {
        self.columns.get(place).map(|(_, sql_type)| *sql_type)
    }

    fn names(&self, places: &[usize]) -> String {
        let names = places.iter().filter_map(|place| self.columns.get(*place));
        let names: Vec<String> = names.map(|(name, _)| quote_ident(name)).collect();
        names.join(", ")
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidParameterValue, message)
}

/// What resolves the name of a connection.
type ConnectionNamed<'f, 'c> = &'f dyn Fn(&Name) -> Result<(ObjectId, &'c Connection), Error>;

impl CreateSinkKind {
    /// The connections that it names, or that stand in it themselves.
    pub(crate) fn references(&mut self) -> Vec<&mut ConnectionReference> {
        let Self::Kafka(sink) = self;
        let NewTopicSink {
            connection,
            key_format,
            value,
            ..
        } = sink.as_mut();
        let mut references = vec![connection];
        for clause in [key_format, value].into_iter().flatten() {
            references.extend(clause.format.registry_mut());
        }
        references
    }

    /// In the form of 2021 no envelope means that of Debezium. Whether it was such a statement, and is complete now.
    pub(crate) fn complete(&mut self) -> bool {
        let Self::Kafka(sink) = self;
        let is_short = matches!(sink.connection, ConnectionReference::Inline { .. })
            && sink.envelope.is_none();
        if is_short {
            sink.envelope = Some(EnvelopeClause::Debezium);
        }
        is_short
    }

    /// `PARTITION BY`
    pub(crate) fn partition_by(&self) -> Option<&Expr> {
        let Self::Kafka(sink) = self;
        sink.partition_by.as_ref()
    }

    /// The relations that `DOC ON` names.
    pub(crate) fn documented(&self) -> impl Iterator<Item = &Name> {
        let Self::Kafka(sink) = self;
        sink.docs.iter().filter_map(|doc| doc.relation.as_ref())
    }

    /// What the catalog keeps. `partition_by`: what it keeps of [`Self::partition_by`].
    ///
    /// # Errors
    /// Whatever does not go together or does not fit the relation, at the place where it is said.
    pub(crate) fn plan(
        &self,
        relation: SinkRelation<'_>,
        snapshot: bool,
        partition_by: Option<PartitionItem>,
        connection: ConnectionNamed<'_, '_>,
    ) -> Result<SinkItemKind, Error> {
        let Self::Kafka(sink) = self;
        let planned = sink.plan(relation, snapshot, partition_by, connection)?;
        Ok(SinkItemKind::Kafka(Box::new(planned)))
    }
}

impl NewTopicSink {
    fn plan(
        &self,
        relation: SinkRelation<'_>,
        snapshot: bool,
        partition_by: Option<PartitionItem>,
        connection: ConnectionNamed<'_, '_>,
    ) -> Result<TopicSink, Error> {
        let name = self
            .connection
            .name()
            .ok_or_else(|| Error::internal("brokers in a statement are not a connection yet"))?;
        let (connection_id, Connection::Kafka(_)) = connection(name)? else {
            return Err(kafka::not_kafka(&self.connection));
        };
        let is_upsert = match &self.envelope {
            Some(EnvelopeClause::Upsert {
                inline_errors: Some(_),
            }) => {
                return Err(
                    Error::unsupported("VALUE DECODING ERRORS of a sink is not supported")
                        .at(self.position),
                );
            }
            Some(EnvelopeClause::Upsert {
                inline_errors: None,
            }) => true,
            Some(EnvelopeClause::Debezium) => false,
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "ENVELOPE {} of a sink is not supported",
                    other.keyword()
                ))
                .with_hint("Say ENVELOPE UPSERT or ENVELOPE DEBEZIUM.")
                .at(self.position));
            }
            None => {
                return Err(Error::syntax("ENVELOPE is required")
                    .with_hint("Say ENVELOPE UPSERT or ENVELOPE DEBEZIUM.")
                    .at(self.position));
            }
        };
        let value_clause = self
            .value
            .as_ref()
            .ok_or_else(|| Error::internal("a sink without a format"))?;
        let key_columns = self.key_columns(relation)?;
        let every: Vec<usize> = (0..relation.columns.len()).collect();
        let value = self.format(
            value_clause,
            SchemaPart::Value,
            relation,
            &every,
            connection,
        )?;
        let is_plain = matches!(value, SinkFormatItem::Text | SinkFormatItem::Bytes);
        if !is_upsert && is_plain {
            return Err(Error::unsupported(format!(
                "ENVELOPE DEBEZIUM with VALUE FORMAT {} is not supported",
                value_clause.format.keyword()
            ))
            .at(value_clause.position));
        }
        let key = match key_columns {
            Some(columns) => {
                let clause = self.key_format.as_ref().unwrap_or(value_clause);
                let format =
                    self.format(clause, SchemaPart::Key, relation, &columns, connection)?;
                Some((format, columns))
            }
            None if self.key_format.is_some() => {
                return Err(invalid("KEY FORMAT needs a KEY").at(self.position));
            }
            None => None,
        };
        let planned = TopicSink {
            connection: connection_id,
            topic: self.topic.clone(),
            partitions: self.partitions,
            replication: self.replication,
            settings: self.settings.clone(),
            key,
            key_not_enforced: self.key_not_enforced,
            value,
            is_upsert,
            headers: self
                .headers
                .as_ref()
                .map(|c| relation.column(c))
                .transpose()?,
            partition_by,
            compression: self.compression.clone(),
            snapshot,
            transactional_id_prefix: self.transactional_id_prefix.clone(),
        };
        planned
            .check(relation)
            .map_err(|error| error.at(self.position))?;
        Ok(planned)
    }

    fn key_columns(&self, relation: SinkRelation<'_>) -> Result<Option<Vec<usize>>, Error> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let mut places = Vec::new();
        for ident in key {
            let place = relation.column(ident)?;
            if places.contains(&place) {
                let message = format!("column \"{}\" specified more than once", ident.value);
                return Err(Error::new(ErrorKind::DuplicateColumn, message).at(ident.position));
            }
            places.push(place);
        }
        Ok(Some(places))
    }

    /// A format for these columns of the relation.
    fn format(
        &self,
        clause: &FormatClause,
        part: SchemaPart,
        relation: SinkRelation<'_>,
        columns: &[usize],
        connection: ConnectionNamed<'_, '_>,
    ) -> Result<SinkFormatItem, Error> {
        Ok(match &clause.format {
            FormatSyntax::Json => SinkFormatItem::Json,
            FormatSyntax::Text => SinkFormatItem::Text,
            FormatSyntax::Bytes => SinkFormatItem::Bytes,
            FormatSyntax::Avro(SchemaSource::Registry { registry, .. }) => {
                let name = registry.name().ok_or_else(|| {
                    Error::internal("the URL of a registry is not a connection yet")
                })?;
                let (registry, found) = connection(name)?;
                if !found.is_registry() {
                    return Err(not_registry(name));
                }
                let (name, compatibility, null_defaults) = match part {
                    SchemaPart::Key => (
                        &self.key_name,
                        &self.key_compatibility,
                        self.key_null_defaults,
                    ),
                    SchemaPart::Value | SchemaPart::Both => (
                        &self.value_name,
                        &self.value_compatibility,
                        self.value_null_defaults,
                    ),
                };
                SinkFormatItem::Avro {
                    registry,
                    name: name.clone(),
                    docs: self.docs_of(part, relation, columns)?,
                    compatibility: compatibility.clone(),
                    null_defaults,
                }
            }
            _ => return Err(Error::internal("a format that sinks do not have")),
        })
    }

    /// Documentation that is said of a schema. What is said of both is passed over where a column is not in the record.
    fn docs_of(
        &self,
        part: SchemaPart,
        relation: SinkRelation<'_>,
        columns: &[usize],
    ) -> Result<Vec<(Option<usize>, String)>, Error> {
        let mut docs: Vec<(Option<usize>, String)> = Vec::new();
        for doc in &self.docs {
            if doc.part != part && doc.part != SchemaPart::Both {
                continue;
            }
            let mut place = None;
            if let Some(column) = &doc.column {
                let column = relation.column(column)?;
                place = columns.iter().position(|found| *found == column);
                if place.is_none() {
                    continue;
                }
            }
            // What is said of one schema goes before what is said of both.
            if doc.part != SchemaPart::Both {
                docs.retain(|(known, _)| *known != place);
            } else if docs.iter().any(|(known, _)| *known == place) {
                continue;
            }
            docs.push((place, doc.text.clone()));
        }
        Ok(docs)
    }
}

/// The error of a connection that is not one to a registry.
pub(crate) fn not_registry(name: &Name) -> Error {
    let message = format!(
        "\"{}\" is not a connection to a schema registry",
        name.item()
    );
    at(Error::new(ErrorKind::WrongObjectType, message), name)
}

impl TopicSink {
    /// Whether it fits the relation that it writes.
    fn check(&self, relation: SinkRelation<'_>) -> Result<(), Error> {
        let single = |format: &SinkFormatItem, columns: &[usize], what: &str| {
            let (name, bytes) = match format {
                SinkFormatItem::Text => ("TEXT", false),
                SinkFormatItem::Bytes => ("BYTES", true),
                SinkFormatItem::Json | SinkFormatItem::Avro { .. } => return Ok(()),
            };
            let [place] = columns else {
                return Err(invalid(format!(
                    "{what} FORMAT {name} needs exactly one column, and there are {}",
                    columns.len()
                )));
            };
            let sql_type = relation.sql_type(*place);
            if bytes && sql_type.is_some_and(|found| *found != SqlType::Bytea) {
                return Err(Error::new(
                    ErrorKind::DatatypeMismatch,
                    format!("{what} FORMAT BYTES needs a column of type bytea"),
                ));
            }
            Ok(())
        };
        let every: Vec<usize> = (0..relation.columns.len()).collect();
        single(&self.value, &every, "VALUE")?;
        if let Some((format, columns)) = &self.key {
            single(format, columns, "KEY")?;
        }
        if self.is_upsert {
            self.check_upsert(relation)?;
        }
        if let Some(place) = self.headers {
            if !self.is_upsert {
                return Err(Error::unsupported("HEADERS needs ENVELOPE UPSERT"));
            }
            if relation.sql_type(place) != Some(&SqlType::Jsonb) {
                return Err(Error::new(
                    ErrorKind::DatatypeMismatch,
                    "HEADERS column must be of type jsonb",
                )
                .with_hint("Make it an object whose members are the headers."));
            }
        }
        Ok(())
    }

    /// A key that is not unique would make one row of several.
    fn check_upsert(&self, relation: SinkRelation<'_>) -> Result<(), Error> {
        let Some((_, key)) = &self.key else {
            return Err(invalid("upsert sinks must specify a key")
                .with_hint("Say KEY and the columns that identify a row."));
        };
        let is_unique = relation
            .key
            .is_some_and(|known| known.iter().all(|column| key.contains(column)));
        if is_unique || self.key_not_enforced {
            return Ok(());
        }
        let known = match relation.key {
            Some(known) => format!(
                "Known to be unique in \"{}\": ({}).",
                relation.name,
                relation.names(known)
            ),
            None => format!("No key of \"{}\" is known.", relation.name),
        };
        Err(invalid("upsert key could not be validated as unique")
            .with_detail(format!(
                "It could not be shown that ({}) identifies a row. {known}",
                relation.names(key)
            ))
            .with_hint("If you know that it does, say KEY (…) NOT ENFORCED."))
    }

    /// The same for a relation with columns of the same names.
    fn moved(&self, old: SinkRelation<'_>, new: SinkRelation<'_>) -> Result<Self, Error> {
        let place = |place: usize| {
            let (name, sql_type) = old
                .columns
                .get(place)
                .ok_or_else(|| Error::internal("a sink names a column that is not there"))?;
            let found = new.place(name).ok_or_else(|| {
                Error::new(
                    ErrorKind::UndefinedColumn,
                    format!(
                        "column \"{name}\" of relation \"{}\" does not exist",
                        new.name
                    ),
                )
                .with_detail("The sink needs it.")
            })?;
            if new.sql_type(found) != Some(*sql_type) {
                let message = format!("column \"{name}\" of \"{}\" has another type", new.name);
                return Err(Error::new(ErrorKind::DatatypeMismatch, message)
                    .with_detail(format!("The sink needs it to be of type {sql_type}.")));
            }
            Ok(found)
        };
        let key = match &self.key {
            Some((format, columns)) => {
                let columns: Result<Vec<usize>, Error> =
                    columns.iter().map(|column| place(*column)).collect();
                Some((format.clone(), columns?))
            }
            None => None,
        };
        let mut value = self.value.clone();
        if let SinkFormatItem::Avro { docs, .. } = &mut value {
            // What was said of a column that is gone has nothing to be said of.
            docs.retain_mut(|(column, _)| match column {
                None => true,
                Some(at) => match place(*at) {
                    Ok(found) => {
                        *at = found;
                        true
                    }
                    Err(_) => false,
                },
            });
        }
        let moved = Self {
            key,
            value,
            headers: self.headers.map(place).transpose()?,
            partition_by: match &self.partition_by {
                Some(PartitionItem::Column(column)) => Some(PartitionItem::Column(place(*column)?)),
                other => other.clone(),
            },
            ..self.clone()
        };
        moved.check(new)?;
        Ok(moved)
    }
}

impl SinkItemKind {
    /// The connection item that it writes through.
    #[must_use]
    pub fn connection(&self) -> ObjectId {
        let Self::Kafka(sink) = self;
        sink.connection
    }

    /// The connection items of the registries that it needs.
    pub fn registries(&self) -> impl Iterator<Item = ObjectId> {
        let Self::Kafka(sink) = self;
        let of = |format: &SinkFormatItem| match format {
            SinkFormatItem::Avro { registry, .. } => Some(*registry),
            SinkFormatItem::Json | SinkFormatItem::Text | SinkFormatItem::Bytes => None,
        };
        let key = sink.key.as_ref().and_then(|(format, _)| of(format));
        key.into_iter().chain(of(&sink.value))
    }

    /// The expression that decides on partitions, if it is more than a column: what it means has to be planned.
    #[must_use]
    pub fn partition_expression(&self) -> Option<&str> {
        let Self::Kafka(sink) = self;
        match &sink.partition_by {
            Some(PartitionItem::Expression(text)) => Some(text),
            Some(PartitionItem::Column(_)) | None => None,
        }
    }

    /// The same for another relation: `ALTER SINK … SET FROM`.
    pub(crate) fn moved(
        &self,
        old: SinkRelation<'_>,
        new: SinkRelation<'_>,
    ) -> Result<Self, Error> {
        let Self::Kafka(sink) = self;
        Ok(Self::Kafka(Box::new(sink.moved(old, new)?)))
    }

    /// What the worker is told; `None` if a connection is missing, or is one to something else. `partition`: what [`Self::partition_expression`] means.
    #[must_use]
    pub fn upstream(
        &self,
        connections: &BTreeMap<ObjectId, UpstreamConnection>,
        partition: Option<SinkPartition>,
        installation: InstallationId,
    ) -> Option<KafkaSink> {
        let Self::Kafka(sink) = self;
        let UpstreamConnection::Kafka(connection) = connections.get(&sink.connection)? else {
            return None;
        };
        let mut connection = connection.clone();
        connection
            .progress_topic
            .get_or_insert_with(|| kafka::progress_topic(installation, sink.connection));
        let format = |format: &SinkFormatItem, usual: &str| {
            Some(match format {
                SinkFormatItem::Json => SinkFormat::Json,
                SinkFormatItem::Text => SinkFormat::Text,
                SinkFormatItem::Bytes => SinkFormat::Bytes,
                SinkFormatItem::Avro {
                    registry,
                    name,
                    docs,
                    compatibility,
                    null_defaults,
                } => {
                    let UpstreamConnection::Registry(registry) = connections.get(registry)? else {
                        return None;
                    };
                    SinkFormat::Avro {
                        registry: Box::new(registry.clone()),
                        name: name.clone().unwrap_or_else(|| usual.to_owned()),
                        docs: docs.clone(),
                        compatibility: compatibility.clone(),
                        null_defaults: *null_defaults,
                    }
                }
            })
        };
        Some(KafkaSink {
            connection,
            topic: KafkaTopic {
                name: sink.topic.clone(),
                partitions: sink.partitions,
                replication: sink.replication,
                settings: sink.settings.clone(),
            },
            key: match &sink.key {
                Some((of_key, columns)) => Some((format(of_key, KEY_NAME)?, columns.clone())),
                None => None,
            },
            value: format(&sink.value, VALUE_NAME)?,
            envelope: if sink.is_upsert {
                SinkEnvelope::Upsert
            } else {
                SinkEnvelope::Debezium
            },
            headers: sink.headers,
            partition_by: match &sink.partition_by {
                Some(PartitionItem::Column(place)) => Some(SinkPartition::Column(*place)),
                Some(PartitionItem::Expression(_)) => Some(partition?),
                None => None,
            },
            compression: sink.compression.clone(),
            snapshot: sink.snapshot,
            transactional_id_prefix: sink.transactional_id_prefix.clone(),
            installation,
        })
    }

    /// `mz_sinks.type`.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "kafka",
        }
    }

    /// What `relation` says of it, its id aside; `None` if it does not list it. Of `mz_sinks`: what is not said of every sink.
    pub(crate) fn system_columns(&self, relation: &str) -> Option<Vec<(&'static str, String)>> {
        let Self::Kafka(sink) = self;
        let name = |format: &SinkFormatItem| {
            match format {
                SinkFormatItem::Json => "json",
                SinkFormatItem::Text => "text",
                SinkFormatItem::Bytes => "bytes",
                SinkFormatItem::Avro { .. } => "avro",
            }
            .to_owned()
        };
        match relation {
            "mz_kafka_sinks" => Some(vec![("topic", sink.topic.clone())]),
            "mz_sinks" => {
                let envelope = if sink.is_upsert { "upsert" } else { "debezium" };
                let value = name(&sink.value);
                let mut columns = vec![("envelope_type", envelope.to_owned())];
                let mut whole = value.clone();
                if let Some((format, _)) = &sink.key {
                    let key = name(format);
                    if key != value {
                        whole = format!("key-{key}-value-{value}");
                    }
                    columns.push(("key_format", key));
                }
                columns.push(("format", whole));
                columns.push(("value_format", value));
                Some(columns)
            }
            _ => None,
        }
    }

    /// What stands behind `INTO` in its CREATE statement. `columns`: the relation's.
    pub(crate) fn definition(&self, name_of: NameOf<'_>, columns: &[&str], from: &str) -> String {
        let Self::Kafka(sink) = self;
        let column = |place: usize| {
            let name = columns.get(place);
            name.map_or_else(String::new, |name| quote_ident(name))
        };
        let mut options = vec![format!("TOPIC = {}", quote_literal(&sink.topic))];
        if let Some(count) = sink.partitions {
            options.push(format!("TOPIC PARTITION COUNT = {count}"));
        }
        if let Some(count) = sink.replication {
            options.push(format!("TOPIC REPLICATION FACTOR = {count}"));
        }
        if !sink.settings.is_empty() {
            let entry = |(key, value): &(String, String)| {
                format!("{} => {}", quote_literal(key), quote_literal(value))
            };
            let entries: Vec<String> = sink.settings.iter().map(entry).collect();
            options.push(format!("TOPIC CONFIG MAP[{}]", entries.join(", ")));
        }
        if sink.compression != COMPRESSION {
            options.push(format!("COMPRESSION TYPE = '{}'", sink.compression));
        }
        match &sink.partition_by {
            Some(PartitionItem::Column(place)) => {
                options.push(format!("PARTITION BY = {}", column(*place)));
            }
            Some(PartitionItem::Expression(text)) => {
                options.push(format!("PARTITION BY = {text}"));
            }
            None => {}
        }
        if let Some(prefix) = &sink.transactional_id_prefix {
            options.push(format!(
                "TRANSACTIONAL ID PREFIX = {}",
                quote_literal(prefix)
            ));
        }
        let mut text = format!(
            "KAFKA CONNECTION {} ({})",
            name_of(sink.connection),
            options.join(", ")
        );
        if let Some((_, key)) = &sink.key {
            let names: Vec<String> = key.iter().map(|place| column(*place)).collect();
            text.push_str(&format!(" KEY ({})", names.join(", ")));
            if sink.key_not_enforced {
                text.push_str(" NOT ENFORCED");
            }
        }
        if let Some(place) = sink.headers {
            text.push_str(&format!(" HEADERS {}", column(place)));
        }
        let every: Vec<usize> = (0..columns.len()).collect();
        let format = |format: &SinkFormatItem, part: &str, record: &[usize]| {
            format_definition(format, part, name_of, from, &|place: usize| {
                record
                    .get(place)
                    .map_or_else(String::new, |place| column(*place))
            })
        };
        match &sink.key {
            Some((key, record)) => text.push_str(&format!(
                " KEY FORMAT {} VALUE FORMAT {}",
                format(key, "KEY", record),
                format(&sink.value, "VALUE", &every)
            )),
            None => text.push_str(&format!(" FORMAT {}", format(&sink.value, "VALUE", &every))),
        }
        text.push_str(if sink.is_upsert {
            " ENVELOPE UPSERT"
        } else {
            " ENVELOPE DEBEZIUM"
        });
        if !sink.snapshot {
            text.push_str(" WITH (SNAPSHOT = false)");
        }
        text
    }
}

fn format_definition(
    format: &SinkFormatItem,
    part: &str,
    name_of: NameOf<'_>,
    from: &str,
    column: &dyn Fn(usize) -> String,
) -> String {
    let SinkFormatItem::Avro {
        registry,
        name,
        docs,
        compatibility,
        null_defaults,
    } = format
    else {
        return match format {
            SinkFormatItem::Json => "JSON",
            SinkFormatItem::Text => "TEXT",
            SinkFormatItem::Bytes | SinkFormatItem::Avro { .. } => "BYTES",
        }
        .to_owned();
    };
    let mut options = Vec::new();
    if let Some(name) = name {
        options.push(format!("AVRO {part} FULLNAME = {}", quote_literal(name)));
    }
    if *null_defaults {
        options.push("NULL DEFAULTS = true".to_owned());
    }
    for (of, doc) in docs {
        let doc = quote_literal(doc);
        options.push(match of {
            None => format!("{part} DOC ON TYPE {from} = {doc}"),
            Some(place) => format!("{part} DOC ON COLUMN {} = {doc}", column(*place)),
        });
    }
    if let Some(level) = compatibility {
        options.push(format!("{part} COMPATIBILITY LEVEL = '{level}'"));
    }
    let options = if options.is_empty() {
        String::new()
    } else {
        format!(" ({})", options.join(", "))
    };
    format!(
        "AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION {}{options}",
        name_of(*registry)
    )
}
