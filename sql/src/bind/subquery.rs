//! Subqueries in expressions: each becomes a dependent join of the plan under construction, and is a column of it.
//!
//! Owns which kind of join each form is, and what is asked of its columns. Must not know how dependent joins are removed ([`crate::unnest`]).
//! Called by [`super::expr`] where a subquery is met, and by [`super::select`] where those that wait are joined.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, Case, Sort};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use flowstone_functions::cast::cast_expr;
use flowstone_functions::resolve::{Given, resolve_aggregate};
use flowstone_types::SqlType;
use sqlparser::ast::{self, BinaryOperator};
use sqlparser::tokenizer::Span;

use super::expr::{Quantifier, symbol_of, unnested, unresolved};
use super::grouping::named;
use super::value::{Type, Value, call, made};
use super::{Binder, Clause, Output, project};
use crate::error::Error;
use crate::unnest::{DependentKind, dependent_join};

/// A subquery that is to be joined to the plan at hand.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) right: LogicalPlan,
    pub(super) kind: DependentKind,
    pub(super) on: Option<Expr>,
}

impl Pending {
    /// The columns that it adds.
    pub(super) fn columns(&self) -> Vec<Column> {
        match &self.kind {
            DependentKind::Mark { column } => vec![column.clone()],
            DependentKind::Single { value, several } => vec![value.clone(), several.clone()],
            DependentKind::Inner | DependentKind::Left => Vec::new(),
        }
    }
}

/// The plan with subqueries joined to it.
pub(super) fn joined(plan: LogicalPlan, pending: Vec<Pending>) -> Result<LogicalPlan, Error> {
    pending.into_iter().try_fold(plan, |plan, subquery| {
        made(dependent_join(
            plan,
            subquery.right,
            subquery.kind,
            subquery.on,
        ))
    })
}

fn one_column() -> Error {
    Error::syntax("subquery must return only one column")
}

/// Whether a plan has one row at most, whatever there is.
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => has_one_row(&projection.input),
        LogicalPlan::Filter(filter) => has_one_row(&filter.input),
        LogicalPlan::Sort(sort) => has_one_row(&sort.input),
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input),
        LogicalPlan::Limit(limit) => {
            let first = limit.fetch.as_deref();
            matches!(
                first,
                Some(Expr::Literal(ScalarValue::Int64(Some(0 | 1)), _))
            ) || has_one_row(&limit.input)
        }
        LogicalPlan::EmptyRelation(_) => true,
        _ => false,
    }
}

/// The value of a subquery, and an error where there are several and it is asked for.
fn guarded(value: Expr, sql_type: &SqlType, several: &Column) -> Result<Expr, Error> {
    let several = Expr::Column(several.clone());
    let text = |text: &str| Expr::Literal(ScalarValue::Utf8(Some(text.to_owned())), None);
    let failure = call(
        "raise_error",
        vec![
            text("cardinality"),
            text("more than one row returned by a subquery used as an expression"),
            several.clone(),
        ],
    )?;
    let failure = if *sql_type == SqlType::Bool {
        failure
    } else {
        let failure = made(cast_expr(failure, &SqlType::Bool, &SqlType::Text))?;
        made(cast_expr(failure, &SqlType::Text, sql_type))?
    };
    // With a subject: without one DataFusion makes ANDs and ORs of a CASE of booleans.
    let subject = Expr::Literal(ScalarValue::Boolean(Some(true)), None);
    Ok(Expr::Case(Case::new(
        Some(Box::new(subject)),
        vec![(Box::new(several), Box::new(failure))],
        Some(Box::new(value)),
    )))
}

/// The rows that a plan sorts, the expression of a column over them, and the order; nothing is sorted by if it has none.
fn unsorted(plan: LogicalPlan, column: &Column) -> (LogicalPlan, Expr, Vec<Sort>) {
    let order_of = |plan: &LogicalPlan| match plan {
        LogicalPlan::Sort(sort) => Some(sort.expr.clone()),
        LogicalPlan::Limit(limit) => match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => Some(sort.expr.clone()),
            _ => None,
        },
        _ => None,
    };
    let value = Expr::Column(column.clone());
    if let Some(order) = order_of(&plan) {
        return (plan, value, order);
    }
    if let LogicalPlan::Projection(projection) = &plan
        && let Some(order) = order_of(&projection.input)
        && let Some(index) = projection.schema.maybe_index_of_column(column)
        && let Some(expr) = projection.expr.get(index)
    {
        let value = match expr {
            Expr::Alias(alias) => alias.expr.as_ref().clone(),
            other => other.clone(),
        };
        return (projection.input.as_ref().clone(), value, order);
    }
    (plan, value, Vec::new())
}

impl Binder<'_> {
    /// A query in an expression, what has no type in it being text.
    fn subquery(&mut self, query: &ast::Query) -> Result<Output, Error> {
        let output = self.query(query)?;
        self.settled(output)
    }

    fn wait(
        &mut self,
        right: LogicalPlan,
        kind: DependentKind,
        on: Option<Expr>,
    ) -> Result<(), Error> {
        self.frame()?.pending.push(Pending { right, kind, on });
        Ok(())
    }

    /// The mark of a subquery: whether `on` holds for a row of it.
    fn mark(&mut self, right: LogicalPlan, on: Option<Expr>) -> Result<Expr, Error> {
        let column = self.reserve("mark", &SqlType::Bool);
        let kind = DependentKind::Mark {
            column: column.clone(),
        };
        self.wait(right, kind, on)?;
        Ok(Expr::Column(column))
    }

    /// `[NOT] EXISTS (query)`
    pub(super) fn exists(&mut self, query: &ast::Query, negated: bool) -> Result<Value, Error> {
        let output = self.subquery(query)?;
        let mark = self.mark(output.plan, None)?;
        let expr = if negated {
            Expr::Not(Box::new(mark))
        } else {
            mark
        };
        Ok(Value::new(expr, SqlType::Bool))
    }

    /// `(query)` as a value.
    pub(super) fn scalar_subquery(&mut self, query: &ast::Query) -> Result<Value, Error> {
        // DISTINCT ON and ORDER BY are compared with the list: what is written again is the same there.
        let frame = self.frame()?;
        let repeats = frame.inside.is_none()
            && matches!(
                frame.clause,
                Clause::Select | Clause::OrderBy | Clause::DistinctOn
            );
        let mut known = frame.subqueries.iter();
        if repeats && let Some((_, value)) = known.find(|(known, _)| known == query) {
            return Ok(value.clone());
        }
        let output = self.subquery(query)?;
        let [column] = output.columns.as_slice() else {
            return Err(one_column());
        };
        let of = column.of.clone();
        let is_volatile = made(
            output
                .plan
                .exists(|node| Ok(node.expressions().iter().any(Expr::is_volatile))),
        )?;
        let value = self.single(output.plan, of)?;
        if repeats && !is_volatile {
            let known = (query.clone(), value.clone());
            self.frame()?.subqueries.push(known);
        }
        Ok(value)
    }

    /// The value of the only row of a plan, which has one column.
    fn single(&mut self, right: LogicalPlan, of: Type) -> Result<Value, Error> {
        let field = right.schema().fields().first().cloned();
        let field = field.ok_or_else(one_column)?;
        let value = self.fresh_column("value");
        let nullable = field.as_ref().clone().with_nullable(true);
        self.know(value.clone(), Arc::new(nullable));
        let several = self.reserve("several", &SqlType::Bool);
        let is_one = has_one_row(&right);
        let kind = DependentKind::Single {
            value: value.clone(),
            several: several.clone(),
        };
        self.wait(right, kind, None)?;
        let value = Value::typed(Expr::Column(value), of);
        match (&value.of, value.fields()?) {
            _ if is_one => Ok(value),
            (Type::Of(sql_type), _) => Ok(Value::new(
                guarded(value.expr, sql_type, &several)?,
                sql_type.clone(),
            )),
            (_, Some(fields)) => {
                let fields = fields
                    .into_iter()
                    .map(|(name, field)| match &field.of {
                        Type::Of(of) => {
                            let of = of.clone();
                            Ok((name, Value::new(guarded(field.expr, &of, &several)?, of)))
                        }
                        _ => Ok((name, field)),
                    })
                    .collect::<Result<Vec<_>, Error>>()?;
                Value::row(fields)
            }
            _ => Ok(value),
        }
    }

    /// The row of a subquery that stands beside a row of `width` fields.
    pub(super) fn row_subquery(
        &mut self,
        query: &ast::Query,
        width: usize,
    ) -> Result<Value, Error> {
        let output = self.subquery(query)?;
        same_columns(output.columns.len(), width)?;
        let fields = output
            .columns
            .iter()
            .map(|column| {
                let value = Value::typed(Expr::Column(column.column.clone()), column.of.clone());
                (column.name.clone(), value)
            })
            .collect();
        let row = Value::row(fields)?;
        let column = self.fresh_column("row");
        let plan = project(output.plan, vec![named(row.expr, &column)])?;
        let row = self.single(plan, row.of)?;
        // It is compared field by field.
        match row.fields()? {
            Some(fields) => Value::row(fields),
            None => Ok(row),
        }
    }

    /// `left op right` where one is a row and the other a subquery; `None` if it is not.
    pub(super) fn beside_row(
        &mut self,
        left: &Value,
        right: &ast::Expr,
    ) -> Result<Option<Value>, Error> {
        let (ast::Expr::Subquery(query), Some(fields)) = (unnested(right), left.fields()?) else {
            return Ok(None);
        };
        self.row_subquery(query, fields.len()).map(Some)
    }

    /// The comparison of a value, or of a row, with the columns of a subquery.
    fn compared(&mut self, symbol: &str, left: Value, output: &Output) -> Result<Expr, Error> {
        let mut columns: Vec<(String, Value)> = output
            .columns
            .iter()
            .map(|column| {
                let value = Value::typed(Expr::Column(column.column.clone()), column.of.clone());
                (column.name.clone(), value)
            })
            .collect();
        let width = left.fields()?.map_or(1, |fields| fields.len());
        same_columns(columns.len(), width)?;
        if left.is_row() {
            Ok(self.compare_rows(symbol, left, Value::row(columns)?)?.expr)
        } else {
            let (_, only) = columns.pop().ok_or_else(one_column)?;
            self.comparison(symbol, left, only)
        }
    }

    /// `expr [NOT] IN (query)`
    pub(super) fn in_subquery(
        &mut self,
        expr: &ast::Expr,
        query: &ast::Query,
        negated: bool,
    ) -> Result<Value, Error> {
        let left = self.expr(expr)?;
        let output = self.subquery(query)?;
        let on = self.compared("=", left, &output)?;
        let mark = self.mark(output.plan, Some(on))?;
        let expr = if negated {
            Expr::Not(Box::new(mark))
        } else {
            mark
        };
        Ok(Value::new(expr, SqlType::Bool))
    }

    /// `left op ANY (query)`, `left op ALL (query)`
    pub(super) fn quantified_subquery(
        &mut self,
        left: &ast::Expr,
        op: &BinaryOperator,
        query: &ast::Query,
        quantifier: Quantifier,
    ) -> Result<Value, Error> {
        let left = self.expr(left)?;
        let output = self.subquery(query)?;
        let symbol = symbol_of(op);
        let on = self.compared(&symbol, left, &output)?;
        self.quantified_mark(output.plan, on, quantifier)
    }

    /// Whether `on` holds for some row, or for all of them: for all it does if it is false for none.
    fn quantified_mark(
        &mut self,
        right: LogicalPlan,
        on: Expr,
        quantifier: Quantifier,
    ) -> Result<Value, Error> {
        let expr = match quantifier {
            Quantifier::Any => self.mark(right, Some(on))?,
            Quantifier::All => {
                let fails = Expr::Not(Box::new(on));
                Expr::Not(Box::new(self.mark(right, Some(fails))?))
            }
        };
        Ok(Value::new(expr, SqlType::Bool))
    }

    /// The same over the items of an array.
    pub(super) fn any_unnested(
        &mut self,
        subject: Value,
        op: &BinaryOperator,
        array: Value,
        item: SqlType,
        quantifier: Quantifier,
    ) -> Result<Expr, Error> {
        let frame = self.frame()?;
        if frame.is_behind_groups() {
            let columns = array.expr.column_refs().into_iter().cloned();
            frame.grouping.asked.borrow_mut().extend(columns);
        }
        let array = self.outward(array.expr)?;
        let (plan, column) = self.items_of(array, &item)?;
        let item = Value::new(Expr::Column(column), item);
        let on = self.comparison(&symbol_of(op), subject, item)?;
        Ok(self.quantified_mark(plan, on, quantifier)?.expr)
    }

    /// `ARRAY(query)`
    pub(super) fn array_subquery(&mut self, query: &ast::Query) -> Result<Value, Error> {
        self.keeps_order = true;
        let output = self.subquery(query);
        self.keeps_order = false;
        let output = output?;
        let [column] = output.columns.as_slice() else {
            return Err(one_column());
        };
        let Type::Of(item) = &column.of else {
            return Err(super::assign::row_as_value());
        };
        let item = item.clone();
        let (rows, value, order) = unsorted(output.plan, &column.column);
        let resolved = resolve_aggregate("array_agg", &[Given::Of(item.clone())])
            .map_err(|error| unresolved(&error))?;
        let mut nodes = made(resolved.nodes(vec![value]))?;
        let mut columns = Vec::with_capacity(nodes.len());
        for node in &mut nodes {
            if let Expr::AggregateFunction(AggregateFunction { params, .. }) = node {
                params.order_by.clone_from(&order);
            }
            let column = self.fresh_column("items");
            *node = named(node.clone(), &column);
            columns.push(Expr::Column(column));
        }
        let collected = made(Aggregate::try_new(Arc::new(rows), Vec::new(), nodes))?;
        let array = made(resolved.finish(columns))?;
        let column = self.fresh_column("array");
        let plan = project(
            LogicalPlan::Aggregate(collected),
            vec![named(array, &column)],
        )?;
        let of = SqlType::Array(Box::new(item));
        let array = self.single(plan, Type::Of(of.clone()))?;
        let nothing = self.text_as("{}".to_owned(), &of)?;
        self.function("coalesce", vec![array, nothing], Span::empty())
    }
}

/// Checks that a subquery has as many columns as there are values beside it.
fn same_columns(columns: usize, values: usize) -> Result<(), Error> {
    if columns > values {
        return Err(Error::syntax("subquery has too many columns"));
    }
    if columns < values {
        return Err(Error::syntax("subquery has too few columns"));
    }
    Ok(())
}
