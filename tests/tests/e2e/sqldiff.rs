//! Random statements on the node and on PostgreSQL (`flowstone_tests::sqldiff`): those that agree today for some fixed seeds, and everything for `make sqldiff`.
//!
//! Owns how much of it is run. Must not know what is generated.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use flowstone_tests::sqldiff::{Profile, Report, Settings, run};

/// The seeds that every run of the tests has.
const FIXED_SEEDS: [u64; 2] = [1, 2];

/// How many rounds each of them has: queries, then changes, then all views again.
const ROUNDS: usize = 6;

/// A bound for slow machines; what is not done by then is left out.
const SEED_DURATION: Duration = Duration::from_secs(25);

async fn report(settings: &Settings) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let report = run(settings, dir.path()).await.unwrap();
    println!("{}", report.text());
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_the_kinds_that_hold_agree_with_postgresql() {
    let settings = Settings {
        seeds: FIXED_SEEDS.to_vec(),
        profile: Profile::Held,
        seed_duration: SEED_DURATION,
        rounds: ROUNDS,
        queries: 8,
        shards: vec![1, 3],
    };
    let report = report(&settings).await;
    assert!(
        report.seen.with_rows >= 20 && report.seen.checks >= 20,
        "too little was compared: {:?}",
        report.seen
    );
    assert_eq!(report.failures(), 0, "disagreements, printed above");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is told to, and finds what README's known defects say: make sqldiff"]
async fn statements_of_all_kinds_agree_with_postgresql() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .filter(|text| !text.is_empty())
            .map_or(default, |text| text.parse().unwrap())
    };
    let first = number(
        "FLOWSTONE_SEED",
        RandomState::new().hash_one("sqldiff") % 1_000_000_000,
    );
    let count = number("FLOWSTONE_SQLDIFF_SEEDS", 20);
    let minutes = number("FLOWSTONE_SQLDIFF_MINUTES", 20);
    let settings = Settings {
        seeds: (first..first + count).collect(),
        profile: Profile::Full,
        seed_duration: Duration::from_secs(minutes * 60 / count.max(1)),
        rounds: usize::MAX,
        queries: 20,
        shards: vec![1, 3],
    };
    let report = report(&settings).await;
    let path = std::env::var_os("FLOWSTONE_SQLDIFF_REPORT")
        .map_or_else(|| PathBuf::from("sqldiff.txt"), PathBuf::from);
    let text = format!("first seed {first}, {count} seeds\n{}", report.text());
    std::fs::write(&path, text).unwrap();
    println!("written to {}", path.display());
    assert!(report.seen.with_rows > 0, "nothing was compared");
    assert_eq!(report.failures(), 0, "disagreements, printed above");
}
