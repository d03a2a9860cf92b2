//! Relations: the consolidated rows of one collection, indexed by keys, so that operators can look up rows and their weights.
//!
//! Owns the append-only segments, the weights, the indexes, the error side, the history above `since`, and compaction of one relation.
//! Must not know which operators read it, or wall-clock time. Called by the operators and the executor on the shard's thread.
//!
//! Structure. A row is written once into a columnar segment and found through hash indexes: index 0 is over the identity columns (the collection's
//! key if it has one, else all columns) and finds the one place of a row; each further index is an *arrangement* of the same rows by another key.
//! So an arrangement costs one index, never a second copy of the rows, and is shared by all who ask for the same key. It may be built in slices while rows come
//! and go ([`build`]). An index is a hash index or an ordered one ([`ordered`]), in which the rows of a group are found by their order.
//!
//! Invariants. Segments are immutable; only weights change, and never those a snapshot holds. Within a tick the relation stands still: it is
//! `before`, and the tick's delta stands beside it; [`Relation::apply`] is called once per tick, when every consumer has read.
//! No weight is negative between ticks.
#![expect(
    clippy::indexing_slicing,
    reason = "row ids come from the indexes, which only hold positions of rows that were appended"
)]

mod build;
mod gather;
mod index;
mod moment;
mod ordered;
mod segment;
mod slot;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::SchemaRef;
use flowstone_proto::message::CollectionStatistics;
use flowstone_types::hash::{rows_equal, values_equal};
use flowstone_types::{DeltaBatch, Epoch, EvalError};

pub(crate) use self::gather::Gather;
pub(crate) use self::index::KeyIndex;
pub(crate) use self::moment::{Entry, Moment, Ordered, Place};
pub(crate) use self::ordered::{Groups, Order};
pub(crate) use self::segment::{Piece, WeightChunks};
use self::segment::{Segment, Segments};
pub(crate) use self::slot::IndexSpec;
use self::slot::{Keys, Slot};
use crate::Error;
use crate::batch::{add_weights, expand, index as row_index, weights_of};
use crate::held::{Held, allocated};
use crate::partition::hash_columns;
use crate::snapshot::{Part, Snapshot};

/// A tail of this many rows is sealed; a batch of this many becomes segments of its own.
const SEAL_ROWS: usize = 8192;
/// How much of an error's text is reported: errors quote the data, which may be long.
const ERROR_CHARACTERS_MAX: usize = 1000;
/// What an error takes, roughly: there may be as many as rows, and their texts are not looked at one by one.
const ERROR_BYTES: usize = size_of::<(EvalError, i64)>() * 3 / 2 + allocated(64);
/// Rows whose places in an index are fetched from memory together.
const TOUCHED_TOGETHER: usize = 64;
/// Largest segment: the unit of compaction.
const SEGMENT_ROWS: usize = 65_536;

/// Place of a row: segment and row in it. Stable until the segment is compacted; then the number may be that of another segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowId(u64);

impl RowId {
    fn new(segment: usize, row: usize) -> Self {
        Self((u64::from(row_index(segment)) << 32) | u64::from(row_index(row)))
    }

    pub(crate) fn segment(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)
    }

    pub(crate) fn row(self) -> usize {
        usize::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(usize::MAX)
    }
}

/// What one epoch changed, to be undone by reads of earlier epochs.
#[derive(Debug)]
struct Undo {
    epoch: Epoch,
    rows: Vec<(RowId, i64)>,
    errors: Vec<(EvalError, i64)>,
}

/// The consolidated rows of one collection.
#[derive(Debug)]
pub(crate) struct Relation {
    name: String,
    schema: SchemaRef,
    /// `None` where a segment was compacted away and no other one has its number yet.
    segments: Vec<Option<Segment>>,
    /// The numbers that no segment has: those of `None`.
    free: Vec<usize>,
    /// The segment that takes small appends.
    tail: Option<usize>,
    /// `None` where an index lost its last user. The first is never dropped.
    indexes: Vec<Option<Slot>>,
    errors: BTreeMap<EvalError, i64>,
    /// `None` for relations nobody reads at an epoch.
    history: Option<VecDeque<Undo>>,
    since: Epoch,
    /// Sum of weights.
    total: i64,
    live: usize,
    dead: usize,
    /// Of the delta that somebody has looked at before it is applied.
    located: OnceLock<Located>,
}

/// Where the rows of a delta are.
#[derive(Debug)]
struct Located {
    columns: Vec<ArrayRef>,
    identity: Vec<u64>,
    /// `None` of those that are not there.
    places: Vec<Option<RowId>>,
}

impl Located {
    fn is_of(&self, delta: &DeltaBatch) -> bool {
        let columns = delta.rows.columns();
        let same = |(one, other): (&ArrayRef, &ArrayRef)| Arc::ptr_eq(one, other);
        self.places.len() == delta.len()
            && self.columns.len() == columns.len()
            && self.columns.iter().zip(columns).all(same)
    }
}

impl Relation {
    /// An empty relation. `identity`: columns that find a row quickly, best unique. `schema` has nullable fields only.
    pub(crate) fn new(name: String, schema: SchemaRef, identity: Vec<usize>) -> Self {
        Self {
            name,
            schema,
            segments: Vec::new(),
            free: Vec::new(),
            tail: None,
            indexes: vec![Some(Slot::by_key(identity))],
            errors: BTreeMap::new(),
            history: None,
            since: Epoch::MIN,
            total: 0,
            live: 0,
            dead: 0,
            located: OnceLock::new(),
        }
    }

    /// The same, readable at every epoch from `since` on.
    pub(crate) fn with_history(mut self) -> Self {
        self.history = Some(VecDeque::new());
        self
    }

    pub(crate) const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0 && self.errors.is_empty()
    }

    /// Number of rows, counting multiplicities.
    pub(crate) fn rows(&self) -> u64 {
        u64::try_from(self.total).unwrap_or(0)
    }

    /// How many rows there are, and whether they can be read. How much is held is not said: it depends on who else holds it.
    pub(crate) fn statistics(&self) -> CollectionStatistics {
        let errors = self.errors.values().copied();
        CollectionStatistics {
            rows: self.rows(),
            bytes: 0,
            held: BTreeMap::new(),
            errors: errors
                .filter_map(|weight| u64::try_from(weight).ok())
                .fold(0, u64::saturating_add),
            // By text, not by the order of the map: the shards' minima make one minimum.
            error: self
                .errors
                .keys()
                .map(|error| error.message.as_str())
                .min()
                .map(|message| message.chars().take(ERROR_CHARACTERS_MAX).collect()),
        }
    }

    /// Number of rows, each counted once.
    pub(crate) const fn distinct_rows(&self) -> usize {
        self.live
    }

    /// Bytes of what is not in `held` yet of the rows, and of their weights and history.
    pub(crate) fn row_bytes(&self, held: &Held) -> usize {
        let segments: usize = self
            .segments
            .iter()
            .flatten()
            .map(|segment| segment.bytes(held))
            .sum();
        let undo = |undo: &Undo| {
            let errors = undo.errors.len() * ERROR_BYTES;
            allocated(undo.rows.capacity() * size_of::<(RowId, i64)>()) + errors
        };
        let history: usize = self.history.iter().flatten().map(undo).sum();
        segments + history + self.errors.len() * ERROR_BYTES
    }

    /// Bytes of one index; none if it is gone.
    pub(crate) fn index_bytes(&self, number: usize) -> usize {
        let slot = self.indexes.get(number).and_then(Option::as_ref);
        slot.map_or(0, Slot::bytes)
    }

    /// Numbers that indexes have or had.
    pub(crate) fn index_numbers(&self) -> std::ops::Range<usize> {
        0..self.indexes.len()
    }

    /// The weight of a row; zero if it is gone.
    pub(crate) fn weight(&self, id: RowId) -> i64 {
        weight(&self.segments, id)
    }

    /// Whether `columns` of the row, which has a weight, equal row `row` of `key`.
    pub(crate) fn matches(
        &self,
        id: RowId,
        columns: &[usize],
        key: &[ArrayRef],
        row: usize,
    ) -> Result<bool, Error> {
        let Some((rows, at)) = self.segments().place(id) else {
            return Ok(false);
        };
        for (column, key) in itertools::zip_eq(columns, key) {
            if !values_equal(rows.column(*column), at, key, row)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The place of the live row equal to row `row` of `columns`, whose identity columns hash to `hash`.
    ///
    /// Dead rows are never revived: other indexes may have shed them already.
    pub(crate) fn find(
        &self,
        hash: u64,
        columns: &[ArrayRef],
        row: usize,
    ) -> Result<Option<RowId>, Error> {
        for id in self.index(0)?.get(hash) {
            if self.weight(*id) != 0
                && let Some((rows, at)) = self.segments().place(*id)
                && rows_equal(rows.columns(), at, columns, row)?
            {
                return Ok(Some(*id));
            }
        }
        Ok(None)
    }

    /// The same of each row of a delta.
    fn locate(&self, delta: &DeltaBatch) -> Result<Located, Error> {
        let columns = delta.rows.columns();
        let identity = self.identity_hashes(columns, delta.len())?;
        let mut places = Vec::with_capacity(identity.len());
        for (number, block) in identity.chunks(TOUCHED_TOGETHER).enumerate() {
            self.index(0)?.touch(block);
            for (offset, hash) in block.iter().enumerate() {
                places.push(self.find(*hash, columns, number * TOUCHED_TOGETHER + offset)?);
            }
        }
        Ok(Located {
            columns: columns.to_vec(),
            identity,
            places,
        })
    }

    /// The same, kept until the relation changes: the delta is about to be applied.
    fn located(&self, delta: &DeltaBatch) -> Result<Cow<'_, [Option<RowId>]>, Error> {
        if self.located.get().is_none() {
            let located = self.locate(delta)?;
            self.located.get_or_init(|| located);
        }
        match self.located.get() {
            Some(located) if located.is_of(delta) => Ok(Cow::Borrowed(&located.places)),
            _ => Ok(Cow::Owned(self.locate(delta)?.places)),
        }
    }

    /// The hashes of the identity columns of each row.
    pub(crate) fn identity_hashes(
        &self,
        columns: &[ArrayRef],
        rows: usize,
    ) -> Result<Vec<u64>, Error> {
        hash_columns(columns, self.index(0)?.columns(), rows)
    }

    /// The rows whose columns under index `number` equal row `row` of `keys`, which hashes to `hash`, with their weights: now, or at an epoch that is
    /// readable. Cost: the rows found, and the rows that changed after that epoch ([`Self::lookup_cost`]).
    pub(crate) fn lookup(
        &self,
        number: usize,
        keys: &[ArrayRef],
        (row, hash): (usize, u64),
        at: Option<Epoch>,
    ) -> Result<Vec<(RowId, i64)>, Error> {
        let index = self.index(number)?;
        let mut found = Vec::new();
        for id in index.get(hash) {
            let weight = self.weight(*id);
            if weight != 0 && self.matches(*id, index.columns(), keys, row)? {
                found.push((*id, weight));
            }
        }
        let Some(at) = at else { return Ok(found) };
        // An index sheds rows that are gone, also those that an earlier epoch still has: they are in the history.
        for undo in self.later(at) {
            for (id, change) in &undo.rows {
                match found.iter_mut().find(|(other, _)| other == id) {
                    Some((_, weight)) => *weight -= change,
                    None if self.matches(*id, index.columns(), keys, row)? => {
                        found.push((*id, -change));
                    }
                    None => {}
                }
            }
        }
        found.retain(|(_, weight)| *weight != 0);
        Ok(found)
    }

    /// How many rows [`Self::lookup`] has to look at.
    pub(crate) fn lookup_cost(&self, number: usize, hash: u64, at: Epoch) -> Result<usize, Error> {
        let changed: usize = self.later(at).map(|undo| undo.rows.len()).sum();
        Ok(self.index(number)?.get(hash).len() + changed)
    }

    /// The errors at a readable epoch, with their weights.
    pub(crate) fn errors_at(&self, epoch: Epoch) -> BTreeMap<EvalError, i64> {
        let mut errors = self.errors.clone();
        for undo in self.later(epoch) {
            for (error, change) in &undo.errors {
                let weight = errors.entry(error.clone()).or_insert(0);
                *weight = weight.wrapping_sub(*change);
            }
        }
        errors.retain(|_, weight| *weight != 0);
        errors
    }

    /// What was changed after an epoch, the newest first.
    fn later(&self, epoch: Epoch) -> impl Iterator<Item = &Undo> {
        self.history
            .iter()
            .flatten()
            .rev()
            .take_while(move |undo| undo.epoch > epoch)
    }

    /// Refuses epochs whose history is gone.
    pub(crate) fn check_readable(&self, epoch: Epoch) -> Result<(), Error> {
        if epoch < self.since {
            return Err(Error::SinceAdvanced {
                epoch,
                since: self.since,
            });
        }
        Ok(())
    }

    /// All columns of the rows `ids`, in that order. The rows are there.
    pub(crate) fn gather(&self, ids: &[RowId]) -> Result<Vec<ArrayRef>, Error> {
        let mut gather = Gather::default();
        let mut places = Vec::with_capacity(ids.len());
        for id in ids {
            places.push(self.gather_place(*id, &mut gather)?);
        }
        gather.columns(&self.schema, &places)
    }

    /// Registers the piece of a row with `gather` and returns the row's place there.
    pub(crate) fn gather_place<'a>(
        &'a self,
        id: RowId,
        gather: &mut Gather<'a>,
    ) -> Result<(usize, usize), Error> {
        let (rows, at) = self
            .segments()
            .place(id)
            .ok_or_else(|| Error::invariant(format!("row {id:?} of {} is gone", self.name)))?;
        Ok((gather.source(rows), at))
    }

    /// Applies one tick's consolidated delta and error changes.
    ///
    /// # Errors
    /// [`Error::NegativeWeight`] if a row or error would be there less than zero times. The state is broken after this or any other error.
    pub(crate) fn apply(
        &mut self,
        delta: Option<&DeltaBatch>,
        errors: &[(EvalError, i64)],
        epoch: Epoch,
    ) -> Result<(), Error> {
        let mut undo = Vec::new();
        let located = self.located.take();
        if let Some(delta) = delta {
            let located = match located.filter(|located| located.is_of(delta)) {
                Some(located) => located,
                None => self.locate(delta)?,
            };
            let mut new_rows = Vec::new();
            let mut new_weights = Vec::new();
            let mut gone = Vec::new();
            // Known rows first: what dies now need not be kept in the lists that grow below.
            // Rows of a consolidated delta are different ones: what one changes no other one finds.
            for (row, id) in located.places.into_iter().enumerate() {
                let change = delta.weights.get(row);
                match id {
                    Some(id) => {
                        if self.change_weight(id, change)? == 0 {
                            gone.push((row_index(row), id));
                        }
                        undo.push((id, change));
                    }
                    None if change > 0 => {
                        new_rows.push(row_index(row));
                        new_weights.push(change);
                    }
                    None => return Err(Error::NegativeWeight(self.name.clone())),
                }
            }
            self.forget_order(&delta.rows, &gone)?;
            if new_rows.len() == delta.len() {
                self.append(
                    delta.rows.clone(),
                    &new_weights,
                    Some(located.identity),
                    &mut undo,
                )?;
            } else if !new_rows.is_empty() {
                let rows =
                    flowstone_types::delta::take_rows(&delta.rows, &UInt32Array::from(new_rows))?;
                self.append(rows, &new_weights, None, &mut undo)?;
            }
        }
        for (error, change) in errors {
            let weight = self.errors.entry(error.clone()).or_insert(0);
            *weight = add_weights(*weight, *change)?;
            match *weight {
                0 => {
                    self.errors.remove(error);
                }
                1.. => {}
                _ => return Err(Error::NegativeWeight(format!("errors of {}", self.name))),
            }
        }
        self.remember(epoch, undo, errors);
        Ok(())
    }

    /// Whether there is history below the newest epoch.
    pub(crate) fn has_history(&self) -> bool {
        self.history
            .as_ref()
            .is_some_and(|history| !history.is_empty())
    }

    /// Forgets how to read epochs below `since`.
    pub(crate) fn allow_compaction(&mut self, since: Epoch) {
        self.since = self.since.max(since);
        let Some(history) = self.history.as_mut() else {
            return;
        };
        while history.front().is_some_and(|undo| undo.epoch <= since) {
            let Some(undo) = history.pop_front() else {
                break;
            };
            for (id, _) in undo.rows {
                if let Some(segment) = self
                    .segments
                    .get_mut(segment_number(id))
                    .and_then(Option::as_mut)
                {
                    segment.history -= 1;
                }
            }
        }
    }

    /// Starts readable history at `epoch`: earlier ones are refused.
    pub(crate) fn start_history(&mut self, epoch: Epoch) {
        self.since = self.since.max(epoch);
    }

    /// Refuses every epoch from now on: the relation may be half changed.
    pub(crate) fn end_history(&mut self) {
        self.since = Epoch::MAX;
    }

    /// The rows and errors at `epoch`.
    ///
    /// # Errors
    /// [`Error::SinceAdvanced`] below `since`.
    pub(crate) fn snapshot(&self, epoch: Epoch) -> Result<Snapshot, Error> {
        self.check_readable(epoch)?;
        let mut snapshot = self.current();
        for undo in self.later(epoch) {
            for (id, change) in &undo.rows {
                snapshot.adjust(*id, change.wrapping_neg());
            }
        }
        snapshot.errors = self.errors_at(epoch).into_iter().collect();
        Ok(snapshot)
    }

    /// The rows and errors now.
    pub(crate) fn current(&self) -> Snapshot {
        let live = |(number, segment): (usize, &Option<Segment>)| {
            let segment = segment
                .as_ref()
                .filter(|segment| segment.live > 0 || segment.history > 0)?;
            Some(Part {
                segment: row_index(number),
                pieces: segment.pieces.clone(),
                weights: segment.weights.clone(),
            })
        };
        Snapshot {
            schema: Arc::clone(&self.schema),
            errors: self
                .errors
                .iter()
                .map(|(error, weight)| (error.clone(), *weight))
                .collect(),
            parts: self.segments.iter().enumerate().filter_map(live).collect(),
        }
    }

    /// The rows as they will be when the consolidated `delta` is applied, duplicates expanded.
    pub(crate) fn rows_after(&self, delta: Option<&DeltaBatch>) -> Result<Vec<RecordBatch>, Error> {
        let mut snapshot = self.current();
        let mut rows = Vec::new();
        if let Some(delta) = delta {
            let mut new_rows = Vec::new();
            let mut new_weights = Vec::new();
            for (row, id) in self.located(delta)?.iter().enumerate() {
                let change = delta.weights.get(row);
                if let Some(id) = *id {
                    snapshot.adjust(id, change);
                } else {
                    new_rows.push(row_index(row));
                    new_weights.push(change);
                }
            }
            if new_weights.iter().any(|weight| *weight < 0) {
                return Err(Error::NegativeWeight(self.name.clone()));
            }
            let new = flowstone_types::delta::take_rows(&delta.rows, &UInt32Array::from(new_rows))?;
            rows.push(expand(&new, &weights_of(new_weights))?);
        }
        rows.extend(snapshot.rows()?);
        Ok(rows)
    }

    /// Whether compaction would free something.
    pub(crate) fn wants_compaction(&self) -> bool {
        (self.live == 0 && self.dead > 0 && !self.has_history())
            || self
                .segments
                .iter()
                .enumerate()
                .any(|(number, _)| self.compactable(number))
    }

    /// Rewrites segments with many dead rows until `fuel` rows were looked at. Returns the fuel that is left.
    pub(crate) fn compact(&mut self, mut fuel: usize) -> Result<usize, Error> {
        self.located.take();
        if self.live == 0 && self.dead > 0 && !self.has_history() {
            fuel = fuel.saturating_sub(1);
            self.segments.clear();
            self.free.clear();
            self.tail = None;
            self.dead = 0;
            self.indexes.iter_mut().flatten().for_each(Slot::clear);
            return Ok(fuel);
        }
        for number in 0..self.segments.len() {
            if fuel == 0 {
                break;
            }
            if self.compactable(number) {
                fuel = fuel.saturating_sub(
                    self.segments[number]
                        .as_ref()
                        .map_or(0, |segment| segment.len),
                );
                self.compact_segment(number)?;
            }
        }
        Ok(fuel)
    }

    /// A quarter of its rows are dead, nothing is appended to it, and no readable epoch below the newest needs it.
    fn compactable(&self, number: usize) -> bool {
        self.tail != Some(number)
            && self.segments[number].as_ref().is_some_and(|segment| {
                segment.history == 0 && (segment.len - segment.live) * 4 > segment.len
            })
    }

    fn compact_segment(&mut self, number: usize) -> Result<(), Error> {
        let Some(segment) = self.segments[number].take() else {
            return Ok(());
        };
        self.dead -= segment.len - segment.live;
        let segments = &self.segments;
        for slot in self.indexes.iter_mut().flatten() {
            slot.forget((number, &segment), segments)?;
        }
        // Nothing points there any more: neither an index nor history.
        self.free.push(number);
        let survivors = Part {
            segment: row_index(number),
            pieces: segment.pieces,
            weights: segment.weights,
        };
        let survivors = Snapshot {
            schema: Arc::clone(&self.schema),
            errors: Vec::new(),
            parts: vec![survivors],
        };
        for (rows, weights) in survivors.batches()? {
            let weights = (0..rows.num_rows())
                .map(|row| weights.get(row))
                .collect::<Vec<_>>();
            self.live -= rows.num_rows();
            self.total -= weights.iter().sum::<i64>();
            self.append(rows, &weights, None, &mut Vec::new())?;
        }
        Ok(())
    }

    /// Takes rows that have just gone out of the ordered indexes: rows of `rows`, and where they are.
    fn forget_order(&mut self, rows: &RecordBatch, gone: &[(u32, RowId)]) -> Result<(), Error> {
        let slots = self.indexes.iter_mut().flatten();
        let mut ordered = slots.filter_map(Slot::ordered_mut).peekable();
        if gone.is_empty() || ordered.peek().is_none() {
            return Ok(());
        }
        let indices = UInt32Array::from_iter_values(gone.iter().map(|(row, _)| *row));
        let rows = flowstone_types::delta::take_rows(rows, &indices)?;
        let gone: Vec<(usize, RowId)> = gone.iter().map(|(_, id)| *id).enumerate().collect();
        let segments = Segments::of(&self.segments);
        for index in ordered {
            let keys = index.keys(rows.columns(), rows.num_rows())?;
            index.remove(&keys, &gone, segments)?;
        }
        Ok(())
    }

    /// The row's weight from now on.
    fn change_weight(&mut self, id: RowId, change: i64) -> Result<i64, Error> {
        let segment = self.segments[segment_number(id)]
            .as_mut()
            .ok_or_else(|| Error::invariant("segment is gone"))?;
        let old = segment.weights.get(id.row());
        let new = add_weights(old, change)?;
        if new < 0 {
            return Err(Error::NegativeWeight(self.name.clone()));
        }
        segment.weights.set(id.row(), new);
        self.total = add_weights(self.total, change)?;
        if old != 0 && new == 0 {
            segment.live -= 1;
            self.live -= 1;
            self.dead += 1;
        }
        Ok(new)
    }

    /// Appends rows that are not there yet, with positive weights. `identity`: the rows' identity hashes if they are known.
    fn append(
        &mut self,
        rows: RecordBatch,
        weights: &[i64],
        identity: Option<Vec<u64>>,
        undo: &mut Vec<(RowId, i64)>,
    ) -> Result<(), Error> {
        let count = rows.num_rows();
        let mut from = 0;
        while from < count {
            let (number, to) = if count < SEAL_ROWS {
                (self.open_tail(), count)
            } else {
                (self.open_segment(), count.min(from + SEGMENT_ROWS))
            };
            let Some(segment) = self.segments[number].as_mut() else {
                return Err(Error::invariant("tail is gone"));
            };
            let start = segment.len;
            // Keys are made of one segment at a time: they may be as large as the rows.
            let part = rows.slice(from, to - from);
            segment.append(part.clone());
            for weight in &weights[from..to] {
                segment.weights.push(*weight);
                self.total = add_weights(self.total, *weight)?;
            }
            segment.live += to - from;
            self.live += to - from;
            for (offset, weight) in weights[from..to].iter().enumerate() {
                undo.push((RowId::new(number, start + offset), *weight));
            }
            let segments = &self.segments;
            for (index, slot) in self.indexes.iter_mut().enumerate() {
                // Of an index that is still being built, rows further on are reached later.
                let Some(slot) = slot.as_mut().filter(|slot| slot.covers(number)) else {
                    continue;
                };
                let keys = match &identity {
                    Some(identity) if index == 0 => Keys::Hashes(identity[from..to].to_vec()),
                    _ => slot.keys(&part)?,
                };
                slot.add(segments, (number, start), keys, None)?;
            }
            if self.tail == Some(number)
                && let Some(segment) = self.segments[number].as_mut()
            {
                if segment.len >= SEAL_ROWS {
                    segment.seal(&self.schema)?;
                    self.tail = None;
                } else {
                    segment.merge_pieces(&self.schema)?;
                }
            }
            from = to;
        }
        Ok(())
    }

    fn open_tail(&mut self) -> usize {
        match self.tail {
            Some(number) => number,
            None => {
                let number = self.open_segment();
                self.tail = Some(number);
                number
            }
        }
    }

    /// The number of a new segment. Numbers are used again, so that there are never more than once there were segments.
    fn open_segment(&mut self) -> usize {
        if let Some(number) = self.free.pop() {
            self.segments[number] = Some(Segment::default());
            return number;
        }
        self.segments.push(Some(Segment::default()));
        self.segments.len() - 1
    }

    fn remember(&mut self, epoch: Epoch, rows: Vec<(RowId, i64)>, errors: &[(EvalError, i64)]) {
        if epoch <= self.since || (rows.is_empty() && errors.is_empty()) {
            return;
        }
        let Some(history) = self.history.as_mut() else {
            return;
        };
        for (id, _) in &rows {
            if let Some(segment) = self.segments[segment_number(*id)].as_mut() {
                segment.history += 1;
            }
        }
        history.push_back(Undo {
            epoch,
            rows,
            errors: errors.to_vec(),
        });
    }

    const fn segments(&self) -> Segments<'_> {
        Segments::of(self.segments.as_slice())
    }
}

fn segment_number(id: RowId) -> usize {
    usize::try_from(id.segment()).unwrap_or(usize::MAX)
}

fn weight(segments: &[Option<Segment>], id: RowId) -> i64 {
    match segments.get(segment_number(id)) {
        Some(Some(segment)) => segment.weights.get(id.row()),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
