//! EXPLAIN: plans as lines of text.
//!
//! Owns how plans are shown. Called by the coordinator.

use std::collections::BTreeMap;

use flowstone_proto::plan::{Aggregate, AggregateFunction, NodeId, Operator, OrderColumn, Plan};
use flowstone_types::ObjectId;

use crate::names::INTERNAL;
use crate::plan::PlannedQuery;

/// The operators of an incremental plan, the result first and inputs indented below it. `names`: how a collection is called.
///
/// Every line ends with the state the operator keeps and what a change costs, or says that it recomputes. A node that several operators read is
/// shown in full once and numbered.
#[must_use]
pub fn explain_incremental(plan: &Plan, names: &dyn Fn(ObjectId) -> String) -> Vec<String> {
    let mut readers: BTreeMap<usize, usize> = BTreeMap::new();
    for node in &plan.nodes {
        for input in node.operator.inputs() {
            *readers.entry(input.0).or_default() += 1;
        }
    }
    let shared: Vec<usize> = readers
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(node, _)| node)
        .collect();
    let mut explainer = Explainer {
        plan,
        names,
        shared,
        shown: Vec::new(),
        lines: Vec::new(),
    };
    if let Some(root) = plan.nodes.len().checked_sub(1) {
        explainer.node(NodeId(root), 0);
    }
    explainer.lines
}

/// The logical plan of a query, one operator per line. `names`: how a collection is called.
#[must_use]
pub fn explain_plan(planned: &PlannedQuery, names: &dyn Fn(ObjectId) -> String) -> Vec<String> {
    named(&planned.plan.display_indent().to_string(), names)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A text with the names of collections in place of the ids that stand for them, and without the marks of our own names.
fn named(text: &str, names: &dyn Fn(ObjectId) -> String) -> String {
    let mut parts = text.split(INTERNAL);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part
            .find(|letter: char| !letter.is_ascii_alphanumeric())
            .unwrap_or(part.len());
        let (word, mut rest) = part.split_at(end);
        match word.parse::<ObjectId>() {
            Ok(id) => shown.push_str(&names(id)),
            // What makes a name occur once; a relation without a name is none.
            Err(_) if word.bytes().all(|byte| byte.is_ascii_digit()) => {
                if !shown.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_') {
                    rest = rest.strip_prefix('.').unwrap_or(rest);
                }
            }
            Err(_) => shown.push_str(word),
        }
        shown.push_str(rest);
    }
    shown
}

struct Explainer<'p> {
    plan: &'p Plan,
    names: &'p dyn Fn(ObjectId) -> String,
    /// Nodes that more than one operator reads.
    shared: Vec<usize>,
    shown: Vec<usize>,
    lines: Vec<String>,
}

impl Explainer<'_> {
    fn node(&mut self, id: NodeId, depth: usize) {
        let Some(node) = self.plan.nodes.get(id.0) else {
            return;
        };
        let indent = "  ".repeat(depth);
        let number = self
            .shared
            .iter()
            .position(|shared| *shared == id.0)
            .map(|position| format!("#{} ", position + 1))
            .unwrap_or_default();
        if self.shown.contains(&id.0) && !number.is_empty() {
            self.lines.push(format!("{indent}{number}(shown above)"));
            return;
        }
        self.shown.push(id.0);
        let (what, cost) = self.describe(&node.operator);
        self.lines.push(format!("{indent}{number}{what}  [{cost}]"));
        if let Some(query) = node.operator.query() {
            for line in named(&query.text, self.names).lines() {
                self.lines.push(format!("{indent}  | {line}"));
            }
        }
        for input in node.operator.inputs() {
            self.node(input, depth + 1);
        }
    }

    fn describe(&self, operator: &Operator) -> (String, &'static str) {
        match operator {
            Operator::Get { collection } => {
                (format!("Get {}", (self.names)(*collection)), "no state")
            }
            Operator::Constant { .. } => ("Constant".to_owned(), "no state"),
            Operator::FilterProject {
                predicates,
                projections,
                ..
            } => {
                let list = |exprs: &[flowstone_proto::plan::Expr]| {
                    exprs
                        .iter()
                        .map(|expr| named(&expr.text, self.names))
                        .collect::<Vec<_>>()
                };
                let filter = if predicates.is_empty() {
                    String::new()
                } else {
                    format!(" where {}", list(predicates).join(" AND "))
                };
                (
                    format!("Project {}{filter}", list(projections).join(", ")),
                    "incremental, no state",
                )
            }
            Operator::Join {
                left_keys,
                right_keys,
                null_equals_null,
                ..
            } => {
                if left_keys.is_empty() {
                    return (
                        "CrossJoin".to_owned(),
                        "incremental, state: both inputs, cost: change × other input",
                    );
                }
                let equal = if *null_equals_null {
                    "is not distinct from"
                } else {
                    "="
                };
                let on: Vec<String> = left_keys
                    .iter()
                    .zip(right_keys)
                    .map(|(left, right)| format!("left.c{left} {equal} right.c{right}"))
                    .collect();
                (
                    format!("Join on {}", on.join(" AND ")),
                    "incremental, state: both inputs by key, cost: change × matches",
                )
            }
            Operator::Aggregate {
                group, aggregates, ..
            } => {
                let calls: Vec<String> = aggregates.iter().map(call).collect();
                let by = if group.is_empty() {
                    String::new()
                } else {
                    format!(" group by {}", columns(group))
                };
                (
                    format!("Aggregate {}{by}", calls.join(", ")),
                    "incremental, state: one entry per group, cost: change",
                )
            }
            Operator::Distinct { .. } => (
                "Distinct".to_owned(),
                "incremental, state: distinct rows, cost: change",
            ),
            Operator::Union { .. } => ("Union".to_owned(), "incremental, no state"),
            Operator::TopK {
                group,
                order,
                limit,
                offset,
                ..
            } => {
                let limit = limit
                    .map(|limit| format!(" limit {limit}"))
                    .unwrap_or_default();
                let offset = if *offset == 0 {
                    String::new()
                } else {
                    format!(" offset {offset}")
                };
                let by = if group.is_empty() {
                    String::new()
                } else {
                    format!(" group by {}", columns(group))
                };
                let order = if order.is_empty() {
                    String::new()
                } else {
                    format!(
                        " order by {}",
                        order
                            .iter()
                            .map(order_column)
                            .collect::<Vec<_>>()
                            .join(", ")
                    )
                };
                (
                    format!("TopK{by}{order}{limit}{offset}"),
                    "incremental, state: all rows in order, cost: change × limit",
                )
            }
            Operator::Recompute { reason, .. } => (
                format!("Recompute {reason}"),
                "RECOMPUTED at each change, cost: all of the inputs",
            ),
            Operator::RecomputeGroups { inputs, what, .. } => {
                let keys: Vec<String> = inputs.iter().map(|(_, key)| columns(key)).collect();
                (
                    format!("RecomputeGroups {what} by {}", keys.join(" = ")),
                    "incremental, state: inputs and output, cost: all rows of the keys that change",
                )
            }
            Operator::RecomputeRows { what, .. } => (
                format!("RecomputeRows {what}"),
                "incremental, no state, cost: change",
            ),
        }
    }
}

fn columns(columns: &[usize]) -> String {
    columns
        .iter()
        .map(|column| format!("c{column}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn order_column(order: &OrderColumn) -> String {
    let direction = if order.descending { " desc" } else { "" };
    // The default puts NULLs last, and first in descending order.
    let nulls = match (order.descending, order.nulls_first) {
        (false, true) => " nulls first",
        (true, false) => " nulls last",
        _ => "",
    };
    format!("c{}{direction}{nulls}", order.column)
}

fn call(aggregate: &Aggregate) -> String {
    let name = match aggregate.function {
        AggregateFunction::Count => "count",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Avg => "avg",
        AggregateFunction::Min => "min",
        AggregateFunction::Max => "max",
        AggregateFunction::BoolAnd => "bool_and",
        AggregateFunction::BoolOr => "bool_or",
    };
    let argument = aggregate
        .argument
        .map_or_else(|| "*".to_owned(), |column| format!("c{column}"));
    let distinct = if aggregate.distinct { "distinct " } else { "" };
    let filter = aggregate
        .filter
        .map(|column| format!(" filter (where c{column})"))
        .unwrap_or_default();
    format!("{name}({distinct}{argument}){filter}")
}
