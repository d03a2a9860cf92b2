//! Whether subqueries in place of values can be NULL.
//!
//! Owns one correction: to DataFusion such a subquery is NULL only if its column is, and it is also where there is no row. What cannot have one row
//! always stands as the argument of a cast to its own type, whose result may be NULL whatever the rules make of the subquery, and the schemas of
//! everything around it say so. Must not know how subqueries become joins. Called by [`super::optimize::analyse`] when types are coerced.
//!
//! Invariants. A plan without such subqueries is returned as it is. Plans keep the names and types of their columns.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, Filter, LogicalPlan, Operator, Subquery, Union, lit,
};
use flowstone_types::SqlType;

use super::exprs::call;

/// Makes the values of subqueries nullable that may have no row.
pub(super) fn of_subqueries(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !has_such(&plan)? {
        return Ok(plan);
    }
    let mut plan = plan.transform_up_with_subqueries(mark)?.data;
    // Columns that were not nullable before: queries inside may ask for them.
    let mut gained: Vec<Column> = Vec::new();
    loop {
        let known = gained.len();
        plan = plan
            .transform_up_with_subqueries(|node| renew(node, &mut gained))?
            .data;
        if gained.len() == known {
            return Ok(plan);
        }
    }
}

/// Whether a subquery in place of a value yields one row, whatever there is.
fn has_a_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => has_a_row(&projection.input),
        LogicalPlan::Window(window) => has_a_row(&window.input),
        LogicalPlan::Sort(sort) => sort.fetch.is_none() && has_a_row(&sort.input),
        LogicalPlan::SubqueryAlias(alias) => has_a_row(&alias.input),
        LogicalPlan::Distinct(Distinct::All(input)) => has_a_row(input),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        _ => false,
    }
}

fn may_lack_its_row(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(subquery) if !has_a_row(&subquery.subquery))
}

fn has_such(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|part| Ok(may_lack_its_row(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}

/// Puts the cast around the subqueries of a node's expressions.
fn mark(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Filter(Filter {
        predicate, input, ..
    }) = node
    {
        let mut conjuncts = Vec::new();
        for conjunct in split_conjunction_owned(predicate) {
            // Here NULL is false, and rules make inner joins of it.
            conjuncts.push(if is_comparison_with_one(&conjunct)? {
                conjunct
            } else {
                marked(conjunct)?.data
            });
        }
        let predicate = conjunction(conjuncts).unwrap_or_else(|| lit(true));
        return Filter::try_new(predicate, input)
            .map(LogicalPlan::Filter)
            .map(Transformed::yes);
    }
    let names = NamePreserver::new(&node);
    node.map_expressions(|expr| {
        let name = names.save(&expr);
        let marked = marked(expr)?;
        Ok(if marked.transformed {
            Transformed::yes(name.restore(marked.data))
        } else {
            marked
        })
    })
}

/// Whether an expression compares a subquery with something else.
fn is_comparison_with_one(expr: &Expr) -> Result<bool> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return Ok(false);
    };
    let compares = matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
    );
    let other = match (may_lack_its_row(left), may_lack_its_row(right)) {
        (true, false) => right,
        (false, true) => left,
        _ => return Ok(false),
    };
    let holds_another = other.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_)
        ))
    })?;
    Ok(compares && !holds_another)
}

fn marked(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|part| match part {
        Expr::ScalarSubquery(subquery) if !has_a_row(&subquery.subquery) => nullable(subquery),
        other => Ok(Transformed::no(other)),
    })
}

fn nullable(subquery: Subquery) -> Result<Transformed<Expr>> {
    let field = Arc::clone(subquery.subquery.schema().field(0));
    let value = Expr::ScalarSubquery(subquery);
    match SqlType::from_field(&field) {
        Ok(sql_type) if super::same_layout(field.data_type(), &sql_type.to_arrow()) => {
            let name = sql_type.to_string();
            let cast = call("pg_cast", vec![value, lit(name.clone()), lit(name)])?;
            Ok(Transformed::yes(cast))
        }
        // A row: whether it is NULL is asked of its fields.
        _ => Ok(Transformed::no(value)),
    }
}

/// Computes a node's schema anew, and lets what subqueries ask for be NULL where it can be. Adds the columns that became nullable to `gained`.
fn renew(node: LogicalPlan, gained: &mut Vec<Column>) -> Result<Transformed<LogicalPlan>> {
    let before = Arc::clone(node.schema());
    let names = NamePreserver::new(&node);
    let asked = gained.as_slice();
    let node = node
        .map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|part| match part {
                Expr::OuterReferenceColumn(field, column)
                    if !field.is_nullable() && asked.contains(&column) =>
                {
                    let field = Arc::new(field.as_ref().clone().with_nullable(true));
                    Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })?
        .data;
    let node = match node {
        LogicalPlan::Union(union) => united(union).map(LogicalPlan::Union)?,
        other => other.recompute_schema()?,
    };
    for ((qualifier, now), was) in node.schema().iter().zip(before.fields()) {
        if now.is_nullable() && !was.is_nullable() {
            let column = Column::from((qualifier, now));
            if !gained.contains(&column) {
                gained.push(column);
            }
        }
    }
    Ok(Transformed::yes(node))
}

/// A union with columns that are nullable where those of an input are.
fn united(union: Union) -> Result<Union> {
    let fields = union
        .schema
        .iter()
        .enumerate()
        .map(|(index, (qualifier, field))| {
            let nullable = union.inputs.iter().any(|input| {
                let of_input = input.schema().fields().get(index);
                of_input.is_some_and(|field| field.is_nullable())
            });
            let field = if nullable {
                Arc::new(field.as_ref().clone().with_nullable(true))
            } else {
                Arc::clone(field)
            };
            (qualifier.cloned(), field)
        })
        .collect();
    let schema = DFSchema::new_with_metadata(fields, union.schema.metadata().clone())?
        .with_functional_dependencies(union.schema.functional_dependencies().clone())?;
    Ok(Union {
        schema: Arc::new(schema),
        ..union
    })
}
