//! Columns that clients send, as columns of our SQL types: parameters and bulk ingest.
//!
//! Owns which Arrow type becomes which SQL type, and how. Must not know statements or tables: the caller says what the column is for.
//!
//! Invariants. What comes out has exactly the type [`SqlType::to_arrow`] and is normalised, as everything that enters the engine. A value is never changed
//! silently: what does not fit is an error, except that timestamps finer than microseconds are cut to them and numbers are rounded to a declared scale.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow_array::{
    Array, ArrayRef, Decimal128Array, FixedSizeBinaryArray, ListArray, StringArray, new_null_array,
};
use arrow_cast::display::array_value_to_string;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, IntervalUnit, Schema, TimeUnit};
use flowstone_types::datetime::{
    MICROS_PER_DAY, TimeZone, date_to_postgres, timestamp_to_postgres,
};
use flowstone_types::normalize::normalize_array;
use flowstone_types::numeric::{Excess, rescale, rescale_to};
use flowstone_types::{ColumnBuilder, ColumnFormatter, SqlType, TypeError};

use crate::Error;
use crate::wire::{EXTENSION_NAME, JSON_EXTENSION, UUID_EXTENSION};

/// Digits that a 128-bit decimal holds.
const DECIMAL_DIGITS: u8 = 38;

/// Why a column could not be converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The types do not go together.
    Mismatch,
    /// A value does not fit.
    Value(TypeError),
}

impl From<TypeError> for Fault {
    fn from(error: TypeError) -> Self {
        Self::Value(error)
    }
}

/// `array` as a column of `sql_type`, instants as text in `zone`. `place` names it in errors: `parameter $1`, `column "price"`.
///
/// # Errors
/// [`Error::Mismatch`], [`Error::Value`]
pub(crate) fn convert(
    array: &ArrayRef,
    sql_type: &SqlType,
    place: &str,
    zone: &TimeZone,
) -> Result<ArrayRef, Error> {
    converted(array, sql_type, zone).map_err(|fault| match fault {
        Fault::Mismatch => Error::Mismatch {
            place: place.to_owned(),
            actual: array.data_type().clone(),
            expected: sql_type.clone(),
        },
        Fault::Value(error) => Error::Value {
            place: place.to_owned(),
            error,
        },
    })
}

/// The SQL type of a column of a table that is made for data of this field.
///
/// # Errors
/// [`Error::Unsupported`] if there is none.
pub(crate) fn column_type(field: &Field) -> Result<SqlType, Error> {
    let extension = field.metadata().get(EXTENSION_NAME).map(String::as_str);
    let sql_type = match (field.data_type(), extension) {
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, Some(JSON_EXTENSION)) => {
            SqlType::Jsonb
        }
        (DataType::FixedSizeBinary(16), Some(UUID_EXTENSION) | None) => SqlType::Uuid,
        // Only we mean `jsonb` by it.
        (DataType::LargeBinary | DataType::FixedSizeBinary(_), _) => SqlType::Bytea,
        (DataType::Decimal256(precision, scale), _) if *precision <= DECIMAL_DIGITS => {
            SqlType::Numeric(Some((*precision, *scale)))
        }
        (DataType::Decimal256(_, _), _) => SqlType::Numeric(None),
        (
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _),
            _,
        ) => SqlType::Array(Box::new(column_type(item)?)),
        (DataType::Dictionary(_, value), _) => {
            let value = Field::new(field.name(), value.as_ref().clone(), true)
                .with_metadata(field.metadata().clone());
            column_type(&value)?
        }
        (DataType::RunEndEncoded(_, value), _) => column_type(value)?,
        _ => SqlType::from_field(field).map_err(|_| {
            Error::Unsupported(format!(
                "column \"{}\" is of Arrow type {}, which no SQL type stands for",
                field.name(),
                field.data_type()
            ))
        })?,
    };
    Ok(match sql_type {
        // A scale beyond what `numeric(p,s)` is declared with.
        SqlType::Numeric(Some((_, scale))) if scale < 0 => SqlType::Numeric(None),
        other => other,
    })
}

/// The columns of a table for data of this schema, as in CREATE TABLE.
///
/// # Errors
/// [`Error::Unsupported`] if a column has no SQL type.
pub(crate) fn column_definitions(schema: &Schema) -> Result<String, Error> {
    let columns = schema.fields().iter().map(|field| {
        Ok(format!(
            "{} {}",
            flowstone_sql::ast::quote_ident(field.name()),
            column_type(field)?
        ))
    });
    Ok(columns.collect::<Result<Vec<_>, Error>>()?.join(", "))
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Fault> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(array, to, &options).map_err(|error| match error {
        arrow_schema::ArrowError::CastError(message)
        | arrow_schema::ArrowError::InvalidArgumentError(message)
        | arrow_schema::ArrowError::ComputeError(message) => {
            Fault::Value(TypeError::InvalidParameter(message))
        }
        other => Fault::Value(TypeError::from(other)),
    })
}

/// The array without an encoding of its own: dictionaries, runs and views.
fn plain(array: &ArrayRef) -> Result<ArrayRef, Fault> {
    match array.data_type() {
        DataType::Dictionary(_, value) => plain(&cast(array, value)?),
        DataType::RunEndEncoded(_, value) => plain(&cast(array, value.data_type())?),
        DataType::Utf8View | DataType::LargeUtf8 => cast(array, &DataType::Utf8),
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            cast(array, &DataType::Binary)
        }
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            cast(array, &DataType::List(Arc::clone(item)))
        }
        DataType::Float16 => cast(array, &DataType::Float32),
        _ => Ok(Arc::clone(array)),
    }
}

fn converted(array: &ArrayRef, sql_type: &SqlType, zone: &TimeZone) -> Result<ArrayRef, Fault> {
    if array.null_count() == array.len() || array.data_type() == &DataType::Null {
        return Ok(new_null_array(&sql_type.to_arrow(), array.len()));
    }
    let array = plain(array)?;
    if array.data_type() == &DataType::Utf8 {
        return from_text(&array, sql_type, zone);
    }
    match sql_type {
        SqlType::Bool => match array.data_type() {
            DataType::Boolean => Ok(array),
            _ => Err(Fault::Mismatch),
        },
        SqlType::Int2
        | SqlType::Int4
        | SqlType::Int8
        | SqlType::UInt2
        | SqlType::UInt4
        | SqlType::UInt8
        | SqlType::Oid
        | SqlType::Reg(_)
        | SqlType::MzTimestamp => to_integer(&array, sql_type),
        SqlType::Float4 | SqlType::Float8 => to_float(&array, sql_type),
        SqlType::Numeric(modifier) => to_numeric(&array, *modifier),
        SqlType::Text
        | SqlType::VarChar(_)
        | SqlType::Char(_)
        | SqlType::Name
        | SqlType::QuotedChar => to_text(&array, sql_type, zone),
        SqlType::Bytea => match array.data_type() {
            DataType::Binary => Ok(array),
            _ => Err(Fault::Mismatch),
        },
        SqlType::Jsonb => match array.data_type() {
            DataType::Binary => from_text(&cast(&array, &DataType::Utf8)?, sql_type, zone),
            _ => Err(Fault::Mismatch),
        },
        SqlType::Date => to_date(&array),
        SqlType::Time => match array.data_type() {
            DataType::Time32(_) | DataType::Time64(_) => {
                let times = cast(&array, &sql_type.to_arrow())?;
                check::<Time64MicrosecondType>(&times, sql_type, |micros| {
                    (0..=MICROS_PER_DAY).contains(&micros)
                })?;
                Ok(times)
            }
            _ => Err(Fault::Mismatch),
        },
        SqlType::Timestamp | SqlType::TimestampTz => to_timestamp(&array, sql_type),
        SqlType::Interval => to_interval(&array),
        SqlType::Uuid => to_uuid(&array),
        SqlType::Array(element) => to_array(&array, element, sql_type, zone),
        SqlType::Int2Vector => to_vector(&array, SqlType::Int2, sql_type),
        SqlType::OidVector => to_vector(&array, SqlType::Oid, sql_type),
    }
}

/// Text is read as PostgreSQL reads the literal.
fn from_text(array: &ArrayRef, sql_type: &SqlType, zone: &TimeZone) -> Result<ArrayRef, Fault> {
    let texts = array.as_string::<i32>();
    if holds_zero_byte(texts) {
        return Err(Fault::Value(TypeError::InvalidParameter(
            "invalid byte sequence for encoding \"UTF8\": 0x00".to_owned(),
        )));
    }
    if matches!(sql_type, SqlType::Text | SqlType::VarChar(None)) {
        return Ok(Arc::clone(array));
    }
    let mut builder = ColumnBuilder::new(sql_type, texts.len()).with_time_zone(zone.clone());
    for text in texts {
        match text {
            Some(text) => builder.append_text(text)?,
            None => builder.append_null(),
        }
    }
    Ok(builder.finish())
}

/// PostgreSQL's text cannot.
fn holds_zero_byte(texts: &StringArray) -> bool {
    let (first, last) = match (texts.offsets().first(), texts.offsets().last()) {
        (Some(first), Some(last)) => (usize::try_from(*first), usize::try_from(*last)),
        _ => return false,
    };
    let (Ok(first), Ok(last)) = (first, last) else {
        return false;
    };
    texts
        .values()
        .get(first..last)
        .is_some_and(|bytes| bytes.contains(&0))
}

/// Values that have an own text, as PostgreSQL writes them. Bytes and lists are no text.
fn to_text(array: &ArrayRef, sql_type: &SqlType, zone: &TimeZone) -> Result<ArrayRef, Fault> {
    if array.data_type().is_nested() || array.data_type() == &DataType::Binary {
        return Err(Fault::Mismatch);
    }
    through_text(array, sql_type, zone)
}

fn through_text(array: &ArrayRef, sql_type: &SqlType, zone: &TimeZone) -> Result<ArrayRef, Fault> {
    let from = SqlType::from_arrow(array.data_type()).map_err(|_| Fault::Mismatch)?;
    let formatter = ColumnFormatter::new(array.as_ref(), &from)?.with_time_zone(zone.clone());
    let mut builder = ColumnBuilder::new(sql_type, array.len());
    let mut text = String::new();
    for row in 0..array.len() {
        text.clear();
        if formatter.write_text(row, &mut text)? {
            builder.append_text(&text)?;
        } else {
            builder.append_null();
        }
    }
    Ok(builder.finish())
}

fn out_of_range(sql_type: &SqlType, value: impl ToString) -> Fault {
    Fault::Value(TypeError::OutOfRange {
        type_name: sql_type.to_string(),
        value: value.to_string(),
    })
}

/// Refuses values that `fits` does not admit.
fn check<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    sql_type: &SqlType,
    fits: impl Fn(T::Native) -> bool,
) -> Result<(), Fault>
where
    T::Native: std::fmt::Debug,
{
    let values = array.as_primitive::<T>();
    match values.iter().flatten().find(|value| !fits(*value)) {
        Some(value) => Err(out_of_range(sql_type, format!("{value:?}"))),
        None => Ok(()),
    }
}

fn to_integer(array: &ArrayRef, sql_type: &SqlType) -> Result<ArrayRef, Fault> {
    let wanted = sql_type.to_arrow();
    let integers = match array.data_type() {
        data_type if data_type.is_integer() => Arc::clone(array),
        DataType::Float32 | DataType::Float64 => {
            let floats = cast(array, &DataType::Float64)?;
            let is_whole = |value: f64| value.is_finite() && value.fract() == 0.0;
            if let Some(value) = floats
                .as_primitive::<Float64Type>()
                .iter()
                .flatten()
                .find(|value| !is_whole(*value))
            {
                return Err(Fault::Value(TypeError::InvalidText {
                    type_name: sql_type.to_string(),
                    text: value.to_string(),
                }));
            }
            floats
        }
        data_type if is_decimal(data_type) => {
            let (values, scale) = decimals(array)?;
            let mut whole = Vec::with_capacity(values.len());
            for value in values.iter() {
                let Some(value) = value else {
                    whole.push(None);
                    continue;
                };
                let value = rescale(value, scale, DECIMAL_DIGITS, 0, Excess::Refuse)
                    .ok_or_else(|| out_of_range(sql_type, decimal_text(value, scale)))?;
                whole.push(Some(value));
            }
            let whole = Decimal128Array::from(whole)
                .with_precision_and_scale(DECIMAL_DIGITS, 0)
                .map_err(TypeError::from)?;
            Arc::new(whole)
        }
        _ => return Err(Fault::Mismatch),
    };
    if integers.data_type() == &wanted {
        return Ok(integers);
    }
    cast(&integers, &wanted).map_err(|_| {
        // The cast does not say in our words which value it was.
        let odd = (0..integers.len())
            .map(|row| integers.slice(row, 1))
            .find(|value| cast(value, &wanted).is_err());
        let text = odd.and_then(|value| array_value_to_string(&value, 0).ok());
        out_of_range(sql_type, text.unwrap_or_default())
    })
}

fn to_float(array: &ArrayRef, sql_type: &SqlType) -> Result<ArrayRef, Fault> {
    let data_type = array.data_type();
    if !data_type.is_numeric() {
        return Err(Fault::Mismatch);
    }
    if sql_type == &SqlType::Float4 && data_type == &DataType::Float64 {
        let wide = array.as_primitive::<Float64Type>();
        let limit = f64::from(f32::MAX);
        if let Some(value) = wide
            .iter()
            .flatten()
            .find(|value| value.is_finite() && value.abs() > limit)
        {
            return Err(out_of_range(sql_type, value));
        }
    }
    Ok(normalize_array(&cast(array, &sql_type.to_arrow())?))
}

const fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(_, _)
            | DataType::Decimal64(_, _)
            | DataType::Decimal128(_, _)
            | DataType::Decimal256(_, _)
    )
}

/// Decimals of any width as 128-bit ones, and their scale.
fn decimals(array: &ArrayRef) -> Result<(Decimal128Array, i8), Fault> {
    let scale = match array.data_type() {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => *scale,
        _ => return Err(Fault::Mismatch),
    };
    let array = match array.data_type() {
        DataType::Decimal128(_, _) => Arc::clone(array),
        _ => cast(array, &DataType::Decimal128(DECIMAL_DIGITS, scale))?,
    };
    Ok((array.as_primitive::<Decimal128Type>().clone(), scale))
}

fn decimal_text(value: i128, scale: i8) -> String {
    let mut text = String::new();
    flowstone_types::numeric::format_numeric(value, scale, None, &mut text);
    text
}

fn to_numeric(array: &ArrayRef, modifier: Option<(u8, i8)>) -> Result<ArrayRef, Fault> {
    let sql_type = SqlType::Numeric(modifier);
    let (values, scale) = match array.data_type() {
        DataType::Decimal128(_, _) if array.data_type() == &sql_type.to_arrow() => {
            return Ok(Arc::clone(array));
        }
        data_type if is_decimal(data_type) => decimals(array)?,
        data_type if data_type.is_integer() => {
            decimals(&cast(array, &DataType::Decimal128(DECIMAL_DIGITS, 0))?)?
        }
        // The shortest text that is the float, as PostgreSQL does it.
        DataType::Float32 | DataType::Float64 => {
            return through_text(array, &sql_type, &TimeZone::UTC);
        }
        _ => return Err(Fault::Mismatch),
    };
    let mut rescaled = Vec::with_capacity(values.len());
    for value in &values {
        rescaled.push(match value {
            Some(value) => Some(rescale_to(value, scale, modifier)?),
            None => None,
        });
    }
    let rescaled = Decimal128Array::from(rescaled).with_data_type(sql_type.to_arrow());
    Ok(Arc::new(rescaled))
}

fn to_date(array: &ArrayRef) -> Result<ArrayRef, Fault> {
    let dates = match array.data_type() {
        DataType::Date32 => Arc::clone(array),
        DataType::Date64 => cast(array, &DataType::Date32)?,
        // What libraries without dates send for one.
        DataType::Timestamp(_, _) => {
            let instants = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            check::<TimestampMicrosecondType>(&instants, &SqlType::Date, |micros| {
                micros % MICROS_PER_DAY == 0
            })?;
            cast(&instants, &DataType::Date32)?
        }
        _ => return Err(Fault::Mismatch),
    };
    check::<Date32Type>(&dates, &SqlType::Date, |days| {
        date_to_postgres(days).is_ok()
    })?;
    Ok(dates)
}

fn to_timestamp(array: &ArrayRef, sql_type: &SqlType) -> Result<ArrayRef, Fault> {
    let instants = match array.data_type() {
        // An instant of any zone is the same instant in UTC; one without a zone is taken as UTC.
        DataType::Timestamp(unit, _) => {
            let utc = cast(array, &DataType::Int64)?;
            let utc = cast(&utc, &DataType::Timestamp(*unit, None))?;
            cast(&utc, &DataType::Timestamp(TimeUnit::Microsecond, None))?
        }
        DataType::Date32 | DataType::Date64 => {
            cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?
        }
        _ => return Err(Fault::Mismatch),
    };
    check::<TimestampMicrosecondType>(&instants, sql_type, |micros| {
        timestamp_to_postgres(micros).is_ok()
    })?;
    let instants = instants.as_primitive::<TimestampMicrosecondType>().clone();
    Ok(Arc::new(instants.with_data_type(sql_type.to_arrow())))
}

fn to_interval(array: &ArrayRef) -> Result<ArrayRef, Fault> {
    let wanted = DataType::Interval(IntervalUnit::MonthDayNano);
    let intervals = match array.data_type() {
        DataType::Interval(_) | DataType::Duration(_) => cast(array, &wanted)?,
        _ => return Err(Fault::Mismatch),
    };
    let micros = intervals
        .as_primitive::<IntervalMonthDayNanoType>()
        .unary::<_, IntervalMonthDayNanoType>(|mut interval| {
            interval.nanoseconds -= interval.nanoseconds % 1000;
            interval
        });
    Ok(Arc::new(micros))
}

fn to_uuid(array: &ArrayRef) -> Result<ArrayRef, Fault> {
    let Some(bytes) = array.as_binary_opt::<i32>() else {
        return Err(Fault::Mismatch);
    };
    if let Some(odd) = bytes.iter().flatten().find(|bytes| bytes.len() != 16) {
        return Err(Fault::Value(TypeError::InvalidBinary {
            type_name: "uuid".to_owned(),
            reason: format!("{} bytes instead of 16", odd.len()),
        }));
    }
    let uuids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes.iter(), 16)
        .map_err(TypeError::from)?;
    Ok(Arc::new(uuids))
}

fn to_array(
    array: &ArrayRef,
    element: &SqlType,
    sql_type: &SqlType,
    zone: &TimeZone,
) -> Result<ArrayRef, Fault> {
    let (Some(lists), DataType::List(item)) = (array.as_list_opt::<i32>(), sql_type.to_arrow())
    else {
        return Err(Fault::Mismatch);
    };
    let values = converted(lists.values(), element, zone)?;
    let lists = ListArray::try_new(
        item,
        lists.offsets().clone(),
        values,
        lists.nulls().cloned(),
    );
    Ok(Arc::new(lists.map_err(TypeError::from)?))
}

fn to_vector(array: &ArrayRef, element: SqlType, sql_type: &SqlType) -> Result<ArrayRef, Fault> {
    let array_type = SqlType::Array(Box::new(element.clone()));
    cast(
        &to_array(array, &element, &array_type, &TimeZone::UTC)?,
        &sql_type.to_arrow(),
    )
}

#[cfg(test)]
mod tests;
