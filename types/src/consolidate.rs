//! Consolidation: the weights of equal rows are summed, rows of weight zero dropped.

use arrow_array::{Int64Array, UInt32Array};

use crate::hash::{hash_rows, rows_equal};
use crate::{DeltaBatch, TypeError, Weights};

/// Consolidates one batch. Rows keep the order of their first occurrence; the result has no two equal rows.
///
/// # Errors
/// [`TypeError::WeightOverflow`] if a sum leaves `i64`.
///
/// Cost: O(rows) expected, by hashing. A batch of one row is returned as it is.
pub fn consolidate(batch: &DeltaBatch) -> Result<DeltaBatch, TypeError> {
    if batch.len() < 2 {
        return Ok(batch.clone());
    }
    let columns = batch.rows.columns();
    let hashes = hash_rows(columns, batch.len())?;
    let mut index = hashbrown::HashTable::<usize>::with_capacity(batch.len());
    // (row of first occurrence, sum of weights), in order of first occurrence.
    let mut groups: Vec<(usize, i64)> = Vec::with_capacity(batch.len());
    let mut failure = None;
    for (row, hash) in hashes.iter().enumerate() {
        let weight = batch.weights.get(row);
        let found = index.find(*hash, |group| {
            groups.get(*group).is_some_and(|(first, _)| {
                hashes.get(*first) == Some(hash)
                    && rows_equal(columns, *first, columns, row).unwrap_or_else(|error| {
                        failure = Some(error);
                        false
                    })
            })
        });
        match found.and_then(|group| groups.get_mut(*group)) {
            Some((_, sum)) => *sum = sum.checked_add(weight).ok_or(TypeError::WeightOverflow)?,
            None => {
                let group = groups.len();
                groups.push((row, weight));
                index.insert_unique(*hash, group, |group| {
                    groups
                        .get(*group)
                        .and_then(|(first, _)| hashes.get(*first))
                        .copied()
                        .unwrap_or_default()
                });
            }
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    groups.retain(|(_, weight)| *weight != 0);
    // As many rows as before: all were different, and so none changed.
    if groups.len() == batch.len() {
        return Ok(batch.clone());
    }
    let mut indices = Vec::with_capacity(groups.len());
    for (row, _) in &groups {
        indices.push(
            u32::try_from(*row)
                .map_err(|_| TypeError::Kernel("batch of more than 2^32 rows".to_owned()))?,
        );
    }
    let rows = crate::delta::take_rows(&batch.rows, &UInt32Array::from(indices))?;
    let weights = if groups.iter().all(|(_, weight)| *weight == 1) {
        Weights::AllOne
    } else {
        Weights::Array(
            groups
                .iter()
                .map(|(_, weight)| *weight)
                .collect::<Int64Array>(),
        )
    };
    Ok(DeltaBatch::new(rows, weights, batch.epoch))
}

#[cfg(test)]
mod tests;
