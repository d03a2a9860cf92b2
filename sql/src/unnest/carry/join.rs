//! Joins inside of a subquery: one side has the domain, or both have it and it is one of their keys.

use std::sync::Arc;

use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, Join, JoinConstraint, LogicalPlan, lit};

use super::Carrying;
use crate::unnest::expressions::{broken, case, named, projected, same, told};
use crate::unnest::joins::joined;

/// Which sides have the domain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    Left,
    Right,
    Both,
}

impl Carrying<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<LogicalPlan> {
        if join.null_aware {
            return Err(broken("a bound plan has no joins that know of NULL"));
        }
        let asks = (
            self.asking.contains(&join.left),
            self.asking.contains(&join.right),
        );
        let with = match join.join_type {
            JoinType::Inner => match asks {
                (true, true) => With::Both,
                (false, true) => With::Right,
                _ => With::Left,
            },
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                if asks.1 { With::Both } else { With::Left }
            }
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                if asks.0 {
                    With::Both
                } else {
                    With::Right
                }
            }
            JoinType::Full => With::Both,
        };
        let takes_null = join.null_equality == NullEquality::NullEqualsNull;
        let (mut on, mut conditions) = (Vec::new(), Vec::new());
        for (left, right) in &join.on {
            if !self.asks(left)? && !self.asks(right)? {
                on.push((left.clone(), right.clone()));
                continue;
            }
            let (left, right) = (self.value(left.clone())?, self.value(right.clone())?);
            conditions.push(if takes_null {
                same(left, right)
            } else {
                left.eq(right)
            });
        }
        for conjunct in join
            .filter
            .clone()
            .into_iter()
            .flat_map(split_conjunction_owned)
        {
            conditions.push(self.value(conjunct)?);
        }
        if with == With::Both {
            return self.both(join, on, conditions);
        }
        let (left, right) = if with == With::Left {
            (self.node(&join.left)?, join.right.as_ref().clone())
        } else {
            (join.left.as_ref().clone(), self.node(&join.right)?)
        };
        let null_equality = if on.is_empty() {
            NullEquality::NullEqualsNothing
        } else {
            join.null_equality
        };
        let bare = on.is_empty() && join.join_type != JoinType::Inner;
        let filter = conditions
            .into_iter()
            .reduce(Expr::and)
            .or_else(|| bare.then(|| lit(true)));
        let carried = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            on,
            filter,
            join.join_type,
            JoinConstraint::On,
            null_equality,
            false,
        )?;
        let domain = self.domain.columns();
        behind(domain, LogicalPlan::Join(carried), join)
    }

    /// A join of two sides that both have the domain.
    fn both(
        &mut self,
        join: &Join,
        on: Vec<(Expr, Expr)>,
        mut conditions: Vec<Expr>,
    ) -> Result<LogicalPlan> {
        let left = self.node(&join.left)?;
        let right = self.node(&join.right)?;
        let mut found = Vec::new();
        for _ in &self.domain.named {
            found.push(self.unnesting.name("found"));
        }
        let names: Vec<Column> = found
            .iter()
            .cloned()
            .chain(join.right.schema().columns())
            .collect();
        let items = right
            .schema()
            .columns()
            .into_iter()
            .zip(&names)
            .map(|(column, name)| named(Expr::Column(column), name))
            .collect();
        let right = projected(right, items)?;
        let mut keys: Vec<(Expr, Expr)> = self
            .domain
            .columns()
            .into_iter()
            .zip(found.iter().cloned().map(Expr::Column))
            .collect();
        if join.null_equality == NullEquality::NullEqualsNull {
            keys.extend(on);
        } else {
            conditions.extend(on.into_iter().map(|(left, right)| left.eq(right)));
        }
        let carried = joined(left, right, keys, conditions, join.join_type)?;
        let mut domain = Vec::new();
        for (place, (column, other)) in self.domain.named.iter().zip(&found).enumerate() {
            let value = match join.join_type {
                JoinType::Right
                | JoinType::RightSemi
                | JoinType::RightAnti
                | JoinType::RightMark => Expr::Column(other.clone()),
                JoinType::Full => {
                    // Where both are there they are the same.
                    let (left, right) = (Expr::Column(column.clone()), Expr::Column(other.clone()));
                    let of_either = case(vec![(left.clone().is_not_null(), left)], Some(right));
                    told(of_either, self.domain.plan.schema().field(place))?
                }
                _ => Expr::Column(column.clone()),
            };
            domain.push(named(value, column));
        }
        behind(domain, carried, join)
    }
}

/// The columns of `join` in `carried`, behind those of the domain.
fn behind(mut items: Vec<Expr>, carried: LogicalPlan, join: &Join) -> Result<LogicalPlan> {
    let mut columns = join.schema.columns();
    if matches!(join.join_type, JoinType::LeftMark | JoinType::RightMark) {
        // It may be qualified otherwise.
        let mark = columns.pop();
        let carried_mark = carried.schema().columns().pop();
        let (Some(mark), Some(carried_mark)) = (mark, carried_mark) else {
            return Err(broken("a join that marks rows has a mark"));
        };
        items.extend(columns.into_iter().map(Expr::Column));
        items.push(named(Expr::Column(carried_mark), &mark));
    } else {
        items.extend(columns.into_iter().map(Expr::Column));
    }
    projected(carried, items)
}
