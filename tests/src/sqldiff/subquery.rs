//! Random subqueries as expressions, correlated or not.

use super::aggregate;
use super::expression::Entry;
use super::query::{Queries, Query};
use super::relation;
use super::tree::Tree;
use super::types::{BOOL, INT4, Type};

/// The scope of a query's expressions: its own, some of what is around it, and subqueries.
pub fn extended(
    queries: &mut Queries,
    mut scope: Vec<Entry>,
    outer: &[Entry],
    depth: usize,
) -> Vec<Entry> {
    let own = scope.clone();
    if queries.is_full() || queries.random().chance(50) {
        for _ in 0..2 {
            if let Some(entry) = queries.random().pick(outer) {
                scope.push(entry.clone());
            }
        }
    }
    if depth > 0 && queries.random().chance(35) {
        for _ in 0..1 + queries.random().below(2) {
            let subquery = subquery(queries, &own, depth - 1);
            scope.push(subquery);
        }
    }
    scope
}

/// An expression with a query in it, which may ask for what is in the scope.
fn subquery(queries: &mut Queries, scope: &[Entry], depth: usize) -> Entry {
    let kinds = if queries.is_full() { 9 } else { 4 };
    match queries.random().below(kinds) {
        0 => {
            let not = queries.random().word(&["", "NOT "]);
            let inner = inner(queries, &[INT4], scope, depth);
            condition(vec![Tree::text(format!("({not}EXISTS ("))], inner, "))")
        }
        1 => {
            let value = value(queries, INT4, scope);
            let not = if queries.is_full() {
                queries.random().word(&["", "NOT "])
            } else {
                ""
            };
            let inner = uncorrelated(queries, &[INT4], scope, depth);
            let head = vec![Tree::text("("), value, Tree::text(format!(" {not}IN ("))];
            condition(head, inner, "))")
        }
        2 | 3 => scalar(queries, scope, depth),
        4 => {
            let r#type = queries.expressions.r#type(scope);
            let value = value(queries, r#type, scope);
            let operator = queries
                .random()
                .word(&["= ANY", "<> ALL", "< ANY", ">= ALL", "= SOME"]);
            let inner = inner(queries, &[r#type], scope, depth);
            let head = vec![Tree::text("("), value, Tree::text(format!(" {operator} ("))];
            condition(head, inner, "))")
        }
        5 => {
            let types = [queries.expressions.r#type(scope), INT4];
            let (first, second) = (value(queries, types[0], scope), value(queries, INT4, scope));
            let not = queries.random().word(&["", "NOT "]);
            let inner = inner(queries, &types, scope, depth);
            let head = vec![
                Tree::text("(("),
                first,
                Tree::text(", "),
                second,
                Tree::text(format!(") {not}IN (")),
            ];
            condition(head, inner, "))")
        }
        6 => {
            let r#type = queries.expressions.r#type(scope);
            let not = queries.random().word(&["", "NOT "]);
            let value = value(queries, r#type, scope);
            let inner = inner(queries, &[r#type], scope, depth);
            let head = vec![Tree::text("("), value, Tree::text(format!(" {not}IN ("))];
            condition(head, inner, "))")
        }
        7 => array(queries, scope, depth),
        _ => first(queries, scope, depth),
    }
}

fn condition(mut head: Vec<Tree>, inner: Query, tail: &str) -> Entry {
    head.push(inner.tree);
    head.push(Tree::text(tail));
    Entry {
        tree: Tree::expression(BOOL, Tree::Sequence(head)),
        r#type: BOOL,
    }
}

/// A column of the scope, or a literal.
fn value(queries: &mut Queries, r#type: Type, scope: &[Entry]) -> Tree {
    queries.expressions.of(r#type, scope, 0)
}

/// An aggregate of a query's rows.
fn scalar(queries: &mut Queries, scope: &[Entry], depth: usize) -> Entry {
    let from = if queries.is_full() && queries.random().chance(40) {
        relation::from(queries, depth, scope)
    } else {
        relation::table(queries)
    };
    let call = aggregate::call(queries, &from.scope);
    let filter = correlation(queries, &from.scope, scope);
    let query = Tree::query(vec![
        Tree::text("SELECT "),
        call.tree,
        Tree::text(" FROM "),
        from.tree,
        filter,
    ]);
    Entry {
        tree: Tree::expression(call.r#type, parenthesized("(", query)),
        r#type: call.r#type,
    }
}

/// The first row of a query.
fn first(queries: &mut Queries, scope: &[Entry], depth: usize) -> Entry {
    let r#type = queries.expressions.r#type(scope);
    let query = queries.query(depth, scope, Some(&[r#type]));
    match queries.ordered(query) {
        Some(ordered) => {
            let query = Tree::query(vec![ordered.tree, Tree::text(" LIMIT 1")]);
            Entry {
                tree: Tree::expression(r#type, parenthesized("(", query)),
                r#type,
            }
        }
        None => scalar(queries, scope, depth),
    }
}

/// The rows of a query as an array.
fn array(queries: &mut Queries, scope: &[Entry], depth: usize) -> Entry {
    let elements: Vec<Type> = Type::all().filter(|r#type| r#type.is("E")).collect();
    let element = queries.random().pick(&elements).copied().unwrap_or(INT4);
    let query = queries.query(depth, scope, Some(&[element]));
    match (queries.ordered(query), element.array()) {
        (Some(ordered), Some(array)) => Entry {
            tree: Tree::expression(array, parenthesized("ARRAY(", ordered.tree)),
            r#type: array,
        },
        _ => scalar(queries, scope, depth),
    }
}

fn parenthesized(open: &str, query: Tree) -> Tree {
    Tree::Sequence(vec![Tree::text(open), query, Tree::text(")")])
}

/// A query of some types: any one, or in the tests one of a table with an equality.
fn inner(queries: &mut Queries, types: &[Type], scope: &[Entry], depth: usize) -> Query {
    if queries.is_full() {
        return queries.query(depth, scope, Some(types));
    }
    simple(queries, types, scope)
}

/// The same, though in the tests without an equality.
fn uncorrelated(queries: &mut Queries, types: &[Type], scope: &[Entry], depth: usize) -> Query {
    if queries.is_full() {
        return queries.query(depth, scope, Some(types));
    }
    simple(queries, types, &[])
}

fn simple(queries: &mut Queries, types: &[Type], scope: &[Entry]) -> Query {
    let from = relation::table(queries);
    let filter = correlation(queries, &from.scope, scope);
    // A query of constants alone reads no column, which a view does not take today.
    let values = types
        .iter()
        .map(|r#type| {
            let found = from.scope.iter().find(|entry| entry.r#type == *r#type);
            match found {
                Some(entry) => entry.tree.clone(),
                None => queries.expressions.of(*r#type, &from.scope, 1),
            }
        })
        .collect();
    Query {
        tree: Tree::query(vec![
            Tree::text("SELECT "),
            Tree::list(values),
            Tree::text(" FROM "),
            from.tree,
            filter,
        ]),
        types: types.to_vec(),
        is_named: false,
        is_closed: false,
    }
}

/// WHERE with an equality of a column inside and one outside, or nothing.
fn correlation(queries: &mut Queries, own: &[Entry], outer: &[Entry]) -> Tree {
    if queries.random().chance(30) {
        return Tree::nothing();
    }
    // What is a subquery itself would be asked for twice.
    let columns: Vec<Entry> = outer
        .iter()
        .filter(|entry| !entry.tree.sql().contains('('))
        .cloned()
        .collect();
    let Some(equality) = relation::equality(queries, own, &columns) else {
        return Tree::nothing();
    };
    let mut parts = vec![Tree::text(" WHERE "), equality];
    if queries.random().chance(30) {
        let condition = queries.expressions.condition(own, 1);
        let more = Tree::Sequence(vec![Tree::text(" AND "), condition]);
        parts.push(Tree::optional(more));
    }
    Tree::optional(Tree::Sequence(parts))
}
