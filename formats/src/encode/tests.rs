use flowstone_types::value::ColumnBuilder;
use proptest::prelude::*;

use super::*;
use crate::json::{JsonColumn, JsonContent, JsonDecoder};
use crate::relation::Column;
use crate::rows::Limits;

fn relation() -> Relation {
    Relation::new(vec![
        Column::new("i", SqlType::Int8, true),
        Column::new("n", SqlType::Numeric(Some((12, 2))), true),
        Column::new("f", SqlType::Float8, true),
        Column::new("t", SqlType::Text, true),
        Column::new("b", SqlType::Bytea, true),
        Column::new("j", SqlType::Jsonb, true),
        Column::new("at", SqlType::Timestamp, true),
        Column::new("a", SqlType::Array(Box::new(SqlType::Int4)), true),
        Column::new("ok", SqlType::Bool, true),
    ])
}

fn batch(rows: &[[Option<String>; 9]]) -> RecordBatch {
    let relation = relation();
    let columns = relation.columns.iter().enumerate().map(|(index, column)| {
        let mut builder = ColumnBuilder::new(&column.sql_type, rows.len());
        for row in rows {
            match &row[index] {
                Some(text) => builder.append_text(text).unwrap(),
                None => builder.append_null(),
            }
        }
        builder.finish()
    });
    RecordBatch::try_new(relation.to_schema(), columns.collect()).unwrap()
}

fn row(cells: [&str; 9]) -> [Option<String>; 9] {
    cells.map(|cell| Some(cell.to_owned()))
}

#[test]
fn values_look_as_sinks_want_them() {
    let cells = [
        "7",
        "1.50",
        "NaN",
        "a\"b",
        "\\x00ff",
        "{\"k\":1}",
        "2024-07-03 18:43:05.312",
        "{1,NULL}",
        "t",
    ];
    let batch = batch(&[row(cells)]);
    let rows = JsonRows::new(&relation(), &batch, TimeStyle::Epoch).unwrap();
    let mut out = String::new();
    rows.write(0, &mut out).unwrap();
    assert_eq!(
        out,
        r#"{"i":7,"n":"1.50","f":"NaN","t":"a\"b","b":"AP8=","j":{"k": 1},"at":"1720032185.312","a":[1,null],"ok":true}"#
    );
    let mut out = String::new();
    rows.write_change(None, Some(0), &mut out).unwrap();
    assert!(
        out.starts_with(r#"{"before":null,"after":{"i":7,"#),
        "{out}"
    );
    serde_json::from_str::<serde_json::Value>(&out).unwrap();
}

#[test]
fn one_column_is_its_own_payload() {
    let relation = Relation::of_one("t", SqlType::Bytea);
    let mut builder = ColumnBuilder::new(&SqlType::Bytea, 1);
    builder.append_bytes(b"\xff").unwrap();
    let batch = RecordBatch::try_new(relation.to_schema(), vec![builder.finish()]).unwrap();
    let (mut text, mut bytes) = (String::new(), Vec::new());
    assert!(write_text(&relation, &batch, 0, &mut text).unwrap());
    assert!(write_bytes(&relation, &batch, 0, &mut bytes).unwrap());
    assert_eq!(
        (text.as_str(), bytes.as_slice()),
        ("\\xff", b"\xff".as_slice())
    );
    write_text(&super::tests::relation(), &batch, 0, &mut text).unwrap_err();
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        integer in any::<i64>(),
        cents in -999_999_999_i64..999_999_999,
        float in any::<f64>(),
        text in "[^\\x00]{0,12}",
        micros in -2_000_000_000_000_000_i64..2_000_000_000_000_000,
        items in prop::collection::vec(any::<i32>(), 0..4),
        null in 0_usize..12,
    ) {
        let mut at = String::new();
        flowstone_types::datetime::format_timestamp(micros, &mut at);
        let number = format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100);
        let items: Vec<String> = items.iter().map(ToString::to_string).collect();
        let mut cells = [
            integer.to_string(),
            number,
            float.to_string(),
            text.clone(),
            text.bytes().fold("\\x".to_owned(), |hex, byte| format!("{hex}{byte:02x}")),
            serde_json::Value::from(text).to_string(),
            at,
            format!("{{{}}}", items.join(",")),
            "f".to_owned(),
        ].map(Some);
        if let Some(cell) = cells.get_mut(null) {
            *cell = None;
        }
        let batch = batch(&[cells]);
        let rows = JsonRows::new(&relation(), &batch, TimeStyle::Text).unwrap();
        let mut out = String::new();
        rows.write(0, &mut out).unwrap();
        let members = relation().columns.into_iter().map(JsonColumn::plain).collect();
        let decoder = JsonDecoder::new(JsonContent::Members(members), Limits::default());
        let decoded = decoder.decode(&[Some(out.as_bytes())]).unwrap();
        prop_assert!(decoded.bad.is_empty(), "{:?} of {}", decoded.bad, out);
        for (read, written) in decoded.columns.iter().zip(batch.columns()) {
            prop_assert_eq!(read.as_ref(), written.as_ref());
        }
    }
}
