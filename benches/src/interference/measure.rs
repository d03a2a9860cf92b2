//! One measurement: the probes beside whatever the case does, on a node that has come to rest before, and a disk that has.
//!
//! Owns the table that the probes write to, the view and the index that they read, and the check that every acknowledged row is there and in the view.
//! Must not know the cases. Called by `cases` and `disk`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use flowstone_tests::Node;
use tokio_postgres::Client;

use super::probe::{BUCKETS, Latencies, Probe, Probes};
use crate::servers::processor_seconds;

/// Rows of the table before the first measurement.
const ROWS: i64 = 1000;
/// How long a case may take, and what is asked after it. Generous: what is measured is how long others wait.
const DEADLINE: Duration = Duration::from_secs(1800);

/// A node is at rest that computes no more than so long in such a time.
const REST: (f64, Duration) = (0.1, Duration::from_secs(1));
/// A node that does not come to rest within this is measured all the same, and the details say so.
const REST_DEADLINE: Duration = Duration::from_secs(60);

/// What was seen in one run of a case.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// How long the case went on.
    pub(super) seconds: f64,
    /// Whether the node was at rest before it.
    pub(super) rested: bool,
    insert: Latencies,
    lookup: Latencies,
}

impl Measured {
    pub(super) const fn of(&self, probe: Probe) -> &Latencies {
        match probe {
            Probe::Insert => &self.insert,
            Probe::Lookup => &self.lookup,
        }
    }
}

/// Makes what the probes need, and compares the answers with what they must be.
pub(super) async fn prepare(client: &Client) -> Result<()> {
    client
        .batch_execute(
            "CREATE TABLE probed (number bigint NOT NULL, bucket bigint NOT NULL);
             CREATE MATERIALIZED VIEW probed_by_bucket AS SELECT bucket, count(*) AS entries FROM probed GROUP BY bucket;
             CREATE INDEX probed_bucket ON probed_by_bucket (bucket)",
        )
        .await?;
    client
        .batch_execute(&format!(
            "INSERT INTO probed SELECT n::bigint, n::bigint % {BUCKETS} FROM generate_series(1, {ROWS}) AS s (n)"
        ))
        .await?;
    for bucket in 0..BUCKETS {
        let sql = format!("SELECT entries FROM probed_by_bucket WHERE bucket = {bucket}");
        let entries = number(client, &sql).await?;
        if entries != ROWS / BUCKETS {
            bail!(
                "bucket {bucket} has {entries} entries instead of {}",
                ROWS / BUCKETS
            );
        }
    }
    Ok(())
}

/// Measures while `background` goes on. What it fails with is given only when the probes have ended.
pub(super) async fn measure(
    node: &Node,
    client: &Client,
    background: impl Future<Output = Result<()>>,
) -> Result<Measured> {
    let rested = rest(node).await?;
    let before = rows(client).await?;
    let probes = Probes::start(node.pg_port(), before).await?;
    let begin = Instant::now();
    let outcome = tokio::time::timeout(DEADLINE, background).await;
    let seconds = begin.elapsed().as_secs_f64();
    let (insert, lookup) = probes.stop().await?;
    outcome.context("it does not end")??;
    let written = tokio::time::timeout(DEADLINE, rows(client))
        .await
        .context("the table cannot be read")??
        - before;
    let due = i64::try_from(insert.waits_ms.len())?;
    let acknowledged = due - i64::from(insert.unanswered) - i64::from(insert.refused);
    // What was given up may have been written, or not.
    if !(acknowledged..=due).contains(&written) {
        bail!("{written} rows were written, and {acknowledged} of {due} acknowledged");
    }
    Ok(Measured {
        seconds,
        rested,
        insert,
        lookup,
    })
}

/// The rows of the table, all of which are in the view.
async fn rows(client: &Client) -> Result<i64> {
    let rows = number(client, "SELECT count(*) FROM probed").await?;
    let seen = number(client, "SELECT sum(entries)::bigint FROM probed_by_bucket").await?;
    if rows != seen {
        bail!("the view has {seen} of {rows} rows");
    }
    Ok(rows)
}

/// The one number that a query gives.
pub(super) async fn number(client: &Client, sql: &str) -> Result<i64> {
    Ok(client.query_one(sql, &[]).await?.try_get(0)?)
}

/// Waits until neither the node nor the disk has anything left to do of what was before. `false` if the node does not come to rest.
async fn rest(node: &Node) -> Result<bool> {
    let rested = node_rests(node).await?;
    flowstone_tests::disk::synced().await?;
    Ok(rested)
}

async fn node_rests(node: &Node) -> Result<bool> {
    let (seconds, time) = REST;
    let begin = Instant::now();
    while begin.elapsed() < REST_DEADLINE {
        let before = processor_seconds(node.pid()?)?;
        tokio::time::sleep(time).await;
        if processor_seconds(node.pid()?)? - before <= seconds {
            return Ok(true);
        }
    }
    Ok(false)
}
