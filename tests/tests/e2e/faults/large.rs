//! Values of 100 MB, and results beyond what a batch can hold.

use std::time::Duration;

use bytes::Bytes;
use flowstone_tests::{Node, NodeOptions};
use futures::{SinkExt, StreamExt, TryStreamExt};

use super::{failure, rows};

const LARGE: usize = 100_000_000;

/// What one statement about a value of 100 MB may take on a busy machine, without optimisation.
const LONG: Duration = Duration::from_secs(240);

/// Text that no compression makes small, and that is not the same twice.
fn large_text(seed: u64) -> String {
    let mut state = seed;
    let mut text = String::with_capacity(LARGE);
    while text.len() < LARGE {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{state:016x}"));
    }
    text.truncate(LARGE);
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_100_mb_goes_everywhere_a_small_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (id int, v text);
             CREATE INDEX t_id ON t (id);
             CREATE MATERIALIZED VIEW lengths AS SELECT id, length(v) AS n, md5(v) AS sum FROM t;
             CREATE MATERIALIZED VIEW longest AS SELECT max(v) AS v FROM t",
        )
        .await
        .unwrap();
    let subscriber = node.connect().await.unwrap();
    let changes = subscriber
        .query_raw("SUBSCRIBE t", std::iter::empty::<i32>())
        .await
        .unwrap();
    let mut changes = std::pin::pin!(changes);
    let work = async {
        // As a parameter, as a literal, and by COPY.
        let (first, second, third) = (large_text(1), large_text(2), large_text(3));
        client
            .execute("INSERT INTO t VALUES (1, $1)", &[&first])
            .await
            .unwrap();
        client
            .batch_execute(&format!("INSERT INTO t VALUES (2, '{second}')"))
            .await
            .unwrap();
        {
            let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
            let mut sink = std::pin::pin!(sink);
            sink.send(Bytes::from(format!("3\t{third}\n")))
                .await
                .unwrap();
            sink.close().await.unwrap();
        }
        let texts = [first, second, third];
        for expected in &texts {
            let change = changes.next().await.unwrap().unwrap();
            assert!(
                change.get::<_, &str>("v") == expected,
                "the subscriber's value"
            );
        }
        for (id, expected) in (1..).zip(&texts) {
            let row = client
                .query_one("SELECT v FROM t WHERE id = $1", &[&id])
                .await
                .unwrap();
            assert!(row.get::<_, &str>(0) == expected, "value {id}");
        }
        let longest: String = client
            .query_one("SELECT v FROM longest", &[])
            .await
            .unwrap()
            .get(0);
        assert!(Some(&longest) == texts.iter().max());
        let copied = client
            .copy_out("COPY (SELECT v FROM t WHERE id = 3) TO STDOUT")
            .await
            .unwrap();
        let copied: Vec<Bytes> = copied.try_collect().await.unwrap();
        assert_eq!(copied.iter().map(Bytes::len).sum::<usize>(), LARGE + 1);
        let lengths = rows(&client, "SELECT id, n FROM lengths ORDER BY id")
            .await
            .unwrap();
        assert_eq!(lengths, ["1|100000000", "2|100000000", "3|100000000"]);
        let sums = rows(&client, "SELECT sum FROM lengths ORDER BY id")
            .await
            .unwrap();
        client
            .batch_execute("UPDATE t SET v = 'short' WHERE id = 2")
            .await
            .unwrap();
        sums
    };
    let sums = tokio::time::timeout(LONG, work).await.unwrap();
    node.kill().unwrap();
    node.restart().await.unwrap();
    let client = node.connect().await.unwrap();
    let work = async {
        let lengths = rows(&client, "SELECT id, n FROM lengths ORDER BY id")
            .await
            .unwrap();
        assert_eq!(lengths, ["1|100000000", "2|5", "3|100000000"]);
        let now = rows(&client, "SELECT sum FROM lengths WHERE id <> 2 ORDER BY id")
            .await
            .unwrap();
        assert_eq!(now, [sums[0].clone(), sums[2].clone()]);
        client
            .batch_execute("DELETE FROM t WHERE id <> 2")
            .await
            .unwrap();
        assert_eq!(
            rows(&client, "SELECT v FROM longest").await.unwrap(),
            ["short"]
        );
    };
    tokio::time::timeout(LONG, work).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_a_batch_can_hold_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    // Less than what the statements below would make, so that none of them is carried out bit by bit.
    let options = NodeOptions {
        arguments: vec!["--query-memory-mib".to_owned(), "1024".to_owned()],
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir.path(), 1, options).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (id int, v text); CREATE TABLE seeds (id int); INSERT INTO seeds SELECT g FROM generate_series(1, 30) AS s (g)")
        .await
        .unwrap();
    for sql in [
        // One value, one row of several, and one statement of three gigabytes.
        "SELECT repeat('x', 2000000000) || repeat('y', 2000000000)",
        "SELECT string_agg(repeat(id::text, 100000000), ',') FROM seeds",
        "INSERT INTO t SELECT id, repeat('x', 100000000) FROM seeds",
    ] {
        let (code, message) = failure(&client, sql).await;
        assert!(
            ["54000", "53200"].contains(&code.as_str()),
            "{sql}: {code} {message}"
        );
    }
    assert_eq!(
        rows(&client, "SELECT count(*) FROM t").await.unwrap(),
        ["0"]
    );
    // A view takes its rows in smaller batches then: together the texts are 2.5 GB.
    client
        .batch_execute("CREATE MATERIALIZED VIEW lengths AS SELECT id, length(repeat(id::text, 50000000)) AS n FROM seeds")
        .await
        .unwrap();
    assert_eq!(
        rows(&client, "SELECT count(*), sum(n) FROM lengths")
            .await
            .unwrap(),
        ["30|2550000000"]
    );
}

/// Takes about ten times the memory and minutes without optimisation: `make large`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 10 GB"]
async fn more_text_in_one_insert_than_a_batch_holds_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (g int, x text);
             CREATE MATERIALIZED VIEW lengths AS SELECT length(x) AS n, count(*) AS c FROM t GROUP BY 1",
        )
        .await
        .unwrap();
    let insert = "INSERT INTO t SELECT g, repeat('x', 100000) FROM generate_series(1, 22000) g";
    let expected = match client.batch_execute(insert).await {
        Ok(()) => vec!["100000|22000".to_owned()],
        Err(error) => {
            let (code, message) = super::said(&error);
            assert!(
                ["54000", "53200"].contains(&code.as_str()),
                "{code} {message}"
            );
            Vec::new()
        }
    };
    for _ in 0..2 {
        let client = node.connect().await.unwrap();
        assert_eq!(
            rows(&client, "SELECT n, c FROM lengths").await.unwrap(),
            expected
        );
        node.kill().unwrap();
        node.restart().await.unwrap();
    }
}
