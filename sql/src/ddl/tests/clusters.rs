//! Tests of statements about clusters, and of what is in them.

use flowstone_types::ClusterId;

use super::{MACHINE, ctx, fails, plan, run, setup};
use crate::ast::StatementKind;
use crate::catalog::{Catalog, CatalogChange, Cluster, Item};
use crate::ddl::{DdlPlan, create_cluster_sql, plan_create_materialized_view};
use crate::error::ErrorKind;

fn cluster<'a>(catalog: &'a Catalog, name: &str) -> &'a Cluster {
    catalog.find_cluster(name).expect(name)
}

fn item<'a>(catalog: &'a Catalog, name: &str) -> &'a Item {
    let mut items = catalog.items.values();
    items.find(|item| item.name == name).expect(name)
}

fn replicas(catalog: &Catalog, name: &str) -> Vec<(u64, String, Option<&'static str>)> {
    let replicas = cluster(catalog, name).replicas.iter();
    replicas
        .map(|replica| {
            (
                replica.id.0,
                replica.name.clone(),
                replica.size.map(crate::catalog::ClusterSize::name),
            )
        })
        .collect()
}

fn threads(catalog: &Catalog, name: &str) -> usize {
    cluster(catalog, name).threads(MACHINE)
}

fn notices(plan: &DdlPlan) -> Vec<&str> {
    plan.notices
        .iter()
        .map(|notice| notice.message.as_str())
        .collect()
}

#[test]
fn a_managed_cluster_has_the_replicas_that_its_options_say() {
    let mut catalog = Catalog::initial();
    let plan = run(&mut catalog, "CREATE CLUSTER c (SIZE = '200cc')");
    assert_eq!(
        (plan.tag.as_str(), plan.notices.len()),
        ("CREATE CLUSTER", 0)
    );
    assert_eq!(cluster(&catalog, "c").id, ClusterId(2));
    assert_eq!(
        replicas(&catalog, "c"),
        [(2, "r1".to_owned(), Some("200cc"))]
    );
    assert_eq!(threads(&catalog, "c"), 2);
    assert_eq!(
        create_cluster_sql(cluster(&catalog, "c")),
        "CREATE CLUSTER c (SIZE = '200cc', REPLICATION FACTOR = 1)"
    );
    // Never more than the machine has, and never less than one.
    run(&mut catalog, "ALTER CLUSTER c SET (SIZE = '512C')");
    assert_eq!(threads(&catalog, "c"), MACHINE.threads);
    run(&mut catalog, "ALTER CLUSTER c SET (SIZE '25CC')");
    assert_eq!(threads(&catalog, "c"), 1);

    let plan = run(&mut catalog, "ALTER CLUSTER c SET (REPLICATION FACTOR = 3)");
    assert_eq!(
        notices(&plan),
        ["a node of one process runs one replica of a cluster, not 3"]
    );
    assert_eq!(threads(&catalog, "c"), 1);
    run(&mut catalog, "ALTER CLUSTER c SET (REPLICATION FACTOR = 0)");
    assert_eq!(
        (threads(&catalog, "c"), replicas(&catalog, "c").len()),
        (0, 0)
    );
    run(&mut catalog, "ALTER CLUSTER c RESET (REPLICATION FACTOR)");
    assert_eq!(
        replicas(&catalog, "c"),
        [(5, "r1".to_owned(), Some("25cc"))]
    );
    let plan = run(&mut catalog, "ALTER CLUSTER c SET (SIZE = '25cc')");
    assert!(plan.changes.is_empty(), "it has that size");

    run(&mut catalog, "DROP CLUSTER c");
    run(&mut catalog, "CREATE CLUSTER c SIZE '25cc'");
    assert_eq!(
        cluster(&catalog, "c").id,
        ClusterId(3),
        "ids are not reused"
    );
}

#[test]
fn what_no_cluster_can_be_is_refused() {
    let mut catalog = Catalog::initial();
    run(&mut catalog, "CREATE CLUSTER c (SIZE = '25cc')");
    let error = fails(
        &catalog,
        "CREATE CLUSTER d (SIZE = 'huge')",
        ErrorKind::InvalidParameterValue,
        "unknown cluster size \"huge\"",
    );
    assert_eq!(error.position, Some(26));
    assert!(error.hint.is_some_and(|hint| {
        hint.starts_with("Valid sizes are: 25cc, 50cc,") && hint.ends_with(", 512C.")
    }));
    for (text, kind, message) in [
        (
            "CREATE CLUSTER c (SIZE '25cc')",
            ErrorKind::DuplicateObject,
            "cluster \"c\" already exists",
        ),
        (
            "CREATE CLUSTER quickstart (SIZE '25cc')",
            ErrorKind::DuplicateObject,
            "cluster \"quickstart\" already exists",
        ),
        (
            "CREATE CLUSTER mz_system (SIZE '25cc')",
            ErrorKind::DuplicateObject,
            "cluster \"mz_system\" already exists",
        ),
        (
            "CREATE CLUSTER mz_mine (SIZE '25cc')",
            ErrorKind::ReservedName,
            "cluster name \"mz_mine\" is reserved",
        ),
        (
            "CREATE CLUSTER d",
            ErrorKind::InvalidParameterValue,
            "option SIZE is required",
        ),
        (
            "CREATE CLUSTER d (MANAGED = false, SIZE '25cc')",
            ErrorKind::InvalidParameterValue,
            "option SIZE cannot be given for an unmanaged cluster",
        ),
        (
            "CREATE CLUSTER d (SIZE '25cc', REPLICATION FACTOR = 33)",
            ErrorKind::InvalidParameterValue,
            "a cluster has at most 32 replicas",
        ),
        (
            "ALTER CLUSTER d SET (SIZE '25cc')",
            ErrorKind::UndefinedObject,
            "cluster \"d\" does not exist",
        ),
        (
            "ALTER CLUSTER mz_system SET (SIZE '25cc')",
            ErrorKind::InsufficientPrivilege,
            "system cluster \"mz_system\" cannot be modified",
        ),
        (
            "ALTER CLUSTER c RESET (SIZE)",
            ErrorKind::InvalidParameterValue,
            "option SIZE is required",
        ),
        (
            "ALTER CLUSTER c RENAME TO quickstart",
            ErrorKind::DuplicateObject,
            "cluster \"quickstart\" already exists",
        ),
        (
            "ALTER CLUSTER c RENAME TO pg_c",
            ErrorKind::ReservedName,
            "cluster name \"pg_c\" is reserved",
        ),
        (
            "ALTER CLUSTER c SWAP WITH d",
            ErrorKind::UndefinedObject,
            "cluster \"d\" does not exist",
        ),
        (
            "DROP CLUSTER d",
            ErrorKind::UndefinedObject,
            "cluster \"d\" does not exist",
        ),
        (
            "COMMENT ON CLUSTER d IS 'x'",
            ErrorKind::UndefinedObject,
            "cluster \"d\" does not exist",
        ),
        (
            "DROP CLUSTER mz_catalog_server",
            ErrorKind::InsufficientPrivilege,
            "system cluster \"mz_catalog_server\" cannot be modified",
        ),
    ] {
        fails(&catalog, text, kind, message);
    }
    for (text, notice) in [
        (
            "CREATE CLUSTER IF NOT EXISTS c (SIZE '50cc')",
            "cluster \"c\" already exists, skipping",
        ),
        (
            "ALTER CLUSTER IF EXISTS d SET (SIZE '50cc')",
            "cluster \"d\" does not exist, skipping",
        ),
        (
            "ALTER CLUSTER IF EXISTS d RENAME TO e",
            "cluster \"d\" does not exist, skipping",
        ),
        (
            "DROP CLUSTER IF EXISTS d",
            "cluster \"d\" does not exist, skipping",
        ),
    ] {
        let plan = plan(&catalog, text).unwrap();
        assert!(plan.changes.is_empty(), "{text}");
        assert_eq!(notices(&plan), [notice], "{text}");
    }
}

#[test]
fn the_cluster_of_the_process_keeps_its_threads() {
    let mut catalog = Catalog::initial();
    assert_eq!(threads(&catalog, "quickstart"), MACHINE.shards);
    for (text, message) in [
        (
            "ALTER CLUSTER quickstart SET (SIZE = '400cc')",
            "cluster \"quickstart\" cannot be resized: its threads are those of the process",
        ),
        (
            "ALTER CLUSTER quickstart SET (REPLICATION FACTOR 0)",
            "cluster \"quickstart\" cannot be paused: its threads are those of the process",
        ),
        (
            "ALTER CLUSTER quickstart SET (MANAGED false)",
            "cluster \"quickstart\" cannot be unmanaged: its threads are those of the process",
        ),
    ] {
        let error = fails(&catalog, text, ErrorKind::FeatureNotSupported, message);
        assert!(error.hint.is_some_and(|hint| hint.contains("--shards")));
    }
    fails(
        &catalog,
        "DROP CLUSTER quickstart CASCADE",
        ErrorKind::FeatureNotSupported,
        "cluster \"quickstart\" cannot be dropped",
    );
    // Two threads are what it has.
    let plan = run(
        &mut catalog,
        "ALTER CLUSTER quickstart SET (SIZE = '200cc')",
    );
    assert!(plan.changes.is_empty());
    run(&mut catalog, "ALTER CLUSTER quickstart RENAME TO old");
    assert_eq!(cluster(&catalog, "old").id, ClusterId::DEFAULT);
}

#[test]
fn replicas_of_an_unmanaged_cluster_are_made_one_by_one() {
    let mut catalog = Catalog::initial();
    run(
        &mut catalog,
        "CREATE CLUSTER c REPLICAS (a (SIZE '25cc'), b (SIZE '300cc'))",
    );
    assert_eq!(threads(&catalog, "c"), 3, "the largest replica runs");
    assert_eq!(
        create_cluster_sql(cluster(&catalog, "c")),
        "CREATE CLUSTER c REPLICAS (a (SIZE = '25cc'), b (SIZE = '300cc'))"
    );
    run(&mut catalog, "CREATE CLUSTER REPLICA c.d SIZE = '50cc'");
    for (text, kind, message) in [
        (
            "CREATE CLUSTER REPLICA c.a SIZE '25cc'",
            ErrorKind::DuplicateObject,
            "cluster replica \"c.a\" already exists",
        ),
        (
            "CREATE CLUSTER REPLICA c.e",
            ErrorKind::InvalidParameterValue,
            "option SIZE is required",
        ),
        (
            "CREATE CLUSTER REPLICA quickstart.r2 SIZE '25cc'",
            ErrorKind::WrongObjectType,
            "cluster \"quickstart\" is managed",
        ),
        (
            "DROP CLUSTER REPLICA quickstart.r1",
            ErrorKind::WrongObjectType,
            "cluster \"quickstart\" is managed",
        ),
        (
            "DROP CLUSTER REPLICA c.z",
            ErrorKind::UndefinedObject,
            "cluster replica \"c.z\" does not exist",
        ),
        (
            "ALTER CLUSTER c SET (SIZE '25cc')",
            ErrorKind::InvalidParameterValue,
            "option SIZE cannot be given for an unmanaged cluster",
        ),
        (
            "ALTER CLUSTER c SET (MANAGED)",
            ErrorKind::InvalidParameterValue,
            "option SIZE is required",
        ),
    ] {
        fails(&catalog, text, kind, message);
    }
    run(&mut catalog, "DROP CLUSTER REPLICA c.b, c.d");
    assert_eq!(replicas(&catalog, "c").len(), 1);
    run(&mut catalog, "ALTER CLUSTER c SET (MANAGED)");
    assert_eq!(
        replicas(&catalog, "c"),
        [(2, "r1".to_owned(), Some("25cc"))]
    );
    run(&mut catalog, "ALTER CLUSTER c SET (MANAGED = false)");
    run(&mut catalog, "DROP CLUSTER REPLICA c.r1");
    assert_eq!(threads(&catalog, "c"), 0);
    let plan = run(&mut catalog, "DROP CLUSTER REPLICA IF EXISTS c.r1, d.r1");
    assert_eq!(
        notices(&plan),
        [
            "cluster replica \"c.r1\" does not exist, skipping",
            "cluster \"d\" does not exist, skipping"
        ]
    );
    assert!(plan.changes.is_empty(), "nothing was there");
    // Of a managed cluster what is not there need not be dropped either.
    let plan = run(
        &mut catalog,
        "DROP CLUSTER REPLICA IF EXISTS quickstart.r9, quickstart.r9",
    );
    let skipped = "cluster replica \"quickstart.r9\" does not exist, skipping";
    assert_eq!(notices(&plan), [skipped, skipped]);
    assert!(plan.changes.is_empty());
    fails(
        &catalog,
        "DROP CLUSTER REPLICA IF EXISTS quickstart.r1",
        ErrorKind::WrongObjectType,
        "cluster \"quickstart\" is managed",
    );
    // What goes twice is gone the second time.
    run(
        &mut catalog,
        "CREATE CLUSTER e REPLICAS (a (SIZE '25cc'), b (SIZE '25cc'))",
    );
    fails(
        &catalog,
        "DROP CLUSTER REPLICA e.a, e.a",
        ErrorKind::UndefinedObject,
        "cluster replica \"e.a\" does not exist",
    );
    run(&mut catalog, "DROP CLUSTER REPLICA IF EXISTS e.a, e.a");
    assert_eq!(replicas(&catalog, "e").len(), 1);
}

#[test]
fn the_catalog_keeps_the_default_cluster_whoever_asks() {
    let mut catalog = Catalog::initial();
    let change = CatalogChange::DropCluster(ClusterId::DEFAULT);
    let error = catalog.apply(&[change]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(catalog.find_cluster("quickstart").is_some());
}

#[test]
fn what_is_made_of_a_paused_view_stands_still_with_it() {
    let mut catalog = setup();
    run(&mut catalog, "CREATE CLUSTER c (SIZE '25cc')");
    run(
        &mut catalog,
        "CREATE MATERIALIZED VIEW in_c IN CLUSTER c AS SELECT a FROM materialize.public.t",
    );
    run(
        &mut catalog,
        "CREATE VIEW middle AS SELECT a FROM materialize.public.in_c",
    );
    run(
        &mut catalog,
        "CREATE MATERIALIZED VIEW above AS SELECT a FROM materialize.public.middle",
    );
    let paused = |catalog: &Catalog| {
        let mut names = Vec::new();
        for found in catalog.items.values() {
            if catalog.is_paused(found.id) {
                names.push(found.name.clone());
            }
        }
        names
    };
    assert!(paused(&catalog).is_empty());
    run(&mut catalog, "ALTER CLUSTER c SET (REPLICATION FACTOR 0)");
    assert!(!cluster(&catalog, "c").is_running());
    assert_eq!(paused(&catalog), ["in_c", "middle", "above"]);
    let error = catalog
        .refuse_paused(item(&catalog, "above").id)
        .unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (
            ErrorKind::NotInPrerequisiteState,
            "materialized view \"above\" cannot be read: cluster \"c\" is paused"
        )
    );
    assert_eq!(
        error.hint.as_deref(),
        Some("ALTER CLUSTER c SET (REPLICATION FACTOR 1) lets it go on.")
    );
    assert_eq!(catalog.refuse_paused(item(&catalog, "t").id), Ok(()));
    run(&mut catalog, "ALTER CLUSTER c SET (MANAGED = false)");
    let hint = cluster(&catalog, "c").resume_hint();
    assert_eq!(
        hint,
        "CREATE CLUSTER REPLICA c.r1 (SIZE '25cc') lets it go on."
    );
    run(&mut catalog, "CREATE CLUSTER REPLICA c.r1 (SIZE '25cc')");
    assert!(paused(&catalog).is_empty());
}

#[test]
fn what_is_made_is_in_the_named_cluster_or_in_the_sessions() {
    let mut catalog = setup();
    run(&mut catalog, "CREATE CLUSTER c (SIZE '25cc')");
    run(
        &mut catalog,
        "CREATE MATERIALIZED VIEW in_c IN CLUSTER c AS SELECT a FROM materialize.public.t",
    );
    run(&mut catalog, "CREATE INDEX i IN CLUSTER c ON t (a)");
    run(&mut catalog, "CREATE DEFAULT INDEX d IN CLUSTER c ON m");
    run(
        &mut catalog,
        "CREATE SOURCE g IN CLUSTER c FROM LOAD GENERATOR COUNTER",
    );
    let of = |catalog: &Catalog, name: &str| catalog.cluster_of(item(catalog, name).id);
    for name in ["in_c", "i", "d"] {
        assert_eq!(of(&catalog, name), ClusterId(2), "{name}");
        assert!(item(&catalog, name).create_sql.contains(" IN CLUSTER c "));
    }
    let sources = catalog.items.values();
    let source = sources
        .filter(|item| item.name == "g")
        .find(|item| matches!(item.kind, crate::catalog::ItemKind::Source(_)))
        .unwrap();
    assert_eq!(catalog.cluster_of(source.id), ClusterId(2));
    assert!(source.create_sql.contains("g IN CLUSTER c FROM"));
    assert_eq!(of(&catalog, "m"), ClusterId::DEFAULT);

    // Without a name the session's cluster is meant, and it must exist.
    let create = |cluster: &str| {
        let text = "CREATE MATERIALIZED VIEW x AS SELECT 1";
        let StatementKind::CreateMaterializedView(create) =
            crate::parse::parse(text).unwrap().remove(0).kind
        else {
            panic!("none")
        };
        let context = crate::catalog::ResolveContext {
            cluster: cluster.to_owned(),
            ..ctx()
        };
        let parts = crate::ddl::ViewParts {
            columns: Vec::new(),
            query: "SELECT 1".to_owned(),
            depends_on: Vec::new(),
        };
        plan_create_materialized_view(&catalog, &context, &create, &parts, None)
    };
    let mut after = catalog.clone();
    after.apply(&create("c").unwrap().changes).unwrap();
    assert_eq!(of(&after, "x"), ClusterId(2));
    for (cluster, kind) in [
        ("nowhere", ErrorKind::UndefinedObject),
        ("mz_system", ErrorKind::InsufficientPrivilege),
    ] {
        let error = create(cluster).unwrap_err();
        assert_eq!((error.kind, error.position), (kind, None), "{cluster}");
        assert!(error.hint.is_some());
    }
    fails(
        &catalog,
        "CREATE SOURCE h IN CLUSTER nowhere FROM LOAD GENERATOR COUNTER",
        ErrorKind::UndefinedObject,
        "cluster \"nowhere\" does not exist",
    );

    // The texts follow the cluster's name, and what is in it stays in it.
    run(&mut catalog, "CREATE CLUSTER other (SIZE '25cc')");
    run(&mut catalog, "ALTER CLUSTER c SWAP WITH other");
    assert_eq!(of(&catalog, "i"), ClusterId(2));
    assert!(
        item(&catalog, "i")
            .create_sql
            .contains(" IN CLUSTER other ")
    );
    run(&mut catalog, "ALTER CLUSTER other RENAME TO \"New\"");
    assert!(
        item(&catalog, "i")
            .create_sql
            .contains(" IN CLUSTER \"New\" ")
    );
    run(&mut catalog, "COMMENT ON CLUSTER \"New\" IS 'mine'");
    let comment = cluster(&catalog, "New").comment.as_deref();
    assert_eq!(comment, Some("mine"));
}

#[test]
fn a_cluster_goes_with_what_is_in_it_or_not_at_all() {
    let mut catalog = setup();
    run(&mut catalog, "CREATE CLUSTER c (SIZE '25cc')");
    run(
        &mut catalog,
        "CREATE MATERIALIZED VIEW in_c IN CLUSTER c AS SELECT a FROM materialize.public.t",
    );
    run(
        &mut catalog,
        "CREATE MATERIALIZED VIEW above AS SELECT a FROM materialize.public.in_c",
    );
    run(&mut catalog, "CREATE INDEX i IN CLUSTER c ON t (a)");
    let error = fails(
        &catalog,
        "DROP CLUSTER c",
        ErrorKind::DependentObjectsStillExist,
        "cannot drop cluster \"c\" because other objects depend on it",
    );
    assert_eq!(
        error.detail.as_deref(),
        Some(
            "materialized view \"in_c\" depends on cluster \"c\"\nindex \"i\" depends on cluster \"c\""
        )
    );
    let [in_c, above, i] = ["in_c", "above", "i"].map(|name| item(&catalog, name).id);
    let plan = run(&mut catalog, "DROP CLUSTER c CASCADE");
    assert_eq!(plan.dropped, [above, in_c, i]);
    assert_eq!(
        notices(&plan),
        [
            "drop cascades to materialized view materialize.public.in_c",
            "drop cascades to index materialize.public.i",
            "drop cascades to materialized view materialize.public.above"
        ]
    );
    assert!(catalog.find_cluster("c").is_none());
    assert!(catalog.clusters.of_items.is_empty());
    assert!(catalog.items.values().any(|item| item.name == "t"));
}
