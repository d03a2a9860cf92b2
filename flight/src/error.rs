//! Why a call failed, as this crate meets it.

use arrow_schema::DataType;
use flowstone_types::{SqlType, TypeError};

/// A call failed; the connection goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The session refused or failed it.
    #[error(transparent)]
    Coordinator(#[from] flowstone_coordinator::Error),
    /// A value that its column or parameter does not take.
    #[error("{place}: {error}")]
    Value {
        /// `parameter $1`, `column "price"`.
        place: String,
        /// What is wrong with it.
        error: TypeError,
    },
    /// An Arrow type that does not become the SQL type that is needed.
    #[error("{place} is of type {expected} but the data is of Arrow type {actual}")]
    Mismatch {
        /// `parameter $1`, `column "price"`.
        place: String,
        /// What came.
        actual: DataType,
        /// What is needed.
        expected: SqlType,
    },
    /// Too few or too many columns of parameters.
    #[error("wrong number of parameters")]
    ParameterCount {
        /// How many the statement takes.
        expected: usize,
        /// How many columns came.
        actual: usize,
    },
    /// A statement with parameters that no values were bound to.
    #[error("there is no parameter $1")]
    Unbound,
    /// The bearer token stands for no session.
    #[error("session does not exist")]
    UnknownSession,
    /// The header is none that we understand, or is missing.
    #[error("{0}")]
    BadCredentials(String),
    /// Somebody is not who they say, or may not log in.
    #[error(transparent)]
    Auth(#[from] flowstone_coordinator::AuthError),
    /// The handle stands for no prepared statement of this client.
    #[error("prepared statement does not exist")]
    UnknownStatement,
    /// The identifier stands for no open transaction of this client.
    #[error("transaction does not exist")]
    UnknownTransaction,
    /// Values were bound anew too often since the ticket was given.
    #[error("the values bound for this result were replaced")]
    BindingGone,
    /// A limit of this node is reached.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A statement that has an effect only within a session, from a client without one.
    #[error("{0} needs a session")]
    NeedsSession(&'static str),
    /// COMMIT of a transaction in which a statement failed.
    #[error("transaction was rolled back because a statement in it failed")]
    RolledBack,
    /// A bulk ingest failed after some of its rows were committed.
    #[error("{error}")]
    Partial {
        /// The rows that are in the table.
        rows: u64,
        /// Why it did not go on.
        error: Box<Error>,
    },
    /// The client's message is not what the protocol has here.
    #[error("{0}")]
    Malformed(String),
    /// A part of the protocol that we do not have.
    #[error("{0}")]
    Unsupported(String),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopping,
    /// A bug of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// The client, or another call of it, cancelled the query.
    pub(crate) const CANCELLED: Self = Self::Coordinator(flowstone_coordinator::Error::Cancelled);

    /// Something that the coordinator's session does not do over this protocol.
    pub(crate) fn not_here(message: impl Into<String>, hint: impl Into<String>) -> Self {
        flowstone_sql::Error::unsupported(message)
            .with_hint(hint)
            .into()
    }
}

impl From<flowstone_sql::Error> for Error {
    fn from(error: flowstone_sql::Error) -> Self {
        Self::Coordinator(error.into())
    }
}

impl From<arrow_schema::ArrowError> for Error {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<arrow_flight::error::FlightError> for Error {
    /// Data that a client sent and that cannot be decoded.
    fn from(error: arrow_flight::error::FlightError) -> Self {
        Self::Malformed(format!("the data cannot be decoded: {error}"))
    }
}

impl From<prost::DecodeError> for Error {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(format!("the message cannot be decoded: {error}"))
    }
}
