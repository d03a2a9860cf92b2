//! The allocator of the process, which counts for each thread, and for all together, what they hold.
//!
//! Owns the counters and nothing else: memory comes from the system's allocator. The binary installs it; without it every count is zero.
//!
//! Invariants. Counting takes no lock and allocates nothing; what could not be allocated is not counted. A thread that frees what another one has allocated counts below zero; sums over threads are right.

#![expect(
    unsafe_code,
    reason = "an allocator cannot be written without; every call is passed on as it is"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};

/// A thread says what it holds when that has changed by so much: it would be in the way of the others if it did each time.
const SAID_EACH: u64 = 64 << 10;

thread_local! {
    /// Needs no destructor, so that it can be used as long as the thread runs.
    static HELD: Cell<i64> = const { Cell::new(0) };
    /// What of it is in [`OF_ALL`].
    static SAID: Cell<i64> = const { Cell::new(0) };
    /// Whether it says it each time.
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// What all threads have said that they hold.
static OF_ALL: AtomicI64 = AtomicI64::new(0);

/// Net bytes that this thread has allocated since it began.
#[must_use]
pub fn held_by_this_thread() -> i64 {
    HELD.get()
}

/// The thread that calls this ends soon: what it has not said of what it holds is said now, and whatever comes at once, so that nothing is missing when many
/// threads have come and gone.
pub fn this_thread_ends() {
    ENDS.set(true);
    count(0, 0);
}

/// Net bytes that the process has allocated, but for `SAID_EACH` of each thread at most, also of those that have ended without [`this_thread_ends`]. What the
/// allocator adds to an allocation, what it keeps of what was freed, stacks and code are not in it.
#[must_use]
pub fn held_by_the_process() -> u64 {
    u64::try_from(OF_ALL.load(Ordering::Relaxed)).unwrap_or(0)
}

fn count(allocated: usize, freed: usize) {
    let change = super::signed(allocated) - super::signed(freed);
    let held = HELD.get().wrapping_add(change);
    HELD.set(held);
    let unsaid = held.wrapping_sub(SAID.get());
    if unsaid.unsigned_abs() >= SAID_EACH || ENDS.get() {
        SAID.set(held);
        OF_ALL.fetch_add(unsaid, Ordering::Relaxed);
    }
}

/// The system's allocator, with counters: for `#[global_allocator]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

// SAFETY: every method hands its arguments to the system's allocator and its result to the caller, so that allocator's contract is this one's.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            count(layout.size(), 0);
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        if !pointer.is_null() {
            count(layout.size(), 0);
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`, and what it gives came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `realloc`, and what it gives came from the system's allocator.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        if !moved.is_null() {
            count(size, layout.size());
        }
        moved
    }
}
