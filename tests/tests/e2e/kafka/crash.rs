//! What is killed on the way from a topic into tables and out again: nothing is lost, repeated or contradicted.
//!
//! MySQL is the truth. Debezium writes what changes there, a source reads it, and two sinks write it out again, a table and a view of it, while the node is
//! killed at moments that depend on what was written. Each row carries the number of the statement that made it, which only grows, and each change of a view
//! says which row was before: a message that was lost, or that is there twice, is seen in the topic.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use flowstone_tests::connect::mysql_connector;
use flowstone_tests::kafka::{Isolation, Record, Stored};
use flowstone_tests::{Connect, Kafka, KafkaOptions, Mysql, Node, NodeOptions, wait};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use serde_json::Value;
use tokio_postgres::Client;

use super::bad_input::{
    DEADLINE, connect_kafka, epoch_of, rows, run, until, until_sink_status, until_status,
};

/// A number of the environment, for runs that are longer than those of every change.
fn scale(name: &str, usual: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(usual)
}

/// How often the node is killed: 30 before a release.
fn kills() -> u64 {
    scale("FLOWSTONE_KAFKA_KILLS", 6)
}

/// How many messages the long topic has: ten millions before a release.
fn upserts() -> u64 {
    scale("FLOWSTONE_KAFKA_UPSERTS", 500_000)
}

fn seed() -> u64 {
    let seed = scale("FLOWSTONE_SEED", u64::from(std::process::id()));
    println!("seed {seed}");
    seed
}

/// The cell of a row as `rows` shows it.
fn cell(row: &Value, column: &str) -> String {
    match row.get(column) {
        None => "(missing)".to_owned(),
        Some(Value::Null) => "NULL".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn line(row: &Value, columns: &[&str]) -> String {
    let cells: Vec<String> = columns.iter().map(|column| cell(row, column)).collect();
    cells.join("|")
}

/// Checks what is so of every message of a sink: a key stays in its partition, and has one message in an epoch, in the order of epochs.
#[derive(Debug, Default)]
struct Order {
    last: HashMap<Vec<u8>, (i32, u64)>,
}

impl Order {
    fn check(&mut self, stored: &Stored) -> Result<String> {
        let key = stored.record.key.clone().context("no key")?;
        let epoch = epoch_of(stored).map_err(anyhow::Error::msg)?;
        if let Some((partition, before)) = self.last.insert(key.clone(), (stored.partition, epoch))
        {
            ensure!(partition == stored.partition, "it was in {partition}");
            ensure!(epoch > before, "it had a message of epoch {before}");
        }
        Ok(String::from_utf8(key)?)
    }
}

/// Folds a topic of changes: each says just what the one before it has left. Returns the rows, sorted.
fn fold_changes(found: &[Stored], columns: &[&str]) -> Result<Vec<String>> {
    let mut order = Order::default();
    let mut held: BTreeMap<String, Value> = BTreeMap::new();
    for stored in found {
        fold_change(stored, &mut order, &mut held).with_context(|| format!("{stored:?}"))?;
    }
    let mut lines: Vec<String> = held.values().map(|row| line(row, columns)).collect();
    lines.sort_unstable();
    Ok(lines)
}

fn fold_change(
    stored: &Stored,
    order: &mut Order,
    held: &mut BTreeMap<String, Value>,
) -> Result<()> {
    let key = order.check(stored)?;
    let payload = stored.record.value.as_deref().context("no value")?;
    let change: Value = serde_json::from_slice(payload)?;
    let image = |name: &str| change.get(name).cloned().context("not a change");
    let (before, after) = (image("before")?, image("after")?);
    let known = held.get(&key).cloned().unwrap_or(Value::Null);
    ensure!(before == known, "the row was {known}");
    ensure!(before != after, "it changes nothing");
    if after.is_null() {
        held.remove(&key);
    } else {
        held.insert(key, after);
    }
    Ok(())
}

/// Folds a topic of upserts whose rows have a number `n`, which grows with every change of a key. Returns the rows, sorted.
fn fold_upserts(found: &[Stored], columns: &[&str]) -> Result<Vec<String>> {
    let mut order = Order::default();
    let mut held: BTreeMap<String, Value> = BTreeMap::new();
    let mut newest: HashMap<String, u64> = HashMap::new();
    for stored in found {
        fold_upsert(stored, &mut order, &mut held, &mut newest)
            .with_context(|| format!("{stored:?}"))?;
    }
    let mut lines: Vec<String> = held.values().map(|row| line(row, columns)).collect();
    lines.sort_unstable();
    Ok(lines)
}

fn fold_upsert(
    stored: &Stored,
    order: &mut Order,
    held: &mut BTreeMap<String, Value>,
    newest: &mut HashMap<String, u64>,
) -> Result<()> {
    let key = order.check(stored)?;
    let Some(payload) = stored.record.value.as_deref() else {
        ensure!(held.remove(&key).is_some(), "there was no such row");
        return Ok(());
    };
    let row: Value = serde_json::from_slice(payload)?;
    let n = row.get("n").and_then(Value::as_u64).context("no number")?;
    let before = newest.insert(key.clone(), n);
    ensure!(
        before.is_none_or(|before| before < n),
        "there was {before:?} already"
    );
    held.insert(key, row);
    Ok(())
}

/// Waits until what is committed in a topic folds to these rows. That it says something twice, or has left something out, ends it at once.
/// Returns how many messages there are.
async fn until_folds(
    kafka: &Kafka,
    topic: &str,
    fold: impl Fn(&[Stored]) -> Result<Vec<String>>,
    expected: &[String],
) -> usize {
    let what = format!("the topic {topic} to hold what is written to it");
    let found = wait::until(&what, DEADLINE, async || {
        let found = kafka.read(topic, Isolation::Committed).await;
        let found = found.map_err(|error| format!("{error:#}"))?;
        match fold(&found) {
            Err(wrong) => Ok(Err(wrong)),
            Ok(held) if held == expected => Ok(Ok(found.len())),
            Ok(held) => Err(difference(&held, expected)),
        }
    })
    .await
    .unwrap();
    found.unwrap_or_else(|wrong| panic!("{topic}: {wrong:#}"))
}

/// How two sorted lists of rows differ.
fn difference(held: &[String], expected: &[String]) -> String {
    let lacking = |from: &[String], list: &[String]| -> Vec<String> {
        let lacking = from.iter().filter(|row| list.binary_search(row).is_err());
        lacking.take(5).cloned().collect()
    };
    format!(
        "{} rows instead of {}; missing {:?}; too many {:?}",
        held.len(),
        expected.len(),
        lacking(expected, held),
        lacking(held, expected)
    )
}

async fn sorted(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let mut rows = rows(client, sql).await?;
    rows.sort_unstable();
    Ok(rows)
}

/// Waits until a query gives these rows, which are sorted.
async fn until_sorted(client: &Client, sql: &str, expected: &[String]) {
    wait::until(sql, DEADLINE, async || {
        let seen = sorted(client, sql).await?;
        if seen == expected {
            Ok(())
        } else {
            Err(difference(&seen, expected))
        }
    })
    .await
    .unwrap();
}

/// Keys of accounts.
const ACCOUNTS: u32 = 200;

/// Changes MySQL until it is dropped.
struct Writer {
    stop: Arc<AtomicBool>,
    batches: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    fn start(mysql: &Arc<Mysql>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let batches = Arc::new(AtomicU64::new(0));
        let (mysql, stopped, counted) =
            (Arc::clone(mysql), Arc::clone(&stop), Arc::clone(&batches));
        let thread = std::thread::spawn(move || {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            // Some rows are there already.
            let mut n = u64::from(ACCOUNTS);
            while !stopped.load(Ordering::Relaxed) {
                let mut text = String::new();
                for _ in 0..random.random_range(1..5) {
                    transaction(&mut random, &mut n, &mut text);
                }
                mysql.execute(&text).unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            stop,
            batches,
            thread: Some(thread),
        }
    }

    /// Waits until so many batches more are written.
    async fn go_on(&self, batches: u64) {
        let wanted = self.batches.load(Ordering::Relaxed) + batches;
        wait::until("changes in MySQL", DEADLINE, async || {
            let now = self.batches.load(Ordering::Relaxed);
            let is_dead = self
                .thread
                .as_ref()
                .is_none_or(|thread| thread.is_finished());
            assert!(!is_dead, "the writer has ended");
            if now >= wanted {
                Ok(())
            } else {
                Err(format!("{now} of {wanted} batches"))
            }
        })
        .await
        .unwrap();
    }

    /// Ends it; everything it wrote is committed then.
    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A test that fails does not wait for it.
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Adds a transaction of some statements, each with a number of its own.
fn transaction(random: &mut ChaCha8Rng, n: &mut u64, text: &mut String) {
    text.push_str("START TRANSACTION;\n");
    for _ in 0..random.random_range(1..5) {
        *n += 1;
        let id = random.random_range(1..=ACCOUNTS);
        let other = random.random_range(1..=ACCOUNTS);
        let holder = random.random_range(0..8);
        let amount = random.random_range(-100..=100);
        match random.random_range(0..8) {
            0..=2 => writeln!(
                text,
                "REPLACE INTO accounts VALUES ({id}, 'holder {holder}', {amount}, {n});"
            ),
            3 | 4 => writeln!(
                text,
                "UPDATE accounts SET amount = amount + {amount}, n = {n} WHERE id BETWEEN {id} AND {id} + 5;"
            ),
            5 => writeln!(
                text,
                "UPDATE accounts SET holder = NULL, n = {n} WHERE id = {id};"
            ),
            // The key changes, unless another row has it.
            6 => writeln!(
                text,
                "UPDATE IGNORE accounts SET id = {other}, n = {n} WHERE id = {id};"
            ),
            _ => writeln!(text, "DELETE FROM accounts WHERE id = {id};"),
        }
        .unwrap();
    }
    let is_kept = random.random_range(0..5) > 0;
    text.push_str(if is_kept { "COMMIT;\n" } else { "ROLLBACK;\n" });
}

/// What MySQL answers, as `rows` shows it, sorted.
fn upstream(mysql: &Mysql, sql: &str) -> Vec<String> {
    let answer = mysql.execute(sql).unwrap();
    let mut lines: Vec<String> = answer.lines().map(|line| line.replace('\t', "|")).collect();
    lines.sort_unstable();
    lines
}

const TABLE: &str = "SELECT id, holder, amount, n FROM accounts";
const TABLE_COLUMNS: [&str; 4] = ["id", "holder", "amount", "n"];
const TOTALS: &str = "SELECT holder, count(*) AS accounts, sum(amount) AS total, max(n) AS newest FROM accounts GROUP BY holder";
const TOTALS_COLUMNS: [&str; 4] = ["holder", "accounts", "total", "newest"];

async fn create_flow(client: &Client, kafka: &Kafka) {
    connect_kafka(client, kafka).await;
    let view = format!("CREATE MATERIALIZED VIEW totals AS {TOTALS}");
    for sql in [
        "CREATE SOURCE accounts (id int, holder text, amount int, n bigint, PRIMARY KEY (id) NOT ENFORCED) \
         FROM KAFKA CONNECTION kafka (TOPIC 'my.test.accounts') FORMAT JSON ENVELOPE DEBEZIUM",
        view.as_str(),
        "CREATE SINK accounts_sink FROM accounts INTO KAFKA CONNECTION kafka (TOPIC 'accounts_out', TOPIC PARTITION COUNT 3) \
         KEY (id) FORMAT JSON ENVELOPE UPSERT",
        "CREATE SINK totals_sink FROM totals INTO KAFKA CONNECTION kafka (TOPIC 'totals_out') KEY (holder) FORMAT JSON ENVELOPE DEBEZIUM",
    ] {
        run(client, sql).await;
    }
}

/// Waits until both sinks have written something since the node was started.
async fn until_sinks_write(client: &Client) {
    let sql = "SELECT count(*) FROM mz_internal.mz_sink_statistics WHERE messages_committed > 0";
    until(client, sql, &["2"]).await;
}

/// Waits until the node has ended by itself.
async fn until_ended(node: &Node) {
    wait::until("the node to end", DEADLINE, async || {
        match node.connect().await {
            Ok(_) => Err("it serves".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await
    .unwrap();
}

/// Starts a node that ends right before a step of what a sink writes, and waits for that.
async fn end_at(dir: &Path, failpoint: &str) {
    let options = NodeOptions {
        environment: vec![("FLOWSTONE_FAILPOINTS".to_owned(), failpoint.to_owned())],
        ..NodeOptions::default()
    };
    // It may end before anybody was let in.
    if let Ok(node) = Node::start_with(dir, 2, options).await {
        until_ended(&node).await;
    }
}

/// What was read, seen and written is what MySQL has, and the topics say each change once.
async fn check(client: &Client, kafka: &Kafka, mysql: &Mysql) {
    let table = upstream(mysql, TABLE);
    until_sorted(client, TABLE, &table).await;
    let totals = upstream(mysql, TOTALS);
    until_sorted(client, "SELECT * FROM totals", &totals).await;
    let rows_of = |found: &[Stored]| fold_upserts(found, &TABLE_COLUMNS);
    let of_table = until_folds(kafka, "accounts_out", rows_of, &table).await;
    let changes = |found: &[Stored]| fold_changes(found, &TOTALS_COLUMNS);
    let of_totals = until_folds(kafka, "totals_out", changes, &totals).await;
    println!(
        "{} rows and {of_table} messages, {} totals and {of_totals} messages",
        table.len(),
        totals.len()
    );
    assert!(of_table > table.len() && of_totals > totals.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_neither_lose_nor_repeat_what_debezium_writes_and_what_sinks_write() {
    let seed = seed();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let (kafka, mysql) = tokio::join!(Kafka::start(dir.path()), Mysql::start(dir.path()));
    let (kafka, mysql) = (kafka.unwrap(), Arc::new(mysql.unwrap()));
    let connect = Connect::start(dir.path(), &kafka).await.unwrap();
    mysql
        .execute("CREATE TABLE accounts (id INT PRIMARY KEY, holder VARCHAR(20), amount INT NOT NULL, n BIGINT NOT NULL)")
        .unwrap();
    // Half of the keys, in Debezium's snapshot.
    let rows: Vec<String> = (1..=ACCOUNTS / 2)
        .map(|id| format!("({id}, 'holder {}', 0, {id})", id % 8))
        .collect();
    let sql = format!("INSERT INTO accounts VALUES {}", rows.join(", "));
    mysql.execute(&sql).unwrap();
    let connector = mysql_connector(&kafka, &mysql, "my", "test");
    connect.create("my", &connector).await.unwrap();
    wait::until("the snapshot of Debezium", DEADLINE, async || {
        match kafka.read("my.test.accounts", Isolation::Committed).await {
            Ok(found) if !found.is_empty() => Ok(()),
            Ok(_) => Err("nothing".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
    .unwrap();
    let writer = Writer::start(&mysql, seed);
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    create_flow(&client, &kafka).await;
    until_sinks_write(&client).await;
    drop(client);
    for kill in 0..kills() {
        let started = std::time::Instant::now();
        // Every other time in the middle of recovery, else once changes flow through all of it.
        if kill % 2 == 1 {
            let client = node.connect().await.unwrap();
            until_sinks_write(&client).await;
        }
        writer.go_on(random.random_range(0..30)).await;
        node.kill().unwrap();
        let lived = started.elapsed();
        node.restart()
            .await
            .unwrap_or_else(|error| panic!("after kill {kill}: {error:#}"));
        println!(
            "kill {kill} after {lived:?}, serving again after {:?}",
            started.elapsed() - lived
        );
    }
    // Between the last message of a transaction and its end, and between that and the moment at which the sink hears of it.
    drop(node);
    for failpoint in [
        "sink-transaction.sync=kill@5",
        "sink-transaction.tell=kill@5",
    ] {
        end_at(dir.path(), failpoint).await;
    }
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    writer.go_on(10).await;
    writer.end();
    check(&client, &kafka, &mysql).await;
    for sink in ["accounts_sink", "totals_sink"] {
        until_sink_status(&client, sink, "running", "").await;
    }
    until_status(&client, "accounts", "running", "").await;
}

/// Different keys of the long topic: each comes a hundred times.
fn keys() -> u64 {
    (upserts() / 100).min(100_000)
}

/// Bytes of the long topic, about: several times what a source keeps in memory of what it has read.
const TOPIC_BYTES: u64 = 800_000_000;
/// What a process may have in memory beyond what the first fifth has cost: what a source may keep of what it has read, and some more for what goes on beside.
const GROWTH_MAX: u64 = (256 + 128) << 20;
/// Records that are written at once.
const PIECE: u64 = 20_000;

/// Writes messages; each key comes again after all others have. A value begins with the number of its message.
async fn produce_upserts(kafka: &Kafka, messages: std::ops::Range<u64>) {
    let bytes = usize::try_from((TOPIC_BYTES / upserts()).max(100)).unwrap();
    let keys = keys();
    let mut next = messages.start;
    while next < messages.end {
        let end = (next + PIECE).min(messages.end);
        let records: Vec<Record> = (next..end)
            .map(|number| {
                let value = format!("{number:012} {}", "x".repeat(bytes));
                Record::new(format!("key {}", number % keys), value)
            })
            .collect();
        kafka.produce("upserts", &records).await.unwrap();
        next = end;
    }
}

/// The most bytes that a process has had in memory at once.
fn peak_bytes(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

/// A node that reads the topic.
async fn start_reader(dir: &Path, kafka: &Kafka) -> (Node, Client) {
    std::fs::create_dir_all(dir).unwrap();
    let node = Node::start(dir, 2).await.unwrap();
    let client = node.connect().await.unwrap();
    connect_kafka(&client, kafka).await;
    run(
        &client,
        "CREATE SOURCE upserts (k, v) FROM KAFKA CONNECTION kafka (TOPIC 'upserts') KEY FORMAT TEXT VALUE FORMAT TEXT ENVELOPE UPSERT",
    )
    .await;
    (node, client)
}

/// Waits until so many messages are read, and the table holds the newest of each key.
async fn until_upserted(client: &Client, messages: u64) {
    // Twenty thousand in a second, after what everything may take.
    let deadline = DEADLINE + Duration::from_secs(messages / 20_000);
    // What is asked for all the while is small.
    let progress = "SELECT \"offset\" FROM upserts_progress";
    wait::until("the topic to be read", deadline, async || {
        let offsets = rows(client, progress).await?;
        let read: u64 = offsets
            .iter()
            .filter_map(|offset| offset.parse::<u64>().ok())
            .sum();
        if read == messages {
            Ok(())
        } else {
            Err(format!("{read} of {messages}"))
        }
    })
    .await
    .unwrap();
    let first = messages.saturating_sub(keys());
    let sum: u64 = (first..messages).sum();
    let sql = "SELECT count(*), sum(substr(v, 1, 12)::bigint) FROM upserts";
    until(client, sql, &[format!("{}|{sum}", messages.min(keys()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_topic() {
    let all = upserts();
    let fifth = all / 5;
    assert!(fifth >= keys(), "a fifth of the topic has all keys");
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(dir.path()).await.unwrap();
    kafka.create_topic("upserts", 2, &[]).await.unwrap();
    produce_upserts(&kafka, 0..fifth).await;
    let (node, client) = start_reader(&dir.path().join("first"), &kafka).await;
    until_upserted(&client, fifth).await;
    let after_fifth = peak_bytes(&node);
    // As it comes.
    produce_upserts(&kafka, fifth..all).await;
    until_upserted(&client, all).await;
    let followed = peak_bytes(&node);
    drop((client, node));
    // All of it at once, as the first content.
    let (node, client) = start_reader(&dir.path().join("second"), &kafka).await;
    until_upserted(&client, all).await;
    let at_once = peak_bytes(&node);
    let [after_fifth, followed, at_once, growth_max] =
        [after_fifth, followed, at_once, GROWTH_MAX].map(|bytes| bytes >> 20);
    println!(
        "{all} messages: {after_fifth} MiB after the first fifth, {followed} MiB when the rest came, {at_once} MiB when all of it was there"
    );
    assert!(followed <= after_fifth + growth_max);
    assert!(at_once <= after_fifth + growth_max);
}

/// The broker that leads the first partition of a topic.
async fn leader_of(kafka: &Kafka, topic: &'static str) -> usize {
    let config = kafka.client_config();
    let leader = tokio::task::spawn_blocking(move || -> Result<i32> {
        let client: BaseConsumer = config.create()?;
        let metadata = client.fetch_metadata(Some(topic), DEADLINE)?;
        let mut partitions = metadata
            .topics()
            .iter()
            .flat_map(|found| found.partitions());
        let first = partitions.find(|partition| partition.id() == 0);
        Ok(first.context("no partition")?.leader())
    });
    usize::try_from(leader.await.unwrap().unwrap()).unwrap()
}

/// Writes numbers one after the other, each in one of ten buckets, until it is dropped.
struct Stream {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Stream {
    fn start(mut config: ClientConfig, topic: &'static str, first: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(first));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&written));
        config.set("enable.idempotence", "true");
        config.set("linger.ms", "1");
        let task = tokio::spawn(async move {
            let producer: FutureProducer = config.create()?;
            while !stopped.load(Ordering::Relaxed) {
                let number = counted.load(Ordering::Relaxed);
                let text = format!("{}:{number:09}", number % 10);
                let record = FutureRecord::<str, str>::to(topic).payload(&text);
                let Ok(delivery) = producer.send_result(record) else {
                    bail!("the queue of one record is full");
                };
                if let Err((error, _)) = delivery.await? {
                    bail!("record {number} was not delivered: {error}");
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self {
            stop,
            written,
            task,
        }
    }

    /// Waits until so many more are written.
    async fn go_on(&self, more: u64) {
        let wanted = self.written.load(Ordering::Relaxed) + more;
        wait::until("numbers to be written", DEADLINE, async || {
            let now = self.written.load(Ordering::Relaxed);
            assert!(!self.task.is_finished(), "the stream has ended");
            if now >= wanted {
                Ok(())
            } else {
                Err(format!("{now} of {wanted}"))
            }
        })
        .await
        .unwrap();
    }

    /// Ends it; says how many numbers there are.
    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap().unwrap();
        self.written.load(Ordering::Relaxed)
    }
}

/// The tally of the numbers below `count`.
fn tally(count: u64) -> Vec<String> {
    let buckets = 0..count.min(10);
    let lines = buckets.map(|bucket| {
        let times = (count - bucket).div_ceil(10);
        let newest = bucket + 10 * (times - 1);
        format!("{bucket}|{times}|{bucket}:{newest:09}")
    });
    lines.collect()
}

/// The table, the view and the topic hold all numbers below `count`, each once.
async fn until_tallied(client: &Client, kafka: &Kafka, count: u64) -> usize {
    let all = "SELECT count(*), count(DISTINCT \"text\") FROM numbers";
    until(client, all, &[format!("{count}|{count}")]).await;
    let expected = tally(count);
    until_sorted(client, "SELECT * FROM tally", &expected).await;
    let changes = |found: &[Stored]| fold_changes(found, &["bucket", "times", "newest"]);
    until_folds(kafka, "out", changes, &expected).await
}

/// The identity under which the sink `id` writes: with that of the installation, which is in the middle of what `mz_environment_id()` says.
async fn transactional_id(client: &Client, id: &str) -> String {
    let environment = rows(client, "SELECT mz_environment_id()")
        .await
        .unwrap()
        .concat();
    let installation = environment
        .strip_prefix("flowstone-local-")
        .and_then(|rest| rest.strip_suffix("-0"));
    format!("flowstone-sink-{}-{id}", installation.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_move_and_zombies_are_fenced_without_loss_or_repetition() {
    let dir = tempfile::tempdir().unwrap();
    let options = KafkaOptions {
        brokers: 3,
        ..KafkaOptions::default()
    };
    let mut kafka = Kafka::start_with(dir.path(), options).await.unwrap();
    kafka.create_topic("in", 3, &[]).await.unwrap();
    let stream = Stream::start(kafka.client_config(), "in", 0);
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    connect_kafka(&client, &kafka).await;
    for sql in [
        "CREATE SOURCE numbers FROM KAFKA CONNECTION kafka (TOPIC 'in') FORMAT TEXT",
        "CREATE MATERIALIZED VIEW tally AS SELECT substr(\"text\", 1, 1) AS bucket, count(*) AS times, max(\"text\") AS newest \
         FROM numbers GROUP BY substr(\"text\", 1, 1)",
        "CREATE SINK out_sink FROM tally INTO KAFKA CONNECTION kafka (TOPIC 'out') KEY (bucket) FORMAT JSON ENVELOPE DEBEZIUM",
    ] {
        run(&client, sql).await;
    }
    stream.go_on(50).await;
    let written =
        "SELECT count(*) FROM mz_internal.mz_sink_statistics WHERE messages_committed > 0";
    until(&client, written, &["1"]).await;
    for topic in ["in", "out"] {
        let leader = leader_of(&kafka, topic).await;
        kafka.kill(leader).unwrap();
        stream.go_on(200).await;
        kafka.restart(leader).await.unwrap();
        stream.go_on(50).await;
    }
    let count = stream.end().await;
    until_tallied(&client, &kafka, count).await;
    until_status(&client, "numbers", "running", "").await;

    // Somebody comes under the sink's name and does not know that it is over. What it writes in its transaction never counts.
    let id = rows(&client, "SELECT id FROM mz_sinks WHERE name = 'out_sink'")
        .await
        .unwrap()
        .concat();
    let mut config = kafka.client_config();
    config.set("transactional.id", transactional_id(&client, &id).await);
    let zombie: BaseProducer = config.create().unwrap();
    let zombie = tokio::task::spawn_blocking(move || {
        zombie.init_transactions(DEADLINE).unwrap();
        zombie.begin_transaction().unwrap();
        let record = BaseRecord::<str, str>::to("out")
            .key("zombie")
            .payload("back from the dead");
        zombie.send(record).map_err(|(error, _)| error).unwrap();
        zombie.flush(DEADLINE).unwrap();
        zombie
    });
    let zombie = zombie.await.unwrap();
    let is_there = |found: &[Stored]| found.iter().any(|stored| stored.text().contains("dead"));
    let found = kafka.read("out", Isolation::Uncommitted).await.unwrap();
    assert!(is_there(&found), "it has written nothing");
    // The sink is thrown out, comes back, and throws the zombie out.
    let stream = Stream::start(kafka.client_config(), "in", count);
    stream.go_on(50).await;
    let count = stream.end().await;
    until_tallied(&client, &kafka, count).await;
    until_sink_status(&client, "out_sink", "running", "").await;
    let fenced = tokio::task::spawn_blocking(move || zombie.commit_transaction(DEADLINE));
    fenced.await.unwrap().unwrap_err();
    until_tallied(&client, &kafka, count).await;
    let found = kafka.read("out", Isolation::Committed).await.unwrap();
    assert!(!is_there(&found), "the zombie has committed");
}
