//! The CREATE statement of an item, made from the catalog: always with the names of now, never with a secret's value.

use crate::ast::quote_ident;
use crate::catalog::{Catalog, Column, Connection, Item, ItemKind, Source, TableSource};

/// The CREATE statement of an item, with full names and without a semicolon.
#[must_use]
pub fn create_sql(catalog: &Catalog, item: &Item) -> String {
    create_sql_in(
        catalog,
        item,
        catalog.cluster_name(catalog.cluster_of(item.id)),
    )
}

/// The same for an item that is to be in a cluster, and not in the catalog yet.
pub(super) fn create_sql_in(catalog: &Catalog, item: &Item, cluster: &str) -> String {
    let cluster = quote_ident(cluster);
    let name = format!(
        "{}.{}",
        catalog.full_schema_name(item.schema),
        quote_ident(&item.name)
    );
    match &item.kind {
        ItemKind::Table {
            columns,
            source: None,
            ..
        } => format!("CREATE TABLE {name} ({})", definitions(columns)),
        ItemKind::Table {
            columns,
            source: Some(source),
            ..
        } => fed_table(catalog, &name, columns, source),
        ItemKind::Source(source) => self::source(catalog, &name, &cluster, source),
        ItemKind::Progress { columns, source } => {
            format!(
                "CREATE SUBSOURCE {name} ({}) OF SOURCE {} WITH (PROGRESS)",
                definitions(columns),
                catalog.full_name(*source)
            )
        }
        ItemKind::View { columns, query } => {
            format!("CREATE VIEW {name} ({}) AS {query}", names(columns))
        }
        ItemKind::MaterializedView { columns, query, .. } => {
            format!(
                "CREATE MATERIALIZED VIEW {name} ({}) IN CLUSTER {cluster} AS {query}",
                names(columns)
            )
        }
        ItemKind::Index { on, key } => {
            let columns = catalog
                .items
                .get(on)
                .and_then(Item::columns)
                .unwrap_or_default();
            let keys =
                key.iter().map(
                    |key| match key.column.and_then(|column| columns.get(column)) {
                        Some(column) => quote_ident(&column.name),
                        None => key.expression.clone(),
                    },
                );
            let keys = keys.collect::<Vec<_>>().join(", ");
            format!(
                "CREATE INDEX {} IN CLUSTER {cluster} ON {} ({keys})",
                quote_ident(&item.name),
                catalog.full_name(*on)
            )
        }
        ItemKind::Secret => format!("CREATE SECRET {name} AS '********'"),
        ItemKind::Connection(connection) => self::connection(catalog, &name, connection),
    }
}

fn names(columns: &[Column]) -> String {
    columns
        .iter()
        .map(|column| quote_ident(&column.name))
        .collect::<Vec<_>>()
        .join(", ")
}

fn definitions(columns: &[Column]) -> String {
    let definition = |column: &Column| {
        let not_null = if column.nullable { "" } else { " NOT NULL" };
        let default = column
            .default
            .as_ref()
            .map(|default| format!(" DEFAULT {default}"))
            .unwrap_or_default();
        format!(
            "{} {}{not_null}{default}",
            quote_ident(&column.name),
            column.sql_type
        )
    };
    columns
        .iter()
        .map(definition)
        .collect::<Vec<_>>()
        .join(", ")
}

fn fed_table(catalog: &Catalog, name: &str, columns: &[Column], source: &TableSource) -> String {
    let table = &source.table;
    let reference = format!(
        "{}.{}",
        quote_ident(&table.upstream_schema),
        quote_ident(&table.upstream_name)
    );
    let as_text: Vec<String> = table
        .columns
        .iter()
        .filter(|column| column.as_text)
        .map(|column| quote_ident(&column.name))
        .collect();
    let text = if as_text.is_empty() {
        String::new()
    } else {
        format!("TEXT COLUMNS = ({})", as_text.join(", "))
    };
    let of = catalog.full_name(source.source);
    if source.owned {
        let text = if text.is_empty() {
            text
        } else {
            format!(", {text}")
        };
        return format!(
            "CREATE SUBSOURCE {name} ({}) OF SOURCE {of} WITH (EXTERNAL REFERENCE = {reference}{text})",
            definitions(columns)
        );
    }
    let text = if text.is_empty() {
        text
    } else {
        format!(" WITH ({text})")
    };
    format!("CREATE TABLE {name} FROM SOURCE {of} (REFERENCE = {reference}){text}")
}

fn source(catalog: &Catalog, name: &str, cluster: &str, source: &Source) -> String {
    let from = source
        .kind
        .connector()
        .definition(&|id| catalog.full_name(id));
    let progress = source
        .progress
        .map(|id| catalog.full_name(id))
        .filter(|name| !name.is_empty());
    let progress = progress
        .map(|name| format!(" EXPOSE PROGRESS AS {name}"))
        .unwrap_or_default();
    format!("CREATE SOURCE {name} IN CLUSTER {cluster} FROM {from}{progress}")
}

fn connection(catalog: &Catalog, name: &str, connection: &Connection) -> String {
    let to = connection
        .connector()
        .definition(&|id| catalog.full_name(id));
    format!("CREATE CONNECTION {name} TO {to}")
}
