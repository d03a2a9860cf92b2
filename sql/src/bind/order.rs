//! Orders: of rows, of what aggregates collect, and of windows.
//!
//! Owns PostgreSQL's rules for names and numbers: in ORDER BY and DISTINCT ON a name alone is an output column if there is one, a number is an ordinal, and anything
//! else is an expression over the input columns. Called by [`super::select`], [`super::grouping`] and [`super::window`].

use std::sync::Arc;

use datafusion::logical_expr::Expr;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::Sort as SortNode;
use datafusion::logical_expr::expr::Sort;
use flowstone_types::SqlType;
use sqlparser::ast::{self, OrderByExpr, OrderByKind, OrderByOptions};
use sqlparser::tokenizer::Span;

use super::expr::{span_of, unnested};
use super::select::Target;
use super::value::Value;
use super::{Binder, Output};
use crate::error::{Error, ErrorKind};
use crate::names::fold;

/// Whether the least comes first, and whether NULLs do.
const fn direction(options: OrderByOptions) -> (bool, bool) {
    let ascending = match options.asc {
        Some(ascending) => ascending,
        None => true,
    };
    let nulls_first = match options.nulls_first {
        Some(nulls_first) => nulls_first,
        None => !ascending,
    };
    (ascending, nulls_first)
}

/// The items of an ORDER BY; none if there is no such clause.
///
/// # Errors
/// For what PostgreSQL does not have.
pub(super) fn items_of(order_by: Option<&ast::OrderBy>) -> Result<&[OrderByExpr], Error> {
    match order_by.map(|order_by| &order_by.kind) {
        None => Ok(&[]),
        Some(OrderByKind::Expressions(items)) => Ok(items),
        Some(OrderByKind::All(_)) => Err(Error::unsupported("ORDER BY ALL is not supported")),
    }
}

/// The rows of a plan in an order.
pub(super) fn sorted(plan: LogicalPlan, order: Vec<Sort>) -> LogicalPlan {
    if order.is_empty() {
        return plan;
    }
    LogicalPlan::Sort(SortNode {
        expr: order,
        input: Arc::new(plan),
        fetch: None,
    })
}

/// What is sorted by one position of the SELECT list.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByPosition {
    pub(super) position: usize,
    pub(super) ascending: bool,
    pub(super) nulls_first: bool,
}

impl Binder<'_> {
    /// An order of expressions.
    pub(super) fn sorts(&mut self, items: &[OrderByExpr]) -> Result<Vec<Sort>, Error> {
        self.typed_sorts(items).map(|(sorts, _)| sorts)
    }

    /// An order of expressions, and the type of the first.
    pub(super) fn typed_sorts(
        &mut self,
        items: &[OrderByExpr],
    ) -> Result<(Vec<Sort>, Option<SqlType>), Error> {
        let mut sorts = Vec::with_capacity(items.len());
        let mut first = None;
        for item in items {
            let (ascending, nulls_first) = direction(item.options);
            let value = self.expr(&item.expr)?;
            for field in self.sorted_by(value)? {
                if sorts.is_empty() {
                    first = field.sql_type().cloned();
                }
                sorts.push(Sort::new(field.expr, ascending, nulls_first));
            }
        }
        Ok((sorts, first))
    }

    /// What a value is sorted by: a row by its fields.
    fn sorted_by(&mut self, value: Value) -> Result<Vec<Value>, Error> {
        match value.fields()? {
            Some(fields) => fields
                .into_iter()
                .map(|(_, field)| self.sorted_by(field))
                .collect::<Result<Vec<_>, _>>()
                .map(|fields| fields.into_iter().flatten().collect()),
            None if value.is_unknown() => Ok(vec![self.as_text_by_default(value)?]),
            None => Ok(vec![value]),
        }
    }

    /// The item of a list that a number means.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidColumnReference`] if there is none.
    pub(super) fn ordinal<'t, T>(
        &self,
        clause: &str,
        digits: &str,
        span: Span,
        targets: &'t [T],
    ) -> Result<&'t T, Error> {
        let Ok(ordinal) = digits.parse::<usize>() else {
            let error = Error::syntax(format!("non-integer constant in {clause}"));
            return Err(self.placed(error, span));
        };
        ordinal
            .checked_sub(1)
            .and_then(|index| targets.get(index))
            .ok_or_else(|| {
                let error = Error::new(
                    ErrorKind::InvalidColumnReference,
                    format!("{clause} position {ordinal} is not in select list"),
                );
                self.placed(error, span)
            })
    }

    /// The positions that an item of ORDER BY or DISTINCT ON means. What is not in the list is added to `outputs`.
    pub(super) fn positions(
        &mut self,
        clause: &str,
        expr: &ast::Expr,
        targets: &[Target<'_>],
        outputs: &mut Vec<Value>,
    ) -> Result<Vec<usize>, Error> {
        let expr = unnested(expr);
        match expr {
            ast::Expr::Value(value) => match &value.value {
                ast::Value::Number(digits, _) => {
                    let numbers: Vec<usize> = (0..targets.len()).collect();
                    let position = *self.ordinal(clause, digits, value.span, &numbers)?;
                    return Ok(vec![position]);
                }
                ast::Value::Null | ast::Value::Placeholder(_) => {}
                _ => {
                    let error = Error::syntax(format!("non-integer constant in {clause}"));
                    return Err(self.placed(error, value.span));
                }
            },
            ast::Expr::Identifier(ident) => {
                let name = fold(ident);
                if let Some(position) =
                    self.named_output(clause, &name, ident.span, targets, outputs)?
                {
                    return Ok(vec![position]);
                }
            }
            _ => {}
        }
        let value = self.expr(expr)?;
        let mut positions = Vec::new();
        for field in self.sorted_by(value)? {
            let known = outputs
                .iter()
                .position(|output| output.expr == field.expr && !field.expr.is_volatile());
            positions.push(match known {
                Some(position) => position,
                None => {
                    outputs.push(field);
                    outputs.len() - 1
                }
            });
        }
        Ok(positions)
    }

    /// The output column of this name, if there is one.
    fn named_output(
        &self,
        clause: &str,
        name: &str,
        span: Span,
        targets: &[Target<'_>],
        outputs: &[Value],
    ) -> Result<Option<usize>, Error> {
        let mut found: Option<usize> = None;
        for (position, target) in targets.iter().enumerate() {
            if target.name != name {
                continue;
            }
            let same = |other: usize| {
                let exprs = (outputs.get(other), outputs.get(position));
                matches!(exprs, (Some(left), Some(right)) if left.expr == right.expr)
            };
            match found {
                None => found = Some(position),
                Some(other) if same(other) => {}
                Some(_) => {
                    let error = Error::new(
                        ErrorKind::AmbiguousColumn,
                        format!("{clause} \"{name}\" is ambiguous"),
                    );
                    return Err(self.placed(error, span));
                }
            }
        }
        Ok(found)
    }

    /// The order of a query whose input columns nobody can name: of set operations and VALUES.
    pub(super) fn order_of_output(
        &self,
        items: &[OrderByExpr],
        output: &Output,
        construct: &str,
    ) -> Result<Vec<Sort>, Error> {
        items
            .iter()
            .map(|item| {
                let (ascending, nulls_first) = direction(item.options);
                let column = match unnested(&item.expr) {
                    ast::Expr::Value(value) => match &value.value {
                        ast::Value::Number(digits, _) => {
                            Some(self.ordinal("ORDER BY", digits, value.span, &output.columns)?)
                        }
                        _ => None,
                    },
                    ast::Expr::Identifier(ident) => {
                        let name = fold(ident);
                        let found = output.columns.iter().find(|column| column.name == name);
                        if found.is_none() {
                            let error = Error::new(
                                ErrorKind::UndefinedColumn,
                                format!("column \"{name}\" does not exist"),
                            );
                            return Err(self.placed(error, ident.span));
                        }
                        found
                    }
                    _ => None,
                };
                let Some(column) = column else {
                    let error = Error::unsupported(format!("invalid {construct} ORDER BY clause"))
                        .with_detail("Only result column names can be used, not expressions or functions.")
                        .with_hint("Add the expression/function to every SELECT, or move the UNION into a FROM clause.");
                    return Err(self.placed(error, span_of(&item.expr)));
                };
                let expr = Expr::Column(column.column.clone());
                Ok(Sort::new(expr, ascending, nulls_first))
            })
            .collect()
    }
}

impl ByPosition {
    pub(super) const fn new(position: usize, options: OrderByOptions) -> Self {
        let (ascending, nulls_first) = direction(options);
        Self {
            position,
            ascending,
            nulls_first,
        }
    }
}
