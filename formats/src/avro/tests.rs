use std::path::Path;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Oracle;
use arrow_array::{Array, RecordBatch};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flowstone_types::value::{ColumnBuilder, text_of};
use flowstone_types::{SourceOp, SqlType};
use proptest::prelude::*;
use serde_json::Value;

use super::wire::{put_bytes, put_long, put_prefix};
use super::*;
use crate::envelope::{DebeziumEnvelope, KeyColumn};
use crate::relation::Column;

fn lines(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn schemas() -> Vec<(u32, String)> {
    let lines = lines("avro-schemas.jsonl");
    let id = |line: &Value| u32::try_from(line["id"].as_u64().unwrap()).unwrap();
    lines
        .iter()
        .map(|line| (id(line), line["schema"].to_string()))
        .collect()
}

fn schema(id: u32) -> String {
    schemas()
        .into_iter()
        .find(|(other, _)| *other == id)
        .unwrap()
        .1
}

fn payload(message: &Value, part: &str) -> Option<Vec<u8>> {
    message[part]
        .as_str()
        .map(|text| BASE64_STANDARD.decode(text).unwrap())
}

fn slices(payloads: &[Option<Vec<u8>>]) -> Vec<Option<&[u8]>> {
    payloads.iter().map(Option::as_deref).collect()
}

/// A decoder that was given every schema its payloads ask for.
fn decoder(id: u32, content: AvroContent, payloads: &[Option<&[u8]>]) -> AvroDecoder {
    let schema = schema(id);
    let mut decoder =
        AvroDecoder::new(&schema, &[], content, Framing::Confluent, Limits::default()).unwrap();
    for id in decoder.missing_ids(payloads) {
        decoder.add_schema(id, &self::schema(id), &[]).unwrap();
    }
    assert!(decoder.missing_ids(payloads).is_empty());
    decoder
}

fn cell(
    relation: &Relation,
    columns: &[arrow_array::ArrayRef],
    column: usize,
    row: usize,
) -> Option<String> {
    let mut text = String::new();
    text_of(
        &columns[column],
        row,
        &relation.columns[column].sql_type,
        &mut text,
    )
    .unwrap()
    .then_some(text)
}

fn described(relation: &Relation) -> Vec<String> {
    let columns = relation.columns.iter();
    columns
        .map(|column| format!("{} {}", column.name, column.sql_type))
        .collect()
}

/// What a topic of Debezium becomes: operations, and the values of some columns of each row.
fn applied(
    file: &str,
    table: &str,
    value_schema: u32,
    key_schema: Option<u32>,
) -> (Relation, Vec<String>) {
    let messages: Vec<Value> = lines(file)
        .into_iter()
        .filter(|line| line["table"] == table)
        .collect();
    let values: Vec<_> = messages
        .iter()
        .map(|message| payload(message, "value"))
        .collect();
    let values = slices(&values);
    let keys: Vec<_> = messages
        .iter()
        .map(|message| payload(message, "key"))
        .collect();
    let keys = slices(&keys);
    let value_decoder = decoder(value_schema, AvroContent::Envelope, &values);
    let decoded = value_decoder.decode(&values).unwrap();
    assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
    let decoded_keys =
        key_schema.map(|id| decoder(id, AvroContent::Row, &keys).decode(&keys).unwrap());
    let key = key_schema.map(|_| KeyColumn {
        column: 0,
        in_key: Some(0),
    });
    let layout = value_decoder.layout().unwrap().clone();
    let envelope = DebeziumEnvelope::new(layout, key.into_iter().collect());
    let (changed, _) = envelope
        .apply(decoded_keys.as_ref(), (&values, &decoded))
        .unwrap();
    assert!(changed.bad.is_empty(), "{:?}", changed.bad);
    let relation = envelope.relation().clone();
    let columns = changed.changes.rows.columns();
    let ops = changed.changes.ops.iter().enumerate().map(|(row, op)| {
        let first = cell(&relation, columns, 0, row).unwrap_or_default();
        let second = match op {
            SourceOp::DeleteByKey => String::new(),
            _ => cell(&relation, columns, 1, row).unwrap_or_default(),
        };
        format!("{op:?} {first} {second}").trim_end().to_owned()
    });
    let ops = ops.collect();
    (relation, ops)
}

#[test]
fn a_postgresql_table_of_debezium_is_followed() {
    // Schema 37 is what it became after a column was added; messages are of both.
    let (relation, ops) = applied("pg-avro.jsonl", "orders", 37, Some(26));
    assert_eq!(
        described(&relation)[..16],
        [
            "id bigint",
            "customer text",
            "amount numeric(12,2)",
            "free numeric",
            "small integer",
            "f8 double precision",
            "ok boolean",
            "at timestamp with time zone",
            "loc timestamp without time zone",
            "d date",
            "tm time without time zone",
            "iv interval",
            "doc jsonb",
            "tags text[]",
            "raw bytea",
            "uid uuid",
        ]
    );
    assert_eq!(
        ops,
        [
            "Upsert 1 snapshot ä",
            "Upsert 2 second",
            "Upsert 1 snapshot ä",
            "DeleteByKey 2",
            "Upsert 20 second",
            "Upsert 3 after ddl",
            "DeleteByKey 1",
        ]
    );
}

#[test]
fn values_are_those_that_the_database_had() {
    let messages: Vec<Value> = lines("pg-avro.jsonl");
    let orders = messages.iter().filter(|line| line["table"] == "orders");
    let values: Vec<_> = orders.map(|message| payload(message, "value")).collect();
    let values = slices(&values);
    let decoder = decoder(37, AvroContent::Envelope, &values);
    let decoded = decoder.decode(&values).unwrap();
    let row = |column| cell(decoder.relation(), &decoded.columns, column, 0).unwrap();
    let cells: Vec<String> = (0..16).map(row).collect();
    assert_eq!(
        cells[2..],
        [
            "1234.50",
            "0.1",
            "-3",
            "1.5",
            "t",
            "2026-01-02 01:04:05.123456+00",
            "2026-01-02 03:04:05.123456",
            "2026-01-02",
            "03:04:05.5",
            "781:30:00",
            r#"{"a": [1, 2.5, null]}"#,
            r#"{x,NULL,"y,z"}"#,
            "\\x00ff",
            "00000000-0000-0000-0000-000000000001",
        ]
    );
}

#[test]
fn tables_without_a_key_are_followed_by_their_old_rows() {
    for (file, table, schema) in [
        ("pg-avro.jsonl", "full_ident", 25),
        ("my-avro.jsonl", "nokey", 32),
    ] {
        let (_, ops) = applied(file, table, schema, None);
        let expected = [
            "Insert 1 snap",
            "Insert 2",
            "Insert 3 c",
            "Delete 1 snap",
            "Insert 1 changed",
            "Delete 2",
        ];
        assert_eq!(ops, expected, "{file}");
    }
}

#[test]
fn a_time_of_mysql_beyond_a_day_is_a_bad_row() {
    let messages = lines("my-avro.jsonl");
    let orders = messages.iter().filter(|line| line["table"] == "orders");
    let values: Vec<_> = orders.map(|message| payload(message, "value")).collect();
    let values = slices(&values);
    let decoded = decoder(41, AvroContent::Envelope, &values)
        .decode(&values)
        .unwrap();
    assert!(!decoded.bad.is_empty());
    assert!(
        decoded
            .bad
            .iter()
            .all(|bad| bad.reason.contains("type time")),
        "{:?}",
        decoded.bad
    );
}

#[test]
fn resolution_follows_the_specification() {
    let writer = r#"{"type":"record","name":"r","fields":[
        {"name":"gone","type":{"type":"array","items":"string"}},
        {"name":"was","type":"int"},
        {"name":"i","type":"int"},
        {"name":"u","type":["null","int","string"]},
        {"name":"e","type":{"type":"enum","name":"e","symbols":["A","B"]}}]}"#;
    let reader = r#"{"type":"record","name":"r","fields":[
        {"name":"now","aliases":["was"],"type":"long"},
        {"name":"i","type":"double"},
        {"name":"u","type":["null","string","long"]},
        {"name":"e","type":{"type":"enum","name":"e","symbols":["A","Z"],"default":"Z"}},
        {"name":"new","type":"string","default":"d"},
        {"name":"doc","type":{"type":"map","values":"int"},"default":{"k":1}}]}"#;
    let mut decoder = AvroDecoder::new(
        reader,
        &[],
        AvroContent::Row,
        Framing::Confluent,
        Limits::default(),
    )
    .unwrap();
    decoder.add_schema(1, writer, &[]).unwrap();
    let mut message = Vec::new();
    put_prefix(1, &mut message);
    put_long(1, &mut message);
    put_bytes(b"x", &mut message);
    put_long(0, &mut message);
    put_long(7, &mut message);
    put_long(8, &mut message);
    put_long(1, &mut message);
    put_long(9, &mut message);
    put_long(1, &mut message);
    let decoded = decoder.decode(&[Some(message.as_slice())]).unwrap();
    assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
    let relation = decoder.relation();
    let cells: Vec<_> = (0..relation.columns.len())
        .map(|column| {
            cell(relation, &decoded.columns, column, 0).unwrap_or_else(|| "NULL".to_owned())
        })
        .collect();
    assert_eq!(described(relation)[2..4], ["u1 text", "u2 bigint"]);
    assert_eq!(cells, ["7", "8", "NULL", "9", "Z", "d", r#"{"k": 1}"#]);
}

#[test]
fn schemas_that_are_not_known_make_bad_rows_and_are_asked_for_once() {
    let mut decoder = AvroDecoder::new(
        "\"long\"",
        &[],
        AvroContent::Row,
        Framing::Confluent,
        Limits::default(),
    )
    .unwrap();
    let message = |id: u32, value: i64| {
        let mut out = Vec::new();
        put_prefix(id, &mut out);
        put_long(value, &mut out);
        out
    };
    let messages = [
        Some(message(3, 1)),
        Some(message(4, 2)),
        None,
        Some(vec![1, 0, 0, 0, 0]),
    ];
    let payloads = slices(&messages);
    assert_eq!(decoder.missing_ids(&payloads), [3, 4]);
    decoder.add_schema(3, "\"int\"", &[]).unwrap();
    decoder.add_schema(4, "\"string\"", &[]).unwrap_err();
    assert!(decoder.missing_ids(&payloads).is_empty());
    let decoded = decoder.decode(&payloads).unwrap();
    assert_eq!(decoded.rows, [0]);
    assert_eq!(decoded.bad.len(), 2);
}

#[test]
fn recursive_types_are_documents_of_bounded_depth() {
    let json = r#"{"type":"record","name":"r","fields":[{"name":"list","type":
        {"type":"record","name":"l","fields":[{"name":"v","type":"int"},{"name":"next","type":["null","l"]}]}}]}"#;
    let decoder = AvroDecoder::new(
        json,
        &[],
        AvroContent::Row,
        Framing::Bare,
        Limits::default(),
    )
    .unwrap();
    let decoded = decoder
        .decode(&[Some([2, 2, 4, 0].as_slice()), Some([2; 2000].as_slice())])
        .unwrap();
    let text = cell(decoder.relation(), &decoded.columns, 0, 0).unwrap();
    assert_eq!(text, r#"{"v": 1, "next": {"v": 2, "next": null}}"#);
    assert!(
        decoded.bad[0].reason.contains("too deep"),
        "{}",
        decoded.bad[0].reason
    );
}

const EVERYTHING: &str = r#"{"type":"record","name":"r","fields":[
    {"name":"l","type":"long"},
    {"name":"s","type":["null","string"]},
    {"name":"a","type":{"type":"array","items":["null","int"]}},
    {"name":"m","type":{"type":"map","values":{"type":"record","name":"i","fields":[{"name":"d","type":"double"}]}}},
    {"name":"u","type":["null","boolean","bytes",{"type":"fixed","name":"f","size":3}]},
    {"name":"e","type":{"type":"enum","name":"e","symbols":["X","Y"]}},
    {"name":"n","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}}]}"#;

fn bare(schema: &str) -> AvroDecoder {
    AvroDecoder::new(
        schema,
        &[],
        AvroContent::Row,
        Framing::Bare,
        Limits::default(),
    )
    .unwrap()
}

/// A value of the oracle as our text of the column, for the kinds that are compared.
fn text_of_oracle(value: &Oracle) -> Option<String> {
    Some(match value {
        Oracle::Union(_, value) => return text_of_oracle(value),
        Oracle::Null => return None,
        Oracle::Long(value) => value.to_string(),
        Oracle::Int(value) => value.to_string(),
        Oracle::String(value) | Oracle::Enum(_, value) => value.clone(),
        Oracle::Array(items) => {
            let items = items
                .iter()
                .map(|item| text_of_oracle(item).unwrap_or_else(|| "NULL".to_owned()));
            format!("{{{}}}", items.collect::<Vec<_>>().join(","))
        }
        other => panic!("not compared: {other:?}"),
    })
}

proptest! {
    #[test]
    fn bytes_and_truncations_make_bad_rows_at_most(
        payload in prop::collection::vec(any::<u8>(), 0..80),
        small in prop::collection::vec(0_u8..6, 0..60),
    ) {
        let decoder = bare(EVERYTHING);
        for bytes in [&payload, &small] {
            let prefixes: Vec<Option<&[u8]>> = (0..=bytes.len()).map(|end| bytes.get(..end)).collect();
            let decoded = decoder.decode(&prefixes).unwrap();
            prop_assert_eq!(decoded.rows.len() + decoded.bad.len(), prefixes.len());
            // At most one prefix of a message is a message.
            prop_assert!(decoded.rows.len() <= 1);
            for column in &decoded.columns {
                prop_assert_eq!(column.len(), decoded.rows.len());
            }
        }
    }

    #[test]
    fn another_implementation_reads_the_same(
        long in any::<i64>(),
        text in prop::option::of("[^\\x00{}\", \\\\]{1,8}x"),
        items in prop::collection::vec(prop::option::of(any::<i32>()), 0..5),
        symbol in 0_i64..2,
    ) {
        let json = r#"{"type":"record","name":"r","fields":[
            {"name":"l","type":"long"},
            {"name":"s","type":["null","string"]},
            {"name":"a","type":{"type":"array","items":["null","int"]}},
            {"name":"e","type":{"type":"enum","name":"e","symbols":["X","Y"]}}]}"#;
        let mut bytes = Vec::new();
        put_long(long, &mut bytes);
        put_long(i64::from(text.is_some()), &mut bytes);
        if let Some(text) = &text {
            put_bytes(text.as_bytes(), &mut bytes);
        }
        if !items.is_empty() {
            put_long(i64::try_from(items.len()).unwrap(), &mut bytes);
        }
        for item in &items {
            put_long(i64::from(item.is_some()), &mut bytes);
            if let Some(item) = item {
                put_long(i64::from(*item), &mut bytes);
            }
        }
        put_long(0, &mut bytes);
        put_long(symbol, &mut bytes);
        let schema = apache_avro::Schema::parse_str(json).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let Oracle::Record(fields) = reader.read_value(&mut bytes.as_slice()).unwrap() else {
            panic!("a record");
        };
        let decoder = bare(json);
        let decoded = decoder.decode(&[Some(bytes.as_slice())]).unwrap();
        prop_assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
        for (column, (_, value)) in fields.iter().enumerate() {
            prop_assert_eq!(cell(decoder.relation(), &decoded.columns, column, 0), text_of_oracle(value));
        }
    }

    #[test]
    fn what_is_written_is_read_back(
        integer in any::<i64>(),
        unscaled in -99_999_999_999_i64..99_999_999_999,
        float in any::<f32>(),
        text in "[^\\x00]{0,12}",
        days in -700_000_i32..700_000,
        micros in -2_000_000_000_000_000_i64..2_000_000_000_000_000,
        items in prop::collection::vec(prop::option::of(any::<i16>()), 0..4),
        null in 0_usize..14,
    ) {
        let (mut day, mut at) = (String::new(), String::new());
        flowstone_types::datetime::format_date(days, &mut day);
        flowstone_types::datetime::format_timestamp(micros, &mut at);
        let items: Vec<String> = items
            .iter()
            .map(|item| item.map_or_else(|| "NULL".to_owned(), |item| item.to_string()))
            .collect();
        let hex = text.bytes().fold("\\x".to_owned(), |hex, byte| format!("{hex}{byte:02x}"));
        let cells = [
            (SqlType::Int8, integer.to_string()),
            (SqlType::Numeric(Some((12, 1))), format!("{unscaled}e-1")),
            (SqlType::Float4, float.to_string()),
            (SqlType::Text, text.clone()),
            (SqlType::Bytea, hex),
            (SqlType::Jsonb, Value::from(text).to_string()),
            (SqlType::Date, day),
            (SqlType::Timestamp, at),
            (SqlType::Time, "03:04:05.5".to_owned()),
            (SqlType::Array(Box::new(SqlType::Int4)), format!("{{{}}}", items.join(","))),
            (SqlType::Uuid, "00000000-0000-0000-0000-000000000001".to_owned()),
            (SqlType::Bool, "t".to_owned()),
        ];
        let columns = cells.iter().enumerate();
        let columns = columns.map(|(index, (sql_type, _))| Column::new(format!("c{index}"), sql_type.clone(), true));
        let relation = Relation::new(columns.collect());
        let arrays = cells.iter().enumerate().map(|(index, (sql_type, text))| {
            let mut builder = ColumnBuilder::new(sql_type, 1);
            if index == null {
                builder.append_null();
            } else {
                builder.append_text(text).unwrap();
            }
            builder.finish()
        });
        let batch = RecordBatch::try_new(relation.to_schema(), arrays.collect()).unwrap();
        let encoder = AvroEncoder::new(relation.clone(), &AvroOptions::default()).unwrap();
        let rows = encoder.rows(&batch).unwrap();
        let mut message = Vec::new();
        rows.write(9, 0, &mut message).unwrap();
        let mut decoder =
            AvroDecoder::new(&encoder.schema(), &[], AvroContent::Row, Framing::Confluent, Limits::default()).unwrap();
        decoder.add_schema(9, &encoder.schema(), &[]).unwrap();
        prop_assert_eq!(decoder.relation(), &relation);
        let decoded = decoder.decode(&[Some(message.as_slice())]).unwrap();
        prop_assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
        for (read, written) in decoded.columns.iter().zip(batch.columns()) {
            prop_assert_eq!(read.as_ref(), written.as_ref());
        }
        // A change holds the same row twice.
        let mut message = Vec::new();
        rows.write_change(9, Some(0), Some(0), &mut message).unwrap();
        let mut decoder = AvroDecoder::new(
            &encoder.envelope_schema(),
            &[],
            AvroContent::Envelope,
            Framing::Confluent,
            Limits::default(),
        )
        .unwrap();
        decoder.add_schema(9, &encoder.envelope_schema(), &[]).unwrap();
        let decoded = decoder.decode(&[Some(message.as_slice())]).unwrap();
        prop_assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
        let layout = decoder.layout().unwrap();
        for (column, written) in batch.columns().iter().enumerate() {
            for place in [layout.after(column), layout.before(column)] {
                prop_assert_eq!(decoded.columns[place].as_ref(), written.as_ref());
            }
        }
    }
}

#[test]
fn a_resolved_message_has_another_schema_and_says_nothing() {
    let reader = r#"{"type":"record","name":"orders","fields":[
        {"name":"after","type":["null",{"type":"record","name":"row","fields":[{"name":"id","type":"long"}]}],"default":null}]}"#;
    let resolved = r#"{"type":"record","name":"orders","fields":[
        {"name":"resolved","type":["null","string"],"default":null}]}"#;
    let content = AvroContent::Envelope;
    let mut decoder =
        AvroDecoder::new(reader, &[], content, Framing::Confluent, Limits::default()).unwrap();
    decoder.add_schema(2, resolved, &[]).unwrap();
    let mut message = Vec::new();
    put_prefix(2, &mut message);
    put_long(1, &mut message);
    put_bytes(b"1.0", &mut message);
    let values = [Some(message.as_slice())];
    let decoded = decoder.decode(&values).unwrap();
    assert_eq!(decoded.rows, [0]);
    let no_keys = crate::rows::Decoded {
        columns: Vec::new(),
        rows: Vec::new(),
        bad: Vec::new(),
    };
    let key = KeyColumn {
        column: 0,
        in_key: Some(0),
    };
    let envelope = DebeziumEnvelope::new(decoder.layout().unwrap().clone(), vec![key]);
    let (changed, _) = envelope.apply(Some(&no_keys), (&values, &decoded)).unwrap();
    assert!(changed.bad.is_empty() && changed.changes.ops.is_empty());
}

/// The schema of updates of rows with these fields; `more` is put among the fields of an update.
fn schema_of_updates(fields: &str, more: &str) -> String {
    format!(
        r#"[{{"type":"array","items":{{"type":"record","name":"update","namespace":"com.materialize.cdc","fields":[
        {{"name":"data","type":{{"type":"record","name":"data","fields":[{fields}]}}}},
        {more}{{"name":"time","type":"long"}},
        {{"name":"diff","type":"long"}}]}}}},
        {{"type":"record","name":"progress","namespace":"com.materialize.cdc","fields":[
        {{"name":"lower","type":{{"type":"array","items":"long"}}}},
        {{"name":"upper","type":{{"type":"array","items":"long"}}}},
        {{"name":"counts","type":{{"type":"array","items":{{"type":"record","name":"counts","fields":[
        {{"name":"time","type":"long"}},{{"name":"count","type":"long"}}]}}}}}}]}}]"#
    )
}

const ID: &str = r#"{"name":"id","type":"long"}"#;
const ID_AND_PRICE: &str =
    r#"{"name":"id","type":"long"},{"name":"price","type":["null","int"],"default":null}"#;

/// Numbers as Avro writes them.
fn longs(values: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        put_long(*value, &mut bytes);
    }
    bytes
}

#[test]
fn messages_are_updates_or_progress() {
    let reader = schema_of_updates(ID_AND_PRICE, "");
    let relation = describe(&reader, &[], AvroContent::Updates).unwrap();
    assert_eq!(described(&relation), ["id bigint", "price integer"]);
    let decoder = AvroDecoder::new(
        &reader,
        &[],
        AvroContent::Updates,
        Framing::Bare,
        Limits::default(),
    )
    .unwrap();
    let messages = [
        // Two updates in one block, and one in another that tells its bytes.
        longs(&[0, 2, 5, 1, 10, 7, 1, 5, 0, 8, -1, -1, 4, 6, 0, 9, 2, 0]),
        longs(&[1, 1, 3, 0, 1, 10, 0, 2, 9, 1, 7, 2, 0]),
        longs(&[1, 0, 0, 0]),
        // The second update ends too early.
        longs(&[0, 2, 5, 0, 7, 1, 6, 0]),
        longs(&[0, 0]),
        longs(&[1, 2, 3, 4, 0, 0, 0]),
        longs(&[1, 1, 3, 0, 1, 10, 0, 1, 10, 1, 0]),
        longs(&[1, 1, 3, 0, 1, 10, 0, 2, 4, 1, 4, 1, 0]),
        longs(&[1, 1, -3, 0, 0, 0]),
        longs(&[2]),
    ];
    let payloads: Vec<_> = messages
        .iter()
        .map(|message| Some(message.as_slice()))
        .collect();
    let decoded = decoder.decode_updates(&payloads).unwrap();
    assert_eq!(decoded.rows, [0, 0, 0]);
    assert_eq!(decoded.times.values().to_vec(), [7, 8, 9]);
    assert_eq!(decoded.weights.values().to_vec(), [1, -1, 2]);
    let price = |row: usize| cell(&relation, &decoded.columns, 1, row);
    assert_eq!([price(0), price(1)], [Some("10".to_owned()), None]);
    let progress = |lower, upper, counts: &[(u64, u64)]| Progress {
        lower,
        upper,
        counts: counts.to_vec(),
    };
    let end = crate::envelope::updates::END;
    assert_eq!(
        decoded.progress,
        [
            (1, progress(3, 10, &[(7, 2), (9, 1)])),
            (2, progress(end, end, &[]))
        ]
    );
    let bad: Vec<u32> = decoded.bad.iter().map(|bad| bad.index).collect();
    assert_eq!(bad, [3, 5, 6, 7, 8, 9], "{:?}", decoded.bad);
}

#[test]
fn updates_of_older_schemas_are_read_with_the_newer_one() {
    let reader = schema_of_updates(ID_AND_PRICE, "");
    let mut decoder = AvroDecoder::new(
        &reader,
        &[],
        AvroContent::Updates,
        Framing::Confluent,
        Limits::default(),
    )
    .unwrap();
    let more = r#"{"name":"more","type":"string"},"#;
    decoder
        .add_schema(3, &schema_of_updates(ID, more), &[])
        .unwrap();
    let mut message = Vec::new();
    put_prefix(3, &mut message);
    message.extend(longs(&[0, 1, 5]));
    put_bytes(b"x", &mut message);
    message.extend(longs(&[7, 1, 0]));
    let decoded = decoder.decode_updates(&[Some(message.as_slice())]).unwrap();
    assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
    assert_eq!(decoded.times.values().to_vec(), [7]);
    assert_eq!(decoded.columns[1].null_count(), 1);
    decoder.add_schema(4, "\"long\"", &[]).unwrap_err();
}

#[test]
fn what_is_no_schema_of_updates_says_what_it_lacks() {
    let whole = schema_of_updates(ID, "");
    for (schema, lack) in [
        ("\"long\"".to_owned(), "it is no union"),
        (
            r#"["null","string"]"#.to_owned(),
            "no branch is an array of updates",
        ),
        (
            r#"["null",{"type":"array","items":"long"}]"#.to_owned(),
            "no branch is a record of progress",
        ),
        (
            whole.replace("\"data\",\"type\":{", "\"row\",\"type\":{"),
            "an update has no field \"data\"",
        ),
        (
            whole.replacen("\"time\",\"type\":\"long\"", "\"time\",\"type\":\"int\"", 1),
            "field \"time\" of an update is no long",
        ),
        (
            whole.replace("\"upper\"", "\"top\""),
            "progress has no field \"upper\"",
        ),
        (
            whole.replace("\"count\"", "\"number\""),
            "a count has no field \"count\"",
        ),
    ] {
        let error = describe(&schema, &[], AvroContent::Updates).unwrap_err();
        assert!(error.to_string().ends_with(lack), "{schema}: {error}");
    }
}
