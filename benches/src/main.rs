//! Benchmarks: what a tick costs the engine, against evaluating the same view from scratch in the same run.
//!
//! Owns the workloads and the report (a table and `benches/results.json`). Called by `make bench`.
//!
//! Invariants. Answers are compared before anything is timed. Every figure is a ratio against a peer measured in the same run, interleaved with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowstone_dataflow::{
    CollectionInput, Error, ExprCompiler, POINT_ROWS_MAX, QueryEvaluator, Shard, ShardConfig,
};
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{
    Aggregate, AggregateFunction, Node, NodeId, Operator, Plan, QueryPlan, column_name,
};
use flowstone_types::{DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId, Weights};

/// Rows of state in the larger input.
const STATE_ROWS: usize = 1_000_000;
/// Rows of the smaller input; each has `STATE_ROWS / CUSTOMERS` matches.
const CUSTOMERS: usize = 100_000;
/// Rows per tick.
const TICKS: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
/// How long each tick size is measured.
const BUDGET: Duration = Duration::from_secs(3);

const ORDERS: ObjectId = ObjectId::User(1);
const BUYERS: ObjectId = ObjectId::User(2);
const TOTALS: ObjectId = ObjectId::User(3);

/// The plans here hold no expressions and recompute nothing.
#[derive(Debug)]
struct Nothing;

impl ExprCompiler for Nothing {
    fn compile(
        &self,
        expr: &flowstone_proto::plan::Expr,
        _: &SchemaRef,
    ) -> Result<Arc<dyn datafusion::physical_plan::PhysicalExpr>, Error> {
        Err(Error::Plan(format!("no expressions here: {expr:?}")))
    }

    fn eval_error(&self, error: &datafusion::common::DataFusionError) -> EvalError {
        EvalError::new(EvalErrorKind::Internal, error.to_string())
    }
}

impl QueryEvaluator for Nothing {
    fn evaluate(
        &self,
        _: &QueryPlan,
        _: &[(SchemaRef, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>, EvalError> {
        Err(EvalError::new(
            EvalErrorKind::Internal,
            "nothing is recomputed here",
        ))
    }
}

fn schema(types: &[DataType]) -> SchemaRef {
    let fields = types
        .iter()
        .enumerate()
        .map(|(index, data_type)| Field::new(column_name(index), data_type.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// `SELECT buyers.city, count(*), sum(orders.amount) FROM orders JOIN buyers ON orders.buyer = buyers.id GROUP BY buyers.city`.
fn plan() -> Plan {
    let node = |operator, types: &[DataType]| Node {
        operator,
        schema: schema(types),
    };
    let int = DataType::Int64;
    Plan {
        nodes: vec![
            node(
                Operator::Get { collection: ORDERS },
                &[int.clone(), int.clone(), DataType::Int32],
            ),
            node(
                Operator::Get { collection: BUYERS },
                &[int.clone(), DataType::Utf8],
            ),
            node(
                Operator::Join {
                    left: NodeId(0),
                    right: NodeId(1),
                    left_keys: vec![1],
                    right_keys: vec![0],
                    null_equals_null: false,
                },
                &[
                    int.clone(),
                    int.clone(),
                    DataType::Int32,
                    int.clone(),
                    DataType::Utf8,
                ],
            ),
            node(
                Operator::Aggregate {
                    input: NodeId(2),
                    group: vec![4],
                    aggregates: vec![
                        Aggregate {
                            function: AggregateFunction::Count,
                            argument: None,
                            filter: None,
                            distinct: false,
                        },
                        Aggregate {
                            function: AggregateFunction::Sum,
                            argument: Some(2),
                            filter: None,
                            distinct: false,
                        },
                    ],
                },
                &[DataType::Utf8, int.clone(), int],
            ),
        ],
    }
}

/// Order `id`: its buyer and amount are functions of it.
fn orders(ids: std::ops::Range<usize>) -> Result<RecordBatch> {
    let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids.clone().map(number).collect::<Int64Array>()),
        Arc::new(
            ids.clone()
                .map(|id| number(id.wrapping_mul(7919) % CUSTOMERS))
                .collect::<Int64Array>(),
        ),
        Arc::new(
            ids.map(|id| i32::try_from(id % 1000).unwrap_or(0))
                .collect::<arrow_array::Int32Array>(),
        ),
    ];
    Ok(RecordBatch::try_new(
        schema(&[DataType::Int64, DataType::Int64, DataType::Int32]),
        columns,
    )?)
}

fn buyers() -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            (0..CUSTOMERS)
                .map(|id| i64::try_from(id).unwrap_or(0))
                .collect::<Int64Array>(),
        ),
        Arc::new(
            (0..CUSTOMERS)
                .map(|id| Some(format!("city {}", id % 1000)))
                .collect::<StringArray>(),
        ),
    ];
    Ok(RecordBatch::try_new(
        schema(&[DataType::Int64, DataType::Utf8]),
        columns,
    )?)
}

/// A shard with both inputs loaded and the view hydrated; returns how long hydration took.
fn start(orders: &RecordBatch) -> Result<(Shard, Duration)> {
    let mut shard = Shard::new(ShardConfig {
        point_rows_max: POINT_ROWS_MAX,
        index: 0,
        count: 1,
        compiler: Arc::new(Nothing),
        evaluator: Arc::new(Nothing),
    });
    shard.create_collection(ORDERS, orders.schema(), Some(vec![0]))?;
    let buyers = buyers()?;
    shard.create_collection(BUYERS, buyers.schema(), Some(vec![0]))?;
    shard.load_collection(ORDERS, orders, Epoch(1))?;
    shard.load_collection(BUYERS, &buyers, Epoch(1))?;
    let begin = Instant::now();
    shard.create_dataflow(&DataflowDescription {
        id: TOTALS,
        plan: plan(),
        export: Export::Index { key: vec![0] },
    })?;
    shard.begin_hydration(&[TOTALS], Epoch(1))?;
    finish(&mut shard)?;
    Ok((shard, begin.elapsed()))
}

fn finish(shard: &mut Shard) -> Result<()> {
    shard.run_stage(&mut |_, _| {})?;
    if shard.pending() {
        bail!("one shard needs one stage");
    }
    shard.end_tick()?;
    Ok(())
}

fn tick(shard: &mut Shard, epoch: u64, deltas: Vec<DeltaBatch>) -> Result<Duration> {
    let begin = Instant::now();
    shard.begin_tick(
        Epoch(epoch),
        vec![(ORDERS, CollectionInput::Deltas(deltas))],
    )?;
    finish(shard)?;
    let elapsed = begin.elapsed();
    shard.allow_compaction(Epoch(epoch));
    shard.maintain(4096);
    Ok(elapsed)
}

fn content(shard: &Shard, epoch: u64) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for batch in shard.snapshot(TOTALS, Epoch(epoch))?.rows()? {
        for row in 0..batch.num_rows() {
            rows.push(format!("{:?}", batch.slice(row, 1).columns()));
        }
    }
    rows.sort();
    Ok(rows)
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn main() -> Result<()> {
    let initial = orders(0..STATE_ROWS)?;
    // The answer first: a view that followed a change equals one that is built from the changed input.
    let (mut followed, _) = start(&initial)?;
    let fresh = orders(STATE_ROWS..STATE_ROWS + 1000)?;
    tick(&mut followed, 2, vec![DeltaBatch::insert(fresh, Epoch(2))])?;
    let (rebuilt, recompute) = start(&orders(0..STATE_ROWS + 1000)?)?;
    if content(&followed, 2)? != content(&rebuilt, 1)? {
        bail!("the maintained view differs from the recomputed one");
    }

    println!(
        "join + aggregate over {STATE_ROWS} x {CUSTOMERS} rows; building it from scratch: {recompute:?}"
    );
    println!(
        "{:>9} {:>12} {:>12} {:>14} {:>22}",
        "rows/tick", "p50", "p99", "rows/s", "recompute / tick (p50)"
    );
    let mut results = Vec::new();
    let (mut oldest, mut next, mut epoch) = (0, STATE_ROWS + 1000, 2);
    for rows in TICKS {
        let mut times = Vec::new();
        let begin = Instant::now();
        while begin.elapsed() < BUDGET || times.len() < 20 {
            epoch += 1;
            // As many rows go as come, so that the state keeps its size.
            let half = (rows / 2).max(1);
            let mut deltas = vec![DeltaBatch::insert(orders(next..next + half)?, Epoch(epoch))];
            if rows > 1 {
                deltas.push(DeltaBatch::new(
                    orders(oldest..oldest + half)?,
                    Weights::Const(-1),
                    Epoch(epoch),
                ));
                oldest += half;
            }
            next += half;
            times.push(tick(&mut followed, epoch, deltas)?);
        }
        let total: Duration = times.iter().sum();
        times.sort();
        let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
        let count = u32::try_from(times.len() * rows).context("too many rows")?;
        let per_second = f64::from(count) / total.as_secs_f64();
        let ratio = recompute.as_secs_f64() / p50.as_secs_f64();
        println!("{rows:>9} {p50:>12?} {p99:>12?} {per_second:>14.0} {ratio:>22.1}");
        results.push(serde_json::json!({
            "workload": "join_aggregate", "rows_per_tick": rows, "p50_us": p50.as_secs_f64() * 1e6, "p99_us": p99.as_secs_f64() * 1e6,
            "rows_per_second": per_second, "recompute_over_tick": ratio, "ticks": times.len(),
        }));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/results.json");
    std::fs::write(path, serde_json::to_string_pretty(&results)? + "\n")?;
    println!("written to {path}");
    Ok(())
}
