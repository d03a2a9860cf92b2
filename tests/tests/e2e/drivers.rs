//! The clients and tools that speak to PostgreSQL, against a real node: drivers by a script each, psql and the opening queries of tools by golden files.
//!
//! `deploy/setup.sh` installs the drivers. `GOLDEN_UPDATE=1` rewrites what psql shows, `SLT_UPDATE=1` what tools get.

use std::path::{Path, PathBuf};
use std::process::Command;

use flowstone_tests::Node;

use crate::clients::python;
use crate::slt;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where `deploy/setup.sh` puts clients.
fn cache() -> PathBuf {
    std::env::var_os("FLOWSTONE_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/flowstone"),
        PathBuf::from,
    )
}

/// Runs a client to its end; what it printed, if it succeeded.
fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; deploy/setup.sh installs it"));
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}:\n{printed}");
    printed
}

async fn start(dir: &tempfile::TempDir) -> Node {
    Node::start(dir.path(), 1).await.unwrap()
}

/// A schema `auction` with tables that a generator feeds and of which the keys are known.
async fn add_generator(node: &Node) {
    node.connect()
        .await
        .unwrap()
        .batch_execute(
            "CREATE SCHEMA auction;
             SET search_path = auction;
             CREATE SOURCE house FROM LOAD GENERATOR AUCTION FOR ALL TABLES",
        )
        .await
        .unwrap();
}

fn run_python(node: &Node, script: &str) {
    let mut command = Command::new(python());
    command
        .arg(here("clients").join(script))
        .arg(node.pg_port().to_string());
    succeed(&mut command);
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg2_works_in_all_its_ways() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&dir).await;
    run_python(&node, "psycopg2_client.py");
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncpg_works_in_all_its_ways() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&dir).await;
    run_python(&node, "asyncpg_client.py");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_reflects_and_works() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&dir).await;
    add_generator(&node).await;
    run_python(&node, "sqlalchemy_client.py");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_postgres_works_in_all_its_ways() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&dir).await;
    let mut command = Command::new("node");
    command
        .env("NODE_PATH", cache().join("node/node_modules"))
        .arg(here("clients/node_client.js"))
        .arg(node.pg_port().to_string());
    succeed(&mut command);
}

#[tokio::test(flavor = "multi_thread")]
async fn jdbc_works_in_all_its_ways() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&dir).await;
    add_generator(&node).await;
    let driver = std::fs::read_dir(cache().join("jdbc"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jar"))
        .unwrap();
    let mut command = Command::new("java");
    command
        .arg("-cp")
        .arg(driver)
        .arg(here("clients/JdbcClient.java"))
        .arg(node.pg_port().to_string());
    succeed(&mut command);
}

/// Every command of psql that describes, over objects of every kind. The golden file has what it shows.
#[tokio::test(flavor = "multi_thread")]
async fn psql_shows_what_exists() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&dir).await;
    let mut command = Command::new("psql");
    command
        .args(["-X", "-h", "127.0.0.1", "-p"])
        .arg(node.pg_port().to_string())
        .args(["-U", "materialize", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(here("clients/describe.sql"))
        .arg("materialize");
    let shown = succeed(&mut command);
    let golden = here("clients/describe.out");
    if std::env::var_os("GOLDEN_UPDATE").is_some() {
        std::fs::write(&golden, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    let differs = expected
        .lines()
        .zip(shown.lines())
        .position(|(expected, shown)| expected != shown);
    assert!(
        expected == shown,
        "psql shows something else than {} from line {:?} on:\n{shown}",
        golden.display(),
        differs.map(|line| line + 1)
    );
}

/// The opening queries of tools, on a node of their own each: OIDs are stable.
#[tokio::test(flavor = "multi_thread")]
async fn tools_get_what_they_ask_at_the_start() {
    let mut failures = Vec::new();
    for path in slt::files_in(&here("tools")) {
        let dir = tempfile::tempdir().unwrap();
        let node = start(&dir).await;
        if let Err(error) = slt::run(&path, node.pg_port(), "materialize").await {
            failures.push(format!("{}: {error}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn dbt(node: &Node, dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(cache().join("venv-dbt/bin/dbt"));
    command
        .args(arguments)
        .arg("--project-dir")
        .arg(here("clients/dbt"))
        .arg("--profiles-dir")
        .arg(here("clients/dbt"))
        .env("DBT_TARGET_PATH", dir.join("target"))
        .env("DBT_LOG_PATH", dir.join("logs"))
        .env("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
        .env("DBT_USE_COLORS", "false")
        .env("FLOWSTONE_PORT", node.pg_port().to_string());
    succeed(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn dbt_builds_and_tests_a_project() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&dir).await;
    dbt(&node, dir.path(), &["debug"]);
    dbt(&node, dir.path(), &["seed"]);
    dbt(&node, dir.path(), &["run"]);
    dbt(&node, dir.path(), &["test"]);
    let client = node.connect().await.unwrap();
    let row = client
        .query_one(
            "SELECT count(*), sum(orders)::bigint FROM shop.orders_by_country",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (3, 5));
    let indexes = client
        .query_one(
            "SELECT count(*) FROM mz_indexes i JOIN mz_relations r ON r.id = i.on_id WHERE r.name = 'orders_by_country'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(indexes.get::<_, i64>(0), 1);
    // A second run replaces what is there; the documentation of the project comes from the catalog.
    dbt(&node, dir.path(), &["seed"]);
    dbt(&node, dir.path(), &["run"]);
    dbt(&node, dir.path(), &["test"]);
    dbt(&node, dir.path(), &["docs", "generate"]);
}
