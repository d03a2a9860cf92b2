//! The coordinator: decides what exists, what time it is, and what is durable; and gives client protocols their sessions.
//!
//! Owns the Raft group with the catalog, bindings, commit points and secrets ([`raft`]), the oracle ([`oracle`]), the epoch loop ([`epochs`]), read holds
//! ([`holds`]), sessions with their transactions ([`session`]), what they may hold ([`memory`]), who may open them ([`auth`]), and what errors are to a client ([`report`]). Must not know row
//! data, operators or client protocols: rows stream from the worker to the session that asked, never through the coordinator's loop.
//! Called by `pgwire` and `console` through [`Client`] and [`Session`], and started by `node`. Talks to the worker only in the messages of `proto`.
//!
//! Invariants. A result is observable only when its binding is durable. Epochs strictly increase over the life of the deployment. The catalog that sessions see
//! is durable, and the worker was told of it before they see it.

pub mod auth;
pub mod client;
mod coordinator;
pub mod epochs;
pub mod error;
pub mod holds;
mod install;
mod locks;
pub mod memory;
pub mod oracle;
pub mod outcome;
mod planning;
pub mod raft;
mod registry;
pub mod report;
mod room;
pub mod secrets;
pub mod session;
mod shared;

pub use auth::{AuthError, AuthPolicy, Authenticator};
pub use client::{Client, Config, Metrics, Overview, Readiness, SessionOptions, start};
pub use error::{Error, SessionError, TransactionError};
pub use flowstone_sql::catalog::Machine;
pub use memory::{Held, MemoryError, SessionMemory, size_of_batch};
pub use outcome::{
    CopyIn, CopyOptions, Description, Notice, Outcome, RowStream, Severity, TransactionStatus,
};
pub use report::Report;
pub use session::{Notices, Session, statement_bytes};
