//! PostgreSQL's advanced regular expressions, written as the regex crate reads them.
//!
//! Owns the syntax of patterns and their flags. Must not know how patterns are run.
//! Called by [`super`].
//!
//! Invariants. What is written means the same; what cannot be is refused.

use std::ops::Range;

use flowstone_types::{EvalError, budget};

use super::part::{Part, Preference, Quantifier, STATES_OF_GROUP};
use super::{DEPTH_MAX, invalid, too_complex};
use crate::errors::{EvalResult, invalid_parameter, not_supported};

/// Largest number of a quantifier: PostgreSQL's.
const REPETITIONS_MAX: usize = 255;
/// Words of alternatives that are compared with each other.
const WORDS_MAX: usize = 64;

macro_rules! spaces {
    () => {
        "\\t-\\r \\u{1680}\\u{2000}-\\u{2006}\\u{2008}-\\u{200a}\\u{2028}\\u{2029}\\u{205f}\\u{3000}"
    };
}

/// The characters of `\s`: those of the system's locale, as with all classes.
const SPACES: &str = spaces!();
/// The characters of `\w`.
const WORD: &str = "\\p{Alphabetic}\\p{Nd}_";

/// A pattern as the regex crate reads it.
#[derive(Debug)]
pub(super) struct Translated {
    /// The pattern.
    pub(super) text: String,
    /// Groups that capture.
    pub(super) groups: usize,
    /// Whether the crate's match and its groups are PostgreSQL's.
    pub(super) straight: bool,
    /// Whether PostgreSQL takes the shortest match.
    pub(super) shortest: bool,
    /// Whether a group in a repetition may keep what it matched in an earlier turn.
    pub(super) stale: bool,
    /// States that its program has at least; 0 if nothing is known of that.
    pub(super) states: usize,
}

/// How a pattern is read.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    ignore_case: bool,
    expanded: bool,
    literal: bool,
    /// A dot and a negated class match no newline.
    stops_at_newline: bool,
    /// `^` and `$` match at lines.
    anchors_at_lines: bool,
}

impl Options {
    fn set(&mut self, letter: char, unknown: impl Fn() -> EvalError) -> EvalResult<()> {
        match letter {
            'i' => self.ignore_case = true,
            'c' => self.ignore_case = false,
            's' => (self.stops_at_newline, self.anchors_at_lines) = (false, false),
            'm' | 'n' => (self.stops_at_newline, self.anchors_at_lines) = (true, true),
            'p' => (self.stops_at_newline, self.anchors_at_lines) = (true, false),
            'w' => (self.stops_at_newline, self.anchors_at_lines) = (false, true),
            'x' => self.expanded = true,
            't' => self.expanded = false,
            'q' => self.literal = true,
            'b' | 'e' => {
                return Err(not_supported(
                    "basic and extended regular expressions are not supported",
                ));
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

/// What an escape stands for.
enum Escape {
    Letter(char),
    /// A class, as it stands in brackets, and whether it is meant or everything else.
    Class(&'static str, bool),
    /// What matches between two characters.
    Constraint(&'static str),
}

/// What stands between two quantifiers.
enum Atom {
    /// It can be repeated.
    Part(Part),
    Constraint,
}

/// Writes `pattern` for the regex crate.
pub(super) fn translate(pattern: &str, flags: &str) -> EvalResult<Translated> {
    let mut options = Options::default();
    for flag in flags.chars().filter(|flag| *flag != 'g') {
        options.set(flag, || {
            invalid_parameter(format!("invalid regular expression option: \"{flag}\""))
        })?;
    }
    let mut rest = pattern;
    if let Some(text) = rest.strip_prefix("***=") {
        options.literal = true;
        rest = text;
    } else if !options.literal {
        rest = rest.strip_prefix("***:").unwrap_or(rest);
        if let Some((letters, after)) = embedded_options(rest) {
            for letter in letters.chars() {
                options.set(letter, || invalid("invalid embedded option"))?;
            }
            rest = after;
        }
    }
    let mut parser = Parser {
        rest,
        options,
        out: String::with_capacity(rest.len() + 8),
        groups: 0,
    };
    parser.write_options();
    if options.literal {
        for letter in rest.chars() {
            parser.write_letter(letter);
        }
        return Ok(Translated {
            text: parser.out,
            groups: 0,
            straight: true,
            shortest: false,
            stale: false,
            states: 0,
        });
    }
    let whole = parser.alternatives(0)?;
    if !parser.rest.is_empty() {
        return Err(unbalanced_parentheses());
    }
    Ok(Translated {
        text: parser.out,
        groups: parser.groups,
        straight: whole.straight && !(whole.greedy && whole.lazy),
        shortest: whole.prefers == Some(Preference::Shortest),
        stale: whole.stale,
        states: if whole.varies { whole.states } else { 0 },
    })
}

/// The letters of `(?xyz)` at the beginning, and what follows.
fn embedded_options(pattern: &str) -> Option<(&str, &str)> {
    let (letters, after) = pattern.strip_prefix("(?")?.split_once(')')?;
    let all_letters = letters.chars().all(|letter| letter.is_ascii_alphabetic());
    (all_letters && !letters.is_empty()).then_some((letters, after))
}

fn unbalanced_parentheses() -> EvalError {
    invalid("parentheses () not balanced")
}

fn unbalanced_brackets() -> EvalError {
    invalid("brackets [] not balanced")
}

fn bad_operand() -> EvalError {
    invalid("quantifier operand invalid")
}

fn bad_escape() -> EvalError {
    invalid("invalid escape \\ sequence")
}

fn bad_range() -> EvalError {
    invalid("invalid character range")
}

struct Parser<'a> {
    rest: &'a str,
    options: Options,
    out: String,
    groups: usize,
}

impl Parser<'_> {
    fn write_options(&mut self) {
        let letters = [
            (self.options.ignore_case, 'i'),
            (!self.options.stops_at_newline, 's'),
            (self.options.anchors_at_lines, 'm'),
        ];
        let letters: String = letters
            .into_iter()
            .filter_map(|(on, letter)| on.then_some(letter))
            .collect();
        if !letters.is_empty() {
            self.out.push_str("(?");
            self.out.push_str(&letters);
            self.out.push(')');
        }
    }

    /// A character that means itself, in brackets or not.
    fn write_letter(&mut self, letter: char) {
        // These would be borders of words.
        if letter.is_ascii_punctuation() && !matches!(letter, '<' | '>') {
            self.out.push('\\');
        }
        self.out.push(letter);
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.rest = self.rest.get(letter.len_utf8()..).unwrap_or_default();
        Some(letter)
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Passes over comments, and over white space in an expanded pattern.
    fn skip(&mut self) -> EvalResult<()> {
        loop {
            if let Some(comment) = self.rest.strip_prefix("(?#") {
                let end = comment.find(')').ok_or_else(unbalanced_parentheses)?;
                self.rest = comment.get(end + 1..).unwrap_or_default();
            } else if self.options.expanded && self.peek().is_some_and(char::is_whitespace) {
                self.take();
            } else if self.options.expanded && self.peek() == Some('#') {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                self.rest = self.rest.get(end..).unwrap_or_default();
            } else {
                return Ok(());
            }
        }
    }

    /// Alternatives, up to a parenthesis or the end.
    fn alternatives(&mut self, depth: u32) -> EvalResult<Part> {
        if depth > DEPTH_MAX {
            return Err(too_complex());
        }
        let begin = self.out.len();
        let mut branches = Vec::new();
        loop {
            let from = self.out.len();
            let branch = self.branch(depth)?;
            branches.push((branch, from..self.out.len()));
            if !self.eat("|") {
                break;
            }
            self.out.push('|');
        }
        if branches.len() > 1 {
            return Ok(self.one_of(branches, begin));
        }
        Ok(branches
            .pop()
            .map_or_else(Part::empty, |(branch, _)| branch))
    }

    /// What is known of several alternatives, which were written from `begin` on. Words go the longest first.
    fn one_of(&mut self, branches: Vec<(Part, Range<usize>)>, begin: usize) -> Part {
        let mut whole = Part {
            word: None,
            greedy: true,
            prefers: Some(Preference::Longest),
            least: usize::MAX,
            bare: branches.iter().all(|(branch, _)| branch.bare),
            ..Part::empty()
        };
        whole.width = branches.first().and_then(|(branch, _)| branch.width);
        for (branch, _) in &branches {
            whole.least = whole.least.min(branch.least);
            whole.straight &= branch.straight;
            whole.lazy |= branch.lazy;
            whole.groups |= branch.groups;
            whole.stale |= branch.stale;
            whole.states = whole.states.max(branch.states);
            whole.varies |= branch.varies;
            if branch.width != whole.width {
                whole.width = None;
            }
        }
        whole.optional_groups = whole.groups;
        if whole.width.is_none() {
            whole.straight = self.sort_words(branches, begin);
        }
        whole
    }

    /// Writes alternatives that are words anew, the longest first. Returns whether none of them may begin and end within another one.
    fn sort_words(&mut self, branches: Vec<(Part, Range<usize>)>, begin: usize) -> bool {
        let mut words = Vec::new();
        for (branch, place) in branches {
            let (Some(word), Some(written)) = (branch.word, self.out.get(place)) else {
                return false;
            };
            let word = if self.options.ignore_case {
                word.to_lowercase()
            } else {
                word
            };
            if word.is_empty() {
                return false;
            }
            words.push((word, written.to_owned()));
            if words.len() > WORDS_MAX {
                return false;
            }
        }
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.chars().count()));
        self.out.truncate(begin);
        for (index, (_, written)) in words.iter().enumerate() {
            if index > 0 {
                self.out.push('|');
            }
            self.out.push_str(written);
        }
        !words.iter().any(|(outer, _)| {
            let mut inside = outer.chars();
            inside.next();
            inside.next_back();
            let inside = inside.as_str();
            words
                .iter()
                .any(|(inner, _)| inside.contains(inner.as_str()))
        })
    }

    /// Quantified atoms, up to the end of the branch.
    fn branch(&mut self, depth: u32) -> EvalResult<Part> {
        let mut whole = Part::empty();
        loop {
            self.skip()?;
            let Some(atom) = self.atom(depth)? else {
                return Ok(whole);
            };
            self.skip()?;
            let quantifier = self.quantifier()?;
            let part = match (atom, quantifier) {
                (Atom::Part(part), None) => part,
                (Atom::Part(part), Some(quantifier)) => {
                    self.write_quantifier(quantifier);
                    self.skip()?;
                    if self.quantifier()?.is_some() {
                        return Err(bad_operand());
                    }
                    part.repeated(quantifier)
                }
                (Atom::Constraint, None) => Part::constraint(),
                (Atom::Constraint, Some(_)) => return Err(bad_operand()),
            };
            whole.followed_by(part);
        }
    }

    /// A quantifier, if one is next.
    fn quantifier(&mut self) -> EvalResult<Option<Quantifier>> {
        let (least, most) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') if self.is_bound() => {
                self.take();
                return self.bound().map(Some);
            }
            _ => return Ok(None),
        };
        self.take();
        let lazy = self.eat("?");
        Ok(Some(Quantifier { least, most, lazy }))
    }

    /// Whether the brace that is next begins a bound: else it is a character.
    fn is_bound(&self) -> bool {
        self.rest
            .chars()
            .nth(1)
            .is_some_and(|letter| letter.is_ascii_digit())
    }

    /// The rest of `{m}`, `{m,}` or `{m,n}`.
    fn bound(&mut self) -> EvalResult<Quantifier> {
        let least = self.repetitions()?;
        let most = if self.eat(",") {
            if self.peek().is_some_and(|letter| letter.is_ascii_digit()) {
                Some(self.repetitions()?)
            } else {
                None
            }
        } else {
            Some(least)
        };
        if !self.eat("}") {
            return Err(invalid("braces {} not balanced"));
        }
        if most.is_some_and(|most| most < least) {
            return Err(invalid("invalid repetition count(s)"));
        }
        let lazy = self.eat("?");
        Ok(Quantifier { least, most, lazy })
    }

    fn repetitions(&mut self) -> EvalResult<usize> {
        let length = self
            .rest
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(self.rest.len());
        let text = self.rest.get(..length).unwrap_or_default();
        let number = text.parse::<usize>().ok();
        self.rest = self.rest.get(length..).unwrap_or_default();
        number
            .filter(|number| *number <= REPETITIONS_MAX)
            .ok_or_else(|| invalid("invalid repetition count(s)"))
    }

    fn write_quantifier(&mut self, quantifier: Quantifier) {
        let Quantifier { least, most, lazy } = quantifier;
        let written = match (least, most) {
            (0, None) => "*".to_owned(),
            (1, None) => "+".to_owned(),
            (0, Some(1)) => "?".to_owned(),
            (least, None) => format!("{{{least},}}"),
            (least, Some(most)) if least == most => format!("{{{least}}}"),
            (least, Some(most)) => format!("{{{least},{most}}}"),
        };
        self.out.push_str(&written);
        if lazy {
            self.out.push('?');
        }
    }

    /// An atom or a constraint; `None` at the end of the branch.
    fn atom(&mut self, depth: u32) -> EvalResult<Option<Atom>> {
        match self.peek() {
            None | Some('|') => return Ok(None),
            Some(')') if depth > 0 => return Ok(None),
            Some(')') => return Err(unbalanced_parentheses()),
            Some('*' | '+' | '?') => return Err(bad_operand()),
            Some('{') if self.is_bound() => return Err(bad_operand()),
            Some(_) => {}
        }
        Ok(match self.take() {
            None => None,
            Some('(') => Some(self.group(depth)?),
            Some('[') => Some(self.brackets()?),
            Some('.') => {
                self.out.push('.');
                Some(Atom::Part(Part::one_of_many()))
            }
            Some(anchor @ ('^' | '$')) => {
                self.out.push(anchor);
                Some(Atom::Constraint)
            }
            Some('\\') => Some(match self.escape()? {
                Escape::Letter(letter) => {
                    self.write_letter(letter);
                    Atom::Part(Part::letter(letter))
                }
                Escape::Class(members, meant) => {
                    self.out.push_str(if meant { "[" } else { "[^" });
                    self.out.push_str(members);
                    self.out.push(']');
                    Atom::Part(Part::one_of_many())
                }
                Escape::Constraint(written) => {
                    self.out.push_str(written);
                    Atom::Constraint
                }
            }),
            Some(letter) => {
                self.write_letter(letter);
                Some(Atom::Part(Part::letter(letter)))
            }
        })
    }

    /// What follows an opening parenthesis.
    fn group(&mut self, depth: u32) -> EvalResult<Atom> {
        budget::check()?;
        // SIMILAR TO is written with the second form.
        let captures = !(self.eat("?:") || self.eat("?s:"));
        if captures && self.peek() == Some('?') {
            let looks = ["?=", "?!", "?<=", "?<!"];
            return Err(if looks.iter().any(|look| self.rest.starts_with(look)) {
                not_supported("regular expressions that look ahead or behind are not supported")
            } else {
                bad_operand()
            });
        }
        self.out.push_str(if captures { "(" } else { "(?:" });
        if captures {
            self.groups += 1;
        }
        let inner = self.alternatives(depth + 1)?;
        if !self.eat(")") {
            return Err(unbalanced_parentheses());
        }
        self.out.push(')');
        Ok(Atom::Part(Part {
            groups: inner.groups || captures,
            word: inner.word.filter(|_| !captures),
            states: inner
                .states
                .saturating_add(if captures { STATES_OF_GROUP } else { 0 }),
            varies: inner.varies || captures,
            ..inner
        }))
    }

    /// What follows a backslash.
    fn escape(&mut self) -> EvalResult<Escape> {
        let letter = self.take().ok_or_else(bad_escape)?;
        if !letter.is_ascii_alphanumeric() {
            return Ok(Escape::Letter(letter));
        }
        Ok(match letter {
            'a' => Escape::Letter('\u{7}'),
            'b' => Escape::Letter('\u{8}'),
            'B' => Escape::Letter('\\'),
            'c' => {
                let letter = self.take().ok_or_else(bad_escape)?;
                Escape::Letter(char_of(u32::from(letter) & 0x1f)?)
            }
            'e' => Escape::Letter('\u{1b}'),
            'f' => Escape::Letter('\u{c}'),
            'n' => Escape::Letter('\n'),
            'r' => Escape::Letter('\r'),
            't' => Escape::Letter('\t'),
            'v' => Escape::Letter('\u{b}'),
            'u' => Escape::Letter(self.code(16, 4..=4)?),
            'U' => Escape::Letter(self.code(16, 8..=8)?),
            'x' => Escape::Letter(self.code(16, 1..=255)?),
            'd' => Escape::Class("0-9", true),
            'D' => Escape::Class("0-9", false),
            's' => Escape::Class(SPACES, true),
            'S' => Escape::Class(SPACES, false),
            'w' => Escape::Class(WORD, true),
            'W' => Escape::Class(WORD, false),
            'A' => Escape::Constraint("\\A"),
            'm' => Escape::Constraint("\\b{start}"),
            'M' => Escape::Constraint("\\b{end}"),
            'y' => Escape::Constraint("\\b"),
            'Y' => Escape::Constraint("\\B"),
            'Z' => Escape::Constraint("\\z"),
            '0' => {
                // The zero is the first of up to three digits.
                let digits = self.digits(8, 2);
                Escape::Letter(code_of(digits, 8)?)
            }
            '1'..='9' => self.reference(letter)?,
            _ => return Err(bad_escape()),
        })
    }

    /// A number after a backslash, whose first digit was read: the number of a group, or of a character if there is no such group and it is longer.
    fn reference(&mut self, first: char) -> EvalResult<Escape> {
        let more = self
            .rest
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(self.rest.len());
        let decimal = format!("{first}{}", self.rest.get(..more).unwrap_or_default());
        let group = decimal.parse::<usize>().unwrap_or(usize::MAX);
        if more == 0 && group > self.groups {
            return Err(invalid("invalid backreference number"));
        }
        if more == 0 || group <= self.groups {
            return Err(not_supported(
                "back references in regular expressions are not supported",
            ));
        }
        if !first.is_digit(8) {
            return Err(bad_escape());
        }
        let digits = format!("{first}{}", self.digits(8, 2));
        Ok(Escape::Letter(code_of(&digits, 8)?))
    }

    /// The digits that are next, so many at most.
    fn digits(&mut self, radix: u32, most: usize) -> &str {
        let rest = self.rest;
        let length = rest
            .chars()
            .take(most)
            .take_while(|letter| letter.is_digit(radix))
            .count();
        // Digits are ASCII.
        self.rest = rest.get(length..).unwrap_or_default();
        rest.get(..length).unwrap_or_default()
    }

    fn code(&mut self, radix: u32, count: std::ops::RangeInclusive<usize>) -> EvalResult<char> {
        let digits = self.digits(radix, *count.end());
        if !count.contains(&digits.len()) {
            return Err(bad_escape());
        }
        code_of(digits, radix)
    }

    /// What follows an opening bracket.
    fn brackets(&mut self) -> EvalResult<Atom> {
        for (border, written) in [("[:<:]]", "\\b{start}"), ("[:>:]]", "\\b{end}")] {
            if self.eat(border) {
                self.out.push_str(written);
                return Ok(Atom::Constraint);
            }
        }
        self.out.push('[');
        let negated = self.eat("^");
        if negated {
            self.out.push('^');
        }
        let mut is_first = true;
        loop {
            if self.peek() == Some(']') && !is_first {
                self.take();
                break;
            }
            is_first = false;
            let Some(from) = self.member()? else {
                continue;
            };
            if !self.rest.starts_with('-') || self.rest.starts_with("-]") {
                self.write_letter(from);
                continue;
            }
            self.take();
            let Some(to) = self.range_end()? else {
                return Err(bad_range());
            };
            if to < from {
                return Err(bad_range());
            }
            self.write_letter(from);
            self.out.push('-');
            self.write_letter(to);
        }
        if negated && self.options.stops_at_newline {
            self.out.push_str("\\n");
        }
        self.out.push(']');
        Ok(Atom::Part(Part::one_of_many()))
    }

    /// The end of a range; `None` if it is a class.
    fn range_end(&mut self) -> EvalResult<Option<char>> {
        if self.rest.starts_with("[:") || self.rest.starts_with("[=") {
            return Ok(None);
        }
        self.member()
    }

    /// The next member of brackets, if it is a character; a class is written.
    fn member(&mut self) -> EvalResult<Option<char>> {
        for (open, close) in [("[:", ":]"), ("[=", "=]"), ("[.", ".]")] {
            if !self.eat(open) {
                continue;
            }
            let (name, rest) = self
                .rest
                .split_once(close)
                .ok_or_else(unbalanced_brackets)?;
            self.rest = rest;
            if open == "[:" {
                self.out
                    .push_str(class(name).ok_or_else(|| invalid("invalid character class"))?);
                return Ok(None);
            }
            let mut letters = name.chars();
            return match (letters.next(), letters.next()) {
                (Some(letter), None) => Ok(Some(letter)),
                _ => Err(invalid("invalid collating element")),
            };
        }
        match self.take() {
            None => Err(unbalanced_brackets()),
            Some('\\') => match self.escape()? {
                Escape::Letter(letter) => Ok(Some(letter)),
                Escape::Class(members, meant) => {
                    self.out.push_str(if meant { "[" } else { "[^" });
                    self.out.push_str(members);
                    self.out.push(']');
                    Ok(None)
                }
                Escape::Constraint(_) => Err(bad_escape()),
            },
            Some(letter) => Ok(Some(letter)),
        }
    }
}

/// The class of a name, as it stands in brackets.
fn class(name: &str) -> Option<&'static str> {
    Some(match name {
        // Digits of other scripts are letters.
        "alpha" => "\\p{Alphabetic}[\\p{Nd}--[0-9]]",
        "alnum" => "\\p{Alphabetic}\\p{Nd}",
        "upper" => "\\p{Uppercase}\\p{Lt}",
        "lower" => "\\p{Lowercase}\\p{Lt}",
        "digit" => "0-9",
        "space" => SPACES,
        "word" => WORD,
        "ascii" => "[:ascii:]",
        "blank" => "[:blank:]",
        "cntrl" => "\\p{Cc}",
        "graph" => concat!("[^\\p{Cn}\\p{Cc}", spaces!(), "]"),
        "print" => "[^\\p{Cn}\\p{Cc}\\u{2028}\\u{2029}]",
        "punct" => concat!("[^\\p{Cn}\\p{Cc}\\p{Alphabetic}\\p{Nd}", spaces!(), "]"),
        "xdigit" => "[:xdigit:]",
        _ => return None,
    })
}

fn char_of(code: u32) -> EvalResult<char> {
    char::from_u32(code).ok_or_else(bad_escape)
}

/// The character of a number; no digits are zero.
fn code_of(digits: &str, radix: u32) -> EvalResult<char> {
    if digits.is_empty() {
        return char_of(0);
    }
    u32::from_str_radix(digits, radix)
        .map_err(|_| bad_escape())
        .and_then(char_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pattern: &str) -> String {
        translate(pattern, "").unwrap().text
    }

    fn refused(pattern: &str) -> String {
        translate(pattern, "").unwrap_err().message
    }

    #[test]
    fn escapes_and_classes_mean_what_postgresql_means() {
        assert_eq!(written("\\yfoo\\M"), "(?s)\\bfoo\\b{end}");
        assert_eq!(written("a\\bc\\B"), "(?s)a\u{8}c\\\\");
        assert_eq!(written("[a&&b]"), "(?s)[a\\&\\&b]");
        assert_eq!(written("[[a]]"), "(?s)[\\[a]\\]");
        assert_eq!(written("[]x-]"), "(?s)[\\]x\\-]");
        assert_eq!(
            written("[^\\d[:alpha:]]"),
            "(?s)[^[0-9]\\p{Alphabetic}[\\p{Nd}--[0-9]]]"
        );
        assert_eq!(written("\\x41\\u0042\\103"), "(?s)ABC");
        assert_eq!(written("a{2}b{,c}"), "(?s)a{2}b\\{\\,c\\}");
        assert_eq!(translate("[^a]$", "n").unwrap().text, "(?m)[^a\\n]$");
        assert_eq!(translate("a b # c", "x").unwrap().text, "(?s)ab");
        assert_eq!(written("***=a.b"), "(?s)a\\.b");
    }

    #[test]
    fn what_postgresql_refuses_is_refused() {
        for (pattern, reason) in [
            ("(", "parentheses () not balanced"),
            (")", "parentheses () not balanced"),
            ("[a", "brackets [] not balanced"),
            ("*a", "quantifier operand invalid"),
            ("a**", "quantifier operand invalid"),
            ("^*", "quantifier operand invalid"),
            ("a{3,2}", "invalid repetition count(s)"),
            ("a{256}", "invalid repetition count(s)"),
            ("a{2", "braces {} not balanced"),
            ("[b-a]", "invalid character range"),
            ("[[:x:]]", "invalid character class"),
            ("\\q", "invalid escape \\ sequence"),
            ("\\1", "invalid backreference number"),
        ] {
            assert_eq!(
                refused(pattern),
                format!("invalid regular expression: {reason}"),
                "{pattern}"
            );
        }
        assert!(refused("(a)\\1").contains("back references"));
        assert!(refused("a(?=b)").contains("look ahead"));
        assert!(refused(&"(".repeat(1000)).contains("too complex"));
    }

    #[test]
    fn straight_patterns_are_known() {
        let straight = |pattern| translate(pattern, "").unwrap().straight;
        for pattern in [
            "b..",
            "(.*)-(.*)",
            "(\\w+)@(\\w+\\.\\w+)",
            "(.*?),",
            "^(\\d{4})-(\\d\\d)$",
            "(foo|bar).*",
            "(.*)\\.(jpg|jpeg|png)$",
            "(?:ab){3}",
        ] {
            assert!(straight(pattern), "{pattern}");
        }
        for pattern in [
            "a?(ab)?",
            "(a|ab)(c|bcd)",
            "x*?y*",
            "(?:ab|cd).*?",
            "(?:ab)*",
            "(x|)y",
            "b|abc.",
        ] {
            assert!(!straight(pattern), "{pattern}");
        }
        assert_eq!(written("a(?:b|bcd)"), "(?s)a(?:bcd|b)");
    }
}
