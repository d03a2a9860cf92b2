//! Long set operations: `sqlparser` reads `SELECT … UNION ALL SELECT …` as a tree as deep as it is long.
//!
//! Owns the shape that such a tree gets instead: one whose depth is the logarithm of its length. The rows are the same, because the operation is associative.
//! The types are not always: a text of no type takes that of what stands to its left, so that what mixes such texts with other values in a column keeps its
//! shape; and what is left and right of the last operation of a recursive query are its two parts, so that this operation stays where it is.
//! Called for everything `sqlparser` has read.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, Value, Values, VisitMut,
    VisitorMut,
};

use crate::error::{Error, ErrorKind};

/// Up to so many queries make the tree that they have always made.
const FLAT_MAX: usize = 16;

/// Operations of one run that keep their shape: the tree is as deep as they are many.
const MIXED_MAX: usize = 250;

/// Gives every long set operation of a tree its new shape.
///
/// # Errors
/// [`ErrorKind::TooComplex`] if one must keep its shape and is too long for that.
pub(super) fn balance(tree: &mut impl VisitMut) -> Result<(), Error> {
    let mut balancer = Balancer::default();
    let _ = tree.visit(&mut balancer);
    if balancer.too_long {
        let error = Error::new(ErrorKind::TooComplex, "statement is too complex");
        return Err(error.with_hint(
            "Give the texts in a long UNION or INTERSECT the type of their column, as in '1'::integer.",
        ));
    }
    Ok(())
}

#[derive(Default)]
struct Balancer {
    /// Where the queries of WITH RECURSIVE are. They are in boxes, and those do not move.
    recursive: Vec<*const Query>,
    /// Whether there was one that should have kept its shape and could not.
    too_long: bool,
}

impl VisitorMut for Balancer {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            let queries = with.cte_tables.iter();
            self.recursive
                .extend(queries.map(|cte| std::ptr::from_ref(cte.query.as_ref())));
        }
        let recursive = self.recursive.contains(&std::ptr::from_ref(&*query));
        match query.body.as_mut() {
            SetExpr::SetOperation { left, right, .. } if recursive => {
                self.body(left);
                self.body(right);
            }
            body => self.body(body),
        }
        ControlFlow::Continue(())
    }
}

impl Balancer {
    fn body(&mut self, body: &mut SetExpr) {
        let mut place = body;
        let mut kept = 0;
        loop {
            if run_length(place) > FLAT_MAX {
                let mixed = mixes_untyped(place);
                kept += usize::from(mixed);
                self.too_long |= kept > MIXED_MAX;
                if !mixed || kept > MIXED_MAX {
                    let taken = std::mem::replace(place, nothing());
                    *place = self.balanced(taken);
                    return;
                }
            }
            let SetExpr::SetOperation { left, right, .. } = place else {
                return;
            };
            // What binds tighter stands to the right.
            self.body(right);
            place = left;
        }
    }

    fn balanced(&mut self, mut body: SetExpr) -> SetExpr {
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
                    self.body(&mut right);
                    queries.push(*right);
                    body = *left;
                }
                mut first => {
                    self.body(&mut first);
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

/// What a column of a set operation has in its queries.
#[derive(Clone, Copy, Default)]
struct Cells {
    /// Texts and parameters, which have no type of their own.
    untyped: bool,
    /// Anything else but NULL, which is told by whatever it stands beside.
    typed: bool,
}

/// What is known of the columns of a set operation. How many a wildcard stands for is not: those behind it are counted from the end.
#[derive(Default)]
struct Known {
    from_start: Vec<Cells>,
    from_end: Vec<Cells>,
    /// The first column from the start, and from the end, that a wildcard may stand for.
    wild: Option<(usize, usize)>,
    /// Whether a text stands between two wildcards.
    lost: bool,
}

/// Whether a column of a set operation has both texts of no type and other values.
fn mixes_untyped(body: &SetExpr) -> bool {
    let mut known = Known::default();
    known.note(body);
    let mixed = |columns: &[Cells], wild: Option<usize>| {
        columns.iter().enumerate().any(|(index, cells)| {
            let hidden = wild.is_some_and(|first| index >= first);
            cells.untyped && (cells.typed || hidden)
        })
    };
    known.lost
        || mixed(&known.from_start, known.wild.map(|(start, _)| start))
        || mixed(&known.from_end, known.wild.map(|(_, end)| end))
}

impl Known {
    fn note(&mut self, body: &SetExpr) {
        let mut body = body;
        loop {
            match body {
                SetExpr::SetOperation { left, right, .. } => {
                    self.note(right);
                    body = left;
                }
                SetExpr::Query(query) => body = &query.body,
                SetExpr::Select(select) => {
                    let items = select.projection.iter().map(|item| match item {
                        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                            Some(expr)
                        }
                        _ => None,
                    });
                    return self.row(&items.collect::<Vec<_>>());
                }
                SetExpr::Values(values) => {
                    for row in &values.rows {
                        self.row(&row.content.iter().map(Some).collect::<Vec<_>>());
                    }
                    return;
                }
                _ => return self.row(&[None]),
            }
        }
    }

    /// The expressions of a row; those that are none are wildcards.
    fn row(&mut self, row: &[Option<&Expr>]) {
        let start = row.iter().position(Option::is_none);
        let end = row.iter().rev().position(Option::is_none);
        if let (Some(start), Some(end)) = (start, end) {
            let (first, last) = self.wild.unwrap_or((start, end));
            self.wild = Some((first.min(start), last.min(end)));
        }
        for (index, expr) in row.iter().enumerate() {
            let Some(cells) = expr.map(cells) else {
                continue;
            };
            let behind = row.len().saturating_sub(index + 1);
            let from_start = start.is_none_or(|first| index < first);
            let from_end = end.is_none_or(|last| behind < last);
            if from_start {
                add(&mut self.from_start, index, cells);
            }
            if from_end {
                add(&mut self.from_end, behind, cells);
            }
            self.lost |= !from_start && !from_end && cells.untyped;
        }
    }
}

fn add(columns: &mut Vec<Cells>, index: usize, cells: Cells) {
    if columns.len() <= index {
        columns.resize(index + 1, Cells::default());
    }
    if let Some(known) = columns.get_mut(index) {
        known.untyped |= cells.untyped;
        known.typed |= cells.typed;
    }
}

fn cells(expr: &Expr) -> Cells {
    let mut expr = expr;
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    let Expr::Value(value) = expr else {
        return Cells {
            typed: true,
            untyped: false,
        };
    };
    let typed = matches!(value.value, Value::Number(..) | Value::Boolean(_));
    Cells {
        typed,
        untyped: !typed && !matches!(value.value, Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::ast::SetExpr;

    use crate::error::ErrorKind;
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

    #[test]
    fn the_last_operation_of_a_recursive_query_stays_where_it_is() {
        let starts = vec!["SELECT 1"; 40].join(" UNION ALL ");
        let step = "SELECT n + 1 FROM r WHERE n < 3";
        let text =
            format!("WITH RECURSIVE r (n) AS ({starts} UNION ALL {step}) SELECT count(*) FROM r");
        let query = parse_query(&text).unwrap();
        let with = query.with.as_ref().unwrap();
        let SetExpr::SetOperation { left, right, .. } =
            &*with.cte_tables.first().unwrap().query.body
        else {
            panic!("no set operation")
        };
        assert_eq!(right.to_string(), step);
        assert_eq!(left.to_string(), starts);
        assert!(depth(left) < 20);
    }

    #[test]
    fn texts_beside_numbers_keep_their_shape_and_may_not_be_many() {
        let mixed = |times: usize| {
            let texts = vec!["SELECT '2', 'a', NULL"; times].join(" UNION ALL ");
            parse_query(&format!("SELECT 1, 'a', 'b' UNION ALL {texts}"))
        };
        assert_eq!(depth(&mixed(40).unwrap().body), 40);
        assert_eq!(mixed(1_000).unwrap_err().kind, ErrorKind::TooComplex);
        let depth_of = |text: &str| depth(&parse_query(text).unwrap().body);
        let wild = vec!["SELECT *, 'a' FROM t"; 40].join(" UNION ALL ");
        assert_eq!(depth_of(&wild), 6);
        assert_eq!(
            depth_of(&format!("SELECT *, 1 FROM t UNION ALL {wild}")),
            40
        );
        assert_eq!(depth_of(&format!("SELECT * FROM t UNION ALL {wild}")), 40);
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
