//! Functions of text and bytea.
//!
//! Positions and lengths count characters. Must not know patterns of dates (`to_char`) or hashes (`crypto`).

mod encodings;
mod identifiers;
mod unicode;

use arrow_array::{Array, ArrayRef, StringArray};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::{EvalError, EvalErrorKind, SqlType};

use self::identifiers::quote_ident;
use crate::cast::any_to_text;
use crate::errors::{
    EvalResult, from_type_error, invalid_escape, invalid_parameter, null_not_allowed, raise,
};
use crate::growth::{Growth, VALUE_BYTES_MAX, allowed, too_long, value_fits};
use crate::pattern::{Patterns, first_group};
use crate::udf::{
    Call, ITEM_BYTES, P, R, TextList, aliased, function, map_rows, map1, map2, map3, map4, opt2,
    overload, texts, variadic,
};

fn text() -> R {
    R::Sql(SqlType::Text)
}

fn text_list() -> R {
    R::Sql(SqlType::Array(Box::new(SqlType::Text)))
}

fn int4() -> R {
    R::Sql(SqlType::Int4)
}

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    [
        lengths(),
        cases_and_parts(),
        padding_and_trimming(),
        composing(),
        encodings::functions(),
        identifiers::functions(),
        unicode::functions(),
        splitting(),
    ]
    .concat()
}

/// A length as PostgreSQL gives it.
fn to_int4(length: usize) -> EvalResult<i32> {
    i32::try_from(length).map_err(|_| crate::errors::out_of_range("integer"))
}

fn characters(call: &Call<'_>) -> Result<ArrayRef> {
    map1(call, |text: &str| to_int4(text.chars().count()))
}

fn lengths() -> Vec<ScalarUDF> {
    vec![
        function(
            "length",
            vec![
                overload(&[P::Text], int4(), characters),
                overload(&[P::Bytea], int4(), |call| {
                    map1(call, |bytes: &[u8]| to_int4(bytes.len()))
                }),
                encodings::length_in(),
            ],
        ),
        aliased(
            "char_length",
            &["character_length"],
            vec![overload(&[P::Text], int4(), characters)],
        ),
        function(
            "octet_length",
            vec![
                overload(&[P::Text], int4(), |call| {
                    map1(call, |text: &str| to_int4(text.len()))
                }),
                overload(&[P::Bytea], int4(), |call| {
                    map1(call, |bytes: &[u8]| to_int4(bytes.len()))
                }),
            ],
        ),
        function(
            "bit_length",
            vec![
                overload(&[P::Text], int4(), |call| {
                    map1(call, |text: &str| to_int4(text.len().saturating_mul(8)))
                }),
                overload(&[P::Bytea], int4(), |call| {
                    map1(call, |bytes: &[u8]| to_int4(bytes.len().saturating_mul(8)))
                }),
            ],
        ),
        function(
            "ascii",
            vec![overload(&[P::Text], int4(), |call| {
                map1(call, |text: &str| {
                    Ok(text
                        .chars()
                        .next()
                        .map_or(0, |first| i32::try_from(u32::from(first)).unwrap_or(0)))
                })
            })],
        ),
        function(
            "bit_count",
            vec![overload(&[P::Bytea], R::Sql(SqlType::Int8), |call| {
                map1(call, |bytes: &[u8]| {
                    Ok(bytes
                        .iter()
                        .map(|byte| i64::from(byte.count_ones()))
                        .sum::<i64>())
                })
            })],
        ),
        function(
            "get_byte",
            vec![overload(&[P::Bytea, P::Int4], int4(), |call| {
                map2(call, |bytes: &[u8], index: i32| {
                    let found = usize::try_from(index)
                        .ok()
                        .and_then(|index| bytes.get(index));
                    found
                        .map(|byte| i32::from(*byte))
                        .ok_or_else(|| bad_index(index, bytes.len()))
                })
            })],
        ),
        function(
            "get_bit",
            vec![overload(&[P::Bytea, P::Int8], int4(), |call| {
                map2(call, |bytes: &[u8], index: i64| {
                    let found = usize::try_from(index)
                        .ok()
                        .and_then(|index| Some((bytes.get(index / 8)?, index % 8)));
                    found
                        .map(|(byte, bit)| i32::from((byte >> bit) & 1))
                        .ok_or_else(|| bad_index(index, bytes.len().saturating_mul(8)))
                })
            })],
        ),
        function(
            "set_byte",
            vec![overload(
                &[P::Bytea, P::Int4, P::Int4],
                R::Sql(SqlType::Bytea),
                |call| map3(call, set_byte),
            )],
        ),
        function(
            "set_bit",
            vec![overload(
                &[P::Bytea, P::Int8, P::Int4],
                R::Sql(SqlType::Bytea),
                |call| map3(call, set_bit),
            )],
        ),
    ]
}

/// The bytes with the lowest one of `value` at `index`.
fn set_byte(bytes: &[u8], index: i32, value: i32) -> EvalResult<Vec<u8>> {
    let mut changed = bytes.to_vec();
    let byte = usize::try_from(index)
        .ok()
        .and_then(|index| changed.get_mut(index))
        .ok_or_else(|| bad_index(index, bytes.len()))?;
    let [lowest, ..] = value.to_le_bytes();
    *byte = lowest;
    Ok(changed)
}

/// The bytes with `value` as the bit at `index`, which counts from the lowest of the first byte.
fn set_bit(bytes: &[u8], index: i64, value: i32) -> EvalResult<Vec<u8>> {
    let mut changed = bytes.to_vec();
    let (byte, bit) = usize::try_from(index)
        .ok()
        .and_then(|index| Some((changed.get_mut(index / 8)?, index % 8)))
        .ok_or_else(|| bad_index(index, bytes.len().saturating_mul(8)))?;
    match value {
        0 => *byte &= !(1 << bit),
        1 => *byte |= 1 << bit,
        _ => return Err(invalid_parameter("new bit must be 0 or 1")),
    }
    Ok(changed)
}

fn bad_index(index: impl std::fmt::Display, length: usize) -> EvalError {
    EvalError::new(
        EvalErrorKind::Subscript,
        format!(
            "index {index} out of valid range, 0..{}",
            i64::try_from(length).unwrap_or(i64::MAX) - 1
        ),
    )
}

fn cases_and_parts() -> Vec<ScalarUDF> {
    vec![
        function(
            "lower",
            vec![overload(&[P::Text], text(), |call| {
                map1(call, |text: &str| Ok(text.to_lowercase()))
            })],
        ),
        function(
            "upper",
            vec![overload(&[P::Text], text(), |call| {
                map1(call, |text: &str| Ok(text.to_uppercase()))
            })],
        ),
        function(
            "initcap",
            vec![overload(&[P::Text], text(), |call| {
                map1(call, |text: &str| Ok(capitalise(text)))
            })],
        ),
        function(
            "reverse",
            vec![overload(&[P::Text], text(), |call| {
                map1(call, |text: &str| {
                    Ok(text.chars().rev().collect::<String>())
                })
            })],
        ),
        function(
            "left",
            vec![overload(&[P::Text, P::Int4], text(), |call| {
                map2(call, |text: &str, count: i32| Ok(left(text, count)))
            })],
        ),
        function(
            "right",
            vec![overload(&[P::Text, P::Int4], text(), |call| {
                map2(call, |text: &str, count: i32| {
                    let reversed: String = text.chars().rev().collect();
                    Ok(left(&reversed, count).chars().rev().collect::<String>())
                })
            })],
        ),
        aliased(
            "substr",
            &["substring"],
            vec![
                overload(&[P::Text, P::Int4], text(), |call| {
                    map2(call, |text: &str, start: i32| {
                        Ok(substring(text, start, None))
                    })
                }),
                overload(&[P::Text, P::Int4, P::Int4], text(), |call| {
                    map3(call, |text: &str, start: i32, count: i32| {
                        not_negative(count)?;
                        Ok(substring(text, start, Some(count)))
                    })
                }),
                overload(&[P::Bytea, P::Int4], R::Sql(SqlType::Bytea), |call| {
                    map2(call, |bytes: &[u8], start: i32| {
                        Ok(part_of(bytes, start, None).to_vec())
                    })
                }),
                overload(
                    &[P::Bytea, P::Int4, P::Int4],
                    R::Sql(SqlType::Bytea),
                    |call| {
                        map3(call, |bytes: &[u8], start: i32, count: i32| {
                            not_negative(count)?;
                            Ok(part_of(bytes, start, Some(count)).to_vec())
                        })
                    },
                ),
                overload(&[P::Text, P::Text], text(), |call| {
                    let mut patterns = Patterns::default();
                    opt2(call, |text: &str, pattern: &str| {
                        first_group(patterns.get(text, pattern, "")?, text)
                    })
                }),
            ],
        ),
        function(
            "strpos",
            vec![overload(&[P::Text, P::Text], int4(), |call| {
                map2(call, position)
            })],
        ),
        function(
            "position",
            vec![
                overload(&[P::Text, P::Text], int4(), |call| map2(call, position)),
                overload(&[P::Bytea, P::Bytea], int4(), |call| {
                    map2(call, position_of_bytes)
                }),
            ],
        ),
        function(
            "split_part",
            vec![overload(&[P::Text, P::Text, P::Int4], text(), |call| {
                map3(call, |text: &str, delimiter: &str, index: i32| {
                    split_part(text, delimiter, index).map(str::to_owned)
                })
            })],
        ),
        function(
            "starts_with",
            vec![overload(
                &[P::Text, P::Text],
                R::Sql(SqlType::Bool),
                |call| {
                    map2(
                        call,
                        |text: &str, prefix: &str| Ok(text.starts_with(prefix)),
                    )
                },
            )],
        ),
    ]
}

fn capitalise(text: &str) -> String {
    let mut inside = false;
    let mut result = String::with_capacity(text.len());
    for letter in text.chars() {
        if inside {
            result.extend(letter.to_lowercase());
        } else {
            result.extend(letter.to_uppercase());
        }
        inside = letter.is_alphanumeric();
    }
    result
}

/// The first `count` characters, or all but the last `-count`.
fn left(text: &str, count: i32) -> String {
    let magnitude = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let take = if count < 0 {
        text.chars().count().saturating_sub(magnitude)
    } else {
        magnitude
    };
    text.chars().take(take).collect()
}

/// The position of `part` in `text`, from 1; 0 if it is not there.
fn position(text: &str, part: &str) -> EvalResult<i32> {
    match text.find(part) {
        Some(at) => to_int4(text.get(..at).unwrap_or_default().chars().count() + 1),
        None => Ok(0),
    }
}

/// The same of bytes.
fn position_of_bytes(bytes: &[u8], part: &[u8]) -> EvalResult<i32> {
    if part.is_empty() {
        return Ok(1);
    }
    let found = bytes.windows(part.len()).position(|window| window == part);
    found.map_or(Ok(0), |at| to_int4(at + 1))
}

fn negative_length() -> EvalError {
    EvalError::new(
        EvalErrorKind::Substring,
        "negative substring length not allowed",
    )
}

fn not_negative(count: i32) -> EvalResult<()> {
    if count < 0 {
        return Err(negative_length());
    }
    Ok(())
}

/// Bytes from position `start` on, as [`substring`].
fn part_of(bytes: &[u8], start: i32, count: Option<i32>) -> &[u8] {
    let start = i64::from(start);
    let index = |position: i64| {
        usize::try_from((position - 1).max(0))
            .unwrap_or(usize::MAX)
            .min(bytes.len())
    };
    let from = index(start);
    let to = count.map_or(bytes.len(), |count| index(start + i64::from(count)));
    bytes.get(from..to).unwrap_or_default()
}

/// From position `start` (from 1; positions before the text count) on, at most `count` characters.
fn substring(text: &str, start: i32, count: Option<i32>) -> String {
    let start = i64::from(start);
    let end = count.map_or(i64::MAX, |count| start + i64::from(count));
    let skip = usize::try_from((start - 1).max(0)).unwrap_or(usize::MAX);
    let take = usize::try_from(end.saturating_sub(start.max(1)).max(0)).unwrap_or(usize::MAX);
    text.chars().skip(skip).take(take).collect()
}

fn split_part<'a>(text: &'a str, delimiter: &str, index: i32) -> EvalResult<&'a str> {
    if index == 0 {
        return Err(invalid_parameter("field position must not be zero"));
    }
    let nth = usize::try_from(index.unsigned_abs() - 1).unwrap_or(usize::MAX);
    if delimiter.is_empty() {
        return Ok(if nth == 0 { text } else { "" });
    }
    let part = if index > 0 {
        text.split(delimiter).nth(nth)
    } else {
        text.rsplit(delimiter).nth(nth)
    };
    Ok(part.unwrap_or_default())
}

fn padding_and_trimming() -> Vec<ScalarUDF> {
    let pad = |name, before: bool| {
        let kernels: [crate::udf::Kernel; 2] = if before {
            [
                |call| map2(call, |text: &str, length: i32| pad(text, length, " ", true)),
                |call| {
                    map3(call, |text: &str, length: i32, fill: &str| {
                        pad(text, length, fill, true)
                    })
                },
            ]
        } else {
            [
                |call| {
                    map2(call, |text: &str, length: i32| {
                        pad(text, length, " ", false)
                    })
                },
                |call| {
                    map3(call, |text: &str, length: i32, fill: &str| {
                        pad(text, length, fill, false)
                    })
                },
            ]
        };
        let [blank, filled] = kernels;
        function(
            name,
            vec![
                overload(&[P::Text, P::Int4], text(), blank),
                overload(&[P::Text, P::Int4, P::Text], text(), filled),
            ],
        )
    };
    vec![
        pad("lpad", true),
        pad("rpad", false),
        aliased(
            "btrim",
            &["trim"],
            vec![
                overload(&[P::Text], text(), |call| {
                    map1(call, |text: &str| Ok(text.trim_matches(' ').to_owned()))
                }),
                overload(&[P::Text, P::Text], text(), |call| {
                    map2(call, |text: &str, set: &str| {
                        Ok(text.trim_matches(|letter| set.contains(letter)).to_owned())
                    })
                }),
                trimmed_bytes(|call| {
                    map2(call, |bytes: &[u8], set: &[u8]| {
                        Ok(trim_end(trim_start(bytes, set), set).to_vec())
                    })
                }),
            ],
        ),
        function(
            "ltrim",
            vec![
                overload(&[P::Text], text(), |call| {
                    map1(call, |text: &str| {
                        Ok(text.trim_start_matches(' ').to_owned())
                    })
                }),
                overload(&[P::Text, P::Text], text(), |call| {
                    map2(call, |text: &str, set: &str| {
                        Ok(text
                            .trim_start_matches(|letter| set.contains(letter))
                            .to_owned())
                    })
                }),
                trimmed_bytes(|call| {
                    map2(call, |bytes: &[u8], set: &[u8]| {
                        Ok(trim_start(bytes, set).to_vec())
                    })
                }),
            ],
        ),
        function(
            "rtrim",
            vec![
                overload(&[P::Text], text(), |call| {
                    map1(call, |text: &str| Ok(text.trim_end_matches(' ').to_owned()))
                }),
                overload(&[P::Text, P::Text], text(), |call| {
                    map2(call, |text: &str, set: &str| {
                        Ok(text
                            .trim_end_matches(|letter| set.contains(letter))
                            .to_owned())
                    })
                }),
                trimmed_bytes(|call| {
                    map2(call, |bytes: &[u8], set: &[u8]| {
                        Ok(trim_end(bytes, set).to_vec())
                    })
                }),
            ],
        ),
    ]
}

fn trimmed_bytes(kernel: crate::udf::Kernel) -> crate::udf::Overload {
    overload(&[P::Bytea, P::Bytea], R::Sql(SqlType::Bytea), kernel)
}

/// Bytes without those at the start that are in `set`.
fn trim_start<'a>(bytes: &'a [u8], set: &[u8]) -> &'a [u8] {
    let kept = bytes.iter().position(|byte| !set.contains(byte));
    kept.and_then(|at| bytes.get(at..)).unwrap_or_default()
}

/// Bytes without those at the end that are in `set`.
fn trim_end<'a>(bytes: &'a [u8], set: &[u8]) -> &'a [u8] {
    let kept = bytes.iter().rposition(|byte| !set.contains(byte));
    kept.and_then(|at| bytes.get(..=at)).unwrap_or_default()
}

fn pad(text: &str, length: i32, fill: &str, before: bool) -> EvalResult<String> {
    let length = usize::try_from(length).unwrap_or(0);
    let have = text.chars().count();
    if have >= length || fill.is_empty() {
        return Ok(text.chars().take(length).collect());
    }
    // As PostgreSQL, which takes every character to be as long as one can be.
    if length.saturating_mul(4) > VALUE_BYTES_MAX {
        return Err(too_long());
    }
    let missing = length - have;
    let letters = fill.chars().count();
    let bytes = (missing / letters + 1).saturating_mul(fill.len());
    value_fits(text.len().saturating_add(bytes))?;
    let mut padded = String::with_capacity(text.len() + bytes);
    if !before {
        padded.push_str(text);
    }
    for _ in 0..missing / letters {
        padded.push_str(fill);
    }
    padded.extend(fill.chars().take(missing % letters));
    if before {
        padded.push_str(text);
    }
    Ok(padded)
}

/// `text` with `to` for every `from`.
fn replace_text(text: &str, from: &str, to: &str) -> EvalResult<String> {
    if from.is_empty() {
        return Ok(text.to_owned());
    }
    if to.len() > from.len() {
        let longer = text
            .matches(from)
            .count()
            .saturating_mul(to.len() - from.len());
        value_fits(text.len().saturating_add(longer))?;
    }
    Ok(text.replace(from, to))
}

fn composing() -> Vec<ScalarUDF> {
    vec![
        function(
            "repeat",
            vec![overload(&[P::Text, P::Int4], text(), |call| {
                map2(call, |text: &str, count: i32| {
                    let count = usize::try_from(count).unwrap_or(0);
                    value_fits(text.len().saturating_mul(count))?;
                    Ok(text.repeat(count))
                })
            })],
        ),
        function(
            "replace",
            vec![overload(&[P::Text, P::Text, P::Text], text(), |call| {
                map3(call, replace_text)
            })],
        ),
        function(
            "translate",
            vec![overload(&[P::Text, P::Text, P::Text], text(), |call| {
                map3(call, |text: &str, from: &str, to: &str| {
                    Ok(translate(text, from, to))
                })
            })],
        ),
        function(
            "overlay",
            vec![
                overload(&[P::Text, P::Text, P::Int4], text(), |call| {
                    map3(call, |text: &str, new: &str, start: i32| {
                        overlay(text, new, start, to_int4(new.chars().count())?)
                    })
                }),
                overload(&[P::Text, P::Text, P::Int4, P::Int4], text(), |call| {
                    map4(call, overlay)
                }),
                overload(
                    &[P::Bytea, P::Bytea, P::Int4],
                    R::Sql(SqlType::Bytea),
                    |call| {
                        map3(call, |bytes: &[u8], new: &[u8], start: i32| {
                            overlay_bytes(bytes, new, start, to_int4(new.len())?)
                        })
                    },
                ),
                overload(
                    &[P::Bytea, P::Bytea, P::Int4, P::Int4],
                    R::Sql(SqlType::Bytea),
                    |call| map4(call, overlay_bytes),
                ),
            ],
        ),
        function(
            "chr",
            vec![overload(&[P::Int4], text(), |call| map1(call, character))],
        ),
        // What the planner puts where a value turns out wrong; the last argument keeps the call from being evaluated before there is a row.
        function(
            "raise_error",
            vec![overload(
                &[P::Text, P::Text, P::Any],
                R::Sql(SqlType::Bool),
                |call| {
                    let kinds = texts(call.arg(0)?)?;
                    let messages = texts(call.arg(1)?)?;
                    map_rows(call, |row| -> EvalResult<Option<bool>> {
                        let kind = match kinds.value(row) {
                            "too long" => EvalErrorKind::TooLong,
                            "cardinality" => EvalErrorKind::Cardinality,
                            _ => EvalErrorKind::Data,
                        };
                        Err(EvalError::new(kind, messages.value(row)))
                    })
                },
            )],
        ),
        function(
            "text_concat",
            vec![overload(&[P::Text, P::Text], text(), |call| {
                map2(call, |a: &str, b: &str| {
                    value_fits(a.len().saturating_add(b.len()))?;
                    Ok([a, b].concat())
                })
            })],
        ),
        function(
            "bytea_concat",
            vec![overload(
                &[P::Bytea, P::Bytea],
                R::Sql(SqlType::Bytea),
                |call| {
                    map2(call, |a: &[u8], b: &[u8]| {
                        value_fits(a.len().saturating_add(b.len()))?;
                        Ok([a, b].concat())
                    })
                },
            )],
        ),
        function(
            "concat",
            vec![variadic(&[P::Any], text(), |call| {
                let parts = text_columns(call, 0)?;
                map_rows(call, |row| {
                    let present: Vec<&str> = parts
                        .iter()
                        .filter(|part| !part.is_null(row))
                        .map(|part| part.value(row))
                        .collect();
                    joined(&present, "").map(Some)
                })
            })],
        ),
        function(
            "concat_ws",
            vec![variadic(&[P::Text, P::Any], text(), |call| {
                let separators = texts(call.arg(0)?)?;
                let parts = text_columns(call, 1)?;
                map_rows(call, |row| {
                    if separators.is_null(row) {
                        return Ok(None);
                    }
                    let present: Vec<&str> = parts
                        .iter()
                        .filter(|part| !part.is_null(row))
                        .map(|part| part.value(row))
                        .collect();
                    joined(&present, separators.value(row)).map(Some)
                })
            })],
        ),
        function(
            "quote_literal",
            vec![overload(&[P::Any], text(), |call| {
                let values = text_columns(call, 0)?;
                let Some(values) = values.first() else {
                    return Ok(crate::udf::nulls(call));
                };
                map_rows(call, |row| {
                    Ok((!values.is_null(row)).then(|| quote_literal(values.value(row))))
                })
            })],
        ),
        function(
            "format",
            vec![variadic(&[P::Text, P::Any], text(), |call| {
                let formats = texts(call.arg(0)?)?;
                let values = text_columns(call, 1)?;
                map_rows(call, |row| {
                    if formats.is_null(row) {
                        return Ok(None);
                    }
                    let value = |index: usize| {
                        let column = values.get(index)?;
                        Some((!column.is_null(row)).then(|| column.value(row)))
                    };
                    format(formats.value(row), value).map(Some)
                })
            })],
        ),
        // A pattern of LIKE … ESCAPE with backslashes for its escapes.
        function(
            "like_escape",
            vec![overload(&[P::Text, P::Text], text(), |call| {
                map2(call, like_escape)
            })],
        ),
        function(
            "quote_nullable",
            vec![overload(&[P::Any], text(), |call| {
                let values = text_columns(call, 0)?;
                let Some(values) = values.first() else {
                    return Ok(crate::udf::nulls(call));
                };
                map_rows(call, |row| {
                    Ok(Some(if values.is_null(row) {
                        "NULL".to_owned()
                    } else {
                        quote_literal(values.value(row))
                    }))
                })
            })],
        ),
        function(
            "to_hex",
            vec![
                overload(&[P::Int4], text(), |call| {
                    map1(call, |value: i32| Ok(format!("{value:x}")))
                }),
                overload(&[P::Int8], text(), |call| {
                    map1(call, |value: i64| Ok(format!("{value:x}")))
                }),
            ],
        ),
    ]
}

/// The character with a code.
fn character(code: i32) -> EvalResult<String> {
    let no_character = |message: String| EvalError::new(EvalErrorKind::NoCharacter, message);
    let code =
        u32::try_from(code).map_err(|_| invalid_parameter("character number must be positive"))?;
    match char::from_u32(code) {
        Some('\0') => Err(no_character("null character not permitted".to_owned())),
        Some(letter) => Ok(letter.to_string()),
        None if code > u32::from(char::MAX) => Err(no_character(format!(
            "requested character too large for encoding: {code}"
        ))),
        None => Err(no_character(format!(
            "requested character not valid for encoding: {code}"
        ))),
    }
}

/// Texts with a separator between two of them.
pub(crate) fn joined(parts: &[&str], separator: &str) -> EvalResult<String> {
    let texts = parts
        .iter()
        .fold(0, |sum: usize, part| sum.saturating_add(part.len()));
    let separators = separator
        .len()
        .saturating_mul(parts.len().saturating_sub(1));
    value_fits(texts.saturating_add(separators))?;
    Ok(parts.join(separator))
}

/// Every argument from `first` on as text, in its output form.
fn text_columns(call: &Call<'_>, first: usize) -> Result<Vec<StringArray>> {
    call.args
        .iter()
        .skip(first)
        .map(|array: &ArrayRef| {
            if *array.data_type() == arrow_schema::DataType::Null {
                return Ok(StringArray::new_null(array.len()));
            }
            if *array.data_type() == arrow_schema::DataType::Utf8 {
                return Ok(texts(array)?.clone());
            }
            // Each is a copy, and there may be many.
            allowed(0)?;
            let sql_type = SqlType::from_arrow(array.data_type())
                .map_err(|error| raise(from_type_error(&error)))?;
            // concat uses the output functions, where a boolean is one letter.
            if sql_type == SqlType::Bool {
                let letters = crate::cast::booleans(array)?
                    .iter()
                    .map(|value| value.map(|value| if value { "t" } else { "f" }));
                return Ok(letters.collect());
            }
            Ok(texts(&any_to_text(array, &sql_type, call.zone)?)?.clone())
        })
        .collect()
}

/// The index of an argument from its number.
fn argument_index(number: Option<usize>) -> EvalResult<usize> {
    number
        .and_then(|number| number.checked_sub(1))
        .ok_or_else(|| {
            invalid_parameter("format specifies argument 0, but arguments are numbered from 1")
        })
}

/// `format`: `%s`, `%I`, `%L` and `%%`, with an argument's number (`%1$s`), a width (`*` is that of an argument) and `-` for left. `value`: an argument, counted from 0;
/// `Some(None)` is NULL.
fn format<'a>(
    format: &str,
    value: impl Fn(usize) -> Option<Option<&'a str>>,
) -> EvalResult<String> {
    let argument = |index: usize| {
        value(index).ok_or_else(|| invalid_parameter("too few arguments for format()"))
    };
    let mut result = String::new();
    let mut letters = format.chars().peekable();
    let mut next = 0;
    while let Some(letter) = letters.next() {
        if letter != '%' {
            result.push(letter);
            continue;
        }
        let number = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut digits = String::new();
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            match digits.as_str() {
                "" => Ok(None),
                digits => match digits.parse::<i32>() {
                    Ok(number) => Ok(usize::try_from(number).ok()),
                    Err(_) => Err(EvalError::new(
                        EvalErrorKind::NumericOutOfRange,
                        "number is out of range",
                    )),
                },
            }
        };
        let mut explicit = None;
        let mut width = number(&mut letters)?;
        if letters.next_if_eq(&'$').is_some() {
            explicit = Some(argument_index(width)?);
            width = None;
        }
        let mut left = letters.next_if_eq(&'-').is_some();
        let mut width = number(&mut letters)?.or(width).unwrap_or(0);
        if letters.next_if_eq(&'*').is_some() {
            if let Some(position) = number(&mut letters)? {
                if letters.next_if_eq(&'$').is_none() {
                    return Err(invalid_parameter(
                        "width argument position must be ended by \"$\"",
                    ));
                }
                next = argument_index(Some(position))?;
            }
            let given = argument(next)?;
            next += 1;
            let given = given.map_or(Ok(0), |given| {
                given
                    .trim()
                    .parse::<i32>()
                    .map_err(|_| crate::errors::invalid_text("integer", given))
            })?;
            left |= given < 0;
            width = usize::try_from(given.unsigned_abs()).unwrap_or(usize::MAX);
        }
        next = explicit.unwrap_or(next);
        let conversion = letters
            .next()
            .ok_or_else(|| invalid_parameter("unterminated format() type specifier"))?;
        if conversion == '%' {
            result.push('%');
            continue;
        }
        let given = argument(next)?;
        next += 1;
        let shown = match (conversion, given) {
            ('s', given) => given.unwrap_or_default().to_owned(),
            ('I', Some(name)) => quote_ident(name),
            ('I', None) => {
                return Err(null_not_allowed(
                    "null values cannot be formatted as an SQL identifier",
                ));
            }
            ('L', Some(literal)) => quote_literal(literal),
            ('L', None) => "NULL".to_owned(),
            (other, _) => {
                return Err(invalid_parameter(format!(
                    "unrecognized format() type specifier \"{other}\""
                )));
            }
        };
        let missing = width.saturating_sub(shown.chars().count());
        value_fits(
            result
                .len()
                .saturating_add(shown.len())
                .saturating_add(missing),
        )?;
        let padding = " ".repeat(missing);
        if left {
            result.push_str(&shown);
        }
        result.push_str(&padding);
        if !left {
            result.push_str(&shown);
        }
    }
    Ok(result)
}

/// The pattern of `LIKE pattern ESCAPE escape`, as LIKE without ESCAPE has it.
fn like_escape(pattern: &str, escape: &str) -> EvalResult<String> {
    let mut letters = escape.chars();
    let (escape, more) = (letters.next(), letters.next());
    if more.is_some() {
        return Err(invalid_escape());
    }
    let mut result = String::with_capacity(pattern.len());
    let mut pattern = pattern.chars();
    while let Some(letter) = pattern.next() {
        if Some(letter) == escape {
            result.push('\\');
            result.extend(pattern.next());
        } else {
            if letter == '\\' {
                result.push('\\');
            }
            result.push(letter);
        }
    }
    Ok(result)
}

fn translate(text: &str, from: &str, to: &str) -> String {
    let replacements: Vec<char> = to.chars().collect();
    text.chars()
        .filter_map(
            |letter| match from.chars().position(|candidate| candidate == letter) {
                None => Some(letter),
                Some(at) => replacements.get(at).copied(),
            },
        )
        .collect()
}

fn overlay(text: &str, new: &str, start: i32, count: i32) -> EvalResult<String> {
    let behind = behind_overlay(start, count)?;
    let head = substring(text, 1, Some(start - 1));
    Ok(head + new + &substring(text, behind, None))
}

fn overlay_bytes(bytes: &[u8], new: &[u8], start: i32, count: i32) -> EvalResult<Vec<u8>> {
    let behind = behind_overlay(start, count)?;
    let head = part_of(bytes, 1, Some(start - 1));
    Ok([head, new, part_of(bytes, behind, None)].concat())
}

/// Where what follows the replaced part begins.
fn behind_overlay(start: i32, count: i32) -> EvalResult<i32> {
    if start <= 0 {
        return Err(negative_length());
    }
    start
        .checked_add(count)
        .ok_or_else(|| crate::errors::out_of_range("integer"))
}

fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

fn splitting() -> Vec<ScalarUDF> {
    vec![function(
        "string_to_array",
        vec![
            overload(&[P::Text, P::Text], text_list(), |call| {
                let (subjects, delimiters) = (texts(call.arg(0)?)?, texts(call.arg(1)?)?);
                map_rows(call, |row| {
                    (!subjects.is_null(row))
                        .then(|| {
                            split_text(
                                subjects.value(row),
                                delimiters.is_valid(row).then(|| delimiters.value(row)),
                                None,
                            )
                        })
                        .transpose()
                })
            }),
            overload(&[P::Text, P::Text, P::Text], text_list(), |call| {
                let (subjects, delimiters, absent) = (
                    texts(call.arg(0)?)?,
                    texts(call.arg(1)?)?,
                    texts(call.arg(2)?)?,
                );
                map_rows(call, |row| {
                    let null = absent.is_valid(row).then(|| absent.value(row));
                    (!subjects.is_null(row))
                        .then(|| {
                            split_text(
                                subjects.value(row),
                                delimiters.is_valid(row).then(|| delimiters.value(row)),
                                null,
                            )
                        })
                        .transpose()
                })
            }),
        ],
    )]
}

/// Parts of a text between delimiters; a NULL delimiter splits into characters. Parts equal to `null` become NULL.
fn split_text(text: &str, delimiter: Option<&str>, null: Option<&str>) -> EvalResult<TextList> {
    let mut growth = Growth::default();
    let mut part = |part: &str| {
        growth.add(part.len() + ITEM_BYTES)?;
        Ok((Some(part) != null).then(|| part.to_owned()))
    };
    match delimiter {
        _ if text.is_empty() => Ok(Vec::new()),
        None => text
            .chars()
            .map(|letter| part(letter.encode_utf8(&mut [0; 4])))
            .collect(),
        Some("") => Ok(vec![part(text)?]),
        Some(delimiter) => text.split(delimiter).map(part).collect(),
    }
}
