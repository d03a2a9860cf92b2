//! Which casts there are, and which of them are made without being asked for.
//!
//! Owns PostgreSQL's `pg_cast`, its conversions through text, and the same for the types that are ours. Must not know how a cast is done, but that what
//! [`can_cast`] does not do is none.

use flowstone_types::SqlType;
use flowstone_types::sql_type::RegKind;

use super::category::{TypeCategory, category};
use crate::cast::can_cast;

/// The weakest context in which a cast is made by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CastContext {
    /// In any expression.
    Implicit,
    /// Where a value is stored into a column.
    Assignment,
    /// Only where it is written.
    Explicit,
}

/// The context of the cast between two types, whatever their modifiers are; `None` if there is no such cast.
#[must_use]
pub fn cast_context(from: &SqlType, to: &SqlType) -> Option<CastContext> {
    let (from, to) = (from.without_modifier(), to.without_modifier());
    if from == to {
        return Some(CastContext::Implicit);
    }
    let found = match (from.element(), &to) {
        (Some(from), SqlType::Array(to)) => cast_context(&from, to),
        _ => listed(&from, &to).or_else(|| through_text(&from, &to)),
    };
    found.filter(|_| can_cast(&from, &to))
}

/// Whether a value of one type becomes one of the other in any expression.
pub(super) fn is_implicit(from: &SqlType, to: &SqlType) -> bool {
    cast_context(from, to) == Some(CastContext::Implicit)
}

/// The casts of `pg_cast` between different types that are no arrays, and those of our own types.
fn listed(from: &SqlType, to: &SqlType) -> Option<CastContext> {
    use CastContext::{Assignment, Explicit, Implicit};
    use SqlType::{
        Bool, Char, Date, Float4, Float8, Int2, Int4, Int8, Interval, Jsonb, MzTimestamp, Name,
        Numeric, Oid, QuotedChar, Reg, Text, Time, Timestamp, TimestampTz, UInt2, UInt4, UInt8,
        VarChar,
    };
    Some(match (from, to) {
        (Int2, Int4 | Int8) | (Int4, Int8) => Implicit,
        (Int2 | Int4 | Int8, Float4 | Float8 | Numeric(_)) => Implicit,
        (Numeric(_), Float4 | Float8) | (Float4, Float8) => Implicit,
        (
            Int2 | Int4 | Int8 | Float4 | Float8 | Numeric(_),
            Int2 | Int4 | Int8 | Float4 | Numeric(_),
        ) => Assignment,
        (UInt2, UInt4 | UInt8 | Int4 | Int8) | (UInt4, UInt8 | Int8) => Implicit,
        (UInt2 | UInt4 | UInt8, Float4 | Float8 | Numeric(_)) => Implicit,
        (UInt2 | UInt4 | UInt8, UInt2 | UInt4 | UInt8 | Int2 | Int4 | Int8) => Assignment,
        (Int2 | Int4 | Int8 | Float4 | Float8 | Numeric(_), UInt2 | UInt4 | UInt8) => Assignment,
        (Int2 | Int4 | Int8, Oid | Reg(_)) | (Oid, Int8 | Reg(_)) | (Reg(_), Oid | Int8) => {
            Implicit
        }
        (Oid | Reg(_), Int4) => Assignment,
        (Int2 | Int4 | Int8 | UInt2 | UInt4 | UInt8 | Numeric(_), MzTimestamp) => Implicit,
        (MzTimestamp, UInt8 | Numeric(_)) => Assignment,
        (Text | VarChar(_), Reg(RegKind::Class)) => Implicit,
        (Text, VarChar(_) | Char(_) | Name) | (VarChar(_), Text | Char(_) | Name) => Implicit,
        (Char(_), Text | VarChar(_) | Name) | (Name | QuotedChar, Text) => Implicit,
        (Text | VarChar(_) | Char(_), QuotedChar) => Assignment,
        (Name | QuotedChar, VarChar(_) | Char(_)) => Assignment,
        (QuotedChar, Int4) | (Int4, QuotedChar) => Explicit,
        (Date, Timestamp | TimestampTz) | (Timestamp, TimestampTz) | (Time, Interval) => Implicit,
        (Timestamp, Date | Time) | (TimestampTz, Date | Time | Timestamp) => Assignment,
        (Interval, Time) => Assignment,
        (Bool, Int4) | (Int4, Bool) => Explicit,
        (Jsonb, Bool | Int2 | Int4 | Int8 | Float4 | Float8 | Numeric(_)) => Explicit,
        // What is left of the types that PostgreSQL has not: whatever can be done.
        (UInt2 | UInt4 | UInt8 | MzTimestamp, other)
        | (other, UInt2 | UInt4 | UInt8 | MzTimestamp)
            if category(other) != TypeCategory::String =>
        {
            Explicit
        }
        _ => return None,
    })
}

/// The conversions that every type has: by its text.
fn through_text(from: &SqlType, to: &SqlType) -> Option<CastContext> {
    if category(to) == TypeCategory::String {
        Some(CastContext::Assignment)
    } else if category(from) == TypeCategory::String {
        Some(CastContext::Explicit)
    } else {
        None
    }
}
