//! What sessions ask of the coordinator's loop.
//!
//! Must not know what the loop does about it. Sent by `session` and `client`, taken by `coordinator`.

use flowstone_proto::message::{RequestError, RequestId};
use flowstone_types::{Epoch, ObjectId};
use tokio::sync::{mpsc, oneshot};

use crate::epochs::{FreezeId, WriteId};
use crate::error::Error;
use crate::liveness::Liveness;
use crate::locks::WriteGuard;

/// Events of sessions waiting for the loop, which only routes: when it is full, sessions wait.
const EVENTS_IN_FLIGHT: usize = 1024;

/// What sessions ask of the loop.
#[derive(Debug)]
pub(crate) enum Event {
    /// Run these staged writes in one epoch; answered with it when it is observable, or with why they did not happen.
    Write {
        /// The staged writes, in order.
        requests: Vec<RequestId>,
        /// Memory that their rows take in the worker.
        bytes: usize,
        /// Names them together.
        id: WriteId,
        /// Ends with the epoch that takes them.
        freeze: Option<FreezeId>,
        /// Held until the epoch is observable, even if nobody waits for the answer any more.
        lock: WriteGuard,
        /// The answer.
        done: oneshot::Sender<Result<Epoch, RequestError>>,
    },
    /// Let sources stand still; answered when they do.
    Freeze {
        id: FreezeId,
        done: oneshot::Sender<()>,
    },
    /// Let sources move again.
    Thaw { id: FreezeId },
    /// Objects were dropped.
    Dropped { objects: Vec<ObjectId> },
    /// Something new must reach the Delta tables.
    MarkDirty,
    /// Drain, commit, stop the worker.
    Shutdown { done: oneshot::Sender<()> },
}

/// Where events go; clones go to the same loop.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: mpsc::Sender<Event>,
    liveness: Liveness,
}

impl Events {
    /// What sessions send to, and what the loop takes events from.
    pub(crate) fn channel(liveness: Liveness) -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(EVENTS_IN_FLIGHT);
        (Self { sender, liveness }, receiver)
    }

    /// Tells the loop, waiting while it is behind.
    pub(crate) async fn tell(&self, event: Event) -> Result<(), Error> {
        self.sender
            .send(event)
            .await
            .map_err(|_| self.liveness.gone())
    }

    /// Tells the loop if there is room. Returns whether there was.
    pub(crate) fn try_tell(&self, event: Event) -> bool {
        self.sender.try_send(event).is_ok()
    }

    /// Room for one event, waiting while the loop is behind.
    pub(crate) async fn reserve(&self) -> Result<mpsc::Permit<'_, Event>, Error> {
        let room = self.sender.reserve().await;
        room.map_err(|_| self.liveness.gone())
    }
}
