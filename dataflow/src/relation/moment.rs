//! A relation at one moment of a tick, through its ordered indexes: as it stands, or as it will be when the tick's delta is applied.
//!
//! Owns how rows of the delta take their places among those that are there. Must not know what is read of them.

use std::cmp::Ordering;

use arrow_array::{ArrayRef, UInt32Array};
use flowstone_types::DeltaBatch;
use hashbrown::HashMap;

use super::ordered::{Arranged, OrderedIndex, Posting};
use super::{Gather, Relation, RowId};
use crate::Error;
use crate::batch::{add_weights, index as row_index};

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In the relation.
    Stored(RowId),
    /// In the delta.
    Added(usize),
}

/// A row of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
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
        let mut moment = Moment {
            delta: Some(delta),
            ..self.before()
        };
        for (row, id) in self.located(delta)?.iter().copied().enumerate() {
            let change = delta.weights.get(row);
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
        let added = match self.delta {
            Some(delta) if !self.added.is_empty() => Some(self.added_by(index, delta)?),
            _ => None,
        };
        Ok(Ordered {
            moment: self,
            index,
            added,
        })
    }

    fn added_by(&self, index: &OrderedIndex, delta: &DeltaBatch) -> Result<Arranged, Error> {
        let indices = self.added.iter().map(|row| row_index(*row));
        let indices = UInt32Array::from_iter_values(indices);
        let rows = flowstone_types::delta::take_rows(&delta.rows, &indices)?;
        let keys = index.keys(rows.columns(), rows.num_rows())?;
        index.arrange(keys)
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
    /// Rows of the delta that are not there yet, by their numbers in [`Moment::added`].
    added: Option<Arranged>,
}

impl Ordered<'_> {
    /// The rows of one group, in order. `group`: as [`OrderedIndex::groups`] encodes it.
    pub(crate) fn rows<'a>(
        &'a self,
        group: &[u8],
    ) -> impl Iterator<Item = Result<Entry, Error>> + use<'a> {
        let mut stored = self.stored(group).peekable();
        let mut added = self.added(group).iter().peekable();
        std::iter::from_fn(move || {
            let takes_added = match (stored.peek(), added.peek()) {
                (Some((posting, _)), Some(row)) => match self.compare(posting, **row) {
                    Ok(order) => order == Ordering::Greater,
                    Err(error) => return Some(Err(error)),
                },
                (stored, _) => stored.is_none(),
            };
            if takes_added {
                return self.entry_of_added(*added.next()?).map(Ok);
            }
            let (posting, weight) = stored.next()?;
            Some(Ok(self.entry_of_stored(posting, weight)))
        })
    }

    /// The first of them.
    pub(crate) fn first(&self, group: &[u8]) -> Result<Option<Place>, Error> {
        let (stored, added) = (self.stored(group).next(), self.added(group).first());
        self.either(stored, added.copied(), Ordering::Greater)
    }

    /// The last of them.
    pub(crate) fn last(&self, group: &[u8]) -> Result<Option<Place>, Error> {
        let (stored, added) = (self.stored(group).next_back(), self.added(group).last());
        self.either(stored, added.copied(), Ordering::Less)
    }

    /// One of the two: the one that is added if the other compares so with it.
    fn either(
        &self,
        stored: Option<(&Posting, Option<i64>)>,
        added: Option<usize>,
        takes_added: Ordering,
    ) -> Result<Option<Place>, Error> {
        let takes_added = match (stored, added) {
            (Some((posting, _)), Some(row)) => self.compare(posting, row)? == takes_added,
            (stored, _) => stored.is_none(),
        };
        Ok(if takes_added {
            let added = added.and_then(|row| self.moment.added.get(row));
            added.map(|number| Place::Added(*number))
        } else {
            stored.map(|(posting, _)| Place::Stored(posting.row))
        })
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

    fn compare(&self, stored: &Posting, added: usize) -> Result<Ordering, Error> {
        match &self.added {
            Some(rows) => {
                let segments = self.moment.relation.segments();
                self.index.compare(stored, (rows.keys(), added), segments)
            }
            None => Ok(Ordering::Less),
        }
    }

    /// Those that are stored: where, and what they weigh where the delta says so.
    fn stored<'a>(
        &'a self,
        group: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&'a Posting, Option<i64>)> + use<'a> {
        let changed = &self.moment.changed;
        self.index.of_group(group).filter_map(|posting| {
            // What is in the index has a weight.
            let weight = changed.get(&posting.row).copied();
            (weight != Some(0)).then_some((posting, weight))
        })
    }

    /// Those that are added, by their numbers among the keys.
    fn added(&self, group: &[u8]) -> &[usize] {
        let added = self.added.as_ref();
        added.map_or(&[], |added| added.of_group(group))
    }

    fn entry_of_stored(&self, posting: &Posting, weight: Option<i64>) -> Entry {
        Entry {
            place: Place::Stored(posting.row),
            weight: weight.unwrap_or_else(|| self.moment.relation.weight(posting.row)),
        }
    }

    fn entry_of_added(&self, row: usize) -> Option<Entry> {
        let number = *self.moment.added.get(row)?;
        Some(Entry {
            place: Place::Added(number),
            weight: self.moment.delta?.weights.get(number),
        })
    }
}
