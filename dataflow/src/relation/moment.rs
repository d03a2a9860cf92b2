//! A relation at one moment of a tick, through its ordered indexes: as it stands, or as it will be when the tick's delta is applied.
//!
//! Owns how rows of the delta take their places among those that are there. Must not know what is read of them.

use arrow_array::{ArrayRef, UInt32Array};
use flowstone_types::DeltaBatch;
use hashbrown::HashMap;
use itertools::Itertools;

use super::ordered::{Entries, OrderedIndex};
use super::{Gather, Relation, RowId};
use crate::Error;
use crate::batch::{add_weights, index as row_index};

/// Where a row is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// In the relation.
    Stored(RowId),
    /// In the delta.
    Added(usize),
}

/// A row of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// The encoded sort key.
    pub(crate) order: &'a [u8],
    pub(crate) place: Place,
    /// Above zero.
    pub(crate) weight: i64,
}

/// The rows of a relation at one moment.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    relation: &'a Relation,
    delta: Option<&'a DeltaBatch>,
    /// What those that are there weigh, where the delta says otherwise.
    changed: HashMap<RowId, i64>,
    /// Those of the delta that are not there yet, ascending.
    added: Vec<usize>,
}

impl Relation {
    /// The rows as they are.
    pub(crate) fn before(&self) -> Moment<'_> {
        Moment {
            relation: self,
            delta: None,
            changed: HashMap::new(),
            added: Vec::new(),
        }
    }

    /// The rows as they will be when the consolidated `delta` is applied. Cost: O(|δ|).
    ///
    /// # Errors
    /// [`Error::NegativeWeight`] if a row would be there less than zero times.
    pub(crate) fn after<'a>(&'a self, delta: &'a DeltaBatch) -> Result<Moment<'a>, Error> {
        let columns = delta.rows.columns();
        let mut moment = Moment {
            delta: Some(delta),
            ..self.before()
        };
        for (row, hash) in self
            .identity_hashes(columns, delta.len())?
            .into_iter()
            .enumerate()
        {
            let change = delta.weights.get(row);
            let id = self.find(hash, columns, row)?;
            let weight = add_weights(id.map_or(0, |id| self.weight(id)), change)?;
            if weight < 0 {
                return Err(Error::NegativeWeight(self.name.clone()));
            }
            match id {
                Some(id) => {
                    moment.changed.insert(id, weight);
                }
                None => moment.added.push(row),
            }
        }
        Ok(moment)
    }
}

impl Moment<'_> {
    /// The rows by index `number`, which is an ordered one and complete.
    pub(crate) fn ordered(&self, number: usize) -> Result<Ordered<'_>, Error> {
        let index = self.relation.ordered(number)?;
        let mut added = Entries::default();
        if let Some(delta) = self.delta
            && !self.added.is_empty()
        {
            let indices = self.added.iter().map(|row| row_index(*row));
            let indices = UInt32Array::from_iter_values(indices);
            let rows = flowstone_types::delta::take_rows(&delta.rows, &indices)?;
            let keys = index.keys(rows.columns(), rows.num_rows())?;
            for (key, row) in itertools::zip_eq(keys, &self.added) {
                if let Some(key) = key {
                    added.insert(key, u64::from(row_index(*row)));
                }
            }
        }
        Ok(Ordered {
            moment: self,
            index,
            added,
        })
    }

    fn gather(&self, places: &[Place]) -> Result<(Gather<'_>, Vec<(usize, usize)>), Error> {
        let mut gather = Gather::default();
        let mut found = Vec::with_capacity(places.len());
        for place in places {
            found.push(match (place, self.delta) {
                (Place::Stored(id), _) => self.relation.gather_place(*id, &mut gather)?,
                (Place::Added(row), Some(delta)) => (gather.source(&delta.rows), *row),
                (Place::Added(_), None) => {
                    return Err(Error::invariant("row of a delta that is not there"));
                }
            });
        }
        Ok((gather, found))
    }
}

/// The same by one of its ordered indexes.
#[derive(Debug)]
pub(crate) struct Ordered<'a> {
    moment: &'a Moment<'a>,
    index: &'a OrderedIndex,
    /// The rows of the delta that are not there yet, by their number.
    added: Entries,
}

impl Ordered<'_> {
    /// The rows of one group, in order. `group`: as [`OrderedIndex::groups`] encodes it.
    pub(crate) fn rows<'a>(&'a self, group: &'a [u8]) -> impl Iterator<Item = Entry<'a>> {
        let stored = self.stored(group);
        stored.merge_by(self.added(group), |stored, added| {
            stored.order <= added.order
        })
    }

    /// The first of them.
    pub(crate) fn first(&self, group: &[u8]) -> Option<Place> {
        let (stored, added) = (self.stored(group).next(), self.added(group).next());
        let first = match (stored, added) {
            (Some(stored), Some(added)) if added.order < stored.order => added,
            (stored, added) => stored.or(added)?,
        };
        Some(first.place)
    }

    /// The last of them.
    pub(crate) fn last(&self, group: &[u8]) -> Option<Place> {
        let (stored, added) = (
            self.stored(group).next_back(),
            self.added(group).next_back(),
        );
        let last = match (stored, added) {
            (Some(stored), Some(added)) if added.order > stored.order => added,
            (stored, added) => stored.or(added)?,
        };
        Some(last.place)
    }

    /// One column of the rows at `places`.
    pub(crate) fn column(&self, column: usize, places: &[Place]) -> Result<ArrayRef, Error> {
        let (gather, places) = self.moment.gather(places)?;
        gather.column(self.moment.relation.schema(), column, &places)
    }

    /// All columns of the rows at `places`.
    pub(crate) fn columns(&self, places: &[Place]) -> Result<Vec<ArrayRef>, Error> {
        let (gather, places) = self.moment.gather(places)?;
        gather.columns(self.moment.relation.schema(), &places)
    }

    fn stored<'a>(&'a self, group: &'a [u8]) -> impl DoubleEndedIterator<Item = Entry<'a>> {
        let moment = self.moment;
        self.index.of_group(group).filter_map(move |(order, id)| {
            let changed = moment.changed.get(&id).copied();
            let weight = changed.unwrap_or_else(|| moment.relation.weight(id));
            (weight != 0).then_some(Entry {
                order,
                place: Place::Stored(id),
                weight,
            })
        })
    }

    fn added<'a>(&'a self, group: &'a [u8]) -> impl DoubleEndedIterator<Item = Entry<'a>> {
        let weights = self.moment.delta.map(|delta| &delta.weights);
        self.added.of_group(group).filter_map(move |(order, row)| {
            let row = usize::try_from(row).ok()?;
            Some(Entry {
                order,
                place: Place::Added(row),
                weight: weights?.get(row),
            })
        })
    }
}
