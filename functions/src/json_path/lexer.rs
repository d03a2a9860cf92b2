//! Words of paths.
//!
//! Owns where a word ends, and what escapes stand for. Must not know which word may follow another.

use flowstone_types::{EvalError, EvalErrorKind};

use super::syntax_error;
use crate::errors::EvalResult;

/// A word that means something where a path expects it. Everywhere it can be the key of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Abs,
    Ceiling,
    Datetime,
    Double,
    Exists,
    False,
    Flag,
    Floor,
    Is,
    KeyValue,
    Last,
    Lax,
    LikeRegex,
    Null,
    Size,
    Starts,
    Strict,
    To,
    True,
    Type,
    Unknown,
    With,
}

/// The keywords; those of JSON must be written in small letters.
const KEYWORDS: [(&str, Keyword, bool); 22] = [
    ("abs", Keyword::Abs, false),
    ("ceiling", Keyword::Ceiling, false),
    ("datetime", Keyword::Datetime, false),
    ("double", Keyword::Double, false),
    ("exists", Keyword::Exists, false),
    ("false", Keyword::False, true),
    ("flag", Keyword::Flag, false),
    ("floor", Keyword::Floor, false),
    ("is", Keyword::Is, false),
    ("keyvalue", Keyword::KeyValue, false),
    ("last", Keyword::Last, false),
    ("lax", Keyword::Lax, false),
    ("like_regex", Keyword::LikeRegex, false),
    ("null", Keyword::Null, true),
    ("size", Keyword::Size, false),
    ("starts", Keyword::Starts, false),
    ("strict", Keyword::Strict, false),
    ("to", Keyword::To, false),
    ("true", Keyword::True, true),
    ("type", Keyword::Type, false),
    ("unknown", Keyword::Unknown, false),
    ("with", Keyword::With, false),
];

fn keyword(word: &str) -> Option<Keyword> {
    KEYWORDS
        .iter()
        .find(|(name, _, in_small_letters)| {
            *name == word || !in_small_letters && name.eq_ignore_ascii_case(word)
        })
        .map(|(_, keyword, _)| *keyword)
}

/// A word of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String, Option<Keyword>),
    String(String),
    Variable(String),
    /// A number of digits alone, and any other one.
    Integer(String),
    Decimal(String),
    /// An operator or a mark.
    Symbol(&'static str),
    End,
}

/// A token, and what an error calls it; `None` at the end of the text.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) near: Option<String>,
}

/// Longer ones first.
const SYMBOLS: [&str; 32] = [
    "**", "&&", "||", "==", "!=", "<>", "<=", ">=", "!", "<", ">", "?", "%", "$", ".", "[", "]",
    "{", "}", "(", ")", "|", "&", "=", "@", "#", ",", "*", ":", "-", "+", "/",
];

/// What ends a word without quotes.
const SPECIAL: &str = "?%$.[]{}()|&!=<>@#,*:-+/\"";

fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

fn is_special(letter: char) -> bool {
    SPECIAL.contains(letter)
}

/// Whether a letter goes on with a word.
fn is_of_word(letter: char) -> bool {
    !is_blank(letter) && !is_special(letter) && letter != '\\'
}

/// `message at or near "near" of jsonpath input`
pub(super) fn error_near(message: &str, near: Option<&str>) -> EvalError {
    syntax_error(match near {
        Some(near) => format!("{message} at or near \"{near}\" of jsonpath input"),
        None => format!("{message} at end of jsonpath input"),
    })
}

/// Reads a text word by word.
#[derive(Debug)]
pub(super) struct Lexer<'t> {
    rest: &'t str,
}

impl<'t> Lexer<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self { rest: text }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let mut letters = self.rest.chars();
        let letter = letters.next();
        self.rest = letters.as_str();
        letter
    }

    fn take_while(&mut self, accepts: impl Fn(char) -> bool) -> &'t str {
        let end = self
            .rest
            .find(|letter| !accepts(letter))
            .unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip_blanks(&mut self) -> EvalResult<()> {
        loop {
            self.take_while(is_blank);
            let Some(comment) = self.rest.strip_prefix("/*") else {
                return Ok(());
            };
            match comment.split_once("*/") {
                Some((_, rest)) => self.rest = rest,
                None => return Err(error_near("unexpected end of comment", None)),
            }
        }
    }

    /// The next word.
    ///
    /// # Errors
    /// [`EvalErrorKind::Syntax`]
    pub(super) fn next(&mut self) -> EvalResult<Placed> {
        self.skip_blanks()?;
        let start = self.rest;
        let near = |rest: &str| start.get(..start.len() - rest.len()).map(str::to_owned);
        let Some(first) = self.peek() else {
            return Ok(Placed {
                token: Token::End,
                near: None,
            });
        };
        let point_before_digit = || {
            start
                .strip_prefix('.')
                .is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()))
        };
        if first.is_ascii_digit() || point_before_digit() {
            let token = self.number(start)?;
            return Ok(Placed {
                token,
                near: near(self.rest),
            });
        }
        if first == '"' {
            self.bump();
            return Ok(Placed {
                token: Token::String(self.quoted()?),
                near: Some("\"".to_owned()),
            });
        }
        if let Some(named) = start.strip_prefix('$') {
            if let Some(quoted) = named.strip_prefix('"') {
                self.rest = quoted;
                return Ok(Placed {
                    token: Token::Variable(self.quoted()?),
                    near: Some("\"".to_owned()),
                });
            }
            if named.starts_with(|next| is_of_word(next) || next == '\\') {
                self.rest = named;
                let name = self.word()?;
                return Ok(Placed {
                    token: Token::Variable(name),
                    near: near(self.rest),
                });
            }
        }
        if is_of_word(first) || first == '\\' {
            let word = self.word()?;
            let keyword = keyword(&word);
            let blanks: String = self
                .rest
                .chars()
                .take_while(|next| is_blank(*next))
                .collect();
            return Ok(Placed {
                token: Token::Word(word, keyword),
                near: (!blanks.is_empty()).then_some(blanks),
            });
        }
        let symbol = SYMBOLS
            .iter()
            .find(|symbol| start.starts_with(**symbol))
            .ok_or_else(|| error_near("syntax error", Some(&first.to_string())))?;
        self.rest = start.get(symbol.len()..).unwrap_or_default();
        Ok(Placed {
            token: Token::Symbol(symbol),
            near: Some((*symbol).to_owned()),
        })
    }

    /// A number, which is as in ECMAScript; nothing that goes on with a word may stand behind it.
    fn number(&mut self, start: &str) -> EvalResult<Token> {
        let is_digit = |letter: char| letter.is_ascii_digit();
        let mut is_integer = true;
        // Zero is a number of its own at the beginning of others.
        if self.rest.starts_with('0') {
            self.bump();
        } else {
            self.take_while(is_digit);
        }
        if let Some(fraction) = self.rest.strip_prefix('.') {
            is_integer = false;
            self.rest = fraction;
            self.take_while(is_digit);
        }
        if let Some(exponent) = self.rest.strip_prefix(['e', 'E']) {
            let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if unsigned.starts_with(is_digit) {
                is_integer = false;
                self.rest = unsigned;
                self.take_while(is_digit);
            } else if unsigned.len() < exponent.len() {
                let end = start.len() - unsigned.len();
                return Err(error_near("invalid numeric literal", start.get(..end)));
            }
        }
        let text = start
            .get(..start.len() - self.rest.len())
            .unwrap_or_default();
        if let Some(junk) = self.peek().filter(|next| is_of_word(*next)) {
            let near = format!("{text}{junk}");
            return Err(error_near(
                "trailing junk after numeric literal",
                Some(&near),
            ));
        }
        Ok(if is_integer {
            Token::Integer(text.to_owned())
        } else {
            Token::Decimal(text.to_owned())
        })
    }

    fn word(&mut self) -> EvalResult<String> {
        let mut word = String::new();
        loop {
            word.push_str(self.take_while(is_of_word));
            if self.rest.starts_with("/*") || self.peek() != Some('\\') {
                return Ok(word);
            }
            self.bump();
            word.push(self.escape()?);
        }
    }

    /// The rest of a text in quotes.
    fn quoted(&mut self) -> EvalResult<String> {
        let mut text = String::new();
        loop {
            text.push_str(self.take_while(|letter| !matches!(letter, '"' | '\\')));
            match self.bump() {
                None => return Err(error_near("unexpected end of quoted string", None)),
                Some('"') => return Ok(text),
                Some(_) => text.push(self.escape()?),
            }
        }
    }

    /// What stands for a letter behind a backslash.
    fn escape(&mut self) -> EvalResult<char> {
        Ok(match self.bump() {
            None => return Err(error_near("unexpected end after backslash", Some("\\"))),
            Some('b') => '\x08',
            Some('f') => '\x0c',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\x0b',
            Some('x') => letter(self.hex(2)?)?,
            Some('u') => self.unicode()?,
            Some(other) => other,
        })
    }

    /// Hexadecimal digits.
    fn hex(&mut self, count: usize) -> EvalResult<u32> {
        let malformed = || match count {
            2 => error_near("invalid hex character sequence", Some("\\x")),
            _ => malformed_unicode(),
        };
        let digits = self.rest.get(..count).ok_or_else(malformed)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        self.rest = self.rest.get(count..).unwrap_or_default();
        u32::from_str_radix(digits, 16).map_err(|_| malformed())
    }

    fn unicode(&mut self) -> EvalResult<char> {
        if let Some(braced) = self.rest.strip_prefix('{') {
            let (digits, rest) = braced
                .split_once('}')
                .filter(|(digits, _)| (1..=6).contains(&digits.len()))
                .filter(|(digits, _)| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .ok_or_else(malformed_unicode)?;
            self.rest = rest;
            return letter(u32::from_str_radix(digits, 16).map_err(|_| malformed_unicode())?);
        }
        let high = self.hex(4)?;
        if !(0xd800..0xdc00).contains(&high) {
            return letter(high);
        }
        let Some(second) = self.rest.strip_prefix("\\u") else {
            return Err(unpaired());
        };
        self.rest = second;
        let low = self.hex(4)?;
        match low.checked_sub(0xdc00) {
            Some(low) if low < 0x400 => letter(0x10000 + ((high - 0xd800) << 10) + low),
            _ => Err(unpaired()),
        }
    }
}

fn malformed_unicode() -> EvalError {
    error_near("invalid unicode sequence", Some("\\u"))
}

fn unpaired() -> EvalError {
    EvalError::new(
        EvalErrorKind::InvalidText,
        "invalid input syntax for type jsonpath",
    )
}

fn letter(code: u32) -> EvalResult<char> {
    match char::from_u32(code) {
        Some('\0') => Err(EvalError::new(
            EvalErrorKind::InvalidText,
            "unsupported Unicode escape sequence",
        )),
        Some(letter) => Ok(letter),
        None => Err(unpaired()),
    }
}
