//! Tests of statements that change the catalog: what they change, what is in their way, and what they tell.

mod clusters;
mod kafka;

use flowstone_proto::message::{UpstreamColumn, UpstreamTable};
use flowstone_types::{ObjectId, SqlType};

use super::{
    DdlPlan, ViewParts, default_index_key, pg_types, plan_alter_cluster, plan_create_index,
    plan_create_materialized_view, plan_create_source, plan_create_view, plan_ddl,
};
use super::{plan_add_subsources, plan_table_from_source};
use crate::ast::{Name, ObjectType, StatementKind};
use crate::catalog::{
    Catalog, CatalogChange, Column, IndexKey, ItemKind, Machine, ResolveContext, Resolved,
};
use crate::error::{Error, ErrorKind};

fn ctx() -> ResolveContext {
    ResolveContext {
        database: "materialize".to_owned(),
        search_path: vec!["public".to_owned()],
        cluster: "quickstart".to_owned(),
    }
}

/// The threads that clusters have here.
const MACHINE: Machine = Machine {
    shards: 2,
    threads: 4,
};

fn name(text: &str) -> Name {
    Name::new(text.split('.'))
}

fn upstream_table(
    name: &str,
    replica_identity: char,
    key: &[&str],
    columns: &[(&str, u32)],
) -> UpstreamTable {
    let columns = (1..)
        .zip(columns)
        .map(|(attribute, (name, type_oid))| UpstreamColumn {
            name: (*name).to_owned(),
            attribute,
            type_oid: *type_oid,
            type_name: format!("type{type_oid}"),
            type_modifier: -1,
            not_null: key.contains(name),
        });
    UpstreamTable {
        schema: "public".to_owned(),
        name: name.to_owned(),
        oid: 77,
        replica_identity,
        columns: columns.collect(),
        key: key.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn upstream() -> Vec<UpstreamTable> {
    vec![
        upstream_table("a", 'd', &["id"], &[("id", 23), ("x", 25)]),
        upstream_table("b", 'f', &[], &[("y", 1700)]),
    ]
}

/// Plans a statement as the coordinator would, with columns made up for views.
fn plan(catalog: &Catalog, text: &str) -> Result<DdlPlan, Error> {
    let mut statements = crate::parse::parse(text)?;
    assert_eq!(statements.len(), 1);
    let parts = |query: &sqlparser::ast::Query| {
        let text = query.to_string();
        let on: Vec<ObjectId> = catalog
            .items
            .values()
            .filter(|item| text.contains(&catalog.full_name(item.id)))
            .map(|item| item.id)
            .collect();
        ViewParts {
            columns: vec![Column {
                name: "a".to_owned(),
                sql_type: SqlType::Int4,
                nullable: true,
                default: None,
            }],
            query: text,
            depends_on: on,
        }
    };
    match statements.remove(0).kind {
        StatementKind::CreateView(create) => {
            plan_create_view(catalog, &ctx(), &create, &parts(&create.query))
        }
        StatementKind::CreateMaterializedView(create) => {
            plan_create_materialized_view(catalog, &ctx(), &create, &parts(&create.query), None)
        }
        StatementKind::CreateIndex(create) => {
            let relation = super::index_relation(catalog, &ctx(), &create)?;
            let key = match &create.keys {
                None => default_index_key(relation),
                Some(keys) => {
                    let column = |text: &str| {
                        relation
                            .columns()
                            .unwrap()
                            .iter()
                            .position(|column| column.name == text)
                    };
                    keys.iter()
                        .map(|key| IndexKey {
                            expression: key.to_string(),
                            column: column(&key.to_string()),
                        })
                        .collect()
                }
            };
            plan_create_index(catalog, &ctx(), &create, key)
        }
        StatementKind::CreateSource(create) => plan_create_source(
            catalog,
            &ctx(),
            &create,
            &upstream(),
            &[],
            "slot",
            &pg_types::sql_type,
        ),
        StatementKind::CreateTableFromSource(create) => plan_table_from_source(
            catalog,
            &ctx(),
            &create,
            &upstream(),
            &[],
            &pg_types::sql_type,
        ),
        StatementKind::AlterSourceAddSubsource(alter) => {
            plan_add_subsources(catalog, &ctx(), &alter, &upstream(), &pg_types::sql_type)
        }
        StatementKind::AlterCluster(alter) => plan_alter_cluster(catalog, &alter, MACHINE),
        other => plan_ddl(catalog, &ctx(), &other),
    }
}

#[track_caller]
fn run(catalog: &mut Catalog, text: &str) -> DdlPlan {
    let plan = plan(catalog, text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    catalog.apply(&plan.changes).unwrap();
    // Whatever a CREATE text says must be a statement.
    for item in catalog.items.values() {
        if !item.create_sql.starts_with("CREATE SUBSOURCE") {
            crate::parse::parse(&item.create_sql)
                .unwrap_or_else(|error| panic!("{}: {error:?}", item.create_sql));
        }
        assert!(
            item.depends_on
                .iter()
                .all(|on| catalog.items.contains_key(on)),
            "{}",
            item.name
        );
    }
    plan
}

#[test]
fn a_default_is_kept_as_what_it_says() {
    let mut catalog = Catalog::initial();
    run(
        &mut catalog,
        "CREATE TABLE t (a int DEFAULT - -1 + + -2, b text DEFAULT 'it''s')",
    );
    let columns = item(&catalog, "t").columns().unwrap();
    let defaults = columns.iter().map(|column| column.default.as_deref());
    assert_eq!(
        defaults.collect::<Vec<_>>(),
        [Some("-(-1) + +(-2)"), Some("'it''s'")]
    );
}

fn names(catalog: &Catalog) -> Vec<&str> {
    catalog
        .items
        .values()
        .map(|item| item.name.as_str())
        .collect()
}

fn item<'a>(catalog: &'a Catalog, text: &str) -> &'a crate::catalog::Item {
    match catalog.resolve_relation(&ctx(), &name(text)).unwrap() {
        Resolved::Item(item) => item,
        Resolved::System(relation) => panic!("{}", relation.name),
    }
}

fn setup() -> Catalog {
    let mut catalog = Catalog::initial();
    for text in [
        "CREATE TABLE t (a int NOT NULL DEFAULT 1, b text)",
        "CREATE VIEW v AS SELECT a FROM materialize.public.t WHERE t.a > 0",
        "CREATE MATERIALIZED VIEW m AS SELECT a FROM materialize.public.v",
        "CREATE INDEX ON t (b)",
    ] {
        run(&mut catalog, text);
    }
    catalog
}

fn with_source() -> Catalog {
    let mut catalog = Catalog::initial();
    for text in [
        "CREATE SECRET pw AS 'hunter2'",
        "CREATE CONNECTION pg TO POSTGRES (HOST 'h', USER 'u', PASSWORD SECRET pw, DATABASE d, SSL MODE require)",
        "CREATE SOURCE s FROM POSTGRES CONNECTION pg (PUBLICATION 'p') FOR ALL TABLES",
    ] {
        run(&mut catalog, text);
    }
    catalog
}

#[track_caller]
fn fails(catalog: &Catalog, text: &str, kind: ErrorKind, message: &str) -> Error {
    let error = plan(catalog, text).expect_err(text);
    assert_eq!(
        (error.kind, error.message.as_str()),
        (kind, message),
        "{text}: {error:?}"
    );
    error
}

#[test]
fn names_are_found_along_the_search_path_and_in_the_system_first() {
    let mut catalog = setup();
    run(&mut catalog, "CREATE SCHEMA other");
    run(&mut catalog, "CREATE TABLE other.t (c int)");
    let find = |ctx: &ResolveContext, text: &str| match catalog.resolve_relation(ctx, &name(text)) {
        Ok(Resolved::Item(item)) => catalog.full_name(item.id),
        Ok(Resolved::System(relation)) => relation.name.to_owned(),
        Err(error) => error.message,
    };
    assert_eq!(find(&ctx(), "t"), "materialize.public.t");
    assert_eq!(find(&ctx(), "other.t"), "materialize.other.t");
    assert_eq!(find(&ctx(), "materialize.other.t"), "materialize.other.t");
    assert_eq!(
        find(
            &ResolveContext {
                search_path: vec!["nowhere".to_owned(), "other".to_owned()],
                ..ctx()
            },
            "t"
        ),
        "materialize.other.t"
    );
    assert_eq!(find(&ctx(), "mz_sources"), "mz_sources");
    assert_eq!(
        find(&ctx(), "mz_internal.mz_source_statuses"),
        "mz_source_statuses"
    );
    assert_eq!(
        find(&ctx(), "mz_source_statuses"),
        "relation \"mz_source_statuses\" does not exist"
    );
    assert_eq!(find(&ctx(), "x.t"), "schema \"x\" does not exist");
    assert_eq!(find(&ctx(), "x.public.t"), "database \"x\" does not exist");
    assert_eq!(
        find(&ctx(), "nothing"),
        "relation \"nothing\" does not exist"
    );
}

#[test]
fn creating_what_exists_is_an_error_or_a_notice() {
    let catalog = setup();
    let error = fails(
        &catalog,
        "CREATE TABLE t (a int)",
        ErrorKind::DuplicateTable,
        "relation \"t\" already exists",
    );
    assert_eq!(error.position, Some(14));
    let plan = plan(&catalog, "CREATE TABLE IF NOT EXISTS t (a int)").unwrap();
    assert!(plan.changes.is_empty());
    assert_eq!(
        plan.notices[0].message,
        "relation \"t\" already exists, skipping"
    );
    fails(
        &catalog,
        "CREATE DATABASE materialize",
        ErrorKind::DuplicateDatabase,
        "database \"materialize\" already exists",
    );
    fails(
        &catalog,
        "CREATE SCHEMA public",
        ErrorKind::DuplicateSchema,
        "schema \"public\" already exists",
    );
    fails(
        &catalog,
        "CREATE SCHEMA mz_x",
        ErrorKind::InvalidName,
        "unacceptable schema name \"mz_x\"",
    );
    fails(
        &catalog,
        "CREATE TABLE pg_catalog.x (a int)",
        ErrorKind::InsufficientPrivilege,
        "permission denied for schema pg_catalog",
    );
    fails(
        &catalog,
        "CREATE TABLE x (a int, a int)",
        ErrorKind::DuplicateColumn,
        "column \"a\" specified more than once",
    );
    fails(
        &catalog,
        "CREATE TABLE x (a int PRIMARY KEY)",
        ErrorKind::FeatureNotSupported,
        "PRIMARY KEY constraints are not supported",
    );
    fails(
        &catalog,
        "CREATE TEMP TABLE x (a int)",
        ErrorKind::FeatureNotSupported,
        "temporary tables are not supported",
    );
}

#[test]
fn what_others_need_is_not_dropped_without_cascade() {
    let mut catalog = setup();
    let error = fails(
        &catalog,
        "DROP TABLE t",
        ErrorKind::DependentObjectsStillExist,
        "cannot drop table \"t\" because other objects depend on it",
    );
    assert_eq!(
        error.detail.as_deref(),
        Some("view \"v\" depends on table \"t\"\nmaterialized view \"m\" depends on view \"v\"")
    );
    let plan = run(&mut catalog, "DROP TABLE t CASCADE");
    let notices: Vec<_> = plan
        .notices
        .iter()
        .map(|notice| notice.message.as_str())
        .collect();
    assert_eq!(
        notices,
        [
            "drop cascades to view materialize.public.v",
            "drop cascades to materialized view materialize.public.m"
        ]
    );
    assert_eq!(plan.dropped.len(), 4);
    assert!(names(&catalog).is_empty());
    assert_eq!(
        plan.dropped.last(),
        plan.changes.last().and_then(|change| match change {
            CatalogChange::DropItem(id) => Some(id),
            _ => None,
        })
    );
}

#[test]
fn dropping_names_the_right_kind_or_nothing() {
    let mut catalog = setup();
    let error = fails(
        &catalog,
        "DROP VIEW m",
        ErrorKind::WrongObjectType,
        "\"m\" is not a view",
    );
    assert!(error.hint.unwrap().contains("DROP MATERIALIZED VIEW"));
    fails(
        &catalog,
        "DROP TABLE nothing",
        ErrorKind::UndefinedTable,
        "table \"nothing\" does not exist",
    );
    fails(
        &catalog,
        "DROP SECRET nothing",
        ErrorKind::UndefinedObject,
        "secret \"nothing\" does not exist",
    );
    fails(
        &catalog,
        "DROP TABLE pg_catalog.pg_class",
        ErrorKind::InsufficientPrivilege,
        "permission denied: \"pg_catalog.pg_class\" is a system catalog",
    );
    let plan = run(
        &mut catalog,
        "DROP TABLE IF EXISTS nothing, nowhere.nothing",
    );
    assert_eq!(plan.notices.len(), 2);
    run(&mut catalog, "DROP INDEX t_b_idx");
    run(
        &mut catalog,
        "DROP MATERIALIZED VIEW m, v".split(',').next().unwrap(),
    );
    assert_eq!(names(&catalog), ["t", "v"]);
    fails(
        &catalog,
        "DROP SCHEMA public",
        ErrorKind::DependentObjectsStillExist,
        "cannot drop schema \"public\" because other objects depend on it",
    );
    fails(
        &catalog,
        "DROP SCHEMA pg_catalog CASCADE",
        ErrorKind::InsufficientPrivilege,
        "cannot drop schema \"pg_catalog\" because it is required by the database system",
    );
    run(&mut catalog, "DROP SCHEMA public CASCADE");
    assert!(names(&catalog).is_empty());
    run(&mut catalog, "CREATE DATABASE d");
    run(&mut catalog, "CREATE TABLE d.public.x (a int)");
    fails(
        &catalog,
        "DROP DATABASE d RESTRICT",
        ErrorKind::DependentObjectsStillExist,
        "database \"d\" cannot be dropped with RESTRICT while it contains schemas",
    );
    let refused = crate::parse::parse("DROP DATABASE d").unwrap().remove(0);
    let error = plan_ddl(&catalog, &ctx(), &refused.kind).unwrap_err();
    assert_eq!(error.kind, ErrorKind::DependentObjectsStillExist);
    assert_eq!(
        error.detail.as_deref(),
        Some("table \"x\" depends on database \"d\"")
    );
    assert!(error.hint.is_some());
    run(&mut catalog, "DROP DATABASE d CASCADE");
    assert_eq!(catalog.databases.len(), 1);
    assert!(catalog.items.is_empty());
    run(&mut catalog, "CREATE DATABASE empty");
    run(&mut catalog, "DROP DATABASE empty");
}

#[test]
fn databases_that_sessions_need_stay() {
    let mut catalog = setup();
    run(&mut catalog, "CREATE DATABASE d");
    for (database, statement, kind, message) in [
        (
            "materialize",
            "DROP DATABASE materialize CASCADE",
            ErrorKind::ObjectInUse,
            "cannot drop the currently open database",
        ),
        (
            "d",
            "DROP DATABASE materialize CASCADE",
            ErrorKind::DependentObjectsStillExist,
            "cannot drop database \"materialize\"",
        ),
        (
            "d",
            "DROP DATABASE IF EXISTS d",
            ErrorKind::ObjectInUse,
            "cannot drop the currently open database",
        ),
        (
            "d",
            "ALTER DATABASE d RENAME TO e",
            ErrorKind::FeatureNotSupported,
            "current database cannot be renamed",
        ),
        (
            "d",
            "ALTER DATABASE materialize RENAME TO e",
            ErrorKind::DependentObjectsStillExist,
            "cannot rename database \"materialize\"",
        ),
    ] {
        let context = ResolveContext {
            database: database.to_owned(),
            ..ctx()
        };
        let statement = crate::parse::parse(statement).unwrap().remove(0);
        let error = plan_ddl(&catalog, &context, &statement.kind).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (kind, message));
    }
    run(&mut catalog, "DROP DATABASE d");
}

#[test]
fn every_statement_finds_the_same_thing_under_a_name() {
    let mut catalog = setup();
    run(&mut catalog, "CREATE TABLE public.pg_class (a int)");
    run(&mut catalog, "CREATE SCHEMA s");
    run(&mut catalog, "CREATE VIEW s.t AS SELECT 1");
    let kind = |path: &[&str], text: &str| {
        let context = ResolveContext {
            search_path: path.iter().map(|schema| (*schema).to_owned()).collect(),
            ..ctx()
        };
        let statement = crate::parse::parse(text).unwrap().remove(0);
        plan_ddl(&catalog, &context, &statement.kind).map_err(|error| error.kind)
    };
    for statement in [
        "DROP TABLE pg_class",
        "DROP TABLE IF EXISTS pg_class",
        "ALTER TABLE pg_class RENAME TO x",
        "COMMENT ON TABLE pg_class IS 'x'",
        "COMMENT ON COLUMN pg_class.a IS 'x'",
    ] {
        let system = Err(ErrorKind::InsufficientPrivilege);
        assert_eq!(kind(&["public"], statement), system, "{statement}");
        let system_first = ["pg_catalog", "public"];
        assert_eq!(kind(&system_first, statement), system, "{statement}");
        let named_first = kind(&["public", "pg_catalog"], statement);
        assert!(named_first.is_ok(), "{statement}: {named_first:?}");
    }
    // A view before a table of that name is what is meant.
    for statement in ["DROP TABLE t", "ALTER TABLE t RENAME TO x"] {
        let found = kind(&["s", "public"], statement);
        assert_eq!(found, Err(ErrorKind::WrongObjectType), "{statement}");
        let table = kind(&["public", "s"], statement).map(|_| ());
        assert_ne!(table, Err(ErrorKind::WrongObjectType), "{statement}");
    }
    run(&mut catalog.clone(), "CREATE SECRET pg_attribute AS 'x'");
}

#[test]
fn no_object_gets_a_name_with_control_characters() {
    for text in [
        "CREATE TABLE \"\u{1}s\" (a int)",
        "CREATE TABLE t (\"a\u{1}b\" int)",
        "SELECT 1 AS \"a\u{0}\"",
        "SELECT \"\u{1b}\".a FROM t",
        "CREATE SCHEMA \"\u{7f}\"",
        "CREATE ROLE \"\u{1}\"",
    ] {
        let error = crate::parse::parse(text).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidName, "{text}: {error}");
        assert!(error.position.is_some());
    }
    crate::parse::parse("SELECT 1 AS \"two\n\tlines\"").unwrap();
    let error = crate::parse::parse("SELECT 1 AS U&\"\\0001\"").unwrap_err();
    assert_eq!(error.kind, ErrorKind::FeatureNotSupported);
    // Upstreams may have other ideas.
    let mut catalog = with_source();
    let mut plan = DdlPlan::new("");
    let mut table = item(&catalog, "a").clone();
    if let ItemKind::Table { columns, .. } = &mut table.kind {
        columns.first_mut().unwrap().name = "\u{1}id".to_owned();
    }
    plan.changes = vec![CatalogChange::PutItem(Box::new(table))];
    assert_eq!(plan.check_names().unwrap_err().kind, ErrorKind::InvalidName);
    let plan = run(&mut catalog, "CREATE TABLE plain (a int)");
    plan.check_names().unwrap();
}

#[test]
fn indexes_get_names_of_their_own() {
    let mut catalog = setup();
    run(&mut catalog, "CREATE INDEX ON t (b)");
    run(&mut catalog, "CREATE INDEX ON t (a, b)");
    run(&mut catalog, "CREATE INDEX ON t (a + 1)");
    run(&mut catalog, "CREATE DEFAULT INDEX ON t");
    run(&mut catalog, "CREATE DEFAULT INDEX ON t");
    let found: Vec<&str> = catalog
        .items
        .values()
        .filter(|item| matches!(item.kind, ItemKind::Index { .. }))
        .map(|item| item.name.as_str())
        .collect();
    assert_eq!(
        found,
        [
            "t_b_idx",
            "t_b_idx1",
            "t_a_b_idx",
            "t_expr_idx",
            "t_primary_idx",
            "t_primary_idx1"
        ]
    );
    fails(
        &catalog,
        "CREATE INDEX t_b_idx ON t (a)",
        ErrorKind::DuplicateTable,
        "relation \"t_b_idx\" already exists",
    );
    fails(
        &catalog,
        "CREATE INDEX IN CLUSTER other ON t (a)",
        ErrorKind::UndefinedObject,
        "cluster \"other\" does not exist",
    );
    fails(
        &catalog,
        "CREATE INDEX ON mz_sources (id)",
        ErrorKind::InsufficientPrivilege,
        "permission denied: \"mz_sources\" is a system catalog",
    );
}

#[test]
fn or_replace_replaces_what_nothing_needs() {
    let mut catalog = setup();
    fails(
        &catalog,
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        ErrorKind::DependentObjectsStillExist,
        "cannot drop view \"v\" because other objects depend on it",
    );
    fails(
        &catalog,
        "CREATE OR REPLACE VIEW t AS SELECT 1",
        ErrorKind::WrongObjectType,
        "\"t\" is not a view",
    );
    let before = item(&catalog, "m").id;
    let plan = run(
        &mut catalog,
        "CREATE OR REPLACE MATERIALIZED VIEW m AS SELECT 2",
    );
    assert_eq!(plan.dropped, [before]);
    assert_ne!(item(&catalog, "m").id, before);
    fails(
        &catalog,
        "CREATE OR REPLACE MATERIALIZED VIEW m AS SELECT a FROM materialize.public.m",
        ErrorKind::InvalidObjectDefinition,
        "\"m\" cannot be replaced by a query that reads it",
    );
}

#[test]
fn renaming_changes_every_text_that_says_the_name() {
    let mut catalog = setup();
    run(&mut catalog, "ALTER TABLE t RENAME TO \"T 2\"");
    let query = |catalog: &Catalog, name: &str| match &item(catalog, name).kind {
        ItemKind::View { query, .. } | ItemKind::MaterializedView { query, .. } => query.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        query(&catalog, "v"),
        "SELECT a FROM materialize.public.\"T 2\" AS t WHERE t.a > 0"
    );
    assert!(item(&catalog, "v").create_sql.contains("\"T 2\""));
    run(&mut catalog, "ALTER SCHEMA public RENAME TO q");
    let moved = ResolveContext {
        search_path: vec!["q".to_owned()],
        ..ctx()
    };
    let Ok(Resolved::Item(view)) = catalog.resolve_relation(&moved, &name("m")) else {
        panic!("no m")
    };
    assert_eq!(
        view.create_sql,
        "CREATE MATERIALIZED VIEW materialize.q.m (a) IN CLUSTER quickstart AS SELECT a FROM materialize.q.v"
    );
    run(&mut catalog, "CREATE DATABASE other");
    run(&mut catalog, "CREATE SCHEMA other.q");
    run(&mut catalog, "CREATE TABLE other.q.far (a int)");
    run(
        &mut catalog,
        "CREATE VIEW other.q.away AS SELECT a FROM other.q.far",
    );
    run(&mut catalog, "ALTER DATABASE other RENAME TO db");
    let texts = || catalog.items.values().map(|item| &item.create_sql);
    assert_eq!(texts().filter(|text| text.contains("db.q.")).count(), 2);
    assert!(texts().all(|text| !text.contains("other.")));
    run(&mut catalog, "CREATE SCHEMA db.r");
    assert_eq!(
        plan(&catalog, "ALTER SCHEMA db.r RENAME TO q").map_err(|error| error.kind),
        Err(ErrorKind::DuplicateSchema)
    );
    run(&mut catalog, "ALTER SCHEMA db.r SWAP WITH q");
    assert!(
        catalog
            .items
            .values()
            .all(|item| !item.create_sql.contains("db.q."))
    );
}

#[test]
fn a_source_brings_its_progress_and_its_tables() {
    let mut catalog = with_source();
    assert_eq!(names(&catalog), ["pw", "pg", "s", "s_progress", "a", "b"]);
    let a = item(&catalog, "a");
    let ItemKind::Table {
        columns,
        key,
        source: Some(fed),
    } = &a.kind
    else {
        panic!("no table")
    };
    assert_eq!(
        columns
            .iter()
            .map(|column| column.sql_type.to_string())
            .collect::<Vec<_>>(),
        ["integer", "text"]
    );
    assert_eq!(
        (
            key.as_deref(),
            fed.table.key.as_slice(),
            fed.owned,
            fed.table.id
        ),
        (Some(&[0][..]), &[0][..], true, a.id)
    );
    let ItemKind::Table {
        key,
        source: Some(fed),
        ..
    } = &item(&catalog, "b").kind
    else {
        panic!("no table")
    };
    assert_eq!((key, fed.table.key.len()), (&None, 0));
    assert!(!format!("{catalog:?}").contains("hunter2"));
    fails(
        &catalog,
        "DROP SECRET pw",
        ErrorKind::DependentObjectsStillExist,
        "cannot drop secret \"pw\" because other objects depend on it",
    );
    fails(
        &catalog,
        "DROP SOURCE s_progress",
        ErrorKind::DependentObjectsStillExist,
        "cannot drop progress relation \"s_progress\" because source \"s\" needs it",
    );
    run(
        &mut catalog,
        "CREATE VIEW v AS SELECT 1 FROM materialize.public.a",
    );
    fails(
        &catalog,
        "DROP SOURCE s",
        ErrorKind::DependentObjectsStillExist,
        "cannot drop source \"s\" because other objects depend on it",
    );
    run(&mut catalog, "DROP SOURCE b");
    run(
        &mut catalog,
        "ALTER SOURCE s ADD SUBSOURCE b AS b2 WITH (TEXT COLUMNS (b.y))",
    );
    assert_eq!(
        item(&catalog, "b2").columns().unwrap()[0].sql_type,
        SqlType::Text
    );
    run(&mut catalog, "ALTER SOURCE s DROP SUBSOURCE b2");
    run(
        &mut catalog,
        "CREATE TABLE mine FROM SOURCE s (REFERENCE public.a) WITH (EXCLUDE COLUMNS (x))",
    );
    assert_eq!(item(&catalog, "mine").columns().unwrap().len(), 1);
    fails(
        &catalog,
        "ALTER SOURCE s DROP SUBSOURCE mine",
        ErrorKind::WrongObjectType,
        "\"mine\" is not a subsource",
    );
    let plan = run(&mut catalog, "DROP SOURCE s CASCADE");
    assert_eq!(plan.notices.len(), 2);
    assert_eq!(names(&catalog), ["pw", "pg"]);
}

#[test]
fn a_source_that_does_not_fit_its_upstream_says_what_to_do() {
    let catalog = with_source();
    let create = |text: &str, upstream: &[UpstreamTable]| {
        let text = format!("CREATE SOURCE z FROM POSTGRES CONNECTION pg (PUBLICATION 'p'{text}");
        let StatementKind::CreateSource(create) =
            crate::parse::parse(&text).unwrap().remove(0).kind
        else {
            panic!("no source")
        };
        plan_create_source(
            &catalog,
            &ctx(),
            &create,
            upstream,
            &[],
            "slot",
            &pg_types::sql_type,
        )
    };
    let money = [upstream_table(
        "money",
        'd',
        &["id"],
        &[("id", 23), ("m", 790)],
    )];
    let error = create(") FOR ALL TABLES", &money).expect_err("money");
    assert_eq!(
        error.message,
        "columns with unsupported types: public.money.m"
    );
    assert!(
        error
            .hint
            .unwrap()
            .starts_with("Use TEXT COLUMNS (public.money.m)")
    );
    assert!(create(", TEXT COLUMNS (money.m)) FOR ALL TABLES", &money).is_ok());
    assert!(create(", EXCLUDE COLUMNS (public.money.m)) FOR ALL TABLES", &money).is_ok());
    let error = create(
        ", EXCLUDE COLUMNS (money.m, money.id)) FOR ALL TABLES",
        &money,
    )
    .expect_err("key");
    assert_eq!(
        error.message,
        "key columns of table public.money cannot be excluded"
    );
    let error = create(", TEXT COLUMNS (money.x)) FOR ALL TABLES", &money).expect_err("column");
    assert_eq!(
        error.message,
        "invalid TEXT COLUMNS: column money.x not found in source"
    );

    let keyless = [upstream_table("k", 'd', &[], &[("y", 23)])];
    let error = create(") FOR ALL TABLES", &keyless).expect_err("keyless");
    assert_eq!(
        error.message,
        "referenced items not tables with REPLICA IDENTITY FULL"
    );
    assert!(
        error
            .hint
            .unwrap()
            .contains("ALTER TABLE public.k REPLICA IDENTITY FULL;")
    );

    assert_eq!(
        create(") FOR ALL TABLES", &[]).expect_err("empty").message,
        "publication \"p\" is empty"
    );
    assert_eq!(
        create(") FOR TABLES (nope)", &money)
            .expect_err("nope")
            .message,
        "reference to nope not found in source"
    );
    assert_eq!(
        create(") FOR SCHEMAS (nope)", &money)
            .expect_err("nope")
            .message,
        "reference to schema nope not found in source"
    );
    let error = create(
        ") FOR TABLES (money AS x, money AS x)",
        &[upstream_table("money", 'f', &[], &[("id", 23)])],
    )
    .expect_err("twice");
    assert_eq!(error.message, "multiple subsources would be named \"x\"");
    assert_eq!(
        create(") FOR ALL TABLES", &upstream())
            .expect_err("taken")
            .message,
        "relation \"a\" already exists"
    );
}

#[test]
fn a_counter_is_read_by_the_name_of_its_source() {
    let mut catalog = Catalog::initial();
    let text = "CREATE SOURCE c FROM LOAD GENERATOR COUNTER (MAX CARDINALITY 10)";
    let StatementKind::CreateSource(create) = crate::parse::parse(text).unwrap().remove(0).kind
    else {
        panic!("no source")
    };
    let table = UpstreamTable {
        oid: 0,
        ..upstream_table("counter", 'f', &[], &[("counter", 20)])
    };
    let plan = plan_create_source(
        &catalog,
        &ctx(),
        &create,
        &[table],
        &[],
        "",
        &pg_types::sql_type,
    )
    .unwrap();
    catalog.apply(&plan.changes).unwrap();
    assert_eq!(item(&catalog, "c").columns().unwrap()[0].name, "counter");
    let first = catalog
        .items
        .values()
        .find(|item| item.name == "c")
        .unwrap();
    assert!(
        matches!(first.kind, ItemKind::Table { .. }),
        "whoever looks names up by id finds the table first"
    );
    assert!(matches!(
        catalog
            .resolve_item(&ctx(), &name("c"), ObjectType::Source)
            .unwrap()
            .kind,
        ItemKind::Source(_)
    ));
    run(&mut catalog, "ALTER SOURCE c RENAME TO d");
    assert_eq!(item(&catalog, "d").columns().unwrap().len(), 1);
    run(&mut catalog, "DROP SOURCE d");
    assert!(names(&catalog).is_empty());
}

#[test]
fn connections_are_checked_and_changed() {
    let mut catalog = with_source();
    fails(
        &catalog,
        "CREATE CONNECTION x TO POSTGRES (USER u, DATABASE d)",
        ErrorKind::InvalidParameterValue,
        "option HOST is required",
    );
    fails(
        &catalog,
        "CREATE CONNECTION x TO POSTGRES (HOST h, PASSWORD 'p')",
        ErrorKind::InvalidParameterValue,
        "invalid PASSWORD: must be a secret",
    );
    fails(
        &catalog,
        "CREATE CONNECTION x TO POSTGRES (HOST h, PASSWORD SECRET q)",
        ErrorKind::UndefinedObject,
        "secret \"q\" does not exist",
    );
    fails(
        &catalog,
        "CREATE CONNECTION x TO POSTGRES (HOST h, PORT 99999)",
        ErrorKind::InvalidParameterValue,
        "invalid PORT: must be a number between 1 and 65535",
    );
    fails(
        &catalog,
        "CREATE CONNECTION x TO POSTGRES (HOST h, SSH TUNNEL t)",
        ErrorKind::FeatureNotSupported,
        "option SSH TUNNEL is not supported",
    );
    run(
        &mut catalog,
        "ALTER CONNECTION pg SET (HOST 'other', PORT 6000), RESET (PASSWORD)",
    );
    let connection = catalog
        .resolve_item(&ctx(), &name("pg"), ObjectType::Connection)
        .unwrap();
    assert_eq!(
        connection.create_sql,
        "CREATE CONNECTION materialize.public.pg TO POSTGRES (HOST = 'other', PORT = 6000, USER = 'u', DATABASE = 'd', SSL MODE = require)"
    );
    run(&mut catalog, "DROP SECRET pw");
    let error = fails(
        &catalog,
        "ALTER CONNECTION pg DROP (HOST)",
        ErrorKind::InvalidParameterValue,
        "option HOST is required",
    );
    assert_eq!(
        error.hint.as_deref(),
        Some("It cannot be taken away: give it another value with SET (HOST …).")
    );
    assert_eq!(error.position, Some(27));
    fails(
        &catalog,
        "ALTER CONNECTION pg RESET (BROKER)",
        ErrorKind::FeatureNotSupported,
        "option BROKER is not supported",
    );
    fails(
        &catalog,
        "ALTER CONNECTION pg SET (PORT 1), RESET (PORT)",
        ErrorKind::Syntax,
        "option PORT specified more than once",
    );
}

#[test]
fn comments_come_and_go() {
    let mut catalog = setup();
    run(&mut catalog, "COMMENT ON TABLE t IS 'about t'");
    run(&mut catalog, "COMMENT ON COLUMN t.b IS 'about b'");
    assert_eq!(item(&catalog, "t").comment.as_deref(), Some("about t"));
    assert_eq!(
        item(&catalog, "t")
            .column_comments
            .get(&1)
            .map(String::as_str),
        Some("about b")
    );
    run(&mut catalog, "COMMENT ON COLUMN t.b IS NULL");
    assert!(item(&catalog, "t").column_comments.is_empty());
    fails(
        &catalog,
        "COMMENT ON COLUMN t.x IS 'x'",
        ErrorKind::UndefinedColumn,
        "column \"x\" of relation \"t\" does not exist",
    );
}
