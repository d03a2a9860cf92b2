//! How much memory is held, each buffer counted once.
//!
//! Owns the set of buffers that were counted. Slices of an array share its buffers, and so do relations that took the same rows: whoever is asked first
//! is said to hold them. Changes on their way are counted for themselves ([`shown`]). Must not know who asks.

use std::collections::HashSet;

use arrow::array::ArrayData;
use arrow_array::{Array, RecordBatch};
use flowstone_types::DeltaBatch;

/// Bytes that the allocator adds to a small allocation.
const ALLOCATION: usize = 8;
/// Allocations are multiples of so many bytes.
const ALIGNMENT: usize = 16;

/// The buffers that were counted.
#[derive(Debug, Default)]
pub(crate) struct Held(HashSet<usize>);

impl Held {
    /// Bytes of the buffers of `rows` that were not counted before.
    pub(crate) fn add(&mut self, rows: &RecordBatch) -> usize {
        rows.columns()
            .iter()
            .map(|column| size_of_val(column.as_ref()) + self.add_data(&column.to_data()))
            .sum()
    }

    fn add_data(&mut self, data: &ArrayData) -> usize {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        let mut bytes = 0;
        for buffer in data.buffers().iter().chain(nulls) {
            // The address of the whole allocation, whatever part of it the array shows.
            if self.0.insert(buffer.data_ptr().as_ptr().addr()) {
                bytes += buffer.capacity();
            }
        }
        bytes
            + data
                .child_data()
                .iter()
                .map(|child| self.add_data(child))
                .sum::<usize>()
    }
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
