//! The operators: each turns the changes of its inputs in one tick into the changes of its output.
//!
//! Operators must not know shards, exchanges or dataflows; they say what they need of their inputs ([`Needs`]), and the executor hands them their inputs of the
//! tick and the relations they read, which stand still meanwhile. Each runs at most once per tick. State that only one operator needs lives in the operator;
//! arrangements live in relations.
//!
//! A new operator is one file here, one variant of the plan, and one arm of the renderer, which names its needs and makes it of what it gets.

pub(crate) mod accumulator;
pub(crate) mod aggregate;
pub(crate) mod constant;
pub(crate) mod distinct;
pub(crate) mod extreme;
pub(crate) mod filter_project;
pub(crate) mod get;
pub(crate) mod join;
pub(crate) mod not_null;
pub(crate) mod query;
pub(crate) mod recompute;
pub(crate) mod recompute_groups;
pub(crate) mod recompute_rows;
pub(crate) mod top_k;
pub(crate) mod union;

use std::collections::BTreeMap;
use std::fmt::Debug;

use arrow_schema::SchemaRef;
use flowstone_types::{DeltaBatch, Epoch};

use crate::Error;
use crate::batch::{Changes, consolidate, with_schema};
use crate::held::Held;
use crate::relation::{IndexSpec, Relation};

/// One operator of a dataflow, on one shard.
///
/// What it keeps over ticks names no place of a row: a dataflow moves to a fork of the shard and back, where the same rows have other places.
pub(crate) trait Operator: Debug + Send + Sync {
    /// How the output changes in a tick in which the inputs change so, one of `inputs` per port. A step has a port even if its operator reads nothing.
    /// Relations stand at `before`.
    ///
    /// # Errors
    /// Whatever breaks is the failure of the dataflow: what the operator keeps is of no use any more.
    fn run(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error>;

    /// The same in the dataflow's first tick: inputs bring all rows there are, and relations already hold them. The output is all it has.
    ///
    /// # Errors
    /// As [`Operator::run`].
    fn hydrate(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        self.run(tick, inputs)
    }

    /// Whether it is to be hydrated although nothing came in.
    fn hydrates_alone(&self) -> bool {
        false
    }

    /// The relations that it looks rows up in after its first tick, and the indexes by which it does.
    fn reads(&self) -> Vec<(RelationId, usize)> {
        Vec::new()
    }

    /// The first epoch at which the output changes although no input does.
    fn next_due(&self) -> Option<Epoch> {
        None
    }

    /// Groups or rows that it keeps to itself.
    fn state(&self) -> usize {
        0
    }

    /// What it is called, and the bytes of what it keeps to itself that are not in `held` yet; `None` for one that keeps nothing.
    fn state_bytes(&self, _held: &Held) -> Option<(&'static str, usize)> {
        None
    }

    /// The same for another shard value, of the operators that entries of the registry have; they keep nothing.
    fn copy(&self) -> Option<Box<dyn Operator>> {
        None
    }
}

/// What an operator needs of one of its inputs. The renderer sees to it.
#[derive(Clone, Debug)]
pub(crate) struct Needs {
    pub(crate) at: Placement,
    /// Whether the input's rows are to be kept in a relation. Then its changes come consolidated.
    pub(crate) kept: Option<Kept>,
}

/// Where rows are to be.
#[derive(Clone, Debug)]
pub(crate) enum Placement {
    /// Wherever they are.
    Anywhere,
    /// Those that agree in these columns on one shard.
    Grouped(Vec<usize>),
    /// Those that agree in these columns on one shard, where those of the other input are that agree with them in theirs.
    Matched(Vec<usize>),
    /// All on one shard.
    Single,
}

/// How rows are to be kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// Rows with NULL in one of these columns are of no use.
    pub(crate) without_nulls: Vec<usize>,
    /// The indexes by which they are found.
    pub(crate) indexes: Vec<IndexSpec>,
}

/// Where the rows of an input are kept.
#[derive(Clone, Debug)]
pub(crate) struct Arrangement {
    pub(crate) relation: RelationId,
    /// The numbers of the indexes that were asked for, in that order.
    pub(crate) indexes: Vec<usize>,
}

impl Needs {
    /// Changes only.
    pub(crate) const fn changes(at: Placement) -> Self {
        Self { at, kept: None }
    }

    /// Changes and all rows.
    pub(crate) const fn rows(at: Placement, kept: Kept) -> Self {
        Self {
            at,
            kept: Some(kept),
        }
    }
}

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

/// What came in by all ports.
pub(crate) fn merge(inputs: Vec<Changes>) -> Changes {
    let mut merged = Changes::default();
    inputs.into_iter().for_each(|input| merged.append(input));
    merged
}

/// The same changes under other names of the columns.
fn rename(input: Changes, schema: &SchemaRef) -> Result<Changes, Error> {
    let deltas = input
        .deltas
        .iter()
        .map(|delta| with_schema(delta, schema))
        .collect::<Result<_, _>>()?;
    Ok(Changes {
        deltas,
        errors: input.errors,
    })
}

/// The changes of an input that `relation` keeps, as it will take them; `None` if there are none. They come consolidated, as one delta.
fn settled(
    relation: &Relation,
    deltas: &[DeltaBatch],
    epoch: Epoch,
) -> Result<Option<DeltaBatch>, Error> {
    match deltas {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        many => consolidate(relation.schema(), many, epoch),
    }
}
