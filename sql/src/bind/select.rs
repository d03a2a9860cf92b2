//! SELECT: its clauses, and the plan that is built of them.
//!
//! Owns the order in which clauses are bound and joined to the plan. Must not know expressions. Called by [`super`] and [`super::set`].
//!
//! Invariants. A condition stands beneath everything that is only computed for rows it keeps. Of the columns that a plan has in the end the SELECT list's come first;
//! those behind them, by which it is sorted, are gone before the query is handed on.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Distinct, DistinctOn, Expr, Filter, LogicalPlan};
use flowstone_types::SqlType;
use sqlparser::ast::{
    self, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, WildcardAdditionalOptions,
};

use super::item_names::column_name;
use super::order::{ByPosition, items_of, sorted};
use super::scope::{Frame, ScopeColumn};
use super::series::{Series, unnested_in_levels};
use super::subquery::{Pending, joined};
use super::value::{Type, Value, made, null, told};
use super::window::over_windows;
use super::{Binder, Clause, Output, OutputColumn, distinct_names, number, project};
use crate::error::{Error, ErrorKind};
use crate::names::{INTERNAL, fold};

/// An item of a SELECT list.
#[derive(Debug)]
pub(super) struct Target<'q> {
    /// Its name.
    pub(super) name: String,
    source: Source<'q>,
}

#[derive(Debug)]
enum Source<'q> {
    /// An expression as it is written.
    Written(&'q ast::Expr),
    /// A column that `*` stands for.
    Known(Box<Value>),
}

impl<'q> Target<'q> {
    /// The expression that is written.
    pub(super) const fn expr(&self) -> Option<&'q ast::Expr> {
        match &self.source {
            Source::Written(expr) => Some(expr),
            Source::Known(_) => None,
        }
    }
}

/// What the rows of a SELECT come to, clause by clause.
struct Parts {
    /// The SELECT list, and behind it what else is sorted by.
    outputs: Vec<Value>,
    having: Option<Expr>,
    having_pending: Vec<Pending>,
    qualify: Option<Expr>,
    pending: Vec<Pending>,
    series: Vec<Series>,
    windows: Vec<(Expr, Column)>,
}

fn filtered(plan: LogicalPlan, condition: Expr) -> Result<LogicalPlan, Error> {
    made(Filter::try_new(condition, Arc::new(plan))).map(LogicalPlan::Filter)
}

fn refuse(select: &Select) -> Result<(), Error> {
    if select.into.is_some() {
        return Err(Error::unsupported("SELECT … INTO is not supported")
            .with_hint("Create the table, and use INSERT … SELECT."));
    }
    let foreign = select.top.is_some()
        || select.prewhere.is_some()
        || select.exclude.is_some()
        || !select.lateral_views.is_empty()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || select.value_table_mode.is_some();
    if foreign {
        return Err(Error::unsupported("this form of SELECT is not supported"));
    }
    Ok(())
}

fn no_options(options: &WildcardAdditionalOptions) -> Result<(), Error> {
    let some = options.opt_ilike.is_some()
        || options.opt_exclude.is_some()
        || options.opt_except.is_some()
        || options.opt_replace.is_some()
        || options.opt_rename.is_some()
        || options.opt_alias.is_some();
    if some {
        return Err(Error::unsupported("options of * are not supported"));
    }
    Ok(())
}

impl Binder<'_> {
    /// The body of a query with its order and bounds.
    pub(super) fn body_of(&mut self, query: &ast::Query) -> Result<Output, Error> {
        if !query.pipe_operators.is_empty() {
            return Err(Error::unsupported("pipe operators are not supported"));
        }
        let items = items_of(query.order_by.as_ref())?;
        if let Some(select) = plain_select(&query.body) {
            return self.select(select, items, Some(query));
        }
        self.keeps_order = false;
        let construct = match &*query.body {
            SetExpr::SetOperation { .. } => "UNION/INTERSECT/EXCEPT",
            _ => "this",
        };
        let output = self.set_expr(&query.body)?;
        let order = self.order_of_output(items, &output, construct)?;
        let bounds = self.bounds(query)?;
        let plan = sorted(output.plan, order.clone());
        Ok(Output {
            plan: self.within(plan, &order, bounds)?,
            columns: output.columns,
        })
    }

    /// A SELECT with the order and bounds of its query.
    pub(super) fn select(
        &mut self,
        select: &Select,
        items: &[ast::OrderByExpr],
        query: Option<&ast::Query>,
    ) -> Result<Output, Error> {
        refuse(select)?;
        let keeps_order = std::mem::take(&mut self.keeps_order);
        self.frames.push(Frame::new(Clause::From));
        let output = self.select_in_frame(select, items, query, keeps_order);
        self.frames.pop();
        output
    }

    fn select_in_frame(
        &mut self,
        select: &Select,
        items: &[ast::OrderByExpr],
        query: Option<&ast::Query>,
        keeps_order: bool,
    ) -> Result<Output, Error> {
        let (mut plan, ordinal) = self.from(&select.from, keeps_order)?;
        let targets = self.targets(&select.projection)?;
        if let Some(selection) = &select.selection {
            self.frame()?.clause = Clause::Where;
            let condition = self.condition("WHERE", selection)?;
            plan = joined(plan, std::mem::take(&mut self.frame()?.pending))?;
            plan = filtered(plan, condition)?;
        }
        self.group_by(&select.group_by, &targets)?;
        let frame = self.frame()?;
        let (pending, series) = (
            std::mem::take(&mut frame.pending),
            std::mem::take(&mut frame.series),
        );
        frame.clause = Clause::Select;
        plan = unnested_in_levels(joined(plan, pending)?, series)?;
        let from = Arc::clone(plan.schema());
        self.named_windows(&select.named_window)?;

        let mut outputs = Vec::with_capacity(targets.len());
        for target in &targets {
            let value = self.target(target)?;
            number::refuse_wide(&value)?;
            outputs.push(value);
        }
        let selected = std::mem::take(&mut self.frame()?.pending);
        let having = self.clause(Clause::Having, "HAVING", select.having.as_ref())?;
        let frame = self.frame()?;
        let having_pending = std::mem::replace(&mut frame.pending, selected);
        let qualify = self.clause(Clause::Qualify, "QUALIFY", select.qualify.as_ref())?;
        let (on, order) = self.order_and_distinct(select, items, &targets, &mut outputs)?;
        let frame = self.frame()?;
        let is_plain = !frame.grouping.is_grouped()
            && having.is_none()
            && select.distinct.is_none()
            && order.is_empty();
        let ordinal = match ordinal {
            _ if !is_plain => None,
            Some(ordinal) if frame.series.is_empty() => Some(ordinal),
            None if keeps_order && select.from.is_empty() => self.number_of_series()?,
            _ => None,
        };
        let order = match ordinal {
            // Nothing else says in which order the rows come.
            Some(ordinal) => {
                outputs.push(Value::new(ordinal, SqlType::Int8));
                let position = outputs.len() - 1;
                let options = ast::OrderByOptions {
                    asc: None,
                    nulls_first: None,
                };
                vec![ByPosition::new(position, options)]
            }
            None => order,
        };
        let bounds = match query {
            Some(query) => Some(self.bounds(query)?),
            None => None,
        };

        let frame = self.frame()?;
        let mut parts = Parts {
            outputs,
            having,
            having_pending,
            qualify,
            pending: std::mem::take(&mut frame.pending),
            series: std::mem::take(&mut frame.series),
            windows: std::mem::take(&mut frame.windows),
        };
        if frame.grouping.is_grouped() || parts.having.is_some() {
            parts = self.parts_behind_groups(parts, &from)?;
            plan = self.build_groups(plan)?;
        }
        let outputs = std::mem::take(&mut parts.outputs);
        plan = computed(plan, parts)?;
        let distinct = select.distinct.as_ref();
        let (plan, columns, order) = self.listed(plan, &targets, outputs, distinct, &on, &order)?;
        let plan = match bounds {
            Some(bounds) => self.within(plan, &order, bounds)?,
            None => plan,
        };
        let shown = columns
            .iter()
            .map(|column| Expr::Column(column.column.clone()))
            .collect::<Vec<_>>();
        let plan = if plan.schema().fields().len() == shown.len() {
            plan
        } else {
            project(plan, shown)?
        };
        Ok(Output { plan, columns })
    }

    /// Binds a condition behind the grouping.
    fn clause(
        &mut self,
        clause: Clause,
        construct: &str,
        condition: Option<&ast::Expr>,
    ) -> Result<Option<Expr>, Error> {
        let Some(condition) = condition else {
            return Ok(None);
        };
        self.frame()?.clause = clause;
        self.condition(construct, condition).map(Some)
    }

    /// The items of a SELECT list, `*` spelled out.
    pub(super) fn targets<'q>(
        &mut self,
        items: &'q [SelectItem],
    ) -> Result<Vec<Target<'q>>, Error> {
        let mut targets = Vec::with_capacity(items.len());
        let known = |column: ScopeColumn| Target {
            name: column.name,
            source: Source::Known(Box::new(Value::typed(column.expr, column.of))),
        };
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) => targets.push(Target {
                    name: column_name(expr),
                    source: Source::Written(expr),
                }),
                SelectItem::ExprWithAlias { expr, alias } => targets.push(Target {
                    name: fold(alias),
                    source: Source::Written(expr),
                }),
                SelectItem::Wildcard(options) => {
                    no_options(options)?;
                    if self.frame()?.relations.is_empty() {
                        return Err(Error::syntax(
                            "SELECT * with no tables specified is not valid",
                        ));
                    }
                    targets.extend(self.everything().into_iter().map(known));
                }
                SelectItem::QualifiedWildcard(kind, options) => {
                    no_options(options)?;
                    match kind {
                        SelectItemQualifiedWildcardKind::ObjectName(name) => {
                            let parts: Vec<ast::Ident> = name
                                .0
                                .iter()
                                .filter_map(|part| part.as_ident().cloned())
                                .collect();
                            targets.extend(self.all_of(&parts)?.into_iter().map(known));
                        }
                        SelectItemQualifiedWildcardKind::Expr(expr) => {
                            self.frame()?.clause = Clause::Select;
                            let row = self.expr(expr)?;
                            let fields = row.fields()?.ok_or_else(|| {
                                Error::new(
                                    ErrorKind::WrongObjectType,
                                    format!("type {} is not composite", row.of.name()),
                                )
                            })?;
                            targets.extend(fields.into_iter().map(|(name, value)| Target {
                                name,
                                source: Source::Known(Box::new(value)),
                            }));
                        }
                    }
                }
                SelectItem::ExprWithAliases { .. } => {
                    return Err(Error::unsupported(
                        "several names for one item are not supported",
                    ));
                }
            }
        }
        Ok(targets)
    }

    /// The value of an item of the list.
    pub(super) fn target(&mut self, target: &Target<'_>) -> Result<Value, Error> {
        match &target.source {
            Source::Written(expr) => self.expr(expr),
            Source::Known(value) => Ok(value.as_ref().clone()),
        }
    }

    /// The positions that DISTINCT ON and ORDER BY mean. What is not in the list is added to it, behind its end.
    fn order_and_distinct(
        &mut self,
        select: &Select,
        items: &[ast::OrderByExpr],
        targets: &[Target<'_>],
        outputs: &mut Vec<Value>,
    ) -> Result<(Vec<usize>, Vec<ByPosition>), Error> {
        self.frame()?.clause = Clause::OrderBy;
        let width = targets.len();
        let mut order: Vec<ByPosition> = Vec::new();
        for item in items {
            for position in self.positions("ORDER BY", &item.expr, targets, outputs)? {
                // What is sorted already is not sorted again.
                if !order.iter().any(|known| known.position == position) {
                    order.push(ByPosition::new(position, item.options));
                }
            }
        }
        let mut on: Vec<usize> = Vec::new();
        match &select.distinct {
            Some(ast::Distinct::On(exprs)) => {
                self.frame()?.clause = Clause::DistinctOn;
                for expr in exprs {
                    for position in self.positions("SELECT DISTINCT ON", expr, targets, outputs)? {
                        if !on.contains(&position) {
                            on.push(position);
                        }
                    }
                }
                let matching = order
                    .iter()
                    .take(on.len())
                    .all(|by| on.contains(&by.position));
                if !matching {
                    return Err(Error::new(
                        ErrorKind::InvalidColumnReference,
                        "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
                    ));
                }
            }
            Some(ast::Distinct::Distinct) => {
                if order.iter().any(|by| by.position >= width) {
                    return Err(Error::new(
                        ErrorKind::InvalidColumnReference,
                        "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
                    ));
                }
            }
            Some(ast::Distinct::All) | None => {}
        }
        Ok((on, order))
    }

    /// The parts over groups.
    fn parts_behind_groups(&mut self, parts: Parts, from: &DFSchemaRef) -> Result<Parts, Error> {
        let mut outputs = Vec::with_capacity(parts.outputs.len());
        for value in parts.outputs {
            let of = value.of;
            outputs.push(Value::typed(self.behind_groups(value.expr, from)?, of));
        }
        let mut condition =
            |expr: Option<Expr>| expr.map(|expr| self.behind_groups(expr, from)).transpose();
        let having = condition(parts.having)?;
        let qualify = condition(parts.qualify)?;
        let having_pending = self.pending_behind_groups(parts.having_pending, from)?;
        let pending = self.pending_behind_groups(parts.pending, from)?;
        let mut series = Vec::with_capacity(parts.series.len());
        for mut one in parts.series {
            one.list = self.behind_groups(one.list, from)?;
            series.push(one);
        }
        let mut windows = Vec::with_capacity(parts.windows.len());
        for (node, column) in parts.windows {
            windows.push((self.behind_groups(node, from)?, column));
        }
        self.check_asked(from)?;
        Ok(Parts {
            outputs,
            having,
            having_pending,
            qualify,
            pending,
            series,
            windows,
        })
    }

    fn pending_behind_groups(
        &mut self,
        pending: Vec<Pending>,
        from: &DFSchemaRef,
    ) -> Result<Vec<Pending>, Error> {
        pending
            .into_iter()
            .map(|mut subquery| {
                // What stands beside the subquery's own columns is behind the groups.
                if let Some(on) = subquery.on.take() {
                    subquery.on = Some(self.behind_groups(on, from)?);
                }
                Ok(subquery)
            })
            .collect()
    }

    /// The plan with the columns of the list, without duplicates and in order; with these columns, and what it is sorted by.
    fn listed(
        &mut self,
        plan: LogicalPlan,
        targets: &[Target<'_>],
        outputs: Vec<Value>,
        distinct: Option<&ast::Distinct>,
        on: &[usize],
        order: &[ByPosition],
    ) -> Result<(LogicalPlan, Vec<OutputColumn>, Vec<Sort>), Error> {
        let qualifier = self.fresh();
        let names = distinct_names(targets.iter().map(|target| target.name.as_str()));
        let schema = Arc::clone(plan.schema());
        let mut exprs = Vec::with_capacity(outputs.len());
        let mut all = Vec::with_capacity(outputs.len());
        let mut columns = Vec::with_capacity(targets.len());
        for (index, value) in outputs.into_iter().enumerate() {
            let name = match names.get(index) {
                Some(name) => name.clone(),
                None => format!("{INTERNAL}sort{index}"),
            };
            let (expr, constant) = match (&value.of, &value.expr) {
                (Type::Of(sql_type), _) => (told(value.expr.clone(), sql_type, &schema)?, None),
                (Type::Unknown, Expr::Literal(literal, _)) if !literal.is_null() => {
                    (value.expr.clone(), Some(value.expr.clone()))
                }
                (Type::Unknown, _) => (null(&SqlType::Text).expr, Some(value.expr.clone())),
                (Type::Row(_), _) => (value.expr.clone(), None),
            };
            let column = Column::new(Some(qualifier.clone()), &name);
            exprs.push(expr.alias_qualified(Some(qualifier.clone()), &name));
            all.push(column.clone());
            if let Some(target) = targets.get(index) {
                columns.push(OutputColumn {
                    name: target.name.clone(),
                    column,
                    of: value.of,
                    constant,
                });
            }
        }
        let plan = project(plan, exprs)?;
        let column = |position: usize| all.get(position).cloned().map(Expr::Column);
        let mut sorts: Vec<Sort> = order
            .iter()
            .filter_map(|by| {
                let column = column(by.position)?;
                Some(Sort::new(column, by.ascending, by.nulls_first))
            })
            .collect();
        let plan = match distinct {
            Some(ast::Distinct::Distinct) => LogicalPlan::Distinct(Distinct::All(Arc::new(plan))),
            Some(ast::Distinct::On(_)) if !on.is_empty() => {
                // What is not sorted by is sorted by last.
                let mut keys: Vec<Expr> = order
                    .iter()
                    .filter(|by| on.contains(&by.position))
                    .filter_map(|by| column(by.position))
                    .collect();
                let mut by_keys = sorts.clone();
                for key in on.iter().filter_map(|position| column(*position)) {
                    if !keys.contains(&key) {
                        by_keys.push(Sort::new(key.clone(), true, false));
                        keys.push(key);
                    }
                }
                let sort = (!sorts.is_empty()).then(|| by_keys.clone());
                if !sorts.is_empty() {
                    sorts = by_keys;
                }
                let shown = all.iter().cloned().map(Expr::Column).collect();
                let rows = made(DistinctOn::try_new(keys, shown, sort, Arc::new(plan)))?;
                LogicalPlan::Distinct(Distinct::On(rows))
            }
            _ => plan,
        };
        let plan = sorted(plan, sorts.clone());
        Ok((plan, columns, sorts))
    }
}

/// The rows with everything that the list needs as columns, and those of them that conditions keep.
fn computed(mut plan: LogicalPlan, parts: Parts) -> Result<LogicalPlan, Error> {
    plan = joined(plan, parts.having_pending)?;
    if let Some(having) = parts.having {
        plan = filtered(plan, having)?;
    }
    let mut stages: HashMap<Column, usize> = HashMap::new();
    for (_, column) in &parts.windows {
        stages.insert(column.clone(), 1);
    }
    for series in &parts.series {
        stages.insert(series.column.clone(), 2);
    }
    let mut waiting: [Vec<Pending>; 3] = Default::default();
    for subquery in parts.pending {
        let stage = stage_of(&subquery, &stages)?;
        for column in subquery.columns() {
            stages.insert(column, stage);
        }
        if let Some(waiting) = waiting.get_mut(stage) {
            waiting.push(subquery);
        }
    }
    let [first, second, last] = waiting;
    plan = over_windows(joined(plan, first)?, parts.windows)?;
    plan = joined(plan, second)?;
    if let Some(qualify) = parts.qualify {
        plan = filtered(plan, qualify)?;
    }
    joined(unnested_in_levels(plan, parts.series)?, last)
}

/// How late a subquery can be joined, which needs columns that there are only at some stage.
fn stage_of(subquery: &Pending, stages: &HashMap<Column, usize>) -> Result<usize, Error> {
    if stages.is_empty() {
        return Ok(0);
    }
    let mut stage = 0;
    for column in subquery.on.iter().flat_map(Expr::column_refs) {
        stage = stage.max(stages.get(column).copied().unwrap_or(0));
    }
    made(subquery.right.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::OuterReferenceColumn(_, column) = part {
                    stage = stage.max(stages.get(column).copied().unwrap_or(0));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    }))?;
    Ok(stage)
}

/// The SELECT that a body is, in parentheses or not.
fn plain_select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select.as_ref()),
        SetExpr::Query(query)
            if query.with.is_none()
                && query.order_by.is_none()
                && query.limit_clause.is_none()
                && query.fetch.is_none()
                && query.pipe_operators.is_empty() =>
        {
            plain_select(&query.body)
        }
        _ => None,
    }
}
