//! Records of a topic: written and read to the end.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// How long the brokers may take to take a record.
const PRODUCE_TIMEOUT_MS: &str = "60000";

/// How long it may take to read a topic.
const READ_DEADLINE: Duration = Duration::from_secs(120);

/// A record as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Where it goes; by its key if nothing is said.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; a record without one is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values; a name may be there more than once.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// A record with a key and a value.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// A record without a key.
    pub fn of_value(value: impl Into<Vec<u8>>) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// A record without a value.
    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::default()
        }
    }

    /// The same for one partition.
    #[must_use]
    pub fn to_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// A record as it is found; its partition and timestamp are said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    /// Where it is.
    pub partition: i32,
    /// Its place there. There are gaps: markers of transactions, and what was compacted.
    pub offset: i64,
    /// What it is.
    pub record: Record,
}

impl Stored {
    /// The value as text; empty for a tombstone.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.record.value.as_deref().unwrap_or_default()).into_owned()
    }

    fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers: Option<Vec<_>> = message.headers().map(|headers| {
            let header = |header: Header<'_, &[u8]>| {
                (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
            };
            headers.iter().map(header).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            record: Record {
                partition: Some(message.partition()),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: headers.unwrap_or_default(),
                timestamp_ms: message.timestamp().to_millis(),
            },
        }
    }
}

/// What a reader sees of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// What is committed, up to the first transaction that is still open.
    Committed,
    /// Everything.
    Uncommitted,
}

pub(super) async fn produce(config: &ClientConfig, topic: &str, records: &[Record]) -> Result<()> {
    let mut config = config.clone();
    config.set("message.timeout.ms", PRODUCE_TIMEOUT_MS);
    // Neither lost nor doubled nor out of order when a broker goes away.
    config.set("enable.idempotence", "true");
    config.set("linger.ms", "5");
    let producer: FutureProducer = config.create()?;
    let mut deliveries = VecDeque::new();
    for record in records {
        let mut waiting = to_send(topic, record);
        loop {
            match producer.send_result(waiting) {
                Ok(delivery) => {
                    deliveries.push_back(delivery);
                    break;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    delivered(deliveries.pop_front()).await?;
                    waiting = refused;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    while let Some(delivery) = deliveries.pop_front() {
        delivered(Some(delivery)).await?;
    }
    Ok(())
}

async fn delivered(delivery: Option<DeliveryFuture>) -> Result<()> {
    match delivery {
        None => bail!("a record does not fit into an empty queue"),
        Some(delivery) => delivery
            .await?
            .map(drop)
            .map_err(|(error, _)| anyhow!("a record was not delivered: {error}")),
    }
}

fn to_send<'a>(topic: &'a str, record: &'a Record) -> FutureRecord<'a, [u8], [u8]> {
    let mut future = FutureRecord::<[u8], [u8]>::to(topic);
    if let Some(partition) = record.partition {
        future = future.partition(partition);
    }
    if let Some(key) = &record.key {
        future = future.key(key);
    }
    if let Some(value) = &record.value {
        future = future.payload(value);
    }
    if let Some(timestamp_ms) = record.timestamp_ms {
        future = future.timestamp(timestamp_ms);
    }
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_deref(),
            });
        }
        future = future.headers(headers);
    }
    future
}

pub(super) async fn read(
    mut config: ClientConfig,
    topic: &str,
    isolation: Isolation,
) -> Result<Vec<Stored>> {
    config.set(
        "isolation.level",
        match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        },
    );
    // Needed, but no group is joined.
    config.set("group.id", "reader");
    config.set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true");
    config.set("auto.offset.reset", "error");
    config.set("fetch.wait.max.ms", "50");
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || read_to_end(&config, &topic)).await?
}

fn read_to_end(config: &ClientConfig, topic: &str) -> Result<Vec<Stored>> {
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), READ_DEADLINE)?;
    let mut open: BTreeSet<i32> = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
        .map(|partition| partition.id())
        .collect();
    if open.is_empty() {
        bail!("there is no topic \"{topic}\"");
    }
    let mut assignment = TopicPartitionList::new();
    for partition in &open {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let start = Instant::now();
    let mut found = Vec::new();
    let mut last_error = None;
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => found.push(Stored::of(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            // A broker that is away may come back.
            Some(Err(error)) => last_error = Some(error),
        }
        if start.elapsed() > READ_DEADLINE {
            bail!(
                "the end of \"{topic}\" was not reached in {READ_DEADLINE:?}: {} records, partitions left: {open:?}, last error: {last_error:?}",
                found.len()
            );
        }
    }
    found.sort_by_key(|stored| (stored.partition, stored.offset));
    Ok(found)
}
