use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn doc(text: &str) -> JsonbBuf {
    parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn shown(text: &str) -> String {
    doc(text).to_string()
}

#[test]
fn output_is_postgresql_s() {
    for (input, expected) in [
        (
            "{\"bb\":1,\"a\":[1,2],\"c\":{}}",
            "{\"a\": [1, 2], \"c\": {}, \"bb\": 1}",
        ),
        ("{\"a\":1,\"a\":2}", "{\"a\": 2}"),
        (" [ ] ", "[]"),
        ("1.50", "1.5"),
        ("-0.0", "0"),
        ("1e3", "1000"),
        ("12e-4", "0.0012"),
        ("-1.25E1", "-12.5"),
        (
            "123456789012345678901234567890.123",
            "123456789012345678901234567890.123",
        ),
        ("100", "100"),
        ("0.1", "0.1"),
        (
            "\"a\\u00e9\\ud83d\\ude00\\n\\u001f\\/\\\"\"",
            "\"aé😀\\n\\u001f/\\\"\"",
        ),
        ("[null,true,false]", "[null, true, false]"),
    ] {
        assert_eq!(shown(input), expected);
    }
}

#[test]
fn text_that_is_not_json_is_refused() {
    for bad in [
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "nul",
        "[1 2]",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\ude00\"",
        "\"a",
        "\"\n\"",
        "1 2",
        "NaN",
        "{\"a\":1,}",
        "'a'",
        "[",
        "]",
        "\"\\u12\"",
        "tru",
        "-",
    ] {
        assert!(
            matches!(parse(bad), Err(TypeError::InvalidText { .. })),
            "{bad}"
        );
    }
    assert!(matches!(
        parse("\"\\u0000\""),
        Err(TypeError::InvalidText { .. })
    ));
    assert!(matches!(
        parse("{\"\\u0000\":1}"),
        Err(TypeError::InvalidText { .. })
    ));
    assert!(matches!(
        parse("1e200000"),
        Err(TypeError::OutOfRange { .. })
    ));
    assert!(matches!(
        parse("1e-99999999999999999999999"),
        Err(TypeError::OutOfRange { .. })
    ));
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(&nested(DEPTH_MAX)).is_ok());
    assert!(matches!(
        parse(&nested(DEPTH_MAX + 1)),
        Err(TypeError::InvalidParameter(_))
    ));
    assert!(parse(&nested(100_000)).is_err());
    let deepest = doc(&nested(DEPTH_MAX));
    assert!(Jsonb::from_bytes(deepest.as_bytes()).is_ok());
    let length = u32::try_from(deepest.as_bytes().len() - 1).unwrap();
    let mut deeper = vec![JSONB_VERSION, ARRAY, 1, 0, 0, 0];
    deeper.extend_from_slice(&length.to_le_bytes());
    deeper.extend_from_slice(&deepest.as_bytes()[1..]);
    assert!(matches!(
        Jsonb::from_bytes(&deeper),
        Err(TypeError::InvalidBinary { .. })
    ));
    assert!(deepest.as_jsonb().concat(doc("[[]]").as_jsonb()).is_ok());
    assert!(
        doc("{\"a\":1}")
            .as_jsonb()
            .concat(deepest.as_jsonb())
            .is_ok()
    );
    let mut builder = JsonbBuilder::new();
    builder.begin_array().value(deepest.as_jsonb()).end();
    assert!(matches!(
        builder.finish(),
        Err(TypeError::InvalidParameter(_))
    ));
}

#[test]
fn a_document_with_a_zero_character_is_damaged() {
    for bytes in [
        [JSONB_VERSION, STRING, 0].as_slice(),
        &[
            JSONB_VERSION,
            OBJECT,
            1,
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            2,
            0,
            0,
            0,
            0,
            NULL,
        ],
    ] {
        assert!(
            matches!(
                Jsonb::from_bytes(bytes),
                Err(TypeError::InvalidBinary { .. })
            ),
            "{bytes:?}"
        );
    }
}

#[test]
fn equal_documents_have_equal_bytes() {
    for (left, right) in [
        ("1", "1.0"),
        ("1", "10e-1"),
        ("0", "-0e5"),
        ("1000", "1e3"),
        ("{\"a\":1,\"b\":2}", "{\"b\":2.0, \"a\":1}"),
        ("\"\\u0041\"", "\"A\""),
    ] {
        assert_eq!(doc(left), doc(right));
    }
    for (left, right) in [
        ("1", "\"1\""),
        ("12", "120"),
        ("1", "-1"),
        ("[]", "{}"),
        ("0.12", "0.012"),
        ("[[]]", "[]"),
    ] {
        assert_ne!(doc(left), doc(right));
    }
}

#[test]
fn access_by_key_index_and_path() {
    let buf = doc("{\"a\": [10, {\"b\": \"x\"}], \"bool\": true, \"n\": -1.5}");
    let json = buf.as_jsonb();
    assert_eq!(json.kind(), JsonbKind::Object);
    assert_eq!(json.len(), 3);
    let list = json.get_key("a").unwrap();
    assert_eq!(list.get_index(0).unwrap().as_number_text().unwrap(), "10");
    assert_eq!(
        list.get_index(-1).unwrap().get_key("b").unwrap().as_str(),
        Some("x")
    );
    assert!(
        list.get_index(2).is_none()
            && list.get_index(-3).is_none()
            && list.get_index(i64::MIN).is_none()
    );
    assert!(
        json.get_key("z").is_none() && json.get_index(0).is_none() && list.get_key("a").is_none()
    );
    assert_eq!(json.get_path(["a", "-1", "b"]).unwrap().as_str(), Some("x"));
    assert!(json.get_path(["a", "x"]).is_none());
    assert_eq!(json.get_key("bool").unwrap().as_bool(), Some(true));
    let number = json.get_key("n").unwrap().as_number().unwrap();
    assert_eq!(
        (number.to_f64(), number.to_i64(), number.is_integer()),
        (-1.5, Some(-2), false)
    );
    assert_eq!(number.to_numeric(Some((5, 1))), Ok(-15));
    assert!(json.exists("a") && !json.exists("b"));
    assert!(doc("[\"a\", 1]").as_jsonb().exists("a") && doc("\"a\"").as_jsonb().exists("a"));
    let keys: Vec<&str> = json.entries().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "n", "bool"]);
}

#[test]
fn containment_is_postgresql_s() {
    for (left, right, expected) in [
        ("[1,2,3]", "[3,1,3]", true),
        ("[1,2]", "1", true),
        ("1", "[1]", false),
        ("1", "1.0", true),
        ("{\"a\":{\"b\":1,\"c\":2}}", "{\"a\":{\"b\":1}}", true),
        ("{\"a\":{\"b\":1}}", "{\"b\":1}", false),
        ("[[1,2],3]", "[[1]]", true),
        ("[[1,2],3]", "[1]", false),
        ("[{\"a\":1,\"b\":2}]", "[{\"a\":1}]", true),
        ("{\"a\":[1]}", "{\"a\":1}", false),
        ("[]", "{}", false),
        ("{}", "{}", true),
        ("null", "null", true),
    ] {
        assert_eq!(
            doc(left).as_jsonb().contains(doc(right).as_jsonb()),
            expected,
            "{left} @> {right}"
        );
    }
}

#[test]
fn operators_make_new_documents() {
    let concat = |left: &str, right: &str| {
        doc(left)
            .as_jsonb()
            .concat(doc(right).as_jsonb())
            .unwrap()
            .to_string()
    };
    assert_eq!(
        concat("{\"a\":1,\"b\":1}", "{\"b\":2}"),
        "{\"a\": 1, \"b\": 2}"
    );
    assert_eq!(concat("[1]", "[2,3]"), "[1, 2, 3]");
    assert_eq!(concat("1", "\"x\""), "[1, \"x\"]");
    assert_eq!(concat("{\"a\":1}", "[2]"), "[{\"a\": 1}, 2]");
    let base = doc("{\"a\":[1,\"x\",{\"b\":null,\"c\":2}],\"d\":null}");
    let json = base.as_jsonb();
    assert_eq!(json.delete_key("a").unwrap().to_string(), "{\"d\": null}");
    let list = json.get_key("a").unwrap();
    assert_eq!(
        list.delete_key("x").unwrap().to_string(),
        "[1, {\"b\": null, \"c\": 2}]"
    );
    assert_eq!(list.delete_index(-1).unwrap().to_string(), "[1, \"x\"]");
    assert_eq!(list.delete_index(7).unwrap(), list.to_buf());
    assert_eq!(
        json.strip_nulls().unwrap().to_string(),
        "{\"a\": [1, \"x\", {\"c\": 2}]}"
    );
    assert_eq!(
        json.delete_index(0).unwrap_err().to_string(),
        "cannot delete from object using integer index"
    );
    assert_eq!(
        doc("1").as_jsonb().delete_key("a").unwrap_err().to_string(),
        "cannot delete from scalar"
    );
    assert_eq!(
        doc("{\"a\":[1,{}],\"b\":2}").as_jsonb().pretty(),
        "{\n    \"a\": [\n        1,\n        {\n        }\n    ],\n    \"b\": 2\n}"
    );
}

#[test]
fn the_order_is_that_of_postgresql_s_btree() {
    let ascending = [
        "[]",
        "null",
        "\"a\"",
        "\"b\"",
        "-10",
        "-2.5",
        "-2",
        "0",
        "0.5",
        "1.05",
        "1.1",
        "9",
        "10",
        "false",
        "true",
        "[1]",
        "[2]",
        "[1,1]",
        "{}",
        "{\"b\":1}",
        "{\"a\":1,\"b\":1}",
        "{\"a\":1,\"b\":2}",
    ];
    for (first, left) in ascending.iter().enumerate() {
        for (second, right) in ascending.iter().enumerate() {
            let order = doc(left).as_jsonb().compare(doc(right).as_jsonb());
            assert_eq!(order, first.cmp(&second), "{left} {right}");
        }
    }
    // Inside a container an empty array is greater than a scalar.
    assert!(
        doc("[[]]")
            .as_jsonb()
            .compare(doc("[1]").as_jsonb())
            .is_gt()
    );
}

#[test]
fn the_encoding_of_version_one_does_not_change() {
    let buf = doc("{\"a\":[null,-12.5],\"b\":\"x\"}");
    assert_eq!(
        hex::encode(buf.as_bytes()),
        concat!(
            "01",
            "06",
            "02000000",
            "0100000018000000",
            "020000001a000000",
            "6162",
            "05",
            "02000000",
            "01000000",
            "09000000",
            "00",
            "0300020000001250",
            "0478"
        )
    );
}

#[test]
fn the_builder_reports_events_out_of_order() {
    let failing: [fn(&mut JsonbBuilder); 6] = [
        |_| {},
        |builder| {
            builder.null().null();
        },
        |builder| {
            builder.begin_object().null().end();
        },
        |builder| {
            builder.begin_object().key("a").end();
        },
        |builder| {
            builder.end();
        },
        |builder| {
            builder.begin_array();
        },
    ];
    for events in failing {
        let mut builder = JsonbBuilder::new();
        events(&mut builder);
        assert!(matches!(builder.finish(), Err(TypeError::Kernel(_))));
    }
    let mut builder = JsonbBuilder::new();
    builder.begin_array().f64(f64::NAN).f64(1e21).i64(-3).end();
    assert_eq!(
        builder.finish().unwrap().to_string(),
        "[\"NaN\", 1000000000000000000000, -3]"
    );
}

/// A model of a JSON value whose equality is JSON's.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Model {
    Null,
    Bool(bool),
    /// Mantissa without trailing zeros, power of ten.
    Number(i64, i32),
    String(String),
    Array(Vec<Model>),
    Object(BTreeMap<String, Model>),
}

fn any_model() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        Just(Model::Null),
        any::<bool>().prop_map(Model::Bool),
        (-200_i64..200, -3_i32..4).prop_map(|(mut mantissa, mut power)| {
            if mantissa == 0 {
                return Model::Number(0, 0);
            }
            while mantissa % 10 == 0 {
                mantissa /= 10;
                power += 1;
            }
            Model::Number(mantissa, power)
        }),
        "[ab\"\\\\\n\u{1}é]{0,3}".prop_map(Model::String),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Model::Array),
            proptest::collection::btree_map("[ab]{0,3}", inner, 0..4).prop_map(Model::Object),
        ]
    })
}

/// A document of any shape.
pub(crate) fn any_document() -> impl Strategy<Value = JsonbBuf> {
    any_model().prop_map(|model| {
        let mut text = String::new();
        model.text(0, &mut text);
        doc(&text)
    })
}

impl Model {
    /// JSON text; `variant` picks among the many texts of the same value.
    fn text(&self, variant: u32, out: &mut String) {
        use std::fmt::Write;
        let next = variant
            .rotate_left(5)
            .wrapping_mul(2_654_435_761)
            .wrapping_add(1);
        let space = if variant & 1 == 0 { "" } else { " \n" };
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => write!(out, "{value}").unwrap(),
            Self::Number(mantissa, power) => match variant % 3 {
                0 => write!(out, "{mantissa}e{power}").unwrap(),
                1 => write!(out, "{mantissa}.000E{power:+}").unwrap(),
                _ if *mantissa == 0 => out.push_str("-0.0"),
                _ => write!(out, "{mantissa}00e{}", power - 2).unwrap(),
            },
            Self::String(text) => out.push_str(&serde_json::to_string(text).unwrap()),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(space);
                    item.text(next.wrapping_add(u32::try_from(index).unwrap()), out);
                }
                out.push(']');
            }
            Self::Object(entries) => {
                out.push('{');
                let mut entries: Vec<_> = entries.iter().collect();
                if variant & 2 == 0 {
                    entries.reverse();
                }
                let duplicate = entries
                    .first()
                    .filter(|_| variant & 4 == 0)
                    .map(|(key, _)| (*key, &Self::Null));
                let all = duplicate
                    .into_iter()
                    .chain(entries.iter().map(|(key, value)| (*key, *value)));
                for (index, (key, value)) in all.enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    write!(
                        out,
                        "{space}{}:{space}",
                        serde_json::to_string(key).unwrap()
                    )
                    .unwrap();
                    value.text(next.wrapping_add(u32::try_from(index).unwrap()), out);
                }
                out.push('}');
            }
        }
    }
}

proptest! {
    #[test]
    fn bytes_are_equal_exactly_if_values_are(left in any_model(), right in any_model(), variants in any::<(u32, u32)>()) {
        let text = |model: &Model, variant| {
            let mut out = String::new();
            model.text(variant, &mut out);
            out
        };
        let first = doc(&text(&left, variants.0));
        let second = doc(&text(&left, variants.1));
        prop_assert_eq!(&first, &second);
        prop_assert!(Jsonb::from_bytes(first.as_bytes()).is_ok());
        prop_assert_eq!(&doc(&first.to_string()), &first);
        prop_assert_eq!(&doc(&first.as_jsonb().pretty()), &first);
        let other = doc(&text(&right, variants.0));
        prop_assert_eq!(first == other, left == right);
        prop_assert_eq!(first.as_jsonb().compare(other.as_jsonb()).is_eq(), left == right);
        prop_assert_eq!(first.as_jsonb().compare(other.as_jsonb()), other.as_jsonb().compare(first.as_jsonb()).reverse());
        prop_assert!(first.as_jsonb().contains(first.as_jsonb()));
    }

    #[test]
    fn damaged_documents_never_panic(model in any_model(), damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4), cut in any::<usize>()) {
        let mut text = String::new();
        model.text(0, &mut text);
        let mut bytes = doc(&text).into_bytes();
        for (place, byte) in damage {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        bytes.truncate(bytes.len() - cut % 3);
        use_everything(&bytes);
    }

    #[test]
    fn any_bytes_are_safe(mut bytes in proptest::collection::vec(prop_oneof![0_u8..8, any::<u8>()], 0..60)) {
        use_everything(&bytes);
        bytes.insert(0, JSONB_VERSION);
        use_everything(&bytes);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"\\\\0-9eE.+ utrfalsn-]{0,30}") {
        let ours = parse(&text);
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        if let Ok(theirs) = theirs {
            if let Ok(ours) = &ours {
                let parsed = JsonbBuf::from_json(&theirs);
                prop_assert!(parsed.is_ok() || ours.as_bytes().len() > 40);
            }
        } else if ours.is_ok() {
            // serde_json refuses numbers beyond a double.
            prop_assert!(text.contains(['e', 'E']) || text.len() > 300, "{}", text);
        }
    }
}

pub(super) fn use_everything(bytes: &[u8]) {
    let checked = Jsonb::from_bytes(bytes);
    for json in checked.into_iter().chain([Jsonb::from_canonical(bytes)]) {
        let _ = (
            json.to_string(),
            json.pretty(),
            json.kind(),
            json.len(),
            json.as_str(),
        );
        let _ = (
            json.get_index(0),
            json.get_index(-1),
            json.get_key("a"),
            json.exists("a"),
        );
        let _ = (
            json.as_number()
                .map(|number| (number.to_f64(), number.to_i64(), number.is_integer())),
            json.as_number_text(),
        );
        let _ = (
            json.strip_nulls(),
            json.delete_index(0),
            json.delete_key("a"),
            json.concat(json),
        );
        let _ = (json.contains(json), json.compare(json), json.to_buf());
    }
}
