//! PostgreSQL's `interval`: text in every input style PostgreSQL reads, text out in IntervalStyle `postgres`, and the binary format.
//!
//! An interval is months, days and a time; the three do not mix. Arrow counts the time in nanoseconds, PostgreSQL in microseconds:
//! nanoseconds here are always a multiple of 1000, and times beyond ±292 years are out of range.
//! PostgreSQL compares intervals as if a month had 30 days and a day 24 hours ([`order_key`]), and so does whatever groups, joins or sorts them
//! ([`crate::sort_key`]). The identity of a row does not: retraction tells `1 month` from `30 days`, because they are printed differently.
//! Must not know Arrow arrays or calendars. Called by [`crate::value`] and by the functions on intervals.

use std::fmt::Write;

use arrow_array::types::IntervalMonthDayNano;

use crate::TypeError;

const NANOS_PER_MICRO: i64 = 1_000;
const MICROS_PER_SECOND: i128 = 1_000_000;
const MICROS_PER_DAY: i128 = 86_400 * MICROS_PER_SECOND;
/// Numbers in interval text are read as integers of this fraction.
const ONE: i128 = 1_000_000_000;

fn invalid(text: &str) -> TypeError {
    TypeError::InvalidText {
        type_name: "interval".to_owned(),
        text: text.to_owned(),
    }
}

fn out_of_range(text: &str) -> TypeError {
    TypeError::OutOfRange {
        type_name: "interval".to_owned(),
        value: text.to_owned(),
    }
}

/// A unit of interval text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A thousand years.
    Millennium,
    /// A hundred years.
    Century,
    /// Ten years.
    Decade,
    /// Twelve months.
    Year,
    /// One month.
    Month,
    /// Seven days.
    Week,
    /// One day.
    Day,
    /// 60 minutes.
    Hour,
    /// 60 seconds.
    Minute,
    /// One second.
    Second,
    /// A thousandth of a second.
    Millisecond,
    /// A millionth of a second.
    Microsecond,
}

impl Unit {
    /// The unit with this name or abbreviation, in any case: `day`, `Days`, `d`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_lowercase().as_str() {
            "millennium" | "millennia" | "millenniums" | "mil" | "mils" => Self::Millennium,
            "century" | "centuries" | "cent" | "c" => Self::Century,
            "decade" | "decades" | "dec" | "decs" => Self::Decade,
            "year" | "years" | "yr" | "yrs" | "y" => Self::Year,
            "month" | "months" | "mon" | "mons" => Self::Month,
            "week" | "weeks" | "w" => Self::Week,
            "day" | "days" | "d" => Self::Day,
            "hour" | "hours" | "hr" | "hrs" | "h" => Self::Hour,
            "minute" | "minutes" | "min" | "mins" | "m" => Self::Minute,
            "second" | "seconds" | "sec" | "secs" | "s" => Self::Second,
            "millisecond" | "milliseconds" | "msec" | "msecs" | "msecond" | "mseconds" | "ms" => {
                Self::Millisecond
            }
            "microsecond" | "microseconds" | "usec" | "usecs" | "usecond" | "useconds" | "us"
            | "µs" | "μs" => Self::Microsecond,
            _ => return None,
        })
    }
}

/// Months, days and microseconds while they are being added up.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    months: i128,
    days: i128,
    micros: i128,
}

impl Sum {
    /// Adds `number / ONE` units. Fractions go down to smaller units, a month counting 30 days and a day 24 hours.
    fn add(&mut self, number: i128, unit: Unit) -> Option<()> {
        let months_of = |months: i128| number.checked_mul(months).map(divide_rounded);
        match unit {
            Unit::Millennium => self.months += months_of(12_000)?,
            Unit::Century => self.months += months_of(1_200)?,
            Unit::Decade => self.months += months_of(120)?,
            Unit::Year => self.months += months_of(12)?,
            Unit::Month => {
                self.months += number / ONE;
                self.add_days(number % ONE * 30)?;
            }
            Unit::Week => self.add_days(number.checked_mul(7)?)?,
            Unit::Day => self.add_days(number)?,
            Unit::Hour => self.add_micros(number, 3_600 * MICROS_PER_SECOND)?,
            Unit::Minute => self.add_micros(number, 60 * MICROS_PER_SECOND)?,
            Unit::Second => self.add_micros(number, MICROS_PER_SECOND)?,
            Unit::Millisecond => self.add_micros(number, 1_000)?,
            Unit::Microsecond => self.add_micros(number, 1)?,
        }
        Some(())
    }

    fn add_days(&mut self, number: i128) -> Option<()> {
        self.days += number / ONE;
        self.add_micros(number % ONE, MICROS_PER_DAY)
    }

    fn add_micros(&mut self, number: i128, micros: i128) -> Option<()> {
        self.micros = self
            .micros
            .checked_add(divide_rounded(number.checked_mul(micros)?))?;
        Some(())
    }

    fn finish(self) -> Option<IntervalMonthDayNano> {
        Some(IntervalMonthDayNano {
            months: i32::try_from(self.months).ok()?,
            days: i32::try_from(self.days).ok()?,
            nanoseconds: i64::try_from(self.micros.checked_mul(i128::from(NANOS_PER_MICRO))?)
                .ok()?,
        })
    }
}

/// `number / ONE`, rounded half away from zero.
fn divide_rounded(number: i128) -> i128 {
    let (quotient, remainder) = (number / ONE, number % ONE);
    if remainder.abs() * 2 >= ONE {
        quotient + remainder.signum()
    } else {
        quotient
    }
}

/// Reads an interval in PostgreSQL's, SQL's or ISO 8601's notation; a number without a unit counts seconds.
///
/// # Errors
/// [`TypeError::InvalidText`], [`TypeError::OutOfRange`]
pub fn parse_interval(text: &str) -> Result<IntervalMonthDayNano, TypeError> {
    parse_interval_as(text, Unit::Second)
}

/// Reads an interval whose numbers without a unit count `bare` units, as in `interval '5' day`.
///
/// # Errors
/// As [`parse_interval`].
pub fn parse_interval_as(text: &str, bare: Unit) -> Result<IntervalMonthDayNano, TypeError> {
    let body = text.trim_ascii();
    let (negative, rest) = match body.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, body),
    };
    let mut sum = if let Some(iso) = rest.strip_prefix(['P', 'p']) {
        let mut sum = parse_iso(iso).ok_or_else(|| invalid(text))?;
        if negative {
            sum = negated(sum);
        }
        sum
    } else {
        parse_words(body, bare).ok_or_else(|| invalid(text))?
    };
    // Sums of many terms stay far inside i128: each term is at most 2^63 * 10^9 units.
    sum.months = sum.months.clamp(-(1 << 100), 1 << 100);
    sum.finish().ok_or_else(|| out_of_range(text))
}

fn negated(sum: Sum) -> Sum {
    Sum {
        months: -sum.months,
        days: -sum.days,
        micros: -sum.micros,
    }
}

/// Reads `[+-]digits[.digits]` at the start of `text`: the number times [`ONE`], whether it began with a minus, and the rest.
fn take_number(text: &str) -> Option<(i128, bool, &str)> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let whole_len = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, mut rest) = unsigned.split_at_checked(whole_len)?;
    let mut number = if whole.is_empty() {
        0
    } else {
        i128::from(whole.parse::<i64>().ok()?) * ONE
    };
    let mut fraction_len = 0;
    if let Some(after) = rest.strip_prefix('.') {
        fraction_len = after.bytes().take_while(u8::is_ascii_digit).count();
        let mut unit = ONE / 10;
        for digit in after.bytes().take(fraction_len) {
            number += i128::from(digit - b'0') * unit;
            unit /= 10;
        }
        rest = after.get(fraction_len..)?;
    }
    if whole_len + fraction_len == 0 {
        return None;
    }
    Some((if negative { -number } else { number }, negative, rest))
}

fn parse_words(text: &str, bare: Unit) -> Option<Sum> {
    let mut sum = Sum::default();
    let mut rest = text.strip_prefix('@').unwrap_or(text).trim_ascii_start();
    if rest.is_empty() {
        return None;
    }
    let mut fields = 0;
    let mut ago = false;
    while !rest.is_empty() {
        if ago {
            return None;
        }
        if rest
            .get(..3)
            .is_some_and(|word| word.eq_ignore_ascii_case("ago"))
            && fields > 0
        {
            ago = true;
            rest = rest.get(3..)?.trim_ascii_start();
            continue;
        }
        let (number, negative, after) = take_number(rest)?;
        fields += 1;
        rest = match after.as_bytes().first() {
            Some(b':') => {
                let (micros, after) = take_time(number, negative, after)?;
                sum.micros = sum.micros.checked_add(micros)?;
                after
            }
            // Year-month: `1-2`.
            Some(b'-') => {
                let (months, _, after) = take_number(after.get(1..)?)?;
                if !(0..12 * ONE).contains(&months) || months % ONE != 0 || number % ONE != 0 {
                    return None;
                }
                sum.add(number, Unit::Year)?;
                sum.add(if negative { -months } else { months }, Unit::Month)?;
                after
            }
            // Another number without anything between: `1..2`.
            Some(b'.' | b'+') => return None,
            _ => {
                let after = after.trim_ascii_start();
                let word_len = after
                    .char_indices()
                    .find(|(_, letter)| !letter.is_alphabetic())
                    .map_or(after.len(), |(index, _)| index);
                let (word, following) = after.split_at_checked(word_len)?;
                if word.is_empty() {
                    // A number before a time counts days: `1 02:03:04`.
                    let unit = if starts_with_time(following) {
                        Unit::Day
                    } else {
                        bare
                    };
                    sum.add(number, unit)?;
                } else if word.eq_ignore_ascii_case("ago") {
                    sum.add(number, bare)?;
                    ago = true;
                } else {
                    sum.add(number, Unit::from_name(word)?)?;
                }
                following
            }
        };
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_ascii_start();
        }
    }
    (fields > 0).then_some(if ago { negated(sum) } else { sum })
}

fn starts_with_time(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let len = digits.bytes().take_while(u8::is_ascii_digit).count();
    len > 0 && digits.as_bytes().get(len) == Some(&b':')
}

/// Reads the rest of `hours:minutes[:seconds[.fraction]]`, `text` beginning with the first colon. `00:05.5` is minutes and seconds.
fn take_time(hours: i128, negative: bool, text: &str) -> Option<(i128, &str)> {
    if hours % ONE != 0 {
        return None;
    }
    let unsigned = |text: &str| text.as_bytes().first().is_some_and(u8::is_ascii_digit);
    let text = text.strip_prefix(':').filter(|text| unsigned(text))?;
    let (second, _, rest) = take_number(text)?;
    let whole_hours = hours.abs();
    let micros = |number: i128, unit: i128| number.checked_mul(unit).map(divide_rounded);
    let (minutes, seconds, hours, rest) = match rest.strip_prefix(':') {
        Some(after) if unsigned(after) => {
            let (seconds, _, rest) = take_number(after)?;
            (second, seconds, whole_hours, rest)
        }
        Some(_) => return None,
        None if second % ONE != 0 => (whole_hours, second, 0, rest),
        None => (second, 0, whole_hours, rest),
    };
    if minutes % ONE != 0 || minutes >= 60 * ONE || seconds > 60 * ONE {
        return None;
    }
    let total = micros(hours, 3_600 * MICROS_PER_SECOND)?
        + micros(minutes, 60 * MICROS_PER_SECOND)?
        + micros(seconds, MICROS_PER_SECOND)?;
    Some((if negative { -total } else { total }, rest))
}

/// Reads ISO 8601 after the `P`: `1Y2M3DT4H5M6S`, `2W`, or `0001-02-03T04:05:06`.
fn parse_iso(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    let (date, time) = match text.split_once(['T', 't']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    if date.is_empty() && time.is_none_or(str::is_empty) {
        return None;
    }
    if date.get(1..).is_some_and(|rest| rest.contains('-'))
        && !date.contains(|c: char| c.is_ascii_alphabetic())
    {
        let mut fields = date.splitn(3, '-');
        for unit in [Unit::Year, Unit::Month, Unit::Day] {
            if let Some(field) = fields.next() {
                let (number, _, rest) = take_number(field)?;
                if !rest.is_empty() {
                    return None;
                }
                sum.add(number, unit)?;
            }
        }
    } else {
        iso_fields(date, &mut sum, |letter| {
            Some(match letter {
                'Y' => Unit::Year,
                'M' => Unit::Month,
                'W' => Unit::Week,
                'D' => Unit::Day,
                _ => return None,
            })
        })?;
    }
    match time {
        None => {}
        Some(time) if time.contains(':') => {
            let (hours, negative, rest) = take_number(time)?;
            let (micros, rest) = take_time(hours, negative, rest)?;
            if !rest.is_empty() {
                return None;
            }
            sum.micros += micros;
        }
        Some(time) => iso_fields(time, &mut sum, |letter| {
            Some(match letter {
                'H' => Unit::Hour,
                'M' => Unit::Minute,
                'S' => Unit::Second,
                _ => return None,
            })
        })?,
    }
    Some(sum)
}

fn iso_fields(text: &str, sum: &mut Sum, unit_of: impl Fn(char) -> Option<Unit>) -> Option<()> {
    let mut rest = text;
    while !rest.is_empty() {
        let (number, _, after) = take_number(rest)?;
        let letter = after.chars().next()?;
        sum.add(number, unit_of(letter.to_ascii_uppercase())?)?;
        rest = after.get(letter.len_utf8()..)?;
    }
    Some(())
}

/// Appends an interval in IntervalStyle `postgres`: `1 year 2 mons -3 days +04:05:06.7`.
pub fn format_interval(value: IntervalMonthDayNano, out: &mut String) {
    let mut first = true;
    let mut before_negative = false;
    let parts = [
        (value.months / 12, "year"),
        (value.months % 12, "mon"),
        (value.days, "day"),
    ];
    for (amount, unit) in parts {
        if amount == 0 {
            continue;
        }
        if !first {
            out.push(' ');
        }
        if before_negative && amount > 0 {
            out.push('+');
        }
        let plural = if amount == 1 { "" } else { "s" };
        // Writing to a string cannot fail.
        let _ = write!(out, "{amount} {unit}{plural}");
        before_negative = amount < 0;
        first = false;
    }
    let micros = value.nanoseconds / NANOS_PER_MICRO;
    if micros == 0 && !first {
        return;
    }
    if !first {
        out.push(' ');
    }
    if micros < 0 {
        out.push('-');
    } else if before_negative {
        out.push('+');
    }
    let micros = micros.unsigned_abs();
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let _ = write!(
        out,
        "{:02}:{:02}:{:02}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    );
    crate::datetime::format_fraction(fraction, out);
}

/// Appends an interval in PostgreSQL's binary format.
pub fn interval_to_binary(value: IntervalMonthDayNano, out: &mut Vec<u8>) {
    out.extend_from_slice(&(value.nanoseconds / NANOS_PER_MICRO).to_be_bytes());
    out.extend_from_slice(&value.days.to_be_bytes());
    out.extend_from_slice(&value.months.to_be_bytes());
}

/// Reads PostgreSQL's binary format.
///
/// # Errors
/// [`TypeError::InvalidBinary`] if it is not 16 bytes; [`TypeError::OutOfRange`] if the time does not fit nanoseconds.
pub fn interval_from_binary(bytes: &[u8]) -> Result<IntervalMonthDayNano, TypeError> {
    let parts = bytes.split_first_chunk::<8>().and_then(|(micros, rest)| {
        let (days, months) = rest.split_first_chunk::<4>()?;
        let months = <[u8; 4]>::try_from(months).ok()?;
        Some((
            i64::from_be_bytes(*micros),
            i32::from_be_bytes(*days),
            i32::from_be_bytes(months),
        ))
    });
    let Some((micros, days, months)) = parts else {
        return Err(TypeError::InvalidBinary {
            type_name: "interval".to_owned(),
            reason: format!("expected 16 bytes, got {}", bytes.len()),
        });
    };
    let nanoseconds = micros
        .checked_mul(NANOS_PER_MICRO)
        .ok_or_else(|| out_of_range(&format!("{micros} microseconds")))?;
    Ok(IntervalMonthDayNano {
        months,
        days,
        nanoseconds,
    })
}

/// PostgreSQL's order of intervals: microseconds, with months of 30 days and days of 24 hours.
#[must_use]
pub fn order_key(value: IntervalMonthDayNano) -> i128 {
    (i128::from(value.months) * 30 + i128::from(value.days)) * MICROS_PER_DAY
        + i128::from(value.nanoseconds / NANOS_PER_MICRO)
}

#[cfg(test)]
mod tests;
