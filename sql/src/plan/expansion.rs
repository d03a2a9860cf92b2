//! How large a statement becomes: what WITH and views stand for is planned wherever they are named, so that a short text can stand for any number of scans.
//!
//! Owns the limits, of the text before anything walks through what it stands for, and of its plan, which has the views in it. Called by [`crate::plan`].

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::common::DataFusionError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{ObjectName, Query, Visit, Visitor};

use super::names::{fold, fold_name};
use crate::error::{Error, ErrorKind};

/// Nodes of a plan that rules go through in reasonable time.
const PLAN_NODES_MAX: usize = 20_000;

fn too_complex() -> Error {
    Error::new(ErrorKind::TooComplex, "statement is too complex").with_hint(
        "What WITH and views stand for is planned wherever they are named: name them less often, or materialize them.",
    )
}

/// Refuses a statement whose WITH queries name each other so often that they cannot all be planned.
pub(super) fn refuse_repetition(query: &Query) -> Result<(), Error> {
    if relations(query, BTreeMap::new()) > PLAN_NODES_MAX {
        return Err(too_complex());
    }
    Ok(())
}

/// Relations that a query names, with those that the names of WITH queries stand for, of which `known` are around it.
fn relations(query: &Query, known: BTreeMap<String, usize>) -> usize {
    let mut counter = Counter { known, count: 0 };
    match query.visit(&mut counter) {
        ControlFlow::Continue(()) | ControlFlow::Break(()) => counter.count,
    }
}

struct Counter {
    /// What the names of WITH queries stand for.
    known: BTreeMap<String, usize>,
    count: usize,
}

impl Visitor for Counter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let count = relations(&cte.query, self.known.clone());
            self.known.insert(fold(&cte.alias.name), count.max(1));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let stands_for = match fold_name(relation).as_slice() {
            [name] => self.known.get(name).copied(),
            _ => None,
        };
        self.count = self.count.saturating_add(stands_for.unwrap_or(1));
        ControlFlow::Continue(())
    }
}

/// Refuses a plan that no rule could go through in reasonable time.
pub(super) fn refuse_too_large(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let mut nodes = 0;
    plan.apply_with_subqueries(|_| {
        nodes += 1;
        Ok(if nodes > PLAN_NODES_MAX {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    if nodes > PLAN_NODES_MAX {
        return Err(DataFusionError::External(Box::new(too_complex())));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(sql: &str) -> Result<(), Error> {
        refuse_repetition(&crate::parse::parse_query(sql).unwrap())
    }

    #[test]
    fn queries_that_double_each_other_are_refused_and_long_ones_are_not() {
        let doubled = |times: usize| {
            let queries: Vec<String> = (1..=times)
                .map(|n| {
                    format!(
                        "w{n} AS (SELECT * FROM w{m} UNION ALL SELECT * FROM w{m})",
                        m = n - 1
                    )
                })
                .collect();
            format!(
                "WITH w0 AS (SELECT 1), {} SELECT * FROM W{times}",
                queries.join(", ")
            )
        };
        assert!(outcome(&doubled(8)).is_ok());
        assert_eq!(
            outcome(&doubled(25)).unwrap_err().kind,
            ErrorKind::TooComplex
        );
        let joined = vec!["t"; 1000].join(", ");
        assert!(outcome(&format!("SELECT * FROM {joined}")).is_ok());
    }
}
