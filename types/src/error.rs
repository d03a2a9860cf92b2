//! What can go wrong with a value, and how an evaluation error becomes data.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

/// Why a value could not be read, written or computed. The SQLSTATE of each is chosen by `coordinator::report`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeError {
    /// Text that is not a value of the type.
    #[error("invalid input syntax for type {type_name}: \"{text}\"")]
    InvalidText {
        /// SQL name of the type.
        type_name: String,
        /// The text as given.
        text: String,
    },
    /// Bytes that are not a value of the type in PostgreSQL's binary format.
    #[error("invalid binary representation of type {type_name}: {reason}")]
    InvalidBinary {
        /// SQL name of the type.
        type_name: String,
        /// What is wrong with the bytes.
        reason: String,
    },
    /// A value outside the range of its type.
    #[error("value \"{value}\" is out of range for type {type_name}")]
    OutOfRange {
        /// SQL name of the type.
        type_name: String,
        /// The value as text.
        value: String,
    },
    /// A string longer than the `n` of its `varchar(n)` or `char(n)`.
    #[error("value too long for type {type_name}")]
    TooLong {
        /// SQL name of the type with its length.
        type_name: String,
    },
    /// An operation that its arguments do not allow; the text is the whole message.
    #[error("{0}")]
    InvalidParameter(String),
    /// An Arrow type that no SQL type maps to.
    #[error("unsupported type {0}")]
    Unsupported(String),
    /// A value that PostgreSQL has and we cannot hold; the text is the whole message.
    #[error("{0}")]
    NotSupported(String),
    /// A number that PostgreSQL's `numeric` holds and ours does not; the text is the whole message.
    #[error("{0}")]
    NumericNotHeld(String),
    /// A weight left the range of `i64`.
    #[error("multiplicity out of range")]
    WeightOverflow,
    /// More text or bytes than a column of a batch holds.
    #[error("a column of a result would be larger than 2 GiB")]
    TooLarge,
    /// Arrow refused a kernel call: a bug of ours.
    #[error("internal error in a columnar kernel: {0}")]
    Kernel(String),
}

impl From<arrow_schema::ArrowError> for TypeError {
    fn from(error: arrow_schema::ArrowError) -> Self {
        match error {
            arrow_schema::ArrowError::OffsetOverflowError(_) => Self::TooLarge,
            other => Self::Kernel(other.to_string()),
        }
    }
}

/// The class of an evaluation error, stable on the wire; each maps to one SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EvalErrorKind {
    /// `22012`
    DivisionByZero,
    /// `22003`
    NumericOutOfRange,
    /// `22P02`: text that is not a value of its type.
    InvalidText,
    /// `22008`
    DatetimeOverflow,
    /// `21000`: a scalar subquery with more than one row.
    Cardinality,
    /// `22023`
    InvalidParameter,
    /// `22000`: any other failure of data.
    Data,
    /// A source cannot go on with this collection; permanent until it is dropped.
    Source,
    /// `XX000`: a bug of ours.
    Internal,
    /// `22001`: text longer than its column takes.
    TooLong,
    /// `22007`: text that is not a date or time.
    DatetimeFormat,
    /// `2201B`
    InvalidRegex,
    /// `54000`: more than a value or a column of a batch can hold.
    TooLarge,
    /// `53200`: more than statements may hold at a time.
    OutOfMemory,
    /// `57014`: nobody waits for the result any more.
    Cancelled,
    /// `0A000`: a value that PostgreSQL has and we cannot hold.
    NotSupported,
    /// `0A000`: a number that PostgreSQL's `numeric` holds and ours does not.
    NumericNotHeld,
    /// `22011`: a length of a substring that is none.
    Substring,
    /// `2202E`: a subscript that is none, of arrays and bytes.
    Subscript,
    /// `2201G`: buckets that cannot be.
    Buckets,
    /// `22004`: NULL where there must be a value.
    NullNotAllowed,
    /// `54000`: a character that there is not.
    NoCharacter,
    /// `22P05`: a character that another encoding has not.
    Untranslatable,
    /// `22021`: bytes that are no characters of an encoding.
    NotInRepertoire,
    /// `2201E`: a number that has no logarithm.
    Logarithm,
    /// `2201F`: a number that has no such power.
    Power,
    /// `22025`: what cannot be an escape in a pattern.
    InvalidEscape,
    /// `42601`: a text that is written in a syntax of its own, and wrongly.
    Syntax,
    /// `42704`: a name that stands for nothing.
    UndefinedObject,
    /// A document is not what a path into it asks for.
    SqlJson(SqlJsonKind),
}

/// What a path of the SQL/JSON language asks for and a document has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SqlJsonKind {
    /// `22033`: an item of an array that is there.
    Subscript,
    /// `22036`: an item that is a number, or becomes one.
    NonNumeric,
    /// `22038`: just one item.
    Singleton,
    /// `22039`: an array.
    ArrayNotFound,
    /// `2203A`: a member of that name.
    MemberNotFound,
    /// `2203B`: a number.
    NumberNotFound,
    /// `2203C`: an object.
    ObjectNotFound,
}

/// The words with which builders and offsets of Arrow panic when 32 bits do not suffice.
const ARROW_OVERFLOWS: [&str; 2] = ["byte array offset overflow", "offset overflow"];

/// An evaluation error: data like any row, with a weight, retracted when the row that caused it goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EvalError {
    /// The class of the error.
    pub kind: EvalErrorKind,
    /// PostgreSQL's wording: lower case, no full stop.
    pub message: String,
}

impl EvalError {
    /// What a panic while a query or an expression ran is to those who asked: [`EvalErrorKind::TooLarge`] where it is how Arrow says that a column of text
    /// would pass 2 GiB, else [`EvalErrorKind::Internal`].
    #[must_use]
    pub fn of_panic(payload: &(dyn Any + Send)) -> Self {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("unknown panic");
        if ARROW_OVERFLOWS.contains(&message) {
            return Self::too_large();
        }
        Self::new(EvalErrorKind::Internal, format!("panic: {message}"))
    }

    /// More text or bytes than a column of a batch holds.
    #[must_use]
    pub fn too_large() -> Self {
        Self::new(EvalErrorKind::TooLarge, TypeError::TooLarge.to_string())
    }

    /// A result that PostgreSQL's `numeric` holds and ours does not: it has too many digits.
    #[must_use]
    pub fn numeric_not_held() -> Self {
        Self::new(
            EvalErrorKind::NumericNotHeld,
            "numeric result has more digits than are supported",
        )
    }

    /// An error of class `kind`.
    pub fn new(kind: EvalErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EvalError {}

/// The schema of an error collection: `kind: Utf8, message: Utf8`, neither null. `kind` is the variant's name.
#[must_use]
pub fn error_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("kind", DataType::Utf8, false),
        Field::new("message", DataType::Utf8, false),
    ]))
}

#[cfg(test)]
mod tests {
    use arrow_buffer::OffsetBuffer;

    use super::*;

    #[test]
    fn what_is_too_much_for_arrow_is_told_from_other_panics() {
        let most = usize::try_from(i32::MAX).unwrap();
        let overflow = std::panic::catch_unwind(|| OffsetBuffer::<i32>::from_lengths([most, 1]));
        let error = EvalError::of_panic(overflow.unwrap_err().as_ref());
        assert_eq!(error.kind, EvalErrorKind::TooLarge);
        let other = std::panic::catch_unwind(|| panic!("{} apples", 3));
        let error = EvalError::of_panic(other.unwrap_err().as_ref());
        assert_eq!(
            (error.kind, error.message.as_str()),
            (EvalErrorKind::Internal, "panic: 3 apples")
        );
    }
}
