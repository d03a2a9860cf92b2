//! The ordered-set aggregates `mode`, `percentile_disc` and `percentile_cont`.
//!
//! Owns how values are put in order and which of them is the answer. Must not know WITHIN GROUP: the value is the first argument, the fraction the second, and
//! only the direction is taken from ORDER BY.
//!
//! Invariants. NULLs are passed over. Order and equality are SQL's; which of several equal values is given does not depend on the order of rows.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, IntervalMonthDayNanoType};
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, UInt32Array, new_empty_array};
use arrow_buffer::OffsetBuffer;
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{DataType, Field, FieldRef, SortOptions};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ReversedUDAF, Signature, Volatility,
};
use flowstone_types::normalize::normalize_array;
use flowstone_types::sort_key::{key_array, order_differs};
use flowstone_types::{EvalError, EvalErrorKind, SqlType};

use crate::errors::{EvalResult, from_type_error, not_supported, raise};
use crate::growth::Growth;
use crate::interval::{Interval, to_f64, to_i64};

/// The aggregates of this module.
pub(super) fn functions() -> Vec<AggregateUDF> {
    [Kind::Mode, Kind::Discrete, Kind::Continuous]
        .into_iter()
        .map(|kind| {
            AggregateUDF::new_from_impl(OrderedSet {
                kind,
                signature: Signature::user_defined(Volatility::Immutable),
            })
        })
        .collect()
}

/// Which aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// The most frequent value, the first of several.
    Mode,
    /// The first value at or behind which is a fraction of all.
    Discrete,
    /// What is at a fraction of all, between two values if need be.
    Continuous,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrderedSet {
    kind: Kind,
    signature: Signature,
}

impl AggregateUDFImpl for OrderedSet {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Mode => "mode",
            Kind::Discrete => "percentile_disc",
            Kind::Continuous => "percentile_cont",
        }
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
        let value = match (self.kind, arg_fields) {
            (Kind::Mode, [value]) => value,
            (Kind::Discrete | Kind::Continuous, [value, fraction]) => {
                if let DataType::List(_) = fraction.data_type() {
                    let item = SqlType::from_field(value)
                        .map_err(|error| raise(from_type_error(&error)))?;
                    let list = SqlType::Array(Box::new(item));
                    return Ok(Arc::new(list.to_field(self.name(), true)));
                }
                value
            }
            _ => return plan_err!("function {} has other arguments", self.name()),
        };
        let field = Field::new(self.name(), value.data_type().clone(), true);
        Ok(Arc::new(field.with_metadata(value.metadata().clone())))
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let Some(value) = args.expr_fields.first() else {
            return plan_err!("function {} is of values", self.name());
        };
        let wanted = match (self.kind, args.exprs.get(1)) {
            (Kind::Mode, _) => Wanted::Mode,
            (kind, Some(fraction)) => {
                let nothing = RecordBatch::new_empty(Arc::new(args.schema.clone()));
                let Ok(ColumnarValue::Scalar(fraction)) = fraction.evaluate(&nothing) else {
                    return Err(raise(not_supported(format!(
                        "a fraction of {} that is no constant is not supported",
                        self.name()
                    ))));
                };
                Wanted::Percentile(kind, fraction)
            }
            (_, None) => return plan_err!("function {} has a fraction", self.name()),
        };
        Ok(Box::new(Collected {
            wanted,
            descending: args
                .order_bys
                .first()
                .is_some_and(|sort| sort.options.descending),
            data_type: value.data_type().clone(),
            result: args.return_field.data_type().clone(),
            values: Vec::new(),
            values_bytes: 0,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let item = args
            .input_fields
            .first()
            .map_or(DataType::Null, |field| field.data_type().clone());
        Ok(vec![Arc::new(Field::new(
            format_state_name(args.name, self.name()),
            DataType::List(state_item(item)),
            true,
        ))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }
}

fn state_item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, true))
}

/// What is asked of the values.
#[derive(Debug)]
enum Wanted {
    Mode,
    /// What is at a fraction or at several, and by which rule.
    Percentile(Kind, ScalarValue),
}

/// A fraction that is one.
fn checked(fraction: f64) -> EvalResult<f64> {
    if (0.0..=1.0).contains(&fraction) {
        return Ok(fraction);
    }
    Err(EvalError::new(
        EvalErrorKind::NumericOutOfRange,
        format!(
            "percentile value {} is not between 0 and 1",
            shortened(fraction)
        ),
    ))
}

/// A number with six significant digits, as C prints it with `%g`.
fn shortened(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    // The exponent is that of the rounded digits.
    let rounded = format!("{value:.5e}");
    let (digits, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |digits: &str| {
        if digits.contains('.') {
            digits
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
        } else {
            digits.to_owned()
        }
    };
    match usize::try_from(5 - exponent) {
        Ok(places) if places <= 9 => trimmed(&format!("{value:.places$}")),
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", trimmed(digits), exponent.abs())
        }
    }
}

/// Keeps values until the answer is asked for.
#[derive(Debug)]
struct Collected {
    wanted: Wanted,
    descending: bool,
    data_type: DataType,
    result: DataType,
    /// Without NULLs.
    values: Vec<ArrayRef>,
    /// What they take. Asked for after every batch: adding it up anew would make many batches quadratic.
    values_bytes: usize,
}

impl Collected {
    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        let values = if values.null_count() > 0 {
            arrow_select::filter::filter(values, &arrow::compute::is_not_null(values)?)?
        } else {
            Arc::clone(values)
        };
        if values.is_empty() {
            return Ok(());
        }
        self.values_bytes += values.to_data().get_slice_memory_size()? + size_of::<ArrayRef>();
        self.values.push(values);
        Ok(())
    }

    fn all(&self) -> Result<ArrayRef> {
        let arrays: Vec<&dyn Array> = self.values.iter().map(AsRef::as_ref).collect();
        match arrays.as_slice() {
            [] => Ok(new_empty_array(&self.data_type)),
            arrays => Ok(arrow_select::concat::concat(arrays)?),
        }
    }

    /// The rows at the fractions; `None` where the fraction is NULL.
    fn at(&self, kind: Kind, fractions: &[Option<f64>]) -> Result<ArrayRef> {
        let values = self.all()?;
        let order = Order::of(&values, self.descending)?.rows;
        if kind == Kind::Continuous {
            return between(&values, &order, fractions);
        }
        let mut growth = Growth::default();
        let mut chosen = Vec::with_capacity(fractions.len());
        for fraction in fractions {
            let row = match fraction {
                Some(fraction) => order.get(discrete(*fraction, order.len())?).copied(),
                None => None,
            };
            if let Some(row) = row {
                let place = usize::try_from(row).unwrap_or(0);
                let bytes = values.slice(place, 1).to_data().get_slice_memory_size()?;
                growth.add(bytes).map_err(raise)?;
            }
            chosen.push(row);
        }
        Ok(arrow_select::take::take(
            &values,
            &UInt32Array::from(chosen),
            None,
        )?)
    }

    fn mode(&self) -> Result<ScalarValue> {
        let values = self.all()?;
        let order = Order::of(&values, self.descending)?;
        let Some(row) = order.most_frequent() else {
            return ScalarValue::try_from(&self.result);
        };
        ScalarValue::try_from_array(&values, usize::try_from(row).unwrap_or(0))
    }

    fn percentile(&self, kind: Kind, fraction: &ScalarValue) -> Result<ScalarValue> {
        if fraction.is_null() {
            return ScalarValue::try_from(&self.result);
        }
        let fractions = match fraction {
            ScalarValue::List(list) => list.value(0),
            one => one.to_array()?,
        };
        let Some(fractions) = fractions.as_primitive_opt::<Float64Type>() else {
            return internal_err!("a fraction is no float");
        };
        let mut wanted = Vec::with_capacity(fractions.len());
        for fraction in fractions {
            wanted.push(fraction.map(checked).transpose().map_err(raise)?);
        }
        if self.values.is_empty() {
            return ScalarValue::try_from(&self.result);
        }
        let found = self.at(kind, &wanted)?;
        let (ScalarValue::List(_), DataType::List(item)) = (fraction, &self.result) else {
            return ScalarValue::try_from_array(&found, 0);
        };
        Ok(ScalarValue::List(Arc::new(ListArray::try_new(
            Arc::clone(item),
            OffsetBuffer::from_lengths([found.len()]),
            found,
            None,
        )?)))
    }
}

/// The place, in order, of a fraction of so many values, of which there is one.
fn discrete(fraction: f64, count: usize) -> Result<usize> {
    let place = (fraction * float_of(count)).ceil();
    let place = usize::try_from(to_i64(place).map_err(raise)?).unwrap_or(0);
    Ok(place.saturating_sub(1))
}

fn float_of(count: usize) -> f64 {
    to_f64(i64::try_from(count).unwrap_or(i64::MAX))
}

/// What is at fractions of values in order, of which there is one, between two of them if need be.
fn between(values: &ArrayRef, order: &[u32], fractions: &[Option<f64>]) -> Result<ArrayRef> {
    // The two values and how far it is from the first to the second.
    let places = |fraction: f64| -> Result<(usize, usize, f64)> {
        let place = fraction * float_of(order.len().saturating_sub(1));
        let row = |place: f64| -> Result<usize> {
            let place = usize::try_from(to_i64(place).map_err(raise)?).unwrap_or(0);
            match order.get(place).map(|row| usize::try_from(*row)) {
                Some(Ok(row)) => Ok(row),
                _ => internal_err!("a fraction is beyond the values"),
            }
        };
        Ok((
            row(place.floor())?,
            row(place.ceil())?,
            place - place.floor(),
        ))
    };
    if let Some(floats) = values.as_primitive_opt::<Float64Type>() {
        let mut found = Vec::with_capacity(fractions.len());
        for fraction in fractions {
            found.push(match fraction {
                Some(fraction) => {
                    let (first, second, part) = places(*fraction)?;
                    let (low, high) = (floats.value(first), floats.value(second));
                    Some(if first == second {
                        low
                    } else {
                        low + part * (high - low)
                    })
                }
                None => None,
            });
        }
        let found: ArrayRef = Arc::new(arrow_array::Float64Array::from(found));
        return Ok(normalize_array(&found));
    }
    let Some(intervals) = values.as_primitive_opt::<IntervalMonthDayNanoType>() else {
        return exec_err!("percentile_cont of {}", values.data_type());
    };
    let mut found = Vec::with_capacity(fractions.len());
    for fraction in fractions {
        found.push(match fraction {
            Some(fraction) => {
                let (first, second, part) = places(*fraction)?;
                let low = Interval::from_arrow(intervals.value(first));
                let high = Interval::from_arrow(intervals.value(second));
                let value = if first == second {
                    low
                } else {
                    part_way(low, high, part).map_err(raise)?
                };
                Some(value.to_arrow().map_err(raise)?)
            }
            None => None,
        });
    }
    Ok(Arc::new(arrow_array::IntervalMonthDayNanoArray::from(
        found,
    )))
}

fn part_way(low: Interval, high: Interval, part: f64) -> EvalResult<Interval> {
    low.add(high.add(low.negate()?)?.multiply(part)?)
}

/// The rows of an array in SQL's order; equal ones as Arrow sorts them.
struct Order {
    keys: Rows,
    rows: Vec<u32>,
}

fn rows_of(array: ArrayRef, descending: bool) -> Result<Rows> {
    let options = SortOptions {
        descending,
        nulls_first: false,
    };
    let field = SortField::new_with_options(array.data_type().clone(), options);
    Ok(RowConverter::new(vec![field])?.convert_columns(&[array])?)
}

impl Order {
    fn of(values: &ArrayRef, descending: bool) -> Result<Self> {
        let keys = key_array(values).map_err(|error| raise(from_type_error(&error)))?;
        let keys = rows_of(normalize_array(&keys), descending)?;
        let own = order_differs(values.data_type())
            .then(|| rows_of(Arc::clone(values), false))
            .transpose()?;
        let Ok(count) = u32::try_from(values.len()) else {
            return Err(raise(EvalError::new(
                EvalErrorKind::TooLarge,
                "too many values to put in order",
            )));
        };
        let mut rows: Vec<u32> = (0..count).collect();
        let place = |row: &u32| usize::try_from(*row).unwrap_or(0);
        rows.sort_unstable_by(|left, right| {
            let (left, right) = (place(left), place(right));
            keys.row(left)
                .cmp(&keys.row(right))
                .then_with(|| match &own {
                    Some(own) => own.row(left).cmp(&own.row(right)),
                    None => Ordering::Equal,
                })
        });
        Ok(Self { keys, rows })
    }

    /// The first row of the first of the longest runs of equal values.
    fn most_frequent(&self) -> Option<u32> {
        let mut best: Option<(u32, usize)> = None;
        let equal = |left: &u32, right: &u32| {
            let place = |row: &u32| usize::try_from(*row).unwrap_or(0);
            self.keys.row(place(left)) == self.keys.row(place(right))
        };
        for run in self.rows.chunk_by(equal) {
            if let Some(first) = run.first()
                && best.is_none_or(|(_, length)| run.len() > length)
            {
                best = Some((*first, run.len()));
            }
        }
        best.map(|(row, _)| row)
    }
}

impl Accumulator for Collected {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values.first() {
            Some(values) => self.add(values),
            None => Ok(()),
        }
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match &self.wanted {
            Wanted::Mode => self.mode(),
            Wanted::Percentile(kind, fraction) => self.percentile(*kind, fraction),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values_bytes
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.all()?;
        Ok(vec![ScalarValue::List(Arc::new(ListArray::try_new(
            state_item(self.data_type.clone()),
            OffsetBuffer::from_lengths([values.len()]),
            values,
            None,
        )?))])
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

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, StringArray};
    use arrow_buffer::IntervalMonthDayNano;

    use super::*;

    /// The answer over values that come in two parts, one of them as a state.
    fn answer(wanted: Wanted, descending: bool, values: &ArrayRef) -> Result<ScalarValue> {
        let new = |wanted| Collected {
            wanted,
            descending,
            data_type: values.data_type().clone(),
            result: values.data_type().clone(),
            values: Vec::new(),
            values_bytes: 0,
        };
        let half = values.len() / 2;
        let mut part = new(Wanted::Mode);
        part.update_batch(&[values.slice(0, half)])?;
        let mut whole = new(wanted);
        whole.update_batch(&[values.slice(half, values.len() - half)])?;
        whole.merge_batch(&[part.state()?.remove(0).to_array()?])?;
        whole.evaluate()
    }

    fn at(kind: Kind, fraction: f64) -> Wanted {
        Wanted::Percentile(kind, ScalarValue::Float64(Some(fraction)))
    }

    #[test]
    fn the_first_of_the_most_frequent_values_is_the_mode() {
        let values: ArrayRef = Arc::new(StringArray::from(vec![
            Some("b"),
            None,
            Some("a"),
            None,
            Some("b"),
            Some("a"),
            Some("c"),
            None,
        ]));
        assert_eq!(
            answer(Wanted::Mode, false, &values).unwrap(),
            ScalarValue::from("a")
        );
        assert_eq!(
            answer(Wanted::Mode, true, &values).unwrap(),
            ScalarValue::from("b")
        );
        let nothing = values.slice(1, 1);
        assert!(answer(Wanted::Mode, true, &nothing).unwrap().is_null());
    }

    #[test]
    fn intervals_are_ordered_and_equal_by_their_length() {
        let interval = |months, days| Some(IntervalMonthDayNano::new(months, days, 0));
        let values: ArrayRef = Arc::new(arrow_array::IntervalMonthDayNanoArray::from(vec![
            interval(0, 2),
            interval(1, 0),
            interval(0, 30),
            interval(0, 40),
        ]));
        let thirty = ScalarValue::IntervalMonthDayNano(interval(0, 30));
        assert_eq!(answer(Wanted::Mode, false, &values).unwrap(), thirty);
        assert_eq!(
            answer(at(Kind::Discrete, 0.5), true, &values).unwrap(),
            thirty
        );
        assert_eq!(
            answer(at(Kind::Continuous, 1.0 / 6.0), false, &values).unwrap(),
            ScalarValue::IntervalMonthDayNano(interval(0, 16))
        );
    }

    #[test]
    fn a_fraction_is_counted_in_the_direction_of_the_order() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![
            Some(7.0),
            Some(4.0),
            None,
            Some(1.0),
            Some(f64::NAN),
        ]));
        for (kind, fraction, descending, expected) in [
            (Kind::Discrete, 0.5, false, 4.0),
            (Kind::Discrete, 0.5, true, 7.0),
            (Kind::Discrete, 0.0, false, 1.0),
            (Kind::Discrete, 0.51, false, 7.0),
            (Kind::Continuous, 0.5, false, 5.5),
            (Kind::Continuous, 1.0, true, 1.0),
        ] {
            assert_eq!(
                answer(at(kind, fraction), descending, &values).unwrap(),
                ScalarValue::Float64(Some(expected)),
                "{kind:?} {fraction} {descending}"
            );
        }
    }

    #[test]
    fn a_fraction_beyond_one_is_an_error_even_of_nothing() {
        let nothing: ArrayRef = Arc::new(Float64Array::from(vec![None]));
        for (fraction, shown) in [
            (1.5, "1.5"),
            (2.0, "2"),
            (-1.123_456_789, "-1.12346"),
            (-0.000_012, "-1.2e-05"),
            (1234567.0, "1.23457e+06"),
            (f64::NAN, "NaN"),
        ] {
            let error = answer(at(Kind::Discrete, fraction), false, &nothing).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains(&format!("percentile value {shown} is not between 0 and 1")),
                "{error}"
            );
        }
    }
}
