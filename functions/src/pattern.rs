//! Regular expressions: compiled within limits, and remembered for one call.
//!
//! Owns the limits: of a pattern, of the program it becomes, and of the text that a large program may run over. Must not know which functions match.
//! Called by `text`.
//!
//! The time of a match grows with the program times the text and cannot be interrupted, so that product is what is bounded.

use flowstone_types::{EvalError, EvalErrorKind, budget};
use regex::{Captures, Regex, RegexBuilder};

use crate::errors::{EvalResult, invalid_parameter};
use crate::growth::{Growth, value_fits};

/// Longest pattern.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// What reading a byte of a pattern takes at most: a node of the syntax tree, and one of what it becomes.
const BYTES_PER_PATTERN_BYTE: usize = 256;
/// Programs by size, and the longest text each may run over. What is larger than the last is too complex.
const PROGRAMS: [(usize, usize); 3] = [
    (64 << 10, usize::MAX),
    (1 << 20, 16 << 20),
    (10 << 20, 1 << 20),
];
/// Groups in groups.
const DEPTH_MAX: u32 = 200;
/// Patterns that a call remembers: PostgreSQL's number.
const PATTERNS_MAX: usize = 32;

/// `invalid regular expression: …`
fn invalid(reason: &str) -> EvalError {
    EvalError::new(
        EvalErrorKind::InvalidRegex,
        format!("invalid regular expression: {reason}"),
    )
}

fn too_complex() -> EvalError {
    invalid("regular expression is too complex")
}

/// A compiled pattern.
struct Compiled {
    pattern: String,
    flags: String,
    regex: Regex,
    text_bytes_max: usize,
}

/// Compiled patterns of one call.
#[derive(Default)]
pub(crate) struct Patterns(Vec<Compiled>);

impl Patterns {
    /// The pattern, ready to run over `text`.
    pub(crate) fn get(&mut self, text: &str, pattern: &str, flags: &str) -> EvalResult<&Regex> {
        let known = self
            .0
            .iter()
            .rposition(|known| known.pattern == pattern && known.flags == flags);
        match known {
            // Most rows have the pattern of the row before.
            Some(index) if index + 1 < self.0.len() => {
                let last = self.0.len() - 1;
                self.0.swap(index, last);
            }
            Some(_) => {}
            None => {
                let compiled = compile(pattern, flags)?;
                if self.0.len() >= PATTERNS_MAX {
                    self.0.swap_remove(0);
                }
                self.0.push(compiled);
            }
        }
        match self.0.last() {
            Some(compiled) if text.len() <= compiled.text_bytes_max => Ok(&compiled.regex),
            _ => Err(too_complex()),
        }
    }
}

fn compile(pattern: &str, flags: &str) -> EvalResult<Compiled> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(too_complex());
    }
    budget::reserve(pattern.len().saturating_mul(BYTES_PER_PATTERN_BYTE))?;
    let mut builder = RegexBuilder::new(pattern);
    // In PostgreSQL a dot matches a newline, and ^ and $ only match at the ends.
    builder.dot_matches_new_line(true).nest_limit(DEPTH_MAX);
    for flag in flags.chars() {
        match flag {
            'g' | 'c' | 's' => {}
            'i' => {
                builder.case_insensitive(true);
            }
            'm' | 'n' => {
                builder.multi_line(true).dot_matches_new_line(false);
            }
            'p' => {
                builder.dot_matches_new_line(false);
            }
            'w' => {
                builder.multi_line(true);
            }
            'x' => {
                builder.ignore_whitespace(true);
            }
            other => {
                return Err(invalid_parameter(format!(
                    "invalid regular expression option: \"{other}\""
                )));
            }
        }
    }
    for (bytes_max, text_bytes_max) in PROGRAMS {
        budget::check()?;
        match builder.size_limit(bytes_max).build() {
            Ok(regex) => {
                return Ok(Compiled {
                    pattern: pattern.to_owned(),
                    flags: flags.to_owned(),
                    regex,
                    text_bytes_max,
                });
            }
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(error) => {
                // The crate draws the pattern and points into it; the reason is the last line.
                let report = error.to_string();
                return Err(invalid(
                    report.rsplit("error: ").next().unwrap_or_default().trim(),
                ));
            }
        }
    }
    Err(too_complex())
}

/// `text` with `new` for the first match or for all; `\1` … `\9` and `\&` in the replacement stand for groups.
pub(crate) fn replace(pattern: &Regex, text: &str, new: &str, all: bool) -> EvalResult<String> {
    let mut result = String::new();
    let mut growth = Growth::default();
    let mut from = 0;
    let matches = pattern.captures_iter(text);
    for found in matches.take(if all { usize::MAX } else { 1 }) {
        let Some(whole) = found.get(0) else { continue };
        let before = text.get(from..whole.start()).unwrap_or_default();
        growth.add(before.len() + new.len())?;
        value_fits(result.len() + before.len() + new.len())?;
        result.push_str(before);
        expand(&found, new, &mut result)?;
        from = whole.end();
    }
    result.push_str(text.get(from..).unwrap_or_default());
    Ok(result)
}

fn expand(found: &Captures<'_>, new: &str, result: &mut String) -> EvalResult<()> {
    let mut letters = new.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            result.push(letter);
            continue;
        }
        let group = match letters.next() {
            Some('&') => found.get(0),
            Some(digit) if digit.is_ascii_digit() && digit != '0' => digit
                .to_digit(10)
                .and_then(|digit| usize::try_from(digit).ok())
                .and_then(|digit| found.get(digit)),
            Some('\\') | None => {
                result.push('\\');
                continue;
            }
            Some(other) => {
                result.extend(['\\', other]);
                continue;
            }
        };
        if let Some(group) = group {
            value_fits(result.len() + group.len())?;
            result.push_str(group.as_str());
        }
    }
    Ok(())
}
