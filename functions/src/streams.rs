//! Streams of batches that are worked on as they come.
//!
//! Owns how such a stream asks its input for batches, and how it ends. Must not know what is done with them. Called by `execution` and `pieces`.
//!
//! Invariants. A stream ends with its first error. Nothing is taken from the input while something is ready.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::Stream;

/// What is done with the batches of a stream.
pub(crate) trait Work: Send + Unpin + 'static {
    /// Takes the next batch of the input; nothing is ready then.
    fn accept(&mut self, batch: RecordBatch) -> Result<()>;

    /// The next batch that is ready.
    fn next(&mut self) -> Result<Option<RecordBatch>>;
}

/// The batches that `work` makes of those of `input`.
pub(crate) fn worked(
    input: SendableRecordBatchStream,
    schema: SchemaRef,
    work: impl Work,
) -> SendableRecordBatchStream {
    Box::pin(Worked {
        input,
        schema,
        work,
        ended: false,
    })
}

struct Worked<W> {
    input: SendableRecordBatchStream,
    schema: SchemaRef,
    work: W,
    ended: bool,
}

impl<W: Work> Worked<W> {
    /// The next batch, or `None` at the end.
    fn next_batch(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<RecordBatch>>> {
        loop {
            if let Some(batch) = self.work.next()? {
                return Poll::Ready(Ok(Some(batch)));
            }
            match ready!(self.input.as_mut().poll_next(context)) {
                Some(batch) => self.work.accept(batch?)?,
                None => return Poll::Ready(Ok(None)),
            }
        }
    }
}

impl<W: Work> Stream for Worked<W> {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.next_batch(context)).transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

impl<W: Work> RecordBatchStream for Worked<W> {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int32Array};
    use datafusion::common::exec_err;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::{StreamExt, stream};

    use super::*;

    /// Hands each batch on row by row; one of a single row is an error.
    #[derive(Default)]
    struct Rows(Vec<RecordBatch>);

    impl Work for Rows {
        fn accept(&mut self, batch: RecordBatch) -> Result<()> {
            if batch.num_rows() == 1 {
                return exec_err!("one row");
            }
            self.0
                .extend((0..batch.num_rows()).rev().map(|row| batch.slice(row, 1)));
            Ok(())
        }

        fn next(&mut self) -> Result<Option<RecordBatch>> {
            Ok(self.0.pop())
        }
    }

    fn batch(values: &[i32]) -> RecordBatch {
        let values: ArrayRef = Arc::new(Int32Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("x", values)]).unwrap()
    }

    #[test]
    fn a_stream_ends_with_its_first_error() {
        let batches = [batch(&[1, 2]), batch(&[]), batch(&[3]), batch(&[4, 5])];
        let schema = batch(&[]).schema();
        let input = RecordBatchStreamAdapter::new(
            Arc::clone(&schema),
            stream::iter(batches.into_iter().map(Ok)),
        );
        let worked = worked(Box::pin(input), schema, Rows::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let found: Vec<_> = runtime.unwrap().block_on(worked.collect());
        let rows: Vec<_> = found
            .into_iter()
            .map(|batch| batch.map(|batch| batch.num_rows()).ok())
            .collect();
        assert_eq!(rows, [Some(1), Some(1), None]);
    }
}
