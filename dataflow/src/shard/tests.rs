use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::PhysicalExpr;
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{Expr, Node, Operator as Planned, Plan, QueryPlan, column_name};
use flowstone_types::{ClusterId, DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId};

use crate::batch::Changes;
use crate::operator::{Operator, Tick};
use crate::step::Kind;
use crate::{Error, ExprCompiler, POINT_ROWS_MAX, QueryEvaluator, Shard, ShardConfig, TickOutput};

const TABLE: ObjectId = ObjectId::User(1);
const VIEW: ObjectId = ObjectId::User(2);

/// Compiles nothing and evaluates nothing.
#[derive(Debug)]
struct Nothing;

impl ExprCompiler for Nothing {
    fn compile(&self, expr: &Expr, _: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>, Error> {
        Err(Error::Plan(expr.text.clone()))
    }

    fn eval_error(&self, error: &DataFusionError) -> EvalError {
        EvalError::new(EvalErrorKind::Internal, error.to_string())
    }
}

impl QueryEvaluator for Nothing {
    fn evaluate(
        &self,
        _: &QueryPlan,
        _: &[(SchemaRef, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>, EvalError> {
        Ok(Vec::new())
    }
}

/// Puts out a row at the first tick that is not before one of these epochs, for each of them.
#[derive(Debug)]
struct Alarms(Vec<u64>);

impl Operator for Alarms {
    fn run(&mut self, tick: Tick<'_>, _: Vec<Changes>) -> Result<Changes, Error> {
        let mut output = Changes::default();
        while let Some(at) = self.0.first().copied()
            && at <= tick.epoch.0
        {
            self.0.remove(0);
            let column: ArrayRef = Arc::new(Int64Array::from(vec![i64::try_from(at).unwrap()]));
            let rows = RecordBatch::try_new(schema(), vec![column]).unwrap();
            output.push(DeltaBatch::insert(rows, tick.epoch));
        }
        Ok(output)
    }

    fn hydrates_alone(&self) -> bool {
        true
    }

    fn next_due(&self) -> Option<Epoch> {
        self.0.first().copied().map(Epoch)
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(
        column_name(0),
        DataType::Int64,
        true,
    )]))
}

fn run(shard: &mut Shard) -> TickOutput {
    while shard
        .run_stage(&mut |_, _| unreachable!("one shard"))
        .unwrap()
        || shard.pending()
    {}
    shard.end_tick().unwrap()
}

/// A view of a table that has these alarms in the place of the table's changes, hydrated at epoch 1.
fn shard(alarms: &[u64]) -> Shard {
    let mut shard = Shard::new(ShardConfig {
        index: 0,
        count: 1,
        compiler: Arc::new(Nothing),
        evaluator: Arc::new(Nothing),
        point_rows_max: POINT_ROWS_MAX,
        row_bytes_max: usize::MAX,
    });
    for id in [TABLE, VIEW] {
        shard.create_collection(id, schema(), None).unwrap();
    }
    let get = Node {
        operator: Planned::Get { collection: TABLE },
        schema: schema(),
    };
    shard
        .create_dataflow(&DataflowDescription {
            cluster: ClusterId::DEFAULT,
            id: VIEW,
            plan: Plan { nodes: vec![get] },
            export: Export::Collection,
        })
        .unwrap();
    for step in shard.steps.values_mut() {
        if step.kind.operator().is_some() {
            step.kind = Kind::of(Alarms(alarms.to_vec()));
        }
    }
    assert_eq!(shard.next_due(), None);
    shard.begin_hydration(&[VIEW], Epoch(1)).unwrap();
    run(&mut shard);
    shard
}

#[test]
fn what_is_due_changes_without_input() {
    let mut shard = shard(&[5, 7, 8]);
    for (epoch, rows, due) in [
        (4, 0, Some(5)),
        (5, 1, Some(7)),
        (9, 2, None),
        (10, 0, None),
    ] {
        shard.begin_tick(Epoch(epoch), Vec::new()).unwrap();
        let output = run(&mut shard);
        let changed = output.outputs.iter().flat_map(|output| &output.deltas);
        assert_eq!(changed.map(DeltaBatch::len).sum::<usize>(), rows, "{epoch}");
        assert_eq!(shard.next_due(), due.map(Epoch), "{epoch}");
    }
    assert_eq!(shard.rows(VIEW), 3);
}

#[test]
fn what_was_dropped_is_not_due() {
    let mut shard = shard(&[5]);
    assert_eq!(shard.next_due(), Some(Epoch(5)));
    shard.drop_object(VIEW);
    assert_eq!(shard.next_due(), None);
}
