//! From where a topic of updates with times has to be shown to a table again after a restart: what is not whole at a position was said before it.
//!
//! Must not know messages, or what makes a time whole. Called by the log of a table, under the lock of the source, and kept in the manifest.
//!
//! Invariants. A mark that is below a position serves it: what is shown from `needed` on, with `frontier`, leads to what was known there. So it does not matter
//! how old a mark is, as long as the topic still has the messages; one above a position would leave out what was given out behind it. Without a mark everything
//! is shown.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Marks that are kept for positions that are not in a commit point.
const MARKS_MAX: usize = 256;

/// What is known of the only partition at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Everything below this offset was looked at.
    pub(crate) next: i64,
    /// All times before this were given out.
    pub(crate) frontier: u64,
    /// The offset of the first message that says something which was not given out; `next` if there is none.
    pub(crate) needed: i64,
}

/// The marks of one table.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// With what its decoder begins, if something of the table was committed before the process started.
    begins: Option<Mark>,
    /// The newest that the commit point covers.
    noted: Option<Mark>,
    /// Newer ones, ascending.
    newer: VecDeque<Mark>,
    /// What is known now.
    last: Option<Mark>,
    /// From where on messages have to be shown to the decoder, if it has looked at any.
    shown: Option<i64>,
}

impl Marks {
    /// Those of a table that goes on where a commit point is. `noted`: a mark that this covers; `start`: where the source has begun.
    pub(crate) fn resumed(noted: Option<Mark>, start: i64) -> Self {
        let begins = noted.unwrap_or(Mark {
            next: start,
            frontier: 0,
            needed: start,
        });
        Self {
            begins: Some(begins),
            noted,
            newer: VecDeque::new(),
            last: Some(begins),
            shown: Some(begins.needed),
        }
    }

    /// With what a decoder begins that has looked at nothing; `None` at the beginning of a topic.
    pub(crate) const fn begins(&self) -> Option<Mark> {
        self.begins
    }

    /// From where on messages have to be shown.
    pub(crate) const fn shown(&self) -> Option<i64> {
        self.shown
    }

    /// There is nothing more below an offset: what is between messages (markers of transactions, aborted ones) has offsets too, and may be removed like these.
    pub(crate) fn reach(&mut self, next: i64) {
        // Before the first message nothing was said.
        let last = self.last.unwrap_or(Mark {
            next: 0,
            frontier: 0,
            needed: 0,
        });
        if last.next < next {
            let needs_nothing = last.needed == last.next;
            self.push(Mark {
                next,
                frontier: last.frontier,
                needed: if needs_nothing { next } else { last.needed },
            });
        }
        self.shown = self.shown.max(Some(next));
    }

    /// What is known now; of messages that are shown once more nothing new is.
    pub(crate) fn push(&mut self, mark: Mark) {
        if self.last.is_none_or(|last| last.next <= mark.next) {
            self.last = Some(mark);
        }
        self.shown = self.shown.max(Some(mark.next));
        let says_the_same = |known: &Mark| {
            known.next >= mark.next
                || (known.frontier, known.needed) == (mark.frontier, mark.needed)
        };
        let newest = self.newer.back().or(self.noted.as_ref());
        if newest.is_some_and(says_the_same) {
            return;
        }
        if self.newer.len() >= MARKS_MAX {
            // Each serves the positions of the next as well.
            let mut number = 0_usize;
            self.newer.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.newer.push_back(mark);
    }

    /// The newest mark that a commit point covers, which has everything below `acknowledged`.
    pub(crate) fn covered(&mut self, acknowledged: i64) -> Option<Mark> {
        while let Some(mark) = self.newer.front().copied()
            && mark.next <= acknowledged
        {
            self.noted = Some(mark);
            self.newer.pop_front();
        }
        self.noted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(next: i64, frontier: u64, needed: i64) -> Mark {
        Mark {
            next,
            frontier,
            needed,
        }
    }

    #[test]
    fn the_newest_mark_that_a_commit_point_covers_is_noted() {
        let mut marks = Marks::default();
        assert_eq!((marks.begins(), marks.shown()), (None, None));
        marks.push(mark(10, 3, 4));
        marks.push(mark(12, 3, 4));
        marks.push(mark(20, 5, 15));
        assert_eq!(marks.shown(), Some(20));
        assert_eq!(marks.covered(9), None);
        assert_eq!(marks.covered(19), Some(mark(10, 3, 4)));
        assert_eq!(marks.covered(20), Some(mark(20, 5, 15)));
        assert_eq!(marks.covered(30), Some(mark(20, 5, 15)));
    }

    #[test]
    fn without_a_mark_everything_is_shown_from_the_start_on() {
        let marks = Marks::resumed(None, 7);
        assert_eq!(marks.begins(), Some(mark(7, 0, 7)));
        assert_eq!(marks.shown(), Some(7));
        let mut marks = Marks::resumed(Some(mark(10, 3, 4)), 7);
        assert_eq!(marks.begins(), Some(mark(10, 3, 4)));
        assert_eq!(
            (marks.shown(), marks.covered(0)),
            (Some(4), Some(mark(10, 3, 4)))
        );
        // What is shown again is known.
        marks.push(mark(6, 3, 4));
        assert_eq!(marks.shown(), Some(6));
        assert_eq!(marks.covered(6), Some(mark(10, 3, 4)));
    }

    #[test]
    fn what_is_no_message_is_not_needed_again() {
        let mut marks = Marks::default();
        marks.reach(3);
        let first = (marks.shown(), marks.covered(3));
        assert_eq!(first, (Some(3), Some(mark(3, 0, 3))));
        marks.push(mark(10, 3, 10));
        marks.reach(12);
        assert_eq!(marks.shown(), Some(12));
        assert_eq!(marks.covered(12), Some(mark(12, 3, 12)));
        marks.push(mark(13, 3, 12));
        marks.reach(15);
        // The one before serves as well.
        assert_eq!(marks.covered(15), Some(mark(12, 3, 12)));
        assert_eq!(marks.shown(), Some(15));
        // Messages before it are shown once more, which says nothing of what is behind them.
        marks.push(mark(13, 3, 12));
        assert_eq!(marks.shown(), Some(15));
        // All that was to be shown again were such.
        let mut marks = Marks::resumed(Some(mark(10, 3, 10)), 0);
        marks.reach(12);
        assert_eq!(marks.shown(), Some(12));
        assert_eq!(marks.covered(12), Some(mark(12, 3, 12)));
    }

    #[test]
    fn marks_that_nobody_commits_become_fewer() {
        let mut marks = Marks::default();
        for next in 1..10_000 {
            marks.push(mark(next, 0, next));
        }
        assert!(marks.newer.len() <= MARKS_MAX);
        assert_eq!(marks.newer.back().unwrap().next, 9_999);
        assert!(marks.covered(100).unwrap().next <= 100);
    }
}
