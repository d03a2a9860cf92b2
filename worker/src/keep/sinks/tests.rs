//! Sinks against a topic in memory: what can be read of it is always what the collection held at some commit point.

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::Schema;
use flowstone_ingest::sink::{Encoder, Failure, Message, TopicLog};
use flowstone_proto::kafka::{KafkaBroker, KafkaConnection, KafkaTopic, SinkEnvelope, SinkFormat};
use flowstone_types::{ClusterId, InstallationId, SqlType, Weights};
use proptest::collection::vec;
use proptest::prelude::*;

use super::backlog::Next;
use super::write::{Folding, Messages, sum_of, write};
use super::*;

const VIEW: ObjectId = ObjectId::User(1);
const OTHER: ObjectId = ObjectId::User(2);

/// So few that changes are put together and forgotten now and then: a row has 16 bytes.
const LIMITS: Limits = Limits {
    bytes_max: 160,
    merge_bytes: 64,
    transaction_bytes: 48,
};

/// What happens at the end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It is given up.
    Aborted,
    /// It is not known what became of it: nothing did.
    LostBefore,
    /// It is not known what became of it: it counts.
    LostAfter,
}

/// A topic with its progress, as who reads what is committed sees them.
#[derive(Debug, Default)]
struct Topic {
    records: Vec<Message>,
    progress: Option<Progress>,
    /// How often it was opened: the last one may write.
    opened: u64,
}

/// One who writes to it.
#[derive(Debug)]
struct Writer {
    topic: Arc<Mutex<Topic>>,
    number: u64,
    sent: Vec<Message>,
    fault: Fault,
}

impl Writer {
    fn new(topic: &Arc<Mutex<Topic>>) -> Self {
        Self {
            topic: Arc::clone(topic),
            number: 0,
            sent: Vec::new(),
            fault: Fault::None,
        }
    }

    fn is_fenced(&self) -> bool {
        self.topic.lock().opened != self.number
    }
}

fn lost() -> Failure {
    Failure::Lost("lost".to_owned())
}

impl TopicLog for Writer {
    fn open(&mut self) -> Result<Option<Progress>, Failure> {
        let mut topic = self.topic.lock();
        topic.opened += 1;
        self.number = topic.opened;
        self.sent.clear();
        Ok(topic.progress)
    }

    fn partitions(&self) -> i32 {
        3
    }

    fn send(&mut self, messages: &[Message]) -> Result<(), Failure> {
        if self.is_fenced() {
            return Err(lost());
        }
        self.sent.extend_from_slice(messages);
        Ok(())
    }

    fn commit(&mut self, progress: &Progress) -> Result<(), Failure> {
        let sent = std::mem::take(&mut self.sent);
        if self.is_fenced() {
            return Err(lost());
        }
        match self.fault {
            Fault::Aborted => return Err(Failure::Again("aborted".to_owned())),
            Fault::LostBefore => return Err(lost()),
            Fault::None | Fault::LostAfter => {}
        }
        let mut topic = self.topic.lock();
        if let Some(before) = topic.progress {
            assert!(
                before.epoch <= progress.epoch,
                "{progress:?} after {before:?}"
            );
        }
        topic.records.extend(sent);
        topic.progress = Some(*progress);
        if self.fault == Fault::LostAfter {
            return Err(lost());
        }
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Failure> {
        self.sent.clear();
        Ok(())
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        SqlType::Int8.to_field("k", false),
        SqlType::Int8.to_field("v", false),
    ]))
}

pub(super) fn sink(envelope: SinkEnvelope, snapshot: bool) -> KafkaSink {
    let key = (envelope != SinkEnvelope::None).then(|| (SinkFormat::Json, vec![0]));
    KafkaSink {
        connection: KafkaConnection {
            brokers: Vec::new(),
            tls: None,
            sasl: None,
            progress_topic: None,
        },
        topic: KafkaTopic {
            name: "t".to_owned(),
            partitions: None,
            replication: None,
            settings: Vec::new(),
        },
        key,
        value: SinkFormat::Json,
        envelope,
        headers: None,
        partition_by: None,
        compression: "none".to_owned(),
        snapshot,
        transactional_id_prefix: None,
        installation: InstallationId::default(),
    }
}

/// A key, a value and a weight.
type Row = (i64, i64, i64);

fn delta(rows: &[Row], epoch: Epoch) -> DeltaBatch {
    let column = |cell: fn(&Row) -> i64| -> ArrayRef {
        Arc::new(rows.iter().map(cell).collect::<Int64Array>())
    };
    let columns = vec![column(|row| row.0), column(|row| row.1)];
    let weights = rows.iter().map(|row| row.2).collect::<Int64Array>();
    let rows = RecordBatch::try_new(schema(), columns).unwrap();
    DeltaBatch::new(rows, Weights::Array(weights), epoch)
}

type Content = BTreeMap<(i64, i64), i64>;

/// A collection, its table, and the sink that writes it.
struct World {
    envelope: SinkEnvelope,
    /// What each epoch changes; the first one is 1.
    history: Vec<Vec<Row>>,
    /// The epoch of each version of the table.
    versions: Vec<Epoch>,
    /// The newest commit that ended.
    committed: (Epoch, Option<i64>),
    /// What it changed, until it is durable.
    waiting: Option<Vec<DeltaBatch>>,
    durable: (Epoch, Option<i64>),
    backlog: Backlog,
    messages: Messages,
    folding: Folding,
    topic: Arc<Mutex<Topic>>,
    writer: Writer,
    /// Numbers of rows that are never taken back.
    appended: i64,
}

impl World {
    fn new(envelope: SinkEnvelope, snapshot: bool) -> Self {
        let kafka = sink(envelope, snapshot);
        let topic = Arc::new(Mutex::new(Topic::default()));
        let mut world = Self {
            envelope,
            history: Vec::new(),
            versions: Vec::new(),
            committed: (Epoch::MIN, None),
            waiting: None,
            durable: (Epoch::MIN, None),
            backlog: Backlog::new(VIEW, snapshot, None, Epoch::MIN, LIMITS),
            messages: Messages {
                encoder: Encoder::new(&kafka, &schema()).unwrap(),
                partitioner: None,
            },
            folding: Folding::of(&kafka),
            writer: Writer::new(&topic),
            topic,
            appended: 0,
        };
        world.pass();
        world
    }

    fn now(&self) -> Epoch {
        Epoch(u64::try_from(self.history.len()).unwrap())
    }

    fn content_at(&self, epoch: Epoch) -> Content {
        let mut content = Content::new();
        let count = usize::try_from(epoch.0).unwrap();
        for (key, value, weight) in self.history.iter().take(count).flatten() {
            *content.entry((*key, *value)).or_default() += weight;
        }
        content.retain(|_, weight| *weight != 0);
        content
    }

    fn content_of(&self, version: Option<i64>) -> Content {
        version.map_or_else(Content::new, |version| {
            self.content_at(self.versions[usize::try_from(version).unwrap()])
        })
    }

    /// An epoch in which a key gets a value, or goes.
    fn set(&mut self, key: i64, value: Option<i64>) {
        if self.envelope == SinkEnvelope::None {
            self.appended += 1;
            self.history
                .push(vec![(self.appended, value.unwrap_or_default(), 1)]);
            return;
        }
        let content = self.content_at(self.now());
        let old = content.keys().find(|(known, _)| *known == key);
        let old = old.map(|(_, value)| *value);
        if old == value {
            self.history.push(Vec::new());
            return;
        }
        let gone = old.map(|old| (key, old, -1));
        let come = value.map(|value| (key, value, 1));
        self.history.push(gone.into_iter().chain(come).collect());
    }

    fn commit(&mut self) {
        let (before, version) = self.committed;
        if self.waiting.is_some() || before == self.now() {
            return;
        }
        let mut deltas = Vec::new();
        for epoch in before.0 + 1..=self.now().0 {
            let rows = &self.history[usize::try_from(epoch - 1).unwrap()];
            if !rows.is_empty() {
                deltas.push(delta(rows, Epoch(epoch)));
            }
        }
        let mut version = version;
        if !deltas.is_empty() {
            self.versions.push(self.now());
            version = Some(i64::try_from(self.versions.len() - 1).unwrap());
        }
        self.committed = (self.now(), version);
        self.waiting = Some(deltas);
    }

    fn progress(&self) -> Progress {
        Progress {
            epoch: self.durable.0,
            collection: VIEW,
            version: self.durable.1,
        }
    }

    fn pass(&mut self) {
        let (progress, epoch) = (self.progress(), self.durable.0);
        self.backlog.pass(progress, epoch);
    }

    /// `is_told`: whether the sink is told what has changed.
    fn become_durable(&mut self, is_told: bool) {
        let Some(deltas) = self.waiting.take() else {
            return;
        };
        let has_changed = self.durable.1 != self.committed.1;
        self.durable = self.committed;
        if has_changed {
            let to = self.progress();
            self.backlog.changed(to, is_told.then_some(deltas));
        }
        self.pass();
    }

    /// The worker ends, and recovers to the commit point. Epochs after it are run again as they were.
    fn crash(&mut self) {
        self.waiting = None;
        self.committed = self.durable;
        self.backlog = Backlog::new(VIEW, true, None, self.durable.0, LIMITS);
        self.writer = Writer::new(&self.topic);
        self.pass();
    }

    fn merge(&mut self) {
        if let Some((deltas, to)) = self.backlog.to_merge() {
            let sum = sum_of(&deltas, to.epoch).unwrap();
            self.backlog.merged(vec![sum], to);
        }
    }

    fn difference(&self, from: Option<Progress>, to: Progress) -> Vec<DeltaBatch> {
        let rows = |content: Content, sign: i64| {
            let rows = content.into_iter();
            rows.map(|((key, value), weight)| (key, value, weight * sign))
                .collect::<Vec<_>>()
        };
        let before = from.map_or_else(Content::new, |from| self.content_of(from.version));
        let after = rows(self.content_of(to.version), 1);
        vec![delta(&rows(before, -1), to.epoch), delta(&after, to.epoch)]
    }

    /// Does what is next. Returns whether there was something.
    fn act(&mut self, fault: Fault) -> bool {
        self.writer.fault = fault;
        let (deltas, to) = match self.backlog.next() {
            Next::Unsettled | Next::Wait | Next::Blocked(_) => return false,
            Next::Ahead(held) => panic!("{held:?} after {:?}", self.durable),
            Next::Open => {
                let found = self.writer.open().unwrap();
                self.backlog.opened(found);
                return true;
            }
            Next::Mark(to) => (Vec::new(), to),
            Next::Write(deltas, to) => (deltas, to),
            Next::Difference(from, to) => (self.difference(from, to), to),
        };
        let (messages, folding) = (&self.messages, &self.folding);
        match write(&mut self.writer, messages, folding, deltas, &to) {
            Ok(_) => self.backlog.wrote(to),
            Err(Failure::Again(_)) => {}
            Err(Failure::Lost(_)) => self.backlog.lost(),
            Err(failure) => panic!("{failure:?}"),
        }
        true
    }

    /// Whoever reads what is committed finds what the topic says that it holds.
    fn check(&self) {
        let topic = self.topic.lock();
        let Some(progress) = topic.progress else {
            assert!(topic.records.is_empty());
            return;
        };
        assert!(progress.epoch <= self.durable.0, "{progress:?}");
        let content = self.content_of(progress.version);
        let expected: Vec<(i64, String)> = content
            .keys()
            .map(|(key, value)| (*key, format!(r#"{{"k":{key},"v":{value}}}"#)))
            .collect();
        let text = |bytes: &Option<Vec<u8>>| {
            let bytes = bytes.clone();
            bytes.map(|bytes| String::from_utf8(bytes).unwrap())
        };
        let records = topic
            .records
            .iter()
            .map(|record| (text(&record.key), text(&record.value)));
        if self.envelope == SinkEnvelope::None {
            let mut found: Vec<String> = records.filter_map(|(_, value)| value).collect();
            found.sort_unstable();
            let mut rows: Vec<String> = expected.into_iter().map(|(_, row)| row).collect();
            rows.sort_unstable();
            assert_eq!(found, rows);
            return;
        }
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in records {
            let key = key.unwrap();
            let after = match self.envelope {
                SinkEnvelope::Upsert | SinkEnvelope::None => value,
                SinkEnvelope::Debezium => {
                    let before = found.get(&key).map_or("null", String::as_str);
                    let begins = format!(r#"{{"before":{before},"after":"#);
                    let value = value.unwrap();
                    let after = value.strip_prefix(&begins);
                    let after = after.and_then(|after| after.strip_suffix('}'));
                    let after = after.unwrap_or_else(|| panic!("{value} after {before}"));
                    (after != "null").then(|| after.to_owned())
                }
            };
            match after {
                Some(row) => found.insert(key, row),
                None => found.remove(&key),
            };
        }
        let expected: BTreeMap<String, String> = expected
            .into_iter()
            .map(|(key, row)| (format!(r#"{{"k":{key}}}"#), row))
            .collect();
        assert_eq!(found, expected);
    }

    /// Everything that there is gets into the topic.
    fn finish(&mut self) {
        self.become_durable(true);
        self.commit();
        self.become_durable(true);
        for _ in 0..100 {
            if !self.act(Fault::None) {
                let progress = self.topic.lock().progress;
                let version = progress.and_then(|progress| progress.version);
                assert_eq!(self.content_of(version), self.content_at(self.now()));
                return;
            }
            self.check();
        }
        panic!("there is always something left: {:?}", self.backlog);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Set(i64, Option<i64>),
    Commit,
    Durable(bool),
    Act(Fault),
    Merge,
    Crash,
    /// Somebody else opens the topic and goes again.
    Fence,
}

fn step() -> impl Strategy<Value = Step> {
    let set = (0_i64..4, proptest::option::weighted(0.7, 0_i64..5));
    let fault = prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::Aborted),
        1 => Just(Fault::LostBefore),
        2 => Just(Fault::LostAfter),
    ];
    prop_oneof![
        8 => set.prop_map(|(key, value)| Step::Set(key, value)),
        4 => Just(Step::Commit),
        4 => proptest::bool::weighted(0.9).prop_map(Step::Durable),
        6 => fault.prop_map(Step::Act),
        1 => Just(Step::Merge),
        1 => Just(Step::Crash),
        1 => Just(Step::Fence),
    ]
}

fn envelope() -> impl Strategy<Value = SinkEnvelope> {
    prop_oneof![
        Just(SinkEnvelope::Upsert),
        Just(SinkEnvelope::Debezium),
        Just(SinkEnvelope::None),
    ]
}

proptest! {
    #[test]
    fn what_is_committed_is_what_the_collection_held_whatever_happens(
        envelope in envelope(),
        steps in vec(step(), 0..120),
    ) {
        let mut world = World::new(envelope, true);
        for step in steps {
            match step {
                Step::Set(key, value) => world.set(key, value),
                Step::Commit => world.commit(),
                Step::Durable(is_told) => world.become_durable(is_told),
                Step::Act(fault) => {
                    world.act(fault);
                }
                Step::Merge => world.merge(),
                Step::Crash => world.crash(),
                Step::Fence => world.topic.lock().opened += 1,
            }
            world.check();
        }
        world.finish();
    }
}

fn progress(epoch: u64, collection: ObjectId, version: i64) -> Progress {
    Progress {
        epoch: Epoch(epoch),
        collection,
        version: Some(version),
    }
}

#[test]
fn nothing_is_written_before_its_commit_is_durable() {
    let mut world = World::new(SinkEnvelope::Upsert, true);
    while world.act(Fault::None) {}
    let written = world.topic.lock().progress;
    world.set(1, Some(1));
    world.commit();
    assert!(!world.act(Fault::None));
    assert_eq!(world.topic.lock().progress, written);
    world.become_durable(true);
    assert!(world.act(Fault::None));
    assert_eq!(world.topic.lock().records.len(), 1);
}

#[test]
fn a_key_that_changes_in_several_epochs_of_a_commit_has_a_message_in_each() {
    let mut world = World::new(SinkEnvelope::Upsert, true);
    while world.act(Fault::None) {}
    for value in 0..3 {
        world.set(1, Some(value));
    }
    world.commit();
    world.become_durable(true);
    assert!(world.act(Fault::None));
    let topic = world.topic.lock();
    let epochs: Vec<_> = topic
        .records
        .iter()
        .map(|record| record.headers[0].1.clone().unwrap())
        .collect();
    assert_eq!(epochs, [b"1", b"2", b"3"]);
}

#[test]
fn without_the_snapshot_only_changes_after_the_beginning_are_written() {
    let begin = progress(10, VIEW, 4);
    let mut backlog = Backlog::new(VIEW, false, Some(Epoch(11)), Epoch(10), LIMITS);
    backlog.pass(begin, Epoch(10));
    assert!(matches!(backlog.next(), Next::Open));
    backlog.opened(None);
    assert!(matches!(backlog.next(), Next::Mark(to) if to == begin));
    backlog.wrote(begin);
    let deltas = [11, 12].map(|epoch| delta(&[(1, 1, 1)], Epoch(epoch)));
    let end = progress(12, VIEW, 5);
    backlog.changed(end, Some(deltas.to_vec()));
    let Next::Write(deltas, to) = backlog.next() else {
        panic!("{backlog:?}");
    };
    assert_eq!(to, end);
    // What was there when the sink was made is not news.
    assert_eq!(deltas.len(), 1);
    assert_eq!(deltas[0].epoch, Epoch(12));
}

#[test]
fn without_the_snapshot_a_restart_before_anything_was_written_loses_no_change() {
    let begin = progress(10, VIEW, 4);
    let now = progress(20, VIEW, 7);
    let new = || Backlog::new(VIEW, false, Some(Epoch(20)), Epoch(20), LIMITS);
    let mut backlog = new().begun_with(Some(begin));
    backlog.pass(now, Epoch(20));
    backlog.opened(None);
    assert!(matches!(backlog.next(), Next::Mark(to) if to == begin));
    backlog.wrote(begin);
    assert!(matches!(
        backlog.next(),
        Next::Difference(Some(from), to) if from == begin && to == now
    ));
    backlog.wrote(now);
    assert!(matches!(backlog.next(), Next::Wait));
    // What another collection had is nothing to begin with.
    let mut other = new().begun_with(Some(progress(10, OTHER, 4)));
    other.pass(now, Epoch(20));
    other.opened(None);
    assert!(matches!(other.next(), Next::Mark(to) if to == now));
}

#[test]
fn a_sink_waits_for_the_moment_at_which_its_collection_has_its_rows() {
    let mut backlog = Backlog::new(VIEW, true, Some(Epoch(11)), Epoch(10), LIMITS);
    backlog.pass(progress(10, VIEW, 4), Epoch(10));
    backlog.opened(None);
    assert!(matches!(backlog.next(), Next::Unsettled));
    // No commit came, and nothing waits for one.
    backlog.pass(progress(10, VIEW, 4), Epoch(11));
    assert!(matches!(
        backlog.next(),
        Next::Difference(None, to) if to == progress(10, VIEW, 4)
    ));
}

#[test]
fn another_collection_follows_at_one_moment() {
    let mut backlog = Backlog::new(VIEW, true, None, Epoch(10), LIMITS);
    let held = progress(10, VIEW, 4);
    backlog.pass(held, Epoch(10));
    backlog.opened(Some(held));
    backlog.changed(
        progress(11, VIEW, 5),
        Some(vec![delta(&[(1, 1, 1)], Epoch(11))]),
    );
    backlog.alter(OTHER, Some(Epoch(12)));
    // What waits of the first one is part of the difference.
    assert!(matches!(backlog.next(), Next::Unsettled));
    let other = progress(12, OTHER, 1);
    backlog.pass(other, Epoch(12));
    assert!(matches!(
        backlog.next(),
        Next::Difference(Some(from), to) if from == held && to == other
    ));
    backlog.wrote(other);
    assert!(matches!(backlog.next(), Next::Wait));
    assert_eq!(backlog.written_through(), Some(Epoch(12)));
}

#[test]
fn a_transaction_of_the_collection_before_that_ends_late_skips_nothing() {
    let mut backlog = Backlog::new(VIEW, true, None, Epoch(10), LIMITS);
    let held = progress(10, VIEW, 4);
    backlog.pass(held, Epoch(10));
    backlog.opened(Some(held));
    let last = progress(13, VIEW, 5);
    backlog.changed(last, Some(vec![delta(&[(1, 1, 1)], Epoch(13))]));
    assert!(matches!(backlog.next(), Next::Write(..)));
    backlog.alter(OTHER, None);
    let other = progress(13, OTHER, 1);
    backlog.pass(other, Epoch(13));
    backlog.wrote(last);
    assert!(matches!(
        backlog.next(),
        Next::Difference(Some(from), to) if from == last && to == other
    ));
}

#[test]
fn what_was_put_together_with_changes_that_count_already_takes_nothing_back() {
    let mut backlog = Backlog::new(VIEW, true, None, Epoch(10), LIMITS);
    let held = progress(10, VIEW, 4);
    backlog.pass(held, Epoch(10));
    backlog.opened(Some(held));
    for version in 5..10 {
        let epoch = u64::try_from(version + 6).unwrap();
        let deltas = vec![delta(&[(version, 1, 1)], Epoch(epoch))];
        backlog.changed(progress(epoch, VIEW, version), Some(deltas));
    }
    let Next::Write(_, written) = backlog.next() else {
        panic!("{backlog:?}");
    };
    let newest = progress(15, VIEW, 9);
    assert_ne!(written, newest);
    // The end of the transaction is not heard, and what waits is put together until the topic can be asked.
    backlog.lost();
    let (deltas, to) = backlog.to_merge().unwrap();
    backlog.merged(vec![sum_of(&deltas, to.epoch).unwrap()], to);
    backlog.opened(Some(written));
    assert!(matches!(
        backlog.next(),
        Next::Difference(Some(from), to) if from == written && to == newest
    ));
}

/// A sink of the view since epoch 10, through a broker.
fn described(broker: &str) -> SinkDescription {
    let mut kafka = sink(SinkEnvelope::Debezium, false);
    kafka.connection.progress_topic = Some("progress".to_owned());
    kafka.connection.brokers.push(KafkaBroker {
        address: broker.to_owned(),
        reached_at: None,
    });
    SinkDescription {
        id: OTHER,
        cluster: ClusterId::DEFAULT,
        from: VIEW,
        schema: schema(),
        kafka,
        as_of: Some(Epoch(10)),
        begin: None,
    }
}

/// The sinks of a node that stops while a broker is silent do not wait until the client gives up, which takes half a minute.
#[test]
fn stopping_waits_for_no_broker() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stopped = runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let delta_tables = DeltaTables::open(dir.path()).await.unwrap();
        let (responses, _said) = mpsc::channel(16);
        let mut sinks = Sinks::new(responses, delta_tables);
        sinks.begin_at(Epoch(10));
        sinks.add_table(VIEW, Some(4));
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        sinks.create(described(&silent.local_addr().unwrap().to_string()));
        let _connection = silent.accept().await.unwrap();
        let stopping = tokio::time::timeout(std::time::Duration::from_secs(5), sinks.stop());
        stopping.await.is_ok()
    });
    // As the node does: what blocks is left behind.
    runtime.shutdown_background();
    assert!(stopped);
}

#[tokio::test]
async fn what_waits_waits_still_when_the_topic_is_reached_in_another_way() {
    let dir = tempfile::tempdir().unwrap();
    let delta_tables = DeltaTables::open(dir.path()).await.unwrap();
    let (responses, _said) = mpsc::channel(16);
    let mut sinks = Sinks::new(responses, delta_tables);
    sinks.begin_at(Epoch(10));
    sinks.add_table(VIEW, Some(4));
    // Nothing is waited for from here on: no task begins.
    sinks.create(described("wrong:1"));
    let before = Arc::clone(&sinks.sinks[&OTHER].shared);
    let (first, next) = (progress(10, VIEW, 4), progress(11, VIEW, 5));
    {
        let mut state = before.state.lock();
        let changes = vec![delta(&[(1, 1, 1)], Epoch(11))];
        state.backlog.changed(next, Some(changes));
        state.total.messages = 3;
    }
    sinks.alter(described("right:1"));
    let altered = &sinks.sinks[&OTHER];
    assert_eq!(altered.kafka.connection.brokers[0].address, "right:1");
    assert!(!Arc::ptr_eq(&before, &altered.shared));
    // What the old task has yet to say is of nothing.
    before.state.lock().backlog.wrote(next);
    let mut state = altered.shared.state.lock();
    assert_eq!(state.total.messages, 3);
    assert!(matches!(state.backlog.next(), Next::Open));
    // It begins where it was made, and not where it was altered.
    state.backlog.opened(None);
    assert!(matches!(state.backlog.next(), Next::Mark(to) if to == first));
    state.backlog.wrote(first);
    assert!(matches!(state.backlog.next(), Next::Write(_, to) if to == next));
}

#[test]
fn a_topic_that_is_ahead_is_left_alone() {
    let mut backlog = Backlog::new(VIEW, true, None, Epoch(10), LIMITS);
    backlog.pass(progress(10, VIEW, 4), Epoch(10));
    backlog.opened(Some(progress(11, VIEW, 5)));
    assert!(matches!(backlog.next(), Next::Ahead(_)));
}

#[test]
fn errors_stop_what_is_written_until_they_are_gone() {
    let mut backlog = Backlog::new(VIEW, true, None, Epoch(10), LIMITS);
    let held = progress(10, VIEW, 4);
    backlog.pass(held, Epoch(10));
    backlog.opened(Some(held));
    backlog.block(Some("division by zero".to_owned()));
    assert!(matches!(backlog.next(), Next::Blocked(_)));
    backlog.changed(
        progress(11, VIEW, 5),
        Some(vec![delta(&[(1, 1, 1)], Epoch(11))]),
    );
    backlog.block(None);
    assert!(matches!(backlog.next(), Next::Write(..)));
}

#[test]
fn two_rows_of_a_key_end_the_sink() {
    let mut world = World::new(SinkEnvelope::Upsert, true);
    while world.act(Fault::None) {}
    let rows = delta(&[(1, 1, 1), (1, 2, 1)], Epoch(1));
    let to = progress(1, VIEW, 1);
    let (messages, folding) = (&world.messages, &world.folding);
    let written = write(&mut world.writer, messages, folding, vec![rows], &to);
    assert_eq!(
        written,
        Err(Failure::Data(
            "there is more than one row of a key: k=1".to_owned()
        ))
    );
    assert!(world.topic.lock().records.is_empty());
}
