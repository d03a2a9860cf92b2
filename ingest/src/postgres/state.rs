//! What the tasks of one PostgreSQL source share.
//!
//! Owns the logs of all tables, the positions, and the rule of how far upstream may forget. Must not know sockets.
//!
//! Invariants. `received` only grows and is always between transactions. `confirm` never passes a position that a restart could ask for: the last
//! committed binding, and the position of every snapshot that is not in a commit point.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flowstone_proto::message::{
    Failure as Failed, PostgresConnection, SourceBinding, SourceStatus, SourceTable,
};
use flowstone_storage::DeltaTables;
use flowstone_types::{Clock, ObjectId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::manifest::ManifestFile;
use super::pgoutput::{DecodeError, Message, Relation, decode};
use super::row_errors::SavedRowErrors;
use super::table_log::{Committed, Failure, Snapshot, TableLog};
use crate::{Error, SourceEvent, TableChanges, TableData, state_file};

/// Bytes received that may wait to be taken. Beyond it the socket is not read, and PostgreSQL waits.
const BUFFER_BYTES_MAX: u64 = 256 * 1024 * 1024;

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

/// The file of rows in error.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct RowErrorsFile {
    version: u32,
    tables: Vec<(ObjectId, SavedRowErrors)>,
}

/// Version of [`super::manifest::Manifest`], [`ErrorsFile`] and [`RowErrorsFile`]. 2: snapshots with rows in error.
pub(crate) const FILE_VERSION: u32 = 2;

/// Pause before what must be durable is written again to a disk that refused it.
const WRITE_RETRY: std::time::Duration = std::time::Duration::from_millis(500);

/// What a take gives, and the tables that failed in it.
type Taken = (Vec<TableChanges>, Vec<(ObjectId, Failure)>);

/// What changes while the source runs.
#[derive(Debug, Default)]
pub(crate) struct State {
    tables: Vec<TableLog>,
    by_oid: HashMap<u32, Vec<usize>>,
    relations: HashMap<u32, Arc<Relation>>,
    /// The commit record of the transaction that is being received.
    open: Option<u64>,
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
    /// What was in error when the process started, until the log of the table is there.
    saved: Vec<(ObjectId, SavedRowErrors)>,
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
            Message::Begin { commit_lsn } => self.open = Some(commit_lsn),
            Message::Commit {
                commit_lsn,
                end_lsn,
            } => return Ok(self.commit(commit_lsn, end_lsn)),
            Message::Relation(relation) => {
                self.logs(relation.oid, false, |log| log.set_relation(&relation));
                self.relations.insert(relation.oid, Arc::new(relation));
            }
            Message::Insert { oid, new } => {
                self.change(oid, |log, relation| log.insert(relation, &new, size))?
            }
            Message::Update { oid, old, new } => self.change(oid, |log, relation| {
                log.update(relation, old.as_ref(), &new, size)
            })?,
            Message::Delete { oid, old } => {
                self.change(oid, |log, relation| log.delete(relation, &old, size))?
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
        mut act: impl FnMut(&mut TableLog, &Relation),
    ) -> Result<(), DecodeError> {
        let relation = Arc::clone(
            self.relations
                .get(&oid)
                .ok_or(DecodeError("a change of a relation that was not described"))?,
        );
        self.logs(oid, true, |log| act(log, &relation));
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
        failed
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

    /// Whether the socket should not be read for now.
    pub(crate) fn is_full(&self) -> bool {
        self.received > self.taken
            && self.waiting_for <= self.received
            && self.tables.iter().map(TableLog::bytes).sum::<u64>() > BUFFER_BYTES_MAX
    }

    /// Takes what a binding names, or nothing if it is not there yet.
    fn try_take(&mut self, binding: &SourceBinding) -> Result<Option<Taken>, Error> {
        let named = |log: &TableLog| binding.snapshots.contains(&log.table.id);
        let missing = self
            .tables
            .iter()
            .any(|log| named(log) && matches!(log.snapshot, Snapshot::Pending { .. }));
        if missing || self.received < binding.position {
            if let Some(fatal) = &self.fatal {
                return Err(Error::Failed {
                    message: fatal.message.clone(),
                    hint: fatal.hint.clone(),
                });
            }
            self.waiting_for = self.waiting_for.max(binding.position);
            return Ok(None);
        }
        let mut results = Vec::new();
        let mut failures = Vec::new();
        for log in &mut self.tables {
            let table = log.table.id;
            let mut row_errors = Vec::new();
            if named(log) {
                let bound_at = binding.position;
                match std::mem::replace(&mut log.snapshot, Snapshot::Committed) {
                    Snapshot::Staged { position, .. } if position > bound_at => {
                        return Err(Error::Invariant(format!(
                            "snapshot of {table} at {position} was bound at {bound_at}"
                        )));
                    }
                    Snapshot::Staged { position, content } => {
                        match content.into_parts() {
                            Ok((snapshot, errors)) => {
                                row_errors = log.row_errors.install(errors, bound_at);
                                log.counters.taken += snapshot.rows;
                                results.push(TableChanges {
                                    table,
                                    data: TableData::Snapshot(snapshot),
                                });
                            }
                            Err(message) => {
                                let failure = Failure {
                                    message,
                                    keep: position,
                                    position,
                                };
                                log.fail_at(failure.clone());
                                failures.push((table, failure));
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
            }
            let cut = log
                .cut(binding.position)
                .map_err(|error| Error::Invariant(error.to_string()))?;
            results.extend(cut.changes.into_iter().map(|changes| TableChanges {
                table,
                data: TableData::Changes(changes),
            }));
            row_errors.extend(cut.row_errors);
            if !row_errors.is_empty() {
                results.push(TableChanges {
                    table,
                    data: TableData::RowErrors(row_errors),
                });
            }
            failures.extend(cut.failed.map(|failure| (table, failure)));
            results.extend(cut.error.map(|error| TableChanges {
                table,
                data: TableData::Error(error),
            }));
        }
        self.taken = self.taken.max(binding.position);
        Ok(Some((results, failures)))
    }
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
    pub(crate) manifest: ManifestFile,
    errors_path: PathBuf,
    row_errors_path: PathBuf,
    /// Counts what a waiting take cares about: positions, snapshots, the end.
    changed: watch::Sender<u64>,
    /// Something was taken or acknowledged.
    pub(crate) moved: Notify,
    /// Tables were added.
    pub(crate) added: Notify,
}

impl Shared {
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
        let state = State {
            errors: errors.unwrap_or_default(),
            saved: row_errors.unwrap_or_default().tables,
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

    /// Makes table errors durable, so that after a restart they are found at the same positions. Called with the lock held: nothing may be taken
    /// in between. Errors are rare.
    pub(crate) fn record_failures(&self, state: &mut State, failures: &[(ObjectId, Failure)]) {
        let mut added = false;
        for (table, failure) in failures {
            if state
                .errors
                .errors
                .iter()
                .all(|error| error.table != *table)
            {
                let Failure {
                    message,
                    keep,
                    position,
                } = failure.clone();
                state.errors.errors.push(TableError {
                    table: *table,
                    message,
                    keep,
                    position,
                });
                added = true;
            }
        }
        if added {
            state.errors.version = FILE_VERSION;
            if let Err(error) = state_file::write(&self.errors_path, &state.errors) {
                tracing::error!(source = %self.id, %error, "errors of tables could not be made durable");
            }
        }
    }

    /// Makes durable which rows are in error after a take, before what it gave can get into a commit point. A disk that refuses is waited for.
    async fn save_row_errors(&self) -> Result<(), Error> {
        loop {
            let written = {
                let mut state = self.lock();
                if !state.tables.iter().any(|log| log.row_errors.unsaved()) {
                    return Ok(());
                }
                let file = RowErrorsFile {
                    version: FILE_VERSION,
                    tables: state
                        .tables
                        .iter()
                        .filter(|log| !log.row_errors.nothing_to_save())
                        .map(|log| (log.table.id, log.row_errors.save()))
                        .collect(),
                };
                let written = state_file::write(&self.row_errors_path, &file);
                if written.is_ok() {
                    for log in &mut state.tables {
                        log.row_errors.set_saved();
                    }
                }
                written
            };
            let Err(error) = written else { return Ok(()) };
            tracing::error!(source = %self.id, %error, "rows in error could not be made durable; trying again");
            tokio::select! {
                () = self.cancel.cancelled() => return Err(Error::Stopped),
                () = tokio::time::sleep(WRITE_RETRY) => {}
            }
        }
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

    /// See [`crate::SourceHandle::take`].
    pub(crate) async fn take(&self, binding: &SourceBinding) -> Result<Vec<TableChanges>, Error> {
        let mut changed = self.subscribe();
        loop {
            let taken = {
                let mut state = self.lock();
                let taken = state.try_take(binding)?;
                if let Some((_, failures)) = &taken {
                    self.record_failures(&mut state, failures);
                }
                taken
            };
            self.moved.notify_one();
            if let Some((results, failures)) = taken {
                self.save_row_errors().await?;
                self.report_failures(failures).await;
                return Ok(results);
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Err(Error::Stopped),
                result = changed.changed() => result.map_err(|_| Error::Stopped)?,
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
