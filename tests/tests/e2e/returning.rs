//! RETURNING through the extended protocol, in portals, under concurrency and where the write does not happen.

use std::collections::BTreeSet;

use flowstone_tests::Node;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Type;

use crate::wire::{RawClient, fields, tags};

/// The text of the command tags among messages.
fn completed(messages: &[(u8, Vec<u8>)]) -> Vec<String> {
    let tags = messages.iter().filter(|(tag, _)| *tag == b'C');
    tags.map(|(_, body)| {
        String::from_utf8_lossy(body)
            .trim_end_matches('\0')
            .to_owned()
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_described_and_give_their_rows() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let mut client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (id int, name text DEFAULT 'none', price numeric(6,2))")
        .await
        .unwrap();

    let insert = client
        .prepare("INSERT INTO t (id) VALUES ($1), ($2) RETURNING id + $3 AS sum, name, price")
        .await
        .unwrap();
    let names: Vec<_> = insert
        .columns()
        .iter()
        .map(|c| (c.name(), c.type_()))
        .collect();
    assert_eq!(
        names,
        [
            ("sum", &Type::INT4),
            ("name", &Type::TEXT),
            ("price", &Type::NUMERIC)
        ]
    );
    assert_eq!(insert.params(), [Type::INT4, Type::INT4, Type::INT4]);
    let rows = client
        .query(&insert, &[&1_i32, &2_i32, &10_i32])
        .await
        .unwrap();
    let sums: Vec<(i32, &str)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(sums, [(11, "none"), (12, "none")]);

    let row = client
        .query_one(
            "UPDATE t SET name = $1 WHERE id = $2 RETURNING id, name",
            &[&"new", &2_i32],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (2, "new"));
    let count = client
        .execute("DELETE FROM t WHERE id = $1 RETURNING name", &[&1_i32])
        .await
        .unwrap();
    assert_eq!(count, 1);

    // A portal that is fetched in pieces: all of it is written at the first.
    let transaction = client.transaction().await.unwrap();
    let portal = transaction
        .bind(
            "INSERT INTO t (id) SELECT * FROM generate_series(10, 14) RETURNING id",
            &[],
        )
        .await
        .unwrap();
    let mut fetched = Vec::new();
    for expected in [2, 2, 1] {
        let rows = transaction.query_portal(&portal, 2).await.unwrap();
        assert_eq!(rows.len(), expected);
        fetched.extend(rows.iter().map(|row| row.get::<_, i32>(0)));
    }
    assert_eq!(fetched, [10, 11, 12, 13, 14]);
    transaction.commit().await.unwrap();
    let kept: i64 = client
        .query_one("SELECT count(*) FROM t WHERE id >= 10", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(kept, 5);

    // What is said at the end is how many rows were written.
    let mut raw = RawClient::connect(&node).await;
    raw.query("INSERT INTO t (id) VALUES (20), (21) RETURNING id; UPDATE t SET name = 'x' WHERE id = 20 RETURNING 1; DELETE FROM t WHERE id >= 20 RETURNING id").await;
    let messages = raw.until_ready().await;
    assert_eq!(tags(&messages), "TDDCTDCTDDCZ");
    assert_eq!(completed(&messages), ["INSERT 0 2", "UPDATE 1", "DELETE 2"]);
    raw.query("BEGIN READ ONLY; INSERT INTO t VALUES (1) RETURNING id")
        .await;
    assert_eq!(fields(&raw.until_ready().await, b'E')[&'C'], "25006");
    raw.query("ROLLBACK").await;
    raw.until_ready().await;
    let messages = [
        (
            b'P',
            b"\0INSERT INTO t (id) VALUES (30), (31), (32) RETURNING id\0\0\0".to_vec(),
        ),
        (b'B', b"\0\0\0\0\0\0\0\0".to_vec()),
        (b'D', b"P\0".to_vec()),
        (b'E', b"\0\0\0\0\x02".to_vec()),
        (b'E', b"\0\0\0\0\x02".to_vec()),
        (b'S', Vec::new()),
    ];
    raw.send(&messages).await;
    let messages = raw.until_ready().await;
    assert_eq!(tags(&messages), "12TDDsDCZ");
    assert_eq!(completed(&messages), ["INSERT 0 3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_returned_is_what_was_written_however_many_write() {
    const SESSIONS: usize = 6;
    const ROUNDS: i32 = 20;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE counter (n int); INSERT INTO counter VALUES (0); CREATE TABLE taken (n int)")
        .await
        .unwrap();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let client = node.connect().await.unwrap();
        sessions.push(tokio::spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..ROUNDS {
                let row = client
                    .query_one("UPDATE counter SET n = n + 1 RETURNING n", &[])
                    .await
                    .unwrap();
                let number: i32 = row.get(0);
                let row = client
                    .query_one("INSERT INTO taken VALUES ($1) RETURNING n", &[&number])
                    .await
                    .unwrap();
                assert_eq!(row.get::<_, i32>(0), number);
                numbers.push(number);
            }
            numbers
        }));
    }
    let mut all = BTreeSet::new();
    for session in sessions {
        let numbers = session.await.unwrap();
        assert!(numbers.is_sorted(), "{numbers:?}");
        for number in numbers {
            assert!(all.insert(number), "{number} was given twice");
        }
    }
    let last = i32::try_from(SESSIONS).unwrap() * ROUNDS;
    assert_eq!(all, (1..=last).collect());
    let row = client
        .query_one(
            "SELECT (SELECT n FROM counter), count(*), count(DISTINCT n) FROM taken",
            &[],
        )
        .await
        .unwrap();
    let expected = i64::from(last);
    assert_eq!(
        (
            row.get::<_, i32>(0),
            row.get::<_, i64>(1),
            row.get::<_, i64>(2)
        ),
        (last, expected, expected)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_rows_cannot_be_given_does_not_happen() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (id int, filling text); CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t")
        .await
        .unwrap();
    for (sql, code) in [
        (
            "INSERT INTO t SELECT g FROM generate_series(0, 20000) s (g) RETURNING 1 / (20000 - id)",
            "22012",
        ),
        // More than a session may hold.
        (
            "INSERT INTO t SELECT g FROM generate_series(1, 1000) s (g) RETURNING repeat('x', 4000000 + id)",
            "53200",
        ),
    ] {
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.as_db_error().unwrap().code().code(), code, "{sql}");
    }
    let many = client
        .simple_query(
            "INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50000) s (g) RETURNING id",
        )
        .await
        .unwrap();
    let rows = many
        .iter()
        .filter(|message| matches!(message, SimpleQueryMessage::Row(_)));
    assert_eq!(rows.count(), 50_000);
    for relation in ["SELECT count(*) FROM t", "SELECT n FROM v"] {
        let rows: i64 = client.query_one(relation, &[]).await.unwrap().get(0);
        assert_eq!(rows, 50_000, "{relation}");
    }
}
