//! Errors as PostgreSQL reports them: SQLSTATE, message, detail, hint, position.
//!
//! Every `match` here is exhaustive, so that a new kind of error forces a decision.

use flowstone_coordinator::{Error as CoordinatorError, SessionError, TransactionError};
use flowstone_proto::message::RequestError;
use flowstone_sql::error::ErrorKind;
use flowstone_types::{EvalErrorKind, TypeError};

use crate::Error;
use crate::error::CopyFault;

/// The fields of an `ErrorResponse`.
#[must_use]
pub fn fields(error: &Error, severity: &str) -> Vec<(u8, String)> {
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', sqlstate(error)),
        (b'M', error.to_string()),
    ];
    let (mut detail, mut hint, mut position) = (None, None, None);
    match error {
        Error::Coordinator(CoordinatorError::Sql(sql)) => {
            detail.clone_from(&sql.detail);
            hint.clone_from(&sql.hint);
            position = sql.position;
        }
        Error::Coordinator(CoordinatorError::Request(RequestError::Upstream {
            detail: more,
            hint: way_out,
            ..
        })) => {
            detail.clone_from(more);
            hint.clone_from(way_out);
        }
        Error::Coordinator(CoordinatorError::Request(RequestError::OutOfMemory {
            detail: more,
        })) => {
            detail = Some(more.clone());
            hint = Some(
                "Join on equal columns, filter earlier, or start the node with a larger query_memory_mib."
                    .to_owned(),
            );
        }
        Error::Coordinator(CoordinatorError::Transaction(transaction)) => {
            detail = transaction.detail()
        }
        Error::Coordinator(CoordinatorError::Session(SessionError::InvalidVariable {
            hint: way_out,
            ..
        })) => hint.clone_from(way_out),
        Error::Coordinator(CoordinatorError::Session(SessionError::ParameterCount {
            expected,
            actual,
            ..
        })) => {
            detail = Some(format!("Expected {expected} parameters but got {actual}."));
        }
        Error::Copy { context, .. } => fields.push((b'W', context.clone())),
        _ => {}
    }
    fields.extend(detail.map(|detail| (b'D', detail)));
    fields.extend(hint.map(|hint| (b'H', hint)));
    fields.extend(position.map(|position| (b'P', position.to_string())));
    fields
}

/// Whether an error is a bug of ours, to be logged as one.
#[must_use]
pub fn is_bug(error: &Error) -> bool {
    sqlstate(error) == "XX000"
}

/// The SQLSTATE of an error.
#[must_use]
pub fn sqlstate(error: &Error) -> String {
    let code = match error {
        Error::Coordinator(error) => return coordinator_sqlstate(error),
        Error::Value(error) => type_error(error),
        Error::Copy {
            fault: CopyFault::Format,
            ..
        } => "22P04",
        Error::Copy {
            fault: CopyFault::Value(error),
            ..
        } => type_error(error),
        Error::Copy {
            fault: CopyFault::Encoding,
            ..
        }
        | Error::Encoding(_) => "22021",
        Error::DuplicateStatement(_) => "42P05",
        Error::DuplicatePortal(_) => "42P03",
        Error::CopyAbandoned(_) => "57014",
        Error::UnknownStatement(_) => "26000",
        Error::UnknownPortal(_) => "34000",
        Error::ValueTooLong(_) => "54000",
        Error::Protocol(_) => "08P01",
    };
    code.to_owned()
}

fn coordinator_sqlstate(error: &CoordinatorError) -> String {
    let code = match error {
        CoordinatorError::Sql(error) => sql_error(error.kind),
        CoordinatorError::Request(error) => return request_error(error),
        CoordinatorError::Transaction(error) => transaction_error(error),
        CoordinatorError::Session(error) => session_error(error),
        CoordinatorError::Cancelled | CoordinatorError::Timeout => "57014",
        CoordinatorError::Unavailable(_) => "57P03",
        CoordinatorError::Internal(_) => "XX000",
    };
    code.to_owned()
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
        ErrorKind::DuplicateDatabase => "42P04",
        ErrorKind::DuplicateSchema => "42P06",
        ErrorKind::DuplicateTable => "42P07",
        ErrorKind::DuplicateColumn => "42701",
        ErrorKind::DuplicateObject => "42710",
        ErrorKind::WrongObjectType => "42809",
        ErrorKind::DependentObjectsStillExist => "2BP01",
        ErrorKind::DatatypeMismatch => "42804",
        ErrorKind::Grouping => "42803",
        ErrorKind::IndeterminateDatatype => "42P18",
        ErrorKind::InvalidColumnReference => "42P10",
        ErrorKind::InvalidName => "42602",
        ErrorKind::InvalidParameterValue => "22023",
        ErrorKind::InvalidTextRepresentation => "22P02",
        ErrorKind::NumericOutOfRange => "22003",
        ErrorKind::InvalidTableDefinition => "42P16",
        ErrorKind::InvalidObjectDefinition => "42P17",
        ErrorKind::InsufficientPrivilege => "42501",
        ErrorKind::DuplicateAlias => "42712",
        ErrorKind::NotNullViolation => "23502",
        ErrorKind::InvalidRowCount => "2201W",
        ErrorKind::Evaluation(kind) => eval_error(kind),
        ErrorKind::Internal => "XX000",
    }
}

fn request_error(error: &RequestError) -> String {
    let code = match error {
        RequestError::Eval(error) => eval_error(error.kind),
        RequestError::SinceAdvanced { .. } => "22023",
        RequestError::NotNull { .. } => "23502",
        RequestError::Dropped => "42P01",
        RequestError::Cancelled => "57014",
        RequestError::SlowConsumer { .. } => "53400",
        RequestError::OutOfMemory { .. } => "53200",
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
    }
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
        TransactionError::CatalogMoved => "40001",
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
        TypeError::Unsupported(_) => "0A000",
        // `TypeError` is open for extension; what it may grow is not the client's fault.
        _ => "XX000",
    }
}

#[cfg(test)]
mod tests;
