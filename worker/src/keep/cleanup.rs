//! Removing what dropped objects left behind: directories of Delta tables, state files of sources, replication slots.
//!
//! Owns the order (a source has stopped before anything of it is removed, neither a commit nor maintenance runs when the deletion of a table begins, and none
//! that begins later names the table) and the retries. Must not know what is remembered: the coordinator names the work again after a restart until it hears
//! that it is done. A snapshot that is still being read is refused by `storage`.

use std::time::Duration;

use flowstone_proto::message::{CleanUp, Remains, ReplicationSlot, Response};
use flowstone_types::ObjectId;

use super::Keep;
use crate::error::with_causes;

/// First and longest pause between two tries. An upstream may be away for days.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);

impl Keep {
    /// Begins to remove what dropped objects left behind.
    pub(crate) fn clean_up(&mut self, work: Vec<CleanUp>) {
        for CleanUp { id, remains } in work {
            match remains {
                Remains::Collection => self.dropped_tables.push(id),
                Remains::Source(slot) => self.clean_up_source(id, slot),
            }
        }
        self.delete_dropped_tables();
    }

    fn clean_up_source(&self, id: ObjectId, slot: Option<ReplicationSlot>) {
        let state_dir = self.state_dir.clone();
        self.until_done(id, "a dropped source", move || {
            let (slot, state_dir) = (slot.clone(), state_dir.clone());
            async move {
                flowstone_ingest::clean_up(id, slot.as_ref(), &state_dir)
                    .await
                    .map_err(|error| with_causes(&error))
            }
        });
    }

    /// Deletes the files of dropped tables, unless a commit or maintenance may still be writing to them: then their end brings us here again.
    pub(super) fn delete_dropped_tables(&mut self) {
        if self.committing || self.maintaining {
            return;
        }
        for id in std::mem::take(&mut self.dropped_tables) {
            let delta = self.delta.clone();
            self.until_done(id, "a dropped table", move || {
                let delta = delta.clone();
                async move {
                    delta
                        .drop_table(id)
                        .await
                        .map_err(|error| with_causes(&error))
                }
            });
        }
    }

    /// Tries until it works or the worker ends, then says so.
    fn until_done<F>(
        &self,
        id: ObjectId,
        what: &'static str,
        mut attempt: impl FnMut() -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), String>> + Send,
    {
        let (stopping, responses) = (self.stopping.clone(), self.responses.clone());
        let work = async move {
            // All that were stopping when this began: whose state, or whose table's files, they are is not known here.
            for stopping in stopping {
                stopping.wait().await;
            }
            let mut pause = PAUSE_FIRST;
            while let Err(error) = attempt().await {
                // A source that has just stopped lets go of its slot in a moment.
                if pause > PAUSE_FIRST * 4 {
                    tracing::warn!(%id, error, again_in = ?pause, "{what} could not be cleaned up yet; it is remembered until it is");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_LONGEST);
            }
            tracing::info!(%id, "{what} is cleaned up");
            // The coordinator may have gone; it asks again after a restart.
            drop(responses.send(Response::CleanedUp { id }).await);
        };
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = work => {}
            }
        });
    }
}
