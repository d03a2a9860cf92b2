//! The functions that match regular expressions.
//!
//! Owns their parameters: where they begin, which match and which group they ask for, and which flags they take. How a pattern is run is [`crate::pattern`]'s business.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, ListArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::SqlType;

use crate::errors::{
    EvalResult, internal, invalid_escape, invalid_parameter, not_supported, out_of_range, raise,
};
use crate::growth::{Growth, value_fits};
use crate::pattern::{
    Compiled, Patterns, Which, count, first_match, matches, nth_match, replace, split,
};
use crate::udf::{
    Call, ITEM_BYTES, Overload, P, R, Ret, TextList, function, map_rows, overload, primitive,
    texts, up_to,
};

fn text() -> R {
    R::Sql(SqlType::Text)
}

fn int4() -> R {
    R::Sql(SqlType::Int4)
}

fn text_list() -> R {
    R::Sql(SqlType::Array(Box::new(SqlType::Text)))
}

fn text_lists() -> R {
    let list = SqlType::Array(Box::new(SqlType::Text));
    R::Sql(SqlType::Array(Box::new(list)))
}

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![
        function("regexp_like", with_flags(R::Sql(SqlType::Bool), like)),
        function("regexp_match", with_flags(text_list(), first)),
        // The rows of `regexp_matches`.
        function("regexp_matches_list", with_flags(text_lists(), all)),
        function(
            "regexp_split_to_array",
            with_flags(text_list(), |call| parts(call, "regexp_split_to_array")),
        ),
        // The rows of `regexp_split_to_table`.
        function(
            "regexp_split_to_table_list",
            with_flags(text_list(), |call| parts(call, "regexp_split_to_table")),
        ),
        function("regexp_replace", replacing()),
        // A pattern of SIMILAR TO as a regular expression.
        function(
            "similar_to_escape",
            up_to(&[P::Text, P::Text], 1, text(), |call| {
                map_rows(call, |row| {
                    if call.args.iter().any(|array| array.is_null(row)) {
                        return Ok(None);
                    }
                    let row = Row { call, row };
                    let escape = row.text(1)?.unwrap_or("\\");
                    row.text(0)?
                        .map(|pattern| of_similar(pattern, escape))
                        .transpose()
                })
            }),
        ),
        function(
            "regexp_count",
            up_to(&[P::Text, P::Text, P::Int4, P::Text], 2, int4(), counted),
        ),
        function(
            "regexp_instr",
            up_to(
                &[
                    P::Text,
                    P::Text,
                    P::Int4,
                    P::Int4,
                    P::Int4,
                    P::Text,
                    P::Int4,
                ],
                2,
                int4(),
                place,
            ),
        ),
        function(
            "regexp_substr",
            up_to(
                &[P::Text, P::Text, P::Int4, P::Int4, P::Text, P::Int4],
                2,
                text(),
                part,
            ),
        ),
    ]
}

fn with_flags(returns: R, kernel: crate::udf::Kernel) -> Vec<Overload> {
    up_to(&[P::Text, P::Text, P::Text], 2, returns, kernel)
}

fn replacing() -> Vec<Overload> {
    let start = [P::Text, P::Text, P::Text, P::Int4, P::Int4, P::Text];
    let mut overloads = up_to(&start, 3, text(), replaced);
    let flags = [P::Text, P::Text, P::Text, P::Text];
    overloads.push(overload(&flags, text(), replaced_by_flags));
    overloads
}

/// The arguments of a row; those behind the last are what they are by default.
struct Row<'a> {
    call: &'a Call<'a>,
    row: usize,
}

impl<'a> Row<'a> {
    fn text(&self, index: usize) -> EvalResult<Option<&'a str>> {
        let Some(array) = self.call.args.get(index) else {
            return Ok(None);
        };
        let texts = texts(array).map_err(|error| internal(error.to_string()))?;
        Ok(texts.is_valid(self.row).then(|| texts.value(self.row)))
    }

    fn flags(&self, index: usize) -> EvalResult<&'a str> {
        Ok(self.text(index)?.unwrap_or_default())
    }

    /// A parameter that is at least `least`.
    fn number(&self, index: usize, name: &str, least: usize, default: usize) -> EvalResult<usize> {
        let Some(array) = self.call.args.get(index) else {
            return Ok(default);
        };
        let numbers = primitive::<arrow_array::types::Int32Type>(array)
            .map_err(|error| internal(error.to_string()))?;
        let number = numbers.value(self.row);
        usize::try_from(number)
            .ok()
            .filter(|number| *number >= least)
            .ok_or_else(|| {
                invalid_parameter(format!("invalid value for parameter \"{name}\": {number}"))
            })
    }
}

/// Kernel over rows of which no argument is NULL.
fn strict<T: Ret>(
    call: &Call<'_>,
    mut compute: impl FnMut(&mut Patterns, &Row<'_>, &str, &str) -> EvalResult<Option<T>>,
) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    map_rows(call, |row| {
        if call.args.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let row = Row { call, row };
        match (row.text(0)?, row.text(1)?) {
            (Some(text), Some(pattern)) => compute(&mut patterns, &row, text, pattern),
            _ => Ok(None),
        }
    })
}

/// The pattern for a function that does not know of more than one match.
fn of_one<'p>(
    patterns: &'p mut Patterns,
    function: &str,
    text: &str,
    pattern: &str,
    flags: &str,
) -> EvalResult<&'p mut Compiled> {
    let compiled = patterns.get(text, pattern, flags)?;
    if flags.contains('g') {
        return Err(invalid_parameter(format!(
            "{function}() does not support the \"global\" option"
        )));
    }
    Ok(compiled)
}

/// The byte at which the character with a number begins, from 1; `None` beyond the end.
fn byte_of(text: &str, start: usize) -> Option<usize> {
    let ends = std::iter::once(text.len());
    let begins = text.char_indices().map(|(byte, _)| byte);
    begins.chain(ends).nth(start.checked_sub(1)?)
}

fn like(call: &Call<'_>) -> Result<ArrayRef> {
    strict(call, |patterns, row, text, pattern| {
        let flags = row.flags(2)?;
        let compiled = of_one(patterns, "regexp_like", text, pattern, flags)?;
        Ok(Some(compiled.is_match(text)))
    })
}

fn first(call: &Call<'_>) -> Result<ArrayRef> {
    strict(call, |patterns, row, text, pattern| {
        let flags = row.flags(2)?;
        first_match(
            of_one(patterns, "regexp_match", text, pattern, flags)?,
            text,
        )
    })
}

fn all(call: &Call<'_>) -> Result<ArrayRef> {
    strict(call, |patterns, row, text, pattern| {
        let flags = row.flags(2)?;
        let which = if flags.contains('g') {
            Which::All
        } else {
            Which::Nth(1)
        };
        matches(patterns.get(text, pattern, flags)?, text, which).map(Some)
    })
}

fn parts(call: &Call<'_>, function: &str) -> Result<ArrayRef> {
    strict(call, |patterns, row, text, pattern| {
        let flags = row.flags(2)?;
        split(of_one(patterns, function, text, pattern, flags)?, text).map(Some)
    })
}

/// `regexp_replace(text, pattern, new, start, n, flags)`
fn replaced(call: &Call<'_>) -> Result<ArrayRef> {
    strict(call, |patterns, row, text, pattern| {
        let start = row.number(3, "start", 1, 1)?;
        let which = match row.number(4, "n", 0, 1)? {
            0 => Which::All,
            nth => Which::Nth(nth),
        };
        let compiled = patterns.get(text, pattern, row.flags(5)?)?;
        let Some(from) = byte_of(text, start) else {
            return Ok(Some(text.to_owned()));
        };
        replace(compiled, text, row.flags(2)?, from, which).map(Some)
    })
}

/// `regexp_replace(text, pattern, new, flags)`
fn replaced_by_flags(call: &Call<'_>) -> Result<ArrayRef> {
    strict(call, |patterns, row, text, pattern| {
        let flags = row.flags(3)?;
        let which = if flags.contains('g') {
            Which::All
        } else {
            Which::Nth(1)
        };
        let compiled = patterns.get(text, pattern, flags)?;
        replace(compiled, text, row.flags(2)?, 0, which).map(Some)
    })
}

fn counted(call: &Call<'_>) -> Result<ArrayRef> {
    strict(call, |patterns, row, text, pattern| {
        let start = row.number(2, "start", 1, 1)?;
        let compiled = of_one(patterns, "regexp_count", text, pattern, row.flags(3)?)?;
        let found = match byte_of(text, start) {
            Some(from) => count(compiled, text, from)?,
            None => 0,
        };
        i32::try_from(found)
            .map(Some)
            .map_err(|_| out_of_range("integer"))
    })
}

/// What a function asks for: a group of the match with a number, from a character on.
struct Asked {
    start: usize,
    nth: usize,
    group: usize,
}

impl Asked {
    fn find(&self, compiled: &mut Compiled, text: &str) -> EvalResult<Option<Range<usize>>> {
        match byte_of(text, self.start) {
            Some(from) => nth_match(compiled, text, from, self.nth, self.group),
            None => Ok(None),
        }
    }
}

/// `regexp_instr(text, pattern, start, n, endoption, flags, subexpr)`
fn place(call: &Call<'_>) -> Result<ArrayRef> {
    strict(call, |patterns, row, text, pattern| {
        let (start, nth) = (row.number(2, "start", 1, 1)?, row.number(3, "n", 1, 1)?);
        let end = row.number(4, "endoption", 0, 0)?;
        if end > 1 {
            return Err(invalid_parameter(format!(
                "invalid value for parameter \"endoption\": {end}"
            )));
        }
        let group = row.number(6, "subexpr", 0, 0)?;
        let asked = Asked { start, nth, group };
        let compiled = of_one(patterns, "regexp_instr", text, pattern, row.flags(5)?)?;
        let Some(found) = asked.find(compiled, text)? else {
            return Ok(Some(0));
        };
        let at = if end == 1 { found.end } else { found.start };
        let before = text.get(..at).unwrap_or_default().chars().count();
        i32::try_from(before + 1)
            .map(Some)
            .map_err(|_| out_of_range("integer"))
    })
}

/// `regexp_substr(text, pattern, start, n, flags, subexpr)`
fn part(call: &Call<'_>) -> Result<ArrayRef> {
    strict(call, |patterns, row, text, pattern| {
        let (start, nth) = (row.number(2, "start", 1, 1)?, row.number(3, "n", 1, 1)?);
        let group = row.number(5, "subexpr", 0, 0)?;
        let asked = Asked { start, nth, group };
        let compiled = of_one(patterns, "regexp_substr", text, pattern, row.flags(4)?)?;
        let found = asked.find(compiled, text)?;
        Ok(found.and_then(|found| text.get(found).map(str::to_owned)))
    })
}

/// The regular expression of a pattern of SIMILAR TO. Without an escape nothing is escaped; what is keeps its meaning as an escape of regular expressions.
fn of_similar(pattern: &str, escape: &str) -> EvalResult<String> {
    let mut letters = escape.chars();
    let (escape, more) = (letters.next(), letters.next());
    if more.is_some() {
        return Err(invalid_escape());
    }
    value_fits(pattern.len().saturating_mul(3))?;
    let mut regex = String::from("^(?:");
    let (mut in_class, mut is_escaped) = (false, false);
    for letter in pattern.chars() {
        match letter {
            '"' if is_escaped && !in_class => {
                return Err(not_supported(
                    "parts of patterns between escaped double quotes are not supported",
                ));
            }
            letter if is_escaped => regex.extend(['\\', letter]),
            letter if Some(letter) == escape => {
                is_escaped = true;
                continue;
            }
            '\\' if in_class => regex.push_str("\\\\"),
            letter if in_class => {
                in_class = letter != ']';
                regex.push(letter);
            }
            '[' => {
                in_class = true;
                regex.push('[');
            }
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '(' => regex.push_str("(?:"),
            '\\' | '.' | '^' | '$' => regex.extend(['\\', letter]),
            other => regex.push(other),
        }
        is_escaped = false;
    }
    regex.push_str(")$");
    Ok(regex)
}

/// Lists of lists of texts.
impl Ret for Vec<TextList> {
    fn build(
        values: impl Iterator<Item = EvalResult<Option<Self>>>,
        rows: usize,
        returns: &DataType,
    ) -> Result<ArrayRef> {
        let DataType::List(item) = returns else {
            return Err(raise(internal(format!(
                "list result declared as {returns}"
            ))));
        };
        let (mut lengths, mut present) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        let mut lists = Vec::new();
        let mut growth = Growth::default();
        for value in values {
            let value = value.map_err(raise)?;
            present.push(value.is_some());
            let list = value.unwrap_or_default();
            for texts in &list {
                let bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
                let bytes: usize = texts.iter().map(|text| bytes(text) + ITEM_BYTES).sum();
                growth.add(bytes).map_err(raise)?;
            }
            lengths.push(list.len());
            lists.extend(list);
        }
        let count = lists.len();
        let lists = lists.into_iter().map(|list| Ok(Some(list)));
        Ok(Arc::new(ListArray::try_new(
            Arc::clone(item),
            OffsetBuffer::from_lengths(lengths),
            TextList::build(lists, count, item.data_type())?,
            Some(present.into()),
        )?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_sql_are_regular_expressions() {
        let regex = |pattern, escape| of_similar(pattern, escape).unwrap();
        assert_eq!(regex("a%_(b|c).c", "\\"), "^(?:a.*.(?:b|c)\\.c)$");
        assert_eq!(regex("\\d#%[^%\\]", "#"), "^(?:\\\\d\\%[^%\\\\])$");
        assert_eq!(regex("\\d\\+", "\\"), "^(?:\\d\\+)$");
        assert_eq!(regex("a\\", ""), "^(?:a\\\\)$");
        assert!(of_similar("a", "xx").is_err());
        assert!(of_similar("a\\\"b", "\\").is_err());
    }

    #[test]
    fn characters_begin_at_bytes() {
        assert_eq!(byte_of("äb", 1), Some(0));
        assert_eq!(byte_of("äb", 2), Some(2));
        assert_eq!(byte_of("äb", 3), Some(3));
        assert_eq!(byte_of("äb", 4), None);
        assert_eq!(byte_of("äb", 0), None);
    }
}
