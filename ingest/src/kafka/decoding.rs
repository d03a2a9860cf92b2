//! Between the readers and the logs: batches are decoded for each table on a thread that may compute, and appended in the order in which they came.
//!
//! Owns the decoders of all tables, the registries, the dead letters, and the making of room. Must not know brokers. It is one task of the source.
//!
//! Invariants. A batch is appended for all tables at once, or not yet; one with a message that is waited with is two. While there is no room, or a registry does
//! not answer, no batch is taken from the channel: the readers stand still then, and what the library fetches ahead is bounded. Nothing is asked of a registry
//! for each message. Where it has to be told what is sent again, the messages of a partition are decoded by one decoder in their order, whoever has read them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flowstone_proto::kafka::{KafkaConnection, RegistryConnection};
use flowstone_proto::message::SourceStatus;
use flowstone_types::ObjectId;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::batch::{Batch, Lane};
use super::dead_letter::DeadLetters;
use super::decode::{self, Outcome, Stop, TableDecoder};
use super::offsets::Offsets;
use super::registry::{Registry, RegistryError};
use super::state::{Shared, Want};
use super::upstream;
use crate::Error;
use crate::transactions::{Event, Pressure, Spiller};

/// Batches between a reader and here: one that is being decoded, and one to go on with.
pub(crate) const BATCHES_WAITING: usize = 2;
/// First and longest pause before what stands in the way is tried again.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long everybody's batches wait at most for a table that joins: longer than it takes to connect and to read what is left.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// A decoder that is used by one thread after another.
type SharedDecoder = Arc<Mutex<TableDecoder>>;

/// What stands in the way for now.
#[derive(Debug)]
struct Stall {
    error: String,
    hint: Option<String>,
    /// The message that cannot be read: those before it can.
    at: Option<i64>,
}

impl Stall {
    fn new(error: impl Into<String>, hint: &str) -> Self {
        Self {
            error: error.into(),
            hint: Some(hint.to_owned()),
            at: None,
        }
    }
}

impl From<RegistryError> for Stall {
    fn from(error: RegistryError) -> Self {
        Self::new(
            error.to_string(),
            "The source goes on once the registry answers.",
        )
    }
}

/// The source is being stopped.
#[derive(Debug)]
struct Stopped;

/// Decodes batches, `early` those of tables that were added later, until the source is stopped or nobody reads any more.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut batches: mpsc::Receiver<Batch>,
    mut early: mpsc::Receiver<Batch>,
) {
    let mut work = Work::new(Arc::clone(&shared));
    let mut changed = shared.subscribe();
    let mut held_since: Option<Instant> = None;
    loop {
        // Only here it begins, with the end of a batch.
        let is_held = shared.lock().is_held();
        held_since = is_held.then(|| held_since.unwrap_or_else(Instant::now));
        let hold_ends = held_since.unwrap_or_else(Instant::now) + HOLD_MAX;
        // Neither is always the first.
        let next = async {
            tokio::select! {
                Some(batch) = batches.recv(), if !is_held => Some(batch),
                Some(batch) = early.recv() => Some(batch),
                else => None,
            }
        };
        let batch = tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            event = work.spiller.event(), if !work.spiller.is_idle() => {
                work.spilled(event).await;
                continue;
            }
            // The table may be gone, or its reader has to begin again.
            _changed = changed.changed(), if is_held => continue,
            () = tokio::time::sleep_until(hold_ends), if is_held => {
                shared.lock().release();
                continue;
            }
            batch = next => batch,
        };
        let Some(batch) = batch else { return };
        shared.wake_reader();
        if work.take_in(batch).await.is_err() {
            return;
        }
    }
}

struct Work {
    shared: Arc<Shared>,
    decoders: HashMap<(ObjectId, Lane), SharedDecoder>,
    registries: Vec<(RegistryConnection, Registry)>,
    /// Where they are written, and with what.
    dead_letters: Option<(KafkaConnection, DeadLetters)>,
    spiller: Spiller,
    /// Whether everybody was told that something stands in the way.
    stalled: bool,
}

impl Work {
    fn new(shared: Arc<Shared>) -> Self {
        let directory = Arc::clone(&shared.spill);
        Self {
            spiller: Spiller::new(directory, &shared.writing, &shared.cancel),
            shared,
            decoders: HashMap::new(),
            registries: Vec::new(),
            dead_letters: None,
            stalled: false,
        }
    }

    async fn take_in(&mut self, batch: Batch) -> Result<(), Stopped> {
        // The next one is the last.
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            self.take_part(part, &mut parts).await?;
        }
        Ok(())
    }

    /// Takes in a batch up to the first message that is waited with; the others are added to `rest`.
    async fn take_part(&mut self, batch: Batch, rest: &mut Vec<Batch>) -> Result<(), Stopped> {
        self.make_room().await?;
        let shared = Arc::clone(&self.shared);
        let mut batch = Arc::new(batch);
        // What was decoded is kept if something else of the same batch stands in the way.
        let mut done = HashMap::new();
        let mut tables = shared.watch_tables();
        let mut pause = PAUSE_FIRST;
        loop {
            let attempt = tokio::select! {
                biased;
                () = shared.cancel.cancelled() => return Err(Stopped),
                attempt = self.attempt(&batch, &mut done) => attempt,
            };
            let Err(stall) = attempt else { break };
            if let Some((before, others)) = stall.at.and_then(|at| batch.cut_before(at)) {
                // What is before a message that cannot be read does not wait with it.
                self.take_back(batch.lane, &done);
                done.clear();
                rest.push(others);
                batch = Arc::new(before);
                continue;
            }
            self.stall(stall).await;
            tokio::select! {
                () = shared.cancel.cancelled() => return Err(Stopped),
                next = wait(&mut tables, pause) => pause = next,
            }
        }
        self.run_again().await;
        let tables: Vec<ObjectId> = done.keys().copied().collect();
        let complete = shared.lock().append(&batch, done.into_iter().collect());
        self.settle(&batch, &tables);
        if batch.finished {
            self.end_lane(batch.lane, &complete);
        }
        shared.bump();
        // Where everybody is may be settled for tables that were added meanwhile.
        shared.added.notify_one();
        shared.announce(complete).await;
        Ok(())
    }

    /// A reader for some tables alone has read everything. What has to know what is sent again goes on with the decoder that has seen what was sent before; those
    /// of tables that are still read for alone stay.
    fn end_lane(&mut self, lane: Lane, complete: &[(ObjectId, Offsets)]) {
        for (table, _) in complete {
            let Some(decoder) = self.decoders.remove(&(*table, lane)) else {
                continue;
            };
            let is_watched = locked(&decoder).is_watched();
            if is_watched {
                self.decoders.insert((*table, Lane::Main), decoder);
            }
        }
        let state = self.shared.lock();
        self.decoders
            .retain(|(table, of), _| *of != lane || state.is_read_for(*table, lane));
    }

    /// What came of a batch is in the logs of these tables.
    fn settle(&self, batch: &Batch, tables: &[ObjectId]) {
        let Some(next) = batch.next() else { return };
        for table in tables {
            if let Some(decoder) = self.decoders.get(&(*table, batch.lane)) {
                locked(decoder).settle(next);
            }
        }
    }

    /// What was decoded for these tables comes again, in other batches.
    fn take_back(&self, lane: Lane, done: &HashMap<ObjectId, Outcome>) {
        for table in done.keys() {
            if let Some(decoder) = self.decoders.get(&(*table, lane)) {
                locked(decoder).take_back();
            }
        }
    }

    /// Decodes a batch for the tables for which that was not done yet.
    async fn attempt(
        &mut self,
        batch: &Arc<Batch>,
        done: &mut HashMap<ObjectId, Outcome>,
    ) -> Result<(), Stall> {
        let wanted = self.shared.lock().wanted(batch);
        done.retain(|table, _| wanted.iter().any(|want| want.table == *table));
        let mut todo = Vec::new();
        for want in wanted {
            if batch.messages.is_empty() || done.contains_key(&want.table) {
                continue;
            }
            let Some(decoder) = self.decoder(want.table, batch.lane).await else {
                continue;
            };
            if want.first < want.end || locked(&decoder).is_watched() {
                self.fetch_schemas(&decoder, batch, want).await?;
                todo.push((want, decoder));
            }
        }
        if !todo.is_empty() {
            let batch = Arc::clone(batch);
            let decoding = tokio::task::spawn_blocking(move || {
                let decode = |(want, decoder): (Want, SharedDecoder)| {
                    let outcome = locked(&decoder).decode(&batch, want.first, want.end);
                    (want.table, outcome)
                };
                todo.into_iter().map(decode).collect::<Vec<_>>()
            });
            let decoded = decoding.await.map_err(|error| Stall {
                error: format!("internal error: {error}"),
                hint: None,
                at: None,
            })?;
            let mut stall: Option<Stall> = None;
            for (table, outcome) in decoded {
                match outcome {
                    Ok(outcome) => drop(done.insert(table, outcome)),
                    Err(Stop::Table(message)) => self.fail_table(table, message).await,
                    Err(Stop::Message { offset, message }) => {
                        let hint = "Repair the topic, or drop the table and make it with another ON DECODE ERROR.";
                        let is_first = stall
                            .as_ref()
                            .is_none_or(|known| known.at.is_none_or(|at| offset < at));
                        if is_first {
                            stall = Some(Stall {
                                at: Some(offset),
                                ..Stall::new(message, hint)
                            });
                        }
                    }
                }
            }
            if let Some(stall) = stall {
                return Err(stall);
            }
        }
        self.bury(done).await
    }

    /// The decoder of a table; `None` if it cannot have one, or is gone.
    async fn decoder(&mut self, table: ObjectId, lane: Lane) -> Option<SharedDecoder> {
        if let Some(known) = self.decoders.get(&(table, lane)) {
            return Some(Arc::clone(known));
        }
        let described = self.shared.lock().described(table)?;
        match TableDecoder::new(&described.0, described.1) {
            Ok(mut decoder) => {
                let begins = self.shared.lock().begins(table);
                if let Some(mark) = begins.filter(|_| lane == Lane::Main) {
                    decoder.begin_at(mark);
                }
                let decoder = Arc::new(Mutex::new(decoder));
                {
                    let state = self.shared.lock();
                    // An attempt to read for tables alone only comes when the one before was given up.
                    let is_over = |of: Lane| match (of, lane) {
                        (Lane::Early(old), Lane::Early(new)) => old < new,
                        (Lane::Early(_), Lane::Main) | (Lane::Main, _) => false,
                    };
                    self.decoders.retain(|(known, of), _| {
                        state.described(*known).is_some() && !is_over(*of)
                    });
                }
                self.decoders.insert((table, lane), Arc::clone(&decoder));
                Some(decoder)
            }
            Err(message) => {
                self.fail_table(table, message).await;
                None
            }
        }
    }

    async fn fail_table(&self, table: ObjectId, message: String) {
        let failed = self.shared.lock().fail_table(table, message);
        let Some((failure, complete)) = failed else {
            return;
        };
        self.shared.bump();
        if let Some(position) = complete {
            self.shared.announce(vec![(table, position)]).await;
        }
        self.shared.report_failures(vec![(table, failure)]).await;
    }

    /// Gets the schemas that messages name and that the decoder does not know. Registries are reached as the description of the table says now: the decoder is older.
    async fn fetch_schemas(
        &mut self,
        decoder: &SharedDecoder,
        batch: &Batch,
        want: Want,
    ) -> Result<(), Stall> {
        let missing = {
            let decoder = locked(decoder);
            let first = if decoder.is_watched() { 0 } else { want.first };
            decoder.missing(batch, first, want.end)
        };
        if missing.is_empty() {
            return Ok(());
        }
        let described = self.shared.lock().described(want.table);
        let spec = described.and_then(|(table, _)| upstream::decode(&table).ok());
        // The table may be gone.
        let Some(spec) = spec else { return Ok(()) };
        for (side, id) in missing {
            let Some(connection) = decode::registry(&spec, side) else {
                continue;
            };
            let found = self.registry(connection)?.by_id(id).await?;
            let schema = found
                .as_deref()
                .ok_or("the registry has no schema of this id");
            locked(decoder).add_schema(side, id, schema);
        }
        Ok(())
    }

    fn registry(&mut self, connection: &RegistryConnection) -> Result<&mut Registry, Stall> {
        let known = self
            .registries
            .iter()
            .position(|(known, _)| known == connection);
        let index = match known {
            Some(index) => index,
            None => {
                let registry = Registry::new(connection)?;
                self.registries.push((connection.clone(), registry));
                self.registries.len() - 1
            }
        };
        let found = self.registries.get_mut(index);
        found
            .map(|(_, registry)| registry)
            .ok_or_else(|| Stall::new("internal error: a registry is gone", ""))
    }

    /// Writes dead letters where they belong.
    async fn bury(&mut self, done: &mut HashMap<ObjectId, Outcome>) -> Result<(), Stall> {
        let hint = "The source goes on once the topic of dead letters can be written.";
        for outcome in done.values_mut() {
            if outcome.dead.is_empty() {
                continue;
            }
            let connection = self.shared.own.connection.proven();
            let known = match self.dead_letters.take() {
                Some((old, dead_letters)) if old != connection => {
                    self.end_dead_letters(dead_letters).await;
                    None
                }
                known => known.map(|(_, dead_letters)| dead_letters),
            };
            let dead_letters = match known {
                Some(dead_letters) => dead_letters,
                None => DeadLetters::new(&connection, &self.shared.own.source.topic)
                    .map_err(|error| Stall::new(error, hint))?,
            };
            let sent = dead_letters.send(&outcome.dead).await;
            if sent.is_err() && dead_letters.is_broken() {
                // The next attempt makes another one.
                self.end_dead_letters(dead_letters).await;
            } else {
                self.dead_letters = Some((connection, dead_letters));
            }
            sent.map_err(|error| Stall::new(error, hint))?;
            outcome.dead.clear();
        }
        Ok(())
    }

    /// Nothing more is written with this. To end it may block.
    async fn end_dead_letters(&self, dead_letters: DeadLetters) {
        let ending = tokio::task::spawn_blocking(move || drop(dead_letters));
        if let Err(error) = ending.await {
            tracing::error!(source = %self.shared.id, %error, "a producer of dead letters could not be ended");
        }
    }

    /// Waits until there is room for more, and makes it as far as that goes: from half of the memory on, so that nobody has to wait as a rule.
    async fn make_room(&mut self) -> Result<(), Stopped> {
        let shared = Arc::clone(&self.shared);
        loop {
            let (pressure, is_filling) = {
                let state = shared.lock();
                (state.pressure(), state.logs.is_filling())
            };
            if (pressure == Pressure::Memory || is_filling) && self.spiller.is_idle() {
                let chosen = shared.lock().logs.candidates();
                match chosen {
                    // What a take waits with stays until the end of the take, which wakes us.
                    Ok(chosen) if chosen.is_empty() => {}
                    Ok(chosen) => self.spiller.start(chosen),
                    Err(error) => {
                        tracing::error!(source = %shared.id, %error, "changes could not be written to disk");
                    }
                }
            }
            if pressure == Pressure::None {
                return Ok(());
            }
            tokio::select! {
                () = shared.cancel.cancelled() => return Err(Stopped),
                () = shared.moved.notified() => {}
                event = self.spiller.event(), if !self.spiller.is_idle() => {
                    self.spilled(event).await;
                }
            }
        }
    }

    /// Something was written to disk, or could not be.
    async fn spilled(&mut self, event: Event) {
        let Event::Written(mut written) = event else {
            return;
        };
        self.shared.lock().logs.set_spilled(&mut written);
        match written.failure {
            None => self.run_again().await,
            Some(error) => {
                let cause = match &error {
                    Error::State { source, .. } => format!("{error}: {source}"),
                    other => other.to_string(),
                };
                if self.shared.lock().pressure() == Pressure::None {
                    // It is tried again, and until then there is room.
                    tracing::warn!(source = %self.shared.id, error = cause, "changes could not be written to disk");
                    return;
                }
                let hint =
                    "The source goes on once there is room on the disk of the data directory.";
                self.stall(Stall::new(cause, hint)).await;
            }
        }
    }

    async fn stall(&mut self, stall: Stall) {
        tracing::warn!(source = %self.shared.id, error = stall.error, "source stalled");
        self.stalled = true;
        let status = SourceStatus::Stalled {
            error: stall.error,
            hint: stall.hint,
        };
        self.shared.decoders_are(Some(status)).await;
    }

    async fn run_again(&mut self) {
        if std::mem::take(&mut self.stalled) {
            self.shared.decoders_are(None).await;
        }
    }
}

/// Waits before what stands in the way is tried again: for a while, or until tables have come or gone, and maybe what stands in the way with them. Returns how long
/// to wait the next time.
///
/// # Cancel safety
/// What has changed is heard by the next call.
async fn wait(tables: &mut watch::Receiver<u64>, pause: Duration) -> Duration {
    tokio::select! {
        _changed = tables.changed() => PAUSE_FIRST,
        () = tokio::time::sleep(pause) => (pause * 2).min(PAUSE_MAX),
    }
}

fn locked(decoder: &SharedDecoder) -> MutexGuard<'_, TableDecoder> {
    decoder.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
