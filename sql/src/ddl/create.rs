//! CREATE of everything but sources.

use std::collections::{BTreeMap, BTreeSet};

use flowstone_types::ObjectId;

use super::cluster::{in_cluster, target_cluster};
use super::create_sql::create_sql_in;
use super::{DdlPlan, Ids, at, create_sql};
use crate::ast::{
    AlterConnection, AlterConnectionAction, CreateConnection, CreateDatabase, CreateIndex,
    CreateMaterializedView, CreateSchema, CreateSecret, CreateTable, CreateView, Name, ObjectType,
};
use crate::catalog::{
    Catalog, CatalogChange, Cluster, Column, Connection, DEFAULT_SCHEMA, Database, DatabaseId,
    IndexKey, Item, ItemKind, ResolveContext, Resolved, Schema, SchemaId,
};
use crate::error::{Error, ErrorKind};

/// Prefixes of names that are the system's.
const RESERVED_PREFIXES: [&str; 2] = ["mz_", "pg_"];

pub(super) fn database(catalog: &Catalog, create: &CreateDatabase) -> Result<DdlPlan, Error> {
    let tag = "CREATE DATABASE";
    let name = &create.name.value;
    if catalog
        .databases
        .values()
        .any(|database| database.name == *name)
    {
        if create.if_not_exists {
            return Ok(DdlPlan::skip(
                tag,
                format!("database \"{name}\" already exists, skipping"),
            ));
        }
        return Err(Error::new(
            ErrorKind::DuplicateDatabase,
            format!("database \"{name}\" already exists"),
        )
        .at(create.name.position));
    }
    let mut ids = Ids::new(catalog);
    let database = Database {
        id: DatabaseId(ids.id()),
        oid: ids.oid(),
        name: name.clone(),
    };
    let schema = Schema {
        id: SchemaId(ids.id()),
        oid: ids.oid(),
        name: DEFAULT_SCHEMA.to_owned(),
        database: Some(database.id),
    };
    let mut plan = DdlPlan::new(tag);
    plan.changes = vec![
        CatalogChange::PutDatabase(database),
        CatalogChange::PutSchema(schema),
    ];
    Ok(plan)
}

pub(super) fn schema(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateSchema,
) -> Result<DdlPlan, Error> {
    let tag = "CREATE SCHEMA";
    let name = create.name.item();
    let database = match create.name.parts.as_slice() {
        [database, _] => catalog.resolve_database(&database.value),
        _ => catalog.resolve_database(&ctx.database),
    };
    let database = database.map_err(|error| at(error, &create.name))?.id;
    if RESERVED_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix))
    {
        let error = Error::new(
            ErrorKind::InvalidName,
            format!("unacceptable schema name \"{name}\""),
        );
        return Err(at(
            error.with_detail("The prefixes \"mz_\" and \"pg_\" are reserved for system schemas."),
            &create.name,
        ));
    }
    if catalog.find_schema(Some(database), name).is_some() {
        if create.if_not_exists {
            return Ok(DdlPlan::skip(
                tag,
                format!("schema \"{name}\" already exists, skipping"),
            ));
        }
        return Err(at(
            Error::new(
                ErrorKind::DuplicateSchema,
                format!("schema \"{name}\" already exists"),
            ),
            &create.name,
        ));
    }
    let mut ids = Ids::new(catalog);
    let schema = Schema {
        id: SchemaId(ids.id()),
        oid: ids.oid(),
        name: name.to_owned(),
        database: Some(database),
    };
    let mut plan = DdlPlan::new(tag);
    plan.changes = vec![CatalogChange::PutSchema(schema)];
    Ok(plan)
}

/// What is in the way of a new item.
pub(super) enum Place<'a> {
    /// Nothing: it goes into this schema.
    Free(&'a Schema),
    /// Something, and the statement says that this is fine.
    Taken(DdlPlan),
}

/// Where a new item called `name` goes, or why it cannot.
pub(super) fn place<'a>(
    catalog: &'a Catalog,
    ctx: &ResolveContext,
    name: &Name,
    if_not_exists: bool,
    tag: &str,
) -> Result<Place<'a>, Error> {
    let schema = catalog.target_schema(ctx, name)?;
    let Some(existing) = catalog.items_named(schema.id, name.item()).next() else {
        return Ok(Place::Free(schema));
    };
    let what = if existing.columns().is_some() || matches!(existing.kind, ItemKind::Index { .. }) {
        "relation"
    } else {
        existing.noun()
    };
    let message = format!("{what} \"{}\" already exists", name.item());
    if if_not_exists {
        return Ok(Place::Taken(DdlPlan::skip(
            tag,
            format!("{message}, skipping"),
        )));
    }
    let kind = if what == "relation" {
        ErrorKind::DuplicateTable
    } else {
        ErrorKind::DuplicateObject
    };
    Err(at(Error::new(kind, message), name))
}

/// An item as it is before its CREATE text is made.
pub(super) fn new_item(
    ids: &mut Ids,
    schema: SchemaId,
    name: &str,
    depends_on: Vec<ObjectId>,
    kind: ItemKind,
) -> Item {
    Item {
        id: ObjectId::User(ids.id()),
        oid: ids.oid(),
        schema,
        name: name.to_owned(),
        create_sql: String::new(),
        depends_on,
        comment: None,
        column_comments: BTreeMap::new(),
        kind,
    }
}

/// Adds an item to a plan. `catalog` must know everything the item refers to.
pub(super) fn put(plan: &mut DdlPlan, catalog: &Catalog, mut item: Item) {
    item.create_sql = create_sql(catalog, &item);
    plan.created.push(item.id);
    plan.changes.push(CatalogChange::PutItem(Box::new(item)));
}

/// A plan that just makes one item.
fn one(catalog: &Catalog, tag: &str, item: Item) -> DdlPlan {
    let mut plan = DdlPlan::new(tag);
    put(&mut plan, catalog, item);
    plan
}

/// Adds an item that is in a cluster to a plan.
fn put_into(plan: &mut DdlPlan, catalog: &Catalog, mut item: Item, cluster: &Cluster) {
    item.create_sql = create_sql_in(catalog, &item, &cluster.name);
    let id = item.id;
    plan.created.push(id);
    plan.changes.push(CatalogChange::PutItem(Box::new(item)));
    plan.changes.extend(in_cluster(id, cluster.id));
}

pub(super) fn table(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateTable,
) -> Result<DdlPlan, Error> {
    let tag = "CREATE TABLE";
    if create.temporary {
        return Err(at(
            Error::unsupported("temporary tables are not supported"),
            &create.name,
        ));
    }
    if let Some(constraint) = create.constraints.first() {
        let error = Error::unsupported(format!(
            "{} constraints are not supported",
            constraint.kind.keyword()
        ));
        return Err(error
            .with_hint("Create the table without it: only NOT NULL is enforced.")
            .at(constraint.position));
    }
    let schema = match place(catalog, ctx, &create.name, create.if_not_exists, tag)? {
        Place::Free(schema) => schema,
        Place::Taken(plan) => return Ok(plan),
    };
    let mut seen = BTreeSet::new();
    for column in &create.columns {
        if !seen.insert(&column.name.value) {
            let message = format!("column \"{}\" specified more than once", column.name.value);
            return Err(Error::new(ErrorKind::DuplicateColumn, message).at(column.name.position));
        }
    }
    let columns = create.columns.iter().map(|column| {
        let default = column.default.as_deref().map(crate::parse::expr_text);
        Ok(Column {
            name: column.name.value.clone(),
            sql_type: column.sql_type.clone(),
            nullable: !column.not_null,
            default: default.transpose()?,
        })
    });
    let kind = ItemKind::Table {
        columns: columns.collect::<Result<_, Error>>()?,
        key: None,
        source: None,
    };
    Ok(one(
        catalog,
        tag,
        new_item(
            &mut Ids::new(catalog),
            schema.id,
            create.name.item(),
            Vec::new(),
            kind,
        ),
    ))
}

pub(super) fn secret(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateSecret,
) -> Result<DdlPlan, Error> {
    let tag = "CREATE SECRET";
    match place(catalog, ctx, &create.name, create.if_not_exists, tag)? {
        Place::Free(schema) => Ok(one(
            catalog,
            tag,
            new_item(
                &mut Ids::new(catalog),
                schema.id,
                create.name.item(),
                Vec::new(),
                ItemKind::Secret,
            ),
        )),
        Place::Taken(plan) => Ok(plan),
    }
}

pub(super) fn connection(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateConnection,
) -> Result<DdlPlan, Error> {
    let tag = "CREATE CONNECTION";
    let schema = match place(catalog, ctx, &create.name, create.if_not_exists, tag)? {
        Place::Free(schema) => schema,
        Place::Taken(plan) => return Ok(plan),
    };
    let secret = secret_named(catalog, ctx);
    let mut options = create.kind.options();
    for option in &create.options {
        options.set(option, &secret)?;
    }
    let connection = options.finish(&create.name)?;
    let item = new_item(
        &mut Ids::new(catalog),
        schema.id,
        create.name.item(),
        secrets_of(&connection),
        ItemKind::Connection(connection),
    );
    Ok(one(catalog, tag, item))
}

pub(super) fn alter_connection(
    catalog: &Catalog,
    ctx: &ResolveContext,
    alter: &AlterConnection,
) -> Result<DdlPlan, Error> {
    let tag = "ALTER CONNECTION";
    let Some(item) = catalog.find_item(ctx, &alter.name, ObjectType::Connection)? else {
        if alter.if_exists {
            return Ok(DdlPlan::skip(
                tag,
                super::does_not_exist(ObjectType::Connection, &alter.name),
            ));
        }
        return Err(crate::catalog::names::missing(
            ObjectType::Connection,
            &alter.name,
        ));
    };
    let ItemKind::Connection(connection) = &item.kind else {
        return Err(Error::internal("a connection is something else"));
    };
    let secret = secret_named(catalog, ctx);
    let mut options = connection.connector().options();
    for action in &alter.actions {
        match action {
            AlterConnectionAction::Set(option) => options.set(option, &secret)?,
            AlterConnectionAction::Unset { name, position } => {
                options.unset(*name).map_err(|error| error.at(*position))?
            }
        }
    }
    let altered = options.finish(&alter.name)?;
    refuse_other_progress(catalog, item.id, connection, &altered)
        .map_err(|error| at(error, &alter.name))?;
    let mut item = item.clone();
    item.depends_on = secrets_of(&altered);
    item.kind = ItemKind::Connection(altered);
    item.create_sql = create_sql(catalog, &item);
    let mut plan = DdlPlan::new(tag);
    plan.changes.push(CatalogChange::PutItem(Box::new(item)));
    Ok(plan)
}

/// A sink that finds nothing of itself where it looks for its progress writes everything again: it looks at one place for good.
fn refuse_other_progress(
    catalog: &Catalog,
    id: ObjectId,
    before: &Connection,
    after: &Connection,
) -> Result<(), Error> {
    let topic = |of: &Connection| of.connector().progress_topic(catalog.installation, id);
    if topic(before) == topic(after) {
        return Ok(());
    }
    let sinks = catalog
        .items
        .values()
        .filter(|item| matches!(&item.kind, ItemKind::Sink(sink) if sink.kind.connection() == id));
    let names: Vec<String> = sinks.map(|sink| catalog.full_name(sink.id)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let error = Error::new(
        ErrorKind::ObjectInUse,
        "the progress topic of a connection cannot be changed while sinks use it",
    );
    Err(error
        .with_detail(
            "They would find nothing of what they have written, and write everything again.",
        )
        .with_hint(format!("Drop these sinks first: {}.", names.join(", "))))
}

/// What resolves the name of a secret in an option.
fn secret_named<'a>(
    catalog: &'a Catalog,
    ctx: &'a ResolveContext,
) -> impl Fn(&Name) -> Result<ObjectId, Error> + 'a {
    move |name: &Name| {
        catalog
            .resolve_item(ctx, name, ObjectType::Secret)
            .map(|item| item.id)
    }
}

/// The secrets that a connection names, each of them once.
fn secrets_of(connection: &Connection) -> Vec<ObjectId> {
    let found: BTreeSet<ObjectId> = connection.secrets().into_iter().collect();
    found.into_iter().collect()
}

/// What planning found out about the query of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewParts {
    /// Its columns.
    pub columns: Vec<Column>,
    /// The query as SQL with qualified names.
    pub query: String,
    /// What the query names; relations of the system among it do no harm.
    pub depends_on: Vec<ObjectId>,
}

impl ViewParts {
    /// Only items of the catalog are dependencies that something could break.
    fn user_dependencies(&self) -> Vec<ObjectId> {
        let found: BTreeSet<ObjectId> = self
            .depends_on
            .iter()
            .copied()
            .filter(|id| matches!(id, ObjectId::User(_)))
            .collect();
        found.into_iter().collect()
    }
}

/// Drops what `OR REPLACE` replaces, and says where the new item goes.
fn replace(
    catalog: &Catalog,
    ctx: &ResolveContext,
    name: &Name,
    object_type: ObjectType,
    plan: &mut DdlPlan,
) -> Result<SchemaId, Error> {
    let schema = catalog.target_schema(ctx, name)?.id;
    let Some(existing) = catalog.items_named(schema, name.item()).next() else {
        return Ok(schema);
    };
    if !existing.is(object_type) {
        let article = if object_type == ObjectType::Index {
            "an"
        } else {
            "a"
        };
        return Err(at(
            Error::new(
                ErrorKind::WrongObjectType,
                format!(
                    "\"{}\" is not {article} {}",
                    existing.name,
                    object_type.noun()
                ),
            ),
            name,
        ));
    }
    super::drop::add(catalog, plan, &[existing.id], false)?;
    Ok(schema)
}

/// Plans `CREATE VIEW`, its query having been planned.
///
/// # Errors
/// [`ErrorKind::DuplicateTable`] and others about the name; [`ErrorKind::DependentObjectsStillExist`] if what is replaced is used.
pub fn plan_create_view(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateView,
    parts: &ViewParts,
) -> Result<DdlPlan, Error> {
    let tag = "CREATE VIEW";
    if create.temporary {
        return Err(at(
            Error::unsupported("temporary views are not supported"),
            &create.name,
        ));
    }
    let mut plan = DdlPlan::new(tag);
    let schema = if create.or_replace {
        replace(catalog, ctx, &create.name, ObjectType::View, &mut plan)?
    } else {
        match place(catalog, ctx, &create.name, create.if_not_exists, tag)? {
            Place::Free(schema) => schema.id,
            Place::Taken(plan) => return Ok(plan),
        }
    };
    let kind = ItemKind::View {
        columns: parts.columns.clone(),
        query: parts.query.clone(),
    };
    put(
        &mut plan,
        catalog,
        new_item(
            &mut Ids::new(catalog),
            schema,
            create.name.item(),
            parts.user_dependencies(),
            kind,
        ),
    );
    refuse_self_reference(&plan, &create.name)?;
    Ok(plan)
}

/// Plans `CREATE MATERIALIZED VIEW`, its query having been planned. `key`: columns known to identify a row.
///
/// # Errors
/// As [`plan_create_view`]; [`ErrorKind::UndefinedColumn`] for `ASSERT NOT NULL` of what is no column.
pub fn plan_create_materialized_view(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateMaterializedView,
    parts: &ViewParts,
    key: Option<Vec<usize>>,
) -> Result<DdlPlan, Error> {
    let tag = "CREATE MATERIALIZED VIEW";
    let cluster = target_cluster(catalog, ctx, create.in_cluster.as_ref())?;
    if let Some(column) = create.assert_not_null.first() {
        if !parts.columns.iter().any(|found| found.name == column.value) {
            return Err(Error::new(
                ErrorKind::UndefinedColumn,
                format!("column \"{}\" does not exist", column.value),
            )
            .at(column.position));
        }
        return Err(Error::unsupported("ASSERT NOT NULL is not supported").at(column.position));
    }
    if let Some(option) = create.options.first() {
        return Err(
            Error::unsupported(format!("option {} is not supported", option.name))
                .at(option.position),
        );
    }
    let mut plan = DdlPlan::new(tag);
    let schema = if create.or_replace {
        replace(
            catalog,
            ctx,
            &create.name,
            ObjectType::MaterializedView,
            &mut plan,
        )?
    } else {
        match place(catalog, ctx, &create.name, create.if_not_exists, tag)? {
            Place::Free(schema) => schema.id,
            Place::Taken(plan) => return Ok(plan),
        }
    };
    let kind = ItemKind::MaterializedView {
        columns: parts.columns.clone(),
        query: parts.query.clone(),
        key,
    };
    put_into(
        &mut plan,
        catalog,
        new_item(
            &mut Ids::new(catalog),
            schema,
            create.name.item(),
            parts.user_dependencies(),
            kind,
        ),
        cluster,
    );
    refuse_self_reference(&plan, &create.name)?;
    Ok(plan)
}

/// What `OR REPLACE` drops cannot be read by what replaces it.
fn refuse_self_reference(plan: &DdlPlan, name: &Name) -> Result<(), Error> {
    let uses = plan.changes.iter().any(|change| matches!(change, CatalogChange::PutItem(item) if item.depends_on.iter().any(|id| plan.dropped.contains(id))));
    if !uses {
        return Ok(());
    }
    Err(at(
        Error::new(
            ErrorKind::InvalidObjectDefinition,
            format!("\"{name}\" cannot be replaced by a query that reads it"),
        ),
        name,
    ))
}

/// The relation that an index is to be on.
///
/// # Errors
/// As [`Catalog::resolve_relation`]; [`ErrorKind::InsufficientPrivilege`] for a relation of the system.
pub fn index_relation<'a>(
    catalog: &'a Catalog,
    ctx: &ResolveContext,
    create: &CreateIndex,
) -> Result<&'a Item, Error> {
    match catalog.resolve_relation(ctx, &create.on)? {
        Resolved::Item(item) => Ok(item),
        Resolved::System(_) => {
            let message = format!("permission denied: \"{}\" is a system catalog", create.on);
            Err(at(
                Error::new(ErrorKind::InsufficientPrivilege, message),
                &create.on,
            ))
        }
    }
}

/// The key of a default index: the columns that are known to identify a row, or all of them.
#[must_use]
pub fn default_index_key(relation: &Item) -> Vec<IndexKey> {
    let columns = relation.columns().unwrap_or_default();
    let key = match &relation.kind {
        ItemKind::Table { key: Some(key), .. }
        | ItemKind::MaterializedView { key: Some(key), .. } => key.clone(),
        _ => (0..columns.len()).collect(),
    };
    let of = |position: usize| {
        columns.get(position).map(|column| IndexKey {
            expression: crate::ast::quote_ident(&column.name),
            column: Some(position),
        })
    };
    key.into_iter().filter_map(of).collect()
}

/// Plans `CREATE INDEX`, its key having been planned ([`default_index_key`] for a default index).
///
/// # Errors
/// As [`index_relation`]; [`ErrorKind::DuplicateTable`] if the name is taken; [`ErrorKind::UndefinedObject`] for a cluster that does not exist.
pub fn plan_create_index(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateIndex,
    key: Vec<IndexKey>,
) -> Result<DdlPlan, Error> {
    let tag = "CREATE INDEX";
    let cluster = target_cluster(catalog, ctx, create.in_cluster.as_ref())?;
    if let Some(option) = create.options.first() {
        return Err(
            Error::unsupported(format!("option {} is not supported", option.name))
                .at(option.position),
        );
    }
    let relation = index_relation(catalog, ctx, create)?;
    let name = match &create.name {
        Some(name) => {
            // An index lives in the schema of its relation.
            if catalog
                .items_named(relation.schema, &name.value)
                .next()
                .is_some()
            {
                let message = format!("relation \"{}\" already exists", name.value);
                if create.if_not_exists {
                    return Ok(DdlPlan::skip(tag, format!("{message}, skipping")));
                }
                return Err(Error::new(ErrorKind::DuplicateTable, message).at(name.position));
            }
            name.value.clone()
        }
        None => catalog.unused_index_name(relation, if create.default { None } else { Some(&key) }),
    };
    let kind = ItemKind::Index {
        on: relation.id,
        key,
    };
    let item = new_item(
        &mut Ids::new(catalog),
        relation.schema,
        &name,
        vec![relation.id],
        kind,
    );
    let mut plan = DdlPlan::new(tag);
    put_into(&mut plan, catalog, item, cluster);
    Ok(plan)
}
