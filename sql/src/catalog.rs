//! The catalog as a value: what exists, by id and by name.
//!
//! Owns the model, its changes ([`CatalogChange`]) and name resolution. The coordinator keeps one current [`Catalog`] behind an `Arc`; planning reads a clone
//! of that `Arc`, so a statement sees one catalog throughout. Must not know how changes are made durable.
//!
//! Invariants. Ids and OIDs are never reused. Every item's schema and cluster exist; every id in `depends_on` exists. Applying the same changes to the same
//! catalog gives the same catalog.

pub mod clusters;
pub mod items;
pub mod names;
pub mod roles;

use std::collections::BTreeMap;

use arrow_schema::SchemaRef;
use flowstone_proto::message::SourceTable;
use flowstone_types::datetime::TimeZone;
use flowstone_types::{ClusterId, InstallationId, ObjectId, SqlType};
use serde::{Deserialize, Serialize};

pub use crate::connector::{
    Connection, MessageTable, SinkItemKind, SourceItemKind, StringOrSecret,
};
use crate::error::{Error, ErrorKind};

pub use clusters::{Cluster, ClusterKind, ClusterSize, Clusters, Machine, Replica, ReplicaId};
pub use items::Items;
pub use names::{ResolveContext, Resolved};
pub use roles::{PasswordVerifier, Role, RoleId};

/// The first OID given to user objects; smaller ones are built in.
pub const FIRST_USER_OID: u32 = 20_000;

/// Name of the database that exists in a new node.
pub const DEFAULT_DATABASE: &str = "materialize";
/// Name of the schema that every database starts with.
pub const DEFAULT_SCHEMA: &str = "public";
/// The cluster that exists in a new node.
pub const DEFAULT_CLUSTER: &str = "quickstart";
/// The role that exists in a new node.
pub const DEFAULT_ROLE: &str = "materialize";

/// Identity of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DatabaseId(pub u64);

/// Identity of a schema. System schemas (`mz_catalog`, `mz_internal`, `pg_catalog`, `information_schema`) belong to no database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SchemaId(pub u64);

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its identity.
    pub id: DatabaseId,
    /// PostgreSQL's identity.
    pub oid: u32,
    /// Its name.
    pub name: String,
}

/// A schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Its identity.
    pub id: SchemaId,
    /// PostgreSQL's identity.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Where it is; `None` for a system schema.
    pub database: Option<DatabaseId>,
}

/// A column of a relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// DEFAULT expression as SQL text.
    pub default: Option<String>,
}

/// One named thing in a schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its identity.
    pub id: ObjectId,
    /// PostgreSQL's identity.
    pub oid: u32,
    /// Where it is.
    pub schema: SchemaId,
    /// Its name.
    pub name: String,
    /// Normalised CREATE statement with qualified names; secrets are never in it.
    pub create_sql: String,
    /// Ids of items that this one cannot be without.
    pub depends_on: Vec<ObjectId>,
    /// COMMENT ON it.
    pub comment: Option<String>,
    /// COMMENT ON its columns, by position from 0.
    pub column_comments: BTreeMap<usize, String>,
    /// What it is.
    pub kind: ItemKind,
}

/// What an item is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ItemKind {
    /// A table: written by statements, or fed by a source.
    Table {
        /// Its columns.
        columns: Vec<Column>,
        /// Columns known to identify a row.
        key: Option<Vec<usize>>,
        /// The source that feeds it and what it captures; `None` for a table written by statements.
        source: Option<TableSource>,
    },
    /// A source. Relations it feeds are tables of their own; the source itself has no columns, unless it is a single-relation generator.
    Source(Source),
    /// The progress relation of a source (`<source>_progress`).
    Progress {
        /// Its columns.
        columns: Vec<Column>,
        /// The source.
        source: ObjectId,
    },
    /// A view: a named query.
    View {
        /// Its columns.
        columns: Vec<Column>,
        /// The query as SQL with qualified names.
        query: String,
    },
    /// A view whose rows are maintained and stored.
    MaterializedView {
        /// Its columns.
        columns: Vec<Column>,
        /// The query as SQL with qualified names.
        query: String,
        /// Columns known to identify a row.
        key: Option<Vec<usize>>,
    },
    /// An index: the rows of a relation kept in memory by key.
    Index {
        /// The relation.
        on: ObjectId,
        /// The key: expressions over the relation as SQL text, and the column's position where it is a plain column.
        key: Vec<IndexKey>,
    },
    /// A secret. Its value is kept elsewhere.
    Secret,
    /// A connection.
    Connection(Connection),
    /// A sink: the changes of a relation, written elsewhere.
    Sink(Sink),
}

/// A sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sink {
    /// The relation that is written.
    pub from: ObjectId,
    /// Where and how.
    pub kind: SinkItemKind,
}

/// One key column of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexKey {
    /// The expression as SQL.
    pub expression: String,
    /// The column of the relation, if the expression is just that.
    pub column: Option<usize>,
}

/// How a table is fed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSource {
    /// The source item.
    pub source: ObjectId,
    /// What it captures upstream, but for [`SourceTable::upstream`], which is made of [`Catalog::message_tables`] when the worker is told.
    #[serde(with = "stored_table")]
    pub table: SourceTable,
    /// Whether it was made together with the source (a subsource) and goes with it; `CREATE TABLE … FROM SOURCE` makes others.
    pub owned: bool,
}

/// How the catalog keeps a [`SourceTable`]: as it was before there was anything that only its connector reads.
mod stored_table {
    use flowstone_proto::message::{SourceColumn, SourceTable};
    use flowstone_types::ObjectId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize)]
    struct Written<'a> {
        id: ObjectId,
        upstream_schema: &'a str,
        upstream_name: &'a str,
        upstream_oid: u32,
        columns: &'a [SourceColumn],
        key: &'a [usize],
    }

    #[derive(Deserialize)]
    struct Read {
        id: ObjectId,
        upstream_schema: String,
        upstream_name: String,
        upstream_oid: u32,
        columns: Vec<SourceColumn>,
        key: Vec<usize>,
    }

    pub(super) fn serialize<S: Serializer>(
        table: &SourceTable,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Written {
            id: table.id,
            upstream_schema: &table.upstream_schema,
            upstream_name: &table.upstream_name,
            upstream_oid: table.upstream_oid,
            columns: &table.columns,
            key: &table.key,
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SourceTable, D::Error> {
        let table = Read::deserialize(deserializer)?;
        Ok(SourceTable {
            id: table.id,
            upstream_schema: table.upstream_schema,
            upstream_name: table.upstream_name,
            upstream_oid: table.upstream_oid,
            columns: table.columns,
            key: table.key,
            upstream: Vec::new(),
        })
    }
}

/// A source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// What it reads.
    pub kind: SourceItemKind,
    /// Its progress relation.
    pub progress: Option<ObjectId>,
}

/// The catalog.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// Databases by id.
    pub databases: BTreeMap<DatabaseId, Database>,
    /// Schemas by id, system schemas among them.
    pub schemas: BTreeMap<SchemaId, Schema>,
    /// Items by id. System relations are not here: see [`crate::system`].
    pub items: Items,
    /// The next user id, for every kind of object.
    pub next_id: u64,
    /// The next OID.
    pub next_oid: u32,
    /// Changes applied so far; two catalogs of one node with the same version are equal.
    pub version: u64,
    /// Roles by id; [`RoleId::DEFAULT`] is always there.
    pub roles: BTreeMap<RoleId, Role>,
    /// The time zones of the sessions that made views and indexes, as settings; of those not named here it was UTC.
    pub time_zones: BTreeMap<ObjectId, String>,
    /// The clusters, and what is in them.
    pub clusters: Clusters,
    /// What tables of sources of messages make of these.
    pub message_tables: BTreeMap<ObjectId, MessageTable>,
    /// Whose catalog it is. The coordinator says it at the start, and keeps it beside the catalog.
    #[serde(skip)]
    pub installation: InstallationId,
}

/// A change to the catalog. One statement makes a list of them, applied together or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CatalogChange {
    /// A database appears, or its name changes.
    PutDatabase(Database),
    /// A database goes. It is empty.
    DropDatabase(DatabaseId),
    /// A schema appears, or its name changes.
    PutSchema(Schema),
    /// A schema goes. It is empty.
    DropSchema(SchemaId),
    /// An item appears or is replaced.
    PutItem(Box<Item>),
    /// An item goes. Nothing depends on it any more.
    DropItem(ObjectId),
    /// A role appears or is replaced.
    PutRole(Role),
    /// A role goes.
    DropRole(RoleId),
    /// The time zone in which an item's text is read.
    PutTimeZone(ObjectId, String),
    /// A cluster appears or is replaced.
    PutCluster(Cluster),
    /// A cluster goes: not [`ClusterId::DEFAULT`]. Nothing is in it any more.
    DropCluster(ClusterId),
    /// The cluster that an item is in.
    PutItemCluster(ObjectId, ClusterId),
    /// What a table of a source of messages makes of these.
    PutMessageTable(ObjectId, Box<MessageTable>),
}

impl Item {
    /// The columns, if the item is a relation.
    #[must_use]
    pub fn columns(&self) -> Option<&[Column]> {
        match &self.kind {
            ItemKind::Table { columns, .. }
            | ItemKind::Progress { columns, .. }
            | ItemKind::View { columns, .. }
            | ItemKind::MaterializedView { columns, .. } => Some(columns),
            ItemKind::Source(_)
            | ItemKind::Index { .. }
            | ItemKind::Secret
            | ItemKind::Connection(_)
            | ItemKind::Sink(_) => None,
        }
    }

    /// What SHOW and `mz_objects.type` call the item.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match &self.kind {
            ItemKind::Table {
                source: Some(source),
                ..
            } if source.owned => "source",
            ItemKind::Table { .. } => "table",
            ItemKind::Source(_) | ItemKind::Progress { .. } => "source",
            ItemKind::View { .. } => "view",
            ItemKind::MaterializedView { .. } => "materialized-view",
            ItemKind::Index { .. } => "index",
            ItemKind::Secret => "secret",
            ItemKind::Connection(_) => "connection",
            ItemKind::Sink(_) => "sink",
        }
    }

    /// Whether the item's rows are kept by the worker as a collection of the item's id.
    #[must_use]
    pub const fn is_collection(&self) -> bool {
        matches!(
            self.kind,
            ItemKind::Table { .. } | ItemKind::Progress { .. } | ItemKind::MaterializedView { .. }
        )
    }
}

/// The Arrow schema of a relation's columns: names as users gave them, SQL types in the metadata.
#[must_use]
pub fn arrow_schema(columns: &[Column]) -> SchemaRef {
    std::sync::Arc::new(arrow_schema::Schema::new(
        columns
            .iter()
            .map(|column| column.sql_type.to_field(&column.name, column.nullable))
            .collect::<Vec<_>>(),
    ))
}

impl Catalog {
    /// The catalog of a new node: the default database with its schema, the system schemas, the default role and the default cluster.
    #[must_use]
    pub fn initial() -> Self {
        let mut catalog = Self {
            next_id: 1,
            next_oid: FIRST_USER_OID,
            clusters: Clusters::initial(),
            ..Self::default()
        };
        let database = Database {
            id: DatabaseId(1),
            oid: catalog.allocate_oid(),
            name: DEFAULT_DATABASE.to_owned(),
        };
        let schema = Schema {
            id: SchemaId(1),
            oid: catalog.allocate_oid(),
            name: DEFAULT_SCHEMA.to_owned(),
            database: Some(database.id),
        };
        catalog.databases.insert(database.id, database);
        catalog.schemas.insert(schema.id, schema);
        for (number, oid, name) in [
            (101, 11, "pg_catalog"),
            (102, 16_600, "mz_catalog"),
            (103, 16_601, "mz_internal"),
            (104, 16_602, "information_schema"),
        ] {
            catalog.schemas.insert(
                SchemaId(number),
                Schema {
                    id: SchemaId(number),
                    oid,
                    name: name.to_owned(),
                    database: None,
                },
            );
        }
        let role = Role::initial();
        catalog.roles.insert(role.id, role);
        catalog.next_id = 1000;
        catalog
    }

    /// Takes the next user number (for ids of any kind).
    pub const fn allocate_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The time zone in which an item's text is read.
    #[must_use]
    pub fn time_zone(&self, id: ObjectId) -> TimeZone {
        self.time_zones
            .get(&id)
            .and_then(|setting| setting.parse().ok())
            .unwrap_or(TimeZone::UTC)
    }

    /// The table of its own that a source of messages has, and what it makes of them; `None` of any other source.
    #[must_use]
    pub fn own_messages(&self, source: ObjectId) -> Option<(&Item, &MessageTable)> {
        self.message_tables.iter().find_map(|(id, messages)| {
            let item = self.items.get(id)?;
            match &item.kind {
                ItemKind::Table {
                    source: Some(fed), ..
                } if fed.owned && fed.source == source => Some((item, messages)),
                _ => None,
            }
        })
    }

    /// Takes the next OID.
    pub const fn allocate_oid(&mut self) -> u32 {
        let oid = self.next_oid;
        self.next_oid += 1;
        oid
    }

    /// Applies the changes of one statement and counts one version.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if a change refers to what does not exist; the catalog is then half changed and must be thrown away.
    pub fn apply(&mut self, changes: &[CatalogChange]) -> Result<(), Error> {
        let missing = |what: String| {
            Error::new(
                ErrorKind::Internal,
                format!("catalog change refers to {what}, which does not exist"),
            )
        };
        for change in changes {
            match change {
                CatalogChange::PutDatabase(database) => {
                    self.note(database.id.0, database.oid);
                    self.databases.insert(database.id, database.clone());
                }
                CatalogChange::DropDatabase(id) => {
                    self.databases
                        .remove(id)
                        .ok_or_else(|| missing(format!("database {}", id.0)))?;
                }
                CatalogChange::PutSchema(schema) => {
                    self.note(schema.id.0, schema.oid);
                    self.schemas.insert(schema.id, schema.clone());
                }
                CatalogChange::DropSchema(id) => {
                    self.schemas
                        .remove(id)
                        .ok_or_else(|| missing(format!("schema {}", id.0)))?;
                }
                CatalogChange::PutItem(item) => {
                    if !self.schemas.contains_key(&item.schema) {
                        return Err(missing(format!("schema {}", item.schema.0)));
                    }
                    if let ObjectId::User(number) = item.id {
                        self.note(number, item.oid);
                    }
                    self.items.insert((**item).clone());
                }
                CatalogChange::DropItem(id) => {
                    self.items
                        .remove(id)
                        .ok_or_else(|| missing(format!("item {id}")))?;
                    self.time_zones.remove(id);
                    self.clusters.of_items.remove(id);
                    self.message_tables.remove(id);
                }
                CatalogChange::PutTimeZone(id, zone) => {
                    if !self.items.contains_key(id) {
                        return Err(missing(format!("item {id}")));
                    }
                    self.time_zones.insert(*id, zone.clone());
                }
                CatalogChange::PutRole(role) => {
                    self.note(role.id.0, role.oid);
                    self.roles.insert(role.id, role.clone());
                }
                CatalogChange::DropRole(id) => {
                    self.roles
                        .remove(id)
                        .ok_or_else(|| missing(format!("role {id}")))?;
                }
                CatalogChange::PutCluster(cluster) => self.clusters.put(cluster.clone()),
                CatalogChange::DropCluster(id) => {
                    if *id == ClusterId::DEFAULT {
                        return Err(Error::internal(format!(
                            "cluster {id} goes, and tables are in it"
                        )));
                    }
                    if self.clusters.of_items.values().any(|of| of == id) {
                        return Err(Error::internal(format!(
                            "cluster {id} goes, and something is in it"
                        )));
                    }
                    self.clusters
                        .by_id
                        .remove(id)
                        .ok_or_else(|| missing(format!("cluster {id}")))?;
                }
                CatalogChange::PutItemCluster(id, cluster) => {
                    if !self.items.contains_key(id) {
                        return Err(missing(format!("item {id}")));
                    }
                    if !self.clusters.by_id.contains_key(cluster) {
                        return Err(missing(format!("cluster {cluster}")));
                    }
                    self.clusters.of_items.insert(*id, *cluster);
                }
                CatalogChange::PutMessageTable(id, table) => {
                    if !self.items.contains_key(id) {
                        return Err(missing(format!("item {id}")));
                    }
                    self.message_tables.insert(*id, (**table).clone());
                }
            }
        }
        self.version += 1;
        Ok(())
    }

    fn note(&mut self, number: u64, oid: u32) {
        self.next_id = self.next_id.max(number + 1);
        self.next_oid = self.next_oid.max(oid + 1);
    }
}
