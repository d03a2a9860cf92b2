//! Fuzz targets: the binary form, and JSON text. The seeds are in `fuzz/jsonb.txt` and `fuzz/json.txt`.

use std::path::Path;

use flowstone_fuzz::{Input, binaries, config, mutated, texts};
use proptest::prelude::*;

use super::tests::use_everything;
use super::*;

fn corpus(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

/// Makes the value anew, event by event.
fn rebuild(value: Jsonb<'_>, builder: &mut JsonbBuilder) {
    match value.kind() {
        JsonbKind::Null => builder.null(),
        JsonbKind::Bool => builder.bool(value.as_bool().unwrap()),
        JsonbKind::Number => builder.number(&value.as_number_text().unwrap()),
        JsonbKind::String => builder.string(value.as_str().unwrap()),
        JsonbKind::Array => {
            builder.begin_array();
            value.items().for_each(|item| rebuild(item, builder));
            builder.end()
        }
        JsonbKind::Object => {
            builder.begin_object();
            for (key, item) in value.entries() {
                builder.key(key);
                rebuild(item, builder);
            }
            builder.end()
        }
    };
}

/// What holds for every document, wherever it comes from: it can be read, made anew and written as text, and stays the same bytes.
fn assert_canonical(bytes: &[u8]) {
    let document = Jsonb::from_bytes(bytes).unwrap();
    let mut builder = JsonbBuilder::new();
    rebuild(document, &mut builder);
    assert_eq!(builder.finish().unwrap().as_bytes(), bytes, "made anew");
    for text in [document.to_string(), document.pretty()] {
        let read = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(read.as_bytes(), bytes, "{text}");
    }
}

/// What holds for every text: it is a document, or is no JSON to anybody, or holds what documents cannot.
fn assert_read_or_refused(text: &str) {
    match parse(text) {
        Ok(document) => assert_canonical(document.as_bytes()),
        Err(TypeError::InvalidText { .. }) if !text.contains("\\u0000") => {
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err());
        }
        Err(
            TypeError::InvalidText { .. }
            | TypeError::OutOfRange { .. }
            | TypeError::InvalidParameter(_),
        ) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn most_seeds_are_documents() {
    let seeds = binaries(&corpus("jsonb.txt"));
    let taken = seeds.iter().filter(|seed| Jsonb::from_bytes(seed).is_ok());
    assert_eq!((taken.count(), seeds.len()), (34, 49));
    let seeds = texts(&corpus("json.txt"));
    let taken = seeds
        .iter()
        .filter(|seed| parse(std::str::from_utf8(seed).unwrap()).is_ok());
    assert_eq!((taken.count(), seeds.len()), (17, 25));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn bytes_that_are_taken_are_canonical(Input(bytes) in mutated(binaries(&corpus("jsonb.txt")))) {
        if Jsonb::from_bytes(&bytes).is_ok() {
            assert_canonical(&bytes);
        }
        use_everything(&bytes);
    }

    #[test]
    fn text_that_is_taken_is_kept(Input(bytes) in mutated(texts(&corpus("json.txt")))) {
        assert_read_or_refused(&String::from_utf8_lossy(&bytes));
    }
}
