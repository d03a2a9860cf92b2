//! `min` and `max` of groups: the first or last value of each in an ordered index over the input's rows.
//!
//! Owns which index, and which end of it. Must not know how groups are found. State: none of its own; `min` and `max` of one column read one index.
//! Cost: O(log rows) per group, and the extremes that the tick retracts.

use std::collections::BTreeMap;

use arrow_array::{UInt32Array, new_null_array};
use arrow_schema::DataType;
use flowstone_proto::plan::{Aggregate, AggregateFunction};

use super::accumulator::Results;
use crate::Error;
use crate::batch::index;
use crate::relation::{IndexSpec, Moment, Order};

/// One `min` or `max` over all groups.
#[derive(Debug)]
pub(crate) struct Extreme {
    end: End,
    argument: usize,
    /// Of argument and result.
    data_type: DataType,
    /// Number of the index.
    pub(crate) index: usize,
}

/// Values are in ascending order.
#[derive(Clone, Copy, Debug)]
enum End {
    First,
    Last,
}

impl Extreme {
    /// The index that an aggregate needs if it is one.
    pub(crate) fn index_of(group: &[usize], spec: &Aggregate) -> Option<IndexSpec> {
        end_of(spec)?;
        let order = Order::of_values(group, spec.argument?, spec.filter);
        Some(IndexSpec::Ordered(order))
    }

    /// One that reads index `index`, if the aggregate is one.
    pub(crate) fn new(spec: &Aggregate, data_type: DataType, index: usize) -> Option<Self> {
        Some(Self {
            end: end_of(spec)?,
            argument: spec.argument?,
            data_type,
            index,
        })
    }

    /// The results of groups, NULL for one without values: as the rows are at a moment, or none if there are none yet.
    pub(crate) fn evaluate<'a>(
        &self,
        moment: Option<&Moment<'_>>,
        groups: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<Results, Error> {
        let errors = BTreeMap::new();
        let Some(moment) = moment else {
            let values = new_null_array(&self.data_type, groups.len());
            return Ok(Results { values, errors });
        };
        let rows = moment.ordered(self.index)?;
        let mut places = Vec::new();
        let mut positions = Vec::with_capacity(groups.len());
        for group in groups {
            let place = match self.end {
                End::First => rows.first(group)?,
                End::Last => rows.last(group)?,
            };
            positions.push(place.map(|_| index(places.len())));
            places.extend(place);
        }
        let found = rows.column(self.argument, &places)?;
        let values = arrow_select::take::take(&found, &UInt32Array::from(positions), None)?;
        Ok(Results { values, errors })
    }
}

fn end_of(spec: &Aggregate) -> Option<End> {
    match spec.function {
        AggregateFunction::Min => Some(End::First),
        AggregateFunction::Max => Some(End::Last),
        _ => None,
    }
}
