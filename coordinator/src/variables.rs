//! Session variables: what `SET`, `SHOW` and `RESET` work on.
//!
//! Owns the list of variables with their defaults and what each takes, and the values of one session. Must not know what a value does. Called by `session`, and by `planning` and `registry`, which look at them.
//!
//! Invariants. A rolled back transaction leaves the values it found; a committed one keeps what was `SET` and forgets what was `SET LOCAL`.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use flowstone_sql::catalog::{DEFAULT_CLUSTER, DEFAULT_DATABASE, DEFAULT_SCHEMA};
use flowstone_types::datetime::TimeZone;
use hashbrown::HashMap;

use crate::error::SessionError;
use crate::notices::Severity;

/// What clients are told is the version of PostgreSQL that we behave like.
pub const SERVER_VERSION: &str = "15.0";
const SERVER_VERSION_NUM: &str = "150000";

/// What a variable takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// Several values, joined by `, `.
    List,
    Bool,
    Integer,
    /// Milliseconds, or a number with a unit.
    Milliseconds,
    Choice(&'static [&'static str]),
    TimeZone,
    /// A name of a client encoding that is UTF-8.
    Encoding,
    ReadOnly,
}

#[derive(Clone, Copy, Debug)]
struct Definition {
    /// As clients spell it.
    name: &'static str,
    default: &'static str,
    kind: Kind,
    /// Whether clients are told of changes.
    reported: bool,
    description: &'static str,
}

const fn variable(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    description: &'static str,
) -> Definition {
    Definition {
        name,
        default,
        kind,
        reported: false,
        description,
    }
}

const fn reported(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    description: &'static str,
) -> Definition {
    Definition {
        name,
        default,
        kind,
        reported: true,
        description,
    }
}

const ISOLATION_LEVELS: &[&str] = &[
    "strict serializable",
    "serializable",
    "strong session serializable",
    "repeatable read",
    "read committed",
    "read uncommitted",
];
const MESSAGE_LEVELS: &[&str] = &[
    "debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "notice", "warning", "error",
    "info",
];

/// All variables, by name. Those without effect exist because clients set them.
const DEFINITIONS: &[Definition] = &[
    reported(
        "application_name",
        "",
        Kind::Text,
        "The application name to be reported in statistics and logs.",
    ),
    variable("array_nulls", "on", Kind::Bool, "Without effect."),
    variable(
        "auto_route_catalog_queries",
        "on",
        Kind::Bool,
        "Without effect.",
    ),
    variable(
        "bytea_output",
        "hex",
        Kind::Choice(&["hex"]),
        "The output format of bytea.",
    ),
    variable("check_function_bodies", "on", Kind::Bool, "Without effect."),
    reported(
        "client_encoding",
        "UTF8",
        Kind::Encoding,
        "The encoding of the client.",
    ),
    variable(
        "client_min_messages",
        "notice",
        Kind::Choice(MESSAGE_LEVELS),
        "The least important message that is sent.",
    ),
    variable(
        "cluster",
        DEFAULT_CLUSTER,
        Kind::Text,
        "The cluster of what is created or subscribed to without one being named.",
    ),
    variable(
        "current_object_missing_warnings",
        "on",
        Kind::Bool,
        "Whether a session is told that its database or cluster does not exist.",
    ),
    variable(
        "database",
        DEFAULT_DATABASE,
        Kind::Text,
        "The current database.",
    ),
    reported(
        "DateStyle",
        "ISO, MDY",
        Kind::Text,
        "The display format of dates.",
    ),
    variable(
        "default_table_access_method",
        "heap",
        Kind::Text,
        "Without effect.",
    ),
    variable("default_tablespace", "", Kind::Text, "Without effect."),
    variable(
        "default_text_search_config",
        "pg_catalog.simple",
        Kind::Text,
        "Without effect.",
    ),
    variable(
        "default_transaction_deferrable",
        "off",
        Kind::Bool,
        "Without effect.",
    ),
    variable(
        "default_transaction_isolation",
        "strict serializable",
        Kind::Choice(ISOLATION_LEVELS),
        "The isolation level of new transactions.",
    ),
    reported(
        "default_transaction_read_only",
        "off",
        Kind::Bool,
        "Without effect.",
    ),
    variable("enable_seqscan", "on", Kind::Bool, "Without effect."),
    variable("escape_string_warning", "on", Kind::Bool, "Without effect."),
    variable(
        "extra_float_digits",
        "1",
        Kind::Integer,
        "Without effect: floats are always exact.",
    ),
    variable(
        "idle_in_transaction_session_timeout",
        "2min",
        Kind::Milliseconds,
        "How long a transaction may idle.",
    ),
    variable(
        "idle_session_timeout",
        "0",
        Kind::Milliseconds,
        "Without effect.",
    ),
    reported(
        "in_hot_standby",
        "off",
        Kind::ReadOnly,
        "Whether the server is a standby.",
    ),
    reported(
        "integer_datetimes",
        "on",
        Kind::ReadOnly,
        "Whether dates are integers inside.",
    ),
    reported(
        "IntervalStyle",
        "postgres",
        Kind::Choice(&["postgres"]),
        "The display format of intervals.",
    ),
    reported(
        "is_superuser",
        "on",
        Kind::ReadOnly,
        "Whether the user is a superuser.",
    ),
    variable("jit", "off", Kind::Bool, "Without effect."),
    variable("lock_timeout", "0", Kind::Milliseconds, "Without effect."),
    variable(
        "maintenance_work_mem",
        "64MB",
        Kind::Text,
        "Without effect.",
    ),
    variable(
        "max_identifier_length",
        "255",
        Kind::ReadOnly,
        "The longest identifier.",
    ),
    variable(
        "max_index_keys",
        "32",
        Kind::ReadOnly,
        "The number of columns of an index that clients reckon with.",
    ),
    variable(
        "max_query_result_size",
        "1GB",
        Kind::Text,
        "Without effect.",
    ),
    reported(
        "mz_version",
        flowstone_sql::plan::MATERIALIZE_VERSION,
        Kind::ReadOnly,
        "The version of Materialize that the server behaves like.",
    ),
    variable(
        "password_encryption",
        "scram-sha-256",
        Kind::Text,
        "Without effect.",
    ),
    variable(
        "quote_all_identifiers",
        "off",
        Kind::Bool,
        "Without effect.",
    ),
    variable("real_time_recency", "off", Kind::Bool, "Without effect."),
    variable(
        "real_time_recency_timeout",
        "10s",
        Kind::Milliseconds,
        "Without effect.",
    ),
    variable("row_security", "on", Kind::Bool, "Without effect."),
    variable(
        "search_path",
        DEFAULT_SCHEMA,
        Kind::List,
        "The schemas that unqualified names are looked up in.",
    ),
    reported(
        "server_encoding",
        "UTF8",
        Kind::ReadOnly,
        "The encoding of the server.",
    ),
    reported(
        "server_version",
        SERVER_VERSION,
        Kind::ReadOnly,
        "The version of PostgreSQL that the server behaves like.",
    ),
    variable(
        "server_version_num",
        SERVER_VERSION_NUM,
        Kind::ReadOnly,
        "The same as a number.",
    ),
    reported(
        "session_authorization",
        "",
        Kind::ReadOnly,
        "The user of the session.",
    ),
    variable(
        "session_replication_role",
        "origin",
        Kind::Text,
        "Without effect.",
    ),
    reported(
        "standard_conforming_strings",
        "on",
        Kind::Choice(&["on"]),
        "Whether backslashes in strings are ordinary.",
    ),
    variable(
        "statement_timeout",
        "0",
        Kind::Milliseconds,
        "How long a statement may run; 0 is forever.",
    ),
    variable("synchronous_commit", "on", Kind::Text, "Without effect."),
    variable("synchronize_seqscans", "on", Kind::Bool, "Without effect."),
    reported(
        "TimeZone",
        "UTC",
        Kind::TimeZone,
        "The time zone of the session.",
    ),
    variable(
        "transaction_deferrable",
        "off",
        Kind::Bool,
        "Without effect.",
    ),
    variable(
        "transaction_isolation",
        "strict serializable",
        Kind::Choice(ISOLATION_LEVELS),
        "The isolation level of the transaction.",
    ),
    variable(
        "transaction_read_only",
        "off",
        Kind::Bool,
        "Whether the transaction only reads.",
    ),
    variable("welcome_message", "on", Kind::Bool, "Without effect."),
    variable("work_mem", "4MB", Kind::Text, "Without effect."),
    variable("xmloption", "content", Kind::Text, "Without effect."),
];

/// Values that are not the default, by lower-case name.
type Values = BTreeMap<String, String>;

/// The variables of one session.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// The values in force, and those after the transaction.
    effective: Arc<Values>,
    session: Arc<Values>,
    /// What the session started with: what RESET goes back to.
    startup: Arc<Values>,
    /// The session's values when the transaction began.
    before: Option<Arc<Values>>,
    /// Whether a value was given since a transaction ended: if not, there is nothing that its end has to put right.
    changed: bool,
    settings: OnceLock<Arc<Settings>>,
}

/// The values that every statement asks for, read once for all statements until a value changes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether reads see everything that was acknowledged before them, and not only a consistent past.
    pub strict: bool,
    /// Whether the transaction must not write.
    pub read_only: bool,
    /// How long a statement may run; `None` is forever.
    pub statement_timeout: Option<Duration>,
    /// The current database.
    pub database: String,
    /// The schemas that unqualified names are looked up in.
    pub search_path: Vec<String>,
    /// The cluster of what is created or subscribed to without one being named. It need not exist.
    pub cluster: String,
    /// The session's time zone.
    pub time_zone: TimeZone,
    /// What the client calls itself.
    pub application_name: String,
    /// The least severity of the notices that are sent; `None` if none are.
    pub least_severity: Option<Severity>,
    /// The variables that clients are told of.
    pub reported: Vec<(String, String)>,
}

impl Settings {
    /// Whether names and literals mean the same under both, and the same indexes are preferred.
    #[must_use]
    pub fn names_as(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other)
            || (self.database == other.database
                && self.search_path == other.search_path
                && self.cluster == other.cluster
                && self.time_zone == other.time_zone)
    }
}

fn definition(name: &str) -> Option<&'static Definition> {
    let name = match name {
        "timezone" | "time zone" => "TimeZone",
        "names" => "client_encoding",
        "schema" => "search_path",
        "current_database" => "database",
        "transaction isolation level" => "transaction_isolation",
        other => other,
    };
    let found = BY_NAME.get(name);
    found
        .or_else(|| BY_NAME.get(&name.to_ascii_lowercase()))
        .copied()
}

/// The definitions by lower-case name.
static BY_NAME: LazyLock<HashMap<String, &'static Definition>> = LazyLock::new(|| {
    DEFINITIONS
        .iter()
        .map(|definition| (definition.name.to_ascii_lowercase(), definition))
        .collect()
});

impl Variables {
    /// Sets what the session starts with and comes back to.
    ///
    /// # Errors
    /// [`SessionError`] for a name or a value that is not allowed.
    pub fn start_with(&mut self, name: &str, value: &str) -> Result<(), SessionError> {
        self.set(name, &[value.to_owned()], false)?;
        self.startup = Arc::clone(&self.session);
        Ok(())
    }

    /// Sets a value that users cannot.
    pub fn force(&mut self, name: &str, value: &str) {
        for values in [&mut self.effective, &mut self.session, &mut self.startup] {
            Arc::make_mut(values).insert(name.to_ascii_lowercase(), value.to_owned());
        }
        self.touch();
    }

    fn touch(&mut self) {
        self.changed = true;
        self.settings = OnceLock::new();
    }

    /// The values that every statement asks for. The same `Arc` as before exactly if no value was given since.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        self.settings.get_or_init(|| {
            Arc::new(Settings {
                strict: matches!(
                    self.known("transaction_isolation").as_str(),
                    "strict serializable" | "strong session serializable"
                ),
                read_only: self.known("transaction_read_only") == "on",
                statement_timeout: parse_milliseconds(&self.known("statement_timeout"))
                    .filter(|ms| *ms > 0)
                    .map(Duration::from_millis),
                database: self.known("database"),
                search_path: self
                    .known("search_path")
                    .split(',')
                    .map(unquote)
                    .filter(|schema| !schema.is_empty())
                    .collect(),
                cluster: self.known("cluster"),
                time_zone: self.known("TimeZone").parse().unwrap_or(TimeZone::UTC),
                application_name: self.known("application_name"),
                least_severity: match self.known("client_min_messages").as_str() {
                    "error" => None,
                    "warning" => Some(Severity::Warning),
                    _ => Some(Severity::Notice),
                },
                reported: DEFINITIONS
                    .iter()
                    .filter(|definition| definition.reported)
                    .map(|definition| (definition.name.to_owned(), self.known(definition.name)))
                    .collect(),
            })
        })
    }

    /// The value in force; of an unknown variable `None`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        match definition(name) {
            Some(definition) => {
                let key = definition.name.to_ascii_lowercase();
                Some(
                    self.effective
                        .get(&key)
                        .cloned()
                        .unwrap_or_else(|| definition.default.to_owned()),
                )
            }
            None => self.effective.get(name).cloned(),
        }
    }

    /// The value in force of a variable of this module.
    fn known(&self, name: &str) -> String {
        self.get(name).unwrap_or_default()
    }

    /// How clients spell the name.
    ///
    /// # Errors
    /// [`SessionError::UnknownVariable`].
    pub fn canonical_name(&self, name: &str) -> Result<String, SessionError> {
        match definition(name) {
            Some(definition) => Ok(definition.name.to_owned()),
            None if self.effective.contains_key(name) => Ok(name.to_owned()),
            None => Err(SessionError::UnknownVariable(name.to_owned())),
        }
    }

    /// Sets a variable, for the transaction only if `local`. Names with a dot are the user's own and take any text.
    ///
    /// # Errors
    /// [`SessionError`] for a name or a value that is not allowed.
    pub fn set(&mut self, name: &str, values: &[String], local: bool) -> Result<(), SessionError> {
        let (key, value) = match definition(name) {
            Some(definition) => (
                definition.name.to_ascii_lowercase(),
                check(definition, values)?,
            ),
            None if name.contains('.') => (name.to_owned(), values.join(", ")),
            None => return Err(SessionError::UnknownVariable(name.to_owned())),
        };
        if !local {
            Arc::make_mut(&mut self.session).insert(key.clone(), value.clone());
        }
        Arc::make_mut(&mut self.effective).insert(key, value);
        self.touch();
        Ok(())
    }

    /// Back to what the session started with.
    ///
    /// # Errors
    /// [`SessionError`] for a name that does not exist or is not set by users.
    pub fn reset(&mut self, name: &str, local: bool) -> Result<(), SessionError> {
        let key = match definition(name) {
            Some(definition) if definition.kind == Kind::ReadOnly => {
                return Err(SessionError::ReadOnlyVariable(definition.name.to_owned()));
            }
            Some(definition) => definition.name.to_ascii_lowercase(),
            None if name.contains('.') => name.to_owned(),
            None => return Err(SessionError::UnknownVariable(name.to_owned())),
        };
        let maps = if local {
            vec![&mut self.effective]
        } else {
            vec![&mut self.effective, &mut self.session]
        };
        for values in maps {
            let values = Arc::make_mut(values);
            match self.startup.get(&key) {
                Some(value) => values.insert(key.clone(), value.clone()),
                None => values.remove(&key),
            };
        }
        self.touch();
        Ok(())
    }

    /// All variables back to what the session started with.
    pub fn reset_all(&mut self) {
        self.effective = Arc::clone(&self.startup);
        self.session = Arc::clone(&self.startup);
        self.touch();
    }

    /// Every variable: name, value, description; in the order of names.
    #[must_use]
    pub fn all(&self) -> Vec<(String, String, String)> {
        DEFINITIONS
            .iter()
            .map(|definition| {
                (
                    definition.name.to_owned(),
                    self.known(definition.name),
                    definition.description.to_owned(),
                )
            })
            .collect()
    }

    /// A transaction begins.
    pub fn begin(&mut self) {
        if self.before.is_none() {
            self.before = Some(Arc::clone(&self.session));
        }
    }

    /// The transaction ended.
    pub fn end(&mut self, committed: bool) {
        let before = self.before.take();
        if !std::mem::take(&mut self.changed) {
            return;
        }
        self.settings = OnceLock::new();
        if let Some(before) = before
            && !committed
        {
            self.session = before;
        }
        self.effective = Arc::clone(&self.session);
        for values in [&mut self.effective, &mut self.session] {
            let values = Arc::make_mut(values);
            for name in [
                "transaction_isolation",
                "transaction_read_only",
                "transaction_deferrable",
            ] {
                values.remove(name);
            }
        }
        let isolation = self.known("default_transaction_isolation");
        Arc::make_mut(&mut self.session).insert("transaction_isolation".to_owned(), isolation);
        self.effective = Arc::clone(&self.session);
    }
}

/// A schema name of `search_path` without its quotes.
fn unquote(name: &str) -> String {
    let name = name.trim();
    match name
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

fn check(definition: &Definition, values: &[String]) -> Result<String, SessionError> {
    let value = values.join(", ");
    let invalid = |hint: Option<String>| SessionError::InvalidVariable {
        name: definition.name.to_owned(),
        value: value.clone(),
        hint,
    };
    match definition.kind {
        Kind::ReadOnly => Err(SessionError::ReadOnlyVariable(definition.name.to_owned())),
        Kind::Text | Kind::List => Ok(value.clone()),
        Kind::Bool => match value.to_ascii_lowercase().as_str() {
            "on" | "true" | "t" | "yes" | "1" => Ok("on".to_owned()),
            "off" | "false" | "f" | "no" | "0" => Ok("off".to_owned()),
            _ => Err(invalid(Some("Available values: on, off.".to_owned()))),
        },
        Kind::Integer => value.trim().parse::<i64>().map(|number| number.to_string()).map_err(|_| invalid(None)),
        Kind::Milliseconds => match parse_milliseconds(&value) {
            Some(_) => Ok(value.trim().to_owned()),
            None => Err(invalid(Some("Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \"d\".".to_owned()))),
        },
        Kind::Choice(choices) => {
            let wanted = value.to_ascii_lowercase().replace('-', " ");
            let found = choices.iter().find(|choice| **choice == wanted);
            found
                .map(|choice| (*choice).to_owned())
                .ok_or_else(|| invalid(Some(format!("Available values: {}.", choices.join(", ")))))
        }
        Kind::TimeZone => value
            .parse::<TimeZone>()
            .map(|zone| zone.to_string())
            .map_err(|_| invalid(None)),
        Kind::Encoding => {
            // As PostgreSQL reads names of encodings: nothing but letters and digits counts, quotes included.
            let name: String = value
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .collect::<String>()
                .to_ascii_lowercase();
            match name.as_str() {
                // `SQL_ASCII` is what older clients ask for; everything they send in it is UTF-8 as well.
                "utf8" | "unicode" | "sqlascii" => Ok("UTF8".to_owned()),
                _ => Err(invalid(Some("Available values: UTF8.".to_owned()))),
            }
        }
    }
}

/// Milliseconds, or a number with one of PostgreSQL's units.
pub(crate) fn parse_milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit.trim() {
        "us" => Some(number / 1000),
        "" | "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "min" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_keeps_set_forgets_set_local_and_rollback_undoes_both() {
        let mut variables = Variables::default();
        variables.begin();
        variables
            .set("application_name", &["a".to_owned()], false)
            .unwrap();
        variables
            .set("search_path", &["x".to_owned(), "y".to_owned()], true)
            .unwrap();
        assert_eq!(variables.settings().search_path, ["x", "y"]);
        variables.end(true);
        assert_eq!(variables.settings().search_path, ["public"]);
        assert_eq!(variables.get("application_name").unwrap(), "a");
        variables.begin();
        variables
            .set("application_name", &["b".to_owned()], false)
            .unwrap();
        variables.end(false);
        assert_eq!(variables.get("application_name").unwrap(), "a");
    }

    #[test]
    fn settings_are_those_of_now_and_the_same_until_a_value_is_given() {
        let mut variables = Variables::default();
        let first = Arc::clone(variables.settings());
        assert!(first.strict && !first.read_only);
        variables.begin();
        variables.end(true);
        assert!(Arc::ptr_eq(&first, variables.settings()));
        variables.begin();
        for (name, value) in [
            ("transaction_isolation", "serializable"),
            ("transaction_read_only", "on"),
        ] {
            variables.set(name, &[value.to_owned()], true).unwrap();
        }
        assert!(!variables.settings().strict && variables.settings().read_only);
        variables.end(true);
        assert!(variables.settings().strict && !variables.settings().read_only);
        for (name, value) in [
            ("default_transaction_isolation", "serializable"),
            ("application_name", "a"),
        ] {
            variables.set(name, &[value.to_owned()], false).unwrap();
        }
        assert_eq!(variables.settings().application_name, "a");
        variables.begin();
        variables.end(true);
        assert!(!variables.settings().strict);
        variables.reset_all();
        assert_eq!(variables.settings().application_name, "");
    }

    #[test]
    fn values_are_checked_and_normalised() {
        let mut variables = Variables::default();
        let set = |variables: &mut Variables, name: &str, value: &str| {
            variables.set(name, &[value.to_owned()], false)
        };
        set(&mut variables, "timezone", "europe/nowhere").unwrap_err();
        let before = Arc::clone(variables.settings());
        set(&mut variables, "TimeZone", "europe/berlin").unwrap();
        assert_eq!(variables.get("timezone").unwrap(), "Europe/Berlin");
        assert!(!variables.settings().names_as(&before));
        set(&mut variables, "TimeZone", "-3.5").unwrap();
        assert_eq!(variables.get("timezone").unwrap(), "<-03:30>+03:30");
        set(&mut variables, "transaction_isolation", "SERIALIZABLE").unwrap();
        assert!(!variables.settings().strict);
        set(&mut variables, "statement_timeout", "2s").unwrap();
        assert_eq!(
            variables.settings().statement_timeout,
            Some(Duration::from_secs(2))
        );
        assert_eq!(
            set(&mut variables, "server_version", "1"),
            Err(SessionError::ReadOnlyVariable("server_version".to_owned()))
        );
        assert_eq!(
            set(&mut variables, "nonsense", "1"),
            Err(SessionError::UnknownVariable("nonsense".to_owned()))
        );
        assert!(matches!(
            set(&mut variables, "jit", "maybe"),
            Err(SessionError::InvalidVariable { .. })
        ));
        set(&mut variables, "client_encoding", "'utf-8'").unwrap();
        assert_eq!(variables.get("client_encoding").unwrap(), "UTF8");
        set(&mut variables, "client_encoding", "latin1").unwrap_err();
        set(&mut variables, "my.own", "1").unwrap();
        assert_eq!(variables.get("my.own").unwrap(), "1");
    }
}
