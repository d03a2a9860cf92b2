//! What was taken, on its way to whoever took it: piece by piece, so that what is on disk is never in memory as a whole.
//!
//! Owns the order of the pieces. Must not know how changes are received, which goes on meanwhile, nor any kind of source. Called by [`crate::Pieces`].
//!
//! Invariants. A table's snapshot comes first, then its changes in order, then the errors of its rows and its own. Once the end was given, every failure
//! that is known of and every row that is in error is on disk.

use std::collections::VecDeque;
use std::sync::Arc;

use flowstone_proto::message::SourceBinding;
use flowstone_types::{ObjectId, SourceChanges};

use crate::binding::{Binding, Position};
use crate::capture::{Shared, State};
use crate::row_errors::Notes;
use crate::table_log::{CutEnd, Failure, Log, TakenTable};
use crate::transactions::Part;
use crate::{Error, TableChanges, TableData};

/// What is left of a take.
#[derive(Debug)]
pub(crate) struct Taking<S: State> {
    shared: Arc<Shared<S>>,
    /// The ordinal of the position up to which it goes.
    position: u64,
    tables: VecDeque<TakenTable>,
    failures: Vec<(ObjectId, Failure)>,
    /// What can be given at once.
    ready: VecDeque<TableChanges>,
}

impl<S: State> Taking<S> {
    /// Takes what a binding names, as [`crate::SourceHandle::take_pieces`] says. The source is not borrowed: whoever waits for it does so where it likes.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken until everything is there.
    pub(crate) fn begin(
        shared: &Arc<Shared<S>>,
        binding: &SourceBinding,
    ) -> impl Future<Output = Result<Self, Error>> + Send + use<S> {
        let (shared, binding) = (Arc::clone(shared), binding.clone());
        async move {
            let binding: Binding<'_, S::Position> = Binding::of(&binding)?;
            let taken = shared.take(&binding).await?;
            Ok(Self {
                shared: Arc::clone(&shared),
                position: Position::ordinal(binding.position),
                tables: taken.tables,
                failures: taken.failures,
                ready: VecDeque::new(),
            })
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
        let resolved = match self.shared.lock().logs_mut().table_mut(table) {
            Some(log) => log.account_mut().resolve(changes, notes, self.position),
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
        let logs = state.logs_mut();
        let Some(log) = logs.table_mut(table) else {
            return;
        };
        let CutEnd { error, failed } = log.end_cut(self.position);
        if let Some(failure) = failed {
            logs.record_failure(table, &failure);
            self.failures.push((table, failure));
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
