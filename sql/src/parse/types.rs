//! SQL type names.

use flowstone_types::SqlType;
use flowstone_types::sql_type::RegKind;
use sqlparser::ast::{ArrayElemTypeDef, CharacterLength, DataType, ExactNumberInfo, TimezoneInfo};

use crate::error::{Error, ErrorKind};

/// The largest precision of `numeric`.
const NUMERIC_PRECISION_MAX: u64 = 38;
/// The largest length of `varchar(n)` and `char(n)`, as in PostgreSQL.
const LENGTH_MAX: u64 = 10_485_760;

/// The type that a parsed type name stands for.
///
/// # Errors
/// [`ErrorKind::UndefinedObject`] for a name that is no type; [`ErrorKind::FeatureNotSupported`] for a type of PostgreSQL that we do not have;
/// [`ErrorKind::InvalidParameterValue`] for a modifier out of range.
pub fn parse_type(data_type: &DataType) -> Result<SqlType, Error> {
    Ok(match data_type {
        DataType::Bool | DataType::Boolean => SqlType::Bool,
        DataType::Int2(None) | DataType::SmallInt(None) => SqlType::Int2,
        DataType::Int(None) | DataType::Int4(None) | DataType::Integer(None) => SqlType::Int4,
        DataType::Int8(None) | DataType::BigInt(None) => SqlType::Int8,
        DataType::Float4 | DataType::Real => SqlType::Float4,
        DataType::Float8 | DataType::Double(ExactNumberInfo::None) | DataType::DoublePrecision => {
            SqlType::Float8
        }
        DataType::Float(info) => match info {
            ExactNumberInfo::None => SqlType::Float8,
            ExactNumberInfo::Precision(1..=24) => SqlType::Float4,
            ExactNumberInfo::Precision(25..=53) => SqlType::Float8,
            _ => {
                return Err(out_of_range(
                    "precision for type float must be between 1 and 53 bits",
                ));
            }
        },
        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => numeric(info)?,
        DataType::Text => SqlType::Text,
        DataType::String(None) => SqlType::Text,
        DataType::Varchar(length)
        | DataType::CharacterVarying(length)
        | DataType::CharVarying(length) => SqlType::VarChar(
            length
                .as_ref()
                .map(|length| character_length("varchar", length))
                .transpose()?,
        ),
        DataType::Char(length) | DataType::Character(length) => SqlType::Char(
            length
                .as_ref()
                .map(|length| character_length("char", length))
                .transpose()?
                .unwrap_or(1),
        ),
        DataType::Bytea => SqlType::Bytea,
        DataType::JSON | DataType::JSONB => SqlType::Jsonb,
        DataType::Uuid => SqlType::Uuid,
        DataType::Date => SqlType::Date,
        DataType::Time(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            time_precision("time", *precision)?;
            SqlType::Time
        }
        DataType::Timestamp(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            time_precision("timestamp", *precision)?;
            SqlType::Timestamp
        }
        DataType::Timestamp(precision, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
            time_precision("timestamptz", *precision)?;
            SqlType::TimestampTz
        }
        DataType::Interval { .. } => SqlType::Interval,
        DataType::Regclass => SqlType::Reg(RegKind::Class),
        DataType::UInt8 => SqlType::UInt8,
        DataType::Array(element) => match element {
            ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::AngleBracket(element)
            | ArrayElemTypeDef::Parenthesis(element) => {
                SqlType::Array(Box::new(parse_type(element)?))
            }
            ArrayElemTypeDef::None => return Err(unknown("array")),
        },
        DataType::Custom(name, modifiers) => custom(name, modifiers)?,
        DataType::Time(..)
        | DataType::Bit(_)
        | DataType::BitVarying(_)
        | DataType::VarBit(_)
        | DataType::GeometricType(_)
        | DataType::TsVector
        | DataType::TsQuery => {
            return Err(Error::unsupported(format!(
                "type \"{}\" is not supported",
                data_type.to_string().to_ascii_lowercase()
            )));
        }
        other => return Err(unknown(&other.to_string().to_ascii_lowercase())),
    })
}

fn unknown(name: &str) -> Error {
    Error::new(
        ErrorKind::UndefinedObject,
        format!("type \"{name}\" does not exist"),
    )
}

fn out_of_range(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidParameterValue, message)
}

fn character_length(name: &str, length: &CharacterLength) -> Result<u32, Error> {
    match length {
        CharacterLength::IntegerLength { length: 0, .. } => Err(out_of_range(format!(
            "length for type {name} must be at least 1"
        ))),
        CharacterLength::IntegerLength { length, .. } if *length > LENGTH_MAX => Err(out_of_range(
            format!("length for type {name} cannot exceed {LENGTH_MAX}"),
        )),
        CharacterLength::IntegerLength { length, .. } => {
            u32::try_from(*length).map_err(|_| out_of_range("length out of range"))
        }
        CharacterLength::Max => Err(unknown(&format!("{name}(max)"))),
    }
}

fn time_precision(name: &str, precision: Option<u64>) -> Result<(), Error> {
    match precision {
        Some(7..) => Err(out_of_range(format!(
            "precision for type {name} must be between 0 and 6"
        ))),
        Some(0..=5) => Err(Error::unsupported(format!(
            "type {name} with a precision below 6 is not supported"
        ))
        .with_hint(format!(
            "Use \"{name}\" without a precision: values then keep their microseconds."
        ))),
        _ => Ok(()),
    }
}

fn numeric(info: &ExactNumberInfo) -> Result<SqlType, Error> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(SqlType::Numeric(None)),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    if precision == 0 || precision > NUMERIC_PRECISION_MAX {
        return Err(out_of_range(format!(
            "precision for type numeric must be between 1 and {NUMERIC_PRECISION_MAX}"
        )));
    }
    let precision = u8::try_from(precision)
        .map_err(|_| out_of_range("precision for type numeric out of range"))?;
    let scale = i8::try_from(scale)
        .ok()
        .filter(|scale| *scale >= 0 && i16::from(*scale) <= i16::from(precision));
    let scale = scale.ok_or_else(|| {
        out_of_range(format!(
            "scale for type numeric must be between 0 and precision {precision}"
        ))
    })?;
    Ok(SqlType::Numeric(Some((precision, scale))))
}

/// Names that `sqlparser` has no own node for, with or without `pg_catalog.` or `mz_catalog.` before them.
fn custom(name: &sqlparser::ast::ObjectName, modifiers: &[String]) -> Result<SqlType, Error> {
    let parts: Vec<(String, bool)> = name
        .0
        .iter()
        .filter_map(|part| part.as_ident())
        .map(|ident| match ident.quote_style {
            Some(_) => (ident.value.clone(), true),
            None => (ident.value.to_ascii_lowercase(), false),
        })
        .collect();
    let full = || {
        parts
            .iter()
            .map(|(part, _)| part.as_str())
            .collect::<Vec<_>>()
            .join(".")
    };
    let (base, quoted) = match parts.as_slice() {
        [(base, quoted)] => (base.as_str(), *quoted),
        [(schema, _), (base, quoted)] if matches!(schema.as_str(), "pg_catalog" | "mz_catalog") => {
            (base.as_str(), *quoted)
        }
        _ => return Err(unknown(&full())),
    };
    if quoted && base == "char" {
        return Ok(SqlType::QuotedChar);
    }
    let length = |name: &str| -> Result<Option<u32>, Error> {
        let Some(modifier) = modifiers.first() else {
            return Ok(None);
        };
        let length = modifier
            .parse()
            .map_err(|_| out_of_range(format!("invalid length for type {name}: \"{modifier}\"")))?;
        character_length(name, &CharacterLength::IntegerLength { length, unit: None }).map(Some)
    };
    let precision = |name: &str| {
        time_precision(
            name,
            modifiers.first().and_then(|modifier| modifier.parse().ok()),
        )
    };
    Ok(match base {
        "bool" | "boolean" => SqlType::Bool,
        "int2" | "smallint" => SqlType::Int2,
        "int" | "int4" | "integer" => SqlType::Int4,
        "int8" | "bigint" => SqlType::Int8,
        "uint2" => SqlType::UInt2,
        "uint4" => SqlType::UInt4,
        "uint8" => SqlType::UInt8,
        "float4" | "real" => SqlType::Float4,
        "float8" | "double" => SqlType::Float8,
        "numeric" | "decimal" => {
            let mut numbers = modifiers.iter().map(|modifier| modifier.parse::<i64>());
            match (numbers.next(), numbers.next()) {
                (None, _) => SqlType::Numeric(None),
                (Some(Ok(precision)), scale) => {
                    let precision = u64::try_from(precision).unwrap_or(0);
                    numeric(&ExactNumberInfo::PrecisionAndScale(
                        precision,
                        scale.and_then(Result::ok).unwrap_or(0),
                    ))?
                }
                _ => return Err(out_of_range("invalid modifier for type numeric")),
            }
        }
        "text" | "string" => SqlType::Text,
        "varchar" => SqlType::VarChar(length("varchar")?),
        "bpchar" => SqlType::Char(length("bpchar")?.unwrap_or(0)),
        "char" | "character" => SqlType::Char(length("char")?.unwrap_or(1)),
        "name" => SqlType::Name,
        "bytea" | "bytes" => SqlType::Bytea,
        "json" | "jsonb" => SqlType::Jsonb,
        "date" => SqlType::Date,
        "time" => {
            precision("time")?;
            SqlType::Time
        }
        "timestamp" => {
            precision("timestamp")?;
            SqlType::Timestamp
        }
        "timestamptz" => {
            precision("timestamptz")?;
            SqlType::TimestampTz
        }
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        // Transaction ids are numbers of the same kind; of operators there are none to print.
        "oid" | "xid" | "regoper" | "regoperator" => SqlType::Oid,
        "regclass" => SqlType::Reg(RegKind::Class),
        "regtype" => SqlType::Reg(RegKind::Type),
        "regproc" => SqlType::Reg(RegKind::Proc),
        "regnamespace" => SqlType::Reg(RegKind::Namespace),
        "mz_timestamp" => SqlType::MzTimestamp,
        "int2vector" => SqlType::Array(Box::new(SqlType::Int2)),
        "_bool" => SqlType::Array(Box::new(SqlType::Bool)),
        "_int2" => SqlType::Array(Box::new(SqlType::Int2)),
        "_int4" => SqlType::Array(Box::new(SqlType::Int4)),
        "_int8" => SqlType::Array(Box::new(SqlType::Int8)),
        "_text" => SqlType::Array(Box::new(SqlType::Text)),
        "_numeric" => SqlType::Array(Box::new(SqlType::Numeric(None))),
        "timetz" | "money" | "hstore" | "citext" | "xml" | "cidr" | "inet" | "macaddr"
        | "int4range" | "int8range" | "numrange" | "daterange" | "tsrange" | "tstzrange"
        | "point" | "line" | "lseg" | "box" | "path" | "polygon" | "circle" | "bit" | "varbit"
        | "tsvector" | "tsquery" | "cid" | "tid" | "regrole" | "regconfig" | "regprocedure" => {
            return Err(Error::unsupported(format!(
                "type \"{base}\" is not supported"
            )));
        }
        _ => return Err(unknown(&full())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn parse(text: &str) -> Result<SqlType, Error> {
        let dialect = crate::parse::dialect::FlowstoneDialect::new(100);
        let data_type = sqlparser::parser::Parser::new(&dialect)
            .try_with_sql(text)
            .unwrap()
            .parse_data_type()
            .unwrap();
        parse_type(&data_type)
    }

    #[test]
    fn every_type_of_the_surface_has_its_names() {
        for (text, expected) in [
            ("bool", "boolean"),
            ("BOOLEAN", "boolean"),
            ("int2", "smallint"),
            ("smallint", "smallint"),
            ("INT", "integer"),
            ("int4", "integer"),
            ("integer", "integer"),
            ("int8", "bigint"),
            ("bigint", "bigint"),
            ("uint2", "uint2"),
            ("uint4", "uint4"),
            ("uint8", "uint8"),
            ("UINT8", "uint8"),
            ("real", "real"),
            ("float4", "real"),
            ("float", "double precision"),
            ("float(10)", "real"),
            ("float8", "double precision"),
            ("double precision", "double precision"),
            ("numeric", "numeric"),
            ("numeric(10)", "numeric(10,0)"),
            ("decimal(10,2)", "numeric(10,2)"),
            ("dec(4)", "numeric(4,0)"),
            ("text", "text"),
            ("STRING", "text"),
            ("varchar", "character varying"),
            ("varchar(10)", "character varying(10)"),
            ("character varying(3)", "character varying(3)"),
            ("char", "character(1)"),
            ("char(5)", "character(5)"),
            ("character(5)", "character(5)"),
            ("bpchar(5)", "character(5)"),
            ("bpchar", "character"),
            ("\"char\"", "\"char\""),
            ("name", "name"),
            ("bytea", "bytea"),
            ("json", "jsonb"),
            ("jsonb", "jsonb"),
            ("date", "date"),
            ("time", "time without time zone"),
            ("timestamp", "timestamp without time zone"),
            ("timestamp(6)", "timestamp without time zone"),
            ("timestamp without time zone", "timestamp without time zone"),
            ("timestamptz", "timestamp with time zone"),
            ("timestamp with time zone", "timestamp with time zone"),
            ("timestamp(6) with time zone", "timestamp with time zone"),
            ("interval", "interval"),
            ("uuid", "uuid"),
            ("oid", "oid"),
            ("regclass", "regclass"),
            ("regtype", "regtype"),
            ("regproc", "regproc"),
            ("pg_catalog.regtype", "regtype"),
            ("pg_catalog.int4", "integer"),
            ("mz_timestamp", "mz_timestamp"),
            ("int[]", "integer[]"),
            ("text[][]", "text[][]"),
            ("numeric(3,1)[]", "numeric(3,1)[]"),
            ("uint8[]", "uint8[]"),
        ] {
            assert_eq!(
                parse(text).map(|found| found.to_string()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_type_or_out_of_range_is_refused() {
        for (text, kind) in [
            ("nonsense", ErrorKind::UndefinedObject),
            ("other.int4", ErrorKind::UndefinedObject),
            ("numeric(39,0)", ErrorKind::InvalidParameterValue),
            ("numeric(0)", ErrorKind::InvalidParameterValue),
            ("numeric(3,4)", ErrorKind::InvalidParameterValue),
            ("varchar(0)", ErrorKind::InvalidParameterValue),
            ("timestamp(7)", ErrorKind::InvalidParameterValue),
            ("timetz", ErrorKind::FeatureNotSupported),
            ("money", ErrorKind::FeatureNotSupported),
            ("point", ErrorKind::FeatureNotSupported),
        ] {
            assert_eq!(parse(text).map_err(|error| error.kind), Err(kind), "{text}");
        }
    }
}
