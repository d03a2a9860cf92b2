//! Subqueries in place of values, in forms that DataFusion unnests.
//!
//! Owns what a subquery must look like to become a join: one row at most, correlated by equality of columns, an aggregate instead of a limit. Whatever
//! cannot be brought into that form is left as it is, and refused later. Must not know types. Called by [`super::rewrite`].

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, GroupByExpr, LimitClause, ObjectName, OrderBy, OrderByKind, Query, Select,
    SelectItem, SetExpr, SetOperator, TableFactor, TableWithJoins, Value, VisitorMut,
};

use super::names::{self, INTERNAL, fold, quoted, table_alias};
use super::rewrite::{binary, call, calls_chance, column_name, item_expr, marker, string};
use crate::error::Error;

/// EXISTS in a select list is a count: DataFusion unnests EXISTS only in conditions.
pub(super) struct CountExists {
    pub(super) depth: usize,
}

impl VisitorMut for CountExists {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if self.depth == 0
            && let Expr::Exists { subquery, negated } = expr
        {
            let zero = Expr::value(Value::Number("0".to_owned(), false));
            let op = if *negated {
                BinaryOperator::Eq
            } else {
                BinaryOperator::Gt
            };
            let test = binary(count_rows(), op, zero);
            let taken = std::mem::replace(
                &mut **subquery,
                names::query(SetExpr::Select(Box::new(names::select(
                    Vec::new(),
                    Vec::new(),
                )))),
            );
            *expr = Expr::Subquery(Box::new(over_rows(taken, vec![test])));
        }
        ControlFlow::Continue(())
    }
}

/// `count(*)`
fn count_rows() -> Expr {
    let mut count = call("count", Vec::new());
    if let Expr::Function(Function {
        args: FunctionArguments::List(list),
        ..
    }) = &mut count
    {
        list.args
            .push(FunctionArg::Unnamed(FunctionArgExpr::Wildcard));
    }
    count
}

/// Whether a query is `SELECT … FROM … WHERE …` and nothing else that bears on its rows.
fn is_plain(query: &Query) -> bool {
    query.with.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && matches!(&*query.body, SetExpr::Select(select)
            if select.distinct.is_none()
                && select.having.is_none()
                && !select.projection.iter().any(|item| item_expr(item).is_some_and(has_aggregate))
                && matches!(&select.group_by, GroupByExpr::Expressions(exprs, _) if exprs.is_empty()))
}

/// Aggregates `items` over the rows of `query`.
fn over_rows(mut query: Query, items: Vec<Expr>) -> Query {
    let items = items
        .into_iter()
        .map(|expr| SelectItem::ExprWithAlias {
            alias: quoted(&column_name(&expr)),
            expr,
        })
        .collect();
    if is_plain(&query)
        && let SetExpr::Select(select) = &mut *query.body
    {
        select.projection = items;
        query.order_by = None;
        return query;
    }
    let relation = TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias: Some(table_alias("\u{1}rows")),
        sample: None,
    };
    names::query(SetExpr::Select(Box::new(names::select(
        items,
        vec![TableWithJoins {
            relation,
            joins: Vec::new(),
        }],
    ))))
}

/// Whether an expression calls an aggregate function outside of its subqueries.
fn has_aggregate(expr: &Expr) -> bool {
    struct Finder {
        depth: usize,
    }
    impl sqlparser::ast::Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if self.depth == 0
                && let Expr::Function(function) = expr
                && function.over.is_none()
                && names::fold_name(&function.name)
                    .pop()
                    .is_some_and(|name| flowstone_functions::registry().aggregate(&name).is_some())
            {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    sqlparser::ast::Visit::visit(expr, &mut Finder { depth: 0 }).is_break()
}

/// A subquery in place of a value yields one row at most, or an error at run time. One that aggregates without groups, or reads no table, does; any
/// other is made to: its first value, if it counts no more than one row.
pub(super) fn scalar_subquery(mut query: Query) -> Result<Expr, Error> {
    carry_recursion(&mut query);
    if let Some(value) = outer_value(&query)? {
        return Ok(value);
    }
    let first_only = is_correlated(&query) && take_limit_of_one(&mut query);
    let condition = if is_plain(&query) {
        unnest_correlation(&mut query)
    } else {
        None
    };
    if first_only {
        take_first(&mut query);
    }
    let value = Expr::Subquery(Box::new(at_most_one_row(query)?));
    Ok(match condition {
        None => value,
        Some(condition) => marker("case", vec![condition, value]),
    })
}

/// `WITH RECURSIVE r AS (SELECT … WHERE k = outer UNION ALL …) SELECT … FROM r`: a recursion that begins at a column of a query around it begins at all
/// values of `k` instead, which its rows carry with them, and the query takes those of the outer column.
fn carry_recursion(query: &mut Query) -> Option<()> {
    const KEY: &str = "\u{1}began at";
    let with = query.with.as_mut().filter(|with| with.recursive)?;
    let [cte] = with.cte_tables.as_mut_slice() else {
        return None;
    };
    let name = fold(&cte.alias.name);
    let SetExpr::SetOperation {
        left,
        right,
        op: SetOperator::Union,
        ..
    } = &mut *cte.query.body
    else {
        return None;
    };
    let (SetExpr::Select(start), SetExpr::Select(step), SetExpr::Select(result)) =
        (&mut **left, &mut **right, &mut *query.body)
    else {
        return None;
    };
    if cte.alias.columns.is_empty() {
        return None;
    }
    let inner = table_names(start)?;
    let mut conjuncts = Vec::new();
    split_and(start.selection.clone()?, &mut conjuncts);
    let correlated = |conjunct: &Expr| !matches!(sides(conjunct, &inner), Some((false, _)));
    let position = conjuncts.iter().position(correlated)?;
    let (outer, key) = outer_and_inner(&conjuncts.remove(position), &inner)?;
    if conjuncts.iter().any(correlated) {
        return None;
    }
    // What the recursion is called where it goes on, and where it ends.
    let called = |select: &Select| {
        let factors = select
            .from
            .iter()
            .flat_map(|table| {
                std::iter::once(&table.relation)
                    .chain(table.joins.iter().map(|join| &join.relation))
            })
            .filter_map(|factor| match factor {
                TableFactor::Table {
                    name: table, alias, ..
                } if names::fold_name(table) == [name.clone()] => Some(
                    alias
                        .as_ref()
                        .map_or_else(|| name.clone(), |alias| fold(&alias.name)),
                ),
                _ => None,
            });
        factors.collect::<Vec<_>>()
    };
    let key_of = |called: Vec<String>| match called.as_slice() {
        [only] => Some(Expr::CompoundIdentifier(vec![quoted(only), quoted(KEY)])),
        _ => None,
    };
    let (in_step, in_result) = (key_of(called(step))?, key_of(called(result))?);
    start.selection = conjuncts
        .into_iter()
        .reduce(|left, right| binary(left, BinaryOperator::And, right));
    for (select, key) in [(start, key), (step, in_step)] {
        select.projection.push(SelectItem::ExprWithAlias {
            expr: key,
            alias: quoted(KEY),
        });
    }
    cte.alias.columns.push(sqlparser::ast::TableAliasColumnDef {
        name: quoted(KEY),
        data_type: None,
    });
    let begins = binary(in_result, BinaryOperator::Eq, outer);
    result.selection = Some(match result.selection.take() {
        None => begins,
        Some(condition) => binary(
            Expr::Nested(Box::new(condition)),
            BinaryOperator::And,
            begins,
        ),
    });
    // The recursion goes into the FROM, so that the query is a plain one.
    let recursion = names::table_factor(ObjectName::from(vec![quoted(&name)]), None);
    let mut derived = names::query(SetExpr::Select(Box::new(names::select_all(recursion))));
    derived.with = query.with.take();
    let mut derived = Some(derived);
    for table in &mut result.from {
        for factor in std::iter::once(&mut table.relation)
            .chain(table.joins.iter_mut().map(|join| &mut join.relation))
        {
            let TableFactor::Table {
                name: table, alias, ..
            } = &*factor
            else {
                continue;
            };
            if names::fold_name(table) == [name.clone()]
                && let Some(derived) = derived.take()
            {
                *factor = TableFactor::Derived {
                    lateral: false,
                    subquery: Box::new(derived),
                    alias: Some(alias.clone().unwrap_or_else(|| table_alias(&name))),
                    sample: None,
                };
            }
        }
    }
    Some(())
}

/// The value of a plain subquery that is made of columns of both the subquery and a query around it, which DataFusion does not plan: each inner column
/// is a subquery of its own, and there is a value only if there is a row.
fn outer_value(query: &Query) -> Result<Option<Expr>, Error> {
    let SetExpr::Select(select) = &*query.body else {
        return Ok(None);
    };
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_slice()
    else {
        return Ok(None);
    };
    let Some(inner) = table_names(select).filter(|_| is_plain(query) && !calls_chance(query))
    else {
        return Ok(None);
    };
    if !matches!(sides(item, &inner), Some((true, true))) {
        return Ok(None);
    }
    let mut rest = query.clone();
    let condition = unnest_correlation(&mut rest);
    let of_row = |expr: Expr| {
        let mut query = rest.clone();
        if let SetExpr::Select(select) = &mut *query.body {
            select.projection = vec![SelectItem::UnnamedExpr(expr)];
        }
        query
    };
    let mut columns = Vec::new();
    let mut value = item.clone();
    let outcome = sqlparser::ast::visit_expressions_mut(&mut value, |part| {
        if matches!(part, Expr::CompoundIdentifier(_))
            && matches!(sides(part, &inner), Some((false, true)))
        {
            columns.push(part.clone());
            *part = Expr::Identifier(quoted(&format!("{INTERNAL}column {}", columns.len() - 1)));
        }
        ControlFlow::<()>::Continue(())
    });
    debug_assert!(outcome.is_continue(), "the visitor never breaks");
    let mut values = Vec::new();
    for column in columns {
        values.push(scalar_subquery(of_row(column))?);
    }
    let mut position = 0;
    let outcome = sqlparser::ast::visit_expressions_mut(&mut value, |part| {
        if let Expr::Identifier(ident) = &*part
            && ident.value == format!("{INTERNAL}column {position}")
            && let Some(value) = values.get(position)
        {
            *part = value.clone();
            position += 1;
        }
        ControlFlow::<()>::Continue(())
    });
    debug_assert!(outcome.is_continue(), "the visitor never breaks");
    let rows = scalar_subquery(of_row(count_rows()))?;
    let zero = marker(
        "int8",
        vec![Expr::value(Value::Number("0".to_owned(), true))],
    );
    let value = marker("case", vec![binary(rows, BinaryOperator::Gt, zero), value]);
    Ok(Some(match condition {
        None => value,
        Some(condition) => marker("case", vec![condition, value]),
    }))
}

/// Whether a query is seen to ask for columns of another one.
fn is_correlated(query: &Query) -> bool {
    let SetExpr::Select(select) = &*query.body else {
        return false;
    };
    let (Some(inner), Some(condition)) = (table_names(select), select.selection.clone()) else {
        return false;
    };
    let mut conjuncts = Vec::new();
    split_and(condition, &mut conjuncts);
    conjuncts
        .iter()
        .any(|conjunct| matches!(sides(conjunct, &inner), Some((true, _))))
}

/// Takes `LIMIT 1` from a query that is plain without it.
fn take_limit_of_one(query: &mut Query) -> bool {
    let is_one = matches!(&query.limit_clause, Some(LimitClause::LimitOffset { limit: Some(Expr::Value(value)), offset: None, .. })
        if matches!(&value.value, Value::Number(digits, _) if digits == "1"));
    let limit = if is_one {
        query.limit_clause.take()
    } else {
        None
    };
    if is_plain(query) && limit.is_some() {
        return true;
    }
    query.limit_clause = limit.or(query.limit_clause.take());
    false
}

/// Makes a plain query yield its first value only, by an aggregate: DataFusion does not unnest a correlated LIMIT.
fn take_first(query: &mut Query) {
    let order = match query.order_by.take().map(|order| order.kind) {
        Some(OrderByKind::Expressions(exprs)) => exprs,
        _ => Vec::new(),
    };
    if let SetExpr::Select(select) = &mut *query.body
        && let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
            select.projection.as_slice()
    {
        let all = ordered_array(item.clone(), order);
        let first = marker(
            "int8",
            vec![Expr::value(Value::Number("1".to_owned(), true))],
        );
        select.projection = vec![SelectItem::UnnamedExpr(call(
            "array_subscript",
            vec![all, first],
        ))];
    }
}

/// `array_agg(item ORDER BY …)`
fn ordered_array(item: Expr, order: Vec<sqlparser::ast::OrderByExpr>) -> Expr {
    let order = order
        .into_iter()
        .map(|mut order| {
            if let Expr::Value(value) = &order.expr
                && matches!(value.value, Value::Number(..))
            {
                order.expr = item.clone();
            }
            order
        })
        .collect::<Vec<_>>();
    let mut aggregate = call("array_agg", vec![item]);
    if let Expr::Function(Function {
        args: FunctionArguments::List(list),
        ..
    }) = &mut aggregate
        && !order.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    marker("array", vec![aggregate])
}

/// The names by which expressions know the tables of a FROM; `None` if some cannot be told.
fn table_names(select: &Select) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for table in &select.from {
        for factor in
            std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation))
        {
            match factor {
                TableFactor::Table {
                    alias: Some(alias), ..
                }
                | TableFactor::Derived {
                    alias: Some(alias), ..
                } => names.push(fold(&alias.name)),
                _ => return None,
            }
        }
    }
    Some(names)
}

/// Helps DataFusion, which unnests only equalities between an inner and an outer column: conditions on outer columns alone are taken out and returned,
/// and where an outer column equals an inner one, the inner one stands for it in the other conditions. A query that calls functions of chance stays as it
/// is: without its conditions it would be run once instead of once for each row.
fn unnest_correlation(query: &mut Query) -> Option<Expr> {
    if calls_chance(&*query) {
        return None;
    }
    let SetExpr::Select(select) = &mut *query.body else {
        return None;
    };
    let inner = table_names(select)?;
    let mut conjuncts = Vec::new();
    split_and(select.selection.take()?, &mut conjuncts);
    let equal: Vec<(Expr, Expr)> = conjuncts
        .iter()
        .filter_map(|conjunct| outer_and_inner(conjunct, &inner))
        .collect();
    let mut outside = Vec::new();
    let mut kept = Vec::new();
    for mut conjunct in conjuncts {
        match sides(&conjunct, &inner) {
            Some((true, false)) => {
                outside.push(conjunct);
                continue;
            }
            Some((true, true)) if outer_and_inner(&conjunct, &inner).is_none() => {
                substitute(&mut conjunct, &equal)
            }
            _ => {}
        }
        kept.push(conjunct);
    }
    let all = |conjuncts: Vec<Expr>| {
        conjuncts
            .into_iter()
            .reduce(|left, right| binary(left, BinaryOperator::And, right))
    };
    select.selection = all(kept);
    all(outside)
}

fn split_and(expr: Expr, into: &mut Vec<Expr>) {
    match expr {
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            split_and(*left, into);
            split_and(*right, into);
        }
        Expr::Nested(inner)
            if matches!(
                &*inner,
                Expr::BinaryOp {
                    op: BinaryOperator::And,
                    ..
                }
            ) =>
        {
            split_and(*inner, into)
        }
        other => into.push(other),
    }
}

/// `outer.column = inner.column`, in this order.
fn outer_and_inner(expr: &Expr, inner: &[String]) -> Option<(Expr, Expr)> {
    let Expr::BinaryOp {
        left,
        op: BinaryOperator::Eq,
        right,
    } = expr
    else {
        return None;
    };
    let is_column = |expr: &Expr| matches!(expr, Expr::CompoundIdentifier(_));
    if !is_column(left) || !is_column(right) {
        return None;
    }
    match (sides(left, inner)?, sides(right, inner)?) {
        ((true, false), (false, true)) => Some(((**left).clone(), (**right).clone())),
        ((false, true), (true, false)) => Some(((**right).clone(), (**left).clone())),
        _ => None,
    }
}

/// Whether an expression has outer columns and whether it has inner ones; `None` if that cannot be told.
fn sides(expr: &Expr, inner: &[String]) -> Option<(bool, bool)> {
    struct Sides<'i> {
        inner: &'i [String],
        found: (bool, bool),
    }
    impl sqlparser::ast::Visitor for Sides<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) => ControlFlow::Break(()),
                Expr::CompoundIdentifier(parts) => {
                    let is_inner = parts
                        .iter()
                        .rev()
                        .nth(1)
                        .is_some_and(|table| self.inner.contains(&fold(table)));
                    if is_inner {
                        self.found.1 = true
                    } else {
                        self.found.0 = true
                    }
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let mut sides = Sides {
        inner,
        found: (false, false),
    };
    match sqlparser::ast::Visit::visit(expr, &mut sides) {
        ControlFlow::Break(()) => None,
        ControlFlow::Continue(()) => Some(sides.found),
    }
}

fn substitute(expr: &mut Expr, equal: &[(Expr, Expr)]) {
    let outcome = sqlparser::ast::visit_expressions_mut(expr, |part| {
        if let Some((_, inner)) = equal.iter().find(|(outer, _)| outer == part) {
            *part = inner.clone();
        }
        ControlFlow::<()>::Continue(())
    });
    debug_assert!(outcome.is_continue(), "the visitor never breaks");
}

/// See [`scalar_subquery`].
fn at_most_one_row(query: Query) -> Result<Query, Error> {
    let SetExpr::Select(select) = &*query.body else {
        return Ok(query);
    };
    let single = select.from.is_empty()
        || (select
            .projection
            .iter()
            .filter_map(item_expr)
            .any(has_aggregate)
            && matches!(&select.group_by, GroupByExpr::Expressions(exprs, _) if exprs.is_empty()))
        || matches!(&query.limit_clause, Some(LimitClause::LimitOffset { limit: Some(Expr::Value(value)), .. })
            if matches!(&value.value, Value::Number(digits, _) if digits == "1" || digits == "0"));
    if single {
        return Ok(query);
    }
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_slice()
    else {
        if matches!(select.projection.as_slice(), [_, _, ..]) {
            return Err(Error::syntax("subquery must return only one column"));
        }
        return Ok(query);
    };
    let plain = is_plain(&query);
    let value = if plain {
        item.clone()
    } else {
        Expr::CompoundIdentifier(vec![quoted("\u{1}rows"), quoted("value")])
    };
    let one = marker(
        "int8",
        vec![Expr::value(Value::Number("1".to_owned(), true))],
    );
    let at_most_one = binary(count_rows(), BinaryOperator::LtEq, one);
    let failure = call(
        "raise_error",
        vec![
            string("cardinality"),
            string("more than one row returned by a subquery used as an expression"),
            count_rows(),
        ],
    );
    let checked = marker(
        "case",
        vec![
            at_most_one,
            call("first_value", vec![value]),
            failure,
            Expr::value(Value::Null),
        ],
    );
    let mut query = query;
    if !plain
        && let SetExpr::Select(select) = &mut *query.body
        && let Some(item) = select.projection.first_mut()
        && let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
    {
        let expr = std::mem::replace(expr, Expr::value(Value::Null));
        *item = SelectItem::ExprWithAlias {
            expr,
            alias: quoted("value"),
        };
    }
    Ok(over_rows(query, vec![checked]))
}

/// `ARRAY(SELECT x FROM … ORDER BY …)` is `(SELECT array_agg(x ORDER BY …) FROM …)`, an empty array if there are no rows.
pub(super) fn array_subquery(mut query: Query) -> Result<Expr, Error> {
    let unsupported = || Error::unsupported("ARRAY(…) over this kind of subquery is not supported");
    if query.limit_clause.is_some() || query.with.is_some() {
        return Err(unsupported());
    }
    let order = match query.order_by.take() {
        None => Vec::new(),
        Some(OrderBy {
            kind: OrderByKind::Expressions(exprs),
            ..
        }) => exprs,
        Some(_) => return Err(unsupported()),
    };
    let condition = if is_plain(&query) {
        unnest_correlation(&mut query)
    } else {
        None
    };
    let SetExpr::Select(select) = &mut *query.body else {
        return Err(unsupported());
    };
    let grouped =
        !matches!(&select.group_by, GroupByExpr::Expressions(exprs, _) if exprs.is_empty());
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_slice()
    else {
        return Err(Error::syntax("subquery must return only one column"));
    };
    if grouped || select.having.is_some() || select.distinct.is_some() {
        return Err(unsupported());
    }
    let aggregate = ordered_array(item.clone(), order);
    select.projection = vec![SelectItem::ExprWithAlias {
        expr: aggregate,
        alias: quoted("array"),
    }];
    let array = Expr::Subquery(Box::new(query));
    let array = match condition {
        None => array,
        Some(condition) => marker("case", vec![condition, array]),
    };
    Ok(marker("unify:coalesce", vec![array, string("{}")]))
}
