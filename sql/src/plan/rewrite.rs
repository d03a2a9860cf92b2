//! From the syntax tree PostgreSQL's users write to one whose meaning DataFusion's planner shares.
//!
//! Owns what can be said on the tree: output column names, the types of literals, casts, what session and catalog functions stand for,
//! set operations and table functions that DataFusion plans otherwise. What needs the types of operands is left as a *marker*: a dictionary
//! literal whose first key names the construct, which [`super::exprs`] turns into an expression.
//! Must not know plans. Called by [`crate::plan`] after names are resolved.

mod branches;
mod calls;
mod expressions;
mod item_names;
mod tables;
mod terms;

use std::ops::ControlFlow;

use flowstone_types::SqlType;
use sqlparser::ast::{
    BinaryOperator, Distinct, Expr, Fetch, GroupByExpr, LimitClause, NamedWindowDefinition,
    NamedWindowExpr, Offset, OrderBy, OrderByKind, Query, Select, SelectItem, TableFactor,
    UnaryOperator, Value, VisitMut, VisitorMut, WindowFrameBound, WindowSpec, WindowType,
};

use super::frames;
use super::subqueries::CountExists;
use super::{PlanContext, chains};
use crate::error::{Error, ErrorKind};
pub(super) use branches::{EXCEPT_ALL, INTERSECT_ALL, UNION_ALL, UNION_DISTINCT};
use branches::{mark_cells, rewrite_set_operations};
pub(super) use calls::argument_expr;
pub(super) use expressions::calls_chance;
use expressions::rewrite_expr;
pub(super) use item_names::{column_name, item_expr};
use item_names::{hide_cast_names, name_items, resolve_ordinal};
pub(super) use tables::prepare_factor;
pub(super) use terms::{
    assignment_cast, binary, call, cast, constant, literal_text, marker, null, plain_decimal,
    string,
};
use terms::{literal_digits, protect};

/// Subqueries in expressions of subqueries in expressions: DataFusion's checks of a plan look at each level twice as often as at the one around it.
const SUBQUERY_DEPTH_MAX: usize = 10;
/// Levels of an expression. The work of planning one grows with the third power: this many take seconds.
const EXPRESSION_DEPTH_MAX: usize = 200;

/// Rewrites `query` in place.
///
/// # Errors
/// Whatever is wrong with the tree itself: unknown types, functions that a maintained view cannot call.
pub(super) fn rewrite(ctx: &PlanContext<'_>, query: &mut Query) -> Result<(), Error> {
    chains::shorten(query);
    if let ControlFlow::Break(error) = sqlparser::ast::Visit::visit(query, &mut Depth::default()) {
        return Err(error);
    }
    let mut copies = Copies::default();
    if let ControlFlow::Break(error) = sqlparser::ast::Visit::visit(query, &mut copies) {
        return Err(error);
    }
    hide_cast_names(query);
    let mut rewriter = Rewriter {
        ctx,
        derived: 0,
        recursive: Vec::new(),
    };
    match VisitMut::visit(query, &mut rewriter) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Breaks where expressions or subqueries in them nest too deep.
#[derive(Default)]
struct Depth {
    expressions: usize,
    subqueries: usize,
}

const fn is_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. }
    )
}

impl sqlparser::ast::Visitor for Depth {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        self.expressions += 1;
        self.subqueries += usize::from(is_subquery(expr));
        if self.subqueries > SUBQUERY_DEPTH_MAX {
            let error = Error::new(ErrorKind::TooComplex, "subqueries are nested too deeply");
            let hint = "Join the relations, or name the inner queries with WITH.";
            return ControlFlow::Break(error.with_hint(hint));
        }
        if self.expressions > EXPRESSION_DEPTH_MAX {
            let error = Error::new(ErrorKind::TooComplex, "expression is nested too deeply");
            let hint = "Use IN with a list, or compute parts of it in subqueries.";
            return ControlFlow::Break(error.with_hint(hint));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        self.expressions = self.expressions.saturating_sub(1);
        self.subqueries = self
            .subqueries
            .saturating_sub(usize::from(is_subquery(expr)));
        ControlFlow::Continue(())
    }
}

/// Expressions that BETWEEN and CASE may be written as more than once: the operand of such a construct is written as often as it is compared.
const COPIES_MAX: usize = 100_000;

/// Breaks where there would be too many copies of operands: nested, they multiply.
#[derive(Default)]
struct Copies {
    /// The expressions around the place: how large their operands become, and the first of these alone.
    around: Vec<(usize, Option<usize>)>,
    /// Expressions that are there because others were copied.
    copied: usize,
}

impl sqlparser::ast::Visitor for Copies {
    type Break = Error;

    fn pre_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Error> {
        self.around.push((0, None));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        let (operands, first) = self.around.pop().unwrap_or_default();
        let times = match expr {
            Expr::Between { .. } => 1,
            Expr::Case {
                operand: Some(_),
                conditions,
                ..
            } => conditions.len().saturating_sub(1),
            _ => 0,
        };
        let copied = first.unwrap_or(0).saturating_mul(times);
        self.copied = self.copied.saturating_add(copied);
        if self.copied > COPIES_MAX {
            let error = Error::new(ErrorKind::TooComplex, "statement is too complex");
            let hint = "Compute the operands of BETWEEN and CASE in subqueries in FROM.";
            return ControlFlow::Break(error.with_hint(hint));
        }
        let size = operands.saturating_add(copied).saturating_add(1);
        if let Some((sum, first)) = self.around.last_mut() {
            *sum = sum.saturating_add(size);
            first.get_or_insert(size);
        }
        ControlFlow::Continue(())
    }
}

struct Rewriter<'c, 'a> {
    ctx: &'c PlanContext<'a>,
    /// Derived tables without alias seen so far.
    derived: usize,
    /// Where the queries of WITH RECURSIVE are; nothing moves while they are visited.
    recursive: Vec<*const Query>,
}

impl VisitorMut for Rewriter<'_, '_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            let queries = with.cte_tables.iter();
            self.recursive
                .extend(queries.map(|cte| std::ptr::from_ref(cte.query.as_ref())));
        }
        let recursive = self.recursive.contains(&std::ptr::from_ref(&*query));
        flow(prepare_query(query, recursive))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        if select.into.is_some() {
            let error = Error::unsupported("SELECT … INTO is not supported");
            return ControlFlow::Break(
                error.with_hint("Create the table, and use INSERT … SELECT."),
            );
        }
        for NamedWindowDefinition(_, window) in &select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = window
                && let Some(frame) = &spec.window_frame
            {
                flow(frames::check(frame))?;
            }
        }
        for condition in [&mut select.selection, &mut select.having]
            .into_iter()
            .flatten()
        {
            any_as_membership(condition);
        }
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            exprs.iter_mut().for_each(protect);
        }
        if let Some(Distinct::On(exprs)) = &mut select.distinct {
            for expr in exprs {
                resolve_ordinal(expr, &select.projection);
            }
        }
        name_items(&mut select.projection);
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                VisitMut::visit(expr, &mut CountExists { depth: 0 })?;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        self.derived += 1;
        flow(prepare_factor(factor, self.derived))
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for NamedWindowDefinition(_, window) in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = window {
                plain_frame_bounds(spec);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Function(function) => {
                if let Some(WindowType::WindowSpec(spec)) = &function.over
                    && let Some(frame) = &spec.window_frame
                {
                    return flow(frames::check(frame));
                }
            }
            // The rows that ANY and ALL compare with are no value: they stand as those of an EXISTS until then.
            Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => {
                if let Expr::Subquery(subquery) = &**right {
                    **right = Expr::Exists {
                        subquery: subquery.clone(),
                        negated: false,
                    };
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Function(function) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut function.over
        {
            plain_frame_bounds(spec);
        }
        if let Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } = expr
            && let Expr::Exists { subquery, .. } = &**right
        {
            **right = Expr::Subquery(subquery.clone());
        }
        let taken = std::mem::replace(expr, Expr::value(Value::Null));
        match rewrite_expr(self.ctx, taken) {
            Ok(rewritten) => {
                *expr = rewritten;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// `x = ANY (SELECT …)` is `x IN (SELECT …)`, and `x <> ALL (SELECT …)` is `x NOT IN (SELECT …)`, which become joins by equality. In a condition: elsewhere
/// IN is not planned wherever ANY is.
fn any_as_membership(condition: &mut Expr) {
    match condition {
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And | BinaryOperator::Or,
            right,
        } => {
            any_as_membership(left);
            any_as_membership(right);
        }
        Expr::Nested(inner)
        | Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: inner,
        } => any_as_membership(inner),
        Expr::AnyOp {
            left,
            compare_op: compare_op @ BinaryOperator::Eq,
            right,
            ..
        }
        | Expr::AllOp {
            left,
            compare_op: compare_op @ BinaryOperator::NotEq,
            right,
        } => {
            let negated = *compare_op == BinaryOperator::NotEq;
            let nothing = || Expr::value(Value::Null);
            if matches!(**right, Expr::Subquery(_))
                && let Expr::Subquery(subquery) = std::mem::replace(&mut **right, nothing())
            {
                *condition = Expr::InSubquery {
                    expr: Box::new(std::mem::replace(&mut **left, nothing())),
                    subquery,
                    negated,
                };
            }
        }
        _ => {}
    }
}

/// DataFusion takes the bounds of a window frame as numbers of its own reading: those rewritten as constants become that again.
fn plain_frame_bounds(spec: &mut WindowSpec) {
    let Some(frame) = &mut spec.window_frame else {
        return;
    };
    for bound in [Some(&mut frame.start_bound), frame.end_bound.as_mut()]
        .into_iter()
        .flatten()
    {
        if let WindowFrameBound::Preceding(Some(expr)) | WindowFrameBound::Following(Some(expr)) =
            bound
            && let Some(digits) = literal_digits(expr)
        {
            **expr = Expr::value(Value::Number(digits, false));
        }
    }
}

fn flow(result: Result<(), Error>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

fn prepare_query(query: &mut Query, recursive: bool) -> Result<(), Error> {
    if recursive && query.with.is_some() {
        return Err(Error::unsupported(
            "WITH inside of a query of WITH RECURSIVE is not supported",
        )
        .with_hint("Write its queries before the recursive one, in the same WITH."));
    }
    if let Some(with) = &query.with
        && with.cte_tables.iter().any(|cte| {
            cte.alias
                .columns
                .iter()
                .any(|column| column.data_type.is_some())
        })
    {
        return Err(Error::unsupported(
            "column types in common table expressions are not supported",
        ));
    }
    if let Some(Fetch {
        with_ties,
        percent,
        quantity,
    }) = query.fetch.take()
    {
        if with_ties || percent {
            return Err(Error::unsupported(
                "FETCH FIRST … WITH TIES and PERCENT are not supported",
            ));
        }
        let count = quantity.unwrap_or_else(|| Expr::value(Value::Number("1".to_owned(), true)));
        match &mut query.limit_clause {
            Some(LimitClause::LimitOffset { limit, .. }) => *limit = Some(count),
            clause => {
                *clause = Some(LimitClause::LimitOffset {
                    limit: Some(count),
                    offset: None,
                    limit_by: Vec::new(),
                })
            }
        }
    }
    query.locks.clear();
    if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
        for expr in limit
            .iter_mut()
            .chain(offset.iter_mut().map(|Offset { value, .. }| value))
        {
            protect(expr);
            if let Expr::Value(value) = expr
                && matches!(value.value, Value::Placeholder(_))
            {
                *expr = cast(expr.clone(), &SqlType::Int8);
            }
        }
    }
    if let Some(OrderBy {
        kind: OrderByKind::Expressions(exprs),
        ..
    }) = &mut query.order_by
    {
        for order in exprs {
            protect(&mut order.expr);
        }
    }
    mark_cells(&mut query.body);
    rewrite_set_operations(&mut query.body, recursive);
    Ok(())
}
