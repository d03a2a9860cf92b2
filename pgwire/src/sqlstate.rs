//! Errors as PostgreSQL reports them: the fields of an `ErrorResponse`.
//!
//! What a session's errors are to a client is [`flowstone_coordinator::report`]'s business; here are those that only this protocol has.
//! Every `match` here is exhaustive, so that a new kind of error forces a decision.

use flowstone_coordinator::Report;

use crate::Error;
use crate::error::CopyFault;

/// The fields of an `ErrorResponse`.
#[must_use]
pub fn fields(error: &Error, severity: &str) -> Vec<(u8, String)> {
    let report = report(error);
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', report.code),
        (b'M', report.message),
    ];
    if let Error::Copy { context, .. } = error {
        fields.push((b'W', context.clone()));
    }
    fields.extend(report.detail.map(|detail| (b'D', detail)));
    fields.extend(report.hint.map(|hint| (b'H', hint)));
    fields.extend(report.position.map(|position| (b'P', position.to_string())));
    fields
}

/// Whether an error is a bug of ours, to be logged as one.
#[must_use]
pub fn is_bug(error: &Error) -> bool {
    report(error).is_bug()
}

fn report(error: &Error) -> Report {
    let code = match error {
        Error::Coordinator(error) => return error.into(),
        Error::Value(error) => return error.into(),
        Error::Auth(error) => return error.into(),
        Error::Copy {
            fault: CopyFault::Format,
            ..
        } => "22P04".to_owned(),
        Error::Copy {
            fault: CopyFault::TooLong,
            ..
        } => "54000".to_owned(),
        Error::Copy {
            fault: CopyFault::Value(value),
            ..
        } => {
            return Report {
                message: error.to_string(),
                ..Report::from(value)
            };
        }
        Error::Copy {
            fault: CopyFault::Encoding,
            ..
        }
        | Error::Encoding(_) => "22021".to_owned(),
        Error::DuplicateStatement(_) => "42P05".to_owned(),
        Error::DuplicatePortal(_) => "42P03".to_owned(),
        Error::CopyAbandoned(_) => "57014".to_owned(),
        Error::UnknownStatement(_) => "26000".to_owned(),
        Error::UnknownPortal(_) => "34000".to_owned(),
        Error::Full(_) => "53300".to_owned(),
        Error::ValueTooLong(_) => "54000".to_owned(),
        Error::TlsRequired => {
            return Report::new("28000", error.to_string()).with_hint(
                "Connect with TLS: set sslmode to \"verify-full\", or at least to \"require\".",
            );
        }
        Error::Protocol(_) | Error::UnencryptedData => "08P01".to_owned(),
    };
    Report::new(code, error.to_string())
}

#[cfg(test)]
mod tests;
