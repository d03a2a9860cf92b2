use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A registry that answers each request by its path; returns its address.
async fn registry(answer: impl Fn(&str, &str) -> (u16, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut bytes = [0; 1024];
                let count = socket.read(&mut bytes).await.unwrap();
                if count == 0 {
                    break;
                }
                request.extend_from_slice(&bytes[..count]);
            }
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let (status, body) = answer(&path, &request);
            let response = format!(
                "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(response.as_bytes()).await.unwrap();
        }
    });
    url
}

fn connection(url: String) -> RegistryConnection {
    RegistryConnection {
        url,
        credentials: Some(("u".to_owned(), "p".to_owned())),
        tls: None,
    }
}

#[tokio::test]
async fn references_come_before_what_refers_to_them() {
    let url = registry(|path, _| {
        let reference =
            |name: &str| format!("{{\"name\":\"{name}\",\"subject\":\"s/{name}\",\"version\":1}}");
        let body = match path {
            "/schemas/ids/7" => format!(
                "{{\"schema\":\"top\",\"references\":[{},{}]}}",
                reference("a"),
                reference("b")
            ),
            "/subjects/s%2Fa/versions/1" => format!(
                "{{\"id\":2,\"schema\":\"A\",\"references\":[{}]}}",
                reference("b")
            ),
            "/subjects/s%2Fb/versions/1" => "{\"id\":1,\"schema\":\"B\"}".to_owned(),
            _ => return (404, "{\"error_code\":40403}".to_owned()),
        };
        (200, body)
    })
    .await;
    let mut registry = Registry::new(&connection(url)).unwrap();
    let found = registry.by_id(7).await.unwrap().unwrap();
    let names: Vec<&str> = found
        .references
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!((found.id, found.kind), (7, SchemaKind::Avro));
    assert!(registry.by_id(8).await.unwrap().is_none());
}

#[tokio::test]
async fn a_registry_is_asked_again_while_it_is_not_able_to_answer_and_not_once_it_has() {
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    let url = registry(move |_, request| {
        assert!(request.to_lowercase().contains("authorization: basic dtpw"));
        match counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => (503, "later".to_owned()),
            _ => (200, "{\"id\":5,\"schema\":\"S\"}".to_owned()),
        }
    })
    .await;
    let mut registry = Registry::new(&connection(url)).unwrap();
    for _again in 0..3 {
        registry.by_id(5).await.unwrap().unwrap();
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_registry_is_told_apart() {
    let refusing = registry(|_, _| (401, String::new())).await;
    let refused = Registry::new(&connection(refusing)).unwrap().check().await;
    assert!(matches!(refused, Err(RegistryError::Refused { .. })));
    // A web server, but no registry; and a registry that is below a path.
    let below = registry(|path, _| match path {
        "/apis/subjects" => (200, "[]".to_owned()),
        _ => (404, String::new()),
    })
    .await;
    let elsewhere = Registry::new(&connection(below.clone())).unwrap();
    let elsewhere = elsewhere.check().await;
    assert!(matches!(elsewhere, Err(RegistryError::Unexpected { .. })));
    let there = Registry::new(&connection(format!("{below}/apis"))).unwrap();
    assert_eq!(there.check().await, Ok(()));
    // Nobody listens at a port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let nobody = Registry::new(&connection(url)).unwrap().check().await;
    assert!(matches!(nobody, Err(RegistryError::Unreachable { .. })));
    let mut other = connection("https://localhost".to_owned());
    other.tls = Some(Tls {
        authority: Some("no certificate".to_owned()),
        identity: None,
    });
    let invalid = Registry::new(&other).map(drop);
    assert!(matches!(invalid, Err(RegistryError::Connection(_))));
}
