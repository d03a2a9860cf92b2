//! What ends or is counted in lanes, and what nobody reads any more.
//!
//! Owns that a lane has no copy, act or history that nobody needs. Called by the compute.

use std::collections::BTreeSet;

use flowstone_dataflow::Held;
use flowstone_proto::message::CollectionStatistics;
use flowstone_types::{Epoch, EvalError, ObjectId};

use super::task::Work;
use super::{LaneId, Lanes};

impl Lanes {
    /// An object was hydrated. Returns whether it is in the lane still.
    pub(in crate::compute) fn hydrated(&mut self, number: LaneId, id: ObjectId) -> bool {
        let Some(lane) = self.lanes.get_mut(&number) else {
            return false;
        };
        lane.objects.contains_key(&id) && {
            lane.hydrated.insert(id);
            true
        }
    }

    /// Whether what a lane puts out of an object is the object's: not if another lane has it, or is to give it later.
    pub(in crate::compute) fn counts(&self, number: LaneId, id: ObjectId) -> bool {
        match self.moves.get(&number) {
            Some(going) if going.objects.contains(&id) => going.keeps,
            _ => self.places.get(&id) == Some(&number),
        }
    }

    /// Ends dataflows in error.
    pub(in crate::compute) fn fail(&mut self, id: ObjectId, error: &EvalError) {
        for lane in self.lanes.values_mut() {
            if lane.objects.remove(&id).is_some() {
                lane.hydrated.remove(&id);
                lane.acts.retain(|act| act.id != id);
                let epoch = lane.newest;
                lane.send(Work::Fail(id, error.clone(), epoch));
            }
        }
        self.forget_imports();
    }

    /// Forgets objects. A lane without any goes.
    pub(in crate::compute) fn drop_objects(&mut self, objects: &[ObjectId]) {
        for lane in self.lanes.values_mut() {
            let mut dropped = Vec::new();
            for id in objects {
                lane.hydrated.remove(id);
                lane.acts.retain(|act| act.id != *id);
                if lane.objects.remove(id).is_some() || lane.imports.remove(id).is_some() {
                    dropped.push(*id);
                }
            }
            if !dropped.is_empty() {
                lane.send(Work::Drop(dropped));
            }
        }
        for id in objects {
            self.places.remove(id);
        }
        self.forget_imports();
        let places = &self.places;
        let moves = &self.moves;
        self.lanes.retain(|id, lane| {
            !lane.objects.is_empty()
                || places.values().any(|lane| lane == id)
                || moves.contains_key(id)
        });
    }

    /// Copies that nothing reads any more go, and acts find what they read or read it anew.
    pub(super) fn forget_imports(&mut self) {
        for lane in self.lanes.values_mut() {
            let mut read: BTreeSet<ObjectId> = BTreeSet::new();
            for object in lane.objects.values() {
                read.extend(object.plan().collections());
            }
            let unread: Vec<ObjectId> = lane
                .imports
                .keys()
                .copied()
                .filter(|id| !read.contains(id))
                .collect();
            let mut dropped = Vec::new();
            for id in unread {
                if lane.imports.remove(&id).is_some_and(|import| import.taken) {
                    dropped.push(id);
                }
            }
            if !dropped.is_empty() {
                lane.send(Work::Drop(dropped));
            }
            // What an act that is gone would have copied for those behind it.
            let mut copied: BTreeSet<ObjectId> = lane
                .imports
                .iter()
                .filter(|(_, import)| import.taken)
                .map(|(id, _)| *id)
                .collect();
            for act in &mut lane.acts {
                let inputs = lane
                    .objects
                    .get(&act.id)
                    .map_or_else(Vec::new, |object| object.plan().collections());
                act.imports.clear();
                for id in inputs {
                    if let Some(import) = lane.imports.get_mut(&id)
                        && copied.insert(id)
                    {
                        import.since = act.epoch;
                        act.imports.push(id);
                    }
                }
            }
        }
    }

    /// Takes away a lane that has broken. Returns what was in it.
    pub(in crate::compute) fn remove(&mut self, number: LaneId) -> Vec<ObjectId> {
        self.moves
            .retain(|id, going| *id != number && going.old != number);
        let Some(lane) = self.lanes.remove(&number) else {
            return Vec::new();
        };
        lane.objects.into_keys().collect()
    }

    /// No one will read below `since` any more, but for what the lanes have yet to read. Returns from where on base and lanes are read, if that has changed.
    pub(in crate::compute) fn allow_compaction(
        &mut self,
        since: Epoch,
        base: Epoch,
    ) -> Option<Epoch> {
        self.asked_since = self.asked_since.max(since);
        self.compact(base)
    }

    /// Lets go of what nobody reads any more, by what was asked before. Returns from where on base and lanes are read, if that has changed.
    pub(in crate::compute) fn compact(&mut self, base: Epoch) -> Option<Epoch> {
        let going = self.lanes.values().filter(|lane| !lane.parked);
        let through = going
            .flat_map(|lane| {
                let acts = lane.acts.iter().map(|act| act.epoch);
                acts.chain([lane.frontier])
            })
            .fold(base, Epoch::min);
        let since = self.asked_since.min(through);
        if since <= self.since {
            return None;
        }
        self.since = since;
        for lane in self.lanes.values().filter(|lane| !lane.parked) {
            lane.send(Work::AllowCompaction(since));
        }
        Some(since)
    }

    /// Asks lanes for the counters of what is in them. `held`: the buffers that others were said to hold.
    pub(in crate::compute) fn count(&mut self, held: &Held) {
        for (number, lane) in &mut self.lanes {
            if lane.counting || !lane.outstanding.is_empty() {
                continue;
            }
            let own = lane.hydrated.iter().copied();
            let own = own.filter(|id| self.places.get(id) == Some(number));
            let ids: Vec<ObjectId> = own.collect();
            if !ids.is_empty() {
                lane.counting = true;
                lane.send(Work::Count(ids, held.clone()));
            }
        }
    }

    /// The counters that a lane was asked for.
    pub(in crate::compute) fn counted(
        &mut self,
        number: LaneId,
        counted: Vec<(ObjectId, CollectionStatistics)>,
    ) -> Vec<(ObjectId, CollectionStatistics)> {
        if let Some(lane) = self.lanes.get_mut(&number) {
            lane.counting = false;
        }
        let places = &self.places;
        let mut counted = counted;
        counted.retain(|(id, _)| places.get(id) == Some(&number));
        counted
    }
}
