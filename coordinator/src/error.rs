//! What can go wrong with a session or a statement, sorted by what a client protocol tells its client: [`crate::report`] does.

use flowstone_proto::message::RequestError;

use crate::memory::MemoryError;
use crate::raft::{OpenError, ProposeError, Refusal};
use crate::secrets::SecretError;

/// An error of a session, a statement or the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The statement is wrong.
    #[error(transparent)]
    Sql(#[from] flowstone_sql::Error),
    /// The worker could not do it: data, upstream, dropped objects.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The transaction does not allow it.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// The session does not have it, or has it already.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The session would hold more than it may.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The client asked to cancel it.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// `statement_timeout` has passed.
    #[error("canceling statement due to statement timeout")]
    Timeout,
    /// The node is starting, shutting down, or its disk failed. Trying again later may work.
    #[error("{0}")]
    Unavailable(String),
    /// A bug of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What a transaction does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// An earlier statement of the transaction failed.
    #[error("current transaction is aborted, commands ignored until end of transaction block")]
    Aborted,
    /// The statement runs only on its own.
    #[error("{0} cannot be run inside a transaction block")]
    Prohibited(String),
    /// The statement needs a transaction.
    #[error("{0} can only be used in transaction blocks")]
    Required(String),
    /// A transaction that reads does not write.
    #[error("transaction in read-only mode")]
    ReadOnly,
    /// A write in a transaction that was begun `READ ONLY`; with the words that name the statement.
    #[error("cannot execute {0} in a read-only transaction")]
    ReadOnlyBlock(&'static str),
    /// A transaction that writes does not read.
    #[error("transaction in write-only mode")]
    WriteOnly,
    /// A transaction with a subscription does nothing else.
    #[error("SUBSCRIBE in transactions must be the only read statement")]
    SubscribeOnly,
    /// A read outside of what the first read of the transaction fixed.
    #[error("Transactions can only reference objects in the same timedomain.")]
    Timedomain {
        /// What the query reads that is outside.
        outside: Vec<String>,
        /// What the transaction can read.
        available: Vec<String>,
    },
    /// `SET TRANSACTION ISOLATION LEVEL` after the first query.
    #[error("SET TRANSACTION ISOLATION LEVEL must be called before any query")]
    IsolationAfterQuery,
    /// An object that the transaction uses was dropped or changed meanwhile.
    #[error("the catalog changed while the statement ran")]
    CatalogMoved,
    /// A table that the transaction writes to was dropped before it could commit.
    #[error("table \"{table}\" was dropped before what was written to it could be committed")]
    TableDropped {
        /// Its name when it was written to.
        table: String,
    },
}

impl TransactionError {
    /// More about it: full sentences.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::ReadOnly => Some(
                "SELECT queries cannot be combined with other query types, including SUBSCRIBE."
                    .to_owned(),
            ),
            Self::WriteOnly => {
                Some("INSERT statements cannot be combined with other query types.".to_owned())
            }
            Self::Timedomain { outside, available } => Some(format!(
                "The following relations in the query are outside the transaction's time domain:\n{}\nOnly the following relations are available:\n{}",
                outside.join("\n"),
                available.join("\n"),
            )),
            Self::TableDropped { .. } => {
                Some("The whole transaction was rolled back: nothing of it was written.".to_owned())
            }
            Self::Aborted
            | Self::Prohibited(_)
            | Self::ReadOnlyBlock(_)
            | Self::Required(_)
            | Self::SubscribeOnly
            | Self::IsolationAfterQuery
            | Self::CatalogMoved => None,
        }
    }
}

/// What a session does not have, or has already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No variable of that name.
    #[error("unrecognized configuration parameter \"{0}\"")]
    UnknownVariable(String),
    /// A variable that is not set by users.
    #[error("parameter \"{0}\" cannot be changed")]
    ReadOnlyVariable(String),
    /// A value that the variable does not take.
    #[error("invalid value for parameter \"{name}\": \"{value}\"")]
    InvalidVariable {
        /// The variable.
        name: String,
        /// The value.
        value: String,
        /// What it takes.
        hint: Option<String>,
    },
    /// No prepared statement of that name.
    #[error("prepared statement \"{0}\" does not exist")]
    UnknownPrepared(String),
    /// A prepared statement of that name exists.
    #[error("prepared statement \"{0}\" already exists")]
    DuplicatePrepared(String),
    /// No cursor of that name.
    #[error("cursor \"{0}\" does not exist")]
    UnknownCursor(String),
    /// A cursor of that name exists.
    #[error("cursor \"{0}\" already exists")]
    DuplicateCursor(String),
    /// No savepoint of that name.
    #[error("savepoint \"{0}\" does not exist")]
    UnknownSavepoint(String),
    /// Too few or too many parameters.
    #[error("wrong number of parameters for prepared statement \"{name}\"")]
    ParameterCount {
        /// The prepared statement.
        name: String,
        /// How many it takes.
        expected: usize,
        /// How many were given.
        actual: usize,
    },
    /// Data that does not fit the columns of a `COPY`.
    #[error("{0}")]
    CopyMismatch(String),
}

impl From<ProposeError> for Error {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Refused(Refusal::CatalogMoved { .. }) => {
                TransactionError::CatalogMoved.into()
            }
            ProposeError::Refused(Refusal::Invalid(message)) => Self::Internal(message),
            ProposeError::Unavailable(message) => Self::Unavailable(message),
        }
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        Self::Unavailable(with_causes(&error))
    }
}

impl From<SecretError> for Error {
    fn from(error: SecretError) -> Self {
        Self::Unavailable(with_causes(&error))
    }
}

impl From<arrow_schema::ArrowError> for Error {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// The message with those of its causes: these errors end in text here.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    message
}
