//! Putting changes of a collection together while they wait.
//!
//! Owns what is left of changes of which some take back others. Must not know which may be put together. Called by the keep.

use std::collections::BTreeMap;

use flowstone_types::consolidate::consolidate;
use flowstone_types::{DeltaBatch, Epoch, ObjectId, TypeError, Weights};

use crate::size::bytes_of;

/// What is consolidated at once: the rows are copied, and no column may have more than 2 GiB of text.
const BYTES_AT_ONCE: usize = 256 << 20;

/// How much changes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

impl Size {
    /// Cost: O(batches); where there may be many, not for the router.
    pub(crate) fn of(deltas: &[DeltaBatch]) -> Self {
        let mut size = Self::default();
        deltas.iter().for_each(|delta| size.add(delta));
        size
    }

    pub(crate) fn add(&mut self, delta: &DeltaBatch) {
        self.rows = self.rows.saturating_add(delta.len());
        self.bytes = self.bytes.saturating_add(bytes_of(&delta.rows));
    }

    /// More of it.
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_add(other.rows),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(other.rows),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// How much changes of several epochs are: known without looking at them again when some leave.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    by_epoch: BTreeMap<Epoch, Size>,
    all: Size,
}

impl Sizes {
    /// Cost: O(batches); where there may be many, not for the router.
    fn of(deltas: &[DeltaBatch]) -> Self {
        let mut sizes = Self::default();
        deltas.iter().for_each(|delta| sizes.add(delta));
        sizes
    }

    pub(crate) fn add(&mut self, delta: &DeltaBatch) {
        let mut size = Size::default();
        size.add(delta);
        self.add_to(delta.epoch, size);
    }

    pub(crate) fn append(&mut self, other: Self) {
        for (epoch, size) in other.by_epoch {
            self.add_to(epoch, size);
        }
    }

    fn add_to(&mut self, epoch: Epoch, size: Size) {
        let of_epoch = self.by_epoch.entry(epoch).or_default();
        *of_epoch = of_epoch.plus(size);
        self.all = self.all.plus(size);
    }

    /// Takes out what is of `epoch` and those before it. Cost: O(epochs).
    pub(crate) fn take_through(&mut self, epoch: Epoch) -> Self {
        let later = self.by_epoch.split_off(&epoch.next());
        let by_epoch = std::mem::replace(&mut self.by_epoch, later);
        let all = by_epoch.values().copied().fold(Size::default(), Size::plus);
        self.all = self.all.minus(all);
        Self { by_epoch, all }
    }

    pub(crate) const fn all(&self) -> Size {
        self.all
    }
}

/// Changes of a collection to be consolidated.
#[derive(Debug)]
pub(crate) struct Consolidation {
    pub(crate) id: ObjectId,
    pub(crate) number: u64,
    /// Each is in a commit as a whole, or not.
    pub(crate) groups: [Vec<DeltaBatch>; 2],
}

/// What is left of changes.
#[derive(Debug)]
pub(crate) struct Consolidated {
    pub(crate) id: ObjectId,
    pub(crate) number: u64,
    /// With their sizes; `None` if it is what it was.
    pub(crate) left: Option<(Vec<DeltaBatch>, Sizes)>,
}

impl Consolidated {
    /// The changes stay as they are.
    pub(crate) const fn nothing(id: ObjectId, number: u64) -> Self {
        Self {
            id,
            number,
            left: None,
        }
    }
}

impl Consolidation {
    /// Whose changes these are, and the number of this consolidation.
    pub(crate) const fn name(&self) -> (ObjectId, u64) {
        (self.id, self.number)
    }

    /// Sums up the weights of equal rows. Cost: O(rows) expected; for a thread that may block.
    pub(crate) fn run(self) -> Consolidated {
        let Self { id, number, groups } = self;
        let mut left = Vec::new();
        for group in groups {
            let mut part = Vec::new();
            let mut bytes = 0_usize;
            for delta in group {
                let size = bytes_of(&delta.rows);
                if bytes.saturating_add(size) > BYTES_AT_ONCE {
                    left.append(&mut less_of(std::mem::take(&mut part)));
                    bytes = 0;
                }
                bytes = bytes.saturating_add(size);
                part.push(delta);
            }
            left.append(&mut less_of(part));
        }
        let sizes = Sizes::of(&left);
        Consolidated {
            id,
            number,
            left: Some((left, sizes)),
        }
    }
}

/// One delta of the newest epoch of `deltas`, if it has at most half as many rows: otherwise what they share with others is worth more.
fn less_of(deltas: Vec<DeltaBatch>) -> Vec<DeltaBatch> {
    if !deltas.iter().any(retracts) {
        return deltas;
    }
    match sum_of(&deltas) {
        Ok(sum) if sum.len() <= Size::of(&deltas).rows / 2 => {
            if sum.is_empty() {
                Vec::new()
            } else {
                vec![sum]
            }
        }
        Ok(_) => deltas,
        Err(error) => {
            tracing::debug!(%error, "what waits for a commit stays as it is");
            deltas
        }
    }
}

/// Whether it takes back rows: nothing cancels where nobody does.
fn retracts(delta: &DeltaBatch) -> bool {
    match &delta.weights {
        Weights::AllOne => false,
        Weights::Const(weight) => *weight < 0,
        Weights::Array(weights) => weights.values().iter().any(|weight| *weight < 0),
    }
}

fn sum_of(deltas: &[DeltaBatch]) -> Result<DeltaBatch, TypeError> {
    let newest = deltas.iter().map(|delta| delta.epoch).max();
    let (Some(epoch), Some(first)) = (newest, deltas.first()) else {
        return Err(TypeError::Kernel("no changes to sum up".to_owned()));
    };
    let together = DeltaBatch::concat(&first.schema(), deltas, epoch)?;
    let mut sum = consolidate(&together)?;
    sum.epoch = epoch;
    Ok(sum)
}
