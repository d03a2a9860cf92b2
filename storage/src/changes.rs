//! The net effect of many delta batches on a stored table.
//!
//! Owns consolidation over epochs, by the hash of the stored row. Must not know files. Called by commits.
//! Invariant: a row inserted and deleted by the same deltas leaves no trace.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::interleave::interleave_record_batch;
use flowstone_types::{DeltaBatch, TypeError};
use hashbrown::HashMap;

use crate::Error;
use crate::columns::Columns;
use crate::row_index::hash_stored;

/// Rows per batch that is written.
const BATCH_ROWS: usize = 64 * 1024;
/// The column of the change data feed that says what happened to a row.
const CHANGE_TYPE: &str = "_change_type";

/// Rows to insert and rows to retract, in stored form; no row is in both.
#[derive(Debug)]
pub(crate) struct NetChange {
    schema: SchemaRef,
    /// Duplicates as duplicates.
    pub(crate) inserts: Vec<RecordBatch>,
    /// Hash and number of copies, by ascending hash.
    pub(crate) retractions: Vec<(u128, u64)>,
    retracted: Vec<RecordBatch>,
}

struct Group {
    hash: u128,
    weight: i64,
    at: (usize, usize),
}

impl NetChange {
    /// Consolidates deltas, which may be of different epochs.
    ///
    /// # Errors
    /// [`Error::Value`] if a sum of weights leaves `i64` or a value cannot be stored.
    pub(crate) fn of(columns: &Columns, deltas: &[DeltaBatch]) -> Result<Self, Error> {
        let mut batches = Vec::with_capacity(deltas.len());
        let mut groups: Vec<Group> = Vec::new();
        let mut index: HashMap<u128, usize> = HashMap::new();
        for (batch_at, delta) in deltas.iter().enumerate() {
            let stored = columns.store(&delta.rows)?;
            for (row, hash) in hash_stored(&stored)?.into_iter().enumerate() {
                let weight = delta.weights.get(row);
                let group = *index.entry(hash).or_insert_with(|| {
                    groups.push(Group {
                        hash,
                        weight: 0,
                        at: (batch_at, row),
                    });
                    groups.len() - 1
                });
                if let Some(group) = groups.get_mut(group) {
                    group.weight = group
                        .weight
                        .checked_add(weight)
                        .ok_or(TypeError::WeightOverflow)?;
                }
            }
            batches.push(stored);
        }
        let mut retractions = groups
            .iter()
            .filter(|group| group.weight < 0)
            .map(|group| (group.hash, group.weight.unsigned_abs()))
            .collect::<Vec<_>>();
        retractions.sort_unstable();
        Ok(Self {
            schema: Arc::clone(columns.physical()),
            inserts: gather(&batches, groups.iter().filter(|group| group.weight > 0))?,
            retracted: gather(&batches, groups.iter().filter(|group| group.weight < 0))?,
            retractions,
        })
    }

    /// Schema and rows of the change data feed; `None` if nothing is retracted.
    pub(crate) fn feed(&self) -> Result<Option<(SchemaRef, Vec<RecordBatch>)>, Error> {
        if self.retracted.is_empty() {
            return Ok(None);
        }
        let mut fields = self.schema.fields().to_vec();
        fields.push(Arc::new(Field::new(CHANGE_TYPE, DataType::Utf8, true)));
        let schema = Arc::new(Schema::new(fields));
        let mut batches = Vec::with_capacity(self.retracted.len() + self.inserts.len());
        for (change, rows) in [("delete", &self.retracted), ("insert", &self.inserts)] {
            for batch in rows {
                let mut columns = batch.columns().to_vec();
                let changes: ArrayRef = Arc::new(StringArray::from(vec![change; batch.num_rows()]));
                columns.push(changes);
                batches.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
            }
        }
        Ok(Some((schema, batches)))
    }
}

/// The first occurrences of groups, each as often as its weight says.
fn gather<'a>(
    batches: &[RecordBatch],
    groups: impl Iterator<Item = &'a Group>,
) -> Result<Vec<RecordBatch>, Error> {
    let sources = batches.iter().collect::<Vec<_>>();
    let mut gathered = Vec::new();
    let mut indices = Vec::new();
    for group in groups {
        for _copy in 0..group.weight.unsigned_abs() {
            indices.push(group.at);
            if indices.len() == BATCH_ROWS {
                gathered.push(interleave_record_batch(&sources, &indices)?);
                indices.clear();
            }
        }
    }
    if !indices.is_empty() {
        gathered.push(interleave_record_batch(&sources, &indices)?);
    }
    Ok(gathered)
}
