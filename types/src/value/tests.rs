use std::fmt::Write;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    ArrayRef, Date64Array, Decimal128Array, DictionaryArray, DurationMillisecondArray, Int8Array,
    Int32Array, LargeStringArray, NullArray, StringArray, StringViewArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt8Array,
};
use proptest::prelude::*;

use super::*;
use crate::datetime::{self, TimeZone};
use crate::hash::values_equal;
use crate::sql_type::RegKind;
use crate::sql_type::tests::all_types;

/// A column of cells given as text, NULL if none.
pub(crate) fn column_of(sql_type: &SqlType, cells: &[Option<&str>]) -> ArrayRef {
    let mut builder = ColumnBuilder::new(sql_type, cells.len());
    for cell in cells {
        match cell {
            Some(text) => builder.append_text(text).unwrap(),
            None => builder.append_null(),
        }
    }
    builder.finish()
}

/// Raw material of which a cell of any type can be made.
#[derive(Clone, Debug)]
pub(crate) struct Seed {
    null: bool,
    integer: i64,
    float: f64,
    text: String,
}

pub(crate) fn any_cells() -> impl Strategy<Value = Seed> {
    let float = prop_oneof![
        any::<f64>(),
        Just(0.0),
        Just(-0.0),
        Just(f64::NAN),
        Just(f64::NEG_INFINITY),
        (-1000_i32..1000).prop_map(|n| f64::from(n) / 100.0),
    ];
    let integer = prop_oneof![any::<i64>(), -3_i64..4, Just(i64::MAX), Just(i64::MIN)];
    let text = prop_oneof!["[a-c,{}\\\\\" ]{0,6}", "\\PC{0,8}", Just("null".to_owned())];
    (prop::bool::weighted(0.2), integer, float, text).prop_map(|(null, integer, float, text)| {
        Seed {
            null,
            integer,
            float,
            text,
        }
    })
}

impl Seed {
    pub(crate) fn of(&self, sql_type: &SqlType) -> Option<String> {
        if self.null {
            None
        } else {
            Some(self.text_of(sql_type))
        }
    }

    fn text_of(&self, sql_type: &SqlType) -> String {
        let unsigned = self.integer.unsigned_abs();
        let take = |n: usize| self.text.chars().take(n).collect::<String>();
        let mut out = String::new();
        match sql_type {
            SqlType::Bool => return (self.integer % 2 == 0).to_string(),
            SqlType::Int2 => return (self.integer % (1 << 15)).to_string(),
            SqlType::Int4 => return (self.integer % (1 << 31)).to_string(),
            SqlType::Int8 => return self.integer.to_string(),
            SqlType::UInt2 => return (unsigned % (1 << 16)).to_string(),
            SqlType::UInt4 | SqlType::Oid | SqlType::Reg(_) => {
                return (unsigned % (1 << 32)).to_string();
            }
            SqlType::UInt8 | SqlType::MzTimestamp => return unsigned.to_string(),
            SqlType::Float4 => format_float4(self.float.to_string().parse().unwrap(), &mut out),
            SqlType::Float8 => format_float8(self.float, &mut out),
            SqlType::Numeric(modifier) => {
                let (precision, scale) = crate::numeric::precision_and_scale(*modifier);
                let limit = 10_i128.pow(u32::from(precision));
                let value = i128::from(self.integer) * 1_000_003 % limit;
                crate::numeric::format_numeric(value, scale, *modifier, &mut out);
            }
            SqlType::Text | SqlType::VarChar(None) | SqlType::Name => return self.text.clone(),
            SqlType::VarChar(Some(n)) | SqlType::Char(n) => {
                return take(usize::try_from(*n).unwrap());
            }
            SqlType::QuotedChar => return take(1),
            SqlType::Bytea => return format!("\\x{}", hex::encode(&self.text)),
            SqlType::Jsonb => {
                let text = serde_json::to_string(&self.text).unwrap();
                return format!("{{\"k\": [{}, {text}, null], {text}: 1.50}}", self.integer);
            }
            SqlType::Date => {
                let days = i32::try_from(self.integer % 2_440_588).unwrap();
                datetime::format_date(days, &mut out);
            }
            SqlType::Time => {
                let micros = i64::try_from(unsigned % 86_400_000_001).unwrap();
                datetime::format_time(micros, &mut out);
            }
            SqlType::Timestamp => {
                let micros = self.integer % (2_440_588 * datetime::MICROS_PER_DAY);
                datetime::format_timestamp(micros, &mut out);
            }
            SqlType::TimestampTz => {
                let micros = self.integer % (2_400_000 * datetime::MICROS_PER_DAY);
                datetime::format_timestamptz(micros, &TimeZone::Fixed(-12_600), &mut out);
            }
            SqlType::Interval => {
                let part = |by: i64| self.integer % by;
                return format!(
                    "{} months {} days {} us",
                    part(1_000),
                    part(77),
                    part(1 << 50)
                );
            }
            SqlType::Uuid => {
                let pair = uuid::Uuid::from_u64_pair(unsigned, u64::MAX - unsigned);
                return pair.to_string();
            }
            SqlType::Int2Vector => {
                return format!("{} 0 {}", self.integer % (1 << 15), unsigned % 7);
            }
            SqlType::OidVector => return format!("{} 0", unsigned % (1 << 32)),
            SqlType::Array(element) => {
                // PostgreSQL has no array of empty arrays, so nested ones are never empty here.
                let nested = matches!(**element, SqlType::Array(_));
                if nested {
                    let cell = Self {
                        text: "abc".to_owned(),
                        ..self.clone()
                    }
                    .text_of(element);
                    return format!("{{{cell}, {cell} ,{cell}}}");
                }
                if self.text.len() == 2 {
                    return "{}".to_owned();
                }
                let cell = self
                    .text_of(element)
                    .replace('\\', "\\\\")
                    .replace('"', "\\\"");
                return format!("{{\"{cell}\", NULL ,\"{cell}\"}}");
            }
        }
        out
    }
}

fn texts(array: &ArrayRef, sql_type: &SqlType) -> Vec<Option<String>> {
    let formatter = ColumnFormatter::new(array.as_ref(), sql_type).unwrap();
    (0..array.len())
        .map(|row| {
            let mut out = String::new();
            formatter.write_text(row, &mut out).unwrap().then_some(out)
        })
        .collect()
}

fn assert_same(left: &ArrayRef, right: &ArrayRef, context: &SqlType) {
    assert_eq!(left.data_type(), right.data_type());
    assert_eq!(left.len(), right.len());
    for row in 0..left.len() {
        assert!(
            values_equal(left, row, right, row).unwrap(),
            "{context}: {left:?} {right:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn cells_of_every_type_survive_text_and_binary(
        seeds in proptest::collection::vec(any_cells(), 1..5)
    ) {
        for sql_type in all_types() {
            let cells: Vec<Option<String>> = seeds.iter().map(|seed| seed.of(&sql_type)).collect();
            let cells: Vec<Option<&str>> = cells.iter().map(Option::as_deref).collect();
            let column = column_of(&sql_type, &cells);
            prop_assert_eq!(column.data_type(), &sql_type.to_arrow());

            let written = texts(&column, &sql_type);
            let again: Vec<Option<&str>> = written.iter().map(Option::as_deref).collect();
            let from_text = column_of(&sql_type, &again);
            assert_same(&column, &from_text, &sql_type);
            prop_assert_eq!(&texts(&from_text, &sql_type), &written);

            let formatter = ColumnFormatter::new(column.as_ref(), &sql_type).unwrap();
            let mut builder = ColumnBuilder::new(&sql_type, column.len());
            for (row, cell) in cells.iter().enumerate() {
                let mut bytes = Vec::new();
                if formatter.write_binary(row, &mut bytes).unwrap() {
                    builder.append_binary(&bytes).unwrap();
                    let mut single = Vec::new();
                    prop_assert!(binary_of(column.as_ref(), row, &sql_type, &mut single).unwrap());
                    prop_assert_eq!(single, bytes);
                } else {
                    prop_assert!(cell.is_none());
                    builder.append_null();
                }
            }
            assert_same(&column, &builder.finish(), &sql_type);
        }
    }

    #[test]
    fn any_bytes_and_texts_are_read_or_refused_and_a_refusal_changes_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
        text in "[0-9a-z{},:. \\\\\"+-]{0,20}",
    ) {
        for sql_type in all_types() {
            let mut builder = ColumnBuilder::new(&sql_type, 4);
            builder.append_null();
            let before = builder.len();
            let read = [builder.append_binary(&bytes).is_ok(), builder.append_text(&text).is_ok()];
            let count = read.iter().filter(|read| **read).count();
            prop_assert_eq!(builder.len(), before + count);
            builder.append_null();
            let column = builder.finish();
            prop_assert_eq!(column.len(), before + count + 1);
            prop_assert!(column.is_null(0) && column.is_null(column.len() - 1));
        }
    }

    #[test]
    fn floats_print_as_the_shortest_text_that_reads_back(value in any::<f64>(), single in any::<f32>()) {
        let mut text = String::new();
        format_float8(value, &mut text);
        let read = parse_float8(&text).unwrap();
        prop_assert_eq!(read.to_bits(), crate::normalize::normalize_f64(value).to_bits());
        let mut text = String::new();
        format_float4(single, &mut text);
        let read = parse_float4(&text).unwrap();
        prop_assert_eq!(read.to_bits(), crate::normalize::normalize_f32(single).to_bits());
    }
}

/// Reads each text and expects the other one back.
fn check(sql_type: &SqlType, cases: &[(&str, &str)]) {
    for (input, output) in cases {
        let column = column_of(sql_type, &[Some(input)]);
        let mut text = String::new();
        assert!(text_of(column.as_ref(), 0, sql_type, &mut text).unwrap());
        assert_eq!(text, *output, "{sql_type} of {input:?}");
    }
}

fn refused(sql_type: &SqlType, text: &str) -> TypeError {
    let mut builder = ColumnBuilder::new(sql_type, 1);
    let error = builder.append_text(text).unwrap_err();
    assert!(builder.is_empty());
    error
}

fn array_of(element: SqlType) -> SqlType {
    SqlType::Array(Box::new(element))
}

#[test]
fn texts_are_those_of_postgresql() {
    check(
        &SqlType::Bool,
        &[
            ("yes", "t"),
            (" TRUE ", "t"),
            ("of", "f"),
            ("0", "f"),
            ("n", "f"),
        ],
    );
    check(&SqlType::Int2, &[(" -32768 ", "-32768"), ("+7", "7")]);
    check(
        &SqlType::Int8,
        &[("-9223372036854775808", "-9223372036854775808")],
    );
    check(
        &SqlType::UInt8,
        &[
            ("18446744073709551615", "18446744073709551615"),
            ("-0", "0"),
        ],
    );
    check(
        &SqlType::Float8,
        &[
            ("0.1", "0.1"),
            ("1e20", "1e+20"),
            ("0.00001", "1e-05"),
            ("0.0001", "0.0001"),
            ("-0", "0"),
            ("100000000000000", "100000000000000"),
            ("1000000000000000", "1e+15"),
            ("123456789012345680", "1.2345678901234568e+17"),
            ("-1.5", "-1.5"),
            ("1234.5", "1234.5"),
            ("nan", "NaN"),
            ("-inf", "-Infinity"),
            ("5e-324", "5e-324"),
        ],
    );
    check(
        &SqlType::Float4,
        &[("100000", "100000"), ("1000000", "1e+06"), ("0.1", "0.1")],
    );
    check(
        &SqlType::Char(3),
        &[("a", "a  "), ("abc  ", "abc"), ("ää", "ää ")],
    );
    check(
        &SqlType::VarChar(Some(3)),
        &[("abc   ", "abc"), ("äöü", "äöü"), ("", "")],
    );
    check(&SqlType::Name, &[(&"x".repeat(70), &"x".repeat(63))]);
    check(&SqlType::QuotedChar, &[("rest", "r"), ("", "")]);
    check(
        &SqlType::Bytea,
        &[
            ("\\xDE ad", "\\xdead"),
            ("a\\\\\\001", "\\x615c01"),
            ("", "\\x"),
        ],
    );
    check(
        &SqlType::Uuid,
        &[(
            "{A0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        )]
        .iter()
        .map(|(_, output)| ("A0EEBC999C0B4EF8BB6D6BB9BD380A11", *output))
        .collect::<Vec<_>>(),
    );
    check(
        &SqlType::Jsonb,
        &[(
            "{\"bb\":1,\"a\":[1, 2.50,true]}",
            "{\"a\": [1, 2.5, true], \"bb\": 1}",
        )],
    );
    check(&SqlType::Oid, &[("4294967295", "4294967295")]);
    check(&SqlType::Reg(RegKind::Class), &[("1259", "1259")]);
}

#[test]
fn arrays_are_quoted_where_they_must_be() {
    check(
        &array_of(SqlType::Text),
        &[
            ("{}", "{}"),
            ("{1,NULL,\"a b\"}", "{1,NULL,\"a b\"}"),
            ("{ \"null\" , nUll, a b }", "{\"null\",NULL,\"a b\"}"),
            (
                "{\"\",\"\\\"\\\\\",\"{}\",a\\,b}",
                "{\"\",\"\\\"\\\\\",\"{}\",\"a,b\"}",
            ),
            ("[1:2]={a,b}", "{a,b}"),
        ],
    );
    assert!(matches!(
        refused(&array_of(SqlType::Text), "[0:1]={a,b}"),
        TypeError::NotSupported(_)
    ));
    check(
        &array_of(array_of(SqlType::Int4)),
        &[("{{1,2},{3,NULL}}", "{{1,2},{3,NULL}}"), ("{}", "{}")],
    );
    check(
        &array_of(SqlType::Timestamp),
        &[("{2020-01-01}", "{\"2020-01-01 00:00:00\"}")],
    );
    for bad in [
        "", "{", "}", "{1,}", "{,1}", "{1 2", "1", "{1}}", "{1}{2}", "{\"1}",
    ] {
        assert!(
            matches!(
                refused(&array_of(SqlType::Int4), bad),
                TypeError::InvalidText { .. }
            ),
            "{bad}"
        );
    }
    for deeper in ["{{1}}", "{{1,2},{3,4}}", "{1,{2}}"] {
        assert!(
            matches!(
                refused(&array_of(SqlType::Int4), deeper),
                TypeError::NotSupported(_)
            ),
            "{deeper}"
        );
    }
    let nested = array_of(array_of(SqlType::Int4));
    assert!(matches!(
        refused(&nested, "{{{1}}}"),
        TypeError::NotSupported(_)
    ));
    for bad in ["{1}", "{{1},2}", "{{1},{x}}", "{{1,2}"] {
        assert!(
            matches!(refused(&nested, bad), TypeError::InvalidText { .. }),
            "{bad}"
        );
    }
}

#[test]
fn a_refused_array_leaves_no_items_behind() {
    let nested = array_of(array_of(SqlType::Int4));
    let mut builder = ColumnBuilder::new(&nested, 2);
    builder.append_text("{{1,2},{3}}").unwrap();
    builder.append_text("{{4,5},{6,x}}").unwrap_err();
    builder.append_text("{{7,8},{9").unwrap_err();
    builder.append_text("{{10}}").unwrap();
    let column = builder.finish();
    assert_eq!(
        texts(&column, &nested),
        [Some("{{1,2},{3}}".to_owned()), Some("{{10}}".to_owned())]
    );
}

#[test]
fn a_ragged_array_has_no_binary_format() {
    let nested = array_of(array_of(SqlType::Int4));
    let column = column_of(
        &nested,
        &[Some("{{1,2},{3}}"), Some("{NULL,{1}}"), Some("{{1},NULL}")],
    );
    for row in 0..column.len() {
        let mut out = vec![9];
        let error = binary_of(column.as_ref(), row, &nested, &mut out).unwrap_err();
        assert!(matches!(error, TypeError::InvalidParameter(_)));
        assert_eq!(out, [9]);
    }
}

#[test]
fn the_binary_array_format_is_postgresql_s() {
    let column = column_of(&array_of(SqlType::Int2), &[Some("{5,NULL}")]);
    let mut out = Vec::new();
    binary_of(column.as_ref(), 0, &array_of(SqlType::Int2), &mut out).unwrap();
    let expected: Vec<u8> = [1_i32, 1, 21, 2, 1, 2]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .chain([0, 5])
        .chain((-1_i32).to_be_bytes())
        .collect();
    assert_eq!(out, expected);
}

#[test]
fn what_does_not_fit_is_named() {
    assert_eq!(
        refused(&SqlType::Int2, "32768").to_string(),
        "value \"32768\" is out of range for type smallint"
    );
    assert_eq!(
        refused(&SqlType::Int4, "1.5").to_string(),
        "invalid input syntax for type integer: \"1.5\""
    );
    assert_eq!(
        refused(&SqlType::VarChar(Some(2)), "abc").to_string(),
        "value too long for type character varying(2)"
    );
    assert!(matches!(
        refused(&SqlType::Char(2), "a bc"),
        TypeError::TooLong { .. }
    ));
    assert!(matches!(
        refused(&SqlType::UInt2, "-1"),
        TypeError::OutOfRange { .. }
    ));
    assert!(matches!(
        refused(&SqlType::Float8, "1e400"),
        TypeError::OutOfRange { .. }
    ));
    assert!(matches!(
        refused(&SqlType::Float8, "1e-400"),
        TypeError::OutOfRange { .. }
    ));
    assert!(matches!(
        refused(&SqlType::Float4, "1e39"),
        TypeError::OutOfRange { .. }
    ));
    assert!(matches!(
        refused(&SqlType::Bool, "o"),
        TypeError::InvalidText { .. }
    ));
    assert!(matches!(
        refused(&SqlType::Bytea, "\\x0"),
        TypeError::InvalidText { .. }
    ));
    assert!(matches!(
        refused(&SqlType::Bytea, "a\\9"),
        TypeError::InvalidText { .. }
    ));
    assert!(matches!(
        refused(&SqlType::Uuid, "x"),
        TypeError::InvalidText { .. }
    ));
    let mut text = ColumnBuilder::new(&SqlType::Text, 1);
    assert!(text.append_binary(&[0xff]).is_err() && text.append_binary(b"a\0").is_err());
    assert!(text.is_empty());
}

#[test]
fn floats_are_normalised_on_the_way_in() {
    let mut builder = ColumnBuilder::new(&SqlType::Float8, 2);
    builder.append_binary(&(-0.0_f64).to_be_bytes()).unwrap();
    builder.append_binary(&(-f64::NAN).to_be_bytes()).unwrap();
    builder.append_text("-0").unwrap();
    let column = builder.finish();
    let values = column.as_primitive::<arrow_array::types::Float64Type>();
    let bits: Vec<u64> = values
        .values()
        .iter()
        .map(|value| value.to_bits())
        .collect();
    assert_eq!(
        bits,
        [0.0_f64.to_bits(), f64::NAN.to_bits(), 0.0_f64.to_bits()]
    );
}

#[test]
fn truncating_a_column_forgets_the_later_cells() {
    for sql_type in all_types() {
        let seed = Seed {
            null: false,
            integer: 1,
            float: 1.0,
            text: "abc".to_owned(),
        };
        let cell = seed.of(&sql_type).unwrap();
        let mut builder = ColumnBuilder::new(&sql_type, 3);
        builder.append_text(&cell).unwrap();
        builder.append_null();
        builder.append_text(&cell).unwrap();
        builder.truncate(1);
        builder.append_null();
        assert_same(
            &builder.finish(),
            &column_of(&sql_type, &[Some(&cell), None]),
            &sql_type,
        );
    }
}

#[test]
fn physical_relatives_of_a_type_are_written_as_the_type() {
    let strings: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from(vec![Some("a"), None])),
        Arc::new(LargeStringArray::from(vec![Some("a"), None])),
        Arc::new(DictionaryArray::new(
            Int32Array::from(vec![Some(0), None]),
            Arc::new(StringArray::from(vec!["a"])),
        )),
        Arc::new(DictionaryArray::new(
            Int32Array::from(vec![0, 1]),
            Arc::new(StringArray::from(vec![Some("a"), None])),
        )),
    ];
    for array in strings {
        assert_eq!(texts(&array, &SqlType::Text), [Some("a".to_owned()), None]);
    }
    let check = |array: ArrayRef, sql_type: SqlType, expected: &str| {
        assert_eq!(texts(&array, &sql_type), [Some(expected.to_owned())]);
    };
    check(Arc::new(Int8Array::from(vec![-5])), SqlType::Int2, "-5");
    check(Arc::new(UInt8Array::from(vec![5])), SqlType::Int2, "5");
    check(
        Arc::new(Date64Array::from(vec![86_400_000])),
        SqlType::Date,
        "1970-01-02",
    );
    check(
        Arc::new(TimestampNanosecondArray::from(vec![1_500])),
        SqlType::Timestamp,
        "1970-01-01 00:00:00.000001",
    );
    check(
        Arc::new(TimestampSecondArray::from(vec![60]).with_timezone("Europe/Berlin")),
        SqlType::TimestampTz,
        "1970-01-01 00:01:00+00",
    );
    check(
        Arc::new(DurationMillisecondArray::from(vec![1_500])),
        SqlType::Interval,
        "00:00:01.5",
    );
    let decimal = || {
        let values = Decimal128Array::from(vec![12_500]).with_precision_and_scale(20, 4);
        Arc::new(values.unwrap())
    };
    check(decimal(), SqlType::Numeric(None), "1.25");
    check(decimal(), SqlType::Numeric(Some((10, 1))), "1.3");
    let nulls: ArrayRef = Arc::new(NullArray::new(2));
    for sql_type in all_types() {
        assert_eq!(texts(&nulls, &sql_type), [None, None]);
    }
}

#[test]
fn time_stamps_are_read_and_shown_in_the_session_s_zone() {
    let zone: TimeZone = "America/New_York".parse().unwrap();
    let sql_type = array_of(SqlType::TimestampTz);
    let mut builder = ColumnBuilder::new(&sql_type, 1).with_time_zone(zone.clone());
    builder.append_text("{2024-07-01 12:00:00}").unwrap();
    let column = builder.finish();
    let mut out = String::new();
    let formatter = ColumnFormatter::new(column.as_ref(), &sql_type).unwrap();
    formatter
        .with_time_zone(zone)
        .write_text(0, &mut out)
        .unwrap();
    let _ = write!(out, " ");
    text_of(column.as_ref(), 0, &sql_type, &mut out).unwrap();
    assert_eq!(
        out,
        "{\"2024-07-01 12:00:00-04\"} {\"2024-07-01 16:00:00+00\"}"
    );
}
