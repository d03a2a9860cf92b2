use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::PhysicalExpr;
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{Expr, Node, NodeId, Operator, Plan, QueryPlan, column_name};
use flowstone_types::{ClusterId, Epoch, EvalError, EvalErrorKind, ObjectId};

use crate::{Error, ExprCompiler, POINT_ROWS_MAX, QueryEvaluator, Shard, ShardConfig};

const TABLE: ObjectId = ObjectId::User(1);
const VIEW: ObjectId = ObjectId::User(2);

/// Compiles nothing and evaluates nothing.
#[derive(Debug)]
struct Panics;

impl ExprCompiler for Panics {
    fn compile(&self, expr: &Expr, _: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>, Error> {
        assert_ne!(expr.text, "panic");
        Err(Error::Plan(expr.text.clone()))
    }

    fn eval_error(&self, error: &DataFusionError) -> EvalError {
        EvalError::new(EvalErrorKind::Internal, error.to_string())
    }
}

impl QueryEvaluator for Panics {
    fn evaluate(
        &self,
        _: &QueryPlan,
        _: &[(SchemaRef, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>, EvalError> {
        panic!("a query of a test");
    }
}

fn schema(width: usize) -> SchemaRef {
    let field = |column| Field::new(column_name(column), DataType::Int64, true);
    Arc::new(Schema::new((0..width).map(field).collect::<Vec<_>>()))
}

/// A table of two columns and two rows, and the collection of a view.
fn shard() -> Shard {
    let mut shard = Shard::new(ShardConfig {
        index: 0,
        count: 1,
        compiler: Arc::new(Panics),
        evaluator: Arc::new(Panics),
        point_rows_max: POINT_ROWS_MAX,
        row_bytes_max: usize::MAX,
    });
    for id in [TABLE, VIEW] {
        shard.create_collection(id, schema(2), None).unwrap();
    }
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let rows = RecordBatch::try_new(schema(2), vec![Arc::clone(&column), column]).unwrap();
    shard.load_collection(TABLE, &rows, Epoch(1)).unwrap();
    shard
}

/// A view that arranges the table by its second column and keeps rows of its own before it comes to `last`.
fn view(last: Operator) -> DataflowDescription {
    let operators = [
        (Operator::Get { collection: TABLE }, 2),
        (
            Operator::Join {
                left: NodeId(0),
                right: NodeId(0),
                left_keys: vec![0],
                right_keys: vec![1],
                null_equals_null: false,
            },
            4,
        ),
        (Operator::Distinct { input: NodeId(1) }, 4),
        (last, 2),
    ];
    let nodes = operators.map(|(operator, width)| Node {
        operator,
        schema: schema(width),
    });
    DataflowDescription {
        cluster: ClusterId::DEFAULT,
        id: VIEW,
        plan: Plan {
            nodes: nodes.to_vec(),
        },
        export: Export::Collection,
    }
}

/// How many relations, indexes of them and steps there are.
fn kept(shard: &Shard) -> [usize; 3] {
    let relations = &shard.relations.0;
    let indexes = relations.values().map(|relation| {
        let numbers = relation.index_numbers();
        numbers
            .filter(|number| relation.index_columns(*number).is_ok())
            .count()
    });
    [relations.len(), indexes.sum(), shard.steps.len()]
}

#[test]
fn what_cannot_be_rendered_leaves_nothing_behind() {
    for text in ["refuse", "panic"] {
        let mut shard = shard();
        let before = kept(&shard);
        let projection = Expr {
            bytes: Vec::new(),
            text: text.to_owned(),
        };
        let broken = view(Operator::FilterProject {
            input: NodeId(2),
            predicates: Vec::new(),
            projections: vec![projection; 2],
        });
        shard.create_dataflow(&broken).unwrap_err();
        assert_eq!(kept(&shard), before, "{text}");
        shard.drop_object(VIEW);
        assert_eq!(kept(&shard), [1, 1, 0], "{text}");
    }
}

#[test]
fn what_is_ended_leaves_an_empty_relation() {
    let mut shard = shard();
    let before = kept(&shard);
    let query = QueryPlan {
        bytes: Vec::new(),
        text: String::new(),
    };
    let broken = view(Operator::Recompute {
        inputs: vec![NodeId(2)],
        query,
        reason: "a test".to_owned(),
    });
    shard.create_dataflow(&broken).unwrap();
    assert!(kept(&shard) > before);
    shard.begin_hydration(&[VIEW], Epoch(1)).unwrap();
    shard
        .run_stage(&mut |_, _| unreachable!("one shard"))
        .unwrap();
    assert!(!shard.pending());
    let failed = shard.end_tick().unwrap().failed;
    let error = EvalError::new(EvalErrorKind::Internal, "panic: a query of a test");
    assert_eq!(failed, [(VIEW, error.clone())]);

    assert_eq!(shard.fail_dataflow(VIEW, &error, Epoch(1)), Ok(Vec::new()));
    assert_eq!(kept(&shard), before);
    shard.drop_object(VIEW);
    assert_eq!(kept(&shard), [1, 1, 0]);
    assert!(shard.with_history.is_empty());
    assert!(shard.may_compact.is_empty());
}

#[test]
fn what_is_ended_or_dropped_while_it_is_away_leaves_nothing_behind() {
    for ended in [true, false] {
        let mut shard = shard();
        let before = kept(&shard);
        let query = QueryPlan {
            bytes: Vec::new(),
            text: String::new(),
        };
        let description = view(Operator::Recompute {
            inputs: vec![NodeId(2)],
            query,
            reason: "a test".to_owned(),
        });
        shard.create_dataflow(&description).unwrap();
        let made = kept(&shard);
        let mut forked = shard.fork(VIEW).unwrap();
        // All relations have an image of them here, and no step is left.
        assert_eq!(kept(&shard), [made[0], made[1], 0]);
        assert_eq!(kept(&forked)[2], made[2]);
        assert!(shard.build(1));
        let unknown = Err(Error::UnknownCollection(VIEW));
        if ended {
            let error = EvalError::new(EvalErrorKind::Internal, "a test");
            assert_eq!(shard.fail_dataflow(VIEW, &error, Epoch(1)), Ok(Vec::new()));
            assert_eq!(kept(&shard), before);
            assert_eq!(shard.error_at(VIEW, Epoch(1)), Ok(Some(error)));
            assert_eq!(shard.join(VIEW, &mut forked), unknown);
        }
        shard.drop_object(VIEW);
        assert_eq!(kept(&shard), [1, 1, 0]);
        assert!(!shard.build(1));
        assert_eq!(shard.join(VIEW, &mut forked), unknown);
    }
}
