//! Indexes over rows that are there already, and relations that are made of another one.
//!
//! Owns which indexes a relation has, how far each is built, and the copy that shares the rows of a relation. Must not know who builds, or when.
//!
//! Invariants. An index that is being built holds every live row below a position and no row at or above it. Rows are only ever appended: what is appended
//! below the position is added at once, what is appended further on is reached later. A segment that is compacted takes its rows out of all indexes, and those
//! that live on are appended like any others; where one is just being built, it goes on at the beginning of whatever segment has the number then. Nobody looks anything up in an index that is not complete: [`Relation::index`] refuses it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};

use super::ordered::OrderedIndex;
use super::segment::Segment;
use super::slot::{Index, IndexSpec, Slot};
use super::{KeyIndex, Relation, RowId, TOUCHED_TOGETHER, weight};
use crate::Error;

impl Relation {
    /// The number of the index that finds what `spec` says, which has yet to be built from the rows if it is new ([`Self::build_index`]). Each call is paired
    /// with one [`Self::release_index`].
    ///
    /// # Errors
    /// [`Error::Invariant`] if a column is out of range, [`Error::Type`] if one cannot be hashed or ordered.
    pub(crate) fn acquire_index(&mut self, spec: &IndexSpec) -> Result<usize, Error> {
        for (number, slot) in self.indexes.iter_mut().enumerate() {
            if let Some(slot) = slot
                && slot.finds(spec)
            {
                slot.users += 1;
                return Ok(number);
            }
        }
        let mut slot = Slot::new(spec, &self.schema)?;
        slot.unbuilt = self.start();
        if let Some(free) = self.indexes.iter().position(Option::is_none) {
            self.indexes[free] = Some(slot);
            return Ok(free);
        }
        self.indexes.push(Some(slot));
        Ok(self.indexes.len() - 1)
    }

    /// One user less of an index; the last one of a secondary index drops it.
    pub(crate) fn release_index(&mut self, number: usize) {
        if let Some(slot) = self.indexes.get_mut(number)
            && let Some(index) = slot
        {
            index.users = index.users.saturating_sub(1);
            if index.users == 0 && number != 0 {
                *slot = None;
            }
        }
    }

    /// Index `number`, a hash index that was acquired and is complete.
    pub(crate) fn index(&self, number: usize) -> Result<&KeyIndex, Error> {
        match &self.complete(number)?.index {
            Index::Key(index) => Ok(index),
            Index::Ordered(_) => Err(self.other_kind(number)),
        }
    }

    /// Index `number`, an ordered one that was acquired and is complete.
    pub(crate) fn ordered(&self, number: usize) -> Result<&OrderedIndex, Error> {
        match &self.complete(number)?.index {
            Index::Ordered(index) => Ok(index),
            Index::Key(_) => Err(self.other_kind(number)),
        }
    }

    /// Whether index `number`, of either kind, is there and complete.
    pub(crate) fn is_complete(&self, number: usize) -> bool {
        self.complete(number).is_ok()
    }

    /// The columns of index `number`, a hash index that was acquired.
    pub(crate) fn index_columns(&self, number: usize) -> Result<&[usize], Error> {
        match &self.slot(number)?.index {
            Index::Key(index) => Ok(index.columns()),
            Index::Ordered(_) => Err(self.other_kind(number)),
        }
    }

    fn complete(&self, number: usize) -> Result<&Slot, Error> {
        let slot = self.slot(number)?;
        if slot.unbuilt.is_some() {
            return Err(Error::invariant(format!(
                "index {number} of {} is not built yet",
                self.name
            )));
        }
        Ok(slot)
    }

    fn slot(&self, number: usize) -> Result<&Slot, Error> {
        self.indexes
            .get(number)
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::invariant(format!("index {number} of {} is gone", self.name)))
    }

    fn other_kind(&self, number: usize) -> Error {
        Error::invariant(format!(
            "index {number} of {} is of another kind",
            self.name
        ))
    }

    /// Whether all indexes are complete.
    pub(crate) fn is_built(&self) -> bool {
        let mut slots = self.indexes.iter().flatten();
        slots.all(|slot| slot.unbuilt.is_none())
    }

    /// Builds what is missing of all indexes until `fuel` is used up: a row costs one of it in a hash index, and more in an ordered one. Returns the fuel that is
    /// left; if some is, they are complete.
    pub(crate) fn build(&mut self, mut fuel: usize) -> Result<usize, Error> {
        for number in self.index_numbers() {
            fuel = self.build_index(number, fuel)?;
        }
        Ok(fuel)
    }

    /// The same for one index.
    pub(crate) fn build_index(&mut self, number: usize, mut fuel: usize) -> Result<usize, Error> {
        let segments = &self.segments;
        let Some(slot) = self.indexes.get_mut(number).and_then(Option::as_mut) else {
            return Ok(fuel);
        };
        while fuel > 0
            && let Some((number, row)) = slot.unbuilt
        {
            slot.unbuilt = match segments.get(number) {
                None => None,
                Some(Some(segment)) if row < segment.len => {
                    let (piece, from) = segment.locate(row);
                    let rows = &segment.pieces[piece].rows;
                    let rows_max = fuel.div_ceil(slot.cost());
                    let rows = rows.slice(from, rows_max.min(rows.num_rows() - from));
                    let count = rows.num_rows();
                    let keys = slot.keys(&rows)?;
                    let some_are_gone = segment.live < segment.len;
                    let weights = some_are_gone.then(|| segment.weights.range(row..row + count));
                    slot.add(segments, (number, row), keys, weights.as_deref())?;
                    fuel = fuel.saturating_sub(count * slot.cost());
                    Some((number, row + count))
                }
                Some(_) => Some((number + 1, 0)),
            };
        }
        Ok(fuel)
    }

    /// The same relation without rows and errors: its indexes have the same numbers and users.
    pub(crate) fn hollow(&self) -> Self {
        let indexes = self.indexes.iter();
        Self {
            name: self.name.clone(),
            schema: Arc::clone(&self.schema),
            segments: Vec::new(),
            free: Vec::new(),
            tail: None,
            indexes: indexes
                .map(|slot| slot.as_ref().map(Slot::hollow))
                .collect(),
            errors: BTreeMap::new(),
            history: self.history.as_ref().map(|_| VecDeque::new()),
            since: self.since,
            total: 0,
            live: 0,
            dead: 0,
            located: OnceLock::new(),
        }
    }

    /// A copy that goes its own way, without history. Rows are shared, and weights until one of the two changes them. Of the indexes it has those of these
    /// `numbers`, under the same numbers; they are to be built.
    ///
    /// Cost: O(pieces of segments + errors).
    pub(crate) fn fork(&self, numbers: &BTreeSet<usize>) -> Self {
        let mut fork = self.hollow();
        for (number, slot) in fork.indexes.iter_mut().enumerate() {
            if !numbers.contains(&number) {
                *slot = None;
            } else if let Some(slot) = slot {
                slot.unbuilt = self.start();
            }
        }
        let segments = self.segments.iter().map(|segment| {
            let segment = segment.as_ref().filter(|segment| segment.live > 0)?;
            Some(Segment {
                history: 0,
                ..segment.clone()
            })
        });
        fork.segments = segments.collect();
        let slots = fork.segments.iter().enumerate();
        fork.free = slots
            .filter_map(|(number, segment)| segment.is_none().then_some(number))
            .collect();
        let live = fork.segments.iter().flatten();
        fork.dead = live.map(|segment| segment.len - segment.live).sum();
        fork.history = None;
        fork.errors = self.errors.clone();
        (fork.total, fork.live) = (self.total, self.live);
        fork
    }

    /// Takes the place of `empty`, its [`Self::hollow`] image that others have used meanwhile: has the indexes that it has, and those that it lacks are to be
    /// built.
    pub(crate) fn replace(&mut self, empty: &Self) {
        let unbuilt = self.start();
        let mut built = std::mem::take(&mut self.indexes).into_iter();
        let indexes = empty.indexes.iter().map(|slot| {
            let built = built.next().flatten();
            let used = slot.as_ref()?;
            let same = built.filter(|slot| slot.finds_the_same(used));
            let mut slot = same.unwrap_or_else(|| {
                let mut slot = used.hollow();
                slot.unbuilt = unbuilt;
                slot
            });
            slot.users = used.users;
            Some(slot)
        });
        self.indexes = indexes.collect();
    }

    /// Where an index begins to be built.
    fn start(&self) -> Option<(usize, usize)> {
        (self.live > 0).then_some((0, 0))
    }
}

/// Adds rows of one segment, from a position on, to a hash index. Those that are gone, which have no weight, are left out; none are if there are no `weights`.
pub(super) fn add_rows(
    index: &mut KeyIndex,
    segments: &[Option<Segment>],
    (segment, from): (usize, usize),
    hashes: &[u64],
    weights: Option<&[i64]>,
) {
    for (block, hashes) in hashes.chunks(TOUCHED_TOGETHER).enumerate() {
        index.touch(hashes);
        for (offset, hash) in hashes.iter().enumerate() {
            let row = block * TOUCHED_TOGETHER + offset;
            if weights.is_none_or(|weights| weights[row] != 0) {
                let id = RowId::new(segment, from + row);
                index.insert(*hash, id, |id| weight(segments, id) != 0);
            }
        }
    }
}
