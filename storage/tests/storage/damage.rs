//! A Delta log that is not as it was written: refused with the name of the file, and never a table with other rows.

use std::path::{Path, PathBuf};

use flowstone_storage::{DeltaTables, Error};
use flowstone_types::clock::ManualClock;

use super::*;

/// The newest version of the table, checkpointed some versions ago, and what it holds.
async fn long_table(dir: &Path) -> (i64, Model) {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let tables = DeltaTables::open_with_clock(dir, Arc::<ManualClock>::clone(&clock))
        .await
        .unwrap();
    tables.create(ID, "table", schema()).await.unwrap();
    let mut model = Model::new();
    let mut version = 0;
    for number in 0_u8..56 {
        let mut changes = vec![(row(number % 12), 2)];
        if number % 3 == 2 {
            changes.push((row((number - 1) % 12), -1));
        }
        for (row, weight) in &changes {
            change(&mut model, row.clone(), *weight);
        }
        let epoch = u64::from(number) + 1;
        version = commit(&tables, epoch, changes_only(vec![delta(&changes, epoch)]))
            .await
            .unwrap();
        // Compaction and a checkpoint; what comes after them stays in the log alone.
        if number == 51 {
            tables.maintain(ID).await.unwrap();
        }
    }
    (version, model)
}

fn log_files(dir: &Path) -> Vec<PathBuf> {
    let log = dir.join(ID.to_string()).join("_delta_log");
    let mut files: Vec<PathBuf> = std::fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort_unstable();
    files
}

/// What a table that is opened anew holds; `Err` is the file that is named.
async fn found(dir: &Path, version: i64) -> Result<Model, PathBuf> {
    let named = |error: Error| match error {
        Error::Damaged { file, .. } => file,
        other => panic!("damage is {other:?}"),
    };
    let tables = DeltaTables::open(dir).await.unwrap();
    tables.roll_back(ID, Some(version)).await.map_err(named)?;
    let rows = tables.load(ID, version, schema()).await.map_err(named)?;
    let batches = rows.try_collect::<Vec<_>>().await.map_err(named)?;
    Ok(model_of(&batches))
}

/// Opens the table with `bytes` in the place of `path`, then puts the log back as it was.
async fn found_with(dir: &Path, version: i64, path: &Path, bytes: &[u8]) -> Result<Model, PathBuf> {
    let before = log_files(dir);
    let whole = std::fs::read(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    let outcome = found(dir, version).await;
    std::fs::write(path, whole).unwrap();
    for new in log_files(dir).iter().filter(|file| !before.contains(file)) {
        std::fs::remove_file(new).unwrap();
    }
    outcome
}

/// The files that the newest version is made of: its checkpoint and the versions after that.
fn needed(dir: &Path) -> (PathBuf, Vec<PathBuf>) {
    let files = log_files(dir);
    let is_checkpoint = |path: &&PathBuf| path.to_string_lossy().contains(".checkpoint.");
    let checkpoint = files.iter().rfind(is_checkpoint).unwrap().clone();
    let number = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.split_once('.').unwrap().0.to_owned()
    };
    let versions = files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .filter(|path| number(path) > number(&checkpoint))
        .cloned()
        .collect();
    (checkpoint, versions)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (version, model) = long_table(dir.path()).await;
    let (_, versions) = needed(dir.path());
    assert!(versions.len() > 2, "{versions:?}");
    for path in &versions {
        let bytes = std::fs::read(path).unwrap();
        let actions = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        // Cut short anywhere, between two lines above all.
        let ends = bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .map(|(at, _)| at + 1);
        for length in ends.chain([0, 1, actions / 2, bytes.len() / 2]) {
            if length == bytes.len() {
                continue;
            }
            let outcome = found_with(dir.path(), version, path, &bytes[..length]).await;
            assert_eq!(outcome, Err(path.clone()), "the first {length} bytes");
        }
        // A single bit, in the actions: refused. In the first line, which says nothing of the rows: refused, or without effect.
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let outcome = found_with(dir.path(), version, path, &damaged).await;
            if at > actions {
                assert_eq!(outcome, Err(path.clone()), "byte {at}");
            } else if let Ok(found) = outcome {
                assert_eq!(found, model, "byte {at}");
            }
        }
    }
    assert_eq!(found(dir.path(), version).await, Ok(model));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (version, model) = long_table(dir.path()).await;
    let (_, versions) = needed(dir.path());
    for path in &versions {
        let bytes = std::fs::read(path).unwrap();
        std::fs::remove_file(path).unwrap();
        let outcome = found(dir.path(), version).await;
        assert_eq!(outcome, Err(path.clone()));
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(found(dir.path(), version).await, Ok(model));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_refused_by_name_or_leads_to_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (version, model) = long_table(dir.path()).await;
    let (checkpoint, _) = needed(dir.path());
    let bytes = std::fs::read(&checkpoint).unwrap();
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(bytes.len() / 150) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        match found_with(dir.path(), version, &checkpoint, &damaged).await {
            Ok(found) => assert_eq!(found, model, "byte {at}"),
            Err(file) => {
                assert_eq!(file, checkpoint, "byte {at}");
                refused += 1;
            }
        }
    }
    assert!(refused > 20, "{refused} were refused");
    for length in [0, 3, bytes.len() / 2, bytes.len() - 1] {
        let outcome = found_with(dir.path(), version, &checkpoint, &bytes[..length]).await;
        assert_eq!(outcome, Err(checkpoint.clone()), "the first {length} bytes");
    }
    // What points to the checkpoint is a hint: damaged, it costs time at most.
    let hint = checkpoint.with_file_name("_last_checkpoint");
    for damaged in [&b""[..], b"{", b"{\"version\":7,\"size\":1}"] {
        match found_with(dir.path(), version, &hint, damaged).await {
            Ok(found) => assert_eq!(found, model),
            Err(file) => assert!(file.starts_with(dir.path()), "{}", file.display()),
        }
    }
}
