use std::sync::Arc;

use arrow_array::builder::{Decimal256Builder, ListBuilder, StringDictionaryBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    BinaryArray, BooleanArray, Date32Array, DurationSecondArray, Float64Array, Int32Array,
    Int64Array, LargeStringArray, StringArray, TimestampNanosecondArray, TimestampSecondArray,
    UInt64Array,
};
use arrow_buffer::i256;

use super::*;

/// The cells of the converted column as PostgreSQL writes them.
fn texts(array: ArrayRef, sql_type: &SqlType) -> Result<Vec<Option<String>>, Error> {
    let array = convert(&array, sql_type, "parameter $1", &TimeZone::UTC)?;
    assert_eq!(array.data_type(), &sql_type.to_arrow());
    let formatter = ColumnFormatter::new(array.as_ref(), sql_type).unwrap();
    Ok((0..array.len())
        .map(|row| {
            let mut text = String::new();
            formatter
                .write_text(row, &mut text)
                .unwrap()
                .then_some(text)
        })
        .collect())
}

fn one(array: ArrayRef, sql_type: &SqlType) -> String {
    texts(array, sql_type).unwrap().remove(0).unwrap()
}

fn refusal(array: ArrayRef, sql_type: &SqlType) -> String {
    texts(array, sql_type).unwrap_err().to_string()
}

fn int8(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

fn float8(value: f64) -> ArrayRef {
    Arc::new(Float64Array::from(vec![value]))
}

fn text(value: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

const NUMERIC: SqlType = SqlType::Numeric(Some((10, 2)));

#[test]
fn numbers_become_other_numbers_where_they_fit() {
    assert_eq!(one(int8(7), &SqlType::Int2), "7");
    assert_eq!(one(int8(7), &SqlType::Float8), "7");
    assert_eq!(one(int8(7), &NUMERIC), "7.00");
    assert_eq!(one(float8(7.0), &SqlType::Int4), "7");
    assert_eq!(one(float8(0.1), &SqlType::Numeric(None)), "0.1");
    assert_eq!(one(float8(-0.0), &SqlType::Float8), "0");
    assert_eq!(
        one(Arc::new(UInt64Array::from(vec![u64::MAX])), &SqlType::UInt8),
        "18446744073709551615"
    );
    let mut wide = Decimal256Builder::new().with_data_type(DataType::Decimal256(60, 3));
    wide.append_value(i256::from_i128(12_345));
    assert_eq!(one(Arc::new(wide.finish()), &NUMERIC), "12.35");
}

#[test]
fn numbers_that_do_not_fit_are_named() {
    assert_eq!(
        refusal(int8(70_000), &SqlType::Int2),
        "parameter $1: value \"70000\" is out of range for type smallint"
    );
    assert_eq!(
        refusal(float8(1.5), &SqlType::Int4),
        "parameter $1: invalid input syntax for type integer: \"1.5\""
    );
    assert!(refusal(float8(1e20), &SqlType::Int8).contains("out of range for type bigint"));
    assert!(refusal(float8(1e300), &SqlType::Float4).contains("out of range for type real"));
    assert!(refusal(int8(123_456_789), &NUMERIC).contains("out of range"));
    assert!(refusal(int8(-1), &SqlType::UInt4).contains("\"-1\" is out of range"));
}

#[test]
fn text_is_read_as_a_literal() {
    assert_eq!(one(text("12"), &SqlType::Int4), "12");
    assert_eq!(one(text("{\"a\":1}"), &SqlType::Jsonb), "{\"a\": 1}");
    assert_eq!(one(text("2024-02-29"), &SqlType::Date), "2024-02-29");
    assert_eq!(
        one(text("{1,2}"), &SqlType::Array(Box::new(SqlType::Int4))),
        "{1,2}"
    );
    let large: ArrayRef = Arc::new(LargeStringArray::from(vec!["x"]));
    assert_eq!(one(large, &SqlType::Text), "x");
    let mut dictionary = StringDictionaryBuilder::<Int32Type>::new();
    dictionary.append_value("y");
    assert_eq!(one(Arc::new(dictionary.finish()), &SqlType::Text), "y");
    assert!(refusal(text("abcd"), &SqlType::VarChar(Some(3))).contains("too long"));
    assert!(refusal(text("a\0b"), &SqlType::Text).contains("0x00"));
    assert!(refusal(text("x"), &SqlType::Int4).contains("invalid input syntax for type integer"));
}

#[test]
fn a_zero_byte_outside_of_a_slice_does_not_matter() {
    let all: ArrayRef = Arc::new(StringArray::from(vec!["\0", "ok"]));
    assert_eq!(one(all.slice(1, 1), &SqlType::Text), "ok");
}

#[test]
fn times_keep_their_instant() {
    let seconds = TimestampSecondArray::from(vec![0]).with_timezone("America/New_York");
    assert_eq!(
        one(Arc::new(seconds), &SqlType::TimestampTz),
        "1970-01-01 00:00:00+00"
    );
    let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_000_001_999]));
    assert_eq!(
        one(Arc::clone(&nanos), &SqlType::Timestamp),
        "1970-01-01 00:00:01.000001"
    );
    assert!(refusal(nanos, &SqlType::Date).contains("out of range for type date"));
    let midnight: ArrayRef = Arc::new(TimestampSecondArray::from(vec![86_400]));
    assert_eq!(one(midnight, &SqlType::Date), "1970-01-02");
    let date: ArrayRef = Arc::new(Date32Array::from(vec![1]));
    assert_eq!(one(date, &SqlType::Timestamp), "1970-01-02 00:00:00");
    let duration: ArrayRef = Arc::new(DurationSecondArray::from(vec![3661]));
    assert_eq!(one(duration, &SqlType::Interval), "01:01:01");
}

#[test]
fn bytes_become_bytes_uuids_and_json() {
    let bytes = |value: &'static [u8]| -> ArrayRef { Arc::new(BinaryArray::from(vec![value])) };
    assert_eq!(one(bytes(b"\x01\xff"), &SqlType::Bytea), "\\x01ff");
    assert_eq!(one(bytes(b"[1]"), &SqlType::Jsonb), "[1]");
    assert_eq!(
        one(bytes(&[0x11; 16]), &SqlType::Uuid),
        "11111111-1111-1111-1111-111111111111"
    );
    assert!(refusal(bytes(b"short"), &SqlType::Uuid).contains("5 bytes instead of 16"));
}

#[test]
fn lists_are_converted_item_by_item() {
    let mut lists = ListBuilder::new(arrow_array::builder::Int64Builder::new());
    lists.append_value([Some(1), None, Some(3)]);
    lists.append_null();
    let lists: ArrayRef = Arc::new(lists.finish());
    let sql_type = SqlType::Array(Box::new(SqlType::Int2));
    assert_eq!(
        texts(Arc::clone(&lists), &sql_type).unwrap(),
        [Some("{1,NULL,3}".to_owned()), None]
    );
    assert_eq!(
        texts(lists.slice(1, 1), &SqlType::Int2Vector).unwrap(),
        [None]
    );
    let mut vector = ListBuilder::new(arrow_array::builder::Int64Builder::new());
    vector.append_value([Some(2), Some(1)]);
    let vector: ArrayRef = Arc::new(vector.finish());
    assert_eq!(one(Arc::clone(&vector), &SqlType::Int2Vector), "2 1");
    assert_eq!(one(vector, &SqlType::OidVector), "2 1");
}

#[test]
fn what_does_not_go_together_is_said() {
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    assert_eq!(
        refusal(Arc::clone(&flags), &SqlType::Int4),
        "parameter $1 is of type integer but the data is of Arrow type Boolean"
    );
    assert_eq!(one(flags, &SqlType::Text), "t");
    let nothing: ArrayRef = Arc::new(arrow_array::NullArray::new(2));
    assert_eq!(texts(nothing, &SqlType::Uuid).unwrap(), [None, None]);
    let nulls: ArrayRef = Arc::new(Int32Array::from(vec![None, None]));
    assert_eq!(texts(nulls, &SqlType::Uuid).unwrap(), [None, None]);
}

#[test]
fn tables_get_the_nearest_types() {
    let json = Field::new("j", DataType::Utf8, true)
        .with_metadata([(EXTENSION_NAME.to_owned(), JSON_EXTENSION.to_owned())].into());
    let schema = Schema::new(vec![
        Field::new("Id", DataType::Int64, false),
        Field::new("d", DataType::Decimal128(10, 2), true),
        Field::new("b", DataType::LargeBinary, true),
        Field::new(
            "t",
            DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            true,
        ),
        Field::new("l", DataType::new_list(DataType::Utf8, true), true),
        Field::new("u", DataType::FixedSizeBinary(16), true),
        json,
    ]);
    assert_eq!(
        column_definitions(&schema).unwrap(),
        "\"Id\" bigint, d numeric(10,2), b bytea, t timestamp with time zone, l text[], u uuid, j jsonb"
    );
    let odd = Schema::new(vec![Field::new_struct(
        "s",
        vec![Field::new("x", DataType::Int32, true)],
        true,
    )]);
    assert!(
        column_definitions(&odd)
            .unwrap_err()
            .to_string()
            .contains("column \"s\"")
    );
}
