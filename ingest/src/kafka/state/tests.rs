use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::Schema;
use flowstone_types::{SourceOp, SqlType};

use super::*;
use crate::capture::Attempt;
use crate::error_files::{ErrorsFile, RowErrorsFile, TableError};
use crate::kafka::decode::Outcome;
use crate::row_errors::Notes;
use crate::transactions::{BufferLimits, Messages, Part};

const TABLE: ObjectId = ObjectId::User(2);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![SqlType::Int8.to_field("n", false)]))
}

fn table(id: ObjectId) -> SourceTable {
    SourceTable {
        id,
        upstream_schema: "kafka".to_owned(),
        upstream_name: "t".to_owned(),
        upstream_oid: 0,
        columns: Vec::new(),
        key: Vec::new(),
        upstream: Vec::new(),
    }
}

fn state(resume_from: Option<&Offsets>, snapshotted: &[ObjectId]) -> State {
    let mut state = State::default();
    state.start(vec![(table(TABLE), schema())], resume_from, snapshotted);
    state
}

/// A batch of messages, each of which is its offset, and what it is for the tables that want it.
fn receive(
    state: &mut State,
    lane: Lane,
    partition: i32,
    offsets: std::ops::Range<i64>,
) -> Vec<(ObjectId, Offsets)> {
    let mut batch = Batch::new(lane, partition);
    for offset in offsets {
        batch.add(offset, None, Some(b"x"), &[]);
    }
    let mut outcomes = Vec::new();
    for want in state.wanted(&batch) {
        let numbers: Vec<i64> = batch
            .range(want.first, want.end)
            .iter()
            .map(|message| message.offset)
            .collect();
        let column = Arc::new(Int64Array::from(numbers.clone()));
        let messages = Messages {
            partition,
            emptied: None,
            rows: RecordBatch::try_new(schema(), vec![column]).unwrap(),
            ops: vec![SourceOp::Insert; numbers.len()],
            next: numbers.iter().map(|number| number + 1).collect(),
            unchanged: Vec::new(),
            notes: Notes::default(),
        };
        let outcome = Outcome {
            changes: vec![messages],
            messages: u64::try_from(numbers.len()).unwrap(),
            bytes: 1,
            ..Outcome::default()
        };
        outcomes.push((want.table, outcome));
    }
    state.append(&batch, outcomes)
}

/// What a take of one table gives.
fn take(state: &mut State, position: &Offsets, snapshots: &[ObjectId]) -> Vec<i64> {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    let binding = Binding {
        position,
        snapshots,
    };
    let Attempt::Taken(taken) = state.try_take(&binding).unwrap() else {
        panic!("it is not there");
    };
    let mut numbers = Vec::new();
    for part in taken.tables.into_iter().flat_map(|table| table.parts) {
        let Part::Buffered(closed) = part else {
            panic!("nothing was written");
        };
        let (changes, _) = closed.into_changes();
        let column = changes.rows.column(0).as_primitive::<Int64Type>();
        numbers.extend_from_slice(column.values());
    }
    numbers
}

#[test]
fn the_first_content_is_offered_when_all_of_it_is_there() {
    let mut state = state(None, &[]);
    let start = Offsets::from([(0, 0), (1, 0)]);
    let target = Offsets::from([(0, 3), (1, 2)]);
    assert!(state.begin(&start, &target).is_empty());
    assert!(receive(&mut state, Lane::Main, 0, 0..5).is_empty());
    assert_eq!(state.offered(), None);
    assert_eq!(
        receive(&mut state, Lane::Main, 1, 0..2),
        [(TABLE, target.clone())]
    );
    assert_eq!(state.offered(), Some(Offsets::from([(0, 5), (1, 2)])));
    assert_eq!(
        take(&mut state, &target, &[TABLE]),
        [0, 1, 2, 0, 1],
        "by partition, whatever came first"
    );
    assert_eq!(
        take(&mut state, &Offsets::from([(0, 5), (1, 2)]), &[]),
        [3, 4]
    );
}

#[test]
fn messages_are_cut_at_any_offset_and_come_once() {
    let resumed = Offsets::from([(0, 10)]);
    let mut state = state(Some(&resumed), &[TABLE]);
    receive(&mut state, Lane::Main, 0, 10..20);
    // The reader has begun again at what was received when it stopped.
    receive(&mut state, Lane::Main, 0, 15..22);
    assert_eq!(state.received, Offsets::from([(0, 22)]));
    assert_eq!(
        take(&mut state, &Offsets::from([(0, 13)]), &[]),
        [10, 11, 12]
    );
    let rest: Vec<i64> = (13..22).collect();
    assert_eq!(take(&mut state, &Offsets::from([(0, 22)]), &[]), rest);
}

#[test]
fn a_table_that_is_added_reads_for_itself_up_to_where_the_others_are() {
    let resumed = Offsets::from([(0, 4)]);
    let start = Offsets::from([(0, 0)]);
    let mut state = state(Some(&resumed), &[TABLE]);
    let added = ObjectId::User(3);
    state.add_table(table(added), schema());
    let early = state.begin_early(&start).unwrap();
    assert_eq!(early.until, resumed);
    receive(&mut state, Lane::Main, 0, 4..6);
    receive(&mut state, Lane::Early(early.generation), 0, 0..3);
    // It has to begin again.
    let again = state.begin_early(&start).unwrap();
    receive(&mut state, Lane::Early(early.generation), 0, 3..6);
    receive(&mut state, Lane::Early(again.generation), 0, 0..6);
    let mut end = Batch::end(Lane::Early(again.generation));
    assert_eq!(state.append(&end, Vec::new()), [(added, resumed.clone())]);
    end.finished = false;
    assert!(state.append(&end, Vec::new()).is_empty());
    let position = Offsets::from([(0, 6)]);
    // Of both tables: 4 and 5 of the old one, everything of the new one.
    assert_eq!(
        take(&mut state, &position, &[added]),
        [4, 5, 0, 1, 2, 3, 4, 5]
    );
}

#[test]
fn what_an_attempt_that_was_given_up_had_under_way_does_not_come_twice() {
    let start = Offsets::from([(0, 0)]);
    let mut state = state(Some(&Offsets::from([(0, 2)])), &[]);
    let given_up = state.begin_early(&start).unwrap();
    let lane = Lane::Early(given_up.generation);
    let mut batch = Batch::new(lane, 0);
    batch.add(0, None, Some(b"x"), &[]);
    assert_eq!(state.wanted(&batch).len(), 1);
    let again = state.begin_early(&start).unwrap();
    // It was decoded meanwhile.
    let column = Arc::new(Int64Array::from(vec![0]));
    let late = Outcome {
        changes: vec![Messages {
            partition: 0,
            emptied: None,
            rows: RecordBatch::try_new(schema(), vec![column]).unwrap(),
            ops: vec![SourceOp::Insert],
            next: vec![1],
            unchanged: Vec::new(),
            notes: Notes::default(),
        }],
        ..Outcome::default()
    };
    state.append(&batch, vec![(TABLE, late)]);
    let lane = Lane::Early(again.generation);
    receive(&mut state, lane, 0, 0..2);
    state.append(&Batch::end(lane), Vec::new());
    let position = Offsets::from([(0, 2)]);
    assert_eq!(take(&mut state, &position, &[TABLE]), [0, 1]);
}

#[test]
fn where_a_table_joined_the_others_does_not_change_the_order_of_its_messages() {
    let start = Offsets::from([(0, 0), (1, 0)]);
    let bound = Offsets::from([(0, 4), (1, 4)]);
    // The table joins at another place after a restart.
    for joined in [1, 3] {
        let mut state = state(Some(&Offsets::from([(0, joined), (1, joined)])), &[]);
        let early = state.begin_early(&start).unwrap();
        let lane = Lane::Early(early.generation);
        for partition in [1, 0] {
            receive(&mut state, Lane::Main, partition, joined..4);
            receive(&mut state, lane, partition, 0..joined);
        }
        state.append(&Batch::end(lane), Vec::new());
        assert_eq!(
            take(&mut state, &bound, &[TABLE]),
            [0, 1, 2, 3, 0, 1, 2, 3],
            "one partition after the other"
        );
    }
}

#[test]
fn the_first_content_is_promised_until_it_is_there() {
    let mut state = state(None, &[]);
    let start = Offsets::from([(0, 0)]);
    let target = Offsets::from([(0, 3)]);
    state.begin(&start, &target);
    receive(&mut state, Lane::Main, 0, 0..1);
    assert_eq!(state.promised(), target);
    receive(&mut state, Lane::Main, 0, 1..5);
    assert_eq!(state.promised(), Offsets::from([(0, 5)]));
}

#[test]
fn a_table_that_is_added_while_messages_are_on_their_way_begins_behind_them() {
    let mut state = state(Some(&Offsets::from([(0, 4)])), &[TABLE]);
    let mut batch = Batch::new(Lane::Main, 0);
    batch.add(4, None, Some(b"x"), &[]);
    assert_eq!(state.wanted(&batch).len(), 1);
    state.add_table(table(ObjectId::User(3)), schema());
    assert!(state.begin_early(&Offsets::new()).is_none());
    state.append(&batch, Vec::new());
    let early = state.begin_early(&Offsets::new()).unwrap();
    assert_eq!(early.until, Offsets::from([(0, 5)]));
}

#[test]
fn what_was_bound_and_is_not_received_is_waited_for_without_holding_the_reader_up() {
    let mut state = state(Some(&Offsets::from([(0, 0)])), &[TABLE]);
    state.logs.limits = BufferLimits {
        memory_bytes: 0,
        disk_bytes: 0,
    };
    receive(&mut state, Lane::Main, 0, 0..2);
    assert_eq!(state.pressure(), Pressure::Full);
    let position = Offsets::from([(0, 3)]);
    let binding = Binding {
        position: &position,
        snapshots: &[],
    };
    assert!(matches!(state.try_take(&binding), Ok(Attempt::Lacking)));
    assert_eq!(state.pressure(), Pressure::Memory);
    assert_eq!(state.promised(), position);
    receive(&mut state, Lane::Main, 0, 2..4);
    assert_eq!(state.pressure(), Pressure::Full);
}

#[test]
fn a_table_that_fails_does_not_keep_a_take_waiting() {
    let mut state = state(Some(&Offsets::from([(0, 4)])), &[]);
    let (failure, complete) = state.fail_table(TABLE, "no".to_owned()).unwrap();
    assert_eq!(failure.position, 4);
    assert_eq!(complete, Some(Offsets::from([(0, 4)])));
    let position = Offsets::from([(0, 4)]);
    assert!(take(&mut state, &position, &[TABLE]).is_empty());
    let log = state.table_mut(TABLE).unwrap();
    let error = log.end_cut(4).error;
    assert_eq!(error.map(|error| error.message), Some("no".to_owned()));
}

/// The source after a restart, with what is on disk of a failure.
fn restarted(failure: &Failure, resumed: &Offsets, snapshotted: &[ObjectId]) -> State {
    let errors = ErrorsFile {
        version: 1,
        errors: vec![TableError::new(TABLE, failure)],
    };
    let errors = serde_json::to_string(&errors).unwrap();
    let errors = serde_json::from_str(&errors).unwrap();
    let mut state = State {
        logs: Logs::new(BufferLimits::default(), errors, RowErrorsFile::default()),
        ..State::default()
    };
    state.start(vec![(table(TABLE), schema())], Some(resumed), snapshotted);
    state
}

/// What the table says of itself at the end of a take.
fn error_at(state: &mut State, position: &Offsets) -> Option<String> {
    let log = state.table_mut(TABLE).unwrap();
    let error = log.end_cut(ordinal(position)).error;
    error.map(|error| error.message)
}

#[test]
fn a_table_that_failed_has_what_was_bound_before_a_restart_and_no_more() {
    let resumed = Offsets::from([(0, 30), (1, 20)]);
    let mut before = state(Some(&resumed), &[TABLE]);
    receive(&mut before, Lane::Main, 0, 30..60);
    receive(&mut before, Lane::Main, 1, 20..40);
    let (failure, complete) = before.fail_table(TABLE, "no".to_owned()).unwrap();
    assert_eq!((failure.position, complete), (100, None));
    receive(&mut before, Lane::Main, 1, 40..50);
    let mut state = restarted(&failure, &resumed, &[TABLE]);
    // It comes in another order.
    receive(&mut state, Lane::Main, 1, 20..50);
    receive(&mut state, Lane::Main, 0, 30..70);
    let bound = Offsets::from([(0, 50), (1, 30)]);
    let expected: Vec<i64> = (30..50).chain(20..30).collect();
    assert_eq!(take(&mut state, &bound, &[]), expected);
    assert_eq!(error_at(&mut state, &bound), None);
    // Some of it is missing from here on, although the sum of the offsets is less.
    let behind = Offsets::from([(0, 50), (1, 45)]);
    let expected: Vec<i64> = (30..40).collect();
    assert_eq!(take(&mut state, &behind, &[]), expected);
    assert_eq!(error_at(&mut state, &behind).as_deref(), Some("no"));
}

#[test]
fn a_table_that_failed_before_its_first_content_is_announced_again_after_a_restart() {
    let mut before = state(Some(&Offsets::from([(0, 4)])), &[]);
    receive(&mut before, Lane::Main, 0, 4..8);
    let (failure, complete) = before.fail_table(TABLE, "no".to_owned()).unwrap();
    assert_eq!(complete, Some(Offsets::from([(0, 4)])));
    assert_eq!(failure.position, 4, "where it is bound there is the error");
    let resumed = Offsets::from([(0, 6)]);
    let mut state = restarted(&failure, &resumed, &[]);
    assert_eq!(state.take_unannounced(), [(TABLE, resumed.clone())]);
    assert!(state.take_unannounced().is_empty());
    assert!(state.begin_early(&Offsets::new()).is_none());
    assert!(take(&mut state, &resumed, &[TABLE]).is_empty());
    assert_eq!(error_at(&mut state, &resumed).as_deref(), Some("no"));
}

#[test]
fn a_table_that_failed_behind_its_first_content_reads_that_again_after_a_restart() {
    let start = Offsets::from([(0, 0)]);
    let resumed = Offsets::from([(0, 4)]);
    let read_early = |state: &mut State| {
        let early = state.begin_early(&start).unwrap();
        let lane = Lane::Early(early.generation);
        receive(state, lane, 0, 0..4);
        state.append(&Batch::end(lane), Vec::new())
    };
    let mut before = state(Some(&resumed), &[]);
    assert_eq!(read_early(&mut before), [(TABLE, resumed.clone())]);
    receive(&mut before, Lane::Main, 0, 4..8);
    let (failure, complete) = before.fail_table(TABLE, "no".to_owned()).unwrap();
    assert_eq!(complete, None);
    let mut state = restarted(&failure, &resumed, &[]);
    assert!(state.take_unannounced().is_empty());
    receive(&mut state, Lane::Main, 0, 4..10);
    assert_eq!(read_early(&mut state), [(TABLE, resumed.clone())]);
    let bound = Offsets::from([(0, 6)]);
    assert_eq!(take(&mut state, &bound, &[TABLE]), [0, 1, 2, 3, 4, 5]);
    assert_eq!(error_at(&mut state, &bound), None);
    let end = Offsets::from([(0, 10)]);
    assert_eq!(take(&mut state, &end, &[]), [6, 7]);
    assert_eq!(error_at(&mut state, &end).as_deref(), Some("no"));
}

#[test]
fn what_a_table_takes_in_memory_is_what_counts() {
    let mut state = state(Some(&Offsets::from([(0, 0)])), &[TABLE]);
    // Of a segment, at least: 512 bytes for itself, and of each row 8 for its value, 8 for its offset and one for its operation. A byte was received.
    state.logs.limits = BufferLimits {
        memory_bytes: 2 * (512 + 8 * 17) - 6,
        disk_bytes: 1 << 20,
    };
    assert!(!state.logs.is_filling());
    receive(&mut state, Lane::Main, 0, 0..8);
    assert_eq!(state.pressure(), Pressure::None);
    assert!(state.logs.is_filling());
    receive(&mut state, Lane::Main, 0, 8..16);
    assert_eq!(state.pressure(), Pressure::Memory);
}

#[test]
fn what_is_removed_before_there_is_a_table_for_it_is_passed_over() {
    let mut state = State::default();
    state.start(Vec::new(), Some(&Offsets::from([(0, 5), (1, 2)])), &[]);
    assert!(state.pass_over(0, 8));
    let passed = Offsets::from([(0, 8), (1, 2)]);
    assert_eq!(state.offered(), Some(passed.clone()));
    state.add_table(table(TABLE), schema());
    assert!(!state.pass_over(0, 9), "the table lacks it");
    assert_eq!(state.received, passed);
}

/// A table of updates with times.
fn table_with_times() -> SourceTable {
    use flowstone_proto::kafka::{AvroFormat, Envelope, Format, KafkaColumn, KafkaTable};
    let spec = KafkaTable {
        key: None,
        value: Format::Avro(AvroFormat {
            reader: String::new(),
            references: Vec::new(),
            registry: None,
        }),
        envelope: Envelope::Materialize,
        include: Vec::new(),
        on_decode_error: OnDecodeError::Row,
        columns: vec![KafkaColumn::Value(0)],
    };
    SourceTable {
        upstream: spec.encode(),
        ..table(TABLE)
    }
}

fn mark(next: i64, needed: i64) -> Mark {
    Mark {
        next,
        frontier: 3,
        needed,
    }
}

fn manifest(marks: Vec<(ObjectId, Mark)>) -> Manifest {
    Manifest {
        version: 1,
        cluster: None,
        topic: "t".to_owned(),
        start: Offsets::from([(0, 5)]),
        target: Offsets::from([(0, 10)]),
        row_error_saves: 0,
        marks,
    }
}

/// What a message is that makes nothing whole.
fn nothing_whole(mark: Mark) -> Outcome {
    Outcome {
        mark: Some(mark),
        ..Outcome::default()
    }
}

/// Messages without content.
fn messages(lane: Lane, offsets: std::ops::Range<i64>) -> Batch {
    let mut batch = Batch::new(lane, 0);
    for offset in offsets {
        batch.add(offset, None, None, &[]);
    }
    batch
}

#[test]
fn what_is_not_whole_at_a_commit_point_is_read_again_after_a_restart() {
    let bound = Offsets::from([(0, 20)]);
    let resumed = |marks| {
        let mut state = State::default();
        let tables = vec![(table_with_times(), schema())];
        state.start(tables, Some(&bound), &[TABLE]);
        state.resume_marks(&manifest(marks));
        state
    };
    // One that is behind the commit point would leave out what was given out behind it.
    for marks in [Vec::new(), vec![(TABLE, mark(21, 12))]] {
        let mut state = resumed(marks);
        assert_eq!(state.reads_from(0, 20), 5);
        assert_eq!(state.reads_from(1, 7), 7);
        assert!(state.marks().is_empty());
    }
    let mut state = resumed(vec![(TABLE, mark(18, 12))]);
    assert_eq!(state.begins(TABLE), Some(mark(18, 12)));
    assert_eq!(state.reads_from(0, 20), 12);
    assert_eq!(state.marks(), [(TABLE, mark(18, 12))]);
    assert!(state.fail_lacking(12).is_empty());
    let batch = messages(Lane::Main, 24..25);
    state.append(&batch, vec![(TABLE, nothing_whole(mark(25, 23)))]);
    // Another attempt of the reader goes on where this one was.
    assert_eq!(state.reads_from(0, 25), 25);
    assert_eq!(state.marks(), [(TABLE, mark(18, 12))]);
    state.acknowledge(&Offsets::from([(0, 25)]));
    assert_eq!(state.marks(), [(TABLE, mark(25, 23))]);
    // Behind it there is something that is no message.
    let mut end = Batch::new(Lane::Main, 0);
    end.reached = Some(27);
    state.append(&end, Vec::new());
    assert_eq!(state.reads_from(0, 27), 27);
    let mut state = resumed(vec![(TABLE, mark(18, 12))]);
    let failed = state.fail_lacking(13);
    assert_eq!(failed.len(), 1);
    assert!(failed[0].1.message.contains("from offset 12 to 13"));
    assert!(state.fail_lacking(13).is_empty());
}

#[test]
fn marks_are_noted_as_soon_as_a_table_is_bound() {
    let mut state = State::default();
    state.start(vec![(table_with_times(), schema())], None, &[]);
    let (start, target) = (Offsets::from([(0, 0)]), Offsets::from([(0, 2)]));
    state.begin(&start, &target);
    let batch = messages(Lane::Main, 0..2);
    let complete = state.append(&batch, vec![(TABLE, nothing_whole(mark(2, 1)))]);
    assert_eq!(complete, [(TABLE, target.clone())]);
    state.acknowledge(&Offsets::from([(0, 2)]));
    assert!(state.marks().is_empty());
    assert!(take(&mut state, &target, &[TABLE]).is_empty());
    // The topic may stay as it is: nothing tells that it was committed.
    state.acknowledge(&target);
    assert_eq!(state.marks(), [(TABLE, mark(2, 1))]);
}

#[test]
fn who_reads_alone_is_shown_everything_by_its_own_reader() {
    let mut state = State::default();
    let bound = Offsets::from([(0, 20)]);
    state.start(Vec::new(), Some(&bound), &[]);
    state.add_table(table_with_times(), schema());
    let early = state.begin_early(&Offsets::from([(0, 5)])).unwrap();
    let lane = Lane::Early(early.generation);
    let batch = messages(lane, 5..9);
    state.append(&batch, vec![(TABLE, nothing_whole(mark(9, 6)))]);
    assert_eq!(state.reads_from(0, 20), 20);
    assert!(state.fail_lacking(12).is_empty());
    let batch = messages(lane, 9..20);
    state.append(&batch, vec![(TABLE, nothing_whole(mark(20, 6)))]);
    assert_eq!(state.append(&Batch::end(lane), Vec::new()).len(), 1);
    assert_eq!(state.reads_from(0, 20), 20);
}

#[test]
fn a_table_that_fails_behind_the_commit_point_is_shown_what_it_needs_before() {
    let failure = Failure {
        message: "no".to_owned(),
        keep: None,
        offsets: Some(Offsets::from([(0, 25)])),
        position: 25,
    };
    let errors = ErrorsFile {
        version: 1,
        errors: vec![TableError::new(TABLE, &failure)],
    };
    let mut state = State {
        logs: Logs::new(BufferLimits::default(), errors, RowErrorsFile::default()),
        ..State::default()
    };
    let bound = Offsets::from([(0, 20)]);
    let tables = vec![(table_with_times(), schema())];
    state.start(tables, Some(&bound), &[TABLE]);
    state.resume_marks(&manifest(vec![(TABLE, mark(18, 12))]));
    assert_eq!(state.reads_from(0, 20), 12);
    let batch = messages(Lane::Main, 12..16);
    let shown = Want {
        table: TABLE,
        first: 4,
        end: 4,
    };
    assert_eq!(state.wanted(&batch), [shown]);
    state.append(&batch, vec![(TABLE, nothing_whole(mark(16, 12)))]);
    let batch = messages(Lane::Main, 16..30);
    let wanted = Want {
        table: TABLE,
        first: 4,
        end: 9,
    };
    assert_eq!(state.wanted(&batch), [wanted]);
    state.append(&batch, vec![(TABLE, nothing_whole(mark(25, 12)))]);
    // Behind that it needs nothing.
    assert!(state.wanted(&messages(Lane::Main, 20..40)).is_empty());
    assert_eq!(state.reads_from(0, 30), 30);
    assert!(state.fail_lacking(14).is_empty());
}
