//! Functions of Unicode: escapes and normal forms.

use datafusion::logical_expr::ScalarUDF;
use flowstone_types::{EvalError, EvalErrorKind, SqlType};
use unicode_normalization::UnicodeNormalization;

use super::text;
use crate::errors::{EvalResult, invalid_parameter};
use crate::growth::value_fits;
use crate::udf::{P, R, function, map1, map2, overload};

/// The functions of this module.
pub(super) fn functions() -> Vec<ScalarUDF> {
    vec![
        function(
            "unistr",
            vec![overload(&[P::Text], text(), |call| map1(call, unescape))],
        ),
        function(
            "normalize",
            vec![
                overload(&[P::Text], text(), |call| {
                    map1(call, |text: &str| normalized(text, Form::C))
                }),
                overload(&[P::Text, P::Text], text(), |call| {
                    map2(call, |text: &str, form: &str| {
                        normalized(text, Form::parse(form)?)
                    })
                }),
            ],
        ),
        function(
            "is_normalized",
            vec![
                overload(&[P::Text], R::Sql(SqlType::Bool), |call| {
                    map1(call, |text: &str| Ok(is_normalized(text, Form::C)))
                }),
                overload(&[P::Text, P::Text], R::Sql(SqlType::Bool), |call| {
                    map2(call, |text: &str, form: &str| {
                        Ok(is_normalized(text, Form::parse(form)?))
                    })
                }),
            ],
        ),
    ]
}

/// A normal form of Unicode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    C,
    D,
    KC,
    KD,
}

impl Form {
    fn parse(name: &str) -> EvalResult<Self> {
        Ok(match name.to_ascii_uppercase().as_str() {
            "NFC" => Self::C,
            "NFD" => Self::D,
            "NFKC" => Self::KC,
            "NFKD" => Self::KD,
            _ => {
                return Err(invalid_parameter(format!(
                    "invalid normalization form: {name}"
                )));
            }
        })
    }
}

fn normalized(text: &str, form: Form) -> EvalResult<String> {
    if text.is_ascii() {
        return Ok(text.to_owned());
    }
    let mut result = String::with_capacity(text.len());
    match form {
        Form::C => collect(text.nfc(), &mut result),
        Form::D => collect(text.nfd(), &mut result),
        Form::KC => collect(text.nfkc(), &mut result),
        Form::KD => collect(text.nfkd(), &mut result),
    }?;
    Ok(result)
}

/// Letters between two questions whether there is room for more.
const LETTERS_PER_QUESTION: usize = 16 << 10;

fn collect(letters: impl Iterator<Item = char>, result: &mut String) -> EvalResult<()> {
    let mut letters = letters.peekable();
    while letters.peek().is_some() {
        value_fits(result.len())?;
        result.extend(letters.by_ref().take(LETTERS_PER_QUESTION));
    }
    value_fits(result.len())
}

fn is_normalized(text: &str, form: Form) -> bool {
    match form {
        Form::C => unicode_normalization::is_nfc(text),
        Form::D => unicode_normalization::is_nfd(text),
        Form::KC => unicode_normalization::is_nfkc(text),
        Form::KD => unicode_normalization::is_nfkd(text),
    }
}

fn syntax(message: &str) -> EvalError {
    EvalError::new(EvalErrorKind::Syntax, message)
}

fn invalid_pair() -> EvalError {
    syntax("invalid Unicode surrogate pair")
}

/// The number behind a backslash, and what follows it.
fn escaped(rest: &str) -> EvalResult<(u32, &str)> {
    let (digits, length) = match rest.chars().next() {
        Some('+') => (rest.get(1..), 6),
        Some('u') => (rest.get(1..), 4),
        Some('U') => (rest.get(1..), 8),
        _ => (Some(rest), 4),
    };
    let found = digits
        .and_then(|digits| digits.split_at_checked(length))
        .filter(|(digits, _)| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    found
        .and_then(|(digits, rest)| Some((u32::from_str_radix(digits, 16).ok()?, rest)))
        .ok_or_else(|| syntax("invalid Unicode escape"))
}

/// A text with characters in place of `\XXXX`, `\+XXXXXX`, `\uXXXX` and `\UXXXXXXXX`, of which two may be a surrogate pair.
fn unescape(text: &str) -> EvalResult<String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    // The first half of a pair.
    let mut first: Option<u32> = None;
    while let Some(at) = rest.find('\\') {
        let (before, tail) = rest.split_at(at);
        let tail = tail.get(1..).unwrap_or_default();
        if first.is_some() && !before.is_empty() {
            return Err(invalid_pair());
        }
        result.push_str(before);
        if let Some(tail) = tail.strip_prefix('\\') {
            if first.is_some() {
                return Err(invalid_pair());
            }
            result.push('\\');
            rest = tail;
            continue;
        }
        let (code, tail) = escaped(tail)?;
        rest = tail;
        if code == 0 || code > u32::from(char::MAX) {
            return Err(invalid_parameter(format!(
                "invalid Unicode code point: {code:04X}"
            )));
        }
        let code = match (first.take(), code) {
            (Some(high), 0xdc00..=0xdfff) => {
                0x1_0000_u32 + ((high - 0xd800) << 10) + (code - 0xdc00)
            }
            (Some(_), _) | (None, 0xdc00..=0xdfff) => return Err(invalid_pair()),
            (None, 0xd800..=0xdbff) => {
                first = Some(code);
                continue;
            }
            (None, code) => code,
        };
        result.extend(char::from_u32(code));
    }
    if first.is_some() {
        return Err(invalid_pair());
    }
    result.push_str(rest);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_characters() {
        for (text, shown) in [
            ("\\0441\\043B\\043E\\043D", "слон"),
            ("d\\0061t\\+000061", "data"),
            ("d\\u0061t\\U00000061", "data"),
            ("a\\\\b", "a\\b"),
            ("\\D83D\\DE00!", "😀!"),
            ("", ""),
        ] {
            assert_eq!(unescape(text).unwrap(), shown);
        }
        for text in ["\\x", "\\00", "\\", "\\00ä0", "\\+1234"] {
            assert_eq!(
                unescape(text).unwrap_err().message,
                "invalid Unicode escape"
            );
        }
        for text in ["\\D83D", "\\D83Dx", "\\DE00", "\\D83D\\\\", "\\D83D\\0061"] {
            let message = unescape(text).unwrap_err().message;
            assert_eq!(message, "invalid Unicode surrogate pair", "{text}");
        }
        let message = unescape("\\+110000").unwrap_err().message;
        assert_eq!(message, "invalid Unicode code point: 110000");
        assert_eq!(
            unescape("\\0000").unwrap_err().message,
            "invalid Unicode code point: 0000"
        );
    }

    #[test]
    fn forms_compose_and_decompose() {
        assert_eq!(normalized("a\u{308}bc", Form::C).unwrap(), "äbc");
        assert_eq!(normalized("ä", Form::D).unwrap(), "a\u{308}");
        assert_eq!(normalized("\u{fb01}", Form::KC).unwrap(), "fi");
        assert_eq!(normalized("\u{fb01}", Form::KD).unwrap(), "fi");
        assert!(is_normalized("a\u{308}", Form::D) && !is_normalized("a\u{308}", Form::C));
        assert!(is_normalized("", Form::C));
        assert_eq!(
            Form::parse("foo").unwrap_err().message,
            "invalid normalization form: foo"
        );
    }
}
