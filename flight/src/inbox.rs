//! The messages of a call, as they come: counted as held by the caller's session until the next one begins.
//!
//! Owns where gRPC's messages begin and end in a body. Must not know what is in them. Called by [`crate::auth`], in front of the decoder, which keeps what has come of a
//! message until it is complete.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flowstone_coordinator::Held;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::Error;

/// In front of each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A body whose messages are counted.
#[derive(Debug)]
pub(crate) struct Counted {
    body: Body,
    held: Held,
    boundaries: Boundaries,
}

impl Counted {
    pub(crate) const fn new(body: Body, held: Held) -> Self {
        Self {
            body,
            held,
            boundaries: Boundaries {
                prefix: Vec::new(),
                left: 0,
                come: 0,
            },
        }
    }

    fn count(&mut self, data: &Bytes) -> Result<(), Status> {
        self.boundaries.pass(data);
        self.held
            .resize(self.boundaries.come)
            .map_err(|error| Status::from(Error::from(flowstone_coordinator::Error::from(error))))
    }
}

/// Where in a stream of messages its end is.
#[derive(Debug)]
struct Boundaries {
    /// What has come of a prefix.
    prefix: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: usize,
    /// Bytes of the message that have come.
    come: usize,
}

impl Boundaries {
    fn pass(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.left == 0 {
                let (taken, rest) = data.split_at(data.len().min(PREFIX_BYTES - self.prefix.len()));
                self.prefix.extend_from_slice(taken);
                data = rest;
                if let [_, length @ ..] = self.prefix.as_slice()
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                    self.come = 0;
                    self.prefix.clear();
                }
                continue;
            }
            let taken = data.len().min(self.left);
            self.left -= taken;
            self.come += taken;
            data = data.get(taken..).unwrap_or_default();
        }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && let Err(status) = self.count(data)
        {
            return Poll::Ready(Some(Err(status)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_where_their_prefix_says_however_they_are_cut() {
        let mut stream = Vec::new();
        for length in [3_u32, 0, 300] {
            stream.push(0);
            stream.extend(length.to_be_bytes());
            stream.extend(vec![b'x'; usize::try_from(length).unwrap()]);
        }
        for piece in [1, 2, 4, 7, stream.len()] {
            let mut boundaries = Boundaries {
                prefix: Vec::new(),
                left: 0,
                come: 0,
            };
            for piece in stream.chunks(piece) {
                boundaries.pass(piece);
            }
            assert_eq!(
                (boundaries.come, boundaries.left, boundaries.prefix.len()),
                (300, 0, 0),
                "in pieces of {piece}"
            );
        }
    }
}
