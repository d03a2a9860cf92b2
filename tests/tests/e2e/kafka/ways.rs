//! What can be said of connections, sources and sinks beside their topics, each with a real broker and registry: who may come in and how, where reading begins, what
//! is told to tools, what messages have beside their values, and how what is written looks.
//!
//! One node, one broker and one registry for all of it. What goes wrong with them is in `bad_input`.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use flowstone_tests::kafka::{Isolation, Listener, Record, Stored};
use flowstone_tests::{Authority, Kafka, Node, Registry, wait};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::avro::{self, Writer};
use super::{DEADLINE, Session, cell, fold, until_records};

/// Brokers, a registry and a node. The directory goes last.
struct World {
    session: Session,
    node: Node,
    kafka: Kafka,
    registry: Registry,
    _dir: TempDir,
}

impl World {
    /// With the connections `kafka` and `csr`.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (kafka, registry, node) = tokio::try_join!(
            Kafka::start(dir.path()),
            Registry::start(dir.path()),
            Node::start(dir.path(), 2),
        )
        .unwrap();
        let session = Session::connect(&node).await;
        let (broker, url) = (kafka.bootstrap(Listener::Plaintext), registry.url());
        for sql in [
            format!(
                "CREATE CONNECTION kafka TO KAFKA (BROKER '{broker}', SECURITY PROTOCOL 'PLAINTEXT')"
            ),
            format!("CREATE CONNECTION csr TO CONFLUENT SCHEMA REGISTRY (URL '{url}')"),
        ] {
            session.run(&sql).await;
        }
        Self {
            session,
            node,
            kafka,
            registry,
            _dir: dir,
        }
    }

    async fn run(&self, sql: &str) {
        self.session.run(sql).await;
    }

    /// Makes a topic that holds these records, however old they are.
    async fn topic(&self, topic: &str, partitions: i32, records: &[Record]) {
        let is_kept = [("retention.ms", "-1")];
        let made = self.kafka.create_topic(topic, partitions, &is_kept).await;
        made.unwrap_or_else(|error| panic!("{topic}: {error:#}"));
        self.kafka.produce(topic, records).await.unwrap();
    }

    /// A source of a topic, of the same name.
    async fn source(&self, topic: &str, clauses: &str) {
        let sql = format!(
            "CREATE SOURCE {topic} FROM KAFKA CONNECTION kafka (TOPIC '{topic}') {clauses}"
        );
        self.run(&sql).await;
    }
}

/// Every protocol and every mechanism, for what is read and for what is written.
async fn whoever_may_come_in_reads_and_writes(world: &World) {
    let authority = world.kafka.authority();
    for (secret, file) in [
        ("brokers_ca", "ca.pem"),
        ("our_certificate", "client.pem"),
        ("our_key", "client.key"),
    ] {
        let text = std::fs::read_to_string(authority.path(file)).unwrap();
        world
            .run(&format!("CREATE SECRET {secret} AS '{text}'"))
            .await;
    }
    world.run("CREATE SECRET password AS 'alice-secret'").await;
    world.topic("plain", 1, &[Record::of_value("1")]).await;
    let tls = "SSL CERTIFICATE AUTHORITY SECRET brokers_ca";
    let identity = "SSL CERTIFICATE SECRET our_certificate, SSL KEY SECRET our_key";
    let mut ways = vec![
        (Listener::Ssl, format!("SECURITY PROTOCOL 'SSL', {tls}")),
        // TLS is what is meant where nothing is said.
        (Listener::Mtls, format!("{tls}, {identity}")),
    ];
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let user = format!(
            "SASL MECHANISMS '{mechanism}', SASL USERNAME 'alice', SASL PASSWORD SECRET password"
        );
        let clear = format!("SECURITY PROTOCOL 'SASL_PLAINTEXT', {user}");
        ways.push((Listener::SaslPlaintext, clear));
        ways.push((Listener::SaslSsl, format!("{tls}, {user}")));
    }
    for (number, (listener, options)) in ways.iter().enumerate() {
        let port = world.kafka.port(1, *listener).unwrap();
        for sql in [
            format!(
                "CREATE CONNECTION way_{number} TO KAFKA (BROKER '127.0.0.1:{port}', {options})"
            ),
            format!(
                "CREATE SOURCE read_{number} FROM KAFKA CONNECTION way_{number} (TOPIC 'plain') FORMAT TEXT"
            ),
            format!(
                "CREATE SINK sink_{number} FROM read_{number} INTO KAFKA CONNECTION way_{number} (TOPIC 'written_{number}') \
                 FORMAT JSON ENVELOPE DEBEZIUM"
            ),
        ] {
            world.run(&sql).await;
        }
    }
    for number in 0..ways.len() {
        let read = format!("SELECT \"text\" FROM read_{number}");
        world.session.until(&read, &["1"]).await;
        let written = until_records(&world.kafka, &format!("written_{number}"), 1).await;
        let texts: Vec<String> = written.iter().map(Stored::text).collect();
        assert_eq!(texts, [r#"{"before":null,"after":{"text":"1"}}"#]);
    }

    // Where the broker says that it is nobody listens: it is reached elsewhere.
    let port = world.kafka.port(1, Listener::Plaintext).unwrap();
    for sql in [
        format!(
            "CREATE CONNECTION forwarded TO KAFKA (BROKERS ('127.0.0.1:1' USING ADDRESS '127.0.0.1' PORT {port}), SECURITY PROTOCOL 'PLAINTEXT')"
        ),
        "CREATE SOURCE read_forwarded FROM KAFKA CONNECTION forwarded (TOPIC 'plain') FORMAT TEXT"
            .to_owned(),
    ] {
        world.run(&sql).await;
    }
    let read = "SELECT \"text\" FROM read_forwarded";
    world.session.until(read, &["1"]).await;
}

/// A door before a server, which opens to whoever shows a certificate of the authority. Returns its port; it is open as long as the task runs.
async fn door(authority: &Authority, server: String) -> (u16, JoinHandle<()>) {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap())
        .unwrap();
    let certificate = CertificateDer::from_pem_file(authority.path("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.path("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), server.clone());
            connections.spawn(async move {
                let mut client = acceptor.accept(client).await?;
                let mut server = TcpStream::connect(server).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    (port, accepting)
}

/// A registry that wants to see certificates is asked for schemas to read with, and told of those that are written with.
async fn a_registry_may_ask_for_certificates(world: &World) {
    let url = world.registry.url();
    let (server, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .unwrap();
    let (port, accepting) = door(world.kafka.authority(), server.to_owned()).await;
    let create = |name: &str, identity: &str| {
        format!(
            "CREATE CONNECTION {name} TO CONFLUENT SCHEMA REGISTRY (URL 'https://127.0.0.1:{port}/{path}', \
             SSL CERTIFICATE AUTHORITY SECRET brokers_ca{identity})"
        )
    };
    let refused = world.session.refused(&create("unknown", "")).await;
    assert_eq!(refused.code, "08001", "{}", refused.message);
    assert!(
        refused.message.contains("cannot be reached: "),
        "{}",
        refused.message
    );
    let identity = ", SSL CERTIFICATE SECRET our_certificate, SSL KEY SECRET our_key";
    world.run(&create("guarded_csr", identity)).await;
    let schema = json!({"type": "record", "name": "r", "fields": [{"name": "n", "type": "long"}]});
    let writer = Writer::register(&world.registry, "guarded-value", schema).await;
    let record = Record::of_value(writer.message(&json!({"n": 7})));
    world.topic("guarded", 1, &[record]).await;
    world
        .source(
            "guarded",
            "FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION guarded_csr",
        )
        .await;
    world
        .run(
            "CREATE SINK guarded_sink FROM guarded INTO KAFKA CONNECTION kafka (TOPIC 'guarded_out') \
             FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION guarded_csr ENVELOPE DEBEZIUM",
        )
        .await;
    world.session.until("SELECT n FROM guarded", &["7"]).await;
    let written = until_records(&world.kafka, "guarded_out", 1).await;
    let changes = avro::values(&world.registry, &written).await.unwrap();
    assert_eq!(changes, [json!({"before": null, "after": {"n": 7}})]);
    world.run("DROP SINK guarded_sink").await;
    world.run("DROP SOURCE guarded").await;
    accepting.abort();
}

/// What tools find of a group: where it is in each of two partitions.
async fn told(kafka: &Kafka, group: &str, topic: &'static str) -> Result<Vec<Offset>> {
    let mut config = kafka.client_config();
    config.set("group.id", group);
    let asking = tokio::task::spawn_blocking(move || -> Result<Vec<Offset>> {
        let consumer: BaseConsumer = config.create()?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(topic, 0);
        partitions.add_partition(topic, 1);
        let found = consumer.committed_offsets(partitions, DEADLINE)?;
        let offsets = found.elements();
        Ok(offsets.iter().map(|element| element.offset()).collect())
    });
    asking.await?
}

/// Tells a group that it is at the beginning of two partitions.
async fn set_back(kafka: &Kafka, group: &str, topic: &'static str) -> Result<()> {
    let mut config = kafka.client_config();
    config.set("group.id", group);
    let telling = tokio::task::spawn_blocking(move || -> Result<()> {
        let consumer: BaseConsumer = config.create()?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(topic, 0, Offset::Offset(0))?;
        partitions.add_partition_offset(topic, 1, Offset::Offset(0))?;
        consumer.commit(&partitions, CommitMode::Sync)?;
        Ok(())
    });
    telling.await?
}

/// The topic of [`sources_begin_where_they_are_told_and_tell_how_far_they_are`].
const BEGUN: &str = "begun";
const AT_OFFSETS: &str = "SELECT \"text\" FROM at_offsets";

async fn sources_begin_where_they_are_told_and_tell_how_far_they_are(world: &mut World) {
    let record = |partition: i32, number: i64| Record {
        timestamp_ms: Some(number * 1_000_000),
        ..Record::of_value(format!("{partition}{number}")).to_partition(partition)
    };
    let records: Vec<Record> = (1..=3)
        .flat_map(|number| [record(0, number), record(1, number)])
        .collect();
    world.topic(BEGUN, 2, &records).await;
    for (name, options, clauses) in [
        (
            "at_offsets",
            "START OFFSET (1, 2), GROUP ID PREFIX 'lag-'",
            "",
        ),
        // The other one from its beginning.
        ("at_offset", "START OFFSET (3)", ""),
        ("at_time", "START TIMESTAMP = 2000000", "INCLUDE TIMESTAMP"),
    ] {
        world
            .run(&format!(
                "CREATE SOURCE {name} FROM KAFKA CONNECTION kafka (TOPIC '{BEGUN}', {options}) FORMAT TEXT {clauses}"
            ))
            .await;
    }
    let session = &world.session;
    session.until(AT_OFFSETS, &["02", "03", "13"]).await;
    let at_offset = "SELECT \"text\" FROM at_offset";
    session.until(at_offset, &["11", "12", "13"]).await;
    let later = [
        "02|1970-01-01 00:33:20",
        "03|1970-01-01 00:50:00",
        "12|1970-01-01 00:33:20",
        "13|1970-01-01 00:50:00",
    ];
    let at_time = "SELECT \"text\", \"timestamp\" FROM at_time";
    session.until(at_time, &later).await;
    let snapshot = "SELECT c.snapshot_records_known, c.snapshot_records_staged, c.snapshot_committed FROM mz_internal.mz_source_statistics AS c \
        JOIN mz_sources AS s ON s.id = c.id WHERE s.name = 'at_time' AND s.type = 'kafka'";
    session.until(snapshot, &["4|4|t"]).await;

    world.kafka.produce(BEGUN, &[record(0, 4)]).await.unwrap();
    session.until(AT_OFFSETS, &["02", "03", "04", "13"]).await;
    let id = "SELECT id FROM mz_sources WHERE name = 'at_offsets' AND type = 'kafka'";
    let group = format!(
        "lag-flowstone-{}",
        session.lines(id).await.unwrap().concat()
    );
    wait::until("the group to be told", DEADLINE, async || {
        let told = told(&world.kafka, &group, BEGUN).await;
        let told = told.map_err(|error| format!("{error:#}"))?;
        if told == [Offset::Offset(4), Offset::Offset(3)] {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await
    .unwrap();

    // What the group is told by others means nothing to the source.
    world.node.kill().unwrap();
    wait::until("the group to be set back", DEADLINE, async || {
        let set = set_back(&world.kafka, &group, BEGUN).await;
        set.map_err(|error| format!("{error:#}"))
    })
    .await
    .unwrap();
    world.node.restart().await.unwrap();
    world.session = Session::connect(&world.node).await;
    world.kafka.produce(BEGUN, &[record(0, 5)]).await.unwrap();
    let all = ["02", "03", "04", "05", "13"];
    world.session.until(AT_OFFSETS, &all).await;
}

async fn messages_are_read_with_what_is_beside_them(world: &World) {
    let header = |name: &str, value: &[u8]| (name.to_owned(), Some(value.to_vec()));
    let headed = Record {
        headers: vec![header("h", b"1"), header("b", b"\xff"), header("h", b"2")],
        ..Record::of_value("x")
    };
    world
        .topic("headed", 1, &[headed, Record::of_value("y")])
        .await;
    world
        .source(
            "headed",
            "FORMAT TEXT INCLUDE HEADERS, HEADER 'h' AS h, HEADER 'b' AS b BYTES",
        )
        .await;
    world
        .topic("matched", 1, &[Record::of_value("abc-12")])
        .await;
    world
        .source("matched", "FORMAT REGEX '(?P<word>[a-z]+)-(\\d+)'")
        .await;
    // What is no JSON, and is no row in error.
    world
        .run(
            "CREATE SOURCE unread FROM KAFKA CONNECTION kafka (TOPIC 'matched') FORMAT JSON ENVELOPE NONE ON DECODE ERROR = NULL",
        )
        .await;
    let headers = "SELECT \"text\", h, encode(b, 'hex'), jsonb_array_length(headers), headers->0->>'key' FROM headed";
    let expected = ["x|2|ff|3|h", "y|NULL|NULL|0|NULL"];
    world.session.until(headers, &expected).await;
    let matched = "SELECT word, column2 FROM matched";
    world.session.until(matched, &["abc|12"]).await;
    let unread = "SELECT data, error IS NULL FROM unread";
    world.session.until(unread, &["NULL|f"]).await;
}

/// A message whose schema refers to another one.
async fn schemas_of_protobuf_come_with_what_they_refer_to(world: &World) {
    let part = r#"syntax = "proto3"; package p; message Part { string name = 1; }"#;
    let registered = world.registry.register("part", "PROTOBUF", part).await;
    registered.unwrap();
    let whole = r#"syntax = "proto3"; import "part.proto"; message Whole { int32 id = 1; p.Part part = 2; }"#;
    let body = json!({
        "schemaType": "PROTOBUF",
        "schema": whole,
        "references": [{"name": "part.proto", "subject": "part", "version": 1}],
    });
    let path = "/subjects/protos-value/versions";
    let answer = world.registry.request("POST", path, Some(&body)).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let id = answer.json().unwrap()["id"].as_u64().unwrap();
    let id = u32::try_from(id).unwrap();
    // The first message of its file, a number, and a part with a name of one letter.
    let mut message = vec![0];
    message.extend(id.to_be_bytes());
    message.extend([0, 0x08, 5, 0x12, 3, 0x0a, 1, b'n']);
    world.topic("protos", 1, &[Record::of_value(message)]).await;
    world
        .source(
            "protos",
            "FORMAT PROTOBUF USING CONFLUENT SCHEMA REGISTRY CONNECTION csr",
        )
        .await;
    let read = "SELECT id, part->>'name' FROM protos";
    world.session.until(read, &["5|n"]).await;
}

/// Documents as converters of Kafka Connect write them with their schemas, and a truncation.
async fn changes_with_their_schemas_are_followed_through_a_truncation(world: &World) {
    let wrapped =
        |payload: Value| format!(r#"{{"schema":{{"type":"struct"}},"payload":{payload}}}"#);
    let row = |id: i64, v: &str| json!({"id": id, "v": v});
    let change = |id: i64, op: &str, before: Value, after: Value| {
        let value = json!({"before": before, "after": after, "op": op});
        Record::new(wrapped(json!({"id": id})), wrapped(value))
    };
    let records = [
        change(1, "r", Value::Null, row(1, "a")),
        change(2, "c", Value::Null, row(2, "b")),
        change(2, "u", row(2, "b"), row(2, "c")),
        change(1, "d", row(1, "a"), Value::Null),
        Record::tombstone(wrapped(json!({"id": 1}))),
    ];
    world.topic("wrapped", 1, &records).await;
    for sql in [
        "CREATE SOURCE wrapped (id int, v text, PRIMARY KEY (id) NOT ENFORCED) FROM KAFKA CONNECTION kafka (TOPIC 'wrapped') \
         FORMAT JSON ENVELOPE DEBEZIUM",
        "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM wrapped",
    ] {
        world.run(sql).await;
    }
    let read = "SELECT id, v FROM wrapped";
    world.session.until(read, &["2|c"]).await;
    let truncation = json!({"before": null, "after": null, "op": "t"});
    let records = [
        Record::of_value(wrapped(truncation)),
        change(3, "c", Value::Null, row(3, "d")),
    ];
    world.kafka.produce("wrapped", &records).await.unwrap();
    world.session.until(read, &["3|d"]).await;
    world.session.until("SELECT n FROM counted", &["1"]).await;
}

async fn sinks_write_in_every_format_what_is_said(world: &World) {
    for sql in [
        "CREATE TABLE words (w text)",
        "INSERT INTO words VALUES ('one')",
        "CREATE SINK words_sink FROM words INTO KAFKA CONNECTION kafka (TOPIC 'words', COMPRESSION TYPE 'zstd', \
         TOPIC CONFIG MAP['retention.ms' => '12345678']) KEY (w) NOT ENFORCED FORMAT TEXT ENVELOPE UPSERT",
        "CREATE TABLE blobs (b bytea)",
        "INSERT INTO blobs VALUES ('\\xff00')",
        "CREATE SINK blobs_sink FROM blobs INTO KAFKA CONNECTION kafka (TOPIC 'blobs') KEY (b) NOT ENFORCED FORMAT BYTES ENVELOPE UPSERT",
        "CREATE TABLE noted (k int, h jsonb)",
        "INSERT INTO noted VALUES (1, '{\"x\": \"y\", \"n\": null}'), (2, NULL)",
        "CREATE SINK noted_sink FROM noted INTO KAFKA CONNECTION kafka (TOPIC 'noted') KEY (k) NOT ENFORCED HEADERS h \
         FORMAT JSON ENVELOPE UPSERT",
        "CREATE TABLE typed (id bigint NOT NULL, v text)",
        "INSERT INTO typed VALUES (1, 'a')",
        "CREATE SINK typed_sink FROM typed INTO KAFKA CONNECTION kafka (TOPIC 'typed') KEY (id) NOT ENFORCED \
         FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr (AVRO KEY FULLNAME 'x.Id', AVRO VALUE FULLNAME 'x.Typed', \
         DOC ON TYPE typed = 'what it is', VALUE DOC ON COLUMN typed.v = 'a text', VALUE COMPATIBILITY LEVEL 'FORWARD') ENVELOPE UPSERT",
    ] {
        world.run(sql).await;
    }
    for (topic, bytes) in [
        ("words", b"one".as_slice()),
        ("blobs", b"\xff\x00".as_slice()),
    ] {
        let found = until_records(&world.kafka, topic, 1).await;
        assert_eq!(found.len(), 1, "{found:?}");
        let (key, value) = (&found[0].record.key, &found[0].record.value);
        assert_eq!(key.as_deref(), Some(bytes), "{topic}");
        assert_eq!(value.as_deref(), Some(bytes), "{topic}");
    }
    let told = world
        .kafka
        .tool(
            "org.apache.kafka.tools.ConfigCommand",
            &["--describe", "--topic", "words"],
        )
        .await
        .unwrap();
    assert!(told.contains("retention.ms=12345678"), "{told}");

    let found = until_records(&world.kafka, "noted", 2).await;
    let headers: BTreeSet<(String, Option<Vec<u8>>)> = found
        .iter()
        .flat_map(|stored| stored.record.headers.clone())
        .filter(|(name, _)| name != "materialize-timestamp")
        .collect();
    let expected = [
        ("n".to_owned(), None),
        ("x".to_owned(), Some(b"y".to_vec())),
    ];
    assert_eq!(headers, BTreeSet::from(expected));

    until_records(&world.kafka, "typed", 1).await;
    for (part, name, docs) in [
        ("key", "Id", vec![Value::Null]),
        ("value", "Typed", vec![Value::Null, json!("a text")]),
    ] {
        let path = format!("/subjects/typed-{part}/versions/latest");
        let answer = world.registry.request("GET", &path, None).await.unwrap();
        let answer = answer.json().unwrap();
        let schema: Value = serde_json::from_str(answer["schema"].as_str().unwrap()).unwrap();
        assert_eq!(schema["name"], name, "{schema}");
        assert_eq!(schema["namespace"], "x", "{schema}");
        assert_eq!(schema["doc"], "what it is", "{schema}");
        let fields = schema["fields"].as_array().unwrap();
        let found: Vec<Value> = fields.iter().map(|field| field["doc"].clone()).collect();
        assert_eq!(found, docs, "{schema}");
    }
    let path = "/config/typed-value";
    let answer = world.registry.request("GET", path, None).await.unwrap();
    let set = answer.json().unwrap();
    assert_eq!(set["compatibilityLevel"], "FORWARD", "{set}");
}

/// The topic has one partition, and its messages lead from the rows of one table to those of the other, also if the node is killed right after the change.
async fn a_sink_goes_over_to_another_table(world: &mut World) {
    for sql in [
        "CREATE TABLE old_rows (k int, v text)",
        "CREATE TABLE new_rows (k int, v text)",
        "CREATE TABLE later_rows (k int, v text)",
        "INSERT INTO old_rows VALUES (1, 'same'), (2, 'old'), (3, 'goes')",
        "INSERT INTO new_rows VALUES (1, 'same'), (2, 'new'), (4, 'comes')",
        "INSERT INTO later_rows VALUES (1, 'before')",
        "CREATE SINK moved_sink FROM old_rows INTO KAFKA CONNECTION kafka (TOPIC 'moved', TOPIC PARTITION COUNT 1) \
         KEY (k) NOT ENFORCED FORMAT JSON ENVELOPE DEBEZIUM",
    ] {
        world.run(sql).await;
    }
    until_records(&world.kafka, "moved", 3).await;
    world.run("ALTER SINK moved_sink SET FROM new_rows").await;
    world.node.kill().unwrap();
    world.node.restart().await.unwrap();
    world.session = Session::connect(&world.node).await;
    world.run("INSERT INTO old_rows VALUES (9, 'never')").await;
    world.run("INSERT INTO new_rows VALUES (5, 'later')").await;
    let expected = ["1|same", "2|new", "4|comes", "5|later"];
    wait::until("the topic to hold the other table", DEADLINE, async || {
        let found = world.kafka.read("moved", Isolation::Committed).await;
        let found = found.map_err(|error| format!("{error:#}"))?;
        let changes = found
            .iter()
            .map(|stored| serde_json::from_str(&stored.text()))
            .collect::<Result<Vec<Value>, _>>()
            .map_err(|error| error.to_string())?;
        let line = |row: &Value| format!("{}|{}", cell(&row["k"]), cell(&row["v"]));
        let held = fold(&changes, line)?;
        // Three rows at first, three changes to those of the other table, and one more row.
        if held == expected && changes.len() == 7 {
            Ok(())
        } else {
            Err(format!("{changes:#?}"))
        }
    })
    .await
    .unwrap();
}

/// Without its snapshot a sink writes what changes after it was made. What is in the table's files by then is none of it.
async fn a_sink_may_leave_out_what_was_there(world: &mut World) {
    world.node.stop().await.unwrap();
    world.node.restart().await.unwrap();
    world.session = Session::connect(&world.node).await;
    world
        .run(
            "CREATE SINK later_sink FROM later_rows INTO KAFKA CONNECTION kafka (TOPIC 'later') KEY (k) NOT ENFORCED \
             FORMAT JSON ENVELOPE UPSERT WITH (SNAPSHOT = false)",
        )
        .await;
    world
        .run("INSERT INTO later_rows VALUES (2, 'after')")
        .await;
    let found = until_records(&world.kafka, "later", 1).await;
    let texts: Vec<String> = found.iter().map(Stored::text).collect();
    assert_eq!(texts, [r#"{"k":2,"v":"after"}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_connections_sources_and_sinks_is_done() {
    let mut world = World::start().await;
    whoever_may_come_in_reads_and_writes(&world).await;
    a_registry_may_ask_for_certificates(&world).await;
    sources_begin_where_they_are_told_and_tell_how_far_they_are(&mut world).await;
    messages_are_read_with_what_is_beside_them(&world).await;
    schemas_of_protobuf_come_with_what_they_refer_to(&world).await;
    changes_with_their_schemas_are_followed_through_a_truncation(&world).await;
    sinks_write_in_every_format_what_is_said(&world).await;
    a_sink_goes_over_to_another_table(&mut world).await;
    a_sink_may_leave_out_what_was_there(&mut world).await;
}
