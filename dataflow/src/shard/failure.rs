//! Dataflows that cannot go on.
//!
//! Owns what becomes of one. On the shard where it breaks it stops at once: its steps run no more, and what they made in this tick is forgotten. Between ticks
//! the caller ends it on all shards: it is no dataflow any more, and an error is all that its collection has. Must not know what broke.
//!
//! Invariants. What may be half changed is never read: not by those who ask for the collection, and not by other dataflows, for those that read a dataflow which
//! is ended are ended with it. Everything else in the tick goes on. While nothing breaks nothing here runs. What dataflows share through the registry goes on
//! for the others if one of them breaks; if it breaks itself, all that use it have failed.

use std::collections::BTreeSet;
use std::sync::Arc;

use flowstone_types::{Epoch, EvalError, ObjectId};

use super::Shard;
use crate::Error;
use crate::operator::RelationId;
use crate::relation::Relation;
use crate::step::Owner;

impl Shard {
    /// Ends a dataflow in error, between ticks and on every shard alike, also on those where it did not fail: its steps, arrangements and rows go, and from
    /// `epoch` on its collection, if it has one, holds `error` and nothing else. Earlier epochs of it are not readable any more. With it end all dataflows that
    /// read it, or what these make of it, with the same error: returned in the order they were made.
    ///
    /// Also for one that is away in a fork, which is of no use any more then, and for a view whose dataflow could not be made, as long as its collection was. A
    /// view that was ended and that nothing reads can be made anew by [`Shard::create_dataflow`], anything else after [`Shard::drop_object`]. Does nothing for
    /// what was ended or dropped before, and for what does not exist.
    ///
    /// # Errors
    /// [`Error::Invariant`] if a tick is open.
    pub fn fail_dataflow(
        &mut self,
        id: ObjectId,
        error: &EvalError,
        epoch: Epoch,
    ) -> Result<Vec<ObjectId>, Error> {
        if self.running.is_some() {
            return Err(Error::invariant(format!("{id} is ended within a tick")));
        }
        let collection = self.collections.get(&id);
        if !self.dataflows.contains_key(&id)
            && collection.is_none_or(|collection| collection.failed)
        {
            return Ok(Vec::new());
        }
        let dependents = self.dependents(id);
        // Those that read before what they read: a relation goes when nothing is arranged in it any more.
        for ended in dependents.iter().rev().chain([&id]) {
            self.end_dataflow(*ended, error, epoch)?;
        }
        self.forget_relations();
        self.last_epoch = self.last_epoch.max(epoch);
        Ok(dependents)
    }

    /// The dataflows that read `id`, or what these make of it, in the order they were made.
    pub(super) fn dependents(&self, id: ObjectId) -> Vec<ObjectId> {
        let mut by_age = self
            .dataflows
            .iter()
            .map(|(reader, dataflow)| (dataflow.steps.first().copied(), *reader, dataflow))
            .collect::<Vec<_>>();
        by_age.sort_unstable_by_key(|(first, ..)| *first);
        let mut ended = BTreeSet::from([id]);
        let mut dependents = Vec::new();
        for (_, reader, dataflow) in by_age {
            let imports = dataflow.imports.iter().map(|(collection, _)| collection);
            let shared = dataflow.uses.iter().map(|used| &used.collection);
            if imports
                .chain(shared)
                .any(|collection| ended.contains(collection))
                && ended.insert(reader)
            {
                dependents.push(reader);
            }
        }
        dependents
    }

    /// Leaves a collection with an error in the place of a dataflow that nothing reads any more.
    fn end_dataflow(&mut self, id: ObjectId, error: &EvalError, epoch: Epoch) -> Result<(), Error> {
        // An index may be one over the relation of another collection, and is given back below.
        let columns = match self.collections.get(&id) {
            Some(collection) => {
                let relation = self.relations.get(collection.relation)?;
                relation.index_columns(collection.lookup)?.to_vec()
            }
            None => Vec::new(),
        };
        self.remove_dataflow(id);
        let Some(collection) = self.collections.get(&id) else {
            return Ok(());
        };
        if collection.owns_relation {
            self.relations.0.remove(&collection.relation);
        }
        let schema = Arc::clone(&collection.schema);
        let mut relation = Relation::new(id.to_string(), schema, columns).with_history();
        relation.start_history(epoch);
        // Errors belong to any one shard.
        if self.config.index == 0 {
            relation.apply(None, &[(error.clone(), 1)], epoch)?;
        }
        let relation = self.add_relation(relation);
        if let Some(collection) = self.collections.get_mut(&id) {
            collection.relation = relation;
            collection.owns_relation = true;
            collection.lookup = 0;
            // It never changes again: what is made of it need not wait for a stage, nor differ on a shard where the dataflow was never made.
            collection.stage = 0;
            collection.failed = true;
        }
        Ok(())
    }

    /// Notes in the tick that is open that a dataflow, or what several share, broke.
    pub(super) fn stop(&mut self, owner: Owner, error: EvalError) -> Result<(), Error> {
        match owner {
            Owner::Dataflow(id) => self.stop_dataflow(id, error),
            Owner::Entry(relation) => self.stop_entry(relation, &error),
        }
    }

    /// An entry's steps stop, and with them all dataflows that use it. Until these are ended, whoever else comes to use it fails with them.
    fn stop_entry(&mut self, relation: RelationId, error: &EvalError) -> Result<(), Error> {
        let (Some(entry), Some(running)) = (self.registry.get_mut(relation), &mut self.running)
        else {
            return Err(Error::invariant(format!(
                "what dataflows share failed and is not there, or between ticks: {error}"
            )));
        };
        for number in &entry.steps {
            if let Some(step) = self.steps.get_mut(number) {
                running.dirty.remove(&(step.stage, *number));
                step.stop();
            }
        }
        entry.hydrated = false;
        running.fills.remove(&relation);
        running.pending.remove(&relation);
        self.may_compact.remove(&relation);
        let users: Vec<ObjectId> = entry.users.iter().copied().collect();
        for user in users {
            self.stop_dataflow(user, error.clone())?;
        }
        Ok(())
    }

    /// Its steps stop, and what they made in this tick is forgotten. Until it is ended its relations take part in nothing, and no epoch of the one that it
    /// exports can be read here.
    fn stop_dataflow(&mut self, id: ObjectId, error: EvalError) -> Result<(), Error> {
        let relations = self.own_relations(id);
        let (Some(dataflow), Some(running)) = (self.dataflows.get(&id), &mut self.running) else {
            return Err(Error::invariant(format!(
                "{id} failed and is not there, or between ticks: {error}"
            )));
        };
        for number in &dataflow.steps {
            if let Some(step) = self.steps.get_mut(number) {
                running.dirty.remove(&(step.stage, *number));
                step.stop();
            }
        }
        running.outputs.remove(&id);
        for number in relations {
            running.pending.remove(&number);
            self.with_history.remove(&number);
            self.may_compact.remove(&number);
            if let Some(relation) = self.relations.0.get_mut(&number) {
                relation.end_history();
            }
        }
        running.failed.entry(id).or_insert(error);
        Ok(())
    }

    /// What a relation belongs to; `None` for a base collection's. In a fork all that is nobody's is there for its dataflow.
    pub(super) fn owner_of(&self, relation: RelationId) -> Option<Owner> {
        if self.registry.get(relation).is_some() {
            return Some(Owner::Entry(relation));
        }
        self.dataflows
            .keys()
            .copied()
            .find(|id| self.own_relations(*id).contains(&relation))
            .or(self.lane.as_ref().map(|lane| lane.dataflow))
            .map(Owner::Dataflow)
    }

    /// The relations that go with a dataflow, and the one it exports to.
    pub(super) fn own_relations(&self, id: ObjectId) -> Vec<RelationId> {
        let private = self
            .dataflows
            .get(&id)
            .map_or(&[][..], |dataflow| &dataflow.private);
        let exported = self
            .collections
            .get(&id)
            .filter(|collection| collection.owns_relation)
            .map(|collection| collection.relation);
        private.iter().copied().chain(exported).collect()
    }
}

#[cfg(test)]
mod tests;
