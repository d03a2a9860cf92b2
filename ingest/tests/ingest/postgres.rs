//! PostgreSQL capture against a real server.

use flowstone_ingest::{BufferLimits, SourceEvent, TableData, ask};
use flowstone_proto::message::{
    PostgresConnection, RequestError, SourceKind, SourceStatus, UpstreamConnection,
    UpstreamQuestion,
};
use flowstone_types::ObjectId;
use tokio_postgres::Client;

use super::server::{Server, execute, lsn, rows, value};
use super::source::{DEADLINE, Model, Row, Running, SOURCE, Setup, describe, render, source_table};

/// Whether a server can be reached and is set up for capture.
fn validate(connection: PostgresConnection) -> UpstreamQuestion {
    UpstreamQuestion::Validate(UpstreamConnection::Postgres(connection))
}

/// What the table holds upstream, as the model holds it.
async fn upstream(client: &Client, table: &str) -> Vec<Row> {
    let mut rows = rows(client, &format!("SELECT * FROM {table}")).await;
    rows.sort();
    rows
}

/// Takes everything that happened so far.
async fn catch_up(
    setup: &Setup,
    running: &mut Running,
    client: &Client,
    model: &mut Model,
    snapshots: Vec<ObjectId>,
) -> u64 {
    let position = running.progress(lsn(client).await).await;
    model
        .apply(setup, running.take(position, snapshots).await)
        .await;
    position
}

/// Starts the source and takes its first snapshot.
async fn started(setup: &Setup, client: &Client) -> (Running, Model) {
    let mut running = setup.run().await;
    let mut model = Model::default();
    if let Some(table) = setup.tables().first() {
        running.snapshot(*table).await;
    }
    catch_up(setup, &mut running, client, &mut model, setup.tables()).await;
    (running, model)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_with_concurrent_writes_and_the_stream_equal_upstream() {
    let server = Server::start("");
    let client = server.client().await;
    execute(
        &client,
        "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id bigint, v int); ALTER TABLE b REPLICA IDENTITY FULL; \
         INSERT INTO a SELECT g, 'v' || g FROM generate_series(1, 20000) g; INSERT INTO b SELECT g % 50, g FROM generate_series(1, 5000) g; \
         CREATE PUBLICATION p FOR ALL TABLES",
    )
    .await;
    let setup = Setup::new(&server).await;
    let writer = server.client().await;
    let writing = tokio::spawn(async move {
        for number in 0..300 {
            let sql = format!(
                "BEGIN; INSERT INTO a VALUES ({id}, 'new'); UPDATE a SET v = v || '+' WHERE id % 700 = {number}; DELETE FROM a WHERE id = {number}; \
                 UPDATE b SET v = v + 1 WHERE id = {number} % 50 AND v % 7 = 0; INSERT INTO b VALUES (1, 1); \
                 DELETE FROM b WHERE ctid = (SELECT min(ctid) FROM b); COMMIT",
                id = 100_000 + number
            );
            execute(&writer, &sql).await;
        }
    });
    let mut running = setup.run().await;
    let mut model = Model::default();
    let position = running.snapshot(setup.id("a")).await;
    model
        .apply(&setup, running.take(position, setup.tables()).await)
        .await;
    // Each cut on the way is bound too.
    for _ in 0..5 {
        catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
    }
    writing.await.unwrap();
    catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
    assert_eq!(model.rows(setup.id("a")), upstream(&client, "a").await);
    assert_eq!(model.rows(setup.id("b")), upstream(&client, "b").await);
    assert_eq!(model.errors, []);
    running.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_altered_is_used_at_once_and_another_server_is_not_read() {
    let server = Server::start("");
    let client = server.client().await;
    execute(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION p FOR TABLE t",
    )
    .await;
    execute(&client, "CREATE DATABASE elsewhere").await;
    let through = |connection: PostgresConnection| SourceKind::Postgres {
        connection,
        publication: "p".to_owned(),
        slot: "flowstone_slot".to_owned(),
    };
    let mut setup = Setup::new(&server).await;
    setup.description.kind = through(PostgresConnection {
        port: 1,
        ..server.connection()
    });
    let tables = setup.description.tables.clone();
    let mut running = setup.run().await;
    running
        .status(SOURCE, |status| {
            matches!(status, SourceStatus::Stalled { .. })
        })
        .await;
    running.handle.alter(through(server.connection()), &tables);
    let position = running.snapshot(setup.id("t")).await;
    let mut model = Model::default();
    model
        .apply(&setup, running.take(position, setup.tables()).await)
        .await;
    let other = Server::start("");
    let elsewhere = PostgresConnection {
        database: "elsewhere".to_owned(),
        ..server.connection()
    };
    for (number, (connection, expected)) in (2..).zip([
        (other.connection(), "system identifier"),
        (elsewhere, "another database"),
    ]) {
        running.handle.alter(through(connection), &tables);
        running
            .status(SOURCE, |status| {
                matches!(status, SourceStatus::Stalled { error, .. } if error.contains(expected))
            })
            .await;
        execute(&client, &format!("INSERT INTO t VALUES ({number})")).await;
        running.handle.alter(through(server.connection()), &tables);
        catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
        assert_eq!(model.rows(setup.id("t")), upstream(&client, "t").await);
    }
    assert!(running.handle.failure().is_none());
    assert_eq!(model.errors, []);
    running.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_reads_the_same_from_snapshot_and_stream() {
    let server = Server::start("");
    let client = server.client().await;
    let columns = [
        ("bool", "true"),
        ("bytea", "'\\x00ff10'"),
        ("char(5)", "'ab'"),
        ("varchar(9)", "'ähm'"),
        ("text", "E'tab\\there'"),
        ("name", "'a_name'"),
        ("\"char\"", "'x'"),
        ("int2", "-32768"),
        ("int4", "2147483647"),
        ("int8", "-9223372036854775808"),
        ("float4", "1.1"),
        ("float8", "0.1::float8 + 0.2::float8"),
        ("numeric", "-12345.678900"),
        ("numeric(12,3)", "99.5"),
        ("date", "'0044-03-15 BC'"),
        ("time", "'23:59:59.999999'"),
        ("timestamp", "'2024-02-29 12:34:56.789'"),
        ("timestamptz", "'2024-02-29 12:34:56.789+05:30'"),
        ("interval", "'1 year -2 mons 3 days -04:05:06.7'"),
        ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
        ("json", "'{\"b\": [1, 2.5, null], \"a\": \"x\"}'"),
        ("jsonb", "'{\"b\": [1, 2.5, null], \"a\": \"x\"}'"),
        ("oid", "4294967295"),
        ("int4[]", "'{1,NULL,3}'"),
        ("text[]", "'{\"a b\",NULL,\"q\\\"\"}'"),
        ("numeric(6,2)[]", "'{1.5,2}'"),
        ("timestamptz[]", "'{2024-01-01 00:00:00+00}'"),
        ("uuid[]", "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'"),
        ("jsonb[]", "ARRAY['{\"k\": 1}'::jsonb]"),
        ("bool[]", "'{t,f}'"),
        ("money", "'12.34'"),
        ("inet", "'10.0.0.1/8'"),
        ("mood", "'happy'"),
    ];
    let definitions = columns
        .iter()
        .enumerate()
        .map(|(number, (name, _))| format!("c{number} {name}"));
    let definitions = itertools::join(definitions, ", ");
    let values = itertools::join(columns.iter().map(|(_, value)| value), ", ");
    let nulls = itertools::join(columns.iter().map(|_| "NULL"), ", ");
    execute(
        &client,
        &format!(
            "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TABLE t (id int PRIMARY KEY, {definitions}); \
             INSERT INTO t VALUES (1, {values}), (2, {nulls}); CREATE PUBLICATION p FOR TABLE t"
        ),
    )
    .await;
    let setup = Setup::new(&server).await;
    let (mut running, mut model) = started(&setup, &client).await;
    execute(
        &client,
        &format!("INSERT INTO t VALUES (3, {values}), (4, {nulls})"),
    )
    .await;
    catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
    let rows = model.rows(setup.id("t"));
    assert_eq!(model.errors, []);
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0][1..], rows[2][1..]);
    assert_eq!(rows[1][1..], rows[3][1..]);
    assert!(rows[1][1..].iter().all(Option::is_none));
    // Except that json becomes jsonb, and numerics have one scale, the text is PostgreSQL's own.
    execute(
        &client,
        "SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET datestyle = 'ISO, YMD'",
    )
    .await;
    let expected = upstream(&client, "t").await;
    for (number, (name, _)) in columns.iter().enumerate() {
        if !matches!(*name, "json" | "numeric") {
            assert_eq!(rows[0][number + 1], expected[0][number + 1], "{name}");
        }
    }
    assert_eq!(rows[0][21], rows[0][22], "json and jsonb of one document");
    running.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unchanged_toast_values_and_changed_keys_need_no_old_row() {
    let server = Server::start("");
    let client = server.client().await;
    execute(
        &client,
        "CREATE TABLE k (id int PRIMARY KEY, n int NOT NULL, big text NOT NULL); ALTER TABLE k ALTER big SET STORAGE EXTERNAL; \
         CREATE TABLE f (id int, n int, big text); ALTER TABLE f ALTER big SET STORAGE EXTERNAL; ALTER TABLE f REPLICA IDENTITY FULL; \
         INSERT INTO k SELECT g, g, repeat('k' || g, 5000) FROM generate_series(1, 3) g; INSERT INTO f SELECT * FROM k; \
         CREATE PUBLICATION p FOR TABLE k, f",
    )
    .await;
    let setup = Setup::new(&server).await;
    let (mut running, mut model) = started(&setup, &client).await;
    execute(
        &client,
        "UPDATE k SET n = n + 10 WHERE id = 1; UPDATE f SET n = n + 10 WHERE id = 1",
    )
    .await;
    execute(
        &client,
        "UPDATE k SET id = 20, big = 'short' WHERE id = 2; UPDATE f SET id = 20 WHERE id = 2",
    )
    .await;
    execute(&client, "BEGIN; DELETE FROM k WHERE id = 3; INSERT INTO k VALUES (3, 4, 'back'); UPDATE k SET n = 5 WHERE id = 3; COMMIT").await;
    let position = running.progress(lsn(&client).await).await;
    let taken = running.take(position, Vec::new()).await;
    let left_out = taken.iter().any(|change| matches!(&change.data, TableData::Changes(changes) if !changes.unchanged.is_empty()));
    assert!(
        left_out,
        "the stream must leave out a value for this test to mean anything"
    );
    model.apply(&setup, taken).await;
    assert_eq!(model.rows(setup.id("k")), upstream(&client, "k").await);
    assert_eq!(model.rows(setup.id("f")), upstream(&client, "f").await);
    running.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncate_empties_the_table_where_it_happened() {
    let server = Server::start("");
    let client = server.client().await;
    execute(&client, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2); CREATE PUBLICATION p FOR TABLE t").await;
    let setup = Setup::new(&server).await;
    let (mut running, mut model) = started(&setup, &client).await;
    execute(&client, "BEGIN; INSERT INTO t VALUES (3); TRUNCATE t; INSERT INTO t VALUES (4), (1); COMMIT; INSERT INTO t VALUES (5)").await;
    catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
    assert_eq!(model.rows(setup.id("t")), upstream(&client, "t").await);
    execute(&client, "TRUNCATE t").await;
    catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
    assert_eq!(model.rows(setup.id("t")), Vec::<Row>::new());
    running.handle.stop().await;
}

/// Takes whatever is offered until everything that happened so far was; returns how often, and how many files of changes there were at most.
async fn take_offers(
    setup: &Setup,
    running: &mut Running,
    client: &Client,
    model: &mut Model,
    position: &mut u64,
) -> (usize, usize) {
    let spilled = setup.dir.path().join("state").join("spill");
    let spilled = spilled.join(SOURCE.to_string());
    let end = lsn(client).await;
    let (mut takes, mut most) = (0, 0);
    while *position < end {
        *position = running.progress(*position + 1).await;
        most = most.max(std::fs::read_dir(&spilled).map_or(0, Iterator::count));
        let taken = running.take(*position, Vec::new()).await;
        model.apply(setup, taken).await;
        takes += 1;
    }
    (takes, most)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_is_no_memory_for_waits_on_disk_and_upstream_waits_for_takes() {
    let server = Server::start("");
    let client = server.client().await;
    execute(&client, "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE k (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t, k").await;
    let setup = Setup::new(&server).await;
    let limits = BufferLimits {
        memory_bytes: 1024 * 1024,
        disk_bytes: 1024 * 1024,
    };
    let mut running = setup.try_run_within(limits).await.unwrap();
    let mut model = Model::default();
    running.snapshot(setup.id("t")).await;
    let mut position = catch_up(&setup, &mut running, &client, &mut model, setup.tables()).await;
    // One transaction is read to its end, however large it is.
    execute(
        &client,
        "BEGIN; INSERT INTO t SELECT g, repeat('v', 100) || g FROM generate_series(1, 60000) g; INSERT INTO k VALUES (1); \
         UPDATE t SET v = v || '!' WHERE id % 300 = 0; DELETE FROM t WHERE id % 300 = 1; COMMIT",
    )
    .await;
    let (_, files) = take_offers(&setup, &mut running, &client, &mut model, &mut position).await;
    assert!(files > 3, "{files} files");
    assert_eq!(model.rows(setup.id("t")), upstream(&client, "t").await);
    assert_eq!(model.rows(setup.id("k")), upstream(&client, "k").await);
    // Many transactions are offered bit by bit.
    for number in 1..=12 {
        let sql = format!(
            "INSERT INTO t SELECT {number} * 1000000 + g, repeat('x', 500) FROM generate_series(1, 5000) g"
        );
        execute(&client, &sql).await;
    }
    let (takes, _) = take_offers(&setup, &mut running, &client, &mut model, &mut position).await;
    assert!(takes > 2, "{takes} takes");
    assert_eq!(model.rows(setup.id("t")), upstream(&client, "t").await);
    assert_eq!(model.errors, []);
    running.drop_with(&setup).await;
    let left = setup.dir.path().join("state").join("spill");
    assert!(!left.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incompatible_change_fails_one_table_and_leaves_the_others() {
    let server = Server::start("");
    let client = server.client().await;
    execute(
        &client,
        "CREATE TABLE added (id int PRIMARY KEY, v int); CREATE TABLE altered (id int PRIMARY KEY, v int, w int); \
         CREATE TABLE dropped (id int PRIMARY KEY); CREATE TABLE removed (id int PRIMARY KEY); \
         CREATE PUBLICATION p FOR TABLE added, altered, dropped, removed",
    )
    .await;
    let mut setup = Setup::new(&server).await;
    let (mut running, mut model) = started(&setup, &client).await;
    execute(
        &client,
        "ALTER TABLE added ADD COLUMN extra text DEFAULT 'x'; INSERT INTO added VALUES (1, 2, 'y')",
    )
    .await;
    execute(&client, "INSERT INTO altered VALUES (1, 1, 1)").await;
    execute(&client, "ALTER TABLE altered DROP COLUMN v").await;
    execute(&client, "INSERT INTO altered VALUES (2, 2)").await;
    execute(
        &client,
        "INSERT INTO dropped VALUES (1); DROP TABLE dropped",
    )
    .await;
    execute(&client, "INSERT INTO removed VALUES (1); ALTER PUBLICATION p DROP TABLE removed; INSERT INTO removed VALUES (2)").await;
    for name in ["altered", "dropped", "removed"] {
        let wanted = setup.id(name);
        let failed = |event: &SourceEvent| matches!(event, SourceEvent::Status { object, status: SourceStatus::Failed { .. } } if *object == wanted);
        if !running.seen.iter().any(failed) {
            running
                .wait(name, |event| failed(event).then_some(()))
                .await;
        }
    }
    let first = catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(model.rows(setup.id("added")), [vec![text("1"), text("2")]]);
    assert_eq!(
        model.rows(setup.id("altered")),
        [vec![text("1"), text("1"), text("1")]]
    );
    let mut errors: Vec<_> = model
        .errors
        .iter()
        .map(|(table, message)| (*table, message.as_str()))
        .collect();
    errors.sort_unstable();
    let expected = [
        (
            "altered",
            "incompatible schema change: column \"v\" was dropped",
        ),
        ("dropped", "table was dropped"),
        ("removed", "was removed from publication \"p\""),
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for ((table, message), (name, part)) in errors.iter().zip(expected) {
        assert_eq!(*table, setup.id(name));
        assert!(message.contains(part), "{message}");
    }
    execute(&client, "INSERT INTO added VALUES (7, 7, 'z')").await;
    catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
    assert_eq!(model.rows(setup.id("added")).len(), 2);
    running.handle.stop().await;
    // The errors are still there after a restart from a commit point that came later.
    setup.resume_from(first);
    setup.description.snapshotted = setup.tables();
    let mut running = setup.run().await;
    let mut again = Model::default();
    catch_up(&setup, &mut running, &client, &mut again, Vec::new()).await;
    assert_eq!(again.errors.len(), 3);
    running.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_cuts_give_the_same_content_after_a_restart_from_any_of_them() {
    let server = Server::start("");
    let client = server.client().await;
    execute(
        &client,
        "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (v int); ALTER TABLE b REPLICA IDENTITY FULL; \
         INSERT INTO a SELECT g, 'v' FROM generate_series(1, 100) g; INSERT INTO b SELECT generate_series(1, 10); CREATE PUBLICATION p FOR ALL TABLES",
    )
    .await;
    let mut setup = Setup::new(&server).await;
    let mut running = setup.run().await;
    let snapshot = running.snapshot(setup.id("a")).await;
    let mut cuts = vec![snapshot];
    for number in 0..12 {
        execute(
            &client,
            &format!(
                "BEGIN; UPDATE a SET v = '{number}' WHERE id % 12 = {number}; INSERT INTO b VALUES ({number}); COMMIT; \
                 DELETE FROM b WHERE v = {number} - 2; UPDATE a SET id = id + 1000 WHERE id = {number}"
            ),
        )
        .await;
        if number == 6 {
            execute(&client, "TRUNCATE b").await;
        }
        cuts.push(running.progress(lsn(&client).await).await);
    }
    let mut first = Vec::new();
    for (number, cut) in cuts.iter().enumerate() {
        let snapshots = if number == 0 {
            setup.tables()
        } else {
            Vec::new()
        };
        first.push(render(&running.take(*cut, snapshots).await));
    }
    running.handle.stop().await;
    // Nothing was committed: the manifest gives the same snapshot, the slot the same changes.
    let mut running = setup.run().await;
    for (number, cut) in cuts.iter().enumerate() {
        let snapshots = if number == 0 {
            setup.tables()
        } else {
            Vec::new()
        };
        assert_eq!(
            render(&running.take(*cut, snapshots).await),
            first[number],
            "cut {number}"
        );
    }
    running.handle.stop().await;
    // From each commit point.
    setup.description.snapshotted = setup.tables();
    for (number, from) in cuts.iter().enumerate() {
        setup.resume_from(*from);
        let mut running = setup.run().await;
        // Fewer cuts than before: what lies between two of them is the same.
        let last = *cuts.last().unwrap();
        let taken = render(&running.take(last, Vec::new()).await);
        for table in setup.tables() {
            let expected: Vec<String> = first[number + 1..]
                .iter()
                .filter_map(|taken| taken.get(&table))
                .flatten()
                .cloned()
                .collect();
            assert_eq!(
                taken.get(&table).cloned().unwrap_or_default(),
                expected,
                "from cut {number}"
            );
        }
        running.acknowledge(*from);
        running.handle.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_stalls_the_source_and_then_it_runs_on() {
    let server = Server::start("");
    let client = server.client().await;
    execute(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t",
    )
    .await;
    let setup = Setup::new(&server).await;
    let (mut running, mut model) = started(&setup, &client).await;
    execute(&client, "INSERT INTO t VALUES (1)").await;
    drop(client);
    server.down();
    running
        .status(SOURCE, |status| {
            matches!(status, SourceStatus::Stalled { .. })
        })
        .await;
    server.up();
    running
        .status(SOURCE, |status| *status == SourceStatus::Running)
        .await;
    let client = server.client().await;
    execute(&client, "INSERT INTO t VALUES (2)").await;
    catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
    assert_eq!(model.rows(setup.id("t")), upstream(&client, "t").await);
    running.handle.stop().await;
}

/// Waits until a query gives `expected`.
async fn wait_for(client: &Client, sql: &str, expected: &str) {
    let started = std::time::Instant::now();
    loop {
        let now = value(client, sql).await;
        if now == expected {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{sql}: {now}, not {expected}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_source_drops_its_slot_and_a_lost_slot_fails_it() {
    let server = Server::start("");
    let client = server.client().await;
    execute(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t",
    )
    .await;
    let setup = Setup::new(&server).await;
    let (running, _) = started(&setup, &client).await;
    running.handle.stop().await;
    assert_eq!(
        value(&client, "SELECT count(*) FROM pg_replication_slots").await,
        "1"
    );
    let running = setup.run().await;
    running.drop_with(&setup).await;
    assert_eq!(
        value(&client, "SELECT count(*) FROM pg_replication_slots").await,
        "0"
    );
    assert_eq!(
        std::fs::read_dir(setup.dir.path().join("state"))
            .unwrap()
            .count(),
        0
    );
    // A source that has taken something and whose slot is gone.
    let (running, _) = started(&setup, &client).await;
    running.handle.stop().await;
    wait_for(
        &client,
        "SELECT count(*) FROM pg_replication_slots WHERE active",
        "0",
    )
    .await;
    execute(&client, "SELECT pg_drop_replication_slot('flowstone_slot')").await;
    let mut resumed = setup;
    resumed.resume_from(lsn(&client).await);
    resumed.description.snapshotted = resumed.tables();
    let mut running = resumed.run().await;
    let status = running
        .status(SOURCE, |status| {
            matches!(status, SourceStatus::Failed { .. })
        })
        .await;
    let SourceStatus::Failed { error, hint } = status else {
        panic!("{status:?}")
    };
    assert_eq!(error, "replication slot \"flowstone_slot\" does not exist");
    assert!(hint.is_some());
    running.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_added_while_others_stream_and_removed_again() {
    let server = Server::start("");
    let client = server.client().await;
    execute(&client, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, v int); CREATE PUBLICATION p FOR TABLE a").await;
    execute(
        &client,
        "INSERT INTO b SELECT g, g FROM generate_series(1, 1000) g",
    )
    .await;
    let mut setup = Setup::new(&server).await;
    let (mut running, mut model) = started(&setup, &client).await;
    execute(&client, "ALTER PUBLICATION p ADD TABLE b").await;
    let b = describe(&server, "p")
        .await
        .into_iter()
        .find(|table| table.name == "b")
        .unwrap();
    let (table, schema) = source_table(20, &b);
    setup
        .delta
        .create(table.id, "b", schema.clone())
        .await
        .unwrap();
    setup.description.tables.push(table.clone());
    setup.schemas.push((table.id, schema.clone()));
    running
        .handle
        .add_tables(vec![table.clone()], vec![(table.id, schema)])
        .await;
    for number in 0..50 {
        execute(&client, &format!("INSERT INTO a VALUES ({number}); UPDATE b SET v = -1 WHERE id = {number}; DELETE FROM b WHERE id = 500 + {number}")).await;
    }
    let position = running.snapshot(table.id).await;
    // Before the snapshot is bound the others go on.
    let before = catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
    assert!(before >= position);
    assert_eq!(model.rows(setup.id("a")), upstream(&client, "a").await);
    assert!(!model.tables.contains_key(&table.id));
    running.acknowledge(before);
    execute(&client, "UPDATE b SET v = -2 WHERE id = 600").await;
    let bound = catch_up(&setup, &mut running, &client, &mut model, vec![table.id]).await;
    assert_eq!(model.rows(table.id), upstream(&client, "b").await);
    let taken = model.clone();
    running.handle.stop().await;
    // A crash before the commit: what was acknowledged still left everything that the new table needs.
    setup.resume_from(before);
    setup.description.snapshotted = vec![setup.id("a")];
    let mut running = setup.run().await;
    let mut again = Model::default();
    again
        .apply(&setup, running.take(bound, vec![table.id]).await)
        .await;
    assert_eq!(again.rows(table.id), taken.rows(table.id));
    running.handle.remove_tables(&[table.id]).await;
    execute(&client, "UPDATE b SET v = -3; INSERT INTO a VALUES (1000)").await;
    let position = running.progress(lsn(&client).await).await;
    let changes = running.take(position, Vec::new()).await;
    assert!(changes.iter().all(|change| change.table == setup.id("a")));
    running.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_dropped_during_its_snapshot_is_left_out_of_it() {
    let server = Server::start("");
    let client = server.client().await;
    // To read `b` takes a lock that the test has.
    execute(
        &client,
        "CREATE TYPE slow AS (n int); \
         CREATE FUNCTION slow_text(slow) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN ''read''; END'; \
         CREATE CAST (slow AS text) WITH FUNCTION slow_text(slow); \
         CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, v slow); \
         INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1, ROW(1)); CREATE PUBLICATION p FOR TABLE a, b",
    )
    .await;
    execute(&client, "SELECT pg_advisory_lock(7)").await;
    let setup = Setup::new(&server).await;
    let (a, b) = (setup.id("a"), setup.id("b"));
    let mut running = setup.run().await;
    wait_for(
        &client,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted",
        "1",
    )
    .await;
    running.handle.remove_tables(&[b]).await;
    setup.delta.drop_table(b).await.unwrap();
    execute(&client, "SELECT pg_advisory_unlock(7)").await;
    let position = running.snapshot(a).await;
    let stalled = |event: &SourceEvent| {
        matches!(
            event,
            SourceEvent::Status {
                status: SourceStatus::Stalled { .. },
                ..
            }
        )
    };
    assert!(!running.seen.iter().any(stalled), "{:?}", running.seen);
    let mut model = Model::default();
    model
        .apply(&setup, running.take(position, vec![a]).await)
        .await;
    assert_eq!(model.rows(a), upstream(&client, "a").await);
    assert!(!setup.delta.table_path(b).exists());
    running.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_source_lets_the_slot_go_on() {
    let server = Server::start("");
    let client = server.client().await;
    execute(&client, "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int); CREATE PUBLICATION p FOR TABLE t").await;
    let setup = Setup::new(&server).await;
    let (mut running, mut model) = started(&setup, &client).await;
    execute(
        &client,
        "INSERT INTO t VALUES (1); INSERT INTO other SELECT generate_series(1, 10000)",
    )
    .await;
    let held = catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
    let confirmed =
        format!("SELECT confirmed_flush_lsn >= '0/0'::pg_lsn + {held} FROM pg_replication_slots");
    assert_eq!(
        value(&client, &confirmed).await,
        "f",
        "nothing is forgotten before it is acknowledged"
    );
    execute(
        &client,
        "INSERT INTO other SELECT generate_series(1, 10000)",
    )
    .await;
    let later = catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
    running.acknowledge(later);
    wait_for(&client, &confirmed, "t").await;
    running.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered_or_refused_with_a_reason() {
    let server = Server::start("");
    let client = server.client().await;
    execute(
        &client,
        "CREATE TABLE t (b int, id int, n numeric(10,2), g int GENERATED ALWAYS AS (b + 1) STORED, PRIMARY KEY (id, b)); \
         CREATE TABLE u (x int); ALTER TABLE u REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE t, u; CREATE PUBLICATION empty; \
         CREATE ROLE poor LOGIN REPLICATION",
    )
    .await;
    let tables = describe(&server, "p").await;
    assert_eq!(
        tables
            .iter()
            .map(|table| (table.name.as_str(), table.replica_identity))
            .collect::<Vec<_>>(),
        [("t", 'd'), ("u", 'f')]
    );
    assert_eq!(tables[0].key, ["id", "b"]);
    assert_eq!(
        tables[0]
            .columns
            .iter()
            .map(|column| column.type_name.as_str())
            .collect::<Vec<_>>(),
        ["integer", "integer", "numeric(10,2)"]
    );
    let refused = |connection, publication: &str| {
        let question = UpstreamQuestion::Describe(SourceKind::Postgres {
            connection,
            publication: publication.to_owned(),
            slot: String::new(),
        });
        async move {
            match ask(&question).await.unwrap_err() {
                RequestError::Upstream { message, hint, .. } => (message, hint.is_some()),
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(
        refused(server.connection(), "none").await,
        ("publication \"none\" does not exist".to_owned(), true)
    );
    assert_eq!(
        refused(server.connection(), "empty").await,
        ("publication \"empty\" is empty".to_owned(), true)
    );
    let mut poor = server.connection();
    poor.user = "poor".to_owned();
    assert_eq!(
        refused(poor, "p").await,
        (
            "permission denied for tables of the publication: public.t, public.u".to_owned(),
            true
        )
    );
    let mut nobody = server.connection();
    nobody.user = "nobody".to_owned();
    assert_eq!(
        refused(nobody, "p").await.0,
        "role \"nobody\" does not exist"
    );
    assert!(ask(&validate(server.connection())).await.is_ok());
    execute(&client, "ALTER SYSTEM SET wal_level = replica").await;
    drop(client);
    server.down();
    server.up();
    let error = ask(&validate(server.connection())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "server must have wal_level >= logical, but has wal_level = replica"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_checked_by_scram() {
    let server = Server::start("password_encryption='scram-sha-256'");
    let client = server.client().await;
    execute(
        &client,
        "CREATE ROLE safe LOGIN SUPERUSER REPLICATION PASSWORD 'päss'",
    )
    .await;
    let file = value(&client, "SHOW hba_file").await;
    std::fs::write(
        &file,
        "host all postgres 127.0.0.1/32 trust\nhost all safe 127.0.0.1/32 scram-sha-256\n",
    )
    .unwrap();
    execute(&client, "SELECT pg_reload_conf()").await;
    let mut connection = server.connection();
    connection.user = "safe".to_owned();
    let started = std::time::Instant::now();
    // The server reads its file a moment after it was told to.
    let message = loop {
        if let Err(error) = ask(&validate(connection.clone())).await {
            break error.to_string();
        }
        assert!(started.elapsed() < DEADLINE);
    };
    assert_eq!(message, "no password supplied");
    connection.password = Some("wrong".to_owned());
    let error = ask(&validate(connection.clone())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "password authentication failed for user \"safe\""
    );
    connection.password = Some("päss".to_owned());
    assert!(ask(&validate(connection)).await.is_ok());
}
