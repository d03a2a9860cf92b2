//! What the feed makes of a local log that refuses or is slow, and of a take that does not end well.

use std::time::Duration;

use arrow_array::Int64Array;
use arrow_schema::Schema;
use flowstone_proto::message::{LoadGenerator, RequestError};
use flowstone_types::SqlType;
use flowstone_types::clock::SystemClock;

use super::source::{Next, Stream};
use super::*;

const DEADLINE: Duration = Duration::from_secs(60);
const SOURCE: ObjectId = ObjectId::User(10);
const TABLE: ObjectId = ObjectId::User(11);
const GONE: ObjectId = ObjectId::User(12);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![SqlType::Int8.to_field("c0", true)]))
}

/// A feed with a source that gives the rest of what was bound in pieces, and where these come from.
async fn streaming(
    dir: &std::path::Path,
) -> (Feed, mpsc::Sender<Next>, mpsc::Receiver<SourceEvent>) {
    let (log_dir, delta_dir) = (dir.join("log"), dir.join("delta"));
    for dir in [&log_dir, &delta_dir] {
        std::fs::create_dir(dir).unwrap();
    }
    let (log, records) = LogStore::open(&log_dir).unwrap();
    let (responses, _) = mpsc::channel(16);
    let (events, happened) = mpsc::channel(64);
    let mut feed = Feed::new(Parts {
        responses,
        events,
        clock: Arc::new(SystemClock),
        state_dir: dir.to_owned(),
        delta: DeltaTables::open(&delta_dir).await.unwrap(),
        log: SharedLog::new(log),
        records,
    });
    feed.add_collection(TABLE, schema(), false);
    let table = |id| SourceTable {
        id,
        upstream_schema: "counter".to_owned(),
        upstream_name: "counter".to_owned(),
        upstream_oid: 1,
        columns: Vec::new(),
        key: Vec::new(),
        upstream: Vec::new(),
    };
    feed.create_source(SourceDescription {
        id: SOURCE,
        name: "s".to_owned(),
        kind: SourceKind::LoadGenerator {
            generator: LoadGenerator::Counter {
                max_cardinality: None,
            },
            tick_interval: Duration::from_secs(3600),
            seed: 0,
        },
        tables: vec![table(TABLE)],
        progress: None,
        resume_from: None,
        snapshotted: Vec::new(),
        bound: false,
        failure: None,
    });
    assert!(feed.is_at_work());
    assert!(matches!(said(&mut feed).await, Fed::Started(errors) if errors.is_empty()));
    feed.recover(Epoch::MIN, None).await.unwrap();
    let (sender, pieces) = mpsc::channel(16);
    let stream = Stream {
        binding: binding(7),
        pieces,
        next: None,
        stopped: false,
    };
    feed.sources.get_mut(&SOURCE).unwrap().stream = Some(stream);
    (feed, sender, happened)
}

/// What the feed says of what was begun.
async fn said(feed: &mut Feed) -> Fed {
    let said = tokio::time::timeout(DEADLINE, feed.hear(Late::Unwanted)).await;
    said.expect("the feed never says anything").unwrap()
}

/// What an epoch changes.
async fn input(feed: &mut Feed, run: RunEpoch) -> EpochInput {
    let epoch = run.epoch;
    feed.begin_epoch(run);
    let given = said(feed).await;
    let Fed::Input(at, input) = given else {
        panic!("{given:?}");
    };
    assert_eq!(at, epoch);
    assert!(matches!(said(feed).await, Fed::Acknowledged(at) if at == epoch));
    assert!(!feed.is_at_work());
    input
}

fn binding(tick: u64) -> SourceBinding {
    SourceBinding {
        source: SOURCE,
        position: SourcePosition::GeneratorTick(tick),
        snapshots: Vec::new(),
    }
}

fn piece(table: ObjectId) -> Next {
    Ok(Some(TableChanges {
        table,
        data: TableData::Changes(SourceChanges::inserts(RecordBatch::new_empty(schema()))),
    }))
}

/// What the source gives next.
async fn given(feed: &mut Feed) -> EpochInput {
    assert_eq!(feed.more().await, SOURCE);
    feed.late_input(SOURCE, Epoch(3)).unwrap().0
}

#[tokio::test]
async fn pieces_are_given_in_order_and_what_is_bound_later_comes_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (mut feed, sender, _said) = streaming(dir.path()).await;
    assert_eq!(feed.more().now_or_never(), None, "nothing was read");
    let run = RunEpoch {
        epoch: Epoch(3),
        bindings: vec![binding(9)],
        writes: Vec::new(),
        replay: false,
    };
    let input = input(&mut feed, run).await;
    assert!(input.upstream.is_empty() && input.held.is_empty());
    assert_eq!(input.begun, [(SOURCE, vec![TABLE])]);
    // One of a table that was dropped meanwhile is passed over.
    for next in [piece(TABLE), piece(GONE), piece(TABLE), Ok(None)] {
        sender.send(next).await.unwrap();
    }
    let mut pieces = Vec::new();
    for _ in 0..4 {
        let input = given(&mut feed).await;
        assert!(input.ended.is_empty());
        pieces.push(input.upstream.len());
    }
    assert_eq!(pieces, [1, 0, 1, 0]);
    // Then the take of the binding that waited, which is a stream as well.
    assert_eq!(given(&mut feed).await.begun, [(SOURCE, vec![TABLE])]);
    assert_eq!(given(&mut feed).await.ended, [SOURCE]);
    assert_eq!(feed.more().now_or_never(), None);
    feed.stop().await;
}

#[tokio::test]
async fn a_source_that_is_altered_is_described_as_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut feed, _sender, _said) = streaming(dir.path()).await;
    let described = feed.sources[&SOURCE].description.clone();
    let mut table = described.tables[0].clone();
    table.upstream = vec![1];
    let kind = described.kind.clone();
    feed.alter_source(SOURCE, kind, &[table]).unwrap();
    let tables = &feed.sources[&SOURCE].description.tables;
    assert_eq!((tables.len(), &tables[0].upstream[..]), (1, &[1_u8][..]));
    // What was being given goes on.
    assert!(feed.sources[&SOURCE].is_behind());
    let unknown = feed.alter_source(GONE, described.kind, &[]).unwrap_err();
    assert!(
        matches!(unknown, Error::UnknownObject(id) if id == GONE),
        "{unknown:?}"
    );
    feed.stop().await;
}

#[test]
fn what_comes_late_is_read_while_the_router_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut feed, sender, _said) = streaming(dir.path()).await;
        let source = feed.sources.get_mut(&SOURCE).unwrap();
        source.waiting.push_back(binding(9));
        sender.send(Ok(None)).await.unwrap();
        assert!(given(&mut feed).await.ended.is_empty());
        // Nothing can be read from now on.
        let (release, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let stalled = tokio::task::spawn_blocking(move || wait.recv().unwrap());
        assert_eq!(given(&mut feed).await.begun, [(SOURCE, vec![TABLE])]);
        for _ in 0..10 {
            tokio::task::yield_now().await;
            assert_eq!(feed.more().now_or_never(), None);
        }
        release.send(()).unwrap();
        stalled.await.unwrap();
        assert_eq!(given(&mut feed).await.ended, [SOURCE]);
        feed.stop().await;
    });
}

/// A write of one row, evaluated.
fn written() -> StagedWrite {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let rows = RecordBatch::try_new(schema(), vec![column]).unwrap();
    StagedWrite {
        changes: vec![(TABLE, DeltaBatch::insert(rows, Epoch::MIN))],
        blobs: Vec::new(),
        affected: vec![1],
        returned: Vec::new(),
    }
}

/// Has the local log busy until it is told.
fn stall(feed: &Feed) -> std::sync::mpsc::SyncSender<()> {
    let (begin, begun) = std::sync::mpsc::sync_channel::<()>(1);
    let (release, wait) = std::sync::mpsc::sync_channel::<()>(1);
    drop(feed.log.start(move |_| {
        begin.send(()).unwrap();
        wait.recv().unwrap();
        Ok(())
    }));
    begun.recv_timeout(DEADLINE).unwrap();
    release
}

#[tokio::test]
async fn an_epoch_is_given_when_its_writes_are_in_the_local_log_and_nobody_waits_for_that() {
    let dir = tempfile::tempdir().unwrap();
    let (mut feed, sender, _happened) = streaming(dir.path()).await;
    let (named, other) = (RequestId(1), RequestId(2));
    feed.stage(named, written());
    let release = stall(&feed);
    feed.begin_epoch(RunEpoch {
        epoch: Epoch(3),
        bindings: vec![binding(9)],
        writes: vec![named],
        replay: false,
    });
    sender.send(piece(TABLE)).await.unwrap();
    for _ in 0..10 {
        assert!(feed.hear(Late::Wanted).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    // What belongs to no epoch yet goes on, and nothing is given late: it would come before what is bound already.
    feed.stage(other, written());
    feed.discard(other);
    assert_eq!(feed.more().now_or_never(), None);
    release.send(()).unwrap();
    let first = said(&mut feed).await;
    let Fed::Input(Epoch(3), input) = first else {
        panic!("{first:?}");
    };
    assert_eq!(input.begun, [(SOURCE, vec![TABLE])]);
    assert!(
        matches!(&input.direct[..], [(TABLE, CollectionInput::Deltas(deltas))] if deltas[0].epoch == Epoch(3)),
        "{:?}",
        input.direct
    );
    assert!(feed.is_at_work(), "that the record counts is not noted");
    assert!(matches!(said(&mut feed).await, Fed::Acknowledged(Epoch(3))));
    assert_eq!(given(&mut feed).await.upstream.len(), 1);
    feed.stop().await;
}

#[tokio::test]
async fn upstreams_are_told_of_a_commit_point_when_the_log_was_cut_and_nobody_waits_for_that() {
    let dir = tempfile::tempdir().unwrap();
    let (mut feed, _sender, _happened) = streaming(dir.path()).await;
    let source = feed.sources.get_mut(&SOURCE).unwrap();
    for epoch in [3, 5] {
        let position = SourcePosition::GeneratorTick(epoch);
        source.bound.push_back((Epoch(epoch), position));
    }
    let release = stall(&feed);
    feed.commit_point_durable(Epoch(4));
    assert!(feed.hear(Late::Wanted).now_or_never().is_none());
    assert_eq!(feed.sources[&SOURCE].bound.len(), 2);
    release.send(()).unwrap();
    assert!(matches!(said(&mut feed).await, Fed::Cut(Epoch(4))));
    assert_eq!(feed.sources[&SOURCE].bound.len(), 1);
    assert!(!feed.is_at_work());
    feed.stop().await;
}

#[tokio::test]
async fn what_is_read_soon_is_given_with_its_epoch_and_nothing_is_left_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut feed, sender, _happened) = streaming(dir.path()).await;
    sender.send(Ok(None)).await.unwrap();
    assert_eq!(given(&mut feed).await.ended, [SOURCE]);
    let run = RunEpoch {
        epoch: Epoch(3),
        bindings: vec![binding(9)],
        writes: Vec::new(),
        replay: false,
    };
    let input = input(&mut feed, run).await;
    assert!(input.begun.is_empty() && input.held.is_empty());
    assert_eq!(feed.more().now_or_never(), None);
    feed.stop().await;
}

#[tokio::test]
async fn a_failure_in_the_middle_is_said_by_the_tables_and_ends_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let (mut feed, sender, _said) = streaming(dir.path()).await;
    let message = "the slot is gone".to_owned();
    let failed = flowstone_ingest::Error::Failed {
        message: message.clone(),
        hint: None,
    };
    sender.send(piece(TABLE)).await.unwrap();
    sender.send(Err(failed)).await.unwrap();
    assert!(given(&mut feed).await.failures.is_empty());
    let input = given(&mut feed).await;
    let failure = Failure {
        message,
        hint: None,
    };
    assert_eq!(input.failures[0], (SOURCE, failure));
    assert_eq!(input.ended, [SOURCE]);
    assert!(
        matches!(&input.direct[..], [(id, CollectionInput::Errors(errors))] if *id == TABLE && errors.len() == 1),
        "{:?}",
        input.direct
    );
    feed.stop().await;
}

#[tokio::test]
async fn what_is_damaged_ends_the_worker_and_what_is_stopped_never_looks_complete() {
    let dir = tempfile::tempdir().unwrap();
    let (mut feed, sender, _said) = streaming(dir.path()).await;
    let damaged = flowstone_ingest::Error::Damaged {
        path: dir.path().to_owned(),
        reason: "x".to_owned(),
    };
    sender.send(Err(damaged)).await.unwrap();
    assert_eq!(feed.more().await, SOURCE);
    let error = feed.late_input(SOURCE, Epoch(3)).unwrap_err();
    assert!(matches!(error, Error::Source(_)), "{error:?}");
    feed.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let (mut feed, sender, _said) = streaming(dir.path()).await;
    let stopped = flowstone_ingest::Error::Stopped;
    sender.send(Err(stopped)).await.unwrap();
    assert!(given(&mut feed).await.ended.is_empty());
    assert_eq!(feed.more().now_or_never(), None);
    // A source that is dropped has nothing more to give, whatever was to come.
    for handle in feed.drop_objects(&[SOURCE, TABLE]).await {
        handle.stop().await;
    }
    let (input, released) = feed.late_input(SOURCE, Epoch(3)).unwrap();
    assert!(input.ended.is_empty() && released.is_none());
    assert!(sender.is_closed());
    feed.stop().await;
}

#[test]
fn writes_that_are_too_large_together_are_refused_and_a_bug_is_not() {
    let large = flowstone_storage::Error::TooLarge {
        bytes: 5 << 30,
        limit: 4 << 30,
    };
    let refusal = refusal(&large);
    assert!(
        matches!(&refusal, Some(RequestError::Eval(error)) if error.kind == EvalErrorKind::TooLarge && error.message == large.to_string()),
        "{refusal:?}"
    );
    let bug = flowstone_storage::Error::Invariant("x".to_owned());
    assert_eq!(super::refusal(&bug), None);
}
