//! Kafka as users meet it: sources and sinks of a real node, with real brokers, a registry, Debezium and the databases that it reads.
//!
//! Statements of the reference documents are those of `sql/tests/seeds`, as they are written there: only what a reader has to fill in (hosts, users, passwords,
//! names of topics) is put in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowstone_tests::kafka::{Isolation, Stored};
use flowstone_tests::text::say;
use flowstone_tests::{Kafka, Node, NodeOptions, text, wait};
use serde_json::Value;
use tokio_postgres::Client;

#[path = "kafka/altered.rs"]
mod altered;
#[path = "kafka/avro.rs"]
mod avro;
#[path = "kafka/bad_input.rs"]
mod bad_input;
#[path = "kafka/crash.rs"]
mod crash;
#[path = "kafka/more.rs"]
mod more;
#[path = "kafka/producers.rs"]
mod producers;
#[path = "kafka/tutorial.rs"]
mod tutorial;
#[path = "kafka/updates.rs"]
mod updates;
#[path = "kafka/ways.rs"]
mod ways;

/// How long a change may take to arrive. Generous: many servers share few cores.
const DEADLINE: Duration = Duration::from_secs(90);

/// The tutorial of MySQL, Debezium and Kafka.
const DEBEZIUM: &str = include_str!("../../../sql/tests/seeds/debezium.sql");
/// The tutorial of SQL Server and Estuary Flow.
const ESTUARY: &str = include_str!("../../../sql/tests/seeds/estuary.sql");
/// The chapters about sources of data.
const INGEST: &str = include_str!("../../../sql/tests/seeds/ingest-data.sql");

/// The statements of a block of a document, which is known by its line. Each of `blanks` must be there; what is to be filled in stands beside it.
fn statements(document: &str, line: u32, blanks: &[(&str, &str)]) -> Vec<String> {
    let header = format!("{line}\n");
    let block = document
        .split("--- ")
        .find_map(|block| block.strip_prefix(header.as_str()))
        .unwrap_or_else(|| panic!("there is no block of line {line}"));
    let mut text = block.to_owned();
    for (blank, filling) in blanks {
        assert!(text.contains(*blank), "line {line} has no {blank}");
        text = text.replace(*blank, filling);
    }
    split(&text)
}

/// Statements one by one, as `psql` sends them.
fn split(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let (mut is_quoted, mut is_comment) = (false, false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\n' => is_comment = false,
            '-' if !is_quoted && letters.peek() == Some(&'-') => is_comment = true,
            '\'' if !is_comment => is_quoted = !is_quoted,
            ';' if !is_quoted && !is_comment => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = found.last_mut() {
            last.push(letter);
        }
    }
    found.retain(|statement| !statement.trim().is_empty());
    found
}

/// What a server said of an error.
#[derive(Debug)]
struct Refusal {
    code: String,
    message: String,
}

/// A session of a node, or of PostgreSQL.
struct Session {
    client: Client,
}

impl Session {
    async fn connect(node: &Node) -> Self {
        Self {
            client: node.connect().await.unwrap(),
        }
    }

    /// Runs a statement that must work.
    async fn run(&self, sql: &str) {
        self.client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {}", say(&error)));
    }

    async fn run_all(&self, statements: &[String]) {
        for statement in statements {
            self.run(statement).await;
        }
    }

    /// The error of a statement that must fail.
    async fn refused(&self, sql: &str) -> Refusal {
        let error = match self.client.batch_execute(sql).await {
            Ok(()) => panic!("{sql} works"),
            Err(error) => error,
        };
        let told = error
            .as_db_error()
            .unwrap_or_else(|| panic!("{sql}: {error:?}"));
        Refusal {
            code: told.code().code().to_owned(),
            message: told.message().to_owned(),
        }
    }

    /// The rows of a query, one text each with `|` between columns, in the order of the texts.
    async fn lines(&self, sql: &str) -> Result<Vec<String>, String> {
        let lines = text::rows(&self.client, sql).await;
        let mut lines = lines.map_err(|error| say(&error))?;
        lines.sort();
        Ok(lines)
    }

    /// Waits until a query gives these rows, in any order.
    async fn until(&self, sql: &str, expected: &[impl AsRef<str>]) {
        let mut expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
        expected.sort_unstable();
        wait::until(sql, DEADLINE, async || {
            let seen = self.lines(sql).await?;
            if seen == expected {
                Ok(())
            } else {
                Err(format!("{seen:#?} instead of {expected:#?}"))
            }
        })
        .await
        .unwrap();
    }
}

/// A node that trusts these authorities as a system trusts those of its list.
fn trusting(dir: &Path, authorities: &[PathBuf]) -> NodeOptions {
    let list = dir.join("authorities.pem");
    let certificates: Vec<String> = authorities
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    std::fs::write(&list, certificates.concat()).unwrap();
    NodeOptions {
        environment: vec![("SSL_CERT_FILE".to_owned(), list.display().to_string())],
        ..NodeOptions::default()
    }
}

/// Everything in a topic once it holds so many records.
async fn until_records(kafka: &Kafka, topic: &str, count: usize) -> Vec<Stored> {
    wait::until(
        &format!("records of {topic}"),
        DEADLINE,
        async || match kafka.read(topic, Isolation::Committed).await {
            Ok(found) if found.len() >= count => Ok(found),
            Ok(found) => Err(format!("{} records", found.len())),
            Err(error) => Err(format!("{error:#}")),
        },
    )
    .await
    .unwrap()
}

/// A value of JSON as a cell of [`Session::lines`].
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The rows that changes with images before and after lead to, in the order of their texts. A row that is taken back must have been there.
fn fold(changes: &[Value], line: impl Fn(&Value) -> String) -> Result<Vec<String>, String> {
    let mut rows: BTreeMap<String, usize> = BTreeMap::new();
    for change in changes {
        let (before, after) = (&change["before"], &change["after"]);
        if before.is_null() && after.is_null() {
            return Err(format!("{change} says nothing"));
        }
        if !before.is_null() {
            match rows.get_mut(&line(before)) {
                Some(count) if *count > 0 => *count -= 1,
                _ => return Err(format!("{change} takes back what is not there")),
            }
        }
        if !after.is_null() {
            *rows.entry(line(after)).or_default() += 1;
        }
    }
    let copies = rows
        .into_iter()
        .flat_map(|(row, count)| std::iter::repeat_n(row, count));
    Ok(copies.collect())
}
