use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Int32Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use flowstone_types::Weights;
use proptest::prelude::*;

use super::*;

const VIEW: ObjectId = ObjectId::User(1);

fn delta(epoch: u64, value: i32) -> DeltaBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("c0", DataType::Int32, true)]));
    let rows = RecordBatch::try_new(schema, vec![Arc::new(Int32Array::from(vec![value]))]).unwrap();
    DeltaBatch {
        rows,
        weights: Weights::AllOne,
        epoch: Epoch(epoch),
    }
}

fn epochs(commits: &[CollectionCommit]) -> Vec<u64> {
    commits
        .iter()
        .flat_map(|commit| commit.deltas.iter().map(|delta| delta.epoch.0))
        .collect()
}

#[test]
fn what_is_committed_leaves_and_what_is_later_stays() {
    let mut buffer = CommitBuffer::default();
    buffer.add(VIEW, [delta(1, 1), delta(3, 3), delta(2, 2)]);
    assert_eq!(epochs(&buffer.up_to(Epoch(2))), [1, 2]);
    assert_eq!(
        epochs(&buffer.up_to(Epoch(2))),
        [1, 2],
        "nothing has succeeded yet"
    );
    buffer.committed();
    assert_eq!(epochs(&buffer.up_to(Epoch(3))), [3]);
    buffer.committed();
    assert!(buffer.up_to(Epoch(9)).is_empty());
}

#[test]
fn an_output_at_the_epoch_of_a_running_commit_is_in_the_next_one() {
    let mut buffer = CommitBuffer::default();
    buffer.add(ObjectId::User(2), [delta(5, 1)]);
    assert_eq!(epochs(&buffer.up_to(Epoch(5))), [5]);
    // A view is created meanwhile: its first output has the epoch that was run last.
    buffer.add(VIEW, [delta(5, 1)]);
    buffer.committed();
    let commits = buffer.up_to(Epoch(6));
    assert_eq!(commits.len(), 1);
    assert_eq!((commits[0].id, epochs(&commits)), (VIEW, vec![5]));
}

/// A change of one row.
fn change((epoch, value, weight): (u64, i32, i64)) -> DeltaBatch {
    DeltaBatch {
        weights: Weights::Const(weight),
        ..delta(epoch, value)
    }
}

fn buffer(changes: &[(u64, i32, i64)]) -> CommitBuffer {
    let mut buffer = CommitBuffer::default();
    buffer.add(VIEW, changes.iter().copied().map(change));
    buffer
}

/// What is known of how much waits is what there is.
fn check_sizes(buffer: &CommitBuffer) {
    for pending in buffer.pending.values() {
        let mut size = Size::of(&pending.deltas);
        if let Some((_, deltas, _)) = &pending.consolidating {
            size = size.plus(Size::of(deltas));
        }
        assert_eq!(pending.size(), size);
    }
}

/// What a commit of `epoch` does to each row. It has succeeded.
fn commit(buffer: &mut CommitBuffer, epoch: u64) -> BTreeMap<i32, i64> {
    let mut sums: BTreeMap<i32, i64> = BTreeMap::new();
    for commit in buffer.up_to(Epoch(epoch)) {
        for delta in commit.deltas {
            let values = delta.rows.column(0).as_primitive::<Int32Type>();
            for (row, value) in values.values().iter().enumerate() {
                *sums.entry(*value).or_default() += delta.weights.get(row);
            }
        }
    }
    check_sizes(buffer);
    buffer.committed();
    sums.retain(|_, weight| *weight != 0);
    sums
}

#[test]
fn many_changes_of_a_row_become_one_and_what_only_grows_stays_shared() {
    let mut changes = vec![(1, 0, 1)];
    for epoch in 2..40 {
        let value = i32::try_from(epoch).unwrap();
        changes.extend([(epoch, value - 2, -1), (epoch, value - 1, 1)]);
    }
    let mut updated = buffer(&changes);
    let consolidation = updated.begin(VIEW, Epoch(30), None).unwrap();
    updated.consolidated(consolidation.run());
    let deltas = &updated.pending[&VIEW].deltas;
    assert_eq!(deltas.iter().map(DeltaBatch::len).sum::<usize>(), 1 + 9 * 2);
    let mut grown = buffer(&[(1, 1, 1), (2, 1, 1), (3, 1, 1)]);
    let consolidation = grown.begin(VIEW, Epoch(3), None).unwrap();
    grown.consolidated(consolidation.run());
    assert_eq!(grown.pending[&VIEW].deltas.len(), 3);
}

#[test]
fn only_what_is_large_and_has_doubled_is_consolidated() {
    let values = |count: usize| Int32Array::from_iter_values(0..i32::try_from(count).unwrap());
    let schema = delta(1, 1).schema();
    let rows =
        |count: usize| RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(values(count))]);
    let add = |buffer: &mut CommitBuffer, weight: i64, count: usize| {
        let rows = rows(count).unwrap();
        let delta = DeltaBatch::new(rows, Weights::Const(weight), Epoch(1));
        buffer.add(VIEW, [delta]);
    };
    let mut buffer = CommitBuffer::default();
    add(&mut buffer, 1, ROWS_KEPT);
    assert!(buffer.start_consolidation(Epoch(1), None).is_none());
    add(&mut buffer, 1, 1000);
    let consolidation = buffer.start_consolidation(Epoch(1), None).unwrap();
    assert!(
        buffer.start_consolidation(Epoch(1), None).is_none(),
        "one at a time"
    );
    buffer.consolidated(consolidation.run());
    add(&mut buffer, -1, ROWS_KEPT / 2);
    assert!(buffer.start_consolidation(Epoch(1), None).is_none());
    add(&mut buffer, -1, ROWS_KEPT);
    let consolidation = buffer.start_consolidation(Epoch(1), None).unwrap();
    buffer.consolidated(consolidation.run());
    assert_eq!(buffer.pending[&VIEW].deltas.len(), 1);
    assert!(buffer.pending[&VIEW].size().rows <= ROWS_KEPT);
}

#[test]
fn a_commit_does_not_wait_for_a_consolidation_and_a_dropped_collection_stays_gone() {
    let changes = [(1, 1, 1), (2, 1, -1), (3, 2, 1)];
    let mut late = buffer(&changes);
    let consolidation = late.begin(VIEW, Epoch(3), None).unwrap();
    assert_eq!(commit(&mut late, 3), BTreeMap::from([(2, 1)]));
    late.consolidated(consolidation.run());
    assert!(late.up_to(Epoch(9)).is_empty(), "committed twice");
    let mut dropped = buffer(&changes);
    let consolidation = dropped.begin(VIEW, Epoch(3), None).unwrap();
    dropped.remove(VIEW);
    dropped.consolidated(consolidation.run());
    assert!(dropped.up_to(Epoch(9)).is_empty());
}

proptest! {
    /// Whenever there is a commit, it does the same with and without consolidation.
    #[test]
    fn a_consolidated_buffer_commits_the_same(
        changes in prop::collection::vec((1_u64..12, 0_i32..4, prop_oneof![Just(-1_i64), Just(1), Just(2)]), 0..60),
        later in prop::collection::vec((1_u64..16, 0_i32..4, prop_oneof![Just(-1_i64), Just(1)]), 0..20),
        durable in 0_u64..14,
        waiting in prop::option::of(0_u64..14),
        rest in 0_u64..6,
        lost in any::<bool>(),
    ) {
        let mut plain = buffer(&changes);
        let mut consolidated = buffer(&changes);
        let consolidation = consolidated.begin(VIEW, Epoch(durable), waiting.map(Epoch));
        let done = consolidation.map(Consolidation::run);
        for buffer in [&mut plain, &mut consolidated] {
            buffer.add(VIEW, later.iter().copied().map(change));
            check_sizes(buffer);
        }
        let mut done = if lost {
            // It ends after the first commit.
            done
        } else {
            if let Some(done) = done {
                consolidated.consolidated(done);
                check_sizes(&consolidated);
            }
            None
        };
        // What waits is committed first; whatever comes then is not older than what could be seen.
        let next = durable.max(waiting.unwrap_or(0)) + rest;
        for epoch in waiting.into_iter().chain([next, 20]) {
            prop_assert_eq!(commit(&mut plain, epoch), commit(&mut consolidated, epoch));
            if let Some(done) = done.take() {
                consolidated.consolidated(done);
            }
        }
    }
}
