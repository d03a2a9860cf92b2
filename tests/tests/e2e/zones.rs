//! Time zones of sessions: what drivers send at start-up, what each protocol shows and reads, and what views keep of the session that made them.

use std::process::Command;

use flowstone_tests::Node;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::clients::python;

/// A connection that asks for a time zone as it starts.
async fn connect_in(node: &Node, zone: &str) -> Client {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(node.pg_port())
        .user("materialize")
        .dbname("materialize")
        .options(format!("-c timezone={zone}"));
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The cells of a result as text, rows and columns apart by blanks.
async fn shown(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).unwrap_or("NULL"))
                .collect::<Vec<_>>()
                .join(" | "),
        ),
        _ => None,
    });
    rows.collect::<Vec<_>>().join("; ")
}

const MIDSUMMER: &str = "SELECT '2024-07-01 12:00'::timestamptz AT TIME ZONE 'UTC', \
                         '2024-07-01 12:00+00'::timestamptz::text, '2024-07-01 12:00+00'::timestamptz";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_driver_asks_for_at_the_start_is_the_zone_of_everything() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = connect_in(&node, "Europe/Berlin").await;
    assert_eq!(
        shown(&client, MIDSUMMER).await,
        "2024-07-01 10:00:00 | 2024-07-01 14:00:00+02 | 2024-07-01 14:00:00+02"
    );
    client
        .batch_execute("CREATE TABLE t (id int, at timestamptz); CREATE INDEX t_at ON t (at)")
        .await
        .unwrap();
    // A parameter is read in the zone where it is text, and compared in it where it is a timestamp.
    let text: &(dyn ToSql + Sync) = &"2024-07-01 12:00";
    client
        .execute("INSERT INTO t VALUES (1, $1::text::timestamptz)", &[text])
        .await
        .unwrap();
    let statement = client
        .prepare("SELECT at::text FROM t WHERE at = $1::text::timestamptz")
        .await
        .unwrap();
    let lookup = "SELECT id FROM t WHERE at = '2024-07-01 12:00'";
    for (zone, found) in [
        ("Europe/Berlin", true),
        ("Asia/Tokyo", false),
        ("<+02>-2", true),
    ] {
        client
            .batch_execute(&format!("SET timezone = '{zone}'"))
            .await
            .unwrap();
        let rows = client.query(&statement, &[text]).await.unwrap();
        assert_eq!(rows.len(), usize::from(found), "{zone}");
        // Twice: the second time it is known to be a lookup.
        for _ in 0..2 {
            let rows = client.query(lookup, &[]).await.unwrap();
            assert_eq!(rows.len(), usize::from(found), "{zone}");
        }
    }
    let error = connect_failure(&node, "Mars/Base").await;
    assert_eq!(
        error,
        "22023: invalid value for parameter \"TimeZone\": \"Mars/Base\""
    );
}

async fn connect_failure(node: &Node, zone: &str) -> String {
    let config = format!(
        "host=127.0.0.1 port={} user=materialize dbname=materialize options='-c timezone={zone}'",
        node.pg_port()
    );
    match tokio_postgres::connect(&config, tokio_postgres::NoTls).await {
        Ok(_) => "connected".to_owned(),
        Err(error) => error.as_db_error().map_or_else(
            || error.to_string(),
            |error| format!("{}: {}", error.code().code(), error.message()),
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_and_copy_and_http_follow_the_zone() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let script = r#"
import sys, psycopg
from datetime import datetime, timezone
with psycopg.connect(host='127.0.0.1', port=sys.argv[1], user='materialize', dbname='materialize', autocommit=True) as c:
    assert c.info.parameter_status('TimeZone') == 'Europe/Berlin', c.info.parameter_status('TimeZone')
    c.execute("CREATE TABLE t (at timestamptz)")
    with c.cursor().copy("COPY t FROM STDIN") as copy:
        copy.write("2024-07-01 12:00\n2024-01-01 12:00+00\ninfinity\n")
    with c.cursor().copy("COPY (SELECT at FROM t ORDER BY at) TO STDOUT") as copy:
        text = b''.join(copy)
    assert text == b"2024-01-01 13:00:00+01\n2024-07-01 12:00:00+02\ninfinity\n", text
    summer = datetime(2024, 7, 1, 10, tzinfo=timezone.utc)
    rows = c.execute("SELECT at FROM t WHERE at < 'infinity' ORDER BY at").fetchall()
    assert rows[1][0] == summer and rows[1][0].hour == 12, rows
    for binary in (False, True):
        c.execute("SET timezone = 'Asia/Kolkata'")
        assert c.info.parameter_status('TimeZone') == 'Asia/Kolkata'
        row = c.execute("SELECT max(at), max(at)::text FROM t WHERE at < 'infinity'", binary=binary).fetchone()
        assert row == (summer, '2024-07-01 15:30:00+05:30'), row
        row = c.execute("SELECT %s::text, %s::date", (summer, summer), binary=binary).fetchone()
        assert row[0] == '2024-07-01 15:30:00+05:30', row
        c.execute("RESET timezone")
        assert c.info.parameter_status('TimeZone') == 'Europe/Berlin'
    with c.cursor(name='s') as cursor:
        pass
    try:
        c.execute("SET timezone = 'PST'")
        raise SystemExit('PST is no setting')
    except psycopg.errors.InvalidParameterValue as error:
        assert str(error) == 'invalid value for parameter "TimeZone": "PST"', error
"#;
    let output = Command::new(python())
        .args(["-c", script])
        .arg(node.pg_port().to_string())
        .env("PGTZ", "Europe/Berlin")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let answer = http(
        &node,
        r#"{"queries": [{"query": "SET timezone = 'Asia/Tokyo'"}, {"query": "SELECT max(at), $1::timestamptz FROM t WHERE at < 'infinity'", "params": ["2024-07-01 19:00"]}]}"#,
    );
    assert!(
        answer.contains(r#"[["2024-07-01 19:00:00+09","2024-07-01 19:00:00+09"]]"#),
        "{answer}"
    );
}

fn http(node: &Node, body: &str) -> String {
    let output = Command::new("curl")
        .args(["-s", "-H", "content-type: application/json", "-d", body])
        .arg(format!("http://127.0.0.1:{}/api/sql", node.http_port()))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What is maintained has the zone of the session that made it, whoever reads it and however often the node restarts; a plain view is in the zone of its
/// reader, but for the literals in its text.
#[tokio::test(flavor = "multi_thread")]
async fn maintained_views_keep_the_zone_of_the_session_that_made_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let tokyo = connect_in(&node, "Asia/Tokyo").await;
    tokyo
        .batch_execute(
            "CREATE TABLE t (id int, at timestamptz);
             CREATE VIEW late AS SELECT id, at::text AS at FROM t WHERE at >= '2024-07-01 00:00';
             CREATE MATERIALIZED VIEW days AS SELECT at::date AS day, count(*) AS n FROM t GROUP BY 1;
             CREATE MATERIALIZED VIEW texts AS SELECT id, at FROM late;
             CREATE INDEX t_day ON t (date_trunc('day', at));
             INSERT INTO t VALUES (1, '2024-07-01 00:00'), (2, '2024-06-30 23:59')",
        )
        .await
        .unwrap();
    let utc = node.connect().await.unwrap();
    // Made by a session in UTC, of a view that a session in Tokyo made.
    utc.batch_execute("CREATE MATERIALIZED VIEW utc_texts AS SELECT id, at FROM late")
        .await
        .unwrap();
    drop((tokyo, utc));
    for round in 0..3 {
        if round == 1 {
            node.kill().unwrap();
            node.restart().await.unwrap();
        }
        if round == 2 {
            // After a snapshot of the Raft state, or from the log: both know the zones.
            node.stop().await.unwrap();
            node.restart().await.unwrap();
        }
        for zone in ["UTC", "America/New_York", "Asia/Tokyo"] {
            let client = connect_in(&node, zone).await;
            let id = 10 + round * 10;
            let days = shown(&client, "SELECT day, n FROM days ORDER BY day").await;
            assert_eq!(days, "2024-06-30 | 1; 2024-07-01 | 1", "{zone} {id}");
            let texts = shown(&client, "SELECT * FROM texts").await;
            assert_eq!(texts, "1 | 2024-07-01 00:00:00+09", "{zone}");
            let texts = shown(&client, "SELECT * FROM utc_texts").await;
            assert_eq!(texts, "1 | 2024-06-30 15:00:00+00", "{zone}");
            let late = shown(&client, "SELECT * FROM late").await;
            let expected = match zone {
                "UTC" => "1 | 2024-06-30 15:00:00+00",
                "Asia/Tokyo" => "1 | 2024-07-01 00:00:00+09",
                _ => "1 | 2024-06-30 11:00:00-04",
            };
            assert_eq!(late, expected, "{zone}");
        }
        let client = node.connect().await.unwrap();
        client
            .batch_execute(
                "INSERT INTO t VALUES (3, '2024-06-30 15:30+00');
                 DELETE FROM t WHERE id = 3",
            )
            .await
            .unwrap();
    }
}
