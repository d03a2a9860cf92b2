//! A run of changes of one table: being filled, complete in memory, or on disk.
//!
//! Owns where transactions end in it and what it becomes when it is cut. Must not know its neighbours. Called by the log of its table.
//!
//! Invariants. Only an open segment gets rows. What is noted of rows is in their order. A segment on disk is read as it was written, and changed in
//! memory by what happened to it since.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow_array::RecordBatch;
use flowstone_types::{SourceChanges, SourceOp, SourcePosition, TypeError};
use serde::{Deserialize, Serialize};

use super::spill::SpillFile;
use super::{Refused, Usage};
use crate::Error;
use crate::row_errors::{BadCell, Notes, raw_text, shortened};
use crate::rows::{RowBuilder, Value};

/// Rows after which a segment is closed: with an upsert that must not be parted from its deletion they are 8 192, what one piece holds at most.
const SEGMENT_ROWS: usize = 8191;
/// The same in bytes, as they are counted here. Batches are hardly larger, so that a piece stays below 64 MB even where a row is wide.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// What a segment in memory costs at least, and what the end of a transaction in it costs, in bytes.
const SEGMENT_COST: u64 = 512;
const MARK_COST: u64 = 64;
/// What a cell costs that was left out, and one that could not be held, beside its texts.
const UNCHANGED_COST: u64 = 8;
const BAD_COST: u64 = 64;

/// Where a whole transaction ends within a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    position: SourcePosition,
    rows: u32,
    bytes: u64,
}

/// Where messages end in a segment of one partition of an upstream that numbers them: it can be cut after each, and has no marks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Steps {
    partition: i32,
    /// The offset after the message that emptied the table before the first row, if one did.
    emptied: Option<i64>,
    /// By row, the offset after its message: ascending, and equal for the rows of one message. On disk it is a column beside the rows.
    #[serde(skip)]
    pub(super) next: Vec<i64>,
}

impl Steps {
    /// How far a position is in the partition, if it knows it.
    fn reached(&self, position: &SourcePosition) -> Option<i64> {
        match position {
            SourcePosition::KafkaOffsets(offsets) => offsets.get(&self.partition).copied(),
            _ => None,
        }
    }

    /// The position after which there is everything up to `next` of the partition.
    fn position(&self, next: i64) -> SourcePosition {
        SourcePosition::KafkaOffsets(BTreeMap::from([(self.partition, next)]))
    }

    fn first(&self) -> Option<i64> {
        self.emptied.or(self.next.first().copied())
    }

    fn last(&self) -> Option<i64> {
        self.next.last().copied().or(self.emptied)
    }

    fn split(&mut self, rows: u32) -> Self {
        let rest = self.next.split_off(offset(rows).min(self.next.len()));
        Self {
            partition: self.partition,
            emptied: self.emptied.take(),
            next: std::mem::replace(&mut self.next, rest),
        }
    }
}

/// Changes of messages of one partition, in their order.
#[derive(Debug)]
pub(crate) struct Messages {
    pub(crate) partition: i32,
    /// The offset after the message that emptied the table before the first row, if one did.
    pub(crate) emptied: Option<i64>,
    pub(crate) rows: RecordBatch,
    pub(crate) ops: Vec<SourceOp>,
    /// By row, the offset after its message.
    pub(crate) next: Vec<i64>,
    pub(crate) unchanged: Vec<(u32, u16)>,
    pub(crate) notes: Notes,
}

impl Messages {
    /// Bytes that they take in memory.
    pub(super) fn size(&self) -> u64 {
        let noted = self.unchanged.len() * size_of::<(u32, u16)>() + self.notes.size();
        let beside = self.ops.len() * size_of::<SourceOp>() + self.next.len() * size_of::<i64>();
        let size = self.rows.get_array_memory_size() + beside + noted;
        u64::try_from(size).unwrap_or(u64::MAX)
    }
}

/// What a segment is beyond the values of its rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Outline {
    /// On disk they are a column beside the rows.
    #[serde(skip)]
    pub(super) ops: Vec<SourceOp>,
    unchanged: Vec<(u32, u16)>,
    notes: Notes,
    truncate_before: bool,
    marks: VecDeque<Mark>,
    bytes: u64,
    /// Instead of marks.
    #[serde(default)]
    pub(super) steps: Option<Steps>,
}

impl Outline {
    fn rows(&self) -> u32 {
        u32::try_from(self.ops.len()).unwrap_or(u32::MAX)
    }

    /// Whether it holds something of a transaction that has not ended.
    fn is_unfinished(&self) -> bool {
        match self.marks.back() {
            Some(mark) => self.rows() > mark.rows,
            None => self.steps.is_none() && !self.is_empty(),
        }
    }

    /// Where the first transaction or message in it ends, and where the last one does.
    fn ends(&self) -> (Option<SourcePosition>, Option<SourcePosition>) {
        let marked = |mark: Option<&Mark>| mark.map(|mark| mark.position.clone());
        match &self.steps {
            None => (marked(self.marks.front()), marked(self.marks.back())),
            Some(steps) => {
                let position = |next: Option<i64>| next.map(|next| steps.position(next));
                (position(steps.first()), position(steps.last()))
            }
        }
    }

    /// A mark after the first `rows` rows of messages. Bytes are shared out evenly.
    fn mark_after(&self, steps: &Steps, rows: usize) -> Mark {
        let next = rows.checked_sub(1).and_then(|last| steps.next.get(last));
        let next = next.copied().or(steps.emptied).unwrap_or(0);
        let part = u64::try_from(rows).unwrap_or(u64::MAX);
        let all = u64::from(self.rows()).max(1);
        Mark {
            position: steps.position(next),
            rows: u32::try_from(rows).unwrap_or(u32::MAX),
            bytes: (self.bytes / all).saturating_mul(part).min(self.bytes),
        }
    }

    /// How much of messages a position covers.
    fn reach_by_steps(&self, steps: &Steps, position: &SourcePosition) -> Reach {
        let Some(reached) = steps.reached(position) else {
            return Reach::Nothing;
        };
        if steps.emptied.is_some_and(|emptied| emptied > reached) {
            return Reach::Nothing;
        }
        match steps.next.partition_point(|next| *next <= reached) {
            rows if rows == self.ops.len() => Reach::All,
            0 if !self.truncate_before => Reach::Nothing,
            rows => Reach::UpTo(self.mark_after(steps, rows)),
        }
    }

    /// Where messages are to be parted so that the first part is not too large; `None` if all of it is not.
    fn overflow(&self) -> Option<Mark> {
        let steps = self.steps.as_ref()?;
        if self.ops.len() <= SEGMENT_ROWS {
            return None;
        }
        // Rows of a message stay together.
        let ends = |row: &usize| {
            let last = row.checked_sub(1).and_then(|last| steps.next.get(last));
            last.is_some() && last != steps.next.get(*row)
        };
        let before = (1..=SEGMENT_ROWS).rev().find(ends);
        let rows = before.or_else(|| (SEGMENT_ROWS..self.ops.len()).find(ends))?;
        Some(self.mark_after(steps, rows))
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty() && !self.truncate_before
    }

    /// The last transaction that ends at or before a position.
    fn last_through(&self, position: &SourcePosition) -> Option<&Mark> {
        let covered = |mark: &&Mark| position.covers(&mark.position);
        self.marks.iter().take_while(covered).last()
    }

    fn commit(&mut self, position: SourcePosition) {
        self.bytes += MARK_COST;
        let (rows, bytes) = (self.rows(), self.bytes);
        self.marks.push_back(Mark {
            position,
            rows,
            bytes,
        });
    }

    /// Splits off everything up to `mark`, which is one of its own.
    fn split(&mut self, mark: &Mark) -> Self {
        let rest = self.ops.split_off(offset(mark.rows).min(self.ops.len()));
        let ops = std::mem::replace(&mut self.ops, rest);
        let noted = self.unchanged.partition_point(|(row, _)| *row < mark.rows);
        let mut rest = self.unchanged.split_off(noted);
        rest.iter_mut().for_each(|(row, _)| *row -= mark.rows);
        let unchanged = std::mem::replace(&mut self.unchanged, rest);
        let notes = self.notes.split(mark.rows);
        let steps = self.steps.as_mut().map(|steps| steps.split(mark.rows));
        self.marks
            .retain(|other| !mark.position.covers(&other.position));
        for other in &mut self.marks {
            other.rows = other.rows.saturating_sub(mark.rows);
            other.bytes = other.bytes.saturating_sub(mark.bytes);
        }
        self.bytes = self.bytes.saturating_sub(mark.bytes);
        Self {
            ops,
            unchanged,
            notes,
            truncate_before: std::mem::take(&mut self.truncate_before),
            marks: VecDeque::new(),
            bytes: mark.bytes,
            steps,
        }
    }

    /// Forgets what does not belong to a transaction that has ended.
    fn roll_back(&mut self) {
        let (rows, bytes) = self
            .marks
            .back()
            .map_or((0, 0), |mark| (mark.rows, mark.bytes));
        self.ops.truncate(offset(rows));
        self.forget_notes(rows);
        self.bytes = bytes;
        if self.marks.is_empty() {
            self.truncate_before = false;
        }
    }

    /// Forgets what was noted of `row` and those after it.
    fn forget_notes(&mut self, row: u32) {
        let noted = self.unchanged.partition_point(|(other, _)| *other < row);
        self.unchanged.truncate(noted);
        self.notes.truncate(row);
    }
}

/// A number of rows as an index.
fn offset(rows: u32) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}

/// A segment that gets rows.
#[derive(Debug)]
pub(super) struct Open {
    builder: Box<RowBuilder>,
    outline: Outline,
}

impl Open {
    pub(super) fn new(builder: RowBuilder, truncate_before: bool) -> Self {
        Self {
            builder: Box::new(builder),
            outline: Outline {
                truncate_before,
                ..Outline::default()
            },
        }
    }

    /// Adds a row, whose `bytes` count. After an error it takes no more rows and has to be closed.
    pub(super) fn append<'a>(
        &mut self,
        op: SourceOp,
        key: &[usize],
        values: impl Iterator<Item = Value<'a>>,
        bytes: u64,
    ) -> Result<(), Refused> {
        let row = self.outline.rows();
        let mut cost = bytes;
        let Outline {
            unchanged, notes, ..
        } = &mut self.outline;
        let before = unchanged.len();
        let mut column = 0_u16;
        let values = values.map(|value| {
            let this = column;
            column = column.saturating_add(1);
            match value {
                Value::Null if op == SourceOp::DeleteByKey && !key.contains(&usize::from(this)) => {
                    Value::Nothing
                }
                Value::Unchanged => {
                    unchanged.push((row, this));
                    Value::Nothing
                }
                other => other,
            }
        });
        let appended = self.builder.append(values, |unfit| {
            // What is not in the key means nothing when a row is deleted by it.
            let in_key = key.contains(&unfit.column);
            if op == SourceOp::DeleteByKey && !in_key {
                return;
            }
            let cell = BadCell {
                row,
                column: u16::try_from(unfit.column).unwrap_or(u16::MAX),
                reason: shortened(&unfit.reason),
                raw: if in_key || key.is_empty() {
                    raw_text(unfit.raw)
                } else {
                    String::new()
                },
            };
            let texts = u64::try_from(cell.reason.len() + cell.raw.len()).unwrap_or(0);
            cost += BAD_COST + texts;
            notes.push_bad(cell);
        });
        let left_out = self.outline.unchanged.len() - before;
        if let Err(error) = appended {
            self.outline.forget_notes(row);
            return Err(Refused::Row(error));
        }
        if op != SourceOp::Upsert && left_out > 0 {
            self.outline.forget_notes(row);
            return Err(Refused::LeftOut);
        }
        self.outline.ops.push(op);
        self.outline.bytes += cost + UNCHANGED_COST * u64::try_from(left_out).unwrap_or(0);
        Ok(())
    }

    /// The last row is one whose key was changed by the update: what was left out of it is that of the row deleted right before.
    pub(super) fn note_moved(&mut self) {
        if let Some((row, _)) = self.outline.unchanged.last().copied()
            && row.checked_add(1) == Some(self.outline.rows())
        {
            self.outline.notes.push_moved(row);
        }
    }

    /// The builder may hold a row without its operation, which was refused.
    fn close(self) -> Result<Closed, TypeError> {
        let rows = self.builder.finish()?;
        let count = self.outline.ops.len().min(rows.num_rows());
        Ok(Closed {
            rows: rows.slice(0, count),
            outline: self.outline,
        })
    }
}

/// A segment in memory that is complete.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Closed {
    pub(super) rows: RecordBatch,
    pub(super) outline: Outline,
}

impl Closed {
    /// Messages, which count as `bytes`.
    pub(super) fn of_messages(messages: Messages, bytes: u64) -> Self {
        let Messages {
            partition,
            emptied,
            rows,
            ops,
            next,
            unchanged,
            notes,
        } = messages;
        let steps = Steps {
            partition,
            emptied,
            next,
        };
        Self {
            rows,
            outline: Outline {
                ops,
                unchanged,
                notes,
                truncate_before: emptied.is_some(),
                marks: VecDeque::new(),
                bytes,
                steps: Some(steps),
            },
        }
    }

    /// The first part of what is too much for one segment.
    pub(super) fn split_overflow(&mut self) -> Option<Self> {
        let mark = self.outline.overflow()?;
        Some(self.split(&mark))
    }

    fn split(&mut self, mark: &Mark) -> Self {
        let count = offset(mark.rows).min(self.rows.num_rows());
        let rows = self.rows.slice(0, count);
        self.rows = self.rows.slice(count, self.rows.num_rows() - count);
        let outline = self.outline.split(mark);
        Self { rows, outline }
    }

    fn roll_back(&mut self) {
        self.outline.roll_back();
        let count = self.outline.ops.len().min(self.rows.num_rows());
        self.rows = self.rows.slice(0, count);
    }

    pub(crate) fn into_changes(self) -> (SourceChanges, Notes) {
        let Outline {
            ops,
            unchanged,
            notes,
            truncate_before,
            ..
        } = self.outline;
        let changes = SourceChanges {
            rows: self.rows,
            ops,
            unchanged,
            moved: notes.moved().to_vec(),
            truncate_before,
        };
        (changes, notes)
    }
}

/// A segment on disk.
#[derive(Clone, Debug)]
pub(crate) struct Spilled {
    file: Arc<SpillFile>,
    /// Whether something in it belongs to a transaction that has not ended.
    unfinished: bool,
    /// Where the first transaction in it ends, and where the newest does.
    first: Option<SourcePosition>,
    last: Option<SourcePosition>,
    /// Whether the newest ended after it was written.
    late: bool,
    /// Whether what is unfinished in the file was rolled back.
    rolled_back: bool,
    /// Transactions up to here are not wanted any more.
    dropped: Option<SourcePosition>,
}

impl Spilled {
    pub(super) fn new(file: SpillFile, outline: &Outline) -> Self {
        let (first, last) = outline.ends();
        Self {
            file: Arc::new(file),
            unfinished: outline.is_unfinished(),
            first,
            last,
            late: false,
            rolled_back: false,
            dropped: None,
        }
    }

    /// Whether both are the same file, and what it holds has come to the same: nothing was committed, rolled back or dropped since one was the other.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
            && self.unfinished == other.unfinished
            && self.first == other.first
            && self.last == other.last
            && self.late == other.late
            && self.rolled_back == other.rolled_back
            && self.dropped == other.dropped
    }

    fn commit(&mut self, position: SourcePosition) {
        self.first.get_or_insert_with(|| position.clone());
        self.last = Some(position);
        self.late = true;
        self.unfinished = false;
    }

    fn roll_back(&mut self) {
        self.unfinished = false;
        self.rolled_back = true;
    }

    /// The segment as it is now, read from disk.
    ///
    /// # Errors
    /// [`Error::State`] if it cannot be read, [`Error::Damaged`] if it is not what was written.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn load(&self) -> Result<Closed, Error> {
        let file = Arc::clone(&self.file);
        let read = tokio::task::spawn_blocking(move || file.read());
        let mut closed = read
            .await
            .map_err(|error| Error::Invariant(error.to_string()))??;
        if self.rolled_back {
            closed.roll_back();
        }
        if self.late
            && let Some(last) = &self.last
        {
            closed.outline.commit(last.clone());
        }
        if let Some(dropped) = &self.dropped
            && let Some(mark) = closed.outline.last_through(dropped).cloned()
        {
            drop(closed.split(&mark));
        }
        Ok(closed)
    }
}

/// How much of a segment a cut takes.
#[derive(Debug)]
pub(super) enum Reach {
    Nothing,
    /// Everything up to one of its marks.
    UpTo(Mark),
    /// Some of it, and it has to be read to know what.
    Unknown,
    All,
}

/// A run of changes in one of its states.
#[derive(Debug)]
pub(super) enum Segment {
    Open(Open),
    /// Shared with whoever writes it to disk; a segment that changes meanwhile stays in memory.
    Closed(Arc<Closed>),
    Spilled(Spilled),
}

impl Segment {
    fn outline(&self) -> Option<&Outline> {
        match self {
            Self::Open(open) => Some(&open.outline),
            Self::Closed(closed) => Some(&closed.outline),
            Self::Spilled(_) => None,
        }
    }

    /// Whether it can get a row.
    pub(super) fn takes(&self, op: SourceOp) -> bool {
        let Self::Open(Open { outline, .. }) = self else {
            return false;
        };
        let replaces = op == SourceOp::Upsert && outline.ops.last() == Some(&SourceOp::DeleteByKey);
        replaces || (outline.ops.len() < SEGMENT_ROWS && outline.bytes < SEGMENT_BYTES)
    }

    pub(super) fn usage(&self) -> Usage {
        match self {
            Self::Spilled(spilled) => Usage {
                memory: 0,
                disk: spilled.file.bytes(),
            },
            Self::Open(Open { outline, .. }) => Usage {
                memory: SEGMENT_COST + outline.bytes,
                disk: 0,
            },
            Self::Closed(closed) => Usage {
                memory: SEGMENT_COST + closed.outline.bytes,
                disk: 0,
            },
        }
    }

    pub(super) fn is_unfinished(&self) -> bool {
        match self {
            Self::Spilled(spilled) => spilled.unfinished,
            other => other.outline().is_some_and(Outline::is_unfinished),
        }
    }

    /// Whether a transaction has ended in it.
    pub(super) fn has_marks(&self) -> bool {
        match self {
            Self::Spilled(spilled) => spilled.last.is_some(),
            other => other
                .outline()
                .is_some_and(|outline| !outline.marks.is_empty() || outline.steps.is_some()),
        }
    }

    pub(super) fn commit(&mut self, position: SourcePosition) {
        match self {
            Self::Open(open) => open.outline.commit(position),
            Self::Closed(closed) => Arc::make_mut(closed).outline.commit(position),
            Self::Spilled(spilled) => spilled.commit(position),
        }
    }

    /// Forgets what does not belong to a transaction that has ended. It is not open.
    pub(super) fn roll_back(&mut self) {
        match self {
            Self::Open(_) => {}
            Self::Closed(closed) => Arc::make_mut(closed).roll_back(),
            Self::Spilled(spilled) => spilled.roll_back(),
        }
    }

    /// The transactions up to `position` are not wanted any more. It is on disk.
    pub(super) fn drop_later(&mut self, position: &SourcePosition) {
        if let Self::Spilled(Spilled { dropped, .. }) = self
            && dropped
                .as_ref()
                .is_none_or(|before| !before.covers(position))
        {
            *dropped = Some(position.clone());
        }
    }

    /// Closes it if it is open.
    pub(super) fn close(self) -> Result<Self, TypeError> {
        Ok(match self {
            Self::Open(open) => Self::Closed(Arc::new(open.close()?)),
            other => other,
        })
    }

    pub(super) fn reach(&self, position: &SourcePosition) -> Reach {
        let covered =
            |end: &Option<SourcePosition>| end.as_ref().is_some_and(|end| position.covers(end));
        match (self, self.outline()) {
            // What is left of a segment whose transactions were all dropped.
            (_, Some(outline)) if outline.is_empty() && outline.marks.is_empty() => Reach::All,
            (_, Some(outline)) => match (&outline.steps, outline.last_through(position)) {
                (Some(steps), _) => outline.reach_by_steps(steps, position),
                (None, Some(mark))
                    if outline.marks.back() == Some(mark) && !outline.is_unfinished() =>
                {
                    Reach::All
                }
                (None, Some(mark)) => Reach::UpTo(mark.clone()),
                (None, None) => Reach::Nothing,
            },
            (Self::Spilled(spilled), None) if covered(&spilled.last) && !spilled.unfinished => {
                Reach::All
            }
            (Self::Spilled(spilled), None) if covered(&spilled.first) => Reach::Unknown,
            (_, None) => Reach::Nothing,
        }
    }

    /// Splits off everything up to `mark`. It is closed.
    pub(super) fn split(&mut self, mark: &Mark) -> Option<Part> {
        match self {
            Self::Closed(closed) => {
                Some(Part::Buffered(Box::new(Arc::make_mut(closed).split(mark))))
            }
            Self::Open(_) | Self::Spilled(_) => None,
        }
    }

    /// All of it, as what was cut. It is not open.
    pub(super) fn into_part(self) -> Option<Part> {
        match self {
            Self::Open(_) => None,
            Self::Closed(closed) => Some(Part::Buffered(Box::new(Arc::unwrap_or_clone(closed)))),
            Self::Spilled(spilled) => Some(Part::Spilled(Box::new(spilled))),
        }
    }
}

/// A part of what was cut.
#[derive(Debug)]
pub(crate) enum Part {
    Buffered(Box<Closed>),
    Spilled(Box<Spilled>),
}
