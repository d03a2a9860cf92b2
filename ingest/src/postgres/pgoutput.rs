//! The messages of the `pgoutput` plugin, protocol version 1.
//!
//! Owns their binary form. Must not know tables or what is done with changes. Called by the stream for every piece of WAL data.
//!
//! Invariants. Any bytes give a message that ends with them or an error, never a panic; values borrow from the bytes.

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed replication message: {0}")]
pub(crate) struct DecodeError(pub(crate) &'static str);

/// One column of a relation as it is now upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub(crate) key: bool,
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
}

/// A relation as it is now upstream; sent before its first change in a session and after it was altered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    /// `d`efault, `n`othing, `f`ull or `i`ndex.
    pub(crate) replica_identity: u8,
    pub(crate) columns: Vec<RelationColumn>,
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    Null,
    /// A TOASTed value that did not change and is not sent.
    Unchanged,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

/// One row: a cell for each column of the relation.
pub(crate) type Tuple<'a> = Vec<Cell<'a>>;

/// What is known of a row that was updated or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OldRow<'a> {
    /// The columns of the replica identity; the others are NULL.
    Key(Tuple<'a>),
    /// The whole row.
    Full(Tuple<'a>),
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A transaction starts; its commit record is at `commit_lsn`.
    Begin {
        commit_lsn: u64,
    },
    /// It ends; `end_lsn` is just after its commit record.
    Commit {
        commit_lsn: u64,
        end_lsn: u64,
    },
    Relation(Relation),
    Insert {
        oid: u32,
        new: Tuple<'a>,
    },
    Update {
        oid: u32,
        old: Option<OldRow<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        oid: u32,
        old: OldRow<'a>,
    },
    Truncate {
        oids: Vec<u32>,
    },
    /// Types, origins and logical messages, which mean nothing here.
    Other,
}

/// Decodes one message.
pub(crate) fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader(bytes);
    let message = match reader.byte()? {
        b'B' => {
            let commit_lsn = reader.u64()?;
            reader.skip(12)?;
            Message::Begin { commit_lsn }
        }
        b'C' => {
            reader.byte()?;
            let commit_lsn = reader.u64()?;
            let end_lsn = reader.u64()?;
            reader.skip(8)?;
            Message::Commit {
                commit_lsn,
                end_lsn,
            }
        }
        b'R' => Message::Relation(reader.relation()?),
        b'I' => {
            let oid = reader.u32()?;
            match reader.byte()? {
                b'N' => Message::Insert {
                    oid,
                    new: reader.tuple()?,
                },
                _ => return Err(DecodeError("insert without a new row")),
            }
        }
        b'U' => {
            let oid = reader.u32()?;
            let (old, kind) = match reader.byte()? {
                b'K' => (Some(OldRow::Key(reader.tuple()?)), reader.byte()?),
                b'O' => (Some(OldRow::Full(reader.tuple()?)), reader.byte()?),
                kind => (None, kind),
            };
            if kind != b'N' {
                return Err(DecodeError("update without a new row"));
            }
            Message::Update {
                oid,
                old,
                new: reader.tuple()?,
            }
        }
        b'D' => {
            let oid = reader.u32()?;
            let old = match reader.byte()? {
                b'K' => OldRow::Key(reader.tuple()?),
                b'O' => OldRow::Full(reader.tuple()?),
                _ => return Err(DecodeError("delete without an old row")),
            };
            Message::Delete { oid, old }
        }
        b'T' => {
            let count = reader.u32()?;
            reader.byte()?;
            Message::Truncate {
                oids: (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?,
            }
        }
        b'Y' | b'O' | b'M' => return Ok(Message::Other),
        _ => return Err(DecodeError("unknown kind")),
    };
    reader.end()?;
    Ok(message)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(DecodeError("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(DecodeError("it ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// There must be no more: what is not understood to its end is not understood.
    fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError("it goes on after its end"))
        }
    }

    fn skip(&mut self, count: usize) -> Result<(), DecodeError> {
        self.bytes(count).map(|_| ())
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<String, DecodeError> {
        let end = self
            .0
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(DecodeError("a name does not end"))?;
        let text = self.bytes(end)?;
        self.byte()?;
        String::from_utf8(text.to_vec()).map_err(|_| DecodeError("a name is not UTF-8"))
    }

    fn relation(&mut self) -> Result<Relation, DecodeError> {
        let oid = self.u32()?;
        // Schema and name: relations are told apart by OID.
        self.text()?;
        self.text()?;
        let replica_identity = self.byte()?;
        let count = self.u16()?;
        let columns = (0..count)
            .map(|_| {
                Ok(RelationColumn {
                    key: self.byte()? & 1 == 1,
                    name: self.text()?,
                    type_oid: self.u32()?,
                    type_modifier: self.array().map(i32::from_be_bytes)?,
                })
            })
            .collect::<Result<_, DecodeError>>()?;
        Ok(Relation {
            oid,
            replica_identity,
            columns,
        })
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, DecodeError> {
        let count = self.u16()?;
        (0..count)
            .map(|_| {
                let kind = self.byte()?;
                Ok(match kind {
                    b'n' => Cell::Null,
                    b'u' => Cell::Unchanged,
                    b't' | b'b' => {
                        let length = usize::try_from(self.u32()?)
                            .map_err(|_| DecodeError("a value is too long"))?;
                        let value = self.bytes(length)?;
                        if kind == b't' {
                            Cell::Text(value)
                        } else {
                            Cell::Binary(value)
                        }
                    }
                    _ => return Err(DecodeError("unknown kind of value")),
                })
            })
            .collect()
    }
}

/// What arrives inside CopyData while replicating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Envelope<'a> {
    /// A message of the plugin.
    Wal { message: &'a [u8] },
    /// Everything up to `end_lsn` was sent.
    Keepalive { end_lsn: u64, reply_requested: bool },
}

/// Takes a CopyData apart.
pub(crate) fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let mut reader = Reader(bytes);
    match reader.byte()? {
        b'w' => {
            reader.skip(24)?;
            Ok(Envelope::Wal { message: reader.0 })
        }
        b'k' => {
            let end_lsn = reader.u64()?;
            reader.skip(8)?;
            let reply_requested = reader.byte()? == 1;
            reader.end()?;
            Ok(Envelope::Keepalive {
                end_lsn,
                reply_requested,
            })
        }
        _ => Err(DecodeError("unknown kind of envelope")),
    }
}

/// A standby status update: everything up to `written` was received, everything up to `flushed` may be forgotten.
pub(crate) fn status_update(written: u64, flushed: u64, clock_us: i64, reply: Reply) -> Vec<u8> {
    let mut update = vec![b'r'];
    update.extend(written.to_be_bytes());
    update.extend(flushed.to_be_bytes());
    update.extend(flushed.to_be_bytes());
    update.extend(clock_us.to_be_bytes());
    update.push(u8::from(reply == Reply::Requested));
    update
}

/// Whether a status update asks the server for a keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Requested,
    NotNeeded,
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn relation_bytes() -> Vec<u8> {
        let mut bytes = vec![b'R'];
        bytes.extend(16_384_u32.to_be_bytes());
        bytes.extend(b"public\0items\0d");
        bytes.extend(2_u16.to_be_bytes());
        bytes.push(1);
        bytes.extend(b"id\0");
        bytes.extend(23_u32.to_be_bytes());
        bytes.extend((-1_i32).to_be_bytes());
        bytes.push(0);
        bytes.extend(b"name\0");
        bytes.extend(1043_u32.to_be_bytes());
        bytes.extend(14_i32.to_be_bytes());
        bytes
    }

    fn tuple_bytes(cells: &[Option<&str>]) -> Vec<u8> {
        let mut bytes = u16::try_from(cells.len()).unwrap().to_be_bytes().to_vec();
        for cell in cells {
            match cell {
                None => bytes.push(b'n'),
                Some("<unchanged>") => bytes.push(b'u'),
                Some(text) => {
                    bytes.push(b't');
                    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                    bytes.extend(text.as_bytes());
                }
            }
        }
        bytes
    }

    #[test]
    fn begin_and_commit_carry_the_commit_positions() {
        let mut begin = vec![b'B'];
        begin.extend(0x1_0000_0010_u64.to_be_bytes());
        begin.extend([0; 8]);
        begin.extend(7_u32.to_be_bytes());
        assert_eq!(
            decode(&begin),
            Ok(Message::Begin {
                commit_lsn: 0x1_0000_0010
            })
        );
        let mut commit = vec![b'C', 0];
        commit.extend(0x1_0000_0010_u64.to_be_bytes());
        commit.extend(0x1_0000_0040_u64.to_be_bytes());
        commit.extend([0; 8]);
        assert_eq!(
            decode(&commit),
            Ok(Message::Commit {
                commit_lsn: 0x1_0000_0010,
                end_lsn: 0x1_0000_0040
            })
        );
    }

    #[test]
    fn a_relation_lists_columns_types_and_key() {
        let expected = Relation {
            oid: 16_384,
            replica_identity: b'd',
            columns: vec![
                RelationColumn {
                    key: true,
                    name: "id".to_owned(),
                    type_oid: 23,
                    type_modifier: -1,
                },
                RelationColumn {
                    key: false,
                    name: "name".to_owned(),
                    type_oid: 1043,
                    type_modifier: 14,
                },
            ],
        };
        assert_eq!(decode(&relation_bytes()), Ok(Message::Relation(expected)));
    }

    #[test]
    fn an_update_may_carry_the_old_key_and_unchanged_values() {
        let mut bytes = vec![b'U', 0, 0, 64, 0, b'K'];
        bytes.extend(tuple_bytes(&[Some("1"), None]));
        bytes.push(b'N');
        bytes.extend(tuple_bytes(&[Some("2"), Some("<unchanged>")]));
        let expected = Message::Update {
            oid: 16_384,
            old: Some(OldRow::Key(vec![Cell::Text(b"1"), Cell::Null])),
            new: vec![Cell::Text(b"2"), Cell::Unchanged],
        };
        assert_eq!(decode(&bytes), Ok(expected));
    }

    #[test]
    fn a_delete_carries_the_key_or_the_whole_row() {
        for (kind, full) in [(b'K', false), (b'O', true)] {
            let mut bytes = vec![b'D', 0, 0, 64, 0, kind];
            bytes.extend(tuple_bytes(&[Some("1")]));
            let row = vec![Cell::Text(b"1".as_slice())];
            let old = if full {
                OldRow::Full(row)
            } else {
                OldRow::Key(row)
            };
            assert_eq!(decode(&bytes), Ok(Message::Delete { oid: 16_384, old }));
        }
    }

    #[test]
    fn a_truncate_names_its_relations() {
        let mut bytes = vec![b'T'];
        bytes.extend(2_u32.to_be_bytes());
        bytes.push(0);
        bytes.extend(5_u32.to_be_bytes());
        bytes.extend(6_u32.to_be_bytes());
        assert_eq!(decode(&bytes), Ok(Message::Truncate { oids: vec![5, 6] }));
    }

    #[test]
    fn a_message_that_goes_on_after_its_end_is_an_error() {
        let mut insert = vec![b'I', 0, 0, 64, 0, b'N'];
        insert.extend(tuple_bytes(&[Some("1")]));
        let mut keepalive = vec![b'k'];
        keepalive.extend([0; 17]);
        assert!(decode(&insert).is_ok() && envelope(&keepalive).is_ok());
        insert.push(0);
        keepalive.push(0);
        assert_eq!(
            decode(&insert),
            Err(DecodeError("it goes on after its end"))
        );
        assert_eq!(
            envelope(&keepalive),
            Err(DecodeError("it goes on after its end"))
        );
    }

    #[test]
    fn every_prefix_of_a_message_is_an_error() {
        let whole = relation_bytes();
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn envelopes_are_taken_apart() {
        let mut keepalive = vec![b'k'];
        keepalive.extend(77_u64.to_be_bytes());
        keepalive.extend([0; 8]);
        keepalive.push(1);
        assert_eq!(
            envelope(&keepalive),
            Ok(Envelope::Keepalive {
                end_lsn: 77,
                reply_requested: true
            })
        );
        let mut wal = vec![b'w'];
        wal.extend([0; 24]);
        wal.extend(b"Yxx");
        assert_eq!(envelope(&wal), Ok(Envelope::Wal { message: b"Yxx" }));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(kind in prop::sample::select(b"BCRIUDTYOMwk\0S".to_vec()), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut message = vec![kind];
            message.extend(bytes);
            let _ = decode(&message);
            let _ = envelope(&message);
        }

        #[test]
        fn damaged_messages_never_panic(position in 0_usize..64, byte in any::<u8>()) {
            let mut message = relation_bytes();
            if let Some(place) = message.get_mut(position) {
                *place = byte;
            }
            let _ = decode(&message);
        }
    }
}
