//! Functions of PostgreSQL's catalog that need no catalog.

use arrow_array::types::Int64Type;
use arrow_array::{Array, StringArray};
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::SqlType;
use flowstone_types::sql_type::RegKind;
use std::sync::Arc;

use crate::udf::{P, R, function, map_rows, map1, overload, primitive};

fn text() -> R {
    R::Sql(SqlType::Text)
}

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

/// Every type without a modifier or array.
const SCALARS: &[SqlType] = &[
    SqlType::Bool,
    SqlType::Int2,
    SqlType::Int4,
    SqlType::Int8,
    SqlType::UInt2,
    SqlType::UInt4,
    SqlType::UInt8,
    SqlType::Float4,
    SqlType::Float8,
    SqlType::Numeric(None),
    SqlType::Text,
    SqlType::VarChar(None),
    SqlType::Name,
    SqlType::Bytea,
    SqlType::Jsonb,
    SqlType::Date,
    SqlType::Time,
    SqlType::Timestamp,
    SqlType::TimestampTz,
    SqlType::Interval,
    SqlType::Uuid,
    SqlType::Oid,
    SqlType::Reg(RegKind::Class),
    SqlType::Reg(RegKind::Type),
    SqlType::Reg(RegKind::Proc),
    SqlType::Reg(RegKind::Namespace),
    SqlType::MzTimestamp,
    SqlType::QuotedChar,
];

/// The name of the type with an oid, and of its arrays; `???` for an unknown one.
fn format_type(oid: i64, modifier: Option<i64>) -> String {
    let Ok(oid) = u32::try_from(oid) else {
        return "???".to_owned();
    };
    if oid == 0 {
        return "-".to_owned();
    }
    if oid == SqlType::Char(1).oid() {
        return match modifier {
            Some(modifier) if modifier > 4 => format!("character({})", modifier - 4),
            Some(_) => "bpchar".to_owned(),
            None => "character".to_owned(),
        };
    }
    if oid == SqlType::Char(1).array_oid() {
        return "character[]".to_owned();
    }
    for scalar in SCALARS {
        if scalar.array_oid() == oid {
            return format!("{scalar}[]");
        }
        if scalar.oid() == oid {
            return match (scalar, modifier) {
                (SqlType::VarChar(None), Some(modifier)) if modifier >= 4 => {
                    format!("character varying({})", modifier - 4)
                }
                (SqlType::Numeric(None), Some(modifier)) if modifier >= 4 => {
                    format!(
                        "numeric({},{})",
                        (modifier - 4) >> 16 & 0xffff,
                        (modifier - 4) & 0x7ff
                    )
                }
                _ => scalar.to_string(),
            };
        }
    }
    "???".to_owned()
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
