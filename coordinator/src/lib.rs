//! The coordinator: decides what exists, what time it is, and what is durable; and gives client protocols their sessions.
//!
//! Owns the Raft group with the catalog, bindings, commit points and secrets ([`raft`]), the oracle ([`oracle`]), the epoch loop ([`epochs`]), read holds
//! ([`holds`]), sessions with their transactions ([`session`]), what they may hold ([`memory`]), who may open them ([`auth`]), and what errors are to a client ([`report`]). Must not know row
//! data, operators or client protocols: rows stream from the worker to the session that asked, never through the coordinator's loop.
//! Called by `pgwire`, `flight` and `console` through [`Client`] and [`Session`], and started by `node`. Talks to the worker only in the messages of `proto`.
//!
//! What sessions and the loop work on is a number of parts, each owned by one module (`catalog`, `timeline`, `worker`, `reported`, …: `parts` lists them), and handed by name to what
//! needs it. Modules refer to each other one way: the parts ← `planning`, `install` ← `session` and the loop (`coordinator`), which know nothing of each other ← [`client`].
//!
//! Invariants. A result is observable only when its binding is durable. Epochs strictly increase over the life of the deployment. The catalog that sessions see
//! is durable, and the worker was told of it before they see it.

pub mod auth;
mod catalog;
pub mod client;
mod config;
mod coordinator;
pub mod epochs;
pub mod error;
mod event;
mod headroom;
pub mod holds;
mod install;
mod limits;
mod liveness;
mod locks;
pub mod memory;
mod notices;
mod numbers;
pub mod oracle;
pub mod outcome;
mod parts;
mod planning;
pub mod raft;
mod registry;
pub mod report;
mod reported;
mod resizes;
mod room;
pub mod secrets;
pub mod session;
mod staged;
mod subscriptions;
mod timeline;
pub mod variables;
mod vault;
mod worker;

pub use auth::{AuthError, AuthPolicy, Authenticator};
pub use client::{Client, Metrics, Overview, Readiness, start};
pub use config::Config;
pub use error::{Error, SessionError, TransactionError};
pub use flowstone_sql::catalog::Machine;
pub use memory::{Held, MemoryError, SessionMemory, size_of_batch};
pub use notices::{Notice, Notices, Severity};
pub use outcome::{CopyIn, CopyOptions, Description, Outcome, RowStream, TransactionStatus};
pub use report::Report;
pub use session::{Session, SessionOptions, statement_bytes};
