//! What decides on partitions, where a sink says it as an expression.
//!
//! Owns its evaluation over the rows that are written. Must not know messages. Called by the task of a sink, on a thread that may block.
//!
//! Invariants. The number of a row depends on nothing but the row. One that has none, because the expression is NULL or fails, is NULL.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::builder::UInt64Builder;
use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_plan::PhysicalExpr;
use flowstone_dataflow::ExprCompiler;
use flowstone_ingest::sink::Failure;
use flowstone_proto::kafka::{KafkaSink, SinkPartition};
use flowstone_proto::plan::column_name;
use flowstone_types::{Budget, TypeError};

use crate::query::Compiler;

/// What may be made at once. A row of which more is made has no number.
const BYTES_MAX: usize = 256 << 20;

/// Rows that are evaluated at once.
const ROWS_AT_ONCE: usize = 8192;

/// An expression of type `uint8` over the rows of a collection.
#[derive(Debug)]
pub(super) struct Partitioner {
    expr: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
}

impl Partitioner {
    /// That of a sink; `None` if it has no expression.
    ///
    /// # Errors
    /// [`Failure::Data`] if it cannot be evaluated.
    pub(super) fn of(kafka: &KafkaSink, schema: &SchemaRef) -> Result<Option<Self>, Failure> {
        let expr = match &kafka.partition_by {
            None | Some(SinkPartition::Column(_)) => return Ok(None),
            Some(SinkPartition::Unplanned(reason)) => {
                let message = format!("PARTITION BY cannot be planned any more: {reason}");
                return Err(Failure::Data(message));
            }
            Some(SinkPartition::Expression(expr)) => expr,
        };
        let fields = schema.fields().iter().enumerate().map(|(index, field)| {
            Field::new(column_name(index), field.data_type().clone(), true)
                .with_metadata(field.metadata().clone())
        });
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let refused = |error: String| Failure::Data(format!("PARTITION BY: {error}"));
        let compiled = Compiler.compile(expr, &schema);
        let expr = compiled.map_err(|error| refused(error.to_string()))?;
        match expr.data_type(&schema) {
            Ok(DataType::UInt64) => Ok(Some(Self { expr, schema })),
            Ok(other) => Err(refused(format!("it is of type {other}"))),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// The number of each row.
    ///
    /// # Errors
    /// [`TypeError`] if the rows have other columns.
    pub(super) fn numbers(&self, rows: &RecordBatch) -> Result<UInt64Array, TypeError> {
        let count = rows.num_rows();
        let rows = RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            rows.columns().to_vec(),
            &RecordBatchOptions::new().with_row_count(Some(count)),
        )?;
        let mut numbers = UInt64Builder::with_capacity(count);
        for from in (0..count).step_by(ROWS_AT_ONCE) {
            let length = ROWS_AT_ONCE.min(count - from);
            self.add(&rows.slice(from, length), &mut numbers);
        }
        Ok(numbers.finish())
    }

    /// Rows that fail are found by halves, so that the others have their numbers.
    fn add(&self, rows: &RecordBatch, numbers: &mut UInt64Builder) {
        let mut stack = vec![rows.clone()];
        while let Some(rows) = stack.pop() {
            let count = rows.num_rows();
            match self.evaluate(&rows) {
                Some(found) => numbers.extend(found.iter()),
                None if count <= 1 => numbers.append_nulls(count),
                None => {
                    let half = count / 2;
                    stack.push(rows.slice(half, count - half));
                    stack.push(rows.slice(0, half));
                }
            }
        }
    }

    fn evaluate(&self, rows: &RecordBatch) -> Option<UInt64Array> {
        let evaluate = || {
            let value = self.expr.evaluate(rows);
            value.and_then(|value| value.into_array(rows.num_rows()))
        };
        // Expressions have no state: nothing is left half done by one that panics, as Arrow's do where a column would pass 2 GiB.
        let evaluated = Budget::alone(BYTES_MAX).run(|| catch_unwind(AssertUnwindSafe(evaluate)));
        let array = evaluated.ok()?.ok()?;
        if array.len() != rows.num_rows() {
            return None;
        }
        array.as_primitive_opt::<UInt64Type>().cloned()
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int64Array};
    use datafusion::logical_expr::{Expr, cast, col, lit};
    use flowstone_functions::codec::encode_expr;
    use flowstone_proto::kafka::SinkEnvelope;
    use flowstone_proto::plan;
    use flowstone_types::SqlType;

    use super::super::tests::sink;
    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![SqlType::Int8.to_field("k", true)]))
    }

    fn of(expr: &Expr) -> Result<Option<Partitioner>, Failure> {
        let mut kafka = sink(SinkEnvelope::Debezium, true);
        kafka.partition_by = Some(SinkPartition::Expression(plan::Expr {
            bytes: encode_expr(expr).unwrap(),
            text: expr.to_string(),
        }));
        Partitioner::of(&kafka, &schema())
    }

    #[test]
    fn a_row_whose_number_cannot_be_computed_has_none_and_the_others_have_theirs() {
        // 12 / k
        let expr = cast(lit(12_i64) / col("c0"), DataType::UInt64);
        let partitioner = of(&expr).unwrap().unwrap();
        let values = [Some(4), Some(0), None, Some(1), Some(0), Some(12)];
        let keys: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        let rows = RecordBatch::try_new(schema(), vec![keys]).unwrap();
        let numbers = partitioner.numbers(&rows).unwrap();
        let numbers: Vec<Option<u64>> = numbers.iter().collect();
        assert_eq!(numbers, [Some(3), None, None, Some(12), None, Some(1)]);
    }

    #[test]
    fn what_is_no_number_or_cannot_be_planned_any_more_ends_the_sink() {
        assert!(matches!(of(&col("c0")), Err(Failure::Data(_))));
        let mut kafka = sink(SinkEnvelope::Debezium, true);
        assert!(Partitioner::of(&kafka, &schema()).unwrap().is_none());
        kafka.partition_by = Some(SinkPartition::Unplanned("gone".to_owned()));
        let refused = Partitioner::of(&kafka, &schema()).unwrap_err();
        let message = "PARTITION BY cannot be planned any more: gone".to_owned();
        assert_eq!(refused, Failure::Data(message));
    }
}
