//! What a PostgreSQL server says about itself and a publication: `VALIDATE CONNECTION` and `CREATE SOURCE`.
//!
//! Must not know running sources. Called by [`crate::ask`].

use flowstone_proto::message::{PostgresConnection, RequestError, UpstreamColumn, UpstreamTable};

use super::wire::{Connection, Purpose, ServerError, WireError, quote_literal};

fn upstream(message: impl Into<String>, sqlstate: &str, hint: Option<String>) -> RequestError {
    RequestError::Upstream {
        message: message.into(),
        sqlstate: Some(sqlstate.to_owned()),
        detail: None,
        hint,
    }
}

impl From<WireError> for RequestError {
    fn from(error: WireError) -> Self {
        let message = error.to_string();
        match error {
            WireError::Server(ServerError {
                code, detail, hint, ..
            }) => Self::Upstream {
                message,
                sqlstate: Some(code),
                detail,
                hint,
            },
            WireError::Connect { .. }
            | WireError::Io(_)
            | WireError::Timeout(_)
            | WireError::Tls(_) => Self::Upstream {
                message,
                sqlstate: Some("08001".to_owned()),
                detail: None,
                hint: None,
            },
            WireError::Protocol(_) => Self::Upstream {
                message,
                sqlstate: Some("08P01".to_owned()),
                detail: None,
                hint: None,
            },
        }
    }
}

/// Whether the server can be reached, lets the role replicate, and logs what capture needs.
pub(crate) async fn validate(connection: &PostgresConnection) -> Result<(), RequestError> {
    let opened = Connection::open(connection, Purpose::Replication).await?;
    check_wal_level(opened).await?.close().await;
    Ok(())
}

async fn check_wal_level(mut connection: Connection) -> Result<Connection, RequestError> {
    let rows = connection
        .ask("SELECT current_setting('wal_level')")
        .await?;
    let level = rows
        .into_iter()
        .flatten()
        .next()
        .flatten()
        .unwrap_or_default();
    if level != "logical" {
        let hint = "Set wal_level = logical on the server and restart it.".to_owned();
        return Err(upstream(
            format!("server must have wal_level >= logical, but has wal_level = {level}"),
            "55000",
            Some(hint),
        ));
    }
    Ok(connection)
}

/// The tables of a publication.
pub(crate) async fn publication(
    connection: &PostgresConnection,
    publication: &str,
) -> Result<Vec<UpstreamTable>, RequestError> {
    // A replication connection runs ordinary statements too, and proves that the role may replicate.
    let opened = Connection::open(connection, Purpose::Replication).await?;
    let mut opened = check_wal_level(opened).await?;
    let literal = quote_literal(publication);
    if opened
        .ask(&format!(
            "SELECT 1 FROM pg_publication WHERE pubname = {literal}"
        ))
        .await?
        .is_empty()
    {
        let hint = format!(
            "Create it on the server, for example with CREATE PUBLICATION {publication} FOR ALL TABLES."
        );
        return Err(upstream(
            format!("publication \"{publication}\" does not exist"),
            "42704",
            Some(hint),
        ));
    }
    let tables = read_tables(&mut opened, &literal).await?;
    if tables.is_empty() {
        let hint =
            format!("Add tables on the server with ALTER PUBLICATION {publication} ADD TABLE.");
        return Err(upstream(
            format!("publication \"{publication}\" is empty"),
            "42P01",
            Some(hint),
        ));
    }
    check_access(&mut opened, &tables).await?;
    opened.close().await;
    Ok(tables)
}

async fn read_tables(
    connection: &mut Connection,
    publication: &str,
) -> Result<Vec<UpstreamTable>, RequestError> {
    // From version 15 a publication may name the columns of a table.
    let published = if connection.server_version() >= 15 {
        "AND (t.attnames IS NULL OR a.attname = ANY (t.attnames))"
    } else {
        ""
    };
    let sql = format!(
        "SELECT n.nspname, c.relname, c.oid, c.relreplident, a.attname, a.attnum, a.atttypid, format_type(a.atttypid, a.atttypmod), a.atttypmod, \
         a.attnotnull, k.ord \
         FROM pg_publication_tables t \
         JOIN pg_namespace n ON n.nspname = t.schemaname \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' {published} \
         LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indimmediate AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END \
         LEFT JOIN LATERAL (SELECT u.ord FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS u (attnum, ord) \
           WHERE u.attnum = a.attnum AND u.ord <= i.indnkeyatts) k ON true \
         WHERE t.pubname = {publication} \
         ORDER BY n.nspname, c.relname, a.attnum"
    );
    let mut tables: Vec<(UpstreamTable, Vec<(u32, String)>)> = Vec::new();
    for row in connection.ask(&sql).await? {
        let text = |index: usize| {
            row.get(index)
                .and_then(Option::as_deref)
                .unwrap_or_default()
        };
        let oid: u32 = text(2).parse().unwrap_or(0);
        if tables.last().is_none_or(|(table, _)| table.oid != oid) {
            let table = UpstreamTable {
                schema: text(0).to_owned(),
                name: text(1).to_owned(),
                oid,
                replica_identity: text(3).chars().next().unwrap_or('d'),
                columns: Vec::new(),
                key: Vec::new(),
            };
            tables.push((table, Vec::new()));
        }
        let Some((table, key)) = tables.last_mut() else {
            continue;
        };
        if let Ok(order) = text(10).parse() {
            key.push((order, text(4).to_owned()));
        }
        table.columns.push(UpstreamColumn {
            name: text(4).to_owned(),
            attribute: text(5).parse().unwrap_or(0),
            type_oid: text(6).parse().unwrap_or(0),
            type_name: text(7).to_owned(),
            type_modifier: text(8).parse().unwrap_or(-1),
            not_null: text(9) == "t",
        });
    }
    Ok(tables
        .into_iter()
        .map(|(mut table, mut key)| {
            key.sort_unstable();
            table.key = key.into_iter().map(|(_, name)| name).collect();
            table
        })
        .collect())
}

/// Whether the role may read every table: the snapshot needs it, and row security would hide rows from it but not from the stream.
async fn check_access(
    connection: &mut Connection,
    tables: &[UpstreamTable],
) -> Result<(), RequestError> {
    let oids = itertools::join(tables.iter().map(|table| table.oid), ",");
    let sql = format!(
        "SELECT c.oid, has_schema_privilege(c.relnamespace, 'USAGE') \
           AND (has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT')), row_security_active(c.oid) \
         FROM pg_class c WHERE c.oid IN ({oids})"
    );
    let mut denied = Vec::new();
    let mut hidden = Vec::new();
    for row in connection.ask(&sql).await? {
        let text = |index: usize| {
            row.get(index)
                .and_then(Option::as_deref)
                .unwrap_or_default()
        };
        let oid: u32 = text(0).parse().unwrap_or(0);
        let Some(table) = tables.iter().find(|table| table.oid == oid) else {
            continue;
        };
        let name = format!("{}.{}", table.schema, table.name);
        if text(1) != "t" {
            denied.push(name.clone());
        }
        if text(2) == "t" {
            hidden.push(name);
        }
    }
    if !denied.is_empty() {
        denied.sort_unstable();
        let names = denied.join(", ");
        let hint = format!(
            "Grant USAGE on the schema and SELECT on the tables, for example with GRANT SELECT ON {names}."
        );
        return Err(upstream(
            format!("permission denied for tables of the publication: {names}"),
            "42501",
            Some(hint),
        ));
    }
    if !hidden.is_empty() {
        hidden.sort_unstable();
        let hint =
            "Row security hides rows from the role. Give it the BYPASSRLS attribute on the server."
                .to_owned();
        return Err(upstream(
            format!(
                "one or more tables requires BYPASSRLS: {}",
                hidden.join(", ")
            ),
            "42501",
            Some(hint),
        ));
    }
    Ok(())
}
