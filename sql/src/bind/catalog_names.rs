//! The names of what is in the catalog, and the OIDs that they stand for.
//!
//! Owns how texts name relations, types, functions and schemas (`regclass` and its kin), and what is said of each. Must not know expressions.
//! Called by [`super::catalog_functions`].

use datafusion::common::ScalarValue;
use flowstone_types::SqlType;
use flowstone_types::sql_type::RegKind;

use super::value::{Value, literal};
use crate::catalog::{Item, ItemKind};
use crate::context::PlanContext;
use crate::error::{Error, ErrorKind};
use crate::names::{self, Relation};
use crate::system::keys::keys;

/// The types by the names that their OIDs print as and those that they have in the catalog.
pub(super) fn known_types() -> Vec<(String, u32)> {
    let mut known = Vec::new();
    for (sql_type, name, _) in crate::system::TYPES {
        let arrays = sql_type.array_oid();
        known.push(((*name).to_owned(), sql_type.oid()));
        known.push((sql_type.to_string(), sql_type.oid()));
        known.push((format!("_{name}"), arrays));
        known.push((format!("{name}[]"), arrays));
        known.push((format!("{sql_type}[]"), arrays));
    }
    known
}

pub(super) fn known_functions() -> Vec<(String, u32)> {
    flowstone_functions::signatures()
        .iter()
        .map(|signature| (signature.name.clone(), signature.oid))
        .collect()
}

pub(super) fn known_schemas(ctx: &PlanContext<'_>) -> Vec<(String, u32)> {
    ctx.catalog
        .schemas
        .values()
        .map(|schema| (crate::ast::quote_ident(&schema.name), schema.oid))
        .collect()
}

/// Whether an unqualified name finds the item.
pub(super) fn is_visible(ctx: &PlanContext<'_>, item: &Item) -> bool {
    matches!(names::resolve(ctx, std::slice::from_ref(&item.name)), Ok(Relation::Item(found)) if found.id == item.id)
        || matches!(item.kind, ItemKind::Secret | ItemKind::Connection(_))
}

pub(super) fn column_comments(ctx: &PlanContext<'_>) -> Vec<(u32, usize, String)> {
    let mut comments = Vec::new();
    for item in ctx.catalog.items.values() {
        for (column, comment) in &item.column_comments {
            comments.push((item.oid, column + 1, comment.clone()));
        }
    }
    comments
}

pub(super) fn index_definitions<'a>(
    ctx: &PlanContext<'a>,
) -> impl Iterator<Item = (u32, String)> + use<'a> {
    let catalog = ctx.catalog;
    let of_keys = keys(catalog).map(|key| (key.oid(), key.index_definition()));
    of_keys.chain(catalog.items.values().filter_map(move |item| {
        let ItemKind::Index { on, key } = &item.kind else {
            return None;
        };
        let on = catalog.items.get(on)?;
        let qualified = names::qualified_name(catalog, Relation::Item(on));
        let relation = qualified
            .iter()
            .skip(qualified.len().saturating_sub(2))
            .map(|part| crate::ast::quote_ident(part))
            .collect::<Vec<_>>()
            .join(".");
        let key: Vec<&str> = key.iter().map(|key| key.expression.as_str()).collect();
        Some((
            item.oid,
            format!(
                "CREATE INDEX {} ON {relation} USING arrangement ({})",
                crate::ast::quote_ident(&item.name),
                key.join(", ")
            ),
        ))
    }))
}

/// What `pg_get_indexdef(index, column, pretty)` answers: column 0 is the whole definition.
pub(super) fn index_columns(ctx: &PlanContext<'_>) -> Vec<(u32, usize, String)> {
    let definitions = index_definitions(ctx);
    let mut found: Vec<_> = definitions
        .map(|(number, definition)| (number, 0, definition))
        .collect();
    for item in ctx.catalog.items.values() {
        if let ItemKind::Index { key, .. } = &item.kind {
            for (position, key) in key.iter().enumerate() {
                found.push((item.oid, position + 1, key.expression.clone()));
            }
        }
    }
    for key in keys(ctx.catalog) {
        for (position, column) in key.columns().enumerate() {
            let name = crate::ast::quote_ident(&column.name);
            found.push((key.oid(), position + 1, name));
        }
    }
    found
}

/// The parts of a name as text has it: `public.t`, `"My Table"`.
fn parse_name(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut quoted = false;
    for letter in text.trim().chars() {
        match letter {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            _ if quoted => part.push(letter),
            _ => part.extend(letter.to_lowercase()),
        }
    }
    parts.push(part);
    parts
}

/// The OID of the relation that `text` names.
fn class_oid(ctx: &PlanContext<'_>, text: &str) -> Result<u32, Error> {
    let parts = parse_name(text);
    match names::resolve(ctx, &parts) {
        Ok(Relation::Item(item)) => Ok(item.oid),
        Ok(Relation::System(relation)) => Ok(relation.oid),
        // The index of a key is no relation that can be read.
        Err(error) => keys(ctx.catalog)
            .find(|key| {
                let visible = match parts.as_slice() {
                    [_] => ctx.search_path.contains(&key.schema.name),
                    [.., schema, _] => *schema == key.schema.name,
                    [] => false,
                };
                visible && parts.last().is_some_and(|name| *name == key.name())
            })
            .map(|key| key.oid())
            .ok_or(error),
    }
}

/// The constant `'text'::regclass` and its kin.
///
/// # Errors
/// If nothing has that name.
pub(super) fn reg_constant(
    ctx: &PlanContext<'_>,
    kind: RegKind,
    text: &str,
) -> Result<Value, Error> {
    let sql_type = SqlType::Reg(kind);
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().map_err(|_| {
            Error::new(
                ErrorKind::NumericOutOfRange,
                format!("value \"{text}\" is out of range for type oid"),
            )
        })?;
        return Ok(literal(ScalarValue::UInt32(Some(number)), &sql_type));
    }
    let found = match kind {
        RegKind::Class => class_oid(ctx, text)?,
        RegKind::Namespace => {
            let parts = parse_name(text);
            let schema = parts.last().and_then(|name| {
                ctx.catalog
                    .schemas
                    .values()
                    .find(|schema| &schema.name == name)
            });
            schema.map(|schema| schema.oid).ok_or_else(|| {
                Error::new(
                    ErrorKind::UnknownSchema,
                    format!("schema \"{text}\" does not exist"),
                )
            })?
        }
        RegKind::Type => {
            let bare = text.strip_prefix("pg_catalog.").unwrap_or(text);
            let parsed = sqlparser::parser::Parser::new(&sqlparser::dialect::PostgreSqlDialect {})
                .try_with_sql(bare)
                .and_then(|mut parser| parser.parse_data_type())
                .ok()
                .and_then(|data_type| crate::parse::parse_type(&data_type).ok());
            parsed.map(|sql_type| sql_type.oid()).ok_or_else(|| {
                Error::new(
                    ErrorKind::UndefinedObject,
                    format!("type \"{text}\" does not exist"),
                )
            })?
        }
        RegKind::Proc => {
            let parts = parse_name(text.split_once('(').map_or(text, |(name, _)| name));
            let function = parts.last().cloned().unwrap_or_default();
            flowstone_functions::signatures()
                .iter()
                .find(|signature| signature.name == function)
                .map(|signature| signature.oid)
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::UndefinedFunction,
                        format!("function \"{text}\" does not exist"),
                    )
                })?
        }
    };
    Ok(literal(ScalarValue::UInt32(Some(found)), &sql_type))
}

/// Every relation by its name with its schema's, and by its name alone if that finds it.
pub(super) fn known_classes(ctx: &PlanContext<'_>) -> Vec<(String, u32)> {
    let catalog = ctx.catalog;
    let mut known: Vec<(String, u32)> = Vec::new();
    let mut add = |schema: &str, relation: &str, number: u32, visible: bool| {
        let relation = crate::ast::quote_ident(relation);
        known.push((
            format!("{}.{relation}", crate::ast::quote_ident(schema)),
            number,
        ));
        if visible {
            known.push((relation, number));
        }
    };
    for item in catalog.items.values().filter(|item| {
        !matches!(
            item.kind,
            ItemKind::Secret | ItemKind::Connection(_) | ItemKind::Source(_) | ItemKind::Sink(_)
        )
    }) {
        if let Some(schema) = catalog.schemas.get(&item.schema) {
            add(&schema.name, &item.name, item.oid, is_visible(ctx, item));
        }
    }
    for key in keys(catalog) {
        add(
            &key.schema.name,
            &key.name(),
            key.oid(),
            is_visible(ctx, key.table),
        );
    }
    for relation in crate::system::relations() {
        let visible = matches!(relation.schema, "pg_catalog" | "mz_catalog");
        add(relation.schema, relation.name, relation.oid, visible);
    }
    known
}

/// The names of relations, as `oid::regclass::text` has them: qualified unless visible.
pub(super) fn class_names(ctx: &PlanContext<'_>) -> Vec<(u32, String)> {
    let entries = ctx.catalog.items.values().map(|item| {
        let shown = if is_visible(ctx, item) {
            crate::ast::quote_ident(&item.name)
        } else {
            let qualified = names::qualified_name(ctx.catalog, Relation::Item(item));
            qualified
                .into_iter()
                .rev()
                .take(2)
                .map(|part| crate::ast::quote_ident(&part))
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
                .join(".")
        };
        (item.oid, shown)
    });
    let system =
        crate::system::relations().map(|relation| (relation.oid, relation.name.to_owned()));
    let indexes = keys(ctx.catalog).map(|key| {
        let name = crate::ast::quote_ident(&key.name());
        let shown = if is_visible(ctx, key.table) {
            name
        } else {
            format!("{}.{name}", crate::ast::quote_ident(&key.schema.name))
        };
        (key.oid(), shown)
    });
    entries.chain(system).chain(indexes).collect()
}
