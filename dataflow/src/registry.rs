//! The registry of arrangements: rows of a collection on other shards than its own, once for all dataflows that need them there.
//!
//! Owns which entries there are, the names of the steps that feed each, and who uses it. Must not know plans or ticks: rendering adds entries and users, the
//! executor runs their steps and takes them away.
//!
//! Invariants. Every entry has a user. Its steps belong to no dataflow: one that fails or goes leaves them to the others. Entries, their steps and their users
//! are the same on every shard, but for a dataflow that could not be rendered on one of them, until it is ended or dropped.

use std::collections::{BTreeMap, BTreeSet};

use flowstone_types::ObjectId;

use crate::operator::RelationId;
use crate::step::{Route, StepId};

/// Which rows of which collection, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lineage {
    pub(crate) collection: ObjectId,
    /// Rows with NULL in one of these columns are left out. Ascending.
    pub(crate) without_nulls: Vec<usize>,
    pub(crate) route: Route,
}

/// One relation that dataflows share.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) lineage: Lineage,
    /// The stage at whose end its changes are known.
    pub(crate) stage: usize,
    /// Reads the collection.
    pub(crate) source: StepId,
    /// Feeds the relation; its consumers are the steps of hydrated users that read the entry.
    pub(crate) share: StepId,
    /// All of its steps, these two among them.
    pub(crate) steps: Vec<StepId>,
    pub(crate) users: BTreeSet<ObjectId>,
    /// Whether the relation holds what the collection does, and the steps take part in ticks.
    pub(crate) hydrated: bool,
}

/// A dataflow's use of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) entry: RelationId,
    pub(crate) collection: ObjectId,
    /// The dataflow's step that reads the entry.
    pub(crate) step: StepId,
}

/// The entries of a shard, by their relations.
#[derive(Debug, Default)]
pub(crate) struct Registry(BTreeMap<RelationId, Entry>);

impl Registry {
    pub(crate) fn find(&self, lineage: &Lineage) -> Option<RelationId> {
        self.0
            .iter()
            .find(|(_, entry)| entry.lineage == *lineage)
            .map(|(relation, _)| *relation)
    }

    pub(crate) fn get(&self, relation: RelationId) -> Option<&Entry> {
        self.0.get(&relation)
    }

    pub(crate) fn get_mut(&mut self, relation: RelationId) -> Option<&mut Entry> {
        self.0.get_mut(&relation)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (RelationId, &Entry)> {
        self.0.iter().map(|(relation, entry)| (*relation, entry))
    }

    pub(crate) fn add(&mut self, relation: RelationId, entry: Entry) {
        self.0.insert(relation, entry);
    }

    /// One user less. The entry if that was its last: its steps and its relation are the caller's to remove.
    pub(crate) fn release(&mut self, relation: RelationId, user: ObjectId) -> Option<Entry> {
        let entry = self.0.get_mut(&relation)?;
        entry.users.remove(&user);
        if entry.users.is_empty() {
            self.0.remove(&relation)
        } else {
            None
        }
    }

    /// Takes the entries over a collection out, whoever uses them.
    pub(crate) fn remove_over(&mut self, collection: ObjectId) -> Vec<(RelationId, Entry)> {
        let relations: Vec<RelationId> = self
            .iter()
            .filter(|(_, entry)| entry.lineage.collection == collection)
            .map(|(relation, _)| relation)
            .collect();
        relations
            .into_iter()
            .filter_map(|relation| Some((relation, self.0.remove(&relation)?)))
            .collect()
    }
}
