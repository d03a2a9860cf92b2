//! Every signature of the tables: that it is found for its own types, and that its expression has the type that is promised.

use std::collections::HashMap;

use arrow_schema::Fields;
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::ExprSchemable;
use itertools::Itertools;

use super::super::signature::{Param, Signature};
use super::super::{aggregates, operators, scalars};
use super::*;

/// A type that the parameter takes.
fn taken_by(param: &Param) -> SqlType {
    match param {
        Param::Of(sql_type) => sql_type.clone(),
        Param::Any | Param::Element | Param::NonArray | Param::Compatible => SqlType::Int4,
        Param::Array | Param::CompatibleArray => array(SqlType::Int4),
    }
}

fn own_types<M>(signature: &Signature<M>) -> Vec<Given> {
    signature
        .params
        .iter()
        .map(|param| Given::Of(taken_by(param)))
        .collect()
}

/// Columns of these types, and the schema they are of.
fn columns(types: &[SqlType]) -> (Vec<Expr>, DFSchema) {
    let names: Vec<String> = (0..types.len()).map(|index| format!("c{index}")).collect();
    let fields: Fields = types
        .iter()
        .zip_eq(&names)
        .map(|(sql_type, name)| sql_type.to_field(name, true))
        .collect();
    let args = names
        .iter()
        .map(|name| Expr::Column(Column::from_name(name)))
        .collect();
    let schema = DFSchema::from_unqualified_fields(fields, HashMap::new()).unwrap();
    (args, schema)
}

fn type_in(expr: &Expr, schema: &DFSchema) -> SqlType {
    let (_, field) = expr.to_field(schema).unwrap();
    SqlType::from_field(&field).unwrap()
}

#[test]
fn every_operator_is_found_for_its_own_types() {
    for (symbol, signatures) in operators::all_binary() {
        for signature in signatures {
            let given = own_types(signature);
            let [left, right] = given.as_slice() else {
                panic!("{symbol} has two operands");
            };
            let call = resolve_operator(symbol, Some(left), right)
                .unwrap_or_else(|error| panic!("{left} {symbol} {right}: {error}"));
            let (args, schema) = columns(&call.arguments);
            let expr = call.expr(args).unwrap();
            assert_eq!(
                type_in(&expr, &schema),
                call.result,
                "{left} {symbol} {right}"
            );
        }
    }
}

#[test]
fn every_function_is_found_for_its_own_types() {
    for name in scalars::names() {
        for signature in scalars::named(name) {
            let given = own_types(signature);
            let call = resolve_scalar(name, &given)
                .unwrap_or_else(|error| panic!("{name}: {error} for {given:?}"));
            let (args, schema) = columns(&call.arguments);
            let expr = call.expr(args).unwrap();
            let expected = if call.returns_set {
                match call.arguments.as_slice() {
                    [vector] if vector.is_vector() => vector.clone(),
                    _ => array(call.result.clone()),
                }
            } else {
                call.result.clone()
            };
            assert_eq!(type_in(&expr, &schema), expected, "{name} of {given:?}");
        }
    }
}

#[test]
fn every_aggregate_and_window_function_is_found_for_its_own_types() {
    let (aggregates, windows) = aggregates::names();
    for name in &aggregates {
        for signature in aggregates::aggregate(name) {
            let given = own_types(signature);
            let call = resolve_aggregate(name, &given)
                .unwrap_or_else(|error| panic!("{name}: {error} for {given:?}"));
            let (args, schema) = columns(&call.arguments);
            let expr = call.expr(args).unwrap();
            assert_eq!(type_in(&expr, &schema), call.result, "{name} of {given:?}");
        }
    }
    for name in &windows {
        for signature in aggregates::window(name) {
            let given = own_types(signature);
            let call = resolve_window(name, &given)
                .unwrap_or_else(|error| panic!("{name}: {error} for {given:?}"));
            let (args, schema) = columns(&call.arguments);
            let expr = call.expr(args).unwrap();
            assert_eq!(type_in(&expr, &schema), call.result, "{name} of {given:?}");
        }
    }
    assert_eq!(
        windows,
        [
            "cume_dist",
            "dense_rank",
            "first_value",
            "lag",
            "last_value",
            "lead",
            "nth_value",
            "ntile",
            "percent_rank",
            "rank",
            "row_number"
        ]
    );
    assert!(aggregates.contains(&"variance") && aggregates.contains(&"regr_slope"));
}

#[test]
fn unary_operators_are_found() {
    for (symbol, types) in [
        ("+", "integer"),
        ("-", "interval"),
        ("@", "numeric"),
        ("|/", "double precision"),
        ("||/", "integer"),
        ("~", "smallint"),
    ] {
        let given = given(types);
        let [right] = given.as_slice() else {
            panic!("{symbol} has one operand");
        };
        let call = resolve_operator(symbol, None, right).unwrap();
        let (args, schema) = columns(&call.arguments);
        let expr = call.expr(args).unwrap();
        assert_eq!(type_in(&expr, &schema), call.result, "{symbol} {types}");
    }
}

#[test]
fn results_keep_what_only_fields_say() {
    for (name, types) in [
        ("coalesce", "regclass, regclass"),
        ("coalesce", "character(3), character(3)"),
        ("greatest", "character varying(3), character varying(3)"),
        ("array_append", "oid[], oid"),
        ("array_remove", "character(3)[], character(3)"),
        ("make_array", "mz_timestamp, mz_timestamp"),
        ("nullif", "name, name"),
    ] {
        let call = resolve_scalar(name, &given(types)).unwrap();
        let (args, schema) = columns(&call.arguments);
        let expr = call.expr(args).unwrap();
        assert_eq!(type_in(&expr, &schema), call.result, "{name} of {types}");
    }
}
