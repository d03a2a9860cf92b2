//! Rows of several batches, collected into columns.
//!
//! Owns the list of the batches that rows are taken from. Must not know relations: it is given batches and positions.

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::SchemaRef;
use hashbrown::HashMap;

use crate::Error;
use crate::batch::index as row_index;

/// Collects rows of several batches into columns.
#[derive(Default)]
pub(crate) struct Gather<'a> {
    sources: Vec<&'a RecordBatch>,
    numbers: HashMap<*const RecordBatch, usize>,
    last: Option<(*const RecordBatch, usize)>,
}

impl<'a> Gather<'a> {
    /// The number of a source batch.
    pub(crate) fn source(&mut self, batch: &'a RecordBatch) -> usize {
        let pointer = std::ptr::from_ref(batch);
        if let Some((last, number)) = self.last
            && last == pointer
        {
            return number;
        }
        let sources = &mut self.sources;
        let number = *self.numbers.entry(pointer).or_insert_with(|| {
            sources.push(batch);
            sources.len() - 1
        });
        self.last = Some((pointer, number));
        number
    }

    /// The columns of the rows at `places`: (source, row).
    pub(crate) fn columns(
        &self,
        schema: &SchemaRef,
        places: &[(usize, usize)],
    ) -> Result<Vec<ArrayRef>, Error> {
        (0..schema.fields().len())
            .map(|column| self.column(schema, column, places))
            .collect()
    }

    /// One column of the rows at `places`.
    pub(crate) fn column(
        &self,
        schema: &SchemaRef,
        column: usize,
        places: &[(usize, usize)],
    ) -> Result<ArrayRef, Error> {
        if places.is_empty() {
            return Ok(arrow_array::new_empty_array(
                schema.field(column).data_type(),
            ));
        }
        if let [only] = self.sources.as_slice() {
            let indices =
                UInt32Array::from_iter_values(places.iter().map(|(_, row)| row_index(*row)));
            return Ok(arrow_select::take::take(
                only.column(column),
                &indices,
                None,
            )?);
        }
        let arrays = self
            .sources
            .iter()
            .map(|source| -> &dyn Array { source.column(column).as_ref() })
            .collect::<Vec<_>>();
        Ok(arrow_select::interleave::interleave(&arrays, places)?)
    }
}
