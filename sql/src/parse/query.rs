//! Statements around a query: SELECT, INSERT, UPDATE, DELETE, COPY, SUBSCRIBE, EXPLAIN.

use sqlparser::ast::SetExpr;
use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use crate::ast::{
    AsOf, CopyDirection, CopyFormat, CopyRelation, CopyStatement, ExplainKind, ExplainStatement,
    ExplainTarget, QueryStatement, StatementKind, SubscribeRelation, SubscribeStatement,
};
use crate::error::{Error, ErrorKind};

/// A query with an optional `AS OF`.
pub(super) fn query_statement(c: &mut Cursor<'_>) -> Result<QueryStatement, Error> {
    match c.find_as_of() {
        Some(end) => {
            let query = c.within(end, Cursor::query)?;
            Ok(QueryStatement {
                query,
                as_of: as_of(c)?,
            })
        }
        None => Ok(QueryStatement {
            query: c.query()?,
            as_of: None,
        }),
    }
}

pub(super) fn query(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let statement = query_statement(c)?;
    let writes = matches!(
        *statement.query.body,
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_)
    );
    if writes && statement.as_of.is_none() {
        return Ok(StatementKind::WithWrite(statement.query));
    }
    Ok(StatementKind::Query(statement))
}

/// `AS OF [AT LEAST] t`, if it comes next.
fn as_of(c: &mut Cursor<'_>) -> Result<Option<AsOf>, Error> {
    if !c.take(&["AS", "OF"]) {
        return Ok(None);
    }
    let at_least = c.take(&["AT", "LEAST"]);
    let at = Box::new(c.expr()?);
    Ok(Some(AsOf { at_least, at }))
}

/// INSERT, UPDATE, DELETE.
pub(super) fn write(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let position = c.position();
    let mut statement = c.delegate(|parser| parser.parse_statement())?;
    super::sets::balance(&mut statement)?;
    match statement {
        sqlparser::ast::Statement::Insert(insert) => Ok(StatementKind::Insert(Box::new(insert))),
        sqlparser::ast::Statement::Update(update) => Ok(StatementKind::Update(Box::new(update))),
        sqlparser::ast::Statement::Delete(delete) => Ok(StatementKind::Delete(Box::new(delete))),
        _ => Err(Error::internal("row-changing statement parsed as something else").at(position)),
    }
}

/// `SUBSCRIBE [TO] relation | (query) …`, `TAIL …`
pub(super) fn subscribe(c: &mut Cursor<'_>) -> Result<SubscribeStatement, Error> {
    c.skip();
    c.take(&["TO"]);
    let relation = if c.take_token(&Token::LParen) {
        let query = c.query()?;
        c.expect_token(&Token::RParen)?;
        SubscribeRelation::Query(query)
    } else {
        SubscribeRelation::Name(c.name("a relation or a query in parentheses")?)
    };
    let mut statement = SubscribeStatement {
        relation,
        snapshot: true,
        progress: false,
        as_of: None,
        up_to: None,
    };
    let mut with_seen = false;
    loop {
        let position = c.position();
        if c.peek_words(&["AS", "OF"]) && statement.as_of.is_none() {
            statement.as_of = as_of(c)?;
        } else if c.peek_words(&["UP", "TO"]) && statement.up_to.is_none() {
            c.take(&["UP", "TO"]);
            statement.up_to = Some(Box::new(c.expr()?));
        } else if c.nth_is(0, "ENVELOPE") {
            return Err(Error::unsupported("ENVELOPE of SUBSCRIBE is not supported").at(position));
        } else if c.peek_words(&["WITHIN", "TIMESTAMP"]) {
            return Err(
                Error::unsupported("WITHIN TIMESTAMP ORDER BY is not supported").at(position),
            );
        } else if c.nth_is(0, "WITH") && !with_seen {
            with_seen = true;
            for option in c.with_options(&["SNAPSHOT", "PROGRESS"])? {
                let value = option.value.boolean();
                let value = value.ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidParameterValue,
                        format!("invalid value for {}: a boolean is required", option.name),
                    )
                    .at(option.position)
                })?;
                if option.name == "SNAPSHOT" {
                    statement.snapshot = value;
                } else {
                    statement.progress = value;
                }
            }
        } else {
            return Ok(statement);
        }
    }
}

/// `COPY`
pub(super) fn copy(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.skip();
    let position = c.position();
    if c.take(&["INTO"]) {
        return Err(Error::unsupported("COPY INTO is not supported").at(position));
    }
    let relation = if c.take_token(&Token::LParen) {
        let relation = if c.nth_is(0, "SUBSCRIBE") || c.nth_is(0, "TAIL") {
            CopyRelation::Subscribe(Box::new(subscribe(c)?))
        } else {
            CopyRelation::Query(QueryStatement {
                query: c.query()?,
                as_of: None,
            })
        };
        c.expect_token(&Token::RParen)?;
        relation
    } else {
        let name = c.name("a relation or a query in parentheses")?;
        CopyRelation::Table {
            name,
            columns: c.optional_columns()?,
        }
    };
    let position = c.position();
    let direction = if c.take(&["TO"]) {
        if !c.take(&["STDOUT"]) {
            return Err(not_a_client_stream(
                c,
                "STDOUT",
                "COPY to a file or an object store",
            ));
        }
        CopyDirection::ToStdout
    } else if c.take(&["FROM"]) {
        if !matches!(relation, CopyRelation::Table { .. }) {
            return Err(Error::syntax("syntax error at or near \"FROM\"")
                .with_detail("A query can only be copied TO STDOUT.")
                .at(position));
        }
        if !c.take(&["STDIN"]) {
            return Err(not_a_client_stream(
                c,
                "STDIN",
                "COPY from a file or an object store",
            ));
        }
        CopyDirection::FromStdin
    } else {
        return Err(c.error("FROM or TO"));
    };
    let mut statement = CopyStatement {
        relation,
        direction,
        format: CopyFormat::Text,
        delimiter: None,
        null: None,
        header: false,
        quote: None,
        escape: None,
    };
    copy_options(c, &mut statement)?;
    Ok(StatementKind::Copy(statement))
}

fn not_a_client_stream(c: &Cursor<'_>, expected: &str, what: &str) -> Error {
    match c.peek(0) {
        Token::SingleQuotedString(_) => {
            Error::unsupported(format!("{what} is not supported")).at(c.position())
        }
        _ => c.error(expected),
    }
}

/// The options of COPY, in parentheses or in the form of old.
fn copy_options(c: &mut Cursor<'_>, statement: &mut CopyStatement) -> Result<(), Error> {
    let with = c.take(&["WITH"]);
    if c.take_token(&Token::LParen) {
        loop {
            copy_option(c, statement)?;
            if !c.take_token(&Token::Comma) {
                break;
            }
        }
        return c.expect_token(&Token::RParen);
    }
    if with && c.is_end() {
        return Err(c.error("\"(\""));
    }
    while !c.is_end() {
        if c.take(&["BINARY"]) {
            statement.format = CopyFormat::Binary;
        } else if c.take(&["CSV"]) {
            statement.format = CopyFormat::Csv;
        } else {
            copy_option(c, statement)?;
        }
    }
    Ok(())
}

fn copy_option(c: &mut Cursor<'_>, statement: &mut CopyStatement) -> Result<(), Error> {
    let names = [
        "FORMAT",
        "DELIMITER",
        "NULL",
        "HEADER",
        "QUOTE",
        "ESCAPE",
        "ENCODING",
    ];
    let position = c.position();
    let Some(name) = c.take_one(&names) else {
        if c.bare(0).is_some_and(|word| {
            matches!(
                word.as_str(),
                "FORCE_QUOTE" | "FORCE_NOT_NULL" | "FORCE_NULL" | "FREEZE" | "OIDS"
            )
        }) {
            return Err(Error::unsupported("this option of COPY is not supported").at(position));
        }
        return Err(c.error("an option of COPY"));
    };
    c.take(&["AS"]);
    let value_position = c.position();
    let invalid =
        |message: String| Error::new(ErrorKind::InvalidParameterValue, message).at(value_position);
    match name {
        "FORMAT" => {
            let value = c.option_value()?;
            statement.format = match value.text().map(str::to_ascii_lowercase).as_deref() {
                Some("text") => CopyFormat::Text,
                Some("csv") => CopyFormat::Csv,
                Some("binary") => CopyFormat::Binary,
                Some(other) => {
                    return Err(invalid(format!("COPY format \"{other}\" not recognized")));
                }
                None => return Err(c.error("a format")),
            };
        }
        "HEADER" => {
            statement.header = c
                .option_value()?
                .boolean()
                .ok_or_else(|| invalid("header requires a Boolean value".to_owned()))?;
        }
        "NULL" => statement.null = Some(c.string("a string")?),
        "ENCODING" => {
            let encoding = c.string("a string")?;
            if !matches!(
                encoding
                    .to_ascii_lowercase()
                    .replace(['-', '_'], "")
                    .as_str(),
                "utf8"
            ) {
                return Err(Error::unsupported(format!(
                    "encoding \"{encoding}\" is not supported"
                ))
                .at(value_position));
            }
        }
        _ => {
            let text = c.string("a string")?;
            let mut chars = text.chars();
            let (Some(found), None) = (chars.next(), chars.next()) else {
                return Err(invalid(format!(
                    "COPY {} must be a single one-byte character",
                    name.to_ascii_lowercase()
                )));
            };
            if !found.is_ascii() || found == '\n' || found == '\r' {
                return Err(invalid(format!(
                    "COPY {} must be a single one-byte character",
                    name.to_ascii_lowercase()
                )));
            }
            match name {
                "DELIMITER" => statement.delimiter = Some(found),
                "QUOTE" => statement.quote = Some(found),
                _ => statement.escape = Some(found),
            }
        }
    }
    Ok(())
}

/// `EXPLAIN`
pub(super) fn explain(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.skip();
    let position = c.position();
    let unsupported =
        |what: &str| Err(Error::unsupported(format!("{what} is not supported")).at(position));
    let is_query_group = *c.peek(0) == Token::LParen
        && ["SELECT", "VALUES", "WITH", "TABLE"]
            .iter()
            .any(|word| c.nth_is(1, word));
    if *c.peek(0) == Token::LParen && !is_query_group && *c.peek(1) != Token::LParen {
        return unsupported("EXPLAIN with options in parentheses");
    }
    let mut kind = ExplainKind::Default;
    if c.nth_is(0, "ANALYZE") || c.nth_is(0, "ANALYSE") {
        return unsupported("EXPLAIN ANALYZE");
    } else if c.nth_is(0, "VERBOSE") {
        return unsupported("EXPLAIN VERBOSE");
    } else if c.peek_words(&["FILTER", "PUSHDOWN"]) {
        return unsupported("EXPLAIN FILTER PUSHDOWN");
    } else if c.peek_words(&["KEY", "SCHEMA"]) || c.peek_words(&["VALUE", "SCHEMA"]) {
        return unsupported("EXPLAIN SCHEMA");
    } else if c.take(&["TIMESTAMP"]) {
        kind = ExplainKind::Timestamp;
    } else if c.take(&["INCREMENTAL"]) {
        c.take(&["PLAN"]);
        kind = ExplainKind::Incremental;
    } else {
        let stages: [&[&str]; 7] = [
            &["RAW", "PLAN"],
            &["DECORRELATED", "PLAN"],
            &["LOCALLY", "OPTIMIZED", "PLAN"],
            &["OPTIMIZED", "PLAN"],
            &["PHYSICAL", "PLAN"],
            &["LOGICAL", "PLAN"],
            &["PLAN"],
        ];
        if stages.iter().any(|words| c.take(words)) {
            kind = ExplainKind::Plan;
        }
    }
    if kind != ExplainKind::Default || c.nth_is(0, "AS") {
        if c.nth_is(0, "WITH") && *c.peek(1) == Token::LParen {
            return Err(
                Error::unsupported("modifiers of EXPLAIN are not supported").at(c.position())
            );
        }
        if c.take(&["AS"]) {
            let format = c.position();
            if !c.take(&["TEXT"]) {
                if c.nth_is(0, "JSON") {
                    return Err(Error::unsupported("EXPLAIN AS JSON is not supported").at(format));
                }
                return Err(c.error("TEXT"));
            }
        }
    }
    c.take(&["FOR"]);
    let target = if c.take(&["MATERIALIZED", "VIEW"]) {
        ExplainTarget::MaterializedView(c.name("a materialized view")?)
    } else if c.take(&["VIEW"]) {
        ExplainTarget::View(c.name("a view")?)
    } else if c.take(&["INDEX"]) {
        ExplainTarget::Index(c.name("an index")?)
    } else {
        let target = c.position();
        let statement = super::statement(c)?;
        match &statement.kind {
            StatementKind::Query(_)
            | StatementKind::Subscribe(_)
            | StatementKind::Insert(_)
            | StatementKind::Update(_)
            | StatementKind::Delete(_)
            | StatementKind::WithWrite(_)
            | StatementKind::CreateView(_)
            | StatementKind::CreateMaterializedView(_)
            | StatementKind::CreateIndex(_) => {}
            StatementKind::Unsupported(error) => return Err((**error).clone()),
            _ => {
                return Err(
                    Error::unsupported("EXPLAIN of this statement is not supported").at(target),
                );
            }
        }
        ExplainTarget::Statement(Box::new(statement))
    };
    Ok(StatementKind::Explain(ExplainStatement { kind, target }))
}
