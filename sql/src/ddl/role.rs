//! CREATE, ALTER and DROP of roles.
//!
//! A password comes here hashed: [`PasswordChange`] carries a verifier. Rules are PostgreSQL's, except that nobody needs a privilege.

use flowstone_types::datetime::{TimeZone, parse_timestamptz};

use super::{DdlPlan, Ids, Notice};
use crate::ast::{
    AlterRole, AlterRoleAction, CreateRole, DropRoles, Ident, PasswordOption, RoleName,
    RoleOptions, ValidUntil,
};
use crate::catalog::{Catalog, CatalogChange, DEFAULT_ROLE, PasswordVerifier, Role, RoleId};
use crate::error::{Error, ErrorKind};

/// Names and prefixes of names that no role can have.
const RESERVED_NAMES: [&str; 2] = ["public", "none"];
const RESERVED_PREFIXES: [&str; 2] = ["mz_", "pg_"];
/// Longest name of a role, in bytes: what PostgreSQL's drivers and catalogs expect.
const NAME_BYTES_MAX: usize = 255;

/// What becomes of a role's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordChange {
    /// It stays.
    Keep,
    /// The role has none any more.
    Clear,
    /// It is this one.
    Set(PasswordVerifier),
}

/// Plans CREATE ROLE. `password` is what the statement's password became; `zone` is the session's.
///
/// # Errors
/// The role exists, its name is reserved, or an option is wrong.
pub fn plan_create_role(
    catalog: &Catalog,
    create: &CreateRole,
    password: PasswordChange,
    zone: &TimeZone,
) -> Result<DdlPlan, Error> {
    let tag = "CREATE ROLE";
    refuse_reserved(&create.name)?;
    if catalog.find_role(&create.name.value).is_some() {
        let message = format!("role \"{}\" already exists", create.name.value);
        if create.if_not_exists {
            return Ok(DdlPlan::skip(tag, format!("{message}, skipping")));
        }
        return Err(Error::new(ErrorKind::DuplicateObject, message).at(create.name.position));
    }
    let mut ids = Ids::new(catalog);
    let mut role = Role {
        id: RoleId(ids.id()),
        oid: ids.oid(),
        name: create.name.value.clone(),
        login: false,
        superuser: false,
        inherit: true,
        password: None,
        valid_until_us: None,
    };
    let mut plan = DdlPlan::new(tag);
    apply(&mut role, &create.options, password, zone, &mut plan)?;
    plan.changes.push(CatalogChange::PutRole(role));
    Ok(plan)
}

/// Plans ALTER ROLE for a session of the role `session_role`.
///
/// # Errors
/// The role does not exist, or what is asked for cannot be.
pub fn plan_alter_role(
    catalog: &Catalog,
    session_role: &str,
    alter: &AlterRole,
    password: PasswordChange,
    zone: &TimeZone,
) -> Result<DdlPlan, Error> {
    let (name, position) = match &alter.role {
        RoleName::Named(name) => (name.value.as_str(), Some(name.position)),
        RoleName::Current => (session_role, None),
    };
    let at = |error: Error| match position {
        Some(position) => error.at(position),
        None => error,
    };
    let mut role = catalog
        .find_role(name)
        .cloned()
        .ok_or_else(|| at(missing(name)))?;
    let mut plan = DdlPlan::new("ALTER ROLE");
    match &alter.action {
        AlterRoleAction::Options(options) => {
            if role.id == RoleId::DEFAULT && options.superuser == Some(false) {
                return Err(at(reserved(format!(
                    "role \"{DEFAULT_ROLE}\" must be a superuser"
                ))));
            }
            apply(&mut role, options, password, zone, &mut plan)?;
        }
        AlterRoleAction::Rename(new_name) => {
            refuse_reserved(new_name)?;
            if role.id == RoleId::DEFAULT {
                return Err(at(reserved(format!(
                    "role \"{DEFAULT_ROLE}\" cannot be renamed"
                ))));
            }
            if name == session_role {
                return Err(at(Error::unsupported("session user cannot be renamed")));
            }
            if let Some(other) = catalog.find_role(&new_name.value)
                && other.id != role.id
            {
                let message = format!("role \"{}\" already exists", new_name.value);
                return Err(Error::new(ErrorKind::DuplicateObject, message).at(new_name.position));
            }
            role.name.clone_from(&new_name.value);
        }
    }
    plan.changes.push(CatalogChange::PutRole(role));
    Ok(plan)
}

/// Plans DROP ROLE for a session of the role `session_role`.
///
/// # Errors
/// A role does not exist, is the session's own, or is the one that always is.
pub fn plan_drop_roles(
    catalog: &Catalog,
    session_role: &str,
    drop: &DropRoles,
) -> Result<DdlPlan, Error> {
    let mut plan = DdlPlan::new("DROP ROLE");
    for name in &drop.names {
        let Some(role) = catalog.find_role(&name.value) else {
            if drop.if_exists {
                plan.notices.push(Notice::note(format!(
                    "role \"{}\" does not exist, skipping",
                    name.value
                )));
                continue;
            }
            return Err(missing(&name.value).at(name.position));
        };
        if role.name == session_role {
            let message = "current user cannot be dropped";
            return Err(Error::new(ErrorKind::ObjectInUse, message).at(name.position));
        }
        if role.id == RoleId::DEFAULT {
            return Err(
                reserved(format!("role \"{DEFAULT_ROLE}\" cannot be dropped")).at(name.position),
            );
        }
        let change = CatalogChange::DropRole(role.id);
        if !plan.changes.contains(&change) {
            plan.changes.push(change);
        }
    }
    Ok(plan)
}

fn apply(
    role: &mut Role,
    options: &RoleOptions,
    password: PasswordChange,
    zone: &TimeZone,
    plan: &mut DdlPlan,
) -> Result<(), Error> {
    role.login = options.login.unwrap_or(role.login);
    role.superuser = options.superuser.unwrap_or(role.superuser);
    role.inherit = options.inherit.unwrap_or(role.inherit);
    match password {
        PasswordChange::Keep => {}
        PasswordChange::Clear => role.password = None,
        PasswordChange::Set(verifier) => role.password = Some(verifier),
    }
    if let Some(PasswordOption::Text(text)) = &options.password
        && text.0.is_empty()
    {
        plan.notices.push(Notice::note(
            "empty string is not a valid password, clearing password",
        ));
    }
    if let Some(valid_until) = &options.valid_until {
        role.valid_until_us = end_of_validity(valid_until, zone)?;
    }
    for option in &options.without_effect {
        plan.notices.push(Notice {
            hint: Some("There are no privileges: every role may do everything.".to_owned()),
            ..Notice::note(format!("{option} of a role has no effect"))
        });
    }
    Ok(())
}

/// Microseconds since the Unix epoch; `None` for `infinity`.
fn end_of_validity(valid_until: &ValidUntil, zone: &TimeZone) -> Result<Option<i64>, Error> {
    let micros = parse_timestamptz(&valid_until.text, zone).map_err(|error| {
        Error::new(
            ErrorKind::Evaluation(flowstone_types::EvalErrorKind::DatetimeFormat),
            error.to_string(),
        )
        .at(valid_until.position)
    })?;
    Ok(Some(micros).filter(|micros| *micros != i64::MAX))
}

fn refuse_reserved(name: &Ident) -> Result<(), Error> {
    let text = name.value.as_str();
    if text.len() > NAME_BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidName, "role name is too long").at(name.position));
    }
    if RESERVED_NAMES.contains(&text)
        || RESERVED_PREFIXES
            .iter()
            .any(|prefix| text.starts_with(prefix))
    {
        return Err(reserved(format!("role name \"{text}\" is reserved"))
            .with_detail(
                "\"public\", \"none\" and names that start with \"mz_\" or \"pg_\" are reserved.",
            )
            .at(name.position));
    }
    Ok(())
}

fn reserved(message: String) -> Error {
    Error::new(ErrorKind::ReservedName, message)
}

fn missing(name: &str) -> Error {
    Error::new(
        ErrorKind::UndefinedObject,
        format!("role \"{name}\" does not exist"),
    )
}
