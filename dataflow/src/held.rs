//! How much memory is held, each buffer counted once.
//!
//! Owns the set of buffers that were counted. Slices of an array share its buffers, and so do relations that took the same rows, also those of different shards:
//! whoever is asked first is said to hold them. What an allocation takes is what was asked for and what the allocator adds; a buffer takes its capacity, not
//! what is written of it. Changes on their way to a fork are counted for themselves ([`shown`]). Must not know who asks.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::ArrayData;
use arrow_array::{Array, RecordBatch};
use flowstone_types::DeltaBatch;

/// Bytes that the allocator adds to a small allocation.
const ALLOCATION: usize = 8;
/// Allocations are multiples of so many bytes.
const ALIGNMENT: usize = 16;

/// The two counters of an `Arc`.
pub(crate) const COUNTERS: usize = 2 * size_of::<usize>();
/// What Arrow keeps of a buffer beside its bytes: where they are, how many, and how they are freed.
const BUFFER: usize = allocated(COUNTERS + 5 * size_of::<usize>());

/// The buffers that were counted. Clones are one set: those who hold the same buffers on different threads count them once.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<HashSet<usize>>>);

impl Held {
    /// Bytes of the buffers of `rows` that were not counted before, and of what says how they make rows.
    #[must_use]
    pub fn add(&self, rows: &RecordBatch) -> usize {
        let mut counted = self.counted();
        let columns = rows.columns();
        let arrays: usize = columns
            .iter()
            .map(|column| {
                let array = allocated(COUNTERS + size_of_val(column.as_ref()));
                array + add_data(&mut counted, &column.to_data())
            })
            .sum();
        allocated(size_of_val(columns)) + arrays
    }

    /// A set of numbers is whole even if somebody who used it has panicked.
    fn counted(&self) -> MutexGuard<'_, HashSet<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add_data(counted: &mut HashSet<usize>, data: &ArrayData) -> usize {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    let mut bytes = 0;
    for buffer in data.buffers().iter().chain(nulls) {
        // The address of the whole allocation, whatever part of it the array shows.
        if counted.insert(buffer.data_ptr().as_ptr().addr()) {
            bytes += BUFFER + allocated(buffer.capacity());
        }
    }
    let children = data.child_data().iter();
    bytes
        + children
            .map(|child| add_data(counted, child))
            .sum::<usize>()
}

/// Bytes that the rows of changes show of their buffers, whoever else holds these.
pub(crate) fn shown(deltas: &[DeltaBatch]) -> usize {
    let columns = deltas.iter().flat_map(|delta| delta.rows.columns());
    let sizes = columns.map(|column| {
        let size = column.to_data().get_slice_memory_size();
        size.unwrap_or_else(|_| column.get_array_memory_size())
    });
    sizes.fold(0, usize::saturating_add)
}

/// What an allocation of `bytes` takes.
pub(crate) const fn allocated(bytes: usize) -> usize {
    if bytes == 0 {
        0
    } else {
        (bytes + ALLOCATION).next_multiple_of(ALIGNMENT)
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn what_two_hold_is_counted_once_by_its_capacity() {
        let mut numbers = Vec::with_capacity(10_000);
        numbers.extend(0..1_000_i64);
        let column: ArrayRef = Arc::new(Int64Array::from(numbers));
        let rows = RecordBatch::try_from_iter([("c0", column)]).unwrap();
        let held = Held::default();
        let one = held.add(&rows.slice(100, 10));
        assert!((80_000..81_000).contains(&one), "{one}");
        let other = held.clone().add(&rows);
        assert!(other < 500, "{other}");
        assert!(Held::default().add(&rows) >= one);
    }
}
