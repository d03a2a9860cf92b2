use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use proptest::prelude::*;

use super::*;
use crate::Epoch;
use crate::normalize::normalize_batch;

type Row = (Option<i64>, Option<String>, Option<u64>);

/// Floats go in by their bits, so that NaNs and zeros of both signs occur.
fn batch_of(rows: &[Row], weights: &[i64]) -> DeltaBatch {
    let schema = Arc::new(Schema::new(vec![
        Field::new("c0", DataType::Int64, true),
        Field::new("c1", DataType::Utf8, true),
        Field::new("c2", DataType::Float64, true),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(
            rows.iter()
                .map(|row| row.1.clone())
                .collect::<StringArray>(),
        ),
        Arc::new(
            rows.iter()
                .map(|row| row.2.map(f64::from_bits))
                .collect::<Float64Array>(),
        ),
    ];
    let rows = normalize_batch(&RecordBatch::try_new(schema, columns).unwrap());
    DeltaBatch::new(rows, Weights::Array(weights.to_vec().into()), Epoch(1))
}

fn row_of(batch: &DeltaBatch, row: usize) -> Row {
    let column = |index: usize| batch.rows.column(index).as_any();
    let integers: &Int64Array = column(0).downcast_ref().unwrap();
    let texts: &StringArray = column(1).downcast_ref().unwrap();
    let floats: &Float64Array = column(2).downcast_ref().unwrap();
    (
        integers.is_valid(row).then(|| integers.value(row)),
        texts.is_valid(row).then(|| texts.value(row).to_owned()),
        floats.is_valid(row).then(|| floats.value(row).to_bits()),
    )
}

fn any_row() -> impl Strategy<Value = Row> {
    let float = prop_oneof![
        Just(0.0_f64),
        Just(-0.0),
        Just(1.5),
        Just(f64::NAN),
        Just(-f64::NAN)
    ];
    (
        proptest::option::of(0_i64..3),
        proptest::option::of(prop_oneof![Just(String::new()), Just("a".to_owned())]),
        proptest::option::of(float.prop_map(f64::to_bits)),
    )
}

proptest! {
    #[test]
    fn consolidation_sums_the_weights_of_equal_rows(
        rows in proptest::collection::vec((any_row(), prop_oneof![-3_i64..0, 1_i64..4]), 0..60)
    ) {
        let (rows, weights): (Vec<Row>, Vec<i64>) = rows.into_iter().unzip();
        let batch = batch_of(&rows, &weights);
        let mut model: BTreeMap<Row, i64> = BTreeMap::new();
        let mut order: Vec<Row> = Vec::new();
        for row in 0..batch.len() {
            let key = row_of(&batch, row);
            if !order.contains(&key) {
                order.push(key.clone());
            }
            *model.entry(key).or_default() += batch.weights.get(row);
        }
        let expected: Vec<(Row, i64)> = order
            .into_iter()
            .map(|row| (row.clone(), model[&row]))
            .filter(|(_, weight)| *weight != 0)
            .collect();
        let result = consolidate(&batch).unwrap();
        let found: Vec<(Row, i64)> =
            (0..result.len()).map(|row| (row_of(&result, row), result.weights.get(row))).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(result.epoch, batch.epoch);
    }
}

#[test]
fn a_sum_beyond_i64_is_an_error() {
    let row = (Some(1), None, None);
    let batch = batch_of(&[row.clone(), row], &[i64::MAX, 1]);
    assert_eq!(consolidate(&batch).unwrap_err(), TypeError::WeightOverflow);
}

#[test]
fn rows_that_cancel_leave_nothing() {
    let row = (Some(1), Some("a".to_owned()), None);
    let batch = batch_of(&[row.clone(), row], &[1, -1]);
    assert!(consolidate(&batch).unwrap().is_empty());
}
