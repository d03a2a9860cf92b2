//! Which shard owns a row.
//!
//! A row's partition columns are hashed; the hash's upper bits name one of [`VNODES`] virtual nodes, and virtual nodes are dealt to shards.

use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use flowstone_types::hash::hash_rows;
use flowstone_types::{DeltaBatch, SourceChanges};

use crate::Error;
use crate::batch::index;

/// Number of virtual nodes: the finest grain in which rows can be spread over shards.
pub const VNODES: u64 = 1024;

/// The columns that decide which shard owns a row of a collection: its key, or all columns if it has none.
#[must_use]
pub fn partition_columns(key: Option<&[usize]>, columns: usize) -> Vec<usize> {
    key.map_or_else(|| (0..columns).collect(), <[usize]>::to_vec)
}

/// The shard, of `count`, that owns rows whose partition columns hash to `hash`.
#[must_use]
pub fn shard_of(hash: u64, count: usize) -> usize {
    let vnode = usize::try_from(hash >> 54).unwrap_or(0);
    vnode % count.max(1)
}

/// The shard, of `count`, that owns the row whose partition columns are the first row of `key`.
///
/// # Errors
/// [`Error::Type`] for a column type that cannot be hashed.
pub fn owner_of(key: &[ArrayRef], count: usize) -> Result<usize, Error> {
    let key = key
        .iter()
        .map(flowstone_types::normalize::normalize_array)
        .collect::<Vec<_>>();
    let hash = hash_rows(&key, 1)?.into_iter().next().unwrap_or_default();
    Ok(shard_of(hash, count))
}

/// For each of `count` shards, which of `rows` it owns, in order.
///
/// # Errors
/// [`Error::Invariant`] if a column is out of range, [`Error::Type`] for a column type that cannot be hashed.
pub fn partition_rows(
    rows: &RecordBatch,
    columns: &[usize],
    count: usize,
) -> Result<Vec<Vec<u32>>, Error> {
    let mut parts = vec![Vec::new(); count.max(1)];
    for (row, hash) in hash_columns(rows.columns(), columns, rows.num_rows())?
        .into_iter()
        .enumerate()
    {
        if let Some(part) = parts.get_mut(shard_of(hash, count)) {
            part.push(index(row));
        }
    }
    Ok(parts)
}

/// Splits changes into one part per shard, in order within each. `columns` are the collection's [`partition_columns`].
///
/// Floats are normalised first, so that equal rows meet on one shard.
///
/// # Errors
/// As [`partition_rows`].
pub fn partition_delta(
    delta: &DeltaBatch,
    columns: &[usize],
    count: usize,
) -> Result<Vec<DeltaBatch>, Error> {
    let delta = DeltaBatch::new(
        flowstone_types::normalize::normalize_batch(&delta.rows),
        delta.weights.clone(),
        delta.epoch,
    );
    if count <= 1 {
        return Ok(vec![delta]);
    }
    partition_rows(&delta.rows, columns, count)?
        .into_iter()
        .map(|rows| Ok(delta.take(&UInt32Array::from(rows))?))
        .collect()
}

/// Splits source changes into one part per shard, in order within each; a truncation goes to every shard.
///
/// # Errors
/// As [`partition_rows`].
pub fn partition_changes(
    changes: &SourceChanges,
    columns: &[usize],
    count: usize,
) -> Result<Vec<SourceChanges>, Error> {
    let rows = flowstone_types::normalize::normalize_batch(&changes.rows);
    if count <= 1 {
        return Ok(vec![SourceChanges {
            rows,
            ..changes.clone()
        }]);
    }
    let mut parts = Vec::with_capacity(count);
    for indices in partition_rows(&rows, columns, count)? {
        let ops = indices
            .iter()
            .filter_map(|row| changes.ops.get(usize::try_from(*row).ok()?).copied())
            .collect();
        let unchanged = changes
            .unchanged
            .iter()
            .filter_map(|(row, column)| Some((index(indices.binary_search(row).ok()?), *column)))
            .collect();
        let rows = flowstone_types::delta::take_rows(&rows, &UInt32Array::from(indices))?;
        parts.push(SourceChanges {
            rows,
            ops,
            unchanged,
            // The deletions before them may be in other parts.
            moved: Vec::new(),
            truncate_before: changes.truncate_before,
        });
    }
    Ok(parts)
}

/// Hashes some columns of each row.
pub(crate) fn hash_columns(
    all: &[ArrayRef],
    columns: &[usize],
    rows: usize,
) -> Result<Vec<u64>, Error> {
    Ok(hash_rows(&select(all, columns)?, rows)?)
}

pub(crate) fn select(all: &[ArrayRef], columns: &[usize]) -> Result<Vec<ArrayRef>, Error> {
    columns
        .iter()
        .map(|column| {
            all.get(*column)
                .cloned()
                .ok_or_else(|| Error::invariant(format!("column {column} of {}", all.len())))
        })
        .collect()
}
