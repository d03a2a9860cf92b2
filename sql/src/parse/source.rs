//! CREATE CONNECTION and CREATE SOURCE, and the option lists they share with ALTER. What one kind of them says is read by its connector.

use std::time::Duration;

use flowstone_types::SqlType;
use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use crate::ast::{
    CreateConnection, CreateSink, CreateSource, Ident, Name, OptionValue, SourceTables,
    StatementKind, SubsourceReference,
};
use crate::connector::{self, OptionReader};
use crate::error::{Error, ErrorKind};

pub(super) use crate::connector::{
    DeclaredColumns, Messages, column_option, connection_option, connection_option_name,
};

/// Connectors read their parts of a statement with the cursor.
impl OptionReader for Cursor<'_> {
    fn position(&self) -> usize {
        Cursor::position(self)
    }

    fn error(&self, expected: &str) -> Error {
        Cursor::error(self, expected)
    }

    fn bare(&self, n: usize) -> Option<String> {
        Cursor::bare(self, n)
    }

    fn peek_words(&self, words: &[&str]) -> bool {
        Cursor::peek_words(self, words)
    }

    fn peek_list(&self) -> bool {
        *self.peek(0) == Token::LParen
    }

    fn take(&mut self, words: &[&str]) -> bool {
        Cursor::take(self, words)
    }

    fn take_equals(&mut self) -> bool {
        self.take_token(&Token::Eq)
    }

    fn ends_item(&self) -> bool {
        matches!(
            self.peek(0),
            Token::Comma | Token::RParen | Token::RBracket | Token::EOF
        )
    }

    fn take_comma(&mut self) -> bool {
        self.take_token(&Token::Comma)
    }

    fn ident(&mut self, what: &str) -> Result<Ident, Error> {
        Cursor::ident(self, what)
    }

    fn take_string(&mut self) -> Option<String> {
        Cursor::take_string(self)
    }

    fn string(&mut self, what: &str) -> Result<String, Error> {
        Cursor::string(self, what)
    }

    fn sql_type(&mut self) -> Result<SqlType, Error> {
        Cursor::sql_type(self)
    }

    fn expression(&mut self) -> Result<sqlparser::ast::Expr, Error> {
        Cursor::expr(self)
    }

    fn text_map(&mut self) -> Result<Vec<(String, String)>, Error> {
        Cursor::expect(self, &["MAP"])?;
        self.expect_token(&Token::LBracket)?;
        if self.take_token(&Token::RBracket) {
            return Ok(Vec::new());
        }
        let entries = self.comma_separated(|c| {
            let key = Cursor::string(c, "a key")?;
            c.expect_token(&Token::RArrow)?;
            Ok((key, Cursor::string(c, "a value")?))
        })?;
        self.expect_token(&Token::RBracket)?;
        Ok(entries)
    }

    fn expect(&mut self, words: &[&str]) -> Result<(), Error> {
        Cursor::expect(self, words)
    }

    fn name(&mut self, what: &str) -> Result<Name, Error> {
        Cursor::name(self, what)
    }

    fn name_list(&mut self, what: &str, most: usize) -> Result<Vec<Name>, Error> {
        Cursor::name_list(self, what, most)
    }

    fn option_value(&mut self) -> Result<OptionValue, Error> {
        Cursor::option_value(self)
    }

    fn unsigned(&mut self, what: &str) -> Result<u64, Error> {
        Cursor::unsigned(self, what)
    }

    fn duration(&mut self, what: &str) -> Result<Duration, Error> {
        Cursor::duration(self, what)
    }

    fn parenthesized<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        Cursor::parenthesized(self, item)
    }

    fn list<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.take_token(&Token::Eq);
        if !self.take_token(&Token::LBracket) {
            return Cursor::parenthesized(self, item);
        }
        let items = self.comma_separated(item)?;
        self.expect_token(&Token::RBracket)?;
        Ok(items)
    }
}

/// `WITH (VALIDATE [=] bool)`, if it comes next.
pub(super) fn validate_option(c: &mut Cursor<'_>) -> Result<Option<bool>, Error> {
    let mut validate = None;
    for option in c.with_options(&["VALIDATE"])? {
        let value = option.value.boolean();
        validate = Some(value.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidParameterValue,
                "invalid value for VALIDATE: a boolean is required",
            )
            .at(option.position)
        })?);
    }
    Ok(validate)
}

/// `CREATE CONNECTION`, after its kind.
pub(super) fn create_connection(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let if_not_exists = c.if_not_exists()?;
    let name = c.name("a connection name")?;
    c.expect(&["TO"])?;
    let (kind, options) = connector::connection(c)?;
    let validate = validate_option(c)?;
    Ok(StatementKind::CreateConnection(CreateConnection {
        name,
        if_not_exists,
        kind,
        options,
        validate,
    }))
}

/// `CREATE SOURCE`, after its kind.
pub(super) fn create_source(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let if_not_exists = c.if_not_exists()?;
    let name = c.name("a source name")?;
    let columns = if *c.peek(0) == Token::LParen {
        connector::declared_columns(c)?
    } else {
        DeclaredColumns::default()
    };
    let in_cluster = c.in_cluster()?;
    c.expect(&["FROM"])?;
    let kind = connector::source(c, columns)?;
    for word in ["FORMAT", "KEY", "INCLUDE", "ENVELOPE"] {
        if c.nth_is(0, word) {
            return Err(Error::unsupported(format!(
                "{word} of this kind of source is not supported"
            ))
            .at(c.position()));
        }
    }
    let tables = source_tables(c)?;
    let expose_progress_as = if c.take(&["EXPOSE", "PROGRESS"]) {
        c.expect(&["AS"])?;
        Some(c.name("a name")?)
    } else {
        None
    };
    let options = c.with_options(&["RETAIN HISTORY", "TIMESTAMP INTERVAL", "SIZE"])?;
    Ok(StatementKind::CreateSource(CreateSource {
        name,
        if_not_exists,
        in_cluster,
        kind,
        tables,
        expose_progress_as,
        options,
    }))
}

/// What `CREATE TABLE … FROM SOURCE` says of messages.
pub(super) fn messages(
    c: &mut Cursor<'_>,
    columns: DeclaredColumns,
) -> Result<Option<Messages>, Error> {
    connector::messages_of_table(c, columns)
}

/// `CREATE SINK`, after its kind.
pub(super) fn create_sink(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let if_not_exists = c.if_not_exists()?;
    let name = c.name("a sink name")?;
    let in_cluster = c.in_cluster()?;
    c.expect(&["FROM"])?;
    let from = c.name("a relation")?;
    c.expect(&["INTO"])?;
    let kind = connector::sink(c)?;
    let mut snapshot = None;
    if c.take(&["WITHOUT", "SNAPSHOT"]) {
        snapshot = Some(false);
    } else if c.peek_words(&["WITH", "SNAPSHOT"]) {
        c.take(&["WITH", "SNAPSHOT"]);
        snapshot = Some(true);
    } else {
        for option in c.with_options(&["SNAPSHOT"])? {
            let value = option.value.boolean();
            snapshot = Some(value.ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidParameterValue,
                    "invalid value for SNAPSHOT: a boolean is required",
                )
                .at(option.position)
            })?);
        }
    }
    Ok(StatementKind::CreateSink(CreateSink {
        name,
        if_not_exists,
        in_cluster,
        from,
        kind,
        snapshot: snapshot.unwrap_or(true),
    }))
}

fn source_tables(c: &mut Cursor<'_>) -> Result<SourceTables, Error> {
    if !c.take(&["FOR"]) {
        return Ok(SourceTables::None);
    }
    if c.take(&["ALL"]) {
        c.expect(&["TABLES"])?;
        return Ok(SourceTables::All);
    }
    if c.take(&["SCHEMAS"]) {
        return c
            .parenthesized(|c| c.ident("a schema upstream"))
            .map(SourceTables::Schemas);
    }
    if c.take(&["TABLES"]) {
        return c.parenthesized(subsource).map(SourceTables::Tables);
    }
    Err(c.error("ALL TABLES, SCHEMAS or TABLES"))
}

/// `table [AS name]`
pub(super) fn subsource(c: &mut Cursor<'_>) -> Result<SubsourceReference, Error> {
    let reference = c.name("a table upstream")?;
    let alias = if c.take(&["AS"]) || c.take(&["INTO"]) {
        Some(c.name("a name")?)
    } else {
        None
    };
    Ok(SubsourceReference { reference, alias })
}
