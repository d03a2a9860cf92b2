use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// The first time at which a history has no updates any more.
const TIMES: u64 = 12;

/// By time, rows with the weights of their updates.
type History = BTreeMap<u64, BTreeMap<u8, i64>>;

/// What a message says.
#[derive(Clone, Debug)]
enum Said {
    Updates(Vec<(u8, u64, i64)>),
    Progress(Progress),
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(u64::try_from(last).unwrap() + 1);
            items.swap(last, usize::try_from(other).unwrap());
        }
    }

    fn history(&mut self) -> History {
        let mut history = History::new();
        for _ in 0..self.below(16) {
            let weights = [-2, -1, 0, 1, 3];
            let weight = weights[usize::try_from(self.below(5)).unwrap()];
            let row = u8::try_from(self.below(5)).unwrap();
            let time = self.below(TIMES);
            history
                .entry(time)
                .or_default()
                .entry(row)
                .or_insert(weight);
        }
        history
    }

    /// Messages that say all of a history, some of it several times, in any order.
    fn messages(&mut self, history: &History) -> Vec<Said> {
        let mut updates: Vec<(u8, u64, i64)> = history
            .iter()
            .flat_map(|(time, rows)| rows.iter().map(|(row, weight)| (*row, *time, *weight)))
            .collect();
        for index in 0..updates.len() {
            if self.below(3) == 0 {
                updates.push(updates[index]);
            }
        }
        self.shuffle(&mut updates);
        let mut messages = Vec::new();
        while !updates.is_empty() {
            let count = usize::try_from(self.below(4)).unwrap().min(updates.len());
            messages.push(Said::Updates(updates.drain(..count).collect()));
        }
        let mut from = 0;
        while from < TIMES {
            let upper = (from + 1 + self.below(4)).min(TIMES);
            messages.push(stated(history, from, upper));
            from = upper;
        }
        for _ in 0..self.below(4) {
            let lower = self.below(TIMES);
            let upper = lower + self.below(TIMES - lower + 1);
            messages.push(stated(history, lower, upper));
        }
        for index in 0..messages.len() {
            if self.below(4) == 0 {
                messages.push(messages[index].clone());
            }
        }
        self.shuffle(&mut messages);
        messages
    }
}

fn stated(history: &History, lower: u64, upper: u64) -> Said {
    let counts = history.range(lower..upper);
    Said::Progress(Progress {
        lower,
        upper,
        counts: counts
            .map(|(time, rows)| (*time, number(rows.len())))
            .collect(),
    })
}

fn tell(whole: &mut WholeTimes, offset: i64, said: &Said) -> Vec<Update> {
    match said {
        Said::Updates(updates) => {
            for (row, time, weight) in updates {
                whole.update(offset, &[*row], *time, *weight).unwrap();
            }
        }
        Said::Progress(progress) => whole.progress(offset, progress.clone()).unwrap(),
    }
    whole.close().unwrap()
}

/// The first time that is not whole after some messages, found by looking at all of them.
fn plain_frontier(history: &History, messages: &[Said]) -> u64 {
    let mut there = BTreeSet::new();
    let mut statements = Vec::new();
    for said in messages {
        match said {
            Said::Updates(updates) => there.extend(updates.iter().copied()),
            Said::Progress(progress) => statements.push((progress.lower, progress.upper)),
        }
    }
    let is_whole = |time: &u64| {
        let counted = history.get(time).map_or(0, BTreeMap::len);
        let found = there.iter().filter(|(_, of, _)| of == time).count();
        let mut covering = statements.iter();
        covering.any(|(lower, upper)| (*lower..*upper).contains(time)) && found == counted
    };
    (0..TIMES).find(|time| !is_whole(time)).unwrap_or(TIMES)
}

/// All updates before a time.
fn plain(history: &History, frontier: u64) -> Vec<Update> {
    let mut all = Vec::new();
    for rows in history.range(..frontier).map(|(_, rows)| rows) {
        let update = |(row, weight): (&u8, &i64)| Update {
            row: [*row].into(),
            weight: *weight,
        };
        let (goes, comes): (Vec<_>, Vec<_>) = rows.iter().partition(|(_, weight)| **weight < 0);
        all.extend(comes.into_iter().chain(goes).map(update));
    }
    all
}

proptest! {
    #[test]
    fn whatever_the_order_times_are_given_out_whole_also_after_a_restart_anywhere(seed in any::<u64>()) {
        let mut random = Random(seed);
        let history = random.history();
        let messages = random.messages(&history);
        let mut whole = WholeTimes::new(0, u64::MAX);
        let mut given: Vec<Vec<Update>> = Vec::new();
        let mut states = Vec::new();
        for (index, said) in messages.iter().enumerate() {
            let offset = i64::try_from(index).unwrap();
            given.push(tell(&mut whole, offset, said));
            states.push((whole.frontier(), whole.needed(), whole.bytes));
            let frontier = plain_frontier(&history, &messages[..=index]);
            prop_assert_eq!(whole.frontier(), frontier);
            prop_assert_eq!(given.concat(), plain(&history, frontier));
        }
        prop_assert_eq!(whole.frontier(), TIMES);
        prop_assert_eq!((whole.needed(), whole.bytes), (None, 0));
        for (at, (frontier, needed, _)) in states.iter().enumerate() {
            let needed = needed.map_or(at + 1, |needed| usize::try_from(needed).unwrap());
            prop_assert!(needed <= at + 1);
            // What is shown beside what is needed does no harm.
            for first in [needed, 0] {
                let mut again = WholeTimes::new(*frontier, u64::MAX);
                for (index, said) in messages.iter().enumerate().skip(first) {
                    let told = tell(&mut again, i64::try_from(index).unwrap(), said);
                    if index <= at {
                        prop_assert!(told.is_empty());
                        if index == at {
                            prop_assert_eq!(again.bytes, states[at].2, "it fails at the same message");
                        }
                    } else {
                        prop_assert_eq!(&told, &given[index]);
                        prop_assert_eq!(again.frontier(), states[index].0);
                    }
                }
            }
        }
    }
}

#[test]
fn more_updates_than_were_counted_are_an_error() {
    let mut whole = WholeTimes::new(0, u64::MAX);
    whole.update(0, b"a", 3, 1).unwrap();
    whole.update(0, b"b", 3, 1).unwrap();
    let progress = Progress {
        lower: 0,
        upper: END,
        counts: vec![(3, 1)],
    };
    whole.progress(1, progress).unwrap();
    let broken = Broken::MoreThanCounted {
        time: 3,
        found: 2,
        counted: 1,
    };
    assert_eq!(whole.close().unwrap_err(), broken);
}

#[test]
fn a_row_with_two_updates_at_a_time_is_an_error() {
    let mut whole = WholeTimes::new(0, u64::MAX);
    whole.update(0, b"a", 3, 1).unwrap();
    whole.update(1, b"a", 4, 2).unwrap();
    whole.update(2, b"a", 3, 1).unwrap();
    let broken = Broken::TwoUpdates {
        time: 3,
        one: 1,
        other: -1,
    };
    assert_eq!(whole.update(3, b"a", 3, -1).unwrap_err(), broken);
}

#[test]
fn progress_that_contradicts_itself_is_an_error() {
    let stated = |lower, upper, counts: &[(u64, u64)]| Progress {
        lower,
        upper,
        counts: counts.to_vec(),
    };
    let broken = |time, one, other| Broken::TwoCounts { time, one, other };
    let mut whole = WholeTimes::new(0, u64::MAX);
    whole.progress(0, stated(0, 5, &[(3, 1)])).unwrap();
    assert!(whole.close().unwrap().is_empty());
    // The same of other times, with what is none, and of times that were given out.
    for (lower, upper, counts) in [
        (0, 5, vec![(3, 1)]),
        (2, 4, vec![(2, 0), (3, 1)]),
        (4, 6, vec![]),
        (1, 3, vec![(2, 7)]),
    ] {
        whole.progress(1, stated(lower, upper, &counts)).unwrap();
    }
    let other = whole.progress(2, stated(3, 5, &[])).unwrap_err();
    assert_eq!(other, broken(3, 1, 0));
    let other = whole.progress(3, stated(4, 9, &[(4, 2)])).unwrap_err();
    assert_eq!(other, broken(4, 0, 2));
    // Also behind a gap.
    whole.progress(4, stated(8, 9, &[(8, 1)])).unwrap();
    let other = whole.progress(5, stated(8, 9, &[(8, 2)])).unwrap_err();
    assert_eq!(other, broken(8, 1, 2));
    whole.progress(6, stated(7, 9, &[(8, 2)])).unwrap();
    let other = whole.progress(7, stated(6, 7, &[])).unwrap_err();
    assert_eq!(other, broken(8, 2, 1));
}

#[test]
fn statements_that_wait_for_one_update_cost_little() {
    let mut whole = WholeTimes::new(0, u64::MAX);
    let stated = |time, counts: &[(u64, u64)]| Progress {
        lower: time,
        upper: time + 1,
        counts: counts.to_vec(),
    };
    whole.progress(7, stated(0, &[(0, 1)])).unwrap();
    for time in 1..100_000 {
        let offset = i64::try_from(time).unwrap() + 7;
        whole.progress(offset, stated(time, &[])).unwrap();
        assert!(whole.close().unwrap().is_empty());
    }
    assert!(whole.stated.len() <= STATED_MAX);
    assert_eq!((whole.frontier(), whole.needed()), (0, Some(7)));
    whole.update(200_000, b"a", 0, 1).unwrap();
    assert_eq!(whole.close().unwrap().len(), 1);
    assert_eq!((whole.frontier(), whole.needed()), (100_000, None));
}

#[test]
fn what_may_be_held_has_a_bound_that_counts_each_repetition_of_a_row() {
    let mut whole = WholeTimes::new(0, 1000);
    whole.update(0, b"a", 1, 1).unwrap();
    whole.update(0, b"a", 1, 1).unwrap();
    let broken = Broken::TooMuchOpen(1000);
    assert_eq!(whole.update(1, b"a", 2, 20).unwrap_err(), broken);
    // What was given out is not held.
    let mut whole = WholeTimes::new(0, 1000);
    for time in 0..100_u64 {
        let offset = i64::try_from(time).unwrap();
        whole.update(offset, &[7; 100], time, 4).unwrap();
        let progress = Progress {
            lower: time,
            upper: time + 1,
            counts: vec![(time, 1)],
        };
        whole.progress(offset, progress).unwrap();
        assert_eq!(whole.close().unwrap().len(), 1);
    }
    assert_eq!((whole.frontier(), whole.needed()), (100, None));
}
