//! Changes of rows to changes of keys.
//!
//! Owns which rows of one epoch are one message. Must not know payloads. Called by the writer of a sink.
//!
//! Invariants. A key has one message in an epoch: a row that is taken back and another of its key that comes are one update.

use arrow_array::ArrayRef;
use flowstone_proto::kafka::SinkEnvelope;
use flowstone_types::hash::{hash_rows, rows_equal};
use flowstone_types::{DeltaBatch, TypeError};
use hashbrown::HashTable;

/// What becomes of one key, or of one row if there are no keys: rows of the batch, at least one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row that was.
    pub before: Option<usize>,
    /// The row that is.
    pub after: Option<usize>,
}

/// Why changes are no messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// Not what a topic of new rows can say.
    #[error("a row was taken back, which ENVELOPE NONE cannot say")]
    Retraction,
    /// Several rows of a key.
    #[error("there is more than one row of a key")]
    NotUnique {
        /// One of them.
        row: usize,
    },
    /// A broken column.
    #[error(transparent)]
    Value(#[from] TypeError),
}

/// Folds the consolidated changes of one epoch.
///
/// `key`: columns that identify a row. Changes come in the order of the first row of each key; without keys rows that go come before those that come.
///
/// # Errors
/// See [`FoldError`].
///
/// Cost: O(rows) expected, by hashing.
pub fn fold(
    delta: &DeltaBatch,
    key: Option<&[usize]>,
    envelope: SinkEnvelope,
) -> Result<Vec<Change>, FoldError> {
    match (envelope, key) {
        (SinkEnvelope::None, _) => {
            if (0..delta.len()).any(|row| delta.weights.get(row) < 0) {
                return Err(FoldError::Retraction);
            }
            Ok(of_rows(delta))
        }
        (SinkEnvelope::Upsert | SinkEnvelope::Debezium, Some(key)) => by_key(delta, key),
        (SinkEnvelope::Upsert | SinkEnvelope::Debezium, None) => Ok(of_rows(delta)),
    }
}

fn of_rows(delta: &DeltaBatch) -> Vec<Change> {
    let mut changes = Vec::with_capacity(delta.len());
    for row in 0..delta.len() {
        let change = Change {
            before: Some(row),
            after: None,
        };
        changes.extend((delta.weights.get(row)..0).map(|_| change));
    }
    for row in 0..delta.len() {
        let change = Change {
            before: None,
            after: Some(row),
        };
        changes.extend((0..delta.weights.get(row)).map(|_| change));
    }
    changes
}

fn by_key(delta: &DeltaBatch, key: &[usize]) -> Result<Vec<Change>, FoldError> {
    let columns = key_columns(delta, key)?;
    let hashes = hash_rows(&columns, delta.len())?;
    let mut index = HashTable::<usize>::with_capacity(delta.len());
    // With the first row of each.
    let mut changes: Vec<(usize, Change)> = Vec::with_capacity(delta.len());
    let mut failure = None;
    for (row, hash) in hashes.iter().enumerate() {
        let found = index.find(*hash, |at| {
            changes.get(*at).is_some_and(|(first, _)| {
                hashes.get(*first) == Some(hash)
                    && rows_equal(&columns, *first, &columns, row).unwrap_or_else(|error| {
                        failure = Some(error);
                        false
                    })
            })
        });
        let at = match found.copied() {
            Some(at) => at,
            None => {
                let at = changes.len();
                let change = Change {
                    before: None,
                    after: None,
                };
                changes.push((row, change));
                index.insert_unique(*hash, at, |at| {
                    let first = changes.get(*at).map(|(first, _)| *first);
                    first
                        .and_then(|first| hashes.get(first))
                        .copied()
                        .unwrap_or_default()
                });
                at
            }
        };
        let Some((_, change)) = changes.get_mut(at) else {
            continue;
        };
        let place = match delta.weights.get(row) {
            1 => &mut change.after,
            -1 => &mut change.before,
            _ => return Err(FoldError::NotUnique { row }),
        };
        if place.replace(row).is_some() {
            return Err(FoldError::NotUnique { row });
        }
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(changes.into_iter().map(|(_, change)| change).collect()),
    }
}

fn key_columns(delta: &DeltaBatch, key: &[usize]) -> Result<Vec<ArrayRef>, TypeError> {
    let columns = delta.rows.columns();
    key.iter()
        .map(|column| {
            let found = columns.get(*column).cloned();
            found.ok_or_else(|| TypeError::Kernel(format!("there is no key column {column}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, RecordBatch};
    use arrow_schema::{DataType, Field, Schema};
    use flowstone_types::{Epoch, Weights};

    use super::*;

    /// Rows of a key, a value and a weight.
    fn delta(rows: &[(i64, i64, i64)]) -> DeltaBatch {
        let field = |name| Field::new(name, DataType::Int64, true);
        let schema = Arc::new(Schema::new(vec![field("k"), field("v")]));
        let column = |cell: fn(&(i64, i64, i64)) -> i64| -> ArrayRef {
            Arc::new(rows.iter().map(cell).collect::<Int64Array>())
        };
        let batch = RecordBatch::try_new(schema, vec![column(|row| row.0), column(|row| row.1)]);
        let weights = rows.iter().map(|row| row.2).collect::<Int64Array>();
        DeltaBatch::new(batch.unwrap(), Weights::Array(weights), Epoch(7))
    }

    fn change(before: Option<usize>, after: Option<usize>) -> Change {
        Change { before, after }
    }

    #[test]
    fn a_row_that_goes_and_one_that_comes_of_a_key_are_one_update() {
        let delta = delta(&[(1, 10, -1), (2, 20, 1), (1, 11, 1), (3, 30, -1)]);
        let expected = [
            change(Some(0), Some(2)),
            change(None, Some(1)),
            change(Some(3), None),
        ];
        for envelope in [SinkEnvelope::Upsert, SinkEnvelope::Debezium] {
            assert_eq!(fold(&delta, Some(&[0]), envelope).unwrap(), expected);
        }
    }

    #[test]
    fn several_rows_of_a_key_are_an_error() {
        for rows in [
            &[(1, 10, 1), (1, 11, 1)][..],
            &[(1, 10, 2)],
            &[(1, 10, -1), (1, 11, -1)],
        ] {
            let folded = fold(&delta(rows), Some(&[0]), SinkEnvelope::Upsert);
            assert!(
                matches!(folded, Err(FoldError::NotUnique { .. })),
                "{rows:?}"
            );
        }
    }

    #[test]
    fn without_keys_every_copy_of_a_row_is_a_change_and_what_goes_is_first() {
        let delta = delta(&[(1, 10, 2), (2, 20, -2)]);
        let expected = [
            change(Some(1), None),
            change(Some(1), None),
            change(None, Some(0)),
            change(None, Some(0)),
        ];
        let folded = fold(&delta, None, SinkEnvelope::Debezium).unwrap();
        assert_eq!(folded, expected);
    }

    #[test]
    fn what_only_grows_says_no_more_than_that() {
        let grown = fold(&delta(&[(1, 10, 2)]), None, SinkEnvelope::None).unwrap();
        assert_eq!(grown, [change(None, Some(0)); 2]);
        let shrunk = fold(&delta(&[(1, 10, -1)]), None, SinkEnvelope::None);
        assert_eq!(shrunk, Err(FoldError::Retraction));
    }

    #[test]
    fn nulls_are_one_key() {
        let field = Field::new("k", DataType::Int64, true);
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![None, None]));
        let rows = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![keys]).unwrap();
        let weights = Weights::Array(Int64Array::from(vec![1, -1]));
        let delta = DeltaBatch::new(rows, weights, Epoch(1));
        let folded = fold(&delta, Some(&[0]), SinkEnvelope::Upsert).unwrap();
        assert_eq!(folded, [change(Some(1), Some(0))]);
    }
}
