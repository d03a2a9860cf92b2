//! The tables as `pg_proc` has them: names, and OIDs of parameters and results.

use flowstone_types::SqlType;

use super::signature::{Param, Signature};
use super::{
    CallError, Given, aggregates, resolve_aggregate, resolve_scalar, resolve_window, scalars,
};
use crate::described::{FunctionKind, FunctionSignature, pseudo};

/// Every function, aggregate and window function that a statement may name, without OIDs of their own.
pub(crate) fn listed() -> Vec<FunctionSignature> {
    let mut all = Vec::new();
    for name in scalars::names().filter(|name| scalars::is_callable(name)) {
        all.extend(scalars::named(name).iter().map(|signature| {
            let result = |given: &[Given]| resolve_scalar(name, given).map(|call| call.result);
            entry(name, FunctionKind::Scalar, signature, result)
        }));
    }
    let (aggregates, windows) = aggregates::names();
    for name in aggregates {
        all.extend(aggregates::aggregate(name).iter().map(|signature| {
            let result = |given: &[Given]| resolve_aggregate(name, given).map(|call| call.result);
            entry(name, FunctionKind::Aggregate, signature, result)
        }));
    }
    for name in windows {
        all.extend(aggregates::window(name).iter().map(|signature| {
            let result = |given: &[Given]| resolve_window(name, given).map(|call| call.result);
            entry(name, FunctionKind::Window, signature, result)
        }));
    }
    all
}

fn entry<M>(
    name: &str,
    kind: FunctionKind,
    signature: &Signature<M>,
    result: impl Fn(&[Given]) -> Result<SqlType, CallError>,
) -> FunctionSignature {
    let params = &signature.params;
    FunctionSignature {
        oid: 0,
        name: name.to_owned(),
        kind,
        arguments: params.iter().map(oid_of).collect(),
        variadic: signature.variadic,
        result: result_oid(params, result),
        returns_set: signature.returns_set,
    }
}

/// `pg_type` has no `anycompatible`, which PostgreSQL has since 14: before, these were `anyelement` and `anyarray`.
fn oid_of(param: &Param) -> u32 {
    match param {
        Param::Of(sql_type) => sql_type.oid(),
        Param::Any => pseudo::ANY,
        Param::Element | Param::NonArray | Param::Compatible => pseudo::ANY_ELEMENT,
        Param::Array | Param::CompatibleArray => pseudo::ANY_ARRAY,
    }
}

/// The type of the result: a polymorphic one if it differs with the types that polymorphic parameters stand for.
fn result_oid(params: &[Param], result: impl Fn(&[Given]) -> Result<SqlType, CallError>) -> u32 {
    let with = |item: SqlType| {
        let given: Vec<Given> = params
            .iter()
            .map(|param| match param {
                Param::Of(sql_type) => sql_type.clone(),
                Param::Array | Param::CompatibleArray => SqlType::Array(Box::new(item.clone())),
                Param::Any | Param::Element | Param::NonArray | Param::Compatible => item.clone(),
            })
            .map(Given::Of)
            .collect();
        result(&given)
    };
    match (with(SqlType::Int4), with(SqlType::Text)) {
        (Ok(one), Ok(other)) if one == other => one.oid(),
        (Ok(SqlType::Array(_)), _) => pseudo::ANY_ARRAY,
        _ => pseudo::ANY_ELEMENT,
    }
}
