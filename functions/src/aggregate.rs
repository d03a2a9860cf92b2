//! Aggregates with PostgreSQL's result types and overflow rules, for the batch path.
//!
//! Owns `sum`, `avg`, `min`, `max`, and by its modules the deviations of exact numbers and the ordered-set aggregates; `count`, `bool_and`, `array_agg` and the
//! other statistical ones are DataFusion's.
//! Must not know the incremental accumulators of `dataflow`; it agrees with them on every result.
//!
//! Invariants. Nothing wraps: integers are summed in 128 bits, decimals in 256, floats exactly, so that no result depends on the order of rows.

mod deviation;
mod ordered_set;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::i256;
use arrow_schema::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, Signature, Volatility,
};
use flowstone_types::exact_float::ExactFloatSum;
use flowstone_types::normalize::normalize_f64;
use flowstone_types::sort_key::{equality_differs, key_bytes, order_differs};
use flowstone_types::{EvalError, EvalErrorKind, SqlType};

use crate::cast::convert;
use crate::errors::{from_type_error, numeric_not_held, out_of_range, raise};
use crate::interval::Interval;
use crate::numeric::{divide_rounded, narrow, power_of_ten, rescale};

/// Our aggregates.
pub(crate) fn functions() -> Vec<AggregateUDF> {
    [Kind::Sum, Kind::Avg, Kind::Min, Kind::Max]
        .into_iter()
        .map(|kind| {
            AggregateUDF::new_from_impl(PgAggregate {
                kind,
                signature: Signature::user_defined(Volatility::Immutable),
            })
        })
        .chain(deviation::functions())
        .chain(ordered_set::functions())
        .collect()
}

/// Which aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Sum,
    Avg,
    Min,
    Max,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
        }
    }

    const fn is_extreme(self) -> bool {
        matches!(self, Self::Min | Self::Max)
    }
}

/// The type of `sum` over an argument type, by PostgreSQL's rules; `None` if there is no such aggregate.
#[must_use]
pub fn sum_type(argument: &DataType) -> Option<DataType> {
    Some(match argument {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 => DataType::Int64,
        DataType::UInt16 | DataType::UInt32 => DataType::UInt64,
        DataType::Int64 | DataType::UInt64 => DataType::Decimal128(38, 0),
        DataType::Decimal128(_, scale) => DataType::Decimal128(38, *scale),
        DataType::Float32 => DataType::Float32,
        DataType::Float64 | DataType::Null => DataType::Float64,
        DataType::Interval(_) => SqlType::Interval.to_arrow(),
        _ => return None,
    })
}

/// The type of `avg` over an argument type, by PostgreSQL's rules; `None` if there is no such aggregate.
#[must_use]
pub fn avg_type(argument: &DataType) -> Option<DataType> {
    Some(match argument {
        data_type if data_type.is_integer() => SqlType::Numeric(None).to_arrow(),
        DataType::Decimal128(..) => SqlType::Numeric(None).to_arrow(),
        DataType::Float32 | DataType::Float64 | DataType::Null => DataType::Float64,
        DataType::Interval(_) => SqlType::Interval.to_arrow(),
        _ => return None,
    })
}

/// One of our aggregates.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PgAggregate {
    kind: Kind,
    signature: Signature,
}

impl PgAggregate {
    /// The type of the result over values of a type; `None` if there is no such aggregate.
    fn result_over(&self, argument: &DataType) -> Option<DataType> {
        match self.kind {
            Kind::Sum => sum_type(argument),
            Kind::Avg => avg_type(argument),
            Kind::Min | Kind::Max => (*argument != DataType::Boolean
                && SqlType::from_arrow(argument).is_ok())
            .then(|| argument.clone()),
        }
    }
}

/// The name that a type has in messages.
fn type_name(field: &Field) -> String {
    SqlType::from_field(field).map_or_else(
        |_| field.data_type().to_string(),
        |sql_type| sql_type.without_modifier().to_string(),
    )
}

impl AggregateUDFImpl for PgAggregate {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let fields: Vec<FieldRef> = arg_types
            .iter()
            .map(|data_type| Arc::new(Field::new("", data_type.clone(), true)))
            .collect();
        self.return_field(&fields)
            .map(|field| field.data_type().clone())
    }

    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        let found = match arg_fields {
            [argument] => self.result_over(argument.data_type()),
            _ => None,
        };
        let Some(found) = found else {
            let names: Vec<String> = arg_fields.iter().map(|field| type_name(field)).collect();
            return plan_err!(
                "function {}({}) does not exist",
                self.name(),
                names.join(", ")
            );
        };
        let field = Field::new(self.name(), found, true);
        match arg_fields {
            [argument] if self.kind.is_extreme() => {
                Ok(Arc::new(field.with_metadata(argument.metadata().clone())))
            }
            _ => Ok(Arc::new(field)),
        }
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let Some(argument) = args.expr_fields.first() else {
            return plan_err!("function {} takes one argument", self.name());
        };
        let inner: Box<dyn Accumulator> = if self.kind.is_extreme() {
            Box::new(Extreme {
                largest: self.kind == Kind::Max,
                data_type: argument.data_type().clone(),
                best: None,
            })
        } else {
            Box::new(Total::new(
                self.kind,
                argument.data_type(),
                args.return_field.data_type(),
            ))
        };
        if args.is_distinct && !self.kind.is_extreme() && equality_differs(argument.data_type()) {
            return Ok(Box::new(DistinctKeys {
                values: BTreeMap::new(),
                values_bytes: 0,
                data_type: argument.data_type().clone(),
                inner,
            }));
        }
        if args.is_distinct && !self.kind.is_extreme() {
            return Ok(Box::new(DistinctValues {
                seen: HashSet::new(),
                seen_bytes: 0,
                data_type: argument.data_type().clone(),
                inner,
            }));
        }
        Ok(inner)
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        match args.expr_fields.first() {
            Some(argument) if self.kind.is_extreme() => Ok(Box::new(SlidingExtreme {
                largest: self.kind == Kind::Max,
                data_type: argument.data_type().clone(),
                candidates: VecDeque::new(),
                entered: 0,
                left: 0,
            })),
            _ => self.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let data_type = match (self.kind, args.is_distinct) {
            (Kind::Min | Kind::Max, _) => args.return_field.data_type().clone(),
            (_, true) => {
                let item = args
                    .input_fields
                    .first()
                    .map_or(DataType::Null, |field| field.data_type().clone());
                DataType::List(Arc::new(Field::new("item", item, true)))
            }
            (_, false) => DataType::Binary,
        };
        Ok(vec![Arc::new(Field::new(
            format_state_name(args.name, self.name()),
            data_type,
            true,
        ))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// The sum of numbers of one kind, and how many there were.
enum Sum {
    /// Of integers and decimals: digits at the argument's scale.
    Exact(i256),
    /// Of floats.
    Float(Box<ExactFloatSum>),
    /// Of intervals.
    Interval {
        months: i64,
        days: i64,
        micros: i128,
    },
}

/// Accumulates `sum` and `avg`.
struct Total {
    kind: Kind,
    /// What arguments are converted to.
    wide: DataType,
    result: DataType,
    sum: Sum,
    count: i64,
}

impl fmt::Debug for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Total")
            .field("kind", &self.kind)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Total {
    fn new(kind: Kind, argument: &DataType, result: &DataType) -> Self {
        let (wide, sum) = match argument {
            DataType::Decimal128(_, scale) => {
                (DataType::Decimal128(38, *scale), Sum::Exact(i256::ZERO))
            }
            data_type if data_type.is_integer() => {
                (DataType::Decimal128(38, 0), Sum::Exact(i256::ZERO))
            }
            DataType::Interval(_) => (
                SqlType::Interval.to_arrow(),
                Sum::Interval {
                    months: 0,
                    days: 0,
                    micros: 0,
                },
            ),
            _ => (DataType::Float64, Sum::Float(Box::default())),
        };
        Self {
            kind,
            wide,
            result: result.clone(),
            sum,
            count: 0,
        }
    }

    fn scale(&self) -> i8 {
        if let DataType::Decimal128(_, scale) = self.wide {
            scale
        } else {
            0
        }
    }

    /// Adds values that came (`weight` 1) or went (−1).
    fn add(&mut self, values: &ArrayRef, weight: i8) -> Result<()> {
        let values = convert(values, &self.wide)?;
        self.count += i64::from(weight)
            * i64::try_from(values.len() - values.null_count()).unwrap_or(i64::MAX);
        match &mut self.sum {
            Sum::Exact(sum) => {
                for value in values.as_primitive::<Decimal128Type>().iter().flatten() {
                    *sum = sum
                        .checked_add(i256::from_i128(value * i128::from(weight)))
                        .ok_or_else(|| raise(numeric_not_held()))?;
                }
            }
            Sum::Float(sum) => {
                for value in values.as_primitive::<Float64Type>().iter().flatten() {
                    sum.add(value, i64::from(weight));
                }
            }
            Sum::Interval {
                months,
                days,
                micros,
            } => {
                for value in values
                    .as_primitive::<arrow_array::types::IntervalMonthDayNanoType>()
                    .iter()
                    .flatten()
                {
                    let interval = Interval::from_arrow(value);
                    *months += i64::from(weight) * i64::from(interval.months);
                    *days += i64::from(weight) * i64::from(interval.days);
                    *micros += i128::from(weight) * i128::from(interval.micros);
                }
            }
        }
        Ok(())
    }

    fn exact_result(&self, sum: i256) -> Result<ScalarValue> {
        let (value, scale) = match self.kind {
            Kind::Avg => {
                let DataType::Decimal128(_, scale) = self.result else {
                    return exec_err!("avg of numbers is numeric");
                };
                let shift = i32::from(scale) - i32::from(self.scale());
                let factor = power_of_ten(shift.unsigned_abs()).map_err(raise)?;
                let count = i256::from_i128(i128::from(self.count));
                let overflow = || raise(numeric_not_held());
                let quotient = if shift >= 0 {
                    divide_rounded(sum.checked_mul(factor).ok_or_else(overflow)?, count)
                } else {
                    divide_rounded(sum, factor.checked_mul(count).ok_or_else(overflow)?)
                };
                (quotient.map_err(raise)?, scale)
            }
            _ => (sum, self.scale()),
        };
        Ok(match &self.result {
            DataType::Int64 => ScalarValue::Int64(Some(
                value
                    .to_i128()
                    .and_then(|value| i64::try_from(value).ok())
                    .ok_or_else(|| raise(out_of_range("bigint")))?,
            )),
            DataType::UInt64 => ScalarValue::UInt64(Some(
                value
                    .to_i128()
                    .and_then(|value| u64::try_from(value).ok())
                    .ok_or_else(|| raise(out_of_range("uint8")))?,
            )),
            DataType::Decimal128(precision, result_scale) => {
                let value = rescale(value, scale, *result_scale).map_err(raise)?;
                ScalarValue::Decimal128(
                    Some(narrow(value, *precision).map_err(raise)?),
                    *precision,
                    *result_scale,
                )
            }
            other => return exec_err!("sum of integers cannot be {other}"),
        })
    }

    fn float_result(&self, sum: &ExactFloatSum) -> Result<ScalarValue> {
        let total = sum.checked_value().ok_or_else(float_overflow)?;
        let value = if self.kind == Kind::Avg {
            total / crate::interval::to_f64(self.count)
        } else {
            total
        };
        let value = normalize_f64(value);
        if self.result != DataType::Float32 {
            return Ok(ScalarValue::Float64(Some(value)));
        }
        ScalarValue::Float64(Some(value))
            .cast_to(&DataType::Float32)
            .and_then(|narrow| match narrow {
                ScalarValue::Float32(Some(single)) if single.is_infinite() && value.is_finite() => {
                    Err(float_overflow())
                }
                narrow => Ok(narrow),
            })
    }

    fn interval_result(&self, months: i64, days: i64, micros: i128) -> Result<ScalarValue> {
        let overflow = || raise(crate::errors::datetime_overflow("interval"));
        let total = Interval {
            months: i32::try_from(months).map_err(|_| overflow())?,
            days: i32::try_from(days).map_err(|_| overflow())?,
            micros: i64::try_from(micros).map_err(|_| overflow())?,
        };
        let value = if self.kind == Kind::Avg {
            total
                .divide(crate::interval::to_f64(self.count))
                .map_err(raise)?
        } else {
            total
        };
        Ok(ScalarValue::IntervalMonthDayNano(Some(
            value.to_arrow().map_err(raise)?,
        )))
    }

    fn retained(&self) -> Result<Vec<u8>> {
        let mut bytes = self.count.to_le_bytes().to_vec();
        match &self.sum {
            Sum::Exact(sum) => bytes.extend_from_slice(&sum.to_le_bytes()),
            Sum::Float(sum) => {
                for part in float_parts(sum)? {
                    bytes.extend_from_slice(&part.to_le_bytes());
                }
            }
            Sum::Interval {
                months,
                days,
                micros,
            } => {
                bytes.extend_from_slice(&months.to_le_bytes());
                bytes.extend_from_slice(&days.to_le_bytes());
                bytes.extend_from_slice(&micros.to_le_bytes());
            }
        }
        Ok(bytes)
    }
}

/// Floats whose exact sum is `sum`.
fn float_parts(sum: &ExactFloatSum) -> Result<Vec<f64>> {
    let mut rest = sum.clone();
    let mut parts = Vec::new();
    loop {
        let part = rest.checked_value().ok_or_else(float_overflow)?;
        if part == 0.0 {
            return Ok(parts);
        }
        parts.push(part);
        if !part.is_finite() {
            return Ok(parts);
        }
        rest.add(part, -1);
    }
}

fn float_overflow() -> datafusion::error::DataFusionError {
    raise(EvalError::new(
        EvalErrorKind::NumericOutOfRange,
        "value out of range: overflow",
    ))
}

/// Splits `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    match bytes.split_first_chunk::<N>() {
        Some((first, rest)) => {
            *bytes = rest;
            Ok(*first)
        }
        None => exec_err!("a state of an aggregate is cut off"),
    }
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values.first() {
            Some(values) => self.add(values, 1),
            None => Ok(()),
        }
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values.first() {
            Some(values) => self.add(values, -1),
            None => Ok(()),
        }
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_from(&self.result);
        }
        match &self.sum {
            Sum::Exact(sum) => self.exact_result(*sum),
            Sum::Float(sum) => self.float_result(sum),
            Sum::Interval {
                months,
                days,
                micros,
            } => self.interval_result(*months, *days, *micros),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + if let Sum::Float(sum) = &self.sum {
                sum.heap_bytes()
            } else {
                0
            }
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.retained()?))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(states) = states.first() else {
            return Ok(());
        };
        for mut bytes in states.as_binary::<i32>().iter().flatten() {
            self.count += i64::from_le_bytes(take(&mut bytes)?);
            match &mut self.sum {
                Sum::Exact(sum) => {
                    *sum = sum
                        .checked_add(i256::from_le_bytes(take(&mut bytes)?))
                        .ok_or_else(|| raise(numeric_not_held()))?;
                }
                Sum::Float(sum) => {
                    while !bytes.is_empty() {
                        sum.add(f64::from_le_bytes(take(&mut bytes)?), 1);
                    }
                }
                Sum::Interval {
                    months,
                    days,
                    micros,
                } => {
                    *months += i64::from_le_bytes(take(&mut bytes)?);
                    *days += i64::from_le_bytes(take(&mut bytes)?);
                    *micros += i128::from_le_bytes(take(&mut bytes)?);
                }
            }
        }
        Ok(())
    }
}

/// Accumulates `min` and `max`.
#[derive(Debug)]
struct Extreme {
    largest: bool,
    data_type: DataType,
    best: Option<Candidate>,
}

impl Extreme {
    fn offer(&mut self, offered: Candidate) -> Result<()> {
        let better = match &self.best {
            None => true,
            Some(best) => match offered.compare(best)? {
                // Equal in SQL, yet not the same: which one is shown must not depend on the order of rows.
                Ordering::Equal => offered.value.partial_cmp(&best.value) == Some(Ordering::Less),
                order => order.is_gt() == self.largest,
            },
        };
        if better {
            self.best = Some(offered);
        }
        Ok(())
    }
}

/// A value with its key, if its order goes by keys: each is made once.
#[derive(Debug)]
struct Candidate {
    value: ScalarValue,
    key: Option<Vec<u8>>,
}

impl Candidate {
    /// The value of a row, which is not NULL.
    fn of(values: &ArrayRef, row: usize) -> Result<Self> {
        let by_key = !is_compared_itself(values.data_type()) && order_differs(values.data_type());
        let key = by_key
            .then(|| key_bytes(values, row).map_err(|error| raise(from_type_error(&error))))
            .transpose()?;
        Ok(Self {
            value: ScalarValue::try_from_array(values, row)?,
            key,
        })
    }

    fn compare(&self, other: &Self) -> Result<Ordering> {
        match (&self.key, &other.key) {
            (Some(key), Some(other)) => Ok(key.cmp(other)),
            _ => compare(&self.value, &other.value),
        }
    }

    fn size(&self) -> usize {
        self.value.size() + self.key.as_ref().map_or(0, Vec::capacity)
    }
}

/// Whether [`compare`] knows the order of a type's values, which is not Arrow's.
const fn is_compared_itself(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Interval(_) | DataType::LargeBinary | DataType::Float64 | DataType::Float32
    )
}

/// The order of SQL's values that needs no keys; for floats, intervals and jsonb it is not Arrow's.
fn compare(left: &ScalarValue, right: &ScalarValue) -> Result<Ordering> {
    Ok(match (left, right) {
        (
            ScalarValue::IntervalMonthDayNano(Some(left)),
            ScalarValue::IntervalMonthDayNano(Some(right)),
        ) => Interval::from_arrow(*left)
            .span()
            .cmp(&Interval::from_arrow(*right).span()),
        (ScalarValue::LargeBinary(Some(left)), ScalarValue::LargeBinary(Some(right))) => {
            crate::json::compare(left, right)
        }
        (ScalarValue::Float64(Some(left)), ScalarValue::Float64(Some(right))) => {
            compare_floats(*left, *right)
        }
        (ScalarValue::Float32(Some(left)), ScalarValue::Float32(Some(right))) => {
            compare_floats(f64::from(*left), f64::from(*right))
        }
        (left, right) => match left.partial_cmp(right) {
            Some(order) => order,
            None => return exec_err!("values of {} have no order", left.data_type()),
        },
    })
}

/// NaN is equal to itself and larger than everything.
fn compare_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right)
        .unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

impl Accumulator for Extreme {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else {
            return Ok(());
        };
        for row in 0..values.len() {
            if !values.is_null(row) {
                self.offer(Candidate::of(values, row)?)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match &self.best {
            Some(best) => Ok(best.value.clone()),
            None => ScalarValue::try_from(&self.data_type),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.best.as_ref().map_or(0, Candidate::size)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// Accumulates `min` and `max` over a window frame, whose rows leave in the order in which they entered.
#[derive(Debug)]
struct SlidingExtreme {
    largest: bool,
    data_type: DataType,
    /// The values that are the answer now, or once those before them have left; with the number of values that entered before each.
    candidates: VecDeque<(usize, Candidate)>,
    entered: usize,
    left: usize,
}

impl Accumulator for SlidingExtreme {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else {
            return Ok(());
        };
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let value = Candidate::of(values, row)?;
            while let Some((_, last)) = self.candidates.back() {
                let order = last.compare(&value)?;
                if (self.largest && order.is_gt()) || (!self.largest && order.is_lt()) {
                    break;
                }
                self.candidates.pop_back();
            }
            self.candidates.push_back((self.entered, value));
            self.entered += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else {
            return Ok(());
        };
        self.left += values.len() - values.null_count();
        while self
            .candidates
            .front()
            .is_some_and(|(entered, _)| *entered < self.left)
        {
            self.candidates.pop_front();
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.candidates.front() {
            Some((_, candidate)) => Ok(candidate.value.clone()),
            None => ScalarValue::try_from(&self.data_type),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self
                .candidates
                .iter()
                .map(|(_, candidate)| candidate.size())
                .sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// Feeds each distinct value once to another accumulator.
struct DistinctValues {
    seen: HashSet<ScalarValue>,
    /// What the values take. Asked for after every batch: adding it up anew would make many batches quadratic.
    seen_bytes: usize,
    data_type: DataType,
    inner: Box<dyn Accumulator>,
}

impl fmt::Debug for DistinctValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistinctValues")
            .field("seen", &self.seen.len())
            .finish_non_exhaustive()
    }
}

impl DistinctValues {
    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        for row in 0..values.len() {
            if values.is_null(row) {
                continue;
            }
            let value = ScalarValue::try_from_array(values, row)?;
            let bytes = value.size();
            if self.seen.insert(value) {
                self.seen_bytes += bytes;
                self.inner.update_batch(&[values.slice(row, 1)])?;
            }
        }
        Ok(())
    }
}

impl Accumulator for DistinctValues {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values.first() {
            Some(values) => self.add(values),
            None => Ok(()),
        }
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.inner.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.seen_bytes + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> = self.seen.iter().cloned().collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list(
            &values,
            &self.data_type,
            true,
        ))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(states) = states.first() else {
            return Ok(());
        };
        for values in states.as_list::<i32>().iter().flatten() {
            self.add(&values)?;
        }
        Ok(())
    }
}

/// Feeds one of several values that are equal in SQL to another accumulator when the result is asked for: the least as Arrow sorts them.
struct DistinctKeys {
    values: BTreeMap<Vec<u8>, ScalarValue>,
    /// What the values and their keys take: see [`DistinctValues`].
    values_bytes: usize,
    data_type: DataType,
    inner: Box<dyn Accumulator>,
}

impl fmt::Debug for DistinctKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistinctKeys")
            .field("values", &self.values.len())
            .finish_non_exhaustive()
    }
}

impl DistinctKeys {
    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let key = key_bytes(values, row).map_err(|error| raise(from_type_error(&error)))?;
            let value = ScalarValue::try_from_array(values, row)?;
            match self.values.get_mut(&key) {
                Some(known) if value.partial_cmp(known) == Some(Ordering::Less) => {
                    self.values_bytes =
                        (self.values_bytes + value.size()).saturating_sub(known.size());
                    *known = value;
                }
                Some(_) => {}
                None => {
                    self.values_bytes += key.capacity() + value.size();
                    self.values.insert(key, value);
                }
            }
        }
        Ok(())
    }
}

impl Accumulator for DistinctKeys {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values.first() {
            Some(values) => self.add(values),
            None => Ok(()),
        }
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if !self.values.is_empty() {
            let values =
                ScalarValue::iter_to_array(std::mem::take(&mut self.values).into_values())?;
            self.values_bytes = 0;
            self.inner.update_batch(&[values])?;
        }
        self.inner.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values_bytes + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> = self.values.values().cloned().collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list(
            &values,
            &self.data_type,
            true,
        ))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(states) = states.first() else {
            return Ok(());
        };
        for values in states.as_list::<i32>().iter().flatten() {
            self.add(&values)?;
        }
        Ok(())
    }
}
