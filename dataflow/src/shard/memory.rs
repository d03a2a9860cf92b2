//! What a shard holds in memory, by object and by what holds it.
//!
//! Owns the attribution: rows belong to the collection that stores them, an index to the object that made it, else to the dataflow that asked for it, an entry
//! of the registry with its indexes to the collection that it arranges, and the state of an operator to its dataflow; that of a subscription, which is no object,
//! to the first collection that it reads. What two objects share belongs to the first by id, so that the sum is what is held. Of what is away in a fork there are
//! the changes that it has yet to see and those that it has put out, each for what its rows show, though a relation may share them; what the fork holds itself is
//! not known here. Nor is what compiled plans take.
//! Called by the worker about once a second. Cost: O(pieces of relations + operators), not of rows or groups.

use std::collections::{BTreeMap, BTreeSet};

use flowstone_proto::message::CollectionStatistics;
use flowstone_types::ObjectId;

use super::{Dataflow, Shard};
use crate::held::Held;
use crate::operator::RelationId;
use crate::relation::Relation;

/// Bytes by object and holder, each relation's indexes once.
struct Account<'a> {
    held: &'a Held,
    indexes: BTreeSet<(RelationId, usize)>,
    bytes: BTreeMap<ObjectId, BTreeMap<String, u64>>,
}

impl<'a> Account<'a> {
    const fn new(held: &'a Held) -> Self {
        Self {
            held,
            indexes: BTreeSet::new(),
            bytes: BTreeMap::new(),
        }
    }

    fn add(&mut self, id: ObjectId, holder: &str, bytes: usize) {
        let of_object = self.bytes.entry(id).or_default();
        let sum = of_object.entry(holder.to_owned()).or_insert(0);
        *sum = sum.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

impl Shard {
    /// How many rows and groups a dataflow keeps for itself on this shard: distinct rows of its own arrangements, groups, the last recomputed result.
    ///
    /// Arrangements it shares, with collections or through the registry, and the content it exports are not counted.
    #[must_use]
    pub fn dataflow_state(&self, id: ObjectId) -> Option<u64> {
        let dataflow = self.dataflows.get(&id)?;
        let exported = self
            .collections
            .get(&id)
            .map(|collection| collection.relation);
        let relations = dataflow
            .private
            .iter()
            .filter(|relation| Some(**relation) != exported);
        let rows: usize = relations
            .filter_map(|relation| self.relations.0.get(relation))
            .map(Relation::distinct_rows)
            .sum();
        let groups: usize = dataflow
            .steps
            .iter()
            .filter_map(|step| self.steps.get(step)?.kind.operator())
            .map(|operator| operator.state())
            .sum();
        u64::try_from(rows + groups).ok()
    }

    /// What this shard holds of every collection and index. What a fork holds is not held here; what waits for it or for its return is counted.
    #[must_use]
    pub fn statistics(&self) -> BTreeMap<ObjectId, CollectionStatistics> {
        self.statistics_beside(&Held::default())
    }

    /// The same without the buffers of rows that were counted already, of other shards or elsewhere.
    #[must_use]
    pub fn statistics_beside(&self, held: &Held) -> BTreeMap<ObjectId, CollectionStatistics> {
        let mut account = Account::new(held);
        let stored: BTreeSet<RelationId> = self
            .collections
            .values()
            .map(|collection| collection.relation)
            .collect();
        for (id, collection) in &self.collections {
            if collection.owns_relation {
                self.add_rows(&mut account, (*id, "rows"), collection.relation);
                self.add_index(&mut account, (*id, "index"), (collection.relation, 0));
            }
            let own = (collection.relation, collection.lookup);
            self.add_index(&mut account, (*id, "index"), own);
        }
        for (relation, entry) in self.registry.iter() {
            let holder = (entry.lineage.collection, "arrangement");
            self.add_rows(&mut account, holder, relation);
            self.add_indexes(&mut account, holder, relation);
        }
        for (id, dataflow) in &self.dataflows {
            let id = &self.answers_for(*id, dataflow);
            for index in &dataflow.indexes {
                self.add_index(&mut account, (*id, "arrangement"), *index);
            }
            for (holder, bytes) in dataflow.link.iter().flat_map(|link| link.bytes()) {
                account.add(*id, holder, bytes);
            }
            for relation in dataflow
                .private
                .iter()
                .filter(|relation| !stored.contains(relation))
            {
                self.add_rows(&mut account, (*id, "arrangement"), *relation);
                self.add_indexes(&mut account, (*id, "arrangement"), *relation);
            }
            for operator in dataflow
                .steps
                .iter()
                .filter_map(|step| self.steps.get(step)?.kind.operator())
            {
                if let Some((name, bytes)) = operator.state_bytes(account.held) {
                    account.add(*id, name, bytes);
                }
            }
        }
        // Indexes whose dataflow is none of those above.
        for (id, collection) in &self.collections {
            self.add_indexes(&mut account, (*id, "index"), collection.relation);
        }
        self.collections
            .iter()
            .filter_map(|(id, collection)| {
                let relation = self.relations.0.get(&collection.relation)?;
                let held = account.bytes.remove(id).unwrap_or_default();
                let statistics = CollectionStatistics {
                    bytes: held.values().copied().fold(0, u64::saturating_add),
                    held,
                    ..relation.statistics()
                };
                Some((*id, statistics))
            })
            .collect()
    }

    /// Whose memory that of a dataflow is.
    fn answers_for(&self, id: ObjectId, dataflow: &Dataflow) -> ObjectId {
        if self.collections.contains_key(&id) {
            return id;
        }
        let imports = dataflow.imports.iter().map(|(collection, _)| *collection);
        let shared = dataflow.uses.iter().map(|used| used.collection);
        imports.chain(shared).min().unwrap_or(id)
    }

    fn add_rows(
        &self,
        account: &mut Account<'_>,
        (id, holder): (ObjectId, &str),
        relation: RelationId,
    ) {
        if let Some(relation) = self.relations.0.get(&relation) {
            let bytes = relation.row_bytes(account.held);
            account.add(id, holder, bytes);
        }
    }

    fn add_index(
        &self,
        account: &mut Account<'_>,
        (id, holder): (ObjectId, &str),
        index: (RelationId, usize),
    ) {
        if account.indexes.insert(index)
            && let Some(relation) = self.relations.0.get(&index.0)
        {
            account.add(id, holder, relation.index_bytes(index.1));
        }
    }

    fn add_indexes(
        &self,
        account: &mut Account<'_>,
        holder: (ObjectId, &str),
        relation: RelationId,
    ) {
        let numbers = self
            .relations
            .0
            .get(&relation)
            .map_or(0..0, Relation::index_numbers);
        for number in numbers {
            self.add_index(account, holder, (relation, number));
        }
    }
}
