//! Golden files: every `tests/slt/**/*.slt` against a fresh database of one node, and those that are portable against a fresh database of PostgreSQL, so that what we
//! expect is what it says. `SLT_UPDATE=1` rewrites the expectations, with what the node answers.
//!
//! A file is portable unless its first line says `# flowstone only: ` and why. A record of a portable file that has no counterpart has `onlyif flowstone` before it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flowstone_tests::{Node, Postgres};
use regex::Regex;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tokio_postgres::{Client, SimpleQueryMessage};

/// How a file says that it is not portable, before the reason.
const FLOWSTONE_ONLY: &str = "# flowstone only: ";

/// Whose answers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    /// The node; it also explains each materialized view that is created.
    Flowstone,
    /// PostgreSQL; what is a materialized view in the node is a view there, so that it is fresh.
    Postgres,
}

/// A connection to one of them.
struct Connection(Client, Engine);

/// How many views were explained.
static EXPLAINED: AtomicUsize = AtomicUsize::new(0);

impl Connection {
    /// Says of each operator of a new view that it is incremental or recomputes; a line that says neither fails the file.
    async fn explain(&self, name: &str) -> Result<(), StatementError> {
        let messages = self
            .0
            .simple_query(&format!("EXPLAIN MATERIALIZED VIEW {name}"))
            .await
            .map_err(|error| StatementError(format!("view {name} cannot be explained: {error}")))?;
        let mut operators = 0;
        for message in messages {
            let SimpleQueryMessage::Row(row) = message else {
                continue;
            };
            let line = row.get(0).unwrap_or_default().trim_start();
            // Details of a recomputed query, and a node that was shown before.
            if line.starts_with('|') || line.ends_with("(shown above)") {
                continue;
            }
            operators += 1;
            let says = ["[incremental, ", "[RECOMPUTED ", "[no state]"];
            if !line.ends_with(']') || !says.iter().any(|mark| line.contains(mark)) {
                return Err(StatementError(format!(
                    "EXPLAIN of {name} does not say how this is maintained: {line}"
                )));
            }
        }
        if operators == 0 {
            return Err(StatementError(format!("EXPLAIN of {name} shows nothing")));
        }
        EXPLAINED.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The name in a CREATE MATERIALIZED VIEW that makes one.
fn created_view(sql: &str) -> Option<&str> {
    static CREATE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?is)^\s*CREATE\s+(?:OR\s+REPLACE\s+)?MATERIALIZED\s+VIEW\s+(?:IF\s+NOT\s+EXISTS\s+)?("[^"]*"|[\w.]+)[^;]*;?\s*$"#).unwrap()
    });
    Some(CREATE.captures(sql)?.get(1)?.as_str())
}

/// The statement with views in place of materialized ones.
fn with_plain_views(sql: &str) -> String {
    static MATERIALIZED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)\bMATERIALIZED\s+VIEW\b").unwrap());
    MATERIALIZED.replace_all(sql, "VIEW").into_owned()
}

/// Why a file is not portable; `None` if it is.
fn only_flowstone(text: &str) -> Option<&str> {
    text.lines().next()?.strip_prefix(FLOWSTONE_ONLY)
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct StatementError(String);

#[async_trait::async_trait]
impl AsyncDB for Connection {
    type Error = StatementError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Self::ColumnType>, Self::Error> {
        let translated = match self.1 {
            Engine::Flowstone => sql.to_owned(),
            Engine::Postgres => with_plain_views(sql),
        };
        let messages = self.0.simple_query(&translated).await.map_err(|error| {
            let text = error.as_db_error().map_or_else(
                || error.to_string(),
                |db| {
                    let mut text = format!("{}: {}", db.code().code(), db.message());
                    for (label, value) in [("DETAIL", db.detail()), ("HINT", db.hint())] {
                        if let Some(value) = value {
                            text.push_str(&format!(" {label}: {value}"));
                        }
                    }
                    text
                },
            );
            StatementError(text)
        })?;
        let (mut types, mut rows, mut is_query, mut complete) = (Vec::new(), Vec::new(), false, 0);
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    is_query = true;
                    types = vec![DefaultColumnType::Text; columns.len()];
                }
                SimpleQueryMessage::Row(row) => rows.push(
                    (0..row.len())
                        .map(|column| match row.get(column) {
                            None => "NULL".to_owned(),
                            Some("") => "(empty)".to_owned(),
                            Some(text) => text.to_owned(),
                        })
                        .collect(),
                ),
                SimpleQueryMessage::CommandComplete(count) => complete = count,
                _ => {}
            }
        }
        if self.1 == Engine::Flowstone
            && let Some(name) = created_view(sql)
        {
            self.explain(name).await?;
        }
        Ok(if is_query {
            DBOutput::Rows { types, rows }
        } else {
            DBOutput::StatementComplete(complete)
        })
    }

    fn engine_name(&self) -> &'static str {
        match self.1 {
            Engine::Flowstone => "flowstone",
            Engine::Postgres => "postgres",
        }
    }

    async fn sleep(_: Duration) {}

    async fn shutdown(&mut self) {}
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            found.push(path);
        }
    }
}

/// The golden files below a directory, in the order of their paths.
pub(crate) fn files_in(root: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    files(root, &mut paths);
    paths
}

/// Runs a golden file in a database of a node, or rewrites it.
pub(crate) async fn run(path: &Path, port: u16, database: &str) -> Result<(), String> {
    run_on(Engine::Flowstone, path, port, database).await
}

async fn run_on(engine: Engine, path: &Path, port: u16, database: &str) -> Result<(), String> {
    let database = database.to_owned();
    let user = match engine {
        Engine::Flowstone => "materialize",
        Engine::Postgres => "postgres",
    };
    let mut runner = Runner::new(move || {
        // Texts of times depend on the zone: the node's is UTC until it is told otherwise.
        let config = format!(
            "host=127.0.0.1 port={port} user={user} dbname={database} options='-c timezone=UTC'"
        );
        async move {
            let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
                .await
                .map_err(|error| StatementError(error.to_string()))?;
            tokio::spawn(connection);
            Ok(Connection(client, engine))
        }
    });
    if engine == Engine::Flowstone && std::env::var_os("SLT_UPDATE").is_some() {
        runner
            .update_test_file(
                path,
                "\t",
                sqllogictest::default_validator,
                sqllogictest::default_normalizer,
                sqllogictest::default_column_validator,
            )
            .await
            .map_err(|error| error.to_string())
    } else {
        runner
            .run_file_async(path)
            .await
            .map_err(|error| error.display(false).to_string())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slt() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let paths = files_in(&root);
    assert!(!paths.is_empty());
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let admin = node.connect().await.unwrap();
    let only = std::env::var("SLT_ONLY").unwrap_or_default();
    let mut failures = Vec::new();
    for path in &paths {
        if !path.display().to_string().contains(&only) {
            continue;
        }
        // A database of its own for each file: files do not see each other.
        let database = format!("slt_{}", path.file_stem().unwrap().display());
        admin
            .batch_execute(&format!("CREATE DATABASE {database}"))
            .await
            .unwrap();
        let outcome = run(path, node.pg_port(), &database).await;
        if let Err(error) = outcome {
            failures.push(format!(
                "{}: {error}",
                path.strip_prefix(&root).unwrap().display()
            ));
        }
    }
    let created: usize = paths
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .map(|text| text.matches("CREATE MATERIALIZED VIEW").count())
        .sum();
    let explained = EXPLAINED.load(Ordering::Relaxed);
    assert!(
        !only.is_empty() || explained * 2 > created,
        "{explained} views were explained, the files create {created}"
    );
    assert!(
        failures.is_empty(),
        "{} of {} files failed:\n{}",
        failures.len(),
        paths.len(),
        failures.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn portable_files_hold_on_postgres() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let admin = postgres.connect().await.unwrap();
    let only = std::env::var("SLT_ONLY").unwrap_or_default();
    let (mut failures, mut portable) = (Vec::new(), 0);
    for path in files_in(&root) {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        if let Some(reason) = only_flowstone(&text) {
            assert!(
                reason.len() > 10,
                "{name} does not say why it is not portable"
            );
            continue;
        }
        if !path.display().to_string().contains(&only) {
            continue;
        }
        portable += 1;
        let database = format!("slt_{}", path.file_stem().unwrap().display());
        let create = format!("CREATE DATABASE {database}");
        admin.batch_execute(&create).await.unwrap();
        if let Err(error) = run_on(Engine::Postgres, &path, postgres.port(), &database).await {
            failures.push(format!("{name}: {error}"));
        }
    }
    assert!(portable > 0);
    assert!(
        failures.is_empty(),
        "{} of {portable} portable files do not hold on PostgreSQL:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
