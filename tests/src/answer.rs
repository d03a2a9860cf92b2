//! What a server answers to a simple query: rows as text, or an error with its SQLSTATE. For tests that compare servers.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;
use tokio_postgres::{Client, SimpleQueryMessage};

/// A statement may not take longer; a view that never becomes readable is a failure like a wrong row.
pub const STATEMENT_DEADLINE: Duration = Duration::from_secs(60);

/// The SQLSTATE, as it were, of a statement that did not end in time.
pub const TIMEOUT: &str = "timeout";

/// The SQLSTATE, as it were, of a statement during which the connection was lost.
pub const CONNECTION: &str = "connection";

/// The values of a row as text, or NULL.
pub type Row = Vec<Option<String>>;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Rows in their order.
    Rows(Vec<Row>),
    /// An error.
    Error {
        /// Its SQLSTATE, or [`TIMEOUT`] or [`CONNECTION`].
        code: String,
        /// What it says.
        message: String,
    },
}

impl Answer {
    /// An error that the data causes; any other is the server's.
    #[must_use]
    pub fn is_evaluation_error(&self) -> bool {
        matches!(self, Self::Error { code, .. } if code.starts_with("22") || code.starts_with("21"))
    }

    /// The answer for people; of many rows only the first.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Rows(rows) => {
                let mut text = format!("{} rows", rows.len());
                for row in rows.iter().take(30) {
                    let values: Vec<&str> = row
                        .iter()
                        .map(|value| value.as_deref().unwrap_or("NULL"))
                        .collect();
                    let _ = write!(text, "\n    {}", values.join(" | "));
                }
                text
            }
            Self::Error { code, message } => format!("error {code}: {message}"),
        }
    }

    /// What an error of the client says.
    #[must_use]
    pub fn of_error(error: &tokio_postgres::Error) -> Self {
        error.as_db_error().map_or_else(
            || Self::Error {
                code: CONNECTION.to_owned(),
                message: error.to_string(),
            },
            |db| Self::Error {
                code: db.code().code().to_owned(),
                message: db.message().to_owned(),
            },
        )
    }

    /// That a statement did not end in time.
    #[must_use]
    pub fn timeout() -> Self {
        Self::Error {
            code: TIMEOUT.to_owned(),
            message: format!("no answer in {STATEMENT_DEADLINE:?}"),
        }
    }
}

/// Asks a server with a simple query.
pub async fn ask(client: &Client, sql: &str) -> Answer {
    match tokio::time::timeout(STATEMENT_DEADLINE, client.simple_query(sql)).await {
        Err(_) => Answer::timeout(),
        Ok(Err(error)) => Answer::of_error(&error),
        Ok(Ok(messages)) => Answer::Rows(
            messages
                .iter()
                .filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(
                        (0..row.len())
                            .map(|column| row.get(column).map(str::to_owned))
                            .collect(),
                    ),
                    _ => None,
                })
                .collect(),
        ),
    }
}

/// A connection to a database of a server on this machine.
///
/// # Errors
/// The server does not answer.
pub async fn connect(port: u16, user: &str, database: &str) -> Result<Client> {
    crate::node::connect(&format!(
        "host=127.0.0.1 port={port} user={user} dbname={database}"
    ))
    .await
}
