//! The group-commit buffer: what has been computed but is not in the Delta tables yet.
//!
//! Owns the output deltas of every stored collection by epoch. Must not know how Delta works.
//! Called by the engine loop.
//!
//! Invariants. An output is in the buffer until the commit that contains it has succeeded. Batches are shared with the arrangements, not copied.

use std::collections::BTreeMap;

use flowstone_storage::{CollectionCommit, StagedSnapshot};
use flowstone_types::{DeltaBatch, Epoch, ObjectId};

/// Changes of stored collections that no commit contains yet.
#[derive(Debug, Default)]
pub struct CommitBuffer {
    pending: BTreeMap<ObjectId, Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    deltas: Vec<DeltaBatch>,
    staged: Vec<(Epoch, StagedSnapshot)>,
}

impl CommitBuffer {
    /// Adds the changes of one collection in one epoch.
    pub fn add(&mut self, id: ObjectId, deltas: impl IntoIterator<Item = DeltaBatch>) {
        let mut deltas = deltas
            .into_iter()
            .filter(|delta| !delta.is_empty())
            .peekable();
        if deltas.peek().is_some() {
            self.pending.entry(id).or_default().deltas.extend(deltas);
        }
    }

    /// Adds a snapshot whose files are on disk already and become part of the collection at `epoch`.
    pub fn add_staged(&mut self, id: ObjectId, epoch: Epoch, staged: StagedSnapshot) {
        self.pending
            .entry(id)
            .or_default()
            .staged
            .push((epoch, staged));
    }

    /// Forgets a collection that was dropped.
    pub fn remove(&mut self, id: ObjectId) {
        self.pending.remove(&id);
    }

    /// Everything up to and including `epoch`, ready to be committed; it stays in the buffer until [`CommitBuffer::committed`].
    #[must_use]
    pub fn up_to(&self, epoch: Epoch) -> Vec<CollectionCommit> {
        let mut commits = Vec::new();
        for (id, pending) in &self.pending {
            let deltas: Vec<_> = pending
                .deltas
                .iter()
                .filter(|delta| delta.epoch <= epoch)
                .cloned()
                .collect();
            let staged: Vec<_> = pending
                .staged
                .iter()
                .filter(|(at, _)| *at <= epoch)
                .map(|(_, staged)| staged.clone())
                .collect();
            if !deltas.is_empty() || !staged.is_empty() {
                commits.push(CollectionCommit {
                    id: *id,
                    deltas,
                    staged,
                    replace: false,
                });
            }
        }
        commits
    }

    /// The commit of `epoch` succeeded.
    pub fn committed(&mut self, epoch: Epoch) {
        self.pending.retain(|_, pending| {
            pending.deltas.retain(|delta| delta.epoch > epoch);
            pending.staged.retain(|(at, _)| *at > epoch);
            !pending.deltas.is_empty() || !pending.staged.is_empty()
        });
    }

    /// Rows waiting to be committed, not counting staged snapshots.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.pending
            .values()
            .flat_map(|pending| &pending.deltas)
            .map(DeltaBatch::len)
            .sum()
    }
}
