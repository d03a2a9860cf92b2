//! Subqueries as joins: dependent joins and their removal by algebra.
//!
//! Owns the node that stands for a subquery in a bound plan ([`DependentJoin`]) and the way from there to a plan without: what a subquery asks of the rows
//! around it is taken up to the join where that is known to be right (`simple`: conditions, and what is computed of one row); otherwise the subquery is run
//! once for all different values that it asks for, its *domain*, which is carried through every operator of it (`domain`, `carry`), and what comes out is
//! joined to the rows that asked (`attach`). Source: Neumann, Kemper, "Unnesting Arbitrary Queries", BTW 2015.
//! Must not know the syntax tree, nor where plans run. Called once for each statement, when it is bound. Windows, groupings and joins that are made here
//! are by values as they are: the keys of those whose order or equality is not Arrow's are put in afterwards.
//!
//! Invariants. A plan keeps its columns. Columns of ours begin with [`INTERNAL`] and are numbered, so that they are never another's. The result has nodes of
//! DataFusion only, no outer reference of its own joins, and no subquery expression. One query that runs once and one that is maintained come from the same
//! result. Nothing that may fail is evaluated for rows that a WHERE inside of a subquery removed.

mod attach;
mod carry;
mod domain;
mod expressions;
mod joins;
mod marks;
mod node;
mod shapes;
mod simple;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, TableReference};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan};
use flowstone_functions::execution::still_wanted;

use crate::names::INTERNAL;
pub(crate) use carry::sets_of;
use expressions::{broken, columns_in, filtered, has_exactly, projected, too_complex};
pub(crate) use node::{DependentJoin, DependentKind, as_dependent, dependent_join};

/// Operators on a way through a subquery.
const DEPTH_MAX: usize = 500;

/// Nodes that are repeated in one plan, for domains and for what they are carried through.
const REPEATED_MAX: usize = 20_000;

/// Removes every dependent join. The result has the columns of `plan`.
///
/// # Errors
/// [`crate::error::ErrorKind::FeatureNotSupported`] for functions of chance that would be called for other rows than those they stand for, and
/// [`crate::error::ErrorKind::TooComplex`] for what is nested too deeply or becomes too large.
///
/// Cost: O(nodes · depth of nested subqueries), except that a domain repeats the rows that it comes from.
pub(crate) fn unnest(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !plan.exists(|node| Ok(as_dependent(node).is_some()))? {
        return Ok(plan);
    }
    let schema = Arc::clone(plan.schema());
    let mut unnesting = Unnesting::default();
    let plan = plan.transform_up(|node| unnesting.node(node))?.data;
    let plan = unnesting.settled(plan)?;
    with_columns(plan, &schema)
}

/// The plan with the columns of `schema`, which it has already, maybe under other names.
fn with_columns(plan: LogicalPlan, schema: &DFSchema) -> Result<LogicalPlan> {
    let (columns, wanted) = (plan.schema().columns(), schema.columns());
    if columns == wanted {
        return Ok(plan);
    }
    if columns.len() != wanted.len() {
        return Err(broken("a plan lost a column when a subquery was unnested"));
    }
    let items = columns
        .into_iter()
        .zip(&wanted)
        .map(|(column, wanted)| expressions::named(Expr::Column(column), wanted))
        .collect();
    projected(plan, items)
}

/// The dependent joins at the top of a plan, the lowest first, and what is below them.
fn chain_of(mut plan: LogicalPlan) -> (LogicalPlan, Vec<DependentJoin>) {
    let mut chain = Vec::new();
    while let Some(join) = as_dependent(&plan) {
        let join = join.clone();
        plan = join.left.clone();
        chain.push(join);
    }
    chain.reverse();
    (plan, chain)
}

/// What a condition says of the column of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// Nothing: it is a value.
    None,
    /// It must be true.
    True,
    /// It must be false.
    False,
}

/// Rows with the values of subqueries that were joined to them so far.
struct Grown {
    plan: LogicalPlan,
    /// Where domains come from: the rows at first, and behind them those with what was joined to them that something asks for.
    sources: Vec<LogicalPlan>,
}

impl Grown {
    fn new(plan: LogicalPlan) -> Self {
        Self {
            sources: vec![plan.clone()],
            plan,
        }
    }

    /// The first rows that have all these columns. What was joined to them later only removed or repeated some.
    fn source(&mut self, asked: &[Column]) -> LogicalPlan {
        let has_all = |plan: &LogicalPlan| {
            asked
                .iter()
                .all(|column| has_exactly(plan.schema(), column))
        };
        if let Some(source) = self.sources.iter().find(|source| has_all(source)) {
            return source.clone();
        }
        self.sources.push(self.plan.clone());
        self.plan.clone()
    }

    /// Keeps the rows for which those of the conditions hold that can be evaluated by now.
    fn keep(&mut self, conditions: &mut Vec<Expr>) -> Result<()> {
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for condition in std::mem::take(conditions) {
            let mut columns = Vec::new();
            columns_in(&condition, &mut columns)?;
            let schema = self.plan.schema();
            let there = columns.iter().all(|column| schema.has_column(column));
            if there && !condition.is_volatile() {
                now.push(condition);
            } else {
                later.push(condition);
            }
        }
        *conditions = later;
        if !now.is_empty() {
            let plan = std::mem::take(&mut self.plan);
            self.plan = filtered(plan, now)?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Unnesting {
    /// Numbers given to columns so far.
    numbers: usize,
    /// Nodes that were repeated so far.
    repeated: usize,
    /// Operators around the one that a domain is carried through.
    depth: usize,
}

impl Unnesting {
    fn name(&mut self, what: &str) -> Column {
        self.numbers += 1;
        Column::new_unqualified(format!("{INTERNAL}{what} {}", self.numbers))
    }

    fn relation(&mut self, what: &str) -> TableReference {
        self.numbers += 1;
        TableReference::bare(format!("{INTERNAL}{what} {}", self.numbers))
    }

    /// Accounts for a plan that is going to be repeated.
    fn repeats(&mut self, plan: &LogicalPlan) -> Result<()> {
        let left = REPEATED_MAX.saturating_sub(self.repeated);
        let mut nodes = 0_usize;
        plan.apply(|_| {
            nodes += 1;
            Ok(if nodes > left {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        })?;
        if nodes > left {
            return Err(too_complex("statement is too complex"));
        }
        self.repeated += nodes;
        Ok(())
    }

    /// One operator further down a subquery; [`Unnesting::leave`] goes back up.
    fn enter(&mut self) -> Result<()> {
        if self.depth >= DEPTH_MAX {
            return Err(too_complex("a correlated subquery is nested too deeply"));
        }
        self.depth += 1;
        Ok(())
    }

    const fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// A node whose inputs have no dependent joins, except that such may be at their top: those are removed here. One that is on top itself waits for the
    /// node above, which may be a condition on its columns.
    fn node(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if let Some(join) = as_dependent(&node) {
            if as_dependent(&join.right).is_none() {
                return Ok(Transformed::no(node));
            }
            let right = self.settled(join.right.clone())?;
            return dependent_join(join.left.clone(), right, join.kind.clone(), join.on.clone())
                .map(Transformed::yes);
        }
        match node {
            LogicalPlan::Filter(filter) if as_dependent(&filter.input).is_some() => {
                self.filter(filter).map(Transformed::yes)
            }
            // Its columns have types of their own.
            LogicalPlan::Unnest(_) | LogicalPlan::Union(_) => self.inputs_settled(node),
            other => {
                let settled = self.inputs_settled(other)?;
                settled
                    .map_data(LogicalPlan::recompute_schema)
                    .map(|settled| Transformed::yes(settled.data))
            }
        }
    }

    fn inputs_settled(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        node.map_children(|input| {
            if as_dependent(&input).is_none() {
                return Ok(Transformed::no(input));
            }
            self.settled(input).map(Transformed::yes)
        })
    }

    /// The plan without the dependent joins at its top.
    fn settled(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        if as_dependent(&plan).is_none() {
            return Ok(plan);
        }
        let (base, chain) = chain_of(plan);
        let mut grown = Grown::new(base);
        for join in chain {
            still_wanted()?;
            self.attach(&mut grown, &join, Condition::None)?;
        }
        Ok(grown.plan)
    }

    /// Conditions over dependent joins: each is evaluated as soon as its columns are there, and those that are marks decide which rows remain.
    fn filter(&mut self, filter: Filter) -> Result<LogicalPlan> {
        let schema = Arc::clone(filter.input.schema());
        let (base, chain) = chain_of(Arc::unwrap_or_clone(filter.input));
        let mut conditions = split_conjunction_owned(filter.predicate);
        let mut grown = Grown::new(base);
        grown.keep(&mut conditions)?;
        grown.sources = vec![grown.plan.clone()];
        for join in chain {
            still_wanted()?;
            let condition = match &join.kind {
                DependentKind::Mark { column } => taken(&mut conditions, column),
                _ => Condition::None,
            };
            self.attach(&mut grown, &join, condition)?;
            grown.keep(&mut conditions)?;
        }
        let plan = filtered(grown.plan, conditions)?;
        with_columns(plan, &schema)
    }
}

/// Takes a condition on the column of a mark out of the others.
fn taken(conditions: &mut Vec<Expr>, mark: &Column) -> Condition {
    let said = |condition: &Expr| match condition {
        Expr::Column(column) if column == mark => Condition::True,
        Expr::Not(inner) if matches!(&**inner, Expr::Column(column) if column == mark) => {
            Condition::False
        }
        _ => Condition::None,
    };
    let place = conditions
        .iter()
        .position(|condition| said(condition) != Condition::None);
    match place {
        None => Condition::None,
        Some(place) => said(&conditions.remove(place)),
    }
}
