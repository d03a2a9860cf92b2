//! SQL types and their Arrow representation.
//!
//! The physical Arrow type alone tells most SQL types apart, so that a plan that drops field metadata still gives a sensible answer;
//! what it cannot tell (`varchar(n)` from `text`, `oid` from `uint4`, `numeric(38,18)` from `numeric`) is in the field's metadata under [`TYPE_KEY`].
//!
//! | SQL | Arrow |
//! |---|---|
//! | `bool` | `Boolean` |
//! | `int2/4/8`, `uint2/4/8` | `Int16/32/64`, `UInt16/32/64` |
//! | `float4/8` | `Float32/64` |
//! | `numeric(p,s)` | `Decimal128(p,s)` |
//! | `numeric` | `Decimal128(38,18)`: 20 digits before the point, 18 after; anything beyond is an error, never a rounding of stored data |
//! | `text`, `varchar(n)`, `char(n)`, `name`, `regclass`… | `Utf8` |
//! | `bytea` | `Binary` |
//! | `jsonb` | `LargeBinary`: the canonical form of [`crate::jsonb`] |
//! | `date`, `time` | `Date32`, `Time64(us)` |
//! | `timestamp`, `timestamptz` | `Timestamp(us)`, `Timestamp(us, "UTC")` |
//! | `interval` | `Interval(MonthDayNano)`, nanoseconds a multiple of 1000 |
//! | `uuid` | `FixedSizeBinary(16)` |
//! | `oid`, `mz_timestamp` | `UInt32`, `UInt64` with metadata |
//! | `T[]` | `List(item: T)` |
//! | `int2vector`, `oidvector` | `LargeList(item: int2)`, `LargeList(item: oid)` |

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::TypeError;

/// Field metadata key that carries the exact SQL type, as [`SqlType`]'s `Display`.
pub const TYPE_KEY: &str = "flowstone:type";

/// Field metadata key that says that clients are not told of the type's modifier: it is not one that a column or a cast was given.
const UNDECLARED_KEY: &str = "flowstone:undeclared";

/// Precision and scale of `numeric` without a type modifier.
pub const NUMERIC_DEFAULT: (u8, i8) = (38, 18);

/// A SQL type, as a column or a parameter has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SqlType {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `uint2`
    UInt2,
    /// `uint4`
    UInt4,
    /// `uint8`
    UInt8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric` or `numeric(precision, scale)`
    Numeric(Option<(u8, i8)>),
    /// `text`
    Text,
    /// `character varying` or `character varying(n)`
    VarChar(Option<u32>),
    /// `character(n)`; values are kept blank-padded as PostgreSQL sends them. Of length 0 it is `character` of no length, which is what values of several
    /// lengths have in common: each is padded as it was.
    Char(u32),
    /// `name`
    Name,
    /// `bytea`
    Bytea,
    /// `jsonb` (and `json`, which is an alias)
    Jsonb,
    /// `date`
    Date,
    /// `time without time zone`
    Time,
    /// `timestamp without time zone`
    Timestamp,
    /// `timestamp with time zone`
    TimestampTz,
    /// `interval`
    Interval,
    /// `uuid`
    Uuid,
    /// `oid`
    Oid,
    /// `regclass`, `regtype`, `regproc`: an oid that prints as a name
    Reg(RegKind),
    /// `mz_timestamp`
    MzTimestamp,
    /// `"char"`: one byte, in catalogs
    QuotedChar,
    /// An array of the element type, any number of dimensions up to one (nested arrays are arrays of arrays)
    Array(Box<SqlType>),
    /// `int2vector`: an array in catalogs, whose subscripts count from 0
    Int2Vector,
    /// `oidvector`: likewise
    OidVector,
}

/// Which catalog a [`SqlType::Reg`] points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RegKind {
    /// `regclass`
    Class,
    /// `regtype`
    Type,
    /// `regproc`
    Proc,
    /// `regnamespace`
    Namespace,
}

impl SqlType {
    /// Every type that is no array, those with modifiers without one. `char` is not among them: it has a length.
    pub const SCALARS: &[Self] = &[
        Self::Bool,
        Self::Int2,
        Self::Int4,
        Self::Int8,
        Self::UInt2,
        Self::UInt4,
        Self::UInt8,
        Self::Float4,
        Self::Float8,
        Self::Numeric(None),
        Self::Text,
        Self::VarChar(None),
        Self::Name,
        Self::Bytea,
        Self::Jsonb,
        Self::Date,
        Self::Time,
        Self::Timestamp,
        Self::TimestampTz,
        Self::Interval,
        Self::Uuid,
        Self::Oid,
        Self::Reg(RegKind::Class),
        Self::Reg(RegKind::Type),
        Self::Reg(RegKind::Proc),
        Self::Reg(RegKind::Namespace),
        Self::MzTimestamp,
        Self::QuotedChar,
        Self::Int2Vector,
        Self::OidVector,
    ];

    /// The Arrow type that stores values of this type.
    #[must_use]
    pub fn to_arrow(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::UInt2 => DataType::UInt16,
            Self::UInt4 | Self::Oid | Self::Reg(_) => DataType::UInt32,
            Self::UInt8 | Self::MzTimestamp => DataType::UInt64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Numeric(modifier) => {
                let (precision, scale) = modifier.unwrap_or(NUMERIC_DEFAULT);
                DataType::Decimal128(precision, scale)
            }
            Self::Text | Self::VarChar(_) | Self::Char(_) | Self::Name | Self::QuotedChar => {
                DataType::Utf8
            }
            Self::Bytea => DataType::Binary,
            Self::Jsonb => DataType::LargeBinary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Array(element) => DataType::List(Arc::new(element.to_field("item", true))),
            Self::Int2Vector => DataType::LargeList(Arc::new(Self::Int2.to_field("item", true))),
            Self::OidVector => DataType::LargeList(Arc::new(Self::Oid.to_field("item", true))),
        }
    }

    /// A field of this type, with the metadata that [`SqlType::from_field`] reads back.
    #[must_use]
    pub fn to_field(&self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.to_arrow(), nullable);
        if Self::from_arrow(field.data_type()).as_ref() == Ok(self) {
            return field;
        }
        field.with_metadata(HashMap::from([(TYPE_KEY.to_owned(), self.to_string())]))
    }

    /// Whether [`SqlType::to_arrow`] gives `physical`, whatever the names and metadata of list items.
    fn is_stored_as(&self, physical: &DataType) -> bool {
        match (self, physical) {
            (Self::Array(element), DataType::List(item)) => element.is_stored_as(item.data_type()),
            (Self::Int2Vector, DataType::LargeList(item)) => *item.data_type() == DataType::Int16,
            (Self::OidVector, DataType::LargeList(item)) => *item.data_type() == DataType::UInt32,
            _ => self.to_arrow() == *physical,
        }
    }

    /// The SQL type of a field: from its metadata if it agrees with the Arrow type, else from the Arrow type alone.
    ///
    /// # Errors
    /// [`TypeError::Unsupported`] if no SQL type has this Arrow type.
    pub fn from_field(field: &Field) -> Result<Self, TypeError> {
        if let Some(tagged) = field
            .metadata()
            .get(TYPE_KEY)
            .and_then(|text| text.parse::<Self>().ok())
            && tagged.is_stored_as(field.data_type())
        {
            return Ok(tagged);
        }
        if let DataType::List(item) = field.data_type() {
            return Ok(Self::Array(Box::new(Self::from_field(item)?)));
        }
        Self::from_arrow(field.data_type())
    }

    /// The SQL type that an Arrow type stands for when nothing else is known.
    ///
    /// # Errors
    /// [`TypeError::Unsupported`] if no SQL type has this Arrow type.
    pub fn from_arrow(data_type: &DataType) -> Result<Self, TypeError> {
        Ok(match data_type {
            DataType::Boolean => Self::Bool,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => Self::Int2,
            DataType::Int32 => Self::Int4,
            DataType::Int64 => Self::Int8,
            DataType::UInt16 => Self::UInt2,
            DataType::UInt32 => Self::UInt4,
            DataType::UInt64 => Self::UInt8,
            DataType::Float16 | DataType::Float32 => Self::Float4,
            DataType::Float64 => Self::Float8,
            DataType::Decimal128(precision, scale) if (*precision, *scale) == NUMERIC_DEFAULT => {
                Self::Numeric(None)
            }
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
                Self::Numeric(Some((*p, *s)))
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
                Self::Text
            }
            DataType::Binary | DataType::BinaryView => Self::Bytea,
            DataType::LargeBinary => Self::Jsonb,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Time32(_) | DataType::Time64(_) => Self::Time,
            DataType::Timestamp(_, None) => Self::Timestamp,
            DataType::Timestamp(_, Some(_)) => Self::TimestampTz,
            DataType::Interval(_) | DataType::Duration(_) => Self::Interval,
            DataType::FixedSizeBinary(16) => Self::Uuid,
            DataType::LargeList(item) if *item.data_type() == DataType::Int16 => Self::Int2Vector,
            DataType::LargeList(item) if *item.data_type() == DataType::UInt32 => Self::OidVector,
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                Self::Array(Box::new(Self::from_field(item)?))
            }
            DataType::Dictionary(_, value) => Self::from_arrow(value)?,
            other => return Err(TypeError::Unsupported(other.to_string())),
        })
    }

    /// PostgreSQL's OID of the type; clients choose their decoder by it.
    #[must_use]
    pub fn oid(&self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Int2 => 21,
            Self::Int4 => 23,
            Self::Int8 => 20,
            Self::UInt2 => 16_460,
            Self::UInt4 => 16_462,
            Self::UInt8 => 16_464,
            Self::Float4 => 700,
            Self::Float8 => 701,
            Self::Numeric(_) => 1700,
            Self::Text => 25,
            Self::VarChar(_) => 1043,
            Self::Char(_) => 1042,
            Self::Name => 19,
            Self::Bytea => 17,
            Self::Jsonb => 3802,
            Self::Date => 1082,
            Self::Time => 1083,
            Self::Timestamp => 1114,
            Self::TimestampTz => 1184,
            Self::Interval => 1186,
            Self::Uuid => 2950,
            Self::Oid => 26,
            Self::Reg(RegKind::Class) => 2205,
            Self::Reg(RegKind::Type) => 2206,
            Self::Reg(RegKind::Proc) => 24,
            Self::Reg(RegKind::Namespace) => 4089,
            Self::MzTimestamp => 16_552,
            Self::QuotedChar => 18,
            Self::Array(element) => element.array_oid(),
            Self::Int2Vector => 22,
            Self::OidVector => 30,
        }
    }

    /// The type of the elements, if it is an array or a vector.
    #[must_use]
    pub fn element(&self) -> Option<Self> {
        match self {
            Self::Array(element) => Some((**element).clone()),
            Self::Int2Vector => Some(Self::Int2),
            Self::OidVector => Some(Self::Oid),
            _ => None,
        }
    }

    /// Whether it is one of the types of whole numbers that are nothing but numbers, signed or not.
    #[must_use]
    pub const fn is_integer(&self) -> bool {
        matches!(
            self,
            Self::Int2 | Self::Int4 | Self::Int8 | Self::UInt2 | Self::UInt4 | Self::UInt8
        )
    }

    /// Whether its values, or their items, are padded with blanks.
    #[must_use]
    pub fn is_padded(&self) -> bool {
        match self {
            Self::Char(_) => true,
            Self::Array(element) => element.is_padded(),
            _ => false,
        }
    }

    /// Whether its values, or their items, are padded to lengths of their own: those that are equal may have different ones.
    #[must_use]
    pub fn is_padded_unevenly(&self) -> bool {
        match self {
            Self::Char(length) => *length == 0,
            Self::Array(element) => element.is_padded_unevenly(),
            _ => false,
        }
    }

    /// The type without a length, precision or scale.
    #[must_use]
    pub fn without_modifier(&self) -> Self {
        match self {
            Self::Numeric(_) => Self::Numeric(None),
            Self::VarChar(_) => Self::VarChar(None),
            Self::Char(_) => Self::Char(0),
            Self::Array(element) => Self::Array(Box::new(element.without_modifier())),
            other => other.clone(),
        }
    }

    /// How a statement names the type: as [`fmt::Display`] does, but for `character` of no length, which means one of length 1 there.
    #[must_use]
    pub fn spelling(&self) -> String {
        match self {
            Self::Char(0) => "bpchar".to_owned(),
            Self::Array(element) => format!("{}[]", element.spelling()),
            other => other.to_string(),
        }
    }

    /// The type of its values without padding.
    #[must_use]
    pub fn without_padding(&self) -> Self {
        match self {
            Self::Char(_) => Self::Text,
            Self::Array(element) => Self::Array(Box::new(element.without_padding())),
            other => other.clone(),
        }
    }

    /// Whether it is an array in catalogs, whose subscripts count from 0.
    #[must_use]
    pub const fn is_vector(&self) -> bool {
        matches!(self, Self::Int2Vector | Self::OidVector)
    }

    /// PostgreSQL's OID of the array of this type. An array of arrays has the OID of the innermost element's array, as in PostgreSQL.
    #[must_use]
    pub fn array_oid(&self) -> u32 {
        match self {
            Self::Bool => 1000,
            Self::Int2 => 1005,
            Self::Int4 => 1007,
            Self::Int8 => 1016,
            Self::UInt2 => 16_461,
            Self::UInt4 => 16_463,
            Self::UInt8 => 16_465,
            Self::Float4 => 1021,
            Self::Float8 => 1022,
            Self::Numeric(_) => 1231,
            Self::Text => 1009,
            Self::VarChar(_) => 1015,
            Self::Char(_) => 1014,
            Self::Name => 1003,
            Self::Bytea => 1001,
            Self::Jsonb => 3807,
            Self::Date => 1182,
            Self::Time => 1183,
            Self::Timestamp => 1115,
            Self::TimestampTz => 1185,
            Self::Interval => 1187,
            Self::Uuid => 2951,
            Self::Oid => 1028,
            Self::Reg(RegKind::Class) => 2210,
            Self::Reg(RegKind::Type) => 2211,
            Self::Reg(RegKind::Proc) => 1008,
            Self::Reg(RegKind::Namespace) => 4090,
            Self::MzTimestamp => 16_553,
            Self::QuotedChar => 1002,
            Self::Array(inner) => inner.array_oid(),
            Self::Int2Vector => 1006,
            Self::OidVector => 1013,
        }
    }

    /// Bytes of a value if they are fixed, else -1: PostgreSQL's `typlen`.
    #[must_use]
    pub fn type_length(&self) -> i16 {
        match self {
            Self::Bool | Self::QuotedChar => 1,
            Self::Int2 | Self::UInt2 => 2,
            Self::Int4 | Self::UInt4 | Self::Float4 | Self::Date | Self::Oid | Self::Reg(_) => 4,
            Self::Int8
            | Self::UInt8
            | Self::Float8
            | Self::Time
            | Self::Timestamp
            | Self::TimestampTz
            | Self::MzTimestamp => 8,
            Self::Interval | Self::Uuid => 16,
            Self::Name => 64,
            Self::Numeric(_)
            | Self::Text
            | Self::VarChar(_)
            | Self::Char(_)
            | Self::Bytea
            | Self::Jsonb
            | Self::Array(_)
            | Self::Int2Vector
            | Self::OidVector => -1,
        }
    }

    /// PostgreSQL's type modifier (`atttypmod`), -1 if there is none.
    #[must_use]
    pub fn type_modifier(&self) -> i32 {
        match self {
            Self::Char(0) => -1,
            Self::VarChar(Some(length)) | Self::Char(length) => {
                i32::try_from(*length).unwrap_or(i32::MAX - 4) + 4
            }
            Self::Numeric(Some((precision, scale))) => {
                ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4
            }
            _ => -1,
        }
    }
}

/// The field, its type's modifier being one that clients are not told of; a type without a modifier stays as it is.
#[must_use]
pub fn without_shown_modifier(mut field: Field) -> Field {
    if SqlType::from_field(&field).is_ok_and(|sql_type| sql_type.type_modifier() >= 0) {
        let metadata = field.metadata_mut();
        metadata.insert(UNDECLARED_KEY.to_owned(), String::new());
    }
    field
}

/// The type modifier that clients are told of for a column of type `sql_type`; -1 without one.
#[must_use]
pub fn shown_modifier(field: &Field, sql_type: &SqlType) -> i32 {
    if field.metadata().contains_key(UNDECLARED_KEY) {
        -1
    } else {
        sql_type.type_modifier()
    }
}

/// Parses what [`SqlType`]'s `Display` writes, and nothing else. SQL type names as users write them are parsed by the `sql` crate.
impl std::str::FromStr for SqlType {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unsupported = || TypeError::Unsupported(text.to_owned());
        if let Some(element) = text.strip_suffix("[]") {
            return Ok(Self::Array(Box::new(element.parse()?)));
        }
        if let Some((name, arguments)) =
            text.strip_suffix(')').and_then(|rest| rest.split_once('('))
        {
            return match name {
                "numeric" => {
                    let (precision, scale) = arguments.split_once(',').ok_or_else(unsupported)?;
                    let precision = precision.parse().map_err(|_| unsupported())?;
                    let scale = scale.parse().map_err(|_| unsupported())?;
                    Ok(Self::Numeric(Some((precision, scale))))
                }
                "character varying" => Ok(Self::VarChar(Some(
                    arguments.parse().map_err(|_| unsupported())?,
                ))),
                "character" => Ok(Self::Char(arguments.parse().map_err(|_| unsupported())?)),
                _ => Err(unsupported()),
            };
        }
        Ok(match text {
            "boolean" => Self::Bool,
            "smallint" => Self::Int2,
            "integer" => Self::Int4,
            "bigint" => Self::Int8,
            "uint2" => Self::UInt2,
            "uint4" => Self::UInt4,
            "uint8" => Self::UInt8,
            "real" => Self::Float4,
            "double precision" => Self::Float8,
            "numeric" => Self::Numeric(None),
            "text" => Self::Text,
            "character varying" => Self::VarChar(None),
            "character" => Self::Char(0),
            "name" => Self::Name,
            "bytea" => Self::Bytea,
            "jsonb" => Self::Jsonb,
            "date" => Self::Date,
            "time without time zone" => Self::Time,
            "timestamp without time zone" => Self::Timestamp,
            "timestamp with time zone" => Self::TimestampTz,
            "interval" => Self::Interval,
            "uuid" => Self::Uuid,
            "oid" => Self::Oid,
            "regclass" => Self::Reg(RegKind::Class),
            "regtype" => Self::Reg(RegKind::Type),
            "regproc" => Self::Reg(RegKind::Proc),
            "regnamespace" => Self::Reg(RegKind::Namespace),
            "mz_timestamp" => Self::MzTimestamp,
            "\"char\"" => Self::QuotedChar,
            "int2vector" => Self::Int2Vector,
            "oidvector" => Self::OidVector,
            _ => return Err(unsupported()),
        })
    }
}

/// The name `format_type` gives: `character varying(10)`, `timestamp with time zone`, `integer[]`.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "boolean",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::UInt2 => "uint2",
            Self::UInt4 => "uint4",
            Self::UInt8 => "uint8",
            Self::Float4 => "real",
            Self::Float8 => "double precision",
            Self::Numeric(None) => "numeric",
            Self::Numeric(Some((precision, scale))) => {
                return write!(f, "numeric({precision},{scale})");
            }
            Self::Text => "text",
            Self::VarChar(None) => "character varying",
            Self::VarChar(Some(length)) => return write!(f, "character varying({length})"),
            Self::Char(0) => "character",
            Self::Char(length) => return write!(f, "character({length})"),
            Self::Name => "name",
            Self::Bytea => "bytea",
            Self::Jsonb => "jsonb",
            Self::Date => "date",
            Self::Time => "time without time zone",
            Self::Timestamp => "timestamp without time zone",
            Self::TimestampTz => "timestamp with time zone",
            Self::Interval => "interval",
            Self::Uuid => "uuid",
            Self::Oid => "oid",
            Self::Reg(RegKind::Class) => "regclass",
            Self::Reg(RegKind::Type) => "regtype",
            Self::Reg(RegKind::Proc) => "regproc",
            Self::Reg(RegKind::Namespace) => "regnamespace",
            Self::MzTimestamp => "mz_timestamp",
            Self::QuotedChar => "\"char\"",
            Self::Array(element) => return write!(f, "{element}[]"),
            Self::Int2Vector => "int2vector",
            Self::OidVector => "oidvector",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
