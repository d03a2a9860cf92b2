//! Why the certificate of a broker is not trusted.
//!
//! Owns a second look at it: librdkafka only says that it could not be verified. Must not know sources, nor decide whom to trust: the library has refused already,
//! and what is found here is said beside that. Called by [`super::describe`] and [`super::attempt`], on threads that may block.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use flowstone_proto::kafka::{KafkaConnection, Tls};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConnection};

use super::registry;

/// How long the look may take, for each step: the broker has just answered.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What the library says of certificates, whatever is wrong with them.
const NOT_VERIFIED: &str = "certificate verify failed";

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) hint: &'static str,
}

/// What is wrong with the certificate that the library says it could not verify; `None` if its words are about something else, or it is not found out.
pub(crate) fn refusal(connection: &KafkaConnection, words: &str) -> Option<Refusal> {
    let tls = connection.tls.as_ref()?;
    if !words.contains(NOT_VERIFIED) {
        return None;
    }
    let (host, port) = broker_in(words)?;
    let error = look(tls, host, port).err()?;
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error, host),
        _ => None,
    }
}

/// The broker that the library speaks of: `ssl://host:port/1: SSL handshake failed: …`.
fn broker_in(words: &str) -> Option<(&str, u16)> {
    let (_, rest) = words.split_once("ssl://")?;
    let (address, _) = rest.split_once('/')?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port.parse().ok()?))
}

/// Shakes hands, and hangs up.
fn look(tls: &Tls, host: &str, port: u16) -> io::Result<()> {
    let config = registry::tls(Some(tls)).map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut addresses = (host, port).to_socket_addrs()?;
    let stream = addresses.find_map(|address| TcpStream::connect_timeout(&address, TIMEOUT).ok());
    let mut stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    session.complete_io(&mut stream).map(drop)
}

fn of_certificate(error: &CertificateError, host: &str) -> Option<Refusal> {
    let (reason, hint) = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "the certificate of the broker has expired".to_owned(),
            "Renew the certificate of the broker.",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "the certificate of the broker is not valid yet".to_owned(),
            "Check the clocks of the broker and of this machine.",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("the certificate of the broker is not for \"{host}\""),
            "Name the broker as its certificate does, or give it a certificate for this name.",
        ),
        // Another one may have the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "the certificate of the broker is of an authority that is not trusted".to_owned(),
            "Check SSL CERTIFICATE AUTHORITY of the connection.",
        ),
        _ => return None,
    };
    Some(Refusal { reason, hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_is_named_in_the_words_of_the_library() {
        let words = |broker: &str| format!("{broker}: SSL handshake failed: {NOT_VERIFIED}");
        for (broker, expected) in [
            ("ssl://a.b:9093/bootstrap", Some(("a.b", 9093))),
            ("sasl_ssl://127.0.0.1:1/3", Some(("127.0.0.1", 1))),
            ("ssl://[::1]:9093/1", Some(("::1", 9093))),
            ("a:9092/1", None),
            ("ssl://a/1", None),
        ] {
            assert_eq!(broker_in(&words(broker)), expected, "{broker}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told() {
        let reason =
            |error: CertificateError| of_certificate(&error, "a.b").map(|refusal| refusal.reason);
        let expired = reason(CertificateError::Expired).unwrap();
        assert!(expired.contains("has expired"), "{expired}");
        let other = reason(CertificateError::NotValidForName).unwrap();
        assert!(other.contains("not for \"a.b\""), "{other}");
        assert_eq!(reason(CertificateError::BadEncoding), None);
    }

    #[test]
    fn other_words_are_not_looked_into() {
        let connection = KafkaConnection {
            brokers: Vec::new(),
            tls: Some(Tls {
                authority: None,
                identity: None,
            }),
            sasl: None,
            progress_topic: None,
        };
        assert_eq!(refusal(&connection, "ssl://a:1/1: timed out"), None);
    }
}
