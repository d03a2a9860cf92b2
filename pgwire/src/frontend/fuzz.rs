//! Fuzz targets: whatever a client sends, to an open session (`fuzz/messages.txt`), before there is one (`fuzz/startup.txt`) and as COPY data
//! (`fuzz/copy.txt`).

use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_schema::{Schema, SchemaRef};
use flowstone_coordinator::CopyOptions;
use flowstone_coordinator::auth::scram::{Exchange, Verifier};
use flowstone_fuzz::{Input, binaries, config, mutated};
use flowstone_sql::ast::CopyFormat;
use flowstone_types::SqlType;
use flowstone_types::datetime::TimeZone;
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::io::AsyncWriteExt;
use tokio_util::codec::Framed;

use super::*;
use crate::connection::Failure;
use crate::copy::CopyDecoder;
use crate::encode::{Formats, decode_parameter, type_of_oid};
use crate::sqlstate;
use crate::startup::{auth_message, initial_response, session_options};

/// Types that parameters have, by OID, and those of their arrays.
const TYPES: [u32; 30] = [
    16, 20, 21, 23, 25, 700, 701, 1700, 1043, 19, 17, 3802, 114, 1082, 1083, 1114, 1184, 1186,
    2950, 26, 18, 1000, 1007, 1009, 1231, 1115, 1187, 2951, 3807, 1001,
];

fn seeds(name: &str) -> Vec<Vec<u8>> {
    binaries(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz")
            .join(name),
    )
}

/// What a client did wrong is not a bug of ours.
fn assert_no_bug(error: &Error) {
    assert!(!sqlstate::is_bug(error), "{error}");
}

/// Items that a message has room for.
fn room(message: &PgWireFrontendMessage) -> usize {
    match message {
        PgWireFrontendMessage::Parse(parse) => parse.type_oids.capacity(),
        PgWireFrontendMessage::Bind(bind) => {
            bind.parameter_format_codes.capacity()
                + bind.parameters.capacity()
                + bind.result_column_format_codes.capacity()
        }
        _ => 0,
    }
}

fn session() -> Codec {
    Codec::session(&flowstone_coordinator::SessionMemory::with_limit(1 << 30))
}

/// The messages of a client, as they are seen if they come in these pieces, and what is wrong with what follows them.
fn read(codec: &mut Codec, pieces: &[&[u8]]) -> (Vec<Incoming>, Option<String>) {
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match codec.decode(&mut buffer) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    let (message, taken) = (message.incoming, before - buffer.len());
                    if let Incoming::Message(message) = &message {
                        assert!(room(message) <= 2 * taken + 16, "{message:?}");
                    }
                    messages.push(message);
                }
                Err(ConnectionError::Broken(error)) => {
                    assert_no_bug(&error);
                    return (messages, Some(error.to_string()));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    (messages, None)
}

/// Where each message ends, told from the lengths alone.
fn message_count(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut count = 0;
    while let [kind, a, b, c, d, ..] = *rest {
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap();
        let longest = match kind {
            b'Q' | b'P' | b'B' | b'd' => usize::MAX,
            b'S' | b'C' | b'D' | b'E' | b'H' | b'X' | b'c' | b'f' => 10_000,
            _ => break,
        };
        if length < 4 || length > longest || rest.len() <= length {
            break;
        }
        rest = &rest[length + 1..];
        count += 1;
    }
    count
}

/// Reads the parameters of a Bind as if they had been described as every type in turn.
fn check_parameters(bind: &Bind) {
    let formats = Formats::from_codes(&bind.parameter_format_codes);
    for (index, value) in bind.parameters.iter().enumerate() {
        let types = if index < 12 {
            TYPES.as_slice()
        } else {
            &TYPES[index % 30..][..1]
        };
        for sql_type in types.iter().filter_map(|oid| type_of_oid(*oid)) {
            match decode_parameter(
                value.as_deref(),
                &sql_type,
                formats.is_binary(index),
                &TimeZone::UTC,
            ) {
                Ok(array) => {
                    assert_eq!(array.len(), 1);
                    assert_eq!(array.is_null(0), value.is_none());
                }
                Err(error) => assert_no_bug(&error),
            }
        }
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        SqlType::Int4.to_field("id", true),
        SqlType::Text.to_field("name", true),
    ]))
}

fn copy_options(format: CopyFormat, header: bool) -> CopyOptions {
    let text = format == CopyFormat::Text;
    CopyOptions {
        format,
        delimiter: if text { '\t' } else { ',' },
        null: if text { "\\N" } else { "" }.to_owned(),
        header,
        quote: '"',
        escape: '"',
    }
}

/// The rows of COPY data that comes in these pieces.
fn copied(options: &CopyOptions, pieces: &[&[u8]]) -> Result<Vec<RecordBatch>, Error> {
    let mut decoder = CopyDecoder::new(&schema(), options, &TimeZone::UTC)?;
    let mut batches = Vec::new();
    for piece in pieces {
        batches.extend(decoder.decode(piece)?);
    }
    batches.extend(decoder.finish()?);
    Ok(batches)
}

/// Carries the messages of an authentication as the server does, up to the proof, which nobody guesses.
async fn authenticate(rest: &[u8]) -> Result<(), Error> {
    let (mut client, server) = tokio::io::duplex(rest.len().max(1));
    client.write_all(rest).await.unwrap();
    drop(client);
    let mut socket = Framed::new(server, Codec::Startup);
    let protocol = |failure| match failure {
        Failure::Statement(error) => *error,
        Failure::Connection(ConnectionError::Gone) => Error::Protocol("gone".to_owned()),
        Failure::Connection(error) => panic!("{error}"),
    };
    let message = auth_message(&mut socket).await.map_err(protocol)?;
    let (mechanism, first) = initial_response(&message).ok_or_else(malformed)?;
    let scram = |error| Error::Auth(flowstone_coordinator::AuthError::from(error));
    let (_, exchange) = Exchange::begin(
        mechanism,
        first,
        Some(b"end point"),
        Verifier::mock(*b"sixteen bytes of"),
        "server",
    )
    .map_err(scram)?;
    let last = auth_message(&mut socket).await.map_err(protocol)?;
    let outcome = exchange.finish(&last).map_err(scram)?;
    assert!(!outcome.proven);
    Ok(())
}

#[test]
fn the_seeds_are_what_they_say() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let outcomes = |name: &str, start: fn() -> Codec| {
        let (mut messages, mut malformed, mut broken) = (0, 0, 0);
        for seed in seeds(name) {
            let (found, error) = read(&mut start(), &[&seed]);
            for incoming in found {
                match incoming {
                    Incoming::Message(_) => messages += 1,
                    Incoming::Malformed { .. } => malformed += 1,
                }
                if name == "startup.txt" {
                    break;
                }
            }
            broken += usize::from(error.is_some());
        }
        (messages, malformed, broken)
    };
    assert_eq!(outcomes("messages.txt", session), (30, 7, 6));
    let openings = seeds("startup.txt");
    let finished = openings.iter().filter(|seed| {
        let length = u32::from_be_bytes(*seed.first_chunk().unwrap());
        let rest = seed.get(usize::try_from(length).unwrap()..);
        rest.is_some_and(|rest| runtime.block_on(authenticate(rest)).is_ok())
    });
    assert_eq!(finished.count(), 2);
    let read = |format| {
        let seeds = seeds("copy.txt");
        let options = copy_options(format, false);
        seeds
            .iter()
            .filter(|seed| copied(&options, &[seed]).is_ok())
            .count()
    };
    assert_eq!(
        [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary].map(read),
        [4, 3, 2]
    );
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_a_client_sends_is_messages_or_errors(Input(bytes) in mutated(seeds("messages.txt")), cut in any::<Index>()) {
        let (messages, error) = read(&mut session(), &[&bytes]);
        prop_assert_eq!(messages.len(), message_count(&bytes));
        for incoming in &messages {
            match incoming {
                Incoming::Message(PgWireFrontendMessage::Bind(bind)) => check_parameters(bind),
                Incoming::Message(PgWireFrontendMessage::Parse(parse)) => {
                    parse.type_oids.iter().for_each(|oid| drop(type_of_oid(*oid)));
                }
                Incoming::Message(_) => {}
                Incoming::Malformed { error, .. } => assert_no_bug(error),
            }
        }
        // However it is cut into pieces.
        let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
        let in_pieces = read(&mut session(), &[head, tail]);
        prop_assert_eq!(format!("{in_pieces:?}"), format!("{:?}", (messages, error)));
    }

    #[test]
    fn what_opens_a_connection_is_a_message_or_an_error(Input(bytes) in mutated(seeds("startup.txt"))) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut buffer = BytesMut::from(bytes.as_slice());
        let decoded = Codec::Startup.decode(&mut buffer);
        let announced = bytes.first_chunk().map(|length| u32::from_be_bytes(*length));
        let announced = announced.map(|length| usize::try_from(length).unwrap());
        match decoded {
            Ok(None) => prop_assert!(announced.is_none_or(|length| length > bytes.len())),
            Ok(Some(incoming)) => {
                prop_assert_eq!(Some(bytes.len() - buffer.len()), announced);
                match incoming.incoming {
                    Incoming::Message(PgWireFrontendMessage::Startup(startup)) => {
                        let options = session_options(&startup);
                        prop_assert!(options.parameters.iter().all(|(name, _)| !name.contains('\0')));
                        if let Err(error) = runtime.block_on(authenticate(&buffer)) {
                            assert_no_bug(&error);
                        }
                    }
                    Incoming::Message(PgWireFrontendMessage::CancelRequest(_)) => {}
                    Incoming::Message(other) => prop_assert!(false, "{:?}", other),
                    Incoming::Malformed { error, .. } => assert_no_bug(&error),
                }
            }
            Err(ConnectionError::Broken(error)) => assert_no_bug(&error),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn copy_data_is_rows_or_an_error_however_it_is_cut(Input(bytes) in mutated(seeds("copy.txt")), cut in any::<Index>()) {
        let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
        for format in [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary] {
            for header in [false, true] {
                let options = copy_options(format, header && format != CopyFormat::Binary);
                let whole = copied(&options, &[&bytes]);
                if let Err(error) = &whole {
                    assert_no_bug(error);
                }
                prop_assert_eq!(&copied(&options, &[head, tail]), &whole);
            }
        }
    }
}
