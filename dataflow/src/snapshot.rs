//! Immutable images of a shard's part of a collection at one epoch.
//!
//! A snapshot is a clone of lists of shared segments and weight chunks: cheap to take on the shard's thread, read on any other.

use arrow_array::{BooleanArray, RecordBatch, UInt32Array};
use arrow_schema::SchemaRef;
use flowstone_types::{DeltaBatch, Epoch, EvalError, Weights};

use crate::Error;
use crate::batch::{expand, index, weights_of};
use crate::relation::{Piece, RowId, WeightChunks};

/// A shard's part of a collection at one epoch. `Send`, immutable, cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The columns, all nullable.
    pub schema: SchemaRef,
    /// The evaluation errors of the collection, consolidated. Reads fail while there is one.
    pub errors: Vec<(EvalError, i64)>,
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) segment: u32,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) weights: WeightChunks,
}

impl Snapshot {
    /// An image without rows.
    #[must_use]
    pub const fn empty(schema: SchemaRef) -> Self {
        Self {
            schema,
            errors: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// The rows with their weights, all positive; no row of weight zero.
    ///
    /// # Errors
    /// [`Error::Type`] if a kernel fails.
    pub fn batches(&self) -> Result<Vec<(RecordBatch, Weights)>, Error> {
        let mut batches = Vec::new();
        for part in &self.parts {
            for piece in &part.pieces {
                let weights = part
                    .weights
                    .range(piece.start..piece.start + piece.rows.num_rows());
                if weights.iter().all(|weight| *weight != 0) {
                    if !weights.is_empty() {
                        batches.push((piece.rows.clone(), weights_of(weights)));
                    }
                    continue;
                }
                let live: Vec<i64> = weights
                    .iter()
                    .copied()
                    .filter(|weight| *weight != 0)
                    .collect();
                if live.is_empty() {
                    continue;
                }
                // Few rows left of a large piece are picked, most rows left are filtered.
                let rows = if live.len() * 8 < weights.len() {
                    let picked = weights
                        .iter()
                        .enumerate()
                        .filter(|(_, weight)| **weight != 0)
                        .map(|(row, _)| index(row));
                    flowstone_types::delta::take_rows(
                        &piece.rows,
                        &UInt32Array::from_iter_values(picked),
                    )?
                } else {
                    let keep = weights
                        .iter()
                        .map(|weight| Some(*weight != 0))
                        .collect::<BooleanArray>();
                    arrow_select::filter::filter_record_batch(&piece.rows, &keep)?
                };
                batches.push((rows, weights_of(live)));
            }
        }
        Ok(batches)
    }

    /// The rows, each as often as its weight says.
    ///
    /// # Errors
    /// [`Error::Type`] if a kernel fails.
    pub fn rows(&self) -> Result<Vec<RecordBatch>, Error> {
        self.batches()?
            .iter()
            .map(|(rows, weights)| expand(rows, weights))
            .collect()
    }

    pub(crate) fn deltas(&self, epoch: Epoch) -> Result<Vec<DeltaBatch>, Error> {
        Ok(self
            .batches()?
            .into_iter()
            .map(|(rows, weights)| DeltaBatch::new(rows, weights, epoch))
            .collect())
    }

    /// Adds `change` to the weight of one row; rows of segments that are gone are passed over.
    pub(crate) fn adjust(&mut self, id: RowId, change: i64) {
        if let Ok(position) = self
            .parts
            .binary_search_by_key(&id.segment(), |part| part.segment)
            && let Some(part) = self.parts.get_mut(position)
        {
            let weight = part.weights.get(id.row());
            part.weights.set(id.row(), weight.wrapping_add(change));
        }
    }
}
