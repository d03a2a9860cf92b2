//! A consumer of the topic of a source, and the partitions that it reads.
//!
//! Owns its settings, the assignment by offsets of ours, and how messages of a partition get into batches. Must not know why something is read, or what follows
//! if it cannot be. Called by the threads that read: [`super::reader`], [`super::early`]. Everything blocks for as long as a request may last.
//!
//! Invariants. That a position is claimed without a message only happens up to an end that was stated before everything below it was delivered.
//! An offset that is gone is an error, never passed over: `auto.offset.reset` is `error`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flowstone_proto::kafka::KafkaConnection;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use super::attempt::Ended;
use super::batch::{Batch, Lane};
use super::client::{self, Context, REQUEST_TIMEOUT, serve};
use super::state::Shared;

/// How long the thread sleeps if nobody wakes it: what it has to look at beside messages may wait that long.
pub(crate) const NAP: Duration = Duration::from_millis(100);
/// The least time between two looks for new partitions.
pub(crate) const METADATA_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Bytes that the library may fetch ahead: of all partitions, and of one at least and at most.
const AHEAD_BYTES: usize = 64 * 1024 * 1024;
const AHEAD_PARTITION_MIN: usize = 1024 * 1024;
const AHEAD_PARTITION_MAX: usize = 16 * 1024 * 1024;

/// A partition that is read.
pub(crate) struct Part {
    pub(crate) partition: i32,
    queue: PartitionQueue<Context>,
    batch: Batch,
    /// The next offset.
    pub(crate) next: i64,
    /// The end as it was stated before the partition was read.
    pub(crate) end: i64,
    /// What has to be below the end since statistics were looked at last: the next offset, and what was promised. What they say later is not older.
    pub(crate) looked_at: i64,
}

/// What reading from a partition came to.
pub(crate) enum Filled {
    /// The queue is empty.
    Drained,
    /// There may be more.
    Full,
}

impl Part {
    pub(crate) fn push(&mut self, message: &BorrowedMessage<'_>, with_headers: bool) {
        self.next = self.next.max(message.offset() + 1);
        self.batch.push(message, with_headers);
    }

    /// Everything up to the end was delivered.
    pub(crate) fn reach(&mut self, end: i64) {
        // The messages say as much, or what was reached before.
        if end > self.next {
            self.next = end;
            self.batch.reached = Some(end);
        }
    }

    /// Takes messages from the queue.
    pub(crate) fn fill(&mut self, with_headers: bool) -> Result<Filled, KafkaError> {
        while !self.batch.is_full() {
            let refused = match self.queue.poll(Duration::ZERO) {
                None => return Ok(Filled::Drained),
                Some(Ok(message)) => {
                    self.next = self.next.max(message.offset() + 1);
                    self.batch.push(&message, with_headers);
                    None
                }
                Some(Err(error)) => Some(error),
            };
            match refused {
                None => {}
                Some(KafkaError::PartitionEOF(_)) => self.reach(self.end),
                Some(error) => return Err(error),
            }
        }
        Ok(Filled::Full)
    }

    pub(crate) fn take(&mut self, lane: Lane) -> Option<Batch> {
        if self.batch.is_empty() {
            return None;
        }
        let next = self.batch.follower(lane);
        Some(std::mem::replace(&mut self.batch, next))
    }
}

/// Low and high ends of partitions.
pub(crate) type Watermarks = BTreeMap<i32, (i64, i64)>;

/// Bytes that may be fetched ahead of one partition, as far as it is known how many there are.
pub(crate) fn ahead_of_each(shared: &Shared) -> usize {
    let known = shared.manifest.get();
    ahead_of(known.map_or(1, |manifest| manifest.start.len()))
}

fn ahead_of(partitions: usize) -> usize {
    (AHEAD_BYTES / partitions.max(1)).clamp(AHEAD_PARTITION_MIN, AHEAD_PARTITION_MAX)
}

/// A consumer of the source's topic in the cluster at `connection`.
pub(crate) fn open(
    shared: &Shared,
    connection: &KafkaConnection,
    suffix: &str,
) -> Result<Arc<BaseConsumer<Context>>, Ended> {
    let source = &shared.own.source;
    let prefix = source.group_id_prefix.as_deref().unwrap_or_default();
    let ahead = ahead_of_each(shared);
    let interval_ms = source
        .metadata_interval
        .max(METADATA_INTERVAL_MIN)
        .as_millis();
    let mut config = client::config(connection);
    config.set(
        "group.id",
        format!("{prefix}flowstone-{}{suffix}", shared.id),
    );
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    // No group is joined: it is how long a consumer that is closed waits for somebody to take the last offsets.
    config.set("session.timeout.ms", "6000");
    config.set("enable.partition.eof", "true");
    config.set("auto.offset.reset", "error");
    config.set("isolation.level", "read_committed");
    config.set("check.crcs", "true");
    config.set("statistics.interval.ms", "1000");
    config.set("fetch.wait.max.ms", "100");
    config.set("fetch.queue.backoff.ms", "20");
    config.set("queued.max.messages.kbytes", (ahead / 1024).to_string());
    config.set(
        "topic.metadata.refresh.interval.ms",
        interval_ms.min(300_000).to_string(),
    );
    let consumer: BaseConsumer<Context> = config
        .create_with_context(Context::of_topic(&source.topic))
        .map_err(|error| Ended::Transient {
            message: format!("connection to Kafka cannot be used: {error}"),
            hint: Some("Check the options and the certificates of the connection.".to_owned()),
        })?;
    Ok(Arc::new(consumer))
}

/// The partitions of a topic, ascending; none if there is no such topic. What the consumer has to say beside that is heard.
pub(crate) fn partitions(consumer: &BaseConsumer<Context>, topic: &str) -> Result<Vec<i32>, Ended> {
    ask_partitions(consumer, topic)
        .unwrap_or_else(|error| Err(Ended::unanswered(&error, &serve(consumer))))
}

/// The same beside the thread that has the consumer, and hears it.
///
/// # Errors
/// That it is not answered.
pub(crate) fn ask_partitions(
    consumer: &BaseConsumer<Context>,
    topic: &str,
) -> Result<Result<Vec<i32>, Ended>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    Ok(partitions_of(&metadata, topic))
}

fn partitions_of(metadata: &Metadata, topic: &str) -> Result<Vec<i32>, Ended> {
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Ok(Vec::new());
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            return Ok(Vec::new());
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            return Err(Ended::Transient {
                message: format!("topic \"{topic}\" may not be read"),
                hint: Some("Allow the user of the connection to read the topic.".to_owned()),
            });
        }
        Some(error) => {
            return Err(Ended::transient(format!(
                "topic \"{topic}\" cannot be read: {error}"
            )));
        }
    }
    let mut ids: Vec<i32> = found
        .partitions()
        .iter()
        .map(|partition| partition.id())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// The ends of partitions: the oldest message, and where transactions have ended.
pub(crate) fn watermarks(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    partitions: &[i32],
) -> Result<Watermarks, Ended> {
    let mut found = Watermarks::new();
    for id in partitions {
        let ends = consumer
            .fetch_watermarks(topic, *id, REQUEST_TIMEOUT)
            .map_err(|error| Ended::unanswered(&error, &serve(consumer)))?;
        found.insert(*id, ends);
    }
    Ok(found)
}

/// Begins to fetch partitions: each with where to begin and its end.
pub(crate) fn assign(
    consumer: &Arc<BaseConsumer<Context>>,
    topic: &str,
    lane: Lane,
    partitions: impl Iterator<Item = (i32, i64, i64)>,
) -> Result<Vec<Part>, Ended> {
    let unusable =
        |error: &KafkaError| Ended::transient(format!("topic \"{topic}\" cannot be read: {error}"));
    let mut list = TopicPartitionList::new();
    let mut parts = Vec::new();
    for (partition, first, end) in partitions {
        list.add_partition_offset(topic, partition, Offset::Offset(first))
            .map_err(|error| unusable(&error))?;
        // Before it is fetched: what is forwarded by us stays so.
        let queue = consumer.split_partition_queue(topic, partition);
        let mut queue = queue.ok_or_else(|| {
            Ended::transient(format!(
                "partition {partition} of topic \"{topic}\" is unknown"
            ))
        })?;
        let reader = std::thread::current();
        queue.set_nonempty_callback(move || reader.unpark());
        parts.push(Part {
            partition,
            queue,
            batch: Batch::new(lane, partition),
            next: first,
            end,
            looked_at: 0,
        });
    }
    consumer.assign(&list).map_err(|error| unusable(&error))?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_partitions_there_are_the_less_is_fetched_ahead_of_each() {
        assert_eq!(ahead_of(0), AHEAD_PARTITION_MAX);
        assert_eq!(ahead_of(4), AHEAD_PARTITION_MAX);
        assert_eq!(ahead_of(8), AHEAD_BYTES / 8);
        assert_eq!(ahead_of(1000), AHEAD_PARTITION_MIN);
    }
}
