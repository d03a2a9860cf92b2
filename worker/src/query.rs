//! One-shot queries: a plan, tables frozen at one epoch, and DataFusion to run it.
//!
//! Owns the decoding and execution of query plans and the compilation of plan expressions for the engine. Must not know how snapshots are taken.
//! Called by the compute for peeks and writes, and by shard threads (through [`Evaluator`] and [`Compiler`]).
//!
//! Invariants. Execution runs on the compute runtime, never on the one that moves messages, and within a budget: of the queries together, or, for a recomputed
//! operator, of its own.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
use flowstone_functions::execution::{
    Run, carry_budgets, narrower_batches, narrower_for_constants,
};
use flowstone_functions::tables::ScanTarget;
use flowstone_proto::ipc::decode_batches;
use flowstone_proto::message::{RequestError, ResultMessage, SystemRelation};
use flowstone_proto::plan::{Expr, QueryPlan};
use flowstone_types::budget::Within;
use flowstone_types::{Budget, EvalError, EvalErrorKind, ObjectId, SharedBudget, budget};
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
    match error.kind {
        EvalErrorKind::Internal => RequestError::Internal(error.message),
        EvalErrorKind::OutOfMemory => RequestError::OutOfMemory {
            detail: error.message,
        },
        EvalErrorKind::Cancelled => RequestError::Cancelled,
        _ => RequestError::Eval(error),
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
        // Rows that were sent already cannot be taken back.
        _ if narrower_batches(error).is_some() => RequestError::OutOfMemory {
            detail: error.to_string(),
        },
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

/// A recomputed operator reads its inputs and nothing else.
fn recomputed_scan(id: ObjectId) -> DataFusionError {
    DataFusionError::Internal(format!("recomputed operator scans collection {id}"))
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
    /// What one-shot queries may hold, counted or not by DataFusion.
    shared: Arc<SharedBudget>,
    /// The same for one recomputed operator.
    recompute_bytes: usize,
    compute: tokio::runtime::Handle,
}

/// How many times what operators may hold everything may take: they do not count what is on its way between them, nor what they do not expect to be large.
const UNCOUNTED: usize = 2;

/// Rows on their way to a client, in bytes, beyond which a query waits until they have been taken.
const IN_FLIGHT_BYTES: usize = 16 << 20;

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
        let state = Arc::new(flowstone_functions::session_state());
        carry_budgets();
        let everything = memory_bytes.saturating_mul(UNCOUNTED);
        Ok(Self {
            shared: SharedBudget::new(everything),
            recompute_bytes: everything,
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

    /// What a recomputed operator may hold, in bytes.
    #[must_use]
    pub const fn recompute_bytes(&self) -> usize {
        self.recompute_bytes
    }

    /// An account for a one-shot query.
    #[must_use]
    pub fn budget(&self) -> Arc<Budget> {
        Budget::new(&self.shared)
    }

    /// Starts a query, with batches of at most `rows_max` rows if that is given. Without a `run` it can always be started again.
    async fn execute(
        &self,
        context: &Arc<TaskContext>,
        query: &QueryPlan,
        tables: &(
             dyn Fn(ScanTarget, SchemaRef) -> Result<Arc<dyn TableProvider>, DataFusionError> + Sync
         ),
        rows_max: Option<usize>,
        run: Option<&Arc<Run>>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let plan = codec::decode_plan(&query.bytes, &|target, schema| tables(target, schema))?;
        let mut state = Arc::clone(&self.state);
        let mut context = Arc::clone(context);
        if let Some(rows_max) = rows_max {
            let mut narrow = SessionState::clone(&state);
            *narrow.config_mut() = narrow.config().clone().with_batch_size(rows_max);
            state = Arc::new(narrow);
        }
        if rows_max.is_some() || run.is_some() {
            let mut config = state.config().clone();
            if let Some(run) = run {
                config.set_extension(Arc::clone(run));
            }
            let own = TaskContext::from(state.as_ref()).with_session_config(config);
            context = Arc::new(own.with_runtime(context.runtime_env()));
        }
        // Large constants are made when they are needed.
        let plan = budget::constants_only(|| state.optimize(&plan))?;
        let planner = Arc::clone(state.query_planner());
        let physical = planner.create_physical_plan(&plan, state.as_ref()).await?;
        let fitting = state.config().batch_size();
        match narrower_for_constants(&physical)? {
            Some(narrower) if narrower.rows < fitting => Err(narrower.into()),
            _ => execute_stream(physical, context),
        }
    }

    /// All rows of a query.
    async fn all_rows(
        &self,
        context: &Arc<TaskContext>,
        query: &QueryPlan,
        tables: &(
             dyn Fn(ScanTarget, SchemaRef) -> Result<Arc<dyn TableProvider>, DataFusionError> + Sync
         ),
    ) -> Result<Vec<RecordBatch>, DataFusionError> {
        let mut rows_max = None;
        loop {
            let rows = async {
                let stream = self.execute(context, query, tables, rows_max, None).await?;
                stream.try_collect::<Vec<_>>().await
            };
            match rows.await {
                Err(error) => match narrower_batches(&error) {
                    Some(narrower) if rows_max.is_none_or(|rows| narrower.rows < rows) => {
                        rows_max = Some(narrower.rows);
                    }
                    _ => return Err(error),
                },
                done => return done,
            }
        }
    }

    /// All rows of a query, which count in `budget` as long as it exists.
    ///
    /// # Errors
    /// Evaluation errors, and [`RequestError::Internal`] for a plan that does not decode.
    pub async fn collect(
        &self,
        query: &QueryPlan,
        tables: &Tables,
        budget: &Arc<Budget>,
    ) -> Result<Vec<RecordBatch>, RequestError> {
        let provider = |target, schema: SchemaRef| tables.provider(target, &schema);
        let run = self.all_rows(&self.limited, query, &provider);
        let run = guarded(run.map_err(|error| request_error(&error)));
        Within::new(Some(Arc::clone(budget)), run).await
    }

    /// Plans the query of a recomputed operator and does not run it. To be called where blocking is allowed.
    ///
    /// # Errors
    /// [`EvalErrorKind::Internal`] or [`EvalErrorKind::NotSupported`]: there is no way to run it. What else may go wrong depends on the rows, which there are none of.
    pub(crate) fn check(&self, query: &QueryPlan) -> Result<(), EvalError> {
        let planning = async {
            let provider = |target, schema: SchemaRef| match target {
                ScanTarget::Input(_) => table(&schema, Vec::new()),
                ScanTarget::Collection(id) => Err(recomputed_scan(id)),
            };
            let plan = codec::decode_plan(&query.bytes, &provider)?;
            let plan = budget::constants_only(|| self.state.optimize(&plan))?;
            let planner = Arc::clone(self.state.query_planner());
            let state = self.state.as_ref();
            planner.create_physical_plan(&plan, state).await.map(drop)
        };
        let planning = guarded_by(planning.map_err(|error| eval_error(&error)), |error| error);
        let planning = Within::new(Some(Budget::alone(self.recompute_bytes)), planning);
        match self.compute.block_on(planning) {
            Err(error)
                if matches!(
                    error.kind,
                    EvalErrorKind::Internal | EvalErrorKind::NotSupported
                ) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Streams the rows of a query to a client; ends with `Done` or `Failed`. Stops when the client goes.
    pub async fn stream(
        &self,
        query: &QueryPlan,
        tables: &Tables,
        results: &mpsc::Sender<ResultMessage>,
        budget: &Arc<Budget>,
    ) {
        let run = guarded(
            self.send_rows(query, tables, results)
                .map_err(|error| request_error(&error)),
        );
        let last = match Within::new(Some(Arc::clone(budget)), run).await {
            Ok(()) => ResultMessage::Done,
            Err(error) => ResultMessage::Failed(error),
        };
        // A client that has gone does not need the end.
        drop(results.send(last).await);
    }

    async fn send_rows(
        &self,
        query: &QueryPlan,
        tables: &Tables,
        results: &mpsc::Sender<ResultMessage>,
    ) -> Result<(), DataFusionError> {
        let provider = |target, schema: SchemaRef| tables.provider(target, &schema);
        let mut rows_max = None;
        let mut sending = Sending::new(results);
        loop {
            let run = Arc::new(Run::default());
            let attempt = async {
                let mut stream = self
                    .execute(&self.limited, query, &provider, rows_max, Some(&run))
                    .await?;
                if !sending.begin(stream.schema()).await {
                    return Ok(());
                }
                while let Some(batch) = stream.try_next().await? {
                    if batch.num_rows() == 0 {
                        continue;
                    }
                    run.commit()?;
                    if !sending.send(batch).await {
                        return Ok(());
                    }
                }
                Ok(())
            };
            match attempt.await {
                Err(error) => match narrower_batches(&error) {
                    Some(narrower)
                        if !run.is_committed()
                            && rows_max.is_none_or(|rows| narrower.rows < rows) =>
                    {
                        rows_max = Some(narrower.rows);
                    }
                    _ => return Err(error),
                },
                Ok(()) => return Ok(()),
            }
        }
    }
}

/// Rows on their way to a client.
///
/// They are kept until the client has done with them: so they are freed by the query that they count for.
struct Sending<'a> {
    results: &'a mpsc::Sender<ResultMessage>,
    sent: VecDeque<(RecordBatch, usize)>,
    bytes: usize,
    begun: bool,
}

impl<'a> Sending<'a> {
    const fn new(results: &'a mpsc::Sender<ResultMessage>) -> Self {
        Self {
            results,
            sent: VecDeque::new(),
            bytes: 0,
            begun: false,
        }
    }

    /// Tells the client, once, that the query runs: a batch without rows. Returns whether the client is still there.
    async fn begin(&mut self, schema: SchemaRef) -> bool {
        if std::mem::replace(&mut self.begun, true) {
            return true;
        }
        let empty = RecordBatch::new_empty(schema);
        self.results.send(ResultMessage::Rows(empty)).await.is_ok()
    }

    /// Forgets what the client has done with: everything before what it took last.
    fn forget_taken(&mut self) {
        let waiting = self
            .results
            .max_capacity()
            .saturating_sub(self.results.capacity());
        while self.sent.len() > waiting + 1
            && let Some((_, bytes)) = self.sent.pop_front()
        {
            self.bytes -= bytes;
        }
    }

    /// Sends a batch as soon as there is room. Returns whether the client is still there.
    async fn send(&mut self, batch: RecordBatch) -> bool {
        let columns = batch.columns().iter();
        let bytes = columns
            .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
            .fold(0, usize::saturating_add);
        self.forget_taken();
        if self.bytes > 0 && self.bytes.saturating_add(bytes) > IN_FLIGHT_BYTES {
            // All permits: the client has taken everything.
            match self.results.reserve_many(self.results.max_capacity()).await {
                Ok(permits) => drop(permits),
                Err(_) => return false,
            }
            self.forget_taken();
        }
        self.sent.push_back((batch.clone(), bytes));
        self.bytes += bytes;
        self.results.send(ResultMessage::Rows(batch)).await.is_ok()
    }
}

/// Evaluates recomputed operators for shard threads.
#[derive(Debug)]
pub struct Evaluator {
    runner: QueryRunner,
    time_max: Duration,
}

impl Evaluator {
    /// An evaluator that gives a query up after `time_max`, with [`EvalErrorKind::Cancelled`].
    #[must_use]
    pub const fn new(runner: QueryRunner, time_max: Duration) -> Self {
        Self { runner, time_max }
    }
}

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
            ScanTarget::Collection(id) => Err(recomputed_scan(id)),
        };
        let runner = &self.runner;
        let run = runner.all_rows(&runner.unlimited, query, &provider);
        let run = guarded_by(run.map_err(|error| eval_error(&error)), |error| error);
        let budget = Budget::alone(runner.recompute_bytes);
        // In a task of its own: what runs may not come to an end of its turn before it sees that nobody wants it any more.
        let (watched, time_max) = (Arc::clone(&budget), self.time_max);
        let watch = runner.compute.spawn(async move {
            tokio::time::sleep(time_max).await;
            watched.cancel();
        });
        let run = Within::new(Some(budget), run);
        let outcome = runner
            .compute
            .block_on(async { tokio::time::timeout(time_max, run).await });
        watch.abort();
        let taken = format!("evaluation took longer than {time_max:?}");
        let given_up = EvalError::new(EvalErrorKind::Cancelled, taken);
        match outcome {
            Err(_) => Err(given_up),
            Ok(Err(error)) if error.kind == EvalErrorKind::Cancelled => Err(given_up),
            Ok(outcome) => outcome,
        }
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
