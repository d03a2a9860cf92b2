//! What statements say of messages and of what is written to topics: formats, envelopes, columns beside them.
//!
//! Owns the syntax trees and how they are read. Must not know the catalog or registries: names are as written. What it comes to is planned by
//! [`super::messages`] and [`super::sink`](mod@super::sink).

use flowstone_proto::kafka::CsvColumns;
use flowstone_types::SqlType;

use super::sink::{CreateSinkKind, NewTopicSink};
use super::{
    ConnectionKind, ConnectionOption, ConnectionOptionName, OptionReader, given_twice,
    invalid_option, kafka, option_out_of, text_value, topic_name,
};
use crate::error::{Error, ErrorKind};
use crate::ident::{Ident, Name, OptionValue};

/// A connection that a statement names, or what stands in its place in the form that statements had before there were connections.
#[derive(Clone, Debug, PartialEq)]
pub enum ConnectionReference {
    /// `CONNECTION c`
    Named(Name),
    /// `BROKER '…'`, or the URL of a registry: a connection is made of it.
    Inline {
        /// What it connects to.
        kind: ConnectionKind,
        /// Its options.
        options: Vec<ConnectionOption>,
        /// Where it is written: characters, from 1.
        position: usize,
    },
}

impl ConnectionReference {
    /// The name; `None` if there is none yet.
    #[must_use]
    pub const fn name(&self) -> Option<&Name> {
        match self {
            Self::Named(name) => Some(name),
            Self::Inline { .. } => None,
        }
    }
}

/// Columns that are declared before `FROM`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeclaredColumns {
    /// The columns; none if nothing is declared.
    pub columns: Vec<DeclaredColumn>,
    /// `PRIMARY KEY (c, …) NOT ENFORCED`
    pub primary_key: Vec<Ident>,
    /// Where the list is: characters, from 1.
    pub position: usize,
}

/// A declared column: another name for one that there is, or with a type the member of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredColumn {
    /// Its name.
    pub name: Ident,
    /// Its type.
    pub sql_type: Option<SqlType>,
}

/// What is declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Declared {
    /// Nothing.
    #[default]
    Nothing,
    /// Names for all columns.
    Names,
    /// Members of documents, with their types.
    Members,
}

/// What a statement says of the messages of a topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Messages {
    /// Declared columns.
    pub columns: DeclaredColumns,
    /// `KEY FORMAT`
    pub key: Option<FormatClause>,
    /// `VALUE FORMAT`, or `FORMAT`, which is that of both.
    pub value: Option<FormatClause>,
    /// Whether it was said as `FORMAT`.
    pub bare: bool,
    /// `INCLUDE`
    pub include: Vec<IncludeClause>,
    /// `ENVELOPE`
    pub envelope: Option<EnvelopeClause>,
    /// `ON DECODE ERROR`
    pub on_decode_error: Option<OnDecodeErrorClause>,
    /// Where it begins: characters, from 1.
    pub position: usize,
}

impl Messages {
    /// The registries that it names, or that stand in it themselves.
    pub(crate) fn references(&mut self) -> Vec<&mut ConnectionReference> {
        [&mut self.key, &mut self.value]
            .into_iter()
            .flatten()
            .filter_map(|clause| clause.format.registry_mut())
            .collect()
    }
}

/// A format.
#[derive(Clone, Debug, PartialEq)]
pub struct FormatClause {
    /// Which.
    pub format: FormatSyntax,
    /// Where it is written: characters, from 1.
    pub position: usize,
}

/// The formats.
#[derive(Clone, Debug, PartialEq)]
pub enum FormatSyntax {
    /// `TEXT`
    Text,
    /// `BYTES`
    Bytes,
    /// `JSON`
    Json,
    /// `REGEX 'pattern'`
    Regex(String),
    /// `CSV WITH n COLUMNS`, `CSV WITH HEADER (a, …)`
    Csv {
        /// The columns; none are named by `HEADER` alone, which takes the declared ones.
        columns: CsvColumns,
        /// `DELIMITED BY`
        delimiter: char,
    },
    /// `AVRO USING …`
    Avro(SchemaSource),
    /// `PROTOBUF [MESSAGE 'm'] USING …`
    Protobuf {
        /// The full name of the message.
        message: Option<String>,
        /// Its schema.
        schema: SchemaSource,
    },
}

impl FormatSyntax {
    /// The words that name it in messages.
    #[must_use]
    pub const fn keyword(&self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Bytes => "BYTES",
            Self::Json => "JSON",
            Self::Regex(_) => "REGEX",
            Self::Csv { .. } => "CSV",
            Self::Avro(_) => "AVRO",
            Self::Protobuf { .. } => "PROTOBUF",
        }
    }

    pub(super) fn registry_mut(&mut self) -> Option<&mut ConnectionReference> {
        match self {
            Self::Avro(SchemaSource::Registry { registry, .. })
            | Self::Protobuf {
                schema: SchemaSource::Registry { registry, .. },
                ..
            } => Some(registry),
            _ => None,
        }
    }

    /// Whether keys and values have a schema each in a registry, so that one clause says the format of both.
    #[must_use]
    pub const fn has_registry(&self) -> bool {
        matches!(
            self,
            Self::Avro(SchemaSource::Registry { .. })
                | Self::Protobuf {
                    schema: SchemaSource::Registry { .. },
                    ..
                }
        )
    }
}

/// Where schemas come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SchemaSource {
    /// `USING CONFLUENT SCHEMA REGISTRY CONNECTION c`
    Registry {
        /// The registry.
        registry: ConnectionReference,
        /// `KEY STRATEGY`
        key: Strategy,
        /// `VALUE STRATEGY`
        value: Strategy,
    },
    /// `USING SCHEMA '…'`
    Inline(String),
}

/// Which schema of a registry is read with.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Strategy {
    /// `LATEST`: the newest of the subject, as of now.
    #[default]
    Latest,
    /// `ID n`
    Id(u32),
    /// `INLINE '…'`
    Inline(String),
}

/// A column that is included.
#[derive(Clone, Debug, PartialEq)]
pub struct IncludeClause {
    /// What.
    pub kind: IncludeKind,
    /// `AS`
    pub alias: Option<Ident>,
    /// Where it is written: characters, from 1.
    pub position: usize,
}

/// What can be included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncludeKind {
    /// `KEY`
    Key,
    /// `PARTITION`
    Partition,
    /// `OFFSET`
    Offset,
    /// `TIMESTAMP`
    Timestamp,
    /// `HEADERS`
    Headers,
    /// `HEADER 'k' AS n [BYTES]`
    Header {
        /// Its name.
        name: String,
        /// `BYTES`
        bytes: bool,
    },
}

/// An envelope, as a statement says it.
#[derive(Clone, Debug, PartialEq)]
pub enum EnvelopeClause {
    /// `NONE`
    None,
    /// `UPSERT [(VALUE DECODING ERRORS = INLINE [AS n])]`
    Upsert {
        /// Whether errors are values, and what their column is called.
        inline_errors: Option<Option<Ident>>,
    },
    /// `DEBEZIUM`
    Debezium,
    /// `MATERIALIZE`
    Materialize,
}

impl EnvelopeClause {
    /// The word.
    #[must_use]
    pub const fn keyword(&self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Upsert { .. } => "UPSERT",
            Self::Debezium => "DEBEZIUM",
            Self::Materialize => "MATERIALIZE",
        }
    }
}

/// `ON DECODE ERROR`
#[derive(Clone, Debug, PartialEq)]
pub enum OnDecodeErrorClause {
    /// `ROW`
    Row,
    /// `FAIL`
    Fail,
    /// `INLINE [AS n]`, `NULL`
    Inline(Option<Ident>),
    /// `DEAD LETTER 'topic'`
    DeadLetter(String),
}

/// `(a, b, …)`, `(a type, …, PRIMARY KEY (a) NOT ENFORCED)`: columns before `FROM`.
pub(crate) fn declared_columns<R: OptionReader>(c: &mut R) -> Result<DeclaredColumns, Error> {
    let mut declared = DeclaredColumns {
        position: c.position(),
        ..DeclaredColumns::default()
    };
    let columns = c.parenthesized(|c| {
        if c.take(&["PRIMARY", "KEY"]) {
            let key = c.parenthesized(|c| c.ident("a column name"))?;
            c.expect(&["NOT", "ENFORCED"])?;
            return Ok(Err(key));
        }
        let name = c.ident("a column name")?;
        let sql_type = if c.ends_item() {
            None
        } else {
            Some(c.sql_type()?)
        };
        if c.peek_words(&["NOT", "NULL"]) {
            return Err(
                Error::unsupported("NOT NULL of a column of messages is not supported")
                    .at(c.position()),
            );
        }
        Ok(Ok(DeclaredColumn { name, sql_type }))
    })?;
    for column in columns {
        match column {
            Ok(column) => declared.columns.push(column),
            Err(key) => declared.primary_key.extend(key),
        }
    }
    Ok(declared)
}

/// Formats, columns and the envelope of messages; `None` if nothing of it is said.
pub(crate) fn messages<R: OptionReader>(
    c: &mut R,
    columns: DeclaredColumns,
) -> Result<Option<Messages>, Error> {
    let mut said = Messages {
        position: c.position(),
        ..Messages::default()
    };
    let mut any = false;
    if c.take(&["FORMAT"]) {
        said.bare = true;
        said.value = Some(format(c)?);
        any = true;
    } else if c.take(&["KEY", "FORMAT"]) {
        said.key = Some(format(c)?);
        c.expect(&["VALUE", "FORMAT"])?;
        said.value = Some(format(c)?);
        any = true;
    }
    loop {
        let position = c.position();
        if c.take(&["INCLUDE"]) {
            loop {
                said.include.push(include(c)?);
                if !c.take_comma() {
                    break;
                }
            }
        } else if c.take(&["ENVELOPE"]) {
            if said.envelope.replace(envelope(c)?).is_some() {
                return Err(Error::syntax("ENVELOPE specified more than once").at(position));
            }
        } else if c.take(&["ON", "DECODE", "ERROR"]) {
            if said.on_decode_error.replace(on_decode_error(c)?).is_some() {
                return Err(Error::syntax("ON DECODE ERROR specified more than once").at(position));
            }
        } else {
            break;
        }
        any = true;
    }
    if !any {
        return if columns.columns.is_empty() && columns.primary_key.is_empty() {
            Ok(None)
        } else {
            Err(Error::syntax("columns are declared, but no FORMAT").at(columns.position))
        };
    }
    said.columns = columns;
    Ok(Some(said))
}

fn include<R: OptionReader>(c: &mut R) -> Result<IncludeClause, Error> {
    let position = c.position();
    let kind = if c.take(&["KEY"]) {
        IncludeKind::Key
    } else if c.take(&["PARTITION"]) {
        IncludeKind::Partition
    } else if c.take(&["OFFSET"]) {
        IncludeKind::Offset
    } else if c.take(&["TIMESTAMP"]) {
        IncludeKind::Timestamp
    } else if c.take(&["HEADERS"]) {
        IncludeKind::Headers
    } else if c.take(&["HEADER"]) {
        IncludeKind::Header {
            name: c.string("the name of a header")?,
            bytes: false,
        }
    } else {
        return Err(c.error("KEY, PARTITION, OFFSET, TIMESTAMP, HEADERS or HEADER"));
    };
    let mut clause = IncludeClause {
        kind,
        alias: None,
        position,
    };
    // BYTES may stand before the name or behind it.
    let before = bytes(c, &clause.kind);
    if c.take(&["AS"]) {
        clause.alias = Some(c.ident("a column name")?);
    }
    let behind = bytes(c, &clause.kind);
    if let IncludeKind::Header { bytes, .. } = &mut clause.kind {
        *bytes = before || behind;
        if clause.alias.is_none() {
            return Err(c.error("AS"));
        }
    }
    Ok(clause)
}

fn bytes<R: OptionReader>(c: &mut R, kind: &IncludeKind) -> bool {
    matches!(kind, IncludeKind::Header { .. }) && c.take(&["BYTES"])
}

fn envelope<R: OptionReader>(c: &mut R) -> Result<EnvelopeClause, Error> {
    if c.take(&["NONE"]) {
        return Ok(EnvelopeClause::None);
    }
    if c.take(&["DEBEZIUM"]) {
        // A word of earlier releases, which says what is done anyway.
        c.take(&["UPSERT"]);
        return Ok(EnvelopeClause::Debezium);
    }
    if c.take(&["MATERIALIZE"]) {
        return Ok(EnvelopeClause::Materialize);
    }
    if !c.take(&["UPSERT"]) {
        return Err(c.error("NONE, UPSERT, DEBEZIUM or MATERIALIZE"));
    }
    let mut inline_errors = None;
    if c.peek_list() {
        let found = c.parenthesized(|c| {
            c.expect(&["VALUE", "DECODING", "ERRORS"])?;
            c.take_equals();
            let found = if c.peek_list() {
                c.parenthesized(inline)?.into_iter().next().flatten()
            } else {
                inline(c)?
            };
            Ok(found)
        })?;
        inline_errors = found.into_iter().next();
    }
    Ok(EnvelopeClause::Upsert { inline_errors })
}

/// `INLINE [AS n]`
fn inline<R: OptionReader>(c: &mut R) -> Result<Option<Ident>, Error> {
    c.expect(&["INLINE"])?;
    if c.take(&["AS"]) {
        c.ident("a column name").map(Some)
    } else {
        Ok(None)
    }
}

fn on_decode_error<R: OptionReader>(c: &mut R) -> Result<OnDecodeErrorClause, Error> {
    c.take_equals();
    if c.take(&["ROW"]) {
        Ok(OnDecodeErrorClause::Row)
    } else if c.take(&["FAIL"]) {
        Ok(OnDecodeErrorClause::Fail)
    } else if c.peek_words(&["INLINE"]) {
        inline(c).map(OnDecodeErrorClause::Inline)
    } else if c.take(&["NULL"]) {
        // What the columns of the value are. It is kept as what says why, too.
        Ok(OnDecodeErrorClause::Inline(None))
    } else if c.take(&["DEAD", "LETTER"]) {
        c.take(&["TOPIC"]);
        c.string("a topic").map(OnDecodeErrorClause::DeadLetter)
    } else {
        Err(c.error("ROW, FAIL, INLINE, NULL or DEAD LETTER"))
    }
}

/// A format of which nothing more is to be said, if one comes next.
fn plain_format<R: OptionReader>(c: &mut R) -> Option<FormatSyntax> {
    let known = [FormatSyntax::Text, FormatSyntax::Bytes, FormatSyntax::Json];
    known.into_iter().find(|format| c.take(&[format.keyword()]))
}

/// A format, behind its keyword.
fn format<R: OptionReader>(c: &mut R) -> Result<FormatClause, Error> {
    let position = c.position();
    let format = if let Some(plain) = plain_format(c) {
        if plain == FormatSyntax::Json && c.peek_words(&["USING"]) {
            return Err(
                Error::unsupported("FORMAT JSON USING a schema is not supported")
                    .with_hint("Declare the columns before FROM: they are members of the messages.")
                    .at(c.position()),
            );
        }
        plain
    } else if c.take(&["REGEX"]) {
        FormatSyntax::Regex(c.string("a regular expression")?)
    } else if c.take(&["CSV"]) {
        csv(c)?
    } else if c.take(&["AVRO"]) {
        c.expect(&["USING"])?;
        FormatSyntax::Avro(avro_schema(c)?)
    } else if c.take(&["PROTOBUF"]) {
        let message = if c.take(&["MESSAGE"]) {
            Some(c.string("the name of a message")?)
        } else {
            None
        };
        c.expect(&["USING"])?;
        FormatSyntax::Protobuf {
            message,
            schema: schema(c)?,
        }
    } else {
        return Err(c.error("TEXT, BYTES, JSON, CSV, REGEX, AVRO or PROTOBUF"));
    };
    Ok(FormatClause { format, position })
}

fn csv<R: OptionReader>(c: &mut R) -> Result<FormatSyntax, Error> {
    c.expect(&["WITH"])?;
    let columns = if c.take(&["HEADER"]) {
        let names = if c.peek_list() {
            c.parenthesized(|c| c.ident("a column name"))?
        } else {
            Vec::new()
        };
        CsvColumns::Header(names.into_iter().map(|name| name.value).collect())
    } else {
        let position = c.position();
        let count = c.unsigned("number of columns")?;
        c.expect(&["COLUMNS"])?;
        let count = usize::try_from(count).ok().filter(|count| *count > 0);
        CsvColumns::Count(count.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidParameterValue,
                "the number of columns must be greater than zero",
            )
            .at(position)
        })?)
    };
    let mut delimiter = ',';
    if c.take(&["DELIMITED", "BY"]) {
        let position = c.position();
        let text = c.string("a delimiter")?;
        let mut letters = text.chars();
        delimiter = match (letters.next(), letters.next()) {
            (Some(letter), None) if letter.is_ascii() => letter,
            _ => {
                let message = "CSV delimiter must be one ASCII character";
                return Err(Error::new(ErrorKind::InvalidParameterValue, message).at(position));
            }
        };
    }
    Ok(FormatSyntax::Csv { columns, delimiter })
}

fn avro_schema<R: OptionReader>(c: &mut R) -> Result<SchemaSource, Error> {
    let schema = schema(c)?;
    if matches!(schema, SchemaSource::Inline(_)) && c.peek_list() {
        c.parenthesized(|c| {
            c.expect(&["CONFLUENT", "WIRE", "FORMAT"])?;
            let position = c.position();
            match c.option_value()?.boolean() {
                Some(false) => Ok(()),
                Some(true) => Err(Error::unsupported(
                    "CONFLUENT WIRE FORMAT without a schema registry is not supported",
                )
                .with_hint(
                    "Say USING CONFLUENT SCHEMA REGISTRY CONNECTION and VALUE STRATEGY INLINE.",
                )
                .at(position)),
                None => Err(c.error("a boolean")),
            }
        })?;
    }
    Ok(schema)
}

/// What stands behind `USING`.
fn schema<R: OptionReader>(c: &mut R) -> Result<SchemaSource, Error> {
    if c.take(&["SCHEMA"]) {
        return c.string("a schema").map(SchemaSource::Inline);
    }
    c.expect(&["CONFLUENT", "SCHEMA", "REGISTRY"])?;
    let registry = registry(c)?;
    let mut key = None;
    let mut value = None;
    loop {
        let position = c.position();
        let (said, what) = if c.take(&["KEY", "STRATEGY"]) {
            (&mut key, "KEY STRATEGY")
        } else if c.take(&["VALUE", "STRATEGY"]) {
            (&mut value, "VALUE STRATEGY")
        } else {
            break;
        };
        if said.replace(strategy(c)?).is_some() {
            return Err(given_twice(what, position));
        }
    }
    Ok(SchemaSource::Registry {
        registry,
        key: key.unwrap_or_default(),
        value: value.unwrap_or_default(),
    })
}

fn strategy<R: OptionReader>(c: &mut R) -> Result<Strategy, Error> {
    if c.take(&["LATEST"]) {
        return Ok(Strategy::Latest);
    }
    if c.take(&["INLINE"]) {
        return c.string("a schema").map(Strategy::Inline);
    }
    if !c.take(&["ID"]) {
        return Err(c.error("LATEST, ID or INLINE"));
    }
    let position = c.position();
    let id = c.unsigned("schema ID")?;
    u32::try_from(id).map(Strategy::Id).map_err(|_| {
        Error::new(
            ErrorKind::InvalidParameterValue,
            format!("invalid schema ID: \"{id}\""),
        )
        .at(position)
    })
}

/// `CONNECTION c`, or a URL in its place.
fn registry<R: OptionReader>(c: &mut R) -> Result<ConnectionReference, Error> {
    let position = c.position();
    if let Some(url) = c.take_string() {
        return Ok(ConnectionReference::Inline {
            kind: ConnectionKind::Registry,
            options: vec![ConnectionOption {
                name: ConnectionOptionName::Url,
                value: OptionValue::String(url),
                position,
            }],
            position,
        });
    }
    c.expect(&["CONNECTION"])?;
    c.name("a connection").map(ConnectionReference::Named)
}

/// What stands behind `INTO` in `CREATE SINK`, up to what is said of every sink.
pub(crate) fn sink<R: OptionReader>(c: &mut R) -> Result<CreateSinkKind, Error> {
    let position = c.position();
    if !c.take(&["KAFKA"]) {
        let others: [&[&str]; 2] = [&["ICEBERG"], &["S3"]];
        return Err(match others.iter().find(|words| c.peek_words(words)) {
            Some(words) => {
                Error::unsupported(format!("sinks INTO {} are not supported", words.join(" ")))
                    .at(position)
            }
            None => c.error("KAFKA"),
        });
    }
    let connection = kafka::reference(c)?;
    let mut sink = NewTopicSink::new(connection, position);
    let mut seen = Vec::new();
    if c.peek_list() {
        c.parenthesized(|c| topic_option(c, &mut sink, &mut seen))?;
    } else if c.peek_words(&["TOPIC"]) {
        topic_option(c, &mut sink, &mut seen)?;
    } else {
        return Err(c.error("(TOPIC …)"));
    }
    if sink.topic.is_empty() {
        return Err(Error::syntax("option TOPIC is required").at(position));
    }
    if !c.peek_words(&["KEY", "FORMAT"]) && c.take(&["KEY"]) {
        sink.key = Some(c.parenthesized(|c| c.ident("a column name"))?);
        sink.key_not_enforced = c.take(&["NOT", "ENFORCED"]);
    }
    if c.take(&["HEADERS"]) {
        sink.headers = Some(c.ident("a column name")?);
    }
    if c.take(&["FORMAT"]) {
        sink.value = Some(sink_format(c, &mut sink, &mut seen)?);
        sink.key_null_defaults = sink.value_null_defaults;
    } else if c.take(&["KEY", "FORMAT"]) {
        sink.key_format = Some(sink_format(c, &mut sink, &mut seen)?);
        sink.key_null_defaults = std::mem::take(&mut sink.value_null_defaults);
        c.expect(&["VALUE", "FORMAT"])?;
        sink.value = Some(sink_format(c, &mut sink, &mut seen)?);
    } else {
        return Err(c.error("FORMAT"));
    }
    if c.take(&["ENVELOPE"]) {
        sink.envelope = Some(envelope(c)?);
    }
    Ok(CreateSinkKind::Kafka(Box::new(sink)))
}

/// What can be said of the topic of a sink.
const TOPIC_OPTIONS: [&str; 8] = [
    "TOPIC REPLICATION FACTOR",
    "TOPIC PARTITION COUNT",
    "TOPIC CONFIG",
    "TOPIC",
    "COMPRESSION TYPE",
    "PARTITION BY",
    "TRANSACTIONAL ID PREFIX",
    "PROGRESS GROUP ID PREFIX",
];

fn topic_option<R: OptionReader>(
    c: &mut R,
    sink: &mut NewTopicSink,
    seen: &mut Vec<&'static str>,
) -> Result<(), Error> {
    let position = c.position();
    let name = option_out_of(c, &TOPIC_OPTIONS, seen, "an option of the topic")?;
    let count = |value: &OptionValue| {
        let number = value.text().and_then(|text| text.parse::<i32>().ok());
        match number {
            // As the broker would.
            Some(-1) => Ok(None),
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(invalid_option(name, "must be a positive number", position)),
        }
    };
    match name {
        "TOPIC REPLICATION FACTOR" => sink.replication = count(&c.option_value()?)?,
        "TOPIC PARTITION COUNT" => sink.partitions = count(&c.option_value()?)?,
        "TOPIC CONFIG" => {
            c.take_equals();
            sink.settings = c.text_map()?;
        }
        "TOPIC" => sink.topic = topic_name(c, position)?,
        "COMPRESSION TYPE" => {
            let value = c.option_value()?;
            let text = value.text().unwrap_or_default().to_ascii_lowercase();
            if !["none", "gzip", "snappy", "lz4", "zstd"].contains(&text.as_str()) {
                let why = "must be none, gzip, snappy, lz4 or zstd";
                return Err(invalid_option(name, why, position));
            }
            sink.compression = text;
        }
        "PARTITION BY" => {
            c.take_equals();
            sink.partition_by = Some(c.expression()?);
        }
        "TRANSACTIONAL ID PREFIX" => {
            sink.transactional_id_prefix = Some(text_value(c, name, position)?);
        }
        _ => {
            return Err(
                Error::unsupported("option PROGRESS GROUP ID PREFIX is not supported")
                    .with_hint("Progress is read without a group.")
                    .at(position),
            );
        }
    }
    Ok(())
}

/// A format of a sink, behind its keyword. What is said of schemas goes into `sink`, and defaults as those of values. `seen`: what has been said already.
fn sink_format<R: OptionReader>(
    c: &mut R,
    sink: &mut NewTopicSink,
    seen: &mut Vec<&'static str>,
) -> Result<FormatClause, Error> {
    let position = c.position();
    // It belongs to the format that says it.
    seen.retain(|name| *name != NULL_DEFAULTS);
    let format = if let Some(plain) = plain_format(c) {
        plain
    } else if c.take(&["AVRO"]) {
        c.expect(&["USING", "CONFLUENT", "SCHEMA", "REGISTRY"])?;
        let registry = registry(c)?;
        if c.peek_list() {
            c.parenthesized(|c| schema_option(c, sink, seen))?;
        }
        FormatSyntax::Avro(SchemaSource::Registry {
            registry,
            key: Strategy::Latest,
            value: Strategy::Latest,
        })
    } else {
        for word in ["CSV", "REGEX", "PROTOBUF"] {
            if c.peek_words(&[word]) {
                return Err(Error::unsupported(format!(
                    "FORMAT {word} of a sink is not supported"
                ))
                .at(position));
            }
        }
        return Err(c.error("AVRO, JSON, TEXT or BYTES"));
    };
    Ok(FormatClause { format, position })
}

/// Whose schemas something is said of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaPart {
    /// Those of keys.
    Key,
    /// Those of values.
    Value,
    /// Both.
    Both,
}

/// `DOC ON`
#[derive(Clone, Debug, PartialEq)]
pub struct DocClause {
    /// Of which schemas.
    pub part: SchemaPart,
    /// The relation, if it is named.
    pub relation: Option<Name>,
    /// The column; `None` if it is said of the record.
    pub column: Option<Ident>,
    /// What is said.
    pub text: String,
}

/// What can be said of the schemas of a sink, `DOC ON` aside.
const SCHEMA_OPTIONS: [&str; 5] = [
    "AVRO KEY FULLNAME",
    "AVRO VALUE FULLNAME",
    "KEY COMPATIBILITY LEVEL",
    "VALUE COMPATIBILITY LEVEL",
    NULL_DEFAULTS,
];
const NULL_DEFAULTS: &str = "NULL DEFAULTS";

fn schema_option<R: OptionReader>(
    c: &mut R,
    sink: &mut NewTopicSink,
    seen: &mut Vec<&'static str>,
) -> Result<(), Error> {
    let position = c.position();
    if let Some((clause, what)) = doc(c)? {
        let is_known =
            |known: &DocClause| (known.part, &known.column) == (clause.part, &clause.column);
        if sink.docs.iter().any(is_known) {
            return Err(given_twice(what, position));
        }
        sink.docs.push(clause);
        return Ok(());
    }
    let name = option_out_of(c, &SCHEMA_OPTIONS, seen, "an option of the schemas")?;
    if name == NULL_DEFAULTS {
        let value = c.option_value()?.boolean();
        sink.value_null_defaults =
            value.ok_or_else(|| invalid_option(name, "must be a boolean", position))?;
        return Ok(());
    }
    let text = text_value(c, name, position)?;
    match name {
        "AVRO KEY FULLNAME" => sink.key_name = Some(text),
        "AVRO VALUE FULLNAME" => sink.value_name = Some(text),
        "KEY COMPATIBILITY LEVEL" => {
            sink.key_compatibility = Some(compatibility(&text, position)?);
        }
        _ => sink.value_compatibility = Some(compatibility(&text, position)?),
    }
    Ok(())
}

/// `[KEY | VALUE] DOC ON …`, if that comes next, and what it is called.
fn doc<R: OptionReader>(c: &mut R) -> Result<Option<(DocClause, &'static str)>, Error> {
    let position = c.position();
    let known: [(&[&str], SchemaPart); 3] = [
        (&["KEY", "DOC", "ON"], SchemaPart::Key),
        (&["VALUE", "DOC", "ON"], SchemaPart::Value),
        (&["DOC", "ON"], SchemaPart::Both),
    ];
    let Some((_, part)) = known.iter().find(|(words, _)| c.take(words)) else {
        return Ok(None);
    };
    let (relation, column, what) = if c.take(&["TYPE"]) {
        (Some(c.name("a relation")?), None, "DOC ON TYPE")
    } else if c.take(&["COLUMN"]) {
        let mut parts = c.name("a column")?.parts;
        let column = parts.pop();
        let relation = (!parts.is_empty()).then_some(Name { parts });
        (relation, column, "DOC ON COLUMN")
    } else {
        return Err(c.error("TYPE or COLUMN"));
    };
    let clause = DocClause {
        part: *part,
        relation,
        column,
        text: text_value(c, what, position)?,
    };
    Ok(Some((clause, what)))
}

fn compatibility(text: &str, position: usize) -> Result<String, Error> {
    let level = text.to_ascii_uppercase();
    let known = [
        "BACKWARD",
        "BACKWARD_TRANSITIVE",
        "FORWARD",
        "FORWARD_TRANSITIVE",
        "FULL",
        "FULL_TRANSITIVE",
        "NONE",
    ];
    if known.contains(&level.as_str()) {
        return Ok(level);
    }
    let message = format!("invalid COMPATIBILITY LEVEL: \"{text}\"");
    Err(Error::new(ErrorKind::InvalidParameterValue, message)
        .with_hint(format!("It is one of {}.", known.join(", ")))
        .at(position))
}
