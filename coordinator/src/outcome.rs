//! What a statement gives back: rows that stream, a command tag, or a `COPY` to be continued.
//!
//! Owns the stream of rows from the worker to a client protocol. Must not know how rows are written on a wire. Made by `session`, consumed by `pgwire`.
//!
//! Invariants. Rows are never collected here: one batch is in flight at a time. Dropping a stream ends its request in the worker and releases its read hold.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use flowstone_sql::ast::CopyFormat;
use flowstone_types::SqlType;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use parking_lot::Mutex;

use crate::error::Error;
use crate::memory::{Held, size_of_batch};
use crate::staged::StagedWrite;

/// What a statement gave back.
#[derive(Debug)]
pub enum Outcome {
    /// Rows. `verb` is what the command tag says before their number: `SELECT`, `FETCH`, `SHOW`, `EXPLAIN`, `SUBSCRIBE`; of a write with RETURNING
    /// `INSERT 0`, `UPDATE`, `DELETE`.
    Rows {
        /// The words of the tag.
        verb: &'static str,
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        rows: RowStream,
    },
    /// Done.
    Command {
        /// The whole tag: `INSERT 0 1`, `CREATE TABLE`.
        tag: String,
    },
    /// The client sends rows now; give them to [`crate::Session::copy_rows`], and end it with [`crate::Session::copy_end`].
    CopyIn(CopyIn),
    /// Rows for the client, in `COPY`'s formats.
    CopyOut {
        /// The columns.
        schema: SchemaRef,
        /// How they are written.
        options: CopyOptions,
        /// The rows.
        rows: RowStream,
    },
    /// The statement was empty.
    Empty,
}

impl Outcome {
    /// Whether it has the rows of a write, which are all there.
    #[must_use]
    pub const fn is_returned(verb: &str) -> bool {
        matches!(verb.as_bytes(), b"INSERT 0" | b"UPDATE" | b"DELETE")
    }
}

/// A stream of batches of one schema. Endless for a subscription.
///
/// The mutex is never locked: it makes a session that holds cursors `Sync`, so that its futures can move between threads.
pub struct RowStream(Mutex<BoxStream<'static, Result<RecordBatch, Error>>>);

impl std::fmt::Debug for RowStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowStream")
    }
}

impl RowStream {
    pub(crate) fn new(
        stream: impl Stream<Item = Result<RecordBatch, Error>> + Send + 'static,
    ) -> Self {
        Self(Mutex::new(stream.boxed()))
    }

    /// A stream of these batches, which count as held until they were taken.
    pub(crate) fn of_held(batches: Vec<RecordBatch>, held: Held) -> Self {
        let rest = (batches.into_iter(), held);
        Self::new(stream::unfold(rest, |(mut batches, mut held)| async move {
            let batch = batches.next()?;
            let left = held.bytes().saturating_sub(size_of_batch(&batch));
            // It only shrinks: that cannot fail.
            let _ = held.resize(left);
            Some((Ok(batch), (batches, held)))
        }))
    }

    /// A stream of these batches.
    pub(crate) fn of(batches: Vec<RecordBatch>) -> Self {
        Self::new(stream::iter(batches.into_iter().map(Ok)))
    }
}

impl Stream for RowStream {
    type Item = Result<RecordBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.get_mut().as_mut().poll_next(context)
    }
}

/// How `COPY` writes or reads rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// Text, CSV or binary.
    pub format: CopyFormat,
    /// Between two fields.
    pub delimiter: char,
    /// What stands for NULL.
    pub null: String,
    /// Whether the first line names the columns.
    pub header: bool,
    /// Around a CSV field.
    pub quote: char,
    /// Before a quote inside a CSV field.
    pub escape: char,
}

/// A `COPY … FROM STDIN` that waits for its rows.
#[derive(Debug)]
pub struct CopyIn {
    /// The columns the client sends, in order.
    pub schema: SchemaRef,
    /// How they are written.
    pub options: CopyOptions,
    pub(crate) planned: flowstone_sql::plan::PlannedCopy,
    /// The values of the columns that the client does not send, once they are known.
    pub(crate) defaults: Option<Vec<(usize, ArrayRef)>>,
    /// The rows sent so far.
    pub(crate) staged: Vec<StagedWrite>,
}

/// What a statement takes and gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The types of its parameters.
    pub parameters: Vec<SqlType>,
    /// Its columns; `None` if it gives no rows.
    pub columns: Option<SchemaRef>,
}

/// Where a session stands between statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// In no transaction block.
    Idle,
    /// In a transaction block.
    InTransaction,
    /// In a transaction block that failed.
    Failed,
}
