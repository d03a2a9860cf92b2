//! The changes of a collection, or of an entry of the registry, under the plan's column names.
//!
//! State: none; what it yields at hydration is what the relation holds. Cost: O(|δ|).

use arrow_schema::SchemaRef;

use super::{Operator, RelationId, Tick, merge, rename};
use crate::Error;
use crate::batch::Changes;

#[derive(Clone, Debug)]
pub(crate) struct Get {
    pub(crate) relation: RelationId,
    pub(crate) schema: SchemaRef,
}

impl Operator for Get {
    fn run(&mut self, _: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        rename(merge(inputs), &self.schema)
    }

    fn hydrate(&mut self, tick: Tick<'_>, _: Vec<Changes>) -> Result<Changes, Error> {
        let current = tick.relations.get(self.relation)?.current();
        let input = Changes {
            deltas: current.deltas(tick.epoch)?,
            errors: current.errors,
        };
        rename(input, &self.schema)
    }

    fn hydrates_alone(&self) -> bool {
        true
    }

    fn copy(&self) -> Option<Box<dyn Operator>> {
        Some(Box::new(self.clone()))
    }
}
