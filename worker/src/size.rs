//! How much rows are, and how much of them enters at once.
//!
//! Called by all parts.

use arrow_array::{Array, RecordBatch};

/// A collection with more to enter in one epoch has it set aside.
pub(crate) const ROWS_AT_ONCE: usize = 65_536;
pub(crate) const BYTES_AT_ONCE: usize = 16 << 20;

/// Bytes of rows. A slice counts for its own part of the buffers it shares with others.
pub(crate) fn bytes_of(rows: &RecordBatch) -> usize {
    let sizes = rows.columns().iter().map(|column| {
        let size = column.to_data().get_slice_memory_size();
        size.unwrap_or_else(|_| column.get_array_memory_size())
    });
    sizes.fold(0, usize::saturating_add)
}
