use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_schema::{Schema, SchemaRef};
use flowstone_proto::kafka::{
    Envelope, Format, KafkaBroker, KafkaColumn, KafkaConnection, KafkaSource, KafkaStart,
    KafkaTable, OnDecodeError,
};
use flowstone_proto::message::{SourceColumn, SourceTable};
use flowstone_types::SqlType;
use flowstone_types::clock::SystemClock;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::SourceEvent;
use crate::capture::{Attempt, State as _};
use crate::kafka::decode::DeadLetter;
use crate::kafka::state::{Binding, Own};
use crate::transactions::{BufferLimits, Part};

const TABLE: ObjectId = ObjectId::User(2);
/// How long anything may take before the test gives up.
const DEADLINE: Duration = Duration::from_secs(60);

/// A source that nobody reads for, and what it reports.
fn source(dir: &Path, broker: &str) -> (Arc<Shared>, mpsc::Receiver<SourceEvent>) {
    let connection = KafkaConnection {
        brokers: vec![KafkaBroker {
            address: broker.to_owned(),
            reached_at: None,
        }],
        tls: None,
        sasl: None,
        progress_topic: None,
    };
    let own = Own::new(KafkaSource {
        connection,
        topic: "t".to_owned(),
        start: KafkaStart::Earliest,
        metadata_interval: Duration::from_secs(60),
        group_id_prefix: None,
    });
    let (events, reported) = mpsc::channel(64);
    let (id, limits) = (ObjectId::User(1), BufferLimits::default());
    let shared = Shared::open(id, own, Arc::new(SystemClock), events, dir, limits).unwrap();
    (Arc::new(shared), reported)
}

/// A table of changes that has no key.
fn changes() -> (SourceTable, SchemaRef) {
    let spec = KafkaTable {
        key: None,
        value: Format::JsonColumns(vec![("id".to_owned(), SqlType::Int8)]),
        envelope: Envelope::Debezium,
        include: Vec::new(),
        on_decode_error: OnDecodeError::Row,
        columns: vec![KafkaColumn::Value(0)],
    };
    let column = SourceColumn {
        name: "id".to_owned(),
        attribute: 0,
        type_oid: 0,
        type_modifier: -1,
        not_null: false,
        as_text: false,
    };
    let table = SourceTable {
        id: TABLE,
        upstream_schema: "kafka".to_owned(),
        upstream_name: "t".to_owned(),
        upstream_oid: 0,
        columns: vec![column],
        key: Vec::new(),
        upstream: spec.encode(),
    };
    let schema = Schema::new(vec![SqlType::Int8.to_field("id", true)]);
    (table, Arc::new(schema))
}

/// Messages of partition 0 from an offset on: each is a new row with this number, which is its place in the log of the database as well.
fn batch(lane: Lane, first: i64, rows: &[i64]) -> Batch {
    let mut batch = Batch::new(lane, 0);
    for (offset, row) in (first..).zip(rows) {
        let event = format!(
            "{{\"op\":\"c\",\"after\":{{\"id\":{row}}},\"source\":{{\"file\":\"b.1\",\"pos\":{row},\"row\":0}}}}"
        );
        batch.add(offset, None, Some(event.as_bytes()), &[]);
    }
    batch
}

/// The rows that a take gives.
fn take(shared: &Shared, position: &Offsets, snapshots: &[ObjectId]) -> Vec<i64> {
    let binding = Binding {
        position,
        snapshots,
    };
    let attempt = shared.lock().try_take(&binding).unwrap();
    let Attempt::Taken(taken) = attempt else {
        panic!("it is not there");
    };
    let mut rows = Vec::new();
    for part in taken.tables.into_iter().flat_map(|table| table.parts) {
        let Part::Buffered(closed) = part else {
            panic!("nothing was written");
        };
        let (changes, _) = closed.into_changes();
        let column = changes.rows.column(0).as_primitive::<Int64Type>();
        rows.extend_from_slice(column.values());
    }
    rows
}

#[tokio::test]
async fn a_table_that_is_added_knows_what_was_sent_before_it_joined_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (shared, mut reported) = source(dir.path(), "localhost:1");
    let (start, bound) = (Offsets::from([(0, 0)]), Offsets::from([(0, 2)]));
    shared.lock().start(Vec::new(), Some(&bound), &[]);
    let (table, schema) = changes();
    shared.lock().add_table(table, schema);
    let early = shared.lock().begin_early(&start).unwrap();
    assert_eq!((&early.from, &early.until), (&None, &bound));
    let lane = Lane::Early(early.generation);
    let mut work = Work::new(Arc::clone(&shared));
    work.take_in(batch(lane, 0, &[1, 2])).await.unwrap();
    // Before its own reader has ended, the connector sends the same again.
    let again = [1, 2, 3];
    work.take_in(batch(Lane::Main, 2, &again)).await.unwrap();
    work.take_in(Batch::end(lane)).await.unwrap();
    assert!(reported.try_recv().is_err(), "it is not there yet");
    assert!(shared.lock().is_held());
    let on = shared.lock().begin_early(&start).unwrap();
    assert_eq!(on.generation, early.generation);
    assert_eq!(
        (on.from, on.until),
        (Some(bound.clone()), Offsets::from([(0, 5)]))
    );
    work.take_in(batch(lane, 2, &again)).await.unwrap();
    work.take_in(Batch::end(lane)).await.unwrap();
    assert!(!shared.lock().is_held());
    let SourceEvent::Snapshot { position, .. } = reported.try_recv().unwrap() else {
        panic!("it is not announced");
    };
    assert_eq!(
        position,
        super::super::offsets::position(&bound),
        "what may be bound already stays so"
    );
    // And once more, behind that.
    let more = batch(Lane::Main, 5, &[2, 3, 4]);
    work.take_in(more).await.unwrap();
    assert_eq!(take(&shared, &Offsets::from([(0, 4)]), &[TABLE]), [1, 2]);
    assert_eq!(take(&shared, &Offsets::from([(0, 8)]), &[]), [3, 4]);
}

#[tokio::test]
async fn nobody_waits_for_a_table_that_is_dropped_before_it_has_joined_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (shared, _reported) = source(dir.path(), "localhost:1");
    let (start, bound) = (Offsets::from([(0, 0)]), Offsets::from([(0, 1)]));
    shared.lock().start(Vec::new(), Some(&bound), &[]);
    let (table, schema) = changes();
    shared.lock().add_table(table, schema);
    let early = shared.lock().begin_early(&start).unwrap();
    let lane = Lane::Early(early.generation);
    let mut work = Work::new(Arc::clone(&shared));
    work.take_in(batch(lane, 0, &[1])).await.unwrap();
    work.take_in(batch(Lane::Main, 1, &[2])).await.unwrap();
    work.take_in(Batch::end(lane)).await.unwrap();
    assert!(shared.lock().is_held());
    shared.lock().remove_tables(&[TABLE]);
    assert!(!shared.lock().is_held());
    assert!(shared.lock().begin_early(&start).is_none());
}

#[tokio::test]
async fn what_stands_in_the_way_is_tried_again_at_once_when_tables_go() {
    let dir = tempfile::tempdir().unwrap();
    let (shared, _reported) = source(dir.path(), "localhost:1");
    let mut tables = shared.watch_tables();
    shared.tables_changed();
    let waiting = wait(&mut tables, Duration::from_secs(3600));
    let next = tokio::time::timeout(DEADLINE, waiting).await.unwrap();
    assert_eq!(next, PAUSE_FIRST);
}

#[tokio::test]
async fn dead_letters_are_written_by_another_producer_after_an_error_that_ends_one() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("dead", 1, 1).unwrap();
    // The user may not write yet in the way that the producer does.
    cluster.request_errors(
        RDKafkaApiKey::InitProducerId,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED],
    );
    let dir = tempfile::tempdir().unwrap();
    let (shared, _reported) = source(dir.path(), &cluster.bootstrap_servers());
    let mut work = Work::new(shared);
    let letter = DeadLetter {
        topic: "dead".to_owned(),
        partition: 0,
        offset: 7,
        reason: "no".to_owned(),
        key: None,
        value: Some(b"x".to_vec()),
        headers: Vec::new(),
    };
    let outcome = Outcome {
        dead: vec![letter],
        ..Outcome::default()
    };
    let mut done = HashMap::from([(TABLE, outcome)]);
    assert!(work.bury(&mut done).await.is_err());
    assert_eq!(done[&TABLE].dead.len(), 1);
    work.bury(&mut done).await.unwrap();
    assert!(done[&TABLE].dead.is_empty());
}
