//! Rows that never change, emitted at hydration; empty on all shards but one.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use flowstone_types::DeltaBatch;

use super::{Operator, Tick, rename};
use crate::Error;
use crate::batch::Changes;
use crate::held::Held;

#[derive(Debug)]
pub(crate) struct Constant {
    pub(crate) rows: Vec<RecordBatch>,
    pub(crate) schema: SchemaRef,
}

impl Operator for Constant {
    /// Nothing comes in after the first tick, so that it does not run any more.
    fn run(&mut self, _: Tick<'_>, _: Vec<Changes>) -> Result<Changes, Error> {
        Ok(Changes::default())
    }

    fn hydrate(&mut self, tick: Tick<'_>, _: Vec<Changes>) -> Result<Changes, Error> {
        let deltas = self
            .rows
            .iter()
            .map(|rows| DeltaBatch::insert(rows.clone(), tick.epoch))
            .collect();
        rename(
            Changes {
                deltas,
                errors: Vec::new(),
            },
            &self.schema,
        )
    }

    fn hydrates_alone(&self) -> bool {
        true
    }

    fn state_bytes(&self, held: &Held) -> Option<(&'static str, usize)> {
        let bytes = self.rows.iter().map(|rows| held.add(rows));
        Some(("constant", bytes.sum()))
    }
}
