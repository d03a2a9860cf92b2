//! The changes of one table between what was received and what was taken.
//!
//! Owns the segments in their order. Must not know where positions come from, or other tables. Called under the lock of the source.
//!
//! Invariants. Only the last segment is open. What is unfinished is at the end: after a segment in which a transaction has ended nothing before it is.
//! `usage` is the sum over the segments. A segment that was read from disk for a take does not go back before the take has cut or was given up.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_types::{SourceOp, SourcePosition, TypeError};

use super::segment::{Closed, Messages, Open, Part, Reach, Segment, Spilled};
use super::spill::SpillFile;
use super::{Candidate, Usage};
use crate::Error;
use crate::rows::{RowBuilder, RowError, Value};

/// Bytes that a value takes in a batch beside what was received for it, where the type does not say.
const VALUE_BYTES: usize = 16;

/// Why a row was not taken in.
#[derive(Debug)]
pub(crate) enum Refused {
    /// A value was left out of something that is not an upsert.
    LeftOut,
    /// The row does not fit the table.
    Row(RowError),
    /// The table's columns cannot be filled at all.
    Type(TypeError),
}

impl From<TypeError> for Refused {
    fn from(error: TypeError) -> Self {
        Self::Type(error)
    }
}

/// A segment on disk in which a cut ends: it is in memory before anything is cut.
#[derive(Debug)]
pub(crate) struct Straddling {
    number: u64,
    pub(crate) spilled: Spilled,
}

/// The log of one table.
#[derive(Debug)]
pub(crate) struct TableTransactions {
    /// Tells the logs of one table apart, where it has several.
    log: u64,
    schema: SchemaRef,
    /// Columns of the key.
    key: Vec<usize>,
    /// What each row costs beside the bytes received for it.
    row_bytes: u64,
    segments: VecDeque<Segment>,
    /// The number of the first segment.
    first: u64,
    usage: Usage,
    /// The number of the segment that was read from disk for a take that goes on.
    pinned: Option<u64>,
}

impl TableTransactions {
    pub(crate) fn new(schema: SchemaRef, key: Vec<usize>) -> Self {
        Self::numbered(0, schema, key)
    }

    /// One of several logs of a table.
    pub(crate) fn numbered(log: u64, schema: SchemaRef, key: Vec<usize>) -> Self {
        let width = |field: &Arc<arrow_schema::Field>| {
            field.data_type().primitive_width().unwrap_or(VALUE_BYTES)
        };
        let row_bytes = schema.fields().iter().map(width).sum::<usize>();
        Self {
            log,
            schema,
            key,
            row_bytes: u64::try_from(row_bytes).unwrap_or(u64::MAX),
            segments: VecDeque::new(),
            first: 0,
            usage: Usage::default(),
            pinned: None,
        }
    }

    pub(crate) const fn usage(&self) -> Usage {
        self.usage
    }

    /// Which of the table's logs it is.
    pub(crate) const fn log(&self) -> u64 {
        self.log
    }

    /// Adds messages, which end by themselves: each can be cut off after. Not to be mixed with [`TableTransactions::append`]. Returns the bytes that they take
    /// in memory.
    pub(crate) fn append_messages(&mut self, messages: Messages) -> u64 {
        if messages.ops.is_empty() && messages.emptied.is_none() {
            return 0;
        }
        let bytes = messages.size();
        let mut rest = Closed::of_messages(messages, bytes);
        while let Some(part) = rest.split_overflow() {
            self.push(part);
        }
        self.push(rest);
        bytes
    }

    fn push(&mut self, closed: Closed) {
        let segment = Segment::Closed(Arc::new(closed));
        self.usage.add(segment.usage());
        self.segments.push_back(segment);
    }

    /// Adds a change of the transaction that is being received: one value per column. `received`: bytes received for it.
    ///
    /// # Errors
    /// [`Refused`]: the row is not in the log, and the transaction must be rolled back.
    pub(crate) fn append<'a>(
        &mut self,
        op: SourceOp,
        values: impl Iterator<Item = Value<'a>>,
        received: u64,
    ) -> Result<(), Refused> {
        if self
            .segments
            .back()
            .is_none_or(|segment| !segment.takes(op))
        {
            self.open(false)?;
        }
        let bytes = received.saturating_add(self.row_bytes);
        let Some(segment) = self.segments.back_mut() else {
            return Ok(());
        };
        let appended = updating(&mut self.usage, segment, |segment| match segment {
            Segment::Open(open) => open.append(op, &self.key, values, bytes),
            Segment::Closed(_) | Segment::Spilled(_) => Ok(()),
        });
        if appended.is_err()
            && let Err(error) = self.close_last()
        {
            tracing::error!(%error, "rows before a failure could not be finished");
        }
        appended
    }

    /// The last row is one whose key was changed by the update: what was left out of it is that of the row deleted right before.
    pub(crate) fn note_moved(&mut self) {
        if let Some(Segment::Open(open)) = self.segments.back_mut() {
            open.note_moved();
        }
    }

    /// The table was emptied.
    ///
    /// # Errors
    /// [`TypeError`] as for [`Refused::Type`].
    pub(crate) fn truncate(&mut self) -> Result<(), TypeError> {
        self.open(true)
    }

    /// Closes what is open and starts a segment.
    fn open(&mut self, truncate_before: bool) -> Result<(), TypeError> {
        self.close_last()?;
        let builder = RowBuilder::new(Arc::clone(&self.schema), 64)?;
        let segment = Segment::Open(Open::new(builder, truncate_before));
        self.usage.add(segment.usage());
        self.segments.push_back(segment);
        Ok(())
    }

    fn close_last(&mut self) -> Result<(), TypeError> {
        if matches!(self.segments.back(), Some(Segment::Open(_)))
            && let Some(last) = self.segments.pop_back()
        {
            self.usage.remove(last.usage());
            let closed = last.close()?;
            self.usage.add(closed.usage());
            self.segments.push_back(closed);
        }
        Ok(())
    }

    /// Whether the transaction that is being received has changed the table.
    pub(crate) fn is_unfinished(&self) -> bool {
        for segment in self.segments.iter().rev() {
            if segment.is_unfinished() {
                return true;
            }
            if segment.has_marks() {
                return false;
            }
        }
        false
    }

    /// The transaction that is being received has ended.
    pub(crate) fn commit(&mut self, position: &SourcePosition) {
        for segment in self.segments.iter_mut().rev() {
            // Everything before a segment with a mark is of transactions that ended before.
            let last = segment.has_marks();
            if segment.is_unfinished() {
                updating(&mut self.usage, segment, |segment| {
                    segment.commit(position.clone());
                });
            }
            if last {
                break;
            }
        }
    }

    /// Forgets the transaction that is being received.
    pub(crate) fn roll_back(&mut self) {
        if self.is_unfinished()
            && let Err(error) = self.close_last()
        {
            tracing::error!(%error, "rows could not be finished");
        }
        while let Some(last) = self.segments.back_mut() {
            if last.is_unfinished() {
                updating(&mut self.usage, last, Segment::roll_back);
            }
            if last.has_marks() {
                break;
            }
            if let Some(empty) = self.segments.pop_back() {
                self.usage.remove(empty.usage());
            }
        }
        self.forget_pin_of_none();
    }

    /// Forgets the transactions up to `position`.
    ///
    /// # Errors
    /// [`TypeError`] if rows that were received cannot be made a batch.
    pub(crate) fn drop_through(&mut self, position: &SourcePosition) -> Result<(), TypeError> {
        while let Some(first) = self.segments.front_mut() {
            match first.reach(position) {
                Reach::All => drop(self.pop_first()),
                Reach::UpTo(mark) => {
                    self.close_first_if_last()?;
                    if let Some(first) = self.segments.front_mut() {
                        drop(updating(&mut self.usage, first, |first| first.split(&mark)));
                    }
                    break;
                }
                Reach::Unknown => {
                    first.drop_later(position);
                    break;
                }
                Reach::Nothing => break,
            }
        }
        Ok(())
    }

    fn pop_first(&mut self) -> Option<Segment> {
        let first = self.segments.pop_front()?;
        self.usage.remove(first.usage());
        self.first += 1;
        self.forget_pin_of_none();
        Some(first)
    }

    /// The numbers of segments that are gone from the end are given again.
    fn forget_pin_of_none(&mut self) {
        if let Some(pinned) = self.pinned
            && self.segment(pinned).is_none()
        {
            self.pinned = None;
        }
    }

    /// The take that waited has cut, or was given up: what was read for it may go to disk again.
    pub(crate) fn unpin(&mut self) {
        self.pinned = None;
    }

    /// An open segment can only be the first if it is the last as well.
    fn close_first_if_last(&mut self) -> Result<(), TypeError> {
        if self.segments.len() == 1 {
            self.close_last()?;
        }
        Ok(())
    }

    /// The segment that has to be in memory before everything up to `position` can be cut.
    pub(crate) fn straddling(&self, position: &SourcePosition) -> Option<Straddling> {
        for (number, segment) in (self.first..).zip(&self.segments) {
            match (segment, segment.reach(position)) {
                (_, Reach::All) => {}
                (Segment::Spilled(spilled), Reach::Unknown) => {
                    return Some(Straddling {
                        number,
                        spilled: spilled.clone(),
                    });
                }
                _ => return None,
            }
        }
        None
    }

    fn segment(&mut self, number: u64) -> Option<&mut Segment> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.segments.get_mut(index)
    }

    /// A segment was read from disk, and stays in memory until [`TableTransactions::cut`] or [`TableTransactions::unpin`]. Does nothing if it is not what was
    /// read any more: it still straddles then, and is to be read again.
    pub(crate) fn set_loaded(&mut self, loaded: &Straddling, closed: Closed) {
        let (mut usage, mut pinned) = (self.usage, self.pinned);
        if let Some(segment) = self.segment(loaded.number)
            && matches!(segment, Segment::Spilled(spilled) if spilled.is(&loaded.spilled))
        {
            updating(&mut usage, segment, |segment| {
                *segment = Segment::Closed(Arc::new(closed));
            });
            pinned = Some(loaded.number);
        }
        (self.usage, self.pinned) = (usage, pinned);
    }

    /// Takes everything up to `position`, in order. Nothing straddles it.
    ///
    /// # Errors
    /// [`Error::Invariant`] if rows that were received cannot be made a batch, or something straddles the position.
    pub(crate) fn cut(&mut self, position: &SourcePosition) -> Result<VecDeque<Part>, Error> {
        let broken = |error: TypeError| Error::Invariant(error.to_string());
        self.unpin();
        let mut parts = VecDeque::new();
        while let Some(first) = self.segments.front() {
            match first.reach(position) {
                Reach::Nothing => break,
                Reach::All => {
                    self.close_first_if_last().map_err(broken)?;
                    parts.extend(self.pop_first().and_then(Segment::into_part));
                }
                Reach::UpTo(mark) => {
                    self.close_first_if_last().map_err(broken)?;
                    if let Some(first) = self.segments.front_mut() {
                        parts.extend(updating(&mut self.usage, first, |first| first.split(&mark)));
                    }
                    break;
                }
                Reach::Unknown => {
                    return Err(Error::Invariant(
                        "a cut ends in a segment that is on disk".to_owned(),
                    ));
                }
            }
        }
        Ok(parts)
    }

    /// The segments in memory that may go to disk: their numbers and bytes.
    pub(super) fn buffered(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let pinned = self.pinned;
        (self.first..)
            .zip(&self.segments)
            .map(|(number, segment)| (number, segment.usage().memory))
            .filter(move |(number, bytes)| *bytes > 0 && Some(*number) != pinned)
    }

    /// A segment as it can be written to disk, if it is in memory.
    pub(super) fn close(&mut self, number: u64) -> Result<Option<Arc<Closed>>, TypeError> {
        if matches!(self.segment(number), Some(Segment::Open(_))) {
            self.close_last()?;
        }
        Ok(match self.segment(number) {
            Some(Segment::Closed(closed)) => Some(Arc::clone(closed)),
            _ => None,
        })
    }

    /// A segment was written to disk; it stays in memory if it is not what it was.
    pub(crate) fn set_spilled(&mut self, written: &Candidate, file: SpillFile) {
        let mut usage = self.usage;
        if let Some(segment) = self.segment(written.number)
            && matches!(segment, Segment::Closed(closed) if Arc::ptr_eq(closed, &written.closed))
        {
            let spilled = Spilled::new(file, &written.closed.outline);
            updating(&mut usage, segment, |segment| {
                *segment = Segment::Spilled(spilled);
            });
        }
        self.usage = usage;
    }
}

/// Changes a segment, and what is counted with it.
fn updating<R>(usage: &mut Usage, segment: &mut Segment, act: impl FnOnce(&mut Segment) -> R) -> R {
    usage.remove(segment.usage());
    let result = act(segment);
    usage.add(segment.usage());
    result
}
