//! POSIX specifications of time zones: `UTC+3`, `<+03>-3`, `CET-1CEST,M3.5.0,M10.5.0/3`.
//!
//! Owns their grammar, as PostgreSQL reads it: offsets count west, a name may be missing, and summer time without rules is that of the United States.
//! Called by [`super::zone`].

use super::{MICROS_PER_DAY, MICROS_PER_SECOND, civil_from_days, days_from_civil, days_in_month};

/// When clocks change if a specification has summer time and no rules.
const DEFAULT_RULES: &str = ",M3.2.0,M11.1.0";
/// Hours of an offset or of a rule's time are at most this.
const HOURS_MAX: u32 = 24 * 7 - 1;
/// Letters of a specification.
const LENGTH_MAX: usize = 255;

/// A zone by its rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PosixZone {
    text: String,
    standard: Clock,
    summer: Option<Summer>,
}

/// What clocks show: an abbreviation, and seconds east of UTC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Clock {
    name: String,
    offset: i32,
}

/// Summer time, and when in a year clocks change to it and back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Summer {
    clock: Clock,
    start: Rule,
    end: Rule,
}

/// When clocks change, on the clocks of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rule {
    day: Day,
    /// Seconds after midnight; may be negative, and beyond a day.
    time: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Day {
    /// The day of the year from 1, without 29 February.
    Julian(u32),
    /// The day of the year from 0.
    FromZero(u32),
    /// The week of a month, 5 being the last, and the day of the week from Sunday, 0.
    Weekday { month: u32, week: u32, day: u32 },
}

impl PosixZone {
    /// Reads a specification; `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > LENGTH_MAX {
            return None;
        }
        let (name, rest) = clock_name(text)?;
        let (west, rest) = offset(rest)?;
        let standard = Clock {
            name: name.to_owned(),
            offset: -west,
        };
        let summer = if rest.is_empty() {
            None
        } else {
            Some(Summer::parse(rest, standard.offset)?)
        };
        Some(Self {
            text: text.to_owned(),
            standard,
            summer,
        })
    }

    /// The specification.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Seconds east of UTC at an instant (microseconds since 1970 UTC), and the abbreviation that clocks show.
    pub(super) fn offset_at(&self, utc_micros: i64) -> (i32, &str) {
        let clock = match &self.summer {
            Some(summer) if summer.is_on(utc_micros, self.standard.offset) => &summer.clock,
            _ => &self.standard,
        };
        (clock.offset, &clock.name)
    }
}

impl Summer {
    fn parse(text: &str, standard: i32) -> Option<Self> {
        let (name, rest) = clock_name(text).filter(|(name, _)| !name.is_empty())?;
        let (offset, rest) = if rest.is_empty() || rest.starts_with([',', ';']) {
            (standard + 3_600, rest)
        } else {
            let (west, rest) = offset(rest)?;
            (-west, rest)
        };
        let rules = if rest.is_empty() { DEFAULT_RULES } else { rest };
        let rules = rules.strip_prefix([',', ';'])?;
        let (start, rules) = Rule::parse(rules)?;
        let (end, rules) = Rule::parse(rules.strip_prefix(',')?)?;
        rules.is_empty().then(|| Self {
            clock: Clock {
                name: name.to_owned(),
                offset,
            },
            start,
            end,
        })
    }

    fn is_on(&self, utc_micros: i64, standard: i32) -> bool {
        let local = utc_micros.saturating_add(i64::from(standard) * MICROS_PER_SECOND);
        let (year, _, _) = civil_from_days(local.div_euclid(MICROS_PER_DAY));
        let instant = |rule: &Rule, offset: i32| {
            rule.in_year(year)
                .map(|seconds| (seconds - i64::from(offset)).saturating_mul(MICROS_PER_SECOND))
        };
        let (Some(start), Some(end)) = (
            instant(&self.start, standard),
            instant(&self.end, self.clock.offset),
        ) else {
            return false;
        };
        if start < end {
            (start..end).contains(&utc_micros)
        } else {
            !(end..start).contains(&utc_micros)
        }
    }
}

impl Rule {
    /// `M3.5.0/3`, `J60`, `59/2:30`
    fn parse(text: &str) -> Option<(Self, &str)> {
        let (day, rest) = if let Some(rest) = text.strip_prefix('M') {
            let (month, rest) = number(rest, 1, 12)?;
            let (week, rest) = number(rest.strip_prefix('.')?, 1, 5)?;
            let (day, rest) = number(rest.strip_prefix('.')?, 0, 6)?;
            (Day::Weekday { month, week, day }, rest)
        } else if let Some(rest) = text.strip_prefix('J') {
            let (day, rest) = number(rest, 1, 365)?;
            (Day::Julian(day), rest)
        } else {
            let (day, rest) = number(text, 0, 365)?;
            (Day::FromZero(day), rest)
        };
        let (time, rest) = match rest.strip_prefix('/') {
            Some(rest) => offset(rest)?,
            None => (2 * 3_600, rest),
        };
        Some((Self { day, time }, rest))
    }

    /// Seconds from 1970 to the change of a year, on the clocks of before.
    fn in_year(self, year: i64) -> Option<i64> {
        let first = i64::from(days_from_civil(year, 1, 1)?);
        let days = match self.day {
            Day::Julian(day) => {
                let leap = days_in_month(year, 2) == 29 && day >= 60;
                first + i64::from(day) - 1 + i64::from(leap)
            }
            Day::FromZero(day) => first + i64::from(day),
            Day::Weekday { month, week, day } => {
                let first = i64::from(days_from_civil(year, month, 1)?);
                // 1970-01-01 was a Thursday.
                let ahead = (i64::from(day) - (first + 4)).rem_euclid(7);
                let last = first + i64::from(days_in_month(year, month)) - 1;
                let wanted = first + ahead + 7 * (i64::from(week) - 1);
                if wanted > last { wanted - 7 } else { wanted }
            }
        };
        Some(days * 86_400 + i64::from(self.time))
    }
}

/// `<+03>` or letters up to a digit, a sign or a comma; maybe none.
fn clock_name(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>'),
        None => {
            let end = text
                .find(|letter: char| letter.is_ascii_digit() || matches!(letter, ',' | '-' | '+'))
                .unwrap_or(text.len());
            text.split_at_checked(end)
        }
    }
}

/// `[+-]hh[:mm[:ss]]` in seconds.
fn offset(text: &str) -> Option<(i32, &str)> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hours, mut rest) = number(rest, 0, HOURS_MAX)?;
    let mut seconds = hours * 3_600;
    if let Some(after) = rest.strip_prefix(':') {
        let (minutes, after) = number(after, 0, 59)?;
        seconds += minutes * 60;
        rest = after;
        if let Some(after) = rest.strip_prefix(':') {
            let (more, after) = number(after, 0, 60)?;
            seconds += more;
            rest = after;
        }
    }
    Some((sign * i32::try_from(seconds).ok()?, rest))
}

fn number(text: &str, least: u32, most: u32) -> Option<(u32, &str)> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    let value: u32 = digits.parse().ok()?;
    (least..=most).contains(&value).then_some((value, rest))
}
