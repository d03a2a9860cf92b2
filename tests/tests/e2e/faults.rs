//! Bad input and faults: each costs the one who met it an error that says what is wrong, and nobody anything else.
//!
//! Elsewhere: errors in rows of views in `slt/views/errors.slt`, clients that vanish in `wire`, PostgreSQL stopped and restarted in `postgres`, SIGKILL in
//! `crash`.

use std::time::Duration;

use flowstone_tests::{Node, text, wait};
use tokio_postgres::Client;

#[path = "faults/crowd.rs"]
mod crowd;
#[path = "faults/damage.rs"]
mod damage;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/failpoints.rs"]
mod failpoints;
#[path = "faults/files.rs"]
mod files;
#[path = "faults/input.rs"]
mod input;
#[path = "faults/large.rs"]
mod large;
#[path = "faults/views.rs"]
mod views;

/// How long anything may take that should happen soon. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// An error's SQLSTATE and message; empty if the server did not say anything.
pub(crate) fn said(error: &tokio_postgres::Error) -> (String, String) {
    error.as_db_error().map_or_else(
        || (String::new(), format!("{error:?}")),
        |error| (error.code().code().to_owned(), error.message().to_owned()),
    )
}

/// The SQLSTATE and the message of a statement that must fail, soon.
async fn failure(client: &Client, sql: &str) -> (String, String) {
    let shown: String = sql.chars().take(100).collect();
    match tokio::time::timeout(DEADLINE, client.simple_query(sql)).await {
        Ok(Ok(_)) => panic!("{shown} works"),
        Ok(Err(error)) => said(&error),
        Err(_) => panic!("{shown} takes too long"),
    }
}

/// The rows of a query, columns joined by `|`.
async fn rows(client: &Client, sql: &str) -> Result<Vec<String>, (String, String)> {
    text::rows(client, sql).await.map_err(|error| said(&error))
}

/// Waits until a line of the node's log contains `text`.
async fn until_logged(node: &Node, text: &str) {
    wait::until(&format!("\"{text}\" in the log"), DEADLINE, async || {
        let log = std::fs::read_to_string(node.log_path()).map_err(|error| error.to_string())?;
        log.contains(text).then_some(()).ok_or_else(String::new)
    })
    .await
    .unwrap();
}
