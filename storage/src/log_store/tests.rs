use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};

use super::acknowledged::AcknowledgedFile;
use super::*;

fn record(epoch: u64) -> LogRecord {
    let schema = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Utf8, true),
    ]));
    let numbers = Int64Array::from(vec![Some(1), None, i64::try_from(epoch).ok()]);
    let texts = StringArray::from(vec![Some("x"), Some(""), None]);
    let rows = arrow_array::RecordBatch::try_new(schema, vec![Arc::new(numbers), Arc::new(texts)])
        .unwrap();
    let weights = match epoch % 3 {
        0 => Weights::AllOne,
        1 => Weights::Const(-2),
        _ => Weights::Array(Int64Array::from(vec![1, -1, 3])),
    };
    let batch = DeltaBatch::new(rows, weights, Epoch(epoch));
    LogRecord {
        epoch: Epoch(epoch),
        changes: vec![
            (ObjectId::User(7), batch.clone()),
            (ObjectId::System(1), batch),
        ],
        blobs: Vec::new(),
    }
}

fn same(left: &LogRecord, right: &LogRecord) -> bool {
    left.epoch == right.epoch
        && itertools::equal(
            left.changes
                .iter()
                .map(|(id, batch)| (id, &batch.rows, batch.weights.clone(), batch.epoch)),
            right
                .changes
                .iter()
                .map(|(id, batch)| (id, &batch.rows, batch.weights.clone(), batch.epoch)),
        )
}

fn assert_records(found: &[LogRecord], epochs: std::ops::RangeInclusive<u64>) {
    assert_eq!(
        found
            .iter()
            .map(|record| record.epoch.0)
            .collect::<Vec<_>>(),
        epochs.clone().collect::<Vec<_>>()
    );
    for (found, epoch) in itertools::zip_eq(found, epochs) {
        assert!(same(found, &record(epoch)));
    }
}

/// Opens the log and recovers it where no table holds anything.
fn opened(dir: &Path) -> (LogStore, Vec<LogRecord>) {
    let (mut log, records) = LogStore::open(dir).unwrap();
    log.recover(Epoch::MIN, None).unwrap();
    (log, records)
}

/// A log with these records, of which all but the last are acknowledged. Returns its segment.
fn filled(dir: &Path, epochs: std::ops::RangeInclusive<u64>) -> PathBuf {
    let (mut log, _) = opened(dir);
    for epoch in epochs {
        log.acknowledge().unwrap();
        log.append(&record(epoch)).unwrap();
    }
    let path = log.open.as_ref().unwrap().segment.path.clone();
    drop(log);
    path
}

#[test]
fn records_come_back_in_order_and_epochs_must_increase() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 1..=5);
    let (mut log, records) = opened(dir.path());
    assert_records(&records, 1..=5);
    assert!(matches!(log.append(&record(5)), Err(Error::Invariant(_))));
    log.append(&record(6)).unwrap();
    drop(log);
    assert_records(&opened(dir.path()).1, 1..=6);
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), 1..=3);
    let bytes = std::fs::read(&path).unwrap();
    let note = std::fs::read(AcknowledgedFile::path_in(dir.path())).unwrap();
    let two = HEADER_BYTES
        + (1..=2)
            .map(|epoch| RECORD_HEADER_BYTES + codec::encode_record(&record(epoch)).unwrap().len())
            .sum::<usize>();
    for cut in two..bytes.len() {
        for tail in [
            &bytes[..cut],
            &[&bytes[..cut], &vec![0; bytes.len() - cut][..]].concat(),
        ] {
            // A tail of zeros is what a file system leaves that had grown the file before it wrote the data.
            if tail == bytes.as_slice() {
                continue;
            }
            std::fs::write(&path, tail).unwrap();
            std::fs::write(AcknowledgedFile::path_in(dir.path()), &note).unwrap();
            let (mut log, records) = opened(dir.path());
            assert_records(&records, 1..=2);
            // Appending again is tried now and then: each time costs syncs.
            if !cut.is_multiple_of(16) {
                continue;
            }
            log.append(&record(3)).unwrap();
            drop(log);
            assert_records(&opened(dir.path()).1, 1..=3);
        }
    }
}

#[test]
fn a_segment_torn_in_its_header_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 1..=2);
    for length in 0..HEADER_BYTES {
        std::fs::write(
            dir.path().join(codec::segment_name(Epoch(3))),
            &codec::header(Epoch(3), Epoch(2))[..length],
        )
        .unwrap();
        let (log, records) = opened(dir.path());
        assert_records(&records, 1..=2);
        drop(log);
    }
}

#[test]
fn damage_before_the_tail_is_refused_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), 1..=3);
    let bytes = std::fs::read(&path).unwrap();
    let last = RECORD_HEADER_BYTES + codec::encode_record(&record(3)).unwrap().len();
    for at in 0..bytes.len() - last {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&path, &damaged).unwrap();
        match LogStore::open(dir.path()) {
            Err(Error::Damaged { file, .. } | Error::NewerFormat { file, .. }) => {
                assert_eq!(file, path)
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
    // A closed segment has no tail: even its last record must be whole.
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    std::fs::write(
        dir.path().join(codec::segment_name(Epoch(9))),
        codec::header(Epoch(9), Epoch(3)),
    )
    .unwrap();
    assert!(matches!(
        LogStore::open(dir.path()),
        Err(Error::Damaged { .. })
    ));
}

#[test]
fn a_newer_format_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut header = codec::header(Epoch(1), Epoch::MIN);
    header[8] += 1;
    std::fs::write(dir.path().join(codec::segment_name(Epoch(1))), header).unwrap();
    assert!(matches!(
        LogStore::open(dir.path()),
        Err(Error::NewerFormat { found, supported, .. }) if found == supported + 1
    ));
}

#[test]
fn a_full_disk_fails_the_append_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(dir.path());
    log.append(&record(1)).unwrap();
    log.acknowledge().unwrap();
    for free in [0, 1, 11, 12, 100] {
        log.bytes_free = Some(free);
        let error = log.append(&record(2)).unwrap_err();
        assert!(error.retryable());
        let open = log.open.as_ref().unwrap();
        assert_eq!(
            std::fs::metadata(&open.segment.path).unwrap().len(),
            open.length
        );
    }
    log.bytes_free = None;
    log.append(&record(2)).unwrap();
    drop(log);
    assert_records(&opened(dir.path()).1, 1..=2);
}

#[test]
fn a_record_beyond_its_length_field_is_refused_with_what_fits() {
    // Zeros that nobody reads take no memory.
    let payload = vec![0_u8; usize::try_from(1_u64 << 32).unwrap()];
    let error = codec::frame(&payload, Epoch(1)).unwrap_err();
    assert!(!error.retryable());
    assert!(matches!(
        error,
        Error::TooLarge {
            bytes: 0x1_0000_0000,
            limit: 0xffff_ffff
        }
    ));
}

#[test]
fn truncation_drops_what_is_below_and_keeps_what_is_above() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(dir.path());
    for epoch in 1..=3 {
        log.append(&record(epoch)).unwrap();
        log.acknowledge().unwrap();
    }
    log.truncate_through(Epoch(2)).unwrap();
    assert_records(&opened(dir.path()).1, 1..=3);
    log.truncate_through(Epoch(3)).unwrap();
    assert_eq!(segments(dir.path()), Vec::<PathBuf>::new());
    log.append(&record(4)).unwrap();
    log.acknowledge().unwrap();
    log.close_segment();
    log.append(&record(5)).unwrap();
    log.truncate_through(Epoch(4)).unwrap();
    drop(log);
    let (mut log, records) = LogStore::open(dir.path()).unwrap();
    log.recover(Epoch(4), None).unwrap();
    assert_records(&records, 5..=5);
}

#[test]
fn a_disk_too_full_for_a_new_segment_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(dir.path());
    log.bytes_free = Some(5);
    log.append(&record(1)).unwrap_err();
    assert_eq!(segments(dir.path()), Vec::<PathBuf>::new());
    log.bytes_free = None;
    log.append(&record(2)).unwrap();
    drop(log);
    assert_records(&opened(dir.path()).1, 2..=2);
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| codec::segment_epoch(path).is_some())
        .collect();
    found.sort();
    found
}

/// A log whose records are all acknowledged, in as many segments as there are ranges. Returns its identity and the segments.
fn acknowledged(dir: &Path, parts: &[std::ops::RangeInclusive<u64>]) -> ([u8; 16], Vec<PathBuf>) {
    let (mut log, _) = LogStore::open(dir).unwrap();
    let identity = log.recover(Epoch::MIN, None).unwrap().identity;
    for part in parts {
        log.close_segment();
        for epoch in part.clone() {
            log.append(&record(epoch)).unwrap();
            log.acknowledge().unwrap();
        }
    }
    // Whatever commit point a test speaks of.
    log.note_commit(Epoch(1000)).unwrap();
    drop(log);
    (identity, segments(dir))
}

/// Opens the log as a start does, with everything up to `commit_point` in the tables.
fn start(dir: &Path, commit_point: u64, identity: [u8; 16]) -> Result<Vec<LogRecord>, Error> {
    let (mut log, records) = LogStore::open(dir)?;
    log.recover(Epoch(commit_point), Some(identity))?;
    Ok(records)
}

#[track_caller]
fn assert_blames(result: Result<Vec<LogRecord>, Error>, path: &Path) {
    match result {
        Err(Error::Damaged { file, .. } | Error::NewerFormat { file, .. }) => {
            assert_eq!(file, path)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_acknowledged_record_that_is_damaged_or_missing_is_refused_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (identity, paths) = acknowledged(dir.path(), &[1..=2]);
    let path = &paths[0];
    let bytes = std::fs::read(path).unwrap();
    for at in 0..bytes.len() {
        std::fs::write(path, &bytes[..at]).unwrap();
        assert_blames(start(dir.path(), 0, identity), path);
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        std::fs::write(path, &damaged).unwrap();
        assert_blames(start(dir.path(), 0, identity), path);
    }
    std::fs::remove_file(path).unwrap();
    assert_blames(start(dir.path(), 0, identity), path);
    assert_blames(start(dir.path(), 1, identity), path);
    // What the tables hold is not needed any more: the log may have been cut.
    assert!(start(dir.path(), 2, identity).unwrap().is_empty());
    std::fs::write(path, &bytes).unwrap();
    assert_records(&start(dir.path(), 0, identity).unwrap(), 1..=2);
}

#[test]
fn a_refused_start_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (identity, paths) = acknowledged(dir.path(), &[1..=2]);
    let bytes = std::fs::read(&paths[0]).unwrap();
    std::fs::write(&paths[0], &bytes[..bytes.len() - 1]).unwrap();
    for _ in 0..2 {
        assert_blames(start(dir.path(), 0, identity), &paths[0]);
        assert_eq!(std::fs::read(&paths[0]).unwrap(), bytes[..bytes.len() - 1]);
    }
}

#[test]
fn a_segment_that_is_missing_or_of_an_earlier_day_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (identity, paths) = acknowledged(dir.path(), &[1..=2, 3..=4, 5..=6]);
    let bytes: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let first = codec::frame(&codec::encode_record(&record(3)).unwrap(), Epoch(3)).unwrap();
    for (index, (path, bytes)) in itertools::zip_eq(&paths, &bytes).enumerate() {
        std::fs::remove_file(path).unwrap();
        // The one after it says what it follows; after the last there is the note of what was acknowledged.
        assert_blames(
            start(dir.path(), 0, identity),
            paths.get(index + 1).unwrap_or(path),
        );
        std::fs::write(path, &bytes[..HEADER_BYTES + first.len()]).unwrap();
        assert_blames(
            start(dir.path(), 0, identity),
            paths.get(index + 1).unwrap_or(path),
        );
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::remove_file(&paths[0]).unwrap();
    assert_records(&start(dir.path(), 2, identity).unwrap(), 3..=6);
}

#[test]
fn the_note_of_what_was_acknowledged_is_missed_and_believed_only_if_it_is_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let (identity, _) = acknowledged(dir.path(), &[1..=2]);
    let path = AcknowledgedFile::path_in(dir.path());
    let early = std::fs::read(&path).unwrap();
    {
        let (mut log, _) = LogStore::open(dir.path()).unwrap();
        log.recover(Epoch::MIN, Some(identity)).unwrap();
        for epoch in 3..=5 {
            log.append(&record(epoch)).unwrap();
            log.acknowledge().unwrap();
        }
    }
    let newest = std::fs::read(&path).unwrap();
    for damaged in [&early[..], &newest[..20], b"", &vec![0; newest.len()][..]] {
        std::fs::write(&path, damaged).unwrap();
        assert_blames(start(dir.path(), 0, identity), &path);
    }
    std::fs::remove_file(&path).unwrap();
    assert_blames(start(dir.path(), 0, identity), &path);
    // One flipped bit costs one of the two slots, and the log itself is whole.
    for at in 0..newest.len() {
        let mut damaged = newest.clone();
        damaged[at] ^= 0x01;
        std::fs::write(&path, &damaged).unwrap();
        assert_records(&start(dir.path(), 0, identity).unwrap(), 1..=5);
    }
    std::fs::write(&path, &newest).unwrap();
    assert_blames(start(dir.path(), 0, [7; 16]), &path);
}

#[test]
fn a_log_of_the_first_format_is_read_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(codec::segment_name(Epoch(1)));
    let mut bytes = codec::header(Epoch(1), Epoch::MIN);
    bytes.truncate(HEADER_BYTES - 12);
    bytes[8] = 1;
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(codec::frame(&codec::encode_record(&record(1)).unwrap(), Epoch(1)).unwrap());
    std::fs::write(&path, bytes).unwrap();
    let (mut log, records) = opened(dir.path());
    assert_records(&records, 1..=1);
    log.append(&record(2)).unwrap();
    log.acknowledge().unwrap();
    drop(log);
    assert_records(&opened(dir.path()).1, 1..=2);
}

#[test]
fn what_the_log_was_cut_for_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(dir.path());
    log.append(&record(4)).unwrap();
    log.acknowledge().unwrap();
    log.truncate_through(Epoch(7)).unwrap();
    drop(log);
    let (mut log, _) = LogStore::open(dir.path()).unwrap();
    let state = log.recover(Epoch(7), None).unwrap();
    assert_eq!((state.newest, state.cut_through), (Epoch(4), Epoch(7)));
}

#[test]
fn a_log_that_is_older_than_the_tables_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(dir.path());
    log.append(&record(4)).unwrap();
    log.acknowledge().unwrap();
    let older = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, older.path().join(path.file_name().unwrap())).unwrap();
    }
    log.append(&record(5)).unwrap();
    log.acknowledge().unwrap();
    log.note_commit(Epoch(5)).unwrap();
    log.append(&record(6)).unwrap();
    log.acknowledge().unwrap();
    drop(log);
    let (mut log, records) = LogStore::open(dir.path()).unwrap();
    assert_records(&records, 4..=6);
    let identity = log.recover(Epoch(5), None).unwrap().identity;
    drop(log);
    let path = older.path().join("acknowledged");
    assert_blames(start(older.path(), 5, identity), &path);
    // With all other files as old as it is, it is right.
    assert_records(&start(older.path(), 0, identity).unwrap(), 4..=4);
}

#[test]
fn a_state_that_is_older_than_the_log_is_left_to_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let (identity, _) = acknowledged(dir.path(), &[1..=2, 3..=4]);
    let (mut log, _) = LogStore::open(dir.path()).unwrap();
    log.recover(Epoch::MIN, Some(identity)).unwrap();
    log.truncate_through(Epoch(2)).unwrap();
    drop(log);
    let (mut log, _) = LogStore::open(dir.path()).unwrap();
    let state = log.recover(Epoch(1), Some(identity)).unwrap();
    assert_eq!(state.cut_through, Epoch(2));
    assert_records(&start(dir.path(), 2, identity).unwrap(), 3..=4);
}

/// A record of two tables, one with changes of both kinds that are large, written to the disk before.
fn large(log: &LogStore, epoch: u64) -> LogRecord {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let rows = |from: i64, count: i64| {
        let numbers: Int64Array = (from..from + count).collect();
        RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(numbers)]).unwrap()
    };
    let many = 600_000;
    let alternating: Int64Array = (0..many).map(|row| 1 - 2 * (row % 2)).collect();
    let weights = [
        Weights::AllOne,
        Weights::Const(-1),
        Weights::Array(alternating),
    ];
    let mut changes = record(epoch).changes;
    for weights in weights {
        // Several neighbours are one file, also where a slice begins in the middle of its buffers.
        let parts = match &weights {
            Weights::Array(_) => vec![rows(0, many)],
            _ => vec![rows(5, many).slice(3, 400_000), rows(-7, 200_000)],
        };
        let deltas = parts.into_iter().map(|rows| {
            let delta = DeltaBatch::new(rows, weights.clone(), Epoch::MIN);
            (ObjectId::User(8), delta)
        });
        changes.extend(deltas);
        changes.push((ObjectId::User(9), changes[0].1.clone()));
    }
    let blobs = log.blobs().write_large(&changes).unwrap();
    assert_eq!(blobs.len(), 3);
    for (_, delta) in &mut changes {
        delta.epoch = Epoch(epoch);
    }
    LogRecord {
        epoch: Epoch(epoch),
        changes,
        blobs,
    }
}

/// Rows with their weights, however they are cut into batches.
fn content(record: &LogRecord) -> Vec<(ObjectId, Epoch, Vec<RecordBatch>, Vec<i64>)> {
    let changes = record
        .changes
        .chunk_by(|(table, _), (next, _)| table == next);
    changes
        .map(|changes| {
            let rows = changes.iter().map(|(_, delta)| &delta.rows);
            let rows = arrow_select::concat::concat_batches(&changes[0].1.schema(), rows).unwrap();
            let weights = changes
                .iter()
                .flat_map(|(_, delta)| (0..delta.len()).map(|row| delta.weights.get(row)));
            let weights = weights.collect();
            (changes[0].0, changes[0].1.epoch, vec![rows], weights)
        })
        .collect()
}

fn blobs_in(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap();
    let paths = paths.map(|entry| entry.unwrap().path());
    paths.filter(|path| blob::is_blob(path)).collect()
}

#[test]
fn large_changes_come_back_as_they_were_and_go_with_their_records() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(dir.path());
    log.append(&record(1)).unwrap();
    let written = large(&log, 2);
    let expected = content(&written);
    log.append(&written).unwrap();
    log.append(&record(3)).unwrap();
    log.acknowledge().unwrap();
    drop((log, written));
    assert_eq!(blobs_in(dir.path()).len(), 3);
    let (mut log, records) = opened(dir.path());
    assert_eq!(content(&records[1]), expected);
    assert!(same(&records[0], &record(1)) && same(&records[2], &record(3)));
    // The record is small, and what it names is not.
    log.truncate_through(Epoch(1)).unwrap();
    assert_eq!(blobs_in(dir.path()).len(), 3);
    log.append(&record(4)).unwrap();
    log.truncate_through(Epoch(2)).unwrap();
    assert_eq!(blobs_in(dir.path()).len(), 3, "epoch 3 is in the same file");
    log.truncate_through(Epoch(3)).unwrap();
    assert_eq!(blobs_in(dir.path()), Vec::<PathBuf>::new());
    drop(log);
    assert_records(&opened(dir.path()).1, 4..=4);
}

#[test]
fn large_changes_that_no_record_names_go() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(dir.path());
    let discarded = large(&log, 1);
    assert_eq!(blobs_in(dir.path()).len(), 3);
    drop(discarded);
    assert_eq!(blobs_in(dir.path()), Vec::<PathBuf>::new());
    // A record that the disk refuses.
    let refused = large(&log, 1);
    log.bytes_free = Some(10);
    assert!(log.append(&refused).unwrap_err().is_full());
    drop(refused);
    assert_eq!(blobs_in(dir.path()), Vec::<PathBuf>::new());
    // A crash before there was a record.
    log.bytes_free = None;
    std::mem::forget(large(&log, 1));
    log.append(&record(1)).unwrap();
    drop(log);
    assert_eq!(blobs_in(dir.path()).len(), 3);
    let (log, records) = LogStore::open(dir.path()).unwrap();
    assert_eq!(blobs_in(dir.path()).len(), 3, "nothing is changed yet");
    assert_records(&records, 1..=1);
    drop(log);
    drop(opened(dir.path()));
    assert_eq!(blobs_in(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn what_is_left_and_cannot_be_removed_keeps_no_node_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 1..=2);
    // No file, so that it cannot be removed as one.
    let left = dir.path().join(format!("blob-{:032x}.fsblob", 7));
    std::fs::create_dir(&left).unwrap();
    assert!(blob::is_blob(&left));
    let (mut log, records) = opened(dir.path());
    assert_records(&records, 1..=2);
    log.append(&record(3)).unwrap();
    drop(log);
    assert_records(&opened(dir.path()).1, 1..=3);
    assert!(left.exists());
}

#[test]
fn large_changes_that_are_not_as_they_were_written_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(dir.path());
    log.append(&large(&log, 1)).unwrap();
    log.acknowledge().unwrap();
    drop(log);
    let path = blobs_in(dir.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let refused = || {
        let error = LogStore::open(dir.path()).unwrap_err();
        assert!(
            matches!(&error, Error::Damaged { file, .. } if *file == path),
            "{error}"
        );
    };
    for at in [0, 9, 13, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        refused();
    }
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    refused();
    std::fs::remove_file(&path).unwrap();
    refused();
    std::fs::write(&path, whole).unwrap();
    assert_eq!(opened(dir.path()).1.len(), 1);
}

#[test]
fn a_last_record_that_was_not_acknowledged_and_lacks_its_large_changes_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(dir.path());
    log.append(&record(1)).unwrap();
    log.acknowledge().unwrap();
    log.append(&large(&log, 2)).unwrap();
    drop(log);
    std::fs::remove_file(blobs_in(dir.path()).remove(0)).unwrap();
    let (mut log, records) = opened(dir.path());
    assert_records(&records, 1..=1);
    assert_eq!(blobs_in(dir.path()), Vec::<PathBuf>::new());
    log.append(&record(2)).unwrap();
    drop(log);
    assert_records(&opened(dir.path()).1, 1..=2);
}

#[test]
fn a_segment_of_an_earlier_version_gets_no_more_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), 1..=2);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let (mut log, records) = opened(dir.path());
    assert_records(&records, 1..=2);
    log.append(&record(3)).unwrap();
    log.acknowledge().unwrap();
    drop(log);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_records(&opened(dir.path()).1, 1..=3);
}
