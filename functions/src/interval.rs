//! Intervals, dates and timestamps as integers: calendar arithmetic by PostgreSQL's rules.
//!
//! Owns the proleptic Gregorian calendar and the arithmetic of months, days and microseconds. Must not know Arrow arrays or time zones.
//! Called by operators and date/time functions.

use arrow_buffer::IntervalMonthDayNano;

use crate::errors::{EvalResult, datetime_error, datetime_overflow, numeric_overflow};

/// Microseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000;
/// Microseconds in a minute.
pub(crate) const MINUTE: i64 = 60 * SECOND;
/// Microseconds in an hour.
pub(crate) const HOUR: i64 = 60 * MINUTE;
/// Microseconds in a day.
pub(crate) const DAY: i64 = 24 * HOUR;

/// First microsecond of a timestamp: 4714-11-24 BC. The last is the last that 64 bits hold, in the year 294247.
const TIMESTAMP_MIN: i64 = -210_866_803_200_000_000;
/// 4714-11-24 BC.
const DATE_MIN: i32 = -2_440_588;
/// 5874897-12-31.
const DATE_MAX: i32 = 2_145_042_905;

/// An interval: months, days and microseconds, which do not convert into each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interval {
    /// Months.
    pub(crate) months: i32,
    /// Days.
    pub(crate) days: i32,
    /// Microseconds.
    pub(crate) micros: i64,
}

fn overflow() -> flowstone_types::EvalError {
    datetime_overflow("interval")
}

impl Interval {
    /// From Arrow's form; nanoseconds below a microsecond do not occur.
    pub(crate) const fn from_arrow(value: IntervalMonthDayNano) -> Self {
        Self {
            months: value.months,
            days: value.days,
            micros: value.nanoseconds.div_euclid(1000),
        }
    }

    /// To Arrow's form.
    pub(crate) fn to_arrow(self) -> EvalResult<IntervalMonthDayNano> {
        let nanoseconds = self.micros.checked_mul(1000).ok_or_else(overflow)?;
        Ok(IntervalMonthDayNano::new(
            self.months,
            self.days,
            nanoseconds,
        ))
    }

    /// `-self`
    pub(crate) fn negate(self) -> EvalResult<Self> {
        Ok(Self {
            months: self.months.checked_neg().ok_or_else(overflow)?,
            days: self.days.checked_neg().ok_or_else(overflow)?,
            micros: self.micros.checked_neg().ok_or_else(overflow)?,
        })
    }

    /// `self + other`
    pub(crate) fn add(self, other: Self) -> EvalResult<Self> {
        Ok(Self {
            months: self.months.checked_add(other.months).ok_or_else(overflow)?,
            days: self.days.checked_add(other.days).ok_or_else(overflow)?,
            micros: self.micros.checked_add(other.micros).ok_or_else(overflow)?,
        })
    }

    /// `self * factor`: fractions of months become days of which a month has 30, fractions of days become time.
    pub(crate) fn multiply(self, factor: f64) -> EvalResult<Self> {
        self.scale_by(|value| value * factor)
    }

    /// `self / divisor`; the divisor is not zero.
    pub(crate) fn divide(self, divisor: f64) -> EvalResult<Self> {
        self.scale_by(|value| value / divisor)
    }

    fn scale_by(self, scale: impl Fn(f64) -> f64) -> EvalResult<Self> {
        let round_micro = |value: f64| (value * 1e6).round_ties_even() / 1e6;
        let exact_months = scale(f64::from(self.months));
        let exact_days = scale(f64::from(self.days));
        let months = to_i32(exact_months)?;
        let mut days = to_i32(exact_days)?;
        let from_months = round_micro((exact_months - f64::from(months)) * 30.0);
        let whole_from_months = to_i32(from_months)?;
        let mut seconds = round_micro(
            (exact_days - f64::from(days) + from_months - f64::from(whole_from_months)) * 86_400.0,
        );
        if seconds.abs() >= 86_400.0 {
            let whole = to_i32(seconds / 86_400.0)?;
            days = days.checked_add(whole).ok_or_else(overflow)?;
            seconds -= f64::from(whole) * 86_400.0;
        }
        days = days.checked_add(whole_from_months).ok_or_else(overflow)?;
        let micros = to_i64((scale(to_f64(self.micros)) + seconds * 1e6).round_ties_even())?;
        Ok(Self {
            months,
            days,
            micros,
        })
    }

    /// The interval as one number of microseconds with months of 30 days, the order PostgreSQL compares intervals in.
    pub(crate) fn span(self) -> i128 {
        (i128::from(self.months) * 30 + i128::from(self.days)) * i128::from(DAY)
            + i128::from(self.micros)
    }

    /// Hours beyond a day become days.
    pub(crate) fn justify_hours(self) -> EvalResult<Self> {
        let whole = self.micros / DAY;
        let mut days = i64::from(self.days) + whole;
        let mut micros = self.micros - whole * DAY;
        if days > 0 && micros < 0 {
            micros += DAY;
            days -= 1;
        } else if days < 0 && micros > 0 {
            micros -= DAY;
            days += 1;
        }
        Ok(Self {
            months: self.months,
            days: i32::try_from(days).map_err(|_| overflow())?,
            micros,
        })
    }

    /// Days beyond thirty become months.
    pub(crate) fn justify_days(self) -> EvalResult<Self> {
        let whole = self.days / 30;
        let mut months = self.months.checked_add(whole).ok_or_else(overflow)?;
        let mut days = self.days - whole * 30;
        if months > 0 && days < 0 {
            days += 30;
            months -= 1;
        } else if months < 0 && days > 0 {
            days -= 30;
            months += 1;
        }
        Ok(Self {
            months,
            days,
            micros: self.micros,
        })
    }

    /// Both, and all parts get the same sign.
    pub(crate) fn justify(self) -> EvalResult<Self> {
        let hours = self.micros / DAY;
        let mut days = i64::from(self.days) + hours;
        let mut micros = self.micros - hours * DAY;
        let whole = days / 30;
        let mut months = i64::from(self.months) + whole;
        days -= whole * 30;
        if months > 0 && (days < 0 || (days == 0 && micros < 0)) {
            days += 30;
            months -= 1;
        } else if months < 0 && (days > 0 || (days == 0 && micros > 0)) {
            days -= 30;
            months += 1;
        }
        if days > 0 && micros < 0 {
            micros += DAY;
            days -= 1;
        } else if days < 0 && micros > 0 {
            micros -= DAY;
            days += 1;
        }
        Ok(Self {
            months: i32::try_from(months).map_err(|_| overflow())?,
            days: i32::try_from(days).map_err(|_| overflow())?,
            micros,
        })
    }
}

/// Truncates toward zero.
pub(crate) fn to_i32(value: f64) -> EvalResult<i32> {
    i32::try_from(to_i64(value)?).map_err(|_| overflow())
}

/// Truncates toward zero.
pub(crate) fn to_i64(value: f64) -> EvalResult<i64> {
    if !(-9.223_372_036_854_775e18..9.223_372_036_854_775e18).contains(&value) {
        return Err(if value.is_nan() {
            numeric_overflow()
        } else {
            overflow()
        });
    }
    #[expect(
        clippy::as_conversions,
        reason = "the range was checked on the line above"
    )]
    let whole = value as i64;
    Ok(whole)
}

/// The nearest float.
#[expect(
    clippy::as_conversions,
    reason = "the nearest float is what is asked for; std has no From for it"
)]
pub(crate) const fn to_f64(value: i64) -> f64 {
    value as f64
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
pub(crate) const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year (0 is 1 BC), month 1..=12 and day 1..=31 of a number of days since 1970-01-01.
pub(crate) const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// Number of days of a month.
pub(crate) const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days of a date `months` later; the day is cut to the month's last.
pub(crate) const fn add_months(days: i64, months: i64) -> i64 {
    let (year, month, day) = civil_from_days(days);
    let index = year * 12 + month - 1 + months;
    let (year, month) = (index.div_euclid(12), index.rem_euclid(12) + 1);
    let last = days_in_month(year, month);
    days_from_civil(year, month, if day > last { last } else { day })
}

/// Whether a timestamp is `infinity` or `-infinity`.
pub(crate) const fn is_infinite(micros: i64) -> bool {
    matches!(micros, i64::MIN | i64::MAX)
}

/// Whether a date is `infinity` or `-infinity`.
pub(crate) const fn is_infinite_date(days: i32) -> bool {
    matches!(days, i32::MIN | i32::MAX)
}

/// `timestamp + interval`; nothing moves an infinite one.
pub(crate) fn add_interval(micros: i64, interval: Interval) -> EvalResult<i64> {
    if is_infinite(micros) {
        return Ok(micros);
    }
    let mut days = micros.div_euclid(DAY);
    let time = micros.rem_euclid(DAY);
    if interval.months != 0 {
        days = add_months(days, i64::from(interval.months));
    }
    days.checked_add(i64::from(interval.days))
        .and_then(|days| days.checked_mul(DAY))
        .and_then(|start| start.checked_add(time))
        .and_then(|start| start.checked_add(interval.micros))
        .ok_or_else(|| datetime_overflow("timestamp"))
        .and_then(check_timestamp)
}

/// `timestamp + time of day`; nothing moves an infinite one.
pub(crate) fn add_time(micros: i64, time: i64) -> EvalResult<i64> {
    if is_infinite(micros) {
        return Ok(micros);
    }
    micros
        .checked_add(time)
        .ok_or_else(|| datetime_overflow("timestamp"))
        .and_then(check_timestamp)
}

/// `left - right` of two timestamps: days and time.
pub(crate) fn timestamp_difference(left: i64, right: i64) -> EvalResult<Interval> {
    if is_infinite(left) || is_infinite(right) {
        return Err(datetime_error("cannot subtract infinite timestamps"));
    }
    let micros = left.checked_sub(right).ok_or_else(overflow)?;
    Interval {
        months: 0,
        days: 0,
        micros,
    }
    .justify_hours()
}

/// A computed timestamp, if PostgreSQL has it and 64 bits from 1970 hold it; an infinite one is never the result of a computation.
pub(crate) fn check_timestamp(micros: i64) -> EvalResult<i64> {
    if micros >= TIMESTAMP_MIN && micros != i64::MAX {
        Ok(micros)
    } else {
        Err(datetime_overflow("timestamp"))
    }
}

/// A computed date, if PostgreSQL has it.
pub(crate) fn check_date(days: i64) -> EvalResult<i32> {
    match i32::try_from(days) {
        Ok(days) if (DATE_MIN..=DATE_MAX).contains(&days) => Ok(days),
        _ => Err(datetime_overflow("date")),
    }
}

/// Midnight of a date; of an infinite one the infinite timestamp.
pub(crate) fn midnight(days: i32) -> EvalResult<i64> {
    match days {
        i32::MAX => Ok(i64::MAX),
        i32::MIN => Ok(i64::MIN),
        days => i64::from(days)
            .checked_mul(DAY)
            .and_then(|micros| check_timestamp(micros).ok())
            .ok_or_else(|| datetime_error("date out of range for timestamp")),
    }
}

/// The date of a timestamp; of an infinite one the infinite date.
pub(crate) fn date_of(micros: i64) -> EvalResult<i32> {
    match micros {
        i64::MAX => Ok(i32::MAX),
        i64::MIN => Ok(i32::MIN),
        micros => check_date(micros.div_euclid(DAY)),
    }
}

/// The time of day of a timestamp; an infinite one has none.
pub(crate) const fn time_of(micros: i64) -> Option<i64> {
    if is_infinite(micros) {
        None
    } else {
        Some(micros.rem_euclid(DAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_added_on_the_calendar_and_cut_to_the_last_day() {
        let at = |year, month, day| days_from_civil(year, month, day) * DAY;
        let month = Interval {
            months: 1,
            ..Interval::default()
        };
        assert_eq!(
            add_interval(at(2024, 1, 31), month).unwrap(),
            at(2024, 2, 29)
        );
        assert_eq!(
            add_interval(at(2023, 1, 31), month).unwrap(),
            at(2023, 2, 28)
        );
        assert_eq!(
            add_interval(at(2024, 3, 31), month.negate().unwrap()).unwrap(),
            at(2024, 2, 29)
        );
    }

    #[test]
    fn civil_dates_round_trip() {
        for days in [-2_440_588, -719_529, -1, 0, 59, 19_782, 2_145_042_905] {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn fractions_of_an_interval_cascade_down() {
        let month = Interval {
            months: 1,
            ..Interval::default()
        };
        assert_eq!(
            month.multiply(0.5).unwrap(),
            Interval {
                months: 0,
                days: 15,
                micros: 0
            }
        );
        let day = Interval {
            days: 1,
            ..Interval::default()
        };
        assert_eq!(
            day.divide(2.0).unwrap(),
            Interval {
                months: 0,
                days: 0,
                micros: 12 * HOUR
            }
        );
        assert_eq!(
            Interval {
                months: 1,
                days: 1,
                micros: 0
            }
            .multiply(1.5)
            .unwrap(),
            Interval {
                months: 1,
                days: 16,
                micros: 12 * HOUR
            }
        );
    }

    #[test]
    fn differences_of_timestamps_are_days_and_time() {
        assert_eq!(
            timestamp_difference(DAY + HOUR, 0).unwrap(),
            Interval {
                months: 0,
                days: 1,
                micros: HOUR
            }
        );
        assert_eq!(
            timestamp_difference(0, DAY + HOUR).unwrap(),
            Interval {
                months: 0,
                days: -1,
                micros: -HOUR
            }
        );
    }

    #[test]
    fn timestamps_beyond_the_calendar_are_errors() {
        assert!(
            add_interval(
                0,
                Interval {
                    months: 12 * 300_000,
                    ..Interval::default()
                }
            )
            .is_err()
        );
    }
}
