//! Kafka: connections, sources of messages, their tables, and sinks.

use std::collections::BTreeMap;

use flowstone_proto::kafka::{
    Envelope, Format, Include, KafkaColumn, KafkaSink, KafkaTable, RegisteredSchema, SaslMechanism,
    SchemaKind, SchemaRequest, SinkEnvelope, SinkFormat, SinkPartition,
};
use flowstone_proto::message::UpstreamConnection;
use flowstone_types::InstallationId;

use super::super::{SchemaAnswer, schemas_to_ask, spelled_out};
use super::*;
use crate::catalog::Connection;

const KEY: &str = r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"long"}]}"#;
const VALUE: &str = r#"{"type":"record","name":"Value","fields":[
    {"name":"id","type":"long"},{"name":"name","type":["null","string"]}]}"#;
const ENVELOPE: &str = r#"{"type":"record","name":"Envelope","fields":[
    {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
        {"name":"id","type":"long"},{"name":"name","type":["null","string"]}]}]},
    {"name":"after","type":["null","Value"]},
    {"name":"op","type":"string"}]}"#;
const CHANGEFEED: &str = r#"{"type":"record","name":"t_envelope","fields":[
    {"name":"before","type":["null",{"type":"record","name":"t","fields":[
        {"name":"id","type":"long"},{"name":"name","type":["null","string"]}]}]},
    {"name":"after","type":["null","t"]}]}"#;

/// Updates with times.
const UPDATES: &str = r#"FORMAT AVRO USING SCHEMA '[
    {"type":"array","items":{"type":"record","name":"update","fields":[
        {"name":"data","type":{"type":"record","name":"data","fields":[
            {"name":"id","type":"long"},{"name":"name","type":["null","string"]}]}},
        {"name":"time","type":"long"},
        {"name":"diff","type":"long"}]}},
    {"type":"record","name":"progress","fields":[
        {"name":"lower","type":{"type":"array","items":"long"}},
        {"name":"upper","type":{"type":"array","items":"long"}},
        {"name":"counts","type":{"type":"array","items":{"type":"record","name":"counts","fields":[
            {"name":"time","type":"long"},{"name":"count","type":"long"}]}}}]}]' ENVELOPE MATERIALIZE"#;

/// What the registry of these tests has.
fn answer(request: &SchemaRequest) -> Option<RegisteredSchema> {
    let (id, kind, text) = match request {
        SchemaRequest::Latest(subject) => match subject.as_str() {
            "t-key" | "d-key" | "c-key" => (1, SchemaKind::Avro, KEY),
            "t-value" | "keyless-value" => (2, SchemaKind::Avro, VALUE),
            "d-value" => (3, SchemaKind::Avro, ENVELOPE),
            "c-value" => (4, SchemaKind::Avro, CHANGEFEED),
            "json-value" => (5, SchemaKind::Json, "{}"),
            _ => return None,
        },
        SchemaRequest::Id(2) => (2, SchemaKind::Avro, VALUE),
        SchemaRequest::Id(_) => return None,
    };
    Some(RegisteredSchema {
        id,
        kind,
        text: text.to_owned(),
        references: Vec::new(),
    })
}

/// Plans a statement as the coordinator does: spelled out, with what registries say.
fn plan(catalog: &Catalog, text: &str) -> Result<DdlPlan, Error> {
    let kind = crate::parse::parse(text)?.remove(0).kind;
    if let StatementKind::Unsupported(error) = kind {
        return Err(*error);
    }
    let spelled = spelled_out(catalog, &ctx(), &kind)?;
    let (catalog, kind, before) = match spelled {
        Some(spelled) => (spelled.catalog, spelled.kind, Some(spelled.before)),
        None => (catalog.clone(), kind, None),
    };
    let schemas: Vec<SchemaAnswer> = schemas_to_ask(&catalog, &ctx(), &kind)?
        .into_iter()
        .map(|(registry, request)| SchemaAnswer {
            registry,
            schema: answer(&request),
            request,
        })
        .collect();
    let plan = match &kind {
        StatementKind::CreateSource(create) => plan_create_source(
            &catalog,
            &ctx(),
            create,
            &[],
            &schemas,
            "slot",
            &pg_types::sql_type,
        )?,
        StatementKind::CreateTableFromSource(create) => {
            plan_table_from_source(&catalog, &ctx(), create, &[], &schemas, &pg_types::sql_type)?
        }
        other => plan_ddl(&catalog, &ctx(), other)?,
    };
    Ok(match before {
        Some(before) => plan.after(before),
        None => plan,
    })
}

#[track_caller]
fn run(catalog: &mut Catalog, text: &str) -> DdlPlan {
    let plan = plan(catalog, text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    catalog.apply(&plan.changes).unwrap();
    plan
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

fn setup() -> Catalog {
    let mut catalog = Catalog::initial();
    for text in [
        "CREATE SECRET p AS 'hunter2'",
        "CREATE CONNECTION k TO KAFKA (BROKER 'b', SECURITY PROTOCOL PLAINTEXT)",
        "CREATE CONNECTION csr TO CONFLUENT SCHEMA REGISTRY (URL 'http://r:8081/')",
    ] {
        run(&mut catalog, text);
    }
    catalog
}

fn columns(catalog: &Catalog, table: &str) -> Vec<String> {
    let columns = item(catalog, table).columns().unwrap().iter();
    columns
        .map(|column| {
            let null = if column.nullable { "" } else { "!" };
            format!("{} {}{null}", column.name, column.sql_type)
        })
        .collect()
}

fn made(catalog: &Catalog, table: &str) -> KafkaTable {
    catalog.message_tables[&item(catalog, table).id]
        .table
        .clone()
}

fn key(catalog: &Catalog, table: &str) -> Option<Vec<usize>> {
    match &item(catalog, table).kind {
        ItemKind::Table { key, .. } => key.clone(),
        other => panic!("{other:?}"),
    }
}

fn connection(catalog: &Catalog, text: &str) -> Connection {
    let found = catalog.resolve_item(&ctx(), &name(text), ObjectType::Connection);
    match &found.unwrap().kind {
        ItemKind::Connection(connection) => connection.clone(),
        other => panic!("{other:?}"),
    }
}

fn create_sql<'a>(catalog: &'a Catalog, object_type: ObjectType, text: &str) -> &'a str {
    let found = catalog.resolve_item(&ctx(), &name(text), object_type);
    &found.unwrap().create_sql
}

#[test]
fn a_connection_says_who_it_is_and_how() {
    let mut catalog = setup();
    run(
        &mut catalog,
        "CREATE CONNECTION s TO KAFKA (BROKERS ('a:9093' USING ADDRESS '10.0.0.1', 'b'), SASL MECHANISMS 'scram-sha-256', SASL USERNAME u, SASL PASSWORD SECRET p)",
    );
    let secret = catalog
        .resolve_item(&ctx(), &name("p"), ObjectType::Secret)
        .unwrap()
        .id;
    let secrets = BTreeMap::from([(secret, "hunter2".to_owned())]);
    let Some(UpstreamConnection::Kafka(found)) = connection(&catalog, "s").upstream(&secrets)
    else {
        panic!("no connection")
    };
    assert_eq!(
        found.brokers[0].reached_at.as_deref(),
        Some("10.0.0.1:9093")
    );
    assert_eq!(found.brokers[1].address, "b:9092");
    assert!(
        found.tls.is_some(),
        "SASL_SSL unless something else is said"
    );
    let sasl = found.sasl.unwrap();
    assert_eq!(
        (sasl.mechanism, sasl.password.as_str()),
        (SaslMechanism::ScramSha256, "hunter2")
    );
    assert_eq!(
        create_sql(&catalog, ObjectType::Connection, "s"),
        "CREATE CONNECTION materialize.public.s TO KAFKA (BROKERS = ('a:9093' USING ADDRESS '10.0.0.1:9093', 'b:9092'), SECURITY PROTOCOL = 'SASL_SSL', \
         SASL MECHANISMS = 'SCRAM-SHA-256', SASL USERNAME = 'u', SASL PASSWORD = SECRET materialize.public.p)"
    );
    let Some(UpstreamConnection::Kafka(plain)) =
        connection(&catalog, "k").upstream(&BTreeMap::new())
    else {
        panic!("no connection")
    };
    assert!(plain.tls.is_none() && plain.sasl.is_none());
    let Some(UpstreamConnection::Registry(registry)) =
        connection(&catalog, "csr").upstream(&BTreeMap::new())
    else {
        panic!("no registry")
    };
    assert_eq!(registry.url, "http://r:8081");
    run(
        &mut catalog,
        "CREATE CONNECTION below TO CONFLUENT SCHEMA REGISTRY (URL 'http://r:8080/apis/ccompat/v7/')",
    );
    let Some(UpstreamConnection::Registry(below)) =
        connection(&catalog, "below").upstream(&BTreeMap::new())
    else {
        panic!("no registry")
    };
    assert_eq!(below.url, "http://r:8080/apis/ccompat/v7");
    run(
        &mut catalog,
        "ALTER CONNECTION s SET (SECURITY PROTOCOL 'SASL_PLAINTEXT', BROKER 'c:1')",
    );
    run(&mut catalog, "ALTER CONNECTION s RESET (SECURITY PROTOCOL)");
    let Connection::Kafka(cluster) = connection(&catalog, "s") else {
        panic!("no connection")
    };
    assert_eq!(cluster.brokers.len(), 1);
    assert_eq!(cluster.protocol, None);
    fails(
        &catalog,
        "ALTER CONNECTION s DROP (SASL PASSWORD)",
        ErrorKind::InvalidParameterValue,
        "option SASL PASSWORD is required",
    );
    fails(
        &catalog,
        "DROP SECRET p",
        ErrorKind::DependentObjectsStillExist,
        "cannot drop secret \"p\" because other objects depend on it",
    );
}

#[test]
fn what_a_connection_cannot_be_without_is_not_taken_away() {
    let catalog = setup();
    for (text, kind, message) in [
        (
            "ALTER CONNECTION k DROP (BROKERS)",
            ErrorKind::InvalidParameterValue,
            "option BROKERS is required",
        ),
        (
            "ALTER CONNECTION csr RESET (URL)",
            ErrorKind::InvalidParameterValue,
            "option URL is required",
        ),
        (
            "ALTER CONNECTION k DROP (HOST)",
            ErrorKind::FeatureNotSupported,
            "option HOST is not supported",
        ),
        (
            "ALTER CONNECTION csr DROP (BROKER)",
            ErrorKind::FeatureNotSupported,
            "option BROKER is not supported",
        ),
        (
            "ALTER CONNECTION csr SET (URL 'http://a', URL 'http://b')",
            ErrorKind::Syntax,
            "option URL specified more than once",
        ),
    ] {
        let error = fails(&catalog, text, kind, message);
        assert!(error.position.is_some_and(|at| at > 20), "{text}");
        let is_required = kind == ErrorKind::InvalidParameterValue;
        assert_eq!(error.hint.is_some(), is_required, "{text}");
    }
}

#[test]
fn who_uses_a_connection_that_is_changed_is_no_reason_for_a_notice() {
    let mut catalog = setup();
    run(
        &mut catalog,
        "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr",
    );
    for text in [
        "ALTER CONNECTION k SET (BROKER 'c')",
        "ALTER CONNECTION csr SET (USERNAME 'u', PASSWORD SECRET p)",
        "ALTER SECRET p AS 'other'",
    ] {
        let plan = run(&mut catalog, text);
        assert!(plan.notices.is_empty(), "{text}: {:?}", plan.notices);
    }
}

/// Where they look for their progress there would be nothing, and they would write everything again.
#[test]
fn a_connection_keeps_its_progress_topic_while_sinks_use_it() {
    let mut catalog = with_tables();
    let sink = |name: &str| {
        format!(
            "CREATE SINK {name} FROM d INTO KAFKA CONNECTION k (TOPIC '{name}') KEY (id) FORMAT JSON ENVELOPE UPSERT"
        )
    };
    let message = "the progress topic of a connection cannot be changed while sinks use it";
    run(&mut catalog, &sink("a"));
    run(&mut catalog, &sink("b"));
    let error = fails(
        &catalog,
        "ALTER CONNECTION k SET (PROGRESS TOPIC 'other')",
        ErrorKind::ObjectInUse,
        message,
    );
    assert_eq!(
        error.hint.as_deref(),
        Some("Drop these sinks first: materialize.public.a, materialize.public.b.")
    );
    // Nothing changes if it is called what it is called anyway, nor by other options.
    let id = catalog
        .resolve_item(&ctx(), &name("k"), ObjectType::Connection)
        .unwrap()
        .id;
    let usual = format!("_materialize-progress-{}-{id}", catalog.installation);
    for text in [
        format!("ALTER CONNECTION k SET (PROGRESS TOPIC '{usual}')"),
        "ALTER CONNECTION k DROP (PROGRESS TOPIC)".to_owned(),
        "ALTER CONNECTION k SET (BROKER 'c')".to_owned(),
        "DROP SINK a".to_owned(),
        "DROP SINK b".to_owned(),
        "ALTER CONNECTION k SET (PROGRESS TOPIC 'other')".to_owned(),
        sink("c"),
    ] {
        run(&mut catalog, &text);
    }
    for text in [
        "ALTER CONNECTION k RESET (PROGRESS TOPIC)",
        "ALTER CONNECTION k DROP (PROGRESS TOPIC), SET (BROKER 'd')",
    ] {
        fails(&catalog, text, ErrorKind::ObjectInUse, message);
    }
}

#[test]
fn options_of_connections_that_contradict_each_other_are_refused() {
    let catalog = setup();
    for (options, message) in [
        (
            "BROKER ''",
            "invalid BROKER: a broker must be named by its address",
        ),
        (
            "BROKER 'a:b'",
            "invalid BROKER: the port of a broker must be a number between 1 and 65535",
        ),
        (
            "BROKER 'a', BROKERS ('b')",
            "invalid BROKERS: BROKER and BROKERS cannot both be given",
        ),
        ("SECURITY PROTOCOL PLAINTEXT", "option BROKER is required"),
        (
            "BROKER 'a', SECURITY PROTOCOL x",
            "invalid SECURITY PROTOCOL: must be PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
        ),
        (
            "BROKER 'a', SECURITY PROTOCOL SASL_SSL",
            "option SASL MECHANISMS is required",
        ),
        (
            "BROKER 'a', SASL MECHANISMS 'PLAIN', SASL USERNAME 'u'",
            "option SASL PASSWORD is required",
        ),
        (
            "BROKER 'a', SASL PASSWORD 'hunter2'",
            "invalid SASL PASSWORD: must be a secret",
        ),
        (
            "BROKER 'a', SSL KEY 'x'",
            "invalid SSL KEY: must be a secret",
        ),
        (
            "BROKER 'a', SSL KEY SECRET p",
            "option SSL CERTIFICATE is required",
        ),
        (
            "BROKER 'a', SECURITY PROTOCOL PLAINTEXT, SSL CERTIFICATE AUTHORITY 'x'",
            "SSL options cannot be used with SECURITY PROTOCOL PLAINTEXT",
        ),
        (
            "BROKER 'a', SECURITY PROTOCOL SSL, SASL MECHANISMS PLAIN, SASL USERNAME u, SASL PASSWORD SECRET p",
            "SASL options cannot be used with SECURITY PROTOCOL SSL",
        ),
    ] {
        fails(
            &catalog,
            &format!("CREATE CONNECTION x TO KAFKA ({options})"),
            ErrorKind::InvalidParameterValue,
            message,
        );
    }
    for (options, message) in [
        ("USERNAME 'u'", "option URL is required"),
        (
            "URL 'r:8081'",
            "invalid URL: must begin with http:// or https://",
        ),
        (
            "URL 'http://u:p@r'",
            "invalid URL: must have no user and no password in it: say USERNAME and PASSWORD",
        ),
        (
            "URL 'http://r/a?b'",
            "invalid URL: must have neither a query nor a fragment",
        ),
        ("URL 'http:///a'", "invalid URL: must name a host"),
        (
            "URL 'http://r', PASSWORD SECRET p",
            "option USERNAME is required",
        ),
        (
            "URL 'http://r', SSL CERTIFICATE AUTHORITY 'x'",
            "SSL options need a URL that begins with https://",
        ),
    ] {
        fails(
            &catalog,
            &format!("CREATE CONNECTION x TO CONFLUENT SCHEMA REGISTRY ({options})"),
            ErrorKind::InvalidParameterValue,
            message,
        );
    }
    fails(
        &catalog,
        "CREATE CONNECTION x TO KAFKA (BROKER 'a', HOST 'b')",
        ErrorKind::FeatureNotSupported,
        "option HOST is not supported",
    );
    fails(
        &catalog,
        "CREATE CONNECTION x TO POSTGRES (HOST 'a', BROKER 'b')",
        ErrorKind::FeatureNotSupported,
        "option BROKER is not supported",
    );
}

#[test]
fn formats_say_which_columns_there_are() {
    let mut catalog = setup();
    for (number, (said, expected)) in [
        ("FORMAT TEXT", vec!["text text!"]),
        ("FORMAT BYTES", vec!["data bytea!"]),
        ("FORMAT JSON", vec!["data jsonb!"]),
        (
            "FORMAT CSV WITH 2 COLUMNS",
            vec!["column1 text!", "column2 text!"],
        ),
        (
            "FORMAT CSV WITH HEADER (a, b) DELIMITED BY ';'",
            vec!["a text!", "b text!"],
        ),
        ("FORMAT REGEX '(?P<a>x)(y)'", vec!["a text", "column2 text"]),
        (
            "FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr",
            vec!["id bigint!", "name text"],
        ),
        (
            "FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr VALUE STRATEGY ID 2",
            vec!["id bigint!", "name text"],
        ),
        (
            "FORMAT PROTOBUF MESSAGE 'M' USING SCHEMA 'syntax = \"proto3\"; message M { int32 a = 1; }'",
            vec!["a integer!"],
        ),
        (
            "FORMAT JSON INCLUDE PARTITION, OFFSET AS o, TIMESTAMP, HEADERS, HEADER 'h' AS h, HEADER 'b' AS b BYTES",
            vec![
                "data jsonb!",
                "partition integer!",
                "o bigint!",
                "timestamp timestamp without time zone!",
                "headers jsonb!",
                "h text",
                "b bytea",
            ],
        ),
        (
            "KEY FORMAT TEXT VALUE FORMAT JSON INCLUDE KEY AS k",
            vec!["k text!", "data jsonb!"],
        ),
        (
            "KEY FORMAT BYTES VALUE FORMAT TEXT ENVELOPE UPSERT",
            vec!["key bytea!", "text text!"],
        ),
        // Both the key and the column of the value of that name are there.
        (
            "FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr ENVELOPE UPSERT",
            vec!["key_id bigint!", "id bigint!", "name text"],
        ),
        (
            "KEY FORMAT TEXT VALUE FORMAT JSON ENVELOPE UPSERT (VALUE DECODING ERRORS = INLINE AS e)",
            vec!["key text!", "data jsonb", "e text"],
        ),
        (
            "FORMAT JSON ENVELOPE NONE ON DECODE ERROR = NULL",
            vec!["data jsonb", "error text"],
        ),
        (UPDATES, vec!["id bigint!", "name text"]),
    ]
    .into_iter()
    .enumerate()
    {
        let source = format!("s{number}");
        run(
            &mut catalog,
            &format!("CREATE SOURCE {source} FROM KAFKA CONNECTION k (TOPIC 't') {said}"),
        );
        assert_eq!(columns(&catalog, &source), expected, "{said}");
        // The statement that SHOW CREATE has makes the same table.
        let again = create_sql(&catalog, ObjectType::Source, &source).to_owned();
        let mut other = setup();
        run(&mut other, &again);
        assert_eq!(columns(&other, &source), expected, "{again}");
        assert_eq!(made(&other, &source), made(&catalog, &source), "{again}");
        assert_eq!(key(&other, &source), key(&catalog, &source), "{again}");
    }
}

#[test]
fn keys_say_which_row_a_message_is_about() {
    let mut catalog = setup();
    for (text, expected, envelope) in [
        (
            "CREATE SOURCE a FROM KAFKA CONNECTION k (TOPIC 't') FORMAT TEXT",
            None,
            Envelope::None,
        ),
        (
            "CREATE SOURCE b FROM KAFKA CONNECTION k (TOPIC 't') KEY FORMAT TEXT VALUE FORMAT JSON ENVELOPE UPSERT",
            Some(vec![0]),
            Envelope::Upsert,
        ),
        (
            "CREATE SOURCE c FROM KAFKA CONNECTION k (TOPIC 'd') FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr ENVELOPE DEBEZIUM",
            Some(vec![0]),
            Envelope::Debezium,
        ),
        // CockroachDB does not say which operation it was, and its guide gives no format.
        (
            "CREATE SOURCE d FROM KAFKA CONNECTION k (TOPIC 'c') ENVELOPE DEBEZIUM",
            Some(vec![0]),
            Envelope::Cockroach,
        ),
        (
            "CREATE SOURCE e FROM KAFKA CONNECTION k (TOPIC 'x') FORMAT JSON ENVELOPE DEBEZIUM",
            None,
            Envelope::Debezium,
        ),
        (
            "CREATE SOURCE f (id int, name text, PRIMARY KEY (id) NOT ENFORCED) FROM KAFKA CONNECTION k (TOPIC 'x') FORMAT JSON ENVELOPE DEBEZIUM",
            Some(vec![0]),
            Envelope::Debezium,
        ),
        (
            "CREATE SOURCE g (name text, id int, PRIMARY KEY (id) NOT ENFORCED) FROM KAFKA CONNECTION k (TOPIC 'x') KEY FORMAT JSON VALUE FORMAT JSON ENVELOPE UPSERT",
            Some(vec![0]),
            Envelope::Upsert,
        ),
        // A member keeps its name in documents, whatever its column is called.
        (
            "CREATE SOURCE h (id int, name text, PRIMARY KEY (id) NOT ENFORCED) FROM KAFKA CONNECTION k (TOPIC 'x') KEY FORMAT JSON VALUE FORMAT JSON INCLUDE KEY AS number ENVELOPE UPSERT",
            Some(vec![0]),
            Envelope::Upsert,
        ),
        (
            "CREATE SOURCE i (id int, PRIMARY KEY (id) NOT ENFORCED) FROM KAFKA CONNECTION k (TOPIC 'x') KEY FORMAT JSON VALUE FORMAT JSON ENVELOPE UPSERT",
            Some(vec![0]),
            Envelope::Upsert,
        ),
        (
            "CREATE SOURCE j FROM KAFKA CONNECTION k (TOPIC 'x') KEY FORMAT JSON VALUE FORMAT JSON ENVELOPE DEBEZIUM",
            Some(vec![0]),
            Envelope::Debezium,
        ),
    ] {
        run(&mut catalog, text);
        let source = text.split(' ').nth(2).unwrap();
        assert_eq!(key(&catalog, source), expected, "{text}");
        assert_eq!(made(&catalog, source).envelope, envelope, "{text}");
        let again = create_sql(&catalog, ObjectType::Source, source).to_owned();
        let mut other = setup();
        run(&mut other, &again);
        assert_eq!(made(&other, source), made(&catalog, source), "{again}");
        assert_eq!(key(&other, source), expected, "{again}");
    }
    // The key of an upsert of documents comes first, and its member is not looked for in the value.
    assert_eq!(columns(&catalog, "g"), ["id integer!", "name text"]);
    let table = made(&catalog, "g");
    assert_eq!(
        table.key,
        Some(Format::JsonColumns(vec![("id".to_owned(), SqlType::Int4)]))
    );
    assert_eq!(table.columns, [KafkaColumn::Key(0), KafkaColumn::Value(0)]);
    assert_eq!(columns(&catalog, "c"), ["id bigint!", "name text"]);
    assert_eq!(columns(&catalog, "e"), ["data jsonb!"]);
    assert_eq!(columns(&catalog, "h"), ["number integer!", "name text"]);
    assert_eq!(columns(&catalog, "i"), ["id integer!", "data jsonb!"]);
    // The document of a key is not the one of the row.
    assert_eq!(columns(&catalog, "j"), ["key jsonb!", "data jsonb!"]);
}

#[test]
fn declared_names_may_be_those_that_other_columns_have_by_default() {
    let mut catalog = setup();
    run(
        &mut catalog,
        "CREATE SOURCE s (body, text) FROM KAFKA CONNECTION k (TOPIC 't') FORMAT TEXT INCLUDE OFFSET",
    );
    let expected = ["body text!", "text bigint!"];
    assert_eq!(columns(&catalog, "s"), expected);
    let again = create_sql(&catalog, ObjectType::Source, "s").to_owned();
    let mut other = setup();
    run(&mut other, &again);
    assert_eq!(columns(&other, "s"), expected, "{again}");
    assert_eq!(made(&other, "s"), made(&catalog, "s"), "{again}");
}

#[test]
fn tables_of_a_topic_each_make_of_it_what_they_say() {
    let mut catalog = setup();
    run(
        &mut catalog,
        "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 'a.b')",
    );
    assert_eq!(names(&catalog), ["p", "k", "csr", "s", "s_progress"]);
    run(
        &mut catalog,
        "CREATE TABLE t (x) FROM SOURCE s (REFERENCE \"a.b\") FORMAT TEXT",
    );
    run(
        &mut catalog,
        "CREATE TABLE u FROM SOURCE s (REFERENCE a.b) FORMAT JSON INCLUDE OFFSET",
    );
    assert_eq!(columns(&catalog, "t"), ["x text!"]);
    assert_eq!(made(&catalog, "u").include, [Include::Offset]);
    assert_eq!(
        create_sql(&catalog, ObjectType::Table, "t"),
        "CREATE TABLE materialize.public.t (x) FROM SOURCE materialize.public.s (REFERENCE = \"a.b\") FORMAT TEXT ENVELOPE NONE"
    );
    for (text, kind, message) in [
        (
            "CREATE TABLE v FROM SOURCE s (REFERENCE c) FORMAT TEXT",
            ErrorKind::InvalidParameterValue,
            "reference to c not found in source",
        ),
        (
            "CREATE TABLE v FROM SOURCE s (REFERENCE \"a.b\")",
            ErrorKind::Syntax,
            "FORMAT is required",
        ),
        (
            "ALTER SOURCE s ADD SUBSOURCE c",
            ErrorKind::FeatureNotSupported,
            "subsources of a source of messages are not supported",
        ),
        (
            "CREATE SOURCE v FROM KAFKA CONNECTION k (TOPIC 't') FOR ALL TABLES",
            ErrorKind::FeatureNotSupported,
            "a Kafka source has just one topic: FOR ALL TABLES, FOR SCHEMAS and FOR TABLES are not supported for it",
        ),
    ] {
        let statement = crate::parse::parse(text).unwrap().remove(0).kind;
        let error = match statement {
            StatementKind::AlterSourceAddSubsource(alter) => {
                plan_add_subsources(&catalog, &ctx(), &alter, &[], &pg_types::sql_type)
            }
            _ => plan(&catalog, text),
        }
        .expect_err(text);
        assert_eq!((error.kind, error.message.as_str()), (kind, message));
    }
    run(&mut catalog, "DROP TABLE t");
    assert_eq!(catalog.message_tables.len(), 1);
    run(&mut catalog, "ALTER SOURCE s RENAME TO s2");
    assert!(create_sql(&catalog, ObjectType::Table, "u").contains("public.s2 "));
    run(&mut catalog, "DROP SOURCE s2 CASCADE");
    assert!(catalog.message_tables.is_empty());
}

#[test]
fn what_does_not_go_together_is_refused_where_it_is_said() {
    let catalog = setup();
    let csr = "FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr";
    for (topic, said, message) in [
        (
            "t",
            "FORMAT TEXT ENVELOPE UPSERT".to_owned(),
            "ENVELOPE UPSERT requires that KEY FORMAT is set",
        ),
        (
            "t",
            "FORMAT TEXT INCLUDE KEY".to_owned(),
            "INCLUDE KEY requires specifying KEY FORMAT .. VALUE FORMAT, got bare FORMAT",
        ),
        (
            "t",
            "FORMAT TEXT ENVELOPE DEBEZIUM".to_owned(),
            "ENVELOPE DEBEZIUM requires that VALUE FORMAT is set to AVRO or JSON",
        ),
        (
            "t",
            format!("{csr} ENVELOPE MATERIALIZE"),
            "the Avro schema is not one of updates and progress: it is no union",
        ),
        (
            "nothing",
            csr.to_owned(),
            "no schema found for subject \"nothing-value\"",
        ),
        (
            "keyless",
            format!("{csr} ENVELOPE UPSERT"),
            "no schema found for subject \"keyless-key\"",
        ),
        (
            "t",
            format!("{csr} VALUE STRATEGY ID 9"),
            "the schema registry has no schema 9",
        ),
        (
            "json",
            csr.to_owned(),
            "schema 5 of the registry is of kind JSON Schema, not Avro",
        ),
        (
            "t",
            "FORMAT CSV WITH HEADER".to_owned(),
            "CSV WITH HEADER needs the names of the columns",
        ),
        (
            "t",
            "FORMAT REGEX 'x'".to_owned(),
            "regular expression has no group",
        ),
    ] {
        let text = format!("CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC '{topic}') {said}");
        let error = fails(&catalog, &text, ErrorKind::InvalidParameterValue, message);
        assert!(
            error.position.is_some_and(|at| at > 30),
            "{text}: {error:?}"
        );
    }
    for (text, kind, message) in [
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION csr (TOPIC 't') FORMAT TEXT",
            ErrorKind::WrongObjectType,
            "\"csr\" is not a connection to Kafka",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION k",
            ErrorKind::WrongObjectType,
            "\"k\" is not a connection to a schema registry",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') ENVELOPE UPSERT",
            ErrorKind::Syntax,
            "FORMAT is required",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT TEXT ENVELOPE MATERIALIZE",
            ErrorKind::InvalidParameterValue,
            "ENVELOPE MATERIALIZE requires that VALUE FORMAT is set to AVRO",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr INCLUDE OFFSET ENVELOPE MATERIALIZE",
            ErrorKind::FeatureNotSupported,
            "INCLUDE cannot be used with ENVELOPE MATERIALIZE",
        ),
        (
            "CREATE SOURCE s (a, b) FROM KAFKA CONNECTION k (TOPIC 't') FORMAT TEXT",
            ErrorKind::InvalidParameterValue,
            "2 columns are declared, but messages have 1",
        ),
        (
            "CREATE SOURCE s (a int) FROM KAFKA CONNECTION k (TOPIC 't') FORMAT TEXT",
            ErrorKind::InvalidParameterValue,
            "columns with types need VALUE FORMAT JSON",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT TEXT INCLUDE OFFSET AS text",
            ErrorKind::DuplicateColumn,
            "column \"text\" specified more than once",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT JSON USING CONFLUENT SCHEMA REGISTRY CONNECTION csr",
            ErrorKind::FeatureNotSupported,
            "FORMAT JSON USING a schema is not supported",
        ),
        (
            "CREATE SOURCE s (a, b, c) FROM KAFKA CONNECTION k (TOPIC 't')",
            ErrorKind::Syntax,
            "columns are declared, but no FORMAT",
        ),
        (
            "CREATE SOURCE s (PRIMARY KEY (a) NOT ENFORCED) FROM KAFKA CONNECTION k (TOPIC 't')",
            ErrorKind::Syntax,
            "columns are declared, but no FORMAT",
        ),
        (
            "CREATE SOURCE s (PRIMARY KEY (a) NOT ENFORCED) FROM LOAD GENERATOR COUNTER",
            ErrorKind::FeatureNotSupported,
            "columns of this kind of source are not supported",
        ),
        (
            "CREATE SOURCE s (a int, b int, PRIMARY KEY (a) NOT ENFORCED) FROM KAFKA CONNECTION k (TOPIC 't') KEY FORMAT TEXT VALUE FORMAT JSON ENVELOPE UPSERT",
            ErrorKind::InvalidParameterValue,
            "PRIMARY KEY needs KEY FORMAT JSON",
        ),
        (
            "CREATE SOURCE s (a int, PRIMARY KEY (a, a) NOT ENFORCED) FROM KAFKA CONNECTION k (TOPIC 't') FORMAT JSON ENVELOPE DEBEZIUM",
            ErrorKind::DuplicateColumn,
            "column \"a\" specified more than once",
        ),
        (
            "CREATE SOURCE s (a, a) FROM KAFKA CONNECTION k (TOPIC 't') FORMAT TEXT INCLUDE OFFSET",
            ErrorKind::DuplicateColumn,
            "column \"a\" specified more than once",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't', TOPIC METADATA REFRESH INTERVAL '1us') FORMAT TEXT",
            ErrorKind::InvalidParameterValue,
            "invalid TOPIC METADATA REFRESH INTERVAL: must be at least one millisecond and at most one hour",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT TEXT EXPOSE PROGRESS AS s",
            ErrorKind::DuplicateTable,
            "relation \"s\" already exists",
        ),
    ] {
        fails(&catalog, text, kind, message);
    }
}

#[test]
fn statements_of_2021_make_their_connections_and_say_so() {
    let mut catalog = Catalog::initial();
    let plan = run(
        &mut catalog,
        "CREATE SOURCE raw_pageviews FROM KAFKA BROKER 'kafka:9092' TOPIC 'pageviews' FORMAT BYTES",
    );
    assert_eq!(
        plan.notices[0].message,
        "connection \"raw_pageviews_kafka\" is created from the address in the statement"
    );
    assert_eq!(columns(&catalog, "raw_pageviews"), ["data bytea!"]);
    run(
        &mut catalog,
        "CREATE SOURCE d FROM KAFKA BROKER 'kafka:9092' TOPIC 'd' \
         FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY 'http://schema-registry:8081' ENVELOPE DEBEZIUM",
    );
    assert_eq!(
        names(&catalog),
        [
            "raw_pageviews_kafka",
            "raw_pageviews",
            "raw_pageviews",
            "raw_pageviews_progress",
            "d_kafka",
            "d_registry",
            "d",
            "d",
            "d_progress"
        ]
    );
    let plan = run(
        &mut catalog,
        "CREATE SINK out FROM d INTO KAFKA BROKER 'kafka' TOPIC 'o' FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY 'http://schema-registry:8081'",
    );
    assert_eq!(plan.notices.len(), 3);
    assert!(create_sql(&catalog, ObjectType::Sink, "out").ends_with("ENVELOPE DEBEZIUM"));
    // What exists already needs no connection.
    let plan = run(
        &mut catalog,
        "CREATE SOURCE IF NOT EXISTS d FROM KAFKA BROKER 'x' TOPIC 'd' FORMAT BYTES",
    );
    assert!(plan.changes.is_empty());
}

#[test]
fn one_registry_named_twice_by_its_url_is_one_connection() {
    let mut catalog = Catalog::initial();
    let plan = run(
        &mut catalog,
        "CREATE SOURCE s FROM KAFKA BROKER 'kafka' TOPIC 't' KEY FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY 'http://r' \
         VALUE FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY 'http://r' ENVELOPE UPSERT",
    );
    assert_eq!(plan.notices.len(), 2);
    assert_eq!(
        names(&catalog),
        ["s_kafka", "s_registry", "s", "s", "s_progress"]
    );
    fails(
        &catalog,
        "CREATE SOURCE u FROM KAFKA CONNECTION s_kafka (TOPIC 't') \
         FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION s_registry VALUE STRATEGY LATEST VALUE STRATEGY ID 2",
        ErrorKind::Syntax,
        "option VALUE STRATEGY specified more than once",
    );
}

#[test]
fn a_source_without_a_format_takes_the_registry_there_is() {
    let mut catalog = setup();
    let plan = run(
        &mut catalog,
        "CREATE SOURCE c FROM KAFKA CONNECTION k (TOPIC 'c') ENVELOPE DEBEZIUM",
    );
    assert_eq!(
        plan.notices[0].message,
        "no FORMAT is given: messages are read as AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION materialize.public.csr"
    );
    run(
        &mut catalog,
        "CREATE CONNECTION other TO CONFLUENT SCHEMA REGISTRY (URL 'https://r')",
    );
    fails(
        &catalog,
        "CREATE SOURCE e FROM KAFKA CONNECTION k (TOPIC 'c') ENVELOPE DEBEZIUM",
        ErrorKind::Syntax,
        "FORMAT is required",
    );
    // What declared columns stand for depends on the format, so it is not guessed.
    for mut catalog in [setup(), Catalog::initial()] {
        run(
            &mut catalog,
            "CREATE CONNECTION IF NOT EXISTS k TO KAFKA (BROKER 'b', SECURITY PROTOCOL PLAINTEXT)",
        );
        let error = fails(
            &catalog,
            "CREATE SOURCE e (id int, PRIMARY KEY (id) NOT ENFORCED) FROM KAFKA CONNECTION k (TOPIC 'c') ENVELOPE DEBEZIUM",
            ErrorKind::Syntax,
            "FORMAT is required",
        );
        assert_eq!(
            error.detail.as_deref(),
            Some("Columns are declared, and what they stand for depends on the format.")
        );
    }
    let mut catalog = Catalog::initial();
    run(
        &mut catalog,
        "CREATE CONNECTION k TO KAFKA (BROKER 'b', SECURITY PROTOCOL PLAINTEXT)",
    );
    run(
        &mut catalog,
        "CREATE SOURCE j FROM KAFKA CONNECTION k (TOPIC 'c') ENVELOPE DEBEZIUM",
    );
    assert_eq!(columns(&catalog, "j"), ["data jsonb!"]);
}

fn with_tables() -> Catalog {
    let mut catalog = setup();
    run(
        &mut catalog,
        "CREATE SOURCE d FROM KAFKA CONNECTION k (TOPIC 'd') FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr ENVELOPE DEBEZIUM",
    );
    run(
        &mut catalog,
        "CREATE TABLE t (id bigint, name text, h jsonb, p int)",
    );
    catalog
}

#[test]
fn a_source_whose_own_table_goes_says_nothing_of_messages() {
    for text in ["ALTER SOURCE d DROP SUBSOURCE d", "DROP TABLE d"] {
        let mut catalog = with_tables();
        run(&mut catalog, text);
        assert!(catalog.message_tables.is_empty(), "{text}");
        assert_eq!(
            create_sql(&catalog, ObjectType::Source, "d"),
            "CREATE SOURCE materialize.public.d IN CLUSTER quickstart FROM KAFKA CONNECTION materialize.public.k (TOPIC = 'd') \
             EXPOSE PROGRESS AS materialize.public.d_progress",
            "{text}"
        );
        // Nothing needs the registry any more.
        run(&mut catalog, "DROP CONNECTION csr");
    }
}

#[test]
fn a_sink_writes_what_it_is_said_to() {
    let mut catalog = with_tables();
    run(
        &mut catalog,
        "CREATE SINK s FROM d INTO KAFKA CONNECTION k (TOPIC 'o', TOPIC PARTITION COUNT 3, TOPIC CONFIG MAP['a' => 'b'], PARTITION BY id) KEY (id) \
         FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr (AVRO VALUE FULLNAME 'x.Y', KEY DOC ON COLUMN d.id = 'i') ENVELOPE UPSERT WITH (SNAPSHOT = false)",
    );
    let sql = create_sql(&catalog, ObjectType::Sink, "s").to_owned();
    assert_eq!(
        sql,
        "CREATE SINK materialize.public.s IN CLUSTER quickstart FROM materialize.public.d INTO KAFKA CONNECTION materialize.public.k \
         (TOPIC = 'o', TOPIC PARTITION COUNT = 3, TOPIC CONFIG MAP['a' => 'b'], PARTITION BY = id) KEY (id) \
         KEY FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION materialize.public.csr (KEY DOC ON COLUMN id = 'i') \
         VALUE FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION materialize.public.csr (AVRO VALUE FULLNAME = 'x.Y') \
         ENVELOPE UPSERT WITH (SNAPSHOT = false)"
    );
    let found = catalog
        .resolve_item(&ctx(), &name("s"), ObjectType::Sink)
        .unwrap();
    let ItemKind::Sink(sink) = &found.kind else {
        panic!("no sink")
    };
    assert_eq!(found.depends_on.len(), 3);
    let connections: BTreeMap<_, _> = ["k", "csr"]
        .into_iter()
        .map(|text| {
            let id = catalog
                .resolve_item(&ctx(), &name(text), ObjectType::Connection)
                .unwrap()
                .id;
            let upstream = connection(&catalog, text).upstream(&BTreeMap::new());
            (id, upstream.unwrap())
        })
        .collect();
    let installations = [1, 2].map(|byte| InstallationId([byte; 16]));
    let [kafka, elsewhere] = installations.map(|installation| {
        sink.kind
            .upstream(&connections, None, installation)
            .unwrap()
    });
    let names = |kafka: &KafkaSink| {
        [
            kafka.connection.progress_topic.clone().unwrap(),
            kafka.transactional_id(found.id),
            kafka.progress_key(found.id),
        ]
    };
    // Whoever has the same sink in another installation shares none of its names.
    let (here, there) = (names(&kafka), names(&elsewhere));
    assert!(here.iter().all(|name| !there.contains(name)), "{here:?}");
    assert!(
        here[0].starts_with("_materialize-progress-01010101-0101-0101-0101-010101010101-u"),
        "{here:?}"
    );
    assert_eq!(kafka.envelope, SinkEnvelope::Upsert);
    assert!(!kafka.snapshot);
    assert_eq!(kafka.partition_by, Some(SinkPartition::Column(0)));
    let (
        SinkFormat::Avro {
            name: record, docs, ..
        },
        columns,
    ) = kafka.key.unwrap()
    else {
        panic!("no key")
    };
    assert_eq!((record.as_str(), columns), ("row", vec![0]));
    assert_eq!(docs, [(Some(0), "i".to_owned())]);
    // What SHOW CREATE says makes the same.
    let mut other = with_tables();
    run(&mut other, &sql);
    assert_eq!(create_sql(&other, ObjectType::Sink, "s"), sql);
    fails(
        &catalog,
        "DROP SOURCE d",
        ErrorKind::DependentObjectsStillExist,
        "cannot drop source \"d\" because other objects depend on it",
    );
    run(&mut catalog, "COMMENT ON SINK s IS 'said'");
    run(&mut catalog, "ALTER SINK s RENAME TO s2");
    run(&mut catalog, "DROP SINK s2");
    run(&mut catalog, "DROP SOURCE d");
}

/// What is stored of a sink does not name the relation, so it goes over to another one.
#[test]
fn a_sink_says_its_partitions_by_an_expression_and_defaults_of_each_schema() {
    let mut catalog = with_tables();
    run(
        &mut catalog,
        "CREATE SINK s FROM t INTO KAFKA CONNECTION k (TOPIC 'o', PARTITION BY = t.id * 2 + p) KEY (id) NOT ENFORCED \
         KEY FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr \
         VALUE FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr (NULL DEFAULTS) ENVELOPE UPSERT",
    );
    let sql = create_sql(&catalog, ObjectType::Sink, "s").to_owned();
    assert!(sql.contains("PARTITION BY = id * 2 + p)"), "{sql}");
    assert!(
        sql.ends_with(
            "KEY FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION materialize.public.csr \
             VALUE FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION materialize.public.csr (NULL DEFAULTS = true) \
             ENVELOPE UPSERT"
        ),
        "{sql}"
    );
    let mut other = with_tables();
    run(&mut other, &sql);
    assert_eq!(create_sql(&other, ObjectType::Sink, "s"), sql);
    let found = catalog
        .resolve_item(&ctx(), &name("s"), ObjectType::Sink)
        .unwrap();
    let ItemKind::Sink(sink) = &found.kind else {
        panic!("no sink")
    };
    assert_eq!(sink.kind.partition_expression(), Some("id * 2 + p"));
    run(&mut catalog, "CREATE TABLE w (p int, id bigint)");
    run(&mut catalog, "ALTER SINK s SET FROM w");
    let moved = create_sql(&catalog, ObjectType::Sink, "s");
    assert!(moved.contains("PARTITION BY = id * 2 + p)"), "{moved}");
    fails(
        &catalog,
        "CREATE SINK d2 FROM t INTO KAFKA CONNECTION k (TOPIC 'o') \
         FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr (NULL DEFAULTS = 3) ENVELOPE DEBEZIUM",
        ErrorKind::InvalidParameterValue,
        "invalid NULL DEFAULTS: must be a boolean",
    );
}

#[test]
fn a_sink_goes_over_to_a_relation_that_has_its_columns() {
    let mut catalog = with_tables();
    run(
        &mut catalog,
        "CREATE SINK s FROM t INTO KAFKA CONNECTION k (TOPIC 'o') KEY (id) NOT ENFORCED HEADERS h FORMAT JSON ENVELOPE UPSERT",
    );
    run(&mut catalog, "CREATE TABLE w (h jsonb, id bigint)");
    run(&mut catalog, "CREATE TABLE x (id text, h jsonb)");
    run(&mut catalog, "ALTER SINK s SET FROM w");
    assert_eq!(
        create_sql(&catalog, ObjectType::Sink, "s"),
        "CREATE SINK materialize.public.s IN CLUSTER quickstart FROM materialize.public.w INTO KAFKA CONNECTION materialize.public.k (TOPIC = 'o') \
         KEY (id) NOT ENFORCED HEADERS h KEY FORMAT JSON VALUE FORMAT JSON ENVELOPE UPSERT"
    );
    run(&mut catalog, "DROP TABLE t");
    fails(
        &catalog,
        "ALTER SINK s SET FROM x",
        ErrorKind::DatatypeMismatch,
        "column \"id\" of \"x\" has another type",
    );
}

#[test]
fn what_a_sink_says_twice_is_refused() {
    let catalog = with_tables();
    let avro = "FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr";
    for (options, format, what) in [
        (", TOPIC 'p'", "FORMAT JSON".to_owned(), "TOPIC"),
        (
            ", TOPIC PARTITION COUNT -1, TOPIC PARTITION COUNT 2",
            "FORMAT JSON".to_owned(),
            "TOPIC PARTITION COUNT",
        ),
        (
            ", TOPIC CONFIG MAP['a' => 'b'], TOPIC CONFIG MAP['c' => 'd']",
            "FORMAT JSON".to_owned(),
            "TOPIC CONFIG",
        ),
        (
            ", COMPRESSION TYPE 'none', COMPRESSION TYPE 'gzip'",
            "FORMAT JSON".to_owned(),
            "COMPRESSION TYPE",
        ),
        (
            ", PARTITION BY p, PARTITION BY id",
            "FORMAT JSON".to_owned(),
            "PARTITION BY",
        ),
        (
            "",
            format!("{avro} (AVRO VALUE FULLNAME 'a', AVRO VALUE FULLNAME 'b')"),
            "AVRO VALUE FULLNAME",
        ),
        (
            "",
            format!("{avro} (NULL DEFAULTS, NULL DEFAULTS = false)"),
            "NULL DEFAULTS",
        ),
        (
            "",
            format!("{avro} (DOC ON COLUMN t.id = 'a', DOC ON COLUMN id = 'b')"),
            "DOC ON COLUMN",
        ),
        (
            "",
            format!(
                "KEY {avro} (AVRO KEY FULLNAME 'a', NULL DEFAULTS) VALUE {avro} (NULL DEFAULTS, AVRO KEY FULLNAME 'b')"
            ),
            "AVRO KEY FULLNAME",
        ),
    ] {
        let text = format!(
            "CREATE SINK s FROM t INTO KAFKA CONNECTION k (TOPIC 'o'{options}) KEY (id) {format} ENVELOPE DEBEZIUM"
        );
        let message = format!("option {what} specified more than once");
        fails(&catalog, &text, ErrorKind::Syntax, &message);
    }
}

#[test]
fn documentation_is_of_the_relation_that_a_sink_writes() {
    let mut catalog = with_tables();
    let sink = |name: &str, docs: &str| {
        format!(
            "CREATE SINK {name} FROM t INTO KAFKA CONNECTION k (TOPIC 'o') \
             FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr ({docs}) ENVELOPE DEBEZIUM"
        )
    };
    for docs in ["DOC ON TYPE d = 'x'", "VALUE DOC ON COLUMN d.id = 'x'"] {
        fails(
            &catalog,
            &sink("s", docs),
            ErrorKind::InvalidParameterValue,
            "DOC ON names \"d\", but the sink writes \"t\"",
        );
    }
    fails(
        &catalog,
        &sink("s", "DOC ON COLUMN t.x = 'x'"),
        ErrorKind::UndefinedColumn,
        "column \"x\" of relation \"t\" does not exist",
    );
    let own =
        "DOC ON TYPE public.t = 'x', VALUE DOC ON COLUMN t.id = 'y', DOC ON COLUMN name = 'z'";
    run(&mut catalog, &sink("s", own));
    // What is said of one schema goes before what is said of both, wherever it stands.
    for (name, docs) in [
        (
            "a",
            "DOC ON COLUMN id = 'both', VALUE DOC ON COLUMN id = 'one'",
        ),
        (
            "b",
            "VALUE DOC ON COLUMN id = 'one', DOC ON COLUMN id = 'both'",
        ),
    ] {
        run(&mut catalog, &sink(name, docs));
        let sql = create_sql(&catalog, ObjectType::Sink, name);
        assert!(sql.contains("(VALUE DOC ON COLUMN id = 'one')"), "{sql}");
    }
}

#[test]
fn sinks_that_cannot_be_are_refused() {
    let mut catalog = with_tables();
    let view = ViewParts {
        columns: Vec::new(),
        query: "SELECT 1".to_owned(),
        depends_on: Vec::new(),
    };
    let StatementKind::CreateView(create) = crate::parse::parse("CREATE VIEW v AS SELECT 1")
        .unwrap()
        .remove(0)
        .kind
    else {
        panic!("no view")
    };
    let made = plan_create_view(&catalog, &ctx(), &create, &view).unwrap();
    catalog.apply(&made.changes).unwrap();
    for (from, said, kind, message) in [
        (
            "v",
            "FORMAT JSON ENVELOPE DEBEZIUM",
            ErrorKind::WrongObjectType,
            "view \"v\" cannot be exported as a sink",
        ),
        (
            "t",
            "FORMAT JSON ENVELOPE UPSERT",
            ErrorKind::InvalidParameterValue,
            "upsert sinks must specify a key",
        ),
        (
            "t",
            "KEY (id) FORMAT JSON ENVELOPE UPSERT",
            ErrorKind::InvalidParameterValue,
            "upsert key could not be validated as unique",
        ),
        (
            "d",
            "KEY (name) FORMAT JSON ENVELOPE UPSERT",
            ErrorKind::InvalidParameterValue,
            "upsert key could not be validated as unique",
        ),
        (
            "t",
            "KEY (x) FORMAT JSON ENVELOPE UPSERT",
            ErrorKind::UndefinedColumn,
            "column \"x\" of relation \"t\" does not exist",
        ),
        (
            "t",
            "FORMAT JSON",
            ErrorKind::Syntax,
            "ENVELOPE is required",
        ),
        (
            "t",
            "FORMAT JSON ENVELOPE NONE",
            ErrorKind::FeatureNotSupported,
            "ENVELOPE NONE of a sink is not supported",
        ),
        (
            "t",
            "KEY (id) NOT ENFORCED FORMAT JSON ENVELOPE UPSERT (VALUE DECODING ERRORS = INLINE)",
            ErrorKind::FeatureNotSupported,
            "VALUE DECODING ERRORS of a sink is not supported",
        ),
        (
            "t",
            "FORMAT TEXT ENVELOPE DEBEZIUM",
            ErrorKind::FeatureNotSupported,
            "ENVELOPE DEBEZIUM with VALUE FORMAT TEXT is not supported",
        ),
        (
            "t",
            "KEY (id) NOT ENFORCED FORMAT TEXT ENVELOPE UPSERT",
            ErrorKind::InvalidParameterValue,
            "VALUE FORMAT TEXT needs exactly one column, and there are 4",
        ),
        (
            "t",
            "KEY (id) NOT ENFORCED HEADERS name FORMAT JSON ENVELOPE UPSERT",
            ErrorKind::DatatypeMismatch,
            "HEADERS column must be of type jsonb",
        ),
        (
            "t",
            "KEY (id) NOT ENFORCED FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION k ENVELOPE UPSERT",
            ErrorKind::WrongObjectType,
            "\"k\" is not a connection to a schema registry",
        ),
    ] {
        let text = format!("CREATE SINK s FROM {from} INTO KAFKA CONNECTION k (TOPIC 'o') {said}");
        fails(&catalog, &text, kind, message);
    }
    let error = fails(
        &catalog,
        "CREATE SINK s FROM d INTO KAFKA CONNECTION k (TOPIC 'o') KEY (name) FORMAT JSON ENVELOPE UPSERT",
        ErrorKind::InvalidParameterValue,
        "upsert key could not be validated as unique",
    );
    assert_eq!(
        error.detail.as_deref(),
        Some(
            "It could not be shown that (name) identifies a row. Known to be unique in \"d\": (id)."
        )
    );
    fails(
        &catalog,
        "CREATE SINK s FROM mz_tables INTO KAFKA CONNECTION k (TOPIC 'o') FORMAT JSON ENVELOPE DEBEZIUM",
        ErrorKind::InsufficientPrivilege,
        "\"mz_tables\" is a system catalog and cannot be exported as a sink",
    );
}
