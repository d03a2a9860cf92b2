//! Random plans over the operators, and random tables.

use arrow_schema::DataType;
use flowstone_proto::plan::{
    Aggregate, AggregateFunction, Node, NodeId, Operator, OrderColumn, Plan, QueryPlan,
};
use flowstone_types::ObjectId;
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::oracle::{Expressions, Grouped, TestExpr};
use crate::values::{Row, Value, batch, schema};

pub(crate) const DECIMAL: DataType = DataType::Decimal128(10, 2);

pub(crate) fn types(rng: &mut impl Rng) -> Vec<DataType> {
    let mut types = vec![DataType::Int64];
    for _ in 0..rng.random_range(0..4) {
        types.push(
            [
                DataType::Int64,
                DataType::Utf8,
                DataType::Float64,
                DECIMAL,
                DataType::Boolean,
            ]
            .choose(rng)
            .unwrap()
            .clone(),
        );
    }
    types
}

pub(crate) fn value(rng: &mut impl Rng, data_type: &DataType, domain: i64) -> Value {
    if rng.random_ratio(1, 6) {
        return Value::Null;
    }
    let number = rng.random_range(-domain..=domain);
    match data_type {
        DataType::Boolean => Value::Bool(number > 0),
        DataType::Int64 => Value::Int(number),
        DataType::Float64 => Value::Float(
            *[
                0.0,
                -0.0,
                f64::NAN,
                -f64::NAN,
                1.5,
                -2.25,
                0.125,
                1e16,
                -1e16,
                f64::INFINITY,
                f64::NEG_INFINITY,
            ]
            .choose(rng)
            .unwrap(),
        ),
        DataType::Decimal128(..) => Value::Decimal(i128::from(number) * 25),
        DataType::Utf8 => Value::Text(
            [
                "",
                "a",
                "ab",
                "b",
                "ü",
                "a longer string, longer than an inlined one",
            ]
            .choose(rng)
            .unwrap()
            .to_string(),
        ),
        other => panic!("no test values of {other}"),
    }
}

pub(crate) fn row(rng: &mut impl Rng, types: &[DataType], domain: i64) -> Row {
    types
        .iter()
        .map(|data_type| value(rng, data_type, domain))
        .collect()
}

struct Generator<'a, R> {
    rng: &'a mut R,
    expressions: &'a mut Expressions,
    nodes: Vec<(Operator, Vec<DataType>)>,
    joins: usize,
}

/// A plan of about `size` operators over `tables`.
pub(crate) fn plan<R: Rng>(
    rng: &mut R,
    expressions: &mut Expressions,
    tables: &[(ObjectId, Vec<DataType>)],
    size: usize,
) -> Plan {
    let mut generator = Generator {
        rng,
        expressions,
        nodes: Vec::new(),
        joins: 0,
    };
    for (collection, types) in tables {
        generator.nodes.push((
            Operator::Get {
                collection: *collection,
            },
            types.clone(),
        ));
    }
    for _ in 0..size {
        generator.operator();
    }
    let nodes = generator
        .nodes
        .into_iter()
        .map(|(operator, types)| Node {
            operator,
            schema: schema(&types),
        })
        .collect();
    Plan { nodes }
}

impl<R: Rng> Generator<'_, R> {
    /// A node, rather one of the latest.
    fn pick(&mut self) -> (NodeId, Vec<DataType>) {
        let last = self.nodes.len() - 1;
        let node = if self.rng.random_ratio(1, 2) {
            last
        } else {
            self.rng.random_range(0..=last)
        };
        (NodeId(node), self.nodes[node].1.clone())
    }

    fn columns(&mut self, types: &[DataType], most: usize) -> Vec<usize> {
        let count = self.rng.random_range(0..=most.min(types.len()));
        rand::seq::index::sample(self.rng, types.len(), count).into_vec()
    }

    fn column_of(&mut self, types: &[DataType], data_type: &DataType) -> Option<usize> {
        let fitting = types
            .iter()
            .enumerate()
            .filter(|(_, other)| *other == data_type)
            .map(|(column, _)| column)
            .collect::<Vec<_>>();
        fitting.choose(self.rng).copied()
    }

    fn operator(&mut self) {
        let (input, types) = self.pick();
        let made = match self.rng.random_range(0..9) {
            0 | 1 => self.filter_project(input, &types),
            2 | 3 if self.joins < 2 => self.join(input, types),
            4 | 5 => self.aggregate(input, &types),
            6 => (Operator::Distinct { input }, types),
            7 => self.union(input, types),
            _ if self.rng.random_ratio(1, 4) => self.recompute(input, types),
            _ if self.rng.random_ratio(1, 2) => self.recompute_groups(input, types),
            _ if self.rng.random_ratio(1, 5) => self.recompute_rows(input, types),
            _ => self.top_k(input, types),
        };
        self.nodes.push(made);
    }

    fn integer(&mut self, types: &[DataType]) -> TestExpr {
        match self.column_of(types, &DataType::Int64) {
            Some(column) if self.rng.random_ratio(4, 5) => TestExpr::Column(column),
            _ => TestExpr::Int(self.rng.random_range(-2..3)),
        }
    }

    fn filter_project(&mut self, input: NodeId, types: &[DataType]) -> (Operator, Vec<DataType>) {
        let mut predicates = Vec::new();
        for _ in 0..self.rng.random_range(0..3) {
            let predicate = match (
                self.rng.random_range(0..5),
                self.column_of(types, &DataType::Boolean),
            ) {
                (0, Some(column)) => TestExpr::Column(column),
                (1, _) if !types.is_empty() => {
                    TestExpr::IsNull(self.rng.random_range(0..types.len()))
                }
                (2, _) => {
                    let divisor = Box::new(self.integer(types));
                    TestExpr::Greater(
                        Box::new(TestExpr::Divide(Box::new(TestExpr::Int(6)), divisor)),
                        Box::new(TestExpr::Int(-2)),
                    )
                }
                _ => TestExpr::Greater(
                    Box::new(self.integer(types)),
                    Box::new(TestExpr::Int(self.rng.random_range(-3..2))),
                ),
            };
            predicates.push(self.expressions.add(predicate));
        }
        let (mut projections, mut output) = (Vec::new(), Vec::new());
        for _ in 0..self.rng.random_range(1..=types.len() + 1) {
            let (expr, data_type) = match (
                self.rng.random_range(0..8),
                self.column_of(types, &DataType::Float64),
            ) {
                (0, Some(column)) => (TestExpr::Negate(column), DataType::Float64),
                (1, _) => (
                    TestExpr::Plus(Box::new(self.integer(types)), Box::new(self.integer(types))),
                    DataType::Int64,
                ),
                (2, _) => (
                    TestExpr::Divide(Box::new(self.integer(types)), Box::new(self.integer(types))),
                    DataType::Int64,
                ),
                _ if types.is_empty() => (TestExpr::Int(1), DataType::Int64),
                _ => {
                    let column = self.rng.random_range(0..types.len());
                    (TestExpr::Column(column), types[column].clone())
                }
            };
            projections.push(self.expressions.add(expr));
            output.push(data_type);
        }
        (
            Operator::FilterProject {
                input,
                predicates,
                projections,
            },
            output,
        )
    }

    fn join(&mut self, left: NodeId, mut types: Vec<DataType>) -> (Operator, Vec<DataType>) {
        self.joins += 1;
        let (right, right_types) = self.pick();
        let (mut left_keys, mut right_keys) = (Vec::new(), Vec::new());
        for _ in 0..self.rng.random_range(1..3) {
            for left_key in self.columns(&types, 1) {
                if let Some(right_key) = self.column_of(&right_types, &types[left_key]) {
                    left_keys.push(left_key);
                    right_keys.push(right_key);
                }
            }
        }
        types.extend(right_types);
        (
            Operator::Join {
                left,
                right,
                left_keys,
                right_keys,
                null_equals_null: self.rng.random_ratio(1, 3),
            },
            types,
        )
    }

    fn aggregate(&mut self, input: NodeId, types: &[DataType]) -> (Operator, Vec<DataType>) {
        use AggregateFunction as F;
        let group = self.columns(types, 2);
        let mut output = group
            .iter()
            .map(|column| types[*column].clone())
            .collect::<Vec<_>>();
        let mut aggregates = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let filter = if self.rng.random_ratio(1, 4) {
                self.column_of(types, &DataType::Boolean)
            } else {
                None
            };
            let distinct = self.rng.random_ratio(1, 3);
            if types.is_empty() || self.rng.random_ratio(1, 5) {
                aggregates.push(Aggregate {
                    function: F::Count,
                    argument: None,
                    filter,
                    distinct: false,
                });
                output.push(DataType::Int64);
                continue;
            }
            let argument = self.rng.random_range(0..types.len());
            let mut choices = vec![
                (F::Count, DataType::Int64),
                (F::Min, types[argument].clone()),
                (F::Max, types[argument].clone()),
            ];
            match &types[argument] {
                DataType::Boolean => choices.extend([
                    (F::BoolAnd, DataType::Boolean),
                    (F::BoolOr, DataType::Boolean),
                ]),
                DataType::Float64 => {
                    choices.extend([(F::Sum, DataType::Float64), (F::Avg, DataType::Float64)])
                }
                DataType::Int64 => choices.extend([
                    (F::Sum, DataType::Decimal128(38, 0)),
                    (F::Avg, DataType::Decimal128(38, 6)),
                ]),
                decimal if *decimal == DECIMAL => choices.extend([
                    (F::Sum, DataType::Decimal128(38, 2)),
                    (F::Avg, DataType::Decimal128(38, 6)),
                ]),
                _ => {}
            }
            let (function, data_type) = choices.choose(self.rng).unwrap().clone();
            aggregates.push(Aggregate {
                function,
                argument: Some(argument),
                filter,
                distinct,
            });
            output.push(data_type);
        }
        (
            Operator::Aggregate {
                input,
                group,
                aggregates,
            },
            output,
        )
    }

    fn union(&mut self, input: NodeId, types: Vec<DataType>) -> (Operator, Vec<DataType>) {
        let mut inputs = vec![input];
        for (number, (_, other)) in self.nodes.iter().enumerate() {
            if *other == types && self.rng.random_ratio(1, 2) {
                inputs.push(NodeId(number));
            }
        }
        let constant = (0..3).map(|_| row(self.rng, &types, 2)).collect::<Vec<_>>();
        let rows =
            flowstone_proto::ipc::encode_batches(&schema(&types), &[batch(&types, &constant)])
                .unwrap();
        self.nodes
            .push((Operator::Constant { rows }, types.clone()));
        inputs.push(NodeId(self.nodes.len() - 1));
        (Operator::Union { inputs }, types)
    }

    fn top_k(&mut self, input: NodeId, types: Vec<DataType>) -> (Operator, Vec<DataType>) {
        let group = self.columns(&types, 1);
        let order = self.columns(&types, 2);
        let order = order
            .into_iter()
            .map(|column| OrderColumn {
                column,
                descending: self.rng.random(),
                nulls_first: self.rng.random(),
            })
            .collect();
        let limit = if self.rng.random_ratio(3, 4) {
            Some(self.rng.random_range(0..4))
        } else {
            None
        };
        (
            Operator::TopK {
                input,
                group,
                order,
                limit,
                offset: self.rng.random_range(0..3),
            },
            types,
        )
    }

    fn recompute_groups(
        &mut self,
        input: NodeId,
        types: Vec<DataType>,
    ) -> (Operator, Vec<DataType>) {
        let mut inputs = vec![(input, Vec::new())];
        if self.rng.random() {
            let (other, other_types) = self.pick();
            inputs.push((other, Vec::new()));
            for key in self.columns(&types, 2) {
                if let Some(other_key) = self.column_of(&other_types, &types[key]) {
                    inputs[0].1.push(key);
                    inputs[1].1.push(other_key);
                }
            }
        } else {
            inputs[0].1 = self.columns(&types, 2);
        }
        if inputs[0].1.is_empty() {
            return self.top_k(input, types);
        }
        let nulls_alone = self.rng.random();
        let keys = inputs.iter().map(|(_, keys)| keys.clone()).collect();
        let query = Grouped { keys, nulls_alone }.query();
        let keys = inputs[0].1.iter().map(|key| types[*key].clone());
        let keys = keys.collect::<Vec<_>>();
        (
            Operator::RecomputeGroups {
                inputs,
                query,
                nulls_alone,
                what: "a test".to_owned(),
            },
            types
                .into_iter()
                .chain([DataType::Int64])
                .chain(keys)
                .collect(),
        )
    }

    fn recompute_rows(
        &mut self,
        input: NodeId,
        mut types: Vec<DataType>,
    ) -> (Operator, Vec<DataType>) {
        types.push(DataType::Int64);
        let query = QueryPlan {
            bytes: Vec::new(),
            text: "twice".to_owned(),
        };
        let what = "a test".to_owned();
        (Operator::RecomputeRows { input, query, what }, types)
    }

    fn recompute(&mut self, input: NodeId, mut types: Vec<DataType>) -> (Operator, Vec<DataType>) {
        let (other, _) = self.pick();
        types.push(DataType::Int64);
        let query = QueryPlan {
            bytes: Vec::new(),
            text: "numbered".to_owned(),
        };
        (
            Operator::Recompute {
                inputs: vec![input, other],
                query,
                reason: "a test".to_owned(),
            },
            types,
        )
    }
}
