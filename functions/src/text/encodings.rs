//! Bytes as text and text as bytes: in encodings of characters, and as digits.
//!
//! Text is UTF-8; of the other encodings of characters that PostgreSQL converts there are LATIN1 and SQL_ASCII.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::{EvalError, EvalErrorKind, SqlType};

use super::{int4, text, to_int4};
use crate::errors::{EvalResult, invalid_parameter, not_supported};
use crate::growth::value_fits;
use crate::udf::{P, R, function, map2, map3, overload};

/// The functions of this module.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let bytea = || R::Sql(SqlType::Bytea);
    vec![
        function(
            "encode",
            vec![overload(&[P::Bytea, P::Text], text(), |call| {
                map2(call, encode)
            })],
        ),
        function(
            "decode",
            vec![overload(&[P::Text, P::Text], bytea(), |call| {
                map2(call, decode)
            })],
        ),
        function(
            "convert_from",
            vec![overload(&[P::Bytea, P::Text], text(), |call| {
                map2(call, |bytes: &[u8], encoding: &str| {
                    Encoding::of(encoding, "source encoding")?.read(bytes)
                })
            })],
        ),
        function(
            "convert_to",
            vec![overload(&[P::Text, P::Text], bytea(), |call| {
                map2(call, |text: &str, encoding: &str| {
                    Encoding::of(encoding, "destination encoding")?.write(text)
                })
            })],
        ),
        function(
            "convert",
            vec![overload(&[P::Bytea, P::Text, P::Text], bytea(), |call| {
                map3(call, |bytes: &[u8], from: &str, to: &str| {
                    let from = Encoding::of(from, "source encoding")?;
                    let to = Encoding::of(to, "destination encoding")?;
                    to.write(&from.read(bytes)?)
                })
            })],
        ),
    ]
}

/// `length(bytes, encoding)`
pub(super) fn length_in() -> crate::udf::Overload {
    overload(&[P::Bytea, P::Text], int4(), |call| {
        map2(call, |bytes: &[u8], encoding: &str| {
            let text = Encoding::of(encoding, "encoding")?.read(bytes)?;
            to_int4(text.chars().count())
        })
    })
}

/// An encoding of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Latin1,
}

/// Encodings of PostgreSQL's that nothing is converted from or to, by their letters and digits.
const NOT_CONVERTED: &[&str] = &[
    "abc",
    "alt",
    "big5",
    "euccn",
    "eucjis2004",
    "eucjp",
    "euckr",
    "euctw",
    "gb18030",
    "gbk",
    "iso885910",
    "iso885913",
    "iso885914",
    "iso885915",
    "iso885916",
    "iso88592",
    "iso88593",
    "iso88594",
    "iso88595",
    "iso88596",
    "iso88597",
    "iso88598",
    "iso88599",
    "johab",
    "koi8",
    "koi8r",
    "koi8u",
    "latin10",
    "latin2",
    "latin3",
    "latin4",
    "latin5",
    "latin6",
    "latin7",
    "latin8",
    "latin9",
    "mskanji",
    "muleinternal",
    "shiftjis",
    "shiftjis2004",
    "sjis",
    "tcvn",
    "tcvn5712",
    "uhc",
    "vscii",
    "win",
    "win1250",
    "win1251",
    "win1252",
    "win1253",
    "win1254",
    "win1255",
    "win1256",
    "win1257",
    "win1258",
    "win866",
    "win874",
    "win932",
    "win936",
    "win949",
    "win950",
    "windows1250",
    "windows1251",
    "windows1252",
    "windows1253",
    "windows1254",
    "windows1255",
    "windows1256",
    "windows1257",
    "windows1258",
    "windows866",
    "windows874",
    "windows932",
    "windows936",
    "windows949",
    "windows950",
];

impl Encoding {
    /// The encoding with a name; `role` is what it is called if there is none.
    fn of(name: &str, role: &str) -> EvalResult<Self> {
        let plain: String = name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        match plain.as_str() {
            // Where nothing is said of bytes beyond ASCII they are those of the database.
            "utf8" | "unicode" | "sqlascii" => Ok(Self::Utf8),
            "latin1" | "iso88591" => Ok(Self::Latin1),
            known if NOT_CONVERTED.contains(&known) => Err(not_supported(format!(
                "encoding \"{name}\" is not supported"
            ))),
            _ => Err(invalid_parameter(format!("invalid {role} name \"{name}\""))),
        }
    }

    fn read(self, bytes: &[u8]) -> EvalResult<String> {
        let text = match self {
            Self::Utf8 => std::str::from_utf8(bytes)
                .map_err(|error| invalid_utf8(bytes, error.valid_up_to()))?
                .to_owned(),
            Self::Latin1 => {
                value_fits(bytes.len().saturating_mul(2))?;
                bytes.iter().copied().map(char::from).collect()
            }
        };
        match (text.find('\0'), self) {
            (Some(at), Self::Utf8) => Err(invalid_utf8(bytes, at)),
            (Some(_), Self::Latin1) => Err(invalid_bytes("LATIN1", &[0])),
            (None, _) => Ok(text),
        }
    }

    fn write(self, text: &str) -> EvalResult<Vec<u8>> {
        match self {
            Self::Utf8 => Ok(text.as_bytes().to_vec()),
            Self::Latin1 => text
                .chars()
                .map(|letter| {
                    u8::try_from(u32::from(letter)).map_err(|_| {
                        let bytes = letter.to_string();
                        EvalError::new(
                            EvalErrorKind::Untranslatable,
                            format!(
                                "character with byte sequence {} in encoding \"UTF8\" has no equivalent in encoding \"LATIN1\"",
                                shown(bytes.as_bytes())
                            ),
                        )
                    })
                })
                .collect(),
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("0x{byte:02x}")).collect();
    bytes.join(" ")
}

fn invalid_bytes(encoding: &str, bytes: &[u8]) -> EvalError {
    EvalError::new(
        EvalErrorKind::NotInRepertoire,
        format!(
            "invalid byte sequence for encoding \"{encoding}\": {}",
            shown(bytes)
        ),
    )
}

/// The error of the bytes at a place: as many of them as the first one says that there are.
fn invalid_utf8(bytes: &[u8], at: usize) -> EvalError {
    let rest = bytes.get(at..).unwrap_or_default();
    let length = match rest.first() {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf7) => 4,
        _ => 1,
    };
    invalid_bytes("UTF8", rest.get(..length).unwrap_or(rest))
}

fn unrecognized_encoding(format: &str) -> EvalError {
    invalid_parameter(format!("unrecognized encoding: \"{format}\""))
}

fn encode(bytes: &[u8], format: &str) -> EvalResult<String> {
    value_fits(bytes.len().saturating_mul(2))?;
    match format.to_ascii_lowercase().as_str() {
        "hex" => Ok(hex::encode(bytes)),
        "base64" => {
            // PostgreSQL breaks lines after 76 characters.
            let encoded = BASE64.encode(bytes);
            let lines: Vec<&str> = encoded
                .as_bytes()
                .chunks(76)
                .filter_map(|line| std::str::from_utf8(line).ok())
                .collect();
            Ok(lines.join("\n"))
        }
        "escape" => {
            let mut text = String::with_capacity(bytes.len());
            for byte in bytes {
                match byte {
                    0 | 0x80..=0xff => text.push_str(&format!("\\{byte:03o}")),
                    b'\\' => text.push_str("\\\\"),
                    plain => text.push(char::from(*plain)),
                }
            }
            Ok(text)
        }
        _ => Err(unrecognized_encoding(format)),
    }
}

fn decode(text: &str, format: &str) -> EvalResult<Vec<u8>> {
    match format.to_ascii_lowercase().as_str() {
        "hex" => decode_hex(text),
        "base64" => decode_base64(text),
        "escape" => decode_escape(text),
        _ => Err(unrecognized_encoding(format)),
    }
}

/// Base64, of which PostgreSQL reads more than others: what follows the padding within four letters, and blanks everywhere.
fn decode_base64(text: &str) -> EvalResult<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut group, mut letters) = (0_u32, 0);
    // Bytes of the group that are meant, if there is padding in it.
    let mut kept = None;
    for letter in text.chars() {
        let bits = match letter {
            ' ' | '\t' | '\n' | '\r' => continue,
            'A'..='Z' => u32::from(letter) - u32::from('A'),
            'a'..='z' => u32::from(letter) - u32::from('a') + 26,
            '0'..='9' => u32::from(letter) - u32::from('0') + 52,
            '+' => 62,
            '/' => 63,
            '=' => {
                kept = match (kept, letters) {
                    (Some(kept), _) => Some(kept),
                    (None, 2) => Some(1),
                    (None, 3) => Some(2),
                    _ => {
                        return Err(invalid_parameter(
                            "unexpected \"=\" while decoding base64 sequence",
                        ));
                    }
                };
                0
            }
            other => {
                return Err(invalid_parameter(format!(
                    "invalid symbol \"{other}\" found while decoding base64 sequence"
                )));
            }
        };
        group = (group << 6) | bits;
        letters += 1;
        if letters == 4 {
            let [_, group_bytes @ ..] = group.to_be_bytes();
            bytes.extend(group_bytes.iter().take(kept.unwrap_or(3)));
            (group, letters) = (0, 0);
        }
    }
    if letters != 0 {
        return Err(invalid_parameter("invalid base64 end sequence"));
    }
    Ok(bytes)
}

fn decode_hex(text: &str) -> EvalResult<Vec<u8>> {
    let plain: String = text
        .chars()
        .filter(|letter| !letter.is_ascii_whitespace())
        .collect();
    if let Some(bad) = plain.chars().find(|letter| !letter.is_ascii_hexdigit()) {
        return Err(invalid_parameter(format!(
            "invalid hexadecimal digit: \"{bad}\""
        )));
    }
    hex::decode(plain)
        .map_err(|_| invalid_parameter("invalid hexadecimal data: odd number of digits"))
}

fn decode_escape(text: &str) -> EvalResult<Vec<u8>> {
    let bad = || {
        EvalError::new(
            EvalErrorKind::InvalidText,
            "invalid input syntax for type bytea",
        )
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'\\' {
            bytes.push(*first);
            rest = tail;
        } else if let Some(tail) = tail.strip_prefix(b"\\") {
            bytes.push(b'\\');
            rest = tail;
        } else {
            let (digits, tail) = tail.split_at_checked(3).ok_or_else(bad)?;
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            bytes.push(u8::from_str_radix(digits, 8).map_err(|_| bad())?);
            rest = tail;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_read_and_written() {
        let latin = Encoding::of("iso-8859-1", "encoding").unwrap();
        assert_eq!(latin.read(b"\xe4").unwrap(), "ä");
        assert_eq!(latin.write("äö").unwrap(), b"\xe4\xf6");
        assert_eq!(
            latin.write("€").unwrap_err().kind,
            EvalErrorKind::Untranslatable
        );
        let kind = |name| Encoding::of(name, "encoding").unwrap_err().kind;
        assert_eq!(kind("win1252"), EvalErrorKind::NotSupported);
        assert_eq!(kind("foo"), EvalErrorKind::InvalidParameter);
        let sequences: [(&[u8], &str); 4] = [
            (b"a\xe2\x28\xa1b", "0xe2 0x28 0xa1"),
            (b"\xff", "0xff"),
            (b"\xe2", "0xe2"),
            (b"\0", "0x00"),
        ];
        for (bytes, sequence) in sequences {
            let error = Encoding::Utf8.read(bytes).unwrap_err();
            assert_eq!(error.kind, EvalErrorKind::NotInRepertoire);
            assert!(error.message.ends_with(&format!(": {sequence}")), "{error}");
        }
    }

    #[test]
    fn base64_is_read_as_in_postgresql() {
        assert_eq!(decode_base64("YWJj YWJj").unwrap(), b"abcabc");
        assert_eq!(decode_base64("YQ==").unwrap(), b"a");
        assert_eq!(decode_base64("YW=j").unwrap(), b"a");
        let message = |text| decode_base64(text).unwrap_err().message;
        assert_eq!(message("YWI"), "invalid base64 end sequence");
        assert_eq!(
            message("Y==="),
            "unexpected \"=\" while decoding base64 sequence"
        );
        assert_eq!(
            message("é"),
            "invalid symbol \"é\" found while decoding base64 sequence"
        );
    }
}
