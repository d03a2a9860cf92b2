//! The certificate and the private key of a node, from PEM files.
//!
//! Owns their reading, their checks and what is derived from them. Blocks on files: call from a thread that may.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use x509_certificate::{CapturedX509Certificate, SignatureAlgorithm};

/// What is spoken inside of TLS: decides which protocol names (ALPN) are agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// PostgreSQL: `postgresql`, required of clients that begin with TLS right away.
    Postgres,
    /// HTTP/1.1.
    Http,
    /// gRPC: HTTP/2.
    Grpc,
}

/// Why a certificate and a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {what} file {}", path.display())]
    Read {
        /// `the certificate` or `the key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is not the one of the certificate.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// When a certificate can be used: seconds since the Unix epoch, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub not_before_s: i64,
    /// Until then.
    pub not_after_s: i64,
}

/// The certificate and the key in use; replaced by [`ServerTls::reload`].
#[derive(Debug)]
pub struct ServerTls {
    certificate_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Arc<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    postgres: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    end_point: Option<Vec<u8>>,
    validity: Option<Validity>,
}

/// What accepts one connection, with the certificate that is current when it is made.
#[derive(Clone)]
pub struct Acceptor {
    /// Does the handshake.
    pub tls: TlsAcceptor,
    /// The hash of the certificate that binds an authentication to it (RFC 5929, `tls-server-end-point`); `None` if its signature has no single hash.
    pub end_point: Option<Vec<u8>>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads a certificate, with those between it and its root after it, and its private key. Blocks.
    ///
    /// # Errors
    /// [`Error`], naming the file. A certificate that is not valid yet or any more is none: see [`ServerTls::validity`].
    pub fn load(certificate_file: &Path, key_file: &Path) -> Result<Self, Error> {
        let loaded = load(certificate_file, key_file)?;
        Ok(Self {
            certificate_file: certificate_file.to_owned(),
            key_file: key_file.to_owned(),
            current: RwLock::new(Arc::new(loaded)),
        })
    }

    /// Reads both files again; connections accepted from then on use them. Blocks.
    ///
    /// # Errors
    /// [`Error`]; what was in use stays in use.
    pub fn reload(&self) -> Result<(), Error> {
        let loaded = load(&self.certificate_file, &self.key_file)?;
        *self.current.write() = Arc::new(loaded);
        Ok(())
    }

    /// What accepts the next connection.
    #[must_use]
    pub fn acceptor(&self, protocol: Protocol) -> Acceptor {
        let current = Arc::clone(&self.current.read());
        let config = match protocol {
            Protocol::Postgres => &current.postgres,
            Protocol::Http => &current.http,
            Protocol::Grpc => &current.grpc,
        };
        Acceptor {
            tls: TlsAcceptor::from(Arc::clone(config)),
            end_point: current.end_point.clone(),
        }
    }

    /// When the certificate can be used; `None` if that cannot be read out of it.
    #[must_use]
    pub fn validity(&self) -> Option<Validity> {
        self.current.read().validity
    }

    /// The certificate's file.
    #[must_use]
    pub fn certificate_file(&self) -> &Path {
        &self.certificate_file
    }
}

fn load(certificate_file: &Path, key_file: &Path) -> Result<Loaded, Error> {
    let content = |path: &Path, reason: String| Error::Content {
        path: path.to_owned(),
        reason,
    };
    let pem = read("the certificate", certificate_file)?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(certificate_file, format!("is not PEM: {error}")))?;
    let Some(certificate) = chain.first().cloned() else {
        return Err(content(
            certificate_file,
            "holds no certificate in PEM".to_owned(),
        ));
    };
    let pem = read("the key", key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let reason = match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                "holds no private key in PEM; one that is encrypted cannot be used".to_owned()
            }
            error => format!("is not PEM: {error}"),
        };
        content(key_file, reason)
    })?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Error::Mismatch {
                certificate: certificate_file.to_owned(),
                key: key_file.to_owned(),
            },
            rustls::Error::InvalidCertificate(_) => content(
                certificate_file,
                format!("holds a certificate that cannot be used: {error}"),
            ),
            error => content(
                key_file,
                format!("holds a key that cannot be used: {error}"),
            ),
        })?;
    let with_alpn = |protocols: &[&[u8]]| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    };
    let parsed = CapturedX509Certificate::from_der(certificate.to_vec()).ok();
    Ok(Loaded {
        postgres: with_alpn(&[b"postgresql"]),
        http: with_alpn(&[b"http/1.1"]),
        grpc: with_alpn(&[b"h2"]),
        end_point: parsed
            .as_ref()
            .and_then(|parsed| end_point(parsed, &certificate)),
        validity: parsed.as_ref().map(|parsed| Validity {
            not_before_s: parsed.validity_not_before().timestamp(),
            not_after_s: parsed.validity_not_after().timestamp(),
        }),
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read {
        what,
        path: path.to_owned(),
        source,
    })
}

/// The hash of the signature's algorithm over the certificate; SHA-256 where that is weaker (RFC 5929, section 4.1).
fn end_point(parsed: &CapturedX509Certificate, der: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match parsed.signature_algorithm()? {
        SignatureAlgorithm::RsaSha1
        | SignatureAlgorithm::RsaSha256
        | SignatureAlgorithm::EcdsaSha256 => &digest::SHA256,
        SignatureAlgorithm::RsaSha384 | SignatureAlgorithm::EcdsaSha384 => &digest::SHA384,
        SignatureAlgorithm::RsaSha512 => &digest::SHA512,
        SignatureAlgorithm::Ed25519 | SignatureAlgorithm::NoSignature(_) => return None,
    };
    Some(digest::digest(algorithm, der).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (
            directory.path().join("a.crt"),
            directory.path().join("a.key"),
        );
        let error = ServerTls::load(&certificate, &key).unwrap_err();
        assert!(matches!(&error, Error::Read { path, .. } if *path == certificate));
        assert!(error.to_string().contains("a.crt"), "{error}");
        std::fs::write(&certificate, "no PEM at all").unwrap();
        let error = ServerTls::load(&certificate, &key).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("a.crt holds no certificate in PEM"),
            "{error}"
        );
    }
}
