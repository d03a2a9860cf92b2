//! The demo, driven as a user does: `deploy/demo.sh`, Ctrl-C, and again.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flowstone_tests::{Node, free_port, wait};
use tokio_postgres::{Client, NoTls};

const DEADLINE: Duration = Duration::from_secs(120);

/// A run of the script, in a process group of its own as a terminal gives it one.
struct Demo {
    script: Child,
    output: std::path::PathBuf,
}

impl Demo {
    fn start(dir: &Path, pg_port: u16, http_port: u16) -> Self {
        let output = dir.join("output");
        let file = File::create(&output).unwrap();
        // A shell whose SIGINT is ignored when it starts could not trap it; a terminal's shell does not ignore it.
        let script = Command::new("env")
            .args(["--default-signal=INT", "bash"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo.sh"))
            .env("FLOWSTONE_BIN", Node::binary().unwrap())
            .env("DATA_DIR", dir.join("data"))
            .env("PG_PORT", pg_port.to_string())
            .env("HTTP_PORT", http_port.to_string())
            .env("FLIGHT_PORT", free_port().unwrap().to_string())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { script, output }
    }

    fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }

    /// Waits for the words that end its preparations.
    async fn ready(&mut self) {
        let ready = wait::until("the demo to run", DEADLINE, async || {
            if let Some(status) = self.script.try_wait().unwrap() {
                panic!("the demo ended with {status}: {}", self.output());
            }
            if self.output().contains("Ctrl-C stops it") {
                Ok(())
            } else {
                Err(self.output())
            }
        });
        ready.await.unwrap();
    }

    /// What Ctrl-C in a terminal does.
    async fn interrupt(&mut self) {
        let group = format!("-{}", self.script.id());
        assert!(
            Command::new("kill")
                .args(["-INT", "--", &group])
                .status()
                .unwrap()
                .success()
        );
        let ended = wait::until("the demo to end", DEADLINE, async || {
            self.script.try_wait().unwrap().ok_or_else(|| self.output())
        });
        let status = ended.await.unwrap();
        assert!(status.success(), "{status}: {}", self.output());
        assert!(self.output().contains("stopped"), "{}", self.output());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let group = format!("-{}", self.script.id());
        drop(
            Command::new("kill")
                .args(["-KILL", "--", &group])
                .stderr(Stdio::null())
                .status(),
        );
        drop(self.script.wait());
    }
}

async fn connect(port: u16) -> Client {
    let (client, connection) = tokio_postgres::connect(
        &format!("host=127.0.0.1 port={port} user=materialize"),
        NoTls,
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    client
}

/// Bids, and what the three views say in sum.
async fn counts(client: &Client) -> [i64; 4] {
    let row = client
        .query_one(
            "SELECT (SELECT bids FROM auction_totals), (SELECT count(*) FROM bids), (SELECT sum(bids)::bigint FROM top_auctions),
                    (SELECT count(*) FROM winning_bids)",
            &[],
        )
        .await
        .unwrap();
    [0, 1, 2, 3].map(|column| row.get::<_, Option<i64>>(column).unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_moves_stops_and_goes_on_from_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let (pg_port, http_port) = (free_port().unwrap(), free_port().unwrap());
    let mut last = [0; 4];
    for run in 0..3 {
        let mut demo = Demo::start(dir.path(), pg_port, http_port);
        demo.ready().await;
        let client = connect(pg_port).await;
        let first = counts(&client).await;
        assert_eq!(
            first[0], first[1],
            "a view and its input are read at one time"
        );
        assert!(
            first[0] >= last[0] && first[3] >= last[3],
            "run {run} went back from {last:?} to {first:?}"
        );
        let moved = wait::until("the views to move", DEADLINE, async || {
            let now = counts(&client).await;
            assert_eq!(now[0], now[1], "a view and its input are read at one time");
            if now[0] > first[0] && now[2] > 0 && now[3] > first[3] {
                Ok(now)
            } else {
                Err(format!("{now:?} after {first:?}"))
            }
        });
        last = moved.await.unwrap();
        let words = demo.output();
        assert!(
            !words.contains("ERROR") && !words.contains("NOTICE"),
            "{words}"
        );
        demo.interrupt().await;
    }
}

#[test]
fn make_demo_builds_and_runs_the_script() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new("make")
        .args(["-n", "demo", "DATA_DIR=/somewhere/else"])
        .current_dir(root)
        .output()
        .unwrap();
    let commands = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let build = commands.find("build -p flowstone-node").expect(&commands);
    let run = commands
        .find("DATA_DIR=\"/somewhere/else\" deploy/demo.sh")
        .expect(&commands);
    assert!(build < run, "{commands}");
}
