//! Clusters: what the worker is told of them, and changes that are waited for.

use flowstone_sql::error::ErrorKind;
use flowstone_types::EvalErrorKind;

use super::*;

fn told(disk: &Arc<Mutex<Disk>>) -> Vec<String> {
    disk.lock().told.lock().clone()
}

/// Waits until the worker was told that.
async fn until_told(disk: &Arc<Mutex<Disk>>, what: &str) {
    while !told(disk).iter().any(|text| text == what) {
        tokio::task::yield_now().await;
    }
}

/// From now on nothing catches up.
fn never_ready(disk: &Arc<Mutex<Disk>>) {
    disk.lock().never_ready.store(true, Ordering::SeqCst);
}

async fn size(session: &mut Session) -> Vec<Vec<String>> {
    rows(session, "SELECT size FROM mz_clusters WHERE name = 'c'").await
}

fn kind(error: &Error) -> ErrorKind {
    match error {
        Error::Sql(error) => error.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_worker_knows_a_cluster_before_what_is_in_it_and_again_after_a_restart() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        for sql in [
            "CREATE TABLE t (k int)",
            "CREATE CLUSTER c (SIZE = '200cc')",
            "CREATE CLUSTER paused (SIZE = '25cc', REPLICATION FACTOR = 0)",
            "CREATE MATERIALIZED VIEW here AS SELECT k FROM t",
            "SET cluster = c",
            "CREATE MATERIALIZED VIEW there AS SELECT k + 1 AS k FROM here",
            "CREATE INDEX i IN CLUSTER quickstart ON t (k)",
        ] {
            tag(&mut session, sql).await;
        }
        let Outcome::Rows { rows: stream, .. } =
            outcome(&mut session, "SUBSCRIBE t").await.unwrap()
        else {
            panic!("a subscription gives rows")
        };
        until_told(&disk, "subscribe in u2").await;
        drop(stream);
        assert_eq!(
            told(&disk),
            [
                "set u2 to 2",
                "set u3 to 0",
                "create in u1",
                "create in u2",
                "create in u1",
                "subscribe in u2"
            ]
        );
        drop(session);
        node.crash().await;

        disk.lock().told.lock().clear();
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        assert_eq!(size(&mut session).await, [["200cc"]]);
        until_told(&disk, "create in u2").await;
        assert_eq!(told(&disk)[..2], ["set u2 to 2", "set u3 to 0"]);

        disk.lock().told.lock().clear();
        tag(&mut session, "ALTER CLUSTER c SET (SIZE = '512C')").await;
        // Of the same number of threads nobody need be told.
        tag(&mut session, "ALTER CLUSTER c SET (SIZE = '400cc')").await;
        tag(&mut session, "ALTER CLUSTER c RENAME TO d").await;
        let refused = error(&mut session, "DROP CLUSTER d").await;
        assert_eq!(kind(&refused), ErrorKind::DependentObjectsStillExist);
        tag(&mut session, "DROP CLUSTER d CASCADE").await;
        until_told(&disk, "drop u2").await;
        assert_eq!(told(&disk), ["set u2 to 4", "drop 1 objects", "drop u2"]);
        node.client.shutdown().await;
    });
}

#[test]
fn what_needs_a_cluster_that_is_not_there_says_so() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let options = SessionOptions {
            user: "materialize".to_owned(),
            parameters: vec![("cluster".to_owned(), "nowhere".to_owned())],
            ..SessionOptions::default()
        };
        let mut session = node.client.open_session(options).await.unwrap();
        assert_eq!(rows(&mut session, "SHOW cluster").await, [["nowhere"]]);
        tag(&mut session, "CREATE TABLE t (k int)").await;
        assert!(rows(&mut session, "SELECT * FROM t").await.is_empty());
        for sql in [
            "CREATE MATERIALIZED VIEW m AS SELECT k FROM t",
            "CREATE DEFAULT INDEX ON t",
            "SUBSCRIBE t",
        ] {
            let refused = error(&mut session, sql).await;
            assert_eq!(kind(&refused), ErrorKind::UndefinedObject, "{sql}");
            assert_eq!(refused.to_string(), "cluster \"nowhere\" does not exist");
        }
        session.take_notices();
        tag(&mut session, "SET CLUSTER TO elsewhere").await;
        let notices = session.take_notices();
        assert_eq!(notices[0].message, "cluster \"elsewhere\" does not exist");
        for sql in [
            "SET cluster = mz_catalog_server",
            "SET cluster = quickstart",
        ] {
            tag(&mut session, sql).await;
            assert!(session.take_notices().is_empty(), "{sql}");
        }
        tag(&mut session, "RESET cluster").await;
        assert_eq!(rows(&mut session, "SHOW cluster").await, [["nowhere"]]);
        tag(&mut session, "BEGIN").await;
        let refused = error(&mut session, "CREATE CLUSTER c (SIZE '25cc')").await;
        assert_eq!(
            refused,
            TransactionError::Prohibited("CREATE CLUSTER".to_owned()).into()
        );
        node.client.shutdown().await;
    });
}

#[test]
fn a_change_that_is_not_ready_in_time_is_undone_or_stands() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        tag(&mut session, "CREATE CLUSTER c (SIZE = '25cc')").await;
        // One that is ready.
        let ready =
            "ALTER CLUSTER c SET (SIZE = '200cc') WITH (WAIT UNTIL READY (TIMEOUT = '10m'))";
        assert_eq!(tag(&mut session, ready).await, "ALTER CLUSTER");
        assert_eq!(size(&mut session).await, [["200cc"]]);

        never_ready(&disk);
        let late =
            "ALTER CLUSTER c SET (SIZE = '300cc') WITH (WAIT UNTIL READY (TIMEOUT = '20ms'))";
        let refused = error(&mut session, late).await;
        assert_eq!(
            kind(&refused),
            ErrorKind::Evaluation(EvalErrorKind::Cancelled)
        );
        assert_eq!(refused.to_string(), "cluster \"c\" was not ready in time");
        assert_eq!(size(&mut session).await, [["200cc"]]);
        for (kept, sql) in [
            (
                "300cc",
                "ALTER CLUSTER c SET (SIZE = '300cc') WITH (WAIT UNTIL READY (TIMEOUT = '20ms', ON TIMEOUT = 'COMMIT'))",
            ),
            (
                "100cc",
                "ALTER CLUSTER c SET (SIZE = '100cc') WITH (WAIT FOR '20ms')",
            ),
            // The same threads, and none: there is nothing to wait for.
            (
                "50cc",
                "ALTER CLUSTER c SET (SIZE = '50cc') WITH (WAIT FOR '1h')",
            ),
            (
                "25cc",
                "ALTER CLUSTER c SET (SIZE = '25cc', REPLICATION FACTOR = 0) WITH (WAIT FOR '1h')",
            ),
        ] {
            assert_eq!(tag(&mut session, sql).await, "ALTER CLUSTER");
            assert_eq!(size(&mut session).await, [[kept]]);
        }
        assert_eq!(
            told(&disk),
            [
                "set u2 to 1",
                "set u2 to 2",
                "set u2 to 3",
                "set u2 to 2",
                "set u2 to 3",
                "set u2 to 1",
                "set u2 to 0"
            ]
        );
        node.client.shutdown().await;
    });
}

#[test]
fn a_change_that_nobody_waits_for_any_more_is_undone() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut other = node.session().await;
        tag(&mut other, "CREATE TABLE t (k int)").await;
        tag(&mut other, "CREATE CLUSTER c (SIZE = '100cc')").await;
        never_ready(&disk);
        let change =
            "ALTER CLUSTER c SET (SIZE = '300cc') WITH (WAIT UNTIL READY (TIMEOUT = '10m'))";

        // It is cancelled.
        let mut waiting = node.session().await;
        let (process_id, secret) = (waiting.process_id(), waiting.secret());
        let statement = tokio::spawn(async move {
            let refused = error(&mut waiting, change).await;
            (waiting, refused)
        });
        until_told(&disk, "set u2 to 3").await;
        for sql in [
            "ALTER CLUSTER c SET (SIZE = '200cc')",
            "ALTER CLUSTER c RENAME TO d",
            "DROP CLUSTER c",
        ] {
            let refused = error(&mut other, sql).await;
            assert_eq!(kind(&refused), ErrorKind::ObjectInUse, "{sql}");
        }
        // What is in it is as free as ever.
        tag(
            &mut other,
            "CREATE MATERIALIZED VIEW m IN CLUSTER c AS SELECT k FROM t",
        )
        .await;
        node.client.cancel(process_id, &secret.to_be_bytes());
        let (waiting, refused) = statement.await.unwrap();
        assert_eq!(refused, Error::Cancelled);
        assert_eq!(size(&mut other).await, [["100cc"]]);
        until_told(&disk, "set u2 to 1").await;

        // Its client goes away.
        disk.lock().told.lock().clear();
        let mut waiting = waiting;
        let statement = tokio::spawn(async move { tag(&mut waiting, change).await });
        until_told(&disk, "set u2 to 3").await;
        statement.abort();
        until_told(&disk, "set u2 to 1").await;
        // The cluster is free again once that is durable and seen.
        while size(&mut other).await != [["100cc"]] {
            tokio::task::yield_now().await;
        }
        let change = "ALTER CLUSTER c SET (SIZE = '200cc')";
        while let Err(busy) = outcome(&mut other, change).await {
            assert_eq!(kind(&busy), ErrorKind::ObjectInUse);
            tokio::task::yield_now().await;
        }
        assert_eq!(size(&mut other).await, [["200cc"]]);
        node.client.shutdown().await;
    });
}

#[test]
fn a_write_that_reads_a_paused_view_is_refused_before_it_keeps_others_waiting() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        for sql in [
            "CREATE TABLE t (k int)",
            "INSERT INTO t VALUES (1)",
            "CREATE CLUSTER c (SIZE = '25cc')",
            "CREATE MATERIALIZED VIEW m IN CLUSTER c AS SELECT k FROM t",
            "CREATE MATERIALIZED VIEW above AS SELECT k + 1 AS k FROM m",
            "ALTER CLUSTER c SET (REPLICATION FACTOR = 0)",
        ] {
            tag(&mut session, sql).await;
        }
        for sql in [
            "INSERT INTO t SELECT k FROM m",
            "INSERT INTO t SELECT k FROM above",
            "DELETE FROM t WHERE k IN (SELECT k FROM m)",
            "UPDATE t SET k = k + 1 WHERE EXISTS (SELECT 1 FROM above)",
        ] {
            let refused = error(&mut session, sql).await;
            assert_eq!(kind(&refused), ErrorKind::NotInPrerequisiteState, "{sql}");
        }
        // What does not read it goes on.
        assert_eq!(
            tag(&mut session, "INSERT INTO t SELECT k + 1 FROM t").await,
            "INSERT 0 1"
        );
        tag(&mut session, "ALTER CLUSTER c SET (REPLICATION FACTOR = 1)").await;
        assert_eq!(
            tag(&mut session, "INSERT INTO t SELECT k FROM m").await,
            "INSERT 0 0"
        );
        node.client.shutdown().await;
    });
}

#[test]
fn a_write_waits_for_a_view_without_the_locks_of_its_tables() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut other = node.session().await;
        tag(&mut other, "CREATE TABLE t (k int)").await;
        tag(&mut other, "INSERT INTO t VALUES (1)").await;
        never_ready(&disk);
        tag(&mut other, "CREATE MATERIALIZED VIEW m AS SELECT k FROM t").await;
        let mut waiting = node.session().await;
        let (process_id, secret) = (waiting.process_id(), waiting.secret());
        let statement =
            tokio::spawn(async move { error(&mut waiting, "INSERT INTO t SELECT k FROM m").await });
        for _ in 0..3 {
            let change = "UPDATE t SET k = k + 1";
            assert_eq!(tag(&mut other, change).await, "UPDATE 1");
        }
        assert!(!statement.is_finished());
        // Who has not begun cannot be cancelled.
        while !statement.is_finished() {
            node.client.cancel(process_id, &secret.to_be_bytes());
            tokio::task::yield_now().await;
        }
        assert_eq!(statement.await.unwrap(), Error::Cancelled);
        node.client.shutdown().await;
    });
}
