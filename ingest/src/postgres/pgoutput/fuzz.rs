//! Fuzz target: whatever a server sends inside CopyData. The seeds are in `fuzz/pgoutput.txt`.

use std::path::Path;

use flowstone_fuzz::{Input, binaries, config, mutated};
use proptest::prelude::*;

use super::*;

fn seeds() -> Vec<Vec<u8>> {
    binaries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/pgoutput.txt"))
}

fn encode_tuple(tuple: &Tuple<'_>, out: &mut Vec<u8>) {
    out.extend(u16::try_from(tuple.len()).unwrap().to_be_bytes());
    for cell in tuple {
        let (kind, value) = match cell {
            Cell::Null => (b'n', None),
            Cell::Unchanged => (b'u', None),
            Cell::Text(value) => (b't', Some(value)),
            Cell::Binary(value) => (b'b', Some(value)),
        };
        out.push(kind);
        if let Some(value) = value {
            out.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            out.extend(*value);
        }
    }
}

fn encode_old(old: &OldRow<'_>, out: &mut Vec<u8>) {
    let (kind, tuple) = match old {
        OldRow::Key(tuple) => (b'K', tuple),
        OldRow::Full(tuple) => (b'O', tuple),
    };
    out.push(kind);
    encode_tuple(tuple, out);
}

/// The message as a server would send it; `None` for what is not told apart. What is not kept of a message is taken from `bytes`.
fn encode(message: &Message<'_>, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match message {
        Message::Begin { commit_lsn } => {
            out.push(b'B');
            out.extend(commit_lsn.to_be_bytes());
            out.extend(&bytes[9..21]);
        }
        Message::Commit {
            commit_lsn,
            end_lsn,
        } => {
            out.extend([b'C', bytes[1]]);
            out.extend(commit_lsn.to_be_bytes());
            out.extend(end_lsn.to_be_bytes());
            out.extend(&bytes[18..26]);
        }
        Message::Relation(relation) => {
            out.push(b'R');
            out.extend(relation.oid.to_be_bytes());
            let names = bytes[5..].split_inclusive(|byte| *byte == 0).take(2);
            names.for_each(|name| out.extend(name));
            out.push(relation.replica_identity);
            out.extend(u16::try_from(relation.columns.len()).unwrap().to_be_bytes());
            for column in &relation.columns {
                // Of the flags only the first has a meaning.
                out.push(bytes[out.len()] & !1 | u8::from(column.key));
                out.extend(column.name.as_bytes());
                out.push(0);
                out.extend(column.type_oid.to_be_bytes());
                out.extend(column.type_modifier.to_be_bytes());
            }
        }
        Message::Insert { oid, new } => {
            out.push(b'I');
            out.extend(oid.to_be_bytes());
            out.push(b'N');
            encode_tuple(new, &mut out);
        }
        Message::Update { oid, old, new } => {
            out.push(b'U');
            out.extend(oid.to_be_bytes());
            if let Some(old) = old {
                encode_old(old, &mut out);
            }
            out.push(b'N');
            encode_tuple(new, &mut out);
        }
        Message::Delete { oid, old } => {
            out.push(b'D');
            out.extend(oid.to_be_bytes());
            encode_old(old, &mut out);
        }
        Message::Truncate { oids } => {
            out.push(b'T');
            out.extend(u32::try_from(oids.len()).unwrap().to_be_bytes());
            out.push(bytes[5]);
            oids.iter().for_each(|oid| out.extend(oid.to_be_bytes()));
        }
        Message::Other => return None,
    }
    Some(out)
}

/// Values that a message has room for.
fn room(message: &Message<'_>) -> usize {
    let old_room = |old: &OldRow<'_>| match old {
        OldRow::Key(tuple) | OldRow::Full(tuple) => tuple.capacity(),
    };
    match message {
        Message::Relation(relation) => relation.columns.capacity(),
        Message::Insert { new, .. } => new.capacity(),
        Message::Update { old, new, .. } => old.as_ref().map_or(0, old_room) + new.capacity(),
        Message::Delete { old, .. } => old_room(old),
        Message::Truncate { oids } => oids.capacity(),
        Message::Begin { .. } | Message::Commit { .. } | Message::Other => 0,
    }
}

/// A message is read to its last byte, with memory for no more than it holds, or refused.
fn check_message(bytes: &[u8]) {
    let Ok(message) = decode(bytes) else { return };
    assert!(room(&message) <= 2 * bytes.len() + 8, "{}", room(&message));
    if let Some(encoded) = encode(&message, bytes) {
        assert_eq!(encoded, bytes, "{message:?}");
    }
}

#[test]
fn most_seeds_are_messages() {
    let seeds = seeds();
    let messages = seeds.iter().filter(|seed| decode(seed).is_ok()).count();
    let envelopes = seeds.iter().filter(|seed| envelope(seed).is_ok()).count();
    assert_eq!((messages, envelopes, seeds.len()), (21, 3, 32));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_a_server_sends_is_read_to_its_end_or_refused(Input(bytes) in mutated(seeds())) {
        check_message(&bytes);
        match envelope(&bytes) {
            Ok(Envelope::Wal { message }) => {
                prop_assert_eq!(message, &bytes[25..]);
                check_message(message);
            }
            Ok(Envelope::Keepalive { end_lsn, reply_requested }) => {
                prop_assert_eq!(bytes.len(), 18);
                prop_assert_eq!(end_lsn.to_be_bytes().to_vec(), bytes[1..9].to_vec());
                prop_assert_eq!(reply_requested, bytes[17] == 1);
            }
            Err(_) => {}
        }
    }
}
