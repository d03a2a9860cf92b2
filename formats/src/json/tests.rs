use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use flowstone_types::value::text_of;
use proptest::prelude::*;

use super::*;
use crate::semantic::TimeUnit;

fn member(name: &str, sql_type: SqlType, semantic: Semantic) -> JsonColumn {
    JsonColumn {
        column: Column::new(name, sql_type, true),
        semantic,
    }
}

/// A cell as text.
fn cell(decoded: &Decoded, relation: &Relation, column: usize, row: usize) -> Option<String> {
    let mut text = String::new();
    let array = &decoded.columns[column];
    text_of(array, row, &relation.columns[column].sql_type, &mut text)
        .unwrap()
        .then_some(text)
}

#[test]
fn a_document_is_one_column_and_what_is_no_json_is_a_bad_row() {
    let decoder = JsonDecoder::new(JsonContent::Document, Limits::default());
    let payloads = [
        Some(b" {\"b\":1.0,\"a\":[null]} ".as_slice()),
        Some(b"{"),
        Some(b"\xff"),
        Some(b"null"),
    ];
    let decoded = decoder.decode(&payloads).unwrap();
    assert_eq!(decoded.rows, [0, 3]);
    assert_eq!(
        cell(&decoded, decoder.relation(), 0, 0).unwrap(),
        r#"{"a": [null], "b": 1}"#
    );
    assert_eq!(decoded.bad.len(), 2);
}

#[test]
fn members_are_columns_of_their_types() {
    let micros = Semantic::Timestamp(TimeUnit::Micros);
    let decimal = Semantic::decimal(Some(12), 2);
    let members = vec![
        member("id", SqlType::Int8, Semantic::Plain),
        member("amount", SqlType::Numeric(Some((12, 2))), decimal),
        member("free", SqlType::Numeric(None), Semantic::VariableDecimal),
        member("at", SqlType::TimestampTz, Semantic::ZonedTimestamp),
        member("loc", SqlType::Timestamp, micros),
        member("d", SqlType::Date, Semantic::Days),
        member("doc", SqlType::Jsonb, Semantic::Json),
        member(
            "tags",
            SqlType::Array(Box::new(SqlType::Text)),
            Semantic::Plain,
        ),
        member("raw", SqlType::Bytea, Semantic::Plain),
        member("any", SqlType::Text, Semantic::Plain),
    ];
    let decoder = JsonDecoder::new(JsonContent::Members(members), Limits::default());
    let payload = br#"{"id":1,"amount":"AeI6","free":{"scale":1,"value":"AQ=="},"at":"2026-01-02T01:04:05.123456Z",
        "loc":1767323045123456,"d":20455,"doc":"{\"a\": [1, 2.5]}","tags":["x",null,"y,z"],"raw":"AP8=","any":{"k":1}}"#;
    let decoded = decoder
        .decode(&[
            Some(payload.as_slice()),
            Some(b"{\"id\":\"x\"}"),
            Some(b"{}"),
        ])
        .unwrap();
    let cells: Vec<_> = (0..10)
        .map(|column| cell(&decoded, decoder.relation(), column, 0).unwrap())
        .collect();
    assert_eq!(
        cells,
        [
            "1",
            "1234.50",
            "0.1",
            "2026-01-02 01:04:05.123456+00",
            "2026-01-02 03:04:05.123456",
            "2026-01-02",
            r#"{"a": [1, 2.5]}"#,
            r#"{x,NULL,"y,z"}"#,
            "\\x00ff",
            r#"{"k": 1}"#,
        ]
    );
    assert_eq!(decoded.rows, [0, 2]);
    assert!(
        decoded.bad[0].reason.starts_with("id: "),
        "{}",
        decoded.bad[0].reason
    );
}

#[test]
fn a_member_that_may_not_be_null_must_be_there() {
    let members = vec![JsonColumn::plain(Column::new("id", SqlType::Int8, false))];
    let decoder = JsonDecoder::new(JsonContent::Members(members), Limits::default());
    let payloads = [Some(b"{\"id\":null}".as_slice()), Some(b"[5]"), Some(b"7")];
    let decoded = decoder.decode(&payloads).unwrap();
    assert_eq!(decoded.rows, [1]);
    assert_eq!(decoded.columns[0].as_primitive::<Int64Type>().value(0), 5);
}

#[test]
fn envelopes_are_taken_apart_wrapped_or_not() {
    let members = vec![JsonColumn::plain(Column::new("id", SqlType::Int8, false))];
    let decoder = JsonDecoder::new(JsonContent::Envelope(members), Limits::default());
    let layout = decoder.layout().unwrap().clone();
    let payloads = [
        Some(br#"{"before":null,"after":{"id":1},"op":"c","source":{"file":"b.1","pos":4,"row":0,"snapshot":true}}"#.as_slice()),
        Some(br#"{"schema":{"type":"struct"},"payload":{"before":{"id":1},"after":null,"op":"d"}}"#),
        Some(br#"{"resolved":"1.0"}"#),
        Some(br#"{"id":1}"#),
        Some(br#"{"after":{}}"#),
    ];
    let decoded = decoder.decode(&payloads).unwrap();
    assert_eq!(decoded.rows, [0, 1, 2]);
    let present = |note, row: usize| decoded.columns[layout.note(note)].is_valid(row);
    assert!(present(Note::AfterPresent, 0) && !present(Note::BeforePresent, 0));
    assert!(!present(Note::AfterPresent, 1) && present(Note::BeforePresent, 1));
    assert!(present(Note::Resolved, 2));
    let snapshot = decoded.columns[layout.note(Note::Snapshot)].as_string::<i32>();
    assert_eq!(snapshot.value(0), "true");
    assert_eq!(decoded.bad.len(), 2);
}

#[test]
fn the_schema_of_a_message_says_that_a_text_is_a_document() {
    let members = vec![
        member("doc", SqlType::Jsonb, Semantic::Plain),
        member("at", SqlType::Timestamp, Semantic::Plain),
    ];
    let decoder = JsonDecoder::new(JsonContent::Envelope(members), Limits::default());
    let schema = |kind: &str| {
        format!(
            r#"{{"type":"struct","fields":[{{"type":"struct","field":"after","fields":[
            {{"type":"string","name":"{kind}","field":"doc"}},
            {{"type":"int64","name":"io.debezium.time.Timestamp","field":"at"}}]}}]}}"#
        )
    };
    let envelope = r#"{"after":{"doc":"{\"b\": 1}","at":1000},"op":"c"}"#;
    let wrapped = |kind| format!(r#"{{"schema":{},"payload":{envelope}}}"#, schema(kind));
    let document = wrapped("io.debezium.data.Json");
    // Whatever was read before, and in another order, which takes the long way.
    let turned = format!(
        r#"{{"payload":{envelope},"schema":{}}}"#,
        schema("io.debezium.data.Json")
    );
    let other = wrapped("com.example.Text");
    let messages = [
        document.as_str(),
        envelope,
        document.as_str(),
        turned.as_str(),
        other.as_str(),
    ];
    let payloads: Vec<_> = messages
        .iter()
        .map(|message| Some(message.as_bytes()))
        .collect();
    let decoded = decoder.decode(&payloads).unwrap();
    assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
    let cells = |column| -> Vec<String> {
        let rows = 0..decoded.rows.len();
        rows.map(|row| cell(&decoded, decoder.relation(), column, row).unwrap())
            .collect()
    };
    let (parsed, text) = (r#"{"b": 1}"#, r#""{\"b\": 1}""#);
    assert_eq!(cells(0), [parsed, text, parsed, parsed, text]);
    // Milliseconds or, where nothing says so, microseconds.
    let (millis, micros) = ("1970-01-01 00:00:01", "1970-01-01 00:00:00.001");
    assert_eq!(cells(1), [millis, micros, millis, millis, millis]);
}

#[test]
fn an_image_may_be_a_text_of_a_document() {
    let decoder = JsonDecoder::new(JsonContent::DocumentEnvelope, Limits::default());
    let payload = br#"{"after":"{\"_id\": {\"$oid\": \"6\"}, \"n\": 1}","op":"r"}"#;
    let decoded = decoder.decode(&[Some(payload.as_slice())]).unwrap();
    let text = cell(&decoded, decoder.relation(), 0, 0).unwrap();
    assert_eq!(text, r#"{"n": 1, "_id": {"$oid": "6"}}"#);
}

proptest! {
    #[test]
    fn no_payload_makes_us_panic(payload in prop::collection::vec(any::<u8>(), 0..64), text in "\\PC{0,40}") {
        let members = vec![
            member("a", SqlType::Date, Semantic::Days),
            member("b", SqlType::Array(Box::new(SqlType::Int2)), Semantic::Plain),
        ];
        for content in [
            JsonContent::Document,
            JsonContent::Members(members.clone()),
            JsonContent::Envelope(members.clone()),
            JsonContent::DocumentEnvelope,
        ] {
            let decoder = JsonDecoder::new(content, Limits::default());
            let object = format!("{{\"a\":{text},\"b\":[{text}],\"after\":{{\"a\":{text}}}}}");
            let payloads = [Some(payload.as_slice()), Some(text.as_bytes()), Some(object.as_bytes())];
            let decoded = decoder.decode(&payloads).unwrap();
            prop_assert_eq!(decoded.rows.len() + decoded.bad.len(), 3);
            for column in &decoded.columns {
                prop_assert_eq!(column.len(), decoded.rows.len());
            }
        }
    }
}
