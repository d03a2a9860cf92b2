//! RENAME and SWAP: names change, and every stored text that says them.
//!
//! Texts of queries have full names in them; each is parsed, its names are replaced, and relations that had no alias get their old name as one, so that
//! qualified columns still mean the same. CREATE texts are made anew from the catalog.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, TableAlias, TableFactor, VisitMut, VisitorMut,
};

use super::{DdlPlan, at, cluster, create_sql, does_not_exist};
use crate::ast::{self, AlterRename, AlterSchemaSwap, Name, ObjectType, quote_ident};
use crate::catalog::names::missing;
use crate::catalog::{Catalog, CatalogChange, Cluster, Item, ItemKind, ResolveContext, Schema};
use crate::error::{Error, ErrorKind};

pub(super) fn rename(
    catalog: &Catalog,
    ctx: &ResolveContext,
    statement: &AlterRename,
) -> Result<DdlPlan, Error> {
    let tag = format!("ALTER {}", statement.object_type.keyword());
    let new = &statement.new_name.value;
    let taken = |kind: ErrorKind, what: &str| {
        Error::new(kind, format!("{what} \"{new}\" already exists")).at(statement.new_name.position)
    };
    let change = match statement.object_type {
        ObjectType::Database => match catalog.resolve_database(statement.name.item()) {
            Ok(database)
                if catalog
                    .databases
                    .values()
                    .any(|other| other.name == *new && other.id != database.id) =>
            {
                return Err(taken(ErrorKind::DuplicateDatabase, "database"));
            }
            Ok(database) => {
                let current = Error::unsupported("current database cannot be renamed");
                super::drop::refuse_needed(ctx, &statement.name, current, "rename")?;
                vec![CatalogChange::PutDatabase(crate::catalog::Database {
                    name: new.clone(),
                    ..database.clone()
                })]
            }
            Err(_) if statement.if_exists => {
                return Ok(DdlPlan::skip(
                    tag,
                    does_not_exist(ObjectType::Database, &statement.name),
                ));
            }
            Err(error) => return Err(at(error, &statement.name)),
        },
        ObjectType::Schema => match catalog.resolve_schema(ctx, &statement.name) {
            Ok(schema) => {
                refuse_system(schema, &statement.name)?;
                if catalog
                    .find_schema(schema.database, new)
                    .is_some_and(|other| other.id != schema.id)
                {
                    return Err(taken(ErrorKind::DuplicateSchema, "schema"));
                }
                vec![CatalogChange::PutSchema(Schema {
                    name: new.clone(),
                    ..schema.clone()
                })]
            }
            Err(_) if statement.if_exists => {
                return Ok(DdlPlan::skip(
                    tag,
                    does_not_exist(ObjectType::Schema, &statement.name),
                ));
            }
            Err(error) => return Err(error),
        },
        ObjectType::Cluster => {
            match cluster::find(catalog, &statement.name, statement.if_exists)? {
                Some(cluster) => {
                    cluster::check_new_name(catalog, cluster, &statement.new_name)?;
                    vec![CatalogChange::PutCluster(Cluster {
                        name: new.clone(),
                        ..cluster.clone()
                    })]
                }
                None => {
                    return Ok(DdlPlan::skip(
                        tag,
                        does_not_exist(ObjectType::Cluster, &statement.name),
                    ));
                }
            }
        }
        object_type => {
            let Some(item) = catalog.find_item(ctx, &statement.name, object_type)? else {
                if statement.if_exists {
                    return Ok(DdlPlan::skip(
                        tag,
                        does_not_exist(object_type, &statement.name),
                    ));
                }
                return Err(missing(object_type, &statement.name));
            };
            if catalog
                .items_named(item.schema, new)
                .any(|other| other.name != item.name)
            {
                return Err(taken(ErrorKind::DuplicateTable, "relation"));
            }
            // A source and its one table share their name.
            let both = catalog.items_named(item.schema, &item.name);
            both.map(|item| {
                CatalogChange::PutItem(Box::new(Item {
                    name: new.clone(),
                    ..item.clone()
                }))
            })
            .collect()
        }
    };
    finish(catalog, tag, change)
}

fn refuse_system(schema: &Schema, name: &Name) -> Result<(), Error> {
    if schema.database.is_some() {
        return Ok(());
    }
    Err(at(
        Error::new(
            ErrorKind::InsufficientPrivilege,
            format!("system schema \"{}\" cannot be modified", schema.name),
        ),
        name,
    ))
}

pub(super) fn swap(
    catalog: &Catalog,
    ctx: &ResolveContext,
    statement: &AlterSchemaSwap,
) -> Result<DdlPlan, Error> {
    let schema = catalog.resolve_schema(ctx, &statement.name)?;
    refuse_system(schema, &statement.name)?;
    let other = catalog
        .find_schema(schema.database, &statement.other.value)
        .filter(|other| other.database.is_some());
    let error = || {
        Error::new(
            ErrorKind::UnknownSchema,
            format!("schema \"{}\" does not exist", statement.other.value),
        )
        .at(statement.other.position)
    };
    let other = other.ok_or_else(error)?;
    let change = vec![
        CatalogChange::PutSchema(Schema {
            name: other.name.clone(),
            ..schema.clone()
        }),
        CatalogChange::PutSchema(Schema {
            name: schema.name.clone(),
            ..other.clone()
        }),
    ];
    finish(catalog, "ALTER SCHEMA", change)
}

/// `ALTER CLUSTER … SWAP WITH …`: what is in them stays there.
pub(super) fn swap_clusters(
    catalog: &Catalog,
    cluster: &Cluster,
    other: &ast::Ident,
) -> Result<DdlPlan, Error> {
    let other = catalog.resolve_cluster(other)?;
    let named = |cluster: &Cluster, name: &str| {
        CatalogChange::PutCluster(Cluster {
            name: name.to_owned(),
            ..cluster.clone()
        })
    };
    let change = vec![named(cluster, &other.name), named(other, &cluster.name)];
    finish(catalog, "ALTER CLUSTER", change)
}

/// The plan that makes `change` and puts every text right that says an old name.
fn finish(
    catalog: &Catalog,
    tag: impl Into<String>,
    change: Vec<CatalogChange>,
) -> Result<DdlPlan, Error> {
    let mut after = catalog.clone();
    after.apply(&change)?;
    let mut texts = Vec::new();
    for item in after.items.values() {
        let mut item = item.clone();
        if let ItemKind::View { query, .. } | ItemKind::MaterializedView { query, .. } =
            &mut item.kind
        {
            *query = requalify(catalog, &after, query)?;
        }
        item.create_sql = create_sql(&after, &item);
        if after.items.get(&item.id) != Some(&item) {
            texts.push(CatalogChange::PutItem(Box::new(item)));
        }
    }
    let mut plan = DdlPlan::new(tag);
    plan.changes = change;
    plan.changes.extend(texts);
    Ok(plan)
}

/// The text of a query whose names are those of `before`, with the names of `after`.
fn requalify(before: &Catalog, after: &Catalog, text: &str) -> Result<String, Error> {
    let mut query = crate::parse::parse_query(text)?;
    let mut renamer = Renamer {
        before,
        after,
        changed: false,
    };
    let _ = VisitMut::visit(&mut query, &mut renamer);
    Ok(if renamer.changed {
        crate::parse::query_text(&query)?
    } else {
        text.to_owned()
    })
}

struct Renamer<'a> {
    before: &'a Catalog,
    after: &'a Catalog,
    changed: bool,
}

impl Renamer<'_> {
    /// What the relation `database.schema.item` is called afterwards; `None` if as before, or if there is no such relation.
    fn new_name(&self, parts: &[String]) -> Option<Vec<String>> {
        let [database, schema, name] = parts else {
            return None;
        };
        let database = self.before.resolve_database(database).ok()?;
        let schema = self.before.find_schema(Some(database.id), schema)?;
        let item = self
            .before
            .items_named(schema.id, name)
            .find(|item| item.columns().is_some())?;
        let now = self.after.items.get(&item.id)?;
        let schema = self.after.schemas.get(&now.schema)?;
        let database = self.after.databases.get(&schema.database?)?;
        let new = vec![database.name.clone(), schema.name.clone(), now.name.clone()];
        (new != parts).then_some(new)
    }
}

/// The identifier as `sqlparser` writes it back.
fn ident(name: &str) -> Ident {
    if quote_ident(name) == name {
        Ident::new(name)
    } else {
        Ident::with_quote('"', name)
    }
}

impl VisitorMut for Renamer<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = factor
        {
            let parts = name
                .0
                .iter()
                .filter_map(ObjectNamePart::as_ident)
                .map(|part| match part.quote_style {
                    Some(_) => part.value.clone(),
                    None => part.value.to_ascii_lowercase(),
                });
            let parts: Vec<String> = parts.collect();
            if let Some(new) = self.new_name(&parts) {
                if alias.is_none() && new.last() != parts.last() {
                    let old = parts.last().map_or("", String::as_str);
                    *alias = Some(TableAlias {
                        explicit: true,
                        name: ident(old),
                        columns: Vec::new(),
                        at: None,
                    });
                }
                *name = ObjectName::from(new.iter().map(|part| ident(part)).collect::<Vec<_>>());
                self.changed = true;
            }
        }
        ControlFlow::Continue(())
    }
}
