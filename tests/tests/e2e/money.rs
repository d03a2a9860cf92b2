//! The money test: whatever is moved, the four sums of TPC-B are equal at every epoch and in every SELECT.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flowstone_tests::{Node, Postgres, wait};
use futures::{StreamExt, pin_mut};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

/// pgbench's scale: 100 000 accounts each.
pub(crate) fn scale() -> u32 {
    std::env::var("FLOWSTONE_MONEY_SCALE")
        .ok()
        .and_then(|scale| scale.parse().ok())
        .unwrap_or(10)
}

const SECONDS: u32 = 20;

/// The view over which everything is checked.
pub(crate) const TOTALS: &str = "
    CREATE MATERIALIZED VIEW totals AS
    SELECT a.total AS accounts, b.total AS branches, t.total AS tellers, h.total AS history
    FROM (SELECT coalesce(sum(abalance), 0)::bigint AS total FROM pgbench_accounts) AS a,
         (SELECT coalesce(sum(bbalance), 0)::bigint AS total FROM pgbench_branches) AS b,
         (SELECT coalesce(sum(tbalance), 0)::bigint AS total FROM pgbench_tellers) AS t,
         (SELECT coalesce(sum(delta), 0)::bigint AS total FROM pgbench_history) AS h";

/// Fills PostgreSQL with pgbench's tables and publishes them.
pub(crate) async fn prepare_upstream(postgres: &Postgres, scale: u32) -> Result<()> {
    let output = postgres
        .client_command("pgbench")
        .args(["-i", "-q", "-s", &scale.to_string(), "postgres"])
        .output()?;
    if !output.status.success() {
        bail!(
            "pgbench -i failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let upstream = postgres.connect().await?;
    upstream
        .batch_execute(
            "ALTER TABLE pgbench_history REPLICA IDENTITY FULL;
             CREATE PUBLICATION mz_source FOR TABLE pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history",
        )
        .await?;
    Ok(())
}

/// Creates the connection and the source, and waits until the snapshot is visible.
pub(crate) async fn create_source(client: &Client, postgres: &Postgres) -> Result<()> {
    client
        .batch_execute(&format!(
            "CREATE SECRET pgpass AS 'unused';
             CREATE CONNECTION pg TO POSTGRES (HOST '127.0.0.1', PORT {}, USER 'postgres', PASSWORD SECRET pgpass, DATABASE 'postgres')",
            postgres.port()
        ))
        .await?;
    client.batch_execute("CREATE SOURCE bank FROM POSTGRES CONNECTION pg (PUBLICATION 'mz_source') FOR ALL TABLES").await?;
    // A query on a source whose snapshot is not there yet waits for it.
    client
        .query("SELECT count(*) FROM pgbench_accounts", &[])
        .await?;
    Ok(())
}

/// When pgbench ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Seconds(u32),
    /// So many transactions of each client.
    Transactions(u32),
}

/// Starts TPC-B transactions from four clients, as fast as PostgreSQL can.
pub(crate) fn start_pgbench(postgres: &Postgres, until: Until) -> Result<Child> {
    let (option, number) = match until {
        Until::Seconds(seconds) => ("-T", seconds),
        Until::Transactions(transactions) => ("-t", transactions),
    };
    postgres
        .client_command("pgbench")
        .args([
            "-n",
            "-c",
            "4",
            "-j",
            "2",
            option,
            &number.to_string(),
            "postgres",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start pgbench")
}

/// Checks one row of `totals`.
pub(crate) fn check(row: &tokio_postgres::Row, offset: usize, place: &str) -> Result<i64> {
    let sums: Vec<i64> = (offset..offset + 4).map(|column| row.get(column)).collect();
    let first = sums.first().context("no sums")?;
    if sums.iter().any(|sum| sum != first) {
        bail!("{place}: the sums differ: {sums:?}");
    }
    Ok(*first)
}

/// Follows `totals` until `stop` is set: at every epoch exactly one row, its sums equal.
async fn follow(node_client: Client, stop: Arc<AtomicBool>, epochs: Arc<AtomicU64>) -> Result<i64> {
    let none: [&(dyn ToSql + Sync); 0] = [];
    let rows = node_client
        .query_raw("SUBSCRIBE (SELECT * FROM totals) WITH (PROGRESS)", none)
        .await?;
    pin_mut!(rows);
    let mut content: std::collections::HashMap<i64, i64> = std::collections::HashMap::new();
    let mut last = 0;
    while !stop.load(Ordering::SeqCst) {
        let row = tokio::time::timeout(Duration::from_secs(30), rows.next())
            .await
            .context("SUBSCRIBE is silent")?
            .context("SUBSCRIBE ended")??;
        if row.get::<_, bool>("mz_progressed") {
            content.retain(|_, weight| *weight != 0);
            if content.len() > 1 || content.values().any(|weight| *weight != 1) {
                bail!("SUBSCRIBE: at an epoch the view holds {content:?}");
            }
            last = content.keys().next().copied().unwrap_or(last);
            epochs.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let sum = check(&row, 3, "SUBSCRIBE")?;
        *content.entry(sum).or_default() += row.get::<_, i64>("mz_diff");
    }
    Ok(last)
}

/// Reads `totals` again and again until `stop` is set.
async fn read(client: Client, stop: Arc<AtomicBool>) -> Result<u64> {
    let mut reads = 0;
    while !stop.load(Ordering::SeqCst) {
        let row = client
            .query_one(
                "SELECT accounts, branches, tellers, history FROM totals",
                &[],
            )
            .await?;
        check(&row, 0, "SELECT")?;
        reads += 1;
    }
    Ok(reads)
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_neither_made_nor_lost() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    prepare_upstream(&postgres, scale()).await.unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    create_source(&client, &postgres).await.unwrap();
    client.batch_execute(TOTALS).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let epochs = Arc::new(AtomicU64::new(0));
    let follower = tokio::spawn(follow(
        node.connect().await.unwrap(),
        Arc::clone(&stop),
        Arc::clone(&epochs),
    ));
    let readers: Vec<_> = futures::future::join_all(
        (0..2).map(async |_| tokio::spawn(read(node.connect().await.unwrap(), Arc::clone(&stop)))),
    )
    .await;

    let mut pgbench = start_pgbench(&postgres, Until::Seconds(SECONDS)).unwrap();
    let status = tokio::task::spawn_blocking(move || pgbench.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "pgbench failed");

    let upstream = postgres.connect().await.unwrap();
    let truth: i64 = upstream
        .query_one(
            "SELECT coalesce(sum(delta), 0)::bigint FROM pgbench_history",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    wait::until(
        "the view to catch up with PostgreSQL",
        Duration::from_secs(60),
        async || {
            let row = client
                .query_one("SELECT history FROM totals", &[])
                .await
                .map_err(|error| error.to_string())?;
            let seen: i64 = row.get(0);
            if seen == truth {
                Ok(())
            } else {
                Err(format!("{seen} instead of {truth}"))
            }
        },
    )
    .await
    .unwrap();
    stop.store(true, Ordering::SeqCst);
    follower.await.unwrap().unwrap();
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap().unwrap();
    }
    assert!(reads > 10, "only {reads} reads");
    assert!(
        epochs.load(Ordering::SeqCst) > 10,
        "only {} epochs were seen",
        epochs.load(Ordering::SeqCst)
    );
}
