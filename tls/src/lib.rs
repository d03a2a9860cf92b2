//! TLS of every listener: the certificate and key, their reload, and accepting connections.
//!
//! Owns the reading of PEM files ([`ServerTls`]) and the listener that hands out connections whose handshake is done ([`TlsListener`]). Must not know any client
//! protocol, user or password. Called by `node`, which loads and reloads, and by `pgwire`, `console` and `flight`, which accept.
//!
//! Invariants. The certificate and key in use belong together: a reload that fails leaves the ones before in place. A client that stalls in the middle of a
//! handshake keeps nobody else from connecting. Where TLS is required, not a byte that came in the clear is acted on.

mod certificate;
mod listener;

pub use certificate::{Acceptor, Error, Protocol, ServerTls, Validity};
pub use listener::{MaybeTlsStream, Plaintext, TlsListener};
