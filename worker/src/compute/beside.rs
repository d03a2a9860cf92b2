//! What goes on beside the base: lanes, and dataflows that are away; the reading of snapshots, and counts.
//!
//! Owns what becomes of what they say: who can read what from when on, and what is stored of it. Must not know how lanes and forks work. Called by the router and
//! by the rest of the compute.
//!
//! Invariants. How far a lane is, is published only when everything up to there has been taken in.

use std::sync::Arc;

use flowstone_dataflow::TickOutput;
use flowstone_proto::message::{RequestError, RequestId, Response};
use flowstone_types::{ClusterId, Epoch, EvalError, EvalErrorKind, ObjectId};

use super::direct::ReadableLane;
use super::lanes::{Base, LaneEvent, LaneId, Moved, Place, Said};
use super::sides::SideEvent;
use super::statistics::{Counts, counted};
use super::subscription::Subscription;
use super::{Compute, EpochOutput};
use crate::Error;

/// What was done beside the base.
#[derive(Debug)]
pub(crate) enum Heard {
    Lane(LaneEvent),
    Side(SideEvent),
    /// More of a snapshot was read: it can enter.
    Read,
    /// What is held was counted.
    Counted(Result<Counts, Error>),
}

impl Compute {
    /// A cluster exists, or gets other threads.
    pub(crate) async fn set_cluster(
        &mut self,
        cluster: ClusterId,
        threads: usize,
        change: u64,
    ) -> Result<(), Error> {
        if cluster == ClusterId::DEFAULT {
            return Err(Error::Protocol(
                "the default cluster has the threads of the process".to_owned(),
            ));
        }
        self.lanes.set_cluster(cluster, threads, change);
        self.go_on().await?;
        // Writes that wait for what stands still now hear of it.
        self.start_what_waited().await
    }

    /// A cluster is gone, and what was in it before.
    pub(crate) async fn drop_cluster(&mut self, cluster: ClusterId) -> Result<(), Error> {
        for id in self.lanes.drop_cluster(cluster) {
            if let ObjectId::Transient(request) = id {
                self.end_subscription_with(RequestId(request), RequestError::Dropped)
                    .await?;
            }
        }
        self.go_on().await
    }

    /// The newest epoch through which everything is complete that is to be stored: none after the beginning while what was stored before is being made.
    pub(crate) fn stored_through(&self) -> Epoch {
        if self.unmade.iter().any(|id| !self.lanes.is_parked(*id)) {
            return self.begun;
        }
        let base = self.bulk.complete_through(self.last_run);
        self.lanes.stored_through(base)
    }

    /// The first epoch from `epoch` on of which all that belongs to it, and nothing else, is in what was put out up to it.
    pub(crate) fn stored_from(&self, epoch: Epoch) -> Epoch {
        let from = epoch.max(self.bulk.last()).max(self.made_at);
        self.lanes.stored_from(from)
    }

    /// An epoch is to be committed.
    pub(crate) fn stop_for_commit(&self, epoch: Epoch) {
        self.lanes.stop_for_commit(epoch);
    }

    /// Everything through it was shown to all subscribers.
    pub(super) fn shown(&self) -> Epoch {
        let shown = self.subscriptions.values().map(Subscription::shown);
        let asked = self.starting.values().map(|starting| starting.asked);
        shown.chain(asked).min().unwrap_or(Epoch::MAX)
    }

    /// What happens next beside the base. Can be given up.
    pub(crate) async fn hear(&mut self) -> Heard {
        let read = self.bulk.wait(&self.delta, &self.collections, &self.tasks);
        tokio::select! {
            event = self.lanes.hear() => Heard::Lane(event),
            event = self.sides.hear() => Heard::Side(event),
            () = read => Heard::Read,
            counts = counted(&mut self.counting) => Heard::Counted(counts),
        }
    }

    /// Takes in what was done beside the base.
    pub(crate) async fn heard(&mut self, heard: Heard) -> Result<EpochOutput, Error> {
        match heard {
            Heard::Lane(event) => self.lane_said(event).await,
            Heard::Side(event) => self.side_said(event).await,
            Heard::Read => Ok(EpochOutput::default()),
            Heard::Counted(counts) => {
                self.take_counts(counts?).await;
                Ok(EpochOutput::default())
            }
        }
    }

    pub(super) async fn lane_said(&mut self, event: LaneEvent) -> Result<EpochOutput, Error> {
        let mut output = EpochOutput::default();
        let lane = event.lane;
        match event.said {
            Said::Ticked {
                joined,
                first,
                epoch,
                bytes,
                outputs,
            } => {
                self.absorb(Place::Lane(lane), outputs, None, &mut output)
                    .await?;
                self.lanes.ticked(lane, (joined, bytes), (first, epoch));
            }
            Said::Hydrated { id, epoch, outputs } => {
                if self.lanes.hydrated(lane, id) {
                    self.hydrated(lane, (id, epoch), outputs, &mut output)
                        .await?;
                }
            }
            Said::NotMade { id, error } => self.fail(id, error).await?,
            Said::Counted(counted) => {
                for (id, statistics) in self.lanes.counted(lane, counted) {
                    self.send_statistics(id, statistics).await;
                }
            }
            Said::Broken(error) => {
                tracing::error!(?lane, %error, "a lane has broken; what was in it has failed");
                let error = EvalError::new(EvalErrorKind::Internal, error.to_string());
                for id in self.lanes.remove(lane) {
                    self.fail(id, error.clone()).await?;
                }
            }
        }
        self.go_on().await?;
        self.show().await?;
        self.start_what_waited().await?;
        Ok(output)
    }

    pub(super) async fn hydrated(
        &mut self,
        lane: LaneId,
        (id, epoch): (ObjectId, Epoch),
        mut outputs: Vec<TickOutput>,
        output: &mut EpochOutput,
    ) -> Result<(), Error> {
        let counts = self.lanes.counts(lane, id);
        self.compare_with_stored(id, &outputs);
        if let ObjectId::Transient(request) = id
            && counts
            && let Some(starting) = self.starting.remove(&RequestId(request))
        {
            if !starting.snapshot {
                outputs.iter_mut().for_each(|output| output.outputs.clear());
            }
            self.subscriptions
                .insert(RequestId(request), starting.start(epoch));
        }
        self.absorb(Place::Lane(lane), outputs, None, output)
            .await?;
        // One that comes into another's place can be read when it has.
        if counts && !self.lanes.is_moving(lane, id) {
            self.readable_from(id, epoch).await;
        }
        Ok(())
    }

    /// What was being made can be read, unless it has failed.
    pub(super) async fn readable_from(&mut self, id: ObjectId, epoch: Epoch) {
        if self.unmade.remove(&id) {
            // What is stored of it is as of the beginning, and the next there is of it is this.
            self.made_at = self.made_at.max(epoch);
        }
        let came = {
            let mut readable = self.readable.write();
            let came = readable.coming.remove(&id);
            if came {
                // What it reads may have lacked something at the epoch at which it was made.
                let inputs = self.inputs.get(&id).into_iter().flatten();
                let from = inputs.filter_map(|id| readable.from.get(id)).copied();
                let from = from.fold(epoch, Epoch::max);
                readable.from.insert(id, from);
            }
            came
        };
        if came {
            self.asked.tell();
            self.respond(Response::Hydrated { id }).await;
        }
    }

    /// Lets the lanes go on with what they can do by now.
    pub(super) async fn go_on(&mut self) -> Result<(), Error> {
        // What can be read from now on may be what others wait for.
        while self.go_on_once().await? {}
        Ok(())
    }

    /// Returns whether something can be read that could not before.
    pub(super) async fn go_on_once(&mut self) -> Result<bool, Error> {
        let readable = Arc::clone(&self.readable);
        let base = Base {
            pool: &self.shards,
            epoch: self.last_run,
            durable: self.durable,
            shown: self.shown(),
        };
        let readable_from = |id: ObjectId| {
            let readable = readable.read();
            let from = readable.from.get(&id).copied().unwrap_or(Epoch::MIN);
            (!readable.coming.contains(&id)).then_some(from)
        };
        let progress = self.lanes.go_on(base, &readable_from);
        self.publish(&progress.moved);
        // Not before: who reads is where the lanes were said to be.
        if let Some(since) = self.lanes.compact(self.last_run) {
            self.compact(since).await?;
        }
        let moved = !progress.moved.is_empty();
        for moved in progress.moved {
            if let Some(epoch) = moved.from {
                self.readable_from(moved.id, epoch).await;
            }
        }
        for id in progress.paused {
            if let ObjectId::Transient(request) = id {
                let request = RequestId(request);
                self.end_subscription_with(request, RequestError::Paused)
                    .await?;
            }
        }
        // Who waits for it finds what is in it readable.
        for (cluster, change) in progress.ready {
            self.respond(Response::ClusterReady { cluster, change })
                .await;
        }
        Ok(moved)
    }

    /// Lets everybody read what the lanes have.
    pub(super) fn publish(&self, moved: &[Moved]) {
        let mut readable = self.readable.write();
        for Moved { id, lane, from } in moved {
            if let Some(place) = readable.places.get_mut(id) {
                *place = *lane;
            }
            match from {
                Some(epoch) => {
                    if let Some(from) = readable.from.get_mut(id) {
                        *from = *epoch;
                    }
                }
                None => {
                    if readable.from.remove(id).is_some() {
                        readable.coming.insert(*id);
                    }
                }
            }
        }
        readable
            .lanes
            .retain(|lane, _| self.lanes.get(*lane).is_some());
        for (number, lane) in self.lanes.iter() {
            let frontier = lane.frontier();
            match readable.lanes.get_mut(&number) {
                Some(known) => {
                    known.frontier = frontier;
                    if known.jumps != lane.jumps() {
                        known.jumps = lane.jumps().to_vec();
                    }
                }
                None => {
                    let shards = lane.pool().shards();
                    let jumps = lane.jumps().to_vec();
                    let known = ReadableLane {
                        shards,
                        jobs: lane.pool().jobs(),
                        frontier,
                        jumps,
                    };
                    readable.lanes.insert(number, known);
                }
            }
        }
    }

    /// Whether more waits for what runs beside the base than may: nothing should be added before [`Compute::heard`] has made it less, or something is dropped.
    pub(crate) fn is_behind(&self) -> bool {
        self.lanes.is_behind() || self.sides.is_behind()
    }
}
