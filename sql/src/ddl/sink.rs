//! CREATE SINK and ALTER SINK: from a relation and where it is to be written to an item of the catalog.
//!
//! What one kind of sink needs is its connector's business ([`crate::connector`]).

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use flowstone_types::{ObjectId, SqlType};
use sqlparser::ast::Expr;

use super::cluster::{in_cluster, target_cluster};
use super::create::{Place, new_item, place};
use super::create_sql::create_sql_in;
use super::{DdlPlan, Ids, at, create_sql, does_not_exist};
use crate::ast::{AlterSink, CreateSink, Name, ObjectType};
use crate::catalog::names::missing;
use crate::catalog::{
    Catalog, CatalogChange, Connection, Item, ItemKind, ResolveContext, Resolved, Sink,
    SinkItemKind,
};
use crate::connector::{PartitionItem, SinkRelation};
use crate::error::{Error, ErrorKind};
use crate::names::fold;
use crate::parse::expr_text;

/// The relation that a sink is to write.
fn relation<'a>(
    catalog: &'a Catalog,
    ctx: &ResolveContext,
    name: &Name,
) -> Result<&'a Item, Error> {
    let item = match catalog.resolve_relation(ctx, name)? {
        Resolved::Item(item) => item,
        Resolved::System(_) => {
            let message =
                format!("\"{name}\" is a system catalog and cannot be exported as a sink");
            return Err(at(
                Error::new(ErrorKind::InsufficientPrivilege, message),
                name,
            ));
        }
    };
    if item.is_collection() {
        return Ok(item);
    }
    let error = Error::new(
        ErrorKind::WrongObjectType,
        format!(
            "{} \"{}\" cannot be exported as a sink",
            item.noun(),
            item.name
        ),
    );
    Err(at(
        if matches!(item.kind, ItemKind::View { .. }) {
            error.with_hint("Create a materialized view of it, and a sink from that.")
        } else {
            error
        },
        name,
    ))
}

fn columns(item: &Item) -> Vec<(&str, &SqlType)> {
    item.columns()
        .unwrap_or_default()
        .iter()
        .map(|column| (column.name.as_str(), &column.sql_type))
        .collect()
}

fn key(item: &Item) -> Option<&[usize]> {
    match &item.kind {
        ItemKind::Table { key, .. } | ItemKind::MaterializedView { key, .. } => key.as_deref(),
        _ => None,
    }
}

/// What a sink cannot be without.
fn depends_on(from: ObjectId, kind: &SinkItemKind) -> Vec<ObjectId> {
    let all: BTreeSet<ObjectId> = [from, kind.connection()]
        .into_iter()
        .chain(kind.registries())
        .collect();
    all.into_iter().collect()
}

/// What resolves the name of a connection.
fn connection_named<'a>(
    catalog: &'a Catalog,
    ctx: &'a ResolveContext,
) -> impl Fn(&Name) -> Result<(ObjectId, &'a Connection), Error> + 'a {
    move |name: &Name| {
        let item = catalog.resolve_item(ctx, name, ObjectType::Connection)?;
        match &item.kind {
            ItemKind::Connection(connection) => Ok((item.id, connection)),
            _ => Err(Error::internal("a connection is something else")),
        }
    }
}

/// What the catalog keeps of the expression that decides on partitions. Whether it can be computed is found when it is planned.
fn partition_by(
    expr: &Expr,
    relation: &str,
    columns: &[(&str, &SqlType)],
) -> Result<PartitionItem, Error> {
    let mut expr = expr.clone();
    // Columns are kept without the name of the relation: that may change, and the sink may go over to another.
    let outcome = sqlparser::ast::visit_expressions_mut(&mut expr, |part| {
        let column = match &*part {
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., of, column] if fold(of) == relation => Some(column.clone()),
                _ => None,
            },
            _ => None,
        };
        if let Some(column) = column {
            *part = Expr::Identifier(column);
        }
        ControlFlow::<()>::Continue(())
    });
    debug_assert!(outcome.is_continue(), "the visitor never breaks");
    if let Expr::Identifier(ident) = &expr {
        let name = fold(ident);
        let place = columns
            .iter()
            .position(|(found, sql_type)| *found == name && sql_type.is_integer());
        if let Some(place) = place {
            return Ok(PartitionItem::Column(place));
        }
    }
    Ok(PartitionItem::Expression(expr_text(&expr)?))
}

pub(super) fn create(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateSink,
) -> Result<DdlPlan, Error> {
    let tag = "CREATE SINK";
    let cluster = target_cluster(catalog, ctx, create.in_cluster.as_ref())?;
    let schema = match place(catalog, ctx, &create.name, create.if_not_exists, tag)? {
        Place::Free(schema) => schema.id,
        Place::Taken(plan) => return Ok(plan),
    };
    let from = relation(catalog, ctx, &create.from)?;
    let found = columns(from);
    let written = SinkRelation {
        name: &from.name,
        columns: &found,
        key: key(from),
    };
    for name in create.kind.documented() {
        let named = catalog.resolve_relation(ctx, name)?;
        if !matches!(named, Resolved::Item(item) if item.id == from.id) {
            let message = format!(
                "DOC ON names \"{name}\", but the sink writes \"{}\"",
                from.name
            );
            let error = Error::new(ErrorKind::InvalidParameterValue, message);
            return Err(at(
                error.with_hint("Name the relation behind FROM, or one of its columns."),
                name,
            ));
        }
    }
    let partition_by = match create.kind.partition_by() {
        Some(expr) => Some(partition_by(expr, &from.name, &found)?),
        None => None,
    };
    let kind = create.kind.plan(
        written,
        create.snapshot,
        partition_by,
        &connection_named(catalog, ctx),
    )?;
    let depends_on = depends_on(from.id, &kind);
    let mut item = new_item(
        &mut Ids::new(catalog),
        schema,
        create.name.item(),
        depends_on,
        ItemKind::Sink(Sink {
            from: from.id,
            kind,
        }),
    );
    item.create_sql = create_sql_in(catalog, &item, &cluster.name);
    let mut plan = DdlPlan::new(tag);
    plan.created.push(item.id);
    let placed = in_cluster(item.id, cluster.id);
    plan.changes.push(CatalogChange::PutItem(Box::new(item)));
    plan.changes.extend(placed);
    Ok(plan)
}

/// `ALTER SINK … SET FROM …`
pub(super) fn alter(
    catalog: &Catalog,
    ctx: &ResolveContext,
    alter: &AlterSink,
) -> Result<DdlPlan, Error> {
    let tag = "ALTER SINK";
    let Some(item) = catalog.find_item(ctx, &alter.name, ObjectType::Sink)? else {
        if alter.if_exists {
            return Ok(DdlPlan::skip(
                tag,
                does_not_exist(ObjectType::Sink, &alter.name),
            ));
        }
        return Err(missing(ObjectType::Sink, &alter.name));
    };
    let ItemKind::Sink(sink) = &item.kind else {
        return Err(Error::internal("a sink is something else"));
    };
    let new = relation(catalog, ctx, &alter.from)?;
    let old = catalog
        .items
        .get(&sink.from)
        .ok_or_else(|| Error::internal("what a sink writes is not there"))?;
    let (old_columns, new_columns) = (columns(old), columns(new));
    let kind = sink
        .kind
        .moved(
            SinkRelation {
                name: &old.name,
                columns: &old_columns,
                key: key(old),
            },
            SinkRelation {
                name: &new.name,
                columns: &new_columns,
                key: key(new),
            },
        )
        .map_err(|error| at(error, &alter.from))?;
    let mut item = item.clone();
    item.depends_on = depends_on(new.id, &kind);
    item.kind = ItemKind::Sink(Sink { from: new.id, kind });
    item.create_sql = create_sql(catalog, &item);
    let mut plan = DdlPlan::new(tag);
    plan.changes.push(CatalogChange::PutItem(Box::new(item)));
    Ok(plan)
}
