use std::sync::Arc;

use arrow_array::{Int32Array, StringArray};
use flowstone_proto::message::SourceColumn;
use flowstone_types::ObjectId;

use super::*;

fn table(key: Vec<usize>) -> SourceTable {
    let column = |name: &str| SourceColumn {
        name: name.to_owned(),
        attribute: 1,
        type_oid: 0,
        type_modifier: -1,
        not_null: false,
        as_text: false,
    };
    SourceTable {
        id: ObjectId::User(1),
        upstream_schema: "public".to_owned(),
        upstream_name: "t".to_owned(),
        upstream_oid: 1,
        columns: vec![column("id"), column("v")],
        key,
        upstream: Vec::new(),
    }
}

fn changes(ops: &[SourceOp], ids: &[i32], values: &[Option<&str>]) -> SourceChanges {
    let columns: [arrow_array::ArrayRef; 2] = [
        Arc::new(Int32Array::from(ids.to_vec())),
        Arc::new(StringArray::from(values.to_vec())),
    ];
    let [ids, values] = columns;
    let rows =
        RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("v", values, true)]).unwrap();
    SourceChanges {
        ops: ops.to_vec(),
        ..SourceChanges::inserts(rows)
    }
}

fn bad(row: u32, column: u16, raw: &str) -> BadCell {
    BadCell {
        row,
        column,
        reason: "does not fit".to_owned(),
        raw: raw.to_owned(),
    }
}

fn notes(cells: Vec<BadCell>) -> Notes {
    Notes {
        bad: cells,
        moved: Vec::new(),
    }
}

#[test]
fn a_table_that_is_in_no_schema_is_named_without_one() {
    let mut topic = table(vec![0]);
    topic.upstream_schema.clear();
    let mut errors = RowErrors::new(&topic);
    let one = changes(&[SourceOp::Insert], &[1], &[None]);
    let found = errors.resolve(one, notes(vec![bad(0, 1, "x")]), 1).unwrap();
    assert_eq!(
        found.1[0].0.message,
        "invalid data in column \"v\" of table \"t\", key (id)=(1): does not fit"
    );
}

#[test]
fn a_row_is_in_error_until_a_later_one_with_its_key_is_not() {
    let mut errors = RowErrors::new(&table(vec![0]));
    let insert = changes(&[SourceOp::Insert; 2], &[1, 2], &[None, Some("fine")]);
    let (rows, changed) = errors
        .resolve(insert, notes(vec![bad(0, 1, "")]), 10)
        .unwrap();
    assert_eq!(rows.ops.len(), 2, "the row stands in the table");
    let message = "invalid data in column \"v\" of table \"public.t\", key (id)=(1): does not fit";
    let error = EvalError::new(EvalErrorKind::Data, message);
    assert_eq!(changed, [(error.clone(), 1)]);
    assert_eq!(errors.standing(), [(error.clone(), 1)]);
    // An update that leaves the value out leaves the error.
    let mut update = changes(&[SourceOp::Upsert], &[1], &[None]);
    update.unchanged = vec![(0, 1)];
    let (_, changed) = errors.resolve(update, Notes::default(), 20).unwrap();
    assert_eq!(changed, []);
    let update = changes(&[SourceOp::Upsert], &[1], &[Some("fits")]);
    let (_, changed) = errors.resolve(update, Notes::default(), 30).unwrap();
    assert_eq!(changed, [(error.clone(), -1)]);
    // Back to any position that was not acknowledged.
    errors.acknowledge(5);
    for (position, expected) in [(30, 0), (25, 1), (10, 1), (9, 0)] {
        let mut restored = RowErrors::new(&table(vec![0]));
        restored.restore(errors.save(), position);
        assert_eq!(restored.standing().len(), expected, "at {position}");
    }
}

#[test]
fn a_row_whose_key_cannot_be_held_stays_out_and_one_that_leaves_it_lacks_what_was_left_out() {
    let mut errors = RowErrors::new(&table(vec![0]));
    let insert = changes(&[SourceOp::Insert; 2], &[0, 0], &[Some("a"), Some("zero")]);
    let (rows, _) = errors
        .resolve(insert, notes(vec![bad(0, 0, "huge")]), 1)
        .unwrap();
    assert_eq!(rows.ops.len(), 1);
    assert_eq!(errors.standing().len(), 1);
    let mut update = changes(
        &[SourceOp::DeleteByKey, SourceOp::Upsert],
        &[0, 7],
        &[None, None],
    );
    update.unchanged = vec![(1, 1)];
    let mut noted = notes(vec![bad(0, 0, "huge")]);
    noted.push_moved(1);
    let (rows, changed) = errors.resolve(update, noted, 2).unwrap();
    assert_eq!(rows.ops, [SourceOp::Upsert]);
    assert_eq!(rows.unchanged, []);
    let said: Vec<&str> = changed
        .iter()
        .map(|(error, _)| error.message.as_str())
        .collect();
    assert!(said[0].contains("key (id)=(huge)"), "{said:?}");
    assert!(
        said[1].contains("key (id)=(7): the value was left out"),
        "{said:?}"
    );
}

#[test]
fn equal_rows_without_a_key_are_counted() {
    let mut errors = RowErrors::new(&table(Vec::new()));
    let insert = changes(&[SourceOp::Insert; 2], &[1, 1], &[None, None]);
    let cells = vec![bad(0, 1, "x"), bad(1, 1, "x")];
    errors.resolve(insert, notes(cells), 1).unwrap();
    let delete = changes(&[SourceOp::Delete], &[1], &[None]);
    let weights = |errors: &RowErrors| {
        errors
            .standing()
            .iter()
            .map(|(_, weight)| *weight)
            .sum::<i64>()
    };
    assert_eq!(weights(&errors), 2);
    errors
        .resolve(delete.clone(), notes(vec![bad(0, 1, "y")]), 2)
        .unwrap();
    assert_eq!(weights(&errors), 2, "another value, another row");
    errors
        .resolve(delete, notes(vec![bad(0, 1, "x")]), 3)
        .unwrap();
    assert_eq!(weights(&errors), 1);
}

#[test]
fn a_truncation_empties_the_errors_and_too_many_are_one_of_the_table() {
    let mut errors = RowErrors::new(&table(vec![0]));
    let count = i32::try_from(ROW_ERRORS_MAX).unwrap() + 1;
    let ids: Vec<i32> = (0..count).collect();
    let values = vec![None; ids.len()];
    let insert = changes(&vec![SourceOp::Insert; ids.len()], &ids, &values);
    let cells = (0..u32::try_from(count).unwrap()).map(|row| bad(row, 1, ""));
    errors.resolve(insert, notes(cells.collect()), 1).unwrap();
    let message = errors.too_many().unwrap();
    assert!(
        message.starts_with("more than 10000 rows of table \"public.t\""),
        "{message}"
    );
    let mut truncate = changes(&[], &[], &[]);
    truncate.truncate_before = true;
    let (_, changed) = errors.resolve(truncate, Notes::default(), 2).unwrap();
    assert_eq!(
        changed.iter().map(|(_, weight)| weight).sum::<i64>(),
        -i64::from(count)
    );
    assert_eq!(errors.standing(), []);
}

#[test]
fn notes_are_split_with_the_rows_they_belong_to() {
    let mut all = notes(vec![bad(0, 1, "a")]);
    all.push_bad(bad(2, 1, "b"));
    all.push_moved(3);
    let first = all.split(2);
    assert_eq!((first.bad, first.moved), (vec![bad(0, 1, "a")], vec![]));
    let expected = Notes {
        moved: vec![1],
        ..notes(vec![bad(0, 1, "b")])
    };
    assert_eq!(all, expected);
    all.truncate(1);
    assert_eq!(all, notes(vec![bad(0, 1, "b")]));
}
