//! Sinks: changes of a collection as messages of a topic, each exactly once.
//!
//! Owns the folding of changes by key ([`fold()`]), payloads ([`Encoder`]), the registration of their schemas, transactions of Kafka ([`KafkaLog`]) and the records
//! in which a topic says what it holds ([`Progress`]). Must not know commits, versions of tables, or which content is to be written: the worker does.
//! Called by the keep of `worker`, on threads that may block.
//!
//! Invariants. Messages and the record of what they lead to are in one transaction. After [`TopicLog::open`] nobody who opened the log of the same sink before
//! can write to it. What became of a transaction is either known, or [`Failure::Lost`] is returned and the log is opened anew before anything else is written.

mod delivered;
mod encode;
mod fold;
mod http;
mod kafka;
mod partition;
mod progress;
mod registry;

use std::fmt;

use arrow_schema::SchemaRef;
use flowstone_proto::kafka::KafkaSink;

pub use encode::{Encoder, Message};
pub use fold::{Change, FoldError, fold};
pub use kafka::KafkaLog;
pub use progress::Progress;

/// Why something could not be written, by what is to be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing of the transaction counts, and another can be begun.
    #[error("{0}")]
    Again(String),
    /// What became of the transaction is not known, or somebody else writes: the log has to be opened anew.
    #[error("{0}")]
    Lost(String),
    /// As before: the log has to be opened anew. But it will not be better until somebody does something.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// What can be done.
        hint: Option<String>,
    },
    /// What is to be written cannot be written like this, however often it is tried.
    #[error("{0}")]
    Data(String),
}

/// Where a sink writes. Every call may block.
pub trait TopicLog: fmt::Debug + Send {
    /// Ends what others have begun, and says what the topic holds; `None` if nothing was ever written.
    ///
    /// # Errors
    /// Why it cannot be written to.
    fn open(&mut self) -> Result<Option<Progress>, Failure>;

    /// Partitions of the topic, at least one.
    fn partitions(&self) -> i32;

    /// Adds messages to the transaction, which begins with the first ones. After an error nothing of it counts, or the log is lost.
    ///
    /// # Errors
    /// Why that is so.
    fn send(&mut self, messages: &[Message]) -> Result<(), Failure>;

    /// Ends the transaction: what was sent and `progress` count from now on.
    ///
    /// # Errors
    /// [`Failure::Lost`] if it is not known whether they do; else they do not.
    fn commit(&mut self, progress: &Progress) -> Result<(), Failure>;

    /// Gives up the transaction, if there is one.
    ///
    /// # Errors
    /// [`Failure::Lost`].
    fn abort(&mut self) -> Result<(), Failure>;
}

/// The encoder of a sink, with its schemas registered.
///
/// # Errors
/// [`Failure::Data`] if rows of such columns cannot be written; [`Failure::Again`] or [`Failure::Refused`] if a registry did not take a schema.
pub async fn encoder(sink: &KafkaSink, schema: &SchemaRef) -> Result<Encoder, Failure> {
    let mut encoder =
        Encoder::new(sink, schema).map_err(|error| Failure::Data(error.to_string()))?;
    for registration in encoder.registrations(&sink.topic.name) {
        let id = registry::register(&registration).await?;
        encoder.registered(registration.part, id);
    }
    Ok(encoder)
}
