//! Streams of rows from the worker to a client: peeks and subscriptions.
//!
//! Owns the end of a request: a stream that is dropped, cancelled or out of time cancels its request in the worker. Must not know how rows are written.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, RecordBatchOptions,
    new_null_array,
};
use arrow_schema::{Schema, SchemaRef};
use flowstone_proto::message::{Command, RequestError, RequestId, ResultMessage};
use flowstone_types::{DeltaBatch, Epoch, ObjectId, SqlType};
use tokio::sync::mpsc;

use super::waits;
use crate::error::Error;
use crate::holds::Hold;
use crate::limits::Limits;
use crate::outcome::RowStream;
use crate::parts::Parts;

/// The consumer's end of one request in the worker.
pub(crate) struct Request {
    parts: Arc<Parts>,
    id: RequestId,
    messages: mpsc::Receiver<ResultMessage>,
    /// Keeps the epoch that is read, until the first rows are there.
    hold: Option<Hold>,
    /// What it reads, as far as it may have to wait for that.
    reads: Arc<[ObjectId]>,
    /// Whether something has come.
    begun: bool,
    finished: bool,
}

impl Drop for Request {
    fn drop(&mut self) {
        // If the command does not fit, the worker still notices that nobody listens.
        if !self.finished
            && self
                .parts
                .worker
                .commands
                .try_send(Command::Cancel { request: self.id })
                .is_err()
        {
            tracing::debug!("a request could not be cancelled: the worker is not listening");
        }
        drop(self.parts.worker.results.take(self.id));
        self.parts.subscriptions.remove(self.id);
    }
}

impl Request {
    /// Opens the stream of `id`; send the command afterwards.
    pub(crate) fn open(parts: &Arc<Parts>, id: RequestId, hold: Option<Hold>) -> Self {
        Self {
            parts: Arc::clone(parts),
            id,
            messages: parts.worker.results.open(id),
            hold,
            reads: Arc::default(),
            begun: false,
            finished: false,
        }
    }

    /// Says what it reads: until something comes, the client is told what of it is waited for.
    pub(crate) fn reading(mut self, reads: Vec<ObjectId>) -> Self {
        self.reads = reads.into();
        self
    }

    /// The next message within `limits`; `None` at the end.
    async fn next_within(&mut self, limits: &Limits) -> Result<Option<ResultMessage>, Error> {
        if self.begun {
            return limits.run(self.next()).await;
        }
        let (parts, reads) = (Arc::clone(&self.parts), Arc::clone(&self.reads));
        let what = || waits::for_reads(&parts.catalog, &parts.timeline, &parts.reported, &reads);
        limits.run_telling(what, self.next()).await
    }

    /// The next message; `None` at the end.
    async fn next(&mut self) -> Result<Option<ResultMessage>, Error> {
        if self.finished {
            return Ok(None);
        }
        let message = self.messages.recv().await;
        self.begun = true;
        match message {
            Some(ResultMessage::Done) => {
                self.finished = true;
                Ok(None)
            }
            Some(ResultMessage::Failed(error)) => {
                self.finished = true;
                Err(error.into())
            }
            Some(message) => {
                if !matches!(message, ResultMessage::ReadEpoch(_)) {
                    self.hold = None;
                }
                Ok(Some(message))
            }
            None => {
                self.finished = true;
                Err(self.parts.liveness.gone())
            }
        }
    }

    /// All rows of a small peek.
    pub(crate) async fn collect(mut self) -> Result<Vec<RecordBatch>, Error> {
        let mut batches = Vec::new();
        while let Some(message) = self.next().await? {
            if let ResultMessage::Rows(batch) = message {
                batches.push(batch);
            }
        }
        Ok(batches)
    }

    /// Reads all rows and keeps none; fails once they take more than `bytes_max`.
    pub(crate) async fn weigh(mut self, bytes_max: usize) -> Result<(), Error> {
        let mut bytes = 0_usize;
        while let Some(message) = self.next().await? {
            if let ResultMessage::Rows(batch) = message {
                for column in batch.columns() {
                    let size = column.to_data().get_slice_memory_size();
                    bytes = bytes.saturating_add(size.unwrap_or(0));
                }
            }
            if bytes > bytes_max {
                let detail = format!("A view that reads nothing may hold {bytes_max} bytes.");
                return Err(RequestError::OutOfMemory { detail }.into());
            }
        }
        Ok(())
    }

    /// The rows of a peek, with the names and types of `schema`.
    pub(crate) fn into_rows(self, schema: SchemaRef, limits: Limits) -> RowStream {
        let start = (self, schema, limits, false);
        RowStream::new(futures::stream::unfold(
            start,
            |(mut request, schema, limits, ended)| async move {
                if ended {
                    return None;
                }
                loop {
                    let message = request.next_within(&limits).await;
                    let item = match message {
                        Ok(None) => return None,
                        Ok(Some(ResultMessage::Rows(batch))) => relabel(&schema, &batch),
                        Ok(Some(_)) => continue,
                        Err(error) => Err(error),
                    };
                    let ended = item.is_err();
                    return Some((item, (request, schema, limits, ended)));
                }
            },
        ))
    }

    /// The rows of a subscription: `mz_timestamp`, `mz_progressed` if asked for, `mz_diff`, then the columns.
    pub(crate) fn into_updates(self, shape: SubscribeShape, limits: Limits) -> RowStream {
        let start = Updates {
            request: self,
            shape,
            limits,
            ready: VecDeque::new(),
            ended: false,
        };
        RowStream::new(futures::stream::unfold(start, |mut updates| async move {
            let item = updates.next().await?;
            updates.ended |= item.is_err();
            Some((item, updates))
        }))
    }
}

struct Updates {
    request: Request,
    shape: SubscribeShape,
    limits: Limits,
    ready: VecDeque<RecordBatch>,
    ended: bool,
}

impl Updates {
    async fn next(&mut self) -> Option<Result<RecordBatch, Error>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Some(Ok(batch));
            }
            if self.ended {
                return None;
            }
            let made = match self.request.next_within(&self.limits).await {
                Ok(None) => return None,
                Ok(Some(ResultMessage::Updates(delta))) => self.shape.rows(&delta).map(Some),
                Ok(Some(ResultMessage::Progress(epoch))) => self.shape.progress(epoch),
                Ok(Some(_)) => Ok(None),
                Err(error) => Err(error),
            };
            match made {
                Ok(batch) => self.ready.extend(batch),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The columns of a subscription's output.
#[derive(Clone, Debug)]
pub(crate) struct SubscribeShape {
    schema: SchemaRef,
    progress: bool,
    columns: usize,
}

impl SubscribeShape {
    /// For a relation of these columns.
    pub(crate) fn new(relation: &Schema, progress: bool) -> Self {
        let mut fields = vec![SqlType::Numeric(Some((38, 0))).to_field("mz_timestamp", false)];
        if progress {
            fields.push(SqlType::Bool.to_field("mz_progressed", false));
        }
        fields.push(SqlType::Int8.to_field("mz_diff", true));
        fields.extend(
            relation
                .fields()
                .iter()
                .map(|field| field.as_ref().clone().with_nullable(true)),
        );
        Self {
            schema: Arc::new(Schema::new(fields)),
            progress,
            columns: relation.fields().len(),
        }
    }

    /// The output's columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn rows(&self, delta: &DeltaBatch) -> Result<RecordBatch, Error> {
        let count = delta.len();
        let mut columns = vec![timestamps(delta.epoch, count)?];
        if self.progress {
            columns.push(Arc::new(BooleanArray::from(vec![false; count])));
        }
        columns.push(Arc::new(delta.weights.to_array(count)));
        columns.extend(delta.rows.columns().iter().cloned());
        self.batch(columns, count)
    }

    fn progress(&self, epoch: Epoch) -> Result<Option<RecordBatch>, Error> {
        if !self.progress {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = vec![
            timestamps(epoch, 1)?,
            Arc::new(BooleanArray::from(vec![true])),
            Arc::new(Int64Array::from(vec![None::<i64>])),
        ];
        let first = self.schema.fields().len() - self.columns;
        columns.extend(
            self.schema
                .fields()
                .iter()
                .skip(first)
                .map(|field| new_null_array(field.data_type(), 1)),
        );
        self.batch(columns, 1).map(Some)
    }

    fn batch(&self, columns: Vec<ArrayRef>, count: usize) -> Result<RecordBatch, Error> {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(
            self.schema(),
            columns,
            &options,
        )?)
    }
}

fn timestamps(epoch: Epoch, count: usize) -> Result<ArrayRef, Error> {
    let values = Decimal128Array::from(vec![i128::from(epoch.0); count]);
    Ok(Arc::new(values.with_precision_and_scale(38, 0)?))
}

/// The same columns under the names that the user sees.
pub(crate) fn relabel(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, Error> {
    // A plan that is known to be empty may come without its columns.
    if batch.num_rows() == 0 {
        return Ok(RecordBatch::new_empty(Arc::clone(schema)));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|error| {
            Error::Internal(format!(
                "a result does not have the planned columns: {error}"
            ))
        })
}

/// The schema with every column nullable: plans are cautious about NULL, results are not checked against them again.
pub(crate) fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    Arc::new(Schema::new(fields))
}
