//! What can be wrong with a statement. `coordinator::report` maps each kind to one SQLSTATE.

use flowstone_types::EvalErrorKind;

/// The class of a statement error; `coordinator::report` maps each to its SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// `42601`
    Syntax,
    /// `0A000`
    FeatureNotSupported,
    /// `3D000`
    UnknownDatabase,
    /// `3F000`
    UnknownSchema,
    /// `42P01`
    UndefinedTable,
    /// `42703`
    UndefinedColumn,
    /// `42883`
    UndefinedFunction,
    /// `42704`: any other object that does not exist.
    UndefinedObject,
    /// `42702`
    AmbiguousColumn,
    /// `42725`
    AmbiguousFunction,
    /// `42P04`
    DuplicateDatabase,
    /// `42P06`
    DuplicateSchema,
    /// `42P07`
    DuplicateTable,
    /// `42701`
    DuplicateColumn,
    /// `42710`: any other object that exists already.
    DuplicateObject,
    /// `42809`: an object of another kind than the statement needs.
    WrongObjectType,
    /// `2BP01`
    DependentObjectsStillExist,
    /// `42804`
    DatatypeMismatch,
    /// `42846`: there is no such cast.
    CannotCoerce,
    /// `42803`
    Grouping,
    /// `42P18`: the type of a parameter cannot be determined.
    IndeterminateDatatype,
    /// `42P10`, `42P20`, `42P19` and other invalid references.
    InvalidColumnReference,
    /// `54001`
    TooComplex,
    /// `42602`
    InvalidName,
    /// `22023`
    InvalidParameterValue,
    /// `22P02`: a literal that is not a value of its type.
    InvalidTextRepresentation,
    /// `22003`
    NumericOutOfRange,
    /// `42P16`
    InvalidTableDefinition,
    /// `42P17`: a view that cannot be maintained.
    InvalidObjectDefinition,
    /// `42501`
    InsufficientPrivilege,
    /// `42939`: a name that is the system's.
    ReservedName,
    /// `55006`: it is in use.
    ObjectInUse,
    /// `55000`: it is not in the state that the statement needs.
    NotInPrerequisiteState,
    /// `42712`: two relations of one name in FROM or WITH.
    DuplicateAlias,
    /// `23502`
    NotNullViolation,
    /// `2201W`
    InvalidRowCount,
    /// `2201X`
    InvalidOffset,
    /// `42P20`: a window that cannot be.
    Windowing,
    /// `22013`: the offset of a window frame is negative.
    InvalidFrameOffset,
    /// A constant expression could not be evaluated.
    Evaluation(EvalErrorKind),
    /// `XX000`: a bug of ours.
    Internal,
}

/// An error in a statement: what is wrong, where, and what the user can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The class.
    pub kind: ErrorKind,
    /// Primary message: lower case, no full stop.
    pub message: String,
    /// More about it: full sentences.
    pub detail: Option<String>,
    /// What the user can do: full sentences.
    pub hint: Option<String>,
    /// Where in the text of the whole query string: characters, from 1.
    pub position: Option<usize>,
}

impl Error {
    /// An error of class `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
        }
    }

    /// A syntax error.
    pub fn syntax(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Syntax, message)
    }

    /// Something we do not do (yet).
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::FeatureNotSupported, message)
    }

    /// A bug of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// With a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a position, in characters from 1.
    #[must_use]
    pub const fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }
}
