//! The categories into which PostgreSQL sorts types, and which type of each is preferred (chapter 10.1 and `pg_type.typcategory`).

use flowstone_types::SqlType;

/// What kinds of types there are, as far as the choice among functions goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TypeCategory {
    /// `A`: arrays and vectors
    Array,
    /// `B`: `boolean`
    Boolean,
    /// `D`: dates, times and timestamps
    DateTime,
    /// `N`: numbers, and object identifiers, which are numbers too
    Numeric,
    /// `S`: characters
    String,
    /// `T`: `interval`
    TimeSpan,
    /// `U`: everything that has no category of its own
    User,
    /// `Z`: `"char"`
    Internal,
}

/// The category of a type.
#[must_use]
pub const fn category(sql_type: &SqlType) -> TypeCategory {
    match sql_type {
        SqlType::Bool => TypeCategory::Boolean,
        SqlType::Int2
        | SqlType::Int4
        | SqlType::Int8
        | SqlType::UInt2
        | SqlType::UInt4
        | SqlType::UInt8
        | SqlType::Float4
        | SqlType::Float8
        | SqlType::Numeric(_)
        | SqlType::Oid
        | SqlType::Reg(_)
        | SqlType::MzTimestamp => TypeCategory::Numeric,
        SqlType::Text | SqlType::VarChar(_) | SqlType::Char(_) | SqlType::Name => {
            TypeCategory::String
        }
        SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz => {
            TypeCategory::DateTime
        }
        SqlType::Interval => TypeCategory::TimeSpan,
        SqlType::Array(_) | SqlType::Int2Vector | SqlType::OidVector => TypeCategory::Array,
        SqlType::QuotedChar => TypeCategory::Internal,
        SqlType::Bytea | SqlType::Jsonb | SqlType::Uuid => TypeCategory::User,
    }
}

/// Whether a type is the one that is taken of its category if nothing else decides.
#[must_use]
pub const fn is_preferred(sql_type: &SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Bool
            | SqlType::Float8
            | SqlType::Oid
            | SqlType::Text
            | SqlType::TimestampTz
            | SqlType::Interval
    )
}
