//! Memory, in a process of its own: its allocator counts, and nothing else may allocate meanwhile.

#[cfg(test)]
#[expect(
    unsafe_code,
    reason = "the global allocator is wrapped to count what is allocated"
)]
#[path = "memory/held.rs"]
mod held;
