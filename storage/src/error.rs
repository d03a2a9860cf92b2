//! What can go wrong with durable data, sorted by what the caller does about it.

use std::path::{Path, PathBuf};

use flowstone_types::{ObjectId, TypeError};

/// A cause kept for the log.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why data could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused. Retry with backoff; nothing was acknowledged.
    #[error("could not {action} file \"{}\"", path.display())]
    Io {
        /// What was attempted: `write`, `sync`, …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// An object store or a library over it refused. Retry with backoff; ask for the recorded epoch before doing anything else.
    #[error("could not {action}")]
    Environment {
        /// What was attempted.
        action: String,
        /// Why it failed.
        source: Cause,
    },
    /// A file does not hold what was written to it. Refuse to start, and name the file.
    #[error("file \"{}\" is damaged: {reason}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file was written by a newer release. Refuse to start.
    #[error("file \"{}\" has format version {found}, but this release reads versions up to {supported}", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },
    /// A value or a column has no stored form.
    #[error("could not convert a value for storage")]
    Value(#[from] TypeError),
    /// The table was dropped: nothing is written for it any more. Leave it out.
    #[error("table {0} was dropped")]
    Dropped(ObjectId),
    /// More than the format holds is to be written at once. Nothing was written; less at a time works.
    #[error(
        "what is written at once takes {bytes} bytes, but a record of the local log holds at most {limit}"
    )]
    TooLarge {
        /// What it takes.
        bytes: u64,
        /// What there is room for.
        limit: u64,
    },
    /// A bug of ours: the caller broke the contract, or state and files disagree. Stop; never carry on.
    #[error("storage invariant violated: {0}")]
    Invariant(String),
}

impl Error {
    /// Whether the same call may succeed later without anybody repairing anything.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Environment { .. } => true,
            Self::Damaged { .. }
            | Self::NewerFormat { .. }
            | Self::Value(_)
            | Self::Dropped(_)
            | Self::TooLarge { .. }
            | Self::Invariant(_) => false,
        }
    }

    /// Whether the file system has no room left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<std::io::Error>() {
                return is_full(error);
            }
            cause = error.source();
        }
        false
    }

    pub(crate) fn environment(action: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Environment {
            action: action.into(),
            source: source.into(),
        }
    }

    pub(crate) fn damaged(file: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Whether the operating system says that there is no room left, on the file system or for its user.
fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    )
}

impl From<arrow_schema::ArrowError> for Error {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Value(error.into())
    }
}
