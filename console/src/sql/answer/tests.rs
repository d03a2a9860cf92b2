use std::sync::Arc;

use arrow_schema::Schema;
use flowstone_types::value::ColumnBuilder;
use serde_json::{Value, json};

use super::*;

/// A batch of one column: the texts of its cells.
fn column(sql_type: &SqlType, cells: &[Option<&str>]) -> RecordBatch {
    let mut builder = ColumnBuilder::new(sql_type, cells.len());
    for cell in cells {
        match cell {
            Some(text) => builder.append_text(text).unwrap(),
            None => builder.append_null(),
        }
    }
    let schema = Schema::new(vec![sql_type.to_field("c", true)]);
    RecordBatch::try_new(Arc::new(schema), vec![builder.finish()]).unwrap()
}

fn parsed(results: Results) -> Value {
    serde_json::from_slice(&results.finish().text()).unwrap()
}

fn results_of() -> Results {
    Results::new(&SessionMemory::with_limit(64 << 20))
}

fn rows_of(batch: &RecordBatch) -> Value {
    let mut results = results_of();
    let mut writer = results.start_rows(&batch.schema()).unwrap();
    writer.push(batch, &TimeZone::UTC).unwrap();
    results.rows(writer, "SELECT", Vec::new());
    parsed(results)["results"][0]["rows"].clone()
}

#[test]
fn values_are_jsons_own_where_json_can_hold_them() {
    for (sql_type, text, expected) in [
        (SqlType::Bool, "t", json!(true)),
        (SqlType::Bool, "f", json!(false)),
        (SqlType::Int2, "-1", json!(-1)),
        (SqlType::Int4, "2147483647", json!(2_147_483_647)),
        (SqlType::UInt4, "4294967295", json!(4_294_967_295_u32)),
        (SqlType::Oid, "7", json!(7)),
        (SqlType::Float8, "0.1", json!(0.1)),
        (SqlType::Float8, "1e-07", json!(1e-7)),
        (SqlType::Float8, "1e+300", json!(1e300)),
        (SqlType::Float4, "0.5", json!(0.5)),
        (SqlType::Float8, "NaN", json!("NaN")),
        (SqlType::Float8, "Infinity", json!("Infinity")),
        (SqlType::Float4, "-Infinity", json!("-Infinity")),
        (SqlType::Int8, "9007199254740993", json!("9007199254740993")),
        (
            SqlType::UInt8,
            "18446744073709551615",
            json!("18446744073709551615"),
        ),
        (SqlType::Numeric(Some((10, 2))), "1.50", json!("1.50")),
        (
            SqlType::MzTimestamp,
            "1700000000000",
            json!("1700000000000"),
        ),
        (
            SqlType::Text,
            "a\"\\\n\u{1}é</script>",
            json!("a\"\\\n\u{1}é</script>"),
        ),
        (SqlType::Text, "NaN", json!("NaN")),
        (SqlType::Bytea, "\\x00ff", json!("\\x00ff")),
        (
            SqlType::Jsonb,
            r#"{"a": [1, null, "x"]}"#,
            json!({"a": [1, null, "x"]}),
        ),
        (SqlType::Jsonb, "\"text\"", json!("text")),
        (SqlType::Date, "2024-02-29", json!("2024-02-29")),
        (
            SqlType::TimestampTz,
            "2024-02-29 12:00:00+00",
            json!("2024-02-29 12:00:00+00"),
        ),
        (SqlType::Interval, "1 day", json!("1 day")),
        (
            SqlType::Array(Box::new(SqlType::Int4)),
            "{1,NULL,3}",
            json!("{1,NULL,3}"),
        ),
    ] {
        let rows = rows_of(&column(&sql_type, &[Some(text), None]));
        assert_eq!(rows, json!([[expected], [null]]), "{sql_type} {text}");
    }
}

#[test]
fn numbers_inside_jsonb_keep_their_digits() {
    let batch = column(
        &SqlType::Jsonb,
        &[Some(r#"{"n": 12345678901234567890.123456789}"#)],
    );
    let results = results_of();
    let mut writer = results.start_rows(&batch.schema()).unwrap();
    writer.push(&batch, &TimeZone::UTC).unwrap();
    let json = String::from_utf8(writer.json).unwrap();
    assert!(json.contains("12345678901234567890.123456789"), "{json}");
}

#[test]
fn results_have_the_documented_form() {
    let mut results = results_of();
    let batch = column(&SqlType::Numeric(Some((10, 2))), &[Some("1.50")]);
    let mut writer = results.start_rows(&batch.schema()).unwrap();
    writer.push(&batch, &TimeZone::UTC).unwrap();
    writer.push(&batch, &TimeZone::UTC).unwrap();
    assert_eq!(writer.len(), 2);
    results.rows(
        writer,
        "SELECT 2",
        vec![Notice {
            severity: Severity::Notice,
            message: "slow".to_owned(),
            detail: None,
            hint: Some("Wait.".to_owned()),
        }],
    );
    results.ok("CREATE TABLE", Vec::new());
    let report = Report {
        detail: Some("More.".to_owned()),
        position: Some(8),
        ..Report::new("42703", "column \"x\" does not exist")
    };
    results.error(&report, Vec::new());
    results.add_notices(vec![Notice {
        severity: Severity::Warning,
        message: "late".to_owned(),
        detail: None,
        hint: None,
    }]);
    assert_eq!(
        parsed(results),
        json!({"results": [
            {
                "desc": {"columns": [{"name": "c", "type_oid": 1700, "type_len": -1, "type_mod": 655_366}]},
                "rows": [["1.50"], ["1.50"]],
                "tag": "SELECT 2",
                "notices": [{"message": "slow", "code": "00000", "severity": "notice", "hint": "Wait."}],
            },
            {"ok": "CREATE TABLE", "notices": []},
            {
                "error": {"message": "column \"x\" does not exist", "code": "42703", "detail": "More.", "position": 8},
                "notices": [{"message": "late", "code": "01000", "severity": "warning"}],
            },
        ]})
    );
    assert_eq!(parsed(results_of()), json!({"results": []}));
}

#[test]
fn a_result_that_is_too_large_is_an_error_and_all_results_count() {
    let megabyte = "x".repeat(1 << 20);
    let batch = column(&SqlType::Text, &[Some(&megabyte)]);
    let mut results = results_of();
    let mut written = 0;
    let report = loop {
        let mut writer = results.start_rows(&batch.schema()).unwrap();
        match writer.push(&batch, &TimeZone::UTC) {
            Ok(()) => {
                results.rows(writer, "SELECT 1", Vec::new());
                written += 1;
            }
            Err(report) => break report,
        }
    };
    assert_eq!(
        written, 15,
        "16 MiB hold 15 megabytes and what is around them"
    );
    assert_eq!(report.code, "53400");
    assert!(report.hint.unwrap().contains("LIMIT"));
}
