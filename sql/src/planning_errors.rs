//! From what DataFusion says to what PostgreSQL would say.
//!
//! Owns the mapping of planning errors to [`Error`]: kind, wording and position. Called by planning, the binder and lowering.

use datafusion::common::{Column, DataFusionError, SchemaError, Span};
use flowstone_types::{EvalErrorKind, TypeError};

use crate::error::{Error, ErrorKind};
use crate::names::INTERNAL;
use crate::positions;

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
        DataFusionError::External(inner) => {
            if let Some(error) = inner.downcast_ref::<Error>() {
                return error.clone();
            }
            match inner.downcast_ref::<TypeError>() {
                Some(TypeError::Unsupported(_)) => {
                    Error::unsupported("values of this type are not supported here")
                        .with_hint("Give the fields of a row one by one.")
                }
                _ => from_evaluation(error),
            }
        }
        DataFusionError::Internal(message) if refused_inside(message).is_some() => {
            Error::unsupported(refused_inside(message).unwrap_or_default())
        }
        DataFusionError::SchemaError(inner, _) => from_schema(inner, text),
        DataFusionError::Plan(message) => from_plan(message),
        DataFusionError::NotImplemented(message) => Error::unsupported(lower_first(message)),
        DataFusionError::SQL(inner, _) => Error::syntax(lower_first(&inner.to_string())),
        DataFusionError::Execution(message) if reworded(message).is_some() => {
            reworded(message).unwrap_or_else(|| Error::internal("unknown planning error"))
        }
        DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => from_evaluation(error),
        other => Error::internal(clean(&other.strip_backtrace())),
    }
}

fn at(text: &str, span: Span) -> Option<usize> {
    positions::position_of(text, span.start.line, span.start.column)
}

/// An expression over constants was evaluated and failed.
fn from_evaluation(error: &DataFusionError) -> Error {
    let failure = flowstone_functions::errors::eval_error(error);
    let kind = match failure.kind {
        EvalErrorKind::InvalidText => ErrorKind::InvalidTextRepresentation,
        EvalErrorKind::NumericOutOfRange => ErrorKind::NumericOutOfRange,
        EvalErrorKind::InvalidParameter => ErrorKind::InvalidParameterValue,
        EvalErrorKind::Internal => ErrorKind::Internal,
        other => ErrorKind::Evaluation(other),
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
            ErrorKind::DuplicateAlias,
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

/// What DataFusion calls a broken invariant, and is something that a statement can ask for and we do not do.
fn refused_inside(message: &str) -> Option<&'static str> {
    if message.contains("Cannot run range queries on datatype") {
        return Some("a window with RANGE over values of this type is not supported");
    }
    if message.contains("LogicalPlan::Limit only supports literal") {
        return Some("LIMIT and OFFSET that are no constants are not supported");
    }
    None
}

/// The messages of DataFusion that PostgreSQL words otherwise.
fn reworded(message: &str) -> Option<Error> {
    if let Some((_, inner)) =
        message.split_once("coercion failed with: Error during planning: function ")
        && let Some((call, _)) = inner.split_once(" does not exist")
    {
        return Some(no_function(call));
    }
    if message.starts_with("SELECT DISTINCT ON expressions must match") {
        return Some(Error::new(ErrorKind::InvalidColumnReference, message));
    }
    if message.starts_with("For SELECT DISTINCT, ORDER BY expressions") {
        return Some(Error::new(
            ErrorKind::InvalidColumnReference,
            "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
        ));
    }
    if let Some(position) = between(message, "Order by column out of bounds, specified: ", ",") {
        return Some(Error::new(
            ErrorKind::InvalidColumnReference,
            format!("ORDER BY position {position} is not in select list"),
        ));
    }
    if message.starts_with("LIMIT must be >=") {
        return Some(Error::new(
            ErrorKind::InvalidRowCount,
            "LIMIT must not be negative",
        ));
    }
    if message.starts_with("OFFSET must be >=") {
        return Some(Error::new(
            ErrorKind::InvalidOffset,
            "OFFSET must not be negative",
        ));
    }
    if message.contains("queries have different number of columns") {
        let operation = message.split(' ').next().unwrap_or("UNION");
        return Some(Error::syntax(format!(
            "each {operation} query must have the same number of columns"
        )));
    }
    if let Some(found) = message
        .strip_prefix("Cannot create filter with non-boolean predicate")
        .and_then(|rest| rest.rsplit_once(" returning "))
        .map(|(_, found)| found)
    {
        return Some(Error::new(
            ErrorKind::DatatypeMismatch,
            format!(
                "argument of WHERE must be type boolean, not type {}",
                sql_name(found)
            ),
        ));
    }
    if let Some(name) = between(message, "WITH query name \"", "\"") {
        return Some(Error::new(
            ErrorKind::DuplicateAlias,
            format!(
                "WITH query name \"{}\" specified more than once",
                clean(name)
            ),
        ));
    }
    if message.contains("RANGE requires exactly one ORDER BY column") {
        return Some(Error::new(
            ErrorKind::Windowing,
            "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
        ));
    }
    if message.contains("GROUPS requires an ORDER BY clause") {
        return Some(Error::new(
            ErrorKind::Windowing,
            "GROUPS mode requires an ORDER BY clause",
        ));
    }
    if message.starts_with("Aggregate function calls cannot be nested") {
        return Some(Error::new(
            ErrorKind::Grouping,
            "aggregate function calls cannot be nested",
        ));
    }
    if message.starts_with("Aggregate functions are not allowed in the WHERE clause") {
        return Some(Error::new(
            ErrorKind::Grouping,
            "aggregate functions are not allowed in WHERE",
        ));
    }
    None
}

/// `function name(types) does not exist`; `call`: the name with the types.
fn no_function(call: &str) -> Error {
    Error::new(
        ErrorKind::UndefinedFunction,
        format!("function {} does not exist", clean(call)),
    )
    .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.")
}

/// SQL's name of an Arrow type as DataFusion's messages print it.
fn sql_name(arrow: &str) -> &str {
    match arrow.trim_end_matches('.') {
        "Boolean" => "boolean",
        "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "Float32" => "real",
        "Float64" => "double precision",
        "Utf8" => "text",
        "Date32" => "date",
        "Binary" => "bytea",
        "LargeBinary" => "jsonb",
        name if name.starts_with("Decimal") => "numeric",
        name if name.starts_with("Timestamp(") && (name.contains("Some") || name.contains('"')) => {
            "timestamp with time zone"
        }
        name if name.starts_with("Timestamp(") => "timestamp without time zone",
        name if name.starts_with("Interval") => "interval",
        other => other,
    }
}

/// DataFusion has one variant for all of these and tells them apart only by their text.
fn from_plan(message: &str) -> Error {
    if message.starts_with(flowstone_functions::codec::TOO_DEEP) {
        return Error::new(ErrorKind::TooComplex, "statement is nested too deeply");
    }
    if let Some(error) = reworded(message) {
        return error;
    }
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
    if let Some(call) = message
        .strip_prefix("function ")
        .and_then(|call| call.strip_suffix(" does not exist"))
    {
        return no_function(call);
    }
    if message.contains("does not exist") {
        return Error::new(ErrorKind::UndefinedFunction, lower_first(message));
    }
    if let Some(call) = between(message, "argument types '", ")'") {
        return no_function(&in_sql(call));
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
    if message.starts_with("cannot cast type ") {
        return Error::new(ErrorKind::CannotCoerce, message);
    }
    if message.contains("types") || message.contains("coerce") || message.contains("type ") {
        return Error::new(ErrorKind::DatatypeMismatch, lower_first(message));
    }
    if message.contains("ggregate") {
        return Error::new(ErrorKind::Grouping, lower_first(message));
    }
    Error::new(ErrorKind::Syntax, lower_first(message))
}

/// `name(Int32, Decimal128(2, 1)` of DataFusion's as `name(integer, numeric)`.
fn in_sql(call: &str) -> String {
    let (name, arguments) = call.split_once('(').unwrap_or((call, ""));
    let mut depth = 0;
    let types = arguments.split(|letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        letter == ',' && depth == 0
    });
    let types: Vec<&str> = types.map(|found| sql_name(found.trim())).collect();
    format!("{name}({})", types.join(", "))
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
    // A word in capitals is a key word of SQL.
    if message.chars().nth(1).is_some_and(char::is_uppercase) {
        return message.trim_end_matches('.').to_owned();
    }
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
