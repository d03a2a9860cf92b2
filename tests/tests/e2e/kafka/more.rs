//! What sinks can be told beside their columns: which partition a message goes to, and defaults in the schemas of Avro.

use std::collections::BTreeMap;

use flowstone_tests::kafka::Listener;
use flowstone_tests::{Kafka, Node, Registry};
use serde_json::{Value, json};

use super::{Session, avro, until_records};

/// By id, the partition of the row that came.
async fn partitions(kafka: &Kafka, registry: &Registry, count: usize) -> BTreeMap<String, i32> {
    let records = until_records(kafka, "out", count).await;
    let changes = avro::values(registry, &records).await.unwrap();
    assert_eq!(records.len(), count, "{changes:?}");
    let rows = records.iter().zip(&changes);
    let found: BTreeMap<String, i32> = rows
        .map(|(stored, change)| (change["after"]["id"].to_string(), stored.partition))
        .collect();
    assert_eq!(found.len(), count, "each row once: {changes:?}");
    found
}

fn expected(rows: &[(&str, i32)]) -> BTreeMap<String, i32> {
    let rows = rows.iter();
    rows.map(|(id, partition)| ((*id).to_owned(), *partition))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_says_partitions_and_what_may_be_null_has_a_default() {
    let dir = tempfile::tempdir().unwrap();
    let (kafka, registry) =
        tokio::try_join!(Kafka::start(dir.path()), Registry::start(dir.path())).unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let session = Session::connect(&node).await;
    let broker = kafka.bootstrap(Listener::Plaintext);
    let url = registry.url();
    for sql in [
        format!(
            "CREATE CONNECTION kafka TO KAFKA (BROKER '{broker}', SECURITY PROTOCOL = 'PLAINTEXT')"
        ),
        format!("CREATE CONNECTION csr TO CONFLUENT SCHEMA REGISTRY (URL '{url}')"),
        "CREATE TABLE t (id bigint, name text)".to_owned(),
        // The last one times 2 is no bigint.
        "INSERT INTO t VALUES (0, 'a'), (1, 'b'), (2, NULL), (NULL, 'd'), (9223372036854775807, 'e')"
            .to_owned(),
    ] {
        session.run(&sql).await;
    }
    let sink = |expr: &str| {
        format!(
            "CREATE SINK s FROM t INTO KAFKA CONNECTION kafka (TOPIC 'out', TOPIC PARTITION COUNT 3, PARTITION BY = {expr}) \
             FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr (NULL DEFAULTS) ENVELOPE DEBEZIUM"
        )
    };
    for (expr, code) in [("name", "42804"), ("max(id)", "0A000"), ("x", "42703")] {
        let refused = session.refused(&sink(expr)).await;
        assert_eq!(refused.code, code, "{expr}: {}", refused.message);
    }
    session.run(&sink("t.id * 2")).await;
    let first = [
        ("0", 0),
        ("1", 2),
        ("2", 1),
        ("null", 0),
        ("9223372036854775807", 0),
    ];
    assert_eq!(
        partitions(&kafka, &registry, first.len()).await,
        expected(&first)
    );

    let latest = "/subjects/out-value/versions/latest";
    let answer = registry.request("GET", latest, None).await.unwrap();
    let answer = answer.json().unwrap();
    let schema: Value = serde_json::from_str(answer["schema"].as_str().unwrap()).unwrap();
    let fields = schema["fields"].as_array().unwrap();
    let columns = fields[0]["type"][1]["fields"].as_array().unwrap();
    assert_eq!((fields.len(), columns.len()), (2, 2), "{schema}");
    for field in fields.iter().chain(columns) {
        assert_eq!(field.get("default"), Some(&json!(null)), "{field}");
    }

    // The expression is planned again.
    node.kill().unwrap();
    node.restart().await.unwrap();
    let session = Session::connect(&node).await;
    session
        .run("INSERT INTO t VALUES (5, 'f'), (7, 'g'), (-1, 'h')")
        .await;
    let mut all = first.to_vec();
    all.extend([("5", 1), ("7", 2), ("-1", 0)]);
    assert_eq!(
        partitions(&kafka, &registry, all.len()).await,
        expected(&all)
    );
}
