//! Tables written by statements: durable at the answer, readable by others as Delta.

use std::process::Command;
use std::time::Duration;

use flowstone_tests::Node;
use futures::{StreamExt, pin_mut};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (id int, name text);
             CREATE MATERIALIZED VIEW counts AS SELECT name, count(*) AS n, sum(id) AS total FROM t WHERE id > 0 GROUP BY name",
        )
        .await
        .unwrap();
    for round in 0..5_i32 {
        let client = node.connect().await.unwrap();
        for id in 0..20_i32 {
            client
                .execute(
                    "INSERT INTO t VALUES ($1, $2)",
                    &[&(round * 100 + id), &format!("n{}", id % 3)],
                )
                .await
                .unwrap();
        }
        client
            .execute("DELETE FROM t WHERE id = $1", &[&(round * 100 + 1)])
            .await
            .unwrap();
        client
            .execute(
                "UPDATE t SET name = 'moved' WHERE id = $1",
                &[&(round * 100 + 2)],
            )
            .await
            .unwrap();
        node.kill().unwrap();
        node.restart().await.unwrap();
    }
    let client = node.connect().await.unwrap();
    let rows: i64 = client
        .query_one("SELECT count(*) FROM t", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(rows, 5 * 19);
    let moved: i64 = client
        .query_one("SELECT n FROM counts WHERE name = 'moved'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(moved, 5);
    let from_view: i64 = client
        .query_one("SELECT sum(n)::bigint FROM counts", &[])
        .await
        .unwrap()
        .get(0);
    let from_table: i64 = client
        .query_one("SELECT count(*) FROM t WHERE id > 0", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(from_view, from_table);
}

#[tokio::test(flavor = "multi_thread")]
async fn delta_files_hold_what_select_shows() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (id int, price numeric(10,2), doc jsonb, at timestamptz);
             INSERT INTO t SELECT g, g * 1.5, '{\"k\": 1}'::jsonb, '2026-01-01 00:00:00+00' FROM generate_series(1, 1000) AS s(g);
             DELETE FROM t WHERE id % 7 = 0;
             UPDATE t SET price = price + 1 WHERE id % 5 = 0;
             INSERT INTO t VALUES (1, 1.5, NULL, NULL), (1, 1.5, NULL, NULL)",
        )
        .await
        .unwrap();
    let truth: String = client
        .query_one("SELECT count(*) || ' ' || sum(price)::text FROM t", &[])
        .await
        .unwrap()
        .get(0);
    let id: String = client
        .query_one("SELECT id FROM mz_tables WHERE name = 't'", &[])
        .await
        .unwrap()
        .get(0);
    drop(client);
    node.stop().await.unwrap();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/delta_sum.py");
    let output = Command::new(super::clients::python())
        .arg(script)
        .arg(node.delta_path(&id))
        .arg("price")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), truth);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_table_ends_its_subscriptions_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE gone (x int); CREATE TABLE stays (y int); INSERT INTO gone VALUES (1); INSERT INTO stays VALUES (1)")
        .await
        .unwrap();
    let none: [&(dyn ToSql + Sync); 0] = [];
    let watcher = node.connect().await.unwrap();
    let rows = watcher
        .query_raw("SUBSCRIBE (SELECT count(*) FROM gone)", none)
        .await
        .unwrap();
    pin_mut!(rows);
    rows.next().await.unwrap().unwrap();
    client.batch_execute("DROP TABLE gone").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), rows.next());
    let error = ended
        .await
        .expect("the subscription goes on")
        .unwrap()
        .unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_TABLE), "{error:?}");
    client
        .batch_execute("INSERT INTO stays VALUES (2)")
        .await
        .unwrap();
    let count: i64 = client
        .query_one("SELECT count(*) FROM stays", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 2);
}
