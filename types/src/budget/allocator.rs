//! The allocator of the process, which counts for each thread what it holds.
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

thread_local! {
    /// Needs no destructor, so that it can be used as long as the thread runs.
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// Net bytes that this thread has allocated since it began.
#[must_use]
pub fn held_by_this_thread() -> i64 {
    HELD.get()
}

fn count(allocated: usize, freed: usize) {
    let change = super::signed(allocated) - super::signed(freed);
    HELD.set(HELD.get().wrapping_add(change));
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
