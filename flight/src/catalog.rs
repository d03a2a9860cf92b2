//! The metadata commands: catalogs, schemas, tables, keys.
//!
//! Owns the translation of the system catalog to what Flight SQL asks for. A catalog is a database. Must not know where the system relations get their rows:
//! they are queried like any other.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowstone_coordinator::{Outcome, Session};
use flowstone_types::SqlType;
use futures::TryStreamExt;

use crate::Error;
use crate::wire::column_field;

/// The kinds of relations, as `table_type` has them.
const TABLE_TYPES: [&str; 5] = [
    "MATERIALIZED VIEW",
    "SOURCE",
    "SYSTEM VIEW",
    "TABLE",
    "VIEW",
];

/// The columns of the answer about primary keys.
pub(crate) static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
});

/// The columns of the answers about foreign keys.
pub(crate) static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

/// The databases.
pub(crate) async fn catalogs(session: &mut Session) -> Result<RecordBatch, Error> {
    let mut builder = CommandGetCatalogs {}.into_builder();
    for [name] in texts(session, "SELECT name FROM mz_catalog.mz_databases").await? {
        builder.append(name.unwrap_or_default());
    }
    built(builder.build())
}

/// The schemas. Those of the system are in every database; they are listed in the session's.
pub(crate) async fn schemas(
    session: &mut Session,
    command: CommandGetDbSchemas,
) -> Result<RecordBatch, Error> {
    let mut builder = command.into_builder();
    let sql = "SELECT coalesce(d.name, current_database()), s.name FROM mz_catalog.mz_schemas s \
               LEFT JOIN mz_catalog.mz_databases d ON d.id = s.database_id";
    for [catalog, schema] in texts(session, sql).await? {
        builder.append(catalog.unwrap_or_default(), schema.unwrap_or_default());
    }
    built(builder.build())
}

/// The relations that can be queried.
pub(crate) async fn tables(
    session: &mut Session,
    command: CommandGetTables,
) -> Result<RecordBatch, Error> {
    let columns = columns(session).await?;
    let mut builder = command.into_builder();
    let sql = "SELECT coalesce(d.name, current_database()), s.name, r.name, r.type, r.id, CASE WHEN s.database_id IS NULL THEN 's' END \
               FROM mz_catalog.mz_relations r JOIN mz_catalog.mz_schemas s ON s.id = r.schema_id \
               LEFT JOIN mz_catalog.mz_databases d ON d.id = s.database_id";
    for [catalog, schema, name, kind, id, system] in texts(session, sql).await? {
        // A source without columns of its own cannot be queried.
        let Some(fields) = columns.get(&id.unwrap_or_default()) else {
            continue;
        };
        let kind = table_type(kind.as_deref().unwrap_or_default(), system.is_some());
        builder
            .append(
                catalog.unwrap_or_default(),
                schema.unwrap_or_default(),
                name.unwrap_or_default(),
                kind,
                &Schema::new(fields.clone()),
            )
            .map_err(|error| Error::Internal(error.to_string()))?;
    }
    built(builder.build())
}

/// The kinds of relations.
pub(crate) fn table_types() -> Result<RecordBatch, Error> {
    let mut builder = CommandGetTableTypes {}.into_builder();
    for kind in TABLE_TYPES {
        builder.append(kind);
    }
    built(builder.build())
}

fn table_type(kind: &str, system: bool) -> &'static str {
    match kind {
        _ if system => "SYSTEM VIEW",
        "view" => "VIEW",
        "materialized-view" => "MATERIALIZED VIEW",
        "source" => "SOURCE",
        _ => "TABLE",
    }
}

/// The columns of all relations, by the relation's id.
async fn columns(session: &mut Session) -> Result<BTreeMap<String, Vec<Field>>, Error> {
    let sql =
        "SELECT id, name, type, nullable::text FROM mz_catalog.mz_columns ORDER BY id, position";
    let mut columns: BTreeMap<String, Vec<Field>> = BTreeMap::new();
    for [id, name, type_name, nullable] in texts(session, sql).await? {
        let type_name = type_name.unwrap_or_default();
        let sql_type: SqlType = type_name
            .parse()
            .map_err(|_| Error::Internal(format!("a column has the type {type_name}")))?;
        let nullable = nullable.as_deref() != Some("false");
        let field = column_field(&name.unwrap_or_default(), &sql_type, nullable);
        columns
            .entry(id.unwrap_or_default())
            .or_default()
            .push(field);
    }
    Ok(columns)
}

/// The rows of a query over the system catalog whose columns are text. They fit in memory: so does the catalog.
async fn texts<const COLUMNS: usize>(
    session: &mut Session,
    sql: &str,
) -> Result<Vec<[Option<String>; COLUMNS]>, Error> {
    let statement = session.parse(sql).await?.pop();
    let statement = statement.ok_or_else(|| Error::Internal("an empty statement".to_owned()))?;
    let Outcome::Rows { rows, .. } = session.execute(&statement, &[]).await? else {
        return Err(Error::Internal("a query gave no rows".to_owned()));
    };
    let batches: Vec<RecordBatch> = rows.try_collect().await?;
    let mut found = Vec::new();
    for batch in &batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .filter_map(|column| column.as_string_opt::<i32>())
            .collect();
        for row in 0..batch.num_rows() {
            let cell = |index: usize| {
                let column = columns.get(index)?;
                column.is_valid(row).then(|| column.value(row).to_owned())
            };
            found.push(std::array::from_fn(cell));
        }
    }
    Ok(found)
}

fn built(batch: arrow_flight::error::Result<RecordBatch>) -> Result<RecordBatch, Error> {
    batch.map_err(|error| Error::Internal(error.to_string()))
}
