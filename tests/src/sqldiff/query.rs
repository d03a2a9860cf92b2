//! Random queries.
//!
//! Invariants. The rows of a query are determined by those of its tables: a limit has an order of all columns, and what tells alike rows apart is told by
//! all of them. A calm query does not fail, whatever a plan evaluates; a wild one evaluates what it says for every row.

use super::aggregate;
use super::expression::{Entry, Expressions};
use super::profile::Profile;
use super::random::Random;
use super::relation;
use super::schema::Schema;
use super::signatures::Signatures;
use super::subquery;
use super::tree::Tree;
use super::types::{INT4, Mood, Type};

/// How deep expressions of a select list are.
const DEPTH: usize = 2;

/// A query and what its columns are.
#[derive(Debug, Clone)]
pub struct Query {
    /// The query, without parentheses.
    pub tree: Tree,
    /// The types of its columns.
    pub types: Vec<Type>,
    /// Whether its columns are named `c0`, `c1`, ….
    pub is_named: bool,
    /// Whether it ends with an order or a limit, behind which no other one can stand.
    pub is_closed: bool,
}

/// Makes queries.
#[derive(Debug)]
pub struct Queries {
    /// Makes their expressions, and has the choices.
    pub expressions: Expressions,
    /// The tables.
    pub schema: Schema,
    /// The names and columns of queries that WITH has named so far.
    pub commons: Vec<(String, Vec<Type>)>,
    /// What aggregates there are.
    pub aggregates: Signatures,
    /// What window functions there are.
    pub windows: Signatures,
    aliases: usize,
}

/// The items of a select list.
pub(super) struct Items {
    trees: Vec<Tree>,
    types: Vec<Type>,
    is_named: bool,
}

impl Items {
    /// The query that has them, with `rest` behind its FROM.
    pub(super) fn select(self, distinct: &str, rest: Vec<Tree>) -> Query {
        let mut parts = vec![
            Tree::text(format!("SELECT {distinct}")),
            Tree::list(self.trees),
            Tree::text(" FROM "),
        ];
        parts.extend(rest);
        Query {
            tree: Tree::query(parts),
            types: self.types,
            is_named: self.is_named,
            is_closed: false,
        }
    }
}

impl Queries {
    /// Those over some tables.
    #[must_use]
    pub fn new(profile: Profile, schema: Schema, random: Random) -> Self {
        Self {
            expressions: Expressions::new(profile, random),
            schema,
            commons: Vec::new(),
            aggregates: Signatures::aggregates(),
            windows: Signatures::windows(),
            aliases: 0,
        }
    }

    /// Whether everything is tried.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.expressions.profile.is_full()
    }

    /// The choices.
    pub const fn random(&mut self) -> &mut Random {
        &mut self.expressions.random
    }

    /// A name that nothing else has.
    pub fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("s{}", self.aliases)
    }

    /// Any query. `outer` is what it may ask for of the queries around it, `wanted` are the types of its columns.
    pub fn query(&mut self, depth: usize, outer: &[Entry], wanted: Option<&[Type]>) -> Query {
        if depth == 0 {
            return self.plain(depth, outer, wanted);
        }
        match self.random().below(24) {
            0..=6 => self.plain(depth, outer, wanted),
            7..=11 => aggregate::aggregate(self, depth, outer, wanted),
            12 => self.distinct(depth, outer, wanted),
            13 => self.distinct_on(depth, outer, wanted),
            14 | 15 => self.limited(depth, outer, wanted),
            16..=18 => self.set_operation(depth, outer, wanted),
            19 | 20 => aggregate::window(self, depth, outer, wanted),
            21 if self.is_full() => self.values(wanted),
            _ => self.common(depth, outer, wanted),
        }
    }

    /// A query that is not part of another one. Of a wild one the tables are not joined, and the rows that are left out are so without evaluating anything.
    pub fn wild(&mut self) -> Query {
        self.expressions.mood = Mood::Wild;
        let mood = if self.random().chance(70) {
            Mood::Wild
        } else {
            Mood::Calm
        };
        let tables: Vec<_> = self.schema.of(mood).into_iter().cloned().collect();
        let alias = self.alias();
        let (from, scope) = match self.random().pick(&tables) {
            Some(table) => (format!("{} AS {alias}", table.name), table.scope(&alias)),
            None => (format!("(VALUES (1)) AS {alias}(c0)"), Vec::new()),
        };
        let filter = match self.random().pick(&scope) {
            Some(entry) => Tree::optional(Tree::Sequence(vec![
                Tree::text(" WHERE "),
                entry.tree.clone(),
                Tree::text(" IS NOT NULL"),
            ])),
            None => Tree::nothing(),
        };
        let count = 1 + self.random().below(2);
        let types: Vec<Type> = (0..count)
            .map(|_| self.expressions.r#type(&scope))
            .collect();
        let trees = types
            .iter()
            .map(|r#type| {
                let depth = 1 + self.random().below(2);
                self.expressions.of(*r#type, &scope, depth)
            })
            .collect();
        let items = self.items(trees, types);
        self.expressions.mood = Mood::Calm;
        items.select("", vec![Tree::text(from), filter])
    }

    /// `SELECT *`.
    pub fn star(&mut self, depth: usize) -> Tree {
        let from = relation::from(self, depth, &[]);
        let filter = self.filter(&from.scope);
        Tree::query(vec![Tree::text("SELECT * FROM "), from.tree, filter])
    }

    /// A query with functions that give several rows in its list.
    pub fn series(&mut self, depth: usize) -> Query {
        let mut query = self.plain(depth, &[], None);
        let alias = self.alias();
        let arrays: Vec<Type> = Type::all().filter(|r#type| r#type.is_array()).collect();
        let array = self.random().pick(&arrays).copied().unwrap_or(INT4);
        let (call, element) = if self.random().chance(50) || array == INT4 {
            ("generate_series(1, 3)".to_owned(), INT4)
        } else {
            let value = self.expressions.literal(array).sql();
            let element = Type::named(array.name().trim_end_matches("[]")).unwrap_or(INT4);
            (format!("unnest({value})"), element)
        };
        let columns = columns(query.types.len());
        query.tree = Tree::query(vec![
            Tree::text(format!("SELECT {call} AS c, {alias}.* FROM (")),
            query.tree,
            Tree::text(format!(") AS {alias}({columns})")),
        ]);
        query.types.insert(0, element);
        query.is_named = false;
        query.is_closed = false;
        query
    }

    /// A query with an order of all its columns; `None` if they have none.
    pub fn ordered(&mut self, query: Query) -> Option<Query> {
        if !query.types.iter().all(|r#type| self.sorts(*r#type)) {
            return None;
        }
        self.expressions.notes.merged = true;
        // An expression may come first, of columns that have a name in any case.
        let by_expression = self.is_full() && self.random().chance(20);
        let (query, scope) = if query.is_closed || by_expression {
            self.opened(query)
        } else {
            (query, Vec::new())
        };
        let order = self.order(&query, 0);
        let order = if by_expression {
            let r#type = self.expressions.r#type(&scope);
            let key = self.expressions.of(r#type, &scope, 1);
            let key = Tree::optional(Tree::Sequence(vec![key, Tree::text(", ")]));
            Tree::Sequence(vec![key, order])
        } else {
            order
        };
        // No query of its own: without its order it must not stand before a limit.
        let tree = Tree::Sequence(vec![query.tree, Tree::text(" ORDER BY "), order]);
        Some(Query {
            tree,
            types: query.types,
            is_named: query.is_named,
            is_closed: true,
        })
    }

    /// A query whose rows are those of another one, and that an order can stand behind; and its columns.
    fn opened(&mut self, query: Query) -> (Query, Vec<Entry>) {
        let alias = self.alias();
        let names = columns(query.types.len());
        let places = query.types.iter().enumerate();
        let scope = places
            .map(|(place, r#type)| Entry::new(format!("{alias}.c{place}"), *r#type))
            .collect();
        let query = Query {
            tree: Tree::query(vec![
                Tree::text("SELECT * FROM ("),
                query.tree,
                Tree::text(format!(") AS {alias}({names})")),
            ]),
            types: query.types,
            is_named: true,
            is_closed: false,
        };
        (query, scope)
    }

    /// Whether a type may be in an order.
    pub fn sorts(&self, r#type: Type) -> bool {
        r#type.is(if self.is_full() { "O" } else { "S" })
    }

    /// WHERE, or nothing.
    pub fn filter(&mut self, scope: &[Entry]) -> Tree {
        if self.random().chance(45) {
            return Tree::nothing();
        }
        let condition = self.expressions.condition(scope, 2);
        Tree::optional(Tree::Sequence(vec![Tree::text(" WHERE "), condition]))
    }

    /// Expressions as the items of a list, maybe with names.
    pub(super) fn items(&mut self, trees: Vec<Tree>, types: Vec<Type>) -> Items {
        // In the tests names are no matter.
        let is_named = self.random().chance(65) || !self.is_full();
        let trees = trees
            .into_iter()
            .enumerate()
            .map(|(place, tree)| {
                if is_named {
                    Tree::Sequence(vec![tree, Tree::text(format!(" AS c{place}"))])
                } else {
                    tree
                }
            })
            .collect();
        Items {
            trees,
            types,
            is_named,
        }
    }

    /// Random expressions as the items of a list.
    pub(super) fn list(&mut self, scope: &[Entry], wanted: Option<&[Type]>) -> Items {
        let types = match wanted {
            Some(types) => types.to_vec(),
            None => {
                let count = 1 + self.random().below(3);
                (0..count).map(|_| self.expressions.r#type(scope)).collect()
            }
        };
        let trees = types
            .iter()
            .map(|r#type| self.expressions.of(*r#type, scope, DEPTH))
            .collect();
        self.items(trees, types)
    }

    /// One SELECT without anything that merges rows.
    pub fn plain(&mut self, depth: usize, outer: &[Entry], wanted: Option<&[Type]>) -> Query {
        let from = relation::from(self, depth, outer);
        let scope = subquery::extended(self, from.scope, outer, depth);
        let filter = self.filter(&scope);
        let items = self.list(&scope, wanted);
        items.select("", vec![from.tree, filter])
    }

    fn distinct(&mut self, depth: usize, outer: &[Entry], wanted: Option<&[Type]>) -> Query {
        self.expressions.notes.merged = true;
        let from = relation::from(self, depth, outer);
        let filter = self.filter(&from.scope);
        let items = self.list(&from.scope, wanted);
        items.select("DISTINCT ", vec![from.tree, filter])
    }

    fn distinct_on(&mut self, depth: usize, outer: &[Entry], wanted: Option<&[Type]>) -> Query {
        let inner = self.plain(depth - 1, outer, wanted);
        if !inner.types.iter().all(|r#type| self.sorts(*r#type)) {
            return inner;
        }
        self.expressions.notes.merged = true;
        let alias = self.alias();
        let order = self.order(&inner, 1);
        let names = columns(inner.types.len());
        Query {
            tree: Tree::query(vec![
                Tree::text(format!("SELECT DISTINCT ON ({alias}.c0) {alias}.* FROM (")),
                inner.tree,
                Tree::text(format!(") AS {alias}({names}) ORDER BY ")),
                order,
            ]),
            types: inner.types,
            is_named: true,
            is_closed: true,
        }
    }

    fn limited(&mut self, depth: usize, outer: &[Entry], wanted: Option<&[Type]>) -> Query {
        let query = if self.random().chance(60) {
            self.plain(depth - 1, outer, wanted)
        } else {
            aggregate::aggregate(self, depth - 1, outer, wanted)
        };
        match self.ordered(query.clone()) {
            Some(ordered) => {
                let limit = self.limit();
                Query {
                    tree: Tree::query(vec![ordered.tree, limit]),
                    ..ordered
                }
            }
            None => query,
        }
    }

    /// LIMIT and OFFSET.
    pub fn limit(&mut self) -> Tree {
        let mut parts = vec![Tree::text(format!(" LIMIT {}", 1 + self.random().below(4)))];
        if self.random().chance(30) {
            let offset = format!(" OFFSET {}", 1 + self.random().below(2));
            parts.push(Tree::optional(Tree::text(offset)));
        }
        Tree::Sequence(parts)
    }

    /// All columns, those before `first` in their places.
    fn order(&mut self, query: &Query, first: usize) -> Tree {
        let mut places: Vec<usize> = (first..query.types.len()).collect();
        self.random().shuffle(&mut places);
        let keys = (0..first.min(query.types.len()))
            .chain(places)
            .map(|place| {
                let directions = ["", "", " DESC", " ASC NULLS FIRST", " DESC NULLS LAST"];
                let direction = self.random().word(&directions);
                let key = if query.is_named && self.random().chance(30) {
                    format!("c{place}")
                } else {
                    (place + 1).to_string()
                };
                Tree::text(format!("{key}{direction}"))
            })
            .collect();
        // None can be left out: rows that are alike in the others would have no order.
        Tree::List {
            separator: ", ",
            least: query.types.len(),
            items: keys,
        }
    }

    fn set_operation(&mut self, depth: usize, outer: &[Entry], wanted: Option<&[Type]>) -> Query {
        let first = self.query(depth - 1, outer, wanted);
        let (types, is_named) = (first.types, first.is_named);
        let mut tree = Tree::Sequence(vec![Tree::text("("), first.tree, Tree::text(")")]);
        for _ in 0..1 + self.random().below(2) {
            let operation = self.random().word(&[
                "UNION",
                "UNION ALL",
                "UNION ALL",
                "EXCEPT",
                "EXCEPT ALL",
                "INTERSECT",
                "INTERSECT ALL",
            ]);
            self.expressions.notes.merged = true;
            let next = self.query(depth - 1, outer, Some(&types));
            tree = Tree::Sequence(vec![
                tree,
                Tree::text(format!(" {operation} (")),
                next.tree,
                Tree::text(")"),
            ]);
        }
        Query {
            tree: Tree::query(vec![tree]),
            types,
            is_named,
            is_closed: false,
        }
    }

    fn values(&mut self, wanted: Option<&[Type]>) -> Query {
        let types = wanted.map_or_else(
            || {
                let count = 1 + self.random().below(2);
                (0..count).map(|_| self.expressions.r#type(&[])).collect()
            },
            <[Type]>::to_vec,
        );
        let rows = 1 + self.random().below(3);
        let rows = (0..rows)
            .map(|_| {
                let values = types
                    .iter()
                    .map(|r#type| self.expressions.of(*r#type, &[], 1))
                    .collect();
                Tree::Sequence(vec![Tree::text("("), Tree::list(values), Tree::text(")")])
            })
            .collect();
        Query {
            tree: Tree::query(vec![Tree::text("VALUES "), Tree::list(rows)]),
            types,
            is_named: false,
            is_closed: false,
        }
    }

    fn common(&mut self, depth: usize, outer: &[Entry], wanted: Option<&[Type]>) -> Query {
        // A query of WITH knows nothing of those around it: it may be asked for in other places.
        let inner = self.query(depth - 1, &[], None);
        let alias = self.alias();
        let names = columns(inner.types.len());
        self.commons.push((alias.clone(), inner.types.clone()));
        // Two WITH cannot stand one after another.
        let body = match self.random().below(4) {
            0 => aggregate::aggregate(self, depth - 1, outer, wanted),
            1 if depth > 1 => self.set_operation(depth - 1, outer, wanted),
            _ => self.plain(depth - 1, outer, wanted),
        };
        self.commons.pop();
        let head = if self.is_full() && self.random().chance(20) {
            let (recursive, union) = (self.alias(), self.random().word(&["UNION", "UNION ALL"]));
            format!(
                "WITH RECURSIVE {recursive}(c0) AS (SELECT 1 {union} SELECT c0 + 1 FROM {recursive} WHERE c0 < 4), {alias}({names}) AS ("
            )
        } else {
            let kept = if self.is_full() {
                self.random()
                    .word(&["", "", "MATERIALIZED ", "NOT MATERIALIZED "])
            } else {
                ""
            };
            format!("WITH {alias}({names}) AS {kept}(")
        };
        let head = vec![Tree::text(head), inner.tree, Tree::text(") ")];
        Query {
            tree: Tree::query(vec![Tree::optional(Tree::Sequence(head)), body.tree]),
            types: body.types,
            is_named: body.is_named,
            is_closed: false,
        }
    }
}

/// The names of so many columns.
#[must_use]
pub fn columns(count: usize) -> String {
    let names: Vec<String> = (0..count).map(|place| format!("c{place}")).collect();
    names.join(", ")
}
