//! A PostgreSQL server that stands still: its processes are stopped by SIGSTOP, and go on when the value is dropped. Called by `cases`.

use std::io;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Result, bail};
use tokio_postgres::Client;

/// The processes that were stopped.
pub(super) struct Stopped(Vec<i32>);

impl Stopped {
    /// Stops the server that a superuser is connected to, with all its processes.
    pub(super) async fn server(upstream: &Client) -> Result<Self> {
        let postmaster: i32 = upstream
            .query_one(
                r"SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)::int",
                &[],
            )
            .await?
            .try_get(0)?;
        let mut stopped = Self(vec![postmaster]);
        // It first: from then on no process is added.
        let status = stopped.signal("-STOP")?;
        if !status.success() {
            bail!("kill -STOP {postmaster} failed with {status}");
        }
        let others = upstream
            .query("SELECT pid FROM pg_stat_activity", &[])
            .await?;
        for other in &others {
            stopped.0.push(other.try_get(0)?);
        }
        // One that has ended meanwhile makes `kill` fail, and the others are stopped all the same.
        let _status = stopped.signal("-STOP")?;
        Ok(stopped)
    }

    fn signal(&self, signal: &str) -> io::Result<ExitStatus> {
        Command::new("kill")
            .arg(signal)
            .args(self.0.iter().map(i32::to_string))
            .stderr(Stdio::null())
            .status()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.signal("-CONT"));
    }
}
