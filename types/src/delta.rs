//! Delta batches: a record batch, a weight for each row, and the one epoch they share.

use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow_schema::SchemaRef;

use crate::{Epoch, TypeError};

/// The signed multiplicities of the rows of a [`DeltaBatch`]: insert +1, retraction −1. Never zero.
#[derive(Clone, Debug, PartialEq)]
pub enum Weights {
    /// Every row weighs +1: the insert-only case pays nothing.
    AllOne,
    /// Every row has this non-zero weight.
    Const(i64),
    /// One non-zero weight per row; no nulls.
    Array(Int64Array),
}

impl Weights {
    /// The weight of row `row`. Rows past the end of an array weigh zero.
    #[must_use]
    pub fn get(&self, row: usize) -> i64 {
        match self {
            Self::AllOne => 1,
            Self::Const(weight) => *weight,
            Self::Array(weights) if row < weights.len() => weights.value(row),
            Self::Array(_) => 0,
        }
    }

    /// One weight per row, as an array of `rows` values.
    #[must_use]
    pub fn to_array(&self, rows: usize) -> Int64Array {
        match self {
            Self::AllOne => Int64Array::from(vec![1; rows]),
            Self::Const(weight) => Int64Array::from(vec![*weight; rows]),
            Self::Array(weights) => weights.clone(),
        }
    }

    /// The weights of the rows that `indices` names, in that order.
    ///
    /// # Errors
    /// [`TypeError::Kernel`] if an index is out of range.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self, TypeError> {
        Ok(match self {
            Self::Array(weights) => {
                Self::from_array(arrow_select::take::take(weights, indices, None)?)?
            }
            other => other.clone(),
        })
    }

    /// The weights of the rows where `keep` is true.
    ///
    /// # Errors
    /// [`TypeError::Kernel`] if the lengths differ.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, TypeError> {
        Ok(match self {
            Self::Array(weights) => Self::from_array(arrow_select::filter::filter(weights, keep)?)?,
            other => other.clone(),
        })
    }

    /// All weights with the opposite sign.
    ///
    /// # Errors
    /// [`TypeError::WeightOverflow`] for `i64::MIN`.
    pub fn negate(&self) -> Result<Self, TypeError> {
        let negate = |weight: i64| weight.checked_neg().ok_or(TypeError::WeightOverflow);
        Ok(match self {
            Self::AllOne => Self::Const(-1),
            Self::Const(weight) => Self::Const(negate(*weight)?),
            Self::Array(weights) => Self::Array(
                weights
                    .values()
                    .iter()
                    .map(|weight| negate(*weight))
                    .collect::<Result<Vec<_>, _>>()?
                    .into(),
            ),
        })
    }

    fn from_array(array: ArrayRef) -> Result<Self, TypeError> {
        let weights = array
            .as_any()
            .downcast_ref::<Int64Array>()
            .ok_or_else(|| TypeError::Kernel("weights are not Int64".to_owned()))?;
        Ok(Self::Array(weights.clone()))
    }
}

/// Changes to one collection in one epoch: rows in any order, each with a non-zero weight.
///
/// The weight is beside the batch and not a column of it, so that expressions keep their column indices.
#[derive(Clone, Debug)]
pub struct DeltaBatch {
    /// The rows.
    pub rows: RecordBatch,
    /// One weight per row.
    pub weights: Weights,
    /// When the changes happen.
    pub epoch: Epoch,
}

impl DeltaBatch {
    /// A batch of `rows` with `weights` at `epoch`.
    #[must_use]
    pub const fn new(rows: RecordBatch, weights: Weights, epoch: Epoch) -> Self {
        Self {
            rows,
            weights,
            epoch,
        }
    }

    /// A batch that inserts each of `rows` once.
    #[must_use]
    pub const fn insert(rows: RecordBatch, epoch: Epoch) -> Self {
        Self::new(rows, Weights::AllOne, epoch)
    }

    /// A batch without rows.
    #[must_use]
    pub fn empty(schema: SchemaRef, epoch: Epoch) -> Self {
        Self::insert(RecordBatch::new_empty(schema), epoch)
    }

    /// Number of rows, not counting multiplicities.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// The schema of the rows.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// The rows that `indices` names, in that order.
    ///
    /// # Errors
    /// [`TypeError::Kernel`] if an index is out of range.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self, TypeError> {
        Ok(Self::new(
            take_rows(&self.rows, indices)?,
            self.weights.take(indices)?,
            self.epoch,
        ))
    }

    /// The rows where `keep` is true.
    ///
    /// # Errors
    /// [`TypeError::Kernel`] if the lengths differ.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, TypeError> {
        Ok(Self::new(
            arrow_select::filter::filter_record_batch(&self.rows, keep)?,
            self.weights.filter(keep)?,
            self.epoch,
        ))
    }

    /// The same rows with opposite weights.
    ///
    /// # Errors
    /// [`TypeError::WeightOverflow`] for a weight of `i64::MIN`.
    pub fn negate(&self) -> Result<Self, TypeError> {
        Ok(Self::new(
            self.rows.clone(),
            self.weights.negate()?,
            self.epoch,
        ))
    }

    /// One batch with the rows of all of `batches`, in order. They share a schema and an epoch.
    ///
    /// # Errors
    /// [`TypeError::Kernel`] if the schemas differ.
    pub fn concat(schema: &SchemaRef, batches: &[Self], epoch: Epoch) -> Result<Self, TypeError> {
        if let [only] = batches {
            return Ok(only.clone());
        }
        let rows =
            arrow_select::concat::concat_batches(schema, batches.iter().map(|batch| &batch.rows))?;
        let weights = if batches.iter().all(|batch| batch.weights == Weights::AllOne) {
            Weights::AllOne
        } else {
            Weights::Array(
                batches
                    .iter()
                    .flat_map(|batch| (0..batch.len()).map(|row| batch.weights.get(row)))
                    .collect::<Vec<_>>()
                    .into(),
            )
        };
        Ok(Self::new(rows, weights, epoch))
    }
}

#[cfg(test)]
mod tests;

/// The rows of `batch` that `indices` names, in that order. Unlike Arrow's own, it also serves batches without columns, which have a row count only.
///
/// # Errors
/// [`TypeError::Kernel`] if an index is out of range.
pub fn take_rows(batch: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch, TypeError> {
    let columns = batch
        .columns()
        .iter()
        .map(|column| arrow_select::take::take(column, indices, None))
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
    Ok(RecordBatch::try_new_with_options(
        batch.schema(),
        columns,
        &options,
    )?)
}
