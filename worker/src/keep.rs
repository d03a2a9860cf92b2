//! The keep: what was computed on its way into the Delta tables, and what is done to these beside.
//!
//! Owns the group-commit buffer ([`buffer`]), the one commit, the one pass of maintenance and the one consolidation of the buffer that may run, and clean-up
//! ([`cleanup`]), and the sinks, which write what is committed ([`sinks`]). Must not know dataflows. It has a task of its own ([`task`]), in which it hears of the
//! ends of what it began; the router tells it through a bounded queue what to do.
//!
//! Invariants. No table that exists is read, written or cleaned up here before all of them are as they were at the commit point: the router sees to that. One
//! commit runs at a time, and the local log has noted it before the coordinator hears of it. Files of a dropped table are deleted while neither a commit nor
//! maintenance runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_dataflow::Held;
use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_ingest::SourceHandle;
use flowstone_proto::message::{CollectionDescription, Response, SinkDescription};
use flowstone_storage::DeltaTables;
use flowstone_types::{Epoch, EvalError, EvalErrorKind, ObjectId};
use tokio::sync::{Semaphore, mpsc};
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
mod task;

use buffer::CommitBuffer;
use sinks::Sinks;
pub(crate) use task::KeepHandle;

/// Tables that are brought back to the commit point at a time: each opens some files.
const RESTORED_AT_ONCE: usize = 16;

/// The state of the keep.
#[derive(Debug)]
struct Keep {
    responses: mpsc::Sender<Response>,
    /// Where what was begun says that it has ended.
    ended: mpsc::Sender<Ended>,
    /// To the router.
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
    /// Sources that were dropped and have yet to stop, those of each drop together.
    stopping: Vec<TaskTracker>,
    /// Ends the work that would go on for as long as it takes; it is remembered elsewhere.
    cancel: CancellationToken,
    /// For tables that are being brought back to the commit point.
    places: Arc<Semaphore>,
    /// Tables that are being created.
    creating: Vec<JoinHandle<Result<(), flowstone_storage::Error>>>,
    committing: bool,
    maintaining: bool,
    consolidating: bool,
}

/// The end of what was begun.
#[derive(Debug)]
enum Ended {
    Commit {
        epoch: Epoch,
        result: Result<Vec<(ObjectId, i64)>, flowstone_storage::Error>,
    },
    Maintenance,
    /// Less is left of what waits for a commit.
    Consolidation(Consolidated),
}

/// What was found of a table that is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    New,
    Existing,
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
    fn new(parts: Parts, ended: mpsc::Sender<Ended>) -> Self {
        Self {
            sinks: Sinks::new(parts.responses.clone(), parts.delta.clone()),
            responses: parts.responses,
            ended,
            events: parts.events,
            tasks: TaskTracker::new(),
            delta: parts.delta,
            log: parts.log,
            state_dir: parts.state_dir,
            stored: BTreeSet::new(),
            buffer: CommitBuffer::default(),
            dropped_tables: Vec::new(),
            stopping: Vec::new(),
            cancel: CancellationToken::new(),
            places: Arc::new(Semaphore::new(RESTORED_AT_ONCE)),
            creating: Vec::new(),
            committing: false,
            maintaining: false,
            consolidating: false,
        }
    }

    /// Creates the table of a collection, beside everything else, however long it takes: the next commit waits for it. One that exists is brought back to its
    /// version at the commit point. [`Event::Restored`] says that it was, or that there is none. Until then nothing but tables may be created, and nothing may be
    /// begun here.
    pub(crate) fn create_table(&mut self, description: &CollectionDescription) {
        let id = description.id;
        self.sinks.add_table(id, description.delta_version);
        if let Some(failure) = &description.failure {
            let error = EvalError::new(EvalErrorKind::Source, failure.message.clone());
            self.add_errors(id, vec![(error, 1)]);
        }
        self.stored.insert(id);
        let (delta, name) = (self.delta.clone(), description.name.clone());
        let (schema, version) = (Arc::clone(&description.schema), description.delta_version);
        let (places, events) = (Arc::clone(&self.places), self.events.clone());
        let restoring = {
            let (delta, name, schema) = (delta.clone(), name.clone(), Arc::clone(&schema));
            self.tasks.spawn(async move {
                // Nobody closes it.
                let _place = places.acquire_owned().await;
                if version.is_none() && !exists(&delta, id).await {
                    return Ok(Table::New);
                }
                let restored = restore(&delta, id, &name, &schema, version).await;
                restored.map(|()| Table::Existing)
            })
        };
        self.creating.push(self.tasks.spawn(async move {
            let (table, result) = match came_to(restoring).await {
                Ok(table) => (table, Ok(())),
                // The router stops.
                Err(error) => (Table::Existing, Err(error)),
            };
            drop(events.send(Event::Restored(result)).await);
            match table {
                Table::New => create(&delta, id, &name, &schema).await,
                Table::Existing => Ok(()),
            }
        }));
    }

    /// Forgets objects. Clean-up that comes later waits until the sources among them have stopped.
    pub(crate) fn drop_objects(&mut self, objects: &[ObjectId], sources: Vec<SourceHandle>) {
        for id in objects {
            if self.stored.remove(id) {
                self.buffer.remove(*id);
            }
        }
        self.sinks.drop_objects(objects);
        self.stop_beside(sources.into_iter().map(SourceHandle::stop));
    }

    /// Stops something beside everything else. What was dropped before may still be stopping.
    fn stop_beside<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        stops: impl IntoIterator<Item = F>,
    ) {
        self.stopping.retain(|stopping| !stopping.is_empty());
        let stopping = TaskTracker::new();
        for stop in stops {
            stopping.spawn(stop);
        }
        stopping.close();
        self.stopping.push(stopping);
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
        let ended = self.ended.clone();
        self.tasks.spawn(async move {
            let (id, number) = consolidation.name();
            let consolidated = tokio::task::spawn_blocking(move || consolidation.run()).await;
            let consolidated = consolidated.unwrap_or_else(|error| {
                tracing::error!(%id, %error, "what waits for a commit could not be consolidated");
                Consolidated::nothing(id, number)
            });
            drop(ended.send(Ended::Consolidation(consolidated)).await);
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
        let (delta, ended) = (self.delta.clone(), self.ended.clone());
        let log = self.log.clone();
        let commits = self.buffer.up_to(epoch);
        self.sinks.commit(epoch, &commits);
        let creating = std::mem::take(&mut self.creating);
        let committing = self.tasks.spawn(async move {
            created(creating).await?;
            retrying("group commit", || {
                let (delta, commits, log) = (delta.clone(), commits.clone(), log.clone());
                async move {
                    let versions = delta.commit(epoch, commits).await?;
                    // The log knows before the coordinator does.
                    log.run(move |log| log.note_commit(epoch)).await?;
                    told(epoch)?;
                    Ok(versions)
                }
            })
            .await
        });
        self.tasks.spawn(async move {
            let result = came_to(committing).await;
            drop(ended.send(Ended::Commit { epoch, result }).await);
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
        let (delta, ended) = (self.delta.clone(), self.ended.clone());
        let maintaining = self.tasks.spawn(async move {
            for id in tables {
                match delta.maintain(id).await {
                    Ok(()) | Err(flowstone_storage::Error::Dropped(_)) => {}
                    Err(error) => {
                        tracing::warn!(%id, %error, "table maintenance failed; it will be tried again after a later commit");
                    }
                }
            }
        });
        self.tasks.spawn(async move {
            if let Err(error) = maintaining.await {
                tracing::error!(%error, "table maintenance panicked; it will be tried again after a later commit");
            }
            drop(ended.send(Ended::Maintenance).await);
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

/// Whether there is something where a table is to be.
async fn exists(delta: &DeltaTables, id: ObjectId) -> bool {
    let found = tokio::fs::try_exists(delta.table_path(id)).await;
    // Whoever may not look may not create it either, and is told so then.
    found.unwrap_or(false)
}

/// Creates a table, or sees that it is there.
async fn create(
    delta: &DeltaTables,
    id: ObjectId,
    name: &str,
    schema: &SchemaRef,
) -> Result<(), flowstone_storage::Error> {
    retrying("create a table", || {
        delta.create(id, name, Arc::clone(schema))
    })
    .await
}

/// Brings a table that exists back to its version at the commit point.
async fn restore(
    delta: &DeltaTables,
    id: ObjectId,
    name: &str,
    schema: &SchemaRef,
    version: Option<i64>,
) -> Result<(), flowstone_storage::Error> {
    create(delta, id, name, schema).await?;
    retrying("roll a table back", || delta.roll_back(id, version)).await
}

/// Waits until tables are created, or dropped.
async fn created(
    creating: Vec<JoinHandle<Result<(), flowstone_storage::Error>>>,
) -> Result<(), flowstone_storage::Error> {
    for table in creating {
        match came_to(table).await {
            Ok(()) | Err(flowstone_storage::Error::Dropped(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a task has come to. That it panicked has to be heard as well: somebody waits for its end.
async fn came_to<T>(
    task: JoinHandle<Result<T, flowstone_storage::Error>>,
) -> Result<T, flowstone_storage::Error> {
    task.await
        .unwrap_or_else(|error| Err(flowstone_storage::Error::Invariant(error.to_string())))
}

#[cfg(test)]
mod tests;
