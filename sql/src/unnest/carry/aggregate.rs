//! Aggregates inside of a subquery: they group by the domain, and where there are no rows there is still what an aggregate yields of none.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion::common::{Column, JoinType, Result, ScalarValue};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, GroupingSet, LogicalPlan, Operator, lit,
};

use super::Carrying;
use crate::unnest::expressions::{
    broken, case, named, null_of, of_no_rows, projected, too_complex,
};
use crate::unnest::joins::joined;

/// Sets that GROUPING SETS, ROLLUP and CUBE may stand for.
const SETS_MAX: usize = 4096;

impl Carrying<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<LogicalPlan> {
        if let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() {
            return self.sets(aggregate, sets);
        }
        let input = self.node(&aggregate.input)?;
        let mut calls = Vec::new();
        for call in &aggregate.aggr_expr {
            calls.push(self.resolve(call.clone())?);
        }
        if aggregate.group_expr.is_empty() {
            return self.of_all(aggregate, input, calls, &aggregate.schema.columns());
        }
        let mut groups = self.domain.columns();
        for expr in &aggregate.group_expr {
            groups.push(self.resolve(expr.clone())?);
        }
        Aggregate::try_new(Arc::new(input), groups, calls).map(LogicalPlan::Aggregate)
    }

    /// One group of all rows, of each value of the domain. `columns`: what the results are called.
    fn of_all(
        &mut self,
        aggregate: &Aggregate,
        input: LogicalPlan,
        calls: Vec<Expr>,
        columns: &[Column],
    ) -> Result<LogicalPlan> {
        let width = self.domain.named.len();
        let grouped = Aggregate::try_new(Arc::new(input), self.domain.columns(), calls)?;
        let there = self.unnesting.name("there");
        let (mut found, mut items) = (Vec::new(), Vec::new());
        for (place, column) in grouped.schema.columns().into_iter().enumerate() {
            let name = if place < width {
                let name = self.unnesting.name("found");
                found.push(name.clone());
                name
            } else {
                columns
                    .get(place - width)
                    .cloned()
                    .ok_or_else(|| broken("an aggregate has a column for each call"))?
            };
            items.push(named(Expr::Column(column), &name));
        }
        items.push(named(lit(true), &there));
        let grouped = projected(LogicalPlan::Aggregate(grouped), items)?;
        let keys = self
            .domain
            .columns()
            .into_iter()
            .zip(found.into_iter().map(Expr::Column))
            .collect();
        let domain = self.domain_again()?;
        let all = joined(domain, grouped, keys, Vec::new(), JoinType::Left)?;
        let mut items = self.domain.columns();
        for (column, call) in columns.iter().zip(&aggregate.aggr_expr) {
            let value = Expr::Column(column.clone());
            let default = of_no_rows(call, aggregate.input.schema())?;
            items.push(if default.is_null() {
                value
            } else {
                let made_up = Expr::Column(there.clone()).is_null();
                named(case(vec![(made_up, lit(default))], Some(value)), column)
            });
        }
        projected(all, items)
    }

    /// Grouping sets: each has the domain; the set of nothing has a row for each of its values, whatever there is.
    fn sets(&mut self, aggregate: &Aggregate, sets: &GroupingSet) -> Result<LogicalPlan> {
        let shown: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?
            .into_iter()
            .cloned()
            .collect();
        let (of_nothing, some): (Vec<Vec<Expr>>, Vec<Vec<Expr>>) =
            sets_of(sets)?.into_iter().partition(Vec::is_empty);
        let columns = aggregate.schema.columns();
        let mut parts = Vec::new();
        if !some.is_empty() {
            parts.push(self.sets_of_some(aggregate, &shown, some)?);
        }
        for _ in of_nothing {
            parts.push(self.set_of_nothing(aggregate, shown.len())?);
        }
        self.united(parts, &columns)
    }

    fn sets_of_some(
        &mut self,
        aggregate: &Aggregate,
        shown: &[Expr],
        some: Vec<Vec<Expr>>,
    ) -> Result<LogicalPlan> {
        let input = self.node(&aggregate.input)?;
        // As columns of the input, for the names of what sets group by are those of columns.
        let (mut items, mut names) = (self.domain.columns(), Vec::new());
        for column in aggregate.input.schema().columns() {
            items.push(Expr::Column(column));
        }
        for expr in shown {
            let name = self.unnesting.name("group");
            items.push(named(self.value(expr.clone())?, &name));
            names.push(name);
        }
        let input = projected(input, items)?;
        let place = |expr: &Expr| shown.iter().position(|known| known == expr);
        let mut carried = Vec::new();
        for set in some {
            let mut with_domain = self.domain.columns();
            for expr in &set {
                let name = place(expr).and_then(|place| names.get(place));
                let name = name.ok_or_else(|| broken("a set groups by what is shown"))?;
                with_domain.push(Expr::Column(name.clone()));
            }
            carried.push(with_domain);
        }
        let mut calls = Vec::new();
        for call in &aggregate.aggr_expr {
            calls.push(self.resolve(call.clone())?);
        }
        let group = Expr::GroupingSet(GroupingSet::GroupingSets(carried));
        let order: Vec<Column> = self.domain.named.iter().chain(&names).cloned().collect();
        let grouped = Aggregate::try_new(Arc::new(input), vec![group], calls)?;
        let present: Vec<Column> = grouping_set_to_exprlist(&grouped.group_expr)?
            .into_iter()
            .filter_map(|expr| match expr {
                Expr::Column(column) => Some(column.clone()),
                _ => None,
            })
            .collect();
        let columns = grouped.schema.columns();
        let id = columns
            .get(present.len())
            .cloned()
            .ok_or_else(|| broken("grouping sets have an id"))?;
        let id_type = aggregate.schema.field(shown.len()).data_type();
        let id = grouping_id(
            &id,
            &present,
            &names,
            grouped.schema.field(present.len()).data_type(),
            id_type,
        )?;
        let mut items = Vec::new();
        for column in &order {
            if present.contains(column) {
                items.push(Expr::Column(column.clone()));
            } else {
                // No set that is left groups by it.
                let place = names.iter().position(|name| name == column).unwrap_or(0);
                items.push(named(null_of(aggregate.schema.field(place))?, column));
            }
        }
        items.push(named(id, &self.unnesting.name("grouping")));
        let calls = columns.into_iter().skip(present.len() + 1);
        items.extend(calls.map(Expr::Column));
        let grouped = projected(LogicalPlan::Aggregate(grouped), items)?;
        self.renamed(grouped, &aggregate.schema.columns())
    }

    fn set_of_nothing(&mut self, aggregate: &Aggregate, shown: usize) -> Result<LogicalPlan> {
        let input = self.node(&aggregate.input)?;
        let columns = aggregate.schema.columns();
        let results: Vec<Column> = columns.iter().skip(shown + 1).cloned().collect();
        let mut calls = Vec::new();
        for call in &aggregate.aggr_expr {
            calls.push(self.resolve(call.clone())?);
        }
        let whole = if calls.is_empty() {
            self.domain_again()?
        } else {
            self.of_all(aggregate, input, calls, &results)?
        };
        let mut items = self.domain.columns();
        for (place, column) in columns.iter().take(shown).enumerate() {
            items.push(named(null_of(aggregate.schema.field(place))?, column));
        }
        let id = aggregate.schema.field(shown).data_type();
        let all_left_out = ScalarValue::UInt64(Some(mask(shown)?)).cast_to(id)?;
        if let Some(column) = columns.get(shown) {
            items.push(named(lit(all_left_out), column));
        }
        items.extend(results.into_iter().map(Expr::Column));
        projected(whole, items)
    }
}

/// A number with a bit for each of `count` expressions.
fn mask(count: usize) -> Result<u64> {
    let shift = u32::try_from(count)
        .ok()
        .and_then(|count| 64_u32.checked_sub(count));
    match shift {
        Some(64) => Ok(0),
        Some(shift) => Ok(u64::MAX >> shift),
        None => Err(too_complex("grouping sets are of too many expressions")),
    }
}

/// The id of a grouping over `names` of that over `present`, which begins with the domain that every set has: a bit for each, of the last one the lowest.
fn grouping_id(
    id: &Column,
    present: &[Column],
    names: &[Column],
    from: &DataType,
    to: &DataType,
) -> Result<Expr> {
    let bit = |place: usize, of: usize| {
        let shift = of
            .checked_sub(place + 1)
            .and_then(|shift| u32::try_from(shift).ok());
        shift
            .and_then(|shift| 1_u64.checked_shl(shift))
            .ok_or_else(|| too_complex("grouping sets are of too many expressions"))
    };
    let number = |value: u64, data_type: &DataType| {
        ScalarValue::UInt64(Some(value)).cast_to(data_type).map(lit)
    };
    let operation = |left: Expr, op: Operator, right: Expr| {
        Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
    };
    let mut sum: Option<Expr> = None;
    for (place, name) in names.iter().enumerate() {
        let left_out = bit(place, names.len())?;
        let part = match present.iter().position(|known| known == name) {
            None => number(left_out, to)?,
            Some(found) => {
                let flag = number(bit(found, present.len())?, from)?;
                let masked = operation(Expr::Column(id.clone()), Operator::BitwiseAnd, flag);
                let is_left_out = masked.gt(number(0, from)?);
                case(
                    vec![(is_left_out, number(left_out, to)?)],
                    Some(number(0, to)?),
                )
            }
        };
        sum = Some(match sum {
            None => part,
            Some(sum) => operation(sum, Operator::BitwiseOr, part),
        });
    }
    let none = number(0, to)?;
    Ok(Expr::Cast(Cast::new(
        Box::new(sum.unwrap_or(none)),
        to.clone(),
    )))
}

/// The sets that a grouping is.
pub(crate) fn sets_of(sets: &GroupingSet) -> Result<Vec<Vec<Expr>>> {
    let found = match sets {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(exprs) => (0..=exprs.len())
            .map(|count| exprs.iter().take(count).cloned().collect())
            .collect(),
        GroupingSet::Cube(exprs) => {
            let sets = u32::try_from(exprs.len())
                .ok()
                .and_then(|count| 1_usize.checked_shl(count))
                .filter(|sets| *sets <= SETS_MAX)
                .ok_or_else(|| too_complex("too many grouping sets"))?;
            (0..sets)
                .map(|set| {
                    let chosen = exprs.iter().enumerate();
                    chosen
                        .filter(|(place, _)| set & (1 << place) != 0)
                        .map(|(_, expr)| expr.clone())
                        .collect()
                })
                .collect()
        }
    };
    Ok(found)
}
