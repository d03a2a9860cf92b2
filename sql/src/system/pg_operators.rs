//! Operators and casts, as pg_catalog shows them.
//!
//! Owns the lists. A test plans every operator and every cast of them. Called for the relations `pg_operator` and `pg_cast`.

use flowstone_types::SqlType;

use super::rows::{Rows, Value};
use super::{DEFAULT_ROLE_OID, SystemContext};
use crate::system::pg_rows::{PG_CATALOG_OID, TYPES};

/// An operator: its name, the types of its operands, that of its result.
pub(super) struct Operator {
    pub(super) name: &'static str,
    /// `None` for an operator before its operand
    pub(super) left: Option<SqlType>,
    pub(super) right: SqlType,
    pub(super) result: SqlType,
}

/// Comparisons, with what each one is when its operands are exchanged, and when it is not true.
const COMPARISONS: [(&str, &str, &str); 6] = [
    ("=", "=", "<>"),
    ("<>", "<>", "="),
    ("<", ">", ">="),
    (">", "<", "<="),
    ("<=", ">=", ">"),
    (">=", "<=", "<"),
];

/// Types whose values are compared with each other.
const COMPARED: [SqlType; 20] = [
    SqlType::Bool,
    SqlType::Int2,
    SqlType::Int4,
    SqlType::Int8,
    SqlType::UInt2,
    SqlType::UInt4,
    SqlType::UInt8,
    SqlType::Float4,
    SqlType::Float8,
    SqlType::Numeric(None),
    SqlType::Text,
    SqlType::Bytea,
    SqlType::Date,
    SqlType::Time,
    SqlType::Timestamp,
    SqlType::TimestampTz,
    SqlType::Interval,
    SqlType::Uuid,
    SqlType::Oid,
    SqlType::Jsonb,
];

/// Types that are calculated with.
const NUMBERS: [SqlType; 6] = [
    SqlType::Int2,
    SqlType::Int4,
    SqlType::Int8,
    SqlType::Float4,
    SqlType::Float8,
    SqlType::Numeric(None),
];

const MATCHES: [&str; 8] = ["~", "~*", "!~", "!~*", "~~", "!~~", "~~*", "!~~*"];

pub(super) fn operators() -> Vec<Operator> {
    let mut all = Vec::new();
    let mut add = |name, left: Option<&SqlType>, right: &SqlType, result: &SqlType| {
        all.push(Operator {
            name,
            left: left.cloned(),
            right: right.clone(),
            result: result.clone(),
        });
    };
    for compared in &COMPARED {
        for (name, _, _) in COMPARISONS {
            add(name, Some(compared), compared, &SqlType::Bool);
        }
    }
    for number in &NUMBERS {
        add("-", None, number, number);
        for name in ["+", "-", "*", "/"] {
            add(name, Some(number), number, number);
        }
    }
    for number in [
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Numeric(None),
    ] {
        add("%", Some(&number), &number, &number);
    }
    let text = &SqlType::Text;
    add("||", Some(text), text, text);
    for name in MATCHES {
        add(name, Some(text), text, &SqlType::Bool);
    }
    let interval = &SqlType::Interval;
    add("-", None, interval, interval);
    for name in ["+", "-"] {
        add(name, Some(interval), interval, interval);
        for moment in [SqlType::Timestamp, SqlType::TimestampTz] {
            add(name, Some(&moment), interval, &moment);
        }
        add(name, Some(&SqlType::Date), interval, &SqlType::Timestamp);
        add(name, Some(&SqlType::Date), &SqlType::Int4, &SqlType::Date);
        add(name, Some(&SqlType::Time), interval, &SqlType::Time);
    }
    add("-", Some(&SqlType::Date), &SqlType::Date, &SqlType::Int4);
    for moment in [SqlType::Timestamp, SqlType::TimestampTz, SqlType::Time] {
        add("-", Some(&moment), &moment, interval);
    }
    add("*", Some(interval), &SqlType::Float8, interval);
    add("/", Some(interval), &SqlType::Float8, interval);
    let (jsonb, texts) = (&SqlType::Jsonb, &SqlType::Array(Box::new(SqlType::Text)));
    for key in [text, &SqlType::Int4] {
        add("->", Some(jsonb), key, jsonb);
        add("->>", Some(jsonb), key, text);
        add("-", Some(jsonb), key, jsonb);
    }
    add("#>", Some(jsonb), texts, jsonb);
    add("#>>", Some(jsonb), texts, text);
    add("||", Some(jsonb), jsonb, jsonb);
    add("@>", Some(jsonb), jsonb, &SqlType::Bool);
    add("<@", Some(jsonb), jsonb, &SqlType::Bool);
    add("?", Some(jsonb), text, &SqlType::Bool);
    all
}

/// The OID of an operator; 0 if there is none.
fn oid_of(all: &[Operator], name: &str, left: Option<&SqlType>, right: &SqlType) -> u32 {
    let exists = all.iter().any(|operator| {
        operator.name == name && operator.left.as_ref() == left && operator.right == *right
    });
    if !exists {
        return 0;
    }
    let left = left.map_or(0, SqlType::oid);
    flowstone_functions::stable_oid(&format!("{left}{name}{}", right.oid()))
}

pub(super) fn operator_rows(_: &SystemContext<'_>, rows: &mut Rows) {
    let all = operators();
    for operator in &all {
        let left = operator.left.as_ref();
        let related =
            |name: Option<&str>| name.map_or(0, |name| oid_of(&all, name, left, &operator.right));
        let comparison = COMPARISONS
            .iter()
            .find(|(name, _, _)| *name == operator.name);
        let equality = operator.name == "=";
        rows.push([
            (
                "oid",
                oid_of(&all, operator.name, left, &operator.right).into(),
            ),
            ("oprname", operator.name.into()),
            ("oprnamespace", PG_CATALOG_OID.into()),
            ("oprowner", DEFAULT_ROLE_OID.into()),
            ("oprkind", if left.is_some() { "b" } else { "l" }.into()),
            ("oprcanmerge", equality.into()),
            ("oprcanhash", equality.into()),
            ("oprleft", left.map_or(0, SqlType::oid).into()),
            ("oprright", operator.right.oid().into()),
            ("oprresult", operator.result.oid().into()),
            (
                "oprcom",
                related(comparison.map(|(_, commuted, _)| *commuted)).into(),
            ),
            (
                "oprnegate",
                related(comparison.map(|(_, _, negated)| *negated)).into(),
            ),
        ]);
    }
}

/// When a cast is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    /// Wherever it is needed
    Implicit,
    /// When a value is assigned to a column
    Assignment,
    /// When it is asked for
    Explicit,
}

/// How far a type of numbers reaches, for those that become one another.
fn reach(sql_type: &SqlType) -> Option<u8> {
    Some(match sql_type {
        SqlType::Int2 => 1,
        SqlType::Int4 => 2,
        SqlType::Int8 => 3,
        SqlType::Numeric(_) => 4,
        SqlType::Float4 => 5,
        SqlType::Float8 => 6,
        _ => return None,
    })
}

fn context(from: &SqlType, to: &SqlType) -> Option<Context> {
    use Context::{Assignment, Explicit, Implicit};
    use SqlType::{Date, Interval, Jsonb, Text, Time, Timestamp, TimestampTz, VarChar};
    if let (Some(from), Some(to)) = (reach(from), reach(to)) {
        return Some(if from < to { Implicit } else { Assignment });
    }
    Some(match (from, to) {
        (Text, VarChar(_)) | (VarChar(_), Text) => Implicit,
        (SqlType::Name, Text | VarChar(_)) | (Text | VarChar(_), SqlType::Name) => Implicit,
        (Date, Timestamp | TimestampTz) | (Timestamp, TimestampTz) => Implicit,
        (TimestampTz, Timestamp) | (Timestamp | TimestampTz, Date | Time) => Assignment,
        (Time, Interval) => Implicit,
        (Interval, Time) => Assignment,
        (SqlType::Int4, SqlType::Bool) | (SqlType::Bool, SqlType::Int4) => Explicit,
        (Jsonb, SqlType::Bool) => Explicit,
        (Jsonb, to) => {
            reach(to)?;
            Explicit
        }
        (SqlType::Int4 | SqlType::Int8, SqlType::Oid) => Implicit,
        (SqlType::Oid, SqlType::Int4 | SqlType::Int8) => Assignment,
        _ => return None,
    })
}

/// The casts between different types; every type casts to and from text besides, as in PostgreSQL, which lists no such casts.
pub(super) fn casts() -> Vec<(SqlType, SqlType, Context)> {
    let pairs = TYPES
        .iter()
        .flat_map(|(from, _, _)| TYPES.iter().map(move |(to, _, _)| (from, to)));
    pairs
        .filter(|(from, to)| from != to)
        .filter_map(|(from, to)| Some((from.clone(), to.clone(), context(from, to)?)))
        .collect()
}

pub(super) fn cast_rows(_: &SystemContext<'_>, rows: &mut Rows) {
    for (from, to, context) in casts() {
        let same_bytes = from.to_arrow() == to.to_arrow() && reach(&from).is_none();
        rows.push([
            (
                "oid",
                flowstone_functions::stable_oid(&format!("{} as {}", from.oid(), to.oid())).into(),
            ),
            ("castsource", from.oid().into()),
            ("casttarget", to.oid().into()),
            (
                "castcontext",
                match context {
                    Context::Implicit => "i",
                    Context::Assignment => "a",
                    Context::Explicit => "e",
                }
                .into(),
            ),
            (
                "castmethod",
                Value::from(if same_bytes { "b" } else { "f" }),
            ),
        ]);
    }
}
