//! Messages that could not be read, written to a topic where somebody looks after them.
//!
//! Each is written before what comes behind it is offered, so none is lost; after a crash it may be written again.
//!
//! The producer is idempotent, and there are errors after which the library does nothing with such a one any more ([`DeadLetters::is_broken`]): another one is to
//! be made then.

use flowstone_proto::kafka::KafkaConnection;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::client;
use super::decode::DeadLetter;

/// How long the brokers may take.
const TIMEOUT_MS: &str = "30000";
/// Bytes of one letter: as many as the client can be told, since topics and brokers say what they take.
const LETTER_BYTES_MAX: &str = "1000000000";
/// Names of the headers that say what the message was and why it is here.
const REASON: &str = "flowstone.error";
const TOPIC: &str = "flowstone.topic";
const PARTITION: &str = "flowstone.partition";
const OFFSET: &str = "flowstone.offset";

/// Writes dead letters of one source.
pub(crate) struct DeadLetters {
    producer: FutureProducer,
    /// Where they come from.
    topic: String,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// # Errors
    /// What the library says.
    pub(crate) fn new(connection: &KafkaConnection, topic: &str) -> Result<Self, String> {
        let mut config = client::config(connection);
        config.set("enable.idempotence", "true");
        config.set("message.timeout.ms", TIMEOUT_MS);
        config.set("message.max.bytes", LETTER_BYTES_MAX);
        let producer: FutureProducer = config.create().map_err(|error| error.to_string())?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
        })
    }

    /// Writes letters, in order; returns once all of them are there.
    ///
    /// # Errors
    /// What the library says. Some of them may be there then.
    pub(crate) async fn send(&self, letters: &[DeadLetter]) -> Result<(), String> {
        let mut deliveries = Vec::with_capacity(letters.len());
        for letter in letters {
            let failed = |error: &dyn std::fmt::Display| {
                format!(
                    "message could not be written to topic \"{}\": {error}",
                    letter.topic
                )
            };
            let mut record = FutureRecord::<[u8], [u8]>::to(&letter.topic);
            if let Some(key) = &letter.key {
                record = record.key(key);
            }
            if let Some(value) = &letter.value {
                record = record.payload(value);
            }
            let record = record.headers(self.headers(letter));
            match self.producer.send_result(record) {
                Ok(delivery) => deliveries.push((letter, delivery)),
                Err((error, _)) => return Err(failed(&error)),
            }
        }
        for (letter, delivery) in deliveries {
            let told = |error: &dyn std::fmt::Display| {
                format!(
                    "message could not be written to topic \"{}\": {error}",
                    letter.topic
                )
            };
            delivery
                .await
                .map_err(|error| told(&error))?
                .map_err(|(error, _)| told(&error))?;
        }
        Ok(())
    }

    /// Whether nothing will ever be written with this producer again.
    pub(crate) fn is_broken(&self) -> bool {
        self.producer.client().fatal_error().is_some()
    }

    fn headers(&self, letter: &DeadLetter) -> OwnedHeaders {
        let (partition, offset) = (letter.partition.to_string(), letter.offset.to_string());
        let mut headers = OwnedHeaders::new();
        for (name, value) in &letter.headers {
            headers = headers.insert(Header {
                key: name,
                value: value.as_deref(),
            });
        }
        let ours = [
            (REASON, letter.reason.as_str()),
            (TOPIC, self.topic.as_str()),
            (PARTITION, partition.as_str()),
            (OFFSET, offset.as_str()),
        ];
        for (key, value) in ours {
            headers = headers.insert(Header {
                key,
                value: Some(value.as_bytes()),
            });
        }
        headers
    }
}
