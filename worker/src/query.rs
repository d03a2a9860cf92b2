//! One-shot queries: a plan, tables frozen at one epoch, and DataFusion to run it.
//!
//! Owns the decoding and execution of query plans and the compilation of plan expressions for the engine. Must not know how snapshots are taken.
//! Called by the engine loop for peeks and writes, and by shard threads (through [`Evaluator`] and [`Compiler`]).
//!
//! Invariants. Execution runs on the compute runtime, never on the one that moves messages.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_plan::{PhysicalExpr, SendableRecordBatchStream, execute_stream};
use flowstone_dataflow::{ExprCompiler, QueryEvaluator, Snapshot};
use flowstone_functions::codec;
use flowstone_functions::errors::eval_error;
use flowstone_functions::tables::ScanTarget;
use flowstone_proto::ipc::decode_batches;
use flowstone_proto::message::{RequestError, ResultMessage, SystemRelation};
use flowstone_proto::plan::{Expr, QueryPlan};
use flowstone_types::{EvalError, EvalErrorKind, ObjectId};
use futures::{FutureExt, TryFutureExt, TryStreamExt};
use tokio::sync::mpsc;

use crate::Error;

/// Wraps an error that only a bug of ours can cause.
pub(crate) fn internal(error: impl std::fmt::Display) -> RequestError {
    RequestError::Internal(error.to_string())
}

/// Runs `work`. A panic in it is an error of those who asked for it and of nobody else: nothing that outlives the work is left half done by a query.
pub(crate) async fn guarded<T>(
    work: impl Future<Output = Result<T, RequestError>>,
) -> Result<T, RequestError> {
    guarded_by(work, evaluation_failed).await
}

async fn guarded_by<T, E>(
    work: impl Future<Output = Result<T, E>>,
    failed: impl FnOnce(EvalError) -> E,
) -> Result<T, E> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(failed(EvalError::of_panic(panic.as_ref()))))
}

/// What an evaluation error is to those who asked.
pub(crate) fn evaluation_failed(error: EvalError) -> RequestError {
    if error.kind == EvalErrorKind::Internal {
        RequestError::Internal(error.message)
    } else {
        RequestError::Eval(error)
    }
}

fn request_error(error: &DataFusionError) -> RequestError {
    match error.find_root() {
        DataFusionError::NotImplemented(message) => RequestError::Unsupported(message.clone()),
        DataFusionError::ResourcesExhausted(message) => {
            // The first line says what was asked for and by whom; the rest lists everybody else.
            RequestError::OutOfMemory {
                detail: message.lines().next().unwrap_or_default().to_owned(),
            }
        }
        _ => evaluation_failed(eval_error(error)),
    }
}

/// The relations a query reads, frozen at one epoch.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    collections: BTreeMap<ObjectId, (SchemaRef, Vec<Arc<Snapshot>>)>,
    system: BTreeMap<ObjectId, (SchemaRef, Vec<RecordBatch>)>,
}

impl Tables {
    /// Adds a collection: one snapshot per shard.
    ///
    /// # Errors
    /// [`RequestError::Eval`] if the collection holds an error: it cannot be read while it does.
    pub fn insert(
        &mut self,
        id: ObjectId,
        schema: SchemaRef,
        shards: Vec<Arc<Snapshot>>,
    ) -> Result<(), RequestError> {
        if let Some((error, _)) = shards
            .iter()
            .flat_map(|shard| &shard.errors)
            .min_by(|a, b| a.0.cmp(&b.0))
        {
            return Err(RequestError::Eval(error.clone()));
        }
        self.collections.insert(id, (schema, shards));
        Ok(())
    }

    /// The same with relations of the system catalog beside them.
    ///
    /// # Errors
    /// [`RequestError::Internal`] if the relations' bytes are damaged.
    pub fn with_system(&self, system: &[SystemRelation]) -> Result<Self, RequestError> {
        let mut tables = self.clone();
        for relation in system {
            tables.system.insert(
                relation.id,
                decode_batches(&relation.rows).map_err(internal)?,
            );
        }
        Ok(tables)
    }

    fn provider(
        &self,
        target: ScanTarget,
        scan_schema: &SchemaRef,
    ) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let ScanTarget::Collection(id) = target else {
            return Err(DataFusionError::Internal(format!(
                "scan of {target} outside of a recomputed operator"
            )));
        };
        if let Some((_, shards)) = self.collections.get(&id) {
            let mut rows = Vec::new();
            for shard in shards {
                rows.extend(
                    shard
                        .rows()
                        .map_err(|error| DataFusionError::External(Box::new(error)))?,
                );
            }
            return table(scan_schema, rows);
        }
        if let Some((_, rows)) = self.system.get(&id) {
            return table(scan_schema, rows.clone());
        }
        Err(DataFusionError::Plan(format!(
            "collection {id} was not frozen for this query"
        )))
    }
}

/// A table of `rows` under the names and metadata of `schema`.
fn table(
    schema: &SchemaRef,
    rows: Vec<RecordBatch>,
) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    let mut renamed = Vec::with_capacity(rows.len());
    for batch in rows {
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        renamed.push(RecordBatch::try_new_with_options(
            Arc::clone(schema),
            batch.columns().to_vec(),
            &options,
        )?);
    }
    Ok(Arc::new(MemTable::try_new(
        Arc::clone(schema),
        vec![renamed],
    )?))
}

/// How many of the largest users of memory an error of the pool names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::MIN;

/// Runs query plans.
#[derive(Clone, Debug)]
pub struct QueryRunner {
    state: Arc<SessionState>,
    /// For one-shot queries: all of them together have so much memory and no more. What can spill does, in a directory of its own.
    limited: Arc<TaskContext>,
    /// For recomputed operators: whether a view can be evaluated must not depend on who else asks at that moment.
    unlimited: Arc<TaskContext>,
    compute: tokio::runtime::Handle,
}

impl QueryRunner {
    /// A runner that works on the `compute` runtime. One-shot queries share `memory_bytes` and spill to `spill_dir`, which is emptied.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be used.
    pub fn new(
        compute: tokio::runtime::Handle,
        memory_bytes: usize,
        spill_dir: &Path,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            what: format!("cannot use the spill directory \"{}\"", spill_dir.display()),
            source,
        };
        if spill_dir.exists() {
            std::fs::remove_dir_all(spill_dir).map_err(failed)?;
        }
        std::fs::create_dir_all(spill_dir).map_err(failed)?;
        let pool = TrackConsumersPool::new(FairSpillPool::new(memory_bytes), CONSUMERS_NAMED);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_temp_file_path(spill_dir)
            .build_arc()
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let state = Arc::new(flowstone_functions::registry::session_state());
        Ok(Self {
            limited: Arc::new(TaskContext::from(state.as_ref()).with_runtime(runtime)),
            unlimited: state.task_ctx(),
            state,
            compute,
        })
    }

    /// The runtime queries run on.
    #[must_use]
    pub const fn compute(&self) -> &tokio::runtime::Handle {
        &self.compute
    }

    async fn execute(
        &self,
        context: &Arc<TaskContext>,
        query: &QueryPlan,
        tables: &(
             dyn Fn(ScanTarget, SchemaRef) -> Result<Arc<dyn TableProvider>, DataFusionError> + Sync
         ),
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let plan = codec::decode_plan(&query.bytes, &|target, schema| tables(target, schema))?;
        let physical = self.state.create_physical_plan(&plan).await?;
        execute_stream(physical, Arc::clone(context))
    }

    /// All rows of a query.
    ///
    /// # Errors
    /// Evaluation errors, and [`RequestError::Internal`] for a plan that does not decode.
    pub async fn collect(
        &self,
        query: &QueryPlan,
        tables: &Tables,
    ) -> Result<Vec<RecordBatch>, RequestError> {
        let run = async {
            let stream = self
                .execute(&self.limited, query, &|target, schema| {
                    tables.provider(target, &schema)
                })
                .await?;
            stream.try_collect::<Vec<_>>().await
        };
        guarded(run.map_err(|error| request_error(&error))).await
    }

    /// Streams the rows of a query to a client; ends with `Done` or `Failed`. Stops when the client goes.
    pub async fn stream(
        &self,
        query: &QueryPlan,
        tables: &Tables,
        results: &mpsc::Sender<ResultMessage>,
    ) {
        let run = async {
            let mut stream = self
                .execute(&self.limited, query, &|target, schema| {
                    tables.provider(target, &schema)
                })
                .await?;
            let mut next = Some(RecordBatch::new_empty(stream.schema()));
            while let Some(batch) = next {
                if results.send(ResultMessage::Rows(batch)).await.is_err() {
                    break;
                }
                next = loop {
                    match stream.try_next().await? {
                        Some(batch) if batch.num_rows() == 0 => {}
                        other => break other,
                    }
                };
            }
            Ok(())
        };
        let last = match guarded(run.map_err(|error: DataFusionError| request_error(&error))).await
        {
            Ok(()) => ResultMessage::Done,
            Err(error) => ResultMessage::Failed(error),
        };
        // A client that has gone does not need the end.
        drop(results.send(last).await);
    }
}

/// Evaluates recomputed operators for shard threads.
#[derive(Debug)]
pub struct Evaluator(pub QueryRunner);

impl QueryEvaluator for Evaluator {
    fn evaluate(
        &self,
        query: &QueryPlan,
        inputs: &[(SchemaRef, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>, EvalError> {
        let provider = |target, schema: SchemaRef| match target {
            ScanTarget::Input(index) => {
                let (_, rows) = inputs.get(index).ok_or_else(|| {
                    DataFusionError::Internal(format!("recomputed operator has no input {index}"))
                })?;
                table(&schema, rows.clone())
            }
            ScanTarget::Collection(id) => Err(DataFusionError::Internal(format!(
                "recomputed operator scans collection {id}"
            ))),
        };
        let run = async {
            let stream = self.0.execute(&self.0.unlimited, query, &provider).await?;
            stream.try_collect::<Vec<_>>().await
        };
        let run = guarded_by(run.map_err(|error| eval_error(&error)), |error| error);
        self.0.compute.block_on(run)
    }
}

/// Compiles the expressions of plans for shard threads.
#[derive(Debug)]
pub struct Compiler;

impl ExprCompiler for Compiler {
    fn compile(
        &self,
        expr: &Expr,
        input: &SchemaRef,
    ) -> Result<Arc<dyn PhysicalExpr>, flowstone_dataflow::Error> {
        codec::decode_expr(&expr.bytes)
            .and_then(|decoded| codec::physical_expr(&decoded, input))
            .map_err(|error| {
                flowstone_dataflow::Error::Plan(format!("expression {}: {error}", expr.text))
            })
    }

    fn eval_error(&self, error: &DataFusionError) -> EvalError {
        eval_error(error)
    }
}
