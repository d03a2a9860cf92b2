//! What is known of one table: its changes by partition, and whether its first content is there. What is in error is in its account.
//!
//! Must not know brokers, other tables or how messages are decoded. Called under the source's lock: by the decoders, which append, and by takes, which cut.
//!
//! A table that is added to a running source has two logs for each partition: what was read for it alone, and what everybody reads from then on. They are cut
//! one behind the other before the next partition: where they meet is another place after a restart.
//!
//! They meet where everybody was when the table came; but if it has to be told what is sent again, where everybody is when its own reader has got there, since
//! that is told by what was sent before.
//!
//! A table that has failed wants what is below the place where it did, which may have been bound before a restart.
//!
//! Invariants. What a cut gives depends only on the messages below the position: partitions come in the order of their numbers, messages in that of their offsets.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_proto::message::SourceTable;

use super::batch::Lane;
use super::marks::{Mark, Marks};
use super::offsets::{Offsets, covers, distance, join, ordinal};
use super::upstream;
use crate::Error;
use crate::table_log::{Account, CutEnd, Failure, Log, TakenTable};
use crate::transactions::{Messages, TableTransactions};

/// Messages before the first that is wanted that are looked at to tell what a connector has sent again.
const LOOK_BACK: i64 = 10_000;

/// Who reads the first content of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Everybody's reader.
    Main,
    /// A reader of its own; which attempt, 0 if there was none.
    Early(u64),
}

/// What is known of a table's first content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Snapshot {
    /// It is being read.
    Pending(Reading),
    /// Everything below this is in the log.
    Read { position: Offsets },
    /// It was taken with a binding at `bound_at`; it is in a commit point once a later position is.
    Bound { bound_at: u64 },
    /// It is in a commit point.
    Committed,
}

/// Which of the logs of a partition; in the order in which they are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// What was read for the table alone.
    Early,
    /// What everybody reads.
    Main,
}

/// The log of one table.
#[derive(Debug)]
pub(crate) struct TableLog {
    pub(crate) table: SourceTable,
    pub(crate) schema: SchemaRef,
    pub(crate) snapshot: Snapshot,
    /// Where its first content ends, and everybody's reader begins to read for it unless `joins` says otherwise; `None` while that is not settled.
    pub(crate) since: Option<Offsets>,
    /// Where its own reader ends and everybody's begins, if it reads on behind the first content.
    pub(crate) joins: Option<Offsets>,
    /// Whether what is sent again has to be told. Then its messages are decoded one behind the other, and none that everybody reads before those of its own reader.
    pub(crate) is_watched: bool,
    /// Whether its messages are updates with times; they are in one partition then.
    pub(crate) has_times: bool,
    /// From where on it needs these again.
    pub(crate) marks: Marks,
    /// By partition first.
    logs: BTreeMap<(i32, Stage), TableTransactions>,
    /// The number of the next log.
    next: u64,
    /// Up to where was cut.
    pub(crate) cut_at: Offsets,
    pub(crate) account: Account,
}

impl TableLog {
    pub(crate) fn new(
        table: SourceTable,
        schema: SchemaRef,
        snapshot: Snapshot,
        since: Option<Offsets>,
    ) -> Self {
        Self {
            account: Account::new(&table),
            is_watched: upstream::is_watched(&table),
            has_times: upstream::has_times(&table),
            marks: Marks::default(),
            table,
            schema,
            snapshot,
            since,
            joins: None,
            logs: BTreeMap::new(),
            next: 0,
            cut_at: Offsets::new(),
        }
    }

    /// A reader of its own begins at `start`, while everybody is at `received`: what an earlier attempt has read is forgotten. Returns up to where it reads.
    pub(crate) fn begin_early(
        &mut self,
        generation: u64,
        start: &Offsets,
        received: &Offsets,
    ) -> Offsets {
        let mut until = self.since.clone().unwrap_or_default();
        self.joins = None;
        if self.is_watched {
            join(&mut until, received);
            self.joins = Some(until.clone());
        }
        let known = distance(start, &until);
        self.snapshot = Snapshot::Pending(Reading::Early(generation));
        self.logs.retain(|(_, stage), _| *stage != Stage::Early);
        self.marks = Marks::default();
        self.account.counters.snapshot_known = Some(known);
        self.account.counters.snapshot_staged = Some(0);
        until
    }

    /// The offset of a partition behind which it has failed.
    fn fails_at(&self, partition: i32) -> i64 {
        let Some(failure) = self.account.failure() else {
            return i64::MAX;
        };
        let reached = failure.offsets.as_ref();
        let reached = reached.and_then(|reached| reached.get(&partition));
        reached.copied().unwrap_or(0)
    }

    /// Which messages of a partition it wants from a lane: those from an offset on, before another.
    pub(crate) fn wants(&self, lane: Lane, partition: i32) -> Option<(i64, i64)> {
        let since = self.since.as_ref()?;
        let meet = self.joins.as_ref().unwrap_or(since);
        let meet = meet.get(&partition).copied().unwrap_or(0);
        match (lane, &self.snapshot) {
            (Lane::Main, Snapshot::Pending(Reading::Early(_))) if self.is_watched => None,
            (Lane::Main, _) => Some((meet, self.fails_at(partition))),
            (Lane::Early(this), Snapshot::Pending(Reading::Early(wanted))) if this == *wanted => {
                Some((0, meet.min(self.fails_at(partition))))
            }
            (Lane::Early(_), _) => None,
        }
    }

    /// From where on messages of a partition are to be shown to its decoder, if what everybody reads begins at `next`.
    pub(crate) fn shown_from(&self, partition: i32, next: i64) -> i64 {
        if !self.has_times {
            return if self.is_watched {
                next.saturating_sub(LOOK_BACK)
            } else {
                next
            };
        }
        // Its own reader shows it everything, and behind where it fails there is nothing to be known.
        let is_read_alone = matches!(self.snapshot, Snapshot::Pending(Reading::Early(_)));
        if partition != 0 || is_read_alone || next >= self.fails_at(partition) {
            return next;
        }
        let shown = self.marks.shown();
        shown.map_or(next, |shown| shown.min(next))
    }

    /// What its decoder knows after messages of a lane.
    pub(crate) fn note(&mut self, lane: Lane, mark: Mark) {
        let is_given_up = match lane {
            Lane::Main => false,
            Lane::Early(this) => self.snapshot != Snapshot::Pending(Reading::Early(this)),
        };
        if !is_given_up {
            self.marks.push(mark);
        }
    }

    /// Everybody's reader has brought everything of a partition up to an offset.
    pub(crate) fn reach(&mut self, partition: i32, next: i64) {
        let is_read_alone = matches!(self.snapshot, Snapshot::Pending(Reading::Early(_)));
        if self.has_times && partition == 0 && !is_read_alone {
            self.marks.reach(next);
        }
    }

    /// Whether its own reader, of this generation, reads for it.
    pub(crate) fn is_read_by(&self, generation: u64) -> bool {
        self.snapshot == Snapshot::Pending(Reading::Early(generation)) && self.is_pending()
    }

    /// Whether it fails no later than where its first content ends: nobody has to wait for that.
    fn fails_at_once(&self) -> bool {
        let Some(failure) = self.account.failure() else {
            return false;
        };
        match (&failure.offsets, &self.since) {
            (Some(reached), Some(since)) => !covers(reached, since) || reached == since,
            _ => true,
        }
    }

    /// It needs a reader of its own, and has failed in an earlier run before there was anything to be bound: returns where its first content, which is none,
    /// ends.
    pub(crate) fn give_up(&mut self) -> Option<Offsets> {
        let is_early = matches!(self.snapshot, Snapshot::Pending(Reading::Early(_)));
        if !is_early || !self.fails_at_once() {
            return None;
        }
        let position = self.since.clone()?;
        self.snapshot = Snapshot::Read {
            position: position.clone(),
        };
        Some(position)
    }

    /// Adds messages of a lane. Returns the bytes that they take in memory. What comes of an attempt that was given up while it was decoded is passed over: it is
    /// read again.
    pub(crate) fn append(&mut self, lane: Lane, messages: Messages) -> u64 {
        let stage = match lane {
            Lane::Main => Stage::Main,
            Lane::Early(this) if self.snapshot == Snapshot::Pending(Reading::Early(this)) => {
                Stage::Early
            }
            Lane::Early(_) => return 0,
        };
        let (next, schema, key) = (&mut self.next, &self.schema, &self.table.key);
        let log = self.logs.entry((messages.partition, stage));
        let log = log.or_insert_with(|| {
            *next += 1;
            TableTransactions::numbered(*next, Arc::clone(schema), key.clone())
        });
        log.append_messages(messages)
    }
}

impl Log for TableLog {
    type Position = Offsets;

    fn table(&self) -> &SourceTable {
        &self.table
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn account_mut(&mut self) -> &mut Account {
        &mut self.account
    }

    fn logs(&self) -> impl Iterator<Item = &TableTransactions> {
        self.logs.values()
    }

    fn logs_mut(&mut self) -> impl Iterator<Item = &mut TableTransactions> {
        self.logs.values_mut()
    }

    fn is_pending(&self) -> bool {
        matches!(self.snapshot, Snapshot::Pending(_)) && !self.fails_at_once()
    }

    fn can_be_cut(&self, named: bool) -> bool {
        named || matches!(self.snapshot, Snapshot::Bound { .. } | Snapshot::Committed)
    }

    fn bind(
        &mut self,
        position: &Offsets,
        _taken: &mut TakenTable,
    ) -> Result<Option<Failure>, Error> {
        match &self.snapshot {
            Snapshot::Read { position: end } if !covers(position, end) => {
                return Err(Error::Invariant(format!(
                    "first content of {} was bound below its end",
                    self.table.id
                )));
            }
            Snapshot::Read { .. } | Snapshot::Pending(_) => {
                let bound_at = ordinal(position);
                self.snapshot = Snapshot::Bound { bound_at };
            }
            Snapshot::Bound { .. } | Snapshot::Committed => {}
        }
        Ok(None)
    }

    fn end_cut(&mut self, position: u64) -> CutEnd {
        // Behind where it failed there is not everything, whatever the number says.
        let failure = self.account.failure();
        let reached = failure.and_then(|failure| failure.offsets.as_ref());
        let is_behind = reached.is_some_and(|reached| !covers(reached, &self.cut_at));
        let position = if is_behind { u64::MAX } else { position };
        let offsets = Some(self.cut_at.clone());
        self.account.end_cut(position, None, offsets)
    }
}
