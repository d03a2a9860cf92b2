//! Collections that lack what their source could not give, and what is computed from them; what waits for these, or for a lane.
//!
//! Owns which these are, and what cannot begin before they are complete. Must not know why something is missing. Called by the router.
//!
//! Invariants. Nothing of what is held up is shown: reads wait ([`super::direct::Readable`]), and so do subscriptions and writes that read it. What is released was
//! passed over ([`Jump`]) at the epochs at which it lacked something.

use std::collections::BTreeMap;

use flowstone_proto::message::{RequestId, Response, StageWrite, Subscribe};
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

impl Compute {
    /// Collections lack something from an epoch on.
    pub(crate) fn hold(&mut self, collections: Vec<ObjectId>, epoch: Epoch) {
        for id in collections {
            self.held.entry(id).or_insert(epoch);
        }
        self.spread_hold();
    }

    /// Collections are complete.
    pub(crate) async fn release(&mut self, collections: &[ObjectId]) -> Result<(), Error> {
        for id in collections {
            self.held.remove(id);
        }
        self.spread_hold();
        self.respond(Response::CameIn).await;
        self.asked.tell();
        self.start_what_waited().await
    }

    /// Finds out what is computed from collections that are held up. Of those that are complete again no epoch can be read at which they were not: what was
    /// missing came in at later ones than it belongs to.
    pub(super) fn spread_hold(&mut self) {
        if self.held.is_empty() && self.bulk.is_complete() && self.lacking.is_empty() {
            return;
        }
        let mut lacking = self.held.clone();
        for (id, first) in self.bulk.lacking() {
            let since = lacking.entry(id).or_insert(first);
            *since = first.min(*since);
        }
        with_readers(&mut lacking, &self.inputs);
        let mut begun = self.filling.clone();
        with_readers(&mut begun, &self.inputs);
        let mut readable = self.readable.write();
        for (id, first) in std::mem::take(&mut self.lacking) {
            if let Some(since) = lacking.get_mut(&id) {
                *since = first.min(*since);
            } else {
                let last = self.last_run;
                let jumps = readable.jumps.entry(id).or_default();
                jumps.push(Jump { first, last });
                // Before its first content it is nothing that anybody may see, however early he may read.
                if begun.contains_key(&id)
                    && let Some(from) = readable.from.get_mut(&id)
                {
                    *from = last.max(*from);
                }
                self.filling.remove(&id);
            }
        }
        readable.held = lacking.keys().copied().collect();
        self.lacking = lacking;
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

/// Adds all that is computed from what lacks something: it does from the same epoch on.
fn with_readers(
    lacking: &mut BTreeMap<ObjectId, Epoch>,
    inputs: &BTreeMap<ObjectId, Vec<ObjectId>>,
) {
    let mut changed = true;
    while std::mem::take(&mut changed) {
        for (id, read) in inputs {
            let first = read.iter().filter_map(|input| lacking.get(input)).min();
            if let Some(first) = first.copied()
                && lacking.get(id).is_none_or(|since| first < *since)
            {
                lacking.insert(*id, first);
                changed = true;
            }
        }
    }
}
