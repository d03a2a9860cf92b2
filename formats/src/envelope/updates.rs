//! Updates with times: the rows of a time become visible as a whole, in the order of times.
//!
//! Owns what is not whole yet, the telling of what is repeated, and from where messages are needed to know it again. Must not know formats, topics or what
//! rows are: they are bytes, equal if the rows are. Called by sources of messages.
//!
//! Messages say two things, any number of times and in any order. *Updates*: a row, a time, and how many times the row comes then, or goes. Each row has one
//! update at a time; what is said again is the same update. *Progress*: for all times from `lower` to before `upper`, how many updates there are at each. Neither
//! is ever taken back: what says otherwise is a contradiction, which is found as long as the time was not given out. A time is whole once it and all times before it are stated without a gap from 0 on, and all updates that were counted are there. The protocol is that of
//! Materialize and differential dataflow (`capture/mod.rs`, "cdc_v2").
//!
//! Invariants. What is given out depends only on the messages in their order. From [`WholeTimes::needed`] and [`WholeTimes::frontier`] as of a message, a
//! repetition that begins with what is needed is at the same after that message, and gives out the same after it.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// Behind all times.
pub const END: u64 = u64::MAX;

/// What an update costs beside its row, a time that has any, a statement behind a gap beside its counts, and a count, in bytes.
const UPDATE_COST: u64 = 64;
const TIME_COST: u64 = 128;
const STATEMENT_COST: u64 = 128;
const COUNT_COST: u64 = 48;
/// Statements of times that are not whole that are remembered one by one.
const STATED_MAX: usize = 4096;

/// A statement of which updates there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// It is about times from this on.
    pub lower: u64,
    /// And before this.
    pub upper: u64,
    /// How many updates there are at a time, ascending by times; at those that are not here there are none.
    pub counts: Vec<(u64, u64)>,
}

/// An update whose time is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The row.
    pub row: Box<[u8]>,
    /// How many times it comes, or goes if it is negative.
    pub weight: i64,
}

/// Why nothing can be made of the messages any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Both cannot be true.
    #[error("there are {found} updates at time {time}, of which progress counted {counted}")]
    MoreThanCounted {
        /// When.
        time: u64,
        /// How many there are at least.
        found: u64,
        /// How many were stated.
        counted: u64,
    },
    /// A row has one update at a time.
    #[error("updates of one row at time {time} are {one} and {other}")]
    TwoUpdates {
        /// When.
        time: u64,
        /// What was said first.
        one: i64,
        /// And then.
        other: i64,
    },
    /// What was stated is not taken back.
    #[error("progress has counted {one} and {other} updates at time {time}")]
    TwoCounts {
        /// When.
        time: u64,
        /// What was stated first.
        one: u64,
        /// And then.
        other: u64,
    },
    /// Whoever writes the messages is too far ahead of its own progress.
    #[error("updates at times that are not whole yet take more than {0} bytes")]
    TooMuchOpen(u64),
}

/// A statement that is behind a gap.
#[derive(Debug)]
struct Statement {
    offset: i64,
    counts: Vec<(u64, u64)>,
}

/// What is there of a time that is not whole.
#[derive(Debug)]
struct Open {
    /// The message of the first of them.
    first: i64,
    /// By row, how many times it comes.
    updates: HashMap<Box<[u8]>, i64>,
}

/// What the messages of one partition have said, as far as it was not given out.
#[derive(Debug)]
pub struct WholeTimes {
    /// All times before this were given out.
    frontier: u64,
    /// All times before this are stated. Not before `frontier`.
    known: u64,
    /// Of times from `frontier` to before `known`, how many updates there are, if there are any.
    counts: BTreeMap<u64, u64>,
    /// The statements that say so: up to which time, and their messages, both ascending: of two, the one that was said first is enough if it goes as far.
    stated: VecDeque<(u64, i64)>,
    /// Statements behind a gap, by where they begin and end.
    waiting: BTreeMap<(u64, u64), Statement>,
    open: BTreeMap<u64, Open>,
    /// What all of it takes, as if rows that come several times were there as often.
    bytes: u64,
    bytes_max: u64,
}

impl WholeTimes {
    /// Nothing was said yet but that times before `frontier` were given out: 0 at the beginning. `bytes_max`: what may be held.
    #[must_use]
    pub const fn new(frontier: u64, bytes_max: u64) -> Self {
        Self {
            frontier,
            known: frontier,
            counts: BTreeMap::new(),
            stated: VecDeque::new(),
            waiting: BTreeMap::new(),
            open: BTreeMap::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// All times before this were given out.
    #[must_use]
    pub const fn frontier(&self) -> u64 {
        self.frontier
    }

    /// The first message that says something which was not given out.
    ///
    /// Cost: O(times that are not whole).
    #[must_use]
    pub fn needed(&self) -> Option<i64> {
        let stated = self.stated.front().map(|(_, offset)| *offset).into_iter();
        let waiting = self.waiting.values().map(|statement| statement.offset);
        let open = self.open.values().map(|open| open.first);
        stated.chain(waiting).chain(open).min()
    }

    /// The message at `offset` has an update. One of a time that was given out is one that was said before.
    ///
    /// # Errors
    /// [`Broken::TwoUpdates`], [`Broken::TooMuchOpen`]
    pub fn update(
        &mut self,
        offset: i64,
        row: &[u8],
        time: u64,
        weight: i64,
    ) -> Result<(), Broken> {
        if time < self.frontier {
            return Ok(());
        }
        let bytes = &mut self.bytes;
        let open = self.open.entry(time).or_insert_with(|| {
            *bytes = bytes.saturating_add(TIME_COST);
            Open {
                first: offset,
                updates: HashMap::new(),
            }
        });
        match open.updates.entry(row.into()) {
            Entry::Vacant(new) => {
                new.insert(weight);
                self.bytes = self.bytes.saturating_add(update_cost(row, weight));
            }
            Entry::Occupied(known) if *known.get() != weight => {
                return Err(Broken::TwoUpdates {
                    time,
                    one: *known.get(),
                    other: weight,
                });
            }
            Entry::Occupied(_) => {}
        }
        self.check_size()
    }

    /// The message at `offset` states progress.
    ///
    /// # Errors
    /// [`Broken::TwoCounts`], [`Broken::TooMuchOpen`]
    pub fn progress(&mut self, offset: i64, stated: Progress) -> Result<(), Broken> {
        let Progress {
            lower,
            upper,
            counts,
        } = stated;
        if upper <= lower {
            return Ok(());
        }
        self.check_counts((lower, upper), &counts)?;
        if let Some(known) = self.waiting.get(&(lower, upper)) {
            return same_counts(nonzero(&known.counts), nonzero(&counts));
        }
        if upper <= self.known {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(statement_cost(&counts));
        let statement = Statement { offset, counts };
        self.waiting.insert((lower, upper), statement);
        while let Some(((lower, upper), statement)) = self.waiting.pop_first() {
            if lower > self.known {
                self.waiting.insert((lower, upper), statement);
                break;
            }
            self.bytes = self.bytes.saturating_sub(statement_cost(&statement.counts));
            self.check_counts((lower, upper), &statement.counts)?;
            if upper <= self.known {
                continue;
            }
            for (time, count) in statement.counts {
                // What is before was stated by another.
                if time >= self.known && count > 0 {
                    self.counts.insert(time, count);
                    self.bytes = self.bytes.saturating_add(COUNT_COST);
                }
            }
            self.note_stated(upper, statement.offset);
            self.known = upper;
        }
        self.check_size()
    }

    /// Refuses counts that are not those which were stated before, of times that were not given out.
    fn check_counts(&self, bounds: (u64, u64), counts: &[(u64, u64)]) -> Result<(), Broken> {
        let (from, to) = (bounds.0.max(self.frontier), bounds.1.min(self.known));
        if from >= to {
            return Ok(());
        }
        let known = self.counts.range(from..to);
        let known = known.map(|(time, count)| (*time, *count));
        same_counts(
            known,
            nonzero(counts).filter(|(time, _)| (from..to).contains(time)),
        )
    }

    /// All times before `upper`, which is behind what was known, are stated now.
    fn note_stated(&mut self, upper: u64, offset: i64) {
        while self.stated.back().is_some_and(|(_, last)| *last >= offset) {
            self.stated.pop_back();
        }
        if self.stated.len() >= STATED_MAX {
            // Two neighbours are as one: what is needed may be said to be older than it is, which does no harm.
            let mut fewer = VecDeque::with_capacity(STATED_MAX);
            while let Some((upper, offset)) = self.stated.pop_front() {
                let later = self.stated.pop_front();
                fewer.push_back((later.map_or(upper, |(upper, _)| upper), offset));
            }
            self.stated = fewer;
        }
        self.stated.push_back((upper, offset));
    }

    /// Gives out what has become whole, in the order of times; of one time rows that come are first.
    ///
    /// # Errors
    /// [`Broken::MoreThanCounted`]
    pub fn close(&mut self) -> Result<Vec<Update>, Broken> {
        let mut closed = Vec::new();
        loop {
            let counted = self.counts.first_key_value();
            let counted = counted.map(|(time, count)| (*time, *count));
            let there = self.open.first_key_value();
            let there = there.map(|(time, open)| (*time, number(open.updates.len())));
            let first = [counted, there].into_iter().flatten();
            let first = first.map(|(time, _)| time).min();
            let Some(time) = first.filter(|time| *time < self.known) else {
                self.frontier = self.known;
                break;
            };
            let of_time = |found: Option<(u64, u64)>| {
                found
                    .filter(|(of, _)| *of == time)
                    .map_or(0, |(_, count)| count)
            };
            let (counted, found) = (of_time(counted), of_time(there));
            self.frontier = time;
            if found < counted {
                break;
            }
            if found > counted {
                return Err(Broken::MoreThanCounted {
                    time,
                    found,
                    counted,
                });
            }
            self.frontier = time.saturating_add(1);
            self.counts.remove(&time);
            self.bytes = self.bytes.saturating_sub(COUNT_COST);
            if let Some(open) = self.open.remove(&time) {
                self.give(open, &mut closed);
            }
        }
        while let Some((upper, _)) = self.stated.front()
            && *upper <= self.frontier
        {
            self.stated.pop_front();
        }
        Ok(closed)
    }

    fn give(&mut self, open: Open, closed: &mut Vec<Update>) {
        let mut updates: Vec<(Box<[u8]>, i64)> = open.updates.into_iter().collect();
        updates.sort_unstable_by(|(row, weight), (other, other_weight)| {
            let goes = |weight: &i64| *weight < 0;
            (goes(weight), row, weight).cmp(&(goes(other_weight), other, other_weight))
        });
        closed.reserve(updates.len());
        self.bytes = self.bytes.saturating_sub(TIME_COST);
        for (row, weight) in updates {
            self.bytes = self.bytes.saturating_sub(update_cost(&row, weight));
            closed.push(Update { row, weight });
        }
    }

    const fn check_size(&self) -> Result<(), Broken> {
        if self.bytes > self.bytes_max {
            Err(Broken::TooMuchOpen(self.bytes_max))
        } else {
            Ok(())
        }
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Counts of something.
fn nonzero(counts: &[(u64, u64)]) -> impl Iterator<Item = (u64, u64)> + '_ {
    counts.iter().copied().filter(|(_, count)| *count > 0)
}

/// Refuses counts that are not the same as those which are known; both ascending by times.
fn same_counts(
    known: impl Iterator<Item = (u64, u64)>,
    stated: impl Iterator<Item = (u64, u64)>,
) -> Result<(), Broken> {
    let (mut known, mut stated) = (known.peekable(), stated.peekable());
    loop {
        let times = [known.peek(), stated.peek()];
        let Some(time) = times.into_iter().flatten().map(|(time, _)| *time).min() else {
            return Ok(());
        };
        let one = known.next_if(|(of, _)| *of == time);
        let other = stated.next_if(|(of, _)| *of == time);
        if one != other {
            let count = |found: Option<(u64, u64)>| found.map_or(0, |(_, count)| count);
            return Err(Broken::TwoCounts {
                time,
                one: count(one),
                other: count(other),
            });
        }
    }
}

fn update_cost(row: &[u8], weight: i64) -> u64 {
    let once = number(row.len()).saturating_add(UPDATE_COST);
    once.saturating_mul(weight.unsigned_abs().max(1))
}

fn statement_cost(counts: &[(u64, u64)]) -> u64 {
    STATEMENT_COST.saturating_add(number(counts.len()).saturating_mul(COUNT_COST))
}

#[cfg(test)]
mod tests;
