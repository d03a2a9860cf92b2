//! Joins that name columns instead of a condition: `USING (a)` and `NATURAL`.
//!
//! Owns the columns that a FROM has: which there are, in which order `*` yields them, and what each is. A merged column is a column of the join and of
//! neither table: the left one's of an inner or left join, the right one's of a right join, whichever is there of a full join. Here such joins become
//! joins ON a condition, references to merged columns become what they stand for, and `*` is spelled out. A query without such a join is left as it is.
//! Must not know plans or the types of expressions: where two columns have different types, a marker leaves the common one to [`super::exprs`].
//! Called by [`super::names`] when the names of relations are resolved.
//!
//! Invariants. No join of a resolved tree has USING or NATURAL. Columns that are not merged are written as they were.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::rc::Rc;

use flowstone_types::{ObjectId, SqlType};
use sqlparser::ast::{
    AccessExpr, BinaryOperator, Cte, Distinct, Expr, GroupByExpr, Ident, Join, JoinConstraint,
    JoinOperator, ObjectName, OrderBy, OrderByKind, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, Value,
    Visit, VisitMut, Visitor, VisitorMut, WildcardAdditionalOptions, With,
};

use super::PlanContext;
use super::names::{self, Found, INTERNAL, Relation, fold, fold_name, quoted, table_alias};
use super::rewrite::{binary, column_name, marker, prepare_factor};
use crate::error::{Error, ErrorKind};

/// Turns the joins of `query` that have USING or NATURAL into joins with a condition. The names of its relations are resolved: see [`super::names`].
///
/// # Errors
/// If a column that a join names is missing on a side or is there more than once, or a reference to a merged column is ambiguous.
pub(super) fn spell_out(
    ctx: &PlanContext<'_>,
    found: &Found<'_>,
    query: &mut Query,
) -> Result<(), Error> {
    if Visit::visit(query, &mut Merges).is_continue() {
        return Ok(());
    }
    let mut speller = Speller {
        ctx,
        found,
        scopes: Vec::new(),
        ctes: Vec::new(),
        derived: 0,
    };
    speller.query(query).map(|_| ())
}

/// Breaks at a SELECT with a join that merges columns.
struct Merges;

impl Visitor for Merges {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.from.iter().any(merges) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// Whether a FROM item, what it nests included, has a join that merges columns.
fn merges(table: &TableWithJoins) -> bool {
    let nested = |factor: &TableFactor| matches!(factor, TableFactor::NestedJoin { table_with_joins, .. } if merges(table_with_joins));
    nested(&table.relation)
        || table.joins.iter().any(|join| {
            let merging = constraint_of(&join.join_operator).is_some_and(|(_, constraint)| {
                matches!(
                    constraint,
                    JoinConstraint::Using(_) | JoinConstraint::Natural
                )
            });
            merging || nested(&join.relation)
        })
}

/// Which side's value a merged column has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Merge {
    /// Both are the same.
    Inner,
    Left,
    Right,
    Full,
}

fn constraint_of(operator: &JoinOperator) -> Option<(Merge, &JoinConstraint)> {
    match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => {
            Some((Merge::Inner, constraint))
        }
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
            Some((Merge::Left, constraint))
        }
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
            Some((Merge::Right, constraint))
        }
        JoinOperator::FullOuter(constraint) => Some((Merge::Full, constraint)),
        _ => None,
    }
}

/// The column of a relation, as far as the tree and the catalog tell.
#[derive(Clone)]
struct Known {
    name: String,
    sql_type: Option<SqlType>,
}

/// The columns of a relation; `None` if they cannot be told without planning it.
type Columns = Option<Vec<Known>>;

fn untyped(name: String) -> Known {
    Known {
        name,
        sql_type: None,
    }
}

fn untyped_all(columns: Columns) -> Columns {
    let columns = columns?.into_iter();
    Some(columns.map(|known| untyped(known.name)).collect())
}

/// A column that expressions can name without its table.
#[derive(Clone)]
struct Visible {
    known: Known,
    /// What it stands for.
    expr: Expr,
    merged: bool,
}

/// What the names in the expressions of a SELECT, or of a join's condition, stand for. Clones share it.
#[derive(Clone)]
struct Scope {
    /// In the order of `*`.
    columns: Rc<Vec<Visible>>,
    /// The tables by their names.
    tables: Rc<Vec<(String, Columns)>>,
    /// Whether `columns` are all.
    complete: bool,
}

impl Scope {
    fn empty() -> Self {
        Self {
            columns: Rc::default(),
            tables: Rc::default(),
            complete: true,
        }
    }

    fn table(name: &str, columns: Columns) -> Self {
        let visible = columns.iter().flatten().map(|known| Visible {
            known: known.clone(),
            expr: Expr::CompoundIdentifier(vec![quoted(name), quoted(&known.name)]),
            merged: false,
        });
        Self {
            columns: Rc::new(visible.collect()),
            complete: columns.is_some(),
            tables: Rc::new(vec![(name.to_owned(), columns)]),
        }
    }

    fn beside(mut self, other: Self) -> Self {
        Rc::make_mut(&mut self.columns).extend(Rc::unwrap_or_clone(other.columns));
        Rc::make_mut(&mut self.tables).extend(Rc::unwrap_or_clone(other.tables));
        self.complete &= other.complete;
        self
    }

    fn named<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Visible> {
        self.columns
            .iter()
            .filter(move |visible| visible.known.name == name)
    }

    /// The table of that name, if its columns are known.
    fn columns_of(&self, name: &ObjectName) -> Option<(&str, &[Known])> {
        let table = fold_name(name).pop()?;
        let (known_as, columns) = self.tables.iter().find(|(known, _)| *known == table)?;
        Some((known_as, columns.as_deref()?))
    }

    fn has_merged(&self) -> bool {
        self.columns.iter().any(|visible| visible.merged)
    }

    /// What an item of a select list stands for, if it is just a column: equal ones are the same.
    fn stands_for(&self, expr: &Expr) -> Expr {
        match expr {
            Expr::Nested(inner) => self.stands_for(inner),
            Expr::CompoundIdentifier(parts) => {
                Expr::CompoundIdentifier(parts.iter().map(|part| quoted(&fold(part))).collect())
            }
            Expr::Identifier(ident) => {
                let name = fold(ident);
                let mut found = self.named(&name);
                match (found.next(), found.next()) {
                    (Some(only), None) => only.expr.clone(),
                    _ => expr.clone(),
                }
            }
            other => other.clone(),
        }
    }
}

struct Speller<'c, 'a, 'f> {
    ctx: &'c PlanContext<'a>,
    found: &'f Found<'a>,
    /// What the queries around the one at hand have in scope, the innermost last.
    scopes: Vec<Scope>,
    /// Common table expressions in scope, the innermost last.
    ctes: Vec<(String, Columns)>,
    /// Relations without a name seen so far.
    derived: usize,
}

impl Speller<'_, '_, '_> {
    fn query(&mut self, query: &mut Query) -> Result<Columns, Error> {
        let ctes = self.ctes.len();
        self.with(query.with.as_mut())?;
        let columns = self.body(&mut query.body, query.order_by.as_mut())?;
        self.ctes.truncate(ctes);
        Ok(columns)
    }

    /// Brings the queries of a WITH into scope.
    fn with(&mut self, with: Option<&mut With>) -> Result<(), Error> {
        let Some(with) = with else {
            return Ok(());
        };
        for cte in &mut with.cte_tables {
            let columns = if with.recursive {
                self.recursive(cte)?
            } else {
                self.query(&mut cte.query)?
            };
            let name = fold(&cte.alias.name);
            self.ctes.push((name, renamed(columns, Some(&cte.alias))));
        }
        Ok(())
    }

    /// A query that may name itself. What it begins with has its columns, and is passed before them.
    fn recursive(&mut self, cte: &mut Cte) -> Result<Columns, Error> {
        let (ctes, name) = (self.ctes.len(), fold(&cte.alias.name));
        let query = cte.query.as_mut();
        let columns = if let SetExpr::SetOperation { left, right, .. } = query.body.as_mut() {
            self.with(query.with.as_mut())?;
            let columns = self.body(left, None)?;
            let shown = renamed(columns.clone(), Some(&cte.alias));
            self.ctes.push((name, shown));
            self.body(right, None)?;
            untyped_all(columns)
        } else {
            self.ctes.push((name, None));
            self.query(query)?
        };
        self.ctes.truncate(ctes);
        Ok(columns)
    }

    fn body(
        &mut self,
        body: &mut SetExpr,
        order_by: Option<&mut OrderBy>,
    ) -> Result<Columns, Error> {
        match body {
            SetExpr::Select(select) => self.select(select, order_by),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, right, .. } => {
                let columns = self.body(left, None)?;
                self.body(right, None)?;
                // The types of both sides decide.
                Ok(untyped_all(columns))
            }
            SetExpr::Values(values) => {
                self.expressions(values, &Scope::empty())?;
                let width = values.rows.first().map_or(0, |row| row.content.len());
                Ok(Some(
                    (1..=width)
                        .map(|number| untyped(format!("column{number}")))
                        .collect(),
                ))
            }
            _ => Ok(None),
        }
    }

    fn select(
        &mut self,
        select: &mut Select,
        order_by: Option<&mut OrderBy>,
    ) -> Result<Columns, Error> {
        let mut scope = Scope::empty();
        for table in &mut select.from {
            let item = self.table_with_joins(table, &scope)?;
            scope = scope.beside(item);
        }
        if scope.has_merged() {
            expand_wildcards(&mut select.projection, &scope)?;
        }
        let columns = output_columns(&select.projection, &scope);
        if scope.has_merged() {
            if let Some(order_by) = order_by {
                self.order(order_by, select, &columns, &scope)?;
            }
            if let Some(Distinct::On(exprs)) = &mut select.distinct {
                self.bare(exprs.iter_mut(), &select.projection, &scope)?;
            }
            if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
                for expr in exprs {
                    // A name that the FROM does not have is an output column's.
                    if let Expr::Identifier(ident) = &*expr
                        && scope.named(&fold(ident)).next().is_none()
                    {
                        continue;
                    }
                    self.expressions(expr, &scope)?;
                }
            }
        } else {
            self.plain_clauses(select, order_by, &scope)?;
        }
        for item in &mut select.projection {
            self.item(item, &scope)?;
        }
        for expr in [
            &mut select.selection,
            &mut select.having,
            &mut select.qualify,
        ]
        .into_iter()
        .flatten()
        {
            self.expressions(expr, &scope)?;
        }
        self.expressions(&mut select.named_window, &scope)?;
        Ok(columns)
    }

    /// What only needs a look at its subqueries and at columns of the queries around it.
    fn plain_clauses(
        &mut self,
        select: &mut Select,
        order_by: Option<&mut OrderBy>,
        scope: &Scope,
    ) -> Result<(), Error> {
        if let Some(order_by) = order_by {
            self.expressions(order_by, scope)?;
        }
        if let Some(distinct) = &mut select.distinct {
            self.expressions(distinct, scope)?;
        }
        self.expressions(&mut select.group_by, scope)
    }

    /// An item keeps the name that it had as it was written.
    fn item(&mut self, item: &mut SelectItem, scope: &Scope) -> Result<(), Error> {
        let SelectItem::UnnamedExpr(expr) = item else {
            return self.expressions(item, scope);
        };
        let name = column_name(expr);
        let before = expr.clone();
        self.expressions(expr, scope)?;
        if *expr != before {
            let expr = std::mem::replace(expr, Expr::value(Value::Null));
            *item = SelectItem::ExprWithAlias {
                expr,
                alias: quoted(&name),
            };
        }
        Ok(())
    }

    /// ORDER BY a name means an output column first. One that is called as a merged column is, is meant by its number: the planner would see the
    /// columns of the tables beside it.
    fn order(
        &mut self,
        order_by: &mut OrderBy,
        select: &Select,
        columns: &Columns,
        scope: &Scope,
    ) -> Result<(), Error> {
        let OrderByKind::Expressions(exprs) = &mut order_by.kind else {
            return Ok(());
        };
        if matches!(select.distinct, Some(Distinct::On(_))) {
            let exprs = exprs.iter_mut().map(|order| &mut order.expr);
            return self.bare(exprs, &select.projection, scope);
        }
        for order in exprs {
            let named = match &order.expr {
                Expr::Identifier(ident) if scope.named(&fold(ident)).any(|found| found.merged) => {
                    Some((ident.clone(), fold(ident)))
                }
                _ => None,
            };
            let Some((ident, name)) = named else {
                if !matches!(order.expr, Expr::Identifier(_)) {
                    self.expressions(&mut order.expr, scope)?;
                }
                continue;
            };
            let positions: Vec<usize> = columns
                .iter()
                .flatten()
                .enumerate()
                .filter(|(_, known)| known.name == name)
                .map(|(index, _)| index)
                .collect();
            match positions.as_slice() {
                [] => self.expressions(&mut order.expr, scope)?,
                [first, rest @ ..] => {
                    let item = |index: &usize| {
                        let item = select.projection.get(*index).and_then(plain_expr);
                        item.map(|expr| scope.stands_for(expr))
                    };
                    if rest.iter().any(|other| item(other) != item(first)) {
                        let message = format!("ORDER BY \"{name}\" is ambiguous");
                        return Err(
                            self.at(Error::new(ErrorKind::AmbiguousColumn, message), &ident)
                        );
                    }
                    order.expr = Expr::value(Value::Number((first + 1).to_string(), true));
                }
            }
        }
        Ok(())
    }

    /// Expressions whose bare names mean output columns first, of a select list that is not spelled out yet.
    fn bare<'e>(
        &mut self,
        exprs: impl Iterator<Item = &'e mut Expr>,
        projection: &[SelectItem],
        scope: &Scope,
    ) -> Result<(), Error> {
        for expr in exprs {
            if let Expr::Identifier(ident) = &*expr {
                let name = fold(ident);
                let another = projection.iter().any(|item| {
                    matches!(item, SelectItem::ExprWithAlias { alias, expr } if fold(alias) == name
                        && !matches!(expr, Expr::Identifier(of) if fold(of) == name)
                        && scope.named(&name).all(|visible| visible.expr != *expr))
                });
                if another || scope.named(&name).next().is_none() {
                    continue;
                }
            }
            self.expressions(expr, scope)?;
        }
        Ok(())
    }

    fn table_with_joins(
        &mut self,
        table: &mut TableWithJoins,
        before: &Scope,
    ) -> Result<Scope, Error> {
        let mut left = self.factor(&mut table.relation, before)?;
        for join in &mut table.joins {
            let beside = match &join.relation {
                TableFactor::Table { args: None, .. }
                | TableFactor::Derived { lateral: false, .. } => Scope::empty(),
                _ => before.clone().beside(left.clone()),
            };
            let right = self.factor(&mut join.relation, &beside)?;
            left = self.join(join, left, right)?;
        }
        Ok(left)
    }

    fn join(&mut self, join: &mut Join, left: Scope, right: Scope) -> Result<Scope, Error> {
        let Some((merge, constraint)) = constraint_of(&join.join_operator) else {
            let both = left.beside(right);
            self.expressions(&mut join.join_operator, &both)?;
            return Ok(both);
        };
        let merged = match constraint {
            JoinConstraint::Using(columns) => self.using(columns, &left, &right)?,
            JoinConstraint::Natural => Self::natural(&left, &right)?,
            JoinConstraint::On(_) | JoinConstraint::None => {
                let both = left.beside(right);
                self.expressions(&mut join.join_operator, &both)?;
                return Ok(both);
            }
        };
        let mut names = BTreeSet::new();
        let mut visible = Vec::new();
        let mut conditions = Vec::new();
        for (name, left, right) in merged {
            conditions.push(binary(
                left.expr.clone(),
                BinaryOperator::Eq,
                right.expr.clone(),
            ));
            visible.push(merged_column(merge, &name, left, right)?);
            names.insert(name);
        }
        let condition = conditions
            .into_iter()
            .reduce(|left, right| binary(left, BinaryOperator::And, right))
            .unwrap_or_else(|| Expr::value(Value::Boolean(true)));
        let constraint = JoinConstraint::On(condition);
        join.join_operator = match merge {
            Merge::Inner if names.is_empty() => JoinOperator::CrossJoin(JoinConstraint::None),
            Merge::Inner => JoinOperator::Inner(constraint),
            Merge::Left => JoinOperator::Left(constraint),
            Merge::Right => JoinOperator::Right(constraint),
            Merge::Full => JoinOperator::FullOuter(constraint),
        };
        let both = left.beside(right);
        let others = Rc::unwrap_or_clone(both.columns)
            .into_iter()
            .filter(|other| !names.contains(&other.known.name));
        visible.extend(others);
        Ok(Scope {
            columns: Rc::new(visible),
            tables: both.tables,
            complete: both.complete,
        })
    }

    /// The columns that USING names: on the left, and on the right.
    fn using(
        &self,
        columns: &[ObjectName],
        left: &Scope,
        right: &Scope,
    ) -> Result<Vec<(String, Visible, Visible)>, Error> {
        let mut merged: Vec<(String, Visible, Visible)> = Vec::new();
        for column in columns {
            let ident = match column.0.as_slice() {
                [part] => part.as_ident(),
                _ => None,
            };
            let ident = ident.ok_or_else(|| Error::syntax("USING names columns"))?;
            let name = fold(ident);
            if merged.iter().any(|(known, _, _)| *known == name) {
                let message =
                    format!("column name \"{name}\" appears more than once in USING clause");
                return Err(self.at(Error::new(ErrorKind::DuplicateColumn, message), ident));
            }
            let on = |side: &Scope, called: &str| {
                only_column(side, called, &name).map_err(|error| self.at(error, ident))
            };
            let (left, right) = (on(left, "left")?, on(right, "right")?);
            merged.push((name, left, right));
        }
        Ok(merged)
    }

    /// The columns that both sides have.
    fn natural(left: &Scope, right: &Scope) -> Result<Vec<(String, Visible, Visible)>, Error> {
        if !left.complete || !right.complete {
            return Err(unknown_columns());
        }
        let mut merged: Vec<(String, Visible, Visible)> = Vec::new();
        for visible in left.columns.iter() {
            let name = &visible.known.name;
            if right.named(name).next().is_some() {
                let columns = (
                    only_column(left, "left", name)?,
                    only_column(right, "right", name)?,
                );
                merged.push((name.clone(), columns.0, columns.1));
            }
        }
        Ok(merged)
    }

    fn factor(&mut self, factor: &mut TableFactor, before: &Scope) -> Result<Scope, Error> {
        if let TableFactor::NestedJoin {
            table_with_joins,
            alias,
        } = factor
        {
            let Some(alias) = alias.take() else {
                return self.table_with_joins(table_with_joins, before);
            };
            // The name hides those of the tables.
            let all = SelectItem::Wildcard(WildcardAdditionalOptions::default());
            let select = names::select(vec![all], vec![(**table_with_joins).clone()]);
            *factor = TableFactor::Derived {
                lateral: false,
                subquery: Box::new(names::query(SetExpr::Select(Box::new(select)))),
                alias: Some(alias),
                sample: None,
            };
        }
        match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                ..
            } => {
                let columns = self.relation_columns(name);
                let called = alias.as_ref().map_or_else(
                    || fold_name(name).pop().unwrap_or_default(),
                    |alias| fold(&alias.name),
                );
                Ok(Scope::table(&called, renamed(columns, alias.as_ref())))
            }
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                ..
            } => {
                if *lateral {
                    self.scopes.push(before.clone());
                }
                let columns = self.query(subquery)?;
                if *lateral {
                    self.scopes.pop();
                }
                self.derived += 1;
                let number = self.derived;
                let alias =
                    alias.get_or_insert_with(|| table_alias(&format!("{INTERNAL}joined{number}")));
                Ok(Scope::table(
                    &fold(&alias.name),
                    renamed(columns, Some(alias)),
                ))
            }
            _ => {
                self.expressions(factor, before)?;
                Ok(function_scope(factor))
            }
        }
    }

    fn relation_columns(&self, name: &ObjectName) -> Columns {
        let parts = fold_name(name);
        let [only] = parts.as_slice() else {
            return None;
        };
        let id = only
            .strip_prefix(INTERNAL)
            .and_then(|id| id.parse::<ObjectId>().ok());
        match id {
            Some(id) => match self.found.relations.get(&id)? {
                Relation::Item(item) => Some(
                    item.columns()?
                        .iter()
                        .map(|column| Known {
                            name: column.name.clone(),
                            sql_type: Some(column.sql_type.clone()),
                        })
                        .collect(),
                ),
                Relation::System(relation) => Some(
                    relation
                        .columns
                        .iter()
                        .map(|column| Known {
                            name: column.name.to_owned(),
                            sql_type: Some(column.sql_type()),
                        })
                        .collect(),
                ),
            },
            None => self
                .ctes
                .iter()
                .rev()
                .find(|(cte, _)| cte == only)
                .and_then(|(_, columns)| columns.clone()),
        }
    }

    /// Spells out the merged columns in the expressions of `node`, and the subqueries in them.
    fn expressions(&mut self, node: &mut impl VisitMut, scope: &Scope) -> Result<(), Error> {
        self.scopes.push(scope.clone());
        let mut visitor = Expressions {
            speller: self,
            taken: Vec::new(),
            fields: 0,
        };
        let outcome = VisitMut::visit(node, &mut visitor);
        self.scopes.pop();
        match outcome {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    /// What a name without a table stands for, if it is a merged column's.
    fn merged(&self, ident: &Ident) -> Result<Option<Expr>, Error> {
        let name = fold(ident);
        for (depth, scope) in self.scopes.iter().rev().enumerate() {
            let found: Vec<&Visible> = scope.named(&name).collect();
            match found.as_slice() {
                [] if scope.complete => {}
                [only] if only.merged => {
                    if self.is_hidden(&only.expr, depth) {
                        let message = format!(
                            "column \"{name}\" of a join around tables of the same names is not supported"
                        );
                        let error = Error::unsupported(message)
                            .with_hint("Give the tables of the subquery other names.");
                        return Err(self.at(error, ident));
                    }
                    return Ok(Some(only.expr.clone()));
                }
                [_, _, ..] if found.iter().any(|visible| visible.merged) => {
                    let message = format!("column reference \"{name}\" is ambiguous");
                    return Err(self.at(Error::new(ErrorKind::AmbiguousColumn, message), ident));
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Whether a table of the innermost `depth` scopes has the name of a table in `expr`.
    fn is_hidden(&self, expr: &Expr, depth: usize) -> bool {
        let outcome = sqlparser::ast::visit_expressions(expr, |part| {
            if let Expr::CompoundIdentifier(parts) = part
                && let Some(table) = parts.first().map(fold)
                && self
                    .scopes
                    .iter()
                    .rev()
                    .take(depth)
                    .any(|scope| scope.tables.iter().any(|(name, _)| *name == table))
            {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        outcome.is_break()
    }

    fn at(&self, error: Error, ident: &Ident) -> Error {
        match names::position(self.ctx, ident.span) {
            Some(position) => error.at(position),
            None => error,
        }
    }
}

/// See [`Speller::expressions`].
struct Expressions<'s, 'c, 'a, 'f> {
    speller: &'s mut Speller<'c, 'a, 'f>,
    /// Subqueries that are done, while the visitor passes by their places.
    taken: Vec<Query>,
    /// Accesses to fields around the place: the names of fields are no columns.
    fields: usize,
}

fn is_field_access(expr: &Expr) -> bool {
    matches!(expr, Expr::CompoundFieldAccess { access_chain, .. }
        if access_chain.iter().any(|access| matches!(access, AccessExpr::Dot(_))))
}

impl VisitorMut for Expressions<'_, '_, '_, '_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let nothing = names::query(SetExpr::Select(Box::new(names::select(
            Vec::new(),
            Vec::new(),
        ))));
        let mut taken = std::mem::replace(query, nothing);
        if let Err(error) = self.speller.query(&mut taken) {
            return ControlFlow::Break(error);
        }
        self.taken.push(taken);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if let Some(taken) = self.taken.pop() {
            *query = taken;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        self.fields += usize::from(is_field_access(expr));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        self.fields = self
            .fields
            .saturating_sub(usize::from(is_field_access(expr)));
        if let Expr::Identifier(ident) = &*expr
            && self.fields == 0
        {
            match self.speller.merged(ident) {
                Ok(Some(merged)) => *expr = merged,
                Ok(None) => {}
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    }
}

fn unknown_columns() -> Error {
    Error::unsupported("USING and NATURAL beside this kind of table function are not supported")
        .with_hint("Join ON a condition.")
}

/// The one column of that name.
fn only_column(side: &Scope, called: &str, name: &str) -> Result<Visible, Error> {
    let mut found = side.named(name);
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(Error::new(
            ErrorKind::AmbiguousColumn,
            format!("common column name \"{name}\" appears more than once in {called} table"),
        )),
        _ if !side.complete => Err(unknown_columns()),
        (Some(only), None) => Ok(only.clone()),
        (None, _) => Err(Error::new(
            ErrorKind::UndefinedColumn,
            format!("column \"{name}\" specified in USING clause does not exist in {called} table"),
        )),
    }
}

/// The column that a join makes of two.
fn merged_column(
    merge: Merge,
    name: &str,
    left: Visible,
    right: Visible,
) -> Result<Visible, Error> {
    let types = (left.known.sql_type, right.known.sql_type);
    let same = types.0.is_some() && types.0 == types.1;
    if let (Some(left), Some(right)) = &types
        && !super::exprs::comparable(left, right)
    {
        return Err(Error::new(
            ErrorKind::DatatypeMismatch,
            format!("JOIN/USING types {left} and {right} cannot be matched"),
        ));
    }
    let both = vec![left.expr.clone(), right.expr.clone()];
    let expr = match merge {
        Merge::Full => marker("unify:coalesce", both),
        Merge::Inner | Merge::Left if same => left.expr,
        Merge::Right if same => right.expr,
        Merge::Inner => marker("merged:inner", both),
        Merge::Left => marker("merged:left", both),
        Merge::Right => marker("merged:right", both),
    };
    Ok(Visible {
        known: Known {
            name: name.to_owned(),
            sql_type: types.0.filter(|_| same),
        },
        expr,
        merged: true,
    })
}

/// The columns under the names that an alias gives the first ones.
fn renamed(columns: Columns, alias: Option<&TableAlias>) -> Columns {
    let mut columns = columns?;
    let names = alias.map_or(&[][..], |alias| alias.columns.as_slice());
    for (known, column) in columns.iter_mut().zip(names) {
        known.name = fold(&column.name);
    }
    Some(columns)
}

/// What a function in FROM brings into scope: as the tree will have it when it is rewritten.
fn function_scope(factor: &TableFactor) -> Scope {
    let mut prepared = factor.clone();
    let alias = match prepare_factor(&mut prepared, 0) {
        Ok(()) => match prepared {
            TableFactor::UNNEST { alias, .. } | TableFactor::Derived { alias, .. } => alias,
            _ => None,
        },
        Err(_) => None,
    };
    match alias {
        Some(alias) => {
            let columns = alias
                .columns
                .iter()
                .map(|column| untyped(fold(&column.name)));
            Scope::table(&fold(&alias.name), Some(columns.collect()))
        }
        None => Scope {
            complete: false,
            ..Scope::empty()
        },
    }
}

/// Spells out `*` and `t.*`.
fn expand_wildcards(projection: &mut Vec<SelectItem>, scope: &Scope) -> Result<(), Error> {
    let mut expanded = Vec::new();
    for item in std::mem::take(projection) {
        match item {
            SelectItem::Wildcard(_) if !scope.complete => return Err(unknown_columns()),
            SelectItem::Wildcard(_) => {
                for visible in scope.columns.iter() {
                    let expr = visible.expr.clone();
                    expanded.push(if visible.merged {
                        SelectItem::ExprWithAlias {
                            expr,
                            alias: quoted(&visible.known.name),
                        }
                    } else {
                        SelectItem::UnnamedExpr(expr)
                    });
                }
            }
            SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                options,
            ) => match scope.columns_of(&name) {
                Some((table, columns)) => {
                    expanded.extend(columns.iter().map(|known| {
                        let parts = vec![quoted(table), quoted(&known.name)];
                        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts))
                    }));
                }
                None => expanded.push(SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    options,
                )),
            },
            other => expanded.push(other),
        }
    }
    *projection = expanded;
    Ok(())
}

/// The columns of a select list.
fn output_columns(projection: &[SelectItem], scope: &Scope) -> Columns {
    let mut columns = Vec::new();
    for item in projection {
        match item {
            SelectItem::UnnamedExpr(expr) => columns.push(Known {
                name: column_name(expr),
                sql_type: column_type(expr, scope),
            }),
            SelectItem::ExprWithAlias { expr, alias } => columns.push(Known {
                name: fold(alias),
                sql_type: column_type(expr, scope),
            }),
            SelectItem::Wildcard(_) if scope.complete => {
                columns.extend(scope.columns.iter().map(|visible| visible.known.clone()));
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                columns.extend(scope.columns_of(name)?.1.iter().cloned());
            }
            _ => return None,
        }
    }
    Some(columns)
}

/// The type of an expression that is just a column, as far as it is known.
fn column_type(expr: &Expr, scope: &Scope) -> Option<SqlType> {
    let only = |mut found: Box<dyn Iterator<Item = &Known> + '_>| match (found.next(), found.next())
    {
        (Some(known), None) => known.sql_type.clone(),
        _ => None,
    };
    match expr {
        Expr::Identifier(ident) => {
            let name = fold(ident);
            only(Box::new(
                scope
                    .columns
                    .iter()
                    .filter(move |visible| visible.known.name == name)
                    .map(|visible| &visible.known),
            ))
        }
        Expr::CompoundIdentifier(parts) => {
            let [table, column] = parts.as_slice() else {
                return None;
            };
            let (table, column) = (fold(table), fold(column));
            let (_, columns) = scope.tables.iter().find(|(known, _)| *known == table)?;
            only(Box::new(
                columns
                    .iter()
                    .flatten()
                    .filter(move |known| known.name == column),
            ))
        }
        _ => None,
    }
}

const fn plain_expr(item: &SelectItem) -> Option<&Expr> {
    super::rewrite::item_expr(item)
}
