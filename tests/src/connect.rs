//! Kafka Connect with Debezium's connectors, which read MySQL and PostgreSQL into topics.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use crate::free_port;
use crate::kafka::{Kafka, Listener};
use crate::mysql::Mysql;
use crate::postgres::Postgres;
use crate::process::{Process, installed, settings};
use crate::registry::Registry;
use crate::rest::Endpoint;
use crate::wait;

/// How long a connector may take until it runs.
const RUNNING_DEADLINE: Duration = Duration::from_secs(90);

/// Settings of a connector, which a test may change before it starts it.
pub type Connector = Map<String, Value>;

/// A running worker. Where its connectors are it keeps in a file, so that they go on after a restart.
#[derive(Debug)]
pub struct Connect {
    dir: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Connect {
    /// Starts a worker that writes to `kafka`: JSON without schemas, unless a connector says something else.
    ///
    /// # Errors
    /// It is not installed, or does not serve in time.
    pub async fn start(dir: &Path, kafka: &Kafka) -> Result<Self> {
        let mut connect = Self {
            dir: dir.join("connect"),
            port: free_port()?,
            process: None,
        };
        std::fs::create_dir_all(&connect.dir)?;
        let plugins = installed("connect")?.join("plugins");
        let mut properties = format!(
            "bootstrap.servers={}\nlisteners=http://127.0.0.1:{}\nplugin.path={}\nplugin.discovery=service_load\n\
             offset.storage.file.filename={}\noffset.flush.interval.ms=1000\n",
            kafka.bootstrap(Listener::Plaintext),
            connect.port,
            plugins.display(),
            connect.dir.join("offsets").display(),
        );
        for side in ["key", "value"] {
            properties.push_str(&format!(
                "{side}.converter=org.apache.kafka.connect.json.JsonConverter\n{side}.converter.schemas.enable=false\n"
            ));
        }
        std::fs::write(connect.dir.join("worker.properties"), properties)?;
        connect.restart().await?;
        Ok(connect)
    }

    /// Starts the worker again, killing it before if it runs. Connectors have to be created again; they go on where they were.
    ///
    /// # Errors
    /// It does not serve in time.
    pub async fn restart(&mut self) -> Result<()> {
        drop(self.process.take());
        let mut command = Command::new("java");
        command.args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.arg(format!(
            "-Dlog4j2.configurationFile={}",
            settings("log4j2.properties").display()
        ));
        command
            .arg("-cp")
            .arg(installed("connect")?.join("lib").join("*"))
            .arg("org.apache.kafka.connect.cli.ConnectStandalone")
            .arg(self.dir.join("worker.properties"));
        let mut process = Process::spawn("Kafka Connect", &self.dir.join("log"), &mut command)?;
        let endpoint = self.endpoint();
        process
            .wait_ready(async || endpoint.answers("/connectors").await)
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL, now.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Creates a connector, or changes it, and waits until it runs. The snapshot is not done by then: wait for what it writes.
    ///
    /// # Errors
    /// The worker refuses it, it fails, or does not run in time.
    pub async fn create(&self, name: &str, connector: &Connector) -> Result<()> {
        let body = Value::Object(connector.clone());
        self.endpoint()
            .succeed("PUT", &format!("/connectors/{name}/config"), Some(&body))
            .await?;
        let what = format!("the connector {name} to run");
        let failed = wait::until(&what, RUNNING_DEADLINE, async || {
            let status = self
                .status(name)
                .await
                .map_err(|error| format!("{error:#}"))?;
            if states(&status).any(|state| state == "FAILED") {
                return Ok(Some(status));
            }
            // The connector's own, and one of a task at least.
            if states(&status).count() > 1 && states(&status).all(|state| state == "RUNNING") {
                return Ok(None);
            }
            Err(status.to_string())
        })
        .await?;
        match failed {
            None => Ok(()),
            Some(status) => bail!("the connector {name} failed: {status:#}"),
        }
    }

    /// What the worker says of a connector.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn status(&self, name: &str) -> Result<Value> {
        self.endpoint()
            .succeed("GET", &format!("/connectors/{name}/status"), None)
            .await?
            .json()
    }

    /// Ends a connector.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.endpoint()
            .succeed("DELETE", &format!("/connectors/{name}"), None)
            .await
            .map(drop)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: format!("http://127.0.0.1:{}", self.port),
            ca: None,
            user: None,
        }
    }
}

/// The states of a connector and of its tasks.
fn states(status: &Value) -> impl Iterator<Item = &str> {
    let own = status.pointer("/connector/state");
    let tasks = status.get("tasks").and_then(Value::as_array);
    let of_tasks = tasks
        .into_iter()
        .flatten()
        .filter_map(|task| task.get("state"));
    own.into_iter().chain(of_tasks).filter_map(Value::as_str)
}

/// Reads a database of MySQL into topics `PREFIX.DATABASE.TABLE`. The prefix must be a name: no hyphens.
#[must_use]
pub fn mysql_connector(kafka: &Kafka, mysql: &Mysql, prefix: &str, database: &str) -> Connector {
    let mut connector = connector(prefix);
    extend(
        &mut connector,
        json!({
            "connector.class": "io.debezium.connector.mysql.MySqlConnector",
            "database.hostname": "127.0.0.1",
            "database.port": mysql.port().to_string(),
            "database.user": "cdc",
            "database.password": "cdc-secret",
            // Another client of the server with the same number would be thrown out.
            "database.server.id": (u32::from(mysql.port()) + 100_000).to_string(),
            "database.include.list": database,
            "schema.history.internal.kafka.bootstrap.servers": kafka.bootstrap(Listener::Plaintext),
            "schema.history.internal.kafka.topic": format!("{prefix}-history"),
        }),
    );
    connector
}

/// Reads all tables of PostgreSQL's database `postgres` into topics `PREFIX.SCHEMA.TABLE`, through a replication slot of the prefix's name.
#[must_use]
pub fn postgres_connector(postgres: &Postgres, prefix: &str) -> Connector {
    let mut connector = connector(prefix);
    extend(
        &mut connector,
        json!({
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "plugin.name": "pgoutput",
            "database.hostname": "127.0.0.1",
            "database.port": postgres.port().to_string(),
            "database.user": "postgres",
            "database.password": "unused",
            "database.dbname": "postgres",
            "slot.name": prefix,
        }),
    );
    connector
}

fn connector(prefix: &str) -> Connector {
    let mut connector = Map::new();
    extend(
        &mut connector,
        json!({
            "topic.prefix": prefix,
            "topic.creation.enable": "true",
            // The brokers' default.
            "topic.creation.default.replication.factor": "-1",
            "topic.creation.default.partitions": "1",
        }),
    );
    connector
}

/// Makes a connector write Avro in the framing of Confluent's clients, with schemas in `registry`, which lets everybody in over plain HTTP.
pub fn write_avro(connector: &mut Connector, registry: &Registry) {
    for side in ["key", "value"] {
        let set = |name: &str, value: &str| (format!("{side}.converter{name}"), json!(value));
        connector.extend([
            set("", "io.apicurio.registry.utils.converter.AvroConverter"),
            set(
                ".apicurio.registry.url",
                &format!("{}/apis/registry/v2", registry.base_url()),
            ),
            set(".apicurio.registry.auto-register", "true"),
            set(".apicurio.registry.find-latest", "false"),
            set(".apicurio.registry.as-confluent", "true"),
            set(".apicurio.registry.use-id", "contentId"),
            set(".apicurio.registry.headers.enabled", "false"),
        ]);
    }
    connector.insert("schema.name.adjustment.mode".to_owned(), json!("avro"));
}

fn extend(connector: &mut Connector, settings: Value) {
    if let Value::Object(settings) = settings {
        connector.extend(settings);
    }
}
