//! SHOW of catalog objects: each is a query over the system relations.
//!
//! Owns the columns and the order of what SHOW answers. Must not know how queries are planned: the text made here is parsed and planned like any other.
//! Called by `coordinator`.
//!
//! Invariant. Whatever a user wrote gets into the text as a quoted literal or as a parsed expression printed back, never as it is.

use crate::ast::{
    Ident, Name, ObjectType, ShowFilter, ShowKind, ShowOf, ShowStatement, quote_literal,
};
use crate::catalog::clusters::is_system_cluster;
use crate::catalog::{Catalog, ItemKind, ResolveContext, Resolved, Schema, SchemaId};
use crate::ddl::create_cluster_sql;
use crate::error::{Error, ErrorKind};

/// The query that a SHOW stands for.
///
/// # Errors
/// [`ErrorKind::UnknownSchema`], [`ErrorKind::UndefinedTable`] and others, for what the statement names and does not exist.
pub fn show_query(
    catalog: &Catalog,
    ctx: &ResolveContext,
    show: &ShowStatement,
) -> Result<String, Error> {
    match show {
        ShowStatement::Objects {
            kind,
            from,
            of,
            filter,
        } => {
            let body = objects(catalog, ctx, *kind, from.as_ref(), of.as_ref())?;
            let order = if *kind == ShowKind::ClusterReplicas {
                "1, 2"
            } else {
                "1"
            };
            filtered(
                &body,
                filter.as_ref(),
                if *kind == ShowKind::ClusterReplicas {
                    "cluster"
                } else {
                    "name"
                },
                order,
            )
        }
        ShowStatement::Columns { relation, filter } => {
            let id = match catalog.resolve_relation(ctx, relation)? {
                Resolved::Item(item) => item.id,
                Resolved::System(relation) => relation.id,
            };
            let body = format!(
                "SELECT c.name, c.nullable, c.type, coalesce(m.comment, '') AS comment, c.position AS position FROM mz_catalog.mz_columns AS c \
                 LEFT JOIN mz_internal.mz_comments AS m ON m.id = c.id AND m.object_sub_id = CAST(c.position AS integer) WHERE c.id = {}",
                quote_literal(&id.to_string())
            );
            let condition = condition(filter.as_ref(), "name")?;
            Ok(format!(
                "SELECT name, nullable, type, comment FROM ({body}) AS shown{condition} ORDER BY position"
            ))
        }
        ShowStatement::Create { object_type, name } => create(catalog, ctx, *object_type, name),
    }
}

fn create(
    catalog: &Catalog,
    ctx: &ResolveContext,
    object_type: ObjectType,
    name: &Name,
) -> Result<String, Error> {
    if object_type == ObjectType::Cluster {
        if is_system_cluster(name.item()) {
            let message = format!("system cluster \"{}\" has no CREATE statement", name.item());
            return Err(Error::new(ErrorKind::WrongObjectType, message)
                .with_detail("It is there from the start, and cannot be changed.")
                .at(name.position()));
        }
        let cluster = catalog.resolve_cluster(&Ident {
            value: name.item().to_owned(),
            position: name.position(),
        })?;
        return Ok(format!(
            "SELECT {} AS name, {} AS create_sql",
            quote_literal(&cluster.name),
            quote_literal(&format!("{};", create_cluster_sql(cluster)))
        ));
    }
    let item = match catalog.resolve_item(ctx, name, object_type) {
        // A subsource is a table as well, to those who ask for it.
        Err(error)
            if error.kind == ErrorKind::WrongObjectType && object_type == ObjectType::Table =>
        {
            catalog
                .resolve_item(ctx, name, ObjectType::Subsource)
                .map_err(|_| error)?
        }
        other => other?,
    };
    let text = quote_literal(&format!("{};", item.create_sql));
    Ok(format!(
        "SELECT {} AS name, {text} AS create_sql",
        quote_literal(&catalog.full_name(item.id))
    ))
}

fn condition(filter: Option<&ShowFilter>, column: &str) -> Result<String, Error> {
    Ok(match filter {
        None => String::new(),
        Some(ShowFilter::Like(pattern)) => {
            format!(" WHERE {column} LIKE {}", quote_literal(pattern))
        }
        Some(ShowFilter::Where(expr)) => format!(" WHERE {}", crate::parse::expr_text(expr)?),
    })
}

fn filtered(
    body: &str,
    filter: Option<&ShowFilter>,
    column: &str,
    order: &str,
) -> Result<String, Error> {
    Ok(format!(
        "SELECT * FROM ({body}) AS shown{} ORDER BY {order}",
        condition(filter, column)?
    ))
}

/// The id of a schema in `mz_schemas`.
fn schema_id(id: SchemaId, system: bool) -> String {
    quote_literal(&format!("{}{}", if system { "s" } else { "u" }, id.0))
}

/// The schema that is meant: the one named, or the first of the search path.
fn schema<'a>(
    catalog: &'a Catalog,
    ctx: &ResolveContext,
    from: Option<&Name>,
) -> Result<&'a Schema, Error> {
    if let Some(name) = from {
        return catalog.resolve_schema(ctx, name);
    }
    let database = catalog.resolve_database(&ctx.database)?.id;
    let found = ctx
        .search_path
        .iter()
        .find_map(|name| catalog.find_schema(Some(database), name));
    found.ok_or_else(|| {
        Error::new(
            ErrorKind::UnknownSchema,
            "no schema has been selected to show",
        )
    })
}

/// Left join of the comment of the object `o`.
const COMMENT: &str = "LEFT JOIN mz_internal.mz_comments AS m ON m.id = o.id AND m.object_sub_id IS NULL AND m.object_type <> 'cluster'";
/// The same of a cluster: its id may be that of something else as well.
const CLUSTER_COMMENT: &str =
    "LEFT JOIN mz_internal.mz_comments AS m ON m.id = o.id AND m.object_type = 'cluster'";
/// Left join of the cluster of the object `o`.
const CLUSTER: &str = "LEFT JOIN mz_catalog.mz_clusters AS k ON k.id = o.cluster_id";
/// The column that shows the comment.
const SAID: &str = "coalesce(m.comment, '') AS comment";

fn objects(
    catalog: &Catalog,
    ctx: &ResolveContext,
    kind: ShowKind,
    from: Option<&Name>,
    of: Option<&ShowOf>,
) -> Result<String, Error> {
    let in_schema = || {
        schema(catalog, ctx, from).map(|schema| {
            format!(
                "o.schema_id = {}",
                schema_id(schema.id, schema.database.is_none())
            )
        })
    };
    let in_cluster = match of {
        Some(ShowOf::Cluster(cluster)) => {
            if !is_system_cluster(&cluster.value) {
                catalog.resolve_cluster(cluster)?;
            }
            Some(format!("k.name = {}", quote_literal(&cluster.value)))
        }
        Some(ShowOf::Relation(_)) | None => None,
    };
    // With a cluster and without a schema, objects of all schemas are shown.
    let place = || match (&in_cluster, from) {
        (Some(cluster), None) => Ok(cluster.clone()),
        (Some(cluster), Some(_)) => in_schema().map(|schema| format!("{schema} AND {cluster}")),
        (None, _) => in_schema(),
    };
    let plain = |relation: &str| {
        in_schema().map(|schema| {
            format!(
                "SELECT o.name, {SAID} FROM mz_catalog.{relation} AS o {COMMENT} WHERE {schema}"
            )
        })
    };
    match kind {
        ShowKind::Databases => Ok("SELECT o.name, '' AS comment FROM mz_catalog.mz_databases AS o".to_owned()),
        ShowKind::Schemas => {
            let database = match from {
                Some(name) => catalog.resolve_database(name.item()).map_err(|error| error.at(name.position()))?,
                None => catalog.resolve_database(&ctx.database)?,
            };
            let database = quote_literal(&format!("u{}", database.id.0));
            Ok(format!("SELECT o.name, '' AS comment FROM mz_catalog.mz_schemas AS o WHERE o.database_id = {database} OR o.database_id IS NULL"))
        }
        ShowKind::Objects => {
            Ok(format!("SELECT o.name, o.type, {SAID} FROM mz_catalog.mz_objects AS o {COMMENT} WHERE {}", in_schema()?))
        }
        ShowKind::Tables => plain("mz_tables"),
        ShowKind::Views => plain("mz_views"),
        ShowKind::Secrets => plain("mz_secrets"),
        ShowKind::Types => plain("mz_types"),
        ShowKind::MaterializedViews => {
            Ok(format!("SELECT o.name, k.name AS cluster, {SAID} FROM mz_catalog.mz_materialized_views AS o {CLUSTER} {COMMENT} WHERE {}", place()?))
        }
        ShowKind::Sources => {
            Ok(format!("SELECT o.name, o.type, k.name AS cluster, {SAID} FROM mz_catalog.mz_sources AS o {CLUSTER} {COMMENT} WHERE {}", place()?))
        }
        ShowKind::Sinks => {
            Ok(format!("SELECT o.name, o.type, k.name AS cluster, {SAID} FROM mz_catalog.mz_sinks AS o {CLUSTER} {COMMENT} WHERE {}", place()?))
        }
        ShowKind::Subsources => {
            let condition = match of {
                Some(ShowOf::Relation(name)) => {
                    let source = catalog.resolve_item(ctx, name, ObjectType::Source)?;
                    if !matches!(source.kind, ItemKind::Source(_)) {
                        return Err(Error::new(ErrorKind::WrongObjectType, format!("\"{name}\" has no subsources")).at(name.position()));
                    }
                    format!("d.referenced_object_id = {}", quote_literal(&source.id.to_string()))
                }
                _ => in_schema()?,
            };
            Ok(format!(
                "SELECT DISTINCT o.name, o.type FROM mz_catalog.mz_sources AS o JOIN mz_internal.mz_object_dependencies AS d ON d.object_id = o.id \
                 WHERE o.type IN ('subsource', 'progress') AND {condition}"
            ))
        }
        ShowKind::Connections => {
            Ok(format!("SELECT o.name, o.type, {SAID} FROM mz_catalog.mz_connections AS o {COMMENT} WHERE {}", in_schema()?))
        }
        ShowKind::Indexes => {
            let condition = match (of, &in_cluster, from) {
                (Some(ShowOf::Relation(name)), _, _) => match catalog.resolve_relation(ctx, name)? {
                    Resolved::Item(item) => format!("o.on_id = {}", quote_literal(&item.id.to_string())),
                    Resolved::System(relation) => format!("o.on_id = {}", quote_literal(&relation.id.to_string())),
                },
                (_, Some(cluster), None) => cluster.clone(),
                _ => {
                    let schema = schema(catalog, ctx, from)?;
                    format!("r.schema_id = {}", schema_id(schema.id, schema.database.is_none()))
                }
            };
            Ok(format!(
                "SELECT o.name, r.name AS \"on\", k.name AS cluster, x.key, {SAID} FROM mz_catalog.mz_indexes AS o \
                 JOIN mz_catalog.mz_objects AS r ON r.id = o.on_id {CLUSTER} {COMMENT} \
                 JOIN (SELECT i.index_id, array_agg(coalesce(i.on_expression, c.name) ORDER BY i.index_position) AS key \
                 FROM mz_catalog.mz_index_columns AS i JOIN mz_catalog.mz_indexes AS n ON n.id = i.index_id \
                 LEFT JOIN mz_catalog.mz_columns AS c ON c.id = n.on_id AND c.position = i.on_position GROUP BY i.index_id) AS x ON x.index_id = o.id \
                 WHERE {condition}"
            ))
        }
        ShowKind::Clusters => Ok(format!(
            "SELECT o.name, CASE WHEN r.replicas IS NULL THEN '' ELSE r.replicas END AS replicas, {SAID} FROM mz_catalog.mz_clusters AS o {CLUSTER_COMMENT} \
             LEFT JOIN (SELECT n.cluster_id, string_agg(n.name || coalesce(' (' || n.size || ')', ''), ', ' ORDER BY n.name) AS replicas \
             FROM mz_catalog.mz_cluster_replicas AS n GROUP BY n.cluster_id) AS r ON r.cluster_id = o.id"
        )),
        ShowKind::ClusterReplicas => Ok("SELECT k.name AS cluster, o.name AS replica, o.size, s.status = 'online' AS ready, '' AS comment \
             FROM mz_catalog.mz_cluster_replicas AS o JOIN mz_catalog.mz_clusters AS k ON k.id = o.cluster_id \
             JOIN mz_internal.mz_cluster_replica_statuses AS s ON s.replica_id = o.id"
            .to_owned()),
        ShowKind::Roles => Ok("SELECT o.name, '' AS comment FROM mz_catalog.mz_roles AS o".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::show_query;
    use crate::ast::{ShowStatement, StatementKind};
    use crate::catalog::{Catalog, ResolveContext};
    use crate::error::ErrorKind;

    fn ctx() -> ResolveContext {
        ResolveContext {
            database: "materialize".to_owned(),
            search_path: vec!["public".to_owned()],
            cluster: "quickstart".to_owned(),
        }
    }

    fn catalog() -> Catalog {
        let mut catalog = Catalog::initial();
        for text in ["CREATE TABLE t (a int)", "CREATE SECRET s AS 'hunter2'"] {
            let kind = crate::parse::parse(text).unwrap().remove(0).kind;
            catalog
                .apply(
                    &crate::ddl::plan_ddl(&catalog, &ctx(), &kind)
                        .unwrap()
                        .changes,
                )
                .unwrap();
        }
        catalog
    }

    fn statement(text: &str) -> ShowStatement {
        match crate::parse::parse(text).unwrap().remove(0).kind {
            StatementKind::Show(show) => show,
            other => panic!("{other:?}"),
        }
    }

    /// The output columns of the innermost query.
    fn columns(sql: &str) -> Vec<String> {
        let query =
            crate::parse::parse_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let text = query.to_string();
        let start = text.find("FROM (SELECT ").map_or(0, |at| at + 6);
        let inner = text
            .get(start..)
            .unwrap()
            .trim_start_matches("SELECT ")
            .trim_start_matches("DISTINCT ")
            .split(" FROM ")
            .next()
            .unwrap()
            .to_owned();
        let last = |part: &str| {
            part.rsplit([' ', '.'])
                .next()
                .unwrap()
                .trim_matches('"')
                .to_owned()
        };
        inner
            .replace("(m.comment, '')", "")
            .split(", ")
            .map(last)
            .collect()
    }

    #[test]
    fn every_show_is_a_query_with_its_columns() {
        for (text, expected) in [
            ("SHOW DATABASES", "name,comment"),
            ("SHOW SCHEMAS", "name,comment"),
            ("SHOW OBJECTS", "name,type,comment"),
            ("SHOW TABLES LIKE 'it''s%'", "name,comment"),
            ("SHOW VIEWS FROM public", "name,comment"),
            (
                "SHOW MATERIALIZED VIEWS IN CLUSTER quickstart",
                "name,cluster,comment",
            ),
            ("SHOW INDEXES ON t", "name,on,cluster,key,comment"),
            (
                "SHOW SOURCES WHERE type = 'postgres'",
                "name,type,cluster,comment",
            ),
            ("SHOW SUBSOURCES", "name,type"),
            ("SHOW SINKS", "name,type,cluster,comment"),
            ("SHOW SECRETS", "name,comment"),
            ("SHOW CONNECTIONS", "name,type,comment"),
            ("SHOW CLUSTERS", "name,replicas,comment"),
            (
                "SHOW CLUSTER REPLICAS",
                "cluster,replica,size,ready,comment",
            ),
            ("SHOW ROLES", "name,comment"),
            ("SHOW TYPES", "name,comment"),
            ("SHOW COLUMNS FROM t", "name,nullable,type,comment,position"),
            ("SHOW CREATE TABLE t", "name,create_sql"),
        ] {
            let sql = show_query(&catalog(), &ctx(), &statement(text))
                .unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert_eq!(columns(&sql).join(","), expected, "{text}: {sql}");
        }
    }

    #[test]
    fn what_does_not_exist_cannot_be_shown() {
        for (text, kind) in [
            ("SHOW TABLES FROM nowhere", ErrorKind::UnknownSchema),
            ("SHOW SCHEMAS FROM nowhere", ErrorKind::UnknownDatabase),
            ("SHOW COLUMNS FROM nothing", ErrorKind::UndefinedTable),
            ("SHOW INDEXES IN CLUSTER other", ErrorKind::UndefinedObject),
            ("SHOW CREATE VIEW t", ErrorKind::WrongObjectType),
        ] {
            assert_eq!(
                show_query(&catalog(), &ctx(), &statement(text)).map_err(|error| error.kind),
                Err(kind),
                "{text}"
            );
        }
    }

    #[test]
    fn a_condition_is_what_it_says() {
        let show = statement("SHOW TABLES WHERE length(name) > - -1");
        let sql = show_query(&catalog(), &ctx(), &show).unwrap();
        assert!(sql.contains("WHERE length(name) > -(-1) ORDER BY"), "{sql}");
    }

    #[test]
    fn the_create_text_is_shown_with_full_names() {
        let sql = show_query(&catalog(), &ctx(), &statement("SHOW CREATE TABLE t")).unwrap();
        assert_eq!(
            sql,
            "SELECT 'materialize.public.t' AS name, 'CREATE TABLE materialize.public.t (a integer);' AS create_sql"
        );
    }
}
