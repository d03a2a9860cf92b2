//! How large a statement becomes: what WITH and views stand for is planned wherever they are named, so that a short text can stand for any number of scans.
//!
//! Owns the limits, of the text before anything walks through what it stands for, and of its plan, which has the views in it. Called by planning and by the binder.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::common::DataFusionError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{ObjectName, Query, Visit, Visitor};

use crate::error::{Error, ErrorKind};
use crate::names::{fold, fold_name};

/// Nodes of a plan that rules go through in reasonable time.
const PLAN_NODES_MAX: usize = 20_000;

fn too_complex() -> Error {
    Error::new(ErrorKind::TooComplex, "statement is too complex").with_hint(
        "What WITH and views stand for is planned wherever they are named: name them less often, or materialize them.",
    )
}

/// Refuses a statement whose WITH queries name each other so often that they cannot all be planned.
pub(crate) fn refuse_repetition(statement: &impl Visit) -> Result<(), Error> {
    let mut counter = Counter::default();
    let outcome = statement.visit(&mut counter);
    debug_assert!(outcome.is_continue(), "the visitor never breaks");
    if counter.count.saturating_add(counter.defined) > PLAN_NODES_MAX {
        return Err(too_complex());
    }
    Ok(())
}

/// A query around the place.
struct Around {
    /// The name that it defines, if it is one of WITH.
    defines: Option<String>,
    /// What was counted before it.
    before: usize,
    /// Names that were known before it.
    known: usize,
}

/// Counts the relations that queries name, with those that the names of WITH queries stand for. It passes each query once.
#[derive(Default)]
struct Counter {
    /// What the names of WITH queries stand for, of each the innermost one last.
    known: BTreeMap<String, Vec<usize>>,
    /// These names, the innermost last.
    names: Vec<String>,
    around: Vec<Around>,
    /// Where the queries of WITH are, and the names that they define; nothing moves while they are visited.
    definitions: BTreeMap<*const Query, String>,
    /// Of the query at hand.
    count: usize,
    /// Of all queries of WITH.
    defined: usize,
}

impl Visitor for Counter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let place = std::ptr::from_ref(cte.query.as_ref());
            self.definitions.insert(place, fold(&cte.alias.name));
        }
        let defines = self.definitions.remove(&std::ptr::from_ref(query));
        self.around.push(Around {
            before: self.count,
            known: self.names.len(),
            defines,
        });
        self.count = 0;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        let Some(around) = self.around.pop() else {
            return ControlFlow::Continue(());
        };
        for name in self.names.split_off(around.known) {
            if let Some(known) = self.known.get_mut(&name) {
                known.pop();
            }
        }
        match around.defines {
            Some(name) => {
                self.defined = self.defined.saturating_add(self.count);
                let known = self.known.entry(name.clone()).or_default();
                known.push(self.count.max(1));
                self.names.push(name);
                self.count = around.before;
            }
            None => self.count = around.before.saturating_add(self.count),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let stands_for = match fold_name(relation).as_slice() {
            [name] => self.known.get(name).and_then(|known| known.last()).copied(),
            _ => None,
        };
        self.count = self.count.saturating_add(stands_for.unwrap_or(1));
        ControlFlow::Continue(())
    }
}

/// Refuses a plan that no rule could go through in reasonable time.
pub(crate) fn refuse_too_large(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
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
        // Each is looked at once, however deep it stands.
        let nested = |from: &str| {
            (0..20).fold("SELECT 1".to_owned(), |inner, _| {
                format!("WITH a AS ({inner}) SELECT 1{from}")
            })
        };
        assert!(outcome(&nested("")).is_ok());
        assert!(outcome(&nested(" FROM a")).is_ok());
        assert_eq!(
            outcome(&nested(" FROM a, a AS b")).unwrap_err().kind,
            ErrorKind::TooComplex
        );
        let joined = vec!["t"; 1000].join(", ");
        assert!(outcome(&format!("SELECT * FROM {joined}")).is_ok());
    }
}
