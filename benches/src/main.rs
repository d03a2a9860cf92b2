//! Benchmarks with their peers: one module each.
//!
//! Owns the workloads and the report (a table and `results.json` beside the manifest; `RESULTS.md` is written by hand from it). Called by `make bench`.
//! Must not know private items of any crate.
//!
//! Invariants. Answers are compared before anything is timed. A figure with a peer is a ratio of measurements of one run, interleaved with the peer's.

mod arrangement;
mod catalog;
mod freshness;
mod interference;
mod kafka;
mod lookup;
mod nexmark;
mod planning;
mod report;
mod servers;
mod shard;
mod snapshot;
mod tick;

use std::path::Path;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use crate::report::{Scale, Section};

/// Runs benchmarks: all, or the named ones.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Which ones; all if there is none.
    benchmarks: Vec<Benchmark>,
    /// As little as shows that they work. Nothing is written.
    #[arg(long)]
    smoke: bool,
    #[command(subcommand)]
    run: Option<Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    Arrangement,
    Tick,
    Nexmark,
    Snapshot,
    Lookup,
    Freshness,
    Interference,
    Kafka,
    Catalog,
    Planning,
}

#[derive(Debug, Subcommand)]
enum Run {
    /// One run of one Nexmark query, for the benchmark of that name.
    #[command(hide = true)]
    NexmarkRun { arguments: Vec<String> },
}

impl Benchmark {
    fn run(self, scale: Scale) -> Result<Section> {
        match self {
            Self::Arrangement => arrangement::run(scale),
            Self::Tick => tick::run(scale),
            Self::Nexmark => nexmark::run(scale),
            Self::Snapshot => servers::block_on(snapshot::run(scale)),
            Self::Lookup => servers::block_on(lookup::run(scale)),
            Self::Freshness => servers::block_on(freshness::run(scale)),
            Self::Interference => servers::block_on(interference::run(scale)),
            Self::Kafka => servers::block_on(kafka::run(scale)),
            Self::Catalog => servers::block_on(catalog::run(scale)),
            Self::Planning => servers::block_on(planning::run(scale)),
        }
    }

    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Run::NexmarkRun { arguments }) = arguments.run {
        return nexmark::run_query(arguments);
    }
    let scale = if arguments.smoke {
        Scale::Smoke
    } else {
        Scale::Full
    };
    let benchmarks = if arguments.benchmarks.is_empty() {
        Benchmark::value_variants()
    } else {
        &arguments.benchmarks
    };
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/results.json"));
    for benchmark in benchmarks {
        let name = benchmark.name();
        let section = benchmark
            .run(scale)
            .with_context(|| format!("benchmark {name}"))?;
        section.print(&name);
        if scale == Scale::Full {
            section.store(&name, path)?;
        }
    }
    Ok(())
}
