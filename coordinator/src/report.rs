//! What an error is to a client, whatever protocol it speaks: SQLSTATE, message, detail, hint, position.
//!
//! Owns the mapping of every error that a session or its opening gives, and of those of values, to a [`Report`]. Must not know how a protocol writes one down.
//! Called by `pgwire`, `flight` and `console`, which add the errors that only they have: so the same failure has the same code wherever it is met.
//!
//! Invariants. Every `match` here is exhaustive, so that a new kind of error forces a decision. `XX000` means a bug of ours and nothing else.

use flowstone_proto::message::RequestError;
use flowstone_sql::error::ErrorKind;
use flowstone_types::{EvalErrorKind, SqlJsonKind, TypeError};

use crate::auth::AuthError;
use crate::auth::scram::ScramError;
use crate::error::{Error, SessionError, TransactionError};
use crate::notices::Severity;

/// What can be done about numbers that PostgreSQL's `numeric` holds and ours does not.
const NUMERIC_HINT: &str = "Declare it as numeric(38, s), or cast to that, to have 38 digits with s of them after the point; double precision and text also hold NaN and infinity.";

/// An error as a client is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// SQLSTATE: five characters.
    pub code: String,
    /// Lower case, no full stop.
    pub message: String,
    /// More about it: full sentences.
    pub detail: Option<String>,
    /// What the user can do: full sentences.
    pub hint: Option<String>,
    /// Where in the query string: characters, from 1.
    pub position: Option<usize>,
}

impl Report {
    /// A report of nothing but a code and a message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
        }
    }

    /// With a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the error is a bug of ours, to be logged as one.
    #[must_use]
    pub fn is_bug(&self) -> bool {
        self.code == "XX000"
    }
}

impl From<&Error> for Report {
    fn from(error: &Error) -> Self {
        let mut report = Self::new(code(error), error.to_string());
        match error {
            Error::Sql(sql) => {
                report.detail.clone_from(&sql.detail);
                report.hint.clone_from(&sql.hint);
                report.position = sql.position;
                if let (None, ErrorKind::Evaluation(kind)) = (&sql.hint, sql.kind) {
                    report.hint = eval_hint(kind).map(str::to_owned);
                }
            }
            Error::Request(RequestError::Eval(error)) => {
                report.hint = eval_hint(error.kind).map(str::to_owned);
            }
            Error::Request(RequestError::Upstream { detail, hint, .. }) => {
                report.detail.clone_from(detail);
                report.hint.clone_from(hint);
            }
            Error::Request(RequestError::OutOfMemory { detail }) => {
                report.detail = Some(detail.clone());
                report.hint = Some(
                    "Join on equal columns, filter earlier, or start the node with a larger query_memory_mib."
                        .to_owned(),
                );
            }
            Error::Request(RequestError::Storage { full: true, .. }) => {
                report.hint =
                    Some("Free some space, then try again: nothing was written.".to_owned());
            }
            Error::Request(RequestError::SlowConsumer { .. }) => {
                report.hint = Some(
                    "Read faster, subscribe to less, or start the node with a larger subscriber_memory_mib."
                        .to_owned(),
                );
            }
            Error::Memory(memory) => {
                let who = if memory.session {
                    "The session holds"
                } else {
                    "All sessions together hold"
                };
                report.detail = Some(format!(
                    "{who} {} bytes of at most {}, and {} more were needed.",
                    memory.held, memory.limit, memory.requested
                ));
                report.hint = Some(
                    "Send or fetch less at a time, or start the node with a larger session_memory_mib."
                        .to_owned(),
                );
            }
            Error::Transaction(transaction) => report.detail = transaction.detail(),
            Error::Session(SessionError::InvalidVariable { hint, .. }) => {
                report.hint.clone_from(hint);
            }
            Error::Session(SessionError::ParameterCount {
                expected, actual, ..
            }) => {
                report.detail = Some(format!("Expected {expected} parameters but got {actual}."));
            }
            Error::Request(_)
            | Error::Session(_)
            | Error::Cancelled
            | Error::Timeout
            | Error::Unavailable(_)
            | Error::Internal(_) => {}
        }
        report
    }
}

impl From<&TypeError> for Report {
    fn from(error: &TypeError) -> Self {
        let report = Self::new(type_error(error), error.to_string());
        if let TypeError::NumericNotHeld(_) = error {
            report.with_hint(NUMERIC_HINT)
        } else {
            report
        }
    }
}

impl From<&AuthError> for Report {
    fn from(error: &AuthError) -> Self {
        let mut report = Self::new(auth_error(error), error.to_string());
        match error {
            AuthError::Scram(scram) => report.detail = Some(scram.detail().to_owned()),
            AuthError::TooManyFailures => {
                report.hint = Some("Wait a few seconds, and check the password.".to_owned());
            }
            AuthError::Password { .. }
            | AuthError::NotPermitted { .. }
            | AuthError::Unavailable => {}
        }
        report
    }
}

/// The SQLSTATE of a notice.
#[must_use]
pub const fn notice_code(severity: Severity) -> &'static str {
    match severity {
        Severity::Notice => "00000",
        Severity::Warning => "01000",
    }
}

fn code(error: &Error) -> String {
    let code = match error {
        Error::Sql(error) => sql_error(error.kind),
        Error::Request(error) => return request_error(error),
        Error::Transaction(error) => transaction_error(error),
        Error::Session(error) => session_error(error),
        Error::Memory(_) => "53200",
        Error::Cancelled | Error::Timeout => "57014",
        Error::Unavailable(_) => "57P03",
        Error::Internal(_) => "XX000",
    };
    code.to_owned()
}

const fn auth_error(error: &AuthError) -> &'static str {
    match error {
        AuthError::Password { .. } => "28P01",
        AuthError::NotPermitted { .. }
        | AuthError::TooManyFailures
        | AuthError::Scram(ScramError::Binding(_)) => "28000",
        AuthError::Scram(ScramError::Malformed(_)) => "08P01",
        AuthError::Unavailable => "58000",
    }
}

const fn sql_error(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Syntax => "42601",
        ErrorKind::FeatureNotSupported => "0A000",
        ErrorKind::UnknownDatabase => "3D000",
        ErrorKind::UnknownSchema => "3F000",
        ErrorKind::UndefinedTable => "42P01",
        ErrorKind::UndefinedColumn => "42703",
        ErrorKind::UndefinedFunction => "42883",
        ErrorKind::UndefinedObject => "42704",
        ErrorKind::AmbiguousColumn => "42702",
        ErrorKind::AmbiguousFunction => "42725",
        ErrorKind::DuplicateDatabase => "42P04",
        ErrorKind::DuplicateSchema => "42P06",
        ErrorKind::DuplicateTable => "42P07",
        ErrorKind::DuplicateColumn => "42701",
        ErrorKind::DuplicateObject => "42710",
        ErrorKind::WrongObjectType => "42809",
        ErrorKind::DependentObjectsStillExist => "2BP01",
        ErrorKind::DatatypeMismatch => "42804",
        ErrorKind::CannotCoerce => "42846",
        ErrorKind::Grouping => "42803",
        ErrorKind::IndeterminateDatatype => "42P18",
        ErrorKind::InvalidColumnReference => "42P10",
        ErrorKind::TooComplex => "54001",
        ErrorKind::InvalidName => "42602",
        ErrorKind::InvalidParameterValue => "22023",
        ErrorKind::InvalidTextRepresentation => "22P02",
        ErrorKind::NumericOutOfRange => "22003",
        ErrorKind::InvalidTableDefinition => "42P16",
        ErrorKind::InvalidObjectDefinition => "42P17",
        ErrorKind::InsufficientPrivilege => "42501",
        ErrorKind::ReservedName => "42939",
        ErrorKind::ObjectInUse => "55006",
        ErrorKind::NotInPrerequisiteState => "55000",
        ErrorKind::DuplicateAlias => "42712",
        ErrorKind::NotNullViolation => "23502",
        ErrorKind::InvalidRowCount => "2201W",
        ErrorKind::InvalidOffset => "2201X",
        ErrorKind::Windowing => "42P20",
        ErrorKind::InvalidFrameOffset => "22013",
        ErrorKind::Evaluation(kind) => eval_error(kind),
        ErrorKind::Internal => "XX000",
    }
}

fn request_error(error: &RequestError) -> String {
    let code = match error {
        RequestError::Eval(error) => eval_error(error.kind),
        RequestError::SinceAdvanced { .. } => "22023",
        RequestError::PassedOver { .. } => "40001",
        RequestError::Paused => "55000",
        RequestError::NotNull { .. } => "23502",
        RequestError::Dropped => "42P01",
        RequestError::Cancelled => "57014",
        RequestError::SlowConsumer { .. } => "53400",
        RequestError::OutOfMemory { .. } => "53200",
        RequestError::Storage { full: true, .. } => "53100",
        RequestError::Storage { full: false, .. } => "58030",
        RequestError::Upstream { sqlstate, .. } => {
            return sqlstate.clone().unwrap_or_else(|| "08006".to_owned());
        }
        RequestError::Unsupported(_) => "0A000",
        RequestError::Internal(_) => "XX000",
    };
    code.to_owned()
}

const fn eval_error(kind: EvalErrorKind) -> &'static str {
    match kind {
        EvalErrorKind::DivisionByZero => "22012",
        EvalErrorKind::NumericOutOfRange => "22003",
        EvalErrorKind::InvalidText => "22P02",
        EvalErrorKind::DatetimeOverflow => "22008",
        EvalErrorKind::Cardinality => "21000",
        EvalErrorKind::InvalidParameter => "22023",
        EvalErrorKind::Data => "22000",
        EvalErrorKind::Source => "58000",
        EvalErrorKind::Internal => "XX000",
        EvalErrorKind::TooLong => "22001",
        EvalErrorKind::DatetimeFormat => "22007",
        EvalErrorKind::InvalidRegex => "2201B",
        EvalErrorKind::TooLarge | EvalErrorKind::NoCharacter => "54000",
        EvalErrorKind::OutOfMemory => "53200",
        EvalErrorKind::Cancelled => "57014",
        EvalErrorKind::NotSupported | EvalErrorKind::NumericNotHeld => "0A000",
        EvalErrorKind::Substring => "22011",
        EvalErrorKind::Subscript => "2202E",
        EvalErrorKind::Buckets => "2201G",
        EvalErrorKind::NullNotAllowed => "22004",
        EvalErrorKind::Untranslatable => "22P05",
        EvalErrorKind::NotInRepertoire => "22021",
        EvalErrorKind::Logarithm => "2201E",
        EvalErrorKind::Power => "2201F",
        EvalErrorKind::InvalidEscape => "22025",
        EvalErrorKind::Syntax => "42601",
        EvalErrorKind::UndefinedObject => "42704",
        EvalErrorKind::SqlJson(kind) => sql_json_error(kind),
    }
}

const fn sql_json_error(kind: SqlJsonKind) -> &'static str {
    match kind {
        SqlJsonKind::Subscript => "22033",
        SqlJsonKind::NonNumeric => "22036",
        SqlJsonKind::Singleton => "22038",
        SqlJsonKind::ArrayNotFound => "22039",
        SqlJsonKind::MemberNotFound => "2203A",
        SqlJsonKind::NumberNotFound => "2203B",
        SqlJsonKind::ObjectNotFound => "2203C",
    }
}

fn eval_hint(kind: EvalErrorKind) -> Option<&'static str> {
    (kind == EvalErrorKind::NumericNotHeld).then_some(NUMERIC_HINT)
}

const fn transaction_error(error: &TransactionError) -> &'static str {
    match error {
        TransactionError::Aborted => "25P02",
        TransactionError::Prohibited(_) | TransactionError::IsolationAfterQuery => "25001",
        TransactionError::Required(_) => "25P01",
        TransactionError::ReadOnly
        | TransactionError::ReadOnlyBlock(_)
        | TransactionError::WriteOnly
        | TransactionError::SubscribeOnly
        | TransactionError::Timedomain { .. } => "25006",
        TransactionError::CatalogMoved | TransactionError::TableDropped { .. } => "40001",
    }
}

const fn session_error(error: &SessionError) -> &'static str {
    match error {
        SessionError::UnknownVariable(_) => "42704",
        SessionError::ReadOnlyVariable(_) => "55P02",
        SessionError::InvalidVariable { .. } => "22023",
        SessionError::UnknownPrepared(_) => "26000",
        SessionError::UnknownSavepoint(_) => "3B001",
        SessionError::DuplicatePrepared(_) => "42P05",
        SessionError::UnknownCursor(_) => "34000",
        SessionError::DuplicateCursor(_) => "42P03",
        SessionError::ParameterCount { .. } => "42601",
        SessionError::CopyMismatch(_) => "22P04",
    }
}

const fn type_error(error: &TypeError) -> &'static str {
    match error {
        TypeError::InvalidText { .. } => "22P02",
        TypeError::InvalidBinary { .. } => "22P03",
        TypeError::OutOfRange { .. } => "22003",
        TypeError::TooLong { .. } => "22001",
        TypeError::InvalidParameter(_) => "22023",
        TypeError::Unsupported(_) | TypeError::NotSupported(_) | TypeError::NumericNotHeld(_) => {
            "0A000"
        }
        TypeError::TooLarge => "54000",
        // `TypeError` is open for extension; what it may grow is not the client's fault.
        _ => "XX000",
    }
}

#[cfg(test)]
mod tests;
