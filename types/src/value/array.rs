//! PostgreSQL's text format of arrays: `{1,NULL,"a b",{2}}`.

use super::scalar::invalid;
use crate::TypeError;

/// One step of reading an array's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Open,
    Close,
    Null,
    Item(&'a str),
}

/// Reads an array text and gives its tokens to `visit`; commas and white space are checked here, nesting too. The first token is `Open`.
///
/// # Errors
/// [`TypeError::InvalidText`], and whatever `visit` returns.
pub(super) fn tokens(
    text: &str,
    type_name: &dyn Fn() -> String,
    visit: &mut dyn FnMut(Token<'_>) -> Result<(), TypeError>,
) -> Result<(), TypeError> {
    let malformed = || invalid(&type_name(), text);
    let (mut rest, length) = without_bounds(text.trim_ascii()).ok_or_else(malformed)??;
    // Items of the outermost list.
    let mut items = 0_usize;
    let mut depth = 0_usize;
    let mut scratch = String::new();
    // Whether a value may, or must not, come next.
    let mut after_value = false;
    let mut after_comma = false;
    loop {
        rest = rest.trim_ascii_start();
        let Some(first) = rest.bytes().next() else {
            return Err(malformed());
        };
        match first {
            b'{' if !after_value => {
                depth += 1;
                after_comma = false;
                visit(Token::Open)?;
                rest = rest.get(1..).unwrap_or_default();
            }
            b'}' if depth > 0 && !after_comma => {
                depth -= 1;
                after_value = true;
                items += usize::from(depth == 1);
                visit(Token::Close)?;
                rest = rest.get(1..).unwrap_or_default();
                if depth == 0 {
                    let whole = length.is_none_or(|length| length == items);
                    return if whole && rest.trim_ascii().is_empty() {
                        Ok(())
                    } else {
                        Err(malformed())
                    };
                }
            }
            b',' if after_value && depth > 0 => {
                after_value = false;
                after_comma = true;
                rest = rest.get(1..).unwrap_or_default();
            }
            b'}' | b',' | b'{' => return Err(malformed()),
            _ if after_value || depth == 0 => return Err(malformed()),
            _ => {
                let (quoted, after) = take_item(rest, &mut scratch).ok_or_else(malformed)?;
                if !quoted && scratch.eq_ignore_ascii_case("null") {
                    visit(Token::Null)?;
                } else {
                    visit(Token::Item(&scratch))?;
                }
                rest = after;
                items += usize::from(depth == 1);
                after_value = true;
                after_comma = false;
            }
        }
    }
}

/// Arrays here always begin at 1: any other lower bound would make subscripts find other items.
pub(super) fn check_lower_bound(bound: i64) -> Result<(), TypeError> {
    if bound == 1 {
        return Ok(());
    }
    Err(TypeError::NotSupported(format!(
        "arrays with the lower bound {bound} are not supported"
    )))
}

/// Takes off explicit bounds, `[1:3]={1,2,3}`, and returns the length of the outermost dimension with the rest. `None` if they are malformed.
fn without_bounds(text: &str) -> Option<Result<(&str, Option<usize>), TypeError>> {
    if !text.starts_with('[') {
        return Some(Ok((text, None)));
    }
    let (bounds, rest) = text.split_once('=')?;
    let mut length = None;
    let mut bounds = bounds.trim_ascii();
    while !bounds.is_empty() {
        let (dimension, after) = bounds.strip_prefix('[')?.split_once(']')?;
        let (lower, upper) = match dimension.split_once(':') {
            Some((lower, upper)) => (lower.trim_ascii().parse().ok()?, upper),
            None => (1, dimension),
        };
        let upper: i64 = upper.trim_ascii().parse().ok()?;
        if let Err(error) = check_lower_bound(lower) {
            return Some(Err(error));
        }
        length = length.or(Some(
            usize::try_from(upper).ok().filter(|upper| *upper > 0)?,
        ));
        bounds = after.trim_ascii_start();
    }
    Some(Ok((rest.trim_ascii_start(), length)))
}

/// Reads one item into `scratch`; returns whether any of it was quoted or escaped, and the rest.
fn take_item<'a>(text: &'a str, scratch: &mut String) -> Option<(bool, &'a str)> {
    scratch.clear();
    let mut quoted = false;
    let mut in_quotes = false;
    // Trailing white space outside quotes does not count.
    let mut kept = 0;
    let mut letters = text.char_indices();
    while let Some((index, letter)) = letters.next() {
        match letter {
            '\\' => {
                quoted = true;
                scratch.push(letters.next()?.1);
                kept = scratch.len();
            }
            '"' => {
                // A quote begins an item or ends it.
                if !in_quotes && !scratch.is_empty() {
                    return None;
                }
                quoted = true;
                in_quotes = !in_quotes;
                kept = scratch.len();
            }
            ',' | '}' if !in_quotes => {
                scratch.truncate(kept);
                if scratch.is_empty() && !quoted {
                    return None;
                }
                return Some((quoted, text.get(index..)?));
            }
            '{' if !in_quotes => return None,
            letter => {
                scratch.push(letter);
                if in_quotes || !letter.is_ascii_whitespace() {
                    kept = scratch.len();
                }
            }
        }
    }
    None
}

/// Quotes the item that begins at `start` of `out`, if it must be.
pub(super) fn quote_item(out: &mut String, start: usize) {
    let item = out.get(start..).unwrap_or_default();
    let special = |byte: u8| {
        matches!(byte, b'{' | b'}' | b',' | b'"' | b'\\')
            || byte.is_ascii_whitespace()
            || byte == 0x0b
    };
    let must = item.is_empty() || item.eq_ignore_ascii_case("null") || item.bytes().any(special);
    if !must {
        return;
    }
    let item = out.split_off(start);
    out.push('"');
    for letter in item.chars() {
        if matches!(letter, '"' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out.push('"');
}
