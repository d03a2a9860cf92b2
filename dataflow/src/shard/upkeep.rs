//! What is done to relations between ticks, in slices: history is forgotten, segments are compacted, indexes are built.
//!
//! Owns which relations there is something to do for. Must not know how it is done, nor how long a slice takes.
//! Called by the worker when nothing else waits; a fork does it at the end of each of its ticks ([`super::lane`]), for nobody waits for it, and it may never be
//! idle. The content of no relation changes here.

use flowstone_types::{Epoch, ObjectId};

use super::Shard;
use crate::Error;
use crate::operator::RelationId;

impl Shard {
    /// No one will read below `since` any more.
    pub fn allow_compaction(&mut self, since: Epoch) {
        self.since = self.since.max(since);
        self.tell_forks(since);
        let relations = &mut self.relations;
        let may_compact = &mut self.may_compact;
        self.with_history.retain(|id| {
            let Some(relation) = relations.0.get_mut(id) else {
                return false;
            };
            relation.allow_compaction(since);
            may_compact.insert(*id);
            relation.has_history()
        });
    }

    /// Compacts relations until about `fuel` rows were looked at. Returns whether there is more to do. Does nothing within a tick.
    pub fn maintain(&mut self, fuel: usize) -> bool {
        if self.running.is_some() {
            return true;
        }
        let mut fuel = fuel;
        while fuel > 0
            && let Some(id) = self.may_compact.pop_first()
        {
            let Some(relation) = self.relations.0.get_mut(&id) else {
                continue;
            };
            if !relation.wants_compaction() {
                continue;
            }
            match relation.compact(fuel) {
                Ok(left) => fuel = left,
                Err(error) => self.failure = Some(error),
            }
            if relation.wants_compaction() {
                self.may_compact.insert(id);
            }
        }
        !self.may_compact.is_empty()
    }

    /// Builds indexes that dataflows were created to use, over rows that were there before, until about `fuel` rows were looked at; fewer where they are put in
    /// order, which takes longer. Returns whether there is more to do. Does nothing within a tick. [`Shard::begin_hydration`] waits for nobody: what it needs and
    /// is not built by then it builds itself, in one go: who cannot have that builds until [`Shard::is_built`] first.
    pub fn build(&mut self, fuel: usize) -> bool {
        let mut fuel = if self.running.is_some() { 0 } else { fuel };
        while fuel > 0
            && let Some(id) = self.building.first().copied()
        {
            let relation = self.relations.0.get_mut(&id);
            let built = relation.map(|relation| relation.build(fuel));
            match built.unwrap_or(Ok(fuel)) {
                // What is left says that this one is complete.
                Ok(left) => fuel = left,
                Err(error) => self.failure = Some(error),
            }
            if fuel > 0 {
                self.building.remove(&id);
            }
        }
        !self.building.is_empty()
    }

    /// Notes those of the relations whose indexes are to be built.
    pub(super) fn note_unbuilt(&mut self, relations: impl Iterator<Item = RelationId>) {
        for id in relations {
            let relation = self.relations.0.get(&id);
            if relation.is_some_and(|relation| !relation.is_built()) {
                self.building.insert(id);
            }
        }
    }

    /// Builds what is missing of the indexes that dataflows use.
    pub(super) fn complete_indexes(&mut self, ids: &[ObjectId]) -> Result<(), Error> {
        for dataflow in ids.iter().filter_map(|id| self.dataflows.get(id)) {
            for (relation, index) in &dataflow.indexes {
                let relation = self.relations.get_mut(*relation)?;
                relation.build_index(*index, usize::MAX)?;
            }
        }
        Ok(())
    }

    /// Relations that are gone need no upkeep.
    pub(super) fn forget_relations(&mut self) {
        self.with_history
            .retain(|relation| self.relations.0.contains_key(relation));
        self.may_compact
            .retain(|relation| self.relations.0.contains_key(relation));
        self.building
            .retain(|relation| self.relations.0.contains_key(relation));
    }
}
