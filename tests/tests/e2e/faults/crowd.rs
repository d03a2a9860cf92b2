//! 500 connections at once: 50 follow changes, and 10 of these do not read. They are cut off; everybody else is served as if they were not there.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flowstone_tests::{Node, NodeOptions};
use futures::StreamExt;
use futures::future::try_join_all;
use tokio::sync::{mpsc, watch};
use tokio_postgres::Client;

use super::super::wire::{RawClient, fields, resident_bytes};
use super::DEADLINE;

const CONNECTIONS: usize = 500;
const SUBSCRIBERS: usize = 50;
const SLOW: usize = 10;

/// Each round inserts this many rows of this many bytes: 5 MB.
const ROWS: usize = 100;
const ROW_BYTES: usize = 50_000;
/// 100 MB in total: more than what all slow subscribers together may let wait, and the buffers of a socket, so that the last of them is cut off as well.
const ROUNDS: usize = 20;

/// What changes may wait for all subscribers together.
const WAITING_MIB: u64 = 64;
/// A round's changes must reach every subscriber that reads within this. They take a fraction of a second on a machine with nothing else to do.
const IN_TIME: Duration = Duration::from_secs(20);

/// Works as long as there are rounds: in each that it is not too late for, it writes a row and looks its rows up. Returns the rows it wrote.
async fn work(
    client: Client,
    number: i32,
    mut rounds: watch::Receiver<usize>,
) -> Result<i64, String> {
    let say = |error: tokio_postgres::Error| format!("{number}: {error:?}");
    let insert = client
        .prepare("INSERT INTO work VALUES ($1, $2)")
        .await
        .map_err(say)?;
    let look_up = client
        .prepare("SELECT count(*) FROM work WHERE worker = $1")
        .await
        .map_err(say)?;
    let point = client
        .prepare("SELECT round FROM work WHERE worker = $1")
        .await
        .map_err(say)?;
    let mut written = 0_i64;
    while written < 2 || rounds.changed().await.is_ok() {
        let round = i32::try_from(written).unwrap();
        client
            .execute(&insert, &[&number, &round])
            .await
            .map_err(say)?;
        written += 1;
        let rows = client.query(&point, &[&number]).await.map_err(say)?;
        if rows.len() != usize::try_from(written).unwrap() {
            return Err(format!("{number}: {} rows of {written}", rows.len()));
        }
    }
    let counted: i64 = client
        .query_one(&look_up, &[&number])
        .await
        .map_err(say)?
        .get(0);
    (counted == written)
        .then_some(written)
        .ok_or_else(|| format!("{number}: {counted} rows of {written}"))
}

/// Reads every change and tells of each round that is complete.
async fn follow(client: Client, rounds: mpsc::Sender<usize>) -> Result<(), String> {
    let rows = client
        .query_raw(
            "SUBSCRIBE (SELECT round, id, length(filling) AS n FROM wide)",
            std::iter::empty::<i32>(),
        )
        .await
        .map_err(|error| format!("{error:?}"))?;
    let mut rows = std::pin::pin!(rows);
    for round in 0..ROUNDS {
        for _ in 0..ROWS {
            let row = rows
                .next()
                .await
                .ok_or("the end")?
                .map_err(|error| format!("{error:?}"))?;
            let found = (
                row.get::<_, i64>("mz_diff"),
                row.get::<_, i32>("round"),
                row.get::<_, i32>("n"),
            );
            if found
                != (
                    1,
                    i32::try_from(round).unwrap(),
                    i32::try_from(ROW_BYTES).unwrap(),
                )
            {
                return Err(format!("{found:?} in round {round}"));
            }
        }
        rounds
            .send(round)
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Keeps the highest of the resident bytes seen.
async fn watch_memory(node: &Node, most: &AtomicU64) -> Infallible {
    loop {
        most.fetch_max(resident_bytes(node), Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await; // poll interval: memory has no event
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_subscribers_among_500_connections_hold_nobody_back_and_are_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions {
        environment: vec![(
            "FLOWSTONE_SUBSCRIBER_MEMORY_MIB".to_owned(),
            WAITING_MIB.to_string(),
        )],
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir.path(), 2, options).await.unwrap();
    let writer = node.connect().await.unwrap();
    writer
        .batch_execute(
            "CREATE TABLE wide (round int, id int, filling text);
             CREATE TABLE work (worker int, round int);
             CREATE INDEX work_worker ON work (worker)",
        )
        .await
        .unwrap();
    // The slow ones ask for the changes and never read.
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut raw = RawClient::connect(&node).await;
        raw.query("SUBSCRIBE wide").await;
        assert_eq!(raw.receive().await.0, b'T');
        slow.push(raw);
    }
    let readers = SUBSCRIBERS - SLOW;
    let (round_done, mut rounds_done) = mpsc::channel(readers * ROUNDS);
    let mut following = Vec::new();
    for _ in 0..readers {
        let client = node.connect().await.unwrap();
        following.push(tokio::spawn(follow(client, round_done.clone())));
    }
    let (round_begins, rounds) = watch::channel(0);
    let mut working = Vec::new();
    // The writer is one of them.
    for number in 1..CONNECTIONS - SUBSCRIBERS {
        let client = node.connect().await.unwrap();
        working.push(tokio::spawn(work(
            client,
            i32::try_from(number).unwrap(),
            rounds.clone(),
        )));
    }
    let sessions: i64 = writer
        .query_one("SELECT count(*) FROM mz_internal.mz_sessions", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(usize::try_from(sessions).unwrap(), CONNECTIONS);

    let before = resident_bytes(&node);
    let most = AtomicU64::new(before);
    drop(rounds);
    let rounds = async {
        let mut slowest = Duration::ZERO;
        for round in 0..ROUNDS {
            let started = Instant::now();
            round_begins.send_replace(round);
            let insert = format!(
                "INSERT INTO wide SELECT {round}, g, repeat('x', {ROW_BYTES}) FROM generate_series(1, {ROWS}) AS s (g)"
            );
            writer.batch_execute(&insert).await.unwrap();
            for _ in 0..readers {
                let next = tokio::time::timeout(IN_TIME, rounds_done.recv());
                let done = next.await.unwrap_or_else(|_| {
                    panic!("round {round} has not reached all subscribers after {IN_TIME:?}")
                });
                assert_eq!(done, Some(round));
            }
            slowest = slowest.max(started.elapsed());
        }
        drop(round_begins);
        slowest
    };
    let slowest = tokio::select! {
        slowest = rounds => slowest,
        never = watch_memory(&node, &most) => match never {},
    };
    for follower in try_join_all(following).await.unwrap() {
        follower.unwrap();
    }
    let mut written = 0;
    for worker in try_join_all(working).await.unwrap() {
        written += worker.unwrap();
    }
    let total: i64 = writer
        .query_one("SELECT count(*) FROM work", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(total, written);

    // The rows themselves are 100 MB, in memory and, until they are committed, in the buffer of the group commit and its files: three times that.
    // What waits for subscribers is bounded; so is what was on its way to each when it was cut off, 17 messages of 1 MiB. Sessions and garbage of the allocator
    // get 150 MiB. Without the cut, the slow ones alone would hold 1000 MB.
    let content = u64::try_from(ROUNDS * ROWS * ROW_BYTES).unwrap();
    let allowed = 3 * content + ((WAITING_MIB + 17 * 10 + 150) << 20);
    let grown = most.load(Ordering::SeqCst) - before;
    println!(
        "slowest round {slowest:?}, {written} rows of work, grown by {} MiB of {} MiB",
        grown >> 20,
        allowed >> 20
    );
    assert!(
        grown < allowed,
        "the node grew by {} MiB, more than {}",
        grown >> 20,
        allowed >> 20
    );

    // When they read at last, the slow ones get what was on its way and then the reason.
    for mut raw in slow {
        let reason = async {
            loop {
                let message = raw.receive().await;
                if message.0 != b'D' {
                    return message;
                }
            }
        };
        let message = tokio::time::timeout(DEADLINE, reason)
            .await
            .expect("the end of the result");
        assert_eq!(message.0, b'E');
        let error = fields(&[message], b'E');
        assert_eq!(error[&'C'], "53400", "{error:?}");
        assert!(
            error[&'M'].contains("reads too slowly") && error.contains_key(&'H'),
            "{error:?}"
        );
        // The connection itself is as good as ever.
        raw.until_ready().await;
        raw.query("SELECT 1").await;
        raw.until_ready().await;
    }
}
