//! Why a statement failed, as this crate meets it.

use flowstone_types::TypeError;

/// A statement failed, and the connection goes on; or a session could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The session refused or failed it.
    #[error(transparent)]
    Coordinator(#[from] flowstone_coordinator::Error),
    /// A value cannot be read or shown.
    #[error(transparent)]
    Value(#[from] TypeError),
    /// A line of COPY data is wrong.
    #[error("{message}")]
    Copy {
        /// What is wrong.
        message: String,
        /// Which line, and what it holds.
        context: String,
        /// What kind of thing is wrong with it.
        fault: CopyFault,
    },
    /// Text that is not UTF-8, or holds a zero byte.
    #[error("invalid byte sequence for encoding \"UTF8\": {0}")]
    Encoding(String),
    /// A prepared statement of that name exists.
    #[error("prepared statement \"{0}\" already exists")]
    DuplicateStatement(String),
    /// A portal of that name exists.
    #[error("portal \"{0}\" already exists")]
    DuplicatePortal(String),
    /// The client gave up its COPY.
    #[error("COPY from stdin failed: {0}")]
    CopyAbandoned(String),
    /// No prepared statement of that name.
    #[error("prepared statement \"{0}\" does not exist")]
    UnknownStatement(String),
    /// No portal of that name.
    #[error("portal \"{0}\" does not exist")]
    UnknownPortal(String),
    /// A value longer than a message can carry.
    #[error("value of {0} bytes is too long for the protocol")]
    ValueTooLong(usize),
    /// Somebody is not who they say, or may not log in. The connection ends.
    #[error(transparent)]
    Auth(#[from] flowstone_coordinator::AuthError),
    /// There is no room for the connection. It ends.
    #[error(transparent)]
    Full(#[from] flowstone_tls::Full),
    /// The connection is not encrypted, and must be. It ends.
    #[error("connections without TLS are not accepted")]
    TlsRequired,
    /// There was data behind the request for TLS. The connection ends.
    #[error("received unencrypted data after SSL request")]
    UnencryptedData,
    /// The client broke the protocol in a way that the next `Sync` mends.
    #[error("{0}")]
    Protocol(String),
}

/// What is wrong with a line of COPY data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFault {
    /// It does not follow the format.
    Format,
    /// A row is longer than a gigabyte.
    TooLong,
    /// It is not text.
    Encoding,
    /// A field is not a value of its column's type.
    Value(TypeError),
}

impl Error {
    /// Bytes of a client that are not text.
    pub(crate) fn encoding(bytes: &[u8]) -> Self {
        let shown: &[u8] = match std::str::from_utf8(bytes) {
            // The only character of Unicode that text cannot hold.
            Ok(_) => &[0],
            Err(error) => {
                let start = error.valid_up_to();
                let end = error
                    .error_len()
                    .map_or(bytes.len(), |length| start + length);
                bytes.get(start..end).unwrap_or_default()
            }
        };
        Self::Encoding(
            shown
                .iter()
                .map(|byte| format!("0x{byte:02x}"))
                .collect::<Vec<_>>()
                .join(" "),
        )
    }
}

impl From<flowstone_sql::Error> for Error {
    fn from(error: flowstone_sql::Error) -> Self {
        Self::Coordinator(error.into())
    }
}
