//! What `node` gives the coordinator to start with: settings, and its clock.

use std::path::PathBuf;
use std::sync::Arc;

use flowstone_sql::catalog::Machine;
use flowstone_types::Clock;

use crate::auth::AuthPolicy;

/// What the coordinator is given.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its own directory is `coordinator` in here; the secret key is `secrets.key` unless told otherwise.
    pub data_dir: PathBuf,
    /// Where the key of secrets is kept, if not in the data directory.
    pub secret_key_file: Option<PathBuf>,
    /// Who must say a password.
    pub auth: AuthPolicy,
    /// Bytes that all sessions together may hold ([`crate::memory`]).
    pub session_memory_bytes: usize,
    /// Milliseconds between two group commits.
    pub commit_interval_ms: u64,
    /// The threads of the worker, and those that clusters may have.
    pub machine: Machine,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}
