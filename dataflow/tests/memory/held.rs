//! What a shard says it holds is what the allocator gets back when it goes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::PhysicalExpr;
use flowstone_dataflow::{
    CollectionInput, Error, ExprCompiler, POINT_ROWS_MAX, QueryEvaluator, Shard, ShardConfig,
};
use flowstone_proto::ipc::encode_batches;
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{
    Aggregate, AggregateFunction as F, Expr, Node, NodeId, Operator, OrderColumn, Plan, QueryPlan,
    column_name,
};
use flowstone_types::{ClusterId, DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId};

static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is handed to the system's allocator as it is; counting does not touch memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Gives back its first input.
#[derive(Debug)]
struct First;

impl ExprCompiler for First {
    fn compile(&self, expr: &Expr, _: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>, Error> {
        Err(Error::Plan(format!("no expressions here: {expr:?}")))
    }

    fn eval_error(&self, error: &DataFusionError) -> EvalError {
        EvalError::new(EvalErrorKind::Internal, error.to_string())
    }
}

impl QueryEvaluator for First {
    fn evaluate(
        &self,
        _: &QueryPlan,
        inputs: &[(SchemaRef, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>, EvalError> {
        Ok(inputs[0].1.clone())
    }
}

const TABLE: ObjectId = ObjectId::User(1);
const VIEW: ObjectId = ObjectId::User(2);
const INT: DataType = DataType::Int64;

fn schema(types: &[DataType]) -> SchemaRef {
    Arc::new(Schema::new(
        types
            .iter()
            .enumerate()
            .map(|(index, data_type)| Field::new(column_name(index), data_type.clone(), true))
            .collect::<Vec<_>>(),
    ))
}

/// A group of ten rows, a number of its own, a float and a text.
fn table_types() -> Vec<DataType> {
    vec![INT, INT, DataType::Float64, DataType::Utf8]
}

fn rows(from: i64, count: i64) -> RecordBatch {
    let numbers = || from..from + count;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(
            numbers().map(|number| number / 10),
        )),
        Arc::new(Int64Array::from_iter_values(numbers())),
        Arc::new(Float64Array::from_iter_values(
            numbers().map(|number| f64::from(i32::try_from(number).unwrap()) + 0.1),
        )),
        Arc::new(StringArray::from_iter_values(
            numbers().map(|number| format!("a text of row {number}")),
        )),
    ];
    RecordBatch::try_new(schema(&table_types()), columns).unwrap()
}

fn tick(shard: &mut Shard, epoch: u64, rows: RecordBatch) {
    let delta = DeltaBatch::insert(rows, Epoch(epoch));
    let input = vec![(TABLE, CollectionInput::Deltas(vec![delta]))];
    shard.begin_tick(Epoch(epoch), input).unwrap();
    while shard
        .run_stage(&mut |_, _| unreachable!("one shard"))
        .unwrap()
    {}
    shard.end_tick().unwrap();
}

/// A shard with a table of many rows, some of which came at once and some in small batches, and maybe a view of `node` over it.
fn shard(node: Option<&Node>) -> Shard {
    let mut shard = Shard::new(ShardConfig {
        index: 0,
        count: 1,
        compiler: Arc::new(First),
        evaluator: Arc::new(First),
        point_rows_max: POINT_ROWS_MAX,
        row_bytes_max: usize::MAX,
    });
    shard
        .create_collection(TABLE, schema(&table_types()), None)
        .unwrap();
    if let Some(node) = node {
        shard
            .create_collection(VIEW, Arc::clone(&node.schema), None)
            .unwrap();
        let get = Node {
            operator: Operator::Get { collection: TABLE },
            schema: schema(&table_types()),
        };
        shard
            .create_dataflow(&DataflowDescription {
                cluster: ClusterId::DEFAULT,
                id: VIEW,
                plan: Plan {
                    nodes: vec![get, node.clone()],
                },
                export: Export::Collection,
            })
            .unwrap();
        shard.begin_hydration(&[VIEW], Epoch(1)).unwrap();
        while shard
            .run_stage(&mut |_, _| unreachable!("one shard"))
            .unwrap()
        {}
        shard.end_tick().unwrap();
    }
    tick(&mut shard, 2, rows(0, 150_000));
    for (epoch, from) in (3..).zip((150_000..160_000).step_by(200)) {
        tick(&mut shard, epoch, rows(from, 200));
    }
    shard.allow_compaction(Epoch(1_000));
    while shard.maintain(100_000) {}
    shard
}

fn call(function: F, argument: usize, distinct: bool) -> Aggregate {
    Aggregate {
        function,
        argument: Some(argument),
        filter: None,
        distinct,
    }
}

fn aggregate(aggregate: Aggregate, output: DataType) -> Node {
    aggregate_by(0, aggregate, output)
}

fn aggregate_by(column: usize, aggregate: Aggregate, output: DataType) -> Node {
    Node {
        operator: Operator::Aggregate {
            input: NodeId(0),
            group: vec![column],
            aggregates: vec![aggregate],
        },
        schema: schema(&[INT, output]),
    }
}

/// Each operator that keeps something, and one that keeps nothing.
fn operators() -> Vec<(&'static str, Option<Node>)> {
    let text = DataType::Utf8;
    let over_table = |operator| Node {
        operator,
        schema: schema(&table_types()),
    };
    let wide: Vec<DataType> = [table_types(), table_types()].concat();
    vec![
        ("table", None),
        ("count", Some(aggregate(call(F::Count, 1, false), INT))),
        (
            "avg of floats",
            Some(aggregate(call(F::Avg, 2, false), DataType::Float64)),
        ),
        ("min", Some(aggregate(call(F::Min, 3, false), text.clone()))),
        (
            "min of one value",
            Some(aggregate_by(1, call(F::Min, 3, false), text)),
        ),
        (
            "count of one distinct value",
            Some(aggregate_by(1, call(F::Count, 3, true), INT)),
        ),
        (
            "count distinct",
            Some(aggregate(call(F::Count, 3, true), INT)),
        ),
        (
            "distinct",
            Some(over_table(Operator::Distinct { input: NodeId(0) })),
        ),
        (
            "union",
            Some(over_table(Operator::Union {
                inputs: vec![NodeId(0), NodeId(0)],
            })),
        ),
        (
            "top k",
            Some(over_table(Operator::TopK {
                input: NodeId(0),
                group: vec![0],
                order: vec![OrderColumn {
                    column: 2,
                    descending: true,
                    nulls_first: true,
                }],
                limit: Some(2),
                offset: 0,
            })),
        ),
        (
            "join",
            Some(Node {
                operator: Operator::Join {
                    left: NodeId(0),
                    right: NodeId(0),
                    left_keys: vec![1],
                    right_keys: vec![1],
                    null_equals_null: false,
                },
                schema: schema(&wide),
            }),
        ),
        (
            "recompute",
            Some(over_table(Operator::Recompute {
                inputs: vec![NodeId(0)],
                query: QueryPlan {
                    bytes: Vec::new(),
                    text: "first".to_owned(),
                },
                reason: "a test".to_owned(),
            })),
        ),
        (
            "constant",
            Some(over_table(Operator::Constant {
                rows: encode_batches(&schema(&table_types()), &[rows(0, 50_000)]).unwrap(),
            })),
        ),
    ]
}

fn check(name: &str, shard: Shard) {
    let statistics = shard.statistics();
    let reported: u64 = statistics.values().map(|held| held.bytes).sum();
    for held in statistics.values() {
        assert_eq!(held.held.values().sum::<u64>(), held.bytes, "{name}");
    }
    let before = LIVE.load(Ordering::Relaxed);
    drop(shard);
    let freed = u64::try_from(before - LIVE.load(Ordering::Relaxed)).unwrap();
    let by_holder: Vec<_> = statistics.values().map(|held| &held.held).collect();
    println!("{name}: reported {reported}, freed {freed}: {by_holder:?}");
    // A quarter more or less: nodes of trees and tables are an estimate.
    assert!(
        reported * 4 <= freed * 5 && reported * 5 >= freed * 4,
        "{name}: {reported} bytes are reported and {freed} were held: {by_holder:?}"
    );
}

/// One test: what others allocate meanwhile would be counted.
#[test]
fn what_is_reported_is_what_the_allocator_gets_back() {
    for (name, node) in operators() {
        check(name, shard(node.as_ref()));
        if node.is_some() {
            // Of a view that has failed nothing is left to report, nor anything else.
            let mut shard = shard(node.as_ref());
            let error = EvalError::new(EvalErrorKind::Internal, name);
            shard.fail_dataflow(VIEW, &error, Epoch(2_000)).unwrap();
            assert!(shard.statistics()[&VIEW].bytes < 1_000, "{name}");
            check(&format!("{name}, failed"), shard);
        }
    }
}
