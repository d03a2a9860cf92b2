//! LIMIT, OFFSET and FETCH.
//!
//! Owns how many rows of an ordered plan there are, WITH TIES included. Called by [`super::select`] and [`super::set`].

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Filter, Limit, LogicalPlan, Operator, WindowFrame, WindowFunctionDefinition,
};
use flowstone_types::SqlType;
use sqlparser::ast::{self, LimitClause};

use super::expr::span_of;
use super::scope::Frame;
use super::value::{constant, made, told};
use super::window::over_windows;
use super::{Binder, Clause, project};
use crate::error::{Error, ErrorKind};

/// How many rows are passed over, and how many there are then.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    skip: Option<Expr>,
    fetch: Option<Expr>,
    /// Whether those that are ordered like the last one are there too.
    with_ties: bool,
}

impl Binder<'_> {
    /// The bounds of a query.
    pub(super) fn bounds(&mut self, query: &ast::Query) -> Result<Bounds, Error> {
        let mut bounds = Bounds::default();
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            }) => {
                if !limit_by.is_empty() {
                    return Err(Error::unsupported("LIMIT … BY is not supported"));
                }
                if let Some(limit) = limit {
                    bounds.fetch = self.row_count(Clause::Limit, limit)?;
                }
                if let Some(offset) = offset {
                    bounds.skip = self.row_count(Clause::Offset, &offset.value)?;
                }
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => {
                return Err(Error::syntax("LIMIT #,# syntax is not supported")
                    .with_hint("Use separate LIMIT and OFFSET clauses."));
            }
        }
        if let Some(fetch) = &query.fetch {
            if fetch.percent {
                return Err(Error::unsupported("FETCH FIRST … PERCENT is not supported"));
            }
            bounds.with_ties = fetch.with_ties;
            bounds.fetch = match &fetch.quantity {
                Some(quantity) => self.row_count(Clause::Limit, quantity)?,
                None => Some(Expr::Literal(ScalarValue::Int64(Some(1)), None)),
            };
        }
        Ok(bounds)
    }

    /// A number of rows: a constant or a parameter. `None` for NULL, which bounds nothing.
    fn row_count(&mut self, clause: Clause, expr: &ast::Expr) -> Result<Option<Expr>, Error> {
        self.frames.push(Frame::new(clause));
        let value = self.scalar(expr);
        let frame = self.frames.pop();
        let value = value?;
        if frame.is_some_and(|frame| !frame.pending.is_empty()) {
            return Err(Error::unsupported(
                "LIMIT and OFFSET that are no constants are not supported",
            ));
        }
        if value.expr.any_column_refs() || value.expr.contains_outer() {
            let error = Error::new(
                ErrorKind::InvalidColumnReference,
                format!("argument of {} must not contain variables", clause.place()),
            );
            return Err(self.placed(error, span_of(expr)));
        }
        let value = match value.sql_type() {
            Some(found) if !found.is_integer() && !matches!(found, SqlType::Numeric(_)) => {
                return Err(Error::new(
                    ErrorKind::DatatypeMismatch,
                    format!(
                        "argument of {} must be type bigint, not type {}",
                        clause.place(),
                        value.of.name()
                    ),
                ));
            }
            _ => self.explicit_cast(value, &SqlType::Int8)?,
        };
        match constant(value.expr.clone(), self.ctx.time_zone)? {
            None => Ok(Some(value.expr)),
            Some(ScalarValue::Int64(Some(count))) if count < 0 => Err(match clause {
                Clause::Offset => {
                    Error::new(ErrorKind::InvalidOffset, "OFFSET must not be negative")
                }
                _ => Error::new(ErrorKind::InvalidRowCount, "LIMIT must not be negative"),
            }),
            Some(count) if count.is_null() => Ok(None),
            Some(count) => Ok(Some(Expr::Literal(count, None))),
        }
    }

    /// The rows of a plan, which are in this order, within bounds.
    pub(super) fn within(
        &mut self,
        plan: LogicalPlan,
        order: &[Sort],
        bounds: Bounds,
    ) -> Result<LogicalPlan, Error> {
        if bounds.with_ties && bounds.fetch.is_some() {
            return self.with_ties(plan, order, bounds);
        }
        if bounds.skip.is_none() && bounds.fetch.is_none() {
            return Ok(plan);
        }
        Ok(LogicalPlan::Limit(Limit {
            skip: bounds.skip.map(Box::new),
            fetch: bounds.fetch.map(Box::new),
            input: Arc::new(plan),
        }))
    }

    /// The rows that are not passed over and not behind the last one: by their numbers and their ranks.
    fn with_ties(
        &mut self,
        plan: LogicalPlan,
        order: &[Sort],
        bounds: Bounds,
    ) -> Result<LogicalPlan, Error> {
        if order.is_empty() {
            return Err(Error::syntax(
                "WITH TIES cannot be specified without ORDER BY clause",
            ));
        }
        let zero = || Expr::Literal(ScalarValue::Int64(Some(0)), None);
        let (skip, fetch) = (
            bounds.skip.unwrap_or_else(zero),
            bounds.fetch.unwrap_or_else(zero),
        );
        let shown: Vec<Expr> = plan
            .schema()
            .columns()
            .into_iter()
            .map(Expr::Column)
            .collect();
        let mut numbered = Vec::with_capacity(2);
        let mut numbers = Vec::with_capacity(2);
        for name in ["row_number", "rank"] {
            let function = flowstone_functions::registry()
                .window(name)
                .ok_or_else(|| Error::internal(format!("no function {name}")))?;
            let mut window =
                WindowFunction::new(WindowFunctionDefinition::WindowUDF(function), Vec::new());
            window.params.order_by = order.to_vec();
            window.params.window_frame = WindowFrame::new(Some(false));
            let column = self.reserve(name, &SqlType::Int8);
            numbers.push(Expr::Column(column.clone()));
            numbered.push((Expr::WindowFunction(Box::new(window)), column));
        }
        let plan = over_windows(plan, numbered)?;
        let schema = Arc::clone(plan.schema());
        let mut numbers = numbers
            .into_iter()
            .map(|number| told(number, &SqlType::Int8, &schema))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter();
        let (Some(number), Some(rank)) = (numbers.next(), numbers.next()) else {
            return Err(Error::internal("rows lost their numbers"));
        };
        let compare = |left: Expr, op: Operator, right: Expr| {
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        };
        let last = compare(skip.clone(), Operator::Plus, fetch);
        let within = compare(
            compare(number, Operator::Gt, skip),
            Operator::And,
            compare(rank, Operator::LtEq, last),
        );
        let plan = made(Filter::try_new(within, Arc::new(plan))).map(LogicalPlan::Filter)?;
        let plan = project(plan, shown)?;
        Ok(super::order::sorted(plan, order.to_vec()))
    }
}
