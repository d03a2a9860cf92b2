//! What a sink has yet to write, as a pure state machine.
//!
//! Owns what is known of the topic, the changes of commits that are not in it, and what is to be done next. Must not know topics, tables or tasks. Called by the
//! keep, which says what is committed, and by the task of a sink, which says what it has done.
//!
//! Invariants. The changes that wait lead from one content to the next without a gap, the first of them from `base`. They are written only if the topic holds
//! just that; else what is between is found by comparing what the topic holds with `base`, both of which are versions of tables. So changes may be
//! forgotten at any time: it costs reading the tables, and nothing else.

use std::collections::VecDeque;

use flowstone_ingest::sink::Progress;
use flowstone_types::{DeltaBatch, Epoch, ObjectId};

use crate::size::bytes_of;

/// How much waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of changes; with more all of them are forgotten.
    pub(super) bytes_max: usize,
    /// With more those that wait while nothing can be written are put together.
    pub(super) merge_bytes: usize,
    /// Bytes of changes in a transaction, unless one commit has more.
    pub(super) transaction_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 128 << 20,
            merge_bytes: 16 << 20,
            transaction_bytes: 32 << 20,
        }
    }
}

/// The changes of a collection in a commit, or in several.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// What they lead to.
    pub(super) to: Progress,
    pub(super) deltas: Vec<DeltaBatch>,
    bytes: usize,
}

/// What is known of the topic.
#[derive(Clone, Copy, Debug)]
enum Topic {
    /// It has to be asked.
    Unknown,
    Empty,
    Holds(Progress),
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) enum Next {
    /// The topic has to be asked what it holds.
    Open,
    /// It is not known yet what the sink begins with.
    Unsettled,
    /// Everything is written.
    Wait,
    /// Nothing may be written for now.
    Blocked(String),
    /// The topic holds what does not exist yet: somebody else's, or from before a backup was restored.
    Ahead(Progress),
    /// The topic is to say that it holds this, and nothing else: what there was is not written.
    Mark(Progress),
    /// These changes, in one transaction.
    Write(Vec<DeltaBatch>, Progress),
    /// What is between two contents; all of the second if there is no first.
    Difference(Option<Progress>, Progress),
}

/// What a sink has yet to write.
#[derive(Debug)]
pub(super) struct Backlog {
    from: ObjectId,
    /// Whether what there is at the beginning is written.
    snapshot: bool,
    /// Not before this epoch the collection has its rows.
    settles_at: Epoch,
    /// Changes up to here belong to the beginning.
    skip_through: Epoch,
    topic: Topic,
    /// The first base.
    origin: Option<Progress>,
    base: Option<Progress>,
    cuts: VecDeque<Cut>,
    bytes: usize,
    /// The commit point.
    durable: Epoch,
    blocked: Option<String>,
    limits: Limits,
}

impl Backlog {
    /// Of a sink that has just been made, or comes back at the commit point `durable`.
    pub(super) fn new(
        from: ObjectId,
        snapshot: bool,
        as_of: Option<Epoch>,
        durable: Epoch,
        limits: Limits,
    ) -> Self {
        let as_of = as_of.unwrap_or(Epoch::MIN);
        // Without the snapshot what counts is what comes after, and not what there was.
        // What a source gives late has the epoch that was run last, which may be this one: it was bound before the sink was made, and nobody could read the
        // collection without it. So it is what there was.
        let (settles_at, skip_through) = if snapshot {
            (as_of, Epoch::MIN)
        } else {
            (Epoch::MIN, as_of)
        };
        Self {
            from,
            snapshot,
            settles_at,
            skip_through,
            topic: Topic::Unknown,
            origin: None,
            base: None,
            cuts: VecDeque::new(),
            bytes: 0,
            durable,
            blocked: None,
            limits,
        }
    }

    /// It comes back after a restart, and began with this. If nothing was ever written and the first content is not, the changes since then are. Those between the
    /// commit and the moment at which the sink was made are among them: versions of tables do not tell them apart.
    #[must_use]
    pub(super) fn begun_with(mut self, begin: Option<Progress>) -> Self {
        self.origin = begin.filter(|begin| begin.collection == self.from);
        self
    }

    /// Another collection is written once it has its rows, which it has at `as_of`.
    pub(super) fn alter(&mut self, from: ObjectId, as_of: Option<Epoch>) {
        self.from = from;
        self.settles_at = as_of.unwrap_or(Epoch::MIN);
        self.skip_through = Epoch::MIN;
        self.origin = None;
        self.base = None;
        self.blocked = None;
        self.cuts.clear();
        self.bytes = 0;
    }

    /// The sink cannot go on until it is altered: nothing waits for it any more.
    pub(super) fn close(&mut self) {
        self.alter(self.from, Some(Epoch::MAX));
        self.lost();
    }

    /// Whether it cannot go on until it is altered.
    pub(super) fn is_closed(&self) -> bool {
        self.settles_at == Epoch::MAX
    }

    pub(super) const fn is_settled(&self) -> bool {
        self.base.is_some()
    }

    /// The collection holds `now` at the commit point, which is what it holds at `epoch`.
    pub(super) fn pass(&mut self, now: Progress, epoch: Epoch) {
        self.durable = self.durable.max(now.epoch);
        if self.base.is_none() && now.collection == self.from && epoch >= self.settles_at {
            self.base = Some(now);
            self.origin.get_or_insert(now);
        }
    }

    /// A commit that is durable has changed the collection; `None`: in ways that are best seen by comparing.
    pub(super) fn changed(&mut self, to: Progress, deltas: Option<Vec<DeltaBatch>>) {
        self.durable = self.durable.max(to.epoch);
        if self.base.is_none() || to.collection != self.from {
            return;
        }
        let Some(mut deltas) = deltas else {
            self.forget(to);
            return;
        };
        let skip_through = self.skip_through;
        deltas.retain(|delta| delta.epoch > skip_through && !delta.is_empty());
        let bytes: usize = deltas.iter().map(|delta| bytes_of(&delta.rows)).sum();
        self.bytes = self.bytes.saturating_add(bytes);
        self.cuts.push_back(Cut { to, deltas, bytes });
        if self.bytes > self.limits.bytes_max {
            self.forget(to);
        }
    }

    /// What waits is found by comparing.
    fn forget(&mut self, to: Progress) {
        self.cuts.clear();
        self.bytes = 0;
        self.base = Some(to);
    }

    /// What waits is found by comparing with the newest content.
    pub(super) fn skip_to_newest(&mut self) {
        if let Some(last) = self.cuts.back() {
            let to = last.to;
            self.forget(to);
        }
    }

    /// Nothing may be written while there is a reason.
    pub(super) fn block(&mut self, reason: Option<String>) {
        self.blocked = reason;
    }

    /// The topic was asked.
    pub(super) fn opened(&mut self, found: Option<Progress>) {
        self.topic = found.map_or(Topic::Empty, Topic::Holds);
        let Some(found) = found else {
            return;
        };
        // A transaction may have been committed of which that was not known.
        let Some(base) = self.base.filter(|base| !base.is_content_of(&found)) else {
            return;
        };
        let held = self
            .cuts
            .iter()
            .position(|cut| cut.to.is_content_of(&found));
        if let Some(last) = held {
            self.advance(last + 1);
        } else if base.collection == found.collection && base.epoch < found.epoch {
            // It was put together with others meanwhile. What is between must not be found by going back to the base.
            self.skip_to_newest();
        }
    }

    /// What became of a transaction is not known.
    pub(super) const fn lost(&mut self) {
        self.topic = Topic::Unknown;
    }

    /// The topic holds this now.
    pub(super) fn wrote(&mut self, to: Progress) {
        self.topic = Topic::Holds(to);
        let is_written =
            |cut: &&Cut| cut.to.collection == to.collection && cut.to.epoch <= to.epoch;
        let count = self.cuts.iter().take_while(is_written).count();
        self.advance(count);
    }

    /// The base is what the first `count` changes lead to.
    fn advance(&mut self, count: usize) {
        for cut in self.cuts.drain(..count.min(self.cuts.len())) {
            self.bytes = self.bytes.saturating_sub(cut.bytes);
            self.base = Some(cut.to);
        }
    }

    /// What is to be done next.
    pub(super) fn next(&self) -> Next {
        if matches!(self.topic, Topic::Unknown) {
            return Next::Open;
        }
        let Some(base) = self.base else {
            return Next::Unsettled;
        };
        if let Some(reason) = &self.blocked {
            return Next::Blocked(reason.clone());
        }
        let held = match self.topic {
            Topic::Unknown => return Next::Open,
            Topic::Empty if self.snapshot => return Next::Difference(None, base),
            Topic::Empty => return Next::Mark(self.origin.unwrap_or(base)),
            Topic::Holds(held) => held,
        };
        if held.epoch > self.durable {
            return Next::Ahead(held);
        }
        if !held.is_content_of(&base) {
            return Next::Difference(Some(held), base);
        }
        let (mut deltas, mut bytes, mut to) = (Vec::new(), 0_usize, None);
        for cut in &self.cuts {
            bytes = bytes.saturating_add(cut.bytes);
            if to.is_some() && bytes > self.limits.transaction_bytes {
                break;
            }
            deltas.extend_from_slice(&cut.deltas);
            to = Some(cut.to);
        }
        to.map_or(Next::Wait, |to| Next::Write(deltas, to))
    }

    /// What the collection held at this epoch is in the topic.
    pub(super) fn written_through(&self) -> Option<Epoch> {
        let Topic::Holds(held) = self.topic else {
            return None;
        };
        match self.next() {
            Next::Wait => Some(self.durable.max(held.epoch)),
            _ => Some(held.epoch),
        }
    }

    /// All changes that wait, if they are many.
    pub(super) fn to_merge(&self) -> Option<(Vec<DeltaBatch>, Progress)> {
        let last = self.cuts.back()?;
        if self.bytes <= self.limits.merge_bytes || self.cuts.len() < 2 {
            return None;
        }
        let deltas = self.cuts.iter().flat_map(|cut| &cut.deltas);
        Some((deltas.cloned().collect(), last.to))
    }

    /// What is left of changes that were given to be put together. Some of them may be in a transaction of which it is not known what became: [`Backlog::opened`].
    pub(super) fn merged(&mut self, deltas: Vec<DeltaBatch>, to: Progress) {
        let Some(last) = self.cuts.iter().position(|cut| cut.to == to) else {
            // Forgotten meanwhile.
            return;
        };
        for cut in self.cuts.drain(..=last) {
            self.bytes = self.bytes.saturating_sub(cut.bytes);
        }
        let bytes: usize = deltas.iter().map(|delta| bytes_of(&delta.rows)).sum();
        self.bytes = self.bytes.saturating_add(bytes);
        self.cuts.push_front(Cut { to, deltas, bytes });
    }
}
