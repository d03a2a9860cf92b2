//! Lanes: computes beside the base, each with shard threads of its own and at its own pace.
//!
//! The *base* has the tables and what is maintained of them in the default cluster; every epoch is run there before the next. What could hold it up has a lane:
//! each other cluster, and in every cluster what is computed anew at each change ([`Pace::Recomputing`]) with all that reads it. A lane has copies of the
//! collections that it reads; their changes follow in order, and those that wait may become one tick.
//!
//! Owns which lanes there are ([`place`]), what is made in them ([`acts`]), what they have been sent and how far each is ([`changes`]), and what ends ([`upkeep`]). Must not know what happens to their output. Called by the
//! compute, which gives it the output of the base and of the lanes; a [`task`] per lane does the work.
//!
//! Invariants. A lane depends on the base and on lanes that do not depend on it. Its frontier is the newest epoch through which all that it has is complete; it
//! moves back only for what a source that was held up gives late. Whoever reads at an epoch within a jump ([`Jump`]) would see the state before it: nobody does.
//! What is made in a lane begins at the epoch that was the newest when it was asked for.

mod acts;
mod changes;
mod jumps;
mod place;
mod resize;
mod task;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flowstone_proto::message::{CollectionDescription, DataflowDescription};
use flowstone_proto::plan::Plan;
use flowstone_storage::DeltaTables;
use flowstone_types::{ClusterId, Epoch, ObjectId};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

pub(crate) use self::jumps::{Jump, Stops, after, before};
use self::resize::Move;
pub(crate) use self::task::LaneEvent;
use self::task::{Change, Task, Work};
pub(super) use self::task::{Said, load_errors, load_stored};
use super::shards::{ShardMaker, ShardPool};

/// How long lanes are waited for when the worker stops: what they do is done again at the next start.
const STOP_TIME: Duration = Duration::from_secs(1);

/// Names a lane. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId(u64);

/// How a lane goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// With every epoch that changes something.
    Steady,
    /// As often as it can: each change may cost as much as the first did.
    Recomputing,
}

/// Where something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Base,
    Lane(LaneId),
}

/// What a dataflow in a lane is made of, to be made again.
#[derive(Clone, Debug)]
pub(super) enum Object {
    /// A view, with its collection, or an index.
    Dataflow(Box<DataflowDescription>, Option<Box<CollectionDescription>>),
    Subscription(Plan),
}

impl Object {
    fn plan(&self) -> &Plan {
        match self {
            Self::Dataflow(description, _) => &description.plan,
            Self::Subscription(plan) => plan,
        }
    }
}

/// A collection that a lane has a copy of.
#[derive(Clone, Copy, Debug)]
struct Import {
    from: Place,
    /// The epoch of the copy: changes after it follow.
    since: Epoch,
    /// Whether it was copied.
    taken: bool,
}

/// Something that is made in a lane at an epoch.
#[derive(Debug)]
struct Act {
    epoch: Epoch,
    id: ObjectId,
    /// What has to be copied before.
    imports: Vec<ObjectId>,
    content: Source,
}

/// Where the content of a view is that was put out before.
#[derive(Clone, Copy, Debug)]
enum Source {
    Stored,
    Lane(LaneId),
}

#[derive(Debug)]
pub(super) struct Lane {
    cluster: ClusterId,
    pace: Pace,
    /// The other clusters that it depends on. What depends on others has lanes of its own, so that it can be paused with them and nothing else is.
    reads: BTreeSet<ClusterId>,
    /// Whether nothing in it is maintained: its cluster, or one it depends on, is paused. It only keeps what its views have put out.
    parked: bool,
    pool: Arc<ShardPool>,
    work: mpsc::UnboundedSender<Work>,
    objects: BTreeMap<ObjectId, Object>,
    /// Those that were hydrated.
    hydrated: BTreeSet<ObjectId>,
    imports: BTreeMap<ObjectId, Import>,
    acts: VecDeque<Act>,
    /// Changes that were not sent.
    waiting: BTreeMap<Epoch, Vec<Change>>,
    /// Of what is waiting, and of what was sent and not run.
    backlog_bytes: usize,
    /// The first epochs of messages with changes that were sent and not run, in order.
    outstanding: VecDeque<Epoch>,
    /// Everything through it was sent.
    through: Epoch,
    /// The newest epoch that was ever sent: nothing is made at an earlier one.
    newest: Epoch,
    frontier: Epoch,
    /// Epochs that were passed over here, or where something that it reads comes from.
    jumps: Vec<Jump>,
    counting: bool,
}

impl Lane {
    pub(super) fn jumps(&self) -> &[Jump] {
        &self.jumps
    }

    pub(super) fn pool(&self) -> &Arc<ShardPool> {
        &self.pool
    }

    pub(super) const fn frontier(&self) -> Epoch {
        self.frontier
    }

    fn send(&self, work: Work) {
        // A lane that has broken has said so.
        drop(self.work.send(work));
    }
}

/// A cluster that is not the default one.
#[derive(Debug)]
struct Cluster {
    /// Zero if it is paused.
    threads: usize,
    /// The change of which the coordinator has not heard that it is ready.
    change: Option<u64>,
    /// Whether the threads that it is to have could not be started.
    refused: bool,
}

/// What a lane is made with.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) maker: ShardMaker,
    pub(super) delta: DeltaTables,
    /// Threads of a lane of the default cluster.
    pub(super) threads: usize,
    /// Changes that may wait for a lane.
    pub(super) backlog_bytes_max: usize,
}

/// All lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    parts: Parts,
    events: mpsc::UnboundedSender<LaneEvent>,
    said: mpsc::UnboundedReceiver<LaneEvent>,
    lanes: BTreeMap<LaneId, Lane>,
    next: u64,
    /// Where objects are that are in a lane.
    places: BTreeMap<ObjectId, LaneId>,
    clusters: BTreeMap<ClusterId, Cluster>,
    /// Lanes that are about to take the place of others.
    moves: BTreeMap<LaneId, Move>,
    tasks: TaskTracker,
    stops: Stops,
    /// Below it nobody reads but lanes.
    asked_since: Epoch,
    /// Below it nobody reads.
    since: Epoch,
}

/// What the lanes need of the base.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base<'a> {
    pub(super) pool: &'a ShardPool,
    /// The newest epoch that was run.
    pub(super) epoch: Epoch,
    /// The newest that may be observed. Transactions that begin now read at it or later: what takes several epochs together does not pass over them.
    pub(super) durable: Epoch,
    /// All subscribers have been shown everything through it.
    pub(super) shown: Epoch,
}

/// An object that another lane has from now on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) id: ObjectId,
    pub(super) lane: LaneId,
    /// The first epoch at which it can be read there; `None` if its cluster is paused.
    pub(super) from: Option<Epoch>,
}

/// What comes of it that lanes go on.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) moved: Vec<Moved>,
    /// Subscriptions whose cluster is paused.
    pub(super) paused: Vec<ObjectId>,
    /// Clusters that have the threads that were asked for, by a change.
    pub(super) ready: Vec<(ClusterId, u64)>,
}

impl Lanes {
    pub(super) fn new(parts: Parts) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "who says something waits for an answer, or has a bounded backlog"
        )]
        let (events, said) = mpsc::unbounded_channel();
        Self {
            parts,
            events,
            said,
            lanes: BTreeMap::new(),
            next: 0,
            places: BTreeMap::new(),
            clusters: BTreeMap::new(),
            moves: BTreeMap::new(),
            tasks: TaskTracker::new(),
            stops: Stops::default(),
            asked_since: Epoch::MIN,
            since: Epoch::MIN,
        }
    }

    /// What a lane says next. Can be given up.
    pub(super) async fn hear(&mut self) -> LaneEvent {
        match self.said.recv().await {
            Some(event) => event,
            // There is a sender in here.
            None => std::future::pending().await,
        }
    }

    /// Ends all lanes. One that evaluates something may go on with that for a while.
    pub(super) async fn stop(mut self) {
        self.lanes.clear();
        self.tasks.close();
        if tokio::time::timeout(STOP_TIME, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::info!("something is still being computed anew; it is not waited for");
        }
    }

    pub(super) fn place_of(&self, id: ObjectId) -> Place {
        self.places
            .get(&id)
            .map_or(Place::Base, |id| Place::Lane(*id))
    }

    pub(super) fn get(&self, lane: LaneId) -> Option<&Lane> {
        self.lanes.get(&lane)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LaneId, &Lane)> {
        self.lanes.iter().map(|(id, lane)| (*id, lane))
    }

    /// The newest epoch through which `id` is complete.
    pub(super) fn frontier_of(&self, id: ObjectId, base: Epoch) -> Epoch {
        self.frontier(self.place_of(id), base)
    }

    /// The epochs that were passed over where `id` is.
    pub(super) fn jumps_of(&self, id: ObjectId) -> &[Jump] {
        let lane = self.places.get(&id).and_then(|lane| self.lanes.get(lane));
        lane.map_or(&[], |lane| &lane.jumps)
    }

    fn frontier(&self, place: Place, base: Epoch) -> Epoch {
        match place {
            Place::Base => base,
            // One that is gone holds nobody up.
            Place::Lane(lane) => self.lanes.get(&lane).map_or(base, Lane::frontier),
        }
    }

    /// The lanes of which something is stored.
    fn storing(&self) -> impl Iterator<Item = &Lane> {
        let going = self.lanes.iter().filter(|(number, lane)| {
            let views = lane
                .hydrated
                .iter()
                .filter(|id| matches!(lane.objects.get(id), Some(Object::Dataflow(_, Some(_)))));
            !lane.parked && views.copied().any(|id| self.counts(**number, id))
        });
        going.map(|(_, lane)| lane)
    }

    /// The epoch through which everything is complete that is stored and was stored before.
    pub(super) fn stored_through(&self, base: Epoch) -> Epoch {
        self.storing()
            .map(|lane| lane.frontier)
            .fold(base, Epoch::min)
    }

    /// The first epoch from `epoch` on that nothing which is stored has passed over.
    pub(super) fn stored_from(&self, epoch: Epoch) -> Epoch {
        let lanes: Vec<&Lane> = self.storing().collect();
        let jumps = lanes.iter().flat_map(|lane| &lane.jumps);
        after(jumps, epoch)
    }

    /// An epoch is about to be committed: no lane passes over it any more.
    pub(super) fn stop_for_commit(&self, epoch: Epoch) {
        if !self.lanes.is_empty() {
            self.stops.add_for_commit(epoch);
        }
    }

    /// Whether what is in a lane stands still.
    pub(super) fn is_parked(&self, id: ObjectId) -> bool {
        let lane = self.places.get(&id).and_then(|lane| self.lanes.get(lane));
        lane.is_some_and(|lane| lane.parked)
    }

    /// Whether there is nothing to go on with.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.is_empty()
            && self.asked_since <= self.since
            && self
                .clusters
                .values()
                .all(|cluster| cluster.change.is_none())
    }

    /// Somebody reads at an epoch, which was run or is about to be: no lane passes over it any more, unless too many do.
    pub(super) fn stop_at(&self, epoch: Epoch) {
        if !self.lanes.is_empty() {
            self.stops.add(epoch);
        }
    }

    /// Whether an object is about to come to a lane from another one.
    pub(super) fn is_moving(&self, lane: LaneId, id: ObjectId) -> bool {
        let going = self.moves.get(&lane);
        going.is_some_and(|going| going.objects.contains(&id))
    }

    /// Whether so much waits for a lane that nothing should be added before it has done some of it.
    pub(super) fn is_behind(&self) -> bool {
        // Only while something is being done: what has to wait for an epoch would wait for it for ever.
        let works = |number: LaneId| {
            self.lanes
                .iter()
                .any(|(id, lane)| !lane.outstanding.is_empty() && self.depends(number, *id))
        };
        self.lanes
            .iter()
            .any(|(id, lane)| lane.backlog_bytes > self.parts.backlog_bytes_max && works(*id))
    }

    /// The epochs that no lane passes over, for those who read.
    pub(super) fn stops(&self) -> Stops {
        self.stops.clone()
    }

    /// Sends every lane what it can do by now; [`Lanes::compact`] follows. `readable_from`: the first epoch at which an object can be read; `None` while it is being made.
    pub(super) fn go_on(
        &mut self,
        base: Base<'_>,
        readable_from: &impl Fn(ObjectId) -> Option<Epoch>,
    ) -> Progress {
        let mut progress = Progress::default();
        loop {
            let mut moved = self.begin_moves(base);
            let ids: Vec<LaneId> = self.lanes.keys().copied().collect();
            for id in ids {
                moved |= self.advance(id, base, readable_from);
            }
            moved |= self.finish_moves(&mut progress);
            // What has moved can be read elsewhere from now on; the caller says so before others go on.
            if !moved || !progress.moved.is_empty() {
                break;
            }
        }
        let slowest = self.lanes.values().filter(|lane| !lane.parked);
        let slowest = slowest.map(|lane| lane.frontier).min();
        self.stops.forget(slowest.unwrap_or(Epoch::MAX));
        for lane in self.lanes.values_mut() {
            let floor = self.since.min(base.shown);
            lane.jumps.retain(|jump| jump.last > floor);
        }
        progress
    }

    /// Sends a lane what it can do by now. Returns whether that was anything.
    fn advance(
        &mut self,
        number: LaneId,
        base: Base<'_>,
        readable_from: &impl Fn(ObjectId) -> Option<Epoch>,
    ) -> bool {
        let mut moved = false;
        while let Some(lane) = self.lanes.get_mut(&number) {
            // `None` while one of them is being made: what is in the lane goes on without it.
            let newest = if lane.parked { Epoch::MIN } else { lane.newest };
            let mut made = lane.acts.front().map(|act| act.epoch.max(newest));
            for id in lane.acts.front().into_iter().flat_map(|act| &act.imports) {
                made = made.and_then(|epoch| Some(epoch.max(readable_from(*id)?)));
                let import = lane.imports.get(id).filter(|import| !import.taken);
                if let Some(import) = import {
                    made = made.map(|epoch| epoch.max(import.since));
                }
            }
            if let (Some(act), Some(epoch)) = (lane.acts.front_mut(), made) {
                act.epoch = epoch;
            }
            let Some(lane) = self.lanes.get(&number) else {
                break;
            };
            let going = self.moves.values().find(|going| going.old == number);
            let going = going.or_else(|| self.moves.get(&number));
            let mut bound = going.and_then(|going| going.at).unwrap_or(Epoch::MAX);
            for import in lane.imports.values().filter(|import| import.taken) {
                bound = bound.min(self.frontier(import.from, base.epoch));
            }
            bound = bound.min(base.epoch);
            if lane.pace == Pace::Recomputing {
                bound = bound.min(base.durable);
            }
            // What it reads never was what it would have been at an epoch that was passed over.
            let beside = before(lane.jumps.iter(), bound);
            if beside <= lane.through && bound > lane.through {
                // Those that it reads pass over different ones: here they meet.
                self.stops.add(base.durable);
            }
            bound = beside;
            if lane.parked {
                bound = lane.frontier;
            }
            let act = lane.acts.front();
            let ready = act.is_some_and(|act| {
                let old = match act.content {
                    Source::Lane(old) => self.lanes.get(&old),
                    Source::Stored => None,
                };
                let come = |id: &ObjectId| {
                    let import = lane.imports.get(id);
                    import.is_none_or(|import| self.frontier(import.from, base.epoch) >= act.epoch)
                };
                (lane.parked || bound >= act.epoch)
                    && old.is_none_or(|old| old.parked || old.frontier >= act.epoch)
                    && made.is_some()
                    && act.imports.iter().all(come)
            });
            let to = match act {
                Some(act) if made.is_some() => bound.min(act.epoch),
                _ => bound,
            };
            moved |= self.send_changes(number, to);
            if !ready {
                break;
            }
            self.send_act(number, base);
            moved = true;
        }
        moved
    }
}
