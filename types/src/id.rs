//! Identities of catalog objects and of the collections they name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::TypeError;

/// A catalog object: `u12` for one made by a user, `s3` for a built-in one, `t7` for one that lives as long as a query.
///
/// Tables, source tables, materialized views and indexes each maintain one collection, named by the same id. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectId {
    /// Built into the system.
    System(u64),
    /// Created by a user's statement.
    User(u64),
    /// Lives as long as one query or subscription.
    Transient(u64),
}

/// A cluster: `u1` for the one that is there from the start. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u64);

impl ClusterId {
    /// The cluster that is there from the start, `quickstart` unless it was renamed.
    pub const DEFAULT: Self = Self(1);
}

/// An installation: what one data directory belongs to, from its first start on. It keeps apart what several of them keep in the same systems.
///
/// Reads as a UUID does. All zeros where there is no data directory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct InstallationId(pub [u8; 16]);

impl fmt::Display for InstallationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let (first, second) = (bits >> 96, (bits >> 80) & 0xffff);
        let (third, fourth) = ((bits >> 64) & 0xffff, (bits >> 48) & 0xffff);
        let last = bits & 0xffff_ffff_ffff;
        write!(
            f,
            "{first:08x}-{second:04x}-{third:04x}-{fourth:04x}-{last:012x}"
        )
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u{}", self.0)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(n) => write!(f, "s{n}"),
            Self::User(n) => write!(f, "u{n}"),
            Self::Transient(n) => write!(f, "t{n}"),
        }
    }
}

impl FromStr for ObjectId {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || TypeError::InvalidText {
            type_name: "object id".to_owned(),
            text: text.to_owned(),
        };
        let (kind, number) = text.split_at_checked(1).ok_or_else(bad)?;
        let number = number.parse().map_err(|_| bad())?;
        match kind {
            "s" => Ok(Self::System(number)),
            "u" => Ok(Self::User(number)),
            "t" => Ok(Self::Transient(number)),
            _ => Err(bad()),
        }
    }
}
