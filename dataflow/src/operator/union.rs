//! Bag union: linear, stateless.

use arrow_schema::SchemaRef;

use super::{Operator, Tick, merge, rename};
use crate::Error;
use crate::batch::Changes;

#[derive(Debug)]
pub(crate) struct Union {
    /// Relaxed schema of the output.
    pub(crate) schema: SchemaRef,
}

impl Operator for Union {
    fn run(&mut self, _: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        rename(merge(inputs), &self.schema)
    }
}
