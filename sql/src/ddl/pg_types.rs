//! PostgreSQL's types by OID: which of ours holds their values.

use flowstone_types::SqlType;
use flowstone_types::sql_type::NUMERIC_DEFAULT;

/// The type that a column of PostgreSQL with this type OID and type modifier is captured as; `None` if only its text can be captured.
///
/// `json` becomes `jsonb`. `numeric` without a modifier becomes ours, whose digits are limited: values beyond are errors when they arrive.
#[must_use]
pub fn sql_type(oid: u32, modifier: i32) -> Option<SqlType> {
    scalar(oid, modifier)
        .or_else(|| Some(SqlType::Array(Box::new(scalar(element(oid)?, modifier)?))))
}

fn scalar(oid: u32, modifier: i32) -> Option<SqlType> {
    // For types with a length the modifier is the length and four bytes of header; negative if there is none.
    let length = || {
        u32::try_from(modifier.checked_sub(4)?)
            .ok()
            .filter(|length| *length > 0)
    };
    Some(match oid {
        16 => SqlType::Bool,
        17 => SqlType::Bytea,
        18 => SqlType::QuotedChar,
        19 => SqlType::Name,
        20 => SqlType::Int8,
        21 => SqlType::Int2,
        23 => SqlType::Int4,
        25 => SqlType::Text,
        26 => SqlType::Oid,
        114 | 3802 => SqlType::Jsonb,
        700 => SqlType::Float4,
        701 => SqlType::Float8,
        1042 => SqlType::Char(length().unwrap_or(0)),
        1043 => SqlType::VarChar(length()),
        1082 => SqlType::Date,
        1083 => SqlType::Time,
        1114 => SqlType::Timestamp,
        1184 => SqlType::TimestampTz,
        1186 => SqlType::Interval,
        1700 => numeric(modifier)?,
        2950 => SqlType::Uuid,
        _ => return None,
    })
}

/// `numeric(p,s)` from its modifier; `None` for more digits than we have, or a scale that is negative or larger than the precision.
fn numeric(modifier: i32) -> Option<SqlType> {
    let Some(packed) = modifier.checked_sub(4).filter(|packed| *packed >= 0) else {
        return Some(SqlType::Numeric(None));
    };
    let precision = (packed >> 16) & 0xffff;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    let precision = u8::try_from(precision)
        .ok()
        .filter(|precision| *precision > 0 && *precision <= NUMERIC_DEFAULT.0)?;
    let scale = i8::try_from(scale).ok().filter(|scale| {
        *scale >= 0 && u8::try_from(*scale).is_ok_and(|scale| scale <= precision)
    })?;
    Some(SqlType::Numeric(Some((precision, scale))))
}

/// The element type of an array type.
const fn element(array: u32) -> Option<u32> {
    Some(match array {
        1000 => 16,
        1001 => 17,
        1002 => 18,
        1003 => 19,
        1016 => 20,
        1005 => 21,
        1007 => 23,
        1009 => 25,
        1028 => 26,
        199 => 114,
        1021 => 700,
        1022 => 701,
        1014 => 1042,
        1015 => 1043,
        1182 => 1082,
        1183 => 1083,
        1115 => 1114,
        1185 => 1184,
        1187 => 1186,
        1231 => 1700,
        2951 => 2950,
        3807 => 3802,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::sql_type;

    #[test]
    fn types_and_modifiers_become_ours() {
        for (oid, modifier, expected) in [
            (23, -1, Some("integer")),
            (1043, 14, Some("character varying(10)")),
            (1043, -1, Some("character varying")),
            (1042, 9, Some("character(5)")),
            (1700, -1, Some("numeric")),
            (1700, (10 << 16) + 2 + 4, Some("numeric(10,2)")),
            (1700, (39 << 16) + 4, None),
            (1700, (3 << 16) + 0x7fe + 4, None),
            (1231, (10 << 16) + 2 + 4, Some("numeric(10,2)[]")),
            (1114, 3, Some("timestamp without time zone")),
            (114, -1, Some("jsonb")),
            (199, -1, Some("jsonb[]")),
            (1007, -1, Some("integer[]")),
            (790, -1, None),
        ] {
            assert_eq!(
                sql_type(oid, modifier)
                    .map(|found| found.to_string())
                    .as_deref(),
                expected,
                "{oid} {modifier}"
            );
        }
    }
}
