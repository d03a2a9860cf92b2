//! The worker: everything that holds rows.
//!
//! Owns the engine loop ([`engine`]), the shard threads ([`shards`]), reads of one key beside them (`direct`), hydration, one-shot queries ([`query`]),
//! subscriptions ([`subscription`]), staged writes ([`mod@write`]) and group commit ([`commit`]). Must not know catalog rules, SQL text, placement or client protocols.
//! Called by `node`, which gives it one end of the transport; everything else it learns from commands.
//!
//! Invariants. Commands are acted on in order. Nothing of an epoch is sent to a client before `BindingDurable` covers it. The local log is synced before
//! an epoch counts as complete. No code on the engine loop evaluates rows: ticks run on shard threads, queries on the runtime's blocking pool.

pub mod commit;
mod direct;
pub mod engine;
pub mod error;
pub mod query;
pub mod shards;
pub mod subscription;
pub mod write;

pub use engine::{Config, start};
pub use error::Error;
