//! The keep without the other parts.

use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::Schema;
use flowstone_proto::message::{CleanUp, CollectionKind, Remains};
use flowstone_storage::LogStore;
use flowstone_types::{DeltaBatch, SqlType};

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);
const TABLE: ObjectId = ObjectId::User(11);
const OTHER: ObjectId = ObjectId::User(12);

/// What a keep is made of, what it says, and what the router hears of it.
async fn parts(dir: &std::path::Path) -> (Parts, mpsc::Receiver<Response>, mpsc::Receiver<Event>) {
    let (log_dir, delta_dir) = (dir.join("log"), dir.join("delta"));
    for dir in [&log_dir, &delta_dir] {
        std::fs::create_dir(dir).unwrap();
    }
    let (responses, said) = mpsc::channel(16);
    let (events, happened) = mpsc::channel(16);
    let (mut log, _) = LogStore::open(&log_dir).unwrap();
    log.recover(Epoch::MIN, None).unwrap();
    let parts = Parts {
        responses,
        events,
        delta: DeltaTables::open(&delta_dir).await.unwrap(),
        log: SharedLog::new(log),
        state_dir: dir.to_owned(),
    };
    (parts, said, happened)
}

/// A keep without its task, which hears of no end.
async fn keep(dir: &std::path::Path) -> (Keep, mpsc::Receiver<Response>, mpsc::Receiver<Event>) {
    let (parts, said, happened) = parts(dir).await;
    let (ended, _) = mpsc::channel(1);
    (Keep::new(parts, ended), said, happened)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![SqlType::Int8.to_field("c0", true)]))
}

fn description() -> CollectionDescription {
    CollectionDescription {
        id: TABLE,
        name: "d.s.t".to_owned(),
        schema: schema(),
        key: None,
        kind: CollectionKind::Table,
        delta_version: None,
        failure: None,
    }
}

/// A row of the table.
fn output(epoch: u64) -> EpochOutput {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let rows = RecordBatch::try_new(schema(), vec![column]).unwrap();
    EpochOutput {
        deltas: vec![(TABLE, vec![DeltaBatch::insert(rows, Epoch(epoch))])],
        ..EpochOutput::default()
    }
}

/// Does what the router does when a table is as it was, or new.
async fn restored(keep: &mut KeepHandle, happened: &mut mpsc::Receiver<Event>) {
    let event = tokio::time::timeout(DEADLINE, happened.recv()).await;
    assert!(matches!(event, Ok(Some(Event::Restored(Ok(()))))));
    keep.restored();
}

/// Has the local log busy until it is told, so that no commit ends.
fn stall(log: &SharedLog) -> std::sync::mpsc::SyncSender<()> {
    let (begin, begun) = std::sync::mpsc::sync_channel::<()>(1);
    let (release, wait) = std::sync::mpsc::sync_channel::<()>(1);
    drop(log.start(move |_| {
        begin.send(()).unwrap();
        wait.recv().unwrap();
        Ok(())
    }));
    begun.recv_timeout(DEADLINE).unwrap();
    release
}

/// The commit that the coordinator hears of next, and how many tables are in it.
async fn committed(said: &mut mpsc::Receiver<Response>) -> (Epoch, usize) {
    let response = tokio::time::timeout(DEADLINE, said.recv()).await.unwrap();
    let Some(Response::Committed { epoch, versions }) = response else {
        panic!("{response:?}");
    };
    (epoch, versions.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_is_deleted_once_maintenance_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (mut keep, mut said, _happened) = keep(dir.path()).await;
    keep.maintaining = true;
    keep.clean_up(vec![CleanUp {
        id: TABLE,
        remains: Remains::Collection,
    }]);
    assert_eq!(keep.dropped_tables, [TABLE]);
    keep.maintained();
    assert!(keep.dropped_tables.is_empty());
    let response = tokio::time::timeout(DEADLINE, said.recv()).await.unwrap();
    assert_eq!(response, Some(Response::CleanedUp { id: TABLE }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drop_leaves_is_cleaned_up_after_its_source_has_stopped_whatever_is_dropped_then() {
    let dir = tempfile::tempdir().unwrap();
    let (mut keep, mut said, _happened) = keep(dir.path()).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    keep.stop_beside([async move { stopped.await.unwrap() }]);
    keep.drop_objects(&[OTHER], Vec::new());
    keep.clean_up(vec![CleanUp {
        id: TABLE,
        remains: Remains::Collection,
    }]);
    let early = tokio::time::timeout(Duration::from_millis(200), said.recv()).await;
    assert!(early.is_err(), "{early:?}");
    stop.send(()).unwrap();
    let response = tokio::time::timeout(DEADLINE, said.recv()).await.unwrap();
    assert_eq!(response, Some(Response::CleanedUp { id: TABLE }));
    // Nobody keeps what has stopped.
    keep.drop_objects(&[OTHER], Vec::new());
    assert_eq!(keep.stopping.len(), 1);
    keep.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_exist_are_brought_back_in_tasks_and_damage_is_said_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut keep, _said, mut happened) = keep(dir.path()).await;
    let mut description = description();
    keep.create_table(&description);
    created(std::mem::take(&mut keep.creating)).await.unwrap();
    assert!(matches!(happened.try_recv(), Ok(Event::Restored(Ok(())))));
    // One that was never committed, one that is as it was, and one that is older than what is known of it.
    for (version, is_there) in [(None, true), (Some(0), true), (Some(7), false)] {
        description.delta_version = version;
        keep.create_table(&description);
        let event = tokio::time::timeout(DEADLINE, happened.recv()).await;
        let Some(Event::Restored(result)) = event.unwrap() else {
            panic!("something else happened");
        };
        assert_eq!(result.is_ok(), is_there, "{version:?}: {result:?}");
    }
    keep.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_is_taken_in_and_counted_while_a_commit_waits_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (parts, mut said, mut happened) = parts(dir.path()).await;
    let log = parts.log.clone();
    let mut keep = KeepHandle::start(parts);
    keep.create_table(&description()).await.unwrap();
    restored(&mut keep, &mut happened).await;
    assert!(!keep.is_restoring(), "commits wait for a new table");
    keep.absorb(output(1)).await.unwrap();
    let release = stall(&log);
    keep.commit(Epoch(1)).await.unwrap();
    keep.absorb(output(2)).await.unwrap();
    let counted = tokio::time::timeout(DEADLINE, keep.counter().bytes(Held::default())).await;
    assert!(counted.unwrap().unwrap()[&TABLE] > 0);
    assert!(said.try_recv().is_err());
    release.send(()).unwrap();
    assert_eq!(committed(&mut said).await, (Epoch(1), 1));
    // What came meanwhile is in the next.
    keep.commit(Epoch(2)).await.unwrap();
    assert_eq!(committed(&mut said).await, (Epoch(2), 1));
    // Told again of the table, as after a restart.
    keep.create_table(&description()).await.unwrap();
    assert!(keep.is_restoring());
    restored(&mut keep, &mut happened).await;
    assert!(!keep.is_restoring());
    keep.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_hears_that_the_keep_is_broken_and_is_not_held_up_before_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let (parts, _said, mut happened) = parts(dir.path()).await;
    let log = parts.log.clone();
    let keep = KeepHandle::start(parts);
    let release = stall(&log);
    // One at a time.
    keep.commit(Epoch(1)).await.unwrap();
    keep.commit(Epoch(2)).await.unwrap();
    for _ in 0..1000 {
        let absorbed = tokio::time::timeout(DEADLINE, keep.absorb(output(3))).await;
        absorbed.unwrap().unwrap();
    }
    // Nor does who asks take the want of an answer for the error.
    let counted = tokio::time::timeout(DEADLINE, keep.counter().bytes(Held::default())).await;
    assert!(counted.unwrap().unwrap().is_empty());
    let event = tokio::time::timeout(DEADLINE, happened.recv()).await;
    assert!(matches!(event, Ok(Some(Event::Broken(Error::Protocol(_))))));
    release.send(()).unwrap();
    keep.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_keep_that_nobody_hears_of_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (mut parts, _said, _) = parts(dir.path()).await;
    let (events, mut happened) = mpsc::channel(1);
    // There is no room for what it says.
    events.try_send(Event::Restored(Ok(()))).unwrap();
    parts.events = events;
    let release = stall(&parts.log);
    let keep = KeepHandle::start(parts);
    keep.commit(Epoch(1)).await.unwrap();
    keep.commit(Epoch(2)).await.unwrap();
    let counted = tokio::time::timeout(DEADLINE, keep.counter().bytes(Held::default())).await;
    assert!(counted.unwrap().unwrap().is_empty());
    release.send(()).unwrap();
    // As the router does when it ends.
    happened.close();
    tokio::time::timeout(DEADLINE, keep.stop()).await.unwrap();
}

async fn panicking() -> Result<(), flowstone_storage::Error> {
    panic!("on purpose");
}

#[tokio::test]
async fn that_a_task_panicked_is_an_error_of_who_waits_for_its_end() {
    let tasks = TaskTracker::new();
    for outcome in [
        came_to(tasks.spawn(panicking())).await,
        created(vec![tasks.spawn(panicking())]).await,
    ] {
        assert!(
            matches!(outcome, Err(flowstone_storage::Error::Invariant(_))),
            "{outcome:?}"
        );
    }
}
