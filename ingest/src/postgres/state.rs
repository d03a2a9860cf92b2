//! What the tasks of one PostgreSQL source share.
//!
//! Owns the logs of all tables, the positions, how much may be buffered, and the rule of how far upstream may forget. Must not know sockets.
//!
//! Invariants. `received` only grows and is always between transactions. `confirm` never passes a position that a restart could ask for: the last
//! committed binding, and the position of every snapshot that is not in a commit point. A take has ended once the failures that it knows of and the rows
//! that are in error after it are on disk. No file is read, written or removed with the lock held. What is read from disk because a take ends in it is in
//! memory when the take cuts, as it is by then: a segment that changed while it was read is read again, and none goes back to disk in between.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flowstone_proto::message::{Failure as Failed, PostgresConnection, SourceStatus, SourceTable};
use flowstone_storage::{DeltaTables, StagedSnapshot};
use flowstone_types::{Clock, ObjectId, SourcePosition, TypeError};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::manifest::{Manifest, ManifestFile};
use super::pgoutput::{DecodeError, Message, Relation, decode};
use super::table_log::{Committed, Failure, Snapshot, TableLog};
use crate::row_errors::{ErrorChanges, SavedRowErrors};
use crate::transactions::{
    BufferLimits, Candidate, Closed, Offers, Part, Pressure, SpillDirectory, Spilled, Straddling,
    Usage, Written, candidates,
};
use crate::{Error, SourceEvent, state_file};

/// The durable error of one table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TableError {
    table: ObjectId,
    message: String,
    keep: u64,
    position: u64,
}

/// The file of durable table errors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ErrorsFile {
    version: u32,
    errors: Vec<TableError>,
}

/// The file of rows in error. Rows in error stand in their collections, and nothing but this file says so: that it is there, and is the newest, is noted in
/// the manifest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct RowErrorsFile {
    version: u32,
    /// How often it was saved. The manifest is written after it, so it may be one ahead.
    #[serde(default)]
    saves: u64,
    tables: Vec<(ObjectId, SavedRowErrors)>,
}

/// Version of [`super::manifest::Manifest`], [`ErrorsFile`] and [`RowErrorsFile`]. 2: snapshots with rows in error. 3: how often rows in error were saved.
pub(crate) const FILE_VERSION: u32 = 3;

/// Pause before a disk that refused is asked again.
const DISK_RETRY: std::time::Duration = std::time::Duration::from_millis(500);

/// Where the source is bound: everything up to an LSN, and these snapshots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding<'a> {
    pub(crate) position: u64,
    pub(crate) snapshots: &'a [ObjectId],
}

/// What has to be written before what a take gave may get into a commit point.
#[derive(Debug)]
struct Unsaved {
    errors: Option<ErrorsFile>,
    row_errors: Option<RowErrorsFile>,
    /// How many table errors were recorded when it was put together.
    errors_recorded: u64,
}

/// What a take has of one table.
#[derive(Debug)]
pub(crate) struct TakenTable {
    pub(crate) table: ObjectId,
    pub(crate) snapshot: Option<StagedSnapshot>,
    /// How the errors of rows change, as far as it is known.
    pub(crate) row_errors: ErrorChanges,
    pub(crate) parts: VecDeque<Part>,
}

/// What a take has, and the tables that failed in it.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) tables: VecDeque<TakenTable>,
    pub(crate) failures: Vec<(ObjectId, Failure)>,
}

/// What came of trying to take a binding.
#[derive(Debug)]
enum Attempt {
    /// It is not there yet.
    Lacking,
    /// This has to be read from disk before.
    Straddling(Vec<(ObjectId, Straddling)>),
    Taken(Taken),
}

/// What changes while the source runs.
#[derive(Debug, Default)]
pub(crate) struct State {
    tables: Vec<TableLog>,
    by_oid: HashMap<u32, Vec<usize>>,
    relations: HashMap<u32, Arc<Relation>>,
    /// The commit record of the transaction that is being received.
    open: Option<u64>,
    /// Bytes received for it that are of some table.
    open_bytes: u64,
    /// What was received and not taken.
    offers: Offers,
    limits: BufferLimits,
    /// Every transaction that ends at or before this was received.
    pub(crate) received: u64,
    /// Newest position known upstream.
    pub(crate) upstream: u64,
    pub(crate) taken: u64,
    pub(crate) acknowledged: u64,
    /// End of the last transaction that changed a table.
    last_data: u64,
    confirmed: u64,
    /// The largest position a take waits for.
    waiting_for: u64,
    /// Why the source as a whole cannot go on.
    pub(crate) fatal: Option<Failed>,
    errors: ErrorsFile,
    /// How many table errors were recorded since the process started, and how many of them are on disk.
    errors_recorded: u64,
    errors_saved: u64,
    /// What was in error when the process started, until the log of the table is there.
    saved: Vec<(ObjectId, SavedRowErrors)>,
    /// How often rows in error were saved.
    row_error_saves: u64,
    /// Whether tables of the manifest have got into a commit point.
    pub(crate) manifest_stale: bool,
}

impl State {
    pub(crate) fn tables(&self) -> &[TableLog] {
        &self.tables
    }

    pub(crate) fn table_mut(&mut self, id: ObjectId) -> Option<&mut TableLog> {
        self.tables.iter_mut().find(|log| log.table.id == id)
    }

    /// Adds the log of a table, with the error it had in an earlier run.
    pub(crate) fn add_table(&mut self, mut log: TableLog) {
        if let Some(error) = self
            .errors
            .errors
            .iter()
            .find(|error| error.table == log.table.id)
        {
            log.fail_at(Failure {
                message: error.message.clone(),
                keep: error.keep,
                position: error.position,
            });
        }
        let saved = self
            .saved
            .extract_if(.., |(table, _)| *table == log.table.id)
            .last();
        // A snapshot that is not in a commit point brings its rows in error with it.
        if let (Some((_, saved)), Snapshot::Committed) = (saved, &log.snapshot) {
            log.restore_row_errors(saved);
        }
        self.tables.retain(|other| other.table.id != log.table.id);
        self.tables.push(log);
        self.index();
    }

    pub(crate) fn remove_tables(&mut self, ids: &[ObjectId]) {
        self.tables.retain(|log| !ids.contains(&log.table.id));
        self.errors
            .errors
            .retain(|error| !ids.contains(&error.table));
        self.index();
    }

    fn index(&mut self) {
        self.by_oid.clear();
        for (index, log) in self.tables.iter().enumerate() {
            self.by_oid
                .entry(log.table.upstream_oid)
                .or_default()
                .push(index);
        }
    }

    /// The position below which no new table needs anything: what may be forgotten never passes it while the table is pending.
    pub(crate) const fn floor(&self) -> u64 {
        self.confirmed
    }

    /// Where the source starts to receive, and what is taken already.
    pub(crate) fn start_at(&mut self, received: u64, taken: u64) {
        self.received = self.received.max(received);
        self.upstream = self.upstream.max(received);
        self.taken = self.taken.max(taken);
        self.acknowledged = self.acknowledged.max(taken);
        self.confirmed = self.confirmed.max(received);
    }

    /// Takes in one message of the stream. Returns the tables that failed.
    pub(crate) fn apply(&mut self, bytes: &[u8]) -> Result<Vec<(ObjectId, Failure)>, DecodeError> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match decode(bytes)? {
            Message::Begin { commit_lsn } => {
                self.open = Some(commit_lsn);
                self.open_bytes = 0;
            }
            Message::Commit {
                commit_lsn,
                end_lsn,
            } => return Ok(self.commit(commit_lsn, end_lsn)),
            Message::Relation(relation) => {
                self.logs(relation.oid, false, |log| log.set_relation(&relation));
                self.relations.insert(relation.oid, Arc::new(relation));
            }
            Message::Insert { oid, new } => {
                self.change(oid, size, |log, relation| log.insert(relation, &new, size))?
            }
            Message::Update { oid, old, new } => self.change(oid, size, |log, relation| {
                log.update(relation, old.as_ref(), &new, size)
            })?,
            Message::Delete { oid, old } => {
                self.change(oid, size, |log, relation| log.delete(relation, &old, size))?
            }
            Message::Truncate { oids } => oids
                .into_iter()
                .for_each(|oid| self.logs(oid, true, TableLog::truncate)),
            Message::Other => {}
        }
        Ok(Vec::new())
    }

    /// Calls `act` for the logs of a relation; for changes only those that want the open transaction.
    fn logs(&mut self, oid: u32, only_wanted: bool, mut act: impl FnMut(&mut TableLog)) {
        let open = self.open.unwrap_or(u64::MAX);
        for index in self.by_oid.get(&oid).into_iter().flatten() {
            if let Some(log) = self
                .tables
                .get_mut(*index)
                .filter(|log| !only_wanted || log.wants(open))
            {
                act(log);
            }
        }
    }

    fn change(
        &mut self,
        oid: u32,
        size: u64,
        mut act: impl FnMut(&mut TableLog, &Relation),
    ) -> Result<(), DecodeError> {
        let relation = Arc::clone(
            self.relations
                .get(&oid)
                .ok_or(DecodeError("a change of a relation that was not described"))?,
        );
        let mut wanted = false;
        self.logs(oid, true, |log| {
            wanted = true;
            act(log, &relation);
        });
        if wanted {
            self.open_bytes = self.open_bytes.saturating_add(size);
        }
        Ok(())
    }

    fn commit(&mut self, commit_lsn: u64, end_lsn: u64) -> Vec<(ObjectId, Failure)> {
        self.open = None;
        let mut failed = Vec::new();
        for log in &mut self.tables {
            match log.commit(commit_lsn, end_lsn) {
                Committed::Nothing => {}
                Committed::Changed => self.last_data = self.last_data.max(end_lsn),
                Committed::Failed(failure) => {
                    self.last_data = self.last_data.max(end_lsn);
                    failed.push((log.table.id, failure));
                }
            }
        }
        self.received = self.received.max(end_lsn);
        self.upstream = self.upstream.max(end_lsn);
        let bytes = std::mem::take(&mut self.open_bytes);
        if bytes > 0 {
            let end = SourcePosition::PostgresLsn(end_lsn);
            self.offers.add(end, bytes);
        }
        self.record_failures(&failed);
        failed
    }

    /// Remembers table errors, so that after a restart they are found at the same positions. They are on disk before the next take gives anything.
    pub(crate) fn record_failures(&mut self, failures: &[(ObjectId, Failure)]) {
        for (table, failure) in failures {
            let known = &mut self.errors.errors;
            if known.iter().any(|error| error.table == *table) {
                continue;
            }
            let Failure {
                message,
                keep,
                position,
            } = failure.clone();
            known.push(TableError {
                table: *table,
                message,
                keep,
                position,
            });
            self.errors_recorded += 1;
        }
    }

    /// What is not on disk, if anything.
    fn unsaved(&self) -> Option<Unsaved> {
        let errors = (self.errors_recorded > self.errors_saved).then(|| ErrorsFile {
            version: FILE_VERSION,
            ..self.errors.clone()
        });
        let changed = self.tables.iter().any(|log| log.row_errors.unsaved());
        let row_errors = changed.then(|| RowErrorsFile {
            version: FILE_VERSION,
            saves: self.row_error_saves + 1,
            tables: self
                .tables
                .iter()
                .filter(|log| !log.row_errors.nothing_to_save())
                .map(|log| (log.table.id, log.row_errors.save()))
                .collect(),
        });
        (errors.is_some() || row_errors.is_some()).then_some(Unsaved {
            errors,
            row_errors,
            errors_recorded: self.errors_recorded,
        })
    }

    /// Notes what is on disk. Only takes change which rows are in error, and one waits for this.
    fn set_saved(&mut self, errors_recorded: u64, row_error_saves: Option<u64>) {
        self.errors_saved = self.errors_saved.max(errors_recorded);
        if let Some(saves) = row_error_saves {
            self.row_error_saves = saves;
            for log in &mut self.tables {
                log.row_errors.set_saved();
            }
        }
    }

    /// The server has sent everything up to `end_lsn`.
    pub(crate) fn keepalive(&mut self, end_lsn: u64) {
        self.upstream = self.upstream.max(end_lsn);
        if self.open.is_none() {
            self.received = self.received.max(end_lsn);
        }
    }

    /// The connection was lost: what did not commit comes again.
    pub(crate) fn roll_back(&mut self) {
        self.open = None;
        self.open_bytes = 0;
        self.relations.clear();
        self.tables.iter_mut().for_each(TableLog::roll_back);
    }

    /// A table cannot go on, for a reason that is not in the stream: everything received so far, and up to `position`, still counts.
    pub(crate) fn fail_table(
        &mut self,
        id: ObjectId,
        message: String,
        position: u64,
    ) -> Option<Failure> {
        let position = position.max(self.received);
        let log = self.table_mut(id).filter(|log| log.failure().is_none())?;
        let failure = Failure {
            message,
            keep: position,
            position,
        };
        log.fail_at(failure.clone());
        self.last_data = self.last_data.max(position);
        self.record_failures(&[(id, failure.clone())]);
        Some(failure)
    }

    /// How far upstream may forget.
    pub(crate) fn confirm(&mut self) -> u64 {
        // If nothing changed since what was acknowledged, an idle source lets go of everything that others wrote.
        let base = if self.acknowledged >= self.last_data {
            self.received
        } else {
            self.acknowledged
        };
        let held = self.tables.iter().filter_map(|log| match &log.snapshot {
            Snapshot::Pending { floor } => Some(*floor),
            Snapshot::Staged { position, .. } | Snapshot::Bound { position, .. } => Some(*position),
            Snapshot::Committed => None,
        });
        let allowed = held.fold(base, u64::min);
        self.confirmed = self.confirmed.max(allowed);
        self.confirmed
    }

    pub(crate) fn acknowledge(&mut self, position: u64) {
        self.acknowledged = self.acknowledged.max(position);
        for log in &mut self.tables {
            // An earlier epoch may have been bound at the same position: only a later one proves that this one was committed.
            if matches!(log.snapshot, Snapshot::Bound { bound_at, .. } if bound_at < position) {
                log.snapshot = Snapshot::Committed;
                self.manifest_stale = true;
            }
            log.row_errors.acknowledge(position);
        }
    }

    /// Whether the socket may be read, and what has to happen before if not.
    pub(crate) fn pressure(&self) -> Pressure {
        let mut usage = Usage::default();
        for log in &self.tables {
            usage.add(log.transactions.usage());
        }
        let takeable = !self.offers.is_empty() && self.waiting_for <= self.received;
        self.limits.pressure(usage, takeable)
    }

    /// What should go to disk.
    pub(crate) fn candidates(&mut self) -> Result<Vec<Candidate>, TypeError> {
        let logs = self.tables.iter_mut();
        let tables = logs.map(|log| (log.table.id, &mut log.transactions));
        candidates(tables, self.limits)
    }

    /// What is on disk.
    pub(crate) fn set_spilled(&mut self, written: &mut Written) {
        for (candidate, file) in written.files.drain(..) {
            if let Some(log) = self.table_mut(candidate.table) {
                log.transactions.set_spilled(&candidate, file);
            }
        }
    }

    /// No take waits with what was read from disk for it.
    fn unpin(&mut self) {
        self.tables
            .iter_mut()
            .for_each(|log| log.transactions.unpin());
    }

    /// The position up to which transactions are offered to be taken at once.
    pub(crate) fn offered(&self) -> u64 {
        match self.offers.within(self.limits.memory_bytes) {
            // What was bound before a restart is bound again, however much it is.
            Some(SourcePosition::PostgresLsn(position)) => {
                self.taken.max(*position).min(self.received)
            }
            _ => self.received,
        }
    }

    /// Whether something that a binding names is not there yet.
    fn lacks(&self, binding: &Binding<'_>) -> bool {
        let pending = |log: &TableLog| {
            binding.snapshots.contains(&log.table.id)
                && matches!(log.snapshot, Snapshot::Pending { .. })
        };
        self.received < binding.position || self.tables.iter().any(pending)
    }

    /// Whether a binding can be taken, or never will be; it is waited for otherwise.
    fn is_ready(&mut self, binding: &Binding<'_>) -> bool {
        let ready = self.fatal.is_some() || !self.lacks(binding);
        if !ready {
            self.waiting_for = self.waiting_for.max(binding.position);
        }
        ready
    }

    /// Takes what a binding names, or nothing if it is not there yet.
    fn try_take(&mut self, binding: &Binding<'_>) -> Result<Attempt, Error> {
        if self.lacks(binding) {
            if let Some(fatal) = &self.fatal {
                return Err(Error::Failed {
                    message: fatal.message.clone(),
                    hint: fatal.hint.clone(),
                });
            }
            self.waiting_for = self.waiting_for.max(binding.position);
            return Ok(Attempt::Lacking);
        }
        let straddling = self.straddling(binding);
        if !straddling.is_empty() {
            return Ok(Attempt::Straddling(straddling));
        }
        let mut tables = VecDeque::new();
        let mut failures = Vec::new();
        for log in &mut self.tables {
            let mut taken = TakenTable {
                table: log.table.id,
                snapshot: None,
                row_errors: Vec::new(),
                parts: VecDeque::new(),
            };
            if binding.snapshots.contains(&log.table.id) {
                failures.extend(bind_snapshot(log, binding.position, &mut taken)?);
            }
            if log.can_be_cut(false) {
                taken.parts = log.cut(binding.position)?;
                tables.push_back(taken);
            }
        }
        self.taken = self.taken.max(binding.position);
        let position = SourcePosition::PostgresLsn(binding.position);
        self.offers.take(&position);
        self.record_failures(&failures);
        Ok(Attempt::Taken(Taken { tables, failures }))
    }

    /// What is on disk and has to be in memory before a binding can be taken.
    fn straddling(&self, binding: &Binding<'_>) -> Vec<(ObjectId, Straddling)> {
        let position = SourcePosition::PostgresLsn(binding.position);
        let cut = |log: &&TableLog| log.can_be_cut(binding.snapshots.contains(&log.table.id));
        self.tables
            .iter()
            .filter(cut)
            .filter_map(|log| Some((log.table.id, log.transactions.straddling(&position)?)))
            .collect()
    }
}

/// The snapshot of a table becomes its content at a bound position. Returns the failure of the table if it has none.
fn bind_snapshot(
    log: &mut TableLog,
    bound_at: u64,
    taken: &mut TakenTable,
) -> Result<Option<(ObjectId, Failure)>, Error> {
    let table = log.table.id;
    let mut failed = None;
    match std::mem::replace(&mut log.snapshot, Snapshot::Committed) {
        Snapshot::Staged { position, .. } if position > bound_at => {
            return Err(Error::Invariant(format!(
                "snapshot of {table} at {position} was bound at {bound_at}"
            )));
        }
        Snapshot::Staged { position, content } => {
            match content.into_parts() {
                Ok((snapshot, errors)) => {
                    taken.row_errors = log.row_errors.install(errors, bound_at);
                    log.counters.taken += snapshot.rows;
                    taken.snapshot = Some(snapshot);
                }
                Err(message) => {
                    let failure = Failure {
                        message,
                        keep: position,
                        position,
                    };
                    log.fail_at(failure.clone());
                    failed = Some((table, failure));
                }
            }
            log.snapshot = Snapshot::Bound { position, bound_at };
        }
        Snapshot::Pending { floor } => {
            log.snapshot = Snapshot::Bound {
                position: floor,
                bound_at,
            }
        }
        before => log.snapshot = before,
    }
    Ok(failed)
}

/// What the tasks of one source share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: ObjectId,
    pub(crate) connection: PostgresConnection,
    pub(crate) publication: String,
    pub(crate) slot: String,
    pub(crate) delta: DeltaTables,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: mpsc::Sender<SourceEvent>,
    pub(crate) cancel: CancellationToken,
    state: Mutex<State>,
    pub(crate) spill: Arc<SpillDirectory>,
    /// Segments that are being written to disk.
    pub(crate) writing: TaskTracker,
    pub(crate) manifest: ManifestFile,
    errors_path: PathBuf,
    row_errors_path: PathBuf,
    /// Counts what a waiting take cares about: positions, snapshots, the end.
    changed: watch::Sender<u64>,
    /// Something was taken or acknowledged, or a take was given up.
    pub(crate) moved: Notify,
    /// Tables were added.
    pub(crate) added: Notify,
}

/// What was read from disk for a take, which keeps it in memory for as long as the take goes on. There is one take at a time.
#[derive(Debug)]
struct Pins<'a>(&'a Shared);

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        self.0.lock().unpin();
        // It may be what there was no room for.
        self.0.moved.notify_one();
    }
}

impl Shared {
    /// Reads what the source has on disk. Blocks.
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one struct, filled once"
    )]
    pub(crate) fn new(
        id: ObjectId,
        connection: PostgresConnection,
        publication: String,
        slot: String,
        delta: DeltaTables,
        clock: Arc<dyn Clock>,
        events: mpsc::Sender<SourceEvent>,
        state_dir: &std::path::Path,
        limits: BufferLimits,
    ) -> Result<Self, Error> {
        let manifest = ManifestFile::open(state_dir.join(format!("{id}-manifest.json")))?;
        let errors_path = state_dir.join(format!("{id}-errors.json"));
        let errors: Option<ErrorsFile> = state_file::read(&errors_path)?;
        let row_errors_path = state_dir.join(format!("{id}-row-errors.json"));
        let row_errors: Option<RowErrorsFile> = state_file::read(&row_errors_path)?;
        let versions = manifest
            .get()
            .map(|manifest| manifest.version)
            .into_iter()
            .chain(errors.iter().map(|errors| errors.version))
            .chain(row_errors.iter().map(|errors| errors.version));
        if let Some(version) = versions.into_iter().find(|version| *version > FILE_VERSION) {
            return Err(Error::Failed {
                message: format!(
                    "source state has format version {version}, which is newer than this release"
                ),
                hint: None,
            });
        }
        let noted = manifest
            .get()
            .map_or(0, |manifest| manifest.row_error_saves);
        if let Some(reason) = unfit(row_errors.as_ref(), noted) {
            return Err(Error::Damaged {
                path: row_errors_path,
                reason,
            });
        }
        let RowErrorsFile { saves, tables, .. } = row_errors.unwrap_or_default();
        let state = State {
            errors: errors.unwrap_or_default(),
            saved: tables,
            row_error_saves: saves,
            limits,
            ..State::default()
        };
        Ok(Self {
            id,
            connection,
            publication,
            slot,
            delta,
            clock,
            events,
            cancel: CancellationToken::new(),
            state: Mutex::new(state),
            spill: Arc::new(SpillDirectory::new(state_dir, id)),
            writing: TaskTracker::new(),
            manifest,
            errors_path,
            row_errors_path,
            changed: watch::channel(0).0,
            moved: Notify::new(),
            added: Notify::new(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes waiting takes and the reporter.
    pub(crate) fn bump(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Makes durable which tables and rows are in error after a take, before what it gave can get into a commit point. A disk that refuses is waited for.
    ///
    /// The file of rows in error comes first, then the manifest notes it: a crash in between leaves a file that is one ahead, never one that is behind. The
    /// note costs two more syncs, each time that rows get into error or out of it, which is rare; a note that is made later or not at all would leave a
    /// commit point whose rows in error nobody would miss.
    pub(crate) async fn save_errors(&self) -> Result<(), Error> {
        loop {
            let Some(unsaved) = self.lock().unsaved() else {
                return Ok(());
            };
            let recorded = unsaved.errors_recorded;
            let saves = unsaved.row_errors.as_ref().map(|file| file.saves);
            let Err(error) = self.write_errors(unsaved).await else {
                self.lock().set_saved(recorded, saves);
                return Ok(());
            };
            tracing::error!(source = %self.id, %error, "tables and rows in error could not be made durable; trying again");
            tokio::select! {
                () = self.cancel.cancelled() => return Err(Error::Stopped),
                () = tokio::time::sleep(DISK_RETRY) => {}
            }
        }
    }

    async fn write_errors(&self, unsaved: Unsaved) -> Result<(), Error> {
        let saves = unsaved.row_errors.as_ref().map(|file| file.saves);
        let (errors_path, row_errors_path) =
            (self.errors_path.clone(), self.row_errors_path.clone());
        let files = move || {
            if let Some(file) = &unsaved.errors {
                state_file::write(&errors_path, file)?;
            }
            if let Some(file) = &unsaved.row_errors {
                state_file::write(&row_errors_path, file)?;
            }
            Ok(())
        };
        let note = |manifest: Option<Manifest>| {
            Some(Manifest {
                version: FILE_VERSION,
                row_error_saves: saves?,
                ..manifest?
            })
        };
        self.manifest.change_after(files, note).await
    }

    /// Sends an event, waiting for room.
    pub(crate) async fn send(&self, event: SourceEvent) {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {}
            sent = self.events.send(event) => {
                if sent.is_err() {
                    self.cancel.cancel();
                }
            }
        }
    }

    pub(crate) async fn status(&self, object: ObjectId, status: SourceStatus) {
        self.send(SourceEvent::Status { object, status }).await;
    }

    /// Reports tables that failed.
    pub(crate) async fn report_failures(&self, failures: Vec<(ObjectId, Failure)>) {
        for (object, failure) in failures {
            tracing::warn!(source = %self.id, table = %object, error = failure.message, "source table failed");
            let hint = Some("Drop the table and add it again.".to_owned());
            self.status(
                object,
                SourceStatus::Failed {
                    error: failure.message,
                    hint,
                },
            )
            .await;
        }
    }

    /// Takes what a binding names, as [`crate::SourceHandle::take_pieces`] says.
    pub(crate) async fn take(&self, binding: &Binding<'_>) -> Result<Taken, Error> {
        let mut changed = self.subscribe();
        let _pins = Pins(self);
        loop {
            let attempt = self.lock().try_take(binding);
            self.moved.notify_one();
            match attempt? {
                Attempt::Taken(taken) => {
                    // More may be offered now.
                    self.bump();
                    return Ok(taken);
                }
                Attempt::Straddling(segments) => {
                    // Whatever has changed while it was read is found to be straddling again.
                    for (table, segment) in segments {
                        let loaded = self.load(&segment.spilled).await?;
                        if let Some(log) = self.lock().table_mut(table) {
                            log.transactions.set_loaded(&segment, loaded);
                        }
                    }
                }
                Attempt::Lacking => tokio::select! {
                    () = self.cancel.cancelled() => return Err(Error::Stopped),
                    result = changed.changed() => result.map_err(|_| Error::Stopped)?,
                },
            }
        }
    }

    /// Reads changes from disk. A disk that refuses is waited for.
    pub(crate) async fn load(&self, spilled: &Spilled) -> Result<Closed, Error> {
        loop {
            match spilled.load().await {
                Err(error) if error.retryable() => {
                    tracing::error!(source = %self.id, %error, "changes could not be read from disk; trying again");
                }
                outcome => return outcome,
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Err(Error::Stopped),
                () = tokio::time::sleep(DISK_RETRY) => {}
            }
        }
    }

    /// Waits until [`Shared::take`] would not wait.
    pub(crate) async fn ready(&self, binding: &Binding<'_>) {
        let mut changed = self.subscribe();
        loop {
            if self.lock().is_ready(binding) {
                return;
            }
            self.moved.notify_one();
            tokio::select! {
                () = self.cancel.cancelled() => return,
                result = changed.changed() => if result.is_err() { return },
            }
        }
    }

    /// The tables whose snapshot has yet to be read.
    pub(crate) fn pending(&self) -> Vec<(SourceTable, arrow_schema::SchemaRef)> {
        let state = self.lock();
        let pending = state
            .tables()
            .iter()
            .filter(|log| matches!(log.snapshot, Snapshot::Pending { .. }));
        pending
            .map(|log| (log.table.clone(), Arc::clone(&log.schema)))
            .collect()
    }
}

/// Why the file of rows in error is not the one that belongs to a manifest which says how often it was saved, if it is not.
fn unfit(file: Option<&RowErrorsFile>, noted: u64) -> Option<String> {
    match file {
        None if noted > 0 => Some("it is missing".to_owned()),
        Some(RowErrorsFile { saves, .. }) if *saves < noted => Some(format!(
            "it is older than the manifest: it was saved {saves} times, not {noted}"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow_schema::Schema;
    use flowstone_proto::message::SslMode;
    use flowstone_types::clock::SystemClock;
    use flowstone_types::{SourceOp, SqlType};

    use super::*;
    use crate::rows::Value;
    use crate::transactions::{Event, Spiller};

    const ID: ObjectId = ObjectId::User(1);

    /// A source whose state is in `dir`.
    async fn shared(dir: &std::path::Path) -> Result<Shared, Error> {
        let connection = PostgresConnection {
            host: "localhost".to_owned(),
            port: 1,
            user: "u".to_owned(),
            password: None,
            database: "d".to_owned(),
            ssl_mode: SslMode::Disable,
            ssl_root: None,
        };
        let delta = DeltaTables::open(&dir.join("delta")).await.unwrap();
        let (events, _) = mpsc::channel(1);
        Shared::new(
            ID,
            connection,
            "p".to_owned(),
            "s".to_owned(),
            delta,
            Arc::new(SystemClock),
            events,
            dir,
            BufferLimits::default(),
        )
    }

    fn manifest(row_error_saves: u64) -> Manifest {
        Manifest {
            version: FILE_VERSION,
            system: "1".to_owned(),
            timeline: "1".to_owned(),
            position: 7,
            tables: Vec::new(),
            membership: HashMap::new(),
            row_error_saves,
        }
    }

    fn rows(saves: u64) -> RowErrorsFile {
        RowErrorsFile {
            version: FILE_VERSION,
            saves,
            tables: Vec::new(),
        }
    }

    /// Adds a table with the transactions 1 and 2 and one that is open, each of a row.
    fn add_straddled(state: &mut State, id: ObjectId, upstream_oid: u32) {
        let table = SourceTable {
            id,
            upstream_schema: "public".to_owned(),
            upstream_name: "t".to_owned(),
            upstream_oid,
            columns: Vec::new(),
            key: vec![0],
        };
        let schema = Arc::new(Schema::new(vec![SqlType::Int4.to_field("id", false)]));
        let mut log = TableLog::new(table, schema, Snapshot::Committed, 0);
        for number in 1..=3_u64 {
            let id = number.to_string();
            let values = std::iter::once(Value::Text(id.as_bytes()));
            let transactions = &mut log.transactions;
            transactions.append(SourceOp::Insert, values, 10).unwrap();
            if number < 3 {
                transactions.commit(&SourcePosition::PostgresLsn(number));
            }
        }
        state.add_table(log);
    }

    /// Writes to disk what may go there.
    async fn spill(source: &Shared) {
        let chosen = source.lock().candidates().unwrap();
        if chosen.is_empty() {
            return;
        }
        let directory = Arc::clone(&source.spill);
        let mut spiller = Spiller::new(directory, &source.writing, &source.cancel);
        spiller.start(chosen);
        let Event::Written(mut written) = spiller.event().await else {
            panic!("nothing was written");
        };
        assert!(written.failure.is_none(), "{written:?}");
        source.lock().set_spilled(&mut written);
    }

    #[tokio::test]
    async fn a_take_ends_whatever_is_written_to_disk_while_it_reads() {
        let dir = tempfile::tempdir().unwrap();
        let source = Arc::new(shared(dir.path()).await.unwrap());
        {
            let mut state = source.lock();
            state.limits.memory_bytes = 0;
            state.received = 2;
            for (id, oid) in [(2, 2), (3, 3), (4, 4)] {
                add_straddled(&mut state, ObjectId::User(id), oid);
            }
        }
        spill(&source).await;
        let binding = Binding {
            position: 1,
            snapshots: &[],
        };
        assert_eq!(source.lock().straddling(&binding).len(), 3);
        let beside = Arc::clone(&source);
        let spilling = tokio::spawn(async move {
            loop {
                spill(&beside).await;
                tokio::task::yield_now().await;
            }
        });
        let taken = tokio::time::timeout(Duration::from_secs(30), source.take(&binding)).await;
        spilling.abort();
        let taken = taken.expect("the take ends").unwrap();
        assert_eq!(taken.tables.len(), 3);
        for mut table in taken.tables {
            let Some(Part::Buffered(closed)) = table.parts.pop_front() else {
                panic!("it was read before");
            };
            let (changes, _) = closed.into_changes();
            assert_eq!(changes.ops, [SourceOp::Insert]);
            assert!(table.parts.is_empty());
        }
        // Nothing has to stay in memory for the take any more.
        spill(&source).await;
        let state = source.lock();
        let in_memory = |log: &&TableLog| log.transactions.usage().memory > 0;
        assert_eq!(state.tables().iter().filter(in_memory).count(), 0);
    }

    #[tokio::test]
    async fn rows_in_error_that_are_missing_or_older_than_the_manifest_are_refused() {
        for (noted, found, fits) in [
            (0, None, true),
            (0, Some(0), true),
            (2, None, false),
            (2, Some(0), false),
            (2, Some(1), false),
            (2, Some(2), true),
            // A crash before the note.
            (2, Some(3), true),
            (0, Some(1), true),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(format!("{ID}-row-errors.json"));
            let noting = dir.path().join(format!("{ID}-manifest.json"));
            state_file::write(&noting, &manifest(noted)).unwrap();
            if let Some(saves) = found {
                state_file::write(&path, &rows(saves)).unwrap();
            }
            match shared(dir.path()).await {
                Ok(_) => assert!(fits, "{noted} {found:?}"),
                Err(Error::Damaged { path: blamed, .. }) => {
                    assert!(!fits, "{noted} {found:?}");
                    assert_eq!(blamed, path);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn directories_of_earlier_releases_say_nothing_of_saves() {
        let dir = tempfile::tempdir().unwrap();
        let old = r#"{"version": 2, "system": "1", "timeline": "1", "position": 7, "tables": [], "membership": {}}"#;
        std::fs::write(dir.path().join(format!("{ID}-manifest.json")), old).unwrap();
        let path = dir.path().join(format!("{ID}-row-errors.json"));
        for rows in [None, Some(r#"{"version": 2, "tables": []}"#)] {
            if let Some(rows) = rows {
                std::fs::write(&path, rows).unwrap();
            }
            shared(dir.path()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_saved_is_noted_after_it_and_not_saved_again() {
        let dir = tempfile::tempdir().unwrap();
        state_file::write(
            &dir.path().join(format!("{ID}-manifest.json")),
            &manifest(4),
        )
        .unwrap();
        state_file::write(&dir.path().join(format!("{ID}-row-errors.json")), &rows(5)).unwrap();
        let source = shared(dir.path()).await.unwrap();
        assert!(source.lock().unsaved().is_none());
        let unsaved = Unsaved {
            errors: None,
            row_errors: Some(rows(6)),
            errors_recorded: 0,
        };
        source.write_errors(unsaved).await.unwrap();
        let noted = source.manifest.get().map(|noted| noted.row_error_saves);
        assert_eq!(noted, Some(6));
        // The error of a table is written once, and the manifest has nothing to say of it.
        let failure = Failure {
            message: "no".to_owned(),
            keep: 3,
            position: 3,
        };
        for _again in 0..2 {
            source
                .lock()
                .record_failures(&[(ObjectId::User(2), failure.clone())]);
        }
        assert_eq!(source.lock().errors_recorded, 1);
        source.save_errors().await.unwrap();
        assert!(source.lock().unsaved().is_none());
        let file: Option<ErrorsFile> = state_file::read(&source.errors_path).unwrap();
        assert_eq!(file.map(|file| file.errors.len()), Some(1));
        drop(source);
        shared(dir.path()).await.unwrap();
    }
}
