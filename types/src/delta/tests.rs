use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};

use super::*;

fn batch(values: &[i64], weights: Weights) -> DeltaBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("c0", DataType::Int64, true)]));
    let rows = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values.to_vec()))]);
    DeltaBatch::new(rows.unwrap(), weights, Epoch(7))
}

fn pairs(batch: &DeltaBatch) -> Vec<(i64, i64)> {
    let values: &Int64Array = batch.rows.column(0).as_any().downcast_ref().unwrap();
    (0..batch.len())
        .map(|row| (values.value(row), batch.weights.get(row)))
        .collect()
}

#[test]
fn rows_keep_their_weights_when_taken_and_filtered() {
    let all = batch(&[10, 20, 30], Weights::Array(vec![1, -2, 3].into()));
    assert_eq!(
        pairs(&all.take(&vec![2, 0].into()).unwrap()),
        [(30, 3), (10, 1)]
    );
    let keep = BooleanArray::from(vec![false, true, true]);
    assert_eq!(pairs(&all.filter(&keep).unwrap()), [(20, -2), (30, 3)]);
}

#[test]
fn concat_keeps_each_batch_s_weights() {
    let one = batch(&[1], Weights::AllOne);
    let two = batch(&[2, 3], Weights::Const(-1));
    let schema = one.schema();
    let all = DeltaBatch::concat(&schema, &[one.clone(), two], Epoch(7)).unwrap();
    assert_eq!(pairs(&all), [(1, 1), (2, -1), (3, -1)]);
    let ones = DeltaBatch::concat(&schema, &[one.clone(), one], Epoch(7)).unwrap();
    assert_eq!(ones.weights, Weights::AllOne);
    assert!(
        DeltaBatch::concat(&schema, &[], Epoch(7))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn negating_twice_gives_the_batch_back_and_the_smallest_weight_has_no_negative() {
    let all = batch(&[1, 2], Weights::Array(vec![4, -5].into()));
    assert_eq!(pairs(&all.negate().unwrap()), [(1, -4), (2, 5)]);
    assert_eq!(pairs(&all.negate().unwrap().negate().unwrap()), pairs(&all));
    let smallest = batch(&[1], Weights::Const(i64::MIN));
    assert_eq!(smallest.negate().unwrap_err(), TypeError::WeightOverflow);
}
