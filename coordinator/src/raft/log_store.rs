//! Raft's log, vote and committed pointer in one redb file.
//!
//! Owns the file and the thread that writes it. Entries since the last purge are also kept in memory (the log is cut at every snapshot), so reads never touch
//! the file. Called by openraft only.
//!
//! Invariants. All writes go through one thread in the order they were asked for; what is queued while a transaction is being written shares the next one and
//! its fsync. `LogFlushed` and `save_vote` answer only after that fsync. Every value carries a checksum, and every append says what the last entry is; a file
//! that does not check is refused by name.
//!
//! While the disk is full the writer waits and tries again: for openraft a failed write is the end. [`LogStore::stalls`] tells the others, who need not wait.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::room::is_full;
use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_proto::message::RequestError;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    AnyError, Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError,
    Vote,
};
use parking_lot::Mutex;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};

use super::{OpenError, TypeConfig};

/// Version of the file's layout and of the encoding of its values. 2: entries may change roles. 3: entries may say that
/// something failed or was cleaned up, and give items time zones. 4: positions in bindings say what kind they are. 5: entries
/// may change clusters and put items into them. 6: entries may make sinks and tables of messages.
/// Older files are read, and marked as of this version when opened.
pub const LOG_FORMAT: u32 = 6;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

const KEY_FORMAT: &str = "format";
const KEY_VOTE: &str = "vote";
const KEY_COMMITTED: &str = "committed";
const KEY_PURGED: &str = "purged";
/// The last entry. Files of the first releases lack it.
const KEY_LAST: &str = "last";

/// Jobs waiting for the writer. openraft waits for each append, so few are ever queued; when full, it waits.
const JOBS_IN_FLIGHT: usize = 64;

/// Pause between two tries to write to a full disk.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);

/// The log store; clones share one file.
#[derive(Clone, Debug)]
pub struct LogStore {
    cache: Arc<Mutex<Cache>>,
    jobs: mpsc::Sender<Job>,
    stalls: watch::Receiver<Option<RequestError>>,
}

#[derive(Debug, Default)]
struct Cache {
    entries: BTreeMap<u64, Entry<TypeConfig>>,
    vote: Option<Vote<u64>>,
    committed: Option<LogId<u64>>,
    purged: Option<LogId<u64>>,
}

impl Cache {
    fn last(&self) -> Option<LogId<u64>> {
        self.entries
            .last_key_value()
            .map(|(_, entry)| entry.log_id)
            .or(self.purged)
    }
}

enum Job {
    Append {
        entries: Vec<(u64, Vec<u8>)>,
        last: Vec<u8>,
        committed: Vec<u8>,
        flushed: LogFlushed<TypeConfig>,
    },
    Put {
        key: &'static str,
        value: Vec<u8>,
        done: oneshot::Sender<io::Result<()>>,
    },
    Truncate {
        from: u64,
        last: Vec<u8>,
        done: oneshot::Sender<io::Result<()>>,
    },
    Purge {
        up_to: u64,
        purged: Vec<u8>,
        done: oneshot::Sender<io::Result<()>>,
    },
}

impl Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Append { .. } => "Append",
            Self::Put { .. } => "Put",
            Self::Truncate { .. } => "Truncate",
            Self::Purge { .. } => "Purge",
        })
    }
}

impl LogStore {
    /// Opens or creates the log in `path` and reads it. The receiver resolves when every clone is dropped and the file is closed.
    ///
    /// Blocks on the file.
    ///
    /// # Errors
    /// [`OpenError`], naming the file.
    pub fn open(path: &Path) -> Result<(Self, oneshot::Receiver<()>), OpenError> {
        let name = path.display().to_string();
        // redb checks some of its structure by assertion: a damaged file must be an error here, not the end of the process.
        let opened = std::panic::catch_unwind(|| open_and_read(path)).unwrap_or_else(|_| {
            Err(OpenError::Damaged {
                path: name,
                reason: "its pages are inconsistent".to_owned(),
            })
        });
        let (database, cache) = opened?;
        let (jobs, receiver) = mpsc::channel(JOBS_IN_FLIGHT);
        let (closed, when_closed) = oneshot::channel();
        let (stalled, stalls) = watch::channel(None);
        let writer = Writer {
            path: path.to_owned(),
            database: Some(database),
            stalled,
        };
        std::thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || {
                writer.run(receiver);
                // Nobody may be waiting for it.
                let _ = closed.send(());
            })
            .map_err(|source| OpenError::Io {
                path: path.display().to_string(),
                source,
            })?;
        Ok((
            Self {
                cache: Arc::new(Mutex::new(cache)),
                jobs,
                stalls,
            },
            when_closed,
        ))
    }

    /// Why nothing is written for now, while that is so.
    #[must_use]
    pub fn stalls(&self) -> watch::Receiver<Option<RequestError>> {
        self.stalls.clone()
    }

    /// Whether nothing was ever written to it.
    pub(super) fn is_new(&self) -> bool {
        let cache = self.cache.lock();
        cache.vote.is_none() && cache.last().is_none()
    }

    /// The newest entry that was cut away: a snapshot has it.
    pub(super) fn purged_index(&self) -> Option<u64> {
        self.cache.lock().purged.map(|purged| purged.index)
    }

    async fn run(
        &self,
        make: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job,
    ) -> io::Result<()> {
        let (done, finished) = oneshot::channel();
        let gone = || io::Error::other("the raft log writer has stopped");
        self.jobs.send(make(done)).await.map_err(|_| gone())?;
        finished.await.map_err(|_| gone())?
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, StorageError<u64>> {
        let cache = self.cache.lock();
        Ok(cache
            .entries
            .range(range)
            .map(|(_, entry)| entry.clone())
            .collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError<u64>> {
        let cache = self.cache.lock();
        Ok(LogState {
            last_purged_log_id: cache.purged,
            last_log_id: cache.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let value = encode(vote).map_err(write_vote_error)?;
        self.cache.lock().vote = Some(*vote);
        self.run(|done| Job::Put {
            key: KEY_VOTE,
            value,
            done,
        })
        .await
        .map_err(|error| write_vote_error(error.to_string()))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        Ok(self.cache.lock().vote)
    }

    /// Kept in memory and written along with the next append: it only saves work after a restart, and must not cost an fsync of its own.
    async fn save_committed(
        &mut self,
        committed: Option<LogId<u64>>,
    ) -> Result<(), StorageError<u64>> {
        self.cache.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, StorageError<u64>> {
        Ok(self.cache.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        let (last, committed) = {
            let mut cache = self.cache.lock();
            for entry in entries {
                encoded.push((entry.log_id.index, encode(&entry).map_err(write_error)?));
                cache.entries.insert(entry.log_id.index, entry);
            }
            (
                encode(&cache.last()).map_err(write_error)?,
                encode(&cache.committed).map_err(write_error)?,
            )
        };
        self.jobs
            .send(Job::Append {
                entries: encoded,
                last,
                committed,
                flushed,
            })
            .await
            .map_err(|_| write_error("the raft log writer has stopped"))
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        let from = log_id.index;
        let last = {
            let mut cache = self.cache.lock();
            cache.entries.split_off(&from);
            encode(&cache.last()).map_err(write_error)?
        };
        self.run(|done| Job::Truncate { from, last, done })
            .await
            .map_err(|error| write_error(error.to_string()))
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        let up_to = log_id.index;
        let purged = encode(&Some(log_id)).map_err(write_error)?;
        {
            let mut cache = self.cache.lock();
            cache.entries = cache.entries.split_off(&(up_to + 1));
            cache.purged = Some(log_id);
        }
        self.run(|done| Job::Purge {
            up_to,
            purged,
            done,
        })
        .await
        .map_err(|error| write_error(error.to_string()))
    }
}

fn write_error(message: impl ToString) -> StorageError<u64> {
    StorageIOError::write_logs(AnyError::error(message)).into()
}

fn write_vote_error(message: impl ToString) -> StorageError<u64> {
    StorageIOError::write_vote(AnyError::error(message)).into()
}

/// CRC32 of the payload, then the payload.
fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let payload = postcard::to_stdvec(value).map_err(|error| error.to_string())?;
    let mut bytes = Vec::with_capacity(payload.len() + 4);
    bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (checksum, payload) = bytes
        .split_first_chunk::<4>()
        .ok_or_else(|| "a value is cut short".to_owned())?;
    if crc32fast::hash(payload) != u32::from_le_bytes(*checksum) {
        return Err("a checksum does not match".to_owned());
    }
    postcard::from_bytes(payload).map_err(|error| error.to_string())
}

fn open_and_read(path: &Path) -> Result<(Database, Cache), OpenError> {
    let name = || path.display().to_string();
    let damaged = |reason: String| OpenError::Damaged {
        path: name(),
        reason,
    };
    let database = Database::create(path).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => OpenError::Locked { path: name() },
        redb::DatabaseError::Storage(error) => unreadable(&name(), error.into()),
        other => damaged(other.to_string()),
    })?;
    initialize(&database).map_err(|error| unreadable(&name(), error))?;
    let cache = read_all(&database, &name())?;
    Ok((database, cache))
}

/// Whether the library says with this error that the content makes no sense.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

/// The operating system refuses, or the file is not as it was written.
fn unreadable(path: &str, error: redb::Error) -> OpenError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(source) if !is_damage(&source) => OpenError::Io { path, source },
        other => OpenError::Damaged {
            path,
            reason: other.to_string(),
        },
    }
}

fn initialize(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let older = match meta.get(KEY_FORMAT)? {
            None => true,
            Some(found) => found
                .value()
                .try_into()
                .is_ok_and(|bytes| u32::from_le_bytes(bytes) < LOG_FORMAT),
        };
        if older {
            meta.insert(KEY_FORMAT, LOG_FORMAT.to_le_bytes().as_slice())?;
        }
        transaction.open_table(LOG)?;
    }
    failpoint::reached(Kind::RaftLog, Step::Write).map_err(redb::Error::Io)?;
    transaction.commit()?;
    Ok(())
}

fn read_all(database: &Database, path: &str) -> Result<Cache, OpenError> {
    let damaged = |reason: String| OpenError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let storage = |error: redb::Error| unreadable(path, error);
    let transaction = database
        .begin_read()
        .map_err(|error| storage(error.into()))?;
    let meta = transaction
        .open_table(META)
        .map_err(|error| storage(error.into()))?;
    let get = |key: &str| -> Result<Option<Vec<u8>>, OpenError> {
        Ok(meta
            .get(key)
            .map_err(|error| storage(error.into()))?
            .map(|value| value.value().to_vec()))
    };
    let format = get(KEY_FORMAT)?
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_le_bytes)
        .ok_or_else(|| damaged("the format version is missing".to_owned()))?;
    if format > LOG_FORMAT {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found: format,
            known: LOG_FORMAT,
        });
    }
    let mut cache = Cache::default();
    if let Some(bytes) = get(KEY_VOTE)? {
        cache.vote = Some(decode(&bytes).map_err(damaged)?);
    }
    if let Some(bytes) = get(KEY_COMMITTED)? {
        cache.committed = decode(&bytes).map_err(damaged)?;
    }
    if let Some(bytes) = get(KEY_PURGED)? {
        cache.purged = decode(&bytes).map_err(damaged)?;
    }
    let log = transaction
        .open_table(LOG)
        .map_err(|error| storage(error.into()))?;
    let mut expected = cache.purged.map(|purged| purged.index + 1);
    for item in log.iter().map_err(|error| storage(error.into()))? {
        let (index, value) = item.map_err(|error| storage(error.into()))?;
        let index = index.value();
        let entry: Entry<TypeConfig> = decode(value.value()).map_err(damaged)?;
        if entry.log_id.index != index || expected.is_some_and(|expected| expected != index) {
            return Err(damaged(format!("log entry {index} is out of place")));
        }
        expected = Some(index + 1);
        cache.entries.insert(index, entry);
    }
    if let Some(bytes) = get(KEY_LAST)? {
        let last: Option<LogId<u64>> = decode(&bytes).map_err(damaged)?;
        if last != cache.last() {
            return Err(damaged("its last entries are missing".to_owned()));
        }
    }
    Ok(cache)
}

/// What the thread that writes has.
struct Writer {
    path: PathBuf,
    /// `None` after a failed write: redb wants to be opened again then.
    database: Option<Database>,
    stalled: watch::Sender<Option<RequestError>>,
}

impl Writer {
    fn run(mut self, mut receiver: mpsc::Receiver<Job>) {
        while let Some(first) = receiver.blocking_recv() {
            let mut jobs = vec![first];
            while let Ok(job) = receiver.try_recv() {
                jobs.push(job);
            }
            let outcome = self
                .write_when_there_is_room(&jobs)
                .map_err(|error| error.to_string());
            answer(jobs, &outcome);
        }
    }

    /// Writes, and waits while the disk is full. Writing the same again is harmless: whether a failed commit reached the disk does not matter.
    fn write_when_there_is_room(&mut self, jobs: &[Job]) -> Result<(), redb::Error> {
        loop {
            let error = match self.write(jobs) {
                Ok(()) => {
                    if self.stalled.send_replace(None).is_some() {
                        tracing::info!(path = %self.path.display(), "the disk has room again");
                    }
                    return Ok(());
                }
                Err(redb::Error::Io(error)) if is_full(&error) => error,
                Err(error) => return Err(error),
            };
            let message = format!("could not write file \"{}\": {error}", self.path.display());
            let full = Some(RequestError::Storage {
                message,
                full: true,
            });
            if self.stalled.send_replace(full).is_none() {
                tracing::error!(path = %self.path.display(), %error, "the disk is full: writes are refused until there is room");
            }
            std::thread::sleep(FULL_DISK_PAUSE);
        }
    }

    fn write(&mut self, jobs: &[Job]) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => Database::open(&self.path)?,
        };
        write_together(&database, jobs)?;
        self.database = Some(database);
        Ok(())
    }
}

fn answer(jobs: Vec<Job>, outcome: &Result<(), String>) {
    for job in jobs {
        let result = outcome.clone().map_err(io::Error::other);
        match job {
            Job::Append { flushed, .. } => flushed.log_io_completed(result),
            Job::Put { done, .. } | Job::Truncate { done, .. } | Job::Purge { done, .. } => {
                // The asker may have been cancelled; the write stands.
                let _ = done.send(result);
            }
        }
    }
}

fn write_together(database: &Database, jobs: &[Job]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut log = transaction.open_table(LOG)?;
        for job in jobs {
            match job {
                Job::Append {
                    entries,
                    last,
                    committed,
                    ..
                } => {
                    for (index, value) in entries {
                        log.insert(index, value.as_slice())?;
                    }
                    meta.insert(KEY_LAST, last.as_slice())?;
                    meta.insert(KEY_COMMITTED, committed.as_slice())?;
                }
                Job::Put { key, value, .. } => {
                    meta.insert(*key, value.as_slice())?;
                }
                Job::Truncate { from, last, .. } => {
                    log.retain_in(*from.., |_, _| false)?;
                    meta.insert(KEY_LAST, last.as_slice())?;
                }
                Job::Purge { up_to, purged, .. } => {
                    log.retain_in(..=*up_to, |_, _| false)?;
                    meta.insert(KEY_PURGED, purged.as_slice())?;
                }
            }
        }
    }
    failpoint::reached(Kind::RaftLog, Step::Write).map_err(redb::Error::Io)?;
    transaction.commit()?;
    failpoint::reached(Kind::RaftLog, Step::Tell).map_err(redb::Error::Io)?;
    Ok(())
}
