//! The crash test: SIGKILL at random moments loses nothing, repeats nothing, and contradicts nothing that was seen.
//!
//! PostgreSQL runs TPC-B around each kill. A subscriber holds the four tables as one ordered stream of changes and checks them at every epoch it is told of:
//! the history, which only grows, says what every balance must be. A reader asks for the four sums all the while.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use flowstone_tests::{Node, Postgres, text, wait};
use futures::{StreamExt, pin_mut};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::money::{self, Until};

/// How often the node is killed.
fn kills() -> u32 {
    std::env::var("FLOWSTONE_CRASH_KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok())
        .unwrap_or(20)
}

/// How long a subscriber may hear nothing, not even a row of its snapshot. The snapshot as a whole takes as long as it has rows.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// What each of pgbench's four clients does around a kill: it begins before the kill, at full speed, and most often goes on while the node is down. A bound,
/// because pgbench without end makes a million rows of history until the last kill, and the test would take its time with sending them over and over.
const BURST: Until = Until::Transactions(1500);

/// Tables and what is compared of them, spelled alike in PostgreSQL, here, and by `deltalake`.
const TABLES: [(&str, &str, &str); 4] = [
    (
        "pgbench_accounts",
        "aid, bid, abalance",
        "aid, bid, abalance",
    ),
    ("pgbench_branches", "bid, bbalance", "bid, bbalance"),
    (
        "pgbench_tellers",
        "tid, bid, tbalance",
        "tid, bid, tbalance",
    ),
    (
        "pgbench_history",
        "tid, bid, aid, delta, (extract(epoch FROM mtime) * 1000000)::bigint",
        "tid, bid, aid, delta, arrow_cast(arrow_cast(mtime, 'Timestamp(Microsecond, None)'), 'Int64')",
    ),
];

/// Every row that is or was not as pgbench filled it: accounts that nobody touched hold zero.
const FOLLOWED: &str = "SUBSCRIBE (
    SELECT 't' AS kind, tid AS x, bid AS y, 0 AS z, tbalance AS amount, NULL::timestamp AS at FROM pgbench_tellers
    UNION ALL SELECT 'b', bid, 0, 0, bbalance, NULL::timestamp FROM pgbench_branches
    UNION ALL SELECT 'a', aid, bid, 0, abalance, NULL::timestamp FROM pgbench_accounts WHERE abalance <> 0
    UNION ALL SELECT 'h', tid, bid, aid, delta, mtime FROM pgbench_history
) WITH (PROGRESS)";

/// One row of [`FOLLOWED`]. Small and copied: a snapshot has a million of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Followed {
    kind: char,
    x: i32,
    y: i32,
    z: i32,
    amount: i32,
    at: Option<std::time::SystemTime>,
}

/// What one subscription has brought so far, folded.
#[derive(Debug, Default)]
struct Content {
    rows: HashMap<Followed, i64>,
    /// Balance less the history's sum, by kind and number, where that is not zero.
    unexplained: HashMap<(char, i32), i64>,
    /// How many tellers and branches there are.
    tellers: i64,
    branches: i64,
    /// Rows that changed since the last check.
    touched: Vec<Followed>,
    /// Whether the snapshot has come completely.
    complete: bool,
}

impl Content {
    fn add(&mut self, row: Followed, weight: i64) {
        let amount = i64::from(row.amount) * weight;
        match row.kind {
            'h' => {
                self.explain('t', row.x, -amount);
                self.explain('b', row.y, -amount);
                self.explain('a', row.z, -amount);
            }
            't' => self.tellers += weight,
            'b' => self.branches += weight,
            _ => {}
        }
        if row.kind != 'h' {
            self.explain(row.kind, row.x, amount);
        }
        let entry = self.rows.entry(row).or_default();
        *entry += weight;
        if *entry == 0 {
            self.rows.remove(&row);
        }
        self.touched.push(row);
    }

    fn explain(&mut self, kind: char, number: i32, amount: i64) {
        let entry = self.unexplained.entry((kind, number)).or_default();
        *entry += amount;
        if *entry == 0 {
            self.unexplained.remove(&(kind, number));
        }
    }

    /// At an epoch: every balance is what the history says, every row is there a sensible number of times.
    fn check(&mut self, scale: u32) -> Result<()> {
        ensure!(
            self.unexplained.is_empty(),
            "balances without history: {:?}",
            self.unexplained.iter().take(5).collect::<Vec<_>>()
        );
        let counts = (self.branches, self.tellers);
        let expected = (i64::from(scale), 10 * i64::from(scale));
        ensure!(
            counts == expected,
            "{counts:?} branches and tellers, not {expected:?}"
        );
        for row in self.touched.drain(..) {
            let weight = self.rows.get(&row).copied().unwrap_or(0);
            let possible = if row.kind == 'h' { 0..=i64::MAX } else { 0..=1 };
            ensure!(
                possible.contains(&weight),
                "{row:?} is there {weight} times"
            );
        }
        Ok(())
    }

    fn history(&self) -> HashMap<Followed, i64> {
        self.rows
            .iter()
            .filter(|(row, _)| row.kind == 'h')
            .map(|(row, weight)| (*row, *weight))
            .collect()
    }
}

/// What was seen before, over all kills.
#[derive(Debug, Default)]
struct Seen {
    /// The newest complete epoch, and the history as of it.
    epoch: u64,
    history: HashMap<Followed, i64>,
    epochs: u64,
    reads: u64,
}

/// What a subscription lets be seen of it while it runs.
#[derive(Debug, Default)]
struct Heard {
    rows: AtomicU64,
    first_epoch: Notify,
}

impl Heard {
    /// Ends when nothing has come for [`SILENCE_MAX`] or more, less than twice that.
    async fn silence(&self) {
        let mut before = None;
        loop {
            let now = self.rows.load(Ordering::Relaxed);
            if before.replace(now) == Some(now) {
                return;
            }
            tokio::time::sleep(SILENCE_MAX).await; // poll interval: whether a row has come meanwhile
        }
    }
}

/// Follows the tables until the connection breaks, and tells of the first epoch. `Ok` however it breaks; an error is a wrong content.
async fn follow(
    client: Client,
    scale: u32,
    seen: &mut Seen,
    content: &mut Content,
    heard: &Heard,
) -> Result<()> {
    let none: [&(dyn ToSql + Sync); 0] = [];
    let rows = match client.query_raw(FOLLOWED, none).await {
        Ok(rows) => rows,
        Err(error) => return broken(error),
    };
    pin_mut!(rows);
    while let Some(row) = rows.next().await {
        let row = match row {
            Ok(row) => row,
            Err(error) => return broken(error),
        };
        heard.rows.fetch_add(1, Ordering::Relaxed);
        let epoch = epoch_of(&row)?;
        if !row.get::<_, bool>(1) {
            let followed = Followed {
                kind: row.get::<_, &str>(3).chars().next().context("no kind")?,
                x: row.get(4),
                y: row.get(5),
                z: row.get(6),
                amount: row.get(7),
                at: row.get(8),
            };
            content.add(followed, row.get(2));
            continue;
        }
        if content.rows.is_empty() {
            // The first progress row says where the snapshot begins.
            continue;
        }
        // Progress to `epoch` says that everything before it is complete.
        let at = epoch - 1;
        content
            .check(scale)
            .with_context(|| format!("at epoch {at}"))?;
        ensure!(
            at >= seen.epoch,
            "epochs went back: {at} after {}",
            seen.epoch
        );
        if !std::mem::replace(&mut content.complete, true) {
            heard.first_epoch.notify_one();
            for (row, weight) in &seen.history {
                let now = content.rows.get(row).copied().unwrap_or(0);
                ensure!(
                    now >= *weight,
                    "epoch {} had {row:?} {weight} times, epoch {at} after the kill {now} times",
                    seen.epoch
                );
            }
        }
        seen.epoch = at;
        seen.epochs += 1;
    }
    Ok(())
}

/// A connection may break; an error that the node says is one.
fn broken(error: tokio_postgres::Error) -> Result<()> {
    match error.as_db_error() {
        Some(said) => bail!("the node says {said:?}"),
        None => Ok(()),
    }
}

/// Reads the sums until the connection breaks.
async fn read(client: Client) -> Result<u64> {
    let mut reads = 0;
    loop {
        match client.query_one("SELECT * FROM totals", &[]).await {
            Ok(row) => money::check(&row, 0, "SELECT")?,
            Err(error) => return broken(error).map(|()| reads),
        };
        reads += 1;
    }
}

/// `mz_timestamp` is numeric; it is read as text through its digits.
fn epoch_of(row: &tokio_postgres::Row) -> Result<u64> {
    let Digits(epoch) = row.get::<_, Digits>(0);
    Ok(epoch)
}

/// A non-negative integer sent as PostgreSQL's binary numeric.
pub(crate) struct Digits(pub(crate) u64);

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

async fn sorted_rows(client: &Client, sql: &str) -> Result<Vec<String>> {
    let mut rows = text::rows(client, sql).await?;
    rows.sort_unstable();
    Ok(rows)
}

/// Says how two sorted lists of rows differ, if they do.
fn difference(ours: &[String], truth: &[String]) -> Option<String> {
    if ours == truth {
        return None;
    }
    let lacking = |from: &[String], list: &[String]| {
        let lacking: Vec<String> = from
            .iter()
            .filter(|row| list.binary_search(row).is_err())
            .cloned()
            .collect();
        (
            lacking.len(),
            lacking.into_iter().take(5).collect::<Vec<_>>(),
        )
    };
    Some(format!(
        "{} rows instead of {}; missing {:?}; too many {:?}",
        ours.len(),
        truth.len(),
        lacking(truth, ours),
        lacking(ours, truth)
    ))
}

/// Compares our SELECT with PostgreSQL, table by table.
async fn compare(node: &Node, upstream: &Client) -> Result<()> {
    let client = node.connect().await?;
    for (table, columns, _) in TABLES {
        let sql = format!("SELECT {columns} FROM {table}");
        let truth = sorted_rows(upstream, &sql).await?;
        wait::until(
            &format!("{table} to equal its upstream"),
            Duration::from_secs(120),
            async || {
                let ours = sorted_rows(&client, &sql)
                    .await
                    .map_err(|error| error.to_string())?;
                difference(&ours, &truth).map_or(Ok(()), Err)
            },
        )
        .await?;
    }
    Ok(())
}

/// Reads the tables' Delta files with Python's `deltalake` and compares them with PostgreSQL. The node has stopped: the files are the whole truth.
async fn compare_delta(node: &Node, upstream: &Client, ids: &HashMap<&str, String>) -> Result<()> {
    for (table, columns, projection) in TABLES {
        let output = Command::new(super::clients::python())
            .arg(super::clients::script("delta_rows.py"))
            .arg(node.delta_path(ids.get(table).context("no such table")?))
            .arg(projection)
            .output()?;
        ensure!(
            output.status.success(),
            "deltalake cannot read {table}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut files: Vec<String> = String::from_utf8(output.stdout)?
            .lines()
            .map(str::to_owned)
            .collect();
        files.sort_unstable();
        let truth = sorted_rows(upstream, &format!("SELECT {columns} FROM {table}")).await?;
        if let Some(difference) = difference(&files, &truth) {
            bail!("the Delta files of {table}: {difference}");
        }
    }
    Ok(())
}

/// Waits for the end of a burst, which must be one that went well.
fn end(burst: &mut Option<Child>) {
    if let Some(mut pgbench) = burst.take() {
        let status = pgbench.wait().unwrap();
        assert!(status.success(), "pgbench: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_when_the_node_is_killed() {
    let seed = std::env::var("FLOWSTONE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let scale = money::scale();
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    money::prepare_upstream(&postgres, scale).await.unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    money::create_source(&client, &postgres).await.unwrap();
    client.batch_execute(money::TOTALS).await.unwrap();
    drop(client);

    let mut burst: Option<Child> = None;
    let mut seen = Seen::default();
    for kill in 0..kills() {
        let started = std::time::Instant::now();
        let mut content = Content::default();
        let reader = tokio::spawn(read(node.connect().await.unwrap()));
        let subscriber = node.connect().await.unwrap();
        let moment = Duration::from_millis(random.random_range(0..3000));
        let heard = Heard::default();
        end(&mut burst);
        {
            // The kill comes while the subscriber listens; what it heard until then must never be contradicted.
            let follow = follow(subscriber, scale, &mut seen, &mut content, &heard);
            pin_mut!(follow);
            // Every other time in the middle of recovery and snapshots, else while changes flow.
            let come = async {
                if kill % 2 == 1 {
                    heard.first_epoch.notified().await;
                }
                burst = Some(money::start_pgbench(&postgres, BURST).unwrap());
                tokio::time::sleep(moment).await; // poll interval: the moment of the kill
            };
            tokio::select! {
                outcome = &mut follow => panic!("the subscription ended before the kill: {outcome:?}"),
                () = come => {}
                () = heard.silence() => panic!("the subscriber hears nothing any more"),
            }
            node.kill().unwrap();
            // What was sent before the kill still arrives.
            follow
                .await
                .unwrap_or_else(|error| panic!("before kill {kill}: {error:#}"));
        }
        // Rows are sent when their epoch is durable, so that also those of an epoch that was cut short must be there again.
        if content.complete {
            seen.history = content.history();
        }
        seen.reads += reader.await.unwrap().unwrap();
        let lived = started.elapsed();
        node.restart()
            .await
            .unwrap_or_else(|error| panic!("after kill {kill}: {error:#}"));
        println!(
            "kill {kill} after {lived:?}, serving again after {:?}; {} epochs, {} reads, {} rows of history",
            started.elapsed() - lived,
            seen.epochs,
            seen.reads,
            seen.history.len()
        );
    }
    end(&mut burst);
    assert!(seen.epochs > u64::from(kills()), "{} epochs", seen.epochs);
    assert!(seen.reads > 0, "nothing was read between the kills");
    assert!(!seen.history.is_empty(), "no history was seen");

    let upstream = postgres.connect().await.unwrap();
    compare(&node, &upstream).await.unwrap();

    let client = node.connect().await.unwrap();
    let mut ids = HashMap::new();
    for (table, ..) in TABLES {
        let row = client
            .query_one("SELECT id FROM mz_objects WHERE name = $1", &[&table])
            .await
            .unwrap();
        ids.insert(table, row.get::<_, String>(0));
    }
    drop(client);
    // A clean stop commits everything, so that the files are the whole truth.
    node.stop().await.unwrap();
    compare_delta(&node, &upstream, &ids).await.unwrap();
    node.restart().await.unwrap();
    compare(&node, &upstream).await.unwrap();
}
