//! Steps: the nodes of the graph a shard runs. A plan node becomes one step or several (exchange, arrangement, operator).
//!
//! Invariants. A step has the same name on every shard, whatever could not be rendered on one of them, and every edge goes from a lower to a higher one.
//! An edge never goes to a lower stage.

use arrow_array::{Array, RecordBatch, UInt32Array};
use arrow_schema::SchemaRef;
use flowstone_types::{DeltaBatch, Epoch, ObjectId};

use crate::Error;
use crate::batch::{Changes, consolidate, consolidate_errors, index, with_schema};
use crate::held::Held;
use crate::operator::aggregate::Aggregate;
use crate::operator::distinct::Distinct;
use crate::operator::filter_project::FilterProject;
use crate::operator::join::Join;
use crate::operator::recompute::Recompute;
use crate::operator::top_k::TopK;
use crate::operator::{RelationId, Relations, Tick};
use crate::partition::{hash_columns, shard_of};

/// Names a step, in order of rendering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StepId {
    /// Which rendering it comes from, of all that were begun. One that fails on some shards only has a number on all of them.
    pub(crate) rendering: u64,
    /// Its position in there. Those of entries of the registry come before those of the dataflow, and so before all that read them.
    pub(crate) position: u64,
}

/// Whose step it is: what fails if it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Of this dataflow alone.
    Dataflow(ObjectId),
    /// Of the entry of the registry with this relation, and so of all dataflows that use it.
    Entry(RelationId),
}

/// Where rows of an exchange go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    /// To the shard that owns the hash of these columns.
    Hash(Vec<usize>),
    /// To shard 0.
    Single,
}

/// Rows on their way to another shard. Opaque to the caller, who delivers it with [`crate::Shard::deliver`] before the next stage.
#[derive(Clone, Debug)]
pub struct ExchangeMessage {
    pub(crate) target: StepId,
    pub(crate) from: usize,
    pub(crate) deltas: Vec<DeltaBatch>,
}

impl ExchangeMessage {
    /// Number of rows, not counting multiplicities.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.deltas.iter().map(DeltaBatch::len).sum()
    }
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) owner: Owner,
    pub(crate) stage: usize,
    pub(crate) kind: Kind,
    /// What came in during this tick, per port.
    pub(crate) inputs: Vec<Changes>,
    /// What came in from each shard, this one included, for [`Kind::Receive`] and [`Kind::Share`].
    pub(crate) inbox: Vec<(usize, Vec<DeltaBatch>)>,
    pub(crate) consumers: Vec<(StepId, usize)>,
}

impl Step {
    /// A step that nothing was handed to. It has at least one port, also if it has no inputs.
    pub(crate) fn new(owner: Owner, stage: usize, kind: Kind, inputs: usize) -> Self {
        Self {
            owner,
            stage,
            kind,
            inputs: std::iter::repeat_with(Changes::default)
                .take(inputs.max(1))
                .collect(),
            inbox: Vec::new(),
            consumers: Vec::new(),
        }
    }

    /// Makes it a step of a dataflow that has failed: what it kept and what came in is gone, and nothing comes in any more, for it has no ports.
    pub(crate) fn stop(&mut self) {
        *self = Self {
            owner: self.owner,
            stage: self.stage,
            kind: Kind::Stopped,
            inputs: Vec::new(),
            inbox: Vec::new(),
            consumers: Vec::new(),
        };
    }

    /// A copy of a step that keeps nothing, between ticks, with those of its consumers that are among `steps`; `None` of a step that keeps something.
    pub(crate) fn copy(&self, steps: &[StepId]) -> Option<Self> {
        let consumers = self.consumers.iter().copied();
        Some(Self {
            owner: self.owner,
            stage: self.stage,
            kind: self.kind.copy()?,
            inputs: vec![Changes::default(); self.inputs.len()],
            inbox: Vec::new(),
            consumers: consumers
                .filter(|(consumer, _)| steps.contains(consumer))
                .collect(),
        })
    }

    pub(crate) const fn is_stopped(&self) -> bool {
        matches!(self.kind, Kind::Stopped)
    }
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// The changes of a collection, or of an entry of the registry, under the plan's column names.
    Get {
        relation: RelationId,
        schema: SchemaRef,
    },
    /// Rows that never change, emitted at hydration; empty on all shards but one.
    Constant {
        rows: Vec<RecordBatch>,
        schema: SchemaRef,
    },
    FilterProject(FilterProject),
    /// Passes rows without NULL in these columns.
    NotNull {
        columns: Vec<usize>,
    },
    /// Sends rows to the shards of their hash; [`Kind::Receive`] or [`Kind::Share`] with the id `receiver` takes them in on the next stage.
    Exchange {
        route: Route,
        receiver: StepId,
    },
    Receive,
    /// Takes in, consolidates and keeps what an entry of the registry holds, for the dataflows that use it.
    Share {
        relation: RelationId,
    },
    /// Consolidates its input and keeps it in a relation.
    Arrange {
        relation: RelationId,
    },
    Join(Join),
    Aggregate(Box<Aggregate>),
    Distinct(Distinct),
    Union {
        schema: SchemaRef,
    },
    TopK(Box<TopK>),
    Recompute(Box<Recompute>),
    /// The content of a collection with a relation of its own.
    Export {
        collection: ObjectId,
        relation: RelationId,
    },
    /// Output that is not stored here: a subscription, or an index on a relation that exists.
    Publish {
        id: ObjectId,
        schema: SchemaRef,
    },
    /// Its dataflow has failed on this shard.
    Stopped,
}

impl Kind {
    /// Whether the step runs in a hydrating tick although nothing came in.
    pub(crate) fn starts_hydration(&self, shard: usize) -> bool {
        match self {
            Self::Get { .. } | Self::Constant { .. } | Self::Export { .. } => true,
            Self::Aggregate(aggregate) => aggregate.owns_global(),
            Self::Recompute(_) => shard == 0,
            _ => false,
        }
    }

    /// The same for another shard value, of the kinds that steps of entries of the registry have; they keep nothing.
    fn copy(&self) -> Option<Self> {
        Some(match self {
            Self::Get { relation, schema } => Self::Get {
                relation: *relation,
                schema: SchemaRef::clone(schema),
            },
            Self::NotNull { columns } => Self::NotNull {
                columns: columns.clone(),
            },
            Self::Exchange { route, receiver } => Self::Exchange {
                route: route.clone(),
                receiver: *receiver,
            },
            Self::Share { relation } => Self::Share {
                relation: *relation,
            },
            Self::Stopped => Self::Stopped,
            _ => return None,
        })
    }

    /// The relations that the operator looks rows up in after its first tick, and the index by which it does.
    pub(crate) fn reads(&self) -> Vec<(RelationId, usize)> {
        let of_rows = |relation: &RelationId| (*relation, 0);
        match self {
            Self::Join(join) => [&join.left, &join.right]
                .map(|side| (side.relation, side.index))
                .to_vec(),
            Self::Distinct(distinct) => vec![of_rows(&distinct.relation)],
            Self::Recompute(recompute) => {
                let inputs = recompute.inputs.iter();
                inputs.map(|(relation, _)| of_rows(relation)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Groups or rows that the operator keeps to itself.
    pub(crate) fn state(&self) -> usize {
        match self {
            Self::Aggregate(operator) => operator.len(),
            Self::TopK(operator) => operator.len(),
            Self::Recompute(operator) => operator.len(),
            _ => 0,
        }
    }

    /// The operator and the bytes of what it keeps to itself that are not in `held` yet; `None` for one that keeps nothing.
    pub(crate) fn bytes(&self, held: &Held) -> Option<(&'static str, usize)> {
        Some(match self {
            Self::Aggregate(operator) => ("aggregate", operator.bytes()),
            Self::TopK(operator) => ("top k", operator.bytes()),
            Self::Recompute(operator) => ("recompute", operator.bytes(held)),
            Self::Constant { rows, .. } => {
                ("constant", rows.iter().map(|rows| held.add(rows)).sum())
            }
            _ => return None,
        })
    }

    /// Runs operators that only read relations. The others are run by the executor.
    pub(crate) fn run(
        &mut self,
        tick: Tick<'_>,
        mut inputs: Vec<Changes>,
    ) -> Result<Changes, Error> {
        match self {
            Self::Get { relation, schema } => {
                let input = if tick.hydrating {
                    let current = tick.relations.get(*relation)?.current();
                    Changes {
                        deltas: current.deltas(tick.epoch)?,
                        errors: current.errors,
                    }
                } else {
                    merge(inputs)
                };
                rename(input, schema)
            }
            Self::Constant { rows, schema } => {
                let deltas = rows
                    .iter()
                    .map(|rows| DeltaBatch::insert(rows.clone(), tick.epoch))
                    .collect();
                rename(
                    Changes {
                        deltas,
                        errors: Vec::new(),
                    },
                    schema,
                )
            }
            Self::FilterProject(operator) => operator.run(merge(inputs)),
            Self::NotNull { columns } => not_null(merge(inputs), columns),
            Self::Join(operator) => {
                let right = inputs.pop().unwrap_or_default();
                let left = inputs.pop().unwrap_or_default();
                operator.run(tick, left, right)
            }
            Self::Aggregate(operator) => operator.run(tick, merge(inputs)),
            Self::Distinct(operator) => operator.run(tick, merge(inputs)),
            Self::Union { schema } => rename(merge(inputs), schema),
            Self::TopK(operator) => operator.run(tick, merge(inputs)),
            Self::Recompute(operator) => {
                // A step has a port even if its operator reads nothing.
                inputs.truncate(operator.inputs.len());
                operator.run(tick, inputs)
            }
            Self::Exchange { .. }
            | Self::Receive
            | Self::Share { .. }
            | Self::Arrange { .. }
            | Self::Export { .. }
            | Self::Publish { .. }
            | Self::Stopped => Err(Error::invariant("step is run by the executor")),
        }
    }
}

pub(crate) fn merge(inputs: Vec<Changes>) -> Changes {
    let mut merged = Changes::default();
    inputs.into_iter().for_each(|input| merged.append(input));
    merged
}

/// What came in by the ports and from all shards. The order of arrival is not deterministic; the order of shards is.
pub(crate) fn receive(inputs: Vec<Changes>, mut inbox: Vec<(usize, Vec<DeltaBatch>)>) -> Changes {
    inbox.sort_by_key(|(from, _)| *from);
    let mut input = merge(inputs);
    input
        .deltas
        .extend(inbox.into_iter().flat_map(|(_, deltas)| deltas));
    input
}

/// Splits changes by the shard their rows go to: (shard, deltas), ascending, only shards that get rows.
pub(crate) fn route_changes(
    deltas: &[DeltaBatch],
    route: &Route,
    shards: usize,
) -> Result<Vec<(usize, Vec<DeltaBatch>)>, Error> {
    let mut parts = vec![Vec::new(); shards];
    for delta in deltas {
        let columns = match route {
            Route::Single => {
                if let Some(part) = parts.first_mut() {
                    part.push(delta.clone());
                }
                continue;
            }
            Route::Hash(columns) => columns,
        };
        let mut rows = vec![Vec::new(); shards];
        for (row, hash) in hash_columns(delta.rows.columns(), columns, delta.len())?
            .into_iter()
            .enumerate()
        {
            if let Some(rows) = rows.get_mut(shard_of(hash, shards)) {
                rows.push(index(row));
            }
        }
        for (part, rows) in itertools::zip_eq(&mut parts, rows) {
            if rows.len() == delta.len() {
                part.push(delta.clone());
            } else if !rows.is_empty() {
                part.push(delta.take(&UInt32Array::from(rows))?);
            }
        }
    }
    Ok(parts
        .into_iter()
        .enumerate()
        .filter(|(_, deltas)| !deltas.is_empty())
        .collect())
}

/// Consolidates the input of an arrangement. At hydration it is applied at once, for the operators behind it find everything in the relation then.
pub(crate) fn arrange(
    relations: &mut Relations,
    relation: RelationId,
    input: Changes,
    (epoch, hydrating): (Epoch, bool),
) -> Result<Changes, Error> {
    let relation = relations.get_mut(relation)?;
    let delta = consolidate(relation.schema(), &input.deltas, epoch)?;
    if hydrating {
        relation.apply(delta.as_ref(), &[], epoch)?;
    }
    Ok(Changes {
        deltas: delta.into_iter().collect(),
        errors: input.errors,
    })
}

/// The same for an entry of the registry, whose relation keeps the errors too: who uses it later begins with what it holds.
pub(crate) fn share(
    relations: &mut Relations,
    relation: RelationId,
    input: Changes,
    (epoch, hydrating): (Epoch, bool),
) -> Result<Changes, Error> {
    let relation = relations.get_mut(relation)?;
    let delta = consolidate(relation.schema(), &input.deltas, epoch)?;
    let changes = Changes {
        deltas: delta.into_iter().collect(),
        errors: consolidate_errors(input.errors)?,
    };
    if hydrating {
        relation.apply(changes.deltas.first(), &changes.errors, epoch)?;
    }
    Ok(changes)
}

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

fn not_null(input: Changes, columns: &[usize]) -> Result<Changes, Error> {
    let mut output = Changes {
        deltas: Vec::with_capacity(input.deltas.len()),
        errors: input.errors,
    };
    for delta in input.deltas {
        let mut nulls = None;
        for column in columns {
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
