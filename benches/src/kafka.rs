//! Kafka: how fast a topic becomes a table, against a consumer that reads the same topic and does nothing with it, and how long after it was produced a
//! message is visible.
//!
//! Owns the servers, the order of measurements, and the figures. `messages` knows what is in topics, `client` librdkafka, `freshness` the second question.
//!
//! Ingestion is timed from CREATE SOURCE until a strict-serializable `SELECT count(*)` of its table gives all rows, which it does once the first content (what was
//! in the topic at creation) is there: reading, decoding, staging and indexing are in it. The table is compared with what was produced, and dropped again. The
//! consumer has the fetch settings of our sources, and its messages and bytes are counted. Both have the topic in the broker's page cache.
//!
//! `FLOWSTONE_BENCH_MESSAGES` says how many messages a topic has.
//!
//! Flink SQL with its Kafka connector is the second peer, where it is installed (`benches/peers/flink`, `make bench` does it): a cluster that runs already, as the
//! node does, with as many slots as the node has shards, reads the same topics and gives the same sums. What both took of the processors is compared.

mod client;
mod flink;
mod freshness;
mod messages;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use flowstone_tests::kafka::Listener;
use flowstone_tests::{Kafka, Node, Registry};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::report::{Aim, Better, Figure, Scale, Section};
use crate::servers::SHARDS;
use client::Consumed;
use flink::{Flink, Took, Watch};
use messages::{Messages, PARTITIONS, SUMS, SchemaIds, Workload};

/// What says how many messages a topic has.
const MESSAGES_VARIABLE: &str = "FLOWSTONE_BENCH_MESSAGES";
/// How much faster than Flink a core should be.
const FLINK_AIM: f64 = 3.0;
/// How long one ingestion may take.
const DEADLINE: Duration = Duration::from_secs(900);

/// A broker, a registry and a node with connections to both: `kafka` and `csr`.
struct Stage {
    client: Client,
    node: Node,
    registry: Registry,
    kafka: Kafka,
    _dir: TempDir,
}

/// What one topic took.
struct Measured {
    messages: i64,
    bytes: u64,
    ours: Vec<Took>,
    plain_seconds: Vec<f64>,
    /// Empty without Flink.
    flink: Vec<Took>,
}

pub(crate) async fn run(scale: Scale) -> Result<Section> {
    let wanted = wanted_messages(scale)?;
    let repetitions = scale.repetitions(2)?;
    let stage = Stage::start().await?;
    let mut flink = stage.flink()?;
    let beside = if flink.is_some() {
        format!(
            "against Flink SQL with parallelism {SHARDS} in a process that is warm, which gives sums of all columns; messages per second of processor time of the \
             node's and of Flink's process; "
        )
    } else {
        println!("Flink SQL is not compared: benches/peers/flink/install.sh installs it");
        String::new()
    };
    let (mut figures, mut details) = (Vec::new(), Map::new());
    for workload in Workload::ALL {
        let measured = stage
            .measure(workload, wanted, repetitions, &mut flink)
            .await;
        let measured = measured.with_context(|| workload.title())?;
        figures.extend(measured.figures(workload)?);
        details.insert(workload.topic().to_owned(), measured.details());
    }
    drop(flink);
    let fresh = freshness::measure(&stage, scale).await;
    let (latencies, described) = fresh.context("freshness")?;
    figures.extend(latencies);
    details.insert("freshness".to_owned(), described);
    Ok(Section {
        method: format!(
            "topics of {wanted} messages in {PARTITIONS} partitions, not compressed, on one broker; from CREATE SOURCE until a strict-serializable SELECT count(*) \
             gives all of them, against a consumer with the same settings that only counts; {beside}{repetitions} repetitions in turn; {}; all servers and clients \
             run on the same machine",
            freshness::method(scale)
        ),
        figures,
        details: Value::Object(details),
    })
}

/// How many messages a topic has.
fn wanted_messages(scale: Scale) -> Result<i64> {
    match std::env::var(MESSAGES_VARIABLE) {
        Ok(text) => {
            let wanted = text.parse::<u32>();
            let wanted = wanted.with_context(|| format!("{MESSAGES_VARIABLE} is {text}"))?;
            Ok(i64::from(wanted.max(1)))
        }
        Err(_) => Ok(scale.pick(5_000_000, 5_000)),
    }
}

impl Stage {
    async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let kafka = Kafka::start(dir.path()).await?;
        let registry = Registry::start(dir.path()).await?;
        let node = Node::start(dir.path(), SHARDS).await?;
        let client = node.connect().await?;
        let broker = kafka.bootstrap(Listener::Plaintext);
        let url = registry.url();
        for connection in [
            format!(
                "CREATE CONNECTION kafka TO KAFKA (BROKER '{broker}', SECURITY PROTOCOL PLAINTEXT)"
            ),
            format!("CREATE CONNECTION csr TO CONFLUENT SCHEMA REGISTRY (URL '{url}')"),
        ] {
            client.batch_execute(&connection).await?;
        }
        Ok(Self {
            client,
            node,
            registry,
            kafka,
            _dir: dir,
        })
    }

    /// Flink, if it is installed.
    fn flink(&self) -> Result<Option<Flink>> {
        let broker = self.kafka.bootstrap(Listener::Plaintext);
        Flink::start(&broker, &self.registry.url(), SHARDS, DEADLINE)
    }

    /// Makes a topic, reads it in turn as a consumer, as a source and with Flink, and removes it.
    async fn measure(
        &self,
        workload: Workload,
        wanted: i64,
        repetitions: usize,
        flink: &mut Option<Flink>,
    ) -> Result<Measured> {
        let messages = self.fill(workload, wanted).await?;
        // Whether the topic is what it should be. From then on it is in the cache, for both.
        let Consumed { bytes, .. } = self.consume(messages).await?;
        // Java compiles what it runs while it runs it: not in what is measured.
        if let Some(flink) = flink.as_mut() {
            read_with(flink, messages)?;
        }
        let mut measured = Measured {
            messages: messages.count(),
            bytes,
            ours: Vec::new(),
            plain_seconds: Vec::new(),
            flink: Vec::new(),
        };
        for _ in 0..repetitions {
            let plain = self.consume(messages).await?;
            measured.plain_seconds.push(plain.seconds);
            measured.ours.push(self.ingest(messages).await?);
            if let Some(flink) = flink.as_mut() {
                measured.flink.push(read_with(flink, messages)?);
            }
        }
        self.kafka.delete_topic(workload.topic()).await?;
        Ok(measured)
    }

    /// Makes the topic of a workload, with its schemas.
    async fn fill(&self, workload: Workload, wanted: i64) -> Result<Messages> {
        let topic = workload.topic();
        let mut ids = SchemaIds::default();
        for (part, schema, id) in [
            ("key", workload.key_schema(), &mut ids.key),
            ("value", workload.value_schema(), &mut ids.value),
        ] {
            if let Some(schema) = schema {
                let (subject, schema) = (format!("{topic}-{part}"), schema.to_string());
                *id = self.registry.register(&subject, "AVRO", &schema).await?;
            }
        }
        let messages = Messages::new(workload, wanted, ids);
        self.kafka.create_topic(topic, PARTITIONS, &[]).await?;
        let config = self.kafka.client_config();
        let producing = move || {
            client::produce(
                &config,
                topic,
                PARTITIONS,
                messages.count(),
                |number, key, value| messages.write(number, key, value),
            )
        };
        tokio::task::spawn_blocking(producing).await??;
        Ok(messages)
    }

    async fn consume(&self, messages: Messages) -> Result<Consumed> {
        let config = self.kafka.client_config();
        let topic = messages.topic();
        let consuming =
            move || client::consume(&config, topic, PARTITIONS, messages.count(), DEADLINE);
        tokio::task::spawn_blocking(consuming).await?
    }

    /// What it takes until a topic can be read as a table. It is dropped again.
    async fn ingest(&self, messages: Messages) -> Result<Took> {
        let watch = Watch::start(self.node.pid()?)?;
        let reading = async {
            self.client.batch_execute(messages.create()).await?;
            // A query on a source whose first content is not there yet waits for it.
            let count = "SELECT count(*) FROM bench";
            self.client.query_one(count, &[]).await
        };
        let Ok(row) = tokio::time::timeout(DEADLINE, reading).await else {
            let statuses = self.statuses().await?;
            bail!("not read in {DEADLINE:?}: {statuses}");
        };
        let row = row?;
        let took = watch.took()?;
        let (count, expected): (i64, _) = (row.try_get(0)?, messages.expected());
        if Some(&count) != expected.first() {
            bail!("{count} rows instead of {:?}", expected.first());
        }
        let row = self.client.query_one(SUMS, &[]).await?;
        let sums = (0..expected.len()).map(|column| row.try_get::<_, Option<i64>>(column));
        let sums = sums.collect::<Result<Vec<_>, _>>()?;
        if sums != expected.map(Some) {
            bail!("{SUMS}: {sums:?} instead of {expected:?}");
        }
        self.client
            .batch_execute("DROP SOURCE bench CASCADE")
            .await?;
        Ok(took)
    }

    /// What sources say of themselves, for who waited in vain.
    async fn statuses(&self) -> Result<String> {
        let client = self.node.connect().await?;
        let statuses = "SELECT name, status, error FROM mz_internal.mz_source_statuses";
        let mut said = Vec::new();
        for row in client.query(statuses, &[]).await? {
            let (name, status): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let error: Option<String> = row.try_get(2)?;
            said.push(format!("{name} {status} {}", error.unwrap_or_default()));
        }
        Ok(said.join("; "))
    }
}

/// What it takes Flink to read a topic, of which it must find the same.
fn read_with(flink: &mut Flink, messages: Messages) -> Result<Took> {
    let (took, sums) = tokio::task::block_in_place(|| flink.read(messages.topic()))?;
    let expected = messages.expected();
    if sums != expected {
        bail!("Flink finds {sums:?} instead of {expected:?}");
    }
    Ok(took)
}

/// One value of each run.
fn each(runs: &[Took], value: impl Fn(&Took) -> f64) -> Vec<f64> {
    runs.iter().map(value).collect()
}

impl Measured {
    fn figures(&self, workload: Workload) -> Result<Vec<Figure>> {
        let messages = f64::from(u32::try_from(self.messages)?);
        let title = workload.title();
        let rates = |runs: &[Took]| each(runs, |took| messages / took.seconds);
        let plain = self.plain_seconds.iter().map(|s| messages / s).collect();
        let ours = Figure::new(title, "messages/s", Better::Higher, rates(&self.ours));
        let mut figures = vec![
            ours.against("plain consumer", plain)
                .aim(Aim::Ratio(workload.aim())),
        ];
        if self.flink.is_empty() {
            return Ok(figures);
        }
        let per_core = |runs: &[Took]| each(runs, |took| messages / took.cpu_seconds);
        let cores = |runs: &[Took]| each(runs, |took| took.cpu_seconds / took.seconds);
        let beside = |what: &str, unit: &'static str, better: Better, ours, flink| {
            let name = format!("{title}: {what}");
            Figure::new(name, unit, better, ours).against("Flink SQL", flink)
        };
        figures.push(
            beside(
                "per core",
                "messages/CPU-s",
                Better::Higher,
                per_core(&self.ours),
                per_core(&self.flink),
            )
            .aim(Aim::Ratio(FLINK_AIM)),
        );
        figures.push(beside(
            "elapsed",
            "messages/s",
            Better::Higher,
            rates(&self.ours),
            rates(&self.flink),
        ));
        figures.push(beside(
            "cores used",
            "cores",
            Better::Lower,
            cores(&self.ours),
            cores(&self.flink),
        ));
        Ok(figures)
    }

    fn details(&self) -> Value {
        json!({
            "messages": self.messages,
            "bytes": self.bytes,
            "ingestion_seconds": each(&self.ours, |took| took.seconds),
            "ingestion_cpu_seconds": each(&self.ours, |took| took.cpu_seconds),
            "consumer_seconds": self.plain_seconds,
            "flink_seconds": each(&self.flink, |took| took.seconds),
            "flink_cpu_seconds": each(&self.flink, |took| took.cpu_seconds),
        })
    }
}
