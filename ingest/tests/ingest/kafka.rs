//! A topic of a real Kafka: its first content, what follows, restarts, and everything that can happen to a topic meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{Schema, SchemaRef};
use flowstone_ingest::{BufferLimits, Error, ask};
use flowstone_proto::kafka::{
    AvroFormat, Envelope, Format, Include, KafkaBroker, KafkaColumn, KafkaConnection, KafkaSource,
    KafkaStart, KafkaTable, OnDecodeError, RegistryConnection, Sasl, SaslMechanism, SchemaRequest,
    Tls,
};
use flowstone_proto::message::{
    RequestError, SourceColumn, SourceKind, SourceStatus, SourceTable, UpstreamAnswer,
    UpstreamConnection, UpstreamQuestion,
};
use flowstone_tests::kafka::{Isolation, Listener, Record};
use flowstone_tests::{Kafka, Registry};
use flowstone_types::{ObjectId, SourcePosition, SqlType};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tempfile::TempDir;

use super::source::{Model, Row, Running, SOURCE, Setup};

const TABLE: ObjectId = ObjectId::User(10);
const OTHER: ObjectId = ObjectId::User(11);

type Offsets = BTreeMap<i32, i64>;

fn connection(kafka: &Kafka, listener: Listener) -> KafkaConnection {
    let address = kafka.bootstrap(listener);
    let brokers = address.split(',').map(|address| KafkaBroker {
        address: address.to_owned(),
        reached_at: None,
    });
    KafkaConnection {
        brokers: brokers.collect(),
        tls: None,
        sasl: None,
        progress_topic: None,
    }
}

fn source(kafka: &Kafka, topic: &str) -> KafkaSource {
    KafkaSource {
        connection: connection(kafka, Listener::Plaintext),
        topic: topic.to_owned(),
        start: KafkaStart::Earliest,
        metadata_interval: Duration::from_secs(1),
        group_id_prefix: Some("tests-".to_owned()),
    }
}

/// A table of columns: name, type, whether it may be NULL, where it comes from.
fn table(
    id: ObjectId,
    mut spec: KafkaTable,
    columns: &[(&str, SqlType, bool, KafkaColumn)],
    key: Vec<usize>,
) -> (SourceTable, (ObjectId, SchemaRef)) {
    spec.columns = columns.iter().map(|(_, _, _, from)| *from).collect();
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, sql_type, nullable, _)| sql_type.to_field(name, *nullable))
        .collect();
    let described = columns.iter().map(|(name, _, nullable, _)| SourceColumn {
        name: (*name).to_owned(),
        attribute: 0,
        type_oid: 0,
        type_modifier: -1,
        not_null: !nullable,
        as_text: false,
    });
    let table = SourceTable {
        id,
        upstream_schema: "kafka".to_owned(),
        upstream_name: "t".to_owned(),
        upstream_oid: 0,
        columns: described.collect(),
        key,
        upstream: spec.encode(),
    };
    (table, (id, Arc::new(Schema::new(fields))))
}

fn spec(key: Option<Format>, value: Format, envelope: Envelope) -> KafkaTable {
    KafkaTable {
        key,
        value,
        envelope,
        include: vec![Include::Partition],
        on_decode_error: OnDecodeError::Row,
        columns: Vec::new(),
    }
}

/// Keys and values as text; the newest value of each key.
fn upsert(id: ObjectId) -> (SourceTable, (ObjectId, SchemaRef)) {
    let spec = spec(Some(Format::Text), Format::Text, Envelope::Upsert);
    let columns = [
        ("key", SqlType::Text, false, KafkaColumn::Key(0)),
        ("text", SqlType::Text, true, KafkaColumn::Value(0)),
    ];
    table(id, spec, &columns, vec![0])
}

/// Values as text, and where they come from.
fn append(id: ObjectId) -> (SourceTable, (ObjectId, SchemaRef)) {
    let columns = [
        ("text", SqlType::Text, false, KafkaColumn::Value(0)),
        ("partition", SqlType::Int4, false, KafkaColumn::Include(0)),
    ];
    table(
        id,
        spec(None, Format::Text, Envelope::None),
        &columns,
        Vec::new(),
    )
}

/// A broker with a topic `t`, and the directory that it lives in.
async fn with_topic(partitions: i32) -> (TempDir, Kafka) {
    let dir = TempDir::new().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    kafka.create_topic("t", partitions, &[]).await.unwrap();
    (dir, kafka)
}

async fn setup(source: KafkaSource, tables: Vec<(SourceTable, (ObjectId, SchemaRef))>) -> Setup {
    let (tables, schemas) = tables.into_iter().unzip();
    Setup::with(SourceKind::Kafka(Box::new(source)), tables, schemas).await
}

/// Waits until everything before these offsets can be bound; returns what can.
async fn progress(running: &mut Running, offsets: &[(i32, i64)]) -> SourcePosition {
    let position = SourcePosition::KafkaOffsets(offsets.iter().copied().collect());
    running.progress_to(&position).await
}

fn offsets(position: &SourcePosition) -> Offsets {
    match position {
        SourcePosition::KafkaOffsets(offsets) => offsets.clone(),
        other => panic!("{other:?}"),
    }
}

/// What the first content of [`TABLE`] is, and where it ends.
async fn first_content(setup: &Setup, running: &mut Running) -> (SourcePosition, Model) {
    let first = running.snapshot_position(TABLE).await;
    let mut model = Model::default();
    let taken = running.take_to(&first, &[TABLE]).await;
    model.apply(setup, taken).await;
    (first, model)
}

fn row(cells: &[&str]) -> Row {
    cells.iter().map(|cell| Some((*cell).to_owned())).collect()
}

#[tokio::test]
async fn the_newest_value_of_each_key_is_a_row_and_deletions_take_it_away() {
    let (_dir, kafka) = with_topic(2).await;
    let records = [
        Record::new("a", "1").to_partition(0),
        Record::new("b", "1").to_partition(1),
        Record::new("a", "2").to_partition(0),
        Record::tombstone("c").to_partition(0),
    ];
    kafka.produce("t", &records).await.unwrap();
    let setup = setup(source(&kafka, "t"), vec![upsert(TABLE), append(OTHER)]).await;
    let mut running = setup.run().await;
    let first = running.snapshot_position(TABLE).await;
    assert_eq!(offsets(&first), Offsets::from([(0, 3), (1, 1)]));
    running.snapshot_position(OTHER).await;
    let mut model = Model::default();
    let taken = running.take_to(&first, &[TABLE, OTHER]).await;
    model.apply(&setup, taken).await;
    assert_eq!(model.rows(TABLE), [row(&["a", "2"]), row(&["b", "1"])]);
    // A message without a value is no row of the other table.
    assert_eq!(
        model.rows(OTHER),
        [row(&["1", "0"]), row(&["1", "1"]), row(&["2", "0"])]
    );
    assert_eq!(model.row_errors(OTHER).len(), 1);
    let records = [
        Record::tombstone("a").to_partition(0),
        Record::new("d", "4").to_partition(1),
    ];
    kafka.produce("t", &records).await.unwrap();
    let next = progress(&mut running, &[(0, 4), (1, 2)]).await;
    let taken = running.take_to(&next, &[]).await;
    model.apply(&setup, taken).await;
    assert_eq!(model.rows(TABLE), [row(&["b", "1"]), row(&["d", "4"])]);
    running.handle.stop().await;
}

#[tokio::test]
async fn what_was_bound_is_given_again_after_a_restart_wherever_it_was_cut() {
    let (_dir, kafka) = with_topic(2).await;
    let numbered = |partition: i32, numbers: std::ops::Range<i32>| -> Vec<Record> {
        numbers
            .map(|number| Record::of_value(number.to_string()).to_partition(partition))
            .collect()
    };
    kafka.produce("t", &numbered(0, 0..100)).await.unwrap();
    kafka.produce("t", &numbered(1, 0..50)).await.unwrap();
    let mut setup = setup(source(&kafka, "t"), vec![append(TABLE)]).await;
    let mut running = setup.run().await;
    let (first, mut model) = first_content(&setup, &mut running).await;
    assert_eq!(model.rows(TABLE).len(), 150);
    kafka.produce("t", &numbered(0, 100..200)).await.unwrap();
    let all = progress(&mut running, &[(0, 200), (1, 50)]).await;
    let taken = running.take_to(&all, &[]).await;
    model.apply(&setup, taken).await;
    running.handle.stop().await;
    // Nothing of it got into a commit point; and there is more now than there was.
    kafka.produce("t", &numbered(1, 50..60)).await.unwrap();
    setup.description.bound = true;
    let mut running = setup.run().await;
    let mut again = Model::default();
    let taken = running.take_to(&first, &[TABLE]).await;
    again.apply(&setup, taken).await;
    assert_eq!(again.rows(TABLE).len(), 150);
    let taken = running.take_to(&all, &[]).await;
    again.apply(&setup, taken).await;
    assert_eq!(again, model);
    running.handle.stop().await;
    // From a commit point in the middle of what once was one batch.
    let middle = SourcePosition::KafkaOffsets(Offsets::from([(0, 150), (1, 50)]));
    setup.description.resume_from = Some(middle);
    setup.description.snapshotted = vec![TABLE];
    let mut running = setup.run().await;
    let taken = running.take_to(&all, &[]).await;
    let mut rest = Model::default();
    rest.apply(&setup, taken).await;
    assert_eq!(rest.rows(TABLE).len(), 50);
    running.handle.acknowledge(&all);
    running.handle.stop().await;
}

#[tokio::test]
async fn transactions_come_when_they_have_ended_and_not_at_all_if_they_are_aborted() {
    let (_dir, kafka) = with_topic(1).await;
    let mut config = kafka.client_config();
    config.set("transactional.id", "x");
    let write = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = config.create().unwrap();
        let wait = Duration::from_secs(30);
        producer.init_transactions(wait).unwrap();
        for (value, commits) in [("a", true), ("b", false), ("c", true)] {
            producer.begin_transaction().unwrap();
            let record = BaseRecord::<[u8], str>::to("t").payload(value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            producer.flush(wait).unwrap();
            if commits {
                producer.commit_transaction(wait).unwrap();
            } else {
                producer.abort_transaction(wait).unwrap();
            }
        }
        // Open until the process ends.
        producer.begin_transaction().unwrap();
        let record = BaseRecord::<[u8], str>::to("t").payload("d");
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(wait).unwrap();
        producer
    });
    let producer = write.await.unwrap();
    let setup = setup(source(&kafka, "t"), vec![append(TABLE)]).await;
    let mut running = setup.run().await;
    // Each message and each end has an offset; what is open begins at 6.
    let (first, mut model) = first_content(&setup, &mut running).await;
    assert_eq!(offsets(&first), Offsets::from([(0, 6)]));
    assert_eq!(model.rows(TABLE), [row(&["a", "0"]), row(&["c", "0"])]);
    let commit = tokio::task::spawn_blocking(move || {
        producer
            .commit_transaction(Duration::from_secs(30))
            .unwrap();
    });
    commit.await.unwrap();
    // Up to the end, though the last offset is that of a marker.
    let last = progress(&mut running, &[(0, 8)]).await;
    let taken = running.take_to(&last, &[]).await;
    model.apply(&setup, taken).await;
    assert_eq!(model.rows(TABLE).len(), 3);
    running.handle.stop().await;
}

#[tokio::test]
async fn a_table_that_is_added_has_the_whole_topic_and_new_partitions_are_found() {
    let (_dir, kafka) = with_topic(1).await;
    let value = |text: &str, partition: i32| Record::of_value(text).to_partition(partition);
    kafka
        .produce("t", &[value("a", 0), value("b", 0)])
        .await
        .unwrap();
    let mut setup = setup(source(&kafka, "t"), vec![append(TABLE)]).await;
    let mut running = setup.run().await;
    let first = running.snapshot_position(TABLE).await;
    running.take_to(&first, &[TABLE]).await;
    let (added, schema) = append(OTHER);
    setup
        .delta
        .create(OTHER, "other", Arc::clone(&schema.1))
        .await
        .unwrap();
    setup.description.tables.push(added.clone());
    setup.schemas.push(schema.clone());
    running.handle.add_tables(vec![added], vec![schema]).await;
    let position = running.snapshot_position(OTHER).await;
    kafka.grow_topic("t", 2).await.unwrap();
    kafka.produce("t", &[value("c", 1)]).await.unwrap();
    let next = progress(&mut running, &[(0, 2), (1, 1)]).await;
    assert!(next.covers(&position));
    let taken = running.take_to(&next, &[OTHER]).await;
    let mut model = Model::default();
    model.apply(&setup, taken).await;
    assert_eq!(model.rows(TABLE), [row(&["c", "1"])]);
    assert_eq!(
        model.rows(OTHER),
        [row(&["a", "0"]), row(&["b", "0"]), row(&["c", "1"])]
    );
    running.handle.stop().await;
}

/// Adds a table to a source that runs, and waits for its first content; returns where that ends.
async fn add(
    setup: &mut Setup,
    running: &mut Running,
    added: (SourceTable, (ObjectId, SchemaRef)),
) -> SourcePosition {
    let (table, schema) = added;
    let id = table.id;
    let name = id.to_string();
    let created = setup.delta.create(id, &name, Arc::clone(&schema.1));
    created.await.unwrap();
    setup.description.tables.push(table.clone());
    setup.schemas.push(schema.clone());
    running.handle.add_tables(vec![table], vec![schema]).await;
    running.snapshot_position(id).await
}

#[tokio::test]
async fn a_table_without_a_key_that_is_added_leaves_out_what_was_sent_before_it_came() {
    let dir = TempDir::new().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    kafka.create_topic("t", 1, &[]).await.unwrap();
    let event = |id: i64| {
        Record::of_value(format!(
            "{{\"op\":\"c\",\"after\":{{\"id\":{id}}},\"source\":{{\"file\":\"b.1\",\"pos\":{id},\"row\":0}}}}"
        ))
    };
    kafka.produce("t", &[event(1), event(2)]).await.unwrap();
    let mut setup = setup(source(&kafka, "t"), vec![append(TABLE)]).await;
    let mut running = setup.run().await;
    let first = running.snapshot_position(TABLE).await;
    running.take_to(&first, &[TABLE]).await;
    let value = Format::JsonColumns(vec![("id".to_owned(), SqlType::Int8)]);
    let columns = [("id", SqlType::Int8, true, KafkaColumn::Value(0))];
    let changes = table(
        OTHER,
        spec(None, value, Envelope::Debezium),
        &columns,
        Vec::new(),
    );
    let position = add(&mut setup, &mut running, changes).await;
    assert_eq!(offsets(&position), Offsets::from([(0, 2)]));
    // The connector has begun again.
    let again = [event(1), event(2), event(3)];
    kafka.produce("t", &again).await.unwrap();
    let next = progress(&mut running, &[(0, 5)]).await;
    let taken = running.take_to(&next, &[OTHER]).await;
    let mut model = Model::default();
    model.apply(&setup, taken).await;
    assert_eq!(model.rows(OTHER), [row(&["1"]), row(&["2"]), row(&["3"])]);
    running.handle.stop().await;
}

#[tokio::test]
async fn what_is_removed_before_a_source_has_a_table_is_no_loss() {
    let dir = TempDir::new().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    kafka.create_topic("t", 1, &[]).await.unwrap();
    let values = |numbers: std::ops::Range<i32>| -> Vec<Record> {
        numbers
            .map(|number| Record::of_value(number.to_string()))
            .collect()
    };
    kafka.produce("t", &values(0..5)).await.unwrap();
    let mut setup = setup(source(&kafka, "t"), Vec::new()).await;
    let mut running = setup.run().await;
    let first = progress(&mut running, &[(0, 5)]).await;
    running.handle.stop().await;
    setup.description.resume_from = Some(first);
    kafka.produce("t", &values(5..10)).await.unwrap();
    kafka.delete_records("t", 0, 8).await.unwrap();
    let mut running = setup.run().await;
    progress(&mut running, &[(0, 10)]).await;
    let position = add(&mut setup, &mut running, append(TABLE)).await;
    let taken = running.take_to(&position, &[TABLE]).await;
    let mut model = Model::default();
    model.apply(&setup, taken).await;
    assert_eq!(model.rows(TABLE), [row(&["8", "0"]), row(&["9", "0"])]);
    running.handle.stop().await;
}

#[tokio::test]
async fn a_source_goes_on_at_once_when_the_table_in_its_way_is_dropped() {
    let dir = TempDir::new().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    kafka.create_topic("t", 1, &[]).await.unwrap();
    kafka.produce("t", &[Record::of_value("a")]).await.unwrap();
    let value = Format::JsonColumns(vec![("n".to_owned(), SqlType::Int8)]);
    let mut strict = spec(None, value, Envelope::None);
    strict.on_decode_error = OnDecodeError::Fail;
    let columns = [("n", SqlType::Int8, true, KafkaColumn::Value(0))];
    let strict = table(OTHER, strict, &columns, Vec::new());
    let setup = setup(source(&kafka, "t"), vec![append(TABLE), strict]).await;
    let mut running = setup.run().await;
    // The pauses are twice as long each time, and some seconds by then.
    for _attempt in 0..7 {
        running
            .status(SOURCE, |status| {
                matches!(status, SourceStatus::Stalled { .. })
            })
            .await;
    }
    running.handle.remove_tables(&[OTHER]).await;
    let goes_on = running.snapshot_position(TABLE);
    let goes_on = tokio::time::timeout(Duration::from_secs(2), goes_on);
    let first = goes_on.await.expect("it goes on before the pause is over");
    let taken = running.take_to(&first, &[TABLE]).await;
    let mut model = Model::default();
    model.apply(&setup, taken).await;
    assert_eq!(model.rows(TABLE), [row(&["a", "0"])]);
    running.handle.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_away_stalls_the_source_until_it_is_back() {
    let (_dir, mut kafka) = with_topic(1).await;
    kafka.produce("t", &[Record::of_value("a")]).await.unwrap();
    let setup = setup(source(&kafka, "t"), vec![append(TABLE)]).await;
    let mut running = setup.run().await;
    let first = running.snapshot_position(TABLE).await;
    running.take_to(&first, &[TABLE]).await;
    kafka.kill(1).unwrap();
    let stalled = running
        .status(SOURCE, |status| {
            matches!(status, SourceStatus::Stalled { .. })
        })
        .await;
    let SourceStatus::Stalled { error, hint } = stalled else {
        panic!("{stalled:?}");
    };
    assert!(error.starts_with("Kafka cannot be reached"), "{error}");
    assert!(hint.is_some());
    kafka.restart(1).await.unwrap();
    running
        .status(SOURCE, |status| *status == SourceStatus::Running)
        .await;
    kafka.produce("t", &[Record::of_value("b")]).await.unwrap();
    progress(&mut running, &[(0, 2)]).await;
    running.handle.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_altered_is_used_at_once_and_another_cluster_is_not_read() {
    let (dir, other_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let kafka = Kafka::start(dir.path()).await.unwrap();
    kafka.create_topic("t", 1, &[]).await.unwrap();
    kafka.produce("t", &[Record::of_value("a")]).await.unwrap();
    let right = source(&kafka, "t");
    let mut wrong = right.clone();
    wrong.connection.brokers[0].address = "127.0.0.1:1".to_owned();
    let setup = setup(wrong, vec![append(TABLE)]).await;
    let alter = |running: &Running, source: &KafkaSource| {
        let kind = SourceKind::Kafka(Box::new(source.clone()));
        running.handle.alter(kind, &setup.description.tables);
    };
    let mut running = setup.run().await;
    running
        .status(SOURCE, |status| {
            matches!(status, SourceStatus::Stalled { .. })
        })
        .await;
    alter(&running, &right);
    let first = running.snapshot_position(TABLE).await;
    let mut model = Model::default();
    let taken = running.take_to(&first, &[TABLE]).await;
    model.apply(&setup, taken).await;
    // Another cluster that lacks the topic, and then has one of the same name with more in it.
    let other = Kafka::start(other_dir.path()).await.unwrap();
    for has_topic in [false, true] {
        if has_topic {
            other.create_topic("t", 1, &[]).await.unwrap();
            let values = ["x", "y", "z"].map(Record::of_value);
            other.produce("t", &values).await.unwrap();
        }
        alter(&running, &source(&other, "t"));
        running
            .status(SOURCE, |status| {
                matches!(status, SourceStatus::Stalled { error, .. } if error.contains("cluster has id"))
            })
            .await;
        alter(&running, &right);
        running
            .status(SOURCE, |status| *status == SourceStatus::Running)
            .await;
    }
    kafka.produce("t", &[Record::of_value("b")]).await.unwrap();
    let next = progress(&mut running, &[(0, 2)]).await;
    let taken = running.take_to(&next, &[]).await;
    model.apply(&setup, taken).await;
    assert_eq!(model.rows(TABLE), [row(&["a", "0"]), row(&["b", "0"])]);
    assert!(running.handle.failure().is_none());
    running.handle.stop().await;
}

/// The message of a source that has failed for good.
async fn failure(running: &mut Running) -> String {
    let failed = running
        .status(SOURCE, |status| {
            matches!(status, SourceStatus::Failed { .. })
        })
        .await;
    let SourceStatus::Failed { error, .. } = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(running.handle.failure().unwrap().message, error);
    error
}

#[tokio::test]
async fn topics_that_are_gone_or_others_fail_the_source_for_good() {
    let dir = TempDir::new().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    let values: Vec<Record> = (0..5).map(|_| Record::of_value("x")).collect();
    for (topic, expected) in [
        ("deleted", "was deleted"),
        ("recreated", "was recreated"),
        ("short", "were removed before they were read"),
    ] {
        kafka.create_topic(topic, 1, &[]).await.unwrap();
        kafka.produce(topic, &values).await.unwrap();
        let mut setup = setup(source(&kafka, topic), vec![append(TABLE)]).await;
        let mut running = setup.run().await;
        let first = running.snapshot_position(TABLE).await;
        running.take_to(&first, &[TABLE]).await;
        running.handle.stop().await;
        setup.description.resume_from = Some(first.clone());
        setup.description.snapshotted = vec![TABLE];
        match topic {
            "short" => {
                kafka.produce(topic, &values).await.unwrap();
                kafka.delete_records(topic, 0, 8).await.unwrap();
            }
            _ => kafka.delete_topic(topic).await.unwrap(),
        }
        if topic == "recreated" {
            kafka.create_topic(topic, 1, &[]).await.unwrap();
        }
        let mut running = setup.run().await;
        let error = failure(&mut running).await;
        assert!(error.contains(expected), "{error}");
        let beyond = SourcePosition::KafkaOffsets(Offsets::from([(0, 9)]));
        let refused = running.try_take(&beyond, &[]).await;
        assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
        running.handle.stop().await;
    }
}

#[tokio::test]
async fn a_topic_that_is_much_larger_than_what_may_be_in_memory_comes_whole() {
    let (_dir, kafka) = with_topic(3).await;
    let records: Vec<Record> = (0..60_000)
        .map(|number| Record::of_value(format!("{number:0>100}")).to_partition(number % 3))
        .collect();
    kafka.produce("t", &records).await.unwrap();
    let setup = setup(source(&kafka, "t"), vec![append(TABLE)]).await;
    let limits = BufferLimits {
        memory_bytes: 1024 * 1024,
        disk_bytes: 1024 * 1024,
    };
    let mut running = setup.try_run_within(limits).await.unwrap();
    let (_, model) = first_content(&setup, &mut running).await;
    assert_eq!(model.rows(TABLE).len(), records.len());
    running.handle.stop().await;
}

#[tokio::test]
async fn messages_that_cannot_be_read_go_to_another_topic() {
    let (_dir, kafka) = with_topic(1).await;
    kafka.create_topic("dead", 1, &[]).await.unwrap();
    let mut bad = Record::new("k", vec![0xff_u8]);
    bad.headers = vec![("h".to_owned(), Some(b"1".to_vec()))];
    kafka
        .produce("t", &[Record::of_value("a"), bad])
        .await
        .unwrap();
    let mut spec = spec(None, Format::Text, Envelope::None);
    spec.on_decode_error = OnDecodeError::DeadLetter {
        topic: "dead".to_owned(),
    };
    let columns = [("text", SqlType::Text, false, KafkaColumn::Value(0))];
    let tables = vec![table(TABLE, spec, &columns, Vec::new())];
    let setup = setup(source(&kafka, "t"), tables).await;
    let mut running = setup.run().await;
    let (_, model) = first_content(&setup, &mut running).await;
    assert_eq!(model.rows(TABLE), [row(&["a"])]);
    assert!(model.row_errors(TABLE).is_empty());
    let dead = kafka.read("dead", Isolation::Committed).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].record.value.as_deref(), Some(&[0xff][..]));
    let names: Vec<&str> = dead[0]
        .record
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "h",
            "flowstone.error",
            "flowstone.topic",
            "flowstone.partition",
            "flowstone.offset"
        ]
    );
    running.handle.stop().await;
}

const AVRO: &str = r#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"}]}"#;
const AVRO_WIDER: &str = r#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"},{"name":"m","type":["null","string"],"default":null}]}"#;

#[tokio::test]
async fn schemas_come_from_the_registry_and_an_id_without_one_is_a_row_in_error() {
    let dir = TempDir::new().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    let registry = Registry::start(dir.path()).await.unwrap();
    kafka.create_topic("t", 1, &[]).await.unwrap();
    let old = registry.register("t-value", "AVRO", AVRO).await.unwrap();
    let new = registry
        .register("t-value", "AVRO", AVRO_WIDER)
        .await
        .unwrap();
    let framed = |id: u32, body: &[u8]| {
        let mut bytes = vec![0];
        bytes.extend(id.to_be_bytes());
        bytes.extend(body);
        Record::of_value(bytes)
    };
    // 1, then 2 with an "x", then an id that nobody has.
    let records = [
        framed(old, &[2]),
        framed(new, &[4, 2, 2, b'x']),
        framed(999_999, &[2]),
    ];
    kafka.produce("t", &records).await.unwrap();
    let connection = RegistryConnection {
        url: registry.url(),
        credentials: None,
        tls: None,
    };
    let question = UpstreamQuestion::Schema(
        connection.clone(),
        SchemaRequest::Latest("t-value".to_owned()),
    );
    let UpstreamAnswer::Schema(Some(latest)) = ask(&question).await.unwrap() else {
        panic!("there is no schema");
    };
    assert_eq!(latest.id, new);
    let value = Format::Avro(AvroFormat {
        reader: AVRO.to_owned(),
        references: Vec::new(),
        registry: Some(connection.clone()),
    });
    let columns = [("n", SqlType::Int8, false, KafkaColumn::Value(0))];
    let tables = vec![table(
        TABLE,
        spec(None, value, Envelope::None),
        &columns,
        Vec::new(),
    )];
    let setup = setup(source(&kafka, "t"), tables).await;
    let mut running = setup.run().await;
    let (_, model) = first_content(&setup, &mut running).await;
    assert_eq!(model.rows(TABLE), [row(&["1"]), row(&["2"])]);
    assert_eq!(model.row_errors(TABLE).len(), 1);
    running.handle.stop().await;
    let question = UpstreamQuestion::Validate(UpstreamConnection::Registry(connection));
    assert_eq!(ask(&question).await.unwrap(), UpstreamAnswer::Valid);
}

/// What is said of a connection that does not work.
async fn refusal(connection: KafkaConnection) -> String {
    let question = UpstreamQuestion::Validate(UpstreamConnection::Kafka(connection));
    match ask(&question).await {
        Err(RequestError::Upstream {
            message,
            hint: Some(_),
            ..
        }) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_connection_is_told_apart() {
    let dir = TempDir::new().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    let pem = |name: &str| std::fs::read_to_string(kafka.authority().path(name)).unwrap();
    let tls = |authority: &str| Tls {
        authority: Some(authority.to_owned()),
        identity: None,
    };
    let sasl = |password: &str| Sasl {
        mechanism: SaslMechanism::ScramSha256,
        user: "alice".to_owned(),
        password: password.to_owned(),
    };
    let good = KafkaConnection {
        tls: Some(tls(&pem("ca.pem"))),
        sasl: Some(sasl("alice-secret")),
        ..connection(&kafka, Listener::SaslSsl)
    };
    let question = UpstreamQuestion::Validate(UpstreamConnection::Kafka(good.clone()));
    assert_eq!(ask(&question).await.unwrap(), UpstreamAnswer::Valid);

    let wrong_password = KafkaConnection {
        sasl: Some(sasl("wrong")),
        ..good.clone()
    };
    let message = refusal(wrong_password).await;
    assert!(
        message.contains("refused the user or the password"),
        "{message}"
    );
    // A certificate that has signed nothing.
    let wrong_authority = KafkaConnection {
        tls: Some(tls(&pem("client.pem"))),
        ..good.clone()
    };
    let message = refusal(wrong_authority).await;
    assert!(message.contains("could not establish TLS"), "{message}");
    let wrong_protocol = KafkaConnection {
        tls: Some(tls(&pem("ca.pem"))),
        ..connection(&kafka, Listener::Plaintext)
    };
    let message = refusal(wrong_protocol).await;
    assert!(message.contains("does not speak the protocol"), "{message}");
    let nowhere = KafkaConnection {
        brokers: vec![KafkaBroker {
            address: "no-such-host.invalid:9092".to_owned(),
            reached_at: None,
        }],
        ..connection(&kafka, Listener::Plaintext)
    };
    let message = refusal(nowhere).await;
    assert!(
        message.contains("could not translate the name"),
        "{message}"
    );
}

#[tokio::test]
async fn a_topic_is_described_by_its_partitions() {
    let (_dir, kafka) = with_topic(3).await;
    let describe = |source: KafkaSource| async move {
        ask(&UpstreamQuestion::Describe(SourceKind::Kafka(Box::new(
            source,
        ))))
        .await
    };
    let UpstreamAnswer::Tables(tables) = describe(source(&kafka, "t")).await.unwrap() else {
        panic!("no tables");
    };
    assert_eq!((tables[0].name.as_str(), tables[0].oid), ("t", 3));
    let missing = describe(source(&kafka, "none")).await;
    assert!(
        matches!(&missing, Err(RequestError::Upstream { message, .. }) if message == "topic \"none\" does not exist"),
        "{missing:?}"
    );
    let mut beyond = source(&kafka, "t");
    beyond.start = KafkaStart::Offsets(vec![0; 4]);
    let beyond = describe(beyond).await;
    assert!(
        matches!(&beyond, Err(RequestError::Upstream { message, .. }) if message.contains("more partitions (4)")),
        "{beyond:?}"
    );
}
