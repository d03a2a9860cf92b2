//! Each distinct row once: a row appears when its weight in the input leaves zero and goes when it returns there.
//!
//! State: the input's arrangement, shared. Cost: O(|δ|).

use arrow_array::UInt32Array;
use arrow_schema::SchemaRef;
use flowstone_types::{DeltaBatch, Weights};

use super::{Kept, Needs, Operator, Placement, RelationId, Tick, merge};
use crate::Error;
use crate::batch::{Changes, add_weights, index, weights_of, with_schema};

#[derive(Debug)]
pub(crate) struct Distinct {
    /// The input's rows.
    pub(crate) relation: RelationId,
    /// Relaxed schema of the output.
    pub(crate) schema: SchemaRef,
}

impl Distinct {
    /// Rows of so many columns.
    pub(crate) fn needs(width: usize) -> Needs {
        Needs::rows(Placement::Grouped((0..width).collect()), Kept::default())
    }
}

impl Operator for Distinct {
    /// The input is consolidated: no two of its rows are equal.
    fn run(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        let input = merge(inputs);
        let mut output = Changes {
            deltas: Vec::new(),
            errors: input.errors,
        };
        let relation = tick.relations.get(self.relation)?;
        for delta in input.deltas {
            let delta = with_schema(&delta, &self.schema)?;
            let columns = delta.rows.columns();
            let (mut rows, mut weights) = (Vec::new(), Vec::new());
            for (row, hash) in relation
                .identity_hashes(columns, delta.len())?
                .into_iter()
                .enumerate()
            {
                let before = relation
                    .find(hash, columns, row)?
                    .map_or(0, |id| relation.weight(id));
                let after = add_weights(before, delta.weights.get(row))?;
                if after < 0 {
                    return Err(Error::NegativeWeight("the input of a distinct".to_owned()));
                }
                match (before > 0, after > 0) {
                    (false, true) => {
                        rows.push(index(row));
                        weights.push(1);
                    }
                    (true, false) => {
                        rows.push(index(row));
                        weights.push(-1);
                    }
                    _ => {}
                }
            }
            if !rows.is_empty() {
                let rows =
                    flowstone_types::delta::take_rows(&delta.rows, &UInt32Array::from(rows))?;
                output.push(DeltaBatch::new(rows, weights_of(weights), delta.epoch));
            }
        }
        Ok(output)
    }

    fn hydrate(&mut self, _: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        let input = merge(inputs);
        let mut output = Changes {
            deltas: Vec::new(),
            errors: input.errors,
        };
        for delta in input.deltas {
            let delta = with_schema(&delta, &self.schema)?;
            output.push(DeltaBatch::new(delta.rows, Weights::AllOne, delta.epoch));
        }
        Ok(output)
    }

    fn reads(&self) -> Vec<(RelationId, usize)> {
        vec![(self.relation, 0)]
    }
}
