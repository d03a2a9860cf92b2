//! Load generators: sources whose content is a function of a seed and a tick number.
//!
//! Owns the tick that makes positions advance, and the regeneration of what lies between two positions.
//! Called by [`crate::SourceHandle`].
//!
//! Invariants. The content of tick `n` depends on the generator, the seed, the tick interval and a base time that is written to a durable file once;
//! on nothing else. So nothing is buffered: a take generates its ticks.

pub(crate) mod auction;
pub(crate) mod counter;
pub(crate) mod rows;
pub mod tables;
pub(crate) mod tpch;

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_schema::SchemaRef;
use flowstone_proto::message::{
    LoadGenerator, SourceBinding, SourceDescription, SourceKind, SourceStatistics, SourceStatus,
    SourceTable,
};
use flowstone_types::{ObjectId, SourceChanges, SourcePosition};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Error, SourceContext, SourceEvent, TableChanges, TableData, state_file};
use auction::Timeline;
use flowstone_storage::{DeltaTables, StagedSnapshot};
use rows::Rows;

/// Pause between two attempts to stage a snapshot on a disk that refuses.
const STAGE_AGAIN: Duration = Duration::from_secs(1);

/// Rows per generated batch.
const ROWS_PER_BATCH: usize = 8192;
/// How far ticks run ahead of what was taken: beyond it a stopped reader would be met by one enormous take.
const TICKS_AHEAD_MAX: u64 = 100_000;
/// The position of every snapshot: the first tick.
const SNAPSHOT_TICK: u64 = 1;

/// The durable part of a generator.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct BaseFile {
    version: u32,
    base_ms: u64,
}

/// What decides the content of every tick.
#[derive(Clone, Debug)]
struct Script {
    generator: LoadGenerator,
    seed: u64,
    timeline: Timeline,
}

impl Script {
    /// Generates `ticks` of one table and gives them to `sink` batch by batch, until it breaks.
    fn generate<E: From<Error>>(
        &self,
        table: &Table,
        ticks: RangeInclusive<u64>,
        mut sink: impl FnMut(SourceChanges) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut flush = |rows: &mut Rows| {
            let changes = rows.finish().and_then(|changes| table.project(changes));
            sink(changes.map_err(|error| Error::Invariant(error.to_string()))?)
        };
        let mut rows = Rows::new(Arc::clone(&table.generated));
        match &self.generator {
            LoadGenerator::Tpch { scale_factor } => {
                let sizes = tpch::Sizes::new(*scale_factor);
                let full = |rows: &mut Rows| {
                    if rows.len() < ROWS_PER_BATCH {
                        return ControlFlow::Continue(());
                    }
                    flush(rows).map_or_else(ControlFlow::Break, ControlFlow::Continue)
                };
                if let ControlFlow::Break(error) =
                    tpch::changes(self.seed, sizes, &table.name, ticks, &mut rows, full)
                {
                    return Err(error);
                }
            }
            small => {
                // A tick of the others makes few rows: cut the range so that a batch stays a batch.
                let mut first = *ticks.start();
                while first <= *ticks.end() {
                    let last = first.saturating_add(999).min(*ticks.end());
                    match small {
                        LoadGenerator::Counter { max_cardinality } => {
                            counter::changes(*max_cardinality, first..=last, &mut rows)
                        }
                        _ => auction::changes(
                            self.seed,
                            self.timeline,
                            &table.name,
                            first..=last,
                            &mut rows,
                        ),
                    }
                    if rows.len() > 0 {
                        flush(&mut rows)?;
                    }
                    first = last + 1;
                }
            }
        }
        if rows.len() > 0 {
            flush(&mut rows)
        } else {
            Ok(())
        }
    }
}

/// One table that the generator feeds.
#[derive(Clone, Debug)]
struct Table {
    id: ObjectId,
    name: String,
    /// All columns the generator makes.
    generated: SchemaRef,
    /// The columns of the collection.
    schema: SchemaRef,
    /// Where each of the collection's columns is in `generated`.
    columns: Vec<usize>,
    snapshot: SnapshotState,
    messages: u64,
}

#[derive(Clone, Debug)]
enum SnapshotState {
    /// It was taken.
    Bound,
    /// Ticks from the first on are generated when it is bound.
    Generated,
    /// It is being written to disk.
    Staging,
    /// It is on disk.
    Staged(StagedSnapshot),
    /// It could not be written.
    Failed(String),
}

impl Table {
    fn project(
        &self,
        mut changes: SourceChanges,
    ) -> Result<SourceChanges, arrow_schema::ArrowError> {
        let projected = changes.rows.project(&self.columns)?;
        changes.rows = arrow_array::RecordBatch::try_new(
            Arc::clone(&self.schema),
            projected.columns().to_vec(),
        )?;
        Ok(changes)
    }
}

#[derive(Debug)]
struct State {
    tables: Vec<Table>,
    taken: u64,
}

#[derive(Debug)]
struct Shared {
    id: ObjectId,
    script: Script,
    state: Mutex<State>,
    /// Counts changes of `state` that a waiting take cares about.
    staged: watch::Sender<u64>,
    events: mpsc::Sender<SourceEvent>,
    delta: DeltaTables,
    cancel: CancellationToken,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers tables; returns the ids of those that need a snapshot on disk and of those that do not.
    fn register(
        &self,
        tables: Vec<SourceTable>,
        schemas: &[(ObjectId, SchemaRef)],
        bound: &[ObjectId],
    ) -> Vec<ObjectId> {
        let definitions = tables::generator_tables(&self.script.generator);
        let staged = matches!(self.script.generator, LoadGenerator::Tpch { .. });
        let mut fresh = Vec::new();
        let mut state = self.lock();
        for table in tables {
            let generated = definitions
                .iter()
                .find(|(name, ..)| *name == table.upstream_name);
            let schema = schemas.iter().find(|(id, _)| *id == table.id);
            let (Some((_, generated, _)), Some((_, schema))) = (generated, schema) else {
                tracing::error!(table = %table.id, name = table.upstream_name, "generator has no such table");
                continue;
            };
            let columns = table
                .columns
                .iter()
                .filter_map(|column| generated.index_of(&column.name).ok())
                .collect();
            let snapshot = if bound.contains(&table.id) {
                SnapshotState::Bound
            } else {
                fresh.push(table.id);
                if staged {
                    SnapshotState::Staging
                } else {
                    SnapshotState::Generated
                }
            };
            state.tables.push(Table {
                id: table.id,
                name: table.upstream_name,
                generated: Arc::clone(generated),
                schema: Arc::clone(schema),
                columns,
                snapshot,
                messages: 0,
            });
        }
        fresh
    }

    /// Makes the snapshots of `fresh` ready and announces them.
    async fn prepare(&self, fresh: Vec<ObjectId>) {
        for id in &fresh {
            let Some(table) = self
                .lock()
                .tables
                .iter()
                .find(|table| table.id == *id)
                .cloned()
            else {
                continue;
            };
            if matches!(table.snapshot, SnapshotState::Staging) {
                let result = tokio::select! {
                    () = self.cancel.cancelled() => return,
                    result = self.stage_when_possible(&table) => result,
                };
                let wanted = self.lock().tables.iter().any(|table| table.id == *id);
                if !wanted {
                    // It was dropped meanwhile, and its files go with it.
                    if let Ok(staged) = result {
                        self.delta.discard(staged).await;
                    }
                    continue;
                }
                let snapshot = result.map_or_else(
                    |error| SnapshotState::Failed(describe_error(&error)),
                    SnapshotState::Staged,
                );
                if let SnapshotState::Failed(error) = &snapshot {
                    self.status(
                        self.id,
                        SourceStatus::Failed {
                            error: error.clone(),
                            hint: None,
                        },
                    )
                    .await;
                }
                if let Some(table) = self.lock().tables.iter_mut().find(|table| table.id == *id) {
                    table.snapshot = snapshot;
                }
            }
        }
        self.staged.send_modify(|count| *count += 1);
        if !fresh.is_empty() {
            self.send(SourceEvent::Snapshot {
                source: self.id,
                tables: fresh,
                position: SourcePosition::GeneratorTick(SNAPSHOT_TICK),
            })
            .await;
        }
    }

    /// Tries again while the disk refuses: that is not final.
    async fn stage_when_possible(&self, table: &Table) -> Result<StagedSnapshot, Error> {
        loop {
            let error = match self.stage(table).await {
                Err(error) if error.retryable() => describe_error(&error),
                outcome => return outcome,
            };
            tracing::warn!(source = %self.id, table = %table.id, error, "snapshot could not be staged; trying again");
            self.status(table.id, SourceStatus::Stalled { error, hint: None })
                .await;
            tokio::time::sleep(STAGE_AGAIN).await;
        }
    }

    async fn stage(&self, table: &Table) -> Result<StagedSnapshot, Error> {
        let mut writer = self
            .delta
            .stage(table.id, Arc::clone(&table.schema))
            .await?;
        // A few batches between the generating thread and the writer.
        let (tx, mut rx) = mpsc::channel(4);
        let script = self.script.clone();
        let source = table.clone();
        let generating = tokio::task::spawn_blocking(move || {
            script.generate(&source, SNAPSHOT_TICK..=SNAPSHOT_TICK, |changes| {
                tx.blocking_send(changes.rows).map_err(|_| Error::Stopped)
            })
        });
        while let Some(rows) = rx.recv().await {
            writer.write(&rows).await?;
        }
        generating
            .await
            .map_err(|error| Error::Invariant(error.to_string()))??;
        Ok(writer.finish().await?)
    }

    /// Generates what is bound.
    async fn take(&self, binding: &SourceBinding) -> Result<Vec<TableChanges>, Error> {
        let last = tick_of(&binding.position)?;
        self.wait_staged(&binding.snapshots).await?;
        let (plan, taken) = {
            let mut state = self.lock();
            let from = state.taken;
            state.taken = from.max(last);
            let mut plan = Vec::new();
            for table in &mut state.tables {
                let named = binding.snapshots.contains(&table.id);
                let before = table.clone();
                let first = match &table.snapshot {
                    SnapshotState::Bound => from.saturating_add(1),
                    SnapshotState::Generated if named => SNAPSHOT_TICK,
                    SnapshotState::Staged(_) if named => SNAPSHOT_TICK + 1,
                    _ => continue,
                };
                table.snapshot = SnapshotState::Bound;
                plan.push((before, first..=last));
            }
            (plan, state.taken)
        };
        let script = self.script.clone();
        let generated = tokio::task::spawn_blocking(move || {
            let mut results = Vec::new();
            for (table, ticks) in plan {
                let id = table.id;
                if let SnapshotState::Staged(snapshot) = &table.snapshot {
                    results.push(TableChanges {
                        table: id,
                        data: TableData::Snapshot(snapshot.clone()),
                    });
                }
                script.generate::<Error>(&table, ticks, |changes| {
                    results.push(TableChanges {
                        table: id,
                        data: TableData::Changes(changes),
                    });
                    Ok(())
                })?;
            }
            Ok::<_, Error>(results)
        });
        let results = generated
            .await
            .map_err(|error| Error::Invariant(error.to_string()))??;
        let mut state = self.lock();
        debug_assert_eq!(state.taken, taken);
        for result in &results {
            if let (TableData::Changes(changes), Some(table)) = (
                &result.data,
                state
                    .tables
                    .iter_mut()
                    .find(|table| table.id == result.table),
            ) {
                table.messages = table
                    .messages
                    .saturating_add(u64::try_from(changes.ops.len()).unwrap_or(u64::MAX));
            }
        }
        Ok(results)
    }

    /// Waits until none of `tables` is being staged.
    async fn wait_staged(&self, tables: &[ObjectId]) -> Result<(), Error> {
        let mut changed = self.staged.subscribe();
        loop {
            {
                let state = self.lock();
                let named = || {
                    state
                        .tables
                        .iter()
                        .filter(|table| tables.contains(&table.id))
                };
                if let Some(SnapshotState::Failed(message)) = named()
                    .map(|table| &table.snapshot)
                    .find(|state| matches!(state, SnapshotState::Failed(_)))
                {
                    return Err(Error::Failed {
                        message: message.clone(),
                        hint: None,
                    });
                }
                if !named().any(|table| matches!(table.snapshot, SnapshotState::Staging)) {
                    return Ok(());
                }
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Err(Error::Stopped),
                result = changed.changed() => result.map_err(|_| Error::Stopped)?,
            }
        }
    }

    async fn send(&self, event: SourceEvent) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            sent = self.events.send(event) => {
                if sent.is_err() {
                    self.cancel.cancel();
                }
            }
        }
    }

    async fn status(&self, object: ObjectId, status: SourceStatus) {
        self.send(SourceEvent::Status { object, status }).await;
    }

    async fn statistics(&self, tick: u64) {
        let (taken, tables) = {
            let state = self.lock();
            (
                state.taken,
                state
                    .tables
                    .iter()
                    .map(|table| (table.id, table.messages))
                    .collect::<Vec<_>>(),
            )
        };
        let total = tables.iter().map(|(_, messages)| messages).sum();
        for (object, messages) in tables.into_iter().chain([(self.id, total)]) {
            let statistics = SourceStatistics {
                object: Some(object),
                messages_received: messages,
                updates_staged: messages,
                updates_committed: messages,
                offset_known: Some(SourcePosition::GeneratorTick(tick)),
                offset_committed: Some(SourcePosition::GeneratorTick(taken)),
                ..SourceStatistics::default()
            };
            self.send(SourceEvent::Statistics(statistics)).await;
        }
    }
}

/// A running load generator.
#[derive(Debug)]
pub(crate) struct GeneratorSource {
    shared: Arc<Shared>,
    ticking: JoinHandle<()>,
    staging: Vec<JoinHandle<()>>,
    /// Ends the tasks if the handle is dropped.
    _cancel: DropGuard,
}

impl GeneratorSource {
    /// # Errors
    /// The file of its base time cannot be used, or what it resumes from is not a tick.
    pub(crate) fn start(
        description: SourceDescription,
        context: SourceContext,
    ) -> Result<Self, Error> {
        let SourceKind::LoadGenerator {
            generator,
            tick_interval,
            seed,
        } = description.kind
        else {
            return Err(Error::Invariant(
                "source is not a load generator".to_owned(),
            ));
        };
        let interval = tick_interval.max(Duration::from_millis(1));
        let taken = match &description.resume_from {
            Some(position) => tick_of(position)?,
            None => 0,
        };
        let base_path = context
            .state_dir
            .join(format!("{}-generator.json", description.id));
        if description.bound && !base_path.exists() {
            return Err(Error::Damaged {
                path: base_path,
                reason: "it is missing".to_owned(),
            });
        }
        let base_ms = base_time(&base_path, context.clock.now_ms())?;
        let timeline = Timeline {
            base_us: i64::try_from(base_ms.saturating_mul(1000)).unwrap_or(i64::MAX),
            tick_us: i64::try_from(interval.as_micros()).unwrap_or(i64::MAX),
        };
        let shared = Arc::new(Shared {
            id: description.id,
            script: Script {
                generator,
                seed,
                timeline,
            },
            state: Mutex::new(State {
                tables: Vec::new(),
                taken,
            }),
            staged: watch::channel(0).0,
            events: context.events,
            delta: context.tables,
            cancel: CancellationToken::new(),
        });
        let fresh = shared.register(
            description.tables,
            &context.schemas,
            &description.snapshotted,
        );
        let ticking = tokio::spawn(run(Arc::clone(&shared), fresh, interval));
        let cancel = shared.cancel.clone().drop_guard();
        Ok(Self {
            shared,
            ticking,
            staging: Vec::new(),
            _cancel: cancel,
        })
    }

    /// Does not borrow the source: whoever waits for it does so where it likes.
    pub(crate) fn take(
        &self,
        binding: &SourceBinding,
    ) -> impl Future<Output = Result<Vec<TableChanges>, Error>> + Send + use<> {
        let (shared, binding) = (Arc::clone(&self.shared), binding.clone());
        async move { shared.take(&binding).await }
    }

    /// Waits until what is bound can be taken.
    pub(crate) async fn ready(&self, binding: &SourceBinding) {
        // Why it cannot, the take says.
        drop(self.shared.wait_staged(&binding.snapshots).await);
    }

    pub(crate) async fn add_tables(
        &mut self,
        tables: Vec<SourceTable>,
        schemas: Vec<(ObjectId, SchemaRef)>,
    ) {
        let fresh = self.shared.register(tables, &schemas, &[]);
        let shared = Arc::clone(&self.shared);
        self.staging.retain(|task| !task.is_finished());
        self.staging
            .push(tokio::spawn(async move { shared.prepare(fresh).await }));
    }

    pub(crate) fn remove_tables(&self, tables: &[ObjectId]) {
        self.shared
            .lock()
            .tables
            .retain(|table| !tables.contains(&table.id));
    }

    pub(crate) async fn stop(self) {
        self.shared.cancel.cancel();
        for task in self.staging.into_iter().chain([self.ticking]) {
            if let Err(error) = task.await {
                tracing::error!(source = %self.shared.id, %error, "generator task failed");
            }
        }
    }
}

/// The tick that a position is.
fn tick_of(position: &SourcePosition) -> Result<u64, Error> {
    match position {
        SourcePosition::GeneratorTick(tick) => Ok(*tick),
        other => Err(Error::Invariant(format!(
            "position {other} is not one of a load generator"
        ))),
    }
}

/// The error with its causes.
fn describe_error(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The base time of generated timestamps: chosen once, then read back.
fn base_time(path: &std::path::Path, now_ms: u64) -> Result<u64, Error> {
    if let Some(BaseFile { base_ms, .. }) = state_file::read(path)? {
        return Ok(base_ms);
    }
    state_file::write(
        path,
        &BaseFile {
            version: 1,
            base_ms: now_ms,
        },
    )?;
    Ok(now_ms)
}

/// Announces the snapshot, then ticks.
async fn run(shared: Arc<Shared>, fresh: Vec<ObjectId>, interval: Duration) {
    shared.status(shared.id, SourceStatus::Starting).await;
    shared.prepare(fresh).await;
    let tables: Vec<ObjectId> = shared.lock().tables.iter().map(|table| table.id).collect();
    for object in tables.into_iter().chain([shared.id]) {
        shared.status(object, SourceStatus::Running).await;
    }
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut tick = 0;
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            _ = ticks.tick() => {
                let taken = shared.lock().taken;
                if tick < taken.saturating_add(TICKS_AHEAD_MAX) {
                    tick = tick.max(taken).saturating_add(1);
                    let position = SourcePosition::GeneratorTick(tick);
                    let upstream = position.clone();
                    shared.send(SourceEvent::Progress { source: shared.id, position, upstream }).await;
                }
            }
            _ = seconds.tick() => shared.statistics(tick).await,
        }
    }
}
