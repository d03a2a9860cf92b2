//! Schemas of messages, registered with a registry of Confluent's kind.
//!
//! Owns what is asked of one. Must not know what schemas say. Called when a sink begins.

use flowstone_proto::kafka::RegistryConnection;
use serde::Deserialize;

use super::Failure;
use super::encode::Registration;
use super::http::{self, Answer};

#[derive(Debug, Deserialize)]
struct Registered {
    id: u32,
}

#[derive(Debug, Deserialize)]
struct Complaint {
    message: String,
}

/// Registers a schema, unless it is there, and says its id.
///
/// # Errors
/// [`Failure::Again`] if the registry is away; [`Failure::Refused`] with what it says.
pub(super) async fn register(registration: &Registration) -> Result<u32, Failure> {
    let subject = encoded(&registration.subject);
    let registry = &registration.registry;
    if let Some(level) = &registration.compatibility {
        let path = format!("/config/{subject}");
        let set = ask(registry, "GET", &path, None).await?;
        // What somebody has set stays.
        if set.status == 404 {
            let body = serde_json::json!({ "compatibility": level });
            let answer = ask(registry, "PUT", &path, Some(&body)).await?;
            accepted(registry, &answer)?;
        }
    }
    let body = serde_json::json!({ "schema": registration.schema });
    let path = format!("/subjects/{subject}/versions");
    let answer = ask(registry, "POST", &path, Some(&body)).await?;
    accepted(registry, &answer)?;
    let registered: Registered = serde_json::from_slice(&answer.body)
        .map_err(|error| away(registry, &format!("its answer cannot be read: {error}")))?;
    Ok(registered.id)
}

async fn ask(
    registry: &RegistryConnection,
    method: &str,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Answer, Failure> {
    let body = body.map(serde_json::Value::to_string).unwrap_or_default();
    http::request(registry, method, path, body.as_bytes())
        .await
        .map_err(|error| away(registry, &error))
}

fn away(registry: &RegistryConnection, reason: &str) -> Failure {
    let url = &registry.url;
    Failure::Again(format!("schema registry {url}: {reason}"))
}

fn accepted(registry: &RegistryConnection, answer: &Answer) -> Result<(), Failure> {
    let said = serde_json::from_slice::<Complaint>(&answer.body);
    let said = said.map_or_else(
        |_| format!("status {}", answer.status),
        |complaint| complaint.message,
    );
    match answer.status {
        200..=299 => Ok(()),
        400..=499 if answer.status != 429 => Err(Failure::Refused {
            message: format!("schema registry {} refuses: {said}", registry.url),
            hint: None,
        }),
        _ => Err(away(registry, &said)),
    }
}

/// A subject as a part of a path.
fn encoded(subject: &str) -> String {
    let mut path = String::with_capacity(subject.len());
    for byte in subject.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::encode::PartName;
    use super::*;

    /// A registry that gives these answers, one a connection, and says what it was asked.
    async fn registry(
        answers: &'static [&'static str],
    ) -> (RegistryConnection, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let mut length = 0;
                // The body is JSON.
                while !request[..length].ends_with(b"}")
                    && !request[..length].ends_with(b"\r\n\r\n")
                {
                    length += stream.read(&mut request[length..]).await.unwrap();
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                request.truncate(length);
                asked.push(String::from_utf8(request).unwrap());
            }
            asked
        });
        let connection = RegistryConnection {
            url,
            credentials: Some(("u".to_owned(), "p".to_owned())),
            tls: None,
        };
        (connection, serving)
    }

    fn registration(registry: RegistryConnection) -> Registration {
        Registration {
            part: PartName::Value,
            registry,
            subject: "a b-value".to_owned(),
            schema: r#""string""#.to_owned(),
            compatibility: Some("FULL".to_owned()),
        }
    }

    #[tokio::test]
    async fn a_schema_is_registered_after_the_level_of_its_subject_is_set() {
        let (connection, serving) = registry(&[
            "HTTP/1.1 404 Not Found\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\n\r\n{\"id\":42}",
        ])
        .await;
        assert_eq!(register(&registration(connection)).await, Ok(42));
        let asked = serving.await.unwrap();
        assert!(asked[0].starts_with("GET /config/a%20b-value HTTP/1.0\r\n"));
        assert!(asked[1].starts_with("PUT /config/a%20b-value "));
        assert!(asked[1].ends_with(r#"{"compatibility":"FULL"}"#));
        assert!(asked[2].starts_with("POST /subjects/a%20b-value/versions "));
        assert!(asked[2].ends_with(r#"{"schema":"\"string\""}"#));
        assert!(asked[2].contains("Authorization: Basic dTpw\r\n"));
    }

    #[tokio::test]
    async fn a_registry_may_be_below_a_path() {
        let (mut connection, serving) = registry(&["HTTP/1.1 200 OK\r\n\r\n{\"id\":42}"]).await;
        connection.url.push_str("/apis/ccompat/v7");
        let registration = Registration {
            compatibility: None,
            ..registration(connection)
        };
        assert_eq!(register(&registration).await, Ok(42));
        let asked = serving.await.unwrap();
        let path = "/apis/ccompat/v7/subjects/a%20b-value/versions";
        assert!(asked[0].starts_with(&format!("POST {path} HTTP/1.0\r\n")));
    }

    #[tokio::test]
    async fn what_a_registry_refuses_it_says_why() {
        let (connection, serving) = registry(&[
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 409 Conflict\r\n\r\n{\"error_code\":409,\"message\":\"incompatible\"}",
        ])
        .await;
        let refused = register(&registration(connection)).await;
        assert!(
            matches!(&refused, Err(Failure::Refused { message, .. }) if message.ends_with("incompatible")),
            "{refused:?}"
        );
        serving.await.unwrap();
    }
}
