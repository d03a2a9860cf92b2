//! The state machine: [`State`] in memory, its snapshots on disk.
//!
//! Owns the snapshot file. Between snapshots the log is the durable form: at a start the newest snapshot is read and openraft applies the log after it.
//! Called by openraft; the coordinator reads the state through [`StateMachine::state`].
//!
//! Invariants. A snapshot file is complete or absent: it is written beside, synced, renamed, and the directory is synced. It carries a magic, a version and a
//! checksum; a file that does not check is refused by name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::room::is_full;
use flowstone_disk::Kind;
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::command::Reply;
use super::format::{self, SNAPSHOT_FORMAT};
use super::state::State;
use super::{OpenError, TypeConfig};

const MAGIC: &[u8; 8] = b"FLOWSNAP";

/// Pause between two tries to write to a full disk.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

type Meta = SnapshotMeta<u64, BasicNode>;

/// The state machine; clones share one state.
#[derive(Clone, Debug)]
pub struct StateMachine {
    core: Arc<Mutex<Core>>,
    path: Arc<PathBuf>,
}

#[derive(Debug, Default)]
struct Core {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    state: State,
    snapshots_built: u64,
    current: Option<(Meta, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct SnapshotFile {
    meta: Meta,
    state: Vec<u8>,
}

impl StateMachine {
    /// Opens the state machine whose snapshots are in `path`. Blocks on the file.
    ///
    /// # Errors
    /// [`OpenError`], naming the file.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let name = || path.display().to_string();
        let core = match std::fs::read(path) {
            Ok(bytes) => read_snapshot(&bytes, &name())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Core::default(),
            Err(source) => {
                return Err(OpenError::Io {
                    path: name(),
                    source,
                });
            }
        };
        Ok(Self {
            core: Arc::new(Mutex::new(core)),
            path: Arc::new(path.to_owned()),
        })
    }

    /// A copy of the state as of the last applied entry.
    #[must_use]
    pub fn state(&self) -> State {
        self.core.lock().state.clone()
    }

    /// The index of the last applied entry.
    pub(super) fn applied_index(&self) -> Option<u64> {
        self.core.lock().applied.map(|applied| applied.index)
    }

    /// Reads the state as of the last applied entry under its lock.
    pub(crate) fn with_state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.core.lock().state)
    }

    async fn write(&self, meta: Meta, state: Vec<u8>) -> Result<(), StorageError<u64>> {
        let path = Arc::clone(&self.path);
        let file = SnapshotFile { meta, state };
        let signature = file.meta.signature();
        let written = tokio::task::spawn_blocking(move || {
            write_when_there_is_room(&path, &file).map(|()| file)
        })
        .await
        .map_err(io::Error::other)
        .and_then(|result| result);
        let file = written.map_err(|error| {
            StorageIOError::write_snapshot(Some(signature), AnyError::new(&error))
        })?;
        self.core.lock().current = Some((file.meta, file.state));
        Ok(())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError<u64>> {
        let (meta, state) = {
            let mut core = self.core.lock();
            core.snapshots_built += 1;
            let index = core.applied.map_or(0, |applied| applied.index);
            let meta = Meta {
                last_log_id: core.applied,
                last_membership: core.membership.clone(),
                snapshot_id: format!("{index}-{}", core.snapshots_built),
            };
            (meta, core.state.clone())
        };
        let state = format::encode(&state).map_err(|error| {
            StorageIOError::write_snapshot(Some(meta.signature()), AnyError::new(&error))
        })?;
        self.write(meta.clone(), state.clone()).await?;
        Ok(Snapshot {
            meta,
            snapshot: Box::new(state),
        })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), StorageError<u64>> {
        let core = self.core.lock();
        Ok((core.applied, core.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut core = self.core.lock();
        let mut replies = Vec::new();
        for entry in entries {
            core.applied = Some(entry.log_id);
            let mut reply = Reply::default();
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(proposal) => {
                    reply.results = proposal
                        .commands
                        .iter()
                        .map(|command| core.state.apply(command))
                        .collect();
                }
                EntryPayload::Membership(membership) => {
                    core.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            replies.push(reply);
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), StorageError<u64>> {
        let state = format::decode(SNAPSHOT_FORMAT, &snapshot).map_err(|error| {
            StorageIOError::read_snapshot(Some(meta.signature()), AnyError::new(&error))
        })?;
        self.write(meta.clone(), *snapshot).await?;
        let mut core = self.core.lock();
        core.applied = meta.last_log_id;
        core.membership = meta.last_membership.clone();
        core.state = state;
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<TypeConfig>>, StorageError<u64>> {
        let core = self.core.lock();
        Ok(core.current.as_ref().map(|(meta, state)| Snapshot {
            meta: meta.clone(),
            snapshot: Box::new(state.clone()),
        }))
    }
}

/// Writes, and waits while the disk is full: for openraft a failed write is the end.
fn write_when_there_is_room(path: &Path, file: &SnapshotFile) -> io::Result<()> {
    loop {
        match write_snapshot(path, file) {
            Err(error) if is_full(&error) => {
                tracing::warn!(path = %path.display(), %error, "a Raft snapshot waits for room on the disk");
                std::thread::sleep(FULL_DISK_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Magic, version, CRC32 of the rest, then [`SnapshotFile`] as postcard.
fn write_snapshot(path: &Path, file: &SnapshotFile) -> io::Result<()> {
    let payload = postcard::to_stdvec(file).map_err(io::Error::other)?;
    let mut content = Vec::with_capacity(MAGIC.len() + 8 + payload.len());
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(&SNAPSHOT_FORMAT.to_le_bytes());
    content.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    content.extend_from_slice(&payload);
    flowstone_disk::replace(path, &content, Kind::RaftSnapshot)
}

fn read_snapshot(bytes: &[u8], path: &str) -> Result<Core, OpenError> {
    let damaged = |reason: &str| OpenError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let short = || damaged("it is cut short");
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(short)?;
    if magic != MAGIC {
        return Err(damaged("it is not a snapshot of the coordinator"));
    }
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let found = u32::from_le_bytes(*version);
    if found > SNAPSHOT_FORMAT {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: SNAPSHOT_FORMAT,
        });
    }
    let (checksum, payload) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    if crc32fast::hash(payload) != u32::from_le_bytes(*checksum) {
        return Err(damaged("its checksum does not match"));
    }
    let file: SnapshotFile =
        postcard::from_bytes(payload).map_err(|error| damaged(&error.to_string()))?;
    let state = format::decode(found, &file.state).map_err(|error| damaged(&error.to_string()))?;
    // What is handed out is in the newest format, whatever was read.
    let current = format::encode(&state).map_err(|error| damaged(&error.to_string()))?;
    Ok(Core {
        applied: file.meta.last_log_id,
        membership: file.meta.last_membership.clone(),
        state,
        snapshots_built: 0,
        current: Some((file.meta, current)),
    })
}
