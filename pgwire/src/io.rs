//! Both directions of the socket of an open session.
//!
//! Owns what is read ahead while a statement runs, the sending of notices that come up meanwhile, and the writing of what is long in parts. Must not know
//! statements. Called by [`crate::connection`].
//!
//! Invariants. What is read ahead is bounded, in messages and in bytes; beyond that the client waits. Of something long that is written, no more than a part is copied.
//! A statement goes on while a client that does not read keeps a notice waiting.

use std::collections::VecDeque;

use bytes::Bytes;
use flowstone_coordinator::Notices;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};

use crate::connection::{ConnectionError, Socket, notice_message};
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
    /// What a running statement has to say.
    notices: Notices,
}

impl Io {
    pub(crate) fn new(mut socket: Socket, notices: Notices) -> Self {
        socket.set_backpressure_boundary(WRITE_BYTES);
        let (writer, reader) = socket.split();
        Self {
            reader,
            writer,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            notices,
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

    /// Runs `work` while watching the socket: what the client sends is kept for later, its going away is an error. Notices are sent as they come up.
    pub(crate) async fn watch<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, ConnectionError> {
        let Self {
            reader,
            writer,
            ahead,
            ahead_bytes,
            notices,
        } = self;
        tokio::pin!(work);
        let telling = send_notices(writer, notices);
        tokio::pin!(telling);
        loop {
            let has_room = ahead.len() < READ_AHEAD_MAX && *ahead_bytes < READ_AHEAD_BYTES_MAX;
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                error = &mut telling => return Err(error),
                received = reader.next(), if has_room => match received.transpose()? {
                    None | Some(Received { incoming: Incoming::Message(PgWireFrontendMessage::Terminate(_)), .. }) => return Err(ConnectionError::Gone),
                    Some(received) => {
                        *ahead_bytes += received.bytes;
                        ahead.push_back(received);
                    }
                },
            }
        }
    }

    /// Runs `work`, which a client cannot take back any more, to its end, whatever becomes of the socket. Notices are sent as they come up.
    pub(crate) async fn see_through<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let telling = send_notices(&mut self.writer, &self.notices);
        tokio::select! {
            biased;
            done = &mut work => done,
            // Who writes next meets the error again.
            _broken = telling => work.await,
        }
    }
}

/// Sends notices until that fails.
async fn send_notices(
    writer: &mut SplitSink<Socket, Outgoing>,
    notices: &Notices,
) -> ConnectionError {
    loop {
        let message = notice_message(&notices.next().await);
        if let Err(error) = writer.feed(Outgoing::Message(message)).await {
            return error;
        }
        if let Err(error) = writer.flush().await {
            return error;
        }
    }
}
