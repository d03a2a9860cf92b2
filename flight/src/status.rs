//! Errors as gRPC reports them: a status code, and SQLSTATE, detail, hint and position beside it.
//!
//! The message is for people and holds everything; the metadata entries are for programs: `flowstone-sqlstate`, `flowstone-position`,
//! `flowstone-detail-bin`, `flowstone-hint-bin`.
//!
//! Every `match` here is exhaustive, so that a new kind of error forces a decision.

use std::borrow::Cow;

use flowstone_coordinator::{Error as CoordinatorError, SessionError, TransactionError};
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
    let (code, sqlstate) = classify(error);
    if sqlstate == "XX000" {
        tracing::error!(%error, "a call met a bug");
    }
    let extra = extra(error);
    let mut message = format!("{} (SQLSTATE {sqlstate})", shorten(&error.to_string()));
    let mut metadata = MetadataMap::new();
    if let Ok(value) = MetadataValue::try_from(sqlstate.as_ref()) {
        metadata.insert("flowstone-sqlstate", value);
    }
    if let Some(position) = extra.position {
        metadata.insert("flowstone-position", MetadataValue::from(position));
    }
    for (name, key, text) in [
        ("DETAIL", "flowstone-detail-bin", extra.detail),
        ("HINT", "flowstone-hint-bin", extra.hint),
    ] {
        if let Some(text) = text {
            let text = shorten(&text);
            message.push_str(&format!("\n{name}: {text}"));
            metadata.insert_bin(key, MetadataValue::from_bytes(text.as_bytes()));
        }
    }
    Status::with_metadata(code, message, metadata)
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

#[derive(Default)]
struct Extra {
    detail: Option<String>,
    hint: Option<String>,
    position: Option<u64>,
}

impl Extra {
    fn hint(text: &str) -> Self {
        Self {
            hint: Some(text.to_owned()),
            ..Self::default()
        }
    }

    fn detail(text: String) -> Self {
        Self {
            detail: Some(text),
            ..Self::default()
        }
    }
}

fn extra(error: &Error) -> Extra {
    match error {
        Error::Coordinator(error) => coordinator_extra(error),
        Error::ParameterCount { expected, actual } => Extra::detail(format!(
            "Expected {expected} parameters but got {actual} columns."
        )),
        Error::Unbound => Extra::hint("Prepare the statement and bind its parameters."),
        Error::UnknownSession => {
            Extra::hint("Sessions end when they are idle for long: sign in again.")
        }
        Error::UnknownStatement => Extra::hint("Prepare it again."),
        Error::BindingGone => Extra::hint("Ask for the FlightInfo again."),
        Error::NeedsSession(_) => Extra::hint(
            "Sign in with a user name: the token that you get stands for a session. Transactions are begun and ended by Flight SQL's own actions.",
        ),
        Error::Partial { rows, error } => {
            let mut extra = extra(error);
            let committed = format!("{rows} rows were committed before.");
            extra.detail = Some(match extra.detail {
                Some(detail) => format!("{detail} {committed}"),
                None => committed,
            });
            extra
        }
        Error::Value { .. }
        | Error::Mismatch { .. }
        | Error::BadCredentials(_)
        | Error::UnknownTransaction
        | Error::TooMany(_)
        | Error::RolledBack
        | Error::Malformed(_)
        | Error::Unsupported(_)
        | Error::Stopping
        | Error::Internal(_) => Extra::default(),
    }
}

fn coordinator_extra(error: &CoordinatorError) -> Extra {
    match error {
        CoordinatorError::Sql(sql) => Extra {
            detail: sql.detail.clone(),
            hint: sql.hint.clone(),
            position: sql
                .position
                .and_then(|position| u64::try_from(position).ok()),
        },
        CoordinatorError::Request(RequestError::Upstream { detail, hint, .. }) => Extra {
            detail: detail.clone(),
            hint: hint.clone(),
            position: None,
        },
        CoordinatorError::Transaction(transaction) => Extra {
            detail: transaction.detail(),
            ..Extra::default()
        },
        CoordinatorError::Session(SessionError::InvalidVariable { hint, .. }) => Extra {
            hint: hint.clone(),
            ..Extra::default()
        },
        CoordinatorError::Session(SessionError::ParameterCount {
            expected, actual, ..
        }) => Extra::detail(format!("Expected {expected} parameters but got {actual}.")),
        CoordinatorError::Request(_)
        | CoordinatorError::Session(_)
        | CoordinatorError::Cancelled
        | CoordinatorError::Timeout
        | CoordinatorError::Unavailable(_)
        | CoordinatorError::Internal(_) => Extra::default(),
    }
}

/// The status code and the SQLSTATE of an error.
#[must_use]
pub fn classify(error: &Error) -> (Code, Cow<'static, str>) {
    let (code, sqlstate) = match error {
        Error::Coordinator(error) => return coordinator(error),
        Error::Partial { error, .. } => return classify(error),
        Error::Value { error, .. } => type_error(error),
        Error::Mismatch { .. } => (Code::InvalidArgument, "42804"),
        Error::ParameterCount { .. } => (Code::InvalidArgument, "08P01"),
        Error::Unbound => (Code::InvalidArgument, "42P02"),
        Error::UnknownSession | Error::BadCredentials(_) => (Code::Unauthenticated, "28000"),
        Error::UnknownStatement => (Code::NotFound, "26000"),
        Error::UnknownTransaction => (Code::NotFound, "25P01"),
        Error::BindingGone => (Code::FailedPrecondition, "34000"),
        Error::TooMany(_) => (Code::ResourceExhausted, "53400"),
        Error::NeedsSession(_) => (Code::FailedPrecondition, "0A000"),
        Error::RolledBack => (Code::FailedPrecondition, "40000"),
        Error::Malformed(_) => (Code::InvalidArgument, "08P01"),
        Error::Unsupported(_) => (Code::Unimplemented, "0A000"),
        Error::Stopping => (Code::Unavailable, "57P01"),
        Error::Internal(_) => (Code::Internal, "XX000"),
    };
    (code, Cow::Borrowed(sqlstate))
}

fn coordinator(error: &CoordinatorError) -> (Code, Cow<'static, str>) {
    let (code, sqlstate) = match error {
        CoordinatorError::Sql(error) => sql_error(error.kind),
        CoordinatorError::Request(error) => return request_error(error),
        CoordinatorError::Transaction(error) => transaction_error(error),
        CoordinatorError::Session(error) => session_error(error),
        CoordinatorError::Cancelled => (Code::Cancelled, "57014"),
        CoordinatorError::Timeout => (Code::DeadlineExceeded, "57014"),
        CoordinatorError::Unavailable(_) => (Code::Unavailable, "57P03"),
        CoordinatorError::Internal(_) => (Code::Internal, "XX000"),
    };
    (code, Cow::Borrowed(sqlstate))
}

const fn sql_error(kind: ErrorKind) -> (Code, &'static str) {
    match kind {
        ErrorKind::Syntax => (Code::InvalidArgument, "42601"),
        ErrorKind::FeatureNotSupported => (Code::Unimplemented, "0A000"),
        ErrorKind::UnknownDatabase => (Code::NotFound, "3D000"),
        ErrorKind::UnknownSchema => (Code::NotFound, "3F000"),
        ErrorKind::UndefinedTable => (Code::NotFound, "42P01"),
        ErrorKind::UndefinedColumn => (Code::NotFound, "42703"),
        ErrorKind::UndefinedFunction => (Code::NotFound, "42883"),
        ErrorKind::UndefinedObject => (Code::NotFound, "42704"),
        ErrorKind::AmbiguousColumn => (Code::InvalidArgument, "42702"),
        ErrorKind::DuplicateDatabase => (Code::AlreadyExists, "42P04"),
        ErrorKind::DuplicateSchema => (Code::AlreadyExists, "42P06"),
        ErrorKind::DuplicateTable => (Code::AlreadyExists, "42P07"),
        ErrorKind::DuplicateColumn => (Code::InvalidArgument, "42701"),
        ErrorKind::DuplicateObject => (Code::AlreadyExists, "42710"),
        ErrorKind::WrongObjectType => (Code::InvalidArgument, "42809"),
        ErrorKind::DependentObjectsStillExist => (Code::FailedPrecondition, "2BP01"),
        ErrorKind::DatatypeMismatch => (Code::InvalidArgument, "42804"),
        ErrorKind::Grouping => (Code::InvalidArgument, "42803"),
        ErrorKind::IndeterminateDatatype => (Code::InvalidArgument, "42P18"),
        ErrorKind::InvalidColumnReference => (Code::InvalidArgument, "42P10"),
        ErrorKind::InvalidName => (Code::InvalidArgument, "42602"),
        ErrorKind::InvalidParameterValue => (Code::InvalidArgument, "22023"),
        ErrorKind::InvalidTextRepresentation => (Code::InvalidArgument, "22P02"),
        ErrorKind::NumericOutOfRange => (Code::OutOfRange, "22003"),
        ErrorKind::InvalidTableDefinition => (Code::InvalidArgument, "42P16"),
        ErrorKind::InvalidObjectDefinition => (Code::InvalidArgument, "42P17"),
        ErrorKind::InsufficientPrivilege => (Code::PermissionDenied, "42501"),
        ErrorKind::ReservedName => (Code::InvalidArgument, "42939"),
        ErrorKind::ObjectInUse => (Code::FailedPrecondition, "55006"),
        ErrorKind::DuplicateAlias => (Code::InvalidArgument, "42712"),
        ErrorKind::NotNullViolation => (Code::FailedPrecondition, "23502"),
        ErrorKind::InvalidRowCount => (Code::InvalidArgument, "2201W"),
        ErrorKind::Evaluation(kind) => eval_error(kind),
        ErrorKind::Internal => (Code::Internal, "XX000"),
    }
}

fn request_error(error: &RequestError) -> (Code, Cow<'static, str>) {
    let (code, sqlstate) = match error {
        RequestError::Eval(error) => eval_error(error.kind),
        RequestError::SinceAdvanced { .. } => (Code::OutOfRange, "22023"),
        RequestError::NotNull { .. } => (Code::FailedPrecondition, "23502"),
        RequestError::Dropped => (Code::NotFound, "42P01"),
        RequestError::Cancelled => (Code::Cancelled, "57014"),
        RequestError::SlowConsumer { .. } => (Code::ResourceExhausted, "53400"),
        RequestError::OutOfMemory { .. } => (Code::ResourceExhausted, "53200"),
        RequestError::Upstream { sqlstate, .. } => {
            let sqlstate = sqlstate.clone().map_or(Cow::Borrowed("08006"), Cow::Owned);
            return (Code::Unavailable, sqlstate);
        }
        RequestError::Unsupported(_) => (Code::Unimplemented, "0A000"),
        RequestError::Internal(_) => (Code::Internal, "XX000"),
    };
    (code, Cow::Borrowed(sqlstate))
}

const fn eval_error(kind: EvalErrorKind) -> (Code, &'static str) {
    match kind {
        EvalErrorKind::DivisionByZero => (Code::InvalidArgument, "22012"),
        EvalErrorKind::NumericOutOfRange => (Code::OutOfRange, "22003"),
        EvalErrorKind::InvalidText => (Code::InvalidArgument, "22P02"),
        EvalErrorKind::DatetimeOverflow => (Code::OutOfRange, "22008"),
        EvalErrorKind::Cardinality => (Code::InvalidArgument, "21000"),
        EvalErrorKind::InvalidParameter => (Code::InvalidArgument, "22023"),
        EvalErrorKind::Data => (Code::InvalidArgument, "22000"),
        EvalErrorKind::Source => (Code::FailedPrecondition, "58000"),
        EvalErrorKind::Internal => (Code::Internal, "XX000"),
        EvalErrorKind::TooLong => (Code::InvalidArgument, "22001"),
        EvalErrorKind::DatetimeFormat => (Code::InvalidArgument, "22007"),
        EvalErrorKind::InvalidRegex => (Code::InvalidArgument, "2201B"),
    }
}

const fn transaction_error(error: &TransactionError) -> (Code, &'static str) {
    match error {
        TransactionError::Aborted => (Code::FailedPrecondition, "25P02"),
        TransactionError::Prohibited(_) | TransactionError::IsolationAfterQuery => {
            (Code::FailedPrecondition, "25001")
        }
        TransactionError::Required(_) => (Code::FailedPrecondition, "25P01"),
        TransactionError::ReadOnly
        | TransactionError::ReadOnlyBlock(_)
        | TransactionError::WriteOnly
        | TransactionError::SubscribeOnly
        | TransactionError::Timedomain { .. } => (Code::FailedPrecondition, "25006"),
        TransactionError::CatalogMoved => (Code::Aborted, "40001"),
    }
}

const fn session_error(error: &SessionError) -> (Code, &'static str) {
    match error {
        SessionError::UnknownVariable(_) => (Code::NotFound, "42704"),
        SessionError::ReadOnlyVariable(_) => (Code::InvalidArgument, "55P02"),
        SessionError::InvalidVariable { .. } => (Code::InvalidArgument, "22023"),
        SessionError::UnknownPrepared(_) => (Code::NotFound, "26000"),
        SessionError::DuplicatePrepared(_) => (Code::AlreadyExists, "42P05"),
        SessionError::UnknownCursor(_) => (Code::NotFound, "34000"),
        SessionError::DuplicateCursor(_) => (Code::AlreadyExists, "42P03"),
        SessionError::ParameterCount { .. } => (Code::InvalidArgument, "42601"),
        SessionError::CopyMismatch(_) => (Code::InvalidArgument, "22P04"),
    }
}

const fn type_error(error: &TypeError) -> (Code, &'static str) {
    match error {
        TypeError::InvalidText { .. } => (Code::InvalidArgument, "22P02"),
        TypeError::InvalidBinary { .. } => (Code::InvalidArgument, "22P03"),
        TypeError::OutOfRange { .. } => (Code::OutOfRange, "22003"),
        TypeError::TooLong { .. } => (Code::InvalidArgument, "22001"),
        TypeError::InvalidParameter(_) => (Code::InvalidArgument, "22023"),
        TypeError::Unsupported(_) => (Code::Unimplemented, "0A000"),
        // `TypeError` is open for extension; what it may grow is not the client's fault.
        _ => (Code::Internal, "XX000"),
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
