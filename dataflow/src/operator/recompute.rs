//! The fallback: the query is evaluated anew over the complete inputs at each tick that changes one, and the result is diffed with the one before.
//!
//! Runs on one shard only. State: the last result, and the inputs' arrangements (shared where an input is a collection). Cost: O(the whole query).

use flowstone_types::{DeltaBatch, EvalError, Weights};

use super::query::Query;
use super::{Kept, Needs, Operator, Placement, RelationId, Tick};
use crate::Error;
use crate::batch::{Changes, consolidate};
use crate::held::Held;

#[derive(Debug)]
pub(crate) struct Recompute {
    pub(crate) query: Query,
    /// Whether this is the shard that evaluates; the others only pass errors on.
    pub(crate) runs_here: bool,
    /// The inputs' rows.
    pub(crate) inputs: Vec<RelationId>,
    /// The last result, consolidated.
    pub(crate) previous: Option<DeltaBatch>,
    /// Why there is no result.
    pub(crate) error: Option<EvalError>,
}

impl Operator for Recompute {
    fn run(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        self.evaluate(tick, inputs, false)
    }

    fn hydrate(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        self.evaluate(tick, inputs, true)
    }

    fn hydrates_alone(&self) -> bool {
        self.runs_here
    }

    fn reads(&self) -> Vec<(RelationId, usize)> {
        let inputs = self.inputs.iter();
        inputs.map(|relation| (*relation, 0)).collect()
    }

    /// Rows of the last result.
    fn state(&self) -> usize {
        self.previous.as_ref().map_or(0, DeltaBatch::len)
    }

    fn state_bytes(&self, held: &Held) -> Option<(&'static str, usize)> {
        let bytes = self.previous.as_ref().map_or(0, |previous| {
            let weights = match &previous.weights {
                Weights::Array(weights) => weights.len() * size_of::<i64>(),
                _ => 0,
            };
            held.add(&previous.rows) + weights
        });
        Some(("recompute", bytes))
    }
}

impl Recompute {
    /// Of each input.
    pub(crate) fn needs() -> Needs {
        Needs::rows(Placement::Single, Kept::default())
    }

    fn evaluate(
        &mut self,
        tick: Tick<'_>,
        mut inputs: Vec<Changes>,
        hydrating: bool,
    ) -> Result<Changes, Error> {
        // A step has a port even if its operator reads nothing.
        inputs.truncate(self.inputs.len());
        let mut output = Changes::default();
        let mut changed = hydrating;
        let mut tables = Vec::with_capacity(inputs.len());
        for (changes, relation) in itertools::zip_eq(inputs, &self.inputs) {
            output.errors.extend(changes.errors);
            changed |= !changes.deltas.is_empty();
            let relation = tick.relations.get(*relation)?;
            let delta = if hydrating {
                None
            } else {
                consolidate(relation.schema(), &changes.deltas, tick.epoch)?
            };
            tables.push((relation, delta));
        }
        if !changed || !self.runs_here {
            return Ok(output);
        }
        let mut rows = Vec::with_capacity(tables.len());
        for (relation, delta) in tables {
            rows.push(relation.rows_after(delta.as_ref())?);
        }
        let schema = &self.query.schema;
        let (result, error) = match self.query.evaluate(&rows, tick.epoch)? {
            Ok(made) => (consolidate(schema, &made, tick.epoch)?, None),
            Err(error) => (None, Some(error)),
        };
        let mut difference: Vec<DeltaBatch> = result.iter().cloned().collect();
        if let Some(previous) = &self.previous {
            difference.push(previous.negate()?);
        }
        if let Some(delta) = consolidate(schema, &difference, tick.epoch)? {
            output.push(delta);
        }
        if error != self.error {
            output
                .errors
                .extend(self.error.take().map(|error| (error, -1)));
            output.errors.extend(error.clone().map(|error| (error, 1)));
        }
        self.previous = result;
        self.error = error;
        Ok(output)
    }
}
