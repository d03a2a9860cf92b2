//! Wrong SQL, wrong types, values out of range, statements beyond all measure: one error each, and the connection, the node and its views go on.

use flowstone_tests::Node;
use futures::StreamExt;

use super::super::wire::RawClient;
use super::{DEADLINE, failure, rows, said};

/// Statements that are wrong, each with its SQLSTATE and a part of its message.
const WRONG: &[(&str, &str, &str)] = &[
    ("SELEC 1", "42601", "syntax error at or near \"SELEC\""),
    ("SELECT (1", "42601", "syntax error"),
    ("SELECT 'abc", "42601", ""),
    ("SELECT * FROM nowhere", "42P01", "nowhere"),
    ("SELECT nothing FROM t", "42703", "nothing"),
    ("SELECT nothing(1)", "42883", "nothing"),
    ("SELECT a + true FROM t", "42883", ""),
    ("SELECT 'x'::int", "22P02", "\"x\""),
    ("SELECT 1::uuid", "42", ""),
    ("INSERT INTO t VALUES ('x', 'y')", "22P02", "\"x\""),
    ("INSERT INTO t VALUES (1, 'y', 3)", "42601", ""),
    ("INSERT INTO t (a, a) VALUES (1, 2)", "42701", ""),
    ("SELECT 1 / 0", "22012", "division by zero"),
    ("SELECT 5 % 0", "22012", "division by zero"),
    ("SELECT 1.5 / 0.0", "22012", "division by zero"),
    (
        "SELECT 32767::smallint + 1::smallint",
        "22003",
        "smallint out of range",
    ),
    ("SELECT 2147483647 + 1", "22003", "integer out of range"),
    (
        "SELECT 9223372036854775807 + 1",
        "22003",
        "bigint out of range",
    ),
    (
        "SELECT (-9223372036854775808) / (-1)",
        "22003",
        "bigint out of range",
    ),
    (
        "SELECT abs((-2147483648)::int)",
        "22003",
        "integer out of range",
    ),
    ("SELECT 99999999999::int", "22003", "integer out of range"),
    ("SELECT 1e400::float8", "22003", ""),
    ("SELECT 1e300::float8 * 1e300::float8", "22003", ""),
    ("SELECT 1e39::numeric(38,0)", "22003", ""),
    (
        "SELECT 99999999999999999999999999999999999999::numeric(38,0) * 99999999999999999999999999999999999999::numeric(38,0)",
        "0A000",
        "numeric result has more digits than are supported",
    ),
    ("SELECT 'infinity'::float8::numeric(10,2)", "22003", ""),
    ("SELECT '2026-02-30'::date", "22008", ""),
    ("SELECT 'notadate'::date", "22007", ""),
    ("SELECT '{\"a\":'::jsonb", "22P02", "json"),
    ("SELECT '\\ud800'::jsonb", "22P02", "json"),
    (
        "SELECT repeat('x', 2000000000)",
        "54000",
        "requested length too large",
    ),
    ("SELECT 'a' ~ '('", "2201B", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_gets_wrong_costs_it_one_error() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'one')")
        .await
        .unwrap();
    let mut unexpected = Vec::new();
    for (sql, code, message) in WRONG {
        let (found, text) = failure(&client, sql).await;
        if !found.starts_with(code)
            || !text.contains(message)
            || found == "XX000"
            || found.is_empty()
        {
            unexpected.push(format!("{sql}: {found} {text}"));
        }
        // In a block it fails the block, and only that.
        client.batch_execute("BEGIN").await.unwrap();
        failure(&client, sql).await;
        let (after, _) = failure(&client, "SELECT 1").await;
        assert_eq!(after, "25P02", "{sql}");
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(
            rows(&client, "SELECT a FROM t").await.unwrap(),
            ["1"],
            "{sql}"
        );
    }
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

/// `before` and `after` around `middle`, `depth` times.
fn nested(before: &str, middle: &str, after: &str, depth: usize) -> String {
    [&before.repeat(depth), middle, &after.repeat(depth)].concat()
}

/// Expressions that nest, as deep as asked for.
fn deep(depth: usize) -> Vec<String> {
    let list: Vec<String> = (0..depth).map(|number| number.to_string()).collect();
    vec![
        nested("(", "a", ")", depth),
        vec!["a"; depth].join(" + "),
        vec!["a > 1"; depth].join(" AND "),
        vec!["a > 1"; depth].join(" OR "),
        nested("NOT ", "true", "", depth),
        nested("- ", "a", "", depth),
        nested("CASE WHEN a > 1 THEN ", "a", " END", depth),
        // Not ended: the parser tries in vain.
        nested("CASE WHEN ", "a", "", depth),
        nested("(SELECT ", "a", ")", depth),
        nested("abs(", "a", ")", depth),
        nested("coalesce(a, ", "a", ")", depth),
        nested("ARRAY[", "a", "]", depth),
        nested("", "a", "::int", depth),
        format!("a IN ({})", list.join(", ")),
        format!("'{}'::jsonb", nested("[", "", "]", depth)),
        format!("'{}'::jsonb", nested("{\"a\":", "1", "}", depth)),
        format!(
            "'{}' ~ '{}'",
            "a".repeat(depth),
            nested("(", "a", ")*", depth.min(1000))
        ),
        format!("'x' LIKE '{}'", "%_".repeat(depth)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_beyond_all_measure_are_refused_and_nobody_else_notices() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    let other = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let mut unexpected = Vec::new();
    let mut views = 0;
    for depth in [10, 40, 1000, 30_000] {
        for expression in deep(depth) {
            let shown: String = expression.chars().take(40).collect();
            let mut statements = vec![format!("SELECT {expression} FROM t")];
            // What is deeper than this is refused before it matters what it is for.
            if depth < 100 {
                statements.push(format!(
                    "CREATE MATERIALIZED VIEW v{views} AS SELECT {expression} AS c FROM t"
                ));
                statements.push(format!(
                    "SUBSCRIBE (SELECT {expression} AS c FROM t) UP TO 1"
                ));
            }
            for sql in &statements {
                let outcome = tokio::time::timeout(DEADLINE, client.simple_query(sql)).await;
                let outcome =
                    outcome.unwrap_or_else(|_| panic!("{depth} times {shown} takes too long"));
                if let Err(error) = outcome {
                    let (code, message) = said(&error);
                    if code == "XX000" || code.is_empty() || (depth <= 10 && code.starts_with("54"))
                    {
                        unexpected.push(format!("{depth} times {shown}: {code} {message}"));
                    }
                } else if sql.starts_with("CREATE") {
                    views += 1;
                }
                assert!(!client.is_closed(), "{depth} times {shown}");
                assert_eq!(rows(&other, "SELECT 1").await.unwrap(), ["1"], "{shown}");
            }
        }
    }
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    // What was accepted is maintained, and comes back.
    assert!(views > 10, "{views} views");
    client
        .batch_execute("INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    let before = rows(
        &client,
        "SELECT name FROM mz_materialized_views ORDER BY name",
    )
    .await
    .unwrap();
    node.kill().unwrap();
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    let after = rows(
        &client,
        "SELECT name FROM mz_materialized_views ORDER BY name",
    )
    .await
    .unwrap();
    assert_eq!(after, before);
    assert_eq!(
        rows(&client, "SELECT count(*) FROM t").await.unwrap(),
        ["2"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_one_row_ends_subscriptions_survives_a_crash_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (id int, a int, b int);
             CREATE MATERIALIZED VIEW quotients AS SELECT id, a / b AS q FROM t;
             CREATE MATERIALIZED VIEW above AS SELECT sum(q) AS total FROM quotients;
             CREATE MATERIALIZED VIEW beside AS SELECT sum(a) AS total FROM t;
             INSERT INTO t SELECT g, g * 2, 2 FROM generate_series(1, 100) AS s (g)",
        )
        .await
        .unwrap();
    let subscriber = node.connect().await.unwrap();
    let changes = subscriber
        .query_raw("SUBSCRIBE quotients", std::iter::empty::<i32>())
        .await
        .unwrap();
    let mut changes = std::pin::pin!(changes);
    changes.next().await.unwrap().unwrap();
    client
        .batch_execute("INSERT INTO t VALUES (101, 7, 0), (102, 8, 2)")
        .await
        .unwrap();
    let broken = async {
        loop {
            if let Err(error) = changes.next().await.expect("an error comes first") {
                return said(&error);
            }
        }
    };
    let (code, message) = tokio::time::timeout(DEADLINE, broken).await.unwrap();
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("22012", "division by zero")
    );
    for _ in 0..2 {
        let client = node.connect().await.unwrap();
        for sql in ["SELECT * FROM quotients", "SELECT * FROM above"] {
            assert_eq!(failure(&client, sql).await.0, "22012", "{sql}");
        }
        assert_eq!(
            rows(&client, "SELECT * FROM beside").await.unwrap(),
            ["10115"]
        );
        node.kill().unwrap();
        node.restart().await.unwrap();
    }
    let client = node.connect().await.unwrap();
    client
        .batch_execute("UPDATE t SET b = 7 WHERE b = 0")
        .await
        .unwrap();
    assert_eq!(
        rows(&client, "SELECT * FROM above").await.unwrap(),
        ["5055"]
    );
    assert_eq!(
        rows(&client, "SELECT count(*) FROM quotients")
            .await
            .unwrap(),
        ["102"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_make_no_sense_end_their_connection_only() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int)")
        .await
        .unwrap();
    let nonsense: [&[u8]; 8] = [
        // An unknown message; lengths that are negative, too short, and a gigabyte more than what comes.
        b"!\0\0\0\x04",
        b"Q\xff\xff\xff\xff",
        b"Q\0\0\0\x03",
        b"Q\x3f\xff\xff\xffSELECT",
        // Text without end; counts beyond the message; a format that does not exist.
        b"Q\0\0\0\x0aSELECT",
        b"P\0\0\0\x0c\0S 1\0\x7f\xff",
        b"B\0\0\0\x0e\0\0\x7f\xff\x7f\xff\x7f\xff",
        b"B\0\0\0\x10\0\0\0\x01\0\x63\0\0\0\0",
    ];
    for bytes in nonsense {
        let mut raw = RawClient::connect(&node).await;
        raw.send_bytes(bytes).await;
        raw.end().await;
        assert_eq!(rows(&client, "SELECT 1").await.unwrap(), ["1"]);
    }
    // Bytes that are no text are an error of their statement.
    let mut raw = RawClient::connect(&node).await;
    raw.send(&[(b'Q', b"SELECT '\xff\xfe'\0".to_vec())]).await;
    raw.end().await;
    assert_eq!(
        rows(&client, "SELECT count(*) FROM t").await.unwrap(),
        ["0"]
    );
}
