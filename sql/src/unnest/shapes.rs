//! What can be seen on a subquery without changing it.
//!
//! Must not know joins nor domains. Called by [`super::attach`] and [`super::carry`].

use datafusion::logical_expr::{Distinct, FetchType, LogicalPlan, SkipType};

/// Whether a plan is the row without columns.
pub(super) fn is_one_row(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::EmptyRelation(empty)
        if empty.produce_one_row && empty.schema.fields().is_empty())
}

/// Whether a plan is always exactly one row, made of constants.
pub(super) fn is_a_row(mut plan: &LogicalPlan) -> bool {
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) => projection.input.as_ref(),
            LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
            other => return is_one_row(other),
        };
    }
}

/// Whether a plan does something with each row of a domain alone, so that equal rows can be several.
pub(super) fn takes_rows_alone(mut plan: &LogicalPlan) -> bool {
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) => projection.input.as_ref(),
            LogicalPlan::Filter(filter) => filter.input.as_ref(),
            LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
            LogicalPlan::Unnest(unnest) => unnest.input.as_ref(),
            other => return is_one_row(other),
        };
    }
}

/// A plan without what changes nothing about whether it has rows.
pub(super) fn what_exists(mut plan: &LogicalPlan) -> &LogicalPlan {
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) => projection.input.as_ref(),
            LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
            LogicalPlan::Distinct(Distinct::All(input)) => input.as_ref(),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => sort.input.as_ref(),
            LogicalPlan::Limit(limit)
                if matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)))
                    && matches!(limit.get_fetch_type(), Ok(FetchType::Literal(rows)) if rows != Some(0)) =>
            {
                limit.input.as_ref()
            }
            _ => return plan,
        };
    }
}

/// A plan without the order of its rows.
pub(super) fn unordered(mut plan: &LogicalPlan) -> &LogicalPlan {
    while let LogicalPlan::Sort(sort) = plan
        && sort.fetch.is_none()
    {
        plan = sort.input.as_ref();
    }
    plan
}

/// Whether a subquery has one row at most for each row around it, whatever there is.
pub(super) fn yields_one_row(mut plan: &LogicalPlan) -> bool {
    loop {
        plan = match plan {
            LogicalPlan::Aggregate(aggregate) => return aggregate.group_expr.is_empty(),
            LogicalPlan::Limit(limit)
                if matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(0 | 1)))) =>
            {
                return true;
            }
            LogicalPlan::Sort(sort) if sort.fetch == Some(1) => return true,
            LogicalPlan::Values(values) => return values.values.len() <= 1,
            LogicalPlan::EmptyRelation(_) => return true,
            LogicalPlan::Limit(limit) => limit.input.as_ref(),
            LogicalPlan::Sort(sort) => sort.input.as_ref(),
            LogicalPlan::Projection(projection) => projection.input.as_ref(),
            LogicalPlan::Filter(filter) => filter.input.as_ref(),
            LogicalPlan::Window(window) => window.input.as_ref(),
            LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
            LogicalPlan::Distinct(distinct) => distinct.input().as_ref(),
            _ => return false,
        };
    }
}
