//! What a client sends with DoPut: a command, then a schema and record batches.
//!
//! Owns the decoding. One message is decoded at a time; the client's flow control holds it back until the next one is asked for.

use arrow_array::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::sql::Command;
use arrow_schema::SchemaRef;
use futures::{Stream, StreamExt, TryStreamExt, future};
use tonic::Status;

use crate::{Error, ticket};

/// The data of one DoPut.
#[derive(Debug)]
pub(crate) struct Upload {
    data: FlightDataDecoder,
}

impl Upload {
    /// Reads the command; the data follows.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is no command, or one that is none.
    pub(crate) async fn open(
        mut messages: impl Stream<Item = Result<FlightData, Status>> + Unpin + Send + 'static,
    ) -> Result<(Command, Self), Error> {
        let missing = || Error::Malformed("the first message has no command".to_owned());
        let first = messages.next().await.ok_or_else(missing)?;
        let mut first = first.map_err(|status| Error::Malformed(status.message().to_owned()))?;
        let descriptor = first.flight_descriptor.take().ok_or_else(missing)?;
        let command = ticket::command(&descriptor.cmd)?;
        let messages = futures::stream::iter([Ok(first)]).chain(messages);
        // Messages without a header carry a descriptor or metadata alone.
        let messages =
            messages.try_filter(|message| future::ready(!message.data_header.is_empty()));
        let data = FlightDataDecoder::new(messages.map_err(FlightError::from));
        Ok((command, Self { data }))
    }

    /// The schema, which comes before the batches; `None` if no data comes at all.
    pub(crate) async fn schema(&mut self) -> Result<Option<SchemaRef>, Error> {
        match self.data.next().await.transpose()? {
            None => Ok(None),
            Some(message) => match message.payload {
                DecodedPayload::Schema(schema) => Ok(Some(schema)),
                DecodedPayload::None | DecodedPayload::RecordBatch(_) => Err(Error::Malformed(
                    "the data does not begin with a schema".to_owned(),
                )),
            },
        }
    }

    /// The next batch.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        while let Some(message) = self.data.next().await.transpose()? {
            if let DecodedPayload::RecordBatch(batch) = message.payload {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}
