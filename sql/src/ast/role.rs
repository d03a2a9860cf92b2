//! Statements about roles.
//!
//! Owns what CREATE, ALTER and DROP ROLE say. A password is only ever here in the clear: it is hashed before anything is planned, and `Debug` does not show it.

use std::fmt;

use super::Ident;

/// `CREATE ROLE`, `CREATE USER`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRole {
    /// Its name.
    pub name: Ident,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// What is said of it; `CREATE USER` says `LOGIN` if the statement does not.
    pub options: RoleOptions,
}

/// `ALTER ROLE`, `ALTER USER`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterRole {
    /// The role.
    pub role: RoleName,
    /// What changes.
    pub action: AlterRoleAction,
}

/// How a statement names a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// By its name.
    Named(Ident),
    /// `CURRENT_USER`, `CURRENT_ROLE`, `SESSION_USER`
    Current,
}

/// What `ALTER ROLE` changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterRoleAction {
    /// `[WITH] option …`
    Options(RoleOptions),
    /// `RENAME TO`
    Rename(Ident),
}

/// `DROP ROLE`, `DROP USER`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropRoles {
    /// The roles.
    pub names: Vec<Ident>,
    /// `IF EXISTS`
    pub if_exists: bool,
}

/// The options of a role; `None` where the statement says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleOptions {
    /// `LOGIN`, `NOLOGIN`
    pub login: Option<bool>,
    /// `SUPERUSER`, `NOSUPERUSER`
    pub superuser: Option<bool>,
    /// `INHERIT`, `NOINHERIT`
    pub inherit: Option<bool>,
    /// `PASSWORD`
    pub password: Option<PasswordOption>,
    /// `VALID UNTIL`
    pub valid_until: Option<ValidUntil>,
    /// Options that are accepted because tools write them, and change nothing: `CREATEDB`, …
    pub without_effect: Vec<String>,
}

/// `PASSWORD …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordOption {
    /// `NULL`: the role has no password any more.
    Null,
    /// A password, or a verifier made of one.
    Text(Password),
}

/// A password as it was written. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(<redacted>)")
    }
}

/// `VALID UNTIL '…'`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidUntil {
    /// The time as written.
    pub text: String,
    /// Where it is written: characters from 1.
    pub position: usize,
}
