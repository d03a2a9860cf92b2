//! Reading dates and times as PostgreSQL does: ISO 8601 first, then the looser styles (`Jan 8, 1999`, `1/8/1999`, `20240229T101112`).
//!
//! Must not know the current time. Called by [`super`] only.

use super::{
    DATE_INFINITY, DATE_NEGATIVE_INFINITY, FIRST_DAY, MICROS_PER_DAY, MICROS_PER_SECOND,
    TIMESTAMP_INFINITY, TIMESTAMP_NEGATIVE_INFINITY, TimeZone, days_from_civil,
};
use crate::TypeError;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

/// What a text says, field by field.
#[derive(Debug, Default)]
struct Fields {
    /// Year (as written), month, day.
    date: Option<(i64, u32, u32)>,
    /// Microseconds since midnight; up to and including the next midnight.
    time: Option<i64>,
    zone: Option<TimeZone>,
    before_christ: bool,
    infinity: Option<bool>,
}

enum Failure {
    Syntax,
    Range,
}

type Parsed<T> = Result<T, Failure>;

fn typed<T>(parsed: Parsed<T>, type_name: &str, text: &str) -> Result<T, TypeError> {
    parsed.map_err(|failure| match failure {
        Failure::Syntax => TypeError::InvalidText {
            type_name: type_name.to_owned(),
            text: text.to_owned(),
        },
        Failure::Range => TypeError::OutOfRange {
            type_name: type_name.to_owned(),
            value: text.to_owned(),
        },
    })
}

/// Reads a date; a time of day after it is ignored.
///
/// # Errors
/// [`TypeError::InvalidText`], [`TypeError::OutOfRange`]
pub fn parse_date(text: &str) -> Result<i32, TypeError> {
    let parsed = parse_fields(text).and_then(|fields| match fields.infinity {
        Some(true) => Ok(DATE_INFINITY),
        Some(false) => Ok(DATE_NEGATIVE_INFINITY),
        None => days_of(&fields),
    });
    typed(parsed, "date", text)
}

/// Reads a time of day in microseconds; a date before it is ignored.
///
/// # Errors
/// [`TypeError::InvalidText`], [`TypeError::OutOfRange`]
pub fn parse_time(text: &str) -> Result<i64, TypeError> {
    let parsed = parse_fields(text).and_then(|fields| fields.time.ok_or(Failure::Syntax));
    typed(parsed, "time", text)
}

/// Reads a time stamp; a zone is ignored, as PostgreSQL does.
///
/// # Errors
/// [`TypeError::InvalidText`], [`TypeError::OutOfRange`]
pub fn parse_timestamp(text: &str) -> Result<i64, TypeError> {
    let parsed = parse_fields(text).and_then(|fields| match fields.infinity {
        Some(true) => Ok(TIMESTAMP_INFINITY),
        Some(false) => Ok(TIMESTAMP_NEGATIVE_INFINITY),
        None => micros_of(&fields),
    });
    typed(parsed, "timestamp", text)
}

/// Reads a time stamp with time zone; without a zone it is what clocks of `zone` show.
///
/// # Errors
/// [`TypeError::InvalidText`], [`TypeError::OutOfRange`]
pub fn parse_timestamptz(text: &str, zone: &TimeZone) -> Result<i64, TypeError> {
    let parsed = parse_fields(text).and_then(|fields| match fields.infinity {
        Some(true) => Ok(TIMESTAMP_INFINITY),
        Some(false) => Ok(TIMESTAMP_NEGATIVE_INFINITY),
        None => {
            let local = micros_of(&fields)?;
            let zone = fields.zone.as_ref().unwrap_or(zone);
            zone.to_utc(local).and_then(in_range).ok_or(Failure::Range)
        }
    });
    typed(parsed, "timestamp with time zone", text)
}

fn in_range(micros: i64) -> Option<i64> {
    (micros >= FIRST_DAY * MICROS_PER_DAY && micros != i64::MAX).then_some(micros)
}

fn days_of(fields: &Fields) -> Parsed<i32> {
    let (year, month, day) = fields.date.ok_or(Failure::Syntax)?;
    if year == 0 {
        return Err(Failure::Range);
    }
    let year = if fields.before_christ { 1 - year } else { year };
    days_from_civil(year, month, day).ok_or(Failure::Range)
}

fn micros_of(fields: &Fields) -> Parsed<i64> {
    let days = days_of(fields)?;
    i64::from(days)
        .checked_mul(MICROS_PER_DAY)
        .and_then(|micros| micros.checked_add(fields.time.unwrap_or(0)))
        .and_then(in_range)
        .ok_or(Failure::Range)
}

fn parse_fields(text: &str) -> Parsed<Fields> {
    let text = text.trim_ascii();
    if let Some(fields) = parse_iso(text.as_bytes())? {
        return Ok(fields);
    }
    parse_loose(text)
}

/// The common case, byte by byte: `YYYY-MM-DD[( |T)HH:MM:SS[.ffffff][Z|±HH[:MM]]]`. `None` if the text is anything else.
fn parse_iso(bytes: &[u8]) -> Parsed<Option<Fields>> {
    let Some((date, rest)) = bytes.split_first_chunk::<10>() else {
        return Ok(None);
    };
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *date else {
        return Ok(None);
    };
    let (Some(century), Some(year), Some(month), Some(day)) =
        (two(y1, y2), two(y3, y4), two(m1, m2), two(d1, d2))
    else {
        return Ok(None);
    };
    let mut fields = Fields {
        date: Some((i64::from(century * 100 + year), month, day)),
        ..Fields::default()
    };
    if rest.is_empty() {
        return Ok(Some(fields));
    }
    let Some((clock, rest)) = rest.split_first_chunk::<9>() else {
        return Ok(None);
    };
    let [b' ' | b'T', h1, h2, b':', m1, m2, b':', s1, s2] = *clock else {
        return Ok(None);
    };
    let (Some(hour), Some(minute), Some(second)) = (two(h1, h2), two(m1, m2), two(s1, s2)) else {
        return Ok(None);
    };
    let mut rest = rest;
    let mut fraction = 0;
    if let Some((b'.', digits)) = rest.split_first() {
        let len = digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let Some((digits, after)) = digits.split_at_checked(len) else {
            return Ok(None);
        };
        fraction = fraction_micros(digits);
        rest = after;
    }
    fields.time = Some(time_of(
        hour.into(),
        minute.into(),
        second.into(),
        fraction,
    )?);
    match rest {
        [] => {}
        [b'Z' | b'z'] => fields.zone = Some(TimeZone::UTC),
        [b'+' | b'-', ..] => {
            let Some(seconds) = std::str::from_utf8(rest).ok().and_then(parse_offset) else {
                return Ok(None);
            };
            fields.zone = Some(TimeZone::Fixed(seconds));
        }
        _ => return Ok(None),
    }
    Ok(Some(fields))
}

fn two(high: u8, low: u8) -> Option<u32> {
    (high.is_ascii_digit() && low.is_ascii_digit())
        .then(|| u32::from(high - b'0') * 10 + u32::from(low - b'0'))
}

/// Digits after the point as microseconds, rounded half up at the seventh digit.
fn fraction_micros(digits: &[u8]) -> i64 {
    let mut micros = 0;
    for place in 0..6 {
        micros = micros * 10 + digits.get(place).map_or(0, |digit| i64::from(digit - b'0'));
    }
    micros + i64::from(digits.get(6).is_some_and(|digit| *digit >= b'5'))
}

/// Hours may be 24 and seconds 60 if the whole is not beyond midnight.
fn time_of(hour: i64, minute: i64, second: i64, fraction: i64) -> Parsed<i64> {
    if hour > 24 || minute > 59 || second > 60 {
        return Err(Failure::Range);
    }
    let micros = ((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + fraction;
    if micros > MICROS_PER_DAY {
        Err(Failure::Range)
    } else {
        Ok(micros)
    }
}

/// Seconds east of UTC of `+05`, `-0330`, `+05:30`, `+00:53:28`, `-8`.
pub(super) fn parse_offset(text: &str) -> Option<i32> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'+' => (false, text.get(1..)?),
        b'-' => (true, text.get(1..)?),
        _ => return None,
    };
    let number = |text: &str, limit: i32| {
        (!text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<i32>().ok())
            .flatten()
            .filter(|number| *number <= limit)
    };
    let seconds = if digits.contains(':') {
        let mut parts = digits.split(':');
        let hours = number(parts.next()?, 15)?;
        let minutes = number(parts.next()?, 59)?;
        let seconds = parts.next().map_or(Some(0), |part| number(part, 59))?;
        if parts.next().is_some() {
            return None;
        }
        hours * 3_600 + minutes * 60 + seconds
    } else {
        match digits.len() {
            1 | 2 => number(digits, 15)? * 3_600,
            3 | 4 => {
                let (hours, minutes) = digits.split_at_checked(digits.len() - 2)?;
                number(hours, 15)? * 3_600 + number(minutes, 59)? * 60
            }
            6 => {
                let (hours, minutes) = (digits.get(..2)?, digits.get(2..4)?);
                number(hours, 15)? * 3_600
                    + number(minutes, 59)? * 60
                    + number(digits.get(4..)?, 59)?
            }
            _ => return None,
        }
    };
    Some(if negative { -seconds } else { seconds })
}

/// The index (from 1) of the name that `word` abbreviates with at least three letters.
fn name_index(names: &[&str], word: &str) -> Option<u32> {
    let index = names.iter().position(|name| {
        word.len() >= 3
            && name
                .get(..word.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(word))
    })?;
    u32::try_from(index + 1).ok()
}

/// Any order of a date in one of several styles, a time, a zone and `BC`/`AD`.
fn parse_loose(text: &str) -> Parsed<Fields> {
    let mut fields = Fields::default();
    match text.to_ascii_lowercase().as_str() {
        "infinity" | "+infinity" | "inf" => {
            fields.infinity = Some(true);
            return Ok(fields);
        }
        "-infinity" | "-inf" => {
            fields.infinity = Some(false);
            return Ok(fields);
        }
        "epoch" => {
            fields.date = Some((1970, 1, 1));
            return Ok(fields);
        }
        "allballs" => {
            fields.time = Some(0);
            return Ok(fields);
        }
        _ => {}
    }
    // Month named by a word, and bare numbers beside it.
    let mut month = None;
    let mut numbers: Vec<&str> = Vec::new();
    for token in text
        .split([' ', ',', '\t', '\n'])
        .filter(|token| !token.is_empty())
    {
        parse_token(token, &mut fields, &mut month, &mut numbers)?;
    }
    if let Some(month) = month {
        named_month(&mut fields, month, &numbers)?;
    } else if !numbers.is_empty() {
        return Err(Failure::Syntax);
    }
    if fields.date.is_none() && fields.time.is_none() {
        return Err(Failure::Syntax);
    }
    Ok(fields)
}

fn parse_token<'t>(
    token: &'t str,
    fields: &mut Fields,
    month: &mut Option<u32>,
    numbers: &mut Vec<&'t str>,
) -> Parsed<()> {
    let first = token.bytes().next().unwrap_or_default();
    if first.is_ascii_digit() {
        if let Some((date, time)) = token.split_once(['T', 't']).filter(|(_, time)| {
            time.bytes()
                .next()
                .is_some_and(|byte| byte.is_ascii_digit())
        }) {
            set_date(fields, numeric_date(date)?)?;
            return parse_clock(time, fields);
        }
        if token.contains(':') {
            return parse_clock(token, fields);
        }
        if token.contains(['-', '/', '.']) {
            let date = numeric_date(token)?;
            return set_date(fields, date);
        }
        if token.len() >= 6 && token.bytes().all(|byte| byte.is_ascii_digit()) {
            return if fields.date.is_none() && month.is_none() {
                let date = numeric_date(token)?;
                set_date(fields, date)
            } else {
                parse_clock(token, fields)
            };
        }
        if token.bytes().all(|byte| byte.is_ascii_digit()) {
            numbers.push(token);
            return Ok(());
        }
        return Err(Failure::Syntax);
    }
    if matches!(first, b'+' | b'-') {
        let seconds = parse_offset(token).ok_or(Failure::Syntax)?;
        return set_zone(fields, TimeZone::Fixed(seconds));
    }
    match token.to_ascii_lowercase().as_str() {
        "bc" => {
            fields.before_christ = true;
            return Ok(());
        }
        "ad" => return Ok(()),
        "am" | "pm" => return half_day(fields, token),
        "t" => return Ok(()),
        _ => {}
    }
    if let Some(index) = name_index(&MONTHS, token) {
        return if month.replace(index).is_none() {
            Ok(())
        } else {
            Err(Failure::Syntax)
        };
    }
    if name_index(&WEEKDAYS, token).is_some() {
        return Ok(());
    }
    set_zone(fields, named_zone(token).ok_or(Failure::Syntax)?)
}

fn set_date(fields: &mut Fields, date: (i64, u32, u32)) -> Parsed<()> {
    if fields.date.replace(date).is_some() {
        Err(Failure::Syntax)
    } else {
        Ok(())
    }
}

fn set_zone(fields: &mut Fields, zone: TimeZone) -> Parsed<()> {
    if fields.zone.replace(zone).is_some() {
        Err(Failure::Syntax)
    } else {
        Ok(())
    }
}

fn half_day(fields: &mut Fields, word: &str) -> Parsed<()> {
    const HOUR: i64 = 3_600 * MICROS_PER_SECOND;
    let time = fields.time.ok_or(Failure::Syntax)?;
    let hour = time / HOUR;
    if !(1..=12).contains(&hour) {
        return Err(Failure::Range);
    }
    let in_half = time % (12 * HOUR);
    let afternoon = word.eq_ignore_ascii_case("pm");
    fields.time = Some(if afternoon {
        in_half + 12 * HOUR
    } else {
        in_half
    });
    Ok(())
}

/// A year of two digits is in 1970 to 2069.
fn year_of(text: &str) -> Parsed<i64> {
    let year: i64 = text.parse().map_err(|_| Failure::Syntax)?;
    Ok(match text.len() {
        1 | 2 if year < 70 => year + 2000,
        1 | 2 => year + 1900,
        _ => year,
    })
}

fn small(text: &str) -> Parsed<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Failure::Syntax);
    }
    text.parse().map_err(|_| Failure::Range)
}

/// `Jan 8 1999`, `8 Jan 1999`, `1999 Jan 8`.
fn named_month(fields: &mut Fields, month: u32, numbers: &[&str]) -> Parsed<()> {
    let date = match numbers {
        [year, day] if year.len() > 2 => (year_of(year)?, month, small(day)?),
        [day, year] => (year_of(year)?, month, small(day)?),
        _ => return Err(Failure::Syntax),
    };
    set_date(fields, date)
}

/// `1999-01-08`, `1999-Jan-08`, `08-Jan-1999`, `1/8/1999` (month first), `19990108`, `990108`, `1999.008`.
fn numeric_date(text: &str) -> Parsed<(i64, u32, u32)> {
    let parts: Vec<&str> = text.split(['-', '/', '.']).collect();
    match *parts.as_slice() {
        [all] if all.len() >= 6 && all.bytes().all(|byte| byte.is_ascii_digit()) => {
            let (year, rest) = all.split_at_checked(all.len() - 4).ok_or(Failure::Syntax)?;
            let (month, day) = rest.split_at_checked(2).ok_or(Failure::Syntax)?;
            Ok((year_of(year)?, small(month)?, small(day)?))
        }
        [year, day_of_year] if year.len() >= 4 && day_of_year.len() == 3 => {
            let year = year_of(year)?;
            let mut day = small(day_of_year)?;
            for month in 1..=12 {
                let length = super::days_in_month(year, month);
                if day <= length {
                    return Ok((year, month, day));
                }
                day -= length;
            }
            Err(Failure::Range)
        }
        [first, second, third] => {
            if let Some(month) = name_index(&MONTHS, second) {
                return Ok(if first.len() > 2 {
                    (year_of(first)?, month, small(third)?)
                } else {
                    (year_of(third)?, month, small(first)?)
                });
            }
            if first.len() > 2 {
                Ok((year_of(first)?, small(second)?, small(third)?))
            } else {
                Ok((year_of(third)?, small(first)?, small(second)?))
            }
        }
        _ => Err(Failure::Syntax),
    }
}

/// `10:11[:12[.5]][zone]`, `101112[.5][zone]`, with `AM`/`PM` glued on or not.
fn parse_clock(text: &str, fields: &mut Fields) -> Parsed<()> {
    if fields.time.is_some() {
        return Err(Failure::Syntax);
    }
    let len = text
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'))
        .count();
    let (clock, suffix) = text.split_at_checked(len).ok_or(Failure::Syntax)?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Failure::Syntax);
    }
    let parts: Vec<&str> = whole.split(':').collect();
    let (hour, minute, second) = match *parts.as_slice() {
        [hour, minute, second] => (small(hour)?, small(minute)?, small(second)?),
        [hour, minute] if fraction.is_empty() => (small(hour)?, small(minute)?, 0),
        [all] if matches!(all.len(), 4 | 6) => (
            small(all.get(..2).unwrap_or_default())?,
            small(all.get(2..4).unwrap_or_default())?,
            all.get(4..6).map_or(Ok(0), small)?,
        ),
        _ => return Err(Failure::Syntax),
    };
    let fraction = fraction_micros(fraction.as_bytes());
    fields.time = Some(time_of(
        hour.into(),
        minute.into(),
        second.into(),
        fraction,
    )?);
    if suffix.is_empty() {
        return Ok(());
    }
    if suffix.eq_ignore_ascii_case("am") || suffix.eq_ignore_ascii_case("pm") {
        return half_day(fields, suffix);
    }
    let zone = parse_offset(suffix)
        .map(TimeZone::Fixed)
        .or_else(|| named_zone(suffix));
    set_zone(fields, zone.ok_or(Failure::Syntax)?)
}

/// An abbreviation, a name of the database, or a POSIX specification that begins with a name.
fn named_zone(text: &str) -> Option<TimeZone> {
    const NAME_MIN: usize = 3;
    let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    if letters == 0 {
        return None;
    }
    TimeZone::abbreviated(text).or_else(|| {
        (letters >= NAME_MIN)
            .then(|| TimeZone::specified(text))
            .flatten()
    })
}
