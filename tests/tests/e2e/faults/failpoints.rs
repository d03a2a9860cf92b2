//! Every step of every durable write, and every message between the parts of the worker: the process ends right before it, or the step fails. Nothing that was
//! acknowledged is lost, nothing that was refused comes back, and the node goes on by itself, or says what is wrong and does when it is started again.
//!
//! The steps are those that the product lists (`flowstone_disk::Failpoint`), so that a new one is walked without being named here.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use flowstone_disk::{Failpoint, Kind, Step};
use flowstone_tests::{Node, NodeOptions, Postgres, wait};
use tokio_postgres::Client;

use super::{rows, said};

/// Until a step is reached that the work leads to. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(120);
/// How many rows a file has that is written in parts, of 96 letters by chance.
const LARGE_ROWS: u32 = 250_000;
/// Statements that each make an entry of Raft's log, in a batch.
const ENTRIES: usize = 200;

/// The connection is gone.
#[derive(Debug)]
struct Lost;

/// What a statement came to.
#[derive(Debug)]
enum Outcome {
    Done,
    Refused(String, String),
    Lost,
}

async fn run(client: &Client, sql: &str) -> Outcome {
    match tokio::time::timeout(DEADLINE, client.batch_execute(sql)).await {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(error)) if error.as_db_error().is_none() => Outcome::Lost,
        Ok(Err(error)) => {
            let (code, message) = said(&error);
            // The node is on its way out: what became of the statement is not known.
            if code.starts_with("57P") || code.starts_with("08") {
                Outcome::Lost
            } else {
                Outcome::Refused(code, message)
            }
        }
        Err(_) => panic!("{sql} takes too long"),
    }
}

/// Runs a statement until it works; one whose effect is there already has worked.
async fn ensure(client: &Client, sql: &str) -> Result<(), Lost> {
    let start = Instant::now();
    loop {
        let refused = match run(client, sql).await {
            Outcome::Done => return Ok(()),
            Outcome::Lost => return Err(Lost),
            Outcome::Refused(code, message) => (code, message),
        };
        if ["42710", "42P07", "42704", "42P01"].contains(&refused.0.as_str()) {
            return Ok(());
        }
        assert!(start.elapsed() < DEADLINE, "{sql}: {refused:?}");
        tokio::time::sleep(Duration::from_millis(100)).await; // poll interval
    }
}

/// Waits until a query answers this.
async fn until(client: &Client, sql: &str, expected: &[String]) -> Result<(), Lost> {
    let start = Instant::now();
    loop {
        let seen = rows(client, sql).await;
        if seen.as_deref() == Ok(expected) {
            return Ok(());
        }
        if client.is_closed() {
            return Err(Lost);
        }
        assert!(
            start.elapsed() < DEADLINE,
            "{sql}: {seen:?} instead of {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await; // poll interval
    }
}

/// A node that is started again and again on the same directory, what it was told, and the server that it captures.
struct World {
    dir: tempfile::TempDir,
    postgres: Postgres,
    upstream: Client,
    /// Numbers whose two rows are in the table.
    acknowledged: BTreeSet<i32>,
    /// ... and of those that may be in it.
    unsure: BTreeSet<i32>,
    next: i32,
    /// The last row in the captured table.
    captured: i32,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let postgres = Postgres::start(dir.path()).unwrap();
        let upstream = postgres.connect().await.unwrap();
        upstream
            .batch_execute(
                "CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1);
                 CREATE TABLE u2 (id int PRIMARY KEY); INSERT INTO u2 SELECT generate_series(1, 10);
                 CREATE TABLE large (id int PRIMARY KEY, b text);
                 CREATE PUBLICATION p FOR ALL TABLES",
            )
            .await
            .unwrap();
        let fill = format!(
            "INSERT INTO large SELECT x, md5(x::text || 'a') || md5(x::text || 'b') || md5(x::text || 'c') FROM generate_series(1, {LARGE_ROWS}) x"
        );
        upstream.batch_execute(&fill).await.unwrap();
        Self {
            dir,
            postgres,
            upstream,
            acknowledged: BTreeSet::new(),
            unsure: BTreeSet::new(),
            next: 1,
            captured: 1,
        }
    }

    /// How often the step was reached in this run or an earlier one and what was planned happened.
    fn reached(&self, failpoint: Failpoint) -> usize {
        let log = std::fs::read_to_string(self.dir.path().join("node.log")).unwrap_or_default();
        log.matches(&format!("failpoint={failpoint} ")).count()
    }

    /// Starts the node; `None` if it ends before it serves.
    async fn start(&self, failpoints: &str) -> Option<(Node, Client)> {
        let options = NodeOptions {
            // A checkpoint comes every so many commits.
            arguments: vec!["--commit-interval-ms=20".to_owned()],
            environment: vec![("FLOWSTONE_FAILPOINTS".to_owned(), failpoints.to_owned())],
            ..NodeOptions::default()
        };
        let node = Node::start_with(self.dir.path(), 2, options).await.ok()?;
        let client = node.connect().await.ok()?;
        Some((node, client))
    }

    /// The objects that the work needs.
    async fn prepare(&self, client: &Client) -> Result<(), Lost> {
        let connection = format!(
            "CREATE CONNECTION c TO POSTGRES (HOST '127.0.0.1', PORT {}, USER 'postgres', PASSWORD SECRET s, DATABASE 'postgres')",
            self.postgres.port()
        );
        for sql in [
            "CREATE SECRET s AS 'hush'",
            &connection,
            "CREATE TABLE t (a int, b text)",
            "CREATE MATERIALIZED VIEW v AS SELECT a, count(*) AS n FROM t GROUP BY a",
            "CREATE SOURCE g FROM POSTGRES CONNECTION c (PUBLICATION 'p') FOR TABLES (u)",
        ] {
            ensure(client, sql).await?;
        }
        Ok(())
    }

    /// What is there is what was acknowledged, and nothing that was refused. What was not sure is from now on.
    async fn verify(&mut self, client: &Client) -> Result<(), Lost> {
        let found = match rows(client, "SELECT a, count(*) FROM t GROUP BY a ORDER BY a").await {
            Ok(found) => found,
            Err(_) if client.is_closed() => return Err(Lost),
            Err(error) => panic!("{error:?}"),
        };
        let mut there = BTreeSet::new();
        for row in &found {
            let (number, count) = row.split_once('|').unwrap();
            assert_eq!(count, "2", "half a transaction: {row}");
            there.insert(number.parse::<i32>().unwrap());
        }
        let lost: Vec<_> = self.acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let known: BTreeSet<i32> = self.acknowledged.union(&self.unsure).copied().collect();
        let invented: Vec<_> = there.difference(&known).collect();
        assert!(invented.is_empty(), "refused and there: {invented:?}");
        self.acknowledged = there;
        self.unsure.clear();
        until(client, "SELECT a, n FROM v ORDER BY a", &found).await?;
        let captured = format!("{}|{}", self.captured, self.captured);
        until(client, "SELECT count(*), max(id) FROM u", &[captured]).await
    }

    /// Makes what the work needs, if it is not there yet, and verifies.
    async fn begin(&mut self, client: &Client) -> Result<(), Lost> {
        self.prepare(client).await?;
        self.verify(client).await
    }

    /// A little of everything.
    async fn round(&mut self, client: &Client, kind: Kind) -> Result<(), Lost> {
        self.prepare(client).await?;
        let number = self.next;
        self.next += 1;
        // What is large is written in another way.
        let repeated = if kind == Kind::LogBlob { 3 << 20 } else { 1 };
        let insert = format!(
            "INSERT INTO t VALUES ({number}, repeat('x', {repeated})), ({number}, repeat('y', {repeated}))"
        );
        match run(client, &insert).await {
            Outcome::Done => {
                self.acknowledged.insert(number);
            }
            Outcome::Refused(..) => {}
            Outcome::Lost => {
                self.unsure.insert(number);
                return Err(Lost);
            }
        }
        self.captured += 1;
        let sql = format!("INSERT INTO u VALUES ({})", self.captured);
        self.upstream.batch_execute(&sql).await.unwrap();
        match kind {
            Kind::TableDrop => {
                ensure(client, "CREATE TABLE doomed (a int)").await?;
                ensure(client, "INSERT INTO doomed VALUES (1)").await?;
                ensure(client, "DROP TABLE doomed").await?;
            }
            Kind::SourceState => {
                let sql = "CREATE SOURCE other FROM POSTGRES CONNECTION c (PUBLICATION 'p') FOR TABLES (u2)";
                ensure(client, sql).await?;
                let sql = "SELECT count(*) FROM u2";
                until(client, sql, &["10".to_owned()]).await?;
                ensure(client, "DROP SOURCE other CASCADE").await?;
            }
            Kind::DeltaUpload => {
                // Only a snapshot makes files that large.
                let sql = "CREATE SOURCE big FROM POSTGRES CONNECTION c (PUBLICATION 'p') FOR TABLES (large)";
                ensure(client, sql).await?;
                let sql = "SELECT count(*) FROM large";
                until(client, sql, &[LARGE_ROWS.to_string()]).await?;
                ensure(client, "DROP SOURCE big CASCADE").await?;
            }
            Kind::RaftSnapshot => {
                let sql = "CREATE ROLE passing; DROP ROLE passing;".repeat(ENTRIES / 2);
                if let Outcome::Lost = run(client, &sql).await {
                    return Err(Lost);
                }
                ensure(client, "DROP ROLE passing").await?;
            }
            _ => {}
        }
        self.verify(client).await
    }

    /// Works on until all these were reached. `Err` if the node is gone.
    async fn work_until_reached(
        &mut self,
        client: &Client,
        failpoints: &[(Failpoint, usize)],
    ) -> Result<(), Lost> {
        let start = Instant::now();
        loop {
            let mut waiting = failpoints
                .iter()
                .filter(|(failpoint, before)| self.reached(*failpoint) == *before);
            let Some((failpoint, _)) = waiting.next() else {
                return Ok(());
            };
            assert!(start.elapsed() < DEADLINE, "{failpoint} is never reached");
            let kind = failpoint.kind;
            self.round(client, kind).await?;
        }
    }

    /// A step of Raft's that fails: the node goes on, or says why it ends.
    async fn fail_in_raft(&mut self, failpoint: Failpoint) {
        let before = self.reached(failpoint);
        let time = first_of_work(failpoint);
        let failpoints = format!("{failpoint}=error@{time}");
        let start = Instant::now();
        let worked = async {
            // The step may belong to the start.
            let (_node, client) = self.start(&failpoints).await.ok_or(Lost)?;
            self.begin(&client).await?;
            self.work_until_reached(&client, &[(failpoint, before)])
                .await?;
            self.round(&client, failpoint.kind).await
        };
        let outcome: Result<(), Lost> = worked.await;
        assert!(self.reached(failpoint) > before, "{failpoint}");
        if outcome.is_err() {
            let log = std::fs::read_to_string(self.dir.path().join("node.log")).unwrap();
            let reason = log.lines().rev().take(20);
            let said = reason
                .filter(|line| line.contains("Input/output error"))
                .count();
            assert!(said > 0, "{failpoint}: the node ended without a word");
        }
        println!("{failpoints}: {:.1?}, {outcome:?}", start.elapsed());
    }

    /// The slot of the source that stays is the only one, and only its files are there.
    async fn nothing_is_left_behind(&self, client: &Client) {
        for sql in [
            "DROP SOURCE IF EXISTS big CASCADE",
            "DROP SOURCE IF EXISTS other CASCADE",
            "DROP TABLE IF EXISTS doomed",
        ] {
            ensure(client, sql).await.unwrap();
        }
        wait::until("slots to go", DEADLINE, async || {
            let slots = rows(&self.upstream, "SELECT slot_name FROM pg_replication_slots")
                .await
                .unwrap();
            (slots.len() == 1)
                .then_some(())
                .ok_or_else(|| format!("{slots:?}"))
        })
        .await
        .unwrap();
        let log = self.dir.path().join("data").join("log");
        wait::until("large writes to go from the log", DEADLINE, async || {
            let blobs = names(&log);
            let blobs = blobs
                .iter()
                .filter(|name| name.starts_with("blob-"))
                .count();
            (blobs == 0)
                .then_some(())
                .ok_or_else(|| format!("{blobs} files"))
        })
        .await
        .unwrap();
        let delta = self.dir.path().join("data").join("delta");
        wait::until("dropped tables to go", DEADLINE, async || {
            let names = names(&delta);
            let dropped: Vec<_> = names
                .iter()
                .filter(|name| name.contains("dropped"))
                .collect();
            dropped
                .is_empty()
                .then_some(())
                .ok_or_else(|| format!("{dropped:?}"))
        })
        .await
        .unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// Whether it is written once in the life of a data directory.
fn is_written_once(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Format | Kind::SecretKey | Kind::AcknowledgedFile | Kind::RaftBegun
    )
}

/// Only a sink leads there.
fn is_of_kafka(kind: Kind) -> bool {
    kind == Kind::SinkTransaction
}

/// The first time that work leads there, and not the start.
fn first_of_work(failpoint: Failpoint) -> u32 {
    match (failpoint.kind, failpoint.step) {
        (Kind::RaftLog, _) => 30,
        (_, Step::Tell) => 3,
        _ => 1,
    }
}

/// Whether it belongs to Raft, for which a write that fails otherwise than for want of room is the end.
fn is_of_raft(kind: Kind) -> bool {
    matches!(kind, Kind::RaftLog | Kind::RaftSnapshot)
}

/// What must go wrong before the step is reached.
fn before(kind: Kind) -> &'static str {
    match kind {
        Kind::LogTail => "log-record.sync=error,",
        // Files of a commit that failed go; those that nobody reads any more only after a day.
        Kind::DeltaVacuum => "delta-commit.write=error@2,",
        _ => "",
    }
}

/// A node on an empty directory that has `failpoints`, and one on what that leaves.
async fn first_start(failpoints: &str, failpoint: Failpoint) {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions {
        environment: vec![("FLOWSTONE_FAILPOINTS".to_owned(), failpoints.to_owned())],
        ..NodeOptions::default()
    };
    drop(Node::start_with(dir.path(), 1, options).await);
    let log = std::fs::read_to_string(dir.path().join("node.log")).unwrap();
    let reached = format!("failpoint={failpoint} ");
    assert!(
        log.contains(&reached),
        "{failpoint} is never reached: {log}"
    );
    let mut node = Node::start(dir.path(), 1)
        .await
        .unwrap_or_else(|error| panic!("after {failpoints}: {error:#}"));
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE SECRET s AS 'hush'; CREATE TABLE t (a int); INSERT INTO t VALUES (1)",
        )
        .await
        .unwrap_or_else(|error| panic!("after {failpoints}: {error:?}"));
    node.kill().unwrap();
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    let found = rows(&client, "SELECT a FROM t").await;
    assert_eq!(found, Ok(vec!["1".to_owned()]), "after {failpoints}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_right_before_any_step_of_a_write_loses_nothing() {
    let mut world = World::new().await;
    let all = Failpoint::all()
        .filter(|failpoint| !is_written_once(failpoint.kind) && !is_of_kafka(failpoint.kind));
    for failpoint in all {
        let time = first_of_work(failpoint);
        let failpoints = format!("{}{failpoint}=kill@{time}", before(failpoint.kind));
        let reached = world.reached(failpoint);
        let start = Instant::now();
        if let Some((_node, client)) = world.start(&failpoints).await {
            let worked = world.begin(&client).await;
            if worked.is_ok() {
                let lost = world
                    .work_until_reached(&client, &[(failpoint, reached)])
                    .await;
                if lost.is_ok() {
                    // It says what it reaches before it ends.
                    wait::until("the node to end", DEADLINE, async || {
                        let gone = client.is_closed().then_some(());
                        gone.ok_or_else(|| "it goes on".to_owned())
                    })
                    .await
                    .unwrap_or_else(|error| panic!("{failpoint}: {error}"));
                }
            }
        }
        assert!(
            world.reached(failpoint) > reached,
            "{failpoint}: the node ended by itself"
        );
        println!("{failpoints}: {:.1?}", start.elapsed());
    }
    let (mut node, client) = world.start("").await.unwrap();
    world.verify(&client).await.unwrap();
    world.round(&client, Kind::LogRecord).await.unwrap();
    world.nothing_is_left_behind(&client).await;
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_where_any_step_of_a_write_fails_goes_on_and_loses_nothing() {
    let mut world = World::new().await;
    let all: Vec<Failpoint> = Failpoint::all()
        .filter(|failpoint| !is_written_once(failpoint.kind) && !is_of_kafka(failpoint.kind))
        .filter(|failpoint| failpoint.can_fail())
        .collect();
    // What one kind of work leads to, in one run.
    for group in all.chunk_by(|one, other| one.kind == other.kind) {
        let kind = group[0].kind;
        if is_of_raft(kind) {
            for failpoint in group {
                world.fail_in_raft(*failpoint).await;
            }
            continue;
        }
        let start = Instant::now();
        let planned: Vec<String> = group
            .iter()
            .map(|failpoint| format!("{failpoint}=errorx2"))
            .collect();
        let failpoints = format!("{}{}", before(kind), planned.join(","));
        let reached: Vec<(Failpoint, usize)> = group
            .iter()
            .map(|failpoint| (*failpoint, world.reached(*failpoint)))
            .collect();
        let (_node, client) = world.start(&failpoints).await.unwrap();
        let worked = async {
            world.begin(&client).await?;
            world.work_until_reached(&client, &reached).await?;
            world.round(&client, kind).await
        };
        let worked: Result<(), Lost> = worked.await;
        assert!(worked.is_ok(), "{failpoints}: the node ended");
        println!("{failpoints}: {:.1?}", start.elapsed());
    }
    let (mut node, client) = world.start("").await.unwrap();
    world.verify(&client).await.unwrap();
    world.nothing_is_left_behind(&client).await;
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_is_cut_short_or_fails_anywhere_is_followed_by_one_that_works() {
    let once = Failpoint::all()
        .filter(|failpoint| is_written_once(failpoint.kind) || failpoint.kind == Kind::RaftLog);
    for failpoint in once {
        for action in ["kill", "error"] {
            first_start(&format!("{failpoint}={action}"), failpoint).await;
        }
    }
}
