//! Tests of statements about clusters: every way to write them, and where errors are.

use std::time::Duration;

use crate::ast::{
    AlterCluster, AlterClusterAction, ClusterOptionName, ClusterOptions, ClusterWait,
    CreateCluster, Ident, ObjectType, OnTimeout, ShowStatement, StatementKind,
};
use crate::error::ErrorKind;
use crate::parse::parse;

fn one(text: &str) -> StatementKind {
    let mut statements = parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    assert_eq!(statements.len(), 1, "{text}");
    let kind = statements.remove(0).kind;
    assert!(
        !matches!(kind, StatementKind::Unsupported(_)),
        "{text}: {kind:?}"
    );
    kind
}

fn create(text: &str) -> CreateCluster {
    match one(text) {
        StatementKind::CreateCluster(create) => create,
        other => panic!("{text}: {other:?}"),
    }
}

fn alter(text: &str) -> AlterCluster {
    match one(text) {
        StatementKind::AlterCluster(alter) => alter,
        other => panic!("{text}: {other:?}"),
    }
}

fn set(text: &str) -> (ClusterOptions, Option<ClusterWait>) {
    match alter(text).action {
        AlterClusterAction::Set { options, wait } => (*options, wait),
        other => panic!("{text}: {other:?}"),
    }
}

fn size(options: &ClusterOptions) -> Option<&str> {
    options.size.as_ref().map(|size| size.value.as_str())
}

#[test]
fn options_are_read_in_every_spelling() {
    for text in [
        "CREATE CLUSTER c (SIZE = '25cc', REPLICATION FACTOR = 2)",
        "create cluster c (size '25cc', replication factor 2)",
        "CREATE CLUSTER c SIZE = '25cc', REPLICATION FACTOR 2",
        "CREATE CLUSTER c SIZE '25cc', REPLICATION FACTOR = '2'",
        "CREATE CLUSTER \"c\" (REPLICATION FACTOR = 2, MANAGED = true, SIZE = '25cc', SCHEDULE = MANUAL)",
        "CREATE CLUSTER c (SIZE = '25cc', REPLICATION FACTOR = 2, INTROSPECTION INTERVAL = '1s', INTROSPECTION DEBUGGING = TRUE, DISK, AVAILABILITY ZONES = ('a', 'b'), WORKLOAD CLASS NULL)",
    ] {
        let create = create(text);
        assert_eq!(create.name, Ident::new("c"), "{text}");
        assert_eq!(size(&create.options), Some("25cc"), "{text}");
        let factor = create.options.replication_factor.map(|count| count.value);
        assert_eq!(factor, Some(2), "{text}");
        assert!(create.options.replicas.is_none() && !create.if_not_exists);
    }
    assert_eq!(
        create("CREATE CLUSTER IF NOT EXISTS replica").name,
        Ident::new("replica")
    );
}

#[test]
fn replicas_are_read_with_their_clusters_and_alone() {
    for text in [
        "CREATE CLUSTER c REPLICAS (r1 (SIZE '25cc'), r2 (SIZE = '100cc', DISK = false))",
        "CREATE CLUSTER c (REPLICAS (r1 (SIZE = '25cc'), r2 (SIZE '100cc')), MANAGED = false)",
    ] {
        let replicas = create(text).options.replicas.unwrap();
        let found: Vec<(&str, Option<&str>)> = replicas
            .iter()
            .map(|replica| {
                let size = replica.size.as_ref().map(|size| size.value.as_str());
                (replica.name.value.as_str(), size)
            })
            .collect();
        assert_eq!(found, [("r1", Some("25cc")), ("r2", Some("100cc"))]);
    }
    let none = create("CREATE CLUSTER c REPLICAS ()").options.replicas;
    assert_eq!(none, Some(Vec::new()));
    for text in [
        "CREATE CLUSTER REPLICA c.r SIZE = '25cc'",
        "CREATE CLUSTER REPLICA c.r (SIZE '25cc')",
    ] {
        let StatementKind::CreateClusterReplica(create) = one(text) else {
            panic!("{text}")
        };
        assert_eq!(create.cluster, Ident::new("c"));
        assert_eq!(create.replica.name, Ident::new("r"));
        assert_eq!(create.replica.size, Some(Ident::new("25cc")));
    }
    let StatementKind::DropClusterReplicas(drop) = one("DROP CLUSTER REPLICA IF EXISTS c.r, d.s")
    else {
        panic!("none")
    };
    let pair = |cluster, replica| (Ident::new(cluster), Ident::new(replica));
    assert!(drop.if_exists);
    assert_eq!(drop.names, [pair("c", "r"), pair("d", "s")]);
}

#[test]
fn a_cluster_is_altered_waited_for_dropped_and_shown() {
    let (options, wait) = set("ALTER CLUSTER c SET (SIZE = '50cc')");
    assert_eq!((size(&options), wait), (Some("50cc"), None));
    let (options, _) = set("ALTER CLUSTER c SET (REPLICATION FACTOR 0)");
    assert_eq!(options.replication_factor.map(|count| count.value), Some(0));
    for (text, seconds, on_timeout) in [
        (
            "WITH (WAIT UNTIL READY (TIMEOUT = '10m', ON TIMEOUT = 'COMMIT'))",
            600,
            OnTimeout::Commit,
        ),
        (
            "WITH (WAIT UNTIL READY (ON TIMEOUT ROLLBACK, TIMEOUT '10s'))",
            10,
            OnTimeout::Rollback,
        ),
        (
            "WITH (WAIT UNTIL READY (TIMEOUT '1h'))",
            3600,
            OnTimeout::Rollback,
        ),
        ("WITH (WAIT FOR '30s')", 30, OnTimeout::Commit),
        ("WITH (WAIT = FOR '30s')", 30, OnTimeout::Commit),
    ] {
        let text = format!("ALTER CLUSTER c SET (SIZE '100cc') {text}");
        let expected = ClusterWait {
            timeout: Duration::from_secs(seconds),
            on_timeout,
        };
        assert_eq!(set(&text).1, Some(expected), "{text}");
    }
    let names = [
        ClusterOptionName::ReplicationFactor,
        ClusterOptionName::Schedule,
    ];
    assert_eq!(
        alter("ALTER CLUSTER IF EXISTS c RESET (REPLICATION FACTOR, SCHEDULE)"),
        AlterCluster {
            name: crate::ast::Name::new(["c"]),
            if_exists: true,
            action: AlterClusterAction::Reset(names.to_vec()),
        }
    );
    assert_eq!(
        alter("ALTER CLUSTER c SWAP WITH d").action,
        AlterClusterAction::Swap(Ident::new("d"))
    );
    let StatementKind::AlterRename(rename) = one("ALTER CLUSTER c RENAME TO d") else {
        panic!("none")
    };
    assert_eq!(rename.object_type, ObjectType::Cluster);
    let StatementKind::Drop(drop) = one("DROP CLUSTER IF EXISTS c, replica CASCADE") else {
        panic!("none")
    };
    assert!(drop.cascade && drop.if_exists && drop.object_type == ObjectType::Cluster);
    assert!(matches!(
        one("COMMENT ON CLUSTER c IS 'mine'"),
        StatementKind::CommentOn(_)
    ));
    assert!(matches!(
        one("SHOW CREATE CLUSTER c"),
        StatementKind::Show(ShowStatement::Create {
            object_type: ObjectType::Cluster,
            ..
        })
    ));
}

#[test]
fn errors_are_where_the_text_is_wrong() {
    for (text, kind, marked) in [
        // Placeholders, as the reference documents have them.
        (
            "ALTER CLUSTER <cluster_name> SET ( SIZE = <new_size> )",
            ErrorKind::Syntax,
            "<cluster_name",
        ),
        (
            "ALTER CLUSTER c SET ( SIZE = <new_size> )",
            ErrorKind::Syntax,
            "<new_size",
        ),
        ("CREATE CLUSTER c (SIZE)", ErrorKind::Syntax, ")"),
        (
            "CREATE CLUSTER c (SIZE '25cc', SIZE '50cc')",
            ErrorKind::Syntax,
            "SIZE '50cc'",
        ),
        (
            "CREATE CLUSTER c (COLOUR = 'red')",
            ErrorKind::Syntax,
            "COLOUR",
        ),
        (
            "CREATE CLUSTER c (SIZE = 25)",
            ErrorKind::InvalidParameterValue,
            "25)",
        ),
        (
            "CREATE CLUSTER c (REPLICATION FACTOR = 'x')",
            ErrorKind::InvalidParameterValue,
            "'x'",
        ),
        (
            "ALTER CLUSTER c SET (SIZE 'x') WITH (WAIT UNTIL READY (TIMEOUT = 'soon'))",
            ErrorKind::InvalidParameterValue,
            "'soon'",
        ),
        (
            "ALTER CLUSTER c SET (SIZE 'x') WITH (WAIT UNTIL READY (ON TIMEOUT = 'COMMIT'))",
            ErrorKind::InvalidParameterValue,
            "(ON TIMEOUT",
        ),
        (
            "ALTER CLUSTER c SET (SIZE 'x') WITH (WAIT UNTIL READY (TIMEOUT '1s', ON TIMEOUT 'x'))",
            ErrorKind::InvalidParameterValue,
            "'x'))",
        ),
        ("CREATE CLUSTER a.b (SIZE '25cc')", ErrorKind::Syntax, "."),
    ] {
        let error = parse(text).expect_err(text);
        let position = text.find(marked).map(|byte| byte + 1);
        assert_eq!(
            (error.kind, error.position),
            (kind, position),
            "{text}: {error:?}"
        );
    }
}

#[test]
fn the_statements_of_the_reference_documents_are_read() {
    for text in [
        "CREATE CLUSTER webhooks_cluster (SIZE = '25cc');",
        "CREATE CLUSTER ingest_kafka (SIZE = '100cc');",
        "SET CLUSTER = webhooks_cluster;",
        "CREATE CLUSTER <cluster_name> (SIZE = <size>);",
    ] {
        let read = parse(text);
        assert_eq!(read.is_ok(), !text.contains('<'), "{text}: {read:?}");
    }
    // Sources of kinds that there are not yet fail alone.
    for (text, is_read) in [
        (
            "CREATE SOURCE kafka_repl IN CLUSTER ingest_kafka FROM KAFKA CONNECTION kafka_connection (TOPIC 'my_table') ENVELOPE DEBEZIUM",
            true,
        ),
        (
            "CREATE SOURCE segment_source IN CLUSTER webhooks_cluster FROM WEBHOOK BODY FORMAT JSON",
            false,
        ),
    ] {
        let kind = parse(text).unwrap().remove(0).kind;
        let refused = matches!(kind, StatementKind::Unsupported(_));
        assert_eq!(!refused, is_read, "{text}");
    }
}
