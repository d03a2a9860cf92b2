//! Odd statements: whatever is asked, no answer is `XX000`, and the node goes on.
//!
//! Owns the statements: contexts with values of every type in them, most of which make no sense. What the answers are is tested elsewhere.
//! A run takes a sample, the same each time; `FLOWSTONE_ODD=all` takes all, `FLOWSTONE_SEED` another sample.

use flowstone_tests::Node;
use flowstone_tests::answer::{Answer, ask, connect};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One of so many statements is tried.
const SAMPLED: u32 = 8;

const SCHEMA: [&str; 2] = [
    "CREATE TABLE t (i int, b bigint, s smallint, n numeric(8,2), f float8, v text, o bool, d date, ts timestamp, iv interval, j jsonb, u uuid, a int[], y bytea, c char(3))",
    r#"INSERT INTO t VALUES
        (1, 2, 3, 4.5, 5.5, 'x', true, '2020-01-01', '2020-01-01', '1 day', '{"a":1}', '00000000-0000-0000-0000-000000000001', '{1,2}', '\x01', 'ab'),
        (2147483647, 9223372036854775807, 32767, 1, 'nan', '', false, '2020-01-02', '2020-01-02', '1 mon', '[1]', '00000000-0000-0000-0000-000000000002', '{}', '\x', 'c'),
        (null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)"#,
];

const VALUES: &[&str] = &[
    "i",
    "b",
    "s",
    "n",
    "f",
    "v",
    "o",
    "d",
    "ts",
    "iv",
    "j",
    "u",
    "a",
    "y",
    "c",
    "NULL",
    "'x'",
    "1",
    "-1",
    "ROW(i, v)",
    "ROW()",
    "(i, b)",
    "t",
    "ROW(1)",
    "ARRAY[ROW(i, v)]",
    "ARRAY[a, a]",
    "ARRAY[]::int[]",
    "t.*",
];

const CONTEXTS: &[&str] = &[
    "SELECT {x} FROM t",
    "SELECT count({x}), count(DISTINCT {x}) FROM t",
    "SELECT max({x}) FROM t",
    "SELECT min({x}) FROM t",
    "SELECT sum({x}) FROM t",
    "SELECT avg({x}) FROM t",
    "SELECT array_agg({x}) FROM t",
    "SELECT string_agg({x}, ',') FROM t",
    "SELECT bool_or({x}) FROM t",
    "SELECT DISTINCT {x} FROM t",
    "SELECT DISTINCT ON ({x}) i FROM t",
    "SELECT {x}, count(*) FROM t GROUP BY 1",
    "SELECT 1 FROM t GROUP BY {x}",
    "SELECT 1 FROM t ORDER BY {x} DESC NULLS FIRST LIMIT 1",
    "SELECT i FROM t WHERE {x} IS NULL",
    "SELECT i FROM t WHERE {x} = {x}",
    "SELECT i FROM t WHERE {x} < {x}",
    "SELECT i FROM t WHERE {x} IN ({x}, NULL)",
    "SELECT i FROM t WHERE {x} IN (SELECT {x} FROM t)",
    "SELECT i FROM t WHERE {x} NOT IN (SELECT {x} FROM t)",
    "SELECT i FROM t WHERE {x}",
    "SELECT i FROM t GROUP BY i HAVING {x}",
    "SELECT coalesce({x}, {x}), nullif({x}, {x}) FROM t",
    "SELECT greatest({x}, {x}) FROM t",
    "SELECT CASE WHEN o THEN {x} END FROM t",
    "SELECT {x}::text FROM t",
    "SELECT {x}::int FROM t",
    "SELECT {x} || {x} FROM t",
    "SELECT {x} + {x} FROM t",
    "SELECT - {x} FROM t",
    "SELECT NOT {x} FROM t",
    "SELECT to_jsonb({x}) FROM t",
    "SELECT jsonb_agg({x}) FROM t",
    "SELECT {x} FROM t UNION SELECT {x} FROM t",
    "SELECT {x} FROM t EXCEPT ALL SELECT {x} FROM t",
    "SELECT first_value({x}) OVER (ORDER BY i), lag({x}) OVER (ORDER BY i) FROM t",
    "SELECT max({x}) OVER (ORDER BY i) FROM t",
    "SELECT sum({x}) OVER (ORDER BY i ROWS 1 PRECEDING) FROM t",
    "SELECT row_number() OVER (ORDER BY {x}) FROM t",
    "SELECT sum(i) OVER (PARTITION BY {x}) FROM t",
    "SELECT (SELECT {x} FROM t LIMIT 1)",
    "SELECT (SELECT max({x}) FROM t u WHERE u.i = t.i) FROM t",
    "SELECT ARRAY(SELECT {x} FROM t)",
    "SELECT ARRAY[{x}] FROM t",
    "SELECT * FROM (VALUES ({x})) z",
    "SELECT x FROM t, LATERAL (SELECT {x} AS x) z",
    "SELECT pg_typeof({x}) FROM t",
    "SELECT {x} IS DISTINCT FROM {x} FROM t",
    "SELECT {x} LIKE {x} FROM t",
    "SELECT ({x}).f1 FROM t",
    "SELECT {x} BETWEEN {x} AND {x} FROM t",
    "SELECT abs({x}), round({x}) FROM t",
    "SELECT length({x}) FROM t",
    "SELECT {x} = ANY({x}) FROM t",
    "SELECT unnest({x}) FROM t",
    "SELECT 1 FROM t LIMIT {x}",
    "SELECT 1 FROM t OFFSET {x}",
    "SELECT format('%s', {x}), concat({x}, {x}) FROM t",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY {x}) FROM t",
    "SELECT {x} INTO z FROM t",
    "SELECT 1 FROM t JOIN t w USING ({x})",
    "INSERT INTO t (i) SELECT {x} FROM t",
    "CREATE MATERIALIZED VIEW m AS SELECT {x} AS x FROM t",
    "CREATE MATERIALIZED VIEW m AS SELECT max({x}) AS x FROM t",
    "CREATE MATERIALIZED VIEW m AS SELECT DISTINCT {x} AS x FROM t",
];

const BOUNDS: &[&str] = &[
    "UNBOUNDED PRECEDING",
    "1 PRECEDING",
    "0 PRECEDING",
    "CURRENT ROW",
    "1 FOLLOWING",
    "UNBOUNDED FOLLOWING",
    "-1 PRECEDING",
    "9223372036854775807 FOLLOWING",
    "9223372036854775807 PRECEDING",
    "NULL PRECEDING",
    "99999999999999999999 FOLLOWING",
    "1.5 PRECEDING",
    "'1 day' PRECEDING",
    "i PRECEDING",
    "INTERVAL '1 day' PRECEDING",
    "(1 + 1) FOLLOWING",
];

const ORDERS: &[&str] = &[
    "", "i", "b DESC", "v", "n", "ts", "f", "i, b", "s", "d", "j", "iv", "u", "y", "a",
];

const ROW_COUNTS: &[&str] = &[
    "-1",
    "0",
    "NULL",
    "9223372036854775807",
    "9223372036854775808",
    "1.5",
    "'1'",
    "'x'",
    "1 + 1",
    "(SELECT 1)",
    "(SELECT -1)",
    "ALL",
    "-9223372036854775808",
    "i",
    "true",
    "count(*)",
    "(SELECT NULL)",
    "(SELECT i FROM t)",
];

fn statements() -> Vec<String> {
    let mut statements: Vec<String> = Vec::new();
    for context in CONTEXTS {
        statements.extend(VALUES.iter().map(|value| context.replace("{x}", value)));
    }
    for units in ["ROWS", "RANGE", "GROUPS"] {
        for order in ORDERS {
            let order = if order.is_empty() {
                String::new()
            } else {
                format!("ORDER BY {order}")
            };
            for start in BOUNDS {
                statements.push(format!(
                    "SELECT sum(i) OVER ({order} {units} {start}) FROM t"
                ));
                for end in BOUNDS {
                    statements.push(format!(
                        "SELECT max(b) OVER ({order} {units} BETWEEN {start} AND {end}) FROM t"
                    ));
                }
            }
        }
    }
    for count in ROW_COUNTS {
        for query in [
            "SELECT i FROM t LIMIT {n}",
            "SELECT i FROM t OFFSET {n}",
            "SELECT i FROM t ORDER BY i LIMIT {n} OFFSET {n}",
            "SELECT (SELECT i FROM t LIMIT {n})",
            "SELECT i FROM t WHERE i IN (SELECT i FROM t LIMIT {n})",
            "SELECT (SELECT w.i FROM t w WHERE w.v = t.v LIMIT {n}) FROM t",
        ] {
            statements.push(query.replace("{n}", count));
        }
    }
    statements
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_is_answered_with_an_internal_error() {
    let all = std::env::var("FLOWSTONE_ODD").is_ok_and(|value| value == "all");
    let seed = std::env::var("FLOWSTONE_SEED").map_or(1, |text| text.parse().unwrap());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = connect(node.pg_port(), "materialize", "materialize")
        .await
        .unwrap();
    for statement in SCHEMA {
        assert!(
            matches!(ask(&client, statement).await, Answer::Rows(_)),
            "{statement}"
        );
    }
    let mut failures = Vec::new();
    let (mut tried, mut answered) = (0, 0);
    for statement in statements() {
        if !all && !random.random_ratio(1, SAMPLED) {
            continue;
        }
        tried += 1;
        match ask(&client, &statement).await {
            Answer::Rows(_) => {
                answered += 1;
                if statement.starts_with("CREATE") {
                    ask(&client, "DROP MATERIALIZED VIEW m").await;
                }
            }
            Answer::Error { code, message }
                if ["XX000", "connection", "timeout"].contains(&code.as_str()) =>
            {
                failures.push(format!("{statement}\n  {code}: {message}"));
            }
            Answer::Error { .. } => {}
        }
        assert!(
            !client.is_closed(),
            "the connection is gone after {statement}"
        );
    }
    eprintln!("{tried} tried, {answered} with rows");
    for failure in &failures {
        eprintln!("{failure}\n");
    }
    assert!(
        failures.is_empty(),
        "{} internal errors, printed above",
        failures.len()
    );
    assert!(answered > tried / 10, "too few statements make sense");
}
