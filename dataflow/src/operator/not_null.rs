//! Passes rows without NULL in some columns: linear, stateless. For joins, whose keys match nothing then.

use arrow_array::Array;

use super::{Operator, Tick, merge};
use crate::Error;
use crate::batch::Changes;

#[derive(Clone, Debug)]
pub(crate) struct NotNull {
    pub(crate) columns: Vec<usize>,
}

impl Operator for NotNull {
    fn run(&mut self, _: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        let input = merge(inputs);
        let mut output = Changes {
            deltas: Vec::with_capacity(input.deltas.len()),
            errors: input.errors,
        };
        for delta in input.deltas {
            let mut nulls = None;
            for column in &self.columns {
                nulls = arrow_buffer::NullBuffer::union(
                    nulls.as_ref(),
                    delta.rows.column(*column).logical_nulls().as_ref(),
                );
            }
            match nulls {
                Some(nulls) if nulls.null_count() > 0 => output
                    .push(delta.filter(&arrow_array::BooleanArray::new(nulls.into_inner(), None))?),
                _ => output.push(delta),
            }
        }
        Ok(output)
    }

    fn copy(&self) -> Option<Box<dyn Operator>> {
        Some(Box::new(self.clone()))
    }
}
