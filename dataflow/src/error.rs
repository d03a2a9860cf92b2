//! What can go wrong in a shard, sorted by what its owner does about it.

use flowstone_types::{Epoch, ObjectId, TypeError};

/// A failure of a shard. Evaluation errors of single rows are not here: they are data ([`flowstone_types::EvalError`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller named something that was not created or is gone: refuse the request.
    #[error("collection {0} does not exist")]
    UnknownCollection(ObjectId),
    /// The caller created something twice: refuse the request.
    #[error("collection {0} already exists")]
    DuplicateCollection(ObjectId),
    /// A plan that cannot be rendered: refuse the dataflow.
    #[error("dataflow cannot be rendered: {0}")]
    Plan(String),
    /// History was compacted: refuse the read.
    #[error("epoch {epoch} is not readable: history starts at {since}")]
    SinceAdvanced {
        /// The epoch asked for.
        epoch: Epoch,
        /// The earliest readable epoch.
        since: Epoch,
    },
    /// A row was retracted more often than it was inserted. A broken invariant: stop the worker.
    #[error("weight of a row became negative in {0}")]
    NegativeWeight(String),
    /// A value or weight the engine cannot represent, or a failed kernel: stop the worker.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// A bug of ours: stop the worker.
    #[error("internal error in the dataflow: {0}")]
    Invariant(String),
}

impl Error {
    pub(crate) fn invariant(what: impl Into<String>) -> Self {
        Self::Invariant(what.into())
    }
}

impl From<arrow_schema::ArrowError> for Error {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Type(TypeError::from(error))
    }
}
