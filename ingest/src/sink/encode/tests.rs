//! Messages of rows.

use std::sync::Arc;

use arrow_array::{Int64Array, StringArray};
use arrow_schema::Schema;
use flowstone_proto::kafka::{KafkaConnection, KafkaTopic};
use flowstone_types::InstallationId;

use super::*;

fn sink(envelope: SinkEnvelope, value: SinkFormat) -> KafkaSink {
    KafkaSink {
        connection: KafkaConnection {
            brokers: Vec::new(),
            tls: None,
            sasl: None,
            progress_topic: None,
        },
        topic: KafkaTopic {
            name: "t".to_owned(),
            partitions: None,
            replication: None,
            settings: Vec::new(),
        },
        key: Some((SinkFormat::Json, vec![0])),
        value,
        envelope,
        headers: None,
        partition_by: None,
        compression: "none".to_owned(),
        snapshot: true,
        transactional_id_prefix: None,
        installation: InstallationId::default(),
    }
}

fn rows() -> RecordBatch {
    let schema = Schema::new(vec![
        SqlType::Int8.to_field("k", false),
        SqlType::Text.to_field("v", true),
    ]);
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, 2]));
    let values: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
    RecordBatch::try_new(Arc::new(schema), vec![keys, values]).unwrap()
}

fn change(before: Option<usize>, after: Option<usize>) -> Change {
    Change { before, after }
}

/// Keys and values as text.
fn texts(sink: &KafkaSink, changes: &[Change]) -> Vec<(String, Option<String>)> {
    let rows = rows();
    let encoder = Encoder::new(sink, &rows.schema()).unwrap();
    let messages = encoder.messages(&rows, changes, Epoch(7), 3, None).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    messages
        .into_iter()
        .map(|message| (text(message.key.unwrap()), message.value.map(text)))
        .collect()
}

#[test]
fn an_upsert_is_the_row_and_a_key_that_is_gone_has_no_value() {
    let changes = [change(Some(0), Some(1)), change(Some(2), None)];
    assert_eq!(
        texts(&sink(SinkEnvelope::Upsert, SinkFormat::Json), &changes),
        [
            (
                r#"{"k":1}"#.to_owned(),
                Some(r#"{"k":1,"v":"b"}"#.to_owned())
            ),
            (r#"{"k":2}"#.to_owned(), None),
        ]
    );
}

#[test]
fn a_change_has_both_images() {
    let changes = [change(Some(0), Some(1)), change(Some(2), None)];
    assert_eq!(
        texts(&sink(SinkEnvelope::Debezium, SinkFormat::Json), &changes),
        [
            (
                r#"{"k":1}"#.to_owned(),
                Some(r#"{"before":{"k":1,"v":"a"},"after":{"k":1,"v":"b"}}"#.to_owned())
            ),
            (
                r#"{"k":2}"#.to_owned(),
                Some(r#"{"before":{"k":2,"v":null},"after":null}"#.to_owned())
            ),
        ]
    );
}

#[test]
fn a_format_of_one_column_takes_what_is_not_in_the_key() {
    let changes = [change(None, Some(1)), change(None, Some(2))];
    assert_eq!(
        texts(&sink(SinkEnvelope::Upsert, SinkFormat::Text), &changes),
        [
            (r#"{"k":1}"#.to_owned(), Some("b".to_owned())),
            (r#"{"k":2}"#.to_owned(), None),
        ]
    );
}

#[test]
fn messages_of_a_key_go_to_one_partition_and_say_their_epoch() {
    let rows = rows();
    let sink = sink(SinkEnvelope::Upsert, SinkFormat::Json);
    let encoder = Encoder::new(&sink, &rows.schema()).unwrap();
    let changes = [change(None, Some(0)), change(Some(0), Some(1))];
    let messages = encoder
        .messages(&rows, &changes, Epoch(7), 3, None)
        .unwrap();
    assert_eq!(messages[0].partition, messages[1].partition);
    let epoch = (EPOCH_HEADER.to_owned(), Some(b"7".to_vec()));
    assert_eq!(messages[0].headers, [epoch]);
}

#[test]
fn a_column_can_say_the_partition() {
    let rows = rows();
    let mut sink = sink(SinkEnvelope::Upsert, SinkFormat::Json);
    sink.partition_by = Some(SinkPartition::Column(0));
    let encoder = Encoder::new(&sink, &rows.schema()).unwrap();
    let changes = [change(None, Some(0)), change(None, Some(2))];
    let messages = encoder
        .messages(&rows, &changes, Epoch(7), 2, None)
        .unwrap();
    let partitions = messages.iter().map(|message| message.partition);
    assert_eq!(partitions.collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn numbers_say_the_partition_and_what_has_none_goes_to_the_first() {
    let rows = rows();
    let sink = sink(SinkEnvelope::Upsert, SinkFormat::Json);
    let encoder = Encoder::new(&sink, &rows.schema()).unwrap();
    let changes = [0, 1, 2].map(|row| change(None, Some(row)));
    let numbers = UInt64Array::from(vec![Some(u64::MAX), None, Some(7)]);
    let messages = encoder
        .messages(&rows, &changes, Epoch(7), 4, Some(&numbers))
        .unwrap();
    let partitions = messages.iter().map(|message| message.partition);
    assert_eq!(partitions.collect::<Vec<_>>(), [3, 0, 3]);
}

#[test]
fn the_name_that_is_said_is_that_of_what_is_registered() {
    let format = SinkFormat::Avro {
        registry: Box::new(RegistryConnection {
            url: "http://r".to_owned(),
            credentials: None,
            tls: None,
        }),
        name: "x.Changed".to_owned(),
        docs: vec![(Some(1), "why".to_owned())],
        compatibility: None,
        null_defaults: false,
    };
    let schema = rows().schema();
    let registered = |envelope| {
        let encoder = Encoder::new(&sink(envelope, format.clone()), &schema).unwrap();
        let registrations = encoder.registrations("t");
        assert_eq!(registrations.len(), 1, "the key is JSON");
        registrations[0].schema.clone()
    };
    let row = |name: &str| {
        format!(
            r#"{{"type":"record","name":"{name}","fields":[{{"name":"k","type":"long"}},{{"name":"v","type":["null","string"],"doc":"why"}}]}}"#
        )
    };
    assert_eq!(registered(SinkEnvelope::Upsert), row("x.Changed"));
    let image = row("row");
    assert_eq!(
        registered(SinkEnvelope::Debezium),
        format!(
            r#"{{"type":"record","name":"x.Changed","fields":[{{"name":"before","type":["null",{image}]}},{{"name":"after","type":["null","row"]}}]}}"#
        )
    );
}

#[test]
fn what_may_be_null_has_that_as_its_default_if_it_is_asked_for() {
    let format = SinkFormat::Avro {
        registry: Box::new(RegistryConnection {
            url: "http://r".to_owned(),
            credentials: None,
            tls: None,
        }),
        name: "r".to_owned(),
        docs: Vec::new(),
        compatibility: None,
        null_defaults: true,
    };
    let mut sink = sink(SinkEnvelope::Upsert, format.clone());
    sink.key = Some((format, vec![0]));
    let encoder = Encoder::new(&sink, &rows().schema()).unwrap();
    let schemas = encoder.registrations("t");
    let schemas: Vec<&str> = schemas.iter().map(|found| found.schema.as_str()).collect();
    assert_eq!(
        schemas,
        [
            r#"{"type":"record","name":"r","fields":[{"name":"k","type":"long"}]}"#,
            r#"{"type":"record","name":"r","fields":[{"name":"k","type":"long"},{"name":"v","type":["null","string"],"default":null}]}"#,
        ]
    );
}
