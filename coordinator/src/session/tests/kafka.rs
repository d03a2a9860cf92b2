//! Kafka: what upstreams are asked before a statement is planned, and what the worker is told of sources and sinks, now and after a restart.

use flowstone_proto::kafka::{
    Format, KafkaConnection, KafkaTable, RegisteredSchema, SchemaKind, SchemaRequest, SinkFormat,
    SinkPartition,
};
use flowstone_proto::message::{
    SinkDescription, SourceKind, SourceTable, UpstreamAnswer, UpstreamConnection, UpstreamQuestion,
};
use flowstone_sql::error::ErrorKind;

use super::*;

/// The registry that cannot be reached.
const AWAY: &str = "http://away:8081";

/// What the double says of a source that it was told of.
pub(super) fn told_source(verb: &str, source: ObjectId, tables: &[SourceTable]) -> String {
    let tables: Vec<String> = tables
        .iter()
        .map(|table| {
            let made = KafkaTable::decode(&table.upstream).unwrap();
            let value = match made.value {
                Format::Avro(avro) => avro.registry.map_or_else(String::new, |found| {
                    // Where there is one, also who asks.
                    let changed = found.credentials.filter(|(_, known)| known != "hunter2");
                    let url = found.url;
                    changed.map_or(url.clone(), |(_, known)| format!("{url} with {known}"))
                }),
                other => format!("{other:?}"),
            };
            format!("{} of {} by {value}", table.id, table.upstream_name)
        })
        .collect();
    format!("{verb} source {source}: {}", tables.join(", "))
}

/// How the double says that brokers are reached.
pub(super) fn told_connection(kafka: &KafkaConnection) -> String {
    let address = kafka.brokers.first().map(|broker| broker.address.as_str());
    let password = kafka.sasl.as_ref().map(|sasl| sasl.password.as_str());
    format!(
        "{} with {}",
        address.unwrap_or_default(),
        password.unwrap_or_default()
    )
}

/// How the double says that a source reaches its upstream.
pub(super) fn told_kind(kind: &SourceKind) -> String {
    match kind {
        SourceKind::Kafka(source) => told_connection(&source.connection),
        other => format!("{other:?}"),
    }
}

/// What the double says of a sink that it was told of.
pub(super) fn told_sink(verb: &str, sink: &SinkDescription) -> String {
    let value = match &sink.kafka.value {
        SinkFormat::Avro { registry, .. } => registry.url.clone(),
        other => format!("{other:?}"),
    };
    let partition = match &sink.kafka.partition_by {
        Some(SinkPartition::Expression(expr)) => format!(" partition {}", expr.text),
        Some(other) => format!(" partition {other:?}"),
        None => String::new(),
    };
    format!(
        "{verb} sink {} of {} in {} to {} by {value}{partition}",
        sink.id, sink.from, sink.cluster, sink.kafka.topic.name
    )
}

/// What the double says of a question.
pub(super) fn told_question(question: &UpstreamQuestion) -> String {
    match question {
        UpstreamQuestion::Validate(UpstreamConnection::Kafka(kafka)) => {
            let address = kafka.brokers.first().map(|broker| broker.address.as_str());
            format!("validate {}", address.unwrap_or_default())
        }
        UpstreamQuestion::Validate(UpstreamConnection::Registry(registry)) => {
            format!("validate {}", registry.url)
        }
        UpstreamQuestion::Validate(_) => "validate".to_owned(),
        UpstreamQuestion::Describe(_) => "describe".to_owned(),
        UpstreamQuestion::Schema(registry, request) => format!("{} {request:?}", registry.url),
    }
}

/// What upstreams answer here.
pub(super) fn answer(question: &UpstreamQuestion) -> Result<UpstreamAnswer, RequestError> {
    let schema = |text: &str| {
        Some(Box::new(RegisteredSchema {
            id: 1,
            kind: SchemaKind::Avro,
            text: text.to_owned(),
            references: Vec::new(),
        }))
    };
    match question {
        UpstreamQuestion::Validate(UpstreamConnection::Registry(registry))
            if registry.url == AWAY =>
        {
            Err(RequestError::Upstream {
                message: "connection refused".to_owned(),
                sqlstate: None,
                detail: None,
                hint: None,
            })
        }
        UpstreamQuestion::Validate(_) => Ok(UpstreamAnswer::Valid),
        UpstreamQuestion::Describe(_) => Ok(UpstreamAnswer::Tables(Vec::new())),
        UpstreamQuestion::Schema(_, SchemaRequest::Latest(subject)) => {
            Ok(UpstreamAnswer::Schema(match subject.as_str() {
                "t-key" => {
                    schema(r#"{"type":"record","name":"k","fields":[{"name":"k","type":"int"}]}"#)
                }
                "t-value" => schema(
                    r#"{"type":"record","name":"v","fields":[{"name":"v","type":"string"}]}"#,
                ),
                _ => None,
            }))
        }
        UpstreamQuestion::Schema(_, SchemaRequest::Id(_)) => Ok(UpstreamAnswer::Schema(None)),
    }
}

fn told(disk: &Arc<Mutex<Disk>>) -> Vec<String> {
    disk.lock().told.lock().clone()
}

/// Waits until the worker was told something that begins so, and says what.
async fn until_told(disk: &Arc<Mutex<Disk>>, what: &str) -> String {
    loop {
        if let Some(found) = told(disk).into_iter().find(|text| text.starts_with(what)) {
            return found;
        }
        tokio::task::yield_now().await;
    }
}

const CONNECTIONS: [&str; 3] = [
    "CREATE SECRET p AS 'hunter2'",
    "CREATE CONNECTION k TO KAFKA (BROKER 'b:1', SASL MECHANISMS 'PLAIN', SASL USERNAME 'u', SASL PASSWORD SECRET p)",
    "CREATE CONNECTION csr TO CONFLUENT SCHEMA REGISTRY (URL 'http://r:8081', USERNAME 'u', PASSWORD SECRET p)",
];

#[test]
fn schemas_are_asked_for_once_and_the_worker_is_told_how_to_reach_their_registry_after_a_restart() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        for sql in CONNECTIONS {
            tag(&mut session, sql).await;
        }
        assert_eq!(told(&disk), ["validate b:1", "validate http://r:8081"]);
        tag(
            &mut session,
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr ENVELOPE UPSERT",
        )
        .await;
        let source = until_told(&disk, "create source").await;
        assert!(source.ends_with(" of t by http://r:8081"), "{source}");
        assert_eq!(
            told(&disk)[2..5],
            [
                "describe",
                "http://r:8081 Latest(\"t-key\")",
                "http://r:8081 Latest(\"t-value\")"
            ]
        );
        assert_eq!(
            rows(&mut session, "SHOW COLUMNS FROM s").await,
            [["k", "false", "integer", ""], ["v", "false", "text", ""]]
        );
        assert_eq!(
            rows(
                &mut session,
                "SELECT envelope_type, key_format, value_format FROM mz_sources WHERE name = 's' AND type = 'kafka'"
            )
            .await,
            [["upsert", "avro", "avro"]]
        );
        assert_eq!(
            rows(
                &mut session,
                "SELECT topic, group_id_prefix IS NULL FROM mz_kafka_sources"
            )
            .await,
            [["t", "true"]]
        );
        tag(
            &mut session,
            "CREATE TABLE j FROM SOURCE s (REFERENCE t) FORMAT JSON",
        )
        .await;
        let added = until_told(&disk, "add to source").await;
        assert!(added.ends_with(" of t by Json"), "{added}");
        node.crash().await;
        disk.lock().told.lock().clear();

        // Nobody asks the registry again.
        let node = Node::start(&directory, &disk).await;
        let again = until_told(&disk, "create source").await;
        assert!(again.contains(" of t by http://r:8081, "), "{again}");
        assert!(told(&disk).iter().all(|text| !text.contains("Latest")));
        node.crash().await;
    });
}

#[test]
fn what_an_upstream_refuses_is_the_error_of_the_statement_and_makes_nothing() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        for sql in CONNECTIONS {
            tag(&mut session, sql).await;
        }
        let away = format!("CREATE CONNECTION x TO CONFLUENT SCHEMA REGISTRY (URL '{AWAY}')");
        let refused = error(&mut session, &away).await;
        assert!(refused.to_string().contains("connection refused"));
        tag(&mut session, &format!("{away} WITH (VALIDATE = false)")).await;
        let refused = error(&mut session, "VALIDATE CONNECTION x").await;
        assert!(refused.to_string().contains("connection refused"));
        tag(&mut session, "VALIDATE CONNECTION k").await;
        let missing = error(
            &mut session,
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 'u') FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr",
        )
        .await;
        let Error::Sql(missing) = missing else {
            panic!("{missing:?}")
        };
        assert_eq!(
            (missing.kind, missing.message.as_str()),
            (
                ErrorKind::InvalidParameterValue,
                "no schema found for subject \"u-value\""
            )
        );
        // The connection of a statement of 2021 is not made without its source.
        let refused = error(
            &mut session,
            "CREATE SOURCE s FROM KAFKA BROKER 'b' TOPIC 'u' FORMAT TEXT ENVELOPE UPSERT",
        )
        .await;
        assert!(matches!(refused, Error::Sql(_)), "{refused:?}");
        assert_eq!(
            rows(&mut session, "SELECT name FROM mz_connections").await,
            [["csr"], ["k"], ["x"]]
        );
        assert!(
            rows(&mut session, "SELECT name FROM mz_sources")
                .await
                .is_empty()
        );
        node.crash().await;
    });
}

#[test]
fn the_worker_is_told_of_sinks_their_changes_and_their_end() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        for sql in CONNECTIONS {
            tag(&mut session, sql).await;
        }
        for sql in [
            "CREATE TABLE a (k int, v text)",
            "CREATE TABLE b (v text, k int)",
            "CREATE CLUSTER c (SIZE = '25cc')",
            "CREATE SINK o IN CLUSTER c FROM a INTO KAFKA CONNECTION k (TOPIC 'o') KEY (k) NOT ENFORCED FORMAT JSON ENVELOPE UPSERT",
        ] {
            tag(&mut session, sql).await;
        }
        let made = until_told(&disk, "create sink").await;
        assert!(made.ends_with(" in u2 to o by Json"), "{made}");
        assert_eq!(
            rows(
                &mut session,
                "SELECT name, type, envelope_type, format, key_format FROM mz_sinks"
            )
            .await,
            [["o", "kafka", "upsert", "json", "json"]]
        );
        assert_eq!(
            rows(&mut session, "SHOW SINKS IN CLUSTER c").await,
            [["o", "kafka", "c", ""]]
        );
        assert_eq!(
            rows(&mut session, "SELECT topic FROM mz_kafka_sinks").await,
            [["o"]]
        );
        let counted = "SELECT s.status, c.messages_committed, c.bytes_committed FROM mz_internal.mz_sink_statuses AS s \
                       JOIN mz_internal.mz_sink_statistics AS c ON c.id = s.id";
        while rows(&mut session, counted).await != [["running", "3", "30"]] {
            tokio::task::yield_now().await;
        }
        let written = "SELECT s.name FROM mz_internal.mz_frontiers AS f JOIN mz_sinks AS s ON s.id = f.object_id \
                       WHERE f.read_frontier IS NULL AND f.write_frontier IS NOT NULL";
        assert_eq!(rows(&mut session, written).await, [["o"]]);
        tag(&mut session, "ALTER SINK o SET FROM b").await;
        until_told(&disk, "alter sink").await;
        tag(&mut session, "ALTER SINK o RENAME TO renamed").await;
        node.crash().await;
        disk.lock().told.lock().clear();

        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        until_told(&disk, "create sink").await;
        let told_again = told(&disk);
        let cluster = told_again.iter().position(|text| text == "set u2 to 1");
        let sink = told_again
            .iter()
            .position(|text| text.starts_with("create sink"));
        assert!(cluster.is_some() && cluster < sink, "{told_again:?}");
        let refused = error(&mut session, "DROP TABLE b").await;
        assert!(
            matches!(refused, Error::Sql(error) if error.kind == ErrorKind::DependentObjectsStillExist)
        );
        tag(&mut session, "DROP SINK renamed").await;
        until_told(&disk, "drop 1 objects").await;
        tag(&mut session, "DROP TABLE b").await;
        node.client.shutdown().await;
    });
}

#[test]
fn what_decides_on_partitions_is_planned_now_and_after_a_restart() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        for sql in CONNECTIONS {
            tag(&mut session, sql).await;
        }
        tag(&mut session, "CREATE TABLE a (k int, v text)").await;
        tag(&mut session, "CREATE TABLE b (v text, k int)").await;
        let sink = |expr: &str| {
            format!(
                "CREATE SINK o FROM a INTO KAFKA CONNECTION k (TOPIC 'o', PARTITION BY = {expr}) FORMAT JSON ENVELOPE DEBEZIUM"
            )
        };
        for (expr, kind) in [
            ("v", ErrorKind::DatatypeMismatch),
            ("nothing", ErrorKind::UndefinedColumn),
            ("count(*)", ErrorKind::FeatureNotSupported),
        ] {
            let refused = error(&mut session, &sink(expr)).await;
            assert!(
                matches!(&refused, Error::Sql(found) if found.kind == kind),
                "{expr}: {refused:?}"
            );
        }
        tag(&mut session, &sink("a.k * 2")).await;
        let made = until_told(&disk, "create sink").await;
        assert!(made.contains(" partition "), "{made}");
        let shown = rows(&mut session, "SHOW CREATE SINK o").await;
        assert!(shown[0][1].contains("PARTITION BY = k * 2"), "{shown:?}");
        tag(&mut session, "ALTER SINK o SET FROM b").await;
        let altered = until_told(&disk, "alter sink").await;
        assert!(altered.contains(" partition "), "{altered}");
        node.crash().await;
        disk.lock().told.lock().clear();

        let node = Node::start(&directory, &disk).await;
        let again = until_told(&disk, "create sink").await;
        assert!(again.contains(" partition "), "{again}");
        assert!(!again.contains("Unplanned"), "{again}");
        node.client.shutdown().await;
    });
}

#[test]
fn who_uses_a_connection_or_a_secret_that_is_changed_is_told_and_nobody_else() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        for sql in CONNECTIONS {
            tag(&mut session, sql).await;
        }
        for sql in [
            "CREATE CONNECTION plain TO KAFKA (BROKER 'p:1', SECURITY PROTOCOL 'PLAINTEXT')",
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr ENVELOPE UPSERT",
            "CREATE SOURCE other FROM KAFKA CONNECTION plain (TOPIC 't') FORMAT JSON",
            "CREATE TABLE a (k int, v text)",
            "CREATE SINK o FROM a INTO KAFKA CONNECTION k (TOPIC 'o', PARTITION BY = k * 2) FORMAT JSON ENVELOPE DEBEZIUM",
        ] {
            tag(&mut session, sql).await;
        }
        let mut seen = told(&disk).len();
        // What is told after a statement: the worker hears of it before the next question.
        let mut changed = async |sql: &str| {
            tag(&mut session, sql).await;
            tag(&mut session, "VALIDATE CONNECTION plain").await;
            let told = told(&disk);
            let news: Vec<String> = told[seen..]
                .iter()
                .filter(|text| text.starts_with("alter"))
                .cloned()
                .collect();
            seen = told.len();
            news
        };

        let news = changed("ALTER CONNECTION k SET (BROKER 'c:2')").await;
        assert_eq!(news.len(), 2, "{news:?}");
        assert!(news[0].starts_with("alter source"), "{news:?}");
        assert!(
            news[0].ends_with(" of t by http://r:8081 through c:2 with hunter2"),
            "{news:?}"
        );
        assert!(news[1].starts_with("alter sink"), "{news:?}");
        // What decides on partitions is as before.
        assert!(news[1].contains(" partition "), "{news:?}");
        assert!(news[1].ends_with(" through c:2 with hunter2"), "{news:?}");

        let news = changed("ALTER CONNECTION csr SET (URL 'http://new:8081')").await;
        assert_eq!(news.len(), 1, "{news:?}");
        assert!(
            news[0].ends_with(" of t by http://new:8081 through c:2 with hunter2"),
            "{news:?}"
        );

        let news = changed("ALTER SECRET p AS 'other'").await;
        assert_eq!(news.len(), 2, "{news:?}");
        assert!(
            news[0].ends_with(" of t by http://new:8081 with other through c:2 with other"),
            "{news:?}"
        );
        assert!(news[1].ends_with(" through c:2 with other"), "{news:?}");

        for sql in [
            "ALTER CONNECTION k RENAME TO renamed",
            "CREATE SECRET unused AS 'x'",
            "ALTER SECRET unused AS 'y'",
            "CREATE CONNECTION idle TO KAFKA (BROKER 'u:1', SECURITY PROTOCOL 'PLAINTEXT')",
            "ALTER CONNECTION idle SET (BROKER 'v:1')",
        ] {
            assert_eq!(changed(sql).await, Vec::<String>::new(), "{sql}");
        }
        let news = changed("ALTER CONNECTION plain SET (BROKER 'q:1')").await;
        assert_eq!(news.len(), 1, "{news:?}");
        assert!(news[0].ends_with(" through q:1 with "), "{news:?}");

        // What cannot be used is refused before anything changes.
        let refused = error(&mut session, "ALTER SECRET p AS '\\xff'::bytea").await;
        assert!(matches!(refused, Error::Sql(_)), "{refused:?}");
        node.crash().await;
        disk.lock().told.lock().clear();

        let node = Node::start(&directory, &disk).await;
        let again = until_told(&disk, "create source").await;
        assert!(
            again.ends_with(" of t by http://new:8081 with other"),
            "{again}"
        );
        node.crash().await;
    });
}
