//! What can be taken up to the join without a domain.
//!
//! Owns one question: whether a subquery is rows that do not depend on the rows around it, of which some are chosen by conditions, and from which values are
//! computed, both also of the rows around it. Conditions go up through filters, select lists, joins that keep the rows they are on, and through groupings and
//! DISTINCT if they are equalities, whose inner sides become keys. Must not know what becomes of the rows. Called by [`super::attach`].
//!
//! Invariants. What may fail is not evaluated below a condition that was taken up. `None` means that the domain is needed, never that there is an error.

use std::sync::Arc;

use datafusion::common::{Column, NullEquality, Result};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprSchemable, Join, JoinConstraint, JoinType,
    LogicalPlan, Operator, Projection, Sort, SortExpr, lit,
};
use flowstone_functions::conditions::may_fail;

use super::Unnesting;
use super::domain::Asking;
use super::expressions::{
    asks, case, columns_in, columns_of, compared, equal_is_same, filtered, named, of_no_rows,
    projected, same, size, substituted, with_stack,
};

/// The parts that an expression may have which is put together of those of several select lists.
const PARTS_MAX: usize = 1000;

/// Rows, and equalities with names for their inner sides.
type Keyed = (Pulled, Vec<(Equality, Column)>);

/// Rows that do not depend on the rows around them, and how they go with these. What is asked of the rows around is an outer reference here.
pub(super) struct Pulled {
    pub(super) plan: LogicalPlan,
    /// An expression over the rows around, by its columns, and one over the plan's which must be the same; NULL is a value.
    pub(super) keys: Vec<(Expr, Expr)>,
    /// What must be true.
    pub(super) conditions: Vec<Expr>,
    /// The columns of the subquery.
    pub(super) shown: Vec<Expr>,
    /// If there is one row for every row around: a column that is NULL where the plan has none and the values are those of no rows.
    pub(super) there: Option<Column>,
}

impl Pulled {
    /// A plan that asks for nothing.
    pub(super) fn plain(plan: &LogicalPlan) -> Self {
        Self {
            shown: columns_of(plan),
            plan: plan.clone(),
            keys: Vec::new(),
            conditions: Vec::new(),
            there: None,
        }
    }

    /// The conditions as equalities of something of the plan and something of the rows around it, if they all are such.
    pub(super) fn equalities(&self) -> Result<Option<Vec<Equality>>> {
        let mut found = Vec::new();
        for condition in &self.conditions {
            match self.equality(condition)? {
                Some(equality) => found.push(equality),
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    fn equality(&self, condition: &Expr) -> Result<Option<Equality>> {
        let Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::Eq | Operator::IsNotDistinctFrom),
            right,
        }) = condition
        else {
            return Ok(None);
        };
        for (inner, outer) in [(left, right), (right, left)] {
            let mut columns = Vec::new();
            columns_in(inner, &mut columns)?;
            if columns.is_empty() || inner.contains_outer() || outer.any_column_refs() {
                continue;
            }
            // It becomes a column for all rows there are.
            let schema = self.plan.schema();
            let (_, field) = inner.to_field(schema.as_ref())?;
            if equal_is_same(&field) && !may_fail(inner, schema)? {
                return Ok(Some(Equality {
                    inner: inner.as_ref().clone(),
                    op: *op,
                    outer: outer.as_ref().clone(),
                }));
            }
        }
        Ok(None)
    }
}

/// That something of a plan is equal to something of the rows around it.
pub(super) struct Equality {
    inner: Expr,
    /// `=` or `IS NOT DISTINCT FROM`.
    op: Operator,
    outer: Expr,
}

/// The subquery as rows that do not depend on those around it; `None` if that is not seen.
pub(super) fn pull(
    unnesting: &mut Unnesting,
    plan: &LogicalPlan,
    asked: &[Column],
) -> Result<Option<Pulled>> {
    let mut asking = Asking::default();
    asking.add(plan, asked, &[])?;
    Pulling {
        unnesting,
        asked,
        asking,
    }
    .node(plan)
}

struct Pulling<'a> {
    unnesting: &'a mut Unnesting,
    asked: &'a [Column],
    asking: Asking,
}

impl Pulling<'_> {
    fn node(&mut self, plan: &LogicalPlan) -> Result<Option<Pulled>> {
        if !self.asking.contains(plan) {
            return Ok(Some(Pulled::plain(plan)));
        }
        self.unnesting.enter()?;
        let pulled = with_stack(plan, || self.operator(plan));
        self.unnesting.leave();
        pulled
    }

    fn operator(&mut self, plan: &LogicalPlan) -> Result<Option<Pulled>> {
        match plan {
            LogicalPlan::Filter(filter) => self.filter(&filter.predicate, &filter.input),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.sort(sort),
            _ => Ok(None),
        }
    }

    fn filter(&mut self, predicate: &Expr, input: &LogicalPlan) -> Result<Option<Pulled>> {
        let Some(mut pulled) = self.node(input)? else {
            return Ok(None);
        };
        if pulled.there.is_some() {
            return Ok(None);
        }
        let columns = input.schema().columns();
        let mut kept = Vec::new();
        for conjunct in split_conjunction_owned(predicate.clone()) {
            let Some(conjunct) = over(conjunct, &columns, &pulled.shown)? else {
                return Ok(None);
            };
            let later = !pulled.conditions.is_empty() && may_fail(&conjunct, pulled.plan.schema())?;
            if later || asks(&conjunct, self.asked)? {
                pulled.conditions.push(conjunct);
            } else {
                kept.push(conjunct);
            }
        }
        pulled.plan = filtered(pulled.plan, kept)?;
        Ok(Some(pulled))
    }

    fn projection(&mut self, projection: &Projection) -> Result<Option<Pulled>> {
        let Some(pulled) = self.node(&projection.input)? else {
            return Ok(None);
        };
        let columns = projection.input.schema().columns();
        let mut exprs = Vec::new();
        for expr in &projection.expr {
            match over(expr.clone(), &columns, &pulled.shown)? {
                Some(expr) => exprs.push(expr),
                None => return Ok(None),
            }
        }
        self.shown_as(pulled, exprs, projection.schema.columns())
            .map(Some)
    }

    /// What a side of an operator is, with the columns that it shows where they do not ask for anything.
    fn side(&mut self, plan: &LogicalPlan) -> Result<Option<Pulled>> {
        if !self.asking.contains(plan) {
            return Ok(Some(Pulled::plain(plan)));
        }
        match self.node(plan)? {
            Some(mut pulled) if pulled.there.is_none() => {
                let shown = std::mem::take(&mut pulled.shown);
                self.shown_as(pulled, shown, plan.schema().columns())
                    .map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The same rows with a column for every expression that can be evaluated below the join, and for what the others and the conditions need.
    fn shown_as(&mut self, pulled: Pulled, exprs: Vec<Expr>, names: Vec<Column>) -> Result<Pulled> {
        let (mut items, mut shown, mut needed) = (Vec::new(), Vec::new(), Vec::new());
        for (expr, name) in exprs.into_iter().zip(names) {
            let later = pulled.there.is_some()
                || asks(&expr, self.asked)?
                || (!pulled.conditions.is_empty() && may_fail(&expr, pulled.plan.schema())?);
            if later {
                columns_in(&expr, &mut needed)?;
                shown.push((expr, true));
            } else {
                items.push(named(expr, &name));
                shown.push((Expr::Column(name), false));
            }
        }
        for condition in &pulled.conditions {
            columns_in(condition, &mut needed)?;
        }
        for (_, inner) in &pulled.keys {
            columns_in(inner, &mut needed)?;
        }
        needed.extend(pulled.there.clone());
        let mut kept: Vec<(Column, Column)> = Vec::new();
        for column in needed {
            if kept.iter().all(|(known, _)| *known != column) {
                let name = self.unnesting.name("kept");
                items.push(named(Expr::Column(column.clone()), &name));
                kept.push((column, name));
            }
        }
        if items.is_empty() {
            items.push(named(lit(true), &self.unnesting.name("row")));
        }
        let find = |column: &Column| {
            let found = kept.iter().find(|(known, _)| known == column);
            found.map(|(_, name)| Expr::Column(name.clone()))
        };
        let shown = shown.into_iter().map(|(expr, later)| {
            // What is a column now is not of the rows below.
            if later {
                substituted(expr, &find)
            } else {
                Ok(expr)
            }
        });
        let conditions = pulled.conditions.into_iter();
        let keys = pulled.keys.into_iter();
        Ok(Pulled {
            plan: projected(pulled.plan, items)?,
            keys: keys
                .map(|(outer, inner)| Ok((outer, substituted(inner, &find)?)))
                .collect::<Result<_>>()?,
            conditions: conditions
                .map(|condition| substituted(condition, &find))
                .collect::<Result<_>>()?,
            shown: shown.collect::<Result<_>>()?,
            there: pulled.there.map(|there| {
                let found = kept.iter().find(|(known, _)| *known == there);
                found.map_or(there, |(_, name)| name.clone())
            }),
        })
    }

    fn join(&mut self, join: &Join) -> Result<Option<Pulled>> {
        let inner = join.join_type == JoinType::Inner;
        let keeps_left = matches!(
            join.join_type,
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
        );
        let possible = inner || (keeps_left && !self.asking.contains(&join.right));
        if !possible || join.null_aware {
            return Ok(None);
        }
        let (Some(left), Some(right)) = (self.side(&join.left)?, self.side(&join.right)?) else {
            return Ok(None);
        };
        let mut columns = join.left.schema().columns();
        columns.extend(join.right.schema().columns());
        let mut shown = left.shown.clone();
        shown.extend(right.shown.iter().cloned());
        let mut conditions = left.conditions;
        conditions.extend(right.conditions);
        let below = conditions.len();
        // What may fail waits for the conditions on a side.
        let both = left.plan.schema().join(right.plan.schema()).ok();
        let waits = |expr: &Expr| match &both {
            Some(both) if below > 0 => may_fail(expr, both),
            _ => Ok(below > 0),
        };
        let takes_null = join.null_equality == NullEquality::NullEqualsNull;
        let (mut on, mut filter) = (Vec::new(), Vec::new());
        for (left, right) in &join.on {
            let pair = (
                over(left.clone(), &columns, &shown)?,
                over(right.clone(), &columns, &shown)?,
            );
            let (Some(left), Some(right)) = pair else {
                return Ok(None);
            };
            let later = waits(&left)? || waits(&right)?;
            if !later && !asks(&left, self.asked)? && !asks(&right, self.asked)? {
                on.push((left, right));
            } else if takes_null {
                conditions.push(same(left, right));
            } else {
                conditions.push(left.eq(right));
            }
        }
        for conjunct in join
            .filter
            .clone()
            .into_iter()
            .flat_map(split_conjunction_owned)
        {
            let Some(conjunct) = over(conjunct, &columns, &shown)? else {
                return Ok(None);
            };
            if waits(&conjunct)? || asks(&conjunct, self.asked)? {
                conditions.push(conjunct);
            } else {
                filter.push(conjunct);
            }
        }
        if !inner && conditions.len() > below {
            return Ok(None);
        }
        let null_equality = if on.is_empty() {
            NullEquality::NullEqualsNothing
        } else {
            join.null_equality
        };
        let joined = Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            on,
            filter
                .into_iter()
                .reduce(Expr::and)
                .or_else(|| (!inner).then(|| lit(true))),
            join.join_type,
            JoinConstraint::On,
            null_equality,
            false,
        )?;
        match join.join_type {
            JoinType::Inner | JoinType::Left => {}
            JoinType::LeftMark => {
                shown = left.shown;
                shown.extend(joined.schema.columns().pop().map(Expr::Column));
            }
            _ => shown = left.shown,
        }
        Ok(Some(Pulled {
            plan: LogicalPlan::Join(joined),
            keys: Vec::new(),
            conditions,
            shown,
            there: None,
        }))
    }

    /// The rows of an input whose conditions are all equalities; these, with names for their inner sides.
    fn keyed(&mut self, input: &LogicalPlan) -> Result<Option<Keyed>> {
        let Some(pulled) = self.side(input)? else {
            return Ok(None);
        };
        let Some(equalities) = pulled.equalities()? else {
            return Ok(None);
        };
        let keys = equalities
            .into_iter()
            .map(|equality| (equality, self.unnesting.name("key")))
            .collect();
        Ok(Some((pulled, keys)))
    }

    fn distinct(&mut self, input: &LogicalPlan) -> Result<Option<Pulled>> {
        let Some((pulled, keys)) = self.keyed(input)? else {
            return Ok(None);
        };
        let plain = |expr: &Expr| matches!(expr, Expr::Column(_));
        if !pulled.shown.iter().all(plain) {
            return Ok(None);
        }
        let mut items = pulled.shown.clone();
        let mut conditions = Vec::new();
        for (Equality { inner, op, outer }, name) in keys {
            items.push(named(inner, &name));
            conditions.push(compared(Expr::Column(name), op, outer));
        }
        let plan = projected(pulled.plan, items)?;
        Ok(Some(Pulled {
            plan: LogicalPlan::Distinct(Distinct::All(Arc::new(plan))),
            conditions,
            ..pulled
        }))
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Option<Pulled>> {
        let in_sets = |expr: &Expr| matches!(expr, Expr::GroupingSet(_));
        if aggregate.group_expr.iter().any(in_sets) {
            return Ok(None);
        }
        let Some((pulled, keys)) = self.keyed(&aggregate.input)? else {
            return Ok(None);
        };
        let of_all = aggregate.group_expr.is_empty();
        if of_all && keys.is_empty() {
            return Ok(None);
        }
        let columns = aggregate.input.schema().columns();
        for expr in aggregate.group_expr.iter().chain(&aggregate.aggr_expr) {
            // It is evaluated for keys as well that nobody asks for.
            let settled = over(expr.clone(), &columns, &pulled.shown)?;
            if settled.as_ref() != Some(expr)
                || asks(expr, self.asked)?
                || may_fail(expr, aggregate.input.schema())?
            {
                return Ok(None);
            }
        }
        let mut groups = aggregate.group_expr.clone();
        let mut conditions = Vec::new();
        for (Equality { inner, op, outer }, name) in keys {
            groups.push(named(inner, &name));
            conditions.push(compared(Expr::Column(name), op, outer));
        }
        let calls = aggregate.aggr_expr.clone();
        let grouped = Aggregate::try_new(Arc::new(pulled.plan), groups, calls)?;
        let grouped = LogicalPlan::Aggregate(grouped);
        let shown = aggregate.schema.columns();
        if !of_all {
            return Ok(Some(Pulled {
                plan: grouped,
                keys: Vec::new(),
                conditions,
                shown: shown.into_iter().map(Expr::Column).collect(),
                there: None,
            }));
        }
        let there = self.unnesting.name("there");
        let mut values = Vec::new();
        for (column, call) in shown.into_iter().zip(&aggregate.aggr_expr) {
            let default = of_no_rows(call, aggregate.input.schema())?;
            let value = Expr::Column(column);
            values.push(if default.is_null() {
                value
            } else {
                let made_up = Expr::Column(there.clone()).is_null();
                case(vec![(made_up, lit(default))], Some(value))
            });
        }
        let mut items = columns_of(&grouped);
        items.push(named(lit(true), &there));
        Ok(Some(Pulled {
            plan: projected(grouped, items)?,
            keys: Vec::new(),
            conditions,
            shown: values,
            there: Some(there),
        }))
    }

    /// The order of rows stays for what takes them one by one.
    fn sort(&mut self, sort: &Sort) -> Result<Option<Pulled>> {
        let Some(mut pulled) = self.node(&sort.input)? else {
            return Ok(None);
        };
        if pulled.there.is_some() {
            return Ok(Some(pulled));
        }
        let columns = sort.input.schema().columns();
        let mut order = Vec::new();
        for key in &sort.expr {
            match over(key.expr.clone(), &columns, &pulled.shown)? {
                Some(expr)
                    if !asks(&expr, self.asked)? && !may_fail(&expr, pulled.plan.schema())? =>
                {
                    order.push(SortExpr::new(expr, key.asc, key.nulls_first));
                }
                _ => return Ok(None),
            }
        }
        pulled.plan = LogicalPlan::Sort(Sort {
            expr: order,
            input: Arc::new(pulled.plan),
            fetch: None,
        });
        Ok(Some(pulled))
    }
}

/// The expression with what is shown in place of columns; `None` if it would become too large.
pub(super) fn over(expr: Expr, columns: &[Column], shown: &[Expr]) -> Result<Option<Expr>> {
    let is_plain =
        |(column, shown): (&Column, &Expr)| matches!(shown, Expr::Column(shown) if shown == column);
    if columns.iter().zip(shown).all(is_plain) {
        return Ok(Some(expr));
    }
    let expr = substituted(expr, &|column| {
        let place = columns.iter().position(|known| known == column)?;
        shown.get(place).cloned()
    })?;
    Ok((size(&expr)? <= PARTS_MAX).then_some(expr))
}
