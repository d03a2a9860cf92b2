//! DROP: what goes, in which order, and what is in the way.

use std::collections::BTreeSet;

use flowstone_types::ObjectId;

use super::{DdlPlan, Notice, at, cluster, create_sql, does_not_exist};
use crate::ast::{AlterSourceDropSubsource, DropStatement, Name, ObjectType};
use crate::catalog::names::missing;
use crate::catalog::{
    Catalog, CatalogChange, DEFAULT_DATABASE, Item, ItemKind, ResolveContext, SchemaId,
};
use crate::error::{Error, ErrorKind};

pub(super) fn drop(
    catalog: &Catalog,
    ctx: &ResolveContext,
    statement: &DropStatement,
) -> Result<DdlPlan, Error> {
    let mut plan = DdlPlan::new(format!("DROP {}", statement.object_type.keyword()));
    match statement.object_type {
        ObjectType::Database => databases(catalog, ctx, statement, &mut plan)?,
        ObjectType::Schema => schemas(catalog, ctx, statement, &mut plan)?,
        ObjectType::Cluster => clusters(catalog, statement, &mut plan)?,
        _ => {
            let mut ids = Vec::new();
            for name in &statement.names {
                ids.extend(item(
                    catalog,
                    ctx,
                    name,
                    statement.object_type,
                    statement.if_exists,
                    &mut plan,
                )?);
            }
            add(catalog, &mut plan, &ids, statement.cascade)?;
            without_tables(catalog, &mut plan)?;
        }
    }
    Ok(plan)
}

/// A source of messages that loses its own table, and stays, says nothing of messages any more, and needs no registry.
fn without_tables(catalog: &Catalog, plan: &mut DdlPlan) -> Result<(), Error> {
    let own = plan.dropped.iter().filter_map(|id| {
        let kind = &catalog.items.get(id)?.kind;
        match kind {
            ItemKind::Table {
                source: Some(fed), ..
            } if fed.owned && catalog.message_tables.contains_key(id) => Some(fed.source),
            _ => None,
        }
    });
    let sources: BTreeSet<ObjectId> = own.filter(|id| !plan.dropped.contains(id)).collect();
    if sources.is_empty() {
        return Ok(());
    }
    let mut after = catalog.clone();
    after.apply(&plan.changes)?;
    for id in sources {
        let Some(mut source) = after.items.get(&id).cloned() else {
            continue;
        };
        if let ItemKind::Source(reads) = &source.kind {
            source.depends_on = reads.kind.connection().into_iter().collect();
        }
        source.create_sql = create_sql(&after, &source);
        plan.changes.push(CatalogChange::PutItem(Box::new(source)));
    }
    Ok(())
}

/// `ALTER SOURCE … DROP SUBSOURCE …`
pub(super) fn drop_subsources(
    catalog: &Catalog,
    ctx: &ResolveContext,
    alter: &AlterSourceDropSubsource,
) -> Result<DdlPlan, Error> {
    let tag = "ALTER SOURCE";
    let Some(source) = catalog.find_item(ctx, &alter.source, ObjectType::Source)? else {
        if alter.if_exists {
            return Ok(DdlPlan::skip(
                tag,
                does_not_exist(ObjectType::Source, &alter.source),
            ));
        }
        return Err(missing(ObjectType::Source, &alter.source));
    };
    let mut plan = DdlPlan::new(tag);
    let mut ids = Vec::new();
    for name in &alter.tables {
        if let Some(id) = item(
            catalog,
            ctx,
            name,
            ObjectType::Subsource,
            alter.subsource_if_exists,
            &mut plan,
        )? {
            let fed = catalog.items.get(&id).is_some_and(|item| matches!(&item.kind, ItemKind::Table { source: Some(of), .. } if of.source == source.id));
            if !fed {
                let message = format!(
                    "\"{}\" is not a subsource of \"{}\"",
                    name.item(),
                    source.name
                );
                return Err(at(Error::new(ErrorKind::WrongObjectType, message), name));
            }
            ids.push(id);
        }
    }
    add(catalog, &mut plan, &ids, alter.cascade)?;
    without_tables(catalog, &mut plan)?;
    Ok(plan)
}

/// The item to drop; none if it does not exist and need not.
fn item(
    catalog: &Catalog,
    ctx: &ResolveContext,
    name: &Name,
    object_type: ObjectType,
    if_exists: bool,
    plan: &mut DdlPlan,
) -> Result<Option<ObjectId>, Error> {
    // A subsource is a table as well, to those who drop it.
    let found = match catalog.find_item(ctx, name, object_type) {
        Err(error)
            if error.kind == ErrorKind::WrongObjectType && object_type == ObjectType::Table =>
        {
            catalog
                .find_item(ctx, name, ObjectType::Subsource)
                .map_err(|_| error)?
        }
        other => other?,
    };
    let Some(item) = found else {
        if if_exists {
            plan.notices
                .push(Notice::note(does_not_exist(object_type, name)));
            return Ok(None);
        }
        return Err(missing(object_type, name));
    };
    if let ItemKind::Progress { source, .. } = item.kind {
        let source = catalog
            .items
            .get(&source)
            .map_or("", |source| source.name.as_str());
        let message = format!(
            "cannot drop progress relation \"{}\" because source \"{source}\" needs it",
            item.name
        );
        return Err(at(
            Error::new(ErrorKind::DependentObjectsStillExist, message)
                .with_hint("Drop the source instead."),
            name,
        ));
    }
    Ok(Some(item.id))
}

/// Adds to a plan that the items `ids` go, with everything they own and, if asked for, everything that depends on them.
///
/// # Errors
/// [`ErrorKind::DependentObjectsStillExist`] if something depends on them and `cascade` is not set.
pub(super) fn add(
    catalog: &Catalog,
    plan: &mut DdlPlan,
    ids: &[ObjectId],
    cascade: bool,
) -> Result<(), Error> {
    // Everything that goes anyway: what is named, and what that owns.
    let mut going = BTreeSet::new();
    let mut open = ids.to_vec();
    while let Some(id) = open.pop() {
        if going.insert(id) {
            open.extend(catalog.owned_by(id).map(|item| item.id));
        }
    }
    let order = catalog.with_dependents(ids);
    // An index of what goes only by CASCADE goes with that, and is not in the way by itself.
    let in_the_way: Vec<&Item> = order
        .iter()
        .filter(|id| !going.contains(id))
        .filter_map(|id| catalog.items.get(id))
        .filter(|item| !matches!(item.kind, ItemKind::Index { .. }))
        .collect();
    if !cascade && let Some(first) = in_the_way.last() {
        return Err(blocked(catalog, ids, &going, &in_the_way, first));
    }
    if cascade {
        for item in in_the_way.iter().rev() {
            plan.notices.push(Notice::note(format!(
                "drop cascades to {} {}",
                item.noun(),
                catalog.full_name(item.id)
            )));
        }
    }
    for id in order {
        plan.changes.push(CatalogChange::DropItem(id));
        plan.dropped.push(id);
    }
    Ok(())
}

/// The error that says who depends on what.
fn blocked(
    catalog: &Catalog,
    ids: &[ObjectId],
    going: &BTreeSet<ObjectId>,
    in_the_way: &[&Item],
    first: &Item,
) -> Error {
    let subject = ids
        .iter()
        .filter_map(|id| catalog.items.get(id))
        .find(|item| catalog.with_dependents(&[item.id]).contains(&first.id));
    let subject = subject.map_or_else(
        || "it".to_owned(),
        |item| format!("{} \"{}\"", item.noun(), item.name),
    );
    let lines = in_the_way.iter().rev().flat_map(|item| {
        let on = item
            .depends_on
            .iter()
            .filter(|on| going.contains(on) || in_the_way.iter().any(|other| other.id == **on));
        on.filter_map(|on| catalog.items.get(on)).map(|on| {
            format!(
                "{} \"{}\" depends on {} \"{}\"",
                item.noun(),
                item.name,
                on.noun(),
                on.name
            )
        })
    });
    Error::new(
        ErrorKind::DependentObjectsStillExist,
        format!("cannot drop {subject} because other objects depend on it"),
    )
    .with_detail(lines.collect::<Vec<_>>().join("\n"))
    .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

fn items_of(catalog: &Catalog, schema: SchemaId) -> Vec<ObjectId> {
    catalog
        .items
        .values()
        .filter(|item| item.schema == schema)
        .map(|item| item.id)
        .collect()
}

fn schemas(
    catalog: &Catalog,
    ctx: &ResolveContext,
    statement: &DropStatement,
    plan: &mut DdlPlan,
) -> Result<(), Error> {
    let mut ids = Vec::new();
    for name in &statement.names {
        let schema = match catalog.resolve_schema(ctx, name) {
            Ok(schema) => schema,
            Err(error)
                if statement.if_exists
                    && matches!(
                        error.kind,
                        ErrorKind::UnknownSchema | ErrorKind::UnknownDatabase
                    ) =>
            {
                plan.notices
                    .push(Notice::note(does_not_exist(ObjectType::Schema, name)));
                continue;
            }
            Err(error) => return Err(error),
        };
        if schema.database.is_none() {
            let message = format!(
                "cannot drop schema \"{}\" because it is required by the database system",
                schema.name
            );
            return Err(at(
                Error::new(ErrorKind::InsufficientPrivilege, message),
                name,
            ));
        }
        let items = items_of(catalog, schema.id);
        if !statement.cascade && !items.is_empty() {
            let what = format!("schema \"{}\"", schema.name);
            return Err(at(not_empty(catalog, &what, &items), name));
        }
        add(catalog, plan, &items, true)?;
        ids.push(schema.id);
    }
    deduplicate(plan);
    plan.changes
        .extend(ids.into_iter().map(CatalogChange::DropSchema));
    Ok(())
}

/// Clusters go after everything in them.
fn clusters(catalog: &Catalog, statement: &DropStatement, plan: &mut DdlPlan) -> Result<(), Error> {
    let mut gone = BTreeSet::new();
    for name in &statement.names {
        let Some(cluster) = cluster::find(catalog, name, statement.if_exists)? else {
            plan.notices
                .push(Notice::note(does_not_exist(ObjectType::Cluster, name)));
            continue;
        };
        cluster::refuse_process(cluster, name)?;
        let items = cluster::items_in(catalog, cluster.id);
        if !statement.cascade && !items.is_empty() {
            let what = format!("cluster \"{}\"", cluster.name);
            return Err(at(not_empty(catalog, &what, &items), name));
        }
        for item in items.iter().filter_map(|id| catalog.items.get(id)) {
            plan.notices.push(Notice::note(format!(
                "drop cascades to {} {}",
                item.noun(),
                catalog.full_name(item.id)
            )));
        }
        add(catalog, plan, &items, true)?;
        gone.insert(cluster.id);
    }
    deduplicate(plan);
    plan.changes
        .extend(gone.into_iter().map(CatalogChange::DropCluster));
    Ok(())
}

/// The error for a schema, a database or a cluster with something in it.
fn not_empty(catalog: &Catalog, what: &str, items: &[ObjectId]) -> Error {
    let items = items.iter().filter_map(|id| catalog.items.get(id));
    let lines: Vec<String> = items
        .map(|item| format!("{} \"{}\" depends on {what}", item.noun(), item.name))
        .collect();
    Error::new(
        ErrorKind::DependentObjectsStillExist,
        format!("cannot drop {what} because other objects depend on it"),
    )
    .with_detail(lines.join("\n"))
    .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

/// Refuses to drop or rename the database that a session is in, and the one that sessions are in that ask for none: nobody could connect any more.
pub(super) fn refuse_needed(
    ctx: &ResolveContext,
    name: &Name,
    current: Error,
    verb: &str,
) -> Result<(), Error> {
    if name.item() == ctx.database {
        return Err(at(current, name));
    }
    if name.item() == DEFAULT_DATABASE {
        let message = format!("cannot {verb} database \"{DEFAULT_DATABASE}\"");
        return Err(at(
            Error::new(ErrorKind::DependentObjectsStillExist, message)
                .with_detail("Sessions that ask for no database are in it."),
            name,
        ));
    }
    Ok(())
}

fn databases(
    catalog: &Catalog,
    ctx: &ResolveContext,
    statement: &DropStatement,
    plan: &mut DdlPlan,
) -> Result<(), Error> {
    let mut gone = Vec::new();
    for name in &statement.names {
        let database = match catalog.resolve_database(name.item()) {
            Ok(database) => database,
            Err(_) if statement.if_exists => {
                plan.notices
                    .push(Notice::note(does_not_exist(ObjectType::Database, name)));
                continue;
            }
            Err(error) => return Err(at(error, name)),
        };
        let current = Error::new(
            ErrorKind::ObjectInUse,
            "cannot drop the currently open database",
        );
        refuse_needed(ctx, name, current, "drop")?;
        let schemas: Vec<SchemaId> = catalog
            .schemas
            .values()
            .filter(|schema| schema.database == Some(database.id))
            .map(|schema| schema.id)
            .collect();
        let items: Vec<ObjectId> = schemas
            .iter()
            .flat_map(|schema| items_of(catalog, *schema))
            .collect();
        if statement.restrict && !schemas.is_empty() {
            let message = format!(
                "database \"{}\" cannot be dropped with RESTRICT while it contains schemas",
                database.name
            );
            return Err(at(
                Error::new(ErrorKind::DependentObjectsStillExist, message),
                name,
            ));
        }
        if !statement.cascade && !items.is_empty() {
            let what = format!("database \"{}\"", database.name);
            return Err(at(not_empty(catalog, &what, &items), name));
        }
        add(catalog, plan, &items, true)?;
        gone.extend(schemas.into_iter().map(CatalogChange::DropSchema));
        gone.push(CatalogChange::DropDatabase(database.id));
    }
    deduplicate(plan);
    plan.changes.extend(gone);
    Ok(())
}

/// Items that go for more than one reason go once.
fn deduplicate(plan: &mut DdlPlan) {
    let mut seen = BTreeSet::new();
    plan.dropped.retain(|id| seen.insert(*id));
    plan.changes = plan
        .dropped
        .iter()
        .map(|id| CatalogChange::DropItem(*id))
        .collect();
}
