//! Queries that operators evaluate with DataFusion: what they make of rows, as changes of the output.
//!
//! Owns the way from rows to an evaluator and from its batches to deltas. Must not know which rows an operator evaluates, nor when.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use flowstone_proto::plan::QueryPlan;
use flowstone_types::normalize::normalize_batch;
use flowstone_types::{DeltaBatch, Epoch, EvalError, EvalErrorKind, budget};

use crate::batch::{Changes, consolidate, expand, make_batch, slice};
use crate::{Error, QueryEvaluator};

/// A query and what evaluates it.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) evaluator: Arc<dyn QueryEvaluator>,
    pub(crate) plan: QueryPlan,
    /// The schemas by which it sees its inputs.
    pub(crate) inputs: Vec<SchemaRef>,
    /// Relaxed schema of the output.
    pub(crate) schema: SchemaRef,
}

impl Query {
    /// What it makes of rows, one list of batches for each input.
    ///
    /// # Errors
    /// [`Error::Evaluation`] if it took too long, and would again. Inside: the rows' own error.
    pub(crate) fn evaluate(
        &self,
        rows: &[Vec<RecordBatch>],
        epoch: Epoch,
    ) -> Result<Result<Vec<DeltaBatch>, EvalError>, Error> {
        budget::check()?;
        let mut tables = Vec::with_capacity(rows.len());
        for (schema, batches) in itertools::zip_eq(&self.inputs, rows) {
            let named = batches
                .iter()
                .map(|batch| make_batch(schema, batch.columns().to_vec(), batch.num_rows()))
                .collect::<Result<Vec<_>, _>>()?;
            tables.push((Arc::clone(schema), named));
        }
        let made = self
            .evaluator
            .evaluate(&self.plan, &tables)
            .and_then(|batches| {
                // A result that is no relation of this schema is a bug of this query's plan: the others go on.
                self.inserts(&batches, epoch)
                    .map_err(|error| EvalError::new(EvalErrorKind::Internal, error.to_string()))
            });
        match made {
            Err(error) if error.kind == EvalErrorKind::Cancelled => Err(Error::Evaluation(error)),
            made => Ok(made),
        }
    }

    fn inserts(&self, batches: &[RecordBatch], epoch: Epoch) -> Result<Vec<DeltaBatch>, Error> {
        let mut deltas = Vec::with_capacity(batches.len());
        for batch in batches {
            let rows = make_batch(&self.schema, batch.columns().to_vec(), batch.num_rows())?;
            deltas.push(DeltaBatch::insert(normalize_batch(&rows), epoch));
        }
        Ok(deltas)
    }

    /// What changes of rows, each of which stands alone, make of the output; one delta for each input, those of others are empty then.
    pub(crate) fn run_alone(
        &self,
        deltas: &[DeltaBatch],
        epoch: Epoch,
        output: &mut Changes,
    ) -> Result<(), Error> {
        for (number, delta) in deltas.iter().enumerate() {
            let (come, go) = by_sign(delta)?;
            for (sign, delta) in [(1, come), (-1, go)] {
                self.run_signed(number, delta, sign, epoch, output)?;
            }
        }
        Ok(())
    }

    /// The same of rows of one input that all come or all go.
    fn run_signed(
        &self,
        number: usize,
        delta: DeltaBatch,
        sign: i64,
        epoch: Epoch,
        output: &mut Changes,
    ) -> Result<(), Error> {
        // Explicit stack: halves in order.
        let mut stack = vec![delta];
        while let Some(delta) = stack.pop() {
            if delta.is_empty() {
                continue;
            }
            let mut rows = vec![Vec::new(); self.inputs.len()];
            if let Some(rows) = rows.get_mut(number) {
                rows.push(expand(&delta.rows, &delta.weights)?);
            }
            match self.evaluate(&rows, epoch)? {
                Ok(made) => {
                    if let Some(made) = consolidate(&self.schema, &made, epoch)? {
                        output.push(if sign > 0 { made } else { made.negate()? });
                    }
                }
                Err(error) if delta.len() <= 1 => {
                    output.errors.push((error, sign * delta.weights.get(0)));
                }
                Err(_) => {
                    let half = delta.len() / 2;
                    stack.push(slice(&delta, half, delta.len() - half));
                    stack.push(slice(&delta, 0, half));
                }
            }
        }
        Ok(())
    }
}

/// The rows that come, and those that go with how often they do.
fn by_sign(delta: &DeltaBatch) -> Result<(DeltaBatch, DeltaBatch), Error> {
    let comes: arrow_array::BooleanArray = (0..delta.len())
        .map(|row| Some(delta.weights.get(row) > 0))
        .collect();
    let come = delta.filter(&comes)?;
    let go = delta.filter(&arrow::compute::not(&comes)?)?;
    Ok((come, go.negate()?))
}
