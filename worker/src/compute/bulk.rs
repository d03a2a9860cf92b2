//! What is too much to enter at once: a COPY of many rows, a large transaction, a snapshot.
//!
//! Owns what was set aside when its epoch was run, and enters it in pieces between the epochs that follow, which do not wait for it. Must not know where it comes
//! from. Called by the compute and, when nothing else waits, by the router.
//!
//! Invariants. Until all of it is there its collection, and what is computed from it, cannot be read ([`super::held`]); what changes the collection meanwhile
//! comes behind it. The pieces are changes of the epochs in whose time they enter, so that the epochs from the first set aside to the last piece are passed over
//! ([`super::lanes::Jump`]): nobody reads these collections at them. While something is set aside no epoch from the first on is committed,
//! and afterwards none before the last piece: a commit of one in between would have a part.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use arrow_array::RecordBatch;
use flowstone_dataflow::CollectionInput;
use flowstone_storage::StagedSnapshot;
use flowstone_types::{DeltaBatch, Epoch, ObjectId, SourceChanges};
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;

use super::held::Release;
use super::ticks::{bytes_of, pieces};
use super::{Compute, EpochOutput};
use crate::Error;
use crate::feed::EpochInput;

/// A collection with more to enter in one epoch has it set aside.
const ROWS_AT_ONCE: usize = 65_536;
const BYTES_AT_ONCE: usize = 16 << 20;

/// What enters in one piece, unless a single row has more bytes: a few milliseconds of work.
const PIECE_ROWS: usize = 8192;
const PIECE_BYTES: usize = 2 << 20;

/// The rows of a snapshot that are still to be read. Nobody shares them.
type Rows = Mutex<BoxStream<'static, Result<RecordBatch, flowstone_storage::Error>>>;

enum Load {
    Piece(CollectionInput),
    /// Not completed: what its updates leave out may be in what comes before.
    Upstream(Vec<SourceChanges>),
    Snapshot(StagedSnapshot, Option<Rows>),
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Piece(_) => "Piece",
            Self::Upstream(_) => "Upstream",
            Self::Snapshot(..) => "Snapshot",
        })
    }
}

/// What was set aside, in order.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    queue: VecDeque<(ObjectId, Load)>,
    /// How much of each collection.
    left: BTreeMap<ObjectId, usize>,
    /// The first epoch of which something was set aside since there was nothing.
    first: Epoch,
    /// When the last of it was there, the last time.
    last: Epoch,
}

impl Bulk {
    /// The collections that lack something.
    pub(super) fn collections(&self) -> impl Iterator<Item = ObjectId> {
        self.left.keys().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The newest epoch through which everything is complete.
    pub(super) fn complete_through(&self, base: Epoch) -> Epoch {
        if self.left.is_empty() {
            base
        } else {
            base.min(self.first.previous())
        }
    }

    /// Before it no epoch has everything that belongs to it and nothing else, as far as stored tables go.
    pub(super) const fn last(&self) -> Epoch {
        self.last
    }

    pub(super) fn forget(&mut self, id: ObjectId) {
        if self.left.remove(&id).is_some() {
            self.queue.retain(|(other, _)| *other != id);
        }
    }

    fn set_aside(&mut self, epoch: Epoch, id: ObjectId, load: Load) {
        if self.left.is_empty() {
            self.first = epoch;
        }
        *self.left.entry(id).or_default() += 1;
        self.queue.push_back((id, load));
    }

    fn set_aside_input(&mut self, epoch: Epoch, id: ObjectId, input: CollectionInput) {
        for (piece, _) in pieces(input, PIECE_BYTES, PIECE_ROWS) {
            self.set_aside(epoch, id, Load::Piece(piece));
        }
    }
}

impl Compute {
    /// Takes out of an epoch's input what is too much to enter at once, and what comes behind something that was.
    pub(super) fn set_aside(&mut self, epoch: Epoch, input: &mut EpochInput) {
        let mut sizes: BTreeMap<ObjectId, (usize, usize)> = BTreeMap::new();
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
        for (id, rows) in direct.chain(upstream) {
            let (count, bytes) = sizes.entry(id).or_default();
            *count += rows.num_rows();
            // What batches share is only counted where it may matter.
            if rows.get_array_memory_size() > BYTES_AT_ONCE {
                *bytes = bytes.saturating_add(bytes_of(rows));
            }
        }
        let large = |id: &ObjectId| {
            sizes
                .get(id)
                .is_some_and(|(rows, bytes)| *rows > ROWS_AT_ONCE || *bytes > BYTES_AT_ONCE)
        };
        let before = self.bulk.left.len();
        for (table, staged) in std::mem::take(&mut input.snapshots) {
            self.bulk
                .set_aside(epoch, table, Load::Snapshot(staged, None));
        }
        for (id, changes) in std::mem::take(&mut input.direct) {
            if large(&id) || self.bulk.left.contains_key(&id) {
                self.bulk.set_aside_input(epoch, id, changes);
            } else {
                input.direct.push((id, changes));
            }
        }
        for (id, changes) in std::mem::take(&mut input.upstream) {
            if large(&id) || self.bulk.left.contains_key(&id) {
                self.bulk.set_aside(epoch, id, Load::Upstream(changes));
            } else {
                input.upstream.push((id, changes));
            }
        }
        if self.bulk.left.len() > before {
            self.spread_hold(Release::Late);
        }
    }

    /// Whether something was set aside.
    pub(crate) fn has_set_aside(&self) -> bool {
        !self.bulk.is_empty()
    }

    /// Enters a piece of what was set aside.
    pub(crate) async fn enter_a_piece(&mut self) -> Result<EpochOutput, Error> {
        let mut output = EpochOutput::default();
        while self.is_behind() {
            let heard = self.hear().await;
            output.append(self.heard(heard).await?);
        }
        let Some((id, load)) = self.bulk.queue.pop_front() else {
            return Ok(output);
        };
        let epoch = self.last_run;
        let done = match load {
            Load::Piece(piece) => {
                self.tick(epoch, vec![(id, piece)], None, &mut output)
                    .await?;
                true
            }
            Load::Upstream(changes) => {
                let changes = self.complete_key_changes(id, changes).await?;
                let pieces = pieces(CollectionInput::Changes(changes), PIECE_BYTES, PIECE_ROWS);
                if let Some(left) = self.bulk.left.get_mut(&id) {
                    *left += pieces.len();
                }
                for (piece, _) in pieces.into_iter().rev() {
                    self.bulk.queue.push_front((id, Load::Piece(piece)));
                }
                true
            }
            Load::Snapshot(staged, rows) => {
                self.enter_snapshot(id, staged, rows, &mut output).await?
            }
        };
        // Who reads it finds out how far the lanes are.
        self.go_on().await?;
        if done && let Some(left) = self.bulk.left.get_mut(&id) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.bulk.left.remove(&id);
                self.bulk.last = epoch;
                let first = self.bulk.first;
                self.spread_hold(Release::PassedOver(first));
                self.show().await?;
                self.start_what_waited().await?;
            }
        }
        Ok(output)
    }

    /// Enters a piece of a snapshot. Its rows are committed by naming their files, not by writing them again. Returns whether that was the last.
    async fn enter_snapshot(
        &mut self,
        table: ObjectId,
        staged: StagedSnapshot,
        rows: Option<Rows>,
        output: &mut EpochOutput,
    ) -> Result<bool, Error> {
        let epoch = self.last_run;
        let mut rows = match rows {
            Some(rows) => rows,
            None => {
                let schema = self.schema_of(table)?;
                Mutex::new(self.delta.read_staged(&staged, schema).await?)
            }
        };
        let (mut piece, mut count) = (Vec::new(), 0);
        while count < PIECE_ROWS {
            let Some(batch) = rows.get_mut().next().await.transpose()? else {
                break;
            };
            count += batch.num_rows();
            piece.push(DeltaBatch::insert(batch, epoch));
        }
        let last = piece.is_empty();
        if last {
            output.snapshots.push((table, epoch, staged));
        } else {
            let load = Load::Snapshot(staged, Some(rows));
            self.bulk.queue.push_front((table, load));
            let input = vec![(table, CollectionInput::Deltas(piece))];
            self.tick(epoch, input, Some(table), output).await?;
        }
        Ok(last)
    }
}
