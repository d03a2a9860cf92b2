//! Lanes: computes beside the base, each with shard threads of its own and at its own pace.
//!
//! The *base* has the tables and what is maintained of them in the default cluster; every epoch is run there before the next. What could hold it up has a lane:
//! each other cluster, and in every cluster what is computed anew at each change ([`Pace::Recomputing`]) with all that reads it. A lane has copies of the
//! collections that it reads; their changes follow in order, and those that wait may become one tick.
//!
//! Owns which lanes there are, what is in them, what they have been sent, and how far each is. Must not know what happens to their output. Called by the
//! compute, which gives it the output of the base and of the lanes; a [`task`] per lane does the work.
//!
//! Invariants. A lane depends on the base and on lanes that do not depend on it. Its frontier is the newest epoch through which all that it has is complete; it
//! moves back only for what a source that was held up gives late. Whoever reads at an epoch within a jump ([`Jump`]) would see the state before it: nobody does.
//! What is made in a lane begins at the epoch that was the newest when it was asked for.

mod resize;
mod task;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_dataflow::{Snapshot, TickOutput};
use flowstone_proto::message::{CollectionDescription, CollectionStatistics, DataflowDescription};
use flowstone_proto::plan::{Operator, Plan};
use flowstone_storage::DeltaTables;
use flowstone_types::{ClusterId, Epoch, EvalError, ObjectId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use self::resize::Move;
pub(crate) use self::task::LaneEvent;
use self::task::{Advance, Change, Content, Copied, Task, Work};
pub(super) use self::task::{Said, load_errors, load_stored};
use super::shards::{ShardMaker, ShardPool};
use super::ticks::bytes_of;
use crate::Error;

/// Changes that may wait for a lane, in bytes; beyond, the next epoch waits for the lane.
pub(super) const BACKLOG_BYTES: usize = 1 << 30;

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

/// Epochs that became one tick: what a lane has is not what it would have been at one from `first` on and before `last`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jump {
    pub(crate) first: Epoch,
    pub(crate) last: Epoch,
}

/// Epochs at which transactions read: changes before and after one do not become one tick.
///
/// Few, for each may cost an evaluation more: a transaction that comes when there are too many may have to try again.
#[derive(Clone, Debug, Default)]
pub(super) struct Stops(Arc<Mutex<BTreeSet<Epoch>>>);

impl Stops {
    const MAX: usize = 8;

    fn add(&self, epoch: Epoch) {
        let mut stops = self.0.lock();
        if stops.len() < Self::MAX {
            stops.insert(epoch);
        }
    }

    /// Whether there is one from `first` on and before `last`.
    fn between(&self, first: Epoch, last: Epoch) -> bool {
        first < last && self.0.lock().range(first..last).next().is_some()
    }

    /// Forgets those that all lanes have come to.
    fn forget(&self, through: Epoch) {
        self.0.lock().retain(|epoch| *epoch > through);
    }
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
    frontier: Epoch,
    counting: bool,
}

impl Lane {
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
    /// Whether the coordinator waits to hear that it is ready.
    changed: bool,
}

/// What a lane is made with.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) maker: ShardMaker,
    pub(super) delta: DeltaTables,
    /// Threads of a lane of the default cluster.
    pub(super) threads: usize,
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
    pub(super) jumps: Vec<(LaneId, Jump)>,
    /// Subscriptions whose cluster is paused.
    pub(super) paused: Vec<ObjectId>,
    /// Clusters that have the threads that were asked for.
    pub(super) ready: Vec<(ClusterId, usize)>,
    /// Nobody reads below, if that has changed.
    pub(super) since: Option<Epoch>,
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

    fn frontier(&self, place: Place, base: Epoch) -> Epoch {
        match place {
            Place::Base => base,
            // One that is gone holds nobody up.
            Place::Lane(lane) => self.lanes.get(&lane).map_or(base, Lane::frontier),
        }
    }

    /// The epoch through which everything is complete that is stored and was stored before.
    pub(super) fn stored_through(&self, base: Epoch) -> Epoch {
        let stored = |lane: &Lane| {
            lane.hydrated
                .iter()
                .any(|id| matches!(lane.objects.get(id), Some(Object::Dataflow(_, Some(_)))))
        };
        let going = self.lanes.iter().filter(|(id, lane)| {
            !lane.parked && stored(lane) && self.moves.get(id).is_none_or(|going| going.keeps)
        });
        going.map(|(_, lane)| lane.frontier).fold(base, Epoch::min)
    }

    /// Whether there is nothing to go on with.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.is_empty()
            && self.asked_since <= self.since
            && !self.clusters.values().any(|cluster| cluster.changed)
    }

    /// A transaction reads at an epoch: no lane passes over it any more, unless too many do.
    pub(super) fn stop_at(&self, epoch: Epoch) {
        if !self.lanes.is_empty() {
            self.stops.add(epoch);
        }
    }

    /// Whether a lane is about to take another's place.
    pub(super) fn is_moving(&self, lane: LaneId) -> bool {
        self.moves.contains_key(&lane)
    }

    /// Whether so much waits for a lane that no epoch should be run before it has done some of it.
    pub(super) fn is_behind(&self) -> bool {
        self.lanes
            .values()
            .any(|lane| lane.backlog_bytes > BACKLOG_BYTES && !lane.outstanding.is_empty())
    }

    /// Where a dataflow of a cluster that reads `inputs` goes. Makes the lane if there is none.
    pub(super) fn choose(
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
            .any(|node| matches!(node.operator, Operator::Recompute { .. }));
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

    fn threads(&self, cluster: ClusterId) -> usize {
        self.clusters
            .get(&cluster)
            .map_or(self.parts.threads, |cluster| cluster.threads)
    }

    /// Whether a cluster or one of those that something in it reads is paused.
    fn is_paused(&self, cluster: ClusterId, reads: &BTreeSet<ClusterId>) -> bool {
        let mut clusters = reads.iter().chain([&cluster]);
        clusters.any(|cluster| self.threads(*cluster) == 0)
    }

    /// Whether `lane` reads what `other` has, or what is made of it elsewhere.
    fn depends(&self, lane: LaneId, other: LaneId) -> bool {
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

    fn start(
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
        tokio::spawn(task.run(queue));
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
            frontier: base,
            counting: false,
        };
        self.lanes.insert(id, lane);
        Ok(id)
    }

    /// Something is made in a lane as soon as all it reads has come to `epoch`. [`Lanes::go_on`] follows.
    pub(super) fn create(&mut self, lane: LaneId, id: ObjectId, object: Object, epoch: Epoch) {
        self.places.insert(id, lane);
        self.make(lane, id, object, Source::Stored, epoch);
    }

    fn make(
        &mut self,
        number: LaneId,
        id: ObjectId,
        object: Object,
        content: Source,
        epoch: Epoch,
    ) {
        let inputs = object.plan().collections();
        let from: Vec<(ObjectId, Place)> = inputs
            .iter()
            .map(|input| (*input, self.place_of(*input)))
            .collect();
        let Some(lane) = self.lanes.get_mut(&number) else {
            return;
        };
        let mut imports = Vec::new();
        if !lane.parked {
            for (input, from) in from {
                if !lane.objects.contains_key(&input) && !lane.imports.contains_key(&input) {
                    let (since, taken) = (epoch, false);
                    lane.imports.insert(input, Import { from, since, taken });
                    imports.push(input);
                }
            }
        }
        lane.objects.insert(id, object);
        lane.acts.push_back(Act {
            epoch,
            id,
            imports,
            content,
        });
    }

    /// Changes of collections that `from` has. Sent by [`Lanes::go_on`].
    pub(super) fn take_in(&mut self, from: Place, outputs: &[TickOutput]) {
        let mut late: BTreeMap<LaneId, Epoch> = BTreeMap::new();
        for output in outputs {
            for changed in &output.outputs {
                for (number, lane) in &mut self.lanes {
                    let Some(import) = lane.imports.get(&changed.id) else {
                        continue;
                    };
                    if import.from != from || (!import.taken && output.epoch <= import.since) {
                        continue;
                    }
                    let sizes = changed.deltas.iter().map(|delta| bytes_of(&delta.rows));
                    lane.backlog_bytes = sizes.fold(lane.backlog_bytes, usize::saturating_add);
                    if output.epoch <= lane.through {
                        let first = late.entry(*number).or_insert(output.epoch);
                        *first = output.epoch.min(*first);
                    }
                    lane.waiting.entry(output.epoch).or_default().push(Change {
                        id: changed.id,
                        deltas: changed.deltas.clone(),
                        errors: changed.errors.clone(),
                    });
                }
            }
        }
        for (number, epoch) in late {
            self.lower(number, epoch.previous());
        }
    }

    /// What was complete is not: something comes late, and what is made of it will.
    fn lower(&mut self, number: LaneId, epoch: Epoch) {
        let ids: Vec<LaneId> = self.lanes.keys().copied().collect();
        for id in ids {
            if self.depends(id, number)
                && let Some(lane) = self.lanes.get_mut(&id)
            {
                lane.through = lane.through.min(epoch);
                lane.frontier = lane.frontier.min(epoch);
            }
        }
    }

    /// Sends every lane what it can do by now. `readable_from`: the first epoch at which an object can be read; `None` while it is being made.
    pub(super) async fn go_on(
        &mut self,
        base: Base<'_>,
        readable_from: &impl Fn(ObjectId) -> Option<Epoch>,
    ) -> Result<Progress, Error> {
        let mut progress = Progress::default();
        loop {
            let mut moved = self.begin_moves(base)?;
            let ids: Vec<LaneId> = self.lanes.keys().copied().collect();
            for id in ids {
                moved |= self.advance(id, base, readable_from).await?;
            }
            moved |= self.finish_moves(&mut progress);
            if !moved {
                break;
            }
        }
        let slowest = self.lanes.values().filter(|lane| !lane.parked);
        let slowest = slowest.map(|lane| lane.frontier).min();
        self.stops.forget(slowest.unwrap_or(Epoch::MAX));
        progress.since = self.compact(base.epoch);
        Ok(progress)
    }

    /// Sends a lane what it can do by now. Returns whether that was anything.
    async fn advance(
        &mut self,
        number: LaneId,
        base: Base<'_>,
        readable_from: &impl Fn(ObjectId) -> Option<Epoch>,
    ) -> Result<bool, Error> {
        let mut moved = false;
        while let Some(lane) = self.lanes.get_mut(&number) {
            // `None` while one of them is being made.
            let mut made = lane.acts.front().map(|act| act.epoch);
            for id in lane.acts.front().into_iter().flat_map(|act| &act.imports) {
                made = made.and_then(|epoch| Some(epoch.max(readable_from(*id)?)));
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
            for import in lane.imports.values() {
                bound = bound.min(self.frontier(import.from, base.epoch));
            }
            bound = bound.min(base.epoch);
            if lane.pace == Pace::Recomputing {
                bound = bound.min(base.durable);
            }
            if lane.parked {
                bound = lane.frontier;
            }
            let act = lane.acts.front();
            let ready = act.is_some_and(|act| {
                let old = match act.content {
                    Source::Lane(old) => self.lanes.get(&old),
                    Source::Stored => None,
                };
                (lane.parked || bound >= act.epoch)
                    && old.is_none_or(|old| old.parked || old.frontier >= act.epoch)
                    && made.is_some()
            });
            let to = match act {
                Some(act) => bound.min(act.epoch),
                None => bound,
            };
            moved |= self.send_changes(number, to);
            if !ready {
                break;
            }
            self.send_act(number, base).await?;
            moved = true;
        }
        Ok(moved)
    }

    /// Sends a lane the changes that wait for it, through an epoch. Returns whether it comes further by that.
    fn send_changes(&mut self, number: LaneId, to: Epoch) -> bool {
        let Some(lane) = self.lanes.get_mut(&number) else {
            return false;
        };
        let later = lane.waiting.split_off(&to.next());
        let ready = std::mem::replace(&mut lane.waiting, later);
        let moved = to > lane.through || !ready.is_empty();
        let one_by_one = lane
            .imports
            .values()
            .all(|import| import.from == Place::Base);
        let may_join = lane.pace == Pace::Recomputing;
        let mut messages: Vec<Advance> = Vec::new();
        for (epoch, changes) in ready {
            let sizes = changes.iter().flat_map(|change| &change.deltas);
            let bytes = sizes.fold(0_usize, |sum, delta| {
                sum.saturating_add(bytes_of(&delta.rows))
            });
            match messages.last_mut() {
                // What several lanes give for epochs that only some of them have one by one is complete at the last only.
                Some(last) if !one_by_one && !self.stops.between(last.epoch, epoch) => {
                    last.epoch = epoch;
                    last.changes.extend(changes);
                    last.bytes = last.bytes.saturating_add(bytes);
                }
                _ => messages.push(Advance {
                    first: epoch,
                    epoch,
                    changes,
                    bytes,
                    may_join,
                }),
            }
        }
        lane.outstanding
            .extend(messages.iter().map(|advance| advance.first));
        for advance in messages {
            lane.send(Work::Advance(advance));
        }
        lane.through = lane.through.max(to);
        if lane.outstanding.is_empty() {
            lane.frontier = lane.through;
        }
        moved
    }

    /// Sends a lane its next act, which is ready: all that it reads has come to its epoch.
    async fn send_act(&mut self, number: LaneId, base: Base<'_>) -> Result<(), Error> {
        let Some(act) = self
            .lanes
            .get_mut(&number)
            .and_then(|lane| lane.acts.pop_front())
        else {
            return Ok(());
        };
        let Act {
            epoch,
            id,
            imports,
            content,
        } = act;
        for import in imports {
            let from = self
                .lanes
                .get(&number)
                .and_then(|lane| lane.imports.get(&import))
                .map_or(Place::Base, |import| import.from);
            let Some(copied) = self.copy(import, from, epoch, base).await? else {
                continue;
            };
            if let Some(lane) = self.lanes.get_mut(&number) {
                if let Some(import) = lane.imports.get_mut(&import) {
                    import.taken = true;
                }
                lane.send(Work::Import(copied, epoch));
            }
        }
        let is_view =
            |lane: &Lane| matches!(lane.objects.get(&id), Some(Object::Dataflow(_, Some(_))));
        let content = match content {
            Source::Lane(old) if self.lanes.get(&number).is_some_and(is_view) => {
                let at = match self.lanes.get(&old) {
                    Some(old) if old.parked => old.frontier,
                    _ => epoch,
                };
                let rows = self.copy(id, Place::Lane(old), at, base).await?;
                Content::Copied(rows.map_or_else(Vec::new, |copied| copied.rows))
            }
            Source::Lane(_) | Source::Stored => Content::Stored,
        };
        let Some(lane) = self.lanes.get(&number) else {
            return Ok(());
        };
        match lane.objects.get(&id) {
            Some(Object::Dataflow(_, Some(collection))) if lane.parked => {
                lane.send(Work::Keep(collection.clone(), content, lane.frontier));
            }
            Some(Object::Dataflow(description, collection)) if !lane.parked => {
                let collection = collection.clone().map(|collection| (collection, content));
                lane.send(Work::Create(description.clone(), collection, epoch));
            }
            Some(Object::Subscription(plan)) if !lane.parked => {
                lane.send(Work::Subscribe(id, plan.clone(), epoch));
            }
            _ => {}
        }
        Ok(())
    }

    /// What a collection is at an epoch that where it is has come to. `None` if it is gone.
    async fn copy(
        &self,
        id: ObjectId,
        from: Place,
        epoch: Epoch,
        base: Base<'_>,
    ) -> Result<Option<Copied>, Error> {
        let pool = match from {
            Place::Base => base.pool,
            Place::Lane(lane) => match self.lanes.get(&lane) {
                Some(lane) => &lane.pool,
                None => return Ok(None),
            },
        };
        let shards = pool
            .on_each(move |_, shard| Ok((shard.snapshot(id, epoch)?, shard.key_of(id))))
            .await?;
        let (mut rows, mut key) = (Vec::with_capacity(shards.len()), None);
        for shard in shards {
            match shard {
                Ok((snapshot, of_shard)) => {
                    rows.push(snapshot);
                    key = of_shard;
                }
                Err(flowstone_dataflow::Error::UnknownCollection(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        let schema: Option<SchemaRef> =
            rows.first().map(|rows: &Snapshot| Arc::clone(&rows.schema));
        Ok(schema.map(|schema| Copied {
            id,
            schema,
            key,
            rows,
        }))
    }

    /// A lane has run changes. Returns the epochs that nobody may read there any more, if any, and all lanes that have what comes of them.
    pub(super) fn ticked(
        &mut self,
        number: LaneId,
        (joined, bytes): (usize, usize),
        (first, last): (Epoch, Epoch),
    ) -> (Option<Jump>, Vec<LaneId>) {
        let Some(lane) = self.lanes.get_mut(&number) else {
            return (None, Vec::new());
        };
        lane.outstanding.drain(..joined.min(lane.outstanding.len()));
        lane.backlog_bytes = lane.backlog_bytes.saturating_sub(bytes);
        // What follows may belong to the same epoch.
        let next = lane.outstanding.front();
        let mut reached = next.map_or(lane.through, |next| next.previous());
        // What came in late belongs to an epoch that counted as complete.
        if let Some(late) = lane.waiting.keys().next() {
            reached = reached.min(late.previous());
        }
        lane.frontier = lane.frontier.max(reached);
        if first == last {
            return (None, Vec::new());
        }
        let later = self
            .lanes
            .keys()
            .copied()
            .filter(|other| self.depends(*other, number));
        (Some(Jump { first, last }), later.collect())
    }

    /// An object was hydrated. Returns whether it is in the lane still.
    pub(super) fn hydrated(&mut self, number: LaneId, id: ObjectId) -> bool {
        let Some(lane) = self.lanes.get_mut(&number) else {
            return false;
        };
        lane.objects.contains_key(&id) && {
            lane.hydrated.insert(id);
            true
        }
    }

    /// Whether what a lane puts out of an object is the object's: not if another lane has it, or is to give it later.
    pub(super) fn counts(&self, number: LaneId, id: ObjectId) -> bool {
        match self.moves.get(&number) {
            Some(going) if going.objects.contains(&id) => going.keeps,
            _ => self.places.get(&id) == Some(&number),
        }
    }

    /// Ends dataflows in error.
    pub(super) fn fail(&mut self, id: ObjectId, error: &EvalError) {
        for lane in self.lanes.values_mut() {
            if lane.objects.remove(&id).is_some() {
                lane.hydrated.remove(&id);
                lane.acts.retain(|act| act.id != id);
                let epoch = lane.frontier.max(lane.through);
                lane.send(Work::Fail(id, error.clone(), epoch));
            }
        }
        self.forget_imports();
    }

    /// Forgets objects. A lane without any goes.
    pub(super) fn drop_objects(&mut self, objects: &[ObjectId]) {
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
    fn forget_imports(&mut self) {
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
    pub(super) fn remove(&mut self, number: LaneId) -> Vec<ObjectId> {
        self.moves
            .retain(|id, going| *id != number && going.old != number);
        let Some(lane) = self.lanes.remove(&number) else {
            return Vec::new();
        };
        lane.objects.into_keys().collect()
    }

    /// No one will read below `since` any more, but for what the lanes have yet to read. Returns from where on base and lanes are read, if that has changed.
    pub(super) fn allow_compaction(&mut self, since: Epoch, base: Epoch) -> Option<Epoch> {
        self.asked_since = self.asked_since.max(since);
        self.compact(base)
    }

    fn compact(&mut self, base: Epoch) -> Option<Epoch> {
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

    /// Asks lanes for the counters of what is in them.
    pub(super) fn count(&mut self) {
        for (number, lane) in &mut self.lanes {
            if lane.counting || !lane.outstanding.is_empty() {
                continue;
            }
            let own = lane.hydrated.iter().copied();
            let own = own.filter(|id| self.places.get(id) == Some(number));
            let ids: Vec<ObjectId> = own.collect();
            if !ids.is_empty() {
                lane.counting = true;
                lane.send(Work::Count(ids));
            }
        }
    }

    /// The counters that a lane was asked for.
    pub(super) fn counted(
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
