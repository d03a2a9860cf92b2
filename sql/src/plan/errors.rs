//! From what DataFusion says to what PostgreSQL would say.
//!
//! Owns the mapping of planning errors to [`Error`]: kind, wording and position. Called by [`crate::plan`] and [`crate::lower`].

use datafusion::common::{Column, DataFusionError, SchemaError, Span};
use flowstone_types::EvalErrorKind;
use sqlparser::tokenizer::Location;

use super::names::INTERNAL;
use crate::error::{Error, ErrorKind};

/// The character position, from 1, of a line and column of `text`; `None` if the location or the text is unknown.
pub(crate) fn position_of(text: &str, line: u64, column: u64) -> Option<usize> {
    if text.is_empty() || line == 0 {
        return None;
    }
    crate::parse::position_of(text, Location { line, column })
}

/// The statement error that `error` is; positions refer to `text`, the whole query string.
pub(crate) fn from_datafusion(error: &DataFusionError, text: &str) -> Error {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let mapped = from_datafusion(inner, text);
            match (
                mapped.position,
                diagnostic.span.and_then(|span| at(text, span)),
            ) {
                (None, Some(position)) => mapped.at(position),
                _ => mapped,
            }
        }
        DataFusionError::Context(_, inner) => from_datafusion(inner, text),
        DataFusionError::Shared(inner) => from_datafusion(inner, text),
        DataFusionError::Collection(errors) => errors.first().map_or_else(
            || Error::internal("unknown planning error"),
            |first| from_datafusion(first, text),
        ),
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(error) => error.clone(),
            None => from_evaluation(error),
        },
        DataFusionError::SchemaError(inner, _) => from_schema(inner, text),
        DataFusionError::Plan(message) => from_plan(message),
        DataFusionError::NotImplemented(message) => Error::unsupported(lower_first(message)),
        DataFusionError::SQL(inner, _) => Error::syntax(lower_first(&inner.to_string())),
        DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => from_evaluation(error),
        other => Error::internal(clean(&other.strip_backtrace())),
    }
}

fn at(text: &str, span: Span) -> Option<usize> {
    position_of(text, span.start.line, span.start.column)
}

/// An expression over constants was evaluated and failed.
fn from_evaluation(error: &DataFusionError) -> Error {
    let failure = flowstone_functions::errors::eval_error(error);
    let kind = match failure.kind {
        EvalErrorKind::InvalidText => ErrorKind::InvalidTextRepresentation,
        EvalErrorKind::NumericOutOfRange
        | EvalErrorKind::DatetimeOverflow
        | EvalErrorKind::DivisionByZero => ErrorKind::NumericOutOfRange,
        EvalErrorKind::InvalidParameter | EvalErrorKind::Data | EvalErrorKind::Cardinality => {
            ErrorKind::InvalidParameterValue
        }
        EvalErrorKind::Source | EvalErrorKind::Internal => ErrorKind::Internal,
    };
    Error::new(kind, clean(&failure.message))
}

fn from_schema(error: &SchemaError, text: &str) -> Error {
    let place = |error: Error, column: &Column| match column
        .spans()
        .first()
        .and_then(|span| at(text, span))
    {
        Some(position) => error.at(position),
        None => error,
    };
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            let relation = field
                .relation
                .as_ref()
                .map(|relation| relation.table().to_owned());
            let missing = match &relation {
                Some(table)
                    if !valid_fields.iter().any(|valid| {
                        valid
                            .relation
                            .as_ref()
                            .is_some_and(|relation| relation.table() == table)
                    }) =>
                {
                    Error::new(
                        ErrorKind::UndefinedTable,
                        format!("missing FROM-clause entry for table \"{}\"", clean(table)),
                    )
                }
                Some(table) => Error::new(
                    ErrorKind::UndefinedColumn,
                    format!(
                        "column {}.{} does not exist",
                        clean(table),
                        clean(&field.name)
                    ),
                ),
                None => Error::new(
                    ErrorKind::UndefinedColumn,
                    format!("column \"{}\" does not exist", clean(&field.name)),
                ),
            };
            place(missing, field)
        }
        SchemaError::AmbiguousReference { field } => place(
            Error::new(
                ErrorKind::AmbiguousColumn,
                format!("column reference \"{}\" is ambiguous", clean(&field.name)),
            ),
            field,
        ),
        SchemaError::DuplicateQualifiedField { qualifier, .. } => Error::new(
            ErrorKind::DuplicateObject,
            format!(
                "table name \"{}\" specified more than once",
                clean(qualifier.table())
            ),
        ),
        SchemaError::DuplicateUnqualifiedField { name } => Error::new(
            ErrorKind::DuplicateColumn,
            format!("column \"{}\" specified more than once", clean(name)),
        ),
    }
}

/// DataFusion has one variant for all of these and tells them apart only by their text.
fn from_plan(message: &str) -> Error {
    if message.contains("must appear in the GROUP BY clause")
        || message.contains("must be in GROUP BY")
    {
        let column = message.split('"').nth(1).map_or("?", |name| name);
        return Error::new(
            ErrorKind::Grouping,
            format!(
                "column \"{}\" must appear in the GROUP BY clause or be used in an aggregate function",
                clean(column)
            ),
        );
    }
    if message.contains("does not exist") {
        return Error::new(ErrorKind::UndefinedFunction, lower_first(message));
    }
    if let Some(name) = between(message, "call to '", "'")
        .or_else(|| between(message, "argument types '", "("))
        .or_else(|| between(message, "function '", "'"))
    {
        return Error::new(
            ErrorKind::UndefinedFunction,
            format!("function {name} does not exist for these argument types"),
        )
        .with_detail(format!("{}.", clean(message).trim_end_matches('.')))
        .with_hint("You might need to add explicit type casts.");
    }
    if message.contains("types") || message.contains("coerce") || message.contains("type ") {
        return Error::new(ErrorKind::DatatypeMismatch, lower_first(message));
    }
    if message.contains("ggregate") {
        return Error::new(ErrorKind::Grouping, lower_first(message));
    }
    Error::new(ErrorKind::Syntax, lower_first(message))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)
        .and_then(|(_, rest)| rest.split_once(end))
        .map(|(found, _)| found)
}

/// Takes our internal suffixes and prefixes out of a name or message.
fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == INTERNAL {
            while letters.peek().is_some_and(|next| next.is_ascii_digit()) {
                letters.next();
            }
        } else {
            shown.push(letter);
        }
    }
    shown
        .split("\nDid you mean")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn lower_first(message: &str) -> String {
    let message = clean(message);
    let mut letters = message.chars();
    match letters.next() {
        Some(first) => first
            .to_lowercase()
            .chain(letters)
            .collect::<String>()
            .trim_end_matches('.')
            .to_owned(),
        None => message,
    }
}
