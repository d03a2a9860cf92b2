//! Arrow Flight SQL: ADBC and pyarrow against a real node.

use std::process::{Command, Output};
use std::time::Duration;

use flowstone_tests::{Node, wait};

use crate::clients::python;

/// Runs one of the client scripts against a node to its end.
async fn run_script(node: &Node, name: &str, arguments: &[&str]) -> Output {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name);
    let mut command = Command::new("timeout");
    command
        .args(["--signal=KILL", "600"])
        .arg(python())
        .arg(script)
        .arg(format!("127.0.0.1:{}", node.flight_port()))
        .args(arguments);
    tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap()
}

async fn succeeds(node: &Node, name: &str, arguments: &[&str]) -> String {
    let output = run_script(node, name, arguments).await;
    let words = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{:?}: {words}", output.status);
    words
}

/// A line of `/proc/PID/status`, in bytes.
fn memory(node: &Node, line: &str) -> u64 {
    let path = format!("/proc/{}/status", node.pid().unwrap());
    let status = std::fs::read_to_string(path).unwrap();
    let found = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kilobytes: u64 = found
        .and_then(|text| text.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap();
    kilobytes * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn adbc_works_in_all_its_ways() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    succeeds(&node, "adbc.py", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_works_in_all_its_ways() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    succeeds(&node, "pyarrow_flight.py", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_of_ten_million_rows_streams_in_constant_memory() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    // Once for what is allocated at the first use.
    succeeds(&node, "flight_large.py", &["100", "1000"]).await;
    let before = memory(&node, "VmHWM");
    succeeds(&node, "flight_large.py", &["10000", "1000"]).await;
    let after = memory(&node, "VmHWM");
    // The result is some 600 MB.
    let grown = after - before;
    assert!(
        grown < 150 << 20,
        "the node grew by {grown} bytes, to {after}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stops_in_the_middle_of_a_subscription() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let script = "import sys, pyarrow.flight as f; c = f.connect('grpc://' + sys.argv[1]); \
                  [print(chunk.data.num_rows, flush=True) for chunk in c.do_get(f.Ticket(b'SUBSCRIBE t'))]";
    let mut subscriber = Command::new(python())
        .args(["-c", script, &format!("127.0.0.1:{}", node.flight_port())])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait::until(
        "the subscription to be there",
        Duration::from_secs(60),
        async || {
            let row = client
                .query_one("SELECT count(*) - 1 FROM mz_internal.mz_sessions", &[])
                .await
                .map_err(|error| error.to_string())?;
            match row.get::<_, i64>(0) {
                1 => Ok(()),
                count => Err(format!("{count} other sessions")),
            }
        },
    )
    .await
    .unwrap();
    node.stop().await.unwrap();
    let status = wait::until(
        "the client to notice",
        Duration::from_secs(60),
        async || {
            subscriber
                .try_wait()
                .map_err(|error| error.to_string())?
                .ok_or_else(|| "it runs".to_owned())
        },
    )
    .await
    .unwrap();
    assert!(!status.success());
    let words = std::io::read_to_string(subscriber.stderr.take().unwrap()).unwrap();
    assert!(words.contains("shutting down"), "{words}");
}
