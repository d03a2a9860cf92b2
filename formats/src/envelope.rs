//! Envelopes: how messages state changes of a table, as operations of [`flowstone_types::SourceChanges`].
//!
//! Owns what append-only, upsert and Debezium topics mean, and topics of updates with times. Must not know formats, topics or time: all here are functions of decoded columns.
//! Called by sources of messages.
//!
//! Invariants. Changes are in the order of the messages. Every message is told apart: it made rows, it is bad, or it says nothing (tombstones after
//! deletions, heartbeats, messages of transactions). Nothing is dropped silently that could be a change.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_select::interleave::interleave;
use flowstone_types::value::ColumnBuilder;
use flowstone_types::{SourceChanges, SourceOp, SqlType, TypeError};

use crate::error::Error;
use crate::relation::Relation;
use crate::rows::BadRow;

pub mod debezium;
pub mod layout;
pub mod position;
pub mod updates;
pub mod upsert;

pub use debezium::{DebeziumEnvelope, KeyColumn};
pub use upsert::UpsertEnvelope;

/// The changes that a batch of messages states.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The changes, in the order of the messages.
    pub changes: SourceChanges,
    /// Which message each row of the changes is from, ascending.
    pub origins: Vec<u32>,
    /// Cells of new rows, as (row, column), whose values the upstream left out, so that nobody knows them. They are filled; ascending.
    pub unknown: Vec<(u32, u16)>,
    /// The messages that make no change and should, ascending.
    pub bad: Vec<BadRow>,
}

/// Rows of messages as they are: each is new. `columns` are the decoded columns of the relation.
///
/// # Errors
/// [`Error::Value`] if the columns are not those of the relation.
pub fn append_only(
    relation: &Relation,
    columns: Vec<ArrayRef>,
    origins: Vec<u32>,
    bad: Vec<BadRow>,
) -> Result<Changed, Error> {
    let rows = batch_of(relation, columns, origins.len())?;
    Ok(Changed {
        changes: SourceChanges::inserts(rows),
        origins,
        unknown: Vec::new(),
        bad,
    })
}

fn batch_of(
    relation: &Relation,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, TypeError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        relation.to_schema(),
        columns,
        &options,
    )?)
}

/// Rows of changes while they are collected: each comes from one of several sets of columns.
#[derive(Debug, Default)]
struct Collected {
    ops: Vec<SourceOp>,
    origins: Vec<u32>,
    /// The set of columns and the row in it.
    places: Vec<(usize, usize)>,
    unchanged: Vec<(u32, u16)>,
    moved: Vec<u32>,
    unknown: Vec<(u32, u16)>,
    bad: Vec<BadRow>,
}

impl Collected {
    fn push(&mut self, op: SourceOp, origin: u32, set: usize, row: usize) {
        self.ops.push(op);
        self.origins.push(origin);
        self.places.push((set, row));
    }

    fn refuse(&mut self, index: u32, reason: impl Into<String>) {
        self.bad.push(BadRow {
            index,
            reason: reason.into(),
        });
    }

    /// The changes. `sets`: for each set of columns its arrays, in the order of the relation; a column that a set lacks is filled.
    fn finish(self, relation: &Relation, sets: &[Vec<Option<ArrayRef>>]) -> Result<Changed, Error> {
        let mut columns = Vec::with_capacity(relation.columns.len());
        for (index, column) in relation.columns.iter().enumerate() {
            let mut filler = ColumnBuilder::new(&column.sql_type, 1);
            filler.append_filler(column.nullable)?;
            let filler = filler.finish();
            let arrays: Vec<Option<&ArrayRef>> = sets
                .iter()
                .map(|set| set.get(index).and_then(Option::as_ref))
                .collect();
            // The filler stands behind the sets.
            let filled = sets.len();
            let mut places: Vec<(usize, usize)> = self
                .places
                .iter()
                .map(|(set, row)| match arrays.get(*set).copied().flatten() {
                    // A key alone leaves the others NULL, which not all of them may be.
                    Some(array) if array.is_valid(*row) || column.nullable => (*set, *row),
                    _ => (filled, 0),
                })
                .collect();
            let unknown = self.unknown.iter();
            for (row, _) in unknown.filter(|(_, column)| usize::from(*column) == index) {
                let row = usize::try_from(*row).unwrap_or(usize::MAX);
                if let Some(place) = places.get_mut(row) {
                    *place = (filled, 0);
                }
            }
            let values: Vec<&dyn Array> = arrays
                .into_iter()
                .map(|array| array.unwrap_or(&filler).as_ref())
                .chain(std::iter::once(filler.as_ref()))
                .collect();
            columns.push(interleave(&values, &places).map_err(TypeError::from)?);
        }
        let rows = batch_of(relation, columns, self.places.len())?;
        Ok(Changed {
            changes: SourceChanges {
                rows,
                ops: self.ops,
                unchanged: self.unchanged,
                moved: self.moved,
                truncate_before: false,
            },
            origins: self.origins,
            unknown: self.unknown,
            bad: self.bad,
        })
    }
}

/// Whether a cell holds what stands for a value that was left out because it did not change.
fn is_unavailable(array: &ArrayRef, sql_type: &SqlType, row: usize, document: &[u8]) -> bool {
    use arrow_array::cast::AsArray;

    use crate::semantic::UNAVAILABLE;
    if array.is_null(row) {
        return false;
    }
    match sql_type {
        // Of an array of texts it is the only item.
        SqlType::Array(item) => array.as_list_opt::<i32>().is_some_and(|lists| {
            lists.value_length(row) == 1 && is_unavailable(&lists.value(row), item, 0, document)
        }),
        SqlType::Text | SqlType::VarChar(_) => array
            .as_string_opt::<i32>()
            .is_some_and(|values| values.value(row) == UNAVAILABLE),
        SqlType::Bytea => array
            .as_binary_opt::<i32>()
            .is_some_and(|values| values.value(row) == UNAVAILABLE.as_bytes()),
        SqlType::Jsonb => array
            .as_binary_opt::<i64>()
            .is_some_and(|values| values.value(row) == document),
        _ => false,
    }
}

/// A column that a set has.
fn same(array: &ArrayRef) -> Option<ArrayRef> {
    Some(Arc::clone(array))
}
