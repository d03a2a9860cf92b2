//! PostgreSQL's types by OID, and how each is read.
//!
//! Called by the planner (through [`crate::sql_type`]) when a table is added, and by the snapshot to choose how a column is copied.

use flowstone_types::SqlType;

/// How a column of a snapshot is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyFormat {
    /// In its type's binary format.
    Binary,
    /// Cast to `text`.
    Text,
}

/// The SQL type that stores values of the PostgreSQL type `type_oid` with the modifier `type_modifier` (`atttypmod`, -1 if none).
///
/// `None` for types that are captured only as text.
#[must_use]
pub fn sql_type(type_oid: u32, type_modifier: i32) -> Option<SqlType> {
    if let Some(scalar) = scalar_type(type_oid, type_modifier) {
        return Some(scalar);
    }
    let element = match type_oid {
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
        3807 => 3802,
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
        _ => return None,
    };
    scalar_type(element, type_modifier).map(|element| SqlType::Array(Box::new(element)))
}

fn scalar_type(type_oid: u32, type_modifier: i32) -> Option<SqlType> {
    Some(match type_oid {
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
        // Without a length `bpchar` is of any length, and still compared without the blanks at its end.
        1042 => SqlType::Char(length(type_modifier).unwrap_or(0)),
        1043 => SqlType::VarChar(length(type_modifier)),
        1082 => SqlType::Date,
        1083 => SqlType::Time,
        1114 => SqlType::Timestamp,
        1184 => SqlType::TimestampTz,
        1186 => SqlType::Interval,
        1700 => return numeric(type_modifier),
        2950 => SqlType::Uuid,
        _ => return None,
    })
}

fn length(type_modifier: i32) -> Option<u32> {
    u32::try_from(type_modifier.checked_sub(4)?).ok()
}

/// `numeric(p,s)` if it fits 38 digits; beyond that only text can hold it.
fn numeric(type_modifier: i32) -> Option<SqlType> {
    let Some(modifier) = type_modifier
        .checked_sub(4)
        .filter(|modifier| *modifier >= 0)
    else {
        return Some(SqlType::Numeric(None));
    };
    let precision = u8::try_from(modifier >> 16)
        .ok()
        .filter(|precision| *precision <= 38)?;
    // Eleven bits, signed: PostgreSQL 15 allows scales from -1000 to 1000.
    let scale = ((modifier & 0x7ff) ^ 1024) - 1024;
    let scale = i8::try_from(scale)
        .ok()
        .filter(|scale| (0..=38).contains(scale))?;
    let precision = precision.max(u8::try_from(scale).ok()?);
    Some(SqlType::Numeric(Some((precision, scale))))
}

/// How the snapshot copies a column of this type. Types whose binary form is not worth a decoder, or differs from what is stored, go as text.
pub(crate) fn copy_format(type_oid: u32) -> CopyFormat {
    match type_oid {
        16 | 17 | 19 | 20 | 21 | 23 | 25 | 26 | 700 | 701 | 1042 | 1043 | 1082 | 1083 | 1114
        | 1184 | 1186 | 1700 | 2950 | 3802 => CopyFormat::Binary,
        _ => CopyFormat::Text,
    }
}

/// Whether there are values of this type that its column cannot hold and whose binary form does not tell what the text of the stream does.
pub(crate) const fn may_not_fit(type_oid: u32) -> bool {
    matches!(type_oid, 1082 | 1114 | 1184 | 1186 | 1700 | 3802)
}
