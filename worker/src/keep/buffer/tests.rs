use std::sync::Arc;

use arrow_array::{Int32Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use flowstone_types::Weights;

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
