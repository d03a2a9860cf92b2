//! What was taken, on its way to whoever took it: piece by piece, so that what is on disk is never in memory as a whole.
//!
//! Owns the order of the pieces. Must not know the stream, which goes on meanwhile. Called by [`crate::Pieces`].
//!
//! Invariants. A table's snapshot comes first, then its changes in order, then the errors of its rows and its own. Once the end was given, every failure
//! that is known of and every row that is in error is on disk.

use std::collections::VecDeque;
use std::sync::Arc;

use flowstone_types::{ObjectId, SourceChanges};

use super::state::{Shared, Taken, TakenTable};
use super::table_log::{CutEnd, Failure};
use crate::row_errors::Notes;
use crate::transactions::Part;
use crate::{Error, TableChanges, TableData};

/// What is left of a take.
#[derive(Debug)]
pub(crate) struct Taking {
    shared: Arc<Shared>,
    position: u64,
    tables: VecDeque<TakenTable>,
    failures: Vec<(ObjectId, Failure)>,
    /// What can be given at once.
    ready: VecDeque<TableChanges>,
}

impl Taking {
    pub(crate) fn new(shared: Arc<Shared>, position: u64, taken: Taken) -> Self {
        Self {
            shared,
            position,
            tables: taken.tables,
            failures: taken.failures,
            ready: VecDeque::new(),
        }
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<TableChanges>, Error> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            let Some(first) = self.tables.front_mut() else {
                return self.finish().await.map(|()| None);
            };
            let table = first.table;
            if let Some(snapshot) = first.snapshot.take() {
                let data = TableData::Snapshot(snapshot);
                return Ok(Some(TableChanges { table, data }));
            }
            match first.parts.pop_front() {
                Some(part) => {
                    let (changes, notes) = match part {
                        Part::Buffered(closed) => closed.into_changes(),
                        Part::Spilled(spilled) => self.shared.load(&spilled).await?.into_changes(),
                    };
                    self.resolve(table, changes, notes)?;
                }
                None => self.end_table(),
            }
        }
    }

    /// Changes of the first table.
    fn resolve(
        &mut self,
        table: ObjectId,
        changes: SourceChanges,
        notes: Notes,
    ) -> Result<(), Error> {
        let resolved = match self.shared.lock().table_mut(table) {
            Some(log) => log.resolve(changes, notes, self.position),
            // It was removed meanwhile.
            None => return Ok(()),
        };
        let (changes, errors) = resolved.map_err(|error| Error::Invariant(error.to_string()))?;
        self.ready.extend(changes.map(|changes| TableChanges {
            table,
            data: TableData::Changes(changes),
        }));
        if let Some(first) = self.tables.front_mut() {
            first.row_errors.extend(errors);
        }
        Ok(())
    }

    /// The first table has given its changes.
    fn end_table(&mut self) {
        let Some(TakenTable {
            table, row_errors, ..
        }) = self.tables.pop_front()
        else {
            return;
        };
        let mut state = self.shared.lock();
        let Some(log) = state.table_mut(table) else {
            return;
        };
        let CutEnd { error, failed } = log.end_cut(self.position);
        if let Some(failure) = failed {
            let failure = (table, failure);
            state.record_failures(std::slice::from_ref(&failure));
            self.failures.push(failure);
        }
        drop(state);
        if !row_errors.is_empty() {
            let data = TableData::RowErrors(row_errors);
            self.ready.push_back(TableChanges { table, data });
        }
        self.ready.extend(error.map(|error| TableChanges {
            table,
            data: TableData::Error(error),
        }));
    }

    async fn finish(&mut self) -> Result<(), Error> {
        self.shared.save_errors().await?;
        let failures = std::mem::take(&mut self.failures);
        self.shared.report_failures(failures).await;
        Ok(())
    }
}
