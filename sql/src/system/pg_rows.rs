//! The rows of `pg_catalog`.
//!
//! They are about the session's database and the system schemas, as in PostgreSQL. A source without columns is no relation and not among them.

use flowstone_functions::FunctionKind;
use flowstone_types::SqlType;
use flowstone_types::sql_type::RegKind;

use super::keys::Key;
use super::rows::{Rows, Value};
use super::{DEFAULT_ROLE_OID, RelationColumn, SystemContext};
use crate::catalog::{Column, DEFAULT_ROLE, Item, ItemKind, Role};

/// OID of the schema `pg_catalog`.
pub(super) const PG_CATALOG_OID: u32 = 11;
/// OID of the schema `mz_catalog`.
const MZ_CATALOG_OID: u32 = 16_600;
/// OID of the collation `default`.
const DEFAULT_COLLATION: u32 = 100;
/// OID of the collation `C`, which names have.
const C_COLLATION: u32 = 950;
/// OID of the access method of tables.
const HEAP: u32 = 2;
/// OID of the access method of indexes: they find rows by hash.
pub(crate) const ARRANGEMENT: u32 = 16_603;
/// OID of the one tablespace.
const DEFAULT_TABLESPACE: u32 = 1663;
/// Number of the encoding UTF8.
const UTF8: i32 = 6;
/// OID of `array_in`, by which drivers recognise arrays.
const ARRAY_IN: u32 = 750;
/// OID of the language of functions that are built in.
const INTERNAL_LANGUAGE: u32 = 12;
/// OID of the catalog `pg_class`.
const PG_CLASS: u32 = 1259;
/// OID of the catalog `pg_constraint`.
const PG_CONSTRAINT: u32 = 2606;
/// OID of the catalog `pg_rewrite`.
const PG_REWRITE: u32 = 2618;

pub(super) fn empty(_: &SystemContext<'_>, _: &mut Rows) {}

/// PostgreSQL's name of what kind of relation an item is; `None` if it is none.
pub(super) const fn relation_kind(item: &Item) -> Option<&'static str> {
    match item.kind {
        ItemKind::Table { .. } | ItemKind::Progress { .. } => Some("r"),
        ItemKind::View { .. } => Some("v"),
        ItemKind::MaterializedView { .. } => Some("m"),
        ItemKind::Index { .. } => Some("i"),
        ItemKind::Source(_) | ItemKind::Secret | ItemKind::Connection(_) | ItemKind::Sink(_) => {
            None
        }
    }
}

pub(super) fn classes(ctx: &SystemContext<'_>, rows: &mut Rows) {
    let indexed = ctx.indexed();
    for (schema, item) in ctx.items() {
        let Some(kind) = relation_kind(item) else {
            continue;
        };
        let columns = match &item.kind {
            ItemKind::Index { key, .. } => key.len(),
            _ => item.columns().map_or(0, <[Column]>::len),
        };
        let access = match kind {
            "v" => 0,
            "i" => ARRANGEMENT,
            _ => HEAP,
        };
        rows.push([
            ("oid", item.oid.into()),
            ("relname", (&item.name).into()),
            ("relnamespace", schema.oid.into()),
            ("relowner", DEFAULT_ROLE_OID.into()),
            ("relam", access.into()),
            ("reltuples", tuples(ctx, item)),
            ("relhasindex", indexed.contains(&item.id).into()),
            ("relpersistence", "p".into()),
            ("relkind", kind.into()),
            ("relnatts", columns.into()),
            ("relhasrules", matches!(kind, "v" | "m").into()),
            ("relispopulated", true.into()),
            ("relreplident", "d".into()),
        ]);
    }
    for key in ctx.keys() {
        rows.push([
            ("oid", key.oid().into()),
            ("relname", key.name().into()),
            ("relnamespace", key.schema.oid.into()),
            ("relowner", DEFAULT_ROLE_OID.into()),
            ("relam", ARRANGEMENT.into()),
            ("reltuples", tuples(ctx, key.table)),
            ("relpersistence", "p".into()),
            ("relkind", "i".into()),
            ("relnatts", key.positions.len().into()),
            ("relispopulated", true.into()),
            ("relreplident", "n".into()),
        ]);
    }
    for relation in super::relations() {
        let Some(schema) = ctx.system_schema(relation.schema) else {
            continue;
        };
        rows.push([
            ("oid", relation.oid.into()),
            ("relname", relation.name.into()),
            ("relnamespace", schema.oid.into()),
            ("relowner", DEFAULT_ROLE_OID.into()),
            ("reltuples", Value::Int(-1)),
            ("relpersistence", "p".into()),
            ("relkind", "v".into()),
            ("relnatts", relation.columns.len().into()),
            ("relhasrules", true.into()),
            ("relispopulated", true.into()),
            ("relreplident", "n".into()),
        ]);
    }
}

/// Rows of a relation, -1 if that is not known.
fn tuples(ctx: &SystemContext<'_>, item: &Item) -> Value {
    ctx.runtime
        .collections
        .get(&item.id)
        .map_or(Value::Int(-1), |found| found.rows.into())
}

pub(super) fn namespaces(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for schema in ctx.schemas() {
        rows.push([
            ("oid", schema.oid.into()),
            ("nspname", (&schema.name).into()),
            ("nspowner", DEFAULT_ROLE_OID.into()),
        ]);
    }
}

fn collation(sql_type: &SqlType) -> u32 {
    match sql_type {
        SqlType::Text | SqlType::VarChar(_) | SqlType::Char(_) => DEFAULT_COLLATION,
        SqlType::Name => C_COLLATION,
        SqlType::Array(element) => collation(element),
        _ => 0,
    }
}

fn attribute(
    rows: &mut Rows,
    relation: u32,
    position: usize,
    name: &str,
    sql_type: &SqlType,
    nullable: bool,
    default: bool,
) {
    let by_value = matches!(sql_type.type_length(), 1 | 2 | 4 | 8);
    rows.push([
        ("attrelid", relation.into()),
        ("attname", name.into()),
        ("atttypid", sql_type.oid().into()),
        ("attstattarget", (-1).into()),
        ("attlen", sql_type.type_length().into()),
        ("attnum", (position + 1).into()),
        ("attndims", i32::from(sql_type.element().is_some()).into()),
        ("attcacheoff", (-1).into()),
        ("atttypmod", sql_type.type_modifier().into()),
        ("attbyval", by_value.into()),
        ("attalign", "i".into()),
        (
            "attstorage",
            if sql_type.type_length() < 0 { "x" } else { "p" }.into(),
        ),
        ("attnotnull", (!nullable).into()),
        ("atthasdef", default.into()),
        ("attislocal", true.into()),
        ("attcollation", collation(sql_type).into()),
    ]);
}

pub(super) fn attributes(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (_, item) in ctx.items() {
        if let ItemKind::Index { on, key } = &item.kind {
            let columns = ctx
                .catalog
                .items
                .get(on)
                .and_then(Item::columns)
                .unwrap_or_default();
            for (position, key) in key.iter().enumerate() {
                match key.column.and_then(|column| columns.get(column)) {
                    Some(column) => attribute(
                        rows,
                        item.oid,
                        position,
                        &column.name,
                        &column.sql_type,
                        column.nullable,
                        false,
                    ),
                    None => attribute(
                        rows,
                        item.oid,
                        position,
                        "expr",
                        &SqlType::Text,
                        true,
                        false,
                    ),
                }
            }
            continue;
        }
        for (position, column) in item.columns().unwrap_or_default().iter().enumerate() {
            attribute(
                rows,
                item.oid,
                position,
                &column.name,
                &column.sql_type,
                column.nullable,
                column.default.is_some(),
            );
        }
    }
    for key in ctx.keys() {
        for (position, column) in key.columns().enumerate() {
            attribute(
                rows,
                key.oid(),
                position,
                &column.name,
                &column.sql_type,
                column.nullable,
                false,
            );
        }
    }
    for relation in super::relations() {
        for (position, column) in relation.columns.iter().enumerate() {
            let RelationColumn { name, nullable, .. } = *column;
            attribute(
                rows,
                relation.oid,
                position,
                name,
                &column.sql_type(),
                nullable,
                false,
            );
        }
    }
}

/// All types but arrays, with their names in `pg_type` and their categories.
pub(crate) const TYPES: &[(SqlType, &str, &str)] = &[
    (SqlType::Bool, "bool", "B"),
    (SqlType::Bytea, "bytea", "U"),
    (SqlType::QuotedChar, "char", "Z"),
    (SqlType::Name, "name", "S"),
    (SqlType::Int8, "int8", "N"),
    (SqlType::Int2, "int2", "N"),
    (SqlType::Int4, "int4", "N"),
    (SqlType::Reg(RegKind::Proc), "regproc", "N"),
    (SqlType::Text, "text", "S"),
    (SqlType::Oid, "oid", "N"),
    (SqlType::Float4, "float4", "N"),
    (SqlType::Float8, "float8", "N"),
    (SqlType::Char(1), "bpchar", "S"),
    (SqlType::VarChar(None), "varchar", "S"),
    (SqlType::Date, "date", "D"),
    (SqlType::Time, "time", "D"),
    (SqlType::Timestamp, "timestamp", "D"),
    (SqlType::TimestampTz, "timestamptz", "D"),
    (SqlType::Interval, "interval", "T"),
    (SqlType::Numeric(None), "numeric", "N"),
    (SqlType::Reg(RegKind::Class), "regclass", "N"),
    (SqlType::Reg(RegKind::Type), "regtype", "N"),
    (SqlType::Uuid, "uuid", "U"),
    (SqlType::Jsonb, "jsonb", "U"),
    (SqlType::Reg(RegKind::Namespace), "regnamespace", "N"),
    (SqlType::UInt2, "uint2", "N"),
    (SqlType::UInt4, "uint4", "N"),
    (SqlType::UInt8, "uint8", "N"),
    (SqlType::MzTimestamp, "mz_timestamp", "N"),
    (SqlType::Int2Vector, "int2vector", "A"),
    (SqlType::OidVector, "oidvector", "A"),
];

/// Types that only stand in signatures and in results of nothing.
const PSEUDO_TYPES: &[(u32, &str)] = &[
    (705, "unknown"),
    (2249, "record"),
    (2278, "void"),
    (2276, "any"),
    (2277, "anyarray"),
    (2283, "anyelement"),
    (2275, "cstring"),
    (2281, "internal"),
];

pub(super) fn types(_: &SystemContext<'_>, rows: &mut Rows) {
    for (sql_type, name, category) in TYPES {
        let namespace = if sql_type.oid() >= 16_000 {
            MZ_CATALOG_OID
        } else {
            PG_CATALOG_OID
        };
        let array_name = format!("_{name}");
        let both = [
            (sql_type.oid(), *name, sql_type.clone()),
            (
                sql_type.array_oid(),
                &array_name,
                SqlType::Array(Box::new(sql_type.clone())),
            ),
        ];
        for (oid, name, this) in both {
            let array = matches!(this, SqlType::Array(_));
            rows.push([
                ("oid", oid.into()),
                ("typname", name.into()),
                ("typnamespace", namespace.into()),
                ("typowner", DEFAULT_ROLE_OID.into()),
                ("typlen", this.type_length().into()),
                (
                    "typbyval",
                    matches!(this.type_length(), 1 | 2 | 4 | 8).into(),
                ),
                ("typtype", "b".into()),
                ("typcategory", if array { "A" } else { category }.into()),
                (
                    "typispreferred",
                    matches!(
                        this,
                        SqlType::Bool
                            | SqlType::Text
                            | SqlType::Float8
                            | SqlType::Oid
                            | SqlType::TimestampTz
                            | SqlType::Interval
                    )
                    .into(),
                ),
                ("typisdefined", true.into()),
                ("typdelim", ",".into()),
                (
                    "typelem",
                    this.element().map_or(0, |element| element.oid()).into(),
                ),
                (
                    "typarray",
                    if array { 0 } else { sql_type.array_oid() }.into(),
                ),
                ("typinput", if array { ARRAY_IN } else { 0 }.into()),
                ("typalign", "i".into()),
                (
                    "typstorage",
                    if this.type_length() < 0 { "x" } else { "p" }.into(),
                ),
                ("typtypmod", (-1).into()),
                ("typcollation", collation(sql_type).into()),
            ]);
        }
    }
    for (oid, name) in PSEUDO_TYPES {
        rows.push([
            ("oid", (*oid).into()),
            ("typname", (*name).into()),
            ("typnamespace", PG_CATALOG_OID.into()),
            ("typowner", DEFAULT_ROLE_OID.into()),
            ("typlen", (-1).into()),
            ("typtype", "p".into()),
            ("typcategory", if *oid == 705 { "X" } else { "P" }.into()),
            ("typisdefined", true.into()),
            ("typdelim", ",".into()),
            ("typalign", "i".into()),
            ("typstorage", "p".into()),
            ("typtypmod", (-1).into()),
        ]);
    }
}

pub(super) fn indexes(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (_, item) in ctx.items() {
        let ItemKind::Index { on, key } = &item.kind else {
            continue;
        };
        let Some(relation) = ctx.catalog.items.get(on) else {
            continue;
        };
        let position = |column: Option<usize>| {
            column.map_or(0, |column| i128::try_from(column + 1).unwrap_or(0))
        };
        let expressions: Vec<&str> = key
            .iter()
            .filter(|key| key.column.is_none())
            .map(|key| key.expression.as_str())
            .collect();
        rows.push([
            ("indexrelid", item.oid.into()),
            ("indrelid", relation.oid.into()),
            ("indnatts", key.len().into()),
            ("indnkeyatts", key.len().into()),
            ("indimmediate", true.into()),
            ("indisvalid", true.into()),
            ("indisready", true.into()),
            ("indislive", true.into()),
            (
                "indkey",
                Value::Ints(key.iter().map(|key| position(key.column)).collect()),
            ),
            ("indcollation", Value::Ints(vec![0; key.len()])),
            ("indclass", Value::Ints(vec![0; key.len()])),
            ("indoption", Value::Ints(vec![0; key.len()])),
            (
                "indexprs",
                if expressions.is_empty() {
                    Value::Null
                } else {
                    expressions.join(", ").into()
                },
            ),
        ]);
    }
    key_indexes(ctx, rows);
}

fn key_indexes(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for key in ctx.keys() {
        let count = key.positions.len();
        rows.push([
            ("indexrelid", key.oid().into()),
            ("indrelid", key.table.oid.into()),
            ("indnatts", count.into()),
            ("indnkeyatts", count.into()),
            ("indisunique", true.into()),
            ("indisprimary", true.into()),
            ("indimmediate", true.into()),
            ("indisvalid", true.into()),
            ("indisready", true.into()),
            ("indislive", true.into()),
            ("indkey", column_numbers(&key)),
            ("indcollation", Value::Ints(vec![0; count])),
            ("indclass", Value::Ints(vec![0; count])),
            ("indoption", Value::Ints(vec![0; count])),
        ]);
    }
}

/// The columns of a key, counted from 1.
fn column_numbers(key: &Key<'_>) -> Value {
    let numbers = key
        .positions
        .iter()
        .map(|position| i128::try_from(position + 1).unwrap_or(0));
    Value::Ints(numbers.collect())
}

pub(super) fn constraints(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for key in ctx.keys() {
        rows.push([
            ("oid", key.oid().into()),
            ("conname", key.name().into()),
            ("connamespace", key.schema.oid.into()),
            ("contype", "p".into()),
            ("convalidated", true.into()),
            ("conrelid", key.table.oid.into()),
            ("conindid", key.oid().into()),
            ("confupdtype", " ".into()),
            ("confdeltype", " ".into()),
            ("confmatchtype", " ".into()),
            ("conislocal", true.into()),
            ("connoinherit", true.into()),
            ("conkey", column_numbers(&key)),
        ]);
    }
}

pub(super) fn databases(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for database in ctx.catalog.databases.values() {
        rows.push([
            ("oid", database.oid.into()),
            ("datname", (&database.name).into()),
            ("datdba", DEFAULT_ROLE_OID.into()),
            ("encoding", UTF8.into()),
            ("datlocprovider", "c".into()),
            ("datallowconn", true.into()),
            ("datconnlimit", (-1).into()),
            ("dattablespace", DEFAULT_TABLESPACE.into()),
            ("datcollate", "C.UTF-8".into()),
            ("datctype", "C.UTF-8".into()),
        ]);
    }
}

/// What stands for a password that nobody is shown.
const MASKED: &str = "********";

/// When a role's password ends: milliseconds since the Unix epoch.
fn valid_until_ms(role: &Role) -> Option<i64> {
    role.valid_until_us.map(|micros| micros.div_euclid(1000))
}

pub(super) fn roles(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for role in ctx.catalog.roles.values() {
        rows.push([
            ("rolname", (&role.name).into()),
            ("rolsuper", role.superuser.into()),
            ("rolinherit", role.inherit.into()),
            ("rolcreaterole", true.into()),
            ("rolcreatedb", true.into()),
            ("rolcanlogin", role.login.into()),
            ("rolreplication", false.into()),
            ("rolconnlimit", (-1).into()),
            ("rolbypassrls", true.into()),
            ("rolpassword", MASKED.into()),
            ("rolvaliduntil", valid_until_ms(role).into()),
            ("oid", role.oid.into()),
        ]);
    }
}

pub(super) fn authid(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for role in ctx.catalog.roles.values() {
        rows.push([
            ("oid", role.oid.into()),
            ("rolname", (&role.name).into()),
            ("rolsuper", role.superuser.into()),
            ("rolinherit", role.inherit.into()),
            ("rolcreaterole", true.into()),
            ("rolcreatedb", true.into()),
            ("rolcanlogin", role.login.into()),
            ("rolreplication", false.into()),
            ("rolbypassrls", true.into()),
            ("rolconnlimit", (-1).into()),
            ("rolpassword", role.password.as_ref().map(|_| MASKED).into()),
            ("rolvaliduntil", valid_until_ms(role).into()),
        ]);
    }
}

pub(super) fn users(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for role in ctx.catalog.roles.values().filter(|role| role.login) {
        rows.push([
            ("usename", (&role.name).into()),
            ("usesysid", role.oid.into()),
            ("usecreatedb", true.into()),
            ("usesuper", role.superuser.into()),
            ("userepl", false.into()),
            ("usebypassrls", true.into()),
            ("passwd", MASKED.into()),
            ("valuntil", valid_until_ms(role).into()),
        ]);
    }
}

pub(super) fn access_methods(_: &SystemContext<'_>, rows: &mut Rows) {
    rows.push([
        ("oid", HEAP.into()),
        ("amname", "heap".into()),
        ("amtype", "t".into()),
    ]);
    rows.push([
        ("oid", ARRANGEMENT.into()),
        ("amname", "arrangement".into()),
        ("amtype", "i".into()),
    ]);
}

pub(super) fn defaults(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (_, item) in ctx.items() {
        for (position, column) in item.columns().unwrap_or_default().iter().enumerate() {
            if let Some(default) = &column.default {
                rows.push([
                    ("oid", default_oid(item.oid, position).into()),
                    ("adrelid", item.oid.into()),
                    ("adnum", (position + 1).into()),
                    ("adbin", default.into()),
                ]);
            }
        }
    }
}

/// The OID of a column's default, unique among defaults: the relation's above FIRST_USER_OID with the column's number below.
fn default_oid(relation: u32, position: usize) -> u32 {
    let column = u32::try_from(position + 1).unwrap_or(u32::MAX) & 0x7ff;
    relation
        .wrapping_sub(crate::catalog::FIRST_USER_OID)
        .wrapping_shl(11)
        | column
}

pub(super) fn descriptions(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (_, item) in ctx.items() {
        let whole = item.comment.iter().map(|comment| (0, comment));
        let columns = item
            .column_comments
            .iter()
            .map(|(position, comment)| (position + 1, comment));
        for (part, comment) in whole.chain(columns) {
            rows.push([
                ("objoid", item.oid.into()),
                ("classoid", PG_CLASS.into()),
                ("objsubid", part.into()),
                ("description", comment.into()),
            ]);
        }
    }
}

pub(super) fn collations(_: &SystemContext<'_>, rows: &mut Rows) {
    for (oid, name, provider) in [(DEFAULT_COLLATION, "default", "d"), (C_COLLATION, "C", "c")] {
        rows.push([
            ("oid", oid.into()),
            ("collname", name.into()),
            ("collnamespace", PG_CATALOG_OID.into()),
            ("collowner", DEFAULT_ROLE_OID.into()),
            ("collprovider", provider.into()),
            ("collisdeterministic", true.into()),
            ("collencoding", (-1).into()),
        ]);
    }
}

pub(super) fn functions(_: &SystemContext<'_>, rows: &mut Rows) {
    for function in flowstone_functions::signatures() {
        let arguments = function.arguments.iter().map(|oid| i128::from(*oid));
        rows.push([
            ("oid", function.oid.into()),
            ("proname", (&function.name).into()),
            ("pronamespace", PG_CATALOG_OID.into()),
            ("proowner", DEFAULT_ROLE_OID.into()),
            ("prolang", INTERNAL_LANGUAGE.into()),
            ("procost", 1.into()),
            (
                "prorows",
                if function.returns_set { 1000 } else { 0 }.into(),
            ),
            (
                "provariadic",
                function
                    .arguments
                    .last()
                    .filter(|_| function.variadic)
                    .copied()
                    .unwrap_or(0)
                    .into(),
            ),
            (
                "prokind",
                match function.kind {
                    FunctionKind::Scalar => "f",
                    FunctionKind::Aggregate => "a",
                    FunctionKind::Window => "w",
                }
                .into(),
            ),
            ("proretset", function.returns_set.into()),
            ("provolatile", "i".into()),
            ("proparallel", "s".into()),
            ("pronargs", function.arguments.len().into()),
            ("prorettype", function.result.into()),
            ("proargtypes", Value::Ints(arguments.collect())),
            ("prosrc", (&function.name).into()),
        ]);
    }
}

pub(super) fn aggregates(_: &SystemContext<'_>, rows: &mut Rows) {
    let aggregates = flowstone_functions::signatures()
        .iter()
        .filter(|function| function.kind == FunctionKind::Aggregate);
    for function in aggregates {
        rows.push([
            ("aggfnoid", function.oid.into()),
            ("aggkind", "n".into()),
            ("aggfinalmodify", "r".into()),
            ("aggmfinalmodify", "r".into()),
        ]);
    }
}

pub(super) fn languages(_: &SystemContext<'_>, rows: &mut Rows) {
    for (oid, name) in [(INTERNAL_LANGUAGE, "internal"), (13, "c"), (14, "sql")] {
        rows.push([
            ("oid", oid.into()),
            ("lanname", name.into()),
            ("lanowner", DEFAULT_ROLE_OID.into()),
        ]);
    }
}

pub(super) fn settings(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for variable in &ctx.session.variables {
        rows.push([
            ("name", (&variable.name).into()),
            ("setting", (&variable.value).into()),
            ("category", "Session".into()),
            ("short_desc", (&variable.description).into()),
            ("context", "user".into()),
            ("vartype", "string".into()),
            ("source", "session".into()),
            ("pending_restart", false.into()),
        ]);
    }
}

pub(super) fn tables(ctx: &SystemContext<'_>, rows: &mut Rows) {
    let indexed = ctx.indexed();
    for (schema, item) in ctx
        .items()
        .filter(|(_, item)| relation_kind(item) == Some("r"))
    {
        rows.push([
            ("schemaname", (&schema.name).into()),
            ("tablename", (&item.name).into()),
            ("tableowner", DEFAULT_ROLE.into()),
            ("hasindexes", indexed.contains(&item.id).into()),
            ("hasrules", false.into()),
            ("hastriggers", false.into()),
            ("rowsecurity", false.into()),
        ]);
    }
}

pub(super) fn views(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (schema, item) in ctx.items() {
        if let ItemKind::View { query, .. } = &item.kind {
            rows.push([
                ("schemaname", (&schema.name).into()),
                ("viewname", (&item.name).into()),
                ("viewowner", DEFAULT_ROLE.into()),
                ("definition", format!("{query};").into()),
            ]);
        }
    }
    for relation in super::relations() {
        rows.push([
            ("schemaname", relation.schema.into()),
            ("viewname", relation.name.into()),
            ("viewowner", DEFAULT_ROLE.into()),
        ]);
    }
}

pub(super) fn materialized_views(ctx: &SystemContext<'_>, rows: &mut Rows) {
    let indexed = ctx.indexed();
    for (schema, item) in ctx.items() {
        if let ItemKind::MaterializedView { query, .. } = &item.kind {
            rows.push([
                ("schemaname", (&schema.name).into()),
                ("matviewname", (&item.name).into()),
                ("matviewowner", DEFAULT_ROLE.into()),
                ("hasindexes", indexed.contains(&item.id).into()),
                ("ispopulated", true.into()),
                ("definition", format!("{query};").into()),
            ]);
        }
    }
}

pub(super) fn index_texts(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (schema, item) in ctx.items() {
        let ItemKind::Index { on, .. } = &item.kind else {
            continue;
        };
        rows.push([
            ("schemaname", (&schema.name).into()),
            (
                "tablename",
                ctx.catalog
                    .items
                    .get(on)
                    .map(|relation| relation.name.clone())
                    .into(),
            ),
            ("indexname", (&item.name).into()),
            ("indexdef", (&item.create_sql).into()),
        ]);
    }
    for key in ctx.keys() {
        rows.push([
            ("schemaname", (&key.schema.name).into()),
            ("tablename", (&key.table.name).into()),
            ("indexname", key.name().into()),
            ("indexdef", key.index_definition().into()),
        ]);
    }
}

pub(super) fn activity(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for session in &ctx.runtime.sessions {
        let database = ctx
            .catalog
            .databases
            .values()
            .find(|database| database.name == session.database);
        let state = match (session.active, session.in_transaction) {
            (true, _) => "active",
            (false, true) => "idle in transaction",
            (false, false) => "idle",
        };
        rows.push([
            ("datid", database.map(|database| database.oid).into()),
            ("datname", (&session.database).into()),
            ("pid", i32::try_from(session.connection_id).ok().into()),
            (
                "usesysid",
                ctx.catalog
                    .find_role(&session.user)
                    .map(|role| role.oid)
                    .into(),
            ),
            ("usename", (&session.user).into()),
            ("application_name", (&session.application_name).into()),
            ("client_addr", session.client_address.clone().into()),
            ("backend_start", session.connected_at_ms.into()),
            ("query_start", session.query_started_at_ms.into()),
            ("state", state.into()),
            ("query", (&session.query).into()),
            ("backend_type", "client backend".into()),
        ]);
    }
}

pub(super) fn tablespaces(_: &SystemContext<'_>, rows: &mut Rows) {
    rows.push([
        ("oid", DEFAULT_TABLESPACE.into()),
        ("spcname", "pg_default".into()),
        ("spcowner", DEFAULT_ROLE_OID.into()),
    ]);
}

/// The rule behind each view, as PostgreSQL has it; it has the view's OID.
pub(super) fn rules(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (_, item) in ctx.items() {
        if let ItemKind::View { query, .. } | ItemKind::MaterializedView { query, .. } = &item.kind
        {
            rows.push([
                ("oid", item.oid.into()),
                ("rulename", "_RETURN".into()),
                ("ev_class", item.oid.into()),
                ("ev_type", "1".into()),
                ("ev_enabled", "O".into()),
                ("is_instead", true.into()),
                ("ev_action", query.into()),
            ]);
        }
    }
}

pub(super) fn dependencies(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (_, item) in ctx.items() {
        let (class, kind) = match item.kind {
            ItemKind::View { .. } | ItemKind::MaterializedView { .. } => (PG_REWRITE, "n"),
            ItemKind::Index { .. } => (PG_CLASS, "a"),
            _ => continue,
        };
        if class == PG_REWRITE {
            // The view goes with its rule.
            rows.push([
                ("classid", PG_REWRITE.into()),
                ("objid", item.oid.into()),
                ("refclassid", PG_CLASS.into()),
                ("refobjid", item.oid.into()),
                ("deptype", "i".into()),
            ]);
        }
        let referenced = item
            .depends_on
            .iter()
            .filter_map(|id| ctx.catalog.items.get(id))
            .filter(|referenced| relation_kind(referenced).is_some());
        for referenced in referenced {
            rows.push([
                ("classid", class.into()),
                ("objid", item.oid.into()),
                ("refclassid", PG_CLASS.into()),
                ("refobjid", referenced.oid.into()),
                ("deptype", kind.into()),
            ]);
        }
    }
    for key in ctx.keys() {
        rows.push([
            ("classid", PG_CONSTRAINT.into()),
            ("objid", key.oid().into()),
            ("refclassid", PG_CLASS.into()),
            ("refobjid", key.table.oid.into()),
            ("deptype", "a".into()),
        ]);
    }
}

/// What is counted of tables and materialized views: their rows.
pub(super) fn table_statistics(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (schema, item) in ctx
        .items()
        .filter(|(_, item)| matches!(relation_kind(item), Some("r" | "m")))
    {
        rows.push([
            ("relid", item.oid.into()),
            ("schemaname", (&schema.name).into()),
            ("relname", (&item.name).into()),
            (
                "n_live_tup",
                ctx.runtime
                    .collections
                    .get(&item.id)
                    .map(|held| held.rows)
                    .into(),
            ),
            ("n_dead_tup", 0.into()),
        ]);
    }
}

pub(super) fn index_statistics(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (schema, item) in ctx.items() {
        if let ItemKind::Index { on, .. } = &item.kind
            && let Some(relation) = ctx.catalog.items.get(on)
        {
            rows.push([
                ("relid", relation.oid.into()),
                ("indexrelid", item.oid.into()),
                ("schemaname", (&schema.name).into()),
                ("relname", (&relation.name).into()),
                ("indexrelname", (&item.name).into()),
            ]);
        }
    }
    for key in ctx.keys() {
        rows.push([
            ("relid", key.table.oid.into()),
            ("indexrelid", key.oid().into()),
            ("schemaname", (&key.schema.name).into()),
            ("relname", (&key.table.name).into()),
            ("indexrelname", key.name().into()),
        ]);
    }
}

pub(super) fn database_statistics(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for database in ctx.catalog.databases.values() {
        let backends = ctx
            .runtime
            .sessions
            .iter()
            .filter(|session| session.database == database.name)
            .count();
        rows.push([
            ("datid", database.oid.into()),
            ("datname", (&database.name).into()),
            ("numbackends", backends.into()),
        ]);
    }
}
