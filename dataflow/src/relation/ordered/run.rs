//! The postings of one group, in order.
//!
//! Owns how they lie: one by itself, a few side by side, many in runs that are split and put together. Must not know what their order is: it is told how one
//! compares with what is looked for.
//!
//! Invariants. There are runs wherever there are many, and none is empty or longer than [`RUN_MAX`]. Cost of a change: O(log n) comparisons, and moving at most
//! a run and the list of runs.
#![expect(
    clippy::indexing_slicing,
    reason = "positions come from searches in the same list"
)]

use std::cmp::Ordering;

use itertools::Either;

use super::encoder::Prefix;
use crate::Error;
use crate::held::allocated;
use crate::relation::RowId;

/// Postings of a run: 8 KiB, of which half is moved by a change.
const RUN_MAX: usize = 256;
/// A run of so many is put together with one beside it.
const RUN_SHORT: usize = RUN_MAX / 4;

/// A row by its sort key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relation) struct Posting {
    pub(super) prefix: Prefix,
    pub(in crate::relation) row: RowId,
}

#[derive(Debug)]
pub(super) enum Run {
    One(Posting),
    Few(Vec<Posting>),
    Many(Runs),
}

impl Run {
    /// All of them, in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Posting> {
        match self {
            Self::One(only) => Either::Left(std::slice::from_ref(only).iter()),
            Self::Few(few) => Either::Left(few.iter()),
            Self::Many(many) => Either::Right(many.runs.iter().flatten()),
        }
    }

    /// Adds one that is not there. `compare`: how one that is there compares with it.
    pub(super) fn insert(
        &mut self,
        posting: Posting,
        mut compare: impl FnMut(&Posting) -> Result<Ordering, Error>,
    ) -> Result<(), Error> {
        match self {
            Self::One(only) => {
                let both = match compare(only)? {
                    Ordering::Greater => [posting, *only],
                    Ordering::Less | Ordering::Equal => [*only, posting],
                };
                *self = Self::Few(both.to_vec());
            }
            Self::Few(few) if few.len() < RUN_MAX => {
                let at = partition_point(few, &mut compare)?;
                insert_at(few, at, posting);
            }
            Self::Few(few) => {
                let mut many = Runs::default();
                many.add(0, std::mem::take(few));
                let inserted = many.insert(posting, &mut compare);
                // Nothing is lost if a comparison fails.
                *self = Self::Many(many);
                inserted?;
            }
            Self::Many(many) => many.insert(posting, &mut compare)?,
        }
        Ok(())
    }

    /// Takes out the one that `compare` says is equal; nothing if there is none. True if none is left: then it is of no use any more.
    pub(super) fn remove(
        &mut self,
        mut compare: impl FnMut(&Posting) -> Result<Ordering, Error>,
    ) -> Result<bool, Error> {
        match self {
            Self::One(only) => return Ok(compare(only)? == Ordering::Equal),
            Self::Few(few) => {
                remove_from(few, &mut compare)?;
                if let [only] = few.as_slice() {
                    *self = Self::One(*only);
                }
            }
            Self::Many(many) => {
                many.remove(&mut compare)?;
                if let [only] = many.runs.as_mut_slice() {
                    *self = Self::Few(std::mem::take(only));
                }
            }
        }
        Ok(false)
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Few(few) => bytes_of(few),
            Self::Many(many) => {
                many.bytes + allocated(many.runs.capacity() * size_of::<Vec<Posting>>())
            }
        }
    }
}

/// Many postings, in runs one after the other.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Vec<Posting>>,
    /// What the runs take.
    bytes: usize,
}

impl Runs {
    fn insert(
        &mut self,
        posting: Posting,
        compare: &mut impl FnMut(&Posting) -> Result<Ordering, Error>,
    ) -> Result<(), Error> {
        let number = self.run_of(compare)?;
        let is_last = number + 1 == self.runs.len();
        let at = partition_point(&self.runs[number], compare)?;
        if self.runs[number].len() < RUN_MAX {
            self.change(number, |run| insert_at(run, at, posting));
        } else if is_last && at == RUN_MAX {
            // What comes in order fills its runs.
            self.add(number + 1, vec![posting]);
        } else {
            let half = RUN_MAX / 2;
            let mut upper = self.change(number, |run| {
                let upper = run.split_off(half);
                run.shrink_to_fit();
                if at <= half {
                    insert_at(run, at, posting);
                }
                upper
            });
            if at > half {
                insert_at(&mut upper, at - half, posting);
            }
            self.add(number + 1, upper);
        }
        Ok(())
    }

    fn remove(
        &mut self,
        compare: &mut impl FnMut(&Posting) -> Result<Ordering, Error>,
    ) -> Result<(), Error> {
        let number = self.run_of(compare)?;
        self.change(number, |run| remove_from(run, compare))?;
        match self.runs[number].len() {
            0 => {
                self.take(number);
            }
            1..=RUN_SHORT => self.put_together(number),
            _ => {}
        }
        Ok(())
    }

    /// Puts a short run and the one beside it together, if they leave room.
    fn put_together(&mut self, number: usize) {
        let last = self.runs.len() - 1;
        let (first, second) = if number < last {
            (number, number + 1)
        } else {
            (last.saturating_sub(1), last)
        };
        let together: usize = self.runs[first..=second].iter().map(Vec::len).sum();
        if first < second && together <= RUN_MAX / 2 {
            let more = self.take(second);
            self.change(first, |run| run.extend(more));
        }
    }

    /// The number of the run in which one is, or belongs: the first whose last is not less, or the last.
    fn run_of(
        &self,
        compare: &mut impl FnMut(&Posting) -> Result<Ordering, Error>,
    ) -> Result<usize, Error> {
        let before = partition_point(&self.runs, |run| match run.last() {
            Some(last) => compare(last),
            None => Ok(Ordering::Less),
        })?;
        Ok(before.min(self.runs.len() - 1))
    }

    fn change<T>(&mut self, number: usize, change: impl FnOnce(&mut Vec<Posting>) -> T) -> T {
        let run = &mut self.runs[number];
        self.bytes -= bytes_of(run);
        let result = change(run);
        self.bytes += bytes_of(run);
        result
    }

    fn add(&mut self, number: usize, run: Vec<Posting>) {
        self.bytes += bytes_of(&run);
        self.runs.insert(number, run);
    }

    fn take(&mut self, number: usize) -> Vec<Posting> {
        let run = self.runs.remove(number);
        self.bytes -= bytes_of(&run);
        run
    }
}

fn bytes_of(run: &Vec<Posting>) -> usize {
    allocated(run.capacity() * size_of::<Posting>())
}

/// How many come before what is looked for.
fn partition_point<T>(
    sorted: &[T],
    mut compare: impl FnMut(&T) -> Result<Ordering, Error>,
) -> Result<usize, Error> {
    let (mut from, mut to) = (0, sorted.len());
    while from < to {
        let middle = usize::midpoint(from, to);
        if compare(&sorted[middle])? == Ordering::Less {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    Ok(from)
}

fn insert_at(run: &mut Vec<Posting>, at: usize, posting: Posting) {
    if run.len() == run.capacity() {
        run.reserve_exact((run.len() / 2).clamp(1, RUN_MAX));
    }
    run.insert(at, posting);
}

fn remove_from(
    run: &mut Vec<Posting>,
    mut compare: impl FnMut(&Posting) -> Result<Ordering, Error>,
) -> Result<(), Error> {
    let at = partition_point(run, &mut compare)?;
    let is_it = match run.get(at) {
        Some(found) => compare(found)? == Ordering::Equal,
        None => false,
    };
    if is_it {
        run.remove(at);
        if run.len() * 4 < run.capacity() {
            run.shrink_to(run.len() * 2);
        }
    }
    Ok(())
}
