//! A PostgreSQL server and a node beside it: what the benchmarks over the wire share.

use std::num::ParseFloatError;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use flowstone_tests::{Node, Postgres};
use tempfile::TempDir;
use tokio_postgres::{Client, Row};

/// Shards of the node: what a machine of two cores is given.
pub(crate) const SHARDS: usize = 2;
/// What Linux counts processor time in.
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;

/// A node and its upstream. `fsync` of PostgreSQL is off, of the node on.
pub(crate) struct Servers {
    pub(crate) client: Client,
    pub(crate) upstream: Client,
    pub(crate) node: Node,
    pub(crate) postgres: Postgres,
    _dir: TempDir,
}

/// Runs a benchmark that waits for servers.
pub(crate) fn block_on<T>(benchmark: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(benchmark)
}

impl Servers {
    /// Starts both, with a connection `pg` from the node to the server.
    pub(crate) async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let postgres = Postgres::start(dir.path())?;
        let upstream = postgres.connect().await?;
        let node = Node::start(dir.path(), SHARDS).await?;
        let client = node.connect().await?;
        client
            .batch_execute(&format!(
                "CREATE SECRET pgpass AS 'unused';
                 CREATE CONNECTION pg TO POSTGRES (HOST '127.0.0.1', PORT {}, USER 'postgres', PASSWORD SECRET pgpass, DATABASE 'postgres')",
                postgres.port()
            ))
            .await?;
        Ok(Self {
            client,
            upstream,
            node,
            postgres,
            _dir: dir,
        })
    }

    /// A program of PostgreSQL's that connects to the node.
    pub(crate) fn node_command(&self, name: &str) -> Command {
        let mut command = self.postgres.client_command(name);
        // The last one of an option counts.
        command.args(["-p", &self.node.pg_port().to_string(), "-U", "materialize"]);
        command
    }

    /// Fails unless both give the same rows.
    pub(crate) async fn compare(&self, sql: &str) -> Result<()> {
        let here = lines(&self.client.query(sql, &[]).await?)?;
        let there = lines(&self.upstream.query(sql, &[]).await?)?;
        if here != there || here.is_empty() {
            bail!("{sql}: {here:?} here and {there:?} in PostgreSQL");
        }
        Ok(())
    }
}

/// Rows of int8 columns.
fn lines(rows: &[Row]) -> Result<Vec<Vec<Option<i64>>>> {
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let values = (0..row.len())
            .map(|column| row.try_get(column))
            .collect::<Result<Vec<Option<i64>>, _>>()?;
        lines.push(values);
    }
    Ok(lines)
}

/// The processor time that a process has taken so far, all its threads together.
pub(crate) fn processor_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the program's name in brackets, the 12th and the 13th field: in user mode and in the kernel.
    let (_, fields) = stat
        .rsplit_once(')')
        .context("no program in /proc/PID/stat")?;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<f64>)
        .sum::<Result<f64, ParseFloatError>>()?;
    Ok(ticks / CLOCK_TICKS_PER_SECOND)
}

/// What a program prints; fails if it does.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
