//! As much of HTTP as a schema registry takes to be asked.
//!
//! Owns one request on one connection. Must not know what is asked. Called by the client of registries.
//!
//! It is HTTP 1.0, so that an answer ends with its connection and never comes in chunks.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flowstone_proto::kafka::{RegistryConnection, Tls};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer that is longer is none of a registry.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Asks for `path`, which begins with a slash and is encoded, below the path of the registry.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn request(
    registry: &RegistryConnection,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Answer, String> {
    let asking = ask(registry, method, path, body);
    match tokio::time::timeout(TIMEOUT, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} seconds", TIMEOUT.as_secs())),
    }
}

async fn ask(
    registry: &RegistryConnection,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Answer, String> {
    let (secure, host, port, below) = parts_of(&registry.url)?;
    let mut head = format!(
        "{method} {below}{path} HTTP/1.0\r\nHost: {host}:{port}\r\nAccept: application/vnd.schemaregistry.v1+json, application/json\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {}\r\n",
        body.len()
    );
    if let Some((user, password)) = &registry.credentials {
        let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
        head.push_str(&format!("Authorization: Basic {credentials}\r\n"));
    }
    head.push_str("\r\n");
    let mut message = head.into_bytes();
    message.extend_from_slice(body);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port))
        .await
        .map_err(|error| error.to_string())?;
    let answer = if secure {
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
        let roots = roots(registry.tls.as_ref()).await?;
        let config = client_config(roots, registry.tls.as_ref())?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| error.to_string())?;
        exchange(stream, &message).await
    } else {
        exchange(stream, &message).await
    };
    parse(&answer?)
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    message: &[u8],
) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| error.to_string();
    stream.write_all(message).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await {
        Ok(_) => Ok(answer),
        // Some end the connection without saying so; whether all is there is seen by its length.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(answer),
        Err(error) => Err(failed(error)),
    }
}

/// Whether it is HTTPS, the host, the port, and the path without a slash at its end.
fn parts_of(url: &str) -> Result<(bool, &str, u16, &str), String> {
    let bad = || format!("\"{url}\" is no address of a registry");
    let (secure, rest) = if let Some(rest) = url.strip_prefix("https://") {
        (true, rest)
    } else {
        (false, url.strip_prefix("http://").ok_or_else(bad)?)
    };
    // They would end the line of the request.
    if rest.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err(bad());
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let default = if secure { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an address in brackets.
        Some((_, after)) if after.ends_with(']') => (authority, default),
        Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
        None => (authority, default),
    };
    if host.is_empty() {
        return Err(bad());
    }
    Ok((secure, host, port, path.trim_end_matches('/')))
}

fn parse(answer: &[u8]) -> Result<Answer, String> {
    let bad = || "the answer is not HTTP".to_owned();
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(bad)?;
    let head = std::str::from_utf8(answer.get(..end).unwrap_or_default()).map_err(|_| bad())?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    if !words.next().is_some_and(|word| word.starts_with("HTTP/1.")) {
        return Err(bad());
    }
    let status = words.next().and_then(|word| word.parse().ok());
    let status = status.ok_or_else(bad)?;
    let mut body = answer.get(end + 4..).unwrap_or_default();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            let length: usize = value.trim().parse().map_err(|_| bad())?;
            body = body
                .get(..length)
                .ok_or_else(|| "the answer ends before its end".to_owned())?;
        }
    }
    Ok(Answer {
        status,
        body: body.to_vec(),
    })
}

fn client_config(roots: Arc<RootCertStore>, tls: Option<&Tls>) -> Result<ClientConfig, String> {
    let failed = |error: rustls::Error| error.to_string();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots);
    let Some((certificate, key)) = tls.and_then(|tls| tls.identity.as_ref()) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = rustls_pemfile::certs(&mut certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("invalid certificate: {error}"))?;
    let key = rustls_pemfile::private_key(&mut key.as_bytes())
        .map_err(|error| format!("invalid key: {error}"))?
        .ok_or("invalid key: none found")?;
    builder.with_client_auth_cert(chain, key).map_err(failed)
}

/// Whom to trust. What the system says is read once for the process, on a thread that may block: it is hundreds of certificates.
async fn roots(tls: Option<&Tls>) -> Result<Arc<RootCertStore>, String> {
    static OF_THE_SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(pem) = tls.and_then(|tls| tls.authority.as_deref()) {
        return Ok(Arc::new(roots_in(pem.as_bytes())?));
    }
    if let Some(known) = OF_THE_SYSTEM.get() {
        return Ok(Arc::clone(known));
    }
    let read = tokio::task::spawn_blocking(system_roots).await;
    let read = read.map_err(|error| error.to_string())??;
    Ok(Arc::clone(OF_THE_SYSTEM.get_or_init(|| Arc::new(read))))
}

fn roots_in(mut pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        if let Err(error) = roots.add(certificate) {
            tracing::debug!(%error, "an authority is passed over");
        }
    }
    if roots.is_empty() {
        return Err("invalid root certificate: no certificate found".to_owned());
    }
    Ok(roots)
}

/// What the system trusts, or the file that `SSL_CERT_FILE` names: the same as for sources.
fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // What of the system's cannot be used is not used.
    let (_added, _ignored) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("the system has no list of authorities".to_owned());
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_ports() {
        assert_eq!(parts_of("http://a"), Ok((false, "a", 80, "")));
        assert_eq!(parts_of("https://a/"), Ok((true, "a", 443, "")));
        assert_eq!(parts_of("http://a.b:8081"), Ok((false, "a.b", 8081, "")));
        assert_eq!(
            parts_of("http://[::1]:8081"),
            Ok((false, "[::1]", 8081, ""))
        );
        assert_eq!(parts_of("http://[::1]"), Ok((false, "[::1]", 80, "")));
        assert_eq!(
            parts_of("http://a:8080/apis/ccompat/v7"),
            Ok((false, "a", 8080, "/apis/ccompat/v7"))
        );
        for bad in [
            "",
            "a:8081",
            "http://",
            "http://a:b",
            "ftp://a",
            "http://a/b\r\nc",
        ] {
            parts_of(bad).unwrap_err();
        }
    }

    #[test]
    fn an_answer_has_a_status_and_a_body_of_the_length_that_it_says() {
        let answer = parse(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}x").unwrap();
        assert_eq!((answer.status, answer.body), (200, b"{}".to_vec()));
        let answer = parse(b"HTTP/1.0 404 Not Found\r\n\r\nno").unwrap();
        assert_eq!((answer.status, answer.body), (404, b"no".to_vec()));
        parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}").unwrap_err();
        parse(b"hello").unwrap_err();
    }
}
