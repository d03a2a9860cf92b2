//! `stddev`, `variance` and their like: of integers and `numeric` exact and `numeric`, of floats DataFusion's.
//!
//! Owns the sums of exact numbers and of their squares. Must not know how the result of a type is chosen: `resolve` casts.
//!
//! Invariants. No floats: sums are integers of 256 bits, so that no result depends on the order of rows, and what entered can leave. What has no place in
//! them, or the result in `numeric`, is an error.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use arrow_buffer::i256;
use arrow_schema::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::stddev::{stddev_pop_udaf, stddev_udaf};
use datafusion::functions_aggregate::variance::{var_pop_udaf, var_samp_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
    Volatility,
};
use flowstone_types::SqlType;

use super::{DistinctValues, take};
use crate::cast::convert;
use crate::errors::{EvalResult, numeric_not_held, numeric_underflow, raise};
use crate::numeric::powers::nearest_root;
use crate::numeric::{divide_rounded, narrow, power_of_ten, rescale};

/// Significant digits that PostgreSQL gives a quotient, at least.
const QUOTIENT_DIGITS: i32 = 16;
/// Digits that PostgreSQL's `numeric` keeps as one.
const DIGITS_OF_ONE: i32 = 4;
/// Most digits after the point that are computed: twice those that are kept.
const COMPUTED_SCALE_MAX: i32 = 36;

/// The aggregates of this module, under DataFusion's names.
pub(super) fn functions() -> Vec<AggregateUDF> {
    [
        (Of::Sample, Root::Taken, stddev_udaf()),
        (Of::Population, Root::Taken, stddev_pop_udaf()),
        (Of::Sample, Root::Left, var_samp_udaf()),
        (Of::Population, Root::Left, var_pop_udaf()),
    ]
    .into_iter()
    .map(|(of, root, floats)| {
        AggregateUDF::new_from_impl(Deviation {
            of,
            root,
            floats,
            signature: Signature::user_defined(Volatility::Immutable),
        })
    })
    .collect()
}

/// What the values are of that which is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Of {
    Sample,
    Population,
}

/// Whether the square root is taken of the variance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Root {
    Taken,
    Left,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Deviation {
    of: Of,
    root: Root,
    /// The same of floats.
    floats: Arc<AggregateUDF>,
    signature: Signature,
}

fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Decimal128(..))
}

fn are_exact(fields: &[FieldRef]) -> bool {
    fields
        .first()
        .is_some_and(|field| is_exact(field.data_type()))
}

impl AggregateUDFImpl for Deviation {
    fn name(&self) -> &str {
        self.floats.name()
    }

    fn aliases(&self) -> &[String] {
        self.floats.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [argument] if is_exact(argument) => Ok(SqlType::Numeric(None).to_arrow()),
            _ => self.floats.return_type(arg_types),
        }
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let Some(argument) = args.expr_fields.first() else {
            return self.floats.accumulator(args);
        };
        if !is_exact(argument.data_type()) {
            return self.floats.accumulator(args);
        }
        let data_type = argument.data_type().clone();
        let inner = Box::new(Squares::new(self.of, self.root, &data_type));
        if args.is_distinct {
            return Ok(Box::new(DistinctValues {
                seen: HashSet::new(),
                seen_bytes: 0,
                data_type,
                inner,
            }));
        }
        Ok(inner)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let Some(argument) = args.input_fields.first() else {
            return self.floats.state_fields(args);
        };
        if !is_exact(argument.data_type()) {
            return self.floats.state_fields(args);
        }
        let data_type = if args.is_distinct {
            DataType::List(Arc::new(Field::new(
                "item",
                argument.data_type().clone(),
                true,
            )))
        } else {
            DataType::Binary
        };
        Ok(vec![Arc::new(Field::new(
            format_state_name(args.name, self.name()),
            data_type,
            true,
        ))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !are_exact(args.expr_fields) && self.floats.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        self.floats.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        if are_exact(args.expr_fields) {
            self.accumulator(args)
        } else {
            self.floats.create_sliding_accumulator(args)
        }
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// Sums of numbers and of their squares.
#[derive(Debug)]
struct Squares {
    of: Of,
    root: Root,
    /// What arguments are converted to.
    wide: DataType,
    /// Digits of the argument after the point; the squares have twice as many.
    scale: i8,
    /// Whether values have that many digits because they were declared to.
    declared: bool,
    count: i64,
    sum: i256,
    squares: i256,
}

impl Squares {
    fn new(of: Of, root: Root, argument: &DataType) -> Self {
        let scale = match argument {
            DataType::Decimal128(_, scale) => *scale,
            _ => 0,
        };
        Self {
            of,
            root,
            wide: DataType::Decimal128(38, scale),
            scale,
            declared: *argument != SqlType::Numeric(None).to_arrow(),
            count: 0,
            sum: i256::ZERO,
            squares: i256::ZERO,
        }
    }

    /// Adds values that came (`weight` 1) or went (−1).
    fn add(&mut self, values: &ArrayRef, weight: i8) -> Result<()> {
        let values = convert(values, &self.wide)?;
        for value in values.as_primitive::<Decimal128Type>().iter().flatten() {
            self.add_value(value, weight).map_err(raise)?;
        }
        Ok(())
    }

    fn add_value(&mut self, value: i128, weight: i8) -> EvalResult<()> {
        let square = match value.checked_mul(value) {
            Some(square) => i256::from_i128(square),
            None => {
                let value = i256::from_i128(value);
                value.checked_mul(value).ok_or_else(numeric_not_held)?
            }
        };
        let value = i256::from_i128(value);
        let (sum, squares) = if weight < 0 {
            (
                self.sum.checked_sub(value),
                self.squares.checked_sub(square),
            )
        } else {
            (
                self.sum.checked_add(value),
                self.squares.checked_add(square),
            )
        };
        self.sum = sum.ok_or_else(numeric_not_held)?;
        self.squares = squares.ok_or_else(numeric_not_held)?;
        self.count += i64::from(weight);
        Ok(())
    }

    /// The digits of the result, if there is one.
    fn result(&self, scale: i8) -> EvalResult<Option<i256>> {
        let fewest = if self.of == Of::Sample { 2 } else { 1 };
        if self.count < fewest {
            return Ok(None);
        }
        let count = i256::from_i128(i128::from(self.count));
        let other = match self.of {
            Of::Sample => i256::from_i128(i128::from(self.count) - 1),
            Of::Population => count,
        };
        let held = |value: Option<i256>| value.ok_or_else(numeric_not_held);
        let numerator = held(
            held(count.checked_mul(self.squares))?
                .checked_sub(held(self.sum.checked_mul(self.sum))?),
        )?;
        if numerator <= i256::ZERO {
            return Ok(Some(i256::ZERO));
        }
        let denominator = held(count.checked_mul(other))?;
        let (numerator, numerator_scale) = self.shown(numerator)?;
        let computed = quotient_scale(numerator, numerator_scale, denominator)?;
        let shift = computed - numerator_scale;
        let factor = power_of_ten(shift.unsigned_abs())?;
        let variance = if shift >= 0 {
            divide_rounded(held(numerator.checked_mul(factor))?, denominator)?
        } else {
            divide_rounded(numerator, held(denominator.checked_mul(factor))?)?
        };
        let value = match self.root {
            Root::Left => variance,
            Root::Taken => nearest_root(held(
                variance.checked_mul(power_of_ten(computed.unsigned_abs())?),
            )?)?,
        };
        let computed = i8::try_from(computed).map_err(|_| numeric_not_held())?;
        let kept = rescale(value, computed, scale)?;
        // PostgreSQL would give it more digits.
        if kept == i256::ZERO {
            return Err(numeric_underflow());
        }
        Ok(Some(kept))
    }

    /// The squares with the digits after the point that PostgreSQL would see: no zeros that are there only because every `numeric` has them.
    fn shown(&self, squares: i256) -> EvalResult<(i256, i32)> {
        let (mut squares, mut scale) = (squares, 2 * i32::from(self.scale));
        let ten = i256::from_i128(10);
        while !self.declared && scale > 0 {
            let (Some(quotient), Some(remainder)) =
                (squares.checked_div(ten), squares.checked_rem(ten))
            else {
                return Err(numeric_not_held());
            };
            if remainder != i256::ZERO {
                break;
            }
            (squares, scale) = (quotient, scale - 1);
        }
        Ok((squares, scale))
    }
}

/// Digits after the point that PostgreSQL gives `numerator / 10^scale / denominator`, both of which are positive.
fn quotient_scale(numerator: i256, scale: i32, denominator: i256) -> EvalResult<i32> {
    let (weight, first) = leading(numerator, scale)?;
    let (other_weight, other_first) = leading(denominator, 0)?;
    let mut quotient = weight - other_weight;
    if first <= other_first {
        quotient -= 1;
    }
    Ok((QUOTIENT_DIGITS - quotient * DIGITS_OF_ONE)
        .max(scale)
        .clamp(0, COMPUTED_SCALE_MAX))
}

/// The place of the first digit in base 10 000 of `value / 10^scale`, which is positive, and that digit.
fn leading(value: i256, scale: i32) -> EvalResult<(i32, i256)> {
    let last = value
        .checked_ilog10()
        .and_then(|last| i32::try_from(last).ok())
        .ok_or_else(numeric_not_held)?;
    let weight = (last - scale).div_euclid(DIGITS_OF_ONE);
    let shift = scale + weight * DIGITS_OF_ONE;
    let factor = power_of_ten(shift.unsigned_abs())?;
    let first = if shift >= 0 {
        value.checked_div(factor)
    } else {
        value.checked_mul(factor)
    };
    Ok((weight, first.ok_or_else(numeric_not_held)?))
}

impl Accumulator for Squares {
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
        let DataType::Decimal128(precision, scale) = SqlType::Numeric(None).to_arrow() else {
            return datafusion::common::internal_err!("numeric is no decimal");
        };
        let value = self
            .result(scale)
            .and_then(|value| value.map(|value| narrow(value, precision)).transpose())
            .map_err(raise)?;
        Ok(ScalarValue::Decimal128(value, precision, scale))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut bytes = self.count.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.sum.to_le_bytes());
        bytes.extend_from_slice(&self.squares.to_le_bytes());
        Ok(vec![ScalarValue::Binary(Some(bytes))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(states) = states.first() else {
            return Ok(());
        };
        let overflow = || raise(numeric_not_held());
        for mut bytes in states.as_binary::<i32>().iter().flatten() {
            self.count += i64::from_le_bytes(take(&mut bytes)?);
            let sum = i256::from_le_bytes(take(&mut bytes)?);
            let squares = i256::from_le_bytes(take(&mut bytes)?);
            self.sum = self.sum.checked_add(sum).ok_or_else(overflow)?;
            self.squares = self.squares.checked_add(squares).ok_or_else(overflow)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Array, Decimal128Array, Int64Array};

    use super::*;

    fn shown(value: &ScalarValue) -> String {
        let ScalarValue::Decimal128(Some(value), _, scale) = value else {
            return "NULL".to_owned();
        };
        let mut text = String::new();
        flowstone_types::numeric::format_numeric(*value, *scale, None, &mut text);
        text
    }

    /// All four of some values: of a sample and of a population, with the root and without.
    fn all(values: &ArrayRef) -> [String; 4] {
        [
            (Of::Sample, Root::Taken),
            (Of::Population, Root::Taken),
            (Of::Sample, Root::Left),
            (Of::Population, Root::Left),
        ]
        .map(|(of, root)| {
            let mut whole = Squares::new(of, root, values.data_type());
            whole.update_batch(&[Arc::clone(values)]).unwrap();
            // In parts, and with a value that comes and goes.
            let mut parts = Squares::new(of, root, values.data_type());
            for row in 0..values.len() {
                let mut part = Squares::new(of, root, values.data_type());
                part.update_batch(&[values.slice(row, 1)]).unwrap();
                let state = part.state().unwrap().remove(0).to_array().unwrap();
                parts.merge_batch(&[state]).unwrap();
                parts.update_batch(&[values.slice(row, 1)]).unwrap();
                parts.retract_batch(&[values.slice(row, 1)]).unwrap();
            }
            let found = whole.evaluate().unwrap();
            assert_eq!(found, parts.evaluate().unwrap());
            shown(&found)
        })
    }

    fn integers(values: &[Option<i64>]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    // The expectations are PostgreSQL's, without zeros at the end.
    #[test]
    fn deviations_of_integers_are_exact_and_have_the_digits_of_a_quotient() {
        assert_eq!(
            all(&integers(&[Some(1), Some(4), Some(4), None])),
            ["1.7320508075688773", "1.414213562373095", "3", "2"]
        );
        assert_eq!(
            all(&integers(&[
                Some(10_000_000_000),
                Some(20_000_000_001),
                Some(5)
            ])),
            [
                "9999999998",
                "8164965808",
                "99999999960000000007",
                "66666666640000000005"
            ]
        );
        assert_eq!(all(&integers(&[Some(7)])), ["NULL", "0", "NULL", "0"]);
        assert_eq!(all(&integers(&[None])), ["NULL"; 4]);
    }

    #[test]
    fn deviations_of_declared_decimals_have_the_digits_of_their_squares() {
        let values = Decimal128Array::from(vec![125, 10_000_050, 1]);
        let values: ArrayRef = Arc::new(values.with_precision_and_scale(10, 2).unwrap());
        let found = all(&values);
        assert_eq!(
            [&found[0], &found[3], &found[2]],
            ["57734.95186676", "2222216444.70446667", "3333324667.0567"]
        );
    }

    #[test]
    fn a_variance_without_a_place_in_numeric_is_an_error() {
        let values = integers(&[Some(1_000_000_000_000_000_000), Some(i64::MAX)]);
        let mut variance = Squares::new(Of::Sample, Root::Left, values.data_type());
        variance.update_batch(&[Arc::clone(&values)]).unwrap();
        assert!(variance.evaluate().is_err());
        let mut deviation = Squares::new(Of::Sample, Root::Taken, values.data_type());
        deviation.update_batch(&[values]).unwrap();
        assert_eq!(shown(&deviation.evaluate().unwrap()), "5814802131479843581");
    }
}
