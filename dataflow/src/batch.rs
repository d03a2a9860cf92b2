//! Small things every operator does with batches: schemas, consolidation of many batches, gathering.
//!
//! Owns [`Changes`], what travels on an edge between operators. Must not know operators or state.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow_schema::{Schema, SchemaRef};
use flowstone_types::{DeltaBatch, Epoch, EvalError, Weights, budget};

use crate::Error;

/// Rows per batch that operators aim at.
pub(crate) const ROWS_PER_BATCH: usize = 8192;

/// What travels on an edge in one tick: row changes and error changes, neither consolidated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) deltas: Vec<DeltaBatch>,
    pub(crate) errors: Vec<(EvalError, i64)>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.deltas.is_empty() && self.errors.is_empty()
    }

    pub(crate) fn push(&mut self, delta: DeltaBatch) {
        if !delta.is_empty() {
            self.deltas.push(delta);
        }
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        self.deltas.append(&mut other.deltas);
        self.errors.append(&mut other.errors);
    }
}

/// The same columns, all nullable: a plan's claim that something is never NULL is used to plan, never to store.
pub(crate) fn relax(schema: &SchemaRef) -> SchemaRef {
    if schema.fields().iter().all(|field| field.is_nullable()) {
        return Arc::clone(schema);
    }
    let fields = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect::<Vec<_>>();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// A batch of `columns` under a relaxed schema; a column of another Arrow type than its field's is cast.
pub(crate) fn make_batch(
    schema: &SchemaRef,
    mut columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, Error> {
    if columns.len() != schema.fields().len() {
        return Err(Error::invariant(format!(
            "{} columns for a schema of {}",
            columns.len(),
            schema.fields().len()
        )));
    }
    for (column, field) in itertools::zip_eq(&mut columns, schema.fields()) {
        if column.data_type() != field.data_type() {
            *column = arrow_cast::cast(column, field.data_type())?;
        }
    }
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )?)
}

/// The same rows under another (relaxed) schema of the same width.
pub(crate) fn with_schema(delta: &DeltaBatch, schema: &SchemaRef) -> Result<DeltaBatch, Error> {
    if Arc::ptr_eq(delta.rows.schema_ref(), schema) {
        return Ok(delta.clone());
    }
    let rows = make_batch(schema, delta.rows.columns().to_vec(), delta.len())?;
    Ok(DeltaBatch::new(rows, delta.weights.clone(), delta.epoch))
}

/// One consolidated batch of all of `deltas`, or `None` if nothing is left. No two rows of it are equal, no weight is zero.
pub(crate) fn consolidate(
    schema: &SchemaRef,
    deltas: &[DeltaBatch],
    epoch: Epoch,
) -> Result<Option<DeltaBatch>, Error> {
    let delta = match deltas {
        [] => return Ok(None),
        [only] => with_schema(only, schema)?,
        many => DeltaBatch::concat(schema, many, epoch)?,
    };
    let mut delta = flowstone_types::consolidate::consolidate(&delta)?;
    delta.epoch = epoch;
    Ok((!delta.is_empty()).then_some(delta))
}

/// The sums of equal errors, zero sums dropped, in the order of [`EvalError`].
pub(crate) fn consolidate_errors(
    errors: Vec<(EvalError, i64)>,
) -> Result<Vec<(EvalError, i64)>, Error> {
    let mut sums = BTreeMap::<EvalError, i64>::new();
    for (error, weight) in errors {
        let sum = sums.entry(error).or_insert(0);
        *sum = add_weights(*sum, weight)?;
    }
    Ok(sums
        .into_iter()
        .filter(|(_, weight)| *weight != 0)
        .collect())
}

pub(crate) fn add_weights(left: i64, right: i64) -> Result<i64, Error> {
    left.checked_add(right)
        .ok_or(Error::Type(flowstone_types::TypeError::WeightOverflow))
}

pub(crate) fn multiply_weights(left: i64, right: i64) -> Result<i64, Error> {
    left.checked_mul(right)
        .ok_or(Error::Type(flowstone_types::TypeError::WeightOverflow))
}

/// The cheapest representation of `weights`, none of which is zero.
pub(crate) fn weights_of(weights: Vec<i64>) -> Weights {
    match weights.split_first() {
        None => Weights::AllOne,
        Some((first, rest)) if rest.iter().all(|weight| weight == first) => {
            if *first == 1 {
                Weights::AllOne
            } else {
                Weights::Const(*first)
            }
        }
        Some(_) => Weights::Array(Int64Array::from(weights)),
    }
}

/// So many rows of a delta, from one of them on; they are not copied.
pub(crate) fn slice(delta: &DeltaBatch, from: usize, rows: usize) -> DeltaBatch {
    let weights = match &delta.weights {
        Weights::Array(weights) => Weights::Array(weights.slice(from, rows)),
        other => other.clone(),
    };
    DeltaBatch::new(delta.rows.slice(from, rows), weights, delta.epoch)
}

/// A row number as Arrow's `take` wants it. Batches never hold 2^32 rows.
pub(crate) fn index(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}

/// The rows of `batch`, each as often as its weight says; rows of weight zero or less are left out.
///
/// # Errors
/// [`Error::Type`] if Arrow refuses, [`Error::Evaluation`] if the budget of whoever asks does not allow so many.
pub fn expand(batch: &RecordBatch, weights: &Weights) -> Result<RecordBatch, Error> {
    if *weights == Weights::AllOne {
        return Ok(batch.clone());
    }
    let mut indices = Vec::with_capacity(batch.num_rows());
    let mut check_at = ROWS_PER_BATCH;
    for row in 0..batch.num_rows() {
        let mut times = usize::try_from(weights.get(row)).unwrap_or(0);
        while times > 0 {
            // Also in the middle of a row: a single one may be there millions of times.
            let now = times.min(ROWS_PER_BATCH);
            indices.extend(std::iter::repeat_n(index(row), now));
            times -= now;
            if indices.len() >= check_at {
                budget::check()?;
                check_at = indices.len() + ROWS_PER_BATCH;
            }
        }
    }
    Ok(flowstone_types::delta::take_rows(
        batch,
        &UInt32Array::from(indices),
    )?)
}
