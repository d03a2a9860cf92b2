//! Rows of generated tables on their way into record batches, and the deterministic numbers they are drawn from.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{
    ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch,
    TimestampMicrosecondArray,
};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use flowstone_types::{SourceChanges, SourceOp};

/// A stream of numbers that depends on nothing but its seed (SplitMix64, Steele et al., "Fast splittable pseudorandom number generators", 2014).
///
/// Not a library's generator: generated content is part of what a restart must reproduce, and libraries change theirs between versions.
#[derive(Clone, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    /// The stream of the `number`-th thing of kind `salt` under `seed`.
    pub(crate) fn new(seed: u64, salt: u64, number: u64) -> Self {
        let mut draw = Self(seed);
        let mixed = draw.next() ^ salt.wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mut draw = Self(mixed);
        Self(draw.next() ^ number.wrapping_mul(0xa076_1d64_78bd_642f))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = high.saturating_sub(low).unsigned_abs().saturating_add(1);
        low.saturating_add_unsigned(self.next() % span)
    }

    /// One of `choices`, which are not empty.
    pub(crate) fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        let count = u64::try_from(choices.len()).unwrap_or(1).max(1);
        usize::try_from(self.next() % count)
            .ok()
            .and_then(|index| choices.get(index).copied())
            .unwrap_or("")
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// `bigint`, `integer`, `date` (days), `timestamptz` (microseconds) or unscaled `numeric`.
    Number(i64),
    Text(String),
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

#[derive(Debug)]
enum Column {
    Numbers(Vec<i64>),
    Texts(StringBuilder),
}

/// Rows of one table with what happens to each.
#[derive(Debug)]
pub(crate) struct Rows {
    schema: SchemaRef,
    columns: Vec<Column>,
    ops: Vec<SourceOp>,
}

impl Rows {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        let columns = schema
            .fields()
            .iter()
            .map(|field| match field.data_type() {
                DataType::Utf8 => Column::Texts(StringBuilder::new()),
                _ => Column::Numbers(Vec::new()),
            })
            .collect();
        Self {
            schema,
            columns,
            ops: Vec::new(),
        }
    }

    /// Adds one row; `cells` are in the order of the schema.
    pub(crate) fn push<const N: usize>(&mut self, op: SourceOp, cells: [Cell; N]) {
        self.ops.push(op);
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            match (column, cell) {
                (Column::Numbers(values), Cell::Number(value)) => values.push(value),
                (Column::Texts(values), Cell::Text(value)) => values.append_value(value),
                // A cell of the wrong kind leaves its column short, which `finish` reports.
                _ => {}
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// The rows so far; the next ones start anew.
    ///
    /// # Errors
    /// If the cells did not fit the schema: a bug of the generator.
    pub(crate) fn finish(&mut self) -> Result<SourceChanges, ArrowError> {
        let columns = itertools::zip_eq(&mut self.columns, self.schema.fields())
            .map(|(column, field)| {
                let values = match column {
                    Column::Texts(values) => {
                        let texts: ArrayRef = Arc::new(values.finish());
                        return Ok(texts);
                    }
                    Column::Numbers(values) => std::mem::take(values),
                };
                let array: ArrayRef = match field.data_type() {
                    DataType::Int32 => Arc::new(Int32Array::from(narrow(&values)?)),
                    DataType::Date32 => Arc::new(Date32Array::from(narrow(&values)?)),
                    DataType::Timestamp(..) => {
                        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
                    }
                    DataType::Decimal128(precision, scale) => Arc::new(
                        values
                            .into_iter()
                            .map(|value| Some(i128::from(value)))
                            .collect::<Decimal128Array>()
                            .with_precision_and_scale(*precision, *scale)?,
                    ),
                    _ => Arc::new(Int64Array::from(values)),
                };
                Ok(array)
            })
            .collect::<Result<Vec<_>, ArrowError>>()?;
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(SourceChanges {
            rows,
            ops: std::mem::take(&mut self.ops),
            unchanged: Vec::new(),
            moved: Vec::new(),
            truncate_before: false,
        })
    }
}

fn narrow(values: &[i64]) -> Result<Vec<i32>, ArrowError> {
    values
        .iter()
        .map(|value| {
            i32::try_from(*value).map_err(|error| ArrowError::ComputeError(error.to_string()))
        })
        .collect()
}
