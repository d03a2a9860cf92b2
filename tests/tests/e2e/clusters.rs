//! Clusters: what is in them reads each other at one epoch, whatever becomes of the clusters meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flowstone_tests::{Node, text};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::wire::{RawClient, tags};

/// How long something may take that has to happen.
const DEADLINE: Duration = Duration::from_secs(120);

async fn run(client: &Client, sql: &str) {
    if let Err(error) = client.batch_execute(sql).await {
        panic!("{sql}: {error:?}");
    }
}

async fn refused(client: &Client, sql: &str) -> SqlState {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.as_db_error().expect(sql).code().clone()
}

async fn rows(client: &Client, sql: &str) -> Vec<String> {
    text::rows(client, sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

/// Two clusters over one table: `there` reads what is in `here`, which reads what is in `there`.
async fn set_up(client: &Client) {
    for sql in [
        "CREATE TABLE t (k int, v int)",
        "INSERT INTO t SELECT g, g % 10 FROM generate_series(1, 1000) AS s (g)",
        "CREATE CLUSTER here (SIZE = '25cc')",
        "CREATE CLUSTER there (SIZE = '25cc')",
        "CREATE MATERIALIZED VIEW in_here IN CLUSTER here AS SELECT v, count(*) AS n FROM t GROUP BY v",
        "CREATE MATERIALIZED VIEW in_there IN CLUSTER there AS SELECT sum(n) AS total, count(*) AS kinds FROM in_here",
        "CREATE MATERIALIZED VIEW back IN CLUSTER here AS SELECT t.k, i.total FROM t, in_there AS i WHERE t.k <= 3",
        "CREATE MATERIALIZED VIEW alone AS SELECT count(*) AS total FROM t",
        "CREATE INDEX by_v IN CLUSTER there ON t (v)",
    ] {
        run(client, sql).await;
    }
}

/// What every read must say: the views of all clusters agree at each epoch.
const AGREE: &str = "SELECT (SELECT total FROM alone) = (SELECT total FROM in_there), \
     (SELECT total FROM alone) = (SELECT count(*) FROM t), \
     (SELECT min(total) FROM back) = (SELECT total FROM alone), \
     (SELECT max(total) FROM back) = (SELECT total FROM alone)";

async fn agree(client: &Client) {
    assert_eq!(rows(client, AGREE).await, ["t|t|t|t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_clusters_agrees_while_they_are_resized_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    set_up(&client).await;
    agree(&client).await;
    assert_eq!(
        rows(&client, "SELECT k FROM t WHERE v = 3 ORDER BY k LIMIT 2").await,
        ["3", "13"]
    );

    // Someone writes all the time.
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, client) = (Arc::clone(&stop), node.connect().await.unwrap());
        tokio::spawn(async move {
            let mut written = 0_i64;
            while !stop.load(Ordering::SeqCst) {
                run(&client, "INSERT INTO t VALUES (5000, 77), (5001, 78)").await;
                written += 2;
                if written % 10 == 0 {
                    run(&client, "DELETE FROM t WHERE k = 5000").await;
                }
            }
        })
    };
    let wait = "WITH (WAIT UNTIL READY (TIMEOUT = '2m'))";
    for size in ["200cc", "100cc", "400cc", "25cc"] {
        for cluster in ["here", "there"] {
            run(
                &client,
                &format!("ALTER CLUSTER {cluster} SET (SIZE = '{size}') {wait}"),
            )
            .await;
            agree(&client).await;
        }
        // Nobody waits for this one.
        run(&client, "ALTER CLUSTER here SET (SIZE = '300cc')").await;
        agree(&client).await;
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    agree(&client).await;

    let names = "SELECT o.name, c.name FROM mz_objects AS o JOIN mz_clusters AS c ON c.id = o.cluster_id ORDER BY o.name";
    let before = rows(&client, names).await;
    assert_eq!(
        before,
        [
            "alone|quickstart",
            "back|here",
            "by_v|there",
            "in_here|here",
            "in_there|there"
        ]
    );
    let counted = rows(&client, "SELECT * FROM in_there").await;
    let clusters = "SELECT id, name, size, replication_factor FROM mz_clusters ORDER BY id";
    let known = rows(&client, clusters).await;
    node.kill().unwrap();
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    assert_eq!(rows(&client, names).await, before);
    assert_eq!(rows(&client, clusters).await, known);
    assert_eq!(rows(&client, "SELECT * FROM in_there").await, counted);
    agree(&client).await;
    run(&client, "INSERT INTO t VALUES (9000, 99)").await;
    agree(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_cluster_keeps_nobody_waiting_but_who_reads_it_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    set_up(&client).await;
    run(&client, "ALTER CLUSTER there SET (REPLICATION FACTOR = 0)").await;
    run(&client, "INSERT INTO t VALUES (2000, 100)").await;
    // What does not depend on it goes on.
    assert_eq!(rows(&client, "SELECT total FROM alone").await, ["1001"]);
    assert_eq!(rows(&client, "SELECT count(*) FROM in_here").await, ["11"]);
    run(&client, "SET statement_timeout = '500ms'").await;
    for view in ["in_there", "back"] {
        let state = refused(&client, &format!("SELECT * FROM {view}")).await;
        assert_eq!(state, SqlState::QUERY_CANCELED, "{view}");
    }
    run(&client, "RESET statement_timeout").await;
    // It is paused over a restart as well.
    node.kill().unwrap();
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    run(&client, "INSERT INTO t VALUES (2001, 101)").await;
    assert_eq!(rows(&client, "SELECT total FROM alone").await, ["1002"]);
    // Who reads it is told for what it waits, while it does.
    let mut raw = RawClient::connect(&node).await;
    raw.query("SELECT total FROM in_there").await;
    let notice = raw
        .told("waiting for materialized view \"in_there\": cluster \"there\" is paused")
        .await;
    assert_eq!(
        notice[&'H'],
        "ALTER CLUSTER there SET (REPLICATION FACTOR 1) lets it go on."
    );
    run(&client, "ALTER CLUSTER there SET (REPLICATION FACTOR = 1)").await;
    assert_eq!(tags(&raw.until_ready().await), "DCZ");
    agree(&client).await;
    assert_eq!(rows(&client, "SELECT total FROM in_there").await, ["1002"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_goes_takes_what_is_in_it_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    set_up(&client).await;
    assert_eq!(
        refused(&client, "DROP CLUSTER there").await,
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST
    );
    run(&client, "DROP CLUSTER there CASCADE").await;
    for gone in ["in_there", "back"] {
        let sql = format!("SELECT * FROM {gone}");
        assert_eq!(refused(&client, &sql).await, SqlState::UNDEFINED_TABLE);
    }
    run(&client, "INSERT INTO t VALUES (2000, 100)").await;
    assert_eq!(rows(&client, "SELECT total FROM alone").await, ["1001"]);
    assert_eq!(rows(&client, "SELECT count(*) FROM in_here").await, ["11"]);
    // A new one of the name is another.
    run(&client, "CREATE CLUSTER there (SIZE = '25cc')").await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW in_there IN CLUSTER there AS SELECT sum(n) AS total FROM in_here",
    )
    .await;
    assert_eq!(rows(&client, "SELECT total FROM in_there").await, ["1001"]);
    assert_eq!(
        rows(
            &client,
            "SELECT id FROM mz_clusters WHERE name IN ('here', 'there') ORDER BY id"
        )
        .await,
        ["u2", "u4"]
    );
}

/// What a subscription through the cursor `c` gives next, sorted.
async fn until(subscriber: &Client, expected: &[&str]) {
    let reading = async {
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let fetch = "FETCH ALL c WITH (timeout = '1s')";
            for row in rows(subscriber, fetch).await {
                // All but the time.
                seen.push(row.split_once('|').unwrap().1.to_owned());
            }
        }
        seen.sort();
        seen
    };
    let seen = tokio::time::timeout(DEADLINE, reading).await;
    assert_eq!(seen.expect("the rows come"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_runs_in_the_cluster_of_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    set_up(&client).await;
    let subscriber = node.connect().await.unwrap();
    run(&subscriber, "SET cluster = there").await;
    run(
        &subscriber,
        "BEGIN; DECLARE c CURSOR FOR SUBSCRIBE (SELECT v, n FROM in_here WHERE v = 7)",
    )
    .await;
    until(&subscriber, &["1|7|100"]).await;
    let running = "SELECT c.name FROM mz_internal.mz_subscriptions AS s JOIN mz_clusters AS c ON c.id = s.cluster_id";
    assert_eq!(rows(&client, running).await, ["there"]);
    run(&client, "INSERT INTO t VALUES (2000, 7)").await;
    until(&subscriber, &["-1|7|100", "1|7|101"]).await;
    run(
        &client,
        "ALTER CLUSTER there SET (SIZE = '200cc') WITH (WAIT UNTIL READY (TIMEOUT = '2m'))",
    )
    .await;
    run(&client, "DELETE FROM t WHERE k = 2000").await;
    until(&subscriber, &["-1|7|101", "1|7|100"]).await;
}
