//! CREATE, ALTER and DROP of roles.
//!
//! Invariant. No error repeats a string literal or what follows `PASSWORD`: it may be a password.

use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use crate::ast::{
    AlterRole, AlterRoleAction, CreateRole, DropRoles, Password, PasswordOption, RoleName,
    RoleOptions, StatementKind, ValidUntil,
};
use crate::error::{Error, ErrorKind};

/// Flags that change nothing here; each also with `NO` in front.
const WITHOUT_EFFECT: [&str; 6] = [
    "CREATEDB",
    "CREATEROLE",
    "CREATECLUSTER",
    "CREATENETWORKPOLICY",
    "REPLICATION",
    "BYPASSRLS",
];

/// The two statements that make a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// `CREATE ROLE`: may not log in unless it says so.
    Role,
    /// `CREATE USER`: may.
    User,
}

/// `CREATE ROLE …` after its first two words.
pub(super) fn create(c: &mut Cursor<'_>, made: Made) -> Result<StatementKind, Error> {
    without_literals(c, |c| {
        let if_not_exists = c.if_not_exists()?;
        let name = c.ident("a role name")?;
        let mut options = options(c)?;
        if made == Made::User {
            options.login.get_or_insert(true);
        }
        Ok(StatementKind::CreateRole(CreateRole {
            name,
            if_not_exists,
            options,
        }))
    })
}

/// `ALTER ROLE …` after its first two words.
pub(super) fn alter(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    without_literals(c, |c| {
        let current = c.take_one(&["CURRENT_USER", "CURRENT_ROLE", "SESSION_USER"]);
        let role = match current {
            Some(_) => RoleName::Current,
            None => RoleName::Named(c.ident("a role name")?),
        };
        for word in ["SET", "RESET", "IN"] {
            if c.nth_is(0, word) {
                return Err(
                    Error::unsupported(format!("ALTER ROLE … {word} is not supported"))
                        .at(c.position()),
                );
            }
        }
        let action = if c.take(&["RENAME"]) {
            c.expect(&["TO"])?;
            AlterRoleAction::Rename(c.ident("a new name")?)
        } else {
            AlterRoleAction::Options(options(c)?)
        };
        Ok(StatementKind::AlterRole(AlterRole { role, action }))
    })
}

/// `DROP ROLE …` after its first two words.
pub(super) fn drop(c: &mut Cursor<'_>) -> Result<StatementKind, Error> {
    let if_exists = c.if_exists()?;
    let names = c.comma_separated(|c| c.ident("a role name"))?;
    Ok(StatementKind::DropRoles(DropRoles { names, if_exists }))
}

/// Parses to the end of the statement; an error at a string literal does not repeat it.
fn without_literals(
    c: &mut Cursor<'_>,
    parse: impl FnOnce(&mut Cursor<'_>) -> Result<StatementKind, Error>,
) -> Result<StatementKind, Error> {
    let parsed = parse(c).and_then(|kind| c.expect_end().map(|()| kind));
    parsed.map_err(|error| {
        let word = matches!(c.peek(0), Token::Word(_) | Token::EOF);
        if error.kind == ErrorKind::Syntax && !word {
            Error {
                message: "syntax error at or near a literal".to_owned(),
                ..error
            }
        } else {
            error
        }
    })
}

fn options(c: &mut Cursor<'_>) -> Result<RoleOptions, Error> {
    c.take(&["WITH"]);
    let mut options = RoleOptions::default();
    while !c.is_end() {
        option(c, &mut options)?;
    }
    Ok(options)
}

fn option(c: &mut Cursor<'_>, options: &mut RoleOptions) -> Result<(), Error> {
    let position = c.position();
    let Some(word) = c.bare(0) else {
        return Err(c.error("an option of a role"));
    };
    let (flag, value) = match word.strip_prefix("NO") {
        Some(flag) => (flag, false),
        None => (word.as_str(), true),
    };
    let slot = match flag {
        "LOGIN" => Some(&mut options.login),
        "SUPERUSER" => Some(&mut options.superuser),
        "INHERIT" => Some(&mut options.inherit),
        _ => None,
    };
    if let Some(slot) = slot {
        c.skip();
        return once(slot, value, position);
    }
    if WITHOUT_EFFECT.contains(&flag) {
        c.skip();
        options.without_effect.push(word);
        return Ok(());
    }
    if c.take(&["ENCRYPTED"]) && !c.nth_is(0, "PASSWORD") {
        return Err(c.error("PASSWORD"));
    }
    if c.take(&["PASSWORD"]) {
        let password = password(c)?;
        return once(&mut options.password, password, position);
    }
    if c.take(&["VALID"]) {
        c.expect(&["UNTIL"])?;
        let position_of_text = c.position();
        let valid_until = ValidUntil {
            text: c.string("a point in time")?,
            position: position_of_text,
        };
        return once(&mut options.valid_until, valid_until, position);
    }
    if c.take(&["CONNECTION", "LIMIT"]) {
        let unlimited = c.take_token(&Token::Minus) && c.take_number().is_some_and(|n| n == "1");
        return if unlimited {
            Ok(())
        } else {
            Err(
                Error::unsupported("CONNECTION LIMIT of a role is not supported")
                    .with_hint("Only CONNECTION LIMIT -1, no limit, is accepted.")
                    .at(position),
            )
        };
    }
    if c.nth_is(0, "UNENCRYPTED") {
        return Err(Error::unsupported("UNENCRYPTED PASSWORD is not supported")
            .with_hint("Remove UNENCRYPTED: a password is stored as a SCRAM-SHA-256 verifier.")
            .at(position));
    }
    for word in ["IN", "ROLE", "ADMIN", "USER", "GROUP", "SYSID"] {
        if c.nth_is(0, word) {
            return Err(
                Error::unsupported(format!("{word} of a role is not supported")).at(position),
            );
        }
    }
    Err(c.error("an option of a role"))
}

fn password(c: &mut Cursor<'_>) -> Result<PasswordOption, Error> {
    if c.take(&["NULL"]) {
        return Ok(PasswordOption::Null);
    }
    match c.take_string() {
        Some(text) => Ok(PasswordOption::Text(Password(text))),
        // Whatever stands here was meant as the password.
        None => Err(Error::syntax("syntax error after PASSWORD")
            .with_detail("Expected a string or NULL.")
            .at(c.position())),
    }
}

fn once<T>(slot: &mut Option<T>, value: T, position: usize) -> Result<(), Error> {
    if slot.is_some() {
        return Err(Error::syntax("conflicting or redundant options").at(position));
    }
    *slot = Some(value);
    Ok(())
}
