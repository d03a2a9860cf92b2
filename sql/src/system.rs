//! The system relations: what the catalog, the session and the running node look like as rows.
//!
//! Owns one definition per relation ([`Relation`]): its name, its columns and the function that makes its rows from a [`SystemContext`].
//! Must not know how the rows reach a query, nor where the runtime state comes from: the coordinator fills a [`RuntimeState`] and calls [`rows()`].
//! Planning looks relations up by [`relation`]; [`overview()`] tells the same per object to callers that do not query.
//!
//! Invariants. Ids and OIDs of relations never change and are below [`crate::catalog::FIRST_USER_OID`]; the id of a relation is its OID.
//! Rows have exactly the declared columns. Rows come in a fixed order. Secrets are never in them.

mod cluster_rows;
mod information_absent;
mod information_rows;
mod information_schema;
pub(crate) mod keys;
mod mz;
mod mz_rows;
mod overview;
mod pg_absent;
mod pg_catalog;
mod pg_operators;
mod pg_rows;
mod rows;
mod runtime;
mod zone_rows;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use flowstone_types::sql_type::RegKind;
use flowstone_types::{ObjectId, SqlType};

use crate::catalog::{Catalog, Database, Item, ItemKind, Schema};
use crate::error::{Error, ErrorKind};
use keys::Key;
pub use overview::{Ingestion, ObjectKind, ObjectState, PartitionState, Status, overview};
pub(crate) use pg_rows::{ARRANGEMENT, TYPES};
pub use rows::Rows;
pub use runtime::{RuntimeState, SessionState, SinkStatistics, StatusState, SubscriptionState};

/// PostgreSQL's identity of the role that exists in a new node.
pub const DEFAULT_ROLE_OID: u32 = 16_650;
/// Identity of that role in `mz_roles`.
pub const DEFAULT_ROLE_ID: &str = "u1";

/// A relation of the system catalog. "Definition" of one name, columns and contents.
#[derive(Debug)]
pub struct Relation {
    /// Its identity: the OID as a system id.
    pub id: ObjectId,
    /// PostgreSQL's identity.
    pub oid: u32,
    /// Its schema.
    pub schema: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: &'static [RelationColumn],
    rows: fn(&SystemContext<'_>, &mut Rows),
}

/// The same, under the name that says what it is for.
pub type Definition = Relation;

/// A column of a system relation.
#[derive(Clone, Copy, Debug)]
pub struct RelationColumn {
    /// Its name.
    pub name: &'static str,
    /// Whether it can be NULL.
    pub nullable: bool,
    kind: Kind,
}

impl RelationColumn {
    /// Its type.
    #[must_use]
    pub fn sql_type(&self) -> SqlType {
        self.kind.sql_type()
    }
}

/// The types that columns of system relations have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    UInt4,
    UInt8,
    Float4,
    Float8,
    Numeric,
    Text,
    Name,
    QuotedChar,
    Bytea,
    Jsonb,
    Oid,
    RegProc,
    RegType,
    TimestampTz,
    Interval,
    Uuid,
    MzTimestamp,
    TextArray,
    Int2Array,
    OidArray,
    Float4Array,
    Int2Vector,
    OidVector,
}

impl Kind {
    fn sql_type(self) -> SqlType {
        let array = |element| SqlType::Array(Box::new(element));
        match self {
            Self::Bool => SqlType::Bool,
            Self::Int2 => SqlType::Int2,
            Self::Int4 => SqlType::Int4,
            Self::Int8 => SqlType::Int8,
            Self::UInt4 => SqlType::UInt4,
            Self::UInt8 => SqlType::UInt8,
            Self::Float4 => SqlType::Float4,
            Self::Float8 => SqlType::Float8,
            Self::Numeric => SqlType::Numeric(None),
            Self::Text => SqlType::Text,
            Self::Name => SqlType::Name,
            Self::QuotedChar => SqlType::QuotedChar,
            Self::Bytea => SqlType::Bytea,
            Self::Jsonb => SqlType::Jsonb,
            Self::Oid => SqlType::Oid,
            Self::RegProc => SqlType::Reg(RegKind::Proc),
            Self::RegType => SqlType::Reg(RegKind::Type),
            Self::TimestampTz => SqlType::TimestampTz,
            Self::Interval => SqlType::Interval,
            Self::Uuid => SqlType::Uuid,
            Self::MzTimestamp => SqlType::MzTimestamp,
            Self::TextArray => array(SqlType::Text),
            Self::Int2Array => array(SqlType::Int2),
            Self::OidArray => array(SqlType::Oid),
            Self::Float4Array => array(SqlType::Float4),
            Self::Int2Vector => SqlType::Int2Vector,
            Self::OidVector => SqlType::OidVector,
        }
    }
}

const fn column(name: &'static str, kind: Kind, nullable: bool) -> RelationColumn {
    RelationColumn {
        name,
        nullable,
        kind,
    }
}

/// `null` after a column's type: it can be NULL.
macro_rules! nullable {
    () => {
        false
    };
    (null) => {
        true
    };
}
use nullable;

/// Declares the relations of one schema: OID, name, the function that makes the rows, the columns.
macro_rules! declare {
    ($schema:literal: $($oid:literal $name:literal $rows:path { $($column:literal: $kind:ident $($null:ident)?),* $(,)? })*) => {
        pub(in crate::system) static RELATIONS: &[Relation] = &[$(
            Relation {
                id: flowstone_types::ObjectId::System($oid),
                oid: $oid,
                schema: $schema,
                name: $name,
                columns: &[$(column($column, Kind::$kind, nullable!($($null)?))),*],
                rows: $rows,
            }
        ),*];
    };
}
use declare;

/// What the rows of system relations are made from.
#[derive(Clone, Copy, Debug)]
pub struct SystemContext<'a> {
    /// What exists.
    pub catalog: &'a Catalog,
    /// Who asks.
    pub session: &'a SessionInfo,
    /// What the node is doing.
    pub runtime: &'a RuntimeState,
}

/// The session that asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its role.
    pub user: String,
    /// Its database.
    pub database: String,
    /// Its search path.
    pub search_path: Vec<String>,
    /// Its variables, in the order SHOW ALL lists them.
    pub variables: Vec<SessionVariable>,
}

/// A session variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What it is.
    pub description: String,
}

impl<'a> SystemContext<'a> {
    /// The database that PostgreSQL's relations are about.
    fn database(&self) -> Option<&'a Database> {
        self.catalog
            .databases
            .values()
            .find(|database| database.name == self.session.database)
    }

    /// The schemas that PostgreSQL's relations are about: those of the session's database, and the system's.
    fn schemas(&self) -> impl Iterator<Item = &'a Schema> + use<'a> {
        let database = self.database().map(|database| database.id);
        self.catalog
            .schemas
            .values()
            .filter(move |schema| schema.database.is_none() || schema.database == database)
    }

    /// The items in [`SystemContext::schemas`], each with its schema.
    fn items(&self) -> impl Iterator<Item = (&'a Schema, &'a Item)> + use<'a> {
        let database = self.database().map(|database| database.id);
        let catalog = self.catalog;
        catalog.items.values().filter_map(move |item| {
            let schema = catalog.schemas.get(&item.schema)?;
            (schema.database.is_some() && schema.database == database).then_some((schema, item))
        })
    }

    /// The primary keys of tables in [`SystemContext::items`].
    fn keys(&self) -> impl Iterator<Item = Key<'a>> + use<'a> {
        let database = self.database().map(|database| database.id);
        keys::keys(self.catalog).filter(move |key| key.schema.database == database)
    }

    /// The relations that have an index, that of a key included.
    fn indexed(&self) -> BTreeSet<ObjectId> {
        let indexes = self.catalog.items.values();
        let indexed = indexes.filter_map(|item| match item.kind {
            ItemKind::Index { on, .. } => Some(on),
            _ => keys::key_of(self.catalog, item).map(|_| item.id),
        });
        indexed.collect()
    }

    /// The OID of a system schema.
    fn system_schema(&self, name: &str) -> Option<&'a Schema> {
        self.catalog
            .schemas
            .values()
            .find(|schema| schema.database.is_none() && schema.name == name)
    }
}

static BY_NAME: LazyLock<BTreeMap<(&'static str, &'static str), &'static Relation>> =
    LazyLock::new(|| {
        relations()
            .map(|relation| ((relation.schema, relation.name), relation))
            .collect()
    });
static BY_ID: LazyLock<BTreeMap<ObjectId, &'static Relation>> = LazyLock::new(|| {
    relations()
        .map(|relation| (relation.id, relation))
        .collect()
});

/// All system relations, by schema and then in the order of their declaration.
pub fn relations() -> impl Iterator<Item = &'static Relation> {
    [
        pg_catalog::RELATIONS,
        pg_absent::RELATIONS,
        information_schema::RELATIONS,
        information_absent::RELATIONS,
        mz::catalog::RELATIONS,
        mz::internal::RELATIONS,
    ]
    .into_iter()
    .flatten()
}

/// The relation `schema.name`, if there is one.
#[must_use]
pub fn relation(schema: &str, name: &str) -> Option<&'static Relation> {
    BY_NAME.get(&(schema, name)).copied()
}

/// The relation with identity `id`, if there is one.
#[must_use]
pub fn relation_by_id(id: ObjectId) -> Option<&'static Relation> {
    BY_ID.get(&id).copied()
}

impl Relation {
    /// The Arrow schema of its rows: SQL types in the metadata.
    #[must_use]
    pub fn arrow_schema(&self) -> SchemaRef {
        let fields = self
            .columns
            .iter()
            .map(|column| column.sql_type().to_field(column.name, column.nullable));
        Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// The rows of a relation as they are now.
///
/// # Errors
/// [`ErrorKind::Internal`] if the rows do not fit the declared columns.
///
/// Cost: O(the relation's rows), built anew at each call.
pub fn rows(relation: &'static Relation, ctx: &SystemContext<'_>) -> Result<RecordBatch, Error> {
    let mut rows = Rows::new(relation);
    (relation.rows)(ctx, &mut rows);
    rows.finish().map_err(|message| {
        Error::new(
            ErrorKind::Internal,
            format!(
                "system relation {}.{}: {message}",
                relation.schema, relation.name
            ),
        )
    })
}
