//! The short way against the long one: whatever the message, both make the same rows of it.

use proptest::prelude::*;

use super::super::{JsonContent, JsonDecoder};
use super::*;
use crate::relation::Column;
use crate::rows::{Decoded, Limits};
use crate::semantic::TimeUnit;

fn member(name: &str, sql_type: SqlType, nullable: bool, semantic: Semantic) -> JsonColumn {
    JsonColumn {
        column: Column::new(name, sql_type, nullable),
        semantic,
    }
}

/// One-letter names, so that random keys meet them.
fn all_members() -> Vec<JsonColumn> {
    let plain = |name: &str, sql_type| member(name, sql_type, true, Semantic::Plain);
    let array = |item| SqlType::Array(Box::new(item));
    vec![
        member("a", SqlType::Int8, false, Semantic::Plain),
        plain("b", SqlType::Text),
        plain("c", SqlType::Bool),
        plain("d", SqlType::Float8),
        plain("e", SqlType::Numeric(None)),
        plain("f", SqlType::Numeric(Some((10, 2)))),
        plain("g", SqlType::Jsonb),
        member("h", SqlType::Jsonb, true, Semantic::Json),
        plain("i", array(SqlType::Int4)),
        plain("j", array(SqlType::Text)),
        plain("k", SqlType::Int2),
        plain("l", SqlType::UInt8),
        plain("m", SqlType::Float4),
        plain("n", SqlType::VarChar(Some(3))),
        plain("o", SqlType::Bytea),
        plain("p", SqlType::Date),
        member(
            "q",
            SqlType::Timestamp,
            true,
            Semantic::Timestamp(TimeUnit::Millis),
        ),
        member("r", SqlType::TimestampTz, true, Semantic::ZonedTimestamp),
        member(
            "s",
            SqlType::Numeric(Some((12, 2))),
            true,
            Semantic::decimal(Some(12), 2),
        ),
        member("t", SqlType::Numeric(None), true, Semantic::VariableDecimal),
        plain("u", SqlType::Uuid),
        plain("v", SqlType::Interval),
        plain("w", SqlType::Int2Vector),
        plain("payload", SqlType::Jsonb),
        member("", SqlType::Float8, true, Semantic::Days),
        plain("\u{e9}\"", SqlType::Char(4)),
        plain("x", array(array(SqlType::Numeric(Some((4, 1)))))),
        plain("y", array(SqlType::Jsonb)),
        plain("z", SqlType::QuotedChar),
    ]
}

/// Few members, none of them required.
fn some_members() -> Vec<JsonColumn> {
    let mut members = all_members();
    members.truncate(4);
    for member in &mut members {
        member.column.nullable = true;
    }
    members
}

fn contents() -> [JsonContent; 4] {
    [
        JsonContent::Members(all_members()),
        JsonContent::Members(some_members()),
        JsonContent::Envelope(some_members()),
        JsonContent::Envelope(all_members()),
    ]
}

/// What both ways make of payloads; they agree.
fn decoded_both_ways(content: JsonContent, payloads: &[Option<&[u8]>]) -> Decoded {
    let short = JsonDecoder::new(content, Limits::default());
    assert!(short.names.is_some());
    let mut long = short.clone();
    long.names = None;
    let (short, long) = (
        short.decode(payloads).unwrap(),
        long.decode(payloads).unwrap(),
    );
    assert_eq!(short.rows, long.rows);
    assert_eq!(short.bad, long.bad);
    for (left, right) in short.columns.iter().zip(&long.columns) {
        assert_eq!(left, right);
    }
    short
}

/// How many payloads the short way takes.
fn taken(content: JsonContent, payloads: &[&str]) -> usize {
    let decoder = JsonDecoder::new(content, Limits::default());
    let mut scratch = Scratch::default();
    let taken = payloads.iter().filter(|payload| {
        let columns = &decoder.relation.columns;
        let mut columns: Vec<_> = columns
            .iter()
            .map(|column| ColumnBuilder::new(&column.sql_type, 1))
            .collect();
        let read = decoder.read_directly(payload.as_bytes(), &mut columns, &mut scratch);
        read.is_ok()
    });
    taken.count()
}

#[test]
fn what_producers_send_is_taken() {
    let rows = [
        r#"{"a":1,"b":"x","c":true,"d":1.5,"e":-12.50,"f":"1.5","g":{"k":[1]},"h":"{\"k\":1}","i":[1,null],"j":["x"],"p":20455,"q":1,"s":"AeI6"}"#,
        r#" { "b" : "\u00e9\n" , "a" : -1 , "unknown" : [ { } , [ ] , 1e3 ] } "#,
        r#"{"schema":{"type":"struct","fields":[]},"payload":{"a":1,"d":1.0E-7}}"#,
        r#"{"schema":{"type":"struct","fields":[]},"payload":{"a":2}}"#,
        r#"{"schema":null,"payload":{"a":3}}"#,
        r#"{"schema":7,"a":3}"#,
    ];
    assert_eq!(
        taken(JsonContent::Members(all_members()), &rows),
        rows.len()
    );
    let envelopes = [
        r#"{"before":null,"after":{"a":1,"b":"x"},"source":{"version":"3","snapshot":"last","file":"b.1","pos":4,"row":0,"lsn":null,"ts_ms":1},"op":"c","transaction":null}"#,
        r#"{"schema":{"type":"struct"},"payload":{"before":{"a":1},"after":null,"op":"d"}}"#,
        r#"{"after":{"a":1},"updated":"1.0"}"#,
        r#"{"resolved":"1.0"}"#,
    ];
    assert_eq!(
        taken(JsonContent::Envelope(all_members()), &envelopes),
        envelopes.len()
    );
    let keys = ["[1,\"x\",true,0]", "[null,null,null,null]"];
    assert_eq!(
        taken(JsonContent::Members(some_members()), &keys),
        keys.len()
    );
}

#[test]
fn both_ways_agree_where_they_might_not() {
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!("{{\"a\":1,\"none\":{open}{close}}}")
    };
    let long = |digits: usize| format!("{{\"a\":1,\"none\":0.{}1}}", "0".repeat(digits));
    let generated = [
        deep(511),
        deep(512),
        long(16_382),
        long(16_383),
        format!("{{\"a\":1,\"d\":1{}}}", "0".repeat(400)),
    ];
    let fixed = [
        // A key twice: the last one wins, whatever the first one is.
        r#"{"a":1,"a":2}"#,
        r#"{"a":"x","a":2}"#,
        r#"{"a":1,"a":null}"#,
        r#"{"after":{"a":1},"after":null,"op":"c"}"#,
        r#"{"after":null,"after":{"a":1}}"#,
        r#"{"op":"c","op":null}"#,
        r#"{"op":"c","source":{"file":"x","pos":1},"source":{"pos":2}}"#,
        r#"{"op":"c","source":{"file":"x","file":"y"}}"#,
        r#"{"op":"c","source":7}"#,
        r#"{"op":"c","source":{"pos":"x","snapshot":true,"row":[1]}}"#,
        r#"{"op":7}"#,
        // Wrappers, and what looks like one.
        r#"{"schema":null,"payload":null}"#,
        r#"{"payload":{"a":1},"schema":null}"#,
        r#"{"schema":{"type":null},"schema":{"type":1},"payload":{"a":1}}"#,
        r#"{"schema":{"kind":1},"payload":{"a":1}}"#,
        r#"{"schema":{"type":1},"payload":{"a":1},"a":2}"#,
        r#"{"schema":{"type":1},"payload":{"schema":{"type":1},"payload":{"a":1}}}"#,
        r#"{"schema":{"type":1},"payload":[1,2,3,4]}"#,
        r#"{"schema":{"type":1},"payload":{"a":1}"#,
        r#"{"schema":{"type":1},"payload":{"a":1}}}"#,
        r#"{"schema":{"type":1}}"#,
        r#"{"a":1,"schema":{"type":1},"payload":3}"#,
        // What is skipped is checked too.
        r#"{"a":1,"none":"\u0000"}"#,
        r#"{"a":1,"\u0000":1}"#,
        r#"{"a":1,"none":"\ud800"}"#,
        r#"{"a":1,"none":"\ud83d\ude00"}"#,
        r#"{"a":1,"none":1e131072}"#,
        r#"{"a":1,"none":1e131071}"#,
        r#"{"a":1,"none":0e99999999999999999999}"#,
        r#"{"a":1,"none":01}"#,
        r#"{"a":1,"none":[1,]}"#,
        r#"{"a":1,}"#,
        r#"{"a":1} x"#,
        "{\"a\":1,\"b\":\"\t\"}",
        "\u{feff}{\"a\":1}",
        // Numbers in other notations, at the edges of their types.
        r#"{"a":1.0}"#,
        r#"{"a":1e2}"#,
        r#"{"a":-0}"#,
        r#"{"a":9223372036854775807,"l":18446744073709551615}"#,
        r#"{"a":9223372036854775808}"#,
        r#"{"a":1,"b":-0,"k":40000}"#,
        r#"{"a":1,"b":1.50,"d":-0.0,"m":-0e5}"#,
        r#"{"a":1,"b":[1.0,{"b":1,"a":2}],"d":1e400}"#,
        r#"{"a":1,"d":5e-324,"m":1e-45}"#,
        r#"{"a":1,"d":9007199254740993,"m":16777217}"#,
        r#"{"a":1,"d":123456789012345678,"m":999999999999999999}"#,
        r#"{"a":1,"e":0.1234567890123456789}"#,
        r#"{"a":1,"e":1.00000000000000000000,"f":0.005}"#,
        r#"{"a":1,"e":999999999999999999,"f":12345678.995}"#,
        r#"{"a":1,"e":1e-18,"f":99999999.995}"#,
        r#"{"a":1,"p":20455.0,"q":1.5,"":2.5}"#,
        r#"{"a":1,"p":99999999999,"":2,"v":5}"#,
        // Values of other kinds than their columns.
        r#"{"a":1,"t":{"scale":1,"value":"AQ=="},"e":{"scale":2,"value":"AQ=="}}"#,
        r#"{"a":true}"#,
        r#"{"a":1,"c":"yes","u":5}"#,
        r#"{"a":1,"i":"{1,2}","j":[[1]]}"#,
        r#"{"a":1,"i":[1,"x"]}"#,
        r#"{"a":1,"x":[[1.25,null],null,[]],"y":[1,"x",null,{"a":[]}]}"#,
        r#"{"a":1,"o":"AP8=","w":5,"z":12}"#,
        r#"{"a":1,"o":"\\x00ff","w":"1 2","z":"xy"}"#,
        r#"{"a":1,"h":"__debezium_unavailable_value","g":"x"}"#,
        r#"{"\u0061":1,"\u00e9\"":"x"}"#,
        "[1,\"x\",true,0.5]",
        "[1,\"x\",true]",
        "[1,\"x\",true,0.5,null]",
        "[]",
        "{}",
        "null",
        "7",
        "",
        " ",
    ];
    let texts = fixed
        .iter()
        .copied()
        .chain(generated.iter().map(String::as_str));
    let mut payloads: Vec<_> = texts.map(|text| Some(text.as_bytes())).collect();
    payloads.extend([None, Some(b"{\"a\":1,\"b\":\"\xff\"}".as_slice())]);
    for content in contents() {
        decoded_both_ways(content.clone(), &payloads);
        // Whatever is remembered changes nothing.
        payloads.reverse();
        decoded_both_ways(content, &payloads);
    }
}

#[test]
fn values_mean_what_the_schema_beside_them_says_and_no_other() {
    let members = vec![
        member("q", SqlType::Timestamp, true, Semantic::Plain),
        member("s", SqlType::Numeric(Some((12, 2))), true, Semantic::Plain),
    ];
    let schema = |name: &str| {
        let time = format!(r#"{{"type":"int64","name":"{name}","field":"q"}}"#);
        let decimal = r#"{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"},"field":"s"}"#;
        format!(r#"{{"type":"struct","fields":[{time},{decimal}]}}"#)
    };
    let millis = schema("io.debezium.time.Timestamp");
    let micros = schema("io.debezium.time.MicroTimestamp");
    let wrapped = |schema: &str, row: &str| format!(r#"{{"schema":{schema},"payload":{row}}}"#);
    let enveloped = |schema: &str, row: &str| {
        let image = schema.replacen('{', r#"{"field":"after","#, 1);
        let schema = format!(r#"{{"type":"struct","fields":[{image}]}}"#);
        wrapped(&schema, &format!(r#"{{"after":{row}}}"#))
    };
    let row = r#"{"q":1767323045123,"s":"AeI6"}"#;
    let plain = r#"{"q":1767323045123,"s":5}"#;
    let rows = [
        wrapped(&millis, row),
        wrapped(&millis, row),
        plain.to_owned(),
        wrapped("null", plain),
        wrapped(&micros, row),
        wrapped(r#"{"type":"struct"}"#, plain),
        // A schema that is remembered, in what is no wrapper.
        format!(r#"{{"schema":{micros},"q":1767323045123,"s":5}}"#),
        wrapped(&millis, row),
    ];
    let envelopes = [
        enveloped(&millis, row),
        enveloped(&micros, row),
        format!(r#"{{"after":{plain}}}"#),
        enveloped(&millis, row),
    ];
    let cases = [
        (JsonContent::Members(members.clone()), rows.as_slice()),
        (JsonContent::Envelope(members), envelopes.as_slice()),
    ];
    for (content, messages) in cases {
        let texts: Vec<&str> = messages.iter().map(String::as_str).collect();
        assert_eq!(taken(content.clone(), &texts), texts.len());
        let payloads: Vec<_> = texts.iter().map(|text| Some(text.as_bytes())).collect();
        let decoded = decoded_both_ways(content, &payloads);
        assert_eq!(decoded.rows.len(), texts.len());
    }
}

#[test]
fn a_message_that_is_declined_leaves_nothing_behind() {
    let payloads = [
        Some(br#"{"a":1,"i":[1],"b":"x"}"#.as_slice()),
        Some(br#"{"i":[1,2,3],"b":"y","a":"none"}"#),
        Some(br#"{"i":[4,5],"b":"z","a":2,"a":3}"#),
        Some(br#"{"a":4,"i":[6]}"#),
    ];
    let decoded = decoded_both_ways(JsonContent::Members(all_members()), &payloads);
    assert_eq!(decoded.rows, [0, 2, 3]);
    assert_eq!(decoded.bad.len(), 1);
}

/// Texts of scalars, most of them JSON.
fn any_scalar() -> impl Strategy<Value = String> {
    let known = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "1.0",
        "nul",
        "01",
        "-",
        "1.",
        "1e400",
        "1e-20000",
        "\"\"",
        "\"x\"",
        "\"AQ==\"",
        "\"\\\\x00ff\"",
        "\"\\u0000\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud800\"",
        "\"\\x\"",
        "\"{1,2}\"",
        "\"{\\\"a\\\":1}\"",
        "\"2026-01-02T03:04:05Z\"",
        "\"2026-01-02\"",
        "\"01234567-89ab-cdef-0123-456789abcdef\"",
        "{\"scale\":1,\"value\":\"AQ==\"}",
        "{\"type\":1}",
    ];
    prop_oneof![
        3 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => "-?(0|[1-9][0-9]{0,20})",
        1 => "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?",
        1 => "\"[a-c0-9 é{},:]{0,20}\"",
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "\"[a-z]\"",
        1 => prop::sample::select(vec![
            "\"schema\"", "\"payload\"", "\"type\"", "\"\"", "\"\\u0061\"", "\"\\u00e9\\\"\"", "\"none\"",
        ]).prop_map(str::to_owned),
    ]
}

fn any_space() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \\n\\t\\r]{1,2}"]
}

fn object_of(
    key: impl Strategy<Value = String>,
    value: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    prop::collection::vec((key, any_space(), value), 0..6).prop_map(|entries| {
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, space, value)| format!("{key}{space}:{space}{value}{space}"))
            .collect();
        format!("{{{}}}", entries.join(","))
    })
}

fn any_json() -> impl Strategy<Value = String> {
    any_scalar().prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            object_of(any_key(), inner.clone()),
            prop::collection::vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(" ,"))),
        ]
    })
}

fn any_envelope() -> impl Strategy<Value = String> {
    let names = |names: &[&'static str]| {
        prop::sample::select(names.to_vec()).prop_map(|name| format!("\"{name}\""))
    };
    let notes = names(&["file", "pos", "row", "lsn", "snapshot", "none"]);
    let source = prop_oneof![object_of(notes, any_scalar()), any_scalar()];
    let image = prop_oneof![3 => object_of(any_key(), any_json()), 1 => any_json()];
    let value = prop_oneof![image, source, any_scalar()];
    let parts = names(&["after", "before", "source", "op", "resolved", "none"]);
    object_of(parts, value)
}

/// A schema of a few of the members that are declared only, in an envelope or not.
fn any_schema() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "io.debezium.time.Date",
        "io.debezium.time.Timestamp",
        "io.debezium.time.MicroDuration",
        "io.debezium.data.Json",
        "org.apache.kafka.connect.data.Decimal",
    ]);
    let fields = prop::collection::vec(("[efgpv]", names), 0..5);
    (fields, any::<bool>()).prop_map(|(fields, in_envelope)| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(field, name)| format!(r#"{{"field":"{field}","name":"{name}"}}"#))
            .collect();
        let fields = format!(r#""fields":[{}]"#, fields.join(","));
        if in_envelope {
            format!(r#"{{"type":1,"fields":[{{"field":"after",{fields}}}]}}"#)
        } else {
            format!(r#"{{"type":1,{fields}}}"#)
        }
    })
}

fn any_message() -> impl Strategy<Value = String> {
    let row = prop_oneof![
        // With what is required.
        object_of(any_key(), any_json()).prop_map(|row| row.replacen('{', "{\"a\":1,", 1)),
        object_of(any_key(), any_scalar()),
        any_envelope(),
        any_json(),
    ];
    let schema = prop_oneof![
        Just("null".to_owned()),
        Just("{\"type\":\"struct\"}".to_owned()),
        any_schema(),
        any_json(),
    ];
    (row, schema, 0..6).prop_map(|(row, schema, shape)| match shape {
        0 => format!("{{\"schema\":{schema},\"payload\":{row}}}"),
        1 => format!(" {{ \"payload\" : {row} , \"schema\" : {schema} }} "),
        _ => row,
    })
}

proptest! {
    #[test]
    fn both_ways_make_the_same_rows(
        messages in prop::collection::vec((any_message(), any::<(usize, u8)>(), 0..8), 1..6),
        which in 0_usize..4,
    ) {
        let messages: Vec<Vec<u8>> = messages
            .into_iter()
            .map(|(message, (place, byte), damage)| {
                let mut bytes = message.into_bytes();
                let place = place % (bytes.len() + 1);
                match damage {
                    0 => bytes.truncate(place),
                    1 => bytes.insert(place, byte),
                    2 if place < bytes.len() => bytes[place] = byte,
                    3 if place < bytes.len() => {
                        bytes.remove(place);
                    }
                    _ => {}
                }
                bytes
            })
            .collect();
        let payloads: Vec<_> = messages.iter().map(|message| Some(message.as_slice())).collect();
        let [all, some, envelope, large_envelope] = contents();
        let content = match which {
            0 => all,
            1 => some,
            2 => envelope,
            _ => large_envelope,
        };
        decoded_both_ways(content, &payloads);
    }
}
