//! The incremental plan: what a maintained view computes, as a small graph of operators that the engine knows how to keep up to date.
//!
//! Nodes are in topological order; the last one is the result. The columns of every node are named `c0`, `c1`, … by position ([`column_name`]),
//! so that an expression over a node refers to its input's columns by those names, unqualified.

use std::fmt;

use arrow_schema::SchemaRef;
use flowstone_types::ObjectId;
use serde::{Deserialize, Serialize};

/// The name of column `index` in every node of a plan.
#[must_use]
pub fn column_name(index: usize) -> String {
    format!("c{index}")
}

/// A scalar expression over one node's columns: a DataFusion logical expression as `functions::codec` writes it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Expr {
    /// The encoded expression.
    pub bytes: Vec<u8>,
    /// The expression as EXPLAIN shows it.
    pub text: String,
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Position of a node in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub usize);

/// An incremental plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Topologically ordered, never empty; the last node is the result.
    pub nodes: Vec<Node>,
}

/// One operator of a plan and the columns it yields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What it computes.
    pub operator: Operator,
    /// Its columns, named by [`column_name`]; the SQL types are in the field metadata.
    pub schema: SchemaRef,
}

/// The operators. Inputs are always earlier nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Operator {
    /// A maintained collection.
    Get {
        /// Which one.
        collection: ObjectId,
    },
    /// Rows that never change, as an Arrow IPC stream; emitted when the dataflow is created.
    Constant {
        /// [`crate::ipc::encode_batches`] of the rows.
        rows: Vec<u8>,
    },
    /// Fused filter and projection: rows for which every predicate is true, each mapped to one value per projection. Linear, stateless.
    ///
    /// Predicates are evaluated in order and a later one only on rows that passed the earlier ones; projections only on rows that passed all.
    FilterProject {
        /// The input.
        input: NodeId,
        /// Boolean expressions over the input.
        predicates: Vec<Expr>,
        /// Expressions over the input; one output column each.
        projections: Vec<Expr>,
    },
    /// Inner equi-join. Output: the left columns, then the right columns.
    Join {
        /// Left input.
        left: NodeId,
        /// Right input.
        right: NodeId,
        /// Key columns of the left input; pairwise of the same type as `right_keys`. Empty for a cross join.
        left_keys: Vec<usize>,
        /// Key columns of the right input.
        right_keys: Vec<usize>,
        /// Whether NULL matches NULL (`IS NOT DISTINCT FROM`).
        null_equals_null: bool,
    },
    /// Grouping with aggregates. Output: the group columns, then one column per aggregate. Without group columns there is always exactly one row.
    Aggregate {
        /// The input.
        input: NodeId,
        /// Group columns of the input.
        group: Vec<usize>,
        /// The aggregates; output types are in the node's schema.
        aggregates: Vec<Aggregate>,
    },
    /// Each distinct row once.
    Distinct {
        /// The input.
        input: NodeId,
    },
    /// Bag union.
    Union {
        /// The inputs, all with the same column types.
        inputs: Vec<NodeId>,
    },
    /// The first `limit` rows after `offset` of each group in an order made total by the remaining columns. `DISTINCT ON` is `limit` 1.
    TopK {
        /// The input.
        input: NodeId,
        /// Group columns; empty for one global group.
        group: Vec<usize>,
        /// The order inside a group.
        order: Vec<OrderColumn>,
        /// How many rows; all if `None`.
        limit: Option<u64>,
        /// How many rows to pass over first.
        offset: u64,
    },
    /// Anything else: evaluated anew over the consolidated inputs at each epoch that touches them, and diffed.
    Recompute {
        /// The inputs, scanned by the query as tables `input_0`, `input_1`, … with columns `c0`, `c1`, …
        inputs: Vec<NodeId>,
        /// The query, as `functions::codec` writes it.
        query: QueryPlan,
        /// Why it is not incremental, for EXPLAIN and the NOTICE: `window functions`, `left outer join`.
        reason: String,
    },
    /// A query of which rows with different keys have nothing to do with each other: evaluated anew for the keys whose rows change. Output: the columns of the
    /// query, the last of which are the key.
    RecomputeGroups {
        /// The inputs with their key columns, pairwise of the same types, scanned as in [`Operator::Recompute`].
        inputs: Vec<(NodeId, Vec<usize>)>,
        /// The query, as `functions::codec` writes it.
        query: QueryPlan,
        /// Whether rows with NULL in their key have nothing to do with any other row.
        nulls_alone: bool,
        /// What it computes, for EXPLAIN: `window functions`, `left outer join`.
        what: String,
    },
    /// A query of which no row has anything to do with another: evaluated for the rows that come or go. Stateless.
    RecomputeRows {
        /// The input, scanned as in [`Operator::Recompute`].
        input: NodeId,
        /// The query, as `functions::codec` writes it.
        query: QueryPlan,
        /// What it computes, for EXPLAIN: `set-returning functions`.
        what: String,
    },
}

/// A query plan: a DataFusion logical plan as `functions::codec` writes it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QueryPlan {
    /// The encoded plan.
    pub bytes: Vec<u8>,
    /// The plan as EXPLAIN shows it.
    pub text: String,
}

impl fmt::Debug for QueryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One aggregate of an [`Operator::Aggregate`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Aggregate {
    /// What it computes.
    pub function: AggregateFunction,
    /// The input column it reads; `None` only for [`AggregateFunction::Count`], which then counts rows.
    pub argument: Option<usize>,
    /// A boolean input column: only rows where it is true take part (`FILTER (WHERE …)`).
    pub filter: Option<usize>,
    /// Whether equal arguments count once.
    pub distinct: bool,
}

/// The aggregates that are maintained incrementally. NULL arguments are passed over by all of them.
///
/// Result types: `count` int8; `sum` of int2/int4 int8, of int8/uint8 `numeric(38,0)`, of `numeric(p,s)` `numeric(38,s)`, of a float that float;
/// `avg` of an integer or numeric `numeric`, of a float float8; `min`/`max` the argument's type; `bool_and`/`bool_or` bool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AggregateFunction {
    /// `count(*)` or `count(x)`
    Count,
    /// `sum(x)`; NULL over no values
    Sum,
    /// `avg(x)`; NULL over no values; numeric results rounded half away from zero at the result's scale
    Avg,
    /// `min(x)`
    Min,
    /// `max(x)`
    Max,
    /// `bool_and(x)`
    BoolAnd,
    /// `bool_or(x)`
    BoolOr,
}

/// One column of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OrderColumn {
    /// Which column.
    pub column: usize,
    /// Largest first.
    pub descending: bool,
    /// NULLs before everything else.
    pub nulls_first: bool,
}

impl Plan {
    /// The result node.
    #[must_use]
    pub fn root(&self) -> Option<&Node> {
        self.nodes.last()
    }

    /// The collections the plan reads, each once, in order of first use.
    #[must_use]
    pub fn collections(&self) -> Vec<ObjectId> {
        let mut found = Vec::new();
        for node in &self.nodes {
            if let Operator::Get { collection } = &node.operator
                && !found.contains(collection)
            {
                found.push(*collection);
            }
        }
        found
    }
}

impl Operator {
    /// The inputs of this operator.
    #[must_use]
    pub fn inputs(&self) -> Vec<NodeId> {
        match self {
            Self::Get { .. } | Self::Constant { .. } => Vec::new(),
            Self::FilterProject { input, .. }
            | Self::Aggregate { input, .. }
            | Self::Distinct { input }
            | Self::TopK { input, .. }
            | Self::RecomputeRows { input, .. } => vec![*input],
            Self::Join { left, right, .. } => vec![*left, *right],
            Self::Union { inputs } | Self::Recompute { inputs, .. } => inputs.clone(),
            Self::RecomputeGroups { inputs, .. } => {
                inputs.iter().map(|(input, _)| *input).collect()
            }
        }
    }

    /// The query that it evaluates, if that is what it does.
    #[must_use]
    pub const fn query(&self) -> Option<&QueryPlan> {
        match self {
            Self::Recompute { query, .. }
            | Self::RecomputeGroups { query, .. }
            | Self::RecomputeRows { query, .. } => Some(query),
            _ => None,
        }
    }
}
