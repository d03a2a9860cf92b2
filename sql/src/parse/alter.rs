//! ALTER, DROP, COMMENT ON, VALIDATE CONNECTION.

use sqlparser::tokenizer::Token;

use super::cluster;
use super::create::secret_value;
use super::cursor::Cursor;
use super::role;
use super::source::{
    column_option, connection_option, connection_option_name, subsource, validate_option,
};
use crate::ast::{
    AlterConnection, AlterConnectionAction, AlterRename, AlterSchemaSwap, AlterSecret, AlterSink,
    AlterSourceAddSubsource, AlterSourceDropSubsource, CommentOn, CommentTarget, DropStatement,
    Ident, Name, ObjectType, StatementKind, ValidateConnection,
};
use crate::connector::named_once;
use crate::error::Error;

/// A kind of object that we have.
fn object_type(c: &mut Cursor<'_>) -> Option<ObjectType> {
    let types: [(&[&str], ObjectType); 12] = [
        (&["DATABASE"], ObjectType::Database),
        (&["SCHEMA"], ObjectType::Schema),
        (&["TABLE"], ObjectType::Table),
        (&["VIEW"], ObjectType::View),
        (&["MATERIALIZED", "VIEW"], ObjectType::MaterializedView),
        (&["INDEX"], ObjectType::Index),
        (&["SOURCE"], ObjectType::Source),
        (&["SUBSOURCE"], ObjectType::Subsource),
        (&["SECRET"], ObjectType::Secret),
        (&["CONNECTION"], ObjectType::Connection),
        (&["SINK"], ObjectType::Sink),
        (&["CLUSTER"], ObjectType::Cluster),
    ];
    types
        .iter()
        .find(|(words, _)| c.take(words))
        .map(|(_, object_type)| *object_type)
}

/// A kind of object, or the error that says that we have none of this kind.
fn expect_object_type(c: &mut Cursor<'_>, statement: &str) -> Result<ObjectType, Error> {
    let position = c.position();
    if cluster::replica_follows(c) {
        let message = format!("{statement} CLUSTER REPLICA is not supported");
        return Err(Error::unsupported(message).at(position));
    }
    if let Some(found) = object_type(c) {
        return Ok(found);
    }
    let others: [&[&str]; 16] = [
        &["ROLE"],
        &["USER"],
        &["TYPE"],
        &["NETWORK", "POLICY"],
        &["DEFAULT", "PRIVILEGES"],
        &["SYSTEM"],
        &["OWNED"],
        &["FUNCTION"],
        &["EXTENSION"],
        &["SEQUENCE"],
        &["DOMAIN"],
        &["TRIGGER"],
        &["PUBLICATION"],
        &["SUBSCRIPTION"],
        &["FOREIGN"],
        &["POLICY"],
    ];
    match others.iter().find(|words| c.peek_words(words)) {
        Some(words) => Err(Error::unsupported(format!(
            "{statement} {} is not supported",
            words.join(" ")
        ))
        .at(position)),
        None => Err(c.error("a kind of object")),
    }
}

/// How many parts the name of an object of a kind may have.
const fn name_parts(object_type: ObjectType) -> usize {
    match object_type {
        ObjectType::Database | ObjectType::Cluster | ObjectType::Role => 1,
        ObjectType::Schema => 2,
        _ => 3,
    }
}

/// `ALTER …`
pub(super) fn alter(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.skip();
    if c.take_one(&["ROLE", "USER"]).is_some() {
        return role::alter(c);
    }
    let object_type = expect_object_type(c, "ALTER")?;
    let if_exists = c.if_exists()?;
    let name = c.name_of(
        &format!("a {}", object_type.noun()),
        name_parts(object_type),
    )?;
    let position = c.position();
    if c.take(&["RENAME"]) {
        if c.nth_is(0, "COLUMN") || !c.nth_is(0, "TO") && c.nth_is(1, "TO") {
            return Err(Error::unsupported("renaming a column is not supported").at(position));
        }
        c.expect(&["TO"])?;
        let new_name = c.ident("a new name")?;
        return Ok(StatementKind::AlterRename(AlterRename {
            object_type,
            if_exists,
            name,
            new_name,
        }));
    }
    match object_type {
        ObjectType::Schema if c.take(&["SWAP"]) => {
            c.expect(&["WITH"])?;
            let other = c.ident("a schema")?;
            Ok(StatementKind::AlterSchemaSwap(AlterSchemaSwap {
                name,
                other,
            }))
        }
        ObjectType::Secret if c.take(&["AS"]) => {
            let value = secret_value(c)?;
            Ok(StatementKind::AlterSecret(AlterSecret {
                name,
                if_exists,
                value,
            }))
        }
        ObjectType::Connection => alter_connection(c, name, if_exists),
        ObjectType::Cluster => {
            cluster::alter(c, name, if_exists)?.ok_or_else(|| unsupported_action(c, object_type))
        }
        ObjectType::Sink if c.take(&["SET", "FROM"]) => {
            let from = c.name("a relation")?;
            Ok(StatementKind::AlterSink(AlterSink {
                name,
                if_exists,
                from,
            }))
        }
        ObjectType::Source if c.nth_is(0, "ADD") || c.nth_is(0, "DROP") => {
            alter_source(c, name, if_exists)
        }
        _ => Err(unsupported_action(c, object_type)),
    }
}

fn unsupported_action(c: &Cursor<'_>, object_type: ObjectType) -> Error {
    let known = [
        "SET", "RESET", "OWNER", "ADD", "DROP", "ALTER", "APPLY", "ROTATE", "SWAP", "ENABLE",
        "DISABLE", "ATTACH", "DETACH", "CLUSTER", "REPLICA",
    ];
    match known.iter().find(|word| c.nth_is(0, word)) {
        Some(word) => Error::unsupported(format!(
            "ALTER {} … {word} is not supported",
            object_type.keyword()
        ))
        .at(c.position()),
        None => c.error("RENAME TO or another change"),
    }
}

fn alter_connection(
    c: &mut Cursor<'_>,
    name: Name,
    if_exists: bool,
) -> Result<StatementKind, Error> {
    let mut actions = Vec::new();
    loop {
        if c.nth_is(0, "SET") && *c.peek(1) == Token::LParen {
            c.skip();
            actions.extend(
                c.parenthesized(connection_option)?
                    .into_iter()
                    .map(AlterConnectionAction::Set),
            );
        } else if (c.nth_is(0, "DROP") || c.nth_is(0, "RESET")) && *c.peek(1) == Token::LParen {
            c.skip();
            actions.extend(c.parenthesized(|c| {
                let position = c.position();
                connection_option_name(c)
                    .map(|name| AlterConnectionAction::Unset { name, position })
            })?);
        } else {
            return Err(unsupported_action(c, ObjectType::Connection));
        }
        if !c.take_token(&Token::Comma) {
            break;
        }
    }
    named_once(actions.iter().map(|action| match action {
        AlterConnectionAction::Set(option) => (option.name, option.position),
        AlterConnectionAction::Unset { name, position } => (*name, *position),
    }))?;
    let validate = validate_option(c)?;
    Ok(StatementKind::AlterConnection(AlterConnection {
        name,
        if_exists,
        actions,
        validate,
    }))
}

fn alter_source(c: &mut Cursor<'_>, source: Name, if_exists: bool) -> Result<StatementKind, Error> {
    let add = c.nth_is(0, "ADD");
    c.skip();
    if !c.take(&["SUBSOURCE"]) && !c.take(&["TABLE"]) && !c.take(&["TABLES"]) {
        return Err(c.error("SUBSOURCE"));
    }
    if add {
        let tables = c.comma_separated(subsource)?;
        let mut text_columns = Vec::new();
        let mut exclude_columns = Vec::new();
        if c.take(&["WITH"]) {
            c.parenthesized(|c| column_option(c, &mut text_columns, &mut exclude_columns))?;
        }
        return Ok(StatementKind::AlterSourceAddSubsource(
            AlterSourceAddSubsource {
                source,
                if_exists,
                tables,
                text_columns,
                exclude_columns,
            },
        ));
    }
    let subsource_if_exists = c.if_exists()?;
    let tables = c.comma_separated(|c| c.name("a subsource"))?;
    let cascade = c.take(&["CASCADE"]);
    c.take(&["RESTRICT"]);
    Ok(StatementKind::AlterSourceDropSubsource(
        AlterSourceDropSubsource {
            source,
            if_exists,
            subsource_if_exists,
            tables,
            cascade,
        },
    ))
}

/// `DROP …`
pub(super) fn drop(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.skip();
    if c.take_one(&["ROLE", "USER"]).is_some() {
        return role::drop(c);
    }
    if cluster::replica_follows(c) {
        return cluster::drop_replicas(c);
    }
    let object_type = expect_object_type(c, "DROP")?;
    let if_exists = c.if_exists()?;
    let names = c.comma_separated(|c| {
        c.name_of(
            &format!("a {}", object_type.noun()),
            name_parts(object_type),
        )
    })?;
    let cascade = c.take(&["CASCADE"]);
    let restrict = !cascade && c.take(&["RESTRICT"]);
    Ok(StatementKind::Drop(DropStatement {
        object_type,
        if_exists,
        names,
        cascade,
        restrict,
    }))
}

/// `COMMENT ON …`
pub(super) fn comment(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.skip();
    c.expect(&["ON"])?;
    let target = if c.take(&["COLUMN"]) {
        let position = c.position();
        let mut name = c.name_of("a column", 4)?;
        let column = name.parts.pop().unwrap_or_else(|| Ident::new(""));
        if name.parts.is_empty() {
            return Err(Error::syntax("a column is named as relation.column").at(position));
        }
        CommentTarget::Column {
            relation: name,
            column,
        }
    } else {
        let object_type = expect_object_type(c, "COMMENT ON")?;
        let name = c.name_of(
            &format!("a {}", object_type.noun()),
            name_parts(object_type),
        )?;
        CommentTarget::Object { object_type, name }
    };
    c.expect(&["IS"])?;
    let comment = if c.take(&["NULL"]) {
        None
    } else {
        Some(c.string("a string or NULL")?)
    };
    Ok(StatementKind::CommentOn(CommentOn { target, comment }))
}

/// `VALIDATE CONNECTION`
pub(super) fn validate(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    c.skip();
    c.expect(&["CONNECTION"])?;
    let name = c.name("a connection")?;
    Ok(StatementKind::ValidateConnection(ValidateConnection {
        name,
    }))
}
