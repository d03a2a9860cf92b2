//! What an epoch changes, while it is put together: its sources are asked one after the other, then its writes go to the local log.
//!
//! Owns how far that is. Must not know how a source is read ([`super::source`]), nor what is made of the input. Called by the feed.
//!
//! Invariants. It can be given up at every wait and goes on from there. No source is waited for longer than [`SOURCE_PATIENCE`], all of an epoch together.

use std::collections::BTreeMap;
use std::time::Duration;

use flowstone_ingest::TableChanges;
use flowstone_proto::message::RunEpoch;
use flowstone_types::{DeltaBatch, ObjectId};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::EpochInput;
use super::source::{Source, Taking};
use crate::Error;

/// How long an epoch waits for its sources to give what is bound: after a restart they have to connect and to read it again, and what waits on disk has to be
/// read.
const SOURCE_PATIENCE: Duration = Duration::from_secs(3);

/// An epoch whose input is put together.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) run: RunEpoch,
    /// What its sources could not give, or have more of.
    pub(super) input: EpochInput,
    /// What they gave.
    pub(super) taken: Vec<TableChanges>,
    /// What its writes change, once that is in the local log.
    pub(super) written: Option<Vec<(ObjectId, DeltaBatch)>>,
    /// How many of its bindings were seen to.
    seen: usize,
    /// What is being taken of the next one.
    taking: Option<Taking>,
    deadline: Instant,
}

impl Gathering {
    pub(super) fn new(run: RunEpoch) -> Self {
        Self {
            run,
            input: EpochInput::default(),
            taken: Vec::new(),
            written: None,
            seen: 0,
            taking: None,
            deadline: Instant::now() + SOURCE_PATIENCE,
        }
    }

    /// Takes what each bound source has up to its position, or the beginning of it. One that does not have it soon is held up from now on; what is bound to one
    /// that has not given everything comes behind.
    ///
    /// # Errors
    /// [`Error::Source`] if something broke.
    ///
    /// # Cancel safety
    /// What was taken is kept, and it goes on where it was.
    pub(super) async fn ask(
        &mut self,
        sources: &mut BTreeMap<ObjectId, Source>,
        tasks: &TaskTracker,
    ) -> Result<(), Error> {
        while let Some(binding) = self.run.bindings.get(self.seen) {
            // A source that was dropped after its position was bound has nothing to say any more.
            let Some(source) = sources.get_mut(&binding.source) else {
                self.seen += 1;
                continue;
            };
            if self.taking.is_none() {
                let behind = source.is_behind();
                let ready = !behind
                    && tokio::time::timeout_at(self.deadline, source.handle.ready(binding))
                        .await
                        .is_ok();
                if ready {
                    self.taking = Some(source.begin_take(binding, tasks));
                } else {
                    if !behind {
                        let held = (binding.source, source.collections());
                        self.input.held.push(held);
                        source.held = true;
                    }
                    source.waiting.push_back(binding.clone());
                }
            }
            if let Some(taking) = &mut self.taking {
                source.take_on(taking, self.deadline).await?;
                self.taken.append(&mut taking.pieces);
                self.taking = None;
            }
            // Also tables that were added since it is so.
            if source.is_behind() && !source.held {
                let begun = (binding.source, source.collections());
                self.input.begun.push(begun);
            }
            let bound = (self.run.epoch, binding.position.clone());
            source.bound.push_back(bound);
            self.seen += 1;
        }
        Ok(())
    }
}
