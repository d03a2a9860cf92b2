//! Arrow Flight SQL: statements, prepared statements, bulk ingest, catalog metadata and endless subscriptions as streams of record batches.
//!
//! Owns the gRPC service (`service`), who may call it (`auth`), the sessions behind bearer tokens, transactions and prepared statements (`sessions`), how rows and schemas look on the
//! wire (`wire`) and come from it (`convert`), bulk ingest (`ingest`), the metadata commands (`catalog`, `info`) and the mapping of errors to gRPC
//! status (`status`). Must not know planning, placement or storage. The messages and the encoding of batches come from the `arrow-flight` crate.
//! Called by `node`, which hands over a listening socket and a [`flowstone_coordinator::Client`].
//!
//! Invariants. A result is never collected before it is sent: one batch is in flight at a time, and the client's flow control holds the worker back. Dropping
//! a response ends its query. What reads is run when its ticket is redeemed, what writes when its `FlightInfo` is asked for, so that a client that does not
//! look at the empty result has still written. Where a password is asked for, nothing is done for those who have not said theirs, or a token that they got for it.

mod auth;
mod catalog;
mod convert;
mod error;
mod inbox;
mod info;
mod ingest;
mod listener;
mod prepared;
mod query;
mod server;
mod service;
mod sessions;
pub mod status;
mod ticket;
mod upload;
mod wire;

pub use error::Error;
pub use listener::PLAINTEXT_REFUSED;
pub use server::serve;
