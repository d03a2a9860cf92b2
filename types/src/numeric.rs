//! Decimal values as `i128` at a scale: PostgreSQL's `numeric` text and binary formats, and changes of scale.
//!
//! A value `v` at scale `s` means `v / 10^s`. `modifier` is the `(precision, scale)` of `numeric(p,s)`, or `None` for plain `numeric`,
//! which is kept at [`NUMERIC_DEFAULT`] = (38, 18).
//! Must not know Arrow arrays. Called by [`crate::value`] and by the functions on `numeric`.
//!
//! Invariants. Input to a declared scale is rounded half away from zero, as PostgreSQL does; input to plain `numeric` is never rounded.
//! What PostgreSQL refuses too is [`TypeError::OutOfRange`]; what it holds and we do not is [`TypeError::NumericNotHeld`]: digits that have no place in plain
//! `numeric`, and `NaN` and the infinities, which have no representation.

use crate::TypeError;
use crate::sql_type::NUMERIC_DEFAULT;

/// Digits before the point of PostgreSQL's `numeric`.
const POSTGRESQL_WHOLE_MAX: i64 = 131_072;
/// Digits after the point of PostgreSQL's `numeric`.
const POSTGRESQL_FRACTION_MAX: i64 = 16_383;
/// What it reads no exponent at or beyond, whatever it is of.
const POSTGRESQL_EXPONENT_MAX: i64 = 1_073_741_823;

const BINARY_NEGATIVE: u16 = 0x4000;
const BINARY_NAN: u16 = 0xC000;
const BINARY_INFINITY: u16 = 0xD000;
const BINARY_NEGATIVE_INFINITY: u16 = 0xF000;

/// What happens to digits beyond the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Rounded half away from zero.
    Round,
    /// An error, unless they are zeros.
    Refuse,
}

/// `10^exponent`, if it fits.
#[must_use]
pub fn power_of_ten(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

/// The precision and scale at which values with this modifier are kept.
#[must_use]
pub fn precision_and_scale(modifier: Option<(u8, i8)>) -> (u8, i8) {
    modifier.unwrap_or(NUMERIC_DEFAULT)
}

fn type_name(modifier: Option<(u8, i8)>) -> String {
    modifier.map_or_else(
        || "numeric".to_owned(),
        |(precision, scale)| format!("numeric({precision},{scale})"),
    )
}

fn out_of_range(modifier: Option<(u8, i8)>, value: &str) -> TypeError {
    TypeError::OutOfRange {
        type_name: type_name(modifier),
        value: value.to_owned(),
    }
}

/// The error of a number that its type has no digits for.
fn too_many_digits(modifier: Option<(u8, i8)>, value: &str) -> TypeError {
    if modifier.is_some() {
        return out_of_range(modifier, value);
    }
    let (precision, scale) = NUMERIC_DEFAULT;
    let whole = i16::from(precision) - i16::from(scale);
    TypeError::NumericNotHeld(format!(
        "value \"{value}\" is not supported for type numeric without a declared scale, which has {whole} digits before and {scale} after the point"
    ))
}

/// The error of `NaN` or an infinity. A declared precision cannot hold infinities in PostgreSQL either.
fn special(modifier: Option<(u8, i8)>, value: &str) -> TypeError {
    let is_nan = value.to_ascii_lowercase().ends_with("nan");
    if modifier.is_some() && !is_nan {
        return out_of_range(modifier, value);
    }
    TypeError::NumericNotHeld(format!(
        "value \"{value}\" is not supported for type numeric"
    ))
}

const fn excess_of(modifier: Option<(u8, i8)>) -> Excess {
    if modifier.is_some() {
        Excess::Round
    } else {
        Excess::Refuse
    }
}

/// Collects decimal digits from the most significant down, each with its power of ten.
struct Accumulator {
    scale: i64,
    value: u128,
    // First dropped digit was five or more.
    round_up: bool,
    dropped_any: bool,
    seen_dropped: bool,
    overflow: bool,
}

impl Accumulator {
    fn new(scale: i8) -> Self {
        Self {
            scale: i64::from(scale),
            value: 0,
            round_up: false,
            dropped_any: false,
            seen_dropped: false,
            overflow: false,
        }
    }

    /// Adds the digit at `power`; powers descend by one from call to call.
    fn push(&mut self, digit: u8, power: i64) {
        let place = power.saturating_add(self.scale);
        if place >= 0 {
            match self
                .value
                .checked_mul(10)
                .and_then(|value| value.checked_add(u128::from(digit)))
            {
                Some(value) => self.value = value,
                None => self.overflow = true,
            }
            return;
        }
        // The first place after the scale decides; when the number starts further down it counts as zero.
        if place == -1 && !self.seen_dropped {
            self.round_up = digit >= 5;
        }
        self.seen_dropped = true;
        self.dropped_any |= digit != 0;
    }

    /// `last_power`: the power of the last digit pushed.
    fn finish(
        self,
        negative: bool,
        last_power: i64,
        precision: u8,
        excess: Excess,
    ) -> Option<i128> {
        if self.overflow || (self.dropped_any && excess == Excess::Refuse) {
            return None;
        }
        let mut value = self.value;
        let missing = last_power.saturating_add(self.scale);
        if missing > 0 && value != 0 {
            value = value.checked_mul(10_u128.checked_pow(u32::try_from(missing).ok()?)?)?;
        }
        if self.round_up {
            value = value.checked_add(1)?;
        }
        let limit = 10_u128.checked_pow(u32::from(precision))?;
        if value >= limit {
            return None;
        }
        let value = i128::try_from(value).ok()?;
        Some(if negative { -value } else { value })
    }
}

/// Reads PostgreSQL's text format: `-12.50`, `1e-3`, surrounded by white space or not.
///
/// # Errors
/// [`TypeError::InvalidText`] if it is not a number; [`TypeError::OutOfRange`] and [`TypeError::NumericNotHeld`] (see the module) if it has too many digits,
/// is `NaN` or infinite.
pub fn parse_numeric(text: &str, modifier: Option<(u8, i8)>) -> Result<i128, TypeError> {
    let (precision, scale) = precision_and_scale(modifier);
    let invalid = || TypeError::InvalidText {
        type_name: "numeric".to_owned(),
        text: text.to_owned(),
    };
    let body = text.trim_ascii();
    let (negative, unsigned) = match body.as_bytes().first() {
        Some(b'-') => (true, body.get(1..).unwrap_or_default()),
        Some(b'+') => (false, body.get(1..).unwrap_or_default()),
        _ => (false, body),
    };
    if ["nan", "inf", "infinity"]
        .iter()
        .any(|word| unsigned.eq_ignore_ascii_case(word))
    {
        return Err(special(modifier, body));
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        None => (unsigned, 0),
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent).ok_or_else(invalid)?),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let digits = || whole.bytes().chain(fraction.bytes());
    if !digits().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    // Whatever it is rounded to.
    let fraction_len = i64::try_from(fraction.len()).map_err(|_| invalid())?;
    if fraction_len.saturating_sub(exponent) > POSTGRESQL_FRACTION_MAX
        || exponent >= POSTGRESQL_EXPONENT_MAX
    {
        return Err(out_of_range(modifier, body));
    }
    if digits().all(|byte| byte == b'0') {
        return Ok(0);
    }
    let whole_len = i64::try_from(whole.len()).map_err(|_| invalid())?;
    let mut power = whole_len.saturating_add(exponent);
    let mut accumulator = Accumulator::new(scale);
    for byte in digits() {
        power = power.saturating_sub(1);
        accumulator.push(byte.wrapping_sub(b'0'), power);
        if accumulator.overflow {
            break;
        }
    }
    accumulator
        .finish(negative, power, precision, excess_of(modifier))
        .ok_or_else(|| {
            if overflows_postgresql(whole, fraction, exponent) {
                out_of_range(modifier, body)
            } else {
                too_many_digits(modifier, body)
            }
        })
}

/// Whether a number has more digits before the point than PostgreSQL's `numeric` holds: `whole.fraction · 10^exponent`, and it is not zero.
fn overflows_postgresql(whole: &str, fraction: &str, exponent: i64) -> bool {
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    let zeros = whole
        .bytes()
        .chain(fraction.bytes())
        .take_while(|digit| *digit == b'0')
        .count();
    let before = length(whole)
        .saturating_add(exponent)
        .saturating_sub(i64::try_from(zeros).unwrap_or(i64::MAX));
    before > POSTGRESQL_WHOLE_MAX
}

/// Exponents beyond any representable number saturate.
fn parse_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let limit = 1_i64 << 40;
    let value = digits.parse::<i64>().unwrap_or(limit).min(limit);
    Some(if text.starts_with('-') { -value } else { value })
}

/// Changes the scale of a value.
///
/// `None` if it does not fit `precision` digits, or digits would be lost and `excess` refuses that.
#[must_use]
pub fn rescale(
    value: i128,
    from_scale: i8,
    precision: u8,
    scale: i8,
    excess: Excess,
) -> Option<i128> {
    let shift = i32::from(scale) - i32::from(from_scale);
    let factor = power_of_ten(shift.unsigned_abs());
    let result = if shift >= 0 {
        if value == 0 {
            0
        } else {
            value.checked_mul(factor?)?
        }
    } else {
        match factor {
            None if excess == Excess::Round || value == 0 => 0,
            None => return None,
            Some(factor) => {
                let (quotient, remainder) = (value / factor, value % factor);
                if remainder != 0 && excess == Excess::Refuse {
                    return None;
                }
                // |remainder| >= factor / 2, without overflow.
                let away = remainder.unsigned_abs() >= factor.unsigned_abs().div_ceil(2);
                if away {
                    quotient.checked_add(value.signum())?
                } else {
                    quotient
                }
            }
        }
    };
    let limit = power_of_ten(u32::from(precision))?;
    (result.unsigned_abs() < limit.unsigned_abs()).then_some(result)
}

/// Changes the scale of a value to the one of a type: rounds to a declared scale, refuses to lose digits of plain `numeric`.
///
/// # Errors
/// [`TypeError::OutOfRange`], [`TypeError::NumericNotHeld`]
pub fn rescale_to(
    value: i128,
    from_scale: i8,
    modifier: Option<(u8, i8)>,
) -> Result<i128, TypeError> {
    let (precision, scale) = precision_and_scale(modifier);
    rescale(value, from_scale, precision, scale, excess_of(modifier)).ok_or_else(|| {
        let mut text = String::new();
        format_numeric(value, from_scale, None, &mut text);
        too_many_digits(modifier, &text)
    })
}

/// Appends `value` at `scale` as text. With a modifier all its digits after the point are written, without one trailing zeros are not.
///
/// `scale` is the scale of `value`; if a modifier is given its scale should be the same.
pub fn format_numeric(value: i128, scale: i8, modifier: Option<(u8, i8)>, out: &mut String) {
    if value < 0 {
        out.push('-');
    }
    let (digits, start) = decimal_digits(value.unsigned_abs());
    let digits = digits.get(start..).unwrap_or_default();
    let places = usize::try_from(scale).unwrap_or(0);
    let whole_len = digits.len().saturating_sub(places);
    let (whole, fraction) = digits.split_at(whole_len);
    let push = |out: &mut String, bytes: &[u8]| out.extend(bytes.iter().copied().map(char::from));
    push(out, if whole.is_empty() { b"0" } else { whole });
    if scale < 0 && value != 0 {
        out.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
    }
    let leading = places - fraction.len();
    let kept = match modifier {
        Some(_) => fraction.len(),
        None => fraction
            .iter()
            .rposition(|digit| *digit != b'0')
            .map_or(0, |last| last + 1),
    };
    if places > 0 && (kept > 0 || modifier.is_some()) {
        out.push('.');
        out.extend(std::iter::repeat_n('0', leading));
        push(out, fraction.get(..kept).unwrap_or_default());
    }
}

/// ASCII digits of `value`, right-aligned: they start at the returned index. Zero has one digit.
fn decimal_digits(mut value: u128) -> ([u8; 40], usize) {
    let mut digits = [b'0'; 40];
    let mut start = digits.len();
    for (index, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        start = index;
        if value == 0 {
            break;
        }
    }
    (digits, start)
}

/// Appends `value` at `scale` in PostgreSQL's binary format: base-10000 digits.
pub fn numeric_to_binary(value: i128, scale: i8, modifier: Option<(u8, i8)>, out: &mut Vec<u8>) {
    let (digits, start) = decimal_digits(value.unsigned_abs());
    let digits = digits.get(start..).unwrap_or_default();
    let scale_wide = i32::from(scale);
    // The digit at a power of ten, zero outside the number.
    let digit = |power: i32| -> u16 {
        usize::try_from(power + scale_wide)
            .ok()
            .and_then(|place| digits.len().checked_sub(place + 1))
            .and_then(|index| digits.get(index))
            .map_or(0, |digit| u16::from(digit - b'0'))
    };
    let count = i32::try_from(digits.len()).unwrap_or(0);
    let highest = (count - 1 - scale_wide).div_euclid(4);
    let lowest = (-scale_wide).div_euclid(4);
    let group = |index: i32| {
        let power = index * 4;
        digit(power + 3) * 1000 + digit(power + 2) * 100 + digit(power + 1) * 10 + digit(power)
    };
    let first = (lowest..=highest).rev().find(|index| group(*index) != 0);
    let last = (lowest..=highest).find(|index| group(*index) != 0);
    let shown = match modifier {
        Some(_) => u16::try_from(scale).unwrap_or(0),
        None => {
            let zeros = digits
                .iter()
                .rev()
                .take_while(|digit| **digit == b'0')
                .count();
            let places = usize::try_from(scale).unwrap_or(0);
            if value == 0 {
                0
            } else {
                u16::try_from(places.saturating_sub(zeros)).unwrap_or(0)
            }
        }
    };
    let groups = match (first, last) {
        (Some(first), Some(last)) => first - last + 1,
        _ => 0,
    };
    let put = |out: &mut Vec<u8>, number: i32| {
        out.extend_from_slice(&i16::try_from(number).unwrap_or(0).to_be_bytes());
    };
    put(out, groups);
    put(out, first.unwrap_or(0));
    out.extend_from_slice(&if value < 0 { BINARY_NEGATIVE } else { 0 }.to_be_bytes());
    out.extend_from_slice(&shown.to_be_bytes());
    if let (Some(first), Some(last)) = (first, last) {
        for index in (last..=first).rev() {
            out.extend_from_slice(&group(index).to_be_bytes());
        }
    }
}

/// Reads PostgreSQL's binary format.
///
/// # Errors
/// [`TypeError::InvalidBinary`] for bytes that are no number; [`TypeError::OutOfRange`] and [`TypeError::NumericNotHeld`] as [`parse_numeric`].
pub fn numeric_from_binary(bytes: &[u8], modifier: Option<(u8, i8)>) -> Result<i128, TypeError> {
    let (precision, scale) = precision_and_scale(modifier);
    let invalid = |reason: &str| TypeError::InvalidBinary {
        type_name: "numeric".to_owned(),
        reason: reason.to_owned(),
    };
    let mut words = bytes.chunks_exact(2).map(|pair| {
        u16::from_be_bytes([
            pair.first().copied().unwrap_or(0),
            pair.last().copied().unwrap_or(0),
        ])
    });
    let mut header = || words.next().ok_or_else(|| invalid("too short"));
    let count = header()?;
    let weight = i16::from_be_bytes(header()?.to_be_bytes());
    let sign = header()?;
    header()?;
    if usize::from(count) * 2 + 8 != bytes.len() {
        return Err(invalid("length does not match the number of digits"));
    }
    match sign {
        0 | BINARY_NEGATIVE => {}
        BINARY_NAN => return Err(special(modifier, "NaN")),
        BINARY_INFINITY => return Err(special(modifier, "Infinity")),
        BINARY_NEGATIVE_INFINITY => return Err(special(modifier, "-Infinity")),
        _ => return Err(invalid("unknown sign")),
    }
    let mut accumulator = Accumulator::new(scale);
    let mut power = (i64::from(weight) + 1) * 4;
    for group in words {
        if group > 9999 {
            return Err(invalid("digit out of range"));
        }
        for divisor in [1000, 100, 10, 1] {
            power -= 1;
            accumulator.push(u8::try_from(group / divisor % 10).unwrap_or(0), power);
        }
    }
    accumulator
        .finish(
            sign == BINARY_NEGATIVE,
            power,
            precision,
            excess_of(modifier),
        )
        .ok_or_else(|| too_many_digits(modifier, &binary_as_text(bytes)))
}

/// Digits of a number that an error message shows.
const SHOWN_DIGITS_MAX: usize = 100;

/// The text of a number that cannot be kept, for an error message; cut off if it is long.
fn binary_as_text(bytes: &[u8]) -> String {
    let word = |index: usize| {
        bytes
            .get(index * 2..index * 2 + 2)
            .and_then(|pair| <[u8; 2]>::try_from(pair).ok())
            .unwrap_or_default()
    };
    let count = i32::from(u16::from_be_bytes(word(0)));
    let weight = i32::from(i16::from_be_bytes(word(1)));
    let places = usize::from(u16::from_be_bytes(word(3)));
    // The group of four digits for 10000^-(index - weight).
    let group = |index: i32| {
        let inside = (0..count).contains(&index);
        let index = usize::try_from(index).ok().filter(|_| inside);
        format!(
            "{:04}",
            index.map_or(0, |index| u16::from_be_bytes(word(4 + index)))
        )
    };
    let groups_max = i32::try_from(SHOWN_DIGITS_MAX / 4).unwrap_or(i32::MAX);
    let mut text = String::new();
    if u16::from_be_bytes(word(2)) == BINARY_NEGATIVE {
        text.push('-');
    }
    let whole: String = (0..=weight.min(groups_max)).map(group).collect();
    let whole = whole.trim_start_matches('0');
    text.push_str(if whole.is_empty() { "0" } else { whole });
    if weight > groups_max {
        text.push_str("...");
        return text;
    }
    let first = weight + 1;
    let fraction: String = (first..first.saturating_add(groups_max))
        .map(group)
        .collect();
    let shown = fraction.get(..places).unwrap_or(&fraction);
    if !shown.is_empty() {
        text.push('.');
        text.push_str(shown);
    }
    if places > fraction.len() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests;
