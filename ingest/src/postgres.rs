//! PostgreSQL capture: one publication through one replication slot.
//!
//! Owns the tasks of a source and their order: the slot, the first snapshot, streaming, snapshots of tables added later, polling, reporting.
//! Called by [`crate::SourceHandle`] and [`crate::ask`].
//!
//! Invariants. The slot exists before the snapshot is read, the manifest is durable before the snapshot is announced, and streaming starts at the
//! manifest's position or at what is committed. A slot without a manifest belongs to a snapshot that was never finished, and is dropped.
//! Positions are LSNs in here, `u64`; [`SourcePosition`] is what comes in and goes out.

pub(crate) mod attempt;
pub(crate) mod catalog;
pub(crate) mod describe;
pub(crate) mod manifest;
pub(crate) mod membership;
pub(crate) mod pgoutput;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod stream;
pub(crate) mod table_log;
pub(crate) mod tls;
pub(crate) mod types;
pub(crate) mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::SchemaRef;
use flowstone_proto::message::{
    Failure, PostgresConnection, SourceBinding, SourceDescription, SourceKind, SourceStatistics,
    SourceStatus, SourceTable,
};
use flowstone_types::{ObjectId, SourcePosition};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use crate::alterable::Alterable;
use crate::backoff::{self, Backoff};
use crate::binding::Position;
use crate::capture::{self, STATISTICS_INTERVAL};
use crate::logs::with_schemas;
use crate::row_errors::ErrorChanges;
use crate::transactions::{BufferLimits, remove_unneeded};
use crate::{Error, SourceContext, SourceEvent};
use attempt::AttemptError;
use manifest::{FILE_VERSION, Manifest, ManifestTable};
use snapshot::Lifetime;
use state::{Own, Shared};
use table_log::{Snapshot, TableLog};
use wire::{
    Connection, Purpose, WireError, format_lsn, parse_lsn, quote_identifier, quote_literal,
};

/// What was taken, on its way.
pub(crate) type Taking = crate::taking::Taking<state::State>;

/// A running PostgreSQL source.
#[derive(Debug)]
pub(crate) struct PostgresSource {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    /// Ends the tasks if the handle is dropped.
    _cancel: DropGuard,
}

impl PostgresSource {
    /// Blocks: it reads the files of its state.
    ///
    /// # Errors
    /// A file of its state cannot be used, or what it resumes from is not an LSN.
    pub(crate) fn start(
        description: SourceDescription,
        context: SourceContext,
        limits: BufferLimits,
    ) -> Result<Self, Error> {
        let SourceContext {
            tables,
            clock,
            state_dir,
            schemas,
            events,
        } = context;
        let SourceKind::Postgres {
            connection,
            publication,
            slot,
        } = description.kind
        else {
            return Err(Error::Invariant(
                "source is not a PostgreSQL source".to_owned(),
            ));
        };
        let resume_from = description.resume_from.as_ref().map(lsn_of).transpose()?;
        let id = description.id;
        let own = Own {
            connection: Alterable::new(connection),
            publication,
            slot,
            delta: tables,
        };
        let shared = Shared::open(id, own, clock, events, &state_dir, limits)?;
        let shared = Arc::new(shared);
        if description.bound || resume_from.is_some() {
            shared.require_manifest()?;
        }
        register(
            &shared,
            &description.tables,
            &schemas,
            resume_from,
            &description.snapshotted,
        );
        let (established, ready) = watch::channel(false);
        let removing = remove_unneeded(Arc::clone(&shared.spill), shared.cancel.clone());
        let tasks = vec![
            tokio::spawn(removing),
            tokio::spawn(run(Arc::clone(&shared), established)),
            tokio::spawn(snapshot_added(Arc::clone(&shared), ready.clone())),
            tokio::spawn(watch_membership(Arc::clone(&shared), ready.clone())),
            tokio::spawn(report(Arc::clone(&shared), ready, resume_from.unwrap_or(0))),
        ];
        let cancel = shared.cancel.clone().drop_guard();
        Ok(Self {
            shared,
            tasks,
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
        match lsn_of(position) {
            Ok(lsn) => self.shared.lock().acknowledge(lsn),
            // It was never taken, then. Upstream keeps what it has.
            Err(error) => tracing::error!(source = %self.shared.id, %error, "not acknowledged"),
        }
        self.shared.moved.notify_one();
    }

    pub(crate) fn alter(&self, connection: PostgresConnection) {
        self.shared.own.connection.alter(connection);
    }

    pub(crate) fn add_tables(&self, tables: Vec<SourceTable>, schemas: Vec<(ObjectId, SchemaRef)>) {
        let shared = &self.shared;
        let mut state = shared.lock();
        for (table, schema) in with_schemas(&tables, &schemas) {
            // Changes are kept from now on: whatever was received before is older than the slot that will be made for the snapshot.
            let floor = state.floor();
            state.add_table(TableLog::new(table, schema, Snapshot::Pending { floor }, 0));
        }
        drop(state);
        shared.added.notify_one();
    }

    pub(crate) fn remove_tables(&self, tables: &[ObjectId]) {
        let mut state = self.shared.lock();
        state.remove_tables(tables);
        state.manifest_stale = true;
        drop(state);
        self.shared.moved.notify_one();
    }

    pub(crate) async fn stop(self) {
        let Self {
            shared,
            tasks,
            _cancel,
        } = self;
        capture::stop(shared, tasks, || {}).await;
    }
}

/// The LSN that a position is.
fn lsn_of(position: &SourcePosition) -> Result<u64, Error> {
    u64::of(position).copied()
}

/// Makes the logs of the tables a source starts with, and finds where it starts.
fn register(
    shared: &Shared,
    tables: &[SourceTable],
    schemas: &[(ObjectId, SchemaRef)],
    resume_from: Option<u64>,
    snapshotted: &[ObjectId],
) {
    let manifest = shared.manifest.get();
    let mut staged: HashMap<ObjectId, ManifestTable> = manifest
        .iter()
        .flat_map(|manifest| &manifest.tables)
        .map(|entry| (entry.table, entry.clone()))
        .collect();
    let base = resume_from.or(manifest.as_ref().map(|manifest| manifest.position));
    let mut start = base.unwrap_or(0);
    let mut logs = Vec::new();
    for (table, schema) in with_schemas(tables, schemas) {
        let log = if snapshotted.contains(&table.id) {
            TableLog::new(table, schema, Snapshot::Committed, resume_from.unwrap_or(0))
        } else if let Some(ManifestTable {
            position, content, ..
        }) = staged.remove(&table.id)
        {
            start = start.min(position);
            TableLog::new(
                table,
                schema,
                Snapshot::Staged { position, content },
                position,
            )
        } else {
            TableLog::new(
                table,
                schema,
                Snapshot::Pending {
                    floor: base.unwrap_or(0),
                },
                0,
            )
        };
        logs.push(log);
    }
    let mut state = shared.lock();
    logs.into_iter().for_each(|log| state.add_table(log));
    state.start_at(start, resume_from.unwrap_or(0));
    state.manifest_stale = manifest.is_some();
}

/// The main task: attempts, one after another, until the source is stopped or can never go on.
async fn run(shared: Arc<Shared>, established: watch::Sender<bool>) {
    shared.status(shared.id, SourceStatus::Starting).await;
    let mut backoff = Backoff::new();
    let mut altered = shared.own.connection.watch();
    loop {
        let started = tokio::time::Instant::now();
        let ended = tokio::select! {
            biased;
            () = shared.cancel.cancelled() => AttemptError::Stopped,
            ended = attempt(&shared, &established, &mut altered) => ended,
        };
        match ended {
            AttemptError::Stopped => return,
            AttemptError::Altered => {
                begin_anew(&shared, &mut backoff).await;
                continue;
            }
            AttemptError::Permanent { message, hint } => {
                tracing::error!(source = %shared.id, error = message, "source failed");
                shared.lock().fatal = Some(Failure {
                    message: message.clone(),
                    hint: hint.clone(),
                });
                shared.bump();
                shared
                    .status(
                        shared.id,
                        SourceStatus::Failed {
                            error: message,
                            hint,
                        },
                    )
                    .await;
                return shared.cancel.cancelled().await;
            }
            AttemptError::Transient { message, hint } => {
                tracing::warn!(source = %shared.id, error = message, "source stalled");
                shared
                    .status(
                        shared.id,
                        SourceStatus::Stalled {
                            error: message,
                            hint,
                        },
                    )
                    .await;
            }
        }
        if started.elapsed() > backoff::RESET {
            backoff.reset();
        }
        let jittered = next_pause(&shared, &mut backoff);
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = tokio::time::sleep(jittered) => {}
            _changed = altered.changed() => begin_anew(&shared, &mut backoff).await,
        }
    }
}

/// The connection was altered: what went wrong with the old one does not count.
async fn begin_anew(shared: &Shared, backoff: &mut Backoff) {
    tracing::info!(source = %shared.id, "the connection of a source was altered");
    backoff.reset();
    shared.status(shared.id, SourceStatus::Starting).await;
}

/// What comes of something, unless the connection is altered before.
async fn unless_altered<T, E>(
    altered: &mut watch::Receiver<PostgresConnection>,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, AttemptError>
where
    AttemptError: From<E>,
{
    tokio::select! {
        biased;
        done = work => Ok(done?),
        _changed = altered.changed() => Err(AttemptError::Altered),
    }
}

/// The next pause, so that sources of one server do not all come at once.
fn next_pause(shared: &Shared, backoff: &mut Backoff) -> Duration {
    let received = shared.lock().received;
    backoff.next_jittered(shared.clock.as_ref(), received)
}

/// One attempt: whatever is left of establishing the source, then streaming until it ends, or the connection is `altered`.
async fn attempt(
    shared: &Arc<Shared>,
    established: &watch::Sender<bool>,
    altered: &mut watch::Receiver<PostgresConnection>,
) -> AttemptError {
    match establish(shared, established, altered).await {
        Ok(connection) => {
            shared.status(shared.id, SourceStatus::Running).await;
            stream::stream(shared, connection, altered).await
        }
        Err(error) => error,
    }
}

/// Brings the source to where it can stream: the slot exists, the first snapshot is on disk and announced.
async fn establish(
    shared: &Arc<Shared>,
    established: &watch::Sender<bool>,
    altered: &mut watch::Receiver<PostgresConnection>,
) -> Result<Connection, AttemptError> {
    let described = altered.borrow_and_update().clone();
    let opening = Connection::open(&described, Purpose::Replication);
    let mut connection = unless_altered(altered, opening).await?;
    let identity = unless_altered(altered, connection.ask("IDENTIFY_SYSTEM")).await?;
    let identity = identity.into_iter().next().unwrap_or_default();
    let field = |index: usize| identity.get(index).cloned().flatten().unwrap_or_default();
    let (system, timeline) = (field(0), field(1));
    // Who it is comes first: where another server is says nothing.
    match shared.manifest.get() {
        Some(manifest) => {
            check_identity(&manifest, &system, &timeline)?;
            check_position(shared, &field(2))?;
        }
        // Nothing was ever taken: the start has seen to that.
        None => {
            let copying = first_copies(shared, &mut connection, &described);
            let (position, staged) = unless_altered(altered, copying).await?;
            let server = (system.as_str(), timeline.as_str());
            first_snapshot(shared, position, staged, server).await?;
        }
    }
    unless_altered(altered, check_slot(shared, &mut connection)).await?;
    shared.own.connection.prove(&described);
    if !*established.borrow() {
        announce_staged(shared).await;
        shared.report_tables().await;
        established.send_replace(true);
    }
    Ok(connection)
}

fn check_identity(manifest: &Manifest, system: &str, timeline: &str) -> Result<(), AttemptError> {
    if manifest.system != system {
        // Nothing is lost by that.
        return Err(AttemptError::Transient {
            message: format!(
                "server has system identifier {system}, but the source was created with {}",
                manifest.system
            ),
            hint: Some(
                "The connection leads to another server. Let it lead to the one of before, or drop the source and create it again."
                    .to_owned(),
            ),
        });
    }
    if manifest.timeline != timeline {
        return Err(AttemptError::permanent(
            format!(
                "timeline of the server changed from {} to {timeline}",
                manifest.timeline
            ),
            "The server was restored or failed over, and positions do not mean the same any more. Drop the source and create it again.",
        ));
    }
    Ok(())
}

/// A server that does not know what it sent before was restored from an earlier state of itself.
fn check_position(shared: &Shared, newest: &str) -> Result<(), AttemptError> {
    let received = shared.lock().received;
    match parse_lsn(newest) {
        Some(position) if position < received => Err(AttemptError::permanent(
            format!(
                "server is at {newest}, but the source has read it up to {}",
                format_lsn(received)
            ),
            "The server was restored to an earlier state, and what the source has read is not its history any more. Drop the source and create it again.",
        )),
        _ => Ok(()),
    }
}

async fn check_slot(shared: &Shared, connection: &mut Connection) -> Result<(), AttemptError> {
    let status = if connection.server_version() >= 13 {
        "coalesce(wal_status, '')"
    } else {
        "''"
    };
    let rows = connection
        .ask(&format!(
            "SELECT {status}, database IS DISTINCT FROM current_database() FROM pg_replication_slots WHERE slot_name = {}",
            quote_literal(&shared.own.slot)
        ))
        .await?;
    let Some(row) = rows.into_iter().next() else {
        return Err(stream::slot_missing(shared));
    };
    let mut row = row.into_iter();
    let status = row.next().flatten();
    if row.next().flatten().as_deref() == Some("t") {
        return Err(stream::slot_elsewhere(shared));
    }
    match status.as_deref() {
        Some("lost") => {
            let message = format!(
                "replication slot \"{}\" has been invalidated because it exceeded the maximum reserved size",
                shared.own.slot
            );
            Err(stream::slot_lost(&message))
        }
        _ => Ok(()),
    }
}

/// The slot, and the snapshot of every table at its consistent point, with that. Starts over what an earlier attempt left.
///
/// # Cancel safety
/// What was begun is begun anew by the next attempt.
async fn first_copies(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    described: &PostgresConnection,
) -> Result<(u64, Vec<(ObjectId, snapshot::Staged)>), AttemptError> {
    drop_slot(connection, &shared.own.slot).await?;
    let exported = snapshot::create_slot(connection, &shared.own.slot, Lifetime::Permanent).await?;
    let tables = shared.pending();
    let staged = snapshot::copy(shared, described, tables, &exported.name).await?;
    Ok((exported.position, staged))
}

/// The manifest of the first snapshot, which is of the server with this identifier and timeline: the source has begun.
async fn first_snapshot(
    shared: &Arc<Shared>,
    position: u64,
    staged: Vec<(ObjectId, snapshot::Staged)>,
    (system, timeline): (&str, &str),
) -> Result<(), AttemptError> {
    let entries = manifest_tables(&staged, position);
    let manifest = Manifest {
        version: FILE_VERSION,
        system: system.to_owned(),
        timeline: timeline.to_owned(),
        position,
        tables: entries,
        membership: HashMap::new(),
        row_error_saves: 0,
    };
    shared.manifest.change(|_| Some(manifest)).await?;
    let mut state = shared.lock();
    for (id, content) in staged {
        if let Some(log) = state.table_mut(id) {
            log.set_snapshot(position, content);
        }
        state.logs.forget_failure_through(id, position);
    }
    state.start_at(position, 0);
    Ok(())
}

fn manifest_tables(staged: &[(ObjectId, snapshot::Staged)], position: u64) -> Vec<ManifestTable> {
    staged
        .iter()
        .map(|(table, content)| ManifestTable {
            table: *table,
            position,
            content: content.clone(),
        })
        .collect()
}

/// Announces every snapshot that is on disk and not in a commit point, lowest position first.
async fn announce_staged(shared: &Shared) {
    let mut by_position: std::collections::BTreeMap<u64, Vec<ObjectId>> =
        std::collections::BTreeMap::new();
    for log in shared.lock().tables() {
        if let Snapshot::Staged { position, .. } = &log.snapshot {
            by_position.entry(*position).or_default().push(log.table.id);
        }
    }
    for (position, tables) in by_position {
        shared
            .send(SourceEvent::Snapshot {
                source: shared.id,
                tables,
                position: SourcePosition::PostgresLsn(position),
            })
            .await;
    }
}

/// Drops a slot if it exists.
async fn drop_slot(connection: &mut Connection, slot: &str) -> Result<(), WireError> {
    match connection
        .query(&format!("DROP_REPLICATION_SLOT {}", quote_identifier(slot)))
        .await
    {
        Err(error) if error.code() == Some("42704") => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Drops a slot, wherever it is; one that is not there counts as dropped.
pub(crate) async fn drop_slot_of(connection: &PostgresConnection, slot: &str) -> Result<(), Error> {
    let attempt = async {
        let mut connection = Connection::open(connection, Purpose::Replication).await?;
        let result = drop_slot(&mut connection, slot).await;
        connection.close().await;
        result
    };
    attempt.await.map_err(|error: WireError| Error::Upstream {
        message: format!("replication slot \"{slot}\" could not be dropped: {error}"),
    })
}

/// Waits for the source to be established; `false` if it is stopped before.
async fn wait_established(shared: &Shared, mut ready: watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = shared.cancel.cancelled() => false,
        result = ready.wait_for(|ready| *ready) => result.is_ok(),
    }
}

async fn watch_membership(shared: Arc<Shared>, ready: watch::Receiver<bool>) {
    if wait_established(&shared, ready).await {
        membership::watch(shared).await;
    }
}

/// Reads the snapshots of tables that were added after the first, while the others stream.
async fn snapshot_added(shared: Arc<Shared>, ready: watch::Receiver<bool>) {
    if !wait_established(&shared, ready).await {
        return;
    }
    let mut backoff = Backoff::new();
    let mut proven = shared.own.connection.watch_proven();
    loop {
        proven.mark_unchanged();
        let tables = shared.pending();
        if tables.is_empty() {
            backoff.reset();
            tokio::select! {
                () = shared.cancel.cancelled() => return,
                () = shared.added.notified() => continue,
            }
        }
        let ids: Vec<ObjectId> = tables.iter().map(|(table, _)| table.id).collect();
        for id in &ids {
            shared.status(*id, SourceStatus::Starting).await;
        }
        let result = tokio::select! {
            () = shared.cancel.cancelled() => return,
            result = added_snapshot(&shared, tables) => result,
        };
        let (error, hint) = match result {
            Ok(()) => continue,
            Err(AttemptError::Stopped) => return,
            Err(AttemptError::Altered) => continue,
            Err(
                AttemptError::Transient { message, hint }
                | AttemptError::Permanent { message, hint },
            ) => (message, hint),
        };
        for id in ids {
            shared
                .status(
                    id,
                    SourceStatus::Stalled {
                        error: error.clone(),
                        hint: hint.clone(),
                    },
                )
                .await;
        }
        let jittered = next_pause(&shared, &mut backoff);
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = tokio::time::sleep(jittered) => {}
            // The server is reached in another way now.
            _changed = proven.changed() => backoff.reset(),
        }
    }
}

/// One attempt at the snapshot of added tables, through a slot that lives as long as its connection.
async fn added_snapshot(
    shared: &Arc<Shared>,
    tables: Vec<(SourceTable, SchemaRef)>,
) -> Result<(), AttemptError> {
    let described = shared.own.connection.proven();
    let mut connection = Connection::open(&described, Purpose::Replication).await?;
    // Slot names have at most 63 characters.
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let stem: String = shared.own.slot.chars().take(30).collect();
    let exported = snapshot::create_slot(
        &mut connection,
        &format!("{stem}_{unique}"),
        Lifetime::Connection,
    )
    .await?;
    {
        let mut state = shared.lock();
        for (table, _) in &tables {
            if let Some(log) = state.table_mut(table.id) {
                log.set_since(exported.position);
            }
            let logs = &mut state.logs;
            logs.forget_failure_through(table.id, exported.position);
        }
    }
    let staged = snapshot::copy(shared, &described, tables, &exported.name).await?;
    connection.close().await;
    let entries = manifest_tables(&staged, exported.position);
    shared
        .manifest
        .change(|manifest| {
            manifest.map(|mut manifest| {
                manifest
                    .tables
                    .retain(|entry| entries.iter().all(|other| other.table != entry.table));
                manifest.tables.extend(entries);
                manifest
            })
        })
        .await?;
    let ids: Vec<ObjectId> = staged.iter().map(|(table, _)| *table).collect();
    {
        let mut state = shared.lock();
        for (id, content) in staged {
            if let Some(log) = state.table_mut(id) {
                log.set_snapshot(exported.position, content);
            }
            let logs = &mut state.logs;
            logs.forget_failure_through(id, exported.position);
        }
    }
    shared.bump();
    shared
        .send(SourceEvent::Snapshot {
            source: shared.id,
            tables: ids.clone(),
            position: SourcePosition::PostgresLsn(exported.position),
        })
        .await;
    for id in ids {
        shared.status(id, SourceStatus::Running).await;
    }
    Ok(())
}

/// Reports progress as it is made and counters every second, and lets the manifest forget what is committed.
async fn report(shared: Arc<Shared>, ready: watch::Receiver<bool>, resume_from: u64) {
    let mut changed = shared.subscribe();
    let mut interval = tokio::time::interval(STATISTICS_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut progress = (0, 0);
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
                    (state.offered(), state.upstream.max(state.received))
                };
                // After a restart what was bound before is received again; before the first snapshot is announced nothing can be bound.
                if now != progress && now.0 >= resume_from && *ready.borrow() {
                    progress = now;
                    let position = SourcePosition::PostgresLsn(now.0);
                    let upstream = SourcePosition::PostgresLsn(now.1);
                    shared.send(SourceEvent::Progress { source: shared.id, position, upstream }).await;
                }
            }
            _ = interval.tick() => {
                shared.report_statistics(statistics(&shared), &mut reported).await;
                prune_manifest(&shared).await;
            }
        }
    }
}

fn statistics(shared: &Shared) -> Vec<SourceStatistics> {
    let state = shared.lock();
    let known = SourcePosition::PostgresLsn(state.upstream);
    let taken = SourcePosition::PostgresLsn(state.taken);
    state.logs.statistics(shared.id, &known, &taken)
}

/// Takes tables whose snapshot is in a commit point out of the manifest.
async fn prune_manifest(shared: &Shared) {
    let keep: Vec<ObjectId> = {
        let mut state = shared.lock();
        if !std::mem::take(&mut state.manifest_stale) {
            return;
        }
        let needed = state
            .tables()
            .iter()
            .filter(|log| !matches!(log.snapshot, Snapshot::Committed));
        needed.map(|log| log.table.id).collect()
    };
    let Some(manifest) = shared.manifest.get() else {
        return;
    };
    if manifest
        .tables
        .iter()
        .all(|entry| keep.contains(&entry.table))
    {
        return;
    }
    let written = shared
        .manifest
        .change(|manifest| {
            manifest.map(|mut manifest| {
                manifest.tables.retain(|entry| keep.contains(&entry.table));
                manifest
            })
        })
        .await;
    if let Err(error) = written {
        tracing::warn!(source = %shared.id, %error, "manifest could not be pruned");
        shared.lock().manifest_stale = true;
    }
}
