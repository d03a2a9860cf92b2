//! What PostgreSQL's catalog says about the relations of a source.
//!
//! Called by the snapshot (what to copy, and whether it is still what was described) and by the polling of the publication.

use std::collections::HashMap;

use flowstone_proto::message::SourceTable;

use super::wire::{Connection, WireError, quote_literal};

/// A column as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
}

/// A relation as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelationInfo {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `pg_class.relkind`.
    pub(crate) kind: char,
    pub(crate) pages: u64,
    pub(crate) estimated_rows: Option<u64>,
    /// The publication's row filter, as SQL.
    pub(crate) row_filter: Option<String>,
    /// What holds it in the publication: OIDs of `pg_publication` and `pg_publication_rel` (0 if it is published with everything else).
    /// `None` if it is not in the publication.
    pub(crate) membership: Option<(u32, u32)>,
    /// By attribute number.
    pub(crate) attributes: HashMap<i16, Attribute>,
}

/// Reads the relations with these OIDs; those that do not exist are left out.
pub(crate) async fn relations(
    connection: &mut Connection,
    publication: &str,
    oids: &[u32],
) -> Result<HashMap<u32, RelationInfo>, WireError> {
    if oids.is_empty() {
        return Ok(HashMap::new());
    }
    let list = itertools::join(oids, ",");
    let publication = quote_literal(publication);
    let row_filter = if connection.server_version() >= 15 {
        "t.rowfilter"
    } else {
        "NULL::text"
    };
    // One statement, so that one moment: a table that is dropped between two would have lost its columns only.
    let sql = format!(
        "WITH relations AS (\
         SELECT c.oid, n.nspname, c.relname, c.relkind, pg_relation_size(c.oid) / current_setting('block_size')::int8, c.reltuples::int8, {row_filter}, \
         CASE WHEN t.tablename IS NOT NULL THEN p.oid END, coalesce(r.oid, 0) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_publication p ON p.pubname = {publication} \
         LEFT JOIN pg_publication_tables t ON t.pubname = {publication} AND t.schemaname = n.nspname AND t.tablename = c.relname \
         LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid \
         WHERE c.oid IN ({list})) \
         SELECT relations.*, a.attnum, a.attname, a.atttypid, a.atttypmod FROM relations \
         LEFT JOIN pg_attribute a ON a.attrelid = relations.oid AND a.attnum > 0 AND NOT a.attisdropped"
    );
    let mut relations = HashMap::new();
    for row in connection.ask(&sql).await? {
        let text = |index: usize| row.get(index).and_then(Option::as_deref);
        let Some(oid) = text(0).and_then(|text| text.parse::<u32>().ok()) else {
            continue;
        };
        let number = |index: usize| text(index).and_then(|text| text.parse::<u32>().ok());
        let relation = relations.entry(oid).or_insert_with(|| RelationInfo {
            schema: text(1).unwrap_or_default().to_owned(),
            name: text(2).unwrap_or_default().to_owned(),
            kind: text(3).and_then(|text| text.chars().next()).unwrap_or('?'),
            pages: text(4).and_then(|text| text.parse().ok()).unwrap_or(0),
            // -1: never analysed.
            estimated_rows: text(5).and_then(|text| text.parse().ok()),
            row_filter: text(6).map(str::to_owned),
            membership: number(7).zip(number(8)),
            attributes: HashMap::new(),
        });
        let Some(number) = text(9).and_then(|text| text.parse().ok()) else {
            continue;
        };
        let attribute = Attribute {
            name: text(10).unwrap_or_default().to_owned(),
            type_oid: text(11).and_then(|text| text.parse().ok()).unwrap_or(0),
            type_modifier: text(12).and_then(|text| text.parse().ok()).unwrap_or(-1),
        };
        relation.attributes.insert(number, attribute);
    }
    Ok(relations)
}

/// Whether every captured column is still there, under its name and with its type; else the table's permanent error.
pub(crate) fn check_columns(table: &SourceTable, info: &RelationInfo) -> Result<(), String> {
    for column in &table.columns {
        let Some(attribute) = info.attributes.get(&column.attribute) else {
            return Err(format!(
                "incompatible schema change: column \"{}\" was dropped",
                column.name
            ));
        };
        if attribute.name != column.name {
            return Err(format!(
                "incompatible schema change: column \"{}\" was renamed to \"{}\"",
                column.name, attribute.name
            ));
        }
        if (attribute.type_oid, attribute.type_modifier) != (column.type_oid, column.type_modifier)
        {
            return Err(format!(
                "incompatible schema change: type of column \"{}\" was changed",
                column.name
            ));
        }
    }
    Ok(())
}

/// The error of a table that is not there any more.
pub(crate) fn dropped(table: &SourceTable) -> String {
    format!(
        "table was dropped: \"{}.{}\" with OID {} does not exist any more",
        table.upstream_schema, table.upstream_name, table.upstream_oid
    )
}

/// The error of a table that is not published any more.
pub(crate) fn unpublished(table: &SourceTable, publication: &str) -> String {
    format!(
        "table \"{}.{}\" was removed from publication \"{publication}\"",
        table.upstream_schema, table.upstream_name
    )
}
