//! What sessions are given, part by part.
//!
//! Owns none of it: each part is the module's of its name, and knows of others what it is given. Made by `coordinator::start`. A session hands on to what works for it the
//! parts that it needs; who is no session's is never given all of them.

use std::sync::Arc;

use flowstone_sql::catalog::Machine;
use flowstone_types::Clock;

use crate::auth::AuthState;
use crate::catalog::{CatalogReader, CatalogTurns};
use crate::event::Events;
use crate::headroom::Headroom;
use crate::liveness::Liveness;
use crate::locks::WriteLocks;
use crate::memory::SessionsMemory;
use crate::numbers::Numbers;
use crate::raft::RaftNode;
use crate::registry::{Counters, SessionRegistry};
use crate::reported::Reported;
use crate::resizes::Resizes;
use crate::subscriptions::Subscriptions;
use crate::timeline::Timeline;
use crate::vault::Vault;
use crate::worker::Worker;

/// The parts of a running coordinator.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) machine: Machine,
    /// Where a change of the catalog becomes durable.
    pub(crate) raft: RaftNode,
    /// What the values of secrets are.
    pub(crate) vault: Vault,
    /// Whether there is room for what clients write.
    pub(crate) headroom: Headroom,
    /// Who may log in.
    pub(crate) auth: Arc<AuthState>,
    pub(crate) worker: Arc<Worker>,
    /// To the loop.
    pub(crate) events: Events,
    /// Whether anything is answered any more.
    pub(crate) liveness: Liveness,
    /// When reads read.
    pub(crate) timeline: Timeline,
    pub(crate) write_locks: WriteLocks,
    /// What exists.
    pub(crate) catalog: CatalogReader,
    /// The turns to change that.
    pub(crate) turns: CatalogTurns,
    /// Clusters whose change a statement waits for: nobody else changes them.
    pub(crate) resizes: Arc<Resizes>,
    pub(crate) reported: Arc<Reported>,
    pub(crate) sessions: SessionRegistry,
    /// What sessions hold.
    pub(crate) memory: SessionsMemory,
    /// The subscriptions that go on, by the requests that feed them.
    pub(crate) subscriptions: Subscriptions,
    pub(crate) counters: Counters,
    pub(crate) numbers: Arc<Numbers>,
    /// When the process started: milliseconds since the Unix epoch.
    pub(crate) started_ms: u64,
}
