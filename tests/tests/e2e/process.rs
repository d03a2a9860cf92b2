//! The process: starting, refusing to start, stopping, settings and HTTP.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use flowstone_tests::{Node, free_port, wait};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;

const DEADLINE: Duration = Duration::from_secs(60);

/// `flowstone serve` without any setting from outside.
fn serve(data_dir: &Path) -> Command {
    let mut command = Command::new(Node::binary().unwrap());
    command.arg("serve").stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLOWSTONE_")) {
        command.env_remove(name);
    }
    command.env("FLOWSTONE_DATA_DIR", data_dir);
    command
}

/// On free ports, so that only what is tested goes wrong.
pub(crate) fn serve_on_free_ports(data_dir: &Path) -> Command {
    let mut command = serve(data_dir);
    for name in [
        "FLOWSTONE_PG_LISTEN",
        "FLOWSTONE_HTTP_LISTEN",
        "FLOWSTONE_FLIGHT_LISTEN",
    ] {
        command.env(name, format!("127.0.0.1:{}", free_port().unwrap()));
    }
    command
}

/// Runs to the end, which must come soon: a node that starts in spite of everything is killed.
fn run(command: &mut Command) -> Output {
    let mut bounded = Command::new("timeout");
    bounded
        .args(["--signal=KILL", "60"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    bounded.stdin(Stdio::null()).output().unwrap()
}

/// Runs what must be refused; gives its words.
pub(crate) fn refusal(command: &mut Command) -> String {
    let output = run(command);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{:?}: {words}",
        output.status
    );
    words
}

/// The status and the body of `GET path`.
async fn get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(std::io::ErrorKind::InvalidData)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or(std::io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_cleanly_and_everything_is_there_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (a int, b text);
             CREATE MATERIALIZED VIEW totals AS SELECT b, count(*) AS n, sum(a) AS total FROM t GROUP BY b;
             CREATE VIEW twice AS SELECT b, n * 2 AS m FROM totals;
             CREATE INDEX totals_b ON totals (b)",
        )
        .await
        .unwrap();
    client
        .batch_execute(
            "INSERT INTO t SELECT g, 'b' || g % 3 FROM generate_series(1, 3000) AS s (g)",
        )
        .await
        .unwrap();
    for round in 0..3 {
        // Clients that are in the middle of things do not keep the node from stopping.
        let subscriber = node.connect().await.unwrap();
        let changes = subscriber
            .query_raw("SUBSCRIBE totals", std::iter::empty::<i32>())
            .await
            .unwrap();
        let mut changes = std::pin::pin!(changes);
        changes.next().await.unwrap().unwrap();
        let copier = node.connect().await.unwrap();
        let copy = copier
            .copy_in::<_, bytes::Bytes>("COPY t FROM STDIN")
            .await
            .unwrap();
        let idle = node.connect().await.unwrap();
        idle.batch_execute("BEGIN; INSERT INTO t VALUES (-1, 'never')")
            .await
            .unwrap();
        let acknowledged = node.connect().await.unwrap();
        acknowledged
            .execute("INSERT INTO t VALUES ($1, 'last')", &[&round])
            .await
            .unwrap();
        node.stop().await.unwrap();
        assert!(
            changes
                .any(|change| std::future::ready(change.is_err()))
                .await,
            "the subscriber hears of the end"
        );
        drop(copy);
        node.restart().await.unwrap();
        let client = node.connect().await.unwrap();
        let row = client
            .query_one(
                "SELECT count(*), count(*) FILTER (WHERE b = 'never') FROM t",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(
            (row.get::<_, i64>(0), row.get::<_, i64>(1)),
            (3001 + i64::from(round), 0)
        );
        let rows = client
            .query("SELECT b, n FROM totals ORDER BY b", &[])
            .await
            .unwrap();
        let rows: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let expected = [
            ("b0", 1000),
            ("b1", 1000),
            ("b2", 1000),
            ("last", i64::from(round) + 1),
        ];
        assert_eq!(rows, expected.map(|(b, n)| (b.to_owned(), n)));
        let twice: i64 = client
            .query_one("SELECT m FROM twice WHERE b = 'b1'", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(twice, 2000);
    }
}

#[test]
fn addresses_beyond_loopback_are_refused_without_tls_and_passwords() {
    let dir = tempfile::tempdir().unwrap();
    for (option, setting) in [
        ("--pg-listen", "pg_listen"),
        ("--http-listen", "http_listen"),
        ("--flight-listen", "flight_listen"),
    ] {
        let words =
            refusal(serve_on_free_ports(&dir.path().join("data")).args([option, "0.0.0.0:0"]));
        assert!(
            words.contains(&format!("{setting} is 0.0.0.0:0"))
                && words.contains("only with TLS and passwords; set tls_cert_file and tls_key_file and auth = \"scram\""),
            "{words}"
        );
    }
    assert!(!dir.path().join("data").exists(), "nothing was created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_process_and_a_port_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let words = refusal(&mut serve_on_free_ports(&dir.path().join("data")));
    assert!(words.contains("is in use by another process"), "{words}");
    let words = refusal(
        serve_on_free_ports(&dir.path().join("other"))
            .args(["--pg-listen", &format!("127.0.0.1:{}", node.pg_port())]),
    );
    assert!(
        words.contains("cannot listen on") && words.contains("PostgreSQL clients"),
        "{words}"
    );
    let client = node.connect().await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1).await.unwrap();
    node.stop().await.unwrap();
    let format = dir.path().join("data").join("FORMAT");
    let ours = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, "flowstone 1000\n").unwrap();
    let words = refusal(&mut serve_on_free_ports(&dir.path().join("data")));
    assert!(words.contains("has format 1000"), "{words}");
    std::fs::write(&format, ours).unwrap();
    node.restart().await.unwrap();
}

#[test]
fn a_configuration_that_is_wrong_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("flowstone.toml");
    for (content, expected) in [
        ("shard = 3\n", "unknown field `shard`"),
        ("shards = \"three\"\n", "shards"),
        ("pg_listen = \"localhost\"\n", "pg_listen"),
        ("shards = 0\n", "shards must be at least 1"),
        (
            "subscriber_memory_mib = 63\n",
            "subscriber_memory_mib must be at least 64",
        ),
        (
            "pg_listen = \"192.0.2.1:6875\"\n",
            "only with TLS and passwords",
        ),
        (
            "http_listen = \"[2001:db8::1]:6876\"\nauth = \"scram\"\n",
            "set tls_cert_file and tls_key_file",
        ),
        (
            "pg_listen = \"192.0.2.1:6875\"\ntls_cert_file = \"a\"\ntls_key_file = \"b\"\n",
            "set auth = \"scram\"",
        ),
        (
            "pg_listen = \"192.0.2.1:6875\"\nauth = \"scram\"\ntls_required = false\ntls_cert_file = \"a\"\ntls_key_file = \"b\"\n",
            "remove tls_required",
        ),
        (
            "tls_required = true\n",
            "set tls_cert_file and tls_key_file",
        ),
        ("tls_cert_file = \"a\"\n", "tls_key_file is not"),
        ("auth = \"md5\"\n", "auth"),
        (
            "initial_password_file = \"/nonexistent/password\"\n",
            "cannot read /nonexistent/password",
        ),
        ("log = \"info,,=\"\n", "is not a log filter"),
    ] {
        std::fs::write(&file, content).unwrap();
        let mut command = serve(&dir.path().join("data"));
        let words = refusal(command.arg("--config").arg(&file));
        assert!(words.contains(expected), "{content}: {words}");
    }
    let words =
        refusal(serve(&dir.path().join("data")).args(["--config", "/nonexistent/flowstone.toml"]));
    assert!(
        words.contains("cannot read /nonexistent/flowstone.toml"),
        "{words}"
    );
    assert!(!dir.path().join("data").exists(), "nothing was created");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_from_arguments_then_variables_then_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (pg, http) = (free_port().unwrap(), free_port().unwrap());
    let flight = free_port().unwrap();
    let file = dir.path().join("flowstone.toml");
    let of_file = dir.path().join("of_file");
    // The port of HTTP in the file is not even valid to listen on: the variable goes before it, and the argument before a bad variable.
    let content = format!(
        "data_dir = \"{}\"\npg_listen = \"127.0.0.1:{pg}\"\nhttp_listen = \"192.0.2.1:1\"\nflight_listen = \"127.0.0.1:{flight}\"\nshards = 1\nlog_format = \"json\"\n",
        of_file.display()
    );
    std::fs::write(&file, content).unwrap();
    let log_path = dir.path().join("log");
    let mut command = serve(dir.path());
    let mut child = command
        .env_remove("FLOWSTONE_DATA_DIR")
        .env("FLOWSTONE_CONFIG", &file)
        .env("FLOWSTONE_HTTP_LISTEN", format!("127.0.0.1:{http}"))
        .env("FLOWSTONE_SHARDS", "0")
        .args(["--shards", "2"])
        .stderr(std::fs::File::create(&log_path).unwrap())
        .spawn()
        .unwrap();
    let ready = wait::until("the node to be ready", DEADLINE, async || {
        match get(http, "/readyz").await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let connected =
        tokio_postgres::connect(&format!("host=127.0.0.1 port={pg} user=materialize"), NoTls)
            .await
            .map(drop);
    let flight = TcpStream::connect(("127.0.0.1", flight)).await.map(drop);
    child.kill().unwrap();
    child.wait().unwrap();
    let log = std::fs::read_to_string(&log_path).unwrap();
    assert!(
        ready.is_ok() && connected.is_ok() && flight.is_ok(),
        "{ready:?} {connected:?} {flight:?}: {log}"
    );
    let line = log.lines().find(|line| line.contains("is ready")).unwrap();
    assert!(
        line.starts_with('{') && line.contains("\"shards\":2"),
        "{line}"
    );
    assert!(of_file.join("FORMAT").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn http_tells_health_and_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1).await.unwrap();
    let port = node.http_port();
    assert_eq!(get(port, "/livez").await.unwrap(), (200, "ok\n".to_owned()));
    assert_eq!(
        get(port, "/readyz").await.unwrap(),
        (200, "ready\n".to_owned())
    );
    assert_eq!(get(port, "/nothing").await.unwrap().0, 404);
    let client = node.connect().await.unwrap();
    let metric = async |name: &str| -> i64 {
        let (status, text) = get(port, "/metrics").await.unwrap();
        assert_eq!(status, 200);
        assert!(text.ends_with("# EOF\n"), "{text}");
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {text}"));
        line.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let (statements, errors) = (
        metric("flowstone_statements_total").await,
        metric("flowstone_statement_errors_total").await,
    );
    client.simple_query("SELECT 1").await.unwrap();
    client.simple_query("SELECT nothing").await.unwrap_err();
    assert_eq!(metric("flowstone_statements_total").await, statements + 2);
    assert_eq!(metric("flowstone_statement_errors_total").await, errors + 1);
    wait::until(
        "the other sessions to end",
        DEADLINE,
        async || match metric("flowstone_sessions").await {
            1 => Ok(()),
            other => Err(format!("{other} sessions")),
        },
    )
    .await
    .unwrap();
    let epoch = metric("flowstone_epoch").await;
    wait::until("epochs to go on", DEADLINE, async || {
        let now = metric("flowstone_epoch").await;
        if now > epoch {
            Ok(())
        } else {
            Err(format!("{now}"))
        }
    })
    .await
    .unwrap();
    node.stop().await.unwrap();
    assert!(get(port, "/livez").await.is_err());
}
