use std::sync::Arc;

use arrow_array::{Int64Array, StringArray};
use arrow_schema::{DataType, Field, Schema};

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

fn filled(dir: &Path, epochs: std::ops::RangeInclusive<u64>) -> PathBuf {
    let (mut log, _) = LogStore::open(dir).unwrap();
    for epoch in epochs {
        log.append(&record(epoch)).unwrap();
    }
    let path = log.open.as_ref().unwrap().segment.path.clone();
    log.close().unwrap();
    path
}

#[test]
fn records_come_back_in_order_and_epochs_must_increase() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 1..=5);
    let (mut log, records) = LogStore::open(dir.path()).unwrap();
    assert_records(&records, 1..=5);
    assert!(matches!(log.append(&record(5)), Err(Error::Invariant(_))));
    log.append(&record(6)).unwrap();
    drop(log);
    assert_records(&LogStore::open(dir.path()).unwrap().1, 1..=6);
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), 1..=3);
    let bytes = std::fs::read(&path).unwrap();
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
            let (mut log, records) = LogStore::open(dir.path()).unwrap();
            assert_records(&records, 1..=2);
            // Appending again is tried now and then: each time costs syncs.
            if !cut.is_multiple_of(16) {
                continue;
            }
            log.append(&record(3)).unwrap();
            drop(log);
            assert_records(&LogStore::open(dir.path()).unwrap().1, 1..=3);
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
            &codec::header(Epoch(3))[..length],
        )
        .unwrap();
        let (log, records) = LogStore::open(dir.path()).unwrap();
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
        codec::header(Epoch(9)),
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
    let mut header = codec::header(Epoch(1));
    header[8] = 2;
    std::fs::write(dir.path().join(codec::segment_name(Epoch(1))), header).unwrap();
    assert!(matches!(
        LogStore::open(dir.path()),
        Err(Error::NewerFormat { found: 2, .. })
    ));
}

#[test]
fn a_full_disk_fails_the_append_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = LogStore::open(dir.path()).unwrap();
    log.append(&record(1)).unwrap();
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
    assert_records(&LogStore::open(dir.path()).unwrap().1, 1..=2);
}

#[test]
fn truncation_drops_what_is_below_and_keeps_what_is_above() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = LogStore::open(dir.path()).unwrap();
    for epoch in 1..=3 {
        log.append(&record(epoch)).unwrap();
    }
    log.truncate_through(Epoch(2)).unwrap();
    assert_records(&LogStore::open(dir.path()).unwrap().1, 1..=3);
    log.truncate_through(Epoch(3)).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    log.append(&record(4)).unwrap();
    log.close_segment();
    log.append(&record(5)).unwrap();
    log.truncate_through(Epoch(4)).unwrap();
    assert_records(&LogStore::open(dir.path()).unwrap().1, 5..=5);
}

#[test]
fn a_disk_too_full_for_a_new_segment_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = LogStore::open(dir.path()).unwrap();
    log.bytes_free = Some(5);
    log.append(&record(1)).unwrap_err();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    log.bytes_free = None;
    log.append(&record(2)).unwrap();
    drop(log);
    assert_records(&LogStore::open(dir.path()).unwrap().1, 2..=2);
}
