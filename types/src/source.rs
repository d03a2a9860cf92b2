//! Changes as an upstream states them, before they are delta batches: some upstreams send only the key of the old row.

use arrow_array::RecordBatch;

/// What one row of a [`SourceChanges`] says, in upstream order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceOp {
    /// The row is new.
    Insert,
    /// This very row is gone (the upstream sent all of it).
    Delete,
    /// The row with this key is gone; columns outside the key are NULL and mean nothing.
    DeleteByKey,
    /// The row with this row's key is replaced by it, or it is new.
    Upsert,
}

/// Ordered changes of one table within one upstream transaction (or several whole ones).
///
/// `rows` has the table's schema; `ops` has one entry per row. `unchanged` lists (row, column) pairs whose value the upstream left out because it
/// did not change (PostgreSQL's TOAST): it is taken from the current row with the same key; such rows are always `Upsert`. Of those of them that are in
/// `moved` the upstream said that the update changed the key: the row before each is the `DeleteByKey` of the old one, and its values are meant.
/// `truncate_before`: the table was emptied before the first row.
#[derive(Clone, Debug)]
pub struct SourceChanges {
    /// The rows, in upstream order.
    pub rows: RecordBatch,
    /// What each row says.
    pub ops: Vec<SourceOp>,
    /// Cells to be filled from the current row.
    pub unchanged: Vec<(u32, u16)>,
    /// Rows with such cells whose key was changed, ascending. Once they are complete, or their table is parted, there are none.
    pub moved: Vec<u32>,
    /// Whether the table is emptied first.
    pub truncate_before: bool,
}

impl SourceChanges {
    /// Changes that only insert.
    #[must_use]
    pub fn inserts(rows: RecordBatch) -> Self {
        let ops = vec![SourceOp::Insert; rows.num_rows()];
        Self {
            rows,
            ops,
            unchanged: Vec::new(),
            moved: Vec::new(),
            truncate_before: false,
        }
    }
}
