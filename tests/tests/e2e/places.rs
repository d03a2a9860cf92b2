//! More connections than there is room for: who keeps a place, who gives way, and that the node's own files stay out of it.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use flowstone_tests::{Node, NodeOptions, http, text, wait};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

/// Descriptors that the node may have: 192 for files, 320 for clients, of which 160 may be on their way in, 80 from one address.
const DESCRIPTORS: &str = "--nofile=512:512";
const CLIENTS: usize = 320;
const RESERVED: usize = 3;

async fn crowded_node(dir: &tempfile::TempDir) -> Node {
    let options = NodeOptions {
        wrapper: vec!["prlimit".to_owned(), DESCRIPTORS.to_owned()],
        ..NodeOptions::default()
    };
    Node::start_with(dir.path(), 1, options).await.unwrap()
}

/// Connections that say nothing.
fn silent(port: u16, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect()
}

async fn connect_as(node: &Node, user: &str) -> Result<Client, tokio_postgres::Error> {
    let config = format!(
        "host=127.0.0.1 port={} user={user} dbname=materialize connect_timeout=20",
        node.pg_port()
    );
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn insert(client: &Client) {
    client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let node = crowded_node(&dir).await;
    let before = node.connect().await.unwrap();
    before
        .batch_execute("CREATE TABLE t (a int)")
        .await
        .unwrap();
    let mut crowd = Vec::new();
    for port in [node.pg_port(), node.http_port(), node.flight_port()] {
        crowd.extend(silent(port, 2 * CLIENTS));
        // Whoever has something to say gets in, on every port, and writes as ever.
        // The crowd is still coming in, from the same address, and it does not have to try twice.
        insert(&node.connect().await.unwrap()).await;
        let ready = http::request(node.http_port(), "GET", "/readyz", &[], "").await;
        assert_eq!(ready.unwrap().status, 200);
        insert(&before).await;
    }
    // The longest silent ones were hung up on.
    let mut first = crowd.swap_remove(0);
    first
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert!(matches!(first.read(&mut [0]), Ok(0) | Err(_)));
    let rows = text::rows(&before, "SELECT count(*) FROM t").await.unwrap();
    assert_eq!(rows, ["6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_keeps_a_place_and_the_last_ones_are_for_superusers() {
    let dir = tempfile::tempdir().unwrap();
    let node = crowded_node(&dir).await;
    let first = node.connect().await.unwrap();
    first.batch_execute("CREATE TABLE t (a int)").await.unwrap();
    // Ordinary roles take all that they get.
    let mut sessions = Vec::new();
    let refused = loop {
        match connect_as(&node, "ada").await {
            Ok(client) => sessions.push(client),
            Err(error) => break error,
        }
        assert!(sessions.len() < CLIENTS);
    };
    let error = refused.as_db_error().unwrap();
    assert_eq!(error.code(), &SqlState::TOO_MANY_CONNECTIONS);
    assert!(error.message().contains("SUPERUSER"), "{error}");
    assert!(
        sessions.len() + 1 + RESERVED + 8 > CLIENTS,
        "{}",
        sessions.len()
    );
    let _silent = silent(node.pg_port(), 200);
    let administrator = node.connect().await.unwrap();
    for client in sessions
        .iter()
        .rev()
        .take(3)
        .chain([&first, &administrator])
    {
        insert(client).await;
    }
    // With every place taken, newcomers hear so at once.
    let mut last = Vec::new();
    let refused = loop {
        match node.connect().await {
            Ok(client) => last.push(client),
            Err(error) => break error,
        }
        assert!(last.len() <= RESERVED);
    };
    let refused: &tokio_postgres::Error = refused.downcast_ref().unwrap();
    let error = refused.as_db_error().unwrap();
    assert_eq!(error.code(), &SqlState::TOO_MANY_CONNECTIONS);
    insert(&first).await;
    // A place that is given up is there for others.
    drop(sessions);
    drop(last);
    let found = wait::until(
        "a place that was given up",
        Duration::from_secs(30),
        async || node.connect().await.map_err(|error| format!("{error:#}")),
    );
    insert(&found.await.unwrap()).await;
}
