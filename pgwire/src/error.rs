//! Why a statement failed, as this crate meets it.

use flowstone_types::TypeError;

/// A statement failed; the connection goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The session refused or failed it.
    #[error(transparent)]
    Coordinator(#[from] flowstone_coordinator::Error),
    /// A value cannot be read or shown.
    #[error(transparent)]
    Value(#[from] TypeError),
    /// A line of COPY data is wrong.
    #[error("{message}")]
    Copy {
        /// What is wrong.
        message: String,
        /// Which line, and what it holds.
        context: String,
    },
    /// The client gave up its COPY.
    #[error("COPY from stdin failed: {0}")]
    CopyAbandoned(String),
    /// No prepared statement of that name.
    #[error("prepared statement \"{0}\" does not exist")]
    UnknownStatement(String),
    /// No portal of that name.
    #[error("portal \"{0}\" does not exist")]
    UnknownPortal(String),
    /// A value longer than a message can carry.
    #[error("value of {0} bytes is too long for the protocol")]
    ValueTooLong(usize),
    /// The client broke the protocol in a way that the next `Sync` mends.
    #[error("{0}")]
    Protocol(String),
}

impl From<flowstone_sql::Error> for Error {
    fn from(error: flowstone_sql::Error) -> Self {
        Self::Coordinator(error.into())
    }
}
