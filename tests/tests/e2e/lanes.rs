//! What is slow keeps nobody else waiting, and is still of the same moment as everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flowstone_tests::{Node, Postgres, text, wait};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::wire::{RawClient, resident_bytes, tags};

/// How long something may take that has to happen.
const DEADLINE: Duration = Duration::from_secs(120);

async fn run(client: &Client, sql: &str) {
    if let Err(error) = client.batch_execute(sql).await {
        panic!("{sql}: {error:?}");
    }
}

async fn row(client: &Client, sql: &str) -> String {
    let rows = text::rows(client, sql).await;
    let mut rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    assert_eq!(rows.len(), 1, "{sql}");
    rows.remove(0)
}

/// Views that are computed anew at each change, one over the other, and what is maintained of them.
const SLOW: [&str; 5] = [
    "CREATE MATERIALIZED VIEW quick AS SELECT count(*) AS n, sum(v) AS s FROM t",
    "CREATE MATERIALIZED VIEW ranked AS SELECT k, v, row_number() OVER (ORDER BY v, k) AS r FROM t",
    "CREATE MATERIALIZED VIEW of_ranked AS SELECT count(*) AS n, sum(v) AS s, max(r) AS r FROM ranked",
    "CREATE MATERIALIZED VIEW beside AS SELECT o.n, o.r, q.s FROM of_ranked AS o, quick AS q",
    "CREATE INDEX by_rank ON ranked (r)",
];

/// Holds at every moment, whatever was written.
const ONE_MOMENT: &str = "SELECT (SELECT count(*) FROM t) = (SELECT n FROM of_ranked), \
     (SELECT count(*) FROM t) = (SELECT r FROM of_ranked), \
     (SELECT s FROM quick) = (SELECT s FROM of_ranked), \
     (SELECT s FROM quick) = (SELECT s FROM beside), \
     (SELECT count(*) FROM t) = (SELECT n FROM beside), \
     (SELECT count(*) FROM t) = (SELECT count(*) FROM ranked)";

/// Writes rows of sum zero and takes some away, until it is told to stop. Returns how many statements there were.
fn keep_writing(client: Client, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<u32> {
    tokio::spawn(async move {
        let mut statements = 0;
        while !stop.load(Ordering::SeqCst) {
            let sql = match statements % 4 {
                3 => "DELETE FROM t WHERE k > 100000 AND k % 3 = 0".to_owned(),
                n => format!(
                    "INSERT INTO t SELECT 100000 + {statements} * 10 + g, g FROM generate_series(1, {}) AS s (g)",
                    n + 1
                ),
            };
            run(&client, &sql).await;
            statements += 1;
        }
        statements
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_sees_one_moment_of_tables_and_of_what_is_computed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    run(&client, "CREATE TABLE t (k int, v int)").await;
    run(
        &client,
        "INSERT INTO t SELECT g, g % 100 FROM generate_series(1, 20000) AS s (g)",
    )
    .await;
    for sql in SLOW {
        run(&client, sql).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [node.connect().await.unwrap(), node.connect().await.unwrap()];
    let writers = writers.map(|client| keep_writing(client, Arc::clone(&stop)));
    let started = Instant::now();
    let (mut in_transactions, mut refused) = (0, 0);
    while started.elapsed() < Duration::from_secs(15) {
        assert_eq!(row(&client, ONE_MOMENT).await, "t|t|t|t|t|t");
        // A transaction reads one moment, too. It may be refused one that what is computed anew has passed over; it never gets another.
        let order = ["SELECT n FROM of_ranked", "SELECT count(*) FROM t"];
        for order in [order, [order[1], order[0]]] {
            run(&client, "BEGIN").await;
            let first = row(&client, order[0]).await;
            match text::rows(&client, order[1]).await {
                Ok(second) => {
                    assert_eq!(second, [first]);
                    in_transactions += 1;
                }
                Err(error) => {
                    let code = error.code();
                    assert_eq!(
                        code,
                        Some(&SqlState::T_R_SERIALIZATION_FAILURE),
                        "{error:?}"
                    );
                    refused += 1;
                }
            }
            run(&client, "ROLLBACK").await;
        }
        // The index has the rows of the view.
        let last = row(&client, "SELECT max(r) FROM ranked").await;
        let found = format!(
            "SELECT count(*) FROM ranked WHERE r = {}",
            last.parse::<i64>().unwrap() / 2
        );
        assert_eq!(row(&client, &found).await, "1");
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        let statements = writer.await.unwrap();
        assert!(statements > 20, "{statements} writes beside recomputations");
    }
    assert!(in_transactions > 0, "{refused} transactions were refused");
    assert_eq!(row(&client, ONE_MOMENT).await, "t|t|t|t|t|t");
    for round in 0..3 {
        node.kill().unwrap();
        node.restart().await.unwrap();
        let client = node.connect().await.unwrap();
        if round > 0 {
            assert_eq!(row(&client, ONE_MOMENT).await, "t|t|t|t|t|t");
        }
        // It is killed again while some of it is being made.
        run(&client, "INSERT INTO t VALUES (1, 0)").await;
    }
    let client = node.connect().await.unwrap();
    assert_eq!(row(&client, ONE_MOMENT).await, "t|t|t|t|t|t");
    // What was committed of a view belongs to what was committed of its tables.
    let log = std::fs::read_to_string(node.log_path()).unwrap();
    assert!(!log.contains("a view computes other rows"), "{log}");
    node.stop().await.unwrap();
}

/// The longest of small inserts elsewhere while something happens, and how long that took.
async fn longest_insert(node: &Node, happens: impl Future<Output = ()>) -> (Duration, Duration) {
    let client = node.connect().await.unwrap();
    run(&client, "CREATE TABLE IF NOT EXISTS elsewhere (k int)").await;
    let stop = Arc::new(AtomicBool::new(false));
    let inserts = {
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::SeqCst) {
                let started = Instant::now();
                run(&client, "INSERT INTO elsewhere VALUES (1)").await;
                longest = longest.max(started.elapsed());
            }
            longest
        })
    };
    let started = Instant::now();
    happens.await;
    let taken = started.elapsed();
    stop.store(true, Ordering::SeqCst);
    (inserts.await.unwrap(), taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_elsewhere_do_not_wait_for_what_is_hydrated_or_computed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    run(&client, "CREATE TABLE big (k int, v int)").await;
    run(
        &client,
        "INSERT INTO big SELECT g, g % 1000 FROM generate_series(1, 200000) AS s (g)",
    )
    .await;
    for (what, create, read) in [
        (
            "a view that is maintained",
            "CREATE MATERIALIZED VIEW maintained AS SELECT a.v, count(*) AS n FROM big AS a, big AS b WHERE a.k = b.k GROUP BY a.v",
            "SELECT sum(n) FROM maintained",
        ),
        (
            "an index",
            "CREATE INDEX by_v ON big (v)",
            "SELECT count(*) * 1000 FROM big WHERE v = 7",
        ),
        (
            "a view over one that is being made",
            "CREATE MATERIALIZED VIEW pairs AS SELECT DISTINCT k, v FROM big; \
             CREATE MATERIALIZED VIEW of_pairs AS SELECT count(*) AS n FROM pairs",
            "SELECT n FROM of_pairs",
        ),
        (
            "a window",
            "CREATE MATERIALIZED VIEW ranked AS SELECT k, row_number() OVER (PARTITION BY v ORDER BY k) AS r FROM big",
            "SELECT count(*) FROM ranked",
        ),
    ] {
        let happens = async {
            run(&client, create).await;
            assert_eq!(row(&client, read).await, "200000", "{what}");
        };
        // Every insert syncs.
        flowstone_tests::disk::synced().await.unwrap();
        let (longest, taken) = tokio::time::timeout(DEADLINE, longest_insert(&node, happens))
            .await
            .unwrap();
        // Both share two cores and a debug build with everything else; but one never waits for all of the other.
        assert!(
            longest < taken / 2 || longest < Duration::from_millis(250),
            "{what}: an insert took {longest:?} of {taken:?}"
        );
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_elsewhere_do_not_wait_for_snapshots_subscriptions_and_copies() {
    const ROWS: u64 = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let upstream = postgres.connect().await.unwrap();
    for table in ["first", "second"] {
        run(
            &upstream,
            &format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, v text); INSERT INTO {table} SELECT g, 'a text of ' || g FROM generate_series(1, {ROWS}) AS g"
            ),
        )
        .await;
    }
    run(&upstream, "CREATE PUBLICATION p FOR TABLE first, second").await;
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    let connection = format!(
        "CREATE CONNECTION pg TO POSTGRES (HOST '127.0.0.1', PORT {}, USER 'postgres', PASSWORD SECRET pgpass, DATABASE 'postgres')",
        postgres.port()
    );
    for sql in [
        "CREATE SECRET pgpass AS 'x'",
        connection.as_str(),
        "CREATE TABLE copied (id int, v text)",
    ] {
        run(&client, sql).await;
    }
    let lines: String = (0..ROWS).map(|id| format!("{id}\ta text\n")).collect();
    for what in ["a snapshot", "another table", "a subscription", "a copy"] {
        let happens = async {
            let table = match what {
                "a snapshot" => {
                    run(&client, "CREATE SOURCE s FROM POSTGRES CONNECTION pg (PUBLICATION 'p') FOR TABLES (first)").await;
                    "first"
                }
                "another table" => {
                    run(&client, "ALTER SOURCE s ADD SUBSOURCE second").await;
                    "second"
                }
                "a subscription" => {
                    run(
                        &client,
                        "BEGIN; DECLARE c CURSOR FOR SUBSCRIBE (SELECT id FROM first)",
                    )
                    .await;
                    let mut seen = 0;
                    while seen < ROWS {
                        let rows = text::rows(&client, "FETCH 50000 c").await.unwrap();
                        seen += u64::try_from(rows.len()).unwrap();
                    }
                    run(&client, "COMMIT").await;
                    "first"
                }
                _ => {
                    let mut raw = RawClient::connect(&node).await;
                    raw.query("COPY copied FROM STDIN").await;
                    assert_eq!(raw.receive().await.0, b'G');
                    for piece in lines.as_bytes().chunks(100_000) {
                        raw.send(&[(b'd', piece.to_vec())]).await;
                    }
                    raw.send(&[(b'c', Vec::new())]).await;
                    assert!(tags(&raw.until_ready().await).ends_with("CZ"));
                    "copied"
                }
            };
            let count = row(&client, &format!("SELECT count(*) FROM {table}")).await;
            assert_eq!(count, ROWS.to_string(), "{what}");
        };
        let (longest, taken) = tokio::time::timeout(DEADLINE, longest_insert(&node, happens))
            .await
            .unwrap();
        // As above.
        assert!(
            longest < taken / 2 || longest < Duration::from_millis(250),
            "{what}: an insert took {longest:?} of {taken:?}"
        );
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_can_be_dropped_and_a_crash_makes_it_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    run(&client, "CREATE TABLE big (k int, v int)").await;
    run(
        &client,
        "INSERT INTO big SELECT g, g % 1000 FROM generate_series(1, 100000) AS s (g)",
    )
    .await;
    let create = "CREATE MATERIALIZED VIEW away AS SELECT v, count(*) AS n FROM big GROUP BY v";
    let over = "CREATE MATERIALIZED VIEW over AS SELECT count(*) AS n FROM away";
    for _ in 0..5 {
        run(&client, create).await;
        run(&client, over).await;
        run(&client, "INSERT INTO big VALUES (0, -1)").await;
        run(&client, "DROP MATERIALIZED VIEW away CASCADE").await;
    }
    run(&client, create).await;
    run(&client, over).await;
    run(&client, "INSERT INTO big VALUES (0, -2)").await;
    node.kill().unwrap();
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    assert_eq!(row(&client, "SELECT n FROM over").await, "1002");
    assert_eq!(row(&client, "SELECT sum(n) FROM away").await, "100006");
    // What reads a view that fails while it is away fails with it, and nothing else does.
    run(
        &client,
        "CREATE MATERIALIZED VIEW wrong AS SELECT count(*) AS n FROM big WHERE 1 / (v + 2) > 0",
    )
    .await;
    let error = text::rows(&client, "SELECT n FROM wrong")
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO), "{error:?}");
    run(&client, "DELETE FROM big WHERE v = -2").await;
    assert_eq!(row(&client, "SELECT n FROM over").await, "1001");
    assert_eq!(row(&client, "SELECT n FROM wrong").await, "5");
    node.stop().await.unwrap();
}

/// One upstream transaction of `count` rows with texts of `width` enters while others write, and is the same after a kill. Returns by how much the node has
/// grown when it is there.
async fn upstream_transaction(count: u64, width: u64, deadline: Duration) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let upstream = postgres.connect().await.unwrap();
    run(&upstream, "CREATE TABLE up (id int PRIMARY KEY, v text)").await;
    run(&upstream, "CREATE PUBLICATION p FOR TABLE up").await;
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    let connection = format!(
        "CREATE CONNECTION pg TO POSTGRES (HOST '127.0.0.1', PORT {}, USER 'postgres', PASSWORD SECRET pgpass, DATABASE 'postgres')",
        postgres.port()
    );
    for sql in [
        "CREATE SECRET pgpass AS 'x'",
        connection.as_str(),
        "CREATE SOURCE s FROM POSTGRES CONNECTION pg (PUBLICATION 'p') FOR ALL TABLES",
        "CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS n, sum(id) AS s, sum(length(v)) AS l FROM up",
    ] {
        run(&client, sql).await;
    }
    let read = "SELECT n, s, l FROM sums";
    assert_eq!(row(&client, "SELECT n FROM sums").await, "0");
    let expected = format!("{count}|{}|{}", count * (count + 1) / 2, count * width);
    let before = resident_bytes(&node);
    let happens = async {
        let insert = format!(
            "INSERT INTO up SELECT g, rpad(g::text, {width}, 'x') FROM generate_series(1, {count}) AS g"
        );
        run(&upstream, &insert).await;
        wait::until("the transaction to be there", deadline, async || {
            let seen = row(&client, read).await;
            if seen == expected {
                return Ok(());
            }
            assert!(seen.starts_with("0|"), "a part of it: {seen}");
            Err(seen)
        })
        .await
        .unwrap();
    };
    let (longest, taken) = tokio::time::timeout(deadline, longest_insert(&node, happens))
        .await
        .unwrap();
    let grown = resident_bytes(&node).saturating_sub(before);
    // Both share two cores and a debug build with everything else; but one never waits for all of the other.
    assert!(
        longest < taken / 2 || longest < Duration::from_millis(250),
        "an insert took {longest:?} of {taken:?}"
    );
    node.kill().unwrap();
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    let again = tokio::time::timeout(deadline, row(&client, read)).await;
    assert_eq!(again.unwrap(), expected);
    let rows = tokio::time::timeout(deadline, row(&client, "SELECT count(*) FROM up")).await;
    assert_eq!(rows.unwrap(), count.to_string());
    node.stop().await.unwrap();
    grown
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_transaction_of_many_rows_keeps_nobody_waiting() {
    upstream_transaction(150_000, 40, DEADLINE).await;
}

/// More than may wait in memory. Takes minutes without optimisation: `make large`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 4 GB"]
async fn a_large_upstream_transaction_of_a_million_rows_is_in_memory_once() {
    const ROWS: u64 = 1_000_000;
    const WIDTH: u64 = 1000;
    let grown = upstream_transaction(ROWS, WIDTH, Duration::from_secs(1800)).await;
    assert!(
        grown < 2 * ROWS * WIDTH,
        "the node grew by {} MiB, for {} MiB of texts",
        grown >> 20,
        (ROWS * WIDTH) >> 20
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_read_of_a_captured_table_has_its_snapshot_however_busy_the_node_is() {
    const ROWS: u32 = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let upstream = postgres.connect().await.unwrap();
    let fill = format!(
        "CREATE TABLE many (id int PRIMARY KEY); INSERT INTO many SELECT generate_series(1, {ROWS}); CREATE PUBLICATION p FOR ALL TABLES"
    );
    upstream.batch_execute(&fill).await.unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    let connection = format!(
        "CREATE CONNECTION c TO POSTGRES (HOST '127.0.0.1', PORT {}, USER 'postgres', PASSWORD SECRET s, DATABASE 'postgres')",
        postgres.port()
    );
    for sql in [
        "CREATE SECRET s AS 'hush'",
        &connection,
        "CREATE TABLE t (k int, v int)",
    ] {
        run(&client, sql).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = keep_writing(node.connect().await.unwrap(), Arc::clone(&stop));
    let levels = ["strict serializable", "serializable"].repeat(4);
    for (round, level) in levels.into_iter().enumerate() {
        run(&client, &format!("SET transaction_isolation = '{level}'")).await;
        run(
            &client,
            "CREATE SOURCE g FROM POSTGRES CONNECTION c (PUBLICATION 'p') FOR TABLES (many)",
        )
        .await;
        if round % 4 < 2 {
            let counted = row(&client, "SELECT count(*) FROM many").await;
            assert_eq!(counted, ROWS.to_string(), "{level}");
        } else {
            // A transaction, as most drivers begin one: its epoch is one at which the snapshot is there.
            run(&client, "BEGIN").await;
            for _ in 0..2 {
                let counted = row(&client, "SELECT count(*) FROM many").await;
                assert_eq!(counted, ROWS.to_string(), "{level}, in a transaction");
            }
            run(&client, "COMMIT").await;
        }
        run(&client, "DROP SOURCE g CASCADE").await;
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    node.stop().await.unwrap();
}
