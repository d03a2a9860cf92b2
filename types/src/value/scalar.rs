//! Text formats of single values that need more than the standard library: floats as PostgreSQL prints them, booleans, `bytea`.

use std::fmt::Write;

use crate::TypeError;
use crate::normalize::{normalize_f32, normalize_f64};

pub(super) fn invalid(type_name: &str, text: &str) -> TypeError {
    TypeError::InvalidText {
        type_name: type_name.to_owned(),
        text: text.to_owned(),
    }
}

pub(super) fn out_of_range(type_name: &str, value: &str) -> TypeError {
    TypeError::OutOfRange {
        type_name: type_name.to_owned(),
        value: value.to_owned(),
    }
}

/// Text of a few bytes on the stack.
#[derive(Default)]
struct Scratch {
    bytes: [u8; 32],
    len: usize,
}

impl Write for Scratch {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes
            .get_mut(self.len..end)
            .ok_or(std::fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Appends the shortest text that reads back as the same `double precision`: `0.1`, `1e+20`, `1e-05`, `NaN`, `-Infinity`.
pub fn format_float8(value: f64, out: &mut String) {
    if value.is_finite() {
        let mut scratch = Scratch::default();
        // 17 digits, a sign, a point and an exponent fit the scratch.
        let _ = write!(scratch, "{value:e}");
        layout(&scratch, 15, out);
    } else {
        push_special(value.is_nan(), value < 0.0, out);
    }
}

/// Appends the shortest text that reads back as the same `real`.
pub fn format_float4(value: f32, out: &mut String) {
    if value.is_finite() {
        let mut scratch = Scratch::default();
        let _ = write!(scratch, "{value:e}");
        layout(&scratch, 6, out);
    } else {
        push_special(value.is_nan(), value < 0.0, out);
    }
}

fn push_special(nan: bool, negative: bool, out: &mut String) {
    out.push_str(match (nan, negative) {
        (true, _) => "NaN",
        (false, false) => "Infinity",
        (false, true) => "-Infinity",
    });
}

/// Writes `d.ddde±x` without an exponent if it is at least -4 and below `exponent_limit`, as PostgreSQL does.
fn layout(scientific: &Scratch, exponent_limit: i32, out: &mut String) {
    let text = scientific.bytes.get(..scientific.len).unwrap_or_default();
    let text = std::str::from_utf8(text).unwrap_or_default();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = match mantissa.strip_prefix('-') {
        Some(digits) => {
            out.push('-');
            digits
        }
        None => mantissa,
    };
    let (first, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (-4..0).contains(&exponent) {
        out.push_str("0.");
        out.extend((exponent..-1).map(|_| '0'));
        out.push_str(first);
        out.push_str(fraction);
    } else if (0..exponent_limit).contains(&exponent) {
        let places = usize::try_from(exponent).unwrap_or(0);
        out.push_str(first);
        match fraction.split_at_checked(places) {
            Some((whole, "")) => out.push_str(whole),
            Some((whole, rest)) => {
                out.push_str(whole);
                out.push('.');
                out.push_str(rest);
            }
            None => {
                out.push_str(fraction);
                out.extend((fraction.len()..places).map(|_| '0'));
            }
        }
    } else {
        out.push_str(mantissa.strip_prefix('-').unwrap_or(mantissa));
        let sign = if exponent < 0 { '-' } else { '+' };
        // Writing to a string cannot fail.
        let _ = write!(out, "e{sign}{:02}", exponent.unsigned_abs());
    }
}

/// Whether a text that was read as zero or infinity said something else.
fn lost_range(text: &str, zero: bool, infinite: bool) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    if zero {
        return mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    }
    infinite && !text.to_ascii_lowercase().contains("inf")
}

/// Reads a `double precision`, normalised.
///
/// # Errors
/// [`TypeError::InvalidText`]; [`TypeError::OutOfRange`] for numbers too large or too small to be told from infinity or zero.
pub fn parse_float8(text: &str) -> Result<f64, TypeError> {
    let body = text.trim_ascii();
    let value: f64 = body
        .parse()
        .map_err(|_| invalid("double precision", text))?;
    if lost_range(body, value == 0.0, value.is_infinite()) {
        return Err(out_of_range("double precision", body));
    }
    Ok(normalize_f64(value))
}

/// Reads a `real`, normalised.
///
/// # Errors
/// As [`parse_float8`].
pub fn parse_float4(text: &str) -> Result<f32, TypeError> {
    let body = text.trim_ascii();
    let value: f32 = body.parse().map_err(|_| invalid("real", text))?;
    if lost_range(body, value == 0.0, value.is_infinite()) {
        return Err(out_of_range("real", body));
    }
    Ok(normalize_f32(value))
}

/// Reads a boolean: `t`, `true`, `y`, `yes`, `on`, `1` and their opposites, or any unambiguous start of these words.
///
/// # Errors
/// [`TypeError::InvalidText`]
pub fn parse_bool(text: &str) -> Result<bool, TypeError> {
    match text {
        "t" => return Ok(true),
        "f" => return Ok(false),
        _ => {}
    }
    let body = text.trim_ascii();
    let starts = |word: &str, at_least: usize| {
        body.len() >= at_least
            && word
                .get(..body.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(body))
    };
    if starts("true", 1) || starts("yes", 1) || starts("on", 2) || body == "1" {
        Ok(true)
    } else if starts("false", 1) || starts("no", 1) || starts("off", 2) || body == "0" {
        Ok(false)
    } else {
        Err(invalid("boolean", text))
    }
}

/// Appends the bytes that a `bytea` in hex (`\x0aff`) or escape format (`a\012\\`) stands for.
///
/// # Errors
/// [`TypeError::InvalidText`]; nothing is appended.
pub fn parse_bytea(text: &str, out: &mut Vec<u8>) -> Result<(), TypeError> {
    let start = out.len();
    let parsed = match text.strip_prefix("\\x") {
        Some(hex) => parse_hex(hex, out),
        None => parse_escaped(text.as_bytes(), out),
    };
    if parsed.is_none() {
        out.truncate(start);
        return Err(invalid("bytea", text));
    }
    Ok(())
}

fn parse_hex(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut digits = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    let nibble = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    while let Some(high) = digits.next() {
        out.push(nibble(high)? << 4 | nibble(digits.next()?)?);
    }
    Some(())
}

fn parse_escaped(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = bytes;
    loop {
        rest = match rest {
            [] => return Some(()),
            [b'\\', b'\\', after @ ..] => {
                out.push(b'\\');
                after
            }
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            [b'\\', ..] => return None,
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
        };
    }
}

/// Appends a `bytea` in hex format.
pub(super) fn format_bytea(bytes: &[u8], out: &mut String) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    out.reserve(2 + bytes.len() * 2);
    out.push_str("\\x");
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(DIGITS.get(usize::from(nibble)).copied().unwrap_or('0'));
        }
    }
}
