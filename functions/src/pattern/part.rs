//! What is known of the matches of a part of a pattern: their length, and which of several is taken.
//!
//! Owns the rules by which parts make larger ones. Must not know how patterns are written or run. Called by [`super::syntax`].
//!
//! The crate prefers the first alternative and lets each quantifier decide for itself; PostgreSQL takes the longest of all matches from the leftmost start, or the
//! shortest if the first quantifier that prefers anything is non-greedy, and then gives each group in turn as much, or as little, as it can have. Both agree on a
//! pattern that is *straight*: a sequence in which whatever varies is a single character, all quantifiers greedy or all non-greedy. There the crate's match is at
//! least as far as any other after every item: where another were to pass it, the item in which that happens could have gone on to the same place.

/// Which match is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preference {
    Longest,
    Shortest,
}

/// What is known of a part of a pattern.
#[derive(Debug)]
pub(super) struct Part {
    /// Characters of every match, if all have as many.
    pub(super) width: Option<usize>,
    /// Characters of the least match.
    pub(super) least: usize,
    pub(super) straight: bool,
    /// Whether something in it takes as much, or as little, as it can.
    pub(super) greedy: bool,
    pub(super) lazy: bool,
    pub(super) prefers: Option<Preference>,
    /// Whether groups in it capture, and whether one may have no part in a match.
    pub(super) groups: bool,
    pub(super) optional_groups: bool,
    pub(super) stale: bool,
    /// The text that it stands for, if it is no more than text.
    pub(super) word: Option<String>,
    /// Whether the empty text is all that it can match.
    pub(super) bare: bool,
    /// States that a program of it has at least. What alternatives have in common may be there once.
    pub(super) states: usize,
    /// Whether it has groups that capture or quantifiers: what has neither may need no program.
    pub(super) varies: bool,
}

/// States that begin and end a group that captures.
pub(super) const STATES_OF_GROUP: usize = 2;

impl Part {
    pub(super) const fn empty() -> Self {
        Self {
            width: Some(0),
            least: 0,
            straight: true,
            greedy: false,
            lazy: false,
            prefers: None,
            groups: false,
            optional_groups: false,
            stale: false,
            word: Some(String::new()),
            bare: true,
            states: 0,
            varies: false,
        }
    }

    pub(super) fn one_of_many() -> Self {
        Self {
            width: Some(1),
            least: 1,
            word: None,
            bare: false,
            states: 1,
            ..Self::empty()
        }
    }

    pub(super) fn letter(letter: char) -> Self {
        Self {
            word: Some(letter.to_string()),
            ..Self::one_of_many()
        }
    }

    pub(super) fn constraint() -> Self {
        Self {
            word: None,
            ..Self::empty()
        }
    }

    /// `self`, then `next`.
    pub(super) fn followed_by(&mut self, next: Self) {
        self.width = match (self.width, next.width) {
            (Some(width), Some(more)) => width.checked_add(more),
            _ => None,
        };
        self.least = self.least.saturating_add(next.least);
        self.straight &= next.straight;
        self.greedy |= next.greedy;
        self.lazy |= next.lazy;
        self.prefers = self.prefers.or(next.prefers);
        self.groups |= next.groups;
        self.optional_groups |= next.optional_groups;
        self.stale |= next.stale;
        self.word = match (self.word.take(), next.word) {
            (Some(word), Some(more)) => Some(word + &more),
            _ => None,
        };
        self.bare &= next.bare;
        self.states = self.states.saturating_add(next.states);
        self.varies |= next.varies;
    }

    /// From `least` to `most` times.
    pub(super) fn repeated(self, quantifier: Quantifier) -> Self {
        let Quantifier { least, most, lazy } = quantifier;
        let fixed = most == Some(least);
        if fixed && least == 1 {
            return self;
        }
        let once = most.is_some_and(|most| most <= 1);
        let straight = if fixed {
            // Turns of one length, none of which is empty.
            self.width.is_some_and(|width| width > 0)
        } else {
            self.width == Some(1)
        };
        Self {
            width: if fixed {
                self.width.and_then(|width| width.checked_mul(least))
            } else {
                None
            },
            least: self.least.saturating_mul(least),
            straight: self.straight && straight,
            greedy: self.greedy || (!fixed && !lazy),
            lazy: self.lazy || (!fixed && lazy),
            prefers: match (fixed, lazy) {
                (true, _) => self.prefers,
                (false, true) => Some(Preference::Shortest),
                (false, false) => Some(Preference::Longest),
            },
            groups: self.groups,
            optional_groups: self.optional_groups || (self.groups && least == 0),
            // An empty turn is another such question.
            stale: self.stale
                || (!once && self.groups && (self.optional_groups || self.least == 0)),
            word: None,
            bare: self.bare || most == Some(0),
            states: match most {
                Some(0) => 0,
                // Empty turns are put together.
                _ if self.bare => self.states,
                _ => {
                    let turns = self.states.saturating_mul(least.max(1));
                    turns.saturating_add(usize::from(!fixed))
                }
            },
            varies: true,
        }
    }
}

/// How often an atom matches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantifier {
    pub(super) least: usize,
    pub(super) most: Option<usize>,
    pub(super) lazy: bool,
}
