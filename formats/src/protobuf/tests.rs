use arrow_array::Array;
use flowstone_types::value::text_of;
use proptest::prelude::*;

use super::*;

const SCHEMA: &str = r#"
syntax = "proto3";
package shop;
import "other.proto";
message Order {
  int64 id = 1;
  string name = 2;
  optional int32 small = 3;
  repeated sint32 numbers = 4;
  Kind kind = 5;
  other.Inner inner = 6;
  map<string, int32> counts = 7;
  oneof either { string text = 8; uint64 number = 9; }
  double ratio = 10;
  bytes raw = 11;
  repeated other.Inner many = 12;
  enum Kind { NONE = 0; SOME = 1; }
}
"#;
const OTHER: &str = r#"
syntax = "proto3";
package other;
message Inner { bool on = 1; Inner next = 2; }
"#;

fn decoder(framing: ProtobufFraming) -> ProtobufDecoder {
    let references = [("other.proto".to_owned(), OTHER.to_owned())];
    let schema = ProtobufSchema::Text {
        schema: SCHEMA,
        references: &references,
    };
    ProtobufDecoder::new(schema, Some("shop.Order"), framing, Limits::default()).unwrap()
}

fn cells(decoder: &ProtobufDecoder, payload: &[u8]) -> Result<Vec<String>, String> {
    let decoded = decoder.decode(&[Some(payload)]).unwrap();
    if let Some(bad) = decoded.bad.first() {
        return Err(bad.reason.clone());
    }
    let described = decoder.relation().columns.iter().zip(&decoded.columns);
    Ok(described
        .map(|(column, array)| {
            let mut text = String::new();
            let there = text_of(array, 0, &column.sql_type, &mut text).unwrap();
            if there { text } else { "NULL".to_owned() }
        })
        .collect())
}

#[test]
fn columns_are_those_of_the_schema() {
    let types: Vec<String> = decoder(ProtobufFraming::Bare)
        .relation()
        .columns
        .iter()
        .map(|column| {
            format!(
                "{} {}{}",
                column.name,
                column.sql_type,
                if column.nullable { "?" } else { "" }
            )
        })
        .collect();
    assert_eq!(
        types,
        [
            "id bigint",
            "name text",
            "small integer?",
            "numbers integer[]",
            "kind text",
            "inner jsonb?",
            "counts jsonb",
            "text text?",
            "number uint8?",
            "ratio double precision",
            "raw bytea",
            "many jsonb",
        ]
    );
}

#[test]
fn absent_fields_are_zero_or_null() {
    let cells = cells(&decoder(ProtobufFraming::Bare), b"").unwrap();
    assert_eq!(
        cells,
        [
            "0", "", "NULL", "{}", "NONE", "NULL", "{}", "NULL", "NULL", "0", "\\x", "[]"
        ]
    );
}

#[test]
fn fields_of_every_kind_are_read() {
    let mut payload = vec![0x08, 0x96, 0x01]; // id = 150
    payload.extend([0x12, 2, b'h', b'i']); // name
    payload.extend([0x18, 0]); // small = 0
    payload.extend([0x22, 2, 1, 4]); // numbers, packed: -1, 2
    payload.extend([0x20, 3]); // numbers: -2
    payload.extend([0x28, 7]); // kind = 7, unknown
    payload.extend([0x32, 2, 0x08, 1]); // inner, in two parts
    payload.extend([0x32, 4, 0x12, 2, 0x08, 0]);
    payload.extend([0x3a, 5, 0x0a, 1, b'k', 0x10, 9]); // counts
    payload.extend([0x42, 1, b'x']); // text, then number: the last wins
    payload.extend([0x48, 5]);
    payload.extend([0x9b, 6, 0x08, 1, 0x9c, 6]); // an unknown group (99)
    payload.extend([0xfa, 6, 1, 0]); // an unknown field (111)
    payload.extend([0x62, 0, 0x62, 2, 0x08, 1]); // many
    let cells = cells(&decoder(ProtobufFraming::Bare), &payload).unwrap();
    assert_eq!(
        cells,
        [
            "150",
            "hi",
            "0",
            "{-1,2,-2}",
            "7",
            r#"{"on": true, "next": {"on": false}}"#,
            r#"{"k": 9}"#,
            "NULL",
            "5",
            "0",
            "\\x",
            r#"[{"on": false}, {"on": true}]"#,
        ]
    );
}

#[test]
fn the_prefix_names_the_message() {
    let decoder = decoder(ProtobufFraming::Confluent);
    assert_eq!(
        cells(&decoder, &[0, 0, 0, 0, 7, 0, 0x08, 1]).unwrap()[0],
        "1"
    );
    assert_eq!(
        cells(&decoder, &[0, 0, 0, 0, 7, 2, 0, 0x08, 1]).unwrap()[0],
        "1"
    );
    cells(&decoder, &[0, 0, 0, 0, 7, 2, 2, 0x08, 1]).unwrap_err();
    cells(&decoder, &[1, 0, 0, 0, 7, 0]).unwrap_err();
}

#[test]
fn nesting_beyond_the_limit_is_a_bad_row() {
    let mut inner = vec![0x08, 1];
    for _ in 0..200 {
        let mut outer = vec![0x12];
        let mut length = inner.len();
        while length > 127 {
            outer.push(u8::try_from(length & 127).unwrap() | 128);
            length >>= 7;
        }
        outer.push(u8::try_from(length).unwrap());
        outer.append(&mut inner);
        inner = outer;
    }
    inner[0] = 0x32;
    let reason = cells(&decoder(ProtobufFraming::Bare), &inner).unwrap_err();
    assert!(reason.contains("too deep"), "{reason}");
    // Groups in groups.
    cells(&decoder(ProtobufFraming::Bare), &[0x9b_u8, 6].repeat(1000)).unwrap_err();
}

#[test]
fn what_is_no_schema_is_refused() {
    let new = |schema, message| {
        let schema = ProtobufSchema::Text {
            schema,
            references: &[],
        };
        ProtobufDecoder::new(schema, message, ProtobufFraming::Bare, Limits::default())
    };
    assert!(new("nonsense", None).is_err());
    assert!(
        new(
            "syntax=\"proto3\"; message A {int32 a=1;} message B {int32 b=1;}",
            None
        )
        .is_err()
    );
    assert!(new("syntax=\"proto3\"; message A {int32 a=1;}", Some("B")).is_err());
    assert!(new("message A {optional int32 a=1;}", None).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_make_us_panic(payload in prop::collection::vec(any::<u8>(), 0..80)) {
        let decoder = decoder(ProtobufFraming::Bare);
        let decoded = decoder.decode(&[Some(payload.as_slice()), Some(b"")]).unwrap();
        prop_assert_eq!(decoded.rows.len() + decoded.bad.len(), 2);
        for column in &decoded.columns {
            prop_assert_eq!(column.len(), decoded.rows.len());
        }
    }
}
