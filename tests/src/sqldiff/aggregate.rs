//! Random aggregates and windows.
//!
//! Invariants. What tells alike rows apart is told by an order of all columns.

use super::expression::Entry;
use super::query::{Queries, Query, columns};
use super::relation;
use super::signatures::Signature;
use super::subquery;
use super::tree::Tree;
use super::types::{INT4, INT8, Type};

/// The frames of windows that are ordered by all columns.
const FRAMES: [&str; 12] = [
    "",
    "",
    " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW",
    " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
    " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
    " ROWS 2 PRECEDING",
    " ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING",
    " RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
    " GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW",
    " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
    " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW",
    " GROUPS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE TIES",
];

/// An aggregate over a scope, maybe with a filter.
pub fn call(queries: &mut Queries, scope: &[Entry]) -> Entry {
    let full = queries.is_full();
    let all = queries.aggregates.all(full);
    let counts: Vec<(Type, Signature)> = all
        .iter()
        .filter(|(result, _)| *result == INT8)
        .map(|(result, one)| (*result, (*one).clone()))
        .collect();
    let all: Vec<(Type, Signature)> = all
        .into_iter()
        .map(|(result, one)| (result, one.clone()))
        .collect();
    let random = &mut queries.expressions.random;
    let from = if random.chance(30) { &counts } else { &all };
    let Some((result, signature)) = random.pick(from) else {
        return Entry::new("count(*)".to_owned(), INT8);
    };
    queries.expressions.notes.merged = true;
    let mut call = queries.expressions.apply(signature, *result, scope, 2);
    // FILTER stands behind the call itself, which needs no parentheses.
    if signature.is_call && queries.random().chance(25) {
        let condition = queries.expressions.condition(scope, 1);
        let filter = vec![Tree::text(" FILTER (WHERE "), condition, Tree::text(")")];
        let filter = Tree::optional(Tree::Sequence(filter));
        call = Tree::expression(*result, Tree::Sequence(vec![call, filter]));
    }
    Entry {
        tree: call,
        r#type: *result,
    }
}

/// GROUP BY, or aggregates of all rows.
pub fn aggregate(
    queries: &mut Queries,
    depth: usize,
    outer: &[Entry],
    wanted: Option<&[Type]>,
) -> Query {
    queries.expressions.notes.merged = true;
    let from = relation::from(queries, depth, outer);
    let scope = subquery::extended(queries, from.scope.clone(), outer, depth);
    let filter = queries.filter(&scope);
    let count = queries.random().below(3);
    let keys: Vec<Entry> = (0..count)
        .filter_map(|_| key(queries, &from.scope))
        .collect();
    let calls = 1 + queries.random().below(2);
    let mut grouped = keys.clone();
    grouped.extend((0..calls).map(|_| call(queries, &from.scope)));
    let group = group(queries, &keys, &mut grouped);
    let has_having = queries.random().chance(20) && (queries.is_full() || !keys.is_empty());
    let having = if has_having {
        let condition = queries.expressions.condition(&grouped, 2);
        Tree::optional(Tree::Sequence(vec![Tree::text(" HAVING "), condition]))
    } else {
        Tree::nothing()
    };
    let items = if wanted.is_some() || queries.random().chance(30) {
        queries.list(&grouped, wanted)
    } else {
        let (trees, types) = grouped
            .into_iter()
            .map(|entry| (entry.tree, entry.r#type))
            .unzip();
        queries.items(trees, types)
    };
    items.select("", vec![from.tree, filter, group, having])
}

/// Something to group by: never a constant, which would be the place of a column.
fn key(queries: &mut Queries, scope: &[Entry]) -> Option<Entry> {
    let column = queries.random().pick(scope)?.clone();
    if queries.random().chance(60) {
        return Some(column);
    }
    let tree = queries.expressions.of(column.r#type, scope, 1);
    Some(if tree.sql().contains('.') {
        Entry {
            tree,
            r#type: column.r#type,
        }
    } else {
        column
    })
}

fn group(queries: &mut Queries, keys: &[Entry], grouped: &mut Vec<Entry>) -> Tree {
    if keys.is_empty() {
        return Tree::nothing();
    }
    let texts: Vec<String> = keys.iter().map(|key| key.tree.sql()).collect();
    let list = texts.join(", ");
    let sets = queries.is_full() && queries.random().chance(25);
    let group = if sets {
        let first = texts.first().map_or("", String::as_str);
        grouped.push(Entry::new(format!("grouping({list})"), INT4));
        match queries.random().below(4) {
            0 => format!("ROLLUP ({list})"),
            1 => format!("CUBE ({list})"),
            2 => format!("GROUPING SETS (({list}), ({first}), ())"),
            _ => format!("{first}, ROLLUP ({list})"),
        }
    } else {
        list
    };
    Tree::text(format!(" GROUP BY {group}"))
}

/// A query with window functions over the rows of another one.
pub fn window(
    queries: &mut Queries,
    depth: usize,
    outer: &[Entry],
    wanted: Option<&[Type]>,
) -> Query {
    let inner = queries.query(depth - 1, outer, None);
    if !inner.types.iter().all(|r#type| queries.sorts(*r#type)) {
        return queries.plain(depth, outer, wanted);
    }
    queries.expressions.notes.merged = true;
    let alias = queries.alias();
    let names = columns(inner.types.len());
    let mut scope: Vec<Entry> = inner
        .types
        .iter()
        .enumerate()
        .map(|(place, r#type)| Entry::new(format!("{alias}.c{place}"), *r#type))
        .collect();
    let calls = 1 + queries.random().below(2);
    let calls: Vec<Entry> = (0..calls)
        .filter_map(|_| window_call(queries, &scope))
        .collect();
    let items = if wanted.is_some() {
        scope.extend(calls);
        queries.list(&scope, wanted)
    } else {
        let (trees, types) = scope
            .into_iter()
            .chain(calls)
            .map(|entry| (entry.tree, entry.r#type))
            .unzip();
        queries.items(trees, types)
    };
    let from = vec![
        Tree::text("("),
        inner.tree,
        Tree::text(format!(") AS {alias}({names})")),
    ];
    items.select("", from)
}

fn window_call(queries: &mut Queries, scope: &[Entry]) -> Option<Entry> {
    let full = queries.is_full();
    let all: Vec<(Type, Signature)> = queries
        .windows
        .all(full)
        .into_iter()
        .map(|(result, one)| (result, one.clone()))
        .collect();
    let (result, signature) = queries.random().pick(&all)?.clone();
    let call = queries.expressions.apply(&signature, result, scope, 1);
    let mut names: Vec<String> = scope.iter().map(|entry| entry.tree.sql()).collect();
    queries.random().shuffle(&mut names);
    let partition = if queries.random().chance(60) {
        let name = queries.random().pick(&names).cloned().unwrap_or_default();
        Tree::optional(Tree::text(format!("PARTITION BY {name}")))
    } else {
        Tree::nothing()
    };
    let is_total = signature.ordered || queries.random().chance(50);
    let keys = if is_total { names.len() } else { 1 };
    let keys: Vec<String> = names
        .into_iter()
        .take(keys)
        .map(|name| {
            let direction = queries.random().word(&["", " DESC", " NULLS FIRST"]);
            format!("{name}{direction}")
        })
        .collect();
    let frame = if is_total {
        let frames: &[&str] = if full { &FRAMES } else { &[""] };
        queries.random().word(frames)
    } else {
        ""
    };
    let tree = Tree::Sequence(vec![
        call,
        Tree::text(" OVER ("),
        partition,
        Tree::text(format!(" ORDER BY {}", keys.join(", "))),
        Tree::optional(Tree::text(frame)),
        Tree::text(")"),
    ]);
    Some(Entry {
        tree: Tree::expression(result, tree),
        r#type: result,
    })
}
