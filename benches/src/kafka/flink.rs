//! Flink SQL as a peer: `benches/peers/flink`, a process that stays and reads a topic each time it is asked to.
//!
//! Owns that process, and how much of the processors a process takes. Must not know what messages say. Everything here blocks. Called by `kafka`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::servers::processor_seconds;

/// What runs the peer, if it is not where `benches/peers/flink/install.sh` puts it.
const PROGRAM_VARIABLE: &str = "FLOWSTONE_BENCH_FLINK";

/// How long something took, and of how many processors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    pub(super) seconds: f64,
    /// Of one process, all its threads together.
    pub(super) cpu_seconds: f64,
}

/// Since when a process is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pid: u32,
    begin: Instant,
    cpu_seconds: f64,
}

/// The process, and the cluster in it.
#[derive(Debug)]
pub(super) struct Flink {
    child: Child,
    topics: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Watch {
    pub(super) fn start(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            cpu_seconds: processor_seconds(pid)?,
            begin: Instant::now(),
        })
    }

    pub(super) fn took(&self) -> Result<Took> {
        let seconds = self.begin.elapsed().as_secs_f64();
        Ok(Took {
            seconds,
            cpu_seconds: processor_seconds(self.pid)? - self.cpu_seconds,
        })
    }
}

impl Flink {
    /// Starts it, unless it is not installed. `parallelism`: how many tasks read, and as many slots has the cluster. `deadline`: for each reading of a topic.
    pub(super) fn start(
        broker: &str,
        registry: &str,
        parallelism: usize,
        deadline: Duration,
    ) -> Result<Option<Self>> {
        let program = program();
        if !program.exists() {
            return Ok(None);
        }
        let mut child = Command::new(&program)
            .args([broker, registry])
            .arg(parallelism.to_string())
            .arg(deadline.as_secs().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let topics = child.stdin.take().context("Flink has no input")?;
        let answers = child.stdout.take().context("Flink has no output")?;
        let mut flink = Self {
            child,
            topics,
            answers: BufReader::new(answers),
        };
        let said = flink.line()?;
        if said != "ready" {
            bail!("Flink is not ready: {said}");
        }
        Ok(Some(flink))
    }

    /// Reads a topic: what it took, and the sums of what is in it.
    pub(super) fn read(&mut self, topic: &str) -> Result<(Took, Vec<i64>)> {
        let watch = Watch::start(self.child.id())?;
        writeln!(self.topics, "{topic}")?;
        self.topics.flush()?;
        let line = self.line()?;
        let took = watch.took()?;
        let sums: Result<Vec<i64>, _> = line.split(' ').map(str::parse::<i64>).collect();
        Ok((took, sums.with_context(|| format!("no sums: {line}"))?))
    }

    /// Its next line. It ends by itself where a job fails or takes too long.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("Flink ended; it has said why");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Flink {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn program() -> PathBuf {
    if let Some(program) = std::env::var_os(PROGRAM_VARIABLE) {
        return program.into();
    }
    let cache = std::env::var_os("FLOWSTONE_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/flowstone"),
        PathBuf::from,
    );
    cache.join("peers/flink/run")
}
