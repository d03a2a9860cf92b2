//! Errors as gRPC reports them: a status code, and SQLSTATE, detail, hint and position beside it.
//!
//! The message is for people and holds everything; the metadata entries are for programs: `flowstone-sqlstate`, `flowstone-position`,
//! `flowstone-detail-bin`, `flowstone-hint-bin`.
//!
//! What a session's errors are to a client is [`flowstone_coordinator::report`]'s business; here is the status code, and those that only this protocol has.
//! Every `match` here is exhaustive, so that a new kind of error forces a decision.

use std::borrow::Cow;

use flowstone_coordinator::{
    AuthError, Error as CoordinatorError, Report, SessionError, TransactionError,
};
use flowstone_proto::message::RequestError;
use flowstone_sql::error::ErrorKind;
use flowstone_types::{EvalErrorKind, TypeError};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::Error;

/// Bytes of text in one field of a status: clients refuse headers beyond 8 KiB, and text that is not ASCII takes three bytes for one.
const FIELD_BYTES_MAX: usize = 1200;

/// What a client is told about an error.
#[must_use]
pub fn status(error: &Error) -> Status {
    let report = report(error);
    if report.is_bug() {
        tracing::error!(%error, "a call met a bug");
    }
    let mut message = format!("{} (SQLSTATE {})", shorten(&report.message), report.code);
    let mut metadata = MetadataMap::new();
    if let Ok(value) = MetadataValue::try_from(report.code.as_str()) {
        metadata.insert("flowstone-sqlstate", value);
    }
    if let Some(position) = report.position {
        metadata.insert("flowstone-position", MetadataValue::from(position));
    }
    for (name, key, text) in [
        ("DETAIL", "flowstone-detail-bin", report.detail),
        ("HINT", "flowstone-hint-bin", report.hint),
    ] {
        if let Some(text) = text {
            let text = shorten(&text);
            message.push_str(&format!("\n{name}: {text}"));
            metadata.insert_bin(key, MetadataValue::from_bytes(text.as_bytes()));
        }
    }
    Status::with_metadata(code(error), message, metadata)
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        status(&error)
    }
}

/// Cuts long text at a character.
fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= FIELD_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(FIELD_BYTES_MAX);
    Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default()))
}

/// SQLSTATE, message, detail, hint and position.
fn report(error: &Error) -> Report {
    let plain = |code: &str| Report::new(code, error.to_string());
    match error {
        Error::Coordinator(error) => error.into(),
        Error::Auth(error) => error.into(),
        Error::Partial { rows, error } => {
            let mut report = report(error);
            let committed = format!("{rows} rows were committed before.");
            report.detail = Some(match report.detail {
                Some(detail) => format!("{detail} {committed}"),
                None => committed,
            });
            report
        }
        Error::Value { error: value, .. } => Report {
            message: error.to_string(),
            ..Report::from(value)
        },
        Error::Mismatch { .. } => plain("42804"),
        Error::ParameterCount { expected, actual } => Report {
            detail: Some(format!(
                "Expected {expected} parameters but got {actual} columns."
            )),
            ..plain("08P01")
        },
        Error::Unbound => {
            plain("42P02").with_hint("Prepare the statement and bind its parameters.")
        }
        Error::UnknownSession => plain("28000")
            .with_hint("Sessions end when they are idle for long: sign in again."),
        Error::BadCredentials(_) => plain("28000"),
        Error::UnknownStatement => plain("26000").with_hint("Prepare it again."),
        Error::UnknownTransaction => plain("25P01"),
        Error::BindingGone => plain("34000").with_hint("Ask for the FlightInfo again."),
        Error::TooMany(_) => plain("53400"),
        Error::NeedsSession(_) => plain("0A000").with_hint(
            "Sign in with a user name: the token that you get stands for a session. Transactions are begun and ended by Flight SQL's own actions.",
        ),
        Error::RolledBack => plain("40000"),
        Error::Malformed(_) => plain("08P01"),
        Error::Unsupported(_) => plain("0A000"),
        Error::Stopping => plain("57P01"),
        Error::Internal(_) => plain("XX000"),
    }
}

/// The status code of an error.
#[must_use]
pub const fn code(error: &Error) -> Code {
    match error {
        Error::Coordinator(error) => coordinator(error),
        Error::Auth(error) => auth_error(error),
        Error::Partial { error, .. } => code(error),
        Error::Value { error, .. } => type_error(error),
        Error::Mismatch { .. }
        | Error::ParameterCount { .. }
        | Error::Unbound
        | Error::Malformed(_) => Code::InvalidArgument,
        Error::UnknownSession | Error::BadCredentials(_) => Code::Unauthenticated,
        Error::UnknownStatement | Error::UnknownTransaction => Code::NotFound,
        Error::BindingGone | Error::NeedsSession(_) | Error::RolledBack => Code::FailedPrecondition,
        Error::TooMany(_) => Code::ResourceExhausted,
        Error::Unsupported(_) => Code::Unimplemented,
        Error::Stopping => Code::Unavailable,
        Error::Internal(_) => Code::Internal,
    }
}

const fn coordinator(error: &CoordinatorError) -> Code {
    match error {
        CoordinatorError::Sql(error) => sql_error(error.kind),
        CoordinatorError::Request(error) => request_error(error),
        CoordinatorError::Transaction(error) => transaction_error(error),
        CoordinatorError::Session(error) => session_error(error),
        CoordinatorError::Cancelled => Code::Cancelled,
        CoordinatorError::Memory(_) => Code::ResourceExhausted,
        CoordinatorError::Timeout => Code::DeadlineExceeded,
        CoordinatorError::Unavailable(_) => Code::Unavailable,
        CoordinatorError::Internal(_) => Code::Internal,
    }
}

const fn auth_error(error: &AuthError) -> Code {
    match error {
        AuthError::Password { .. } | AuthError::Scram(_) => Code::Unauthenticated,
        AuthError::NotPermitted { .. } => Code::PermissionDenied,
        AuthError::TooManyFailures => Code::ResourceExhausted,
        AuthError::Unavailable => Code::Unavailable,
    }
}

const fn sql_error(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Syntax => Code::InvalidArgument,
        ErrorKind::FeatureNotSupported => Code::Unimplemented,
        ErrorKind::UnknownDatabase => Code::NotFound,
        ErrorKind::UnknownSchema => Code::NotFound,
        ErrorKind::UndefinedTable => Code::NotFound,
        ErrorKind::UndefinedColumn => Code::NotFound,
        ErrorKind::UndefinedFunction => Code::NotFound,
        ErrorKind::UndefinedObject => Code::NotFound,
        ErrorKind::AmbiguousColumn => Code::InvalidArgument,
        ErrorKind::AmbiguousFunction => Code::InvalidArgument,
        ErrorKind::DuplicateDatabase => Code::AlreadyExists,
        ErrorKind::DuplicateSchema => Code::AlreadyExists,
        ErrorKind::DuplicateTable => Code::AlreadyExists,
        ErrorKind::DuplicateColumn => Code::InvalidArgument,
        ErrorKind::DuplicateObject => Code::AlreadyExists,
        ErrorKind::WrongObjectType => Code::InvalidArgument,
        ErrorKind::DependentObjectsStillExist => Code::FailedPrecondition,
        ErrorKind::DatatypeMismatch => Code::InvalidArgument,
        ErrorKind::CannotCoerce => Code::InvalidArgument,
        ErrorKind::Grouping => Code::InvalidArgument,
        ErrorKind::IndeterminateDatatype => Code::InvalidArgument,
        ErrorKind::InvalidColumnReference => Code::InvalidArgument,
        ErrorKind::TooComplex => Code::InvalidArgument,
        ErrorKind::InvalidName => Code::InvalidArgument,
        ErrorKind::InvalidParameterValue => Code::InvalidArgument,
        ErrorKind::InvalidTextRepresentation => Code::InvalidArgument,
        ErrorKind::NumericOutOfRange => Code::OutOfRange,
        ErrorKind::InvalidTableDefinition => Code::InvalidArgument,
        ErrorKind::InvalidObjectDefinition => Code::InvalidArgument,
        ErrorKind::InsufficientPrivilege => Code::PermissionDenied,
        ErrorKind::ReservedName => Code::InvalidArgument,
        ErrorKind::ObjectInUse => Code::FailedPrecondition,
        ErrorKind::NotInPrerequisiteState => Code::FailedPrecondition,
        ErrorKind::DuplicateAlias => Code::InvalidArgument,
        ErrorKind::NotNullViolation => Code::FailedPrecondition,
        ErrorKind::InvalidRowCount
        | ErrorKind::InvalidOffset
        | ErrorKind::Windowing
        | ErrorKind::InvalidFrameOffset => Code::InvalidArgument,
        ErrorKind::Evaluation(kind) => eval_error(kind),
        ErrorKind::Internal => Code::Internal,
    }
}

const fn request_error(error: &RequestError) -> Code {
    match error {
        RequestError::Eval(error) => eval_error(error.kind),
        RequestError::SinceAdvanced { .. } => Code::OutOfRange,
        RequestError::PassedOver { .. } => Code::Aborted,
        RequestError::Paused | RequestError::NotNull { .. } => Code::FailedPrecondition,
        RequestError::Dropped => Code::NotFound,
        RequestError::Cancelled => Code::Cancelled,
        RequestError::SlowConsumer { .. } | RequestError::OutOfMemory { .. } => {
            Code::ResourceExhausted
        }
        RequestError::Storage { full: true, .. } => Code::ResourceExhausted,
        RequestError::Storage { full: false, .. } => Code::Internal,
        RequestError::Upstream { .. } => Code::Unavailable,
        RequestError::Unsupported(_) => Code::Unimplemented,
        RequestError::Internal(_) => Code::Internal,
    }
}

const fn eval_error(kind: EvalErrorKind) -> Code {
    match kind {
        EvalErrorKind::DivisionByZero => Code::InvalidArgument,
        EvalErrorKind::NumericOutOfRange => Code::OutOfRange,
        EvalErrorKind::InvalidText => Code::InvalidArgument,
        EvalErrorKind::DatetimeOverflow => Code::OutOfRange,
        EvalErrorKind::Cardinality => Code::InvalidArgument,
        EvalErrorKind::InvalidParameter => Code::InvalidArgument,
        EvalErrorKind::Data => Code::InvalidArgument,
        EvalErrorKind::Source => Code::FailedPrecondition,
        EvalErrorKind::Internal => Code::Internal,
        EvalErrorKind::TooLong => Code::InvalidArgument,
        EvalErrorKind::DatetimeFormat => Code::InvalidArgument,
        EvalErrorKind::InvalidRegex => Code::InvalidArgument,
        EvalErrorKind::TooLarge | EvalErrorKind::OutOfMemory => Code::ResourceExhausted,
        EvalErrorKind::Cancelled => Code::Cancelled,
        EvalErrorKind::NotSupported | EvalErrorKind::NumericNotHeld => Code::Unimplemented,
        EvalErrorKind::Substring
        | EvalErrorKind::Subscript
        | EvalErrorKind::Buckets
        | EvalErrorKind::NullNotAllowed
        | EvalErrorKind::NoCharacter
        | EvalErrorKind::Untranslatable
        | EvalErrorKind::NotInRepertoire
        | EvalErrorKind::Logarithm
        | EvalErrorKind::Power
        | EvalErrorKind::InvalidEscape
        | EvalErrorKind::Syntax
        | EvalErrorKind::UndefinedObject
        | EvalErrorKind::SqlJson(_) => Code::InvalidArgument,
    }
}

const fn transaction_error(error: &TransactionError) -> Code {
    match error {
        TransactionError::Aborted => Code::FailedPrecondition,
        TransactionError::Prohibited(_) | TransactionError::IsolationAfterQuery => {
            Code::FailedPrecondition
        }
        TransactionError::Required(_) => Code::FailedPrecondition,
        TransactionError::ReadOnly
        | TransactionError::ReadOnlyBlock(_)
        | TransactionError::WriteOnly
        | TransactionError::SubscribeOnly
        | TransactionError::Timedomain { .. } => Code::FailedPrecondition,
        TransactionError::CatalogMoved | TransactionError::TableDropped { .. } => Code::Aborted,
    }
}

const fn session_error(error: &SessionError) -> Code {
    match error {
        SessionError::UnknownVariable(_) => Code::NotFound,
        SessionError::ReadOnlyVariable(_) => Code::InvalidArgument,
        SessionError::InvalidVariable { .. } => Code::InvalidArgument,
        SessionError::UnknownPrepared(_) => Code::NotFound,
        SessionError::UnknownSavepoint(_) => Code::NotFound,
        SessionError::DuplicatePrepared(_) => Code::AlreadyExists,
        SessionError::UnknownCursor(_) => Code::NotFound,
        SessionError::DuplicateCursor(_) => Code::AlreadyExists,
        SessionError::ParameterCount { .. } => Code::InvalidArgument,
        SessionError::CopyMismatch(_) => Code::InvalidArgument,
    }
}

const fn type_error(error: &TypeError) -> Code {
    match error {
        TypeError::InvalidText { .. } => Code::InvalidArgument,
        TypeError::InvalidBinary { .. } => Code::InvalidArgument,
        TypeError::OutOfRange { .. } => Code::OutOfRange,
        TypeError::TooLong { .. } => Code::InvalidArgument,
        TypeError::InvalidParameter(_) => Code::InvalidArgument,
        TypeError::Unsupported(_) | TypeError::NotSupported(_) | TypeError::NumericNotHeld(_) => {
            Code::Unimplemented
        }
        TypeError::TooLarge => Code::ResourceExhausted,
        // `TypeError` is open for extension; what it may grow is not the client's fault.
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_what_postgresql_would_say() {
        let error =
            flowstone_sql::Error::new(ErrorKind::UndefinedTable, "unknown catalog item 'x'")
                .with_detail("It was not found.")
                .with_hint("Größe: maybe y.")
                .at(15);
        let status = status(&error.into());
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(
            status.message(),
            "unknown catalog item 'x' (SQLSTATE 42P01)\nDETAIL: It was not found.\nHINT: Größe: maybe y."
        );
        assert_eq!(
            status.metadata().get("flowstone-sqlstate").unwrap(),
            "42P01"
        );
        assert_eq!(status.metadata().get("flowstone-position").unwrap(), "15");
        let hint = status.metadata().get_bin("flowstone-hint-bin").unwrap();
        assert_eq!(
            hint.to_bytes().unwrap().as_ref(),
            "Größe: maybe y.".as_bytes()
        );
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let status = status(&Error::Malformed("ü".repeat(5000)));
        assert!(status.message().len() < FIELD_BYTES_MAX + 40);
        assert!(status.message().contains('…'));
    }

    #[test]
    fn a_partial_ingest_says_how_far_it_came() {
        let error = Error::Partial {
            rows: 7,
            error: Box::new(Error::Value {
                place: "column \"a\"".to_owned(),
                error: TypeError::OutOfRange {
                    type_name: "smallint".to_owned(),
                    value: "70000".to_owned(),
                },
            }),
        };
        let status = status(&error);
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(
            status.message(),
            "column \"a\": value \"70000\" is out of range for type smallint (SQLSTATE 22003)\nDETAIL: 7 rows were committed before."
        );
    }
}
