//! What is too much to enter at once: a COPY of many rows, a large transaction, a snapshot.
//!
//! Owns what was set aside when its epoch was run, and enters it in pieces between the epochs that follow, which do not wait for it. Must not know where it comes
//! from. Called by the compute and, when nothing else waits, by the router. The rows of a snapshot are read in a task of its own, a piece ahead: nothing here waits
//! for a disk, and what was not read yet does not enter.
//!
//! What of a transaction fits nowhere is not here as a whole: the feed gives a piece when the one before has entered ([`EpochInput::begun`]), and all collections
//! of its source lack something until it says that there are no more ([`EpochInput::ended`]).
//!
//! Invariants. Until all of it is there its collection, and what is computed from it, cannot be read ([`super::held`]); what changes the collection meanwhile
//! comes behind it. The pieces are changes of the epochs in whose time they enter, so that the epochs from the first set aside to the last piece are passed over
//! ([`super::lanes::Jump`]): nobody reads these collections at them. While something is set aside no epoch from the first on is committed,
//! and afterwards none before the last piece: a commit of one in between would have a part. The collections of a source are complete together. No write that
//! would be set aside gets an epoch while as much is as may: who writes waits, as the feed does with its next piece.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use flowstone_dataflow::CollectionInput;
use flowstone_proto::message::{CollectionDescription, Response};
use flowstone_storage::{DeltaTables, StagedSnapshot};
use flowstone_types::{DeltaBatch, Epoch, ObjectId, SourceChanges};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::ticks::pieces;
use super::{Compute, EpochOutput};
use crate::Error;
use crate::feed::EpochInput;
use crate::size::{BYTES_AT_ONCE, ROWS_AT_ONCE, bytes_of};

/// What enters in one piece, unless a single row has more bytes: a few milliseconds of work.
const PIECE_ROWS: usize = 8192;
const PIECE_BYTES: usize = 2 << 20;

/// What may wait to enter. A write that would be set aside while more does waits before anybody hears that it was evaluated: so no client adds to it.
const SET_ASIDE_BYTES: usize = 256 << 20;

/// Changes that are put together while they wait: more of them enter separately.
const JOINED_MAX: usize = 64;

/// A step with fewer rows is as much work as one with these.
const STEP_ROWS: usize = 128;

/// Pieces of a snapshot that are read before they are asked for; who reads waits then.
const PIECES_AHEAD: usize = 1;

/// A piece of a snapshot that was read, `None` behind the last, or why there is none.
type Piece = Result<Option<Vec<RecordBatch>>, Error>;

/// The rows of a snapshot that have yet to enter. Whoever reads them ends when this is dropped.
#[derive(Debug)]
struct Rows {
    pieces: mpsc::Receiver<Piece>,
    /// What enters next.
    next: Option<Piece>,
}

impl Rows {
    /// Begins to read a snapshot.
    fn read(
        delta: DeltaTables,
        staged: StagedSnapshot,
        schema: SchemaRef,
        tasks: &TaskTracker,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        tasks.spawn(async move {
            tokio::select! {
                // The table was dropped.
                () = sender.closed() => {}
                () = read_pieces(&delta, &staged, schema, &sender) => {}
            }
        });
        Self { pieces, next: None }
    }

    /// There is nothing that could be read.
    fn refused(error: Error) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        // There is room for one.
        drop(sender.try_send(Err(error)));
        Self { pieces, next: None }
    }

    /// Waits until something was read; for ever while what was read before has yet to enter.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn wait(&mut self) {
        if self.next.is_some() {
            return std::future::pending().await;
        }
        let next = self.pieces.recv().await;
        let gone = || flowstone_storage::Error::Invariant("a snapshot has no end".to_owned());
        self.next = Some(next.unwrap_or_else(|| Err(gone().into())));
    }
}

/// Reads a snapshot, piece by piece, as long as somebody takes them.
async fn read_pieces(
    delta: &DeltaTables,
    staged: &StagedSnapshot,
    schema: SchemaRef,
    pieces: &mpsc::Sender<Piece>,
) {
    let mut rows = match delta.read_staged(staged, schema).await {
        Ok(rows) => rows,
        Err(error) => {
            drop(pieces.send(Err(error.into())).await);
            return;
        }
    };
    loop {
        let piece = read_piece(&mut rows).await;
        let is_last = !matches!(piece, Ok(Some(_)));
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

async fn read_piece(
    rows: &mut BoxStream<'static, Result<RecordBatch, flowstone_storage::Error>>,
) -> Piece {
    let (mut piece, mut count) = (Vec::new(), 0);
    while count < PIECE_ROWS {
        let Some(batch) = rows.next().await.transpose()? else {
            break;
        };
        count += batch.num_rows();
        piece.push(batch);
    }
    Ok((!piece.is_empty()).then_some(piece))
}

enum Load {
    Piece(CollectionInput),
    /// Not completed: what its updates leave out may be in what comes before.
    Upstream(Vec<SourceChanges>),
    Snapshot(StagedSnapshot, Option<Rows>),
    /// Nothing more comes of a source, in the place of a collection.
    End,
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Piece(_) => "Piece",
            Self::Upstream(_) => "Upstream",
            Self::Snapshot(..) => "Snapshot",
            Self::End => "End",
        })
    }
}

impl Load {
    /// Puts what comes behind it to it if both together are little, or gives it back.
    fn join(&mut self, load: Self) -> Option<Self> {
        let ([count, rows, bytes], [more, more_rows, more_bytes]) = (self.size(), load.size());
        let count = count.saturating_add(more);
        let rows = rows.saturating_add(more_rows);
        let bytes = bytes.saturating_add(more_bytes);
        if count > JOINED_MAX || rows > PIECE_ROWS || bytes > PIECE_BYTES {
            return Some(load);
        }
        match (self, load) {
            (Self::Upstream(before), Self::Upstream(after))
            | (
                Self::Piece(CollectionInput::Changes(before)),
                Self::Piece(CollectionInput::Changes(after)),
            ) => before.extend(after),
            (
                Self::Piece(CollectionInput::Deltas(before)),
                Self::Piece(CollectionInput::Deltas(after)),
            ) => before.extend(after),
            (_, load) => return Some(load),
        }
        None
    }

    /// How many batches, rows and bytes it has, where that is known.
    fn size(&self) -> [usize; 3] {
        let of = |batches: &mut dyn Iterator<Item = &RecordBatch>| {
            batches.fold([0; 3], |[count, rows, bytes], batch| {
                let bytes = bytes_of(batch).saturating_add(bytes);
                [count + 1, rows + batch.num_rows(), bytes]
            })
        };
        match self {
            Self::Upstream(changes) | Self::Piece(CollectionInput::Changes(changes)) => {
                of(&mut changes.iter().map(|changes| &changes.rows))
            }
            Self::Piece(CollectionInput::Deltas(deltas)) => {
                of(&mut deltas.iter().map(|delta| &delta.rows))
            }
            Self::Piece(CollectionInput::Errors(_)) | Self::Snapshot(..) | Self::End => [0; 3],
        }
    }

    /// What the step that comes next is as work, in rows of a piece.
    fn cost(&self) -> usize {
        if matches!(self, Self::Snapshot(..)) {
            return PIECE_ROWS;
        }
        let [_, rows, bytes] = self.size();
        let as_rows = bytes / (PIECE_BYTES / PIECE_ROWS);
        rows.max(as_rows).max(STEP_ROWS)
    }
}

/// What a collection lacks.
#[derive(Clone, Copy, Debug)]
struct Left {
    /// How much, counting a source that has more as one.
    count: usize,
    /// The first epoch that lacks it.
    first: Epoch,
}

/// What was set aside, in order.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    queue: VecDeque<(ObjectId, Load)>,
    left: BTreeMap<ObjectId, Left>,
    /// Sources that have more, and their collections.
    open: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    /// When the last of it was there, the last time.
    last: Epoch,
    /// The work to be done before the next epoch, in rows of a piece.
    due: usize,
}

impl Bulk {
    /// The collections that lack something, and the first epoch of each that does.
    pub(super) fn lacking(&self) -> impl Iterator<Item = (ObjectId, Epoch)> {
        self.left.iter().map(|(id, left)| (*id, left.first))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The newest epoch through which everything is complete.
    pub(super) fn complete_through(&self, base: Epoch) -> Epoch {
        let lacking = self.left.values().map(|left| left.first.previous());
        lacking.fold(base, Epoch::min)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.left.is_empty()
    }

    /// Whether a source has more that belongs to `epoch` or to an earlier one: how long that takes is up to the disk.
    fn is_open_at(&self, epoch: Epoch) -> bool {
        let collections = self.open.values().flatten();
        let mut left = collections.filter_map(|id| self.left.get(id));
        left.any(|left| left.first <= epoch)
    }

    /// Before it no epoch has everything that belongs to it and nothing else, as far as stored tables go.
    pub(super) const fn last(&self) -> Epoch {
        self.last
    }

    /// A collection or a source is gone.
    pub(super) fn forget(&mut self, id: ObjectId) {
        let of_source = self.close(id);
        self.take_off(&of_source);
        for collections in self.open.values_mut() {
            collections.remove(&id);
        }
        self.left.remove(&id);
        self.queue.retain(|(other, _)| *other != id);
    }

    /// A source has more than enters at once.
    fn begin(&mut self, epoch: Epoch, source: ObjectId, collections: Vec<ObjectId>) {
        // What was the end is not.
        self.queue
            .retain(|(id, load)| *id != source || !matches!(load, Load::End));
        let open = self.open.entry(source).or_default();
        for id in collections {
            if open.insert(id) {
                add(&mut self.left, id, epoch);
            }
        }
    }

    /// A source has no more: that is so when everything before it has entered.
    fn end(&mut self, source: ObjectId) {
        if self.open.contains_key(&source) {
            self.queue.push_back((source, Load::End));
        }
    }

    /// The collections of a source that has no more.
    fn close(&mut self, source: ObjectId) -> Vec<ObjectId> {
        let collections = self.open.remove(&source).unwrap_or_default();
        collections.into_iter().collect()
    }

    /// One less is left of each. Returns whether one of them is complete.
    fn take_off(&mut self, ids: &[ObjectId]) -> bool {
        let mut complete = false;
        for id in ids {
            if let Some(left) = self.left.get_mut(id) {
                left.count = left.count.saturating_sub(1);
                if left.count == 0 {
                    self.left.remove(id);
                    complete = true;
                }
            }
        }
        complete
    }

    fn set_aside(&mut self, epoch: Epoch, id: ObjectId, load: Load) {
        // What was left of the time for something that has entered is not for this.
        if self.queue.is_empty() {
            self.due = 0;
        }
        add(&mut self.left, id, epoch);
        self.queue.push_back((id, load));
    }

    /// Sets aside what is little and comes behind something. Of each collection it is put together, and twice the work that it is becomes due: with every epoch
    /// more would wait than has entered, for as long as the collections that lack it are changed.
    fn set_behind(&mut self, epoch: Epoch, id: ObjectId, load: Load) {
        // It is completed, and what it is then enters.
        let steps = if matches!(load, Load::Upstream(_)) {
            2
        } else {
            1
        };
        let due = 2 * steps * load.cost();
        let last = self.queue.iter_mut().rev().find(|(other, _)| *other == id);
        let load = match last {
            Some((_, last)) => last.join(load),
            None => Some(load),
        };
        if let Some(load) = load {
            self.set_aside(epoch, id, load);
        }
        self.due = self.due.saturating_add(due);
    }

    /// Whether as much as may waits to enter, at most.
    fn has_room(&self) -> bool {
        let bytes = self.queue.iter().map(|(_, load)| {
            let [_, _, bytes] = load.size();
            bytes
        });
        bytes.fold(0, usize::saturating_add) <= SET_ASIDE_BYTES
    }

    /// Whether changes of an epoch would be set aside, all or some.
    fn would_set_aside(&self, changes: &[(ObjectId, DeltaBatch)]) -> bool {
        let sizes = sizes(changes.iter().map(|(id, delta)| (*id, &delta.rows)));
        sizes
            .into_iter()
            .any(|(id, size)| is_large(size) || self.left.contains_key(&id))
    }

    /// Whether what enters next is there: of a snapshot it may have yet to be read.
    fn is_ready(&self) -> bool {
        match self.queue.front() {
            Some((_, Load::Snapshot(_, rows))) => {
                rows.as_ref().is_some_and(|rows| rows.next.is_some())
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Waits until more of the snapshot that enters next was read, which begins here; for ever if it is there already, or something else enters next.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn wait(
        &mut self,
        delta: &DeltaTables,
        collections: &BTreeMap<ObjectId, CollectionDescription>,
        tasks: &TaskTracker,
    ) {
        let Some((table, Load::Snapshot(staged, rows))) = self.queue.front_mut() else {
            return std::future::pending().await;
        };
        let table = *table;
        let rows = rows.get_or_insert_with(|| match collections.get(&table) {
            Some(collection) => {
                let schema = Arc::clone(&collection.schema);
                Rows::read(delta.clone(), staged.clone(), schema, tasks)
            }
            None => Rows::refused(Error::UnknownObject(table)),
        });
        rows.wait().await;
    }

    /// What enters next, if it is there.
    fn next(&mut self) -> Option<(ObjectId, Load)> {
        if !self.is_ready() {
            return None;
        }
        let next = self.queue.pop_front();
        let cost = next.as_ref().map_or(self.due, |(_, load)| load.cost());
        self.due = self.due.saturating_sub(cost);
        next
    }

    /// At least a piece is due.
    fn allow_a_piece(&mut self) {
        self.due = self.due.max(PIECE_ROWS);
    }

    /// Whether more has to enter before the next epoch, and is there: no epoch waits for a disk.
    fn is_due(&self) -> bool {
        self.due > 0 && self.is_ready()
    }
}

/// A collection lacks something more from an epoch on.
fn add(left: &mut BTreeMap<ObjectId, Left>, id: ObjectId, epoch: Epoch) {
    let (count, first) = (0, epoch);
    left.entry(id).or_insert(Left { count, first }).count += 1;
}

/// How much enters of each collection, in rows and bytes.
fn sizes<'a>(
    changes: impl Iterator<Item = (ObjectId, &'a RecordBatch)>,
) -> BTreeMap<ObjectId, (usize, usize)> {
    let mut sizes: BTreeMap<ObjectId, (usize, usize)> = BTreeMap::new();
    for (id, rows) in changes {
        let (count, bytes) = sizes.entry(id).or_default();
        *count += rows.num_rows();
        // What batches share is only counted where it may matter.
        if rows.get_array_memory_size() > BYTES_AT_ONCE {
            *bytes = bytes.saturating_add(bytes_of(rows));
        }
    }
    sizes
}

/// Whether it is too much to enter at once.
const fn is_large((rows, bytes): (usize, usize)) -> bool {
    rows > ROWS_AT_ONCE || bytes > BYTES_AT_ONCE
}

impl Compute {
    /// Takes out of an epoch's input what is too much to enter at once, and what comes behind something that was.
    pub(super) fn set_aside(&mut self, epoch: Epoch, input: &mut EpochInput) {
        let direct = input.direct.iter().flat_map(|(id, input)| {
            let deltas = match input {
                CollectionInput::Deltas(deltas) => &deltas[..],
                _ => &[],
            };
            deltas.iter().map(|delta| (*id, &delta.rows))
        });
        let upstream = input.upstream.iter().flat_map(|(id, changes)| {
            let rows = changes.iter().map(|changes| &changes.rows);
            rows.map(|rows| (*id, rows))
        });
        let sizes = sizes(direct.chain(upstream));
        let large = |id: &ObjectId| sizes.get(id).copied().is_some_and(is_large);
        let before = self.bulk.left.len();
        for (source, collections) in std::mem::take(&mut input.begun) {
            self.bulk.begin(epoch, source, collections);
        }
        for (table, staged) in std::mem::take(&mut input.snapshots) {
            self.filling.insert(table, epoch);
            self.bulk
                .set_aside(epoch, table, Load::Snapshot(staged, None));
        }
        for (id, changes) in std::mem::take(&mut input.direct) {
            if large(&id) {
                for (piece, _) in pieces(changes, PIECE_BYTES, PIECE_ROWS) {
                    self.bulk.set_aside(epoch, id, Load::Piece(piece));
                }
            } else if self.bulk.left.contains_key(&id) {
                for (piece, _) in pieces(changes, PIECE_BYTES, PIECE_ROWS) {
                    self.bulk.set_behind(epoch, id, Load::Piece(piece));
                }
            } else {
                input.direct.push((id, changes));
            }
        }
        for (id, changes) in std::mem::take(&mut input.upstream) {
            if large(&id) {
                self.bulk.set_aside(epoch, id, Load::Upstream(changes));
            } else if self.bulk.left.contains_key(&id) {
                self.bulk.set_behind(epoch, id, Load::Upstream(changes));
            } else {
                input.upstream.push((id, changes));
            }
        }
        for source in std::mem::take(&mut input.ended) {
            self.bulk.end(source);
        }
        if self.bulk.left.len() > before {
            self.spread_hold();
        }
    }

    /// Whether a write with these changes has to wait: it would be set aside, and there is no room.
    pub(crate) fn has_no_room_for(&self, changes: &[(ObjectId, DeltaBatch)]) -> bool {
        !self.bulk.is_empty() && self.bulk.would_set_aside(changes) && !self.bulk.has_room()
    }

    /// Whether more may be set aside.
    pub(crate) fn has_room(&self) -> bool {
        self.bulk.has_room()
    }

    /// Whether something was set aside.
    pub(crate) fn has_set_aside(&self) -> bool {
        !self.bulk.is_empty()
    }

    /// Whether a piece of what was set aside can enter.
    pub(crate) fn has_a_piece(&self) -> bool {
        self.bulk.is_ready()
    }

    /// Whether a commit of `epoch` lacks what a source has yet to give.
    pub(crate) fn waits_for_source(&self, epoch: Epoch) -> bool {
        self.bulk.is_open_at(epoch)
    }

    /// Lets a piece of what was set aside enter however busy the base is, and what has to, or its collections would never be complete while they are changed.
    pub(crate) fn allow_a_piece(&mut self) {
        self.bulk.allow_a_piece();
    }

    /// Whether more has to enter before the next epoch.
    pub(crate) fn owes_a_piece(&self) -> bool {
        self.bulk.is_due()
    }

    /// Enters a piece of what was set aside. Not while [`Compute::is_behind`].
    pub(crate) async fn enter_a_piece(&mut self) -> Result<EpochOutput, Error> {
        let mut output = EpochOutput::default();
        let Some((id, load)) = self.bulk.next() else {
            return Ok(output);
        };
        let epoch = self.last_run;
        let entered = match load {
            Load::Piece(piece) => {
                self.tick(epoch, vec![(id, piece)], None, &mut output)
                    .await?;
                vec![id]
            }
            Load::Upstream(changes) => {
                let changes = self.complete_key_changes(id, changes).await?;
                let pieces = pieces(CollectionInput::Changes(changes), PIECE_BYTES, PIECE_ROWS);
                if let Some(left) = self.bulk.left.get_mut(&id) {
                    left.count += pieces.len();
                }
                for (piece, _) in pieces.into_iter().rev() {
                    self.bulk.queue.push_front((id, Load::Piece(piece)));
                }
                vec![id]
            }
            Load::Snapshot(staged, rows) => {
                let is_last = self.enter_snapshot(id, staged, rows, &mut output).await?;
                if is_last { vec![id] } else { Vec::new() }
            }
            Load::End => {
                let (source, behind) = (id, false);
                self.respond(Response::SourceBehind { source, behind })
                    .await;
                self.bulk.close(id)
            }
        };
        // Who reads it finds out how far the lanes are.
        self.go_on().await?;
        if self.bulk.take_off(&entered) {
            self.bulk.last = epoch;
            self.spread_hold();
            self.respond(Response::CameIn).await;
            self.show().await?;
            self.start_what_waited().await?;
        }
        Ok(output)
    }

    /// Enters a piece of a snapshot, if one was read. Its rows are committed by naming their files, not by writing them again. Returns whether that was the last.
    async fn enter_snapshot(
        &mut self,
        table: ObjectId,
        staged: StagedSnapshot,
        mut rows: Option<Rows>,
        output: &mut EpochOutput,
    ) -> Result<bool, Error> {
        let epoch = self.last_run;
        let read = rows.as_mut().and_then(|rows| rows.next.take());
        let mut piece = None;
        if let Some(read) = read {
            piece = read?;
            if piece.is_none() {
                output.snapshots.push((table, epoch, staged));
                return Ok(true);
            }
        }
        let load = Load::Snapshot(staged, rows);
        self.bulk.queue.push_front((table, load));
        if let Some(piece) = piece {
            let insert = |batch| DeltaBatch::insert(batch, epoch);
            let piece = piece.into_iter().map(insert).collect();
            let input = vec![(table, CollectionInput::Deltas(piece))];
            self.tick(epoch, input, Some(table), output).await?;
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
