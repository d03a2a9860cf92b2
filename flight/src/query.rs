//! Running statements, and results as streams of Flight messages.
//!
//! Owns the way from a statement to a stream: when it is run, how batches are cut, and how a stream ends early. Must not know what the rows mean.
//!
//! Invariants. One batch is in flight at a time. A stream that is dropped or cancelled ends its query. An endless result is sent batch by batch as it comes.

use std::pin::Pin;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_schema::{Schema, SchemaRef};
use bytes::Bytes;
use flowstone_coordinator::{Outcome, RowStream};
use flowstone_sql::ast::Statement;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tonic::Status;

use crate::Error;
use crate::sessions::{Fetch, Lease, Turn};
use crate::wire::WireSchema;

/// Rows of a batch at most: what a client can work with while the next one comes. The encoder cuts further at 2 MiB.
const ROWS_PER_BATCH: usize = 16 * 1024;

/// The messages of a result.
pub(crate) type Messages = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// Parameters of the runs that follow, one after the other.
type Runs = Box<dyn Iterator<Item = Vec<ArrayRef>> + Send + Sync>;

/// Reads one statement; `None` if there is none.
///
/// # Errors
/// A syntax error, or that there are several.
pub(crate) async fn single(turn: &Turn, sql: &str) -> Result<Option<Statement>, Error> {
    let mut statements = turn.parse(sql).await?;
    if statements.len() > 1 {
        return Err(flowstone_sql::Error::syntax(
            "cannot insert multiple commands into a prepared statement",
        )
        .into());
    }
    Ok(statements.pop())
}

/// The rows that a command tag says were affected.
pub(crate) fn affected(tag: &str) -> i64 {
    tag.rsplit(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// What a statement gave, for someone who does not want rows: those affected.
///
/// # Errors
/// [`Error::Unsupported`] if it is one that only gives rows.
pub(crate) async fn affected_by(outcome: &mut Outcome) -> Result<i64, Error> {
    match outcome {
        Outcome::Rows { verb, rows, .. } if Outcome::is_returned(verb) => {
            let mut count = 0_i64;
            while let Some(batch) = rows.next().await {
                let rows = i64::try_from(batch?.num_rows()).unwrap_or(i64::MAX);
                count = count.saturating_add(rows);
            }
            Ok(count)
        }
        Outcome::Command { tag } => Ok(affected(tag)),
        Outcome::Empty => Ok(0),
        Outcome::Rows { verb, .. } => Err(Error::Unsupported(format!(
            "{verb} gives rows: run it as a query"
        ))),
        Outcome::CopyIn(_) | Outcome::CopyOut { .. } => Err(Error::Internal(
            "COPY was not refused beforehand".to_owned(),
        )),
    }
}

/// A statement to run once for each set of parameters.
pub(crate) struct Query {
    pub(crate) lease: Lease,
    pub(crate) statement: Statement,
    pub(crate) runs: Runs,
    pub(crate) fetch: Fetch,
}

impl Query {
    /// Starts it; the rows are fetched as the client takes them.
    ///
    /// # Errors
    /// Whatever is wrong with the statement.
    pub(crate) async fn start(mut self) -> Result<Messages, Error> {
        let Some(parameters) = self.runs.next() else {
            // Nothing was bound, so there is nothing to run; what it would give is known all the same.
            return self.nothing().await;
        };
        match self.run(&parameters).await? {
            Outcome::Rows { schema, rows, .. } => {
                let wire = WireSchema::new(&schema)?;
                Ok(Fetching {
                    query: self,
                    wire,
                    rows,
                    batch: None,
                    ended: false,
                }
                .messages())
            }
            outcome => {
                let mut tag = tag_of(outcome)?;
                while let Some(parameters) = self.runs.next() {
                    tag = tag_of(self.run(&parameters).await?)?;
                }
                Ok(empty(&tag))
            }
        }
    }

    async fn nothing(self) -> Result<Messages, Error> {
        let mut turn = self.lease.turn().await;
        let description = turn.describe(&self.statement, &[]).await?;
        turn.settle();
        let columns = description.columns.unwrap_or_else(no_columns);
        Ok(rows_of(&WireSchema::new(&columns)?.schema(), Vec::new()))
    }

    async fn run(&self, parameters: &[ArrayRef]) -> Result<Outcome, Error> {
        let work = async {
            let mut turn = self.lease.turn().await;
            let outcome = self
                .lease
                .run(&mut turn, &self.statement, parameters)
                .await?;
            turn.settle();
            Ok(outcome)
        };
        tokio::select! {
            biased;
            reason = self.fetch.cancelled() => Err(reason),
            outcome = work => outcome,
        }
    }
}

fn tag_of(outcome: Outcome) -> Result<String, Error> {
    match outcome {
        Outcome::Command { tag } => Ok(tag),
        Outcome::Empty => Ok(String::new()),
        Outcome::Rows { .. } | Outcome::CopyIn(_) | Outcome::CopyOut { .. } => Err(
            Error::Internal("a statement gave something else the second time".to_owned()),
        ),
    }
}

/// A result that is being fetched.
struct Fetching {
    query: Query,
    wire: WireSchema,
    rows: RowStream,
    /// The rest of the batch that is being sent.
    batch: Option<RecordBatch>,
    ended: bool,
}

impl Fetching {
    fn messages(self) -> Messages {
        let schema = self.wire.schema();
        let batches = stream::unfold(self, |mut result| async move {
            if result.ended {
                return None;
            }
            let next = result.next().await.transpose()?;
            result.ended = next.is_err();
            Some((next, result))
        });
        encode(&schema, Bytes::new(), batches)
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        loop {
            if let Some(batch) = self.piece() {
                return self.wire.rows(&batch).map(Some);
            }
            let next = tokio::select! {
                biased;
                reason = self.query.fetch.cancelled() => return Err(reason),
                next = self.rows.next() => next,
            };
            match next {
                Some(Ok(batch)) => self.batch = Some(batch),
                Some(Err(error)) => {
                    self.fail().await;
                    return Err(error.into());
                }
                None => match self.query.runs.next() {
                    None => return Ok(None),
                    Some(parameters) => self.rows = self.run_again(&parameters).await?,
                },
            }
        }
    }

    /// The next rows of the batch at hand.
    fn piece(&mut self) -> Option<RecordBatch> {
        let batch = self.batch.take()?;
        let rows = batch.num_rows();
        if rows > ROWS_PER_BATCH {
            self.batch = Some(batch.slice(ROWS_PER_BATCH, rows - ROWS_PER_BATCH));
            return Some(batch.slice(0, ROWS_PER_BATCH));
        }
        (rows > 0).then_some(batch)
    }

    async fn run_again(&mut self, parameters: &[ArrayRef]) -> Result<RowStream, Error> {
        match self.query.run(parameters).await? {
            Outcome::Rows { rows, .. } => Ok(rows),
            Outcome::Command { .. }
            | Outcome::Empty
            | Outcome::CopyIn(_)
            | Outcome::CopyOut { .. } => Err(Error::Internal(
                "a statement gave something else the second time".to_owned(),
            )),
        }
    }

    /// The transaction of a result that broke off has failed.
    async fn fail(&self) {
        // A turn that is not settled fails what is open.
        drop(self.query.lease.turn().await);
    }
}

fn encode(
    schema: &SchemaRef,
    metadata: Bytes,
    batches: impl Stream<Item = Result<RecordBatch, Error>> + Send + 'static,
) -> Messages {
    let batches = batches.map_err(|error| FlightError::from(Status::from(error)));
    let messages = FlightDataEncoderBuilder::new()
        .with_schema(SchemaRef::clone(schema))
        .with_metadata(metadata)
        .build(batches);
    Box::pin(messages.map_err(Status::from))
}

/// Rows that are at hand, of a schema that clients see.
pub(crate) fn rows_of(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Messages {
    let batches = stream::iter(batches.into_iter().map(Ok));
    encode(schema, Bytes::new(), batches)
}

/// The result of a statement that gives no rows: no columns, and its command tag beside the schema.
pub(crate) fn empty(tag: &str) -> Messages {
    encode(&no_columns(), Bytes::from(tag.to_owned()), stream::empty())
}

/// The schema of no columns.
pub(crate) fn no_columns() -> SchemaRef {
    SchemaRef::new(Schema::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_say_how_many_rows_were_affected() {
        assert_eq!(affected("INSERT 0 12"), 12);
        assert_eq!(affected("UPDATE 3"), 3);
        assert_eq!(affected("CREATE TABLE"), 0);
        assert_eq!(affected(""), 0);
    }
}
