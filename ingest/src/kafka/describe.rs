//! What a cluster and a registry say about themselves: `VALIDATE CONNECTION`, `CREATE SOURCE`, and schemas that tables are planned with.
//!
//! Must not know running sources. Called by [`crate::ask`], and by sinks that get no answer.

use std::time::{Duration, Instant};

use flowstone_proto::kafka::{
    KafkaConnection, KafkaSource, KafkaStart, RegisteredSchema, RegistryConnection, SchemaRequest,
};
use flowstone_proto::message::{RequestError, UpstreamTable};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::attempt::Ended;
use super::certificate::refusal;
use super::client::{self, Context, Trouble, serve, worst};
use super::consumer::partitions;
use super::registry::{Registry, RegistryError};

/// How long a cluster has to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long one look lasts, after which it is seen what went wrong meanwhile.
const LOOK: Duration = Duration::from_millis(500);
/// How long one broker may fail while another answers.
const SETTLED: Duration = Duration::from_secs(1);
/// A topic that is asked for to have an answer of any kind. It is not made.
const PROBE: &str = "flowstone-validate";

fn upstream(message: String, sqlstate: &str, hint: Option<String>) -> RequestError {
    RequestError::Upstream {
        message,
        sqlstate: Some(sqlstate.to_owned()),
        detail: None,
        hint,
    }
}

impl From<RegistryError> for RequestError {
    fn from(error: RegistryError) -> Self {
        let sqlstate = match &error {
            RegistryError::Unreachable { .. } => "08001",
            RegistryError::Refused { .. } => "28000",
            RegistryError::Unexpected { .. } => "08P01",
            RegistryError::Connection(_) => "22023",
        };
        upstream(error.to_string(), sqlstate, None)
    }
}

impl From<Ended> for RequestError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Transient { message, hint } | Ended::Permanent { message, hint } => {
                upstream(message, "08001", hint)
            }
            Ended::Suspect { message, hint } => upstream(message, "08001", Some(hint)),
            Ended::Again | Ended::Stopped => {
                upstream("Kafka did not answer".to_owned(), "08001", None)
            }
        }
    }
}

/// Whether a cluster can be reached and lets us in.
pub(crate) async fn validate(connection: &KafkaConnection) -> Result<(), RequestError> {
    let connection = connection.clone();
    blocking(move || connect(&connection, PROBE).map(drop)).await
}

/// Why a cluster cannot be reached, and what can be done; `None` if it can. Blocks.
pub(crate) fn trouble(connection: &KafkaConnection) -> Option<(String, Option<String>)> {
    match connect(connection, PROBE) {
        Err(RequestError::Upstream {
            message,
            detail,
            hint,
            ..
        }) => {
            let words = detail.map(|words| format!(": {words}"));
            Some((message + &words.unwrap_or_default(), hint))
        }
        _ => None,
    }
}

/// Whether a registry can be reached and lets us in.
pub(crate) async fn validate_registry(connection: &RegistryConnection) -> Result<(), RequestError> {
    Ok(Registry::new(connection)?.check().await?)
}

/// A schema; `None` if there is none.
pub(crate) async fn schema(
    connection: &RegistryConnection,
    request: &SchemaRequest,
) -> Result<Option<RegisteredSchema>, RequestError> {
    Ok(Registry::new(connection)?.find(request).await?)
}

/// The topic of a source as the only table there is; how many partitions it has is its `oid`.
pub(crate) async fn topic(source: &KafkaSource) -> Result<UpstreamTable, RequestError> {
    let source = source.clone();
    blocking(move || {
        let consumer = connect(&source.connection, &source.topic)?;
        let topic = &source.topic;
        let found = partitions(&consumer, topic)?;
        if found.is_empty() {
            return Err(upstream(
                format!("topic \"{topic}\" does not exist"),
                "42P01",
                Some("Create the topic, or check its name.".to_owned()),
            ));
        }
        if let KafkaStart::Offsets(offsets) = &source.start
            && offsets.len() > found.len()
        {
            let message = format!(
                "START OFFSET specified more partitions ({}) than topic \"{topic}\" contains ({})",
                offsets.len(),
                found.len()
            );
            return Err(upstream(message, "22023", None));
        }
        Ok(UpstreamTable {
            schema: String::new(),
            name: topic.clone(),
            oid: u32::try_from(found.len()).unwrap_or(u32::MAX),
            replica_identity: 'f',
            columns: Vec::new(),
            key: Vec::new(),
        })
    })
    .await
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, RequestError> + Send + 'static,
) -> Result<T, RequestError> {
    tokio::task::spawn_blocking(act)
        .await
        .map_err(|error| RequestError::Internal(error.to_string()))?
}

/// A client that has had an answer to a question about a topic. Blocks.
fn connect(
    connection: &KafkaConnection,
    topic: &str,
) -> Result<BaseConsumer<Context>, RequestError> {
    let config = client::config(connection);
    let consumer: BaseConsumer<Context> = config
        .create_with_context(Context::of_topic(topic))
        .map_err(|error| unusable(&error))?;
    let started = Instant::now();
    let mut reasons = Vec::new();
    loop {
        let Err(error) = consumer.fetch_metadata(Some(topic), LOOK) else {
            return Ok(consumer);
        };
        reasons.extend(serve(&consumer));
        let is_over = started.elapsed() >= DEADLINE;
        // Another broker may answer.
        let is_settled = started.elapsed() >= SETTLED;
        match worst(&reasons) {
            // It says the same for ever.
            Some((trouble, words)) if is_over || (is_settled && trouble != Trouble::Connection) => {
                return Err(unreachable(connection, trouble, words));
            }
            // Nobody listens, and another address of the same name was tried as well. It is not said again.
            Some((trouble, words)) if is_settled && is_refused(&reasons) => {
                return Err(unreachable(connection, trouble, words));
            }
            None if is_over => {
                let words = error.to_string();
                return Err(unreachable(connection, Trouble::Connection, &words));
            }
            _ => {}
        }
    }
}

/// Whether all brokers are down because nobody listens there.
fn is_refused(reasons: &[(RDKafkaErrorCode, String)]) -> bool {
    let is_down =
        |(code, _): &(RDKafkaErrorCode, String)| *code == RDKafkaErrorCode::AllBrokersDown;
    let says_so = |(_, reason): &(RDKafkaErrorCode, String)| reason.contains("Connection refused");
    reasons.iter().any(is_down) && reasons.iter().any(says_so)
}

fn unusable(error: &KafkaError) -> RequestError {
    upstream(
        format!("connection to Kafka cannot be used: {error}"),
        "22023",
        Some("Check the options and the certificates of the connection.".to_owned()),
    )
}

/// One message for each kind of trouble, with the words of the library as its detail. Of a certificate it is found out what is wrong with it; blocks.
fn unreachable(connection: &KafkaConnection, trouble: Trouble, words: &str) -> RequestError {
    let brokers: Vec<&str> = connection
        .brokers
        .iter()
        .map(|broker| broker.reached_at.as_deref().unwrap_or(&broker.address))
        .collect();
    let brokers = brokers.join(", ");
    let (message, sqlstate) = match trouble {
        Trouble::Host => (
            format!("could not translate the name of a Kafka broker to an address: {brokers}"),
            "08001",
        ),
        Trouble::Certificate => (
            format!("could not establish TLS with Kafka at {brokers}"),
            "08001",
        ),
        Trouble::Credentials => (
            format!("Kafka at {brokers} refused the user or the password"),
            "28P01",
        ),
        Trouble::Protocol => (
            format!("Kafka at {brokers} does not speak the protocol of the connection"),
            "08P01",
        ),
        Trouble::Connection => (format!("could not connect to Kafka at {brokers}"), "08001"),
    };
    let (message, hint) = match refusal(connection, words) {
        Some(refusal) => (format!("{message}: {}", refusal.reason), refusal.hint),
        None => (message, trouble.hint()),
    };
    RequestError::Upstream {
        message,
        sqlstate: Some(sqlstate.to_owned()),
        detail: Some(words.to_owned()),
        hint: Some(hint.to_owned()),
    }
}
