//! The side lane: a dataflow has its first tick beside the live shard, which goes on meanwhile.
//!
//! ```text
//! create_dataflow, fork                on the live shards, between the same two ticks
//! build                                on the live shards, in slices between ticks
//! begin_hydration and what follows     on the forks, once, as of the last tick before the fork
//! begin_tick and what follows          on the forks, for every tick that the live shards have run since, also if several have one epoch
//! join                                 on the live shards, between ticks, when the forks have run the last one
//! ```
//!
//! Owns what goes into a fork and what comes back. Must not know where forks run, nor how they get what the live shards put out.
//!
//! Invariants. A fork is a shard with one dataflow, under the names that its steps and relations have on the live one; forks of all shards are a cluster of
//! their own. What the dataflow reads is copied into it and goes its own way there: nothing a fork does changes the live shard, and the other way round, but for
//! numbers that decide about no row ([`Link`]). Both come to the same rows, for they apply the same changes; where these are differs, so that nothing which names
//! a place of a row is kept over ticks by an operator, and indexes are built on either side. While a dataflow is away it has its record here, with what it uses
//! held, and an empty relation in the place of each that went: it can be dropped and ended like any other, and nothing else can be made of it.
//! An entry of the registry that nobody has filled is filled in the fork. Whoever joins first brings it along; the others find it filled.
//! Forking and joining take time by the number of segments, not of rows. A fork looks after its relations itself, after each of its ticks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use flowstone_types::{Epoch, ObjectId};

use super::{Collection, CollectionInput, Dataflow, Progress, Shard};
use crate::Error;
use crate::batch::Changes;
use crate::held::shown;
use crate::operator::RelationId;
use crate::registry::Entry;
use crate::relation::Relation;
use crate::step::StepId;

/// What makes a shard a fork of another one.
#[derive(Debug)]
pub(super) struct Lane {
    /// The dataflow that is away here.
    pub(super) dataflow: ObjectId,
    /// Relations of collections whose rows are read by the first tick only: after it their changes are passed on, and not kept.
    passing: BTreeSet<RelationId>,
    link: Arc<Link>,
}

/// What a shard and its fork let each other know while they run: how much either holds, and for how long.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// No one will read the shard below this epoch any more.
    since: AtomicU64,
    /// Bytes of the changes that the shard has put out for the fork, and of those that the fork has taken in.
    sent: AtomicUsize,
    seen: AtomicUsize,
    /// Bytes of what the fork has put out: it is kept until the dataflow is back.
    put_out: AtomicUsize,
}

impl Link {
    /// What is held of the dataflow on its way to and from the fork, by holder, if anything is.
    pub(super) fn bytes(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let [sent, seen, put_out] =
            [&self.sent, &self.seen, &self.put_out].map(|bytes| bytes.load(Ordering::Relaxed));
        let held = [("queue", sent.saturating_sub(seen)), ("output", put_out)];
        held.into_iter().filter(|(_, bytes)| *bytes > 0)
    }
}

impl Shard {
    /// The collections that a dataflow reads, itself or through what it shares with others, by id: a fork of it needs their changes.
    #[must_use]
    pub fn imports_of(&self, id: ObjectId) -> Vec<ObjectId> {
        let Some(dataflow) = self.dataflows.get(&id) else {
            return Vec::new();
        };
        let imports = dataflow.imports.iter().map(|(collection, _)| *collection);
        let shared = dataflow.uses.iter().map(|used| used.collection);
        let all: BTreeSet<ObjectId> = imports.chain(shared).collect();
        all.into_iter().collect()
    }

    /// Takes a dataflow that was made and not hydrated out of this shard, into one of its own with copies of what it reads: between ticks, and on every shard
    /// alike. The dataflow is away then, until [`Shard::join`]: it puts out nothing here, it cannot be read and nothing can be made that reads it
    /// ([`Error::Away`]). It can be dropped, or ended with [`Shard::fail_dataflow`], like any other; its fork is of no use afterwards. It fails here too, if
    /// something breaks that it shares ([`crate::TickOutput::failed`]).
    ///
    /// The forks run like the shards of a cluster, exchanging messages among themselves: first [`Shard::begin_hydration`] of the one dataflow at this shard's
    /// last epoch or a later one, then [`Shard::begin_tick`] for each later tick of this shard, in order, with what this shard has put out in it for
    /// [`Shard::imports_of`] the dataflow, as [`crate::CollectionInput::Deltas`] and [`crate::CollectionInput::Errors`]; without any if there is nothing.
    /// They put out what the dataflow would have put out here, and nothing else. What breaks in a fork, also in its copies, is the dataflow's failure: it is to be
    /// ended here then, and the forks run no more. Below what this shard may forget ([`Shard::allow_compaction`]) they forget as well.
    ///
    /// Cost: O(segments of what it reads). Building indexes over the copies is left to the fork ([`Shard::build`], else its hydration).
    ///
    /// # Errors
    /// [`Error::UnknownCollection`] for what is not a dataflow; [`Error::Away`] if it or an input is away; [`Error::Invariant`] if a tick is open, if it or what
    /// reads it was hydrated or made, or if an input was not hydrated. Nothing has changed then.
    pub fn fork(&mut self, id: ObjectId) -> Result<Self, Error> {
        let dataflow = self.forkable(id)?;
        let mut forked = self.copy_inputs(id, dataflow)?;
        self.hand_over(id, &mut forked);
        Ok(forked)
    }

    /// Whether the indexes that a dataflow uses on this shard are complete, so that it can be joined: see [`Shard::build`].
    #[must_use]
    pub fn is_built(&self, id: ObjectId) -> bool {
        let built = |(number, index): &(RelationId, usize)| {
            let relation = self.relations.0.get(number);
            relation.is_some_and(|relation| relation.is_complete(*index))
        };
        let dataflow = self.dataflows.get(&id);
        dataflow.is_some_and(|dataflow| dataflow.indexes.iter().all(built))
    }

    /// Puts a dataflow back that is away, hydrated: between ticks, and on every shard alike. It takes part in ticks from now on, and can be read from the epoch
    /// on at which it was hydrated. What is left in `forked` is for the caller to drop, which may take long: best not on this shard's thread.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`] if it was dropped or ended; [`Error::Invariant`] if a tick is open, if `forked` is not its fork, has not hydrated it, has it
    /// failed or has not run the same ticks, and if an index is not complete ([`Shard::is_built`]). Nothing has changed then.
    pub fn join(&mut self, id: ObjectId, forked: &mut Self) -> Result<(), Error> {
        let dataflow = self.joinable(id, forked)?;
        let steps = dataflow.steps.clone();
        let entries: BTreeSet<RelationId> = dataflow.uses.iter().map(|used| used.entry).collect();
        for step in steps {
            self.steps.extend(forked.steps.remove_entry(&step));
            self.due.extend(forked.due.remove_entry(&step));
        }
        for number in self.own_relations(id) {
            if let Some(relation) = forked.relations.0.remove(&number) {
                self.bring(number, relation);
            }
        }
        for number in entries {
            let entry = self.registry.get(number);
            if entry.is_some_and(|entry| !entry.hydrated)
                && let Some(mut relation) = forked.relations.0.remove(&number)
            {
                if let Some(empty) = self.relations.0.get(&number) {
                    relation.replace(empty);
                }
                self.bring(number, relation);
                self.fill(number);
            }
        }
        self.take_part(id);
        Ok(())
    }

    /// Refuses what is away.
    pub(super) fn check_here(&self, id: ObjectId) -> Result<(), Error> {
        match self.dataflows.get(&id) {
            Some(dataflow) if dataflow.progress == Progress::Away => Err(Error::Away(id)),
            _ => Ok(()),
        }
    }

    /// Refuses a tick of a fork before its dataflow has read what there was before.
    pub(super) fn check_fed(&self) -> Result<(), Error> {
        let Some(lane) = &self.lane else {
            return Ok(());
        };
        match self.dataflows.get(&lane.dataflow) {
            Some(dataflow) if dataflow.progress == Progress::Hydrated => Ok(()),
            _ => Err(Error::invariant(format!(
                "a tick of a fork in which {} was not hydrated",
                lane.dataflow
            ))),
        }
    }

    /// Whether what changes in a relation of a collection is to be applied to it.
    pub(super) fn keeps(&self, relation: RelationId) -> bool {
        let lane = self.lane.as_ref();
        lane.is_none_or(|lane| !lane.passing.contains(&relation))
    }

    /// Frees what only the first tick of a fork reads.
    pub(super) fn forget_passing(&mut self) {
        for number in self.lane.iter().flat_map(|lane| &lane.passing) {
            if let Some(relation) = self.relations.0.get_mut(number) {
                *relation = relation.hollow();
            }
        }
    }

    /// Tells the forks what need not be read any more.
    pub(super) fn tell_forks(&self, since: Epoch) {
        for (link, _) in self.links() {
            link.since.fetch_max(since.0, Ordering::Relaxed);
        }
    }

    /// Counts what a tick has put out that forks have yet to see.
    pub(super) fn count_sent(&self, outputs: &BTreeMap<ObjectId, Changes>) {
        for (link, id) in self.links() {
            let imports = self.imports_of(id);
            let read = imports.iter().filter_map(|import| outputs.get(import));
            let bytes = read.map(|changes| shown(&changes.deltas)).sum();
            link.sent.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Counts what a fork takes in.
    pub(super) fn count_seen(&self, inputs: &[(ObjectId, CollectionInput)]) {
        let Some(lane) = &self.lane else {
            return;
        };
        let bytes = inputs.iter().map(|(_, input)| match input {
            CollectionInput::Deltas(deltas) => shown(deltas),
            CollectionInput::Changes(_) | CollectionInput::Errors(_) => 0,
        });
        lane.link.seen.fetch_add(bytes.sum(), Ordering::Relaxed);
    }

    /// Ends a tick of a fork: counts what it has put out, and forgets and compacts what nobody needs. The rows that died pay for what is looked at.
    pub(super) fn end_in_fork(&mut self, outputs: &BTreeMap<ObjectId, Changes>) {
        let Some(lane) = &self.lane else {
            return;
        };
        let bytes = outputs.values().map(|changes| shown(&changes.deltas));
        lane.link.put_out.fetch_add(bytes.sum(), Ordering::Relaxed);
        let since = Epoch(lane.link.since.load(Ordering::Relaxed));
        self.allow_compaction(since);
        self.maintain(usize::MAX);
    }

    /// The forks of this shard, and the dataflows that are away in them.
    fn links(&self) -> impl Iterator<Item = (&Link, ObjectId)> {
        let dataflows = self.dataflows.iter();
        dataflows.filter_map(|(id, dataflow)| Some((dataflow.link.as_deref()?, *id)))
    }

    fn forkable(&self, id: ObjectId) -> Result<&Dataflow, Error> {
        if self.running.is_some() {
            return Err(Error::invariant(format!("{id} is forked within a tick")));
        }
        let dataflow = self.dataflows.get(&id);
        let dataflow = dataflow.ok_or(Error::UnknownCollection(id))?;
        self.check_here(id)?;
        if dataflow.progress == Progress::Hydrated {
            return Err(Error::invariant(format!("{id} is hydrated already")));
        }
        if let Some(reader) = self.dependents(id).first() {
            return Err(Error::invariant(format!(
                "{id} is forked, {reader} reads it"
            )));
        }
        for input in self.imports_of(id) {
            self.check_here(input)?;
            let made = self.dataflows.get(&input);
            if made.is_some_and(|input| input.progress == Progress::Made) {
                return Err(Error::invariant(format!(
                    "{id} is forked before {input}, which it reads, is hydrated"
                )));
            }
        }
        Ok(dataflow)
    }

    /// A shard with copies of what a dataflow reads, and without the dataflow.
    fn copy_inputs(&self, id: ObjectId, dataflow: &Dataflow) -> Result<Self, Error> {
        let mut forked = Self::new(self.config.clone());
        forked.next_relation = self.next_relation;
        forked.last_epoch = self.last_epoch;
        forked.ticks = self.ticks;
        forked.since = self.since;
        let reads = self.reads(dataflow);
        let mut passing = BTreeSet::new();
        for input in self.imports_of(id) {
            let collection = self.collections.get(&input);
            let collection = collection.ok_or(Error::UnknownCollection(input))?;
            let number = collection.relation;
            let relation = self.relations.get(number)?;
            let relation = match reads.get(&number) {
                Some(indexes) => relation.fork(indexes),
                None => {
                    passing.insert(number);
                    relation.fork(&BTreeSet::new())
                }
            };
            forked.relations.0.insert(number, relation);
            let collection = Collection {
                readers: Vec::new(),
                ..collection.clone()
            };
            forked.collections.insert(input, collection);
        }
        let entries: BTreeSet<RelationId> = dataflow.uses.iter().map(|used| used.entry).collect();
        for number in entries {
            let entry = self.registry.get(number);
            let entry = entry.ok_or_else(|| Error::invariant("what a dataflow uses is gone"))?;
            for name in &entry.steps {
                let copy = self
                    .steps
                    .get(name)
                    .and_then(|step| step.copy(&entry.steps));
                let copy = copy.ok_or_else(|| Error::invariant("step keeps something"))?;
                forked.steps.insert(*name, copy);
            }
            let relation = self.relations.get(number)?;
            let relation = match reads.get(&number) {
                Some(indexes) if entry.hydrated => relation.fork(indexes),
                _ => relation.hollow(),
            };
            forked.relations.0.insert(number, relation);
            let copy = Entry {
                users: BTreeSet::from([id]),
                ..entry.clone()
            };
            forked.registry.add(number, copy);
            if entry.hydrated {
                forked.fill(number);
            }
        }
        forked.note_unbuilt(reads.keys().copied());
        forked.lane = Some(Lane {
            dataflow: id,
            passing,
            link: Arc::new(Link {
                since: AtomicU64::new(self.since.0),
                ..Link::default()
            }),
        });
        Ok(forked)
    }

    /// Moves a dataflow with all that it keeps for itself into its fork. Its record stays.
    fn hand_over(&mut self, id: ObjectId, forked: &mut Self) {
        let own = self.own_relations(id);
        let Some(dataflow) = self.dataflows.get(&id) else {
            return;
        };
        let reads = self.reads(dataflow);
        let indexes = reads.into_iter().flat_map(|(number, indexes)| {
            let indexes = indexes.into_iter();
            indexes.map(move |index| (number, index))
        });
        let copy = Dataflow {
            indexes: indexes.collect(),
            ..dataflow.clone()
        };
        for step in &copy.steps {
            forked.steps.extend(self.steps.remove_entry(step));
        }
        forked.dataflows.insert(id, copy);
        for number in own {
            if let Some(relation) = self.relations.0.get_mut(&number) {
                let hollow = relation.hollow();
                let relation = std::mem::replace(relation, hollow);
                forked.relations.0.insert(number, relation);
            }
        }
        if let Some(collection) = self.collections.get(&id) {
            forked.collections.insert(id, collection.clone());
        }
        if let Some(dataflow) = self.dataflows.get_mut(&id) {
            dataflow.progress = Progress::Away;
            dataflow.link = forked.lane.as_ref().map(|lane| Arc::clone(&lane.link));
        }
    }

    /// The relations that a dataflow looks rows up in or shares, and the indexes by which they are found: always the first one, by which changes find theirs.
    fn reads(&self, dataflow: &Dataflow) -> BTreeMap<RelationId, BTreeSet<usize>> {
        let steps = dataflow.steps.iter();
        let operators = steps.filter_map(|step| self.steps.get(step)?.kind.operator());
        let looked_up = operators.flat_map(|operator| operator.reads());
        let shared = dataflow.uses.iter().map(|used| (used.entry, 0));
        let mut reads = BTreeMap::<RelationId, BTreeSet<usize>>::new();
        for (relation, index) in looked_up.chain(shared) {
            reads.entry(relation).or_default().extend([0, index]);
        }
        reads
    }

    fn joinable(&self, id: ObjectId, forked: &Self) -> Result<&Dataflow, Error> {
        if let Some(failure) = &forked.failure {
            return Err(failure.clone());
        }
        let dataflow = self.dataflows.get(&id);
        let dataflow = dataflow.ok_or(Error::UnknownCollection(id))?;
        let there = forked.dataflows.get(&id);
        let is_whole = there.is_some_and(|there| {
            let whole = |step: &StepId| {
                forked
                    .steps
                    .get(step)
                    .is_some_and(|step| !step.is_stopped())
            };
            there.progress == Progress::Hydrated
                && there.steps == dataflow.steps
                && there.steps.iter().all(whole)
        });
        let refused = if self.running.is_some() || forked.running.is_some() {
            "a tick is open"
        } else if dataflow.progress != Progress::Away {
            "it is not away"
        } else if !is_whole {
            "this is not its fork, or it is not hydrated there, or has failed"
        } else if (self.last_epoch, self.ticks) != (forked.last_epoch, forked.ticks) {
            "its fork has not run the same ticks"
        } else if !self.is_built(id) {
            "an index is not complete"
        } else {
            return Ok(dataflow);
        };
        Err(Error::invariant(format!("{id} is joined, but {refused}")))
    }

    /// Takes a relation from a fork.
    fn bring(&mut self, number: RelationId, relation: Relation) {
        if relation.has_history() {
            self.with_history.insert(number);
        }
        self.may_compact.insert(number);
        self.relations.0.insert(number, relation);
        self.note_unbuilt(std::iter::once(number));
    }
}
