//! An ordered index: the rows of each group by a sort key.
//!
//! Owns the postings: for each group, found by its encoded columns, the places of its rows in the order of their sort keys. A posting has the first bytes of
//! the encoded sort key ([`encoder`]) and the place; where these bytes do not decide, the rows themselves do, which are read where they lie. So a posting is as
//! large for wide rows as for narrow ones, and postings of a group lie side by side ([`run`]).
//! Must not know weights, nor what rows are beyond their columns.
//!
//! Invariants. It holds every live row that its order takes in, up to where the index is built, and no dead one: whoever pops the extreme of a group again and
//! again never passes over what is gone. Every row that it holds can be read. Rows of equal group and sort key come in the order of their places, which no
//! result may depend on: an order that must be total ends with all columns.

mod encoder;
mod run;

use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::SchemaRef;
use flowstone_proto::plan::OrderColumn;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use itertools::Itertools;
use xxhash_rust::xxh3::xxh3_64;

use self::encoder::{Encoder, Prefix};
pub(crate) use self::encoder::{Groups, Keys};
pub(super) use self::run::Posting;
use self::run::Run;
use super::segment::Segments;
use super::{RowId, TOUCHED_TOGETHER};
use crate::Error;
use crate::held::allocated;

/// Past so many groups there are many tables that grow one by one, so that no tick pays for one large rehash.
const SPLIT_AT: usize = 4096;
const TABLES: usize = 256;

/// Which rows an ordered index takes in, and how it orders them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Rows that agree in these columns are one group.
    pub(crate) group: Vec<usize>,
    pub(crate) by: Vec<OrderColumn>,
    /// Rows with NULL in this column are left out.
    pub(crate) present: Option<usize>,
    /// A boolean column: rows in which it is not true are left out.
    pub(crate) filter: Option<usize>,
}

impl Order {
    /// One in which no two rows of `width` columns are equal: by these columns, each once, then by all others but the group's.
    pub(crate) fn total(group: &[usize], by: &[OrderColumn], width: usize) -> Self {
        let others = (0..width).map(|column| OrderColumn {
            column,
            descending: false,
            nulls_first: true,
        });
        let mut total: Vec<OrderColumn> = Vec::with_capacity(width);
        for next in by.iter().copied().chain(others) {
            let known = total.iter().any(|column| column.column == next.column);
            if !known && !group.contains(&next.column) {
                total.push(next);
            }
        }
        Self {
            group: group.to_vec(),
            by: total,
            present: None,
            filter: None,
        }
    }

    /// One by the values of a column, of rows that have one and in which `filter` is true.
    pub(crate) fn of_values(group: &[usize], column: usize, filter: Option<usize>) -> Self {
        let by = OrderColumn {
            column,
            descending: false,
            nulls_first: false,
        };
        Self {
            group: group.to_vec(),
            by: vec![by],
            present: Some(column),
            filter,
        }
    }
}

/// A group that has rows.
#[derive(Debug)]
struct Group {
    hash: u64,
    /// Its encoded columns.
    key: Box<[u8]>,
    rows: Run,
}

impl Group {
    /// Bytes beside its place in a table.
    fn bytes(&self) -> usize {
        allocated(self.key.len()) + self.rows.bytes()
    }
}

/// One ordered index of a relation.
#[derive(Debug)]
pub(crate) struct OrderedIndex {
    encoder: Arc<Encoder>,
    /// None if there are no groups.
    tables: Vec<HashTable<Group>>,
    groups: usize,
    /// Bytes that the groups take beside their tables.
    heap: usize,
}

impl OrderedIndex {
    /// # Errors
    /// [`Error::Invariant`] if a column is not there, [`Error::Type`] if one has no order.
    pub(super) fn new(order: &Order, schema: &SchemaRef) -> Result<Self, Error> {
        Ok(Self::of(Arc::new(Encoder::new(order, schema)?)))
    }

    /// One of the same order over no rows.
    pub(super) fn hollow(&self) -> Self {
        Self::of(Arc::clone(&self.encoder))
    }

    const fn of(encoder: Arc<Encoder>) -> Self {
        Self {
            encoder,
            tables: Vec::new(),
            groups: 0,
            heap: 0,
        }
    }

    pub(super) fn order(&self) -> &Order {
        &self.encoder.order
    }

    /// The keys of rows, for [`Self::insert`] and [`Self::remove`].
    pub(super) fn keys(&self, columns: &[ArrayRef], rows: usize) -> Result<Keys, Error> {
        self.encoder.keys(columns, rows)
    }

    /// The encoded group of each row.
    pub(crate) fn groups(&self, columns: &[ArrayRef], rows: usize) -> Result<Groups, Error> {
        self.encoder.groups(columns, rows)
    }

    /// Adds rows that are not there: of each its number in `keys`, and where it is. `segments`: those and all that were added before can be read there.
    pub(super) fn insert(
        &mut self,
        keys: &Keys,
        rows: &[(usize, RowId)],
        segments: Segments<'_>,
    ) -> Result<(), Error> {
        self.change(keys, rows, |index, probe, id| {
            index.insert_row(probe, id, segments)
        })
    }

    /// Changes one row after the other, those that the index takes in.
    fn change(
        &mut self,
        keys: &Keys,
        rows: &[(usize, RowId)],
        mut change: impl FnMut(&mut Self, Probe<'_>, RowId) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for rows in rows.chunks(TOUCHED_TOGETHER) {
            self.touch(keys, rows);
            for (row, id) in rows {
                if keys.takes(*row) {
                    change(self, Probe { keys, row: *row }, *id)?;
                }
            }
        }
        Ok(())
    }

    fn insert_row(
        &mut self,
        probe: Probe<'_>,
        id: RowId,
        segments: Segments<'_>,
    ) -> Result<(), Error> {
        self.split_if_large();
        let encoder = &self.encoder;
        let key = probe.keys.group(probe.row);
        let hash = xxh3_64(key);
        let posting = probe.posting(id);
        let Some(table) = table_mut(&mut self.tables, hash) else {
            return Err(Error::invariant("an ordered index without tables"));
        };
        let is_it = |group: &Group| group.hash == hash && *group.key == *key;
        match table.entry(hash, is_it, |group| group.hash) {
            Entry::Vacant(vacant) => {
                let group = Group {
                    hash,
                    key: key.into(),
                    rows: Run::One(posting),
                };
                self.heap += group.bytes();
                self.groups += 1;
                vacant.insert(group);
            }
            Entry::Occupied(mut occupied) => {
                let rows = &mut occupied.get_mut().rows;
                let before = rows.bytes();
                rows.insert(posting, |other| {
                    probe.compare(encoder, other, &posting, segments)
                })?;
                self.heap = self.heap + rows.bytes() - before;
            }
        }
        Ok(())
    }

    /// Takes out rows: of each its number in `keys`, and where it is, which can still be read in `segments`. Nothing of one that is not there.
    pub(super) fn remove(
        &mut self,
        keys: &Keys,
        rows: &[(usize, RowId)],
        segments: Segments<'_>,
    ) -> Result<(), Error> {
        self.change(keys, rows, |index, probe, id| {
            index.remove_row(probe, id, segments)
        })
    }

    fn remove_row(
        &mut self,
        probe: Probe<'_>,
        id: RowId,
        segments: Segments<'_>,
    ) -> Result<(), Error> {
        let encoder = &self.encoder;
        let key = probe.keys.group(probe.row);
        let hash = xxh3_64(key);
        let posting = probe.posting(id);
        let Some(table) = table_mut(&mut self.tables, hash) else {
            return Ok(());
        };
        let is_it = |group: &Group| group.hash == hash && *group.key == *key;
        let Ok(mut entry) = table.find_entry(hash, is_it) else {
            return Ok(());
        };
        let group = entry.get_mut();
        let before = group.rows.bytes();
        let is_last = group
            .rows
            .remove(|other| probe.compare(encoder, other, &posting, segments))?;
        self.heap = self.heap + group.rows.bytes() - before;
        if is_last {
            let (group, _) = entry.remove();
            self.heap -= group.bytes();
            self.groups -= 1;
            if self.groups == 0 {
                self.tables = Vec::new();
            } else if table.len() * 8 < table.capacity() {
                table.shrink_to(table.len() * 2, |group| group.hash);
            }
        }
        Ok(())
    }

    /// The rows of one group, in order.
    pub(super) fn of_group<'a>(
        &'a self,
        group: &[u8],
    ) -> impl DoubleEndedIterator<Item = &'a Posting> + use<'a> {
        let rows = self.group(xxh3_64(group), group).map(|group| &group.rows);
        rows.into_iter().flat_map(Run::iter)
    }

    /// How a row of this index compares with row `row` of `keys`, which is not there.
    pub(super) fn compare(
        &self,
        stored: &Posting,
        (keys, row): (&Keys, usize),
        segments: Segments<'_>,
    ) -> Result<Ordering, Error> {
        let probe = Probe { keys, row };
        probe.compare_keys(&self.encoder, stored, keys.prefix(row), segments)
    }

    /// The rows of `keys` that the index takes in, by group and sort key.
    pub(super) fn arrange(&self, keys: Keys) -> Result<Arranged, Error> {
        let mut groups: HashTable<Bucket> = HashTable::with_capacity(keys.len());
        let mut rows = Vec::with_capacity(keys.len());
        for row in (0..keys.len()).filter(|row| keys.takes(*row)) {
            let key = keys.group(row);
            let hash = xxh3_64(key);
            let is_it = |bucket: &Bucket| bucket.hash == hash && keys.group(bucket.row) == key;
            let number = groups.len();
            let entry = groups.entry(hash, is_it, |bucket| bucket.hash);
            let bucket = entry.or_insert(Bucket { hash, row, number });
            rows.push((bucket.get().number, keys.prefix(row), row));
        }
        rows.sort_unstable_by_key(|(number, prefix, _)| (*number, *prefix));
        let same = |left: &(usize, Prefix, usize), right: &(usize, Prefix, usize)| {
            left.0 == right.0 && left.1 == right.1
        };
        let undecided = rows
            .array_windows()
            .any(|[left, right]| same(left, right) && !keys.decides(left.2));
        if undecided {
            let mut whole = Vec::with_capacity(rows.len());
            for (number, prefix, row) in rows {
                whole.push((number, keys.whole(&self.encoder, row)?, prefix, row));
            }
            whole.sort_unstable_by_key(|(number, whole, ..)| (*number, *whole));
            let sorted = whole.into_iter();
            rows = sorted
                .map(|(number, _, prefix, row)| (number, prefix, row))
                .collect();
        }
        let mut starts = vec![0];
        for (_, rows) in &rows.iter().chunk_by(|(number, ..)| *number) {
            starts.push(starts.last().map_or(0, |start| start + rows.count()));
        }
        Ok(Arranged {
            rows: rows.into_iter().map(|(_, _, row)| row).collect(),
            keys,
            groups,
            starts,
        })
    }

    /// Forgets all rows: there are none any more.
    pub(super) fn clear(&mut self) {
        *self = self.hollow();
    }

    pub(super) fn bytes(&self) -> usize {
        let tables = self.tables.iter().map(HashTable::allocation_size);
        tables.map(allocated).sum::<usize>()
            + allocated(self.tables.capacity() * size_of::<HashTable<Group>>())
            + self.heap
    }

    fn group(&self, hash: u64, key: &[u8]) -> Option<&Group> {
        let table = match self.tables.as_slice() {
            [only] => only,
            many => many.get(table_of(hash))?,
        };
        table.find(hash, |group| group.hash == hash && *group.key == *key)
    }

    /// Brings the groups of rows close to the processor: the reads do not depend on each other, those of one change after the other do.
    fn touch(&self, keys: &Keys, rows: &[(usize, RowId)]) {
        for (row, _) in rows {
            let key = keys.group(*row);
            std::hint::black_box(self.group(xxh3_64(key), key));
        }
    }

    fn split_if_large(&mut self) {
        match self.tables.as_mut_slice() {
            [] => self.tables = vec![HashTable::new()],
            [only] if only.len() >= SPLIT_AT => {
                let groups = std::mem::take(only);
                let tables = std::iter::repeat_with(HashTable::new);
                self.tables = tables.take(TABLES).collect();
                for group in groups {
                    if let Some(table) = table_mut(&mut self.tables, group.hash) {
                        table.insert_unique(group.hash, group, |group| group.hash);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Tables are chosen by middle bits: the upper ones are the tables' own tags, the lower ones choose buckets.
fn table_of(hash: u64) -> usize {
    usize::from(hash.to_be_bytes()[3])
}

fn table_mut(tables: &mut [HashTable<Group>], hash: u64) -> Option<&mut HashTable<Group>> {
    match tables {
        [only] => Some(only),
        many => many.get_mut(table_of(hash)),
    }
}

/// A group of [`Arranged`]: one of its rows, and its number.
#[derive(Debug)]
struct Bucket {
    hash: u64,
    row: usize,
    number: usize,
}

/// Rows that an index takes in and does not have, by group and sort key.
#[derive(Debug)]
pub(super) struct Arranged {
    keys: Keys,
    groups: HashTable<Bucket>,
    /// Group by group.
    rows: Vec<usize>,
    /// Where each group begins, and the end.
    starts: Vec<usize>,
}

impl Arranged {
    pub(super) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The rows of one group, in order, by their numbers among the keys.
    pub(super) fn of_group(&self, group: &[u8]) -> &[usize] {
        let hash = xxh3_64(group);
        let is_it = |bucket: &Bucket| bucket.hash == hash && self.keys.group(bucket.row) == group;
        let bucket = self.groups.find(hash, is_it);
        let bounds = bucket.and_then(|bucket| self.starts.get(bucket.number..)?.first_chunk());
        let rows = bounds.and_then(|[from, to]| self.rows.get(*from..*to));
        rows.unwrap_or_default()
    }
}

/// What is looked for: a row by its keys.
#[derive(Clone, Copy)]
struct Probe<'a> {
    keys: &'a Keys,
    row: usize,
}

impl Probe<'_> {
    fn posting(&self, row: RowId) -> Posting {
        let prefix = self.keys.prefix(self.row);
        Posting { prefix, row }
    }

    /// How another row of the group compares with it, which is `posting`.
    fn compare(
        &self,
        encoder: &Encoder,
        other: &Posting,
        posting: &Posting,
        segments: Segments<'_>,
    ) -> Result<Ordering, Error> {
        if other.row == posting.row {
            return Ok(Ordering::Equal);
        }
        let keys = self.compare_keys(encoder, other, posting.prefix, segments)?;
        Ok(keys.then(other.row.cmp(&posting.row)))
    }

    fn compare_keys(
        &self,
        encoder: &Encoder,
        other: &Posting,
        prefix: Prefix,
        segments: Segments<'_>,
    ) -> Result<Ordering, Error> {
        let short = other.prefix.cmp(&prefix);
        if short != Ordering::Equal || self.keys.decides(self.row) {
            return Ok(short);
        }
        let (rows, at) = segments
            .place(other.row)
            .ok_or_else(|| Error::invariant("an ordered index has a row that is gone"))?;
        let other = encoder.whole_of(rows, at)?;
        Ok(other.bytes().cmp(self.keys.whole(encoder, self.row)?))
    }
}

#[cfg(test)]
mod tests;
