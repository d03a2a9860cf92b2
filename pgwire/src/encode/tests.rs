use std::sync::Arc;

use arrow_array::{Array, Int32Array, StringArray};
use arrow_schema::Schema;

use super::*;

#[test]
fn formats_are_none_one_or_each() {
    let none = Formats::from_codes(&[]);
    assert!(!none.is_binary(0) && !none.is_binary(5));
    let one = Formats::from_codes(&[1]);
    assert!(one.is_binary(0) && one.is_binary(5));
    let each = Formats::from_codes(&[0, 1]);
    assert!(!each.is_binary(0) && each.is_binary(1) && !each.is_binary(2));
    assert!(!Formats::text().is_binary(0));
}

#[test]
fn rows_are_written_in_the_format_of_each_column() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        SqlType::Int4.to_field("id", true),
        SqlType::Int4.to_field("again", true),
        SqlType::Text.to_field("name", true),
    ]));
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![Some(258), None]));
    let names: ArrayRef = Arc::new(StringArray::from(vec![None, Some("")]));
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(&ids), ids, names]).unwrap();
    let formats = Formats::from_codes(&[0, 1, 0]);
    let encoder = RowEncoder::new(&schema, &batch, &formats, &TimeZone::UTC).unwrap();
    let first = encoder.encode(0).unwrap();
    assert_eq!(first.field_count, 3);
    assert_eq!(
        first.data.as_ref(),
        b"\0\0\0\x03258\0\0\0\x04\0\0\x01\x02\xff\xff\xff\xff"
    );
    let second = encoder.encode(1).unwrap();
    assert_eq!(
        second.data.as_ref(),
        b"\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
        "NULL, NULL, and an empty string"
    );
    let described = row_description(&schema, &formats).unwrap();
    assert_eq!(
        described
            .iter()
            .map(|field| (field.name.as_str(), field.type_id, field.format_code))
            .collect::<Vec<_>>(),
        [("id", 23, 0), ("again", 23, 1), ("name", 25, 0)]
    );
}

#[test]
fn parameters_come_in_both_formats() {
    let int = |value: Option<&[u8]>, binary| {
        decode_parameter(value, &SqlType::Int4, binary, &TimeZone::UTC).map(|array| {
            array
                .as_any()
                .downcast_ref::<Int32Array>()
                .unwrap()
                .iter()
                .next()
                .unwrap()
        })
    };
    assert_eq!(int(Some(b"-7"), false).unwrap(), Some(-7));
    assert_eq!(int(Some(&(-7_i32).to_be_bytes()), true).unwrap(), Some(-7));
    assert_eq!(int(None, true).unwrap(), None);
    assert!(matches!(
        int(Some(b"seven"), false),
        Err(Error::Value(flowstone_types::TypeError::InvalidText { .. }))
    ));
    assert!(matches!(
        int(Some(b"\0\0"), true),
        Err(Error::Value(
            flowstone_types::TypeError::InvalidBinary { .. }
        ))
    ));
    let null = decode_parameter(
        None,
        &SqlType::Array(Box::new(SqlType::Text)),
        false,
        &TimeZone::UTC,
    )
    .unwrap();
    assert_eq!((null.len(), null.null_count()), (1, 1));
}

#[test]
fn a_parameter_that_is_not_text_is_refused() {
    for (bytes, shown) in [
        (&b"a\xc3("[..], "0xc3"),
        (b"a\0", "0x00"),
        (b"\xe4\xb8", "0xe4 0xb8"),
    ] {
        let error =
            decode_parameter(Some(bytes), &SqlType::Text, false, &TimeZone::UTC).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("invalid byte sequence for encoding \"UTF8\": {shown}")
        );
    }
}

#[test]
fn every_type_is_found_by_its_oid() {
    for (oid, sql_type) in [
        (16, SqlType::Bool),
        (20, SqlType::Int8),
        (1700, SqlType::Numeric(None)),
        (3802, SqlType::Jsonb),
        (114, SqlType::Jsonb),
        (1042, SqlType::Char(0)),
        (1014, SqlType::Array(Box::new(SqlType::Char(0)))),
        (1007, SqlType::Array(Box::new(SqlType::Int4))),
        (1009, SqlType::Array(Box::new(SqlType::Text))),
    ] {
        assert_eq!(type_of_oid(oid), Some(sql_type), "{oid}");
    }
    // Unspecified, unknown to us, `unknown`: the planner infers them.
    for oid in [0, 600, 705] {
        assert_eq!(type_of_oid(oid), None, "{oid}");
    }
}
