//! How a run of one query is asked for and what it answers: the same for this crate and for the peer's.
//!
//! Must not know any engine: this file is compiled into both.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::events::Digest;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// For the digest of the answer.
    Check,
    /// For its speed: all events are there, as the engine takes them, before the first tick.
    Time,
    /// For its memory: the events of a tick are made right before it.
    Memory,
}

/// A run of one query.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) query: String,
    pub(crate) mode: Mode,
    pub(crate) events: u64,
    pub(crate) events_per_tick: u64,
    pub(crate) seed: u64,
}

impl Request {
    /// `QUERY check|time|memory EVENTS EVENTS_PER_TICK SEED`
    pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut next = |what: &str| {
            arguments
                .next()
                .with_context(|| format!("{what} is missing"))
        };
        let query = next("the query")?;
        let mode = match next("the mode")?.as_str() {
            "check" => Mode::Check,
            "time" => Mode::Time,
            "memory" => Mode::Memory,
            other => bail!("no mode \"{other}\""),
        };
        Ok(Self {
            query,
            mode,
            events: next("the number of events")?.parse()?,
            events_per_tick: next("the number of events per tick")?.parse()?,
            seed: next("the seed")?.parse()?,
        })
    }

    /// How many events each tick has.
    pub(crate) fn ticks(&self) -> impl Iterator<Item = u64> + use<> {
        let (all, each) = (self.events, self.events_per_tick.max(1));
        (0..all.div_ceil(each)).map(move |tick| each.min(all - tick * each))
    }
}

/// The answer as JSON: `seconds` of all ticks and of the slowest one, the peak of the process's memory and the part of it that was there before the first
/// event (the program, its libraries, the query's operators), the digest.
pub(crate) fn answer(
    times: &[Duration],
    idle_mib: f64,
    digest: &Digest,
) -> Result<serde_json::Value> {
    let slowest = times.iter().max().copied().unwrap_or_default();
    Ok(json!({
        "seconds": times.iter().sum::<Duration>().as_secs_f64(),
        "slowest_tick_seconds": slowest.as_secs_f64(),
        "idle_mib": idle_mib,
        "peak_mib": peak_mib()?,
        "digest": {
            "rows": digest.rows,
            "changes": digest.changes,
            "content": format!("{:016x}", digest.content),
            "history": format!("{:016x}", digest.history),
        },
    }))
}

/// The largest resident size of this process so far.
pub(crate) fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no VmHWM in /proc/self/status")?;
    let kib: f64 = line
        .trim()
        .trim_end_matches("kB")
        .trim_end()
        .parse()
        .context("VmHWM is not in kB")?;
    Ok(kib / 1024.0)
}
