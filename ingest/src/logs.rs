//! The logs of all tables of one source, whatever kind it is of.
//!
//! Owns which tables there are, what was received of them and not taken by size, how much may be buffered, and what is in error and not on disk. Must not
//! know how changes are received, what a position is, or files. Called under the source's lock by the state of the source and by its tasks.
//!
//! Invariants. A table that has failed fails at the same position after a restart: whatever is recorded is on disk before the end of a take.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_proto::message::{SourceStatistics, SourceTable};
use flowstone_types::{ObjectId, SourcePosition, TypeError};

use crate::Error;
use crate::binding::{Binding, Position};
use crate::error_files::{ErrorsFile, RowErrorsFile, TableError, Unsaved};
use crate::row_errors::{ErrorChanges, SavedRowErrors};
use crate::table_log::{Counters, Failure, Log, TakenTable};
use crate::transactions::{
    BufferLimits, Candidate, Closed, Offers, Pressure, Straddling, Usage, Written, candidates,
};

/// What a take has, and the tables that failed in it.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) tables: VecDeque<TakenTable>,
    pub(crate) failures: Vec<(ObjectId, Failure)>,
}

/// What has to be read from disk before a take: of which table, and of which of its logs.
#[derive(Debug)]
pub(crate) struct Straddled {
    table: ObjectId,
    log: u64,
    pub(crate) segment: Straddling,
}

/// The logs of all tables.
#[derive(Debug)]
pub(crate) struct Logs<L> {
    tables: Vec<L>,
    /// What was received and not taken.
    pub(crate) offers: Offers,
    pub(crate) limits: BufferLimits,
    errors: ErrorsFile,
    /// How many table errors were recorded or removed since the process started, and how many of these changes are on disk.
    errors_recorded: u64,
    errors_saved: u64,
    /// What was in error when the process started, until the log of the table is there.
    saved: Vec<(ObjectId, SavedRowErrors)>,
    /// How often rows in error were saved.
    row_error_saves: u64,
}

impl<L> Default for Logs<L> {
    fn default() -> Self {
        let (errors, row_errors) = (ErrorsFile::default(), RowErrorsFile::default());
        Self::new(BufferLimits::default(), errors, row_errors)
    }
}

impl<L> Logs<L> {
    /// No table yet. What is in error is as it was read.
    pub(crate) fn new(limits: BufferLimits, errors: ErrorsFile, row_errors: RowErrorsFile) -> Self {
        Self {
            tables: Vec::new(),
            offers: Offers::default(),
            limits,
            errors,
            errors_recorded: 0,
            errors_saved: 0,
            saved: row_errors.tables,
            row_error_saves: row_errors.saves,
        }
    }

    pub(crate) fn tables(&self) -> &[L] {
        &self.tables
    }

    pub(crate) fn tables_mut(&mut self) -> &mut [L] {
        &mut self.tables
    }
}

impl<L: Log> Logs<L> {
    pub(crate) fn table(&self, id: ObjectId) -> Option<&L> {
        self.tables.iter().find(|log| log.table().id == id)
    }

    pub(crate) fn table_mut(&mut self, id: ObjectId) -> Option<&mut L> {
        self.tables.iter_mut().find(|log| log.table().id == id)
    }

    /// Adds the log of a table, with the error it had in an earlier run. `committed_at`: where it starts from, if its first content is in a commit point;
    /// if it is not, it brings its rows in error with it.
    pub(crate) fn add(&mut self, mut log: L, committed_at: Option<u64>) {
        let id = log.table().id;
        let known = self.errors.errors.iter().find(|error| error.table == id);
        if let Some(error) = known {
            log.account_mut().fail_at(error.failure());
        }
        let saved = self.saved.extract_if(.., |(table, _)| *table == id).last();
        if let (Some((_, saved)), Some(position)) = (saved, committed_at) {
            log.account_mut().row_errors.restore(saved, position);
        }
        self.tables.retain(|other| other.table().id != id);
        self.tables.push(log);
    }

    pub(crate) fn remove(&mut self, ids: &[ObjectId]) {
        self.tables.retain(|log| !ids.contains(&log.table().id));
        self.retain_failures(|error| !ids.contains(&error.table));
    }

    /// What went wrong with a table up to `position` is not wrong any more. It is off the disk before the next take gives anything.
    pub(crate) fn forget_failure_through(&mut self, table: ObjectId, position: u64) {
        if let Some(log) = self.table_mut(table) {
            log.account_mut().forget_failure_through(position);
        }
        self.retain_failures(|error| error.table != table || error.position > position);
    }

    fn retain_failures(&mut self, keep: impl FnMut(&TableError) -> bool) {
        let before = self.errors.errors.len();
        self.errors.errors.retain(keep);
        if self.errors.errors.len() < before {
            self.errors_recorded += 1;
        }
    }

    /// Remembers a table error, so that after a restart it is found at the same position. It is on disk before the next take gives anything.
    pub(crate) fn record_failure(&mut self, table: ObjectId, failure: &Failure) {
        let known = &mut self.errors.errors;
        match known.iter_mut().find(|error| error.table == table) {
            Some(error) if error.position <= failure.position => return,
            Some(error) => *error = TableError::new(table, failure),
            None => known.push(TableError::new(table, failure)),
        }
        self.errors_recorded += 1;
    }

    /// What is not on disk, if anything; to be written in files of `version`.
    pub(crate) fn unsaved(&self, version: u32) -> Option<Unsaved> {
        let errors = (self.errors_recorded > self.errors_saved).then(|| ErrorsFile {
            version,
            ..self.errors.clone()
        });
        let mut tables = self.tables.iter().map(|log| &log.account().row_errors);
        let row_errors = tables
            .any(|row_errors| row_errors.unsaved())
            .then(|| RowErrorsFile {
                version,
                saves: self.row_error_saves + 1,
                tables: self
                    .tables
                    .iter()
                    .map(|log| (log.table().id, &log.account().row_errors))
                    .filter(|(_, row_errors)| !row_errors.nothing_to_save())
                    .map(|(id, row_errors)| (id, row_errors.save()))
                    .collect(),
            });
        (errors.is_some() || row_errors.is_some()).then_some(Unsaved {
            errors,
            row_errors,
            errors_recorded: self.errors_recorded,
        })
    }

    /// Notes what is on disk. Only takes change which rows are in error, and one waits for this.
    pub(crate) fn set_saved(&mut self, errors_recorded: u64, row_error_saves: Option<u64>) {
        self.errors_saved = self.errors_saved.max(errors_recorded);
        if let Some(saves) = row_error_saves {
            self.row_error_saves = saves;
            for log in &mut self.tables {
                log.account_mut().row_errors.set_saved();
            }
        }
    }

    /// The rows that are in error, by table.
    pub(crate) fn row_errors(&self) -> Vec<(ObjectId, ErrorChanges)> {
        let standing = self
            .tables
            .iter()
            .map(|log| (log.table().id, log.account().row_errors.standing()));
        standing.filter(|(_, errors)| !errors.is_empty()).collect()
    }

    /// Whether more may be received, and what has to happen before if not. `takeable`: as for [`BufferLimits::pressure`].
    pub(crate) fn pressure(&self, takeable: bool) -> Pressure {
        self.limits.pressure(self.usage(), takeable)
    }

    /// Whether something should go to disk while more is received.
    pub(crate) fn is_filling(&self) -> bool {
        self.limits.is_filling(self.usage())
    }

    fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for table in &self.tables {
            table.logs().for_each(|log| usage.add(log.usage()));
        }
        usage
    }

    /// What should go to disk.
    pub(crate) fn candidates(&mut self) -> Result<Vec<Candidate>, TypeError> {
        let logs = self.tables.iter_mut().flat_map(|table| {
            let id = table.table().id;
            table.logs_mut().map(move |log| (id, log))
        });
        candidates(logs, self.limits)
    }

    /// What is on disk.
    pub(crate) fn set_spilled(&mut self, written: &mut Written) {
        for (candidate, file) in written.files.drain(..) {
            let table = self.table_mut(candidate.table);
            if let Some(log) = table.and_then(|table| table.log_mut(candidate.log)) {
                log.set_spilled(&candidate, file);
            }
        }
    }

    /// No take waits with what was read from disk for it.
    pub(crate) fn unpin(&mut self) {
        for table in &mut self.tables {
            table.logs_mut().for_each(|log| log.unpin());
        }
    }

    /// Whether the first content of a table that a binding names is not there yet.
    pub(crate) fn lacks(&self, snapshots: &[ObjectId]) -> bool {
        let mut tables = self.tables.iter();
        tables.any(|log| snapshots.contains(&log.table().id) && log.is_pending())
    }

    /// What is on disk and has to be in memory before a binding can be taken.
    pub(crate) fn straddling(&self, binding: &Binding<'_, L::Position>) -> Vec<Straddled> {
        let position = Position::to_source(binding.position);
        let mut straddling = Vec::new();
        for table in &self.tables {
            let id = table.table().id;
            if !table.can_be_cut(binding.snapshots.contains(&id)) {
                continue;
            }
            for log in table.logs() {
                straddling.extend(log.straddling(&position).map(|segment| Straddled {
                    table: id,
                    log: log.log(),
                    segment,
                }));
            }
        }
        straddling
    }

    /// What straddled was read. Whatever has changed meanwhile is found to be straddling again.
    pub(crate) fn set_loaded(&mut self, straddled: &Straddled, loaded: Closed) {
        let table = self.table_mut(straddled.table);
        if let Some(log) = table.and_then(|table| table.log_mut(straddled.log)) {
            log.set_loaded(&straddled.segment, loaded);
        }
    }

    /// Takes everything that a binding names. It is there, and nothing straddles it.
    ///
    /// # Errors
    /// [`Error::Invariant`] if that is not so.
    pub(crate) fn take(&mut self, binding: &Binding<'_, L::Position>) -> Result<Taken, Error> {
        let position = Position::to_source(binding.position);
        let mut tables = VecDeque::new();
        let mut failures = Vec::new();
        for table in &mut self.tables {
            let id = table.table().id;
            let mut taken = TakenTable::new(id);
            if binding.snapshots.contains(&id) {
                let failed = table.bind(binding.position, &mut taken)?;
                failures.extend(failed.map(|failure| (id, failure)));
            }
            if table.can_be_cut(false) {
                for log in table.logs_mut() {
                    taken.parts.extend(log.cut(&position)?);
                }
                tables.push_back(taken);
            }
        }
        self.offers.take(&position);
        for (table, failure) in &failures {
            self.record_failure(*table, failure);
        }
        Ok(Taken { tables, failures })
    }

    /// Counters of all tables and of the source, with the newest position known upstream and the one up to which everything was taken.
    pub(crate) fn statistics(
        &self,
        source: ObjectId,
        known: &SourcePosition,
        taken: &SourcePosition,
    ) -> Vec<SourceStatistics> {
        let of = |object: ObjectId, counters: Counters| SourceStatistics {
            object: Some(object),
            messages_received: counters.messages,
            bytes_received: counters.bytes,
            updates_staged: counters.taken,
            updates_committed: counters.taken,
            snapshot_records_known: counters.snapshot_known,
            snapshot_records_staged: counters.snapshot_staged,
            offset_known: Some(known.clone()),
            offset_committed: Some(taken.clone()),
        };
        let mut total = Counters::default();
        let mut all = Vec::new();
        for log in &self.tables {
            let counters = log.account().counters;
            total.messages += counters.messages;
            total.bytes += counters.bytes;
            total.taken += counters.taken;
            total.snapshot_staged = either(total.snapshot_staged, counters.snapshot_staged);
            total.snapshot_known = either(total.snapshot_known, counters.snapshot_known);
            all.push(of(log.table().id, counters));
        }
        all.push(of(source, total));
        all
    }
}

/// The sum of what is known.
fn either(left: Option<u64>, right: Option<u64>) -> Option<u64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.saturating_add(right)),
        (left, right) => left.or(right),
    }
}

/// Tables with the schemas of their collections.
pub(crate) fn with_schemas(
    tables: &[SourceTable],
    schemas: &[(ObjectId, SchemaRef)],
) -> Vec<(SourceTable, SchemaRef)> {
    tables
        .iter()
        .filter_map(|table| {
            let schema = schemas
                .iter()
                .find(|(id, _)| *id == table.id)
                .map(|(_, schema)| Arc::clone(schema));
            if schema.is_none() {
                tracing::error!(table = %table.id, "source table has no schema");
            }
            Some((table.clone(), schema?))
        })
        .collect()
}
