//! The messages that clients send: where each ends, and what is in it.
//!
//! Owns their limits and their binary form. Must not know what is done with them. The messages themselves and those of the server are the `pgwire` crate's;
//! its decoder panics at bodies that are cut short, reads on into the next message and replaces what is not text. Called by [`crate::startup`] and
//! [`crate::connection`], through a `Framed`.
//!
//! Invariants. Any bytes are messages or errors, never a panic. A message is read to its end and no further: what follows it begins where its length says.
//! Nothing is allocated for what a message announces and does not hold. What has come of a long message counts as held by the session, and so does the message until it
//! is dropped; one for which there is no room is passed over, and the next one is read.

use bytes::{Buf, Bytes, BytesMut};
use flowstone_coordinator::{Held, SessionMemory};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::copy::{CopyData, CopyDone, CopyFail};
use pgwire::messages::extendedquery::{
    Bind, Close, Describe, Execute, Flush, Parse, Sync, TARGET_TYPE_BYTE_PORTAL,
    TARGET_TYPE_BYTE_STATEMENT,
};
use pgwire::messages::simplequery::Query;
use pgwire::messages::startup::{SecretKey, Startup};
use pgwire::messages::terminate::Terminate;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tokio_util::codec::{Decoder, Encoder};

use crate::Error;
use crate::connection::ConnectionError;
use crate::encode::text;

/// Longest message that opens a connection, in bytes: PostgreSQL's limit.
pub(crate) const STARTUP_BYTES_MAX: usize = 10_000;
/// Longest message without text or data of the user.
const SMALL_BYTES_MAX: usize = 10_000;
/// Longest other message: PostgreSQL's limit.
const LARGE_BYTES_MAX: usize = (1 << 30) - 2;
/// Shorter messages are not counted: there are never many of them.
const UNCOUNTED_BYTES: usize = 16 << 10;
/// A length counts its own bytes.
const LENGTH_BYTES: usize = 4;
/// Stands where a version would: this is a request to cancel.
const CANCEL_CODE: u32 = 80_877_102;
/// The one major version of the protocol.
const MAJOR_VERSION: u16 = 3;

/// The kind of a simple query.
pub(crate) const QUERY: u8 = b'Q';
/// The kind of the data of a COPY.
pub(crate) const COPY_DATA: u8 = b'd';
/// The kind of what ends a run of extended queries.
pub(crate) const SYNC: u8 = b'S';

/// What a client sent.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message.
    Message(PgWireFrontendMessage),
    /// A message of this kind with something in it that is no such message. The next one can be read.
    Malformed { kind: u8, error: Error },
}

/// What a client sent, and what it takes.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) incoming: Incoming,
    /// Bytes of the message.
    pub(crate) bytes: usize,
    /// Counts a long message as long as it is kept.
    pub(crate) held: Option<Held>,
}

/// Something to be sent.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A message.
    Message(PgWireBackendMessage),
    /// A part of a message that is written in parts.
    Piece(Bytes),
}

/// Reads the messages of a client and writes those of the server.
#[derive(Debug)]
pub(crate) enum Codec {
    /// The first message has no kind.
    Startup,
    /// All others.
    Session(Inbox),
}

impl Codec {
    /// For an open session, which holds what comes.
    pub(crate) fn session(memory: &SessionMemory) -> Self {
        Self::Session(Inbox {
            partial: memory.nothing(),
            memory: memory.clone(),
            skipped: None,
        })
    }
}

impl Decoder for Codec {
    type Item = Received;
    type Error = ConnectionError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Received>, ConnectionError> {
        match self {
            Self::Session(inbox) => inbox.decode(buffer),
            Self::Startup => {
                let Some(length) = announced(buffer, STARTUP_BYTES_MAX)? else {
                    return Ok(None);
                };
                if buffer.len() < length {
                    return Ok(None);
                }
                let mut body = buffer.split_to(length).freeze();
                body.advance(LENGTH_BYTES);
                Ok(Some(Received {
                    incoming: incoming(0, body, |_, reader| startup(reader)),
                    bytes: length,
                    held: None,
                }))
            }
        }
    }
}

/// The messages of an open session.
#[derive(Debug)]
pub(crate) struct Inbox {
    memory: SessionMemory,
    /// What has come of a message that is not complete.
    partial: Held,
    skipped: Option<Skipped>,
}

/// A message for which there is no room.
#[derive(Debug)]
struct Skipped {
    kind: u8,
    /// Bytes of it that are still to come.
    left: usize,
    error: Error,
}

impl Inbox {
    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Received>, ConnectionError> {
        if let Some(received) = self.skip(buffer) {
            return Ok(received);
        }
        let Some(&kind) = buffer.first() else {
            return Ok(None);
        };
        let longest = length_max(kind)?;
        let Some(length) = announced(buffer.get(1..).unwrap_or_default(), longest)? else {
            return Ok(None);
        };
        let bytes = 1 + length;
        if buffer.len() < bytes {
            if let Err(error) = self.partial.resize(counted(buffer.capacity())) {
                return Ok(self.refuse(kind, bytes, error.into(), buffer));
            }
            return Ok(None);
        }
        // It only shrinks: that cannot fail.
        let _ = self.partial.resize(0);
        let held = match counted(bytes) {
            0 => None,
            counted => match self.memory.hold(counted) {
                Ok(held) => Some(held),
                Err(error) => return Ok(self.refuse(kind, bytes, error.into(), buffer)),
            },
        };
        let mut body = buffer.split_to(bytes).freeze();
        body.advance(1 + LENGTH_BYTES);
        Ok(Some(Received {
            incoming: incoming(kind, body, message),
            bytes,
            held,
        }))
    }

    /// Begins to pass over a message.
    fn refuse(
        &mut self,
        kind: u8,
        bytes: usize,
        error: flowstone_coordinator::Error,
        buffer: &mut BytesMut,
    ) -> Option<Received> {
        // It only shrinks: that cannot fail.
        let _ = self.partial.resize(0);
        let error = error.into();
        self.skipped = Some(Skipped {
            kind,
            left: bytes,
            error,
        });
        let received = self.skip(buffer).flatten();
        if buffer.is_empty() {
            // What it took is given back.
            *buffer = BytesMut::new();
        }
        received
    }

    /// Passes over what has come of a message for which there is no room; `None` if there is none.
    fn skip(&mut self, buffer: &mut BytesMut) -> Option<Option<Received>> {
        let skipped = self.skipped.as_mut()?;
        let come = skipped.left.min(buffer.len());
        buffer.advance(come);
        skipped.left -= come;
        if skipped.left > 0 {
            return Some(None);
        }
        let Skipped { kind, error, .. } = self.skipped.take()?;
        Some(Some(Received {
            incoming: Incoming::Malformed { kind, error },
            bytes: 0,
            held: None,
        }))
    }
}

const fn counted(bytes: usize) -> usize {
    if bytes > UNCOUNTED_BYTES { bytes } else { 0 }
}

/// The length that stands at the start of `buffer`; `None` if it has not come.
fn announced(buffer: &[u8], longest: usize) -> Result<Option<usize>, ConnectionError> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if !(LENGTH_BYTES..=longest).contains(&length) {
        return Err(broken("invalid message length".to_owned()));
    }
    Ok(Some(length))
}

/// What the body of a message is.
fn incoming(
    kind: u8,
    body: Bytes,
    read: fn(u8, &mut Reader) -> Result<PgWireFrontendMessage, Error>,
) -> Incoming {
    let mut reader = Reader(body);
    let message = read(kind, &mut reader).and_then(|message| {
        reader.end()?;
        Ok(message)
    });
    match message {
        Ok(message) => Incoming::Message(message),
        Err(error) => Incoming::Malformed { kind, error },
    }
}

impl Encoder<PgWireBackendMessage> for Codec {
    type Error = ConnectionError;

    fn encode(
        &mut self,
        message: PgWireBackendMessage,
        buffer: &mut BytesMut,
    ) -> Result<(), ConnectionError> {
        Ok(message.encode(buffer)?)
    }
}

impl Encoder<Outgoing> for Codec {
    type Error = ConnectionError;

    fn encode(&mut self, outgoing: Outgoing, buffer: &mut BytesMut) -> Result<(), ConnectionError> {
        match outgoing {
            Outgoing::Message(message) => Ok(message.encode(buffer)?),
            Outgoing::Piece(bytes) => {
                buffer.extend_from_slice(&bytes);
                Ok(())
            }
        }
    }
}

/// Nobody can tell where the next message begins.
fn broken(message: String) -> ConnectionError {
    ConnectionError::Broken(Box::new(Error::Protocol(message)))
}

fn malformed() -> Error {
    Error::Protocol("invalid message format".to_owned())
}

/// The longest message of a kind.
fn length_max(kind: u8) -> Result<usize, ConnectionError> {
    match kind {
        QUERY | b'P' | b'B' | COPY_DATA => Ok(LARGE_BYTES_MAX),
        SYNC | b'C' | b'D' | b'E' | b'H' | b'X' | b'c' | b'f' => Ok(SMALL_BYTES_MAX),
        _ => Err(broken(format!("invalid frontend message type {kind}"))),
    }
}

/// The body of the message that opens a connection.
fn startup(body: &mut Reader) -> Result<PgWireFrontendMessage, Error> {
    let code = body.u32()?;
    if code == CANCEL_CODE {
        let process_id = body.i32()?;
        let secret = SecretKey::Bytes(body.rest());
        return Ok(PgWireFrontendMessage::CancelRequest(CancelRequest::new(
            process_id, secret,
        )));
    }
    let [major, minor] = [code >> 16, code & 0xffff].map(|half| u16::try_from(half).unwrap_or(0));
    if major != MAJOR_VERSION {
        return Err(Error::Protocol(format!(
            "unsupported frontend protocol {major}.{minor}: server supports {MAJOR_VERSION}.0"
        )));
    }
    let mut startup = Startup::new();
    startup.protocol_number_minor = minor;
    loop {
        let name = body.text()?;
        if name.is_empty() {
            return Ok(PgWireFrontendMessage::Startup(startup));
        }
        startup.parameters.insert(name, body.text()?);
    }
}

/// The body of a message in an open session.
fn message(kind: u8, body: &mut Reader) -> Result<PgWireFrontendMessage, Error> {
    use PgWireFrontendMessage as Message;
    Ok(match kind {
        QUERY => Message::Query(Query::new(body.text()?)),
        b'P' => Message::Parse(Parse::new(
            Some(body.text()?),
            body.text()?,
            body.list(Reader::u32)?,
        )),
        b'B' => Message::Bind(Bind::new(
            Some(body.text()?),
            Some(body.text()?),
            body.list(Reader::i16)?,
            body.list(Reader::value)?,
            body.list(Reader::i16)?,
        )),
        b'C' => Message::Close(Close::new(body.target("CLOSE")?, Some(body.text()?))),
        b'D' => Message::Describe(Describe::new(body.target("DESCRIBE")?, Some(body.text()?))),
        b'E' => Message::Execute(Execute::new(Some(body.text()?), body.i32()?)),
        b'H' => Message::Flush(Flush::new()),
        SYNC => Message::Sync(Sync::new()),
        b'X' => Message::Terminate(Terminate::new()),
        COPY_DATA => Message::CopyData(CopyData::new(body.rest())),
        b'c' => Message::CopyDone(CopyDone::new()),
        b'f' => Message::CopyFail(CopyFail::new(body.text()?)),
        _ => return Err(malformed()),
    })
}

/// What is left of the body of a message.
struct Reader(Bytes);

impl Reader {
    fn bytes(&mut self, count: usize) -> Result<Bytes, Error> {
        if count > self.0.len() {
            return Err(malformed());
        }
        Ok(self.0.split_to(count))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let found = self.0.first_chunk::<N>().copied().ok_or_else(malformed)?;
        self.0.advance(N);
        Ok(found)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, Error> {
        self.array().map(i32::from_be_bytes)
    }

    fn i16(&mut self) -> Result<i16, Error> {
        self.array().map(i16::from_be_bytes)
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    /// Characters up to a zero byte.
    fn text(&mut self) -> Result<String, Error> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let bytes = self.bytes(end.ok_or_else(malformed)?)?;
        self.0.advance(1);
        text(&bytes).map(str::to_owned)
    }

    /// A count, and so many items.
    fn list<T>(&mut self, item: fn(&mut Self) -> Result<T, Error>) -> Result<Vec<T>, Error> {
        let count = self.array().map(u16::from_be_bytes)?;
        // Grows as items are found: the count is the client's word.
        (0..count).map(|_| item(self)).collect()
    }

    /// A value behind its length; -1 stands for NULL.
    fn value(&mut self) -> Result<Option<Bytes>, Error> {
        match self.i32()? {
            -1 => Ok(None),
            length => self
                .bytes(usize::try_from(length).map_err(|_| malformed())?)
                .map(Some),
        }
    }

    /// Whether a statement or a portal is meant.
    fn target(&mut self, message: &str) -> Result<u8, Error> {
        match self.array()? {
            [target @ (TARGET_TYPE_BYTE_STATEMENT | TARGET_TYPE_BYTE_PORTAL)] => Ok(target),
            [other] => Err(Error::Protocol(format!(
                "invalid {message} message subtype {other}"
            ))),
        }
    }

    fn end(&self) -> Result<(), Error> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(malformed())
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
