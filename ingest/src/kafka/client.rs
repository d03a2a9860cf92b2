//! Clients of a Kafka cluster: how librdkafka is set up, and what it says beside messages.
//!
//! Owns the settings, the words of librdkafka that are kept for the user ([`Context`]), and its statistics. Must not know sources. Called by the reader, by
//! [`super::describe`] and by [`super::dead_letter`].
//!
//! Addresses under which brokers are reached instead (`USING ADDRESS`) are only used to get into the cluster: the library has no hook for what comes after, where
//! brokers are called as they call themselves.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flowstone_proto::kafka::{KafkaConnection, Sasl, SaslMechanism, Tls};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::Deserialize;

/// How long one request to the cluster may take before it is said that it does not answer.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Reasons that are kept of one client.
const REASONS_MAX: usize = 64;
/// What the library says of a connection that was closed by the other side. Errors do not say it.
const DISCONNECTED: &str = "Disconnected: ";
/// A connection that is closed after this long was of use before, and was not closed for what was said on it first.
const CLOSED_AT_ONCE_MS: u64 = 2000;

/// The settings that all clients of a cluster have in common.
pub(crate) fn config(connection: &KafkaConnection) -> ClientConfig {
    let brokers: Vec<&str> = connection
        .brokers
        .iter()
        .map(|broker| broker.reached_at.as_deref().unwrap_or(&broker.address))
        .collect();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.join(","));
    config.set("client.id", "flowstone");
    config.set("socket.keepalive.enable", "true");
    config.set("reconnect.backoff.max.ms", "2000");
    // That a connection was closed is a line of this level, and nothing else: see `speaks_otherwise`.
    config.set_log_level(RDKafkaLogLevel::Info);
    let protocol = match (&connection.tls, &connection.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &connection.tls {
        set_tls(&mut config, tls);
    }
    if let Some(sasl) = &connection.sasl {
        set_sasl(&mut config, sasl);
    }
    config
}

fn set_tls(config: &mut ClientConfig, tls: &Tls) {
    if let Some(authority) = &tls.authority {
        config.set("ssl.ca.pem", authority.as_str());
    }
    if let Some((certificate, key)) = &tls.identity {
        config.set("ssl.certificate.pem", certificate.as_str());
        config.set("ssl.key.pem", key.as_str());
    }
}

fn set_sasl(config: &mut ClientConfig, sasl: &Sasl) {
    let mechanism = match sasl.mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
    };
    config.set("sasl.mechanism", mechanism);
    config.set("sasl.username", sasl.user.as_str());
    config.set("sasl.password", sasl.password.as_str());
}

/// What librdkafka says of one partition.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct PartitionStatistics {
    /// Where the consumer last found that there was nothing more; negative if it did not.
    #[serde(default = "unknown")]
    pub(crate) eof_offset: i64,
    /// Up to where transactions have ended; negative if it is not known.
    #[serde(default = "unknown")]
    pub(crate) ls_offset: i64,
    /// The end; negative if it is not known.
    #[serde(default = "unknown")]
    pub(crate) hi_offset: i64,
}

const fn unknown() -> i64 {
    -1
}

#[derive(Debug, Deserialize)]
struct TopicStatistics {
    #[serde(default)]
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Debug, Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: HashMap<String, TopicStatistics>,
}

/// Hears what librdkafka says beside messages.
#[derive(Debug, Default)]
pub(crate) struct Context {
    /// The topic whose statistics are kept.
    topic: String,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    reasons: Vec<(RDKafkaErrorCode, String)>,
    statistics: Option<BTreeMap<i32, PartitionStatistics>>,
}

impl Context {
    pub(crate) fn of_topic(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            heard: Mutex::default(),
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, code: RDKafkaErrorCode, reason: &str) {
        let mut heard = self.heard();
        if heard.reasons.len() < REASONS_MAX {
            heard.reasons.push((code, reason.to_owned()));
        }
    }

    /// Everything that went wrong since it was asked last.
    pub(crate) fn take_reasons(&self) -> Vec<(RDKafkaErrorCode, String)> {
        std::mem::take(&mut self.heard().reasons)
    }

    /// The newest statistics of the topic, once.
    pub(crate) fn take_statistics(&self) -> Option<BTreeMap<i32, PartitionStatistics>> {
        self.heard().statistics.take()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        tracing::debug!(?level, fac, "librdkafka: {log_message}");
        // All else that matters comes as an error as well.
        if fac == "FAIL" && speaks_otherwise(log_message) {
            let code = RDKafkaErrorCode::BrokerTransportFailure;
            self.push(code, log_message);
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(mut statistics) => {
                let topic = statistics.topics.remove(&self.topic);
                let partitions = topic.into_iter().flat_map(|topic| topic.partitions);
                let partitions =
                    partitions.filter_map(|(id, known)| Some((id.parse::<i32>().ok()?, known)));
                // -1 stands for messages whose partition is not chosen yet.
                self.heard().statistics = Some(partitions.filter(|(id, _)| *id >= 0).collect());
            }
            Err(error) => tracing::debug!(%error, "statistics of librdkafka could not be read"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error
            .rdkafka_error_code()
            .unwrap_or(RDKafkaErrorCode::Unknown);
        if code == RDKafkaErrorCode::PartitionEOF {
            return;
        }
        tracing::debug!(%code, "librdkafka: {reason}");
        self.push(code, reason);
    }
}

impl ConsumerContext for Context {}

/// Lets the client tell what it has to say.
pub(crate) fn serve(consumer: &BaseConsumer<Context>) -> Vec<(RDKafkaErrorCode, String)> {
    // An event each. A line of the log, which comes before the error that it is about, gives nothing, so that nothing does not mean the end.
    for _ in 0..2 * REASONS_MAX {
        drop(consumer.poll(Duration::ZERO));
    }
    consumer.context().take_reasons()
}

/// Whether a line of the log says that a broker has closed a connection as those do that want TLS or SASL and get neither: the library means to say so, and
/// does not. Brokers that end do it too, so it is no more than a guess.
fn speaks_otherwise(line: &str) -> bool {
    // The name of a broker begins with the protocol, unless that is PLAINTEXT.
    let has_tls = line.contains("ssl://");
    let has_sasl = line.contains("sasl_plaintext://") || line.contains("sasl_ssl://");
    let Some((before, state)) = line.rsplit_once("ms in state ") else {
        return false;
    };
    let milliseconds = before.rsplit_once("after ");
    let milliseconds = milliseconds.and_then(|(_, after)| after.parse::<u64>().ok());
    let is_young = milliseconds.is_some_and(|age| age < CLOSED_AT_ONCE_MS);
    // It is the first question of all, or the first one after it that needs to know who asks.
    let is_first = (state.starts_with("APIVERSION_QUERY") && !has_tls)
        || (state.starts_with("UP") && !has_sasl && is_young);
    line.contains(DISCONNECTED) && is_first
}

/// What is wrong with the way to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No such host.
    Host,
    /// The certificate of the broker is not trusted, or ours not by it.
    Certificate,
    /// Who we say we are is not believed.
    Credentials,
    /// One side speaks TLS or SASL and the other does not.
    Protocol,
    /// Nobody is there, or goes away.
    Connection,
}

impl Trouble {
    /// What a reason is about.
    pub(crate) fn of(code: RDKafkaErrorCode, reason: &str) -> Self {
        let speaks_otherwise = [
            "security.protocol",
            "wrong version number",
            "PLAINTEXT broker listener",
            "SSL listener",
            "unexpected SASL",
            "Unsupported SASL",
            "SASL state",
            "supported mechanisms",
        ];
        if speaks_otherwise.iter().any(|words| reason.contains(words)) || is_guess(code, reason) {
            return Self::Protocol;
        }
        match code {
            RDKafkaErrorCode::Resolve => Self::Host,
            RDKafkaErrorCode::SSL => Self::Certificate,
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                Self::Credentials
            }
            _ if reason.contains("Failed to resolve") => Self::Host,
            _ => Self::Connection,
        }
    }

    /// What the user can do.
    pub(crate) const fn hint(self) -> &'static str {
        match self {
            Self::Host => "Check the names of the brokers.",
            Self::Certificate => {
                "Check SSL CERTIFICATE AUTHORITY, SSL CERTIFICATE and SSL KEY of the connection."
            }
            Self::Credentials => {
                "Check SASL MECHANISMS, SASL USERNAME and SASL PASSWORD of the connection."
            }
            Self::Protocol => {
                "Check SECURITY PROTOCOL and SASL MECHANISMS of the connection against the listener at this port."
            }
            Self::Connection => "Check that the brokers run and can be reached from here.",
        }
    }

    /// How much it says: the more specific wins.
    const fn weight(self) -> u8 {
        match self {
            Self::Connection => 0,
            Self::Host => 1,
            Self::Certificate => 2,
            Self::Credentials => 3,
            Self::Protocol => 4,
        }
    }
}

/// Whether a reason comes from a line of the log, of which there are only those that [`speaks_otherwise`] lets through.
fn is_guess(code: RDKafkaErrorCode, reason: &str) -> bool {
    code == RDKafkaErrorCode::BrokerTransportFailure && speaks_otherwise(reason)
}

/// The reason that says most, the newest of equals, and what it is about.
pub(crate) fn worst(reasons: &[(RDKafkaErrorCode, String)]) -> Option<(Trouble, &str)> {
    // That all brokers are down follows from something else, if there is something else.
    let follows =
        |(code, _): &&(RDKafkaErrorCode, String)| *code == RDKafkaErrorCode::AllBrokersDown;
    let has_cause = !reasons.iter().all(|reason| follows(&reason));
    let told = reasons
        .iter()
        .filter(|reason| !has_cause || !follows(reason));
    // A guess says no more than that nobody is there: what was found out last counts.
    let weight = |code: RDKafkaErrorCode, trouble: Trouble, reason: &str| {
        if is_guess(code, reason) {
            Trouble::Connection.weight()
        } else {
            trouble.weight()
        }
    };
    told.map(|(code, reason)| {
        let trouble = Trouble::of(*code, reason);
        (weight(*code, trouble, reason), trouble, reason.as_str())
    })
    .max_by_key(|(weight, ..)| *weight)
    .map(|(_, trouble, reason)| (trouble, reason))
}

#[cfg(test)]
mod tests {
    use flowstone_proto::kafka::KafkaBroker;

    use super::*;

    fn connection(tls: Option<Tls>, sasl: Option<Sasl>) -> KafkaConnection {
        let broker = |address: &str, reached_at: Option<&str>| KafkaBroker {
            address: address.to_owned(),
            reached_at: reached_at.map(str::to_owned),
        };
        KafkaConnection {
            brokers: vec![broker("a:1", None), broker("b:2", Some("c:3"))],
            tls,
            sasl,
            progress_topic: None,
        }
    }

    #[test]
    fn settings_follow_from_the_connection() {
        let plain = config(&connection(None, None));
        assert_eq!(plain.get("bootstrap.servers"), Some("a:1,c:3"));
        assert_eq!(plain.get("security.protocol"), Some("plaintext"));
        let tls = Tls {
            authority: Some("CA".to_owned()),
            identity: Some(("C".to_owned(), "K".to_owned())),
        };
        let sasl = Sasl {
            mechanism: SaslMechanism::ScramSha512,
            user: "u".to_owned(),
            password: "p".to_owned(),
        };
        let both = config(&connection(Some(tls), Some(sasl)));
        assert_eq!(both.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(both.get("ssl.ca.pem"), Some("CA"));
        assert_eq!(both.get("ssl.key.pem"), Some("K"));
        assert_eq!(both.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
    }

    #[test]
    fn the_reason_that_says_most_is_told() {
        let reasons = [
            (
                RDKafkaErrorCode::BrokerTransportFailure,
                "Connect to ipv4#127.0.0.1:1 failed: Connection refused".to_owned(),
            ),
            (
                RDKafkaErrorCode::Authentication,
                "SASL authentication error: Invalid username or password".to_owned(),
            ),
            (
                RDKafkaErrorCode::AllBrokersDown,
                "1/1 brokers are down".to_owned(),
            ),
        ];
        let (trouble, words) = worst(&reasons).unwrap();
        assert_eq!(trouble, Trouble::Credentials);
        assert!(words.contains("Invalid username"));
        assert_eq!(worst(&reasons[..1]).unwrap().0, Trouble::Connection);
        assert_eq!(
            Trouble::of(
                RDKafkaErrorCode::SSL,
                "SSL handshake failed: wrong version number"
            ),
            Trouble::Protocol
        );
        assert_eq!(worst(&[]), None);
        // Also if nothing else is said, however often.
        let down = [reasons[2].clone(), reasons[2].clone()];
        let words = "1/1 brokers are down";
        assert_eq!(worst(&down), Some((Trouble::Connection, words)));
    }

    #[test]
    fn a_connection_that_is_closed_at_its_first_word_is_one_of_another_protocol() {
        let context = Context::of_topic("t");
        let log = |line: &str| context.log(RDKafkaLogLevel::Info, "FAIL", line);
        let down = |context: &Context| {
            let error = KafkaError::Global(RDKafkaErrorCode::AllBrokersDown);
            context.error(error, "1/1 brokers are down");
        };
        for line in [
            "[thrd:a:1/bootstrap]: a:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 3ms in state APIVERSION_QUERY)",
            "[thrd:a:1/bootstrap]: a:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 0ms in state UP, 4 identical error(s) suppressed)",
            "[thrd:ssl://a:1/1]: ssl://a:1/1: Disconnected: connection reset by peer (after 12ms in state UP)",
        ] {
            log(line);
            down(&context);
            let reasons = context.take_reasons();
            assert_eq!(worst(&reasons), Some((Trouble::Protocol, line)));
        }
        // Nothing follows from one that was of use, or has what it could lack.
        for line in [
            "a:1/1: Disconnected: connection closed by peer (after 60000ms in state UP)",
            "sasl_ssl://a:1/1: Disconnected: connection closed by peer (after 3ms in state UP)",
            "ssl://a:1/1: Disconnected: connection closed by peer (after 3ms in state APIVERSION_QUERY)",
            "a:1/1: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
        ] {
            log(line);
        }
        assert!(context.take_reasons().is_empty());
    }

    #[test]
    fn a_guess_yields_to_what_is_known_and_to_what_is_newer() {
        let reason = |words: &str| (RDKafkaErrorCode::BrokerTransportFailure, words.to_owned());
        let guess =
            reason("a:1/1: Disconnected: connection closed by peer (after 3ms in state UP)");
        let refused = reason("a:1/1: Connect to ipv4#127.0.0.1:1 failed: Connection refused");
        let certificate = (
            RDKafkaErrorCode::SSL,
            "certificate verify failed".to_owned(),
        );
        let found =
            |reasons: &[(RDKafkaErrorCode, String)]| worst(reasons).map(|(trouble, _)| trouble);
        assert_eq!(
            found(&[refused.clone(), guess.clone()]),
            Some(Trouble::Protocol)
        );
        assert_eq!(found(&[guess.clone(), refused]), Some(Trouble::Connection));
        assert_eq!(found(&[certificate, guess]), Some(Trouble::Certificate));
    }

    #[test]
    fn statistics_are_those_of_the_topic() {
        let context = Context::of_topic("t");
        context.stats_raw(
            br#"{"topics":{"t":{"partitions":{"0":{"eof_offset":7,"ls_offset":9,"hi_offset":9,"x":1},"-1":{}}},"u":{"partitions":{"5":{}}}}}"#,
        );
        let found = context.take_statistics().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[&0].eof_offset, 7);
        assert!(context.take_statistics().is_none());
    }
}
