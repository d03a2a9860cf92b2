//! Reads of one key on the caller's thread, and what decides whether a read can run: which epoch may be observed, and from which one on an object can be read.
//!
//! Owns [`Readable`], which the compute writes and everybody reads; that an epoch may be observed the reads write as well. Must not know commands. Called by the compute, by the reads and, through
//! [`flowstone_proto::local::Direct`], by sessions.
//!
//! Invariants. Nothing here waits: what cannot be read at once is read by a command, in the order of commands. An object is in [`Readable`] from the end of its
//! hydration until it is dropped. An epoch is observable here only when every shard has run it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use flowstone_dataflow::{Shard, expand, owner_of};
use flowstone_proto::local::{DirectReads, Lack};
use flowstone_proto::message::{ReadAt, RequestError};
use flowstone_types::{Epoch, EvalError, EvalErrorKind, ObjectId, TypeError};
use parking_lot::RwLock;

use super::lanes::{Jump, LaneId, after, before};
use super::shards::{Jobs, Shards};
use crate::query::{evaluation_failed, internal};

/// A read that looks at more rows than this goes to the shards' own threads: it would hold up the connections that share the caller's.
const ROWS_MAX: usize = 1024;

/// Whether a read can run now.
#[derive(Debug)]
pub(crate) enum Readiness {
    At(Epoch),
    Wait,
    Never(RequestError),
}

/// What can be read, and when.
#[derive(Debug, Default)]
pub(crate) struct Readable {
    /// The newest epoch that may be observed.
    pub(crate) durable: Epoch,
    /// The first epoch at which an object can be read.
    pub(crate) from: BTreeMap<ObjectId, Epoch>,
    /// Epochs at which objects never were complete, the oldest first.
    pub(crate) jumps: BTreeMap<ObjectId, Vec<Jump>>,
    /// What is being made: it can be read once it was hydrated.
    pub(crate) coming: BTreeSet<ObjectId>,
    /// What is not in the base, and where.
    pub(crate) places: BTreeMap<ObjectId, LaneId>,
    /// The lanes.
    pub(crate) lanes: BTreeMap<LaneId, ReadableLane>,
    /// What lacks something that belongs to epochs which were run.
    pub(crate) held: BTreeSet<ObjectId>,
    /// Views and indexes that have failed, and why.
    pub(crate) failed: BTreeMap<ObjectId, EvalError>,
}

/// What of a lane can be read.
#[derive(Clone, Debug)]
pub(crate) struct ReadableLane {
    pub(crate) shards: Shards,
    /// Where they are asked.
    pub(crate) jobs: Jobs,
    /// The newest epoch through which it is complete.
    pub(crate) frontier: Epoch,
    /// Epochs at which it never was, the oldest first.
    pub(crate) jumps: Vec<Jump>,
}

impl Readable {
    /// An object cannot be read any more.
    pub(crate) fn fail(&mut self, id: ObjectId, error: EvalError) {
        self.from.remove(&id);
        self.coming.remove(&id);
        self.failed.insert(id, error);
    }

    /// An object is gone.
    pub(crate) fn forget(&mut self, id: ObjectId) {
        self.from.remove(&id);
        self.coming.remove(&id);
        self.places.remove(&id);
        self.jumps.remove(&id);
        self.failed.remove(&id);
    }

    /// The newest epoch up to `epoch` at which all of `ids` can be read.
    pub(crate) fn at(&self, epoch: Epoch, ids: &[ObjectId]) -> Epoch {
        let is_apart = |id: &ObjectId| self.places.contains_key(id) || self.jumps.contains_key(id);
        if (self.places.is_empty() && self.jumps.is_empty()) || !ids.iter().any(is_apart) {
            return epoch;
        }
        let frontiers = self.lanes_of(ids).map(|lane| lane.frontier);
        before(self.jumps_of(ids), frontiers.fold(epoch, Epoch::min))
    }

    /// Whether `ids` are in more than one lane.
    pub(crate) fn are_several(&self, ids: &[ObjectId]) -> bool {
        let mut lanes = ids.iter().filter_map(|id| self.places.get(id));
        let first = lanes.next();
        lanes.any(|lane| Some(lane) != first)
    }

    /// Where the shards are asked that have an object: `base`, or those of its lane, if that is there.
    pub(crate) fn jobs_of<'a>(&'a self, id: ObjectId, base: &'a Jobs) -> Option<&'a Jobs> {
        match self.places.get(&id) {
            None => Some(base),
            Some(lane) => self.lanes.get(lane).map(|lane| &lane.jobs),
        }
    }

    fn lanes_of<'a>(
        &'a self,
        ids: &'a [ObjectId],
    ) -> impl Iterator<Item = &'a ReadableLane> + Clone {
        let places = ids.iter().filter_map(|id| self.places.get(id));
        places.filter_map(|lane| self.lanes.get(lane))
    }

    /// The epochs that were passed over in one of `ids`, or where it is.
    fn jumps_of<'a>(&'a self, ids: &'a [ObjectId]) -> impl Iterator<Item = &'a Jump> + Clone {
        let of_lanes = self.lanes_of(ids).flat_map(|lane| &lane.jumps);
        of_lanes.chain(ids.iter().filter_map(|id| self.jumps.get(id)).flatten())
    }

    /// Why one of `ids` cannot be read, if it has failed.
    pub(crate) fn failure_among(&self, ids: &[ObjectId]) -> Option<RequestError> {
        if self.failed.is_empty() {
            return None;
        }
        let error = ids.iter().find_map(|id| self.failed.get(id))?.clone();
        Some(match error.kind {
            EvalErrorKind::Internal => internal(error.message),
            // Also what was given up: not this read was.
            _ => RequestError::Eval(error),
        })
    }

    /// Whether `ids` can be read together.
    pub(crate) fn readiness(&self, at: ReadAt, ids: &[ObjectId]) -> Readiness {
        if let Some(error) = self.failure_among(ids) {
            return Readiness::Never(error);
        }
        if !self.held.is_empty() && ids.iter().any(|id| self.held.contains(id)) {
            return Readiness::Wait;
        }
        if !self.coming.is_empty() && ids.iter().any(|id| self.coming.contains(id)) {
            return Readiness::Wait;
        }
        let mut since = Epoch::MIN;
        for id in ids {
            let Some(from) = self.from.get(id) else {
                return Readiness::Never(RequestError::Dropped);
            };
            since = since.max(*from);
        }
        match at {
            ReadAt::AtLeast(epoch) => match self.at(self.durable, ids) {
                at if at >= epoch.max(since) => Readiness::At(at),
                _ => Readiness::Wait,
            },
            ReadAt::Exactly(epoch) if epoch < since => {
                Readiness::Never(RequestError::SinceAdvanced {
                    asked: epoch,
                    since,
                })
            }
            ReadAt::Exactly(epoch) if self.durable < epoch => Readiness::Wait,
            ReadAt::Exactly(epoch) if self.at(epoch, ids) == epoch => Readiness::At(epoch),
            ReadAt::Exactly(epoch) => match after(self.jumps_of(ids), epoch) {
                // It will never be what it would have been.
                next if next > epoch => {
                    Readiness::Never(RequestError::PassedOver { asked: epoch, next })
                }
                _ => Readiness::Wait,
            },
        }
    }
}

/// What a worker offers to those who are in its process.
#[derive(Debug)]
pub(crate) struct WorkerReads {
    pub(crate) readable: Arc<RwLock<Readable>>,
    pub(crate) shards: Shards,
}

impl DirectReads for WorkerReads {
    fn lookup(
        &self,
        index: ObjectId,
        key: &[ArrayRef],
        projection: &[usize],
        at: ReadAt,
    ) -> Option<Result<(Epoch, RecordBatch), RequestError>> {
        let (epoch, shards) = {
            let readable = self.readable.read();
            let Readiness::At(epoch) = readable.readiness(at, &[index]) else {
                return None;
            };
            let lane = readable.places.get(&index);
            let lane = lane.and_then(|lane| readable.lanes.get(lane));
            let lane = lane.map(|lane| lane.shards.clone());
            (epoch, lane.unwrap_or_else(|| self.shards.clone()))
        };
        let owner = owner_of(key, shards.count()).ok()?;
        let mut rows = None;
        for number in 0..shards.count() {
            let shard = shards.try_read(number)?;
            if number == owner {
                rows = Some(found(&shard, index, key, projection, (epoch, ROWS_MAX)).transpose()?);
            } else if let Err(error) = no_error(&shard, index, epoch) {
                rows = Some(Err(error));
            }
            match &rows {
                // Dropped or compacted since: the command finds out in its turn.
                Some(Err(RequestError::Dropped | RequestError::SinceAdvanced { .. })) => {
                    return None;
                }
                Some(Err(_)) => break,
                _ => {}
            }
        }
        // One that was ended while the shards were read, one after the other, has lost its rows here and has its error there: the command finds out.
        if shards.count() > 1 && self.readable.read().failed.contains_key(&index) {
            return None;
        }
        rows.map(|rows| rows.map(|rows| (epoch, rows)))
    }

    fn is_readable(&self, id: ObjectId) -> bool {
        self.readable.read().from.contains_key(&id)
    }

    fn lack(&self, id: ObjectId, epoch: Epoch) -> Option<Lack> {
        let readable = self.readable.read();
        if readable.failed.contains_key(&id) {
            return None;
        }
        if !readable.from.contains_key(&id) || readable.coming.contains(&id) {
            return Some(Lack::Content);
        }
        if readable.held.contains(&id) {
            return Some(Lack::Input);
        }
        let from = readable.from.get(&id).copied().unwrap_or(Epoch::MIN);
        if from <= epoch && readable.at(epoch, &[id]) == epoch {
            return None;
        }
        // What is not in a lane is as new as everything, once what came in late can be seen.
        Some(if readable.places.contains_key(&id) {
            Lack::Epochs
        } else {
            Lack::Input
        })
    }
}

/// The rows of a key as of an epoch; `None` if more rows than allowed had to be looked at.
pub(crate) fn found(
    shard: &Shard,
    index: ObjectId,
    key: &[ArrayRef],
    projection: &[usize],
    (epoch, rows_max): (Epoch, usize),
) -> Result<Option<RecordBatch>, RequestError> {
    no_error(shard, index, epoch)?;
    // Rows of more than 2 GiB of text are an error in some of Arrow's kernels and a panic in others; nothing of the shard is changed by reading it.
    let read = AssertUnwindSafe(|| {
        let found = shard
            .lookup_at(index, key, epoch, rows_max)
            .map_err(lookup_error)?;
        let Some((rows, weights)) = found else {
            return Ok(None);
        };
        let rows = rows.project(projection).map_err(internal)?;
        expand(&rows, &weights).map(Some).map_err(lookup_error)
    });
    std::panic::catch_unwind(read)
        .unwrap_or_else(|panic| Err(evaluation_failed(EvalError::of_panic(panic.as_ref()))))
}

/// Fails if the relation holds an evaluation error at an epoch: it cannot be read while it does.
pub(crate) fn no_error(shard: &Shard, index: ObjectId, epoch: Epoch) -> Result<(), RequestError> {
    let error: Option<EvalError> = shard.error_at(index, epoch).map_err(lookup_error)?;
    error.map_or(Ok(()), |error| Err(RequestError::Eval(error)))
}

pub(super) fn lookup_error(error: flowstone_dataflow::Error) -> RequestError {
    match error {
        flowstone_dataflow::Error::SinceAdvanced { epoch, since } => RequestError::SinceAdvanced {
            asked: epoch,
            since,
        },
        flowstone_dataflow::Error::UnknownCollection(_) => RequestError::Dropped,
        flowstone_dataflow::Error::Type(TypeError::TooLarge) => {
            RequestError::Eval(EvalError::too_large())
        }
        flowstone_dataflow::Error::Evaluation(error) => evaluation_failed(error),
        other => internal(other),
    }
}

#[cfg(test)]
mod tests;
