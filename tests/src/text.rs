//! Results of simple queries as lines of text, and errors as one.

use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// The rows of a simple query in its order: the columns as text, joined by `|`, with `NULL` for NULL.
///
/// # Errors
/// What the server says, or that it went away.
pub async fn rows(client: &Client, sql: &str) -> Result<Vec<String>, Error> {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).unwrap_or("NULL"))
                .collect::<Vec<_>>()
                .join("|"),
        ),
        _ => None,
    };
    let messages = client.simple_query(sql).await?;
    Ok(messages.into_iter().filter_map(row).collect())
}

/// An error with everything that the server said about it, its SQLSTATE first.
#[must_use]
pub fn say(error: &Error) -> String {
    match error.as_db_error() {
        Some(told) => format!(
            "{}: {} detail: {:?} hint: {:?}",
            told.code().code(),
            told.message(),
            told.detail(),
            told.hint()
        ),
        None => format!("{error:?}"),
    }
}
