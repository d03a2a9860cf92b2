//! The domain of a subquery, and how it is carried through every operator.
//!
//! Owns what each operator of a subquery becomes when it runs for all values of its domain at once. Must not know where subqueries stand.
//! Called by [`super::Unnesting`], which makes the domains.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, NullEquality, Result, ScalarValue};
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, FetchType, Filter, Join, JoinConstraint, JoinType,
    Limit, LogicalPlan, LogicalPlanBuilder, Projection, SkipType, SortExpr, Union, Unnest, Window,
    WindowFrame, WindowFunctionDefinition, lit,
};
use flowstone_types::SqlType;

use super::shapes::{column_keys, default_of, join_condition, own_references, takes_null};
use super::{DEPTH_MAX, Unnesting, call, unsupported};
use crate::error::{Error, ErrorKind};
use crate::plan::exprs;

/// The different values of the columns that a subquery asks for.
pub(super) struct Domain {
    pub(super) plan: LogicalPlan,
    /// What they are called outside.
    pub(super) asked: Vec<Column>,
    /// What they are made of outside: the columns, and behind them the texts of those whose values may be equal and not the same.
    pub(super) outside: Vec<Expr>,
    /// What these are called inside.
    pub(super) named: Vec<Column>,
}

impl Domain {
    pub(super) fn columns(&self) -> Vec<Expr> {
        self.named.iter().cloned().map(Expr::Column).collect()
    }

    /// Rows of `outer` beside the rows of `carried` that have their values; NULL is a value here.
    pub(super) fn join_to(
        &self,
        outer: LogicalPlan,
        carried: LogicalPlan,
        join_type: JoinType,
        condition: Option<Expr>,
    ) -> Result<LogicalPlan> {
        if self.asked.is_empty() {
            let condition = condition.unwrap_or_else(|| lit(true));
            return LogicalPlanBuilder::from(outer)
                .join_on(carried, join_type, [condition])?
                .build();
        }
        let on = self
            .outside
            .iter()
            .zip(&self.named)
            .map(|(outside, name)| (outside.clone(), Expr::Column(name.clone())));
        Join::try_new(
            Arc::new(outer),
            Arc::new(carried),
            on.collect(),
            condition,
            join_type,
            JoinConstraint::On,
            NullEquality::NullEqualsNull,
            false,
        )
        .map(LogicalPlan::Join)
    }

    /// `plan` for all values of the domain, whose columns come first.
    pub(super) fn carry(
        &self,
        unnesting: &mut Unnesting,
        plan: &LogicalPlan,
    ) -> Result<LogicalPlan> {
        if !self.is_asked_by(plan)? {
            return self.beside(plan);
        }
        if unnesting.depth == DEPTH_MAX {
            return Err(DataFusionError::External(Box::new(Error::new(
                ErrorKind::TooComplex,
                "a correlated subquery is nested too deeply",
            ))));
        }
        unnesting.depth += 1;
        let carried = self.through(unnesting, plan)?;
        unnesting.depth -= 1;
        Ok(carried)
    }

    /// See [`Domain::carry`], of an operator that asks or is above one that does.
    fn through(&self, unnesting: &mut Unnesting, plan: &LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.carry(unnesting, &projection.input)?;
                let mut items = self.columns();
                for expr in &projection.expr {
                    items.push(self.resolve(expr.clone())?);
                }
                LogicalPlanBuilder::from(input).project(items)?.build()
            }
            LogicalPlan::Filter(filter) => {
                let input = self.carry(unnesting, &filter.input)?;
                let predicate = self.resolve(filter.predicate.clone())?;
                Filter::try_new(predicate.unalias(), Arc::new(input)).map(LogicalPlan::Filter)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.carry(unnesting, &alias.input)?;
                self.renamed(input, plan)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(unnesting, aggregate, plan),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.carry(unnesting, input)?;
                Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(input))))
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.distinct_on(unnesting, distinct),
            LogicalPlan::Window(window) => self.window(unnesting, window),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                // The order of a subquery's rows only matters to a limit and to DISTINCT ON, which look for it themselves.
                self.carry(unnesting, &sort.input)
            }
            LogicalPlan::Limit(limit) => self.limit(unnesting, limit),
            LogicalPlan::Union(union) => {
                let mut inputs = Vec::new();
                for input in &union.inputs {
                    inputs.push(Arc::new(self.carry(unnesting, input)?));
                }
                let all = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
                self.renamed(all, plan)
            }
            LogicalPlan::Join(join) => self.join(unnesting, join),
            LogicalPlan::Unnest(unnest) => {
                let input = self.carry(unnesting, &unnest.input)?;
                Unnest::try_new(
                    Arc::new(input),
                    unnest.exec_columns.clone(),
                    unnest.options.clone(),
                )
                .map(LogicalPlan::Unnest)
            }
            LogicalPlan::EmptyRelation(empty)
                if empty.produce_one_row && empty.schema.fields().is_empty() =>
            {
                Ok(self.plan.clone())
            }
            _ => Err(unsupported()),
        }
    }

    /// Every value of the domain beside every row.
    fn beside(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        if self.asked.is_empty() {
            return Ok(plan.clone());
        }
        if let LogicalPlan::EmptyRelation(empty) = plan
            && empty.produce_one_row
            && empty.schema.fields().is_empty()
        {
            return Ok(self.plan.clone());
        }
        LogicalPlanBuilder::from(self.plan.clone())
            .cross_join(plan.clone())?
            .build()
    }

    /// `carried` with the names that the columns of `plan` have.
    fn renamed(&self, carried: LogicalPlan, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let mut items = self.columns();
        let inside = carried.schema().columns();
        let outside = plan.schema().columns();
        for (index, column) in inside.into_iter().enumerate() {
            match index.checked_sub(self.named.len()) {
                // The first ones are the domain's, whatever they are called.
                None => {
                    if let (Some(item), Some(name)) = (items.get_mut(index), self.named.get(index))
                    {
                        *item = Expr::Column(column).alias(name.name.clone());
                    }
                }
                Some(position) => {
                    let shown = outside.get(position).cloned().ok_or_else(|| {
                        DataFusionError::Internal("a carried plan keeps its columns".to_owned())
                    })?;
                    items.push(Expr::Column(column).alias_qualified(shown.relation, shown.name));
                }
            }
        }
        LogicalPlanBuilder::from(carried).project(items)?.build()
    }

    fn aggregate(
        &self,
        unnesting: &mut Unnesting,
        aggregate: &Aggregate,
        plan: &LogicalPlan,
    ) -> Result<LogicalPlan> {
        if aggregate
            .group_expr
            .iter()
            .any(|expr| matches!(expr, Expr::GroupingSet(_)))
        {
            return Err(unsupported());
        }
        let input = self.carry(unnesting, &aggregate.input)?;
        let mut groups = self.columns();
        for expr in &aggregate.group_expr {
            groups.push(self.resolve(expr.clone())?);
        }
        let mut aggregates = Vec::new();
        for expr in &aggregate.aggr_expr {
            aggregates.push(self.resolve(expr.clone())?);
        }
        let grouped = Aggregate::try_new(Arc::new(input), groups, aggregates)?;
        let grouped = LogicalPlan::Aggregate(grouped);
        if !aggregate.group_expr.is_empty() || self.named.is_empty() {
            return Ok(grouped);
        }
        // Of no rows there is one result, for each value of the domain.
        let there = unnesting.name("there");
        let found: Vec<Column> = self.named.iter().map(|_| unnesting.name("found")).collect();
        let mut items: Vec<Expr> = self
            .named
            .iter()
            .zip(&found)
            .map(|(column, name)| Expr::Column(column.clone()).alias(name.name.clone()))
            .collect();
        let results = plan.schema().columns();
        items.extend(results.iter().cloned().map(Expr::Column));
        items.push(lit(true).alias(there.name.clone()));
        let grouped = LogicalPlanBuilder::from(grouped).project(items)?.build()?;
        let all = LogicalPlanBuilder::from(self.plan.clone())
            .join_detailed(
                grouped,
                JoinType::Left,
                (self.named.clone(), found),
                None,
                NullEquality::NullEqualsNull,
            )?
            .build()?;
        let mut items = self.columns();
        for (column, expr) in results.into_iter().zip(&aggregate.aggr_expr) {
            let value = Expr::Column(column.clone());
            let default = default_of(expr, plan)?;
            items.push(if default.is_null() {
                value
            } else {
                let arm = (
                    Box::new(Expr::Column(there.clone()).is_null()),
                    Box::new(lit(default)),
                );
                Expr::Case(Case::new(
                    Some(Box::new(lit(true))),
                    vec![arm],
                    Some(Box::new(value)),
                ))
                .alias_qualified(column.relation, column.name)
            });
        }
        LogicalPlanBuilder::from(all).project(items)?.build()
    }

    fn distinct_on(&self, unnesting: &mut Unnesting, distinct: &DistinctOn) -> Result<LogicalPlan> {
        let input = self.carry(unnesting, &distinct.input)?;
        let with_domain = |exprs: &[Expr]| {
            let mut all = self.columns();
            for expr in exprs {
                all.push(self.resolve(expr.clone())?);
            }
            Ok::<_, DataFusionError>(all)
        };
        let sort = distinct
            .sort_expr
            .as_ref()
            .map(|sort| {
                let mut all: Vec<SortExpr> = self
                    .columns()
                    .into_iter()
                    .map(|column| column.sort(true, false))
                    .collect();
                for key in sort {
                    all.push(SortExpr::new(
                        self.resolve(key.expr.clone())?,
                        key.asc,
                        key.nulls_first,
                    ));
                }
                Ok::<_, DataFusionError>(all)
            })
            .transpose()?;
        let distinct = DistinctOn::try_new(
            with_domain(&distinct.on_expr)?,
            with_domain(&distinct.select_expr)?,
            sort,
            Arc::new(input),
        )?;
        Ok(LogicalPlan::Distinct(Distinct::On(distinct)))
    }

    fn window(&self, unnesting: &mut Unnesting, window: &Window) -> Result<LogicalPlan> {
        let input = self.carry(unnesting, &window.input)?;
        let mut exprs = Vec::new();
        for expr in &window.window_expr {
            let name = expr.qualified_name();
            let within = self
                .resolve(expr.clone())?
                .transform_up(|part| match part {
                    Expr::WindowFunction(mut function) => {
                        let mut partition = self.columns();
                        partition.append(&mut function.params.partition_by);
                        function.params.partition_by = partition;
                        Ok(Transformed::yes(Expr::WindowFunction(function)))
                    }
                    other => Ok(Transformed::no(other)),
                })?;
            exprs.push(within.data.unalias().alias_qualified(name.0, name.1));
        }
        let window = Window::try_new(exprs, Arc::new(input))?;
        Ok(LogicalPlan::Window(window))
    }

    /// A limit for each value of the domain: the rows of each are numbered.
    fn limit(&self, unnesting: &mut Unnesting, limit: &Limit) -> Result<LogicalPlan> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Err(unsupported());
        };
        if let LogicalPlan::Projection(projection) = limit.input.as_ref() {
            // The projection may drop what the order is by.
            let limited = LogicalPlan::Limit(Limit {
                input: Arc::clone(&projection.input),
                ..limit.clone()
            });
            let items = projection.expr.clone();
            let above = Projection::try_new(items, Arc::new(limited))?;
            return self.carry(unnesting, &LogicalPlan::Projection(above));
        }
        let order = match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => sort.expr.clone(),
            _ => Vec::new(),
        };
        let input = self.carry(unnesting, &limit.input)?;
        if self.named.is_empty() {
            let limit = Limit {
                input: Arc::new(input),
                ..limit.clone()
            };
            return Ok(LogicalPlan::Limit(limit));
        }
        let mut keys = Vec::new();
        for key in order {
            keys.push(SortExpr::new(
                self.resolve(key.expr)?,
                key.asc,
                key.nulls_first,
            ));
        }
        let columns = input.schema().columns();
        let number = unnesting.name("number");
        let row_number = flowstone_functions::registry()
            .window("row_number")
            .ok_or_else(|| DataFusionError::Internal("no function row_number".to_owned()))?;
        let mut function = datafusion::logical_expr::expr::WindowFunction::new(
            WindowFunctionDefinition::WindowUDF(row_number),
            Vec::new(),
        );
        function.params.partition_by = self.columns();
        if keys.is_empty() {
            keys.extend(
                self.columns()
                    .into_iter()
                    .take(1)
                    .map(|column| column.sort(true, false)),
            );
        }
        function.params.order_by = keys;
        function.params.window_frame = WindowFrame::new(Some(true));
        let numbered = Expr::from(function).alias(number.name.clone());
        let over = |rows: usize| ScalarValue::UInt64(u64::try_from(rows).ok());
        let mut condition = Expr::Column(number.clone()).gt(lit(over(skip)));
        if let Some(fetch) = fetch {
            let last = lit(over(skip.saturating_add(fetch)));
            condition = condition.and(Expr::Column(number).lt_eq(last));
        }
        LogicalPlanBuilder::from(input)
            .window(vec![numbered])?
            .filter(condition)?
            .project(columns.into_iter().map(Expr::Column))?
            .build()
    }

    fn join(&self, unnesting: &mut Unnesting, join: &Join) -> Result<LogicalPlan> {
        let right_asks = self.is_asked_by(&join.right)?;
        let condition = join_condition(join)
            .map(|condition| self.resolve(condition).map(Expr::unalias))
            .transpose()?;
        let mut outside = self.columns();
        outside.extend(join.schema.columns().into_iter().map(Expr::Column));
        let two_sided = match join.join_type {
            JoinType::Inner => right_asks && self.is_asked_by(&join.left)?,
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => right_asks,
            JoinType::Right | JoinType::Full => true,
            _ => return Err(unsupported()),
        };
        if join.null_aware {
            return Err(unsupported());
        }
        let plain = join_condition(join).is_none();
        let on_true = condition.clone().unwrap_or_else(|| lit(true));
        if !two_sided || self.named.is_empty() {
            let carry_right = right_asks && join.join_type == JoinType::Inner;
            let (left, right) = if self.named.is_empty() {
                (
                    self.carry(unnesting, &join.left)?,
                    self.carry(unnesting, &join.right)?,
                )
            } else if carry_right {
                (
                    join.left.as_ref().clone(),
                    self.carry(unnesting, &join.right)?,
                )
            } else {
                (
                    self.carry(unnesting, &join.left)?,
                    join.right.as_ref().clone(),
                )
            };
            let joined = match join.join_type {
                JoinType::Inner if plain => LogicalPlanBuilder::from(left).cross_join(right)?,
                join_type if takes_null(join) => {
                    let filter = join
                        .filter
                        .clone()
                        .map(|filter| self.resolve(filter).map(Expr::unalias))
                        .transpose()?;
                    LogicalPlanBuilder::from(left).join_detailed(
                        right,
                        join_type,
                        column_keys(join)?,
                        filter,
                        NullEquality::NullEqualsNull,
                    )?
                }
                join_type => LogicalPlanBuilder::from(left).join_on(right, join_type, [on_true])?,
            };
            return joined.project(outside)?.build();
        }
        let left = self.carry(unnesting, &join.left)?;
        let right = self.carry(unnesting, &join.right)?;
        let found: Vec<Column> = self.named.iter().map(|_| unnesting.name("found")).collect();
        let right_columns = join.right.schema().columns();
        let mut items: Vec<Expr> = self
            .named
            .iter()
            .zip(&found)
            .map(|(column, name)| Expr::Column(column.clone()).alias(name.name.clone()))
            .collect();
        items.extend(right_columns.into_iter().map(Expr::Column));
        let right = LogicalPlanBuilder::from(right).project(items)?.build()?;
        let mut keys: (Vec<Column>, Vec<Column>) = (self.named.clone(), found.clone());
        let mut condition = condition;
        if takes_null(join) {
            // NULL is a value for these keys too, and not for what the filter compares.
            let (left, right) = column_keys(join)?;
            keys.0.extend(left);
            keys.1.extend(right);
            condition = join
                .filter
                .clone()
                .map(|filter| self.resolve(filter).map(Expr::unalias))
                .transpose()?;
        }
        let merged: Vec<Expr> = match join.join_type {
            JoinType::Right | JoinType::Full => self
                .named
                .iter()
                .zip(&found)
                .map(|(left, right)| either(&self.plan, left, right, join.join_type))
                .collect::<Result<_>>()?,
            _ => self.columns(),
        };
        let items = merged
            .into_iter()
            .chain(join.schema.columns().into_iter().map(Expr::Column));
        LogicalPlanBuilder::from(left)
            .join_detailed(
                right,
                join.join_type,
                keys,
                condition,
                NullEquality::NullEqualsNull,
            )?
            .project(items)?
            .build()
    }

    /// Whether `plan` itself asks for a column of the domain; subqueries in it ask for columns of their own surroundings.
    fn is_asked_by(&self, plan: &LogicalPlan) -> Result<bool> {
        Ok(own_references(plan)?
            .iter()
            .any(|column| self.asked.contains(column)))
    }

    /// The expression with columns of the domain for those it asks for, under the name that it had.
    fn resolve(&self, expr: Expr) -> Result<Expr> {
        let name = expr.qualified_name();
        let resolved = expr.transform_up(|part| {
            let Expr::OuterReferenceColumn(_, column) = &part else {
                return Ok(Transformed::no(part));
            };
            let position = self.asked.iter().position(|asked| asked == column);
            Ok(
                match position.and_then(|position| self.named.get(position)) {
                    Some(named) => Transformed::yes(Expr::Column(named.clone())),
                    None => Transformed::no(part),
                },
            )
        })?;
        Ok(
            if resolved.transformed && resolved.data.qualified_name() != name {
                resolved.data.alias_qualified(name.0, name.1)
            } else {
                resolved.data
            },
        )
    }
}

/// The value of a column of the domain after an outer join: of the side that is there.
fn either(
    domain: &LogicalPlan,
    left: &Column,
    right: &Column,
    join_type: JoinType,
) -> Result<Expr> {
    let value = if join_type == JoinType::Right {
        Expr::Column(right.clone())
    } else {
        let both = call(
            "coalesce",
            vec![Expr::Column(left.clone()), Expr::Column(right.clone())],
        )?;
        match SqlType::from_field(domain.schema().qualified_field_from_column(left)?.1) {
            Ok(sql_type) => exprs::told(both, &sql_type)?,
            Err(_) => both,
        }
    };
    Ok(value.alias(left.name.clone()))
}
