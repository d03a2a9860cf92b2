//! The indexes of a relation, of either kind: who uses one, and how far it is built.
//!
//! Owns what a relation does with all of its indexes alike. Must not know when: it is told which rows come and go.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::build::add_rows;
use super::index::KeyIndex;
use super::ordered::{self, Order, OrderedIndex};
use super::segment::{Segment, Segments};
use super::{RowId, weight};
use crate::Error;
use crate::partition::hash_columns;

/// What an index finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IndexSpec {
    /// Rows by the values of these columns together.
    Key(Vec<usize>),
    /// The rows of a group in order.
    Ordered(Order),
}

#[derive(Debug)]
pub(super) enum Index {
    Key(KeyIndex),
    Ordered(OrderedIndex),
}

/// What a row costs to add to an ordered index, by that to a hash index: its keys are encoded and its place in its group is searched.
const ORDERED_COST: usize = 8;

/// What an index of either kind has of some rows.
pub(super) enum Keys {
    Hashes(Vec<u64>),
    Ordered(Box<ordered::Keys>),
}

/// One index.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) index: Index,
    /// How many operators and objects read this index.
    pub(super) users: usize,
    /// Where building goes on, segment and row: no row there or further on is in the index. `None` once it is complete.
    pub(super) unbuilt: Option<(usize, usize)>,
}

impl Slot {
    /// An empty index over rows of `schema`, with one user.
    ///
    /// # Errors
    /// [`Error::Invariant`] if a column is out of range, [`Error::Type`] if one cannot be hashed or ordered: whoever asks is told that this is no index, not
    /// whoever builds it.
    pub(super) fn new(spec: &IndexSpec, schema: &SchemaRef) -> Result<Self, Error> {
        Ok(match spec {
            IndexSpec::Key(columns) => {
                let none = RecordBatch::new_empty(SchemaRef::clone(schema));
                hash_columns(none.columns(), columns, 0)?;
                Self::by_key(columns.clone())
            }
            IndexSpec::Ordered(order) => {
                Self::of(Index::Ordered(OrderedIndex::new(order, schema)?))
            }
        })
    }

    /// An empty hash index over columns that are there, with one user.
    pub(super) fn by_key(columns: Vec<usize>) -> Self {
        Self::of(Index::Key(KeyIndex::new(columns)))
    }

    const fn of(index: Index) -> Self {
        Self {
            index,
            users: 1,
            unbuilt: None,
        }
    }

    /// One for the same users over no rows.
    pub(super) fn hollow(&self) -> Self {
        let index = match &self.index {
            Index::Key(index) => Index::Key(KeyIndex::new(index.columns().to_vec())),
            Index::Ordered(index) => Index::Ordered(index.hollow()),
        };
        Self {
            users: self.users,
            ..Self::of(index)
        }
    }

    /// Whether it finds this.
    pub(super) fn finds(&self, spec: &IndexSpec) -> bool {
        match (&self.index, spec) {
            (Index::Key(index), IndexSpec::Key(columns)) => index.columns() == columns,
            (Index::Ordered(index), IndexSpec::Ordered(order)) => index.order() == order,
            _ => false,
        }
    }

    /// Whether it finds what another one does.
    pub(super) fn finds_the_same(&self, other: &Self) -> bool {
        match (&self.index, &other.index) {
            (Index::Key(index), Index::Key(other)) => index.columns() == other.columns(),
            (Index::Ordered(index), Index::Ordered(other)) => index.order() == other.order(),
            _ => false,
        }
    }

    /// The same if it is ordered.
    pub(super) fn ordered_mut(&mut self) -> Option<&mut OrderedIndex> {
        match &mut self.index {
            Index::Key(_) => None,
            Index::Ordered(index) => Some(index),
        }
    }

    /// Whether rows that are appended to a segment are to be added at once: building has passed its end, and will not come there again.
    pub(super) fn covers(&self, segment: usize) -> bool {
        self.unbuilt.is_none_or(|(reached, _)| segment < reached)
    }

    /// What it costs to add a row, by what that costs with a hash index.
    pub(super) const fn cost(&self) -> usize {
        match &self.index {
            Index::Key(_) => 1,
            Index::Ordered(_) => ORDERED_COST,
        }
    }

    /// What [`Self::add`] needs of rows.
    pub(super) fn keys(&self, rows: &RecordBatch) -> Result<Keys, Error> {
        let (columns, count) = (rows.columns(), rows.num_rows());
        Ok(match &self.index {
            Index::Key(index) => Keys::Hashes(hash_columns(columns, index.columns(), count)?),
            Index::Ordered(index) => Keys::Ordered(Box::new(index.keys(columns, count)?)),
        })
    }

    /// Adds rows of one segment, from a position on, by their `keys`. Those that are gone, which have no weight, are left out; none are if there are no `weights`.
    pub(super) fn add(
        &mut self,
        segments: &[Option<Segment>],
        (segment, from): (usize, usize),
        keys: Keys,
        weights: Option<&[i64]>,
    ) -> Result<(), Error> {
        match (&mut self.index, keys) {
            (Index::Key(index), Keys::Hashes(hashes)) => {
                add_rows(index, segments, (segment, from), &hashes, weights);
            }
            (Index::Ordered(index), Keys::Ordered(keys)) => {
                let live =
                    (0..keys.len()).filter(|row| weights.is_none_or(|weights| weights[*row] != 0));
                let rows: Vec<(usize, RowId)> = live
                    .map(|row| (row, RowId::new(segment, from + row)))
                    .collect();
                index.insert(&keys, &rows, Segments::of(segments))?;
            }
            _ => return Err(Error::invariant("keys of another kind of index")),
        }
        Ok(())
    }

    /// Takes out the rows of a segment, which is not among `segments` any more.
    pub(super) fn forget(
        &mut self,
        (number, segment): (usize, &Segment),
        segments: &[Option<Segment>],
    ) -> Result<(), Error> {
        match &mut self.index {
            Index::Key(index) => {
                let mut hashes = Vec::with_capacity(segment.len);
                for piece in &segment.pieces {
                    hashes.extend(hash_columns(
                        piece.rows.columns(),
                        index.columns(),
                        piece.rows.num_rows(),
                    )?);
                }
                hashes.sort_unstable();
                hashes.dedup();
                for hash in hashes {
                    index.purge(hash, |id| weight(segments, id) != 0);
                }
            }
            Index::Ordered(index) => {
                for piece in &segment.pieces {
                    let keys = index.keys(piece.rows.columns(), piece.rows.num_rows())?;
                    // Those that are gone left it when they went.
                    let live =
                        (0..keys.len()).filter(|row| segment.weights.get(piece.start + row) != 0);
                    let rows: Vec<(usize, RowId)> = live
                        .map(|row| (row, RowId::new(number, piece.start + row)))
                        .collect();
                    let segments = Segments::of(segments).and(number, segment);
                    index.remove(&keys, &rows, segments)?;
                }
            }
        }
        // Another segment that gets the number is built from its first row on.
        if let Some((reached, row)) = &mut self.unbuilt
            && *reached == number
        {
            *row = 0;
        }
        Ok(())
    }

    /// Forgets all rows: there are none any more.
    pub(super) fn clear(&mut self) {
        self.unbuilt = None;
        match &mut self.index {
            Index::Key(index) => index.clear(),
            Index::Ordered(index) => index.clear(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.index {
            Index::Key(index) => index.bytes(),
            Index::Ordered(index) => index.bytes(),
        }
    }
}
