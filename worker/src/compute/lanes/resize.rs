//! Clusters that get other threads: a lane is made anew beside the one there is, and takes its place when it has come as far.
//!
//! Owns which lane is to follow which. Must not know why. Called by [`super::Lanes::go_on`].
//!
//! Invariants. What the new lane puts out up to the epoch of the change is thrown away, for the old one has put it out; after it only the new one runs. A paused
//! cluster has put out nothing since it was paused: what its views have become meanwhile is what the new lane puts out when it hydrates them.

use std::collections::BTreeSet;

use flowstone_types::{ClusterId, Epoch, ObjectId};

use super::{Base, Cluster, Jump, Lane, LaneId, Lanes, Moved, Object, Place, Progress, Source};

/// A lane that is about to take another's place.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) old: LaneId,
    /// What it takes over.
    pub(super) objects: BTreeSet<ObjectId>,
    /// Whether what it puts out before the change counts: the old one stands still.
    pub(super) keeps: bool,
    /// The last epoch of the old one.
    pub(super) at: Option<Epoch>,
}

impl Lanes {
    /// A cluster exists, or is to have other threads. [`Lanes::go_on`] follows.
    pub(in crate::compute) fn set_cluster(
        &mut self,
        cluster: ClusterId,
        threads: usize,
        change: u64,
    ) {
        let change = Some(change);
        let refused = false;
        let cluster_now = Cluster {
            threads,
            change,
            refused,
        };
        self.clusters.insert(cluster, cluster_now);
    }

    /// A cluster is gone. Returns what is in it still: subscriptions.
    pub(in crate::compute) fn drop_cluster(&mut self, cluster: ClusterId) -> Vec<ObjectId> {
        self.clusters.remove(&cluster);
        let lanes = self.lanes.values();
        let lanes = lanes.filter(|lane| lane.cluster == cluster);
        lanes
            .flat_map(|lane| lane.objects.keys().copied())
            .collect()
    }

    /// Whether a cluster is there.
    pub(in crate::compute) fn has_cluster(&self, cluster: ClusterId) -> bool {
        cluster == ClusterId::DEFAULT || self.clusters.contains_key(&cluster)
    }

    /// The lane as which `lane` is known to those who read what it puts out.
    pub(in crate::compute) fn known_as(&self, lane: LaneId) -> Place {
        let going = self.moves.get(&lane).filter(|going| going.keeps);
        Place::Lane(going.map_or(lane, |going| going.old))
    }

    /// Begins to make lanes anew whose clusters have changed, once nothing is being made in them.
    pub(super) fn begin_moves(&mut self, base: Base<'_>) -> bool {
        let mut stale = Vec::new();
        for (id, lane) in &self.lanes {
            let moving =
                self.moves.contains_key(id) || self.moves.values().any(|going| going.old == *id);
            let refused = |cluster: &Cluster| cluster.refused;
            let refused = self.clusters.get(&lane.cluster).is_some_and(refused);
            if moving || refused || self.fits(lane) {
                continue;
            }
            let paused = self.is_paused(lane.cluster, &lane.reads);
            let is_waiting = |id: &ObjectId| lane.acts.iter().any(|act| act.id == *id);
            let settled = if lane.parked {
                lane.acts.is_empty()
            } else {
                // What has to wait for something else is not waited for when it is to be paused.
                lane.objects
                    .keys()
                    .all(|id| lane.hydrated.contains(id) || (paused && is_waiting(id)))
            };
            if settled {
                stale.push((*id, paused));
            }
        }
        let mut moved = false;
        for (old, parked) in stale {
            let Some(lane) = self.lanes.get(&old) else {
                continue;
            };
            let (keeps, last) = (lane.parked, lane.newest);
            let hydrated = lane.hydrated.clone();
            let kind = (lane.cluster, lane.pace, lane.reads.clone());
            let mut objects = lane.objects.clone();
            if parked {
                objects.retain(|_, object| matches!(object, Object::Dataflow(..)));
            }
            let epoch = if parked { last } else { base.epoch };
            let cluster = kind.0;
            let new = match self.start(kind, parked, epoch) {
                Ok(new) => new,
                Err(error) => {
                    tracing::error!(%cluster, %error, "a cluster keeps the threads that it has");
                    if let Some(cluster) = self.clusters.get_mut(&cluster) {
                        cluster.refused = true;
                    }
                    continue;
                }
            };
            moved = true;
            let going = Move {
                old,
                objects: objects.keys().copied().collect(),
                keeps,
                at: parked.then_some(last),
            };
            self.moves.insert(new, going);
            for (id, object) in objects {
                let content = if keeps || hydrated.contains(&id) {
                    Source::Lane(old)
                } else {
                    Source::Stored
                };
                self.make(new, id, object, content, epoch);
            }
        }
        moved
    }

    /// Lets lanes take the places of others that have come as far, and says which clusters have what was asked for.
    pub(super) fn finish_moves(&mut self, progress: &mut Progress) -> bool {
        let mut moved = false;
        let ids: Vec<LaneId> = self.moves.keys().copied().collect();
        for new in ids {
            moved |= self.finish_move(new, progress);
        }
        let mut ready = Vec::new();
        for (id, cluster) in &self.clusters {
            let mut lanes = self.lanes.iter().filter(|(_, lane)| lane.cluster == *id);
            if let Some(change) = cluster.change
                && lanes.all(|(number, lane)| self.fits(lane) && !self.moves.contains_key(number))
            {
                ready.push((*id, change));
            }
        }
        for (id, _) in &ready {
            if let Some(cluster) = self.clusters.get_mut(id) {
                cluster.change = None;
            }
        }
        progress.ready.extend(ready);
        moved
    }

    /// Whether a lane is as its cluster, and those that it depends on, are to be.
    fn fits(&self, lane: &Lane) -> bool {
        let paused = self.is_paused(lane.cluster, &lane.reads);
        let threads = self.threads(lane.cluster);
        lane.parked == paused && (paused || lane.pool.count() == threads)
    }

    fn finish_move(&mut self, new: LaneId, progress: &mut Progress) -> bool {
        let (Some(going), Some(lane)) = (self.moves.get_mut(&new), self.lanes.get(&new)) else {
            return false;
        };
        let Some(old) = self.lanes.get(&going.old) else {
            // All that was in it was dropped.
            self.moves.remove(&new);
            return true;
        };
        // What was made here since is no part of it.
        let made = going.objects.iter().all(|id| {
            let is_waiting = || lane.acts.iter().any(|act| act.id == *id);
            !lane.objects.contains_key(id)
                || lane.hydrated.contains(id)
                || (lane.parked && !is_waiting())
        });
        if !made {
            return false;
        }
        if going.at.is_none() && !going.keeps {
            going.at = Some(old.newest.max(lane.newest));
            return true;
        }
        let last = going.at.unwrap_or(lane.frontier);
        if !going.keeps && (old.frontier < last || (!lane.parked && lane.frontier < last)) {
            return false;
        }
        let parked = lane.parked;
        let slept = going.keeps.then_some(Jump {
            first: old.frontier.next(),
            last,
        });
        let Some(going) = self.moves.remove(&new) else {
            return false;
        };
        let ended = self.lanes.remove(&going.old);
        for (id, object) in ended.into_iter().flat_map(|old| old.objects) {
            if going.objects.contains(&id) {
                continue;
            }
            match object {
                Object::Subscription(_) => progress.paused.push(id),
                Object::Dataflow(..) => {}
            }
        }
        for id in going.objects {
            if let Some(place) = self.places.get_mut(&id)
                && *place == going.old
            {
                *place = new;
                progress.moved.push(Moved {
                    id,
                    lane: new,
                    from: (!parked).then_some(last),
                });
            }
        }
        for lane in self.lanes.values_mut() {
            for import in lane.imports.values_mut() {
                if import.from == Place::Lane(going.old) {
                    import.from = Place::Lane(new);
                }
            }
        }
        if let Some(jump) = slept {
            // What reads it gets all that it missed at once.
            self.pass_over(new, jump);
        }
        true
    }
}
