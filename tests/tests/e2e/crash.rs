//! The crash test: SIGKILL at random moments loses nothing, repeats nothing, and contradicts nothing that was seen.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flowstone_tests::{Node, Postgres, wait};
use futures::{StreamExt, pin_mut};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::money;

/// How often the node is killed.
fn kills() -> u32 {
    std::env::var("FLOWSTONE_CRASH_KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok())
        .unwrap_or(20)
}

const TABLES: [(&str, &str); 4] = [
    ("pgbench_accounts", "aid, bid, abalance"),
    ("pgbench_branches", "bid, bbalance"),
    ("pgbench_tellers", "tid, bid, tbalance"),
    ("pgbench_history", "tid, bid, aid, delta, mtime::text"),
];

/// What a subscriber was told: for each complete epoch the one row of `totals`.
type Seen = BTreeMap<u64, i64>;

/// Follows `totals` until the connection breaks, recording the sum at every complete epoch.
async fn follow(client: Client, seen: &mut Seen) -> Result<()> {
    let none: [&(dyn ToSql + Sync); 0] = [];
    let rows = client
        .query_raw(
            "SUBSCRIBE (SELECT accounts FROM totals) WITH (PROGRESS)",
            none,
        )
        .await?;
    pin_mut!(rows);
    let mut content: BTreeMap<i64, i64> = BTreeMap::new();
    while let Some(row) = rows.next().await {
        let Ok(row) = row else { return Ok(()) };
        let epoch = epoch_of(&row)?;
        if row.get::<_, bool>("mz_progressed") {
            content.retain(|_, weight| *weight != 0);
            match (content.len(), content.first_key_value()) {
                (0, _) => {}
                (1, Some((sum, 1))) => {
                    // Progress to `epoch` says that everything before it is complete.
                    let at = epoch - 1;
                    if let Some(earlier) = seen.get(&at)
                        && earlier != sum
                    {
                        bail!("epoch {at} was {earlier} before a kill and is {sum} after it");
                    }
                    if seen.last_key_value().is_some_and(|(last, _)| *last > at) {
                        bail!("epochs went back: {at} after {:?}", seen.last_key_value());
                    }
                    seen.insert(at, *sum);
                }
                _ => bail!("at epoch {epoch} the view holds {content:?}"),
            }
        } else {
            *content.entry(row.get("accounts")).or_default() += row.get::<_, i64>("mz_diff");
        }
    }
    Ok(())
}

/// `mz_timestamp` is numeric; it is read as text through its digits.
fn epoch_of(row: &tokio_postgres::Row) -> Result<u64> {
    let Digits(epoch) = row.get::<_, Digits>("mz_timestamp");
    Ok(epoch)
}

/// A non-negative integer sent as PostgreSQL's binary numeric.
struct Digits(u64);

impl<'a> tokio_postgres::types::FromSql<'a> for Digits {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let word = |at: usize| -> Result<i16, Box<dyn std::error::Error + Sync + Send>> {
            Ok(i16::from_be_bytes(
                raw.get(at..at + 2).ok_or("short numeric")?.try_into()?,
            ))
        };
        if raw.len() == 8 && word(0)? > 4 {
            return Ok(Self(u64::from_be_bytes(raw.try_into()?)));
        }
        let (digits, weight) = (word(0)?, word(2)?);
        let mut value = 0_u64;
        for index in 0..=weight {
            let digit = if index < digits {
                word(8 + 2 * usize::try_from(index)?)?
            } else {
                0
            };
            value = value * 10_000 + u64::try_from(digit)?;
        }
        Ok(Self(value))
    }

    fn accepts(_: &tokio_postgres::types::Type) -> bool {
        true
    }
}

async fn rows(client: &Client, sql: &str) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for message in client.simple_query(sql).await? {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            rows.push(
                (0..row.len())
                    .map(|column| row.get(column).unwrap_or("NULL"))
                    .collect::<Vec<_>>()
                    .join("|"),
            );
        }
    }
    rows.sort();
    Ok(rows)
}

/// Compares our SELECT and the Delta files with PostgreSQL, table by table.
async fn compare(node: &Node, upstream: &Client) -> Result<()> {
    let client = node.connect().await?;
    for (table, columns) in TABLES {
        let sql = format!("SELECT {columns} FROM {table}");
        let truth = rows(upstream, &sql).await?;
        wait::until(
            &format!("{table} to equal its upstream"),
            Duration::from_secs(120),
            async || {
                let ours = rows(&client, &sql)
                    .await
                    .map_err(|error| error.to_string())?;
                if ours == truth {
                    return Ok(());
                }
                let missing = truth
                    .iter()
                    .filter(|row| ours.binary_search(row).is_err())
                    .count();
                let extra = ours
                    .iter()
                    .filter(|row| truth.binary_search(row).is_err())
                    .count();
                Err(format!(
                    "{} rows instead of {}; {missing} missing, {extra} too many",
                    ours.len(),
                    truth.len()
                ))
            },
        )
        .await?;
    }
    Ok(())
}

/// Reads the table's Delta files with Python's `deltalake` and compares them with PostgreSQL.
fn compare_delta(
    node: &Node,
    ids: &BTreeMap<String, String>,
    truths: &BTreeMap<String, String>,
) -> Result<()> {
    for (table, id) in ids {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/delta_sum.py");
        let column = match table.as_str() {
            "pgbench_accounts" => "abalance",
            "pgbench_branches" => "bbalance",
            "pgbench_tellers" => "tbalance",
            _ => "delta",
        };
        let output = Command::new(super::clients::python())
            .arg(script)
            .arg(node.delta_path(id))
            .arg(column)
            .output()?;
        if !output.status.success() {
            bail!(
                "deltalake cannot read {table}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let seen = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let truth = truths.get(table).context("no such table")?;
        if seen != *truth {
            bail!(
                "the Delta files of {table} hold {seen} (rows, sum of {column}) instead of {truth}"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_when_the_node_is_killed() {
    let seed = std::env::var("FLOWSTONE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    money::prepare_upstream(&postgres, 1).await.unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    money::create_source(&client, &postgres).await.unwrap();
    client.batch_execute(money::TOTALS).await.unwrap();
    drop(client);

    let mut pgbench = money::start_pgbench(&postgres, 600).unwrap();
    let mut seen = Seen::new();
    for kill in 0..kills() {
        let pause = Duration::from_millis(random.random_range(0..1500));
        let subscriber = node.connect().await.unwrap();
        // The kill comes while the subscriber listens; what it heard until then must never be contradicted.
        tokio::select! {
            outcome = follow(subscriber, &mut seen) => outcome.unwrap(),
            () = tokio::time::sleep(pause) => {} // poll interval: the moment of the kill
        }
        node.kill().unwrap();
        node.restart()
            .await
            .unwrap_or_else(|error| panic!("after kill {kill}: {error:#}"));
    }
    pgbench.kill().unwrap();
    pgbench.wait().unwrap();
    assert!(!seen.is_empty(), "the subscriber never heard of an epoch");

    let upstream = postgres.connect().await.unwrap();
    compare(&node, &upstream).await.unwrap();

    let client = node.connect().await.unwrap();
    let (mut ids, mut truths) = (BTreeMap::new(), BTreeMap::new());
    for (table, columns) in TABLES {
        let row = client
            .query_one("SELECT id FROM mz_objects WHERE name = $1", &[&table])
            .await
            .unwrap();
        ids.insert(table.to_owned(), row.get::<_, String>(0));
        let column = columns
            .split(", ")
            .find(|column| column.ends_with("balance") || *column == "delta")
            .unwrap();
        let truth = upstream
            .query_one(
                &format!("SELECT count(*) || ' ' || coalesce(sum({column}), 0) FROM {table}"),
                &[],
            )
            .await
            .unwrap();
        truths.insert(table.to_owned(), truth.get::<_, String>(0));
    }
    drop(client);
    // A clean stop commits everything, so that the files are the whole truth.
    node.stop().await.unwrap();
    compare_delta(&node, &ids, &truths).unwrap();
    node.restart().await.unwrap();
    compare(&node, &upstream).await.unwrap();
}
