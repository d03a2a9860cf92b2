//! Running epochs, making them observable, and group commit.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::SchemaRef;
use flowstone_dataflow::{
    CollectionInput, TickOutput, partition_changes, partition_columns, partition_delta,
};
use flowstone_ingest::{TableChanges, TableData};
use flowstone_proto::message::{Command, Failure, RequestError, Response, RunEpoch};
use flowstone_storage::{LogRecord, LogStore, StagedSnapshot};
use flowstone_types::{
    DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId, SourceChanges, Weights,
};
use futures::StreamExt;
use tokio::task::JoinHandle;

use super::{Engine, Event, Flow, RETRY_FIRST, log_thread_panicked, retrying};
use crate::Error;
use crate::error::with_causes;
use crate::shards::PartitionedInputs;
use crate::subscription::Liveness;

/// Rows that one shard may rewrite for compaction between two epochs: about a millisecond of work.
pub(super) const MAINTENANCE_FUEL: usize = 4096;

/// Rows of a snapshot that enter the dataflow in one tick. Bounds the memory of a tick; an epoch may take several.
const SNAPSHOT_ROWS_PER_TICK: usize = 65_536;

impl Engine {
    pub(super) async fn run_epoch(&mut self, run: RunEpoch) -> Result<Flow, Error> {
        if run.epoch <= self.last_run {
            return Err(Error::Protocol(format!(
                "epoch {} after epoch {}",
                run.epoch, self.last_run
            )));
        }
        let Some(taken) = self.take_sources(&run).await? else {
            return Ok(Flow::Stop);
        };
        let changes = self.log_writes(&run).await?;
        // That the record counts is written down while the shards work; nobody hears of the epoch before.
        let acknowledged = (!changes.is_empty()).then(|| {
            let log = Arc::clone(&self.log);
            tokio::task::spawn_blocking(move || log.lock().acknowledge())
        });

        let mut inputs: Vec<(ObjectId, CollectionInput)> = Vec::new();
        for (table, delta) in changes {
            if self.collections.contains_key(&table) {
                inputs.push((table, CollectionInput::Deltas(vec![delta])));
            }
        }
        let mut changed: Vec<(ObjectId, Vec<SourceChanges>)> = Vec::new();
        let mut failures = Vec::new();
        for TableChanges { table, data } in taken {
            // The table may have been dropped after the source buffered its changes.
            if !self.collections.contains_key(&table) {
                continue;
            }
            match data {
                TableData::Snapshot(staged) => self.load_snapshot(table, staged, run.epoch).await?,
                TableData::Changes(changes) => {
                    match changed.iter_mut().find(|(id, _)| *id == table) {
                        Some((_, earlier)) => earlier.push(changes),
                        None => changed.push((table, vec![changes])),
                    }
                }
                TableData::RowErrors(errors) => {
                    inputs.push((table, CollectionInput::Errors(errors)));
                }
                TableData::Error(error) => {
                    if self.failed.insert(table) {
                        let failure = Failure {
                            message: error.message.clone(),
                            hint: Some("Drop the table and add it again.".to_owned()),
                        };
                        failures.push((table, failure));
                        inputs.push((table, CollectionInput::Errors(vec![(error, 1)])));
                    }
                }
            }
        }
        self.fail_sources(&mut inputs, &mut failures);
        // Looked up only now: a snapshot of this epoch is in the collections.
        for (table, changes) in changed {
            inputs.push((
                table,
                CollectionInput::Changes(self.complete_key_changes(table, changes).await?),
            ));
        }
        inputs.extend(self.advance_progress(&run)?);

        let partitioned = self.partition(inputs)?;
        let outputs = self.shards.tick(run.epoch, partitioned).await?;
        self.absorb(outputs, None);
        self.last_run = run.epoch;
        if let Some(task) = acknowledged {
            self.finish_acknowledging(task).await?;
        }
        if !failures.is_empty() {
            self.respond(Response::Failed {
                epoch: run.epoch,
                failures,
            })
            .await;
        }
        self.respond(Response::EpochComplete { epoch: run.epoch })
            .await;
        self.shards
            .on_each(|_, shard| shard.maintain(MAINTENANCE_FUEL))
            .await?;
        Ok(Flow::Continue)
    }

    /// Waits until the newest record of the local log counts.
    async fn finish_acknowledging(
        &self,
        task: JoinHandle<Result<(), flowstone_storage::Error>>,
    ) -> Result<(), Error> {
        match task.await.map_err(|_| log_thread_panicked())? {
            Err(error) if error.retryable() => {
                tracing::warn!(
                    error = with_causes(&error),
                    "the local log refused a note; trying again"
                );
                Ok(retrying("note what the local log holds", || {
                    self.on_log(LogStore::acknowledge)
                })
                .await?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// Lets the tables of sources that have failed for good say so from this epoch on.
    fn fail_sources(
        &mut self,
        inputs: &mut Vec<(ObjectId, CollectionInput)>,
        failures: &mut Vec<(ObjectId, Failure)>,
    ) {
        for (id, source) in &mut self.sources {
            let found = source.failure.clone();
            let Some(failure) = found.or_else(|| source.handle.failure()) else {
                continue;
            };
            if self.failed.insert(*id) {
                tracing::error!(source = %id, error = failure.message, "a source failed for good");
                let tables = source.description.tables.iter().map(|table| table.id);
                source.failing = tables.collect();
                failures.push((*id, failure.clone()));
            }
            for table in source.failing.drain(..) {
                if self.collections.contains_key(&table) && self.failed.insert(table) {
                    // One that was added after the source had failed is not among those that the source's own failure tells of.
                    failures.push((table, failure.clone()));
                    let error = EvalError::new(EvalErrorKind::Source, failure.message.clone());
                    inputs.push((table, CollectionInput::Errors(vec![(error, 1)])));
                }
            }
        }
    }

    /// Takes what each bound source has up to its position. `None` if the coordinator asks to stop while a source is waited for.
    async fn take_sources(&mut self, run: &RunEpoch) -> Result<Option<Vec<TableChanges>>, Error> {
        let mut taken = Vec::new();
        for binding in &run.bindings {
            // A source that was dropped after its position was bound has nothing to say any more.
            let Some(source) = self.sources.get_mut(&binding.source) else {
                continue;
            };
            let take = source.handle.take(binding);
            tokio::pin!(take);
            let changes = loop {
                tokio::select! {
                    changes = &mut take => break changes,
                    event = self.events.recv() => match event {
                        Some(Event::Source(event)) => {
                            // Status and progress must flow while we wait: they tell the user why.
                            let response = match event {
                                flowstone_ingest::SourceEvent::Progress { source, position, upstream } => Response::SourceProgress { source, position, upstream },
                                flowstone_ingest::SourceEvent::Snapshot { source, tables, position } => Response::SourceSnapshot { source, tables, position },
                                flowstone_ingest::SourceEvent::Status { object, status } => Response::SourceStatus { object, status },
                                flowstone_ingest::SourceEvent::Statistics(statistics) => Response::SourceStatistics(statistics),
                            };
                            drop(self.responses.send(response).await);
                        }
                        Some(other) => {
                            let events = self.event_sender.clone();
                            self.tasks.spawn(async move { drop(events.send(other).await) });
                            tokio::task::yield_now().await;
                        }
                        None => return Err(Error::Protocol("event channel closed".to_owned())),
                    },
                    command = self.commands.recv() => match command {
                        None | Some(Command::Shutdown) => return Ok(None),
                        Some(command) => self.read_ahead.push_back(command),
                    },
                }
            };
            match changes {
                Ok(changes) => taken.extend(changes),
                Err(flowstone_ingest::Error::Stopped) => {}
                // What was bound cannot be had any more: every table says so ([`Engine::fail_sources`]), and everything else goes on.
                Err(flowstone_ingest::Error::Failed { message, hint }) => {
                    source.failure.get_or_insert(Failure { message, hint });
                }
                Err(error) => return Err(error.into()),
            }
            source.bound.push_back((run.epoch, binding.position));
        }
        Ok(Some(taken))
    }

    /// The changes of the epoch's writes, durable in the local log when this returns. Writes that the disk refuses, or that are too large together, have failed,
    /// and the epoch goes on without.
    async fn log_writes(&mut self, run: &RunEpoch) -> Result<Vec<(ObjectId, DeltaBatch)>, Error> {
        if run.replay {
            return Ok(self
                .logged
                .remove(&run.epoch)
                .map(|record| record.changes)
                .unwrap_or_default());
        }
        let mut changes = Vec::new();
        for write in &run.writes {
            let staged = self.staged.remove(write).ok_or_else(|| {
                Error::Protocol(format!(
                    "epoch {} names write {} which is not staged",
                    run.epoch, write.0
                ))
            })?;
            changes.extend(staged.changes.into_iter().map(|(table, delta)| {
                (
                    table,
                    DeltaBatch {
                        epoch: run.epoch,
                        ..delta
                    },
                )
            }));
        }
        if changes.is_empty() {
            return Ok(changes);
        }
        let record = Arc::new(LogRecord {
            epoch: run.epoch,
            changes,
        });
        let appended = Arc::clone(&record);
        match self.on_log(move |log| log.append(&appended)).await {
            Ok(()) => Ok(Arc::try_unwrap(record)
                .map_or_else(|shared| shared.changes.clone(), |record| record.changes)),
            Err(error) => {
                let refusal = refusal(&error).ok_or(error)?;
                // Only once nothing of it can come back the writes have failed.
                retrying("cut back the local log", || self.on_log(LogStore::settle)).await?;
                self.respond(Response::WritesFailed {
                    epoch: run.epoch,
                    error: refusal,
                })
                .await;
                Ok(Vec::new())
            }
        }
    }

    async fn on_log(
        &self,
        work: impl FnOnce(&mut LogStore) -> Result<(), flowstone_storage::Error> + Send + 'static,
    ) -> Result<(), flowstone_storage::Error> {
        let log = Arc::clone(&self.log);
        tokio::task::spawn_blocking(move || work(&mut log.lock()))
            .await
            .map_err(|_| log_thread_panicked())?
    }

    /// Feeds a staged snapshot into the dataflow in ticks of bounded size, all at `epoch`. Its rows are committed by naming their files, not by writing them again.
    async fn load_snapshot(
        &mut self,
        table: ObjectId,
        staged: StagedSnapshot,
        epoch: Epoch,
    ) -> Result<(), Error> {
        let schema = self.schema_of(table)?;
        let mut rows = self.delta.read_staged(&staged, Arc::clone(&schema)).await?;
        let (mut waiting, mut count) = (Vec::new(), 0);
        loop {
            let batch = rows.next().await.transpose()?;
            let last = batch.is_none();
            if let Some(batch) = batch {
                count += batch.num_rows();
                waiting.push(DeltaBatch::insert(batch, epoch));
            }
            if count >= SNAPSHOT_ROWS_PER_TICK || (last && count > 0) {
                let input = vec![(table, CollectionInput::Deltas(std::mem::take(&mut waiting)))];
                count = 0;
                let partitioned = self.partition(input)?;
                let outputs = self.shards.tick(epoch, partitioned).await?;
                self.absorb(outputs, Some(table));
            }
            if last {
                break;
            }
        }
        self.buffer.add_staged(table, epoch, staged);
        Ok(())
    }

    /// The change of each bound source's progress relation: one row, its position.
    fn advance_progress(
        &mut self,
        run: &RunEpoch,
    ) -> Result<Vec<(ObjectId, CollectionInput)>, Error> {
        let mut inputs = Vec::new();
        for binding in &run.bindings {
            let Some(source) = self.sources.get_mut(&binding.source) else {
                continue;
            };
            let Some(progress) = source.description.progress else {
                continue;
            };
            let previous = source.progress.replace(binding.position);
            if previous == Some(binding.position) {
                continue;
            }
            let Some(collection) = self.collections.get(&progress) else {
                continue;
            };
            let schema = Arc::clone(&collection.schema);
            let mut deltas = Vec::with_capacity(2);
            if let Some(previous) = previous {
                deltas.push(DeltaBatch::new(
                    position_row(&schema, previous)?,
                    Weights::Const(-1),
                    run.epoch,
                ));
            }
            deltas.push(DeltaBatch::insert(
                position_row(&schema, binding.position)?,
                run.epoch,
            ));
            inputs.push((progress, CollectionInput::Deltas(deltas)));
        }
        Ok(inputs)
    }

    /// Gives each shard the rows it owns.
    pub(super) fn partition(
        &self,
        inputs: Vec<(ObjectId, CollectionInput)>,
    ) -> Result<PartitionedInputs, Error> {
        let count = self.shards.count();
        let mut shards: PartitionedInputs = (0..count).map(|_| Vec::new()).collect();
        for (id, input) in inputs {
            let columns = self.partition_columns(id)?;
            match input {
                CollectionInput::Errors(errors) => {
                    if let Some(first) = shards.first_mut() {
                        first.push((id, CollectionInput::Errors(errors)));
                    }
                }
                CollectionInput::Deltas(deltas) => {
                    for delta in deltas {
                        for (part, inputs) in itertools::zip_eq(
                            partition_delta(&delta, &columns, count)?,
                            shards.iter_mut(),
                        ) {
                            if !part.is_empty() {
                                inputs.push((id, CollectionInput::Deltas(vec![part])));
                            }
                        }
                    }
                }
                CollectionInput::Changes(changes) => {
                    for change in changes {
                        for (part, inputs) in itertools::zip_eq(
                            partition_changes(&change, &columns, count)?,
                            shards.iter_mut(),
                        ) {
                            if !part.ops.is_empty() || part.truncate_before {
                                inputs.push((id, CollectionInput::Changes(vec![part])));
                            }
                        }
                    }
                }
            }
        }
        Ok(shards)
    }

    pub(super) fn partition_columns(&self, id: ObjectId) -> Result<Vec<usize>, Error> {
        let description = self.collections.get(&id).ok_or(Error::UnknownObject(id))?;
        Ok(partition_columns(
            description.key.as_deref(),
            description.schema.fields().len(),
        ))
    }

    /// Hands what the shards computed to subscriptions and to the group-commit buffer. `covered`: a collection whose rows are on disk already.
    pub(super) fn absorb(&mut self, outputs: Vec<TickOutput>, covered: Option<ObjectId>) {
        for TickOutput { epoch, outputs } in outputs {
            for output in outputs {
                if let ObjectId::Transient(request) = output.id {
                    if let Some(subscription) = self
                        .subscriptions
                        .get_mut(&flowstone_proto::message::RequestId(request))
                    {
                        subscription.add(epoch, output.deltas, output.errors);
                    }
                } else if self.collections.contains_key(&output.id) && covered != Some(output.id) {
                    self.buffer.add(output.id, output.deltas);
                }
            }
        }
    }

    pub(super) async fn binding_durable(&mut self, epoch: Epoch) -> Result<(), Error> {
        if epoch > self.last_run {
            return Err(Error::Protocol(format!(
                "epoch {epoch} is durable before it was run"
            )));
        }
        let durable = {
            let mut readable = self.readable.write();
            readable.durable = readable.durable.max(epoch);
            readable.durable
        };
        let mut ended = Vec::new();
        for (request, subscription) in &mut self.subscriptions {
            if subscription.release(durable) == Liveness::Ended {
                ended.push(*request);
            }
        }
        for request in ended {
            self.end_subscription(request).await?;
        }
        self.bound_waiting_bytes().await?;
        self.start_ready_reads().await
    }

    /// Cuts off the subscribers with the most waiting until all together are within their memory.
    async fn bound_waiting_bytes(&mut self) -> Result<(), Error> {
        let waiting = self
            .subscriptions
            .iter()
            .map(|(request, subscription)| (subscription.waiting_bytes(), *request));
        let mut total: usize = waiting.clone().map(|(bytes, _)| bytes).sum();
        if total <= self.config.subscriber_memory_bytes {
            return Ok(());
        }
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        while total > self.config.subscriber_memory_bytes
            && let Some((bytes, request)) = waiting.pop()
        {
            if let Some(subscription) = self.subscriptions.get_mut(&request) {
                subscription.cut_off();
            }
            self.end_subscription(request).await?;
            total = total.saturating_sub(bytes);
        }
        Ok(())
    }

    pub(super) fn commit(&mut self, epoch: Epoch) -> Result<(), Error> {
        if self.committing {
            return Err(Error::Protocol(format!(
                "commit of epoch {epoch} while another commit runs"
            )));
        }
        if epoch > self.last_run {
            return Err(Error::Protocol(format!(
                "commit of epoch {epoch} before it was run"
            )));
        }
        self.committing = true;
        let (delta, events) = (self.delta.clone(), self.event_sender.clone());
        let log = Arc::clone(&self.log);
        let commits = self.buffer.up_to(epoch);
        self.tasks.spawn(async move {
            let result = retrying("group commit", || {
                let (delta, commits, log) = (delta.clone(), commits.clone(), Arc::clone(&log));
                async move {
                    let versions = delta.commit(epoch, commits).await?;
                    // The log knows before the coordinator does.
                    tokio::task::spawn_blocking(move || log.lock().note_commit(epoch))
                        .await
                        .map_err(|_| log_thread_panicked())??;
                    Ok(versions)
                }
            })
            .await;
            drop(events.send(Event::Committed { epoch, result }).await);
        });
        Ok(())
    }

    pub(super) async fn committed(&mut self, epoch: Epoch, versions: Vec<(ObjectId, i64)>) {
        self.committing = false;
        self.buffer.committed();
        self.delete_dropped_tables();
        // A table that was dropped while the commit ran is being deleted.
        let kept = versions.iter().map(|(id, _)| *id);
        self.maintain_tables(
            kept.filter(|id| self.collections.contains_key(id))
                .collect(),
        );
        self.respond(Response::Committed { epoch, versions }).await;
    }

    /// Checkpoints, compaction and vacuum of tables that just changed; one pass at a time.
    fn maintain_tables(&mut self, tables: Vec<ObjectId>) {
        if self.maintaining || tables.is_empty() {
            return;
        }
        self.maintaining = true;
        let (delta, events) = (self.delta.clone(), self.event_sender.clone());
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

    pub(super) async fn commit_point_durable(&mut self, epoch: Epoch) -> Result<(), Error> {
        // Upstream is told last: should anything go back to an earlier state before, the log knows.
        match self.on_log(move |log| log.truncate_through(epoch)).await {
            // The log stays longer than it must; the next commit point cuts it.
            Err(error) if error.retryable() => {
                tracing::warn!(%error, pause = ?RETRY_FIRST, "the local log could not be cut");
                return Ok(());
            }
            outcome => outcome?,
        }
        for source in self.sources.values_mut() {
            let mut newest = None;
            while let Some((bound, position)) = source.bound.front().copied()
                && bound <= epoch
            {
                newest = Some(position);
                source.bound.pop_front();
            }
            if let Some(position) = newest {
                source.handle.acknowledge(position);
            }
        }
        Ok(())
    }

    pub(super) fn schema_of(&self, id: ObjectId) -> Result<SchemaRef, Error> {
        Ok(Arc::clone(
            &self
                .collections
                .get(&id)
                .ok_or(Error::UnknownObject(id))?
                .schema,
        ))
    }
}

/// What the writers of an epoch hear whose record the local log refused; `None` if that is no reason to go on without them.
pub(super) fn refusal(error: &flowstone_storage::Error) -> Option<RequestError> {
    match error {
        flowstone_storage::Error::TooLarge { .. } => Some(RequestError::Eval(EvalError::new(
            EvalErrorKind::TooLarge,
            error.to_string(),
        ))),
        _ if error.retryable() => Some(RequestError::Storage {
            message: with_causes(error),
            full: error.is_full(),
        }),
        _ => None,
    }
}

fn position_row(schema: &SchemaRef, position: u64) -> Result<RecordBatch, Error> {
    let column: ArrayRef = Arc::new(UInt64Array::from(vec![position]));
    RecordBatch::try_new(Arc::clone(schema), vec![column])
        .map_err(|error| Error::Protocol(format!("progress relation: {error}")))
}
