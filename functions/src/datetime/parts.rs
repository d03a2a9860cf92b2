//! Parts of dates, times and intervals: `extract` and `date_part`.
//!
//! Owns what each unit means for each type. Infinite moments have no parts that repeat. Called by [`super`].

use arrow_schema::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::SqlType;
use flowstone_types::datetime::TimeZone;

use super::{TIMESTAMP, TIMESTAMPTZ, Unit, iso_week, unit, unsupported};
use crate::errors::{EvalResult, not_supported};
use crate::interval::{
    DAY, HOUR, Interval, MINUTE, SECOND, civil_from_days, days_from_civil, is_infinite,
    is_infinite_date,
};
use crate::numeric::Numeric;
use crate::udf::{Days, Micros, P, R, TimeOfDay, aliased, function, map2, opt2, overload};
use crate::zone::to_local;

/// Microseconds as the number of a unit.
fn micros(value: i64) -> Numeric {
    Numeric {
        value: i128::from(value),
        scale: 6,
    }
}

fn count(value: i64) -> Numeric {
    Numeric::integer(i128::from(value))
}

/// Centuries and longer count from 1 and have no zero.
fn numbered_period(year: i64, length: i64) -> i64 {
    if year > 0 {
        (year + length - 1) / length
    } else {
        -((length - 1 - (year - 1)) / length)
    }
}

fn time_part(unit: Unit, time: i64) -> Option<Numeric> {
    Some(match unit {
        Unit::Microseconds => count(time % MINUTE),
        Unit::Milliseconds => Numeric {
            value: i128::from(time % MINUTE),
            scale: 3,
        },
        Unit::Second => micros(time % MINUTE),
        Unit::Minute => count(time / MINUTE % 60),
        Unit::Hour => count(time / HOUR),
        _ => return None,
    })
}

/// A part of a moment.
pub(super) enum Part {
    /// A number.
    Finite(Numeric),
    /// `Infinity` or `-Infinity`.
    Infinite(f64),
    /// The part of an infinite moment that repeats: NULL.
    None,
}

impl Part {
    pub(super) fn of(name: &str, at: i64) -> EvalResult<Self> {
        let unit = unit(name, TIMESTAMP)?;
        Self::of_infinite(unit, at)
            .map_or_else(|| part(unit, name, TIMESTAMP, at).map(Self::Finite), Ok)
    }

    fn of_date(name: &str, days: i32) -> EvalResult<Self> {
        let unit = unit(name, "date")?;
        if unit.is_of_clock()
            || matches!(
                unit,
                Unit::Timezone | Unit::TimezoneHour | Unit::TimezoneMinute
            )
        {
            return Err(unsupported(name, "date"));
        }
        if is_infinite_date(days) {
            let at = if days > 0 { i64::MAX } else { i64::MIN };
            return Ok(Self::of_infinite(unit, at).unwrap_or(Self::None));
        }
        if unit == Unit::Epoch {
            return Ok(Self::Finite(count(i64::from(days) * 86_400)));
        }
        // Every date has a moment here, beyond the timestamps too: only days of it count.
        match unit {
            Unit::Julian => Ok(Self::Finite(count(i64::from(days) + 2_440_588))),
            _ => day_part(unit, name, "date", i64::from(days)).map(Self::Finite),
        }
    }

    /// On the clocks of a zone.
    fn in_zone(zone: &TimeZone, name: &str, at: i64) -> EvalResult<Self> {
        let unit = unit(name, TIMESTAMPTZ)?;
        if let Some(infinite) = Self::of_infinite(unit, at) {
            return Ok(infinite);
        }
        let offset = || i64::from(zone.offset_at(at));
        Ok(Self::Finite(match unit {
            Unit::Timezone => count(offset()),
            Unit::TimezoneHour => count(offset() / 3_600),
            Unit::TimezoneMinute => count(offset() % 3_600 / 60),
            Unit::Epoch => micros(at),
            _ => part(unit, name, TIMESTAMPTZ, to_local(zone, at)?)?,
        }))
    }

    fn of_infinite(unit: Unit, at: i64) -> Option<Self> {
        if !is_infinite(at) {
            return None;
        }
        Some(if unit.repeats() {
            Self::None
        } else if at > 0 {
            Self::Infinite(f64::INFINITY)
        } else {
            Self::Infinite(f64::NEG_INFINITY)
        })
    }

    fn into_float(self) -> Option<f64> {
        match self {
            Self::Finite(value) => Some(value.to_f64()),
            Self::Infinite(value) => Some(value),
            Self::None => None,
        }
    }

    /// `numeric` has no infinity here.
    pub(super) fn into_numeric(self) -> EvalResult<Option<Numeric>> {
        match self {
            Self::Finite(value) => Ok(Some(value)),
            Self::Infinite(_) => Err(not_supported(
                "infinity is not supported for type numeric; use date_part, which gives double precision",
            )),
            Self::None => Ok(None),
        }
    }
}

fn part(unit: Unit, name: &str, type_name: &str, at: i64) -> EvalResult<Numeric> {
    if let Some(value) = time_part(unit, at.rem_euclid(DAY)) {
        return Ok(value);
    }
    let days = at.div_euclid(DAY);
    match unit {
        Unit::Epoch => Ok(micros(at)),
        Unit::Julian => Numeric {
            value: (i128::from(days) + 2_440_588) * i128::from(DAY)
                + i128::from(at.rem_euclid(DAY)),
            scale: 0,
        }
        .apply(crate::numeric::Op::Divide, count(DAY)),
        _ => day_part(unit, name, type_name, days),
    }
}

/// A part of which only the day counts.
fn day_part(unit: Unit, name: &str, type_name: &str, days: i64) -> EvalResult<Numeric> {
    let (year, month, day) = civil_from_days(days);
    // 1 BC is the year -1: there is no year zero.
    let shown = |year: i64| if year > 0 { year } else { year - 1 };
    Ok(match unit {
        Unit::Day => count(day),
        Unit::Month => count(month),
        Unit::Quarter => count((month - 1) / 3 + 1),
        Unit::Year => count(shown(year)),
        Unit::Decade => count(year.div_euclid(10)),
        Unit::Century => count(numbered_period(year, 100)),
        Unit::Millennium => count(numbered_period(year, 1000)),
        Unit::Week => count(iso_week(days).1),
        Unit::IsoYear => count(shown(iso_week(days).0)),
        Unit::Dow => count((days + 4).rem_euclid(7)),
        Unit::IsoDow => count((days + 3).rem_euclid(7) + 1),
        Unit::Doy => count(days - days_from_civil(year, 1, 1) + 1),
        _ => return Err(unsupported(name, type_name)),
    })
}

fn time_of_day_part(name: &str, time: i64) -> EvalResult<Numeric> {
    let type_name = "time without time zone";
    let unit = unit(name, type_name)?;
    match time_part(unit, time) {
        Some(value) => Ok(value),
        None if unit == Unit::Epoch => Ok(micros(time)),
        None => Err(unsupported(name, type_name)),
    }
}

fn interval_part(name: &str, value: Interval) -> EvalResult<Numeric> {
    let unit = unit(name, "interval")?;
    if let Some(part) = time_part(unit, value.micros) {
        return Ok(part);
    }
    let (years, months) = (i64::from(value.months / 12), i64::from(value.months % 12));
    Ok(match unit {
        Unit::Day => count(i64::from(value.days)),
        Unit::Month => count(months),
        Unit::Quarter => count(months / 3 + 1),
        Unit::Year => count(years),
        Unit::Decade => count(years / 10),
        Unit::Century => count(years / 100),
        Unit::Millennium => count(years / 1000),
        Unit::Epoch => {
            // A year of 365.25 days, a month of 30.
            let whole = i128::from(years) * 31_557_600
                + (i128::from(months) * 30 + i128::from(value.days)) * 86_400;
            Numeric {
                value: whole * i128::from(SECOND) + i128::from(value.micros),
                scale: 6,
            }
        }
        _ => return Err(unsupported(name, "interval")),
    })
}

/// The scale that the unit, if it is a literal, gives.
fn part_type(types: &[DataType], literals: &[Option<&ScalarValue>]) -> Result<DataType> {
    let is_date = types.get(1) == Some(&DataType::Date32);
    let scale = match literals.first().copied().flatten() {
        // Parts of dates are whole.
        Some(ScalarValue::Utf8(Some(name))) if is_date && Unit::parse(name).is_some() => 0,
        Some(ScalarValue::Utf8(Some(name))) => Unit::parse(name).map_or(18, Unit::scale),
        _ => 18,
    };
    Ok(DataType::Decimal128(38, scale))
}

pub(super) fn extraction() -> Vec<ScalarUDF> {
    let numeric = || R::Literals(part_type);
    let float8 = || R::Sql(SqlType::Float8);
    vec![
        function(
            "extract",
            vec![
                overload(&[P::Text, P::Date], numeric(), |call| {
                    opt2(call, |name: &str, at: Days| {
                        Part::of_date(name, at.0)?.into_numeric()
                    })
                }),
                overload(&[P::Text, P::Timestamp], numeric(), |call| {
                    opt2(call, |name: &str, at: Micros| {
                        Part::of(name, at.0)?.into_numeric()
                    })
                }),
                overload(&[P::Text, P::TimestampTz], numeric(), |call| {
                    opt2(call, |name: &str, at: Micros| {
                        Part::in_zone(call.zone, name, at.0)?.into_numeric()
                    })
                })
                .zoned(),
                overload(&[P::Text, P::Interval], numeric(), |call| {
                    map2(call, interval_part)
                }),
                overload(&[P::Text, P::Time], numeric(), |call| {
                    map2(call, |name: &str, time: TimeOfDay| {
                        time_of_day_part(name, time.0)
                    })
                }),
            ],
        ),
        aliased(
            "date_part",
            &["datepart"],
            vec![
                overload(&[P::Text, P::Timestamp], float8(), |call| {
                    opt2(call, |name: &str, at: Micros| {
                        Ok(Part::of(name, at.0)?.into_float())
                    })
                }),
                overload(&[P::Text, P::TimestampTz], float8(), |call| {
                    opt2(call, |name: &str, at: Micros| {
                        Ok(Part::in_zone(call.zone, name, at.0)?.into_float())
                    })
                })
                .zoned(),
                overload(&[P::Text, P::Interval], float8(), |call| {
                    map2(call, |name: &str, value: Interval| {
                        interval_part(name, value).map(Numeric::to_f64)
                    })
                }),
                overload(&[P::Text, P::Time], float8(), |call| {
                    map2(call, |name: &str, time: TimeOfDay| {
                        time_of_day_part(name, time.0).map(Numeric::to_f64)
                    })
                }),
            ],
        ),
    ]
}
