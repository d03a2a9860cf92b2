//! Functions of dates, times and intervals. Patterns (`to_char`) are in `to_char`.
//!
//! `timestamptz` is taken apart in the time zone of the call. Infinite moments stay infinite where they can, and have no parts that repeat.

mod intervals;
mod overlaps;
mod parts;

use arrow_array::ArrayRef;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::datetime::TimeZone;
use flowstone_types::{EvalError, SqlType};

use crate::errors::{
    EvalResult, datetime_error, datetime_overflow, invalid_parameter, not_supported,
};
use crate::interval::{
    DAY, HOUR, Interval, MINUTE, SECOND, check_date, check_timestamp, civil_from_days,
    days_from_civil, days_in_month, is_infinite, to_i64,
};
use crate::udf::{Call, Days, Micros, P, R, TimeOfDay, function, map1, map2, map3, opt1, overload};
use crate::zone::{to_local, to_utc};

fn timestamp() -> R {
    R::Sql(SqlType::Timestamp)
}

fn timestamptz() -> R {
    R::Sql(SqlType::TimestampTz)
}

fn interval() -> R {
    R::Sql(SqlType::Interval)
}

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    [
        truncation(),
        parts::extraction(),
        differences(),
        making(),
        zones(),
        interval_order(),
        intervals::functions(),
        overlaps::functions(),
    ]
    .concat()
}

/// A unit of `date_trunc` and `extract`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    Dow,
    IsoDow,
    Doy,
    IsoYear,
    Epoch,
    Julian,
    Timezone,
    TimezoneHour,
    TimezoneMinute,
}

impl Unit {
    fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "microsecond" | "microseconds" | "us" | "usec" => Self::Microseconds,
            "millisecond" | "milliseconds" | "ms" | "msec" => Self::Milliseconds,
            "second" | "seconds" | "s" | "sec" => Self::Second,
            "minute" | "minutes" | "m" | "min" => Self::Minute,
            "hour" | "hours" | "h" | "hr" => Self::Hour,
            "day" | "days" | "d" => Self::Day,
            "week" | "weeks" | "w" => Self::Week,
            "month" | "months" | "mon" | "mons" => Self::Month,
            "quarter" | "qtr" => Self::Quarter,
            "year" | "years" | "y" | "yr" => Self::Year,
            "decade" | "decades" | "dec" => Self::Decade,
            "century" | "centuries" | "c" | "cent" => Self::Century,
            "millennium" | "millennia" | "mil" | "mils" => Self::Millennium,
            "dow" => Self::Dow,
            "isodow" => Self::IsoDow,
            "doy" => Self::Doy,
            "isoyear" => Self::IsoYear,
            "epoch" => Self::Epoch,
            "julian" | "j" => Self::Julian,
            "timezone" => Self::Timezone,
            "timezone_hour" => Self::TimezoneHour,
            "timezone_minute" => Self::TimezoneMinute,
            _ => return None,
        })
    }

    /// Whether its parts repeat: an infinite moment has none then.
    const fn repeats(self) -> bool {
        !matches!(
            self,
            Self::Year
                | Self::Decade
                | Self::Century
                | Self::Millennium
                | Self::IsoYear
                | Self::Epoch
                | Self::Julian
        )
    }

    /// Whether it is shorter than a day.
    const fn is_of_clock(self) -> bool {
        matches!(
            self,
            Self::Microseconds | Self::Milliseconds | Self::Second | Self::Minute | Self::Hour
        )
    }

    /// Digits after the point that `extract` gives.
    const fn scale(self) -> i8 {
        match self {
            Self::Second | Self::Epoch => 6,
            Self::Milliseconds => 3,
            Self::Julian => 18,
            _ => 0,
        }
    }
}

fn unit(name: &str, type_name: &str) -> EvalResult<Unit> {
    Unit::parse(name).ok_or_else(|| {
        let name = name.to_lowercase();
        invalid_parameter(format!(
            "unit \"{name}\" not recognized for type {type_name}"
        ))
    })
}

fn unsupported(name: &str, type_name: &str) -> EvalError {
    let name = name.to_lowercase();
    not_supported(format!(
        "unit \"{name}\" not supported for type {type_name}"
    ))
}

const TIMESTAMP: &str = "timestamp without time zone";
const TIMESTAMPTZ: &str = "timestamp with time zone";

/// Monday of the week of a day.
const fn monday(days: i64) -> i64 {
    days - (days + 3).rem_euclid(7)
}

/// Year and number of the ISO week of a day.
const fn iso_week(days: i64) -> (i64, i64) {
    let (year, _, _) = civil_from_days(monday(days) + 3);
    let first = monday(days_from_civil(year, 1, 4));
    (year, (monday(days) - first) / 7 + 1)
}

fn truncate(name: &str, at: i64) -> EvalResult<i64> {
    if is_infinite(at) {
        return Ok(at);
    }
    check_timestamp(truncate_to(unit(name, TIMESTAMP)?, name, TIMESTAMP, at)?)
}

/// An instant, cut on the clocks of a zone. What is shorter than a day keeps the offset that clocks have at the instant, so that an hour that they show
/// twice is two hours.
fn truncate_in(zone: &TimeZone, name: &str, at: i64) -> EvalResult<i64> {
    if is_infinite(at) {
        return Ok(at);
    }
    let unit = unit(name, TIMESTAMPTZ)?;
    let local = to_local(zone, at)?;
    let cut = truncate_to(unit, name, TIMESTAMPTZ, local)?;
    if unit.is_of_clock() {
        check_timestamp(at - (local - cut))
    } else {
        to_utc(zone, check_timestamp(cut)?)
    }
}

fn truncate_to(unit: Unit, name: &str, type_name: &str, at: i64) -> EvalResult<i64> {
    let days = at.div_euclid(DAY);
    let (year, month, _) = civil_from_days(days);
    let cut = |size: i64| at - at.rem_euclid(size);
    let start_of = |year: i64, month: i64| days_from_civil(year, month, 1) * DAY;
    // Years without a year zero, as centuries count them.
    let period = |length: i64| (year - 1).div_euclid(length) * length + 1;
    Ok(match unit {
        Unit::Microseconds => at,
        Unit::Milliseconds => cut(1000),
        Unit::Second => cut(SECOND),
        Unit::Minute => cut(MINUTE),
        Unit::Hour => cut(HOUR),
        Unit::Day => cut(DAY),
        Unit::Week => monday(days) * DAY,
        Unit::Month => start_of(year, month),
        Unit::Quarter => start_of(year, (month - 1) / 3 * 3 + 1),
        Unit::Year => start_of(year, 1),
        Unit::Decade => start_of(year.div_euclid(10) * 10, 1),
        Unit::Century => start_of(period(100), 1),
        Unit::Millennium => start_of(period(1000), 1),
        _ => return Err(unsupported(name, type_name)),
    })
}

fn truncate_interval(name: &str, value: Interval) -> EvalResult<Interval> {
    let months = |length: i32| Interval {
        months: value.months / length * length,
        ..Interval::default()
    };
    let micros = |size: i64| Interval {
        micros: value.micros / size * size,
        ..value
    };
    Ok(match unit(name, "interval")? {
        Unit::Microseconds => value,
        Unit::Milliseconds => micros(1000),
        Unit::Second => micros(SECOND),
        Unit::Minute => micros(MINUTE),
        Unit::Hour => micros(HOUR),
        Unit::Day => Interval { micros: 0, ..value },
        Unit::Month => months(1),
        Unit::Quarter => months(3),
        Unit::Year => months(12),
        Unit::Decade => months(120),
        Unit::Century => months(1200),
        Unit::Millennium => months(12_000),
        _ => return Err(unsupported(name, "interval")),
    })
}

/// A zone by name.
fn zone(name: &str) -> EvalResult<TimeZone> {
    TimeZone::at(name).map_err(|error| crate::errors::from_type_error(&error))
}

/// A zone as an offset east of UTC.
fn zone_of_interval(offset: Interval) -> EvalResult<TimeZone> {
    let invalid = |what: &str| {
        let mut text = String::new();
        if let Ok(offset) = offset.to_arrow() {
            flowstone_types::interval::format_interval(offset, &mut text);
        }
        invalid_parameter(format!("interval time zone \"{text}\" must not {what}"))
    };
    if offset.months != 0 || offset.days != 0 {
        return Err(invalid("include months or days"));
    }
    i32::try_from(offset.micros / SECOND)
        .map(TimeZone::Fixed)
        .map_err(|_| datetime_overflow("interval"))
}

/// The zones that names of a column mean; names next to each other are mostly the same.
#[derive(Default)]
struct Zones {
    last: Option<(String, TimeZone)>,
}

impl Zones {
    fn get(&mut self, name: &str) -> EvalResult<TimeZone> {
        if let Some((known, zone)) = &self.last
            && known == name
        {
            return Ok(zone.clone());
        }
        let found = zone(name)?;
        self.last = Some((name.to_owned(), found.clone()));
        Ok(found)
    }
}

fn truncation() -> Vec<ScalarUDF> {
    let bin = |call: &Call<'_>| {
        map3(call, |stride: Interval, at: Micros, origin: Micros| {
            bin(stride, at.0, origin.0).map(Micros)
        })
    };
    let bin_from_epoch = |call: &Call<'_>| {
        map2(call, |stride: Interval, at: Micros| {
            bin_start(stride, at.0).map(Micros)
        })
    };
    vec![
        function(
            "date_trunc",
            vec![
                overload(&[P::Text, P::Timestamp], timestamp(), |call| {
                    map2(call, |name: &str, at: Micros| {
                        truncate(name, at.0).map(Micros)
                    })
                }),
                overload(&[P::Text, P::TimestampTz], timestamptz(), |call| {
                    map2(call, |name: &str, at: Micros| {
                        truncate_in(call.zone, name, at.0).map(Micros)
                    })
                })
                .zoned(),
                overload(&[P::Text, P::Interval], interval(), |call| {
                    map2(call, truncate_interval)
                }),
                overload(&[P::Text, P::TimestampTz, P::Text], timestamptz(), |call| {
                    let mut zones = Zones::default();
                    map3(call, |name: &str, at: Micros, place: &str| {
                        truncate_in(&zones.get(place)?, name, at.0).map(Micros)
                    })
                }),
            ],
        ),
        function(
            "date_bin",
            vec![
                overload(&[P::Interval, P::Timestamp, P::Timestamp], timestamp(), bin),
                overload(
                    &[P::Interval, P::TimestampTz, P::TimestampTz],
                    timestamptz(),
                    bin,
                ),
                overload(&[P::Interval, P::Timestamp], timestamp(), bin_from_epoch),
                overload(
                    &[P::Interval, P::TimestampTz],
                    timestamptz(),
                    bin_from_epoch,
                ),
            ],
        ),
    ]
}

fn bin_start(stride: Interval, at: i64) -> EvalResult<i64> {
    bin(stride, at, 0)
}

/// Start of the bin of width `stride`, counted from `origin`, that holds `at`.
fn bin(stride: Interval, at: i64, origin: i64) -> EvalResult<i64> {
    if is_infinite(at) {
        return Ok(at);
    }
    if is_infinite(origin) {
        return Err(datetime_error("origin out of range"));
    }
    if stride.months != 0 {
        return Err(not_supported(
            "timestamps cannot be binned into intervals containing months or years",
        ));
    }
    let width = i64::try_from(stride.span()).map_err(|_| datetime_overflow("interval"))?;
    if width <= 0 {
        return Err(datetime_error("stride must be greater than zero"));
    }
    let distance = at
        .checked_sub(origin)
        .ok_or_else(|| datetime_overflow("interval"))?;
    // The start of a bin may be before the first moment that 64 bits hold.
    let start = i128::from(origin) + i128::from(distance.div_euclid(width)) * i128::from(width);
    i64::try_from(start)
        .map_err(|_| datetime_overflow("timestamp"))
        .and_then(check_timestamp)
}

/// The difference of two timestamps in years, months, days and time, as people count them.
fn age(left: i64, right: i64) -> EvalResult<Interval> {
    if is_infinite(left) || is_infinite(right) {
        return Err(datetime_error("cannot subtract infinite timestamps"));
    }
    let (later, earlier) = if left < right {
        (right, left)
    } else {
        (left, right)
    };
    let fields = |at: i64| (civil_from_days(at.div_euclid(DAY)), at.rem_euclid(DAY));
    let ((later_year, later_month, later_day), later_time) = fields(later);
    let ((year, month, day), time) = fields(earlier);
    let mut micros = later_time - time;
    let mut days = later_day - day;
    let mut months = (later_year - year) * 12 + later_month - month;
    if micros < 0 {
        micros += DAY;
        days -= 1;
    }
    if days < 0 {
        days += days_in_month(year, month);
        months -= 1;
    }
    let narrow = |value: i64| i32::try_from(value).map_err(|_| datetime_overflow("interval"));
    let result = Interval {
        months: narrow(months)?,
        days: narrow(days)?,
        micros,
    };
    if left < right {
        result.negate()
    } else {
        Ok(result)
    }
}

fn differences() -> Vec<ScalarUDF> {
    vec![
        function(
            "age",
            vec![
                overload(&[P::Timestamp, P::Timestamp], interval(), |call| {
                    map2(call, |a: Micros, b: Micros| age(a.0, b.0))
                }),
                overload(&[P::TimestampTz, P::TimestampTz], interval(), |call| {
                    map2(call, |a: Micros, b: Micros| {
                        age(to_local(call.zone, a.0)?, to_local(call.zone, b.0)?)
                    })
                })
                .zoned(),
            ],
        ),
        function(
            "justify_hours",
            vec![overload(&[P::Interval], interval(), |call| {
                map1(call, Interval::justify_hours)
            })],
        ),
        function(
            "justify_days",
            vec![overload(&[P::Interval], interval(), |call| {
                map1(call, Interval::justify_days)
            })],
        ),
        function(
            "justify_interval",
            vec![overload(&[P::Interval], interval(), |call| {
                map1(call, Interval::justify)
            })],
        ),
    ]
}

/// Microseconds of a clock time.
fn clock(hour: i32, minute: i32, second: f64) -> EvalResult<i64> {
    let bad = || {
        datetime_error(format!(
            "time field value out of range: {hour}:{minute:02}:{second:02}"
        ))
    };
    if !(0..=24).contains(&hour) || !(0..60).contains(&minute) || !(0.0..=60.0).contains(&second) {
        return Err(bad());
    }
    let micros = i64::from(hour) * HOUR
        + i64::from(minute) * MINUTE
        + to_i64((second * 1e6).round_ties_even())?;
    if micros > DAY { Err(bad()) } else { Ok(micros) }
}

fn day(year: i32, month: i32, day: i32) -> EvalResult<i64> {
    let bad = || {
        EvalError::new(
            flowstone_types::EvalErrorKind::DatetimeOverflow,
            format!("date field value out of range: {year}-{month:02}-{day:02}"),
        )
    };
    // Negative years are BC.
    let astronomical = if year < 0 {
        i64::from(year) + 1
    } else {
        i64::from(year)
    };
    let (month, day) = (i64::from(month), i64::from(day));
    if year == 0
        || !(1..=12).contains(&month)
        || day < 1
        || day > days_in_month(astronomical, month)
    {
        return Err(bad());
    }
    Ok(days_from_civil(astronomical, month, day))
}

/// `make_timestamp`
fn moment(call: &Call<'_>) -> Result<ArrayRef> {
    moments(call, |_, at| Ok(at))
}

/// `make_timestamptz` in the time zone of the call.
fn instant(call: &Call<'_>) -> Result<ArrayRef> {
    moments(call, |_, at| to_utc(call.zone, at))
}

/// `make_timestamptz` in a named zone.
fn instant_at(call: &Call<'_>) -> Result<ArrayRef> {
    let names = crate::udf::texts(call.arg(6)?)?;
    let mut zones = Zones::default();
    let result = moments(call, |row, at| {
        if arrow_array::Array::is_null(names, row) {
            return Ok(at);
        }
        to_utc(&zones.get(names.value(row))?, at)
    })?;
    // Strict in the name too.
    Ok(arrow::compute::nullif(
        &result,
        &arrow::compute::is_null(names)?,
    )?)
}

fn moments(
    call: &Call<'_>,
    mut place: impl FnMut(usize, i64) -> EvalResult<i64>,
) -> Result<ArrayRef> {
    let ints = (0..5)
        .map(|index| crate::udf::primitive::<arrow_array::types::Int32Type>(call.arg(index)?))
        .collect::<Result<Vec<_>>>()?;
    let seconds = crate::udf::primitive::<arrow_array::types::Float64Type>(call.arg(5)?)?;
    let [years, months, days, hours, minutes] = ints.as_slice() else {
        return Err(crate::udf::broken("make_timestamp takes six arguments"));
    };
    crate::udf::map_rows(call, |row| {
        let at = |values: &arrow_array::Int32Array| {
            arrow_array::Array::is_valid(values, row).then(|| values.value(row))
        };
        let second = arrow_array::Array::is_valid(seconds, row).then(|| seconds.value(row));
        let (Some(y), Some(mo), Some(d), Some(h), Some(mi), Some(s)) = (
            at(years),
            at(months),
            at(days),
            at(hours),
            at(minutes),
            second,
        ) else {
            return Ok(None);
        };
        let midnight = day(y, mo, d)?
            .checked_mul(DAY)
            .ok_or_else(|| datetime_overflow("timestamp"))?;
        let at = midnight
            .checked_add(clock(h, mi, s)?)
            .ok_or_else(|| datetime_overflow("timestamp"))?;
        place(row, check_timestamp(at)?).map(|at| Some(Micros(at)))
    })
}

fn making() -> Vec<ScalarUDF> {
    let fields = [P::Int4, P::Int4, P::Int4, P::Int4, P::Int4, P::Float8];
    let fields_and_zone = [
        P::Int4,
        P::Int4,
        P::Int4,
        P::Int4,
        P::Int4,
        P::Float8,
        P::Text,
    ];
    vec![
        function(
            "to_timestamp",
            vec![
                overload(&[P::Float8], timestamptz(), |call| {
                    map1(call, |seconds: f64| {
                        if seconds.is_infinite() {
                            let infinite = if seconds > 0.0 { i64::MAX } else { i64::MIN };
                            return Ok(Micros(infinite));
                        }
                        if seconds.is_nan() {
                            return Err(datetime_error("timestamp cannot be NaN"));
                        }
                        let micros = to_i64((seconds * 1e6).round_ties_even())
                            .map_err(|_| datetime_overflow("timestamp"))?;
                        check_timestamp(micros).map(Micros)
                    })
                }),
                overload(&[P::Text, P::Text], timestamptz(), |call| {
                    map2(call, |text: &str, pattern: &str| {
                        let local = crate::to_char::parse_timestamp(text, pattern)?;
                        to_utc(call.zone, local).map(Micros)
                    })
                })
                .zoned(),
            ],
        ),
        function(
            "to_date",
            vec![overload(
                &[P::Text, P::Text],
                R::Sql(SqlType::Date),
                |call| {
                    map2(call, |text: &str, pattern: &str| {
                        check_date(crate::to_char::parse_timestamp(text, pattern)?.div_euclid(DAY))
                            .map(Days)
                    })
                },
            )],
        ),
        function(
            "make_date",
            vec![overload(
                &[P::Int4, P::Int4, P::Int4],
                R::Sql(SqlType::Date),
                |call| {
                    map3(call, |y: i32, m: i32, d: i32| {
                        check_date(day(y, m, d)?).map(Days)
                    })
                },
            )],
        ),
        function(
            "make_time",
            vec![overload(
                &[P::Int4, P::Int4, P::Float8],
                R::Sql(SqlType::Time),
                |call| map3(call, |h: i32, m: i32, s: f64| clock(h, m, s).map(TimeOfDay)),
            )],
        ),
        function(
            "make_timestamp",
            vec![overload(&fields, timestamp(), moment)],
        ),
        function(
            "make_timestamptz",
            vec![
                overload(&fields, timestamptz(), instant).zoned(),
                overload(&fields_and_zone, timestamptz(), instant_at),
            ],
        ),
        function(
            "try_parse_monotonic_iso8601_timestamp",
            vec![overload(&[P::Text], timestamp(), |call| {
                opt1(call, |text: &str| Ok(parse_iso8601(text).map(Micros)))
            })],
        ),
    ]
}

/// A timestamp of exactly the form `2015-09-18T23:56:04.123Z`, whose order as text is its order in time.
fn parse_iso8601(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() != 24 {
        return None;
    }
    let number = |start: usize, end: usize| {
        let digits = text.get(start..end)?;
        digits
            .bytes()
            .all(|digit| digit.is_ascii_digit())
            .then(|| digits.parse::<i64>().ok())
            .flatten()
    };
    for (at, mark) in [
        (4, b'-'),
        (7, b'-'),
        (10, b'T'),
        (13, b':'),
        (16, b':'),
        (19, b'.'),
        (23, b'Z'),
    ] {
        if bytes.get(at) != Some(&mark) {
            return None;
        }
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second, milli) = (
        number(11, 13)?,
        number(14, 16)?,
        number(17, 19)?,
        number(20, 23)?,
    );
    let valid = (1..=12).contains(&month)
        && day >= 1
        && day <= days_in_month(year, month)
        && hour < 24
        && minute < 60
        && second < 60;
    valid.then(|| {
        days_from_civil(year, month, day) * DAY
            + hour * HOUR
            + minute * MINUTE
            + second * SECOND
            + milli * 1000
    })
}

fn zones() -> Vec<ScalarUDF> {
    vec![function(
        "timezone",
        vec![
            overload(&[P::Text, P::Timestamp], timestamptz(), |call| {
                let mut zones = Zones::default();
                map2(call, |place: &str, at: Micros| {
                    to_utc(&zones.get(place)?, at.0).map(Micros)
                })
            }),
            overload(&[P::Text, P::TimestampTz], timestamp(), |call| {
                let mut zones = Zones::default();
                map2(call, |place: &str, at: Micros| {
                    to_local(&zones.get(place)?, at.0).map(Micros)
                })
            }),
            overload(&[P::Interval, P::Timestamp], timestamptz(), |call| {
                map2(call, |offset: Interval, at: Micros| {
                    to_utc(&zone_of_interval(offset)?, at.0).map(Micros)
                })
            }),
            overload(&[P::Interval, P::TimestampTz], timestamp(), |call| {
                map2(call, |offset: Interval, at: Micros| {
                    to_local(&zone_of_interval(offset)?, at.0).map(Micros)
                })
            }),
        ],
    )]
}

fn interval_order() -> Vec<ScalarUDF> {
    let comparison = |name, kernel| {
        function(
            name,
            vec![overload(
                &[P::Interval, P::Interval],
                R::Sql(SqlType::Bool),
                kernel,
            )],
        )
    };
    vec![
        comparison("interval_eq", |call| {
            map2(call, |a: Interval, b: Interval| Ok(a.span() == b.span()))
        }),
        comparison("interval_ne", |call| {
            map2(call, |a: Interval, b: Interval| Ok(a.span() != b.span()))
        }),
        comparison("interval_lt", |call| {
            map2(call, |a: Interval, b: Interval| Ok(a.span() < b.span()))
        }),
        comparison("interval_le", |call| {
            map2(call, |a: Interval, b: Interval| Ok(a.span() <= b.span()))
        }),
        comparison("interval_gt", |call| {
            map2(call, |a: Interval, b: Interval| Ok(a.span() > b.span()))
        }),
        comparison("interval_ge", |call| {
            map2(call, |a: Interval, b: Interval| Ok(a.span() >= b.span()))
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::parts::Part;
    use super::*;

    fn at(text: &str) -> i64 {
        parse_iso8601(text).unwrap()
    }

    #[test]
    fn truncation_follows_the_calendar() {
        let moment = at("2024-02-29T13:14:15.678Z");
        assert_eq!(
            truncate("hour", moment).unwrap(),
            at("2024-02-29T13:00:00.000Z")
        );
        assert_eq!(
            truncate("WEEK", moment).unwrap(),
            at("2024-02-26T00:00:00.000Z")
        );
        assert_eq!(
            truncate("quarter", moment).unwrap(),
            at("2024-01-01T00:00:00.000Z")
        );
        assert_eq!(
            truncate("century", moment).unwrap(),
            at("2001-01-01T00:00:00.000Z")
        );
        assert_eq!(
            truncate("fortnight", moment).unwrap_err().message,
            "unit \"fortnight\" not recognized for type timestamp without time zone"
        );
    }

    #[test]
    fn parts_are_those_of_postgresql() {
        let moment = at("2024-12-30T13:14:15.678Z");
        let shown = |name| {
            let part = Part::of(name, moment).unwrap().into_numeric();
            part.unwrap().unwrap().to_string()
        };
        assert_eq!(shown("week"), "1");
        assert_eq!(shown("isoyear"), "2025");
        assert_eq!(shown("second"), "15.678000");
        assert_eq!(shown("milliseconds"), "15678.000");
        assert_eq!(shown("epoch"), "1735564455.678000");
        assert_eq!(shown("dow"), "1");
        assert_eq!(shown("doy"), "365");
        assert_eq!(shown("century"), "21");
    }

    #[test]
    fn ages_count_years_months_and_days() {
        let age = age(
            at("2001-04-10T00:00:00.000Z"),
            at("1957-06-13T00:00:00.000Z"),
        )
        .unwrap();
        assert_eq!(
            age,
            Interval {
                months: 43 * 12 + 9,
                days: 27,
                micros: 0
            }
        );
    }

    #[test]
    fn bins_before_the_origin_start_below_it() {
        let stride = Interval {
            micros: 15 * MINUTE,
            ..Interval::default()
        };
        assert_eq!(bin(stride, -1, 0).unwrap(), -15 * MINUTE);
        assert_eq!(bin(stride, 16 * MINUTE, 0).unwrap(), 15 * MINUTE);
        assert!(
            bin(
                Interval {
                    months: 1,
                    ..Interval::default()
                },
                0,
                0
            )
            .is_err()
        );
    }

    #[test]
    fn only_the_sortable_iso_form_is_parsed() {
        assert!(parse_iso8601("2015-09-18T23:56:04.123Z").is_some());
        assert!(parse_iso8601("2015-09-18T23:56:04Z").is_none());
        assert!(parse_iso8601("2015-02-30T23:56:04.123Z").is_none());
    }
}
