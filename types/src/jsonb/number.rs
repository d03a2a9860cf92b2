//! Numbers of a document: decimal, of arbitrary precision, one representation per value.
//!
//! Payload: a sign byte (0 negative, 1 zero, 2 positive); if not zero, the exponent `e` as `i32` little endian and the digits, two in a byte, the
//! high half first, the last half 0 if their number is odd. The value is `±0.d₁d₂… × 10^e`; neither the first nor the last digit is 0.
//! The limits on the exponent are those of PostgreSQL's `numeric`, so that every number can be written without one.

use std::cmp::Ordering;
use std::fmt::{self, Write};

use crate::TypeError;
use crate::numeric;

const NEGATIVE: u8 = 0;
const ZERO: u8 = 1;
const POSITIVE: u8 = 2;
/// Digits before the point that PostgreSQL's `numeric` can hold.
const WHOLE_DIGITS_MAX: i64 = 131_072;
/// Digits after the point that PostgreSQL's `numeric` can hold.
const FRACTION_DIGITS_MAX: i64 = 16_383;

/// A number of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonbNumber<'a> {
    sign: u8,
    exponent: i32,
    packed: &'a [u8],
}

impl<'a> JsonbNumber<'a> {
    pub(super) fn read(payload: &'a [u8]) -> Option<Self> {
        let (sign, rest) = payload.split_first()?;
        match *sign {
            ZERO if rest.is_empty() => Some(Self {
                sign: ZERO,
                exponent: 0,
                packed: &[],
            }),
            NEGATIVE | POSITIVE => {
                let (exponent, packed) = rest.split_first_chunk::<4>()?;
                Some(Self {
                    sign: *sign,
                    exponent: i32::from_le_bytes(*exponent),
                    packed,
                })
            }
            _ => None,
        }
    }

    pub(super) fn is_canonical(self) -> bool {
        if self.sign == ZERO {
            return true;
        }
        let proper = self
            .packed
            .iter()
            .all(|byte| byte >> 4 <= 9 && byte & 15 <= 9);
        let ends = self.packed.first().is_some_and(|byte| byte >> 4 != 0)
            && self.packed.last().is_some_and(|byte| *byte != 0);
        let exponent = i64::from(self.exponent);
        let count = i64::try_from(self.digit_count()).unwrap_or(i64::MAX);
        proper
            && ends
            && exponent <= WHOLE_DIGITS_MAX
            && count.saturating_sub(exponent) <= FRACTION_DIGITS_MAX
    }

    fn digits(self) -> impl Iterator<Item = u8> + use<'a> {
        self.packed
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .take(self.digit_count())
    }

    fn digit_count(self) -> usize {
        let odd = self.packed.last().is_some_and(|byte| byte & 15 == 0);
        self.packed.len() * 2 - usize::from(odd)
    }

    /// Appends bytes that compare as the numbers do; none are a prefix of another number's.
    pub(super) fn sort_key(self, key: &mut Vec<u8>) {
        key.push(self.sign);
        if self.sign == ZERO {
            return;
        }
        let start = key.len();
        let mut exponent = self.exponent.to_be_bytes();
        exponent[0] ^= 0x80;
        key.extend_from_slice(&exponent);
        // A digit more makes the number larger: the end is below every digit.
        key.extend(self.digits().map(|digit| digit + 1));
        key.push(0);
        if self.sign == NEGATIVE {
            key.iter_mut().skip(start).for_each(|byte| *byte = !*byte);
        }
    }

    /// Whether the number has no digits after the point.
    #[must_use]
    pub fn is_integer(self) -> bool {
        usize::try_from(self.exponent)
            .map_or(self.sign == ZERO, |exponent| self.digit_count() <= exponent)
    }

    /// The number as an integer, rounded half away from zero as PostgreSQL's cast from `jsonb` does; `None` if it does not fit.
    #[must_use]
    pub fn to_i64(self) -> Option<i64> {
        let value = numeric::parse_numeric(&self.to_string(), Some((38, 0))).ok()?;
        i64::try_from(value).ok()
    }

    /// The nearest double; infinite if it is too large.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        if self.sign == ZERO {
            return 0.0;
        }
        // 0.digits × 10^exponent: short even if the exponent is large.
        let mut text = String::with_capacity(self.digit_count() + 12);
        if self.sign == NEGATIVE {
            text.push('-');
        }
        text.push_str("0.");
        text.extend(self.digits().map(|digit| char::from(b'0' + digit)));
        // Writing to a string cannot fail.
        let _ = write!(text, "e{}", self.exponent);
        text.parse().unwrap_or(f64::NAN)
    }

    /// The number as `numeric` with this modifier.
    ///
    /// # Errors
    /// [`TypeError::OutOfRange`] and [`TypeError::NumericNotHeld`] as [`numeric::parse_numeric`].
    pub fn to_numeric(self, modifier: Option<(u8, i8)>) -> Result<i128, TypeError> {
        numeric::parse_numeric(&self.to_string(), modifier)
    }
}

impl PartialOrd for JsonbNumber<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for JsonbNumber<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sign.cmp(&other.sign).then_with(|| {
            let magnitude = self
                .exponent
                .cmp(&other.exponent)
                .then_with(|| self.packed.cmp(other.packed));
            if self.sign == NEGATIVE {
                magnitude.reverse()
            } else {
                magnitude
            }
        })
    }
}

/// All digits, without an exponent, as PostgreSQL writes `numeric`.
impl fmt::Display for JsonbNumber<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sign == ZERO {
            return f.write_char('0');
        }
        if self.sign == NEGATIVE {
            f.write_char('-')?;
        }
        // Damaged documents may claim any exponent; a writer must not fill the memory with zeros.
        let exponent = i64::from(self.exponent).clamp(-FRACTION_DIGITS_MAX, WHOLE_DIGITS_MAX);
        let whole = usize::try_from(exponent).unwrap_or(0);
        if whole == 0 {
            f.write_str("0.")?;
            for _ in exponent..0 {
                f.write_char('0')?;
            }
        }
        let mut written = 0;
        for digit in self.digits() {
            if written == whole && whole != 0 {
                f.write_char('.')?;
            }
            f.write_char(char::from(b'0' + digit.min(9)))?;
            written += 1;
        }
        for _ in written..whole {
            f.write_char('0')?;
        }
        Ok(())
    }
}

/// Appends the payload of the number that `text` states in JSON's syntax (checked by the caller: digits, a point, an exponent).
///
/// `None` if the number is beyond the limits.
pub(super) fn encode(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let leading_zeros = whole
        .bytes()
        .chain(fraction.bytes())
        .take_while(|byte| *byte == b'0')
        .count();
    let total = whole.len() + fraction.len();
    if leading_zeros == total {
        out.push(ZERO);
        return Some(());
    }
    let trailing_zeros = whole
        .bytes()
        .chain(fraction.bytes())
        .rev()
        .take_while(|byte| *byte == b'0')
        .count();
    let count = total - leading_zeros - trailing_zeros;
    // An exponent with more digits than this is beyond the limits whatever the mantissa.
    let stated = exponent
        .strip_prefix('+')
        .unwrap_or(exponent)
        .parse::<i64>()
        .ok()?;
    let exponent = i64::try_from(whole.len())
        .ok()?
        .checked_sub(i64::try_from(leading_zeros).ok()?)?
        .checked_add(stated)?;
    if exponent > WHOLE_DIGITS_MAX
        || i64::try_from(count).ok()?.checked_sub(exponent)? > FRACTION_DIGITS_MAX
    {
        return None;
    }
    out.push(if negative { NEGATIVE } else { POSITIVE });
    out.extend_from_slice(&i32::try_from(exponent).ok()?.to_le_bytes());
    let mut digits = whole
        .bytes()
        .chain(fraction.bytes())
        .skip(leading_zeros)
        .take(count)
        .map(|byte| byte.wrapping_sub(b'0') & 15);
    while let Some(high) = digits.next() {
        out.push(high << 4 | digits.next().unwrap_or(0));
    }
    Some(())
}
