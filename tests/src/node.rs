//! A Flowstone node as a process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio_postgres::{Client, NoTls};

use crate::disk::SmallDisk;
use crate::{free_port, wait};

/// How long a node may take until it serves, recovery included.
const START_DEADLINE: Duration = Duration::from_secs(180);

/// A running node, or one that was killed and can be started again.
#[derive(Debug)]
pub struct Node {
    data_dir: PathBuf,
    pg_port: u16,
    http_port: u16,
    flight_port: u16,
    shards: usize,
    options: NodeOptions,
    /// What runs the binary, if it is not run as it is.
    wrapper: Vec<OsString>,
    child: Option<Child>,
}

/// How a node differs from the usual one, on loopback and without passwords.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The address that it listens on.
    pub host: String,
    /// More arguments.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// What runs the binary, if it is not run as it is: a program and its arguments.
    pub wrapper: Vec<String>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
        }
    }
}

impl Node {
    /// Starts a node on `data_dir` and waits until it serves.
    ///
    /// # Errors
    /// It exits, or does not serve in time.
    pub async fn start(data_dir: &Path, shards: usize) -> Result<Self> {
        Self::start_with(data_dir, shards, NodeOptions::default()).await
    }

    /// Starts a node that differs from the usual one.
    ///
    /// # Errors
    /// It exits, or does not serve in time.
    pub async fn start_with(data_dir: &Path, shards: usize, options: NodeOptions) -> Result<Self> {
        let mut node = Self::prepare(data_dir, shards, options)?;
        if !node.options.wrapper.is_empty() {
            let binary = Self::binary()?.into_os_string();
            let wrapper = node.options.wrapper.iter().map(OsString::from);
            node.wrapper = wrapper.chain([binary]).collect();
        }
        node.restart().await?;
        Ok(node)
    }

    /// Starts a node that keeps its data on a small disk, which is mounted on `data_dir`; its log goes elsewhere.
    ///
    /// # Errors
    /// It exits, or does not serve in time.
    pub async fn start_on(disk: &SmallDisk, data_dir: &Path, shards: usize) -> Result<Self> {
        let mut node = Self::prepare(data_dir, shards, NodeOptions::default())?;
        let binary = Self::binary()?.canonicalize()?;
        let command = disk.command(&binary);
        node.wrapper = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(OsString::from)
            .collect();
        node.restart().await?;
        Ok(node)
    }

    fn prepare(data_dir: &Path, shards: usize, options: NodeOptions) -> Result<Self> {
        Ok(Self {
            data_dir: data_dir.to_owned(),
            pg_port: free_port()?,
            http_port: free_port()?,
            flight_port: free_port()?,
            shards,
            options,
            wrapper: Vec::new(),
            child: None,
        })
    }

    /// The binary under test: `FLOWSTONE_BIN`, or the one beside the tests or benchmarks.
    ///
    /// # Errors
    /// They run from nowhere.
    pub fn binary() -> Result<PathBuf> {
        if let Some(path) = std::env::var_os("FLOWSTONE_BIN") {
            return Ok(path.into());
        }
        let this = std::env::current_exe()?;
        let dir = this.parent().context("this program has no directory")?;
        // Tests are one level below the programs.
        let profile_dir = if dir.ends_with("deps") {
            dir.parent().context("no target directory")?
        } else {
            dir
        };
        Ok(profile_dir.join("flowstone"))
    }

    /// Starts the process again and waits until it serves.
    ///
    /// # Errors
    /// It exits, or does not serve in time.
    pub async fn restart(&mut self) -> Result<()> {
        let log_before = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        self.spawn()?;
        let log_path = self.log_path();
        let exited = wait::until("the node to serve", START_DEADLINE, async || {
            if let Some(status) = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok())
                .flatten()
            {
                return Ok(Some(status));
            }
            if self.options.arguments.is_empty() {
                let client = self.connect().await.map_err(|error| format!("{error:#}"))?;
                let answer = client.simple_query("SELECT 1").await;
                return answer.map(|_| None).map_err(|error| format!("{error:?}"));
            }
            // It may not let everybody in: what it says of itself is all there is.
            let log = std::fs::read_to_string(&log_path).map_err(|error| error.to_string())?;
            match log.get(log_before.len()..) {
                Some(new) if new.contains("is ready: psql") => Ok(None),
                _ => Err("it is not ready".to_owned()),
            }
        })
        .await?;
        match exited {
            None => Ok(()),
            Some(status) => bail!(
                "the node exited with {status}; see {}",
                self.log_path().display()
            ),
        }
    }

    fn spawn(&mut self) -> Result<()> {
        let binary = Self::binary()?;
        if !binary.exists() {
            bail!(
                "{} does not exist: build the node first (make test does)",
                binary.display()
            );
        }
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let host = &self.options.host;
        let mut command = match self.wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
            None => Command::new(binary),
        };
        let child = command
            .arg("serve")
            .arg("--data-dir")
            .arg(self.data_dir.join("data"))
            .args(["--pg-listen", &format!("{host}:{}", self.pg_port)])
            .args(["--http-listen", &format!("{host}:{}", self.http_port)])
            .args(["--flight-listen", &format!("{host}:{}", self.flight_port)])
            .args(["--shards", &self.shards.to_string()])
            .args(&self.options.arguments)
            .env(
                "FLOWSTONE_LOG",
                std::env::var("FLOWSTONE_TEST_LOG")
                    .unwrap_or_else(|_| "info,openraft=warn,buoyant_kernel=warn".to_owned()),
            )
            .envs(self.options.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Where the node's log goes; it is appended to over restarts.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.data_dir.join("node.log")
    }

    /// The port of PostgreSQL clients.
    #[must_use]
    pub const fn pg_port(&self) -> u16 {
        self.pg_port
    }

    /// The port of HTTP.
    #[must_use]
    pub const fn http_port(&self) -> u16 {
        self.http_port
    }

    /// The port of Arrow Flight.
    #[must_use]
    pub const fn flight_port(&self) -> u16 {
        self.flight_port
    }

    /// The process.
    ///
    /// # Errors
    /// It is not running.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the node is not running")?.id())
    }

    /// The directory of an object's Delta table.
    #[must_use]
    pub fn delta_path(&self, id: &str) -> PathBuf {
        self.data_dir.join("data").join("delta").join(id)
    }

    /// A new connection.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn connect(&self) -> Result<Client> {
        connect(&format!(
            "host=127.0.0.1 port={} user=materialize dbname=materialize connect_timeout=10",
            self.pg_port
        ))
        .await
    }

    /// SIGKILL, now.
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the node is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for a clean exit.
    ///
    /// # Errors
    /// It does not exit in time, or not with success.
    pub async fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the node is not running")?;
        let pid = child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status()?;
        if !sent.success() {
            bail!("kill -TERM {pid} failed");
        }
        let status = wait::until(
            "the node to exit",
            Duration::from_secs(60),
            async || match child.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err("still running".to_owned()),
                Err(error) => Err(error.to_string()),
            },
        )
        .await?;
        if !status.success() {
            bail!(
                "the node exited with {status}; see {}",
                self.log_path().display()
            );
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- last lines of the node's log ---");
            for line in tail.into_iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

/// Connects and runs the connection in the background; it ends with the client.
pub(crate) async fn connect(config: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
