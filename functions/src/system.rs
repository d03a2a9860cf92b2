//! Functions of PostgreSQL's catalog that need no catalog.

use arrow_array::types::{Int64Type, UInt32Type};
use arrow_array::{Array, ArrayRef, StringArray, UInt32Array};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::SqlType;
use std::collections::HashMap;
use std::sync::Arc;

use crate::described::{FunctionSignature, format_type};
use crate::errors::{EvalResult, data_error, raise};
use crate::udf::{
    Call, P, R, function, lists, map_rows, map1, map2, opt1, overload, primitive, texts,
};

fn text() -> R {
    R::Sql(SqlType::Text)
}

/// The first transaction id that PostgreSQL gives to a transaction.
const FIRST_TRANSACTION: i64 = 3;

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![
        function(
            "format_type",
            vec![overload(&[P::Int8, P::Int8], text(), |call| {
                let (oids, modifiers) = (
                    primitive::<Int64Type>(call.arg(0)?)?,
                    primitive::<Int64Type>(call.arg(1)?)?,
                );
                map_rows(call, |row| {
                    let modifier = modifiers.is_valid(row).then(|| modifiers.value(row));
                    Ok(oids
                        .is_valid(row)
                        .then(|| format_type(oids.value(row), modifier)))
                })
            })],
        ),
        function(
            "pg_encoding_to_char",
            vec![overload(&[P::Int8], text(), |call| {
                map1(call, |encoding: i64| {
                    Ok(if encoding == 6 { "UTF8" } else { "" }.to_owned())
                })
            })],
        ),
        function(
            "pg_char_to_encoding",
            vec![overload(&[P::Text], R::Sql(SqlType::Int4), |call| {
                map1(call, |name: &str| {
                    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
                    Ok(if name.eq_ignore_ascii_case("utf8") {
                        6
                    } else {
                        -1
                    })
                })
            })],
        ),
        function(
            "pg_get_function_arguments",
            vec![overload(&[P::Int8], text(), |call| {
                opt1(call, function_arguments)
            })],
        ),
        function(
            "pg_get_function_identity_arguments",
            vec![overload(&[P::Int8], text(), |call| {
                opt1(call, function_arguments)
            })],
        ),
        function(
            "pg_get_function_result",
            vec![overload(&[P::Int8], text(), |call| {
                opt1(call, |oid: i64| {
                    Ok(signature(oid).map(FunctionSignature::result_text))
                })
            })],
        ),
        // How many transactions ago one was: the older ones that have no number are as old as can be.
        function(
            "age_of_transaction",
            vec![overload(
                &[P::Int8, P::Int8],
                R::Sql(SqlType::Int4),
                |call| {
                    map2(call, |transaction: i64, now: i64| {
                        Ok(if transaction < FIRST_TRANSACTION {
                            i32::MAX
                        } else {
                            i32::try_from(now - transaction).unwrap_or(i32::MAX)
                        })
                    })
                },
            )],
        ),
        // The OID of what has a name, given the names and the OIDs of all that have one.
        function(
            "lookup_oid",
            vec![overload(
                &[P::Text, P::TextList, P::List],
                R::Sql(SqlType::Oid),
                |call| {
                    lookup_oids(call, |name| {
                        Err(data_error(format!("relation \"{name}\" does not exist")))
                    })
                },
            )],
        ),
        function(
            "lookup_oid_or_null",
            vec![overload(
                &[P::Text, P::TextList, P::List],
                R::Sql(SqlType::Oid),
                |call| lookup_oids(call, |_| Ok(None)),
            )],
        ),
        // What a function's OID prints as.
        function(
            "regproc_name",
            vec![overload(&[P::Int8], text(), |call| {
                map1(call, |oid: i64| {
                    Ok(u32::try_from(oid)
                        .map_or_else(|_| oid.to_string(), crate::signatures::name_of))
                })
            })],
        ),
        function(
            "pg_typeof",
            vec![overload(&[P::Any], text(), |call| {
                let name = SqlType::from_arrow(call.arg(0)?.data_type())
                    .map_or_else(|_| "unknown".to_owned(), |sql| sql.to_string());
                Ok(Arc::new(StringArray::from(vec![name; call.rows])))
            })],
        ),
        function(
            "pg_size_pretty",
            vec![overload(&[P::Int8], text(), |call| {
                map1(call, |bytes: i64| Ok(size_pretty(bytes)))
            })],
        ),
    ]
}

/// `missing`: what a name stands for that is no name of theirs and no number.
fn lookup_oids(
    call: &Call<'_>,
    missing: impl Fn(&str) -> EvalResult<Option<u32>>,
) -> Result<ArrayRef> {
    let names = texts(call.arg(0)?)?;
    let (known, oids) = (lists(call.arg(1)?)?, lists(call.arg(2)?)?);
    // Names and OIDs are the same in every row: the first one that is there will do.
    let mut by_name = HashMap::new();
    if let Some(row) = (0..call.rows).find(|row| known.is_valid(*row) && oids.is_valid(*row)) {
        let (known, oids) = (known.value(row), oids.value(row));
        let (known, oids) = (
            texts(&known)?.clone(),
            primitive::<UInt32Type>(&oids)?.clone(),
        );
        for index in 0..known.len().min(oids.len()) {
            by_name.insert(known.value(index).to_owned(), oids.value(index));
        }
    }
    let found = (0..call.rows).map(|row| {
        if names.is_null(row) {
            return Ok(None);
        }
        let name = names.value(row);
        let found = by_name.get(name).copied();
        match found.or_else(|| name.parse().ok()) {
            Some(oid) => Ok(Some(oid)),
            None => missing(name).map_err(raise),
        }
    });
    Ok(Arc::new(found.collect::<Result<UInt32Array>>()?))
}

fn signature(oid: i64) -> Option<&'static FunctionSignature> {
    u32::try_from(oid).ok().and_then(crate::signatures::by_oid)
}

fn function_arguments(oid: i64) -> EvalResult<Option<String>> {
    Ok(signature(oid).map(FunctionSignature::arguments_text))
}

/// A number of bytes in the largest unit of which there are at least ten.
fn size_pretty(bytes: i64) -> String {
    let mut size = i128::from(bytes);
    let mut half_units = false;
    for unit in ["bytes", "kB", "MB", "GB", "TB"] {
        let shown = if half_units {
            (size + size.signum()) / 2
        } else {
            size
        };
        if shown.abs() < 10 * 1024 || unit == "TB" {
            return format!("{shown} {unit}");
        }
        // Keep one more bit than shown, so that rounding is to nearest.
        size /= if half_units { 1024 } else { 512 };
        half_units = true;
    }
    unreachable!("the last unit takes every size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_by_oid_and_modifier() {
        assert_eq!(format_type(23, Some(-1)), "integer");
        assert_eq!(format_type(1043, Some(14)), "character varying(10)");
        assert_eq!(format_type(1700, Some((10 << 16 | 2) + 4)), "numeric(10,2)");
        assert_eq!(format_type(1009, None), "text[]");
        assert_eq!(format_type(99_999, None), "???");
    }

    #[test]
    fn sizes_are_shown_in_a_readable_unit() {
        assert_eq!(size_pretty(10_239), "10239 bytes");
        assert_eq!(size_pretty(10_240), "10 kB");
        assert_eq!(size_pretty(1_048_576_000), "1000 MB");
    }
}
