//! Updates that changed a row's key: values that the upstream left out are those of the row under its old key, which another shard may own.
//!
//! Owns finding such updates among a table's changes of one epoch and completing them. Must not know what shards do with the result.
//! Called by [`Compute::run`] before changes are partitioned.
//!
//! Invariants. Such an update is an `Upsert` of which the upstream said that it moved a row, right after the `DeleteByKey` of the row's old key. Any other
//! `Upsert` with unchanged cells is left as it is, whatever was deleted before it: its values are those of the row with the very same key, and if there is none,
//! nobody knows them. Rows of the epoch count: nothing here ticks.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_row::{RowConverter, SortField};
use flowstone_types::delta::take_rows;
use flowstone_types::normalize::normalize_batch;
use flowstone_types::{ObjectId, SourceChanges, SourceOp, TypeError};
use hashbrown::{HashMap, HashSet};

use super::Compute;
use crate::Error;

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a row of the collection, as of the last tick.
    Stored(usize),
    /// In a row of the changes.
    Changed(usize),
}

impl Compute {
    /// Completes the updates among `changes`, all of one table and epoch and in order, that changed a key.
    pub(super) async fn complete_key_changes(
        &self,
        table: ObjectId,
        changes: Vec<SourceChanges>,
    ) -> Result<Vec<SourceChanges>, Error> {
        let key = self
            .collections
            .get(&table)
            .and_then(|collection| collection.key.clone());
        let (Some(key), true) = (key, has_candidates(&changes)) else {
            return Ok(changes);
        };
        let mut completed = Vec::new();
        for changes in merge(changes)? {
            let wanted = wanted_keys(&changes);
            // What was truncated is not looked at: the collection is empty as far as these rows are concerned.
            let stored = if changes.truncate_before || wanted.is_empty() {
                RecordBatch::new_empty(changes.rows.schema())
            } else {
                let keys = select(&take_rows(&changes.rows, &UInt32Array::from(wanted))?, &key)?;
                let found = self
                    .shards
                    .on_each(move |_, shard| shard.lookup(table, &keys))
                    .await?;
                let found = found
                    .into_iter()
                    .map(|found| Ok(found?.0))
                    .collect::<Result<Vec<_>, Error>>()?;
                arrow_select::concat::concat_batches(&changes.rows.schema(), &found)
                    .map_err(TypeError::from)?
            };
            completed.push(complete(changes, &key, &stored)?);
        }
        Ok(completed)
    }
}

/// Whether there is an update that changed a key and left out values. Cheap: it is asked of all changes.
fn has_candidates(changes: &[SourceChanges]) -> bool {
    changes.iter().any(|changes| !changes.moved.is_empty())
}

/// One [`SourceChanges`] for everything between truncations, its keys normalised as those of the collection are.
fn merge(changes: Vec<SourceChanges>) -> Result<Vec<SourceChanges>, TypeError> {
    let mut runs: Vec<Vec<SourceChanges>> = Vec::new();
    for change in changes {
        match runs.last_mut() {
            Some(run) if !change.truncate_before => run.push(change),
            _ => runs.push(vec![change]),
        }
    }
    let mut merged = Vec::with_capacity(runs.len());
    for run in runs {
        let Some(first) = run.first() else { continue };
        let schema = first.rows.schema();
        let rows =
            arrow_select::concat::concat_batches(&schema, run.iter().map(|change| &change.rows))?;
        let mut all = SourceChanges {
            rows: normalize_batch(&rows),
            ops: Vec::new(),
            unchanged: Vec::new(),
            moved: Vec::new(),
            truncate_before: first.truncate_before,
        };
        for change in run {
            let offset = u32::try_from(all.ops.len()).map_err(|_| too_many())?;
            all.unchanged.extend(
                change
                    .unchanged
                    .into_iter()
                    .map(|(row, column)| (row + offset, column)),
            );
            all.moved
                .extend(change.moved.into_iter().map(|row| row + offset));
            all.ops.extend(change.ops);
        }
        merged.push(all);
    }
    Ok(merged)
}

/// The rows whose keys must be looked up: of every update that changed a key its own and that of the deletion before it.
fn wanted_keys(changes: &SourceChanges) -> Vec<u32> {
    let moved = changes.moved.iter();
    let pairs = moved.filter_map(|row| Some([row.checked_sub(1)?, *row]));
    pairs.flatten().collect()
}

/// Fills the cells of updates that changed their key. `stored`: the collection's rows with the keys of [`wanted_keys`].
fn complete(
    changes: SourceChanges,
    key: &[usize],
    stored: &RecordBatch,
) -> Result<SourceChanges, TypeError> {
    let keys = select(&changes.rows, key)?;
    let converter = RowConverter::new(
        keys.iter()
            .map(|key| SortField::new(key.data_type().clone()))
            .collect(),
    )?;
    let stored_keys = converter.convert_columns(&select(stored, key)?)?;
    let keys = converter.convert_columns(&keys)?;
    // The row that each key has at the point that is looked at; a key that is not here was not looked up or has no row.
    let mut current: HashMap<&[u8], Place> = HashMap::new();
    for (row, key) in stored_keys.iter().enumerate() {
        current.insert(key.data(), Place::Stored(row));
    }
    let mut unchanged: HashMap<usize, Vec<u16>> = HashMap::new();
    for (row, column) in &changes.unchanged {
        unchanged
            .entry(usize::try_from(*row).map_err(|_| too_many())?)
            .or_default()
            .push(*column);
    }
    let mut moved: HashSet<usize> = HashSet::new();
    for row in &changes.moved {
        moved.insert(usize::try_from(*row).map_err(|_| too_many())?);
    }
    // Where the values of unchanged cells are, and which rows are to be filled.
    let mut places: HashMap<(usize, u16), Place> = HashMap::new();
    let mut filled: HashSet<usize> = HashSet::new();
    let mut deleted: Option<Place> = None;
    for (row, (op, key)) in itertools::zip_eq(&changes.ops, keys.iter()).enumerate() {
        let key = key.data();
        let just_deleted = deleted.take();
        match op {
            SourceOp::DeleteByKey => deleted = current.remove(key),
            SourceOp::Delete => drop(current.remove(key)),
            SourceOp::Insert | SourceOp::Upsert => {
                let own = current.insert(key, Place::Changed(row));
                let old = just_deleted.filter(|_| moved.contains(&row));
                let from = old.or(own);
                for column in unchanged.get(&row).into_iter().flatten() {
                    let Some(from) = from else { continue };
                    let place = match from {
                        Place::Changed(other) => {
                            places.get(&(other, *column)).copied().unwrap_or(from)
                        }
                        Place::Stored(_) => from,
                    };
                    places.insert((row, *column), place);
                    if old.is_some() {
                        filled.insert(row);
                    }
                }
            }
        }
    }
    fill(changes, stored, &places, &filled)
}

/// Puts the values at `places` into the rows of `filled`.
fn fill(
    mut changes: SourceChanges,
    stored: &RecordBatch,
    places: &HashMap<(usize, u16), Place>,
    filled: &HashSet<usize>,
) -> Result<SourceChanges, TypeError> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(changes.rows.num_columns());
    for ((number, column), stored) in
        itertools::zip_eq((0_u16..).zip(changes.rows.columns()), stored.columns())
    {
        let place = |row: usize| match places.get(&(row, number)).filter(|_| filled.contains(&row))
        {
            Some(Place::Stored(row)) => (1, *row),
            Some(Place::Changed(row)) => (0, *row),
            None => (0, row),
        };
        let indices: Vec<(usize, usize)> = (0..column.len()).map(place).collect();
        let moved = indices
            .iter()
            .enumerate()
            .any(|(row, place)| *place != (0, row));
        let column = Arc::clone(column);
        columns.push(if moved {
            arrow_select::interleave::interleave(&[column.as_ref(), stored.as_ref()], &indices)?
        } else {
            column
        });
    }
    changes.rows = RecordBatch::try_new(changes.rows.schema(), columns)?;
    changes
        .unchanged
        .retain(|(row, _)| usize::try_from(*row).is_ok_and(|row| !filled.contains(&row)));
    changes.moved.clear();
    Ok(changes)
}

fn select(rows: &RecordBatch, columns: &[usize]) -> Result<Vec<ArrayRef>, TypeError> {
    Ok(rows.project(columns)?.columns().to_vec())
}

fn too_many() -> TypeError {
    TypeError::InvalidParameter("more changes of one table than an epoch can hold".to_owned())
}

#[cfg(test)]
mod tests;
