//! The rows of `mz_catalog` and `mz_internal`: about every database, as ids tell things apart.

use std::collections::BTreeSet;

use flowstone_proto::message::{CollectionStatistics, SourceStatistics, SourceStatus};
use flowstone_types::{Epoch, ObjectId, SourcePosition, SqlType};

use super::cluster_rows::{self, cluster_of, replica_of};
use super::information_rows::internal_name;
use super::overview::PartitionState;
use super::pg_rows::TYPES;
use super::rows::{Rows, Value};
use super::{DEFAULT_ROLE_ID, StatusState, SystemContext};
use crate::catalog::{Catalog, Item, ItemKind, Schema};
use crate::connector::{MessageTable, SystemColumns, SystemValue};

pub(super) fn empty(_: &SystemContext<'_>, _: &mut Rows) {}

/// The id of a schema as text: `u` for those in databases, `s` for the system's.
fn schema_id(schema: &Schema) -> Value {
    Value::Text(format!(
        "{}{}",
        if schema.database.is_some() { "u" } else { "s" },
        schema.id.0
    ))
}

fn schema_of(ctx: &SystemContext<'_>, item: &Item) -> Value {
    ctx.catalog
        .schemas
        .get(&item.schema)
        .map_or(Value::Null, schema_id)
}

fn items<'a>(ctx: &SystemContext<'a>) -> impl Iterator<Item = &'a Item> + use<'a> {
    let catalog: &'a Catalog = ctx.catalog;
    catalog.items.values()
}

pub(super) fn databases(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for database in ctx.catalog.databases.values() {
        rows.push([
            ("id", format!("u{}", database.id.0).into()),
            ("oid", database.oid.into()),
            ("name", (&database.name).into()),
            ("owner_id", DEFAULT_ROLE_ID.into()),
        ]);
    }
}

pub(super) fn schemas(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for schema in ctx.catalog.schemas.values() {
        rows.push([
            ("id", schema_id(schema)),
            ("oid", schema.oid.into()),
            (
                "database_id",
                schema
                    .database
                    .map(|database| format!("u{}", database.0))
                    .into(),
            ),
            ("name", (&schema.name).into()),
            ("owner_id", DEFAULT_ROLE_ID.into()),
        ]);
    }
}

pub(super) fn tables(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        if let ItemKind::Table { source, .. } = &item.kind
            && item.type_name() == "table"
        {
            rows.push([
                ("id", item.id.into()),
                ("oid", item.oid.into()),
                ("schema_id", schema_of(ctx, item)),
                ("name", (&item.name).into()),
                ("owner_id", DEFAULT_ROLE_ID.into()),
                ("create_sql", (&item.create_sql).into()),
                ("redacted_create_sql", (&item.create_sql).into()),
                (
                    "source_id",
                    source.as_ref().map(|source| source.source).into(),
                ),
            ]);
        }
    }
}

pub(super) fn views(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        if let ItemKind::View { query, .. } = &item.kind {
            rows.push([
                ("id", item.id.into()),
                ("oid", item.oid.into()),
                ("schema_id", schema_of(ctx, item)),
                ("name", (&item.name).into()),
                ("definition", format!("{query};").into()),
                ("owner_id", DEFAULT_ROLE_ID.into()),
                ("create_sql", (&item.create_sql).into()),
                ("redacted_create_sql", (&item.create_sql).into()),
            ]);
        }
    }
}

pub(super) fn materialized_views(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        if let ItemKind::MaterializedView { query, .. } = &item.kind {
            rows.push([
                ("id", item.id.into()),
                ("oid", item.oid.into()),
                ("schema_id", schema_of(ctx, item)),
                ("name", (&item.name).into()),
                ("cluster_id", cluster_of(ctx, item).into()),
                ("definition", format!("{query};").into()),
                ("owner_id", DEFAULT_ROLE_ID.into()),
                ("create_sql", (&item.create_sql).into()),
                ("redacted_create_sql", (&item.create_sql).into()),
            ]);
        }
    }
}

pub(super) fn indexes(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        if let ItemKind::Index { on, .. } = &item.kind {
            rows.push([
                ("id", item.id.into()),
                ("oid", item.oid.into()),
                ("name", (&item.name).into()),
                ("on_id", (*on).into()),
                ("cluster_id", cluster_of(ctx, item).into()),
                ("owner_id", DEFAULT_ROLE_ID.into()),
                ("create_sql", (&item.create_sql).into()),
                ("redacted_create_sql", (&item.create_sql).into()),
            ]);
        }
    }
}

pub(super) fn index_columns(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let ItemKind::Index { on, key } = &item.kind else {
            continue;
        };
        let columns = ctx
            .catalog
            .items
            .get(on)
            .and_then(Item::columns)
            .unwrap_or_default();
        for (position, key) in key.iter().enumerate() {
            let column = key.column.and_then(|column| columns.get(column));
            rows.push([
                ("index_id", item.id.into()),
                ("index_position", (position + 1).into()),
                ("on_position", key.column.map(|column| column + 1).into()),
                (
                    "on_expression",
                    if key.column.is_some() {
                        Value::Null
                    } else {
                        (&key.expression).into()
                    },
                ),
                (
                    "nullable",
                    column.is_none_or(|column| column.nullable).into(),
                ),
            ]);
        }
    }
}

pub(super) fn columns(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        for (position, column) in item.columns().unwrap_or_default().iter().enumerate() {
            rows.push([
                ("id", item.id.into()),
                ("name", (&column.name).into()),
                ("position", (position + 1).into()),
                ("nullable", column.nullable.into()),
                ("type", column.sql_type.to_string().into()),
                ("default", column.default.clone().into()),
                ("type_oid", column.sql_type.oid().into()),
                ("type_mod", column.sql_type.type_modifier().into()),
            ]);
        }
    }
    for relation in super::relations() {
        for (position, column) in relation.columns.iter().enumerate() {
            let sql_type = column.sql_type();
            rows.push([
                ("id", relation.id.into()),
                ("name", column.name.into()),
                ("position", (position + 1).into()),
                ("nullable", column.nullable.into()),
                ("type", sql_type.to_string().into()),
                ("type_oid", sql_type.oid().into()),
                ("type_mod", sql_type.type_modifier().into()),
            ]);
        }
    }
}

/// The id of a built-in type.
fn type_id(sql_type: &SqlType) -> Value {
    ObjectId::System(u64::from(sql_type.oid())).into()
}

pub(super) fn types(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (sql_type, _, category) in TYPES {
        for this in [sql_type.clone(), SqlType::Array(Box::new(sql_type.clone()))] {
            let category = match (&this, *category) {
                (SqlType::Array(_), _) => "array",
                (_, "B") => "boolean",
                (_, "N") => "numeric",
                (_, "S") => "string",
                (_, "D") => "date-time",
                (_, "T") => "timespan",
                _ => "user-defined",
            };
            let schema = ctx.system_schema(if this.oid() >= 16_000 {
                "mz_catalog"
            } else {
                "pg_catalog"
            });
            rows.push([
                ("id", type_id(&this)),
                ("oid", this.oid().into()),
                ("schema_id", schema.map_or(Value::Null, schema_id)),
                ("name", internal_name(&this).into()),
                ("category", category.into()),
                ("owner_id", DEFAULT_ROLE_ID.into()),
            ]);
        }
    }
}

pub(super) fn array_types(_: &SystemContext<'_>, rows: &mut Rows) {
    for (sql_type, _, _) in TYPES {
        rows.push([
            ("id", type_id(&SqlType::Array(Box::new(sql_type.clone())))),
            ("element_id", type_id(sql_type)),
        ]);
    }
}

pub(super) fn base_types(_: &SystemContext<'_>, rows: &mut Rows) {
    for (sql_type, _, _) in TYPES {
        rows.push([("id", type_id(sql_type))]);
    }
}

pub(super) fn secrets(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx).filter(|item| matches!(item.kind, ItemKind::Secret)) {
        rows.push([
            ("id", item.id.into()),
            ("oid", item.oid.into()),
            ("schema_id", schema_of(ctx, item)),
            ("name", (&item.name).into()),
            ("owner_id", DEFAULT_ROLE_ID.into()),
        ]);
    }
}

pub(super) fn connections(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let ItemKind::Connection(connection) = &item.kind else {
            continue;
        };
        rows.push([
            ("id", item.id.into()),
            ("oid", item.oid.into()),
            ("schema_id", schema_of(ctx, item)),
            ("name", (&item.name).into()),
            ("type", connection.connector().type_name().into()),
            ("owner_id", DEFAULT_ROLE_ID.into()),
            ("create_sql", (&item.create_sql).into()),
            ("redacted_create_sql", (&item.create_sql).into()),
        ]);
    }
}

/// What a connector says of one row.
fn texts(columns: SystemColumns) -> impl Iterator<Item = (&'static str, Value)> {
    columns
        .into_iter()
        .map(|(column, text)| (column, Value::from(text)))
}

/// What `mz_sources.type` calls an item; `None` if the relation does not list it.
pub(super) fn source_type(item: &Item) -> Option<&'static str> {
    match &item.kind {
        ItemKind::Source(source) => Some(source.kind.connector().type_name()),
        ItemKind::Progress { .. } => Some("progress"),
        ItemKind::Table {
            source: Some(_), ..
        } if item.type_name() == "source" => Some("subsource"),
        _ => None,
    }
}

pub(super) fn sources(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let Some(kind) = source_type(item) else {
            continue;
        };
        let connector = match &item.kind {
            ItemKind::Source(source) => Some(source.kind.connector()),
            _ => None,
        };
        let connection = connector.as_ref().and_then(|found| found.connection());
        let own = connector.and_then(|found| found.source_columns(rows.relation()));
        // What a source makes of messages is what its own table makes of them.
        let messages = match item.kind {
            ItemKind::Source(_) => ctx.catalog.own_messages(item.id).map(|(_, said)| said),
            _ => ctx.catalog.message_tables.get(&item.id),
        };
        let of_messages = messages.map(MessageTable::system_columns);
        let common: [(&'static str, Value); 10] = [
            ("id", item.id.into()),
            ("oid", item.oid.into()),
            ("schema_id", schema_of(ctx, item)),
            ("name", (&item.name).into()),
            ("type", kind.into()),
            ("connection_id", connection.into()),
            ("cluster_id", cluster_of(ctx, item).into()),
            ("owner_id", DEFAULT_ROLE_ID.into()),
            ("create_sql", (&item.create_sql).into()),
            ("redacted_create_sql", (&item.create_sql).into()),
        ];
        rows.push_all(
            common
                .into_iter()
                .chain(texts(own.unwrap_or_default()))
                .chain(texts(of_messages.unwrap_or_default())),
        );
    }
}

pub(super) fn sinks(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let ItemKind::Sink(sink) = &item.kind else {
            continue;
        };
        let own = sink.kind.system_columns(rows.relation());
        let common: [(&'static str, Value); 10] = [
            ("id", item.id.into()),
            ("oid", item.oid.into()),
            ("schema_id", schema_of(ctx, item)),
            ("name", (&item.name).into()),
            ("type", sink.kind.type_name().into()),
            ("connection_id", sink.kind.connection().into()),
            ("cluster_id", cluster_of(ctx, item).into()),
            ("owner_id", DEFAULT_ROLE_ID.into()),
            ("create_sql", (&item.create_sql).into()),
            ("redacted_create_sql", (&item.create_sql).into()),
        ];
        rows.push_all(common.into_iter().chain(texts(own.unwrap_or_default())));
    }
}

pub(super) fn sink_statuses(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let ItemKind::Sink(sink) = &item.kind else {
            continue;
        };
        let Standing {
            status,
            error,
            hint,
            changed_at_ms,
        } = standing(ctx, item);
        let details = hint.map(|hint| serde_json::json!({ "hints": [hint] }));
        rows.push([
            ("id", item.id.into()),
            ("name", (&item.name).into()),
            ("type", sink.kind.type_name().into()),
            ("last_status_change_at", changed_at_ms.into()),
            ("status", status.into()),
            ("error", error.into()),
            ("details", details.map_or(Value::Null, Value::Json)),
        ]);
    }
}

/// What is staged is committed: a sink is told by transactions only.
pub(super) fn sink_statistics(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx).filter(|item| matches!(item.kind, ItemKind::Sink(_))) {
        let counted = ctx.runtime.sink_statistics.get(&item.id).copied();
        let counted = counted.unwrap_or_default();
        rows.push([
            ("id", item.id.into()),
            ("replica_id", replica_of(ctx, item).into()),
            ("messages_staged", counted.messages.into()),
            ("messages_committed", counted.messages.into()),
            ("bytes_staged", counted.bytes.into()),
            ("bytes_committed", counted.bytes.into()),
        ]);
    }
}

/// The sinks of the kinds that list them in this relation.
pub(super) fn connector_sinks(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let ItemKind::Sink(sink) = &item.kind else {
            continue;
        };
        if let Some(columns) = sink.kind.system_columns(rows.relation()) {
            let id = std::iter::once(("id", Value::from(item.id)));
            rows.push_all(id.chain(texts(columns)));
        }
    }
}

/// The connections of the kinds that list them in this relation.
pub(super) fn connector_connections(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let ItemKind::Connection(connection) = &item.kind else {
            continue;
        };
        let installation = ctx.catalog.installation;
        let listed =
            connection
                .connector()
                .connection_columns(rows.relation(), installation, item.id);
        if let Some(columns) = listed {
            let id = std::iter::once(("id", Value::from(item.id)));
            let columns = columns.into_iter().map(|(name, value)| match value {
                SystemValue::Text(text) => (name, Value::Text(text)),
                SystemValue::Texts(texts) => (name, Value::Texts(texts)),
            });
            rows.push_all(id.chain(columns));
        }
    }
}

pub(super) fn roles(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for role in ctx.catalog.roles.values() {
        rows.push([
            ("id", role.id.to_string().into()),
            ("oid", role.oid.into()),
            ("name", (&role.name).into()),
            ("inherit", role.inherit.into()),
            ("rolcanlogin", role.login.into()),
            ("rolsuper", role.superuser.into()),
        ]);
    }
}

fn object(ctx: &SystemContext<'_>, rows: &mut Rows, item: &Item) {
    rows.push([
        ("id", item.id.into()),
        ("oid", item.oid.into()),
        ("schema_id", schema_of(ctx, item)),
        ("name", (&item.name).into()),
        ("type", item.type_name().into()),
        ("owner_id", DEFAULT_ROLE_ID.into()),
        ("cluster_id", cluster_of(ctx, item).into()),
        ("privileges", Value::Texts(Vec::new())),
    ]);
}

fn system_objects(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for relation in super::relations() {
        rows.push([
            ("id", relation.id.into()),
            ("oid", relation.oid.into()),
            (
                "schema_id",
                ctx.system_schema(relation.schema)
                    .map_or(Value::Null, schema_id),
            ),
            ("name", relation.name.into()),
            ("type", "view".into()),
            ("owner_id", DEFAULT_ROLE_ID.into()),
            ("privileges", Value::Texts(Vec::new())),
        ]);
    }
}

pub(super) fn objects(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        object(ctx, rows, item);
    }
    system_objects(ctx, rows);
}

pub(super) fn relations(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx)
        .filter(|item| item.columns().is_some() || matches!(item.kind, ItemKind::Source(_)))
    {
        object(ctx, rows, item);
    }
    system_objects(ctx, rows);
}

/// The tables that a source feeds.
fn tables_of<'a>(
    ctx: &SystemContext<'a>,
    source: ObjectId,
) -> impl Iterator<Item = &'a Item> + use<'a> {
    items(ctx).filter(move |item| matches!(&item.kind, ItemKind::Table { source: Some(found), .. } if found.source == source))
}

/// What was counted for a source, or for a table that one feeds.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) statistics: SourceStatistics,
    /// Rows and bytes that its tables hold.
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Whether the snapshots of all of its tables are visible.
    pub(super) snapshot_committed: bool,
}

/// What was counted for `item`; `None` if it is neither a source nor fed by one.
pub(super) fn counted(ctx: &SystemContext<'_>, item: &Item) -> Option<Counted> {
    let tables: Vec<ObjectId> = match &item.kind {
        ItemKind::Source(_) => tables_of(ctx, item.id).map(|table| table.id).collect(),
        ItemKind::Table {
            source: Some(_), ..
        } => vec![item.id],
        _ => return None,
    };
    let statistics = match ctx.runtime.source_statistics.get(&item.id) {
        Some(found) => found.clone(),
        None => sum(tables
            .iter()
            .filter_map(|table| ctx.runtime.source_statistics.get(table))),
    };
    let held: Vec<_> = tables
        .iter()
        .filter_map(|table| ctx.runtime.collections.get(table))
        .collect();
    Some(Counted {
        statistics,
        rows: held.iter().map(|held| held.rows).sum(),
        bytes: held.iter().map(|held| held.bytes).sum(),
        snapshot_committed: tables
            .iter()
            .all(|table| ctx.runtime.snapshot_committed.contains(table)),
    })
}

pub(super) fn source_statistics(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let Some(Counted {
            statistics,
            rows: records,
            bytes,
            snapshot_committed,
        }) = counted(ctx, item)
        else {
            continue;
        };
        rows.push([
            ("id", item.id.into()),
            ("replica_id", replica_of(ctx, item).into()),
            ("messages_received", statistics.messages_received.into()),
            ("bytes_received", statistics.bytes_received.into()),
            ("updates_staged", statistics.updates_staged.into()),
            ("updates_committed", statistics.updates_committed.into()),
            ("records_indexed", records.into()),
            ("bytes_indexed", bytes.into()),
            (
                "rehydration_latency",
                ctx.runtime.hydration_ms.get(&item.id).copied().into(),
            ),
            (
                "snapshot_records_known",
                statistics.snapshot_records_known.into(),
            ),
            (
                "snapshot_records_staged",
                statistics.snapshot_records_staged.into(),
            ),
            ("snapshot_committed", snapshot_committed.into()),
            (
                "offset_known",
                offset(statistics.offset_known.as_ref()).into(),
            ),
            (
                "offset_committed",
                offset(statistics.offset_committed.as_ref()).into(),
            ),
        ]);
    }
}

/// The partitions of the topics that sources read.
pub(super) fn source_partitions(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx).filter(|item| matches!(item.kind, ItemKind::Source(_))) {
        let Some(counted) = counted(ctx, item) else {
            continue;
        };
        for state in PartitionState::all(&counted.statistics) {
            rows.push([
                ("id", item.id.into()),
                ("partition", state.partition.into()),
                ("offset_known", state.offset_known.into()),
                ("offset_committed", state.offset_committed.into()),
                ("lag", state.lag().into()),
            ]);
        }
    }
}

/// What the tables of a source have counted together.
fn sum<'a>(all: impl Iterator<Item = &'a SourceStatistics>) -> SourceStatistics {
    let add = |left: Option<u64>, right: Option<u64>| {
        if left.is_none() {
            right
        } else {
            left.map(|left| left.saturating_add(right.unwrap_or(0)))
        }
    };
    all.fold(SourceStatistics::default(), |total, one| SourceStatistics {
        object: None,
        messages_received: total
            .messages_received
            .saturating_add(one.messages_received),
        bytes_received: total.bytes_received.saturating_add(one.bytes_received),
        updates_staged: total.updates_staged.saturating_add(one.updates_staged),
        updates_committed: total
            .updates_committed
            .saturating_add(one.updates_committed),
        snapshot_records_known: add(total.snapshot_records_known, one.snapshot_records_known),
        snapshot_records_staged: add(total.snapshot_records_staged, one.snapshot_records_staged),
        offset_known: join(total.offset_known.as_ref(), one.offset_known.as_ref()),
        offset_committed: join(
            total.offset_committed.as_ref(),
            one.offset_committed.as_ref(),
        ),
    })
}

/// A position as people see it.
pub(super) fn offset(position: Option<&SourcePosition>) -> Option<u64> {
    position.map(SourcePosition::offset)
}

/// How far two tables of one source are together.
fn join(left: Option<&SourcePosition>, right: Option<&SourcePosition>) -> Option<SourcePosition> {
    match (left, right) {
        (Some(left), Some(right)) => left.join(right),
        (left, right) => left.or(right).cloned(),
    }
}

/// The state of a source, of a table that one feeds, of a source's progress relation, or of a sink, as the relations name it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) status: &'static str,
    pub(super) error: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) changed_at_ms: Option<u64>,
}

pub(super) fn standing(ctx: &SystemContext<'_>, item: &Item) -> Standing {
    let runtime = ctx.runtime;
    standing_of(match item.kind {
        ItemKind::Sink(_) => runtime.sink_statuses.get(&item.id),
        // The progress relation is in the state of its source.
        ItemKind::Progress { source, .. } => runtime.source_statuses.get(&source),
        _ => runtime.source_statuses.get(&item.id),
    })
}

fn standing_of(state: Option<&StatusState>) -> Standing {
    let (status, error, hint) = match state.map(|state| &state.status) {
        None => ("created", None, None),
        Some(SourceStatus::Starting) => ("starting", None, None),
        Some(SourceStatus::Running) => ("running", None, None),
        Some(SourceStatus::Warned { hint }) => ("running", None, Some(hint)),
        Some(SourceStatus::Stalled { error, hint }) => ("stalled", Some(error), hint.as_ref()),
        Some(SourceStatus::Failed { error, hint }) => ("failed", Some(error), hint.as_ref()),
    };
    Standing {
        status,
        error: error.cloned(),
        hint: hint.cloned(),
        changed_at_ms: state.map(|state| state.changed_at_ms),
    }
}

pub(super) fn source_statuses(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let kind = match &item.kind {
            ItemKind::Table {
                source: Some(_), ..
            } => source_type(item).unwrap_or("table"),
            _ => match source_type(item) {
                Some(kind) => kind,
                None => continue,
            },
        };
        let Standing {
            status,
            error,
            hint,
            changed_at_ms,
        } = standing(ctx, item);
        rows.push([
            ("id", item.id.into()),
            ("name", (&item.name).into()),
            ("type", kind.into()),
            ("last_status_change_at", changed_at_ms.into()),
            ("status", status.into()),
            ("error", error.into()),
            ("details", source_details(ctx, item, hint)),
        ]);
    }
}

/// What else there is to say of a source or a table that one feeds: what the user can do, and rows that hold what the table cannot.
fn source_details(ctx: &SystemContext<'_>, item: &Item, hint: Option<String>) -> Value {
    let mut details = serde_json::Map::new();
    if let Some(hint) = hint {
        details.insert("hints".to_owned(), serde_json::json!([hint]));
    }
    // The error that ended a table is not one of its rows.
    let goes_on = |table: &Item| standing(ctx, table).status != "failed";
    let tables: Vec<ObjectId> = match item.kind {
        ItemKind::Source(_) => tables_of(ctx, item.id)
            .filter(|table| goes_on(table))
            .map(|table| table.id)
            .collect(),
        _ if goes_on(item) => vec![item.id],
        _ => Vec::new(),
    };
    let held = tables
        .iter()
        .filter_map(|id| ctx.runtime.collections.get(id))
        .fold(CollectionStatistics::default(), |sum, held| {
            sum.and(held.clone())
        });
    if held.errors > 0 {
        details.insert(
            "row_errors".to_owned(),
            serde_json::json!({ "count": held.errors, "first": held.error }),
        );
    }
    if details.is_empty() {
        Value::Null
    } else {
        Value::Json(serde_json::Value::Object(details))
    }
}

/// Whether an object has state that must be computed or read before it can be used.
fn hydrates(item: &Item) -> bool {
    matches!(
        item.kind,
        ItemKind::MaterializedView { .. }
            | ItemKind::Index { .. }
            | ItemKind::Source(_)
            | ItemKind::Table {
                source: Some(_),
                ..
            }
    )
}

/// Whether it can be used; `None` of what never has to be hydrated, and of what is paused.
pub(super) fn is_hydrated(ctx: &SystemContext<'_>, item: &Item) -> Option<bool> {
    if ctx.catalog.is_paused(item.id) {
        return None;
    }
    if let Some(known) = ctx.runtime.hydrated.get(&item.id) {
        return Some(*known);
    }
    match item.kind {
        ItemKind::Table { .. } => Some(ctx.runtime.snapshot_committed.contains(&item.id)),
        ItemKind::Source(_) => {
            Some(tables_of(ctx, item.id).all(|table| is_hydrated(ctx, table).unwrap_or(false)))
        }
        _ => None,
    }
}

/// Says for which cluster an object is paused, if it is.
pub(super) fn paused(ctx: &SystemContext<'_>, id: ObjectId) -> Option<String> {
    let cluster = ctx.catalog.paused_by(id)?;
    Some(format!("cluster \"{}\" is paused", cluster.name))
}

pub(super) fn hydration_statuses(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx).filter(|item| hydrates(item)) {
        let failed = ctx.runtime.dataflow_errors.get(&item.id);
        let error = failed
            .map(|(error, _)| error.clone())
            .or_else(|| paused(ctx, item.id));
        rows.push([
            ("object_id", item.id.into()),
            ("replica_id", replica_of(ctx, item).into()),
            ("hydrated", is_hydrated(ctx, item).into()),
            ("error", error.into()),
        ]);
    }
}

pub(super) fn compute_hydration_statuses(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx).filter(|item| {
        matches!(
            item.kind,
            ItemKind::MaterializedView { .. } | ItemKind::Index { .. }
        )
    }) {
        let Some(replica) = replica_of(ctx, item) else {
            continue;
        };
        rows.push([
            ("object_id", item.id.into()),
            ("replica_id", replica.into()),
            ("hydrated", is_hydrated(ctx, item).unwrap_or(false).into()),
            (
                "hydration_time",
                ctx.runtime.hydration_ms.get(&item.id).copied().into(),
            ),
        ]);
    }
}

/// The sources of the kinds that list them in this relation.
pub(super) fn connector_sources(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let ItemKind::Source(source) = &item.kind else {
            continue;
        };
        let listed = source.kind.connector().source_columns(rows.relation());
        if let Some(columns) = listed {
            let id = std::iter::once(("id", Value::from(item.id)));
            rows.push_all(id.chain(texts(columns)));
        }
    }
}

/// The tables of sources of the kinds that list them in this relation.
pub(super) fn connector_tables(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let ItemKind::Table {
            source: Some(table),
            ..
        } = &item.kind
        else {
            continue;
        };
        let Some(ItemKind::Source(source)) = ctx
            .catalog
            .items
            .get(&table.source)
            .map(|source| &source.kind)
        else {
            continue;
        };
        let connector = source.kind.connector();
        let messages = ctx.catalog.message_tables.get(&item.id);
        let listed = connector.table_columns(rows.relation(), &table.table, messages);
        if let Some(columns) = listed {
            let id = std::iter::once(("id", Value::from(item.id)));
            rows.push_all(id.chain(texts(columns)));
        }
    }
}

pub(super) fn dependencies(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        for on in &item.depends_on {
            rows.push([
                ("object_id", item.id.into()),
                ("referenced_object_id", (*on).into()),
            ]);
        }
    }
}

pub(super) fn transitive_dependencies(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let mut found = BTreeSet::new();
        let mut open = item.depends_on.clone();
        while let Some(id) = open.pop() {
            if found.insert(id) {
                open.extend(
                    ctx.catalog
                        .items
                        .get(&id)
                        .iter()
                        .flat_map(|item| item.depends_on.iter().copied()),
                );
            }
        }
        for on in found {
            rows.push([
                ("object_id", item.id.into()),
                ("referenced_object_id", on.into()),
            ]);
        }
    }
}

pub(super) fn qualified_names(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let Some(schema) = ctx.catalog.schemas.get(&item.schema) else {
            continue;
        };
        let database = schema
            .database
            .and_then(|id| ctx.catalog.databases.get(&id));
        rows.push([
            ("id", item.id.into()),
            ("name", (&item.name).into()),
            ("object_type", item.type_name().into()),
            ("schema_id", schema_id(schema)),
            ("schema_name", (&schema.name).into()),
            (
                "database_id",
                database
                    .map(|database| format!("u{}", database.id.0))
                    .into(),
            ),
            (
                "database_name",
                database.map(|database| database.name.clone()).into(),
            ),
            ("cluster_id", cluster_of(ctx, item).into()),
        ]);
    }
    for relation in super::relations() {
        rows.push([
            ("id", relation.id.into()),
            ("name", relation.name.into()),
            ("object_type", "view".into()),
            (
                "schema_id",
                ctx.system_schema(relation.schema)
                    .map_or(Value::Null, schema_id),
            ),
            ("schema_name", relation.schema.into()),
        ]);
    }
}

pub(super) fn sessions(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for session in &ctx.runtime.sessions {
        rows.push([
            ("id", Value::Uuid(session.id)),
            ("connection_id", session.connection_id.into()),
            (
                "role_id",
                ctx.catalog
                    .find_role(&session.user)
                    .map_or_else(|| DEFAULT_ROLE_ID.to_owned(), |role| role.id.to_string())
                    .into(),
            ),
            ("client_ip", session.client_address.clone().into()),
            ("connected_at", session.connected_at_ms.into()),
        ]);
    }
}

pub(super) fn subscriptions(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for subscription in &ctx.runtime.subscriptions {
        rows.push([
            ("id", (&subscription.id).into()),
            ("session_id", Value::Uuid(subscription.session)),
            ("cluster_id", (&subscription.cluster).into()),
            ("created_at", subscription.created_at_ms.into()),
            (
                "referenced_object_ids",
                Value::Texts(
                    subscription
                        .objects
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                ),
            ),
        ]);
    }
}

/// What is paused has no frontier that moves, and cannot be read: it shows none.
pub(super) fn frontiers(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (id, (since, upper)) in &ctx.runtime.frontiers {
        let goes_on = !ctx.catalog.is_paused(*id);
        rows.push([
            ("object_id", (*id).into()),
            ("read_frontier", goes_on.then_some(*since).into()),
            ("write_frontier", goes_on.then_some(*upper).into()),
        ]);
    }
    // What is in a topic is not read here.
    for (id, upper) in sink_frontiers(ctx) {
        rows.push([("object_id", id.into()), ("write_frontier", upper.into())]);
    }
}

/// The sinks that have written, each with the first epoch of which its topic does not have all.
fn sink_frontiers<'a>(
    ctx: &SystemContext<'a>,
) -> impl Iterator<Item = (ObjectId, Epoch)> + use<'a> {
    let runtime = ctx.runtime;
    let sinks = items(ctx).filter(|item| matches!(item.kind, ItemKind::Sink(_)));
    sinks.filter_map(move |item| {
        let written = runtime.sink_statistics.get(&item.id)?;
        Some((item.id, written.frontier()?))
    })
}

/// What is paused does not lag behind: it is not to follow.
pub(super) fn lag(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (id, (_, upper)) in &ctx.runtime.frontiers {
        let lag_ms = ctx.runtime.now_ms.saturating_sub(upper.0);
        let goes_on = !ctx.catalog.is_paused(*id);
        rows.push([
            ("object_id", (*id).into()),
            ("lag", goes_on.then_some(lag_ms).into()),
        ]);
    }
    for (id, upper) in sink_frontiers(ctx) {
        let lag_ms = ctx.runtime.now_ms.saturating_sub(upper.0);
        rows.push([("object_id", id.into()), ("lag", lag_ms.into())]);
    }
}

pub(super) fn comments(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for item in items(ctx) {
        let whole = item.comment.iter().map(|comment| (None, comment));
        let columns = item
            .column_comments
            .iter()
            .map(|(position, comment)| (i32::try_from(position + 1).ok(), comment));
        for (part, comment) in whole.chain(columns) {
            rows.push([
                ("id", item.id.into()),
                ("object_type", item.type_name().into()),
                ("object_sub_id", part.into()),
                ("comment", comment.into()),
            ]);
        }
    }
    cluster_rows::comments(ctx, rows);
}

pub(super) fn collection_statistics(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (id, held) in &ctx.runtime.collections {
        rows.push([
            ("object_id", (*id).into()),
            ("records", held.rows.into()),
            ("bytes", held.bytes.into()),
            ("errors", held.errors.into()),
            ("error", held.error.clone().into()),
        ]);
    }
}

pub(super) fn object_memory(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for (id, statistics) in &ctx.runtime.collections {
        for (holder, bytes) in &statistics.held {
            rows.push([
                ("object_id", (*id).into()),
                ("holder", holder.clone().into()),
                ("bytes", (*bytes).into()),
            ]);
        }
    }
}

/// What the process has of the system, what of that was allocated, and what of that objects are said to hold.
pub(super) fn process_memory(ctx: &SystemContext<'_>, rows: &mut Rows) {
    let held = ctx.runtime.collections.values().map(|held| held.bytes);
    rows.push([
        ("resident_bytes", ctx.runtime.resident_bytes.into()),
        ("allocated_bytes", ctx.runtime.allocated_bytes.into()),
        ("object_bytes", held.fold(0, u64::saturating_add).into()),
    ]);
}
