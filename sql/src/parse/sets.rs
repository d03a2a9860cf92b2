//! Long set operations: `sqlparser` reads `SELECT … UNION ALL SELECT …` as a tree as deep as it is long.
//!
//! Owns the shape that such a tree gets instead: one whose depth is the logarithm of its length, which means the same because the operation is associative.
//! Called for everything `sqlparser` has read.

use std::ops::ControlFlow;

use sqlparser::ast::{Query, SetExpr, SetOperator, SetQuantifier, Values, VisitMut, VisitorMut};

/// Up to so many queries make the tree that they have always made.
const FLAT_MAX: usize = 16;

/// Gives every long set operation of a tree its new shape.
pub(super) fn balance(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Balancer);
}

struct Balancer;

impl VisitorMut for Balancer {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        balance_body(&mut query.body);
        ControlFlow::Continue(())
    }
}

fn balance_body(body: &mut SetExpr) {
    let mut place = body;
    loop {
        if run_length(place) > FLAT_MAX {
            let taken = std::mem::replace(place, nothing());
            *place = balanced(taken);
            return;
        }
        let SetExpr::SetOperation { left, right, .. } = place else {
            return;
        };
        // What binds tighter stands to the right.
        balance_body(right);
        place = left;
    }
}

fn nothing() -> SetExpr {
    SetExpr::Values(Values {
        explicit_row: false,
        value_keyword: false,
        rows: Vec::new(),
    })
}

/// Whether the operation may be carried out in any order of pairs.
fn is_associative(op: SetOperator, quantifier: SetQuantifier) -> bool {
    matches!(op, SetOperator::Union | SetOperator::Intersect)
        && matches!(
            quantifier,
            SetQuantifier::All | SetQuantifier::None | SetQuantifier::Distinct
        )
}

/// How many queries the same associative operation joins here.
fn run_length(mut body: &SetExpr) -> usize {
    let SetExpr::SetOperation {
        op, set_quantifier, ..
    } = body
    else {
        return 0;
    };
    if !is_associative(*op, *set_quantifier) {
        return 0;
    }
    let (op, quantifier) = (*op, *set_quantifier);
    let mut length = 1;
    while let SetExpr::SetOperation {
        op: here,
        set_quantifier,
        left,
        ..
    } = body
        && (*here, *set_quantifier) == (op, quantifier)
    {
        length += 1;
        body = left;
    }
    length
}

fn balanced(mut body: SetExpr) -> SetExpr {
    let SetExpr::SetOperation {
        op, set_quantifier, ..
    } = &body
    else {
        return body;
    };
    let (op, quantifier) = (*op, *set_quantifier);
    let mut queries = Vec::new();
    loop {
        match body {
            SetExpr::SetOperation {
                op: here,
                set_quantifier,
                left,
                right,
            } if (here, set_quantifier) == (op, quantifier) => {
                let mut right = right;
                balance_body(&mut right);
                queries.push(*right);
                body = *left;
            }
            mut first => {
                balance_body(&mut first);
                queries.push(first);
                break;
            }
        }
    }
    queries.reverse();
    while queries.len() > 1 {
        let mut pairs = Vec::with_capacity(queries.len().div_ceil(2));
        let mut items = queries.into_iter();
        while let Some(left) = items.next() {
            pairs.push(match items.next() {
                Some(right) => SetExpr::SetOperation {
                    op,
                    set_quantifier: quantifier,
                    left: Box::new(left),
                    right: Box::new(right),
                },
                None => left,
            });
        }
        queries = pairs;
    }
    queries.pop().unwrap_or_else(nothing)
}

#[cfg(test)]
mod tests {
    use sqlparser::ast::SetExpr;

    use crate::parse::{parse_query, query_text};

    fn depth(body: &SetExpr) -> usize {
        match body {
            SetExpr::SetOperation { left, right, .. } => 1 + depth(left).max(depth(right)),
            _ => 0,
        }
    }

    #[test]
    fn a_long_set_operation_is_not_deep_and_says_the_same() {
        for op in ["UNION ALL", "UNION", "INTERSECT", "INTERSECT ALL"] {
            let text = vec!["SELECT 1"; 5_000].join(&format!(" {op} "));
            let query = parse_query(&text).unwrap();
            assert!(depth(&query.body) < 20, "{op}");
            assert_eq!(query.to_string(), text);
            assert_eq!(query_text(&query).as_deref(), Ok(text.as_str()));
        }
    }

    #[test]
    fn operations_that_are_no_run_keep_their_order() {
        let run = vec!["SELECT 1"; 40].join(" UNION ALL ");
        for text in [
            format!("SELECT 0 EXCEPT {run}"),
            format!("{run} EXCEPT SELECT 2 UNION {run}"),
            format!(
                "SELECT 2 UNION SELECT 3 INTERSECT {}",
                run.replace("UNION", "INTERSECT")
            ),
        ] {
            let query = parse_query(&text).unwrap();
            assert_eq!(query.to_string(), text);
            assert!(query_text(&query).is_ok());
        }
        let SetExpr::SetOperation { left, right, .. } =
            *parse_query(&format!("SELECT 0 EXCEPT {run}")).unwrap().body
        else {
            panic!("no set operation")
        };
        // The first query of the run is what EXCEPT takes away.
        let leftmost = leftmost_operation(*left);
        assert_eq!(leftmost.as_deref(), Some("SELECT 0 EXCEPT SELECT 1"));
        drop(right);
    }

    fn leftmost_operation(mut body: SetExpr) -> Option<String> {
        loop {
            let text = body.to_string();
            match body {
                SetExpr::SetOperation { left, .. }
                    if matches!(*left, SetExpr::SetOperation { .. }) =>
                {
                    body = *left;
                }
                SetExpr::SetOperation { .. } => return Some(text),
                _ => return None,
            }
        }
    }
}
