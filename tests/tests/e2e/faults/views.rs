//! What a view cannot do is the trouble of the view and of what reads it: everything else goes on, and the node starts again.

use std::path::Path;

use flowstone_tests::{Node, NodeOptions};
use tokio_postgres::Client;

use super::{failure, rows};
use crate::wire::{RawClient, tags};

async fn node(dir: &Path) -> Node {
    let arguments = ["--recompute-seconds-max", "2", "--query-memory-mib", "64"];
    let options = NodeOptions {
        arguments: arguments.map(ToOwned::to_owned).to_vec(),
        ..NodeOptions::default()
    };
    Node::start_with(dir, 2, options).await.unwrap()
}

async fn is_given_up(client: &Client) {
    for view in ["endless", "above"] {
        let (code, message) = failure(client, &format!("SELECT * FROM {view}")).await;
        assert_eq!(code, "57014", "{view}: {message}");
        assert!(message.contains("longer than 2s"), "{view}: {message}");
    }
    let said =
        "SELECT v.name, h.hydrated, h.error IS NOT NULL FROM mz_internal.mz_hydration_statuses h
                JOIN mz_catalog.mz_materialized_views v ON v.id = h.object_id ORDER BY v.name";
    assert_eq!(
        rows(client, said).await.unwrap(),
        ["above|f|t", "beside|t|f", "endless|f|t"]
    );
    assert_eq!(rows(client, "SELECT s FROM beside").await.unwrap(), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_never_ends_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = node(dir.path()).await;
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (a bigint);
             CREATE MATERIALIZED VIEW endless AS WITH RECURSIVE r (n) AS (SELECT a FROM t UNION ALL SELECT n + 1 FROM r WHERE n > 0) SELECT count(*) AS n FROM r;
             CREATE MATERIALIZED VIEW above AS SELECT n + 1 AS n FROM endless;
             CREATE MATERIALIZED VIEW beside AS SELECT sum(a) AS s FROM t;
             INSERT INTO t VALUES (0)",
        )
        .await
        .unwrap();
    assert_eq!(rows(&client, "SELECT n FROM above").await.unwrap(), ["2"]);
    client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    is_given_up(&client).await;
    // Whether it can be read is not asked of what has nothing to do with it, and it takes no time of later changes.
    client
        .batch_execute("INSERT INTO t VALUES (2); DELETE FROM t WHERE a = 2")
        .await
        .unwrap();
    node.kill().unwrap();
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    is_given_up(&client).await;
    client
        .batch_execute(
            "DELETE FROM t WHERE a > 0;
             DROP MATERIALIZED VIEW endless CASCADE;
             CREATE MATERIALIZED VIEW endless AS WITH RECURSIVE r (n) AS (SELECT a FROM t UNION ALL SELECT n + 1 FROM r WHERE n > 0) SELECT count(*) AS n FROM r",
        )
        .await
        .unwrap();
    assert_eq!(rows(&client, "SELECT n FROM endless").await.unwrap(), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_view_that_is_behind_is_told_so_while_it_waits() {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions {
        arguments: ["--recompute-seconds-max", "60"]
            .map(ToOwned::to_owned)
            .to_vec(),
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir.path(), 2, options).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (a bigint);
             CREATE MATERIALIZED VIEW endless AS WITH RECURSIVE r (n) AS (SELECT a FROM t UNION ALL SELECT n + 1 FROM r WHERE n > 0) SELECT count(*) AS n FROM r;
             INSERT INTO t VALUES (0)",
        )
        .await
        .unwrap();
    assert_eq!(rows(&client, "SELECT n FROM endless").await.unwrap(), ["1"]);
    client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let mut raw = RawClient::connect(&node).await;
    raw.query("SELECT n FROM endless").await;
    raw.told("waiting for materialized view \"endless\", which is behind")
        .await;
    client
        .batch_execute("DROP MATERIALIZED VIEW endless")
        .await
        .unwrap();
    assert!(tags(&raw.until_ready().await).ends_with("EZ"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_makes_a_view_too_large_is_an_error_until_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = node(dir.path()).await;
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (a bigint);
             CREATE MATERIALIZED VIEW numbers AS SELECT count(*) AS n FROM t, generate_series(1, t.a) AS g;
             INSERT INTO t VALUES (10)",
        )
        .await
        .unwrap();
    assert_eq!(
        rows(&client, "SELECT n FROM numbers").await.unwrap(),
        ["10"]
    );
    client
        .batch_execute("INSERT INTO t VALUES (1000000000000)")
        .await
        .unwrap();
    for _ in 0..2 {
        let client = node.connect().await.unwrap();
        let (code, message) = failure(&client, "SELECT * FROM numbers").await;
        assert!(code == "54000", "{code} {message}");
        let count = rows(&client, "SELECT count(*) FROM t").await.unwrap();
        assert_eq!(count, ["2"]);
        node.kill().unwrap();
        node.restart().await.unwrap();
    }
    let client = node.connect().await.unwrap();
    client
        .batch_execute("DELETE FROM t WHERE a > 10")
        .await
        .unwrap();
    assert_eq!(
        rows(&client, "SELECT n FROM numbers").await.unwrap(),
        ["10"]
    );
}
