//! The keep: what was computed on its way into the Delta tables, and what is done to these beside.
//!
//! Owns the group-commit buffer ([`buffer`]), the one commit, the one pass of maintenance and the one consolidation of the buffer that may run, and clean-up
//! ([`cleanup`]), and the sinks, which write what is committed ([`sinks`]). Must not know dataflows. Called by the router, which tells it of the ends of what it began.
//!
//! Invariants. One commit runs at a time, and the local log has noted it before the coordinator hears of it. Files of a dropped table are deleted while neither
//! a commit nor maintenance runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use flowstone_dataflow::Held;
use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_ingest::SourceHandle;
use flowstone_proto::message::{CollectionDescription, Response, SinkDescription};
use flowstone_storage::DeltaTables;
use flowstone_types::{Epoch, EvalError, EvalErrorKind, ObjectId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::compute::EpochOutput;
use crate::consolidation::Consolidated;
use crate::event::Event;
use crate::log::SharedLog;
use crate::retry::retrying;

mod buffer;
mod cleanup;
mod sinks;

use buffer::CommitBuffer;
use sinks::Sinks;

/// The state of the keep.
#[derive(Debug)]
pub(crate) struct Keep {
    responses: mpsc::Sender<Response>,
    /// Where what was begun says that it has ended.
    events: mpsc::Sender<Event>,
    tasks: TaskTracker,
    delta: DeltaTables,
    log: SharedLog,
    /// The state of sources.
    state_dir: PathBuf,
    /// The collections that exist.
    stored: BTreeSet<ObjectId>,
    buffer: CommitBuffer,
    sinks: Sinks,
    /// Delta tables to delete once neither a commit nor maintenance runs.
    dropped_tables: Vec<ObjectId>,
    /// Ends with the sources that were dropped last.
    stopping: TaskTracker,
    /// Ends the work that would go on for as long as it takes; it is remembered elsewhere.
    cancel: CancellationToken,
    /// Tables that are being created.
    creating: Vec<JoinHandle<Result<(), flowstone_storage::Error>>>,
    committing: bool,
    maintaining: bool,
    consolidating: bool,
}

/// What a keep is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) responses: mpsc::Sender<Response>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) delta: DeltaTables,
    pub(crate) log: SharedLog,
    pub(crate) state_dir: PathBuf,
}

impl Keep {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            sinks: Sinks::new(parts.responses.clone(), parts.delta.clone()),
            responses: parts.responses,
            events: parts.events,
            tasks: TaskTracker::new(),
            delta: parts.delta,
            log: parts.log,
            state_dir: parts.state_dir,
            stored: BTreeSet::new(),
            buffer: CommitBuffer::default(),
            dropped_tables: Vec::new(),
            stopping: no_tasks(),
            cancel: CancellationToken::new(),
            creating: Vec::new(),
            committing: false,
            maintaining: false,
            consolidating: false,
        }
    }

    /// Creates the table of a collection; one that was committed before is brought back to its version at the commit point. One that is new is created
    /// beside everything else, however long it takes: the next commit waits for it.
    ///
    /// # Errors
    /// [`Error::Storage`] if trying again cannot help.
    pub(crate) async fn create_table(
        &mut self,
        description: &CollectionDescription,
    ) -> Result<(), Error> {
        let id = description.id;
        self.sinks.add_table(id, description.delta_version);
        if let Some(failure) = &description.failure {
            let error = EvalError::new(EvalErrorKind::Source, failure.message.clone());
            self.add_errors(id, vec![(error, 1)]);
        }
        let (delta, name) = (self.delta.clone(), description.name.clone());
        let schema = Arc::clone(&description.schema);
        let is_new = description.delta_version.is_none() && !delta.table_path(id).exists();
        let creation = async move {
            retrying("create a table", || {
                let (delta, name, schema) = (&delta, &name, Arc::clone(&schema));
                async move { delta.create(id, name, schema).await }
            })
            .await
        };
        if is_new {
            self.creating.push(self.tasks.spawn(creation));
            self.stored.insert(id);
            return Ok(());
        }
        creation.await?;
        retrying("roll a table back", || {
            let (delta, version) = (&self.delta, description.delta_version);
            async move { delta.roll_back(id, version).await }
        })
        .await?;
        self.stored.insert(id);
        Ok(())
    }

    /// Forgets objects. Clean-up that comes later waits until the sources among them have stopped.
    pub(crate) fn drop_objects(&mut self, objects: &[ObjectId], sources: Vec<SourceHandle>) {
        for id in objects {
            if self.stored.remove(id) {
                self.buffer.remove(*id);
            }
        }
        self.sinks.drop_objects(objects);
        let stopping = TaskTracker::new();
        for source in sources {
            stopping.spawn(source.stop());
        }
        stopping.close();
        self.stopping = stopping;
    }

    /// Takes in what is to be stored.
    pub(crate) fn absorb(&mut self, output: EpochOutput) {
        if !output.is_empty() {
            failpoint::passed(Kind::EpochOutput, Step::Tell);
        }
        for (id, deltas) in output.deltas {
            self.buffer.add(id, deltas);
        }
        for (id, epoch, staged) in output.snapshots {
            self.buffer.add_staged(id, epoch, staged);
        }
        for (id, epoch, errors) in output.errors {
            self.sinks.add_errors(id, epoch, errors);
        }
    }

    /// Everything up to `commit_point` is in the stored tables.
    pub(crate) const fn begin_at(&mut self, commit_point: Epoch) {
        self.sinks.begin_at(commit_point);
    }

    /// A collection has errors as part of what was loaded.
    pub(crate) fn add_errors(&mut self, id: ObjectId, errors: Vec<(EvalError, i64)>) {
        self.sinks.add_errors(id, Epoch::MIN, errors);
        self.sinks.count_loaded_errors();
    }

    /// A sink exists. `now`: the newest epoch that was run, with which a new one begins: its collection has its rows by then.
    pub(crate) fn create_sink(&mut self, mut description: SinkDescription, now: Epoch) {
        description.as_of.get_or_insert(now);
        self.sinks.create(description);
    }

    /// A sink writes something else from a moment on, or elsewhere. `now`: as of a new one.
    pub(crate) fn alter_sink(&mut self, mut description: SinkDescription, now: Epoch) {
        description.as_of.get_or_insert(now);
        self.sinks.alter(description);
    }

    /// A restart begins at `epoch` from now on: sinks may write what was committed up to there.
    pub(crate) fn commit_point_durable(&mut self, epoch: Epoch) {
        self.sinks.durable(epoch);
    }

    /// Tells sinks what no commit says. What is stored is complete through `epoch`; `failure`: why a collection is not maintained any more.
    pub(crate) fn pass_sinks(
        &mut self,
        epoch: Epoch,
        failure: impl Fn(ObjectId) -> Option<String>,
    ) {
        let buffer = &self.buffer;
        self.sinks.pass(epoch, |id| buffer.has(id), failure);
    }

    /// Bytes that wait for a commit, by collection, without the buffers that were counted already.
    pub(crate) fn bytes(&self, held: &Held) -> BTreeMap<ObjectId, u64> {
        self.buffer.bytes(held)
    }

    /// Begins to make less of what waits for a commit, if it has grown. `durable`: no commit that is still to come is of an epoch before it, but for the one of
    /// `waiting`, which has yet to begin.
    pub(crate) fn consolidate(&mut self, durable: Epoch, waiting: Option<Epoch>) {
        if self.consolidating {
            return;
        }
        let Some(consolidation) = self.buffer.start_consolidation(durable, waiting) else {
            return;
        };
        self.consolidating = true;
        let events = self.events.clone();
        self.tasks.spawn(async move {
            let (id, number) = consolidation.name();
            let consolidated = tokio::task::spawn_blocking(move || consolidation.run()).await;
            let consolidated = consolidated.unwrap_or_else(|error| {
                tracing::error!(%id, %error, "what waits for a commit could not be consolidated");
                Consolidated::nothing(id, number)
            });
            drop(events.send(Event::Consolidated(consolidated)).await);
        });
    }

    /// A consolidation has ended.
    pub(crate) fn consolidated(&mut self, consolidated: Consolidated) {
        self.consolidating = false;
        self.buffer.consolidated(consolidated);
    }

    /// Begins to write everything up to `epoch`, which was run.
    ///
    /// # Errors
    /// [`Error::Protocol`] if a commit runs.
    pub(crate) fn commit(&mut self, epoch: Epoch) -> Result<(), Error> {
        if self.committing {
            return Err(Error::Protocol(format!(
                "commit of epoch {epoch} while another commit runs"
            )));
        }
        self.committing = true;
        let (delta, events) = (self.delta.clone(), self.events.clone());
        let log = self.log.clone();
        let commits = self.buffer.up_to(epoch);
        self.sinks.commit(epoch, &commits);
        let creating = std::mem::take(&mut self.creating);
        self.tasks.spawn(async move {
            if let Err(error) = created(creating).await {
                let result = Err(error);
                drop(events.send(Event::Committed { epoch, result }).await);
                return;
            }
            let result = retrying("group commit", || {
                let (delta, commits, log) = (delta.clone(), commits.clone(), log.clone());
                async move {
                    let versions = delta.commit(epoch, commits).await?;
                    // The log knows before the coordinator does.
                    log.run(move |log| log.note_commit(epoch)).await?;
                    told(epoch)?;
                    Ok(versions)
                }
            })
            .await;
            drop(events.send(Event::Committed { epoch, result }).await);
        });
        Ok(())
    }

    /// The commit has ended.
    pub(crate) async fn committed(&mut self, epoch: Epoch, versions: Vec<(ObjectId, i64)>) {
        self.committing = false;
        self.buffer.committed();
        self.sinks.committed(epoch, &versions);
        self.delete_dropped_tables();
        // A table that was dropped while the commit ran is being deleted.
        let kept = versions.iter().map(|(id, _)| *id);
        self.maintain_tables(kept.filter(|id| self.stored.contains(id)).collect());
        let committed = Response::Committed { epoch, versions };
        // The coordinator may have gone.
        drop(self.responses.send(committed).await);
    }

    /// Checkpoints, compaction and vacuum of tables that just changed; one pass at a time.
    fn maintain_tables(&mut self, tables: Vec<ObjectId>) {
        if self.maintaining || tables.is_empty() {
            return;
        }
        self.maintaining = true;
        let (delta, events) = (self.delta.clone(), self.events.clone());
        self.tasks.spawn(async move {
            for id in tables {
                match delta.maintain(id).await {
                    Ok(()) | Err(flowstone_storage::Error::Dropped(_)) => {}
                    Err(error) => {
                        tracing::warn!(%id, %error, "table maintenance failed; it will be tried again after a later commit");
                    }
                }
            }
            drop(events.send(Event::Maintained).await);
        });
    }

    /// Maintenance has ended.
    pub(crate) fn maintained(&mut self) {
        self.maintaining = false;
        self.delete_dropped_tables();
    }

    /// Waits for what was begun, but for clean-up, which is given up.
    pub(crate) async fn stop(&self) {
        self.cancel.cancel();
        self.sinks.stop().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Stands where the coordinator is about to be told of a commit. What fails here is done again: a table that has the epoch is left as it is.
fn told(epoch: Epoch) -> Result<(), flowstone_storage::Error> {
    failpoint::reached(Kind::Committed, Step::Tell).map_err(|error| {
        flowstone_storage::Error::Environment {
            action: format!("tell of the commit of epoch {epoch}"),
            source: error.into(),
        }
    })
}

/// Waits until tables are created, or dropped.
async fn created(
    creating: Vec<JoinHandle<Result<(), flowstone_storage::Error>>>,
) -> Result<(), flowstone_storage::Error> {
    for table in creating {
        match table.await {
            Ok(Ok(()) | Err(flowstone_storage::Error::Dropped(_))) => {}
            Ok(Err(error)) => return Err(error),
            Err(error) => return Err(flowstone_storage::Error::Invariant(error.to_string())),
        }
    }
    Ok(())
}

/// Nothing to wait for.
fn no_tasks() -> TaskTracker {
    let tasks = TaskTracker::new();
    tasks.close();
    tasks
}

#[cfg(test)]
mod tests;
