//! A run: a PostgreSQL for all seeds, nodes for each.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::profile::Profile;
use super::report::Report;
use super::round::{Round, Side};
use crate::Postgres;

/// What a run does.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The seeds, one after another.
    pub seeds: Vec<u64>,
    /// How much is tried.
    pub profile: Profile,
    /// How long each seed may take.
    pub seed_duration: Duration,
    /// How many rounds each seed has at most.
    pub rounds: usize,
    /// How many queries a round has.
    pub queries: usize,
    /// A node for each of these numbers of shards.
    pub shards: Vec<usize>,
}

/// Runs all seeds on servers of its own, which live in `dir`.
///
/// # Errors
/// A server does not start, or tables cannot be made.
pub async fn run(settings: &Settings, dir: &Path) -> Result<Report> {
    let postgres = Postgres::start(dir)?;
    let mut report = Report::new();
    for (place, seed) in settings.seeds.iter().enumerate() {
        eprintln!("sqldiff: seed {seed}");
        let started = Instant::now();
        let mut sides = Vec::new();
        for shards in &settings.shards {
            let node_dir = dir.join(format!("node_{shards}_{place}"));
            std::fs::create_dir_all(&node_dir)?;
            let side = Side::start(&postgres, &node_dir, *shards, place, settings.profile);
            sides.push(side.await?);
        }
        let mut round = Round::new(&postgres, sides, settings, (place, *seed), &mut report).await?;
        let ended = round.run().await;
        drop(round);
        if let Err(error) = ended {
            report.stop(*seed, &error);
        }
        eprintln!(
            "sqldiff: seed {seed} took {:?}; {:?}; {} kinds of disagreements so far",
            started.elapsed(),
            report.seen,
            report.failures()
        );
    }
    Ok(report)
}
