//! Incremental operators, arrangements and the shard executor.
//!
//! Owns how a [`flowstone_proto::plan::Plan`] is kept up to date: [`Shard`] renders plans, runs ticks over them and holds their state.
//! Must not know networks, tokio, threads, catalogs, SQL text or wall-clock time: everything here is synchronous and deterministic.
//! Called by `worker`, which owns one [`Shard`] per thread, moves [`ExchangeMessage`]s between them and feeds them ticks. What takes long before it can take part
//! in ticks is hydrated in forks of the shards ([`Shard::fork`]), on other threads.
//!
//! Invariants. Equal commands and inputs give equal outputs on every replica and in every run. Results do not depend on the number of shards.
//! During a tick no relation changes: operators see `before`, and the tick's deltas beside it. An idle dataflow costs nothing.
//! Errors of rows are data; what breaks in a dataflow is a failure of that dataflow alone ([`TickOutput::failed`], [`Shard::fail_dataflow`]); an [`Error`] of a
//! call means that the caller asked for something impossible or that an invariant of the shard is broken.

mod batch;
mod error;
mod held;
mod operator;
mod partition;
mod registry;
mod relation;
mod render;
mod shard;
mod snapshot;
mod step;
mod upsert;

use std::fmt::Debug;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::PhysicalExpr;
use flowstone_proto::plan::{Expr, QueryPlan};
use flowstone_types::EvalError;

pub use batch::expand;
pub use error::Error;
pub use held::Held;
pub use partition::{
    VNODES, owner_of, partition_changes, partition_columns, partition_delta, partition_rows,
    shard_of,
};
pub use shard::{
    CollectionInput, CollectionOutput, POINT_ROWS_MAX, Shard, ShardConfig, TickOutput,
};
pub use snapshot::Snapshot;
pub use step::ExchangeMessage;

/// Makes physical expressions from a plan's encoded ones.
pub trait ExprCompiler: Send + Sync + Debug {
    /// The expression over batches of schema `input`, whose columns are named `c0`, `c1`, …
    ///
    /// # Errors
    /// [`Error::Plan`] if the expression cannot be decoded or planned.
    fn compile(&self, expr: &Expr, input: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>, Error>;

    /// What a failed evaluation means to the user.
    fn eval_error(&self, error: &DataFusionError) -> EvalError;
}

/// Evaluates a query over complete inputs, for plans that are not maintained incrementally. It may block.
pub trait QueryEvaluator: Send + Sync + Debug {
    /// `inputs`: for table `input_0`, `input_1`, … its schema (columns `c0`, `c1`, …) and its rows, duplicates expanded. Output rows in any order.
    ///
    /// # Errors
    /// The [`EvalError`] that stands for the result until the inputs change.
    fn evaluate(
        &self,
        query: &QueryPlan,
        inputs: &[(SchemaRef, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>, EvalError>;
}
