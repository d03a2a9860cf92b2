//! What every listener shares: TLS with its certificate and key, and how many connections there may be.
//!
//! Owns the reading of PEM files ([`ServerTls`]), the listener that hands out connections whose handshake is done ([`TlsListener`]), and
//! who gets in when there is no room for everybody ([`Admission`]). Must not know any client
//! protocol, user or password. Called by `node`, which loads and reloads, and by `pgwire`, `console` and `flight`, which accept.
//!
//! Invariants. The certificate and key in use belong together: a reload that fails leaves the ones before in place. A client that stalls in the middle of a
//! handshake, or says nothing at all, keeps nobody else from connecting. Where TLS is required, not a byte that came in the clear is acted on.

mod admission;
mod certificate;
mod listener;

pub use admission::{Admission, Full, Ticket};
pub use certificate::{Acceptor, Error, Protocol, ServerTls, Validity};
pub use listener::{Connection, Plaintext, TlsListener};
