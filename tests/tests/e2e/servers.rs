//! The servers that other tests are about to use do what those rely on: Kafka's listeners, faults and transactions, the registry's doors, Debezium.

use std::time::Duration;

use flowstone_tests::connect::{mysql_connector, postgres_connector, write_avro};
use flowstone_tests::kafka::{Isolation, Listener, Mechanism, Record, Stored};
use flowstone_tests::{
    Connect, Kafka, KafkaOptions, Mysql, MysqlKind, Postgres, Registry, RegistryOptions, wait,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const DEADLINE: Duration = Duration::from_secs(60);

fn texts(found: &[Stored]) -> Vec<String> {
    found.iter().map(Stored::text).collect()
}

/// Everything in a topic once it holds so many records.
async fn wait_records(kafka: &Kafka, topic: &str, count: usize) -> Vec<Stored> {
    wait::until("records", DEADLINE, async || {
        match kafka.read(topic, Isolation::Committed).await {
            Ok(found) if found.len() >= count => Ok(found),
            Ok(found) => Err(format!("{:?}", texts(&found))),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_lets_in_whom_it_should_and_keeps_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::start(dir.path()).await.unwrap();
    let keep = [("retention.ms", "-1")];
    kafka.create_topic("t", 2, &keep).await.unwrap();
    let mut with_headers = Record::new("b", "2").to_partition(1);
    with_headers.headers = vec![("h".to_owned(), None), ("h".to_owned(), Some(vec![1]))];
    with_headers.timestamp_ms = Some(1_000);
    let records = [Record::new("a", "1").to_partition(0), with_headers.clone()];
    kafka.produce("t", &records).await.unwrap();
    kafka.kill(1).unwrap();
    kafka.restart(1).await.unwrap();
    let found = kafka.read("t", Isolation::Committed).await.unwrap();
    assert_eq!(texts(&found), ["1", "2"]);
    assert_eq!(found[1].record, with_headers);
    for (listener, mechanism) in [
        (Listener::Ssl, Mechanism::Plain),
        (Listener::Mtls, Mechanism::Plain),
        (Listener::SaslPlaintext, Mechanism::Plain),
        (Listener::SaslPlaintext, Mechanism::ScramSha256),
        (Listener::SaslSsl, Mechanism::ScramSha512),
    ] {
        let config = kafka.client_config_of(listener, mechanism);
        let client: BaseConsumer = config.create().unwrap();
        let metadata = tokio::task::spawn_blocking(move || {
            client
                .fetch_metadata(Some("t"), DEADLINE)
                .map(|metadata| metadata.topics()[0].partitions().len())
        });
        assert_eq!(metadata.await.unwrap(), Ok(2), "{listener:?} {mechanism:?}");
    }
    kafka.grow_topic("t", 3).await.unwrap();
    kafka
        .alter_topic("t", &[("max.message.bytes", "100000")])
        .await
        .unwrap();
    kafka.delete_records("t", 0, 2).await.unwrap_err();
    kafka.delete_records("t", 0, 1).await.unwrap();
    let found = kafka.read("t", Isolation::Committed).await.unwrap();
    assert_eq!(texts(&found), ["2"]);
    kafka.delete_topic("t").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_committed_records_sees_neither_aborted_nor_open_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    kafka.create_topic("t", 1, &[]).await.unwrap();
    let mut config = kafka.client_config();
    config.set("transactional.id", "writer");
    let producer: BaseProducer = config.create().unwrap();
    let producer = tokio::task::spawn_blocking(move || {
        producer.init_transactions(DEADLINE).unwrap();
        for (value, commit) in [("committed", true), ("aborted", false)] {
            producer.begin_transaction().unwrap();
            let record = BaseRecord::<str, str>::to("t").payload(value);
            producer.send(record).unwrap();
            producer.flush(DEADLINE).unwrap();
            if commit {
                producer.commit_transaction(DEADLINE).unwrap();
            } else {
                producer.abort_transaction(DEADLINE).unwrap();
            }
        }
        producer.begin_transaction().unwrap();
        let record = BaseRecord::<str, str>::to("t").payload("open");
        producer.send(record).unwrap();
        producer.flush(DEADLINE).unwrap();
        producer
    });
    let producer = producer.await.unwrap();
    let found = kafka.read("t", Isolation::Committed).await.unwrap();
    assert_eq!(texts(&found), ["committed"]);
    let found = kafka.read("t", Isolation::Uncommitted).await.unwrap();
    assert_eq!(texts(&found), ["committed", "aborted", "open"]);
    kafka.delete_records("t", 0, 1).await.unwrap();
    let found = kafka.read("t", Isolation::Committed).await.unwrap();
    assert!(found.is_empty(), "{found:?}");
    drop(producer);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_serve_while_one_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let options = KafkaOptions {
        brokers: 3,
        ..KafkaOptions::default()
    };
    let mut kafka = Kafka::start_with(dir.path(), options).await.unwrap();
    kafka.create_topic("t", 3, &[]).await.unwrap();
    kafka.kill(2).unwrap();
    let records: Vec<Record> = (0..1000)
        .map(|number| Record::new(number.to_string(), "x"))
        .collect();
    kafka.produce("t", &records).await.unwrap();
    kafka.restart(2).await.unwrap();
    let found = kafka.read("t", Isolation::Committed).await.unwrap();
    assert_eq!(found.len(), records.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_keeps_schemas_and_its_doors() {
    let dir = tempfile::tempdir().unwrap();
    let options = RegistryOptions {
        user: Some(("alice".to_owned(), "alice-secret".to_owned())),
        tls: true,
    };
    let registry = Registry::start_with(dir.path(), options).await.unwrap();
    let of = |kind: &str| {
        format!(r#"{{"type":"record","name":"r","fields":[{{"name":"a","type":"{kind}"}}]}}"#)
    };
    let id = registry.register("s", "AVRO", &of("int")).await.unwrap();
    let path = format!("/schemas/ids/{id}");
    let answer = registry.request("GET", &path, None).await.unwrap();
    assert_eq!(answer.status, 200);
    registry
        .register("s", "AVRO", &of("string"))
        .await
        .unwrap_err();
    registry.set_compatibility("s", "NONE").await.unwrap();
    registry.register("s", "AVRO", &of("string")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn debezium_writes_what_mysql_and_postgres_change() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    let registry = Registry::start(dir.path()).await.unwrap();
    let connect = Connect::start(dir.path(), &kafka).await.unwrap();
    let mysql = Mysql::start(dir.path()).await.unwrap();
    mysql
        .execute("CREATE TABLE t (a INT PRIMARY KEY, b TEXT); INSERT INTO t VALUES (1, 'ä')")
        .unwrap();
    let connector = mysql_connector(&kafka, &mysql, "my", "test");
    connect.create("my", &connector).await.unwrap();
    wait_records(&kafka, "my.test.t", 1).await;
    mysql.execute("DELETE FROM t").unwrap();
    let found = wait_records(&kafka, "my.test.t", 3).await;
    assert!(texts(&found)[0].contains("\"op\":\"r\""), "{found:?}");
    assert!(texts(&found)[1].contains("\"op\":\"d\""), "{found:?}");
    assert_eq!(found[2].record.value, None);

    let postgres = Postgres::start(dir.path()).unwrap();
    let client = postgres.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let mut connector = postgres_connector(&postgres, "pg");
    write_avro(&mut connector, &registry);
    connect.create("pg", &connector).await.unwrap();
    let found = wait_records(&kafka, "pg.public.t", 1).await;
    // Confluent's framing: a zero, and the schema's id.
    assert_eq!(found[0].record.value.as_ref().unwrap()[..3], [0, 0, 0]);
    connect.delete("pg").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_and_mariadb_keep_what_was_committed_when_they_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [MysqlKind::Mysql, MysqlKind::Mariadb] {
        let mut mysql = Mysql::start_kind(dir.path(), kind).await.unwrap();
        mysql
            .execute("CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (2)")
            .unwrap();
        mysql.kill();
        mysql.restart().await.unwrap();
        assert_eq!(mysql.execute("SELECT SUM(a) FROM t").unwrap(), "3\n");
        mysql.stop().await.unwrap();
    }
}
