//! Both directions of the socket of an open session.
//!
//! Owns what is read ahead while a statement runs, and the writing of what is long in parts. Must not know statements. Called by [`crate::connection`].
//!
//! Invariants. What is read ahead is bounded, in messages and in bytes; beyond that the client waits. Of something long that is written, no more than a part is copied.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};

use crate::connection::{ConnectionError, Socket};
use crate::frontend::{Incoming, Outgoing, Received};

/// Messages read ahead while a statement runs (a pipelining client sends many). Beyond that the client waits.
const READ_AHEAD_MAX: usize = 4096;
/// Bytes of those.
const READ_AHEAD_BYTES_MAX: usize = 1 << 20;
/// Encoded bytes that are written to the socket at once. With the codec's 8 KiB, a result is a conversation of a hundred rows at a time: on a busy machine
/// each turn of it waits for both sides to be scheduled.
const WRITE_BYTES: usize = 64 << 10;

/// Both directions of the socket.
pub(crate) struct Io {
    reader: SplitStream<Socket>,
    writer: SplitSink<Socket, Outgoing>,
    ahead: VecDeque<Received>,
    /// Bytes of what was read ahead.
    ahead_bytes: usize,
}

impl Io {
    pub(crate) fn new(mut socket: Socket) -> Self {
        socket.set_backpressure_boundary(WRITE_BYTES);
        let (writer, reader) = socket.split();
        Self {
            reader,
            writer,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Received>, ConnectionError> {
        match self.ahead.pop_front() {
            Some(received) => {
                self.ahead_bytes -= received.bytes;
                Ok(Some(received))
            }
            None => self.reader.next().await.transpose(),
        }
    }

    pub(crate) async fn feed(
        &mut self,
        message: PgWireBackendMessage,
    ) -> Result<(), ConnectionError> {
        self.writer.feed(Outgoing::Message(message)).await
    }

    /// Writes a message that comes in parts.
    pub(crate) async fn feed_pieces(&mut self, pieces: Vec<Bytes>) -> Result<(), ConnectionError> {
        for mut piece in pieces {
            while !piece.is_empty() {
                let part = piece.split_to(piece.len().min(WRITE_BYTES));
                self.writer.feed(Outgoing::Piece(part)).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn flush(&mut self) -> Result<(), ConnectionError> {
        self.writer.flush().await
    }

    /// Runs `work` while watching the socket: what the client sends is kept for later, its going away is an error.
    pub(crate) async fn watch<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, ConnectionError> {
        tokio::pin!(work);
        loop {
            if self.ahead.len() >= READ_AHEAD_MAX || self.ahead_bytes >= READ_AHEAD_BYTES_MAX {
                return Ok(work.await);
            }
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                received = self.reader.next() => match received.transpose()? {
                    None | Some(Received { incoming: Incoming::Message(PgWireFrontendMessage::Terminate(_)), .. }) => return Err(ConnectionError::Gone),
                    Some(received) => {
                        self.ahead_bytes += received.bytes;
                        self.ahead.push_back(received);
                    }
                },
            }
        }
    }
}
