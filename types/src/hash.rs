//! Row and key hashes: deterministic, vectorised, the same on every replica, in every run and on disk.
//!
//! A row's hash combines the xxh3 hashes of its column values. [`HASH_VERSION`] is part of every format that stores hashes.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use crate::TypeError;

/// Version of the hash functions here; stored beside stored hashes.
pub const HASH_VERSION: u32 = 1;

const SEED: u64 = 0x5f10_3570_6e65_0001;
const NULL_HASH: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes rows of `columns` (all of `rows` values) into 64 bits per row.
///
/// NULLs hash alike. Rows that are equal as SQL's `IS NOT DISTINCT FROM` (after [`crate::normalize`]) have equal hashes.
///
/// # Errors
/// [`TypeError::Unsupported`] for a column type that no SQL type has.
pub fn hash_rows(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>, TypeError> {
    let mut hashes = vec![SEED; rows];
    for column in columns {
        hash_column(column, &mut hashes)?;
    }
    Ok(hashes)
}

/// Hashes whole rows into 128 bits per row, for places that identify a row by its hash alone (deletion lookups in Delta files).
///
/// # Errors
/// As [`hash_rows`].
pub fn hash_rows_128(columns: &[ArrayRef], rows: usize) -> Result<Vec<u128>, TypeError> {
    let mut encoded = vec![Vec::new(); rows];
    for column in columns {
        encode_column(column, &mut encoded)?;
    }
    Ok(encoded
        .iter()
        .map(|bytes| xxh3_128_with_seed(bytes, SEED))
        .collect())
}

fn mix(hash: u64, value: u64) -> u64 {
    // Multiply-xorshift finaliser over the running hash; order of columns matters.
    let mixed = (hash ^ value).wrapping_mul(0x9fb2_1c65_1e98_df25);
    mixed ^ (mixed >> 32)
}

fn each_value(
    array: &ArrayRef,
    visit: &mut dyn FnMut(usize, Option<&[u8]>),
) -> Result<(), TypeError> {
    macro_rules! primitive {
        ($kind:ty) => {{
            let values = array.as_primitive::<$kind>();
            for row in 0..values.len() {
                if values.is_null(row) {
                    visit(row, None);
                } else {
                    visit(
                        row,
                        Some(arrow_buffer::ToByteSlice::to_byte_slice(&values.value(row))),
                    );
                }
            }
        }};
    }
    macro_rules! bytes {
        ($values:expr) => {{
            let values = $values;
            for row in 0..values.len() {
                visit(
                    row,
                    values
                        .is_valid(row)
                        .then(|| AsRef::<[u8]>::as_ref(values.value(row))),
                );
            }
        }};
    }
    match array.data_type() {
        DataType::Null => (0..array.len()).for_each(|row| visit(row, None)),
        DataType::Boolean => {
            let values = array.as_boolean();
            for row in 0..values.len() {
                visit(
                    row,
                    values.is_valid(row).then(|| {
                        if values.value(row) {
                            &[1_u8][..]
                        } else {
                            &[0_u8][..]
                        }
                    }),
                );
            }
        }
        DataType::Int8 => primitive!(Int8Type),
        DataType::Int16 => primitive!(Int16Type),
        DataType::Int32 => primitive!(Int32Type),
        DataType::Int64 => primitive!(Int64Type),
        DataType::UInt8 => primitive!(UInt8Type),
        DataType::UInt16 => primitive!(UInt16Type),
        DataType::UInt32 => primitive!(UInt32Type),
        DataType::UInt64 => primitive!(UInt64Type),
        DataType::Float32 => primitive!(Float32Type),
        DataType::Float64 => primitive!(Float64Type),
        DataType::Decimal128(..) => primitive!(Decimal128Type),
        DataType::Date32 => primitive!(Date32Type),
        DataType::Time64(TimeUnit::Microsecond) => primitive!(Time64MicrosecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => primitive!(TimestampMicrosecondType),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>();
            for row in 0..values.len() {
                let value = values.value(row);
                let mut encoded = [0_u8; 16];
                encoded[..4].copy_from_slice(&value.months.to_le_bytes());
                encoded[4..8].copy_from_slice(&value.days.to_le_bytes());
                encoded[8..].copy_from_slice(&value.nanoseconds.to_le_bytes());
                visit(row, values.is_valid(row).then_some(&encoded[..]));
            }
        }
        DataType::Utf8 => bytes!(array.as_string::<i32>()),
        DataType::LargeUtf8 => bytes!(array.as_string::<i64>()),
        DataType::Binary => bytes!(array.as_binary::<i32>()),
        DataType::LargeBinary => bytes!(array.as_binary::<i64>()),
        DataType::FixedSizeBinary(_) => bytes!(array.as_fixed_size_binary()),
        DataType::List(_) | DataType::LargeList(_) => {
            for row in 0..array.len() {
                if array.is_null(row) {
                    visit(row, None);
                    continue;
                }
                let items = items_of(array, row);
                let mut encoded = Vec::new();
                each_value(&items, &mut |_, value| encode_value(value, &mut encoded))?;
                visit(row, Some(&encoded));
            }
        }
        other => return Err(TypeError::Unsupported(other.to_string())),
    }
    Ok(())
}

fn hash_column(array: &ArrayRef, hashes: &mut [u64]) -> Result<(), TypeError> {
    macro_rules! fixed {
        ($kind:ty) => {{
            let values = array.as_primitive::<$kind>();
            for (row, hash) in hashes.iter_mut().enumerate() {
                let value = if values.is_null(row) {
                    NULL_HASH
                } else {
                    fold(arrow_buffer::ToByteSlice::to_byte_slice(&values.value(row)))
                };
                *hash = mix(*hash, value);
            }
            return Ok(());
        }};
    }
    // Fast lanes: no allocation and no call through a closure for fixed-width values.
    match array.data_type() {
        DataType::Int16 => fixed!(Int16Type),
        DataType::Int32 => fixed!(Int32Type),
        DataType::Int64 => fixed!(Int64Type),
        DataType::UInt32 => fixed!(UInt32Type),
        DataType::UInt64 => fixed!(UInt64Type),
        DataType::Date32 => fixed!(Date32Type),
        DataType::Timestamp(TimeUnit::Microsecond, _) => fixed!(TimestampMicrosecondType),
        _ => {}
    }
    each_value(array, &mut |row, value| {
        if let Some(hash) = hashes.get_mut(row) {
            *hash = mix(
                *hash,
                value.map_or(NULL_HASH, |bytes| xxh3_64_with_seed(bytes, SEED)),
            );
        }
    })
}

/// A 64-bit mix of a value of at most 8 bytes.
fn fold(bytes: &[u8]) -> u64 {
    let mut word = [0_u8; 8];
    for (place, byte) in word.iter_mut().zip(bytes) {
        *place = *byte;
    }
    let mut hash = u64::from_le_bytes(word).wrapping_add(SEED);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

fn encode_value(value: Option<&[u8]>, into: &mut Vec<u8>) {
    match value {
        None => into.push(0),
        Some(bytes) => {
            into.push(1);
            into.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            into.extend_from_slice(bytes);
        }
    }
}

fn encode_column(array: &ArrayRef, encoded: &mut [Vec<u8>]) -> Result<(), TypeError> {
    each_value(array, &mut |row, value| {
        if let Some(into) = encoded.get_mut(row) {
            encode_value(value, into);
        }
    })
}

/// Whether two rows of columns of the same types are equal, NULL equal to NULL, after [`crate::normalize`].
///
/// # Errors
/// [`TypeError::Unsupported`] for a column type that no SQL type has.
pub fn rows_equal(
    left: &[ArrayRef],
    left_row: usize,
    right: &[ArrayRef],
    right_row: usize,
) -> Result<bool, TypeError> {
    for (left, right) in itertools::zip_eq(left, right) {
        if !values_equal(left, left_row, right, right_row)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two values of the same type are equal, NULL equal to NULL, after [`crate::normalize`].
///
/// # Errors
/// [`TypeError::Unsupported`] for a column type that no SQL type has.
pub fn values_equal(
    left: &ArrayRef,
    left_row: usize,
    right: &ArrayRef,
    right_row: usize,
) -> Result<bool, TypeError> {
    match (left.is_null(left_row), right.is_null(right_row)) {
        (true, true) => return Ok(true),
        (false, false) => {}
        _ => return Ok(false),
    }
    macro_rules! primitive {
        ($kind:ty) => {
            value_eq::<$kind>(left, left_row, right, right_row)
        };
    }
    Ok(match left.data_type() {
        DataType::Null => true,
        DataType::Boolean => {
            left.as_boolean().value(left_row) == right.as_boolean().value(right_row)
        }
        DataType::Int8 => primitive!(Int8Type),
        DataType::Int16 => primitive!(Int16Type),
        DataType::Int32 => primitive!(Int32Type),
        DataType::Int64 => primitive!(Int64Type),
        DataType::UInt8 => primitive!(UInt8Type),
        DataType::UInt16 => primitive!(UInt16Type),
        DataType::UInt32 => primitive!(UInt32Type),
        DataType::UInt64 => primitive!(UInt64Type),
        DataType::Float32 => {
            left.as_primitive::<Float32Type>().value(left_row).to_bits()
                == right
                    .as_primitive::<Float32Type>()
                    .value(right_row)
                    .to_bits()
        }
        DataType::Float64 => {
            left.as_primitive::<Float64Type>().value(left_row).to_bits()
                == right
                    .as_primitive::<Float64Type>()
                    .value(right_row)
                    .to_bits()
        }
        DataType::Decimal128(..) => primitive!(Decimal128Type),
        DataType::Date32 => primitive!(Date32Type),
        DataType::Time64(TimeUnit::Microsecond) => primitive!(Time64MicrosecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => primitive!(TimestampMicrosecondType),
        DataType::Interval(IntervalUnit::MonthDayNano) => primitive!(IntervalMonthDayNanoType),
        DataType::Utf8 => {
            left.as_string::<i32>().value(left_row) == right.as_string::<i32>().value(right_row)
        }
        DataType::LargeUtf8 => {
            left.as_string::<i64>().value(left_row) == right.as_string::<i64>().value(right_row)
        }
        DataType::Binary => {
            left.as_binary::<i32>().value(left_row) == right.as_binary::<i32>().value(right_row)
        }
        DataType::LargeBinary => {
            left.as_binary::<i64>().value(left_row) == right.as_binary::<i64>().value(right_row)
        }
        DataType::FixedSizeBinary(_) => {
            left.as_fixed_size_binary().value(left_row)
                == right.as_fixed_size_binary().value(right_row)
        }
        DataType::List(_) | DataType::LargeList(_) => {
            let (left, right) = (items_of(left, left_row), items_of(right, right_row));
            if left.len() != right.len() {
                return Ok(false);
            }
            for item in 0..left.len() {
                if !values_equal(&left, item, &right, item)? {
                    return Ok(false);
                }
            }
            true
        }
        other => return Err(TypeError::Unsupported(other.to_string())),
    })
}

/// The items of a list.
fn items_of(array: &ArrayRef, row: usize) -> ArrayRef {
    match array.data_type() {
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        _ => array.as_list::<i32>().value(row),
    }
}

fn value_eq<T: ArrowPrimitiveType>(
    left: &ArrayRef,
    left_row: usize,
    right: &ArrayRef,
    right_row: usize,
) -> bool
where
    T::Native: PartialEq,
{
    left.as_primitive::<T>().value(left_row) == right.as_primitive::<T>().value(right_row)
}

#[cfg(test)]
mod tests;
