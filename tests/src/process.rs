//! Servers as processes of their own: started, seen to be ready, stopped, killed. And where `tests/servers/install.sh` puts them.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait;

/// How long a server may take until it serves: many start at once, on few cores.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// How long a server may take to end by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// A running server. It is killed with its value, and shows the end of its log if a test fails.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    log_path: PathBuf,
    /// Where in the log this process begins.
    log_start: u64,
    child: Child,
}

impl Process {
    /// Starts a server that writes its log to standard output or standard error; the log is appended to.
    pub(crate) fn spawn(name: &str, log_path: &Path, command: &mut Command) -> Result<Self> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log_path)?;
        let log_start = log.metadata()?.len();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            log_path: log_path.to_owned(),
            log_start,
            child,
        })
    }

    /// Waits until the server is ready, and fails once it has exited.
    pub(crate) async fn wait_ready(
        &mut self,
        mut ready: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<()> {
        let what = format!("{} to serve", self.name);
        let exited = wait::until(&what, START_DEADLINE, async || {
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(Some(status)),
                Ok(None) => ready().await.map(|()| None),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .with_context(|| self.log_tail())?;
        match exited {
            None => Ok(()),
            Some(status) => bail!("{} exited with {status}: {}", self.name, self.log_tail()),
        }
    }

    /// Waits until the log of this process holds `text`.
    pub(crate) async fn wait_log(&mut self, text: &str) -> Result<()> {
        let (log_path, log_start) = (self.log_path.clone(), self.log_start);
        self.wait_ready(async || match log_since(&log_path, log_start) {
            Ok(log) if log.contains(text) => Ok(()),
            Ok(_) => Err(format!("its log does not say \"{text}\"")),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&self) -> Result<()> {
        self.signal("-TERM")
    }

    /// Sends a signal, as `kill` takes it.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        run(Command::new("kill").args([signal, &self.child.id().to_string()])).map(drop)
    }

    /// SIGTERM, and waits for its end; what its exit status is does not matter (Java's is that of the signal).
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.terminate()?;
        let what = format!("{} to exit", self.name);
        wait::until(&what, STOP_DEADLINE, async || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("still running".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    fn log_tail(&self) -> String {
        let log = log_since(&self.log_path, self.log_start).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(30).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        format!("{}:\n{}", self.log_path.display(), lines.join("\n"))
    }
}

impl Drop for Process {
    /// SIGKILL, now.
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- last lines of {}, {}", self.name, self.log_tail());
        }
    }
}

fn log_since(path: &Path, start: u64) -> Result<String> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut log = Vec::new();
    file.read_to_end(&mut log)?;
    Ok(String::from_utf8_lossy(&log).into_owned())
}

/// The directory of a server that `tests/servers/install.sh` installs.
pub(crate) fn installed(server: &str) -> Result<PathBuf> {
    let cache = std::env::var_os("FLOWSTONE_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/flowstone"),
        PathBuf::from,
    );
    let directory = cache.join("servers").join(server);
    if !directory.join(".installed").exists() {
        bail!(
            "{server} is not installed: tests/servers/install.sh {server} does (make test runs it)"
        );
    }
    Ok(directory)
}

/// A file of `tests/servers`.
pub(crate) fn settings(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("servers")
        .join(file)
}

/// Runs a command to its end: what it wrote to standard output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{command:?} failed: {printed}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(printed)
}
