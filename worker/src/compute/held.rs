//! Collections that lack what their source could not give, and what is computed from them; what waits for these, or for a lane.
//!
//! Owns which these are, and what cannot begin before they are complete. Must not know why something is missing. Called by the router.
//!
//! Invariants. Nothing of what is held up is shown: reads wait ([`super::direct::Readable`]), and so do subscriptions and writes that read it. What is released can
//! be read from the epoch on at which the last of it came in.

use std::collections::BTreeSet;

use flowstone_proto::message::{RequestId, StageWrite, Subscribe};
use flowstone_types::{Epoch, ObjectId};

use super::Compute;
use super::lanes::Jump;
use crate::Error;

/// What reads something that is held up.
#[derive(Debug)]
pub(super) enum Waiting {
    /// Evaluated at an epoch that is not earlier.
    Write(StageWrite, Epoch),
    Subscribe(Subscribe),
}

impl Waiting {
    const fn request(&self) -> RequestId {
        match self {
            Self::Write(write, _) => write.write,
            Self::Subscribe(subscribe) => subscribe.request,
        }
    }
}

/// What it means for reads that collections are complete again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Release {
    /// What was missing belongs to earlier epochs than the one at which it came in: none of them can be read any more.
    Late,
    /// What was missing belongs to this epoch, or to later ones: from it to the one at which the last of it came in none can be read.
    PassedOver(Epoch),
}

impl Compute {
    /// Collections lack something from now on.
    pub(crate) fn hold(&mut self, collections: Vec<ObjectId>) {
        self.held.extend(collections);
        self.spread_hold(Release::Late);
    }

    /// Collections are complete.
    pub(crate) async fn release(&mut self, collections: &[ObjectId]) -> Result<(), Error> {
        for id in collections {
            self.held.remove(id);
        }
        self.spread_hold(Release::Late);
        self.start_ready_reads().await?;
        self.start_what_waited().await
    }

    /// Finds out what is computed from collections that are held up.
    pub(super) fn spread_hold(&mut self, release: Release) {
        let mut readable = self.readable.write();
        let mut held: BTreeSet<ObjectId> = self.held.clone();
        held.extend(self.bulk.collections());
        if held.is_empty() && readable.held.is_empty() {
            return;
        }
        loop {
            let before = held.len();
            for (id, inputs) in &self.inputs {
                if inputs.iter().any(|input| held.contains(input)) {
                    held.insert(*id);
                }
            }
            if held.len() == before {
                break;
            }
        }
        let released = std::mem::replace(&mut readable.held, held);
        for id in released {
            if readable.held.contains(&id) {
                continue;
            }
            match release {
                Release::Late => {
                    if let Some(from) = readable.from.get_mut(&id) {
                        *from = self.last_run;
                    }
                }
                Release::PassedOver(first) => {
                    let last = self.last_run;
                    let jumps = readable.jumps.entry(id).or_default();
                    jumps.push(Jump { first, last });
                }
            }
        }
    }

    /// Whether one of `ids` is held up, or being made.
    pub(super) fn lacks_something(&self, ids: &[ObjectId]) -> bool {
        let readable = self.readable.read();
        ids.iter()
            .any(|id| readable.held.contains(id) || readable.coming.contains(id))
    }

    /// Starts what waited for something that is complete now, or gone; what still has to wait does.
    pub(super) async fn start_what_waited(&mut self) -> Result<(), Error> {
        for waiting in std::mem::take(&mut self.waiting_for_held) {
            match waiting {
                Waiting::Write(write, epoch) => self.evaluate(write, epoch).await?,
                Waiting::Subscribe(subscribe) => self.subscribe(subscribe).await?,
            }
        }
        Ok(())
    }

    /// Forgets a request if it waits here. Returns whether it did.
    pub(super) fn forget_waiting(&mut self, request: RequestId) -> bool {
        let before = self.waiting_for_held.len();
        self.waiting_for_held
            .retain(|waiting| waiting.request() != request);
        self.waiting_for_held.len() < before
    }
}
