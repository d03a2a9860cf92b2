//! What other systems write to topics: the chapters about CockroachDB, MongoDB, Striim and Redpanda with messages as these have them, and Debezium itself.

use std::path::Path;

use flowstone_tests::connect::{mysql_connector, postgres_connector, write_avro};
use flowstone_tests::kafka::{Isolation, Listener, Record};
use flowstone_tests::{Connect, Kafka, Mysql, Node, Postgres, Registry, RegistryOptions, wait};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::avro::Writer;
use super::{DEADLINE, INGEST, Session, cell, statements, trusting, until_records};

/// Brokers, registries and a node. The directory goes last.
struct World {
    node: Node,
    kafka: Kafka,
    /// HTTPS, and a user `foo`.
    secure: Registry,
    /// Open to everybody.
    open: Registry,
    dir: TempDir,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = RegistryOptions {
            user: Some(("foo".to_owned(), "foo-secret".to_owned())),
            tls: true,
        };
        let secure_dir = dir.path().join("secure");
        let (kafka, secure, open) = tokio::try_join!(
            Kafka::start(dir.path()),
            Registry::start_with(&secure_dir, options),
            Registry::start(dir.path()),
        )
        .unwrap();
        let authorities = [
            kafka.authority().path("ca.pem"),
            secure.ca().expect("it speaks HTTPS"),
        ];
        let options = trusting(dir.path(), &authorities);
        Self {
            node: Node::start_with(dir.path(), 2, options).await.unwrap(),
            kafka,
            secure,
            open,
            dir,
        }
    }

    /// A session in a schema of its own: the chapters give the same names to their connections.
    async fn session(&self, schema: &str) -> Session {
        let session = Session::connect(&self.node).await;
        session.run(&format!("CREATE SCHEMA {schema}")).await;
        session.run(&format!("SET search_path TO {schema}")).await;
        session
    }

    /// The connection that chapters without one of their own are about.
    fn plain_connection(&self) -> String {
        plain_connection(&self.kafka)
    }

    /// One of the client's files.
    fn pem(&self, file: &str) -> String {
        std::fs::read_to_string(self.kafka.authority().path(file)).unwrap()
    }
}

fn plain_connection(kafka: &Kafka) -> String {
    format!(
        "CREATE CONNECTION kafka_connection TO KAFKA (BROKER '{}', SECURITY PROTOCOL = 'PLAINTEXT')",
        kafka.bootstrap(Listener::Plaintext)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn chapters_about_producers_work_on_their_messages() {
    let world = World::start().await;
    cockroachdb(&world).await;
    cockroachdb_without_a_registry(&world).await;
    mongodb(&world).await;
    striim(&world).await;
    redpanda(&world).await;
    assert!(world.dir.path().exists());
}

/// What a changefeed writes with `format = avro, diff, envelope = wrapped`.
struct Changefeed {
    key: Writer,
    envelope: Writer,
}

impl Changefeed {
    async fn register(registry: &Registry, topic: &str) -> Self {
        let column = |name: &str, kind: Value, declared: &str| json!({"type": ["null", kind], "name": name, "default": null, "__crdb__": declared});
        let row = |name: &str| {
            json!({"type": "record", "name": name, "fields": [
                column("id", json!("long"), "id INT8 NOT NULL"),
                column("field1", json!("string"), "field1 STRING"),
                column("seen_at", json!({"type": "long", "logicalType": "timestamp-micros"}), "seen_at TIMESTAMP"),
            ]})
        };
        let image = |field: &str, name: &str| json!({"type": ["null", row(name)], "name": field, "default": null});
        let envelope = json!({"type": "record", "name": "my_table_envelope", "fields": [
            image("before", "my_table_before"),
            image("after", "my_table"),
        ]});
        let key = json!({"type": "record", "name": "my_table", "fields": [column("id", json!("long"), "id INT8 NOT NULL")]});
        Self {
            key: Writer::register(registry, &format!("{topic}-key"), key).await,
            envelope: Writer::register(registry, &format!("{topic}-value"), envelope).await,
        }
    }

    /// The row of `id` was one and is another.
    fn record(&self, id: i64, before: Option<&str>, after: Option<&str>) -> Record {
        let row = |field1: Option<&str>| match field1 {
            Some("") => json!({"id": id, "field1": null, "seen_at": null}),
            Some(text) => json!({"id": id, "field1": text, "seen_at": 1_767_323_045_123_456_i64}),
            None => Value::Null,
        };
        let change = json!({"before": row(before), "after": row(after)});
        Record::new(
            self.key.message(&json!({"id": id})),
            self.envelope.message(&change),
        )
    }
}

async fn cockroachdb(world: &World) {
    let session = world.session("cockroachdb").await;
    let kafka = &world.kafka;
    session.run_all(&statements(INGEST, 1041, &[])).await;
    let (key, certificate) = (world.pem("client.key"), world.pem("client.pem"));
    let blanks = [
        ("<BROKER_SSL_KEY>", key.as_str()),
        ("<BROKER_SSL_CRT>", certificate.as_str()),
        ("<CSR_PASSWORD>", "foo-secret"),
    ];
    session.run_all(&statements(INGEST, 1073, &blanks)).await;
    let broker = kafka.bootstrap(Listener::Mtls);
    let blanks = [("<host>", broker.as_str())];
    session.run_all(&statements(INGEST, 1083, &blanks)).await;
    let url = world.secure.url();
    let registry = statements(INGEST, 1093, &[("<csr_url>", url.as_str())]);
    // The chapter forgets two of its secrets.
    let refusal = session.refused(&registry[0]).await;
    assert_eq!(refusal.code, "42704", "{refusal:?}");
    session
        .run(&format!("CREATE SECRET csr_ssl_key AS '{key}'"))
        .await;
    session
        .run(&format!("CREATE SECRET csr_ssl_crt AS '{certificate}'"))
        .await;
    session.run_all(&registry).await;

    kafka.create_topic("my_table", 2, &[]).await.unwrap();
    let feed = Changefeed::register(&world.secure, "my_table").await;
    let rows = [
        feed.record(1, None, Some("a")),
        feed.record(2, None, Some("b")),
        feed.record(3, None, Some("a")),
    ];
    kafka.produce("my_table", &rows).await.unwrap();
    for line in [1108, 1153, 1174] {
        session.run_all(&statements(INGEST, line, &[])).await;
    }
    let counts = "SELECT field1, cnt FROM cnt_table1";
    session.until(counts, &["a|2", "b|1"]).await;
    session
        .until(
            "SELECT id, field1, seen_at FROM kafka_repl WHERE id = 2",
            &["2|b|2026-01-02 03:04:05.123456"],
        )
        .await;
    let changes = [
        feed.record(2, Some("b"), Some("a")),
        // A changefeed may say things twice.
        feed.record(2, Some("b"), Some("a")),
        feed.record(3, Some("a"), None),
    ];
    kafka.produce("my_table", &changes).await.unwrap();
    session.until(counts, &["a|2"]).await;

    // With the option `resolved` there are messages of another schema of the same subject, which say nothing about rows.
    let registry = &world.secure;
    let subject = "my_table-value";
    registry.set_compatibility(subject, "NONE").await.unwrap();
    let schema = json!({"type": "record", "name": "_", "fields": [{"type": ["null", "string"], "name": "resolved", "default": null}]});
    let resolved = Writer::register(registry, subject, schema).await;
    let message = resolved.message(&json!({"resolved": "1767323045123456000.0000000000"}));
    let mut records: Vec<Record> = (0..2)
        .map(|partition| Record::of_value(message.clone()).to_partition(partition))
        .collect();
    records.push(feed.record(4, None, Some("")));
    kafka.produce("my_table", &records).await.unwrap();
    session.until(counts, &["a|2", "NULL|1"]).await;

    let blanks = [("<cluster_name>", "ingest_kafka"), ("<new_size>", "'50cc'")];
    session.run_all(&statements(INGEST, 1054, &blanks)).await;
    let deletion = [feed.record(1, Some("a"), None)];
    kafka.produce("my_table", &deletion).await.unwrap();
    session.until(counts, &["a|1", "NULL|1"]).await;
}

/// The same statement where there is no registry: messages are JSON then.
async fn cockroachdb_without_a_registry(world: &World) {
    let session = world.session("cockroachdb_json").await;
    session.run(&world.plain_connection()).await;
    let topic = "my_table_json";
    world.kafka.create_topic(topic, 1, &[]).await.unwrap();
    let row = |id: i64, field1: &str| json!({"id": id, "field1": field1});
    let record = |id: i64, before: Value, after: Value| {
        let change = json!({"after": after, "before": before});
        Record::new(format!("[{id}]"), change.to_string())
    };
    let records = [
        record(1, Value::Null, row(1, "a")),
        record(2, Value::Null, row(2, "b")),
        record(3, Value::Null, row(3, "c")),
        Record::of_value(json!({"resolved": "1767323045123456000.0000000000"}).to_string()),
        record(2, row(2, "b"), row(2, "d")),
        record(3, row(3, "c"), Value::Null),
    ];
    world.kafka.produce(topic, &records).await.unwrap();
    let source = statements(INGEST, 1108, &[("my_table", topic)]);
    session.run_all(&source).await;
    session
        .until(
            "SELECT data->>'id', data->>'field1' FROM kafka_repl",
            &["1|a", "2|d"],
        )
        .await;
}

/// A collection without its envelope: `transforms.unwrap.type` is `ExtractNewDocumentState`.
struct Documents {
    key: Writer,
    value: Writer,
}

impl Documents {
    async fn register(registry: &Registry, collection: &str, fields: &[(&str, Value)]) -> Self {
        let namespace = "mdb-prod-rs0.test";
        let topic = format!("{namespace}.{collection}");
        let named = fields
            .iter()
            .map(|(name, kind)| json!({"name": name, "type": ["null", kind], "default": null}));
        // The prefix of the chapter has hyphens, which names in Avro may not have: Debezium adjusts them.
        let (namespace, full) = (namespace.replace('-', "_"), topic.replace('-', "_"));
        let value = json!({"type": "record", "name": collection, "namespace": namespace,
            "fields": named.collect::<Vec<_>>(), "connect.name": topic});
        let key = json!({"type": "record", "name": "Key", "namespace": full,
            "fields": [{"name": "id", "type": "string"}], "connect.name": format!("{topic}.Key")});
        Self {
            key: Writer::register(registry, &format!("{topic}-key"), key).await,
            value: Writer::register(registry, &format!("{topic}-value"), value).await,
        }
    }

    fn key(&self, id: &str) -> Vec<u8> {
        self.key.message(&json!({"id": id}))
    }

    fn record(&self, document: &Value) -> Record {
        let id = document["_id"].as_str().unwrap();
        Record::new(self.key(id), self.value.message(document))
    }
}

async fn mongodb(world: &World) {
    let session = world.session("mongodb").await;
    let kafka = &world.kafka;
    let broker = kafka.bootstrap(Listener::SaslPlaintext);
    let blanks = [
        ("<kafka-password>", "alice-secret"),
        ("<kafka-bootstrap-server>:9092", broker.as_str()),
        ("<kafka-SASL-username>", "alice"),
    ];
    let connection = statements(INGEST, 1820, &blanks);
    session.run_all(&connection).await;
    // IF NOT EXISTS
    session.run_all(&connection).await;
    let url = world.open.url();
    let blanks = [("http://schema-registry:8081", url.as_str())];
    session.run_all(&statements(INGEST, 1835, &blanks)).await;

    let (items, orders) = ("mdb-prod-rs0.test.items", "mdb-prod-rs0.test.orders");
    kafka.create_topic(items, 1, &[]).await.unwrap();
    kafka.create_topic(orders, 1, &[]).await.unwrap();
    let fields = [
        ("_id", json!("string")),
        ("item_id", json!("int")),
        ("item", json!("string")),
        ("price", json!("string")),
        ("currency", json!("string")),
    ];
    let collection = Documents::register(&world.open, "items", &fields).await;
    let item = |id: &str, item_id: i64, item: &str, price: &str| json!({"_id": id, "item_id": item_id, "item": item, "price": price, "currency": "USD"});
    let (donut, brownie) = ("693c608a8de2a41c2ba365f3", "693c608a8de2a41c2ba365ec");
    let records = [
        collection.record(&item(donut, 8, "donut", "1.25")),
        collection.record(&item(brownie, 1, "brownie", "2.25")),
    ];
    kafka.produce(items, &records).await.unwrap();
    let sources = statements(INGEST, 1846, &[]);
    session.run_all(&sources).await;
    let of_items = statements(INGEST, 1864, &[]);
    let of_orders = statements(INGEST, 1890, &[]);
    let both = [
        format!("{brownie}|{brownie}|1|brownie|2.25|USD"),
        format!("{donut}|{donut}|8|donut|1.25|USD"),
    ];
    session.until(&of_items[0], &both).await;
    // The chapter reads the topic of items here as well.
    session.until(&of_orders[0], &both).await;
    let changes = [
        collection.record(&item(donut, 8, "donut", "1.50")),
        Record::tombstone(collection.key(brownie)),
    ];
    kafka.produce(items, &changes).await.unwrap();
    let left = [format!("{donut}|{donut}|8|donut|1.50|USD")];
    session.until(&of_items[0], &left).await;

    session.run("DROP SOURCE mdb_orders").await;
    let moment = json!({"type": "long", "connect.version": 1, "connect.name": "org.apache.kafka.connect.data.Timestamp", "logicalType": "timestamp-millis"});
    let fields = [
        ("_id", json!("string")),
        ("order_id", json!("int")),
        ("order_date", moment),
        ("item", json!("string")),
        ("quantity", json!("int")),
        ("status", json!("string")),
    ];
    let collection = Documents::register(&world.open, "orders", &fields).await;
    let id = "693c608a8de2a41c2ba365d4";
    let order = json!({"_id": id, "order_id": 3, "order_date": 1_765_562_754_648_i64, "item": "donut", "quantity": 36, "status": "Pending"});
    kafka
        .produce(orders, &[collection.record(&order)])
        .await
        .unwrap();
    session.run(&sources[1].replace(items, orders)).await;
    let expected = [format!(
        "{id}|{id}|3|2025-12-12 18:05:54.648|donut|36|Pending"
    )];
    session.until(&of_orders[0], &expected).await;
}

async fn striim(world: &World) {
    let session = world.session("striim").await;
    let kafka = &world.kafka;
    let broker = kafka.bootstrap(Listener::SaslPlaintext);
    let url = world.secure.url();
    let blanks = [
        ("<broker-url>", broker.as_str()),
        ("<schema-registry-url>", url.as_str()),
    ];
    let connections = statements(INGEST, 3945, &blanks);
    let [kafka_secret, registry_secret, to_kafka, to_registry] = connections.as_slice() else {
        panic!("{connections:?}");
    };
    let password = "<your-password>";
    session
        .run(&kafka_secret.replace(password, "alice-secret"))
        .await;
    session
        .run(&registry_secret.replace(password, "foo-secret"))
        .await;
    // A comma is missing, and where it stands there is something that is not there yet: it works without.
    let to_kafka = to_kafka.replace("<your-username>", "alice");
    let refusal = session.refused(&to_kafka).await;
    assert_eq!(refusal.code, "42601", "{refusal:?}");
    let (before, rest) = to_kafka.split_once("SSH TUNNEL").unwrap();
    let mended = format!("{},\n SSH TUNNEL{rest}", before.trim_end());
    let refusal = session.refused(&mended).await;
    assert_eq!(refusal.code, "0A000", "{refusal:?}");
    assert!(refusal.message.contains("SSH TUNNEL"), "{refusal:?}");
    session
        .run(&to_kafka.replace("SSH TUNNEL ssh_connection", ""))
        .await;
    session
        .run(&to_registry.replace("<your-username>", "foo"))
        .await;

    let topic = "striim_employees";
    kafka.create_topic(topic, 1, &[]).await.unwrap();
    let metadata = json!({"type": "record", "name": "__striimmetadata_record", "fields": [{"name": "position", "type": ["null", "string"]}]});
    let schema = json!({"type": "record", "name": "EMPLOYEES", "namespace": "HR", "fields": [
        {"name": "EMPLOYEE_ID", "type": ["null", "int"]},
        {"name": "NAME", "type": ["null", "string"]},
        {"name": "SALARY", "type": ["null", "double"]},
        {"name": "__striimmetadata", "type": ["null", metadata]},
    ]});
    // Not the name that a topic's subject should have.
    let writer = Writer::register(&world.secure, "HR.EMPLOYEES", schema).await;
    let record = |id: i64, name: &str, salary: f64| {
        let row = json!({"EMPLOYEE_ID": id, "NAME": name, "SALARY": salary, "__striimmetadata": {"position": format!("0x{id}")}});
        Record::new(id.to_string(), writer.message(&row))
    };
    let records = [
        record(100, "King", 24000.0),
        record(101, "Kochhar", 17000.0),
        record(102, "Kochhar", 17000.0),
        record(101, "Kochhar", 17500.5),
        Record::tombstone("102"),
    ];
    kafka.produce(topic, &records).await.unwrap();
    let schema_id = writer.id().to_string();
    let blanks = [("<topic-name>", topic), ("<id>", schema_id.as_str())];
    session.run_all(&statements(INGEST, 3969, &blanks)).await;
    session
        .until(
            r#"SELECT key, "EMPLOYEE_ID", "NAME", "SALARY", "__striimmetadata"->>'position' FROM src"#,
            &["100|100|King|24000|0x100", "101|101|Kochhar|17500.5|0x101"],
        )
        .await;
}

/// Writes a text in a transaction of its own.
async fn transact(kafka: &Kafka, topic: &'static str, texts: &'static [(&'static str, bool)]) {
    let mut config = kafka.client_config();
    config.set("transactional.id", "redpanda");
    let writing = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(DEADLINE).unwrap();
        for (text, is_committed) in texts {
            producer.begin_transaction().unwrap();
            let record = BaseRecord::<str, str>::to(topic).payload(*text);
            producer.send(record).unwrap();
            producer.flush(DEADLINE).unwrap();
            if *is_committed {
                producer.commit_transaction(DEADLINE).unwrap();
            } else {
                producer.abort_transaction(DEADLINE).unwrap();
            }
        }
    });
    writing.await.unwrap();
}

/// The chapter has no statements: Redpanda is a Kafka with transactions and idempotence, which it has to be told to have and which sources and sinks need.
async fn redpanda(world: &World) {
    let session = world.session("redpanda").await;
    session.run(&world.plain_connection()).await;
    let topic = "redpanda";
    world.kafka.create_topic(topic, 1, &[]).await.unwrap();
    let texts = &[("committed", true), ("aborted", false)];
    transact(&world.kafka, topic, texts).await;
    session
        .run("CREATE SOURCE events FROM KAFKA CONNECTION kafka_connection (TOPIC 'redpanda') FORMAT TEXT")
        .await;
    session
        .until("SELECT text FROM events", &["committed"])
        .await;
    session
        .run("CREATE MATERIALIZED VIEW counts AS SELECT text, count(*) AS n FROM events GROUP BY text")
        .await;
    session
        .run("CREATE SINK counts_sink FROM counts INTO KAFKA CONNECTION kafka_connection (TOPIC 'redpanda-counts') KEY (text) FORMAT JSON ENVELOPE UPSERT")
        .await;
    let texts = &[("aborted", false), ("later", true)];
    transact(&world.kafka, topic, texts).await;
    session
        .until("SELECT text FROM events", &["committed", "later"])
        .await;
    let seen = wait::until("the sink's records", DEADLINE, async || {
        let records = world.kafka.read("redpanda-counts", Isolation::Committed);
        let records = records.await.map_err(|error| format!("{error:#}"))?;
        let rows: Vec<String> = records
            .iter()
            .filter_map(|record| serde_json::from_str::<Value>(&record.text()).ok())
            .map(|row| format!("{} {}", cell(&row["text"]), cell(&row["n"])))
            .collect();
        if rows.len() >= 2 {
            Ok(rows)
        } else {
            Err(format!("{rows:?}"))
        }
    })
    .await
    .unwrap();
    assert_eq!(seen, ["committed 1", "later 1"]);
}

const MYSQL_TABLES: &str = "
    CREATE DATABASE inventory;
    USE inventory;
    CREATE TABLE customers (id BIGINT UNSIGNED PRIMARY KEY, name VARCHAR(40) NOT NULL, balance DECIMAL(12, 2), born DATE, seen DATETIME(6), flag TINYINT(1));
    CREATE TABLE lines_of_orders (a INT, b VARCHAR(10), note TEXT, PRIMARY KEY (a, b));
    CREATE TABLE nokey (a INT, b TEXT);
    INSERT INTO customers VALUES
        (1, 'ann', 10.50, '1990-02-03', '2026-01-02 03:04:05.123456', 1),
        (2, 'zoë', -0.01, NULL, NULL, 0),
        (3, '', NULL, '2026-12-31', '1969-12-31 23:59:59.999999', NULL);
    INSERT INTO lines_of_orders VALUES (1, 'x', 'first'), (1, 'y', NULL), (2, 'x', 'third');
    INSERT INTO nokey VALUES (1, 'one'), (1, 'one'), (2, NULL);
";

const MYSQL_CHANGES: [&str; 3] = [
    "USE inventory;
     INSERT INTO customers VALUES (4, 'new', 0.00, NULL, '2026-01-02 03:04:05.000001', 1);
     UPDATE customers SET balance = balance + 0.01 WHERE id IN (1, 3);
     UPDATE customers SET id = 20 WHERE id = 2;
     DELETE FROM customers WHERE id = 3;
     UPDATE lines_of_orders SET b = 'z' WHERE a = 1 AND b = 'x';
     UPDATE lines_of_orders SET note = 'changed' WHERE a = 2;
     UPDATE nokey SET b = 'changed' WHERE a = 2;
     DELETE FROM nokey WHERE a = 1 LIMIT 1;
     INSERT INTO nokey VALUES (3, 'x'), (3, 'x'), (4, 'y');",
    "USE inventory;
     START TRANSACTION;
     INSERT INTO customers VALUES (3, 'again', 1.00, NULL, NULL, NULL), (2, 'also again', 2.00, NULL, NULL, NULL);
     UPDATE customers SET id = id + 100;
     DELETE FROM lines_of_orders WHERE b = 'y';
     INSERT INTO lines_of_orders VALUES (1, 'x', 'again');
     UPDATE nokey SET a = a + 1;
     COMMIT;",
    "USE inventory;
     START TRANSACTION; DELETE FROM customers; ROLLBACK;
     UPDATE customers SET name = UPPER(name), seen = NULL WHERE id > 101;
     DELETE FROM nokey WHERE a = 4;",
];

/// A query of every table of MySQL; ours have the same names.
const MYSQL_QUERIES: [&str; 3] = [
    "SELECT id, name, balance, born, seen, flag FROM customers",
    "SELECT a, b, note FROM lines_of_orders",
    "SELECT a, b FROM nokey",
];

const POSTGRES_TABLES: &str = r#"
    CREATE TABLE orders (id bigint PRIMARY KEY, customer text NOT NULL, amount numeric(12, 2), seen timestamptz, stamp timestamp, born date, doc jsonb, tags text[],
        uid uuid, big text);
    ALTER TABLE orders ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE nokey (a int, b text);
    ALTER TABLE nokey REPLICA IDENTITY FULL;
    INSERT INTO orders VALUES
        (1, 'ann', 1234.50, '2026-01-02 03:04:05.123456+02', '2026-01-02 03:04:05.123456', '2026-01-02', '{"a": [1, 2.5, null]}', '{x,NULL,"y,z"}',
            '00000000-0000-0000-0000-000000000001', repeat('t', 5000)),
        (2, 'zoë', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (3, '', -0.01, '1969-12-31 23:59:59.999999+00', NULL, NULL, '"text"', '{}', NULL, repeat('u', 5000));
    INSERT INTO nokey VALUES (1, 'one'), (1, 'one'), (2, NULL);
"#;

const POSTGRES_CHANGES: [&str; 3] = [
    "INSERT INTO orders (id, customer, doc) VALUES (4, 'new', '{\"b\": true}');
     UPDATE orders SET amount = 99.99 WHERE id = 1;
     UPDATE orders SET id = 20 WHERE id = 2;
     DELETE FROM orders WHERE id = 3;
     UPDATE nokey SET b = 'changed' WHERE a = 2;
     DELETE FROM nokey WHERE ctid = (SELECT min(ctid) FROM nokey WHERE a = 1);
     INSERT INTO nokey VALUES (3, 'x'), (3, 'x'), (4, 'y')",
    "BEGIN; INSERT INTO orders (id, customer, big) VALUES (3, 'again', repeat('v', 6000)), (2, 'also again', 'small');
     UPDATE orders SET customer = upper(customer), tags = '{changed}'; UPDATE nokey SET a = a + 1; COMMIT",
    "BEGIN; DELETE FROM orders; ROLLBACK; UPDATE orders SET big = repeat('w', 7000) WHERE id = 1; DELETE FROM nokey WHERE a = 4",
];

const POSTGRES_QUERIES: [&str; 2] = [
    "SELECT id, customer, amount, seen, stamp, born, doc::text, tags::text, uid, length(big), left(big, 3) FROM orders",
    "SELECT a, b FROM nokey",
];

/// The declared columns of the table of orders, as JSON has them: a document is a text there.
const DECLARED: &str = "id bigint, customer text, amount numeric(12, 2), seen timestamptz, stamp timestamp, born date, doc text, tags text[], uid uuid, big text";

/// The databases that Debezium reads, and where they come back.
struct Upstreams {
    mysql: Mysql,
    postgres: Session,
    session: Session,
}

impl Upstreams {
    async fn start(dir: &Path, postgres: &Postgres, node: &Node) -> Self {
        let mysql = Mysql::start(dir).await.unwrap();
        mysql.execute(MYSQL_TABLES).unwrap();
        let upstream = Session {
            client: postgres.connect().await.unwrap(),
        };
        upstream.run("SET TimeZone TO 'UTC'").await;
        upstream.run(POSTGRES_TABLES).await;
        let session = Session::connect(node).await;
        session.run("SET TimeZone TO 'UTC'").await;
        Self {
            mysql,
            postgres: upstream,
            session,
        }
    }

    /// Waits until every table here has the rows that it has there.
    async fn until_equal(&self) {
        for sql in MYSQL_QUERIES {
            let rows = self.mysql.execute(&format!("USE inventory; {sql}"));
            let rows: Vec<String> = rows
                .unwrap()
                .lines()
                .map(|line| line.replace('\t', "|"))
                .collect();
            let ours = sql.replace("FROM ", "FROM my_");
            self.session.until(&ours, &rows).await;
        }
        for sql in POSTGRES_QUERIES {
            let rows = self.postgres.lines(sql).await.unwrap();
            for format in ["avro", "json"] {
                let ours = sql.replace("FROM ", &format!("FROM {format}_"));
                self.session.until(&ours, &rows).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_debezium_reads_are_those_of_mysql_and_postgres() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let (kafka, registry, node) = tokio::try_join!(
        Kafka::start(dir.path()),
        Registry::start(dir.path()),
        Node::start(dir.path(), 2),
    )
    .unwrap();
    let upstreams = Upstreams::start(dir.path(), &postgres, &node).await;
    let connect = Connect::start(dir.path(), &kafka).await.unwrap();
    let mut my = mysql_connector(&kafka, &upstreams.mysql, "my", "inventory");
    write_avro(&mut my, &registry);
    connect.create("my", &my).await.unwrap();
    let mut pg = postgres_connector(&postgres, "pg");
    write_avro(&mut pg, &registry);
    connect.create("pg", &pg).await.unwrap();
    // JSON without schemas: numbers with a point have lost it there unless they are texts.
    let mut pj = postgres_connector(&postgres, "pj");
    pj.insert("decimal.handling.mode".to_owned(), json!("string"));
    connect.create("pj", &pj).await.unwrap();

    let session = &upstreams.session;
    session.run(&plain_connection(&kafka)).await;
    session
        .run(&format!(
            "CREATE CONNECTION csr_connection TO CONFLUENT SCHEMA REGISTRY (URL '{}')",
            registry.url()
        ))
        .await;
    let avro =
        "FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr_connection ENVELOPE DEBEZIUM";
    let json = "FORMAT JSON ENVELOPE DEBEZIUM";
    let declared = format!("({DECLARED}, PRIMARY KEY (id) NOT ENFORCED)");
    for (source, topic, columns, format) in [
        ("my_customers", "my.inventory.customers", "", avro),
        (
            "my_lines_of_orders",
            "my.inventory.lines_of_orders",
            "",
            avro,
        ),
        ("my_nokey", "my.inventory.nokey", "", avro),
        ("avro_orders", "pg.public.orders", "", avro),
        ("avro_nokey", "pg.public.nokey", "", avro),
        ("json_orders", "pj.public.orders", declared.as_str(), json),
        ("json_nokey", "pj.public.nokey", "(a int, b text)", json),
    ] {
        until_records(&kafka, topic, 3).await;
        session
            .run(&format!(
                "CREATE SOURCE {source} {columns} FROM KAFKA CONNECTION kafka_connection (TOPIC '{topic}') {format}"
            ))
            .await;
    }
    upstreams.until_equal().await;
    for (on_mysql, on_postgres) in MYSQL_CHANGES.iter().zip(POSTGRES_CHANGES) {
        upstreams.mysql.execute(on_mysql).unwrap();
        upstreams.postgres.run(on_postgres).await;
        upstreams.until_equal().await;
    }

    // Of two transactions the one that began first ends last: its changes come later, and stand before the other's in the log.
    let other = postgres.connect().await.unwrap();
    other
        .batch_execute("BEGIN; INSERT INTO nokey VALUES (10, 'begun first'); UPDATE nokey SET b = 'both' WHERE a = 5")
        .await
        .unwrap();
    let first = "INSERT INTO nokey VALUES (11, 'ended first'); INSERT INTO orders (id, customer) VALUES (11, 'ended first')";
    upstreams.postgres.run(first).await;
    other
        .batch_execute("INSERT INTO orders (id, customer) VALUES (10, 'ended last'); COMMIT")
        .await
        .unwrap();
    upstreams.until_equal().await;
}
