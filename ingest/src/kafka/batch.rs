//! Messages of one partition on their way from the reader to the decoders: bytes in one piece, so that a message costs no allocation.
//!
//! Must not know what the bytes mean. Called by the reader, which fills batches, and by the decoders.

use rdkafka::message::{BorrowedMessage, Headers, Message as _};

/// Messages of a batch. With at most two rows for each, a batch of changes is two segments.
pub(crate) const BATCH_MESSAGES: usize = 8192;
/// Bytes after which a batch is complete. One message may be larger.
pub(crate) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// A run of bytes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: usize,
    end: usize,
}

/// Where a message is in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) offset: i64,
    /// Milliseconds since 1970, if it says so.
    pub(crate) timestamp_ms: Option<i64>,
    key: Option<Span>,
    value: Option<Span>,
    /// Its headers, as a range of [`Batch::headers`].
    headers: (usize, usize),
}

#[derive(Clone, Copy, Debug)]
struct Header {
    name: Span,
    value: Option<Span>,
}

/// Who reads a batch, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// For all tables.
    Main,
    /// For tables that were added later, up to where the others were; which attempt at it.
    Early(u64),
}

/// Messages of one partition, in the order of their offsets.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) lane: Lane,
    pub(crate) partition: i32,
    bytes: Vec<u8>,
    pub(crate) messages: Vec<Message>,
    headers: Vec<Header>,
    /// After the messages: everything below this offset was read, though no message shows it.
    pub(crate) reached: Option<i64>,
    /// There is nothing more in this lane.
    pub(crate) finished: bool,
}

impl Batch {
    pub(crate) fn new(lane: Lane, partition: i32) -> Self {
        Self {
            lane,
            partition,
            bytes: Vec::new(),
            messages: Vec::new(),
            headers: Vec::new(),
            reached: None,
            finished: false,
        }
    }

    /// An empty one to go on with. It has no room before there is something for it: every partition has one, and most may stay idle for long.
    pub(crate) fn follower(&self, lane: Lane) -> Self {
        Self::new(lane, self.partition)
    }

    /// The end of a lane.
    pub(crate) fn end(lane: Lane) -> Self {
        Self {
            finished: true,
            ..Self::new(lane, 0)
        }
    }

    /// Whether there is nothing to be done with it.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.reached.is_none() && !self.finished
    }

    pub(crate) fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_MESSAGES || self.bytes.len() >= BATCH_BYTES
    }

    /// Bytes of all messages.
    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    /// Adds a message as it came.
    pub(crate) fn push(&mut self, message: &BorrowedMessage<'_>, with_headers: bool) {
        let first = self.headers.len();
        if with_headers && let Some(headers) = message.headers() {
            for header in headers.iter() {
                let name = self.span(header.key.as_bytes());
                let value = header.value.map(|value: &[u8]| self.span(value));
                self.headers.push(Header { name, value });
            }
        }
        let key = message.key().map(|key| self.span(key));
        let value = message.payload().map(|value| self.span(value));
        self.messages.push(Message {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key,
            value,
            headers: (first, self.headers.len()),
        });
    }

    fn span(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span {
            start,
            end: self.bytes.len(),
        }
    }

    fn of(&self, span: Span) -> &[u8] {
        self.bytes.get(span.start..span.end).unwrap_or_default()
    }

    /// The messages of a range.
    pub(crate) fn range(&self, first: usize, end: usize) -> &[Message] {
        self.messages.get(first..end).unwrap_or_default()
    }

    pub(crate) fn key(&self, message: &Message) -> Option<&[u8]> {
        message.key.map(|span| self.of(span))
    }

    pub(crate) fn value(&self, message: &Message) -> Option<&[u8]> {
        message.value.map(|span| self.of(span))
    }

    /// The headers of a message: names and values.
    pub(crate) fn headers(
        &self,
        message: &Message,
    ) -> impl DoubleEndedIterator<Item = (&[u8], Option<&[u8]>)> {
        let (first, end) = message.headers;
        let headers = self.headers.get(first..end).unwrap_or_default();
        headers
            .iter()
            .map(move |header| (self.of(header.name), header.value.map(|span| self.of(span))))
    }

    /// The messages below an offset, and all others with what comes after them; `None` if there are none below it.
    pub(crate) fn cut_before(&self, offset: i64) -> Option<(Self, Self)> {
        let place = self.before(offset);
        if place == 0 {
            return None;
        }
        let rest = Self {
            reached: self.reached,
            finished: self.finished,
            ..self.copy_of(self.messages.get(place..).unwrap_or_default())
        };
        Some((self.copy_of(self.range(0, place)), rest))
    }

    /// Some of the messages, alone.
    fn copy_of(&self, messages: &[Message]) -> Self {
        let mut copy = Self::new(self.lane, self.partition);
        for message in messages {
            let first = copy.headers.len();
            let (from, end) = message.headers;
            for header in self.headers.get(from..end).unwrap_or_default() {
                let name = copy.span(self.of(header.name));
                let value = header.value.map(|value| copy.span(self.of(value)));
                copy.headers.push(Header { name, value });
            }
            let key = message.key.map(|key| copy.span(self.of(key)));
            let value = message.value.map(|value| copy.span(self.of(value)));
            let headers = (first, copy.headers.len());
            copy.messages.push(Message {
                key,
                value,
                headers,
                ..*message
            });
        }
        copy
    }

    /// How many of the messages have a lower offset.
    pub(crate) fn before(&self, offset: i64) -> usize {
        self.messages
            .partition_point(|message| message.offset < offset)
    }

    /// The offset after the last message.
    pub(crate) fn next(&self) -> Option<i64> {
        self.messages.last().map(|last| last.offset + 1)
    }
}

#[cfg(test)]
impl Batch {
    /// Adds a message that no broker has.
    pub(crate) fn add(
        &mut self,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let first = self.headers.len();
        for (name, value) in headers {
            let name = self.span(name.as_bytes());
            let value = value.map(|value| self.span(value));
            self.headers.push(Header { name, value });
        }
        let key = key.map(|key| self.span(key));
        let value = value.map(|value| self.span(value));
        self.messages.push(Message {
            offset,
            timestamp_ms: Some(offset * 1000),
            key,
            value,
            headers: (first, self.headers.len()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_full_batch_takes_no_room_before_something_comes() {
        let mut full = Batch::new(Lane::Main, 7);
        let value = vec![b'x'; BATCH_BYTES];
        full.add(0, None, Some(value.as_slice()), &[("h", None)]);
        assert!(full.is_full());
        let follower = full.follower(Lane::Main);
        assert_eq!((follower.partition, follower.is_empty()), (7, true));
        assert_eq!(follower.bytes.capacity(), 0);
        assert_eq!(follower.messages.capacity(), 0);
        assert_eq!(follower.headers.capacity(), 0);
    }

    #[test]
    fn both_parts_of_a_batch_have_what_their_messages_had() {
        let mut whole = Batch::new(Lane::Main, 3);
        let headers = [("h", Some(&b"x"[..])), ("i", None)];
        whole.add(4, Some(&b"a"[..]), Some(&b"1"[..]), &headers);
        whole.add(6, None, Some(&b"2"[..]), &[]);
        whole.add(9, Some(&b"c"[..]), None, &[("j", Some(&b"y"[..]))]);
        whole.reached = Some(12);
        assert!(whole.cut_before(4).is_none());
        let (before, rest) = whole.cut_before(7).unwrap();
        assert_eq!(
            (before.next(), before.reached, before.size()),
            (Some(7), None, 6)
        );
        assert_eq!(
            (rest.next(), rest.reached, rest.size()),
            (Some(10), Some(12), 3)
        );
        let headers: Vec<_> = before.headers(&before.messages[0]).collect();
        assert_eq!(headers, [(&b"h"[..], Some(&b"x"[..])), (&b"i"[..], None)]);
        assert_eq!(before.value(&before.messages[1]), Some(&b"2"[..]));
        assert_eq!(rest.key(&rest.messages[0]), Some(&b"c"[..]));
        assert_eq!(rest.value(&rest.messages[0]), None);
        let headers: Vec<_> = rest.headers(&rest.messages[0]).collect();
        assert_eq!(headers, [(&b"j"[..], Some(&b"y"[..]))]);
    }
}
