//! What an epoch changes, in ticks of bounded size.
//!
//! Owns where changes are cut. Must not know what shards do with them. Called by [`super::Compute::run`].
//!
//! Invariants. The changes of a collection stay in order, so that each tick ends with rows that the collection may have. There is at least one tick.

use arrow_array::RecordBatch;
use flowstone_dataflow::CollectionInput;
use flowstone_types::{DeltaBatch, ObjectId, SourceChanges, Weights};

use crate::size::bytes_of;

/// Bytes of changes that enter the shards in one tick, unless a single row has more: a batch ends at 2 GiB of text, and what is computed of it may be larger.
pub(super) const TICK_BYTES: usize = 256 << 20;

type Inputs = Vec<(ObjectId, CollectionInput)>;

/// Cuts `inputs` into ticks of at most `bytes_max`.
pub(super) fn in_ticks(inputs: Inputs, bytes_max: usize) -> Vec<Inputs> {
    let roughly = inputs.iter().flat_map(|(_, input)| batches(input));
    // Too much where batches share buffers; cheap, and nearly always enough.
    let roughly = roughly.map(RecordBatch::get_array_memory_size);
    if roughly.fold(0, usize::saturating_add) <= bytes_max {
        return vec![inputs];
    }
    let (mut ticks, mut tick, mut bytes) = (Vec::new(), Inputs::new(), 0_usize);
    for (id, input) in inputs {
        for (piece, size) in pieces(input, bytes_max, usize::MAX) {
            if bytes.saturating_add(size) > bytes_max && !tick.is_empty() {
                ticks.push(std::mem::take(&mut tick));
                bytes = 0;
            }
            bytes = bytes.saturating_add(size);
            tick.push((id, piece));
        }
    }
    ticks.push(tick);
    ticks
}

fn batches(input: &CollectionInput) -> Vec<&RecordBatch> {
    match input {
        CollectionInput::Deltas(deltas) => deltas.iter().map(|delta| &delta.rows).collect(),
        CollectionInput::Changes(changes) => changes.iter().map(|change| &change.rows).collect(),
        CollectionInput::Errors(_) => Vec::new(),
    }
}

/// How many rows an input has.
pub(super) fn rows_of(input: &CollectionInput) -> usize {
    let rows = batches(input).into_iter().map(RecordBatch::num_rows);
    rows.fold(0, usize::saturating_add)
}

/// The parts of an input, each with its size in bytes.
pub(super) fn pieces(
    input: CollectionInput,
    bytes_max: usize,
    rows_max: usize,
) -> Vec<(CollectionInput, usize)> {
    match input {
        CollectionInput::Errors(_) => vec![(input, 0)],
        CollectionInput::Deltas(deltas) => {
            let parts = deltas.into_iter().flat_map(|delta| {
                cut(&delta.rows, bytes_max, rows_max)
                    .into_iter()
                    .map(move |(from, rows, bytes)| {
                        let part = DeltaBatch {
                            weights: part_of(&delta.weights, from, rows.num_rows()),
                            rows,
                            epoch: delta.epoch,
                        };
                        (CollectionInput::Deltas(vec![part]), bytes)
                    })
            });
            parts.collect()
        }
        CollectionInput::Changes(changes) => {
            let parts = changes.into_iter().flat_map(|change| {
                cut(&change.rows, bytes_max, rows_max).into_iter().map(
                    move |(from, rows, bytes)| {
                        let part = part_of_changes(&change, from, rows);
                        (CollectionInput::Changes(vec![part]), bytes)
                    },
                )
            });
            parts.collect()
        }
    }
}

/// Slices of at most `rows_max` rows, and of at most `bytes_max` if the rows are of one size: the first row, the rows, their bytes.
fn cut(rows: &RecordBatch, bytes_max: usize, rows_max: usize) -> Vec<(usize, RecordBatch, usize)> {
    let (count, bytes) = (rows.num_rows(), bytes_of(rows));
    let per_tick = count
        .checked_div(bytes.div_ceil(bytes_max.max(1)))
        .unwrap_or(count)
        .min(rows_max)
        .max(1);
    // A change without rows may still empty its table.
    if count <= per_tick {
        return vec![(0, rows.clone(), bytes)];
    }
    (0..count)
        .step_by(per_tick)
        .map(|from| {
            let part = rows.slice(from, per_tick.min(count - from));
            let bytes = bytes_of(&part);
            (from, part, bytes)
        })
        .collect()
}

fn part_of(weights: &Weights, from: usize, rows: usize) -> Weights {
    match weights {
        Weights::Array(weights) => Weights::Array(weights.slice(from, rows)),
        all => all.clone(),
    }
}

fn part_of_changes(change: &SourceChanges, from: usize, rows: RecordBatch) -> SourceChanges {
    let to = from + rows.num_rows();
    let unchanged = change.unchanged.iter().filter_map(|(row, column)| {
        let row = usize::try_from(*row).ok()?;
        let moved = row.checked_sub(from).filter(|_| row < to)?;
        Some((u32::try_from(moved).ok()?, *column))
    });
    SourceChanges {
        ops: change.ops.get(from..to).unwrap_or_default().to_vec(),
        unchanged: unchanged.collect(),
        // They have been completed.
        moved: Vec::new(),
        truncate_before: change.truncate_before && from == 0,
        rows,
    }
}

#[cfg(test)]
mod tests;
