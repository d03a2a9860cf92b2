//! What can go wrong with a format, and why a message is refused.

use std::borrow::Cow;
use std::fmt;

use flowstone_types::TypeError;

/// A definition that cannot be used, or a call that cannot be answered. What is wrong with a single message is no error but a row
/// ([`crate::rows::BadRow`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A schema, pattern or option is no such thing, or contradicts itself: whoever wrote it can mend it.
    #[error("{0}")]
    Definition(String),
    /// A schema that is well formed and says something we have no column for.
    #[error("{0}")]
    Unsupported(String),
    /// More bytes in one call than a column is sure to hold: the caller splits the batch.
    #[error("a batch of messages is larger than {0} bytes")]
    BatchTooLarge(usize),
    /// A value that cannot be written in the format.
    #[error(transparent)]
    Value(#[from] TypeError),
}

impl Error {
    /// A [`Error::Definition`].
    pub(crate) fn definition(message: impl Into<String>) -> Self {
        Self::Definition(message.into())
    }

    /// A [`Error::Unsupported`].
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::Unsupported(message.into())
    }
}

/// Why one message is refused: a sentence for the error relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(Cow<'static, str>);

impl Fault {
    pub(crate) fn into_reason(self) -> String {
        self.0.into_owned()
    }

    /// The same, with what it is about before it.
    pub(crate) fn of(self, what: &str) -> Self {
        Self(Cow::Owned(format!("{what}: {}", self.0)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Self {
        Self(Cow::Borrowed(reason))
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self(Cow::Owned(reason))
    }
}

impl From<TypeError> for Fault {
    fn from(error: TypeError) -> Self {
        Self(Cow::Owned(shortened(&error.to_string())))
    }
}

/// Characters of a reason that are kept: values that cannot be read may be as long as a message.
const REASON_MAX: usize = 300;

/// At most [`REASON_MAX`] characters of a text.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(REASON_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
