//! The blanks at the end of `character(n)`: a value is kept with them, and almost nothing sees them.
//!
//! Owns where they are taken off: what takes text is given the value without them, as PostgreSQL's cast to text gives it; what works on the value as it is
//! printed (`concat`, `format`, jsonb, arrays, `octet_length`) or is matched with a pattern of LIKE or a regular expression is given all of it; the pattern itself is
//! text. Operators are settled as they are planned ([`super::exprs`]), memberships in subqueries before this ([`super::comparisons`]). Must not know how
//! casts are done. Called by [`super::optimize::analyse`].

use arrow_schema::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Union, WindowFunctionDefinition,
};
use flowstone_functions::cast::cast_expr;
use flowstone_types::SqlType;
use std::sync::Arc;

use super::keys::refused;

/// Aggregates that give their arguments back as they were printed.
const PRINTED: [&str; 5] = [
    "array_agg",
    "jsonb_agg",
    "json_agg",
    "jsonb_object_agg",
    "json_object_agg",
];

/// Gives functions that take text, and columns of set operations that are text, values without padding.
pub(super) fn take_off(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !mentions_padding(&plan)? {
        return Ok(plan);
    }
    let taken_off = plan.transform_up_with_subqueries(|node| {
        refuse_unnested(&node)?;
        if let LogicalPlan::Union(union) = node {
            return unite(union);
        }
        let schema = input_schema(&node)?;
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|part| rewrite(part, &schema))?;
            Ok(if rewritten.transformed {
                Transformed::yes(name.restore(rewritten.data))
            } else {
                rewritten
            })
        })?;
        node.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(taken_off.data)
}

/// DataFusion's `unnest` forgets that items are `character`: what compares them has taken them for texts, blanks and all.
fn refuse_unnested(node: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Unnest(unnest) = node else {
        return Ok(());
    };
    let fields = unnest.input.schema().fields();
    let is_padded = |(index, _): &(usize, _)| {
        fields
            .get(*index)
            .is_some_and(|field| SqlType::from_field(field).is_ok_and(|list| list.is_padded()))
    };
    if unnest.list_type_columns.iter().any(is_padded) {
        return Err(refused(
            "unnest of an array of character is not supported",
            "Cast the array to text[].",
        ));
    }
    Ok(())
}

/// Whether a padded value can be anywhere in the plan.
fn mentions_padding(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= node
            .schema()
            .fields()
            .iter()
            .any(|field| SqlType::from_field(field).is_ok_and(|found| found.is_padded()));
        if !found {
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    found |= makes_padding(part);
                    Ok(if found {
                        TreeNodeRecursion::Stop
                    } else {
                        TreeNodeRecursion::Continue
                    })
                })
            })?;
        }
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}

/// Whether it is a cast to `character`, or to an array of it.
fn makes_padding(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) if function.name() == "pg_cast" => {
            let to = function.args.last().and_then(|to| match to {
                Expr::Literal(ScalarValue::Utf8(Some(to)), _) => to.parse::<SqlType>().ok(),
                _ => None,
            });
            to.is_some_and(|to| to.is_padded())
        }
        _ => false,
    }
}

fn input_schema(node: &LogicalPlan) -> Result<DFSchemaRef> {
    let mut schema = DFSchema::empty();
    let inputs = node.inputs();
    if inputs.is_empty() {
        return Ok(Arc::clone(node.schema()));
    }
    for input in inputs {
        schema.merge(input.schema());
    }
    Ok(Arc::new(schema))
}

fn padded(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    let (_, field) = expr.to_field(schema).ok()?;
    SqlType::from_field(&field)
        .ok()
        .filter(|sql_type| matches!(sql_type, SqlType::Char(_)))
}

/// Takes the padding off the arguments that `takes` chooses.
fn bare(
    args: Vec<Expr>,
    schema: &DFSchema,
    takes: impl Fn(usize) -> bool,
) -> Result<Transformed<Vec<Expr>>> {
    let mut changed = false;
    let args = args
        .into_iter()
        .enumerate()
        .map(|(index, arg)| match padded(&arg, schema) {
            Some(from) if takes(index) => {
                changed = true;
                cast_expr(arg, &from, &SqlType::Text)
            }
            _ => Ok(arg),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Transformed::new_transformed(args, changed))
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let types: Vec<DataType> = args
                .iter()
                .map(|arg| arg.get_type(schema).unwrap_or(DataType::Null))
                .collect();
            let takes = |index| flowstone_functions::takes_text(&func, &types, index);
            let args = bare(args, schema, takes)?;
            Ok(args.update_data(|args| Expr::ScalarFunction(ScalarFunction::new_udf(func, args))))
        }
        Expr::AggregateFunction(AggregateFunction { func, mut params })
            if !PRINTED.contains(&func.name()) =>
        {
            let args = bare(std::mem::take(&mut params.args), schema, |_| true)?;
            Ok(args.update_data(|args| {
                params.args = args;
                Expr::AggregateFunction(AggregateFunction { func, params })
            }))
        }
        Expr::WindowFunction(mut window) => {
            let printed = matches!(&window.fun, WindowFunctionDefinition::AggregateUDF(function)
                if PRINTED.contains(&function.name()));
            let WindowFunction { params, .. } = &mut *window;
            let args = bare(std::mem::take(&mut params.args), schema, |_| !printed)?;
            Ok(args.update_data(|args| {
                window.params.args = args;
                Expr::WindowFunction(window)
            }))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether values of a type, or their items, are of characters.
fn is_characters(sql_type: &SqlType) -> bool {
    match sql_type {
        SqlType::Array(element) => is_characters(element),
        other => super::exprs::is_text(other),
    }
}

/// Columns of a UNION whose types differ are padded each as it was, or not at all: the first type says which.
fn unite(union: Union) -> Result<Transformed<LogicalPlan>> {
    let types = |input: &LogicalPlan| {
        let fields = input.schema().fields().iter();
        fields
            .map(|field| SqlType::from_field(field).ok())
            .collect::<Vec<_>>()
    };
    let all: Vec<_> = union.inputs.iter().map(|input| types(input)).collect();
    let padded_first = |column: usize| {
        let first = all.first().and_then(|types| types.get(column)?.as_ref());
        first.filter(|first| first.is_padded())
    };
    let mixed = |column: usize| {
        let mut of_column = all.iter().map(|types| types.get(column));
        let first = of_column.next();
        of_column.any(|other| Some(other) != first)
    };
    let to = |column: usize, from: &SqlType| {
        let to = match padded_first(column) {
            _ if !mixed(column) => return None,
            Some(first) if is_characters(from) => first.without_modifier(),
            _ => from.without_padding(),
        };
        (to != *from).then_some(to)
    };
    let must = all.iter().any(|types| {
        let mut columns = types.iter().enumerate();
        columns.any(|(column, from)| from.as_ref().is_some_and(|from| to(column, from).is_some()))
    });
    if !must {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let inputs = union
        .inputs
        .into_iter()
        .map(|input| {
            let schema = Arc::clone(input.schema());
            let columns = schema
                .columns()
                .into_iter()
                .zip(types(&input))
                .enumerate()
                .map(|(index, (column, from))| {
                    let Some((from, to)) = from.and_then(|from| {
                        let to = to(index, &from)?;
                        Some((from, to))
                    }) else {
                        return Ok(Expr::Column(column));
                    };
                    let name = column.name.clone();
                    let qualifier = column.relation.clone();
                    let value = cast_expr(Expr::Column(column), &from, &to)?;
                    Ok(value.alias_qualified(qualifier, name))
                })
                .collect::<Result<Vec<_>>>()?;
            LogicalPlanBuilder::from(input)
                .project(columns)?
                .build()
                .map(Arc::new)
        })
        .collect::<Result<Vec<_>>>()?;
    Union::try_new_with_loose_types(inputs)
        .map(LogicalPlan::Union)
        .map(Transformed::yes)
}
