//! Random items of FROM: tables, queries, functions, VALUES and joins of them.

use super::expression::Entry;
use super::query::{Queries, columns};
use super::schema::Table;
use super::tree::Tree;
use super::types::{BOOL, INT4, INT8, Mood, TEXT, Type};

/// An item of FROM and the columns that it offers.
#[derive(Debug)]
pub struct Relation {
    /// How it is written.
    pub tree: Tree,
    /// Its columns.
    pub scope: Vec<Entry>,
}

/// What may stand behind FROM. `outer` is what its queries may ask for of those around them.
pub fn from(queries: &mut Queries, depth: usize, outer: &[Entry]) -> Relation {
    if queries.is_full() && queries.random().chance(12) {
        return merged(queries);
    }
    let mut relation = item(queries, depth, outer);
    let joins = match queries.random().below(10) {
        0..=4 => 0,
        5..=8 => 1,
        _ => 2,
    };
    for _ in 0..joins {
        relation = join(queries, relation, depth, outer);
    }
    relation
}

/// A random calm table under a name of its own.
pub fn table(queries: &mut Queries) -> Relation {
    let tables: Vec<Table> = queries.schema.of(Mood::Calm).into_iter().cloned().collect();
    let alias = queries.alias();
    match queries.random().pick(&tables) {
        Some(table) => Relation {
            tree: Tree::relation(vec![Tree::text(format!("{} AS {alias}", table.name))]),
            scope: table.scope(&alias),
        },
        None => one(&alias),
    }
}

/// A relation of one row.
fn one(alias: &str) -> Relation {
    Relation {
        tree: Tree::relation(vec![Tree::text(format!("(VALUES (1)) AS {alias}(c0)"))]),
        scope: vec![Entry::new(format!("{alias}.c0"), INT4)],
    }
}

fn item(queries: &mut Queries, depth: usize, outer: &[Entry]) -> Relation {
    if !queries.commons.is_empty() && queries.random().chance(50) {
        let commons = queries.commons.clone();
        if let Some((name, types)) = queries.random().pick(&commons) {
            let alias = queries.alias();
            return Relation {
                tree: Tree::relation(vec![Tree::text(format!("{name} AS {alias}"))]),
                scope: scope(&alias, types),
            };
        }
    }
    match queries.random().below(20) {
        0..=4 if depth > 0 => {
            let outer = if queries.is_full() { outer } else { &[] };
            // Only LATERAL may ask for what stands beside it; what is around the whole query anybody may.
            let query = queries.query(depth - 1, outer, None);
            named(queries, "", query.tree, &query.types)
        }
        5 if queries.is_full() => series(queries),
        6 if queries.is_full() => elements(queries, &[]),
        7 if queries.is_full() => {
            let rows = queries.query(0, &[], Some(&[INT4, TEXT]));
            named(queries, "", rows.tree, &rows.types)
        }
        _ => table(queries),
    }
}

fn named(queries: &mut Queries, lateral: &str, tree: Tree, types: &[Type]) -> Relation {
    let alias = queries.alias();
    let names = columns(types.len());
    Relation {
        tree: Tree::relation(vec![
            Tree::text(format!("{lateral}(")),
            tree,
            Tree::text(format!(") AS {alias}({names})")),
        ]),
        scope: scope(&alias, types),
    }
}

fn scope(alias: &str, types: &[Type]) -> Vec<Entry> {
    types
        .iter()
        .enumerate()
        .map(|(place, r#type)| Entry::new(format!("{alias}.c{place}"), *r#type))
        .collect()
}

fn series(queries: &mut Queries) -> Relation {
    let alias = queries.alias();
    let arguments = ["1, 3", "0, 4, 2", "3, 1, -1", "1, 0"];
    let arguments = queries.random().word(&arguments);
    if queries.random().chance(40) {
        return Relation {
            tree: Tree::relation(vec![Tree::text(format!(
                "generate_series({arguments}) WITH ORDINALITY AS {alias}(c0, c1)"
            ))]),
            scope: scope(&alias, &[INT4, INT8]),
        };
    }
    Relation {
        tree: Tree::relation(vec![Tree::text(format!(
            "generate_series({arguments}) AS {alias}(c0)"
        ))]),
        scope: scope(&alias, &[INT4]),
    }
}

/// The elements of an array of the scope, or of one that is written out.
fn elements(queries: &mut Queries, beside: &[Entry]) -> Relation {
    let arrays: Vec<Entry> = beside
        .iter()
        .filter(|entry| entry.r#type.is_array())
        .cloned()
        .collect();
    let array = match queries.random().pick(&arrays) {
        Some(entry) => entry.clone(),
        None => Entry::new("ARRAY[3, NULL, 1]".to_owned(), INT4.array().unwrap_or(INT4)),
    };
    let element = Type::named(array.r#type.name().trim_end_matches("[]")).unwrap_or(INT4);
    let alias = queries.alias();
    let ordinality = queries.random().chance(50);
    let (with, types) = if ordinality {
        (
            format!(" WITH ORDINALITY AS {alias}(c0, c1)"),
            vec![element, INT8],
        )
    } else {
        (format!(" AS {alias}(c0)"), vec![element])
    };
    Relation {
        tree: Tree::relation(vec![
            Tree::text("unnest("),
            array.tree,
            Tree::text(format!("){with}")),
        ]),
        scope: scope(&alias, &types),
    }
}

fn join(queries: &mut Queries, left: Relation, depth: usize, outer: &[Entry]) -> Relation {
    if queries.is_full() && queries.random().chance(15) {
        return lateral(queries, left, depth);
    }
    let right = if queries.random().chance(70) {
        table(queries)
    } else {
        item(queries, depth.saturating_sub(1), outer)
    };
    let kind = queries.random().word(&[
        "JOIN",
        "JOIN",
        "LEFT JOIN",
        "RIGHT JOIN",
        "FULL JOIN",
        "CROSS JOIN",
    ]);
    let condition = if kind == "CROSS JOIN" {
        Tree::nothing()
    } else {
        let condition = condition(queries, kind, &left.scope, &right.scope);
        Tree::Sequence(vec![Tree::text(" ON "), condition])
    };
    let mut scope = left.scope;
    scope.extend(right.scope);
    Relation {
        tree: Tree::relation(vec![
            left.tree,
            Tree::text(format!(" {kind} ")),
            right.tree,
            condition,
        ]),
        scope,
    }
}

/// The condition of a join: an equality of columns first, since PostgreSQL has no FULL JOIN without one.
fn condition(queries: &mut Queries, kind: &str, left: &[Entry], right: &[Entry]) -> Tree {
    let equality = equality(queries, left, right).unwrap_or_else(|| Tree::text("true"));
    if kind == "FULL JOIN" || queries.random().chance(60) {
        return equality;
    }
    let both: Vec<Entry> = left.iter().chain(right).cloned().collect();
    let more = queries.expressions.condition(&both, 2);
    if queries.is_full() && queries.random().chance(40) {
        return more;
    }
    let more = Tree::Sequence(vec![Tree::text(" AND "), more]);
    Tree::Sequence(vec![equality, Tree::optional(more)])
}

/// Two columns of one type, which are the same.
pub fn equality(queries: &mut Queries, left: &[Entry], right: &[Entry]) -> Option<Tree> {
    let pairs: Vec<(&Entry, &Entry)> = left
        .iter()
        .flat_map(|one| right.iter().map(move |other| (one, other)))
        .filter(|(one, other)| one.r#type == other.r#type)
        .collect();
    let numbers: Vec<(&Entry, &Entry)> = pairs
        .iter()
        .filter(|(one, _)| one.r#type == INT4)
        .copied()
        .collect();
    let from = if queries.random().chance(70) && !numbers.is_empty() {
        &numbers
    } else {
        &pairs
    };
    let (one, other) = *queries.random().pick(from)?;
    let parts = vec![one.tree.clone(), Tree::text(" = "), other.tree.clone()];
    Some(Tree::expression(BOOL, Tree::Sequence(parts)))
}

/// A join with a query or a function that asks for columns of its left side.
fn lateral(queries: &mut Queries, left: Relation, depth: usize) -> Relation {
    let right = if queries.random().chance(30) {
        elements(queries, &left.scope)
    } else {
        let query = queries.query(depth.saturating_sub(1), &left.scope, None);
        named(queries, "LATERAL ", query.tree, &query.types)
    };
    let (kind, on) = if queries.random().chance(50) {
        (" CROSS JOIN ", "")
    } else {
        (" LEFT JOIN ", " ON true")
    };
    let mut scope = left.scope;
    scope.extend(right.scope);
    Relation {
        tree: Tree::relation(vec![
            left.tree,
            Tree::text(kind),
            right.tree,
            Tree::text(on),
        ]),
        scope,
    }
}

/// Tables that are joined with USING or NATURAL, up to three.
fn merged(queries: &mut Queries) -> Relation {
    let first = table(queries);
    let mut scope = first.scope;
    let mut parts = vec![first.tree];
    for _ in 0..1 + queries.random().below(2) {
        let next = table(queries);
        let kind = queries
            .random()
            .word(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        if queries.random().chance(30) {
            parts.push(Tree::text(format!(" NATURAL {kind} ")));
            parts.push(next.tree);
        } else {
            parts.push(Tree::text(format!(" {kind} ")));
            parts.push(next.tree);
            parts.push(Tree::text(" USING (k)"));
        }
        scope.extend(next.scope);
    }
    scope.push(Entry::new("k".to_owned(), INT4));
    Relation {
        tree: Tree::relation(parts),
        scope,
    }
}
