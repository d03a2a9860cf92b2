//! Arithmetic of `numeric`: exact decimals of up to 38 digits, computed in 256 bits, rounded half away from zero.
//!
//! What has no place in these digits is an error that says so: PostgreSQL's results have as many as they need. That a declared precision is exceeded, which is
//! another error, only casts know.
//!
//! Must not know Arrow arrays. Called by operators, functions, casts and aggregates.

pub(crate) mod powers;

use arrow_buffer::i256;
use flowstone_types::EvalError;
use flowstone_types::numeric::parse_numeric;

use crate::errors::{
    EvalResult, division_by_zero, from_type_error, numeric_not_held, numeric_special,
    numeric_underflow,
};

/// A decimal: `value / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numeric {
    /// All digits as an integer.
    pub(crate) value: i128,
    /// How many of them come after the point.
    pub(crate) scale: i8,
}

/// Largest scale a result gets by computation.
const COMPUTED_SCALE: i8 = 18;

/// Least scale of a quotient.
const QUOTIENT_SCALE: i8 = 16;

/// `10^exponent` in 256 bits.
pub(crate) fn power_of_ten(exponent: u32) -> EvalResult<i256> {
    i256::from_i128(10)
        .checked_pow(exponent)
        .ok_or_else(numeric_not_held)
}

/// Whether a value has at most `precision` digits.
fn fits(value: i128, precision: u8) -> bool {
    10_i128
        .checked_pow(u32::from(precision))
        .is_none_or(|limit| value.unsigned_abs() < limit.unsigned_abs())
}

/// `numerator / denominator`, rounded half away from zero. The denominator is not zero.
pub(crate) fn divide_rounded(numerator: i256, denominator: i256) -> EvalResult<i256> {
    let quotient = numerator
        .checked_div(denominator)
        .ok_or_else(numeric_not_held)?;
    let remainder = numerator
        .checked_rem(denominator)
        .ok_or_else(numeric_not_held)?;
    let twice = remainder
        .wrapping_abs()
        .checked_mul(i256::from_i128(2))
        .ok_or_else(numeric_not_held)?;
    if twice < denominator.wrapping_abs() {
        return Ok(quotient);
    }
    let away = if (numerator < i256::ZERO) == (denominator < i256::ZERO) {
        i256::ONE
    } else {
        i256::MINUS_ONE
    };
    quotient.checked_add(away).ok_or_else(numeric_not_held)
}

/// The digits of `value` at another scale, rounded half away from zero.
pub(crate) fn rescale(value: i256, from: i8, to: i8) -> EvalResult<i256> {
    let shift = i32::from(to) - i32::from(from);
    let factor = power_of_ten(shift.unsigned_abs())?;
    if shift >= 0 {
        value.checked_mul(factor).ok_or_else(numeric_not_held)
    } else {
        divide_rounded(value, factor)
    }
}

/// Back from 256 bits, if `precision` digits hold it.
pub(crate) fn narrow(value: i256, precision: u8) -> EvalResult<i128> {
    value
        .to_i128()
        .filter(|value| fits(*value, precision))
        .ok_or_else(numeric_not_held)
}

/// The scale of `left op right`.
pub(crate) fn result_scale(op: Op, left: i8, right: i8) -> i8 {
    let widest = left.max(right);
    match op {
        Op::Add | Op::Subtract | Op::Modulo => widest,
        Op::Multiply => left.saturating_add(right).min(widest.max(COMPUTED_SCALE)),
        Op::Divide => widest.max(QUOTIENT_SCALE),
    }
}

/// An arithmetic operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
}

impl Numeric {
    /// Zero decimals after the point.
    pub(crate) const fn integer(value: i128) -> Self {
        Self { value, scale: 0 }
    }

    /// The digits at scale `scale`, if `precision` of them suffice.
    pub(crate) fn rescale(self, precision: u8, scale: i8) -> EvalResult<i128> {
        if self.scale == scale && fits(self.value, precision) {
            return Ok(self.value);
        }
        narrow(
            rescale(i256::from_i128(self.value), self.scale, scale)?,
            precision,
        )
    }

    /// `self op right`, at the scale of [`result_scale`].
    pub(crate) fn apply(self, op: Op, right: Self) -> EvalResult<Self> {
        let scale = result_scale(op, self.scale, right.scale);
        let (a, b) = (i256::from_i128(self.value), i256::from_i128(right.value));
        let wide = match op {
            Op::Add | Op::Subtract => {
                if self.scale == right.scale {
                    let sum = if op == Op::Add {
                        self.value.checked_add(right.value)
                    } else {
                        self.value.checked_sub(right.value)
                    };
                    if let Some(value) = sum.filter(|value| fits(*value, 38)) {
                        return Ok(Self { value, scale });
                    }
                }
                let (a, b) = (
                    rescale(a, self.scale, scale)?,
                    rescale(b, right.scale, scale)?,
                );
                if op == Op::Add {
                    a.checked_add(b)
                } else {
                    a.checked_sub(b)
                }
                .ok_or_else(numeric_not_held)?
            }
            Op::Multiply => {
                let product = a.checked_mul(b).ok_or_else(numeric_not_held)?;
                let kept = rescale(product, self.scale.saturating_add(right.scale), scale)?;
                // Rounded to nothing is not rounded but lost.
                if kept == i256::ZERO && product != i256::ZERO {
                    return Err(numeric_underflow());
                }
                kept
            }
            Op::Divide => {
                if right.value == 0 {
                    return Err(division_by_zero());
                }
                let shift = i32::from(scale) + i32::from(right.scale) - i32::from(self.scale);
                let factor = power_of_ten(shift.unsigned_abs())?;
                let quotient = if shift >= 0 {
                    divide_rounded(a.checked_mul(factor).ok_or_else(numeric_not_held)?, b)?
                } else {
                    divide_rounded(a, b.checked_mul(factor).ok_or_else(numeric_not_held)?)?
                };
                // PostgreSQL would give it more digits.
                if quotient == i256::ZERO && self.value != 0 {
                    return Err(numeric_underflow());
                }
                quotient
            }
            Op::Modulo => {
                if right.value == 0 {
                    return Err(division_by_zero());
                }
                let (a, b) = (
                    rescale(a, self.scale, scale)?,
                    rescale(b, right.scale, scale)?,
                );
                a.checked_rem(b).ok_or_else(numeric_not_held)?
            }
        };
        Ok(Self {
            value: narrow(wide, 38)?,
            scale,
        })
    }

    /// Rounded to `digits` after the point (before it if negative), at the scale `scale`.
    pub(crate) fn reduce(self, digits: i32, scale: i8, rounding: Rounding) -> EvalResult<Self> {
        let drop = i32::from(self.scale) - digits;
        let mut value = i256::from_i128(self.value);
        if drop > 0 {
            if drop > 76 {
                return Ok(Self { value: 0, scale });
            }
            let factor = power_of_ten(drop.unsigned_abs())?;
            let truncated = value.checked_div(factor).ok_or_else(numeric_not_held)?;
            let remainder = value.checked_rem(factor).ok_or_else(numeric_not_held)?;
            let units = match rounding {
                Rounding::HalfAway => divide_rounded(value, factor)?,
                Rounding::Truncate => truncated,
                Rounding::Floor if remainder < i256::ZERO => truncated
                    .checked_sub(i256::ONE)
                    .ok_or_else(numeric_not_held)?,
                Rounding::Ceiling if remainder > i256::ZERO => truncated
                    .checked_add(i256::ONE)
                    .ok_or_else(numeric_not_held)?,
                Rounding::Floor | Rounding::Ceiling => truncated,
            };
            value = units.checked_mul(factor).ok_or_else(numeric_not_held)?;
        }
        Ok(Self {
            value: narrow(rescale(value, self.scale, scale)?, 38)?,
            scale,
        })
    }

    /// The nearest float.
    pub(crate) fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// The decimal that a float's shortest text shows with 15 significant digits, as PostgreSQL casts `float8` to `numeric`.
    pub(crate) fn from_f64(value: f64, scale: i8, lost: Lost) -> EvalResult<Self> {
        if !value.is_finite() {
            return Err(numeric_special(value));
        }
        let text = format!("{value:.14e}");
        let refused = || match lost {
            Lost::Rounded => numeric_not_held(),
            Lost::Refused => unheld_float(&text),
        };
        let (mantissa, exponent) = text.split_once('e').ok_or_else(numeric_not_held)?;
        let digits: String = mantissa.chars().filter(|letter| *letter != '.').collect();
        let digits: i128 = digits.parse().map_err(|_| numeric_not_held())?;
        let exponent: i32 = exponent.parse().map_err(|_| numeric_not_held())?;
        // value = digits · 10^(exponent - 14)
        let shift = exponent - 14 + i32::from(scale);
        if shift < -60 {
            return if digits == 0 || lost == Lost::Rounded {
                Ok(Self { value: 0, scale })
            } else {
                Err(refused())
            };
        }
        let factor = power_of_ten(shift.unsigned_abs()).map_err(|_| refused())?;
        let digits = i256::from_i128(digits);
        let wide = if shift >= 0 {
            digits.checked_mul(factor).ok_or_else(refused)?
        } else if lost == Lost::Refused && digits.checked_rem(factor) != Some(i256::ZERO) {
            return Err(refused());
        } else {
            divide_rounded(digits, factor)?
        };
        Ok(Self {
            value: narrow(wide, 38).map_err(|_| refused())?,
            scale,
        })
    }
}

/// The error of a float with this text, which plain `numeric` has no digits for.
fn unheld_float(text: &str) -> EvalError {
    let shortest = text
        .parse::<f64>()
        .map_or_else(|_| text.to_owned(), |value| format!("{value:e}"));
    parse_numeric(&shortest, None).map_or_else(
        |error| from_type_error(&error),
        // What can be parsed can be held.
        |_| numeric_not_held(),
    )
}

/// What becomes of digits of a float that have no place at its new scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// They are rounded, as a declared scale demands.
    Rounded,
    /// They are an error: PostgreSQL's plain `numeric` would keep them.
    Refused,
}

/// What happens to digits that are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// Half away from zero.
    HalfAway,
    /// Toward zero.
    Truncate,
    /// Down.
    Floor,
    /// Up.
    Ceiling,
}

/// All `scale` digits after the point.
impl std::fmt::Display for Numeric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scale = usize::try_from(self.scale).unwrap_or(0);
        let digits = format!("{:0>width$}", self.value.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let sign = if self.value < 0 { "-" } else { "" };
        if scale == 0 {
            write!(f, "{sign}{whole}")
        } else {
            write!(f, "{sign}{whole}.{fraction}")
        }
    }
}

#[cfg(test)]
mod tests {
    use flowstone_types::EvalErrorKind;

    use super::*;
    use crate::errors::division_by_zero;

    fn numeric(text: &str) -> Numeric {
        let scale = text
            .split_once('.')
            .map_or(0, |(_, fraction)| fraction.len());
        Numeric {
            value: text.replace('.', "").parse().unwrap(),
            scale: i8::try_from(scale).unwrap(),
        }
    }

    #[test]
    fn results_have_the_scale_and_the_rounding_of_postgresql() {
        let apply = |left: &str, op, right: &str| {
            numeric(left).apply(op, numeric(right)).unwrap().to_string()
        };
        assert_eq!(apply("1.10", Op::Add, "2.2"), "3.30");
        assert_eq!(apply("1.5", Op::Multiply, "-2.25"), "-3.375");
        assert_eq!(apply("10", Op::Divide, "3"), "3.3333333333333333");
        assert_eq!(apply("-2", Op::Divide, "3"), "-0.6666666666666667");
        assert_eq!(apply("-7.5", Op::Modulo, "2"), "-1.5");
    }

    #[test]
    fn products_of_default_numerics_keep_eighteen_digits_after_the_point() {
        let third = numeric("0.333333333333333333");
        assert_eq!(
            third.apply(Op::Multiply, third).unwrap().to_string(),
            "0.111111111111111111"
        );
    }

    #[test]
    fn what_would_be_rounded_to_nothing_is_an_error() {
        let small = numeric("0.000000000000000001");
        assert_eq!(
            small.apply(Op::Multiply, numeric("0.1")),
            Err(numeric_underflow())
        );
        assert_eq!(
            Numeric::integer(1).apply(Op::Divide, numeric("100000000000000000.0")),
            Err(numeric_underflow())
        );
        assert_eq!(
            Numeric::integer(0)
                .apply(Op::Divide, numeric("100000000000000000.0"))
                .unwrap(),
            numeric("0.0000000000000000")
        );
        assert_eq!(
            Numeric::from_f64(0.004, 2, Lost::Rounded).unwrap(),
            numeric("0.00")
        );
    }

    #[test]
    fn a_float_with_digits_that_numeric_has_no_place_for_is_refused_by_name() {
        for (value, shown) in [
            (1e-19, "1e-19"),
            (-1e-300, "-1e-300"),
            (1.234_567_890_123_45e-10, "1.23456789012345e-10"),
            (1e20, "1e20"),
            (1e300, "1e300"),
        ] {
            let error = Numeric::from_f64(value, 18, Lost::Refused).unwrap_err();
            assert_eq!(error.kind, EvalErrorKind::NumericNotHeld, "{value}");
            assert!(
                error
                    .message
                    .starts_with(&format!("value \"{shown}\" is not supported for")),
                "{error}"
            );
        }
        for (value, name) in [
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            let error = Numeric::from_f64(value, 2, Lost::Rounded).unwrap_err();
            assert_eq!(error, numeric_special(value));
            assert!(error.message.contains(name), "{error}");
        }
        assert_eq!(
            Numeric::from_f64(1e-18, 18, Lost::Refused).unwrap().value,
            1
        );
    }

    #[test]
    fn overflow_and_zero_divisors_are_errors() {
        let large = Numeric {
            value: 10_i128.pow(37),
            scale: 0,
        };
        assert_eq!(
            large.apply(Op::Multiply, Numeric::integer(10)),
            Err(numeric_not_held())
        );
        assert_eq!(
            large.apply(Op::Divide, Numeric::integer(0)),
            Err(division_by_zero())
        );
        assert_eq!(
            large.apply(Op::Modulo, Numeric::integer(0)),
            Err(division_by_zero())
        );
    }

    #[test]
    fn a_float_becomes_the_fifteen_digits_it_shows() {
        assert_eq!(
            Numeric::from_f64(0.1, 18, Lost::Refused)
                .unwrap()
                .to_string(),
            "0.100000000000000000"
        );
        assert_eq!(
            Numeric::from_f64(-1234.5, 2, Lost::Rounded)
                .unwrap()
                .to_string(),
            "-1234.50"
        );
    }
}
