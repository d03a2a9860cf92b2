//! The rows of `information_schema`, about the session's database and the system schemas.

use flowstone_types::SqlType;

use super::pg_rows::TYPES;
use super::rows::{Rows, Value};
use super::{Relation, SystemContext};
use crate::catalog::{DEFAULT_ROLE, Item, ItemKind};

pub(super) fn empty(_: &SystemContext<'_>, _: &mut Rows) {}

const fn table_type(item: &Item) -> Option<&'static str> {
    match item.kind {
        ItemKind::Table { .. } | ItemKind::Progress { .. } => Some("BASE TABLE"),
        ItemKind::View { .. } => Some("VIEW"),
        ItemKind::MaterializedView { .. } => Some("MATERIALIZED VIEW"),
        _ => None,
    }
}

const fn insertable(item: &Item) -> bool {
    matches!(item.kind, ItemKind::Table { source: None, .. })
}

fn yes_or_no(value: bool) -> Value {
    if value { "YES" } else { "NO" }.into()
}

pub(super) fn tables(ctx: &SystemContext<'_>, rows: &mut Rows) {
    let mut push = |schema: &str, name: &str, kind: &str, insertable: bool| {
        rows.push([
            ("table_catalog", (&ctx.session.database).into()),
            ("table_schema", schema.into()),
            ("table_name", name.into()),
            ("table_type", kind.into()),
            ("is_insertable_into", yes_or_no(insertable)),
            ("is_typed", yes_or_no(false)),
        ]);
    };
    for (schema, item) in ctx.items() {
        if let Some(kind) = table_type(item) {
            push(&schema.name, &item.name, kind, insertable(item));
        }
    }
    for Relation { schema, name, .. } in super::relations() {
        push(schema, name, "VIEW", false);
    }
}

fn type_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Array(_) | SqlType::Int2Vector | SqlType::OidVector => "ARRAY".to_owned(),
        // Without the modifier, which has columns of its own.
        SqlType::VarChar(_) => "character varying".to_owned(),
        SqlType::Char(_) => "character".to_owned(),
        SqlType::Numeric(_) => "numeric".to_owned(),
        other => other.to_string(),
    }
}

/// The name in `pg_type`.
pub(super) fn internal_name(sql_type: &SqlType) -> String {
    if let SqlType::Array(element) = sql_type {
        return match **element {
            SqlType::Array(_) => internal_name(element),
            _ => format!("_{}", internal_name(element)),
        };
    }
    TYPES
        .iter()
        .find(|(known, _, _)| known.oid() == sql_type.oid())
        .map_or_else(|| sql_type.to_string(), |(_, name, _)| (*name).to_owned())
}

fn numeric_precision(sql_type: &SqlType) -> (Option<i32>, Option<i32>, Option<i32>) {
    match sql_type {
        SqlType::Int2 | SqlType::UInt2 => (Some(16), Some(2), Some(0)),
        SqlType::Int4 | SqlType::UInt4 => (Some(32), Some(2), Some(0)),
        SqlType::Int8 | SqlType::UInt8 => (Some(64), Some(2), Some(0)),
        SqlType::Float4 => (Some(24), Some(2), None),
        SqlType::Float8 => (Some(53), Some(2), None),
        SqlType::Numeric(None) => (None, Some(10), None),
        SqlType::Numeric(Some((precision, scale))) => (
            Some(i32::from(*precision)),
            Some(10),
            Some(i32::from(*scale)),
        ),
        _ => (None, None, None),
    }
}

struct ColumnOf<'a> {
    schema: &'a str,
    relation: &'a str,
    position: usize,
    name: &'a str,
    sql_type: SqlType,
    nullable: bool,
    default: Option<&'a String>,
    updatable: bool,
}

fn column(ctx: &SystemContext<'_>, rows: &mut Rows, column: &ColumnOf<'_>) {
    let sql_type = &column.sql_type;
    let length = match sql_type {
        SqlType::VarChar(length) => length.and_then(|length| i32::try_from(length).ok()),
        SqlType::Char(length) => i32::try_from(*length).ok().filter(|length| *length > 0),
        _ => None,
    };
    let (precision, radix, scale) = numeric_precision(sql_type);
    let datetime = match sql_type {
        SqlType::Date => Some(0),
        SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz | SqlType::Interval => Some(6),
        _ => None,
    };
    rows.push([
        ("table_catalog", (&ctx.session.database).into()),
        ("table_schema", column.schema.into()),
        ("table_name", column.relation.into()),
        ("column_name", column.name.into()),
        ("ordinal_position", (column.position + 1).into()),
        ("column_default", column.default.cloned().into()),
        ("is_nullable", yes_or_no(column.nullable)),
        ("data_type", type_name(sql_type).into()),
        ("character_maximum_length", length.into()),
        ("numeric_precision", precision.into()),
        ("numeric_precision_radix", radix.into()),
        ("numeric_scale", scale.into()),
        ("datetime_precision", datetime.into()),
        ("udt_catalog", (&ctx.session.database).into()),
        (
            "udt_schema",
            if sql_type.oid() >= 16_000 {
                "mz_catalog"
            } else {
                "pg_catalog"
            }
            .into(),
        ),
        ("udt_name", internal_name(sql_type).into()),
        ("dtd_identifier", (column.position + 1).to_string().into()),
        ("is_self_referencing", yes_or_no(false)),
        ("is_identity", yes_or_no(false)),
        ("is_generated", "NEVER".into()),
        ("is_updatable", yes_or_no(column.updatable)),
    ]);
}

pub(super) fn columns(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (schema, item) in ctx.items() {
        for (position, found) in item.columns().unwrap_or_default().iter().enumerate() {
            let of = ColumnOf {
                schema: &schema.name,
                relation: &item.name,
                position,
                name: &found.name,
                sql_type: found.sql_type.clone(),
                nullable: found.nullable,
                default: found.default.as_ref(),
                updatable: insertable(item),
            };
            column(ctx, rows, &of);
        }
    }
    for relation in super::relations() {
        for (position, found) in relation.columns.iter().enumerate() {
            let of = ColumnOf {
                schema: relation.schema,
                relation: relation.name,
                position,
                name: found.name,
                sql_type: found.sql_type(),
                nullable: found.nullable,
                default: None,
                updatable: false,
            };
            column(ctx, rows, &of);
        }
    }
}

pub(super) fn schemata(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for schema in ctx.schemas() {
        rows.push([
            ("catalog_name", (&ctx.session.database).into()),
            ("schema_name", (&schema.name).into()),
            ("schema_owner", DEFAULT_ROLE.into()),
        ]);
    }
}

pub(super) fn views(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (schema, item) in ctx.items() {
        if let ItemKind::View { query, .. } = &item.kind {
            rows.push([
                ("table_catalog", (&ctx.session.database).into()),
                ("table_schema", (&schema.name).into()),
                ("table_name", (&item.name).into()),
                ("view_definition", format!("{query};").into()),
                ("check_option", "NONE".into()),
                ("is_updatable", yes_or_no(false)),
                ("is_insertable_into", yes_or_no(false)),
                ("is_trigger_updatable", yes_or_no(false)),
                ("is_trigger_deletable", yes_or_no(false)),
                ("is_trigger_insertable_into", yes_or_no(false)),
            ]);
        }
    }
}

pub(super) fn catalog_name(ctx: &SystemContext<'_>, rows: &mut Rows) {
    rows.push([("catalog_name", (&ctx.session.database).into())]);
}

pub(super) fn enabled_roles(ctx: &SystemContext<'_>, rows: &mut Rows) {
    rows.push([("role_name", (&ctx.session.user).into())]);
}

pub(super) fn character_sets(ctx: &SystemContext<'_>, rows: &mut Rows) {
    rows.push([
        ("character_set_name", "UTF8".into()),
        ("character_repertoire", "UCS".into()),
        ("form_of_use", "UTF8".into()),
        ("default_collate_catalog", (&ctx.session.database).into()),
        ("default_collate_schema", "pg_catalog".into()),
        ("default_collate_name", "C.UTF-8".into()),
    ]);
}

pub(super) fn collations(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for name in ["default", "C"] {
        rows.push([
            ("collation_catalog", (&ctx.session.database).into()),
            ("collation_schema", "pg_catalog".into()),
            ("collation_name", name.into()),
            ("pad_attribute", "NO PAD".into()),
        ]);
    }
}

pub(super) fn table_constraints(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for key in ctx.keys() {
        rows.push([
            ("constraint_catalog", (&ctx.session.database).into()),
            ("constraint_schema", (&key.schema.name).into()),
            ("constraint_name", key.name().into()),
            ("table_catalog", (&ctx.session.database).into()),
            ("table_schema", (&key.schema.name).into()),
            ("table_name", (&key.table.name).into()),
            ("constraint_type", "PRIMARY KEY".into()),
            ("is_deferrable", yes_or_no(false)),
            ("initially_deferred", yes_or_no(false)),
            ("enforced", yes_or_no(true)),
        ]);
    }
}

pub(super) fn key_columns(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for key in ctx.keys() {
        for (position, column) in key.columns().enumerate() {
            rows.push([
                ("constraint_catalog", (&ctx.session.database).into()),
                ("constraint_schema", (&key.schema.name).into()),
                ("constraint_name", key.name().into()),
                ("table_catalog", (&ctx.session.database).into()),
                ("table_schema", (&key.schema.name).into()),
                ("table_name", (&key.table.name).into()),
                ("column_name", (&column.name).into()),
                ("ordinal_position", (position + 1).into()),
            ]);
        }
    }
}

pub(super) fn constraint_columns(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for key in ctx.keys() {
        for column in key.columns() {
            rows.push([
                ("table_catalog", (&ctx.session.database).into()),
                ("table_schema", (&key.schema.name).into()),
                ("table_name", (&key.table.name).into()),
                ("column_name", (&column.name).into()),
                ("constraint_catalog", (&ctx.session.database).into()),
                ("constraint_schema", (&key.schema.name).into()),
                ("constraint_name", key.name().into()),
            ]);
        }
    }
}

pub(super) fn constraint_tables(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for key in ctx.keys() {
        rows.push([
            ("table_catalog", (&ctx.session.database).into()),
            ("table_schema", (&key.schema.name).into()),
            ("table_name", (&key.table.name).into()),
            ("constraint_catalog", (&ctx.session.database).into()),
            ("constraint_schema", (&key.schema.name).into()),
            ("constraint_name", key.name().into()),
        ]);
    }
}

/// The relations that views read.
pub(super) fn view_tables(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (schema, item) in ctx.items() {
        if !matches!(item.kind, ItemKind::View { .. }) {
            continue;
        }
        for referenced in item
            .depends_on
            .iter()
            .filter_map(|id| ctx.catalog.items.get(id))
            .filter(|referenced| table_type(referenced).is_some())
        {
            let of = ctx.catalog.schemas.get(&referenced.schema);
            rows.push([
                ("view_catalog", (&ctx.session.database).into()),
                ("view_schema", (&schema.name).into()),
                ("view_name", (&item.name).into()),
                ("table_catalog", (&ctx.session.database).into()),
                ("table_schema", of.map(|schema| schema.name.clone()).into()),
                ("table_name", (&referenced.name).into()),
            ]);
        }
    }
}
