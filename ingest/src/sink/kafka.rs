//! A topic of Kafka and the progress topic beside it, written in transactions.
//!
//! Owns the producer, the topics that it makes, and what each error of the client means. Must not know what is written. Called by the writer of a sink.
//!
//! Invariants. The identity of the producer is that of the sink, so that a second one fences the first. The progress topic is read after that, with
//! `read_committed`: nothing can be added any more to what is found. A transaction that could neither be committed nor aborted is left to the next producer of
//! the same identity, and [`Failure::Lost`] says so. The progress topic is shared by sinks, so that an open transaction of one hides what others have committed
//! after it began: what is there is waited for until it has ended. A record says which offsets the topic has reached: one that ends before them is not written to.

use std::fmt;
use std::time::{Duration, Instant};

use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_proto::kafka::{KafkaConnection, KafkaSink, KafkaTopic, SaslMechanism};
use flowstone_types::ObjectId;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::delivered::{Delivered, Ends, Shortfall, shortfall};
use super::encode::Message;
use super::progress::{Progress, Recorded};
use super::{Failure, TopicLog};
use crate::kafka::describe;

/// How long brokers may take for one request of ours.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the end of a transaction is tried for; then the log is opened anew, which settles it.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one try of that takes; it is told that the brokers are waited for after as long.
const COMMIT_TRY: Duration = Duration::from_secs(10);

/// How long a transaction may take in all: the longest that brokers allow unless they are told otherwise (`transaction.max.timeout.ms`).
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// First and longest pause before the end of a transaction is tried again: brokers that are not ready for it may say so at once.
const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(20);
const RETRY_PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// Bytes of messages that wait in the client.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Bytes of one message: as many as the client can be told, since topics and brokers say what they take.
const MESSAGE_BYTES_MAX: &str = "1000000000";

/// How long the client has to make room before it is looked at again.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// How long what was sent has until it is looked at again.
const DELIVERY_PAUSE: Duration = Duration::from_millis(2);

/// How long there may be no room at all.
const ROOM_TIMEOUT: Duration = Duration::from_secs(60);

/// The setting of a topic that says what becomes of old records, and the value with which the newest of a key stays.
const CLEANUP_POLICY: &str = "cleanup.policy";
const COMPACT: &str = "compact";

/// What is said while nothing is taken.
const NO_ROOM: &str = "the brokers take no more messages";

type Client = ThreadedProducer<Delivered>;

/// The topic of one sink.
pub struct KafkaLog {
    id: ObjectId,
    sink: KafkaSink,
    producer: Option<Client>,
    partitions: i32,
    /// The offsets that the topic has reached with what counts.
    reached: Ends,
    /// What the user should know although nothing is wrong.
    warning: Option<String>,
    /// When the transaction was begun, if there is one.
    begun: Option<Instant>,
    /// What is waited for by a call that still blocks.
    waits: watch::Sender<Option<String>>,
    /// Nobody wants it any more.
    cancel: CancellationToken,
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog")
            .field("id", &self.id)
            .field("topic", &self.sink.topic.name)
            .field("open", &self.producer.is_some())
            .field("begun", &self.begun.is_some())
            .finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// The topic of a sink; nothing is connected yet. Once `cancel` says so, a transaction that is not complete is given up: whoever makes another sink to the
    /// topic then has nothing of this one behind its own messages.
    #[must_use]
    pub fn new(id: ObjectId, sink: KafkaSink, cancel: CancellationToken) -> Self {
        Self {
            id,
            sink,
            producer: None,
            partitions: 1,
            reached: Ends::new(),
            warning: None,
            begun: None,
            waits: watch::channel(None).0,
            cancel,
        }
    }

    fn check_wanted(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            return Err(Failure::Again("the sink is being stopped".to_owned()));
        }
        Ok(())
    }

    /// Hears what is waited for while a call blocks for long: the call itself says in the end what came of it.
    #[must_use]
    pub fn waits(&self) -> watch::Receiver<Option<String>> {
        self.waits.subscribe()
    }

    /// What the user should know of the topic as it was opened, although it can be written to.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn wait_for(&self, what: String) {
        drop(self.waits.send_replace(Some(what)));
    }

    fn progress_topic(&self) -> Result<&str, Failure> {
        let named = self.sink.connection.progress_topic.as_deref();
        named.ok_or_else(|| Failure::Data("no progress topic is named".to_owned()))
    }

    fn transactional_id(&self) -> String {
        self.sink.transactional_id(self.id)
    }

    fn client(&self) -> Result<&Client, Failure> {
        let lost = || Failure::Lost("the producer is not open".to_owned());
        self.producer.as_ref().ok_or_else(lost)
    }

    fn make_topics(&self) -> Result<(), Failure> {
        let progress = KafkaTopic {
            name: self.progress_topic()?.to_owned(),
            partitions: Some(1),
            replication: self.sink.topic.replication,
            settings: vec![(CLEANUP_POLICY.to_owned(), COMPACT.to_owned())],
        };
        let admin = self.admin()?;
        for topic in [&self.sink.topic, &progress] {
            make_topic(&admin, topic)?;
        }
        Ok(())
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Failure> {
        client_config(&self.sink.connection).create().map_err(again)
    }

    /// A progress topic that somebody else made may lose what is old: a sink that finds its record no more would write everything again.
    fn check_kept(&self) -> Result<(), Failure> {
        let topic = self.progress_topic()?;
        let admin = self.admin()?;
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let asked = [ResourceSpecifier::Topic(topic)];
        let described = futures::executor::block_on(admin.describe_configs(asked.iter(), &options));
        for described in described.map_err(again)? {
            match described {
                Ok(found) => {
                    let policy = found.get(CLEANUP_POLICY);
                    let policy = policy.and_then(|entry| entry.value.as_deref());
                    policy.map_or(Ok(()), |policy| keeps_newest(topic, policy))?;
                }
                // Who may write to it need not be allowed to see how it is kept.
                Err(
                    code @ (RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed),
                ) => {
                    tracing::warn!(sink = %self.id, topic, %code, "how a progress topic is kept cannot be seen");
                }
                Err(code) => {
                    let message =
                        format!("the settings of topic \"{topic}\" are not known: {code}");
                    return Err(of_code(code, message));
                }
            }
        }
        Ok(())
    }

    /// Clients that write only say that nobody has answered in time. One that reads is told why.
    fn explained(&self, failure: Failure) -> Failure {
        let found = match &failure {
            Failure::Again(_) => describe::trouble(&self.sink.connection),
            Failure::Lost(_) | Failure::Refused { .. } | Failure::Data(_) => None,
        };
        match found {
            Some((message, hint)) => Failure::Refused { message, hint },
            None => failure,
        }
    }

    fn connect(&self) -> Result<Client, Failure> {
        let mut config = client_config(&self.sink.connection);
        config
            .set("transactional.id", self.transactional_id())
            .set(
                "transaction.timeout.ms",
                TRANSACTION_TIMEOUT.as_millis().to_string(),
            )
            .set(
                "queue.buffering.max.kbytes",
                (QUEUE_BYTES_MAX / 1024).to_string(),
            )
            .set("message.max.bytes", MESSAGE_BYTES_MAX)
            .set("compression.type", self.sink.compression.as_str())
            .set("linger.ms", "5");
        let context = Delivered::new(&self.sink.topic.name);
        let producer: Client = config.create_with_context(context).map_err(again)?;
        producer.init_transactions(REQUEST_TIMEOUT).map_err(again)?;
        Ok(producer)
    }

    /// The newest record of this sink.
    fn read_progress(&self) -> Result<Option<Recorded>, Failure> {
        let topic = self.progress_topic()?;
        let consumer = self.consumer("read_committed")?;
        let partitions = partitions_of(&consumer, topic)?;
        if partitions != 1 {
            return Err(Failure::Refused {
                message: format!("topic \"{topic}\" has {partitions} partitions"),
                hint: Some("A progress topic has one partition.".to_owned()),
            });
        }
        self.check_kept()?;
        self.wait_until_settled(&consumer)?;
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(topic, 0, Offset::Beginning)
            .map_err(again)?;
        consumer.assign(&assignment).map_err(again)?;
        let key = self.sink.progress_key(self.id);
        let (mut found, mut heard) = (None, Instant::now());
        loop {
            match consumer.poll(ROOM_PAUSE) {
                None => {}
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if message.key() == Some(key.as_bytes()) {
                        found = message.payload().map(<[u8]>::to_vec);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                // One that is away may come back.
                Some(Err(error)) => {
                    tracing::debug!(%error, topic, "a progress topic is waited for");
                }
            }
            if heard.elapsed() > REQUEST_TIMEOUT {
                return Err(Failure::Again(format!(
                    "the end of topic \"{topic}\" was not reached"
                )));
            }
        }
        let recorded = found.map(|payload| Recorded::decode(&payload));
        let recorded = recorded.transpose().map_err(|error| Failure::Refused {
            message: error.to_string(),
            hint: Some("Something else writes to the progress topic.".to_owned()),
        })?;
        // What another topic holds says nothing of this one.
        Ok(recorded.filter(|recorded| recorded.is_of(&self.sink.topic.name)))
    }

    fn consumer(&self, isolation: &str) -> Result<BaseConsumer, Failure> {
        let mut config = client_config(&self.sink.connection);
        config
            // Needed, but no group is joined.
            .set("group.id", self.transactional_id())
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("isolation.level", isolation);
        config.create().map_err(again)
    }

    /// Waits until everything that is in the progress topic by now has been committed or aborted. Who reads what is committed sees nothing that comes after the
    /// beginning of a transaction which has not ended, be it another sink's: the record of ours may be among that.
    fn wait_until_settled(&self, committed: &BaseConsumer) -> Result<(), Failure> {
        let topic = self.progress_topic()?;
        let all = self.consumer("read_uncommitted")?;
        let (_, end) = all
            .fetch_watermarks(topic, 0, REQUEST_TIMEOUT)
            .map_err(again)?;
        let begun = Instant::now();
        loop {
            // To this client the end is the last offset that is stable.
            let (_, stable) = committed
                .fetch_watermarks(topic, 0, REQUEST_TIMEOUT)
                .map_err(again)?;
            if stable >= end {
                return Ok(());
            }
            if begun.elapsed() > REQUEST_TIMEOUT {
                return Err(Failure::Again(format!(
                    "a transaction in topic \"{topic}\" has not ended"
                )));
            }
            std::thread::sleep(ROOM_PAUSE);
        }
    }

    /// Refuses a topic that ends before what it had reached: it is not the one that was written to, or has lost what was.
    fn check_reached(&self, reached: &Ends) -> Result<(), Failure> {
        if reached.is_empty() {
            return Ok(());
        }
        let topic = self.sink.topic.name.as_str();
        // What others have in open transactions is there, too.
        let consumer = self.consumer("read_uncommitted")?;
        let mut ends = Ends::new();
        for partition in reached.keys().copied() {
            // Of what was made anew there may be less.
            let end = if partition < self.partitions {
                let marks = consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
                marks.map_err(again)?.1
            } else {
                0
            };
            ends.insert(partition, end);
        }
        match shortfall(reached, &ends) {
            Some(found) => Err(is_other(topic, found)),
            None => Ok(()),
        }
    }

    fn begin(&mut self) -> Result<(), Failure> {
        if self.begun.is_some() {
            return Ok(());
        }
        let begun = Instant::now();
        let client = self.client()?;
        client.begin_transaction().map_err(lost)?;
        client.context().begin();
        self.begun = Some(begun);
        Ok(())
    }

    /// Waits until the brokers have said of everything that was sent what became of it. What was not taken ends the transaction, which the next call says.
    fn settle(&self) -> Result<(), Failure> {
        let client = self.client()?;
        let (mut left, mut heard) = (client.in_flight_count(), Instant::now());
        let mut is_told = false;
        while left > 0 && client.client().fatal_error().is_none() {
            if heard.elapsed() > ROOM_TIMEOUT {
                return Err(Failure::Again(NO_ROOM.to_owned()));
            }
            if heard.elapsed() > COMMIT_TRY && !std::mem::replace(&mut is_told, true) {
                self.wait_for(NO_ROOM.to_owned());
            }
            self.check_wanted()?;
            client.poll(DELIVERY_PAUSE);
            let now = client.in_flight_count();
            if now < left {
                heard = Instant::now();
            }
            left = now;
        }
        Ok(())
    }

    /// Sends the record of what the messages before lead to, which says how far they reach.
    fn conclude(&mut self, progress: &Progress) -> Result<(), Failure> {
        self.begin()?;
        self.settle()?;
        let ends = self.client()?.context().ends();
        // Made anew since it was opened.
        if let Some(found) = shortfall(&self.reached, &ends) {
            return Err(is_other(&self.sink.topic.name, found));
        }
        self.reached.extend(ends);
        let recorded = Recorded {
            progress: *progress,
            topic: Some(self.sink.topic.name.clone()),
            partitions: Some(self.partitions),
            reached: self.reached.clone(),
        };
        let record = Message {
            key: Some(self.sink.progress_key(self.id).into_bytes()),
            value: Some(recorded.encode()),
            headers: Vec::new(),
            partition: 0,
        };
        self.enqueue(self.progress_topic()?, &record)
    }

    fn enqueue(&self, topic: &str, message: &Message) -> Result<(), Failure> {
        fits(topic, message)?;
        let client = self.client()?;
        let begun = Instant::now();
        let mut is_told = false;
        loop {
            match client.send(record_of(topic, message)) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    if begun.elapsed() > ROOM_TIMEOUT {
                        return Err(Failure::Again(NO_ROOM.to_owned()));
                    }
                    if begun.elapsed() > COMMIT_TRY && !std::mem::replace(&mut is_told, true) {
                        self.wait_for(NO_ROOM.to_owned());
                    }
                    self.check_wanted()?;
                    client.poll(ROOM_PAUSE);
                }
                Err((
                    KafkaError::MessageProduction(
                        RDKafkaErrorCode::State | RDKafkaErrorCode::Fatal,
                    ),
                    _,
                )) => return Err(reason(client)),
                Err((error, _)) => return Err(again(error)),
            }
        }
    }

    fn try_commit(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut pause = RETRY_PAUSE_FIRST;
        loop {
            let Err(error) = self.client()?.commit_transaction(COMMIT_TRY) else {
                return Ok(());
            };
            let is_retriable = match &error {
                KafkaError::Transaction(state) => {
                    // To abort one whose producer the brokers have forgotten says nothing of whether they had committed it before.
                    let is_forgotten = matches!(
                        state.code(),
                        RDKafkaErrorCode::UnknownProducerId
                            | RDKafkaErrorCode::InvalidProducerIdMapping
                    );
                    if is_forgotten {
                        return Err(lost(error));
                    }
                    if state.txn_requires_abort() && !state.is_fatal() {
                        return Err(again(error));
                    }
                    state.is_retriable() && !state.is_fatal()
                }
                // The end was not asked for yet: messages are on their way.
                KafkaError::Flush(_) => true,
                _ => false,
            };
            // It may go on by itself: the same call finds out.
            if !is_retriable || begun.elapsed() > COMMIT_TIMEOUT {
                return Err(lost(error));
            }
            self.wait_for(format!("Kafka: {error}"));
            std::thread::sleep(pause);
            pause = longer(pause);
        }
    }

    /// After an error: nothing of the transaction counts, unless it is lost.
    fn give_up(&mut self, failure: Failure) -> Failure {
        let took = self.begun.map(|begun| begun.elapsed());
        let failure = if matches!(failure, Failure::Lost(_)) {
            self.producer = None;
            self.begun = None;
            failure
        } else {
            match self.abort() {
                Ok(()) => failure,
                Err(lost) => lost,
            }
        };
        of_time(failure, took.unwrap_or_default())
    }
}

impl TopicLog for KafkaLog {
    fn open(&mut self) -> Result<Option<Progress>, Failure> {
        self.producer = None;
        self.begun = None;
        self.make_topics()
            .map_err(|failure| self.explained(failure))?;
        let producer = self.connect()?;
        let found = self.read_progress()?;
        let topic = self.sink.topic.name.as_str();
        let metadata = producer
            .client()
            .fetch_metadata(Some(topic), REQUEST_TIMEOUT);
        let count = count_of(&metadata.map_err(again)?, topic)?;
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        // Without a key and without a column that says it, everything goes to the first one.
        let is_divided = self.sink.key.is_some() || self.sink.partition_by.is_some();
        let before = found.as_ref().and_then(|recorded| recorded.partitions);
        self.warning = before
            .filter(|before| is_divided && *before != count)
            .map(|before| moved(topic, before, count));
        if let Some(warning) = &self.warning {
            tracing::warn!(sink = %self.id, "{warning}");
        }
        self.partitions = count;
        let progress = found.as_ref().map(|recorded| recorded.progress);
        let reached = found.map(|recorded| recorded.reached).unwrap_or_default();
        self.check_reached(&reached)?;
        self.reached = reached;
        self.producer = Some(producer);
        Ok(progress)
    }

    fn partitions(&self) -> i32 {
        self.partitions
    }

    fn send(&mut self, messages: &[Message]) -> Result<(), Failure> {
        let wanted = self.check_wanted().and_then(|()| self.begin());
        let sent = wanted.and_then(|()| {
            let topic = &self.sink.topic.name;
            messages
                .iter()
                .try_for_each(|message| self.enqueue(topic, message))
        });
        sent.map_err(|failure| self.give_up(failure))
    }

    fn commit(&mut self, progress: &Progress) -> Result<(), Failure> {
        let concluded = self.conclude(progress);
        let complete = concluded.and_then(|()| {
            self.check_wanted()?;
            // The step is undone as any other that fails.
            failpoint::reached(Kind::SinkTransaction, Step::Sync)
                .map_err(|error| Failure::Again(error.to_string()))
        });
        let committed = complete.and_then(|()| self.try_commit());
        committed.map_err(|failure| self.give_up(failure))?;
        self.begun = None;
        failpoint::reached(Kind::SinkTransaction, Step::Tell)
            .map_err(|error| self.give_up(Failure::Lost(error.to_string())))
    }

    fn abort(&mut self) -> Result<(), Failure> {
        if self.begun.take().is_none() {
            return Ok(());
        }
        let begun = Instant::now();
        let mut pause = RETRY_PAUSE_FIRST;
        loop {
            let Some(producer) = &self.producer else {
                return Ok(());
            };
            let Err(error) = producer.abort_transaction(REQUEST_TIMEOUT) else {
                return Ok(());
            };
            let retriable = matches!(&error, KafkaError::Transaction(state) if state.is_retriable() && !state.is_fatal());
            if !retriable || begun.elapsed() > REQUEST_TIMEOUT {
                self.producer = None;
                return Err(lost(error));
            }
            std::thread::sleep(pause);
            pause = longer(pause);
        }
    }
}

/// Why a transaction takes no more: a call that is not possible in it says what went wrong before.
fn reason(client: &Client) -> Failure {
    match client.begin_transaction() {
        Err(error) => again(error),
        Ok(()) => Failure::Lost("there was no transaction".to_owned()),
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(RETRY_PAUSE_LONGEST)
}

/// What is said of a transaction that failed after so long: brokers abort one that takes too long, and say of it that somebody else writes.
fn of_time(failure: Failure, took: Duration) -> Failure {
    match failure {
        Failure::Again(reason) | Failure::Lost(reason) if took >= TRANSACTION_TIMEOUT => {
            let minutes = TRANSACTION_TIMEOUT.as_secs() / 60;
            Failure::Refused {
                message: format!(
                    "the transaction took longer than the {minutes} minutes after which brokers abort it: {reason}"
                ),
                hint: Some(
                    "All changes of a commit, and the first content, are one transaction, which is begun again. Let brokers and network take more at once, or write less: COMPRESSION TYPE, a view of fewer rows, or WITH (SNAPSHOT = false) for changes only."
                        .to_owned(),
                ),
            }
        }
        other => other,
    }
}

/// What is said of a topic that cannot be the one that was written to.
fn is_other(topic: &str, found: Shortfall) -> Failure {
    let Shortfall {
        partition,
        reached,
        end,
    } = found;
    Failure::Refused {
        message: format!(
            "topic \"{topic}\" was recreated, or has lost messages: partition {partition} ends at offset {end}, and had reached {reached}"
        ),
        hint: Some(
            "Nothing is written, since what the topic held is gone. Drop the sink and create it again, which writes everything, or create one to another topic."
                .to_owned(),
        ),
    }
}

/// Refuses a progress topic in which the newest record of a key does not stay. `policy`: its `cleanup.policy`, a list.
fn keeps_newest(topic: &str, policy: &str) -> Result<(), Failure> {
    if policy.split(',').any(|part| part.trim() == COMPACT) {
        return Ok(());
    }
    Err(Failure::Refused {
        message: format!("topic \"{topic}\" has cleanup.policy \"{policy}\", and would lose how far sinks are"),
        hint: Some(
            "A progress topic is compacted: a sink whose record is gone writes everything again. Set cleanup.policy of the topic to compact."
                .to_owned(),
        ),
    })
}

/// What somebody should know of a topic that has other partitions than it had.
fn moved(topic: &str, before: i32, now: i32) -> String {
    format!(
        "Topic \"{topic}\" had {before} partitions and has {now} now: messages of a key may be in another partition than those before, and who reads them may see them in another order."
    )
}

/// A message for which there is never room would be waited for without end.
fn fits(topic: &str, message: &Message) -> Result<(), Failure> {
    let headers = message.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
    let bytes = message.bytes() + headers.sum::<usize>();
    // What it is beside that in the client is much less than this.
    if bytes < QUEUE_BYTES_MAX - 1024 {
        return Ok(());
    }
    Err(Failure::Refused {
        message: format!("a message of {bytes} bytes is too large for topic \"{topic}\""),
        hint: Some(format!(
            "Write less than {QUEUE_BYTES_MAX} bytes into a row."
        )),
    })
}

fn record_of<'a>(topic: &'a str, message: &'a Message) -> BaseRecord<'a, [u8], [u8]> {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(message.partition);
    if let Some(key) = &message.key {
        record = record.key(key.as_slice());
    }
    if let Some(value) = &message.value {
        record = record.payload(value.as_slice());
    }
    if !message.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in &message.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_deref(),
            });
        }
        record = record.headers(headers);
    }
    record
}

fn make_topic(
    admin: &AdminClient<DefaultClientContext>,
    topic: &KafkaTopic,
) -> Result<(), Failure> {
    // -1: as the brokers have it.
    let replication = TopicReplication::Fixed(topic.replication.unwrap_or(-1));
    let mut new = NewTopic::new(&topic.name, topic.partitions.unwrap_or(-1), replication);
    for (name, value) in &topic.settings {
        new = new.set(name, value);
    }
    let options = AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .operation_timeout(Some(REQUEST_TIMEOUT));
    let made = futures::executor::block_on(admin.create_topics(&[new], &options));
    for result in made.map_err(again)? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                // Who may not make topics may have been given one.
                let known = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT);
                let known = known.map_err(again)?;
                if !known.topics().iter().any(|found| found.name() == name) {
                    return Err(of_code(
                        code,
                        format!("topic \"{name}\" cannot be made: {code}"),
                    ));
                }
            }
        }
    }
    Ok(())
}

fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<usize, Failure> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT);
    count_of(&metadata.map_err(again)?, topic)
}

/// Partitions of a topic. A broker that has not heard of a new one knows of none: what it says then must not be where keys go.
fn count_of(metadata: &Metadata, topic: &str) -> Result<usize, Failure> {
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.map_or(0, |found| found.partitions().len()) {
        0 => Err(Failure::Again(format!(
            "topic \"{topic}\" is not known to the brokers yet"
        ))),
        count => Ok(count),
    }
}

/// What every client of a cluster is told.
fn client_config(connection: &KafkaConnection) -> ClientConfig {
    let brokers = connection.brokers.iter();
    let brokers = brokers.map(|broker| broker.reached_at.as_ref().unwrap_or(&broker.address));
    let brokers: Vec<&str> = brokers.map(String::as_str).collect();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.join(","));
    config.set("client.id", "flowstone");
    config.set(
        "security.protocol",
        match (&connection.tls, &connection.sasl) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        },
    );
    if let Some(tls) = &connection.tls {
        if let Some(authority) = &tls.authority {
            config.set("ssl.ca.pem", authority.as_str());
        }
        if let Some((certificate, key)) = &tls.identity {
            config.set("ssl.certificate.pem", certificate.as_str());
            config.set("ssl.key.pem", key.as_str());
        }
    }
    if let Some(sasl) = &connection.sasl {
        config.set(
            "sasl.mechanism",
            match sasl.mechanism {
                SaslMechanism::Plain => "PLAIN",
                SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
                SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            },
        );
        config.set("sasl.username", sasl.user.as_str());
        config.set("sasl.password", sasl.password.as_str());
    }
    config
}

/// What an error means that leaves the log as it is.
fn again(error: KafkaError) -> Failure {
    let message = format!("Kafka: {error}");
    let is_fatal = match &error {
        KafkaError::Transaction(state) => state.is_fatal(),
        other => other.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal),
    };
    match error.rdkafka_error_code() {
        Some(code) => match of_code(code, message) {
            Failure::Again(message) if is_fatal => Failure::Lost(message),
            failure => failure,
        },
        None => match error {
            KafkaError::AdminOp(code) => of_code(code, message),
            KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => Failure::Refused {
                message,
                hint: None,
            },
            _ => Failure::Again(message),
        },
    }
}

fn lost(error: KafkaError) -> Failure {
    Failure::Lost(format!("Kafka: {error}"))
}

/// Whether somebody has to do something.
fn of_code(code: RDKafkaErrorCode, message: String) -> Failure {
    let hint = match code {
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::TransactionalIdAuthorizationFailed => Some(
            "A sink writes to its topic and to the progress topic, reads the latter, and has a transactional id.",
        ),
        RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::Authentication => {
            Some("Check the user and the password of the connection.")
        }
        RDKafkaErrorCode::InvalidTransactionTimeout => {
            Some("Raise transaction.max.timeout.ms of the brokers to 15 minutes, its default.")
        }
        RDKafkaErrorCode::MessageSizeTooLarge => {
            Some("Raise max.message.bytes of the topic, or write less into a row.")
        }
        RDKafkaErrorCode::InvalidTopic
        | RDKafkaErrorCode::InvalidPartitions
        | RDKafkaErrorCode::InvalidReplicationFactor
        | RDKafkaErrorCode::InvalidConfig
        | RDKafkaErrorCode::PolicyViolation => Some("The brokers do not make such a topic."),
        _ => return Failure::Again(message),
    };
    Failure::Refused {
        message,
        hint: hint.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use flowstone_proto::kafka::{KafkaBroker, Sasl, Tls};

    use super::*;

    #[test]
    fn a_client_is_told_how_to_reach_a_cluster() {
        let connection = KafkaConnection {
            brokers: vec![
                KafkaBroker {
                    address: "a:9092".to_owned(),
                    reached_at: None,
                },
                KafkaBroker {
                    address: "b:9092".to_owned(),
                    reached_at: Some("c:1".to_owned()),
                },
            ],
            tls: Some(Tls {
                authority: Some("PEM".to_owned()),
                identity: None,
            }),
            sasl: Some(Sasl {
                mechanism: SaslMechanism::ScramSha512,
                user: "u".to_owned(),
                password: "p".to_owned(),
            }),
            progress_topic: None,
        };
        let config = client_config(&connection);
        assert_eq!(config.get("bootstrap.servers"), Some("a:9092,c:1"));
        assert_eq!(config.get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(config.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        assert_eq!(config.get("ssl.ca.pem"), Some("PEM"));
    }

    #[test]
    fn a_message_that_never_has_room_is_refused_at_once() {
        let message = |bytes: usize| Message {
            key: Some(vec![0; 8]),
            value: Some(vec![0; bytes]),
            headers: vec![("h".to_owned(), Some(vec![0; 8]))],
            partition: 0,
        };
        assert_eq!(fits("t", &message(32 << 20)), Ok(()));
        let refused = fits("t", &message(QUEUE_BYTES_MAX)).unwrap_err();
        assert!(refused.to_string().contains("too large for topic \"t\""));
    }

    #[test]
    fn a_progress_topic_that_is_not_compacted_is_refused() {
        for kept in ["compact", "compact,delete", "delete, compact"] {
            assert_eq!(keeps_newest("p", kept), Ok(()), "{kept}");
        }
        for lost in ["delete", ""] {
            let refused = keeps_newest("p", lost).unwrap_err();
            assert!(matches!(refused, Failure::Refused { hint: Some(_), .. }));
            let message = format!("topic \"p\" has cleanup.policy \"{lost}\"");
            assert!(refused.to_string().starts_with(&message), "{refused}");
        }
    }

    #[test]
    fn a_transaction_that_brokers_abort_for_its_length_is_told_from_others() {
        for failure in [
            Failure::Lost("fenced".to_owned()),
            Failure::Again("aborted".to_owned()),
        ] {
            let short = of_time(failure.clone(), Duration::from_secs(899));
            assert_eq!(short, failure);
            let long = of_time(failure, TRANSACTION_TIMEOUT);
            assert!(matches!(long, Failure::Refused { hint: Some(_), .. }));
            assert!(long.to_string().contains("longer than the 15 minutes"));
        }
        let refused = Failure::Refused {
            message: "too large".to_owned(),
            hint: None,
        };
        assert_eq!(of_time(refused.clone(), TRANSACTION_TIMEOUT), refused);
    }

    #[test]
    fn what_somebody_has_to_mend_is_told_from_what_passes() {
        let refused = RDKafkaErrorCode::TopicAuthorizationFailed;
        let refused = again(KafkaError::MetadataFetch(refused));
        assert!(matches!(refused, Failure::Refused { hint: Some(_), .. }));
        let away = RDKafkaErrorCode::BrokerTransportFailure;
        let away = again(KafkaError::MetadataFetch(away));
        assert!(matches!(away, Failure::Again(_)));
    }
}
