//! The PostgreSQL protocol from the client's side: types in both formats, portals, cancel, pipelines, COPY, clients that go away.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;

use bytes::BytesMut;
use flowstone_tests::{Node, NodeOptions, Postgres, text, wait};
use futures::{SinkExt, StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type};
use tokio_postgres::{Client, NoTls};

const DEADLINE: Duration = Duration::from_secs(60);

/// Tables for queries over their product.
const NUMBERS: &str = "CREATE TABLE numbers (x int); INSERT INTO numbers SELECT g FROM generate_series(1, 5000) AS s (g)";

/// A query of more rows than anyone can wait for, in little memory.
const ENDLESS: &str = "SELECT count(*) FROM numbers a CROSS JOIN (numbers b CROSS JOIN (numbers c CROSS JOIN numbers d)) WHERE (a.x + b.x + c.x + d.x) % 1000 = 1";

/// A result of five gigabytes, were it ever collected.
const BIG: &str = "SELECT a.x, repeat('x', 200) AS filling FROM numbers a, numbers b";

/// A value as its bytes, whatever its type.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Raw {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

/// A parameter sent as text, whatever its type.
#[derive(Debug)]
struct Text(&'static str);

impl ToSql for Text {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// Types with values in the spelling that both systems show them in.
const VALUES: &[(&str, &[&str])] = &[
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "0", "32767"]),
    ("integer", &["-2147483648", "7"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("real", &["1.5", "-0.25", "NaN", "Infinity"]),
    ("double precision", &["1.5", "1e+300", "-Infinity"]),
    ("numeric", &["0", "-1.1", "0.000012", "10000"]),
    ("numeric(12,3)", &["12.345", "-0.001", "100000.000"]),
    ("text", &["", "häh'\"\\", "日本"]),
    ("varchar(5)", &["abc", ""]),
    ("char(3)", &["a  "]),
    ("bytea", &["\\x", "\\x00ff10"]),
    (
        "jsonb",
        &[
            "{\"a\": [1, 2.5, null, \"x\"], \"b\": {\"c\": true}}",
            "\"text\"",
            "null",
        ],
    ),
    ("date", &["2000-01-01", "1969-07-20", "2026-02-28"]),
    ("time", &["00:00:00", "23:59:59.999999"]),
    (
        "timestamp",
        &["2026-01-02 03:04:05.6789", "1999-12-31 23:59:59"],
    ),
    ("timestamptz", &["2026-01-02 03:04:05+00"]),
    (
        "interval",
        &["1 year 2 mons 3 days 04:05:06.7", "-1 days", "00:00:00"],
    ),
    ("uuid", &["12345678-1234-5678-1234-567812345678"]),
    ("oid", &["0", "4294967295"]),
    ("integer[]", &["{}", "{1,NULL,3}"]),
    ("text[]", &["{a,\"b c\",\"\",NULL,\"q\\\"\"}"]),
    ("numeric[]", &["{1.5,2}"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_type_goes_both_ways_in_both_formats_as_in_postgresql() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let truth = postgres.connect().await.unwrap();
    truth.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    let client = node.connect().await.unwrap();
    for (type_name, values) in VALUES {
        let back = format!("SELECT CAST($1::{type_name} AS text)");
        let back_statement = client
            .prepare(&back)
            .await
            .unwrap_or_else(|error| panic!("{back}: {error:?}"));
        for value in *values {
            let shown: String = truth
                .query_one(&back, &[&Text(value)])
                .await
                .unwrap()
                .get(0);
            let ours: String = client
                .query_one(&back_statement, &[&Text(value)])
                .await
                .unwrap()
                .get(0);
            assert_eq!(ours, shown, "{type_name} sent as text");

            let literal = format!(
                "SELECT CAST('{}' AS {type_name})",
                value.replace('\'', "''")
            );
            let binary: Raw = truth.query_one(&literal, &[]).await.unwrap().get(0);
            let row = client
                .query_one(&literal, &[])
                .await
                .unwrap_or_else(|error| panic!("{literal}: {error:?}"));
            assert_eq!(
                row.get::<_, Raw>(0),
                binary,
                "{type_name} '{value}' received in binary"
            );

            let ours: String = client
                .query_one(&back_statement, &[&binary])
                .await
                .unwrap()
                .get(0);
            assert_eq!(ours, shown, "{type_name} '{value}' sent in binary");

            let text = simple(&client, &literal).await;
            assert_eq!(
                text,
                simple(&truth, &literal).await,
                "{type_name} received as text"
            );
        }
        let null: Option<String> = client
            .query_one(&back_statement, &[&None::<Raw>])
            .await
            .unwrap()
            .get(0);
        assert_eq!(null, None, "{type_name}");
    }
}

/// The values of a simple query, row by row.
pub(crate) async fn simple(client: &Client, sql: &str) -> Vec<String> {
    text::rows(client, sql).await.unwrap()
}

/// Memory of the node, in bytes.
pub(crate) fn resident_bytes(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid().unwrap())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// Sessions of the node, ours among them.
async fn sessions(client: &Client) -> i64 {
    client
        .query_one("SELECT count(*) FROM mz_internal.mz_sessions", &[])
        .await
        .unwrap()
        .get(0)
}

async fn wait_for_sessions(client: &Client, expected: i64) {
    wait::until("sessions to end", DEADLINE, async || {
        let open = sessions(client).await;
        if open == expected {
            Ok(())
        } else {
            Err(format!("{open} sessions"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_with_a_row_limit_streams() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let mut client = node.connect().await.unwrap();
    client.batch_execute(NUMBERS).await.unwrap();
    // What the first query of this kind needs for good is not counted.
    client
        .query_one(
            "SELECT count(*) FROM numbers a, numbers b WHERE b.x < 10",
            &[],
        )
        .await
        .unwrap();
    let before = resident_bytes(&node);
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind(BIG, &[]).await.unwrap();
    for limit in [1, 10, 1000, 20_000] {
        let rows = transaction.query_portal(&portal, limit).await.unwrap();
        assert_eq!(rows.len(), usize::try_from(limit).unwrap());
        let grown = resident_bytes(&node).saturating_sub(before);
        assert!(grown < 200 << 20, "the node grew by {grown} bytes");
    }
    transaction.rollback().await.unwrap();
    // The rest of the result is not computed: the connection is free at once.
    assert_eq!(simple(&client, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_result_reaches_its_end_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client.batch_execute(NUMBERS).await.unwrap();
    client
        .query_one(
            "SELECT count(*) FROM numbers a, numbers b WHERE b.x < 10",
            &[],
        )
        .await
        .unwrap();
    let before = resident_bytes(&node);
    let sql = "SELECT a.x, repeat('x', 1000) AS filling FROM numbers a, numbers b WHERE b.x <= 80";
    let rows = client
        .query_raw(sql, std::iter::empty::<i32>())
        .await
        .unwrap();
    let mut rows = std::pin::pin!(rows);
    let (mut count, mut most) = (0_i32, 0);
    while let Some(row) = rows.try_next().await.unwrap() {
        count += 1;
        assert_eq!(row.get::<_, &str>(1).len(), 1000);
        if count % 50_000 == 0 {
            most = most.max(resident_bytes(&node).saturating_sub(before));
        }
    }
    assert_eq!(count, 400_000);
    assert!(most < 250 << 20, "the node grew by {most} bytes");
}

/// Asks to cancel until the statement has ended: a request that comes before the statement runs does nothing.
async fn cancel_until_ended<T: Send + 'static>(
    client: &Client,
    statement: tokio::task::JoinHandle<T>,
) -> T {
    let token = client.cancel_token();
    wait::until("the statement to end", DEADLINE, async || {
        token
            .cancel_query(NoTls)
            .await
            .map_err(|error| error.to_string())?;
        if statement.is_finished() {
            Ok(())
        } else {
            Err("still running".to_owned())
        }
    })
    .await
    .unwrap();
    statement.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_select_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = std::sync::Arc::new(node.connect().await.unwrap());
    client.batch_execute(NUMBERS).await.unwrap();
    let running = {
        let client = std::sync::Arc::clone(&client);
        tokio::spawn(async move { client.query(ENDLESS, &[]).await })
    };
    let error = cancel_until_ended(&client, running).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");
    // A cancel request that came too late may still hit the next statement; then the connection goes on.
    wait::until("the connection to serve again", DEADLINE, async || {
        client
            .simple_query("SELECT 1")
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_subscription_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let rows = client
        .query_raw("SUBSCRIBE t", std::iter::empty::<i32>())
        .await
        .unwrap();
    let mut rows = std::pin::pin!(rows);
    let first = rows.next().await.unwrap().unwrap();
    assert_eq!((first.get::<_, i64>(1), first.get::<_, i32>(2)), (1, 1));
    client.cancel_token().cancel_query(NoTls).await.unwrap();
    let error = rows.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");
    assert_eq!(simple(&client, "SELECT a FROM t").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statement_timeout_ends_what_takes_too_long_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let mut client = node.connect().await.unwrap();
    client.batch_execute(NUMBERS).await.unwrap();
    client
        .batch_execute("SET statement_timeout = '2s'")
        .await
        .unwrap();
    // The time of a cursor is that of each FETCH, not of the transaction.
    let transaction = client.transaction().await.unwrap();
    transaction
        .batch_execute(&format!("DECLARE c CURSOR FOR {BIG}"))
        .await
        .unwrap();
    let portal = transaction.bind(BIG, &[]).await.unwrap();
    assert_eq!(
        transaction.query_portal(&portal, 10).await.unwrap().len(),
        10
    );
    for _ in 0..2 {
        let waiting = std::time::Instant::now();
        wait::until("longer than the timeout", DEADLINE, async || {
            let waited = waiting.elapsed();
            if waited > Duration::from_millis(2500) {
                Ok(())
            } else {
                Err(format!("{waited:?}"))
            }
        })
        .await
        .unwrap();
        assert_eq!(
            transaction.query("FETCH 20000 c", &[]).await.unwrap().len(),
            20_000
        );
        assert_eq!(
            transaction
                .query_portal(&portal, 20_000)
                .await
                .unwrap()
                .len(),
            20_000
        );
    }
    transaction.commit().await.unwrap();
    let error = client.query(ENDLESS, &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");
    let message = error.as_db_error().unwrap().message();
    assert_eq!(message, "canceling statement due to statement timeout");
    client
        .batch_execute("RESET statement_timeout")
        .await
        .unwrap();
    assert_eq!(simple(&client, "SELECT 1").await, ["1"]);
}

/// A connection that speaks the protocol byte by byte.
pub(crate) struct RawClient {
    socket: TcpStream,
}

impl RawClient {
    pub(crate) async fn connect(node: &Node) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", node.pg_port()))
            .await
            .unwrap();
        let body = b"\0\x03\0\0user\0materialize\0database\0materialize\0\0";
        socket
            .write_all(&(u32::try_from(body.len()).unwrap() + 4).to_be_bytes())
            .await
            .unwrap();
        socket.write_all(body).await.unwrap();
        let mut client = Self { socket };
        client.until_ready().await;
        client
    }

    pub(crate) async fn send(&mut self, messages: &[(u8, Vec<u8>)]) {
        let mut bytes = Vec::new();
        for (tag, body) in messages {
            bytes.push(*tag);
            bytes.extend((u32::try_from(body.len()).unwrap() + 4).to_be_bytes());
            bytes.extend(body);
        }
        self.socket.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// Sends nothing more and reads to the end, which must come: the server may have closed the connection before.
    pub(crate) async fn end(mut self) {
        drop(self.socket.shutdown().await);
        let mut rest = Vec::new();
        let read = self.socket.read_to_end(&mut rest);
        let ended = tokio::time::timeout(DEADLINE, read).await;
        drop(ended.expect("the connection ends"));
    }

    pub(crate) async fn query(&mut self, sql: &str) {
        self.send(&[(b'Q', zero_ended(sql))]).await;
    }

    pub(crate) async fn receive(&mut self) -> (u8, Vec<u8>) {
        let tag = self.socket.read_u8().await.unwrap();
        let length = self.socket.read_u32().await.unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.socket.read_exact(&mut body).await.unwrap();
        (tag, body)
    }

    /// Waits for a notice with this message, while the statement runs. Returns its fields.
    pub(crate) async fn told(&mut self, message: &str) -> BTreeMap<char, String> {
        loop {
            let received = tokio::time::timeout(DEADLINE, self.receive())
                .await
                .unwrap_or_else(|_| panic!("nobody said \"{message}\""));
            assert_ne!(received.0, b'Z', "it did not say \"{message}\"");
            if received.0 == b'N' {
                let notice = fields(&[received], b'N');
                if notice[&'M'] == message {
                    return notice;
                }
            }
        }
    }

    /// Everything up to and including ReadyForQuery, but for what a statement says of what it waits for: whether it waits is the machine's business.
    pub(crate) async fn until_ready(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        loop {
            let message = tokio::time::timeout(DEADLINE, self.receive())
                .await
                .expect("an answer");
            let tag = message.0;
            let waits = || message.1.windows(9).any(|text| text == b"\0Mwaiting");
            if tag == b'N' && waits() {
                continue;
            }
            messages.push(message);
            if tag == b'Z' {
                return messages;
            }
        }
    }
}

fn zero_ended(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// Parse, bind and execute one statement, all unnamed.
fn pipelined(sql: &str) -> Vec<(u8, Vec<u8>)> {
    vec![
        (b'P', [b"\0", sql.as_bytes(), b"\0\0\0"].concat()),
        (b'B', b"\0\0\0\0\0\0\0\0".to_vec()),
        (b'E', b"\0\0\0\0\0".to_vec()),
    ]
}

pub(crate) fn tags(messages: &[(u8, Vec<u8>)]) -> String {
    messages.iter().map(|(tag, _)| char::from(*tag)).collect()
}

/// The fields of an ErrorResponse or NoticeResponse.
pub(crate) fn fields(messages: &[(u8, Vec<u8>)], tag: u8) -> BTreeMap<char, String> {
    let (_, body) = messages
        .iter()
        .find(|(found, _)| *found == tag)
        .expect("such a message");
    body.split(|byte| *byte == 0)
        .filter(|field| !field.is_empty())
        .map(|field| {
            (
                char::from(field[0]),
                String::from_utf8_lossy(&field[1..]).into_owned(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_a_pipeline_skips_to_the_sync() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int)")
        .await
        .unwrap();
    let mut raw = RawClient::connect(&node).await;
    let sync = vec![(b'S', Vec::new())];
    let first = [
        pipelined("INSERT INTO t VALUES (1)"),
        pipelined("INSERT INTO nowhere VALUES (2)"),
        pipelined("INSERT INTO t VALUES (3)"),
        sync.clone(),
    ]
    .concat();
    let second = [
        pipelined("INSERT INTO t VALUES (4)"),
        pipelined("INSERT INTO t VALUES (5)"),
        sync,
    ]
    .concat();
    raw.send(&[first, second].concat()).await;
    let messages = raw.until_ready().await;
    assert_eq!(
        tags(&messages),
        "12CEZ",
        "one error, nothing after it, then ready"
    );
    let error = fields(&messages, b'E');
    assert_eq!(error[&'C'], "42P01", "{error:?}");
    assert_eq!(messages.last().unwrap().1, b"I");
    assert_eq!(tags(&raw.until_ready().await), "12C12CZ");
    // What one Sync ends is one transaction.
    assert_eq!(
        simple(&client, "SELECT a FROM t ORDER BY a").await,
        ["4", "5"]
    );

    // In a block the error fails the block, and the block lasts until it is ended.
    raw.query("BEGIN").await;
    raw.until_ready().await;
    raw.send(
        &[
            pipelined("SELECT 1 / 0"),
            pipelined("SELECT 2"),
            vec![(b'S', Vec::new())],
        ]
        .concat(),
    )
    .await;
    let messages = raw.until_ready().await;
    assert_eq!(
        (
            tags(&messages).as_str(),
            messages.last().unwrap().1.as_slice()
        ),
        ("12EZ", &b"E"[..])
    );
    raw.query("SELECT 3").await;
    assert_eq!(fields(&raw.until_ready().await, b'E')[&'C'], "25P02");
    raw.query("ROLLBACK").await;
    assert_eq!(raw.until_ready().await.last().unwrap().1, b"I");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_statements_and_portals_are_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let mut raw = RawClient::connect(&node).await;
    let prepare = (b'P', b"one\0SELECT 1\0\0\0".to_vec());
    let sync = (b'S', Vec::new());
    raw.send(&[prepare.clone(), sync.clone()]).await;
    assert_eq!(tags(&raw.until_ready().await), "1Z");
    raw.send(&[prepare.clone(), sync.clone()]).await;
    assert_eq!(fields(&raw.until_ready().await, b'E')[&'C'], "42P05");
    let bind = (b'B', b"portal\0one\0\0\0\0\0\0\0".to_vec());
    raw.send(&[bind.clone(), bind.clone(), sync.clone()]).await;
    let messages = raw.until_ready().await;
    assert_eq!(
        (
            tags(&messages).as_str(),
            fields(&messages, b'E')[&'C'].as_str()
        ),
        ("2EZ", "42P03")
    );
    // DEALLOCATE ends what Parse prepared, by name or all of it.
    for end in ["DEALLOCATE one", "DEALLOCATE ALL", "DISCARD ALL"] {
        raw.query(end).await;
        assert_eq!(
            tags(&raw.until_ready().await).replace('S', ""),
            "CZ",
            "{end}"
        );
        raw.send(&[bind.clone(), sync.clone()]).await;
        assert_eq!(
            fields(&raw.until_ready().await, b'E')[&'C'],
            "26000",
            "{end}"
        );
        raw.send(&[prepare.clone(), sync.clone()]).await;
        assert_eq!(tags(&raw.until_ready().await), "1Z", "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    client.batch_execute(NUMBERS).await.unwrap();
    wait_for_sessions(&client, 1).await;
    let mut vanishing = Vec::new();
    // In the middle of a result that does not fit the socket; of a computation without any row; of a subscription with rows and one without.
    for sql in [
        BIG,
        ENDLESS,
        "SUBSCRIBE t",
        "SUBSCRIBE (SELECT a FROM t WHERE a < 0)",
    ] {
        let mut raw = RawClient::connect(&node).await;
        raw.query(sql).await;
        if sql == BIG || sql == "SUBSCRIBE t" {
            assert_eq!(raw.receive().await.0, b'T', "{sql}");
            assert_eq!(raw.receive().await.0, b'D', "{sql}");
        }
        vanishing.push(raw);
    }
    // In the middle of a COPY.
    let mut raw = RawClient::connect(&node).await;
    raw.query("COPY t FROM STDIN").await;
    assert_eq!(raw.receive().await.0, b'G');
    raw.send(&[(b'd', b"2\n3\n".to_vec())]).await;
    vanishing.push(raw);
    // In a block with a row that is not committed.
    let mut raw = RawClient::connect(&node).await;
    raw.query("BEGIN; INSERT INTO t VALUES (4)").await;
    raw.until_ready().await;
    vanishing.push(raw);
    assert_eq!(sessions(&client).await, 7);
    drop(vanishing);
    wait_for_sessions(&client, 1).await;
    client
        .batch_execute("INSERT INTO t VALUES (5)")
        .await
        .unwrap();
    assert_eq!(
        simple(&client, "SELECT a FROM t ORDER BY a").await,
        ["1", "5"]
    );
    // Nothing of theirs is still computed.
    let idle = wait::until("the node to be idle", DEADLINE, async || {
        let before = cpu_ticks(&node);
        tokio::time::sleep(Duration::from_millis(500)).await; // poll interval: the time over which work is measured
        let used = cpu_ticks(&node) - before;
        if used < 25 {
            Ok(())
        } else {
            Err(format!("{used} ticks of CPU in half a second"))
        }
    });
    idle.await.unwrap();
}

/// CPU time of the node, in hundredths of a second.
fn cpu_ticks(node: &Node) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid().unwrap())).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_take_long_let_others_run() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client.batch_execute(NUMBERS).await.unwrap();
    let mut running = Vec::new();
    for _ in 0..8 {
        let mut raw = RawClient::connect(&node).await;
        raw.query(ENDLESS).await;
        running.push(raw);
    }
    for _ in 0..5 {
        let sum = simple(&client, "SELECT sum(x) FROM numbers WHERE x <= 100");
        let sum = tokio::time::timeout(DEADLINE, sum).await.unwrap();
        assert_eq!(sum, ["5050"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_beyond_its_memory_fails_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions {
        environment: vec![("FLOWSTONE_QUERY_MEMORY_MIB".to_owned(), "64".to_owned())],
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir.path(), 1, options).await.unwrap();
    let client = node.connect().await.unwrap();
    client.batch_execute(NUMBERS).await.unwrap();
    // Two inputs of 25 million rows, one of which a hash join holds.
    let error = client
        .batch_execute(
            "SELECT count(*)
             FROM (SELECT a.x AS x, b.x AS y FROM numbers a CROSS JOIN numbers b) l
             JOIN (SELECT a.x AS x, b.x AS y FROM numbers a CROSS JOIN numbers b) r ON l.x = r.y AND l.y = r.x",
        )
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::OUT_OF_MEMORY), "{error:?}");
    assert!(error.as_db_error().unwrap().hint().is_some(), "{error:?}");
    // A sort of more than that goes to disk.
    let sorted = "
        SELECT count(*) FROM (
            SELECT s, lag(s) OVER (ORDER BY s) AS before
            FROM (SELECT repeat('x', 40) || a.x AS s FROM numbers a, numbers b WHERE b.x <= 400) AS many
        ) AS ordered
        WHERE before IS NULL OR before <= s";
    assert_eq!(simple(&client, sorted).await, ["2000000"]);
    assert_eq!(
        simple(&client, "SELECT count(*) FROM numbers").await,
        ["5000"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_its_client_gives_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int, b text)")
        .await
        .unwrap();
    {
        let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        for _ in 0..10 {
            sink.send(bytes::Bytes::from("1\tx\n".repeat(10_000)))
                .await
                .unwrap();
        }
        // Dropped without an end, the driver tells the server that it has failed.
    }
    assert_eq!(simple(&client, "SELECT count(*) FROM t").await, ["0"]);

    // A bad line in the middle of much data: the error comes once, the rest is passed over, the connection goes on.
    let mut raw = RawClient::connect(&node).await;
    raw.query("COPY t FROM STDIN").await;
    assert_eq!(raw.receive().await.0, b'G');
    let good = (b'd', b"1\tx\n".to_vec());
    raw.send(&[
        good.clone(),
        (b'd', b"two\tx\n".to_vec()),
        good.clone(),
        good,
        (b'c', Vec::new()),
    ])
    .await;
    let messages = raw.until_ready().await;
    assert_eq!(tags(&messages), "EZ");
    let error = fields(&messages, b'E');
    assert_eq!(
        (error[&'C'].as_str(), error[&'W'].as_str()),
        ("22P02", "COPY, line 2, column a: \"two\"")
    );
    raw.query("SELECT count(*) FROM t").await;
    let messages = raw.until_ready().await;
    assert_eq!(tags(&messages), "TDCZ");
    assert_eq!(messages[1].1, b"\0\x01\0\0\0\x010");
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_arrive_before_the_statement_completes() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let mut raw = RawClient::connect(&node).await;
    raw.query("CREATE TABLE t (a int)").await;
    assert_eq!(tags(&raw.until_ready().await), "CZ");
    raw.query("CREATE TABLE IF NOT EXISTS t (a int)").await;
    let messages = raw.until_ready().await;
    assert_eq!(tags(&messages), "NCZ");
    let notice = fields(&messages, b'N');
    assert_eq!(notice[&'S'], "NOTICE", "{notice:?}");
    assert!(
        notice[&'M'].contains("already exists, skipping"),
        "{notice:?}"
    );
    raw.query("COMMIT").await;
    let messages = raw.until_ready().await;
    assert_eq!(
        (
            tags(&messages).as_str(),
            fields(&messages, b'N')[&'S'].as_str()
        ),
        ("NCZ", "WARNING")
    );
    raw.query("SET client_min_messages = error").await;
    raw.until_ready().await;
    raw.query("COMMIT").await;
    assert_eq!(tags(&raw.until_ready().await), "CZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_says_that_it_is_not_durable_while_it_waits_for_that() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int)")
        .await
        .unwrap();
    node.stop().await.unwrap();
    // Three seconds pass before what says that a write counts is on disk.
    let options = NodeOptions {
        environment: vec![(
            "FLOWSTONE_FAILPOINTS".to_owned(),
            "acknowledged-slot.write=errorx30".to_owned(),
        )],
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir.path(), 1, options).await.unwrap();
    let mut raw = RawClient::connect(&node).await;
    raw.query("INSERT INTO t VALUES (1)").await;
    raw.told("waiting until what was written is durable and can be seen")
        .await;
    assert_eq!(tags(&raw.until_ready().await), "CZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_read_holds_nobody_back() {
    const ROUNDS: i32 = 40;
    const ROWS: i32 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let writer = node.connect().await.unwrap();
    writer
        .batch_execute("CREATE TABLE t (round int, filling text)")
        .await
        .unwrap();
    let mut slow = RawClient::connect(&node).await;
    slow.query("SUBSCRIBE t").await;
    assert_eq!(slow.receive().await.0, b'T');
    let reader = node.connect().await.unwrap();
    let rows = reader
        .query_raw("SUBSCRIBE t", std::iter::empty::<i32>())
        .await
        .unwrap();
    let mut rows = std::pin::pin!(rows);
    // Each round is much more than a socket buffers; the reader must see it before the next is written.
    for round in 0..ROUNDS {
        let insert = format!(
            "INSERT INTO t SELECT {round}, g::text || repeat('x', 1000) FROM generate_series(1, {ROWS}) AS s (g)"
        );
        writer.batch_execute(&insert).await.unwrap();
        for _ in 0..ROWS {
            let row = tokio::time::timeout(DEADLINE, rows.next())
                .await
                .expect("the reader is not held back")
                .unwrap()
                .unwrap();
            assert_eq!(row.get::<_, i32>("round"), round);
        }
    }
    // The slow one has missed nothing.
    for _ in 0..ROUNDS * ROWS {
        let message = tokio::time::timeout(DEADLINE, slow.receive())
            .await
            .expect("the slow one is served");
        assert_eq!(message.0, b'D');
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_numeric_cannot_hold_is_not_supported_in_copy_and_in_parameters() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (n numeric, d numeric(10,2))")
        .await
        .unwrap();
    // Groups of four digits, the power of 10000 of the first, the sign, the digits after the point; and the groups.
    let unheld: [(&str, &[u16]); 4] = [
        ("1e28", &[1, 7, 0, 0, 1]),
        ("0.00000000000000000001", &[1, 0xfffb, 0, 20, 1]),
        ("NaN", &[0, 0, 0xc000, 0]),
        ("-Infinity", &[0, 0, 0xf000, 0]),
    ];
    let insert = client
        .prepare("INSERT INTO t (n) VALUES ($1)")
        .await
        .unwrap();
    for (text, words) in unheld {
        let bytes = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let errors = [
            client.execute(&insert, &[&Text(text)]).await.unwrap_err(),
            client.execute(&insert, &[&Raw(bytes)]).await.unwrap_err(),
        ];
        for error in errors {
            let error = error.as_db_error().expect("of the node");
            assert_eq!(error.code().code(), "0A000", "{text}: {error}");
            assert!(error.message().contains("not supported"), "{error}");
            assert!(error.hint().is_some(), "{error}");
        }
    }
    let mut raw = RawClient::connect(&node).await;
    let copied = unheld
        .map(|(text, _)| ("n", text, "0A000"))
        .into_iter()
        .chain([
            ("d", "NaN", "0A000"),
            ("d", "1e28", "22003"),
            ("d", "Infinity", "22003"),
        ]);
    for (column, text, code) in copied {
        raw.query(&format!("COPY t ({column}) FROM STDIN")).await;
        assert_eq!(raw.receive().await.0, b'G');
        raw.send(&[(b'd', format!("{text}\n").into_bytes()), (b'c', Vec::new())])
            .await;
        let messages = raw.until_ready().await;
        assert_eq!(tags(&messages), "EZ", "{column} {text}");
        let error = fields(&messages, b'E');
        assert_eq!(error[&'C'], code, "{column} {text}: {error:?}");
        assert_eq!(error.contains_key(&'H'), code == "0A000", "{error:?}");
        assert!(error[&'W'].starts_with("COPY, line 1"), "{error:?}");
    }
    assert_eq!(simple(&client, "SELECT count(*) FROM t").await, ["0"]);
}
