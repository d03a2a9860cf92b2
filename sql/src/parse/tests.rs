//! Tests of the statement parser: what each statement becomes, where errors are, and the SQL of the reference documents.

use super::parse;
use crate::ast::{
    AlterConnectionAction, CommentTarget, ConnectionKind, ConnectionOptionName, CopyDirection,
    CopyFormat, CopyRelation, CreateSinkKind, CreateSource, CreateSourceKind, EnvelopeClause,
    ExplainKind, ExplainTarget, FormatSyntax, GeneratorKind, IncludeKind, IsolationLevel, Name,
    ObjectType, OptionValue, ResetVariable, SchemaSource, SetValue, ShowFilter, ShowKind, ShowOf,
    ShowStatement, ShowVariable, SourceTables, Statement, StatementKind, Strategy,
    SubscribeRelation, TransactionMode,
};
use crate::error::ErrorKind;
use flowstone_proto::kafka::KafkaStart;
use std::time::Duration;

fn one(text: &str) -> Statement {
    let mut statements = parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    assert_eq!(statements.len(), 1, "{text}");
    statements.remove(0)
}

fn name(text: &str) -> Name {
    Name::new(text.split('.'))
}

/// The position that `^` marks in the line under the text.
#[track_caller]
fn fails_at(text: &str, marked: &str) {
    let error = parse(text).expect_err(text);
    let expected = text
        .find(marked)
        .map(|byte| text[..byte].chars().count() + 1);
    assert_eq!(error.position, expected, "{text}: {error:?}");
    assert_eq!(
        error.message,
        format!("syntax error at or near \"{marked}\""),
        "{text}"
    );
}

#[track_caller]
fn fails_at_end(text: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(
        error.position,
        Some(text.chars().count() + 1),
        "{text}: {error:?}"
    );
    assert_eq!(error.message, "syntax error at end of input", "{text}");
}

#[test]
fn a_string_is_split_at_semicolons_outside_of_literals_and_comments() {
    let text = "SELECT ';' ; -- one ; two\n /* ; */ SELECT \"a;b\" FROM t;;  select $$;$$";
    let statements = parse(text).unwrap();
    let texts: Vec<&str> = statements
        .iter()
        .map(|statement| statement.text.as_str())
        .collect();
    assert_eq!(
        texts,
        ["SELECT ';'", "SELECT \"a;b\" FROM t", "select $$;$$"]
    );
    for statement in &statements {
        let found: String = text.chars().skip(statement.offset).take(6).collect();
        assert_eq!(found.to_lowercase(), "select");
    }
    assert_eq!(parse(" ; -- nothing\n;").unwrap(), vec![]);
    assert_eq!(parse("").unwrap(), vec![]);
}

#[test]
fn offsets_and_positions_count_characters_of_the_whole_string() {
    let text = "SELECT 'äöü€';\nSELECT 'ß' FROM )";
    let error = parse(text).expect_err("no relation");
    assert_eq!(error.position, Some(text.chars().count()));
    let statements = parse("SELECT 'é'; SELECT 2").unwrap();
    assert_eq!(statements[1].offset, 12);
}

#[test]
fn every_statement_points_at_the_token_that_is_wrong() {
    for (text, marked) in [
        ("SELEC 1", "SELEC"),
        ("SELECT 1; FOO BAR", "FOO"),
        ("SELECT a FROM t WHERE", ""),
        ("SELECT (1 + 2", ""),
        ("SELECT a, FROM t", "FROM"),
        ("SELECT 1 2", "2"),
        ("INSERT INTO t VALUES (1,)", ")"),
        ("UPDATE t SET a WHERE a = 1", "WHERE"),
        ("DELETE t WHERE a", "WHERE"),
        ("COPY t FROM STDOUT", "STDOUT"),
        ("COPY t STDIN", "STDIN"),
        ("SUBSCRIBE", ""),
        ("SUBSCRIBE (SELECT 1", ""),
        ("SUBSCRIBE t WITH (SNAPSHOTS)", "SNAPSHOTS"),
        ("SUBSCRIBE t UP 5", "UP"),
        ("EXPLAIN INCREMENTAL PLAN FOR", ""),
        ("SHOW CREATE t", "t"),
        ("SHOW", ""),
        ("SHOW TABLES LIKE x", "x"),
        ("CREATE DATABASE a.b", "."),
        ("CREATE SCHEMA IF EXISTS a", "EXISTS"),
        ("CREATE TABLE t (a int b int)", "b"),
        ("CREATE TABLE t (a int,)", ")"),
        ("CREATE TABLE t", ""),
        ("CREATE TABLE select (a int)", "select"),
        ("CREATE VIEW v SELECT 1", "SELECT"),
        ("CREATE VIEW v AS", ""),
        ("CREATE OR REPLACE TABLE t (a int)", "TABLE"),
        ("CREATE MATERIALIZED v AS SELECT 1", "MATERIALIZED"),
        (
            "CREATE MATERIALIZED VIEW v WITH (NULL a) AS SELECT 1",
            "NULL",
        ),
        ("CREATE INDEX i t (a)", "t"),
        ("CREATE INDEX i ON t", ""),
        ("CREATE DEFAULT INDEX ON t (a)", "("),
        ("CREATE SECRET s 'x'", "'x'"),
        ("CREATE CONNECTION c TO POSTGRES (HOST 'h' PORT 1)", "PORT"),
        ("CREATE CONNECTION c TO POSTGRES (HOST 'h',)", ")"),
        ("CREATE CONNECTION c TO POSTGRES (HOST <host>)", "<"),
        ("CREATE CONNECTION c TO MYSQL (HOST 'h',)", ")"),
        ("CREATE CONNECTION c POSTGRES (HOST 'h')", "POSTGRES"),
        ("CREATE SOURCE s FROM POSTGRES (PUBLICATION 'p')", "("),
        (
            "CREATE SOURCE s FROM POSTGRES CONNECTION c (PUBLICATION)",
            ")",
        ),
        (
            "CREATE SOURCE s FROM POSTGRES CONNECTION c (PUBLICATION 'p') FOR TABLES",
            "",
        ),
        (
            "CREATE SOURCE s FROM LOAD GENERATOR AUCTION (SCALE FACTOR 1)",
            "SCALE",
        ),
        ("CREATE SOURCE s FROM NOWHERE", "NOWHERE"),
        ("CREATE TABLE t FROM SOURCE s (public.t)", "public"),
        ("ALTER SECRET s 'x'", "'x'"),
        ("ALTER TABLE t RENAME x", "x"),
        ("ALTER SOURCE s ADD t", "t"),
        ("ALTER CONNECTION c SET (PORTS 1)", "PORTS"),
        ("DROP TABLE", ""),
        ("DROP t", "t"),
        ("DROP TABLE t CASCADE x", "x"),
        ("COMMENT ON TABLE t 'x'", "'x'"),
        ("VALIDATE c", "c"),
        ("SET x", ""),
        ("SET x 1", "1"),
        ("SET TRANSACTION", ""),
        ("SET TRANSACTION ISOLATION LEVEL x", "x"),
        ("BEGIN x", "x"),
        ("START x", "x"),
        ("COMMIT AND x", "x"),
        ("PREPARE p SELECT 1", "SELECT"),
        ("EXECUTE", ""),
        ("DEALLOCATE", ""),
        ("DECLARE c FOR SELECT 1", "FOR"),
        ("FETCH", ""),
        ("FETCH 5", ""),
        ("CLOSE", ""),
        ("DISCARD x", "x"),
        ("RESET", ""),
    ] {
        if marked.is_empty() {
            fails_at_end(text)
        } else {
            fails_at(text, marked)
        }
    }
}

#[test]
fn an_unterminated_literal_is_reported_where_it_starts() {
    let error = parse("SELECT 1; SELECT 'abc").expect_err("literal");
    assert_eq!((error.kind, error.position), (ErrorKind::Syntax, Some(18)));
}

#[test]
fn what_we_know_and_do_not_do_fails_alone() {
    for (text, message) in [
        (
            "CREATE CLUSTER c (SIZE = '25cc', SCHEDULE = ON REFRESH (HYDRATION TIME ESTIMATE = '1h'))",
            "SCHEDULE = ON REFRESH of a cluster is not supported",
        ),
        (
            "ALTER CLUSTER REPLICA c.r RENAME TO s",
            "ALTER CLUSTER REPLICA is not supported",
        ),
        (
            "CREATE SINK s FROM v INTO ICEBERG CATALOG CONNECTION k (NAMESPACE 'n')",
            "sinks INTO ICEBERG are not supported",
        ),
        (
            "CREATE ROLE r CONNECTION LIMIT 5",
            "CONNECTION LIMIT of a role is not supported",
        ),
        ("CREATE ROLE r IN ROLE s", "IN of a role is not supported"),
        (
            "CREATE ROLE r UNENCRYPTED PASSWORD 'x'",
            "UNENCRYPTED PASSWORD is not supported",
        ),
        (
            "ALTER ROLE r SET search_path = a",
            "ALTER ROLE … SET is not supported",
        ),
        (
            "CREATE CONNECTION k TO KAFKA (BROKER 'x:1' USING SSH TUNNEL t)",
            "USING SSH TUNNEL is not supported",
        ),
        (
            "CREATE SOURCE s (a) FROM LOAD GENERATOR COUNTER",
            "columns of this kind of source are not supported",
        ),
        (
            "CREATE SOURCE s FROM WEBHOOK BODY FORMAT JSON",
            "sources FROM WEBHOOK are not supported",
        ),
        (
            "CREATE UNIQUE INDEX i ON t (a)",
            "CREATE UNIQUE INDEX is not supported",
        ),
        (
            "CREATE TABLE t AS SELECT 1",
            "CREATE TABLE AS is not supported",
        ),
        (
            "ALTER CLUSTER c OWNER TO r",
            "ALTER CLUSTER … OWNER is not supported",
        ),
        (
            "ALTER TABLE t OWNER TO r",
            "ALTER TABLE … OWNER is not supported",
        ),
        (
            "ALTER CONNECTION c ROTATE KEYS",
            "ALTER CONNECTION … ROTATE is not supported",
        ),
        ("GRANT SELECT ON t TO r", "GRANT is not supported"),
        ("TRUNCATE t", "TRUNCATE is not supported"),
        (
            "EXPLAIN ANALYZE SELECT 1",
            "EXPLAIN ANALYZE is not supported",
        ),
        (
            "EXPLAIN (FORMAT JSON) SELECT 1",
            "EXPLAIN with options in parentheses is not supported",
        ),
        (
            "SUBSCRIBE t ENVELOPE UPSERT (KEY (a))",
            "ENVELOPE of SUBSCRIBE is not supported",
        ),
        (
            "WITH MUTUALLY RECURSIVE r (a int) AS (SELECT 1) SELECT * FROM r",
            "WITH MUTUALLY RECURSIVE is not supported",
        ),
        (
            "COPY t FROM '/tmp/x'",
            "COPY from a file or an object store is not supported",
        ),
        (
            "CREATE TABLE t (a serial)",
            "type \"serial\" is not supported",
        ),
        (
            "DECLARE c SCROLL CURSOR FOR SELECT 1",
            "SCROLL cursors are not supported",
        ),
    ] {
        let statements = parse(&format!("SELECT 1; {text}; SELECT 2"))
            .unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert_eq!(statements.len(), 3, "{text}");
        let StatementKind::Unsupported(error) = &statements[1].kind else {
            panic!("{text}: {:?}", statements[1])
        };
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::FeatureNotSupported, message)
        );
        assert!(
            error.position.is_some_and(|position| position > 10),
            "{text}"
        );
        assert_eq!(statements[1].text, text);
    }
}

#[test]
fn queries_and_writes_are_handed_over_whole() {
    for text in [
        "SELECT 1",
        "VALUES (1), (2)",
        "TABLE t",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1",
        "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b DESC",
        "SELECT body->'a'->0->'b'->>'c' FROM s",
        "SELECT (data->'x')::STRING FROM (SELECT convert_from(data, 'utf8')::jsonb AS data FROM raw)",
        "SELECT a FROM t WHERE mz_now() <= ts + INTERVAL '7 days'",
        "SELECT count(*) FILTER (WHERE a > 1) FROM t",
        "SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relname OPERATOR(pg_catalog.~) '^(t)$' COLLATE pg_catalog.default",
        "SELECT 'a'\n'b'",
        "SELECT a of FROM t",
        "SELECT a AS of",
        "SELECT a[1], b[1:2] FROM t",
    ] {
        assert!(
            matches!(one(text).kind, StatementKind::Query(ref query) if query.as_of.is_none()),
            "{text}"
        );
    }
    let StatementKind::Query(query) = one("SELECT * FROM t AS OF AT LEAST 5").kind else {
        panic!("no query")
    };
    assert_eq!(query.query.to_string(), "SELECT * FROM t");
    let as_of = query.as_of.expect("AS OF");
    assert!(as_of.at_least);
    assert_eq!(as_of.at.to_string(), "5");
    let StatementKind::Query(query) = one("SELECT * FROM t AS OF now()").kind else {
        panic!("no query")
    };
    assert!(query.as_of.is_some_and(|as_of| !as_of.at_least));

    assert!(matches!(
        one("INSERT INTO t (a) VALUES (1), (2) RETURNING a").kind,
        StatementKind::Insert(_)
    ));
    assert!(matches!(
        one("UPDATE t SET a = a + 1 WHERE b").kind,
        StatementKind::Update(_)
    ));
    assert!(matches!(
        one("DELETE FROM t USING u WHERE t.a = u.a").kind,
        StatementKind::Delete(_)
    ));
}

#[test]
fn table_is_a_query_like_any_other() {
    let query = |text: &str| match one(text).kind {
        StatementKind::Query(query) => query.query.to_string(),
        other => panic!("{other:?}"),
    };
    for (text, expected) in [
        ("TABLE t", "SELECT * FROM t"),
        ("TABLE t LIMIT 5", "SELECT * FROM t LIMIT 5"),
        (
            "table d.s.\"T\" ORDER BY a",
            "SELECT * FROM d.s.\"T\" ORDER BY a",
        ),
        (
            "WITH c AS (TABLE t OFFSET 1) TABLE c UNION ALL TABLE u LIMIT 2",
            "WITH c AS (SELECT * FROM t OFFSET 1) SELECT * FROM c UNION ALL SELECT * FROM u LIMIT 2",
        ),
        (
            "SELECT a AS table, b.table FROM b",
            "SELECT a AS table, b.table FROM b",
        ),
        ("SELECT a table FROM b", "SELECT a AS table FROM b"),
    ] {
        assert_eq!(query(text), expected, "{text}");
    }
    fails_at("TABLE t, u", ",");
    fails_at("TABLE t a", "a");
    fails_at("TABLE t WHERE true", "WHERE");
    fails_at("TABLE limit 5", "5");
    assert_eq!(one("TABLE t LIMIT 5").text, "TABLE t LIMIT 5");
}

#[test]
fn copy() {
    let StatementKind::Copy(copy) =
        one("COPY s.t (a, \"B\") FROM STDIN WITH (FORMAT csv, DELIMITER ';', NULL 'x', HEADER)")
            .kind
    else {
        panic!("no copy")
    };
    let CopyRelation::Table {
        name: table,
        columns,
    } = &copy.relation
    else {
        panic!("no table")
    };
    assert_eq!(*table, name("s.t"));
    assert_eq!(
        columns
            .iter()
            .map(|column| column.value.as_str())
            .collect::<Vec<_>>(),
        ["a", "B"]
    );
    assert_eq!(
        (copy.direction, copy.format),
        (CopyDirection::FromStdin, CopyFormat::Csv)
    );
    assert_eq!(
        (copy.delimiter, copy.null.as_deref(), copy.header),
        (Some(';'), Some("x"), true)
    );

    let StatementKind::Copy(copy) =
        one("copy (SUBSCRIBE (SELECT * FROM t) WITH (PROGRESS)) TO stdout (FORMAT 'binary')").kind
    else {
        panic!("no copy")
    };
    assert!(matches!(&copy.relation, CopyRelation::Subscribe(subscribe) if subscribe.progress));
    assert_eq!(
        (copy.direction, copy.format),
        (CopyDirection::ToStdout, CopyFormat::Binary)
    );

    let StatementKind::Copy(copy) = one("COPY (SELECT 1) TO STDOUT CSV HEADER").kind else {
        panic!("no copy")
    };
    assert_eq!((copy.format, copy.header), (CopyFormat::Csv, true));

    for text in [
        "COPY t TO STDOUT (FORMAT xml)",
        "COPY t TO STDOUT (DELIMITER 'ab')",
    ] {
        assert_eq!(
            parse(text).map_err(|error| error.kind),
            Err(ErrorKind::InvalidParameterValue),
            "{text}"
        );
    }
}

#[test]
fn subscribe() {
    let StatementKind::Subscribe(subscribe) =
        one("SUBSCRIBE(SELECT * FROM webhook_demo_parsed) WITH (SNAPSHOT = FALSE)").kind
    else {
        panic!("none")
    };
    assert!(matches!(subscribe.relation, SubscribeRelation::Query(_)));
    assert_eq!((subscribe.snapshot, subscribe.progress), (false, false));

    for text in [
        "SUBSCRIBE TO a.v WITH (SNAPSHOT, PROGRESS true) AS OF AT LEAST 7 UP TO 9",
        "TAIL a.v AS OF AT LEAST 7 UP TO 9 WITH (PROGRESS)",
    ] {
        let StatementKind::Subscribe(subscribe) = one(text).kind else {
            panic!("none")
        };
        assert_eq!(subscribe.relation, SubscribeRelation::Name(name("a.v")));
        assert_eq!((subscribe.snapshot, subscribe.progress), (true, true));
        assert_eq!(
            subscribe
                .as_of
                .map(|as_of| (as_of.at_least, as_of.at.to_string())),
            Some((true, "7".to_owned()))
        );
        assert_eq!(
            subscribe.up_to.map(|up_to| up_to.to_string()),
            Some("9".to_owned())
        );
    }
    assert_eq!(
        parse("SUBSCRIBE t WITH (SNAPSHOT = 5)").map_err(|error| error.kind),
        Err(ErrorKind::InvalidParameterValue)
    );
}

#[test]
fn explain() {
    for (text, kind) in [
        ("EXPLAIN SELECT 1", ExplainKind::Default),
        ("EXPLAIN INCREMENTAL SELECT 1", ExplainKind::Incremental),
        (
            "EXPLAIN INCREMENTAL PLAN FOR SELECT 1",
            ExplainKind::Incremental,
        ),
        ("EXPLAIN PLAN FOR SELECT 1", ExplainKind::Plan),
        (
            "EXPLAIN OPTIMIZED PLAN AS TEXT FOR (SELECT 1)",
            ExplainKind::Plan,
        ),
        ("EXPLAIN PHYSICAL PLAN FOR SELECT 1", ExplainKind::Plan),
        ("EXPLAIN TIMESTAMP FOR SELECT 1", ExplainKind::Timestamp),
        (
            "EXPLAIN INCREMENTAL CREATE MATERIALIZED VIEW v AS SELECT 1",
            ExplainKind::Incremental,
        ),
    ] {
        let StatementKind::Explain(explain) = one(text).kind else {
            panic!("{text}")
        };
        assert_eq!(explain.kind, kind, "{text}");
        let ExplainTarget::Statement(statement) = explain.target else {
            panic!("{text}")
        };
        assert!(
            text.ends_with(&statement.text),
            "{text}: {}",
            statement.text
        );
    }
    let targets = [
        ("EXPLAIN VIEW a.v", ExplainTarget::View(name("a.v"))),
        (
            "EXPLAIN INCREMENTAL MATERIALIZED VIEW v",
            ExplainTarget::MaterializedView(name("v")),
        ),
        ("EXPLAIN PLAN FOR INDEX i", ExplainTarget::Index(name("i"))),
    ];
    for (text, target) in targets {
        let StatementKind::Explain(explain) = one(text).kind else {
            panic!("{text}")
        };
        assert_eq!(explain.target, target);
    }
}

#[test]
fn create_table() {
    let text = "CREATE TABLE IF NOT EXISTS db.s.\"T\" (a int NOT NULL DEFAULT 1 + 2, b varchar(3) DEFAULT 'x' NOT NULL, c timestamptz NULL, key text)";
    let StatementKind::CreateTable(table) = one(text).kind else {
        panic!("no table")
    };
    assert!(table.if_not_exists && !table.temporary && table.constraints.is_empty());
    assert_eq!(table.name.to_string(), "db.s.\"T\"");
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|c| {
            (
                c.name.value.as_str(),
                c.sql_type.to_string(),
                c.not_null,
                c.default.as_ref().map(ToString::to_string),
            )
        })
        .collect();
    assert_eq!(
        columns,
        [
            ("a", "integer".to_owned(), true, Some("1 + 2".to_owned())),
            (
                "b",
                "character varying(3)".to_owned(),
                true,
                Some("'x'".to_owned())
            ),
            ("c", "timestamp with time zone".to_owned(), false, None),
            ("key", "text".to_owned(), false, None),
        ]
    );
    let text = "CREATE TEMP TABLE t (a int PRIMARY KEY, b int UNIQUE, c int REFERENCES x (y), CONSTRAINT k CHECK (a > (1)), UNIQUE (a, b), d text)";
    let StatementKind::CreateTable(table) = one(text).kind else {
        panic!("no table")
    };
    assert!(table.temporary);
    assert_eq!(table.columns.len(), 4);
    let kinds: Vec<_> = table
        .constraints
        .iter()
        .map(|constraint| (constraint.kind.keyword(), constraint.columns.len()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("PRIMARY KEY", 1),
            ("UNIQUE", 1),
            ("FOREIGN KEY", 1),
            ("CHECK", 0),
            ("UNIQUE", 2)
        ]
    );
    let error = parse("CREATE TABLE t (a int, b nonsense)").expect_err("type");
    assert_eq!(
        (error.kind, error.position),
        (ErrorKind::UndefinedObject, Some(26))
    );
    let StatementKind::CreateTable(table) = one("CREATE TABLE t ()").kind else {
        panic!("no table")
    };
    assert_eq!(table.columns, vec![]);
}

#[test]
fn create_views_and_indexes() {
    let StatementKind::CreateView(view) =
        one("CREATE OR REPLACE VIEW s.v (a, b) AS SELECT 1, 2").kind
    else {
        panic!("no view")
    };
    assert!(view.or_replace && !view.if_not_exists && !view.temporary);
    assert_eq!(view.columns.len(), 2);
    assert!(
        matches!(one("create temporary view if not exists v as (select 1)").kind, StatementKind::CreateView(view) if view.temporary && view.if_not_exists)
    );

    let text = "CREATE MATERIALIZED VIEW IF NOT EXISTS v (a) IN CLUSTER c WITH (ASSERT NOT NULL a, ASSERT NOT NULL = b, RETAIN HISTORY FOR '1h', REFRESH = ON COMMIT) AS SELECT 1";
    let StatementKind::CreateMaterializedView(view) = one(text).kind else {
        panic!("no view")
    };
    assert_eq!(
        view.in_cluster.map(|cluster| cluster.value),
        Some("c".to_owned())
    );
    assert_eq!(view.assert_not_null.len(), 2);
    assert_eq!(view.options[0].value, OptionValue::String("1h".to_owned()));
    assert_eq!(view.query.to_string(), "SELECT 1");
    assert!(parse("CREATE OR REPLACE VIEW IF NOT EXISTS v AS SELECT 1").is_err());

    let StatementKind::CreateIndex(index) =
        one("CREATE INDEX idx IN CLUSTER c ON s.v USING arrangement (lower(a), b + 1)").kind
    else {
        panic!("none")
    };
    assert_eq!(index.name.map(|name| name.value), Some("idx".to_owned()));
    assert_eq!(
        index
            .keys
            .map(|keys| keys.iter().map(ToString::to_string).collect::<Vec<_>>()),
        Some(vec!["lower(a)".to_owned(), "b + 1".to_owned()])
    );
    let StatementKind::CreateIndex(index) =
        one("create index on sales_anomalies (customer_id)").kind
    else {
        panic!("none")
    };
    assert!(index.name.is_none() && !index.default);
    let StatementKind::CreateIndex(index) = one("CREATE DEFAULT INDEX ON v").kind else {
        panic!("none")
    };
    assert!(index.default && index.keys.is_none());
}

#[test]
fn secrets_do_not_show() {
    for (text, value) in [
        ("CREATE SECRET IF NOT EXISTS s AS 'hunter2'", "hunter2"),
        (
            "CREATE SECRET s AS decode('aHVudGVyMg==', 'base64')",
            "hunter2",
        ),
        ("CREATE SECRET s AS '\\x68756e74657232'::bytea", "hunter2"),
        ("ALTER SECRET IF EXISTS a.s AS 'hunter2'", "hunter2"),
    ] {
        let statement = one(text);
        let found = match &statement.kind {
            StatementKind::CreateSecret(secret) => &secret.value,
            StatementKind::AlterSecret(secret) => &secret.value,
            other => panic!("{other:?}"),
        };
        assert_eq!(found.0, value.as_bytes());
        let shown = format!("{statement:?} {}", statement.redacted_text());
        assert!(
            !shown.contains("hunter2") && !shown.contains("aHVu"),
            "{shown}"
        );
        assert_eq!(statement.text, text);
    }
    assert!(matches!(
        one("CREATE SECRET s AS a || b").kind,
        StatementKind::Unsupported(_)
    ));
}

#[test]
fn connections() {
    let text = "CREATE CONNECTION IF NOT EXISTS pg TO POSTGRES (HOST 'h', PORT = 5432, USER postgres, PASSWORD SECRET a.pw, SSL MODE require, \
                SSL CERTIFICATE AUTHORITY = SECRET ca, DATABASE 'db') WITH (VALIDATE = false)";
    let StatementKind::CreateConnection(connection) = one(text).kind else {
        panic!("none")
    };
    assert_eq!(
        (connection.if_not_exists, connection.validate),
        (true, Some(false))
    );
    let options: Vec<_> = connection
        .options
        .iter()
        .map(|option| (option.name, option.value.clone()))
        .collect();
    assert_eq!(
        options,
        [
            (
                ConnectionOptionName::Host,
                OptionValue::String("h".to_owned())
            ),
            (
                ConnectionOptionName::Port,
                OptionValue::Number("5432".to_owned())
            ),
            (
                ConnectionOptionName::User,
                OptionValue::Word("postgres".to_owned())
            ),
            (
                ConnectionOptionName::Password,
                OptionValue::Secret(name("a.pw"))
            ),
            (
                ConnectionOptionName::SslMode,
                OptionValue::Word("require".to_owned())
            ),
            (
                ConnectionOptionName::SslCertificateAuthority,
                OptionValue::Secret(name("ca"))
            ),
            (
                ConnectionOptionName::Database,
                OptionValue::String("db".to_owned())
            ),
        ]
    );
    let error = parse("CREATE CONNECTION c TO POSTGRES (HOST 'a', HOST 'b')").expect_err("twice");
    assert_eq!(
        (error.position, error.message.as_str()),
        (Some(44), "option HOST specified more than once")
    );

    let StatementKind::AlterConnection(alter) = one(
        "ALTER CONNECTION c SET (HOST 'x', PORT 1), DROP (USER), RESET (SSL MODE) WITH (VALIDATE)",
    )
    .kind
    else {
        panic!("none")
    };
    assert_eq!(alter.actions.len(), 4);
    assert!(matches!(
        alter.actions[3],
        AlterConnectionAction::Unset {
            name: ConnectionOptionName::SslMode,
            ..
        }
    ));
    assert_eq!(alter.validate, Some(true));
    assert!(
        matches!(one("VALIDATE CONNECTION a.b").kind, StatementKind::ValidateConnection(validate) if validate.name == name("a.b"))
    );
}

fn topic(text: &str) -> crate::ast::NewTopic {
    match one(text).kind {
        StatementKind::CreateSource(CreateSource {
            kind: CreateSourceKind::Kafka(topic),
            ..
        }) => *topic,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn connections_to_kafka_and_to_registries() {
    let text = "CREATE CONNECTION k TO KAFKA (BROKERS ('b-1:9096' USING ADDRESS '10.0.0.1' PORT 9001, 'b-2:9096'), \
                SECURITY PROTOCOL = 'SASL_SSL', SASL MECHANISMS 'SCRAM-SHA-512', SASL USERNAME = foo, SASL PASSWORD = SECRET p, PROGRESS TOPIC 't') \
                WITH (VALIDATE = false)";
    let StatementKind::CreateConnection(create) = one(text).kind else {
        panic!("none")
    };
    assert_eq!(create.kind, ConnectionKind::Kafka);
    assert_eq!(create.options.len(), 6);
    let OptionValue::Addresses(brokers) = &create.options[0].value else {
        panic!("no brokers")
    };
    assert_eq!(
        brokers
            .iter()
            .map(|broker| (broker.address.as_str(), broker.reached_at.as_deref()))
            .collect::<Vec<_>>(),
        [("b-1:9096", Some("10.0.0.1:9001")), ("b-2:9096", None)]
    );
    let text = "CREATE CONNECTION c TO CONFLUENT SCHEMA REGISTRY (URL 'http://r:8081', USERNAME = 'foo', PASSWORD = SECRET p, SSL KEY = SECRET k)";
    assert!(
        matches!(one(text).kind, StatementKind::CreateConnection(create) if create.kind == ConnectionKind::Registry && create.options.len() == 4)
    );
    fails_at("CREATE CONNECTION k TO KAFKA (BROKER 5)", "5");
    fails_at("CREATE CONNECTION k TO KAFKA (BROKERS 'x')", "'x'");
    fails_at("CREATE CONNECTION k TO KAFKA (BROKER 'x' USING y)", "y");
}

#[test]
fn topics_and_what_their_messages_are() {
    let plain = topic("CREATE SOURCE s FROM KAFKA CONNECTION a.k (TOPIC 't')");
    assert_eq!(plain.connection.name(), Some(&name("a.k")));
    assert_eq!(
        (plain.topic.as_str(), plain.start, plain.messages),
        ("t", KafkaStart::Earliest, None)
    );
    let full = topic(
        "CREATE SOURCE s (a, b, c) IN CLUSTER c FROM KAFKA CONNECTION k (TOPIC = 't', START OFFSET (0, 10), \
         TOPIC METADATA REFRESH INTERVAL '5s', GROUP ID PREFIX 'g') \
         KEY FORMAT TEXT VALUE FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr KEY STRATEGY LATEST VALUE STRATEGY ID 7 \
         INCLUDE KEY AS k, PARTITION, HEADER 'h' AS x BYTES INCLUDE OFFSET AS o ENVELOPE UPSERT (VALUE DECODING ERRORS = (INLINE AS e))",
    );
    assert_eq!(full.start, KafkaStart::Offsets(vec![0, 10]));
    assert_eq!(full.metadata_interval, Duration::from_secs(5));
    let messages = full.messages.unwrap();
    assert!(!messages.bare);
    assert_eq!(messages.columns.columns.len(), 3);
    assert_eq!(messages.include.len(), 4);
    assert_eq!(
        messages.include[2].kind,
        IncludeKind::Header {
            name: "h".to_owned(),
            bytes: true
        }
    );
    let format = messages.value.unwrap().format;
    let FormatSyntax::Avro(SchemaSource::Registry { value, .. }) = &format else {
        panic!("no registry")
    };
    assert_eq!(*value, Strategy::Id(7));
    assert!(
        matches!(messages.envelope, Some(EnvelopeClause::Upsert { inline_errors: Some(Some(name)) }) if name.value == "e")
    );
    let relative =
        topic("CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC t, START TIMESTAMP = -3600000)");
    assert_eq!(relative.start, KafkaStart::Timestamp(-3_600_000));
    for format in [
        "TEXT",
        "BYTES",
        "JSON",
        "REGEX '(?P<a>.*)'",
        "CSV WITH 3 COLUMNS DELIMITED BY '|'",
        "CSV WITH HEADER (a, b)",
        "AVRO USING SCHEMA '{}' (CONFLUENT WIRE FORMAT = FALSE)",
        "AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION c VALUE STRATEGY INLINE '{}'",
        "PROTOBUF MESSAGE 'a.B' USING SCHEMA '\\x0a'",
        "PROTOBUF USING CONFLUENT SCHEMA REGISTRY CONNECTION c",
    ] {
        let text = format!(
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT {format} ENVELOPE NONE ON DECODE ERROR DEAD LETTER 'd'"
        );
        assert!(topic(&text).messages.unwrap().bare, "{text}");
    }
    for (text, marked) in [
        ("CREATE SOURCE s FROM KAFKA x", "x"),
        ("CREATE SOURCE s FROM KAFKA CONNECTION k", ""),
        ("CREATE SOURCE s FROM KAFKA CONNECTION k (x 1)", "x"),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT x",
            "x",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT TEXT ENVELOPE x",
            "x",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') FORMAT TEXT INCLUDE x",
            "x",
        ),
        (
            "CREATE SOURCE s FROM KAFKA CONNECTION k (TOPIC 't') KEY FORMAT TEXT ENVELOPE UPSERT",
            "ENVELOPE",
        ),
    ] {
        if marked.is_empty() {
            fails_at_end(text);
        } else {
            fails_at(text, marked);
        }
    }
}

#[test]
fn tables_of_messages_and_sinks() {
    let text = "CREATE TABLE t (id int, v text, PRIMARY KEY (id) NOT ENFORCED) FROM SOURCE s (REFERENCE \"a.b\") KEY FORMAT JSON VALUE FORMAT JSON ENVELOPE UPSERT";
    let StatementKind::CreateTableFromSource(table) = one(text).kind else {
        panic!("none")
    };
    let messages = table.messages.unwrap();
    assert_eq!(messages.columns.columns.len(), 2);
    assert_eq!(messages.columns.primary_key[0].value, "id");
    assert!(messages.columns.columns[1].sql_type.is_some());

    let text = "CREATE SINK IF NOT EXISTS s IN CLUSTER c FROM m INTO KAFKA CONNECTION k (TOPIC 't', COMPRESSION TYPE 'gzip', PARTITION BY = p, \
                TOPIC PARTITION COUNT 4, TOPIC REPLICATION FACTOR 1, TOPIC CONFIG MAP['cleanup.policy' => 'compact']) KEY (a, b) NOT ENFORCED HEADERS h \
                FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr (AVRO VALUE FULLNAME 'x.Y', DOC ON TYPE m = 'd', VALUE DOC ON COLUMN m.a = 'e', \
                KEY COMPATIBILITY LEVEL 'full') ENVELOPE UPSERT WITH (SNAPSHOT = false)";
    let StatementKind::CreateSink(sink) = one(text).kind else {
        panic!("none")
    };
    assert!(sink.if_not_exists && !sink.snapshot);
    let CreateSinkKind::Kafka(sink) = sink.kind;
    assert_eq!((sink.partitions, sink.replication), (Some(4), Some(1)));
    assert_eq!(
        sink.settings,
        [("cleanup.policy".to_owned(), "compact".to_owned())]
    );
    assert_eq!(sink.key.as_ref().map(Vec::len), Some(2));
    assert!(sink.key_not_enforced);
    assert_eq!(sink.docs.len(), 2);
    assert_eq!(sink.key_compatibility.as_deref(), Some("FULL"));
    assert!(matches!(sink.envelope, Some(EnvelopeClause::Upsert { .. })));

    let text = "CREATE SINK s FROM m INTO KAFKA CONNECTION k (TOPIC 't') KEY FORMAT TEXT VALUE FORMAT JSON ENVELOPE DEBEZIUM";
    let StatementKind::CreateSink(sink) = one(text).kind else {
        panic!("none")
    };
    assert!(sink.snapshot);
    assert!(
        matches!(one("ALTER SINK s SET FROM a.m").kind, StatementKind::AlterSink(alter) if alter.from == name("a.m"))
    );
    assert!(
        matches!(one("DROP SINK IF EXISTS s CASCADE").kind, StatementKind::Drop(drop) if drop.object_type == ObjectType::Sink)
    );
    assert!(matches!(
        one("SHOW CREATE SINK s").kind,
        StatementKind::Show(_)
    ));
    fails_at("CREATE SINK s FROM m INTO x", "x");
    fails_at(
        "CREATE SINK s FROM m INTO KAFKA CONNECTION k (TOPIC 't') ENVELOPE UPSERT",
        "ENVELOPE",
    );
}

/// Statements of a guide of 2021.
#[test]
fn brokers_and_urls_in_place_of_connections() {
    let bytes = topic(
        "CREATE SOURCE raw_pageviews FROM KAFKA BROKER 'kafka:9092' TOPIC 'pageviews' FORMAT BYTES",
    );
    assert!(bytes.connection.name().is_none());
    assert!(bytes.messages.is_some());
    let mut users = topic(
        "CREATE SOURCE users FROM KAFKA BROKER 'kafka:9092' TOPIC 'mysql.shop.users' \
         FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY 'http://schema-registry:8081' ENVELOPE DEBEZIUM",
    );
    assert_eq!(users.topic, "mysql.shop.users");
    assert_eq!(users.messages.as_mut().unwrap().references().len(), 1);
    let text = "CREATE SINK s FROM v INTO KAFKA BROKER 'kafka' TOPIC 't' FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY 'http://r:8081'";
    let StatementKind::CreateSink(mut sink) = one(text).kind else {
        panic!("none")
    };
    assert_eq!(sink.kind.references().len(), 2);
}

#[test]
fn sources() {
    let text = "CREATE SOURCE IF NOT EXISTS s IN CLUSTER c FROM POSTGRES CONNECTION pg (PUBLICATION 'p', TEXT COLUMNS (public.t.a, t.b), EXCLUDE COLUMNS = [t.c]) \
                FOR TABLES (public.t AS t1, u) EXPOSE PROGRESS AS s_p WITH (RETAIN HISTORY FOR '1h')";
    let StatementKind::CreateSource(source) = one(text).kind else {
        panic!("none")
    };
    let CreateSourceKind::Postgres {
        connection,
        publication,
        text_columns,
        exclude_columns,
    } = &source.kind
    else {
        panic!("none")
    };
    assert_eq!((connection, publication.as_str()), (&name("pg"), "p"));
    assert_eq!(
        (text_columns.as_slice(), exclude_columns.as_slice()),
        (
            [name("public.t.a"), name("t.b")].as_slice(),
            [name("t.c")].as_slice()
        )
    );
    let SourceTables::Tables(tables) = &source.tables else {
        panic!("none")
    };
    assert_eq!(tables[0].alias, Some(name("t1")));
    assert_eq!(
        (&tables[1].reference, &tables[1].alias),
        (&name("u"), &None)
    );
    assert_eq!(source.expose_progress_as, Some(name("s_p")));

    let text = "CREATE SOURCE mz_source FROM POSTGRES CONNECTION pg (PUBLICATION 'mz_source') FOR ALL TABLES";
    assert!(
        matches!(one(text).kind, StatementKind::CreateSource(source) if source.tables == SourceTables::All)
    );
    let text = "CREATE SOURCE s FROM POSTGRES CONNECTION pg (PUBLICATION = p) FOR SCHEMAS (a, b)";
    assert!(
        matches!(one(text).kind, StatementKind::CreateSource(source) if matches!(&source.tables, SourceTables::Schemas(list) if list.len() == 2))
    );
    let text = "CREATE SOURCE s FROM POSTGRES CONNECTION pg (PUBLICATION 'p')";
    assert!(
        matches!(one(text).kind, StatementKind::CreateSource(source) if source.tables == SourceTables::None)
    );

    let StatementKind::CreateSource(source) = one("CREATE SOURCE a FROM LOAD GENERATOR TPCH (SCALE FACTOR 0.01, TICK INTERVAL '500ms') FOR ALL TABLES").kind else {
        panic!("none")
    };
    assert_eq!(
        source.kind,
        CreateSourceKind::LoadGenerator {
            generator: GeneratorKind::Tpch,
            tick_interval: Some(Duration::from_millis(500)),
            scale_factor: Some(0.01),
            max_cardinality: None
        }
    );
    let StatementKind::CreateSource(source) =
        one("CREATE SOURCE a FROM LOAD GENERATOR COUNTER (MAX CARDINALITY 10)").kind
    else {
        panic!("none")
    };
    assert!(matches!(
        source.kind,
        CreateSourceKind::LoadGenerator {
            max_cardinality: Some(10),
            ..
        }
    ));

    let text = "CREATE TABLE t FROM SOURCE a.s (REFERENCE public.t) WITH (TEXT COLUMNS (x), EXCLUDE COLUMNS (y, z))";
    let StatementKind::CreateTableFromSource(table) = one(text).kind else {
        panic!("none")
    };
    assert_eq!(
        (&table.source, table.reference.as_ref()),
        (&name("a.s"), Some(&name("public.t")))
    );
    assert_eq!(
        (table.text_columns.len(), table.exclude_columns.len()),
        (1, 2)
    );

    let StatementKind::AlterSourceAddSubsource(add) =
        one("ALTER SOURCE IF EXISTS s ADD SUBSOURCE a AS b, c WITH (TEXT COLUMNS (a.x))").kind
    else {
        panic!("none")
    };
    assert!(add.if_exists);
    assert_eq!((add.tables.len(), add.text_columns.len()), (2, 1));
    assert!(matches!(
        one("ALTER SOURCE s ADD TABLE a").kind,
        StatementKind::AlterSourceAddSubsource(_)
    ));
    let StatementKind::AlterSourceDropSubsource(drop) =
        one("ALTER SOURCE s DROP SUBSOURCE IF EXISTS a, b CASCADE").kind
    else {
        panic!("none")
    };
    assert!(drop.subsource_if_exists && drop.cascade && drop.tables.len() == 2);
}

#[test]
fn alter_drop_comment() {
    let StatementKind::AlterRename(rename) =
        one("ALTER MATERIALIZED VIEW IF EXISTS a.v RENAME TO \"W\"").kind
    else {
        panic!("none")
    };
    assert_eq!(
        (
            rename.object_type,
            rename.if_exists,
            rename.new_name.value.as_str()
        ),
        (ObjectType::MaterializedView, true, "W")
    );
    assert!(matches!(
        one("ALTER SCHEMA a.b SWAP WITH c").kind,
        StatementKind::AlterSchemaSwap(_)
    ));
    let StatementKind::Drop(drop) = one("DROP SOURCE IF EXISTS a, b.c CASCADE").kind else {
        panic!("none")
    };
    assert_eq!(
        (
            drop.object_type,
            drop.if_exists,
            drop.names.len(),
            drop.cascade
        ),
        (ObjectType::Source, true, 2, true)
    );
    assert!(
        matches!(one("DROP DATABASE d RESTRICT").kind, StatementKind::Drop(drop) if drop.restrict && !drop.cascade)
    );
    let StatementKind::CommentOn(comment) = one("COMMENT ON COLUMN s.t.c IS 'it''s'").kind else {
        panic!("none")
    };
    assert_eq!(comment.comment.as_deref(), Some("it's"));
    assert!(
        matches!(comment.target, CommentTarget::Column { relation, column } if relation == name("s.t") && column.value == "c")
    );
    assert!(
        matches!(one("COMMENT ON TABLE t IS NULL").kind, StatementKind::CommentOn(comment) if comment.comment.is_none())
    );
}

#[test]
fn show() {
    let objects = |text: &str| match one(text).kind {
        StatementKind::Show(ShowStatement::Objects {
            kind,
            from,
            of,
            filter,
        }) => (kind, from, of, filter),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(
        objects("SHOW SOURCES"),
        (ShowKind::Sources, None, None, None)
    );
    assert_eq!(
        objects("SHOW TABLES FROM a.b LIKE 'x%'"),
        (
            ShowKind::Tables,
            Some(name("a.b")),
            None,
            Some(ShowFilter::Like("x%".to_owned()))
        )
    );
    assert_eq!(
        objects("SHOW INDEXES ON t").2,
        Some(ShowOf::Relation(name("t")))
    );
    assert_eq!(objects("SHOW SUBSOURCES ON s").0, ShowKind::Subsources);
    assert!(matches!(
        objects("SHOW MATERIALIZED VIEWS IN CLUSTER c"),
        (
            ShowKind::MaterializedViews,
            None,
            Some(ShowOf::Cluster(_)),
            None
        )
    ));
    assert!(matches!(
        objects("SHOW DATABASES WHERE name = 'a'").3,
        Some(ShowFilter::Where(_))
    ));
    for (text, kind) in [
        ("SHOW SCHEMAS FROM d", ShowKind::Schemas),
        ("SHOW OBJECTS", ShowKind::Objects),
        ("SHOW VIEWS", ShowKind::Views),
        ("SHOW SECRETS", ShowKind::Secrets),
        ("SHOW CONNECTIONS", ShowKind::Connections),
        ("SHOW CLUSTERS", ShowKind::Clusters),
        ("SHOW CLUSTER REPLICAS", ShowKind::ClusterReplicas),
        ("SHOW ROLES", ShowKind::Roles),
        ("SHOW SINKS", ShowKind::Sinks),
        ("SHOW TYPES", ShowKind::Types),
    ] {
        assert_eq!(objects(text).0, kind);
    }
    assert!(matches!(
        one("SHOW COLUMNS IN t").kind,
        StatementKind::Show(ShowStatement::Columns { .. })
    ));
    for (text, object_type) in [
        ("SHOW CREATE TABLE t", ObjectType::Table),
        ("SHOW CREATE VIEW t", ObjectType::View),
        (
            "SHOW CREATE MATERIALIZED VIEW t",
            ObjectType::MaterializedView,
        ),
        ("SHOW CREATE INDEX t", ObjectType::Index),
        ("SHOW CREATE SOURCE t", ObjectType::Source),
        ("SHOW REDACTED CREATE CONNECTION t", ObjectType::Connection),
    ] {
        assert_eq!(
            one(text).kind,
            StatementKind::Show(ShowStatement::Create {
                object_type,
                name: name("t")
            })
        );
    }
    for (text, variable) in [
        ("SHOW ALL", ShowVariable::All),
        (
            "SHOW Search_Path",
            ShowVariable::Named("search_path".to_owned()),
        ),
        ("SHOW cluster", ShowVariable::Named("cluster".to_owned())),
        ("SHOW TIME ZONE", ShowVariable::Named("timezone".to_owned())),
        (
            "SHOW TRANSACTION ISOLATION LEVEL",
            ShowVariable::Named("transaction_isolation".to_owned()),
        ),
    ] {
        assert_eq!(one(text).kind, StatementKind::ShowVariable(variable));
    }
}

#[test]
fn session_statements() {
    let set = |text: &str| match one(text).kind {
        StatementKind::SetVariable(set) => (set.local, set.name, set.value),
        other => panic!("{text}: {other:?}"),
    };
    let values = |values: &[&str]| {
        SetValue::Values(values.iter().map(|value| (*value).to_owned()).collect())
    };
    assert_eq!(
        set("SET CLUSTER = c"),
        (false, "cluster".to_owned(), values(&["c"]))
    );
    assert_eq!(
        set("SET TRANSACTION_ISOLATION TO 'STRICT SERIALIZABLE'"),
        (
            false,
            "transaction_isolation".to_owned(),
            values(&["STRICT SERIALIZABLE"])
        )
    );
    assert_eq!(
        set("SET LOCAL search_path = A, \"B\", 'c d'"),
        (true, "search_path".to_owned(), values(&["a", "B", "c d"]))
    );
    assert_eq!(
        set("SET SESSION x.y TO DEFAULT"),
        (false, "x.y".to_owned(), SetValue::Default)
    );
    assert_eq!(
        set("SET session TO 1"),
        (false, "session".to_owned(), values(&["1"]))
    );
    assert_eq!(
        set("SET extra_float_digits = -3"),
        (false, "extra_float_digits".to_owned(), values(&["-3"]))
    );
    assert_eq!(
        set("SET TIME ZONE 'UTC'"),
        (false, "timezone".to_owned(), values(&["UTC"]))
    );
    assert_eq!(
        set("SET NAMES 'utf8'"),
        (false, "client_encoding".to_owned(), values(&["utf8"]))
    );
    assert_eq!(
        set("SET real_time_recency = on"),
        (false, "real_time_recency".to_owned(), values(&["on"]))
    );
    assert_eq!(
        one("RESET ALL").kind,
        StatementKind::ResetVariable(ResetVariable::All)
    );
    assert_eq!(
        one("RESET cluster").kind,
        StatementKind::ResetVariable(ResetVariable::Named("cluster".to_owned()))
    );

    let StatementKind::SetTransaction(set) = one(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL STRICT SERIALIZABLE, READ ONLY",
    )
    .kind
    else {
        panic!("none")
    };
    assert!(set.session);
    assert_eq!(
        set.modes,
        [
            TransactionMode::Isolation(IsolationLevel::StrictSerializable),
            TransactionMode::ReadOnly
        ]
    );
    assert_eq!(
        one("START TRANSACTION READ WRITE NOT DEFERRABLE").kind,
        StatementKind::Begin {
            modes: vec![
                TransactionMode::ReadWrite,
                TransactionMode::Deferrable(false)
            ]
        }
    );
    assert_eq!(
        one("BEGIN WORK").kind,
        StatementKind::Begin { modes: vec![] }
    );
    for text in ["COMMIT", "END TRANSACTION", "COMMIT WORK AND NO CHAIN"] {
        assert_eq!(one(text).kind, StatementKind::Commit);
    }
    for text in ["ROLLBACK", "ABORT"] {
        assert_eq!(one(text).kind, StatementKind::Rollback);
    }
    assert!(matches!(
        one("DISCARD TEMP").kind,
        StatementKind::Discard(_)
    ));
}

#[test]
fn prepared_statements_and_cursors() {
    let StatementKind::Prepare(prepare) = one("PREPARE p (int, text) AS SELECT $1, $2").kind else {
        panic!("none")
    };
    assert_eq!(
        (
            prepare.name.value.as_str(),
            prepare.types.len(),
            prepare.statement.text.as_str()
        ),
        ("p", 2, "SELECT $1, $2")
    );
    let StatementKind::Execute(execute) = one("EXECUTE p (1 + 1, 'x')").kind else {
        panic!("none")
    };
    assert_eq!(execute.parameters.len(), 2);
    assert!(matches!(
        one("DEALLOCATE PREPARE p").kind,
        StatementKind::Deallocate(Some(_))
    ));
    assert!(matches!(
        one("DEALLOCATE ALL").kind,
        StatementKind::Deallocate(None)
    ));

    let StatementKind::Declare(declare) =
        one("DECLARE c CURSOR FOR SUBSCRIBE (SELECT * FROM t) AS OF 3").kind
    else {
        panic!("none")
    };
    assert!(
        matches!(declare.statement.kind, StatementKind::Subscribe(ref subscribe) if subscribe.as_of.is_some())
    );
    assert!(
        matches!(one("DECLARE \"C\" NO SCROLL CURSOR WITHOUT HOLD FOR SELECT 1").kind, StatementKind::Declare(declare) if declare.name.value == "C")
    );
    for (text, count, timeout) in [
        ("FETCH 10 c WITH (timeout='1s')", Some(10), Some(1_000)),
        ("FETCH ALL FROM c", None, None),
        ("FETCH FORWARD 5 FROM c", Some(5), None),
        ("FETCH FORWARD ALL IN c", None, None),
        ("FETCH c", Some(1), None),
        ("FETCH NEXT c", Some(1), None),
        ("FETCH 0 c WITH (TIMEOUT 250 )", Some(0), Some(250_000)),
        (
            "FETCH 1 c WITH (timeout = '100 milliseconds')",
            Some(1),
            Some(100),
        ),
    ] {
        let StatementKind::Fetch(fetch) = one(text).kind else {
            panic!("{text}")
        };
        assert_eq!(
            (fetch.name.value.as_str(), fetch.count, fetch.timeout),
            ("c", count, timeout.map(Duration::from_millis)),
            "{text}"
        );
    }
    assert!(matches!(one("CLOSE ALL").kind, StatementKind::Close(None)));
}

/// Blocks of the reference documents that do not parse, by document and line: the token that is wrong in them.
const BROKEN_SEEDS: &[(&str, usize, &str)] = &[
    ("ingest-data", 250, "<cluster_name>"),       // a placeholder
    ("ingest-data", 911, "<host>"),               // a placeholder
    ("ingest-data", 978, "SETTING"),              // a statement for CockroachDB
    ("ingest-data", 997, "CHANGEFEED"),           // a statement for CockroachDB
    ("ingest-data", 1054, "<cluster_name>"),      // a placeholder
    ("ingest-data", 1509, "FROM hubspot_source"), // a comma before FROM
    ("ingest-data", 2005, "<SOURCE_ID>"),         // a placeholder
    ("ingest-data", 3483, "<SSH_BASTION_PORT>"),  // a placeholder
    ("ingest-data", 3615, "<SSH_BASTION_PORT>"),  // a placeholder
    ("ingest-data", 3744, "SSH TUNNEL"),          // a comma is missing before it
    ("ingest-data", 3769, ");"),                  // a comma before the parenthesis
    ("ingest-data", 3945, "SSH TUNNEL"),          // a comma is missing before it
    ("ingest-data", 3969, "<id>"),                // a placeholder
    ("ingest-data", 4048, "CHECK"),               // a semicolon in the middle of the statement
    ("ingest-data", 4213, "<SOURCE_NAME>"),       // a placeholder
    ("ingest-data", 4272, "<SOURCE_ID>"),         // a placeholder
];

#[test]
fn the_reference_documents_parse_and_what_is_broken_in_them_is_reported_exactly_there() {
    let documents = [
        (
            "ingest-data",
            include_str!("../../tests/seeds/ingest-data.sql"),
        ),
        ("debezium", include_str!("../../tests/seeds/debezium.sql")),
        ("estuary", include_str!("../../tests/seeds/estuary.sql")),
    ];
    let mut blocks = 0;
    for (document, text) in documents {
        for block in text.split("--- ").skip(1) {
            let (line, sql) = block
                .split_once('\n')
                .expect("a block starts with its line number");
            let line: usize = line.trim().parse().unwrap();
            blocks += 1;
            let broken = BROKEN_SEEDS
                .iter()
                .find(|(broken_document, broken_line, _)| {
                    (*broken_document, *broken_line) == (document, line)
                });
            match (parse(sql), broken) {
                (Ok(statements), None) => assert!(!statements.is_empty(), "{document} {line}"),
                (Err(error), Some((_, _, token))) => {
                    let byte = if token.starts_with(')') {
                        sql.rfind(token)
                    } else {
                        sql.find(token)
                    }
                    .expect("the token is in the block");
                    assert_eq!(
                        error.position,
                        Some(sql[..byte].chars().count() + 1),
                        "{document} {line}: {error:?}"
                    );
                }
                (Ok(statements), Some(_)) => panic!("{document} {line} parses: {statements:?}"),
                (Err(error), None) => panic!("{document} {line}: {error:?}"),
            }
        }
    }
    assert_eq!(blocks, 97);
}

#[test]
fn the_postgresql_steps_of_the_reference_document_are_our_own_statements() {
    let text = include_str!("../../tests/seeds/ingest-data.sql");
    let block = |line: &str| {
        text.split("--- ")
            .find_map(|block| block.strip_prefix(line))
            .expect("the block")
    };
    assert!(matches!(
        one(block("762\n")).kind,
        StatementKind::CreateConnection(_)
    ));
    assert!(matches!(
        one(block("3761\n")).kind,
        StatementKind::CreateSource(_)
    ));
    assert!(matches!(
        one(block("4698\n")).kind,
        StatementKind::Subscribe(_)
    ));
    assert_eq!(
        parse(block("4710\n")).map(|statements| statements.len()),
        Ok(2)
    );
}

#[test]
fn everything_psql_sends_parses() {
    let text = include_str!("../../tests/psql_queries.sql");
    let mut queries = 0;
    for block in text.split("\n--- ").skip(1) {
        let (command, sql) = block
            .split_once('\n')
            .expect("a block starts with its command");
        let sql = ["table", "view", "matview", "index"]
            .iter()
            .fold(sql.to_owned(), |sql, name| {
                sql.replace(&format!("{{{name}}}"), "16384")
            });
        parse(&sql).unwrap_or_else(|error| panic!("{command}: {error:?}\n{sql}"));
        queries += 1;
    }
    assert!(queries > 50, "{queries}");
}

#[test]
fn statements_about_roles() {
    use crate::ast::{
        AlterRole, AlterRoleAction, CreateRole, DropRoles, Password, PasswordOption, RoleName,
        RoleOptions,
    };
    let kind = |text: &str| parse(text).unwrap().remove(0).kind;
    let StatementKind::CreateRole(CreateRole {
        name,
        if_not_exists,
        options,
    }) = kind(
        "CREATE ROLE IF NOT EXISTS \"Ada\" WITH LOGIN NOSUPERUSER INHERIT NOCREATEDB CREATECLUSTER CONNECTION LIMIT -1 ENCRYPTED PASSWORD 'x''y' VALID UNTIL '2030-01-01'",
    )
    else {
        panic!("CREATE ROLE")
    };
    assert_eq!((name.value.as_str(), if_not_exists), ("Ada", true));
    assert_eq!(
        (options.login, options.superuser, options.inherit),
        (Some(true), Some(false), Some(true))
    );
    assert_eq!(
        options.password,
        Some(PasswordOption::Text(Password("x'y".to_owned())))
    );
    assert_eq!(options.without_effect, ["NOCREATEDB", "CREATECLUSTER"]);
    assert_eq!(options.valid_until.unwrap().text, "2030-01-01");
    for (text, login) in [
        ("CREATE USER u", Some(true)),
        ("CREATE USER u NOLOGIN", Some(false)),
        ("CREATE ROLE u", None),
    ] {
        assert!(
            matches!(kind(text), StatementKind::CreateRole(create) if create.options.login == login),
            "{text}"
        );
    }
    let alter = kind("ALTER USER CURRENT_USER PASSWORD NULL");
    assert_eq!(
        alter,
        StatementKind::AlterRole(AlterRole {
            role: RoleName::Current,
            action: AlterRoleAction::Options(RoleOptions {
                password: Some(PasswordOption::Null),
                ..RoleOptions::default()
            }),
        })
    );
    assert!(matches!(
        kind("ALTER ROLE a RENAME TO b"),
        StatementKind::AlterRole(AlterRole { action: AlterRoleAction::Rename(to), .. }) if to.value == "b"
    ));
    assert!(matches!(
        kind("DROP USER IF EXISTS a, b"),
        StatementKind::DropRoles(DropRoles { names, if_exists: true }) if names.len() == 2
    ));
}

#[test]
fn a_password_is_in_no_error_and_no_debug_output() {
    for text in [
        "CREATE ROLE r PASSWORD hunter2",
        "CREATE ROLE r PASSWORD 'a' 'hunter2'",
        "CREATE ROLE r PASSWORD 'hunter2' PASSWORD 'hunter2'",
        "CREATE ROLE r PASSWORD = 'hunter2'",
        "CREATE ROLE r PASSWORD 'hunter2', LOGIN",
        "CREATE ROLE r PASSWORD $$hunter2$$ 5",
        "ALTER ROLE r PASSWORD \"hunter2\"",
        "ALTER ROLE r 'hunter2'",
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Syntax, "{text}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    for text in [
        "CREATE ROLE r PASSWORD 'hunter2'",
        "ALTER ROLE r PASSWORD 'hunter2'",
        "PREPARE p AS CREATE ROLE r PASSWORD 'hunter2'",
        "CREATE ROLE r PASSWORD 'hunter2' IN ROLE s",
    ] {
        match parse(text) {
            Ok(statements) => {
                for statement in statements {
                    assert!(
                        !format!("{statement:?}").contains("hunter2"),
                        "{statement:?}"
                    );
                    assert!(!statement.redacted_text().contains("hunter2"), "{text}");
                }
            }
            Err(error) => assert!(!format!("{error:?}").contains("hunter2"), "{error:?}"),
        }
    }
}
