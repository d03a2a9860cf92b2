//! Real clients against a real node: psql and Python.

use std::path::PathBuf;
use std::process::Command;

use flowstone_tests::Node;

/// The Python with the clients in it (`deploy/setup.sh` installs them).
pub(crate) fn python() -> PathBuf {
    std::env::var_os("FLOWSTONE_PYTHON").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default())
                .join(".cache/flowstone/venv/bin/python")
        },
        PathBuf::from,
    )
}

/// A script of `tests/clients`.
pub(crate) fn script(name: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name)
}

fn psql(node: &Node, command: &str) -> String {
    let output = Command::new("psql")
        .args([
            "-X",
            "-h",
            "127.0.0.1",
            "-p",
            &node.pg_port().to_string(),
            "-U",
            "materialize",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            command,
            "materialize",
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "psql -c '{command}': {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_describes_what_exists() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE orders (id int NOT NULL, item text, price numeric(10,2));
             CREATE VIEW cheap AS SELECT * FROM orders WHERE price < 10;
             CREATE MATERIALIZED VIEW totals AS SELECT item, sum(price) AS total FROM orders GROUP BY item;
             CREATE INDEX totals_item ON totals (item)",
        )
        .await
        .unwrap();
    for (command, expected) in [
        ("\\dt", vec!["public | orders"]),
        ("\\dv", vec!["public | cheap"]),
        ("\\dm", vec!["public | totals"]),
        ("\\di", vec!["totals_item"]),
        ("\\dn", vec!["public"]),
        ("\\l", vec!["materialize"]),
        ("\\du", vec!["materialize"]),
        ("\\d", vec!["orders", "cheap", "totals"]),
        (
            "\\d orders",
            vec!["id     | integer", "not null", "price  | numeric(10,2)"],
        ),
        ("\\d totals", vec!["item", "total", "totals_item"]),
    ] {
        let output = psql(&node, command);
        for text in expected {
            assert!(
                output.contains(text),
                "{command} does not show \"{text}\":\n{output}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_works_in_all_its_ways() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 1).await.unwrap();
    let script = script("psycopg3.py");
    let output = Command::new(python())
        .arg(script)
        .arg(node.pg_port().to_string())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
