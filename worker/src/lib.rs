//! The worker: everything that holds rows.
//!
//! Owns three parts, each with its own state, and the router between them and the coordinator ([`engine`]): the feed (`feed`) has sources, staged writes and the
//! local log, and says what an epoch changes; the compute (`compute`) has the shard threads, runs ticks, and answers reads; the keep (`keep`) has what
//! was computed until it is in the Delta tables, in a task of its own. One-shot queries ([`query`]) and the evaluation of writes (`write`) are theirs together. Plans are tried before
//! anything is made of them (`trial`).
//! Must not know catalog rules, SQL text, placement or client protocols. Called by `node`, which gives it one end of the transport; everything else it learns
//! from commands.
//!
//! Invariants. Commands are acted on in order, but for reads and the like, which have a task of their own (`engine::front`), and those that depend on nothing that
//! waits (`engine::order`). Nothing of an epoch is sent to a client before `BindingDurable` covers it. The local log is synced before an epoch counts as complete.
//! No code on the router evaluates rows: ticks run on shard threads, queries on the runtime's blocking pool.

mod compute;
mod consolidation;
pub mod engine;
pub mod error;
mod event;
mod feed;
mod keep;
mod log;
pub mod query;
mod retry;
mod size;
mod trial;
mod write;

pub use engine::{Config, start};
pub use error::Error;
