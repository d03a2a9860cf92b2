//! The PostgreSQL protocol, version 3: simple and extended queries, text and binary formats, COPY, cancel.
//!
//! Owns how connections begin (`startup`: TLS, authentication) and go on ([`connection`]), the encoding of rows and parameters ([`encode`]), the COPY formats ([`copy`]) and the mapping of errors to SQLSTATE
//! ([`sqlstate`]). Must not know planning, placement or storage. Messages come from the `pgwire` crate, as does the framing of the server's; what clients send is
//! read by our own decoder (`frontend`), and the connection's state machine is our own too, because results must stream and endless ones must flush as they go.
//! Called by `node`, which hands over a listening socket and a [`flowstone_coordinator::Client`].
//!
//! Invariants. A result is never collected before it is sent. What has been sent is flushed before anything is waited for. While a statement runs the
//! socket is watched, so that a client that goes away ends its statement. Where a password is asked for, no session is opened before it was right.

pub mod connection;
pub mod copy;
pub mod encode;
pub mod error;
mod frontend;
mod io;
pub mod server;
pub mod sqlstate;
mod startup;

pub use error::Error;
pub use server::{Security, serve};
