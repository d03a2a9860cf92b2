//! The running Raft node and the proposer in front of it.
//!
//! Owns the openraft instance and one task that collects queued commands into one [`Proposal`]: openraft 0.9 writes and syncs one entry at a time, so grouping
//! has to happen before it. Called by `coordinator::start` and whoever proposes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flowstone_disk::Kind;
use flowstone_proto::message::RequestError;
use flowstone_types::ObjectId;
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::command::{Command, Proposal, Refusal};
use super::log_store::LogStore;
use super::network::NoNetwork;
use super::state::{Cleanup, STATE_FORMAT, State};
use super::state_machine::StateMachine;
use super::{OpenError, TypeConfig};

/// The one voter.
const NODE_ID: u64 = 1;
/// An empty file beside the log, made when the log has its first entries.
const BEGUN: &str = "begun";
/// Commands waiting to be written. Proposers wait when it is full: the disk is then the bottleneck.
const PROPOSALS_IN_FLIGHT: usize = 1024;
/// Most commands in one entry.
const COMMANDS_PER_ENTRY_MAX: usize = 256;
/// Entries between two Raft snapshots; also bounds what is replayed at a start.
const ENTRIES_PER_SNAPSHOT: u64 = 5_000;
/// How long a start may take before it is an error: one voter elects itself in milliseconds.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a proposal did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The state machine refused it; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The group does not accept writes any more: it is shutting down, or its disk failed. Whether the command happened is not known.
    #[error("the coordinator's log is not available: {0}")]
    Unavailable(String),
}

#[derive(Debug)]
struct Queued {
    command: Command,
    answer: oneshot::Sender<Result<(), ProposeError>>,
}

/// A handle to the running node; clones share it.
#[derive(Clone)]
pub struct RaftNode {
    queue: mpsc::Sender<Queued>,
    raft: Raft<TypeConfig>,
    machine: StateMachine,
    stalls: watch::Receiver<Option<RequestError>>,
}

impl std::fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftNode").finish_non_exhaustive()
    }
}

/// What must be waited for after [`RaftNode::shutdown`] before the files may be opened again.
#[derive(Debug)]
pub struct RaftTasks {
    proposer: JoinHandle<()>,
    log_closed: oneshot::Receiver<()>,
}

impl RaftTasks {
    /// Waits until the log file is closed. Every [`RaftNode`] must have been dropped or shut down.
    pub async fn closed(self) {
        self.proposer.abort();
        // Aborted on purpose; what it was doing has been answered as unavailable.
        let _ = self.proposer.await;
        // An error means that the writer is gone already.
        let _ = self.log_closed.await;
    }
}

impl RaftNode {
    /// Opens the files in `directory` (created if missing), elects this node, and applies the log. `cluster_id` names a new deployment; an existing one keeps
    /// its own.
    ///
    /// # Errors
    /// [`OpenError`], naming the file that cannot be used.
    pub async fn start(
        directory: &Path,
        cluster_id: [u8; 16],
    ) -> Result<(Self, RaftTasks), OpenError> {
        let opened = {
            let directory = directory.to_owned();
            tokio::task::spawn_blocking(move || open_files(&directory)).await
        };
        let (log, log_closed, machine) =
            opened.map_err(|error| OpenError::Start(error.to_string()))??;
        let stalls = log.stalls();
        let begun = directory.join(BEGUN);
        let raft = start_raft(log, machine.clone())
            .await
            .map_err(OpenError::Start)?;
        let (queue, receiver) = mpsc::channel(PROPOSALS_IN_FLIGHT);
        let proposer = tokio::spawn(propose_queued(raft.clone(), receiver));
        let node = Self {
            queue,
            raft,
            machine,
            stalls,
        };
        // Applied means that everything in the log before it is applied as well.
        node.propose(Command::ClusterInit {
            format_version: STATE_FORMAT,
            cluster_id,
        })
        .await
        .map_err(|error| OpenError::Start(error.to_string()))?;
        remember_the_beginning(&begun).map_err(|source| OpenError::Io {
            path: begun.display().to_string(),
            source,
        })?;
        Ok((
            node,
            RaftTasks {
                proposer,
                log_closed,
            },
        ))
    }

    /// Proposes one command; resolves when it is on disk and applied.
    ///
    /// # Errors
    /// [`ProposeError`].
    ///
    /// # Cancel safety
    /// A command whose future was dropped may or may not happen.
    pub async fn propose(&self, command: Command) -> Result<(), ProposeError> {
        let stopped = || ProposeError::Unavailable("it has been shut down".to_owned());
        let (answer, answered) = oneshot::channel();
        self.queue
            .send(Queued { command, answer })
            .await
            .map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// Why proposals wait, if they do: the disk is full.
    #[must_use]
    pub fn stalled(&self) -> Option<RequestError> {
        self.stalls.borrow().clone()
    }

    /// Changes when [`RaftNode::stalled`] does.
    #[must_use]
    pub fn stalls(&self) -> watch::Receiver<Option<RequestError>> {
        self.stalls.clone()
    }

    /// A copy of the replicated state.
    #[must_use]
    pub fn state(&self) -> State {
        self.machine.state()
    }

    /// The encrypted value of a secret.
    #[must_use]
    pub fn secret(&self, id: ObjectId) -> Option<Vec<u8>> {
        self.machine
            .with_state(|state| state.secrets.get(&id).cloned())
    }

    /// What of the dropped objects has yet to be cleaned up.
    #[must_use]
    pub fn cleanup(&self, dropped: &[ObjectId]) -> BTreeMap<ObjectId, Cleanup> {
        self.machine.with_state(|state| {
            let found = dropped
                .iter()
                .filter_map(|id| Some((*id, state.cleanup.get(id)?.clone())));
            found.collect()
        })
    }

    /// Writes a Raft snapshot and cuts the log behind it, without waiting for either.
    ///
    /// # Errors
    /// [`ProposeError::Unavailable`].
    pub async fn trigger_snapshot(&self) -> Result<(), ProposeError> {
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(|error| ProposeError::Unavailable(error.to_string()))
    }

    /// The index of the newest log entry.
    #[must_use]
    pub fn last_log_index(&self) -> Option<u64> {
        self.raft.metrics().borrow().last_log_index
    }

    /// The index of the newest log entry that was cut away.
    #[cfg(test)]
    pub(crate) fn purged_log_index(&self) -> Option<u64> {
        self.raft
            .metrics()
            .borrow()
            .purged
            .map(|purged| purged.index)
    }

    /// Stops the group. Proposals after it are refused.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the Raft core ended abnormally");
        }
    }
}

fn open_files(
    directory: &Path,
) -> Result<(LogStore, oneshot::Receiver<()>, StateMachine), OpenError> {
    std::fs::create_dir_all(directory).map_err(|source| OpenError::Io {
        path: directory.display().to_string(),
        source,
    })?;
    let (log_path, snapshot_path) = (
        directory.join("raft-log.redb"),
        directory.join("raft-snapshot.bin"),
    );
    let begun = snapshot_path.exists() || directory.join(BEGUN).exists();
    let is_empty = std::fs::metadata(&log_path).map_or(true, |file| file.len() == 0);
    let damaged = |path: &Path, reason: &str| OpenError::Damaged {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    };
    if begun && is_empty {
        return Err(damaged(&log_path, "it is missing or empty"));
    }
    let (log, closed) = LogStore::open(&log_path)?;
    if begun && log.is_new() {
        return Err(damaged(&log_path, "what was in it is missing"));
    }
    let machine = StateMachine::open(&snapshot_path)?;
    if machine.applied_index() < log.purged_index() {
        let reason = "it is missing, or older than the log that goes on from it";
        return Err(damaged(&snapshot_path, reason));
    }
    Ok((log, closed, machine))
}

/// Notes that there is a log from now on: without this, a log that got lost would look like a new deployment.
fn remember_the_beginning(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    flowstone_disk::replace(path, b"", Kind::RaftBegun)
}

async fn start_raft(log: LogStore, machine: StateMachine) -> Result<Raft<TypeConfig>, String> {
    let config = Config {
        cluster_name: "coordinator".to_owned(),
        // Without peers only the first election waits for these.
        heartbeat_interval: 50,
        election_timeout_min: 150,
        election_timeout_max: 300,
        enable_heartbeat: false,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_PER_SNAPSHOT),
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        ..Config::default()
    };
    let config = config.validate().map_err(|error| error.to_string())?;
    let raft = Raft::new(NODE_ID, Arc::new(config), NoNetwork, log, machine)
        .await
        .map_err(|error| error.to_string())?;
    if !raft
        .is_initialized()
        .await
        .map_err(|error| error.to_string())?
    {
        let members = std::collections::BTreeMap::from([(NODE_ID, BasicNode::default())]);
        raft.initialize(members)
            .await
            .map_err(|error| error.to_string())?;
    } else {
        raft.trigger()
            .elect()
            .await
            .map_err(|error| error.to_string())?;
    }
    raft.wait(Some(START_TIMEOUT))
        .current_leader(NODE_ID, "the only voter leads")
        .await
        .map_err(|error| error.to_string())?;
    Ok(raft)
}

async fn propose_queued(raft: Raft<TypeConfig>, mut receiver: mpsc::Receiver<Queued>) {
    let mut waiting = Vec::new();
    while receiver
        .recv_many(&mut waiting, COMMANDS_PER_ENTRY_MAX)
        .await
        > 0
    {
        let (commands, answers): (Vec<_>, Vec<_>) = waiting
            .drain(..)
            .map(|queued| (queued.command, queued.answer))
            .unzip();
        match raft.client_write(Proposal { commands }).await {
            Ok(response) => {
                let mut results = response.data.results.into_iter();
                for answer in answers {
                    let result = results.next().unwrap_or_else(|| {
                        Err(Refusal::Invalid(
                            "the state machine gave no answer".to_owned(),
                        ))
                    });
                    // The proposer may be gone; the command stands.
                    let _ = answer.send(result.map_err(ProposeError::Refused));
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(ProposeError::Unavailable(error.to_string())));
                }
            }
        }
    }
}
