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

use flowstone_dataflow::Held;
use flowstone_storage::{CollectionCommit, StagedSnapshot};
use flowstone_types::{DeltaBatch, Epoch, ObjectId};

use crate::consolidation::{Consolidated, Consolidation, Size, Sizes};

/// A collection with less waiting is left as it is.
const ROWS_KEPT: usize = 262_144;
const BYTES_KEPT: usize = 32 << 20;

/// Of a collection with more changes waiting it is not looked which buffers they share with its rows: small ones share none, for rows that come a few at a time
/// are put together there.
const CHANGES_LOOKED_AT: usize = 4096;

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
    /// Of these.
    sizes: Sizes,
    /// What the consolidation of this number makes less of; it is here until that has ended.
    consolidating: Option<(u64, Vec<DeltaBatch>, Sizes)>,
    staged: Vec<(Epoch, StagedSnapshot)>,
    /// What the running commit contains.
    committing: Vec<DeltaBatch>,
    committing_staged: Vec<StagedSnapshot>,
    /// How much no commit contained when it was last consolidated.
    consolidated: Size,
}

impl Pending {
    /// How much no commit contains.
    fn size(&self) -> Size {
        let beside = self.consolidating.as_ref().map(|(.., sizes)| sizes.all());
        self.sizes.all().plus(beside.unwrap_or_default())
    }

    /// Whether it is large, and twice what it was.
    fn has_grown(&self) -> bool {
        let (now, then) = (self.size(), self.consolidated);
        let rows = now.rows > ROWS_KEPT && now.rows / 2 >= then.rows;
        rows || (now.bytes > BYTES_KEPT && now.bytes / 2 >= then.bytes)
    }

    /// Bytes of what waits and of what is being committed, without the buffers that were counted already.
    fn bytes(&self, held: &Held) -> u64 {
        let consolidating = self.consolidating.iter().flat_map(|(_, deltas, _)| deltas);
        let all = self.deltas.iter().chain(&self.committing);
        let all = all.chain(consolidating);
        let bytes = if self.deltas.len() + self.committing.len() > CHANGES_LOOKED_AT {
            self.size()
                .bytes
                .saturating_add(Size::of(&self.committing).bytes)
        } else {
            all.map(|delta| held.add(&delta.rows)).sum()
        };
        u64::try_from(bytes).unwrap_or(u64::MAX)
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
            pending.sizes.add(&delta);
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

    /// Whether a collection has changes that no commit contains for sure.
    #[must_use]
    pub(crate) fn has(&self, id: ObjectId) -> bool {
        self.pending.contains_key(&id)
    }

    /// What is held of each collection, without the buffers that were counted already. Cost: O(changes).
    pub(crate) fn bytes(&self, held: &Held) -> BTreeMap<ObjectId, u64> {
        let bytes = self.pending.iter();
        let bytes = bytes.map(|(id, pending)| (*id, pending.bytes(held)));
        bytes.filter(|(_, bytes)| *bytes > 0).collect()
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
            if let Some((_, mut deltas, sizes)) = pending.consolidating.take() {
                pending.deltas.append(&mut deltas);
                pending.sizes.append(sizes);
            }
            let due = |delta: &mut DeltaBatch| delta.epoch <= epoch;
            pending
                .committing
                .extend(pending.deltas.extract_if(.., due));
            pending.sizes.take_through(epoch);
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
        pending.consolidated = pending.size();
        if deltas.is_empty() {
            return None;
        }
        let sizes = pending.sizes.take_through(durable);
        let first = waiting.unwrap_or(durable).min(durable);
        self.consolidations += 1;
        let number = self.consolidations;
        pending.consolidating = Some((number, deltas.clone(), sizes));
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
        let Consolidated { id, number, left } = consolidated;
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let Some((_, before, sizes_before)) = pending
            .consolidating
            .take_if(|(running, ..)| *running == number)
        else {
            return;
        };
        let (deltas, sizes) = left.unwrap_or((before, sizes_before));
        pending.deltas.extend(deltas);
        pending.sizes.append(sizes);
        pending.consolidated = pending.size();
    }
}

#[cfg(test)]
mod tests;
