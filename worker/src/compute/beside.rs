//! What goes on beside the base: lanes, and dataflows that are away.
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
use super::{Compute, EpochOutput};
use crate::Error;

/// What was done beside the base.
#[derive(Debug)]
pub(crate) enum Heard {
    Lane(LaneEvent),
    Side(SideEvent),
}

impl Compute {
    /// A cluster exists, or gets other threads.
    pub(crate) async fn set_cluster(
        &mut self,
        cluster: ClusterId,
        threads: usize,
    ) -> Result<(), Error> {
        if cluster == ClusterId::DEFAULT {
            return Err(Error::Protocol(
                "the default cluster has the threads of the process".to_owned(),
            ));
        }
        self.lanes.set_cluster(cluster, threads);
        self.go_on().await
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

    /// The newest epoch through which everything is complete that is to be stored.
    pub(crate) fn stored_through(&self) -> Epoch {
        let base = self.bulk.complete_through(self.last_run);
        self.lanes.stored_through(base)
    }

    /// The first epoch of which everything that belongs to it, and nothing else, is in what was put out up to it, of those that were not stored yet.
    pub(crate) const fn stored_from(&self) -> Epoch {
        self.bulk.last()
    }

    /// What happens next beside the base. Can be given up.
    pub(crate) async fn hear(&mut self) -> Heard {
        tokio::select! {
            event = self.lanes.hear() => Heard::Lane(event),
            event = self.sides.hear() => Heard::Side(event),
        }
    }

    /// Takes in what was done beside the base.
    pub(crate) async fn heard(&mut self, heard: Heard) -> Result<EpochOutput, Error> {
        match heard {
            Heard::Lane(event) => self.lane_said(event).await,
            Heard::Side(event) => self.side_said(event).await,
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
                let (jump, jumping) = self.lanes.ticked(lane, (joined, bytes), (first, epoch));
                if let Some(jump) = jump {
                    let mut readable = self.readable.write();
                    for lane in jumping {
                        if let Some(lane) = readable.lanes.get_mut(&lane) {
                            lane.jumps.push(jump);
                        }
                    }
                }
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
        if counts && !self.lanes.is_moving(lane) {
            self.readable_from(id, epoch).await;
        }
        Ok(())
    }

    /// What was being made can be read, unless it has failed.
    pub(super) async fn readable_from(&self, id: ObjectId, epoch: Epoch) {
        let came = {
            let mut readable = self.readable.write();
            let came = readable.coming.remove(&id);
            if came {
                readable.from.insert(id, epoch);
            }
            came
        };
        if came {
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
            durable: readable.read().durable,
        };
        let readable_from = |id: ObjectId| {
            let readable = readable.read();
            let from = readable.from.get(&id).copied().unwrap_or(Epoch::MIN);
            (!readable.coming.contains(&id)).then_some(from)
        };
        let progress = self.lanes.go_on(base, &readable_from).await?;
        for (cluster, threads) in progress.ready {
            self.respond(Response::ClusterReady { cluster, threads })
                .await;
        }
        if let Some(since) = progress.since {
            self.compact(since).await?;
        }
        for (lane, jump) in progress.jumps {
            if let Some(lane) = self.readable.write().lanes.get_mut(&lane) {
                lane.jumps.push(jump);
            }
        }
        self.publish(&progress.moved);
        let moved = !progress.moved.is_empty();
        for moved in progress.moved {
            if let Some(epoch) = moved.from {
                self.readable_from(moved.id, epoch).await;
            }
        }
        for id in progress.paused {
            if let ObjectId::Transient(request) = id {
                let request = RequestId(request);
                let message = "a cluster that it depends on was paused".to_owned();
                let error = EvalError::new(EvalErrorKind::Source, message);
                self.fail_subscription(request, &error).await?;
            }
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
                Some(known) => known.frontier = frontier,
                None => {
                    let shards = lane.pool().shards();
                    let jumps = Vec::new();
                    let known = ReadableLane {
                        shards,
                        frontier,
                        jumps,
                    };
                    readable.lanes.insert(number, known);
                }
            }
        }
    }

    /// Whether more waits for what runs beside the base than may.
    pub(super) fn is_behind(&self) -> bool {
        self.lanes.is_behind() || self.sides.is_behind()
    }
}
