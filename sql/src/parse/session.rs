//! Statements about the session: SHOW, SET, transactions, prepared statements, cursors.

use flowstone_types::EvalErrorKind;
use flowstone_types::datetime::TimeZone;
use sqlparser::ast::{ArrayElemTypeDef, DataType, ExactNumberInfo, ObjectName};
use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use crate::ast::{
    Declare, DiscardTarget, Execute, Fetch, Ident, IsolationLevel, ObjectType, Prepare,
    ResetVariable, SetTransaction, SetValue, SetVariable, ShowFilter, ShowKind, ShowOf,
    ShowStatement, ShowVariable, StatementKind, TransactionMode,
};
use crate::error::{Error, ErrorKind};

/// `SHOW`
pub(super) fn show(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.skip();
    let position = c.position();
    if c.is_end() {
        return Err(c.error("what to show"));
    }
    if c.peek_words(&["REDACTED", "CREATE"]) || c.nth_is(0, "CREATE") {
        c.take(&["REDACTED"]);
        return show_create(c);
    }
    // A variable may have any name: these words are kinds only where a kind can stand.
    let full = (c.nth_is(0, "FULL") || c.nth_is(0, "EXTENDED")) && !matches!(c.peek(1), Token::EOF);
    if full {
        c.skip();
    }
    let kinds: [(&[&str], ShowKind); 19] = [
        (&["DATABASES"], ShowKind::Databases),
        (&["SCHEMAS"], ShowKind::Schemas),
        (&["OBJECTS"], ShowKind::Objects),
        (&["TABLES"], ShowKind::Tables),
        (&["VIEWS"], ShowKind::Views),
        (&["MATERIALIZED", "VIEWS"], ShowKind::MaterializedViews),
        (&["INDEXES"], ShowKind::Indexes),
        (&["INDEX"], ShowKind::Indexes),
        (&["KEYS"], ShowKind::Indexes),
        (&["INDICES"], ShowKind::Indexes),
        (&["SOURCES"], ShowKind::Sources),
        (&["SUBSOURCES"], ShowKind::Subsources),
        (&["SINKS"], ShowKind::Sinks),
        (&["SECRETS"], ShowKind::Secrets),
        (&["CONNECTIONS"], ShowKind::Connections),
        (&["CLUSTERS"], ShowKind::Clusters),
        (&["CLUSTER", "REPLICAS"], ShowKind::ClusterReplicas),
        (&["ROLES"], ShowKind::Roles),
        (&["TYPES"], ShowKind::Types),
    ];
    if let Some((_, kind)) = kinds.iter().find(|(words, _)| c.take(words)) {
        return show_objects(c, *kind);
    }
    if c.take(&["COLUMNS"]) {
        if !c.take(&["FROM"]) {
            c.expect(&["IN"])?;
        }
        let relation = c.name("a relation")?;
        let filter = show_filter(c)?;
        return Ok(StatementKind::Show(ShowStatement::Columns {
            relation,
            filter,
        }));
    }
    for words in [
        &["PRIVILEGES"][..],
        &["DEFAULT", "PRIVILEGES"],
        &["ROLE", "MEMBERSHIP"],
        &["NETWORK", "POLICIES"],
    ] {
        if c.peek_words(words) {
            return Err(
                Error::unsupported(format!("SHOW {} is not supported", words.join(" ")))
                    .at(position),
            );
        }
    }
    if full {
        return Err(c.error("a kind of objects"));
    }
    let variable = if c.take(&["ALL"]) {
        ShowVariable::All
    } else if c.take(&["TIME", "ZONE"]) {
        ShowVariable::Named("timezone".to_owned())
    } else if c.take(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
        ShowVariable::Named("transaction_isolation".to_owned())
    } else if c.take(&["SESSION", "AUTHORIZATION"]) {
        ShowVariable::Named("session_authorization".to_owned())
    } else {
        ShowVariable::Named(variable_name(c)?)
    };
    Ok(StatementKind::ShowVariable(variable))
}

fn show_create(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let position = c.position();
    c.expect(&["CREATE"])?;
    let types = [
        ("TABLE", ObjectType::Table),
        ("VIEW", ObjectType::View),
        ("INDEX", ObjectType::Index),
        ("SOURCE", ObjectType::Source),
        ("CONNECTION", ObjectType::Connection),
        ("SINK", ObjectType::Sink),
        ("CLUSTER", ObjectType::Cluster),
    ];
    let object_type = if c.take(&["MATERIALIZED", "VIEW"]) {
        ObjectType::MaterializedView
    } else if let Some((_, object_type)) = types.iter().find(|(word, _)| c.take(&[word])) {
        *object_type
    } else if let Some(word) = c.bare(0).filter(|word| word == "TYPE") {
        return Err(
            Error::unsupported(format!("SHOW CREATE {word} is not supported")).at(position),
        );
    } else {
        return Err(c.error("a kind of object"));
    };
    let parts = if object_type == ObjectType::Cluster {
        1
    } else {
        3
    };
    let name = c.name_of("a name", parts)?;
    Ok(StatementKind::Show(ShowStatement::Create {
        object_type,
        name,
    }))
}

fn show_objects(c: &mut Cursor<'_>, kind: ShowKind) -> Result<StatementKind, Error> {
    let mut from = None;
    let mut of = None;
    loop {
        let cluster = matches!(
            kind,
            ShowKind::Indexes | ShowKind::Sources | ShowKind::Sinks | ShowKind::MaterializedViews
        ) && of.is_none();
        let on = matches!(kind, ShowKind::Indexes | ShowKind::Subsources) && of.is_none();
        let schema = !matches!(
            kind,
            ShowKind::Databases | ShowKind::Clusters | ShowKind::ClusterReplicas | ShowKind::Roles
        ) && from.is_none();
        if cluster && c.peek_words(&["IN", "CLUSTER"]) {
            of = c.in_cluster()?.map(ShowOf::Cluster);
        } else if on && c.take(&["ON"]) {
            of = Some(ShowOf::Relation(c.name("a relation")?));
        } else if schema && (c.take(&["FROM"]) || c.take(&["IN"])) {
            let most = if kind == ShowKind::Schemas { 1 } else { 2 };
            from = Some(c.name_of("a schema", most)?);
        } else {
            break;
        }
    }
    let filter = show_filter(c)?;
    Ok(StatementKind::Show(ShowStatement::Objects {
        kind,
        from,
        of,
        filter,
    }))
}

fn show_filter(c: &mut Cursor<'_>) -> Result<Option<ShowFilter>, Error> {
    if c.take(&["LIKE"]) {
        return c
            .string("a pattern")
            .map(|pattern| Some(ShowFilter::Like(pattern)));
    }
    if c.take(&["WHERE"]) {
        return c
            .expr()
            .map(|condition| Some(ShowFilter::Where(Box::new(condition))));
    }
    Ok(None)
}

/// A variable's name in lower case; custom ones have a period in them.
fn variable_name(c: &mut Cursor<'_>) -> Result<String, Error> {
    let Some(first) = variable_part(c) else {
        return Err(c.error("a variable"));
    };
    let mut name = first;
    while c.take_token(&Token::Period) {
        let Some(part) = variable_part(c) else {
            return Err(c.error("a variable"));
        };
        name.push('.');
        name.push_str(&part);
    }
    Ok(name)
}

fn variable_part(c: &mut Cursor<'_>) -> Option<String> {
    let Token::Word(word) = c.peek(0) else {
        return None;
    };
    c.skip();
    Some(word.value.to_ascii_lowercase())
}

/// `SET`
pub(super) fn set(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.skip();
    let position = c.position();
    if c.take(&["SESSION", "CHARACTERISTICS"]) {
        c.expect(&["AS", "TRANSACTION"])?;
        return Ok(StatementKind::SetTransaction(SetTransaction {
            session: true,
            modes: transaction_modes(c, true)?,
        }));
    }
    if c.peek_words(&["SESSION", "AUTHORIZATION"]) {
        return Err(Error::unsupported("SET SESSION AUTHORIZATION is not supported").at(position));
    }
    let assigned = |n: usize| matches!(c.peek(n), Token::Eq | Token::Period) || c.nth_is(n, "TO");
    let scope_word = c.nth_is(0, "SESSION") || c.nth_is(0, "LOCAL");
    let scoped = scope_word && !assigned(1);
    let local = scoped && c.nth_is(0, "LOCAL");
    if scoped {
        c.skip();
    }
    let is_assignment = matches!(c.peek(1), Token::Eq | Token::Period) || c.nth_is(1, "TO");
    if !is_assignment {
        if c.take(&["TRANSACTION"]) {
            if c.peek_words(&["SNAPSHOT"]) {
                return Err(
                    Error::unsupported("SET TRANSACTION SNAPSHOT is not supported").at(position),
                );
            }
            return Ok(StatementKind::SetTransaction(SetTransaction {
                session: false,
                modes: transaction_modes(c, true)?,
            }));
        }
        if c.take(&["TIME", "ZONE"]) {
            if c.take(&["LOCAL"]) || c.take(&["DEFAULT"]) {
                return Ok(variable(local, "timezone", SetValue::Default));
            }
            if c.take(&["INTERVAL"]) {
                let value = interval_zone(c, position)?;
                return Ok(variable(local, "timezone", SetValue::Values(vec![value])));
            }
            let value = set_value(c)?;
            return Ok(variable(local, "timezone", SetValue::Values(vec![value])));
        }
        if c.take(&["NAMES"]) {
            let value = set_value(c)?;
            return Ok(variable(
                local,
                "client_encoding",
                SetValue::Values(vec![value]),
            ));
        }
        for word in ["ROLE", "CONSTRAINTS"] {
            if c.nth_is(0, word) {
                return Err(Error::unsupported(format!("SET {word} is not supported")).at(position));
            }
        }
    }
    let name = variable_name(c)?;
    if !c.take_token(&Token::Eq) && !c.take(&["TO"]) {
        return Err(c.error("\"=\" or TO"));
    }
    if c.take(&["DEFAULT"]) {
        return Ok(variable(local, &name, SetValue::Default));
    }
    let values = c.comma_separated(set_value)?;
    Ok(variable(local, &name, SetValue::Values(values)))
}

fn variable(local: bool, name: &str, value: SetValue) -> StatementKind {
    StatementKind::SetVariable(SetVariable {
        local,
        name: name.to_owned(),
        value,
    })
}

/// One value of a SET: a string, a number or a word.
fn set_value(c: &mut Cursor<'_>) -> Result<String, Error> {
    if let Some(text) = c.take_string() {
        return Ok(text);
    }
    let negative = *c.peek(0) == Token::Minus && matches!(c.peek(1), Token::Number(..));
    if negative || (*c.peek(0) == Token::Plus && matches!(c.peek(1), Token::Number(..))) {
        c.skip();
    }
    if let Some(digits) = c.take_number() {
        return Ok(if negative {
            format!("-{digits}")
        } else {
            digits
        });
    }
    let Token::Word(word) = c.peek(0) else {
        return Err(c.error("a value"));
    };
    let value = if word.quote_style.is_some() {
        word.value.clone()
    } else {
        word.value.to_ascii_lowercase()
    };
    c.skip();
    Ok(value)
}

/// What follows `SET TIME ZONE INTERVAL`: the setting that the offset is.
fn interval_zone(c: &mut Cursor<'_>, position: usize) -> Result<String, Error> {
    let Some(text) = c.take_string() else {
        return Err(c.error("a string"));
    };
    let hours_only = c.take(&["HOUR"]);
    if hours_only && c.take(&["TO"]) && !c.take(&["MINUTE"]) && !c.take(&["SECOND"]) {
        return Err(c.error("MINUTE or SECOND"));
    }
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let text = if hours_only && is_number(text.trim_start_matches(['+', '-'])) {
        format!("{text} hours")
    } else {
        text
    };
    let offset = flowstone_types::interval::parse_interval(&text).map_err(|error| {
        let kind = ErrorKind::Evaluation(EvalErrorKind::DatetimeFormat);
        Error::new(kind, error.to_string()).at(position)
    })?;
    let refused = |detail: &str| {
        let mut shown = String::new();
        flowstone_types::interval::format_interval(offset, &mut shown);
        let message = format!("invalid value for parameter \"TimeZone\": \"INTERVAL '{shown}'\"");
        Error::new(ErrorKind::InvalidParameterValue, message)
            .with_detail(detail)
            .at(position)
    };
    if offset.months != 0 {
        return Err(refused("Cannot specify months in time zone interval."));
    }
    if offset.days != 0 {
        return Err(refused("Cannot specify days in time zone interval."));
    }
    i32::try_from(offset.nanoseconds / 1_000_000_000)
        .map(|seconds| TimeZone::Fixed(seconds).to_string())
        .map_err(|_| refused("UTC timezone offset is out of range."))
}

/// `RESET`
pub(super) fn reset(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.skip();
    let position = c.position();
    if c.take(&["ALL"]) {
        return Ok(StatementKind::ResetVariable(ResetVariable::All));
    }
    if c.take(&["TIME", "ZONE"]) {
        return Ok(StatementKind::ResetVariable(ResetVariable::Named(
            "timezone".to_owned(),
        )));
    }
    if c.take(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
        return Ok(StatementKind::ResetVariable(ResetVariable::Named(
            "transaction_isolation".to_owned(),
        )));
    }
    if c.peek_words(&["SESSION", "AUTHORIZATION"]) {
        return Err(
            Error::unsupported("RESET SESSION AUTHORIZATION is not supported").at(position),
        );
    }
    variable_name(c).map(|name| StatementKind::ResetVariable(ResetVariable::Named(name)))
}

/// The modes of a transaction, with or without commas between them.
fn transaction_modes(c: &mut Cursor<'_>, required: bool) -> Result<Vec<TransactionMode>, Error> {
    let mut modes = Vec::new();
    loop {
        let comma = !modes.is_empty() && c.take_token(&Token::Comma);
        let mode = if c.take(&["ISOLATION", "LEVEL"]) {
            TransactionMode::Isolation(isolation_level(c)?)
        } else if c.take(&["READ", "ONLY"]) {
            TransactionMode::ReadOnly
        } else if c.take(&["READ", "WRITE"]) {
            TransactionMode::ReadWrite
        } else if c.take(&["DEFERRABLE"]) {
            TransactionMode::Deferrable(true)
        } else if c.take(&["NOT", "DEFERRABLE"]) {
            TransactionMode::Deferrable(false)
        } else if comma || (required && modes.is_empty()) {
            return Err(c.error("a transaction mode"));
        } else {
            return Ok(modes);
        };
        modes.push(mode);
    }
}

fn isolation_level(c: &mut Cursor<'_>) -> Result<IsolationLevel, Error> {
    let levels: [(&[&str], IsolationLevel); 6] = [
        (&["READ", "UNCOMMITTED"], IsolationLevel::ReadUncommitted),
        (&["READ", "COMMITTED"], IsolationLevel::ReadCommitted),
        (&["REPEATABLE", "READ"], IsolationLevel::RepeatableRead),
        (&["SERIALIZABLE"], IsolationLevel::Serializable),
        (
            &["STRONG", "SESSION", "SERIALIZABLE"],
            IsolationLevel::StrongSessionSerializable,
        ),
        (
            &["STRICT", "SERIALIZABLE"],
            IsolationLevel::StrictSerializable,
        ),
    ];
    let found = levels
        .iter()
        .find(|(words, _)| c.take(words))
        .map(|(_, level)| *level);
    found.ok_or_else(|| c.error("an isolation level"))
}

/// BEGIN, COMMIT, ROLLBACK and their synonyms.
pub(super) fn transaction(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let position = c.position();
    let word = c.bare(0).unwrap_or_default();
    c.skip();
    match word.as_str() {
        "BEGIN" | "START" => {
            if word == "START" {
                c.expect(&["TRANSACTION"])?;
            } else {
                let _ = c.take(&["TRANSACTION"]) || c.take(&["WORK"]);
            }
            Ok(StatementKind::Begin {
                modes: transaction_modes(c, false)?,
            })
        }
        _ => {
            if c.nth_is(0, "PREPARED") {
                return Err(
                    Error::unsupported(format!("{word} PREPARED is not supported")).at(position),
                );
            }
            let _ = c.take(&["TRANSACTION"]) || c.take(&["WORK"]);
            if word == "ROLLBACK" && c.take(&["TO"]) {
                return savepoint_name(c).map(StatementKind::RollbackTo);
            }
            if c.take(&["AND"]) {
                let no = c.take(&["NO"]);
                c.expect(&["CHAIN"])?;
                if !no {
                    return Err(
                        Error::unsupported(format!("{word} AND CHAIN is not supported"))
                            .at(position),
                    );
                }
            }
            Ok(if matches!(word.as_str(), "COMMIT" | "END") {
                StatementKind::Commit
            } else {
                StatementKind::Rollback
            })
        }
    }
}

/// `[SAVEPOINT] name`
fn savepoint_name(c: &mut Cursor<'_>) -> Result<Ident, Error> {
    let _ = c.take(&["SAVEPOINT"]);
    c.ident("a savepoint")
}

/// SAVEPOINT and RELEASE.
pub(super) fn savepoint(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    if c.take(&["RELEASE"]) {
        return savepoint_name(c).map(StatementKind::ReleaseSavepoint);
    }
    c.expect(&["SAVEPOINT"])?;
    c.ident("a savepoint").map(StatementKind::Savepoint)
}

/// The type of a parameter that is declared as one: a length, precision or scale says nothing.
fn parameter_type(declared: DataType) -> DataType {
    match declared {
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => {
            DataType::Numeric(ExactNumberInfo::None)
        }
        DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_) => {
            DataType::Varchar(None)
        }
        DataType::Char(_) | DataType::Character(_) => DataType::Custom(
            ObjectName::from(vec![sqlparser::ast::Ident::new("bpchar")]),
            Vec::new(),
        ),
        DataType::Custom(name, _) => DataType::Custom(name, Vec::new()),
        DataType::Array(ArrayElemTypeDef::SquareBracket(item, _)) => DataType::Array(
            ArrayElemTypeDef::SquareBracket(Box::new(parameter_type(*item)), None),
        ),
        other => other,
    }
}

/// PREPARE, EXECUTE, DEALLOCATE.
pub(super) fn prepared(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let position = c.position();
    let word = c.bare(0).unwrap_or_default();
    c.skip();
    match word.as_str() {
        "PREPARE" => {
            if c.nth_is(0, "TRANSACTION") && matches!(c.peek(1), Token::SingleQuotedString(_)) {
                return Err(Error::unsupported("PREPARE TRANSACTION is not supported").at(position));
            }
            let name = c.ident("a name")?;
            let types = if *c.peek(0) == Token::LParen {
                c.parenthesized(|c| c.delegate(|parser| parser.parse_data_type()))?
                    .into_iter()
                    .map(parameter_type)
                    .collect()
            } else {
                Vec::new()
            };
            c.expect(&["AS"])?;
            let statement = Box::new(super::statement(c)?);
            Ok(StatementKind::Prepare(Prepare {
                name,
                types,
                statement,
            }))
        }
        "EXECUTE" => {
            let name = c.ident("a name")?;
            let parameters = if *c.peek(0) == Token::LParen {
                if *c.peek(1) == Token::RParen {
                    return Err(Error::syntax("syntax error at or near \")\"").at(c.position() + 1));
                }
                c.parenthesized(Cursor::expr)?
            } else {
                Vec::new()
            };
            Ok(StatementKind::Execute(Execute { name, parameters }))
        }
        _ => {
            if c.nth_is(0, "PREPARE") && *c.peek(1) != Token::EOF {
                c.skip();
            }
            if c.take(&["ALL"]) {
                return Ok(StatementKind::Deallocate(None));
            }
            c.ident("a name")
                .map(|name| StatementKind::Deallocate(Some(name)))
        }
    }
}

/// DECLARE, FETCH, CLOSE.
pub(super) fn cursor(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let word = c.bare(0).unwrap_or_default();
    c.skip();
    match word.as_str() {
        "DECLARE" => declare(c),
        "FETCH" => fetch(c),
        _ => {
            if c.take(&["ALL"]) {
                return Ok(StatementKind::Close(None));
            }
            c.ident("a cursor")
                .map(|name| StatementKind::Close(Some(name)))
        }
    }
}

fn declare(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let name = c.ident("a cursor")?;
    loop {
        let position = c.position();
        if c.take(&["NO", "SCROLL"]) || c.take(&["ASENSITIVE"]) || c.take(&["INSENSITIVE"]) {
            continue;
        }
        let Some(word) = c.take_one(&["BINARY", "SCROLL"]) else {
            break;
        };
        return Err(Error::unsupported(format!("{word} cursors are not supported")).at(position));
    }
    c.expect(&["CURSOR"])?;
    let position = c.position();
    if c.take(&["WITH", "HOLD"]) {
        return Err(Error::unsupported("cursors WITH HOLD are not supported").at(position));
    }
    c.take(&["WITHOUT", "HOLD"]);
    c.expect(&["FOR"])?;
    let position = c.position();
    let statement = super::statement(c)?;
    match &statement.kind {
        StatementKind::Query(_) | StatementKind::Subscribe(_) => {}
        StatementKind::Unsupported(error) => return Err((**error).clone()),
        _ => {
            return Err(Error::syntax(
                "a cursor can only be declared for a query or a subscription",
            )
            .at(position));
        }
    }
    Ok(StatementKind::Declare(Declare {
        name,
        statement: Box::new(statement),
    }))
}

fn fetch(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    // A word is a direction only if the cursor's name still follows.
    let more = |c: &Cursor<'_>| *c.peek(1) != Token::EOF && !c.nth_is(1, "WITH");
    let position = c.position();
    if more(c) {
        for word in ["BACKWARD", "PRIOR", "FIRST", "LAST", "ABSOLUTE", "RELATIVE"] {
            if c.nth_is(0, word) {
                return Err(
                    Error::unsupported(format!("FETCH {word} is not supported")).at(position)
                );
            }
        }
        c.take(&["FORWARD"]);
    }
    if *c.peek(0) == Token::Minus {
        return Err(Error::unsupported("FETCH of a negative count is not supported").at(position));
    }
    let count = if matches!(c.peek(0), Token::Number(..)) {
        Some(c.unsigned("count")?)
    } else if more(c) && c.take(&["ALL"]) {
        None
    } else {
        if more(c) {
            c.take(&["NEXT"]);
        }
        Some(1)
    };
    let _ = c.take(&["FROM"]) || c.take(&["IN"]);
    let name = c.ident("a cursor")?;
    let mut timeout = None;
    for option in c.with_options(&["TIMEOUT"])? {
        let text = option.value.text().unwrap_or_default();
        let invalid = || {
            Error::new(
                ErrorKind::InvalidParameterValue,
                format!("invalid timeout: \"{text}\""),
            )
            .at(option.position)
        };
        timeout = Some(super::parse_duration(text).ok_or_else(invalid)?);
    }
    Ok(StatementKind::Fetch(Fetch {
        name,
        count,
        timeout,
    }))
}

/// `UNLISTEN`
pub(super) fn unlisten(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.skip();
    if !c.take_token(&Token::Mul) {
        c.ident("a channel or *")?;
    }
    Ok(StatementKind::Unlisten)
}

/// `DISCARD`
pub(super) fn discard(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.skip();
    let targets = [
        ("ALL", DiscardTarget::All),
        ("PLANS", DiscardTarget::Plans),
        ("SEQUENCES", DiscardTarget::Sequences),
        ("TEMPORARY", DiscardTarget::Temporary),
        ("TEMP", DiscardTarget::Temporary),
    ];
    let found = targets
        .iter()
        .find(|(word, _)| c.take(&[word]))
        .map(|(_, target)| StatementKind::Discard(*target));
    found.ok_or_else(|| c.error("ALL, PLANS, SEQUENCES or TEMPORARY"))
}
