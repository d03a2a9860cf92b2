//! What brokers, registries, topics and messages do wrong: each has a status or an error that says so, costs nobody else anything, and when it is over nothing
//! is lost and nothing is there twice.
//!
//! One node, one broker and one registry for all of it: they take longer to start than most of this takes. Leaders that move and zombies are in `crash`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use flowstone_tests::kafka::{Isolation, Listener, Record, Stored};
use flowstone_tests::text::say;
use flowstone_tests::{
    Authority, Flaw, Kafka, KafkaOptions, Node, Registry, free_port, text, wait,
};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::until_records;

/// How long anything may take that should happen soon. Generous: the machine may be busy, and pauses between tries grow to ten seconds and more.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);

/// Bytes of a message that is larger than what is taken.
const LARGE_BYTES: usize = 100 << 20;

/// Runs a statement that must work.
pub(super) async fn run(client: &Client, sql: &str) {
    if let Err(error) = client.batch_execute(sql).await {
        panic!("{sql}: {}", say(&error));
    }
}

/// The rows of a query, columns joined by `|`; or what is said of why there are none.
pub(super) async fn rows(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    text::rows(client, sql).await.map_err(|error| say(&error))
}

/// Waits until a query gives these rows.
pub(super) async fn until<T>(client: &Client, sql: &str, expected: &[T])
where
    String: PartialEq<T>,
    T: Debug,
{
    wait::until(sql, DEADLINE, async || {
        let seen = rows(client, sql).await?;
        if seen == expected {
            Ok(())
        } else {
            Err(format!("{seen:?} instead of {expected:?}"))
        }
    })
    .await
    .unwrap();
}

/// Waits until a query fails with an error that contains `part`.
async fn until_fails(client: &Client, sql: &str, part: &str) {
    wait::until(
        &format!("{sql} to fail: {part}"),
        DEADLINE,
        async || match rows(client, sql).await {
            Err(error) if error.contains(part) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await
    .unwrap();
}

/// Waits until a source has this status, with `part` in what is said beside it. Returns error and details.
pub(super) async fn until_status(client: &Client, name: &str, status: &str, part: &str) -> String {
    // A source with a format has a table of its name, which is listed too.
    let sql = format!(
        "SELECT status, error, details::text FROM mz_internal.mz_source_statuses WHERE name = '{name}' AND type = 'kafka'"
    );
    until_standing(client, &sql, name, status, part).await
}

/// The same of a sink.
pub(super) async fn until_sink_status(
    client: &Client,
    name: &str,
    status: &str,
    part: &str,
) -> String {
    let sql = format!(
        "SELECT status, error, details::text FROM mz_internal.mz_sink_statuses WHERE name = '{name}' AND type = 'kafka'"
    );
    until_standing(client, &sql, name, status, part).await
}

async fn until_standing(
    client: &Client,
    sql: &str,
    name: &str,
    status: &str,
    part: &str,
) -> String {
    let wanted = format!("{status}|");
    wait::until(
        &format!("{name} to be {status}: {part}"),
        DEADLINE,
        async || {
            let seen = rows(client, sql).await?.join("\n");
            if seen.starts_with(&wanted) && seen.contains(part) {
                Ok(seen)
            } else {
                Err(seen)
            }
        },
    )
    .await
    .unwrap()
}

/// Waits until a source has read up to these offsets of the partitions from 0 on, and is told to be behind by nothing.
async fn until_read(client: &Client, source: &str, offsets: &[i64]) {
    let expected: Vec<String> = (0..)
        .zip(offsets)
        .map(|(partition, offset): (i32, &i64)| format!("{partition}|{offset}"))
        .collect();
    let progress = format!("SELECT partition, \"offset\" FROM {source}_progress ORDER BY 1");
    until(client, &progress, &expected).await;
    let sum: i64 = offsets.iter().sum();
    until(client, &lag_of(source), &[format!("{sum}|{sum}")]).await;
    let expected: Vec<String> = (0..)
        .zip(offsets)
        .map(|(partition, offset): (i32, &i64)| format!("{partition}|{offset}|{offset}|0"))
        .collect();
    until(client, &partitions_of(source), &expected).await;
}

/// Where the topic of a source ends and up to where it is read, summed over partitions.
fn lag_of(source: &str) -> String {
    format!(
        "SELECT c.offset_known, c.offset_committed FROM mz_internal.mz_source_statistics AS c JOIN mz_sources AS s ON s.id = c.id \
         WHERE s.name = '{source}' AND s.type = 'kafka'"
    )
}

/// The same of each partition, and by how much it is behind.
fn partitions_of(source: &str) -> String {
    format!(
        "SELECT p.partition, p.offset_known, p.offset_committed, p.lag FROM mz_internal.mz_kafka_source_partitions AS p \
         JOIN mz_sources AS s ON s.id = p.id WHERE s.name = '{source}' AND s.type = 'kafka' ORDER BY 1"
    )
}

/// The sinks of whose topics it is known what they hold.
const WRITTEN: &str = "SELECT s.name FROM mz_internal.mz_frontiers AS f JOIN mz_sinks AS s ON s.id = f.object_id \
     WHERE f.write_frontier IS NOT NULL ORDER BY 1";

/// Makes the connection `kafka` to all brokers.
pub(super) async fn connect_kafka(client: &Client, kafka: &Kafka) {
    let bootstrap = kafka.bootstrap(Listener::Plaintext);
    let brokers: Vec<String> = bootstrap
        .split(',')
        .map(|broker| format!("'{broker}'"))
        .collect();
    let sql = format!(
        "CREATE CONNECTION kafka TO KAFKA (BROKERS ({}), SECURITY PROTOCOL 'PLAINTEXT')",
        brokers.join(", ")
    );
    run(client, &sql).await;
}

/// The epoch that a sink wrote a message for.
pub(super) fn epoch_of(stored: &Stored) -> Result<u64, String> {
    let headers = &stored.record.headers;
    headers
        .iter()
        .find(|(name, _)| name == "materialize-timestamp")
        .and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok()?.parse().ok())
        .ok_or_else(|| format!("no epoch: {stored:?}"))
}

/// What the topic of an upsert holds, by key, whatever partitions its messages are in. A key has one message in an epoch, and one that is gone was there.
fn held(found: &[Stored]) -> Result<BTreeMap<String, String>, String> {
    let mut by_epoch = Vec::new();
    for stored in found {
        let key = stored
            .record
            .key
            .clone()
            .ok_or_else(|| format!("no key: {stored:?}"))?;
        let key = String::from_utf8(key).map_err(|error| error.to_string())?;
        by_epoch.push((epoch_of(stored)?, key, stored));
    }
    by_epoch.sort_by(|left, right| (left.0, &left.1).cmp(&(right.0, &right.1)));
    let mut held = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (epoch, key, stored) in by_epoch {
        if !seen.insert((epoch, key.clone())) {
            return Err(format!("repeated: {stored:?}"));
        }
        let after = stored.record.value.is_some().then(|| stored.text());
        let before = match &after {
            Some(after) => held.insert(key, after.clone()),
            None => held.remove(&key),
        };
        if before == after {
            return Err(format!("says nothing new: {stored:?}"));
        }
    }
    Ok(held)
}

/// Waits until a topic of an upsert holds this, and fails at once if it says something twice. Returns its messages.
async fn until_holds(
    kafka: &Kafka,
    topic: &str,
    expected: &BTreeMap<String, String>,
) -> Vec<Stored> {
    let found = wait::until(&format!("the content of {topic}"), DEADLINE, async || {
        let found = kafka.read(topic, Isolation::Committed).await;
        let found = found.map_err(|error| format!("{error:#}"))?;
        match held(&found) {
            Err(wrong) => Ok(Err(wrong)),
            Ok(held) if held == *expected => Ok(Ok(found)),
            Ok(held) => Err(format!("{held:?}")),
        }
    })
    .await
    .unwrap();
    found.unwrap_or_else(|wrong| panic!("{topic}: {wrong}"))
}

/// Rows of a key and a text as a sink of JSON writes them.
fn json_rows(rows: impl IntoIterator<Item = (i32, String)>) -> BTreeMap<String, String> {
    rows.into_iter()
        .map(|(k, v)| {
            (
                format!("{{\"k\":{k}}}"),
                format!("{{\"k\":{k},\"v\":\"{v}\"}}"),
            )
        })
        .collect()
}

struct World {
    client: Client,
    node: Node,
    registry: Registry,
    kafka: Kafka,
    dir: TempDir,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = KafkaOptions {
            flaws: vec![
                (Listener::SaslSsl, Flaw::Expired),
                (Listener::Mtls, Flaw::OtherHost),
            ],
            ..KafkaOptions::default()
        };
        let (kafka, registry) = tokio::join!(
            Kafka::start_with(dir.path(), options),
            Registry::start(dir.path())
        );
        let (kafka, registry) = (kafka.unwrap(), registry.unwrap());
        let node = Node::start(dir.path(), 2).await.unwrap();
        let client = node.connect().await.unwrap();
        connect_kafka(&client, &kafka).await;
        run(
            &client,
            &format!(
                "CREATE CONNECTION csr TO CONFLUENT SCHEMA REGISTRY (URL '{}')",
                registry.url()
            ),
        )
        .await;
        Self {
            client,
            node,
            registry,
            kafka,
            dir,
        }
    }

    async fn run(&self, sql: &str) {
        run(&self.client, sql).await;
    }

    /// Makes a topic of one partition that holds these records.
    async fn topic(&self, topic: &str, records: &[Record]) {
        let made = self.kafka.create_topic(topic, 1, &[]).await;
        made.unwrap_or_else(|error| panic!("{topic}: {error:#}"));
        self.produce(topic, records).await;
    }

    async fn produce(&self, topic: &str, records: &[Record]) {
        let produced = self.kafka.produce(topic, records).await;
        produced.unwrap_or_else(|error| panic!("{topic}: {error:#}"));
    }

    /// A source of one topic, of the same name.
    async fn source(&self, topic: &str, clauses: &str) {
        let sql = format!(
            "CREATE SOURCE {topic} FROM KAFKA CONNECTION kafka (TOPIC '{topic}') {clauses}"
        );
        self.run(&sql).await;
    }
}

/// A connection that cannot work.
struct Refused {
    name: &'static str,
    target: &'static str,
    options: String,
    code: &'static str,
    message: String,
}

impl Refused {
    fn create(&self, name: &str) -> String {
        let Self {
            target, options, ..
        } = self;
        format!("CREATE CONNECTION {name} TO {target} ({options})")
    }
}

async fn connections_say_why_they_fail(world: &World) {
    let other = Authority::new(&world.dir.path().join("other")).unwrap();
    let certificate = std::fs::read_to_string(other.path("ca.pem")).unwrap();
    world.run("CREATE SECRET wrong AS 'nonsense'").await;
    world
        .run(&format!("CREATE SECRET other_ca AS '{certificate}'"))
        .await;
    let authority = world.kafka.authority();
    let read = |file: &str| std::fs::read_to_string(authority.path(file)).unwrap();
    for (secret, file) in [
        ("brokers_ca", "ca.pem"),
        ("our_certificate", "client.pem"),
        ("our_key", "client.key"),
    ] {
        let sql = format!("CREATE SECRET {secret} AS '{}'", read(file));
        world.run(&sql).await;
    }
    let port = |listener: Listener| world.kafka.port(1, listener).unwrap();
    let nobody = free_port().unwrap();
    let user = |mechanism: &str| {
        format!(
            "BROKER '127.0.0.1:{}', SECURITY PROTOCOL 'SASL_PLAINTEXT', SASL MECHANISMS '{mechanism}', SASL USERNAME 'alice', \
             SASL PASSWORD SECRET wrong",
            port(Listener::SaslPlaintext)
        )
    };
    let encrypted = |listener: Listener| {
        format!(
            "BROKER '127.0.0.1:{}', SECURITY PROTOCOL 'SSL', SSL CERTIFICATE AUTHORITY SECRET other_ca",
            port(listener)
        )
    };
    let of_kafka = |name, options, code, message: &str| Refused {
        name,
        target: "KAFKA",
        options,
        code,
        message: message.to_owned(),
    };
    let cases = [
        of_kafka(
            "nobody",
            format!("BROKER '127.0.0.1:{nobody}', SECURITY PROTOCOL 'PLAINTEXT'"),
            "08001",
            "could not connect to Kafka at 127.0.0.1:",
        ),
        of_kafka(
            "unknown_host",
            "BROKER 'nowhere.invalid:9092', SECURITY PROTOCOL 'PLAINTEXT'".to_owned(),
            "08001",
            "could not translate the name of a Kafka broker to an address: nowhere.invalid:9092",
        ),
        of_kafka(
            "wrong_password",
            user("PLAIN"),
            "28P01",
            "refused the user or the password",
        ),
        of_kafka(
            "wrong_challenge",
            user("SCRAM-SHA-256"),
            "28P01",
            "refused the user or the password",
        ),
        of_kafka(
            "wrong_authority",
            encrypted(Listener::Ssl),
            "08001",
            "could not establish TLS with Kafka at 127.0.0.1:",
        ),
        // It is not asked who we are before it is known who it is.
        of_kafka(
            "expired",
            format!(
                "BROKER '127.0.0.1:{}', SECURITY PROTOCOL 'SASL_SSL', SSL CERTIFICATE AUTHORITY SECRET brokers_ca, \
                 SASL MECHANISMS 'PLAIN', SASL USERNAME 'alice', SASL PASSWORD SECRET wrong",
                port(Listener::SaslSsl)
            ),
            "08001",
            ": the certificate of the broker has expired",
        ),
        of_kafka(
            "other_host",
            format!(
                "BROKER '127.0.0.1:{}', SECURITY PROTOCOL 'SSL', SSL CERTIFICATE AUTHORITY SECRET brokers_ca, \
                 SSL CERTIFICATE SECRET our_certificate, SSL KEY SECRET our_key",
                port(Listener::Mtls)
            ),
            "08001",
            ": the certificate of the broker is not for \"127.0.0.1\"",
        ),
        of_kafka(
            "wrong_protocol",
            encrypted(Listener::Plaintext),
            "08P01",
            "does not speak the protocol of the connection",
        ),
        // The broker hangs up and does not say why.
        of_kafka(
            "in_the_clear",
            format!(
                "BROKER '127.0.0.1:{}', SECURITY PROTOCOL 'PLAINTEXT'",
                port(Listener::Ssl)
            ),
            "08P01",
            "does not speak the protocol of the connection",
        ),
        Refused {
            name: "no_registry",
            target: "CONFLUENT SCHEMA REGISTRY",
            options: format!("URL 'http://127.0.0.1:{nobody}'"),
            code: "08001",
            message: format!("schema registry at http://127.0.0.1:{nobody} cannot be reached: "),
        },
    ];
    for case in &cases {
        let sql = format!("{} WITH (VALIDATE = false)", case.create(case.name));
        world.run(&sql).await;
    }
    futures::future::join_all(cases.iter().map(|case| fails(world, case))).await;
    // A sink is made all the same, and says why it does not write.
    world.run("CREATE TABLE unwritten (k int)").await;
    world
        .run("CREATE SINK unwritten_sink FROM unwritten INTO KAFKA CONNECTION expired (TOPIC 'unwritten') KEY (k) NOT ENFORCED FORMAT JSON ENVELOPE UPSERT")
        .await;
    let part = "the certificate of the broker has expired";
    let seen = until_sink_status(&world.client, "unwritten_sink", "stalled", part).await;
    assert!(
        seen.contains("Renew the certificate of the broker."),
        "{seen}"
    );
    world.run("DROP SINK unwritten_sink").await;
}

/// A connection is refused when it is made, and when it is asked for.
async fn fails(world: &World, case: &Refused) {
    let client = world.node.connect().await.unwrap();
    let Refused {
        name,
        target,
        code,
        message,
        ..
    } = case;
    let validate = format!("VALIDATE CONNECTION {name}");
    let again = case.create("again");
    for sql in [&validate, &again] {
        let Err(error) = client.batch_execute(sql).await else {
            panic!("{sql} works");
        };
        let told = error
            .as_db_error()
            .unwrap_or_else(|| panic!("{sql}: {error:?}"));
        assert_eq!(told.code().code(), *code, "{sql}: {told:?}");
        assert!(told.message().contains(message), "{sql}: {told:?}");
        if *target == "KAFKA" {
            // In the words of whoever found out, and what to do.
            assert!(
                told.detail().is_some_and(|detail| !detail.is_empty()),
                "{told:?}"
            );
            assert!(told.hint().is_some(), "{told:?}");
        }
    }
}

/// A format, values that are none of it, and one that is.
struct Format {
    /// Of the topic, the source and its table.
    name: &'static str,
    /// The columns before `FROM`.
    declared: &'static str,
    clauses: String,
    columns: &'static str,
    /// Two keys as they are written and as they are read.
    keys: [(&'static str, &'static str); 2],
    bad: Vec<(Vec<u8>, &'static str)>,
    good: Vec<u8>,
    /// The columns after the key of the good one.
    row: &'static str,
}

/// In text.
const KEYS: [(&str, &str); 2] = [("a", "a"), ("b", "b")];

/// The text of nested arrays.
fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// A payload as clients of Confluent's registry frame it.
fn framed(schema: u32, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(schema.to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// What is read with, what does not fit it, and what it becomes later; under which subjects they are.
const READER: (&str, &str) = (
    "avros-value",
    r#"{"type":"record","name":"r","fields":[{"name":"id","type":"int"},{"name":"name","type":"string"}]}"#,
);
const MISFIT: (&str, &str) = (
    "other-value",
    r#"{"type":"record","name":"r","fields":[{"name":"id","type":"string"},{"name":"name","type":"string"}]}"#,
);
const LATER: (&str, &str) = (
    "avros-value",
    r#"{"type":"record","name":"r","fields":[{"name":"id","type":"int"},{"name":"more","type":"string","default":""},{"name":"name","type":"string"}]}"#,
);

async fn register(registry: &Registry, (subject, schema): (&str, &str)) -> u32 {
    registry.register(subject, "AVRO", schema).await.unwrap()
}

/// `5` and `n`, by the schema that is read with.
const AVRO_ROW: [u8; 3] = [10, 2, b'n'];

fn formats(reader: u32, misfit: u32) -> Vec<Format> {
    let keyed = |value: &str| format!("KEY FORMAT TEXT VALUE FORMAT {value}");
    let deep = nested(100);
    vec![
        Format {
            name: "texts",
            declared: "",
            clauses: keyed("TEXT"),
            columns: "key, \"text\"",
            keys: KEYS,
            bad: vec![(vec![0xff], "UTF8"), (b"a\0b".to_vec(), "UTF8")],
            good: "gut, größer".into(),
            row: "gut, größer",
        },
        Format {
            name: "documents",
            declared: "",
            clauses: keyed("JSON"),
            columns: "key, data->>'a', length(data->>'deep')",
            keys: KEYS,
            bad: vec![
                (b"{\"a\":".to_vec(), "not valid JSON"),
                (b"\"\xff\"".to_vec(), "not valid UTF-8"),
                (b"".to_vec(), "cannot read the value"),
                (nested(600).into_bytes(), "cannot read the value"),
            ],
            // Of equal members the last counts.
            good: format!("{{\"a\":\"first\",\"deep\":{deep},\"a\":\"last\"}}").into_bytes(),
            row: "last|200",
        },
        Format {
            name: "declared",
            declared: " (id int, v text, n int, PRIMARY KEY (id) NOT ENFORCED)",
            clauses: "KEY FORMAT JSON VALUE FORMAT JSON".to_owned(),
            columns: "id, v, n",
            keys: [("{\"id\":1}", "1"), ("{\"id\":2}", "2")],
            bad: vec![
                (b"{\"v\":\"x\",\"n\":\"many\"}".to_vec(), "n: "),
                (b"{\"v\":\"x\",\"n\":3000000000}".to_vec(), "n: "),
                (b"7".to_vec(), "expected a JSON object"),
            ],
            good: b"{\"n\":7,\"v\":\"g\",\"unknown\":[]}".to_vec(),
            row: "g|7",
        },
        Format {
            name: "records",
            declared: "",
            clauses: keyed("CSV WITH 2 COLUMNS"),
            columns: "key, column1, column2",
            keys: KEYS,
            bad: vec![
                (b"x".to_vec(), "CSV record has 1 columns, expected 2"),
                (b"x,y,z".to_vec(), "CSV record has 3 columns, expected 2"),
                (b"x,y\nx,y".to_vec(), "more than one CSV record"),
                (b"x,\xff".to_vec(), "UTF8"),
            ],
            good: b"\"x,\"\"1\"\"\",y\n".to_vec(),
            row: "x,\"1\"|y",
        },
        Format {
            name: "protobufs",
            declared: "",
            clauses: keyed(
                "PROTOBUF MESSAGE 'm' USING SCHEMA 'syntax = \"proto3\"; message m { int32 id = 1; string name = 2; }'",
            ),
            columns: "key, id, name",
            keys: KEYS,
            bad: vec![
                (vec![0x12, 5, b'n'], "message is cut short"),
                // A group that does not end, the end of one that never began, and a name that is no text.
                (vec![0x53, 0x08, 7], "message is cut short"),
                (vec![0x54], "not of the Protobuf wire format"),
                (vec![0x12, 1, 0xff], "UTF8"),
            ],
            // With a field and a group that the schema does not know.
            good: vec![0x08, 5, 0x48, 1, 0x53, 0x08, 7, 0x54, 0x12, 1, b'n'],
            row: "5|n",
        },
        Format {
            name: "avros",
            declared: "",
            clauses: keyed("AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr"),
            columns: "key, id, name",
            keys: KEYS,
            bad: vec![
                (
                    framed(999_999, &AVRO_ROW),
                    "the registry has no schema of this id",
                ),
                (
                    framed(misfit, &[2, b'x', 2, b'n']),
                    "the schema of the message has string, the schema that is read with int",
                ),
                (
                    framed(reader, &[10, 10, b'n']),
                    "message ends before its schema does",
                ),
                (
                    framed(reader, &[10, 2, b'n', 0]),
                    "message has 1 bytes more than its schema",
                ),
                (vec![7, 0, 0, 0, 1, 10, 2], "wrong magic byte"),
                (vec![0, 1], "message is too short for the id of a schema"),
            ],
            good: framed(reader, &AVRO_ROW),
            row: "5|n",
        },
    ]
}

impl Format {
    /// Makes the topic, which holds a good message of the first key, and the source.
    async fn create(&self, world: &World) {
        let Self {
            name,
            declared,
            clauses,
            ..
        } = self;
        let record = Record::new(self.keys[0].0, self.good.clone());
        world.topic(name, &[record]).await;
        let sql = format!(
            "CREATE SOURCE {name}{declared} FROM KAFKA CONNECTION kafka (TOPIC '{name}') {clauses} ENVELOPE UPSERT"
        );
        world.run(&sql).await;
    }

    fn select(&self) -> String {
        format!("SELECT {} FROM {} ORDER BY 1", self.columns, self.name)
    }

    fn row_of(&self, key: usize) -> String {
        format!("{}|{}", self.keys[key].1, self.row)
    }
}

/// A value that cannot be read is an error of its key, and gone with the next message of that key, whatever that is.
async fn bad_values_are_errors_of_their_keys(world: &World, format: &Format) {
    let client = world.node.connect().await.unwrap();
    let name = format.name;
    let [first, second] = format.keys.map(|(written, _)| written);
    let good = |key: &str| Record::new(key, format.good.clone());
    let select = format.select();
    until(&client, &select, &[format.row_of(0)]).await;
    let mut offset = 1;
    for (bad, reason) in &format.bad {
        // What comes behind it is read all the same.
        let records = [Record::new(second, bad.clone()), good(first)];
        world.produce(name, &records).await;
        until_fails(&client, &select, reason).await;
        let error = rows(&client, &select).await.unwrap_err();
        let place = format!("(partition 0, offset {offset})");
        assert!(
            error.starts_with("22000: ") && error.contains(&place),
            "{error}"
        );
        until_status(&client, name, "running", "row_errors").await;
        world.produce(name, &[good(second)]).await;
        until(&client, &select, &[format.row_of(0), format.row_of(1)]).await;
        world.produce(name, &[Record::tombstone(second)]).await;
        until(&client, &select, &[format.row_of(0)]).await;
        offset += 4;
    }
    until_read(&client, name, &[offset]).await;
}

async fn bad_keys_are_errors_until_they_are_taken_back(world: &World, formats: &[Format]) {
    let cases = [
        (
            "texts",
            vec![None],
            "message has no key, which an upsert needs",
        ),
        ("texts", vec![Some(vec![0xff])], "cannot read the key"),
        (
            "declared",
            vec![
                Some(b"{\"id\":\"one\"}".to_vec()),
                Some(b"\"one\"".to_vec()),
            ],
            "cannot read the key",
        ),
    ];
    for (name, keys, reason) in cases {
        let format = formats.iter().find(|format| format.name == name).unwrap();
        let select = format.select();
        for key in keys {
            let mut record = Record::of_value(format.good.clone());
            record.key = key;
            // Twice: it is one row in error.
            world.produce(name, &[record.clone(), record.clone()]).await;
            until_fails(&world.client, &select, reason).await;
            until_status(&world.client, name, "running", "\"count\": 1").await;
            record.value = None;
            world.produce(name, &[record]).await;
            until(&world.client, &select, &[format.row_of(0)]).await;
        }
    }
}

async fn a_message_that_is_too_large_is_an_error_of_its_key(world: &World) {
    world.topic("large", &[Record::new("a", "small")]).await;
    world
        .source(
            "large",
            "KEY FORMAT TEXT VALUE FORMAT BYTES ENVELOPE UPSERT",
        )
        .await;
    let select = "SELECT key, octet_length(data) FROM large ORDER BY 1";
    until(&world.client, select, &["a|5"]).await;
    let mut config = world.kafka.client_config();
    config.set("message.max.bytes", "200000000");
    // Brokers look at what is compressed.
    config.set("compression.type", "lz4");
    let producer: BaseProducer = config.create().unwrap();
    tokio::task::spawn_blocking(move || {
        let value = vec![b'x'; LARGE_BYTES];
        let record = BaseRecord::<str, [u8]>::to("large")
            .key("b")
            .payload(value.as_slice());
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(DEADLINE).unwrap();
    })
    .await
    .unwrap();
    world
        .produce("large", &[Record::new("c", "behind it")])
        .await;
    until_fails(
        &world.client,
        select,
        "message is larger than 67108864 bytes",
    )
    .await;
    world.produce("large", &[Record::new("b", "healed")]).await;
    until(&world.client, select, &["a|5", "b|6", "c|9"]).await;
}

async fn what_becomes_of_bad_messages_can_be_chosen(world: &World) {
    let document = |number: i32| Record::of_value(format!("{{\"a\":{number}}}"));
    let bad = Record::of_value("{");
    world.kafka.create_topic("strict", 2, &[]).await.unwrap();
    let records = [document(1).to_partition(0), document(3).to_partition(1)];
    world.produce("strict", &records).await;
    world
        .source("strict", "FORMAT JSON ENVELOPE NONE ON DECODE ERROR FAIL")
        .await;
    let select = "SELECT data->>'a' FROM strict ORDER BY 1";
    until(&world.client, select, &["1", "3"]).await;
    until_read(&world.client, "strict", &[1, 1]).await;
    let records = [bad.clone(), document(2)].map(|record| record.to_partition(0));
    world.produce("strict", &records).await;
    let seen = until_status(
        &world.client,
        "strict",
        "stalled",
        "message at partition 0, offset 1 cannot be read: ",
    )
    .await;
    assert!(seen.contains("Repair the topic"), "{seen}");
    // Nothing is passed over: neither the message nor what is behind it.
    assert_eq!(rows(&world.client, select).await.unwrap(), ["1", "3"]);
    // It is told which partition is behind by that.
    let expected = ["0|3|1|2", "1|1|1|0"];
    until(&world.client, &partitions_of("strict"), &expected).await;

    world.topic("letters", &[]).await;
    world
        .topic("buried", &[document(1), bad.clone(), document(2)])
        .await;
    world
        .source(
            "buried",
            "FORMAT JSON ENVELOPE NONE ON DECODE ERROR DEAD LETTER 'letters'",
        )
        .await;
    let select = "SELECT data->>'a' FROM buried ORDER BY 1";
    until(&world.client, select, &["1", "2"]).await;
    let letters = world
        .kafka
        .read("letters", Isolation::Committed)
        .await
        .unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].record.value, bad.value);
    let header = ("flowstone.offset".to_owned(), Some(b"1".to_vec()));
    assert!(letters[0].record.headers.contains(&header), "{letters:?}");

    world
        .topic(
            "told",
            &[Record::new("a", "{"), Record::new("b", "{\"a\":1}")],
        )
        .await;
    world
        .source(
            "told",
            "KEY FORMAT TEXT VALUE FORMAT JSON ENVELOPE UPSERT (VALUE DECODING ERRORS = INLINE)",
        )
        .await;
    let select = "SELECT key, data->>'a', error IS NULL FROM told ORDER BY 1";
    until(&world.client, select, &["a|NULL|f", "b|1|t"]).await;
}

/// A registry that is away holds up the sources and sinks that have to ask it, and no longer than it is away.
async fn a_registry_may_be_away(world: &World, ids: [u32; 2]) {
    let later = register(&world.registry, LATER).await;
    let before = rows(&world.client, "SELECT \"offset\" FROM avros_progress")
        .await
        .unwrap();
    world.registry.pause().unwrap();
    for sql in [
        "CREATE TABLE unregistered (k int)",
        "INSERT INTO unregistered VALUES (1)",
        "CREATE SINK unregistered_sink FROM unregistered INTO KAFKA CONNECTION kafka (TOPIC 'unregistered') \
         FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr ENVELOPE DEBEZIUM",
    ] {
        world.run(sql).await;
    }
    let new = framed(later, &[10, 2, b'x', 2, b'l']);
    let records = [
        Record::new("b", new),
        Record::new("c", framed(ids[0], &AVRO_ROW)),
        Record::tombstone("a"),
    ];
    world.produce("avros", &records).await;
    let seen = until_status(
        &world.client,
        "avros",
        "stalled",
        "schema registry at http://127.0.0.1:",
    )
    .await;
    assert!(seen.contains("once the registry answers"), "{seen}");
    let select = "SELECT key, id, name FROM avros ORDER BY 1";
    assert_eq!(rows(&world.client, select).await.unwrap(), ["a|5|n"]);
    let read = rows(&world.client, "SELECT \"offset\" FROM avros_progress").await;
    assert_eq!(read.unwrap(), before);
    // It is told by how much it is behind.
    let sql = lag_of("avros");
    wait::until("the source to be behind by three", DEADLINE, async || {
        let seen = rows(&world.client, &sql).await?;
        let parsed = seen.first().and_then(|row| row.split_once('|'));
        let numbers = parsed.and_then(|(known, read)| {
            Some((known.parse::<i64>().ok()?, read.parse::<i64>().ok()?))
        });
        match numbers {
            Some((known, read)) if known - read == 3 => Ok(()),
            _ => Err(format!("{seen:?}")),
        }
    })
    .await
    .unwrap();
    let read: i64 = before[0].parse().unwrap();
    let expected = [format!("0|{}|{read}|3", read + 3)];
    until(&world.client, &partitions_of("avros"), &expected).await;
    // A sink has not registered what it would write.
    until_sink_status(
        &world.client,
        "unregistered_sink",
        "stalled",
        "schema registry",
    )
    .await;
    world.run("INSERT INTO unregistered VALUES (2)").await;
    world.registry.resume().unwrap();
    until(&world.client, select, &["b|5|l", "c|5|n"]).await;
    until_status(&world.client, "avros", "running", "").await;
    let written = until_records(&world.kafka, "unregistered", 2).await;
    assert_eq!(written.len(), 2, "{written:?}");
    until_sink_status(&world.client, "unregistered_sink", "running", "").await;
    world.run("DROP SINK unregistered_sink").await;
}

async fn topics_may_get_partitions_and_be_deleted(world: &World) {
    let quick = |topic: &str| {
        format!(
            "CREATE SOURCE {topic} FROM KAFKA CONNECTION kafka (TOPIC '{topic}', TOPIC METADATA REFRESH INTERVAL '1s') \
             FORMAT TEXT INCLUDE PARTITION, OFFSET"
        )
    };
    world.topic("grown", &[Record::of_value("one")]).await;
    world.topic("gone", &[Record::of_value("one")]).await;
    world.run(&quick("grown")).await;
    world.run(&quick("gone")).await;
    let select = "SELECT \"text\", partition, \"offset\" FROM grown ORDER BY 2, 3";
    until(&world.client, select, &["one|0|0"]).await;
    until(&world.client, "SELECT \"text\" FROM gone", &["one"]).await;
    world.kafka.grow_topic("grown", 3).await.unwrap();
    let records = [
        Record::of_value("two").to_partition(2),
        Record::of_value("three").to_partition(0),
        Record::of_value("four").to_partition(2),
    ];
    // A broker may not know the partition at once.
    wait::until("the partition to be there", DEADLINE, async || {
        let first = std::slice::from_ref(&records[0]);
        let produced = world.kafka.produce("grown", first).await;
        produced.map_err(|error| format!("{error:#}"))
    })
    .await
    .unwrap();
    world.produce("grown", &records[1..]).await;
    let expected = ["one|0|0", "three|0|1", "two|2|0", "four|2|1"];
    until(&world.client, select, &expected).await;
    until_read(&world.client, "grown", &[2, 0, 2]).await;

    world.kafka.delete_topic("gone").await.unwrap();
    let seen = until_status(
        &world.client,
        "gone",
        "failed",
        "topic \"gone\" was deleted",
    )
    .await;
    assert!(
        seen.contains("Drop the source and create it again."),
        "{seen}"
    );
    until_fails(
        &world.client,
        "SELECT * FROM gone",
        "topic \"gone\" was deleted",
    )
    .await;
    world.run("DROP SOURCE gone CASCADE").await;
}

/// While nobody looks, one topic is made anew and another loses what was not read.
async fn topics_may_be_others_after_a_while(world: &mut World) {
    let of = |texts: &[&str]| -> Vec<Record> {
        texts.iter().map(|text| Record::of_value(*text)).collect()
    };
    for topic in ["recreated", "short"] {
        world.topic(topic, &of(&["1", "2", "3"])).await;
        world.source(topic, "FORMAT TEXT").await;
        let select = format!("SELECT \"text\" FROM {topic} ORDER BY 1");
        until(&world.client, &select, &["1", "2", "3"]).await;
    }
    world.node.stop().await.unwrap();
    world.kafka.delete_topic("recreated").await.unwrap();
    wait::until("the topic to be made again", DEADLINE, async || {
        let made = world.kafka.create_topic("recreated", 1, &[]).await;
        made.map_err(|error| format!("{error:#}"))
    })
    .await
    .unwrap();
    world.produce("recreated", &of(&["other"])).await;
    world.produce("short", &of(&["4", "5", "6"])).await;
    world.kafka.delete_records("short", 0, 5).await.unwrap();
    world.produce("grown", &of(&["meanwhile"])).await;
    world.node.restart().await.unwrap();
    world.client = world.node.connect().await.unwrap();

    for (topic, error) in [
        (
            "recreated",
            "topic \"recreated\" was recreated: partition 0 ends at offset 1, and was read up to 3",
        ),
        (
            "short",
            "messages of partition 0 of topic \"short\" from offset 3 to 5 were removed before they were read",
        ),
    ] {
        let seen = until_status(&world.client, topic, "failed", error).await;
        assert!(
            seen.contains("Drop the source and create it again."),
            "{seen}"
        );
        until_fails(&world.client, &format!("SELECT * FROM {topic}"), error).await;
    }
    // Others are not in it.
    let count = "SELECT count(*) FROM grown";
    until(&world.client, count, &["5"]).await;
    for (topic, expected) in [("recreated", vec!["other"]), ("short", vec!["6"])] {
        world.run(&format!("DROP SOURCE {topic} CASCADE")).await;
        world.source(topic, "FORMAT TEXT").await;
        let select = format!("SELECT \"text\" FROM {topic} ORDER BY 1");
        until(&world.client, &select, &expected).await;
    }
}

async fn sinks_write_to_the_partitions_that_there_are(world: &World) {
    world.kafka.create_topic("spread", 4, &[]).await.unwrap();
    world.run("CREATE TABLE spread_rows (k int, v text)").await;
    world
        .run(
            "INSERT INTO spread_rows SELECT g, 'v' || g::text FROM generate_series(1, 100) AS s(g)",
        )
        .await;
    let sink = |name: &str, connection: &str, options: &str| {
        format!(
            "CREATE SINK {name}_sink FROM spread_rows INTO KAFKA CONNECTION {connection} (TOPIC '{name}'{options}) \
             KEY (k) NOT ENFORCED FORMAT JSON ENVELOPE UPSERT"
        )
    };
    // The topic is there, with other partitions than it would be made with.
    world
        .run(&sink("spread", "kafka", ", TOPIC PARTITION COUNT 2"))
        .await;
    let partitions = |found: &[Stored]| -> BTreeSet<i32> {
        found.iter().map(|stored| stored.partition).collect()
    };
    let mut expected = json_rows((1..=100).map(|k| (k, format!("v{k}"))));
    let found = until_holds(&world.kafka, "spread", &expected).await;
    assert_eq!(found.len(), 100);
    assert_eq!(partitions(&found), BTreeSet::from([0, 1, 2, 3]));
    until_sink_status(&world.client, "spread_sink", "running", "").await;
    let counted = "SELECT c.messages_committed FROM mz_internal.mz_sink_statistics AS c JOIN mz_sinks AS s ON s.id = c.id WHERE s.name = 'spread_sink'";
    until(&world.client, counted, &["100"]).await;
    until(&world.client, WRITTEN, &["spread_sink"]).await;
    // It gets more while the sink runs.
    world.kafka.grow_topic("spread", 6).await.unwrap();
    for sql in [
        "DELETE FROM spread_rows WHERE k > 90",
        "UPDATE spread_rows SET v = 'w' || k::text WHERE k <= 50",
    ] {
        world.run(sql).await;
    }
    expected = json_rows((1..=90).map(|k| (k, format!("{}{k}", if k <= 50 { "w" } else { "v" }))));
    let found = until_holds(&world.kafka, "spread", &expected).await;
    assert_eq!(found.len(), 160);
    until(&world.client, counted, &["160"]).await;

    // A progress topic of several partitions has no order.
    let is_compacted = [("cleanup.policy", "compact")];
    let made = world.kafka.create_topic("three", 3, &is_compacted).await;
    made.unwrap();
    let broker = world.kafka.bootstrap(Listener::Plaintext);
    world
        .run(&format!(
            "CREATE CONNECTION other TO KAFKA (BROKER '{broker}', SECURITY PROTOCOL 'PLAINTEXT', PROGRESS TOPIC 'three')"
        ))
        .await;
    world.run(&sink("refused", "other", "")).await;
    let seen = until_sink_status(
        &world.client,
        "refused_sink",
        "stalled",
        "topic \"three\" has 3 partitions",
    )
    .await;
    assert!(
        seen.contains("A progress topic has one partition."),
        "{seen}"
    );
    // One that has never written is not said to be behind.
    until(&world.client, WRITTEN, &["spread_sink"]).await;
    world.kafka.delete_topic("three").await.unwrap();
    let found = until_holds(&world.kafka, "refused", &expected).await;
    assert_eq!(found.len(), expected.len());
    until_sink_status(&world.client, "refused_sink", "running", "").await;
    until(&world.client, WRITTEN, &["refused_sink", "spread_sink"]).await;

    // Nor has one that loses old records a place in which a sink finds itself again.
    let is_lossy = [("cleanup.policy", "delete")];
    world
        .kafka
        .create_topic("lossy", 1, &is_lossy)
        .await
        .unwrap();
    world
        .run(&format!(
            "CREATE CONNECTION lossy_kafka TO KAFKA (BROKER '{broker}', SECURITY PROTOCOL 'PLAINTEXT', PROGRESS TOPIC 'lossy')"
        ))
        .await;
    world.run(&sink("kept", "lossy_kafka", "")).await;
    let part = "topic \"lossy\" has cleanup.policy \"delete\"";
    let seen = until_sink_status(&world.client, "kept_sink", "stalled", part).await;
    assert!(
        seen.contains("Set cleanup.policy of the topic to compact."),
        "{seen}"
    );
    let altered = world.kafka.alter_topic("lossy", &is_compacted).await;
    altered.unwrap();
    let found = until_holds(&world.kafka, "kept", &expected).await;
    assert_eq!(found.len(), expected.len());
    until_sink_status(&world.client, "kept_sink", "running", "").await;
}

/// A row of two megabytes is written to a topic that takes it. To one that does not nothing of its commit is, and what can be done is said.
async fn a_row_may_be_larger_than_what_a_topic_takes(world: &World) {
    world.run("CREATE TABLE wide_rows (k int, v text)").await;
    let is_wide = [("max.message.bytes", "4000000")];
    world.kafka.create_topic("wide", 1, &is_wide).await.unwrap();
    world.topic("narrow", &[]).await;
    world.run("INSERT INTO wide_rows VALUES (1, 'small')").await;
    let before = json_rows([(1, "small".to_owned())]);
    for topic in ["wide", "narrow"] {
        // Brokers look at what is compressed.
        let sql = format!(
            "CREATE SINK {topic}_sink FROM wide_rows INTO KAFKA CONNECTION kafka (TOPIC '{topic}', COMPRESSION TYPE 'none') \
             KEY (k) NOT ENFORCED FORMAT JSON ENVELOPE UPSERT"
        );
        world.run(&sql).await;
        until_holds(&world.kafka, topic, &before).await;
    }
    let large = "x".repeat(2_000_000);
    let sql = format!("INSERT INTO wide_rows VALUES (2, '{large}'), (3, 'beside it')");
    world.run(&sql).await;
    let mut after = before.clone();
    after.extend(json_rows([(2, large), (3, "beside it".to_owned())]));
    until_holds(&world.kafka, "wide", &after).await;
    until_sink_status(&world.client, "wide_sink", "running", "").await;
    let part = "Message size too large";
    let seen = until_sink_status(&world.client, "narrow_sink", "stalled", part).await;
    assert!(
        seen.contains("Raise max.message.bytes of the topic, or write less into a row."),
        "{seen}"
    );
    until_holds(&world.kafka, "narrow", &before).await;
    let altered = world.kafka.alter_topic("narrow", &is_wide).await;
    altered.unwrap();
    let found = until_holds(&world.kafka, "narrow", &after).await;
    assert_eq!(found.len(), 3);
    until_sink_status(&world.client, "narrow_sink", "running", "").await;
}

/// A topic that is not the one that was written to is not taken for it, although the progress topic says that it is full. One whose old messages were removed is.
async fn sinks_know_their_topics_again(world: &mut World) {
    let create = |topic: &str| {
        format!(
            "CREATE SINK {topic}_sink FROM known_rows INTO KAFKA CONNECTION kafka (TOPIC '{topic}') \
             KEY (k) NOT ENFORCED FORMAT JSON ENVELOPE UPSERT"
        )
    };
    let rows_of = |rows: &[(i32, &str)]| json_rows(rows.iter().map(|(k, v)| (*k, (*v).to_owned())));
    world.run("CREATE TABLE known_rows (k int, v text)").await;
    world
        .run("INSERT INTO known_rows VALUES (1, 'one'), (2, 'two')")
        .await;
    for topic in ["anew", "shortened"] {
        world.topic(topic, &[]).await;
        world.run(&create(topic)).await;
        until_holds(&world.kafka, topic, &rows_of(&[(1, "one"), (2, "two")])).await;
        until_sink_status(&world.client, &format!("{topic}_sink"), "running", "").await;
    }
    world.node.stop().await.unwrap();
    world.kafka.delete_topic("anew").await.unwrap();
    wait::until("the topic to be made again", DEADLINE, async || {
        let made = world.kafka.create_topic("anew", 1, &[]).await;
        made.map_err(|error| format!("{error:#}"))
    })
    .await
    .unwrap();
    world.kafka.delete_records("shortened", 0, 2).await.unwrap();
    world.node.restart().await.unwrap();
    world.client = world.node.connect().await.unwrap();
    world
        .run("INSERT INTO known_rows VALUES (3, 'three')")
        .await;
    let seen = until_sink_status(
        &world.client,
        "anew_sink",
        "stalled",
        "was recreated, or has lost messages: partition 0 ends at offset 0, and had reached ",
    )
    .await;
    assert!(seen.contains("Drop the sink and create it again"), "{seen}");
    until_holds(&world.kafka, "shortened", &rows_of(&[(3, "three")])).await;
    until_sink_status(&world.client, "shortened_sink", "running", "").await;
    let found = world.kafka.read("anew", Isolation::Committed).await;
    assert_eq!(found.unwrap().len(), 0);
    world.run("DROP SINK anew_sink").await;
    world.run(&create("anew")).await;
    let expected = rows_of(&[(1, "one"), (2, "two"), (3, "three")]);
    until_holds(&world.kafka, "anew", &expected).await;
    until_sink_status(&world.client, "anew_sink", "running", "").await;
}

/// A broker that is away holds up neither tables nor views, and is waited for.
async fn brokers_may_be_away(world: &mut World) {
    world.topic("patient", &[Record::new("a", "1")]).await;
    world
        .source(
            "patient",
            "KEY FORMAT TEXT VALUE FORMAT TEXT ENVELOPE UPSERT",
        )
        .await;
    world.run("CREATE TABLE here (k int, v text)").await;
    world
        .run("CREATE SINK here_sink FROM here INTO KAFKA CONNECTION kafka (TOPIC 'here') KEY (k) NOT ENFORCED FORMAT JSON ENVELOPE UPSERT")
        .await;
    world
        .run("CREATE SINK patient_sink FROM patient INTO KAFKA CONNECTION kafka (TOPIC 'patient_out') KEY (key) FORMAT JSON ENVELOPE UPSERT")
        .await;
    world.run("INSERT INTO here VALUES (0, 'before')").await;
    let select = "SELECT key, \"text\" FROM patient ORDER BY 1";
    until(&world.client, select, &["a|1"]).await;
    let mut expected = json_rows([(0, "before".to_owned())]);
    until_holds(&world.kafka, "here", &expected).await;
    world.kafka.kill(1).unwrap();
    let hint = "Check that the brokers run";
    let seen = until_status(&world.client, "patient", "stalled", hint).await;
    assert!(seen.contains("Kafka cannot be reached: "), "{seen}");
    // What is there can be read, and what is here goes on.
    assert_eq!(rows(&world.client, select).await.unwrap(), ["a|1"]);
    for k in 1..=3 {
        world
            .run(&format!("INSERT INTO here VALUES ({k}, 'during')"))
            .await;
        expected.extend(json_rows([(k, "during".to_owned())]));
    }
    until(&world.client, "SELECT count(*) FROM here", &["4"]).await;
    world.kafka.restart(1).await.unwrap();
    world
        .produce("patient", &[Record::new("b", "2"), Record::new("a", "3")])
        .await;
    until(&world.client, select, &["a|3", "b|2"]).await;
    until_status(&world.client, "patient", "running", "").await;
    let found = until_holds(&world.kafka, "here", &expected).await;
    assert_eq!(found.len(), expected.len());
    let of = |key: &str, text: &str| {
        (
            format!("{{\"key\":\"{key}\"}}"),
            format!("{{\"key\":\"{key}\",\"text\":\"{text}\"}}"),
        )
    };
    let patient = BTreeMap::from([of("a", "3"), of("b", "2")]);
    let found = until_holds(&world.kafka, "patient_out", &patient).await;
    assert_eq!(found.len(), 3, "{found:?}");
    for sink in ["here_sink", "patient_sink"] {
        until_sink_status(&world.client, sink, "running", "").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_is_said_and_nothing_is_lost_or_there_twice() {
    let mut world = World::start().await;
    let reader = register(&world.registry, READER).await;
    let misfit = register(&world.registry, MISFIT).await;
    let formats = formats(reader, misfit);
    connections_say_why_they_fail(&world).await;
    for format in &formats {
        format.create(&world).await;
    }
    let values = formats
        .iter()
        .map(|format| bad_values_are_errors_of_their_keys(&world, format));
    futures::future::join_all(values).await;
    bad_keys_are_errors_until_they_are_taken_back(&world, &formats).await;
    a_message_that_is_too_large_is_an_error_of_its_key(&world).await;
    what_becomes_of_bad_messages_can_be_chosen(&world).await;
    a_registry_may_be_away(&world, [reader, misfit]).await;
    topics_may_get_partitions_and_be_deleted(&world).await;
    topics_may_be_others_after_a_while(&mut world).await;
    sinks_write_to_the_partitions_that_there_are(&world).await;
    a_row_may_be_larger_than_what_a_topic_takes(&world).await;
    sinks_know_their_topics_again(&mut world).await;
    brokers_may_be_away(&mut world).await;
}
