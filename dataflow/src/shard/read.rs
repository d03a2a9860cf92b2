//! Reads of collections and indexes: at an epoch that ended, or as of the last tick.
//!
//! What is away in a fork cannot be read. Called by `worker` between the calls that change the shard, also within a tick.

use arrow_array::{Array, ArrayRef, RecordBatch};
use flowstone_types::hash::hash_rows;
use flowstone_types::{Epoch, EvalError, ObjectId, Weights};

use super::{Collection, Shard};
use crate::batch::{make_batch, weights_of};
use crate::relation::Relation;
use crate::{Error, Snapshot};

impl Shard {
    /// This shard's part of a collection or index at `epoch`, which is at or above `since` and at most the last tick's (a later one reads the last).
    ///
    /// # Errors
    /// [`Error::UnknownCollection`]; [`Error::SinceAdvanced`].
    pub fn snapshot(&self, id: ObjectId, epoch: Epoch) -> Result<Snapshot, Error> {
        let (_, relation) = self.readable(id)?;
        self.check_since(epoch)?;
        relation.snapshot(epoch)
    }

    /// How many rows this shard's part of a collection or index has, each counted once; none of what is not there.
    #[must_use]
    pub fn rows(&self, id: ObjectId) -> u64 {
        let relation = self.readable(id).map(|(_, relation)| relation);
        relation.map_or(0, |relation| {
            u64::try_from(relation.distinct_rows()).unwrap_or(u64::MAX)
        })
    }

    /// The columns in which rows of a collection are unique, as it was created; `None` if there are none, for an index, and for what is not there.
    #[must_use]
    pub fn key_of(&self, id: ObjectId) -> Option<Vec<usize>> {
        self.collections.get(&id)?.key.clone()
    }

    /// The rows of an index or collection whose key is one of `keys` (one array per key column, one row per key), as of the last tick.
    ///
    /// The key is the index's, or the collection's (all columns if it has none). NULL finds NULL. Rows come in the order of `keys`.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`]; [`Error::Invariant`] if `keys` does not fit the key.
    pub fn lookup(&self, id: ObjectId, keys: &[ArrayRef]) -> Result<(RecordBatch, Weights), Error> {
        self.find(id, keys, None)?
            .ok_or_else(|| Error::invariant("a lookup without a bound stopped at one"))
    }

    /// The same as of `epoch`, which is at or above `since` and at most the last tick's. `None` if more than `rows_max` rows had to be looked at for one key:
    /// those of the key, and those that changed after the epoch.
    ///
    /// # Errors
    /// As [`Shard::lookup`], and [`Error::SinceAdvanced`].
    pub fn lookup_at(
        &self,
        id: ObjectId,
        keys: &[ArrayRef],
        epoch: Epoch,
        rows_max: usize,
    ) -> Result<Option<(RecordBatch, Weights)>, Error> {
        self.check_since(epoch)?;
        self.find(id, keys, Some((epoch, rows_max)))
    }

    /// The least evaluation error that a collection or index has on this shard at `epoch`.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`].
    pub fn error_at(&self, id: ObjectId, epoch: Epoch) -> Result<Option<EvalError>, Error> {
        let errors = self.readable(id)?.1.errors_at(epoch);
        Ok(errors.into_keys().next())
    }

    fn check_since(&self, epoch: Epoch) -> Result<(), Error> {
        if epoch < self.since {
            return Err(Error::SinceAdvanced {
                epoch,
                since: self.since,
            });
        }
        Ok(())
    }

    fn readable(&self, id: ObjectId) -> Result<(&Collection, &Relation), Error> {
        self.check_here(id)?;
        let collection = self
            .collections
            .get(&id)
            .ok_or(Error::UnknownCollection(id))?;
        Ok((collection, self.relations.get(collection.relation)?))
    }

    fn find(
        &self,
        id: ObjectId,
        keys: &[ArrayRef],
        at: Option<(Epoch, usize)>,
    ) -> Result<Option<(RecordBatch, Weights)>, Error> {
        let (collection, relation) = self.readable(id)?;
        if let Some((epoch, _)) = at {
            relation.check_readable(epoch)?;
        }
        let index = relation.index(collection.lookup)?;
        let same_type = |(column, key): (&usize, &ArrayRef)| {
            collection.schema.field(*column).data_type() == key.data_type()
        };
        if index.columns().len() != keys.len()
            || !itertools::zip_eq(index.columns(), keys).all(same_type)
        {
            return Err(Error::invariant(format!(
                "lookup in {id} by another key than its own"
            )));
        }
        let keys = keys
            .iter()
            .map(flowstone_types::normalize::normalize_array)
            .collect::<Vec<_>>();
        let (mut found, mut weights) = (Vec::new(), Vec::new());
        for key in hash_rows(&keys, keys.first().map_or(1, |key| key.len()))?
            .into_iter()
            .enumerate()
        {
            if let Some((epoch, rows_max)) = at
                && relation.lookup_cost(collection.lookup, key.1, epoch)? > rows_max
            {
                return Ok(None);
            }
            let at = at.map(|(epoch, _)| epoch);
            for (id, weight) in relation.lookup(collection.lookup, &keys, key, at)? {
                found.push(id);
                weights.push(weight);
            }
        }
        let rows = make_batch(&collection.schema, relation.gather(&found)?, found.len())?;
        Ok(Some((rows, weights_of(weights))))
    }
}
