//! Square roots, exponentials, logarithms and powers of `numeric`, with more digits than a float has.
//!
//! Owns numbers with 36 digits after the point in 256 bits, which all but exact results are computed in. Must not know Arrow arrays. Called by `math`.
//!
//! Invariants. Results have [`SCALE`] digits after the point. Square roots are right to the last of them; so are powers with whole exponents as long as 256 bits
//! hold them; others have [`DIGITS`] significant ones, or are errors if they have fewer than [`DIGITS_MIN`]. What is not zero does not become zero.

use arrow_buffer::i256;

use super::{Numeric, Rounding, divide_rounded, narrow, power_of_ten, rescale};
use crate::errors::{
    EvalResult, division_by_zero, no_logarithm, no_power, not_supported, numeric_format_overflow,
    numeric_not_held, numeric_underflow,
};

/// Digits after the point of results, which have no scale of their own.
const SCALE: u32 = 18;
/// Digits after the point of what is computed with.
const WORK_SCALE: i8 = 36;
/// One, as what is computed with.
const ONE: i256 = i256::from_i128(10_i128.pow(36));
const TWO: i256 = i256::from_i128(2);
/// The natural logarithms of 2 and 10.
const LN_2: i256 = i256::from_i128(693_147_180_559_945_309_417_232_121_458_176_568);
const LN_10: i256 = i256::from_i128(2_302_585_092_994_045_684_017_991_454_684_364_208);
/// Significant digits that are kept of what is computed: some less than there are.
const DIGITS: u32 = 30;
/// Significant digits that a result must have.
const DIGITS_MIN: u32 = 15;
/// Largest argument of the exponential, and least: beyond are no digits of `numeric`.
const EXPONENT_MAX: i128 = 47;
/// Arguments of the exponential at which PostgreSQL's `numeric` overflows too: of `exp` itself, and of powers whose exponent is no integer of 32 bits.
const EXP_OVERFLOW: i128 = 6_000;
/// With such an exponent PostgreSQL multiplies, and a power may have so many digits before the point.
const WHOLE_POWER_DIGITS: i128 = 131_072;
/// What the logarithm of such a power may be off by, and more: an error of a logarithm counts as many times as the exponent says.
const LOGARITHM_ERROR: i256 = i256::from_i128(10_i128.pow(18));

fn plus(left: i256, right: i256) -> EvalResult<i256> {
    left.checked_add(right).ok_or_else(numeric_not_held)
}

fn minus(left: i256, right: i256) -> EvalResult<i256> {
    left.checked_sub(right).ok_or_else(numeric_not_held)
}

fn times(left: i256, right: i256) -> EvalResult<i256> {
    left.checked_mul(right).ok_or_else(numeric_not_held)
}

/// The product of two numbers with [`WORK_SCALE`] digits after the point.
fn product(left: i256, right: i256) -> EvalResult<i256> {
    divide_rounded(times(left, right)?, ONE)
}

/// Digits of an integer; zero has none.
fn length(value: i256) -> u32 {
    value
        .wrapping_abs()
        .checked_ilog10()
        .map_or(0, |last| last + 1)
}

/// `numerator / denominator` as the integer of a result's digits, of which the first `digits` are right.
fn result(numerator: i256, denominator: i256, digits: u32) -> EvalResult<Numeric> {
    let whole = divide_rounded(numerator, denominator)?;
    if whole == i256::ZERO && numerator != i256::ZERO {
        return Err(numeric_underflow());
    }
    let surplus = length(whole).saturating_sub(digits);
    if surplus > 0 && digits < DIGITS_MIN {
        return Err(not_supported(
            "numeric result cannot be computed with 15 significant digits",
        ));
    }
    let unit = power_of_ten(surplus)?;
    let kept = divide_rounded(numerator, times(denominator, unit)?)?;
    Ok(Numeric {
        value: narrow(times(kept, unit)?, 38)?,
        scale: 18,
    })
}

/// The largest integer whose square is not larger. Source: Newton's method from above.
fn integer_root(square: i256) -> EvalResult<i256> {
    if square == i256::ZERO {
        return Ok(i256::ZERO);
    }
    let mut root = power_of_ten(length(square) / 2 + 1)?;
    loop {
        let quotient = square.checked_div(root).ok_or_else(numeric_not_held)?;
        let next = plus(root, quotient)?
            .checked_div(TWO)
            .ok_or_else(numeric_not_held)?;
        if next >= root {
            return Ok(root);
        }
        root = next;
    }
}

/// The integer nearest to the square root of one.
pub(crate) fn nearest_root(square: i256) -> EvalResult<i256> {
    let root = integer_root(square)?;
    // The square of half a unit more is root² + root + ¼.
    if minus(square, times(root, root)?)? > root {
        plus(root, i256::ONE)
    } else {
        Ok(root)
    }
}

/// The square root.
pub(crate) fn square_root(value: Numeric) -> EvalResult<Numeric> {
    if value.value < 0 {
        return Err(no_power("cannot take square root of a negative number"));
    }
    // The square of the result's digits as an integer.
    let shift = 2 * 18 - i32::from(value.scale);
    let (digits, factor) = (
        i256::from_i128(value.value),
        power_of_ten(shift.unsigned_abs())?,
    );
    let (numerator, denominator) = if shift >= 0 {
        (times(digits, factor)?, i256::ONE)
    } else {
        (digits, factor)
    };
    let root = integer_root(
        numerator
            .checked_div(denominator)
            .ok_or_else(numeric_not_held)?,
    )?;
    // The square of half a unit more is root² + root + ¼.
    let four = i256::from_i128(4);
    let middle = plus(times(plus(times(root, root)?, root)?, four)?, i256::ONE)?;
    let rounded = if times(numerator, four)? >= times(denominator, middle)? {
        plus(root, i256::ONE)?
    } else {
        root
    };
    result(rounded, i256::ONE, 38).and_then(|root| not_lost(root, value.value == 0))
}

/// The result, unless it is zero and should not be.
fn not_lost(result: Numeric, is_zero: bool) -> EvalResult<Numeric> {
    if result.value == 0 && !is_zero {
        return Err(numeric_underflow());
    }
    Ok(result)
}

/// `e` to the power of a number, which is right to `digits` significant ones. At `overflow` PostgreSQL's is an error. Both numbers have [`WORK_SCALE`] digits
/// after the point.
fn exponential_of(exponent: i256, digits: u32, overflow: i256) -> EvalResult<Numeric> {
    let limit = times(ONE, i256::from_i128(EXPONENT_MAX))?;
    if exponent >= overflow {
        return Err(numeric_format_overflow());
    }
    if exponent > limit {
        return Err(numeric_not_held());
    }
    if exponent < limit.wrapping_neg() {
        return Err(numeric_underflow());
    }
    // e^x = 2^n · e^rest
    let doublings = divide_rounded(exponent, LN_2)?;
    let rest = minus(exponent, times(doublings, LN_2)?)?;
    let (mut term, mut sum) = (ONE, ONE);
    for number in 1_i128.. {
        term = divide_rounded(product(term, rest)?, i256::from_i128(number))?;
        if term == i256::ZERO {
            break;
        }
        sum = plus(sum, term)?;
    }
    let count = doublings.to_i128().ok_or_else(numeric_not_held)?;
    let count = u32::try_from(count.unsigned_abs()).map_err(|_| numeric_not_held())?;
    let factor = TWO.checked_pow(count).ok_or_else(numeric_not_held)?;
    // From 36 digits after the point to 18.
    let unit = power_of_ten(SCALE)?;
    if doublings >= i256::ZERO {
        result(times(sum, factor)?, unit, digits)
    } else {
        result(sum, times(unit, factor)?, digits)
    }
}

/// `e` to the power of `value`.
pub(crate) fn exponential(value: Numeric) -> EvalResult<Numeric> {
    let exponent = rescale(i256::from_i128(value.value), value.scale, WORK_SCALE)?;
    let overflow = times(ONE, i256::from_i128(EXP_OVERFLOW))?;
    exponential_of(exponent, DIGITS, overflow)
}

/// The natural logarithm of a positive number, with [`WORK_SCALE`] digits after the point.
fn logarithm_of(value: Numeric) -> EvalResult<i256> {
    if value.value == 0 {
        return Err(no_logarithm("cannot take logarithm of zero"));
    }
    if value.value < 0 {
        return Err(no_logarithm("cannot take logarithm of a negative number"));
    }
    let scale = power_of_ten(u32::from(value.scale.unsigned_abs()))?;
    // value = 2^doublings · a / b, and a / b is near 1.
    let (mut a, mut b) = (i256::from_i128(value.value), scale);
    let (three, four) = (i256::from_i128(3), i256::from_i128(4));
    let mut doublings = 0_i128;
    while times(a, TWO)? > times(b, three)? {
        b = times(b, TWO)?;
        doublings += 1;
    }
    while times(a, four)? < times(b, three)? {
        a = times(a, TWO)?;
        doublings -= 1;
    }
    // ln (a / b) = 2 artanh ((a - b) / (a + b))
    let ratio = divide_rounded(times(minus(a, b)?, ONE)?, plus(a, b)?)?;
    let square = product(ratio, ratio)?;
    let (mut power, mut sum) = (ratio, ratio);
    for number in (3_i128..).step_by(2) {
        power = product(power, square)?;
        let term = divide_rounded(power, i256::from_i128(number))?;
        if term == i256::ZERO {
            break;
        }
        sum = plus(sum, term)?;
    }
    plus(times(sum, TWO)?, times(LN_2, i256::from_i128(doublings))?)
}

fn is_one(value: Numeric) -> bool {
    value.rescale(38, 0) == Ok(1) && Numeric::integer(1).rescale(38, value.scale) == Ok(value.value)
}

/// The natural logarithm.
pub(crate) fn natural_logarithm(value: Numeric) -> EvalResult<Numeric> {
    let logarithm = logarithm_of(value)?;
    let logarithm = result(logarithm, power_of_ten(SCALE)?, DIGITS)?;
    not_lost(logarithm, is_one(value))
}

/// The logarithm to the base 10.
pub(crate) fn common_logarithm(value: Numeric) -> EvalResult<Numeric> {
    let numerator = times(logarithm_of(value)?, power_of_ten(SCALE)?)?;
    not_lost(result(numerator, LN_10, DIGITS)?, is_one(value))
}

/// The logarithm to any base.
pub(crate) fn logarithm(base: Numeric, value: Numeric) -> EvalResult<Numeric> {
    let (below, above) = (logarithm_of(base)?, logarithm_of(value)?);
    if is_one(base) {
        return Err(division_by_zero());
    }
    if below == i256::ZERO {
        return Err(not_supported("base of a logarithm is too close to 1"));
    }
    let digits = length(below).min(if is_one(value) { DIGITS } else { length(above) });
    let numerator = times(above, power_of_ten(SCALE)?)?;
    let quotient = result(numerator, below, digits.saturating_sub(2).min(DIGITS))?;
    not_lost(quotient, is_one(value))
}

/// `base` to the power of `exponent`.
pub(crate) fn power(base: Numeric, exponent: Numeric) -> EvalResult<Numeric> {
    if base.value == 0 && exponent.value < 0 {
        return Err(no_power("zero raised to a negative power is undefined"));
    }
    let whole = exponent.reduce(0, 0, Rounding::Truncate)?.value;
    let is_whole = Numeric::integer(whole).rescale(38, exponent.scale) == Ok(exponent.value);
    if base.value < 0 && !is_whole {
        return Err(no_power(
            "a negative number raised to a non-integer power yields a complex result",
        ));
    }
    if exponent.value == 0 {
        return Ok(Numeric::integer(1));
    }
    if base.value == 0 {
        return Ok(base);
    }
    let magnitude = Numeric {
        value: base.value.abs(),
        ..base
    };
    let exact = is_whole.then(|| whole_power(magnitude, whole)).flatten();
    let power = match exact {
        Some((numerator, denominator)) => result(numerator, denominator, 38)?,
        None => {
            let unit = power_of_ten(u32::from(exponent.scale.unsigned_abs()))?;
            let product = times(logarithm_of(magnitude)?, i256::from_i128(exponent.value))?;
            // An error of the logarithm counts as many times as the exponent says.
            let digits = DIGITS.saturating_sub(length(i256::from_i128(whole)));
            let multiplied = i32::try_from(whole).ok().filter(|_| is_whole);
            let overflow = power_overflow(magnitude, multiplied)?;
            exponential_of(divide_rounded(product, unit)?, digits, overflow)?
        }
    };
    Ok(Numeric {
        value: if base.value < 0 && whole % 2 != 0 {
            -power.value
        } else {
            power.value
        },
        ..power
    })
}

/// The logarithm at which PostgreSQL's power of a positive number is an error, with [`WORK_SCALE`] digits after the point. `multiplied`: the exponent if it is an
/// integer of 32 bits.
///
/// # Errors
/// That error, of a power of ten: its digits are counted, for its logarithm may be the limit itself.
fn power_overflow(base: Numeric, multiplied: Option<i32>) -> EvalResult<i256> {
    let Some(exponent) = multiplied else {
        return times(ONE, i256::from_i128(EXP_OVERFLOW));
    };
    let of_power = |places: i128| places * i128::from(exponent);
    if ten_to(base).map(of_power) >= Some(WHOLE_POWER_DIGITS) {
        return Err(numeric_format_overflow());
    }
    let limit = times(LN_10, i256::from_i128(WHOLE_POWER_DIGITS))?;
    plus(limit, LOGARITHM_ERROR)
}

/// The exponent of a power of ten.
fn ten_to(value: Numeric) -> Option<i128> {
    let last = value.value.checked_ilog10()?;
    let is_power = 10_i128.checked_pow(last) == Some(value.value);
    is_power.then(|| i128::from(last) - i128::from(value.scale))
}

/// The digits of a power as a fraction; `None` if 256 bits do not hold them.
fn whole_power(base: Numeric, exponent: i128) -> Option<(i256, i256)> {
    let Numeric {
        mut value,
        mut scale,
    } = base;
    while scale > 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    let count = u32::try_from(exponent.unsigned_abs()).ok()?;
    let digits = i256::from_i128(value).checked_pow(count)?;
    let places = u32::from(scale.unsigned_abs()).checked_mul(count)?;
    let ten = |places: u32| i256::from_i128(10).checked_pow(places);
    if exponent < 0 {
        return Some((ten(places.checked_add(SCALE)?)?, digits));
    }
    if places >= SCALE {
        Some((digits, ten(places - SCALE)?))
    } else {
        Some((digits.checked_mul(ten(SCALE - places)?)?, i256::ONE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(text: &str) -> Numeric {
        let scale = text
            .split_once('.')
            .map_or(0, |(_, fraction)| fraction.len());
        Numeric {
            value: text.replace('.', "").parse().unwrap(),
            scale: i8::try_from(scale).unwrap(),
        }
    }

    fn shown(result: EvalResult<Numeric>) -> String {
        result.unwrap().to_string()
    }

    #[test]
    fn square_roots_are_right_to_the_last_digit() {
        for (value, root) in [
            ("0", "0.000000000000000000"),
            ("2", "1.414213562373095049"),
            ("0.25", "0.500000000000000000"),
            (
                "99999999999999999999999999999999999999",
                "10000000000000000000.000000000000000000",
            ),
        ] {
            assert_eq!(shown(square_root(numeric(value))), root, "{value}");
        }
        assert!(square_root(numeric("-1")).is_err());
    }

    #[test]
    fn logarithms_and_exponentials_have_more_digits_than_a_float() {
        assert_eq!(shown(exponential(numeric("0"))), "1.000000000000000000");
        assert_eq!(shown(exponential(numeric("1"))), "2.718281828459045235");
        assert_eq!(
            shown(exponential(numeric("10"))),
            "22026.465794806716516958"
        );
        assert_eq!(shown(exponential(numeric("-3.5"))), "0.030197383422318501");
        assert_eq!(
            shown(natural_logarithm(numeric("10"))),
            "2.302585092994045684"
        );
        assert_eq!(
            shown(natural_logarithm(numeric("0.000000000000000001"))),
            "-41.446531673892822312"
        );
        assert_eq!(
            shown(common_logarithm(numeric("1000"))),
            "3.000000000000000000"
        );
        assert_eq!(
            shown(logarithm(numeric("2.0"), numeric("64"))),
            "6.000000000000000000"
        );
        assert_eq!(
            shown(natural_logarithm(numeric("1.00"))),
            "0.000000000000000000"
        );
        assert!(natural_logarithm(numeric("0")).is_err());
        assert_eq!(
            logarithm(numeric("1.0"), numeric("2")),
            Err(division_by_zero())
        );
    }

    #[test]
    fn powers_with_whole_exponents_are_exact() {
        let power = |base, exponent| power(numeric(base), numeric(exponent));
        assert_eq!(
            shown(power("2.000000000000000000", "64")),
            "18446744073709551616.000000000000000000"
        );
        assert_eq!(shown(power("-2", "3.0")), "-8.000000000000000000");
        assert_eq!(shown(power("2", "-3")), "0.125000000000000000");
        assert_eq!(shown(power("1.5", "20")), "3325.256730079650878906");
        assert_eq!(shown(power("0", "0.5")), "0");
        assert_eq!(shown(power("2", "0.5")), "1.414213562373095049");
        assert_eq!(shown(power("1.0001", "100000")), "22015.456048552198645701");
        assert!(power("0", "-1").is_err());
        assert!(power("-8", "0.5").is_err());
    }

    #[test]
    fn only_powers_that_postgresql_refuses_too_overflow_the_format() {
        let power = |base, exponent| power(numeric(base), numeric(exponent));
        // What PostgreSQL 15 says. It multiplies if the exponent is an integer of 32 bits, and takes the exponential of a logarithm otherwise.
        for (base, exponent, is_refused) in [
            ("10", "131071", false),
            ("10", "131072", true),
            ("0.1", "-131071.0", false),
            ("0.1", "-131072.0", true),
            ("9.99999999999999999", "131072", false),
            ("2", "435411", false),
            ("2", "435412", true),
            ("-2", "435411", false),
            ("1.5", "2147483647", true),
            ("0.5", "-2147483648", true),
            ("10", "2605.5", false),
            ("10", "2606.5", true),
            ("1.00001", "600000000.5", false),
            ("1.00001", "3000000000", true),
            ("-1.00001", "3000000001", true),
            ("1.0000001", "3000000000", false),
        ] {
            let error = if is_refused {
                numeric_format_overflow()
            } else {
                numeric_not_held()
            };
            assert_eq!(power(base, exponent), Err(error), "{base} ^ {exponent}");
        }
        assert_eq!(power("2", "-2147483648"), Err(numeric_underflow()));
        let shown = shown(power("1.0000000001", "2147483648"));
        assert!(shown.starts_with("1.2395499433072419"), "{shown}");
    }

    #[test]
    fn what_would_have_no_digit_is_an_error() {
        let tiny = numeric("0.00000000000000000000000000000000000001");
        assert_eq!(square_root(tiny), Err(numeric_underflow()));
        assert_eq!(exponential(numeric("-45")), Err(numeric_underflow()));
        assert_eq!(exponential(numeric("-5000")), Err(numeric_underflow()));
        assert_eq!(exponential(numeric("5000")), Err(numeric_not_held()));
        assert_eq!(exponential(numeric("6000")), Err(numeric_format_overflow()));
        assert_eq!(
            power(numeric("10.5"), numeric("100000")),
            Err(numeric_not_held())
        );
        assert_eq!(
            power(numeric("10.5"), numeric("200000")),
            Err(numeric_format_overflow())
        );
        assert_eq!(
            power(numeric("0.5"), numeric("100")),
            Err(numeric_underflow())
        );
    }
}
