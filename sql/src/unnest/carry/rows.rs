//! What counts or numbers rows inside of a subquery: it does so for each value of the domain.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, WindowFunction};
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, FetchType, Limit, LogicalPlan, SkipType, SortExpr, Window,
    WindowFrame, WindowFunctionDefinition, lit,
};

use super::Carrying;
use crate::unnest::expressions::{broken, case, columns_of, filtered, projected, with_stack};

/// How many rows a limit leaves out, and how many it takes.
enum Count {
    Known(usize, Option<usize>),
    Computed(Option<Box<Expr>>, Option<Box<Expr>>),
}

impl Carrying<'_> {
    pub(super) fn window(&mut self, window: &Window) -> Result<LogicalPlan> {
        let input = self.node(&window.input)?;
        let mut exprs = Vec::new();
        for expr in &window.window_expr {
            let name = expr.qualified_name();
            let within = self.value(expr.clone())?.transform_up(|part| match part {
                Expr::WindowFunction(mut function) => {
                    let mut partition = self.domain.columns();
                    partition.append(&mut function.params.partition_by);
                    function.params.partition_by = partition;
                    Ok(Transformed::yes(Expr::WindowFunction(function)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            exprs.push(match within.data {
                Expr::Alias(alias) => Expr::Alias(alias),
                other => other.alias_qualified(name.0, name.1),
            });
        }
        Window::try_new(exprs, Arc::new(input)).map(LogicalPlan::Window)
    }

    pub(super) fn distinct_on(&mut self, distinct: &DistinctOn) -> Result<LogicalPlan> {
        let input = self.node(&distinct.input)?;
        let (mut on, mut shown) = (self.domain.columns(), self.domain.columns());
        for expr in &distinct.on_expr {
            on.push(self.value(expr.clone())?);
        }
        for expr in &distinct.select_expr {
            shown.push(self.resolve(expr.clone())?);
        }
        let order = match &distinct.sort_expr {
            None => None,
            Some(order) => {
                let mut all = self.domain_order();
                all.extend(self.order(order)?);
                Some(all)
            }
        };
        let mut carried = DistinctOn::try_new(on, shown, None, Arc::new(input))?;
        // As it was, the domain before it: nothing has to be checked again.
        carried.sort_expr = order;
        Ok(LogicalPlan::Distinct(Distinct::On(carried)))
    }

    fn domain_order(&self) -> Vec<SortExpr> {
        let columns = self.domain.columns().into_iter();
        columns.map(|column| column.sort(true, false)).collect()
    }

    pub(super) fn limit(&mut self, limit: &Limit) -> Result<LogicalPlan> {
        let count = match (limit.get_skip_type()?, limit.get_fetch_type()?) {
            (SkipType::Literal(skip), FetchType::Literal(fetch)) => Count::Known(skip, fetch),
            _ => {
                let value = |expr: &Option<Box<Expr>>| {
                    expr.as_deref()
                        .map(|expr| self.value(expr.clone()).map(Box::new))
                        .transpose()
                };
                Count::Computed(value(&limit.skip)?, value(&limit.fetch)?)
            }
        };
        self.limited(&limit.input, &count)
    }

    /// Some rows of `input` for each value of the domain. Limits move below projections, down to the Sort that orders them.
    fn limited(&mut self, input: &LogicalPlan, count: &Count) -> Result<LogicalPlan> {
        match input {
            LogicalPlan::Projection(projection) => {
                let below = self.limited_below(&projection.input, count)?;
                self.projection(projection, below)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let below = self.limited_below(&alias.input, count)?;
                self.renamed(below, &input.schema().columns())
            }
            LogicalPlan::Sort(sort) => {
                let sorted = if sort.fetch.is_none() {
                    self.node(&sort.input)?
                } else {
                    self.node(input)?
                };
                self.counted(sorted, &sort.expr, count)
            }
            other => {
                let carried = self.node(other)?;
                self.counted(carried, &[], count)
            }
        }
    }

    fn limited_below(&mut self, input: &LogicalPlan, count: &Count) -> Result<LogicalPlan> {
        self.unnesting.enter()?;
        let below = with_stack(input, || self.limited(input, count));
        self.unnesting.leave();
        below
    }

    /// The first rows of a carried plan.
    pub(super) fn first_rows(
        &mut self,
        carried: LogicalPlan,
        order: &[SortExpr],
        skip: usize,
        fetch: Option<usize>,
    ) -> Result<LogicalPlan> {
        self.counted(carried, order, &Count::Known(skip, fetch))
    }

    fn counted(
        &mut self,
        carried: LogicalPlan,
        order: &[SortExpr],
        count: &Count,
    ) -> Result<LogicalPlan> {
        let order = self.order(order)?;
        let columns = columns_of(&carried);
        match count {
            Count::Known(0, None) => return Ok(carried),
            Count::Known(_, Some(0)) => return filtered(carried, [lit(false)]),
            Count::Known(0, Some(1)) => {
                let mut first =
                    DistinctOn::try_new(self.domain.columns(), columns, None, Arc::new(carried))?;
                let mut all = self.domain_order();
                all.extend(order);
                first.sort_expr = Some(all);
                return Ok(LogicalPlan::Distinct(Distinct::On(first)));
            }
            _ => {}
        }
        let number = self.unnesting.name("number");
        let row_number = flowstone_functions::registry()
            .window("row_number")
            .ok_or_else(|| broken("no function row_number"))?;
        let definition = WindowFunctionDefinition::WindowUDF(row_number);
        let mut function = WindowFunction::new(definition, Vec::new());
        function.params.partition_by = self.domain.columns();
        function.params.order_by = if order.is_empty() {
            self.domain_order().into_iter().take(1).collect()
        } else {
            order
        };
        function.params.window_frame = WindowFrame::new(Some(true));
        let numbering = Expr::from(function).alias(number.name.clone());
        let numbered = Window::try_new(vec![numbering], Arc::new(carried))?;
        let number = Expr::Column(number);
        let mut conditions = Vec::new();
        match count {
            Count::Known(skip, fetch) => {
                let rows = |rows: usize| lit(ScalarValue::UInt64(u64::try_from(rows).ok()));
                if *skip > 0 {
                    conditions.push(number.clone().gt(rows(*skip)));
                }
                if let Some(fetch) = fetch {
                    conditions.push(number.lt_eq(rows(skip.saturating_add(*fetch))));
                }
            }
            Count::Computed(skip, fetch) => {
                let big = |expr: Expr| Expr::Cast(Cast::new(Box::new(expr), DataType::Int64));
                let number = big(number);
                let behind = match skip {
                    None => number,
                    Some(skip) => {
                        let skip = big(skip.as_ref().clone());
                        let known = skip.clone().is_null();
                        conditions.push(known.or(number.clone().gt(skip.clone())));
                        let arms = vec![(skip.clone().is_null(), number.clone())];
                        case(arms, Some(number - skip))
                    }
                };
                if let Some(fetch) = fetch {
                    let fetch = big(fetch.as_ref().clone());
                    conditions.push(fetch.clone().is_null().or(behind.lt_eq(fetch)));
                }
            }
        }
        projected(
            filtered(LogicalPlan::Window(numbered), conditions)?,
            columns,
        )
    }
}
