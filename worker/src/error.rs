//! What stops a worker. Failures of one request are `RequestError`s and never reach this type.

use flowstone_types::{ObjectId, TypeError};

/// An error with its causes, for one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    message
}

/// An error of the worker itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Storage failed.
    #[error("storage: {0}")]
    Storage(#[from] flowstone_storage::Error),
    /// A source failed in a way that its own retries do not cover.
    #[error("source: {0}")]
    Source(#[from] flowstone_ingest::Error),
    /// The dataflow found an invariant broken.
    #[error("dataflow: {0}")]
    Dataflow(#[from] flowstone_dataflow::Error),
    /// A columnar kernel failed.
    #[error("{0}")]
    Type(#[from] TypeError),
    /// A shard thread is gone.
    #[error("a shard thread ended")]
    ShardGone,
    /// The work of a lane broke.
    #[error("the work of a lane ended: {0}")]
    LaneGone(#[from] tokio::task::JoinError),
    /// The keep's task is gone.
    #[error("the keep's task ended")]
    KeepGone,
    /// The front's task is gone.
    #[error("the front's task ended")]
    FrontGone,
    /// A command names what does not exist.
    #[error("command refers to object {0}, which does not exist")]
    UnknownObject(ObjectId),
    /// A command breaks the protocol.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The machine refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}
