//! Why a call means nothing: PostgreSQL's messages and hints.

use std::fmt;

use datafusion::common::DataFusionError;

use super::{Given, NoCommonType};

/// What was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Called {
    /// A function, aggregate or window function.
    Function {
        /// Its name.
        name: String,
        /// Its arguments.
        given: Vec<Given>,
    },
    /// An operator.
    Operator {
        /// Its symbol.
        symbol: String,
        /// The left operand, of an operator that has one.
        left: Option<Given>,
        /// The right operand.
        right: Given,
    },
}

/// Why there is no such call.
#[derive(Debug)]
pub enum CallError {
    /// There is none of this name for these arguments (`42883`).
    Undefined(Called),
    /// There are several, and none is better than the others (`42725`).
    Ambiguous(Called),
    /// Nothing says what a polymorphic parameter is (`42804`).
    Indeterminate,
    /// The arguments must have a type in common and have none (`42804`, or `42846` if they are of one category).
    Mismatch {
        /// The construct, in upper case: `COALESCE`.
        construct: String,
        /// The types that clash.
        types: NoCommonType,
    },
    /// A construct with the wrong number of arguments (`42601`).
    WrongCount {
        /// The construct, in upper case.
        construct: String,
    },
    /// PostgreSQL has it, and we do not (`0A000`).
    Unsupported {
        /// What.
        message: String,
        /// What can be done instead.
        hint: &'static str,
    },
    /// What a function returns could not be found out: planning ran out of its budget, or a function does not take what the table says, which is a fault of ours.
    Broken(Box<DataFusionError>),
}

impl From<DataFusionError> for CallError {
    fn from(error: DataFusionError) -> Self {
        Self::Broken(Box::new(error))
    }
}

impl CallError {
    /// A fault of the tables.
    pub(super) fn broken(message: impl Into<String>) -> Self {
        DataFusionError::Internal(message.into()).into()
    }

    /// The hint that PostgreSQL gives.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Undefined(Called::Function { .. }) => Some(
                "No function matches the given name and argument types. You might need to add explicit type casts.",
            ),
            Self::Undefined(Called::Operator { left: None, .. }) => Some(
                "No operator matches the given name and argument type. You might need to add an explicit type cast.",
            ),
            Self::Undefined(Called::Operator { .. }) => Some(
                "No operator matches the given name and argument types. You might need to add explicit type casts.",
            ),
            Self::Ambiguous(Called::Function { .. }) => Some(
                "Could not choose a best candidate function. You might need to add explicit type casts.",
            ),
            Self::Ambiguous(Called::Operator { .. }) => Some(
                "Could not choose a best candidate operator. You might need to add explicit type casts.",
            ),
            Self::Unsupported { hint, .. } => Some(hint),
            Self::Indeterminate
            | Self::Mismatch { .. }
            | Self::WrongCount { .. }
            | Self::Broken(_) => None,
        }
    }
}

/// `foo(integer, unknown)`, `text + integer`, `- text`.
impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function { name, given } => {
                let types: Vec<String> = given.iter().map(Given::to_string).collect();
                write!(f, "{name}({})", types.join(", "))
            }
            Self::Operator {
                symbol,
                left: Some(left),
                right,
            } => write!(f, "{left} {symbol} {right}"),
            Self::Operator {
                symbol,
                left: None,
                right,
            } => write!(f, "{symbol} {right}"),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undefined(called @ Called::Function { .. }) => {
                write!(f, "function {called} does not exist")
            }
            Self::Undefined(called @ Called::Operator { .. }) => {
                write!(f, "operator does not exist: {called}")
            }
            Self::Ambiguous(called @ Called::Function { .. }) => {
                write!(f, "function {called} is not unique")
            }
            Self::Ambiguous(called @ Called::Operator { .. }) => {
                write!(f, "operator is not unique: {called}")
            }
            Self::Indeterminate => {
                f.write_str("could not determine polymorphic type because input has type unknown")
            }
            Self::Mismatch { construct, types } => write!(f, "{construct} {types}"),
            Self::WrongCount { construct } => {
                write!(f, "wrong number of arguments to {construct}")
            }
            Self::Unsupported { message, .. } => f.write_str(message),
            Self::Broken(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for CallError {}
