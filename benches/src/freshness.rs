//! Freshness: how long after a COMMIT in PostgreSQL a strict-serializable SELECT of an aggregate view shows it.
//!
//! How the view is looked at, and what becomes of that, is `kafka`'s as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;

use crate::report::{Aim, Better, Figure, Scale, Section, milliseconds, percentile};
use crate::servers::Servers;

const WRITES_PER_SECOND: u32 = 100;
const REGIONS: i64 = 10;
/// How long after the last COMMIT it must have been shown.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a SELECT showed.
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) took: Duration,
    /// All writes up to this one.
    pub(crate) last: i64,
}

pub(crate) async fn run(scale: Scale) -> Result<Section> {
    let servers = Servers::start().await?;
    let before = scale.pick(100_000_i64, 1000);
    let seconds = scale.pick(60, 2);
    servers
        .upstream
        .batch_execute(&format!(
            "CREATE TABLE writes (number bigint PRIMARY KEY, region bigint NOT NULL);
             INSERT INTO writes SELECT n, n % {REGIONS} FROM generate_series(1, {before}) AS n;
             CREATE PUBLICATION bench FOR TABLE writes"
        ))
        .await?;
    servers
        .client
        .batch_execute(
            "CREATE SOURCE bench FROM POSTGRES CONNECTION pg (PUBLICATION 'bench') FOR ALL TABLES",
        )
        .await?;
    servers
        .client
        .batch_execute(
            "CREATE MATERIALIZED VIEW totals AS
             SELECT region, count(*) AS writes, sum(number)::bigint AS total FROM writes GROUP BY region",
        )
        .await?;
    let select = servers
        .client
        .prepare("SELECT region, writes, total FROM totals")
        .await?;
    let first = look(&servers.client, &select).await?;
    if first.last != before {
        bail!("{} writes instead of {before}", first.last);
    }

    let last = before + i64::from(seconds * WRITES_PER_SECOND);
    let committing = Arc::new(AtomicI64::new(before));
    let writer = tokio::spawn(write(
        servers.postgres.connect().await?,
        before,
        last,
        Arc::clone(&committing),
    ));
    let mut seen = Vec::new();
    let begin = Instant::now();
    loop {
        let now = look(&servers.client, &select).await?;
        if now.last > committing.load(Ordering::SeqCst) {
            bail!("a write is shown before its COMMIT");
        }
        let done = now.last == last;
        seen.push(now);
        if done {
            break;
        }
        if writer.is_finished() && begin.elapsed() > DEADLINE + Duration::from_secs(seconds.into())
        {
            writer.await??;
            bail!("the last write is not shown after {DEADLINE:?}");
        }
    }
    let commits = writer.await??;

    let delays = delays(before, &commits, &seen)?;
    let took: Vec<f64> = seen.iter().map(|look| milliseconds(look.took)).collect();
    let (first, end) = (commits.first(), commits.last());
    let span = first
        .zip(end)
        .map_or(0.0, |(first, end)| (*end - *first).as_secs_f64());
    let at = |percent| vec![percentile(&delays, percent)];
    Ok(Section {
        method: format!(
            "{WRITES_PER_SECOND} transactions/s of one row for {seconds} s into a table of {before} rows; from sending COMMIT until the answer of a SELECT that \
             shows it is here, SELECTs one after the other; every answer is checked to be a prefix of the writes"
        ),
        figures: vec![
            Figure::new("p50", "ms", Better::Lower, at(50)).aim(Aim::AtMost(50.0)),
            Figure::new("p99", "ms", Better::Lower, at(99)),
            Figure::new("worst", "ms", Better::Lower, at(100)),
            Figure::new(
                "a SELECT, p50",
                "ms",
                Better::Lower,
                vec![percentile(&took, 50)],
            ),
        ],
        details: json!({
            "writes": commits.len(),
            "seconds_of_writing": span,
            "selects": seen.len(),
            "select_p99_ms": percentile(&took, 99),
        }),
    })
}

/// Reads the view and checks that it is what the first so many writes give.
pub(crate) async fn look(client: &Client, select: &tokio_postgres::Statement) -> Result<Seen> {
    let begin = Instant::now();
    let rows = client.query(select, &[]).await?;
    let at = Instant::now();
    let (mut last, mut total) = (0, 0);
    for row in &rows {
        last += row.try_get::<_, i64>(1)?;
        total += row.try_get::<_, i64>(2)?;
    }
    if total != last * (last + 1) / 2 {
        bail!("{last} writes with the sum {total}: not a prefix of what was written");
    }
    Ok(Seen {
        at,
        took: at - begin,
        last,
    })
}

/// Milliseconds from each write after `before` until it was seen. `seen`: in the order of time, the last with all of the writes.
pub(crate) fn delays(before: i64, writes: &[Instant], seen: &[Seen]) -> Result<Vec<f64>> {
    let mut delays = Vec::with_capacity(writes.len());
    let mut looks = seen.iter().peekable();
    for (number, written) in (before + 1..).zip(writes) {
        while looks.next_if(|look| look.last < number).is_some() {}
        let shown = looks.peek().context("every write was shown")?;
        delays.push(milliseconds(shown.at.duration_since(*written)));
    }
    Ok(delays)
}

/// Commits one row after the other at an even rate; says when each COMMIT was sent.
async fn write(
    client: Client,
    before: i64,
    last: i64,
    committing: Arc<AtomicI64>,
) -> Result<Vec<Instant>> {
    let insert = client.prepare("INSERT INTO writes VALUES ($1, $2)").await?;
    let mut interval = tokio::time::interval(Duration::from_secs(1) / WRITES_PER_SECOND);
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut commits = Vec::new();
    for number in before + 1..=last {
        interval.tick().await;
        client.batch_execute("BEGIN").await?;
        client
            .execute(&insert, &[&number, &(number % REGIONS)])
            .await?;
        committing.store(number, Ordering::SeqCst);
        commits.push(Instant::now());
        client.batch_execute("COMMIT").await?;
    }
    Ok(commits)
}
