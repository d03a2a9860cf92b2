//! Names in the catalog: from what a statement says to what exists, and from what exists to its full name; and who depends on whom.
//!
//! Invariant. Two items of one schema have different names, but for a source that feeds just one relation: the table it feeds has the source's name.

use std::collections::BTreeSet;

use flowstone_types::ObjectId;

use super::{Catalog, Database, DatabaseId, Item, ItemKind, Schema, SchemaId};
use crate::ast::{Name, ObjectType, quote_ident};
use crate::error::{Error, ErrorKind};
use crate::ident::at;
use crate::system;

/// Schemas that are searched before the search path, unless it names them itself.
const IMPLICIT_SCHEMAS: [&str; 2] = ["mz_catalog", "pg_catalog"];

/// The schemas in which every statement looks for an unqualified name, in order.
pub fn search_order(search_path: &[String]) -> impl Iterator<Item = &str> {
    let named = |implicit: &&str| search_path.iter().any(|schema| schema == implicit);
    IMPLICIT_SCHEMAS
        .into_iter()
        .filter(move |implicit| !named(implicit))
        .chain(search_path.iter().map(String::as_str))
}

/// Refuses what no identifier may have in it: zero bytes and other control characters, some of which mark names that are ours inside of plans.
/// Tabs and ends of lines may stand in a name, as in PostgreSQL.
///
/// # Errors
/// [`ErrorKind::InvalidName`].
pub fn check_identifier(name: &str) -> Result<(), Error> {
    let refused = |letter: char| letter.is_ascii_control() && !matches!(letter, '\t' | '\n' | '\r');
    if !name.contains(refused) {
        return Ok(());
    }
    let shown: String = name.escape_debug().collect();
    Err(Error::new(
        ErrorKind::InvalidName,
        format!("invalid identifier \"{shown}\""),
    )
    .with_detail("An identifier cannot have control characters in it."))
}

/// Where unqualified names are looked up, and where things go of which nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolveContext {
    /// The session's database.
    pub database: String,
    /// Schemas in the order they are searched; ones that do not exist are passed over.
    pub search_path: Vec<String>,
    /// The session's cluster. It need not exist.
    pub cluster: String,
}

/// What the name of a relation stands for.
#[derive(Clone, Copy, Debug)]
pub enum Resolved<'a> {
    /// An item of the catalog.
    Item(&'a Item),
    /// A relation of the system catalog.
    System(&'static system::Relation),
}

impl Item {
    /// Whether the item can be named where an object of this type is asked for.
    #[must_use]
    pub fn is(&self, object_type: ObjectType) -> bool {
        match object_type {
            ObjectType::Table => {
                matches!(self.kind, ItemKind::Table { .. }) && !self.is_subsource()
            }
            ObjectType::View => matches!(self.kind, ItemKind::View { .. }),
            ObjectType::MaterializedView => matches!(self.kind, ItemKind::MaterializedView { .. }),
            ObjectType::Index => matches!(self.kind, ItemKind::Index { .. }),
            ObjectType::Source => {
                matches!(self.kind, ItemKind::Source(_) | ItemKind::Progress { .. })
                    || self.is_subsource()
            }
            ObjectType::Subsource => {
                matches!(self.kind, ItemKind::Progress { .. }) || self.is_subsource()
            }
            ObjectType::Secret => matches!(self.kind, ItemKind::Secret),
            ObjectType::Connection => matches!(self.kind, ItemKind::Connection(_)),
            ObjectType::Sink => matches!(self.kind, ItemKind::Sink(_)),
            ObjectType::Database | ObjectType::Schema | ObjectType::Cluster | ObjectType::Role => {
                false
            }
        }
    }

    /// Whether the item has its name among those of relations, as indexes and sources do.
    #[must_use]
    pub const fn is_relation(&self) -> bool {
        !matches!(self.kind, ItemKind::Secret | ItemKind::Connection(_))
    }

    /// Whether the item is a table that was made together with its source and goes with it.
    #[must_use]
    pub const fn is_subsource(&self) -> bool {
        matches!(&self.kind, ItemKind::Table { source: Some(source), .. } if source.owned)
    }

    /// What messages call the item: `materialized view`.
    #[must_use]
    pub fn noun(&self) -> &'static str {
        match self.type_name() {
            "materialized-view" => "materialized view",
            other => other,
        }
    }
}

impl Catalog {
    /// The database called `name`.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownDatabase`].
    pub fn resolve_database(&self, name: &str) -> Result<&Database, Error> {
        let found = self
            .databases
            .values()
            .find(|database| database.name == name);
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::UnknownDatabase,
                format!("database \"{name}\" does not exist"),
            )
        })
    }

    /// The schema `name` of a database, or the system schema of that name.
    #[must_use]
    pub fn find_schema(&self, database: Option<DatabaseId>, name: &str) -> Option<&Schema> {
        self.schemas.values().find(|schema| {
            schema.name == name && (schema.database.is_none() || schema.database == database)
        })
    }

    /// The schema that `schema` or `database.schema` stands for.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownSchema`], [`ErrorKind::UnknownDatabase`], at the name.
    pub fn resolve_schema(&self, ctx: &ResolveContext, name: &Name) -> Result<&Schema, Error> {
        let qualifier = name
            .parts
            .len()
            .checked_sub(2)
            .and_then(|index| name.parts.get(index));
        let database = match qualifier {
            Some(database) => Some(
                self.resolve_database(&database.value)
                    .map_err(|error| at(error, name))?
                    .id,
            ),
            None => self
                .resolve_database(&ctx.database)
                .ok()
                .map(|database| database.id),
        };
        let found = self
            .find_schema(database, name.item())
            .filter(|schema| qualifier.is_none() || schema.database.is_some());
        found.ok_or_else(|| {
            at(
                Error::new(
                    ErrorKind::UnknownSchema,
                    format!("schema \"{name}\" does not exist"),
                ),
                name,
            )
        })
    }

    /// The schemas in which `name` is looked up, in order: the one it is qualified with, or those of [`search_order`].
    fn candidate_schemas(&self, ctx: &ResolveContext, name: &Name) -> Result<Vec<&Schema>, Error> {
        if let Some((_, qualifier)) = name.parts.split_last()
            && !qualifier.is_empty()
        {
            return self
                .resolve_schema(
                    ctx,
                    &Name {
                        parts: qualifier.to_vec(),
                    },
                )
                .map(|schema| vec![schema]);
        }
        let database = self
            .resolve_database(&ctx.database)
            .ok()
            .map(|database| database.id);
        Ok(search_order(&ctx.search_path)
            .filter_map(|schema| self.find_schema(database, schema))
            .collect())
    }

    /// The items of a schema called `name`: none, one, or a source and the table it feeds.
    pub fn items_named<'a, 'n>(
        &'a self,
        schema: SchemaId,
        name: &'n str,
    ) -> impl Iterator<Item = &'a Item> + use<'a, 'n> {
        self.items.named(schema, name)
    }

    /// The relation that a name stands for: a table, view, materialized view or progress relation, or a relation of the system.
    ///
    /// # Errors
    /// [`ErrorKind::UndefinedTable`]; [`ErrorKind::WrongObjectType`] for an item without columns; as [`Catalog::resolve_schema`].
    pub fn resolve_relation(
        &self,
        ctx: &ResolveContext,
        name: &Name,
    ) -> Result<Resolved<'_>, Error> {
        let mut other = None;
        for schema in self.candidate_schemas(ctx, name)? {
            if schema.database.is_none() {
                if let Some(found) = system::relation(&schema.name, name.item()) {
                    return Ok(Resolved::System(found));
                }
                continue;
            }
            for item in self.items_named(schema.id, name.item()) {
                if item.columns().is_some() {
                    return Ok(Resolved::Item(item));
                }
                other = other.or(Some(item));
            }
            // What has the name first is what is meant, be it the right thing or not.
            if other.is_some_and(Item::is_relation) {
                break;
            }
        }
        Err(at(
            match other {
                Some(item) => Error::new(
                    ErrorKind::WrongObjectType,
                    format!("\"{name}\" is a {}, not a relation", item.noun()),
                ),
                None => Error::new(
                    ErrorKind::UndefinedTable,
                    format!("relation \"{name}\" does not exist"),
                ),
            },
            name,
        ))
    }

    /// The item of a type that a name stands for; `None` if nothing of that name exists.
    ///
    /// # Errors
    /// [`ErrorKind::WrongObjectType`] for an item of another type; [`ErrorKind::InsufficientPrivilege`] for a relation of the system.
    pub fn find_item(
        &self,
        ctx: &ResolveContext,
        name: &Name,
        object_type: ObjectType,
    ) -> Result<Option<&Item>, Error> {
        let schemas = match self.candidate_schemas(ctx, name) {
            Ok(schemas) => schemas,
            Err(error)
                if matches!(
                    error.kind,
                    ErrorKind::UnknownSchema | ErrorKind::UnknownDatabase
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // Secrets and connections have names of their own; all else shares its names with the relations of the system.
        let of_relations = !matches!(object_type, ObjectType::Secret | ObjectType::Connection);
        let mut other = None;
        for schema in schemas {
            if schema.database.is_none() {
                if (name.parts.len() > 1 || of_relations)
                    && system::relation(&schema.name, name.item()).is_some()
                {
                    let message = format!("permission denied: \"{name}\" is a system catalog");
                    return Err(at(
                        Error::new(ErrorKind::InsufficientPrivilege, message),
                        name,
                    ));
                }
                continue;
            }
            // Of a source and its one table, a statement about sources means the source.
            let mut named: Vec<&Item> = self.items_named(schema.id, name.item()).collect();
            named.sort_by_key(|item| !matches!(item.kind, ItemKind::Source(_)));
            if let Some(item) = named.iter().find(|item| item.is(object_type)) {
                return Ok(Some(item));
            }
            other = other.or(named.first().copied());
            // As in SELECT, what has the name first is what is meant, be it the right thing or not.
            if of_relations && named.iter().any(|item| item.is_relation()) {
                break;
            }
        }
        let Some(item) = other else { return Ok(None) };
        let article = if object_type == ObjectType::Index {
            "an"
        } else {
            "a"
        };
        let error = Error::new(
            ErrorKind::WrongObjectType,
            format!("\"{}\" is not {article} {}", item.name, object_type.noun()),
        );
        let actual = item.noun();
        Err(at(
            error.with_hint(format!(
                "It is a {actual}: use the statement for a {actual}, such as DROP {}.",
                actual.to_ascii_uppercase()
            )),
            name,
        ))
    }

    /// As [`Catalog::find_item`], but the item must exist.
    ///
    /// # Errors
    /// Also [`ErrorKind::UndefinedTable`] for relations and [`ErrorKind::UndefinedObject`] for everything else, at the name.
    pub fn resolve_item(
        &self,
        ctx: &ResolveContext,
        name: &Name,
        object_type: ObjectType,
    ) -> Result<&Item, Error> {
        self.find_item(ctx, name, object_type)?
            .ok_or_else(|| missing(object_type, name))
    }

    /// Where an item that is to be created goes: the schema it is qualified with, or the first of the search path that exists.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownSchema`], [`ErrorKind::UnknownDatabase`]; [`ErrorKind::InsufficientPrivilege`] for a system schema.
    pub fn target_schema(&self, ctx: &ResolveContext, name: &Name) -> Result<&Schema, Error> {
        let schema = match name.parts.split_last() {
            Some((_, qualifier)) if !qualifier.is_empty() => self.resolve_schema(
                ctx,
                &Name {
                    parts: qualifier.to_vec(),
                },
            )?,
            _ => {
                let database = self
                    .resolve_database(&ctx.database)
                    .map_err(|error| at(error, name))?
                    .id;
                let found = ctx.search_path.iter().find_map(|schema| {
                    self.find_schema(Some(database), schema)
                        .filter(|schema| schema.database.is_some())
                });
                found.ok_or_else(|| {
                    at(
                        Error::new(
                            ErrorKind::UnknownSchema,
                            "no schema has been selected to create in",
                        ),
                        name,
                    )
                })?
            }
        };
        if schema.database.is_none() {
            let message = format!("permission denied for schema {}", schema.name);
            return Err(at(
                Error::new(ErrorKind::InsufficientPrivilege, message),
                name,
            ));
        }
        Ok(schema)
    }

    /// The full name of a schema as SQL: `database.schema`, or just the name of a system schema.
    #[must_use]
    pub fn full_schema_name(&self, id: SchemaId) -> String {
        let Some(schema) = self.schemas.get(&id) else {
            return String::new();
        };
        match schema.database.and_then(|id| self.databases.get(&id)) {
            Some(database) => format!(
                "{}.{}",
                quote_ident(&database.name),
                quote_ident(&schema.name)
            ),
            None => quote_ident(&schema.name),
        }
    }

    /// The full name of an item or of a system relation as SQL: `database.schema.item`. Empty if there is no such thing.
    #[must_use]
    pub fn full_name(&self, id: ObjectId) -> String {
        match self.items.get(&id) {
            Some(item) => format!(
                "{}.{}",
                self.full_schema_name(item.schema),
                quote_ident(&item.name)
            ),
            None => system::relation_by_id(id).map_or_else(String::new, |relation| {
                format!("{}.{}", relation.schema, relation.name)
            }),
        }
    }

    /// The items that depend on `id` themselves, in the order of their ids.
    pub fn direct_dependents(&self, id: ObjectId) -> impl Iterator<Item = &Item> {
        self.items
            .values()
            .filter(move |item| item.depends_on.contains(&id))
    }

    /// All items that depend on one of `ids`, directly or not, and `ids` themselves: dependents before what they depend on.
    #[must_use]
    pub fn with_dependents(&self, ids: &[ObjectId]) -> Vec<ObjectId> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for id in ids {
            self.visit_dependents(*id, &mut seen, &mut order);
        }
        order
    }

    fn visit_dependents(
        &self,
        id: ObjectId,
        seen: &mut BTreeSet<ObjectId>,
        order: &mut Vec<ObjectId>,
    ) {
        if !seen.insert(id) {
            return;
        }
        for dependent in self.direct_dependents(id) {
            self.visit_dependents(dependent.id, seen, order);
        }
        order.push(id);
    }

    /// All items that depend on `id`, directly or not: dependents before what they depend on.
    #[must_use]
    pub fn dependents(&self, id: ObjectId) -> Vec<ObjectId> {
        let mut all = self.with_dependents(&[id]);
        all.retain(|found| *found != id);
        all
    }

    /// What goes with an item without being asked for: its indexes, and of a source its progress relation and subsources.
    pub fn owned_by(&self, id: ObjectId) -> impl Iterator<Item = &Item> {
        self.items.values().filter(move |item| match &item.kind {
            ItemKind::Index { on, .. } => *on == id,
            ItemKind::Progress { source, .. } => *source == id,
            ItemKind::Table {
                source: Some(source),
                ..
            } => source.owned && source.source == id,
            _ => false,
        })
    }

    /// `base`, or `base` with the first number after it that makes the name free in the schema.
    #[must_use]
    pub fn unused_name(&self, schema: SchemaId, base: &str) -> String {
        let free = |name: &str| self.items_named(schema, name).next().is_none();
        if free(base) {
            return base.to_owned();
        }
        (1_u64..)
            .map(|number| format!("{base}{number}"))
            .find(|name| free(name))
            .unwrap_or_else(|| base.to_owned())
    }

    /// A free name for an index without one: `<relation>_<column>_<column>_idx`, then `_idx1` and so on; `None` for the keys stands for the default index.
    #[must_use]
    pub fn unused_index_name(&self, relation: &Item, keys: Option<&[super::IndexKey]>) -> String {
        let columns = relation.columns().unwrap_or_default();
        let base = match keys {
            None => format!("{}_primary_idx", relation.name),
            Some(keys) => {
                let parts = keys.iter().map(|key| {
                    key.column
                        .and_then(|column| columns.get(column))
                        .map_or("expr", |column| column.name.as_str())
                });
                format!(
                    "{}_{}_idx",
                    relation.name,
                    parts.collect::<Vec<_>>().join("_")
                )
            }
        };
        self.unused_name(relation.schema, &base)
    }
}

/// The error for an object that does not exist.
#[must_use]
pub fn missing(object_type: ObjectType, name: &Name) -> Error {
    let kind = match object_type {
        ObjectType::Database => ErrorKind::UnknownDatabase,
        ObjectType::Schema => ErrorKind::UnknownSchema,
        ObjectType::Table | ObjectType::View | ObjectType::MaterializedView => {
            ErrorKind::UndefinedTable
        }
        _ => ErrorKind::UndefinedObject,
    };
    at(
        Error::new(
            kind,
            format!("{} \"{name}\" does not exist", object_type.noun()),
        ),
        name,
    )
}
