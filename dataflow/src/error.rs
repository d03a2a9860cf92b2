//! What can go wrong in a shard, sorted by what its owner does about it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use flowstone_types::budget::Exceeded;
use flowstone_types::{Epoch, EvalError, EvalErrorKind, ObjectId, TypeError};

/// A failure of a call, or of what a dataflow runs. Evaluation errors of single rows are not here: they are data ([`flowstone_types::EvalError`]).
///
/// Where it ends a step of a dataflow, nobody gets the error itself: the dataflow has failed with the [`EvalError`] that it becomes
/// ([`crate::TickOutput::failed`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller named something that was not created or is gone: refuse the request.
    #[error("collection {0} does not exist")]
    UnknownCollection(ObjectId),
    /// The caller created something twice: refuse the request.
    #[error("collection {0} already exists")]
    DuplicateCollection(ObjectId),
    /// What the caller named is hydrated in a fork of the shard ([`crate::Shard::fork`]): wait until it is joined.
    #[error("{0} is hydrated beside the shard")]
    Away(ObjectId),
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
    /// A row was retracted more often than it was inserted. A broken invariant: stop the worker if it is the call's error.
    #[error("weight of a row became negative in {0}")]
    NegativeWeight(String),
    /// A value or weight the engine cannot represent, or a failed kernel: stop the worker if it is the call's error.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// Work that failed as a whole, and not for one of its rows: a panic, or a budget that is spent ([`flowstone_types::budget`]).
    #[error(transparent)]
    Evaluation(EvalError),
    /// A bug of ours: stop the worker if it is the call's error.
    #[error("internal error in the dataflow: {0}")]
    Invariant(String),
}

impl Error {
    pub(crate) fn invariant(what: impl Into<String>) -> Self {
        Self::Invariant(what.into())
    }

    fn of_panic(payload: &(dyn Any + Send)) -> Self {
        Self::Evaluation(EvalError::of_panic(payload))
    }
}

/// What `work` says; that it panics is an error too. What it was about to change stays as it is then: whoever calls sees to it that nobody reads that.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Error::of_panic(panic.as_ref())))
}

/// What a dataflow that it ended is to those who read it.
impl From<Error> for EvalError {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Evaluation(evaluation) => return evaluation.clone(),
            Error::Type(TypeError::TooLarge) => EvalErrorKind::TooLarge,
            Error::Type(TypeError::WeightOverflow) => EvalErrorKind::Data,
            Error::Type(TypeError::NotSupported(_)) => EvalErrorKind::NotSupported,
            Error::Type(TypeError::NumericNotHeld(_)) => EvalErrorKind::NumericNotHeld,
            Error::Type(_)
            | Error::UnknownCollection(_)
            | Error::DuplicateCollection(_)
            | Error::Away(_)
            | Error::Plan(_)
            | Error::SinceAdvanced { .. }
            | Error::NegativeWeight(_)
            | Error::Invariant(_) => EvalErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<Exceeded> for Error {
    fn from(exceeded: Exceeded) -> Self {
        Self::Evaluation(exceeded.into())
    }
}

impl From<arrow_schema::ArrowError> for Error {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Type(TypeError::from(error))
    }
}
