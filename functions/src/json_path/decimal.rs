//! Numbers that paths compute with: decimals of as many digits as 256 bits hold.
//!
//! Owns the digits of a quotient, of which there are as many as PostgreSQL's `numeric` gives it. What has no place is an error that says so.

use arrow_buffer::i256;
use flowstone_types::jsonb::JsonbNumber;

use super::Arithmetic;
use crate::errors::{EvalResult, numeric_not_held};
use crate::numeric::{divide_rounded, power_of_ten};

/// Longest text of a number that may fit.
const TEXT_BYTES_MAX: usize = 160;
/// Digits of a quotient that tell something, by PostgreSQL's rule.
const QUOTIENT_DIGITS: i64 = 16;
/// Decimal digits that PostgreSQL takes together.
const GROUP: i64 = 4;
/// Most digits of a quotient behind the point.
const QUOTIENT_SCALE_MAX: i64 = 1000;

/// `value / 10^scale`
#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal {
    value: i256,
    scale: u32,
}

impl Decimal {
    /// Reads a number of a document.
    pub(super) fn read(number: JsonbNumber<'_>) -> EvalResult<Self> {
        let text = number.to_string();
        if text.len() > TEXT_BYTES_MAX {
            return Err(numeric_not_held());
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let value =
            i256::from_string(&format!("{whole}{fraction}")).ok_or_else(numeric_not_held)?;
        let scale = u32::try_from(fraction.len()).map_err(|_| numeric_not_held())?;
        Ok(Self { value, scale })
    }

    fn at_scale(self, scale: u32) -> EvalResult<i256> {
        let factor = power_of_ten(scale.saturating_sub(self.scale))?;
        self.value.checked_mul(factor).ok_or_else(numeric_not_held)
    }

    /// `self op right`; `None` for a division by zero.
    pub(super) fn apply(self, op: Arithmetic, right: Self) -> EvalResult<Option<Self>> {
        if matches!(op, Arithmetic::Divide | Arithmetic::Modulo) && right.value == i256::ZERO {
            return Ok(None);
        }
        if op == Arithmetic::Divide {
            return self.divide(right).map(Some);
        }
        let scale = match op {
            Arithmetic::Multiply => self.scale + right.scale,
            _ => self.scale.max(right.scale),
        };
        let value = if op == Arithmetic::Multiply {
            self.value.checked_mul(right.value)
        } else {
            let (left, right) = (self.at_scale(scale)?, right.at_scale(scale)?);
            match op {
                Arithmetic::Add => left.checked_add(right),
                Arithmetic::Subtract => left.checked_sub(right),
                _ => left.checked_rem(right),
            }
        };
        let value = value.ok_or_else(numeric_not_held)?;
        Ok(Some(Self { value, scale }))
    }

    fn divide(self, right: Self) -> EvalResult<Self> {
        let (weight, first) = self.leading_group();
        let (right_weight, right_first) = right.leading_group();
        let quotient_weight = weight - right_weight - i64::from(first <= right_first);
        let scale = (QUOTIENT_DIGITS - quotient_weight * GROUP)
            .max(i64::from(self.scale.max(right.scale)))
            .min(QUOTIENT_SCALE_MAX);
        let scale = u32::try_from(scale).map_err(|_| numeric_not_held())?;
        let (mut left, mut divisor) = (self.value, right.value);
        let shifted = i64::from(scale) + i64::from(right.scale) - i64::from(self.scale);
        let factor = power_of_ten(u32::try_from(shifted.abs()).map_err(|_| numeric_not_held())?)?;
        let side = if shifted >= 0 {
            &mut left
        } else {
            &mut divisor
        };
        *side = side.checked_mul(factor).ok_or_else(numeric_not_held)?;
        Ok(Self {
            value: divide_rounded(left, divisor)?,
            scale,
        })
    }

    /// The power of 10 000 of the first group of digits, counted from the point, and the group.
    fn leading_group(self) -> (i64, u32) {
        if self.value == i256::ZERO {
            return (0, 0);
        }
        let digits = self.value.wrapping_abs().to_string();
        let before_point = i64::try_from(digits.len()).unwrap_or(0) - i64::from(self.scale);
        let weight = (before_point - 1).div_euclid(GROUP);
        let count = usize::try_from(before_point - weight * GROUP).unwrap_or(0);
        let group = digits
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(count)
            .fold(0, |group, digit| group * 10 + u32::from(digit - b'0'));
        (weight, group)
    }

    /// The largest integer that is not above, or the least that is not below.
    pub(super) fn rounded(self, up: bool) -> EvalResult<Self> {
        let unit = power_of_ten(self.scale)?;
        let whole = self.value.checked_div(unit).ok_or_else(numeric_not_held)?;
        let rest = self.value.checked_rem(unit).ok_or_else(numeric_not_held)?;
        let step = match (up, rest.cmp(&i256::ZERO)) {
            (true, std::cmp::Ordering::Greater) => i256::ONE,
            (false, std::cmp::Ordering::Less) => i256::MINUS_ONE,
            _ => i256::ZERO,
        };
        let value = whole.checked_add(step).ok_or_else(numeric_not_held)?;
        Ok(Self { value, scale: 0 })
    }
}

/// All digits, as JSON has them.
impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.value < i256::ZERO {
            f.write_str("-")?;
        }
        let scale = usize::try_from(self.scale).unwrap_or(0);
        let digits = format!(
            "{:0>width$}",
            self.value.wrapping_abs().to_string(),
            width = scale + 1
        );
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        f.write_str(whole)?;
        if fraction.is_empty() {
            return Ok(());
        }
        write!(f, ".{fraction}")
    }
}
