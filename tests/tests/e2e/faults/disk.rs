//! A full disk: writes fail with a clear error, nothing acknowledged is lost, and service resumes when there is room.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flowstone_tests::{Node, SmallDisk, wait};
use tokio_postgres::Client;

use super::{DEADLINE, failure, rows, said, until_logged};

/// Enough for a node, its reserve and what the tests write.
const DISK_MIB: usize = 224;

async fn count(client: &Client, table: &str) -> i64 {
    client
        .query_one(&format!("SELECT count(*) FROM {table}"), &[])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_refused_before_the_disk_is_full_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(dir.path(), DISK_MIB).unwrap();
    let node = Node::start_on(&disk, dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (a int);
             CREATE TABLE other (a int);
             CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t;
             INSERT INTO t VALUES (1)",
        )
        .await
        .unwrap();
    // Less is left than what is kept for the Raft log and for group commits.
    disk.fill(20).unwrap();
    for sql in [
        "INSERT INTO t VALUES (2)",
        "UPDATE t SET a = 2",
        "DELETE FROM t",
        "CREATE TABLE more (a int)",
        "CREATE MATERIALIZED VIEW w AS SELECT * FROM t",
    ] {
        let (code, message) = failure(&client, sql).await;
        assert_eq!(code, "53100", "{sql}: {message}");
        assert!(message.contains("is full"), "{sql}: {message}");
    }
    client
        .batch_execute("BEGIN; ROLLBACK; SET statement_timeout = '10s'")
        .await
        .unwrap();
    assert_eq!(
        rows(&client, "SELECT t.a, v.n FROM t, v").await.unwrap(),
        ["1|1"]
    );
    // What makes room is allowed.
    client.batch_execute("DROP TABLE other").await.unwrap();
    disk.free().unwrap();
    client
        .batch_execute("INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    assert_eq!(rows(&client, "SELECT n FROM v").await.unwrap(), ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_does_not_fit_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(dir.path(), DISK_MIB).unwrap();
    let mut node = Node::start_on(&disk, dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int, filling text); INSERT INTO t VALUES (1, 'small')")
        .await
        .unwrap();
    disk.fill(60).unwrap();
    for _ in 0..3 {
        let (code, message) = failure(
            &client,
            "INSERT INTO t SELECT g, g::text || repeat('x', 100000) FROM generate_series(1, 900) AS s (g)",
        )
        .await;
        assert_eq!(code, "53100", "{message}");
        assert!(
            message.contains("/log/") && message.contains("No space left on device"),
            "{message}"
        );
        assert_eq!(count(&client, "t").await, 1);
    }
    client
        .batch_execute("INSERT INTO t VALUES (2, 'small')")
        .await
        .unwrap();
    node.kill().unwrap();
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    assert_eq!(
        rows(&client, "SELECT a, filling FROM t ORDER BY a")
            .await
            .unwrap(),
        ["1|small", "2|small"]
    );
}

/// What a client that writes all the time was told.
#[derive(Debug, Default)]
struct Told {
    done: BTreeSet<i32>,
    failed: BTreeSet<i32>,
}

/// Inserts numbers from `first` on, one by one, until it is told to stop. Every failure must be that of a full disk.
async fn insert(
    client: Client,
    first: i32,
    stop: Arc<AtomicBool>,
    counts: Arc<(AtomicUsize, AtomicUsize)>,
) -> Told {
    let mut told = Told::default();
    for number in first.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        match client
            .execute("INSERT INTO t VALUES ($1)", &[&number])
            .await
        {
            Ok(_) => {
                told.done.insert(number);
                counts.0.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => {
                let (code, message) = said(&error);
                assert_eq!(code, "53100", "{message}");
                told.failed.insert(number);
                counts.1.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    told
}

async fn until_more(what: &str, counter: &AtomicUsize, more: usize) {
    let goal = counter.load(Ordering::SeqCst) + more;
    wait::until(what, DEADLINE, async || {
        let seen = counter.load(Ordering::SeqCst);
        if seen >= goal {
            Ok(())
        } else {
            Err(format!("{seen} of {goal}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_left_at_all_nothing_acknowledged_is_lost_and_service_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(dir.path(), DISK_MIB).unwrap();
    let mut node = Node::start_on(&disk, dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (a int);
             CREATE INDEX t_a ON t (a);
             CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t;
             INSERT INTO t VALUES (-1)",
        )
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let mut writers = Vec::new();
    for writer in 0..4 {
        let client = node.connect().await.unwrap();
        writers.push(tokio::spawn(insert(
            client,
            writer * 10_000_000,
            Arc::clone(&stop),
            Arc::clone(&counts),
        )));
    }
    for _ in 0..2 {
        until_more("writes to be acknowledged", &counts.0, 50).await;
        disk.fill(0).unwrap();
        until_more("writes to fail", &counts.1, 10).await;
        // The Raft log, too, finds the disk full, and waits.
        until_logged(&node, "the disk is full").await;
        assert_eq!(
            rows(&client, "SELECT a FROM t WHERE a = -1").await.unwrap(),
            ["-1"]
        );
        let seen = count(&client, "t").await;
        let total = rows(&client, "SELECT n FROM v").await.unwrap();
        assert!(seen > 50 && total[0].parse::<i64>().unwrap() >= seen);
        disk.free().unwrap();
    }
    until_more("writes to be acknowledged again", &counts.0, 50).await;
    stop.store(true, Ordering::SeqCst);
    let mut told = Told::default();
    for writer in writers {
        let mut one = writer.await.unwrap();
        told.done.append(&mut one.done);
        told.failed.append(&mut one.failed);
    }
    assert!(told.failed.len() >= 20);
    check(&client, &told).await;

    // Killed and started on a full disk, it serves what is there.
    disk.fill(0).unwrap();
    node.kill().unwrap();
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    check(&client, &told).await;
    let (code, message) = failure(&client, "INSERT INTO t VALUES (-2)").await;
    assert_eq!(code, "53100", "{message}");
    disk.free().unwrap();
    wait::until("writes to work again", DEADLINE, async || {
        let insert = client.batch_execute("INSERT INTO t VALUES (-2)").await;
        insert.map_err(|error| said(&error).1)
    })
    .await
    .unwrap();
    check(&client, &told).await;
}

/// Everything that was acknowledged is there, and nothing that failed.
async fn check(client: &Client, told: &Told) {
    let found: BTreeSet<i32> = client
        .query("SELECT a FROM t WHERE a >= 0", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let lost: Vec<_> = told.done.difference(&found).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let back: Vec<_> = told.failed.intersection(&found).collect();
    assert!(back.is_empty(), "failed, and there all the same: {back:?}");
    let total: i64 = client
        .query_one("SELECT n FROM v", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(total, count(client, "t").await);
}
