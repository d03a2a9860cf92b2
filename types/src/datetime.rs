//! Dates, times and time stamps: PostgreSQL's text formats (DateStyle `ISO, MDY`), its binary formats, and time zones.
//!
//! Values are Arrow's: days since 1970-01-01 (`i32`), microseconds since midnight (`i64`), microseconds since 1970-01-01 00:00 UTC (`i64`).
//! The extreme integers of a date or time stamp are `infinity` and `-infinity`, in memory as in PostgreSQL's binary format.
//! The calendar is the proleptic Gregorian one; years before 1 are written `BC`.
//! Must not know Arrow arrays or the current time: `now` and `today` are not values here. Called by [`crate::value`] and by the functions on time.

use std::fmt::Write;

use crate::TypeError;

mod abbreviations;
mod parse;
mod posix;
mod zone;

pub use parse::{parse_date, parse_time, parse_timestamp, parse_timestamptz};
pub use posix::PosixZone;
pub use zone::{TimeZone, ZoneRow};

/// `infinity` as a date.
pub const DATE_INFINITY: i32 = i32::MAX;
/// `-infinity` as a date.
pub const DATE_NEGATIVE_INFINITY: i32 = i32::MIN;
/// `infinity` as a time stamp.
pub const TIMESTAMP_INFINITY: i64 = i64::MAX;
/// `-infinity` as a time stamp.
pub const TIMESTAMP_NEGATIVE_INFINITY: i64 = i64::MIN;
/// Microseconds of a day.
pub const MICROS_PER_DAY: i64 = 86_400_000_000;
/// Microseconds of a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;

/// Days from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
const POSTGRES_EPOCH_DAYS: i32 = 10_957;
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
/// 4714-11-24 BC, the first day PostgreSQL has.
const FIRST_DAY: i64 = -2_440_588;
/// 5874897-12-31, the last one.
const LAST_DAY: i64 = 2_145_042_905;

/// Year (0 is 1 BC), month and day of a number of days since 1970-01-01.
///
/// Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms".
#[must_use]
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (
        year,
        u32::try_from(month).unwrap_or(1),
        u32::try_from(day).unwrap_or(1),
    )
}

/// Days since 1970-01-01 of a date; `None` if there is no such date or it is outside PostgreSQL's range. Year 0 is 1 BC.
#[must_use]
pub fn days_from_civil(year: i64, month: u32, day: u32) -> Option<i32> {
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if !(-5_000..=5_874_897).contains(&year) {
        return None;
    }
    let shifted_year = year - i64::from(month <= 2);
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let month = i64::from(month);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    if !(FIRST_DAY..=LAST_DAY).contains(&days) {
        return None;
    }
    i32::try_from(days).ok()
}

/// Number of days of a month (1 to 12) of a year.
#[must_use]
pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Appends two digits of a number below 100.
fn push_two(number: i64, out: &mut String) {
    let digit = |value: i64| char::from(b'0' + u8::try_from(value % 10).unwrap_or(0));
    out.push(digit(number / 10));
    out.push(digit(number));
}

/// Appends at least two digits of a number of hours.
fn push_hours(hours: i64, out: &mut String) {
    if hours < 100 {
        push_two(hours, out);
    } else {
        // Writing to a string cannot fail.
        let _ = write!(out, "{hours}");
    }
}

/// Appends `YYYY-MM-DD` and returns whether the year is before Christ.
fn push_date(days: i64, out: &mut String) -> bool {
    let (year, month, day) = civil_from_days(days);
    let before = year <= 0;
    let shown = if before { 1 - year } else { year };
    if shown < 10_000 {
        push_two(shown / 100, out);
        push_two(shown % 100, out);
    } else {
        // Writing to a string cannot fail.
        let _ = write!(out, "{shown}");
    }
    out.push('-');
    push_two(i64::from(month), out);
    out.push('-');
    push_two(i64::from(day), out);
    before
}

/// Appends a point and up to six digits of `micros` (below a million), without trailing zeros; nothing for zero.
pub(crate) fn format_fraction(micros: u64, out: &mut String) {
    if micros == 0 {
        return;
    }
    out.push('.');
    let mut rest = micros;
    let mut unit = 100_000;
    while rest > 0 && unit > 0 {
        out.push(char::from(
            b'0' + u8::try_from(rest / unit % 10).unwrap_or(0),
        ));
        rest %= unit;
        unit /= 10;
    }
}

/// Appends a date: `2024-02-29`, `0044-03-15 BC`, `infinity`.
pub fn format_date(days: i32, out: &mut String) {
    match days {
        DATE_INFINITY => out.push_str("infinity"),
        DATE_NEGATIVE_INFINITY => out.push_str("-infinity"),
        days => {
            if push_date(i64::from(days), out) {
                out.push_str(" BC");
            }
        }
    }
}

/// Appends a time of day: `23:59:59.5`. Midnight at the end of a day is `24:00:00`.
pub fn format_time(micros: i64, out: &mut String) {
    let seconds = micros.div_euclid(MICROS_PER_SECOND);
    push_two(seconds / 3_600, out);
    out.push(':');
    push_two(seconds / 60 % 60, out);
    out.push(':');
    push_two(seconds % 60, out);
    format_fraction(micros.rem_euclid(MICROS_PER_SECOND).unsigned_abs(), out);
}

fn format_instant(micros: i64, offset: Option<i32>, out: &mut String) {
    let before = push_date(micros.div_euclid(MICROS_PER_DAY), out);
    out.push(' ');
    format_time(micros.rem_euclid(MICROS_PER_DAY), out);
    if let Some(offset) = offset {
        format_offset(offset, out);
    }
    if before {
        out.push_str(" BC");
    }
}

/// Appends `+05`, `-03:30`, or with seconds `+00:53:28`.
fn format_offset(seconds: i32, out: &mut String) {
    out.push(if seconds < 0 { '-' } else { '+' });
    let seconds = i64::from(seconds.unsigned_abs());
    push_hours(seconds / 3_600, out);
    if seconds % 3_600 != 0 {
        out.push(':');
        push_two(seconds / 60 % 60, out);
    }
    if seconds % 60 != 0 {
        out.push(':');
        push_two(seconds % 60, out);
    }
}

/// Appends a time stamp without time zone: `2024-02-29 23:59:59.5`, `infinity`.
pub fn format_timestamp(micros: i64, out: &mut String) {
    match micros {
        TIMESTAMP_INFINITY => out.push_str("infinity"),
        TIMESTAMP_NEGATIVE_INFINITY => out.push_str("-infinity"),
        micros => format_instant(micros, None, out),
    }
}

/// Appends a time stamp with time zone as clocks of `zone` show it: `2024-02-29 23:59:59.5+01`.
pub fn format_timestamptz(micros: i64, zone: &TimeZone, out: &mut String) {
    match micros {
        TIMESTAMP_INFINITY => out.push_str("infinity"),
        TIMESTAMP_NEGATIVE_INFINITY => out.push_str("-infinity"),
        micros => {
            let offset = zone.offset_at(micros);
            match micros.checked_add(i64::from(offset) * MICROS_PER_SECOND) {
                Some(local) => format_instant(local, Some(offset), out),
                None => format_instant(micros, Some(0), out),
            }
        }
    }
}

/// Days since 2000-01-01, PostgreSQL's binary format of a date.
///
/// # Errors
/// [`TypeError::OutOfRange`] before the first day PostgreSQL has.
pub fn date_to_postgres(days: i32) -> Result<i32, TypeError> {
    match days {
        DATE_INFINITY | DATE_NEGATIVE_INFINITY => Ok(days),
        days => days
            .checked_sub(POSTGRES_EPOCH_DAYS)
            .ok_or_else(|| out_of_range("date", days)),
    }
}

/// The reverse of [`date_to_postgres`].
///
/// # Errors
/// [`TypeError::OutOfRange`] for days that a date cannot hold.
pub fn date_from_postgres(days: i32) -> Result<i32, TypeError> {
    match days {
        DATE_INFINITY | DATE_NEGATIVE_INFINITY => Ok(days),
        days => days
            .checked_add(POSTGRES_EPOCH_DAYS)
            .filter(|days| (FIRST_DAY..=LAST_DAY).contains(&i64::from(*days)))
            .ok_or_else(|| out_of_range("date", days)),
    }
}

/// Microseconds since 2000-01-01, PostgreSQL's binary format of a time stamp.
///
/// # Errors
/// [`TypeError::OutOfRange`] before the first instant PostgreSQL has.
pub fn timestamp_to_postgres(micros: i64) -> Result<i64, TypeError> {
    match micros {
        TIMESTAMP_INFINITY | TIMESTAMP_NEGATIVE_INFINITY => Ok(micros),
        micros => micros
            .checked_sub(POSTGRES_EPOCH_MICROS)
            .ok_or_else(|| out_of_range("timestamp", micros)),
    }
}

/// The reverse of [`timestamp_to_postgres`].
///
/// # Errors
/// [`TypeError::OutOfRange`] for instants that a time stamp cannot hold: before 4714 BC, or after the year 294246.
pub fn timestamp_from_postgres(micros: i64) -> Result<i64, TypeError> {
    match micros {
        TIMESTAMP_INFINITY | TIMESTAMP_NEGATIVE_INFINITY => Ok(micros),
        micros => micros
            .checked_add(POSTGRES_EPOCH_MICROS)
            .filter(|micros| *micros >= FIRST_DAY * MICROS_PER_DAY && *micros != i64::MAX)
            .ok_or_else(|| out_of_range("timestamp", micros)),
    }
}

fn out_of_range(type_name: &str, value: impl std::fmt::Display) -> TypeError {
    TypeError::OutOfRange {
        type_name: type_name.to_owned(),
        value: value.to_string(),
    }
}

#[cfg(test)]
mod tests;
