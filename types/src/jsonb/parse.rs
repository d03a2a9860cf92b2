//! JSON text to canonical form. Strict RFC 8259; numbers are taken digit by digit, never through a float.

use super::{DEPTH_MAX, JsonbBuf, JsonbBuilder};
use crate::TypeError;

struct Parser<'a> {
    text: &'a str,
    position: usize,
    builder: JsonbBuilder,
    /// Reused for strings with escapes.
    scratch: String,
}

pub(super) fn parse(text: &str) -> Result<JsonbBuf, TypeError> {
    let mut parser = Parser {
        text,
        position: 0,
        builder: JsonbBuilder::new(),
        scratch: String::new(),
    };
    let done = parser.value(0).and_then(|()| {
        parser.skip_space();
        (parser.position == text.len()).then_some(())
    });
    // A failure of the builder explains why parsing stopped.
    if done.is_none() && !parser.builder.failed() {
        return Err(invalid(text));
    }
    parser.builder.finish()
}

fn invalid(text: &str) -> TypeError {
    TypeError::InvalidText {
        type_name: "json".to_owned(),
        text: text.to_owned(),
    }
}

/// Length of the JSON number at the start of `bytes`.
fn number_len(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        bytes
            .get(from..)
            .unwrap_or_default()
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let mut end = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(end);
    if whole == 0 || (whole > 1 && bytes.get(end) == Some(&b'0')) {
        return None;
    }
    end += whole;
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if fraction == 0 {
            return None;
        }
        end += 1 + fraction;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent == 0 {
            return None;
        }
        end += 1 + sign + exponent;
    }
    Some(end)
}

/// Whether all of `text` is a JSON number.
pub(super) fn is_number(text: &str) -> bool {
    number_len(text.as_bytes()) == Some(text.len())
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text
            .as_bytes()
            .get(self.position..)
            .unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn skip_space(&mut self) {
        let spaces = self
            .rest()
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.position += spaces.count();
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.rest()
            .starts_with(word.as_bytes())
            .then(|| self.position += word.len())
    }

    /// Reads one value. `None`: a syntax error, or the builder has failed.
    fn value(&mut self, depth: usize) -> Option<()> {
        self.skip_space();
        match self.peek()? {
            b'{' => {
                self.position += 1;
                self.object(depth)
            }
            b'[' => {
                self.position += 1;
                self.array(depth)
            }
            b'"' => {
                self.position += 1;
                self.string(false)
            }
            b't' => {
                self.word("true")?;
                self.builder.bool(true);
                Some(())
            }
            b'f' => {
                self.word("false")?;
                self.builder.bool(false);
                Some(())
            }
            b'n' => {
                self.word("null")?;
                self.builder.null();
                Some(())
            }
            _ => {
                let start = self.position;
                self.position += number_len(self.rest())?;
                self.builder.number(self.text.get(start..self.position)?);
                (!self.builder.failed()).then_some(())
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.builder.begin_array();
        if depth >= DEPTH_MAX {
            return None;
        }
        self.skip_space();
        if !self.take(b']') {
            loop {
                self.value(depth + 1)?;
                self.skip_space();
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return None;
                }
            }
        }
        self.builder.end();
        Some(())
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.builder.begin_object();
        if depth >= DEPTH_MAX {
            return None;
        }
        self.skip_space();
        if !self.take(b'}') {
            loop {
                self.skip_space();
                if !self.take(b'"') {
                    return None;
                }
                self.string(true)?;
                self.skip_space();
                if !self.take(b':') {
                    return None;
                }
                self.value(depth + 1)?;
                self.skip_space();
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return None;
                }
            }
        }
        self.builder.end();
        Some(())
    }

    /// Reads a string after its opening quote, as a key or as a value.
    fn string(&mut self, as_key: bool) -> Option<()> {
        let start = self.position;
        let plain = self.plain_len()?;
        self.position += plain;
        let text = self.text;
        if self.take(b'"') {
            let value = text.get(start..start + plain)?;
            if as_key {
                self.builder.key(value);
            } else {
                self.builder.string(value);
            }
            return Some(());
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.push_str(text.get(start..start + plain)?);
        while !self.take(b'"') {
            if self.take(b'\\') {
                scratch.push(self.escape()?);
            } else {
                let from = self.position;
                self.position += self.plain_len()?;
                scratch.push_str(text.get(from..self.position)?);
            }
        }
        if as_key {
            self.builder.key(&scratch);
        } else {
            self.builder.string(&scratch);
        }
        self.scratch = scratch;
        (!self.builder.failed()).then_some(())
    }

    /// Length of what can be taken as it is: up to a quote or a backslash. Control characters must be escaped.
    fn plain_len(&self) -> Option<usize> {
        let rest = self.rest();
        let len = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
        matches!(rest.get(len), Some(b'"' | b'\\')).then_some(len)
    }

    fn escape(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.position += 1;
        Some(match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex()?;
                if (0xd800..0xdc00).contains(&unit) {
                    self.word("\\u")?;
                    let low = self.hex()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return None;
                    }
                    char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00))?
                } else {
                    char::from_u32(unit)?
                }
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.rest().get(..4)?;
        let mut unit = 0;
        for digit in digits {
            unit = unit * 16 + char::from(*digit).to_digit(16)?;
        }
        self.position += 4;
        Some(unit)
    }
}
