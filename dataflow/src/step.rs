//! Steps: the nodes of the graph a shard runs. A plan node becomes one step or several (exchange, arrangement, operator).
//!
//! Invariants. A step has the same name on every shard, whatever could not be rendered on one of them, and every edge goes from a lower to a higher one.
//! An edge never goes to a lower stage.

use arrow_array::UInt32Array;
use arrow_schema::SchemaRef;
use flowstone_types::{DeltaBatch, Epoch, ObjectId};

use crate::Error;
use crate::batch::{Changes, consolidate, consolidate_errors, index};
use crate::operator::{Operator, RelationId, Relations, merge};
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

/// What a step does: an operator of the plan, or what moves rows between operators, keeps them or puts them out, which is the executor's.
#[derive(Debug)]
pub(crate) enum Kind {
    Operator(Box<dyn Operator>),
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
    pub(crate) fn of(operator: impl Operator + 'static) -> Self {
        Self::Operator(Box::new(operator))
    }

    /// The operator of the plan that it is, if it is one.
    pub(crate) fn operator(&self) -> Option<&dyn Operator> {
        match self {
            Self::Operator(operator) => Some(operator.as_ref()),
            _ => None,
        }
    }

    /// Whether the step runs in a hydrating tick although nothing came in.
    pub(crate) fn starts_hydration(&self) -> bool {
        match self {
            Self::Operator(operator) => operator.hydrates_alone(),
            Self::Export { .. } => true,
            _ => false,
        }
    }

    /// The same for another shard value, of the kinds that steps of entries of the registry have; they keep nothing.
    fn copy(&self) -> Option<Self> {
        Some(match self {
            Self::Operator(operator) => Self::Operator(operator.copy()?),
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
