//! Why an attempt to read a topic ended, and what follows from it.

use flowstone_proto::kafka::KafkaConnection;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::certificate::refusal;
use super::client::{Trouble, worst};
use crate::Error;

/// Why an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
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
    /// It will never work if it is so a few times in a row: clusters that start or change leaders tell such things as well.
    Suspect { message: String, hint: String },
    /// Nothing is wrong: there are more partitions, or the connection was altered.
    Again,
    /// The source is being stopped.
    Stopped,
}

impl Ended {
    pub(crate) fn transient(message: impl Into<String>) -> Self {
        Self::Transient {
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn permanent(message: impl Into<String>, hint: &str) -> Self {
        Self::Permanent {
            message: message.into(),
            hint: Some(hint.to_owned()),
        }
    }

    /// A request was not answered; `reasons` are the words of the library meanwhile.
    pub(crate) fn unanswered(error: &KafkaError, reasons: &[(RDKafkaErrorCode, String)]) -> Self {
        match worst(reasons) {
            Some((trouble, words)) => Self::unreachable(trouble, words),
            None => Self::Transient {
                message: format!("Kafka cannot be reached: {error}"),
                hint: Some(Trouble::Connection.hint().to_owned()),
            },
        }
    }

    pub(crate) fn unreachable(trouble: Trouble, words: &str) -> Self {
        Self::Transient {
            message: format!("Kafka cannot be reached: {words}"),
            hint: Some(trouble.hint().to_owned()),
        }
    }

    /// The same with what is wrong with a certificate, if it is about one. Asks the broker; blocks.
    pub(crate) fn explained(self, connection: &KafkaConnection) -> Self {
        match self {
            Self::Transient { message, hint } => match refusal(connection, &message) {
                Some(refusal) => Self::Transient {
                    message: format!("{message} ({})", refusal.reason),
                    hint: Some(refusal.hint.to_owned()),
                },
                None => Self::Transient { message, hint },
            },
            other => other,
        }
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        let causes =
            std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        Self::transient(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
    }
}
