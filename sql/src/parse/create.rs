//! CREATE of everything but sources and connections.

use sqlparser::ast::{ColumnOption, Expr, Value};
use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::{cluster, role, source};
use crate::ast::{
    ColumnDefinition, CreateDatabase, CreateIndex, CreateMaterializedView, CreateSchema,
    CreateSecret, CreateTable, CreateTableFromSource, CreateView, Ident, Name, SecretValue,
    StatementKind, TableConstraint, TableConstraintKind, WithOption,
};
use crate::error::{Error, ErrorKind};

/// `CREATE …`
pub(super) fn create(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let position = c.position();
    c.skip();
    let or_replace = c.take(&["OR", "REPLACE"]);
    let temporary_position = c.position();
    let temporary = c.take(&["TEMPORARY"]) || c.take(&["TEMP"]);
    if c.peek_words(&["REPLACEMENT", "MATERIALIZED"]) {
        return Err(
            Error::unsupported("CREATE REPLACEMENT MATERIALIZED VIEW is not supported")
                .at(position),
        );
    }
    let kind_position = c.position();
    let Some(word) = c.bare(0) else {
        return Err(c.error("a kind of object"));
    };
    let view = word == "VIEW" || c.peek_words(&["MATERIALIZED", "VIEW"]);
    if or_replace && !view {
        return Err(c.error("VIEW or MATERIALIZED VIEW"));
    }
    if temporary && !matches!(word.as_str(), "VIEW" | "TABLE") {
        return Err(c.error("TABLE or VIEW"));
    }
    if c.take(&["MATERIALIZED", "VIEW"]) {
        return materialized_view(c, or_replace);
    }
    if word == "CLUSTER" {
        return cluster::create(c);
    }
    let kind_error = c.error("a kind of object");
    c.skip();
    match word.as_str() {
        "DATABASE" => {
            let if_not_exists = c.if_not_exists()?;
            let name = c.ident("a database name")?;
            if !c.is_end()
                && (c.nth_is(0, "WITH")
                    || c.nth_is(0, "OWNER")
                    || c.nth_is(0, "TEMPLATE")
                    || c.nth_is(0, "ENCODING"))
            {
                return Err(
                    Error::unsupported("options of CREATE DATABASE are not supported")
                        .at(c.position()),
                );
            }
            Ok(StatementKind::CreateDatabase(CreateDatabase {
                name,
                if_not_exists,
            }))
        }
        "SCHEMA" => {
            let if_not_exists = c.if_not_exists()?;
            if c.nth_is(0, "AUTHORIZATION") {
                return Err(
                    Error::unsupported("AUTHORIZATION of CREATE SCHEMA is not supported")
                        .at(c.position()),
                );
            }
            let name = c.name_of("a schema name", 2)?;
            Ok(StatementKind::CreateSchema(CreateSchema {
                name,
                if_not_exists,
            }))
        }
        "TABLE" => table(c, temporary),
        "VIEW" => {
            let if_not_exists = c.if_not_exists()?;
            if or_replace && if_not_exists {
                return Err(both_or_replace_and_if_not_exists(temporary_position));
            }
            let name = c.name("a view name")?;
            let columns = c.optional_columns()?;
            c.expect(&["AS"])?;
            let query = c.query()?;
            Ok(StatementKind::CreateView(CreateView {
                name,
                or_replace,
                if_not_exists,
                temporary,
                columns,
                query,
            }))
        }
        "DEFAULT" => {
            c.expect(&["INDEX"])?;
            index(c, true)
        }
        "INDEX" => index(c, false),
        "UNIQUE" => Err(Error::unsupported("CREATE UNIQUE INDEX is not supported").at(position)),
        "SECRET" => {
            let if_not_exists = c.if_not_exists()?;
            let name = c.name("a secret name")?;
            c.expect(&["AS"])?;
            let value = secret_value(c)?;
            Ok(StatementKind::CreateSecret(CreateSecret {
                name,
                if_not_exists,
                value,
            }))
        }
        "CONNECTION" => source::create_connection(c),
        "SOURCE" => source::create_source(c),
        "SINK" => source::create_sink(c),
        "ROLE" => role::create(c, role::Made::Role),
        "USER" => role::create(c, role::Made::User),
        "TYPE" | "NETWORK" | "FUNCTION" | "PROCEDURE" | "TRIGGER" | "EXTENSION" | "SEQUENCE"
        | "AGGREGATE" | "CAST" | "COLLATION" | "DOMAIN" | "LANGUAGE" | "OPERATOR" | "POLICY"
        | "PUBLICATION" | "SUBSCRIPTION" | "RULE" | "SERVER" | "FOREIGN" | "TABLESPACE"
        | "STATISTICS" | "GROUP" | "UNLOGGED" | "EVENT" | "ACCESS" => {
            let what = if word == "NETWORK" {
                "NETWORK POLICY"
            } else {
                word.as_str()
            };
            Err(Error::unsupported(format!("CREATE {what} is not supported")).at(kind_position))
        }
        _ => Err(kind_error),
    }
}

fn both_or_replace_and_if_not_exists(position: usize) -> Error {
    Error::syntax("CREATE OR REPLACE and IF NOT EXISTS cannot be combined").at(position)
}

fn table(c: &mut Cursor<'_>, temporary: bool) -> Result<StatementKind, Error> {
    let if_not_exists = c.if_not_exists()?;
    let name = c.name("a table name")?;
    if c.peek_words(&["FROM", "SOURCE"]) {
        return table_from_source(c, name, if_not_exists, source::DeclaredColumns::default());
    }
    let mut ahead = c.clone();
    if ahead.skip_group().is_ok() && ahead.peek_words(&["FROM", "SOURCE"]) {
        let columns = crate::connector::declared_columns(c)?;
        return table_from_source(c, name, if_not_exists, columns);
    }
    if c.nth_is(0, "AS") {
        return Err(Error::unsupported("CREATE TABLE AS is not supported")
            .with_hint("Create the table with its columns and fill it with INSERT, or use CREATE MATERIALIZED VIEW.")
            .at(c.position()));
    }
    let mut columns = Vec::new();
    let mut constraints = Vec::new();
    c.expect_token(&Token::LParen)?;
    if !c.take_token(&Token::RParen) {
        loop {
            match table_constraint(c)? {
                Some(constraint) => constraints.push(constraint),
                None => columns.push(column(c, &mut constraints)?),
            }
            if !c.take_token(&Token::Comma) {
                break;
            }
        }
        if *c.peek(0) != Token::RParen {
            return Err(c.error("\",\" or \")\""));
        }
        c.skip();
    }
    for word in ["INHERITS", "PARTITION", "TABLESPACE", "USING", "ON", "AS"] {
        if c.nth_is(0, word) {
            return Err(
                Error::unsupported(format!("{word} of CREATE TABLE is not supported"))
                    .at(c.position()),
            );
        }
    }
    let options = c.with_options(&["RETAIN HISTORY", "PARTITION BY"])?;
    refuse_options(&options)?;
    Ok(StatementKind::CreateTable(CreateTable {
        name,
        if_not_exists,
        temporary,
        columns,
        constraints,
    }))
}

/// Options that are known and have no effect here yet.
pub(super) fn refuse_options(options: &[WithOption]) -> Result<(), Error> {
    match options.first() {
        Some(option) => Err(
            Error::unsupported(format!("option {} is not supported", option.name))
                .at(option.position),
        ),
        None => Ok(()),
    }
}

/// A constraint over the table, if one comes next.
fn table_constraint(c: &mut Cursor<'_>) -> Result<Option<TableConstraint>, Error> {
    let position = c.position();
    // A column may be called like the first word: a constraint needs the second one too.
    let starts = |c: &Cursor<'_>, n: usize| {
        (c.nth_is(n, "PRIMARY") && c.nth_is(n + 1, "KEY"))
            || (c.nth_is(n, "FOREIGN") && c.nth_is(n + 1, "KEY"))
            || ((c.nth_is(n, "UNIQUE") || c.nth_is(n, "CHECK")) && *c.peek(n + 1) == Token::LParen)
    };
    if c.nth_is(0, "LIKE") {
        return Err(Error::unsupported("LIKE in CREATE TABLE is not supported").at(position));
    }
    if c.nth_is(0, "CONSTRAINT") && starts(c, 2) {
        c.skip();
        c.ident("a constraint name")?;
    }
    if !starts(c, 0) {
        return Ok(None);
    }
    let position = c.position();
    constraint(c, position, None).map(Some)
}

/// The rest of a constraint from its keyword on; `column` is where it is written, if it is one of a column.
fn constraint(
    c: &mut Cursor<'_>,
    position: usize,
    column: Option<&Ident>,
) -> Result<TableConstraint, Error> {
    let kind = if c.take(&["PRIMARY", "KEY"]) {
        TableConstraintKind::PrimaryKey
    } else if c.take(&["UNIQUE"]) {
        TableConstraintKind::Unique
    } else if c.take(&["CHECK"]) {
        TableConstraintKind::Check
    } else if c.take(&["FOREIGN", "KEY"]) || c.nth_is(0, "REFERENCES") {
        TableConstraintKind::ForeignKey
    } else {
        return Err(c.error("a constraint"));
    };
    let columns = match (column, kind) {
        (_, TableConstraintKind::Check) => {
            c.skip_group()?;
            Vec::new()
        }
        (Some(column), _) => vec![column.clone()],
        (None, _) => c.parenthesized(|c| c.ident("a column name"))?,
    };
    if kind == TableConstraintKind::ForeignKey {
        c.expect(&["REFERENCES"])?;
        c.name("a table name")?;
        c.optional_columns()?;
        while c.take(&["ON"]) {
            if c.take_one(&["DELETE", "UPDATE"]).is_none() {
                return Err(c.error("DELETE or UPDATE"));
            }
            let _ = c.take(&["NO", "ACTION"]) || c.take(&["SET"]);
            c.take_one(&["CASCADE", "RESTRICT", "NULL", "DEFAULT"]);
        }
    }
    Ok(TableConstraint {
        kind,
        columns,
        position,
    })
}

fn column(
    c: &mut Cursor<'_>,
    constraints: &mut Vec<TableConstraint>,
) -> Result<ColumnDefinition, Error> {
    let name = c.ident("a column name")?;
    let serial = c.bare(0).filter(|word| {
        matches!(
            word.as_str(),
            "SERIAL" | "BIGSERIAL" | "SMALLSERIAL" | "SERIAL4" | "SERIAL8" | "SERIAL2"
        )
    });
    if let Some(word) = serial {
        return Err(Error::unsupported(format!(
            "type \"{}\" is not supported",
            word.to_ascii_lowercase()
        ))
        .at(c.position()));
    }
    let sql_type = c.sql_type()?;
    let mut column = ColumnDefinition {
        name,
        sql_type,
        not_null: false,
        default: None,
    };
    loop {
        let position = c.position();
        if c.take(&["CONSTRAINT"]) {
            c.ident("a constraint name")?;
        }
        if c.take(&["NOT"]) {
            c.expect(&["NULL"])?;
            column.not_null = true;
        } else if c.take(&["NULL"]) {
        } else if c.nth_is(0, "DEFAULT") {
            match c.delegate(|parser| parser.parse_optional_column_option())? {
                Some(ColumnOption::Default(expr)) => column.default = Some(Box::new(expr)),
                _ => return Err(c.error("an expression")),
            }
        } else if ["PRIMARY", "UNIQUE", "CHECK", "REFERENCES"]
            .iter()
            .any(|word| c.nth_is(0, word))
        {
            constraints.push(constraint(c, position, Some(&column.name))?);
        } else if let Some(word) = c.bare(0).filter(|word| {
            matches!(
                word.as_str(),
                "COLLATE" | "GENERATED" | "STORAGE" | "COMPRESSION"
            )
        }) {
            return Err(
                Error::unsupported(format!("{word} of a column is not supported")).at(position),
            );
        } else {
            return Ok(column);
        }
    }
}

fn table_from_source(
    c: &mut Cursor<'_>,
    name: Name,
    if_not_exists: bool,
    columns: source::DeclaredColumns,
) -> Result<StatementKind, Error> {
    c.expect(&["FROM", "SOURCE"])?;
    let source = c.name("a source")?;
    let mut reference = None;
    if c.take_token(&Token::LParen) {
        c.expect(&["REFERENCE"])?;
        c.take_token(&Token::Eq);
        reference = Some(c.name("a table upstream")?);
        c.expect_token(&Token::RParen)?;
    }
    let messages = source::messages(c, columns)?.map(Box::new);
    let mut statement = CreateTableFromSource {
        name,
        if_not_exists,
        source,
        reference,
        messages,
        text_columns: Vec::new(),
        exclude_columns: Vec::new(),
    };
    if c.take(&["WITH"]) {
        c.parenthesized(|c| {
            source::column_option(
                c,
                &mut statement.text_columns,
                &mut statement.exclude_columns,
            )
        })?;
    }
    Ok(StatementKind::CreateTableFromSource(statement))
}

fn materialized_view(c: &mut Cursor<'_>, or_replace: bool) -> Result<StatementKind, Error> {
    let if_position = c.position();
    let if_not_exists = c.if_not_exists()?;
    if or_replace && if_not_exists {
        return Err(both_or_replace_and_if_not_exists(if_position));
    }
    let name = c.name("a materialized view name")?;
    let columns = c.optional_columns()?;
    let in_cluster = c.in_cluster()?;
    let mut assert_not_null = Vec::new();
    let mut options = Vec::new();
    if c.take(&["WITH"]) {
        c.parenthesized(|c| {
            let position = c.position();
            if c.take(&["ASSERT", "NOT", "NULL"]) {
                c.take_token(&Token::Eq);
                assert_not_null.push(c.ident("a column name")?);
                return Ok(());
            }
            if c.take(&["REFRESH"]) {
                c.take_token(&Token::Eq);
                if c.take(&["ON", "COMMIT"]) {
                    return Ok(());
                }
                return Err(
                    Error::unsupported("REFRESH other than ON COMMIT is not supported")
                        .at(position),
                );
            }
            if c.nth_is(0, "PARTITION") {
                return Err(Error::unsupported("option PARTITION BY is not supported").at(position));
            }
            if !c.take(&["RETAIN", "HISTORY"]) {
                return Err(c.error("ASSERT NOT NULL, REFRESH, PARTITION BY or RETAIN HISTORY"));
            }
            c.take_token(&Token::Eq);
            c.take(&["FOR"]);
            let value = c.option_value()?;
            options.push(WithOption {
                name: "RETAIN HISTORY".to_owned(),
                value,
                position,
            });
            Ok(())
        })?;
    }
    c.expect(&["AS"])?;
    let query = match c.find_as_of() {
        Some(end) => {
            c.within(end, Cursor::query)?;
            return Err(
                Error::unsupported("AS OF of CREATE MATERIALIZED VIEW is not supported")
                    .at(c.position()),
            );
        }
        None => c.query()?,
    };
    Ok(StatementKind::CreateMaterializedView(
        CreateMaterializedView {
            name,
            or_replace,
            if_not_exists,
            in_cluster,
            columns,
            assert_not_null,
            options,
            query,
        },
    ))
}

fn index(c: &mut Cursor<'_>, default: bool) -> Result<StatementKind, Error> {
    let position = c.position();
    if c.take(&["CONCURRENTLY"]) {
        return Err(Error::unsupported("CREATE INDEX CONCURRENTLY is not supported").at(position));
    }
    let if_not_exists = c.if_not_exists()?;
    let name = if c.nth_is(0, "ON") || c.peek_words(&["IN", "CLUSTER"]) {
        None
    } else {
        Some(c.ident("an index name")?)
    };
    if if_not_exists && name.is_none() {
        return Err(c.error("an index name"));
    }
    let in_cluster = c.in_cluster()?;
    c.expect(&["ON"])?;
    let on = c.name("a relation")?;
    if c.take(&["USING"]) {
        let position = c.position();
        let method = c.ident("an access method")?;
        if !matches!(
            method.value.as_str(),
            "arrangement" | "default" | "hash" | "btree"
        ) {
            return Err(Error::unsupported(format!(
                "access method \"{}\" is not supported",
                method.value
            ))
            .at(position));
        }
    }
    let keys = if default {
        if *c.peek(0) == Token::LParen {
            return Err(c.error("no key: a default index has the key of its relation"));
        }
        None
    } else {
        Some(c.parenthesized(key)?)
    };
    let options = c.with_options(&["RETAIN HISTORY"])?;
    if c.nth_is(0, "WHERE") {
        return Err(Error::unsupported("partial indexes are not supported").at(c.position()));
    }
    Ok(StatementKind::CreateIndex(CreateIndex {
        name,
        default,
        if_not_exists,
        in_cluster,
        on,
        keys,
        options,
    }))
}

fn key(c: &mut Cursor<'_>) -> Result<Expr, Error> {
    let key = c.expr()?;
    if c.nth_is(0, "ASC") || c.nth_is(0, "DESC") || c.nth_is(0, "NULLS") {
        return Err(Error::unsupported(
            "an index has no order: ASC, DESC and NULLS are not supported",
        )
        .at(c.position()));
    }
    Ok(key)
}

/// The value of a secret: a string, a bytea, or `decode(string, format)`.
pub(super) fn secret_value(c: &mut Cursor<'_>) -> Result<SecretValue, Error> {
    let position = c.position();
    let expr = c.expr()?;
    constant_bytes(&expr)
        .map(SecretValue)
        .map_err(|error| error.at(position))
}

fn constant_bytes(expr: &Expr) -> Result<Vec<u8>, Error> {
    let unsupported = || {
        Error::unsupported(
            "the value of a secret must be a string, a bytea or a call of decode() with constants",
        )
    };
    match expr {
        Expr::Value(value) => value
            .value
            .clone()
            .into_string()
            .map(String::into_bytes)
            .ok_or_else(unsupported),
        Expr::Nested(inner) => constant_bytes(inner),
        Expr::Cast {
            expr, data_type, ..
        } => {
            let Expr::Value(value) = expr.as_ref() else {
                return Err(unsupported());
            };
            let Some(text) = value.value.clone().into_string() else {
                return Err(unsupported());
            };
            match super::parse_type(data_type)? {
                flowstone_types::SqlType::Text => Ok(text.into_bytes()),
                flowstone_types::SqlType::Bytea => match text.strip_prefix("\\x") {
                    Some(digits) => hex::decode(digits).map_err(|_| {
                        invalid("invalid hexadecimal data in the value of the secret")
                    }),
                    None => Ok(text.into_bytes()),
                },
                _ => Err(unsupported()),
            }
        }
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("decode") => {
            let arguments: Vec<String> = decode_arguments(function).ok_or_else(unsupported)?;
            let [text, format] = arguments.as_slice() else {
                return Err(unsupported());
            };
            match format.to_ascii_lowercase().as_str() {
                "hex" => hex::decode(text)
                    .map_err(|_| invalid("invalid hexadecimal data in the value of the secret")),
                "base64" => {
                    let compact: String =
                        text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
                    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, compact)
                        .map_err(|_| invalid("invalid base64 data in the value of the secret"))
                }
                other => Err(Error::new(
                    ErrorKind::InvalidParameterValue,
                    format!("unrecognized encoding: \"{other}\""),
                )),
            }
        }
        _ => Err(unsupported()),
    }
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidParameterValue, message)
}

fn decode_arguments(function: &sqlparser::ast::Function) -> Option<Vec<String>> {
    let sqlparser::ast::FunctionArguments::List(list) = &function.args else {
        return None;
    };
    list.args
        .iter()
        .map(|argument| match argument {
            sqlparser::ast::FunctionArg::Unnamed(sqlparser::ast::FunctionArgExpr::Expr(
                Expr::Value(value),
            )) => match &value.value {
                Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                    Some(text.clone())
                }
                _ => None,
            },
            _ => None,
        })
        .collect()
}
