//! The snapshot of a PostgreSQL table, against `COPY … TO STDOUT` of the same table to nowhere.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::report::{Aim, Better, Figure, Scale, Section};
use crate::servers::Servers;

/// What both sides must agree on.
const SUMS: &str = "SELECT count(*), sum(customer)::bigint, sum(length(note))::bigint FROM events";

pub(crate) async fn run(scale: Scale) -> Result<Section> {
    let servers = Servers::start().await?;
    let wanted = scale.pick(1_i64 << 30, 1 << 20);
    let rows_per_step = scale.pick(250_000, 2_500);
    servers
        .upstream
        .batch_execute(
            "CREATE TABLE events (id bigint PRIMARY KEY, customer int NOT NULL, amount numeric(12, 2) NOT NULL, at timestamptz NOT NULL, note text NOT NULL)",
        )
        .await?;
    let (mut rows, mut bytes) = (0_i64, 0_i64);
    while bytes < wanted {
        servers
            .upstream
            .batch_execute(&format!(
                "INSERT INTO events SELECT n, (n::bigint * 7919 % 100000)::int, (n % 1000000) / 100.0, '2024-01-01'::timestamptz + n * interval '1 second', md5(n::text) || md5((-n)::text)
                 FROM generate_series({}, {}) AS n",
                rows + 1,
                rows + rows_per_step
            ))
            .await?;
        rows += rows_per_step;
        let size = "SELECT pg_table_size('events')";
        bytes = servers.upstream.query_one(size, &[]).await?.try_get(0)?;
    }
    servers
        .upstream
        .batch_execute("VACUUM ANALYZE events")
        .await?;
    servers
        .upstream
        .batch_execute("CREATE PUBLICATION bench FOR TABLE events")
        .await?;
    // Reads the table into the cache, where it is for both.
    copy(&servers)?;

    let (mut copies, mut snapshots) = (Vec::new(), Vec::new());
    for _ in 0..scale.pick(3, 2) {
        copies.push(copy(&servers)?);
        snapshots.push(snapshot(&servers, rows).await?);
    }
    let mib = i32::try_from(bytes >> 20).map(f64::from)?;
    let rates = |seconds: &[f64]| -> Vec<f64> { seconds.iter().map(|s| mib / s).collect() };
    let figure = Figure::new("snapshot", "MiB/s", Better::Higher, rates(&snapshots))
        .against("COPY TO STDOUT", rates(&copies))
        .aim(Aim::Ratio(0.5));
    Ok(Section {
        method: format!(
            "a table of {mib} MiB, {rows} rows; from CREATE SOURCE until a strict-serializable SELECT count(*) gives them all"
        ),
        figures: vec![figure],
        details: json!({"rows": rows, "bytes": bytes, "snapshot_seconds": snapshots, "copy_seconds": copies}),
    })
}

/// Seconds of a COPY of the whole table.
fn copy(servers: &Servers) -> Result<f64> {
    let begin = Instant::now();
    let status = servers
        .postgres
        .client_command("psql")
        .args(["-X", "-q", "-d", "postgres", "-c", "COPY events TO STDOUT"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot run psql")?;
    if !status.success() {
        bail!("psql failed with {status}");
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// Seconds until the whole table can be read here. It is dropped again.
async fn snapshot(servers: &Servers, rows: i64) -> Result<f64> {
    let begin = Instant::now();
    servers
        .client
        .batch_execute(
            "CREATE SOURCE bench FROM POSTGRES CONNECTION pg (PUBLICATION 'bench') FOR ALL TABLES",
        )
        .await?;
    // A query on a source whose snapshot is not there yet waits for it.
    let count: i64 = servers
        .client
        .query_one("SELECT count(*) FROM events", &[])
        .await?
        .try_get(0)?;
    let seconds = begin.elapsed().as_secs_f64();
    if count != rows {
        bail!("{count} rows instead of {rows}");
    }
    servers.compare(SUMS).await?;
    servers
        .client
        .batch_execute("DROP SOURCE bench CASCADE")
        .await?;
    Ok(seconds)
}
