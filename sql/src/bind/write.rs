//! INSERT, UPDATE and DELETE as plans whose rows say what changes.
//!
//! Owns casts to the columns' types as assignment does them, defaults, and that a row of the table is changed once, however often FROM and USING match it. Which table
//! and which columns is known before. Must not know how rows are written. Called by [`crate::plan`].

use std::sync::Arc;

use datafusion::common::Column as PlanColumn;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, Filter, LogicalPlan, WindowFrame, WindowFunctionDefinition,
};
use flowstone_types::SqlType;
use sqlparser::ast::{self, AssignmentTarget, ObjectName, SetExpr, TableFactor, TableWithJoins};

use super::expr::span_of;
use super::from::may_be_lateral;
use super::grouping::named;
use super::scope::Frame;
use super::set::Row;
use super::subquery::joined;
use super::value::{Type, Value, made, null, told};
use super::window::over_windows;
use super::{Binder, Bound, Clause, bind, distinct_names, project};
use crate::catalog::{Column, Item};
use crate::context::PlanContext;
use crate::error::{Error, ErrorKind};
use crate::names::fold_name;

/// The table that is written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'c> {
    /// It.
    pub(crate) item: &'c Item,
    /// Its columns.
    pub(crate) columns: &'c [Column],
}

impl Target<'_> {
    fn not_null(&self, column: &Column) -> Error {
        Error::new(
            ErrorKind::NotNullViolation,
            format!(
                "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                column.name, self.item.name
            ),
        )
    }

    /// The column that a statement writes to: its name stands alone, since what would stand behind it is a part of the column.
    ///
    /// # Errors
    /// As PostgreSQL, if something does.
    pub(crate) fn column_named(&self, name: &ObjectName) -> Result<String, Error> {
        let mut parts = fold_name(name).into_iter();
        let column = parts.next().unwrap_or_default();
        let Some(field) = parts.next() else {
            return Ok(column);
        };
        let position = self.position(&column)?;
        let sql_type = self.columns.get(position).map(|column| &column.sql_type);
        let sql_type = sql_type.map(|sql_type| sql_type.without_modifier().to_string());
        Err(Error::new(
            ErrorKind::DatatypeMismatch,
            format!(
                "cannot assign to field \"{field}\" of column \"{column}\" because its type {} is not a composite type",
                sql_type.unwrap_or_default()
            ),
        ))
    }

    fn position(&self, name: &str) -> Result<usize, Error> {
        self.columns
            .iter()
            .position(|column| column.name == name)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::UndefinedColumn,
                    format!(
                        "column \"{name}\" of relation \"{}\" does not exist",
                        self.item.name
                    ),
                )
            })
    }
}

/// Whether it is the word DEFAULT.
pub(super) fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

/// Binds an INSERT: its plan has the columns of the table, and behind them those of RETURNING. `positions`: which columns of the table the query's are. Without a
/// query all columns have their defaults.
///
/// # Errors
/// Whatever is wrong with it, with PostgreSQL's wording.
pub(crate) fn insert(
    ctx: &PlanContext<'_>,
    target: Target<'_>,
    positions: &[usize],
    with: Option<&ast::With>,
    insert: &ast::Insert,
    parameters: &[Option<SqlType>],
) -> Result<Bound, Error> {
    bind(ctx, parameters, |binder| {
        binder.with(with)?;
        let plan = binder.inserted_rows(target, positions, insert)?;
        match insert.returning.as_deref() {
            None => Ok(plan),
            Some(items) => binder.in_frame(|binder| {
                binder.inserted(plan, target, insert.table_alias.as_ref(), items)
            }),
        }
    })
}

/// Binds an UPDATE: its plan has the columns of the table, these again as they become, and behind them those of RETURNING.
///
/// # Errors
/// As [`insert`].
pub(crate) fn update(
    ctx: &PlanContext<'_>,
    target: Target<'_>,
    with: Option<&ast::With>,
    update: &ast::Update,
    parameters: &[Option<SqlType>],
) -> Result<Bound, Error> {
    let from: &[TableWithJoins] = match &update.from {
        None => &[],
        Some(
            ast::UpdateTableFromKind::BeforeSet(from) | ast::UpdateTableFromKind::AfterSet(from),
        ) => from,
    };
    bind(ctx, parameters, |binder| {
        binder.with(with)?;
        binder.in_frame(|binder| binder.updated_rows(target, update, from))
    })
}

/// Binds a DELETE: its plan has the columns of the table, and behind them those of RETURNING.
///
/// # Errors
/// As [`insert`].
pub(crate) fn delete(
    ctx: &PlanContext<'_>,
    target: Target<'_>,
    with: Option<&ast::With>,
    table: &TableFactor,
    delete: &ast::Delete,
    parameters: &[Option<SqlType>],
) -> Result<Bound, Error> {
    let using = delete.using.as_deref().unwrap_or_default();
    bind(ctx, parameters, |binder| {
        binder.with(with)?;
        binder.in_frame(|binder| {
            let (plan, old, row) = binder.changed_table(target, table, using)?;
            let plan = binder.selected(plan, delete.selection.as_ref())?;
            let plan = once(plan, row)?;
            let exprs = old.into_iter().map(|value| value.expr).collect();
            binder.written(plan, target, exprs, delete.returning.as_deref())
        })
    })
}

/// The rows of a query that is just VALUES.
fn plain_values(query: &ast::Query) -> Option<&ast::Values> {
    match &*query.body {
        SetExpr::Values(values)
            if query.with.is_none()
                && query.order_by.is_none()
                && query.limit_clause.is_none()
                && query.fetch.is_none() =>
        {
            Some(values)
        }
        _ => None,
    }
}

fn check_count(given: usize, targets: usize, explicit: bool) -> Result<(), Error> {
    if given > targets {
        return Err(Error::syntax(
            "INSERT has more expressions than target columns",
        ));
    }
    if given < targets && explicit {
        return Err(Error::syntax(
            "INSERT has more target columns than expressions",
        ));
    }
    Ok(())
}

/// Each row that has a number once.
fn once(plan: LogicalPlan, number: Option<PlanColumn>) -> Result<LogicalPlan, Error> {
    let Some(number) = number else {
        return Ok(plan);
    };
    let all = plan
        .schema()
        .columns()
        .into_iter()
        .map(Expr::Column)
        .collect();
    let rows = made(DistinctOn::try_new(
        vec![Expr::Column(number)],
        all,
        None,
        Arc::new(plan),
    ))?;
    Ok(LogicalPlan::Distinct(Distinct::On(rows)))
}

impl Binder<'_> {
    fn inserted_rows(
        &mut self,
        target: Target<'_>,
        positions: &[usize],
        insert: &ast::Insert,
    ) -> Result<LogicalPlan, Error> {
        let Some(query) = insert.source.as_deref() else {
            return self.insert_rows(target, &[], false, &[&[]]);
        };
        let explicit = !insert.columns.is_empty();
        let Some(values) = plain_values(query) else {
            return self.insert_query(target, positions, explicit, query);
        };
        let rows: Vec<&[ast::Expr]> = values
            .rows
            .iter()
            .map(|row| row.content.as_slice())
            .collect();
        self.insert_rows(target, positions, explicit, &rows)
    }

    fn in_frame<T>(
        &mut self,
        bind: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.frames.push(Frame::new(Clause::From));
        let bound = bind(self);
        self.frames.pop();
        bound
    }

    /// What a column gets if nothing is said: its default, else NULL.
    fn default_of(&mut self, column: &Column) -> Result<Value, Error> {
        let Some(text) = &column.default else {
            return Ok(null(&column.sql_type));
        };
        let expr = crate::parse::parse_expr(text)?;
        // Positions in it are none of the statement.
        let text = std::mem::take(&mut self.ctx.text);
        self.frames.push(Frame::new(Clause::Default));
        let value = self.scalar(&expr);
        let frame = self.frames.pop();
        self.ctx.text = text;
        if frame.is_some_and(|frame| !frame.pending.is_empty()) {
            return Err(Error::unsupported(
                "cannot use subquery in DEFAULT expression",
            ));
        }
        self.assigned(value?, &column.sql_type, &column.name)
    }

    fn insert_rows(
        &mut self,
        target: Target<'_>,
        positions: &[usize],
        explicit: bool,
        rows: &[&[ast::Expr]],
    ) -> Result<LogicalPlan, Error> {
        let width = rows.first().map_or(0, |row| row.len());
        let mut bound = Vec::with_capacity(rows.len());
        for row in rows {
            if row.len() != width {
                return Err(Error::syntax("VALUES lists must all be the same length"));
            }
            check_count(row.len(), positions.len(), explicit)?;
            bound.push(self.insert_row(target, positions, row)?);
        }
        for (index, column) in target.columns.iter().enumerate() {
            let is_null = |row: &Row| {
                let value = row.values.get(index);
                value.is_some_and(
                    |value| matches!(&value.expr, Expr::Literal(literal, _) if literal.is_null()),
                )
            };
            if !column.nullable && bound.iter().any(is_null) {
                return Err(target.not_null(column));
            }
        }
        let names: Vec<String> = target
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect();
        let types: Vec<SqlType> = target
            .columns
            .iter()
            .map(|column| column.sql_type.clone())
            .collect();
        Ok(self.rows(bound, &names, &types)?.plan)
    }

    fn insert_row(
        &mut self,
        target: Target<'_>,
        positions: &[usize],
        cells: &[ast::Expr],
    ) -> Result<Row, Error> {
        self.frames.push(Frame::new(Clause::Values));
        let values = self.assigned_row(target, positions, cells);
        let frame = self.frames.pop();
        Ok(Row {
            values: values?,
            pending: frame.map(|frame| frame.pending).unwrap_or_default(),
        })
    }

    fn assigned_row(
        &mut self,
        target: Target<'_>,
        positions: &[usize],
        cells: &[ast::Expr],
    ) -> Result<Vec<Value>, Error> {
        let mut values: Vec<Option<Value>> = vec![None; target.columns.len()];
        for (cell, position) in cells.iter().zip(positions) {
            let Some(column) = target.columns.get(*position) else {
                continue;
            };
            let value = self.assigned_expr(cell, column)?;
            if let Some(slot) = values.get_mut(*position) {
                *slot = Some(value);
            }
        }
        values
            .into_iter()
            .zip(target.columns)
            .map(|(value, column)| match value {
                Some(value) => Ok(value),
                None => self.default_of(column),
            })
            .collect()
    }

    /// An expression as a value of a column.
    fn assigned_expr(&mut self, expr: &ast::Expr, column: &Column) -> Result<Value, Error> {
        if is_default(expr) {
            return self.default_of(column);
        }
        let value = self.scalar(expr)?;
        self.assigned(value, &column.sql_type, &column.name)
            .map_err(|error| self.placed(error, span_of(expr)))
    }

    fn insert_query(
        &mut self,
        target: Target<'_>,
        positions: &[usize],
        explicit: bool,
        query: &ast::Query,
    ) -> Result<LogicalPlan, Error> {
        let output = self.query(query)?;
        check_count(output.columns.len(), positions.len(), explicit)?;
        let mut values: Vec<Option<Value>> = vec![None; target.columns.len()];
        for (known, position) in output.columns.into_iter().zip(positions) {
            let Some(column) = target.columns.get(*position) else {
                continue;
            };
            let value = match known.constant {
                Some(constant) if known.of == Type::Unknown => Value::unknown(constant),
                _ => Value::typed(Expr::Column(known.column), known.of),
            };
            let value = self.assigned(value, &column.sql_type, &column.name)?;
            if let Some(slot) = values.get_mut(*position) {
                *slot = Some(value);
            }
        }
        let exprs = values
            .into_iter()
            .zip(target.columns)
            .map(|(value, column)| match value {
                Some(value) => Ok(value.expr),
                None => Ok(self.default_of(column)?.expr),
            })
            .collect::<Result<Vec<_>, Error>>()?;
        self.shown(output.plan, target, exprs)
    }

    /// The table of an UPDATE or DELETE beside what else is named: the plan, the columns of the table, and the number of each of its rows if it can occur repeatedly.
    fn changed_table(
        &mut self,
        target: Target<'_>,
        table: &TableFactor,
        others: &[TableWithJoins],
    ) -> Result<(LogicalPlan, Vec<Value>, Option<PlanColumn>), Error> {
        // A query of WITH is nothing that could be changed: its name means the table here.
        let ctes = std::mem::take(&mut self.ctes);
        let plan = self.factor(table);
        self.ctes = ctes;
        let mut plan = plan?;
        let relation = self.frame()?.relations.first();
        let old: Vec<Value> = relation
            .into_iter()
            .flat_map(|relation| &relation.columns)
            .map(|column| Value::typed(column.expr.clone(), column.of.clone()))
            .collect();
        if old.len() != target.columns.len() {
            return Err(Error::internal("a table without its columns"));
        }
        let mut number = None;
        if !others.is_empty() {
            let column = self.reserve("number", &SqlType::Int8);
            plan = numbered(plan, column.clone())?;
            number = Some(column);
            for item in others {
                let right = self.table_with_joins(item)?;
                let lateral = may_be_lateral(&item.relation)
                    || item.joins.iter().any(|join| may_be_lateral(&join.relation));
                plan = super::join::crossed(plan, right, lateral)?;
            }
        }
        self.frame()?.visible = 0;
        Ok((plan, old, number))
    }

    /// The rows that a WHERE keeps.
    fn selected(
        &mut self,
        plan: LogicalPlan,
        selection: Option<&ast::Expr>,
    ) -> Result<LogicalPlan, Error> {
        let Some(selection) = selection else {
            return Ok(plan);
        };
        self.frame()?.clause = Clause::Where;
        let condition = self.condition("WHERE", selection)?;
        let plan = joined(plan, std::mem::take(&mut self.frame()?.pending))?;
        made(Filter::try_new(condition, Arc::new(plan))).map(LogicalPlan::Filter)
    }

    fn updated_rows(
        &mut self,
        target: Target<'_>,
        update: &ast::Update,
        from: &[TableWithJoins],
    ) -> Result<LogicalPlan, Error> {
        if !update.table.joins.is_empty() {
            return Err(Error::syntax("UPDATE names one table"));
        }
        let (plan, old, row) = self.changed_table(target, &update.table.relation, from)?;
        self.frame()?.clause = Clause::Update;
        let mut new: Vec<Option<Value>> = vec![None; target.columns.len()];
        for assignment in &update.assignments {
            for (name, value) in self.assignments(target, assignment)? {
                let position = target.position(&name)?;
                if let Some(slot) = new.get_mut(position) {
                    if slot.is_some() {
                        return Err(Error::syntax(format!(
                            "multiple assignments to same column \"{name}\""
                        )));
                    }
                    *slot = Some(value);
                }
            }
        }
        let pending = std::mem::take(&mut self.frame()?.pending);
        let plan = self.selected(plan, update.selection.as_ref())?;
        let plan = once(joined(plan, pending)?, row)?;
        let mut exprs: Vec<Expr> = old.iter().map(|value| value.expr.clone()).collect();
        if update.returning.is_some() {
            let (plan, row) = self.renewed(plan, target, new)?;
            exprs.extend(row);
            return self.written(plan, target, exprs, update.returning.as_deref());
        }
        for (value, old) in new.into_iter().zip(&old) {
            exprs.push(value.map_or_else(|| old.expr.clone(), |value| value.expr));
        }
        self.shown(plan, target, exprs)
    }

    /// The columns that an assignment names, with their values.
    fn assignments(
        &mut self,
        target: Target<'_>,
        assignment: &ast::Assignment,
    ) -> Result<Vec<(String, Value)>, Error> {
        let names: Vec<String> = match &assignment.target {
            AssignmentTarget::ColumnName(name) => vec![target.column_named(name)?],
            AssignmentTarget::Tuple(names) => names
                .iter()
                .map(|name| target.column_named(name))
                .collect::<Result<_, _>>()?,
        };
        let columns = names
            .iter()
            .map(|name| {
                let position = target.position(name)?;
                target
                    .columns
                    .get(position)
                    .ok_or_else(|| Error::internal("a column without a place"))
            })
            .collect::<Result<Vec<&Column>, Error>>()?;
        let is_row = matches!(assignment.target, AssignmentTarget::Tuple(_));
        let value = super::expr::unnested(&assignment.value);
        let values = match (is_row, value) {
            (false, expr) => {
                let column = columns.first().copied();
                let column = column.ok_or_else(|| Error::internal("an assignment of nothing"))?;
                vec![self.assigned_expr(expr, column)?]
            }
            (true, ast::Expr::Subquery(query)) => {
                let row = self.row_subquery(query, names.len())?;
                let fields = row.fields()?.unwrap_or_default();
                fields
                    .into_iter()
                    .zip(&columns)
                    .map(|((_, value), column)| {
                        self.assigned(value, &column.sql_type, &column.name)
                    })
                    .collect::<Result<Vec<_>, Error>>()?
            }
            (true, expr) => {
                let exprs: Vec<&ast::Expr> = match expr {
                    ast::Expr::Tuple(exprs) => exprs.iter().collect(),
                    ast::Expr::Function(function) => row_arguments(function)?,
                    other => vec![other],
                };
                if exprs.len() != names.len() {
                    return Err(Error::syntax(
                        "number of columns does not match number of values",
                    ));
                }
                exprs
                    .into_iter()
                    .zip(&columns)
                    .map(|(expr, column)| self.assigned_expr(expr, column))
                    .collect::<Result<Vec<_>, Error>>()?
            }
        };
        Ok(names.into_iter().zip(values).collect())
    }

    /// The projection of a plan to columns of the table, once or twice.
    fn shown(
        &mut self,
        plan: LogicalPlan,
        target: Target<'_>,
        exprs: Vec<Expr>,
    ) -> Result<LogicalPlan, Error> {
        let exprs = self.as_columns(&plan, target, exprs)?;
        project(plan, exprs)
    }

    /// The same, and behind it what RETURNING gives, if there is one.
    fn written(
        &mut self,
        plan: LogicalPlan,
        target: Target<'_>,
        exprs: Vec<Expr>,
        returning: Option<&[ast::SelectItem]>,
    ) -> Result<LogicalPlan, Error> {
        let exprs = self.as_columns(&plan, target, exprs)?;
        match returning {
            None => project(plan, exprs),
            Some(items) => self.returned(plan, exprs, items),
        }
    }

    /// Expressions over a plan as columns of the table, once or twice.
    fn as_columns(
        &mut self,
        plan: &LogicalPlan,
        target: Target<'_>,
        exprs: Vec<Expr>,
    ) -> Result<Vec<Expr>, Error> {
        let schema = Arc::clone(plan.schema());
        let qualifier = self.fresh();
        let columns = || target.columns.iter().chain(target.columns);
        let names = distinct_names(columns().map(|column| column.name.as_str()));
        exprs
            .into_iter()
            .zip(columns())
            .zip(names)
            .map(|((expr, column), name)| {
                let expr = told(expr, &column.sql_type, &schema)?;
                Ok(named(expr, &PlanColumn::new(Some(qualifier.clone()), name)))
            })
            .collect()
    }
}

/// The fields of `ROW(…)`.
fn row_arguments(function: &ast::Function) -> Result<Vec<&ast::Expr>, Error> {
    let is_row = matches!(fold_name(&function.name).as_slice(), [name] if name == "row");
    match &function.args {
        ast::FunctionArguments::List(list) if is_row => match super::expr::listed(&list.args)? {
            super::expr::Arguments::Listed(exprs) => Ok(exprs),
            super::expr::Arguments::Everything => Err(Error::syntax("ROW(*) is no row")),
        },
        _ => Err(Error::unsupported(
            "source for a multiple-column UPDATE item must be a sub-SELECT or ROW() expression",
        )),
    }
}

/// The rows of a plan with their numbers, in no order.
pub(super) fn numbered(plan: LogicalPlan, number: PlanColumn) -> Result<LogicalPlan, Error> {
    let function = flowstone_functions::registry()
        .window("row_number")
        .ok_or_else(|| Error::internal("no function row_number"))?;
    let mut window = WindowFunction::new(WindowFunctionDefinition::WindowUDF(function), Vec::new());
    window.params.window_frame = WindowFrame::new(None);
    over_windows(plan, vec![(Expr::WindowFunction(Box::new(window)), number)])
}
