//! What a statement is planned in: the catalog, the session, and the moment.
//!
//! Owns no rules. Must not know how anything is planned.

use flowstone_types::datetime::TimeZone;
use flowstone_types::{Epoch, ObjectId};

use crate::catalog::Catalog;

/// The version of Materialize whose SQL and catalog these are, and ours: what `mz_version()` answers and clients are told. Tools parse it.
pub const MATERIALIZE_VERSION: &str =
    concat!("v0.164.0 (Flowstone ", env!("CARGO_PKG_VERSION"), ")");

/// What a statement is planned in: the catalog it sees, the session, and the moment.
#[derive(Clone, Copy)]
pub struct PlanContext<'a> {
    /// What exists.
    pub catalog: &'a Catalog,
    /// The session's database.
    pub database: &'a str,
    /// Schemas in which unqualified names are looked up, after the system's.
    pub search_path: &'a [String],
    /// The session's role.
    pub user: &'a str,
    /// What `now()` is: milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The session's time zone; of what is maintained the one it was made in.
    pub time_zone: &'a TimeZone,
    /// What `mz_now()` is, if the transaction has its epoch.
    pub transaction_epoch: Option<Epoch>,
    /// What `current_setting` answers; also asked for `pg_backend_pid` and `pg_postmaster_start_ms`.
    pub variables: &'a dyn Fn(&str) -> Option<String>,
    /// Every session variable with its value, for `current_setting` of a name that comes from a row.
    pub settings: &'a dyn Fn() -> Vec<(String, String)>,
    /// What the rows of an object take in memory, in bytes; `None` if that is not known.
    pub bytes: &'a dyn Fn(ObjectId) -> Option<u64>,
    /// Whether what the query assigns with `set_config` is carried out; see `assignments`.
    pub assigns: bool,
    /// Whether the query is to be maintained: functions of the clock, of chance and of the session are refused.
    pub maintained: bool,
    /// The whole query string, to which the positions in the tree refer; empty if they refer to nothing.
    pub text: &'a str,
}

impl std::fmt::Debug for PlanContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanContext")
            .field("database", &self.database)
            .field("search_path", &self.search_path)
            .field("user", &self.user)
            .field("now_ms", &self.now_ms)
            .field("time_zone", &self.time_zone)
            .field("maintained", &self.maintained)
            .finish_non_exhaustive()
    }
}

impl<'a> PlanContext<'a> {
    /// The same in another time zone.
    #[must_use]
    pub fn in_zone<'z>(&self, time_zone: &'z TimeZone) -> PlanContext<'z>
    where
        'a: 'z,
    {
        PlanContext { time_zone, ..*self }
    }
}
