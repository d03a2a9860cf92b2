//! What RETURNING gives: rows that a write's evaluation sends beside its answer.
//!
//! Owns the consumer's end of these rows, and that they count as held by the session until its client has them. Must not know how a write is planned or committed.
//! Called by [`super::write`].
//!
//! Invariant. The rows are whole before the write is given an epoch: a write that happens has all of its rows for its client.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use flowstone_proto::message::{RequestId, ResultMessage};
use tokio::sync::mpsc;

use super::stream::relabel;
use crate::error::Error;
use crate::memory::{Held, size_of_batch};
use crate::outcome::{Outcome, RowStream};
use crate::worker::Worker;

/// Rows of a write, all of them.
#[derive(Debug)]
pub(super) struct Returned {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    held: Held,
}

impl Returned {
    /// How many.
    pub(super) fn count(&self) -> u64 {
        let rows: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
        u64::try_from(rows).unwrap_or(u64::MAX)
    }

    /// What the statement gives back. `verb`: the words of its command tag before the number of rows.
    pub(super) fn outcome(self, verb: &'static str) -> Outcome {
        Outcome::Rows {
            verb,
            schema: self.schema,
            rows: RowStream::of_held(self.batches, self.held),
        }
    }
}

/// A stream that nobody has begun to send to is forgotten with it.
#[derive(Debug)]
struct Open {
    worker: Arc<Worker>,
    write: RequestId,
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.worker.results.take(self.write));
    }
}

/// The end of a stream that rows of a write come through.
#[derive(Debug)]
pub(super) struct Returning {
    messages: mpsc::Receiver<ResultMessage>,
    returned: Returned,
    _open: Open,
}

impl Returning {
    /// Opens the stream of a write, whose rows have the columns of `schema`; send the command afterwards. `held`: what the rows count as while they come.
    pub(super) fn open(
        worker: &Arc<Worker>,
        write: RequestId,
        schema: SchemaRef,
        held: Held,
    ) -> Self {
        let returned = Returned {
            schema,
            batches: Vec::new(),
            held,
        };
        Self {
            messages: worker.results.open(write),
            returned,
            _open: Open {
                worker: Arc::clone(worker),
                write,
            },
        }
    }

    /// Takes rows until there are no more. Whether the write was evaluated only its answer says.
    ///
    /// # Errors
    /// The session may not hold that much.
    pub(super) async fn collect(mut self) -> Result<Returned, Error> {
        let Returned {
            schema,
            batches,
            held,
        } = &mut self.returned;
        while let Some(message) = self.messages.recv().await {
            if let ResultMessage::Rows(batch) = message {
                held.resize(held.bytes().saturating_add(size_of_batch(&batch)))?;
                batches.push(relabel(schema, &batch)?);
            }
        }
        Ok(self.returned)
    }
}
