//! A scratch MySQL 9 or MariaDB 10.11, with its binary log on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::free_port;
use crate::postgres::is_root;
use crate::process::{Process, installed, run};

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MysqlKind {
    /// Oracle's.
    Mysql,
    /// MariaDB's.
    Mariadb,
}

impl MysqlKind {
    /// The name that `tests/servers/install.sh` knows it by.
    const fn name(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        }
    }

    /// The right to ask where the log ends.
    const fn log_privilege(self) -> &'static str {
        match self {
            Self::Mysql => "REPLICATION CLIENT",
            Self::Mariadb => "BINLOG MONITOR",
        }
    }
}

/// A server of its own: whole rows with their names in the log, transactions with ids, UTC. It has a database `test`, `root` without a password,
/// and `cdc` with the password `cdc-secret`, which may read everything and the log.
#[derive(Debug)]
pub struct Mysql {
    dir: PathBuf,
    kind: MysqlKind,
    port: u16,
    process: Option<Process>,
}

impl Mysql {
    /// Starts a MySQL that keeps its data under `dir`.
    ///
    /// # Errors
    /// It is not installed, or does not serve in time.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_kind(dir, MysqlKind::Mysql).await
    }

    /// Starts one or the other.
    ///
    /// # Errors
    /// It is not installed, or does not serve in time.
    pub async fn start_kind(dir: &Path, kind: MysqlKind) -> Result<Self> {
        let mut mysql = Self {
            dir: dir.join(kind.name()),
            kind,
            port: free_port()?,
            process: None,
        };
        std::fs::create_dir_all(&mysql.dir)?;
        run(Command::new("cp")
            .arg("-a")
            .arg(installed(kind.name())?.join("template"))
            .arg(mysql.dir.join("data")))?;
        // One statement a line: MariaDB reads no further.
        let statements = [
            "SET SESSION sql_log_bin=0;".to_owned(),
            "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1' IDENTIFIED BY '';".to_owned(),
            "GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;".to_owned(),
            "CREATE USER IF NOT EXISTS 'cdc'@'%' IDENTIFIED BY 'cdc-secret';".to_owned(),
            format!(
                "GRANT SELECT, RELOAD, SHOW DATABASES, LOCK TABLES, REPLICATION SLAVE, {} ON *.* TO 'cdc'@'%';",
                kind.log_privilege()
            ),
            "CREATE DATABASE IF NOT EXISTS test;\n".to_owned(),
        ];
        std::fs::write(mysql.dir.join("init.sql"), statements.join("\n"))?;
        mysql.restart().await?;
        Ok(mysql)
    }

    /// Starts the server again, killing it before if it runs.
    ///
    /// # Errors
    /// It does not serve in time.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        // What a killed server leaves and would be refused for.
        for file in ["pid", "socket", "socket.lock"] {
            match std::fs::remove_file(self.dir.join(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        let mut process = Process::spawn(
            self.kind.name(),
            &self.dir.join("log"),
            &mut self.command()?,
        )?;
        process
            .wait_ready(async || {
                self.execute("SELECT 1")
                    .map(drop)
                    .map_err(|error| format!("{error:#}"))
            })
            .await?;
        self.process = Some(process);
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let mut command = match self.kind {
            MysqlKind::Mysql => {
                let mut command = Command::new(installed("mysql")?.join("mysqld"));
                command.args([
                    "--gtid-mode=ON",
                    "--enforce-gtid-consistency=ON",
                    "--mysqlx=OFF",
                    "--performance-schema=OFF",
                ]);
                command
            }
            MysqlKind::Mariadb => {
                let mut command = Command::new("mariadbd");
                command.args([
                    "--no-defaults",
                    "--binlog-format=ROW",
                    "--gtid-strict-mode=1",
                ]);
                command
            }
        };
        if is_root() {
            command.arg("--user=root");
        }
        let path = |file: &str| self.dir.join(file).display().to_string();
        command
            .arg(format!("--datadir={}", path("data")))
            .arg(format!("--socket={}", path("socket")))
            .arg(format!("--pid-file={}", path("pid")))
            .arg(format!("--init-file={}", path("init.sql")))
            .arg(format!("--port={}", self.port))
            .args([
                "--bind-address=127.0.0.1",
                "--server-id=1",
                "--log-bin=binlog",
                "--binlog-row-metadata=FULL",
                "--binlog-row-image=FULL",
                "--default-time-zone=+00:00",
                "--innodb-buffer-pool-size=64M",
                // A crash of the machine is not tested.
                "--innodb-flush-log-at-trx-commit=2",
                "--sync-binlog=0",
            ]);
        Ok(command)
    }

    /// SIGKILL, now.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Ends the server as for maintenance.
    ///
    /// # Errors
    /// It is not running, or does not end in time.
    pub async fn stop(&mut self) -> Result<()> {
        let process = self.process.take().context("it is not running")?;
        process.stop().await
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements as `root` in the database `test`: the rows, with tabs between columns.
    ///
    /// # Errors
    /// What the server says.
    pub fn execute(&self, sql: &str) -> Result<String> {
        let mut child = Command::new("mariadb")
            .args(["--no-defaults", "--host=127.0.0.1", "--user=root"])
            .args(["--batch", "--skip-column-names", "--connect-timeout=10"])
            .args(["--default-character-set=utf8mb4", "--database=test"])
            .arg(format!("--port={}", self.port))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run mariadb: deploy/setup.sh installs it")?;
        let mut input = child.stdin.take().context("no standard input")?;
        let statements = sql.to_owned();
        // Beside the reading of its output, so that neither waits for the other. A client that has ended says why by itself.
        let writer = std::thread::spawn(move || {
            drop(std::io::Write::write_all(&mut input, statements.as_bytes()));
        });
        let output = child.wait_with_output()?;
        drop(writer.join());
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
