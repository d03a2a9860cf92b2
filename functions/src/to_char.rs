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
                    (!is_infinite(at.0))
                        .then(|| Moment::of(at.0).format(pattern))
                        .transpose()
                })
            }),
            overload(&[P::TimestampTz, P::Text], text(), |call| {
                opt2(call, |at: Micros, pattern: &str| {
                    template_fits(pattern)?;
                    if is_infinite(at.0) {
                        return Ok(None);
                    }
                    let moment = Moment::of(to_local(call.zone, at.0)?);
                    moment.in_zone(call.zone, at.0).format(pattern).map(Some)
                })
            })
            .zoned(),
            overload(&[P::Interval, P::Text], text(), |call| {
                map2(call, |value: Interval, pattern: &str| {
                    template_fits(pattern)?;
                    Moment::of_interval(value).format(pattern)
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

/// Months from the last to the first.
const ROMAN_MONTHS: [&str; 12] = [
    "XII", "XI", "X", "IX", "VIII", "VII", "VI", "V", "IV", "III", "II", "I",
];

/// The Julian day of a date, and a number for what is none: PostgreSQL's `date2j`.
const fn julian_day(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year + 4800, month + 1)
    } else {
        (year + 4799, month + 13)
    };
    let century = year / 100;
    year * 365 - 32_167 + year / 4 - century + century / 4 + 7834 * month / 256 + day
}

/// The Julian day of the Monday of the first ISO week of a year.
const fn first_monday(year: i64) -> i64 {
    let fourth = julian_day(year, 1, 4);
    fourth - fourth.rem_euclid(7)
}

/// How a number or name of a pattern is written.
#[derive(Clone, Copy)]
struct Style {
    /// No padding (`FM`).
    fill: bool,
    /// In the language of the session (`TM`), which is English: names have no padding then.
    translated: bool,
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

    /// The day of the year; of an interval its days, with months of thirty.
    fn year_day(&self) -> i64 {
        match self.days {
            Some(days) => days - days_from_civil(self.year, 1, 1) + 1,
            None => (self.year * 12 + self.month) * 30 + self.day,
        }
    }

    fn julian_day(&self) -> i64 {
        julian_day(self.year, self.month, self.day)
    }

    /// The year of the ISO week, whose number is 0 or less before Christ, and the week. Of an interval what PostgreSQL makes of its fields.
    fn iso_week(&self) -> (i64, i64) {
        let day = self.julian_day();
        let mut year = self.year;
        if day < first_monday(year) {
            year -= 1;
        }
        let mut week = (day - first_monday(year)) / 7 + 1;
        if week >= 52 && day >= first_monday(year + 1) {
            year += 1;
            week = (day - first_monday(year)) / 7 + 1;
        }
        (year, week)
    }

    fn iso_year_day(&self) -> i64 {
        self.julian_day() - first_monday(self.iso_week().0) + 1
    }

    /// A year as it is shown: before Christ without a sign, unless it is an interval's.
    const fn shown_year(&self, year: i64) -> i64 {
        if year > 0 || self.days.is_none() {
            year
        } else {
            1 - year
        }
    }

    fn century(&self) -> i64 {
        if self.days.is_none() {
            self.year / 100
        } else if self.year > 0 {
            (self.year - 1) / 100 + 1
        } else {
            self.year / 100 - 1
        }
    }

    fn roman_month(&self) -> &'static str {
        let from_last = match self.month {
            0 if self.year == 0 => return "",
            0 if self.year > 0 => 0,
            0 => 11,
            month if month < 0 => -(month + 1),
            month => 12 - month,
        };
        pick(&ROMAN_MONTHS, from_last)
    }

    fn format(&self, pattern: &str) -> EvalResult<String> {
        let mut result = String::new();
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            if let Some(quoted) = rest.strip_prefix('"') {
                rest = copy_quoted(quoted, &mut result);
                continue;
            }
            if rest.starts_with("\\\"") {
                result.push('"');
                rest = rest.get(2..).unwrap_or_default();
                continue;
            }
            let (prefix, tail) = split_prefix(rest);
            let Some(word) = pattern_at(tail) else {
                if prefix != Prefix::None {
                    rest = tail;
                    continue;
                }
                result.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
                continue;
            };
            let (written, after) = tail.split_at(word.len());
            let (ordinal, length) = match after.get(..2) {
                Some("TH") => (Some(true), 2),
                Some("th") => (Some(false), 2),
                // Spelled: known and without effect.
                Some("SP") => (None, 2),
                _ => (None, 0),
            };
            let style = Style {
                fill: prefix == Prefix::Fill,
                translated: prefix == Prefix::Translated,
                ordinal,
            };
            self.write(written, style, &mut result)?;
            rest = after.get(length..).unwrap_or_default();
        }
        Ok(result)
    }

    /// Writes one pattern; its letters' case decides that of names.
    fn write(&self, written: &str, style: Style, out: &mut String) -> EvalResult<()> {
        let minute = self.time / MINUTE % 60;
        let second = self.time / SECOND % 60;
        let micro = self.time % SECOND;
        let hour12 = match self.hour % 12 {
            0 => 12,
            hour => hour,
        };
        let pattern = written.to_ascii_uppercase();
        if self.days.is_none() && CALENDAR_PATTERNS.contains(&pattern.as_str()) {
            return Err(EvalError::new(
                EvalErrorKind::DatetimeFormat,
                "invalid format specification for an interval value",
            ));
        }
        let year = self.shown_year(self.year);
        // The year before the one of an interval's may be the first below zero: it has no room for its sign.
        let iso_year = |out: &mut String, modulus: i64, width: usize| {
            let iso_year = self.shown_year(self.iso_week().0);
            let value = if width == 4 {
                iso_year
            } else {
                iso_year % modulus
            };
            if self.year < 0 {
                number(out, value, width, style);
            } else {
                within(out, value, width, style);
            }
        };
        match pattern.as_str() {
            "HH24" => number(out, self.hour, 2, style),
            "HH12" | "HH" => number(out, hour12, 2, style),
            "MI" => number(out, minute, 2, style),
            "SSSSS" | "SSSS" => {
                number(out, self.hour * 3600 + self.time % HOUR / SECOND, 1, style);
            }
            "SS" => number(out, second, 2, style),
            "MS" | "FF3" => fraction(out, micro / 1000, 3, style),
            "US" | "FF6" => fraction(out, micro, 6, style),
            "FF1" => fraction(out, micro / 100_000, 1, style),
            "FF2" => fraction(out, micro / 10_000, 2, style),
            "FF4" => fraction(out, micro / 100, 4, style),
            "FF5" => fraction(out, micro / 10, 5, style),
            "AM" | "PM" => out.push_str(&case(
                if self.hour % 24 < 12 { "Am" } else { "Pm" },
                written,
            )),
            "A.M." | "P.M." => out.push_str(&case(
                if self.hour % 24 < 12 { "A.m." } else { "P.m." },
                written,
            )),
            "Y,YYY" => {
                out.push_str(&format!("{},{:03}", year / 1000, year % 1000));
                suffix(out, year, style);
            }
            "YYYY" => number(out, year, 4, style),
            "YYY" => number(out, year % 1000, 3, style),
            "YY" => number(out, year % 100, 2, style),
            "Y" => number(out, year % 10, 1, style),
            "IYYY" => iso_year(out, 10_000, 4),
            "IYY" => iso_year(out, 1000, 3),
            "IY" => iso_year(out, 100, 2),
            "I" => iso_year(out, 10, 1),
            "IW" => within(out, self.iso_week().1, 2, style),
            "IDDD" => within(out, self.iso_year_day(), 3, style),
            "ID" => number(out, (self.week_day() + 6) % 7 + 1, 1, style),
            "BC" | "AD" => out.push_str(&case(if self.year > 0 { "Ad" } else { "Bc" }, written)),
            "B.C." | "A.D." => {
                out.push_str(&case(if self.year > 0 { "A.d." } else { "B.c." }, written))
            }
            "MONTH" => name(out, &case(pick(&MONTHS, self.month - 1), written), 9, style),
            "MON" => out.push_str(&case(
                pick(&MONTHS, self.month - 1).get(..3).unwrap_or_default(),
                written,
            )),
            "RM" if self.roman_month().is_empty() => {}
            // Whatever the language.
            "RM" => {
                let style = Style {
                    translated: false,
                    ..style
                };
                name(out, &case(self.roman_month(), written), 4, style);
            }
            "MM" => number(out, self.month, 2, style),
            "DAY" => name(out, &case(pick(&DAYS, self.week_day()), written), 9, style),
            "DY" => out.push_str(&case(
                pick(&DAYS, self.week_day()).get(..3).unwrap_or_default(),
                written,
            )),
            "DDD" => within(out, self.year_day(), 3, style),
            "DD" => within(out, self.day, 2, style),
            "D" => number(out, self.week_day() + 1, 1, style),
            "WW" => within(out, (self.year_day() - 1) / 7 + 1, 2, style),
            "W" => number(out, (self.day - 1) / 7 + 1, 1, style),
            "CC" => number(out, self.century(), 2, style),
            "J" => number(out, self.julian_day(), 1, style),
            "Q" if self.month == 0 => {}
            "Q" => number(out, (self.month - 1) / 3 + 1, 1, style),
            // It has a meaning where text is read.
            "FX" => {}
            zone => match &self.zone {
                Some(place) => place.write(zone, written, style, out),
                None => Place::UNNAMED.write(zone, written, style, out),
            },
        }
        Ok(())
    }
}

impl Place {
    /// Of a timestamp without a zone.
    const UNNAMED: Self = Self {
        name: String::new(),
        offset: 0,
    };

    fn write(&self, pattern: &str, written: &str, style: Style, out: &mut String) {
        let sign = if self.offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (self.offset.abs() / 3_600, self.offset.abs() % 3_600 / 60);
        match pattern {
            "TZH" => out.push_str(&format!("{sign}{hours:02}")),
            "TZM" => out.push_str(&format!("{minutes:02}")),
            "TZ" if written.starts_with('t') => out.push_str(&self.name.to_lowercase()),
            "TZ" => out.push_str(&self.name),
            "OF" => {
                let width = if style.fill { 1 } else { 2 };
                out.push_str(&format!("{sign}{hours:0width$}"));
                if minutes != 0 {
                    out.push_str(&format!(":{minutes:02}"));
                }
            }
            _ => {}
        }
    }
}

/// Patterns, longer ones before their beginnings.
const PATTERNS: &[&str] = &[
    "HH24", "HH12", "HH", "MI", "SSSSS", "SSSS", "SS", "MS", "US", "FF1", "FF2", "FF3", "FF4",
    "FF5", "FF6", "FX", "A.M.", "P.M.", "A.D.", "B.C.", "AM", "PM", "Y,YYY", "YYYY", "YYY", "YY",
    "Y", "IYYY", "IYY", "IY", "IW", "IDDD", "ID", "I", "BC", "AD", "MONTH", "MON", "MM", "DAY",
    "DY", "DDD", "DD", "D", "WW", "W", "CC", "J", "Q", "RM", "TZH", "TZM", "TZ", "OF",
];
/// Those of them that an interval has nothing for.
const CALENDAR_PATTERNS: &[&str] = &[
    "A.D.", "B.C.", "AD", "BC", "MONTH", "MON", "DAY", "DY", "ID", "D", "TZH", "TZM", "TZ", "OF",
];
/// Those that are also known with only the first letter upper.
const NAME_PATTERNS: &[&str] = &["MONTH", "MON", "DAY", "DY"];

fn starts_with(text: &str, word: &str) -> bool {
    text.get(..word.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(word))
}

/// The pattern that a text begins with: in upper or lower letters, not mixed.
fn pattern_at(text: &str) -> Option<&'static str> {
    let is_written = |word: &str| {
        let head = text.get(..word.len()).unwrap_or_default();
        let is_lower = |letters: &str| !letters.bytes().any(|letter| letter.is_ascii_uppercase());
        let is_name = NAME_PATTERNS.contains(&word)
            && head.starts_with(|letter: char| letter.is_ascii_uppercase())
            && head.get(1..).is_some_and(is_lower);
        head == word || (head.eq_ignore_ascii_case(word) && (is_lower(head) || is_name))
    };
    PATTERNS.iter().copied().find(|word| is_written(word))
}

/// What stands before a pattern and changes how it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    None,
    /// `FM`
    Fill,
    /// `TM`
    Translated,
}

fn split_prefix(text: &str) -> (Prefix, &str) {
    let words = [
        ("FM", Prefix::Fill),
        ("fm", Prefix::Fill),
        ("TM", Prefix::Translated),
        ("tm", Prefix::Translated),
    ];
    words
        .into_iter()
        .find_map(|(word, prefix)| Some((prefix, text.strip_prefix(word)?)))
        .unwrap_or((Prefix::None, text))
}

/// Copies text up to the closing quote, and returns what follows. A backslash makes the next character one of the text.
fn copy_quoted<'a>(quoted: &'a str, out: &mut String) -> &'a str {
    let mut letters = quoted.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => out.push(letters.next().unwrap_or(letter)),
            letter => out.push(letter),
        }
    }
    letters.as_str()
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
    suffix(out, value, style);
}

/// The same where the sign, if there is one, takes one of the places.
fn within(out: &mut String, value: i64, width: usize, style: Style) {
    let width = if style.fill { 1 } else { width };
    out.push_str(&format!("{value:0width$}"));
    suffix(out, value, style);
}

/// A fraction of a second, which has its zeros in any style. The sign of an interval's takes one of the places.
fn fraction(out: &mut String, value: i64, width: usize, style: Style) {
    out.push_str(&format!("{value:0width$}"));
    suffix(out, value, style);
}

/// The ending of an ordinal number, if it is one.
fn suffix(out: &mut String, value: i64, style: Style) {
    let Some(upper) = style.ordinal else { return };
    let value = value.unsigned_abs();
    let suffix = match (value % 100, value % 10) {
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

fn name(out: &mut String, text: &str, width: usize, style: Style) {
    if style.fill || style.translated {
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
            EvalErrorKind::DatetimeFormat,
            format!("invalid value \"{shown}\" for \"{word}\""),
        )
    };
    let (mut year, mut month, mut day) = (1, 1, 1);
    let (mut hour, mut minute, mut second, mut micro) = (0, 0, 0, 0);
    // The 12-hour clock begins in the morning.
    let (mut is_12_hour, mut afternoon, mut before_christ) = (false, false, false);
    let mut rest = text.trim_start();
    let mut pattern = pattern;
    while let Some(first) = pattern.chars().next() {
        if let (Prefix::Fill | Prefix::Translated, tail) = split_prefix(pattern) {
            pattern = tail;
            continue;
        }
        let Some(word) = pattern_at(pattern) else {
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
            "FF1" => 1,
            "YY" | "HH24" | "HH12" | "HH" | "MI" | "SS" | "MM" | "DD" | "FF2" => 2,
            "MS" | "DDD" | "FF3" => 3,
            "YYYY" | "FF4" => 4,
            "SSSSS" | "SSSS" | "FF5" => 5,
            "US" | "FF6" => 6,
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
                "AM" | "PM" | "A.M." | "P.M." => {
                    let (first, second) = if word.len() == 2 {
                        ("AM", "PM")
                    } else {
                        ("A.M.", "P.M.")
                    };
                    afternoon = one_of(rest, first, second).ok_or_else(|| bad(word, rest))?;
                    is_12_hour = true;
                    rest = rest.get(word.len()..).unwrap_or_default();
                }
                "BC" | "AD" | "B.C." | "A.D." => {
                    let (first, second) = if word.len() == 2 {
                        ("AD", "BC")
                    } else {
                        ("A.D.", "B.C.")
                    };
                    before_christ = one_of(rest, first, second).ok_or_else(|| bad(word, rest))?;
                    rest = rest.get(word.len()..).unwrap_or_default();
                }
                "FX" => {}
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
            "HH24" => hour = value,
            "HH12" | "HH" => (hour, is_12_hour) = (value, true),
            "MI" => minute = value,
            "SS" => second = value,
            "SSSSS" | "SSSS" => {
                (hour, minute, second) = (value / 3600, value / 60 % 60, value % 60);
            }
            "MS" => micro += fraction(3),
            "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => micro += fraction(6),
            _ => {
                return Err(invalid_parameter(format!(
                    "pattern \"{word}\" is not supported here"
                )));
            }
        }
    }
    if is_12_hour {
        if !(1..=12).contains(&hour) {
            return Err(EvalError::new(
                EvalErrorKind::DatetimeFormat,
                format!("hour \"{hour}\" is invalid for the 12-hour clock"),
            ));
        }
        hour = hour % 12 + if afternoon { 12 } else { 0 };
    }
    if before_christ {
        year = 1 - year;
    }
    let is_of_calendar = (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
    if !is_of_calendar || hour >= 24 || minute >= 60 || second >= 60 || micro >= SECOND {
        return Err(EvalError::new(
            EvalErrorKind::DatetimeOverflow,
            format!("date/time field value out of range: \"{text}\""),
        ));
    }
    let time = minute * MINUTE + second * SECOND + micro;
    let midnight = days_from_civil(year, month, day)
        .checked_mul(DAY)
        .ok_or_else(|| datetime_overflow("timestamp"))?;
    midnight
        .checked_add(hour * HOUR + time)
        .ok_or_else(|| datetime_overflow("timestamp"))
        .and_then(check_timestamp)
}

/// Whether a text begins with the second of two words; `None` if with neither.
fn one_of(text: &str, first: &str, second: &str) -> Option<bool> {
    if starts_with(text, second) {
        Some(true)
    } else {
        starts_with(text, first).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_beyond_their_ranges_are_errors() {
        let kind = |text, pattern| parse_timestamp(text, pattern).unwrap_err().kind;
        assert_eq!(kind("10:75", "HH24:MI"), EvalErrorKind::DatetimeOverflow);
        assert_eq!(kind("24:00", "HH24:MI"), EvalErrorKind::DatetimeOverflow);
        assert_eq!(
            kind("10:10:60", "HH24:MI:SS"),
            EvalErrorKind::DatetimeOverflow
        );
        assert_eq!(kind("86400", "SSSSS"), EvalErrorKind::DatetimeOverflow);
        assert_eq!(kind("13:00", "HH:MI"), EvalErrorKind::DatetimeFormat);
        let read = |text, pattern, shown: &str| {
            let at = parse_timestamp(text, pattern).unwrap();
            Moment::of(at).format(shown).unwrap()
        };
        assert_eq!(read("12:30 AM", "HH:MI AM", "HH24:MI"), "00:30");
        assert_eq!(read("12:30", "HH24:MI", "HH:MI P.M."), "12:30 P.M.");
        assert_eq!(
            read("86399.25", "SSSSS.FF2", "HH24:MI:SS.FF3"),
            "23:59:59.250"
        );
        assert_eq!(
            read("0044-03-15 B.C.", "YYYY-MM-DD B.C.", "YYYY BC"),
            "0044 BC"
        );
    }

    #[test]
    fn years_before_christ_and_intervals_are_written_as_in_postgresql() {
        let at = parse_timestamp("0044-03-15 BC", "YYYY-MM-DD BC").unwrap();
        let shown = |pattern| Moment::of(at).format(pattern).unwrap();
        assert_eq!(
            shown("IYYY IYY IY I CC A.D. b.c."),
            "0044 044 44 4 -01 B.C. b.c."
        );
        assert_eq!(shown("J RM|rm|FMRM"), "1705428 III |iii |III");
        let span = |months, days, micros| {
            let value = Interval {
                months,
                days,
                micros,
            };
            Moment::of_interval(value)
        };
        assert_eq!(
            span(14, 3, 0).format("CC YYYY MM DD DDD").unwrap(),
            "00 0001 02 03 423"
        );
        assert_eq!(
            span(0, 0, -3 * HOUR).format("HH24 HH12").unwrap(),
            "-03 -03"
        );
        assert!(span(1, 0, 0).format("Month").is_err());
        assert!(span(1, 0, 0).format("D").is_err());
        assert_eq!(
            span(14, -3, 0)
                .format("IYYY IYY IW IDDD DD DDD WW W Q RM J")
                .unwrap(),
            "0001 001 04 028 -3 417 60 1 1 II   1721453"
        );
        assert_eq!(
            span(-14, 0, 0)
                .format("IYYY IY I IW YYYY Y,YYY RM Q MM DDD WW")
                .unwrap(),
            "-0002 -02 -2 40 -0001 0,-01 XI   0 -02 -420 -59"
        );
        assert_eq!(
            span(0, 5, 0).format("IYYY IYY IY IW RM Q").unwrap(),
            "-001 -01 -1 48  "
        );
        assert_eq!(
            span(0, 0, 1_234_567).format("SS.FF2 FF6").unwrap(),
            "01.23 234567"
        );
    }

    #[test]
    fn prefixes_and_quotes_are_read() {
        let at = parse_timestamp("2024-05-05", "YYYY-MM-DD").unwrap();
        let shown = |pattern| Moment::of(at).format(pattern).unwrap();
        assert_eq!(shown("TMMonth|TMDay|Month|"), "May|Sunday|May      |");
        assert_eq!(shown(r#""a\"b"YYYY\"Q"#), "a\"b2024\"2");
        assert_eq!(shown("SSSSS OF TZH FMOF"), "0 +00 +00 +0");
        assert_eq!(
            shown("mI Yyyy MoNth fx dth FMDDTH DDSP tmmonth HH24TH"),
            "m4 4024 MoNth  1st 5TH 05 may 00TH"
        );
    }

    #[test]
    fn moments_are_written_by_patterns() {
        let at = parse_timestamp("2024-03-05 14:07:09", "YYYY-MM-DD HH24:MI:SS").unwrap();
        let shown = |pattern| Moment::of(at).format(pattern).unwrap();
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
