//! JSON text, token by token, without making anything of it.
//!
//! Must not know columns. Called by [`super::members`].
//!
//! What it takes is what `jsonb` takes: RFC 8259 to the letter, no `\u0000`, no deeper and no longer numbers. What it does not take it declines without
//! saying why: whoever calls it reads the message again as a document, which does.
//!
//! Invariants. Positions are between characters. What is skipped is checked as strictly as what is read. Nothing allocates, beside strings with escapes that
//! outgrow the scratch they are given.

use flowstone_types::TypeError;
use flowstone_types::jsonb::{self, DEPTH_MAX};

use crate::error::Fault;

/// The message is not one to be read this way: it is no JSON, a value is none of its column, or it is of a rare shape.
#[derive(Debug)]
pub(super) struct Declined;

impl From<Fault> for Declined {
    fn from(_: Fault) -> Self {
        Self
    }
}

impl From<TypeError> for Declined {
    fn from(_: TypeError) -> Self {
        Self
    }
}

/// What is around the entries of an object.
pub(super) const OBJECT: [u8; 2] = *b"{}";
/// What is around the items of an array.
pub(super) const ARRAY: [u8; 2] = *b"[]";

/// Bytes of a number without an exponent that is within the limits whatever its digits: `jsonb` keeps 16383 of them after the point.
const PLAIN_BYTES_MAX: usize = 16_000;
/// Bytes of a number with an exponent of [`EXPONENT_DIGITS_MAX`] digits that is.
const SCIENTIFIC_BYTES_MAX: usize = 10_000;
const EXPONENT_DIGITS_MAX: usize = 3;
/// Digits that always fit an `i64`.
const INTEGER_DIGITS_MAX: usize = 18;

/// A number as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    /// All of it.
    pub(super) text: &'a str,
    /// Its value, if it is written as a short integer: without a point or an exponent.
    pub(super) integer: Option<i64>,
    /// Digits of the exponent; 0 if there is none.
    pub(super) exponent_digits: usize,
}

/// Where a message is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    pub(super) const fn position(&self) -> usize {
        self.position
    }

    /// What was read since a position.
    pub(super) fn since(&self, position: usize) -> &'a str {
        self.text.get(position..self.position).unwrap_or_default()
    }

    fn rest(&self) -> &'a [u8] {
        self.text
            .as_bytes()
            .get(self.position..)
            .unwrap_or_default()
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    /// Takes these characters, if they are next.
    pub(super) fn take_all(&mut self, characters: &str) -> bool {
        let found = self.rest().starts_with(characters.as_bytes());
        if found {
            self.position += characters.len();
        }
        found
    }

    pub(super) fn word(&mut self, word: &str) -> Result<(), Declined> {
        if self.take_all(word) {
            Ok(())
        } else {
            Err(Declined)
        }
    }

    #[inline]
    pub(super) fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.position += 1;
        }
    }

    /// Declines what comes after the end.
    pub(super) fn finish(&mut self) -> Result<(), Declined> {
        self.skip_space();
        if self.position == self.text.len() {
            Ok(())
        } else {
            Err(Declined)
        }
    }

    /// Goes into a container that is inside `depth` others. Whether there is something in it.
    pub(super) fn begin(&mut self, [open, close]: [u8; 2], depth: usize) -> Result<bool, Declined> {
        if depth >= DEPTH_MAX || !self.take(open) {
            return Err(Declined);
        }
        self.skip_space();
        Ok(!self.take(close))
    }

    /// Goes on in a container after an item or entry. Whether there is another.
    pub(super) fn more(&mut self, [_, close]: [u8; 2]) -> Result<bool, Declined> {
        self.skip_space();
        if self.take(close) {
            return Ok(false);
        }
        if !self.take(b',') {
            return Err(Declined);
        }
        self.skip_space();
        Ok(true)
    }

    /// Reads a key and goes to its value.
    pub(super) fn key<'s>(&mut self, scratch: &'s mut String) -> Result<&'s str, Declined>
    where
        'a: 's,
    {
        let key = self.string(scratch)?;
        self.colon()?;
        Ok(key)
    }

    fn colon(&mut self) -> Result<(), Declined> {
        self.skip_space();
        if !self.take(b':') {
            return Err(Declined);
        }
        self.skip_space();
        Ok(())
    }

    /// Reads a string: as it stands, or in `scratch` if there are escapes in it.
    pub(super) fn string<'s>(&mut self, scratch: &'s mut String) -> Result<&'s str, Declined>
    where
        'a: 's,
    {
        if !self.take(b'"') {
            return Err(Declined);
        }
        let start = self.position;
        self.plain()?;
        let plain = self.since(start);
        if self.take(b'"') {
            return Ok(plain);
        }
        scratch.clear();
        scratch.push_str(plain);
        while !self.take(b'"') {
            if self.take(b'\\') {
                scratch.push(self.escape()?);
            } else {
                let from = self.position;
                self.plain()?;
                scratch.push_str(self.since(from));
            }
        }
        Ok(scratch.as_str())
    }

    fn skip_string(&mut self) -> Result<(), Declined> {
        if !self.take(b'"') {
            return Err(Declined);
        }
        loop {
            self.plain()?;
            if self.take(b'"') {
                return Ok(());
            }
            // What is not a quote is a backslash.
            self.position += 1;
            self.escape()?;
        }
    }

    /// Goes to the next quote or backslash. Control characters must be escaped.
    #[inline]
    fn plain(&mut self) -> Result<(), Declined> {
        self.position += plain_len(self.rest()).ok_or(Declined)?;
        match self.peek() {
            Some(b'"' | b'\\') => Ok(()),
            _ => Err(Declined),
        }
    }

    /// The character of an escape after its backslash.
    fn escape(&mut self) -> Result<char, Declined> {
        let letter = self.peek().ok_or(Declined)?;
        // The backslash was ASCII, so this is the start of a character; only an ASCII one is gone over.
        let plain = match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.position += 1;
                return self.unicode();
            }
            _ => return Err(Declined),
        };
        self.position += 1;
        Ok(plain)
    }

    /// The character of `\uXXXX` after the `u`, or of a pair of them.
    fn unicode(&mut self) -> Result<char, Declined> {
        let unit = self.hex()?;
        if !(0xd800..0xdc00).contains(&unit) {
            // A zero character has no place in SQL's text, nor has the second half of a pair.
            return char::from_u32(unit)
                .filter(|character| *character != '\0')
                .ok_or(Declined);
        }
        self.word("\\u")?;
        let low = self.hex()?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(Declined);
        }
        char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)).ok_or(Declined)
    }

    fn hex(&mut self) -> Result<u32, Declined> {
        let mut unit = 0;
        for digit in self.rest().first_chunk::<4>().ok_or(Declined)? {
            unit = unit * 16 + char::from(*digit).to_digit(16).ok_or(Declined)?;
        }
        self.position += 4;
        Ok(unit)
    }

    /// Reads a number. That it is within the limits of `jsonb` is not checked: see [`Number::is_within_limits`].
    pub(super) fn number(&mut self) -> Result<Number<'a>, Declined> {
        let rest = self.rest();
        let negative = rest.first() == Some(&b'-');
        let start = usize::from(negative);
        let mut end = start;
        let mut magnitude = 0_i64;
        while let Some(&digit @ b'0'..=b'9') = rest.get(end) {
            magnitude = magnitude
                .wrapping_mul(10)
                .wrapping_add(i64::from(digit - b'0'));
            end += 1;
        }
        let whole_digits = end - start;
        if whole_digits == 0 || (whole_digits > 1 && rest.get(start) == Some(&b'0')) {
            return Err(Declined);
        }
        let whole_end = end;
        if rest.get(end) == Some(&b'.') {
            end += 1 + some_digits(rest, end + 1)?;
        }
        let mut exponent_digits = 0;
        if matches!(rest.get(end), Some(b'e' | b'E')) {
            end += 1;
            end += usize::from(matches!(rest.get(end), Some(b'+' | b'-')));
            exponent_digits = some_digits(rest, end)?;
            end += exponent_digits;
        }
        let is_integer = end == whole_end && whole_digits <= INTEGER_DIGITS_MAX;
        let from = self.position;
        self.position += end;
        Ok(Number {
            text: self.since(from),
            integer: is_integer.then_some(if negative {
                magnitude.wrapping_neg()
            } else {
                magnitude
            }),
            exponent_digits,
        })
    }

    /// Goes past a value that is inside `depth` containers.
    pub(super) fn skip_value(&mut self, depth: usize) -> Result<(), Declined> {
        match self.peek().ok_or(Declined)? {
            b'"' => self.skip_string(),
            b'{' => {
                let mut more = self.begin(OBJECT, depth)?;
                while more {
                    self.skip_string()?;
                    self.colon()?;
                    self.skip_value(depth + 1)?;
                    more = self.more(OBJECT)?;
                }
                Ok(())
            }
            b'[' => {
                let mut more = self.begin(ARRAY, depth)?;
                while more {
                    self.skip_value(depth + 1)?;
                    more = self.more(ARRAY)?;
                }
                Ok(())
            }
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => {
                if self.number()?.is_within_limits() {
                    Ok(())
                } else {
                    Err(Declined)
                }
            }
        }
    }
}

impl Number<'_> {
    /// Whether `jsonb` takes the number.
    fn is_within_limits(&self) -> bool {
        let bytes_max = if self.exponent_digits == 0 {
            PLAIN_BYTES_MAX
        } else {
            SCIENTIFIC_BYTES_MAX
        };
        (self.text.len() <= bytes_max && self.exponent_digits <= EXPONENT_DIGITS_MAX)
            || jsonb::parse(self.text).is_ok()
    }
}

/// How many digits there are from a place on; at least one.
fn some_digits(bytes: &[u8], from: usize) -> Result<usize, Declined> {
    let digits = bytes
        .get(from..)
        .unwrap_or_default()
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if digits == 0 {
        return Err(Declined);
    }
    Ok(digits)
}

/// Bytes before the first quote, backslash or control character; `None` if there is none.
#[inline]
fn plain_len(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let mut len = 0;
    while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
        let found = special_bytes(u64::from_le_bytes(*chunk));
        if found != 0 {
            return Some(len + usize::try_from(found.trailing_zeros() / 8).unwrap_or(0));
        }
        len += chunk.len();
        rest = after;
    }
    rest.iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))
        .map(|position| len + position)
}

/// Has the high bit of the lowest byte set that is a quote, a backslash or a control character; bits above that one may be set for nothing.
///
/// Source: "Determine if a word has a byte less than n", Bit Twiddling Hacks. Borrows go upwards, from such bytes only.
const fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let quote = word ^ (ONES * 0x22);
    let backslash = word ^ (ONES * 0x5c);
    let below_quote = quote.wrapping_sub(ONES) & !quote;
    let below_backslash = backslash.wrapping_sub(ONES) & !backslash;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (below_quote | below_backslash | control) & HIGHS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_that_ends_anywhere_is_declined() {
        let text = r#"{"a\u00e9":[1.5e-3,"x\\",{}],"b":null}"#;
        Lexer::new(text).skip_value(0).unwrap();
        for end in 0..text.len() {
            Lexer::new(&text[..end]).skip_value(0).unwrap_err();
        }
    }

    #[test]
    fn containers_are_as_deep_as_documents() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for (depth, taken) in [(DEPTH_MAX, true), (DEPTH_MAX + 1, false)] {
            let text = nested(depth);
            assert_eq!(Lexer::new(&text).skip_value(0).is_ok(), taken);
            assert_eq!(jsonb::parse(&text).is_ok(), taken);
        }
    }

    proptest! {
        #[test]
        fn the_end_of_plain_text_is_found(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x1e_u8..0x24, 0x5b_u8..0x5e, Just(b'a')], 0..40)) {
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            prop_assert_eq!(plain_len(&bytes), bytes.iter().position(special));
        }

        #[test]
        fn what_is_skipped_is_what_a_document_is(text in "[\\[\\]{}:,\"\\\\0-9eE.+ utrfalsn-]{0,30}") {
            let mut lexer = Lexer::new(&text);
            lexer.skip_space();
            let skipped = lexer.skip_value(0).and_then(|()| lexer.finish());
            prop_assert_eq!(skipped.is_ok(), jsonb::parse(&text).is_ok());
        }

        #[test]
        fn numbers_are_within_the_limits_of_documents(mantissa in "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,5})?", exponent in "([eE][+-]?[0-9]{1,7})?", zeros in 0_usize..3) {
            let text = mantissa + &"0".repeat(zeros * 9_000) + &exponent;
            let skipped = Lexer::new(&text).skip_value(0);
            prop_assert_eq!(skipped.is_ok(), jsonb::parse(&text).is_ok());
        }
    }
}
