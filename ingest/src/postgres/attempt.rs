//! Why an attempt to run a source ended, and what follows from it.

use super::wire::{ServerError, WireError};
use crate::Error;

/// Why an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttemptError {
    /// It may work later.
    Transient {
        message: String,
        hint: Option<String>,
    },
    /// It will never work.
    Permanent {
        message: String,
        hint: Option<String>,
    },
    /// Nothing is wrong: the connection was altered.
    Altered,
    /// The source is being stopped.
    Stopped,
}

impl AttemptError {
    /// A permanent error with a hint.
    pub(crate) fn permanent(message: impl Into<String>, hint: &str) -> Self {
        Self::Permanent {
            message: message.into(),
            hint: Some(hint.to_owned()),
        }
    }

    /// A bug of ours; retried, since nothing better can be done with it.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        Self::Transient {
            message: format!("internal error: {error}"),
            hint: None,
        }
    }
}

impl From<WireError> for AttemptError {
    fn from(error: WireError) -> Self {
        let hint = match &error {
            WireError::Server(ServerError { hint, .. }) => hint.clone(),
            _ => None,
        };
        Self::Transient {
            message: error.to_string(),
            hint,
        }
    }
}

impl From<flowstone_storage::Error> for AttemptError {
    fn from(error: flowstone_storage::Error) -> Self {
        Error::Storage(error).into()
    }
}

impl From<Error> for AttemptError {
    fn from(error: Error) -> Self {
        let causes =
            std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        let message = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        Self::Transient {
            message,
            hint: None,
        }
    }
}
