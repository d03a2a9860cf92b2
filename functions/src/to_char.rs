//! `to_char`, and `to_timestamp`/`to_date` with a pattern.
//!
//! Owns the template patterns of dates and numbers. Text in double quotes and everything that is no pattern is copied.

use datafusion::logical_expr::ScalarUDF;
use flowstone_types::datetime::TimeZone;
use flowstone_types::{EvalError, EvalErrorKind, SqlType};

use crate::errors::{EvalResult, datetime_overflow, invalid_parameter};
use crate::interval::{
    DAY, HOUR, Interval, MINUTE, SECOND, check_timestamp, civil_from_days, days_from_civil,
    days_in_month, is_infinite,
};
use crate::numeric::{Lost, Numeric, Rounding};
use crate::udf::{Micros, P, R, function, map2, opt2, overload};
use crate::zone::to_local;

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let text = || R::Sql(SqlType::Text);
    vec![function(
        "to_char",
        vec![
            overload(&[P::Timestamp, P::Text], text(), |call| {
                opt2(call, |at: Micros, pattern: &str| {
                    template_fits(pattern)?;
                    Ok((!is_infinite(at.0)).then(|| Moment::of(at.0).format(pattern)))
                })
            }),
            overload(&[P::TimestampTz, P::Text], text(), |call| {
                opt2(call, |at: Micros, pattern: &str| {
                    template_fits(pattern)?;
                    if is_infinite(at.0) {
                        return Ok(None);
                    }
                    let moment = Moment::of(to_local(call.zone, at.0)?);
                    Ok(Some(moment.in_zone(call.zone, at.0).format(pattern)))
                })
            })
            .zoned(),
            overload(&[P::Interval, P::Text], text(), |call| {
                map2(call, |value: Interval, pattern: &str| {
                    template_fits(pattern)?;
                    Ok(Moment::of_interval(value).format(pattern))
                })
            }),
            overload(&[P::Int8, P::Text], text(), |call| {
                map2(call, |value: i64, pattern: &str| {
                    format_number(Numeric::integer(i128::from(value)), pattern)
                })
            }),
            overload(&[P::Numeric, P::Text], text(), |call| {
                map2(call, format_number)
            }),
            overload(&[P::Float8, P::Text], text(), |call| {
                map2(call, |value: f64, pattern: &str| {
                    format_number(Numeric::from_f64(value, 15, Lost::Rounded)?, pattern)
                })
            }),
        ],
    )]
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// Longest template: what it makes is not much longer, and it is read anew for every value.
const TEMPLATE_BYTES_MAX: usize = 32 << 10;

fn template_fits(pattern: &str) -> EvalResult<()> {
    if pattern.len() > TEMPLATE_BYTES_MAX {
        return Err(EvalError::new(
            EvalErrorKind::TooLarge,
            format!("a template may have {TEMPLATE_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

/// A moment taken apart.
struct Moment {
    year: i64,
    month: i64,
    day: i64,
    /// Days since 1970-01-01; none for an interval.
    days: Option<i64>,
    hour: i64,
    time: i64,
    zone: Option<Place>,
}

/// What clocks of a zone are called and how far they are east of UTC, in seconds.
struct Place {
    name: String,
    offset: i64,
}

/// How a number or name of a pattern is written.
#[derive(Clone, Copy)]
struct Style {
    /// No padding (`FM`).
    fill: bool,
    /// `TH` or `th` follows.
    ordinal: Option<bool>,
}

impl Moment {
    fn of(at: i64) -> Self {
        let days = at.div_euclid(DAY);
        let (year, month, day) = civil_from_days(days);
        let time = at.rem_euclid(DAY);
        Self {
            year,
            month,
            day,
            days: Some(days),
            hour: time / HOUR,
            time,
            zone: None,
        }
    }

    fn of_interval(value: Interval) -> Self {
        Self {
            year: i64::from(value.months / 12),
            month: i64::from(value.months % 12),
            day: i64::from(value.days),
            days: None,
            hour: value.micros / HOUR,
            time: value.micros % HOUR,
            zone: None,
        }
    }

    fn in_zone(mut self, zone: &TimeZone, at: i64) -> Self {
        self.zone = Some(Place {
            name: zone.abbreviation_at(at),
            offset: i64::from(zone.offset_at(at)),
        });
        self
    }

    fn week_day(&self) -> i64 {
        self.days.map_or(0, |days| (days + 4).rem_euclid(7))
    }

    fn year_day(&self) -> i64 {
        self.days
            .map_or(0, |days| days - days_from_civil(self.year, 1, 1) + 1)
    }

    fn iso_week(&self) -> (i64, i64) {
        let days = self.days.unwrap_or(0);
        let monday = days - (days + 3).rem_euclid(7);
        let (year, _, _) = civil_from_days(monday + 3);
        let fourth = days_from_civil(year, 1, 4);
        (
            year,
            (monday - (fourth - (fourth + 3).rem_euclid(7))) / 7 + 1,
        )
    }

    fn format(&self, pattern: &str) -> String {
        let mut result = String::new();
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            if let Some(quoted) = rest.strip_prefix('"') {
                let end = quoted.find('"').unwrap_or(quoted.len());
                result.push_str(quoted.get(..end).unwrap_or_default());
                rest = quoted.get(end + 1..).unwrap_or_default();
                continue;
            }
            let (fill, tail) = match rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
                Some(tail) => (true, tail),
                None => (false, rest),
            };
            let Some(word) = PATTERNS.iter().find(|word| starts_with(tail, word)) else {
                if fill {
                    rest = tail;
                    continue;
                }
                result.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
                continue;
            };
            let (written, after) = tail.split_at(word.len());
            let ordinal = match after.get(..2) {
                Some("TH") => Some(true),
                Some("th") => Some(false),
                _ => None,
            };
            self.write(written, Style { fill, ordinal }, &mut result);
            rest = if ordinal.is_some() {
                after.get(2..).unwrap_or_default()
            } else {
                after
            };
        }
        result
    }

    /// Writes one pattern; its letters' case decides that of names.
    fn write(&self, written: &str, style: Style, out: &mut String) {
        let minute = self.time / MINUTE % 60;
        let second = self.time / SECOND % 60;
        let micro = self.time % SECOND;
        let hour12 = (self.hour + 11).rem_euclid(12) + 1;
        let shown_year = if self.year > 0 || self.days.is_none() {
            self.year
        } else {
            1 - self.year
        };
        match written.to_ascii_uppercase().as_str() {
            "HH24" => number(out, self.hour, 2, style),
            "HH12" | "HH" => number(out, hour12, 2, style),
            "MI" => number(out, minute, 2, style),
            "SSSS" => number(out, self.hour * 3600 + self.time % HOUR / SECOND, 1, style),
            "SS" => number(out, second, 2, style),
            "MS" => number(out, micro / 1000, 3, style),
            "US" => number(out, micro, 6, style),
            "AM" | "PM" => out.push_str(&case(
                if self.hour % 24 < 12 { "Am" } else { "Pm" },
                written,
            )),
            "A.M." | "P.M." => out.push_str(&case(
                if self.hour % 24 < 12 { "A.m." } else { "P.m." },
                written,
            )),
            "Y,YYY" => out.push_str(&format!("{},{:03}", shown_year / 1000, shown_year % 1000)),
            "YYYY" => number(out, shown_year, 4, style),
            "YYY" => number(out, shown_year % 1000, 3, style),
            "YY" => number(out, shown_year % 100, 2, style),
            "Y" => number(out, shown_year % 10, 1, style),
            "IYYY" => number(out, self.iso_week().0, 4, style),
            "IW" => number(out, self.iso_week().1, 2, style),
            "IDDD" => number(
                out,
                (self.iso_week().1 - 1) * 7 + (self.week_day() + 6) % 7 + 1,
                3,
                style,
            ),
            "ID" => number(out, (self.week_day() + 6) % 7 + 1, 1, style),
            "BC" | "AD" => out.push_str(&case(if self.year > 0 { "Ad" } else { "Bc" }, written)),
            "MONTH" => name(out, &case(pick(&MONTHS, self.month - 1), written), 9, style),
            "MON" => out.push_str(&case(
                pick(&MONTHS, self.month - 1).get(..3).unwrap_or_default(),
                written,
            )),
            "MM" => number(out, self.month, 2, style),
            "DAY" => name(out, &case(pick(&DAYS, self.week_day()), written), 9, style),
            "DY" => out.push_str(&case(
                pick(&DAYS, self.week_day()).get(..3).unwrap_or_default(),
                written,
            )),
            "DDD" => number(out, self.year_day(), 3, style),
            "DD" => number(out, self.day, 2, style),
            "D" => number(out, self.week_day() + 1, 1, style),
            "WW" => number(out, (self.year_day() - 1) / 7 + 1, 2, style),
            "W" => number(out, (self.day - 1) / 7 + 1, 1, style),
            "CC" => number(out, (self.year + 99).div_euclid(100), 2, style),
            "J" => number(out, self.days.unwrap_or(0) + 2_440_588, 1, style),
            "Q" => number(out, (self.month - 1) / 3 + 1, 1, style),
            zone => {
                if let Some(place) = &self.zone {
                    place.write(zone, written, out);
                }
            }
        }
    }
}

impl Place {
    fn write(&self, pattern: &str, written: &str, out: &mut String) {
        let sign = if self.offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (self.offset.abs() / 3_600, self.offset.abs() % 3_600 / 60);
        match pattern {
            "TZH" => out.push_str(&format!("{sign}{hours:02}")),
            "TZM" => out.push_str(&format!("{minutes:02}")),
            "TZ" if written.starts_with('t') => out.push_str(&self.name.to_lowercase()),
            "TZ" => out.push_str(&self.name),
            "OF" if minutes != 0 => out.push_str(&format!("{sign}{hours:02}:{minutes:02}")),
            "OF" => out.push_str(&format!("{sign}{hours:02}")),
            _ => {}
        }
    }
}

/// Patterns, longer ones before their beginnings.
const PATTERNS: &[&str] = &[
    "HH24", "HH12", "HH", "MI", "SSSS", "SS", "MS", "US", "A.M.", "P.M.", "AM", "PM", "Y,YYY",
    "YYYY", "YYY", "YY", "Y", "IYYY", "IW", "IDDD", "ID", "BC", "AD", "MONTH", "MON", "MM", "DAY",
    "DY", "DDD", "DD", "D", "WW", "W", "CC", "J", "Q", "TZH", "TZM", "TZ", "OF",
];

fn starts_with(text: &str, word: &str) -> bool {
    text.get(..word.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(word))
}

fn pick<'a>(names: &[&'a str], index: i64) -> &'a str {
    usize::try_from(index)
        .ok()
        .and_then(|index| names.get(index))
        .copied()
        .unwrap_or_default()
}

/// A name in the case of its pattern: `MONTH`, `Month`, `month`.
fn case(name: &str, pattern: &str) -> String {
    let mut letters = pattern.chars();
    let first_upper = letters.next().is_some_and(char::is_uppercase);
    let second_upper = letters
        .next()
        .is_some_and(|second| second.is_uppercase() || second == '.');
    if first_upper && second_upper {
        name.to_uppercase()
    } else if first_upper {
        name.to_owned()
    } else {
        name.to_lowercase()
    }
}

fn number(out: &mut String, value: i64, width: usize, style: Style) {
    let width = if style.fill { 1 } else { width };
    let sign = if value < 0 { "-" } else { "" };
    out.push_str(&format!("{sign}{:0width$}", value.unsigned_abs()));
    if let Some(upper) = style.ordinal {
        let suffix = match (value.rem_euclid(100), value.rem_euclid(10)) {
            (11..=13, _) => "th",
            (_, 1) => "st",
            (_, 2) => "nd",
            (_, 3) => "rd",
            _ => "th",
        };
        out.push_str(&if upper {
            suffix.to_uppercase()
        } else {
            suffix.to_owned()
        });
    }
}

fn name(out: &mut String, text: &str, width: usize, style: Style) {
    if style.fill {
        out.push_str(text)
    } else {
        out.push_str(&format!("{text:<width$}"))
    }
}

/// A number by a pattern of `9 0 . , D G S MI PR L FM`.
fn format_number(value: Numeric, pattern: &str) -> EvalResult<String> {
    template_fits(pattern)?;
    let upper = pattern.to_ascii_uppercase();
    let fill = upper.contains("FM");
    let body = upper.replace("FM", "").replace("PR", "").replace("MI", "");
    let (angle, trailing_minus, anchored) = (
        upper.contains("PR"),
        upper.contains("MI"),
        body.contains('S'),
    );
    let (before, after) = body.split_once(['.', 'D']).unwrap_or((body.as_str(), ""));
    let decimals = after
        .chars()
        .filter(|letter| matches!(letter, '9' | '0'))
        .count();
    let places = i8::try_from(decimals).map_err(|_| invalid_parameter("invalid format"))?;
    let rounded = value.reduce(i32::from(places), places, Rounding::HalfAway)?;
    let text = Numeric {
        value: rounded.value.abs(),
        scale: places,
    }
    .to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((text.as_str(), ""));
    let whole = if whole == "0" { "" } else { whole };
    let positions = before
        .chars()
        .filter(|letter| matches!(letter, '9' | '0'))
        .count();
    let negative = rounded.value < 0;
    let fits = whole.len() <= positions;
    let mut digits = if fits {
        format!("{whole:>positions$}")
    } else {
        "#".repeat(positions)
    }
    .chars()
    .collect::<Vec<_>>()
    .into_iter();
    let mut started = false;
    let mut number = String::new();
    let mut zero_from_here = false;
    for letter in before.chars() {
        match letter {
            '9' | '0' => {
                zero_from_here |= letter == '0';
                let digit = digits.next().unwrap_or(' ');
                if digit != ' ' {
                    started = true;
                    number.push(digit);
                } else if zero_from_here {
                    started = true;
                    number.push('0');
                } else {
                    number.push(' ');
                }
            }
            ',' | 'G' => number.push(if started { ',' } else { ' ' }),
            'L' => number.push(' '),
            'S' => {}
            other => number.push(other),
        }
    }
    if decimals > 0 || body.contains(['.', 'D']) {
        number.push('.');
        if !fits {
            number.push_str(&"#".repeat(decimals));
        } else if fill {
            // FM drops the zeros that only a 9 asks for.
            let kept = after
                .chars()
                .filter(|letter| matches!(letter, '9' | '0'))
                .collect::<Vec<_>>()
                .iter()
                .rposition(|letter| *letter == '0')
                .map_or(0, |at| at + 1);
            let trimmed = fraction.trim_end_matches('0').len().max(kept);
            number.push_str(fraction.get(..trimmed).unwrap_or(fraction));
        } else {
            number.push_str(fraction);
        }
    } else if whole.is_empty() && number.trim().is_empty() && positions > 0 {
        number.pop();
        number.push('0');
    }
    let leading = number.len() - number.trim_start().len();
    let blanks = " ".repeat(leading);
    let bare = number.trim_start();
    let signed = if angle {
        if negative {
            format!("{blanks}<{bare}>")
        } else {
            format!(" {blanks}{bare} ")
        }
    } else if trailing_minus {
        format!("{blanks}{bare}{}", if negative { "-" } else { " " })
    } else if anchored {
        let sign = if negative { '-' } else { '+' };
        if body.starts_with('S') {
            format!("{blanks}{sign}{bare}")
        } else {
            format!("{blanks}{bare}{sign}")
        }
    } else {
        format!("{blanks}{}{bare}", if negative { "-" } else { " " })
    };
    Ok(if fill {
        signed.trim().to_owned()
    } else {
        signed
    })
}

/// Reads a timestamp by a pattern. Fields that the pattern lacks are those of the first moment of the year 1.
pub(crate) fn parse_timestamp(text: &str, pattern: &str) -> EvalResult<i64> {
    template_fits(pattern)?;
    let bad = |word: &str, rest: &str| {
        let shown: String = rest.chars().take(word.len()).collect();
        EvalError::new(
            EvalErrorKind::InvalidText,
            format!("invalid value \"{shown}\" for \"{word}\""),
        )
    };
    let (mut year, mut month, mut day, mut hour, mut time, mut afternoon) = (1, 1, 1, 0, 0, None);
    let mut rest = text.trim_start();
    let mut pattern = pattern;
    while let Some(first) = pattern.chars().next() {
        if let Some(tail) = pattern
            .strip_prefix("FM")
            .or_else(|| pattern.strip_prefix("fm"))
        {
            pattern = tail;
            continue;
        }
        let Some(word) = PATTERNS
            .iter()
            .copied()
            .find(|word| starts_with(pattern, word))
        else {
            pattern = pattern.get(first.len_utf8()..).unwrap_or_default();
            if rest
                .chars()
                .next()
                .is_some_and(|next| next == first || !next.is_alphanumeric())
            {
                let next = rest.chars().next().map_or(0, char::len_utf8);
                rest = rest.get(next..).unwrap_or_default();
            }
            continue;
        };
        pattern = pattern.get(word.len()..).unwrap_or_default();
        rest = rest.trim_start();
        let width = match word {
            "YYYY" | "HH24" | "HH12" | "HH" | "MI" | "SS" | "MM" | "DD" => {
                if word == "YYYY" {
                    4
                } else {
                    2
                }
            }
            "YY" => 2,
            "MS" | "DDD" => 3,
            "US" => 6,
            _ => 0,
        };
        if width == 0 {
            match word {
                "MONTH" | "MON" => {
                    let found = MONTHS
                        .iter()
                        .position(|name| starts_with(rest, name.get(..3).unwrap_or_default()))
                        .ok_or_else(|| bad(word, rest))?;
                    let full = pick(&MONTHS, i64::try_from(found).unwrap_or(0));
                    let length = if word == "MONTH" && starts_with(rest, full) {
                        full.len()
                    } else {
                        3
                    };
                    month = i64::try_from(found).unwrap_or(0) + 1;
                    rest = rest.get(length..).unwrap_or_default();
                }
                "AM" | "PM" => {
                    afternoon = Some(starts_with(rest, "PM"));
                    rest = rest.get(2..).unwrap_or_default();
                }
                _ => {
                    return Err(invalid_parameter(format!(
                        "pattern \"{word}\" is not supported here"
                    )));
                }
            }
            continue;
        }
        let length = rest
            .chars()
            .take(width)
            .take_while(char::is_ascii_digit)
            .count();
        let value: i64 = rest
            .get(..length)
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| bad(word, rest))?;
        rest = rest.get(length..).unwrap_or_default();
        let fraction = |digits: usize| {
            value * 10_i64.pow(u32::try_from(6 - length.min(6).min(digits)).unwrap_or(0))
        };
        match word {
            "YYYY" => year = value,
            "YY" => {
                year = if value < 70 {
                    2000 + value
                } else {
                    1900 + value
                }
            }
            "MM" => month = value,
            "DD" => day = value,
            "HH24" | "HH12" | "HH" => hour = value,
            "MI" => time += value * MINUTE,
            "SS" => time += value * SECOND,
            "MS" => time += fraction(3),
            "US" => time += fraction(6),
            _ => {
                return Err(invalid_parameter(format!(
                    "pattern \"{word}\" is not supported here"
                )));
            }
        }
    }
    let hour = match afternoon {
        Some(true) => hour % 12 + 12,
        Some(false) => hour % 12,
        None => hour,
    };
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) || hour > 24 {
        return Err(EvalError::new(
            EvalErrorKind::DatetimeOverflow,
            format!("date/time field value out of range: \"{text}\""),
        ));
    }
    let midnight = days_from_civil(year, month, day)
        .checked_mul(DAY)
        .ok_or_else(|| datetime_overflow("timestamp"))?;
    midnight
        .checked_add(hour * HOUR + time)
        .ok_or_else(|| datetime_overflow("timestamp"))
        .and_then(check_timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_by_patterns() {
        let at = parse_timestamp("2024-03-05 14:07:09", "YYYY-MM-DD HH24:MI:SS").unwrap();
        let shown = |pattern| Moment::of(at).format(pattern);
        assert_eq!(
            shown("YYYY-MM-DD\"T\"HH24:MI:SS.MS"),
            "2024-03-05T14:07:09.000"
        );
        assert_eq!(shown("Day, DD Mon YYYY"), "Tuesday  , 05 Mar 2024");
        assert_eq!(shown("FMDay, FMDDth FMMonth"), "Tuesday, 5th March");
        assert_eq!(shown("HH12:MI AM"), "02:07 PM");
        assert_eq!(shown("IYYY-IW"), "2024-10");
    }

    #[test]
    fn numbers_are_written_by_patterns() {
        let shown = |digits: i128, scale: i8, pattern| {
            format_number(
                Numeric {
                    value: digits,
                    scale,
                },
                pattern,
            )
            .unwrap()
        };
        assert_eq!(shown(1_234_567, 2, "999,999.99"), "  12,345.67");
        assert_eq!(shown(-5, 1, "0.99"), "-0.50");
        assert_eq!(shown(485, 0, "999"), " 485");
        assert_eq!(shown(-485, 0, "FM999"), "-485");
        assert_eq!(shown(12, 0, "99999"), "    12");
        assert_eq!(shown(1, 0, "000"), " 001");
        assert_eq!(shown(12_345, 0, "999"), " ###");
    }
}
