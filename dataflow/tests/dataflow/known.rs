//! Known cases, one story each.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::DataType;
use flowstone_dataflow::Error;
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{
    Aggregate, AggregateFunction as F, Node, NodeId, Operator, OrderColumn, Plan, QueryPlan,
};
use flowstone_types::{
    ClusterId, Epoch, EvalError, EvalErrorKind, ObjectId, SourceChanges, SourceOp,
};

use crate::cluster::{Cluster, Input};
use crate::oracle::{Contents, Expressions, TestExpr, division_by_zero};
use crate::values::{Row, Value, batch, schema};

const TABLE: ObjectId = ObjectId::User(1);
const OTHER: ObjectId = ObjectId::User(2);
const VIEW: ObjectId = ObjectId::User(3);
const INT: DataType = DataType::Int64;
const NUMERIC: DataType = DataType::Decimal128(38, 0);

pub(crate) fn int(value: i64) -> Value {
    Value::Int(value)
}

pub(crate) fn ints(values: &[i64]) -> Row {
    values.iter().map(|value| int(*value)).collect()
}

pub(crate) fn node(operator: Operator, types: &[DataType]) -> Node {
    Node {
        operator,
        schema: schema(types),
    }
}

pub(crate) fn get(collection: ObjectId, types: &[DataType]) -> Node {
    node(Operator::Get { collection }, types)
}

pub(crate) fn aggregate(function: F, argument: Option<usize>) -> Aggregate {
    Aggregate {
        function,
        argument,
        filter: None,
        distinct: false,
    }
}

pub(crate) fn rows(rows: &[(Row, i64)]) -> Contents {
    Contents {
        rows: rows.iter().cloned().collect(),
        errors: BTreeMap::new(),
    }
}

/// A table of `types`, and a view over it whose plan's first node is its `Get`.
fn cluster(
    shards: usize,
    expressions: Expressions,
    types: &[DataType],
    nodes: Vec<Node>,
) -> Cluster {
    let mut cluster = Cluster::new(shards, &Arc::new(expressions));
    cluster.table(TABLE, types, None);
    let mut all = vec![get(TABLE, types)];
    all.extend(nodes);
    view(&mut cluster, VIEW, all);
    cluster
}

pub(crate) fn view(cluster: &mut Cluster, id: ObjectId, nodes: Vec<Node>) {
    let types = nodes
        .last()
        .unwrap()
        .schema
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .collect::<Vec<_>>();
    cluster.table(id, &types, None);
    cluster.each(|shard| {
        shard.create_dataflow(&DataflowDescription {
            cluster: ClusterId::DEFAULT,
            id,
            plan: Plan {
                nodes: nodes.clone(),
            },
            export: Export::Collection,
        })
    });
    let epoch = cluster.shards[0].last_epoch().0.max(1);
    cluster.hydrate(&[id], epoch).unwrap();
}

#[test]
fn retracting_the_last_row_of_a_group_removes_the_group() {
    let count = Operator::Aggregate {
        input: NodeId(0),
        group: vec![0],
        aggregates: vec![aggregate(F::Count, None), aggregate(F::Sum, Some(1))],
    };
    for shards in [1, 3] {
        let mut cluster = cluster(
            shards,
            Expressions::default(),
            &[INT, INT],
            vec![node(count.clone(), &[INT, INT, NUMERIC])],
        );
        cluster
            .tick(
                2,
                vec![(
                    TABLE,
                    Input::Rows(vec![(ints(&[1, 10]), 2), (ints(&[2, 5]), 1)]),
                )],
            )
            .unwrap();
        assert_eq!(
            cluster.folded(VIEW),
            rows(&[
                (vec![int(1), int(2), Value::Decimal(20)], 1),
                (vec![int(2), int(1), Value::Decimal(5)], 1)
            ])
        );
        cluster
            .tick(3, vec![(TABLE, Input::Rows(vec![(ints(&[1, 10]), -2)]))])
            .unwrap();
        assert_eq!(
            cluster.folded(VIEW),
            rows(&[(vec![int(2), int(1), Value::Decimal(5)], 1)])
        );
        assert_eq!(cluster.state(VIEW), 1);
        cluster
            .tick(4, vec![(TABLE, Input::Rows(vec![(ints(&[2, 5]), -1)]))])
            .unwrap();
        assert_eq!(cluster.folded(VIEW), Contents::default());
        assert_eq!(cluster.state(VIEW), 0);
    }
}

#[test]
fn a_global_aggregate_over_no_rows_has_one_row() {
    let total = Operator::Aggregate {
        input: NodeId(0),
        group: vec![],
        aggregates: vec![aggregate(F::Count, None), aggregate(F::Max, Some(0))],
    };
    for shards in [1, 3] {
        let mut cluster = cluster(
            shards,
            Expressions::default(),
            &[INT],
            vec![node(total.clone(), &[INT, INT])],
        );
        let none = rows(&[(vec![int(0), Value::Null], 1)]);
        assert_eq!(cluster.folded(VIEW), none);
        cluster
            .tick(
                2,
                vec![(TABLE, Input::Rows(vec![(ints(&[7]), 1), (ints(&[9]), 1)]))],
            )
            .unwrap();
        assert_eq!(cluster.folded(VIEW), rows(&[(ints(&[2, 9]), 1)]));
        cluster
            .tick(3, vec![(TABLE, Input::Rows(vec![(ints(&[9]), -1)]))])
            .unwrap();
        assert_eq!(cluster.folded(VIEW), rows(&[(ints(&[1, 7]), 1)]));
        cluster
            .tick(4, vec![(TABLE, Input::Rows(vec![(ints(&[7]), -1)]))])
            .unwrap();
        assert_eq!(cluster.folded(VIEW), none);
    }
}

#[test]
fn an_overflowing_sum_is_an_error_of_its_group_that_heals() {
    let sum = Operator::Aggregate {
        input: NodeId(0),
        group: vec![0],
        aggregates: vec![aggregate(F::Sum, Some(1))],
    };
    let wide = DataType::Decimal128(38, 0);
    let mut cluster = cluster(
        1,
        Expressions::default(),
        &[INT, wide.clone()],
        vec![node(sum, &[INT, wide])],
    );
    let large = 10_i128.pow(38) - 1;
    let row = |group, value| vec![int(group), Value::Decimal(value)];
    cluster
        .tick(
            2,
            vec![(TABLE, Input::Rows(vec![(row(1, large), 1), (row(2, 5), 1)]))],
        )
        .unwrap();
    assert_eq!(
        cluster.folded(VIEW),
        rows(&[(row(1, large), 1), (row(2, 5), 1)])
    );
    cluster
        .tick(3, vec![(TABLE, Input::Rows(vec![(row(1, 1), 1)]))])
        .unwrap();
    let overflow = EvalError::numeric_not_held();
    assert_eq!(
        cluster.folded(VIEW),
        Contents {
            errors: BTreeMap::from([(overflow, 1)]),
            ..rows(&[(row(2, 5), 1)])
        }
    );
    cluster
        .tick(
            4,
            vec![(TABLE, Input::Rows(vec![(row(1, large), 1_000_000_000_000)]))],
        )
        .unwrap();
    assert_eq!(cluster.folded(VIEW).errors.len(), 1);
    cluster
        .tick(
            5,
            vec![(
                TABLE,
                Input::Rows(vec![(row(1, large), -1_000_000_000_000), (row(1, -2), 1)]),
            )],
        )
        .unwrap();
    assert_eq!(
        cluster.folded(VIEW),
        rows(&[(row(1, large - 1), 1), (row(2, 5), 1)])
    );
}

#[test]
fn a_failing_row_is_an_error_until_it_goes_and_the_other_rows_pass() {
    let mut expressions = Expressions::default();
    let quotient = expressions.add(TestExpr::Divide(
        Box::new(TestExpr::Int(100)),
        Box::new(TestExpr::Column(0)),
    ));
    let project = Operator::FilterProject {
        input: NodeId(0),
        predicates: vec![],
        projections: vec![quotient],
    };
    let mut cluster = cluster(1, expressions, &[INT, INT], vec![node(project, &[INT])]);
    let mut changes = (1..=50)
        .map(|value| (ints(&[value, 0]), 1))
        .collect::<Vec<_>>();
    changes.push((ints(&[0, 1]), 2));
    changes.push((ints(&[0, 2]), 1));
    cluster
        .tick(2, vec![(TABLE, Input::Rows(changes))])
        .unwrap();
    assert_eq!(cluster.folded(VIEW).rows.values().sum::<i64>(), 50);
    assert_eq!(
        cluster.folded(VIEW).errors,
        BTreeMap::from([(division_by_zero(), 3)])
    );
    assert_eq!(
        cluster.snapshot(VIEW, 2).unwrap().errors,
        BTreeMap::from([(division_by_zero(), 3)])
    );
    cluster
        .tick(
            3,
            vec![(
                TABLE,
                Input::Rows(vec![(ints(&[0, 1]), -2), (ints(&[0, 2]), -1)]),
            )],
        )
        .unwrap();
    assert_eq!(cluster.folded(VIEW).errors, BTreeMap::new());
    assert_eq!(cluster.snapshot(VIEW, 3).unwrap().errors, BTreeMap::new());
    assert_eq!(
        cluster.snapshot(VIEW, 2).unwrap().errors,
        BTreeMap::from([(division_by_zero(), 3)])
    );
}

#[test]
fn a_later_predicate_does_not_see_what_an_earlier_one_refused() {
    let mut expressions = Expressions::default();
    let nonzero = expressions.add(TestExpr::Greater(
        Box::new(TestExpr::Column(0)),
        Box::new(TestExpr::Int(0)),
    ));
    let quotient = TestExpr::Divide(Box::new(TestExpr::Int(100)), Box::new(TestExpr::Column(0)));
    let small = expressions.add(TestExpr::Greater(
        Box::new(TestExpr::Int(30)),
        Box::new(quotient),
    ));
    let column = expressions.add(TestExpr::Column(0));
    let filter = Operator::FilterProject {
        input: NodeId(0),
        predicates: vec![nonzero, small],
        projections: vec![column],
    };
    let mut cluster = cluster(1, expressions, &[INT], vec![node(filter, &[INT])]);
    cluster
        .tick(
            2,
            vec![(
                TABLE,
                Input::Rows(vec![(ints(&[0]), 1), (ints(&[2]), 1), (ints(&[5]), 1)]),
            )],
        )
        .unwrap();
    assert_eq!(cluster.folded(VIEW), rows(&[(ints(&[5]), 1)]));
}

#[test]
fn every_nan_is_one_group_and_minus_zero_is_zero() {
    let count = Operator::Aggregate {
        input: NodeId(0),
        group: vec![0],
        aggregates: vec![aggregate(F::Count, None)],
    };
    for shards in [1, 3] {
        let mut cluster = cluster(
            shards,
            Expressions::default(),
            &[DataType::Float64],
            vec![node(count.clone(), &[DataType::Float64, INT])],
        );
        let floats = [
            f64::NAN,
            -f64::NAN,
            f64::from_bits(0x7ff8_0000_0000_0001),
            0.0,
            -0.0,
        ];
        cluster
            .tick(
                2,
                vec![(
                    TABLE,
                    Input::Rows(
                        floats
                            .iter()
                            .map(|float| (vec![Value::Float(*float)], 1))
                            .collect(),
                    ),
                )],
            )
            .unwrap();
        assert_eq!(
            cluster.folded(VIEW),
            rows(&[
                (vec![Value::Float(f64::NAN), int(3)], 1),
                (vec![Value::Float(0.0), int(2)], 1)
            ])
        );
    }
}

#[test]
fn a_float_sum_forgets_what_was_retracted() {
    let sum = Operator::Aggregate {
        input: NodeId(0),
        group: vec![],
        aggregates: vec![aggregate(F::Sum, Some(0))],
    };
    let mut cluster = cluster(
        1,
        Expressions::default(),
        &[DataType::Float64],
        vec![node(sum, &[DataType::Float64])],
    );
    let row = |float| vec![Value::Float(float)];
    cluster
        .tick(
            2,
            vec![(
                TABLE,
                Input::Rows(vec![(row(1e16), 1), (row(1.0), 1), (row(f64::INFINITY), 1)]),
            )],
        )
        .unwrap();
    assert_eq!(cluster.folded(VIEW), rows(&[(row(f64::INFINITY), 1)]));
    cluster
        .tick(
            3,
            vec![(
                TABLE,
                Input::Rows(vec![(row(1e16), -1), (row(f64::INFINITY), -1)]),
            )],
        )
        .unwrap();
    assert_eq!(cluster.folded(VIEW), rows(&[(row(1.0), 1)]));
}

#[test]
fn an_average_is_rounded_half_away_from_zero() {
    let average = Operator::Aggregate {
        input: NodeId(0),
        group: vec![0],
        aggregates: vec![aggregate(F::Avg, Some(1))],
    };
    let scale_one = DataType::Decimal128(38, 1);
    let mut cluster = cluster(
        1,
        Expressions::default(),
        &[INT, INT],
        vec![node(average, &[INT, scale_one])],
    );
    // 1/4 → 0.3, −1/4 → −0.3, 2/3 → 0.7
    let changes = [
        (1, 1),
        (1, 0),
        (1, 0),
        (1, 0),
        (2, -1),
        (2, 0),
        (2, 0),
        (2, 0),
        (3, 1),
        (3, 1),
        (3, 0),
    ];
    cluster
        .tick(
            2,
            vec![(
                TABLE,
                Input::Rows(
                    changes
                        .iter()
                        .map(|(group, value)| (ints(&[*group, *value]), 1))
                        .collect(),
                ),
            )],
        )
        .unwrap();
    let expected = [(1, 3), (2, -3), (3, 7)]
        .map(|(group, tenths)| (vec![int(group), Value::Decimal(tenths)], 1));
    assert_eq!(cluster.folded(VIEW), rows(&expected));
}

#[test]
fn rows_that_arrive_on_both_sides_of_a_join_in_one_tick_meet_once() {
    for shards in [1, 3] {
        let join = Operator::Join {
            left: NodeId(0),
            right: NodeId(1),
            left_keys: vec![0],
            right_keys: vec![0],
            null_equals_null: false,
        };
        let mut cluster = Cluster::new(shards, &Arc::default());
        cluster.table(TABLE, &[INT, INT], None);
        cluster.table(OTHER, &[INT, INT], None);
        view(
            &mut cluster,
            VIEW,
            vec![
                get(TABLE, &[INT, INT]),
                get(OTHER, &[INT, INT]),
                node(join, &[INT, INT, INT, INT]),
            ],
        );
        let null = vec![Value::Null, int(0)];
        cluster
            .tick(
                2,
                vec![
                    (
                        TABLE,
                        Input::Rows(vec![(ints(&[1, 10]), 2), (null.clone(), 1)]),
                    ),
                    (OTHER, Input::Rows(vec![(ints(&[1, 20]), 3), (null, 1)])),
                ],
            )
            .unwrap();
        assert_eq!(cluster.folded(VIEW), rows(&[(ints(&[1, 10, 1, 20]), 6)]));
        // An update on both sides at once.
        let update = |old, new| Input::Rows(vec![(ints(&[1, old]), -1), (ints(&[1, new]), 1)]);
        cluster
            .tick(3, vec![(TABLE, update(10, 11)), (OTHER, update(20, 21))])
            .unwrap();
        let pairs = [(10, 20, 2), (10, 21, 1), (11, 20, 2), (11, 21, 1)]
            .map(|(left, right, weight)| (ints(&[1, left, 1, right]), weight));
        assert_eq!(cluster.folded(VIEW), rows(&pairs));
    }
}

#[test]
fn views_over_the_same_key_share_one_arrangement() {
    let join = Operator::Join {
        left: NodeId(0),
        right: NodeId(0),
        left_keys: vec![0],
        right_keys: vec![1],
        null_equals_null: false,
    };
    let nodes = vec![node(join, &[INT, INT, INT, INT])];
    let mut cluster = cluster(1, Expressions::default(), &[INT, INT], nodes);
    cluster
        .tick(
            2,
            vec![(
                TABLE,
                Input::Rows(vec![
                    (ints(&[1, 2]), 1),
                    (ints(&[2, 1]), 1),
                    (ints(&[3, 3]), 1),
                ]),
            )],
        )
        .unwrap();
    let expected = rows(&[
        (ints(&[1, 2, 2, 1]), 1),
        (ints(&[2, 1, 1, 2]), 1),
        (ints(&[3, 3, 3, 3]), 1),
    ]);
    assert_eq!(cluster.folded(VIEW), expected);
    assert_eq!(cluster.state(VIEW), 0);
}

#[test]
fn ties_of_a_top_k_are_broken_by_the_other_columns() {
    let order = vec![OrderColumn {
        column: 1,
        descending: true,
        nulls_first: false,
    }];
    let top = Operator::TopK {
        input: NodeId(0),
        group: vec![0],
        order,
        limit: Some(2),
        offset: 0,
    };
    for shards in [1, 3] {
        let mut cluster = cluster(
            shards,
            Expressions::default(),
            &[INT, INT, INT],
            vec![node(top.clone(), &[INT, INT, INT])],
        );
        let changes =
            [[1, 5, 3], [1, 5, 1], [1, 5, 2], [1, 4, 0], [2, 1, 1]].map(|row| (ints(&row), 1));
        cluster
            .tick(2, vec![(TABLE, Input::Rows(changes.to_vec()))])
            .unwrap();
        assert_eq!(
            cluster.folded(VIEW),
            rows(&[
                (ints(&[1, 5, 1]), 1),
                (ints(&[1, 5, 2]), 1),
                (ints(&[2, 1, 1]), 1)
            ])
        );
        cluster
            .tick(
                3,
                vec![(
                    TABLE,
                    Input::Rows(vec![(ints(&[1, 5, 1]), -1), (ints(&[1, 5, 2]), 1)]),
                )],
            )
            .unwrap();
        assert_eq!(
            cluster.folded(VIEW),
            rows(&[(ints(&[1, 5, 2]), 2), (ints(&[2, 1, 1]), 1)])
        );
    }
}

#[test]
fn a_window_begins_and_ends_within_rows_that_are_there_several_times() {
    let window = Operator::TopK {
        input: NodeId(0),
        group: vec![0],
        order: vec![OrderColumn {
            column: 1,
            descending: false,
            nulls_first: false,
        }],
        limit: Some(3),
        offset: 1,
    };
    let numbers = |numbers: &[(i64, i64)]| -> Vec<(Row, i64)> {
        let rows = numbers.iter();
        rows.map(|(number, weight)| (ints(&[1, *number]), *weight))
            .collect()
    };
    for shards in [1, 3] {
        let mut cluster = cluster(
            shards,
            Expressions::default(),
            &[INT, INT],
            vec![node(window.clone(), &[INT, INT])],
        );
        let mut tick = |epoch: u64, changes: &[(i64, i64)]| {
            let input = Input::Rows(numbers(changes));
            cluster.tick(epoch, vec![(TABLE, input)]).unwrap();
            cluster.folded(VIEW)
        };
        let found = |expected: &[(i64, i64)]| rows(&numbers(expected));
        assert_eq!(tick(2, &[(5, 4), (7, 1)]), found(&[(5, 3)]));
        assert_eq!(tick(3, &[(5, -3), (6, 1)]), found(&[(6, 1), (7, 1)]));
        assert_eq!(
            tick(4, &[(5, -1), (4, 2), (6, 1)]),
            found(&[(4, 1), (6, 2)])
        );
        assert_eq!(tick(5, &[(4, -2), (6, -2)]), found(&[]));
    }
}

#[test]
fn the_greatest_float_is_nan_and_both_zeros_are_one() {
    const FLOAT: DataType = DataType::Float64;
    let extremes = Operator::Aggregate {
        input: NodeId(0),
        group: vec![0],
        aggregates: vec![aggregate(F::Min, Some(1)), aggregate(F::Max, Some(1))],
    };
    let float = |value: f64| -> Row { vec![int(1), Value::Float(value)] };
    let found = |least: f64, greatest: f64| {
        let row = vec![int(1), Value::Float(least), Value::Float(greatest)];
        rows(&[(row, 1)])
    };
    for shards in [1, 3] {
        let mut cluster = cluster(
            shards,
            Expressions::default(),
            &[INT, FLOAT],
            vec![node(extremes.clone(), &[INT, FLOAT, FLOAT])],
        );
        let mut tick = |epoch: u64, changes: &[(Row, i64)]| {
            let input = Input::Rows(changes.to_vec());
            cluster.tick(epoch, vec![(TABLE, input)]).unwrap();
            cluster.folded(VIEW)
        };
        assert_eq!(
            tick(
                2,
                &[(float(-0.0), 1), (float(0.0), 1), (float(-f64::NAN), 1)]
            ),
            found(0.0, f64::NAN)
        );
        // One of the two zeros, and a number that is less.
        assert_eq!(
            tick(3, &[(float(0.0), -1), (float(-1.5), 1)]),
            found(-1.5, f64::NAN)
        );
        assert_eq!(
            tick(4, &[(float(f64::NAN), -1), (float(-1.5), -1)]),
            found(0.0, 0.0)
        );
    }
}

#[test]
fn a_recomputed_query_that_fails_heals() {
    let query = QueryPlan {
        bytes: Vec::new(),
        text: "numbered".to_owned(),
    };
    let recompute = Operator::Recompute {
        inputs: vec![NodeId(0)],
        query,
        reason: "a test".to_owned(),
    };
    for shards in [1, 3] {
        let mut cluster = cluster(
            shards,
            Expressions::default(),
            &[INT],
            vec![node(recompute.clone(), &[INT, INT])],
        );
        cluster
            .tick(2, vec![(TABLE, Input::Rows(vec![(ints(&[1]), 2)]))])
            .unwrap();
        assert_eq!(cluster.folded(VIEW), rows(&[(ints(&[1, 2]), 2)]));
        cluster
            .tick(3, vec![(TABLE, Input::Rows(vec![(ints(&[4]), 1)]))])
            .unwrap();
        assert_eq!(
            cluster.folded(VIEW).errors,
            BTreeMap::from([(EvalError::new(EvalErrorKind::Cardinality, "3 rows"), 1)])
        );
        cluster
            .tick(4, vec![(TABLE, Input::Rows(vec![(ints(&[1]), -2)]))])
            .unwrap();
        assert_eq!(cluster.folded(VIEW), rows(&[(ints(&[4, 1]), 1)]));
    }
}

/// Of the query's input only what is asked for: it panics over more.
fn at_most(rows: usize, nulls_alone: bool) -> Node {
    let query = QueryPlan {
        bytes: Vec::new(),
        text: format!("at most {rows}"),
    };
    let operator = Operator::RecomputeGroups {
        inputs: vec![(NodeId(0), vec![0])],
        query,
        nulls_alone,
        what: "a test".to_owned(),
    };
    node(operator, &[INT])
}

#[test]
fn a_change_asks_for_the_rows_of_its_key_only_and_with_null_in_it_for_itself() {
    for shards in [1, 3] {
        let nodes = vec![at_most(2, true)];
        let mut cluster = cluster(shards, Expressions::default(), &[INT], nodes);
        let mut expected = BTreeMap::<Row, i64>::new();
        for (epoch, value) in (2..).zip([1, 2, 3, 1, 2]) {
            let row = ints(&[value]);
            let input = Input::Rows(vec![(row.clone(), 1), (vec![Value::Null], 1)]);
            cluster.tick(epoch, vec![(TABLE, input)]).unwrap();
            *expected.entry(row).or_default() += 1;
            *expected.entry(vec![Value::Null]).or_default() += 1;
            assert_eq!(cluster.folded(VIEW).rows, expected);
        }
    }
}

/// A query without inputs, with a result of `types`.
fn recomputed_constant(types: &[DataType]) -> Node {
    let query = QueryPlan {
        bytes: Vec::new(),
        text: "one".to_owned(),
    };
    let operator = Operator::Recompute {
        inputs: Vec::new(),
        query,
        reason: "a test".to_owned(),
    };
    node(operator, types)
}

#[test]
fn a_recomputed_query_may_read_nothing() {
    for shards in [1, 3] {
        let mut alone = Cluster::new(shards, &Arc::default());
        view(&mut alone, VIEW, vec![recomputed_constant(&[INT])]);
        assert_eq!(alone.folded(VIEW), rows(&[(ints(&[1]), 1)]));

        let beside = Operator::Union {
            inputs: vec![NodeId(0), NodeId(1)],
        };
        let mut cluster = cluster(
            shards,
            Expressions::default(),
            &[INT],
            vec![recomputed_constant(&[INT]), node(beside, &[INT])],
        );
        cluster
            .tick(2, vec![(TABLE, Input::Rows(vec![(ints(&[1]), 2)]))])
            .unwrap();
        assert_eq!(cluster.folded(VIEW), rows(&[(ints(&[1]), 3)]));
    }
}

#[test]
fn a_recomputed_result_of_other_columns_is_an_error_of_the_view_alone() {
    let mut cluster = Cluster::new(1, &Arc::default());
    view(&mut cluster, VIEW, vec![recomputed_constant(&[INT, INT])]);
    let errors = cluster.folded(VIEW).errors;
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors
            .keys()
            .all(|error| error.kind == EvalErrorKind::Internal)
    );
}

#[test]
fn a_retraction_of_a_missing_row_is_a_source_error() {
    let mut cluster = Cluster::new(3, &Arc::default());
    cluster.table(TABLE, &[INT, INT], Some(vec![0]));
    let change = |op, row: Row| {
        let rows = batch(&[INT, INT], &[row]);
        Input::Changes(vec![SourceChanges {
            rows,
            ops: vec![op],
            unchanged: Vec::new(),
            moved: Vec::new(),
            truncate_before: false,
        }])
    };
    cluster
        .tick(2, vec![(TABLE, change(SourceOp::Upsert, ints(&[1, 1])))])
        .unwrap();
    cluster
        .tick(
            3,
            vec![(
                TABLE,
                change(SourceOp::DeleteByKey, vec![int(2), Value::Null]),
            )],
        )
        .unwrap();
    let missing = EvalError::new(
        EvalErrorKind::Source,
        "saw a retraction for a row that does not exist",
    );
    assert_eq!(
        cluster.folded(TABLE),
        Contents {
            errors: BTreeMap::from([(missing, 1)]),
            ..rows(&[(ints(&[1, 1]), 1)])
        }
    );
}

#[test]
fn errors_of_a_table_reach_its_views_and_go_again() {
    let mut cluster = cluster(
        1,
        Expressions::default(),
        &[INT],
        vec![node(Operator::Distinct { input: NodeId(0) }, &[INT])],
    );
    let error = EvalError::new(EvalErrorKind::Source, "publication was dropped");
    cluster
        .tick(2, vec![(TABLE, Input::Errors(vec![(error.clone(), 1)]))])
        .unwrap();
    assert_eq!(
        cluster.folded(VIEW).errors,
        BTreeMap::from([(error.clone(), 1)])
    );
    cluster
        .tick(3, vec![(TABLE, Input::Errors(vec![(error, -1)]))])
        .unwrap();
    assert_eq!(cluster.folded(VIEW).errors, BTreeMap::new());
}

#[test]
fn a_negative_weight_is_a_broken_invariant() {
    let mut cluster = Cluster::new(1, &Arc::default());
    cluster.table(TABLE, &[INT], None);
    let result = cluster.tick(2, vec![(TABLE, Input::Rows(vec![(ints(&[1]), -1)]))]);
    assert_eq!(result, Err(Error::NegativeWeight("u1".to_owned())));
}

#[test]
fn a_view_whose_rows_were_loaded_yields_only_the_difference() {
    let distinct = node(Operator::Distinct { input: NodeId(0) }, &[INT]);
    let mut cluster = Cluster::new(1, &Arc::default());
    cluster.table(TABLE, &[INT], None);
    cluster.table(VIEW, &[INT], None);
    let load = |cluster: &mut Cluster, id, values: &[Row]| {
        cluster.each(|shard| shard.load_collection(id, &batch(&[INT], values), Epoch(5)))
    };
    load(&mut cluster, TABLE, &[ints(&[1]), ints(&[1]), ints(&[2])]);
    load(&mut cluster, VIEW, &[ints(&[1]), ints(&[7])]);
    let plan = Plan {
        nodes: vec![get(TABLE, &[INT]), distinct],
    };
    cluster.each(|shard| {
        shard.create_dataflow(&DataflowDescription {
            cluster: ClusterId::DEFAULT,
            id: VIEW,
            plan: plan.clone(),
            export: Export::Collection,
        })
    });
    cluster.hydrate(&[VIEW], 5).unwrap();
    assert_eq!(
        cluster.folded(VIEW),
        rows(&[(ints(&[2]), 1), (ints(&[7]), -1)])
    );
    assert_eq!(
        cluster.snapshot(VIEW, 5).unwrap(),
        rows(&[(ints(&[1]), 1), (ints(&[2]), 1)])
    );
    assert_eq!(cluster.shards[0].statistics()[&TABLE].rows, 3);
}

#[test]
fn epochs_below_since_are_refused_and_those_above_are_exact() {
    let mut cluster = Cluster::new(1, &Arc::default());
    cluster.table(TABLE, &[INT], None);
    for epoch in 1..=20 {
        let value = i64::try_from(epoch).unwrap();
        let mut changes = vec![(ints(&[value]), 1)];
        if value > 1 {
            changes.push((ints(&[value - 1]), -1));
        }
        cluster
            .tick(epoch, vec![(TABLE, Input::Rows(changes))])
            .unwrap();
    }
    cluster.each(|shard| {
        shard.allow_compaction(Epoch(10));
        while shard.maintain(1000) {}
        Ok(())
    });
    assert_eq!(
        cluster.snapshot(TABLE, 9),
        Err(Error::SinceAdvanced {
            epoch: Epoch(9),
            since: Epoch(10)
        })
    );
    for epoch in 10..=20 {
        assert_eq!(
            cluster.snapshot(TABLE, epoch).unwrap(),
            rows(&[(ints(&[i64::try_from(epoch).unwrap()]), 1)])
        );
    }
}

#[test]
fn churn_does_not_grow_a_collection_that_is_maintained() {
    let count = Operator::Aggregate {
        input: NodeId(0),
        group: vec![],
        aggregates: vec![aggregate(F::Count, None)],
    };
    let mut cluster = cluster(1, Expressions::default(), &[INT], vec![node(count, &[INT])]);
    let mut bytes = Vec::new();
    for epoch in 2..62 {
        let from = i64::try_from(epoch).unwrap() * 1000;
        let mut changes = (from..from + 1000)
            .map(|value| (ints(&[value]), 1))
            .collect::<Vec<_>>();
        if epoch > 2 {
            changes.extend((from - 1000..from).map(|value| (ints(&[value]), -1)));
        }
        cluster
            .tick(epoch, vec![(TABLE, Input::Rows(changes))])
            .unwrap();
        cluster.each(|shard| {
            shard.allow_compaction(Epoch(epoch));
            shard.maintain(100_000);
            Ok(())
        });
        bytes.push(cluster.shards[0].statistics()[&TABLE].bytes);
    }
    assert_eq!(cluster.folded(VIEW), rows(&[(ints(&[1000]), 1)]));
    let half = bytes[..30].iter().max().unwrap();
    assert!(bytes[30..].iter().all(|bytes| bytes <= half), "{bytes:?}");
}

#[test]
fn dropping_a_view_leaves_its_inputs_alone() {
    let distinct = node(Operator::Distinct { input: NodeId(0) }, &[INT]);
    let mut cluster = cluster(3, Expressions::default(), &[INT], vec![distinct]);
    cluster.each(|shard| {
        shard.drop_object(VIEW);
        Ok(())
    });
    cluster
        .tick(2, vec![(TABLE, Input::Rows(vec![(ints(&[1]), 1)]))])
        .unwrap();
    assert_eq!(cluster.folded(VIEW), Contents::default());
    assert_eq!(
        cluster.snapshot(VIEW, 2),
        Err(Error::UnknownCollection(VIEW))
    );
    assert_eq!(
        cluster.snapshot(TABLE, 2).unwrap(),
        rows(&[(ints(&[1]), 1)])
    );
}

#[test]
fn a_dataflow_takes_part_in_ticks_only_once_it_is_hydrated() {
    let count = Operator::Aggregate {
        input: NodeId(0),
        group: vec![0],
        aggregates: vec![aggregate(F::Count, None)],
    };
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards, &Arc::default());
        cluster.table(TABLE, &[INT], None);
        cluster.table(VIEW, &[INT, INT], None);
        let plan = Plan {
            nodes: vec![get(TABLE, &[INT]), node(count.clone(), &[INT, INT])],
        };
        cluster.each(|shard| {
            shard.create_dataflow(&DataflowDescription {
                cluster: ClusterId::DEFAULT,
                id: VIEW,
                plan: plan.clone(),
                export: Export::Collection,
            })
        });
        cluster
            .tick(2, vec![(TABLE, Input::Rows(vec![(ints(&[1]), 1)]))])
            .unwrap();
        assert_eq!(cluster.folded(VIEW), Contents::default());
        cluster.hydrate(&[VIEW], 2).unwrap();
        assert_eq!(cluster.folded(VIEW), rows(&[(ints(&[1, 1]), 1)]));
        cluster
            .tick(3, vec![(TABLE, Input::Rows(vec![(ints(&[1]), 1)]))])
            .unwrap();
        assert_eq!(cluster.folded(VIEW), rows(&[(ints(&[1, 2]), 1)]));
        assert!(cluster.hydrate(&[VIEW], 3).is_err());
    }
}

/// Undoes `x ^ (x >> shift)`.
fn undo_xor_shift(mixed: u64, shift: u32) -> u64 {
    let mut value = mixed;
    for _ in 0..64 / shift {
        value = mixed ^ (value >> shift);
    }
    value
}

/// The inverse of an odd number modulo 2^64 (Newton's iteration).
fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    for _ in 0..6 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
    }
    inverse
}

fn hash_of(values: &[i64]) -> u64 {
    let types = vec![INT; values.len()];
    let batch = batch(&types, &[ints(values)]);
    flowstone_types::hash::hash_rows(batch.columns(), 1).unwrap()[0]
}

/// The second value of a key that begins with `first` and hashes as `(other, 0)` does.
///
/// The hash mixes the columns' 64-bit values one after the other, each step invertible: it is run backwards here.
fn colliding(first: i64, other: i64) -> i64 {
    const SEED: u64 = 0x5f10_3570_6e65_0001;
    let undo_mix =
        |hash: u64| undo_xor_shift(hash, 32).wrapping_mul(inverse(0x9fb2_1c65_1e98_df25));
    let folded_zero = undo_mix(hash_of(&[0])) ^ SEED;
    let folded = hash_of(&[first]) ^ hash_of(&[other]) ^ folded_zero;
    let value = undo_xor_shift(folded, 31).wrapping_mul(inverse(0x94d0_49bb_1331_11eb));
    let value = undo_xor_shift(value, 27).wrapping_mul(inverse(0xbf58_476d_1ce4_e5b9));
    undo_xor_shift(value, 30).wrapping_sub(SEED).cast_signed()
}

#[test]
fn keys_of_one_hash_do_not_meet_in_a_join() {
    let second = colliding(1, 2);
    assert_eq!(hash_of(&[1, second]), hash_of(&[2, 0]), "not a collision");
    for point_rows_max in [0, usize::MAX] {
        let join = Operator::Join {
            left: NodeId(0),
            right: NodeId(1),
            left_keys: vec![0, 1],
            right_keys: vec![0, 1],
            null_equals_null: false,
        };
        let mut cluster = Cluster::with_point_rows(1, &Arc::default(), point_rows_max);
        cluster.table(TABLE, &[INT, INT], None);
        cluster.table(OTHER, &[INT, INT, INT], None);
        view(
            &mut cluster,
            VIEW,
            vec![
                get(TABLE, &[INT, INT]),
                get(OTHER, &[INT, INT, INT]),
                node(join, &[INT; 5]),
            ],
        );
        let arranged = vec![(ints(&[1, second, 7]), 1), (ints(&[2, 0, 8]), 1)];
        cluster
            .tick(2, vec![(OTHER, Input::Rows(arranged))])
            .unwrap();
        cluster
            .tick(3, vec![(TABLE, Input::Rows(vec![(ints(&[2, 0]), 1)]))])
            .unwrap();
        assert_eq!(
            cluster.folded(VIEW),
            rows(&[(ints(&[2, 0, 2, 0, 8]), 1)]),
            "point path up to {point_rows_max} rows"
        );
    }
}
