//! What the rows of a subquery become beside the rows that asked.
//!
//! Owns how each kind of dependent join is made of ordinary ones. Must not know how the subquery came not to depend any more ([`super::simple`],
//! [`super::carry`]), nor marks ([`super::marks`]).

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, Result};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, lit};
use flowstone_functions::conditions::may_fail;
use flowstone_functions::keys::ONE_OF_EQUALS;

use super::carry::carry;
use super::domain::{Domain, chance};
use super::expressions::{
    beside, broken, case, columns_in, columns_of, compared, filtered, has_exactly, is_volatile,
    named, projected, references, substituted, told,
};
use super::joins::{inner_side, joined};
use super::shapes::{is_a_row, takes_rows_alone, unordered, what_exists, yields_one_row};
use super::simple::{Pulled, pull};
use super::{Condition, DependentJoin, DependentKind, Grown, Unnesting};
use crate::names::INTERNAL;

/// The rows of a subquery, and which of them go with which of the rows that asked. Expressions are over the columns of both.
pub(super) struct Reach {
    pub(super) plan: LogicalPlan,
    /// What must be the same of the rows that asked and of the plan's; NULL is a value.
    pub(super) keys: Vec<(Expr, Expr)>,
    /// What must be true.
    pub(super) conditions: Vec<Expr>,
    /// The condition of the join that was.
    pub(super) on: Option<Expr>,
    /// The columns that are asked of the subquery.
    shown: Vec<Expr>,
    partners: Partners,
}

/// How many rows there are for one that asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Partners {
    Any,
    OneAtMost,
    /// One, whatever there is: those that the plan lacks are made up.
    MadeUp,
    /// One, and nothing has to be joined.
    Alone,
}

impl Partners {
    /// Whether there is always one.
    const fn is_certain(self) -> bool {
        matches!(self, Self::MadeUp | Self::Alone)
    }
}

impl Unnesting {
    /// Puts what a dependent join adds beside the rows of `grown`, which have the columns of its left side.
    pub(super) fn attach(
        &mut self,
        grown: &mut Grown,
        join: &DependentJoin,
        condition: Condition,
    ) -> Result<()> {
        let exists = matches!(join.kind, DependentKind::Mark { .. }) && join.on.is_none();
        let right = if exists {
            what_exists(&join.right)
        } else {
            unordered(&join.right)
        };
        let left = Arc::clone(grown.plan.schema());
        let mut asked = references(right)?;
        asked.retain(|column| has_exactly(&left, column));
        if join.kind == DependentKind::Inner && !asked.is_empty() && takes_rows_alone(right) {
            return self.each_alone(grown, join, right);
        }
        if !asked.is_empty() && is_volatile(right)? {
            return Err(chance());
        }
        let pulled = self.pulled(grown, join, right, asked)?;
        let reach = self.reach(pulled, join, right, &left)?;
        match &join.kind {
            DependentKind::Inner => inner(grown, join, reach),
            DependentKind::Left => self.left(grown, join, reach),
            DependentKind::Mark { column } if reach.partners.is_certain() => {
                certain(grown, column, reach, condition)
            }
            DependentKind::Mark { column } => self.mark(grown, column, &reach, condition),
            DependentKind::Single { value, several } => {
                self.single(grown, join, reach, (value, several))
            }
        }
    }

    /// An inner join to what is made of each row that asks alone.
    fn each_alone(
        &mut self,
        grown: &mut Grown,
        join: &DependentJoin,
        right: &LogicalPlan,
    ) -> Result<()> {
        let rows = Domain::of_rows(self, std::mem::take(&mut grown.plan))?;
        let carried = carry(self, &rows, right)?;
        let inside = |column: &Column| rows.inside(column);
        let on = match &join.on {
            None => None,
            Some(on) => Some(substituted(on.clone(), &inside)?),
        };
        let items = join.schema.columns().into_iter().map(|column| {
            let value = inside(&column).unwrap_or_else(|| Expr::Column(column.clone()));
            named(value, &column)
        });
        grown.plan = projected(filtered(carried, on)?, items.collect())?;
        Ok(())
    }

    /// The subquery as rows that do not depend on those around it.
    fn pulled(
        &mut self,
        grown: &mut Grown,
        join: &DependentJoin,
        right: &LogicalPlan,
        asked: Vec<Column>,
    ) -> Result<Pulled> {
        if asked.is_empty() {
            return Ok(Pulled::plain(right));
        }
        if let Some(pulled) = pull(self, right, &asked)?
            && suits(&pulled, join, right)?
        {
            return Ok(pulled);
        }
        let domain = Domain::of(self, grown, asked)?;
        let plan = carry(self, &domain, right)?;
        let inside = domain.columns();
        Ok(Pulled {
            plan,
            keys: domain.outside.into_iter().zip(inside).collect(),
            conditions: Vec::new(),
            shown: columns_of(right),
            there: None,
        })
    }

    /// The same with what is needed of the plan under names that nothing else has.
    fn reach(
        &mut self,
        mut pulled: Pulled,
        join: &DependentJoin,
        right: &LogicalPlan,
        left: &DFSchema,
    ) -> Result<Reach> {
        let on = match &join.on {
            None => None,
            Some(on) => Some(over_both(on.clone(), right, &pulled.shown, left)?),
        };
        match join.kind {
            DependentKind::Mark { .. } => pulled.shown.clear(),
            DependentKind::Single { .. } => pulled.shown.truncate(1),
            DependentKind::Inner | DependentKind::Left => {}
        }
        let mut needed = Vec::new();
        let exprs = pulled.conditions.iter().chain(&pulled.shown).chain(&on);
        for expr in exprs.chain(pulled.keys.iter().map(|(_, inner)| inner)) {
            columns_in(expr, &mut needed)?;
        }
        let is_alone = needed.is_empty() && pulled.conditions.is_empty() && pulled.keys.is_empty();
        let partners = if is_alone && is_a_row(&pulled.plan) {
            Partners::Alone
        } else if pulled.there.is_some() {
            Partners::MadeUp
        } else if yields_one_row(right) {
            Partners::OneAtMost
        } else {
            Partners::Any
        };
        let table = self.relation("right");
        let renamed: Vec<(Column, Column)> = needed
            .into_iter()
            .enumerate()
            .map(|(place, column)| {
                let name = Column::new(Some(table.clone()), format!("{INTERNAL}c{place}"));
                (column, name)
            })
            .collect();
        let mut items: Vec<Expr> = renamed
            .iter()
            .map(|(column, name)| named(Expr::Column(column.clone()), name))
            .collect();
        if items.is_empty() {
            items.push(named(
                lit(true),
                &Column::new(Some(table), format!("{INTERNAL}row")),
            ));
        }
        let find = |column: &Column| {
            let found = renamed.iter().find(|(known, _)| known == column);
            found.map(|(_, name)| Expr::Column(name.clone()))
        };
        let settled = |expr: Expr| beside(substituted(expr, &find)?, left);
        let all = |exprs: Vec<Expr>| exprs.into_iter().map(settled).collect::<Result<Vec<_>>>();
        let mut keys = Vec::new();
        for (outer, inner) in pulled.keys {
            keys.push((outer, settled(inner)?));
        }
        Ok(Reach {
            plan: projected(pulled.plan, items)?,
            keys,
            conditions: all(pulled.conditions)?,
            on: on.map(settled).transpose()?,
            shown: all(pulled.shown)?,
            partners,
        })
    }

    fn left(&mut self, grown: &mut Grown, join: &DependentJoin, reach: Reach) -> Result<()> {
        let mut items = columns_of(&grown.plan);
        let rows = std::mem::take(&mut grown.plan);
        let Reach {
            plan,
            keys,
            mut conditions,
            on,
            shown,
            partners,
        } = reach;
        // What says that there is a row, if a value has to be asked for it.
        let (plan, there) = match partners {
            Partners::Alone => (rows, on),
            Partners::MadeUp => (joined(rows, plan, keys, conditions, JoinType::Left)?, on),
            Partners::Any | Partners::OneAtMost => {
                conditions.extend(on);
                let (plan, there) = self.with_presence(plan)?;
                let plan = joined(rows, plan, keys, conditions, JoinType::Left)?;
                (plan, Some(Expr::Column(there).is_not_null()))
            }
        };
        let width = items.len();
        let names = join_columns(join, width);
        let fields = join.schema.fields();
        for (place, (value, name)) in shown.into_iter().zip(&names).enumerate() {
            let is_column = !partners.is_certain() && matches!(value, Expr::Column(_));
            let value = match (&there, fields.get(width + place)) {
                (Some(there), Some(field)) if !is_column || is_of_left(&value, &items) => {
                    told(case(vec![(there.clone(), value)], None), field)?
                }
                _ => value,
            };
            items.push(named(value, name));
        }
        grown.plan = projected(plan, items)?;
        Ok(())
    }

    /// The plan with one more column, which is true.
    fn with_presence(&mut self, plan: LogicalPlan) -> Result<(LogicalPlan, Column)> {
        let there = self.name("there");
        let mut items = columns_of(&plan);
        items.push(named(lit(true), &there));
        Ok((projected(plan, items)?, there))
    }

    fn single(
        &mut self,
        grown: &mut Grown,
        join: &DependentJoin,
        reach: Reach,
        (value_name, several_name): (&Column, &Column),
    ) -> Result<()> {
        let mut items = columns_of(&grown.plan);
        let rows = std::mem::take(&mut grown.plan);
        let fields = join.schema.fields();
        let field = fields.get(items.len());
        let field = field.ok_or_else(|| broken("a value has a column"))?;
        let Reach {
            plan,
            keys,
            mut conditions,
            on,
            shown,
            partners,
        } = reach;
        let value = shown.into_iter().next();
        let value = value.ok_or_else(|| broken("a subquery in place of a value has a column"))?;
        let (plan, value, several) = match partners {
            Partners::Alone | Partners::MadeUp => {
                let plan = if partners == Partners::Alone {
                    rows
                } else {
                    joined(rows, plan, keys, conditions, JoinType::Left)?
                };
                let value = match on {
                    None => value,
                    Some(on) => told(case(vec![(on, value)], None), field)?,
                };
                (plan, value, lit(false))
            }
            Partners::OneAtMost => {
                conditions.extend(on);
                let (plan, there) = self.with_presence(plan)?;
                let plan = joined(rows, plan, keys, conditions, JoinType::Left)?;
                let value = if matches!(value, Expr::Column(_)) && !is_of_left(&value, &items) {
                    value
                } else {
                    let is_there = Expr::Column(there).is_not_null();
                    told(case(vec![(is_there, value)], None), field)?
                };
                (plan, value, lit(false))
            }
            Partners::Any => {
                if on.is_some() {
                    return Err(broken("a subquery in place of a value has no condition"));
                }
                self.counted(rows, plan, keys, conditions, value)?
            }
        };
        items.push(named(value, value_name));
        items.push(named(several, several_name));
        grown.plan = projected(plan, items)?;
        Ok(())
    }

    /// The rows that asked with one of the values there are for each, and whether there are several.
    fn counted(
        &mut self,
        rows: LogicalPlan,
        plan: LogicalPlan,
        keys: Vec<(Expr, Expr)>,
        conditions: Vec<Expr>,
        value: Expr,
    ) -> Result<(LogicalPlan, Expr, Expr)> {
        let mut groups = Vec::new();
        let mut group = |unnesting: &mut Self, inner: Expr| {
            let name = unnesting.name("key");
            groups.push(named(inner, &name));
            Expr::Column(name)
        };
        let (mut new_keys, mut new_conditions) = (Vec::new(), Vec::new());
        for (outer, inner) in keys {
            new_keys.push((outer, group(self, inner)));
        }
        for condition in conditions {
            let sides = inner_side(&condition, plan.schema())?;
            let (outer, op, inner) =
                sides.ok_or_else(|| broken("values are counted for each of their keys"))?;
            new_conditions.push(compared(outer, op, group(self, inner)));
        }
        let one_of = flowstone_functions::registry()
            .aggregate(ONE_OF_EQUALS)
            .ok_or_else(|| broken("no function one_of_equals"))?;
        let (number, one) = (self.name("rows"), self.name("one"));
        let calls = vec![
            named(count(lit(1_i64)), &number),
            named(one_of.call(vec![value]), &one),
        ];
        let join_type = if groups.is_empty() {
            // There is one group.
            JoinType::Inner
        } else {
            JoinType::Left
        };
        let counted = Aggregate::try_new(Arc::new(plan), groups, calls)?;
        let counted = LogicalPlan::Aggregate(counted);
        let plan = joined(rows, counted, new_keys, new_conditions, join_type)?;
        let several = Expr::IsTrue(Box::new(Expr::Column(number).gt(lit(1_i64))));
        Ok((plan, Expr::Column(one), several))
    }
}

fn inner(grown: &mut Grown, join: &DependentJoin, reach: Reach) -> Result<()> {
    let mut items = columns_of(&grown.plan);
    let rows = std::mem::take(&mut grown.plan);
    let Reach {
        plan,
        keys,
        mut conditions,
        on,
        shown,
        partners,
    } = reach;
    let plan = match partners {
        Partners::Alone => filtered(rows, on)?,
        Partners::MadeUp => filtered(joined(rows, plan, keys, conditions, JoinType::Left)?, on)?,
        Partners::Any | Partners::OneAtMost => {
            conditions.extend(on);
            joined(rows, plan, keys, conditions, JoinType::Inner)?
        }
    };
    let names = join_columns(join, items.len());
    items.extend(
        shown
            .into_iter()
            .zip(&names)
            .map(|(value, name)| named(value, name)),
    );
    grown.plan = projected(plan, items)?;
    Ok(())
}

/// A mark where there is always one row: it is what the condition says of it.
fn certain(grown: &mut Grown, column: &Column, reach: Reach, condition: Condition) -> Result<()> {
    let mut items = columns_of(&grown.plan);
    let rows = std::mem::take(&mut grown.plan);
    let plan = match (&reach.on, reach.partners) {
        (Some(_), Partners::MadeUp) => joined(
            rows,
            reach.plan,
            reach.keys,
            reach.conditions,
            JoinType::Left,
        )?,
        _ => rows,
    };
    let value = reach.on.unwrap_or_else(|| lit(true));
    let (plan, value) = match condition {
        Condition::None => (plan, value),
        Condition::True => (filtered(plan, [value])?, lit(true)),
        Condition::False => (filtered(plan, [Expr::Not(Box::new(value))])?, lit(false)),
    };
    items.push(named(value, column));
    grown.plan = projected(plan, items)?;
    Ok(())
}

/// Whether what can be taken up is enough for a join.
fn suits(pulled: &Pulled, join: &DependentJoin, right: &LogicalPlan) -> Result<bool> {
    if let Some(on) = &join.on
        && !pulled.conditions.is_empty()
        && pulled.there.is_none()
    {
        // What may fail would be evaluated beside the conditions, and not behind them.
        let both = join.left.schema().join(right.schema())?;
        if may_fail(on, &both)? {
            return Ok(false);
        }
        for value in &pulled.shown {
            if may_fail(value, pulled.plan.schema())? {
                return Ok(false);
            }
        }
    }
    if !matches!(join.kind, DependentKind::Single { .. }) {
        return Ok(true);
    }
    if pulled.there.is_some() || yields_one_row(right) {
        return Ok(true);
    }
    // Values are counted for all keys there are.
    let Some(Expr::Column(_)) = pulled.shown.first() else {
        return Ok(false);
    };
    for condition in &pulled.conditions {
        if may_fail(condition, pulled.plan.schema())? {
            return Ok(false);
        }
    }
    Ok(pulled.equalities()?.is_some())
}

/// A condition over both sides, with what is shown in place of the columns of the right, and references to those of the left.
fn over_both(on: Expr, right: &LogicalPlan, shown: &[Expr], left: &DFSchema) -> Result<Expr> {
    let columns = right.schema().columns();
    on.transform_up(|part| {
        let Expr::Column(column) = &part else {
            return Ok(Transformed::no(part));
        };
        if let Some(place) = columns.iter().position(|known| known == column) {
            let value = shown.get(place).cloned();
            return Ok(value.map_or_else(|| Transformed::no(part), Transformed::yes));
        }
        if !has_exactly(left, column) {
            return Ok(Transformed::no(part));
        }
        let (_, field) = left.qualified_field_from_column(column)?;
        let outer = Expr::OuterReferenceColumn(Arc::clone(field), column.clone());
        Ok(Transformed::yes(outer))
    })
    .map(|transformed| transformed.data)
}

/// The columns of a dependent join behind those of its left side.
fn join_columns(join: &DependentJoin, width: usize) -> Vec<Column> {
    join.schema.columns().into_iter().skip(width).collect()
}

fn is_of_left(value: &Expr, left: &[Expr]) -> bool {
    left.contains(value)
}
