//! Rows of a captured table that hold what we cannot: the table cannot be read while there is one, and can again when the row is mended or gone.

use std::time::Duration;

use flowstone_tests::{Node, Postgres, text, wait};
use tokio_postgres::Client;

/// Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

async fn rows(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    text::rows(client, sql).await.map_err(|error| {
        error.as_db_error().map_or_else(
            || format!("{error:?}"),
            |error| format!("{}: {}", error.code().code(), error.message()),
        )
    })
}

async fn until(client: &Client, sql: &str, expected: &[&str]) {
    wait::until(sql, DEADLINE, async || match rows(client, sql).await {
        Ok(seen) if seen == expected => Ok(()),
        other => Err(format!("{other:?} instead of {expected:?}")),
    })
    .await
    .unwrap();
}

async fn until_fails(client: &Client, sql: &str, part: &str) {
    wait::until(sql, DEADLINE, async || match rows(client, sql).await {
        Err(error) if error.contains(part) => Ok(()),
        other => Err(format!("{other:?} instead of {part}")),
    })
    .await
    .unwrap();
}

/// Kinds of values that do not fit: a column, the value, and a part of what is said of it.
const KINDS: [(&str, &str, &str); 7] = [
    (
        "n",
        "'NaN'",
        "value \"NaN\" is not supported for type numeric",
    ),
    (
        "n",
        "'-Infinity'",
        "value \"-Infinity\" is not supported for type numeric",
    ),
    (
        "n",
        "'0.123456789012345678901'",
        "value \"0.123456789012345678901\" is not supported for type numeric without a declared scale",
    ),
    (
        "n",
        "'1e30'",
        "value \"1000000000000000000000000000000\" is not supported for type numeric without a declared scale",
    ),
    (
        "a",
        "'{{1,2},{3,4}}'",
        "arrays of more than one dimension are not supported",
    ),
    (
        "a",
        "'[0:2]={1,2,3}'",
        "arrays with the lower bound 0 are not supported",
    ),
    ("i", "'3000000 hours'", "out of range"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_held_is_an_error_until_it_is_mended_or_deleted_whatever_is_killed_in_between()
 {
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let upstream = postgres.connect().await.unwrap();
    let up = async |sql: &str| {
        upstream
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    };
    up("CREATE TABLE t (id int PRIMARY KEY, n numeric, a int[], i interval, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL; \
        CREATE TABLE other (id int PRIMARY KEY, v int); INSERT INTO other VALUES (1, 1); \
        CREATE TABLE f (n numeric); ALTER TABLE f REPLICA IDENTITY FULL; INSERT INTO f VALUES (1); \
        INSERT INTO t SELECT g, g, ARRAY[g], '1 day', repeat('x', 9000) FROM generate_series(1, 3) g").await;
    // Before the snapshot, one of each kind.
    for (number, (column, value, _)) in KINDS.iter().enumerate() {
        up(&format!(
            "INSERT INTO t (id, {column}) VALUES ({}, {value})",
            100 + number
        ))
        .await;
    }
    up("CREATE PUBLICATION p FOR ALL TABLES").await;
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE SECRET pgpass AS 'x'")
        .await
        .unwrap();
    client
        .batch_execute(&format!(
            "CREATE CONNECTION c TO POSTGRES (HOST '127.0.0.1', PORT {}, USER 'postgres', PASSWORD SECRET pgpass, DATABASE 'postgres')",
            postgres.port()
        ))
        .await
        .unwrap();
    client
        .batch_execute(
            "CREATE SOURCE s FROM POSTGRES CONNECTION c (PUBLICATION 'p') FOR ALL TABLES",
        )
        .await
        .unwrap();
    client
        .batch_execute("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS n FROM t; CREATE INDEX t_id ON t (id)")
        .await
        .unwrap();
    let sum = "SELECT c, n FROM total";
    let table = "SELECT id, n, cardinality(a), i, length(big) FROM t ORDER BY id";
    // They go one after another; each is named while it is the first.
    for (number, (column, _, part)) in KINDS.iter().enumerate() {
        let key = format!(
            "invalid data in column \"{column}\" of table \"public.t\", key (id)=({}): ",
            100 + number
        );
        let message = format!("22000: {key}");
        until_fails(&client, table, "22000: invalid data in column").await;
        let standing = format!(
            "SELECT count(*) FROM mz_internal.mz_source_statuses WHERE name = 't' AND status = 'running' AND (details->'row_errors'->>'count')::int = {}",
            KINDS.len() - number
        );
        until(&client, &standing, &["1"]).await;
        if number + 1 == KINDS.len() {
            until_fails(&client, table, &message).await;
            until_fails(&client, sum, part).await;
            until_fails(&client, "SELECT * FROM t WHERE id = 1", part).await;
        }
        // Also with nothing but the key of the deleted row.
        up(&match number % 2 {
            0 => format!("DELETE FROM t WHERE id = {}", 100 + number),
            _ => format!("UPDATE t SET {column} = NULL WHERE id = {}", 100 + number),
        })
        .await;
    }
    let mended: Vec<String> = rows(
        &upstream,
        "SELECT id, n, cardinality(a), i, length(big) FROM t ORDER BY id",
    )
    .await
    .unwrap();
    let mended: Vec<&str> = mended.iter().map(String::as_str).collect();
    until(&client, table, &mended).await;
    until(&client, sum, &["6|6"]).await;
    // In the stream; the node is killed with the error standing, right after it and some seconds later.
    for (number, (column, value, part)) in KINDS.iter().enumerate() {
        up(&format!("UPDATE t SET {column} = {value} WHERE id = 2")).await;
        until_fails(&client, table, part).await;
        until_fails(&client, sum, part).await;
        up(&format!("UPDATE other SET v = {number} WHERE id = 1")).await;
        until(
            &client,
            "SELECT v FROM other",
            &[number.to_string().as_str()],
        )
        .await;
        up("UPDATE t SET n = 2, a = '{2}', i = '1 day' WHERE id = 2").await;
        until(&client, table, &mended).await;
    }
    drop(client);
    for (number, wait_for_commit) in [(0, false), (1, true), (5, true)] {
        let (column, value, part) = KINDS[number];
        let client = node.connect().await.unwrap();
        up(&format!(
            "UPDATE t SET {column} = {value} WHERE id = 3; INSERT INTO f VALUES ('NaN'), ('NaN')"
        ))
        .await;
        until_fails(&client, table, part).await;
        until_fails(
            &client,
            "SELECT n FROM f",
            "column \"n\" of table \"public.f\": value \"NaN\"",
        )
        .await;
        if wait_for_commit {
            // The slot is acknowledged once what came before is in a commit point: then a restart does not see it again.
            let reached = rows(&upstream, "SELECT pg_current_wal_lsn()")
                .await
                .unwrap()
                .join("");
            up("SELECT pg_switch_wal()").await;
            let behind = format!(
                "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn >= '{reached}'"
            );
            until(&upstream, &behind, &["1"]).await;
        }
        drop(client);
        node.kill().unwrap();
        node.restart().await.unwrap();
        let client = node.connect().await.unwrap();
        // Never a moment in which they can be read.
        for sql in [table, sum, "SELECT * FROM t WHERE id = 1"] {
            let error = rows(&client, sql).await.expect_err(sql);
            assert!(error.contains(part), "{sql}: {error}");
        }
        up("DELETE FROM f WHERE ctid = (SELECT min(ctid) FROM f WHERE n = 'NaN')").await;
        up("UPDATE t SET n = 3, a = '{3}', i = '1 day' WHERE id = 3").await;
        until(&client, table, &mended).await;
        until(&client, sum, &["6|6"]).await;
        until_fails(&client, "SELECT n FROM f", "value \"NaN\"").await;
        up("UPDATE f SET n = 2 WHERE n = 'NaN'; DELETE FROM f WHERE n = 2").await;
        until(&client, "SELECT n FROM f", &["1"]).await;
    }
}
