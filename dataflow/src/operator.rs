//! The operators: each turns the changes of its inputs in one tick into the changes of its output.
//!
//! Operators must not know shards, exchanges or dataflows; the executor hands them their inputs of the tick and the relations they read, which stand
//! still meanwhile. Each runs at most once per tick. State that only one operator needs lives in the operator; arrangements live in relations.

pub(crate) mod accumulator;
pub(crate) mod aggregate;
pub(crate) mod distinct;
pub(crate) mod filter_project;
pub(crate) mod join;
pub(crate) mod recompute;
pub(crate) mod top_k;

use std::collections::BTreeMap;

use flowstone_types::{DeltaBatch, Epoch};

use crate::Error;
use crate::relation::Relation;

/// How an operator goes through a delta. Both ways end in the same state and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Row by row: no array is made for rows that come to nothing.
    Point,
    /// Column by column.
    Bulk,
}

/// Names a relation within one shard. Another one may name its part of the same relation otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RelationId(pub(crate) u64);

/// All relations of a shard.
#[derive(Debug, Default)]
pub(crate) struct Relations(pub(crate) BTreeMap<RelationId, Relation>);

impl Relations {
    pub(crate) fn get(&self, id: RelationId) -> Result<&Relation, Error> {
        self.0
            .get(&id)
            .ok_or_else(|| Error::invariant(format!("relation {} is gone", id.0)))
    }

    pub(crate) fn get_mut(&mut self, id: RelationId) -> Result<&mut Relation, Error> {
        self.0
            .get_mut(&id)
            .ok_or_else(|| Error::invariant(format!("relation {} is gone", id.0)))
    }
}

/// What an operator may look at while it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick<'a> {
    pub(crate) epoch: Epoch,
    /// The dataflow's first tick: inputs bring all rows there are, and arrangements already hold them (in any other tick they stand at `before`).
    pub(crate) hydrating: bool,
    /// See [`crate::ShardConfig::point_rows_max`].
    pub(crate) point_rows_max: usize,
    pub(crate) relations: &'a Relations,
}

impl Tick<'_> {
    /// The path for `delta`.
    pub(crate) fn path(&self, delta: &DeltaBatch) -> Path {
        if delta.len() <= self.point_rows_max {
            Path::Point
        } else {
            Path::Bulk
        }
    }
}
