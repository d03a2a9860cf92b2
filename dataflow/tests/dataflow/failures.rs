//! Dataflows that break: each alone, whatever breaks them, on however many shards.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use flowstone_dataflow::{
    Error, ExprCompiler, POINT_ROWS_MAX, QueryEvaluator, Shard, expand, owner_of, partition_delta,
};
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{
    AggregateFunction as F, Expr, Node, NodeId, Operator, Plan, QueryPlan,
};
use flowstone_types::{
    Budget, ClusterId, DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId, Weights,
};

use crate::cluster::{Cluster, Input};
use crate::known::{aggregate, get, int, ints, node, rows, view};
use crate::oracle::Contents;
use crate::values::{Row, batch};

const TABLE: ObjectId = ObjectId::User(1);
const OTHER: ObjectId = ObjectId::User(2);
/// Breaks.
const VIEW: ObjectId = ObjectId::User(3);
/// Does not.
const FINE: ObjectId = ObjectId::User(4);
/// Reads the view that breaks; so does the index, and the subscription reads this one.
const ABOVE: ObjectId = ObjectId::User(5);
const INDEX: ObjectId = ObjectId::User(6);
const SUBSCRIPTION: ObjectId = ObjectId::Transient(1);
const INT: DataType = DataType::Int64;

/// Expressions and queries that do what their text says, `on` one shard or on `every` one.
#[derive(Debug)]
struct Faulty {
    shard: usize,
}

impl ExprCompiler for Faulty {
    fn compile(&self, expr: &Expr, input: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>, Error> {
        let (verb, object) = expr.text.split_once(' ').unwrap();
        let here = object == "every" || object == format!("on {}", self.shard);
        let compiled: Arc<dyn PhysicalExpr> = match verb {
            "refuse" if here => return Err(Error::Plan("refused".to_owned())),
            "panic" if here => panic!("a compiler of a test"),
            "evaluate" => Arc::new(Evaluate(object.to_owned())),
            "int" => {
                let value = object.parse::<i64>().unwrap();
                Arc::new(Literal::new(ScalarValue::Int64(Some(value))))
            }
            _ => Arc::new(Column::new(input.field(0).name(), 0)),
        };
        Ok(compiled)
    }

    fn eval_error(&self, error: &DataFusionError) -> EvalError {
        EvalError::new(EvalErrorKind::OutOfMemory, error.to_string())
    }
}

impl QueryEvaluator for Faulty {
    fn evaluate(
        &self,
        query: &QueryPlan,
        inputs: &[(SchemaRef, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>, EvalError> {
        let count: usize = inputs[0].1.iter().map(RecordBatch::num_rows).sum();
        match query.text.as_str() {
            "panic over two rows" if count > 2 => panic!("a query of a test"),
            "refuse" => Err(EvalError::new(EvalErrorKind::Internal, "refused")),
            "widen" => Ok(vec![batch(&[INT, INT], &[ints(&[1, 2])])]),
            _ => Ok(inputs[0].1.clone()),
        }
    }
}

/// An expression without a value: it panics, or does not have the memory.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Evaluate(String);

impl fmt::Display for Evaluate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PhysicalExpr for Evaluate {
    fn evaluate(&self, _: &RecordBatch) -> Result<ColumnarValue, DataFusionError> {
        assert_ne!(self.0, "panic");
        Err(DataFusionError::Execution(self.0.clone()))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A cluster with two tables of `types`.
fn cluster(shards: usize, types: &[DataType]) -> Cluster {
    let mut cluster = Cluster::with_parts(shards, POINT_ROWS_MAX, |shard| {
        let (compiler, evaluator) = (Arc::new(Faulty { shard }), Arc::new(Faulty { shard }));
        (compiler, evaluator)
    });
    cluster.table(TABLE, types, None);
    cluster.table(OTHER, types, None);
    cluster
}

fn recompute(text: &str) -> Node {
    let query = QueryPlan {
        bytes: Vec::new(),
        text: text.to_owned(),
    };
    let operator = Operator::Recompute {
        inputs: vec![NodeId(0)],
        query,
        reason: "a test".to_owned(),
    };
    node(operator, &[INT])
}

fn distinct(input: usize, types: &[DataType]) -> Node {
    let input = NodeId(input);
    node(Operator::Distinct { input }, types)
}

/// Projects node `input` to one column.
fn project(input: usize, text: &str) -> Node {
    let projection = Expr {
        bytes: Vec::new(),
        text: text.to_owned(),
    };
    let operator = Operator::FilterProject {
        input: NodeId(input),
        predicates: Vec::new(),
        projections: vec![projection],
    };
    node(operator, &[INT])
}

/// Nodes 0 and 1, joined by their first columns.
fn join(types: &[DataType]) -> Node {
    let operator = Operator::Join {
        left: NodeId(0),
        right: NodeId(1),
        left_keys: vec![0],
        right_keys: vec![0],
        null_equals_null: false,
    };
    node(operator, &[types, types].concat())
}

/// How many rows node `input` has for each value of its column.
fn count(input: usize, column: usize) -> Node {
    let operator = Operator::Aggregate {
        input: NodeId(input),
        group: vec![column],
        aggregates: vec![aggregate(F::Count, None)],
    };
    node(operator, &[INT, INT])
}

fn description(id: ObjectId, nodes: Vec<Node>, export: Export) -> DataflowDescription {
    let plan = Plan { nodes };
    DataflowDescription {
        id,
        cluster: ClusterId::DEFAULT,
        plan,
        export,
    }
}

/// What reads the view of one column that breaks, directly or not.
fn dependents(cluster: &mut Cluster, epoch: u64) {
    view(cluster, ABOVE, vec![get(VIEW, &[INT]), distinct(0, &[INT])]);
    let key = Export::Index { key: vec![0] };
    let index = description(INDEX, vec![get(VIEW, &[INT])], key);
    let nodes = vec![get(ABOVE, &[INT])];
    cluster.each(|shard| shard.create_dataflow(&index));
    cluster.each(|shard| {
        shard.create_subscription(
            SUBSCRIPTION,
            &Plan {
                nodes: nodes.clone(),
            },
        )
    });
    cluster.hydrate(&[INDEX, SUBSCRIPTION], epoch).unwrap();
}

fn ones(values: &[i64]) -> Vec<(Row, i64)> {
    values.iter().map(|value| (ints(&[*value]), 1)).collect()
}

fn insert(values: &[i64]) -> Vec<(ObjectId, Input)> {
    vec![(TABLE, Input::Rows(ones(values)))]
}

/// What a collection reads as whose dataflow was ended with `error`.
fn only(error: &EvalError) -> Contents {
    Contents {
        rows: BTreeMap::new(),
        errors: BTreeMap::from([(error.clone(), 1)]),
    }
}

fn panicked(message: &str) -> EvalError {
    EvalError::new(EvalErrorKind::Internal, format!("panic: {message}"))
}

fn overflow() -> EvalError {
    EvalError::new(EvalErrorKind::Data, "multiplicity out of range")
}

/// That exactly these were ended, with this error, and nothing else is left of them at `epoch`.
fn check_ended(cluster: &Cluster, ids: &[ObjectId], error: &EvalError, epoch: u64) {
    let expected: BTreeMap<_, _> = ids.iter().map(|id| (*id, error.clone())).collect();
    assert_eq!(cluster.failed, expected);
    for id in ids {
        for shard in &cluster.shards {
            assert_eq!(shard.dataflow_state(*id), None, "{id}");
        }
        if !matches!(id, ObjectId::Transient(_)) {
            assert_eq!(cluster.snapshot(*id, epoch).unwrap(), only(error), "{id}");
            for shard in &cluster.shards {
                assert_eq!(shard.statistics()[id].rows, 0, "{id}");
            }
        }
    }
}

#[test]
fn a_panic_ends_its_dataflow_with_what_reads_it_and_nothing_else() {
    for shards in [1, 3] {
        let mut cluster = cluster(shards, &[INT]);
        let panics = vec![get(TABLE, &[INT]), recompute("panic over two rows")];
        view(&mut cluster, VIEW, panics.clone());
        dependents(&mut cluster, 1);
        view(
            &mut cluster,
            FINE,
            vec![get(TABLE, &[INT]), distinct(0, &[INT])],
        );
        cluster.tick(2, insert(&[1, 2])).unwrap();
        for id in [VIEW, ABOVE, INDEX, SUBSCRIPTION, FINE] {
            assert_eq!(cluster.folded(id), rows(&ones(&[1, 2])), "{id}");
        }

        cluster.tick(3, insert(&[3])).unwrap();
        let error = panicked("a query of a test");
        check_ended(&cluster, &[VIEW, ABOVE, INDEX, SUBSCRIPTION], &error, 3);
        assert_eq!(cluster.folded(FINE), rows(&ones(&[1, 2, 3])));
        for id in [TABLE, FINE] {
            assert_eq!(cluster.snapshot(id, 3).unwrap(), rows(&ones(&[1, 2, 3])));
            assert_eq!(cluster.snapshot(id, 2).unwrap(), rows(&ones(&[1, 2])));
        }

        // What was right before is not there any more: nobody is told that there was nothing.
        let gone: Result<Contents, Error> = Err(Error::SinceAdvanced {
            epoch: Epoch(2),
            since: Epoch(3),
        });
        let key = batch(&[INT], &[ints(&[1])]);
        for id in [VIEW, ABOVE, INDEX] {
            assert_eq!(cluster.snapshot(id, 2), gone, "{id}");
            for shard in &cluster.shards {
                let looked_up = shard.lookup_at(id, key.columns(), Epoch(2), usize::MAX);
                assert_eq!(looked_up.map(|_| Contents::default()), gone, "{id}");
                let (found, _) = shard
                    .lookup_at(id, key.columns(), Epoch(3), usize::MAX)
                    .unwrap()
                    .unwrap();
                assert_eq!(found.num_rows(), 0);
            }
            assert_eq!(
                cluster.shards[0].error_at(id, Epoch(3)).unwrap(),
                Some(error.clone())
            );
        }

        cluster
            .tick(4, vec![(TABLE, Input::Rows(vec![(ints(&[1]), -1)]))])
            .unwrap();
        assert_eq!(cluster.folded(FINE), rows(&ones(&[2, 3])));
        check_ended(&cluster, &[VIEW, ABOVE, INDEX, SUBSCRIPTION], &error, 4);

        // Made anew over two rows, it works until there are three again.
        for id in [SUBSCRIPTION, INDEX, ABOVE, VIEW] {
            cluster.drop_object(id);
        }
        view(&mut cluster, VIEW, panics);
        dependents(&mut cluster, 4);
        for id in [VIEW, ABOVE, INDEX, SUBSCRIPTION] {
            assert_eq!(cluster.folded(id), rows(&ones(&[2, 3])), "{id}");
        }
        assert_eq!(cluster.failed, BTreeMap::new());
        cluster.tick(5, insert(&[4])).unwrap();
        check_ended(&cluster, &[VIEW, ABOVE, INDEX, SUBSCRIPTION], &error, 5);
        assert_eq!(cluster.folded(FINE), rows(&ones(&[2, 3, 4])));
    }
}

#[test]
fn a_query_that_fails_in_order_is_an_error_of_its_view_that_may_heal() {
    for (text, message) in [
        ("refuse", "refused"),
        (
            "widen",
            "internal error in the dataflow: 2 columns for a schema of 1",
        ),
    ] {
        let mut cluster = cluster(3, &[INT]);
        view(
            &mut cluster,
            VIEW,
            vec![get(TABLE, &[INT]), recompute(text)],
        );
        view(
            &mut cluster,
            ABOVE,
            vec![get(VIEW, &[INT]), distinct(0, &[INT])],
        );
        view(
            &mut cluster,
            FINE,
            vec![get(TABLE, &[INT]), distinct(0, &[INT])],
        );
        cluster.tick(2, insert(&[1])).unwrap();
        let error = EvalError::new(EvalErrorKind::Internal, message);
        for id in [VIEW, ABOVE] {
            assert_eq!(cluster.folded(id), only(&error), "{text}");
        }
        assert_eq!(cluster.folded(FINE), rows(&ones(&[1])));
        assert_eq!(cluster.failed, BTreeMap::new());
    }
}

#[test]
fn an_expression_that_panics_or_makes_too_much_is_an_error_of_its_row() {
    for (expression, kind) in [
        ("evaluate panic", EvalErrorKind::Internal),
        ("evaluate spent", EvalErrorKind::TooLarge),
    ] {
        for shards in [1, 3] {
            let mut cluster = cluster(shards, &[INT]);
            let faulty = vec![get(TABLE, &[INT]), project(0, expression)];
            view(&mut cluster, VIEW, faulty);
            cluster.tick(2, insert(&[1, 2])).unwrap();
            let errors = cluster.folded(VIEW).errors;
            assert_eq!(errors.values().sum::<i64>(), 2);
            assert!(errors.keys().all(|error| error.kind == kind), "{errors:?}");
            let delete = ones(&[1, 2]).into_iter().map(|(row, _)| (row, -1));
            cluster
                .tick(3, vec![(TABLE, Input::Rows(delete.collect()))])
                .unwrap();
            assert_eq!(cluster.folded(VIEW), Contents::default());
            assert_eq!(cluster.failed, BTreeMap::new());
        }
    }
}

/// Tables whose rows of the key 7 are too many for each other, and a view of them with an exchange behind the join that breaks.
fn too_many(shards: usize) -> (Cluster, Vec<(Row, i64)>) {
    let types = [INT, INT];
    let mut cluster = cluster(shards, &types);
    let counted = vec![
        get(TABLE, &types),
        get(OTHER, &types),
        join(&types),
        count(2, 1),
    ];
    view(&mut cluster, VIEW, counted);
    view(&mut cluster, FINE, vec![get(TABLE, &types), count(0, 0)]);
    let weight = |key: i64| if key == 7 { 1_i64 << 40 } else { 1 };
    let changes = (1..=30).map(|key| (ints(&[key, key]), weight(key)));
    (cluster, changes.collect())
}

#[test]
fn a_step_that_fails_on_one_shard_ends_its_dataflow_on_all() {
    for shards in [1, 3] {
        let (mut cluster, changes) = too_many(shards);
        cluster
            .tick(2, vec![(TABLE, Input::Rows(changes.clone()))])
            .unwrap();
        cluster
            .tick(3, vec![(OTHER, Input::Rows(changes.clone()))])
            .unwrap();
        check_ended(&cluster, &[VIEW], &overflow(), 3);
        let counts = |changes: &[(Row, i64)]| {
            let counted = changes.iter().map(|(row, weight)| {
                let row = vec![row[0].clone(), int(*weight)];
                (row, 1)
            });
            rows(&counted.collect::<Vec<_>>())
        };
        assert_eq!(cluster.folded(FINE), counts(&changes));
        cluster
            .tick(4, vec![(TABLE, Input::Rows(vec![(ints(&[31, 31]), 2)]))])
            .unwrap();
        let after = [changes, vec![(ints(&[31, 31]), 2)]].concat();
        assert_eq!(cluster.folded(FINE), counts(&after));
        check_ended(&cluster, &[VIEW], &overflow(), 4);
    }
}

#[test]
fn until_it_is_ended_a_failed_dataflow_takes_part_in_nothing() {
    let (mut cluster, changes) = too_many(3);
    cluster.ends_failed = false;
    cluster
        .tick(2, vec![(TABLE, Input::Rows(changes.clone()))])
        .unwrap();
    cluster
        .tick(3, vec![(OTHER, Input::Rows(changes))])
        .unwrap();
    assert_eq!(cluster.failed, BTreeMap::from([(VIEW, overflow())]));
    // The shards on which it did not fail go on to send it rows. It fails on none twice: the cluster would say so.
    for epoch in 4..10 {
        let row = ints(&[i64::try_from(epoch).unwrap() * 100, 7]);
        let change = || Input::Rows(vec![(row.clone(), 1)]);
        cluster
            .tick(epoch, vec![(TABLE, change()), (OTHER, change())])
            .unwrap();
    }
    let refused: Result<Contents, Error> = Err(Error::SinceAdvanced {
        epoch: Epoch(9),
        since: Epoch::MAX,
    });
    assert_eq!(cluster.snapshot(VIEW, 9), refused);
    // Nor is it compacted.
    cluster.each(|shard| {
        shard.allow_compaction(Epoch(9));
        while shard.maintain(1000) {}
        Ok(())
    });
    assert_eq!(cluster.fail(VIEW, &overflow(), 9), Ok(Vec::new()));
    check_ended(&cluster, &[VIEW], &overflow(), 9);
}

#[test]
fn a_relation_that_cannot_take_its_changes_ends_its_dataflow() {
    const MOST: i64 = 1 << 62;
    for shards in [1, 3] {
        // Two rows that one shard owns: together they are too many for the relation that they meet in, and for no table.
        let owner = |value: i64| owner_of(batch(&[INT], &[ints(&[value])]).columns(), shards);
        let second = (2..)
            .find(|value| owner(*value).unwrap() == owner(1).unwrap())
            .unwrap();
        let union = Operator::Union {
            inputs: vec![NodeId(0), NodeId(1)],
        };
        let both = vec![
            get(TABLE, &[INT]),
            project(0, &format!("int {second}")),
            node(union, &[INT]),
        ];
        // In the view's own relation, and in an arrangement.
        let arranged = [both.clone(), vec![distinct(2, &[INT])]].concat();
        for nodes in [both, arranged] {
            let mut cluster = cluster(shards, &[INT]);
            view(&mut cluster, VIEW, nodes);
            dependents(&mut cluster, 1);
            view(
                &mut cluster,
                FINE,
                vec![get(TABLE, &[INT]), distinct(0, &[INT])],
            );
            cluster
                .tick(2, vec![(TABLE, Input::Rows(vec![(ints(&[1]), MOST)]))])
                .unwrap();
            check_ended(
                &cluster,
                &[VIEW, ABOVE, INDEX, SUBSCRIPTION],
                &overflow(),
                2,
            );
            assert_eq!(cluster.folded(FINE), rows(&ones(&[1])));
            let change = vec![(ints(&[1]), 1 - MOST), (ints(&[5]), 1)];
            cluster.tick(3, vec![(TABLE, Input::Rows(change))]).unwrap();
            assert_eq!(cluster.folded(FINE), rows(&ones(&[1, 5])));
            assert_eq!(cluster.snapshot(TABLE, 3).unwrap(), rows(&ones(&[1, 5])));
        }
    }
}

#[test]
fn what_a_failed_dataflow_shared_goes_on_for_the_others() {
    for shards in [1, 2, 3] {
        let mut cluster = cluster(shards, &[INT]);
        // The one that breaks was there first.
        for (id, text) in [(VIEW, "panic over two rows"), (FINE, "give back")] {
            view(&mut cluster, id, vec![get(TABLE, &[INT]), recompute(text)]);
        }
        cluster.tick(2, insert(&[1, 2])).unwrap();
        cluster.tick(3, insert(&[3])).unwrap();
        let error = panicked("a query of a test");
        check_ended(&cluster, &[VIEW], &error, 3);
        assert_eq!(cluster.folded(FINE), rows(&ones(&[1, 2, 3])));
        cluster.tick(4, insert(&[4])).unwrap();
        assert_eq!(cluster.folded(FINE), rows(&ones(&[1, 2, 3, 4])));
        // So it does for one that breaks as it hydrates, and for one that comes after it.
        cluster.drop_object(VIEW);
        for (id, text) in [(VIEW, "panic over two rows"), (ABOVE, "give back")] {
            view(&mut cluster, id, vec![get(TABLE, &[INT]), recompute(text)]);
        }
        check_ended(&cluster, &[VIEW], &error, 4);
        cluster.tick(5, insert(&[5])).unwrap();
        for id in [FINE, ABOVE] {
            assert_eq!(cluster.folded(id), rows(&ones(&[1, 2, 3, 4, 5])), "{id}");
        }
    }
}

#[test]
fn what_breaks_where_dataflows_share_it_ends_all_that_use_it_and_nothing_else() {
    const MOST: i64 = 1 << 62;
    let types = [INT, INT];
    for shards in [2, 3] {
        // Two rows of two shards: together they are too many for the arrangement in which they meet, and for no table.
        let owner = |value: i64| {
            let row = batch(&types, &[ints(&[value, 7])]);
            owner_of(row.columns(), shards).unwrap()
        };
        let second = (2..).find(|value| owner(*value) != owner(1)).unwrap();
        let mut cluster = cluster(shards, &types);
        let joined = || {
            let by_second = Operator::Join {
                left: NodeId(0),
                right: NodeId(1),
                left_keys: vec![1],
                right_keys: vec![1],
                null_equals_null: false,
            };
            vec![
                get(TABLE, &types),
                get(OTHER, &types),
                node(by_second, &[INT; 4]),
            ]
        };
        for id in [VIEW, ABOVE] {
            view(&mut cluster, id, joined());
        }
        view(
            &mut cluster,
            FINE,
            vec![get(TABLE, &types), distinct(0, &types)],
        );
        let change = |weight: i64| {
            let rows = [1, second].map(|value| (ints(&[value, 7]), weight));
            vec![(TABLE, Input::Rows(rows.to_vec()))]
        };
        cluster.tick(2, change(MOST)).unwrap();
        check_ended(&cluster, &[VIEW, ABOVE], &overflow(), 2);
        let both = [1, second].map(|value| (ints(&[value, 7]), 1));
        assert_eq!(cluster.folded(FINE), rows(&both));
        cluster.tick(3, change(1 - MOST)).unwrap();
        check_ended(&cluster, &[VIEW, ABOVE], &overflow(), 3);
        assert_eq!(cluster.folded(FINE), rows(&both));

        // Nothing of it is left for one that is made anew.
        cluster.drop_object(VIEW);
        cluster.drop_object(ABOVE);
        view(&mut cluster, VIEW, joined());
        let other = vec![(OTHER, Input::Rows(vec![(ints(&[5, 7]), 1)]))];
        cluster.tick(4, other).unwrap();
        let pairs = [1, second].map(|value| (ints(&[value, 7, 5, 7]), 1));
        assert_eq!(cluster.folded(VIEW), rows(&pairs));
    }
}

#[test]
fn a_table_that_cannot_take_its_changes_is_an_error_of_the_tick() {
    let mut cluster = cluster(1, &[INT]);
    view(
        &mut cluster,
        FINE,
        vec![get(TABLE, &[INT]), distinct(0, &[INT])],
    );
    let most = [1, 2].map(|value| (ints(&[value]), i64::MAX));
    let result = cluster.tick(2, vec![(TABLE, Input::Rows(most.to_vec()))]);
    assert_eq!(result.map_err(EvalError::from), Err(overflow()));
}

#[test]
fn what_cannot_be_rendered_changes_nothing() {
    let types = [INT, INT];
    for (shards, text) in [
        (1, "refuse every"),
        (1, "panic every"),
        (3, "refuse every"),
        (3, "panic every"),
        (3, "refuse on 1"),
        (3, "panic on 2"),
    ] {
        let mut cluster = cluster(shards, &types);
        let table = || -> Vec<(Row, i64)> {
            let rows = (1..=20).map(|key| (ints(&[key, key % 3]), 1));
            rows.collect()
        };
        cluster
            .tick(2, vec![(TABLE, Input::Rows(table()))])
            .unwrap();
        let held = |cluster: &Cluster| {
            let bytes = |shard: &Shard| shard.statistics()[&TABLE].bytes;
            cluster.shards.iter().map(bytes).collect::<Vec<_>>()
        };
        let before = held(&cluster);

        // It has an arrangement of the table and one of its own, and exchanges, before it comes to what cannot be compiled.
        let nodes = |text: &str| {
            vec![
                get(TABLE, &types),
                get(OTHER, &types),
                join(&types),
                distinct(2, &[INT; 4]),
                project(3, text),
            ]
        };
        cluster.table(VIEW, &[INT], None);
        let broken = description(VIEW, nodes(text), Export::Collection);
        let made = cluster
            .shards
            .iter_mut()
            .map(|shard| shard.create_dataflow(&broken));
        let made = made.collect::<Vec<_>>();
        let error = made.iter().find_map(|made| made.clone().err()).unwrap();
        let error = EvalError::from(error);
        assert_eq!(error.kind, EvalErrorKind::Internal);
        for (shard, made) in made.iter().enumerate() {
            let fails = text.ends_with("every") || text.ends_with(&format!("on {shard}"));
            assert_eq!(made.is_err(), fails, "{text}");
            if fails {
                assert_eq!(held(&cluster)[shard], before[shard]);
                assert_eq!(cluster.shards[shard].dataflow_state(VIEW), None);
            }
        }
        assert_eq!(cluster.fail(VIEW, &error, 2), Ok(Vec::new()));
        assert_eq!(held(&cluster), before);

        // Its steps have the same names on every shard, or rows would not find them.
        let counted = vec![get(TABLE, &types), count(0, 1)];
        view(&mut cluster, FINE, counted);
        cluster
            .tick(3, vec![(OTHER, Input::Rows(table()))])
            .unwrap();
        check_ended(&cluster, &[VIEW], &error, 3);
        let counts = [[0, 6], [1, 7], [2, 7]].map(|row| (ints(&row), 1));
        assert_eq!(cluster.folded(FINE), rows(&counts));

        cluster.drop_object(VIEW);
        view(&mut cluster, VIEW, nodes("column 0"));
        let keys = (1..=20).collect::<Vec<_>>();
        assert_eq!(cluster.folded(VIEW), rows(&ones(&keys)));
        cluster
            .tick(4, vec![(TABLE, Input::Rows(vec![(ints(&[1, 1]), -1)]))])
            .unwrap();
        assert_eq!(cluster.folded(VIEW), rows(&ones(&keys[1..])));
    }
}

#[test]
fn a_subscription_that_cannot_be_rendered_changes_nothing() {
    for text in ["refuse on 1", "panic on 1"] {
        let mut cluster = cluster(3, &[INT]);
        let nodes = vec![get(TABLE, &[INT]), project(0, text)];
        let plan = Plan { nodes };
        for (number, shard) in cluster.shards.iter_mut().enumerate() {
            let made = shard.create_subscription(SUBSCRIPTION, &plan);
            assert_eq!(made.is_err(), number == 1);
        }
        cluster.drop_object(SUBSCRIPTION);
        view(&mut cluster, FINE, vec![get(TABLE, &[INT]), count(0, 0)]);
        cluster.tick(2, insert(&[1, 2, 3])).unwrap();
        let counts = [1, 2, 3].map(|key| (ints(&[key, 1]), 1));
        assert_eq!(cluster.folded(FINE), rows(&counts));
    }
}

#[test]
fn a_dataflow_that_fails_while_it_hydrates_is_not_hydrated() {
    for shards in [1, 3] {
        let mut cluster = cluster(shards, &[INT]);
        cluster.tick(2, insert(&[1, 2, 3])).unwrap();
        let plans = [
            (
                VIEW,
                vec![get(TABLE, &[INT]), recompute("panic over two rows")],
            ),
            (ABOVE, vec![get(VIEW, &[INT]), distinct(0, &[INT])]),
            (FINE, vec![get(TABLE, &[INT]), distinct(0, &[INT])]),
        ];
        for (id, nodes) in plans {
            cluster.table(id, &[INT], None);
            let made = description(id, nodes, Export::Collection);
            cluster.each(|shard| shard.create_dataflow(&made));
        }
        // What the view had at the last start.
        let stored = DeltaBatch::insert(batch(&[INT], &[ints(&[8]), ints(&[9])]), Epoch(2));
        let parts = partition_delta(&stored, &[0], shards).unwrap();
        for (shard, part) in cluster.shards.iter_mut().zip(&parts) {
            shard.load_collection(VIEW, &part.rows, Epoch(2)).unwrap();
        }

        cluster.hydrate(&[VIEW, ABOVE, FINE], 2).unwrap();
        let error = panicked("a query of a test");
        check_ended(&cluster, &[VIEW, ABOVE], &error, 2);
        assert_eq!(cluster.folded(FINE), rows(&ones(&[1, 2, 3])));
        for id in [VIEW, OTHER] {
            let hydration = cluster.shards[0].begin_hydration(&[id], Epoch(2));
            assert_eq!(hydration, Err(Error::UnknownCollection(id)));
        }

        cluster
            .tick(3, vec![(TABLE, Input::Rows(vec![(ints(&[1]), -1)]))])
            .unwrap();
        assert_eq!(cluster.folded(FINE), rows(&ones(&[2, 3])));
        // A view is made anew in its place, and heals.
        cluster.drop_object(ABOVE);
        let nodes = vec![get(TABLE, &[INT]), recompute("panic over two rows")];
        let made = description(VIEW, nodes, Export::Collection);
        cluster.each(|shard| shard.create_dataflow(&made));
        cluster.failed.clear();
        cluster.hydrate(&[VIEW], 3).unwrap();
        assert_eq!(cluster.failed, BTreeMap::new());
        assert_eq!(cluster.snapshot(VIEW, 3).unwrap(), rows(&ones(&[2, 3])));
    }
}

#[test]
fn a_view_that_was_never_made_is_ended_once() {
    for shards in [1, 3] {
        let mut cluster = cluster(shards, &[INT]);
        cluster.table(VIEW, &[INT], None);
        let stored = DeltaBatch::insert(batch(&[INT], &[ints(&[8]), ints(&[9])]), Epoch(2));
        let parts = partition_delta(&stored, &[0], shards).unwrap();
        for (shard, part) in cluster.shards.iter_mut().zip(&parts) {
            shard.load_collection(VIEW, &part.rows, Epoch(2)).unwrap();
        }
        let (first, second) = (panicked("the first"), panicked("the second"));
        assert_eq!(cluster.fail(VIEW, &first, 3), Ok(Vec::new()));
        check_ended(&cluster, &[VIEW], &first, 3);

        // One that is made over it has its error, and is maintained.
        view(
            &mut cluster,
            ABOVE,
            vec![get(VIEW, &[INT]), distinct(0, &[INT])],
        );
        assert_eq!(cluster.folded(ABOVE), only(&first));
        assert_eq!(cluster.fail(VIEW, &second, 4), Ok(Vec::new()));
        check_ended(&cluster, &[VIEW], &first, 4);
        let nobody = ObjectId::User(99);
        for shard in &mut cluster.shards {
            assert_eq!(
                shard.fail_dataflow(nobody, &second, Epoch(4)),
                Ok(Vec::new())
            );
        }
        cluster.tick(4, insert(&[1])).unwrap();
        assert_eq!(cluster.snapshot(ABOVE, 4).unwrap(), only(&first));

        // Not within a tick.
        cluster.shards[0].begin_tick(Epoch(5), Vec::new()).unwrap();
        let within = cluster.shards[0].fail_dataflow(ABOVE, &second, Epoch(5));
        assert!(matches!(within, Err(Error::Invariant(_))));
    }
}

#[test]
fn an_index_over_a_table_is_ended_and_the_table_is_not() {
    let types = [INT, INT];
    // An index of the table's own relation or, where its rows are on other shards, of one of its own.
    for (shards, key) in [(1, vec![0]), (3, vec![0]), (1, vec![0, 1]), (3, vec![0, 1])] {
        let mut cluster = cluster(shards, &types);
        let held = |cluster: &Cluster| {
            let bytes = |shard: &Shard| shard.statistics()[&TABLE].bytes;
            cluster.shards.iter().map(bytes).collect::<Vec<_>>()
        };
        let mut table = [1, 2, 3].map(|key| (ints(&[key, key * 10]), 1)).to_vec();
        cluster
            .tick(2, vec![(TABLE, Input::Rows(table.clone()))])
            .unwrap();
        let before = held(&cluster);
        let index = description(INDEX, vec![get(TABLE, &types)], Export::Index { key });
        cluster.each(|shard| shard.create_dataflow(&index));
        cluster.hydrate(&[INDEX], 2).unwrap();
        assert_eq!(cluster.snapshot(INDEX, 2).unwrap(), rows(&table));

        let error = panicked("an index");
        assert_eq!(cluster.fail(INDEX, &error, 2), Ok(Vec::new()));
        check_ended(&cluster, &[INDEX], &error, 2);
        assert_eq!(held(&cluster), before);
        let new = vec![(ints(&[4, 40]), 1)];
        cluster
            .tick(3, vec![(TABLE, Input::Rows(new.clone()))])
            .unwrap();
        table.extend(new);
        assert_eq!(cluster.snapshot(TABLE, 3).unwrap(), rows(&table));
        check_ended(&cluster, &[INDEX], &error, 3);

        for shard in &mut cluster.shards {
            let again = shard.create_dataflow(&index);
            assert_eq!(again, Err(Error::DuplicateCollection(INDEX)));
        }
        cluster.drop_object(INDEX);
        for shard in &cluster.shards {
            assert!(!shard.statistics().contains_key(&INDEX));
        }
        cluster.each(|shard| shard.create_dataflow(&index));
        cluster.hydrate(&[INDEX], 3).unwrap();
        assert_eq!(cluster.snapshot(INDEX, 3).unwrap(), rows(&table));
    }
}

#[test]
fn what_a_join_makes_is_within_the_budget_of_its_tick() {
    let types = [INT, INT];
    for (shards, both_at_once) in [(1, false), (3, false), (1, true), (3, true)] {
        let mut cluster = cluster(shards, &types);
        view(
            &mut cluster,
            VIEW,
            vec![get(TABLE, &types), get(OTHER, &types), join(&types)],
        );
        view(
            &mut cluster,
            FINE,
            vec![get(TABLE, &types), distinct(0, &types)],
        );
        let change = || Input::Rows(vec![(ints(&[1, 1]), 1)]);
        let mut inputs = vec![(TABLE, change())];
        if both_at_once {
            inputs.push((OTHER, change()));
        } else {
            cluster.tick(2, vec![(OTHER, change())]).unwrap();
        }
        let budget = Budget::alone(usize::MAX);
        budget.cancel();
        budget.run(|| cluster.tick(3, inputs)).unwrap();
        let error = EvalError::from(flowstone_types::budget::Exceeded::Cancelled);
        assert_eq!(error.kind, EvalErrorKind::Cancelled);
        check_ended(&cluster, &[VIEW], &error, 3);
        assert_eq!(cluster.folded(FINE), rows(&[(ints(&[1, 1]), 1)]));
    }
}

#[test]
fn a_row_that_is_there_too_often_is_not_expanded_beyond_the_budget() {
    let budget = Budget::alone(usize::MAX);
    budget.cancel();
    let row = batch(&[INT], &[ints(&[1])]);
    let expanded = budget.run(|| expand(&row, &Weights::Const(1 << 40)));
    assert!(matches!(expanded, Err(Error::Evaluation(_))));
    let expanded = expand(&row, &Weights::Const(10_000)).unwrap();
    assert_eq!(expanded.num_rows(), 10_000);
}
