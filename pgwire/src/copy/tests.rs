use std::sync::Arc;

use arrow_array::{Array, Int32Array, RecordBatch, StringArray};
use arrow_schema::Schema;
use proptest::prelude::*;

use super::decoder::ROWS_PER_BATCH;
use super::*;
use crate::error::CopyFault;

fn options(format: CopyFormat) -> CopyOptions {
    let text = format == CopyFormat::Text;
    CopyOptions {
        format,
        delimiter: if text { '\t' } else { ',' },
        null: if text { "\\N" } else { "" }.to_owned(),
        header: false,
        quote: '"',
        escape: '"',
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        SqlType::Int4.to_field("id", true),
        SqlType::Text.to_field("name", true),
    ]))
}

type Row = (Option<i32>, Option<String>);

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let ids = batch
        .column(0)
        .as_any()
        .downcast_ref::<Int32Array>()
        .unwrap();
    let names = batch
        .column(1)
        .as_any()
        .downcast_ref::<StringArray>()
        .unwrap();
    ids.iter()
        .zip(names.iter())
        .map(|(id, name)| (id, name.map(str::to_owned)))
        .collect()
}

fn decode_with(options: &CopyOptions, pieces: &[&[u8]]) -> Result<Vec<Row>, Error> {
    let mut decoder = CopyDecoder::new(&schema(), options, &TimeZone::UTC)?;
    let mut rows = Vec::new();
    for piece in pieces {
        for batch in decoder.decode(piece)? {
            rows.extend(rows_of(&batch));
        }
    }
    if let Some(batch) = decoder.finish()? {
        rows.extend(rows_of(&batch));
    }
    Ok(rows)
}

fn decode(format: CopyFormat, data: &[u8]) -> Result<Vec<Row>, Error> {
    decode_with(&options(format), &[data])
}

fn row(id: i32, name: &str) -> Row {
    (Some(id), Some(name.to_owned()))
}

/// Whatever the data is cut into, the rows are the same.
fn assert_every_split(options: &CopyOptions, data: &[u8], expected: &[Row]) {
    for at in 0..=data.len() {
        let (head, tail) = data.split_at(at);
        assert_eq!(
            decode_with(options, &[head, tail]).unwrap(),
            expected,
            "split at {at}"
        );
    }
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(
        decode_with(options, &bytes).unwrap(),
        expected,
        "byte by byte"
    );
}

fn encode(options: &CopyOptions, rows: &[Row]) -> Vec<u8> {
    let ids: Int32Array = rows.iter().map(|(id, _)| *id).collect();
    let names: StringArray = rows.iter().map(|(_, name)| name.as_deref()).collect();
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names)]).unwrap();
    let encoder = CopyEncoder::new(&schema(), options, &TimeZone::UTC).unwrap();
    let mut data: Vec<u8> = encoder
        .header()
        .map(|header| header.to_vec())
        .unwrap_or_default();
    let lines = encoder.rows(&batch).unwrap();
    for row in 0..rows.len() {
        data.extend_from_slice(&lines.encode(row).unwrap());
    }
    data.extend(encoder.trailer().unwrap_or_default());
    data
}

fn fault(result: Result<Vec<Row>, Error>) -> (String, String, CopyFault) {
    match result {
        Err(Error::Copy {
            message,
            context,
            fault,
        }) => (message, context, fault),
        other => panic!("not an error of the data: {other:?}"),
    }
}

#[test]
fn text_is_the_same_however_it_is_cut() {
    let data =
        "1\thäh\\t\\n\\\\x\r\n2\t\\N\n\\N\t\n3\ta\\\nb\n4\t\\x41\\101\\q\n\\.\nrubbish".as_bytes();
    let expected = [
        row(1, "häh\t\n\\x"),
        (Some(2), None),
        (None, Some(String::new())),
        row(3, "a\nb"),
        row(4, "AAq"),
    ];
    assert_every_split(&options(CopyFormat::Text), data, &expected);
}

#[test]
fn csv_is_the_same_however_it_is_cut() {
    let data =
        "1,\"a \"\"quoted\"\" word\"\r\n2,\r\n3,\"\"\r\n4,\"two\nlines, one field\"\n5,\"\\.\"\n\\.\nrubbish"
            .as_bytes();
    let expected = [
        row(1, "a \"quoted\" word"),
        (Some(2), None),
        row(3, ""),
        row(4, "two\nlines, one field"),
        row(5, "\\."),
    ];
    assert_every_split(&options(CopyFormat::Csv), data, &expected);
}

#[test]
fn csv_with_its_own_escape_is_the_same_however_it_is_cut() {
    let mut options = options(CopyFormat::Csv);
    (options.delimiter, options.quote, options.escape) = (';', '\'', '\\');
    options.null = "nil".to_owned();
    options.header = true;
    let data = b"id;name\n1;'it\\'s \\\\ \\n'\n2;nil\n3;'nil'\n";
    let expected = [row(1, "it's \\ \\n"), (Some(2), None), row(3, "nil")];
    assert_every_split(&options, data, &expected);
}

#[test]
fn binary_is_the_same_however_it_is_cut() {
    let options = options(CopyFormat::Binary);
    let expected = [
        row(-1, "häh"),
        (None, Some(String::new())),
        (Some(7), None),
        (None, None),
    ];
    assert_every_split(&options, &encode(&options, &expected), &expected);
}

#[test]
fn the_last_line_needs_no_newline() {
    assert_eq!(
        decode(CopyFormat::Text, b"1\ta\n2\tb").unwrap(),
        [row(1, "a"), row(2, "b")]
    );
    assert_eq!(
        decode(CopyFormat::Csv, b"1,a\n2,\"b\"").unwrap(),
        [row(1, "a"), row(2, "b")]
    );
    assert_eq!(decode(CopyFormat::Text, b"").unwrap(), []);
}

#[test]
fn batches_come_as_soon_as_they_are_full() {
    let mut decoder =
        CopyDecoder::new(&schema(), &options(CopyFormat::Text), &TimeZone::UTC).unwrap();
    let data = "1\ta\n".repeat(ROWS_PER_BATCH + 1);
    let batches = decoder.decode(data.as_bytes()).unwrap();
    assert_eq!(
        batches
            .iter()
            .map(RecordBatch::num_rows)
            .collect::<Vec<_>>(),
        [ROWS_PER_BATCH]
    );
    assert_eq!(decoder.finish().unwrap().unwrap().num_rows(), 1);
}

#[test]
fn bad_lines_are_named() {
    let (message, context, kind) = fault(decode(CopyFormat::Text, b"1\ta\n2\n"));
    assert_eq!(
        (message.as_str(), context.as_str(), kind),
        (
            "missing data for column \"name\"",
            "COPY, line 2",
            CopyFault::Format
        )
    );
    let (message, context, _) = fault(decode(CopyFormat::Csv, b"1,a\n2,b\n3,c,d\n"));
    assert_eq!(
        (message.as_str(), context.as_str()),
        ("extra data after last expected column", "COPY, line 3")
    );
    let (message, context, kind) = fault(decode(CopyFormat::Text, b"1\ta\nx\tb\n"));
    assert_eq!(
        (message.as_str(), context.as_str()),
        (
            "invalid input syntax for type integer: \"x\"",
            "COPY, line 2, column id: \"x\""
        )
    );
    assert!(
        matches!(
            kind,
            CopyFault::Value(flowstone_types::TypeError::InvalidText { .. })
        ),
        "{kind:?}"
    );
    let (message, context, _) = fault(decode(CopyFormat::Csv, b"1,\"two\nlines\"\n2,\"open\n"));
    assert_eq!(message, "unterminated CSV quoted field", "{context}");
}

#[test]
fn what_is_not_text_is_refused() {
    for (data, shown) in [(&b"1\ta\xff\n"[..], "0xff"), (b"1\ta\0b\n", "0x00")] {
        let (message, context, kind) = fault(decode(CopyFormat::Text, data));
        assert_eq!(
            message,
            format!("invalid byte sequence for encoding \"UTF8\": {shown}")
        );
        assert_eq!(
            (context.as_str(), kind),
            ("COPY, line 1", CopyFault::Encoding)
        );
    }
}

#[test]
fn broken_binary_data_is_refused() {
    let options = options(CopyFormat::Binary);
    let whole = encode(&options, &[row(1, "a")]);
    let (message, ..) = fault(decode(
        CopyFormat::Binary,
        b"1\ta\n2\tb\n3\tc\n4\td\n5\te\n",
    ));
    assert_eq!(message, "COPY file signature not recognized");
    // The end marker may be missing, a part of a row may not.
    assert_eq!(
        decode(CopyFormat::Binary, &whole[..whole.len() - 2]).unwrap(),
        [row(1, "a")]
    );
    let (message, ..) = fault(decode(CopyFormat::Binary, &whole[..whole.len() - 3]));
    assert_eq!(message, "unexpected EOF in COPY data");
    let mut columns = whole.clone();
    columns[20] = 3;
    assert_eq!(
        fault(decode(CopyFormat::Binary, &columns)).0,
        "row field count is 3, expected 2"
    );
    let mut size = whole.clone();
    size[21..25].copy_from_slice(&(-2_i32).to_be_bytes());
    assert_eq!(
        fault(decode(CopyFormat::Binary, &size)).0,
        "invalid field size"
    );
    let mut short = whole[..21].to_vec();
    short.extend(b"\0\0\0\x03abc\xff\xff\xff\xff");
    assert!(
        matches!(
            fault(decode(CopyFormat::Binary, &short)).2,
            CopyFault::Value(_)
        ),
        "an integer of three bytes"
    );
}

#[test]
fn null_and_empty_are_told_apart() {
    let rows = [(Some(1), None), row(2, ""), row(3, "\\N"), row(4, "\\.")];
    let text = encode(&options(CopyFormat::Text), &rows);
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "1\t\\N\n2\t\n3\t\\\\N\n4\t\\\\.\n"
    );
    let csv = encode(&options(CopyFormat::Csv), &rows);
    assert_eq!(
        String::from_utf8(csv).unwrap(),
        "1,\n2,\"\"\n3,\\N\n4,\"\\.\"\n"
    );
}

#[test]
fn a_header_names_the_columns() {
    for format in [CopyFormat::Text, CopyFormat::Csv] {
        let mut options = options(format);
        options.header = true;
        let data = encode(&options, &[row(1, "a")]);
        let first = data.split(|byte| *byte == b'\n').next().unwrap();
        assert_eq!(
            first,
            if format == CopyFormat::Text {
                b"id\tname"
            } else {
                b"id,name"
            }
        );
        assert_eq!(decode_with(&options, &[&data]).unwrap(), [row(1, "a")]);
    }
}

#[test]
fn a_delimiter_of_two_bytes_is_refused() {
    let mut options = options(CopyFormat::Text);
    options.delimiter = 'ä';
    assert!(CopyDecoder::new(&schema(), &options, &TimeZone::UTC).is_err());
    assert!(CopyEncoder::new(&schema(), &options, &TimeZone::UTC).is_err());
}

#[test]
fn reading_looks_at_each_byte_once_however_long_the_row_is() {
    let value = "ab\\n\"c\"\",\"d\t \\".repeat(4000);
    for format in [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary] {
        let options = options(format);
        let data = encode(&options, &[row(1, &value), row(2, &value)]);
        for piece in [1, 100, 8192] {
            let mut decoder = CopyDecoder::new(&schema(), &options, &TimeZone::UTC).unwrap();
            let mut rows = 0;
            for piece in data.chunks(piece) {
                decoder.decode(piece).unwrap();
                assert!(
                    decoder.held() <= 3 * value.len() + (128 << 10),
                    "{format:?}: {} bytes are kept",
                    decoder.held()
                );
            }
            rows += decoder.finish().unwrap().unwrap().num_rows();
            assert_eq!(rows, 2, "{format:?}");
            assert_eq!(
                decoder.scanned(),
                u64::try_from(data.len()).unwrap(),
                "{format:?} in pieces of {piece}"
            );
        }
    }
}

#[test]
fn fields_beyond_the_last_column_are_not_kept() {
    for (format, delimiter) in [(CopyFormat::Text, "\t"), (CopyFormat::Csv, ",")] {
        let mut decoder = CopyDecoder::new(&schema(), &options(format), &TimeZone::UTC).unwrap();
        let empty = decoder.held();
        assert!(empty > 0, "there is room for a batch");
        let data = ["x".repeat(1000), delimiter.repeat(1000)].concat();
        for _ in 0..1000 {
            decoder.decode(data.as_bytes()).unwrap();
        }
        assert!(decoder.held() - empty < 10_000, "{}", decoder.held());
        assert!(decoder.decode(b"\n").is_err());
    }
}

#[test]
fn batches_are_cut_by_their_bytes_too() {
    let mut decoder =
        CopyDecoder::new(&schema(), &options(CopyFormat::Text), &TimeZone::UTC).unwrap();
    let data = format!("1\t{}\n", "x".repeat(1 << 20)).repeat(9);
    let batches = decoder.decode(data.as_bytes()).unwrap();
    let rows: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(rows, [4, 4]);
}

#[test]
fn an_error_shows_the_start_of_a_long_value() {
    let data = format!("{}\ta\n", "9".repeat(10_000));
    let (_, context, _) = fault(decode(CopyFormat::Text, data.as_bytes()));
    let expected = format!("COPY, line 1, column id: \"{}...\"", "9".repeat(100));
    assert_eq!(context, expected);
}

fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    // Characters that mean something in one of the formats come more often than chance would have it.
    let name = proptest::collection::vec(
        prop_oneof![
            Just("\\"),
            Just("."),
            Just("N"),
            Just("\""),
            Just("'"),
            Just(","),
            Just(";"),
            Just("\t"),
            Just("\n"),
            Just("\r"),
            Just("\u{8}"),
            Just("ä"),
            Just("nil"),
        ],
        0..6,
    )
    .prop_map(|parts| parts.concat());
    proptest::collection::vec(
        (
            proptest::option::of(any::<i32>()),
            proptest::option::of(name),
        ),
        0..8,
    )
}

fn any_options() -> impl Strategy<Value = CopyOptions> {
    let csv = (
        prop_oneof![Just(','), Just(';'), Just('\t')],
        prop_oneof![Just('"'), Just('\'')],
        any::<bool>(),
        prop_oneof![Just(""), Just("nil"), Just("\\N")],
        any::<bool>(),
    );
    prop_oneof![
        Just(options(CopyFormat::Binary)),
        (
            prop_oneof![Just('\t'), Just(','), Just(';')],
            prop_oneof![Just("\\N"), Just(""), Just("nil")],
            any::<bool>(),
        )
            .prop_map(|(delimiter, null, header)| CopyOptions {
                delimiter,
                null: null.to_owned(),
                header,
                ..options(CopyFormat::Text)
            }),
        csv.prop_map(|(delimiter, quote, backslash, null, header)| CopyOptions {
            delimiter,
            quote,
            escape: if backslash { '\\' } else { quote },
            null: null.to_owned(),
            header,
            ..options(CopyFormat::Csv)
        }),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read_back(options in any_options(), rows in any_rows(), cut in any::<prop::sample::Index>()) {
        // Text format writes what looks like its null string as it is, as PostgreSQL does: such a row does not come back.
        let ambiguous = options.format == CopyFormat::Text && rows.iter().any(|(_, name)| name.as_ref() == Some(&options.null));
        prop_assume!(!ambiguous);
        let data = encode(&options, &rows);
        let at = cut.index(data.len() + 1);
        let (head, tail) = data.split_at(at);
        prop_assert_eq!(decode_with(&options, &[head, tail]).unwrap(), rows);
    }
}
