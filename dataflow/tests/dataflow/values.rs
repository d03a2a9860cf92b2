//! Rows as plain Rust values, for an oracle that shares nothing with the engine.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    RecordBatchOptions, StringArray,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowstone_proto::plan::column_name;

/// A nullable value of one of the tested types.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(i128),
    Text(String),
}

pub(crate) type Row = Vec<Value>;
pub(crate) type Bag = BTreeMap<Row, i64>;

impl Value {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) => 2,
            Self::Float(_) => 3,
            Self::Decimal(_) => 4,
            Self::Text(_) => 5,
        }
    }
}

/// SQL's order of values of one type, NULL first, NaN last and equal to itself, −0 equal to 0.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => left.cmp(right),
            (Self::Int(left), Self::Int(right)) => left.cmp(right),
            (Self::Decimal(left), Self::Decimal(right)) => left.cmp(right),
            (Self::Text(left), Self::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
            (Self::Float(left), Self::Float(right)) => match (left.is_nan(), right.is_nan()) {
                (false, false) => left.partial_cmp(right).unwrap(),
                (left, right) => left.cmp(&right),
            },
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

pub(crate) fn schema(types: &[DataType]) -> SchemaRef {
    Arc::new(Schema::new(
        types
            .iter()
            .enumerate()
            .map(|(index, data_type)| Field::new(column_name(index), data_type.clone(), true))
            .collect::<Vec<_>>(),
    ))
}

pub(crate) fn batch(types: &[DataType], rows: &[Row]) -> RecordBatch {
    let columns = types
        .iter()
        .enumerate()
        .map(|(column, data_type)| -> ArrayRef {
            let values = rows.iter().map(|row| &row[column]);
            match data_type {
                DataType::Boolean => Arc::new(
                    values
                        .map(|value| {
                            if let Value::Bool(value) = value {
                                Some(*value)
                            } else {
                                None
                            }
                        })
                        .collect::<BooleanArray>(),
                ),
                DataType::Int64 => Arc::new(
                    values
                        .map(|value| {
                            if let Value::Int(value) = value {
                                Some(*value)
                            } else {
                                None
                            }
                        })
                        .collect::<Int64Array>(),
                ),
                DataType::Float64 => Arc::new(
                    values
                        .map(|value| {
                            if let Value::Float(value) = value {
                                Some(*value)
                            } else {
                                None
                            }
                        })
                        .collect::<Float64Array>(),
                ),
                DataType::Decimal128(precision, scale) => Arc::new(
                    values
                        .map(|value| {
                            if let Value::Decimal(value) = value {
                                Some(*value)
                            } else {
                                None
                            }
                        })
                        .collect::<Decimal128Array>()
                        .with_precision_and_scale(*precision, *scale)
                        .unwrap(),
                ),
                DataType::Utf8 => Arc::new(
                    values
                        .map(|value| {
                            if let Value::Text(value) = value {
                                Some(value.as_str())
                            } else {
                                None
                            }
                        })
                        .collect::<StringArray>(),
                ),
                other => panic!("no test values of {other}"),
            }
        })
        .collect();
    RecordBatch::try_new_with_options(
        schema(types),
        columns,
        &RecordBatchOptions::new().with_row_count(Some(rows.len())),
    )
    .unwrap()
}

pub(crate) fn rows(batch: &RecordBatch) -> Vec<Row> {
    (0..batch.num_rows())
        .map(|row| {
            batch
                .columns()
                .iter()
                .map(|column| value(column, row))
                .collect()
        })
        .collect()
}

fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Int64 => Value::Int(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Value::Float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => {
            Value::Decimal(column.as_primitive::<Decimal128Type>().value(row))
        }
        DataType::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_owned()),
        other => panic!("no test values of {other}"),
    }
}

/// Adds to a bag; a row of multiplicity zero is gone.
pub(crate) fn add(bag: &mut Bag, row: Row, weight: i64) {
    let sum = bag.entry(row.clone()).or_insert(0);
    *sum += weight;
    if *sum == 0 {
        bag.remove(&row);
    }
}
