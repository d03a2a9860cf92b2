//! The group-commit buffer: what has been computed but is not in the Delta tables yet.
//!
//! Owns the output deltas of every stored collection by epoch. Must not know how Delta works.
//! Called by the keep.
//!
//! Invariants. An output is in the buffer until the commit that contains it has succeeded: one that comes while a commit runs waits for the next, also if
//! its epoch is that of the commit, as the first output of a dataflow created meanwhile is. Batches are shared with the arrangements, not copied, but for what
//! is left of many changes of the same rows: while nothing can be committed these would pile up, and what one of them takes back of another is dropped. What
//! is in a commit is the same, row by row: only changes are put together that every commit which may still come has all of, or none.

use std::collections::BTreeMap;

use flowstone_storage::{CollectionCommit, StagedSnapshot};
use flowstone_types::{DeltaBatch, Epoch, ObjectId};

use crate::consolidation::{Consolidated, Consolidation, Size};

/// A collection with less waiting is left as it is.
const ROWS_KEPT: usize = 262_144;
const BYTES_KEPT: usize = 32 << 20;

/// Changes of stored collections that no commit contains yet.
#[derive(Debug, Default)]
pub(crate) struct CommitBuffer {
    pending: BTreeMap<ObjectId, Pending>,
    /// Whether there may be a collection that has grown.
    grown: bool,
    /// How many consolidations were begun.
    consolidations: u64,
}

#[derive(Debug, Default)]
struct Pending {
    deltas: Vec<DeltaBatch>,
    /// What the consolidation of this number makes less of; it is here until that has ended.
    consolidating: Option<(u64, Vec<DeltaBatch>)>,
    staged: Vec<(Epoch, StagedSnapshot)>,
    /// What the running commit contains.
    committing: Vec<DeltaBatch>,
    committing_staged: Vec<StagedSnapshot>,
    /// Of what no commit contains.
    size: Size,
    /// The same when it was last consolidated.
    consolidated: Size,
}

impl Pending {
    /// Whether it is large, and twice what it was.
    fn has_grown(&self) -> bool {
        let (now, then) = (self.size, self.consolidated);
        let rows = now.rows > ROWS_KEPT && now.rows / 2 >= then.rows;
        rows || (now.bytes > BYTES_KEPT && now.bytes / 2 >= then.bytes)
    }
}

impl CommitBuffer {
    /// Adds the changes of one collection in one epoch.
    pub(crate) fn add(&mut self, id: ObjectId, deltas: impl IntoIterator<Item = DeltaBatch>) {
        let mut deltas = deltas
            .into_iter()
            .filter(|delta| !delta.is_empty())
            .peekable();
        if deltas.peek().is_none() {
            return;
        }
        let pending = self.pending.entry(id).or_default();
        for delta in deltas {
            pending.size.add(&delta);
            pending.deltas.push(delta);
        }
        self.grown |= pending.has_grown();
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
            // The commit does not wait for what is being consolidated; the result comes for nothing.
            if let Some((_, mut deltas)) = pending.consolidating.take() {
                pending.deltas.append(&mut deltas);
            }
            let due = |delta: &mut DeltaBatch| delta.epoch <= epoch;
            pending
                .committing
                .extend(pending.deltas.extract_if(.., due));
            pending.size = Size::of(&pending.deltas);
            pending.consolidated = Size::default();
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
            !pending.deltas.is_empty()
                || pending.consolidating.is_some()
                || !pending.staged.is_empty()
        });
    }

    /// The changes of a collection that has grown since it was last consolidated, as far as commits cannot tell their epochs apart: each that is still to come
    /// is of `durable` or a later epoch, but for the one of `waiting`.
    #[must_use]
    pub(crate) fn start_consolidation(
        &mut self,
        durable: Epoch,
        waiting: Option<Epoch>,
    ) -> Option<Consolidation> {
        if !self.grown {
            return None;
        }
        let mut pending = self.pending.iter();
        let grown =
            pending.find(|(_, pending)| pending.consolidating.is_none() && pending.has_grown());
        let Some(id) = grown.map(|(id, _)| *id) else {
            self.grown = false;
            return None;
        };
        self.begin(id, durable, waiting)
    }

    /// The changes of a collection that commits cannot tell apart.
    fn begin(
        &mut self,
        id: ObjectId,
        durable: Epoch,
        waiting: Option<Epoch>,
    ) -> Option<Consolidation> {
        let pending = self.pending.get_mut(&id)?;
        let is_older = |delta: &mut DeltaBatch| delta.epoch <= durable;
        let deltas: Vec<DeltaBatch> = pending.deltas.extract_if(.., is_older).collect();
        // Also if nothing comes of it.
        pending.consolidated = pending.size;
        if deltas.is_empty() {
            return None;
        }
        let first = waiting.unwrap_or(durable).min(durable);
        self.consolidations += 1;
        let number = self.consolidations;
        pending.consolidating = Some((number, deltas.clone()));
        let parts = deltas.into_iter();
        let (before, after): (Vec<_>, Vec<_>) = parts.partition(|delta| delta.epoch <= first);
        Some(Consolidation {
            id,
            number,
            groups: [before, after],
        })
    }

    /// Takes in what a consolidation has left, unless what it was made of has become part of a commit or is gone.
    pub(crate) fn consolidated(&mut self, consolidated: Consolidated) {
        let Consolidated { id, number, deltas } = consolidated;
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let Some((_, before)) = pending
            .consolidating
            .take_if(|(running, _)| *running == number)
        else {
            return;
        };
        pending.deltas.extend(deltas.unwrap_or(before));
        pending.size = Size::of(&pending.deltas);
        pending.consolidated = pending.size;
    }
}

#[cfg(test)]
mod tests;
