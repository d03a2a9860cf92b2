//! A query of which no row has anything to do with another: what the rows that come or go make of it comes or goes.
//!
//! State: none. Cost: O(|δ|), with the fixed cost of a query for each tick.

use flowstone_types::DeltaBatch;

use super::query::Query;
use super::{Needs, Operator, Placement, Tick, merge};
use crate::Error;
use crate::batch::{Changes, consolidate};

#[derive(Debug)]
pub(crate) struct RecomputeRows {
    pub(crate) query: Query,
}

impl Operator for RecomputeRows {
    fn run(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        let input = merge(inputs);
        let mut output = Changes {
            deltas: Vec::new(),
            errors: input.errors,
        };
        let Some(schema) = input.deltas.first().map(DeltaBatch::schema) else {
            return Ok(output);
        };
        if let Some(delta) = consolidate(&schema, &input.deltas, tick.epoch)? {
            self.query.run_alone(&[delta], tick.epoch, &mut output)?;
        }
        Ok(output)
    }
}

impl RecomputeRows {
    pub(crate) fn needs() -> Needs {
        Needs::changes(Placement::Anywhere)
    }
}
