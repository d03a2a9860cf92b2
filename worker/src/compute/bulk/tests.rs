//! What is set aside, without shards.

use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array};
use arrow_schema::Schema;
use flowstone_proto::message::CollectionKind;
use flowstone_types::SqlType;
use futures::FutureExt;

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);
const SOURCE: ObjectId = ObjectId::User(1);
const FIRST: ObjectId = ObjectId::User(2);
const SECOND: ObjectId = ObjectId::User(3);
const PROGRESS: ObjectId = ObjectId::User(4);
const OTHER: ObjectId = ObjectId::User(9);

/// A source has more of its two tables, and a piece of the first waits to enter.
fn streaming() -> Bulk {
    let mut bulk = Bulk::default();
    bulk.begin(Epoch(5), SOURCE, vec![FIRST, SECOND, PROGRESS]);
    bulk.set_aside(Epoch(5), FIRST, piece());
    bulk
}

fn piece() -> Load {
    Load::Piece(CollectionInput::Errors(Vec::new()))
}

/// Enters what is first in the queue. Returns whether something is complete then.
fn enter(bulk: &mut Bulk) -> bool {
    let (id, load) = bulk.next().unwrap();
    let entered = match load {
        Load::End => bulk.close(id),
        // Completed, and in a piece.
        Load::Upstream(_) => {
            bulk.queue.push_front((id, piece()));
            return false;
        }
        _ => vec![id],
    };
    bulk.take_off(&entered)
}

fn lacking(bulk: &Bulk) -> Vec<ObjectId> {
    bulk.lacking().map(|(id, _)| id).collect()
}

#[test]
fn the_collections_of_a_source_are_complete_together_when_everything_has_entered() {
    let mut bulk = streaming();
    assert!(!enter(&mut bulk));
    assert!(bulk.is_empty());
    assert_eq!(lacking(&bulk), [FIRST, SECOND, PROGRESS]);
    assert_eq!(bulk.complete_through(Epoch(8)), Epoch(4));
    for id in [SECOND, PROGRESS] {
        bulk.set_aside(Epoch(7), id, piece());
    }
    bulk.end(SOURCE);
    assert!(!enter(&mut bulk));
    assert!(!enter(&mut bulk));
    assert_eq!(lacking(&bulk), [FIRST, SECOND, PROGRESS]);
    assert!(enter(&mut bulk));
    assert!(bulk.is_complete());
    assert_eq!(bulk.complete_through(Epoch(8)), Epoch(8));
}

#[test]
fn a_source_that_has_more_before_its_end_was_reached_goes_on() {
    let mut bulk = streaming();
    bulk.end(SOURCE);
    // With a table that was added meanwhile.
    bulk.begin(Epoch(6), SOURCE, vec![FIRST, SECOND, PROGRESS, OTHER]);
    assert!(!enter(&mut bulk));
    assert!(bulk.is_empty());
    assert_eq!(lacking(&bulk), [FIRST, SECOND, PROGRESS, OTHER]);
    bulk.end(SOURCE);
    assert!(enter(&mut bulk));
    assert!(bulk.is_complete());
}

#[test]
fn what_was_set_aside_later_holds_back_no_earlier_epoch() {
    let mut bulk = streaming();
    bulk.set_aside(Epoch(7), OTHER, piece());
    bulk.end(SOURCE);
    assert_eq!(bulk.complete_through(Epoch(8)), Epoch(4));
    bulk.forget(FIRST);
    bulk.queue.rotate_left(1);
    assert!(enter(&mut bulk));
    assert_eq!(bulk.complete_through(Epoch(8)), Epoch(6));
    let lacking: Vec<_> = bulk.lacking().collect();
    assert_eq!(lacking, [(OTHER, Epoch(7))]);
}

#[test]
fn a_table_that_is_dropped_in_the_middle_is_not_waited_for() {
    let mut bulk = streaming();
    bulk.forget(FIRST);
    assert!(bulk.is_empty(), "its pieces are skipped");
    assert_eq!(lacking(&bulk), [SECOND, PROGRESS]);
    bulk.end(SOURCE);
    assert!(enter(&mut bulk));
    assert!(bulk.is_complete());
}

#[test]
fn a_source_that_is_dropped_in_the_middle_has_no_more() {
    for order in [
        [SOURCE, FIRST, SECOND, PROGRESS],
        [PROGRESS, SECOND, FIRST, SOURCE],
    ] {
        let mut bulk = streaming();
        bulk.set_aside(Epoch(6), OTHER, piece());
        bulk.end(SOURCE);
        for id in order {
            bulk.forget(id);
        }
        assert_eq!(lacking(&bulk), [OTHER]);
        assert!(enter(&mut bulk));
        assert!(bulk.is_empty() && bulk.is_complete());
        // What nobody knows any more has no end either.
        bulk.end(SOURCE);
        assert!(bulk.is_empty());
    }
}

/// As much as enters in one piece.
fn full_piece() -> Load {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1; PIECE_ROWS]));
    let rows = RecordBatch::try_from_iter([("id", column)]).unwrap();
    Load::Piece(CollectionInput::Deltas(vec![DeltaBatch::insert(
        rows,
        Epoch(1),
    )]))
}

/// A change of a row.
fn changes() -> Vec<SourceChanges> {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let rows = RecordBatch::try_from_iter([("id", column)]).unwrap();
    vec![SourceChanges::inserts(rows)]
}

#[test]
fn a_commit_lacks_what_a_source_has_yet_to_give_from_its_first_epoch_on() {
    let mut bulk = streaming();
    assert!(!bulk.is_open_at(Epoch(4)));
    assert!(bulk.is_open_at(Epoch(5)) && bulk.is_open_at(Epoch(9)));
    bulk.end(SOURCE);
    assert!(bulk.is_open_at(Epoch(5)), "what it gave has yet to enter");
    while !bulk.is_empty() {
        enter(&mut bulk);
    }
    assert!(!bulk.is_open_at(Epoch(9)));
    bulk.set_aside(Epoch(9), FIRST, piece());
    assert!(!bulk.is_open_at(Epoch(9)), "it goes on by itself");
}

/// Changes of many rows.
fn rows(count: usize) -> DeltaBatch {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1; count]));
    let rows = RecordBatch::try_from_iter([("id", column)]).unwrap();
    DeltaBatch::insert(rows, Epoch(1))
}

#[test]
fn what_would_be_set_aside_waits_while_as_much_is_as_may_and_nothing_else_does() {
    let (small, large) = (rows(1), rows(2 * ROWS_AT_ONCE));
    let mut bulk = Bulk::default();
    let (mut count, room) = (0, SET_ASIDE_BYTES / bytes_of(&large.rows));
    while bulk.has_room() {
        let piece = CollectionInput::Deltas(vec![large.clone()]);
        bulk.set_aside(Epoch(1), FIRST, Load::Piece(piece));
        count += 1;
    }
    assert_eq!(count, room + 1);
    for (id, delta, waits) in [
        (FIRST, &small, true),
        (SECOND, &large, true),
        (SECOND, &small, false),
    ] {
        let changes = [(id, delta.clone())];
        assert_eq!(bulk.would_set_aside(&changes), waits, "{id}");
    }
    enter(&mut bulk);
    assert!(bulk.has_room());
}

#[test]
fn what_changes_with_every_epoch_comes_in_behind_a_snapshot_while_it_does() {
    let tables: Vec<_> = (2..10).map(ObjectId::User).collect();
    let mut bulk = Bulk::default();
    for id in &tables {
        for _ in 0..20 {
            bulk.set_aside(Epoch(1), *id, full_piece());
        }
    }
    // Nothing of it enters in between: the base is busy.
    let (mut complete_after, mut most) = (None, 0);
    for epoch in 2..1000 {
        for id in &tables {
            if bulk.left.contains_key(id) {
                bulk.set_behind(Epoch(epoch), *id, Load::Upstream(changes()));
            }
        }
        if bulk.is_complete() {
            complete_after = Some(epoch);
            break;
        }
        bulk.allow_a_piece();
        let mut steps = 0;
        while bulk.is_due() {
            enter(&mut bulk);
            steps += 1;
        }
        most = steps.max(most);
    }
    let epochs = complete_after.expect("it is never there");
    assert!(epochs < 200, "160 pieces took {epochs} epochs");
    assert!(most <= 64, "an epoch waits for {most} steps");
}

#[test]
fn what_waits_behind_is_put_together_in_order_and_not_without_bound() {
    let mut bulk = streaming();
    for epoch in (6..).take(JOINED_MAX + 1) {
        bulk.set_behind(Epoch(epoch), SECOND, Load::Upstream(changes()));
    }
    let sizes: Vec<_> = bulk
        .queue
        .iter()
        .filter(|(id, _)| *id == SECOND)
        .map(|(_, load)| load.size()[0])
        .collect();
    assert_eq!(sizes, [JOINED_MAX, 1]);
    assert_eq!(bulk.left[&SECOND].count, 3, "two, and the source's own");
}

#[test]
fn what_is_large_does_not_enter_in_the_time_that_was_left_of_something_before() {
    let mut bulk = Bulk::default();
    for epoch in 2..200 {
        bulk.set_aside(Epoch(epoch), FIRST, piece());
        bulk.set_behind(Epoch(epoch), FIRST, Load::Upstream(changes()));
        while !bulk.is_empty() {
            enter(&mut bulk);
        }
    }
    for _ in 0..5 {
        bulk.set_aside(Epoch(200), SECOND, full_piece());
    }
    bulk.allow_a_piece();
    let mut steps = 0;
    while bulk.is_due() {
        enter(&mut bulk);
        steps += 1;
    }
    assert_eq!(steps, 1);
}

#[tokio::test]
async fn a_snapshot_is_read_in_a_task_of_its_own_and_what_was_not_read_does_not_enter() {
    const ROWS: usize = 3 * PIECE_ROWS / 2;
    let dir = tempfile::tempdir().unwrap();
    let delta = DeltaTables::open(dir.path()).await.unwrap();
    let schema = Arc::new(Schema::new(vec![SqlType::Int8.to_field("id", true)]));
    let name = "d.s.t".to_owned();
    let created = delta.create(FIRST, &name, Arc::clone(&schema));
    created.await.unwrap();
    let mut writer = delta.stage(FIRST, Arc::clone(&schema)).await.unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1; ROWS]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
    writer.write(&rows).await.unwrap();
    let staged = writer.finish().await.unwrap();
    let description = CollectionDescription {
        id: FIRST,
        name,
        schema,
        key: None,
        kind: CollectionKind::SourceTable { source: SOURCE },
        delta_version: None,
        failure: None,
    };
    let collections = BTreeMap::from([(FIRST, description)]);
    let tasks = TaskTracker::new();
    let mut bulk = Bulk::default();
    bulk.set_aside(Epoch(5), FIRST, Load::Snapshot(staged, None));
    bulk.set_aside(Epoch(5), SECOND, piece());
    let mut read = 0;
    loop {
        // No epoch waits for it, and what is due is due still.
        bulk.allow_a_piece();
        assert!(!bulk.is_due() && bulk.next().is_none());
        assert_eq!(bulk.due, PIECE_ROWS);
        if read == 0 {
            let waiting = bulk.wait(&delta, &collections, &tasks);
            assert_eq!(waiting.now_or_never(), None);
        }
        let waiting = bulk.wait(&delta, &collections, &tasks);
        tokio::time::timeout(DEADLINE, waiting).await.unwrap();
        assert!(bulk.is_due());
        // Nobody is told twice.
        let waiting = bulk.wait(&delta, &collections, &tasks);
        assert_eq!(waiting.now_or_never(), None);
        let Some((FIRST, Load::Snapshot(staged, Some(mut rows)))) = bulk.next() else {
            panic!("no snapshot enters");
        };
        let piece = rows.next.take().unwrap().unwrap();
        let Some(piece) = piece else { break };
        read += piece.iter().map(RecordBatch::num_rows).sum::<usize>();
        let load = Load::Snapshot(staged, Some(rows));
        bulk.queue.push_front((FIRST, load));
    }
    assert_eq!(read, ROWS);
    // Who reads a snapshot ends with it.
    assert!(bulk.is_ready());
    tasks.close();
    tokio::time::timeout(DEADLINE, tasks.wait()).await.unwrap();
}
