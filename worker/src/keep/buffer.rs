//! The group-commit buffer: what has been computed but is not in the Delta tables yet.
//!
//! Owns the output deltas of every stored collection by epoch. Must not know how Delta works.
//! Called by the keep.
//!
//! Invariants. An output is in the buffer until the commit that contains it has succeeded: one that comes while a commit runs waits for the next, also if
//! its epoch is that of the commit, as the first output of a dataflow created meanwhile is. Batches are shared with the arrangements, not copied.

use std::collections::BTreeMap;

use flowstone_storage::{CollectionCommit, StagedSnapshot};
use flowstone_types::{DeltaBatch, Epoch, ObjectId};

/// Changes of stored collections that no commit contains yet.
#[derive(Debug, Default)]
pub(crate) struct CommitBuffer {
    pending: BTreeMap<ObjectId, Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    deltas: Vec<DeltaBatch>,
    staged: Vec<(Epoch, StagedSnapshot)>,
    /// What the running commit contains.
    committing: Vec<DeltaBatch>,
    committing_staged: Vec<StagedSnapshot>,
}

impl CommitBuffer {
    /// Adds the changes of one collection in one epoch.
    pub(crate) fn add(&mut self, id: ObjectId, deltas: impl IntoIterator<Item = DeltaBatch>) {
        let mut deltas = deltas
            .into_iter()
            .filter(|delta| !delta.is_empty())
            .peekable();
        if deltas.peek().is_some() {
            self.pending.entry(id).or_default().deltas.extend(deltas);
        }
    }

    /// Adds a snapshot whose files are on disk already and become part of the collection at `epoch`.
    pub(crate) fn add_staged(&mut self, id: ObjectId, epoch: Epoch, staged: StagedSnapshot) {
        self.pending
            .entry(id)
            .or_default()
            .staged
            .push((epoch, staged));
    }

    /// Forgets a collection that was dropped.
    pub(crate) fn remove(&mut self, id: ObjectId) {
        self.pending.remove(&id);
    }

    /// Everything up to and including `epoch`, ready to be committed; it stays in the buffer until [`CommitBuffer::committed`]. One commit runs at a time.
    #[must_use]
    pub(crate) fn up_to(&mut self, epoch: Epoch) -> Vec<CollectionCommit> {
        let mut commits = Vec::new();
        for (id, pending) in &mut self.pending {
            let due = |delta: &mut DeltaBatch| delta.epoch <= epoch;
            pending
                .committing
                .extend(pending.deltas.extract_if(.., due));
            let staged = pending.staged.extract_if(.., |(at, _)| *at <= epoch);
            pending
                .committing_staged
                .extend(staged.map(|(_, staged)| staged));
            if !pending.committing.is_empty() || !pending.committing_staged.is_empty() {
                commits.push(CollectionCommit {
                    id: *id,
                    deltas: pending.committing.clone(),
                    staged: pending.committing_staged.clone(),
                    replace: false,
                });
            }
        }
        commits
    }

    /// The commit of what [`CommitBuffer::up_to`] gave succeeded.
    pub(crate) fn committed(&mut self) {
        self.pending.retain(|_, pending| {
            pending.committing.clear();
            pending.committing_staged.clear();
            !pending.deltas.is_empty() || !pending.staged.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
