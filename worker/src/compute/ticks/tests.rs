//! Cut changes are the changes.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Int64Array, StringArray};
use arrow_schema::{DataType, Field, Schema};
use flowstone_types::{Epoch, EvalError, EvalErrorKind, SourceOp};

use super::*;

const ONE: ObjectId = ObjectId::User(1);
const TWO: ObjectId = ObjectId::User(2);

fn texts(from: usize, count: usize, bytes: usize) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("c0", DataType::Utf8, true)]);
    let values: StringArray = (from..from + count)
        .map(|number| Some(format!("{number:0bytes$}")))
        .collect();
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(values)]).unwrap()
}

fn values(rows: &RecordBatch) -> Vec<String> {
    let texts = rows.column(0).as_string::<i32>();
    texts.iter().flatten().map(ToOwned::to_owned).collect()
}

#[test]
fn little_is_one_tick_and_nothing_is_too() {
    assert_eq!(in_ticks(Vec::new(), TICK_BYTES).len(), 1);
    let delta = DeltaBatch::insert(texts(0, 10, 10), Epoch(1));
    let inputs = vec![(ONE, CollectionInput::Deltas(vec![delta]))];
    assert_eq!(in_ticks(inputs, TICK_BYTES).len(), 1);
}

#[test]
fn deltas_are_cut_in_order_with_their_weights() {
    let weights: Int64Array = (1..=100).collect();
    let large = DeltaBatch::new(texts(0, 100, 1000), Weights::Array(weights), Epoch(1));
    let small = DeltaBatch::new(texts(100, 5, 10), Weights::Const(-1), Epoch(1));
    let error = EvalError::new(EvalErrorKind::Data, "no");
    let inputs = vec![
        (ONE, CollectionInput::Deltas(vec![large, small.clone()])),
        (TWO, CollectionInput::Deltas(vec![small])),
        (TWO, CollectionInput::Errors(vec![(error, 1)])),
    ];
    let ticks = in_ticks(inputs, 10_000);
    assert!((10..=12).contains(&ticks.len()), "{} ticks", ticks.len());
    let (mut of_one, mut of_two, mut errors) = (Vec::new(), Vec::new(), 0);
    for (id, input) in ticks.into_iter().flatten() {
        match input {
            CollectionInput::Deltas(deltas) => {
                for delta in deltas {
                    let rows = values(&delta.rows).into_iter().enumerate();
                    let weighted = rows.map(|(row, value)| (value, delta.weights.get(row)));
                    if id == ONE {
                        of_one.extend(weighted);
                    } else {
                        of_two.extend(weighted);
                    }
                }
            }
            CollectionInput::Errors(found) => errors += found.len(),
            CollectionInput::Changes(_) => panic!("there were none"),
        }
    }
    let large = (0..100).map(|number| (format!("{number:01000}"), i64::from(number) + 1));
    let small = (100..105).map(|number| (format!("{number:010}"), -1));
    assert_eq!(of_one, large.chain(small.clone()).collect::<Vec<_>>());
    assert_eq!(of_two, small.collect::<Vec<_>>());
    assert_eq!(errors, 1);
}

#[test]
fn changes_are_cut_with_what_they_say_of_their_rows() {
    let ops: Vec<SourceOp> = (0..100)
        .map(|row| {
            if row % 3 == 0 {
                SourceOp::Upsert
            } else {
                SourceOp::Insert
            }
        })
        .collect();
    let change = SourceChanges {
        rows: texts(0, 100, 1000),
        ops: ops.clone(),
        unchanged: vec![(0, 0), (33, 0), (99, 0)],
        moved: Vec::new(),
        truncate_before: true,
    };
    let empty = SourceChanges {
        rows: texts(0, 0, 10),
        ops: Vec::new(),
        unchanged: Vec::new(),
        moved: Vec::new(),
        truncate_before: true,
    };
    let inputs = vec![(ONE, CollectionInput::Changes(vec![change, empty]))];
    let ticks = in_ticks(inputs, 10_000);
    assert!(ticks.len() >= 10, "{} ticks", ticks.len());
    let mut parts = Vec::new();
    for (_, input) in ticks.into_iter().flatten() {
        let CollectionInput::Changes(changes) = input else {
            panic!("there were only changes");
        };
        parts.extend(changes);
    }
    let last = parts.pop().unwrap();
    assert!(last.truncate_before && last.ops.is_empty());
    let (mut rows, mut found, mut unchanged, mut truncates) = (0, Vec::new(), Vec::new(), 0);
    for part in parts {
        unchanged.extend(
            part.unchanged
                .iter()
                .map(|(row, column)| (rows + row, *column)),
        );
        truncates += usize::from(part.truncate_before);
        assert!(!part.truncate_before || rows == 0);
        assert_eq!(part.ops.len(), part.rows.num_rows());
        rows += u32::try_from(part.rows.num_rows()).unwrap();
        found.extend(part.ops);
    }
    assert_eq!((rows, truncates), (100, 1));
    assert_eq!(found, ops);
    assert_eq!(unchanged, [(0, 0), (33, 0), (99, 0)]);
}

#[test]
fn a_row_that_is_larger_than_a_tick_has_one_of_its_own() {
    let delta = DeltaBatch::insert(texts(0, 3, 5000), Epoch(1));
    let ticks = in_ticks(vec![(ONE, CollectionInput::Deltas(vec![delta]))], 1000);
    assert_eq!(ticks.len(), 3);
}
