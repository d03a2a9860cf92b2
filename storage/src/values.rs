//! Values in the nearest form that Delta and its readers have.
//!
//! | Arrow | stored as |
//! |---|---|
//! | unsigned integers | the next wider signed one; 64 bits as `decimal(20,0)` |
//! | `time` | text `HH:MM:SS.ffffff` |
//! | `interval` | text, ISO 8601 with months, days and seconds: `P14M3DT-4.5S` |
//! | `uuid` | text, lower case with hyphens |
//! | `jsonb` | its canonical JSON text |
//! | `numeric` with a negative scale | the smallest `decimal` that holds it |
//! | lists | lists of the element's stored form |
//!
//! Invariant: [`restore`] of [`store`] gives equal values, and equal values have equal stored forms, so rows are compared by their stored form.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::builder::{
    FixedSizeBinaryBuilder, IntervalMonthDayNanoBuilder, LargeBinaryBuilder, StringBuilder,
    Time64MicrosecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType};
use arrow_array::{Array, ArrayRef, ListArray, StringArray};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use flowstone_types::TypeError;
use flowstone_types::jsonb::{self, Jsonb};

use crate::Error;

const CHECKED: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: arrow_cast::display::FormatOptions::new(),
};

/// The type that stores values of `data_type`.
///
/// # Errors
/// [`Error::Value`] for a type that no SQL type has.
pub(crate) fn stored_type(data_type: &DataType) -> Result<DataType, Error> {
    Ok(match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Timestamp(TimeUnit::Microsecond, _) => data_type.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Decimal128(precision, scale) => stored_decimal(*precision, *scale)?,
        DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Null
        | DataType::LargeBinary
        | DataType::FixedSizeBinary(16)
        | DataType::Time64(TimeUnit::Microsecond)
        | DataType::Interval(IntervalUnit::MonthDayNano) => DataType::Utf8,
        DataType::List(item) => DataType::List(Arc::new(Field::new(
            "element",
            stored_type(item.data_type())?,
            true,
        ))),
        other => return Err(TypeError::Unsupported(other.to_string()).into()),
    })
}

fn stored_decimal(precision: u8, scale: i8) -> Result<DataType, Error> {
    let unsupported = || TypeError::Unsupported(format!("numeric({precision},{scale})"));
    let digits = i16::from(precision);
    let places = i16::from(scale);
    let (digits, places) = if places < 0 {
        (digits - places, 0)
    } else {
        (digits.max(places), places)
    };
    let precision = u8::try_from(digits)
        .ok()
        .filter(|digits| *digits <= 38)
        .ok_or_else(unsupported)?;
    Ok(DataType::Decimal128(
        precision,
        i8::try_from(places).map_err(|_| unsupported())?,
    ))
}

/// Converts an array to its stored form. `stored` is [`stored_type`] of its type.
///
/// # Errors
/// [`Error::Value`] if a value has none.
pub(crate) fn store(array: &ArrayRef, stored: &DataType) -> Result<ArrayRef, Error> {
    Ok(match (array.data_type(), stored) {
        (DataType::LargeBinary, DataType::Utf8) => {
            let values = array.as_binary::<i64>();
            text_array(values.iter(), |bytes, text| {
                text.push_str(&jsonb_to_text(bytes)?);
                Ok(())
            })?
        }
        (DataType::FixedSizeBinary(16), DataType::Utf8) => {
            let values = array.as_fixed_size_binary();
            text_array(values.iter(), |bytes, text| {
                let uuid = uuid::Uuid::from_slice(bytes)
                    .map_err(|_| invalid("uuid", "a value that is not 16 bytes long"))?;
                let _infallible = write!(text, "{}", uuid.hyphenated());
                Ok(())
            })?
        }
        (DataType::Time64(_), DataType::Utf8) => {
            let values = array.as_primitive::<Time64MicrosecondType>();
            text_array(values.iter(), |micros, text| {
                write_time(micros, text);
                Ok(())
            })?
        }
        (DataType::Interval(_), DataType::Utf8) => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>();
            text_array(values.iter(), |interval, text| {
                write_interval(interval, text);
                Ok(())
            })?
        }
        (DataType::List(_), DataType::List(item)) => {
            let lists = array.as_list::<i32>();
            let values = store(lists.values(), item.data_type())?;
            Arc::new(ListArray::try_new(
                Arc::clone(item),
                lists.offsets().clone(),
                values,
                lists.nulls().cloned(),
            )?)
        }
        (from, to) if from == to => Arc::clone(array),
        _ => cast_with_options(array, stored, &CHECKED)?,
    })
}

/// Converts an array from its stored form back to exactly `target`.
///
/// # Errors
/// [`Error::Value`] if a stored value is not one of the type.
pub(crate) fn restore(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, Error> {
    Ok(match (array.data_type(), target) {
        (DataType::Utf8, DataType::LargeBinary) => {
            let mut builder = LargeBinaryBuilder::new();
            for text in array.as_string::<i32>() {
                builder.append_option(text.map(jsonb_from_text).transpose()?);
            }
            Arc::new(builder.finish())
        }
        (DataType::Utf8, DataType::FixedSizeBinary(16)) => {
            let mut builder = FixedSizeBinaryBuilder::with_capacity(array.len(), 16);
            for text in array.as_string::<i32>() {
                match text {
                    None => builder.append_null(),
                    Some(text) => {
                        let uuid =
                            uuid::Uuid::try_parse(text).map_err(|_| invalid("uuid", text))?;
                        builder.append_value(uuid.as_bytes())?;
                    }
                }
            }
            Arc::new(builder.finish())
        }
        (DataType::Utf8, DataType::Time64(TimeUnit::Microsecond)) => {
            let mut builder = Time64MicrosecondBuilder::with_capacity(array.len());
            for text in array.as_string::<i32>() {
                let value = text
                    .map(|text| read_time(text).ok_or_else(|| invalid("time", text)))
                    .transpose()?;
                builder.append_option(value);
            }
            Arc::new(builder.finish())
        }
        (DataType::Utf8, DataType::Interval(IntervalUnit::MonthDayNano)) => {
            let mut builder = IntervalMonthDayNanoBuilder::with_capacity(array.len());
            for text in array.as_string::<i32>() {
                let value = text
                    .map(|text| read_interval(text).ok_or_else(|| invalid("interval", text)))
                    .transpose()?;
                builder.append_option(value);
            }
            Arc::new(builder.finish())
        }
        (DataType::List(_), DataType::List(item)) => {
            let lists = array.as_list::<i32>();
            let values = restore(lists.values(), item.data_type())?;
            Arc::new(ListArray::try_new(
                Arc::clone(item),
                lists.offsets().clone(),
                values,
                lists.nulls().cloned(),
            )?)
        }
        (_, DataType::Null) => arrow_array::new_null_array(target, array.len()),
        (from, to) if from == to => Arc::clone(array),
        _ => cast_with_options(array, target, &CHECKED)?,
    })
}

fn invalid(type_name: &str, text: &str) -> Error {
    TypeError::InvalidText {
        type_name: type_name.to_owned(),
        text: text.to_owned(),
    }
    .into()
}

fn text_array<T>(
    values: impl Iterator<Item = Option<T>>,
    write: impl Fn(T, &mut String) -> Result<(), Error>,
) -> Result<ArrayRef, Error> {
    let mut builder = StringBuilder::with_capacity(values.size_hint().0, 0);
    let mut text = String::new();
    for value in values {
        match value {
            None => builder.append_null(),
            Some(value) => {
                text.clear();
                write(value, &mut text)?;
                builder.append_value(&text);
            }
        }
    }
    let array: StringArray = builder.finish();
    Ok(Arc::new(array))
}

const MICROS_PER_SECOND: i64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

fn write_time(micros: i64, text: &mut String) {
    let (seconds, fraction) = (
        micros.div_euclid(MICROS_PER_SECOND),
        micros.rem_euclid(MICROS_PER_SECOND),
    );
    let _infallible = write!(
        text,
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    if fraction != 0 {
        let _infallible = write!(text, ".{fraction:06}");
    }
}

fn read_time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':').map(str::parse::<i64>);
    let (hours, minutes, seconds) = (
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    );
    let fraction = if fraction.is_empty() {
        0
    } else {
        format!("{fraction:0<6}").parse::<i64>().ok()?
    };
    Some(((hours * 60 + minutes) * 60 + seconds) * MICROS_PER_SECOND + fraction)
}

fn write_interval(interval: IntervalMonthDayNano, text: &mut String) {
    let sign = if interval.nanoseconds < 0 { "-" } else { "" };
    let nanos = interval.nanoseconds.unsigned_abs();
    let (seconds, fraction) = (nanos / NANOS_PER_SECOND, nanos % NANOS_PER_SECOND);
    let _infallible = write!(
        text,
        "P{}M{}DT{sign}{seconds}",
        interval.months, interval.days
    );
    if fraction != 0 {
        let digits = format!("{fraction:09}");
        let _infallible = write!(text, ".{}", digits.trim_end_matches('0'));
    }
    text.push('S');
}

fn read_interval(text: &str) -> Option<IntervalMonthDayNano> {
    let (months, rest) = text.strip_prefix('P')?.split_once('M')?;
    let (days, rest) = rest.split_once("DT")?;
    let seconds = rest.strip_suffix('S')?;
    let (negative, seconds) = seconds
        .strip_prefix('-')
        .map_or((false, seconds), |rest| (true, rest));
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let fraction = if fraction.is_empty() {
        0
    } else {
        format!("{fraction:0<9}").parse::<i128>().ok()?
    };
    let nanos = seconds.parse::<i128>().ok()? * i128::from(NANOS_PER_SECOND) + fraction;
    let nanos = i64::try_from(if negative { -nanos } else { nanos }).ok()?;
    Some(IntervalMonthDayNano::new(
        months.parse().ok()?,
        days.parse().ok()?,
        nanos,
    ))
}

fn jsonb_to_text(bytes: &[u8]) -> Result<String, Error> {
    Ok(Jsonb::from_bytes(bytes)?.to_string())
}

fn jsonb_from_text(text: &str) -> Result<Vec<u8>, Error> {
    Ok(jsonb::parse(text)?.into_bytes())
}
