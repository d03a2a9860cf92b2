//! Kafka: one topic, read by offsets of ours.
//!
//! Owns the tasks of a source and their order: the reader (a thread), the decoders, the readers of tables that were added later, reporting.
//! Called by [`crate::SourceHandle`] and [`crate::ask`].
//!
//! A position is the next offset of each partition. Every message is a transaction of its own as far as cuts are concerned, so a binding may stand behind any of
//! them, also within a transaction of Kafka's: nothing of one is received before it has ended, and nothing at all if it was aborted, but what has ended becomes
//! visible in the order of its messages, maybe in several epochs, and in several partitions at different times. See docs/adr/0022.
//!
//! Invariants. Where the source begins and where its first content ends is durable before anything is announced, and a partition that is found later is noted
//! before anything of it is read. What is below a position does not depend on how batches were cut.

mod attempt;
mod batch;
mod certificate;
mod client;
mod consumer;
mod dead_letter;
mod decode;
mod decoding;
pub(crate) mod describe;
mod early;
mod manifest;
mod marks;
mod offsets;
mod reader;
mod registry;
mod standing;
mod start;
mod state;
mod table_log;
mod upstream;

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_proto::kafka::KafkaConnection;
use flowstone_proto::message::{
    Failure, SourceBinding, SourceDescription, SourceKind, SourceStatistics, SourceStatus,
    SourceTable,
};
use flowstone_types::{ObjectId, SourcePosition};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use crate::backoff::Backoff;
use crate::capture::{self, STATISTICS_INTERVAL};
use crate::logs::with_schemas;
use crate::row_errors::ErrorChanges;
use crate::table_log::Log as _;
use crate::transactions::{BufferLimits, remove_unneeded};
use crate::{Error, SourceContext, SourceEvent};
use attempt::Ended;
use batch::Batch;
use offsets::Offsets;
use reader::Reader;
use state::{Own, Shared};

/// What was taken, on its way.
pub(crate) type Taking = crate::taking::Taking<state::State>;

/// A running Kafka source.
#[derive(Debug)]
pub(crate) struct KafkaTopicSource {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    reader: Option<std::thread::JoinHandle<()>>,
    /// Ends the tasks if the handle is dropped.
    _cancel: DropGuard,
}

impl KafkaTopicSource {
    /// Blocks: it reads the files of its state.
    ///
    /// # Errors
    /// A file of its state cannot be used, or what it resumes from is not a position of Kafka.
    pub(crate) fn start(
        description: SourceDescription,
        context: SourceContext,
        limits: BufferLimits,
    ) -> Result<Self, Error> {
        let SourceContext {
            clock,
            state_dir,
            schemas,
            events,
            ..
        } = context;
        let SourceKind::Kafka(source) = description.kind else {
            return Err(Error::Invariant("source is not a Kafka source".to_owned()));
        };
        let resume_from = description.resume_from.as_ref().map(offsets::of);
        let resume_from = resume_from.transpose()?;
        let id = description.id;
        let own = Own::new(*source);
        let shared = Shared::open(id, own, clock, events, &state_dir, limits)?;
        let shared = Arc::new(shared);
        let was_bound = description.bound || resume_from.is_some();
        if was_bound {
            shared.require_manifest()?;
        }
        shared.lock().start(
            with_schemas(&description.tables, &schemas),
            resume_from,
            &description.snapshotted,
        );
        if let Some(manifest) = shared.manifest.get() {
            shared.lock().resume_marks(&manifest);
        }
        shared.look_at_headers();
        let runtime = Handle::current();
        let (batches, decoding) = mpsc::channel(decoding::BATCHES_WAITING);
        // Apart: a reader that waits for room would be served before the one that only tries.
        let (early, decoding_early) = mpsc::channel(decoding::BATCHES_WAITING);
        let (told, ready) = oneshot::channel();
        let reader = Reader::new(
            Arc::clone(&shared),
            batches,
            runtime.clone(),
            was_bound,
            told,
        );
        let reader = std::thread::Builder::new()
            .name(format!("kafka-{id}"))
            .spawn(move || reader.run())
            .map_err(|error| Error::Invariant(format!("no thread for a source: {error}")))?;
        let removing = remove_unneeded(Arc::clone(&shared.spill), shared.cancel.clone());
        let resumed = resume_from.cloned().unwrap_or_default();
        let tasks = vec![
            runtime.spawn(removing),
            runtime.spawn(decoding::run(Arc::clone(&shared), decoding, decoding_early)),
            runtime.spawn(read_added(Arc::clone(&shared), early, ready)),
            runtime.spawn(report(Arc::clone(&shared), resumed)),
        ];
        let cancel = shared.cancel.clone().drop_guard();
        Ok(Self {
            shared,
            tasks,
            reader: Some(reader),
            _cancel: cancel,
        })
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.shared.lock().fatal.clone()
    }

    pub(crate) fn take(
        &self,
        binding: &SourceBinding,
    ) -> impl Future<Output = Result<Taking, Error>> + Send + use<> {
        Taking::begin(&self.shared, binding)
    }

    pub(crate) async fn ready(&self, binding: &SourceBinding) {
        self.shared.ready(binding).await;
    }

    pub(crate) fn row_errors(&self) -> Vec<(ObjectId, ErrorChanges)> {
        self.shared.lock().logs.row_errors()
    }

    pub(crate) fn acknowledge(&self, position: &SourcePosition) {
        match offsets::of(position) {
            Ok(offsets) => self.shared.lock().acknowledge(offsets),
            // It was never taken, then.
            Err(error) => tracing::error!(source = %self.shared.id, %error, "not acknowledged"),
        }
        self.shared.wake_reader();
    }

    pub(crate) fn alter(&self, connection: KafkaConnection, tables: &[SourceTable]) {
        let shared = &self.shared;
        shared.lock().alter_tables(tables);
        shared.own.connection.alter(connection);
        shared.tables_changed();
        shared.wake_reader();
    }

    pub(crate) fn add_tables(&self, tables: Vec<SourceTable>, schemas: Vec<(ObjectId, SchemaRef)>) {
        let shared = &self.shared;
        let mut state = shared.lock();
        for (table, schema) in with_schemas(&tables, &schemas) {
            state.add_table(table, schema);
        }
        drop(state);
        shared.look_at_headers();
        shared.tables_changed();
        shared.added.notify_one();
    }

    pub(crate) fn remove_tables(&self, tables: &[ObjectId]) {
        self.shared.lock().remove_tables(tables);
        self.shared.look_at_headers();
        self.shared.tables_changed();
        // There may be room now, and nothing any more that is waited for.
        self.shared.moved.notify_one();
        self.shared.bump();
    }

    pub(crate) async fn stop(self) {
        let Self {
            shared,
            tasks,
            reader,
            _cancel,
        } = self;
        shared.cancel.cancel();
        shared.wake_reader();
        let id = shared.id;
        let join_reader = move || {
            if reader.is_some_and(|reader| reader.join().is_err()) {
                tracing::error!(source = %id, "reader of a source failed");
            }
        };
        capture::stop(shared, tasks, join_reader).await;
    }
}

/// Reads for tables that were added to the running source, while the others go on. `ready` hears that everybody was told what the tables are.
async fn read_added(
    shared: Arc<Shared>,
    batches: mpsc::Sender<Batch>,
    ready: oneshot::Receiver<()>,
) {
    tokio::select! {
        () = shared.cancel.cancelled() => return,
        // The reader may have failed for good before.
        told = ready => if told.is_err() {
            return shared.cancel.cancelled().await;
        },
    }
    let mut backoff = Backoff::new();
    let mut proven = shared.own.connection.watch_proven();
    loop {
        proven.mark_unchanged();
        let mut tables_changed = shared.watch_tables();
        let manifest = shared.manifest.get();
        let early = manifest.as_ref().and_then(|manifest| {
            let mut state = shared.lock();
            // Before the reader has settled it, nothing is known of where they begin.
            if state.received.is_empty() {
                return None;
            }
            state.begin_early(&manifest.start)
        });
        let (Some(manifest), Some(early)) = (manifest, early) else {
            backoff.reset();
            tokio::select! {
                () = shared.cancel.cancelled() => return,
                () = shared.added.notified() => continue,
            }
        };
        if early.from.is_none() {
            for table in &early.tables {
                shared.status(*table, SourceStatus::Starting).await;
            }
        }
        let tables = early.tables.clone();
        let reading = {
            let (shared, batches) = (Arc::clone(&shared), batches.clone());
            let runtime = Handle::current();
            let connection = shared.own.connection.proven();
            tokio::task::spawn_blocking(move || {
                let start = &manifest.start;
                let read = early::read(&shared, &connection, &batches, &runtime, &early, start);
                read.map_err(|ended| ended.explained(&connection))
            })
        };
        let outcome = reading
            .await
            .unwrap_or_else(|error| Err(Ended::transient(format!("internal error: {error}"))));
        let (error, hint) = match outcome {
            Ok(()) => {
                // The decoders say when all of it is there, or from where to read on. Until then nothing is begun for these tables again.
                if !wait_for_decoders(&shared, &tables).await {
                    return;
                }
                continue;
            }
            Err(Ended::Stopped) => return,
            Err(Ended::Again) => continue,
            Err(Ended::Transient { message, hint } | Ended::Permanent { message, hint }) => {
                (message, hint)
            }
            Err(Ended::Suspect { message, hint }) => (message, Some(hint)),
        };
        // It begins anew, which may take long.
        shared.lock().release();
        shared.bump();
        for table in tables {
            let status = SourceStatus::Stalled {
                error: error.clone(),
                hint: hint.clone(),
            };
            shared.status(table, status).await;
        }
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = tokio::time::sleep(backoff.next()) => {}
            // It may have been a table that is gone, and another one should not wait for it.
            _changed = tables_changed.changed() => backoff.reset(),
            // The topic is reached in another way now.
            _changed = proven.changed() => backoff.reset(),
        }
    }
}

/// Waits until the first content of tables is in their logs, or has to be read on; `false` if the source is stopped before.
async fn wait_for_decoders(shared: &Shared, tables: &[ObjectId]) -> bool {
    let mut changed = shared.subscribe();
    loop {
        let pending = {
            let state = shared.lock();
            let mut logs = state.tables().iter();
            let is_pending = logs.any(|log| tables.contains(&log.table.id) && log.is_pending());
            is_pending && !state.is_behind()
        };
        if !pending {
            return true;
        }
        tokio::select! {
            () = shared.cancel.cancelled() => return false,
            result = changed.changed() => if result.is_err() { return false },
        }
    }
}

/// Reports progress as it is made and counters every second.
async fn report(shared: Arc<Shared>, resumed: Offsets) {
    let mut changed = shared.subscribe();
    let mut interval = tokio::time::interval(STATISTICS_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut progress = (Offsets::new(), Offsets::new());
    let mut reported: HashMap<ObjectId, SourceStatistics> = HashMap::new();
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            result = changed.changed() => {
                if result.is_err() {
                    return;
                }
                let now = {
                    let state = shared.lock();
                    state.offered().map(|offered| (offered, state.upstream.clone()))
                };
                // After a restart what was bound before is received again.
                let Some(now) = now.filter(|now| *now != progress) else { continue };
                if !offsets::covers(&now.0, &resumed) {
                    continue;
                }
                shared.send(SourceEvent::Progress {
                    source: shared.id,
                    position: offsets::position(&now.0),
                    upstream: offsets::position(&now.1),
                }).await;
                progress = now;
            }
            _ = interval.tick() => {
                shared.report_statistics(statistics(&shared), &mut reported).await;
            }
        }
    }
}

/// Counters of all tables and of the source. How far each partition is behind is the difference of the two offsets.
fn statistics(shared: &Shared) -> Vec<SourceStatistics> {
    let state = shared.lock();
    let known = offsets::position(&state.upstream);
    let taken = offsets::position(&state.taken);
    state.logs.statistics(shared.id, &known, &taken)
}
