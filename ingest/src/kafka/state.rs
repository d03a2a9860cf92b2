//! What the tasks of one Kafka source share.
//!
//! Owns the positions, where the first content ends, and which messages are for which table. The logs of all tables and the lock around it all are those of
//! every source: [`crate::logs`], [`crate::capture`]. Must not know brokers or how messages are decoded.
//!
//! Invariants. `received` only goes forward, and everything below it is in the logs of all tables that want it, or is read for them alone. Nothing is offered
//! before all of the first content is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use arrow_schema::SchemaRef;
use flowstone_proto::kafka::{Include, KafkaConnection, KafkaSource, OnDecodeError};
use flowstone_proto::message::{Failure as Failed, SourceStatus, SourceTable};
use flowstone_types::{ObjectId, SourcePosition};
use tokio::sync::watch;

use super::batch::{Batch, Lane};
use super::decode::Outcome;
use super::manifest::Manifest;
use super::marks::{Mark, Marks};
use super::offsets::{self, Offsets, covers, join, ordinal, raise};
use super::standing::Standing;
use super::table_log::{Reading, Snapshot, TableLog};
use super::upstream;
use crate::SourceEvent;
use crate::alterable::Alterable;
use crate::capture::{self, State as _};
use crate::logs::Logs;
use crate::table_log::{Failure, Log as _};
use crate::transactions::Pressure;

/// Messages that a table which is read for alone may lack of where everybody is when everybody waits for it: they are read within a second or so.
const HOLD_WITHIN: u64 = 100_000;
/// Rounds after which everybody waits, however much is lacking: it does not get less by reading.
const ROUNDS_FREE: u32 = 8;

/// Where the source is bound.
pub(crate) type Binding<'a> = crate::binding::Binding<'a, Offsets>;

/// What the tasks of one source share.
pub(crate) type Shared = capture::Shared<State>;

/// What they share beyond what those of every source do.
#[derive(Debug)]
pub(crate) struct Own {
    /// What is read, as it was described at the start; how it is reached since is in `connection`.
    pub(crate) source: KafkaSource,
    pub(crate) connection: Alterable<KafkaConnection>,
    /// The thread of the reader, to be woken.
    reader: Mutex<Option<Thread>>,
    /// Whether somebody looks at headers.
    needs_headers: AtomicBool,
    /// Counts how often tables have come or gone, or were altered.
    tables: watch::Sender<u64>,
    standing: Mutex<Standing>,
}

impl Own {
    pub(crate) fn new(source: KafkaSource) -> Self {
        Self {
            connection: Alterable::new(source.connection.clone()),
            source,
            reader: Mutex::new(None),
            needs_headers: AtomicBool::new(false),
            tables: watch::channel(0).0,
            standing: Mutex::new(Standing::new()),
        }
    }
}

/// Which messages of a batch a table wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) table: ObjectId,
    pub(crate) first: usize,
    pub(crate) end: usize,
}

/// Tables that are read for alone, up to where the others were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Early {
    pub(crate) generation: u64,
    pub(crate) tables: Vec<ObjectId>,
    /// Where the round before has ended; `None` in the first one.
    pub(crate) from: Option<Offsets>,
    pub(crate) until: Offsets,
}

/// What changes while the source runs.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) logs: Logs<TableLog>,
    /// Where it begins is settled.
    has_begun: bool,
    /// All of the first content is there.
    pub(crate) is_complete: bool,
    /// Where the first content ends.
    target: Offsets,
    /// Messages are on their way into the logs: nobody can say what a table that is added now gets of them.
    is_appending: bool,
    generation: u64,
    /// Where a reader for some tables alone has ended while everybody was further: it has to read on. With its generation.
    behind: Option<(u64, Offsets)>,
    /// How often it had to.
    rounds: u32,
    /// The generation of a reader for which everybody waits.
    held: Option<u64>,
    pub(crate) received: Offsets,
    /// The newest ends known upstream.
    pub(crate) upstream: Offsets,
    pub(crate) taken: Offsets,
    pub(crate) acknowledged: Offsets,
    /// What a take waits for.
    waiting_for: Option<(Offsets, Vec<ObjectId>)>,
    /// First contents that are there from the start, and that nobody was told of since.
    unannounced: Vec<(ObjectId, Offsets)>,
    /// Why the source as a whole cannot go on.
    pub(crate) fatal: Option<Failed>,
}

impl capture::State for State {
    type Position = Offsets;
    type Log = TableLog;
    type Manifest = Manifest;
    type Own = Own;

    fn logs(&self) -> &Logs<TableLog> {
        &self.logs
    }

    fn logs_mut(&mut self) -> &mut Logs<TableLog> {
        &mut self.logs
    }

    fn fatal(&self) -> Option<&Failed> {
        self.fatal.as_ref()
    }

    fn has_received(&self, position: &Offsets) -> bool {
        covers(&self.received, position)
    }

    fn wait_for(&mut self, binding: &Binding<'_>) {
        self.waiting_for = Some((binding.position.clone(), binding.snapshots.to_vec()));
    }

    fn set_taken(&mut self, position: &Offsets) {
        self.waiting_for = None;
        join(&mut self.taken, position);
        for log in self.logs.tables_mut() {
            log.cut_at.clone_from(position);
        }
    }
}

impl State {
    pub(crate) fn tables(&self) -> &[TableLog] {
        self.logs.tables()
    }

    pub(crate) fn table_mut(&mut self, id: ObjectId) -> Option<&mut TableLog> {
        self.logs.table_mut(id)
    }

    /// What a table is, for its decoder.
    pub(crate) fn described(&self, id: ObjectId) -> Option<(SourceTable, SchemaRef)> {
        let log = self.logs.table(id)?;
        Some((log.table.clone(), Arc::clone(&log.schema)))
    }

    /// Adds the log of a table, with the error it had in an earlier run. What is not in a commit point is read again, with its rows in error.
    fn add_log(&mut self, log: TableLog) {
        let id = log.table.id;
        let is_committed = log.snapshot == Snapshot::Committed;
        let committed_at = is_committed.then(|| ordinal(&self.taken));
        self.logs.add(log, committed_at);
        let given_up = self.logs.table_mut(id).and_then(TableLog::give_up);
        self.unannounced
            .extend(given_up.map(|position| (id, position)));
    }

    /// First contents that are there from the start: of tables that failed in an earlier run, which have none.
    pub(crate) fn take_unannounced(&mut self) -> Vec<(ObjectId, Offsets)> {
        std::mem::take(&mut self.unannounced)
    }

    /// Adds the tables that the source starts with. `resume_from`: what is in the commit point.
    pub(crate) fn start(
        &mut self,
        tables: Vec<(SourceTable, SchemaRef)>,
        resume_from: Option<&Offsets>,
        snapshotted: &[ObjectId],
    ) {
        if let Some(resumed) = resume_from {
            self.received.clone_from(resumed);
            self.upstream.clone_from(resumed);
            self.taken.clone_from(resumed);
            self.acknowledged.clone_from(resumed);
            self.has_begun = true;
            self.is_complete = true;
        }
        for (table, schema) in tables {
            let (snapshot, since) = match resume_from {
                None => (Snapshot::Pending(Reading::Main), Offsets::new()),
                Some(resumed) if snapshotted.contains(&table.id) => {
                    (Snapshot::Committed, resumed.clone())
                }
                Some(resumed) => (Snapshot::Pending(Reading::Early(0)), resumed.clone()),
            };
            self.add_log(TableLog::new(table, schema, snapshot, Some(since)));
        }
    }

    /// Tables of updates with times that are in the commit point go on with the marks that were noted.
    pub(crate) fn resume_marks(&mut self, manifest: &Manifest) {
        let taken = self.taken.get(&0).copied().unwrap_or(0);
        let start = manifest.start.get(&0).copied().unwrap_or(0);
        let tables = self.logs.tables_mut().iter_mut();
        for log in tables.filter(|log| log.has_times && log.snapshot == Snapshot::Committed) {
            let mut marks = manifest.marks.iter();
            let noted = marks.find(|(table, mark)| *table == log.table.id && mark.next <= taken);
            log.marks = Marks::resumed(noted.map(|(_, mark)| *mark), start);
        }
    }

    /// With what the decoder of everybody's messages begins for a table of updates with times.
    pub(crate) fn begins(&self, id: ObjectId) -> Option<Mark> {
        self.logs.table(id)?.marks.begins()
    }

    /// Of tables of updates with times, the marks that the commit point covers. That one is in it may be known no sooner than something comes after it; until
    /// then its marks are noted as well, which count for nothing if it is not.
    pub(crate) fn marks(&mut self) -> Vec<(ObjectId, Mark)> {
        let Some(acknowledged) = self.acknowledged.get(&0).copied() else {
            return Vec::new();
        };
        let tables = self.logs.tables_mut().iter_mut();
        let is_bound =
            |log: &TableLog| matches!(log.snapshot, Snapshot::Bound { .. } | Snapshot::Committed);
        let bound = tables.filter(|log| log.has_times && is_bound(log));
        let marks = bound.filter_map(|log| {
            let mark = log.marks.covered(acknowledged)?;
            Some((log.table.id, mark))
        });
        marks.collect()
    }

    /// From where on a partition is read whose messages below `next` were received: some are shown again to who has to know them.
    pub(crate) fn reads_from(&self, partition: i32, next: i64) -> i64 {
        let tables = self.logs.tables().iter();
        let shown = tables.map(|log| log.shown_from(partition, next));
        shown.min().unwrap_or(next)
    }

    /// The messages of the first partition below `low` are gone. Tables that have to be shown some of them cannot go on.
    pub(crate) fn fail_lacking(&mut self, low: i64) -> Vec<(ObjectId, Failure)> {
        let Some(next) = self.received.get(&0).copied() else {
            return Vec::new();
        };
        let with_times = self.logs.tables().iter().filter(|log| log.has_times);
        let lacking: Vec<(ObjectId, i64)> = with_times
            .map(|log| (log.table.id, log.shown_from(0, next)))
            .filter(|(_, from)| *from < low.min(next))
            .collect();
        let mut failed = Vec::new();
        for (id, from) in lacking {
            let message = format!(
                "messages of partition 0 from offset {from} to {low} were removed, and may have updates at times that were not whole"
            );
            let failure = self.fail_table(id, message);
            failed.extend(failure.map(|(failure, _)| (id, failure)));
        }
        failed
    }

    /// Adds a table to the running source.
    pub(crate) fn add_table(&mut self, table: SourceTable, schema: SchemaRef) {
        let (reading, since) = if !self.has_begun {
            (Reading::Main, Some(Offsets::new()))
        } else if self.is_appending {
            (Reading::Early(0), None)
        } else {
            (Reading::Early(0), Some(self.received.clone()))
        };
        let snapshot = Snapshot::Pending(reading);
        self.add_log(TableLog::new(table, schema, snapshot, since));
    }

    /// What is asked for these tables beside the brokers is reached in another way.
    pub(crate) fn alter_tables(&mut self, tables: &[SourceTable]) {
        for table in tables {
            if let Some(log) = self.logs.table_mut(table.id) {
                log.table.upstream.clone_from(&table.upstream);
            }
        }
    }

    pub(crate) fn remove_tables(&mut self, ids: &[ObjectId]) {
        self.logs.remove(ids);
    }

    /// It is settled where the source begins and where its first content ends. Returns the tables whose first content is there already.
    pub(crate) fn begin(&mut self, start: &Offsets, target: &Offsets) -> Vec<ObjectId> {
        self.has_begun = true;
        if self.is_complete {
            return Vec::new();
        }
        self.target.clone_from(target);
        // Nobody is there to read for: tables that come read for themselves.
        let from = if self.logs.tables().is_empty() {
            target
        } else {
            start
        };
        join(&mut self.received, from);
        join(&mut self.upstream, target);
        let known = offsets::distance(start, target);
        for log in self.logs.tables_mut() {
            let counters = &mut log.account.counters;
            counters.snapshot_known = Some(known);
            counters.snapshot_staged.get_or_insert(0);
        }
        self.complete()
    }

    /// There is such a partition, which is read from here on unless it was before.
    pub(crate) fn add_partition(&mut self, partition: i32, start: i64) {
        raise(&mut self.received, partition, start);
        raise(&mut self.upstream, partition, start);
    }

    /// The messages of a partition below this are gone. Whether that is no loss, since there is no table that lacks them: they are passed over then.
    pub(crate) fn pass_over(&mut self, partition: i32, low: i64) -> bool {
        let is_no_loss = self.logs.tables().is_empty();
        if is_no_loss {
            self.add_partition(partition, low);
        }
        is_no_loss
    }

    /// Finds out whether all of the first content is there; returns the tables that have it now.
    fn complete(&mut self) -> Vec<ObjectId> {
        if self.is_complete || !self.has_begun || !covers(&self.received, &self.target) {
            return Vec::new();
        }
        self.is_complete = true;
        let mut complete = Vec::new();
        for log in self.logs.tables_mut() {
            if log.snapshot == Snapshot::Pending(Reading::Main) {
                log.snapshot = Snapshot::Read {
                    position: self.target.clone(),
                };
                log.account.counters.snapshot_staged = log.account.counters.snapshot_known;
                complete.push(log.table.id);
            }
        }
        complete
    }

    /// Which tables want which of the messages of a batch. To be followed by [`State::append`].
    pub(crate) fn wanted(&mut self, batch: &Batch) -> Vec<Want> {
        let mut received = 0;
        if batch.lane == Lane::Main {
            self.is_appending = true;
            received = self.received.get(&batch.partition).copied().unwrap_or(0);
        }
        let wanted = self.logs.tables().iter().filter_map(|log| {
            let (from, end) = log.wants(batch.lane, batch.partition)?;
            // What an earlier attempt of the reader has brought comes again.
            let first = batch.before(from.max(received));
            // Who has to know what was sent before is shown it, also if it fails behind what is received.
            let is_shown = log.is_watched && batch.lane == Lane::Main && received < end;
            let end = batch.before(end).max(first);
            if first == end && log.account.failure().is_some() && !is_shown {
                return None;
            }
            Some(Want {
                table: log.table.id,
                first,
                end,
            })
        });
        wanted.collect()
    }

    /// The messages of a batch are changes of tables now. Returns the tables whose first content is there with it, and up to where it is.
    pub(crate) fn append(
        &mut self,
        batch: &Batch,
        outcomes: Vec<(ObjectId, Outcome)>,
    ) -> Vec<(ObjectId, Offsets)> {
        let mut bytes = 0_u64;
        for (id, outcome) in outcomes {
            let Some(log) = self.table_mut(id) else {
                continue;
            };
            let is_pending = log.is_pending();
            let counters = &mut log.account.counters;
            counters.messages += outcome.messages;
            counters.bytes += outcome.bytes;
            if is_pending
                && let (Some(staged), Some(known)) =
                    (&mut counters.snapshot_staged, counters.snapshot_known)
            {
                *staged = staged.saturating_add(outcome.messages).min(known);
            }
            for messages in outcome.changes {
                bytes = bytes.saturating_add(log.append(batch.lane, messages));
            }
            if let Some(mark) = outcome.mark {
                log.note(batch.lane, mark);
            }
        }
        match batch.lane {
            Lane::Early(generation) if batch.finished => self.end_early(generation),
            Lane::Early(_) => Vec::new(),
            Lane::Main => {
                let ends = [batch.next(), batch.reached];
                if let Some(next) = ends.into_iter().flatten().max() {
                    raise(&mut self.received, batch.partition, next);
                    raise(&mut self.upstream, batch.partition, next);
                    let logs = self.logs.tables_mut().iter_mut();
                    logs.for_each(|log| log.reach(batch.partition, next));
                }
                if bytes > 0 {
                    let received = offsets::position(&self.received);
                    self.logs.offers.add(received, bytes);
                }
                self.is_appending = false;
                for log in self.logs.tables_mut() {
                    log.since.get_or_insert_with(|| self.received.clone());
                }
                let complete = self.complete().into_iter();
                complete.map(|id| (id, self.target.clone())).collect()
            }
        }
    }

    /// A reader for some tables alone has read everything. Those that have to know what was sent before are not there yet if everybody is further meanwhile.
    fn end_early(&mut self, generation: u64) -> Vec<(ObjectId, Offsets)> {
        let mut complete = Vec::new();
        let mut behind = None;
        for log in self.logs.tables_mut() {
            if log.snapshot != Snapshot::Pending(Reading::Early(generation)) {
                continue;
            }
            if let Some(joins) = &mut log.joins
                && !covers(joins, &self.received)
            {
                behind = Some(std::mem::replace(joins, self.received.clone()));
                continue;
            }
            let position = log.since.clone().unwrap_or_default();
            if let Some(meet) = log.joins.as_ref().and_then(|joins| joins.get(&0)) {
                log.marks.reach(*meet);
            }
            log.account.counters.snapshot_staged = log.account.counters.snapshot_known;
            complete.push((log.table.id, position.clone()));
            log.snapshot = Snapshot::Read { position };
        }
        self.held = None;
        if let Some(from) = behind {
            self.rounds += 1;
            let lacking = offsets::distance(&from, &self.received);
            if lacking <= HOLD_WITHIN || self.rounds > ROUNDS_FREE {
                self.held = Some(generation);
            }
            self.behind = Some((generation, from));
        }
        complete
    }

    /// Whether batches that everybody reads have to wait, so that a table which joins gets to where everybody is.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some_and(|generation| {
            let mut logs = self.logs.tables().iter();
            logs.any(|log| log.is_read_by(generation))
        })
    }

    /// Nobody waits for a table that joins any more.
    pub(crate) fn release(&mut self) {
        self.held = None;
    }

    /// Whether a reader for some tables alone is to read on.
    pub(crate) const fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Whether a lane of some tables alone still goes on for a table.
    pub(crate) fn is_read_for(&self, id: ObjectId, lane: Lane) -> bool {
        let Lane::Early(generation) = lane else {
            return false;
        };
        let log = self.logs.table(id);
        log.is_some_and(|log| log.is_read_by(generation))
    }

    /// What a reader for some tables alone has to read now, if it was behind everybody where it ended.
    fn read_on(&mut self) -> Option<Early> {
        let (generation, from) = self.behind.take()?;
        let mut early = Early {
            generation,
            tables: Vec::new(),
            from: Some(from),
            until: Offsets::new(),
        };
        let logs = self.logs.tables().iter();
        for log in logs.filter(|log| log.is_read_by(generation)) {
            join(&mut early.until, log.joins.as_ref()?);
            early.tables.push(log.table.id);
        }
        (!early.tables.is_empty()).then_some(early)
    }

    /// Begins to read for the tables that need a reader of their own, or reads on, if there are any and it is settled where the others are.
    pub(crate) fn begin_early(&mut self, start: &Offsets) -> Option<Early> {
        if let Some(early) = self.read_on() {
            return Some(early);
        }
        self.release();
        let waits = |log: &TableLog| {
            log.is_pending()
                && log.since.is_some()
                && matches!(log.snapshot, Snapshot::Pending(Reading::Early(_)))
        };
        if !self.logs.tables().iter().any(waits) {
            return None;
        }
        self.generation += 1;
        self.rounds = 0;
        let mut early = Early {
            generation: self.generation,
            tables: Vec::new(),
            from: None,
            until: Offsets::new(),
        };
        let tables = self.logs.tables_mut().iter_mut();
        for log in tables.filter(|log| waits(log)) {
            let until = log.begin_early(early.generation, start, &self.received);
            join(&mut early.until, &until);
            early.tables.push(log.table.id);
        }
        Some(early)
    }

    /// A table cannot go on. What was received before still counts. Returns also where its first content ends, if that was still to come from a reader of its
    /// own: there is nothing to be waited for, and the error is there, so that nobody sees a part of it.
    pub(crate) fn fail_table(
        &mut self,
        id: ObjectId,
        message: String,
    ) -> Option<(Failure, Option<Offsets>)> {
        let log = self.logs.table_mut(id)?;
        let is_early = matches!(log.snapshot, Snapshot::Pending(Reading::Early(_)));
        let reached = match &log.since {
            Some(since) if is_early => since.clone(),
            _ => self.received.clone(),
        };
        let failure = Failure {
            message,
            keep: None,
            position: ordinal(&reached),
            offsets: Some(reached.clone()),
        };
        if !log.account.fail_no_later(failure.clone()) {
            return None;
        }
        let mut complete = None;
        if is_early {
            complete = Some(reached.clone());
            log.snapshot = Snapshot::Read { position: reached };
        }
        self.logs.record_failure(id, &failure);
        Some((failure, complete))
    }

    pub(crate) fn acknowledge(&mut self, position: &Offsets) {
        join(&mut self.acknowledged, position);
        let position = ordinal(position);
        for log in self.logs.tables_mut() {
            // An earlier epoch may have been bound at the same position: only a later one proves that this one was committed.
            if matches!(log.snapshot, Snapshot::Bound { bound_at } if bound_at < position) {
                log.snapshot = Snapshot::Committed;
            }
            log.account.row_errors.acknowledge(position);
        }
    }

    /// Whether more may be taken in, and what has to happen before if not.
    pub(crate) fn pressure(&self) -> Pressure {
        let waits = self.waiting_for.as_ref().is_some_and(|(position, named)| {
            self.lacks(&Binding {
                position,
                snapshots: named,
            })
        });
        let takeable = self.is_complete && !self.logs.offers.is_empty() && !waits;
        self.logs.pressure(takeable)
    }

    /// The position up to which messages are offered to be taken at once; `None` before the first content is there.
    pub(crate) fn offered(&self) -> Option<Offsets> {
        if !self.is_complete {
            return None;
        }
        Some(
            match self.logs.offers.within(self.logs.limits.memory_bytes) {
                // What was bound before a restart is bound again, however much it is.
                Some(SourcePosition::KafkaOffsets(offered)) => {
                    let mut offered = offered.clone();
                    for (partition, taken) in &self.taken {
                        let received = self.received.get(partition).copied().unwrap_or(0);
                        raise(&mut offered, *partition, received.min(*taken));
                    }
                    offered
                }
                _ => self.received.clone(),
            },
        )
    }

    /// Up to where messages were promised: what is in the commit point, what a take waits for, and the first content as long as it is not there.
    pub(crate) fn promised(&self) -> Offsets {
        let mut promised = self.received.clone();
        if !self.is_complete {
            join(&mut promised, &self.target);
        }
        if let Some((position, _)) = &self.waiting_for {
            join(&mut promised, position);
        }
        promised
    }
}

impl Shared {
    /// Tables have come or gone: looks whether headers are needed.
    pub(crate) fn look_at_headers(&self) {
        let needed = self.lock().tables().iter().any(|log| {
            upstream::decode(&log.table).is_ok_and(|table| {
                let asks = |include: &Include| {
                    matches!(include, Include::Headers | Include::Header { .. })
                };
                table.include.iter().any(asks)
                    || matches!(table.on_decode_error, OnDecodeError::DeadLetter { .. })
            })
        });
        self.own.needs_headers.store(needed, Ordering::Relaxed);
    }

    pub(crate) fn needs_headers(&self) -> bool {
        self.own.needs_headers.load(Ordering::Relaxed)
    }

    /// Tables have come or gone, or are described in another way: who waits with one of them in the way tries again.
    pub(crate) fn tables_changed(&self) {
        let tables = &self.own.tables;
        tables.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Hears of [`Shared::tables_changed`] from now on.
    pub(crate) fn watch_tables(&self) -> watch::Receiver<u64> {
        self.own.tables.subscribe()
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        let standing = self.own.standing.lock();
        standing.unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader says what it is. Tells what the source is with it.
    pub(crate) async fn reader_is(&self, status: SourceStatus) {
        self.standing().set_reader(status);
        self.tell_standing().await;
    }

    /// The decoders say what stands in their way, if anything. Tells what the source is with it.
    pub(crate) async fn decoders_are(&self, stalled: Option<SourceStatus>) {
        self.standing().set_decoders(stalled);
        self.tell_standing().await;
    }

    /// Tells what the source is. Both sides may do so at once: whoever was last has looked afterwards whether it is still so.
    async fn tell_standing(&self) {
        loop {
            let status = self.standing().status();
            self.status(self.id, status.clone()).await;
            let now = self.standing().status();
            if now == status {
                return;
            }
        }
    }

    /// The calling thread is the reader.
    pub(crate) fn set_reader(&self) {
        let mut reader = self
            .own
            .reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *reader = Some(std::thread::current());
    }

    /// There may be something to be done for the reader.
    pub(crate) fn wake_reader(&self) {
        let reader = self
            .own
            .reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = &*reader {
            reader.unpark();
        }
    }

    /// Announces first contents that are there.
    pub(crate) async fn announce(&self, complete: Vec<(ObjectId, Offsets)>) {
        for (table, position) in complete {
            self.send(SourceEvent::Snapshot {
                source: self.id,
                tables: vec![table],
                position: SourcePosition::KafkaOffsets(position),
            })
            .await;
            self.status(table, SourceStatus::Running).await;
        }
    }
}

#[cfg(test)]
mod tests;
