use arrow_schema::Schema;
use flowstone_proto::message::{PostgresConnection, SourceTable, SslMode};
use flowstone_storage::DeltaTables;
use flowstone_types::clock::SystemClock;
use flowstone_types::{SourceOp, SourcePosition, SqlType};

use super::*;
use crate::alterable::Alterable;
use crate::error_files::{ErrorsFile, RowErrorsFile};
use crate::postgres::manifest::{FILE_VERSION, Manifest};
use crate::postgres::state::{Own, State as PostgresState};
use crate::postgres::table_log::{Snapshot, TableLog};
use crate::rows::Value;
use crate::state_file;
use crate::transactions::{Event, Part, Spiller};

const ID: ObjectId = ObjectId::User(1);

/// A source of a kind whose positions are numbers.
type Source = Shared<PostgresState>;

/// A source whose state is in `dir`.
async fn shared(dir: &Path) -> Result<Source, Error> {
    let connection = PostgresConnection {
        host: "localhost".to_owned(),
        port: 1,
        user: "u".to_owned(),
        password: None,
        database: "d".to_owned(),
        ssl_mode: SslMode::Disable,
        ssl_root: None,
    };
    let delta = DeltaTables::open(&dir.join("delta")).await.unwrap();
    let (events, _) = mpsc::channel(1);
    let own = Own {
        connection: Alterable::new(connection),
        publication: "p".to_owned(),
        slot: "s".to_owned(),
        delta,
    };
    let limits = BufferLimits::default();
    Source::open(ID, own, Arc::new(SystemClock), events, dir, limits)
}

fn manifest(row_error_saves: u64) -> Manifest {
    Manifest {
        version: FILE_VERSION,
        system: "1".to_owned(),
        timeline: "1".to_owned(),
        position: 7,
        tables: Vec::new(),
        membership: HashMap::new(),
        row_error_saves,
    }
}

fn rows(saves: u64) -> RowErrorsFile {
    RowErrorsFile {
        version: FILE_VERSION,
        saves,
        tables: Vec::new(),
    }
}

/// Adds a table with the transactions 1 and 2 and one that is open, each of a row.
fn add_straddled(state: &mut PostgresState, id: ObjectId, upstream_oid: u32) {
    let table = SourceTable {
        id,
        upstream_schema: "public".to_owned(),
        upstream_name: "t".to_owned(),
        upstream_oid,
        columns: Vec::new(),
        key: vec![0],
        upstream: Vec::new(),
    };
    let schema = Arc::new(Schema::new(vec![SqlType::Int4.to_field("id", false)]));
    let mut log = TableLog::new(table, schema, Snapshot::Committed, 0);
    for number in 1..=3_u64 {
        let id = number.to_string();
        let values = std::iter::once(Value::Text(id.as_bytes()));
        let transactions = &mut log.transactions;
        transactions.append(SourceOp::Insert, values, 10).unwrap();
        if number < 3 {
            transactions.commit(&SourcePosition::PostgresLsn(number));
        }
    }
    state.add_table(log);
}

/// Writes to disk what may go there.
async fn spill(source: &Source) {
    let chosen = source.lock().logs.candidates().unwrap();
    if chosen.is_empty() {
        return;
    }
    let directory = Arc::clone(&source.spill);
    let mut spiller = Spiller::new(directory, &source.writing, &source.cancel);
    spiller.start(chosen);
    let Event::Written(mut written) = spiller.event().await else {
        panic!("nothing was written");
    };
    assert!(written.failure.is_none(), "{written:?}");
    source.lock().logs.set_spilled(&mut written);
}

#[tokio::test]
async fn a_take_ends_whatever_is_written_to_disk_while_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let source = Arc::new(shared(dir.path()).await.unwrap());
    {
        let mut state = source.lock();
        state.logs.limits.memory_bytes = 0;
        state.received = 2;
        for (id, oid) in [(2, 2), (3, 3), (4, 4)] {
            add_straddled(&mut state, ObjectId::User(id), oid);
        }
    }
    spill(&source).await;
    let binding = Binding {
        position: &1,
        snapshots: &[],
    };
    assert_eq!(source.lock().logs.straddling(&binding).len(), 3);
    let beside = Arc::clone(&source);
    let spilling = tokio::spawn(async move {
        loop {
            spill(&beside).await;
            tokio::task::yield_now().await;
        }
    });
    let taken = tokio::time::timeout(Duration::from_secs(30), source.take(&binding)).await;
    spilling.abort();
    let taken = taken.expect("the take ends").unwrap();
    assert_eq!(taken.tables.len(), 3);
    for mut table in taken.tables {
        let Some(Part::Buffered(closed)) = table.parts.pop_front() else {
            panic!("it was read before");
        };
        let (changes, _) = closed.into_changes();
        assert_eq!(changes.ops, [SourceOp::Insert]);
        assert!(table.parts.is_empty());
    }
    // Nothing has to stay in memory for the take any more.
    spill(&source).await;
    let state = source.lock();
    let in_memory = |log: &&TableLog| log.transactions.usage().memory > 0;
    assert_eq!(state.tables().iter().filter(in_memory).count(), 0);
}

#[tokio::test]
async fn rows_in_error_that_are_missing_or_older_than_the_manifest_are_refused() {
    for (noted, found, fits) in [
        (0, None, true),
        (0, Some(0), true),
        (2, None, false),
        (2, Some(0), false),
        (2, Some(1), false),
        (2, Some(2), true),
        // A crash before the note.
        (2, Some(3), true),
        (0, Some(1), true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("{ID}-row-errors.json"));
        let noting = dir.path().join(format!("{ID}-manifest.json"));
        state_file::write(&noting, &manifest(noted)).unwrap();
        if let Some(saves) = found {
            state_file::write(&path, &rows(saves)).unwrap();
        }
        match shared(dir.path()).await {
            Ok(_) => assert!(fits, "{noted} {found:?}"),
            Err(Error::Damaged { path: blamed, .. }) => {
                assert!(!fits, "{noted} {found:?}");
                assert_eq!(blamed, path);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn directories_of_earlier_releases_say_nothing_of_saves() {
    let dir = tempfile::tempdir().unwrap();
    let old = r#"{"version": 2, "system": "1", "timeline": "1", "position": 7, "tables": [], "membership": {}}"#;
    std::fs::write(dir.path().join(format!("{ID}-manifest.json")), old).unwrap();
    let path = dir.path().join(format!("{ID}-row-errors.json"));
    for rows in [None, Some(r#"{"version": 2, "tables": []}"#)] {
        if let Some(rows) = rows {
            std::fs::write(&path, rows).unwrap();
        }
        shared(dir.path()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_saved_is_noted_after_it_and_not_saved_again() {
    let dir = tempfile::tempdir().unwrap();
    state_file::write(
        &dir.path().join(format!("{ID}-manifest.json")),
        &manifest(4),
    )
    .unwrap();
    state_file::write(&dir.path().join(format!("{ID}-row-errors.json")), &rows(5)).unwrap();
    let source = shared(dir.path()).await.unwrap();
    assert!(source.lock().logs.unsaved(FILE_VERSION).is_none());
    let unsaved = Unsaved {
        errors: None,
        row_errors: Some(rows(6)),
        errors_recorded: 0,
    };
    source.write_errors(unsaved).await.unwrap();
    let noted = source.manifest.get().map(|noted| noted.row_error_saves);
    assert_eq!(noted, Some(6));
    // The error of a table is written once, and the manifest has nothing to say of it.
    let failure = Failure {
        message: "no".to_owned(),
        keep: Some(3),
        offsets: None,
        position: 3,
    };
    for _again in 0..2 {
        let mut state = source.lock();
        state.logs.record_failure(ObjectId::User(2), &failure);
    }
    let unsaved = source.lock().logs.unsaved(FILE_VERSION).unwrap();
    assert_eq!(unsaved.errors_recorded, 1);
    source.save_errors().await.unwrap();
    assert!(source.lock().logs.unsaved(FILE_VERSION).is_none());
    let file: Option<ErrorsFile> =
        state_file::read(&dir.path().join(format!("{ID}-errors.json"))).unwrap();
    assert_eq!(file.map(|file| file.errors.len()), Some(1));
    drop(source);
    shared(dir.path()).await.unwrap();
}

#[tokio::test]
async fn errors_that_are_gone_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    state_file::write(
        &dir.path().join(format!("{ID}-manifest.json")),
        &manifest(0),
    )
    .unwrap();
    let source = shared(dir.path()).await.unwrap();
    let [dropped, healed, behind] = [2, 3, 4].map(ObjectId::User);
    for (table, position) in [(dropped, 3), (healed, 3), (behind, 9)] {
        let failure = Failure {
            message: "no".to_owned(),
            keep: None,
            offsets: None,
            position,
        };
        source.lock().logs.record_failure(table, &failure);
    }
    source.save_errors().await.unwrap();
    source.lock().logs.remove(&[dropped]);
    for table in [healed, behind] {
        source.lock().logs.forget_failure_through(table, 5);
    }
    source.save_errors().await.unwrap();
    let path = dir.path().join(format!("{ID}-errors.json"));
    let file: Option<ErrorsFile> = state_file::read(&path).unwrap();
    let left = file.unwrap().errors.into_iter().map(|error| error.table);
    assert_eq!(left.collect::<Vec<_>>(), [behind]);
}
