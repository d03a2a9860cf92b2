use arrow_array::types::Int64Type;
use flowstone_types::SqlType;

use super::*;
use crate::json::{JsonColumn, JsonContent, JsonDecoder};
use crate::relation::Column;
use crate::rows::Limits;

fn members() -> Vec<JsonColumn> {
    vec![
        JsonColumn::plain(Column::new("id", SqlType::Int8, false)),
        JsonColumn::plain(Column::new("b", SqlType::Text, true)),
    ]
}

fn key_decoder() -> JsonDecoder {
    let id = JsonColumn::plain(Column::new("id", SqlType::Int8, false));
    JsonDecoder::new(JsonContent::Members(vec![id]), Limits::default())
}

/// What messages of (key, value) become: operations with the row as text, the bad ones, and what was left out.
fn applied(keyed: bool, messages: &[(&str, Option<&str>)]) -> (Vec<String>, Vec<u32>, Changed) {
    let decoder = JsonDecoder::new(JsonContent::Envelope(members()), Limits::default());
    let key = keyed.then_some(KeyColumn {
        column: 0,
        in_key: Some(0),
    });
    let layout = decoder.layout().unwrap().clone();
    let envelope = DebeziumEnvelope::new(layout, key.into_iter().collect());
    let keys: Vec<_> = messages
        .iter()
        .map(|(key, _)| Some(key.as_bytes()))
        .collect();
    let values: Vec<_> = messages
        .iter()
        .map(|(_, value)| value.map(str::as_bytes))
        .collect();
    let decoded_keys = key_decoder().decode(&keys).unwrap();
    let decoded = decoder.decode(&values).unwrap();
    let (changed, _) = envelope
        .apply(keyed.then_some(&decoded_keys), (&values, &decoded))
        .unwrap();
    let rows = &changed.changes.rows;
    let ids = rows.column(0).as_primitive::<Int64Type>();
    let texts = rows.column(1).as_string::<i32>();
    let ops = changed.changes.ops.iter().enumerate().map(|(row, op)| {
        let text = if texts.is_valid(row) {
            texts.value(row)
        } else {
            "-"
        };
        format!("{op:?} {} {text}", ids.value(row))
    });
    let bad = changed.bad.iter().map(|bad| bad.index).collect();
    (ops.collect(), bad, changed.clone())
}

#[test]
fn with_a_key_every_event_is_an_upsert_or_a_deletion() {
    let (ops, bad, _) = applied(
        true,
        &[
            (
                r#"{"id":1}"#,
                Some(r#"{"before":null,"after":{"id":1,"b":"x"},"op":"r"}"#),
            ),
            (
                r#"{"id":1}"#,
                Some(r#"{"before":null,"after":{"id":1,"b":"y"},"op":"u"}"#),
            ),
            (
                r#"{"id":2}"#,
                Some(r#"{"before":{"id":1,"b":"y"},"after":{"id":2,"b":"y"},"op":"u"}"#),
            ),
            (
                r#"{"id":2}"#,
                Some(r#"{"before":{"id":2,"b":null},"after":null,"op":"d"}"#),
            ),
            (r#"{"id":2}"#, None),
            (r#"{"id":3}"#, Some(r#"{"after":null}"#)),
            (
                r#"{"id":4}"#,
                Some(r#"{"before":null,"after":null,"op":"u"}"#),
            ),
            ("?", Some(r#"{"after":null,"op":"d"}"#)),
            ("?", Some(r#"{"op":"m"}"#)),
            ("?", Some(r#"{"resolved":"1"}"#)),
            ("?", Some(r#"{"op":"x"}"#)),
        ],
    );
    assert_eq!(
        ops,
        [
            "Upsert 1 x",
            "Upsert 1 y",
            "DeleteByKey 1 y",
            "Upsert 2 y",
            "DeleteByKey 2 -",
            "DeleteByKey 3 -",
        ]
    );
    assert_eq!(bad, [6, 7, 10]);
}

#[test]
fn without_a_key_old_rows_are_needed() {
    let (ops, bad, _) = applied(
        false,
        &[
            (
                "",
                Some(r#"{"before":null,"after":{"id":1,"b":"x"},"op":"c"}"#),
            ),
            (
                "",
                Some(r#"{"before":{"id":1,"b":"x"},"after":{"id":1,"b":"y"},"op":"u"}"#),
            ),
            (
                "",
                Some(r#"{"before":{"id":1,"b":"y"},"after":null,"op":"d"}"#),
            ),
            ("", None),
            (
                "",
                Some(r#"{"before":null,"after":{"id":1,"b":"x"},"op":"u"}"#),
            ),
            ("", Some(r#"{"before":null,"after":null,"op":"d"}"#)),
        ],
    );
    assert_eq!(
        ops,
        ["Insert 1 x", "Delete 1 x", "Insert 1 y", "Delete 1 y"]
    );
    assert_eq!(bad, [4, 5]);
}

#[test]
fn values_that_were_left_out_are_unchanged() {
    let value = r#"{"before":null,"after":{"id":1,"b":"__debezium_unavailable_value"},"op":"u"}"#;
    let (ops, _, changed) = applied(true, &[(r#"{"id":1}"#, Some(value))]);
    assert_eq!(ops.len(), 1);
    assert_eq!(changed.changes.unchanged, [(0, 1)]);
    let (ops, bad, _) = applied(false, &[("", Some(&value.replace("\"u\"", "\"c\"")))]);
    assert_eq!((ops.len(), bad), (0, vec![0]));
}

#[test]
fn values_that_were_left_out_of_a_new_row_are_unknown() {
    let value = r#"{"before":null,"after":{"id":2,"b":"__debezium_unavailable_value"},"op":"c"}"#;
    let old = r#"{"before":{"id":1,"b":null},"after":null,"op":"d"}"#;
    let (ops, bad, changed) = applied(
        true,
        &[
            (r#"{"id":1}"#, Some(old)),
            (r#"{"id":1}"#, None),
            (r#"{"id":2}"#, Some(value)),
        ],
    );
    assert_eq!(ops, ["DeleteByKey 1 -", "Upsert 2 -"]);
    assert!(bad.is_empty() && changed.changes.unchanged.is_empty());
    assert_eq!(changed.unknown, [(1, 1)]);
}

#[test]
fn an_array_that_was_left_out_is_known_by_its_only_item() {
    let texts = SqlType::Array(Box::new(SqlType::Text));
    let members = vec![
        JsonColumn::plain(Column::new("id", SqlType::Int8, false)),
        JsonColumn::plain(Column::new("b", texts, true)),
    ];
    let decoder = JsonDecoder::new(JsonContent::Envelope(members), Limits::default());
    let key = KeyColumn {
        column: 0,
        in_key: None,
    };
    let envelope = DebeziumEnvelope::new(decoder.layout().unwrap().clone(), vec![key]);
    let values = [
        Some(br#"{"after":{"id":1,"b":["__debezium_unavailable_value"]},"op":"u"}"#.as_slice()),
        Some(br#"{"after":{"id":1,"b":["__debezium_unavailable_value","x"]},"op":"u"}"#),
    ];
    let (changed, _) = envelope
        .apply(None, (&values, &decoder.decode(&values).unwrap()))
        .unwrap();
    assert_eq!(changed.changes.unchanged, [(0, 1)]);
}

#[test]
fn a_message_without_key_images_and_operation_says_nothing() {
    let decoder = JsonDecoder::new(JsonContent::Envelope(members()), Limits::default());
    let key = KeyColumn {
        column: 0,
        in_key: Some(0),
    };
    let envelope = DebeziumEnvelope::new(decoder.layout().unwrap().clone(), vec![key]);
    let values = [
        Some(br#"{"after":null}"#.as_slice()),
        Some(br#"{"after":null}"#),
        Some(br#"{"after":null,"op":"d"}"#),
        Some(br#"{"after":null}"#),
    ];
    // None, one that cannot be read, none, and one that names a row.
    let keys = [None, Some(b"?".as_slice()), None, Some(b"{\"id\":7}")];
    let decoded = decoder.decode(&values).unwrap();
    let decoded_keys = key_decoder().decode(&keys).unwrap();
    let (changed, _) = envelope
        .apply(Some(&decoded_keys), (&values, &decoded))
        .unwrap();
    let bad: Vec<u32> = changed.bad.iter().map(|bad| bad.index).collect();
    assert_eq!(bad, [1, 2]);
    assert_eq!(changed.changes.ops, [SourceOp::DeleteByKey]);
    // Whether there are keys is not known, and it may be a deletion.
    let (changed, _) = envelope.apply(None, (&values, &decoded)).unwrap();
    assert_eq!(changed.bad.len(), 4);
}

#[test]
fn a_truncation_is_told_with_its_place() {
    let decoder = JsonDecoder::new(JsonContent::Envelope(members()), Limits::default());
    let envelope = DebeziumEnvelope::new(decoder.layout().unwrap().clone(), Vec::new());
    let values = [
        Some(br#"{"after":{"id":1},"op":"c"}"#.as_slice()),
        Some(br#"{"op":"t"}"#),
    ];
    let (_, truncations) = envelope
        .apply(None, (&values, &decoder.decode(&values).unwrap()))
        .unwrap();
    let expected = Truncation {
        index: 1,
        rows_before: 1,
    };
    assert_eq!(truncations, [expected]);
}

#[test]
fn documents_have_the_key_of_their_message() {
    let decoder = JsonDecoder::new(JsonContent::DocumentEnvelope, Limits::default());
    let key = key_decoder();
    let envelope =
        DebeziumEnvelope::with_key_columns(decoder.layout().unwrap().clone(), key.relation());
    let keys = [Some(b"{\"id\":1}".as_slice()), Some(b"{\"id\":2}")];
    let values = [
        Some(br#"{"after":"{\"n\":1}","op":"c"}"#.as_slice()),
        Some(br#"{"before":null,"after":null,"op":"d"}"#),
    ];
    let (changed, _) = envelope
        .apply(
            Some(&key.decode(&keys).unwrap()),
            (&values, &decoder.decode(&values).unwrap()),
        )
        .unwrap();
    assert_eq!(
        changed.changes.ops,
        [SourceOp::Upsert, SourceOp::DeleteByKey]
    );
    let ids = changed.changes.rows.column(0).as_primitive::<Int64Type>();
    assert_eq!(ids.values().to_vec(), [1, 2]);
}
