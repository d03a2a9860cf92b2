//! The CREATE statement of an item, made from the catalog: always with the names of now, never with a secret's value.

use crate::ast::quote_ident;
use crate::catalog::{
    Catalog, Column, Connection, Item, ItemKind, MessageTable, Sink, Source, TableSource,
};

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
        } => match catalog.message_tables.get(&item.id) {
            Some(messages) if !source.owned => {
                message_table(catalog, &name, item, source, messages)
            }
            _ => fed_table(catalog, &name, columns, source),
        },
        ItemKind::Source(source) => self::source(catalog, &name, &cluster, item, source),
        ItemKind::Sink(sink) => self::sink(catalog, &name, &cluster, sink),
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
    let reference = reference(source);
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

/// What a table is called upstream.
fn reference(source: &TableSource) -> String {
    let table = &source.table;
    let name = quote_ident(&table.upstream_name);
    // A topic is in no schema.
    if table.upstream_schema.is_empty() {
        name
    } else {
        format!("{}.{name}", quote_ident(&table.upstream_schema))
    }
}

/// What a table of messages declares before `FROM`, and what it says of messages.
fn said_of_messages(catalog: &Catalog, item: &Item, messages: &MessageTable) -> (String, String) {
    let columns = item.columns().unwrap_or_default();
    let columns: Vec<_> = columns
        .iter()
        .map(|column| (column.name.as_str(), &column.sql_type))
        .collect();
    let key = match &item.kind {
        ItemKind::Table { key, .. } => key.as_deref(),
        _ => None,
    };
    (
        messages.declaration(&columns, key),
        messages.definition(&|id| catalog.full_name(id), &columns),
    )
}

fn message_table(
    catalog: &Catalog,
    name: &str,
    item: &Item,
    source: &TableSource,
    messages: &MessageTable,
) -> String {
    let (declared, said) = said_of_messages(catalog, item, messages);
    format!(
        "CREATE TABLE {name}{declared} FROM SOURCE {} (REFERENCE = {}) {said}",
        catalog.full_name(source.source),
        reference(source)
    )
}

fn sink(catalog: &Catalog, name: &str, cluster: &str, sink: &Sink) -> String {
    let columns = catalog.items.get(&sink.from).and_then(Item::columns);
    let columns: Vec<&str> = columns
        .unwrap_or_default()
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let from = catalog.full_name(sink.from);
    let into = sink
        .kind
        .definition(&|id| catalog.full_name(id), &columns, &from);
    format!("CREATE SINK {name} IN CLUSTER {cluster} FROM {from} INTO {into}")
}

fn source(catalog: &Catalog, name: &str, cluster: &str, item: &Item, source: &Source) -> String {
    let own = catalog.own_messages(item.id);
    let (declared, said) = own
        .map(|(table, messages)| said_of_messages(catalog, table, messages))
        .map(|(declared, said)| (declared, format!(" {said}")))
        .unwrap_or_default();
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
    format!("CREATE SOURCE {name}{declared} IN CLUSTER {cluster} FROM {from}{said}{progress}")
}

fn connection(catalog: &Catalog, name: &str, connection: &Connection) -> String {
    let to = connection
        .connector()
        .definition(&|id| catalog.full_name(id));
    format!("CREATE CONNECTION {name} TO {to}")
}
