//! Primary keys: those that sources know of the tables they feed.
//!
//! Owns what a key is called and how it reads. A table is kept by its key, so there is an index of it, which PostgreSQL's catalog shows as the one
//! behind the constraint. Must not know rows of relations. Called by the relations that show constraints and indexes, and by planning.
//!
//! Invariants. The OID of a key follows from its table's and is neither an item's nor a system relation's. No two relations of a schema have one name.

use crate::catalog::{Catalog, Column, Item, ItemKind, Schema};

/// What is added to the OID of a table for its key's.
const KEY_OID: u32 = 1 << 30;

/// The primary key of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    catalog: &'a Catalog,
    /// Where the table is.
    pub(crate) schema: &'a Schema,
    /// The table.
    pub(crate) table: &'a Item,
    /// Positions of its columns in the table.
    pub(crate) positions: &'a [usize],
}

/// The primary keys of the catalog, in the order of their tables.
pub(crate) fn keys(catalog: &Catalog) -> impl Iterator<Item = Key<'_>> {
    catalog
        .items
        .values()
        .filter_map(|item| key_of(catalog, item))
}

/// The primary key of a table, if it is known to have one.
pub(crate) fn key_of<'a>(catalog: &'a Catalog, table: &'a Item) -> Option<Key<'a>> {
    let ItemKind::Table {
        key: Some(positions),
        source: Some(_),
        columns,
    } = &table.kind
    else {
        return None;
    };
    let complete = positions.iter().all(|position| {
        columns
            .get(*position)
            .is_some_and(|column| !column.nullable)
    });
    (complete && !positions.is_empty()).then_some(Key {
        catalog,
        schema: catalog.schemas.get(&table.schema)?,
        table,
        positions,
    })
}

impl<'a> Key<'a> {
    /// OID of the constraint and of its index.
    pub(crate) const fn oid(&self) -> u32 {
        KEY_OID | self.table.oid
    }

    /// Name of the constraint and of its index: PostgreSQL's, with a number if something else has it.
    pub(crate) fn name(&self) -> String {
        let base = format!("{}_pkey", self.table.name);
        let is_free = |name: &String| {
            let mut taken = self.catalog.items.named(self.table.schema, name);
            taken.next().is_none()
        };
        std::iter::once(base.clone())
            .chain((1_u32..).map(|number| format!("{base}{number}")))
            .find(is_free)
            .unwrap_or(base)
    }

    /// Its columns.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &'a Column> + use<'a> {
        let columns = self.table.columns().unwrap_or_default();
        self.positions
            .iter()
            .filter_map(|position| columns.get(*position))
    }

    fn column_list(&self) -> String {
        let names: Vec<String> = self
            .columns()
            .map(|column| crate::ast::quote_ident(&column.name))
            .collect();
        names.join(", ")
    }

    /// As `pg_get_constraintdef` has it.
    pub(crate) fn constraint_definition(&self) -> String {
        format!("PRIMARY KEY ({})", self.column_list())
    }

    /// As `pg_get_indexdef` has it.
    pub(crate) fn index_definition(&self) -> String {
        format!(
            "CREATE UNIQUE INDEX {} ON {}.{} USING arrangement ({})",
            crate::ast::quote_ident(&self.name()),
            crate::ast::quote_ident(&self.schema.name),
            crate::ast::quote_ident(&self.table.name),
            self.column_list()
        )
    }
}
