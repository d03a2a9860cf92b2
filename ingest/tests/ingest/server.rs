//! A PostgreSQL server of one test.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use flowstone_proto::message::{PostgresConnection, SslMode};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// A running server in a temporary directory.
pub(crate) struct Server {
    dir: TempDir,
    pub(crate) port: u16,
}

fn binaries() -> PathBuf {
    let newest = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .max();
    newest.map_or_else(PathBuf::new, |version| version.join("bin"))
}

/// A command run as a user that PostgreSQL accepts: it refuses root.
fn as_postgres(program: &str) -> Command {
    let path = binaries().join(program);
    let is_root = String::from_utf8_lossy(&Command::new("id").arg("-u").output().unwrap().stdout)
        .trim()
        == "0";
    if is_root {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(path);
        command
    } else {
        Command::new(path)
    }
}

fn run(command: &mut Command) {
    let output = command
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Server {
    /// A new server with `settings` added to its configuration.
    pub(crate) fn start(settings: &str) -> Self {
        let dir = TempDir::new().unwrap();
        run(Command::new("chmod").arg("777").arg(dir.path()));
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Self { dir, port };
        run(as_postgres("initdb")
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "-D",
            ])
            .arg(server.data()));
        let configuration = format!(
            "listen_addresses='127.0.0.1'\nport={port}\nunix_socket_directories='{}'\nwal_level=logical\nmax_wal_senders=20\nmax_replication_slots=20\n\
             fsync=off\nwal_sender_timeout=10s\n{settings}\n",
            server.dir.path().display()
        );
        let file = server.data().join("postgresql.conf");
        let mut content = std::fs::read_to_string(&file).unwrap();
        content.push_str(&configuration);
        std::fs::write(&file, content).unwrap();
        server.up();
        server
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts it again after [`Server::down`].
    pub(crate) fn up(&self) {
        let log = self.dir.path().join("log");
        // The server must not hold the pipes of this process, or waiting for `pg_ctl` would never end.
        let mut command = as_postgres("pg_ctl");
        command
            .args(["-w", "-t", "30", "start", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(log);
        let status = command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Stops it.
    pub(crate) fn down(&self) {
        run(as_postgres("pg_ctl")
            .args(["-w", "-m", "fast", "stop", "-D"])
            .arg(self.data()));
    }

    /// A client that runs statements.
    pub(crate) async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(
            &format!(
                "host=127.0.0.1 port={} user=postgres dbname=postgres",
                self.port
            ),
            NoTls,
        )
        .await
        .unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client
    }

    /// How a source reaches it.
    pub(crate) fn connection(&self) -> PostgresConnection {
        PostgresConnection {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            user: "postgres".to_owned(),
            password: None,
            database: "postgres".to_owned(),
            ssl_mode: SslMode::Disable,
            ssl_root: None,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = as_postgres("pg_ctl")
            .args(["-m", "immediate", "stop", "-D"])
            .arg(self.data())
            .current_dir("/")
            .output();
    }
}

/// Runs statements one after another.
pub(crate) async fn execute(client: &Client, sql: &str) {
    client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// The rows of a query, every value as text.
pub(crate) async fn rows(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    messages
        .into_iter()
        .filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|index| row.get(index).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        })
        .collect()
}

/// The one value of a query.
pub(crate) async fn value(client: &Client, sql: &str) -> String {
    rows(client, sql).await.remove(0).remove(0).unwrap()
}

/// The current end of the WAL.
pub(crate) async fn lsn(client: &Client) -> u64 {
    let text = value(client, "SELECT pg_current_wal_lsn()").await;
    let (high, low) = text.split_once('/').unwrap();
    (u64::from_str_radix(high, 16).unwrap() << 32) | u64::from_str_radix(low, 16).unwrap()
}
