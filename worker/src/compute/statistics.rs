//! What the base holds, and what the coordinator is told of all objects.
//!
//! Owns the count that runs, of which there is one at a time, and which counters were sent. Must not know who counts what waits for a commit. Called by the
//! compute and by the router.
//!
//! Invariants. Nobody waits for a count: the shards of the base, then whoever has what waits for a commit, then the lanes are asked one after the other, each without the
//! buffers that those before it hold.

use std::collections::BTreeMap;

use flowstone_dataflow::Held;
use flowstone_proto::message::{CollectionStatistics, Response};
use flowstone_types::ObjectId;
use tokio::task::JoinHandle;

use super::partition::{Counted, ask_count};
use super::{Compute, UNCOMMITTED};
use crate::Error;

/// What was counted, but for what is in lanes.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Whose buffers were counted.
    held: Held,
    /// What the shards of the base hold of objects.
    objects: Vec<(ObjectId, CollectionStatistics)>,
    /// Bytes that wait for a commit, by collection.
    uncommitted: BTreeMap<ObjectId, u64>,
}

/// A count that runs.
pub(super) type Counting = JoinHandle<Result<Counts, Error>>;

impl Compute {
    /// Begins to count what changed, which compacts what is idle. `uncommitted` says how much waits for a commit, without the buffers that were counted already.
    /// Nothing is begun while a count runs.
    pub(crate) fn housekeep<F>(
        &mut self,
        uncommitted: impl FnOnce(Held) -> F + Send + 'static,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<BTreeMap<ObjectId, u64>, Error>> + Send + 'static,
    {
        if self.counting.is_some() {
            return Ok(());
        }
        let held = Held::default();
        let ids: Vec<ObjectId> = {
            let readable = self.readable.read();
            let ids = readable.from.keys().copied();
            ids.filter(|id| !readable.places.contains_key(id)).collect()
        };
        let of_base = ask_count(&self.shards, ids, held.clone())?;
        let counting = count(of_base, uncommitted, held);
        self.counting = Some(self.tasks.spawn(counting));
        Ok(())
    }

    /// Sends counters that changed.
    pub(super) async fn take_counts(&mut self, counts: Counts) {
        let Counts {
            held,
            mut objects,
            uncommitted,
        } = counts;
        self.uncommitted = uncommitted;
        // What a lane has in common with the base is the base's.
        self.lanes.count(&held);
        {
            // Something may have been dropped since.
            let readable = self.readable.read();
            objects.retain(|(id, _)| readable.from.contains_key(id));
        }
        for (id, statistics) in objects {
            self.send_statistics(id, statistics).await;
        }
    }

    pub(super) async fn send_statistics(
        &mut self,
        id: ObjectId,
        mut statistics: CollectionStatistics,
    ) {
        if let Some(bytes) = self.uncommitted.get(&id) {
            statistics.bytes = statistics.bytes.saturating_add(*bytes);
            statistics.held.insert(UNCOMMITTED.to_owned(), *bytes);
        }
        if self.sent_statistics.get(&id) != Some(&statistics) {
            self.sent_statistics.insert(id, statistics.clone());
            self.respond(Response::CollectionStatistics { id, statistics })
                .await;
        }
    }
}

/// Counts what the base holds, then what waits for a commit.
async fn count<F>(
    of_base: impl Future<Output = Result<Counted, Error>>,
    uncommitted: impl FnOnce(Held) -> F,
    held: Held,
) -> Result<Counts, Error>
where
    F: Future<Output = Result<BTreeMap<ObjectId, u64>, Error>>,
{
    let Counted { objects, .. } = of_base.await?;
    let uncommitted = uncommitted(held.clone()).await?;
    Ok(Counts {
        held,
        objects,
        uncommitted,
    })
}

/// Waits for the count that runs; for ever if there is none.
///
/// # Cancel safety
/// Nothing is lost.
pub(super) async fn counted(counting: &mut Option<Counting>) -> Result<Counts, Error> {
    let Some(running) = counting else {
        return std::future::pending().await;
    };
    let counts = running.await;
    *counting = None;
    counts.map_err(|_| Error::ShardGone)?
}
