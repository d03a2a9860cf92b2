//! What statements that change the catalog change: from a statement and a catalog to a list of changes, or to what is wrong.
//!
//! Owns the rules of CREATE, ALTER, DROP and COMMENT: names, existence, dependencies, notices. Views, materialized views and indexes are planned elsewhere first
//! ([`crate::plan`]) and handed in. Must not know how changes become durable, what a kind of source needs ([`crate::connector`] does), nor talk to upstreams: what they answered is handed in.
//! Called by `coordinator`.
//!
//! Invariants. Nothing is changed here: a [`DdlPlan`] is applied by [`Catalog::apply`] as a whole. The plan is valid for the version of the catalog it was made for.
//! Values of secrets and passwords are never in a plan.

mod cluster;
mod create;
mod create_sql;
mod drop;
pub mod pg_types;
mod rename;
pub mod role;
mod sink;
mod source;
mod spelled;

#[cfg(test)]
mod tests;

use flowstone_types::ObjectId;

pub use cluster::{create_cluster_sql, plan_alter_cluster};
pub use create::{
    ViewParts, default_index_key, index_relation, plan_create_index, plan_create_materialized_view,
    plan_create_view,
};
pub use create_sql::create_sql;
pub use role::{PasswordChange, plan_alter_role, plan_create_role, plan_drop_roles};
pub use source::{
    plan_add_subsources, plan_create_source, plan_table_from_source, schemas_to_ask,
    source_to_describe,
};
pub use spelled::{SpelledOut, spelled_out};

pub use crate::connector::SchemaAnswer;

use crate::ast::{CommentTarget, Name, ObjectType, StatementKind};
use crate::catalog::names::check_identifier;
use crate::catalog::{Catalog, CatalogChange, ResolveContext};
use crate::error::{Error, ErrorKind};
use crate::ident::at;

/// What a statement changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DdlPlan {
    /// The changes, to be applied together. Empty if there is nothing to do (`IF NOT EXISTS` of what exists).
    pub changes: Vec<CatalogChange>,
    /// Items that come into being, in the order of the changes.
    pub created: Vec<ObjectId>,
    /// Items that go, dependents first.
    pub dropped: Vec<ObjectId>,
    /// What the client is told besides.
    pub notices: Vec<Notice>,
    /// The tag of CommandComplete.
    pub tag: String,
}

impl DdlPlan {
    fn new(tag: impl Into<String>) -> Self {
        Self {
            tag: tag.into(),
            ..Self::default()
        }
    }

    /// This plan with what has to be made before it; that alone is not made.
    #[must_use]
    pub fn after(mut self, before: Self) -> Self {
        if self.changes.is_empty() {
            return self;
        }
        let Self {
            mut changes,
            mut created,
            mut notices,
            ..
        } = before;
        changes.append(&mut self.changes);
        created.append(&mut self.created);
        notices.append(&mut self.notices);
        Self {
            changes,
            created,
            notices,
            ..self
        }
    }

    /// Refuses names that no object may have, wherever they came from: statements, other columns, upstreams.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`].
    pub fn check_names(&self) -> Result<(), Error> {
        for change in &self.changes {
            match change {
                CatalogChange::PutDatabase(database) => check_identifier(&database.name)?,
                CatalogChange::PutSchema(schema) => check_identifier(&schema.name)?,
                CatalogChange::PutRole(role) => check_identifier(&role.name)?,
                CatalogChange::PutCluster(cluster) => {
                    check_identifier(&cluster.name)?;
                    for replica in &cluster.replicas {
                        check_identifier(&replica.name)?;
                    }
                }
                CatalogChange::PutItem(item) => {
                    check_identifier(&item.name)?;
                    for column in item.columns().unwrap_or_default() {
                        check_identifier(&column.name).map_err(|error| {
                            error.with_detail(format!(
                                "It is a column of \"{}\", and has control characters in it.",
                                item.name
                            ))
                        })?;
                    }
                }
                CatalogChange::DropDatabase(_)
                | CatalogChange::DropSchema(_)
                | CatalogChange::DropItem(_)
                | CatalogChange::DropRole(_)
                | CatalogChange::PutTimeZone(..)
                | CatalogChange::DropCluster(_)
                | CatalogChange::PutItemCluster(..)
                | CatalogChange::PutMessageTable(..) => {}
            }
        }
        Ok(())
    }

    /// A plan that changes nothing and says why.
    fn skip(tag: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            notices: vec![Notice::note(message)],
            ..Self::new(tag)
        }
    }
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// `NOTICE`
    Notice,
    /// `WARNING`
    Warning,
}

/// Something a client is told that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub severity: Severity,
    /// What it says: lower case, no full stop.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
}

impl Notice {
    /// A notice.
    pub fn note(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Notice,
            message: message.into(),
            hint: None,
        }
    }

    /// A warning.
    pub fn warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            message: message.into(),
            hint: None,
        }
    }
}

/// Gives out ids and OIDs as the catalog will once the plan is applied.
#[derive(Debug)]
struct Ids {
    id: u64,
    oid: u32,
}

impl Ids {
    const fn new(catalog: &Catalog) -> Self {
        Self {
            id: catalog.next_id,
            oid: catalog.next_oid,
        }
    }

    const fn id(&mut self) -> u64 {
        let id = self.id;
        self.id += 1;
        id
    }

    const fn oid(&mut self) -> u32 {
        let oid = self.oid;
        self.oid += 1;
        oid
    }
}

/// Plans every statement that changes the catalog, except the ones that need more than the catalog: CREATE of views, materialized views, indexes and sources,
/// what adds tables to a source, ALTER CLUSTER, and statements about roles. Those have functions of their own.
///
/// # Errors
/// Whatever is wrong with the statement; [`ErrorKind::Internal`] for a statement that is not one of these.
pub fn plan_ddl(
    catalog: &Catalog,
    ctx: &ResolveContext,
    statement: &StatementKind,
) -> Result<DdlPlan, Error> {
    match statement {
        StatementKind::CreateDatabase(create) => create::database(catalog, create),
        StatementKind::CreateSchema(create) => create::schema(catalog, ctx, create),
        StatementKind::CreateTable(create) => create::table(catalog, ctx, create),
        StatementKind::CreateSecret(create) => create::secret(catalog, ctx, create),
        StatementKind::CreateConnection(create) => create::connection(catalog, ctx, create),
        StatementKind::AlterConnection(alter) => create::alter_connection(catalog, ctx, alter),
        StatementKind::AlterSecret(alter) => {
            // The value is the coordinator's business; the catalog only says whether there is such a secret.
            match catalog.find_item(ctx, &alter.name, ObjectType::Secret)? {
                Some(_) => Ok(DdlPlan::new("ALTER SECRET")),
                None if alter.if_exists => Ok(DdlPlan::skip(
                    "ALTER SECRET",
                    does_not_exist(ObjectType::Secret, &alter.name),
                )),
                None => Err(crate::catalog::names::missing(
                    ObjectType::Secret,
                    &alter.name,
                )),
            }
        }
        StatementKind::AlterRename(rename) => rename::rename(catalog, ctx, rename),
        StatementKind::AlterSchemaSwap(swap) => rename::swap(catalog, ctx, swap),
        StatementKind::CreateSink(create) => sink::create(catalog, ctx, create),
        StatementKind::AlterSink(alter) => sink::alter(catalog, ctx, alter),
        StatementKind::Drop(drop) => drop::drop(catalog, ctx, drop),
        StatementKind::CreateCluster(create) => cluster::create(catalog, create),
        StatementKind::CreateClusterReplica(create) => cluster::create_replica(catalog, create),
        StatementKind::DropClusterReplicas(drop) => cluster::drop_replicas(catalog, drop),
        StatementKind::AlterSourceDropSubsource(alter) => {
            drop::drop_subsources(catalog, ctx, alter)
        }
        StatementKind::CommentOn(comment) => {
            self::comment(catalog, ctx, &comment.target, comment.comment.as_ref())
        }
        _ => Err(Error::internal(
            "not a statement that changes only the catalog",
        )),
    }
}

/// The text of the notice of `IF EXISTS`.
fn does_not_exist(object_type: ObjectType, name: &Name) -> String {
    format!(
        "{} \"{}\" does not exist, skipping",
        object_type.noun(),
        name.item()
    )
}

fn comment(
    catalog: &Catalog,
    ctx: &ResolveContext,
    target: &CommentTarget,
    comment: Option<&String>,
) -> Result<DdlPlan, Error> {
    let mut plan = DdlPlan::new("COMMENT");
    let item = match target {
        CommentTarget::Object {
            object_type: ObjectType::Cluster,
            name,
        } => {
            let found = cluster::find(catalog, name, false)?;
            plan.changes.extend(found.map(|cluster| {
                CatalogChange::PutCluster(crate::catalog::Cluster {
                    comment: comment.cloned(),
                    ..cluster.clone()
                })
            }));
            return Ok(plan);
        }
        CommentTarget::Object {
            object_type: object_type @ (ObjectType::Database | ObjectType::Schema),
            name,
        } => {
            return Err(at(
                Error::unsupported(format!(
                    "comments on a {} are not supported",
                    object_type.noun()
                )),
                name,
            ));
        }
        CommentTarget::Object { object_type, name } => {
            let mut item = catalog.resolve_item(ctx, name, *object_type)?.clone();
            item.comment = comment.cloned();
            item
        }
        CommentTarget::Column { relation, column } => {
            let mut item = match catalog.resolve_relation(ctx, relation)? {
                crate::catalog::Resolved::Item(item) => item.clone(),
                crate::catalog::Resolved::System(_) => {
                    let message = format!("permission denied: \"{relation}\" is a system catalog");
                    return Err(at(
                        Error::new(ErrorKind::InsufficientPrivilege, message),
                        relation,
                    ));
                }
            };
            let position = item
                .columns()
                .and_then(|columns| columns.iter().position(|found| found.name == column.value));
            let message = format!(
                "column \"{}\" of relation \"{}\" does not exist",
                column.value, item.name
            );
            let position = position.ok_or_else(|| {
                Error::new(ErrorKind::UndefinedColumn, message).at(column.position)
            })?;
            match comment {
                Some(comment) => item.column_comments.insert(position, comment.clone()),
                None => item.column_comments.remove(&position),
            };
            item
        }
    };
    plan.changes.push(CatalogChange::PutItem(Box::new(item)));
    Ok(plan)
}
