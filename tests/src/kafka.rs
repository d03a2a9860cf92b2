//! A real Kafka: one broker or several, each with its share of the controllers, and what tests do with topics and records.
//!
//! The properties that all brokers have in common are in `tests/servers/broker.properties`.

mod records;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

pub use records::{Isolation, Record, Stored};

use crate::certificates::{Authority, Flaw};
use crate::free_port;
use crate::process::{Process, installed, run, settings};

/// The users; the password of each is `NAME-secret`.
const USERS: [&str; 3] = ["alice", "bob", "admin"];

/// How long the brokers may take to do what an administrator asks.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A way into a broker, each on a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Neither encryption nor a password.
    Plaintext,
    /// TLS.
    Ssl,
    /// TLS, and the client shows a certificate.
    Mtls,
    /// A password over a connection that is not encrypted.
    SaslPlaintext,
    /// A password over TLS.
    SaslSsl,
}

impl Listener {
    const ALL: [Self; 5] = [
        Self::Plaintext,
        Self::Ssl,
        Self::Mtls,
        Self::SaslPlaintext,
        Self::SaslSsl,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::Mtls => "MTLS",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// What clients call `security.protocol`.
    const fn protocol(self) -> &'static str {
        match self {
            Self::Mtls => "SSL",
            other => other.name(),
        }
    }
}

/// How a password is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// As it is.
    Plain,
    /// By a challenge, with SHA-256.
    ScramSha256,
    /// By a challenge, with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// The name as clients configure it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How a cluster differs from the usual one of one broker.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// One or three. Three keep a copy each, and take what two have written.
    pub brokers: usize,
    /// More properties of all brokers.
    pub properties: Vec<(String, String)>,
    /// Listeners that show a certificate with something wrong.
    pub flaws: Vec<(Listener, Flaw)>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            properties: Vec::new(),
            flaws: Vec::new(),
        }
    }
}

/// A cluster. Its brokers are numbered from 1; each may be stopped, killed and started again, and all go with the value.
#[derive(Debug)]
pub struct Kafka {
    installed: PathBuf,
    authority: Authority,
    brokers: Vec<Broker>,
}

#[derive(Debug)]
struct Broker {
    dir: PathBuf,
    ports: Vec<(Listener, u16)>,
    controller_port: u16,
    process: Option<Process>,
}

impl Broker {
    fn port(&self, listener: Listener) -> u16 {
        self.ports
            .iter()
            .find(|(found, _)| *found == listener)
            .map(|(_, port)| *port)
            .expect("every broker has a port for each listener: made from Listener::ALL")
    }

    fn properties_path(&self) -> PathBuf {
        self.dir.join("server.properties")
    }
}

impl Kafka {
    /// Starts one broker that keeps its data under `dir`.
    ///
    /// # Errors
    /// Kafka is not installed, or does not serve in time.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, KafkaOptions::default()).await
    }

    /// Starts a cluster that differs from the usual one.
    ///
    /// # Errors
    /// Kafka is not installed, or does not serve in time.
    pub async fn start_with(dir: &Path, options: KafkaOptions) -> Result<Self> {
        let dir = dir.join("kafka");
        let authority = Authority::new(&dir.join("tls"))?;
        authority.issue("server")?;
        authority.issue("client")?;
        for (listener, flaw) in &options.flaws {
            authority.issue_flawed(&flawed(*listener), *flaw)?;
        }
        let brokers = (1..=options.brokers).map(|id| -> Result<Broker> {
            let ports = Listener::ALL
                .into_iter()
                .map(|listener| -> Result<_> { Ok((listener, free_port()?)) });
            Ok(Broker {
                dir: dir.join(id.to_string()),
                ports: ports.collect::<Result<_>>()?,
                controller_port: free_port()?,
                process: None,
            })
        });
        let mut kafka = Self {
            installed: installed("kafka")?,
            authority,
            brokers: brokers.collect::<Result<_>>()?,
        };
        kafka.write_properties(&options)?;
        kafka.format()?;
        kafka.restart_all().await?;
        Ok(kafka)
    }

    fn write_properties(&self, options: &KafkaOptions) -> Result<()> {
        let common = std::fs::read_to_string(settings("broker.properties"))?;
        let voters: Vec<String> = self
            .brokers
            .iter()
            .enumerate()
            .map(|(idx, broker)| format!("{}@127.0.0.1:{}", idx + 1, broker.controller_port))
            .collect();
        let copies = if self.brokers.len() < 3 { 1 } else { 3 };
        let copies_in_sync = if copies == 1 { 1 } else { 2 };
        for (idx, broker) in self.brokers.iter().enumerate() {
            let mut text = common.clone();
            let mut set = |key: &str, value: &str| writeln!(text, "{key}={value}");
            let listeners: Vec<String> = broker
                .ports
                .iter()
                .map(|(listener, port)| format!("{}://127.0.0.1:{port}", listener.name()))
                .collect();
            let listeners = listeners.join(",");
            let controller = format!("CONTROLLER://127.0.0.1:{}", broker.controller_port);
            set("node.id", &(idx + 1).to_string())?;
            set("controller.quorum.voters", &voters.join(","))?;
            set("listeners", &format!("{listeners},{controller}"))?;
            set("advertised.listeners", &listeners)?;
            set("log.dirs", &broker.dir.join("data").display().to_string())?;
            let file = |name: &str| self.authority.path(name).display().to_string();
            set("ssl.keystore.location", &file("server-bundle.pem"))?;
            set("ssl.truststore.location", &file("ca.pem"))?;
            for (listener, _) in &options.flaws {
                let name = listener.name().to_lowercase();
                let bundle = format!("{}-bundle.pem", flawed(*listener));
                set(
                    &format!("listener.name.{name}.ssl.keystore.location"),
                    &file(&bundle),
                )?;
            }
            for key in [
                "offsets.topic.replication.factor",
                "transaction.state.log.replication.factor",
                "share.coordinator.state.topic.replication.factor",
                "default.replication.factor",
            ] {
                set(key, &copies.to_string())?;
            }
            for key in [
                "transaction.state.log.min.isr",
                "share.coordinator.state.topic.min.isr",
                "min.insync.replicas",
            ] {
                set(key, &copies_in_sync.to_string())?;
            }
            for (key, value) in &options.properties {
                set(key, value)?;
            }
            std::fs::create_dir_all(&broker.dir)?;
            std::fs::write(broker.properties_path(), text)?;
        }
        Ok(())
    }

    /// Makes the data directories. One process does it for the first broker; the others get a copy of what it wrote, which spares theirs.
    fn format(&self) -> Result<()> {
        let cluster_id = new_cluster_id();
        let (first, others) = self.brokers.split_first().context("no brokers")?;
        let mut command = self.java("ERROR");
        command
            .args(["kafka.tools.StorageTool", "format", "-t", &cluster_id, "-c"])
            .arg(first.properties_path());
        for mechanism in [Mechanism::ScramSha256, Mechanism::ScramSha512] {
            for user in USERS {
                let credential = format!("name={user},password={user}-secret,iterations=4096");
                command.args([
                    "--add-scram",
                    &format!("{}=[{credential}]", mechanism.name()),
                ]);
            }
        }
        run(&mut command)?;
        let metadata = Path::new("data").join("__cluster_metadata-0");
        for (idx, broker) in others.iter().enumerate() {
            let id = idx + 2;
            std::fs::create_dir_all(broker.dir.join(&metadata))?;
            for file in std::fs::read_dir(first.dir.join(&metadata))? {
                let file = file?;
                std::fs::copy(
                    file.path(),
                    broker.dir.join(&metadata).join(file.file_name()),
                )?;
            }
            // Each directory has an id of its own: 16 bytes in base64.
            let properties = format!(
                "node.id={id}\nversion=1\ncluster.id={cluster_id}\ndirectory.id=AAAAAAAAAAAAAAAAAAAA{id}A\n"
            );
            std::fs::write(broker.dir.join("data/meta.properties"), properties)?;
        }
        Ok(())
    }

    fn java(&self, log_level: &str) -> Command {
        let mut command = Command::new("java");
        command.args(["-Xmx256m", "-Xss512k"]);
        command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        let classes = self.installed.join("classes.jsa");
        if classes.exists() {
            command.arg(format!("-XX:SharedArchiveFile={}", classes.display()));
            // An archive that does not fit is no reason to speak.
            command.args(["-Xlog:disable", "-Xlog:all=error:stderr"]);
        }
        let log_settings = settings("log4j2.properties");
        command.arg(format!("-Dflowstone.log={log_level}"));
        command.arg(format!(
            "-Dlog4j2.configurationFile={}",
            log_settings.display()
        ));
        command.arg("-cp").arg(self.installed.join("lib").join("*"));
        command
    }

    fn broker(&self, id: usize) -> Result<&Broker> {
        id.checked_sub(1)
            .and_then(|idx| self.brokers.get(idx))
            .with_context(|| format!("there is no broker {id}"))
    }

    fn broker_mut(&mut self, id: usize) -> Result<&mut Broker> {
        id.checked_sub(1)
            .and_then(|idx| self.brokers.get_mut(idx))
            .with_context(|| format!("there is no broker {id}"))
    }

    fn spawn(&mut self, id: usize) -> Result<()> {
        let mut command = self.java("INFO");
        let broker = self.broker_mut(id)?;
        command.arg("kafka.Kafka").arg(broker.properties_path());
        let name = format!("Kafka's broker {id}");
        broker.process = Some(Process::spawn(
            &name,
            &broker.dir.join("log"),
            &mut command,
        )?);
        Ok(())
    }

    async fn wait_ready(&mut self, id: usize) -> Result<()> {
        let process = self.broker_mut(id)?.process.as_mut();
        process
            .with_context(|| format!("broker {id} is not running"))?
            .wait_log("Kafka Server started")
            .await
    }

    /// Starts a broker again, killing it before if it runs. One of three serves only once another one does.
    ///
    /// # Errors
    /// It does not serve in time.
    pub async fn restart(&mut self, id: usize) -> Result<()> {
        drop(self.broker_mut(id)?.process.take());
        self.spawn(id)?;
        self.wait_ready(id).await
    }

    /// Starts all brokers, killing those before that run.
    ///
    /// # Errors
    /// They do not serve in time.
    pub async fn restart_all(&mut self) -> Result<()> {
        self.kill_all();
        let ids = 1..=self.brokers.len();
        ids.clone().try_for_each(|id| self.spawn(id))?;
        for id in ids {
            self.wait_ready(id).await?;
        }
        Ok(())
    }

    /// Ends a broker as for maintenance: it hands over what it leads.
    ///
    /// # Errors
    /// It is not running, or does not end in time.
    pub async fn stop(&mut self, id: usize) -> Result<()> {
        let process = self.broker_mut(id)?.process.take();
        process
            .with_context(|| format!("broker {id} is not running"))?
            .stop()
            .await
    }

    /// SIGKILL, now.
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&mut self, id: usize) -> Result<()> {
        match self.broker_mut(id)?.process.take() {
            Some(_) => Ok(()),
            None => bail!("broker {id} is not running"),
        }
    }

    /// SIGKILL to all brokers that run.
    pub fn kill_all(&mut self) {
        for broker in &mut self.brokers {
            drop(broker.process.take());
        }
    }

    /// The process of a broker.
    ///
    /// # Errors
    /// It is not running.
    pub fn pid(&self, id: usize) -> Result<u32> {
        let process = self.broker(id)?.process.as_ref();
        Ok(process
            .with_context(|| format!("broker {id} is not running"))?
            .id())
    }

    /// The port of a listener of a broker.
    ///
    /// # Errors
    /// There is no such broker.
    pub fn port(&self, id: usize, listener: Listener) -> Result<u16> {
        Ok(self.broker(id)?.port(listener))
    }

    /// The addresses of all brokers, as clients are told them.
    #[must_use]
    pub fn bootstrap(&self, listener: Listener) -> String {
        let addresses: Vec<String> = self
            .brokers
            .iter()
            .map(|broker| format!("127.0.0.1:{}", broker.port(listener)))
            .collect();
        addresses.join(",")
    }

    /// The authority of the brokers' certificates (`ca.pem`) and of the client's (`client.pem`, `client.key`).
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What a client of the tests starts from; it may do everything.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap(Listener::Plaintext));
        config
    }

    /// What a client starts from that uses another listener, as `alice` where a password is asked for.
    #[must_use]
    pub fn client_config_of(&self, listener: Listener, mechanism: Mechanism) -> ClientConfig {
        let file = |name: &str| self.authority.path(name).display().to_string();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap(listener));
        config.set("security.protocol", listener.protocol());
        if matches!(listener, Listener::Ssl | Listener::Mtls | Listener::SaslSsl) {
            config.set("ssl.ca.location", file("ca.pem"));
        }
        if listener == Listener::Mtls {
            config.set("ssl.certificate.location", file("client.pem"));
            config.set("ssl.key.location", file("client.key"));
        }
        if matches!(listener, Listener::SaslPlaintext | Listener::SaslSsl) {
            config.set("sasl.mechanism", mechanism.name());
            config.set("sasl.username", "alice");
            config.set("sasl.password", "alice-secret");
        }
        config
    }

    /// Makes a topic with properties (`cleanup.policy`, …), with as many copies as there are brokers.
    ///
    /// # Errors
    /// The brokers refuse.
    pub async fn create_topic(
        &self,
        topic: &str,
        partitions: i32,
        properties: &[(&str, &str)],
    ) -> Result<()> {
        // The cluster's default.
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        for (key, value) in properties {
            new = new.set(key, value);
        }
        done(
            self.admin()?
                .create_topics(&[new], &admin_options())
                .await?,
        )
    }

    /// Removes a topic and everything in it.
    ///
    /// # Errors
    /// The brokers refuse.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let admin = self.admin()?;
        done(admin.delete_topics(&[topic], &admin_options()).await?)
    }

    /// Gives a topic more partitions.
    ///
    /// # Errors
    /// The brokers refuse.
    pub async fn grow_topic(&self, topic: &str, partitions: usize) -> Result<()> {
        let new = NewPartitions::new(topic, partitions);
        let admin = self.admin()?;
        done(admin.create_partitions(&[new], &admin_options()).await?)
    }

    /// Changes properties of a topic, and leaves the others.
    ///
    /// # Errors
    /// The brokers refuse.
    pub async fn alter_topic(&self, topic: &str, properties: &[(&str, &str)]) -> Result<()> {
        let properties: Vec<String> = properties
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let properties = properties.join(",");
        self.tool(
            "org.apache.kafka.tools.ConfigCommand",
            &["--alter", "--topic", topic, "--add-config", &properties],
        )
        .await
        .map(drop)
    }

    /// Removes the records of a partition below an offset, as retention does.
    ///
    /// # Errors
    /// The brokers refuse.
    pub async fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let offsets = serde_json::json!({
            "version": 1,
            "partitions": [{"topic": topic, "partition": partition, "offset": before}],
        });
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), offsets.to_string())?;
        let path = file.path().display().to_string();
        let class = "org.apache.kafka.tools.DeleteRecordsCommand";
        let printed = self.tool(class, &["--offset-json-file", &path]).await?;
        // The tool takes a refusal for a success.
        if !printed.contains("low_watermark") {
            bail!("{printed}");
        }
        Ok(())
    }

    /// Runs one of Kafka's own tools (`org.apache.kafka.tools.AclCommand`, …) on this cluster: what it printed.
    ///
    /// # Errors
    /// It fails.
    pub async fn tool(&self, class: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.java("WARN");
        command
            .arg(class)
            .args(["--bootstrap-server", &self.bootstrap(Listener::Plaintext)])
            .args(arguments);
        tokio::task::spawn_blocking(move || run(&mut command)).await?
    }

    /// Writes records, in order for each partition, and waits until all brokers have them.
    ///
    /// # Errors
    /// A record is refused, or not taken in time.
    pub async fn produce(&self, topic: &str, records: &[Record]) -> Result<()> {
        records::produce(&self.client_config(), topic, records).await
    }

    /// Everything in a topic up to its end as it is now, in order for each partition.
    ///
    /// # Errors
    /// There is no such topic, or its end is not reached in time.
    pub async fn read(&self, topic: &str, isolation: Isolation) -> Result<Vec<Stored>> {
        records::read(self.client_config(), topic, isolation).await
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.client_config().create()?)
    }
}

/// The certificate of a listener that has something wrong.
fn flawed(listener: Listener) -> String {
    format!("flawed-{}", listener.name())
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ADMIN_TIMEOUT))
        .operation_timeout(Some(ADMIN_TIMEOUT))
}

/// All that was asked for was done.
fn done(results: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> Result<()> {
    for result in results {
        result.map_err(|(topic, code)| anyhow!("topic \"{topic}\": {code}"))?;
    }
    Ok(())
}

/// The id of a new cluster: 16 bytes in base64, of which the first is no minus, since it is an argument of a command.
fn new_cluster_id() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] &= 0x7f;
    URL_SAFE_NO_PAD.encode(bytes)
}
