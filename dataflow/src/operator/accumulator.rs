//! Accumulators of the incremental aggregates: one column of state per aggregate, one slot per group.
//!
//! Owns the arithmetic. Must not know group keys or batches beyond the argument column. `min` and `max` need the rows themselves: see [`super::extreme`].
//! Invariants. State is a function of the group's current rows, never of its history: sums are wide enough never to wrap, floats are summed exactly,
//! and range is checked only when a result is produced, so that an overflow heals when the sum returns to range.
#![expect(
    clippy::indexing_slicing,
    reason = "slots are handed out by the group table, which grows every accumulator before"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, PrimitiveBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::i256;
use arrow_row::{RowConverter, SortField};
use arrow_schema::DataType;
use flowstone_proto::plan::{Aggregate, AggregateFunction};
use flowstone_types::exact_float::ExactFloatSum;
use flowstone_types::normalize::{normalize_f32, normalize_f64};
use flowstone_types::{DeltaBatch, EvalError, EvalErrorKind, TypeError};
use hashbrown::HashMap;

use crate::Error;
use crate::batch::add_weights;
use crate::held::allocated;

/// What a map of distinct values takes. Cost: O(values).
fn distinct_bytes(values: &HashMap<Box<[u8]>, i64>) -> usize {
    let keys = values.keys().map(|value| allocated(value.len()));
    allocated(values.allocation_size()) + keys.sum::<usize>()
}

/// One aggregate over all groups.
#[derive(Debug)]
pub(crate) struct Accumulator {
    spec: Aggregate,
    output: DataType,
    argument: DataType,
    /// For `distinct`: per slot, each value's weight; the sums below then see each value once.
    distinct: Option<Distinct>,
    state: State,
    /// Bytes that slots hold on the heap.
    heap: usize,
}

#[derive(Debug)]
struct Distinct {
    converter: RowConverter,
    values: Vec<HashMap<Box<[u8]>, i64>>,
}

#[derive(Debug)]
enum State {
    Count(Vec<i64>),
    Integer {
        count: Vec<i64>,
        sum: Vec<i128>,
    },
    Decimal {
        count: Vec<i64>,
        sum: Vec<i256>,
    },
    Float {
        count: Vec<i64>,
        sum: Vec<ExactFloatSum>,
    },
    Boolean {
        trues: Vec<i64>,
        falses: Vec<i64>,
    },
}

/// Results for a list of slots: a column, and which of its rows are errors instead.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) values: ArrayRef,
    pub(crate) errors: BTreeMap<usize, EvalError>,
}

impl Accumulator {
    /// `argument`: type of the argument column, [`DataType::Null`] for `count(*)`. `output`: type of the result.
    pub(crate) fn new(
        spec: Aggregate,
        argument: DataType,
        output: DataType,
    ) -> Result<Self, Error> {
        use AggregateFunction as F;
        let unsupported = || Error::Plan(format!("{:?} of {argument} as {output}", spec.function));
        let state = match (spec.function, &argument) {
            (F::Count, _) => State::Count(Vec::new()),
            (
                F::Sum | F::Avg,
                DataType::Int16
                | DataType::Int32
                | DataType::Int64
                | DataType::UInt16
                | DataType::UInt32
                | DataType::UInt64,
            ) => State::Integer {
                count: Vec::new(),
                sum: Vec::new(),
            },
            (F::Sum | F::Avg, DataType::Decimal128(..)) => State::Decimal {
                count: Vec::new(),
                sum: Vec::new(),
            },
            (F::Sum | F::Avg, DataType::Float32 | DataType::Float64) => State::Float {
                count: Vec::new(),
                sum: Vec::new(),
            },
            (F::BoolAnd | F::BoolOr, DataType::Boolean) => State::Boolean {
                trues: Vec::new(),
                falses: Vec::new(),
            },
            _ => return Err(unsupported()),
        };
        let supported_output = match (&state, &output) {
            (State::Count(_), DataType::Int64) | (State::Boolean { .. }, DataType::Boolean) => true,
            (State::Integer { .. }, output) => {
                matches!(output, DataType::Decimal128(..))
                    || (spec.function == F::Sum
                        && matches!(output, DataType::Int64 | DataType::UInt64))
            }
            (State::Decimal { .. }, DataType::Decimal128(..))
            | (State::Float { .. }, DataType::Float32 | DataType::Float64) => true,
            _ => false,
        };
        if !supported_output || (spec.argument.is_none() && spec.function != F::Count) {
            return Err(unsupported());
        }
        // Duplicates make no difference to the other functions.
        let distinct = if spec.distinct
            && matches!(spec.function, F::Count | F::Sum | F::Avg)
            && spec.argument.is_some()
        {
            Some(Distinct {
                converter: RowConverter::new(vec![SortField::new(argument.clone())])?,
                values: Vec::new(),
            })
        } else {
            None
        };
        Ok(Self {
            spec,
            output,
            argument,
            distinct,
            state,
            heap: 0,
        })
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        let distinct = self.distinct.as_ref().map_or(0, |distinct| {
            distinct.values.capacity() * size_of::<HashMap<Box<[u8]>, i64>>()
        });
        let slots = match &self.state {
            State::Count(count) => count.capacity() * size_of::<i64>(),
            State::Integer { count, sum } => {
                count.capacity() * size_of::<i64>() + sum.capacity() * size_of::<i128>()
            }
            State::Decimal { count, sum } => {
                count.capacity() * size_of::<i64>() + sum.capacity() * size_of::<i256>()
            }
            State::Float { count, sum } => {
                count.capacity() * size_of::<i64>() + sum.capacity() * size_of::<ExactFloatSum>()
            }
            State::Boolean { trues, falses } => {
                (trues.capacity() + falses.capacity()) * size_of::<i64>()
            }
        };
        distinct + slots + self.heap
    }

    /// Makes room for `slots` groups.
    pub(crate) fn resize(&mut self, slots: usize) {
        if let Some(distinct) = &mut self.distinct {
            distinct.values.resize_with(slots, HashMap::new);
        }
        match &mut self.state {
            State::Count(count) => count.resize(slots, 0),
            State::Integer { count, sum } => {
                count.resize(slots, 0);
                sum.resize(slots, 0);
            }
            State::Decimal { count, sum } => {
                count.resize(slots, 0);
                sum.resize(slots, i256::ZERO);
            }
            State::Float { count, sum } => {
                count.resize(slots, 0);
                sum.resize_with(slots, ExactFloatSum::new);
            }
            State::Boolean { trues, falses } => {
                trues.resize(slots, 0);
                falses.resize(slots, 0);
            }
        }
    }

    /// Forgets one group.
    pub(crate) fn reset(&mut self, slot: usize) {
        if let Some(distinct) = &mut self.distinct {
            let gone = std::mem::take(&mut distinct.values[slot]);
            self.heap -= distinct_bytes(&gone);
        }
        match &mut self.state {
            State::Count(count) => count[slot] = 0,
            State::Integer { count, sum } => (count[slot], sum[slot]) = (0, 0),
            State::Decimal { count, sum } => (count[slot], sum[slot]) = (0, i256::ZERO),
            State::Float { count, sum } => {
                self.heap -= sum[slot].heap_bytes();
                (count[slot], sum[slot]) = (0, ExactFloatSum::new());
            }
            State::Boolean { trues, falses } => (trues[slot], falses[slot]) = (0, 0),
        }
    }

    /// Takes the changes of `delta` into the groups `slots` (one per row).
    pub(crate) fn update(&mut self, delta: &DeltaBatch, slots: &[u32]) -> Result<(), Error> {
        let argument = self.spec.argument.map(|column| delta.rows.column(column));
        let changes = self.changes(delta, slots, argument)?;
        match (&mut self.state, argument) {
            (State::Count(count), _) => {
                for change in changes {
                    count[change.slot] = add_weights(count[change.slot], change.weight)?;
                }
            }
            (_, None) => return Err(Error::invariant("aggregate without argument")),
            (State::Integer { count, sum }, Some(argument)) => {
                let values = integers(argument)?;
                for change in changes {
                    count[change.slot] = add_weights(count[change.slot], change.weight)?;
                    sum[change.slot] = values[change.row]
                        .checked_mul(i128::from(change.weight))
                        .and_then(|value| sum[change.slot].checked_add(value))
                        .ok_or(TypeError::WeightOverflow)?;
                }
            }
            (State::Decimal { count, sum }, Some(argument)) => {
                let values = argument.as_primitive::<Decimal128Type>();
                for change in changes {
                    count[change.slot] = add_weights(count[change.slot], change.weight)?;
                    sum[change.slot] = i256::from_i128(values.value(change.row))
                        .checked_mul(i256::from_i128(i128::from(change.weight)))
                        .and_then(|value| sum[change.slot].checked_add(value))
                        .ok_or(TypeError::WeightOverflow)?;
                }
            }
            (State::Float { count, sum }, Some(argument)) => {
                let wide = argument.as_primitive_opt::<Float64Type>();
                let narrow = argument.as_primitive_opt::<Float32Type>();
                for change in changes {
                    count[change.slot] = add_weights(count[change.slot], change.weight)?;
                    let value = match (wide, narrow) {
                        (Some(values), _) => values.value(change.row),
                        (_, Some(values)) => f64::from(values.value(change.row)),
                        _ => return Err(Error::invariant("float sum of another type")),
                    };
                    self.heap -= sum[change.slot].heap_bytes();
                    sum[change.slot].add(value, change.weight);
                    self.heap += sum[change.slot].heap_bytes();
                }
            }
            (State::Boolean { trues, falses }, Some(argument)) => {
                let values = argument.as_boolean();
                for change in changes {
                    let counts = if values.value(change.row) {
                        &mut *trues
                    } else {
                        &mut *falses
                    };
                    counts[change.slot] = add_weights(counts[change.slot], change.weight)?;
                }
            }
        }
        Ok(())
    }

    /// The results of the groups `slots`.
    pub(crate) fn evaluate(&self, slots: &[u32]) -> Result<Results, Error> {
        let mut errors = BTreeMap::new();
        let slot_numbers = || {
            slots
                .iter()
                .map(|slot| usize::try_from(*slot).unwrap_or(usize::MAX))
        };
        let values: ArrayRef = match &self.state {
            State::Count(count) => Arc::new(
                slot_numbers()
                    .map(|slot| Some(count[slot]))
                    .collect::<arrow_array::Int64Array>(),
            ),
            State::Integer { count, sum } => {
                let sums = slot_numbers().map(|slot| {
                    (count[slot] != 0).then(|| (i256::from_i128(sum[slot]), count[slot]))
                });
                self.exact(sums, 0, &mut errors)?
            }
            State::Decimal { count, sum } => {
                let scale = if let DataType::Decimal128(_, scale) = self.argument {
                    scale
                } else {
                    0
                };
                let sums =
                    slot_numbers().map(|slot| (count[slot] != 0).then(|| (sum[slot], count[slot])));
                self.exact(sums, scale, &mut errors)?
            }
            State::Float { count, sum } => {
                let mut results = Vec::with_capacity(slots.len());
                for (row, slot) in slot_numbers().enumerate() {
                    results.push(if count[slot] == 0 {
                        None
                    } else {
                        self.float(&sum[slot], count[slot], row, &mut errors)
                    });
                }
                if self.output == DataType::Float32 {
                    #[expect(
                        clippy::as_conversions,
                        reason = "the result of a real aggregate is rounded to real; its range was checked"
                    )]
                    let narrow = |value: f64| normalize_f32(value as f32);
                    Arc::new(
                        results
                            .into_iter()
                            .map(|value| value.map(narrow))
                            .collect::<arrow_array::Float32Array>(),
                    )
                } else {
                    Arc::new(results.into_iter().collect::<arrow_array::Float64Array>())
                }
            }
            State::Boolean { trues, falses } => {
                let mut results = BooleanBuilder::with_capacity(slots.len());
                for slot in slot_numbers() {
                    results.append_option(
                        match (self.spec.function, trues[slot] != 0, falses[slot] != 0) {
                            (_, false, false) => None,
                            (AggregateFunction::BoolAnd, _, some_false) => Some(!some_false),
                            (_, some_true, _) => Some(some_true),
                        },
                    );
                }
                Arc::new(results.finish())
            }
        };
        Ok(Results { values, errors })
    }

    /// The rows that take part, with the weights that count: FILTER, NULL arguments and DISTINCT are settled here.
    fn changes(
        &mut self,
        delta: &DeltaBatch,
        slots: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<Vec<Change>, Error> {
        let filter = self
            .spec
            .filter
            .map(|column| delta.rows.column(column).as_boolean());
        let mut changes = Vec::with_capacity(delta.len());
        for (row, slot) in slots.iter().enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if passes && argument.is_none_or(|argument| argument.is_valid(row)) {
                changes.push(Change {
                    row,
                    slot: usize::try_from(*slot).unwrap_or(usize::MAX),
                    weight: delta.weights.get(row),
                });
            }
        }
        let (Some(distinct), Some(argument)) = (&mut self.distinct, argument) else {
            return Ok(changes);
        };
        let encoded = distinct
            .converter
            .convert_columns(std::slice::from_ref(argument))?;
        let heap = &mut self.heap;
        let mut failure = None;
        changes.retain_mut(|change| {
            let values = &mut distinct.values[change.slot];
            let value = encoded.row(change.row);
            let before = values.get(value.data()).copied().unwrap_or(0);
            let Some(after) = before.checked_add(change.weight) else {
                failure = Some(TypeError::WeightOverflow);
                return false;
            };
            if after == 0 {
                if values.remove(value.data()).is_some() {
                    *heap -= allocated(value.data().len());
                }
            } else {
                let table = values.allocation_size();
                if before == 0 {
                    *heap += allocated(value.data().len());
                }
                *values.entry_ref(value.data()).or_insert(0) = after;
                *heap += allocated(values.allocation_size());
                *heap -= allocated(table);
            }
            change.weight = i64::from(after > 0) - i64::from(before > 0);
            change.weight != 0
        });
        failure.map_or(Ok(changes), |error| Err(error.into()))
    }

    /// Sums or averages of exact numbers whose unit is `10^-scale`; `None` for a group without values.
    fn exact(
        &self,
        sums: impl Iterator<Item = Option<(i256, i64)>>,
        scale: i8,
        errors: &mut BTreeMap<usize, EvalError>,
    ) -> Result<ArrayRef, Error> {
        let mut results: Vec<Option<i128>> = Vec::new();
        let out_of_range =
            |message: &str| EvalError::new(EvalErrorKind::NumericOutOfRange, message);
        let (low, high, out_scale, error) = match &self.output {
            DataType::Int64 => (
                i128::from(i64::MIN),
                i128::from(i64::MAX),
                0,
                out_of_range("bigint out of range"),
            ),
            DataType::UInt64 => (
                0,
                i128::from(u64::MAX),
                0,
                out_of_range("uint8 out of range"),
            ),
            DataType::Decimal128(precision, scale) => {
                let limit = 10_i128
                    .checked_pow(u32::from(*precision))
                    .ok_or_else(|| Error::invariant("precision"))?
                    - 1;
                (-limit, limit, *scale, EvalError::numeric_not_held())
            }
            other => return Err(Error::invariant(format!("exact sum as {other}"))),
        };
        for (row, sum) in sums.enumerate() {
            let result = sum.map(|(sum, count)| {
                let divisor = if self.spec.function == AggregateFunction::Avg {
                    count
                } else {
                    1
                };
                rescale(sum, i32::from(out_scale) - i32::from(scale), divisor)
                    .filter(|value| (low..=high).contains(value))
            });
            if result == Some(None) {
                errors.insert(row, error.clone());
            }
            results.push(result.flatten());
        }
        Ok(match &self.output {
            DataType::Int64 => primitive::<Int64Type>(results, |value| i64::try_from(value).ok()),
            DataType::UInt64 => primitive::<UInt64Type>(results, |value| u64::try_from(value).ok()),
            output => {
                let values = results
                    .into_iter()
                    .collect::<arrow_array::Decimal128Array>();
                Arc::new(values.with_data_type(output.clone()))
            }
        })
    }

    fn float(
        &self,
        sum: &ExactFloatSum,
        count: i64,
        row: usize,
        errors: &mut BTreeMap<usize, EvalError>,
    ) -> Option<f64> {
        let mut out_of_range = || {
            errors.insert(
                row,
                EvalError::new(
                    EvalErrorKind::NumericOutOfRange,
                    "value out of range: overflow",
                ),
            );
            None
        };
        let Some(value) = sum.checked_value() else {
            return out_of_range();
        };
        #[expect(
            clippy::as_conversions,
            reason = "a count above 2^53 is rounded, as in PostgreSQL"
        )]
        let value = if self.spec.function == AggregateFunction::Avg {
            value / count as f64
        } else {
            value
        };
        if self.output == DataType::Float32 && value.is_finite() {
            #[expect(
                clippy::as_conversions,
                reason = "rounds to real, to see whether it is still finite"
            )]
            let narrow = value as f32;
            if narrow.is_infinite() {
                return out_of_range();
            }
        }
        Some(normalize_f64(value))
    }
}

#[derive(Clone, Copy)]
struct Change {
    row: usize,
    slot: usize,
    weight: i64,
}

/// `value · 10^by / divisor`, rounded half away from zero; `None` if it does not fit.
fn rescale(value: i256, by: i32, divisor: i64) -> Option<i128> {
    let ten = |power: u32| i256::from_i128(10).checked_pow(power);
    let mut numerator = value;
    let mut denominator = i256::from_i128(i128::from(divisor));
    if by >= 0 {
        numerator = numerator.checked_mul(ten(by.unsigned_abs())?)?;
    } else {
        denominator = denominator.checked_mul(ten(by.unsigned_abs())?)?;
    }
    let quotient = numerator.checked_div(denominator)?;
    let remainder = numerator.checked_rem(denominator)?;
    let doubled = remainder.checked_abs()?.checked_mul(i256::from_i128(2))?;
    let rounded = if doubled >= denominator.checked_abs()? {
        quotient.checked_add(if (numerator < i256::ZERO) == (denominator < i256::ZERO) {
            i256::ONE
        } else {
            i256::MINUS_ONE
        })?
    } else {
        quotient
    };
    rounded.to_i128()
}

fn primitive<T: ArrowPrimitiveType>(
    values: Vec<Option<i128>>,
    narrow: impl Fn(i128) -> Option<T::Native>,
) -> ArrayRef {
    let mut builder = PrimitiveBuilder::<T>::with_capacity(values.len());
    for value in values {
        builder.append_option(value.and_then(&narrow));
    }
    Arc::new(builder.finish())
}

fn integers(array: &ArrayRef) -> Result<Vec<i128>, Error> {
    macro_rules! widen {
        ($kind:ty) => {
            array
                .as_primitive::<$kind>()
                .values()
                .iter()
                .map(|value| i128::from(*value))
                .collect()
        };
    }
    Ok(match array.data_type() {
        DataType::Int16 => widen!(Int16Type),
        DataType::Int32 => widen!(Int32Type),
        DataType::Int64 => widen!(Int64Type),
        DataType::UInt16 => widen!(UInt16Type),
        DataType::UInt32 => widen!(UInt32Type),
        DataType::UInt64 => widen!(UInt64Type),
        other => return Err(Error::invariant(format!("integer sum of {other}"))),
    })
}
