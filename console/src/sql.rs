//! `POST /api/sql`: SQL over HTTP.
//!
//! Owns the form of the request (this module), running its statements in a session of their own (`run`) and the form of the answer (`answer`). Must not
//! know planning or transactions: those are the session's.
//!
//! Invariants. One request is one session: what it leaves open is rolled back. A request that is dropped, because its client hung up or the node stops,
//! drops its session and so ends its statement. An answer is collected before it is sent and never larger than [`RESULT_BYTES_MAX`] and one row; until it is sent
//! it counts as held by a session, and its request as one that runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use flowstone_coordinator::{Error, Report, SessionOptions};
use serde::Deserialize;

use crate::App;
use crate::auth::User;
use crate::refusal::Refusal;

mod answer;
mod run;

/// The largest answer, in bytes. It is held in memory, whole, for a client that will hold it in memory, whole; what is larger belongs on the PostgreSQL
/// protocol, which streams.
pub const RESULT_BYTES_MAX: usize = 16 << 20;

/// The largest request, in bytes. Statements are written by hand or by programs that send values as parameters; bulk loads have `COPY`.
pub const REQUEST_BYTES_MAX: usize = 2 << 20;

/// How long a client may take to send its request: it holds one of the places of those that run.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);

/// What the URL may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// A JSON object: session variables and their values.
    options: Option<String>,
}

/// What the body says: one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestBody {
    query: Option<String>,
    queries: Option<Vec<Extended>>,
}

/// The statements of a request.
#[derive(Debug, PartialEq, Eq)]
enum Statements {
    /// Any number of statements in one text, one transaction.
    Simple(String),
    /// Single statements with parameters, each a transaction of its own.
    Extended(Vec<Extended>),
}

impl Statements {
    /// Bytes of their texts and parameters.
    fn bytes(&self) -> usize {
        match self {
            Self::Simple(text) => text.len(),
            Self::Extended(queries) => queries
                .iter()
                .map(|query| {
                    let values = query.params.iter().flatten();
                    query.query.len() + values.map(String::len).sum::<usize>()
                })
                .sum(),
        }
    }
}

/// A statement with the text of its parameters.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extended {
    query: String,
    #[serde(default)]
    params: Vec<Option<String>>,
}

pub(crate) async fn post(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answered = tokio::select! {
        biased;
        () = app.stop.cancelled() => Err(unavailable(Report::new("57P01", "the server is shutting down"))),
        answered = serve(&app, user, &uri, &headers, body) => answered,
    };
    match answered {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn serve(
    app: &App,
    user: User,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    if !is_json(headers) {
        return Err(
            Refusal::malformed("the content type of the request is not application/json")
                .with_hint("Send the header \"Content-Type: application/json\"."),
        );
    }
    let options = session_options(uri, user)?;
    let requests = Arc::clone(&app.sql_requests);
    let permit = requests.try_acquire_owned().map_err(|_| {
        unavailable(
            Report::new("53300", "too many SQL requests at once")
                .with_hint("Try again, or keep a connection of the PostgreSQL protocol."),
        )
    })?;
    let body = axum::body::to_bytes(body, REQUEST_BYTES_MAX);
    let body = tokio::time::timeout(REQUEST_PATIENCE, body)
        .await
        .map_err(|_| {
            let report = Report::new("08006", "the request does not arrive");
            Refusal::new(StatusCode::REQUEST_TIMEOUT, report)
        })?
        .map_err(|_| too_large())?;
    let statements = statements(&body)?;
    let session = app
        .client
        .open_session(options)
        .await
        .map_err(|error| match &error {
            Error::Unavailable(_) => unavailable(Report::from(&error)),
            _ => Refusal::new(StatusCode::BAD_REQUEST, Report::from(&error)),
        })?;
    let mut held = session.memory().nothing();
    held.resize(statements.bytes())
        .map_err(|error| unavailable(Report::from(&Error::from(error))))?;
    let answer = run::run(session, statements).await;
    drop(held);
    Ok(answer.into_response(permit))
}

fn unavailable(report: Report) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, report)
}

/// Reading the body fails for its size, or because the client is gone and nobody hears it.
fn too_large() -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        Report::new(
            "54000",
            format!("the request is larger than {REQUEST_BYTES_MAX} bytes"),
        )
        .with_hint("Load data with COPY over the PostgreSQL protocol."),
    )
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

fn statements(body: &[u8]) -> Result<Statements, Refusal> {
    let body: RequestBody = serde_json::from_slice(body)
        .map_err(|error| Refusal::malformed(format!("the request is malformed: {error}")))?;
    match (body.query, body.queries) {
        (Some(query), None) => Ok(Statements::Simple(query)),
        (None, Some(queries)) => Ok(Statements::Extended(queries)),
        _ => Err(Refusal::malformed(
            "the request must have either \"query\" or \"queries\"",
        )),
    }
}

fn session_options(uri: &Uri, User(user): User) -> Result<SessionOptions, Refusal> {
    let Query(parameters) = Query::<Parameters>::try_from_uri(uri)
        .map_err(|rejection| Refusal::malformed(rejection.body_text()))?;
    let mut options = SessionOptions {
        user,
        ..SessionOptions::default()
    };
    if let Some(text) = parameters.options {
        let variables: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|error| {
            Refusal::malformed(format!("\"options\" is not a JSON object of text: {error}"))
        })?;
        for (name, value) in variables {
            if name == "database" {
                options.database = Some(value);
            } else {
                options.parameters.push((name, value));
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests;
