//! librdkafka as the benchmark uses it: a producer for large topics, and the consumer that is the peer.
//!
//! Must not know what messages say. Everything here blocks. Called by `kafka` and its `freshness`.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// How long a producer that has no room, or that ends, waits between two looks.
const PRODUCER_POLL: Duration = Duration::from_millis(5);
/// How long the broker may take to have the last messages, and to answer.
const PRODUCER_DEADLINE: Duration = Duration::from_secs(120);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a consumer without messages waits before it looks at the time.
pub(super) const CONSUMER_POLL: Duration = Duration::from_millis(100);

/// What a consumer saw of a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Consumed {
    /// From making the consumer until the last message.
    pub(super) seconds: f64,
    /// Of keys and values.
    pub(super) bytes: u64,
}

/// Writes messages, each once and in order for each partition, and checks that the broker has as many. `write`: puts the key and the value of a message into
/// buffers that are empty, and says its partition; a key without bytes is none.
pub(super) fn produce(
    config: &ClientConfig,
    topic: &str,
    partitions: i32,
    count: i64,
    mut write: impl FnMut(i64, &mut Vec<u8>, &mut Vec<u8>) -> Result<i32>,
) -> Result<()> {
    let mut config = config.clone();
    config.set("enable.idempotence", "true");
    // Batches are as large as the broker takes them: there is always more to send.
    config.set("linger.ms", "50");
    config.set("queue.buffering.max.messages", "500000");
    let producer: BaseProducer = config.create()?;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for number in 0..count {
        key.clear();
        value.clear();
        let partition = write(number, &mut key, &mut value)?;
        let mut record = BaseRecord::<[u8], [u8]>::to(topic);
        record = record.partition(partition).payload(&value);
        if !key.is_empty() {
            record = record.key(&key);
        }
        while let Err((error, refused)) = producer.send(record) {
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                    producer.poll(PRODUCER_POLL);
                    record = refused;
                }
                error => return Err(error.into()),
            }
        }
    }
    let begin = Instant::now();
    while producer.in_flight_count() > 0 {
        producer.poll(PRODUCER_POLL);
        if begin.elapsed() > PRODUCER_DEADLINE {
            bail!("the broker does not take the last messages of \"{topic}\"");
        }
    }
    let mut found = 0;
    for partition in 0..partitions {
        let client = producer.client();
        let (low, high) = client.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
        found += high - low;
    }
    if found != count {
        bail!("\"{topic}\" has {found} messages instead of {count}");
    }
    Ok(())
}

/// Reads a topic of `count` messages as fast as it comes, from all partitions at once, and does nothing with it.
pub(super) fn consume(
    config: &ClientConfig,
    topic: &str,
    partitions: i32,
    count: i64,
    deadline: Duration,
) -> Result<Consumed> {
    let begin = Instant::now();
    let consumer = assigned(
        config,
        topic,
        (0..partitions).map(|id| (id, Offset::Beginning)),
    )?;
    let (mut found, mut bytes) = (0, 0);
    while found < count {
        match consumer.poll(CONSUMER_POLL) {
            Some(message) => {
                let message = message?;
                found += 1;
                bytes += message.key().map_or(0, <[u8]>::len);
                bytes += message.payload().map_or(0, <[u8]>::len);
            }
            None if begin.elapsed() > deadline => {
                bail!("{found} of {count} messages of \"{topic}\" after {deadline:?}");
            }
            None => {}
        }
    }
    Ok(Consumed {
        seconds: begin.elapsed().as_secs_f64(),
        bytes: u64::try_from(bytes)?,
    })
}

/// A consumer that reads partitions from these offsets on, without a group, with the settings that a source has (`ingest/src/kafka/reader.rs`), whose defaults are
/// slower: what is measured is what the source does beside.
pub(super) fn assigned(
    config: &ClientConfig,
    topic: &str,
    from: impl Iterator<Item = (i32, Offset)>,
) -> Result<BaseConsumer> {
    let mut config = config.clone();
    for (key, value) in [
        // Needed, but no group is joined.
        ("group.id", "bench"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        ("check.crcs", "true"),
        ("fetch.wait.max.ms", "100"),
        ("fetch.queue.backoff.ms", "20"),
        // 64 MiB for four partitions.
        ("queued.max.messages.kbytes", "16384"),
    ] {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for (partition, offset) in from {
        list.add_partition_offset(topic, partition, offset)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}
