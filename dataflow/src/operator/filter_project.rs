//! Fused filter and projection: linear, stateless, weights unchanged.
//!
//! A row that fails to evaluate becomes an error with the row's weight: the batch is halved until the failing rows stand alone, so that the others
//! go through. The same row fails again when it is retracted, which retracts the error. That what is made of a row is too large is a fault of the row;
//! what is no fault of it, for it would not happen again, ends the step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use datafusion::physical_plan::PhysicalExpr;
use flowstone_types::normalize::normalize_array;
use flowstone_types::{Budget, DeltaBatch, EvalError, EvalErrorKind, budget};

use super::{Operator, Tick, merge};
use crate::batch::{Changes, make_batch, slice};
use crate::{Error, ExprCompiler};

#[derive(Debug)]
pub(crate) struct FilterProject {
    pub(crate) predicates: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) projections: Vec<Arc<dyn PhysicalExpr>>,
    /// Relaxed schema of the output.
    pub(crate) schema: SchemaRef,
    pub(crate) compiler: Arc<dyn ExprCompiler>,
    /// What may be made of one row, in bytes.
    pub(crate) row_bytes_max: usize,
}

enum Failure {
    Row(EvalError),
    Shard(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Shard(error.into())
    }
}

impl Operator for FilterProject {
    fn run(&mut self, _: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        let input = merge(inputs);
        let mut output = Changes {
            deltas: Vec::with_capacity(input.deltas.len()),
            errors: input.errors,
        };
        for delta in input.deltas {
            self.isolate(delta, &mut output)?;
        }
        Ok(output)
    }
}

impl FilterProject {
    fn isolate(&self, delta: DeltaBatch, output: &mut Changes) -> Result<(), Error> {
        // Explicit stack: halves in order, so that output rows keep the input's order.
        let mut stack = vec![delta];
        while let Some(delta) = stack.pop() {
            budget::check()?;
            // An account of its own for each: what is made of a row does not depend on what else is there.
            let made = Budget::alone(self.row_bytes_max);
            match made.run(|| self.evaluate(&delta)) {
                Ok(result) => output.push(result),
                Err(Failure::Shard(error)) => return Err(error),
                Err(Failure::Row(error)) if error.kind == EvalErrorKind::Cancelled => {
                    return Err(Error::Evaluation(error));
                }
                Err(Failure::Row(error))
                    if delta.len() <= 1 && error.kind == EvalErrorKind::OutOfMemory =>
                {
                    output.errors.push((self.too_much(), delta.weights.get(0)));
                }
                Err(Failure::Row(error)) if delta.len() <= 1 => {
                    output.errors.push((error, delta.weights.get(0)))
                }
                Err(Failure::Row(_)) => {
                    let half = delta.len() / 2;
                    stack.push(slice(&delta, half, delta.len() - half));
                    stack.push(slice(&delta, 0, half));
                }
            }
        }
        Ok(())
    }

    /// The same whenever the row comes or goes: how much was tried is not said.
    fn too_much(&self) -> EvalError {
        let mib = self.row_bytes_max >> 20;
        EvalError::new(
            EvalErrorKind::TooLarge,
            format!("what is made of a row is larger than {mib} MiB"),
        )
    }

    fn evaluate(&self, delta: &DeltaBatch) -> Result<DeltaBatch, Failure> {
        let mut passed = delta.clone();
        for predicate in &self.predicates {
            if passed.is_empty() {
                break;
            }
            let keep = self.value(predicate, &passed.rows)?;
            let keep = match keep.data_type() {
                DataType::Boolean => keep.as_boolean().clone(),
                DataType::Null => arrow_array::BooleanArray::from(vec![false; keep.len()]),
                other => {
                    return Err(Failure::Row(EvalError::new(
                        EvalErrorKind::Internal,
                        format!("predicate of type {other}"),
                    )));
                }
            };
            let keep = if keep.null_count() > 0 {
                arrow_select::filter::prep_null_mask_filter(&keep)
            } else {
                keep
            };
            match keep.true_count() {
                0 => passed = DeltaBatch::empty(passed.schema(), passed.epoch),
                all if all == passed.len() => {}
                _ => passed = passed.filter(&keep)?,
            }
        }
        if passed.is_empty() {
            return Ok(DeltaBatch::empty(Arc::clone(&self.schema), passed.epoch));
        }
        let mut columns = Vec::with_capacity(self.projections.len());
        for projection in &self.projections {
            columns.push(normalize_array(&self.value(projection, &passed.rows)?));
        }
        let rows = make_batch(&self.schema, columns, passed.len())?;
        Ok(DeltaBatch::new(rows, passed.weights, passed.epoch))
    }

    fn value(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
        rows: &RecordBatch,
    ) -> Result<arrow_array::ArrayRef, Failure> {
        let evaluate = || {
            expr.evaluate(rows)
                .and_then(|value| value.into_array(rows.num_rows()))
        };
        // Expressions have no state: nothing is left half done by one that panics, as Arrow's do where a column would pass 2 GiB.
        match catch_unwind(AssertUnwindSafe(evaluate)) {
            Ok(value) => value.map_err(|error| Failure::Row(self.compiler.eval_error(&error))),
            Err(panic) => Err(Failure::Row(EvalError::of_panic(panic.as_ref()))),
        }
    }
}
