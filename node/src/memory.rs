//! What was freed goes back to the system.
//!
//! Owns when that is: the allocator keeps what is freed in the middle of its heaps, for ever if nobody asks for it, and whatever is at their ends if it is told
//! nothing, so that a node which once loaded a large table would have twice its size until it ends. Must not know who holds memory.
//!
//! Invariants. Memory that was in use a moment ago, and may be again in a moment, is left to the allocator: asking the system for it anew takes longer than to keep it.

use std::time::Duration;

use flowstone_types::budget::allocator::held_by_the_process;

use crate::process;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(2);
/// So many times in a row there has to be too much.
const LOOKS: usize = 3;
/// What may be unused: so much, or this part of what is in use, whichever is more.
const UNUSED_BYTES: u64 = 32 << 20;
const UNUSED_PART: u64 = 16;

/// What is as large as this is the system's again as soon as it is freed. Columns of a batch are smaller, and are kept for the next one.
const LARGE_BYTES: usize = 1 << 20;
/// What a heap of the allocator keeps at its end.
const HEAP_END_BYTES: usize = 4 << 20;
/// Heaps for each thread of the machine, and at least: each keeps something, and threads that share one may have to wait for each other.
const HEAPS_PER_THREAD: usize = 2;
const HEAPS_MIN: usize = 8;

/// Bounds what the allocator keeps. Called once, before there are threads. Left to itself it keeps as much at the end of each heap as the largest thing that was
/// ever freed, twice; `malloc_trim` takes it from the first heap only.
pub(crate) fn bound_what_is_kept() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let heaps = HEAPS_MIN.max(threads * HEAPS_PER_THREAD);
    process::bound_kept_memory(LARGE_BYTES, HEAP_END_BYTES, heaps);
}

/// What was seen of the memory of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// Bytes that the system has given it, without files.
    resident: u64,
    /// Bytes that it has allocated and not freed.
    held: u64,
}

/// What was unused when it was looked last.
#[derive(Debug, Default)]
struct Unused {
    /// The newest last.
    seen: Vec<u64>,
    /// What could not be given back the last time.
    stays: u64,
}

impl Unused {
    /// Whether something is to be given back.
    fn note(&mut self, seen: Seen) -> bool {
        let unused = seen.resident.saturating_sub(seen.held);
        self.stays = self.stays.min(unused);
        self.seen.push(unused.saturating_sub(self.stays));
        let allowed = UNUSED_BYTES.max(seen.held / UNUSED_PART);
        let last = self.seen.iter().rev().take_while(|bytes| **bytes > allowed);
        let too_much = last.count() >= LOOKS;
        if too_much || self.seen.len() > LOOKS {
            let kept = if too_much { 0 } else { LOOKS };
            self.seen.drain(..self.seen.len() - kept);
        }
        too_much
    }

    /// What is resident after something was given back.
    fn gave_back(&mut self, seen: Seen) {
        self.stays = seen.resident.saturating_sub(seen.held);
    }
}

fn look() -> Option<Seen> {
    Some(Seen {
        resident: process::anonymous_memory()?,
        held: held_by_the_process(),
    })
}

/// Gives back what has been unused for a while, until it is dropped.
pub(crate) async fn give_back() {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unused = Unused::default();
    loop {
        interval.tick().await;
        let Some(before) = look() else {
            continue;
        };
        if !unused.note(before) {
            continue;
        }
        // Looking through the heap takes milliseconds for each gigabyte of it.
        let trimming = tokio::task::spawn_blocking(|| {
            process::give_back_memory();
            look()
        });
        if let Ok(Some(after)) = trimming.await {
            unused.gave_back(after);
            tracing::debug!(
                before = before.resident,
                after = after.resident,
                held = after.held,
                "what was freed has gone back to the system"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn seen(resident: u64, held: u64) -> Seen {
        Seen {
            resident: resident * MIB,
            held: held * MIB,
        }
    }

    #[test]
    fn what_is_unused_for_a_while_goes_back_once() {
        let mut unused = Unused::default();
        assert!(!unused.note(seen(900, 500)));
        assert!(!unused.note(seen(900, 500)));
        assert!(unused.note(seen(900, 500)));
        // Some of it is in pages that are in use.
        unused.gave_back(seen(600, 500));
        for _ in 0..10 {
            assert!(!unused.note(seen(620, 500)));
        }
        // More of that can go when these are not.
        assert!(!unused.note(seen(510, 450)));
        assert!(!unused.note(seen(600, 450)));
        assert!(!unused.note(seen(600, 450)));
        assert!(unused.note(seen(600, 450)));
    }

    #[test]
    fn what_is_used_again_and_again_is_kept() {
        let mut unused = Unused::default();
        for _ in 0..10 {
            assert!(!unused.note(seen(900, 500)));
            assert!(!unused.note(seen(900, 500)));
            assert!(!unused.note(seen(900, 880)));
        }
    }

    #[test]
    fn little_is_kept() {
        let mut unused = Unused::default();
        for _ in 0..10 {
            assert!(!unused.note(seen(230, 200)));
            assert!(!unused.note(seen(16_900, 16_000)));
        }
    }
}
