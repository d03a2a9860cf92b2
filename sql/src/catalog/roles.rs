//! Roles: who may log in, and what their password is checked against.
//!
//! Owns the model of a role. Must not know how a password is hashed or checked. There are no privileges: a role says who a session is, not what it may do.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Catalog, DEFAULT_ROLE};

/// Identity of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoleId(pub u64);

impl RoleId {
    /// The role that exists in a new node.
    pub const DEFAULT: Self = Self(1);
}

impl fmt::Display for RoleId {
    /// As `mz_roles.id` has it: `u1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u{}", self.0)
    }
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Its identity.
    pub id: RoleId,
    /// PostgreSQL's identity.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Whether sessions can be opened as this role.
    pub login: bool,
    /// Whether it calls itself a superuser.
    pub superuser: bool,
    /// Whether it inherits; without effect as long as roles have no members.
    pub inherit: bool,
    /// What its password is checked against; `None` if it has no password.
    pub password: Option<PasswordVerifier>,
    /// When its password ends: microseconds since the Unix epoch. `None` is never.
    pub valid_until_us: Option<i64>,
}

impl Role {
    /// The role that exists in a new node.
    #[must_use]
    pub fn initial() -> Self {
        Self {
            id: RoleId::DEFAULT,
            oid: crate::system::DEFAULT_ROLE_OID,
            name: DEFAULT_ROLE.to_owned(),
            login: true,
            superuser: true,
            inherit: true,
            password: None,
            valid_until_us: None,
        }
    }
}

/// What a password is checked against: `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, as PostgreSQL writes it.
///
/// It is not the password, but whoever has it can try passwords at leisure: `Debug` does not show it, and no relation does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordVerifier(String);

impl PasswordVerifier {
    /// Takes the text as it is: who makes it answers for its form.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordVerifier(<redacted>)")
    }
}

impl Catalog {
    /// The role of a name.
    #[must_use]
    pub fn find_role(&self, name: &str) -> Option<&Role> {
        self.roles.values().find(|role| role.name == name)
    }
}
