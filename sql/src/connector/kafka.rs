//! Kafka: connections to a cluster, and sources that read a topic.
//!
//! What messages are is said with [`super::syntax`] and planned by [`super::messages`]; what is written to topics is in [`super::sink`](mod@super::sink).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use flowstone_proto::kafka::{
    KafkaBroker, KafkaConnection, KafkaSource, KafkaStart, Sasl, SaslMechanism,
};
use flowstone_proto::message::{SourceKind, SourceTable, UpstreamConnection};
use flowstone_types::{InstallationId, ObjectId, SqlType};
use serde::{Deserialize, Serialize};

use super::syntax::{self, ConnectionReference, DeclaredColumns, Messages};
use super::{
    CatalogConnection, CatalogSource, Connection, ConnectionKind, ConnectionOption,
    ConnectionOptionName, ConnectionOptions, CreateSourceKind, MessageTable, NameOf, NewSource,
    OptionReader, SecretNamed, SourceItemKind, StringOrSecret, SystemColumns, SystemValue, TlsItem,
    given_twice, invalid_option, text_value, topic_name,
};
use crate::error::{Error, ErrorKind};
use crate::ident::{Address, Name, OptionValue, at, quote_literal};

/// The port of a broker that is named without one.
const PORT: u16 = 9092;
/// Time between two looks for new partitions, unless the statement says otherwise.
const METADATA_INTERVAL: Duration = Duration::from_secs(60);
/// The longest time between two looks for new partitions.
const METADATA_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);

/// A connection to a Kafka cluster, as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaCluster {
    /// `BROKER`, `BROKERS`
    pub brokers: Vec<KafkaBroker>,
    /// `SECURITY PROTOCOL`; by what else is said if `None`.
    pub protocol: Option<SecurityProtocol>,
    /// `SASL …`
    pub sasl: Option<SaslItem>,
    /// `SSL …`
    pub tls: TlsItem,
    /// `PROGRESS TOPIC`
    pub progress_topic: Option<String>,
}

/// How a client and a broker talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityProtocol {
    /// In the clear.
    Plaintext,
    /// With TLS.
    Ssl,
    /// In the clear, with a user.
    SaslPlaintext,
    /// With TLS, with a user.
    SaslSsl,
}

impl SecurityProtocol {
    const ALL: [Self; 4] = [
        Self::Plaintext,
        Self::Ssl,
        Self::SaslPlaintext,
        Self::SaslSsl,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    const fn is_encrypted(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    const fn has_user(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// Who the client is, as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaslItem {
    /// `SASL MECHANISMS`
    pub mechanism: SaslMechanism,
    /// `SASL USERNAME`
    pub user: StringOrSecret,
    /// `SASL PASSWORD`
    pub password: ObjectId,
}

const MECHANISMS: [(SaslMechanism, &str); 3] = [
    (SaslMechanism::Plain, "PLAIN"),
    (SaslMechanism::ScramSha256, "SCRAM-SHA-256"),
    (SaslMechanism::ScramSha512, "SCRAM-SHA-512"),
];

impl KafkaCluster {
    /// The protocol, said or not: with a user if one is named, and encrypted.
    #[must_use]
    pub fn protocol(&self) -> SecurityProtocol {
        self.protocol.unwrap_or(if self.sasl.is_some() {
            SecurityProtocol::SaslSsl
        } else {
            SecurityProtocol::Ssl
        })
    }
}

/// The topic in which sinks through the connection `id` write how far they are, unless the connection names one.
pub(super) fn progress_topic(installation: InstallationId, id: ObjectId) -> String {
    format!("_materialize-progress-{installation}-{id}")
}

/// `'host:port' [USING ADDRESS 'host' [PORT n]]`
pub(super) fn broker<R: OptionReader>(c: &mut R) -> Result<Address, Error> {
    let position = c.position();
    let address = c.string("the address of a broker")?;
    let mut reached_at = None;
    let tunnel = c.position();
    if c.take(&["USING", "ADDRESS"]) {
        let host = c.string("an address")?;
        reached_at = Some(if c.take(&["PORT"]) {
            c.take_equals();
            format!("{host}:{}", c.unsigned("PORT")?)
        } else {
            host
        });
    } else if c.take(&["USING"]) {
        let words: [&[&str]; 2] = [&["SSH", "TUNNEL"], &["AWS", "PRIVATELINK"]];
        return Err(match words.iter().find(|words| c.peek_words(words)) {
            Some(words) => {
                Error::unsupported(format!("USING {} is not supported", words.join(" ")))
                    .with_hint("Forward the broker's port and say USING ADDRESS and where it is.")
                    .at(tunnel)
            }
            None => c.error("ADDRESS"),
        });
    }
    Ok(Address {
        address,
        reached_at,
        position,
    })
}

/// `host:port` of what was written; `port` is the one that it has without one.
fn with_port(address: &str, port: u16) -> Result<String, &'static str> {
    let address = address.trim();
    if address.is_empty() {
        return Err("a broker must be named by its address");
    }
    if address.contains([',', '/', ' ']) {
        return Err("a broker is named as host:port; give several as BROKERS ('…', '…')");
    }
    let inside = address.rsplit_once(']').map_or(address, |(_, rest)| rest);
    match inside.rsplit_once(':') {
        None => Ok(format!("{address}:{port}")),
        Some((_, digits)) => match digits.parse::<u16>() {
            Ok(found) if found > 0 => Ok(address.to_owned()),
            _ => Err("the port of a broker must be a number between 1 and 65535"),
        },
    }
}

fn catalog_broker(option: &ConnectionOption, address: &Address) -> Result<KafkaBroker, Error> {
    let invalid = |why: &str| option.invalid(why).at(address.position);
    let own = with_port(&address.address, PORT).map_err(invalid)?;
    let port = own
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .unwrap_or(PORT);
    let reached_at = address.reached_at.as_deref();
    let reached_at = reached_at.map(|reached| with_port(reached, port));
    Ok(KafkaBroker {
        reached_at: reached_at.transpose().map_err(invalid)?,
        address: own,
    })
}

/// [`Connection::Kafka`].
#[derive(Debug)]
pub(super) struct Cluster<'a>(pub(super) &'a KafkaCluster);

impl Cluster<'_> {
    fn progress_topic_of(&self, installation: InstallationId, id: ObjectId) -> String {
        let named = self.0.progress_topic.clone();
        named.unwrap_or_else(|| progress_topic(installation, id))
    }
}

impl CatalogConnection for Cluster<'_> {
    fn type_name(&self) -> &'static str {
        "kafka"
    }

    fn definition(&self, name_of: NameOf<'_>) -> String {
        let cluster = self.0;
        let shown = |broker: &KafkaBroker| {
            let reached = broker.reached_at.as_ref();
            let reached = reached.map(|at| format!(" USING ADDRESS {}", quote_literal(at)));
            format!(
                "{}{}",
                quote_literal(&broker.address),
                reached.unwrap_or_default()
            )
        };
        let brokers: Vec<String> = cluster.brokers.iter().map(shown).collect();
        let mut options = vec![match brokers.as_slice() {
            [one] => format!("BROKER = {one}"),
            several => format!("BROKERS = ({})", several.join(", ")),
        }];
        options.push(format!(
            "SECURITY PROTOCOL = '{}'",
            cluster.protocol().name()
        ));
        if let Some(sasl) = &cluster.sasl {
            let mechanism = MECHANISMS
                .iter()
                .find(|(known, _)| *known == sasl.mechanism)
                .map_or("", |(_, name)| *name);
            options.push(format!("SASL MECHANISMS = '{mechanism}'"));
            options.push(format!("SASL USERNAME = {}", sasl.user.definition(name_of)));
            options.push(format!("SASL PASSWORD = SECRET {}", name_of(sasl.password)));
        }
        options.extend(cluster.tls.definitions(name_of));
        if let Some(topic) = &cluster.progress_topic {
            options.push(format!("PROGRESS TOPIC = {}", quote_literal(topic)));
        }
        format!("KAFKA ({})", options.join(", "))
    }

    fn options(&self) -> Box<dyn ConnectionOptions> {
        let sasl = self.0.sasl.as_ref();
        Box::new(Options {
            brokers: Some(self.0.brokers.clone()),
            named: None,
            protocol: self.0.protocol,
            mechanism: sasl.map(|sasl| sasl.mechanism),
            user: sasl.map(|sasl| sasl.user.clone()),
            password: sasl.map(|sasl| sasl.password),
            tls: self.0.tls.clone(),
            progress_topic: self.0.progress_topic.clone(),
        })
    }

    fn secrets(&self) -> Vec<ObjectId> {
        let sasl = self.0.sasl.as_ref();
        let user = sasl.and_then(|sasl| sasl.user.secret());
        user.into_iter()
            .chain(sasl.map(|sasl| sasl.password))
            .chain(self.0.tls.secrets())
            .collect()
    }

    fn upstream(&self, secrets: &BTreeMap<ObjectId, String>) -> Option<UpstreamConnection> {
        let cluster = self.0;
        let protocol = cluster.protocol();
        let tls = if protocol.is_encrypted() {
            Some(cluster.tls.resolve(secrets)?)
        } else {
            None
        };
        let sasl = match cluster.sasl.as_ref().filter(|_| protocol.has_user()) {
            Some(sasl) => Some(Sasl {
                mechanism: sasl.mechanism,
                user: sasl.user.resolve(secrets)?,
                password: secrets.get(&sasl.password)?.clone(),
            }),
            None => None,
        };
        Some(UpstreamConnection::Kafka(KafkaConnection {
            brokers: cluster.brokers.clone(),
            tls,
            sasl,
            progress_topic: cluster.progress_topic.clone(),
        }))
    }

    fn progress_topic(&self, installation: InstallationId, id: ObjectId) -> Option<String> {
        Some(self.progress_topic_of(installation, id))
    }

    fn connection_columns(
        &self,
        relation: &str,
        installation: InstallationId,
        id: ObjectId,
    ) -> Option<Vec<(&'static str, SystemValue)>> {
        (relation == "mz_kafka_connections").then(|| {
            let brokers = self.0.brokers.iter();
            vec![
                (
                    "brokers",
                    SystemValue::Texts(brokers.map(|broker| broker.address.clone()).collect()),
                ),
                (
                    "sink_progress_topic",
                    SystemValue::Text(self.progress_topic_of(installation, id)),
                ),
            ]
        })
    }
}

/// The options of a connection to Kafka, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Options {
    brokers: Option<Vec<KafkaBroker>>,
    /// The option that named them in this statement.
    named: Option<ConnectionOptionName>,
    protocol: Option<SecurityProtocol>,
    mechanism: Option<SaslMechanism>,
    user: Option<StringOrSecret>,
    password: Option<ObjectId>,
    tls: TlsItem,
    progress_topic: Option<String>,
}

impl Options {
    fn set_brokers(&mut self, option: &ConnectionOption) -> Result<(), Error> {
        if self.named.is_some_and(|named| named != option.name) {
            return Err(option.invalid("BROKER and BROKERS cannot both be given"));
        }
        let OptionValue::Addresses(addresses) = &option.value else {
            return Err(option.invalid("must be the address of a broker"));
        };
        let brokers: Result<Vec<KafkaBroker>, Error> = addresses
            .iter()
            .map(|address| catalog_broker(option, address))
            .collect();
        self.brokers = Some(brokers?);
        self.named = Some(option.name);
        Ok(())
    }
}

impl ConnectionOptions for Options {
    fn set(&mut self, option: &ConnectionOption, secret: SecretNamed<'_>) -> Result<(), Error> {
        if self.tls.set(option, secret)? {
            return Ok(());
        }
        match option.name {
            ConnectionOptionName::Broker | ConnectionOptionName::Brokers => {
                self.set_brokers(option)?;
            }
            ConnectionOptionName::SecurityProtocol => {
                let text = option.text()?.to_ascii_uppercase().replace('-', "_");
                let found = SecurityProtocol::ALL
                    .into_iter()
                    .find(|protocol| protocol.name() == text);
                self.protocol = Some(found.ok_or_else(|| {
                    option.invalid("must be PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
                })?);
            }
            ConnectionOptionName::SaslMechanisms => {
                let text = option.text()?.to_ascii_uppercase();
                if text == "OAUTHBEARER" || text == "GSSAPI" {
                    return Err(Error::unsupported(format!(
                        "SASL MECHANISMS {text} is not supported"
                    ))
                    .at(option.position));
                }
                let found = MECHANISMS.iter().find(|(_, name)| *name == text);
                let (mechanism, _) = found.ok_or_else(|| {
                    option.invalid("must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
                })?;
                self.mechanism = Some(*mechanism);
            }
            ConnectionOptionName::SaslUsername => {
                self.user = Some(option.text_or_secret(secret)?);
            }
            ConnectionOptionName::SaslPassword => self.password = Some(option.secret(secret)?),
            ConnectionOptionName::ProgressTopic => self.progress_topic = Some(option.text()?),
            _ => return Err(option.unsupported()),
        }
        Ok(())
    }

    fn unset(&mut self, name: ConnectionOptionName) -> Result<(), Error> {
        if self.tls.unset(name) {
            return Ok(());
        }
        match name {
            ConnectionOptionName::SecurityProtocol => self.protocol = None,
            ConnectionOptionName::SaslMechanisms => self.mechanism = None,
            ConnectionOptionName::SaslUsername => self.user = None,
            ConnectionOptionName::SaslPassword => self.password = None,
            ConnectionOptionName::ProgressTopic => self.progress_topic = None,
            ConnectionOptionName::Broker | ConnectionOptionName::Brokers => {
                return Err(name.stays());
            }
            _ => return Err(name.unsupported()),
        }
        Ok(())
    }

    fn finish(self: Box<Self>, name: &Name) -> Result<Connection, Error> {
        let wrong =
            |message: String| at(Error::new(ErrorKind::InvalidParameterValue, message), name);
        let required = |option: ConnectionOptionName| option.required(name);
        let options = *self;
        let brokers = options.brokers;
        let brokers = brokers.ok_or_else(|| required(ConnectionOptionName::Broker))?;
        options.tls.check(name)?;
        let named_user =
            options.mechanism.is_some() || options.user.is_some() || options.password.is_some();
        let sasl = if named_user {
            Some(SaslItem {
                mechanism: options
                    .mechanism
                    .ok_or_else(|| required(ConnectionOptionName::SaslMechanisms))?,
                user: options
                    .user
                    .ok_or_else(|| required(ConnectionOptionName::SaslUsername))?,
                password: options
                    .password
                    .ok_or_else(|| required(ConnectionOptionName::SaslPassword))?,
            })
        } else {
            None
        };
        let cluster = KafkaCluster {
            brokers,
            protocol: options.protocol,
            sasl,
            tls: options.tls,
            progress_topic: options.progress_topic,
        };
        let protocol = cluster.protocol();
        if protocol.has_user() && cluster.sasl.is_none() {
            let error = required(ConnectionOptionName::SaslMechanisms);
            return Err(error.with_detail(format!(
                "SECURITY PROTOCOL {} needs SASL MECHANISMS, SASL USERNAME and SASL PASSWORD.",
                protocol.name()
            )));
        }
        if !protocol.has_user() && cluster.sasl.is_some() {
            return Err(wrong(format!(
                "SASL options cannot be used with SECURITY PROTOCOL {}",
                protocol.name()
            ))
            .with_hint("Say SASL_PLAINTEXT or SASL_SSL."));
        }
        if !protocol.is_encrypted() && !cluster.tls.is_empty() {
            return Err(wrong(format!(
                "SSL options cannot be used with SECURITY PROTOCOL {}",
                protocol.name()
            ))
            .with_hint("Say SSL or SASL_SSL."));
        }
        Ok(Connection::Kafka(Box::new(cluster)))
    }
}

/// What `CREATE SOURCE … FROM KAFKA` says.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTopic {
    /// The connection, or brokers in its place.
    pub connection: ConnectionReference,
    /// `TOPIC`
    pub topic: String,
    /// `START OFFSET`, `START TIMESTAMP`
    pub start: KafkaStart,
    /// `TOPIC METADATA REFRESH INTERVAL`
    pub metadata_interval: Duration,
    /// `GROUP ID PREFIX`
    pub group_id_prefix: Option<String>,
    /// What the source's own table makes of the messages; `None` without one: `CREATE TABLE … FROM SOURCE` makes others.
    pub messages: Option<Messages>,
}

impl NewTopic {
    pub(super) fn references(&mut self) -> Vec<&mut ConnectionReference> {
        let of_messages = self.messages.as_mut().into_iter();
        let of_messages = of_messages.flat_map(Messages::references);
        std::iter::once(&mut self.connection)
            .chain(of_messages)
            .collect()
    }
}

/// The connection that a statement names, or the brokers that stand in its place.
pub(super) fn reference<R: OptionReader>(c: &mut R) -> Result<ConnectionReference, Error> {
    let position = c.position();
    if c.take(&["CONNECTION"]) {
        return c.name("a connection").map(ConnectionReference::Named);
    }
    let brokers = if c.take(&["BROKERS"]) {
        c.list(broker)?
    } else if c.take(&["BROKER"]) {
        vec![broker(c)?]
    } else {
        return Err(c.error("CONNECTION"));
    };
    let option = |name, value| ConnectionOption {
        name,
        value,
        position,
    };
    // Until there were connections, nothing was encrypted unless it was said.
    Ok(ConnectionReference::Inline {
        kind: ConnectionKind::Kafka,
        options: vec![
            option(
                ConnectionOptionName::Brokers,
                OptionValue::Addresses(brokers),
            ),
            option(
                ConnectionOptionName::SecurityProtocol,
                OptionValue::String("PLAINTEXT".to_owned()),
            ),
        ],
        position,
    })
}

/// What is said of a topic besides its messages.
#[derive(Debug, Default)]
struct TopicOptions {
    topic: Option<String>,
    start: Option<KafkaStart>,
    metadata_interval: Option<Duration>,
    group_id_prefix: Option<String>,
}

fn topic_option<R: OptionReader>(c: &mut R, options: &RefCell<TopicOptions>) -> Result<(), Error> {
    let position = c.position();
    let twice = |what: &str| Err(given_twice(what, position));
    let invalid = |what: &str, why: &str| invalid_option(what, why, position);
    let mut options = options.borrow_mut();
    if c.take(&["TOPIC", "METADATA", "REFRESH", "INTERVAL"]) {
        c.take_equals();
        let interval = c.duration("TOPIC METADATA REFRESH INTERVAL")?;
        // The catalog keeps milliseconds.
        if interval.as_millis() == 0 || interval > METADATA_INTERVAL_MAX {
            return Err(invalid(
                "TOPIC METADATA REFRESH INTERVAL",
                "must be at least one millisecond and at most one hour",
            ));
        }
        if options.metadata_interval.replace(interval).is_some() {
            return twice("TOPIC METADATA REFRESH INTERVAL");
        }
    } else if c.take(&["TOPIC"]) {
        let topic = topic_name(c, position)?;
        if options.topic.replace(topic).is_some() {
            return twice("TOPIC");
        }
    } else if c.take(&["START", "OFFSET"]) || c.take(&["START", "OFFSETS"]) {
        let offsets = c.list(|c| {
            let position = c.position();
            let offset = c.unsigned("START OFFSET")?;
            i64::try_from(offset).map_err(|_| {
                Error::new(
                    ErrorKind::InvalidParameterValue,
                    format!("invalid START OFFSET: \"{offset}\""),
                )
                .at(position)
            })
        })?;
        if options
            .start
            .replace(KafkaStart::Offsets(offsets))
            .is_some()
        {
            return Err(invalid(
                "START OFFSET",
                "the start of a source can be given only once",
            ));
        }
    } else if c.take(&["START", "TIMESTAMP"]) {
        let value = c.option_value()?;
        let time = value.text().and_then(|text| text.parse::<i64>().ok());
        let time = time.ok_or_else(|| {
            invalid(
                "START TIMESTAMP",
                "must be milliseconds since 1970, or a negative number of milliseconds before now",
            )
        })?;
        if options.start.replace(KafkaStart::Timestamp(time)).is_some() {
            return Err(invalid(
                "START TIMESTAMP",
                "the start of a source can be given only once",
            ));
        }
    } else if c.take(&["GROUP", "ID", "PREFIX"]) {
        let prefix = text_value(c, "GROUP ID PREFIX", position)?;
        if options.group_id_prefix.replace(prefix).is_some() {
            return twice("GROUP ID PREFIX");
        }
    } else {
        return Err(c.error(
            "TOPIC, START OFFSET, START TIMESTAMP, TOPIC METADATA REFRESH INTERVAL or GROUP ID PREFIX",
        ));
    }
    Ok(())
}

/// What stands behind `KAFKA` in `CREATE SOURCE`.
pub(super) fn source<R: OptionReader>(
    c: &mut R,
    columns: DeclaredColumns,
) -> Result<CreateSourceKind, Error> {
    let connection = reference(c)?;
    let options = RefCell::new(TopicOptions::default());
    let list = c.position();
    if c.peek_list() {
        c.parenthesized(|c| topic_option(c, &options))?;
    } else if c.peek_words(&["TOPIC"]) {
        topic_option(c, &options)?;
        if c.peek_words(&["WITH"]) {
            return Err(
                Error::unsupported("options of brokers in a statement are not supported")
                    .with_hint("Create a connection with CREATE CONNECTION and name it.")
                    .at(c.position()),
            );
        }
    } else {
        return Err(c.error("(TOPIC …)"));
    }
    let options = options.into_inner();
    let Some(topic) = options.topic else {
        return Err(Error::syntax("option TOPIC is required").at(list));
    };
    Ok(CreateSourceKind::Kafka(Box::new(NewTopic {
        connection,
        topic,
        start: options.start.unwrap_or(KafkaStart::Earliest),
        metadata_interval: options.metadata_interval.unwrap_or(METADATA_INTERVAL),
        group_id_prefix: options.group_id_prefix,
        messages: syntax::messages(c, columns)?,
    })))
}

/// [`CreateSourceKind::Kafka`].
#[derive(Debug)]
pub(super) struct NewTopicSource<'a>(pub(super) &'a NewTopic);

impl<'a> NewSource<'a> for NewTopicSource<'a> {
    fn connection(&self) -> Option<&'a Name> {
        self.0.connection.name()
    }

    fn single_table(&self) -> Option<&'static str> {
        Some(
            "a Kafka source has just one topic: FOR ALL TABLES, FOR SCHEMAS and FOR TABLES are not supported for it",
        )
    }

    fn reads_messages(&self) -> bool {
        true
    }

    fn messages(&self) -> Option<(&'a str, &'a Messages)> {
        let messages = self.0.messages.as_ref()?;
        Some((self.0.topic.as_str(), messages))
    }

    fn nothing_to_capture(&self) -> Error {
        Error::internal("the tables of a Kafka source are not told by the upstream")
    }

    fn in_catalog(
        &self,
        connection: Option<(ObjectId, &Connection)>,
        _slot: &str,
    ) -> Result<SourceItemKind, Error> {
        let Some((connection, Connection::Kafka(_))) = connection else {
            return Err(not_kafka(&self.0.connection));
        };
        Ok(SourceItemKind::Kafka {
            connection,
            topic: self.0.topic.clone(),
            start: self.0.start.clone(),
            metadata_interval_ms: u64::try_from(self.0.metadata_interval.as_millis())
                .unwrap_or(u64::MAX),
            group_id_prefix: self.0.group_id_prefix.clone(),
        })
    }
}

/// The error of a connection to something else.
pub(super) fn not_kafka(reference: &ConnectionReference) -> Error {
    match reference.name() {
        Some(name) => at(
            Error::new(
                ErrorKind::WrongObjectType,
                format!("\"{}\" is not a connection to Kafka", name.item()),
            ),
            name,
        ),
        None => Error::internal("brokers in a statement are not a connection yet"),
    }
}

/// [`SourceItemKind::Kafka`].
#[derive(Debug)]
pub(super) struct Topic<'a> {
    pub(super) connection: ObjectId,
    pub(super) topic: &'a str,
    pub(super) start: &'a KafkaStart,
    pub(super) metadata_interval_ms: u64,
    pub(super) group_id_prefix: Option<&'a str>,
}

impl CatalogSource for Topic<'_> {
    fn type_name(&self) -> &'static str {
        "kafka"
    }

    fn definition(&self, name_of: NameOf<'_>) -> String {
        let mut options = vec![format!("TOPIC = {}", quote_literal(self.topic))];
        match self.start {
            KafkaStart::Earliest => {}
            KafkaStart::Offsets(offsets) => {
                let offsets: Vec<String> = offsets.iter().map(ToString::to_string).collect();
                options.push(format!("START OFFSET = ({})", offsets.join(", ")));
            }
            KafkaStart::Timestamp(time) => options.push(format!("START TIMESTAMP = {time}")),
        }
        if u128::from(self.metadata_interval_ms) != METADATA_INTERVAL.as_millis() {
            options.push(format!(
                "TOPIC METADATA REFRESH INTERVAL = '{}ms'",
                self.metadata_interval_ms
            ));
        }
        if let Some(prefix) = self.group_id_prefix {
            options.push(format!("GROUP ID PREFIX = {}", quote_literal(prefix)));
        }
        format!(
            "KAFKA CONNECTION {} ({})",
            name_of(self.connection),
            options.join(", ")
        )
    }

    fn progress_columns(&self) -> Vec<(&'static str, SqlType)> {
        vec![("partition", SqlType::Int4), ("offset", SqlType::UInt8)]
    }

    fn offset_unit(&self) -> &'static str {
        "messages"
    }

    fn upstream(
        &self,
        _id: ObjectId,
        connection: Option<UpstreamConnection>,
    ) -> Option<SourceKind> {
        let UpstreamConnection::Kafka(connection) = connection? else {
            return None;
        };
        Some(SourceKind::Kafka(Box::new(KafkaSource {
            connection,
            topic: self.topic.to_owned(),
            start: self.start.clone(),
            metadata_interval: Duration::from_millis(self.metadata_interval_ms),
            group_id_prefix: self.group_id_prefix.map(str::to_owned),
        })))
    }

    fn connection(&self) -> Option<ObjectId> {
        Some(self.connection)
    }

    fn topic(&self) -> Option<&str> {
        Some(self.topic)
    }

    fn source_columns(&self, relation: &str) -> Option<SystemColumns> {
        (relation == "mz_kafka_sources").then(|| {
            let prefix = self.group_id_prefix.map(str::to_owned);
            let prefix = prefix.map(|prefix| ("group_id_prefix", prefix));
            let topic = ("topic", self.topic.to_owned());
            prefix.into_iter().chain([topic]).collect()
        })
    }

    fn table_columns(
        &self,
        relation: &str,
        _table: &SourceTable,
        messages: Option<&MessageTable>,
    ) -> Option<SystemColumns> {
        if relation != "mz_kafka_source_tables" {
            return None;
        }
        let mut columns = vec![("topic", self.topic.to_owned())];
        columns.extend(messages.into_iter().flat_map(MessageTable::system_columns));
        Some(columns)
    }
}
