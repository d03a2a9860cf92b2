//! Time zones: their names as `SET TIME ZONE`, `AT TIME ZONE` and time stamps write them, and the offset of each at an instant.
//!
//! Owns the difference between the three: a setting is a number of hours east, a name of the IANA database or a POSIX specification; `AT TIME ZONE`
//! knows abbreviations as well. In a POSIX specification (`UTC+3`, `<+03>-3`, `CET-1CEST,M3.5.0,M10.5.0/3`) offsets count west.
//! Must not know the session. Called by [`super`] and by the functions on time.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone as _};
use chrono_tz::{OffsetComponents, OffsetName, Tz};

use super::abbreviations::{FIXED, OF_ZONES};
use super::posix::PosixZone;
use super::{
    MICROS_PER_DAY, MICROS_PER_SECOND, civil_from_days, days_from_civil, push_hours, push_two,
};
use crate::TypeError;

/// The last year whose changes of clocks the database lists one by one. Later years follow the rules of the years up to it.
const LAST_LISTED_YEAR: i64 = 2099;

/// Hours of an offset that a setting gives as a number are below this.
const OFFSET_HOURS_MAX: f64 = 168.0;

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TimeZone {
    /// Seconds east of UTC.
    Fixed(i32),
    /// A zone of the IANA database.
    Named(Tz),
    /// A POSIX specification.
    Posix(Arc<PosixZone>),
    /// An abbreviation that means what the clocks of a zone show.
    Abbreviation(&'static str, Tz),
}

/// The zones of the database by name in lower case.
static BY_NAME: LazyLock<HashMap<String, Tz>> = LazyLock::new(|| {
    chrono_tz::TZ_VARIANTS
        .iter()
        .map(|zone| (zone.name().to_ascii_lowercase(), *zone))
        .collect()
});

/// What the abbreviations mean, by name in lower case.
static BY_ABBREVIATION: LazyLock<HashMap<&'static str, TimeZone>> = LazyLock::new(|| {
    let fixed = FIXED
        .iter()
        .map(|(name, minutes, _)| (*name, TimeZone::Fixed(minutes * 60)));
    let of_zones = OF_ZONES
        .iter()
        .map(|(name, zone)| (*name, TimeZone::Abbreviation(name, *zone)));
    fixed.chain(of_zones).collect()
});

/// A row of `pg_timezone_names` or `pg_timezone_abbrevs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneRow {
    /// The full name; of an abbreviation none.
    pub name: Option<&'static str>,
    /// The abbreviation.
    pub abbreviation: String,
    /// Seconds east of UTC.
    pub offset: i32,
    /// Whether clocks show summer time.
    pub summer: bool,
}

impl TimeZone {
    /// UTC.
    pub const UTC: Self = Self::Fixed(0);

    /// Whether this is plain UTC.
    #[must_use]
    pub fn is_utc(&self) -> bool {
        *self == Self::UTC
    }

    /// The zone that `AT TIME ZONE` and the functions on time call `name`: an abbreviation, a name of the database, or a POSIX specification.
    ///
    /// # Errors
    /// [`TypeError::InvalidParameter`] if there is none.
    pub fn at(name: &str) -> Result<Self, TypeError> {
        Self::abbreviated(name)
            .or_else(|| Self::specified(name))
            .ok_or_else(|| {
                TypeError::InvalidParameter(format!("time zone \"{name}\" not recognized"))
            })
    }

    /// The zone that an abbreviation means.
    #[must_use]
    pub fn abbreviated(name: &str) -> Option<Self> {
        BY_ABBREVIATION
            .get(name.to_ascii_lowercase().as_str())
            .cloned()
    }

    /// A name of the database, in any case, or a POSIX specification.
    pub(super) fn specified(name: &str) -> Option<Self> {
        if name == "UTC" {
            return Some(Self::UTC);
        }
        match BY_NAME.get(&name.to_ascii_lowercase()) {
            Some(Tz::UTC) => Some(Self::UTC),
            Some(zone) => Some(Self::Named(*zone)),
            None => {
                PosixZone::parse(&name.to_ascii_uppercase()).map(|zone| Self::Posix(Arc::new(zone)))
            }
        }
    }

    /// Seconds east of UTC at an instant (microseconds since 1970 UTC).
    #[must_use]
    pub fn offset_at(&self, utc_micros: i64) -> i32 {
        match self {
            Self::Fixed(seconds) => *seconds,
            Self::Named(zone) => offset_in(*zone, utc_micros),
            Self::Posix(zone) => zone.offset_at(utc_micros).0,
            Self::Abbreviation(name, zone) => {
                let shown = || span_in(*zone, utc_micros).and_then(|(_, _, name)| name);
                // The one abbreviation that clocks of its zone show in some years with another offset, and in some seasons not at all.
                if *name == "msk" && shown().is_some_and(|shown| shown != "MSK") {
                    3 * 3_600
                } else {
                    offset_in(*zone, utc_micros)
                }
            }
        }
    }

    /// The instant at which clocks of this zone show `local_micros`.
    ///
    /// As in PostgreSQL, a time that clocks skip counts in the offset before the gap, and one that they show twice is the later one.
    /// `None` if the instant is out of range.
    #[must_use]
    pub fn to_utc(&self, local_micros: i64) -> Option<i64> {
        let minus = |offset: i32| local_micros.checked_sub(i64::from(offset) * MICROS_PER_SECOND);
        if let Self::Fixed(seconds) = self {
            return minus(*seconds);
        }
        if let Self::Named(zone) = self
            && let Some(offset) = listed_offset(*zone, local_micros)
        {
            return minus(offset);
        }
        let before = self.offset_at(local_micros.checked_sub(MICROS_PER_DAY)?);
        let after = self.offset_at(local_micros.saturating_add(MICROS_PER_DAY));
        if before == after {
            return minus(before);
        }
        let shows = |offset: i32| minus(offset).is_some_and(|at| self.offset_at(at) == offset);
        minus(if shows(after) { after } else { before })
    }

    /// What clocks of this zone show at an instant. `None` if that is out of range.
    #[must_use]
    pub fn to_local(&self, utc_micros: i64) -> Option<i64> {
        utc_micros.checked_add(i64::from(self.offset_at(utc_micros)) * MICROS_PER_SECOND)
    }

    /// What `TZ` of `to_char` shows at an instant: `CET`, `+03`.
    #[must_use]
    pub fn abbreviation_at(&self, utc_micros: i64) -> String {
        let offset = self.offset_at(utc_micros);
        let name = match self {
            Self::Fixed(0) => Some("UTC".to_owned()),
            Self::Fixed(seconds) => Some(offset_name(*seconds, ":")),
            Self::Named(zone) => span_in(*zone, utc_micros).and_then(|(_, _, name)| name),
            Self::Posix(zone) => Some(zone.offset_at(utc_micros).1.to_owned()),
            Self::Abbreviation(..) => None,
        };
        name.unwrap_or_else(|| offset_name(offset, ""))
    }

    /// The zones of the database at an instant, in the order of their names.
    #[must_use]
    pub fn names_at(utc_micros: i64) -> Vec<ZoneRow> {
        let mut rows: Vec<ZoneRow> = chrono_tz::TZ_VARIANTS
            .iter()
            .map(|zone| ZoneRow {
                name: Some(zone.name()),
                abbreviation: Self::Named(*zone).abbreviation_at(utc_micros),
                offset: offset_in(*zone, utc_micros),
                summer: span_in(*zone, utc_micros).is_some_and(|(_, summer, _)| summer),
            })
            .collect();
        rows.sort_unstable_by_key(|row| row.name);
        rows
    }

    /// The abbreviations at an instant, in their order.
    #[must_use]
    pub fn abbreviations_at(utc_micros: i64) -> Vec<ZoneRow> {
        let row = |name: &str, offset, summer| ZoneRow {
            name: None,
            abbreviation: name.to_ascii_uppercase(),
            offset,
            summer,
        };
        let fixed = FIXED
            .iter()
            .map(|(name, minutes, summer)| row(name, minutes * 60, *summer));
        let of_zones = OF_ZONES.iter().map(|(name, zone)| {
            let summer = span_in(*zone, utc_micros).is_some_and(|(_, summer, _)| summer);
            row(
                name,
                Self::Abbreviation(name, *zone).offset_at(utc_micros),
                summer,
            )
        });
        let mut rows: Vec<ZoneRow> = fixed.chain(of_zones).collect();
        rows.sort_unstable_by(|left, right| left.abbreviation.cmp(&right.abbreviation));
        rows
    }
}

/// Reads a value of the setting `TimeZone`: hours east of UTC as a number, a name of the database in any case, or a POSIX specification.
impl FromStr for TimeZone {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || {
            TypeError::InvalidParameter(format!(
                "invalid value for parameter \"TimeZone\": \"{text}\""
            ))
        };
        let number = text.trim_ascii();
        let looks_like_number = number
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.'));
        match number.parse::<f64>() {
            Ok(hours) if looks_like_number => hours_east(hours).ok_or_else(invalid),
            _ => Self::specified(text).ok_or_else(invalid),
        }
    }
}

fn hours_east(hours: f64) -> Option<TimeZone> {
    if hours.abs() >= OFFSET_HOURS_MAX {
        return None;
    }
    #[expect(
        clippy::as_conversions,
        reason = "whole seconds of less than a week fit an i32"
    )]
    let seconds = (hours * 3_600.0).trunc() as i32;
    Some(TimeZone::Fixed(seconds))
}

/// What the setting `TimeZone` shows and reads: `Europe/Berlin`, `<+03>-03`.
impl std::fmt::Display for TimeZone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(0) => f.write_str("UTC"),
            Self::Fixed(seconds) => write!(
                f,
                "<{}>{}",
                offset_name(*seconds, ":"),
                offset_name(-*seconds, ":")
            ),
            Self::Named(zone) => f.write_str(zone.name()),
            Self::Posix(zone) => f.write_str(zone.text()),
            Self::Abbreviation(name, _) => f.write_str(&name.to_ascii_uppercase()),
        }
    }
}

/// `+03`, `-03:30` with the separator given.
fn offset_name(seconds: i32, separator: &str) -> String {
    let mut text = String::from(if seconds < 0 { '-' } else { '+' });
    let size = i64::from(seconds.unsigned_abs());
    push_hours(size / 3_600, &mut text);
    let rests = [size / 60 % 60, size % 60];
    let shown = rests
        .iter()
        .rposition(|rest| *rest != 0)
        .map_or(0, |last| last + 1);
    for rest in rests.iter().take(shown) {
        text.push_str(separator);
        push_two(*rest, &mut text);
    }
    text
}

fn to_chrono(micros: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(micros).map(|instant| instant.naive_utc())
}

/// A moment of a listed year whose clocks change as those of the year of `micros`: the year begins on the same day of the week and has as many days.
fn listed(micros: i64) -> i64 {
    let days = micros.div_euclid(MICROS_PER_DAY);
    let (year, _, _) = civil_from_days(days);
    if year <= LAST_LISTED_YEAR {
        return micros;
    }
    let first_day = |year: i64| days_from_civil(year, 1, 1).map(i64::from);
    let Some(start) = first_day(year) else {
        return micros;
    };
    let shape = |year: i64| {
        first_day(year).map(|first| (first.rem_euclid(7), super::days_in_month(year, 2)))
    };
    let wanted = shape(year);
    (LAST_LISTED_YEAR - 27..=LAST_LISTED_YEAR)
        .rev()
        .find(|candidate| shape(*candidate) == wanted)
        .and_then(first_day)
        .map_or(micros, |same| micros - (start - same) * MICROS_PER_DAY)
}

/// Offset, whether it is that of summer, and abbreviation of a zone at an instant.
fn span_in(zone: Tz, utc_micros: i64) -> Option<(i32, bool, Option<String>)> {
    let offset = zone.offset_from_utc_datetime(&to_chrono(listed(utc_micros))?);
    Some((
        offset.fix().local_minus_utc(),
        !offset.dst_offset().is_zero(),
        offset.abbreviation().map(str::to_owned),
    ))
}

fn offset_in(zone: Tz, utc_micros: i64) -> i32 {
    to_chrono(listed(utc_micros)).map_or(0, |utc| {
        zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()
    })
}

/// The offset at which clocks show a local time of a listed year.
fn listed_offset(zone: Tz, local_micros: i64) -> Option<i32> {
    let moved = listed(local_micros);
    let local = to_chrono(moved)?;
    let offset = match zone.offset_from_local_datetime(&local) {
        chrono::LocalResult::Single(offset) | chrono::LocalResult::Ambiguous(_, offset) => offset,
        chrono::LocalResult::None => {
            let before = local
                .checked_sub_signed(TimeDelta::days(1))
                .unwrap_or(local);
            zone.offset_from_utc_datetime(&before)
        }
    };
    Some(offset.fix().local_minus_utc())
}
