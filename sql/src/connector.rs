//! Connectors: what a kind of source, sink or connection needs of SQL, one file for each kind.
//!
//! Owns the kinds: how a statement names them and their options, their defaults and rules, what the catalog keeps of them and how that reads as SQL, what the
//! system relations say of them, and what the worker is given to run or to ask them.
//! Must not know the parser, the catalog or the shape of the system relations: a statement is read through an `OptionReader`, names and secrets are resolved by
//! whoever calls. Called by `parse`, `ddl` and `system`, and through the methods of [`SourceItemKind`] and [`Connection`] by `coordinator`.
//!
//! Invariants. Nothing else in this crate or in `coordinator` tells one kind from another (`deploy/tidy.py` checks it).
//! What the catalog keeps is written by the position of variants and fields: a new kind is a variant at the end, and a change of an old one a new format of the Raft log.

mod kafka;
mod load_generator;
mod messages;
mod postgres;
mod registry;
mod sink;
mod syntax;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flowstone_proto::kafka::KafkaStart;
use flowstone_proto::message::{
    LoadGenerator, ReplicationSlot, SourceKind, SourceTable, SslMode, UpstreamConnection,
    UpstreamTable,
};
use flowstone_types::{InstallationId, ObjectId, SourcePosition, SqlType};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::ident::{Ident, Name, OptionValue, at, quote_literal};

pub use kafka::{KafkaCluster, NewTopic, SaslItem, SecurityProtocol};
pub use messages::{MessageTable, SchemaAnswer, SchemaOrigin, SchemaStrategy};
pub use registry::SchemaRegistry;
pub use sink::{
    CreateSinkKind, NewTopicSink, PartitionItem, SinkFormatItem, SinkItemKind, TopicSink,
};
pub use syntax::{
    ConnectionReference, Declared, DeclaredColumn, DeclaredColumns, DocClause, EnvelopeClause,
    FormatClause, FormatSyntax, IncludeClause, IncludeKind, Messages, OnDecodeErrorClause,
    SchemaPart, SchemaSource, Strategy,
};
pub use tls::TlsItem;

pub(crate) use messages::PlannedMessages;
pub(crate) use sink::{SinkRelation, not_registry};
pub(crate) use syntax::{declared_columns, messages as messages_of_table, sink};

/// What a source reads, as `CREATE SOURCE` says it.
#[derive(Clone, Debug, PartialEq)]
pub enum CreateSourceKind {
    /// `FROM POSTGRES CONNECTION c (PUBLICATION 'p', …)`
    Postgres {
        /// The connection.
        connection: Name,
        /// `PUBLICATION`
        publication: String,
        /// `TEXT COLUMNS (table.column, …)`
        text_columns: Vec<Name>,
        /// `EXCLUDE COLUMNS (table.column, …)`
        exclude_columns: Vec<Name>,
    },
    /// `FROM LOAD GENERATOR …`
    LoadGenerator {
        /// Which.
        generator: GeneratorKind,
        /// `TICK INTERVAL`
        tick_interval: Option<Duration>,
        /// `SCALE FACTOR`, for TPCH
        scale_factor: Option<f64>,
        /// `MAX CARDINALITY`, for COUNTER
        max_cardinality: Option<u64>,
    },
    /// `FROM KAFKA CONNECTION c (TOPIC 't', …)`
    Kafka(Box<NewTopic>),
}

/// The load generators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GeneratorKind {
    /// `AUCTION`
    Auction,
    /// `COUNTER`
    Counter,
    /// `TPCH`
    Tpch,
}

/// What a source reads, as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SourceItemKind {
    /// A PostgreSQL publication.
    Postgres {
        /// The connection item.
        connection: ObjectId,
        /// The publication.
        publication: String,
        /// The replication slot.
        slot: String,
    },
    /// A generator.
    LoadGenerator {
        /// Which one.
        generator: LoadGenerator,
        /// Milliseconds between ticks.
        tick_interval_ms: u64,
    },
    /// A topic of Kafka.
    Kafka {
        /// The connection item.
        connection: ObjectId,
        /// The topic.
        topic: String,
        /// Where it begins.
        start: KafkaStart,
        /// Milliseconds between two looks for new partitions.
        metadata_interval_ms: u64,
        /// What the name of the group begins with under which offsets are told.
        group_id_prefix: Option<String>,
    },
}

/// A value given as text or as a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StringOrSecret {
    /// In the clear.
    String(String),
    /// A secret item.
    Secret(ObjectId),
}

impl StringOrSecret {
    /// The text, with the values of secrets; `None` if it is one that is missing.
    fn resolve(&self, secrets: &BTreeMap<ObjectId, String>) -> Option<String> {
        match self {
            Self::String(text) => Some(text.clone()),
            Self::Secret(id) => secrets.get(id).cloned(),
        }
    }

    /// As a statement says it.
    fn definition(&self, name_of: NameOf<'_>) -> String {
        match self {
            Self::String(text) => quote_literal(text),
            Self::Secret(id) => format!("SECRET {}", name_of(*id)),
        }
    }

    const fn secret(&self) -> Option<ObjectId> {
        match self {
            Self::String(_) => None,
            Self::Secret(id) => Some(*id),
        }
    }
}

/// A connection, as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connection {
    /// TO POSTGRES.
    Postgres {
        /// HOST
        host: String,
        /// PORT
        port: u16,
        /// USER
        user: StringOrSecret,
        /// PASSWORD
        password: Option<ObjectId>,
        /// DATABASE
        database: String,
        /// SSL MODE
        ssl_mode: SslMode,
        /// SSL CERTIFICATE AUTHORITY
        ssl_root: Option<StringOrSecret>,
    },
    /// TO KAFKA.
    Kafka(Box<KafkaCluster>),
    /// TO CONFLUENT SCHEMA REGISTRY.
    Registry(Box<SchemaRegistry>),
}

/// What a connection connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionKind {
    /// `TO POSTGRES`
    Postgres,
    /// `TO KAFKA`
    Kafka,
    /// `TO CONFLUENT SCHEMA REGISTRY`
    Registry,
}

/// One option of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionOption {
    /// Which.
    pub name: ConnectionOptionName,
    /// Its value.
    pub value: OptionValue,
    /// Where its name is written: characters, from 1.
    pub position: usize,
}

impl ConnectionOption {
    /// The error of a value that it cannot have.
    fn invalid(&self, what: &str) -> Error {
        invalid_option(self.name.keyword(), what, self.position)
    }

    /// The error of an option that connections of this kind do not have.
    fn unsupported(&self) -> Error {
        self.name.unsupported().at(self.position)
    }

    fn text(&self) -> Result<String, Error> {
        let text = self.value.text().filter(|text| !text.is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| self.invalid("must be a string that is not empty"))
    }

    fn text_or_secret(&self, secret: SecretNamed<'_>) -> Result<StringOrSecret, Error> {
        match &self.value {
            OptionValue::Secret(name) => secret(name).map(StringOrSecret::Secret),
            _ => self.text().map(StringOrSecret::String),
        }
    }

    /// What may not stand in a statement.
    fn secret(&self, secret: SecretNamed<'_>) -> Result<ObjectId, Error> {
        match &self.value {
            OptionValue::Secret(name) => secret(name),
            _ => {
                let keyword = self.name.keyword();
                Err(self.invalid("must be a secret").with_hint(format!(
                    "Create it with CREATE SECRET and give {keyword} SECRET and its name."
                )))
            }
        }
    }
}

/// The options of connections, whatever they connect to: which of them a connection has is its connector's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectionOptionName {
    /// `HOST`
    Host,
    /// `PORT`
    Port,
    /// `USER`
    User,
    /// `PASSWORD`
    Password,
    /// `DATABASE`
    Database,
    /// `SSL MODE`
    SslMode,
    /// `SSL CERTIFICATE AUTHORITY`
    SslCertificateAuthority,
    /// `SSL CERTIFICATE`
    SslCertificate,
    /// `SSL KEY`
    SslKey,
    /// `SSH TUNNEL`
    SshTunnel,
    /// `AWS PRIVATELINK`
    AwsPrivatelink,
    /// `BROKER`
    Broker,
    /// `BROKERS`
    Brokers,
    /// `SECURITY PROTOCOL`
    SecurityProtocol,
    /// `SASL MECHANISMS`
    SaslMechanisms,
    /// `SASL USERNAME`
    SaslUsername,
    /// `SASL PASSWORD`
    SaslPassword,
    /// `PROGRESS TOPIC`
    ProgressTopic,
    /// `URL`
    Url,
    /// `USERNAME`
    Username,
    /// `AWS CONNECTION`
    AwsConnection,
}

impl ConnectionOptionName {
    /// The words that name it.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Host => "HOST",
            Self::Port => "PORT",
            Self::User => "USER",
            Self::Password => "PASSWORD",
            Self::Database => "DATABASE",
            Self::SslMode => "SSL MODE",
            Self::SslCertificateAuthority => "SSL CERTIFICATE AUTHORITY",
            Self::SslCertificate => "SSL CERTIFICATE",
            Self::SslKey => "SSL KEY",
            Self::SshTunnel => "SSH TUNNEL",
            Self::AwsPrivatelink => "AWS PRIVATELINK",
            Self::Broker => "BROKER",
            Self::Brokers => "BROKERS",
            Self::SecurityProtocol => "SECURITY PROTOCOL",
            Self::SaslMechanisms => "SASL MECHANISMS",
            Self::SaslUsername => "SASL USERNAME",
            Self::SaslPassword => "SASL PASSWORD",
            Self::ProgressTopic => "PROGRESS TOPIC",
            Self::Url => "URL",
            Self::Username => "USERNAME",
            Self::AwsConnection => "AWS CONNECTION",
        }
    }

    /// The error of an option that connections of this kind do not have.
    fn unsupported(self) -> Error {
        Error::unsupported(format!("option {} is not supported", self.keyword()))
    }

    /// The error of a connection, of this name, that cannot be without it.
    fn required(self, name: &Name) -> Error {
        at(self.is_required(), name)
    }

    /// The error of taking away what a connection cannot be without.
    fn stays(self) -> Error {
        let keyword = self.keyword();
        self.is_required().with_hint(format!(
            "It cannot be taken away: give it another value with SET ({keyword} …)."
        ))
    }

    fn is_required(self) -> Error {
        let message = format!("option {} is required", self.keyword());
        Error::new(ErrorKind::InvalidParameterValue, message)
    }
}

/// The error of an option that a statement says twice.
fn given_twice(what: &str, position: usize) -> Error {
    Error::syntax(format!("option {what} specified more than once")).at(position)
}

/// The error of a value that an option cannot have.
fn invalid_option(what: &str, why: &str, position: usize) -> Error {
    let message = format!("invalid {what}: {why}");
    Error::new(ErrorKind::InvalidParameterValue, message).at(position)
}

/// Refuses options that a statement names twice, given where each is named.
pub(crate) fn named_once(
    options: impl IntoIterator<Item = (ConnectionOptionName, usize)>,
) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for (name, position) in options {
        if !seen.insert(name) {
            return Err(given_twice(name.keyword(), position));
        }
    }
    Ok(())
}

/// Reads the name of an option out of those `known`, and refuses one that was `seen`. One that begins with another comes before it.
fn option_out_of<R: OptionReader>(
    c: &mut R,
    known: &[&'static str],
    seen: &mut Vec<&'static str>,
    expected: &str,
) -> Result<&'static str, Error> {
    let position = c.position();
    let found = known
        .iter()
        .copied()
        .find(|name| c.take(&name.split(' ').collect::<Vec<_>>()));
    let name = found.ok_or_else(|| c.error(expected))?;
    if seen.contains(&name) {
        return Err(given_twice(name, position));
    }
    seen.push(name);
    Ok(name)
}

/// The value of `TOPIC`.
fn topic_name<R: OptionReader>(c: &mut R, position: usize) -> Result<String, Error> {
    let value = c.option_value()?;
    let topic = value.text().filter(|topic| !topic.is_empty());
    topic
        .map(str::to_owned)
        .ok_or_else(|| invalid_option("TOPIC", "must be the name of a topic", position))
}

/// The value of an option that is any string.
fn text_value<R: OptionReader>(c: &mut R, what: &str, position: usize) -> Result<String, Error> {
    let value = c.option_value()?;
    let text = value.text().map(str::to_owned);
    text.ok_or_else(|| invalid_option(what, "must be a string", position))
}

impl CreateSourceKind {
    /// The connections that it names, or that stand in it themselves.
    pub(crate) fn references(&mut self) -> Vec<&mut ConnectionReference> {
        match self {
            Self::Postgres { .. } | Self::LoadGenerator { .. } => Vec::new(),
            Self::Kafka(topic) => topic.references(),
        }
    }

    /// What it makes of messages, to be completed.
    pub(crate) fn messages_mut(&mut self) -> Option<&mut Messages> {
        match self {
            Self::Postgres { .. } | Self::LoadGenerator { .. } => None,
            Self::Kafka(topic) => topic.messages.as_mut(),
        }
    }

    /// Its connector, with what the statement says.
    pub(crate) fn connector(&self) -> Box<dyn NewSource<'_> + '_> {
        match self {
            Self::Postgres {
                connection,
                publication,
                text_columns,
                exclude_columns,
            } => Box::new(postgres::NewPublication {
                connection,
                publication,
                text_columns,
                exclude_columns,
            }),
            Self::LoadGenerator {
                generator,
                tick_interval,
                scale_factor,
                max_cardinality,
            } => Box::new(load_generator::NewGenerator {
                generator: *generator,
                tick_interval: *tick_interval,
                scale_factor: *scale_factor,
                max_cardinality: *max_cardinality,
            }),
            Self::Kafka(topic) => Box::new(kafka::NewTopicSource(topic)),
        }
    }
}

impl SourceItemKind {
    /// Its connector, with what the catalog keeps.
    pub(crate) fn connector(&self) -> Box<dyn CatalogSource + '_> {
        match self {
            Self::Postgres {
                connection,
                publication,
                slot,
            } => Box::new(postgres::Publication {
                connection: *connection,
                publication,
                slot,
            }),
            Self::LoadGenerator {
                generator,
                tick_interval_ms,
            } => Box::new(load_generator::Generator {
                generator,
                tick_interval_ms: *tick_interval_ms,
            }),
            Self::Kafka {
                connection,
                topic,
                start,
                metadata_interval_ms,
                group_id_prefix,
            } => Box::new(kafka::Topic {
                connection: *connection,
                topic,
                start,
                metadata_interval_ms: *metadata_interval_ms,
                group_id_prefix: group_id_prefix.as_deref(),
            }),
        }
    }

    /// The connection item that it reads through.
    #[must_use]
    pub fn connection(&self) -> Option<ObjectId> {
        self.connector().connection()
    }

    /// The name of the slot that it keeps upstream and that has to be dropped with it.
    #[must_use]
    pub fn slot(&self) -> Option<String> {
        self.connector().slot()
    }

    /// What the worker is given to run the source `id`, or to ask it. `connection`: how to reach what [`SourceItemKind::connection`] names.
    ///
    /// `None` if the connection is missing, or is one to something else.
    #[must_use]
    pub fn upstream(
        &self,
        id: ObjectId,
        connection: Option<UpstreamConnection>,
    ) -> Option<SourceKind> {
        self.connector().upstream(id, connection)
    }

    /// The position that is this number in formats in which positions did not say what kind they are; `None` if there were no such sources then.
    #[must_use]
    pub fn position_without_kind(&self, number: u64) -> Option<SourcePosition> {
        self.connector().position_without_kind(number)
    }
}

impl ConnectionKind {
    /// What the name of a connection ends with that is made of a statement.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
            Self::Registry => "registry",
        }
    }

    /// The options of a new connection, none of them set.
    pub(crate) fn options(self) -> Box<dyn ConnectionOptions> {
        match self {
            Self::Postgres => Box::new(postgres::Options::default()),
            Self::Kafka => Box::new(kafka::Options::default()),
            Self::Registry => Box::new(registry::Options::default()),
        }
    }
}

impl Connection {
    /// Its connector, with what the catalog keeps.
    pub(crate) fn connector(&self) -> Box<dyn CatalogConnection + '_> {
        match self {
            Self::Postgres {
                host,
                port,
                user,
                password,
                database,
                ssl_mode,
                ssl_root,
            } => Box::new(postgres::Server {
                host,
                port: *port,
                user,
                password: *password,
                database,
                ssl_mode: *ssl_mode,
                ssl_root: ssl_root.as_ref(),
            }),
            Self::Kafka(cluster) => Box::new(kafka::Cluster(cluster)),
            Self::Registry(registry) => Box::new(registry::Registry(registry)),
        }
    }

    /// Whether it is one to a schema registry.
    #[must_use]
    pub const fn is_registry(&self) -> bool {
        matches!(self, Self::Registry(_))
    }

    /// The secrets that it names; one that it names twice is there twice.
    #[must_use]
    pub fn secrets(&self) -> Vec<ObjectId> {
        self.connector().secrets()
    }

    /// How to reach what it connects to, with the values of [`Connection::secrets`]; `None` if one of them is missing.
    #[must_use]
    pub fn upstream(&self, secrets: &BTreeMap<ObjectId, String>) -> Option<UpstreamConnection> {
        self.connector().upstream(secrets)
    }

    /// What [`SourceItemKind::slot`] has left behind, and how to reach it. `secrets`: as in [`Connection::upstream`].
    #[must_use]
    pub fn slot(
        &self,
        secrets: &BTreeMap<ObjectId, String>,
        slot: &str,
    ) -> Option<ReplicationSlot> {
        self.connector().slot(secrets, slot)
    }
}

/// The full name of an item.
type NameOf<'a> = &'a dyn Fn(ObjectId) -> String;
/// The secret item that a name stands for.
type SecretNamed<'a> = &'a dyn Fn(&Name) -> Result<ObjectId, Error>;

/// Columns of one row of a system relation that its connector knows, all of them text.
pub(crate) type SystemColumns = Vec<(&'static str, String)>;

/// A column of one row of a system relation that a connection knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SystemValue {
    Text(String),
    Texts(Vec<String>),
}

/// What `CREATE SOURCE` says of one kind of source.
pub(crate) trait NewSource<'a> {
    /// The connection that it reads through.
    fn connection(&self) -> Option<&'a Name> {
        None
    }

    /// The columns to capture as text, and those to leave out.
    fn column_options(&self) -> (&'a [Name], &'a [Name]) {
        (&[], &[])
    }

    /// If it has just one table, which has the name of the source: the message for who asks for tables by name.
    fn single_table(&self) -> Option<&'static str> {
        None
    }

    /// Whether it is a stream of messages: then its tables are not told by the upstream, but by what statements say of the messages.
    fn reads_messages(&self) -> bool {
        false
    }

    /// The topic, and what its own table makes of its messages; `None` if it has no table of its own.
    fn messages(&self) -> Option<(&'a str, &'a Messages)> {
        None
    }

    /// The error of `FOR ALL TABLES` where there is none.
    fn nothing_to_capture(&self) -> Error;

    /// What the catalog keeps. `connection`: what [`NewSource::connection`] names. `slot`: a name that nothing upstream has, for what it keeps there.
    fn in_catalog(
        &self,
        connection: Option<(ObjectId, &Connection)>,
        slot: &str,
    ) -> Result<SourceItemKind, Error>;
}

/// What the catalog keeps of one kind of source.
pub(crate) trait CatalogSource {
    /// `mz_sources.type`.
    fn type_name(&self) -> &'static str;

    /// What stands behind `FROM` in its CREATE statement.
    fn definition(&self, name_of: NameOf<'_>) -> String;

    /// The columns of its progress relation, all of them nullable.
    fn progress_columns(&self) -> Vec<(&'static str, SqlType)>;

    /// What its positions count.
    fn offset_unit(&self) -> &'static str;

    /// See [`SourceItemKind::upstream`].
    fn upstream(&self, id: ObjectId, connection: Option<UpstreamConnection>) -> Option<SourceKind>;

    /// See [`SourceItemKind::connection`].
    fn connection(&self) -> Option<ObjectId> {
        None
    }

    /// See [`SourceItemKind::slot`].
    fn slot(&self) -> Option<String> {
        None
    }

    /// The topic, if it is a stream of messages.
    fn topic(&self) -> Option<&str> {
        None
    }

    /// See [`SourceItemKind::position_without_kind`]. No new kind has one.
    fn position_without_kind(&self, _number: u64) -> Option<SourcePosition> {
        None
    }

    /// Refuses tables whose changes cannot be followed.
    fn check_tables(&self, _tables: &[&UpstreamTable]) -> Result<(), Error> {
        Ok(())
    }

    /// What `relation` says of the source, its id aside; `None` if it does not list it. Of `mz_sources`: what is not said of every source.
    fn source_columns(&self, _relation: &str) -> Option<SystemColumns> {
        None
    }

    /// What `relation` says of a table of the source, its id aside; `None` if it does not list it. `messages`: what the table makes of messages, if it is of any.
    fn table_columns(
        &self,
        _relation: &str,
        _table: &SourceTable,
        _messages: Option<&MessageTable>,
    ) -> Option<SystemColumns> {
        None
    }
}

/// What the catalog keeps of one kind of connection.
pub(crate) trait CatalogConnection {
    /// `mz_connections.type`.
    fn type_name(&self) -> &'static str;

    /// What stands behind `TO` in its CREATE statement.
    fn definition(&self, name_of: NameOf<'_>) -> String;

    /// Its options, to change some of them.
    fn options(&self) -> Box<dyn ConnectionOptions>;

    /// See [`Connection::secrets`].
    fn secrets(&self) -> Vec<ObjectId>;

    /// See [`Connection::upstream`].
    fn upstream(&self, secrets: &BTreeMap<ObjectId, String>) -> Option<UpstreamConnection>;

    /// Where sinks through the connection `id` write how far they are, if that is anywhere.
    fn progress_topic(&self, _installation: InstallationId, _id: ObjectId) -> Option<String> {
        None
    }

    /// What `relation` says of the connection `id`, that aside; `None` if it does not list it.
    fn connection_columns(
        &self,
        _relation: &str,
        _installation: InstallationId,
        _id: ObjectId,
    ) -> Option<Vec<(&'static str, SystemValue)>> {
        None
    }

    /// See [`Connection::slot`].
    fn slot(&self, _secrets: &BTreeMap<ObjectId, String>, _slot: &str) -> Option<ReplicationSlot> {
        None
    }
}

/// The options of one connection, as far as they are known.
pub(crate) trait ConnectionOptions {
    /// Sets one.
    fn set(&mut self, option: &ConnectionOption, secret: SecretNamed<'_>) -> Result<(), Error>;

    /// Takes one away.
    fn unset(&mut self, name: ConnectionOptionName) -> Result<(), Error>;

    /// What the catalog keeps of them, if that is all that is needed. `name`: the connection's.
    fn finish(self: Box<Self>, name: &Name) -> Result<Connection, Error>;
}

/// What a connector reads its part of a statement with: the parser's cursor. It is a trait so that the parser can know connectors while they do not know it.
pub(crate) trait OptionReader: Sized {
    /// Where the next token is: characters, from 1.
    fn position(&self) -> usize;
    /// An error at the next token, which is not what was expected.
    fn error(&self, expected: &str) -> Error;
    /// The `n`th token in upper case, if it is a bare word.
    fn bare(&self, n: usize) -> Option<String>;
    /// Whether the next tokens are these bare words.
    fn peek_words(&self, words: &[&str]) -> bool;
    /// Whether a list in parentheses comes next.
    fn peek_list(&self) -> bool;
    /// Reads these bare words if they come next, all of them or none.
    fn take(&mut self, words: &[&str]) -> bool;
    /// Reads an equals sign if one comes next.
    fn take_equals(&mut self) -> bool;
    /// Reads these bare words.
    fn expect(&mut self, words: &[&str]) -> Result<(), Error>;
    /// Whether the item of a list ends here.
    fn ends_item(&self) -> bool;
    /// Reads a comma if one comes next.
    fn take_comma(&mut self) -> bool;
    /// An identifier; `what` says what for.
    fn ident(&mut self, what: &str) -> Result<Ident, Error>;
    /// A string literal, if one comes next.
    fn take_string(&mut self) -> Option<String>;
    /// A string literal.
    fn string(&mut self, what: &str) -> Result<String, Error>;
    /// A SQL type.
    fn sql_type(&mut self) -> Result<SqlType, Error>;
    /// An expression.
    fn expression(&mut self) -> Result<sqlparser::ast::Expr, Error>;
    /// `MAP['key' => 'value', …]`
    fn text_map(&mut self) -> Result<Vec<(String, String)>, Error>;
    /// A name; `what` says what for.
    fn name(&mut self, what: &str) -> Result<Name, Error>;
    /// A list of names of at most `most` parts.
    fn name_list(&mut self, what: &str, most: usize) -> Result<Vec<Name>, Error>;
    /// The value of an option, if one comes next. The equals sign before it is optional.
    fn option_value(&mut self) -> Result<OptionValue, Error>;
    /// An unsigned integer, also as a string.
    fn unsigned(&mut self, what: &str) -> Result<u64, Error>;
    /// A length of time: a string, or a number of seconds.
    fn duration(&mut self, what: &str) -> Result<Duration, Error>;
    /// `( item, … )`
    fn parenthesized<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error>;
    /// `( item, … )` or `[ item, … ]`, an equals sign before it or not.
    fn list<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T, Error>)
    -> Result<Vec<T>, Error>;
}

/// What stands behind `FROM` in `CREATE SOURCE`, up to what is said of every source. `columns`: those that are declared before it.
pub(crate) fn source<R: OptionReader>(
    c: &mut R,
    columns: DeclaredColumns,
) -> Result<CreateSourceKind, Error> {
    let position = c.position();
    if c.take(&["KAFKA"]) {
        return kafka::source(c, columns);
    }
    if !columns.columns.is_empty() || !columns.primary_key.is_empty() {
        return Err(
            Error::unsupported("columns of this kind of source are not supported")
                .at(columns.position),
        );
    }
    if c.take(&["POSTGRES"]) {
        return postgres::source(c);
    }
    if c.take(&["LOAD", "GENERATOR"]) {
        return load_generator::source(c);
    }
    let others: [&[&str]; 3] = [&["MYSQL"], &["SQL", "SERVER"], &["WEBHOOK"]];
    Err(match others.iter().find(|words| c.peek_words(words)) {
        Some(words) => Error::unsupported(format!(
            "sources FROM {} are not supported",
            words.join(" ")
        ))
        .at(position),
        None => c.error("a kind of source"),
    })
}

/// What stands behind `TO` in `CREATE CONNECTION`.
pub(crate) fn connection<R: OptionReader>(
    c: &mut R,
) -> Result<(ConnectionKind, Vec<ConnectionOption>), Error> {
    let position = c.position();
    let known: [(&[&str], ConnectionKind); 3] = [
        (&["POSTGRES"], ConnectionKind::Postgres),
        (&["KAFKA"], ConnectionKind::Kafka),
        (
            &["CONFLUENT", "SCHEMA", "REGISTRY"],
            ConnectionKind::Registry,
        ),
    ];
    let others: [(&[&str], bool); 7] = [
        (&["MYSQL"], true),
        (&["SQL", "SERVER"], true),
        (&["SSH", "TUNNEL"], true),
        (&["AWS", "PRIVATELINK"], false),
        (&["AWS"], false),
        (&["ICEBERG", "CATALOG"], false),
        (&["GCP"], false),
    ];
    let Some((_, kind)) = known.iter().find(|(words, _)| c.take(words)) else {
        if let Some((words, same_options)) = others.iter().find(|(words, _)| c.take(words)) {
            if *same_options {
                // The options are those of PostgreSQL, so what is wrong with them can be said as well.
                c.parenthesized(connection_option)?;
            }
            return Err(Error::unsupported(format!(
                "connections TO {} are not supported",
                words.join(" ")
            ))
            .at(position));
        }
        return Err(c.error("a kind of connection"));
    };
    let options = c.parenthesized(connection_option)?;
    named_once(options.iter().map(|option| (option.name, option.position)))?;
    Ok((*kind, options))
}

const CONNECTION_OPTIONS: [ConnectionOptionName; 21] = [
    ConnectionOptionName::Host,
    ConnectionOptionName::Port,
    ConnectionOptionName::User,
    ConnectionOptionName::Password,
    ConnectionOptionName::Database,
    ConnectionOptionName::SslMode,
    ConnectionOptionName::SslCertificateAuthority,
    ConnectionOptionName::SslCertificate,
    ConnectionOptionName::SslKey,
    ConnectionOptionName::SshTunnel,
    ConnectionOptionName::AwsPrivatelink,
    ConnectionOptionName::Broker,
    ConnectionOptionName::Brokers,
    ConnectionOptionName::SecurityProtocol,
    ConnectionOptionName::SaslMechanisms,
    ConnectionOptionName::SaslUsername,
    ConnectionOptionName::SaslPassword,
    ConnectionOptionName::ProgressTopic,
    ConnectionOptionName::Url,
    ConnectionOptionName::Username,
    ConnectionOptionName::AwsConnection,
];

/// The name of a connection option.
pub(crate) fn connection_option_name<R: OptionReader>(
    c: &mut R,
) -> Result<ConnectionOptionName, Error> {
    let found = CONNECTION_OPTIONS
        .iter()
        .find(|name| c.take(&name.keyword().split(' ').collect::<Vec<_>>()));
    found.copied().ok_or_else(|| c.error("a connection option"))
}

/// `name [=] value`
pub(crate) fn connection_option<R: OptionReader>(c: &mut R) -> Result<ConnectionOption, Error> {
    let position = c.position();
    let name = connection_option_name(c)?;
    let value = match name {
        ConnectionOptionName::Broker => {
            c.take_equals();
            OptionValue::Addresses(vec![kafka::broker(c)?])
        }
        ConnectionOptionName::Brokers => OptionValue::Addresses(c.list(kafka::broker)?),
        _ => c.option_value()?,
    };
    if value == OptionValue::None {
        return Err(c.error("a value"));
    }
    Ok(ConnectionOption {
        name,
        value,
        position,
    })
}

/// `TEXT COLUMNS (…)` or `EXCLUDE COLUMNS (…)`, also under their older name `IGNORE COLUMNS`.
pub(crate) fn column_option<R: OptionReader>(
    c: &mut R,
    text: &mut Vec<Name>,
    exclude: &mut Vec<Name>,
) -> Result<(), Error> {
    let position = c.position();
    if c.take(&["TEXT", "COLUMNS"]) {
        text.extend(c.name_list("a column", 4)?);
    } else if c.take(&["EXCLUDE", "COLUMNS"]) || c.take(&["IGNORE", "COLUMNS"]) {
        exclude.extend(c.name_list("a column", 4)?);
    } else if c.peek_words(&["PARTITION", "BY"]) {
        return Err(Error::unsupported("option PARTITION BY is not supported").at(position));
    } else if c.peek_words(&["RETAIN", "HISTORY"]) {
        return Err(Error::unsupported("option RETAIN HISTORY is not supported").at(position));
    } else if c.peek_words(&["DETAILS"]) {
        return Err(Error::unsupported("option DETAILS is not supported").at(position));
    } else {
        return Err(c.error("TEXT COLUMNS or EXCLUDE COLUMNS"));
    }
    Ok(())
}
