//! Keys that Arrow orders and compares as SQL does the values they stand for.
//!
//! Most values need none: Arrow's order and equality of an integer, a text or a timestamp are SQL's. An interval of `1 day` and one of `24 hours` are equal
//! in SQL and two values in Arrow; documents of `jsonb` are equal where their bytes are, but not ordered by them; arrays and rows are ordered item by item
//! with NULL last, whatever the sort says of NULLs. What sorts, groups, joins or numbers such values does it by their keys.
//! Owns the encoding of keys. Must not know plans. Called by the function `sort_key`, by aggregates that compare, and by windows.
//!
//! Invariants. `a < b` in SQL exactly if `key(a) < key(b)` in Arrow, and `a = b` exactly if `key(a) = key(b)`; NULL has the key NULL. Keys are not stored:
//! the encoding may change from one version to the next.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};

use crate::normalize::{normalize_f32, normalize_f64};
use crate::{Jsonb, TypeError, interval};

/// The type of keys of intervals: microseconds.
const SPAN: DataType = DataType::Decimal128(38, 0);

/// What follows the last item of an array: before every item.
const END: u8 = 0;
const PRESENT: u8 = 1;
/// Larger than every value.
const NULL: u8 = 2;

/// Whether values that are equal in SQL may differ in Arrow, so that they are grouped, joined and told apart by their keys.
#[must_use]
pub fn equality_differs(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(_) => true,
        DataType::List(item) | DataType::FixedSizeList(item, _) => {
            equality_differs(item.data_type())
        }
        DataType::Struct(fields) => fields
            .iter()
            .any(|field| equality_differs(field.data_type())),
        _ => false,
    }
}

/// Whether the order of values in SQL is not Arrow's, so that they are sorted by their keys.
#[must_use]
pub fn order_differs(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Interval(_)
            | DataType::LargeBinary
            | DataType::List(_)
            | DataType::FixedSizeList(..)
            | DataType::Struct(_)
    )
}

/// The type of the keys of values of a type.
#[must_use]
pub fn key_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Interval(_) => SPAN,
        other if order_differs(other) => DataType::Binary,
        other => other.clone(),
    }
}

/// The keys of the values of an array: of [`key_type`] of its type.
///
/// # Errors
/// [`TypeError::Unsupported`] for a type without order, [`TypeError::TooLarge`] if the keys are more bytes than an array holds.
///
/// Cost: O(bytes of the values).
pub fn key_array(array: &ArrayRef) -> Result<ArrayRef, TypeError> {
    let data_type = array.data_type();
    if *data_type == DataType::Interval(IntervalUnit::MonthDayNano) {
        let spans = array
            .as_primitive::<IntervalMonthDayNanoType>()
            .unary::<_, Decimal128Type>(interval::order_key);
        return Ok(Arc::new(spans.with_data_type(SPAN)));
    }
    if !order_differs(data_type) {
        return Ok(Arc::clone(array));
    }
    let mut keys = BinaryBuilder::with_capacity(array.len(), 0);
    let (mut key, mut bytes) = (Vec::new(), 0_usize);
    for row in 0..array.len() {
        if array.is_null(row) {
            keys.append_null();
            continue;
        }
        key.clear();
        encode(array, row, &mut key)?;
        bytes = bytes.saturating_add(key.len());
        if i32::try_from(bytes).is_err() {
            return Err(TypeError::TooLarge);
        }
        keys.append_value(&key);
    }
    Ok(Arc::new(keys.finish()))
}

/// The key of one value, which is not NULL. Keys of one type are compared as bytes.
///
/// # Errors
/// [`TypeError::Unsupported`] for a type without order.
pub fn key_bytes(array: &ArrayRef, row: usize) -> Result<Vec<u8>, TypeError> {
    let mut key = Vec::new();
    encode(array, row, &mut key)?;
    Ok(key)
}

/// Appends the key of a value that is not NULL. No key is a prefix of another of its type.
fn encode(array: &ArrayRef, row: usize, key: &mut Vec<u8>) -> Result<(), TypeError> {
    macro_rules! signed {
        ($kind:ty) => {{
            let mut bytes = array.as_primitive::<$kind>().value(row).to_be_bytes();
            flip_sign(&mut bytes);
            key.extend_from_slice(&bytes);
        }};
    }
    macro_rules! unsigned {
        ($kind:ty) => {
            key.extend_from_slice(&array.as_primitive::<$kind>().value(row).to_be_bytes())
        };
    }
    match array.data_type() {
        DataType::Null => {}
        DataType::Boolean => key.push(u8::from(array.as_boolean().value(row))),
        DataType::Int8 => signed!(Int8Type),
        DataType::Int16 => signed!(Int16Type),
        DataType::Int32 => signed!(Int32Type),
        DataType::Int64 => signed!(Int64Type),
        DataType::UInt8 => unsigned!(UInt8Type),
        DataType::UInt16 => unsigned!(UInt16Type),
        DataType::UInt32 => unsigned!(UInt32Type),
        DataType::UInt64 => unsigned!(UInt64Type),
        DataType::Decimal128(..) => signed!(Decimal128Type),
        DataType::Date32 => signed!(Date32Type),
        DataType::Time64(TimeUnit::Microsecond) => signed!(Time64MicrosecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => signed!(TimestampMicrosecondType),
        DataType::Float32 => {
            let value = normalize_f32(array.as_primitive::<Float32Type>().value(row));
            encode_float(&mut value.to_bits().to_be_bytes(), key);
        }
        DataType::Float64 => {
            let value = normalize_f64(array.as_primitive::<Float64Type>().value(row));
            encode_float(&mut value.to_bits().to_be_bytes(), key);
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            let mut bytes = interval::order_key(value).to_be_bytes();
            flip_sign(&mut bytes);
            key.extend_from_slice(&bytes);
        }
        DataType::Utf8 => encode_bytes(array.as_string::<i32>().value(row).as_bytes(), key),
        DataType::LargeUtf8 => encode_bytes(array.as_string::<i64>().value(row).as_bytes(), key),
        DataType::Binary => encode_bytes(array.as_binary::<i32>().value(row), key),
        DataType::FixedSizeBinary(_) => {
            key.extend_from_slice(array.as_fixed_size_binary().value(row));
        }
        DataType::LargeBinary => {
            Jsonb::from_canonical(array.as_binary::<i64>().value(row)).sort_key(key);
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            encode_list(&items_of(array, row), key)?;
        }
        DataType::Struct(_) => {
            for field in array.as_struct().columns() {
                encode_nullable(field, row, key)?;
            }
        }
        other => return Err(TypeError::Unsupported(other.to_string())),
    }
    Ok(())
}

fn encode_nullable(array: &ArrayRef, row: usize, key: &mut Vec<u8>) -> Result<(), TypeError> {
    if array.is_null(row) {
        key.push(NULL);
        return Ok(());
    }
    key.push(PRESENT);
    encode(array, row, key)
}

/// As PostgreSQL compares arrays: the items first, however they are nested, then how many dimensions there are and of what length.
fn encode_list(items: &ArrayRef, key: &mut Vec<u8>) -> Result<(), TypeError> {
    let mut lengths = Vec::new();
    encode_items(items, 0, &mut lengths, key)?;
    key.push(END);
    let dimensions = if items.is_empty() { 0 } else { lengths.len() };
    key.push(u8::try_from(dimensions).unwrap_or(u8::MAX));
    for length in lengths.into_iter().take(dimensions) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        key.extend_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn encode_items(
    items: &ArrayRef,
    depth: usize,
    lengths: &mut Vec<usize>,
    key: &mut Vec<u8>,
) -> Result<(), TypeError> {
    // Arrays are rectangular: the first part tells the length of all.
    if lengths.len() == depth {
        lengths.push(items.len());
    }
    let nested = is_list(items.data_type());
    for item in 0..items.len() {
        if nested && items.is_valid(item) {
            encode_items(&items_of(items, item), depth + 1, lengths, key)?;
        } else {
            encode_nullable(items, item, key)?;
        }
    }
    Ok(())
}

const fn is_list(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)
    )
}

fn items_of(array: &ArrayRef, row: usize) -> ArrayRef {
    match array.data_type() {
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        DataType::FixedSizeList(..) => array.as_fixed_size_list().value(row),
        _ => array.as_list::<i32>().value(row),
    }
}

/// Makes the bytes of a signed integer, the highest first, compare as the integer does.
fn flip_sign(bytes: &mut [u8]) {
    if let Some(first) = bytes.first_mut() {
        *first ^= 0x80;
    }
}

/// Appends the bits of a float, the highest byte first, so that they compare as the float does.
fn encode_float(bytes: &mut [u8], key: &mut Vec<u8>) {
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    } else {
        flip_sign(bytes);
    }
    key.extend_from_slice(bytes);
}

/// Appends bytes and what ends them: a zero byte is written as `00 ff`, the end as `00 00`.
pub(crate) fn encode_bytes(bytes: &[u8], key: &mut Vec<u8>) {
    for byte in bytes {
        key.push(*byte);
        if *byte == 0 {
            key.push(0xff);
        }
    }
    key.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests;
