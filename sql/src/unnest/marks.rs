//! Marks: whether there is a row for which a condition is true, in the logic of three values.
//!
//! Owns EXISTS, IN, and comparisons with ANY and ALL, as values and as conditions on rows. Must not know what the rows come from.
//!
//! A mark is NULL if there is no row for which the condition is true, and one for which it is unknown. Where it is a condition, NULL is as good as false;
//! where NOT of it is one, rows remain for which there is neither.

use datafusion::common::{Column, DFSchema, JoinType, Result, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit};

use super::attach::Reach;
use super::domain::chance;
use super::expressions::{broken, case, columns_of, filtered, is_volatile, named, projected};
use super::joins::{joined, sides};
use super::{Condition, Grown, Unnesting};

/// Rows, and what must be true of them beside the keys.
type Candidates = (LogicalPlan, Vec<Expr>);

impl Unnesting {
    /// Adds the column of a mark, or keeps the rows for which it is what a condition says.
    pub(super) fn mark(
        &mut self,
        grown: &mut Grown,
        column: &Column,
        reach: &Reach,
        condition: Condition,
    ) -> Result<()> {
        let parts: Vec<Expr> = reach
            .on
            .clone()
            .into_iter()
            .flat_map(split_conjunction_owned)
            .collect();
        let both = grown.plan.schema().join(reach.plan.schema())?;
        let certain: Vec<Candidates> = {
            let mut conditions = reach.conditions.clone();
            conditions.extend(parts.iter().cloned());
            vec![(reach.plan.clone(), conditions)]
        };
        let unknown = if condition == Condition::True {
            Vec::new()
        } else {
            unknown(reach, parts, &both, grown.plan.schema())?
        };
        if !unknown.is_empty() {
            if is_volatile(&reach.plan)? {
                return Err(chance());
            }
            for (plan, _) in &unknown {
                self.repeats(plan)?;
            }
        }
        let mut items = columns_of(&grown.plan);
        let rows = std::mem::take(&mut grown.plan);
        let (plan, value) = match condition {
            Condition::True => {
                let kept = reduced(rows, certain, reach, JoinType::LeftSemi)?;
                (kept, lit(true))
            }
            Condition::False => {
                let kept = reduced(rows, certain, reach, JoinType::LeftAnti)?;
                let kept = reduced(kept, unknown, reach, JoinType::LeftAnti)?;
                (kept, lit(false))
            }
            Condition::None => self.marked(rows, certain, unknown, reach)?,
        };
        items.push(named(value, column));
        grown.plan = projected(plan, items)?;
        Ok(())
    }

    /// The rows with marks beside them, and the value of all.
    fn marked(
        &mut self,
        rows: LogicalPlan,
        certain: Vec<Candidates>,
        unknown: Vec<Candidates>,
        reach: &Reach,
    ) -> Result<(LogicalPlan, Expr)> {
        let mut plan = rows;
        let mut arms = Vec::new();
        let known = certain.into_iter().map(|partners| (partners, Some(true)));
        let others = unknown.into_iter().map(|partners| (partners, None));
        for ((partners, conditions), value) in known.chain(others) {
            let mark = self.name("mark");
            let mut items = columns_of(&plan);
            let keys = reach.keys.clone();
            let joined = joined(plan, partners, keys, conditions, JoinType::LeftMark)?;
            let found = joined.schema().columns().pop();
            let found = found.ok_or_else(|| broken("a join that marks rows has a mark"))?;
            items.push(named(Expr::Column(found), &mark));
            plan = projected(joined, items)?;
            arms.push((Expr::Column(mark), lit(ScalarValue::Boolean(value))));
        }
        if let [(mark, _)] = arms.as_slice() {
            let mark = mark.clone();
            return Ok((plan, mark));
        }
        Ok((plan, case(arms, Some(lit(false)))))
    }
}

/// The rows that have partners, or those that have none among any of these.
fn reduced(
    rows: LogicalPlan,
    partners: Vec<Candidates>,
    reach: &Reach,
    join_type: JoinType,
) -> Result<LogicalPlan> {
    partners
        .into_iter()
        .try_fold(rows, |rows, (plan, conditions)| {
            joined(rows, plan, reach.keys.clone(), conditions, join_type)
        })
}

/// Partners of which the condition is not false; that it is true has been seen to already. None if it is never unknown.
fn unknown(
    reach: &Reach,
    parts: Vec<Expr>,
    both: &DFSchema,
    left: &DFSchema,
) -> Result<Vec<Candidates>> {
    let (nullable, certain): (Vec<Expr>, Vec<Expr>) = parts
        .into_iter()
        .partition(|part| part.nullable(both).unwrap_or(true));
    if nullable.is_empty() {
        return Ok(Vec::new());
    }
    let mut conditions = reach.conditions.clone();
    conditions.extend(certain);
    let right = reach.plan.schema();
    if let [only] = nullable.as_slice()
        && let Some((of_left, of_right)) = sides(only, left, right)?
    {
        let mut partners = Vec::new();
        if of_right.nullable(right.as_ref())? {
            let without = filtered(reach.plan.clone(), [of_right.is_null()])?;
            partners.push((without, conditions.clone()));
        }
        if of_left.nullable(left)? {
            let mut plan = reach.plan.clone();
            if conditions.is_empty() && reach.keys.is_empty() {
                // Whether there is any.
                plan = LogicalPlanBuilder::from(plan).limit(0, Some(1))?.build()?;
            }
            conditions.push(of_left.is_null());
            partners.push((plan, conditions));
        }
        return Ok(partners);
    }
    let not_false = nullable
        .into_iter()
        .map(|part| Expr::IsNotFalse(Box::new(part)));
    conditions.extend(not_false);
    Ok(vec![(reach.plan.clone(), conditions)])
}
