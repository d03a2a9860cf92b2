use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Int32Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use flowstone_types::SourceOp::{DeleteByKey, Upsert};
use flowstone_types::{SourceChanges, SourceOp};

use super::{complete, has_candidates, merge, wanted_keys};

fn rows(rows: &[(i32, Option<&str>)]) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("c0", DataType::Int32, false),
        Field::new("c1", DataType::Utf8, true),
    ]);
    let keys = Int32Array::from_iter_values(rows.iter().map(|(key, _)| *key));
    let values: StringArray = rows.iter().map(|(_, value)| *value).collect();
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys), Arc::new(values)]).unwrap()
}

/// Changes of rows `(operation, key, value)`; the value `?` was left out, and so was `<` of a row that had the key before.
fn changes(list: &[(SourceOp, i32, Option<&str>)]) -> SourceChanges {
    let values: Vec<(i32, Option<&str>)> = list
        .iter()
        .map(|(_, key, value)| (*key, value.filter(|value| !["?", "<"].contains(value))))
        .collect();
    let rows_with = |wanted: &'static [&'static str]| {
        (0_u32..)
            .zip(list)
            .filter(move |(_, (.., value))| value.is_some_and(|value| wanted.contains(&value)))
            .map(|(row, _)| row)
    };
    SourceChanges {
        rows: rows(&values),
        ops: list.iter().map(|(op, ..)| *op).collect(),
        unchanged: rows_with(&["?", "<"]).map(|row| (row, 1)).collect(),
        moved: rows_with(&["<"]).collect(),
        truncate_before: false,
    }
}

fn values(changes: &SourceChanges) -> Vec<(i32, Option<&str>)> {
    let keys = changes.rows.column(0).as_primitive::<Int32Type>();
    let values = changes.rows.column(1).as_string::<i32>();
    itertools::zip_eq(keys.values(), values)
        .map(|(key, value)| (*key, value))
        .collect()
}

#[test]
fn a_changed_key_takes_the_values_of_the_deleted_row() {
    let changes = changes(&[(DeleteByKey, 1, None), (Upsert, 2, Some("<"))]);
    assert!(has_candidates(std::slice::from_ref(&changes)));
    assert_eq!(wanted_keys(&changes), [0, 1]);
    let done = complete(changes, &[0], &rows(&[(1, Some("long"))])).unwrap();
    assert_eq!(values(&done), [(1, None), (2, Some("long"))]);
    assert!(done.unchanged.is_empty());
}

#[test]
fn an_update_after_a_deletion_of_another_row_keeps_its_own_values() {
    let changes = changes(&[(DeleteByKey, 1, None), (Upsert, 2, Some("?"))]);
    let done = complete(changes, &[0], &rows(&[(1, Some("one")), (2, Some("two"))])).unwrap();
    assert_eq!(
        done.unchanged,
        [(1, 1)],
        "the shard fills it from the row with the same key"
    );
    assert_eq!(values(&done), [(1, None), (2, None)]);
}

#[test]
fn an_update_of_a_row_that_is_not_there_takes_nothing_of_another_that_was_deleted_before() {
    let list = [(DeleteByKey, 1, None), (Upsert, 2, Some("?"))];
    let first = changes(&list);
    assert!(!has_candidates(std::slice::from_ref(&first)));
    assert!(wanted_keys(&first).is_empty());
    let done = complete(first, &[0], &rows(&[(1, Some("one"))])).unwrap();
    assert_eq!(values(&done), [(1, None), (2, None)]);
    assert_eq!(
        done.unchanged,
        [(1, 1)],
        "the shard says that there is none"
    );
    // Nor if something else moved a row in the same epoch.
    let list = [
        (DeleteByKey, 3, None),
        (Upsert, 4, Some("<")),
        (Upsert, 1, Some("again")),
        (DeleteByKey, 1, None),
        (Upsert, 2, Some("?")),
    ];
    let stored = rows(&[(1, Some("one")), (3, Some("three"))]);
    let done = complete(changes(&list), &[0], &stored).unwrap();
    let seen = values(&done);
    assert_eq!((seen[1], seen[4]), ((4, Some("three")), (2, None)));
    assert_eq!(done.unchanged, [(4, 1)]);
}

#[test]
fn a_changed_key_that_a_row_has_takes_the_values_that_are_named() {
    let changes = changes(&[(DeleteByKey, 1, None), (Upsert, 2, Some("<"))]);
    let done = complete(changes, &[0], &rows(&[(1, Some("one")), (2, Some("two"))])).unwrap();
    assert_eq!(values(&done), [(1, None), (2, Some("one"))]);
    assert!(done.unchanged.is_empty() && done.moved.is_empty());
}

#[test]
fn values_follow_a_row_through_several_keys() {
    let list = [
        (Upsert, 1, Some("?")),
        (DeleteByKey, 1, None),
        (Upsert, 2, Some("<")),
        (Upsert, 2, Some("?")),
        (DeleteByKey, 2, None),
        (Upsert, 3, Some("<")),
        (Upsert, 4, Some("four")),
        (DeleteByKey, 4, None),
        (Upsert, 5, Some("<")),
    ];
    let done = complete(changes(&list), &[0], &rows(&[(1, Some("one"))])).unwrap();
    let seen: Vec<(i32, Option<&str>)> = values(&done);
    assert_eq!(
        (seen[2], seen[5], seen[8]),
        ((2, Some("one")), (3, Some("one")), (5, Some("four")))
    );
    assert_eq!(
        done.unchanged,
        [(0, 1), (3, 1)],
        "updates under an unchanged key are left to the shard"
    );
}

#[test]
fn a_pair_is_found_over_a_batch_border_and_not_over_a_truncation() {
    let (first, second) = (
        changes(&[(DeleteByKey, 1, None)]),
        changes(&[(Upsert, 2, Some("<"))]),
    );
    let split = vec![first.clone(), second.clone()];
    assert!(has_candidates(&split));
    let merged = merge(split).unwrap();
    assert_eq!((merged.len(), wanted_keys(&merged[0])), (1, vec![0, 1]));
    let truncated = vec![
        first,
        SourceChanges {
            truncate_before: true,
            ..second
        },
    ];
    let merged = merge(truncated).unwrap();
    assert_eq!((merged.len(), wanted_keys(&merged[1])), (2, vec![]));
}
