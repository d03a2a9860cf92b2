//! SQL/JSON paths: a language of its own inside of texts, for finding parts of documents.
//!
//! Owns the syntax of paths and what they find ([`Path::find`]), by PostgreSQL's rules. Only `functions` knows Arrow. Called through the functions and operators that take a path.
//!
//! Invariants. What is found is handed on in the order in which it is met and copied by whoever keeps it. A path is made of at most [`PARTS_MAX`] parts, which bounds
//! the depth of everything that goes through it.

mod conditions;
mod decimal;
mod evaluate;
mod functions;
mod lexer;
mod operands;
mod parser;

use flowstone_types::jsonb::JsonbBuf;
use flowstone_types::{EvalError, EvalErrorKind};

use crate::errors::EvalResult;

pub(crate) use functions::functions;

/// Most parts of a path: accessors, operators, operands.
const PARTS_MAX: usize = 500;
/// Deepest nesting of parentheses and filters.
const DEPTH_MAX: usize = 100;

/// A path that has been read.
#[derive(Debug)]
struct Path {
    /// Whether structural errors are overlooked, and arrays are like their items where these are asked for.
    is_lax: bool,
    root: Node,
}

/// Whether a text is a path.
///
/// # Errors
/// [`EvalErrorKind::Syntax`] if it is none, and errors of the regular expressions in it.
pub fn check(text: &str) -> Result<(), EvalError> {
    Path::parse(text).map(|_| ())
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// [`EvalErrorKind::Syntax`] if it is none, and errors of the regular expressions in it.
    fn parse(text: &str) -> EvalResult<Self> {
        parser::parse(text)
    }
}

/// An operand or a condition, with accessors behind it.
#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    steps: Vec<Step>,
}

impl Node {
    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            steps: Vec::new(),
        }
    }

    /// Whether it is true, false or unknown, rather than a sequence of items.
    fn is_predicate(&self) -> bool {
        self.steps.is_empty()
            && matches!(
                self.kind,
                Kind::And(..)
                    | Kind::Or(..)
                    | Kind::Not(_)
                    | Kind::IsUnknown(_)
                    | Kind::Exists(_)
                    | Kind::Compare(..)
                    | Kind::StartsWith(..)
                    | Kind::LikeRegex(..)
            )
    }
}

#[derive(Clone, Debug)]
enum Kind {
    /// `$`
    Root,
    /// `@`
    Current,
    /// `last`
    Last,
    Value(JsonbBuf),
    Variable(String),
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    Sign(Sign, Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    IsUnknown(Box<Node>),
    Exists(Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    StartsWith(Box<Node>, Box<Node>),
    LikeRegex(Box<Node>, Pattern),
}

#[derive(Clone, Debug)]
enum Step {
    /// `.key`
    Member(String),
    /// `.*`
    AnyMember,
    /// `[1, 2 to 3]`
    Items(Vec<Subscript>),
    /// `[*]`
    AnyItem,
    /// `.**{first to last}`
    Descendants(Levels),
    /// `?(condition)`
    Filter(Node),
    Method(Method),
}

/// Levels below an item, which is level 0. [`Levels::LEAVES`] stands for those that have nothing below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Levels {
    first: u32,
    last: u32,
}

impl Levels {
    /// No document is that deep.
    const LAST: u32 = u32::MAX;
    const LEAVES: Self = Self {
        first: Self::LAST,
        last: Self::LAST,
    };
}

#[derive(Clone, Debug)]
struct Subscript {
    from: Node,
    to: Option<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Type,
    Size,
    Double,
    Ceiling,
    Floor,
    Abs,
    KeyValue,
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Size => "size",
            Self::Double => "double",
            Self::Ceiling => "ceiling",
            Self::Floor => "floor",
            Self::Abs => "abs",
            Self::KeyValue => "keyvalue",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Arithmetic {
    const fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

impl Sign {
    const fn symbol(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A regular expression with the flags that the functions of text know.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    flags: String,
}

fn syntax_error(message: impl Into<String>) -> EvalError {
    EvalError::new(EvalErrorKind::Syntax, message)
}

#[cfg(test)]
mod tests;
