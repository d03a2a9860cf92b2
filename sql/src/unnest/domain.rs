//! The domain of a subquery: the different values that it asks for.
//!
//! Owns domains, and which operators of a subquery ask. Must not know how a domain is carried through them ([`super::carry`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::common::{Column, Result};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use super::expressions::{columns_of, is_volatile, named, projected, telling_apart, unsupported};
use super::{Grown, Unnesting};

/// Values for each of which a subquery is run.
pub(super) struct Domain {
    pub(super) plan: LogicalPlan,
    /// What they are called outside.
    pub(super) asked: Vec<Column>,
    /// What they are made of outside: the columns, and behind them the texts of those whose values may be equal and not the same.
    pub(super) outside: Vec<Expr>,
    /// What these are called inside.
    pub(super) named: Vec<Column>,
    /// Whether the rows that it comes from stand elsewhere too.
    pub(super) repeats: bool,
}

impl Domain {
    /// The different values that `asked` has in rows.
    pub(super) fn of(
        unnesting: &mut Unnesting,
        grown: &mut Grown,
        asked: Vec<Column>,
    ) -> Result<Self> {
        let source = grown.source(&asked);
        if is_volatile(&source)? {
            return Err(chance());
        }
        if reads_rounds(&source)? {
            return Err(unsupported(
                "this form of correlated subquery is not supported over the rows of a recursive query itself",
                "Correlate it by equality only, or join outside of the recursive query.",
            ));
        }
        unnesting.repeats(&source)?;
        let mut outside: Vec<Expr> = asked.iter().cloned().map(Expr::Column).collect();
        for column in &asked {
            outside.extend(telling_apart(column, source.schema())?);
        }
        let names: Vec<Column> = outside.iter().map(|_| unnesting.name("outer")).collect();
        let items = outside
            .iter()
            .zip(&names)
            .map(|(expr, name)| named(expr.clone(), name))
            .collect();
        let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(projected(source, items)?)));
        Ok(Self {
            plan,
            asked,
            outside,
            named: names,
            repeats: true,
        })
    }

    /// All rows of a plan as they are, some maybe more than once: only for what does something with each of them alone.
    pub(super) fn of_rows(unnesting: &mut Unnesting, plan: LogicalPlan) -> Result<Self> {
        let asked = plan.schema().columns();
        let names: Vec<Column> = asked.iter().map(|_| unnesting.name("column")).collect();
        let outside = columns_of(&plan);
        let items = outside
            .iter()
            .zip(&names)
            .map(|(expr, name)| named(expr.clone(), name))
            .collect();
        Ok(Self {
            plan: projected(plan, items)?,
            asked,
            outside,
            named: names,
            repeats: false,
        })
    }

    pub(super) fn columns(&self) -> Vec<Expr> {
        self.named.iter().cloned().map(Expr::Column).collect()
    }

    /// What a column of the rows around is called inside.
    pub(super) fn inside(&self, column: &Column) -> Option<Expr> {
        let place = self.asked.iter().position(|asked| asked == column)?;
        self.named.get(place).cloned().map(Expr::Column)
    }
}

/// The refusal of functions of chance where a query is run for other rows, or more often, than it says.
pub(super) fn chance() -> datafusion::common::DataFusionError {
    unsupported(
        "this form of correlated subquery is not supported beside functions of chance",
        "Call the function outside of the query with the subquery.",
    )
}

/// The operators of a subquery that ask for columns of the rows around it, or are above one that does. They are told by where they are: nothing moves
/// while they are looked up.
#[derive(Default)]
pub(super) struct Asking {
    nodes: BTreeSet<*const LogicalPlan>,
}

impl Asking {
    /// Adds those of `plan`. `works`: names of recursive queries whose rows have the domain beside them.
    pub(super) fn add(
        &mut self,
        plan: &LogicalPlan,
        asked: &[Column],
        works: &[String],
    ) -> Result<()> {
        let mut visitor = Visitor {
            nodes: &mut self.nodes,
            asked,
            works,
            open: Vec::new(),
        };
        plan.visit(&mut visitor).map(|_| ())
    }

    pub(super) fn contains(&self, plan: &LogicalPlan) -> bool {
        self.nodes.contains(&std::ptr::from_ref(plan))
    }
}

struct Visitor<'v> {
    nodes: &'v mut BTreeSet<*const LogicalPlan>,
    asked: &'v [Column],
    works: &'v [String],
    /// Of the nodes that are being visited, whether something below asks.
    open: Vec<bool>,
}

impl<'n> TreeNodeVisitor<'n> for Visitor<'_> {
    type Node = LogicalPlan;

    fn f_down(&mut self, _node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        self.open.push(false);
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        let below = self.open.pop().unwrap_or(false);
        if below || self.asks(node)? {
            self.nodes.insert(std::ptr::from_ref(node));
            if let Some(above) = self.open.last_mut() {
                *above = true;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }
}

impl Visitor<'_> {
    fn asks(&self, node: &LogicalPlan) -> Result<bool> {
        if let Some(name) = work_table(node) {
            return Ok(self.works.contains(&name));
        }
        let mut found = false;
        node.apply_expressions(|expr| {
            found |= super::expressions::asks(expr, self.asked)?;
            Ok(if found {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        })?;
        Ok(found)
    }
}

/// Whether a plan reads the rows of the last round of a recursive query around it: these can be read once.
fn reads_rounds(plan: &LogicalPlan) -> Result<bool> {
    let mut rounds = Rounds::default();
    plan.visit(&mut rounds)?;
    Ok(rounds.found)
}

#[derive(Default)]
struct Rounds {
    /// Recursive queries that are being visited.
    inside: Vec<String>,
    found: bool,
}

impl<'n> TreeNodeVisitor<'n> for Rounds {
    type Node = LogicalPlan;

    fn f_down(&mut self, node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        if let LogicalPlan::RecursiveQuery(query) = node {
            self.inside.push(query.name.clone());
        }
        self.found |= work_table(node).is_some_and(|name| !self.inside.contains(&name));
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        if matches!(node, LogicalPlan::RecursiveQuery(_)) {
            self.inside.pop();
        }
        Ok(TreeNodeRecursion::Continue)
    }
}

/// The name of the recursive query whose rows a scan reads.
pub(super) fn work_table(node: &LogicalPlan) -> Option<String> {
    let LogicalPlan::TableScan(scan) = node else {
        return None;
    };
    let provider = source_as_provider(&scan.source).ok()?;
    let table = provider.downcast_ref::<CteWorkTable>()?;
    Some(table.name().to_owned())
}
