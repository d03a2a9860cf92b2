//! Where what is made goes.
//!
//! Owns the choice of a lane, and starts one if none fits. Must not know what is made. Called by the compute.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use flowstone_proto::plan::Plan;
use flowstone_types::{ClusterId, Epoch, ObjectId};
use tokio::sync::mpsc;

use super::super::shards::ShardPool;
use super::{Lane, LaneId, Lanes, Pace, Place, Task};
use crate::Error;

impl Lanes {
    /// Where a dataflow of a cluster that reads `inputs` goes. Makes the lane if there is none.
    pub(in crate::compute) fn choose(
        &mut self,
        cluster: ClusterId,
        plan: &Plan,
        inputs: &[ObjectId],
        base: Epoch,
    ) -> Result<Place, Error> {
        let places: Vec<Place> = inputs.iter().map(|id| self.place_of(*id)).collect();
        let recomputes = plan
            .nodes
            .iter()
            .any(|node| node.operator.query().is_some());
        let behind = places.iter().any(|place| match place {
            Place::Base => false,
            Place::Lane(lane) => self
                .lanes
                .get(lane)
                .is_some_and(|lane| lane.pace == Pace::Recomputing),
        });
        let pace = if recomputes || behind {
            Pace::Recomputing
        } else {
            Pace::Steady
        };
        if cluster == ClusterId::DEFAULT
            && pace == Pace::Steady
            && places.iter().all(|place| *place == Place::Base)
        {
            return Ok(Place::Base);
        }
        let mut reads = BTreeSet::new();
        for place in &places {
            if let Place::Lane(lane) = place
                && let Some(lane) = self.lanes.get(lane)
            {
                reads.insert(lane.cluster);
                reads.extend(&lane.reads);
            }
        }
        reads.remove(&cluster);
        let mut found = None;
        // One that is about to take another's place is newer, and what is made from now on is made there.
        for (id, lane) in self.lanes.iter().rev() {
            if lane.cluster == cluster && lane.pace == pace && lane.reads == reads {
                let circle = places.iter().any(|place| match place {
                    Place::Lane(other) => other != id && self.depends(*other, *id),
                    Place::Base => false,
                });
                if !circle {
                    found = Some(*id);
                    break;
                }
            }
        }
        let lane = match found {
            Some(lane) => lane,
            None => {
                let parked = self.is_paused(cluster, &reads);
                self.start((cluster, pace, reads), parked, base)?
            }
        };
        Ok(Place::Lane(lane))
    }

    pub(super) fn threads(&self, cluster: ClusterId) -> usize {
        self.clusters
            .get(&cluster)
            .map_or(self.parts.threads, |cluster| cluster.threads)
    }

    /// Whether a cluster or one of those that something in it reads is paused.
    pub(super) fn is_paused(&self, cluster: ClusterId, reads: &BTreeSet<ClusterId>) -> bool {
        let mut clusters = reads.iter().chain([&cluster]);
        clusters.any(|cluster| self.threads(*cluster) == 0)
    }

    /// Whether `lane` reads what `other` has, or what is made of it elsewhere.
    pub(super) fn depends(&self, lane: LaneId, other: LaneId) -> bool {
        let mut seen = BTreeSet::new();
        let mut left = vec![lane];
        while let Some(next) = left.pop() {
            if next == other {
                return true;
            }
            if seen.insert(next)
                && let Some(lane) = self.lanes.get(&next)
            {
                // Also of one that is parked, and has no copies.
                let objects = lane.objects.values();
                let read = objects.flat_map(|object| object.plan().collections());
                left.extend(read.filter_map(|id| self.places.get(&id)));
            }
        }
        false
    }

    pub(super) fn start(
        &mut self,
        (cluster, pace, reads): (ClusterId, Pace, BTreeSet<ClusterId>),
        parked: bool,
        base: Epoch,
    ) -> Result<LaneId, Error> {
        let id = LaneId(self.next);
        self.next += 1;
        let threads = self.threads(cluster).max(1);
        let name = format!("lane-{cluster}");
        let pool = Arc::new(ShardPool::start(&name, threads, &self.parts.maker)?);
        #[expect(
            clippy::disallowed_methods,
            reason = "what waits is bounded in bytes: the next epoch waits for the lane"
        )]
        let (work, queue) = mpsc::unbounded_channel();
        let task = Task {
            lane: id,
            pool: Arc::clone(&pool),
            delta: self.parts.delta.clone(),
            stops: self.stops.clone(),
            events: self.events.clone(),
            spread_by: BTreeMap::new(),
        };
        self.tasks.spawn(task.run(queue));
        tracing::debug!(?id, %cluster, ?pace, threads, parked, "a lane starts");
        let lane = Lane {
            cluster,
            pace,
            reads,
            parked,
            pool,
            work,
            objects: BTreeMap::new(),
            hydrated: BTreeSet::new(),
            imports: BTreeMap::new(),
            acts: VecDeque::new(),
            waiting: BTreeMap::new(),
            backlog_bytes: 0,
            outstanding: VecDeque::new(),
            through: base,
            newest: base,
            frontier: base,
            jumps: Vec::new(),
            counting: false,
        };
        self.lanes.insert(id, lane);
        Ok(id)
    }
}
