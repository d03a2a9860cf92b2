use std::sync::Arc;

use arrow_schema::Schema;
use flowstone_proto::kafka::Include;
use flowstone_proto::message::SourceColumn;
use flowstone_types::value::text_of;
use flowstone_types::{ObjectId, SourceChanges, SourceOp};

use super::*;
use crate::kafka::batch::Lane;
use crate::row_errors::RowErrors;

/// A table of columns: name, type, whether it may be NULL, where it comes from.
fn table(
    mut spec: KafkaTable,
    columns: &[(&str, SqlType, bool, KafkaColumn)],
    key: Vec<usize>,
) -> (SourceTable, SchemaRef) {
    spec.columns = columns.iter().map(|(_, _, _, from)| *from).collect();
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, sql_type, nullable, _)| sql_type.to_field(name, *nullable))
        .collect();
    let described = columns.iter().map(|(name, _, nullable, _)| SourceColumn {
        name: (*name).to_owned(),
        attribute: 0,
        type_oid: 0,
        type_modifier: -1,
        not_null: !nullable,
        as_text: false,
    });
    let table = SourceTable {
        id: ObjectId::User(2),
        upstream_schema: "kafka".to_owned(),
        upstream_name: "t".to_owned(),
        upstream_oid: 0,
        columns: described.collect(),
        key,
        upstream: spec.encode(),
    };
    (table, Arc::new(Schema::new(fields)))
}

fn spec(key: Option<Format>, value: Format, envelope: Envelope) -> KafkaTable {
    KafkaTable {
        key,
        value,
        envelope,
        include: Vec::new(),
        on_decode_error: OnDecodeError::Row,
        columns: Vec::new(),
    }
}

/// Messages: keys and values, with offsets from 10 on.
fn batch(messages: &[(Option<&str>, Option<&str>)]) -> Batch {
    let mut batch = Batch::new(Lane::Main, 3);
    for (offset, (key, value)) in (10_i64..).zip(messages) {
        batch.add(
            offset,
            key.map(str::as_bytes),
            value.map(str::as_bytes),
            &[],
        );
    }
    batch
}

fn decoded(decoder: &mut TableDecoder, batch: &Batch) -> Outcome {
    decoder.decode(batch, 0, batch.messages.len()).unwrap()
}

/// What is changed, as text: the operation, the offset after the message, and the cells.
fn rendered(outcome: &Outcome, decoder: &TableDecoder) -> Vec<String> {
    let mut lines = Vec::new();
    for changes in &outcome.changes {
        lines.extend(changes.emptied.map(|offset| format!("emptied {offset}")));
        for (row, (op, next)) in changes.ops.iter().zip(&changes.next).enumerate() {
            let cells = changes.rows.columns().iter().zip(&decoder.types);
            let cells: Vec<String> = cells
                .map(|(column, sql_type)| {
                    let mut text = String::new();
                    let found = text_of(column.as_ref(), row, sql_type, &mut text).unwrap();
                    if found { text } else { "NULL".to_owned() }
                })
                .collect();
            lines.push(format!("{op:?} {next} {}", cells.join(",")));
        }
    }
    lines
}

/// What is in error after each outcome.
fn errors(table: &SourceTable, outcomes: Vec<Outcome>) -> Vec<Vec<String>> {
    let mut errors = RowErrors::new(table);
    let mut standing = Vec::new();
    for outcome in outcomes {
        for messages in outcome.changes {
            let changes = SourceChanges {
                rows: messages.rows,
                ops: messages.ops,
                unchanged: messages.unchanged,
                moved: messages.notes.moved().to_vec(),
                truncate_before: messages.emptied.is_some(),
            };
            errors.resolve(changes, messages.notes, 1).unwrap();
        }
        let messages = errors
            .standing()
            .into_iter()
            .map(|(error, _)| error.message);
        standing.push(messages.collect());
    }
    standing
}

fn text_columns() -> Vec<(&'static str, SqlType, bool, KafkaColumn)> {
    vec![("text", SqlType::Text, false, KafkaColumn::Value(0))]
}

#[test]
fn every_message_is_a_row_and_what_is_none_is_in_error_for_good() {
    let spec = spec(None, Format::Text, Envelope::None);
    let (table, schema) = table(spec, &text_columns(), Vec::new());
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let good = batch(&[(None, Some("a")), (None, Some("b"))]);
    let outcome = decoded(&mut decoder, &good);
    assert_eq!(rendered(&outcome, &decoder), ["Insert 11 a", "Insert 12 b"]);
    assert_eq!((outcome.messages, outcome.bytes), (2, 2));
    let bad = decoded(&mut decoder, &batch(&[(None, Some("c")), (None, None)]));
    let standing = errors(&table, vec![outcome, bad]);
    assert!(standing[0].is_empty());
    assert_eq!(
        standing[1],
        ["invalid message of table \"kafka.t\": message has no value (partition 3, offset 11)"]
    );
}

fn upsert_columns() -> Vec<(&'static str, SqlType, bool, KafkaColumn)> {
    vec![
        ("key", SqlType::Text, false, KafkaColumn::Key(0)),
        ("n", SqlType::Int8, true, KafkaColumn::Value(0)),
    ]
}

fn number() -> Format {
    Format::JsonColumns(vec![("n".to_owned(), SqlType::Int8)])
}

#[test]
fn a_deletion_comes_behind_an_upsert_since_its_row_may_not_be_there() {
    let spec = spec(Some(Format::Text), number(), Envelope::Upsert);
    let (table, schema) = table(spec, &upsert_columns(), vec![0]);
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let messages = batch(&[
        (Some("a"), Some("{\"n\":1}")),
        (Some("b"), None),
        (Some("a"), Some("{\"n\":2}")),
    ]);
    let outcome = decoded(&mut decoder, &messages);
    assert_eq!(
        rendered(&outcome, &decoder),
        [
            "Upsert 11 a,1",
            "Upsert 12 b,NULL",
            "DeleteByKey 12 b,NULL",
            "Upsert 13 a,2"
        ]
    );
}

#[test]
fn an_error_is_healed_by_the_next_message_of_its_key() {
    let spec = spec(Some(Format::Text), number(), Envelope::Upsert);
    let (table, schema) = table(spec, &upsert_columns(), vec![0]);
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let mut outcomes = Vec::new();
    for messages in [
        &[(Some("a"), Some("x")), (None, Some("{\"n\":1}"))][..],
        &[(Some("a"), Some("{\"n\":1}"))],
        &[(None, None)],
        &[(Some("b"), Some("[]"))],
        &[(Some("b"), None)],
    ] {
        outcomes.push(decoded(&mut decoder, &batch(messages)));
    }
    let counts: Vec<usize> = errors(&table, outcomes).iter().map(Vec::len).collect();
    assert_eq!(counts, [2, 1, 0, 1, 0]);
}

#[test]
fn a_key_that_cannot_be_read_is_healed_by_its_bytes() {
    let spec = spec(Some(Format::Text), number(), Envelope::Upsert);
    let (table, schema) = table(spec, &upsert_columns(), vec![0]);
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let mut outcomes = Vec::new();
    for (key, value) in [
        (&b"\xff"[..], Some(&b"{\"n\":1}"[..])),
        (b"\xfe", None),
        (b"\xff", None),
    ] {
        let mut batch = Batch::new(Lane::Main, 0);
        batch.add(1, Some(key), value, &[]);
        outcomes.push(decoded(&mut decoder, &batch));
    }
    let counts: Vec<usize> = errors(&table, outcomes).iter().map(Vec::len).collect();
    assert_eq!(counts, [1, 1, 0]);
}

#[test]
fn what_cannot_be_read_is_told_in_a_column_or_written_elsewhere_or_stops() {
    let base = spec(Some(Format::Text), number(), Envelope::Upsert);
    let messages = batch(&[(Some("a"), Some("x")), (Some("b"), Some("{\"n\":1}"))]);
    let mut columns = upsert_columns();
    columns.push(("error", SqlType::Text, true, KafkaColumn::Error));
    let inline = KafkaTable {
        on_decode_error: OnDecodeError::Inline,
        ..base.clone()
    };
    let (told, schema) = table(inline, &columns, vec![0]);
    let mut decoder = TableDecoder::new(&told, schema).unwrap();
    let outcome = decoded(&mut decoder, &messages);
    let lines = rendered(&outcome, &decoder);
    assert!(lines[0].starts_with("Upsert 11 a,NULL,cannot read the value"));
    assert_eq!(lines[1], "Upsert 12 b,1,NULL");
    assert!(errors(&told, vec![outcome])[0].is_empty());

    let topic = "dead".to_owned();
    let buried = KafkaTable {
        on_decode_error: OnDecodeError::DeadLetter { topic },
        ..base.clone()
    };
    let (buried, schema) = table(buried, &upsert_columns(), vec![0]);
    let mut decoder = TableDecoder::new(&buried, schema).unwrap();
    let outcome = decoded(&mut decoder, &messages);
    assert_eq!(rendered(&outcome, &decoder), ["Upsert 12 b,1"]);
    assert_eq!(outcome.dead[0].value.as_deref(), Some(&b"x"[..]));
    assert_eq!((outcome.dead[0].partition, outcome.dead[0].offset), (3, 10));

    let stops = KafkaTable {
        on_decode_error: OnDecodeError::Fail,
        ..base
    };
    let (stops, schema) = table(stops, &upsert_columns(), vec![0]);
    let mut decoder = TableDecoder::new(&stops, schema).unwrap();
    let Err(Stop::Message {
        offset: 10,
        message,
    }) = decoder.decode(&messages, 0, 2)
    else {
        panic!("it does not stop");
    };
    assert!(message.starts_with("message at partition 3, offset 10 cannot be read"));
}

#[test]
fn what_is_beside_key_and_value_is_a_column() {
    let mut spec = spec(None, Format::Bytes, Envelope::None);
    spec.include = vec![
        Include::Partition,
        Include::Offset,
        Include::Timestamp,
        Include::Header {
            name: "h".to_owned(),
            bytes: false,
        },
        Include::Headers,
    ];
    let columns = [
        ("p", SqlType::Int4, false, KafkaColumn::Include(0)),
        ("o", SqlType::Int8, false, KafkaColumn::Include(1)),
        ("t", SqlType::Timestamp, true, KafkaColumn::Include(2)),
        ("h", SqlType::Text, true, KafkaColumn::Include(3)),
        ("all", SqlType::Jsonb, false, KafkaColumn::Include(4)),
    ];
    let (table, schema) = table(spec, &columns, Vec::new());
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let mut batch = Batch::new(Lane::Main, 3);
    let headers = [("h", Some(&b"1"[..])), ("h", Some(b"2")), ("n", None)];
    batch.add(10, None, Some(b"x"), &headers);
    batch.add(11, None, Some(b"x"), &[("h", Some(b"\xff"))]);
    let outcome = decoded(&mut decoder, &batch);
    assert_eq!(
        rendered(&outcome, &decoder),
        [
            "Insert 11 3,10,1970-01-01 00:00:10,2,[{\"key\": \"h\", \"value\": \"\\\\x31\"}, {\"key\": \"h\", \"value\": \"\\\\x32\"}, {\"key\": \"n\", \"value\": null}]",
            "Insert 12 3,11,1970-01-01 00:00:11,NULL,[{\"key\": \"h\", \"value\": \"\\\\xff\"}]",
        ]
    );
    let standing = errors(&table, vec![outcome]);
    assert!(standing[0][0].contains("column \"h\""), "{standing:?}");
}

fn change_columns() -> Vec<(&'static str, SqlType, bool, KafkaColumn)> {
    vec![
        ("id", SqlType::Int8, true, KafkaColumn::Value(0)),
        ("v", SqlType::Text, true, KafkaColumn::Value(1)),
    ]
}

fn changed() -> Format {
    Format::JsonColumns(vec![
        ("id".to_owned(), SqlType::Int8),
        ("v".to_owned(), SqlType::Text),
    ])
}

#[test]
fn a_key_that_lacks_a_member_is_in_error() {
    let key = Format::JsonColumns(vec![("key".to_owned(), SqlType::Text)]);
    let spec = spec(Some(key), number(), Envelope::Upsert);
    let (table, schema) = table(spec, &upsert_columns(), vec![0]);
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let mut outcomes = Vec::new();
    for messages in [
        &[
            (Some("{}"), Some("{\"n\":1}")),
            (Some("{\"key\":null}"), Some("{\"n\":1}")),
        ][..],
        &[(Some("{}"), None)],
    ] {
        outcomes.push(decoded(&mut decoder, &batch(messages)));
    }
    let standing = errors(&table, outcomes);
    assert_eq!((standing[0].len(), standing[1].len()), (2, 1));
    let reason = "cannot read the key: member \"key\" is missing or null";
    assert!(standing[1][0].contains(reason), "{standing:?}");
}

#[test]
fn messages_before_the_one_that_stops_are_read_alone() {
    let spec = KafkaTable {
        on_decode_error: OnDecodeError::Fail,
        ..spec(None, changed(), Envelope::Debezium)
    };
    let (table, schema) = table(spec, &change_columns(), Vec::new());
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let event = |id: i64, pos: i64| {
        format!(
            "{{\"op\":\"c\",\"after\":{{\"id\":{id}}},\"source\":{{\"file\":\"b.1\",\"pos\":{pos},\"row\":0}}}}"
        )
    };
    let events = [event(1, 4), event(2, 8), "bad".to_owned(), event(3, 12)];
    let events: Vec<_> = events
        .iter()
        .map(|event| (None, Some(event.as_str())))
        .collect();
    let whole = batch(&events);
    let Err(Stop::Message { offset, .. }) = decoder.decode(&whole, 0, 4) else {
        panic!("it does not stop");
    };
    assert_eq!(offset, 12);
    let (before, rest) = whole.cut_before(offset).unwrap();
    assert_eq!((before.messages.len(), rest.messages.len()), (2, 2));
    assert!(rest.cut_before(offset).is_none(), "nothing is before it");
    let expected = ["Insert 11 1,NULL", "Insert 12 2,NULL"];
    for _again in 0..2 {
        let outcome = decoded(&mut decoder, &before);
        assert_eq!(rendered(&outcome, &decoder), expected);
        // As if another table had stopped in the middle of it.
        decoder.take_back();
    }
    let outcome = decoded(&mut decoder, &before);
    assert_eq!(rendered(&outcome, &decoder), expected);
    assert!(decoder.decode(&rest, 0, 2).is_err());
    assert!(rendered(&decoded(&mut decoder, &before), &decoder).is_empty());
}

#[test]
fn changes_of_rows_are_upserts_and_deletions_by_key() {
    let key = Format::JsonColumns(vec![("id".to_owned(), SqlType::Int8)]);
    let spec = spec(Some(key), changed(), Envelope::Debezium);
    let (table, schema) = table(spec, &change_columns(), vec![0]);
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let messages = batch(&[
        (
            Some("{\"id\":1}"),
            Some("{\"op\":\"c\",\"after\":{\"id\":1,\"v\":\"a\"}}"),
        ),
        (
            Some("{\"id\":1}"),
            Some("{\"op\":\"d\",\"before\":{\"id\":1,\"v\":\"a\"}}"),
        ),
        (Some("{\"id\":1}"), None),
        (Some("{\"id\":2}"), Some("nothing")),
        (Some("{\"id\":2}"), Some("{\"op\":\"t\"}")),
        (
            Some("{\"id\":3}"),
            Some("{\"op\":\"r\",\"after\":{\"id\":3}}"),
        ),
    ]);
    let outcome = decoded(&mut decoder, &messages);
    assert_eq!(
        rendered(&outcome, &decoder),
        [
            "Upsert 11 1,a",
            "Upsert 12 1,a",
            "DeleteByKey 12 1,a",
            // In error, until the table is emptied.
            "Upsert 14 2,NULL",
            "emptied 15",
            "Upsert 16 3,NULL",
        ]
    );
    assert!(errors(&table, vec![outcome])[0].is_empty());
}

#[test]
fn a_row_that_moves_to_another_key_keeps_what_is_left_out() {
    let spec = spec(None, changed(), Envelope::Debezium);
    let (table, schema) = table(spec, &change_columns(), vec![0]);
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let value = "{\"op\":\"u\",\"before\":{\"id\":1},\"after\":{\"id\":2,\"v\":\"__debezium_unavailable_value\"}}";
    let outcome = decoded(&mut decoder, &batch(&[(None, Some(value))]));
    assert_eq!(
        outcome.changes[0].ops,
        [SourceOp::DeleteByKey, SourceOp::Upsert]
    );
    assert_eq!(outcome.changes[0].unchanged, [(1, 1)]);
}

#[test]
fn a_value_that_is_left_out_of_a_new_row_is_in_error_until_it_is_told() {
    let key = Format::JsonColumns(vec![("id".to_owned(), SqlType::Int8)]);
    let base = spec(Some(key), changed(), Envelope::Debezium);
    let (rows, schema) = table(base.clone(), &change_columns(), vec![0]);
    let mut decoder = TableDecoder::new(&rows, schema).unwrap();
    // A key is changed, and what is behind the deletion is not of its row.
    let lacking = "{\"op\":\"c\",\"after\":{\"id\":2,\"v\":\"__debezium_unavailable_value\"}}";
    let moved = decoded(
        &mut decoder,
        &batch(&[
            (
                Some("{\"id\":1}"),
                Some("{\"op\":\"d\",\"before\":{\"id\":1,\"v\":null}}"),
            ),
            (Some("{\"id\":1}"), None),
            (Some("{\"id\":2}"), Some(lacking)),
        ]),
    );
    assert_eq!(
        rendered(&moved, &decoder),
        [
            "Upsert 11 1,NULL",
            "DeleteByKey 11 1,NULL",
            "Upsert 13 2,NULL"
        ]
    );
    assert!(moved.changes[0].unchanged.is_empty());
    let update = lacking.replace("\"c\"", "\"u\"");
    let update = decoded(
        &mut decoder,
        &batch(&[(Some("{\"id\":2}"), Some(update.as_str()))]),
    );
    let healed = "{\"op\":\"u\",\"after\":{\"id\":2,\"v\":\"b\"}}";
    let healed = decoded(&mut decoder, &batch(&[(Some("{\"id\":2}"), Some(healed))]));
    let standing = errors(&rows, vec![moved, update, healed]);
    assert_eq!(
        standing[0],
        [
            "invalid data in column \"v\" of table \"kafka.t\", key (id)=(2): the value was left out by the upstream, \
             which happens if the key of its row is changed"
        ]
    );
    assert_eq!((standing[1].len(), standing[2].len()), (1, 0));

    let stops = KafkaTable {
        on_decode_error: OnDecodeError::Fail,
        ..base
    };
    let (stops, schema) = table(stops, &change_columns(), vec![0]);
    let mut decoder = TableDecoder::new(&stops, schema).unwrap();
    let messages = batch(&[(Some("{\"id\":2}"), Some(lacking))]);
    let Err(Stop::Message { message, .. }) = decoder.decode(&messages, 0, 1) else {
        panic!("it does not stop");
    };
    assert!(
        message.ends_with("which happens if the key of its row is changed"),
        "{message}"
    );
}

#[test]
fn without_a_key_a_new_snapshot_begins_another_log() {
    let (table, schema) = table(
        spec(None, changed(), Envelope::Debezium),
        &change_columns(),
        Vec::new(),
    );
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let event = |id: i64, snapshot: &str, pos: i64| {
        format!(
            "{{\"op\":\"c\",\"after\":{{\"id\":{id}}},\"source\":{{\"snapshot\":\"{snapshot}\",\"file\":\"b.1\",\"pos\":{pos},\"row\":0}}}}"
        )
    };
    let events = [
        event(1, "false", 8),
        event(2, "incremental", 2),
        event(3, "false", 4),
        event(4, "last", 2),
        event(5, "false", 4),
    ];
    let events: Vec<_> = events
        .iter()
        .map(|event| (None, Some(event.as_str())))
        .collect();
    let outcome = decoded(&mut decoder, &batch(&events));
    assert_eq!(
        rendered(&outcome, &decoder),
        [
            "Insert 11 1,NULL",
            "Insert 12 2,NULL",
            "Insert 14 4,NULL",
            "Insert 15 5,NULL"
        ]
    );
}

#[test]
fn without_a_key_what_a_connector_sends_again_is_left_out() {
    let spec = spec(None, changed(), Envelope::Debezium);
    let (table, schema) = table(spec, &change_columns(), Vec::new());
    let event = |id: i64, pos: i64| {
        format!(
            "{{\"op\":\"c\",\"after\":{{\"id\":{id}}},\"source\":{{\"file\":\"b.1\",\"pos\":{pos},\"row\":0}}}}"
        )
    };
    let events = [
        event(1, 4),
        event(2, 8),
        event(1, 4),
        event(2, 8),
        event(3, 9),
    ];
    let events: Vec<_> = events
        .iter()
        .map(|event| (None, Some(event.as_str())))
        .collect();
    let mut decoder = TableDecoder::new(&table, Arc::clone(&schema)).unwrap();
    assert!(decoder.is_watched());
    let outcome = decoded(&mut decoder, &batch(&events));
    let expected = ["Insert 11 1,NULL", "Insert 12 2,NULL", "Insert 15 3,NULL"];
    assert_eq!(rendered(&outcome, &decoder), expected);
    // After a restart between the two: what was read before is only looked at.
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let outcome = decoder.decode(&batch(&events), 2, 5).unwrap();
    assert_eq!(rendered(&outcome, &decoder), ["Insert 15 3,NULL"]);
    assert_eq!(outcome.messages, 3);
}

#[test]
fn a_header_of_csv_is_no_row() {
    let names = vec!["a".to_owned(), "b".to_owned()];
    let value = Format::Csv {
        columns: DeclaredCsv::Header(names),
        delimiter: b',',
    };
    let columns = [
        ("a", SqlType::Text, false, KafkaColumn::Value(0)),
        ("b", SqlType::Text, false, KafkaColumn::Value(1)),
    ];
    let (table, schema) = table(spec(None, value, Envelope::None), &columns, Vec::new());
    let mut decoder = TableDecoder::new(&table, schema).unwrap();
    let messages = batch(&[(None, Some("a,b\n1,2")), (None, Some("3,4"))]);
    let outcome = decoded(&mut decoder, &messages);
    assert_eq!(
        rendered(&outcome, &decoder),
        ["Insert 11 1,2", "Insert 12 3,4"]
    );
}

#[test]
fn a_table_that_cannot_be_fed_says_why() {
    let columns = text_columns();
    let upsert = spec(None, Format::Text, Envelope::Upsert);
    let (upsert, schema) = table(upsert, &columns, vec![0]);
    let why = TableDecoder::new(&upsert, Arc::clone(&schema)).unwrap_err();
    assert_eq!(why, "upsert needs a key");
    let text = spec(None, Format::Text, Envelope::Debezium);
    let (text, schema) = table(text, &columns, Vec::new());
    TableDecoder::new(&text, Arc::clone(&schema)).unwrap_err();
    let other = SourceTable {
        upstream: vec![9],
        ..text
    };
    let why = TableDecoder::new(&other, schema).unwrap_err();
    assert!(why.contains("version 9"), "{why}");
}
