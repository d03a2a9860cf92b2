//! Sources: PostgreSQL capture, topics of Kafka, and load generators; and sinks, which write to Kafka.
//!
//! Owns connections to upstreams, the decoding of what they send into Arrow, the log of whole transactions that can be bound to epochs, in memory and
//! on disk, staged snapshots and their manifests, and how far an upstream may forget.
//! Must not know views or operators, nor what an epoch is: it hands over everything up to a position.
//! Called by `worker`, which starts sources, forwards their events and takes their changes when it runs an epoch.
//!
//! Invariants. What [`SourceHandle::take_pieces`] gives for a range of positions is a function of the upstream alone: asked again after a restart, it is the
//! same, so an upstream transaction is never split and never repeated. Nothing is acknowledged upstream that could still be asked for.
//! What cannot be decoded puts one table in a permanent error; everything else of the source goes on.

mod alterable;
mod backoff;
mod binding;
mod capture;
mod error_files;
pub mod generator;
pub(crate) mod kafka;
mod logs;
mod manifest_file;
pub(crate) mod postgres;
mod row_errors;
mod rows;
pub mod sink;
mod source;
mod state_file;
mod table_log;
mod taking;
mod transactions;

pub use postgres::types::sql_type;
pub use source::{
    Error, Pieces, SourceContext, SourceEvent, SourceHandle, TableChanges, TableData, clean_up,
    start, start_within,
};
pub use transactions::BufferLimits;

use flowstone_proto::message::{
    RequestError, SourceKind, UpstreamAnswer, UpstreamConnection, UpstreamQuestion,
};

/// Asks an upstream about itself: `VALIDATE CONNECTION`, and the description of tables that `CREATE SOURCE` plans with.
///
/// # Errors
/// [`RequestError::Upstream`] if it cannot be reached, refuses, or is not set up for capture.
pub async fn ask(question: &UpstreamQuestion) -> Result<UpstreamAnswer, RequestError> {
    match question {
        UpstreamQuestion::Validate(UpstreamConnection::Postgres(connection)) => {
            postgres::describe::validate(connection).await?;
            Ok(UpstreamAnswer::Valid)
        }
        UpstreamQuestion::Describe(SourceKind::Postgres {
            connection,
            publication,
            ..
        }) => Ok(UpstreamAnswer::Tables(
            postgres::describe::publication(connection, publication).await?,
        )),
        UpstreamQuestion::Describe(SourceKind::LoadGenerator { generator, .. }) => Ok(
            UpstreamAnswer::Tables(generator::tables::describe(generator)),
        ),
        UpstreamQuestion::Validate(UpstreamConnection::Kafka(connection)) => {
            kafka::describe::validate(connection).await?;
            Ok(UpstreamAnswer::Valid)
        }
        UpstreamQuestion::Validate(UpstreamConnection::Registry(connection)) => {
            kafka::describe::validate_registry(connection).await?;
            Ok(UpstreamAnswer::Valid)
        }
        UpstreamQuestion::Describe(SourceKind::Kafka(source)) => Ok(UpstreamAnswer::Tables(vec![
            kafka::describe::topic(source).await?,
        ])),
        UpstreamQuestion::Schema(registry, request) => {
            let found = kafka::describe::schema(registry, request).await?;
            Ok(UpstreamAnswer::Schema(found.map(Box::new)))
        }
    }
}
