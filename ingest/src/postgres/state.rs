//! What the tasks of one PostgreSQL source share.
//!
//! Owns the positions, what the messages of the stream are to which table, and the rule of how far upstream may forget. The logs of all tables and the lock
//! around it all are those of every source: [`crate::logs`], [`crate::capture`]. Must not know sockets.
//!
//! Invariants. `received` only grows and is always between transactions. `confirm` never passes a position that a restart could ask for: the last
//! committed binding, and the position of every snapshot that is not in a commit point.

use std::collections::HashMap;
use std::sync::Arc;

use flowstone_proto::message::{Failure as Failed, PostgresConnection, SourceTable};
use flowstone_storage::DeltaTables;
use flowstone_types::{ObjectId, SourcePosition};

use super::manifest::Manifest;
use super::pgoutput::{DecodeError, Message, Relation, decode};
use super::table_log::{Committed, Snapshot, TableLog};
use crate::alterable::Alterable;
use crate::binding::Position;
use crate::logs::Logs;
use crate::table_log::Failure;
use crate::transactions::Pressure;
use crate::{Error, capture};

/// Positions are LSNs.
impl Position for u64 {
    fn of(position: &SourcePosition) -> Result<&Self, Error> {
        match position {
            SourcePosition::PostgresLsn(lsn) => Ok(lsn),
            other => Err(Error::Invariant(format!(
                "position {other} is not one of a PostgreSQL source"
            ))),
        }
    }

    fn to_source(&self) -> SourcePosition {
        SourcePosition::PostgresLsn(*self)
    }

    fn ordinal(&self) -> u64 {
        *self
    }
}

/// Where the source is bound: everything up to an LSN, and these snapshots.
pub(crate) type Binding<'a> = crate::binding::Binding<'a, u64>;

/// What the tasks of one source share.
pub(crate) type Shared = capture::Shared<State>;

/// What they share beyond what those of every source do.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) connection: Alterable<PostgresConnection>,
    pub(crate) publication: String,
    pub(crate) slot: String,
    pub(crate) delta: DeltaTables,
}

/// What changes while the source runs.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) logs: Logs<TableLog>,
    by_oid: HashMap<u32, Vec<usize>>,
    relations: HashMap<u32, Arc<Relation>>,
    /// The commit record of the transaction that is being received.
    open: Option<u64>,
    /// Bytes received for it that are of some table.
    open_bytes: u64,
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
    /// Whether tables of the manifest have got into a commit point.
    pub(crate) manifest_stale: bool,
}

impl capture::State for State {
    type Position = u64;
    type Log = TableLog;
    type Manifest = Manifest;
    type Own = Own;

    fn logs(&self) -> &Logs<TableLog> {
        &self.logs
    }

    fn logs_mut(&mut self) -> &mut Logs<TableLog> {
        &mut self.logs
    }

    fn fatal(&self) -> Option<&Failed> {
        self.fatal.as_ref()
    }

    fn has_received(&self, position: &u64) -> bool {
        self.received >= *position
    }

    fn wait_for(&mut self, binding: &Binding<'_>) {
        self.waiting_for = self.waiting_for.max(*binding.position);
    }

    fn set_taken(&mut self, position: &u64) {
        self.taken = self.taken.max(*position);
    }
}

impl State {
    pub(crate) fn tables(&self) -> &[TableLog] {
        self.logs.tables()
    }

    pub(crate) fn table_mut(&mut self, id: ObjectId) -> Option<&mut TableLog> {
        self.logs.table_mut(id)
    }

    /// Adds the log of a table, with the error it had in an earlier run.
    pub(crate) fn add_table(&mut self, log: TableLog) {
        let committed_at = log.committed_at();
        self.logs.add(log, committed_at);
        self.index();
    }

    pub(crate) fn remove_tables(&mut self, ids: &[ObjectId]) {
        self.logs.remove(ids);
        self.index();
    }

    fn index(&mut self) {
        self.by_oid.clear();
        for (index, log) in self.logs.tables().iter().enumerate() {
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
                self.each_log(relation.oid, false, |log| log.set_relation(&relation));
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
                .for_each(|oid| self.each_log(oid, true, TableLog::truncate)),
            Message::Other => {}
        }
        Ok(Vec::new())
    }

    /// Calls `act` for the logs of a relation; for changes only those that want the open transaction.
    fn each_log(&mut self, oid: u32, only_wanted: bool, mut act: impl FnMut(&mut TableLog)) {
        let open = self.open.unwrap_or(u64::MAX);
        for index in self.by_oid.get(&oid).into_iter().flatten() {
            if let Some(log) = self
                .logs
                .tables_mut()
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
        self.each_log(oid, true, |log| {
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
        for log in self.logs.tables_mut() {
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
            self.logs.offers.add(end, bytes);
        }
        for (table, failure) in &failed {
            self.logs.record_failure(*table, failure);
        }
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
        self.open_bytes = 0;
        self.relations.clear();
        self.logs
            .tables_mut()
            .iter_mut()
            .for_each(TableLog::roll_back);
    }

    /// A table cannot go on, for a reason that is not in the stream: everything received so far, and up to `position`, still counts.
    pub(crate) fn fail_table(
        &mut self,
        id: ObjectId,
        message: String,
        position: u64,
    ) -> Option<Failure> {
        let position = position.max(self.received);
        let log = self
            .table_mut(id)
            .filter(|log| log.account.failure().is_none())?;
        let failure = Failure {
            message,
            keep: Some(position),
            offsets: None,
            position,
        };
        log.account.fail_at(failure.clone());
        self.last_data = self.last_data.max(position);
        self.logs.record_failure(id, &failure);
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
        let held = self.tables().iter().filter_map(|log| match &log.snapshot {
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
        for log in self.logs.tables_mut() {
            // An earlier epoch may have been bound at the same position: only a later one proves that this one was committed.
            if matches!(log.snapshot, Snapshot::Bound { bound_at, .. } if bound_at < position) {
                log.snapshot = Snapshot::Committed;
                self.manifest_stale = true;
            }
            log.account.row_errors.acknowledge(position);
        }
    }

    /// Whether the socket may be read, and what has to happen before if not.
    pub(crate) fn pressure(&self) -> Pressure {
        let takeable = !self.logs.offers.is_empty() && self.waiting_for <= self.received;
        self.logs.pressure(takeable)
    }

    /// The position up to which transactions are offered to be taken at once.
    pub(crate) fn offered(&self) -> u64 {
        match self.logs.offers.within(self.logs.limits.memory_bytes) {
            // What was bound before a restart is bound again, however much it is.
            Some(SourcePosition::PostgresLsn(position)) => {
                self.taken.max(*position).min(self.received)
            }
            _ => self.received,
        }
    }
}

impl Shared {
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
