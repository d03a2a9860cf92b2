//! What cannot be made is refused before anything changes, and who waits is told for what.

use futures::FutureExt;

use super::*;
use crate::catalog::Turn;
use crate::locks::Awaited;

/// Begins a statement that waits, in a session of its own: the first thing that it says, and what comes of it.
async fn begin(node: &Node, sql: &'static str) -> (Notice, tokio::task::JoinHandle<String>) {
    let mut session = node.session().await;
    let notices = session.notices();
    let statement = tokio::spawn(async move { tag(&mut session, sql).await });
    (notices.next().await, statement)
}

#[test]
fn what_the_worker_cannot_render_is_the_error_of_the_statement_and_nothing_is_created() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        tag(&mut session, "CREATE TABLE t (k int)").await;
        let refuses = Arc::clone(&disk.lock().refuses);
        let made = [
            "CREATE MATERIALIZED VIEW m AS SELECT k + 1 AS k FROM t",
            "CREATE INDEX i ON t (k)",
        ];
        refuses.store(true, Ordering::SeqCst);
        for sql in made.into_iter().chain(["SUBSCRIBE t"]) {
            let refused = error(&mut session, sql).await;
            let expected = RequestError::Internal("it cannot be rendered".to_owned());
            assert_eq!(refused, expected.into(), "{sql}");
        }
        // Their names are free.
        refuses.store(false, Ordering::SeqCst);
        for sql in made {
            tag(&mut session, sql).await;
        }
        node.client.shutdown().await;
    });
}

#[test]
fn who_waits_for_another_statement_is_told_which() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        tag(&mut session, "CREATE TABLE t (k int)").await;
        let parts = Arc::clone(&session.parts);
        let catalog = parts.catalog.now();
        let table = catalog.items.values().find(|item| item.name == "t");
        let tables = std::collections::BTreeSet::from([table.unwrap().id]);

        let awaited = Awaited::default();
        let lock = parts.write_locks.exclusive(&tables, &awaited).await;
        // One that wants to hear of nothing but warnings waits before another one does.
        tag(&mut session, "SET client_min_messages = 'warning'").await;
        let quiet = session.notices();
        let silent =
            tokio::spawn(async move { tag(&mut session, "INSERT INTO t VALUES (1)").await });
        let (notice, statement) = begin(&node, "INSERT INTO t VALUES (2)").await;
        assert_eq!(
            notice.message,
            "waiting for another statement that writes to table \"t\", or reads it to write"
        );
        assert_eq!(quiet.next().now_or_never(), None);
        drop(lock);
        assert_eq!(statement.await.unwrap(), "INSERT 0 1");
        assert_eq!(silent.await.unwrap(), "INSERT 0 1");

        let turn = parts.turns.take(Turn {
            words: "CREATE SOURCE",
            process_id: Some(7),
        });
        let turn = turn.await;
        let (notice, statement) = begin(&node, "CREATE TABLE u (k int)").await;
        assert_eq!(
            notice.message,
            "waiting for another statement that changes the catalog: CREATE SOURCE"
        );
        assert_eq!(notice.detail.as_deref(), Some("Session 7 runs it."));
        drop(turn);
        assert_eq!(statement.await.unwrap(), "CREATE TABLE");
        node.client.shutdown().await;
    });
}

#[test]
fn who_waits_for_something_to_be_computed_is_told_what() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        tag(&mut session, "CREATE TABLE t (k int)").await;
        tag(&mut session, "CREATE CLUSTER c (SIZE = '100cc')").await;
        disk.lock().never_ready.store(true, Ordering::SeqCst);
        tag(
            &mut session,
            "CREATE MATERIALIZED VIEW m AS SELECT k FROM t",
        )
        .await;
        let (notice, statement) = begin(&node, "INSERT INTO t SELECT k FROM m").await;
        assert_eq!(
            notice.message,
            "waiting for materialized view \"m\", which is being hydrated"
        );
        statement.abort();
        let change = "ALTER CLUSTER c SET (SIZE = '300cc') WITH (WAIT UNTIL READY (TIMEOUT = '2s', ON TIMEOUT = 'COMMIT'))";
        let (notice, statement) = begin(&node, change).await;
        assert_eq!(
            notice.message,
            "waiting until all that is in cluster \"c\" has caught up on its new threads"
        );
        assert_eq!(
            notice.detail.as_deref(),
            Some("It is waited for 2s at most; then the change stands all the same.")
        );
        assert_eq!(statement.await.unwrap(), "ALTER CLUSTER");
        // What nobody sends at once is there when the statement has ended.
        session.take_notices();
        let back = "ALTER CLUSTER c SET (SIZE = '100cc') WITH (WAIT FOR '1500ms')";
        assert_eq!(tag(&mut session, back).await, "ALTER CLUSTER");
        let notices = session.take_notices();
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert_eq!(notices[0].message, notice.message);
        node.client.shutdown().await;
    });
}
