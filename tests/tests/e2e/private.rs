//! What nobody else may see: files of the data directory, and secrets in the log.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use flowstone_tests::{Node, NodeOptions, http, wait};

const DEADLINE: Duration = Duration::from_secs(60);

/// Everything below a directory, itself included, that others may do something with.
fn wider(path: &Path, found: &mut Vec<String>) {
    // Files come and go while a node runs.
    let Ok(metadata) = path.symlink_metadata() else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        found.push(format!("{} {mode:o}", path.display()));
    }
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            wider(&entry.path(), found);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_the_owners_alone_whoever_makes_them() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // As an administrator would make it.
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut node = Node::start(dir.path(), 1).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE SECRET s AS 'hunter2';
             CREATE TABLE t (a int, b text);
             CREATE MATERIALIZED VIEW v AS SELECT b, count(*) AS n FROM t GROUP BY b",
        )
        .await
        .unwrap();
    for _ in 0..3 {
        let insert = "INSERT INTO t SELECT g, g::text FROM generate_series(1, 1000) AS s (g)";
        client.batch_execute(insert).await.unwrap();
        client
            .batch_execute("DELETE FROM t WHERE a % 7 = 1")
            .await
            .unwrap();
    }
    // Files of a group commit, and of deletion vectors.
    let delta = data.join("delta");
    wait::until("a group commit", DEADLINE, async || {
        let files = walk(&delta);
        if files.iter().any(|file| file.ends_with(".parquet")) {
            Ok(())
        } else {
            Err(format!("{files:?}"))
        }
    })
    .await
    .unwrap();
    let mut found = Vec::new();
    wider(&data, &mut found);
    assert_eq!(found, Vec::<String>::new());
    node.stop().await.unwrap();

    // What is found wider is mended, and the log says so.
    std::fs::set_permissions(&delta, std::fs::Permissions::from_mode(0o777)).unwrap();
    let format = data.join("FORMAT");
    std::fs::set_permissions(&format, std::fs::Permissions::from_mode(0o644)).unwrap();
    node.restart().await.unwrap();
    wider(&data, &mut found);
    assert_eq!(found, Vec::<String>::new());
    let log = std::fs::read_to_string(node.log_path()).unwrap();
    assert!(
        log.contains("could be read or changed by others") && log.contains("count=2"),
        "{log}"
    );
}

fn walk(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_stands_in_the_log_at_any_level() {
    const SECRETS: [&str; 8] = [
        "sesame1", "sesame2", "sesame3", "sesame4", "sesame5", "sesame6", "sesame7", "sesame8",
    ];
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions {
        environment: vec![(
            "FLOWSTONE_LOG".to_owned(),
            "trace,sqlparser=trace,sqlparser::parser=trace".to_owned(),
        )],
        ..NodeOptions::default()
    };
    let mut node = Node::start_with(dir.path(), 1, options).await.unwrap();
    let client = node.connect().await.unwrap();
    let [
        created,
        altered,
        failed,
        role,
        changed,
        prepared,
        over_http,
        // In the header of a request.
        _,
    ] = SECRETS;
    for statement in [
        format!("CREATE SECRET s AS '{created}'"),
        format!("ALTER SECRET s AS '{altered}'"),
        format!("CREATE SECRET s AS '{failed}'"),
        format!("CREATE SECRET other AS '{failed}"),
        format!("CREATE ROLE ada LOGIN PASSWORD '{role}'"),
        format!("ALTER ROLE ada PASSWORD '{changed}'"),
        format!("CREATE ROLE ada PASSWORD '{failed}'"),
        format!("PREPARE p AS CREATE SECRET third AS '{prepared}'"),
        format!("EXPLAIN CREATE SECRET third AS '{prepared}'"),
    ] {
        // Some fail, and what they say may be logged as well.
        drop(client.batch_execute(&statement).await);
    }
    let parse = format!("CREATE SECRET fourth AS '{prepared}'");
    client.execute(&parse, &[]).await.unwrap();
    let body = format!(r#"{{"query": "CREATE SECRET fifth AS '{over_http}'"}}"#);
    let headers = [
        ("Content-Type", "application/json"),
        // ada:sesame8
        ("Authorization", "Basic YWRhOnNlc2FtZTg="),
    ];
    let answer = http::request(node.http_port(), "POST", "/api/sql", &headers, &body)
        .await
        .unwrap();
    assert!(answer.body.contains("\"ok\""), "{answer:?}");
    let text = "SELECT array_agg(create_sql)::text FROM mz_catalog.mz_secrets";
    drop(client.simple_query(text).await);
    node.stop().await.unwrap();
    let log = std::fs::read_to_string(node.log_path()).unwrap();
    assert!(log.contains("DEBUG"), "nothing is logged at that level");
    for secret in SECRETS.into_iter().chain(["YWRhOnNlc2FtZTg="]) {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}
