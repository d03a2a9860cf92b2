//! Regular expressions: compiled within limits, remembered for one call, and run.
//!
//! Owns the limits: of a pattern, of the program it becomes, and of the text that a large program may run over; and which of several matches is taken.
//! Must not know which functions match. Called by `regexps` and `text`. How patterns are read is `syntax`'s business.
//!
//! The time of a match grows with the program times the text and cannot be interrupted, so that product is what is bounded.
//!
//! Whether a text matches, and where the first match starts, the regex crate and PostgreSQL agree on. Where it ends is looked for among all matches from
//! there, unless the pattern is straight (see `part`). What groups match is then only known if there is one way to match a text; else it is an error.

mod part;
mod syntax;

use std::cell::Cell;
use std::ops::Range;

use flowstone_types::{EvalError, EvalErrorKind, budget};
use regex::{Regex, RegexBuilder};
use regex_automata::dfa::onepass;
use regex_automata::nfa::thompson::{self, WhichCaptures, pikevm};
use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::util::syntax::Config as SyntaxConfig;
use regex_automata::{Anchored, Input, MatchKind};

use self::syntax::{Translated, translate};
use crate::errors::{EvalResult, internal, not_supported};
use crate::growth::{Growth, value_fits};
use crate::udf::{ITEM_BYTES, TextList};

/// Longest pattern.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// What reading a byte of a pattern takes at most: a node of the syntax tree, and one of what it becomes.
const BYTES_PER_PATTERN_BYTE: usize = 256;
/// Programs by size, and the longest text each may run over. What is larger than the last is too complex.
const PROGRAMS: [(usize, usize); 3] = [
    (64 << 10, usize::MAX),
    (1 << 20, 16 << 20),
    (10 << 20, 256 << 10),
];
/// What a state of a program takes at least while it is made: a list of what follows it.
const BYTES_PER_STATE: usize = size_of::<Vec<u32>>();
/// The largest program that all matches are looked for with, and the longest text: it takes far longer than to find the first.
const ALL_MATCHES: (usize, usize) = (4 << 20, 16 << 20);
/// Groups in groups.
const DEPTH_MAX: u32 = 200;
/// The same with the classes in them, as they are written.
const WRITTEN_DEPTH_MAX: u32 = 2 * DEPTH_MAX + 8;
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

fn unknown_groups() -> EvalError {
    not_supported(
        "what the groups of this regular expression match is not known, because it can match a text in several ways; use (?:…) for groups that are not asked for",
    )
}

/// A compiled pattern.
pub(crate) struct Compiled {
    pattern: String,
    flags: String,
    translated: Translated,
    regex: Regex,
    text_bytes_max: usize,
    ends: Option<Box<(pikevm::PikeVM, pikevm::Cache)>>,
    unique: Option<Box<(onepass::DFA, onepass::Cache)>>,
}

/// What a pattern and its groups match; the first is the whole.
struct Found {
    groups: Vec<Option<Range<usize>>>,
}

impl Found {
    fn whole(&self) -> EvalResult<Range<usize>> {
        let whole = self.groups.first().cloned().flatten();
        whole.ok_or_else(|| internal("a match without a place"))
    }

    fn group<'a>(&self, index: usize, text: &'a str) -> Option<&'a str> {
        text.get(self.groups.get(index)?.clone()?)
    }
}

impl Compiled {
    /// Whether `text` matches.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The input for the search of another end of a match from `start` on.
    fn rest<'t>(&self, text: &'t str, start: usize) -> EvalResult<Input<'t>> {
        let (_, text_bytes_max) = ALL_MATCHES;
        if text.len() - start > text_bytes_max {
            return Err(too_complex());
        }
        Ok(Input::new(text)
            .range(start..)
            .anchored(Anchored::Yes)
            .earliest(self.translated.shortest))
    }

    /// The first match from a byte on.
    fn find(&mut self, text: &str, from: usize) -> EvalResult<Option<Range<usize>>> {
        let Some(found) = self.regex.find_at(text, from) else {
            return Ok(None);
        };
        if self.translated.straight {
            return Ok(Some(found.range()));
        }
        let input = self.rest(text, found.start())?;
        let ends = match self.ends.take() {
            Some(ends) => ends,
            None => all_ends(&self.translated.text)?,
        };
        let (program, cache) = &mut **self.ends.insert(ends);
        let mut slots = [None; 2];
        program.search_slots(cache, &input, &mut slots);
        match slots.as_slice() {
            [Some(start), Some(end)] => Ok(Some(start.get()..end.get())),
            _ => Err(internal("a regular expression matches and does not")),
        }
    }

    /// The same as what is found, without groups.
    fn find_whole(&mut self, text: &str, from: usize) -> EvalResult<Option<Found>> {
        let whole = self.find(text, from)?;
        Ok(whole.map(|whole| Found {
            groups: vec![Some(whole)],
        }))
    }

    /// The same with what the groups match.
    fn find_groups(&mut self, text: &str, from: usize) -> EvalResult<Option<Found>> {
        if self.translated.groups == 0 {
            return self.find_whole(text, from);
        }
        if self.translated.straight && !self.translated.stale {
            let found = self.regex.captures_at(text, from);
            return Ok(found.map(|found| Found {
                groups: found
                    .iter()
                    .map(|group| group.map(|group| group.range()))
                    .collect(),
            }));
        }
        let Some(found) = self.regex.find_at(text, from) else {
            return Ok(None);
        };
        if self.translated.stale {
            return Err(unknown_groups());
        }
        let input = self.rest(text, found.start())?;
        let unique = match self.unique.take() {
            Some(unique) => unique,
            None => only_one_way(&self.translated.text)?,
        };
        let (program, cache) = &mut **self.unique.insert(unique);
        let mut slots = vec![None; 2 * (self.translated.groups + 1)];
        program
            .try_search_slots(cache, &input, &mut slots)
            .map_err(|error| internal(error.to_string()))?;
        let range = |pair: &[Option<NonMaxUsize>]| match pair {
            [Some(start), Some(end)] => Some(start.get()..end.get()),
            _ => None,
        };
        let groups: Vec<_> = slots.chunks(2).map(range).collect();
        if groups.first().is_none_or(Option::is_none) {
            return Err(internal("a regular expression matches and does not"));
        }
        Ok(Some(Found { groups }))
    }
}

fn read_as_written() -> SyntaxConfig {
    SyntaxConfig::new().nest_limit(WRITTEN_DEPTH_MAX)
}

fn program_limits() -> thompson::Config {
    let (program_bytes_max, _) = ALL_MATCHES;
    thompson::Config::new().nfa_size_limit(Some(program_bytes_max))
}

/// A program that finds the ends of all matches.
fn all_ends(pattern: &str) -> EvalResult<Box<(pikevm::PikeVM, pikevm::Cache)>> {
    let program = pikevm::PikeVM::builder()
        .syntax(read_as_written())
        .thompson(program_limits().which_captures(WhichCaptures::Implicit))
        .configure(pikevm::PikeVM::config().match_kind(MatchKind::All))
        .build(pattern)
        .map_err(|_| too_complex())?;
    let cache = program.create_cache();
    Ok(Box::new((program, cache)))
}

/// A program for a pattern of which every character of a text decides how it goes on: so there is one way to match.
fn only_one_way(pattern: &str) -> EvalResult<Box<(onepass::DFA, onepass::Cache)>> {
    let (program_bytes_max, _) = ALL_MATCHES;
    let config = onepass::DFA::config()
        .match_kind(MatchKind::All)
        .size_limit(Some(program_bytes_max));
    let program = onepass::DFA::builder()
        .syntax(read_as_written())
        .thompson(program_limits())
        .configure(config)
        .build(pattern)
        .map_err(|_| unknown_groups())?;
    let cache = program.create_cache();
    Ok(Box::new((program, cache)))
}

/// Compiled patterns of one call.
#[derive(Default)]
pub(crate) struct Patterns(Vec<Compiled>);

impl Patterns {
    /// The pattern, ready to run over `text`.
    pub(crate) fn get(
        &mut self,
        text: &str,
        pattern: &str,
        flags: &str,
    ) -> EvalResult<&mut Compiled> {
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
        match self.0.last_mut() {
            Some(compiled) if text.len() <= compiled.text_bytes_max => Ok(compiled),
            _ => Err(too_complex()),
        }
    }
}

fn compile(pattern: &str, flags: &str) -> EvalResult<Compiled> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(too_complex());
    }
    budget::reserve(pattern.len().saturating_mul(BYTES_PER_PATTERN_BYTE))?;
    let translated = translate(pattern, flags)?;
    let mut builder = RegexBuilder::new(&translated.text);
    builder.nest_limit(WRITTEN_DEPTH_MAX);
    // Each attempt reads the whole pattern, which nobody can cancel: none is made that cannot succeed.
    let bytes_min = translated.states.saturating_mul(BYTES_PER_STATE);
    let programs = PROGRAMS
        .into_iter()
        .filter(|(bytes_max, _)| bytes_min <= *bytes_max);
    for (bytes_max, text_bytes_max) in programs {
        budget::check()?;
        match builder.size_limit(bytes_max).build() {
            Ok(regex) => {
                return Ok(Compiled {
                    pattern: pattern.to_owned(),
                    flags: flags.to_owned(),
                    translated,
                    regex,
                    text_bytes_max,
                    ends: None,
                    unique: None,
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

/// The matches of a pattern in a text from a byte on: PostgreSQL's, which may begin where the one before has ended, also if they are empty.
fn each_match<T>(
    text: &str,
    from: usize,
    mut find: impl FnMut(usize) -> EvalResult<Option<T>>,
    mut visit: impl FnMut(&T) -> EvalResult<Range<usize>>,
) -> EvalResult<()> {
    let mut from = from;
    while from <= text.len() {
        budget::check()?;
        let Some(found) = find(from)? else {
            return Ok(());
        };
        let place = visit(&found)?;
        from = place.end;
        if place.is_empty() {
            let next = text.get(from..).and_then(|rest| rest.chars().next());
            from += next.map_or(1, char::len_utf8);
        }
    }
    Ok(())
}

/// The first group of the first match, or all of it if there are no groups.
pub(crate) fn first_group(pattern: &mut Compiled, text: &str) -> EvalResult<Option<String>> {
    let index = usize::from(pattern.translated.groups > 0);
    let found = pattern.find_groups(text, 0)?;
    Ok(found.and_then(|found| found.group(index, text).map(str::to_owned)))
}

/// The groups of the first match, or all of it if there are none.
pub(crate) fn first_match(pattern: &mut Compiled, text: &str) -> EvalResult<Option<TextList>> {
    let first = usize::from(pattern.translated.groups > 0);
    let found = pattern.find_groups(text, 0)?;
    Ok(found.map(|found| {
        let groups = first..found.groups.len();
        groups
            .map(|index| found.group(index, text).map(str::to_owned))
            .collect()
    }))
}

/// Parts of a text between matches. An empty match at the ends or next to a match splits nothing.
pub(crate) fn split(pattern: &mut Compiled, text: &str) -> EvalResult<TextList> {
    let mut growth = Growth::default();
    let mut parts = Vec::new();
    let (mut start, mut last) = (0, 0);
    each_match(
        text,
        0,
        |from| pattern.find(text, from),
        |found: &Range<usize>| {
            if found.start < text.len() && found.end > last {
                growth.add(found.start - start + ITEM_BYTES)?;
                parts.push(text.get(start..found.start).map(str::to_owned));
                start = found.end;
            }
            last = found.end;
            Ok(found.clone())
        },
    )?;
    parts.push(text.get(start..).map(str::to_owned));
    Ok(parts)
}

/// Whether a replacement asks for what a group matches.
fn asks_for_groups(new: &str) -> bool {
    let mut letters = new.chars();
    while let Some(letter) = letters.next() {
        if letter == '\\' && matches!(letters.next(), Some('1'..='9')) {
            return true;
        }
    }
    false
}

/// Which of the matches are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// The one with this number, from 1.
    Nth(usize),
}

/// `text` with `new` for matches, which are looked for and counted from a byte on; `\1` … `\9` and `\&` in the replacement stand for groups.
pub(crate) fn replace(
    pattern: &mut Compiled,
    text: &str,
    new: &str,
    from: usize,
    which: Which,
) -> EvalResult<String> {
    let mut result = String::new();
    let mut growth = Growth::default();
    let mut copied = 0;
    let with_groups = asks_for_groups(new);
    let seen = Cell::new(0_usize);
    let is_meant = |number: usize| which == Which::All || which == Which::Nth(number);
    each_match(
        text,
        from,
        |from| {
            if let Which::Nth(last) = which
                && seen.get() >= last
            {
                return Ok(None);
            }
            seen.set(seen.get() + 1);
            if with_groups && is_meant(seen.get()) {
                pattern.find_groups(text, from)
            } else {
                pattern.find_whole(text, from)
            }
        },
        |found: &Found| {
            let whole = found.whole()?;
            if !is_meant(seen.get()) {
                return Ok(whole);
            }
            let before = text.get(copied..whole.start).unwrap_or_default();
            growth.add(before.len() + new.len())?;
            value_fits(result.len() + before.len() + new.len())?;
            result.push_str(before);
            expand(found, text, new, &mut result)?;
            copied = whole.end;
            Ok(whole)
        },
    )?;
    result.push_str(text.get(copied..).unwrap_or_default());
    Ok(result)
}

/// How many matches there are from a byte on.
pub(crate) fn count(pattern: &mut Compiled, text: &str, from: usize) -> EvalResult<usize> {
    let mut count = 0;
    each_match(
        text,
        from,
        |from| pattern.find(text, from),
        |found: &Range<usize>| {
            count += 1;
            Ok(found.clone())
        },
    )?;
    Ok(count)
}

/// Where a group of the match with a number is, counted from 1 and from a byte on; group 0 is the whole. `None` if there are fewer matches or groups, or if the group
/// has no part in that match.
pub(crate) fn nth_match(
    pattern: &mut Compiled,
    text: &str,
    from: usize,
    nth: usize,
    group: usize,
) -> EvalResult<Option<Range<usize>>> {
    if group > pattern.translated.groups {
        return Ok(None);
    }
    let seen = Cell::new(0_usize);
    let mut place = None;
    each_match(
        text,
        from,
        |from| {
            if seen.get() >= nth {
                return Ok(None);
            }
            seen.set(seen.get() + 1);
            if group > 0 && seen.get() == nth {
                pattern.find_groups(text, from)
            } else {
                pattern.find_whole(text, from)
            }
        },
        |found: &Found| {
            if seen.get() == nth {
                place = found.groups.get(group).cloned().flatten();
            }
            found.whole()
        },
    )?;
    Ok(place)
}

/// Of each match, or of the first: its groups, or all of it if there are none.
pub(crate) fn matches(
    pattern: &mut Compiled,
    text: &str,
    which: Which,
) -> EvalResult<Vec<TextList>> {
    let first = usize::from(pattern.translated.groups > 0);
    let mut growth = Growth::default();
    let mut lists: Vec<TextList> = Vec::new();
    let seen = Cell::new(0_usize);
    each_match(
        text,
        0,
        |from| {
            if which == Which::Nth(seen.get()) {
                return Ok(None);
            }
            seen.set(seen.get() + 1);
            pattern.find_groups(text, from)
        },
        |found: &Found| {
            let groups = first..found.groups.len();
            let mut list = Vec::with_capacity(groups.len());
            for index in groups {
                let group = found.group(index, text);
                growth.add(group.map_or(0, str::len) + ITEM_BYTES)?;
                list.push(group.map(str::to_owned));
            }
            lists.push(list);
            found.whole()
        },
    )?;
    Ok(lists)
}

fn expand(found: &Found, text: &str, new: &str, result: &mut String) -> EvalResult<()> {
    let mut letters = new.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            result.push(letter);
            continue;
        }
        let group = match letters.next() {
            Some('&') => found.group(0, text),
            Some(digit @ '1'..='9') => digit
                .to_digit(10)
                .and_then(|digit| usize::try_from(digit).ok())
                .and_then(|digit| found.group(digit, text)),
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
            result.push_str(group);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compiled(pattern: &str) -> Compiled {
        compile(pattern, "").unwrap()
    }

    fn groups(pattern: &str, text: &str) -> Vec<String> {
        let found = first_match(&mut compiled(pattern), text).unwrap().unwrap();
        found
            .into_iter()
            .map(|group| group.unwrap_or_else(|| "∅".to_owned()))
            .collect()
    }

    #[test]
    fn the_match_is_the_longest_or_the_shortest() {
        assert_eq!(groups("foo|foobar", "foobar"), ["foobar"]);
        assert_eq!(groups("a?(?:ab)?", "ab"), ["ab"]);
        assert_eq!(groups("x*(?:xy)?", "xxy"), ["xxy"]);
        assert_eq!(groups("Y*[0-9]{1,3}", "XY1234Z"), ["Y123"]);
        assert_eq!(groups("Y*?[0-9]{1,3}", "XY1234Z"), ["Y1"]);
        assert_eq!(groups("(?:ab|cd).*?x", "abxx"), ["abxx"]);
    }

    #[test]
    fn groups_are_postgresqls_or_an_error() {
        assert_eq!(groups("Y*([0-9]{1,3})", "XY1234Z"), ["123"]);
        assert_eq!(groups("Y*?([0-9]{1,3})", "XY1234Z"), ["1"]);
        assert_eq!(groups("(.*)-(.*)", "a-b-c"), ["a-b", "c"]);
        assert_eq!(groups("^(\\d+)(\\.\\d+)?$", "12"), ["12", "∅"]);
        assert_eq!(groups("(foo|foobar)(.*)", "foobarx"), ["foobar", "x"]);
        let error = first_match(&mut compiled("(a|ab)(c|bcd)(d*)"), "abcd").unwrap_err();
        assert_eq!(error.kind, EvalErrorKind::NotSupported);
        let error = first_match(&mut compiled("((a)|b)*"), "ab").unwrap_err();
        assert_eq!(error.kind, EvalErrorKind::NotSupported);
        assert!(compiled("(a|ab)(c|bcd)(d*)").is_match("abcd"));
    }

    #[test]
    fn matches_follow_each_other_as_in_postgresql() {
        let replaced =
            |pattern, text| replace(&mut compiled(pattern), text, "X", 0, Which::All).unwrap();
        assert_eq!(replaced("b*", "abc"), "XaXXcX");
        assert_eq!(replaced("a|ab", "ab ä ab"), "X ä X");
        let split = |pattern, text| split(&mut compiled(pattern), text).unwrap().len();
        assert_eq!(split("", "abc"), 3);
        assert_eq!(split(",|, ", "a, b,c"), 3);
    }

    #[test]
    fn matches_are_counted_from_a_place_on() {
        assert_eq!(count(&mut compiled("a"), "aaa", 1).unwrap(), 2);
        assert_eq!(count(&mut compiled(""), "abc", 3).unwrap(), 1);
        assert_eq!(count(&mut compiled("^a"), "aaa", 1).unwrap(), 0);
        let nth = |pattern, nth, group| {
            nth_match(&mut compiled(pattern), "abcabc", 0, nth, group).unwrap()
        };
        assert_eq!(nth("b", 2, 0), Some(4..5));
        assert_eq!(nth("b(c)", 2, 1), Some(5..6));
        assert_eq!(nth("b(c)", 3, 1), None);
        assert_eq!(nth("b(c)", 1, 2), None);
        let replaced = |which| replace(&mut compiled("b"), "abcabc", "X", 0, which).unwrap();
        assert_eq!(replaced(Which::Nth(2)), "abcaXc");
        assert_eq!(replaced(Which::Nth(3)), "abcabc");
        let all = matches(&mut compiled("(a)(b)?"), "abac", Which::All).unwrap();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(all, [vec![text("a"), text("b")], vec![text("a"), None]]);
    }

    #[test]
    fn borders_of_words_are_y_and_not_b() {
        assert!(compiled("\\yfoo\\y").is_match("a foo b"));
        assert!(!compiled("\\bfoo\\b").is_match("a foo b"));
        assert!(compiled("^[a&&b]$").is_match("&"));
        assert!(compiled("[[:<:]]foo[[:>:]]").is_match("a foo b"));
    }

    /// A pattern of groups, alternatives, quantifiers and atoms.
    fn any_pattern() -> impl Strategy<Value = String> {
        let atom = prop::sample::select(vec![
            "a",
            "ab",
            "\u{e4}",
            ".",
            "[a-c]",
            "[^\\s\\S]",
            "\\d",
            "()",
            "(?:)",
            "^",
            "\\y",
            "",
        ]);
        let quantifiers = vec![
            "*", "+", "?", "*?", "{0}", "{1}", "{3}", "{0,2}", "{2,}", "{1,3}?",
        ];
        atom.prop_map(str::to_owned)
            .prop_recursive(5, 40, 4, move |inner| {
                let quantified = (inner.clone(), prop::sample::select(quantifiers.clone()));
                prop_oneof![
                    prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
                    prop::collection::vec(inner.clone(), 2..4)
                        .prop_map(|parts| format!("(?:{})", parts.join("|"))),
                    inner.prop_map(|part| format!("({part})")),
                    quantified.prop_map(|(part, quantifier)| format!("(?:{part}){quantifier}")),
                ]
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
        #[test]
        fn a_program_has_at_least_the_states_that_are_expected(pattern in any_pattern()) {
            // Often, so that what every program has beside them is little.
            let Ok(translated) = translate(&format!("(?:{pattern})").repeat(50), "") else {
                return Ok(());
            };
            let bytes_min = translated.states * BYTES_PER_STATE;
            prop_assume!(bytes_min > 0);
            let smaller = thompson::Config::new()
                .which_captures(WhichCaptures::All)
                .nfa_size_limit(Some(bytes_min - 1));
            let built = thompson::Compiler::new()
                .syntax(read_as_written())
                .configure(smaller)
                .build(&translated.text);
            let too_small = built.is_err_and(|error| error.size_limit().is_some());
            prop_assert!(too_small, "{pattern} has not {} states", translated.states);
        }
    }

    #[test]
    fn what_cannot_become_a_program_is_not_tried() {
        let many = "(a*)*".repeat(100_000);
        let states = translate(&many, "").unwrap().states;
        assert_eq!(states, 500_000);
        let (largest, _) = PROGRAMS[PROGRAMS.len() - 1];
        assert!(states * BYTES_PER_STATE > largest);
        assert_eq!(compile(&many, "").err(), Some(too_complex()));
    }

    #[test]
    fn classes_are_those_of_a_locale() {
        let is_in = |text: &str, class: &str| compiled(&format!("^{class}$")).is_match(text);
        for (text, class) in [
            ("\u{e4}", "[[:alpha:]]"),
            ("\u{663}", "[[:alpha:]]"),
            ("\u{663}", "\\w"),
            ("\u{1c5}", "[[:upper:]]"),
            ("\u{1c5}", "[[:lower:]]"),
            ("\u{a0}", "[[:punct:]]"),
            ("\u{b2}", "[[:punct:]]"),
            ("\u{2003}", "[[:print:]]"),
            ("\u{2003}", "\\s"),
            ("\u{85}", "[[:cntrl:]]"),
        ] {
            assert!(is_in(text, class), "{text:?} {class}");
        }
        for (text, class) in [
            ("\u{663}", "\\d"),
            ("1", "[[:alpha:]]"),
            ("\u{a0}", "\\s"),
            ("\u{301}", "\\w"),
            ("\u{203f}", "\\w"),
            ("\u{b2}", "[[:alnum:]]"),
            ("\u{2003}", "[[:graph:]]"),
            ("\u{2028}", "[[:cntrl:]]"),
            ("\u{378}", "[[:graph:]]"),
        ] {
            assert!(!is_in(text, class), "{text:?} {class}");
        }
    }
}
