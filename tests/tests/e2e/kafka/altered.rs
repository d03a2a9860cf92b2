//! Connections and secrets that are altered while sources and sinks use them: what goes on is theirs, without a restart.

use flowstone_tests::kafka::{Listener, Record, Stored};
use flowstone_tests::{Kafka, Node, Registry, RegistryOptions};

use super::bad_input::{until_sink_status, until_status};
use super::{Session, until_records};

/// What is in the topic of the sink, in the order of the texts.
async fn written(kafka: &Kafka, count: usize) -> Vec<String> {
    let records = until_records(kafka, "out", count).await;
    let mut texts: Vec<String> = records.iter().map(Stored::text).collect();
    texts.sort();
    texts
}

fn changes(ids: std::ops::RangeInclusive<i32>) -> Vec<String> {
    ids.map(|id| format!(r#"{{"before":null,"after":{{"id":{id}}}}}"#))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_and_a_sink_go_on_once_password_and_broker_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    kafka.create_topic("in", 1, &[]).await.unwrap();
    kafka.produce("in", &[Record::of_value("1")]).await.unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let session = Session::connect(&node).await;
    let broker = kafka.bootstrap(Listener::SaslPlaintext);
    for sql in [
        "CREATE SECRET password AS 'alice-secret'".to_owned(),
        format!(
            "CREATE CONNECTION kafka TO KAFKA (BROKER '{broker}', SECURITY PROTOCOL 'SASL_PLAINTEXT', \
             SASL MECHANISMS 'SCRAM-SHA-256', SASL USERNAME 'alice', SASL PASSWORD SECRET password)"
        ),
        "CREATE SOURCE s FROM KAFKA CONNECTION kafka (TOPIC 'in') FORMAT TEXT".to_owned(),
        "CREATE TABLE t (id int)".to_owned(),
        "INSERT INTO t VALUES (1)".to_owned(),
        "CREATE SINK o FROM t INTO KAFKA CONNECTION kafka (TOPIC 'out') FORMAT JSON ENVELOPE DEBEZIUM"
            .to_owned(),
    ] {
        session.run(&sql).await;
    }
    session.until("SELECT \"text\" FROM s", &["1"]).await;
    assert_eq!(written(&kafka, 1).await, changes(1..=1));
    let steps = [
        (
            "ALTER SECRET password AS 'wrong'".to_owned(),
            "ALTER SECRET password AS 'alice-secret'".to_owned(),
        ),
        (
            "ALTER CONNECTION kafka SET (BROKER '127.0.0.1:1') WITH (VALIDATE = false)".to_owned(),
            format!("ALTER CONNECTION kafka SET (BROKER '{broker}')"),
        ),
    ];
    let mut expected = vec!["1".to_owned()];
    for (id, (wrong, right)) in (2..).zip(steps) {
        session.run(&wrong).await;
        until_status(&session.client, "s", "stalled", "Kafka cannot be reached").await;
        until_sink_status(&session.client, "o", "stalled", "").await;
        let record = Record::of_value(id.to_string());
        kafka.produce("in", &[record]).await.unwrap();
        session.run(&format!("INSERT INTO t VALUES ({id})")).await;
        session.run(&right).await;
        expected.push(id.to_string());
        session.until("SELECT \"text\" FROM s", &expected).await;
        let count = expected.len();
        // Each row once.
        assert_eq!(written(&kafka, count).await, changes(1..=id));
        until_status(&session.client, "s", "running", "").await;
        until_sink_status(&session.client, "o", "running", "").await;
    }
}

const AVRO: &str = r#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"}]}"#;
const AVRO_WIDER: &str = r#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"},{"name":"m","type":["null","string"],"default":null}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_source_goes_on_once_its_registry_lets_it_in() {
    let dir = tempfile::tempdir().unwrap();
    let options = RegistryOptions {
        user: Some(("registry".to_owned(), "registry-secret".to_owned())),
        ..RegistryOptions::default()
    };
    let (kafka, registry) = tokio::try_join!(
        Kafka::start(dir.path()),
        Registry::start_with(dir.path(), options)
    )
    .unwrap();
    kafka.create_topic("t", 1, &[]).await.unwrap();
    let framed = |id: u32, body: &[u8]| {
        let mut bytes = vec![0];
        bytes.extend(id.to_be_bytes());
        bytes.extend(body);
        Record::of_value(bytes)
    };
    let old = registry.register("t-value", "AVRO", AVRO).await.unwrap();
    kafka.produce("t", &[framed(old, &[2])]).await.unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let session = Session::connect(&node).await;
    let (broker, url) = (kafka.bootstrap(Listener::Plaintext), registry.url());
    for sql in [
        "CREATE SECRET password AS 'registry-secret'".to_owned(),
        format!(
            "CREATE CONNECTION kafka TO KAFKA (BROKER '{broker}', SECURITY PROTOCOL 'PLAINTEXT')"
        ),
        format!(
            "CREATE CONNECTION csr TO CONFLUENT SCHEMA REGISTRY (URL '{url}', USERNAME 'registry', PASSWORD SECRET password)"
        ),
        "CREATE SOURCE s FROM KAFKA CONNECTION kafka (TOPIC 't') FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr"
            .to_owned(),
    ] {
        session.run(&sql).await;
    }
    session.until("SELECT n FROM s", &["1"]).await;
    // Only a schema that was not seen before has to be asked for.
    session.run("ALTER SECRET password AS 'wrong'").await;
    let new = registry
        .register("t-value", "AVRO", AVRO_WIDER)
        .await
        .unwrap();
    let record = framed(new, &[4, 2, 2, b'x']);
    kafka.produce("t", &[record]).await.unwrap();
    until_status(&session.client, "s", "stalled", "refuses").await;
    session
        .run("ALTER SECRET password AS 'registry-secret'")
        .await;
    session.until("SELECT n FROM s", &["1", "2"]).await;
    until_status(&session.client, "s", "running", "").await;
}
