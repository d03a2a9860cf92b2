//! Collections that lack what their source could not give, and what is computed from them.
//!
//! Owns which these are, and what cannot begin before they are complete. Must not know why something is missing. Called by the router.
//!
//! Invariants. Nothing of what is held up is shown: reads wait ([`super::direct::Readable`]), and so do subscriptions and writes that read it. What is released can
//! be read from the epoch on at which the last of it came in.

use std::collections::BTreeSet;

use flowstone_proto::message::{RequestId, StageWrite, Subscribe};
use flowstone_types::ObjectId;

use super::Compute;
use crate::Error;

/// What reads something that is held up.
#[derive(Debug)]
pub(super) enum Waiting {
    Write(StageWrite),
    Subscribe(Subscribe),
}

impl Waiting {
    const fn request(&self) -> RequestId {
        match self {
            Self::Write(write) => write.write,
            Self::Subscribe(subscribe) => subscribe.request,
        }
    }
}

impl Compute {
    /// Collections lack something from now on.
    pub(crate) fn hold(&mut self, collections: Vec<ObjectId>) {
        self.held.extend(collections);
        self.spread_hold();
    }

    /// Collections are complete.
    pub(crate) async fn release(&mut self, collections: &[ObjectId]) -> Result<(), Error> {
        for id in collections {
            self.held.remove(id);
        }
        self.spread_hold();
        self.start_ready_reads().await?;
        self.start_what_waited().await
    }

    /// Finds out what is computed from collections that are held up.
    pub(super) fn spread_hold(&mut self) {
        let mut readable = self.readable.write();
        if self.held.is_empty() && readable.held.is_empty() {
            return;
        }
        let mut held: BTreeSet<ObjectId> = self.held.clone();
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
            if !readable.held.contains(&id)
                && let Some(from) = readable.from.get_mut(&id)
            {
                *from = self.last_run;
            }
        }
    }

    /// Whether one of `ids` is held up.
    pub(super) fn lacks_something(&self, ids: &[ObjectId]) -> bool {
        let readable = self.readable.read();
        ids.iter().any(|id| readable.held.contains(id))
    }

    /// Starts what waited for something that is complete now, or gone; what still has to wait does.
    pub(super) async fn start_what_waited(&mut self) -> Result<(), Error> {
        for waiting in std::mem::take(&mut self.waiting_for_held) {
            match waiting {
                Waiting::Write(write) => self.stage_write(write).await?,
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
