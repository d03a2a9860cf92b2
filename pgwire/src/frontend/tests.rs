use super::*;

/// What a session makes of bytes, and what is left of them.
fn decode(bytes: &[u8]) -> (Result<Option<Incoming>, ConnectionError>, Vec<u8>) {
    let mut buffer = BytesMut::from(bytes);
    let decoded = session().decode(&mut buffer);
    (incoming_of(decoded), buffer.to_vec())
}

fn session() -> Codec {
    Codec::session(&SessionMemory::with_limit(1 << 20))
}

fn incoming_of(
    decoded: Result<Option<Received>, ConnectionError>,
) -> Result<Option<Incoming>, ConnectionError> {
    decoded.map(|received| received.map(|received| received.incoming))
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

#[track_caller]
fn assert_malformed(kind: u8, body: &[u8], expected: &str) {
    let mut bytes = framed(kind, body);
    // What follows must be left alone.
    bytes.extend(b"next");
    match decode(&bytes) {
        (Ok(Some(Incoming::Malformed { kind: found, error })), rest) => {
            assert_eq!((found, error.to_string().as_str()), (kind, expected));
            assert_eq!(rest, b"next");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_that_is_cut_short_is_malformed() {
    for (kind, body) in [
        (QUERY, b"".as_slice()),
        (QUERY, b"SELECT 1"),
        (b'P', b""),
        (b'P', b"\0SELECT 1\0"),
        (b'P', b"\0\0\xff\xff"),
        (b'B', b""),
        (b'B', b"\0\0\0\0\0\x01\0\0"),
        (b'B', b"\0\0\0\0\0\x01\0\0\0\x09ab"),
        (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
        (b'D', b""),
        (b'E', b"\0\0\0"),
        (b'f', b"no end"),
    ] {
        assert_malformed(kind, body, "invalid message format");
    }
}

#[test]
fn a_message_that_goes_on_after_its_end_is_malformed() {
    for (kind, body) in [
        (QUERY, b"SELECT 1\0Q\0\0\0\x05\0".as_slice()),
        (SYNC, b"Q\0\0\0\x05\0"),
        (b'E', b"\0\0\0\0\0\0"),
        (b'c', b"\0"),
    ] {
        assert_malformed(kind, body, "invalid message format");
    }
}

#[test]
fn what_is_not_text_is_not_replaced() {
    assert_malformed(
        QUERY,
        b"SELECT '\xff'\0",
        "invalid byte sequence for encoding \"UTF8\": 0xff",
    );
}

#[test]
fn only_statements_and_portals_are_described_and_closed() {
    assert_malformed(b'D', b"Xa\0", "invalid DESCRIBE message subtype 88");
    assert_malformed(b'C', b"Xa\0", "invalid CLOSE message subtype 88");
}

#[test]
fn without_a_kind_or_a_length_nothing_after_it_can_be_read() {
    for (bytes, expected) in [
        (b"Q\0\0\0\x03".as_slice(), "invalid message length"),
        (b"d\0\0\0\0", "invalid message length"),
        (b"Q\xff\xff\xff\xff", "invalid message length"),
        (b"Q\x40\0\0\0", "invalid message length"),
        (b"E\0\0\x27\x11", "invalid message length"),
        (b"\0\0\0\0\x08", "invalid frontend message type 0"),
        (b"p\0\0\0\x08abcd", "invalid frontend message type 112"),
    ] {
        match decode(bytes).0 {
            Err(ConnectionError::Broken(error)) => assert_eq!(error.to_string(), expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_message_is_waited_for_without_room_for_all_that_it_announces() {
    let mut buffer = BytesMut::from(b"d\x3f\xff\xff\xfe1\t2\n".as_slice());
    assert!(matches!(session().decode(&mut buffer), Ok(None)));
    assert!(buffer.capacity() < 1_000, "{}", buffer.capacity());
}

#[test]
fn a_startup_message_is_read_to_its_end_and_no_further() {
    let decode = |bytes: &[u8]| {
        let mut buffer = BytesMut::from(bytes);
        let decoded = Codec::Startup.decode(&mut buffer);
        (incoming_of(decoded), buffer.to_vec())
    };
    let whole = b"\0\0\0\x15\0\x03\0\x02user\0ada\0x\0\0\0pass";
    let (decoded, rest) = decode(whole);
    match decoded {
        Ok(Some(Incoming::Message(PgWireFrontendMessage::Startup(startup)))) => {
            assert_eq!(startup.protocol_number_minor, 2);
            let parameters: Vec<(&str, &str)> = startup
                .parameters
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            assert_eq!(parameters, [("user", "ada"), ("x", "")]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(rest, b"pass");
    for malformed in [
        b"\0\0\0\x11\0\x03\0\0user\0ada\0".as_slice(),
        b"\0\0\0\x0b\0\x03\0\0\0ab",
        b"\0\0\0\x06\0\x03",
        b"\0\0\0\x09\0\x02\0\0\0",
    ] {
        assert!(
            matches!(decode(malformed), (Ok(Some(Incoming::Malformed { .. })), rest) if rest.is_empty()),
            "{malformed:?}"
        );
    }
    for broken in [
        b"\0\0\0\x03".as_slice(),
        b"\0\0\x27\x11",
        b"GET / HTTP/1.1\r\n",
    ] {
        assert!(
            matches!(decode(broken).0, Err(ConnectionError::Broken(_))),
            "{broken:?}"
        );
    }
}

/// Feeds bytes in pieces, as a socket does; what comes of them, and the most memory that was held.
fn dribble(memory: &SessionMemory, bytes: &[u8], piece: usize) -> (Vec<Received>, usize) {
    let mut codec = Codec::session(memory);
    let (mut buffer, mut received, mut most) = (BytesMut::new(), Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        while let Some(one) = codec.decode(&mut buffer).unwrap() {
            received.push(one);
        }
        most = most.max(buffer.capacity());
        // What is read at once is small where there is a socket.
        let read = UNCOUNTED_BYTES.max(2 * piece.len());
        assert!(
            buffer.capacity() <= read.max(2 * memory.used()),
            "{} bytes are kept and {} are counted",
            buffer.capacity(),
            memory.used()
        );
    }
    (received, most)
}

#[test]
fn what_has_come_of_a_message_counts_until_the_message_is_dropped() {
    let memory = SessionMemory::with_limit(1 << 20);
    let message = framed(b'd', &vec![b'x'; 200_000]);
    let (received, _) = dribble(&memory, &message, 1000);
    assert!(matches!(
        received.as_slice(),
        [Received {
            incoming: Incoming::Message(PgWireFrontendMessage::CopyData(_)),
            held: Some(_),
            bytes: 200_005,
        }]
    ));
    assert_eq!(memory.used(), 200_005);
    drop(received);
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_message_without_room_is_passed_over_and_the_next_one_is_read() {
    let memory = SessionMemory::with_limit(1 << 20);
    let mut bytes = framed(QUERY, &vec![b'x'; 5 << 20]);
    bytes.extend(framed(SYNC, b""));
    for piece in [1000, 100_000, bytes.len()] {
        let (received, _) = dribble(&memory, &bytes, piece);
        match received.as_slice() {
            [refused, next] => {
                assert!(
                    matches!(
                        &refused.incoming,
                        Incoming::Malformed {
                            kind: QUERY,
                            error: Error::Coordinator(flowstone_coordinator::Error::Memory(_))
                        }
                    ),
                    "{refused:?}"
                );
                assert!(
                    matches!(
                        &next.incoming,
                        Incoming::Message(PgWireFrontendMessage::Sync(_))
                    ),
                    "{next:?}"
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(memory.used(), 0);
    }
}
