//! Tables written by statements: durable at the answer, readable by others as Delta.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use flowstone_tests::{Node, wait};
use futures::{StreamExt, pin_mut};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, SimpleQueryMessage};

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
    let mut truth = Vec::new();
    for message in client
        .simple_query("SELECT id, price, doc, extract(epoch FROM at)::bigint FROM t")
        .await
        .unwrap()
    {
        if let SimpleQueryMessage::Row(row) = message {
            let values = (0..row.len()).map(|column| row.get(column).unwrap_or("NULL"));
            truth.push(values.collect::<Vec<_>>().join("|"));
        }
    }
    truth.sort_unstable();
    assert_eq!(truth.len(), 1000 - 1000 / 7 + 2);
    let id = table_id(&client, "t").await;
    drop(client);
    node.stop().await.unwrap();
    let files = python(
        "delta_rows.py",
        &[
            node.delta_path(&id).to_str().unwrap(),
            "id, price, doc, CAST(to_unixtime(at) AS BIGINT)",
        ],
    );
    let mut files: Vec<&str> = files.lines().collect();
    files.sort_unstable();
    assert_eq!(files, truth);
}

async fn table_id(client: &Client, name: &str) -> String {
    client
        .query_one("SELECT id FROM mz_tables WHERE name = $1", &[&name])
        .await
        .unwrap()
        .get(0)
}

/// What a script of `tests/clients` prints.
fn python(script: &str, arguments: &[&str]) -> String {
    let output = Command::new(super::clients::python())
        .arg(super::clients::script(script))
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_delta_version_holds_the_rows_of_its_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (id int, v int)")
        .await
        .unwrap();
    let id = table_id(&client, "t").await;

    // A subscriber keeps the content as of each epoch at which it changed.
    let watcher = node.connect().await.unwrap();
    let watching = tokio::spawn(async move {
        let none: [&(dyn ToSql + Sync); 0] = [];
        let rows = watcher
            .query_raw("SUBSCRIBE t WITH (PROGRESS)", none)
            .await
            .unwrap();
        pin_mut!(rows);
        let mut versions = BTreeMap::new();
        let mut content = BTreeMap::<(i32, i32), i64>::new();
        while let Some(Ok(row)) = rows.next().await {
            if row.get::<_, bool>("mz_progressed") {
                let super::crash::Digits(epoch) = row.get("mz_timestamp");
                content.retain(|_, weight| *weight != 0);
                versions.insert(epoch - 1, content.clone());
            } else {
                *content.entry((row.get("id"), row.get("v"))).or_default() +=
                    row.get::<_, i64>("mz_diff");
            }
        }
        versions
    });
    let path = node.delta_path(&id);
    for round in 0..6 {
        let statements = format!(
            "INSERT INTO t SELECT g, {round} FROM generate_series(1, 50) AS s (g);
             UPDATE t SET v = v + 100 WHERE id % 5 = {round} % 5;
             DELETE FROM t WHERE (id + v) % 7 = {round}"
        );
        client.batch_execute(&statements).await.unwrap();
        let commits = |dir: &std::path::Path| {
            std::fs::read_dir(dir.join("_delta_log"))
                .map(|entries| entries.count())
                .unwrap_or(0)
        };
        let before = commits(&path);
        wait::until(
            "a group commit",
            Duration::from_secs(30),
            async || match commits(&path) {
                now if now > before => Ok(()),
                now => Err(format!("{now} files in the log")),
            },
        )
        .await
        .unwrap();
    }
    drop(client);
    node.stop().await.unwrap();
    let versions = watching.await.unwrap();

    let printed = python(
        "delta_versions.py",
        &[path.to_str().unwrap(), "flowstone", "id, v"],
    );
    let mut compared = 0;
    for version in printed.split("epoch ").skip(1) {
        let (epoch, rows) = version.split_once('\n').unwrap();
        let epoch: u64 = epoch.parse().unwrap();
        let Some((_, expected)) = versions.range(..=epoch).next_back() else {
            continue;
        };
        let mut content = BTreeMap::<(i32, i32), i64>::new();
        for row in rows.lines() {
            let (id, v) = row.split_once('|').unwrap();
            *content
                .entry((id.parse().unwrap(), v.parse().unwrap()))
                .or_default() += 1;
        }
        assert_eq!(content, *expected, "at epoch {epoch}");
        compared += 1;
    }
    assert!(
        compared >= 6,
        "{compared} versions were compared:\n{printed}"
    );
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

#[tokio::test(flavor = "multi_thread")]
async fn lookups_see_every_acknowledged_write_and_nothing_twice() {
    for shards in [1, 2] {
        lookups_are_strictly_serializable(shards).await;
    }
}

/// A row is updated again and again. Whoever reads it, in whatever way, sees what was acknowledged and what anybody had read before the read began.
async fn lookups_are_strictly_serializable(shards: usize) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), shards).await.unwrap();
    let writer = node.connect().await.unwrap();
    writer
        .batch_execute(
            "CREATE TABLE t (id int, v bigint);
             CREATE INDEX t_id ON t (id);
             CREATE MATERIALIZED VIEW sums AS SELECT id, sum(v)::bigint AS total FROM t GROUP BY id;
             INSERT INTO t SELECT g, 0 FROM generate_series(1, 1000) AS s (g)",
        )
        .await
        .unwrap();
    let explained: String = writer
        .query("EXPLAIN SELECT v FROM t WHERE id = 500", &[])
        .await
        .unwrap()[0]
        .get(0);
    assert!(explained.starts_with("Lookup"), "{explained}");

    let known = Arc::new(AtomicI64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for (sql, in_block) in [
        ("SELECT v FROM t WHERE id = $1", false),
        ("SELECT v FROM t WHERE id = $1", false),
        ("SELECT v FROM t WHERE id = $1", true),
        ("SELECT total FROM sums WHERE id = $1", false),
        ("SELECT max(v) FROM t WHERE id <= $1", false),
    ] {
        let client = node.connect().await.unwrap();
        let (known, stop) = (Arc::clone(&known), Arc::clone(&stop));
        readers.push(tokio::spawn(async move {
            let statement = client.prepare(sql).await.unwrap();
            let mut reads = 0;
            while !stop.load(Ordering::SeqCst) {
                let least = known.load(Ordering::SeqCst);
                if in_block {
                    client.batch_execute("BEGIN").await.unwrap();
                }
                let rows = client.query(&statement, &[&500_i32]).await.unwrap();
                if in_block {
                    client.batch_execute("COMMIT").await.unwrap();
                }
                assert_eq!(rows.len(), 1, "{sql}");
                let seen: i64 = rows[0].get(0);
                assert!(
                    seen >= least,
                    "{sql}, in a block: {in_block}, {shards} shards: {seen} after {least} was acknowledged or read"
                );
                known.fetch_max(seen, Ordering::SeqCst);
                reads += 1;
            }
            reads
        }));
    }
    for number in 1..=100_i64 {
        writer
            .execute("UPDATE t SET v = $1 WHERE id = 500", &[&number])
            .await
            .unwrap();
        known.fetch_max(number, Ordering::SeqCst);
    }
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        let reads = reader.await.unwrap();
        assert!(reads > 40, "{reads} reads");
    }
    // NULL equals nothing, and a key that is not there gives no row.
    let none: Option<i32> = None;
    let rows = writer
        .query("SELECT v FROM t WHERE id = $1", &[&none])
        .await
        .unwrap();
    assert!(rows.is_empty());
    let rows = writer
        .query("SELECT v FROM t WHERE id = $1", &[&5000_i32])
        .await
        .unwrap();
    assert!(rows.is_empty());
}

/// How one statement of a transaction writes `(1)` into `s.b`.
async fn write_to_b(client: &Client, way: &str) {
    match way {
        "COPY" => {
            let sink = client.copy_in("COPY s.b FROM STDIN").await.unwrap();
            pin_mut!(sink);
            futures::SinkExt::send(&mut sink, bytes::Bytes::from_static(b"1\n"))
                .await
                .unwrap();
            sink.finish().await.unwrap();
        }
        "prepared" => {
            let insert = client.prepare("INSERT INTO s.b VALUES ($1)").await.unwrap();
            client.execute(&insert, &[&1_i32]).await.unwrap();
        }
        "savepoint" => client
            .batch_execute("SAVEPOINT p; INSERT INTO s.b VALUES (1); RELEASE p")
            .await
            .unwrap(),
        _ => client
            .batch_execute("INSERT INTO s.b VALUES (1)")
            .await
            .unwrap(),
    }
}

async fn count(client: &Client, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    client.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_writes_to_all_of_its_tables_or_to_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let (client, other) = (node.connect().await.unwrap(), node.connect().await.unwrap());
    client
        .batch_execute("CREATE TABLE a (k int)")
        .await
        .unwrap();
    for way in ["INSERT", "COPY", "prepared", "savepoint"] {
        for drop in [
            "DROP TABLE s.b",
            "DROP TABLE s.b CASCADE; CREATE TABLE s.b (k int)",
            "DROP SCHEMA s CASCADE",
        ] {
            other
                .batch_execute(
                    "DROP SCHEMA IF EXISTS s CASCADE; CREATE SCHEMA s; CREATE TABLE s.b (k int);
                     CREATE MATERIALIZED VIEW s.v AS SELECT count(*) AS n FROM s.b",
                )
                .await
                .unwrap();
            client
                .batch_execute("BEGIN; INSERT INTO a VALUES (1)")
                .await
                .unwrap();
            write_to_b(&client, way).await;
            let drop = drop.replace("DROP TABLE s.b;", "DROP TABLE s.b CASCADE;");
            let drop = if drop == "DROP TABLE s.b" {
                "DROP MATERIALIZED VIEW s.v; DROP TABLE s.b"
            } else {
                &drop
            };
            other.batch_execute(drop).await.unwrap();
            let error = client.batch_execute("COMMIT").await.unwrap_err();
            let said = error.as_db_error().unwrap();
            assert_eq!(said.code().code(), "40001", "{way}, {drop}");
            assert_eq!(
                said.message(),
                "table \"b\" was dropped before what was written to it could be committed"
            );
            assert_eq!(count(&client, "a").await, 0, "{way}, {drop}");
        }
    }
    // Renamed is not gone, and what a savepoint took back is not written.
    other
        .batch_execute("DROP SCHEMA IF EXISTS s CASCADE; CREATE SCHEMA s; CREATE TABLE s.b (k int); CREATE TABLE s.c (k int)")
        .await
        .unwrap();
    client
        .batch_execute("BEGIN; INSERT INTO a VALUES (1); INSERT INTO s.b VALUES (1); SAVEPOINT p; INSERT INTO s.c VALUES (1)")
        .await
        .unwrap();
    other
        .batch_execute("ALTER TABLE s.b RENAME TO b2; DROP TABLE s.c")
        .await
        .unwrap();
    client.batch_execute("ROLLBACK TO p; COMMIT").await.unwrap();
    assert_eq!(count(&client, "a").await, 1);
    assert_eq!(count(&client, "s.b2").await, 1);
    node.kill().unwrap();
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    assert_eq!(count(&client, "a").await, 1);
    assert_eq!(count(&client, "s.b2").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_dropped_while_others_write_to_them_take_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE kept (k int)")
        .await
        .unwrap();
    let mut written = 0;
    for round in 0..20 {
        client
            .batch_execute("CREATE TABLE goes (k int); INSERT INTO goes VALUES (1), (2)")
            .await
            .unwrap();
        let mut writers = Vec::new();
        for writer in 0..4 {
            let client = node.connect().await.unwrap();
            writers.push(tokio::spawn(async move {
                let sql = match writer {
                    0 => "UPDATE goes SET k = k + 1",
                    1 => "INSERT INTO goes SELECT k FROM goes",
                    _ => "BEGIN; INSERT INTO kept VALUES (1); INSERT INTO goes VALUES (1); COMMIT",
                };
                client
                    .batch_execute(sql)
                    .await
                    .map(|()| i64::from(writer > 1))
            }));
        }
        client.batch_execute("DROP TABLE goes").await.unwrap();
        for writer in writers {
            match writer.await.unwrap() {
                Ok(rows) => written += rows,
                Err(error) => {
                    let code = error
                        .as_db_error()
                        .map(|error| error.code().code().to_owned());
                    assert!(
                        matches!(code.as_deref(), Some("40001" | "42P01")),
                        "round {round}: {error:?}"
                    );
                }
            }
        }
    }
    assert_eq!(count(&client, "kept").await, written);
}

/// Bytes that the node's arrangements take once it says of each of `views` that it has so many rows.
async fn arranged(client: &Client, views: &[String], records: i64) -> i64 {
    wait::until(
        "the statistics of the views",
        Duration::from_secs(60),
        async || {
            let reported = client
                .query(
                    "SELECT o.name::text, s.records::int8 FROM mz_internal.mz_collection_statistics s JOIN mz_objects o ON o.id = s.object_id",
                    &[],
                )
                .await
                .map_err(|error| error.to_string())?;
            let reported: BTreeMap<String, i64> = reported
                .iter()
                .map(|row| (row.get(0), row.get(1)))
                .collect();
            if views.iter().any(|view| reported.get(view) != Some(&records)) {
                return Err(format!("{reported:?}"));
            }
            let held = client
                .query_one(
                    "SELECT coalesce(sum(bytes::int8), 0)::int8 FROM mz_internal.mz_object_memory WHERE holder = 'arrangement'",
                    &[],
                )
                .await
                .map_err(|error| error.to_string())?;
            Ok(held.get(0))
        },
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_views_that_join_by_one_key_cost_one_arrangement() {
    const ROWS: i64 = 5000;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    for table in ["a", "b"] {
        for statement in [
            format!("CREATE TABLE {table} (id int NOT NULL, k int NOT NULL, v text NOT NULL)"),
            format!(
                "INSERT INTO {table} SELECT g, g * 3, 'a text of {table} ' || g::text FROM generate_series(1, {ROWS}) AS s (g)"
            ),
        ] {
            client.batch_execute(&statement).await.unwrap();
        }
    }
    let views: Vec<String> = (0..10).map(|number| format!("joined_{number}")).collect();
    let create = async |view: &str| {
        client
            .batch_execute(&format!(
                "CREATE MATERIALIZED VIEW {view} AS SELECT a.id AS a_id, a.k, a.v AS a_v, b.id AS b_id, b.k AS b_k, b.v AS b_v FROM a JOIN b ON a.k = b.k"
            ))
            .await
            .unwrap();
    };
    create(&views[0]).await;
    let one = arranged(&client, &views[..1], ROWS).await;
    assert!(one > 0);
    for view in &views[1..] {
        create(view).await;
    }
    let ten = arranged(&client, &views, ROWS).await;
    assert!(
        ten * 2 < one * 3,
        "arrangements of one view take {one} bytes, of ten {ten}"
    );
}
