//! Random statements: queries, changes, prepared statements with parameters, and what is wrong on purpose.

use super::aggregate;
use super::expression::{Entry, Notes};
use super::query::Queries;
use super::relation;
use super::schema::Table;
use super::tree::Tree;
use super::types::{BOOL, INT4, Mood, Type};

/// What a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A query, which may be a view.
    Query,
    /// A query that evaluates what can fail.
    Wild,
    /// A query with parameters.
    Prepared,
    /// INSERT, UPDATE or DELETE.
    Change,
    /// Something that PostgreSQL mostly refuses.
    Invalid,
}

/// A statement and what comparisons must know of it.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The statement.
    pub tree: Tree,
    /// What it is.
    pub form: Form,
    /// Whether its rows have an order.
    pub is_ordered: bool,
    /// What it is made of.
    pub notes: Notes,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The type that it is meant to have.
    pub r#type: Type,
    /// Its value as text, or NULL.
    pub value: Option<String>,
}

/// Types whose values can be assigned to columns of a type, by its name.
static ASSIGNABLE: [(&str, &[&str]); 10] = [
    ("int2", &["int4", "int8", "numeric"]),
    ("int4", &["int2", "int8", "numeric"]),
    ("int8", &["int2", "int4", "numeric"]),
    ("float4", &["int4", "float8", "numeric"]),
    ("float8", &["int8", "float4", "numeric"]),
    ("numeric", &["int2", "int8"]),
    ("text", &["varchar", "bpchar", "int4", "date", "bool"]),
    ("varchar", &["text", "bpchar"]),
    ("bpchar", &["text", "varchar"]),
    ("timestamp", &["date", "timestamptz"]),
];

/// What PostgreSQL refuses, of a table {t}.
const REFUSED: [&str; 16] = [
    "SELECT nosuch FROM {t}",
    "SELECT k FROM nosuch",
    "SELECT k, count(*) FROM {t}",
    "SELECT k FROM {t} WHERE count(*) > 1",
    "SELECT k FROM {t} GROUP BY k HAVING sum(sum(k)) > 1",
    "SELECT k FROM {t} UNION SELECT k, k FROM {t}",
    "SELECT k FROM {t} UNION SELECT true",
    "SELECT a.k FROM {t} AS a, {t} AS a",
    "SELECT k FROM {t} AS a, {t} AS b",
    "SELECT k FROM {t} ORDER BY 2",
    "SELECT DISTINCT k FROM {t} ORDER BY k + 1",
    "SELECT DISTINCT ON (k) k FROM {t} ORDER BY -k",
    "SELECT (SELECT k, k FROM {t} LIMIT 1)",
    "SELECT nosuch(k) FROM {t}",
    "SELECT k FROM {t} WHERE k",
    "SELECT k FROM {t} LIMIT 'x'",
];

/// Makes statements.
#[derive(Debug)]
pub struct Statements {
    /// Makes their queries, and has the choices and the tables.
    pub queries: Queries,
}

impl Statements {
    /// A query.
    pub fn query(&mut self) -> Statement {
        self.queries.expressions.notes = Notes::default();
        let full = self.queries.is_full();
        let depth = 1 + self.queries.random().below(3);
        if full && self.queries.random().chance(18) {
            let query = self.queries.wild();
            return self.statement(query.tree, Form::Wild);
        }
        if full && self.queries.random().chance(6) {
            let tree = self.queries.star(depth);
            return self.statement(tree, Form::Query);
        }
        let query = if full && self.queries.random().chance(5) {
            self.queries.series(depth)
        } else {
            self.queries.query(depth, &[], None)
        };
        if self.queries.random().chance(25)
            && let Some(ordered) = self.queries.ordered(query.clone())
        {
            let tree = if self.queries.random().chance(40) {
                let limit = Tree::optional(self.queries.limit());
                Tree::Sequence(vec![ordered.tree, limit])
            } else {
                ordered.tree
            };
            let mut statement = self.statement(Tree::query(vec![tree]), Form::Query);
            statement.is_ordered = true;
            return statement;
        }
        self.statement(query.tree, Form::Query)
    }

    /// A query with parameters, if one came of it.
    pub fn prepared(&mut self) -> Option<Statement> {
        self.queries.expressions.notes = Notes::default();
        let from = relation::table(&mut self.queries);
        let count = 1 + self.queries.random().below(2);
        let mut parameters = Vec::new();
        let mut scope = Vec::new();
        let mut trees = Vec::new();
        for place in 1..=count {
            let r#type = self.queries.expressions.r#type(&from.scope);
            let text = if self.queries.random().chance(60) || !self.queries.is_full() {
                format!("${place}::{}", r#type.cast())
            } else {
                format!("${place}")
            };
            let value = r#type.value(Mood::Calm, self.queries.random());
            parameters.push(Parameter {
                r#type,
                value: value.map(str::to_owned),
            });
            scope.push(Entry::new(text, r#type));
            let both: Vec<Entry> = from.scope.iter().chain(&scope).cloned().collect();
            // In binary there is no telling what is equal but written in another way.
            let is_written_in_one_way = !r#type.is_array()
                && !["numeric", "float", "interval", "jsonb"]
                    .iter()
                    .any(|name| r#type.name().starts_with(name));
            let result = if is_written_in_one_way { r#type } else { BOOL };
            trees.push(self.queries.expressions.of(result, &both, 1));
        }
        let (one, other) = (from.scope.first()?, scope.first()?);
        let filter = Tree::Sequence(vec![
            Tree::text(" WHERE "),
            one.tree.clone(),
            Tree::text(" IS NOT NULL OR "),
            other.tree.clone(),
            Tree::text(" IS NULL"),
        ]);
        let tree = Tree::query(vec![
            Tree::text("SELECT "),
            Tree::list(trees),
            Tree::text(" FROM "),
            from.tree,
            Tree::optional(filter),
        ]);
        let sql = tree.sql();
        let are_used = (1..=count).all(|place| sql.contains(&format!("${place}")));
        let mut statement = self.statement(tree, Form::Prepared);
        statement.parameters = parameters;
        are_used.then_some(statement)
    }

    /// A change of a table.
    pub fn change(&mut self) -> Statement {
        self.queries.expressions.notes = Notes::default();
        let tables = self.queries.schema.tables.clone();
        let Some(table) = self.queries.random().pick(&tables) else {
            return self.statement(Tree::text("SELECT 1"), Form::Change);
        };
        let full = self.queries.is_full();
        let choice = if table.mood == Mood::Wild {
            self.queries.random().below(5)
        } else {
            self.queries.random().below(if full { 18 } else { 12 })
        };
        let tree = match choice {
            0..=3 => {
                let rows = 1 + self.queries.random().below(4);
                table.insert(rows, self.queries.random())
            }
            4 => Tree::text(format!(
                "DELETE FROM {} WHERE k IS NULL OR k < 1",
                table.name
            )),
            5..=7 => self.update(table),
            8..=10 => {
                let condition = self
                    .queries
                    .expressions
                    .condition(&table.scope(&table.name), 2);
                Tree::Sequence(vec![
                    Tree::text(format!("DELETE FROM {} WHERE ", table.name)),
                    condition,
                ])
            }
            11 => Tree::text(format!("DELETE FROM {}", table.name)),
            12..=14 => self.insert_query(table),
            15 | 16 => self.update_from(table),
            _ => self.delete_using(table),
        };
        let tree = if full && self.queries.random().chance(20) {
            let returning = self
                .queries
                .random()
                .word(&[" RETURNING *", " RETURNING k"]);
            Tree::Sequence(vec![tree, Tree::optional(Tree::text(returning))])
        } else {
            tree
        };
        self.statement(tree, Form::Change)
    }

    /// Something wrong: mostly an operation on types that it is not meant for.
    pub fn invalid(&mut self) -> Statement {
        self.queries.expressions.notes = Notes::default();
        let from = relation::table(&mut self.queries);
        if self.queries.random().chance(15) {
            let template = self.queries.random().word(&REFUSED);
            let tables = self.queries.schema.tables.clone();
            let name = self
                .queries
                .random()
                .pick(&tables)
                .map_or("nosuch", |table| table.name.as_str());
            let tree = Tree::text(template.replace("{t}", name));
            return self.statement(tree, Form::Invalid);
        }
        let tree = self.queries.expressions.mismatched(&from.scope);
        let tree = Tree::query(vec![
            Tree::text("SELECT "),
            tree,
            Tree::text(" FROM "),
            from.tree,
        ]);
        self.statement(tree, Form::Invalid)
    }

    fn statement(&self, tree: Tree, form: Form) -> Statement {
        Statement {
            tree,
            form,
            is_ordered: false,
            notes: self.queries.expressions.notes,
            parameters: Vec::new(),
        }
    }

    /// An expression that can be assigned to a column of a type. It computes nothing: what grows from round to round is not calm for long.
    fn assigned(&mut self, r#type: Type, scope: &[Entry]) -> Tree {
        let found = ASSIGNABLE.iter().find(|(name, _)| *name == r#type.name());
        let r#type = match found {
            Some((_, others)) if self.queries.is_full() && self.queries.random().chance(40) => {
                let other = self.queries.random().word(others);
                Type::named(other).unwrap_or(r#type)
            }
            _ => r#type,
        };
        let value = self.queries.expressions.of(r#type, scope, 0);
        if self.queries.random().chance(60) {
            return value;
        }
        let condition = self.queries.expressions.condition(scope, 1);
        let other = self.queries.expressions.of(r#type, scope, 0);
        let parts = vec![
            Tree::text("CASE WHEN "),
            condition,
            Tree::text(" THEN "),
            value,
            Tree::text(" ELSE "),
            other,
            Tree::text(" END"),
        ];
        Tree::expression(r#type, Tree::Sequence(parts))
    }

    fn update(&mut self, table: &Table) -> Tree {
        let scope = table.scope(&table.name);
        let mut columns: Vec<_> = table.columns.clone();
        self.queries.random().shuffle(&mut columns);
        columns.truncate(1 + self.queries.random().below(2));
        let sets = columns
            .iter()
            .map(|column| {
                let value = self.assigned(column.r#type, &scope);
                Tree::Sequence(vec![Tree::text(format!("{} = ", column.name)), value])
            })
            .collect();
        let condition = self.queries.expressions.condition(&scope, 2);
        Tree::Sequence(vec![
            Tree::text(format!("UPDATE {} SET ", table.name)),
            Tree::list(sets),
            Tree::optional(Tree::Sequence(vec![Tree::text(" WHERE "), condition])),
        ])
    }

    /// INSERT with a query whose columns are assigned to those of the table.
    fn insert_query(&mut self, table: &Table) -> Tree {
        let from = relation::from(&mut self.queries, 1, &[]);
        let filter = self.queries.filter(&from.scope);
        let mut columns: Vec<_> = table.columns.clone();
        self.queries.random().shuffle(&mut columns);
        columns.truncate(1 + self.queries.random().below(3));
        let values = columns
            .iter()
            .map(|column| self.assigned(column.r#type, &from.scope))
            .collect();
        let names: Vec<String> = columns.into_iter().map(|column| column.name).collect();
        Tree::Sequence(vec![
            Tree::text(format!(
                "INSERT INTO {} ({}) ",
                table.name,
                names.join(", ")
            )),
            Tree::query(vec![
                Tree::text("SELECT "),
                Tree::list(values),
                Tree::text(" FROM "),
                from.tree,
                filter,
            ]),
        ])
    }

    /// One row of each key of another table, so that no row is changed in two ways.
    fn by_key(&mut self) -> (Tree, Vec<Entry>) {
        let from = relation::table(&mut self.queries);
        let call = aggregate::call(&mut self.queries, &from.scope);
        let key = from
            .scope
            .first()
            .map_or_else(|| "1".to_owned(), |entry| entry.tree.sql());
        let tree = Tree::Sequence(vec![
            Tree::text(format!("(SELECT {key}, ")),
            call.tree,
            Tree::text(" FROM "),
            from.tree,
            Tree::text(format!(" GROUP BY {key}) AS o(c0, c1)")),
        ]);
        let scope = vec![
            Entry::new("o.c0".to_owned(), INT4),
            Entry::new("o.c1".to_owned(), call.r#type),
        ];
        (tree, scope)
    }

    fn update_from(&mut self, table: &Table) -> Tree {
        let (other, mut scope) = self.by_key();
        // An aggregate may be larger than what it is made of.
        scope.truncate(1);
        scope.extend(table.scope(&table.name));
        let column = self.queries.random().pick(&table.columns).cloned();
        let (name, r#type) = column.map_or(("k".to_owned(), INT4), |column| {
            (column.name, column.r#type)
        });
        let value = self.assigned(r#type, &scope);
        Tree::Sequence(vec![
            Tree::text(format!("UPDATE {} SET {name} = ", table.name)),
            value,
            Tree::text(" FROM "),
            other,
            Tree::text(format!(" WHERE {}.k = o.c0", table.name)),
        ])
    }

    fn delete_using(&mut self, table: &Table) -> Tree {
        let (other, mut scope) = self.by_key();
        scope.extend(table.scope(&table.name));
        let condition = self.queries.expressions.condition(&scope, 1);
        Tree::Sequence(vec![
            Tree::text(format!("DELETE FROM {} USING ", table.name)),
            other,
            Tree::text(format!(" WHERE {}.k = o.c0", table.name)),
            Tree::optional(Tree::Sequence(vec![Tree::text(" AND "), condition])),
        ])
    }
}
