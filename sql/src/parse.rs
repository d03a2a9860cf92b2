//! The statement parser: from a query string to [`Statement`]s.
//!
//! Reads the tokens of the whole string once, splits them at semicolons, recognises each statement by its leading words and parses what is ours by hand;
//! queries, expressions, types and row-changing statements are handed to `sqlparser` on the same tokens. Must not know the catalog.
//!
//! Invariants. No statement is recognised by matching on text. Positions count characters of the whole string, from 1.
//! A statement that we know and do not do is [`StatementKind::Unsupported`]; text that is no statement at all is an error of the whole string, as in PostgreSQL.

mod alter;
mod canonical;
mod cluster;
mod create;
mod cursor;
mod depth;
pub(crate) mod dialect;
mod operators;
mod precedence;
mod query;
mod role;
mod session;
mod sets;
mod source;
mod types;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use sqlparser::ast::{Expr, Query};
use sqlparser::tokenizer::{Location, Token};

pub use canonical::{expr_text, query_text};
pub use cursor::parse_duration;
pub use types::parse_type;

use crate::ast::{Statement, StatementKind};
use crate::error::{Error, ErrorKind};
use cursor::{Cursor, Source};

/// Parses a query string: any number of statements separated by semicolons. Empty statements are dropped.
///
/// # Errors
/// [`ErrorKind::Syntax`], [`ErrorKind::InvalidParameterValue`] and, for types, [`ErrorKind::UndefinedObject`], with the position of the offending token.
/// Statements that are not supported are no error here: see [`StatementKind::Unsupported`].
pub fn parse(text: &str) -> Result<Vec<Statement>, Error> {
    let source = Source::new(text)?;
    let mut statements = Vec::new();
    let mut start = 0;
    for end in 0..=source.tokens.len() {
        let separator = source
            .tokens
            .get(end)
            .is_none_or(|token| token.token == Token::SemiColon);
        if separator {
            let mut cursor = Cursor::new(&source, start, end);
            if !cursor.is_end() {
                statements.push(statement(&mut cursor)?);
                cursor.expect_end()?;
            }
            start = end + 1;
        }
    }
    Ok(statements)
}

/// Parses exactly one query, such as the text of a view in the catalog.
///
/// # Errors
/// As [`parse`].
pub fn parse_query(text: &str) -> Result<Box<Query>, Error> {
    let source = Source::new(text)?;
    let mut cursor = Cursor::new(&source, 0, source.tokens.len());
    let query = cursor.query()?;
    cursor.expect_end()?;
    Ok(query)
}

/// Parses exactly one expression, such as the key of an index or a DEFAULT in the catalog.
///
/// # Errors
/// As [`parse`].
pub fn parse_expr(text: &str) -> Result<Expr, Error> {
    let source = Source::new(text)?;
    let mut cursor = Cursor::new(&source, 0, source.tokens.len());
    let expr = cursor.expr()?;
    cursor.expect_end()?;
    Ok(expr)
}

/// The character position, from 1, of a location that `sqlparser` put into a tree of a statement of `text` (the whole query string);
/// `None` for the empty location.
#[must_use]
pub fn position_of(text: &str, location: Location) -> Option<usize> {
    let line = usize::try_from(location.line).ok()?.checked_sub(1)?;
    let before: usize = text
        .split_inclusive('\n')
        .take(line)
        .map(|line| line.chars().count())
        .sum();
    usize::try_from(location.column)
        .ok()
        .map(|column| before + column)
}

/// One statement, from here to the cursor's end or to where its tail starts.
fn statement(cursor: &mut Cursor<'_>) -> Result<Statement, Error> {
    let start = cursor.start();
    let offset = cursor.position().saturating_sub(1);
    let kind = match kind(cursor) {
        Ok(kind) => {
            cursor.expect_end()?;
            kind
        }
        Err(error) if error.kind == ErrorKind::FeatureNotSupported => {
            while !cursor.is_end() {
                cursor.skip();
            }
            StatementKind::Unsupported(Box::new(error))
        }
        Err(error) => return Err(error),
    };
    Ok(Statement {
        kind,
        text: cursor.text_from(start, true).to_owned(),
        offset,
    })
}

fn kind(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let position = c.position();
    if *c.peek(0) == Token::LParen {
        return query::query(c);
    }
    let Some(word) = c.bare(0) else {
        return Err(c.error("a statement"));
    };
    match word.as_str() {
        "SELECT" | "VALUES" | "TABLE" | "WITH" => query::query(c),
        "INSERT" | "UPDATE" | "DELETE" => query::write(c),
        "COPY" => query::copy(c),
        "SUBSCRIBE" | "TAIL" => {
            query::subscribe(c).map(|subscribe| StatementKind::Subscribe(Box::new(subscribe)))
        }
        "EXPLAIN" => query::explain(c),
        "SHOW" => session::show(c),
        "SET" => session::set(c),
        "RESET" => session::reset(c),
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" => session::transaction(c),
        "SAVEPOINT" | "RELEASE" => session::savepoint(c),
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => session::prepared(c),
        "DECLARE" | "FETCH" | "CLOSE" => session::cursor(c),
        "DISCARD" => session::discard(c),
        "UNLISTEN" => session::unlisten(c),
        "CREATE" => create::create(c),
        "ALTER" => alter::alter(c),
        "DROP" => alter::drop(c),
        "COMMENT" => alter::comment(c),
        "VALIDATE" => alter::validate(c),
        "TRUNCATE" => Err(Error::unsupported("TRUNCATE is not supported")
            .with_hint("Use \"DELETE FROM\" without a WHERE clause.")
            .at(position)),
        "GRANT" | "REVOKE" | "REASSIGN" | "ANALYZE" | "ANALYSE" | "VACUUM" | "LOCK" | "LISTEN"
        | "NOTIFY" | "CALL" | "DO" | "MERGE" | "REINDEX" | "CHECKPOINT" | "CLUSTER" | "REFRESH"
        | "MOVE" | "LOAD" | "SECURITY" | "IMPORT" | "INSPECT" => {
            Err(Error::unsupported(format!("{word} is not supported")).at(position))
        }
        _ => Err(c.error("a statement")),
    }
}
