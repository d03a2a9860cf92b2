//! A naive evaluator of plans: every node from scratch, over bags of rows, one row at a time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, IsNullExpr, Literal};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use flowstone_dataflow::{Error, ExprCompiler, QueryEvaluator};
use flowstone_proto::plan::{AggregateFunction, Expr, Operator, OrderColumn, Plan, QueryPlan};
use flowstone_types::{EvalError, EvalErrorKind, ObjectId};

use crate::values::{Bag, Row, Value, add, batch, rows};

/// Expressions of the tests; a plan's `Expr` holds the number of one.
#[derive(Clone, Debug)]
pub(crate) enum TestExpr {
    Column(usize),
    Int(i64),
    /// Fails where the divisor is zero.
    Divide(Box<TestExpr>, Box<TestExpr>),
    Plus(Box<TestExpr>, Box<TestExpr>),
    /// Of a float: makes −0.0 of 0.0.
    Negate(usize),
    Greater(Box<TestExpr>, Box<TestExpr>),
    IsNull(usize),
}

#[derive(Debug, Default)]
pub(crate) struct Expressions(pub(crate) Vec<TestExpr>);

impl Expressions {
    pub(crate) fn add(&mut self, expr: TestExpr) -> Expr {
        self.0.push(expr.clone());
        Expr {
            bytes: u32::try_from(self.0.len() - 1)
                .unwrap()
                .to_le_bytes()
                .to_vec(),
            text: format!("{expr:?}"),
        }
    }

    fn get(&self, expr: &Expr) -> &TestExpr {
        &self.0[usize::try_from(u32::from_le_bytes(
            expr.bytes.as_slice().try_into().unwrap(),
        ))
        .unwrap()]
    }
}

pub(crate) fn division_by_zero() -> EvalError {
    EvalError::new(EvalErrorKind::DivisionByZero, "division by zero")
}

impl ExprCompiler for Expressions {
    fn compile(&self, expr: &Expr, input: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>, Error> {
        Ok(physical(self.get(expr), input))
    }

    fn eval_error(&self, _: &DataFusionError) -> EvalError {
        division_by_zero()
    }
}

fn physical(expr: &TestExpr, input: &SchemaRef) -> Arc<dyn PhysicalExpr> {
    let column = |index: usize| -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(input.field(index).name(), index))
    };
    let binary = |left: &TestExpr, op, right: &TestExpr| -> Arc<dyn PhysicalExpr> {
        Arc::new(BinaryExpr::new(
            physical(left, input),
            op,
            physical(right, input),
        ))
    };
    match expr {
        TestExpr::Column(index) => column(*index),
        TestExpr::Int(value) => Arc::new(Literal::new(ScalarValue::Int64(Some(*value)))),
        TestExpr::Divide(left, right) => binary(left, Op::Divide, right),
        TestExpr::Plus(left, right) => binary(left, Op::Plus, right),
        TestExpr::Negate(index) => Arc::new(BinaryExpr::new(
            column(*index),
            Op::Multiply,
            Arc::new(Literal::new(ScalarValue::Float64(Some(-1.0)))),
        )),
        TestExpr::Greater(left, right) => binary(left, Op::Gt, right),
        TestExpr::IsNull(index) => Arc::new(IsNullExpr::new(column(*index))),
    }
}

fn evaluate(expr: &TestExpr, row: &Row) -> Result<Value, EvalError> {
    let ints = |left: &TestExpr, right: &TestExpr, op: fn(i64, i64) -> Option<i64>| match (
        evaluate(left, row)?,
        evaluate(right, row)?,
    ) {
        (Value::Int(left), Value::Int(right)) => {
            op(left, right).map(Value::Int).ok_or_else(division_by_zero)
        }
        _ => Ok(Value::Null),
    };
    Ok(match expr {
        TestExpr::Column(index) => row[*index].clone(),
        TestExpr::Int(value) => Value::Int(*value),
        TestExpr::Divide(left, right) => ints(left, right, i64::checked_div)?,
        TestExpr::Plus(left, right) => ints(left, right, |left, right| Some(left + right))?,
        TestExpr::Negate(index) => {
            if let Value::Float(value) = &row[*index] {
                Value::Float(-value)
            } else {
                Value::Null
            }
        }
        TestExpr::Greater(left, right) => match (evaluate(left, row)?, evaluate(right, row)?) {
            (Value::Int(left), Value::Int(right)) => Value::Bool(left > right),
            _ => Value::Null,
        },
        TestExpr::IsNull(index) => Value::Bool(row[*index].is_null()),
    })
}

/// Rows and errors of one collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) rows: Bag,
    pub(crate) errors: BTreeMap<EvalError, i64>,
}

/// The result of `plan` over `collections`; `None` if some node has more than `limit` rows.
pub(crate) fn run(
    plan: &Plan,
    expressions: &Expressions,
    collections: &BTreeMap<ObjectId, Contents>,
    limit: usize,
) -> Option<Contents> {
    let mut nodes: Vec<Contents> = Vec::new();
    for node in &plan.nodes {
        let mut result = Contents::default();
        for input in node.operator.inputs() {
            for (error, weight) in &nodes[input.0].errors {
                *result.errors.entry(error.clone()).or_insert(0) += weight;
            }
        }
        match &node.operator {
            Operator::Get { collection } => result = collections[collection].clone(),
            Operator::Constant { rows: encoded } => {
                for batch in flowstone_proto::ipc::decode_batches(encoded).unwrap().1 {
                    rows(&batch)
                        .into_iter()
                        .for_each(|row| add(&mut result.rows, row, 1));
                }
            }
            Operator::FilterProject {
                input,
                predicates,
                projections,
            } => {
                for (row, weight) in &nodes[input.0].rows {
                    let mapped = predicates.iter().try_fold(true, |passes, predicate| {
                        Ok(passes
                            && evaluate(expressions.get(predicate), row)? == Value::Bool(true))
                    });
                    let mapped = mapped.and_then(|passes| {
                        passes
                            .then(|| {
                                projections
                                    .iter()
                                    .map(|expr| evaluate(expressions.get(expr), row))
                                    .collect::<Result<Row, _>>()
                            })
                            .transpose()
                    });
                    match mapped {
                        Ok(Some(row)) => add(&mut result.rows, row, *weight),
                        Ok(None) => {}
                        Err(error) => *result.errors.entry(error).or_insert(0) += weight,
                    }
                }
            }
            Operator::Join {
                left,
                right,
                left_keys,
                right_keys,
                null_equals_null,
            } => {
                let mut by_key = BTreeMap::<Row, Vec<(&Row, i64)>>::new();
                for (row, weight) in &nodes[right.0].rows {
                    by_key
                        .entry(right_keys.iter().map(|key| row[*key].clone()).collect())
                        .or_default()
                        .push((row, *weight));
                }
                for (row, weight) in &nodes[left.0].rows {
                    let key: Row = left_keys.iter().map(|key| row[*key].clone()).collect();
                    if !null_equals_null && key.iter().any(Value::is_null) {
                        continue;
                    }
                    for (other, other_weight) in by_key.get(&key).into_iter().flatten() {
                        add(
                            &mut result.rows,
                            row.iter().chain(*other).cloned().collect(),
                            weight * other_weight,
                        );
                    }
                    if result.rows.len() > limit {
                        return None;
                    }
                }
            }
            Operator::Aggregate {
                input,
                group,
                aggregates,
            } => {
                let mut groups = BTreeMap::<Row, Vec<(&Row, i64)>>::new();
                if group.is_empty() {
                    groups.insert(Vec::new(), Vec::new());
                }
                for (row, weight) in &nodes[input.0].rows {
                    groups
                        .entry(group.iter().map(|column| row[*column].clone()).collect())
                        .or_default()
                        .push((row, *weight));
                }
                for (mut row, members) in groups {
                    for (number, aggregate) in aggregates.iter().enumerate() {
                        let output = node.schema.field(group.len() + number).data_type();
                        let passing = members.iter().filter(|(row, _)| {
                            aggregate
                                .filter
                                .is_none_or(|filter| row[filter] == Value::Bool(true))
                        });
                        let value = match aggregate.argument {
                            None => Value::Int(passing.map(|(_, weight)| weight).sum()),
                            Some(argument) => {
                                let mut values = passing
                                    .map(|(row, weight)| (row[argument].clone(), *weight))
                                    .filter(|(value, _)| !value.is_null())
                                    .collect::<Vec<_>>();
                                if aggregate.distinct {
                                    values = values
                                        .into_iter()
                                        .map(|(value, _)| (value, 1))
                                        .collect::<BTreeSet<_>>()
                                        .into_iter()
                                        .collect();
                                }
                                fold(aggregate.function, &values, output)
                            }
                        };
                        row.push(value);
                    }
                    add(&mut result.rows, row, 1);
                }
            }
            Operator::Distinct { input } => {
                result.rows = nodes[input.0]
                    .rows
                    .keys()
                    .map(|row| (row.clone(), 1))
                    .collect()
            }
            Operator::Union { inputs } => {
                for input in inputs {
                    nodes[input.0]
                        .rows
                        .iter()
                        .for_each(|(row, weight)| add(&mut result.rows, row.clone(), *weight));
                }
            }
            Operator::TopK {
                input,
                group,
                order,
                limit,
                offset,
            } => {
                let mut groups = BTreeMap::<Row, Vec<&Row>>::new();
                for (row, weight) in &nodes[input.0].rows {
                    for _ in 0..*weight {
                        groups
                            .entry(group.iter().map(|column| row[*column].clone()).collect())
                            .or_default()
                            .push(row);
                    }
                }
                for mut members in groups.into_values() {
                    members.sort_by(|left, right| {
                        compare(left, right, order).then_with(|| left.cmp(right))
                    });
                    let taken = members
                        .into_iter()
                        .skip(usize::try_from(*offset).unwrap())
                        .take(limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap()));
                    taken.for_each(|row| add(&mut result.rows, row.clone(), 1));
                }
            }
            Operator::Recompute { inputs, query, .. } => {
                let inputs = inputs
                    .iter()
                    .map(|input| expand(&nodes[input.0].rows))
                    .collect::<Vec<_>>();
                match recompute(query, &inputs) {
                    Ok(rows) => rows
                        .into_iter()
                        .for_each(|row| add(&mut result.rows, row, 1)),
                    Err(error) => *result.errors.entry(error).or_insert(0) += 1,
                }
            }
            Operator::RecomputeGroups { inputs, query, .. } => {
                let grouped = Grouped::of(query).unwrap();
                let inputs = inputs
                    .iter()
                    .map(|(input, _)| expand(&nodes[input.0].rows))
                    .collect::<Vec<_>>();
                for group in grouped.groups(&inputs).values() {
                    match grouped.run(group) {
                        Ok(rows) => rows
                            .into_iter()
                            .for_each(|row| add(&mut result.rows, row, 1)),
                        Err(error) => *result.errors.entry(error).or_insert(0) += 1,
                    }
                }
            }
            Operator::RecomputeRows { input, .. } => {
                for row in expand(&nodes[input.0].rows) {
                    match twice(&row) {
                        Ok(rows) => rows
                            .into_iter()
                            .for_each(|row| add(&mut result.rows, row, 1)),
                        Err(error) => *result.errors.entry(error).or_insert(0) += 1,
                    }
                }
            }
        }
        if result.rows.values().sum::<i64>() > i64::try_from(limit).unwrap() {
            return None;
        }
        nodes.push(result);
    }
    nodes.pop()
}

pub(crate) fn expand(bag: &Bag) -> Vec<Row> {
    bag.iter()
        .flat_map(|(row, weight)| {
            std::iter::repeat_n(row.clone(), usize::try_from(*weight).unwrap())
        })
        .collect()
}

fn compare(left: &Row, right: &Row, order: &[OrderColumn]) -> Ordering {
    for by in order {
        let (left, right) = (&left[by.column], &right[by.column]);
        let nulls = if by.nulls_first {
            Ordering::Less
        } else {
            Ordering::Greater
        };
        let ordering = match (left.is_null(), right.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => nulls,
            (false, true) => nulls.reverse(),
            (false, false) => {
                if by.descending {
                    right.cmp(left)
                } else {
                    left.cmp(right)
                }
            }
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

#[expect(
    clippy::as_conversions,
    reason = "the oracle rounds exact sums of eighths to f64"
)]
fn fold(function: AggregateFunction, values: &[(Value, i64)], output: &DataType) -> Value {
    if function == AggregateFunction::Count {
        return Value::Int(values.iter().map(|(_, weight)| weight).sum());
    }
    let (Some((first, _)), Some((last, _))) = (values.iter().min(), values.iter().max()) else {
        return Value::Null;
    };
    let count: i64 = values.iter().map(|(_, weight)| weight).sum();
    match function {
        AggregateFunction::Min | AggregateFunction::BoolAnd => first.clone(),
        AggregateFunction::Max | AggregateFunction::BoolOr => last.clone(),
        _ if matches!(first, Value::Float(_)) => {
            let floats = values
                .iter()
                .map(|(value, weight)| {
                    if let Value::Float(value) = value {
                        (*value, *weight)
                    } else {
                        unreachable!()
                    }
                })
                .collect::<Vec<_>>();
            let special = floats
                .iter()
                .map(|(value, _)| *value)
                .filter(|value| !value.is_finite())
                .reduce(|left, right| left + right);
            let eighths: i128 = floats
                .iter()
                .filter(|(value, _)| value.is_finite())
                .map(|(value, weight)| (*value * 8.0) as i128 * i128::from(*weight))
                .sum();
            let sum = special.unwrap_or(eighths as f64 / 8.0);
            Value::Float(if function == AggregateFunction::Avg {
                sum / count as f64
            } else {
                sum
            })
        }
        _ => {
            let sum: i128 = values
                .iter()
                .map(|(value, weight)| match value {
                    Value::Int(value) => i128::from(*value) * i128::from(*weight),
                    Value::Decimal(value) => *value * i128::from(*weight),
                    other => panic!("sum of {other:?}"),
                })
                .sum();
            if function == AggregateFunction::Sum {
                return Value::Decimal(sum);
            }
            let DataType::Decimal128(_, scale) = output else {
                panic!("avg as {output}")
            };
            let from = if matches!(first, Value::Decimal(_)) {
                2
            } else {
                0
            };
            let scaled = sum * 10_i128.pow(u32::try_from(scale - from).unwrap());
            let count = i128::from(count);
            let rounded = (scaled.abs() * 2 + count) / (count * 2);
            Value::Decimal(if scaled < 0 { -rounded } else { rounded })
        }
    }
}

/// A row with 0 and with 1; an error if its first value is 3.
fn twice(row: &Row) -> Result<Vec<Row>, EvalError> {
    if row.first() == Some(&Value::Int(3)) {
        return Err(division_by_zero());
    }
    let with = |number| row.iter().cloned().chain([Value::Int(number)]).collect();
    Ok(vec![with(0), with(1)])
}

/// The query of rows by keys: each row of the first input with the number of rows of its group in all inputs, and its key; an error of the group if that number
/// is 3 modulo 7. Rows with NULL in their key are groups of their own if they stand alone.
#[derive(Clone, Debug)]
pub(crate) struct Grouped {
    pub(crate) keys: Vec<Vec<usize>>,
    pub(crate) nulls_alone: bool,
}

impl Grouped {
    pub(crate) fn query(&self) -> QueryPlan {
        let keys = self.keys.iter().map(|keys| {
            let keys = keys.iter().map(usize::to_string).collect::<Vec<_>>();
            keys.join(",")
        });
        let keys = keys.collect::<Vec<_>>().join(";");
        QueryPlan {
            bytes: Vec::new(),
            text: format!("grouped {} {keys}", self.nulls_alone),
        }
    }

    fn of(query: &QueryPlan) -> Option<Self> {
        let (nulls_alone, keys) = query.text.strip_prefix("grouped ")?.split_once(' ')?;
        let list = |keys: &str| keys.split(',').map(|key| key.parse().unwrap()).collect();
        Some(Self {
            keys: keys.split(';').map(list).collect(),
            nulls_alone: nulls_alone == "true",
        })
    }

    /// The rows of each input of each group; rows that stand alone have a number beside their key.
    fn groups(&self, inputs: &[Vec<Row>]) -> BTreeMap<(Row, usize), Vec<Vec<Row>>> {
        let mut groups = BTreeMap::new();
        let mut alone = 0;
        for (number, (rows, keys)) in itertools::zip_eq(inputs, &self.keys).enumerate() {
            for row in rows {
                let key: Row = keys.iter().map(|key| row[*key].clone()).collect();
                let mut place = 0;
                if self.nulls_alone && key.iter().any(Value::is_null) {
                    alone += 1;
                    place = alone;
                }
                let group = groups
                    .entry((key, place))
                    .or_insert_with(|| vec![Vec::new(); inputs.len()]);
                group[number].push(row.clone());
            }
        }
        groups
    }

    fn run(&self, group: &[Vec<Row>]) -> Result<Vec<Row>, EvalError> {
        let total = group.iter().map(Vec::len).sum::<usize>();
        if total % 7 == 3 {
            return Err(EvalError::new(
                EvalErrorKind::Cardinality,
                format!("{total} rows of a group"),
            ));
        }
        let total = Value::Int(i64::try_from(total).unwrap());
        let rows = group[0].iter().map(|row| {
            let key = self.keys[0].iter().map(|key| row[*key].clone());
            row.iter()
                .cloned()
                .chain([total.clone()])
                .chain(key)
                .collect()
        });
        Ok(rows.collect())
    }
}

/// `numbered`: each row of the first input with the number of rows of all inputs; an error if that number is 3 modulo 7. `one`: a row, without inputs.
/// `at most N`: the rows of the first input; it panics if there are more.
fn recompute(query: &QueryPlan, inputs: &[Vec<Row>]) -> Result<Vec<Row>, EvalError> {
    if query.text == "one" {
        assert_eq!(inputs.len(), 0);
        return Ok(vec![vec![Value::Int(1)]]);
    }
    if let Some(most) = query.text.strip_prefix("at most ") {
        assert!(
            inputs[0].len() <= most.parse::<usize>().unwrap(),
            "more than {most} rows"
        );
        return Ok(inputs[0].clone());
    }
    if let Some(grouped) = Grouped::of(query) {
        let mut result = Vec::new();
        for group in grouped.groups(inputs).values() {
            result.extend(grouped.run(group)?);
        }
        return Ok(result);
    }
    if query.text == "twice" {
        let mut result = Vec::new();
        for row in &inputs[0] {
            result.extend(twice(row)?);
        }
        return Ok(result);
    }
    assert_eq!(query.text, "numbered");
    let total = inputs.iter().map(Vec::len).sum::<usize>();
    if total % 7 == 3 {
        return Err(EvalError::new(
            EvalErrorKind::Cardinality,
            format!("{total} rows"),
        ));
    }
    let total = Value::Int(i64::try_from(total).unwrap());
    Ok(inputs[0]
        .iter()
        .map(|row| row.iter().cloned().chain([total.clone()]).collect())
        .collect())
}

impl QueryEvaluator for Expressions {
    fn evaluate(
        &self,
        query: &QueryPlan,
        inputs: &[(SchemaRef, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>, EvalError> {
        for (schema, _) in inputs {
            assert!(
                schema
                    .fields()
                    .iter()
                    .enumerate()
                    .all(|(index, field)| *field.name() == format!("c{index}"))
            );
        }
        let tables = inputs
            .iter()
            .map(|(_, batches)| batches.iter().flat_map(rows).collect())
            .collect::<Vec<Vec<Row>>>();
        let result = recompute(query, &tables)?;
        let mut types = inputs.first().map_or_else(Vec::new, |(schema, _)| {
            schema
                .fields()
                .iter()
                .map(|field| field.data_type().clone())
                .collect::<Vec<_>>()
        });
        if !query.text.starts_with("at most ") {
            types.push(DataType::Int64);
        }
        if let Some(grouped) = Grouped::of(query) {
            let (schema, _) = &inputs[0];
            let keys = grouped.keys[0].iter();
            types.extend(keys.map(|key| schema.field(*key).data_type().clone()));
        }
        Ok(vec![batch(&types, &result)])
    }
}
