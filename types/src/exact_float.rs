//! Exact sums of floats: the result depends on the summed multiset alone, never on the order or on what was retracted.
//!
//! Owns [`ExactFloatSum`], the accumulator behind `sum` and `avg` of `real` and `double precision`.
//! Must not know about groups or batches. Called by `dataflow`'s accumulators and by the one-shot aggregates of `functions`.
//!
//! Invariants. Finite values are summed without any rounding; only [`ExactFloatSum::value`] rounds, once, to nearest even.
//! Adding a value and then retracting it leaves a sum that behaves as if neither had happened.
#![expect(
    clippy::indexing_slicing,
    reason = "limb positions are computed from exponents of f64, which bound them below LIMBS"
)]
#![expect(
    clippy::as_conversions,
    reason = "narrowing of words and exponents whose ranges are fixed by the f64 format"
)]

/// Exponent of the lowest bit of a [`Wide`] sum: the smallest subnormal is 2^-1074.
const LOWEST_EXPONENT: i32 = -1074;
/// 2098 bits for any f64 times any number of ones, 64 for a weight, the rest for carries: more additions than fit any table.
const LIMBS: usize = 36;
const MANTISSA_BITS: u32 = 52;

/// An exact, retractable sum of weighted `f64`s.
///
/// Infinities and NaNs are counted beside the finite sum, so that they too can be retracted.
/// Memory: 48 bytes while the summed values lie within about 100 binary orders of magnitude of one another, 290 more once they do not.
#[derive(Clone, Debug, Default)]
pub struct ExactFloatSum {
    finite: Finite,
    special: Option<Box<Special>>,
}

#[derive(Clone, Debug)]
enum Finite {
    /// `sum · 2^exponent`. A zero sum has any exponent.
    Small {
        exponent: i32,
        sum: i128,
    },
    Wide(Box<Wide>),
}

impl Default for Finite {
    fn default() -> Self {
        Self::Small {
            exponent: 0,
            sum: 0,
        }
    }
}

/// Fixed point in two's complement, little-endian limbs; bit 0 is worth 2^-1074.
type Wide = [u64; LIMBS];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Special {
    nan: i64,
    positive: i64,
    negative: i64,
}

impl ExactFloatSum {
    /// The sum of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `value` `weight` times; a negative weight retracts.
    pub fn add(&mut self, value: f64, weight: i64) {
        if weight == 0 {
            return;
        }
        if !value.is_finite() {
            self.add_special(if value.is_nan() {
                Special {
                    nan: weight,
                    ..Special::default()
                }
            } else if value > 0.0 {
                Special {
                    positive: weight,
                    ..Special::default()
                }
            } else {
                Special {
                    negative: weight,
                    ..Special::default()
                }
            });
            return;
        }
        let (mantissa, exponent) = decompose(value);
        if mantissa != 0 {
            // At most 53 + 63 bits.
            self.finite
                .add(i128::from(mantissa) * i128::from(weight), exponent);
        }
    }

    /// Adds everything `other` has summed.
    pub fn merge(&mut self, other: &Self) {
        if let Some(special) = other.special.as_deref() {
            self.add_special(*special);
        }
        match &other.finite {
            Finite::Small { exponent, sum } => {
                if *sum != 0 {
                    self.finite.add(*sum, *exponent);
                }
            }
            Finite::Wide(other) => {
                let wide = self.finite.widen();
                let mut carry = false;
                for (limb, addend) in wide.iter_mut().zip(other.iter()) {
                    let (partial, first) = limb.overflowing_add(*addend);
                    let (total, second) = partial.overflowing_add(u64::from(carry));
                    (*limb, carry) = (total, first || second);
                }
                self.finite.narrow_zero();
            }
        }
    }

    /// Whether the sum holds nothing: no finite remainder and no infinity or NaN.
    ///
    /// Values that cancel (1.0 and −1.0) also leave it empty; count values beside the sum to tell "none" from "zero".
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.special.is_none() && matches!(self.finite, Finite::Small { sum: 0, .. })
    }

    /// The sum, correctly rounded to nearest even. A finite sum outside the range of `f64` is an infinity (see [`Self::checked_value`]).
    ///
    /// NaN if a NaN or both infinities take part; zero is always +0.0.
    #[must_use]
    pub fn value(&self) -> f64 {
        if let Some(special) = self.special.as_deref() {
            return match (
                special.nan != 0,
                special.positive != 0,
                special.negative != 0,
            ) {
                (true, _, _) | (_, true, true) => f64::NAN,
                (_, true, false) => f64::INFINITY,
                _ => f64::NEG_INFINITY,
            };
        }
        self.finite.value()
    }

    /// As [`Self::value`], but `None` if finite values add up to something outside the range of `f64`, which SQL reports as an error.
    #[must_use]
    pub fn checked_value(&self) -> Option<f64> {
        let value = self.value();
        (value.is_finite() || self.special.is_some()).then_some(value)
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let wide = if matches!(self.finite, Finite::Wide(_)) {
            size_of::<Wide>()
        } else {
            0
        };
        wide + if self.special.is_some() {
            size_of::<Special>()
        } else {
            0
        }
    }

    fn add_special(&mut self, change: Special) {
        let mut sum = self
            .special
            .take()
            .map_or_else(Special::default, |special| *special);
        sum.nan = sum.nan.wrapping_add(change.nan);
        sum.positive = sum.positive.wrapping_add(change.positive);
        sum.negative = sum.negative.wrapping_add(change.negative);
        self.special = (sum != Special::default()).then(|| Box::new(sum));
    }
}

impl Finite {
    /// Adds `amount · 2^at`, `amount` not zero.
    fn add(&mut self, amount: i128, at: i32) {
        if let Self::Small { exponent, sum } = self {
            if *sum == 0 {
                (*exponent, *sum) = (at, amount);
                return;
            }
            let low = at.min(*exponent);
            if let (Some(left), Some(right)) = (
                shift_exactly(*sum, *exponent - low),
                shift_exactly(amount, at - low),
            ) && let Some(total) = left.checked_add(right)
            {
                (*exponent, *sum) = (low, total);
                return;
            }
        }
        add_shifted(self.widen(), amount, at);
        self.narrow_zero();
    }

    fn widen(&mut self) -> &mut Wide {
        if let Self::Small { exponent, sum } = *self {
            let mut wide = Box::new([0; LIMBS]);
            if sum != 0 {
                add_shifted(&mut wide, sum, exponent);
            }
            *self = Self::Wide(wide);
        }
        match self {
            Self::Wide(wide) => wide,
            Self::Small { .. } => unreachable!("widened above"),
        }
    }

    fn narrow_zero(&mut self) {
        if let Self::Wide(wide) = self
            && wide.iter().all(|limb| *limb == 0)
        {
            *self = Self::default();
        }
    }

    fn value(&self) -> f64 {
        match self {
            Self::Small { sum: 0, .. } => 0.0,
            Self::Small { exponent, sum } => round(*sum < 0, sum.unsigned_abs(), *exponent, false),
            Self::Wide(wide) => {
                let negative = wide[LIMBS - 1] >> 63 == 1;
                let mut magnitude = **wide;
                if negative {
                    negate(&mut magnitude);
                }
                let Some(top) = magnitude.iter().rposition(|limb| *limb != 0) else {
                    return 0.0;
                };
                let highest_bit = top * 64 + 63 - magnitude[top].leading_zeros() as usize;
                let shift = highest_bit.saturating_sub(127);
                let (first, offset) = (shift / 64, shift % 64);
                let limb =
                    |position: usize| u128::from(magnitude.get(position).copied().unwrap_or(0));
                let mut bits = (limb(first) | (limb(first + 1) << 64)) >> offset;
                if offset > 0 {
                    bits |= limb(first + 2) << (128 - offset);
                }
                let sticky = magnitude[..first].iter().any(|limb| *limb != 0)
                    || (offset > 0 && magnitude[first] << (64 - offset) != 0);
                round(negative, bits, LOWEST_EXPONENT + shift as i32, sticky)
            }
        }
    }
}

/// A finite value as `mantissa · 2^exponent` with an odd mantissa, or zero.
fn decompose(value: f64) -> (i64, i32) {
    let bits = value.to_bits();
    let fraction = bits & ((1 << MANTISSA_BITS) - 1);
    let biased = ((bits >> MANTISSA_BITS) & 0x7ff) as i32;
    let (magnitude, exponent) = if biased == 0 {
        (fraction, LOWEST_EXPONENT)
    } else {
        (fraction | (1 << MANTISSA_BITS), biased - 1075)
    };
    if magnitude == 0 {
        return (0, 0);
    }
    let zeros = magnitude.trailing_zeros();
    let magnitude = (magnitude >> zeros) as i64;
    (
        if value.is_sign_negative() {
            -magnitude
        } else {
            magnitude
        },
        exponent + zeros as i32,
    )
}

/// `value · 2^by` if it fits with a bit to spare.
fn shift_exactly(value: i128, by: i32) -> Option<i128> {
    let used = 128 - value.unsigned_abs().leading_zeros() as i32;
    (used + by < 127).then(|| value << by)
}

fn add_shifted(wide: &mut Wide, amount: i128, at: i32) {
    let position = (at - LOWEST_EXPONENT) as usize;
    let (first, offset) = (position / 64, position % 64);
    let bits = amount as u128;
    let sign = if amount < 0 { u64::MAX } else { 0 };
    let shifted = [
        (bits << offset) as u64,
        ((bits << offset) >> 64) as u64,
        if offset == 0 {
            sign
        } else {
            ((amount >> (128 - offset)) as u128) as u64
        },
    ];
    let mut carry = false;
    for (distance, limb) in wide[first..].iter_mut().enumerate() {
        let addend = shifted.get(distance).copied().unwrap_or(sign);
        let (partial, one) = limb.overflowing_add(addend);
        let (total, two) = partial.overflowing_add(u64::from(carry));
        (*limb, carry) = (total, one || two);
    }
}

fn negate(wide: &mut Wide) {
    let mut carry = true;
    for limb in wide.iter_mut() {
        (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
    }
}

/// Rounds `magnitude · 2^exponent` to nearest even; `sticky` says that something smaller than the lowest bit was cut off. `magnitude` is not zero.
fn round(negative: bool, magnitude: u128, exponent: i32, sticky: bool) -> f64 {
    let highest = exponent + 127 - magnitude.leading_zeros() as i32;
    let mut lowest = (highest - 52).max(LOWEST_EXPONENT);
    let dropped = lowest - exponent;
    let mut mantissa = if dropped <= 0 {
        (magnitude << -dropped) as u64
    } else {
        let kept = (magnitude >> dropped) as u64;
        let rest = magnitude & ((1 << dropped) - 1);
        let half = 1 << (dropped - 1);
        kept + u64::from(rest > half || (rest == half && (sticky || kept & 1 == 1)))
    };
    if mantissa == 1 << (MANTISSA_BITS + 1) {
        mantissa >>= 1;
        lowest += 1;
    }
    let biased = if mantissa >> MANTISSA_BITS == 0 {
        0
    } else {
        (lowest + 1075) as u64
    };
    let bits = if biased >= 0x7ff {
        0x7ff << MANTISSA_BITS
    } else {
        (biased << MANTISSA_BITS) | (mantissa & ((1 << MANTISSA_BITS) - 1))
    };
    f64::from_bits(bits | (u64::from(negative) << 63))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactFloatSum::new();
        values.iter().for_each(|value| sum.add(*value, 1));
        sum.value()
    }

    #[test]
    fn small_values_are_not_lost_beside_large_ones() {
        assert_eq!(sum(&[1e16, 1.0, -1e16]), 1.0);
        assert_eq!(sum(&[1e308, 1e-308, -1e308]), 1e-308);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(sum(&[5e-324, 5e-324]), 1e-323);
        assert_eq!(sum(&[0.1; 10]), 1.0);
    }

    #[test]
    fn ties_round_to_even_and_a_sticky_bit_breaks_them() {
        let ulp = f64::EPSILON;
        assert_eq!(sum(&[1.0, ulp / 2.0]), 1.0);
        assert_eq!(sum(&[1.0 + ulp, ulp / 2.0]), 1.0 + 2.0 * ulp);
        assert_eq!(sum(&[1.0, ulp / 2.0, 5e-324]), 1.0 + ulp);
        assert_eq!(sum(&[-1.0, -ulp / 2.0, -5e-324]), -1.0 - ulp);
        assert_eq!(sum(&[1.0, ulp / 2.0, -5e-324]), 1.0);
    }

    #[test]
    fn infinities_and_nan_are_retracted() {
        let mut sum = ExactFloatSum::new();
        sum.add(2.5, 2);
        sum.add(f64::INFINITY, 1);
        assert_eq!(sum.value(), f64::INFINITY);
        sum.add(f64::NEG_INFINITY, 1);
        assert!(sum.value().is_nan());
        sum.add(f64::INFINITY, -1);
        assert_eq!(sum.value(), f64::NEG_INFINITY);
        sum.add(f64::NEG_INFINITY, -1);
        sum.add(f64::NAN, 1);
        assert!(sum.value().is_nan());
        sum.add(f64::NAN, -1);
        assert_eq!(sum.value(), 5.0);
        sum.add(2.5, -2);
        assert!(sum.is_empty());
    }

    #[test]
    fn a_finite_sum_out_of_range_is_told_apart_from_an_infinity() {
        let mut sum = ExactFloatSum::new();
        sum.add(f64::MAX, 2);
        assert_eq!(sum.checked_value(), None);
        sum.add(f64::MAX, -1);
        assert_eq!(sum.checked_value(), Some(f64::MAX));
        sum.add(f64::INFINITY, 1);
        assert_eq!(sum.checked_value(), Some(f64::INFINITY));
    }

    fn finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |value| value.is_finite()),
            (-1000_i32..1000).prop_map(|value| f64::from(value) / 8.0),
            Just(f64::MAX),
            Just(-f64::MAX),
            Just(5e-324),
        ]
    }

    proptest! {
        #[test]
        fn one_value_comes_back_as_it_is(value in finite()) {
            prop_assert_eq!(sum(&[value]), value);
            let mut wide = ExactFloatSum::new();
            wide.add(f64::MAX, 1);
            wide.add(5e-324, 1);
            wide.add(value, 1);
            wide.add(f64::MAX, -1);
            wide.add(5e-324, -1);
            prop_assert_eq!(wide.value(), value);
        }

        #[test]
        fn two_values_add_as_the_processor_adds(left in finite(), right in finite()) {
            prop_assert_eq!(sum(&[left, right]), left + right);
        }

        #[test]
        fn order_retraction_and_merging_do_not_matter(values in prop::collection::vec((finite(), 1_i64..1000), 0..20), noise in prop::collection::vec(finite(), 0..20), cut in 0_usize..20) {
            let mut forward = ExactFloatSum::new();
            values.iter().for_each(|(value, weight)| forward.add(*value, *weight));
            let mut backward = ExactFloatSum::new();
            noise.iter().for_each(|value| backward.add(*value, 3));
            values.iter().rev().for_each(|(value, weight)| backward.add(*value, *weight));
            noise.iter().rev().for_each(|value| backward.add(*value, -3));
            let (mut left, mut right) = (ExactFloatSum::new(), ExactFloatSum::new());
            for (position, (value, weight)) in values.iter().enumerate() {
                if position < cut { left.add(*value, *weight) } else { right.add(*value, *weight) }
            }
            left.merge(&right);
            prop_assert_eq!(forward.value().to_bits(), backward.value().to_bits());
            prop_assert_eq!(forward.value().to_bits(), left.value().to_bits());
        }
    }
}
