//! `set_config`: the function that assigns a variable of the session.
//!
//! Owns where it may stand: in the SELECT list of a query that reads nothing, with constants, so that it is known beforehand what is assigned.
//! Must not know variables. Called by the coordinator before it runs a query; planning yields the value that is assigned.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, SelectItem, SetExpr,
    Value, Visit, Visitor,
};

use crate::ast::{SetValue, SetVariable};
use crate::error::Error;
use crate::names;

/// What a query assigns, in order.
///
/// # Errors
/// If it calls `set_config` elsewhere or otherwise.
pub fn assignments(query: &Query) -> Result<Vec<SetVariable>, Error> {
    let mut counter = Counter(0);
    // The visitor never breaks.
    let _ = query.visit(&mut counter);
    if counter.0 == 0 {
        return Ok(Vec::new());
    }
    let assigned: Vec<SetVariable> = match &*query.body {
        SetExpr::Select(select) if select.from.is_empty() && select.selection.is_none() => select
            .projection
            .iter()
            .filter_map(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    assignment(expr)
                }
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    if assigned.len() == counter.0 {
        Ok(assigned)
    } else {
        Err(misplaced())
    }
}

/// What is wrong with a call of `set_config` that cannot be known beforehand.
pub(crate) fn misplaced() -> Error {
    Error::unsupported("set_config is only supported in the SELECT list of a query without FROM")
        .with_hint("Call it with constants, or use SET.")
}

struct Counter(usize);

impl Visitor for Counter {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.0 += usize::from(call(expr).is_some());
        ControlFlow::Continue(())
    }
}

fn call(expr: &Expr) -> Option<&Function> {
    match expr {
        Expr::Function(function)
            if names::fold_name(&function.name).last().map(String::as_str)
                == Some("set_config") =>
        {
            Some(function)
        }
        _ => None,
    }
}

fn assignment(expr: &Expr) -> Option<SetVariable> {
    let FunctionArguments::List(list) = &call(expr)?.args else {
        return None;
    };
    let arguments: Vec<&Expr> = list
        .args
        .iter()
        .filter_map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect();
    let [name, value, local] = arguments.as_slice() else {
        return None;
    };
    let Value::Boolean(local) = literal(local)? else {
        return None;
    };
    let (Value::SingleQuotedString(name), Value::SingleQuotedString(value)) =
        (literal(name)?, literal(value)?)
    else {
        return None;
    };
    let name = name.to_lowercase();
    let values = if name == "search_path" {
        value
            .split(',')
            .map(|schema| schema.trim().to_owned())
            .collect()
    } else {
        vec![value.clone()]
    };
    Some(SetVariable {
        local: *local,
        name,
        value: SetValue::Values(values),
    })
}

fn literal(expr: &Expr) -> Option<&Value> {
    match expr {
        Expr::Value(value) => Some(&value.value),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => literal(expr),
        _ => None,
    }
}
