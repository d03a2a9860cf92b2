//! Tests of the system relations: every one has the rows it declares, and the rows tell the truth about a catalog.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use flowstone_proto::message::{CollectionStatistics, SourceStatus};
use flowstone_types::{ClusterId, Epoch, ObjectId, SqlType};

use super::{
    RuntimeState, SessionInfo, SessionState, SessionVariable, StatusState, SubscriptionState,
    SystemContext, relation, relations, rows,
};
use crate::catalog::{
    Catalog, CatalogChange, Cluster, ClusterKind, ClusterSize, Column, FIRST_USER_OID, IndexKey,
    Item, ItemKind, SchemaId,
};

fn catalog() -> Catalog {
    let mut catalog = Catalog::initial();
    let columns = vec![
        Column {
            name: "a".to_owned(),
            sql_type: SqlType::Int4,
            nullable: false,
            default: Some("1".to_owned()),
        },
        Column {
            name: "b".to_owned(),
            sql_type: SqlType::VarChar(Some(5)),
            nullable: true,
            default: None,
        },
    ];
    let kinds = [
        (
            "t",
            ItemKind::Table {
                columns: columns.clone(),
                key: None,
                source: None,
            },
            vec![],
        ),
        (
            "v",
            ItemKind::View {
                columns: columns.clone(),
                query: "SELECT a, b FROM materialize.public.t".to_owned(),
            },
            vec![ObjectId::User(2000)],
        ),
        (
            "m",
            ItemKind::MaterializedView {
                columns,
                query: "SELECT a, b FROM materialize.public.v".to_owned(),
                key: None,
            },
            vec![ObjectId::User(2001)],
        ),
        (
            "i",
            ItemKind::Index {
                on: ObjectId::User(2000),
                key: vec![
                    IndexKey {
                        expression: "b".to_owned(),
                        column: Some(1),
                    },
                    IndexKey {
                        expression: "a + 1".to_owned(),
                        column: None,
                    },
                ],
            },
            vec![ObjectId::User(2000)],
        ),
        ("s", ItemKind::Secret, vec![]),
    ];
    for (number, (name, kind, depends_on)) in (2000..).zip(kinds) {
        let item = Item {
            id: ObjectId::User(number),
            oid: 30_000 + u32::try_from(number).unwrap(),
            schema: SchemaId(1),
            name: name.to_owned(),
            create_sql: format!("CREATE {name}"),
            depends_on,
            comment: Some("said".to_owned()),
            column_comments: BTreeMap::from([(1, "of b".to_owned())]),
            kind,
        };
        catalog
            .apply(&[CatalogChange::PutItem(Box::new(item))])
            .unwrap();
    }
    catalog
}

fn runtime() -> RuntimeState {
    let id = ObjectId::User(2002);
    RuntimeState {
        version: "v0".to_owned(),
        boot_time_ms: 1_000,
        now_ms: 5_000,
        source_statuses: BTreeMap::from([(
            id,
            StatusState {
                status: SourceStatus::Stalled {
                    error: "no".to_owned(),
                    hint: Some("yes".to_owned()),
                },
                changed_at_ms: 3,
            },
        )]),
        hydration_ms: BTreeMap::from([(id, 7)]),
        hydrated: BTreeMap::from([(id, true)]),
        collections: BTreeMap::from([(
            id,
            CollectionStatistics {
                rows: 3,
                bytes: 90,
                held: BTreeMap::from([("rows".to_owned(), 90)]),
                errors: 2,
                error: Some("division by zero".to_owned()),
            },
        )]),
        frontiers: BTreeMap::from([(id, (Epoch(1), Epoch(4_000)))]),
        sessions: vec![SessionState {
            connection_id: 9,
            user: "x".to_owned(),
            database: "materialize".to_owned(),
            ..SessionState::default()
        }],
        subscriptions: vec![SubscriptionState {
            id: "t1".to_owned(),
            objects: vec![id],
            ..SubscriptionState::default()
        }],
        ..RuntimeState::default()
    }
}

fn with_context<T>(test: impl FnOnce(&SystemContext<'_>) -> T) -> T {
    let catalog = catalog();
    let session = SessionInfo {
        user: "materialize".to_owned(),
        database: "materialize".to_owned(),
        search_path: vec!["public".to_owned()],
        variables: vec![SessionVariable {
            name: "cluster".to_owned(),
            value: "quickstart".to_owned(),
            description: "where".to_owned(),
        }],
    };
    let runtime = runtime();
    test(&SystemContext {
        catalog: &catalog,
        session: &session,
        runtime: &runtime,
    })
}

fn read(ctx: &SystemContext<'_>, schema: &str, name: &str) -> RecordBatch {
    rows(relation(schema, name).expect(name), ctx).unwrap()
}

/// The texts of one column, NULL as `-`.
fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let array = batch.column_by_name(column).expect(column);
    array
        .as_string::<i32>()
        .iter()
        .map(|value| value.unwrap_or("-").to_owned())
        .collect()
}

#[test]
fn every_relation_has_exactly_the_rows_it_declares() {
    with_context(|ctx| {
        for relation in relations() {
            let batch = rows(relation, ctx).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(batch.schema(), relation.arrow_schema(), "{}", relation.name);
            for column in relation.columns {
                let array = batch.column_by_name(column.name).expect(column.name);
                assert!(
                    column.nullable || array.null_count() == 0,
                    "{}.{}",
                    relation.name,
                    column.name
                );
                let field = batch.schema().field_with_name(column.name).unwrap().clone();
                assert_eq!(SqlType::from_field(&field), Ok(column.sql_type()));
            }
        }
    });
}

#[test]
fn names_oids_and_columns_are_unique() {
    let mut names = BTreeSet::new();
    let mut oids = BTreeSet::new();
    for relation in relations() {
        assert!(
            names.insert((relation.schema, relation.name)),
            "{}",
            relation.name
        );
        assert!(oids.insert(relation.oid), "{}", relation.oid);
        assert!(relation.oid < FIRST_USER_OID);
        assert_eq!(relation.id, ObjectId::System(u64::from(relation.oid)));
        let columns: BTreeSet<&str> = relation.columns.iter().map(|column| column.name).collect();
        assert_eq!(columns.len(), relation.columns.len(), "{}", relation.name);
    }
    assert!(oids.len() > 100);
}

#[test]
fn the_relations_of_the_reference_documents_exist() {
    for (schema, name) in [
        ("mz_internal", "mz_source_statistics"),
        ("mz_internal", "mz_source_statuses"),
        ("mz_internal", "mz_hydration_statuses"),
        ("mz_internal", "mz_webhook_sources"),
        ("mz_internal", "mz_postgres_sources"),
        ("mz_catalog", "mz_objects"),
        ("mz_catalog", "mz_sources"),
        ("mz_catalog", "mz_connections"),
        ("mz_catalog", "mz_ssh_tunnel_connections"),
        ("mz_catalog", "mz_aws_privatelink_connections"),
        ("mz_catalog", "mz_egress_ips"),
        ("mz_catalog", "mz_clusters"),
        ("mz_catalog", "mz_cluster_replicas"),
        ("mz_catalog", "mz_cluster_replica_sizes"),
        ("information_schema", "key_column_usage"),
        ("pg_catalog", "pg_class"),
    ] {
        assert!(relation(schema, name).is_some(), "{schema}.{name}");
    }
    assert!(relation("mz_catalog", "pg_class").is_none());
}

#[test]
fn clusters_show_with_what_is_in_them() {
    let mut catalog = catalog();
    let cluster = Cluster {
        id: ClusterId(2),
        name: "c".to_owned(),
        comment: Some("mine".to_owned()),
        kind: ClusterKind::Managed(ClusterSize::Cc200),
        replicas: Vec::new(),
    };
    let find = |catalog: &Catalog, name: &str| {
        let mut items = catalog.items.values();
        items.find(|item| item.name == name).unwrap().id
    };
    let changes = [
        CatalogChange::PutCluster(cluster),
        CatalogChange::PutItemCluster(find(&catalog, "m"), ClusterId(2)),
    ];
    catalog.apply(&changes).unwrap();
    let (session, runtime) = (SessionInfo::default(), runtime());
    let ctx = SystemContext {
        catalog: &catalog,
        session: &session,
        runtime: &runtime,
    };
    let clusters = read(&ctx, "mz_catalog", "mz_clusters");
    assert_eq!(texts(&clusters, "id"), ["s1", "s2", "u1", "u2"]);
    assert_eq!(texts(&clusters, "size"), ["-", "-", "-", "200cc"]);
    let replicas = read(&ctx, "mz_catalog", "mz_cluster_replicas");
    assert_eq!(texts(&replicas, "cluster_id"), ["u1"], "u2 is paused");
    let views = read(&ctx, "mz_catalog", "mz_materialized_views");
    assert_eq!(texts(&views, "cluster_id"), ["u2"]);
    let indexes = read(&ctx, "mz_catalog", "mz_indexes");
    assert_eq!(texts(&indexes, "cluster_id"), ["u1"]);
    let comments = read(&ctx, "mz_internal", "mz_comments");
    assert!(texts(&comments, "comment").contains(&"mine".to_owned()));
    // What is paused is computed by nobody.
    let hydrated = read(&ctx, "mz_internal", "mz_compute_hydration_statuses");
    assert_eq!(texts(&hydrated, "object_id").len(), 1);
    let statuses = read(&ctx, "mz_internal", "mz_hydration_statuses");
    assert_eq!(texts(&statuses, "object_id"), ["u2002", "u2003"]);
    assert_eq!(texts(&statuses, "replica_id"), ["-", "u1"]);
    assert_eq!(texts(&statuses, "error"), ["cluster \"c\" is paused", "-"]);
    let of_m = |name: &str, column: &str| {
        let batch = read(&ctx, "mz_internal", name);
        batch.column_by_name(column).expect(column).null_count()
    };
    assert_eq!(of_m("mz_hydration_statuses", "hydrated"), 2);
    // It neither moves nor lags.
    assert_eq!(of_m("mz_frontiers", "write_frontier"), 1);
    assert_eq!(of_m("mz_wallclock_global_lag", "lag"), 1);
}

#[test]
fn classes_attributes_and_indexes_describe_the_catalog() {
    with_context(|ctx| {
        let classes = read(ctx, "pg_catalog", "pg_class");
        let found: Vec<_> = texts(&classes, "relname")
            .into_iter()
            .zip(texts(&classes, "relkind"))
            .take(4)
            .collect();
        let expected = [("t", "r"), ("v", "v"), ("m", "m"), ("i", "i")]
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        assert_eq!(found, expected);

        let attributes = read(ctx, "pg_catalog", "pg_attribute");
        assert_eq!(
            texts(&attributes, "attname")[..8],
            ["a", "b", "a", "b", "a", "b", "b", "expr"]
        );
        let modifiers = attributes
            .column_by_name("atttypmod")
            .unwrap()
            .as_primitive::<arrow_array::types::Int32Type>();
        assert_eq!(modifiers.values()[..2], [-1, 9]);

        let indexes = read(ctx, "pg_catalog", "pg_index");
        assert_eq!(indexes.num_rows(), 1);
        let keys = indexes
            .column_by_name("indkey")
            .unwrap()
            .as_list::<i64>()
            .value(0);
        assert_eq!(
            keys.as_primitive::<arrow_array::types::Int16Type>()
                .values(),
            &[2, 0]
        );

        assert_eq!(
            texts(&read(ctx, "pg_catalog", "pg_description"), "description").len(),
            10
        );
        assert_eq!(
            texts(&read(ctx, "pg_catalog", "pg_matviews"), "definition"),
            ["SELECT a, b FROM materialize.public.v;"]
        );
    });
}

#[test]
fn another_database_sees_only_the_system_in_pg_catalog_and_everything_in_mz_catalog() {
    let catalog = catalog();
    let runtime = runtime();
    let session = SessionInfo {
        database: "elsewhere".to_owned(),
        ..SessionInfo::default()
    };
    let ctx = SystemContext {
        catalog: &catalog,
        session: &session,
        runtime: &runtime,
    };
    assert!(!texts(&read(&ctx, "pg_catalog", "pg_class"), "relname").contains(&"t".to_owned()));
    assert_eq!(
        texts(&read(&ctx, "pg_catalog", "pg_namespace"), "nspname"),
        [
            "pg_catalog",
            "mz_catalog",
            "mz_internal",
            "information_schema"
        ]
    );
    assert_eq!(texts(&read(&ctx, "mz_catalog", "mz_tables"), "name"), ["t"]);
}

#[test]
fn what_the_node_is_doing_shows() {
    with_context(|ctx| {
        let hydration = read(ctx, "mz_internal", "mz_hydration_statuses");
        assert_eq!(texts(&hydration, "object_id"), ["u2002", "u2003"]);
        let hydrated = hydration.column_by_name("hydrated").unwrap().as_boolean();
        assert_eq!(hydrated.iter().collect::<Vec<_>>(), [Some(true), None]);
        let dependencies = read(ctx, "mz_internal", "mz_object_transitive_dependencies");
        let pairs: Vec<_> = texts(&dependencies, "object_id")
            .into_iter()
            .zip(texts(&dependencies, "referenced_object_id"))
            .collect();
        let expected = [
            ("u2001", "u2000"),
            ("u2002", "u2000"),
            ("u2002", "u2001"),
            ("u2003", "u2000"),
        ];
        assert_eq!(
            pairs,
            expected.map(|(from, to)| (from.to_owned(), to.to_owned()))
        );
        assert_eq!(read(ctx, "mz_internal", "mz_sessions").num_rows(), 1);
        assert_eq!(
            texts(&read(ctx, "mz_internal", "mz_object_memory"), "holder"),
            ["rows"]
        );
        assert_eq!(
            texts(&read(ctx, "pg_catalog", "pg_settings"), "setting"),
            ["quickstart"]
        );
    });
}

/// The type of the one column of a query over nothing.
fn type_of(sql: &str) -> Result<SqlType, crate::Error> {
    let catalog = Catalog::initial();
    let ctx = crate::plan::PlanContext {
        catalog: &catalog,
        database: "materialize",
        search_path: &[],
        user: "materialize",
        now_ms: 0,
        time_zone: &flowstone_types::datetime::TimeZone::UTC,
        transaction_epoch: None,
        variables: &|_| None,
        settings: &Vec::new,
        bytes: &|_| None,
        assigns: false,
        maintained: false,
        text: "",
    };
    let query = crate::parse::parse_query(sql)?;
    let planned = crate::plan::plan_query(&ctx, &query, &[])?;
    Ok(planned.columns[0].sql_type.clone())
}

#[test]
fn every_operator_of_the_catalog_can_be_used_and_has_an_oid_of_its_own() {
    let mut wrong = Vec::new();
    for operator in super::pg_operators::operators() {
        let left = operator
            .left
            .as_ref()
            .map_or_else(String::new, |left| format!("NULL::{left} "));
        let sql = format!("SELECT {left}{} NULL::{}", operator.name, operator.right);
        let planned = type_of(&sql);
        let same = planned
            .as_ref()
            .is_ok_and(|found| found.oid() == operator.result.oid());
        if !same {
            wrong.push(format!("{sql}: {planned:?}, not {}", operator.result));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    with_context(|ctx| {
        for relation in ["pg_operator", "pg_cast"] {
            let batch = read(ctx, "pg_catalog", relation);
            let oids: BTreeSet<u32> = batch["oid"]
                .as_primitive::<arrow_array::types::UInt32Type>()
                .values()
                .iter()
                .copied()
                .collect();
            assert_eq!(oids.len(), batch.num_rows(), "{relation}");
        }
    });
}

#[test]
fn every_cast_of_the_catalog_is_one() {
    for (from, to, _) in super::pg_operators::casts() {
        let sql = format!("SELECT (NULL::{from})::{to}");
        assert_eq!(
            type_of(&sql).map(|found| found.oid()),
            Ok(to.oid()),
            "{sql}"
        );
    }
}
