//! One shard, driven as `worker` drives it: what the benchmarks of the engine alone share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowstone_dataflow::{
    CollectionInput, POINT_ROWS_MAX, QueryEvaluator, Shard, ShardConfig, TickOutput,
};
use flowstone_proto::plan::{QueryPlan, column_name};
use flowstone_types::{Epoch, EvalError, EvalErrorKind, ObjectId};
use flowstone_worker::query::Compiler;

/// Rows of compaction after each tick: what the worker allows itself.
const MAINTENANCE_ROWS: usize = 4096;

/// The plans that are measured recompute nothing.
#[derive(Debug)]
struct NoRecomputation;

impl QueryEvaluator for NoRecomputation {
    fn evaluate(
        &self,
        query: &QueryPlan,
        _: &[(SchemaRef, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>, EvalError> {
        Err(EvalError::new(
            EvalErrorKind::Internal,
            format!("{query:?} would be recomputed"),
        ))
    }
}

/// The only shard there is.
pub(crate) fn single() -> Shard {
    Shard::new(ShardConfig {
        index: 0,
        count: 1,
        compiler: Arc::new(Compiler),
        evaluator: Arc::new(NoRecomputation),
        point_rows_max: POINT_ROWS_MAX,
        row_bytes_max: usize::MAX,
    })
}

/// The columns `c0`, `c1`, … of these types.
pub(crate) fn schema(types: &[DataType]) -> SchemaRef {
    let fields = types
        .iter()
        .enumerate()
        .map(|(index, data_type)| Field::new(column_name(index), data_type.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The first tick of a dataflow.
pub(crate) fn hydrate(shard: &mut Shard, id: ObjectId, epoch: Epoch) -> Result<TickOutput> {
    shard.begin_hydration(&[id], epoch)?;
    finish(shard)
}

/// A tick with these inputs, and how long it took.
pub(crate) fn tick(
    shard: &mut Shard,
    epoch: Epoch,
    inputs: Vec<(ObjectId, CollectionInput)>,
) -> Result<(TickOutput, Duration)> {
    let begin = Instant::now();
    shard.begin_tick(epoch, inputs)?;
    let output = finish(shard)?;
    Ok((output, begin.elapsed()))
}

/// What the worker does after a tick, before the next one, and how long it took.
pub(crate) fn maintain(shard: &mut Shard, epoch: Epoch) -> Duration {
    let begin = Instant::now();
    shard.allow_compaction(epoch);
    shard.maintain(MAINTENANCE_ROWS);
    begin.elapsed()
}

/// Runs the stages of the tick that is open.
fn finish(shard: &mut Shard) -> Result<TickOutput> {
    loop {
        let mut messages = Vec::new();
        shard.run_stage(&mut |_, message| messages.push(message))?;
        if messages.is_empty() && !shard.pending() {
            return Ok(shard.end_tick()?);
        }
        for message in messages {
            shard.deliver(message);
        }
    }
}
