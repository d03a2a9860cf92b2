//! Interference: how long a small INSERT and a lookup by key wait while the node is busy with something large, or its surroundings are not well.
//!
//! Open loop: statements are due at an even rate whatever became of those before, and a latency counts from when its statement was due (see [`probe`]). So
//! a stall of two seconds is in the latencies of all the statements due in it. A connection has one statement at a time: where they take longer than the
//! pause between them, waits grow with the length of the case. `slowest_statement_ms` among the details is the longest from sending to answer.
//!
//! Owns the sizes, the order of measurements, and the figures. `cases` knows what goes on in each, `measure` what is the same in all.

mod cases;
mod disk;
mod measure;
mod probe;
mod stopped;

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::report::{Aim, Better, Figure, Scale, Section, percentile};
use cases::{Case, Stage};
use measure::Measured;
use probe::{BOUND, Probe};

/// What 99 of 100 statements should be answered within, whatever goes on.
const AIM_MS: f64 = 20.0;

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Of the table that views are over, and of the one in PostgreSQL.
    rows: i64,
    customers: i64,
    copied_rows: i64,
    /// How long the cases go on that do not end by themselves.
    steady: Duration,
    /// How long PostgreSQL stands still. In full, longer than a source waits for a server that says nothing (a minute), so that it tries to connect as well.
    stalled: Duration,
    /// How often a Delta commit finds the disk full. Pauses between tries double from 100 ms to 5 s, and each tries the table and its view.
    refusals: usize,
}

impl Size {
    fn of(scale: Scale) -> Self {
        Self {
            rows: scale.pick(2_000_000, 5_000),
            customers: scale.pick(100_000, 500),
            copied_rows: scale.pick(10_000_000, 20_000),
            steady: scale.pick(Duration::from_secs(20), Duration::from_secs(1)),
            stalled: scale.pick(Duration::from_secs(90), Duration::from_secs(2)),
            refusals: scale.pick(18, 14),
        }
    }
}

pub(crate) async fn run(scale: Scale) -> Result<Section> {
    let size = Size::of(scale);
    let repetitions = scale.repetitions(1)?;
    let found = measure_all(size, repetitions).await?;
    let mut figures = Vec::new();
    let (_, idle) = found.first().context("idle is a case")?;
    for (case, runs) in &found {
        for probe in Probe::ALL {
            figures.extend(latencies(case, probe, runs, idle));
            figures.extend(failures(case, probe, runs));
        }
    }
    let details: Vec<Value> = found
        .iter()
        .map(|(case, runs)| json!({"case": case, "runs": runs.iter().map(run_json).collect::<Vec<_>>()}))
        .collect();
    Ok(Section {
        method: format!(
            "a row inserted every {:?} into a table with a small view, and a lookup by key every {:?} in the view's index, while the case goes on; views over {} \
             rows, a snapshot of as many, a COPY of {}; {repetitions} repetitions of all cases in turn; from when a statement was due until its answer, or until \
             it was given up {BOUND:?} after it was sent; clients and PostgreSQL run on the same machine",
            Probe::Insert.interval(),
            Probe::Lookup.interval(),
            size.rows,
            size.copied_rows
        ),
        figures,
        details: json!(details),
    })
}

/// All runs of all cases; the first case is idle.
async fn measure_all(size: Size, repetitions: usize) -> Result<Vec<(&'static str, Vec<Measured>)>> {
    let stage = Stage::start(size).await?;
    let mut found: Vec<(&'static str, Vec<Measured>)> = Vec::new();
    for case in Case::ALL {
        found.push((case.name(), Vec::new()));
    }
    for _ in 0..repetitions {
        for (case, (name, runs)) in itertools::zip_eq(Case::ALL, &mut found) {
            let run = stage.measure(case).await;
            runs.push(run.with_context(|| format!("case {name}"))?);
        }
    }
    Ok(found)
}

/// The latencies of one probe in one case, beside those of idle.
fn latencies(case: &str, probe: Probe, runs: &[Measured], idle: &[Measured]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (what, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
        let of = |runs: &[Measured]| -> Vec<f64> {
            let waits = runs.iter().map(|run| &run.of(probe).waits_ms);
            waits.map(|waits| percentile(waits, percent)).collect()
        };
        let name = format!("{case}: {} {what}", probe.name());
        let mut figure = Figure::new(name, "ms", Better::Lower, of(runs));
        if case != Case::Idle.name() {
            figure = figure.against("idle", of(idle));
        }
        if percent == 99 {
            figure = figure.aim(Aim::AtMost(AIM_MS));
        }
        figures.push(figure);
    }
    figures
}

/// How many statements of each run had no answer or were refused, where any were.
fn failures(case: &str, probe: Probe, runs: &[Measured]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let unanswered: Vec<u32> = runs.iter().map(|run| run.of(probe).unanswered).collect();
    let refused: Vec<u32> = runs.iter().map(|run| run.of(probe).refused).collect();
    for (what, counts) in [
        (format!("without an answer after {BOUND:?}"), unanswered),
        ("refused".to_owned(), refused),
    ] {
        if counts.iter().any(|count| *count > 0) {
            let name = format!("{case}: {} {what}", probe.name());
            let counts = counts.into_iter().map(f64::from).collect();
            figures.push(Figure::new(name, "statements", Better::Lower, counts));
        }
    }
    figures
}

fn run_json(run: &Measured) -> Value {
    let probe = |probe: Probe| {
        let seen = run.of(probe);
        json!({
            "statements": seen.waits_ms.len(),
            "slowest_statement_ms": seen.slowest_ms,
            "longest_wait_ms": percentile(&seen.waits_ms, 100),
            "unanswered": seen.unanswered,
            "refused": seen.refused,
            "first_refusal": seen.refusal,
        })
    };
    json!({
        "seconds": run.seconds,
        "rested_before": run.rested,
        "insert": probe(Probe::Insert),
        "lookup": probe(Probe::Lookup),
    })
}
