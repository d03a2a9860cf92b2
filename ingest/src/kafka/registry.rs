//! Schema registries with Confluent's interface.
//!
//! Owns the requests, the trying again, and what was answered before. Must not know what schemas are used for. Called by [`super::decoding`], never for each message,
//! and by [`super::describe`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flowstone_proto::kafka::{
    RegisteredSchema, RegistryConnection, SchemaKind, SchemaRequest, Tls,
};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

/// How long a registry may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is asked before it is said that it cannot be reached, and the first pause in between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
/// Schemas that one may refer to, itself and by others.
const REFERENCES_MAX: usize = 256;
/// Schemas that are remembered. Topics have a few.
const KNOWN_MAX: usize = 10_000;

/// Why a registry does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegistryError {
    /// It cannot be reached, or is not able to answer now.
    #[error("schema registry at {url} cannot be reached: {reason}")]
    Unreachable {
        /// Where it is.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It does not let us in.
    #[error("schema registry at {url} refuses the user or the password")]
    Refused {
        /// Where it is.
        url: String,
    },
    /// It says something that is not understood.
    #[error("schema registry at {url} answered with {reason}")]
    Unexpected {
        /// Where it is.
        url: String,
        /// What it said.
        reason: String,
    },
    /// The connection is described by something that is no certificate or no address.
    #[error("connection to the schema registry cannot be used: {0}")]
    Connection(String),
}

/// A schema as a registry describes it.
#[derive(Debug, Deserialize)]
struct Described {
    id: Option<u32>,
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Clone, Debug, Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i32,
}

/// A registry and what it has said.
#[derive(Debug)]
pub(crate) struct Registry {
    url: String,
    credentials: Option<(String, String)>,
    client: reqwest::Client,
    known: HashMap<u32, Arc<RegisteredSchema>>,
}

impl Registry {
    pub(crate) fn new(connection: &RegistryConnection) -> Result<Self, RegistryError> {
        let invalid = |error: &dyn std::fmt::Display| RegistryError::Connection(error.to_string());
        let client = reqwest::Client::builder()
            .use_preconfigured_tls(tls(connection.tls.as_ref())?)
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .build()
            .map_err(|error| invalid(&error))?;
        Ok(Self {
            url: connection.url.trim_end_matches('/').to_owned(),
            credentials: connection.credentials.clone(),
            client,
            known: HashMap::new(),
        })
    }

    /// Whether it can be reached and lets us in.
    pub(crate) async fn check(&self) -> Result<(), RegistryError> {
        match self.get("/subjects").await? {
            Some(_) => Ok(()),
            None => Err(RegistryError::Unexpected {
                url: self.url.clone(),
                reason: "404 for /subjects: there is no registry at this address".to_owned(),
            }),
        }
    }

    /// The schema of an id; `None` if there is none.
    pub(crate) async fn by_id(
        &mut self,
        id: u32,
    ) -> Result<Option<Arc<RegisteredSchema>>, RegistryError> {
        if let Some(known) = self.known.get(&id) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(described) = self.described(&format!("/schemas/ids/{id}")).await? else {
            return Ok(None);
        };
        let schema = Arc::new(self.complete(Some(id), described).await?);
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(id, Arc::clone(&schema));
        Ok(Some(schema))
    }

    /// What was asked for; `None` if there is none.
    pub(crate) async fn find(
        &mut self,
        request: &SchemaRequest,
    ) -> Result<Option<RegisteredSchema>, RegistryError> {
        match request {
            SchemaRequest::Id(id) => {
                let found = self.by_id(*id).await?;
                Ok(found.map(|schema| (*schema).clone()))
            }
            SchemaRequest::Latest(subject) => {
                let path = format!("/subjects/{}/versions/latest", escaped(subject));
                match self.described(&path).await? {
                    Some(described) => self.complete(None, described).await.map(Some),
                    None => Ok(None),
                }
            }
        }
    }

    /// A described schema with those that it refers to, each before those that refer to it.
    async fn complete(
        &self,
        id: Option<u32>,
        described: Described,
    ) -> Result<RegisteredSchema, RegistryError> {
        let unexpected = |reason: String| RegistryError::Unexpected {
            url: self.url.clone(),
            reason,
        };
        let kind = match described.kind.as_deref() {
            None | Some("AVRO") => SchemaKind::Avro,
            Some("JSON") => SchemaKind::Json,
            Some("PROTOBUF") => SchemaKind::Protobuf,
            Some(other) => return Err(unexpected(format!("a schema of kind \"{other}\""))),
        };
        let id = id.or(described.id);
        let id = id.ok_or_else(|| unexpected("a schema without an id".to_owned()))?;
        Ok(RegisteredSchema {
            id,
            kind,
            text: described.schema,
            references: self.references(described.references).await?,
        })
    }

    /// Everything that is referred to: depth first, with a stack of our own, since what comes from outside must not make us recurse.
    async fn references(
        &self,
        first: Vec<Reference>,
    ) -> Result<Vec<(String, String)>, RegistryError> {
        enum Step {
            Look(Reference),
            Place(String, String),
        }
        let mut placed: Vec<(String, String)> = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        let mut steps: Vec<Step> = first.into_iter().rev().map(Step::Look).collect();
        while let Some(step) = steps.pop() {
            match step {
                Step::Place(name, text) => placed.push((name, text)),
                Step::Look(reference) if seen.contains(&reference.name) => {}
                Step::Look(Reference {
                    name,
                    subject,
                    version,
                }) => {
                    let unexpected = |reason: String| RegistryError::Unexpected {
                        url: self.url.clone(),
                        reason,
                    };
                    if seen.len() >= REFERENCES_MAX {
                        return Err(unexpected("too many references of schemas".to_owned()));
                    }
                    seen.push(name.clone());
                    let path = format!("/subjects/{}/versions/{version}", escaped(&subject));
                    let described = self.described(&path).await?.ok_or_else(|| {
                        unexpected(format!("a reference to \"{subject}\", which it has not"))
                    })?;
                    steps.push(Step::Place(name, described.schema));
                    steps.extend(described.references.into_iter().rev().map(Step::Look));
                }
            }
        }
        Ok(placed)
    }

    async fn described(&self, path: &str) -> Result<Option<Described>, RegistryError> {
        let Some(body) = self.get(path).await? else {
            return Ok(None);
        };
        let described = serde_json::from_slice(&body);
        described
            .map(Some)
            .map_err(|error| RegistryError::Unexpected {
                url: self.url.clone(),
                reason: format!("what is no schema: {error}"),
            })
    }

    /// The body of an answer; `None` if there is no such thing.
    async fn get(&self, path: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.get_once(path).await {
                Err(RegistryError::Unreachable { .. }) => {}
                outcome => return outcome,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.get_once(path).await
    }

    async fn get_once(&self, path: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        let unreachable = |error: &reqwest::Error| RegistryError::Unreachable {
            url: self.url.clone(),
            reason: causes(error),
        };
        let mut request = self.client.get(format!("{}{path}", self.url));
        if let Some((user, password)) = &self.credentials {
            request = request.basic_auth(user, Some(password));
        }
        let response = request.send().await.map_err(|error| {
            if error.is_builder() {
                return RegistryError::Connection(causes(&error));
            }
            unreachable(&error)
        })?;
        let status = response.status();
        let body = response
            .bytes()
            .await
            .map_err(|error| unreachable(&error))?;
        if status.is_success() {
            return Ok(Some(body.to_vec()));
        }
        let said = String::from_utf8_lossy(&body);
        let said: String = said.chars().take(200).collect();
        match status.as_u16() {
            404 => Ok(None),
            401 | 403 => Err(RegistryError::Refused {
                url: self.url.clone(),
            }),
            408 | 429 | 500.. => Err(RegistryError::Unreachable {
                url: self.url.clone(),
                reason: format!("{status} {said}"),
            }),
            _ => Err(RegistryError::Unexpected {
                url: self.url.clone(),
                reason: format!("{status} {said}"),
            }),
        }
    }
}

/// What an error says, and why. The address is said elsewhere.
fn causes(error: &reqwest::Error) -> String {
    let first = std::error::Error::source(error);
    let chain: Vec<String> = std::iter::successors(first, |cause| cause.source())
        .map(ToString::to_string)
        .collect();
    // The outermost is only that a request failed.
    if chain.is_empty() {
        error.to_string()
    } else {
        chain.join(": ")
    }
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                path.push(char::from(byte));
            }
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    path
}

/// How a client of ours uses TLS.
///
/// # Errors
/// What the connection says is no certificate or no key.
pub(super) fn tls(tls: Option<&Tls>) -> Result<ClientConfig, RegistryError> {
    let failed = |error: &dyn std::fmt::Display| RegistryError::Connection(error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    match tls.and_then(|tls| tls.authority.as_deref()) {
        Some(pem) => {
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
        }
        None => {
            // What of the system's cannot be used is not used.
            let (_added, _ignored) =
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots);
    match tls.and_then(|tls| tls.identity.as_ref()) {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = rustls_pemfile::private_key(&mut key.as_bytes())
                .map_err(|error| failed(&error))?
                .ok_or_else(|| failed(&"no private key found"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| failed(&error))
        }
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let found: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pem.as_bytes()).collect();
    let found = found
        .map_err(|error| RegistryError::Connection(format!("invalid certificate: {error}")))?;
    if found.is_empty() {
        return Err(RegistryError::Connection("no certificate found".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
