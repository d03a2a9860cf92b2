//! Calls of functions and aggregates.
//!
//! Owns which names are functions, and those that are planned as something else. Called by [`super::expressions`].

use flowstone_types::SqlType;
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident,
    ObjectName,
};

use super::tables::{SET_RETURNING, array_function};
use super::terms::{call, cast, marker, must_be_boolean, protect, string};
use crate::error::{Error, ErrorKind};
use crate::plan::names::{self, quoted};
use crate::plan::subqueries::array_subquery;
use crate::plan::{PlanContext, catalog_functions};

/// Functions whose arguments are an array and items of it, or arrays of the same items.
const ARRAY_FUNCTIONS: [&str; 7] = [
    "array_append",
    "array_cat",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_replace",
];

pub(super) fn rewrite_function(
    ctx: &PlanContext<'_>,
    mut function: Function,
) -> Result<Expr, Error> {
    let parts = names::fold_name(&function.name);
    let Some(name) = parts.last().cloned() else {
        return Ok(Expr::Function(function));
    };
    if parts.len() > 1
        && !parts.first().is_some_and(|schema| {
            [
                "pg_catalog",
                "mz_catalog",
                "mz_internal",
                "information_schema",
            ]
            .contains(&schema.as_str())
        })
    {
        return Err(Error::new(
            ErrorKind::UndefinedFunction,
            format!("function {} does not exist", parts.join(".")),
        ));
    }
    function.name = ObjectName::from(vec![quoted(&name)]);
    if let FunctionArguments::Subquery(query) = function.args {
        if name != "array" {
            return Err(Error::syntax(format!(
                "function {name} cannot take a bare subquery"
            )));
        }
        return array_subquery(*query);
    }
    let plain =
        function.over.is_none() && function.filter.is_none() && function.within_group.is_empty();
    if plain && let Some(arguments) = plain_arguments(&function.args) {
        if let Some(rewritten) = catalog_functions::rewrite(ctx, &name, arguments)? {
            return Ok(rewritten);
        }
        if let Some(rewritten) = special_form(&name, arguments)? {
            return Ok(rewritten);
        }
    }
    if plain
        && ARRAY_FUNCTIONS.contains(&name.as_str())
        && let Some(arguments) = plain_arguments(&function.args)
        && !arguments.is_empty()
    {
        let values = arguments.iter().filter_map(argument_expr).collect();
        return Ok(marker(&format!("arrays:{name}"), values));
    }
    if function.over.is_some()
        && matches!(
            name.as_str(),
            "row_number" | "rank" | "dense_rank" | "ntile"
        )
    {
        let result = if name == "ntile" {
            SqlType::Int4
        } else {
            SqlType::Int8
        };
        return Ok(cast(Expr::Function(function), &result));
    }
    if plain
        && name != "unnest"
        && SET_RETURNING.contains(&name.as_str())
        && let Some(arguments) = plain_arguments(&function.args)
    {
        let values = arguments.iter().filter_map(argument_expr).collect();
        return Ok(call(
            "unnest",
            vec![marker(&format!("set:{}", array_function(&name)), values)],
        ));
    }
    let functions = flowstone_functions::registry();
    let known = matches!(
        name.as_str(),
        "jsonb_agg" | "json_agg" | "jsonb_object_agg" | "json_object_agg"
    ) || functions.scalar(&name).is_some()
        || functions.aggregate(&name).is_some()
        || functions.window(&name).is_some()
        || name == "unnest";
    if !known {
        let mut arguments: Vec<Expr> = plain_arguments(&function.args)
            .unwrap_or_default()
            .iter()
            .filter_map(argument_expr)
            .collect();
        arguments.insert(0, string(name));
        return Ok(marker("unknown function", arguments));
    }
    if let Some(condition) = function.filter.take() {
        function.filter = Some(Box::new(must_be_boolean("FILTER", *condition)));
    }
    if matches!(
        name.as_str(),
        "jsonb_agg" | "json_agg" | "jsonb_object_agg" | "json_object_agg"
    ) && function.over.is_none()
    {
        return json_aggregate(function, name.contains("object"));
    }
    if matches!(name.as_str(), "string_agg" | "array_agg") && function.over.is_none() {
        order_distinct(&mut function);
        protect_order(&mut function);
        if name == "array_agg" {
            return Ok(marker("array", vec![Expr::Function(function)]));
        }
    }
    Ok(Expr::Function(function))
}

/// `jsonb_agg(x)` is the array of the values, `jsonb_object_agg(k, v)` the arrays of both, put together.
fn json_aggregate(function: Function, object: bool) -> Result<Expr, Error> {
    let FunctionArguments::List(list) = &function.args else {
        return Err(Error::syntax("an aggregate of jsonb takes arguments"));
    };
    let over = |argument: Expr| {
        let mut collected = function.clone();
        collected.name = ObjectName::from(vec![Ident::new("array_agg")]);
        if let FunctionArguments::List(list) = &mut collected.args {
            list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))];
        }
        protect_order(&mut collected);
        Expr::Function(collected)
    };
    let values: Vec<Expr> = list.args.iter().filter_map(argument_expr).collect();
    match (object, values.as_slice()) {
        (false, [value]) => Ok(call("to_jsonb", vec![over(value.clone())])),
        (true, [key, value]) => Ok(call(
            "jsonb_object_lists",
            vec![
                over(marker("printed", vec![key.clone()])),
                over(call("to_jsonb", vec![value.clone()])),
            ],
        )),
        _ => Err(Error::syntax(
            "wrong number of arguments to an aggregate of jsonb",
        )),
    }
}

/// `array_agg(DISTINCT x)` yields its items in order.
fn order_distinct(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else {
        return;
    };
    let distinct = list.duplicate_treatment == Some(sqlparser::ast::DuplicateTreatment::Distinct);
    if distinct
        && list.clauses.is_empty()
        && let Some(item) = list.args.first().and_then(argument_expr)
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(vec![
            sqlparser::ast::OrderByExpr {
                expr: item,
                options: sqlparser::ast::OrderByOptions {
                    asc: None,
                    nulls_first: None,
                },
                with_fill: None,
            },
        ]));
    }
}

fn protect_order(function: &mut Function) {
    if let FunctionArguments::List(list) = &mut function.args {
        for clause in &mut list.clauses {
            if let FunctionArgumentClause::OrderBy(order) = clause {
                for item in order {
                    protect(&mut item.expr);
                }
            }
        }
    }
}

fn plain_arguments(arguments: &FunctionArguments) -> Option<&[FunctionArg]> {
    match arguments {
        FunctionArguments::None => Some(&[]),
        FunctionArguments::List(list)
            if list.duplicate_treatment.is_none() && list.clauses.is_empty() =>
        {
            Some(&list.args)
        }
        _ => None,
    }
}

/// The expression of an unnamed argument.
pub(in crate::plan) fn argument_expr(argument: &FunctionArg) -> Option<Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    }
}

/// Calls whose arguments must come to one type.
fn special_form(name: &str, arguments: &[FunctionArg]) -> Result<Option<Expr>, Error> {
    if !matches!(name, "coalesce" | "nullif" | "greatest" | "least") {
        return Ok(None);
    }
    let values: Vec<Expr> = arguments.iter().filter_map(argument_expr).collect();
    let right_count = if name == "nullif" {
        values.len() == 2
    } else {
        !values.is_empty()
    };
    if !right_count {
        return Err(Error::syntax(format!(
            "wrong number of arguments to {}",
            name.to_uppercase()
        )));
    }
    Ok(Some(marker(&format!("unify:{name}"), values)))
}
