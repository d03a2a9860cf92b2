//! Topics as Debezium wrote them (PostgreSQL and MySQL), in JSON with and without schemas: they are followed to the same rows.

use flowstone_formats::envelope::position::EventPosition;
use flowstone_formats::envelope::{DebeziumEnvelope, KeyColumn};
use flowstone_formats::json::{JsonColumn, JsonContent, JsonDecoder, connect};
use flowstone_formats::{Limits, Relation};
use flowstone_types::SourceOp;
use flowstone_types::value::text_of;
use serde_json::Value;

/// Messages of a file: the table, the key, the value.
fn messages(file: &str) -> Vec<Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The parts of messages as payloads; null is none.
fn payloads(messages: &[Value], part: &str) -> Vec<Option<Vec<u8>>> {
    let part = messages
        .iter()
        .map(|message| message.get(part).filter(|value| !value.is_null()));
    part.map(|value| value.map(|value| value.to_string().into_bytes()))
        .collect()
}

fn slices(payloads: &[Option<Vec<u8>>]) -> Vec<Option<&[u8]>> {
    payloads.iter().map(Option::as_deref).collect()
}

/// The columns of the orders, as the wrapped messages describe them.
fn columns(database: &str, part: &str) -> Vec<JsonColumn> {
    let wrapped = messages(&format!("{database}-jsonschema.jsonl"));
    let first = payloads(&wrapped, part)
        .into_iter()
        .flatten()
        .next()
        .unwrap();
    connect::describe(&first).unwrap().0
}

/// What the orders become: operations with the first two columns, the messages that are bad, and the positions of the others.
fn orders(database: &str, file: &str) -> (Vec<String>, Vec<(u32, String)>, Vec<EventPosition>) {
    let messages: Vec<Value> = messages(&format!("{database}-{file}.jsonl"))
        .into_iter()
        .filter(|message| message.get("table").is_none_or(|table| table == "orders"))
        .collect();
    let (keys, values) = (payloads(&messages, "key"), payloads(&messages, "value"));
    let (keys, values) = (slices(&keys), slices(&values));
    let key_content = JsonContent::Members(columns(database, "key"));
    let key_decoder = JsonDecoder::new(key_content, Limits::default());
    let content = JsonContent::Envelope(columns(database, "value"));
    let decoder = JsonDecoder::new(content, Limits::default());
    let layout = decoder.layout().unwrap().clone();
    let key = KeyColumn {
        column: 0,
        in_key: Some(0),
    };
    let envelope = DebeziumEnvelope::new(layout.clone(), vec![key]);
    let decoded = decoder.decode(&values).unwrap();
    let positions = (0..decoded.rows.len())
        .filter_map(|row| EventPosition::of(&layout, &decoded, row))
        .collect();
    let decoded_keys = key_decoder.decode(&keys).unwrap();
    let (changed, _) = envelope
        .apply(Some(&decoded_keys), (&values, &decoded))
        .unwrap();
    let cell = |relation: &Relation, column: usize, row: usize| {
        let mut text = String::new();
        let described = relation.columns.get(column).unwrap();
        text_of(
            changed.changes.rows.column(column),
            row,
            &described.sql_type,
            &mut text,
        )
        .unwrap();
        text
    };
    let ops = changed.changes.ops.iter().enumerate().map(|(row, op)| {
        let id = cell(envelope.relation(), 0, row);
        match op {
            SourceOp::DeleteByKey => format!("delete {id}"),
            _ => format!("{op:?} {id} {}", cell(envelope.relation(), 1, row)),
        }
    });
    let bad = changed
        .bad
        .iter()
        .map(|bad| (bad.index, bad.reason.clone()));
    (ops.collect(), bad.collect(), positions)
}

#[test]
fn orders_of_postgresql_are_followed() {
    let (ops, bad, positions) = orders("pg", "json");
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(
        ops,
        [
            "Upsert 1 snapshot ä",
            "Upsert 2 second",
            "Upsert 1 snapshot ä",
            "delete 2",
            "Upsert 20 second",
            "Upsert 3 after ddl",
            "delete 1",
        ]
    );
    assert_eq!(
        positions.first(),
        Some(&EventPosition::Postgres {
            commit: None,
            lsn: 23_093_488
        })
    );
}

#[test]
fn wrapped_messages_say_the_same() {
    let (ops, bad, _) = orders("pg", "json");
    let (wrapped, wrapped_bad, _) = orders("pg", "jsonschema");
    assert!(bad.is_empty() && wrapped_bad.is_empty(), "{wrapped_bad:?}");
    assert!(wrapped.len() > 2);
    assert!(ops.starts_with(&wrapped), "{wrapped:?}");
}

#[test]
fn times_beyond_a_day_of_mysql_are_told() {
    let (ops, bad, positions) = orders("my", "json");
    // The order with that time, as it was inserted, changed and deleted.
    assert_eq!(
        ops,
        [
            "Upsert 2 second",
            "delete 2",
            "Upsert 20 second",
            "Upsert 3 after ddl"
        ]
    );
    assert!(
        bad.iter()
            .all(|(_, reason)| reason.starts_with("cannot read the value: tm: ")),
        "{bad:?}"
    );
    let file = |position: &EventPosition| match position {
        EventPosition::MySql { file, .. } => file.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(file(positions.first().unwrap()), "binlog.000004");
}
