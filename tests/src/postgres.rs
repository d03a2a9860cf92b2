//! A scratch PostgreSQL server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tokio_postgres::Client;

use crate::free_port;
use crate::node::connect;

/// A PostgreSQL 15 of its own, with logical replication on.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    bin: PathBuf,
    port: u16,
}

impl Postgres {
    /// Makes a cluster under `dir` and starts it.
    ///
    /// # Errors
    /// PostgreSQL is not installed or does not start.
    pub fn start(dir: &Path) -> Result<Self> {
        let bin = PathBuf::from("/usr/lib/postgresql/15/bin");
        let postgres = Self {
            dir: dir.join("postgres"),
            bin,
            port: free_port()?,
        };
        std::fs::create_dir_all(&postgres.dir)?;
        if is_root() {
            // The server refuses to run as root; its user must reach the directory.
            run(Command::new("chmod").args(["a+rx"]).arg(dir))?;
            run(Command::new("chown").arg("postgres").arg(&postgres.dir))?;
        }
        let data = postgres.dir.join("data");
        run(postgres.command("initdb").arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]))?;
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nwal_level = logical\nmax_wal_senders = 20\n\
             max_replication_slots = 20\nfsync = off\nwal_sender_timeout = 30s\n",
            postgres.port,
            postgres.dir.display()
        );
        let write = format!("cat >> '{}'", data.join("postgresql.conf").display());
        let mut child = postgres
            .as_server_user("sh")
            .args(["-c", &write])
            .stdin(Stdio::piped())
            .spawn()?;
        std::io::Write::write_all(
            child.stdin.as_mut().context("no standard input")?,
            settings.as_bytes(),
        )?;
        drop(child.stdin.take());
        if !child.wait()?.success() {
            bail!("could not write postgresql.conf");
        }
        postgres.start_server()?;
        Ok(postgres)
    }

    /// Starts the server again after [`Postgres::stop`].
    ///
    /// # Errors
    /// It does not start.
    pub fn start_server(&self) -> Result<()> {
        let log = self.dir.join("log");
        run(self
            .command("pg_ctl")
            .arg("-D")
            .arg(self.dir.join("data"))
            .arg("-l")
            .arg(log)
            .args(["-w", "-t", "60", "start"]))
    }

    /// Stops the server at once, as a restart for maintenance does.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(&self) -> Result<()> {
        run(self
            .command("pg_ctl")
            .arg("-D")
            .arg(self.dir.join("data"))
            .args(["-w", "-m", "fast", "stop"]))
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A connection as the superuser.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn connect(&self) -> Result<Client> {
        connect(&format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres",
            self.port
        ))
        .await
    }

    /// A command of PostgreSQL's that connects to this server (`pgbench`, `psql`).
    #[must_use]
    pub fn client_command(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            "postgres",
        ]);
        command
    }

    fn command(&self, name: &str) -> Command {
        self.as_server_user(&self.bin.join(name).display().to_string())
    }

    fn as_server_user(&self, program: &str) -> Command {
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", program]);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let stopped = self
            .command("pg_ctl")
            .arg("-D")
            .arg(self.dir.join("data"))
            .args(["-m", "immediate", "stop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        drop(stopped);
    }
}

pub(crate) fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
