//! What sessions hold: data on its way in and out, whatever its size, is bounded, and keeps nobody else waiting.

use std::time::Duration;

use flowstone_tests::{Node, NodeOptions, text};
use tokio::task::JoinSet;

use crate::wire::{RawClient, fields, resident_bytes, tags};

/// What one statement about a long value may take on a busy machine, without optimisation.
const LONG: Duration = Duration::from_secs(120);

const MIB: usize = 1 << 20;

async fn node_with(dir: &tempfile::TempDir, arguments: &[&str]) -> Node {
    let options = NodeOptions {
        arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
        ..NodeOptions::default()
    };
    Node::start_with(dir.path(), 1, options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lines_of_copy_keep_nobody_waiting() {
    const LINE: usize = 24 * MIB;
    const PIECE: usize = 8 << 10;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let other = node.connect().await.unwrap();
    other
        .batch_execute("CREATE TABLE t (format text, v text)")
        .await
        .unwrap();
    // One more than there are threads to keep busy.
    let writers = std::thread::available_parallelism().map_or(2, usize::from) + 1;
    let mut copies = JoinSet::new();
    let (all_sent, mut sent) = tokio::sync::mpsc::channel(writers);
    let (go_on, _) = tokio::sync::broadcast::channel::<()>(1);
    for (format, start, end) in ["csv", "text"].iter().cycle().take(writers).map(|format| {
        let quoted = if *format == "csv" { "\"" } else { "" };
        let comma = if *format == "csv" { "," } else { "\t" };
        (
            *format,
            format!("{format}{comma}{quoted}"),
            format!("{quoted}\n"),
        )
    }) {
        let mut raw = RawClient::connect(&node).await;
        raw.query(&format!("COPY t FROM STDIN (FORMAT {format})"))
            .await;
        assert_eq!(raw.receive().await.0, b'G');
        let (all_sent, mut may_end) = (all_sent.clone(), go_on.subscribe());
        copies.spawn(async move {
            raw.send(&[(b'd', start.into_bytes())]).await;
            let piece = [(b'd', vec![b'x'; PIECE])];
            for _ in 0..LINE / PIECE {
                raw.send(&piece).await;
            }
            all_sent.send(()).await.unwrap();
            may_end.recv().await.unwrap();
            raw.send(&[(b'd', end.into_bytes()), (b'c', Vec::new())])
                .await;
            assert_eq!(tags(&raw.until_ready().await), "CZ");
        });
    }
    let serve = async {
        // While the lines come, others are served.
        let mut served = 0;
        let mut complete = 0;
        while complete < writers {
            tokio::select! {
                biased;
                Some(()) = sent.recv() => complete += 1,
                rows = text::rows(&other, "SELECT count(*) FROM t") => {
                    assert_eq!(rows.unwrap(), ["0"]);
                    served += 1;
                }
            }
        }
        served
    };
    let served = tokio::time::timeout(LONG, serve).await.unwrap();
    assert!(served > 10, "{served} statements while lines were read");
    go_on.send(()).unwrap();
    tokio::time::timeout(LONG, copies.join_all()).await.unwrap();
    let lengths = "SELECT count(*), min(length(v)), max(length(v)) FROM t";
    assert_eq!(
        text::rows(&other, lengths).await.unwrap(),
        [format!("{writers}|{LINE}|{LINE}")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_not_finished_fail_their_own_session_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with(&dir, &["--session-memory-mib", "64"]).await;
    let other = node.connect().await.unwrap();
    let before = resident_bytes(&node);
    // Announced: a gigabyte. Each sends what one session may hold, and a bit.
    let mut dribbling = Vec::new();
    for _ in 0..4 {
        let mut raw = RawClient::connect(&node).await;
        raw.send_bytes(b"Q\x3f\xff\xff\xfe").await;
        for _ in 0..40 {
            raw.send_bytes(&vec![b' '; MIB]).await;
        }
        dribbling.push(raw);
    }
    let held = resident_bytes(&node).saturating_sub(before);
    assert!(
        held < 160 << 20,
        "the node holds {held} bytes more, for 160 MiB that were sent"
    );
    assert_eq!(text::rows(&other, "SELECT 1").await.unwrap(), ["1"]);
    drop(dribbling);

    // One that ends is answered, and its session goes on.
    let mut raw = RawClient::connect(&node).await;
    raw.query(&format!("SELECT 1 {}", " ".repeat(40 * MIB)))
        .await;
    let messages = raw.until_ready().await;
    assert_eq!(tags(&messages), "EZ");
    let error = fields(&messages, b'E');
    assert_eq!(
        (error[&'C'].as_str(), error[&'M'].as_str()),
        ("53200", "out of memory")
    );
    assert!(error[&'H'].contains("session_memory_mib"), "{error:?}");
    raw.query("SELECT 1").await;
    assert_eq!(tags(&raw.until_ready().await), "TDCZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_keeps_is_bounded_in_every_way() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with(&dir, &["--session-memory-mib", "64"]).await;
    let other = node.connect().await.unwrap();
    other
        .batch_execute("CREATE TABLE t (a int, v text)")
        .await
        .unwrap();
    let line = format!("1\t{}\n", "x".repeat(MIB - 3));
    let refused = |messages: &[(u8, Vec<u8>)]| {
        let error = fields(messages, b'E');
        assert_eq!(error[&'C'], "53200", "{error:?}");
    };

    // The data of a COPY, in one line and in many.
    for newlines in [true, false] {
        let mut raw = RawClient::connect(&node).await;
        raw.query("COPY t FROM STDIN").await;
        assert_eq!(raw.receive().await.0, b'G');
        let piece = if newlines {
            line.clone()
        } else {
            "x".repeat(MIB)
        };
        for _ in 0..48 {
            raw.send(&[(b'd', piece.clone().into_bytes())]).await;
        }
        raw.send(&[(b'c', Vec::new())]).await;
        refused(&raw.until_ready().await);
        raw.query("SELECT count(*) FROM t").await;
        let messages = raw.until_ready().await;
        assert_eq!(
            (tags(&messages).as_str(), &messages[1].1),
            ("TDCZ", &b"\0\x01\0\0\0\x010".to_vec())
        );
    }

    // Writes of an open transaction.
    let mut raw = RawClient::connect(&node).await;
    raw.query("BEGIN").await;
    raw.until_ready().await;
    let insert = format!("INSERT INTO t VALUES (1, '{}')", "x".repeat(4 * MIB));
    let mut outcome = Vec::new();
    for _ in 0..10 {
        raw.query(&insert).await;
        outcome = raw.until_ready().await;
        if tags(&outcome) == "EZ" {
            break;
        }
    }
    refused(&outcome);
    raw.query("ROLLBACK").await;
    assert_eq!(tags(&raw.until_ready().await), "CZ");

    // Prepared statements.
    let mut raw = RawClient::connect(&node).await;
    let text = format!("SELECT 1 {}", " ".repeat(MIB));
    let mut kept = 0;
    let outcome = loop {
        let mut parse = format!("s{kept}").into_bytes();
        parse.extend([0]);
        parse.extend(text.as_bytes());
        parse.extend([0, 0, 0]);
        raw.send(&[(b'P', parse), (b'S', Vec::new())]).await;
        let outcome = raw.until_ready().await;
        if tags(&outcome) != "1Z" {
            break outcome;
        }
        kept += 1;
        assert!(kept < 64, "{kept} statements of a megabyte are kept");
    };
    refused(&outcome);
    assert!(kept > 4, "{kept}");
    raw.query("DEALLOCATE ALL; SELECT 1").await;
    assert_eq!(tags(&raw.until_ready().await), "CTDCZ");

    // Nobody else has noticed, and all of it is given back.
    let copied = "1\tx\n".repeat(100);
    raw.query("COPY t FROM STDIN").await;
    assert_eq!(raw.receive().await.0, b'G');
    raw.send(&[(b'd', copied.into_bytes()), (b'c', Vec::new())])
        .await;
    assert_eq!(tags(&raw.until_ready().await), "CZ");
    assert_eq!(
        text::rows(&other, "SELECT count(*) FROM t").await.unwrap(),
        ["100"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_many_pieces_is_one_write() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (a int NOT NULL, at timestamptz DEFAULT now(), v text DEFAULT 'x');
             CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n, count(DISTINCT at) AS times FROM t",
        )
        .await
        .unwrap();
    let lines: String = (0..100_000)
        .map(|a| format!("{a}\t{}\n", "y".repeat(300)))
        .collect();
    for (ending, expected) in [("\\N\tz\n", "EZ"), ("", "CZ")] {
        let mut raw = RawClient::connect(&node).await;
        raw.query("COPY t (a, v) FROM STDIN").await;
        assert_eq!(raw.receive().await.0, b'G');
        for piece in lines.as_bytes().chunks(100_000) {
            raw.send(&[(b'd', piece.to_vec())]).await;
        }
        let rows = "SELECT n FROM n UNION ALL SELECT count(*) FROM t";
        assert_eq!(text::rows(&client, rows).await.unwrap(), ["0", "0"]);
        raw.send(&[(b'd', ending.as_bytes().to_vec()), (b'c', Vec::new())])
            .await;
        let messages = raw.until_ready().await;
        assert_eq!(tags(&messages), expected);
        if expected == "EZ" {
            assert_eq!(fields(&messages, b'E')[&'C'], "23502");
        }
    }
    let rows = text::rows(&client, "SELECT n, times FROM n").await.unwrap();
    assert_eq!(rows, ["100000|1"]);
}
