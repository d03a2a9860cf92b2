//! COPY on a connection: data that comes from the client and data that goes to it.
//!
//! Owns the pace: how much of what a client sends is kept before it is handed on, and on which threads it is read. The formats are [`crate::copy`]'s.
//!
//! Invariants. What is kept of a COPY counts as held by the session. A message, or a row, that may take longer than about a millisecond is read where blocking is allowed.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use flowstone_coordinator::{CopyIn, RowStream, size_of_batch};
use futures::{FutureExt, StreamExt};
use pgwire::messages::copy::{CopyData, CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};

use crate::Error;
use crate::connection::{Connection, ConnectionError, Failure, long_work};
use crate::copy::{CopyDecoder, CopyEncoder};
use crate::frontend::{Incoming, Received};

/// Rows are handed on as soon as they take this much: each time costs a round trip to the worker.
const STAGED_BYTES: usize = 8 << 20;
/// Bytes that are read at once, the row that they end included. More may take longer than a thread that serves others has.
const READ_AT_ONCE_BYTES: usize = 64 << 10;
/// A longer row is written in parts.
const LONG_ROW_BYTES: usize = 64 << 10;
/// The kind of the message of a row.
const COPY_DATA: u8 = b'd';

impl Connection {
    pub(crate) async fn copy_in(&mut self, mut copy: CopyIn) -> Result<(), Failure> {
        let mut decoder = CopyDecoder::new(&copy.schema, &copy.options, self.session.time_zone())?;
        let (format, columns) = (i8::from(decoder.is_binary()), copy.schema.fields().len());
        let response =
            CopyInResponse::new(format, count(columns), vec![i16::from(format); columns]);
        self.io
            .feed(PgWireBackendMessage::CopyInResponse(response))
            .await?;
        self.io.flush().await?;
        let mut held = self.session.memory().nothing();
        let mut waiting = Vec::new();
        let mut waiting_bytes = 0;
        // Bytes read on this thread since others had their turn.
        let mut read = 0;
        loop {
            // A long message counts until its data is read.
            let Some(Received {
                incoming,
                held: _message,
                ..
            }) = self.io.next().await?
            else {
                return Err(ConnectionError::Gone.into());
            };
            let data = match incoming {
                Incoming::Malformed { error, .. } => return Err(error.into()),
                Incoming::Message(PgWireFrontendMessage::CopyData(data)) => data.data,
                Incoming::Message(PgWireFrontendMessage::CopyDone(_)) => break,
                Incoming::Message(PgWireFrontendMessage::CopyFail(fail)) => {
                    return Err(Error::CopyAbandoned(fail.message).into());
                }
                // Drivers pipeline these behind the statement that starts the copy.
                Incoming::Message(
                    PgWireFrontendMessage::Flush(_) | PgWireFrontendMessage::Sync(_),
                ) => continue,
                Incoming::Message(_) => {
                    return Err(Failure::from(Error::Protocol(
                        "unexpected message type during COPY from stdin".to_owned(),
                    )));
                }
            };
            read += data.len();
            let batches;
            (decoder, batches) = decoded(decoder, data).await?;
            if read > READ_AT_ONCE_BYTES {
                read = 0;
                tokio::task::yield_now().await;
            }
            waiting_bytes += batches.iter().map(size_of_batch).sum::<usize>();
            waiting.extend(batches);
            held.resize(decoder.held() + waiting_bytes)
                .map_err(flowstone_coordinator::Error::from)?;
            if waiting_bytes >= STAGED_BYTES {
                waiting_bytes = 0;
                let rows = std::mem::take(&mut waiting);
                self.io
                    .watch(self.session.copy_rows(&mut copy, rows))
                    .await??;
            }
        }
        waiting.extend(finished(decoder).await?);
        if !waiting.is_empty() {
            self.io
                .watch(self.session.copy_rows(&mut copy, waiting))
                .await??;
        }
        drop(held);
        let tag = self.io.watch(self.session.copy_end(copy)).await??;
        self.complete(&tag).await
    }

    pub(crate) async fn copy_out(
        &mut self,
        schema: &SchemaRef,
        encoder: CopyEncoder,
        mut rows: RowStream,
    ) -> Result<(), Failure> {
        let (format, columns) = (i8::from(encoder.is_binary()), schema.fields().len());
        let response =
            CopyOutResponse::new(format, count(columns), vec![i16::from(format); columns]);
        self.io
            .feed(PgWireBackendMessage::CopyOutResponse(response))
            .await?;
        if let Some(header) = encoder.header() {
            self.io
                .feed(PgWireBackendMessage::CopyData(CopyData::new(header)))
                .await?;
        }
        let mut sent = 0_u64;
        let mut held = self.session.memory().nothing();
        loop {
            let next = match rows.next().now_or_never() {
                Some(next) => next,
                None => {
                    self.io.flush().await?;
                    self.io.watch(rows.next()).await?
                }
            };
            let Some(batch) = next.transpose()? else {
                break;
            };
            let batch_bytes = size_of_batch(&batch);
            held.resize(batch_bytes)
                .map_err(flowstone_coordinator::Error::from)?;
            let lines = encoder.rows(&batch)?;
            for row in 0..batch.num_rows() {
                let bytes = lines.size_hint(row);
                if bytes > LONG_ROW_BYTES {
                    held.resize(batch_bytes.saturating_add(bytes))
                        .map_err(flowstone_coordinator::Error::from)?;
                    let line = long_work(|| lines.encode(row))?;
                    let pieces = crate::encode::message(COPY_DATA, vec![line])?;
                    self.io.feed_pieces(pieces).await?;
                    held.resize(batch_bytes)
                        .map_err(flowstone_coordinator::Error::from)?;
                } else {
                    let line = CopyData::new(lines.encode(row)?);
                    self.io.feed(PgWireBackendMessage::CopyData(line)).await?;
                }
                sent += 1;
            }
        }
        if let Some(trailer) = encoder.trailer() {
            self.io
                .feed(PgWireBackendMessage::CopyData(CopyData::new(trailer)))
                .await?;
        }
        self.io
            .feed(PgWireBackendMessage::CopyDone(CopyDone::new()))
            .await?;
        self.complete(&format!("COPY {sent}")).await
    }
}

/// Reads data on this thread if that takes no time, else where blocking is allowed.
async fn decoded(
    mut decoder: CopyDecoder,
    data: Bytes,
) -> Result<(CopyDecoder, Vec<RecordBatch>), Error> {
    if decoder.row_bytes() + data.len() <= READ_AT_ONCE_BYTES {
        let batches = decoder.decode(&data)?;
        return Ok((decoder, batches));
    }
    let work = move || {
        let batches = decoder.decode(&data)?;
        Ok((decoder, batches))
    };
    elsewhere(work).await
}

/// The rows that are left.
async fn finished(mut decoder: CopyDecoder) -> Result<Option<RecordBatch>, Error> {
    if decoder.row_bytes() <= READ_AT_ONCE_BYTES {
        return decoder.finish();
    }
    elsewhere(move || decoder.finish()).await
}

async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            let message = format!("reading COPY data failed: {error}");
            Err(flowstone_coordinator::Error::Internal(message).into())
        }
    }
}

fn count(columns: usize) -> i16 {
    i16::try_from(columns).unwrap_or(i16::MAX)
}
